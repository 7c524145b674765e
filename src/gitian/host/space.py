"""Room on disk, asked before it is needed."""

from __future__ import annotations

import os
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
