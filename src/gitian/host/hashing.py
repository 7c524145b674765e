"""SHA-256 of files: one pass, bounded memory, on all processors."""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from gitian.errors import InputError

_PIECE = 2**20
#: Below this a thread costs more than it saves (bytes).
_SMALL = 256 * 2**10


def sha256_bytes(data: bytes) -> str:
    """The SHA-256 of bytes in memory, in hexadecimal."""
    return hashlib.sha256(data).hexdigest()


def sha256_file(path: Path | str, *, follow: bool = True, progress: Callable[[int], object] | None = None) -> str:
    """The SHA-256 of a regular file, in hexadecimal; ``progress`` gets byte counts.

    ``follow`` False refuses a symbolic link in the last place. Raises InputError for what is not a regular file,
    OSError when it cannot be read.
    """
    # Without O_NONBLOCK, opening a FIFO would wait for ever.
    flags = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY | (0 if follow else os.O_NOFOLLOW)
    number = os.open(path, flags)
    try:
        about = os.fstat(number)
        if not stat.S_ISREG(about.st_mode):
            raise InputError(f"'{path}' is not a regular file.")
        if about.st_size <= _SMALL:  # most files are, and a buffer costs more than they do
            start = os.read(number, about.st_size + 1)
            if len(start) == about.st_size:
                if progress is not None:
                    progress(len(start))
                return hashlib.sha256(start).hexdigest()
            os.lseek(number, 0, os.SEEK_SET)
        return sha256_of_descriptor(number, progress=progress)
    finally:
        os.close(number)


def sha256_of_descriptor(number: int, *, progress: Callable[[int], object] | None = None) -> str:
    """The SHA-256 of what can be read from a file descriptor, from where it stands to its end."""
    digest = hashlib.sha256()
    buffer = bytearray(_PIECE)
    view = memoryview(buffer)
    while count := os.readv(number, [buffer]):
        digest.update(view[:count])
        if progress is not None:
            progress(count)
    return digest.hexdigest()


def sha256_files(paths: Iterable[Path | str], workers: int | None = None, *, follow: bool = True,
                 progress: Callable[[int], object] | None = None) -> list[str]:
    """The SHA-256 of each file, in the order given, several at a time (hashlib lets threads run while it hashes).

    ``workers`` defaults to the number of processors that we may use. Raises as :func:`sha256_file`.
    """
    todo = list(paths)
    count = workers or len(os.sched_getaffinity(0))
    if count < 2 or len(todo) < 2:
        return [sha256_file(path, follow=follow, progress=progress) for path in todo]
    results = [""] * len(todo)
    sizes = [Path(path).stat(follow_symlinks=follow).st_size for path in todo]
    # The largest first, so that no thread is left alone with a big file at the end.
    large = sorted((place for place, size in enumerate(sizes) if size > _SMALL), key=lambda place: -sizes[place])
    small = [place for place, size in enumerate(sizes) if size <= _SMALL]

    def work(places: list[int]) -> None:
        for place in places:
            results[place] = sha256_file(todo[place], follow=follow, progress=progress)

    if not large:
        work(small)
        return results
    with ThreadPoolExecutor(max_workers=count) as pool:
        jobs = [pool.submit(work, [place]) for place in large]
        jobs += [pool.submit(work, small[start:start + 64]) for start in range(0, len(small), 64)]
        try:
            for job in jobs:
                job.result()
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    return results
