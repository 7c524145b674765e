"""Sources: which addresses are accepted, and how a guest sees them; what apt's failures mean."""

from __future__ import annotations

from pathlib import Path

import pytest

from gitian.errors import UsageError
from gitian.images import archive
from gitian.images.distros import check_target, find_distro
from gitian.images.sources import Source, SourceOptions, check_uri, seen_by_guest


@pytest.mark.parametrize("uri", [
    "http://archive.example/debian", "https://archive.example:8443/x/", "file:/srv/mirror", "file:///srv/mirror",
    "copy:/srv/mirror", "http://[::1]:3142/x", "http://127.0.0.1:3142/archive.example/debian",
])
def test_addresses_of_mirrors(uri: str) -> None:
    check_uri(uri)


@pytest.mark.parametrize("uri", [
    "", "archive.example", "ftp://archive.example/debian", "http:///debian", "http://a/b c", "http://a/b\nDeb-Src: x",
    "http://a/[trusted=yes]", "http://a/b#c", "file:relative", "file://host/path", "cdrom:/x", "exec:/bin/sh",
    "http://a/'b", "http://a/\u00fc", "http://a/b?x=1", "http://[x/", "http://a:99999/b",
])
def test_what_is_no_address(uri: str) -> None:
    with pytest.raises(UsageError, match="cannot be a mirror's address"):
        check_uri(uri)


@pytest.mark.parametrize(("uri", "address", "seen"), [
    ("http://127.0.0.1:3142/x/y", "10.0.2.2", "http://10.0.2.2:3142/x/y"),
    ("http://localhost/x", "192.0.2.7", "http://192.0.2.7/x"),
    ("https://[::1]:8443/x", "fd00::2", "https://[fd00::2]:8443/x"),
    ("http://archive.example:3142/x", "10.0.2.2", "http://archive.example:3142/x"),
    ("http://127.0.0.11/x", "10.0.2.2", "http://127.0.0.11/x"),
    ("file:/srv/localhost", "10.0.2.2", "file:/srv/localhost"),
])
def test_the_host_has_another_address_in_a_guest(uri: str, address: str, seen: str) -> None:
    assert seen_by_guest(uri, address) == seen


@pytest.mark.parametrize("environment", [{"MIRROR_HOST": "http://x"}, {"MIRROR_HOST": "x/y"}, {"GITIAN_HOST_IP": "a b"},
                                         {"MIRROR_HOST": "x\ndeb"}])
def test_hosts_that_are_none_are_refused(environment: dict[str, str]) -> None:
    with pytest.raises(UsageError, match="neither a host's name nor an address"):
        SourceOptions.of(mirror=None, security_mirror=None, without=(), environment=environment)


def test_lines_for_apt() -> None:
    source = Source(host_uri="http://127.0.0.1:3142/a.example/x", guest_uri="http://10.0.2.2:3142/a.example/x",
                    suite="noble-updates", components=("main", "universe"), pocket="updates")
    assert source.guest_line == "deb http://10.0.2.2:3142/a.example/x noble-updates main universe"
    assert source.host_line("i386", [Path("/k/a.gpg"), Path("/k/b.gpg")]) == (
        "deb [arch=i386 signed-by=/k/a.gpg,/k/b.gpg] http://127.0.0.1:3142/a.example/x noble-updates main universe")


@pytest.mark.parametrize("suite", ["", "-x", "a/b", "a b", "..", "a..b", ".hidden", "ü", "a\n"])
def test_suites_that_could_lead_elsewhere_are_refused(suite: str) -> None:
    with pytest.raises(UsageError):
        check_target(find_distro("debian"), suite, "amd64")


def test_unknown_suites_are_left_to_the_archive() -> None:
    for distro in ("debian", "ubuntu"):
        check_target(find_distro(distro), "zz-not-out-yet", "i386")
    with pytest.raises(UsageError, match="'noble' is one of Ubuntu"):
        check_target(find_distro("debian"), "noble", "amd64")


SOURCES = [Source(host_uri=uri, guest_uri=uri, suite=suite, components=("main",), pocket=pocket)
           for uri, suite, pocket in (("http://a.example/debian", "s", ""), ("http://a.example/debian", "s-updates",
                                      "updates"), ("http://b.example/security", "s-security", "security"))]


@pytest.mark.parametrize(("said", "name", "reason", "way"), [
    # As apt 2.6 says it.
    ("Err:4 http://b.example/security s-security/main i386 Packages\n"
     "  File has unexpected size (200 != 199). Mirror sync in progress? [IP: 192.0.2.1 80]\n"
     "E: Failed to fetch http://b.example/security/dists/s-security/main/binary-i386/Packages.xz  File has unexpected "
     "size (200 != 199). Mirror sync in progress? [IP: 192.0.2.1 80]\n",
     "http://b.example/security s-security", "unexpected size", "'--without security'"),
    ("Err:1 http://a.example/debian s-updates InRelease\n  Could not resolve 'a.example'\n",
     "http://a.example/debian s-updates", "Could not resolve", "'--without updates'"),
    ("Err:1 http://a.example/debian s InRelease\n  Could not resolve 'a.example'\n"
     "Err:2 http://a.example/debian s-updates InRelease\n  Could not resolve 'a.example'\n",
     "http://a.example/debian s", "So did 'http://a.example/debian s-updates'", "--mirror URL"),
    ("E: Failed to fetch http://a.example/debian/pool/main/b/bash/bash_5.2_amd64.deb  503  Service Unavailable "
     "[IP: 192.0.2.1 80]\n", "http://a.example/debian s", "503 Service Unavailable", "--mirror URL"),
    ("E: The repository 'http://a.example/debian s Release' does not have a Release file.\n",
     "http://a.example/debian s", "", "--mirror URL"),
])
def test_apts_failures_name_the_source_and_the_way_on(said: str, name: str, reason: str, way: str) -> None:
    error = archive.failure(said, SOURCES)
    assert str(error).startswith(f"The source '{name}' failed: ")
    assert reason in str(error)
    assert way in str(error.hint)


def test_other_failures_are_told_too() -> None:
    assert "E: Method gave up" in str(archive.failure("E: Method gave up\n", SOURCES))
    assert str(archive.failure("", SOURCES))


@pytest.mark.parametrize(("said", "expected"), [
    ("File has unexpected size (1 != 2). Mirror sync in progress?", True), ("Hash Sum mismatch", True),
    ("  503  Service Unavailable [IP: 192.0.2.1 80]", True), ("Temporary failure resolving 'a.example'", True),
    ("  404  Not Found [IP: 192.0.2.1 80]", False), ("NO_PUBKEY 0123456789ABCDEF", False),
    ("BADSIG 0123456789ABCDEF", False),
])
def test_what_may_be_over_in_a_moment(said: str, expected: bool) -> None:
    assert archive.transient(said) is expected


def test_stanzas(tmp_path: Path) -> None:
    path = tmp_path / "Packages"
    path.write_bytes(b"Package: a\nDescription: x\n more: text\n\nPackage: b\nOdd:\n\n\n\nPackage: c\xff")
    assert [entry["Package"] for entry in archive.stanzas(path)] == ["a", "b", "c\ufffd"]
    assert "more" not in next(archive.stanzas(path))
