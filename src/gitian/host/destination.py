"""Where a user wants a file written: whole or not at all, and never in the place of a device, a pipe or a link."""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, cast

from gitian.errors import HostError, UsageError

#: Files that stand for what this process has open already (fd(4)); opening a regular one anew would begin at its start.
_OPEN = re.compile(r"/(?:dev|proc/self)/fd/([0-9]{1,6})")
_STANDARD = {"/dev/stdout": 1, "/dev/stderr": 2}


def check(path: Path) -> None:
    """Find out early what would only fail late: nothing is written. Raises UsageError."""
    try:
        kind = path.lstat().st_mode
    except FileNotFoundError:
        kind = 0
    except OSError as error:
        raise UsageError(f"'{path}' cannot be written: {error.strerror}.") from error
    if path.is_dir():
        raise UsageError(f"'{path}' is a directory, and a file is to be written.")
    if kind and not stat.S_ISREG(kind):
        return
    folder = path.parent
    if not folder.is_dir():
        raise UsageError(f"There is no directory '{folder}' to write '{path.name}' into.", hint="Make it first.")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise UsageError(f"The directory '{folder}' cannot be written to.")


@contextlib.contextmanager
def writing(path: Path) -> Iterator[BinaryIO]:
    """A file to write to. When the block ends well it is at ``path``; otherwise all is as it was.

    A regular file is replaced at once. What is there and is something else (a pipe, a device, a link) is written into
    and stays what it is, even for root. Raises HostError; BrokenPipeError when a pipe's reader has gone.
    """
    try:
        number = _descriptor(path)
        if number is not None:
            with os.fdopen(os.dup(number), "wb") as file:
                yield file
            return
        try:
            kind = path.lstat().st_mode
        except FileNotFoundError:
            kind = 0
        if kind and not stat.S_ISREG(kind):
            # Whatever this path comes to be by now, it is opened and not replaced.
            with path.open("wb") as file:
                yield cast(BinaryIO, file)
            return
        with _replacing(path, stat.S_IMODE(kind) if kind else None) as file:
            yield file
    except BrokenPipeError:
        raise
    except OSError as error:
        raise HostError(f"'{path}' cannot be written: {error.strerror or error}.") from error


def _descriptor(path: Path) -> int | None:
    found = _OPEN.fullmatch(str(path))
    return int(found[1]) if found else _STANDARD.get(str(path))


@contextlib.contextmanager
def _replacing(path: Path, mode: int | None) -> Iterator[BinaryIO]:
    temporary = path.with_name(f".gitian-{secrets.token_hex(8)}")
    number = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, 0o666)
    try:
        with os.fdopen(number, "wb") as file:
            if mode is not None:
                os.fchmod(number, mode & 0o777)
            yield file
            file.flush()
            os.fsync(number)
        # What has become a device or a link since we looked is not replaced either.
        if os.path.lexists(path) and not stat.S_ISREG(path.lstat().st_mode):
            raise HostError(f"'{path}' was a file, and is something else now; it was not replaced.")
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
