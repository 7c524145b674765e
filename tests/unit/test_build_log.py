"""The logs in var/: begun anew by each build, followed by 'tail -f', never written through what somebody left there."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from gitian.build.log import Log, empty_logs


def test_who_follows_a_log_follows_the_next_one(tmp_path: Path) -> None:
    path = tmp_path / "var" / "build.log"
    with Log(path) as log:
        log(b"the first build said a lot\n")
    with path.open("rb") as follower:
        assert follower.read() == b"the first build said a lot\n"
        with Log(path) as log:
            log.note("second")
        assert os.fstat(follower.fileno()).st_size == len(b"--- second\n")
        follower.seek(0)
        assert follower.read() == b"--- second\n" == path.read_bytes()


@pytest.mark.parametrize("kind", ["link", "hard link", "pipe", "dangling"])
def test_what_somebody_left_there_is_not_written_through(kind: str, tmp_path: Path) -> None:
    precious, path = tmp_path / "precious", tmp_path / "build.log"
    precious.write_text("precious")
    if kind == "link":
        path.symlink_to(precious)
    elif kind == "hard link":
        path.hardlink_to(precious)
    elif kind == "pipe":
        os.mkfifo(path)
    else:
        path.symlink_to(tmp_path / "elsewhere")
    with Log(path) as log:
        log(b"text")
    assert precious.read_text() == "precious" and not (tmp_path / "elsewhere").exists()
    assert not path.is_symlink() and path.read_bytes() == b"text"


def test_nothing_in_var_tells_of_an_earlier_build(tmp_path: Path) -> None:
    for name in ("build.log", "install.log", "build-bookworm-i386.log", "install-bookworm-i386.log", "build-script",
                 "build-script-bookworm-i386", "target.log", "base-bookworm-i386.manifest"):
        (tmp_path / name).write_text("old")
    empty_logs(tmp_path)
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {
        "build.log": "", "install.log": "", "target.log": "old", "base-bookworm-i386.manifest": "old"}


def test_the_end_of_a_log_is_at_hand(tmp_path: Path) -> None:
    with Log(tmp_path / "build.log") as log:
        for number in range(50_000):
            log(b"line %d\n" % number)
        assert log.tail(2) == ["line 49998", "line 49999"]
    assert (tmp_path / "build.log").read_bytes().count(b"\n") == 50_000
