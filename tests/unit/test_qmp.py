"""qemu's control socket: a real qemu without a machine, and others that do not play by the rules."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from gitian.errors import GuestError
from gitian.guest.qmp import Qmp, listen
from gitian.host import process


@pytest.fixture
def deep(tmp_path: Path) -> Path:
    """A directory whose path is longer than a socket's address may be."""
    path = tmp_path / ("x" * 100) / ("y" * 100)
    path.mkdir(parents=True)
    return path


@pytest.fixture
def qemu(deep: Path) -> Iterator[tuple[Path, process.Popen[bytes]]]:
    with listen(deep / "qmp") as listener:
        running = process.popen(
            ["qemu-system-x86_64", "-machine", "none", "-nodefaults", "-display", "none", "-accel", "tcg", "-chardev",
             f"socket,id=c,fd={listener.fileno()},server=on,wait=off", "-mon", "chardev=c,mode=control"],
            pass_fds=(listener.fileno(),))
    yield deep / "qmp", running
    process.end(running)


def test_a_real_qemu(qemu: tuple[Path, process.Popen[bytes]]) -> None:
    path, running = qemu
    with Qmp.connect(path, timeout=60) as control:
        assert control.status() == "running"
        control.execute("stop")
        assert control.status() == "paused"
        with pytest.raises(GuestError, match="qemu refused 'no-such'"):
            control.execute("no-such")
    with Qmp.connect(path, timeout=60) as again:
        again.quit()
    assert process.wait_until(lambda: running.poll() is not None, 60)
    assert running.returncode == 0
    with pytest.raises(GuestError, match="does not answer"):
        Qmp.connect(path)


@pytest.mark.parametrize("words", [b"", b"not json\n", b"[1]\n", b'"' + b"x" * 2**21], ids=["nothing", "no JSON",
                                                                                       "no message", "no end"])
def test_what_is_no_qemu(deep: Path, words: bytes) -> None:
    with listen(deep / "qmp") as listener:
        def answer() -> None:
            other, _ = listener.accept()
            with other:
                with contextlib.suppress(OSError):
                    other.sendall(words)

        thread = threading.Thread(target=answer, daemon=True)
        thread.start()
        with pytest.raises(GuestError, match="does not answer"):
            Qmp.connect(deep / "qmp", timeout=30)
        thread.join()


def test_one_that_never_answers(deep: Path) -> None:
    with listen(deep / "qmp") as listener:
        assert listener.family == socket.AF_UNIX
        with pytest.raises(GuestError, match="does not answer"):
            Qmp.connect(deep / "qmp", timeout=0.3)
