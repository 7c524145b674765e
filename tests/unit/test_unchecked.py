"""Indices of archives that nobody vouches for: which are fetched, how they are unpacked, and how far."""

from __future__ import annotations

import bz2
import contextlib
import gzip
import lzma
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from gitian.errors import FetchError
from gitian.host import web
from gitian.images import unchecked
from gitian.images.sources import Source
from tests.fakes.archive import serve

INDEX = b"Package: hello\nVersion: 1\n\n" * 1000


@contextlib.contextmanager
def asking(url: str) -> Iterator[None]:
    yield


def fetched(uri: str, scratch: Path, suite: str = "s", *components: str, arch: str = "amd64") -> list[bytes]:
    source = Source(host_uri=uri, guest_uri=uri, suite=suite, components=components)
    asker = unchecked.Asker(client=web.Client(hasty=True), asking=asking)
    paths = unchecked.fetch(source, arch, scratch, asker)
    found = [path.read_bytes() for path in paths]
    assert sorted(scratch.iterdir()) == sorted(paths)  # and nothing else
    return found


def release(*names: str, **fields: str) -> bytes:
    lines = [f"{key.replace('_', '-')}: {value}" for key, value in fields.items()]
    return "\n".join(["Origin: x", *lines, "SHA256:", *(f" {'0' * 64} 1 {name}" for name in names), ""]).encode()


def write(root: Path, name: str, content: bytes) -> None:
    (root / name).parent.mkdir(parents=True, exist_ok=True)
    (root / name).write_bytes(content)


@pytest.mark.parametrize("ending, pack", [(".xz", lzma.compress), (".gz", gzip.compress), (".bz2", bz2.compress),
                                          ("", bytes)])
@pytest.mark.parametrize("over", ["http", "file", "copy"])
def test_however_an_index_is_packed(tmp_path: Path, over: str, ending: str, pack: Callable[[bytes], bytes]) -> None:
    root = tmp_path / "www"
    write(root, f"dists/s/main/binary-amd64/Packages{ending}", pack(INDEX))
    write(root, "dists/s/Release", release(f"main/binary-amd64/Packages{ending}", "main/binary-i386/Packages.gz"))
    with serve(root) as address:
        uri = address if over == "http" else f"{over}:{root}"
        assert fetched(uri, tmp_path / "a", "s", "main", "contrib") == [INDEX]
        (root / "dists/s/Release").unlink()  # then all of them are tried
        assert fetched(uri, tmp_path / "b", "s", "main", "contrib") == [INDEX]


def test_only_what_is_listed_is_asked_for(tmp_path: Path) -> None:
    root, seen = tmp_path / "www", list[str]()
    stem = "main/binary-amd64/Packages"
    write(root, "dists/s/InRelease", release(stem, stem + ".gz"))
    write(root, f"dists/s/{stem}.gz", gzip.compress(INDEX))
    write(root, f"dists/s/{stem}.xz", lzma.compress(b"other"))
    with serve(root, seen=seen) as uri:
        assert fetched(uri, tmp_path / "a", "s", "main") == [INDEX]
        assert seen == ["/dists/s/InRelease", f"/dists/s/{stem}.gz"]
        # Nothing for this architecture is an answer; none of what was promised is none.
        assert fetched(uri, tmp_path / "b", "s", "main", arch="i386") == []
        (root / f"dists/s/{stem}.gz").unlink()
        with pytest.raises(FetchError, match="it answers 404"):
            fetched(uri, tmp_path / "c", "s", "main")
        with pytest.raises(FetchError, match="it answers 404"):
            fetched(uri, tmp_path / "d", "absent", "main")


@pytest.mark.parametrize("no_support, number", [("", 2), ("Packages", 1)])
def test_what_is_for_all_architectures_may_have_an_index_of_its_own(tmp_path: Path, no_support: str,
                                                                    number: int) -> None:
    names = [f"main/binary-{arch}/Packages" for arch in ("amd64", "all")]
    more = {"No_Support_for_Architecture_all": no_support} if no_support else {}
    write(tmp_path / "www", "dists/s/Release", release(*names, Architectures="all amd64 i386", **more))
    for name in names:
        write(tmp_path / "www", f"dists/s/{name}", name.encode())
    found = fetched(f"file:{tmp_path}/www", tmp_path / "a", "s", "main")
    assert found == [name.encode() for name in names[:number]]


def test_a_flat_archive(tmp_path: Path) -> None:
    write(tmp_path / "www", "sub/Packages.xz", lzma.compress(INDEX))
    with serve(tmp_path / "www") as uri:
        assert fetched(uri, tmp_path / "a", "sub/") == [INDEX]
        assert fetched(f"{uri}/sub", tmp_path / "b", "./") == [INDEX]


@pytest.mark.parametrize("ending, content", [
    (".xz", lzma.compress(bytes(2**22))), (".gz", gzip.compress(bytes(2**22))), (".bz2", bz2.compress(bytes(2**22))),
    ("", bytes(2**22)), (".xz", b"no xz"), (".xz", lzma.compress(INDEX)[:-9]), (".gz", gzip.compress(INDEX)[:-9]),
    (".bz2", bz2.compress(INDEX)[:-9]), (".gz", b"\x1f\x8b\x08" + b"\xff" * 99), (".xz", b""),
    (".xz", lzma.compress(bytes(2**16), filters=[{"id": lzma.FILTER_LZMA2, "dict_size": 2**30}]))])
def test_what_is_too_large_or_broken_is_no_index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ending: str,
                                                 content: bytes) -> None:
    """A small file that becomes a large one, or asks for a gigabyte of memory."""
    monkeypatch.setattr(unchecked, "_UNPACKED", 2**20)
    write(tmp_path / "www", f"dists/s/main/binary-amd64/Packages{ending}", content)
    with serve(tmp_path / "www") as uri, pytest.raises(FetchError, match="too large|cannot be unpacked|answers 404"):
        fetched(uri, tmp_path / "a", "s", "main")
    left = sum(path.stat().st_size for path in (tmp_path / "a").iterdir())
    assert left == 0


def test_all_indices_together_are_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(unchecked, "_UNPACKED", 3 * len(INDEX) // 2)
    for component in ("a", "b"):
        write(tmp_path / "www", f"dists/s/{component}/binary-amd64/Packages", INDEX)
    assert fetched(f"file:{tmp_path}/www", tmp_path / "x", "s", "a", "b") == [INDEX]


def test_what_is_no_file_is_not_waited_for(tmp_path: Path) -> None:
    place = tmp_path / "www" / "dists" / "s" / "main" / "binary-amd64"
    place.mkdir(parents=True)
    os.mkfifo(place / "Packages")
    (place / "Packages.gz").symlink_to("/dev/zero")
    (place / "Packages.xz").mkdir()
    with pytest.raises(FetchError, match="no file, or too large|No such file"):
        fetched(f"file:{tmp_path}/www", tmp_path / "a", "s", "main")
