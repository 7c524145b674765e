"""The record of what was fetched, and how apt's names of indices become URLs again."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, cast

import pytest

from gitian.environment.indices import SourceLine
from gitian.environment.lists import fetched_indices, url_of
from gitian.errors import GuestError
from gitian.formats import fetched
from gitian.formats.fetched import Fetched
from gitian.guest.protocol import Guest, Result

A, B = "a" * 64, "b" * 64


def test_a_line_per_file_sorted_by_url() -> None:
    files = [Fetched(url="http://b.example/x", size=2, sha256=B, pooled=True),
             Fetched(url="http://a.example/x", size=1, sha256=A), Fetched(url="http://a.example/x", size=1, sha256=A),
             Fetched(url="https://user:secret@c.example/x", size=3, sha256="")]
    data = fetched.to_json("bookworm-amd64", False, files)
    assert json.loads(data) == {
        "version": 1, "target": "bookworm-amd64", "network": False, "fetched": [
            {"url": "http://a.example/x", "size": 1, "sha256": A},
            {"url": "http://b.example/x", "size": 2, "sha256": B, "from": "pool"},
            {"url": "https://c.example/x", "size": 3}]}
    assert len([line for line in data.splitlines() if b'"url"' in line]) == 3
    assert data == fetched.to_json("bookworm-amd64", False, reversed(files))
    assert json.loads(fetched.to_json("x", True, []))["fetched"] == []


@pytest.mark.parametrize(("url", "told"), [
    ("http://[x/", "http://[x/"), ("http://u:p@[x/y@z", "http://[x/y@z"), ("//a@b/c", "//b/c"),
    ("file:/x//u@y", "file:/x//u@y"), ("http://a.example?u@b", "http://a.example?u@b"), ("", ""),
    ("http://u@p@a.example/x", "http://a.example/x")])
def test_what_is_no_url_can_be_told_too(url: str, told: str) -> None:
    """A guest's apt may have a file of any name among its indices."""
    data = fetched.to_json("x", True, [Fetched(url=url, size=1, sha256=A)])
    assert json.loads(data)["fetched"][0]["url"] == told


@pytest.mark.parametrize(("line", "path", "url"), [
    ("deb http://a.example/debian bookworm main", "dists/bookworm/main/binary-amd64/Packages",
     "http://a.example/debian/dists/bookworm/main/binary-amd64/Packages"),
    ("deb [trusted=yes] https://a.example:8080/a_b/ ./", "Release", "https://a.example:8080/a_b/./Release"),
    ("deb http://a.example/debian bookworm/updates main", "dists/bookworm/updates/InRelease",
     "http://a.example/debian/dists/bookworm/updates/InRelease")])
def test_the_url_of_an_index(line: str, path: str, url: str) -> None:
    words = [word for word in line.split() if not word.startswith("[")]
    source = SourceLine(uri=words[1], suite=words[2])
    name = source.list_name(path.removeprefix(f"dists/{source.suite}/"))
    assert url_of(name, {source.list_name(""): source.url(""), "a.example_": "http://a.example/"}) == url


def test_an_index_of_no_source_keeps_what_its_name_tells() -> None:
    assert url_of("x.example_a%5fb_InRelease", {}) == "//x.example/a_b/InRelease"
    assert url_of("_srv_archive_Packages", {}) == "file:/srv/archive/Packages"


class Lists:
    """A guest whose find says this."""

    def __init__(self, said: str) -> None:
        self.said = said

    def run(self, command: Sequence[str], **more: Any) -> Result:
        assert command[0] == "find" and more["cwd"] == "/var/lib/apt/lists"
        return Result(status=0, stdout=self.said.encode())


def test_every_index_in_the_guest_with_size_and_hash() -> None:
    said = f"12  a.example_d_dists_s_InRelease\n7  z\n{A}  ./a.example_d_dists_s_InRelease\n{B}  ./z\n"
    assert fetched_indices(cast(Guest, Lists(said)), ["deb http://a.example/d s main", "deb file:/srv x main"]) == [
        Fetched(url="http://a.example/d/dists/s/InRelease", size=12, sha256=A), Fetched(url="//z", size=7, sha256=B)]
    for name in ("[x_InRelease", "%5bx_InRelease", "h.example:abc_dists_s_InRelease"):
        with pytest.raises(GuestError, match="stands for no URL"):
            fetched_indices(cast(Guest, Lists(f"12  {name}\n{A}  ./{name}\n")),
                            ["deb http://[x/ s main", "deb http://h.example:abc/ s main"])
    address = "%5b::1%5d:8080_dists_s_InRelease"
    assert fetched_indices(cast(Guest, Lists(f"12  {address}\n{A}  ./{address}\n")), [])[0].url == \
        "//[::1]:8080/dists/s/InRelease"
    for bad in ("12  a\n", f"{A}  ./a\n", "a\nb\n", f"12  a b\n{A}  ./a b\n"):
        with pytest.raises(GuestError):
            fetched_indices(cast(Guest, Lists(bad)), [])
