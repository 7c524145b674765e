"""A tar stream of a file or of a directory's contents, fast and without surprises for who unpacks it.

The format is GNU tar's (tar 1.34 manual, "Basic Tar Format" and "GNU Extensions"), which GNU tar, busybox and Python
read: base-256 numbers where octal is too short, ``L`` and ``K`` members for names over 100 bytes, ``S`` members for
files with holes. Nanoseconds of a time go into a POSIX extended header, which readers that do not know it skip.
Python's tarfile spends several times as long per file, and does not look for holes.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from pathlib import Path

from gitian.errors import InputError

_PIECE = 2**20
_BLOCK = 512
_ZEROS = bytes(_BLOCK)
_OPEN = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
_REGULAR, _LINK, _SYMLINK, _DIRECTORY, _SPARSE = b"0", b"1", b"2", b"5", b"S"

Segments = list[tuple[int, int]]


def pack(source: Path, write: Callable[[bytes], object], *, uid: int, gid: int, uname: str, name: str | None = None,
         progress: Callable[[int], object] | None = None, exact_times: bool = True, sparse: bool = True) -> int:
    """Write a tar stream of a regular file (as member ``name``, else its own) or of a directory's contents.

    Members belong to ``uid``, ``gid`` and ``uname``; modes lose set-id and sticky bits; links are stored as links, and
    no symbolic link is followed but ``source`` itself when it leads to a file. Entries come sorted, so the same files
    give the same stream. ``progress`` gets counts of the files' bytes. ``exact_times`` False leaves out nanoseconds
    (1 KiB less per file); ``sparse`` False writes holes as zeros (for busybox, which cannot read them). Returns the
    number of bytes written.

    Raises InputError for what is no file, directory or link, and for a file that changes while it is read.
    """
    packer = _Packer(write, uid, gid, uname, progress, exact_times, sparse)
    if source.is_dir():
        top = os.open(source, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            packer.tree(top, source)
        finally:
            os.close(top)
    else:
        real = source.resolve(strict=True)
        where = os.open(real.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            packer.file(where, real.name, os.fsencode(name or source.name), linked=False)
        finally:
            os.close(where)
    return packer.finish()


def measure(source: Path) -> int:
    """How many bytes the files at ``source`` have together: the total for a bar that shows :func:`pack`."""
    if not source.is_dir():
        return source.stat().st_size
    total = 0
    pending = [os.fspath(source)]
    while pending:
        with os.scandir(pending.pop()) as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    pending.append(entry.path)
                elif entry.is_file(follow_symlinks=False):
                    total += entry.stat(follow_symlinks=False).st_size
    return total


class _Packer:
    def __init__(self, write: Callable[[bytes], object], uid: int, gid: int, uname: str,
                 progress: Callable[[int], object] | None, exact_times: bool, sparse: bool) -> None:
        self._write = write
        self._progress = progress
        self._exact = exact_times
        self._sparse = sparse
        self._owner = _number(uid, 8) + _number(gid, 8)
        who = uname.encode()[:31].ljust(32, b"\0")
        self._tail = b"ustar  \0" + who + who + bytes(16)
        self._tail_sum = sum(self._tail) + sum(self._owner) + 8 * 0x20
        self._buffer = bytearray()
        self._written = 0
        self._seen: dict[tuple[int, int], bytes] = {}

    # what goes in

    def tree(self, top: int, source: Path) -> None:
        # A directory comes right before what is in it: who unpacks sets its time once all of that is there. One
        # directory is open at a time, however deep the tree.
        pending: list[bytes] = [b""]
        while pending:
            path = pending.pop()
            here = _open_directory(top, path)
            try:
                if path:
                    self._directory(path + b"/", os.fstat(here))
                with os.scandir(here) as entries:
                    found = sorted(entries, key=lambda entry: os.fsencode(entry.name))
                below = []
                for entry in found:
                    name = os.fsencode(entry.name)
                    full = path + b"/" + name if path else name
                    if entry.is_dir(follow_symlinks=False):
                        below.append(full)
                    elif entry.is_symlink():
                        self._symlink(here, entry.name, full)
                    elif entry.is_file(follow_symlinks=False):
                        self.file(here, entry.name, full, linked=True)
                    else:
                        raise InputError(f"'{source / os.fsdecode(full)}' is neither a file, a directory nor a link.",
                                         hint="Remove it: nothing else can be copied into a guest.")
                pending += reversed(below)
            finally:
                os.close(here)

    def file(self, where: int, entry: str, name: bytes, *, linked: bool) -> None:
        number = os.open(entry, _OPEN, dir_fd=where)
        try:
            status = os.fstat(number)
            if not stat.S_ISREG(status.st_mode):
                raise InputError(f"'{os.fsdecode(name)}' is not a regular file.")
            if linked and status.st_nlink > 1:
                first = self._seen.setdefault((status.st_dev, status.st_ino), name)
                if first is not name:
                    self._header(name, _LINK, status, 0, target=first)
                    return
            size = status.st_size
            if self._sparse and status.st_blocks * _BLOCK < size:
                segments = _segments(number, size)
                if sum(length for _, length in segments) < size:
                    self._sparse_file(number, name, status, segments)
                    return
            self._header(name, _REGULAR, status, size)
            self._content(number, 0, size, name)
            self._pad(size)
        finally:
            os.close(number)

    def _directory(self, name: bytes, status: os.stat_result) -> None:
        self._header(name, _DIRECTORY, status, 0)

    def _symlink(self, where: int, entry: str, name: bytes) -> None:
        status = os.stat(entry, dir_fd=where, follow_symlinks=False)
        target = os.readlink(entry, dir_fd=where)
        self._header(name, _SYMLINK, status, 0, target=os.fsencode(target))

    def _sparse_file(self, number: int, name: bytes, status: os.stat_result, segments: Segments) -> None:
        size = status.st_size
        if not segments or segments[-1][0] + segments[-1][1] < size:
            segments = [*segments, (size, 0)]  # GNU tar ends a map so when the file ends in a hole
        packed = [_number(offset, 12) + _number(length, 12) for offset, length in segments]
        stored = sum(length for _, length in segments)
        rest = packed[4:]
        extra = bytes(41) + b"".join(packed[:4]).ljust(96, b"\0") + (b"\1" if rest else b"\0") + _number(size, 12)
        self._header(name, _SPARSE, status, stored, extra=extra)
        while rest:
            block, rest = rest[:21], rest[21:]
            self._put((b"".join(block).ljust(504, b"\0") + (b"\1" if rest else b"\0")).ljust(_BLOCK, b"\0"))
        for offset, length in segments:
            self._content(number, offset, length, name)
        if self._progress is not None:
            self._progress(size - stored)
        self._pad(stored)

    # what comes out

    def _header(self, name: bytes, kind: bytes, status: os.stat_result, size: int, *, target: bytes = b"",
                extra: bytes = b"") -> None:
        seconds, nanoseconds = divmod(status.st_mtime_ns, 10**9)
        if self._exact and nanoseconds:
            self._extended(status.st_mtime_ns)
        if len(target) > 100:
            self._long(b"K", target)
        if len(name) > 100:
            self._long(b"L", name)
        self._put(self._block(name[:100], kind, status.st_mode & 0o777, size, seconds, target[:100], extra))

    def _block(self, name: bytes, kind: bytes, mode: int, size: int, seconds: int, target: bytes = b"",
               extra: bytes = b"") -> bytes:
        numbers = _number(size, 12) + _number(seconds, 12)
        rights = b"%07o\0" % mode
        total = (sum(name) + sum(rights) + sum(numbers) + kind[0] + sum(target) + self._tail_sum + sum(extra))
        return b"".join((name.ljust(100, b"\0"), rights, self._owner, numbers, b"%06o\0 " % total, kind,
                         target.ljust(100, b"\0"), self._tail, extra.ljust(167, b"\0")))

    def _long(self, kind: bytes, text: bytes) -> None:
        self._put(self._block(b"././@LongLink", kind, 0o644, len(text) + 1, 0))
        self._put(text + b"\0")
        self._pad(len(text) + 1)

    def _extended(self, mtime: int) -> None:
        sign = b"-" if mtime < 0 else b""
        record = b" mtime=%b%d.%09d\n" % (sign, abs(mtime) // 10**9, abs(mtime) % 10**9)
        length = len(record) + 2  # a record counts its own length; ours is always of two digits
        record = b"%d%b" % (length, record)
        self._put(self._block(b"././@PaxHeader", b"x", 0o644, len(record), 0) + record.ljust(_BLOCK, b"\0"))

    def _content(self, number: int, offset: int, length: int, name: bytes) -> None:
        while length:
            data = os.pread(number, min(length, _PIECE), offset)
            if not data:
                raise InputError(f"'{os.fsdecode(name)}' became shorter while it was read.",
                                 hint="Let nothing change the inputs while they are copied.")
            offset += len(data)
            length -= len(data)
            self._put(data)
            if self._progress is not None:
                self._progress(len(data))

    def _pad(self, size: int) -> None:
        if rest := size % _BLOCK:
            self._put(_ZEROS[rest:])

    def _put(self, data: bytes) -> None:
        if len(self._buffer) + len(data) < _PIECE:
            self._buffer += data
            return
        self._flush()
        if len(data) >= _PIECE // 2:
            self._write(data)
            self._written += len(data)
        else:
            self._buffer += data

    def _flush(self) -> None:
        if self._buffer:
            self._write(bytes(self._buffer))
            self._written += len(self._buffer)
            self._buffer.clear()

    def finish(self) -> int:
        self._put(bytes(2 * _BLOCK))
        # Readers take whole records of 20 blocks; some complain about less.
        if rest := (self._written + len(self._buffer)) % (20 * _BLOCK):
            self._put(bytes(20 * _BLOCK - rest))
        self._flush()
        return self._written


def _number(value: int, width: int) -> bytes:
    """A number in a header: octal when it fits, else big-endian two's complement with the first bit set."""
    if 0 <= value < 8 ** (width - 1):
        return b"%0*o\0" % (width - 1, value)
    raw = bytearray(value.to_bytes(width, "big", signed=True))
    raw[0] = 0xFF if value < 0 else 0x80
    return bytes(raw)


def _segments(number: int, size: int) -> Segments:
    """Where a file has data: (offset, length); lseek(2), SEEK_DATA and SEEK_HOLE."""
    found: Segments = []
    offset = 0
    while offset < size:
        try:
            start = os.lseek(number, offset, os.SEEK_DATA)
        except OSError:  # ENXIO: a hole up to the end; EINVAL: a file system without holes, found dense by the caller
            break
        end = min(os.lseek(number, start, os.SEEK_HOLE), size)
        if start >= size or end <= start:
            break
        found.append((start, end - start))
        offset = end
    return found


def _open_directory(top: int, path: bytes) -> int:
    """Open a directory below ``top``, no component of its path being a link."""
    number = os.dup(top)
    for component in path.split(b"/") if path else ():
        try:
            deeper = os.open(component, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=number)
        finally:
            os.close(number)
        number = deeper
    return number
