"""Unpacking what a guest sends, with no way out of the directory it goes to.

Every directory on the way is opened by its parent's descriptor and never through a link, so nothing that the archive
itself made can lead elsewhere. What exists is replaced, never written through.
"""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import stat
from array import array
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from gitian.errors import GitianError, HostError, OutputError, OutputSizeError
from gitian.host import space
from gitian.host.tarstream import Member, TarStream, broken, refused

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_NEW_FILE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
#: What must stay free on the disk: a full one breaks more than this command (bytes).
_RESERVE = 64 * 2**20
_LOOK_EVERY = 256 * 2**20

_Path = tuple[bytes, ...]


class Bounds(Protocol):
    """How much is accepted: bytes in all, number of entries, bytes of one path."""

    @property
    def size(self) -> int: ...

    @property
    def entries(self) -> int: ...

    @property
    def path(self) -> int: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Extracted:
    """What was unpacked: number of entries, bytes of all files."""

    entries: int
    size: int


def extract(read: Callable[[int], bytes], destination: Path, *, limits: Bounds,
            progress: Callable[[int], object] | None = None) -> Extracted:
    """Unpack a tar stream into the directory ``destination``, made if it is not there.

    Files belong to us; modes lose set-id and sticky bits, and for an unprivileged user an owner's right to read (and,
    of a directory, to enter and change) is added, so that what came can be hashed and removed. Times, holes, hard links
    among the members and symbolic links that stay inside are kept. ``read(n)`` returns at most n bytes, b'' at the end;
    ``progress`` gets byte counts.

    Raises OutputError for an archive that is cut short, too large, or holds anything else (what was unpacked until then
    stays), HostError when the disk is full.
    """
    destination.mkdir(parents=True, exist_ok=True)
    top = os.open(destination, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    extraction = _Extraction(top, destination, limits, progress)
    try:
        stream = TarStream(read)
        for member in stream.members():
            extraction.place(member, stream.content())
        extraction.finish()
    finally:
        extraction.close()
        os.close(top)
    return Extracted(entries=extraction.entries, size=extraction.size)


def extract_file(read: Callable[[int], bytes], destination: Path, *, limits: Bounds,
                 progress: Callable[[int], object] | None = None) -> Extracted:
    """Unpack a tar stream that holds exactly one regular file, as ``destination``, which is replaced in one step.

    Raises as :func:`extract`.
    """
    top = os.open(destination.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    extraction = _Extraction(top, destination.parent, limits, progress)
    temporary = f".{destination.name[:200]}.{secrets.token_hex(4)}"
    try:
        stream = TarStream(read)
        for member in stream.members():
            if member.kind != "file" or extraction.entries:
                raise refused(member.name, "is not the one regular file that was asked for")
            extraction.count(member)
            with _explained(member.name, destination):
                extraction.file(top, os.fsencode(temporary), member, stream.content())
        if not extraction.entries:
            raise broken("it is empty")
        os.rename(temporary, destination.name, src_dir_fd=top, dst_dir_fd=top)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary, dir_fd=top)
        raise
    finally:
        extraction.close()
        os.close(top)
    return Extracted(entries=1, size=extraction.size)


class _Extraction:
    def __init__(self, top: int, destination: Path, limits: Bounds,
                 progress: Callable[[int], object] | None) -> None:
        self.entries = 0
        self.size = 0
        self._top = top
        self._destination = destination
        self._limits = limits
        self._progress = progress
        self._device = os.fstat(top).st_dev
        self._rights = (0, 0) if os.geteuid() == 0 else (0o400, 0o700)
        self._ours = _Inodes()
        self._unfinished: list[tuple[_Path, int, int]] = []  # directories whose mode and time are yet to be set
        self._parent: _Path = ()
        self._parent_fd = os.dup(top)
        self._until_look = 0

    def close(self) -> None:
        os.close(self._parent_fd)

    def finish(self) -> None:
        """Set the last directories' modes and times."""
        self._complete(None)

    def count(self, member: Member) -> None:
        """Hold a member against the limits."""
        self.entries += 1
        self.size += member.size if member.kind == "file" else 0
        limits = self._limits
        if self.entries > limits.entries:
            raise OutputError(f"The archive was refused: it has more than {limits.entries} entries.")
        if self.size > limits.size:
            raise OutputSizeError(f"The archive was refused: it holds more than {limits.size} bytes.")
        if len(member.name) > limits.path or len(member.target) > limits.path:
            raise OutputError(f"The archive was refused: a path in it has more than {limits.path} bytes.")
        self._until_look -= member.stored + 4096
        if self._until_look < 0:
            space.require_room(self._destination, member.stored + _RESERVE, "what a guest sends")
            room = space.free(self._destination) - _RESERVE - member.stored
            self._until_look = min(room, _LOOK_EVERY)

    def place(self, member: Member, content: Iterator[bytes]) -> None:
        """Put one member where it belongs."""
        self.count(member)
        path = _components(member.name, member.name)
        self._complete(path)
        if not path:
            if member.kind != "directory":
                raise refused(member.name, "has no name")
            return
        with _explained(member.name, self._destination):
            parent = self._open_parent(path[:-1], member.name)
            name = path[-1]
            if member.kind == "directory":
                self._directory(parent, path, member)
                return
            if member.kind == "link":
                self._link(parent, path, member)
                return
            self._make_way(parent, name, member)
            if member.kind == "symlink":
                _check_target(member, len(path) - 1)
                os.symlink(member.target, name, dir_fd=parent)
                os.utime(name, ns=(member.mtime, member.mtime), dir_fd=parent, follow_symlinks=False)
                self._ours.add(os.stat(name, dir_fd=parent, follow_symlinks=False).st_ino)
            else:
                self.file(parent, name, member, content)

    def file(self, parent: int, name: bytes, member: Member, content: Iterator[bytes]) -> None:
        """Write a regular file that is not there yet."""
        number = os.open(name, _NEW_FILE, 0o600, dir_fd=parent)
        try:
            if member.segments is None:
                self._dense(number, content)
            else:
                self._sparse(number, member.segments, member.size, content)
            os.fchmod(number, member.mode | self._rights[0])
            os.utime(number, ns=(member.mtime, member.mtime))
            self._ours.add(os.fstat(number).st_ino)
        finally:
            os.close(number)

    def _dense(self, number: int, content: Iterable[bytes]) -> None:
        for piece in content:
            _write_all(number, piece)
            if self._progress is not None:
                self._progress(len(piece))

    def _sparse(self, number: int, segments: array[int], size: int, content: Iterator[bytes]) -> None:
        os.ftruncate(number, size)
        piece = memoryview(b"")
        for place in range(0, len(segments), 2):
            left = segments[place + 1]
            os.lseek(number, segments[place], os.SEEK_SET)
            while left:
                if not piece:
                    piece = memoryview(next(content))
                part = piece[:left]
                _write_all(number, part)
                left -= len(part)
                piece = piece[len(part):]
        if self._progress is not None:
            self._progress(size)

    def _directory(self, parent: int, path: _Path, member: Member) -> None:
        try:
            os.mkdir(path[-1], 0o700, dir_fd=parent)
        except FileExistsError:
            status = os.stat(path[-1], dir_fd=parent, follow_symlinks=False)
            if not stat.S_ISDIR(status.st_mode):
                os.unlink(path[-1], dir_fd=parent)
                os.mkdir(path[-1], 0o700, dir_fd=parent)
        if self._unfinished and self._unfinished[-1][0] == path:
            self._unfinished.pop()
        self._unfinished.append((path, member.mode | self._rights[1], member.mtime))

    def _link(self, parent: int, path: _Path, member: Member) -> None:
        target = _components(member.target, member.name)
        if not target:
            raise refused(member.name, "is a hard link to nothing")
        # A descriptor of its own, for the one of the member's parent is still needed.
        where = self._walk(os.dup(self._top), target[:-1], member.name, make=False)
        try:
            try:
                status = os.stat(target[-1], dir_fd=where, follow_symlinks=False)
            except FileNotFoundError:
                raise refused(member.name, "is a hard link to what is not in the archive") from None
            if (stat.S_ISDIR(status.st_mode) or status.st_dev != self._device or status.st_ino not in self._ours):
                raise refused(member.name, "is a hard link to what is not in the archive")
            with contextlib.suppress(FileNotFoundError):
                there = os.stat(path[-1], dir_fd=parent, follow_symlinks=False)
                if (there.st_dev, there.st_ino) == (status.st_dev, status.st_ino):
                    return
            self._make_way(parent, path[-1], member)
            os.link(target[-1], path[-1], src_dir_fd=where, dst_dir_fd=parent, follow_symlinks=False)
        finally:
            os.close(where)

    def _make_way(self, parent: int, name: bytes, member: Member) -> None:
        """Remove what is there under this name, unless it is a directory."""
        try:
            os.unlink(name, dir_fd=parent)
        except FileNotFoundError:
            pass
        except (IsADirectoryError, PermissionError):
            status = os.stat(name, dir_fd=parent, follow_symlinks=False)
            if stat.S_ISDIR(status.st_mode):
                raise refused(member.name, "would replace a directory by something else") from None
            raise

    def _open_parent(self, path: _Path, name: bytes) -> int:
        if path != self._parent:
            below = self._parent and path[:len(self._parent)] == self._parent
            start = os.dup(self._parent_fd if below else self._top)
            number = self._walk(start, path[len(self._parent):] if below else path, name, make=True)
            os.close(self._parent_fd)
            self._parent, self._parent_fd = path, number
        return self._parent_fd

    def _walk(self, number: int, path: _Path, name: bytes, *, make: bool) -> int:
        """Go down from a descriptor, which is closed, through real directories only; the last one's descriptor."""
        for component in path:
            try:
                try:
                    deeper = os.open(component, _DIRECTORY, dir_fd=number)
                except FileNotFoundError:
                    if not make:
                        raise refused(name, "is a hard link to what is not in the archive") from None
                    os.mkdir(component, 0o755, dir_fd=number)
                    deeper = os.open(component, _DIRECTORY, dir_fd=number)
            except OSError as error:
                if error.errno in (errno.ELOOP, errno.ENOTDIR, errno.EMLINK):
                    raise refused(name, "leads through a link or a file") from None
                raise
            finally:
                os.close(number)
            number = deeper
        return number

    def _complete(self, following: _Path | None) -> None:
        """Set mode and time of directories that the next member is not in: nothing will change in them any more."""
        while self._unfinished:
            path, mode, mtime = self._unfinished[-1]
            if following is not None and following[:len(path)] == path:
                return
            self._unfinished.pop()
            with _explained(b"/".join(path), self._destination):
                number = self._walk(os.dup(self._top), path, b"/".join(path), make=True)
                try:
                    os.fchmod(number, mode)
                    os.utime(number, ns=(mtime, mtime))
                finally:
                    os.close(number)


class _Inodes:
    """A set of inode numbers in little memory: a bit each, for they lie close together."""

    def __init__(self) -> None:
        self._pages: dict[int, bytearray] = {}

    def add(self, number: int) -> None:
        page, bit = divmod(number, 4096)
        bits = self._pages.get(page)
        if bits is None:
            bits = self._pages[page] = bytearray(512)
        bits[bit >> 3] |= 1 << (bit & 7)

    def __contains__(self, number: int) -> bool:
        page, bit = divmod(number, 4096)
        bits = self._pages.get(page)
        return bits is not None and bool(bits[bit >> 3] & 1 << (bit & 7))


def _components(path: bytes, name: bytes) -> _Path:
    if path.startswith(b"/"):
        raise refused(name, "is an absolute path" if path is name else "is a hard link to an absolute path")
    if b"\0" in path:
        raise refused(name, "holds a zero byte")
    parts = tuple(part for part in path.split(b"/") if part not in (b"", b"."))
    if b".." in parts:
        raise refused(name, "leads out of its directory by '..'")
    return parts


def _check_target(member: Member, depth: int) -> None:
    """Refuse a symbolic link that leads out, wherever other links of the archive lead.

    ``..`` is accepted at the start only, at most as often as there are real directories above. Everything after it goes
    down: through directories, or through links that have passed this same check. After a name, ``..`` would go up from
    where that name's link leads, and then counting proves nothing.
    """
    target = member.target
    if not target or b"\0" in target:
        raise refused(member.name, "is a symbolic link to nothing")
    if target.startswith(b"/"):
        raise refused(member.name, "is a symbolic link to an absolute path")
    down = False
    for part in target.split(b"/"):
        if part in (b"", b"."):
            continue
        if part != b"..":
            down = True
            continue
        depth -= 1
        if down or depth < 0:
            raise refused(member.name, "is a symbolic link that may lead out of its directory")


def _write_all(number: int, data: bytes | memoryview) -> None:
    taken = os.write(number, data)
    while taken < len(data):
        taken += os.write(number, memoryview(data)[taken:])


@contextlib.contextmanager
def _explained(name: bytes, destination: Path) -> Iterator[None]:
    """Errors of the file system in our own words."""
    try:
        yield
    except GitianError:
        raise
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise HostError(f"The disk of '{destination}' is full.", hint="Make room there.") from error
        raise refused(name, f"cannot be unpacked ({error.strerror})") from error
