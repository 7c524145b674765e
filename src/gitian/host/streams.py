"""Bytes from a file descriptor to where they are wanted."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable

PIECE = 2**20


def reader(number: int) -> Callable[[int], bytes]:
    """``read(n)`` of a file descriptor: at most n bytes, b'' at the end."""
    return lambda size: os.read(number, size)


def writer(number: int) -> Callable[[bytes], None]:
    """``write(data)`` to a file descriptor: all of it, however small the pieces that are taken."""
    def write(data: bytes) -> None:
        taken = os.write(number, data)
        if taken == len(data):
            return
        view = memoryview(data)
        while taken < len(data):
            taken += os.write(number, view[taken:])

    return write


def relay(source: int, *sinks: Callable[[bytes], object], piece: int = PIECE) -> int:
    """Read ``source`` to its end and give every piece to every sink, as soon as it comes; the number of bytes."""
    size = 0
    while data := os.read(source, piece):
        size += len(data)
        for sink in sinks:
            sink(data)
    return size


class Tail:
    """A sink that keeps the last bytes only: for the end of a log in an error message."""

    def __init__(self, size: int = 8192) -> None:
        self._size = size
        self._pieces: deque[bytes] = deque()
        self._kept = 0

    def __call__(self, data: bytes) -> None:
        if len(data) >= self._size:
            data = data[-self._size:]
            self._pieces.clear()
            self._kept = 0
        self._pieces.append(data)
        self._kept += len(data)
        while self._kept - len(self._pieces[0]) >= self._size:
            self._kept -= len(self._pieces.popleft())
        if len(self._pieces) > 256:  # many tiny pieces: one larger one is cheaper to keep
            self._pieces = deque([b"".join(self._pieces)])

    def lines(self, count: int = 20) -> list[str]:
        """The last lines, as text; what is cut off at the front is left out when there is more."""
        data = b"".join(self._pieces)[-self._size:]
        return data.decode(errors="replace").splitlines()[-count:]
