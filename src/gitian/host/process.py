"""The one place that starts programs.

Commands are lists, never shell strings. A program gets a closed standard input and a small explicit environment unless
its caller gives it others, and it never outlives its caller by accident.
"""

from __future__ import annotations

import contextlib
import os
import select
import shlex
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from gitian.errors import MissingToolError, ProgramError

Argument = str | Path

#: What callers of :func:`popen` and :func:`start` need of the standard library's module, which they must not import.
Popen = subprocess.Popen
TimeoutExpired = subprocess.TimeoutExpired
PIPE, STDOUT, DEVNULL = subprocess.PIPE, subprocess.STDOUT, subprocess.DEVNULL

#: What a program started by us sees besides what its caller adds. Never the user's locale: output is parsed.
_KEPT = ("HOME", "PATH", "USER", "LOGNAME", "TMPDIR", "SSH_AUTH_SOCK", "GNUPGHOME", "http_proxy", "https_proxy",
         "no_proxy", "all_proxy", "HTTPS_PROXY", "NO_PROXY", "ALL_PROXY", "SSL_CERT_FILE", "SSL_CERT_DIR", "GPG_TTY",
         "TERM", "XDG_RUNTIME_DIR", "DBUS_SESSION_BUS_ADDRESS")
_SYSTEM_PATHS = ("/usr/local/sbin", "/usr/sbin", "/sbin")

#: More output than this of a program whose output is collected is an error, not a reason to use up all memory (bytes).
OUTPUT_LIMIT = 64 * 2**20


@dataclass(frozen=True, slots=True, kw_only=True)
class Completed:
    """A program that has ended. ``status`` is its exit status, or minus the number of the signal that ended it."""

    argv: tuple[str, ...]
    status: int
    stdout: bytes = b""
    stderr: bytes = b""

    def check(self) -> Completed:
        """Return self, or raise ProgramError with the last lines of what the program said."""
        if self.status == 0:
            return self
        said = (self.stderr or self.stdout).decode(errors="replace").strip().splitlines()[-8:]
        raise ProgramError(f"'{self.argv[0]}' {ended_how(self.status)}: {' / '.join(said) or 'it said nothing'}",
                           hint="The command was: " + shlex.join(self.argv)[:400])


def ended_how(status: int) -> str:
    """'ended with status 3', or 'was ended by signal SIGKILL'."""
    if status >= 0:
        return f"ended with status {status}"
    try:
        name = signal.Signals(-status).name
    except ValueError:
        name = str(-status)
    return f"was ended by signal {name}"


def environment(extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """The small environment that programs are started with: what they need of ours, C.UTF-8, and ``extra``."""
    kept = {name: os.environ[name] for name in _KEPT if name in os.environ}
    path = kept.get("PATH", "/usr/local/bin:/usr/bin:/bin")
    kept["PATH"] = ":".join([path, *(entry for entry in _SYSTEM_PATHS if entry not in path.split(":"))])
    kept.update(LANG="C.UTF-8", LC_ALL="C.UTF-8")
    if extra:
        kept.update(extra)
    return kept


def run(argv: Sequence[Argument], *, input: bytes | None = None, cwd: Path | None = None,
        env: Mapping[str, str] | None = None, timeout: float | None = None, check: bool = True,
        limit: int = OUTPUT_LIMIT, new_session: bool = True, umask: int = -1, tied: bool = False) -> Completed:
    """Run a program to its end and collect what it says.

    ``env`` is added to :func:`environment`. ``timeout`` in seconds; ``umask`` -1 leaves it as ours is. With ``check``,
    an exit status other than zero is a ProgramError. The program is its own session, so that Ctrl-C reaches us alone
    and we end it in good order; ``tied`` has the kernel end it when we are killed (for what writes where a later run
    will write).

    Raises MissingToolError when there is no such program, ProgramError when it fails, takes longer than ``timeout`` or
    says more than ``limit`` bytes.
    """
    with start(argv, stdin=PIPE if input is not None else DEVNULL, stdout=PIPE, stderr=PIPE, cwd=cwd, env=env,
               new_session=new_session, umask=umask, tied=tied) as process:
        out, err, late, flooded = _communicate(process, input, timeout, limit)
    name = str(argv[0])
    if late:
        raise ProgramError(f"'{name}' did not end within {timeout:g} s.", hint="The command was: " + _shown(argv))
    if flooded:
        raise ProgramError(f"'{name}' said more than {limit} bytes.", hint="The command was: " + _shown(argv))
    done = Completed(argv=tuple(map(str, argv)), status=process.returncode, stdout=out, stderr=err)
    return done.check() if check else done


def _shown(argv: Sequence[Argument]) -> str:
    return shlex.join(map(str, argv))[:400]


def _communicate(process: subprocess.Popen[bytes], input: bytes | None, timeout: float | None,
                 limit: int) -> tuple[bytes, bytes, bool, bool]:
    """Like Popen.communicate, with a bound on what is kept in memory."""
    pieces: dict[int, list[bytes]] = {1: [], 2: []}
    flooded = threading.Event()

    def drain(number: int, stream: IO[bytes]) -> None:
        size = 0
        # ValueError: the stream was closed meanwhile, because an heir of the program held it open and was given up.
        with contextlib.suppress(ValueError, OSError):
            while piece := os.read(stream.fileno(), 65536):
                size += len(piece)
                if size > limit:
                    flooded.set()
                    kill_group(process)
                    return
                pieces[number].append(piece)

    def feed(stream: IO[bytes], data: bytes) -> None:
        # Past the stream's own buffer, whose lock would be held for as long as nobody reads.
        with contextlib.suppress(OSError, ValueError):
            view = memoryview(data)
            while view:
                view = view[os.write(stream.fileno(), view[:65536]):]
        with contextlib.suppress(OSError):
            stream.close()

    drains: dict[threading.Thread, IO[bytes]] = {}
    for number, stream in ((1, process.stdout), (2, process.stderr)):
        if stream is not None:
            drains[threading.Thread(target=drain, args=(number, stream), daemon=True)] = stream
    threads = list(drains)
    if input is not None and process.stdin is not None:
        threads.append(threading.Thread(target=feed, args=(process.stdin, input), daemon=True))
    for thread in threads:
        thread.start()
    late = False
    try:
        process.wait(timeout)
    except subprocess.TimeoutExpired:
        late = True
        kill_group(process)
        process.wait()
    idle = 0
    # A grandchild may hold a pipe open. What the program itself said is in the pipes, or taken out of them already.
    until = time.monotonic() + 10
    while idle < 4 and time.monotonic() < until and any(thread.is_alive() for thread in drains):
        for thread in drains:
            thread.join(0.05)
        idle = 0 if any(thread.is_alive() and _readable(stream) for thread, stream in drains.items()) else idle + 1
    return b"".join(pieces[1]), b"".join(pieces[2]), late, flooded.is_set()


def _readable(stream: IO[bytes]) -> bool:
    poll = select.poll()
    poll.register(stream.fileno(), select.POLLIN)
    return any(event & select.POLLIN for _, event in poll.poll(0))


@contextlib.contextmanager
def start(argv: Sequence[Argument], *, stdin: int | IO[bytes] | None = subprocess.DEVNULL,
          stdout: int | IO[bytes] | None = None, stderr: int | IO[bytes] | None = None, cwd: Path | None = None,
          env: Mapping[str, str] | None = None, pass_fds: Sequence[int] = (),
          new_session: bool = True, umask: int = -1, tied: bool = False) -> Iterator[subprocess.Popen[bytes]]:
    """Start a program and hand it to the ``with`` block; whatever happens there, it is ended and reaped afterwards.

    When the block ends normally the program is waited for; when it ends by an exception the program's whole process
    group is ended: SIGTERM, and SIGKILL three seconds later. Raises MissingToolError.
    """
    process = popen(argv, stdin=stdin, stdout=stdout, stderr=stderr, cwd=cwd, env=env, pass_fds=pass_fds,
                    new_session=new_session, umask=umask, tied=tied)
    try:
        yield process
        process.wait()
    except BaseException:
        end(process)
        raise
    finally:
        for stream in (process.stdin, process.stdout, process.stderr):
            if stream is not None:
                with contextlib.suppress(BrokenPipeError, OSError):
                    stream.close()


def popen(argv: Sequence[Argument], *, stdin: int | IO[bytes] | None = subprocess.DEVNULL,
          stdout: int | IO[bytes] | None = None, stderr: int | IO[bytes] | None = None, cwd: Path | None = None,
          env: Mapping[str, str] | None = None, pass_fds: Sequence[int] = (),
          new_session: bool = True, umask: int = -1, tied: bool = False) -> subprocess.Popen[bytes]:
    """Start a program that the caller itself ends with :func:`end`. Raises MissingToolError."""
    from gitian.host import tools

    merged = environment(env)
    words = [str(word) for word in argv]
    whole = [tools.find(words[0], merged["PATH"]), *words[1:]]
    if tied:  # prctl(2), PR_SET_PDEATHSIG: the child must ask for it itself, after the fork
        whole = [tools.find("setpriv"), "--pdeathsig", "KILL", "--", *whole]
    try:
        return subprocess.Popen(
            whole, stdin=stdin, stdout=stdout, stderr=stderr,
            cwd=cwd, env=merged, pass_fds=pass_fds, start_new_session=new_session, close_fds=True, umask=umask)
    except FileNotFoundError as error:
        if cwd is not None and not Path(cwd).is_dir():
            raise ProgramError(f"'{words[0]}' cannot start in '{cwd}': there is no such directory.") from error
        raise MissingToolError(f"The program '{words[0]}' cannot be started: {error.strerror}.") from error
    except OSError as error:
        raise ProgramError(f"'{words[0]}' cannot be started: {error.strerror}.") from error


def run_in_foreground(argv: Sequence[Argument], *, env: Mapping[str, str] | None = None,
                      cwd: Path | None = None, stdin: int | IO[bytes] | None = None) -> int:
    """Run a program on our own terminal (a pinentry, an editor, a user's own signing program); its exit status."""
    merged = dict(os.environ)
    merged.update(env or {})
    with start(argv, stdin=stdin, cwd=cwd, env=merged, new_session=False) as process:
        process.wait()
    return process.returncode


def end(process: subprocess.Popen[bytes], *, patience: float = 3.0) -> None:
    """End a program and everything in its process group: SIGTERM, then SIGKILL after ``patience`` seconds."""
    if process.poll() is None:
        kill_group(process, signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(patience)
    kill_group(process)
    process.wait()


def kill_group(process: subprocess.Popen[bytes], number: int = signal.SIGKILL) -> None:
    """Send a signal to a program's process group, if it leads one, else to the program alone."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        if process.returncode is None and os.getpgid(process.pid) != process.pid:
            process.send_signal(number)
        else:
            os.killpg(process.pid, number)


@dataclass(frozen=True, slots=True, kw_only=True)
class ProcessIdentity:
    """A process that can be told from a later one with the same number: pid and start time (ticks since boot)."""

    pid: int
    started: int


def identity(pid: int) -> ProcessIdentity | None:
    """Who runs under this number now, or None (proc(5), field 22 of /proc/PID/stat)."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        return None
    fields = stat[stat.rindex(b")") + 2:].split()
    if fields[0] in (b"Z", b"X"):
        return None
    return ProcessIdentity(pid=pid, started=int(fields[19]))


def kill_identity(who: ProcessIdentity, *, patience: float = 3.0, first: int = signal.SIGTERM) -> bool:
    """End a process that is not our child, if it is still the same one. True when it is gone."""
    for number in (first, signal.SIGKILL):
        if identity(who.pid) != who:
            return True
        with contextlib.suppress(ProcessLookupError):
            os.kill(who.pid, number)
        if wait_until(lambda: identity(who.pid) != who, patience):
            return True
    return False


def wait_until(condition: Callable[[], bool], seconds: float, *, every: float = 0.02) -> bool:
    """Whether ``condition`` came true within so many seconds."""
    until = time.monotonic() + seconds
    while not condition():
        if time.monotonic() >= until:
            return condition()
        time.sleep(every)
    return True
