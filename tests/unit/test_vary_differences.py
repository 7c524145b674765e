"""What differs between two builds: planted differences, each made here, each found with its cause and its place."""

from __future__ import annotations

import gzip
import io
import os
import shutil
import stat
import struct
import subprocess
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gitian.vary.circumstances import UNKNOWN, Circumstances, known_to_differ
from gitian.vary.contents import Limits
from gitian.vary.differences import compare_files, compare_trees
from gitian.vary.findings import Difference, Kind
from gitian.vary.hints import Cause

#: 2026-11-22 10:00:00 and 2031-01-03 05:20:00 UTC, computed with date(1); each build takes ten minutes.
START_A, START_B = 1795341600, 1925184000
A = Circumstances(
    time=(START_A, START_A + 600), time_zone="UTC", locale="en_US.UTF-8", umask=0o002, user="debian", uid=1000,
    gid=1000, home="/home/debian", paths=("/home/debian/build",), hostname="gitian", domain="local", cores=2,
    memory=2000, kernel="6.1.0-28-amd64", cpu="qemu64", cpu_features=("sse2", "sse3"),
    environment=(("PATH", "/usr/bin:/bin"),), pids=(300, 5000), directory_order="sorted", sh="dash")
B = Circumstances(
    time=(START_B, START_B + 600), time_zone="Pacific/Kiritimati", locale="fr_FR.UTF-8", umask=0o077, user="other",
    uid=1234, gid=2345, home="/var/lib/elsewhere", paths=("/var/lib/elsewhere/deep/build",), hostname="moved",
    domain="example", cores=3, memory=3000, kernel="5.10.0-33-amd64", cpu="max", cpu_features=("sse2", "sse3", "avx2"),
    environment=(("PATH", "/usr/bin:/bin"), ("CAPTURED", "a-value-of-the-second")), pids=(20000, 32000),
    directory_order="shuffled", sh="bash")


def only(**named: object) -> Circumstances:
    """The first build's circumstances but for these."""
    from dataclasses import replace

    return replace(A, **named)  # type: ignore[arg-type]


@pytest.fixture
def compare(tmp_path: Path) -> Callable[..., Difference]:
    """Compare two contents; there must be a difference."""

    def run(left: bytes, right: bytes, a: Circumstances = A, b: Circumstances = B, name: str = "out") -> Difference:
        (tmp_path / "a").write_bytes(left)
        (tmp_path / "b").write_bytes(right)
        found = compare_files(tmp_path / "a", tmp_path / "b", a, b, name=name)
        assert found is not None
        return found

    return run


def causes(found: Difference, *, sure: bool = True) -> set[Cause]:
    return {hint.cause for hint in found.hints if hint.sure or not sure}


# --- text

TEXTS = {
    "unix seconds": (f"built {START_A + 5}\n", f"built {START_B + 500}\n", Cause.TIME),
    "milliseconds": (f"t={START_A + 5}123\n", f"t={START_B + 500}999\n", Cause.TIME),
    "iso": ("on 2026-11-22T10:03:01Z\n", "on 2031-01-03T05:22:59Z\n", Cause.TIME),
    "iso day": ("Date: 2026-11-22\n", "Date: 2031-01-03\n", Cause.TIME),
    "local day": ("Date: 2026-11-22\n", "Date: 2031-01-03 19:21\n", Cause.TIME),
    "compact": ("v1.0+20261122\n", "v1.0+20310103\n", Cause.TIME),
    "compiler's day": ('char *d = "Nov 22 2026";\n', 'char *d = "Jan  3 2031";\n', Cause.TIME),
    "compiler's clock": ('char *d = "10:03:01";\n', 'char *d = "05:22:59";\n', Cause.TIME),
    "mail": ("Date: Sun, 22 Nov 2026 10:03:01 +0000\n", "Date: Fri, 03 Jan 2031 05:22:59 +0000\n", Cause.TIME),
    "ctime": ("Sun Nov 22 10:03:01 2026\n", "Fri Jan  3 05:22:59 2031\n", Cause.TIME),
    "date(1)": ("Sun Nov 22 10:03:01 UTC 2026\n", "Fri Jan  3 05:22:59 UTC 2031\n", Cause.TIME),
    "pdf": ("/CreationDate (D:20261122100301Z)\n", "/CreationDate (D:20310103052259Z)\n", Cause.TIME),
    "year": ("Copyright 2026 by us\n", "Copyright 2031 by us\n", Cause.TIME),
    "home": ("prefix=/home/debian/install\n", "prefix=/var/lib/elsewhere/install\n", Cause.PATH),
    "build path": ("file /home/debian/build/x.c:3\n", "file /var/lib/elsewhere/deep/build/x.c:3\n", Cause.PATH),
    "host name": ("on gitian.\n", "on moved.\n", Cause.HOSTNAME),
    "whole host name": ("debian at gitian.local\n", "debian at moved.example\n", Cause.HOSTNAME),
    "user": ("by debian\n", "by other\n", Cause.USER),
    "uid": ("uid=1000\n", "uid=1234\n", Cause.OWNER),
    "cores": ("make -j2\n", "make -j3\n", Cause.CORES),
    "memory": ("heap 2000m\n", "heap 3000m\n", Cause.MEMORY),
    "kernel": ("Linux 6.1.0-28-amd64 x\n", "Linux 5.10.0-33-amd64 x\n", Cause.KERNEL),
    "cpu": ("for qemu64 only\n", "for max only\n", Cause.CPU),
    "cpu features": ("flags sse2 sse3\n", "flags sse2 sse3 avx2\n", Cause.CPU),
    "shell": ("run by dash\n", "run by bash\n", Cause.SHELL),
    "umask": ("umask 0002\n", "umask 0077\n", Cause.UMASK),
    "variable": ("env:\nx\n", "env:\nCAPTURED=a-value-of-the-second\nx\n", Cause.ENVIRONMENT),
    "decimal comma": ("pi is 3.14\n", "pi is 3,14\n", Cause.LOCALE),
}


@pytest.mark.parametrize("name", TEXTS)
def test_text_names_its_cause_alone(name: str, compare: Callable[..., Difference]) -> None:
    left, right, cause = TEXTS[name]
    found = compare(("first\n" + left + "last\n").encode(), ("first\n" + right + "last\n").encode())
    assert found.kind is Kind.TEXT
    assert causes(found, sure=False) == {cause}
    (hint,) = found.hints
    assert hint.sure
    assert hint.place.startswith("out:") and int(hint.place[4:]) in (2, 3)
    assert hint.remedy and hint.reference.startswith("https://")


@pytest.mark.parametrize(("left", "right", "cause"), [
    ("id 3f2b8a60-1d2c-4e5f-8a9b-0c1d2e3f4a5b", "id 9a1c7d42-5b6e-4f70-9182-a3b4c5d6e7f8", Cause.RANDOM),
    ("in /tmp/tmp.Xa81kQz9Lp", "in /tmp/tmp.pQ02mVb7Rt", Cause.RANDOM),
    ("key 00112233445566778899aabbccddeeff", "key f0e1d2c3b4a5968778695a4b3c2d1e0f", Cause.RANDOM),
    ("ptr 0x55d3c8a012a0", "ptr 0x5601fe3372a0", Cause.ADDRESS),
    ("at 0x7ffd1a2b3c40", "at 0x7ffc90817260", Cause.ADDRESS),
    ("bytes c5 e3 0d 5f fa 74 8e 35 94 be", "bytes 35 73 3b 1d b4 eb eb 96 9c e3", Cause.RANDOM),
    ("number 1715211219", "number 1223453277", Cause.RANDOM),
    ("number 8214", "number 12345", Cause.RANDOM),
    ("my pid is 471", "my pid is 20881", Cause.PID),
    ("written in November", "written in novembre", Cause.LOCALE),
])
def test_what_only_looks_like_a_cause_is_not_sure(left: str, right: str, cause: Cause,
                                                  compare: Callable[..., Difference]) -> None:
    found = compare(f"{left}\n".encode(), f"{right}\n".encode())
    assert causes(found) == set()
    assert causes(found, sure=False) == {cause}


def test_without_knowledge_a_time_is_still_guessed(compare: Callable[..., Difference]) -> None:
    found = compare(b"on 2026-11-22\n", b"on 2031-01-03\n", UNKNOWN, UNKNOWN)
    assert causes(found) == set() and causes(found, sure=False) == {Cause.TIME}


def test_one_instant_in_two_time_zones(compare: Callable[..., Difference]) -> None:
    """Kiritimati is fourteen hours ahead, so noon is two in the morning of the next day there."""
    b = only(time_zone="Pacific/Kiritimati")
    assert causes(compare(b"2020-05-05 12:00:00\n", b"2020-05-06 02:00:00\n", A, b)) == {Cause.TIME_ZONE}
    assert causes(compare(b"2020-05-05T12:00:00+0000\n", b"2020-05-06T02:00:00+1400\n", A, b)) == {Cause.TIME_ZONE}


def test_the_clock_in_another_time_zone_has_two_causes(compare: Callable[..., Difference]) -> None:
    """What date(1) says, in UTC and on Kiritimati."""
    found = compare(b"Sun Nov 22 10:03:01 UTC 2026\n", b"Fri Jan  3 19:22:59 +14 2031\n")
    assert causes(found, sure=False) == {Cause.TIME, Cause.TIME_ZONE}


def test_two_causes_in_one_line_are_both_named(compare: Callable[..., Difference]) -> None:
    found = compare(b"built by debian on gitian at 2026-11-22 10:03\n",
                    b"built by other on moved at 2031-01-03 05:22\n")
    assert causes(found, sure=False) == {Cause.USER, Cause.HOSTNAME, Cause.TIME}


def test_the_same_lines_in_another_order(compare: Callable[..., Difference]) -> None:
    one, other = b"b.c\na.c\nc.c\n", b"a.c\nc.c\nb.c\n"
    found = compare(one, other)
    assert found.kind is Kind.LINE_ORDER and causes(found) == {Cause.DIRECTORY_ORDER}
    found = compare(one, other, UNKNOWN, UNKNOWN)
    assert causes(found) == set() and causes(found, sure=False) == {Cause.DIRECTORY_ORDER}


def test_lines_sorted_in_two_locales(compare: Callable[..., Difference]) -> None:
    """C has capitals first; French has not."""
    found = compare(b"B\nZ\na\nc\n", b"a\nB\nc\nZ\n")
    assert found.kind is Kind.LINE_ORDER and causes(found, sure=False) == {Cause.LOCALE}
    assert "LC_ALL=C sort" in found.hints[0].remedy


# --- archives

def make_tar(names: list[str], *, mtime: int = 1, uid: int = 0, uname: str = "", mode: int = 0o644,
             contents: dict[str, bytes] | None = None) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.GNU_FORMAT) as tar:
        for name in names:
            data = (contents or {}).get(name, name.encode())
            info = tarfile.TarInfo(name)
            info.size, info.mode, info.mtime, info.uid, info.uname = len(data), mode, mtime, uid, uname
            tar.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


def make_zip(names: list[str], *, date: tuple[int, int, int, int, int, int] = (1980, 1, 1, 0, 0, 0), mode: int = 0o644,
             extra: bytes = b"") -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in names:
            info = zipfile.ZipInfo(name, date)
            info.external_attr, info.extra, info.create_system = (stat.S_IFREG | mode) << 16, extra, 3
            archive.writestr(info, name * 20)
    return buffer.getvalue()


def make_ar(mtime: int = 0, uid: int = 0, gid: int = 0, mode: int = 0o100644, content: bytes = b"data") -> bytes:
    header = f"{'x.o/':16}{mtime:<12}{uid:<6}{gid:<6}{mode:<8o}{len(content):<10}`\n".encode()
    return b"!<arch>\n" + header + content + b"\n" * (len(content) % 2)


ABC = ["a", "b", "c"]
NEAR_A, NEAR_B = (2026, 11, 22, 10, 3, 2), (2031, 1, 3, 5, 22, 58)
ARCHIVES = {
    "tar order": (make_tar(["b", "a", "c"]), make_tar(["c", "b", "a"]), Kind.MEMBER_ORDER, Cause.DIRECTORY_ORDER,
                  "--sort=name"),
    "tar time": (make_tar(ABC, mtime=START_A + 3), make_tar(ABC, mtime=START_B + 9), Kind.MEMBER_TIME, Cause.TIME,
                 "--mtime"),
    "tar uid": (make_tar(ABC, uid=1000), make_tar(ABC, uid=1234), Kind.MEMBER_OWNER, Cause.OWNER, "--owner=0"),
    "tar user": (make_tar(ABC, uname="debian"), make_tar(ABC, uname="other"), Kind.MEMBER_OWNER, Cause.USER,
                 "--numeric-owner"),
    "tar umask": (make_tar(ABC, mode=0o664), make_tar(ABC, mode=0o600), Kind.MEMBER_MODE, Cause.UMASK, "--mode"),
    "zip order": (make_zip(["b", "a", "c"]), make_zip(["c", "b", "a"]), Kind.MEMBER_ORDER, Cause.DIRECTORY_ORDER,
                  "LC_ALL=C sort"),
    "zip time": (make_zip(ABC, date=NEAR_A), make_zip(ABC, date=NEAR_B), Kind.MEMBER_TIME, Cause.TIME, "zip -X"),
    "zip umask": (make_zip(ABC, mode=0o664), make_zip(ABC, mode=0o600), Kind.MEMBER_MODE, Cause.UMASK, "umask"),
    "zip owner": (make_zip(ABC, extra=b"ux\x0b\0\1\4" + struct.pack("<I", 1000) + b"\4" + bytes(4)),
                  make_zip(ABC, extra=b"ux\x0b\0\1\4" + struct.pack("<I", 1234) + b"\4" + bytes(4)),
                  Kind.MEMBER_OWNER, Cause.OWNER, "zip -X"),
    "zip time in UTC": (make_zip(ABC, extra=b"UT\5\0\1" + struct.pack("<I", START_A + 7)),
                        make_zip(ABC, extra=b"UT\5\0\1" + struct.pack("<I", START_B + 8)),
                        Kind.MEMBER_ATTRIBUTE, Cause.TIME, "zip -X"),
    "ar time": (make_ar(START_A + 5), make_ar(START_B + 5), Kind.MEMBER_TIME, Cause.TIME, "ar D"),
    "ar owner": (make_ar(gid=1000), make_ar(gid=2345), Kind.MEMBER_OWNER, Cause.OWNER, "ar D"),
    "ar umask": (make_ar(mode=0o100664), make_ar(mode=0o100600), Kind.MEMBER_MODE, Cause.UMASK, "umask"),
    "gzip time": (gzip.compress(b"same", mtime=START_A), gzip.compress(b"same", mtime=START_B), Kind.GZIP_HEADER,
                  Cause.TIME, "gzip -n"),
}


@pytest.mark.parametrize("name", ARCHIVES)
def test_archives_name_their_cause_alone(name: str, compare: Callable[..., Difference]) -> None:
    left, right, kind, cause, remedy = ARCHIVES[name]
    found = compare(left, right)
    assert found.kind is kind
    assert causes(found, sure=False) == {cause} and found.hints[0].sure
    assert remedy in found.hints[0].remedy
    assert found.hints[0].place.startswith("out!")
    assert found.sizes == (len(left), len(right)) and all(found.hashes)


def test_a_zip_of_one_time_in_two_zones(compare: Callable[..., Difference]) -> None:
    extra = b"UT\5\0\1" + struct.pack("<I", 1588680000)
    found = compare(make_zip(ABC, date=(2020, 5, 5, 12, 0, 0), extra=extra),
                    make_zip(ABC, date=(2020, 5, 6, 2, 0, 0), extra=extra))
    assert causes(found, sure=False) == {Cause.TIME_ZONE}


def test_the_name_in_a_gzip_header(compare: Callable[..., Difference]) -> None:
    def packed(name: str) -> bytes:
        buffer = io.BytesIO()
        with gzip.GzipFile(name, "wb", fileobj=buffer, mtime=0) as file:
            file.write(b"same")
        return buffer.getvalue()

    found = compare(packed("tmp.Xa81kQz9Lp"), packed("tmp.pQ02mVb7Rt"))
    assert found.kind is Kind.GZIP_HEADER and causes(found, sure=False) == {Cause.RANDOM}


def test_the_same_content_compressed_in_another_way(compare: Callable[..., Difference]) -> None:
    data = bytes(range(256)) * 400
    one, other = gzip.compress(data, 1, mtime=0), gzip.compress(data, 9, mtime=0)
    # Only the data: the header says how hard it was tried too.
    found = compare(one[:8] + b"\0" + one[9:], other[:8] + b"\0" + other[9:], A, A)
    assert found.kind is Kind.COMPRESSION and causes(found, sure=False) == {Cause.COMPRESSION}
    found = compare(one[:8] + b"\0" + one[9:], other[:8] + b"\0" + other[9:], A, only(cores=3))
    assert causes(found, sure=False) == {Cause.CORES}


@pytest.mark.parametrize("kind", ["gz", "bz2", "xz", "zst"])
def test_a_member_within_archives_is_the_cause_and_the_rest_follows(kind: str, tmp_path: Path,
                                                                    compare: Callable[..., Difference]) -> None:
    def packed(text: bytes) -> bytes:
        inner = make_tar(["etc/built"], contents={"etc/built": b"x\n" + text})
        program = {"gz": "gzip -n", "bz2": "bzip2", "xz": "xz", "zst": "zstd -q"}[kind].split()
        if shutil.which(program[0]) is None:
            pytest.skip(f"{program[0]} is not here")
        squeezed = subprocess.run([*program, "-c"], input=inner, stdout=subprocess.PIPE, check=True).stdout
        return make_ar(content=squeezed)

    found = compare(packed(b"gitian\n"), packed(b"moved\n"), name="x.deb")
    assert found.kind is Kind.TEXT and found.where == "x.deb!x.o!etc/built:2"
    assert causes(found, sure=False) == {Cause.HOSTNAME}
    streams = [finding for finding in found.findings if finding.kind is Kind.COMPRESSION]
    assert streams and all(finding.consequence for finding in streams)


def test_a_list_of_hashes_is_a_consequence(compare: Callable[..., Difference], tmp_path: Path) -> None:
    import hashlib

    def tree(text: bytes) -> bytes:
        lines = f"{hashlib.sha256(text).hexdigest()}  built\n{'0' * 64}  other\n".encode()
        return make_tar(["SHA256SUMS", "built"], contents={"SHA256SUMS": lines, "built": text})

    found = compare(tree(b"gitian"), tree(b"moved!"))
    assert causes(found, sure=False) == {Cause.HOSTNAME}
    (follows,) = [finding for finding in found.findings if finding.consequence]
    assert follows.place == "out!SHA256SUMS:1" and follows.consequence == "out!built"


# --- programs

def make_elf(sections: dict[str, bytes]) -> bytes:
    """An ELF file for x86-64 of nothing but sections (System V gABI, chapter 4)."""
    names = b"\0" + b"".join(name.encode() + b"\0" for name in [*sections, ".shstrtab"])
    whole, rows = b"", [bytes(64)]
    for name, data in [*sections.items(), (".shstrtab", names)]:
        place = names.index(b"\0" + name.encode() + b"\0") + 1
        rows.append(struct.pack("<2I4Q2I2Q", place, 1, 0, 0, 64 + len(whole), len(data), 0, 0, 1, 0))
        whole += data
    header = b"\x7fELF\2\1\1" + bytes(9) + struct.pack("<2HI3QI6H", 1, 62, 1, 0, 0, 64 + len(whole), 0, 64, 0, 0, 64,
                                                        len(rows), len(rows) - 1)
    return header + whole + b"".join(rows)


BUILD_ID = b"\4\0\0\0\x14\0\0\0\3\0\0\0GNU\0"
PROGRAMS = {
    "path": (b"\0/home/debian/build/main.c\0", b"\0/var/lib/elsewhere/deep/build/main.c\0", Cause.PATH, ".rodata:0x1"),
    "day": (b"v1\0Nov 22 2026\0x", b"v1\0Jan  3 2031\0x", Cause.TIME, ".rodata:0x3"),
    "seconds": (b"\0" * 16 + struct.pack("<Q", START_A + 5), b"\0" * 16 + struct.pack("<Q", START_B + 5), Cause.TIME,
                ".rodata:0x10"),
    "seconds, big": (b"\0" * 16 + struct.pack(">I", START_A + 5), b"\0" * 16 + struct.pack(">I", START_B + 5),
                     Cause.TIME, ".rodata:0x10"),
    "host name": (b"\0\1built on gitian\0", b"\0\1built on moved\0", Cause.HOSTNAME, ".rodata:0x2"),
    "cores": (bytes(8) + struct.pack("<I", 2) + bytes(8), bytes(8) + struct.pack("<I", 3) + bytes(8), Cause.CORES,
              ".rodata:0x8"),
    "uid": (bytes(8) + struct.pack("<I", 1000), bytes(8) + struct.pack("<I", 1234), Cause.OWNER, ".rodata:0x8"),
    "kernel": (b"6.1.0-28-amd64\0", b"5.10.0-33-amd64\0", Cause.KERNEL, ".rodata:0x0"),
}


@pytest.mark.parametrize("name", PROGRAMS)
def test_programs_name_cause_and_section(name: str, compare: Callable[..., Difference]) -> None:
    left, right, cause, place = PROGRAMS[name]
    code = b"\x90" * 40
    found = compare(make_elf({".text": code, ".note.gnu.build-id": BUILD_ID + b"\x11" * 20, ".rodata": left}),
                    make_elf({".text": code, ".note.gnu.build-id": BUILD_ID + b"\x22" * 20, ".rodata": right}))
    assert causes(found, sure=False) == {cause}
    assert found.where == f"out!{place}" and found.hints[0].place == f"out!{place}"
    (identity,) = [finding for finding in found.findings if "build-id" in finding.place]
    assert identity.consequence == f"out!{place}"


def test_a_build_id_alone_points_to_what_was_stripped(compare: Callable[..., Difference]) -> None:
    found = compare(make_elf({".text": b"\x90", ".note.gnu.build-id": BUILD_ID + b"\x11" * 20}),
                    make_elf({".text": b"\x90", ".note.gnu.build-id": BUILD_ID + b"\x22" * 20}))
    assert causes(found, sure=False) == {Cause.BUILD_ID} and found.where == "out!.note.gnu.build-id"


def test_machine_code_alone_points_to_the_processor(compare: Callable[..., Difference]) -> None:
    found = compare(make_elf({".text": b"\x90" * 40}), make_elf({".text": b"\xc5\xf5\xef" * 17}))
    assert causes(found, sure=False) == {Cause.CPU} and not causes(found)


@pytest.mark.skipif(shutil.which("gcc") is None, reason="there is no compiler here")
def test_a_compiled_program(tmp_path: Path) -> None:
    """A path in the debug information, as GCC writes it, and the remedy that is told really helps."""
    source = "#include <stdio.h>\nint main(void) { puts(__FILE__); return 0; }\n"
    built: dict[tuple[str, bool], Path] = {}
    places = {"one": tmp_path / "one", "other": tmp_path / "elsewhere" / "deep"}
    for name, place in places.items():
        place.mkdir(parents=True)
        (place / "main.c").write_text(source)
        for mapped in (False, True):
            built[name, mapped] = place / f"main{mapped}.o"
            options = [f"-ffile-prefix-map={place}=."] if mapped else []
            subprocess.run(["gcc", "-g", "-c", "-gno-record-gcc-switches", *options, "-o", built[name, mapped],
                            place / "main.c"], check=True, cwd=place, stdin=subprocess.DEVNULL)
    a, b = (Circumstances(paths=(str(place),)) for place in places.values())
    found = compare_files(built["one", False], built["other", False], a, b)
    assert found is not None and causes(found, sure=False) == {Cause.PATH}
    assert any(".debug" in finding.place or ".rodata" in finding.place for finding in found.findings)
    assert "-ffile-prefix-map" in found.hints[0].remedy
    assert compare_files(built["one", True], built["other", True], a, b) is None


@pytest.mark.skipif(shutil.which("gcc") is None, reason="there is no compiler here")
def test_objects_linked_in_another_order(tmp_path: Path) -> None:
    for name in ("first", "second", "main"):
        (tmp_path / f"{name}.c").write_text(f"int {name}(void) {{ return {len(name)}; }}\n")
        subprocess.run(["gcc", "-c", f"{name}.c"], check=True, cwd=tmp_path, stdin=subprocess.DEVNULL)
    for program, names in (("a", ["first.o", "second.o"]), ("b", ["second.o", "first.o"])):
        subprocess.run(["gcc", "-o", program, "main.o", *names], check=True, cwd=tmp_path, stdin=subprocess.DEVNULL)
    found = compare_files(tmp_path / "a", tmp_path / "b", A, only(directory_order="shuffled"))
    assert found is not None and causes(found, sure=False) == {Cause.DIRECTORY_ORDER}
    assert "linker" in found.hints[0].remedy


def test_the_time_in_a_compiled_python_module(compare: Callable[..., Difference]) -> None:
    def module(moment: int) -> bytes:
        import importlib.util
        import marshal

        code = marshal.dumps(compile("x=1", "x", "exec"))
        return importlib.util.MAGIC_NUMBER + struct.pack("<3I", 0, moment, 3) + code

    found = compare(module(START_A + 5), module(START_B + 5))
    assert found.where == "out!time of the source" and causes(found) == {Cause.TIME}
    assert "unchecked-hash" in found.hints[0].remedy


def test_the_time_in_a_windows_program(compare: Callable[..., Difference]) -> None:
    def program(moment: int) -> bytes:
        head = b"MZ" + bytes(58) + struct.pack("<I", 64)
        return head + b"PE\0\0" + struct.pack("<2H3I2H", 0x8664, 0, moment, 0, 0, 0, 0) + bytes(100)

    found = compare(program(START_A + 5), program(START_B + 5))
    assert found.where == "out!time in the header" and causes(found) == {Cause.TIME}
    assert "--no-insert-timestamp" in found.hints[0].remedy


def test_random_data(compare: Callable[..., Difference]) -> None:
    import random

    found = compare(b"\0" + random.Random(1).randbytes(64), b"\0" + random.Random(2).randbytes(64))
    assert causes(found, sure=False) == {Cause.RANDOM} and not causes(found)


# --- trees

def test_trees(tmp_path: Path) -> None:
    for name, word, day in (("a", "gitian", "20261122"), ("b", "moved", "20310103")):
        (tmp_path / name / "sub").mkdir(parents=True)
        (tmp_path / name / "same").write_text("same")
        (tmp_path / name / "sub" / "host").write_text(f"on {word}\n")
        (tmp_path / name / f"hello-{day}.txt").write_text("hello\n")
        (tmp_path / name / "link").symlink_to(f"/somewhere/{word}")
    (tmp_path / "a" / "gone").write_text("x")
    (tmp_path / "b" / "sub" / "kind").symlink_to("/etc/passwd")
    (tmp_path / "a" / "sub" / "kind").write_text("file")
    found = compare_trees(tmp_path / "a", tmp_path / "b", A, B)
    kinds = {difference.path: difference.kind for difference in found}
    assert kinds == {"gone": Kind.ONLY_IN_FIRST, "hello-20261122.txt": Kind.ONLY_IN_FIRST,
                     "hello-20310103.txt": Kind.ONLY_IN_SECOND, "link": Kind.LINK, "sub/host": Kind.TEXT,
                     "sub/kind": Kind.TYPE}
    (tmp_path / "a" / "gone").unlink()
    found = compare_trees(tmp_path / "a", tmp_path / "b", A, B)
    (renamed,) = [difference for difference in found if difference.kind is Kind.NAME]
    assert (renamed.path, renamed.other_path) == ("hello-20261122.txt", "hello-20310103.txt")
    assert causes(renamed) == {Cause.TIME}
    assert compare_trees(tmp_path / "a", tmp_path / "a", A, B) == ()


# --- hostile and arbitrary files

def test_text_is_made_harmless(compare: Callable[..., Difference]) -> None:
    found = compare(make_tar(["\x1b[2J", "x"]), make_tar(["\x1b]0;evil\x07", "x"]))
    assert all(char.isprintable() for line in found.summary for char in line)
    found = compare(b"a\x1b[31mgitian\n", b"a\x1b[31mmoved\n")
    assert all(char.isprintable() for line in found.summary for char in line)
    assert all(char.isprintable() for hint in found.hints for char in hint.evidence + hint.place)


def test_a_bomb_ends_at_the_limit(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(gzip.compress(gzip.compress(bytes(3_000_000)), mtime=0))
    (tmp_path / "b").write_bytes(gzip.compress(gzip.compress(b"\1" * 3_000_000), mtime=0))
    found = compare_files(tmp_path / "a", tmp_path / "b", limits=Limits(unpacked=1_000_000))
    assert found is not None and found.unfinished is not None and "1000000" in found.unfinished


def test_archives_within_archives_end(tmp_path: Path) -> None:
    left, right = b"gitian", b"moved"
    for _ in range(12):
        left, right = make_tar(["x"], contents={"x": left}), make_tar(["x"], contents={"x": right})
    (tmp_path / "a").write_bytes(left)
    (tmp_path / "b").write_bytes(right)
    found = compare_files(tmp_path / "a", tmp_path / "b", A, B, limits=Limits(depth=3))
    assert found is not None and found.findings


def test_many_findings_are_counted(tmp_path: Path) -> None:
    names = [f"m{number:04}" for number in range(300)]
    (tmp_path / "a").write_bytes(make_tar(names, mtime=START_A))
    (tmp_path / "b").write_bytes(make_tar(names, mtime=START_B))
    found = compare_files(tmp_path / "a", tmp_path / "b", A, B, limits=Limits(findings=50))
    assert found is not None and len(found.findings) == 50 and found.more == 250
    assert found.hints[0].also == 49


SAMPLES = [*(pair[0] for pair in ARCHIVES.values()), make_elf({".text": b"x" * 30, ".rodata": b"gitian\0"}),
           b"line\nline two\n", b"%PDF-1.4 /ID [<00>]",
           b"\x89PNG\r\n\x1a\n" + struct.pack(">I4s", 4, b"tEXt") + bytes(8)]


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(sample=st.sampled_from(SAMPLES), data=st.data())
def test_mutated_files_never_raise(sample: bytes, data: st.DataObject, tmp_path: Path) -> None:
    def mutated() -> bytes:
        changed = bytearray(sample)
        for _ in range(data.draw(st.integers(0, 6))):
            if changed:
                changed[data.draw(st.integers(0, len(changed) - 1))] = data.draw(st.integers(0, 255))
        return bytes(changed[:data.draw(st.integers(0, len(changed)))]) if data.draw(st.booleans()) else bytes(changed)

    left, right = mutated(), mutated()
    (tmp_path / "a").write_bytes(left)
    (tmp_path / "b").write_bytes(right)
    found = compare_files(tmp_path / "a", tmp_path / "b", A, B)
    assert (found is None) == (left == right)
    if found is not None:
        assert found.findings and all(line.isprintable() for line in found.summary)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(left=st.binary(max_size=2000), right=st.binary(max_size=2000))
def test_arbitrary_files_never_raise(left: bytes, right: bytes, tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(left)
    (tmp_path / "b").write_bytes(right)
    found = compare_files(tmp_path / "a", tmp_path / "b", A, B)
    assert (found is None) == (left == right)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(left=st.text(max_size=500), right=st.text(max_size=500))
def test_arbitrary_texts_never_raise(left: str, right: str, tmp_path: Path) -> None:
    (tmp_path / "a").write_text(left, encoding="utf-8", newline="")
    (tmp_path / "b").write_text(right, encoding="utf-8", newline="")
    found = compare_files(tmp_path / "a", tmp_path / "b", A, B)
    assert (found is None) == (left == right)


def test_circumstances_that_are_not_known_do_not_differ() -> None:
    assert known_to_differ(UNKNOWN, B) == frozenset()
    assert known_to_differ(A, A) == frozenset()
    assert {"time", "umask", "cores", "directory_order"} <= known_to_differ(A, B)
    assert "time" not in known_to_differ(A, only(time=(START_A + 300, START_A + 900)))


def test_a_pipe_or_a_link_is_no_file(tmp_path: Path) -> None:
    from gitian.errors import InputError

    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link").symlink_to("/etc/passwd")
    (tmp_path / "x").write_text("x")
    for name in ("pipe", "link", "absent"):
        with pytest.raises(InputError, match=name):
            compare_files(tmp_path / "x", tmp_path / name)
