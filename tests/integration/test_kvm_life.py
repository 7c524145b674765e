"""KVM guests that are kept, found again, killed, and abandoned."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from pathlib import Path, PurePosixPath

import pytest

from gitian.errors import BusyError, GuestError
from gitian.guest import session
from gitian.guest.kvm import KvmBackend
from gitian.host import process
from tests.integration import kvm_kit
from tests.integration.conftest import ROOT

pytestmark = pytest.mark.kvm
BACKEND = KvmBackend()

#: Starts a guest as another process would, and then does what the test says.
OTHER = """
import os, sys, time
from pathlib import Path
from gitian.guest import session
from tests.integration import kvm_kit
from gitian.guest.kvm import KvmBackend
workspace, images = map(Path, sys.argv[1:])
keep = {keep}
{before}
guest = KvmBackend().start(kvm_kit.request(workspace, images, keep=keep))
print("started", guest.pid, flush=True)
{after}
"""


def other(workspace: Path, images: Path, *, keep: bool, before: str = "", after: str = "") -> process.Popen[bytes]:
    script = OTHER.format(keep=keep, before=before, after=after)
    return process.popen([sys.executable, "-c", script, str(workspace), str(images)], stdout=-1, cwd=ROOT,
                         env={"PYTHONPATH": f"{ROOT}/src:{ROOT}"})


def first_word(started: process.Popen[bytes]) -> int:
    assert started.stdout is not None
    word, pid = started.stdout.readline().split()
    assert word == b"started"
    return int(pid)


def test_qemu_killed_in_the_middle_of_a_command(images: Path, tmp_path: Path) -> None:
    guest = BACKEND.start(kvm_kit.request(tmp_path, images))
    try:
        threading.Timer(2.0, os.kill, (guest.pid, signal.SIGKILL)).start()
        with pytest.raises(GuestError, match=r"'sleep' .*\(its qemu was ended by signal SIGKILL\)") as caught:
            guest.run(["sleep", "1000"])
        assert caught.value.hint is not None and "var/target.log" in caught.value.hint
        with pytest.raises(GuestError, match="SIGKILL"):
            guest.put(tmp_path / "var" / "target.log", PurePosixPath("x"))
    finally:
        guest.close()
    assert kvm_kit.left_behind(tmp_path) == []


def test_its_owner_killed(images: Path, tmp_path: Path) -> None:
    owner = other(tmp_path, images, keep=False, after="time.sleep(1000)")
    try:
        qemu = first_word(owner)
        with pytest.raises(BusyError, match=f"for process {owner.pid}"):
            BACKEND.sweep(tmp_path)
    finally:
        owner.kill()
        owner.wait()
    assert process.wait_until(lambda: process.identity(qemu) is None, 30), "it dies with its owner"
    BACKEND.sweep(tmp_path)
    assert kvm_kit.left_behind(tmp_path) == []


def test_its_owner_killed_before_qemu_was_on_record(images: Path, tmp_path: Path) -> None:
    # The second record of a start is the one with the process; the guest is to be kept, so it does not die by itself.
    before = """
stored = []
def store(workspace, record, original=session.store):
    stored.append(record)
    if len(stored) == 2:
        os.kill(os.getpid(), 9)
    original(workspace, record)
session.store = store
"""
    owner = other(tmp_path, images, keep=True, before=before)
    assert owner.wait(120) == -signal.SIGKILL
    assert [line for line in kvm_kit.left_behind(tmp_path) if line.startswith("process")], "there is something to do"
    BACKEND.sweep(tmp_path)
    assert kvm_kit.left_behind(tmp_path) == []


def test_kept_found_again_stopped_and_its_disk_used_once_more(images: Path, tmp_path: Path) -> None:
    owner = other(tmp_path, images, keep=True, after="guest.run(['sh', '-c', 'echo 1 >kept']); guest.close(keep=True)")
    qemu = first_word(owner)
    assert owner.wait(120) == 0
    assert process.identity(qemu) is not None
    BACKEND.sweep(tmp_path)
    found = BACKEND.attach(tmp_path, environment={})
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    assert (found.label, found.user, found.pid) == ("bookworm-amd64", "debian", qemu)
    assert found.run(["cat", "kept"]).stdout == b"1\n"
    with pytest.raises(BusyError):
        BACKEND.start(kvm_kit.request(elsewhere, images, environment={"VM_SSH_PORT": str(found.server.port)}))
    found.stop(overlay=False)
    assert process.identity(qemu) is None
    with pytest.raises(GuestError, match="No target is running"):
        BACKEND.attach(tmp_path, environment={})
    with kvm_kit.running(tmp_path, images, fresh=False) as again:
        assert again.run(["cat", "kept"]).stdout == b"1\n"
    assert kvm_kit.left_behind(tmp_path) == []


def test_frozen_and_started_from(images: Path, tmp_path: Path) -> None:
    guest = BACKEND.start(kvm_kit.request(tmp_path, images))
    guest.run(["sh", "-c", "echo installed >/usr/local/layer"], user="root")
    guest.freeze(tmp_path / "layer.partial")
    assert kvm_kit.left_behind(tmp_path) == []
    (tmp_path / "layer.partial").rename(tmp_path / "layer")
    before = (tmp_path / "layer" / "disk.qcow2").read_bytes()
    with kvm_kit.running(tmp_path, images, layer=tmp_path / "layer") as above:
        assert above.run(["cat", "/usr/local/layer"]).stdout == b"installed\n"
        above.run(["sh", "-c", "echo changed >/usr/local/layer && sync"], user="root")
        # A reboot in between would have mended what an end in disorder leaves in a journal.
        assert b"recovery" not in above.run(["dmesg"], user="root").stdout
    assert (tmp_path / "layer" / "disk.qcow2").read_bytes() == before
    assert kvm_kit.left_behind(tmp_path) == []


def test_a_kept_guest_that_was_killed_leaves_nothing(images: Path, tmp_path: Path) -> None:
    guest = BACKEND.start(kvm_kit.request(tmp_path, images, keep=True))
    guest.close(keep=True)
    os.kill(guest.pid, signal.SIGKILL)
    os.waitpid(guest.pid, 0)
    with pytest.raises(GuestError, match="No target is running"):
        BACKEND.attach(tmp_path, environment={})
    BACKEND.sweep(tmp_path)
    assert kvm_kit.left_behind(tmp_path) == []


def test_two_at_once_in_two_workspaces(images: Path, tmp_path: Path) -> None:
    rooms = [tmp_path / name for name in ("a, b", "c")]
    for room in rooms:
        room.mkdir()
    ports: dict[str, int] = {}

    def work(room: Path) -> None:
        with kvm_kit.running(room, images, processors=1, memory=512) as guest:
            guest.run(["sh", "-c", f"echo {room.name} >name"])
            ports[guest.run(["cat", "name"]).stdout.decode().strip()] = guest.server.port

    threads = [threading.Thread(target=work, args=(room,)) for room in rooms]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(ports) == ["a, b", "c"] and len(set(ports.values())) == 2
    for room in rooms:
        assert kvm_kit.left_behind(room) == []


def test_interrupted_while_it_starts(images: Path, tmp_path: Path) -> None:
    before = """
import signal
def stop(number, frame):
    raise KeyboardInterrupt
signal.signal(signal.SIGTERM, stop)
"""
    owner = other(tmp_path, images, keep=False, before=before)
    try:
        assert process.wait_until(lambda: bool((session.load(tmp_path) or _NOTHING).processes), 60)
        time.sleep(0.5)
        owner.terminate()
        assert owner.wait(60) != 0
        assert kvm_kit.left_behind(tmp_path) == [], "it cleaned up after itself"
    finally:
        process.end(owner)


_NOTHING = session.Session(backend="kvm", suite="", arch="", distro="", owner=None)
