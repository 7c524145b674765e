"""Several pieces of work side by side, each in a child process that puts its own things away when it is stopped.

Processes rather than threads, because a signal, or the failure of a sibling, has to end a piece of work in good order
wherever it stands, and only a main thread can be interrupted.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import pickle
import signal
import sys
import tempfile
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import IO, Any, Generic, TypeVar

from gitian.errors import GitianError, Interrupted, ProgramError
from gitian.host import progress

T = TypeVar("T")

_PR_SET_PDEATHSIG = 1  # prctl(2)


@dataclass(frozen=True, slots=True, kw_only=True)
class Work(Generic[T]):
    """A piece of work; ``name`` stands before each line that it says. What it returns must be picklable."""

    name: str
    do: Callable[[], T]


def together(pieces: Sequence[Work[T]], *, at_once: int) -> list[T]:
    """Do all pieces, at most ``at_once`` at a time; their results in the order of the pieces.

    When one fails, or we are interrupted, the others are asked to stop (SIGTERM) and waited for; then the first
    failure is raised. Raises whatever GitianError a piece raised, ProgramError when one died without a word.
    """
    results: dict[int, T] = {}
    failures: list[BaseException] = []
    running: dict[int, tuple[int, IO[bytes]]] = {}
    waiting = list(range(len(pieces)))
    try:
        while running or (waiting and not failures):
            while waiting and len(running) < max(1, at_once) and not failures:
                number = waiting.pop(0)
                pid, answer = _fork(pieces[number])
                running[pid] = (number, answer)
            pid, status = os.waitpid(-1, 0) if len(running) > 1 else os.waitpid(next(iter(running)), 0)
            if pid not in running:
                continue
            number, answer = running.pop(pid)
            kind, value = _read(answer, pieces[number].name, status)
            if kind == "done":
                results[number] = value
            else:
                failures.append(value)
                _stop(running)
    except BaseException:
        _stop(running)
        for pid in running:
            with contextlib.suppress(ChildProcessError):
                os.waitpid(pid, 0)
        raise
    if failures:
        raise failures[0]
    return [results[number] for number in range(len(pieces))]


def _stop(running: dict[int, tuple[int, IO[bytes]]]) -> None:
    for pid in running:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGTERM)


def _fork(piece: Work[T]) -> tuple[int, IO[bytes]]:
    sys.stdout.flush()
    sys.stderr.flush()
    answer = tempfile.TemporaryFile()  # noqa: SIM115  # closed by _read
    parent = os.getpid()
    pid = os.fork()
    if pid:
        return pid, answer
    # In the child: whatever happens, it ends here and runs nothing of its parent's.
    try:
        # Should the parent be killed, this child is told, and ends its guest in good order.
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
        if os.getppid() != parent:
            raise Interrupted(signal.SIGTERM)
        progress.set_prefix(piece.name)
        said: tuple[str, Any] = ("done", piece.do())
    except GitianError as error:
        said = ("failed", error)
    except (Interrupted, KeyboardInterrupt) as error:
        said = ("stopped", error.number if isinstance(error, Interrupted) else signal.SIGINT)
    except BaseException:
        said = ("broken", traceback.format_exc())
    with contextlib.suppress(BaseException):
        answer.write(pickle.dumps(said))
        answer.flush()
        sys.stdout.flush()
    os._exit(0)


def _read(answer: IO[bytes], name: str, status: int) -> tuple[str, Any]:
    """What a child left: ('done', value) or ('failed', exception). It is our own process: its pickle is trusted."""
    with answer:
        answer.seek(0)
        data = answer.read()
    code = os.waitstatus_to_exitcode(status)
    if not data or code != 0:
        return "failed", ProgramError(f"The work on '{name}' ended without a word (status {code}).",
                                      hint="Was it killed, or the machine out of memory?")
    kind, value = pickle.loads(data)
    if kind == "stopped":
        return "failed", Interrupted(value)
    if kind == "broken":
        return "failed", RuntimeError(f"the work on {name!r} broke:\n{value}")
    return kind, value
