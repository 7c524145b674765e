"""A log file of a build: everything that a guest says, kept on disk as it came, and its last lines kept at hand."""

from __future__ import annotations

import sys
from collections import deque
from pathlib import Path
from types import TracebackType
from typing import BinaryIO

#: What is kept of the end of a log, to be shown when something fails.
TAIL_LINES = 25
_TAIL_BYTES = 64 * 2**10


class Log:
    """Appends to a file; with ``echo`` also to standard output, escaped so that no terminal acts upon it."""

    def __init__(self, path: Path, *, echo: bool = False) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.unlink(missing_ok=True)  # never write through a link that somebody left there
        self.path = path
        self._file: BinaryIO = path.open("xb", buffering=0)
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
