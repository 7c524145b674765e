"""A package: the outputs of a build and a folder ``gitian/`` of evidence, as a zip file or as a directory.

Nothing of a package is believed. Its names are checked before anything is read, only the members that are asked for
are read, each within bounds, and reading one means copying it to where nobody else can change it, hashing on the way.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import stat
import struct
import zipfile
import zlib
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from gitian.errors import PackageError
from gitian.update import paths

#: More members than this are refused.
MOST_MEMBERS = 100_000
#: A zip's directory larger than this is refused (bytes): all of it is read into memory.
LARGEST_DIRECTORY = 64 * 2**20
_PIECE = 1024 * 1024
#: Not bzip2 and LZMA: zipfile decompresses a whole piece of those at once, whatever it swells to.
_METHODS = {zipfile.ZIP_STORED: "stored", zipfile.ZIP_DEFLATED: "deflate"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Member:
    """A file of a package. ``size`` in bytes, as the package says; ``executable`` is all that is kept of its mode."""

    path: str
    size: int
    executable: bool


class Package(ABC):
    """Files by path. Used as a context manager."""

    source: Path
    members: Mapping[str, Member]

    @abstractmethod
    def open(self, member: Member) -> contextlib.AbstractContextManager[IO[bytes]]:
        """The member's bytes. Raises PackageError; so may reading."""

    def read(self, path: str, limit: int) -> bytes:
        """A small member as a whole. Raises PackageError when it has more than ``limit`` bytes."""
        return b"".join(self._pieces(self.members[path], limit))

    def copy(self, path: str, target: IO[bytes], limit: int) -> str:
        """Write the member to ``target``; its sha256. Raises PackageError when it has more than ``limit`` bytes."""
        digest = hashlib.sha256()
        for piece in self._pieces(self.members[path], limit):
            digest.update(piece)
            target.write(piece)
        return digest.hexdigest()

    def _pieces(self, member: Member, limit: int) -> Iterator[bytes]:
        size = 0
        try:
            with self.open(member) as stream:
                while piece := stream.read(_PIECE):
                    size += len(piece)
                    if size > member.size:
                        raise PackageError(f"'{member.path}' in '{self.source}' is longer than it is said to be.")
                    if size > limit:
                        raise PackageError(
                            f"'{member.path}' in '{self.source}' has more bytes than the {limit} that are accepted.",
                            hint="If that is right, raise 'maximum_size' in the configuration.")
                    yield piece
        except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError, ValueError) as error:
            raise PackageError(f"'{member.path}' in '{self.source}' is damaged: {error}.",
                               hint="Download it again.") from error
        if size != member.size:
            raise PackageError(f"'{member.path}' in '{self.source}' is cut off.", hint="Download it again.")

    def _accept(self, members: list[Member]) -> dict[str, Member]:
        for member in members:
            try:
                paths.check(member.path)
            except ValueError as error:
                raise PackageError(
                    f"'{self.source}' holds '{member.path[:200]}', which is refused: {error}.") from error
        collision = paths.collision([member.path for member in members])
        if collision is not None:
            raise PackageError(f"'{self.source}' holds '{collision[0]}' and '{collision[1]}', which get into each "
                               "other's way.")
        return {member.path: member for member in members}


@contextlib.contextmanager
def opened(source: Path) -> Iterator[Package]:
    """Open a zip file or a directory. Raises PackageError."""
    try:
        status = source.stat()
    except OSError as error:
        raise PackageError(f"The package '{source}' cannot be read: {error.strerror}.") from error
    if stat.S_ISDIR(status.st_mode):
        with _Directory.opened(source) as directory:
            yield directory
    elif stat.S_ISREG(status.st_mode):
        with _Zip.opened(source) as archive:
            yield archive
    else:
        raise PackageError(f"'{source}' is neither a zip file nor a directory.")


class _Zip(Package):
    def __init__(self, source: Path, archive: zipfile.ZipFile) -> None:
        self.source = source
        self._archive = archive
        self._infos: dict[str, zipfile.ZipInfo] = {}
        members = []
        for info in archive.infolist():
            member = self._member(info)
            if member is not None:
                members.append(member)
                self._infos.setdefault(member.path, info)
        self._refuse_overlaps(archive.infolist(), archive.start_dir)
        self.members = self._accept(members)

    @staticmethod
    @contextlib.contextmanager
    def opened(source: Path) -> Iterator[_Zip]:
        with source.open("rb") as stream:
            _check_end(stream, source)
            try:
                archive = zipfile.ZipFile(stream)
            except (zipfile.BadZipFile, zipfile.LargeZipFile, NotImplementedError, OSError, ValueError, EOFError,
                    struct.error, IndexError, KeyError, UnicodeError) as error:
                raise _not_zip(source, str(error)) from error
            with archive:
                yield _Zip(source, archive)

    def _member(self, info: zipfile.ZipInfo) -> Member | None:
        if info.orig_filename != info.filename:  # zipfile cuts a name at a zero byte
            raise PackageError(f"'{self.source}' holds a name with a zero byte in it, '{info.filename[:200]}'.")
        mode = info.external_attr >> 16
        kind = stat.S_IFMT(mode)
        if info.is_dir():
            return None  # directories are made as files need them
        if kind not in (0, stat.S_IFREG):
            what = "a symbolic link" if kind == stat.S_IFLNK else "no ordinary file"
            raise PackageError(f"'{info.filename[:200]}' in '{self.source}' is {what}, which is refused.")
        if info.flag_bits & 0x1:
            raise PackageError(f"'{info.filename[:200]}' in '{self.source}' is encrypted.")
        if info.compress_type not in _METHODS:
            raise PackageError(f"'{info.filename[:200]}' in '{self.source}' is compressed by method "
                               f"{info.compress_type}; only {' and '.join(_METHODS.values())} are read.")
        return Member(path=info.filename, size=info.file_size, executable=bool(mode & 0o111))

    def _refuse_overlaps(self, infos: list[zipfile.ZipInfo], end: int) -> None:
        # Members that share their compressed bytes are how a small file claims to hold petabytes.
        reached, name = 0, ""
        for info in sorted(infos, key=lambda info: info.header_offset):
            if info.header_offset < reached:
                raise PackageError(f"'{info.filename[:200]}' and '{name}' in '{self.source}' overlap.")
            reached, name = info.header_offset + 30 + info.compress_size, info.filename[:200]
        if reached > end:
            raise PackageError(f"'{name}' in '{self.source}' reaches into the directory of the zip file.")

    @contextlib.contextmanager
    def open(self, member: Member) -> Iterator[IO[bytes]]:
        with self._archive.open(self._infos[member.path]) as stream:
            yield stream


def _not_zip(source: Path, why: str) -> PackageError:
    return PackageError(f"'{source}' is not a whole zip file: {why}.",
                        hint="Download it again; an error page or a cut-off download looks like this.")


def _check_end(stream: IO[bytes], source: Path) -> None:
    """Bound the zip's directory before zipfile reads it into memory (APPNOTE.TXT 4.3.14 to 4.3.16)."""
    size = stream.seek(0, os.SEEK_END)
    start = max(0, size - 65557)
    stream.seek(start)
    tail = stream.read()
    at = tail.rfind(b"PK\5\6")
    if at < 0 or len(tail) - at < 22:
        raise _not_zip(source, "it has no end record")
    entries, length = struct.unpack_from("<HL", tail, at + 10)
    long = False
    if at >= 20 and tail[at - 20:at - 16] == b"PK\6\7":
        (where,) = struct.unpack_from("<Q", tail, at - 12)
        # Python's zipfile looks for the record right before the locator, others where the locator points.
        for position in {where, start + at - 20 - 56}:
            if 0 <= position <= size - 56:
                stream.seek(position)
                record = stream.read(56)
                if record[:4] == b"PK\6\6":
                    found = struct.unpack_from("<QQ", record, 32)
                    entries, length = (max(entries, found[0]), max(length, found[1])) if long else found
                    long = True
    stream.seek(0)
    if entries > MOST_MEMBERS:
        raise PackageError(f"'{source}' holds {entries} members; at most {MOST_MEMBERS} are accepted.")
    if length > LARGEST_DIRECTORY:
        raise PackageError(f"'{source}' has a directory of {length} bytes; at most {LARGEST_DIRECTORY} are accepted.")


class _Directory(Package):
    def __init__(self, source: Path, root: int) -> None:
        self.source = source
        self._root = root
        members: list[Member] = []
        self._walk(root, "", members, depth=0)
        self.members = self._accept(members)

    @staticmethod
    @contextlib.contextmanager
    def opened(source: Path) -> Iterator[_Directory]:
        root = os.open(source, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            yield _Directory(source, root)
        finally:
            os.close(root)

    def _walk(self, directory: int, prefix: str, members: list[Member], depth: int) -> None:
        if depth > 100:
            raise PackageError(f"'{self.source}' is nested more than 100 directories deep, at '{prefix[:200]}'.")
        with os.scandir(directory) as entries:
            names = sorted(entry.name for entry in entries)
        for name in names:
            status = os.stat(name, dir_fd=directory, follow_symlinks=False)
            path = prefix + name
            if stat.S_ISDIR(status.st_mode):
                below = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=directory)
                try:
                    self._walk(below, path + "/", members, depth + 1)
                finally:
                    os.close(below)
            elif stat.S_ISREG(status.st_mode):
                members.append(Member(path=path, size=status.st_size, executable=bool(status.st_mode & 0o111)))
            else:
                what = "a symbolic link" if stat.S_ISLNK(status.st_mode) else "no ordinary file"
                raise PackageError(f"'{path}' in '{self.source}' is {what}, which is refused.")
            if len(members) > MOST_MEMBERS:
                raise PackageError(f"'{self.source}' holds more than {MOST_MEMBERS} files.")

    @contextlib.contextmanager
    def open(self, member: Member) -> Iterator[IO[bytes]]:
        directory = os.dup(self._root)
        try:
            *parts, name = member.path.split("/")
            for part in parts:
                below = os.open(part, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=directory)
                os.close(directory)
                directory = below
            # O_NONBLOCK: somebody may have put a pipe there meanwhile.
            descriptor = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=directory)
        except OSError as error:
            raise PackageError(f"'{member.path}' in '{self.source}' cannot be read: {error.strerror}.") from error
        finally:
            os.close(directory)
        with os.fdopen(descriptor, "rb") as stream:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                raise PackageError(f"'{member.path}' in '{self.source}' is no longer an ordinary file.")
            yield stream
