"""What a file is, and what is in it: archives member by member, without anything ever being unpacked by its name.

Every file is taken for hostile: what is read, unpacked, listed and nested is counted against one budget. Formats: those
that gitian.canon reads, by the same readers; zip by the standard library, whose reader shows what canon drops.
"""

from __future__ import annotations

import calendar
import errno
import hashlib
import lzma
import os
import re
import stat
import struct
import tempfile
import time
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import IO

from gitian.canon import compression, tars, zstandard
from gitian.canon.model import Settings
from gitian.errors import FormatError, InputError

#: So many bytes are read at a time, and kept in memory of what is unpacked.
_PIECE = 2**20
_IN_MEMORY = 8 * 2**20
COMPRESSED = tuple(compression.MAGIC)
CONTAINERS = ("tar", "zip", "ar", *COMPRESSED)
_MAGIC = ((b"\x7fELF", "elf"), (b"%PDF-", "pdf"), (b"\x89PNG\r\n\x1a\n", "png"), (b"!<arch>\n", "ar"),
          (b"\xfe\xed\xfa\xce", "mach-o"), (b"\xfe\xed\xfa\xcf", "mach-o"), (b"\xce\xfa\xed\xfe", "mach-o"),
          (b"\xcf\xfa\xed\xfe", "mach-o"), (b"PK\3\4", "zip"), (b"PK\5\6", "zip"),
          *((magic, kind) for kind, magic in compression.MAGIC.items()))


class TooMuchError(Exception):
    """The budget of a comparison is spent."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What comparing two files, or two trees, may cost: bytes unpacked, members listed, archives within archives,
    findings kept, seconds."""

    unpacked: int = 2 * 2**30
    members: int = 200_000
    depth: int = 8
    findings: int = 2000
    seconds: float = 300.0


class Budget:
    """What is left of the limits. ``scratch``: where files without a name are made; None is the system's directory for
    such."""

    def __init__(self, limits: Limits, scratch: Path | None = None) -> None:
        self.limits, self.scratch = limits, scratch
        self.unpacked = limits.unpacked
        self.members = limits.members
        self.until = time.monotonic() + limits.seconds

    def tick(self) -> None:
        """Raise TooMuchError when the time is over."""
        if time.monotonic() > self.until:
            raise TooMuchError(f"more than {self.limits.seconds:g} seconds")

    def take_members(self, count: int) -> None:
        """Count members. Raises TooMuchError."""
        self.tick()
        self.members -= count
        if self.members < 0:
            raise TooMuchError(f"more than {self.limits.members} members")

    def take_bytes(self, count: int) -> None:
        """Count unpacked bytes. Raises TooMuchError."""
        self.tick()
        self.unpacked -= count
        if self.unpacked < 0:
            raise TooMuchError(f"more than {self.limits.unpacked} bytes")


class Blob:
    """Some bytes: a part of an open file."""

    __slots__ = ("file", "size", "start")

    def __init__(self, file: IO[bytes], start: int = 0, size: int | None = None) -> None:
        self.file, self.start = file, start
        end = file.seek(0, 2)
        self.size = max(0, min(end - start, end if size is None else size))

    def read(self, offset: int, count: int) -> bytes:
        """Up to so many bytes from an offset; fewer at the end, none beyond it."""
        if offset < 0 or count <= 0 or offset >= self.size:
            return b""
        self.file.seek(self.start + offset)
        return self.file.read(min(count, self.size - offset))

    def part(self, offset: int, size: int) -> Blob:
        """A part of this one, cut off where this one ends."""
        offset = min(max(0, offset), self.size)
        return Blob(self.file, self.start + offset, min(max(0, size), self.size - offset))

    def pieces(self) -> Iterator[bytes]:
        """All of it, a piece at a time."""
        for at in range(0, self.size, _PIECE):
            yield self.read(at, _PIECE)

    def digest(self, name: str, budget: Budget) -> bytes:
        """A hash of all of it. Raises TooMuchError."""
        found = hashlib.new(name, usedforsecurity=False)
        for piece in self.pieces():
            budget.tick()
            found.update(piece)
        return found.digest()


def same(a: Blob, b: Blob, budget: Budget) -> bool:
    """Whether both hold the same bytes. Raises TooMuchError."""
    if a.size != b.size:
        return False
    for at in range(0, a.size, _PIECE):
        budget.tick()
        if a.read(at, _PIECE) != b.read(at, _PIECE):
            return False
    return True


def opened(path: Path) -> IO[bytes]:
    """A regular file, open for reading; a link is not followed. Raises InputError."""
    try:
        # Not blocking: a named pipe must not hold us up.
        number = os.open(str(path), os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOFOLLOW)
    except (OSError, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) else "that is no name of a file"
        raise InputError(f"'{path}' cannot be read: {why}.") from error
    if not stat.S_ISREG(os.fstat(number).st_mode):
        os.close(number)
        raise InputError(f"'{path}' is no regular file.")
    return os.fdopen(number, "rb")


def kind_of(blob: Blob) -> str:
    """'elf', 'tar', 'zip', 'gz', 'ar', 'pe', 'mach-o', 'png', 'pdf', 'pyc', 'text', 'empty' or 'data', from the
    content alone."""
    if not blob.size:
        return "empty"
    head = blob.read(0, 65536)
    for magic, kind in _MAGIC:
        if head.startswith(magic):
            return kind
    if len(head) >= tars.BLOCK and tars.looks_like_tar(head[:tars.BLOCK]):
        return "tar"
    if head[:2] == b"MZ" and len(head) >= 64:
        at = int.from_bytes(head[60:64], "little")
        if blob.read(at, 4) == b"PE\0\0":
            return "pe"
    # PEP 552: a magic number that ends in CR LF, flags below 4, and code, whose marshalled form begins with 'c'.
    if len(head) >= 17 and head[2:4] == b"\r\n" and head[4] < 4 and head[5:8] == b"\0\0\0" and head[16] & 0x7F == 0x63:
        return "pyc"
    if is_text(head):
        return "text"
    if b"PK\5\6" in blob.read(max(0, blob.size - 65557), 65557):  # a program that unpacks itself, or one for Python
        return "zip"
    return "data"


def is_text(head: bytes) -> bool:
    """Whether bytes look like lines of text: no zeros, and hardly any control characters."""
    if b"\0" in head:
        return False
    odd = len(re.findall(rb"[\x01-\x06\x0e-\x1a\x1c-\x1f\x7f]", head))
    if odd * 100 > len(head):
        return False
    try:
        head.decode()
    except UnicodeDecodeError as error:
        # A character cut in two at the end is nothing wrong; a few bytes of Latin-1 are text too.
        high = len(re.findall(rb"[\x80-\xff]", head))
        return error.start >= len(head) - 4 or high * 10 < len(head)
    return True


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """A member of an archive. ``attributes``: what else its header says, by name; ``content`` gives what it holds, and
    raises FormatError when that is broken, TooMuchError when it is too much."""

    name: str
    kind: str = "file"
    mode: int | None = None
    mtime: int | None = None
    uid: int | None = None
    gid: int | None = None
    uname: str | None = None
    gname: str | None = None
    target: str | None = None
    attributes: tuple[tuple[str, str], ...] = ()
    content: Callable[[], Blob] | None = None


def entries(blob: Blob, kind: str, budget: Budget) -> tuple[Entry, ...]:
    """The members of a tar, zip or ar archive, in their order. Raises FormatError: broken; TooMuchError."""
    if kind == "tar":
        return _tar_entries(blob, budget)
    return _zip_entries(blob, budget) if kind == "zip" else _ar_entries(blob, budget)


def unpacked(blob: Blob, kind: str, budget: Budget) -> Blob:
    """What a compressed stream holds. Raises FormatError: broken; MissingToolError; TooMuchError."""
    target = _Scratch(budget)
    settings = Settings(limit=2**62, zstd=zstandard.run)  # the budget is the limit
    if kind == "zst":  # for which a program is run, that wants a file of its own
        with _written(), tempfile.TemporaryFile(prefix="gitian-vary-", dir=budget.scratch) as source:
            for piece in blob.pieces():
                budget.tick()
                source.write(piece)
            source.flush()
            compression.decompress(kind, source, target.write, settings)
    else:
        compression.decompress(kind, as_file(blob), target.write, settings)
    return target.blob()


@contextmanager
def _written() -> Iterator[None]:
    """What we cannot write, no fault of the file's, ends a comparison, and nothing else."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise TooMuchError("there is no room for what it unpacks") from error
        raise TooMuchError(f"what it unpacks cannot be written: {error.strerror}") from error


class _Scratch:
    """What is unpacked: in memory while it is small, else in a file without a name, so that nothing is left behind
    whatever happens; closed when nobody has it any more."""

    def __init__(self, budget: Budget) -> None:
        self.budget = budget
        where = str(budget.scratch) if budget.scratch is not None else None
        self.file = tempfile.SpooledTemporaryFile(_IN_MEMORY, prefix="gitian-vary-", dir=where)  # noqa: SIM115

    def write(self, data: bytes) -> None:
        """Add to it. Raises TooMuchError."""
        self.budget.take_bytes(len(data))
        with _written():
            self.file.write(data)

    def blob(self) -> Blob:
        """All of it. Raises TooMuchError."""
        with _written():
            self.file.flush()
            return Blob(self.file)


def _text(name: bytes) -> str:
    return name.decode("utf-8", "surrogateescape")


_TAR_KINDS = {b"0": "file", tars.LINK: "link", tars.SYMLINK: "symlink", b"3": "device", b"4": "device",
              tars.DIRECTORY: "directory", b"6": "pipe", tars.SPARSE: "sparse file"}


class _Part:
    """A blob as a file of its own, which is what canon's and Python's readers want."""

    def __init__(self, blob: Blob) -> None:
        self.blob, self.at = blob, 0

    def seek(self, offset: int, whence: int = 0) -> int:
        self.at = max(0, offset + (0, self.at, self.blob.size)[whence])
        return self.at

    def tell(self) -> int:
        return self.at

    def read(self, count: int = -1) -> bytes:
        data = self.blob.read(self.at, self.blob.size if count is None or count < 0 else count)
        self.at += len(data)
        return data

    def seekable(self) -> bool:
        return True

    def close(self) -> None:
        pass


class _Listing(_Part):
    """A zip archive as a file. While its members are being listed no more is read than the budget allows for: the
    reader asks for all of the list at once, and makes an object of every entry, whatever the archive's end says."""

    def __init__(self, blob: Blob, budget: Budget) -> None:
        super().__init__(blob)
        self.budget, self.listing = budget, True

    def read(self, count: int = -1) -> bytes:
        if not self.listing:
            return super().read(count)
        left = max(0, self.blob.size - self.at)
        if (left if count is None or count < 0 else min(count, left)) > _DIRECTORY_LIMIT:
            raise TooMuchError(f"a list of members of more than {_DIRECTORY_LIMIT} bytes")
        data = super().read(count)
        if data.count(_DIRECTORY_ENTRY) > self.budget.members:
            raise TooMuchError(f"more than {self.budget.limits.members} members")
        return data


def as_file(blob: Blob) -> IO[bytes]:
    """The blob as a file that begins where it begins."""
    return _Part(blob)  # type: ignore[return-value]


def _tar_entries(blob: Blob, budget: Budget) -> tuple[Entry, ...]:
    archive = tars.read_tar(as_file(blob))
    budget.take_members(len(archive.members))
    found = []
    for member in archive.members:
        said = dict(member.records)
        attributes = tuple(sorted((_text(key), _text(value)) for key, value in said.items()
                                  if key not in (b"path", b"linkpath", b"size", b"uid", b"gid", b"uname", b"gname",
                                                 b"mtime") and not key.startswith(b"GNU.sparse")))
        fraction = said.get(b"mtime", b"").partition(b".")[2]
        if fraction.strip(b"0"):
            attributes += (("fraction of the time", _text(fraction)),)
        if member.major or member.minor:
            attributes += (("device", f"{member.major},{member.minor}"),)
        kind = _TAR_KINDS.get(member.kind, f"type {_text(member.kind)!r}")
        links = kind in ("link", "symlink")
        found.append(Entry(
            name=_text(member.name), kind=kind, mode=member.mode, mtime=member.mtime, uid=member.uid, gid=member.gid,
            uname=_text(member.uname), gname=_text(member.gname), target=_text(member.linkname) if links else None,
            attributes=attributes,
            content=partial(blob.part, member.offset, member.size) if member.size else None))
    return tuple(found)


_AR_HEADER = struct.Struct("16s12s6s6s8s10s2s")


def _ar_entries(blob: Blob, budget: Budget) -> tuple[Entry, ...]:
    found: list[Entry] = []
    names, at = b"", 8
    while at < blob.size:
        header = blob.read(at, _AR_HEADER.size)
        if len(header) < _AR_HEADER.size:
            raise FormatError("The ar archive ends within a header.")
        name, *numbers, magic = _AR_HEADER.unpack(header)
        if magic != b"`\n":
            raise FormatError(f"The header of the member at byte {at} is broken.")
        date, uid, gid, mode, size = (_ar_number(field, 8 if n == 3 else 10) for n, field in enumerate(numbers))
        if size is None or size > blob.size - at - _AR_HEADER.size:
            raise FormatError(f"The member at byte {at} is longer than the archive.")
        budget.take_members(1)
        name, start = name.rstrip(b" "), at + _AR_HEADER.size
        content = blob.part(start, size)
        if name == b"//":
            names = content.read(0, _PIECE)
        elif re.fullmatch(rb"/[0-9]+", name):
            name = names[int(name[1:11]):].split(b"\n", 1)[0].rstrip(b"/")
        elif match := re.fullmatch(rb"#1/([0-9]{1,6})", name):
            length = int(match[1])
            name, content = content.read(0, length).rstrip(b"\0"), content.part(length, size - length)
        elif name not in (b"/", b"/SYM64/"):
            name = name.removesuffix(b"/")
        kind = "table" if name in (b"/", b"//", b"/SYM64/") else "file"
        found.append(Entry(name=_text(name), kind=kind, mode=mode, mtime=date, uid=uid, gid=gid,
                           content=partial(content.part, 0, size)))
        at = start + size + size % 2
    return tuple(found)


def _ar_number(field: bytes, base: int) -> int | None:
    try:
        return int(field.strip() or b"0", base)
    except ValueError:
        return None


_SYSTEMS = {0: "DOS", 3: "Unix", 10: "Windows", 19: "macOS"}
#: The list of a zip archive's members may be so long (bytes): the reader takes it into memory as a whole.
_DIRECTORY_LIMIT = 48 * 2**20
_DIRECTORY_ENTRY = b"PK\1\2"
_ZIP_ERRORS = (zipfile.BadZipFile, zipfile.LargeZipFile, NotImplementedError, ValueError, OSError, EOFError,
               struct.error, zlib.error, lzma.LZMAError, IndexError, KeyError, OverflowError, RuntimeError)


def _zip_entries(blob: Blob, budget: Budget) -> tuple[Entry, ...]:
    try:
        # Not closed: members are read when they are asked for. The file is the blob's.
        file = _Listing(blob, budget)
        archive = zipfile.ZipFile(file)
        file.listing = False
        listed = archive.infolist()
        budget.take_members(len(listed))
        return tuple(_zip_entry(archive, info, budget) for info in listed)
    except _ZIP_ERRORS as error:
        raise FormatError(f"The zip archive is broken: {error}.") from error


def _zip_entry(archive: zipfile.ZipFile, info: zipfile.ZipInfo, budget: Budget) -> Entry:
    mode = info.external_attr >> 16
    attributes = {"compression": str(info.compress_type),
                  "made by": _SYSTEMS.get(info.create_system, str(info.create_system)),
                  "version": str(info.create_version), "flags": f"{info.flag_bits:#06x}",
                  "external attributes": f"{info.external_attr & 0xFFFF:#06x}", "internal": str(info.internal_attr)}
    if info.comment:
        attributes["comment"] = _text(info.comment[:200])
    owner: dict[str, int] = {}
    for number, value in _extra(info.extra):
        if number == 0x5455 and len(value) >= 5 and value[0] & 1:
            attributes["time in UTC"] = str(int.from_bytes(value[1:5], "little", signed=True))
        elif number == 0x7875 and len(value) >= 3 and value[0] == 1:
            owner["uid"] = int.from_bytes(value[2:2 + value[1]][:8], "little")
            owner["gid"] = int.from_bytes(value[3 + value[1]:][:8], "little")
        elif number != 1:  # 1: sizes that need 64 bits
            attributes[f"extra field {number:#06x}"] = value[:64].hex()
    try:
        moment = calendar.timegm((*info.date_time, 0, 0, 0))
    except (ValueError, OverflowError):
        moment = None
    return Entry(name=info.filename, mode=mode & 0o7777 if mode else None, mtime=moment, uid=owner.get("uid"),
                 kind="symlink" if stat.S_ISLNK(mode) else "directory" if info.filename.endswith("/") else "file",
                 gid=owner.get("gid"), attributes=tuple(attributes.items()),
                 content=partial(_zip_content, archive, info, budget))


def _zip_content(archive: zipfile.ZipFile, info: zipfile.ZipInfo, budget: Budget) -> Blob:
    target = _Scratch(budget)
    try:
        with archive.open(info) as reader:
            while data := reader.read(_PIECE):
                target.write(data)
    except _ZIP_ERRORS as error:
        raise FormatError(f"The member '{info.filename}' cannot be unpacked: {error}.") from error
    return target.blob()


def _extra(data: bytes) -> Iterator[tuple[int, bytes]]:
    at = 0
    while at + 4 <= len(data):
        number, length = struct.unpack_from("<2H", data, at)
        yield number, data[at + 4:at + 4 + length]
        at += 4 + length


@dataclass(frozen=True, slots=True, kw_only=True)
class GzipHeader:
    """RFC 1952, 2.3: when, by what name, on which system (a number), how hard (2: most, 4: least)."""

    mtime: int
    name: str | None
    system: int
    effort: int
    comment: str | None


def gzip_header(blob: Blob) -> GzipHeader | None:
    """The header of the first member of a gzip file; None when it is broken."""
    head = blob.read(0, 65536 + 8192)
    if len(head) < 10:
        return None
    at = 10
    if head[3] & 4:
        at += 2 + int.from_bytes(head[10:12], "little")
    texts: dict[int, str] = {}
    for flag in (8, 16):
        if head[3] & flag:
            end = head.find(b"\0", at, at + 4096)
            if end < 0:
                return None
            texts[flag] = head[at:end].decode("latin-1")
            at = end + 1
    return GzipHeader(mtime=int.from_bytes(head[4:8], "little"), name=texts.get(8), system=head[9], effort=head[8],
                      comment=texts.get(16))
