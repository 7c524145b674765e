from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gitian.errors import DownloadError
from gitian.update import feed

RSS = b"""<?xml version="1.0" encoding="UTF-8"?>
<rss xmlns:atom="http://www.w3.org/2005/Atom"><channel><link>https://x/channel</link>
<atom:link href="https://x/self"/>
<item><link>https://x/a &amp; b</link><enclosure url="https://x/enclosed.zip"/><guid> https://x/guid </guid></item>
<item><link></link><title>t</title></item></channel></rss>"""


@pytest.mark.parametrize("xpath, expected", [
    ("//item/link/text()", ["https://x/a & b"]),
    ("//item/link", ["https://x/a & b"]),
    ("/rss/channel/link", ["https://x/channel"]),
    ("/channel/link", []),
    ("//link", ["https://x/channel", "https://x/a & b"]),
    ("//channel//title/text()", ["t"]),
    ("//channel/title/text()", []),
    ("//item/*/@url", ["https://x/enclosed.zip"]),
    ("//atom:link/@href", ["https://x/self"]),
    ("//link/@href", ["https://x/self"]),
    (None, ["https://x/a & b", "https://x/enclosed.zip", "https://x/guid"]),
])
def test_paths(xpath: str | None, expected: list[str]) -> None:
    assert feed.texts(RSS, xpath, "test") == expected


@pytest.mark.parametrize("xpath", ["", "item", "//item[1]", "//item/text()/x", "//item//text()", "//", "text()",
                                   "//item/link | //guid", "count(//item)"])
def test_paths_that_are_not_understood(xpath: str) -> None:
    with pytest.raises(ValueError, match="xpath"):
        feed.Path.parse(xpath)


def test_the_newest_release_wins_and_without_one_the_first_link() -> None:
    document = b"<rss><item><link>/p-1.9.zip</link></item><item><link>/p-1.10.zip</link></item></rss>"
    found = feed.newest(document, xpath=None, pattern=r"p-(\d+\.\d+)\.zip", source="https://x/dir/feed")
    assert found == feed.Found(url="https://x/p-1.10.zip", release="1.10")
    found = feed.newest(document, xpath=None, pattern=r"p-\d+\.\d+\.zip", source="https://x/dir/feed")
    assert found == feed.Found(url="https://x/p-1.9.zip", release=None)
    assert feed.newest(document, xpath=None, pattern="q", source="https://x/feed") is None


def test_a_feed_from_the_web_names_no_local_files() -> None:
    document = b"<rss><item><link>file:///etc/p-1.0.zip</link></item></rss>"
    assert feed.newest(document, xpath=None, pattern="p-", source="https://x/feed") is None
    assert feed.newest(document, xpath=None, pattern="p-", source="file:///mnt/feed") is not None


@pytest.mark.parametrize("document, said", [
    (b"", "not XML"), (b"<html><body>gone<br></html>", "not XML"), (b"\xff\xfe\x00", "not XML"),
    (b"<?xml version='1.0' encoding='klingon'?><rss/>", "not XML"),
    (b"<!DOCTYPE rss><rss/>", "document type"),
    (b'<!DOCTYPE r [<!ENTITY x "y">]><r>&x;</r>', "document type"),
    (b"<a>" * 300 + b"</a>" * 300, "deep"),
    (b"<rss>" + b"<item><link>x</link></item>" * 100_001 + b"</rss>", "more than 100000 links"),
])
def test_feeds_that_are_refused(document: bytes, said: str) -> None:
    with pytest.raises(DownloadError, match=said):
        feed.texts(document, None, "test")


@given(st.binary(max_size=300))
def test_rubbish_is_an_error_of_ours(document: bytes) -> None:
    with contextlib.suppress(DownloadError):
        feed.texts(document, None, "test")
