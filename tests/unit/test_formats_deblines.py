"""Lines of sources.list: their words, and which of them are a distro's own."""

from __future__ import annotations

import pytest

from gitian.errors import UsageError
from gitian.formats.deblines import deb_words, own_lines, pocket_of, seen_from_here
from gitian.images.offers import own_sources, stated

MAIN = "deb http://10.0.2.2:3142/archive.example/debian bookworm main contrib"
UPDATES = "deb http://10.0.2.2:3142/archive.example/debian bookworm-updates main"
SECURITY = "deb [arch=amd64] http://security.example/debian-security bookworm-security main"
OTHERS = ("deb http://ppa.example/x bookworm main", "deb http://archive.example/debian trixie main",
          "deb http://flat.example/x ./", "deb-src http://archive.example/debian bookworm main", "", "nonsense",
          "deb http://archive.example/debian bookworm-backports main", "deb http://archive.example/debian bookworm")


@pytest.mark.parametrize("line, words", [
    (MAIN, ["deb", "http://10.0.2.2:3142/archive.example/debian", "bookworm", "main", "contrib"]),
    (SECURITY, ["deb", "http://security.example/debian-security", "bookworm-security", "main"]),
    ("deb [ arch=amd64 trusted=yes ] http://x.example y z", ["deb", "http://x.example", "y", "z"]),
    ("deb", ["deb"]), ("deb-src http://x.example y z", []), ("# deb http://x.example y z", []), ("", [])])
def test_words(line: str, words: list[str]) -> None:
    assert deb_words(line) == words


def test_the_distro_s_own_lines() -> None:
    lines = (OTHERS[1], MAIN, OTHERS[0], UPDATES, *OTHERS[2:], SECURITY)
    assert own_lines(lines, "bookworm") == ((MAIN, UPDATES, SECURITY), (OTHERS[1], OTHERS[0], *OTHERS[2:]))
    assert own_lines(lines, "buster") == ((), lines)
    assert own_lines(("deb http://a.example bookworm",), "bookworm") == ((), ("deb http://a.example bookworm",))


@pytest.mark.parametrize("theirs, pocket", [
    ("buster", ""), ("buster-updates", "updates"), ("buster/updates", "security"), ("buster-security", "security"),
    ("buster-backports", None), ("bust", None), ("-updates", None), ("xbuster", None)])
def test_parts_of_a_suite(theirs: str, pocket: str | None) -> None:
    assert pocket_of(theirs, "buster") == pocket


def test_where_the_guest_s_own_sources_are_seen_from_here() -> None:
    found, others = own_sources((MAIN, OTHERS[0], SECURITY), "bookworm", "10.0.2.2")
    assert [(one.host_uri, one.suite, one.components, one.pocket) for one in found] == [
        ("http://127.0.0.1:3142/archive.example/debian", "bookworm", ("main", "contrib"), ""),
        ("http://security.example/debian-security", "bookworm-security", ("main",), "security")]
    assert [one.guest_line for one in found] == [MAIN, SECURITY.replace("[arch=amd64] ", "")]
    assert others == OTHERS[:1]
    assert seen_from_here("http://other.example/x", "10.0.2.2") == "http://other.example/x"


@pytest.mark.parametrize("uri", ["http://", "ssh://a.example/x", "nonsense", "http://a.example/x#y", "http://[/",
                                 "http://10.0.2.2:99999/debian", "http://a.example:x/", "http://[::1/x"])
def test_an_address_that_cannot_be_an_archive_s_is_refused(uri: str) -> None:
    with pytest.raises(UsageError, match="cannot be a mirror's address"):
        own_sources((f"deb {uri} bookworm main",), "bookworm", "10.0.2.2")


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost:3142", "[::1]", "127.8.9.1", "LOCALHOST."])
def test_by_a_loopback_name_a_guest_means_itself(host: str) -> None:
    with pytest.raises(UsageError, match="means itself"):
        own_sources((f"deb http://{host}/debian bookworm main",), "bookworm", "10.0.2.2")


@pytest.mark.parametrize("url", ["http://[/", "http://10.0.2.2:99999/x", "http://10.0.2.2:x/", "http://[x]/", "",
                                 "//["])
def test_what_is_no_url_stays_as_it_is(url: str) -> None:
    assert seen_from_here(url, "10.0.2.2") == url


def test_an_index_states_what_has_a_name_and_a_version() -> None:
    entries = [{"Package": "a", "Version": "1", "Architecture": "all", "SHA256": "0"}, {"Package": "b"},
               {"Version": "1"}, {"Package": "c", "Version": "2"}]
    assert [(one.name, one.version, one.architecture, one.sha256, one.security)
            for one in stated(iter(entries), security=True)] == [("a", "1", "all", "0", True), ("c", "2", "", "", True)]
