"""The record of a workspace's guest: found again, and not believed when somebody else wrote it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from gitian.errors import BusyError, FormatError, GuestError, HostError, ImageError, UsageError
from gitian.guest import session
from gitian.guest.lxc import LxcBackend, prepare_overlay
from gitian.guest.protocol import StartRequest
from gitian.guest.session import Session
from gitian.host import process
from gitian.host.process import ProcessIdentity
from gitian.host.subids import SubIds


@pytest.fixture
def sleeper() -> Iterator[ProcessIdentity]:
    """A process that could be part of a guest."""
    running = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(1000)"], stdin=subprocess.DEVNULL)
    who = process.identity(running.pid)
    assert who is not None
    yield who
    running.kill()
    running.wait()


def record(**more: Any) -> Session:
    values: dict[str, Any] = {"backend": "lxc", "suite": "bookworm", "arch": "amd64", "distro": "debian", "owner": None}
    return Session(**values | more)


def test_a_record_comes_back_as_it_was(tmp_path: Path, sleeper: ProcessIdentity) -> None:
    assert session.load(tmp_path) is None
    one = record(owner=session.mine(), processes={"container": sleeper}, litter=(Path("/run/gitian/abc"),),
                 overlay=(tmp_path / "target-bookworm-amd64", tmp_path / "var" / "target-kvm"),
                 groups=(Path("/sys/fs/cgroup/pids/lxc.payload.x"),), facts={"port": "2223"})
    session.store(tmp_path, one)
    assert session.load(tmp_path) == one
    assert session.running(tmp_path) == one
    assert one.label == "bookworm-amd64" and not one.kept
    assert session.keep(tmp_path, one).kept and session.running(tmp_path).kept
    assert session.record_path(tmp_path).stat().st_mode & 0o777 == 0o600


def test_a_kept_guest_is_swept_only_when_asked_or_dead(tmp_path: Path, sleeper: ProcessIdentity) -> None:
    overlay = tmp_path / "target-bookworm-amd64"
    overlay.mkdir()
    session.store(tmp_path, record(processes={"container": sleeper}, overlay=(overlay,)))
    assert not session.sweep(tmp_path)
    assert process.identity(sleeper.pid) == sleeper
    assert session.sweep(tmp_path, kept=True, overlay=False)
    assert process.identity(sleeper.pid) != sleeper
    assert overlay.exists() and session.load(tmp_path) is None
    session.store(tmp_path, record(processes={"container": sleeper}, overlay=(overlay,)))
    assert session.sweep(tmp_path)
    assert not overlay.exists()
    assert not session.sweep(tmp_path)


def test_a_later_process_of_the_same_number_is_left_alone(tmp_path: Path, sleeper: ProcessIdentity) -> None:
    session.store(tmp_path, record(processes={"container": replace(sleeper, started=sleeper.started - 1)}))
    with pytest.raises(GuestError, match="No target is running"):
        session.running(tmp_path)
    session.sweep(tmp_path, kept=True)
    assert process.identity(sleeper.pid) == sleeper


def test_a_guest_of_a_living_owner_is_left_alone(tmp_path: Path, sleeper: ProcessIdentity) -> None:
    session.store(tmp_path, record(owner=sleeper))
    with pytest.raises(BusyError, match=str(sleeper.pid)):
        session.sweep(tmp_path, kept=True)
    session.store(tmp_path, record(owner=session.mine()))
    assert session.sweep(tmp_path)


@pytest.mark.parametrize("place", ["/", "/etc", "/run/gitian", "/run/gitian/../../etc", "target", "WORKSPACE",
                                   "WORKSPACE/inputs", "WORKSPACE/var", "WORKSPACE/target-x/../inputs",
                                   "/tmp/target-x"])
@pytest.mark.parametrize("key", ["litter", "overlay"])
def test_paths_that_are_no_part_of_a_guest_are_refused(tmp_path: Path, place: str, key: str) -> None:
    path = Path(place.replace("WORKSPACE", str(tmp_path)))
    session.store(tmp_path, record(**{key: (path,)}))
    with pytest.raises(FormatError, match="no part of a guest"):
        session.sweep(tmp_path, kept=True)


@pytest.mark.parametrize("change", [
    {"processes": {"container": [1, 5]}}, {"processes": {"container": ["2", 5]}}, {"processes": [1]},
    {"owner": [True, 1]}, {"owner": 7}, {"facts": None}, {"litter": [7]}])
def test_records_that_make_no_sense_are_refused(tmp_path: Path, change: dict[str, Any]) -> None:
    session.store(tmp_path, record())
    path = session.record_path(tmp_path)
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(FormatError):
        session.load(tmp_path)


@pytest.mark.parametrize("data", [b"", b"{", b"[]", b"null", b"\xff", b"{}", b"[" * 10_000])
def test_records_that_are_none_are_refused(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "var").mkdir()
    session.record_path(tmp_path).write_bytes(data)
    with pytest.raises(FormatError):
        session.load(tmp_path)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file away")
def test_another_users_record_is_not_believed(tmp_path: Path, sleeper: ProcessIdentity) -> None:
    session.store(tmp_path, record(processes={"container": sleeper}))
    os.chown(session.record_path(tmp_path), 65534, 65534)
    with pytest.raises(HostError, match="not made by this user"):
        session.sweep(tmp_path, kept=True)
    session.record_path(tmp_path).unlink()
    (tmp_path / "elsewhere").write_text("{}")
    session.record_path(tmp_path).symlink_to(tmp_path / "elsewhere")
    with pytest.raises(HostError, match="cannot be read"):
        session.load(tmp_path)


def test_a_tree_as_deep_as_a_guest_likes_is_removed(tmp_path: Path) -> None:
    top = tmp_path / "target-x"
    top.mkdir()
    here = os.open(top, os.O_RDONLY)
    for _ in range(3000):
        os.mkdir("d", dir_fd=here)
        below = os.open("d", os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = below
    os.close(here)
    session.remove([top, tmp_path / "absent"])
    assert not top.exists()


# What is checked before anything is started


def start(image: Path, workspace: Path) -> None:
    LxcBackend().start(StartRequest(suite="bookworm", arch="amd64", distro="debian", image=image, workspace=workspace))


def test_another_user_than_root_is_told_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    with pytest.raises(HostError, match="run by root") as caught:
        start(tmp_path, tmp_path)
    assert caught.value.hint is not None and "sudo" in caught.value.hint and "KVM" in caught.value.hint
    assert list(tmp_path.iterdir()) == []


def test_images_that_cannot_be_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(SubIds, "of_current_user", classmethod(lambda cls: SubIds(uid=100_000, gid=100_000)))
    with pytest.raises(ImageError, match="No such file"):
        start(tmp_path / "absent", tmp_path)
    (tmp_path / "file").write_text("")
    with pytest.raises(ImageError, match="not a directory"):
        start(tmp_path / "file", tmp_path)
    (tmp_path / "unshifted").mkdir()
    with pytest.raises(ImageError, match="not to 100000"):
        start(tmp_path / "unshifted", tmp_path)


def test_an_overlay_is_reused_only_over_the_image_it_was_made_for(tmp_path: Path) -> None:
    ids = SubIds(uid=os.getuid(), gid=os.getgid())
    image, other, overlay = tmp_path / "image", tmp_path / "other", tmp_path / "target-x-amd64"
    image.mkdir()
    other.mkdir()
    prepare_overlay(overlay, image, ids, fresh=True)
    (overlay / "upper" / "file").write_text("x")
    (overlay / "work" / "stale").mkdir()
    prepare_overlay(overlay, image, ids, fresh=False)
    assert (overlay / "upper" / "file").exists() and list((overlay / "work").iterdir()) == []
    prepare_overlay(overlay, other, ids, fresh=False)
    assert list((overlay / "upper").iterdir()) == []
    (overlay / "upper" / "file").write_text("x")
    prepare_overlay(overlay, other, ids, fresh=True)
    assert list((overlay / "upper").iterdir()) == []
    assert overlay.stat().st_mode & 0o777 == 0o700


def test_an_overlay_that_is_a_link_is_not_followed(tmp_path: Path) -> None:
    ids = SubIds(uid=os.getuid(), gid=os.getgid())
    (tmp_path / "image").mkdir()
    (tmp_path / "precious").mkdir()
    (tmp_path / "precious" / "file").write_text("x")
    (tmp_path / "target-x-amd64").symlink_to("precious")
    prepare_overlay(tmp_path / "target-x-amd64", tmp_path / "image", ids, fresh=False)
    assert (tmp_path / "precious" / "file").exists() and not (tmp_path / "target-x-amd64").is_symlink()


@pytest.mark.parametrize(("environment", "name"), [
    ({}, "kvm"), ({"USE_LXC": "1"}, "lxc"), ({"USE_LXC": "0"}, "kvm"), ({"USE_LXC": "yes"}, "kvm"),
    ({"USE_LXC": "1", "USE_DOCKER": "1"}, "lxc"), ({"USE_DOCKER": "0"}, "kvm")])
def test_which_backend(environment: dict[str, str], name: str) -> None:
    from gitian.cli.backends import choose_backend

    assert choose_backend(None, environment).name == name
    assert choose_backend("lxc", environment).name == "lxc"
    with pytest.raises(UsageError, match="USE_DOCKER=1"):
        choose_backend(None, {"USE_DOCKER": "1"})
