"""Room on disk, asked before it is needed, and what is said when it is not there."""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Callable, Iterator
from pathlib import Path

from gitian.errors import HostError


def free(path: Path) -> int:
    """How many bytes we may still write on the file system of ``path``, which need not exist yet."""
    place = path.absolute()
    while True:
        try:
            status = os.statvfs(place)
        except (FileNotFoundError, NotADirectoryError):
            if place.parent == place:
                raise
            place = place.parent
            continue
        return status.f_bavail * status.f_frsize


def require_room(path: Path, size: int, why: str) -> None:
    """Raise HostError when fewer than ``size`` bytes are free; ``why`` says for what ('the base image')."""
    room = free(path)
    if room < size:
        from gitian.host.progress import amount

        raise HostError(f"There is too little room on the disk of '{path}': {amount(room)} free, {amount(size)} needed "
                        f"({why}).", hint="Make room there, or choose a place elsewhere.")


@contextlib.contextmanager
def writing(path: Path, *, new: bool = False) -> Iterator[Callable[[bytes], None]]:
    """A file of ours, written by the function that is given; ``new``: nothing may lie there.

    Raises HostError for what goes wrong with the file, and for nothing else that goes wrong in the block.
    """
    try:
        file = path.open("xb" if new else "wb", buffering=0)  # so that nothing is left for the end that may fail
    except OSError as error:
        raise not_written(path, error) from error

    def write(piece: bytes) -> None:
        rest = memoryview(piece)
        try:
            while rest:
                rest = rest[file.write(rest):]
        except OSError as error:
            raise not_written(path, error) from error

    with file:
        yield write


def not_written(path: Path, error: OSError) -> HostError:
    """The error for a file of ours that cannot be written."""
    full = error.errno in (errno.ENOSPC, errno.EDQUOT)
    return HostError(f"'{path}' cannot be written: {error.strerror}.",
                     hint="Make room there, or choose a place elsewhere." if full else None)
