"""Whatever tree goes into a KVM guest comes out of it the same."""

from __future__ import annotations

import os
import shutil
import stat
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gitian.guest.kvm import KvmGuest
from tests.integration import kvm_kit

pytestmark = pytest.mark.kvm

#: Names of any bytes that a file may have; some longer than a tar header's field.
NAMES = st.binary(min_size=1, max_size=16).filter(lambda name: b"/" not in name and b"\0" not in name
                                                  and name not in (b".", b"..")) | \
    st.sampled_from([b"n" * 120, b"-rf", b" ", b"new\nline", "ü".encode(), b"a" * 255])
TIMES = st.integers(0, 2**33 * 10**9)
MODES = st.sampled_from([0o644, 0o600, 0o755, 0o444, 0o777, 0o700])
FILES = st.tuples(st.just("file"), st.binary(max_size=2000), MODES, TIMES)
HOLES = st.tuples(st.just("holes"), st.lists(st.integers(0, 60), max_size=4), st.just(0o640), TIMES)
LINKS = st.tuples(st.just("link"), NAMES, st.just(0), TIMES)
HARD = st.tuples(st.just("hard"), st.just(b""), st.just(0), TIMES)
TREES = st.recursive(
    st.dictionaries(NAMES, FILES | HOLES | LINKS | HARD, max_size=6),
    lambda inner: st.dictionaries(NAMES, FILES | LINKS | st.tuples(st.just("tree"), inner, MODES.map(
        lambda mode: mode | 0o700), TIMES), max_size=4), max_leaves=12)


@pytest.fixture(scope="module")
def guest(images: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[KvmGuest]:
    with kvm_kit.running(tmp_path_factory.mktemp("workspace"), images) as one:
        yield one


def make(at: bytes, tree: dict[bytes, tuple[str, object, int, int]], files: list[bytes]) -> None:
    os.mkdir(at)
    for name, (kind, what, mode, mtime) in tree.items():
        path = at + b"/" + name
        if kind == "tree":
            make(path, what, files)  # type: ignore[arg-type]
        elif kind == "link":
            os.symlink(what, path)  # type: ignore[arg-type]
        elif kind == "hard" and files:
            os.link(files[0], path)
            continue
        else:
            with open(path, "wb") as file:
                if kind == "holes":
                    for block in what:  # type: ignore[attr-defined]
                        file.seek(block * 65536)
                        file.write(b"data" * 1024)
                    file.truncate(64 * 65536)
                elif kind == "file":
                    file.write(what)  # type: ignore[arg-type]
            files.append(path)
        if kind != "link":
            os.chmod(path, mode or 0o644)
        os.utime(path, ns=(mtime, mtime), follow_symlinks=False)


def seen(top: bytes) -> dict[bytes, tuple[object, ...]]:
    """What is in a directory: kinds, modes, times, contents, links, and which names are one file."""
    found: dict[bytes, tuple[object, ...]] = {}
    numbers: dict[int, bytes] = {}
    for directory, names, files in os.walk(top):
        names.sort()
        for name in sorted(names + files):
            path = directory + b"/" + name
            status = os.lstat(path)
            content: object = None
            if stat.S_ISLNK(status.st_mode):
                content = os.readlink(path)
            elif stat.S_ISREG(status.st_mode):
                with open(path, "rb") as file:
                    content = (file.read(), numbers.setdefault(status.st_ino, path[len(top):]))
            found[path[len(top):]] = (stat.S_IFMT(status.st_mode), stat.S_IMODE(status.st_mode), status.st_mtime_ns,
                                      content)
    return found


@settings(max_examples=12, deadline=None, derandomize=True, database=None,
          suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much])
@given(tree=TREES)
def test_round_trip(guest: KvmGuest, tmp_path_factory: pytest.TempPathFactory,
                    tree: dict[bytes, tuple[str, object, int, int]]) -> None:
    room = tmp_path_factory.mktemp("trees")
    make(os.fsencode(room / "in"), tree, [])
    guest.run(["rm", "-rf", "tree"])
    guest.put(room / "in", PurePosixPath("tree"))
    guest.get(PurePosixPath("tree"), room / "out")
    assert seen(os.fsencode(room / "out")) == seen(os.fsencode(room / "in"))
    shutil.rmtree(room)


def test_holes_stay_holes_on_both_sides(guest: KvmGuest, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    with (tmp_path / "in" / "image").open("wb") as file:
        file.seek(300 * 2**20)
        file.write(b"end")
    counts: list[int] = []
    guest.put(tmp_path / "in", PurePosixPath("holes"), progress=counts.append)
    assert sum(counts) == 300 * 2**20 + 3, "the bar counts what the files hold"
    used = int(guest.run(["stat", "-c", "%b", "holes/image"]).stdout) * 512
    assert used < 2**20
    guest.get(PurePosixPath("holes"), tmp_path / "out", progress=counts.append)
    assert sum(counts) == 2 * (300 * 2**20 + 3)
    back = (tmp_path / "out" / "image").stat()
    assert (back.st_size, back.st_blocks * 512 < 2**20) == (300 * 2**20 + 3, True)


def test_many_small_files(guest: KvmGuest, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    for number in range(2000):
        (tmp_path / "in" / f"file-{number}").write_text(str(number) * 7)
    guest.put(tmp_path / "in", PurePosixPath("/var/tmp/small"), user="root")
    guest.get(PurePosixPath("/var/tmp/small"), tmp_path / "out")
    assert seen(os.fsencode(tmp_path / "out")) == seen(os.fsencode(tmp_path / "in"))
