"""Whatever ends, and however: no process, mount, directory or record of an LXC guest is left."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path, PurePosixPath

import pytest

from gitian.errors import BusyError, GuestError
from gitian.guest import session
from gitian.guest.lxc import LxcBackend, LxcGuest
from gitian.host import process
from tests.integration import lxc_kit

pytestmark = pytest.mark.lxc

ROOT = Path(__file__).resolve().parents[2]

#: A program that starts a guest, says so, and has a command running in it.
OWNER = """
import sys
from pathlib import Path, PurePosixPath
from tests.integration import lxc_kit
with lxc_kit.running(Path(sys.argv[1]), Path(sys.argv[2])) as guest:
    guest.run(["sh", "-c", "echo running; sleep 1000"], output=lambda data: print(data.decode(), flush=True))
"""


def start_owner(workspace: Path, images: Path) -> subprocess.Popen[bytes]:
    owner = subprocess.Popen([sys.executable, "-c", OWNER, workspace, images], stdin=subprocess.DEVNULL,
                             stdout=subprocess.PIPE, cwd=ROOT, start_new_session=True,
                             env={**os.environ, "PYTHONPATH": f"{ROOT / 'src'}:{ROOT}"})
    assert owner.stdout is not None
    assert select.select([owner.stdout], [], [], 120)[0] and owner.stdout.readline() == b"running\n"
    return owner


def gone(record: session.Session, *, except_for: tuple[str, ...] = ()) -> bool:
    """Whether all of a guest's processes have ended."""
    return process.wait_until(
        lambda: all(process.identity(who.pid) != who for name, who in record.processes.items()
                    if name not in except_for), 60)


def recorded(workspace: Path) -> session.Session:
    record = session.load(workspace)
    assert record is not None
    assert set(record.processes) == {"container", "monitor", "slirp4netns", "supervisor"}
    return record


def test_a_killed_owner_takes_its_guest_along_and_the_next_sweeps(images: Path, tmp_path: Path) -> None:
    owner = start_owner(tmp_path, images)
    record = recorded(tmp_path)
    with pytest.raises(BusyError, match=f"for process {owner.pid}"):
        LxcBackend().sweep(tmp_path)
    owner.kill()
    owner.communicate()
    # Nobody has to come by for this: the supervisor's lifeline is cut.
    assert gone(record)
    LxcBackend().sweep(tmp_path)
    assert lxc_kit.left_behind(tmp_path) == []


def test_all_of_it_killed_at_once(images: Path, tmp_path: Path) -> None:
    owner = start_owner(tmp_path, images)
    record = recorded(tmp_path)
    for number in (record.processes["supervisor"].pid, record.processes["monitor"].pid, owner.pid):
        os.kill(number, signal.SIGKILL)
    owner.communicate()
    assert gone(record)
    with lxc_kit.running(tmp_path, images) as guest:
        assert guest.run(["true"]).status == 0
    assert lxc_kit.left_behind(tmp_path) == []


def test_a_stopped_supervisor_does_not_save_the_guest_from_the_sweep(images: Path, tmp_path: Path) -> None:
    owner = start_owner(tmp_path, images)
    record = recorded(tmp_path)
    os.kill(record.processes["supervisor"].pid, signal.SIGSTOP)
    owner.kill()
    owner.communicate()
    assert session.alive(record)
    LxcBackend().sweep(tmp_path)
    assert gone(record)
    assert lxc_kit.left_behind(tmp_path) == []


@pytest.mark.parametrize("victim", ["container", "monitor", "supervisor"])
def test_a_guest_that_dies_under_us_is_an_error(images: Path, tmp_path: Path, victim: str) -> None:
    with lxc_kit.running(tmp_path, images) as guest:
        record = recorded(tmp_path)
        os.kill(record.processes[victim].pid, signal.SIGKILL)
        assert gone(record, except_for=("supervisor", "slirp4netns"))
        with pytest.raises(GuestError, match="ended while running 'true'"):
            guest.run(["true"])
        with pytest.raises(GuestError):
            guest.get(lxc_home(), tmp_path / "out")
        with pytest.raises(GuestError):
            guest.put(Path(__file__), lxc_home() / "in")
    assert lxc_kit.left_behind(tmp_path) == []


def lxc_home() -> PurePosixPath:
    return PurePosixPath("/home/debian")


def test_a_guest_that_ends_itself_is_an_error(images: Path, tmp_path: Path) -> None:
    with lxc_kit.running(tmp_path, images) as guest:
        with pytest.raises(GuestError, match="ended while"):
            guest.run(["sh", "-c", "kill -9 -1; sleep 100"], user="root")
    assert lxc_kit.left_behind(tmp_path) == []


def test_without_its_network_a_guest_still_comes_to_an_end(images: Path, tmp_path: Path) -> None:
    with lxc_kit.running(tmp_path, images) as guest:
        os.kill(recorded(tmp_path).processes["slirp4netns"].pid, signal.SIGKILL)
        assert guest.run(["true"]).status == 0
    assert lxc_kit.left_behind(tmp_path) == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_owner_that_is_asked_to_stop_leaves_nothing(images: Path, tmp_path: Path, number: int) -> None:
    (tmp_path / "stop.py").write_text(
        "import sys\nfrom gitian.cli.common import signals_as_exceptions\n"
        f"with signals_as_exceptions():\n    exec({OWNER!r})\n")
    owner = subprocess.Popen([sys.executable, tmp_path / "stop.py", tmp_path, images], stdin=subprocess.DEVNULL,
                             stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=ROOT, start_new_session=True,
                             env={**os.environ, "PYTHONPATH": f"{ROOT / 'src'}:{ROOT}"})
    assert owner.stdout is not None
    assert select.select([owner.stdout], [], [], 120)[0]
    assert owner.stdout.readline() == b"running\n"
    owner.send_signal(number)
    owner.communicate(timeout=120)
    assert lxc_kit.left_behind(tmp_path) == []


def test_two_at_once(images: Path, tmp_path: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    one.mkdir()
    two.mkdir()
    with lxc_kit.running(one, images) as first, lxc_kit.running(two, images) as second:
        first.run(["sh", "-c", "echo first > name"])
        second.run(["sh", "-c", "echo second > name"])
        assert first.run(["cat", "name"]).stdout == b"first\n"
        assert second.run(["cat", "name"]).stdout == b"second\n"
        # Neither sees the other's processes.
        first.run(["bash", "-c", "(exec -a marked sleep 1000 >/dev/null 2>&1) & sleep 0.1; ps ax | grep -q marked"])
        assert b"marked" not in second.run(["ps", "ax"]).stdout
    assert lxc_kit.left_behind(one) == lxc_kit.left_behind(two) == []


def test_a_kept_guest_is_found_again_and_ended_by_the_next(images: Path, tmp_path: Path) -> None:
    backend = LxcBackend()
    first = backend.start(lxc_kit.request(tmp_path, images, keep=True))
    first.run(["sh", "-c", "echo kept > file"])
    first.close(keep=True)
    backend.sweep(tmp_path)  # passes a kept one over
    found = backend.attach(tmp_path, environment={})
    assert (found.user, found.label) == ("debian", "bookworm-amd64")
    assert found.run(["cat", "file"]).stdout == b"kept\n"
    record = recorded(tmp_path)
    with lxc_kit.running(tmp_path, images) as fresh:
        assert gone(record)
        assert fresh.run(["test", "-e", "file"], check=False).status == 1
    assert lxc_kit.left_behind(tmp_path) == []
    with pytest.raises(GuestError, match="No target is running"):
        backend.attach(tmp_path, environment={})


def failing(what: str) -> Callable[..., None]:
    def fail(*_: object, **__: object) -> None:
        raise GuestError(what)

    return fail


def test_a_start_that_fails_leaves_nothing(images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(LxcGuest, "run", failing("at the last step"))
    with pytest.raises(GuestError, match="at the last step"):
        LxcBackend().start(lxc_kit.request(tmp_path, images))
    assert lxc_kit.left_behind(tmp_path) == []
    monkeypatch.undo()
    with pytest.raises(GuestError, match="what failed was starting the container") as caught:
        LxcBackend().start(lxc_kit.request(tmp_path, images, environment={"LXC_EXECUTE": "false"}))
    assert caught.value.hint is not None and "gitian doctor" in caught.value.hint
    assert lxc_kit.left_behind(tmp_path) == []
