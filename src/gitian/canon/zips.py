"""Zip files: members sorted, one date, no owners, plain modes; the compressed data are copied as they are.

As nothing is inflated, the outcome depends on no library, and a bomb costs nothing. Format: APPNOTE.TXT 6.3.10 of
PKWARE. A reader may look at local headers or at the central directory; where the two tell different stories, or
members overlap, the file is refused.
"""

from __future__ import annotations

import stat
import struct
import time
from typing import IO, NamedTuple

from gitian.canon.model import HEADER_LIMIT, MEMBER_LIMIT, Settings, copy, read_exactly, size_of
from gitian.errors import FormatError

_END = struct.Struct("<4s4H2LH")
_END64 = struct.Struct("<4sQ2H2L4Q")
_LOCATOR = struct.Struct("<4sLQL")
_CENTRAL = struct.Struct("<4s6H3L5H2L")
_LOCAL = struct.Struct("<4s5H3L2H")
_MANY, _BIG = 0xFFFF, 0xFFFFFFFF
#: The version of the format that a method needs (APPNOTE 4.4.3.2).
_NEEDS = {0: 20, 8: 20, 9: 21, 12: 46, 14: 63, 93: 63, 95: 63}
#: Extra fields that are part of the content: a name or comment in Unicode, and the mark of an executable jar.
_KEPT_EXTRA = (0x7075, 0x6375, 0xCAFE)
_UNIX = 3
_EARLIEST, _LATEST = 315532800, 4354819198


class Member(NamedTuple):
    """A member as the central directory has it; ``data`` is where its bytes begin."""

    name: bytes
    made_by: int
    flags: int
    method: int
    dos_time: int
    dos_date: int
    crc: int
    compressed: int
    size: int
    internal: int
    external: int
    extra: bytes
    comment: bytes
    start: int
    data: int


class _Directory(NamedTuple):
    offset: int  # of the central directory in the file
    size: int
    members: int
    shift: int  # what is added to every offset: something was put before the archive
    comment: bytes


def write_canonical_zip(source: IO[bytes], target: IO[bytes], settings: Settings) -> None:
    """Write ``source`` in canonical form. Raises FormatError: a broken, hostile, encrypted or signed file."""
    directory = _find_directory(source)
    members = _read_members(source, directory)
    _check_layout(source, members, directory)
    first = min((member.start for member in members), default=directory.offset)
    copy(source, 0, first, target.write)  # a script or a program that unpacks itself
    offset = first
    central = []
    for member in _sorted(members) if "order" not in settings.keep else members:
        plain = _normalised(member, settings)
        header = _local_header(plain)
        target.write(header)
        copy(source, member.data, member.compressed, target.write)
        central.append(_central_header(plain, offset))
        offset += len(header) + member.compressed
    size = sum(map(len, central))
    for header in central:
        target.write(header)
    target.write(_end(len(central), size, offset, directory.comment))


def _find_directory(source: IO[bytes]) -> _Directory:
    size = size_of(source)
    tail_at = max(0, size - _END.size - _MANY)
    source.seek(tail_at)
    tail = source.read(_END.size + _MANY)
    at = tail.rfind(b"PK\5\6")
    while at >= 0 and (at + _END.size > len(tail) or at + _END.size + _END.unpack_from(tail, at)[7] != len(tail)):
        at = tail.rfind(b"PK\5\6", 0, at)
    if at < 0:
        raise FormatError("The file has no end of a zip archive.", hint="It was cut off; make or fetch it again.")
    _, disk, disk_too, here, count, length, offset, _ = _END.unpack_from(tail, at)
    end, comment = tail_at + at, tail[at + _END.size:]
    if end >= _LOCATOR.size + _END64.size and (_MANY in (here, count) or _BIG in (length, offset)):
        source.seek(max(0, end - _LOCATOR.size - _END64.size))
        both = source.read(_LOCATOR.size + _END64.size)
        if both[:4] == b"PK\6\6" and both[_END64.size:_END64.size + 4] == b"PK\6\7":
            _, _, _, _, disk, disk_too, here, count, length, offset = _END64.unpack_from(both)
            end -= _LOCATOR.size + _END64.size
    if disk or disk_too or here != count:
        raise FormatError("The zip archive is one part of several.", hint="Join the parts first.")
    if count > MEMBER_LIMIT or length > HEADER_LIMIT or count * _CENTRAL.size > length:
        raise FormatError(f"The zip archive says that it has {count} members, which cannot be.")
    shift = end - length - offset
    if shift < 0:
        raise FormatError("The zip archive's directory is not where it should be.")
    return _Directory(offset=end - length, size=length, members=count, shift=shift, comment=comment)


def _read_members(source: IO[bytes], directory: _Directory) -> list[Member]:
    source.seek(directory.offset)
    data = read_exactly(source, directory.size, "its directory")
    members, at = [], 0
    for _ in range(directory.members):
        if at + _CENTRAL.size > len(data) or data[at:at + 4] != b"PK\1\2":
            raise FormatError("The zip archive's directory is broken.")
        (_, made_by, _, flags, method, dos_time, dos_date, crc, compressed, size, name_length, extra_length,
         comment_length, disk, internal, external, offset) = _CENTRAL.unpack_from(data, at)
        at += _CENTRAL.size
        name, extra = data[at:at + name_length], data[at + name_length:at + name_length + extra_length]
        at += name_length + extra_length
        comment = data[at:at + comment_length]
        at += comment_length
        if at > len(data):
            raise FormatError("The zip archive's directory is broken.")
        fields = _extra_fields(extra)
        large = dict(fields).get(1, b"")
        values = []
        for value, absent in ((size, _BIG), (compressed, _BIG), (offset, _BIG), (disk, _MANY)):
            width = 8 if absent == _BIG else 4
            if value == absent and large:
                if len(large) < width:
                    raise FormatError("The zip archive's directory is broken.")
                value, large = int.from_bytes(large[:width], "little"), large[width:]
            values.append(value)
        size, compressed, offset, disk = values
        if disk:
            raise FormatError("The zip archive is one part of several.", hint="Join the parts first.")
        if flags & 0x2041:  # encrypted, strongly or with a hidden directory: the date is part of the password's check
            raise FormatError(f"The member {_shown(name)} is encrypted.", hint="Encrypt after making it canonical.")
        members.append(Member(
            name=name, made_by=made_by, flags=flags, method=method, dos_time=dos_time, dos_date=dos_date, crc=crc,
            compressed=compressed, size=size, internal=internal, external=external, comment=comment,
            extra=b"".join(struct.pack("<2H", kind, len(value)) + value for kind, value in fields
                           if kind in _KEPT_EXTRA),
            start=offset + directory.shift, data=0))
    if at != len(data):
        raise FormatError("The zip archive's directory is longer than it says.")
    return [_with_data(source, member) for member in members]


def _with_data(source: IO[bytes], member: Member) -> Member:
    """The member with the place of its data, once its local header is known to tell the same."""
    source.seek(member.start)
    header = read_exactly(source, _LOCAL.size, "the header of a member")
    kind, _, flags, method, _, _, crc, compressed, _, name_length, extra_length = _LOCAL.unpack(header)
    streamed = flags & 8  # crc and size stand behind the data
    differs = not streamed and (crc != member.crc or compressed not in (member.compressed, _BIG))
    if (kind != b"PK\3\4" or method != member.method or source.read(name_length) != member.name or flags & 0x2041
            or differs):
        raise FormatError(f"The header of {_shown(member.name)} and the directory contradict each other.",
                          hint="Programs would unpack different things from this file. Do not trust it.")
    return member._replace(data=member.start + _LOCAL.size + name_length + extra_length)


def _check_layout(source: IO[bytes], members: list[Member], directory: _Directory) -> None:
    end = 0
    for member in sorted(members, key=lambda member: member.start):
        if member.start < end:
            raise FormatError(f"The member {_shown(member.name)} overlaps another.",
                              hint="That is how zip bombs are made. Do not trust this file.")
        end = member.data + member.compressed
    if end > directory.offset:
        raise FormatError("A member of the zip archive reaches into its directory.")
    if directory.offset >= 16:
        source.seek(directory.offset - 16)
        if source.read(16) == b"APK Sig Block 42":
            raise FormatError("The file is a signed Android package; its signature would be lost.",
                              hint="Make it canonical first, and sign it afterwards.")


def _sorted(members: list[Member]) -> list[Member]:
    """By the bytes of their names, after what must come first: EPUB's and ODF's 'mimetype', a jar's manifest."""
    typed = min(members, key=lambda member: member.start).name == b"mimetype" if members else False

    def rank(member: Member) -> tuple[int, bytes]:
        if typed and member.name == b"mimetype":
            return 0, b""
        return {b"META-INF/MANIFEST.MF": 1, b"META-INF/": 2}.get(member.name, 3), member.name

    return sorted(members, key=rank)


def _normalised(member: Member, settings: Settings) -> Member:
    if "times" not in settings.keep:
        moment = time.gmtime(min(max(settings.date, _EARLIEST), _LATEST))
        member = member._replace(
            dos_date=(moment.tm_year - 1980) << 9 | moment.tm_mon << 5 | moment.tm_mday,
            dos_time=moment.tm_hour << 11 | moment.tm_min << 5 | moment.tm_sec // 2)
    needs = max(_NEEDS.get(member.method, 63), 45 if max(member.size, member.compressed) >= _BIG else 0)
    if "modes" in settings.keep:
        made_by = member.made_by & 0xFF00 | needs
        external = member.external
    else:
        made_by = _UNIX << 8 | needs
        external = _mode(member) << 16 | (0x10 if member.name.endswith(b"/") else 0)
    # Bits 1 and 2 are part of how the data is to be read with some methods; with deflate they only tell the level.
    flags = member.flags & (0x0800 if member.method in (0, 8, 9) else 0x0806)
    return member._replace(made_by=made_by, flags=flags, internal=0, external=external)


def _mode(member: Member) -> int:
    mode = member.external >> 16 if member.made_by >> 8 == _UNIX else 0
    if member.name.endswith(b"/"):
        return stat.S_IFDIR | 0o755
    if stat.S_ISLNK(mode):
        return stat.S_IFLNK | 0o777
    return stat.S_IFREG | (0o755 if mode & 0o111 else 0o644)


def _local_header(member: Member) -> bytes:
    size, compressed, extra = member.size, member.compressed, member.extra
    if max(size, compressed) >= _BIG:
        extra = struct.pack("<2H2Q", 1, 16, size, compressed) + extra
        size = compressed = _BIG
    return _LOCAL.pack(b"PK\3\4", member.made_by & 0xFF, member.flags, member.method, member.dos_time, member.dos_date,
                       member.crc, compressed, size, len(member.name), len(extra)) + member.name + extra


def _central_header(member: Member, offset: int) -> bytes:
    size, compressed, extra, large = member.size, member.compressed, member.extra, b""
    if max(size, compressed) >= _BIG:
        large += struct.pack("<2Q", size, compressed)
        size = compressed = _BIG
    if offset >= _BIG:
        large += struct.pack("<Q", offset)
        offset = _BIG
    if large:
        extra = struct.pack("<2H", 1, len(large)) + large + extra
    needs = max(member.made_by & 0xFF, 45 if large else 0)
    return _CENTRAL.pack(b"PK\1\2", member.made_by & 0xFF00 | needs, needs, member.flags, member.method,
                         member.dos_time, member.dos_date, member.crc, compressed, size, len(member.name), len(extra),
                         len(member.comment), 0, member.internal, member.external,
                         offset) + member.name + extra + member.comment


def _end(count: int, size: int, offset: int, comment: bytes) -> bytes:
    large = b""
    if count >= _MANY or size >= _BIG or offset >= _BIG:
        large = _END64.pack(b"PK\6\6", _END64.size - 12, _UNIX << 8 | 45, 45, 0, 0, count, count, size, offset)
        large += _LOCATOR.pack(b"PK\6\7", 0, offset + size, 1)
    return large + _END.pack(b"PK\5\6", 0, 0, min(count, _MANY), min(count, _MANY), min(size, _BIG), min(offset, _BIG),
                             len(comment)) + comment


def _extra_fields(data: bytes) -> list[tuple[int, bytes]]:
    """(id, value) of each extra field; padding and what is broken is left out."""
    fields, at = [], 0
    while at + 4 <= len(data):
        kind, length = struct.unpack_from("<2H", data, at)
        if at + 4 + length > len(data):
            break
        fields.append((kind, data[at + 4:at + 4 + length]))
        at += 4 + length
    return fields


def _shown(name: bytes) -> str:
    return "'" + name[:200].decode("utf-8", "replace") + "'"
