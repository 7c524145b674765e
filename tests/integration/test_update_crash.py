"""kill -9 at every moment of an installation: the destination is the old release or the new one, never in between."""

from __future__ import annotations

import os
import signal
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from gitian.update import switch
from gitian.update.destination import Destination, Installed
from tests.integration import update_kit as kit

OLD = {"bin/demo": b"one", "share/a": b"a", "only/old": b"x"}
NEW = {"bin/demo": b"two", "share/a": b"a", "only/new/deep": b"y"}
MINE: dict[str, bytes | str] = {"wallet": b"precious", "only/mine": b"mine", "share/empty": "", "link": "wallet"}

#: What changes the file system, as Python announces it before it does it (Python's audit events).
CHANGES = ("open", "os.rename", "os.link", "os.remove", "os.rmdir", "os.mkdir", "os.chmod", "os.chown", "os.utime",
           "os.truncate", "os.symlink", "shutil.copystat", "os.scandir", "os.listdir", "fcntl.flock")


def release(files: dict[str, bytes], name: str) -> Installed:
    return Installed(name="demo", release=name, sums={path: kit.digest(data) for path, data in files.items()})


def install(place: Path, files: dict[str, bytes], name: str) -> None:
    with Destination.held(place) as destination:
        old = destination.installed()
        with destination.staging() as stage:
            kit.Parts(files).directory(stage)
            destination.install(release(files, name), old)


def settle(place: Path) -> None:
    install(place, OLD, "1.0")
    for path, content in MINE.items():
        (place / path).parent.mkdir(parents=True, exist_ok=True)
        if path == "link":
            (place / path).symlink_to(str(content))
        elif isinstance(content, bytes):
            (place / path).write_bytes(content)
        else:
            (place / path).mkdir()


def in_child(work: Callable[[], None], *, kill_at: int) -> int:
    """Run ``work`` in a fork that kills itself before the given change; how many changes it came to."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        count = 0

        def announced(event: str, _: object) -> None:
            nonlocal count
            if event in CHANGES:
                count += 1
                if count == kill_at:
                    os.kill(os.getpid(), signal.SIGKILL)

        status = 1
        try:
            sys.addaudithook(announced)
            work()
            os.write(writer, struct.pack("i", count))
            status = 0
        finally:
            os._exit(status)
    os.close(writer)
    said = os.read(reader, 4)
    os.close(reader)
    _, status = os.waitpid(child, 0)
    if said:
        assert status == 0
        return int(struct.unpack("i", said)[0])
    assert os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL
    return 0


@pytest.fixture(params=["exchange", "two renames"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """With renameat2, and as on a file system that does not have it."""
    if request.param == "two renames":
        monkeypatch.setattr(switch, "exchange", lambda one, other: False)
    yield request.param


def test_kill_at_every_moment(way: str, tmp_path: Path) -> None:
    old_tree, new_tree = {**OLD, **MINE}, {**NEW, **MINE}
    settle(tmp_path / "all")
    total = in_child(lambda: install(tmp_path / "all", NEW, "1.1"), kill_at=0)
    assert kit.tree(tmp_path / "all") == new_tree
    assert total > 40
    seen = set()
    for number in range(1, total + 1):
        place = tmp_path / str(number)
        settle(place)
        in_child(lambda place=place: install(place, NEW, "1.1"), kill_at=number)  # type: ignore[misc]
        if way == "exchange" or place.exists():
            assert kit.tree(place) in (old_tree, new_tree), number
        with Destination.held(place) as destination:
            after = kit.tree(place)
            assert after in (old_tree, new_tree), number
            installed = destination.installed()
            assert installed is not None
            assert installed.release == ("1.0" if after == old_tree else "1.1"), number
            seen.add(installed.release)
        left = {path.name for path in (tmp_path / f".{number}.gitian").iterdir()}
        assert left == {"lock"}, number
        install(place, NEW, "1.1")
        assert kit.tree(place) == new_tree, number
    assert seen == {"1.0", "1.1"}


def test_kill_at_every_moment_of_a_first_installation(tmp_path: Path) -> None:
    total = in_child(lambda: install(tmp_path / "all", OLD, "1.0"), kill_at=0)
    for number in range(1, total + 1):
        place = tmp_path / str(number)
        in_child(lambda place=place: install(place, OLD, "1.0"), kill_at=number)  # type: ignore[misc]
        assert not place.exists() or kit.tree(place) == OLD, number
        install(place, OLD, "1.0")
        assert kit.tree(place) == OLD, number


def test_an_error_in_the_middle_of_the_switch(way: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from gitian.errors import DestinationError

    settle(tmp_path / "app")
    calls = 0
    real = Path.rename

    def fails_once(self: Path, target: Path) -> Path:
        nonlocal calls
        calls += 1
        if calls == (2 if way == "two renames" else 1):
            raise OSError(28, "No space left on device")
        return real(self, target)

    monkeypatch.setattr(Path, "rename", fails_once)
    with pytest.raises(DestinationError, match="No space left"):
        install(tmp_path / "app", NEW, "1.1")
    # In order already, without another run.
    assert kit.tree(tmp_path / "app") in ({**OLD, **MINE}, {**NEW, **MINE})


def test_a_killed_download_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """kill -9 of the program itself, in the middle of a download, and again while another run waits for the rest."""
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    files = {"big": os.urandom(400_000)}
    server = kit.Server()
    server.start()
    try:
        with kit.keys() as keyring:
            (tmp_path / "update.yml").write_text(kit.configuration_text(keyring, {"alice": 1}, minimum=1))
            body = kit.package(keyring, files, ["alice"]).zip(tmp_path / "p.zip").read_bytes()
        stall = threading.Event()
        server.documents["/p.zip"] = kit.Served(body, cut=[150_000], etag='"one"', stall=stall)
        words = [sys.executable, "-m", "gitian.cli.main", "update", "-c", str(tmp_path / "update.yml"),
                 "-d", str(tmp_path / "app"), f"{server.url}/p.zip"]
        process = subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                                   stderr=subprocess.DEVNULL)
        try:
            until = time.monotonic() + 120
            downloads = tmp_path / ".app.gitian/downloads"
            while not any(path.stat().st_size > 65536 for path in downloads.glob("*.part")):
                assert time.monotonic() < until and process.poll() is None
                time.sleep(0.02)
        finally:
            process.kill()
            process.wait()
        stall.set()
        assert not (tmp_path / "app").exists()
        done = subprocess.run(words, capture_output=True, stdin=subprocess.DEVNULL, check=False, timeout=300)
        assert done.returncode == 0, done.stderr
        assert kit.tree(tmp_path / "app") == files
        first, second = server.requests
        assert first[1] is None and second[1] is not None and int(second[1][6:-1]) > 65536
    finally:
        server.stop()
