"""gitian canon: the same contents give the same bytes, whoever packed them; hostile files are refused."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import os
import random
import shutil
import stat
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gitian.canon import zstandard
from gitian.canon.archive import canonicalize
from gitian.canon.model import DEFAULT_DATE, Settings, parse_date
from gitian.canon.script import MODULES
from gitian.canon.script import script as packed_script
from gitian.cli.common import status_of
from gitian.cli.main import load
from gitian.errors import FormatError, InputError, MissingToolError, UsageError

#: 2011-03-13 07:06:40 UTC, computed with date(1).
DATE = 1300000000
SETTINGS = Settings(date=DATE, zstd=zstandard.run)
Files = dict[str, tuple[bytes, int]]

FILES: Files = {"b/run": (b"#!/bin/sh\n", 0o700), "a": (b"hello", 0o664), "b/empty": (b"", 0o600),
                "d" * 120 + "/" + "e" * 130: (b"long", 0o640), "ü": (b"x" * 3000, 0o604)}


def make_tar(files: Files, *, seed: int = 0, format: int = tarfile.GNU_FORMAT) -> bytes:
    """A tar in an order, with times and owners, that depend on the seed."""
    chance = random.Random(seed)
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=format) as tar:
        for name in chance.sample(sorted(files), len(files)):
            info = tarfile.TarInfo(name)
            info.size, info.mode = len(files[name][0]), files[name][1]
            info.mtime, info.uid, info.gid = chance.random() * 2e9, chance.randrange(3000), chance.randrange(3000)
            info.uname, info.gname = f"user{seed}", f"group{seed}"
            tar.addfile(info, io.BytesIO(files[name][0]))
    return buffer.getvalue()


def make_zip(files: Files, *, seed: int = 0, method: int = zipfile.ZIP_DEFLATED) -> bytes:
    chance = random.Random(seed)
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as archive:
        for name in chance.sample(sorted(files), len(files)):
            info = zipfile.ZipInfo(name, (chance.randrange(1980, 2100), 5, 6, 7, 8, 10))
            info.external_attr = (stat.S_IFREG | files[name][1]) << 16
            info.compress_type = method
            info.extra = b"UT\5\0\3" + chance.randbytes(4) + b"ux\x0b\0\1\4" + chance.randbytes(4) + b"\4" + bytes(4)
            archive.writestr(info, files[name][0])
    return buffer.getvalue()


def canon(data: bytes, settings: Settings = SETTINGS, path: Path = Path("/nowhere")) -> bytes:
    """What a file with these bytes becomes."""
    path.write_bytes(data)
    canonicalize(path, settings)
    return path.read_bytes()


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Callable[..., bytes]]:
    yield lambda data, settings=SETTINGS: canon(data, settings, tmp_path / "file")
    assert [entry.name for entry in tmp_path.iterdir() if entry.name != "file"] == []


PACKERS: dict[str, Callable[[bytes], bytes]] = {
    "tar": bytes, "gz": gzip.compress, "bz2": bz2.compress, "xz": lzma.compress}


@pytest.mark.parametrize("kind", PACKERS)
def test_tars_of_the_same_files_become_the_same(kind: str, make: Callable[..., bytes]) -> None:
    packers = PACKERS[kind]
    outcomes = {make(packers(make_tar(FILES, seed=seed, format=format)))
                for seed in range(3) for format in (tarfile.GNU_FORMAT, tarfile.PAX_FORMAT)}
    assert len(outcomes) == 1
    done = outcomes.pop()
    assert make(done) == done
    with tarfile.open(fileobj=io.BytesIO(done)) as tar:
        members = tar.getmembers()
        assert [member.name for member in members] == sorted(FILES, key=str.encode)
        assert {(m.uid, m.gid, m.uname, m.gname, m.mtime) for m in members} == {(0, 0, "", "", DATE)}
        for member in members:
            file = tar.extractfile(member)
            assert file is not None
            assert file.read() == FILES[member.name][0]
            assert member.mode == (0o755 if member.name == "b/run" else 0o644)


def test_zstd_through_its_program(make: Callable[..., bytes]) -> None:
    if shutil.which("zstd") is None:
        pytest.skip("zstd is not installed")

    def zstd(*arguments: str, data: bytes) -> bytes:
        return subprocess.run(["zstd", "-q", *arguments], input=data, stdout=subprocess.PIPE, check=True).stdout

    done = {make(zstd("-c", data=make_tar(FILES, seed=seed))) for seed in range(2)}
    assert len(done) == 1
    assert zstd("-dc", data=done.copy().pop()) == make(make_tar(FILES))
    assert make(done.copy().pop()) in done
    with pytest.raises(FormatError, match="zstd failed"):
        make(zstd("-c", data=make_tar(FILES))[:-200])
    with pytest.raises(MissingToolError):
        make(zstd("-c", data=b"x"), Settings(date=DATE))


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_LZMA])
def test_zips_of_the_same_files_become_the_same(method: int, make: Callable[..., bytes]) -> None:
    outcomes = {make(make_zip(FILES, seed=seed, method=method)) for seed in range(3)}
    assert len(outcomes) == 1
    done = outcomes.pop()
    assert make(done) == done
    with zipfile.ZipFile(io.BytesIO(done)) as archive:
        assert archive.testzip() is None
        assert archive.namelist() == sorted(FILES, key=str.encode)
        for info in archive.infolist():
            assert info.date_time == (2011, 3, 13, 7, 6, 40)
            assert archive.read(info) == FILES[info.filename][0]
            assert info.extra == b""
            assert info.external_attr >> 16 == stat.S_IFREG | (0o755 if info.filename == "b/run" else 0o644)


def test_streamed_zips_become_what_others_become(make: Callable[..., bytes]) -> None:
    """A zip written to a pipe has its sizes behind the data."""
    class Pipe(io.RawIOBase):
        data = b""

        def writable(self) -> bool:
            return True

        def write(self, data: Any) -> int:
            piece = bytes(data)
            self.data += piece
            return len(piece)

    pipe = Pipe()
    with zipfile.ZipFile(pipe, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, (data, mode) in FILES.items():
            info = zipfile.ZipInfo(name)
            info.compress_type, info.external_attr = zipfile.ZIP_DEFLATED, (stat.S_IFREG | mode) << 16
            archive.writestr(info, data)
    assert b"PK\7\x08" in pipe.data
    assert make(pipe.data) == make(make_zip(FILES))


def test_a_jar_keeps_its_manifest_first_and_an_epub_its_type(make: Callable[..., bytes]) -> None:
    names = {"META-INF/": b"", "A.class": b"1", "META-INF/MANIFEST.MF": b"2", "META-INF/A.SF": b"3"}
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, data in names.items():
            archive.writestr(name, data)
    with zipfile.ZipFile(io.BytesIO(make(buffer.getvalue()))) as archive:
        assert archive.namelist() == ["META-INF/MANIFEST.MF", "META-INF/", "A.class", "META-INF/A.SF"]
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("mimetype", "application/epub+zip")
        archive.writestr("a", "")
    assert make(buffer.getvalue())[30:58] == b"mimetypeapplication/epub+zip"


def test_a_zip_behind_a_program_still_runs(make: Callable[..., bytes], tmp_path: Path) -> None:
    buffer = io.BytesIO(b"#!/usr/bin/env python3\n")
    buffer.seek(0, 2)
    with zipfile.ZipFile(buffer, "a") as archive:
        archive.writestr("z.py", "")
        archive.writestr("__main__.py", "print('ran')")
    done = make(buffer.getvalue())
    assert done.startswith(b"#!/usr/bin/env python3\nPK")
    (tmp_path / "file").write_bytes(done)
    ran = subprocess.run([sys.executable, tmp_path / "file"], capture_output=True, text=True, stdin=subprocess.DEVNULL)
    assert ran.stdout == "ran\n", ran.stderr


def test_links_sparse_files_and_special_bits(make: Callable[..., bytes], tmp_path: Path) -> None:
    top = tmp_path / "file"  # the fixture's own name: nothing else may be left there
    tree = Path(os.path.realpath(tmp_path)).parent / f"{tmp_path.name}-tree"
    (tree / "t").mkdir(parents=True)
    (tree / "t" / "zz").write_bytes(b"data")
    (tree / "t" / "zz").chmod(0o4711)
    os.link(tree / "t" / "zz", tree / "t" / "aa")
    os.symlink("aa", tree / "t" / "link")
    with (tree / "t" / "sparse").open("wb") as file:
        for number in range(30):  # more places than the header of GNU's old kind has room for
            file.seek(number * 200000)
            file.write(b"%d" % number)
    for option in ("--format=gnu", "--format=posix"):
        outcomes = set()
        for names in (["t", "t/zz", "t/aa", "t/link", "t/sparse"], ["t/sparse", "t/aa", "t/link", "t/zz", "t"]):
            made = subprocess.run(["tar", "-S", option, "--no-recursion", "-C", tree, "-cf", "-", *names], check=True,
                                  stdout=subprocess.PIPE)
            outcomes.add(make(made.stdout))
        assert len(outcomes) == 1, "whichever name of a hard link came first"
        done = outcomes.pop()
        assert len(done) < 10**6, "sparse files stay sparse"
        with tarfile.open(fileobj=io.BytesIO(done)) as tar:
            kinds = {member.name: (member.type, member.linkname) for member in tar}
            assert kinds["t/aa"] == (tarfile.REGTYPE, "")
            assert kinds["t/zz"] == (tarfile.LNKTYPE, "t/aa")
            assert kinds["t/link"] == (tarfile.SYMTYPE, "aa")
            assert tar.getmember("t/aa").mode == 0o4755
        top.write_bytes(done)
        listed = subprocess.run(["tar", "-xOf", top, "t/sparse"], check=True, stdout=subprocess.PIPE).stdout
        assert listed == (tree / "t" / "sparse").read_bytes()
    shutil.rmtree(tree)


def test_gzip_headers_alone_are_rewritten(make: Callable[..., bytes]) -> None:
    streams = []
    for name, mtime in (("one", 111), ("another", 222)):
        buffer = io.BytesIO()
        with gzip.GzipFile(name, "wb", 6, buffer, mtime) as file:
            file.write(b"content" * 100)
        streams.append(buffer.getvalue())
    done = make(streams[0])
    assert done == make(streams[1])
    # RFC 1952: no flags, no time, Unix; the deflated data and the trailer are those of the original.
    assert done[:8] == b"\x1f\x8b\x08\0\0\0\0\0"
    assert done[9] == 3
    assert streams[0].endswith(done[10:])
    both = make(streams[0] + streams[1] + bytes(512))
    assert both == done + done
    assert gzip.decompress(both) == b"content" * 200


def ar_header(name: str, size: int, date: str = "123", owner: str = "1000", mode: str = "100600") -> bytes:
    return f"{name:16}{date:12}{owner:6}{owner:6}{mode:8}{size:<10}`\n".encode()


def test_ar_in_place(make: Callable[..., bytes]) -> None:
    made = (b"!<arch>\n" + ar_header("/", 4) + b"\0\0\0\0" + b"//" + b" " * 46 + b"4         `\nlong"
            + ar_header("a.o/", 3) + b"abc\n" + ar_header("b.o/", 2) + b"xy")
    assert make(made) == (
        b"!<arch>\n" + ar_header("/", 4, "0", "0", "0") + b"\0\0\0\0" + b"//" + b" " * 46 + b"4         `\nlong"
        + ar_header("a.o/", 3, str(DATE), "0", "100644") + b"abc\n" + ar_header("b.o/", 2, str(DATE), "0", "100644")
        + b"xy")
    with pytest.raises(FormatError, match="thin"):
        make(b"!<thin>\n")
    with pytest.raises(FormatError, match="ends"):
        make(made[:-1])


def test_keeping(make: Callable[..., bytes]) -> None:
    before = make_tar(FILES, seed=4)
    kept = make(before, SETTINGS._replace(keep=frozenset(("times", "order", "owners", "modes"))))
    with tarfile.open(fileobj=io.BytesIO(before)) as old, tarfile.open(fileobj=io.BytesIO(kept)) as new:
        for one, other in zip(old, new, strict=True):
            for what in ("name", "mode", "uid", "gid", "uname", "gname", "mtime", "size"):
                assert getattr(one, what) == getattr(other, what)
    zipped = make_zip(FILES, seed=4)
    kept = make(zipped, SETTINGS._replace(keep=frozenset(("times", "order", "modes"))))
    with zipfile.ZipFile(io.BytesIO(zipped)) as first, zipfile.ZipFile(io.BytesIO(kept)) as second:
        for before_info, after in zip(first.infolist(), second.infolist(), strict=True):
            assert (before_info.filename, before_info.date_time, before_info.external_attr) == (
                after.filename, after.date_time, after.external_attr)


NAMES = st.text("ab/.é ", min_size=1, max_size=150).map(lambda text: text.strip("/ .") or "x")
TREES = st.dictionaries(NAMES, st.tuples(st.binary(max_size=600), st.sampled_from([0o644, 0o755, 0o600, 0o4711])),
                        max_size=6)


BOTH: list[Callable[..., bytes]] = [make_tar, make_zip]


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(files=TREES, seed=st.integers(0, 99), packer=st.sampled_from(BOTH))
def test_idempotent_and_contents_unchanged(files: Files, seed: int, packer: Callable[..., bytes],
                                           tmp_path: Path) -> None:
    path = tmp_path / "x"
    once = canon(packer(files, seed=seed), SETTINGS, path)
    assert canon(once, SETTINGS, path) == once
    assert canon(packer(files, seed=seed + 1), SETTINGS, path) == once
    if packer is make_zip:
        with zipfile.ZipFile(io.BytesIO(once)) as archive:
            assert {name: archive.read(name) for name in archive.namelist()} == {
                name: data for name, (data, _) in files.items()}
    else:
        with tarfile.open(fileobj=io.BytesIO(once)) as tar:
            found = {m.name: tar.extractfile(m).read() for m in tar}  # type: ignore[union-attr]
            assert found == {name: data for name, (data, _) in files.items()}


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data(), packer=st.sampled_from(["tar", "gz", "zip", "bz2", "xz"]))
def test_damaged_files_are_refused_or_survive_and_are_left_alone(data: st.DataObject, packer: str,
                                                                 tmp_path: Path) -> None:
    whole = make_zip(FILES) if packer == "zip" else PACKERS[packer](make_tar(FILES))
    at = data.draw(st.integers(0, len(whole) - 1))
    cut = data.draw(st.booleans())
    broken = whole[:at] if cut else whole[:at] + bytes([whole[at] ^ data.draw(st.integers(1, 255))]) + whole[at + 1:]
    path = tmp_path / "x"
    path.write_bytes(broken)
    try:
        canonicalize(path, SETTINGS)
    except FormatError:
        assert path.read_bytes() == broken
    assert [entry.name for entry in tmp_path.iterdir()] == ["x"]


def bomb(kind: str) -> bytes:
    """What becomes a thousand times as large: a tar of one file of zeros."""
    head = tarfile.TarInfo("zeros")
    head.size = 300 * 2**20
    data = head.tobuf(tarfile.GNU_FORMAT)
    packer = PACKERS[kind]
    return packer(data) + packer(bytes(30 * 2**20)) * 10


@pytest.mark.parametrize("kind", ["gz", "bz2"])
def test_bombs_are_refused_unless_allowed(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.write_bytes(bomb(kind))
    with pytest.raises(FormatError, match="250 times"):
        canonicalize(path, SETTINGS)
    with pytest.raises(FormatError, match="1000000 bytes"):
        canonicalize(path, SETTINGS._replace(limit=10**6))


def test_zip_bombs_of_overlapping_members_are_refused(make: Callable[..., bytes]) -> None:
    """David Fifield, 'A better zip bomb': many entries of the directory share one run of compressed data."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("a", "same")
        archive.writestr("b", "same")
    data = buffer.getvalue()
    second = data.rindex(b"PK\1\2")
    twice = data[:second] + data[data.index(b"PK\1\2"):second] + data[data.rindex(b"PK\5\6"):]
    with pytest.raises(FormatError, match="overlaps"):
        make(twice)


def test_zips_that_tell_two_stories_are_refused(make: Callable[..., bytes]) -> None:
    data = make_zip({"name": (b"x", 0o644)})
    with pytest.raises(FormatError, match="contradict"):
        make(data.replace(b"name", b"evil", 1))
    encrypted = bytearray(data)
    encrypted[data.index(b"PK\1\2") + 8] |= 1
    with pytest.raises(FormatError, match="encrypted"):
        make(bytes(encrypted))
    where = data.index(b"PK\1\2")
    block = bytes(16) + b"APK Sig Block 42"
    end = bytearray(data[data.rindex(b"PK\5\6"):])
    end[16:20] = (where + len(block)).to_bytes(4, "little")
    with pytest.raises(FormatError, match="signed Android"):
        make(data[:where] + block + data[where:data.rindex(b"PK\5\6")] + bytes(end))


def test_tars_that_cannot_be_right_are_refused(make: Callable[..., bytes]) -> None:
    good = make_tar({"a": (b"1", 0o644)})
    with pytest.raises(FormatError, match="follows the end"):
        make(good + good)
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name, target in (("a", "b"), ("b", "a")):
            info = tarfile.TarInfo(name)
            info.type, info.linkname = tarfile.LNKTYPE, target
            tar.addfile(info)
    with pytest.raises(FormatError, match="circles"):
        make(buffer.getvalue())
    endless = tarfile.TarInfo("x" * 100)
    endless.type, endless.size = tarfile.GNUTYPE_LONGNAME, 2**33
    with pytest.raises(FormatError, match="names and headers"):
        make(endless.tobuf(tarfile.GNU_FORMAT) + bytes(1024))


def test_the_comment_of_git_archive_stays(make: Callable[..., bytes]) -> None:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT, pax_headers={"comment": "c0ffee"}) as tar:
        tar.addfile(tarfile.TarInfo("a"))
    with tarfile.open(fileobj=io.BytesIO(make(buffer.getvalue()))) as tar:
        assert tar.pax_headers == {"comment": "c0ffee"}


def test_files_keep_their_permissions_and_links_lead_on(tmp_path: Path) -> None:
    (tmp_path / "real").write_bytes(make_zip(FILES))
    (tmp_path / "real").chmod(0o751)
    (tmp_path / "link").symlink_to("real")
    assert canonicalize(tmp_path / "link", SETTINGS).changed
    assert (tmp_path / "link").is_symlink()
    assert stat.S_IMODE((tmp_path / "real").stat().st_mode) == 0o751
    assert not canonicalize(tmp_path / "real", SETTINGS).changed
    for name, make_it in (("dir", os.mkdir), ("pipe", os.mkfifo)):
        make_it(tmp_path / name)
        with pytest.raises(InputError):
            canonicalize(tmp_path / name, SETTINGS)
    (tmp_path / "text").write_text("no archive")
    with pytest.raises(FormatError, match="no archive that is known"):
        canonicalize(tmp_path / "text", SETTINGS)


@pytest.mark.parametrize(("text", "seconds"), [
    ("1300000000", DATE), ("@1300000000", DATE), ("2011-03-13 07:06:40", DATE), ("2011-03-13T07:06:40Z", DATE),
    ("2011-03-13", 1299974400), ("1980-01-01", DEFAULT_DATE), ("0", 0)])
def test_dates(text: str, seconds: int) -> None:
    assert parse_date(text) == seconds


@pytest.mark.parametrize("text", ["", "yesterday", "2011-02-30", "-5", "99999999999", "2011-03-13 25:00:00"])
def test_no_dates(text: str) -> None:
    with pytest.raises(UsageError):
        parse_date(text)


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOURCE_DATE_EPOCH", str(DATE))
    path = tmp_path / "x.zip"
    path.write_bytes(before := make_zip(FILES))
    command = load("canon")
    assert status_of(command, "canon", ["--check", str(path)]) == 1
    assert path.read_bytes() == before
    assert status_of(command, "canon", [str(path), "-o", str(tmp_path / "y.zip")]) == 0
    assert path.read_bytes() == before
    assert status_of(command, "canon", [str(path)]) == 0
    assert path.read_bytes() == (tmp_path / "y.zip").read_bytes()
    assert status_of(command, "canon", ["--check", str(path)]) == 0
    assert status_of(command, "canon", []) == 2
    assert status_of(command, "canon", [str(tmp_path / "none")]) == 4
    assert "rewritten" in capsys.readouterr().out


def test_canon_zip_in_its_classic_form(tmp_path: Path) -> None:
    """The classic reads each member and writes it with the date set; done here as its help describes it."""
    given_zip = io.BytesIO()
    with zipfile.ZipFile(given_zip, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, (data, _) in FILES.items():
            archive.writestr(name, data)
    (tmp_path / "in.zip").write_bytes(given_zip.getvalue())
    expected = io.BytesIO()
    with zipfile.ZipFile(given_zip) as old, zipfile.ZipFile(expected, "w") as new:
        for info in old.infolist():
            data = old.read(info)
            info.date_time = (2011, 1, 30, 0, 0, 0)
            new.writestr(info, data)
    command = load("canon-zip")
    assert status_of(command, "canon-zip", ["2011-01-30", str(tmp_path / "in.zip"), str(tmp_path / "out.zip")]) == 0
    assert (tmp_path / "out.zip").read_bytes() == expected.getvalue()
    (tmp_path / "in.zip").write_bytes(make_zip(FILES, seed=8))
    assert status_of(command, "canon-zip", ["2011-01-30", str(tmp_path / "in.zip"), str(tmp_path / "out.zip")]) == 0
    with zipfile.ZipFile(tmp_path / "in.zip") as old, zipfile.ZipFile(tmp_path / "out.zip") as new:
        assert new.namelist() == old.namelist()
        assert all(new.read(name) == old.read(name) for name in old.namelist())
        assert all(b"UT" not in info.extra for info in new.infolist()), "times in extra fields are times too"
    assert status_of(command, "canon-zip", ["1979-01-30", str(tmp_path / "in.zip"), str(tmp_path / "o")]) == 2
    (tmp_path / "in.zip").write_bytes(b"nothing")
    assert status_of(command, "canon-zip", ["2011-01-30", str(tmp_path / "in.zip"), str(tmp_path / "o")]) == 16


def test_the_script_for_guests(tmp_path: Path) -> None:
    program = tmp_path / "canon"
    assert status_of(load("canon"), "canon", ["--script", str(program)]) == 0
    assert program.read_bytes() == packed_script()
    (tmp_path / "a.tar.gz").write_bytes(gzip.compress(make_tar(FILES, seed=3)))
    (tmp_path / "b.zip").write_bytes(make_zip(FILES, seed=3))
    for name in ("a.tar.gz", "b.zip"):
        shutil.copy(tmp_path / name, tmp_path / f"ours-{name}")
        canonicalize(tmp_path / f"ours-{name}", SETTINGS)
    # As in a guest: nothing of gitian's is to be found but in the file itself.
    done = subprocess.run([sys.executable, "-I", program, "a.tar.gz", "b.zip"], cwd=tmp_path, capture_output=True,
                          text=True, stdin=subprocess.DEVNULL,
                          env={"PATH": os.environ["PATH"], "SOURCE_DATE_EPOCH": str(DATE)})
    assert done.returncode == 0, done.stderr
    assert done.stdout == "a.tar.gz (tar.gz): rewritten\nb.zip (zip): rewritten\n"
    for name in ("a.tar.gz", "b.zip"):
        assert (tmp_path / name).read_bytes() == (tmp_path / f"ours-{name}").read_bytes()


def test_the_script_holds_all_that_it_imports_in_the_language_of_python_3_7() -> None:
    import ast

    source = Path(__file__).resolve().parents[2]
    texts = {name: (source / "src" / "gitian" / f"{name}.py").read_text() for name in MODULES}
    texts["driver"] = (source / "target-bin" / "canon.py").read_text()
    held = {"gitian." + name.replace("/", ".") for name in MODULES}
    for name, text in texts.items():
        for node in ast.walk(ast.parse(text, feature_version=(3, 7))):
            if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("gitian"):
                wanted = {f"{node.module}.{alias.name}" for alias in node.names} | {node.module}
                assert wanted & held, f"{name} imports {node.module}"
