"""Tar streams in and out: what is packed comes out the same, from us and from GNU tar; what leads out is refused."""

from __future__ import annotations

import io
import os
import shutil
import stat
import subprocess
import tarfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gitian.errors import HostError, InputError, OutputError
from gitian.host import space
from gitian.host.extract import Extracted, extract, extract_file
from gitian.host.pack import measure, pack

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="exact modes of what its owner may not read need root")


@dataclass(frozen=True)
class Bounds:
    size: int = 2**40
    entries: int = 10_000
    path: int = 4096


def packed(source: Path, **options: object) -> bytes:
    pieces: list[bytes] = []
    settings_: dict[str, object] = {"uid": 1000, "gid": 1000, "uname": "debian", **options}
    assert pack(source, pieces.append, **settings_) == sum(map(len, pieces))  # type: ignore[arg-type]
    return b"".join(pieces)


def unpacked(data: bytes, destination: Path, piece: int = 2**20, bounds: Bounds | None = None) -> Extracted:
    stream = io.BytesIO(data)
    return extract(lambda size: stream.read(min(size, piece)), destination, limits=bounds or Bounds())


def picture(top: Path, *, whole_seconds: bool = False) -> dict[bytes, tuple[object, ...]]:
    """Everything about a tree that a tar keeps: kind, mode, time, contents or target, and which names are one file."""
    found: dict[bytes, tuple[object, ...]] = {}
    first: dict[int, bytes] = {}
    for directory, directories, files in os.walk(os.fsencode(top)):
        for name in directories + files:
            path = os.path.join(directory, name)
            status = os.lstat(path)
            key = os.path.relpath(path, os.fsencode(top))
            content: object = None
            if stat.S_ISLNK(status.st_mode):
                content = os.readlink(path)
            elif stat.S_ISREG(status.st_mode):
                with open(path, "rb") as file:
                    content = file.read()
            time = status.st_mtime_ns // 10**9 if whole_seconds else status.st_mtime_ns
            same = first.setdefault(status.st_ino, key) if not stat.S_ISDIR(status.st_mode) else key
            found[key] = (stat.S_IFMT(status.st_mode), status.st_mode & 0o7777, time, content,
                          None if len(found) == 0 else (same if status.st_nlink > 1 else None))
    return found


def make_tree(top: Path) -> None:
    """Every kind of thing that survives: a long name, no UTF-8, holes, links, modes, times."""
    top.mkdir()
    (top / "plain").write_bytes(b"x" * 1000)
    (top / "plain").chmod(0o640)
    os.link(top / "plain", top / "same")
    (top / "empty").touch()
    (top / "link").symlink_to("plain")
    (top / "dangling").symlink_to("deep/" + "n" * 180)
    (top / ("long-" + "n" * 200)).write_text("long")
    (top / "deep" / ("a" * 100) / ("b" * 100)).mkdir(parents=True)
    (top / "deep" / ("a" * 100) / ("b" * 100) / "end").write_text("deep")
    (top / "deep" / "up").symlink_to("../plain")
    (top / os.fsdecode(b"\xff\xfe not text\n\x1b")).write_bytes(b"odd")
    (top / ("é" * 60)).write_bytes(b"z")
    (top / "sealed").mkdir()
    (top / "sealed" / "file").write_text("in")
    with (top / "holes").open("wb") as file:
        for place in range(60):  # more runs than fit one header and one block after it
            file.seek(place * 100_000)
            file.write(b"D" * 10)
        file.truncate(20_000_000)
    with (top / "all hole").open("wb") as file:
        file.truncate(9 * 2**30)
    os.utime(top / "plain", ns=(1, 1_234_567_890_123_456_789))
    os.utime(top / "empty", ns=(1, -1_500_000_000))
    os.utime(top / "link", ns=(7, 1_000_000_000_000_000_001), follow_symlinks=False)
    (top / "sealed").chmod(0o500)
    os.utime(top / "sealed", ns=(5, 1_111_111_111_222_222_222))
    os.utime(top / "deep", ns=(5, 999_999_999_000_000_001))


def small_picture(top: Path, **options: bool) -> dict[bytes, tuple[object, ...]]:
    """The same without the contents of a file of 9 GiB."""
    big = top / "all hole"
    status = big.stat()
    assert status.st_size == 9 * 2**30
    assert status.st_blocks * 512 < 2**20
    big.unlink()
    return picture(top, **options)


@pytest.fixture
def tree(tmp_path: Path) -> Iterator[Path]:
    make_tree(tmp_path / "tree")
    yield tmp_path / "tree"
    for path in tmp_path.rglob("sealed"):
        path.chmod(0o700)


def test_what_is_packed_comes_out_the_same(tree: Path, tmp_path: Path) -> None:
    data = packed(tree)
    assert len(data) < 2**20, "holes must not be written"
    assert len(data) % 10240 == 0
    outcome = unpacked(data, tmp_path / "out")
    assert outcome.size > 9 * 2**30
    if os.geteuid() == 0:
        assert small_picture(tmp_path / "out") == small_picture(tree)


def test_the_same_tree_gives_the_same_stream(tree: Path, tmp_path: Path) -> None:
    assert packed(tree) == packed(tree)


@needs_root
def test_gnu_tar_reads_what_is_packed(tree: Path, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    done = subprocess.run(["tar", "--no-same-owner", "--warning=no-timestamp", "-C", tmp_path / "out", "-x"],
                          input=packed(tree), capture_output=True, check=False)
    assert (done.returncode, done.stderr) == (0, b"")
    assert small_picture(tmp_path / "out") == small_picture(tree)


@pytest.mark.skipif(shutil.which("busybox") is None, reason="busybox is not installed")
def test_busybox_reads_what_is_packed_without_holes(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    (source / ("long-" + "n" * 200)).write_text("long")
    (source / "link").symlink_to("d/" + "t" * 150)
    with (source / "holes").open("wb") as file:
        file.truncate(100_000)
        file.seek(50_000)
        file.write(b"data")
    for path in (source / ("long-" + "n" * 200), source / "holes"):
        os.utime(path, (10**9, 10**9))
    os.utime(source / "link", (10**9, 10**9), follow_symlinks=False)
    (tmp_path / "out").mkdir()
    done = subprocess.run(["busybox", "tar", "-C", tmp_path / "out", "-x", "-o"], capture_output=True, check=False,
                          input=packed(source, sparse=False, exact_times=False))
    assert (done.returncode, done.stderr) == (0, b"")
    mine, theirs = picture(source), picture(tmp_path / "out")
    assert {name: entry[3] for name, entry in mine.items()} == {name: entry[3] for name, entry in theirs.items()}


@needs_root
@pytest.mark.parametrize("options", [
    ["--format=posix", "--sparse"], ["--format=gnu", "--sparse"], ["--format=posix"],
    ["--format=posix", "--sparse", "--sparse-version=0.0"], ["--format=posix", "--sparse", "--sparse-version=0.1"],
], ids=" ".join)
def test_what_gnu_tar_packs_comes_out_the_same(tree: Path, tmp_path: Path, options: list[str]) -> None:
    if "--sparse" not in options:
        (tree / "all hole").unlink()
    data = subprocess.run(["tar", *options, "-C", tree, "-c", "."], stdout=subprocess.PIPE, check=True).stdout
    unpacked(data, tmp_path / "out", piece=65536)
    whole = "--format=gnu" in options
    see = small_picture if "--sparse" in options else picture
    assert see(tmp_path / "out", whole_seconds=whole) == see(tree, whole_seconds=whole)


def test_old_formats_are_read(tmp_path: Path) -> None:
    """ustar splits a long name into prefix and name (POSIX.1-1988)."""
    name = "a" * 90 + "/" + "b" * 90 + "/file"
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        info = tarfile.TarInfo(name)
        info.size = 3
        archive.addfile(info, io.BytesIO(b"abc"))
    unpacked(out.getvalue(), tmp_path / "out")
    assert (tmp_path / "out" / name).read_bytes() == b"abc"


def test_one_file_under_another_name(tmp_path: Path) -> None:
    (tmp_path / "in").write_bytes(b"content")
    (tmp_path / "in").chmod(0o755)
    data = packed(tmp_path / "in", name="other")
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        member = archive.getmember("other")
        assert (member.uid, member.gid, member.uname, member.mode) == (1000, 1000, "debian", 0o755)
    (tmp_path / "target").write_text("before")
    (tmp_path / "elsewhere").symlink_to("target")
    stream = io.BytesIO(data)
    extract_file(stream.read, tmp_path / "elsewhere", limits=Bounds())
    assert (tmp_path / "elsewhere").read_bytes() == b"content"
    assert not (tmp_path / "elsewhere").is_symlink()
    assert (tmp_path / "target").read_text() == "before"
    assert (tmp_path / "elsewhere").stat().st_mode & 0o777 == 0o755


def test_a_single_file_is_asked_for_and_a_directory_comes(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a").touch()
    (tmp_path / "in" / "b").touch()
    with pytest.raises(OutputError, match="not the one regular file"):
        extract_file(io.BytesIO(packed(tmp_path / "in")).read, tmp_path / "out", limits=Bounds())
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in"]


def test_progress_counts_what_a_reader_of_the_files_sees(tmp_path: Path) -> None:
    source = tmp_path / "in"
    source.mkdir()
    (source / "a").write_bytes(b"x" * 3_000_000)
    with (source / "hole").open("wb") as file:
        file.truncate(5_000_000)
    counts: list[int] = []
    data = packed(source, progress=counts.append)
    assert sum(counts) == measure(source) == 8_000_000
    counts.clear()
    stream = io.BytesIO(data)
    extract(stream.read, tmp_path / "out", limits=Bounds(), progress=counts.append)
    assert sum(counts) == 8_000_000


def test_set_id_bits_are_dropped(tmp_path: Path) -> None:
    for flavour in ("in", "out"):
        out = io.BytesIO()
        with tarfile.open(fileobj=out, mode="w") as archive:
            for name, kind, mode in (("program", tarfile.REGTYPE, 0o6755), ("directory", tarfile.DIRTYPE, 0o7777)):
                info = tarfile.TarInfo(name)
                info.type, info.mode = kind, mode
                archive.addfile(info)
        unpacked(out.getvalue(), tmp_path / flavour)
    assert (tmp_path / "out" / "program").stat().st_mode & 0o7777 == 0o755
    assert (tmp_path / "out" / "directory").stat().st_mode & 0o7777 == 0o777


def test_sockets_and_fifos_are_not_packed(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    os.mkfifo(tmp_path / "in" / "pipe")
    with pytest.raises(InputError, match="pipe' is neither"):
        packed(tmp_path / "in")


def test_a_file_that_shrinks_while_it_is_read(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    victim = tmp_path / "in" / "file"
    victim.write_bytes(b"x" * 3 * 2**20)

    def shorten(count: int) -> None:
        os.truncate(victim, 2**20)

    with pytest.raises(InputError, match="became shorter"):
        packed(tmp_path / "in", progress=shorten)


# hostile archives

def archive(*members: tuple[object, ...]) -> bytes:
    """A tar of (name, kind, content or target, mode) members."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as file:
        for name, kind, *rest in members:
            info = tarfile.TarInfo(str(name))
            assert isinstance(kind, bytes)
            info.type = kind
            info.mode = 0o755
            if kind == tarfile.REGTYPE:
                data = rest[0] if rest else b"content"
                assert isinstance(data, bytes)
                info.size = len(data)
                file.addfile(info, io.BytesIO(data))
            else:
                if rest:
                    info.linkname = str(rest[0])
                file.addfile(info)
    return out.getvalue()


FILE, DIRECTORY, SYMLINK, LINK = tarfile.REGTYPE, tarfile.DIRTYPE, tarfile.SYMTYPE, tarfile.LNKTYPE

MALICIOUS = {
    "absolute": archive(("/tmp/gitian-escaped", FILE)),
    "dotdot": archive(("../escaped", FILE)),
    "dotdot inside": archive(("a/../../escaped", FILE)),
    "dotdot directory": archive(("../escaped", DIRECTORY)),
    "only dotdot": archive(("..", FILE)),
    "no name": archive((".", FILE)),
    "absolute link": archive(("l", SYMLINK, "/etc")),
    "link out": archive(("l", SYMLINK, "..")),
    "link out below": archive(("a/b/l", SYMLINK, "../../../x")),
    "link out by the way of another": archive(("a/l", SYMLINK, ".."), ("m", SYMLINK, "a/l/../x")),
    "empty link": archive(("l", SYMLINK, "")),
    "through a link": archive(("l", SYMLINK, "."), ("l/file", FILE)),
    "through a link to a directory": archive(("d", DIRECTORY), ("l", SYMLINK, "d"), ("l/file", FILE)),
    "through a file": archive(("f", FILE), ("f/file", FILE)),
    "hard link out": archive(("h", LINK, "../secret")),
    "hard link absolute": archive(("h", LINK, "/etc/passwd")),
    "hard link to what was there": archive(("h", LINK, "precious")),
    "hard link to a directory": archive(("d", DIRECTORY), ("h", LINK, "d")),
    "hard link to what comes later": archive(("h", LINK, "f"), ("f", FILE)),
    "hard link through a link": archive(("d/f", FILE), ("l", SYMLINK, "d"), ("h", LINK, "l/f")),
    "hard link to itself": archive(("h", LINK, "h")),
    "character device": archive(("dev", tarfile.CHRTYPE)),
    "block device": archive(("dev", tarfile.BLKTYPE)),
    "fifo": archive(("pipe", tarfile.FIFOTYPE)),
    "unknown kind": archive(("what", b"Z")),
    "multi volume": archive(("what", b"M")),
    "file over directory": archive(("d/f", FILE), ("d", FILE)),
    "link over directory": archive(("d/f", FILE), ("d", SYMLINK, "x")),
}


@pytest.mark.parametrize("name", MALICIOUS)
def test_malicious_archives(tmp_path: Path, name: str) -> None:
    (tmp_path / "secret").write_text("secret")
    out = tmp_path / "out"
    out.mkdir()
    (out / "precious").write_text("precious")
    with pytest.raises(OutputError, match="refused"):
        unpacked(MALICIOUS[name], out)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "secret"]
    assert (tmp_path / "secret").read_text() == "secret"
    assert (tmp_path / "secret").stat().st_nlink == 1
    assert (out / "precious").read_text() == "precious"
    assert (out / "precious").stat().st_nlink == 1
    assert not Path("/tmp/gitian-escaped").exists()


def test_links_that_were_there_are_replaced_not_followed(tmp_path: Path) -> None:
    outside, out = tmp_path / "outside", tmp_path / "out"
    outside.mkdir()
    (outside / "file").write_text("mine")
    out.mkdir()
    (out / "file").symlink_to(outside / "file")
    (out / "directory").symlink_to(outside)
    os.link(outside / "file", out / "hard")
    unpacked(archive(("file", FILE, b"new"), ("hard", FILE, b"new"), ("directory", DIRECTORY), ("directory/x", FILE)),
             out)
    assert (outside / "file").read_text() == "mine"
    assert [path.name for path in outside.iterdir()] == ["file"]
    assert (out / "file").read_text() == (out / "hard").read_text() == "new"
    assert (out / "directory" / "x").read_bytes() == b"content"


def test_a_parent_that_is_a_link_already_is_refused(tmp_path: Path) -> None:
    outside, out = tmp_path / "outside", tmp_path / "out"
    outside.mkdir()
    out.mkdir()
    (out / "directory").symlink_to(outside)
    with pytest.raises(OutputError, match="leads through a link"):
        unpacked(archive(("directory/x", FILE)), out)
    assert list(outside.iterdir()) == []


def test_duplicate_members_the_last_one_counts(tmp_path: Path) -> None:
    data = archive(("f", FILE, b"one"), ("g", LINK, "f"), ("f", FILE, b"two"), ("d", DIRECTORY), ("d", DIRECTORY),
                   ("l", SYMLINK, "f"), ("l", SYMLINK, "g"), ("l", FILE, b"file now"))
    unpacked(data, tmp_path / "out")
    read = {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir() if path.is_file()}
    assert read == {"f": b"two", "g": b"one", "l": b"file now"}


def test_harmless_links_are_kept(tmp_path: Path) -> None:
    data = archive(("a/b/l", SYMLINK, "../../top"), ("m", SYMLINK, "./a/b"), ("top", FILE), ("n", SYMLINK, "a//b/l"))
    unpacked(data, tmp_path / "out")
    assert (tmp_path / "out" / "m" / "l").read_bytes() == b"content"
    assert (tmp_path / "out" / "n").resolve() == (tmp_path / "out" / "top").resolve()


@pytest.mark.parametrize(("bounds", "said"), [
    (Bounds(size=9_999), "more than 9999 bytes"), (Bounds(entries=2), "more than 2 entries"),
    (Bounds(path=5), "more than 5 bytes")])
def test_bounds(tmp_path: Path, bounds: Bounds, said: str) -> None:
    data = archive(("a", FILE, b"x" * 5_000), ("b", FILE, b"x" * 5_000), ("name-9999", FILE, b""))
    with pytest.raises(OutputError, match=said):
        unpacked(data, tmp_path / "out", bounds=bounds)


def test_a_sparse_file_counts_as_large_as_it_looks(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    with (tmp_path / "in" / "huge").open("wb") as file:
        file.truncate(2**40)
    with pytest.raises(OutputError, match="more than 1000000 bytes"):
        unpacked(packed(tmp_path / "in"), tmp_path / "out", bounds=Bounds(size=1_000_000))


def test_a_disk_without_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(space, "free", lambda path: 70 * 2**20)
    with pytest.raises(HostError, match="too little room"):
        unpacked(archive(("a", FILE, b"x" * 10 * 2**20)), tmp_path / "out")


def test_truncated_anywhere_is_an_error(tmp_path: Path, tree: Path) -> None:
    (tree / "all hole").unlink()
    data = packed(tree)
    end = len(data.rstrip(b"\0")) // 512 * 512 + 512
    for cut in [*range(0, end, 4096), end, end + 512]:
        with pytest.raises(OutputError, match="too early"):
            unpacked(data[:cut], tmp_path / "out")
        for sealed in (tmp_path / "out").glob("sealed"):
            sealed.chmod(0o700)


def test_what_follows_the_end(tmp_path: Path) -> None:
    data = archive(("a", FILE))
    unpacked(data + bytes(2**20), tmp_path / "out")
    with pytest.raises(OutputError, match="something follows"):
        unpacked(data + b"more", tmp_path / "out")
    with pytest.raises(OutputError, match="something follows"):
        unpacked(data + bytes(8 * 2**20), tmp_path / "out")


def edited(change: Callable[[bytearray], None], data: bytes | None = None) -> bytes:
    """A header changed and its checksum made right again."""
    block = bytearray(data or archive(("a", FILE, b"x" * 100)))
    change(block)
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % sum(block[:512])
    return bytes(block)


def put(at: int, text: bytes) -> Callable[[bytearray], None]:
    def change(block: bytearray) -> None:
        block[at:at + len(text)] = text

    return change


@pytest.mark.parametrize("data", [
    b"x" * 512,
    archive(("a", FILE))[:148] + b"0000000\0" + archive(("a", FILE))[156:],
    edited(put(124, b"-1\0        ")), edited(put(124, b"1_0\0       ")), edited(put(124, b"0x10\0      ")),
    edited(put(124, b"\xff" * 12)), edited(put(124, b"\x80" + b"\xff" * 11)),
    edited(put(156, b"L")), edited(put(156, b"x")), edited(put(156, b"5")), edited(put(156, b"S")),
    edited(put(124, b"7" * 11), edited(put(156, b"L"))), edited(put(124, b"7" * 11), edited(put(156, b"x"))),
], ids=lambda data: f"{zlib.crc32(data):x}")
def test_nonsense(tmp_path: Path, data: bytes) -> None:
    with pytest.raises(OutputError):
        unpacked(data, tmp_path / "out")


def extended(records: bytes, content: bytes = b"") -> bytes:
    """A file 'f' of which an extended header says something."""
    out = b""
    for name, kind, body in ((b"x", b"x", records), (b"f", b"0", content)):
        block = bytearray(512)
        block[:len(name)] = name
        block[100:108], block[108:116], block[116:124] = b"0000644\0", b"0000000\0", b"0000000\0"
        block[124:136], block[136:148] = b"%011o\0" % len(body), b"%011o\0" % 0
        block[156:157], block[257:265] = kind, b"ustar\x0000"
        block[148:156] = b" " * 8
        block[148:156] = b"%06o\0 " % sum(block)
        out += bytes(block) + body + bytes(-len(body) % 512)
    return out + bytes(1024)


def record(key: str, value: str) -> bytes:
    body = f" {key}={value}\n"
    length = len(body) + 1
    while len(f"{length}{body}") != length:
        length = len(f"{length}{body}")
    return f"{length}{body}".encode()


ONE = record("GNU.sparse.major", "1") + record("GNU.sparse.minor", "0") + record("GNU.sparse.name", "f")


@pytest.mark.parametrize(("records", "content"), [
    (b"9999 path=x\n", b""), (b"7 path=x", b""), (b"0 path=x\n", b""), (b"-5 path=x\n", b""), (b"path", b""),
    (record("path", "../x"), b""), (record("path", "/x"), b""), (record("path", "a\0b"), b""),
    (record("size", "-1"), b""), (record("size", "9" * 30), b""), (record("size", "x"), b""),
    (record("mtime", "yesterday"), b""), (record("mtime", ""), b""),
    (ONE + record("GNU.sparse.realsize", "10"), b"2\n0\n5\n".ljust(512, b"\0")),
    (ONE + record("GNU.sparse.realsize", "10"), b"1\n8\n5\n".ljust(512, b"\0") + b"xxxxx"),
    (ONE + record("GNU.sparse.realsize", "10"), b"2\n5\n2\n0\n2\n".ljust(512, b"\0") + b"xxxx"),
    (ONE + record("GNU.sparse.realsize", "10"), b"1\n0\n2\n".ljust(512, b"\0") + b"xxxx"),
    (ONE + record("GNU.sparse.realsize", "10"), b"99999999\n".ljust(512, b"\0")),
    (ONE + record("GNU.sparse.realsize", "10"), b"1" * 2048),
    (ONE, b"0\n".ljust(512, b"\0")),
    (record("GNU.sparse.size", "10") + record("GNU.sparse.map", "0,5,9"), b"xxxxx"),
    (record("GNU.sparse.size", "10") + record("GNU.sparse.map", "0,50"), b"x" * 50),
    (record("GNU.sparse.size", "10") + record("GNU.sparse.numbytes", "5"), b"xxxxx"),
])
def test_extended_headers_that_lie(tmp_path: Path, records: bytes, content: bytes) -> None:
    with pytest.raises(OutputError):
        unpacked(extended(records, content), tmp_path / "out")
    assert list(tmp_path.iterdir()) in ([], [tmp_path / "out"])


def test_extended_headers_that_are_right(tmp_path: Path) -> None:
    one = extended(ONE + record("GNU.sparse.realsize", "10"), b"1\n8\n2\n".ljust(512, b"\0") + b"ab")
    unpacked(one, tmp_path / "a")
    assert (tmp_path / "a" / "f").read_bytes() == bytes(8) + b"ab"
    unpacked(extended(record("GNU.sparse.size", "10") + record("GNU.sparse.map", "1,2,5,1"), b"abc"), tmp_path / "b")
    assert (tmp_path / "b" / "f").read_bytes() == b"\0ab\0\0c\0\0\0\0"
    unpacked(extended(record("mtime", "-1.5") + record("comment", "x=y\n")), tmp_path / "c")
    assert (tmp_path / "c" / "f").stat().st_mtime_ns == -1_500_000_000
    unpacked(extended(record("mtime", "9" * 16)), tmp_path / "d")  # beyond what a file system keeps, and no crash
    assert (tmp_path / "d" / "f").exists()


def test_an_error_while_reading(tmp_path: Path) -> None:
    def read(size: int) -> bytes:
        raise ConnectionResetError(104, "Connection reset by peer")

    with pytest.raises(OutputError, match="reset by peer"):
        extract(read, tmp_path / "out", limits=Bounds())


def test_out_of_order_members_keep_times_of_directories_in_order(tmp_path: Path) -> None:
    """A directory's time is set when its last member has come, not when the directory itself has."""
    (tmp_path / "in" / "d" / "e").mkdir(parents=True)
    (tmp_path / "in" / "d" / "e" / "f").touch()
    (tmp_path / "in" / "z").touch()
    os.utime(tmp_path / "in" / "d" / "e", (1000, 1000))
    os.utime(tmp_path / "in" / "d", (2000, 2000))
    unpacked(packed(tmp_path / "in"), tmp_path / "out")
    assert (tmp_path / "out" / "d").stat().st_mtime == 2000
    assert (tmp_path / "out" / "d" / "e").stat().st_mtime == 1000


def test_deep_trees_need_few_descriptors(tmp_path: Path) -> None:
    """Deeper than the number of files that a process may have open."""
    import resource

    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    at = os.open(tmp_path, os.O_RDONLY)
    os.mkdir("in", dir_fd=at)
    for name in ["in"] + ["d"] * 300:
        deeper = os.open(name, os.O_RDONLY, dir_fd=at)
        os.mkdir("d", dir_fd=deeper)
        os.close(at)
        at = deeper
    os.close(at)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(200, before[0]), before[1]))
    try:
        outcome = unpacked(packed(tmp_path / "in"), tmp_path / "out")
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
    assert outcome.entries == 301


# any tree at all

names = st.binary(min_size=1, max_size=60).map(
    lambda raw: raw.replace(b"/", b"-").replace(b"\0", b"0")).filter(lambda raw: raw not in (b".", b".."))
times = st.integers(min_value=-(2**31) * 10**9, max_value=2**33 * 10**9)
contents = st.one_of(
    st.binary(max_size=2000),
    # runs of data among holes, at multiples of what a file system gives out
    st.lists(st.tuples(st.integers(0, 40), st.binary(min_size=1, max_size=5000)), max_size=8).map(
        lambda runs: [(place * 65536, data) for place, data in runs]))
nodes = st.recursive(
    st.one_of(
        st.tuples(st.just("file"), contents, st.integers(0, 0o777), times),
        st.tuples(st.just("symlink"), names, st.just(0), times),
        st.tuples(st.just("again"), st.integers(0, 10), st.just(0), st.just(0))),
    lambda inner: st.tuples(st.just("directory"), st.dictionaries(names, inner, max_size=5), st.integers(0, 0o777),
                            times),
    max_leaves=12)


def build(path: bytes, node: tuple[object, ...], files: list[bytes]) -> None:
    kind, content, mode, time = node
    assert isinstance(mode, int)
    assert isinstance(time, int)
    if kind == "directory":
        assert isinstance(content, dict)
        os.mkdir(path)
        for name, inner in content.items():
            build(path + b"/" + name, inner, files)
    elif kind == "symlink":
        assert isinstance(content, bytes)
        os.symlink(content, path)
        os.utime(path, ns=(time, time), follow_symlinks=False)
        return
    elif kind == "again":
        assert isinstance(content, int)
        if files:
            os.link(files[content % len(files)], path)
        return
    else:
        with open(path, "wb") as file:
            if isinstance(content, bytes):
                file.write(content)
            else:
                assert isinstance(content, list)
                for place, data in content:
                    file.seek(place)
                    file.write(data)
                file.truncate(max([file.tell(), *(place + 9000 for place, _ in content)]) if content else 100_000)
        files.append(path)
    os.chmod(path, mode)
    os.utime(path, ns=(time, time))


@needs_root
@settings(max_examples=60)
@given(tree=st.dictionaries(names, nodes, max_size=6), piece=st.sampled_from([1000, 65536, 2**20]))
def test_any_tree_survives(tmp_path_factory: pytest.TempPathFactory, tree: dict[bytes, tuple[object, ...]],
                           piece: int) -> None:
    place = tmp_path_factory.mktemp("any")
    build(os.fsencode(place / "in"), ("directory", tree, 0o755, 0), [])
    data = packed(place / "in")
    unpacked(data, place / "out", piece=piece)
    assert picture(place / "out") == picture(place / "in")
    (place / "theirs").mkdir()
    done = subprocess.run(["tar", "--no-same-owner", "-C", place / "theirs", "-xp"], input=data,
                          capture_output=True, check=False)
    assert done.returncode == 0, done.stderr
    assert picture(place / "theirs") == picture(place / "in")
    shutil.rmtree(place)
