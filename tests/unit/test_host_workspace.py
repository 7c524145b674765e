"""Workspaces: where things are, locks that die with their owner, scratch directories that are swept."""

from __future__ import annotations

import os
import signal
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from gitian.errors import BusyError, HostError, UsageError
from gitian.host import workspace as module
from gitian.host.workspace import (
    Workspace,
    data_directory,
    give_to_caller,
    locked,
    make_directory,
    mounted_below,
    remove_tree,
    scratch_of_user,
    write_atomically,
)


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    return Workspace.locate(tmp_path, {})


def other_process(text: str, *arguments: Path) -> subprocess.Popen[bytes]:
    """Another Python that has got as far as printing a line."""
    running = subprocess.Popen([sys.executable, "-c", text, *map(str, arguments)], stdin=subprocess.PIPE,
                               stdout=subprocess.PIPE)
    assert running.stdout is not None
    assert running.stdout.readline() == b"ready\n"
    return running


def put_down(running: subprocess.Popen[bytes]) -> None:
    running.kill()
    running.wait()
    for stream in (running.stdin, running.stdout):
        assert stream is not None
        stream.close()


HOLDER = """
import sys
from pathlib import Path
from gitian.host.workspace import Workspace
sys.argv = ["gbuild", "a b.yml"]
with Workspace.locate(Path(PLACE), {}).lock():
    print("ready", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def holder(tmp_path: Path) -> Iterator[subprocess.Popen[bytes]]:
    running = other_process(HOLDER.replace("PLACE", repr(str(tmp_path))))
    yield running
    put_down(running)


def test_where_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("a", "b", "c", "images"):
        (tmp_path / name).mkdir()
    monkeypatch.chdir(tmp_path / "c")
    base = {"GITIAN_BASE": str(tmp_path / "b")}
    assert Workspace.locate(tmp_path / "a", base).root == tmp_path / "a"
    assert Workspace.locate(None, base).root == tmp_path / "b"
    assert Workspace.locate(None, {"GITIAN_BASE": ""}).root == tmp_path / "c"
    here = Workspace.locate(Path(".."), {})
    assert here.root == here.image_directory == tmp_path
    assert Workspace.locate(None, {"GITIAN_IMAGES": str(tmp_path / "images")}).image_directory == tmp_path / "images"
    assert list((tmp_path / "a").iterdir()) == [], "nothing is made before it is needed"
    with pytest.raises(UsageError, match="'.*nothing' is not a directory"):
        Workspace.locate(tmp_path / "nothing", {})


def test_its_places(workspace: Workspace) -> None:
    names = {place: getattr(workspace, place).relative_to(workspace.root).as_posix()
             for place in ("inputs", "build", "result", "cache", "var", "sigs")}
    assert all(place == name for place, name in names.items())


def test_a_busy_workspace_says_so_at_once(workspace: Workspace, holder: subprocess.Popen[bytes]) -> None:
    with pytest.raises(BusyError) as caught:
        with workspace.lock():
            pytest.fail("it was locked twice")
    assert str(caught.value) == (f"Another command is using the workspace '{workspace.root}': "
                                 f"process {holder.pid} (gbuild 'a b.yml').")


def test_a_killed_owner_blocks_nobody(workspace: Workspace, holder: subprocess.Popen[bytes]) -> None:
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    with workspace.lock():
        assert (workspace.var / "lock").read_text().startswith(f"{os.getpid()} ")
    with workspace.lock():
        pass


def test_the_same_process_cannot_lock_twice(workspace: Workspace) -> None:
    with workspace.lock():
        with pytest.raises(BusyError):
            with workspace.lock():
                pytest.fail("it was locked twice")


def test_a_program_started_meanwhile_does_not_keep_the_lock(workspace: Workspace) -> None:
    with workspace.lock():
        child = subprocess.Popen(["sleep", "600"], close_fds=False)
    try:
        with workspace.lock():
            pass
    finally:
        child.kill()
        child.wait()


def test_waiting_for_a_lock(workspace: Workspace, holder: subprocess.Popen[bytes],
                            capsys: pytest.CaptureFixture[str]) -> None:
    import threading

    assert holder.stdin is not None
    timer = threading.Timer(0.3, holder.stdin.close)
    timer.start()
    with locked(workspace.var / "lock", wait=True, what="the workspace"):
        assert holder.wait(60) == 0
    timer.join()
    assert f"Waiting for the workspace: process {holder.pid}" in capsys.readouterr().err


def test_shared_locks_go_together(tmp_path: Path) -> None:
    with locked(tmp_path / "l", wait=False, shared=True, what="x"):
        with locked(tmp_path / "l", wait=False, shared=True, what="x"):
            with pytest.raises(BusyError, match="using x"):
                with locked(tmp_path / "l", wait=False, what="x"):
                    pytest.fail("exclusive beside shared")
    with locked(tmp_path / "l", wait=False, what="x"):
        pass


def test_a_lock_file_full_of_nonsense_or_a_link(tmp_path: Path) -> None:
    (tmp_path / "l").write_bytes(b"999999999999 \x1b[31mred\n" + b"x" * 10_000)
    with locked(tmp_path / "l", wait=False, what="x"):
        with pytest.raises(BusyError):
            with locked(tmp_path / "l", wait=False, what="x"):
                pytest.fail("locked twice")
    (tmp_path / "precious").write_text("precious")
    (tmp_path / "link").symlink_to(tmp_path / "precious")
    with pytest.raises(HostError, match="cannot be opened"):
        with locked(tmp_path / "link", wait=False, what="x"):
            pytest.fail("a link was followed")
    assert (tmp_path / "precious").read_text() == "precious"


def test_scratch_is_private_and_goes(workspace: Workspace) -> None:
    with workspace.scratch() as first, workspace.scratch() as second:
        assert first != second
        assert list(first.iterdir()) == []
        assert first.stat().st_mode & 0o777 == 0o700
        (first / "file").touch()
        (first / "sealed").mkdir(mode=0o500)
    with pytest.raises(KeyError):
        with workspace.scratch() as third:
            raise KeyError
    assert not first.exists()
    assert not third.exists()
    assert [entry.name for entry in (workspace.var / "tmp").iterdir()] == [".guard"]


SCRATCHER = """
import sys
from pathlib import Path
from gitian.host.workspace import Workspace
with Workspace.locate(Path(PLACE), {}).scratch() as place:
    (place / "left").mkdir()
    print("ready", flush=True)
    sys.stdin.read()
"""


def test_scratch_of_the_dead_is_swept_that_of_the_living_is_not(workspace: Workspace) -> None:
    text = SCRATCHER.replace("PLACE", repr(str(workspace.root)))
    dead, alive = other_process(text), other_process(text)
    try:
        dead.kill()
        dead.wait()
        top = workspace.var / "tmp"
        (top / "half-made").mkdir()  # killed between making the directory and its lock
        assert len(list(top.glob("*/d/left"))) == 2
        with workspace.scratch() as ours:
            assert len(list(top.glob("*/d/left"))) == 1
            assert not (top / "half-made").exists()
            assert ours.exists()
        assert len(list(top.glob("*/d/left"))) == 1
    finally:
        for running in (dead, alive):
            put_down(running)
    with workspace.scratch():
        assert len(list(top.glob("*/d/left"))) == 0


def test_scratch_without_a_workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    top = tmp_path / f"gitian-{os.geteuid()}"
    with scratch_of_user() as room:
        assert room.is_relative_to(top) and os.listdir(room) == []
        # Others may get through, and see nothing.
        assert [stat.S_IMODE(place.stat().st_mode) for place in (top, room.parent, room)] == [0o711, 0o711, 0o700]
    (top / "dead").mkdir()
    with scratch_of_user():
        assert not (top / "dead").exists()
    assert os.listdir(top) == [".guard"]


@pytest.mark.parametrize("how", ["a link", "a file", "anybody's"])
def test_a_place_that_somebody_else_has_taken_is_not_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
                                                          how: str) -> None:
    (tmp_path / "other" / "precious").mkdir(parents=True)
    (tmp_path / "tmp").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "tmp"))
    top = tmp_path / "tmp" / f"gitian-{os.geteuid()}"
    if how == "a link":
        top.symlink_to(tmp_path / "other")
    elif how == "a file":
        top.write_bytes(b"")
    else:
        (top / "precious").mkdir(parents=True)
        top.chmod(0o777)
    with scratch_of_user() as room:
        assert room.parent == top.parent and stat.S_IMODE(room.stat().st_mode) == 0o700
        (room / "x").write_bytes(b"")
    assert os.listdir(top.parent) == [top.name]
    assert (tmp_path / "other" / "precious").exists() and (how != "anybody's" or (top / "precious").exists())


def test_files_are_written_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "file"
    write_atomically(path, b"one")
    write_atomically(path, b"two", 0o600)
    assert path.read_bytes() == b"two"
    assert path.stat().st_mode & 0o777 == 0o600

    def broken(number: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", broken)
    with pytest.raises(HostError, match="cannot be written: No space left"):
        write_atomically(path, b"three")
    assert path.read_bytes() == b"two"
    assert [entry.name for entry in tmp_path.iterdir()] == ["file"]


def test_a_link_is_replaced_not_written_through(tmp_path: Path) -> None:
    (tmp_path / "precious").write_text("precious")
    (tmp_path / "link").symlink_to("precious")
    write_atomically(tmp_path / "link", b"new")
    assert (tmp_path / "precious").read_text() == "precious"
    assert not (tmp_path / "link").is_symlink()


def test_a_directory_that_cannot_be_written_to(tmp_path: Path) -> None:
    with pytest.raises(HostError, match="cannot be written"):
        write_atomically(tmp_path / "nothing" / "file", b"x")
    (tmp_path / "file").touch()
    with pytest.raises(HostError, match="cannot be made"):
        make_directory(tmp_path / "file" / "below")


def test_trees_are_removed_and_links_are_not_followed(tmp_path: Path) -> None:
    (tmp_path / "precious").mkdir()
    (tmp_path / "precious" / "file").touch()
    tree = tmp_path / "tree"
    (tree / "sealed" / "deep").mkdir(parents=True)
    (tree / "sealed" / "deep" / "file").touch()
    (tree / "link").symlink_to(tmp_path / "precious")
    (tree / "sealed" / "deep").chmod(0)
    (tree / "sealed").chmod(0)
    assert remove_tree(tree)
    assert not tree.exists()
    (tmp_path / "top link").symlink_to(tmp_path / "precious")
    assert remove_tree(tmp_path / "top link")
    assert (tmp_path / "precious" / "file").exists()
    assert remove_tree(tmp_path / "nothing")


def test_nothing_is_removed_below_a_mount(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "tree" / "mounted").mkdir(parents=True)
    (tmp_path / "tree" / "mounted" / "precious").touch()
    monkeypatch.setattr(module, "mounted_below", lambda path: [path / "mounted"])
    assert not remove_tree(tmp_path / "tree")
    assert (tmp_path / "tree" / "mounted" / "precious").exists()


def test_what_is_mounted() -> None:
    assert Path("/proc") in mounted_below(Path("/"))
    assert Path("/proc") in mounted_below(Path("/proc"))
    assert mounted_below(Path("/nonexistent")) == []


def test_files_that_come_with_gitian(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert (data_directory("libexec")).is_dir()
    with pytest.raises(HostError, match="'nothing'"):
        data_directory("nothing")
    # Installed: <site-packages>/gitian/host/workspace.py, with gitian/data beside.
    (tmp_path / "site" / "gitian" / "host").mkdir(parents=True)
    (tmp_path / "site" / "gitian" / "data" / "etc").mkdir(parents=True)
    monkeypatch.setattr(module, "__file__", str(tmp_path / "site" / "gitian" / "host" / "workspace.py"))
    assert data_directory("etc") == tmp_path / "site" / "gitian" / "data" / "etc"
    (tmp_path / "libexec").mkdir()
    with pytest.raises(HostError):
        data_directory("libexec")


def test_the_lock_file_is_not_for_others_to_write(workspace: Workspace) -> None:
    with workspace.lock():
        assert not (workspace.var / "lock").stat().st_mode & (stat.S_IWGRP | stat.S_IWOTH)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")
def test_what_root_made_is_the_callers_and_nothing_else(tmp_path: Path) -> None:
    outside, top = tmp_path / "outside", tmp_path / "top"
    outside.mkdir()
    (top / "deep").mkdir(parents=True)
    for path in (outside / "file", top / "file", top / "deep" / "file", top / "another's"):
        path.touch()
    os.chown(top / "another's", 4321, 4321)
    (top / "link").symlink_to(outside)
    sudo = {"SUDO_UID": "1234", "SUDO_GID": "1235"}
    for environ in ({}, {"SUDO_UID": "1234"}, {**sudo, "SUDO_UID": "-1"}, {**sudo, "SUDO_GID": "\u0663"}):
        give_to_caller(top, environ)
    assert top.stat().st_uid == 0
    give_to_caller(top, sudo, below=False)
    assert (top.stat().st_uid, top.stat().st_gid, (top / "file").stat().st_uid) == (1234, 1235, 0)
    give_to_caller(top, sudo)
    give_to_caller(tmp_path / "absent", sudo)
    owners = {str(path.relative_to(tmp_path)): path.lstat().st_uid for path in tmp_path.rglob("*")}
    assert owners == {"outside": 0, "outside/file": 0, "top": 1234, "top/file": 1234, "top/deep": 1234,
                      "top/deep/file": 1234, "top/another's": 4321, "top/link": 1234}
