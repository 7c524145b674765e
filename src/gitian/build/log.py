"""A log file of a build: everything that a guest says, kept on disk as it came, and its last lines kept at hand."""

from __future__ import annotations

import contextlib
import os
import stat
import sys
from collections import deque
from pathlib import Path
from types import TracebackType
from typing import BinaryIO

from gitian.errors import HostError

#: What is kept of the end of a log, to be shown when something fails.
TAIL_LINES = 25
_TAIL_BYTES = 64 * 2**10


class Log:
    """Appends to a file; with ``echo`` also to standard output, escaped so that no terminal acts upon it."""

    def __init__(self, path: Path, *, echo: bool = False) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self.path = path
        self._file: BinaryIO = _emptied(path)
        self._echo = echo
        self._tail: deque[bytes] = deque()
        self._tail_size = 0
        self._unprinted = b""

    def __enter__(self) -> Log:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 trace: TracebackType | None) -> None:
        self.close()

    def __call__(self, piece: bytes) -> None:
        self._file.write(piece)
        self._tail.append(piece[-_TAIL_BYTES:])
        self._tail_size += len(self._tail[-1])
        while self._tail_size > 2 * _TAIL_BYTES and len(self._tail) > 1:
            self._tail_size -= len(self._tail.popleft())
        if self._echo:
            self._print(piece)

    def note(self, text: str) -> None:
        """A line of our own, so that a reader of the log sees where one step ends and the next begins."""
        self(f"--- {text}\n".encode())

    def tail(self, lines: int = TAIL_LINES) -> list[str]:
        """The last lines, at most so many; still to be escaped before they are shown."""
        text = b"".join(self._tail)[-_TAIL_BYTES:]
        return [line[:2000] for line in text.decode("utf-8", errors="replace").splitlines()[-lines:]]

    def close(self) -> None:
        """Print what is left of an unfinished line and close the file."""
        if self._unprinted:
            self._print(b"\n")
        self._file.close()

    def _print(self, piece: bytes) -> None:
        from gitian.host.progress import plain

        whole, newline, rest = (self._unprinted + piece).rpartition(b"\n")
        if len(rest) > _TAIL_BYTES:
            whole, newline, rest = whole + newline + rest, b"\n", b""
        self._unprinted = rest
        if newline:
            text = plain(whole.decode("utf-8", errors="replace"), lines=True)
            sys.stdout.write(text + "\n")
            sys.stdout.flush()


def empty_logs(var: Path) -> None:
    """Empty the logs of the last build, so that nothing in var/ is taken for what this one did."""
    for pattern in ("install-*.log", "build-*.log", "build-script", "build-script-*"):
        for path in var.glob(pattern):
            path.unlink(missing_ok=True)
    for name in ("install.log", "build.log"):
        Log(var / name).close()


def _emptied(path: Path) -> BinaryIO:
    """An empty file: the one that is there, so that 'tail -f' goes on with it, if it is ours alone.

    Nothing is written through a link that somebody left there. Raises HostError.
    """
    flags = os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    try:
        with contextlib.suppress(OSError):
            file = os.fdopen(os.open(path, flags, 0o644), "wb", buffering=0)
            about = os.fstat(file.fileno())
            if stat.S_ISREG(about.st_mode) and about.st_nlink == 1 and about.st_uid == os.geteuid():
                file.truncate(0)
                return file
            file.close()
        path.unlink(missing_ok=True)
        return os.fdopen(os.open(path, flags | os.O_EXCL, 0o644), "wb", buffering=0)
    except OSError as error:
        raise HostError(f"The log '{path}' cannot be written: {error.strerror}.") from error
