from __future__ import annotations

import io
import struct
import tempfile
import zipfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gitian.errors import PackageError
from gitian.update import package

NAMES = st.lists(st.sampled_from(["a", "b", "..", ".", "A", "dir/x", "/abs", "c\\d", "é", "e\u0301", "x" * 300, "dir"]),
                 min_size=1, max_size=3).map("/".join)


@settings(max_examples=150, suppress_health_check=list(HealthCheck), deadline=None)
@given(st.lists(st.tuples(NAMES, st.binary(max_size=40)), max_size=6), st.sampled_from([0, 8]))
def test_any_zip_is_read_rightly_or_refused(members: list[tuple[str, bytes]], method: int) -> None:
    with tempfile.TemporaryDirectory() as top:
        source = Path(top, "p.zip")
        with zipfile.ZipFile(source, "w") as archive:
            for name, data in members:
                info = zipfile.ZipInfo("x")
                info.filename = name  # the constructor would make it harmless
                info.compress_type = method
                if name not in archive.NameToInfo:  # zipfile warns; duplicates have a test of their own
                    archive.writestr(info, data)
        try:
            with package.opened(source) as found:
                for path, member in found.members.items():
                    assert ".." not in path.split("/") and not path.startswith("/")
                    assert found.read(path, 1000) == dict(reversed(members))[path]
                    assert member.size == len(dict(reversed(members))[path])
        except PackageError:
            pass


@settings(max_examples=300, suppress_health_check=list(HealthCheck), deadline=None)
@given(st.data())
def test_any_damage_is_an_error_of_ours(data: st.DataObject) -> None:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("one", b"1" * 500)
        archive.writestr("two/three", bytes(range(256)))
    content = bytearray(buffer.getvalue())
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    with tempfile.TemporaryDirectory() as top:
        source = Path(top, "p.zip")
        source.write_bytes(content[:data.draw(st.integers(0, len(content)))] if data.draw(st.booleans()) else content)
        try:
            with package.opened(source) as found:
                for path in found.members:
                    assert len(found.read(path, 10_000)) <= 10_000
        except PackageError as error:
            assert str(error)


def written(tmp_path: Path, *members: tuple[str, bytes], **attributes: int) -> Path:
    source = tmp_path / "p.zip"
    with zipfile.ZipFile(source, "w") as archive:
        for name, data in members:
            info = zipfile.ZipInfo(name)
            for key, value in attributes.items():
                setattr(info, key, value)
            archive.writestr(info, data)
    return source


def refused(source: Path, said: str) -> None:
    with pytest.raises(PackageError, match=said), package.opened(source) as found:
        for path in found.members:
            found.read(path, 10**9)


def test_methods_that_cannot_be_bounded(tmp_path: Path) -> None:
    refused(written(tmp_path, ("a", bytes(1000)), compress_type=zipfile.ZIP_BZIP2), "only stored and deflate")
    refused(written(tmp_path, ("a", bytes(1000)), compress_type=zipfile.ZIP_LZMA), "only stored and deflate")


def test_an_encrypted_member(tmp_path: Path) -> None:
    source = written(tmp_path, ("a", b"x"))
    content = bytearray(source.read_bytes())
    content[content.index(b"PK\1\2") + 8] |= 1
    source.write_bytes(content)
    refused(source, "encrypted")


def test_a_name_with_a_zero_byte(tmp_path: Path) -> None:
    source = written(tmp_path, ("aXb", b"x"))
    source.write_bytes(source.read_bytes().replace(b"aXb", b"a\0b"))
    refused(source, "zero byte")


def test_a_local_name_that_differs(tmp_path: Path) -> None:
    source = written(tmp_path, ("abc", b"x"))
    source.write_bytes(source.read_bytes().replace(b"abc", b"xyz", 1))
    refused(source, "damaged")


@pytest.mark.parametrize("mode, said", [(0o120777, "symbolic link"), (0o020666, "no ordinary file"),
                                        (0o010666, "no ordinary file")])
def test_members_that_are_no_files(tmp_path: Path, mode: int, said: str) -> None:
    refused(written(tmp_path, ("a", b"x"), external_attr=mode << 16), said)


def test_a_huge_directory_is_not_read(tmp_path: Path) -> None:
    source = written(tmp_path, ("a", b"x"))
    content = bytearray(source.read_bytes())
    end = content.rindex(b"PK\5\6")
    struct.pack_into("<L", content, end + 12, 2**30)
    source.write_bytes(content)
    refused(source, "a directory of 1073741824 bytes")
    long = struct.pack("<4sQ2H2L4Q", b"PK\6\6", 44, 45, 45, 0, 0, 1, 1, 2**40, 0)
    locator = struct.pack("<4sLQL", b"PK\6\7", 0, end, 1)
    source.write_bytes(bytes(content[:end]) + long + locator + bytes(content[end:]))
    refused(source, "a directory of 1099511627776 bytes")


def test_too_many_members(tmp_path: Path) -> None:
    source = tmp_path / "p.zip"
    with zipfile.ZipFile(source, "w") as archive:
        for number in range(package.MOST_MEMBERS + 1):
            archive.writestr(zipfile.ZipInfo(str(number)), b"")
    refused(source, "100001 members")


def test_what_is_read_is_bounded(tmp_path: Path) -> None:
    source = written(tmp_path, ("a", bytes(2000)), compress_type=8)
    with package.opened(source) as found, pytest.raises(PackageError, match="more bytes than the 1000"):
        found.read("a", 1000)


def test_things_that_are_no_packages(tmp_path: Path) -> None:
    import os

    os.mkfifo(tmp_path / "pipe")
    refused(tmp_path / "pipe", "neither a zip file nor a directory")
    refused(tmp_path / "missing", "cannot be read")
    (tmp_path / "dir").mkdir()
    os.mkfifo(tmp_path / "dir/pipe")
    refused(tmp_path / "dir", "no ordinary file")


def test_a_file_of_a_directory_that_is_swapped_meanwhile(tmp_path: Path) -> None:
    (tmp_path / "p/sub").mkdir(parents=True)
    (tmp_path / "p/sub/file").write_bytes(b"x")
    with package.opened(tmp_path / "p") as found:
        (tmp_path / "p/sub").rename(tmp_path / "p/old")
        (tmp_path / "p/sub").symlink_to("/etc")
        with pytest.raises(PackageError, match="cannot be read"):
            found.read("sub/file", 1000)
