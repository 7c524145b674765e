"""The initial RAM disk's archive format, read back by a reader written from the kernel's description of it."""

from __future__ import annotations

import stat

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gitian.formats import cpio


def read(data: bytes) -> list[tuple[str, dict[str, int], bytes]]:
    """Entries of one archive: name, numbers of the header, contents."""
    names = ("inode", "mode", "uid", "gid", "links", "mtime", "size", "major", "minor", "rmajor", "rminor", "namesize",
             "check")
    at = 0
    found: list[tuple[str, dict[str, int], bytes]] = []
    while True:
        assert at % 4 == 0
        assert data[at:at + 6] == b"070701"
        numbers = {name: int(data[at + 6 + 8 * place:at + 14 + 8 * place], 16) for place, name in enumerate(names)}
        name = data[at + 110:at + 110 + numbers["namesize"]]
        assert name.endswith(b"\0")
        start = (at + 110 + numbers["namesize"] + 3) // 4 * 4
        contents = data[start:start + numbers["size"]]
        at = (start + numbers["size"] + 3) // 4 * 4
        if name == b"TRAILER!!!\0":
            assert not data[at:].strip(b"\0")
            return found
        found.append((name[:-1].decode(), numbers, contents))


def test_the_bytes_of_one_file() -> None:
    expected = (b"070701" b"00000001" b"000081A4" b"00000000" b"00000000" b"00000001" b"00000000" b"00000003"
                b"00000000" b"00000000" b"00000000" b"00000000" b"00000002" b"00000000" b"a\0" b"xyz\0"
                b"070701" b"00000000" b"00000000" b"00000000" b"00000000" b"00000001" b"00000000" b"00000000"
                b"00000000" b"00000000" b"00000000" b"00000000" b"0000000B" b"00000000" b"TRAILER!!!\0" b"\0\0\0")
    assert cpio.pack([cpio.file("a", b"xyz")]) == expected.ljust(512, b"\0")


def test_parents_are_added_before_their_children() -> None:
    entries = read(cpio.pack([cpio.file("gitian/keys/a", b"1", 0o600), cpio.symlink("bin/sh", "busybox")]))
    assert [name for name, _, _ in entries] == ["bin", "bin/sh", "gitian", "gitian/keys", "gitian/keys/a"]
    modes = {name: numbers["mode"] for name, numbers, _ in entries}
    assert modes["gitian"] == stat.S_IFDIR | 0o755
    assert modes["gitian/keys/a"] == stat.S_IFREG | 0o600
    assert modes["bin/sh"] == stat.S_IFLNK | 0o777
    assert entries[1][2] == b"busybox"


def test_a_directory_given_keeps_its_mode() -> None:
    entries = read(cpio.pack([cpio.file("tmp/a", b""), cpio.directory("tmp", 0o700)]))
    assert entries[0][0] == "tmp"
    assert entries[0][1]["mode"] == stat.S_IFDIR | 0o700


NAMES = st.lists(st.text("abcä.-_ ", min_size=1, max_size=8).filter(lambda part: part not in (".", "..")),
                 min_size=1, max_size=3).map("/".join)


@given(st.dictionaries(NAMES, st.binary(max_size=50), max_size=8).filter(
    lambda files: not any(other.startswith(f"{name}/") for name in files for other in files)))
def test_what_goes_in_comes_out_in_any_order(files: dict[str, bytes]) -> None:
    entries = [cpio.file(name, data) for name, data in files.items()]
    packed = cpio.pack(entries)
    assert packed == cpio.pack(entries[::-1])
    assert len(packed) % 512 == 0
    found = {name: data for name, numbers, data in read(packed) if stat.S_ISREG(numbers["mode"])}
    assert found == files
    assert all(numbers["uid"] == numbers["gid"] == numbers["mtime"] == 0 for _, numbers, _ in read(packed))


@pytest.mark.parametrize("name", ["", "/etc", "a//b", "a/", "./a", "a/../b", "..", "a\0b", "TRAILER!!!"])
def test_names_that_cannot_be(name: str) -> None:
    with pytest.raises(ValueError, match="archive"):
        cpio.pack([cpio.file(name, b"")])


def test_one_name_twice() -> None:
    with pytest.raises(ValueError, match="two entries named 'a'"):
        cpio.pack([cpio.file("a", b"1"), cpio.file("a", b"2")])
