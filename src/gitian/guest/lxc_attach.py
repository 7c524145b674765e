"""Commands in a running container: lxc-attach, its three streams, its end.

A command in a container is a process of this machine. It gets pipes and nothing else of ours: no terminal, no files, no
environment, no ignored signals.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import selectors
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from gitian.errors import GuestError
from gitian.guest.lxc_config import OPEN_FILES, STACK
from gitian.guest.protocol import UMASK, USER_ID, Result, contract_environment
from gitian.host import process
from gitian.host.process import ProcessIdentity

#: After a command has ended, something it started may hold its output open: so long do we wait for more (seconds).
_AFTERMATH = 5.0
#: From the end of a container's other processes to that of its first one, on a busy machine (seconds).
_DYING = 2.0
#: A tar in the guest that moves no byte for so long hangs (seconds).
STALL = 900.0
_PIECE = 65536
#: What a pipe holds that files go through (bytes): the most that pipe(7) gives everybody.
_PIPE = 2**20
#: Of what a streaming command says on stderr, this much is kept: the end (bytes).
_COMPLAINT = 16384

#: In the guest: soft limits, umask and directory of the contract; then the command in a session and environment of its
#: own. $0 is the directory.
_FRAME = (f"ulimit -S -c 0; ulimit -S -s {STACK}; ulimit -S -n {OPEN_FILES}; umask {UMASK:03o}; "
          'cd -- "$0" || exit 126; exec env -i "$@"')


@dataclass(frozen=True, slots=True, kw_only=True)
class Container:
    """A container that runs: its name, lxc's directory for it, and its first process."""

    name: str
    directory: Path
    init: ProcessIdentity

    def alive(self) -> bool:
        """Whether its first process is there."""
        return process.identity(self.init.pid) == self.init


def command_line(container: Container, command: Sequence[str], *, user: str, cwd: str | None,
                 env: Mapping[str, str] | None) -> list[str]:
    """What is started on the host to run ``command`` in the container as ``user`` with the contract's environment.

    ``chroot`` into the root that is there already is how coreutils, which every guest has, changes to a user with all
    of its groups.
    """
    variables = contract_environment(user) | dict(env or {})
    for name, value in variables.items():
        if not name or "=" in name or "\0" in name + value:
            raise ValueError(f"no environment variable: {name!r}")
    account = "0:0" if user == "root" else f"{USER_ID}:{USER_ID}"
    return ["env", "--default-signal", "--", "lxc-attach", "-q", "-P", str(container.directory), "-n", container.name,
            "--clear-env", "--", "/usr/sbin/chroot", f"--userspec={account}", "/",
            "/bin/sh", "-c", _FRAME, cwd or variables["HOME"],
            *(f"{name}={value}" for name, value in variables.items()),
            # Also keeps env from taking a command with a '=' in its name for one more variable.
            "setsid", "--", *command]


class Attached:
    """A started command. Use :func:`attached`, which ends it whatever happens."""

    def __init__(self, container: Container, popen: process.Popen[bytes], what: str) -> None:
        self.container = container
        self.popen = popen
        self.what = what
        self._complaint = b""
        self._listener: threading.Thread | None = None

    def listen(self) -> None:
        """Get ready for a stream of files; keep the end of what comes on stderr, in a thread."""
        stream = self.popen.stderr
        assert stream is not None, "stderr is a pipe"
        for other in (self.popen.stdin, self.popen.stdout):
            if other is not None:
                with contextlib.suppress(OSError):  # a smaller one will do
                    fcntl.fcntl(other.fileno(), fcntl.F_SETPIPE_SZ, _PIPE)

        def body() -> None:
            with contextlib.suppress(OSError, ValueError):
                while data := os.read(stream.fileno(), _PIECE):
                    self._complaint = (self._complaint + data)[-_COMPLAINT:]

        self._listener = threading.Thread(target=body, daemon=True)
        self._listener.start()

    def read(self, size: int) -> bytes:
        """At most ``size`` bytes of stdout; b'' at its end. Raises GuestError when nothing comes for long."""
        stream = self.popen.stdout
        assert stream is not None, "stdout is a pipe"
        with selectors.DefaultSelector() as selector:
            selector.register(stream, selectors.EVENT_READ)
            if not selector.select(STALL):
                raise GuestError(f"The guest sent nothing for {STALL:g} s while {self.what}.", hint=_RESTART)
        return os.read(stream.fileno(), max(1, size))

    def write(self, data: bytes | memoryview) -> None:
        """Write all of it to stdin. Raises GuestError when nothing is taken for long, BrokenPipeError."""
        stream = self.popen.stdin
        assert stream is not None, "stdin is a pipe"
        view = memoryview(data)
        number = stream.fileno()
        os.set_blocking(number, False)
        with selectors.DefaultSelector() as selector:
            selector.register(number, selectors.EVENT_WRITE)
            while view:
                try:
                    view = view[os.write(number, view):]
                except BlockingIOError:
                    if not selector.select(STALL):
                        raise GuestError(f"The guest took nothing for {STALL:g} s while {self.what}.",
                                         hint=_RESTART) from None

    def finish(self) -> None:
        """Close stdin and wait for the end. Raises GuestError when it was not a good one."""
        if self.popen.stdin is not None:
            with contextlib.suppress(BrokenPipeError, OSError):
                self.popen.stdin.close()
        try:
            status = self.popen.wait(STALL)
        except process.TimeoutExpired:
            raise GuestError(f"The guest does not come to an end while {self.what}.", hint=_RESTART) from None
        if self._listener is not None:
            self._listener.join(_AFTERMATH)
        if status != 0:
            raise self.failure(status)

    def failure(self, status: int) -> GuestError:
        """What to say of a status other than 0."""
        if not self.container.alive():
            return gone(self.what)
        said = " / ".join(self._complaint.decode(errors="replace").strip().splitlines()[-6:])
        return GuestError(f"The guest failed with status {status} while {self.what}: {said or 'it said nothing'}")


_RESTART = "It may be stuck: end it with 'libexec/stop-target' and start again."


def gone(what: str) -> GuestError:
    """The error for a container that has ended by itself."""
    return GuestError(f"The guest ended while {what}.",
                      hint="Something in it, or the machine's lack of memory, ended its first process; see "
                           "'var/target.log'.")


def _ended(container: Container, status: int) -> bool:
    """Whether a command that failed did so because its container ended.

    What ends all of its processes ends the first one a moment later: a command that was killed waits for that moment.
    """
    if status in (-signal.SIGKILL, 128 + signal.SIGKILL):
        return process.wait_until(lambda: not container.alive(), _DYING)
    return not container.alive()


@contextlib.contextmanager
def attached(container: Container, line: Sequence[str], what: str, *, stdin: bool, merged: bool = False
             ) -> Iterator[Attached]:
    """Start a command line of :func:`command_line`; when the block ends, the command is over, killed if need be."""
    popen = process.popen(line, stdin=process.PIPE if stdin else process.DEVNULL, stdout=process.PIPE,
                          stderr=process.STDOUT if merged else process.PIPE)
    try:
        yield Attached(container, popen, what)
    finally:
        if popen.poll() is None:
            kill(popen)
        for stream in (popen.stdin, popen.stdout, popen.stderr):
            if stream is not None:
                with contextlib.suppress(OSError):
                    stream.close()


def kill(popen: process.Popen[bytes]) -> None:
    """Kill a command with everything that it started and that has not left it, then lxc-attach itself."""
    for _ in range(100):  # what is killed may have forked at that moment
        below = _descendants(popen.pid)
        for pid in below:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        if not below or popen.poll() is not None:
            break
        time.sleep(0.01)
    process.end(popen, patience=1.0)


def _descendants(pid: int) -> list[int]:
    """proc(5), /proc/PID/task/TID/children; the deepest last."""
    found: list[int] = []
    pending = [pid]
    while pending and len(found) < 100_000:
        parent = pending.pop()
        with contextlib.suppress(OSError):
            for task in Path(f"/proc/{parent}/task").iterdir():
                children = [int(word) for word in (task / "children").read_text().split()]
                found += children
                pending += children
    return found


def pipe(container: Container, line: Sequence[str], *, what: str, stdin: Callable[[int], bytes] | None,
         stdout: Callable[[bytes], None], stderr: Callable[[bytes], None]) -> int:
    """Run a command line as part of a pipeline; its exit status. Raises GuestError when the container is gone."""
    with attached(container, line, what, stdin=stdin is not None) as one:
        if stdin is not None:
            threading.Thread(target=_pour, args=(stdin, one.popen), daemon=True).start()
        for name, data in _pump(one, None, None):
            (stdout if name == "stdout" else stderr)(data)
        status = one.popen.returncode
    if status != 0 and _ended(container, status):
        raise gone(what)
    return status if status >= 0 else 128 - status


def _pour(read: Callable[[int], bytes], popen: process.Popen[bytes]) -> None:
    """Give a command its input as it comes, until one of them ends."""
    stream = popen.stdin
    assert stream is not None, "stdin is a pipe"
    with contextlib.suppress(OSError, ValueError):  # ValueError: closed, since the command is over
        while data := read(_PIECE):
            view = memoryview(data)
            while view:
                view = view[os.write(stream.fileno(), view):]
    with contextlib.suppress(OSError):
        stream.close()


def run(container: Container, line: Sequence[str], *, what: str, input: bytes | None,
        output: Callable[[bytes], None] | None, timeout: float | None, limit: int) -> Result:
    """Run a command line to its end. Raises GuestError: too late, too much said, or the container is gone."""
    with attached(container, line, what, stdin=input is not None, merged=output is not None) as one:
        pieces: dict[str, list[bytes]] = {"stdout": [], "stderr": []}
        size = 0
        for name, data in _pump(one, input, timeout):
            if output is not None:
                output(data)
                continue
            size += len(data)
            if size > limit:
                raise GuestError(f"The guest said more than {limit} bytes while {what}.")
            pieces[name].append(data)
        status = one.popen.returncode
    if status != 0 and _ended(container, status):
        raise gone(what)
    return Result(status=status if status >= 0 else 128 - status, stdout=b"".join(pieces["stdout"]),
                  stderr=b"".join(pieces["stderr"]))


def _pump(one: Attached, input: bytes | None, timeout: float | None) -> Iterator[tuple[str, bytes]]:
    """Feed stdin and yield what comes on stdout and stderr, until the command has ended and no more comes."""
    popen = one.popen
    deadline = None if timeout is None else time.monotonic() + timeout
    over: float | None = None  # when, after the command's end, we stop waiting for what holds its output open
    rest = memoryview(input or b"")
    # Wakes us when the command ends while something it left behind holds its output open.
    ended = os.pidfd_open(popen.pid)
    try:
        with selectors.DefaultSelector() as selector:
            for name, stream in (("stdout", popen.stdout), ("stderr", popen.stderr)):
                if stream is not None:
                    selector.register(stream, selectors.EVENT_READ, name)
            selector.register(ended, selectors.EVENT_READ, "ended")
            feed = popen.stdin if input is not None else None
            if feed is not None:
                os.set_blocking(feed.fileno(), False)
                selector.register(feed, selectors.EVENT_WRITE, "stdin")
            while _reading(selector) or over is None:
                until = min((moment for moment in (deadline, over) if moment is not None), default=None)
                events = selector.select(None if until is None else max(0.0, until - time.monotonic()))
                if not events and until is not None and time.monotonic() >= until:
                    if over is not None:
                        break
                    raise GuestError(f"The guest did not come to an end within {timeout:g} s while {one.what}.",
                                     hint=_RESTART)
                for key, _ in events:
                    if key.data == "stdin":
                        rest = _feed(selector, popen, rest)
                    elif key.data == "ended":
                        selector.unregister(ended)
                        popen.wait()
                        over = time.monotonic() + _AFTERMATH
                        if feed is not None and not feed.closed:
                            _feed(selector, popen, memoryview(b""))
                    else:
                        data = os.read(key.fd, _PIECE)
                        if data:
                            yield key.data, data
                        else:
                            selector.unregister(key.fileobj)
                if deadline is not None and over is None and time.monotonic() >= deadline:
                    raise GuestError(f"The guest did not come to an end within {timeout:g} s while {one.what}.",
                                     hint=_RESTART)
    finally:
        os.close(ended)


def _reading(selector: selectors.BaseSelector) -> bool:
    return any(key.data in ("stdout", "stderr") for key in selector.get_map().values())


def _feed(selector: selectors.BaseSelector, popen: process.Popen[bytes], rest: memoryview) -> memoryview:
    """Write what stdin takes; close it when all is written, or when nobody reads it any more."""
    assert popen.stdin is not None
    try:
        rest = rest[os.write(popen.stdin.fileno(), rest):] if rest else rest
    except BlockingIOError:
        return rest
    except BrokenPipeError:
        rest = memoryview(b"")
    if not rest:
        selector.unregister(popen.stdin)
        with contextlib.suppress(OSError):
            popen.stdin.close()
    return rest
