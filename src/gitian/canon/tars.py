"""Tar archives, read: the headers of every member, whichever of the old dialects they are written in.

Nothing is unpacked: a member's data are a place in the file, a sparse file's map included. Formats: POSIX.1-2017 pax
(ustar and extended headers), and the GNU and V7 dialects as GNU tar's manual describes them.
"""

from __future__ import annotations

import re
from typing import IO, NamedTuple

from gitian.canon.model import HEADER_LIMIT, MEMBER_LIMIT, read_exactly, size_of
from gitian.errors import FormatError

BLOCK = 512
LINK, SYMLINK, DIRECTORY, SPARSE = b"1", b"2", b"5", b"S"
#: Kinds that have no data, whatever their size says.
_BARE = (LINK, SYMLINK, b"3", b"4", DIRECTORY, b"6")
_RECORD = re.compile(rb"([1-9][0-9]{0,8}) ")


class Member(NamedTuple):
    """A member: its header's fields, and where its data lie (``offset``, ``size`` bytes, padding left out).

    ``records`` are the extended header's records that say neither when nor whose; ``raw`` is the header's last block.
    ``sparse`` is what tells GNU's old kind of sparse file.
    """

    name: bytes
    linkname: bytes
    kind: bytes
    mode: int
    uid: int
    gid: int
    mtime: int
    uname: bytes
    gname: bytes
    major: int
    minor: int
    records: tuple[tuple[bytes, bytes], ...]
    raw: bytes
    offset: int
    size: int
    extended: int  # bytes of further sparse headers at the start of the data

    @property
    def key(self) -> bytes:
        """The name as a path: a directory's slash left out."""
        return self.name.rstrip(b"/") or self.name


class Archive(NamedTuple):
    """All members in their order, and the comment of the whole (git archive writes the commit there)."""

    members: tuple[Member, ...]
    comment: bytes | None


def looks_like_tar(block: bytes) -> bool:
    """Whether a file that starts with these 512 bytes is a tar archive."""
    return len(block) == BLOCK and block[0] != 0 and _sums(block)


def read_tar(source: IO[bytes]) -> Archive:
    """The members of an uncompressed archive. Raises FormatError: broken, cut off, beyond bounds."""
    end = size_of(source)
    members: list[Member] = []
    reader = _Reader(source, end)
    while True:
        member = reader.next()
        if member is None:
            return Archive(members=tuple(members), comment=reader.comment)
        members.append(member)
        if len(members) > MEMBER_LIMIT:
            raise FormatError(f"The archive has more than {MEMBER_LIMIT} members.")


class _Reader:
    def __init__(self, source: IO[bytes], end: int) -> None:
        self.source, self.end, self.at, self.spent = source, end, 0, 0
        self.comment: bytes | None = None
        self.common: dict[bytes, bytes] = {}

    def next(self) -> Member | None:
        long: dict[bytes, bytes] = {}
        records: list[tuple[bytes, bytes]] = []
        while True:
            block = self._block()
            if block is None:
                if long or records:
                    raise FormatError("The archive ends after a header that announces a member.")
                return None
            kind = block[156:157]
            if kind in (b"L", b"K"):
                long[kind] = self._payload(_number(block[124:136])).rstrip(b"\0")
            elif kind in (b"x", b"X"):
                records += _records(self._payload(_number(block[124:136])))
            elif kind == b"g":
                self._take_common(_records(self._payload(_number(block[124:136]))))
            elif kind == b"M":
                raise FormatError("The archive is one part of several.", hint="Join the parts first.")
            else:
                return self._member(block, long, records)

    def _block(self) -> bytes | None:
        """The next header; None at the end of the archive."""
        self.source.seek(self.at)
        if self.at == self.end:
            return None
        block = read_exactly(self.source, BLOCK, "a header")
        if not any(block):
            for data in iter(self._rest, b""):
                if any(data):
                    raise FormatError("Something follows the end of the archive.",
                                      hint="It would be lost. Was another archive appended?")
            return None
        if not _sums(block):
            raise FormatError(f"The header at byte {self.at} is broken: its checksum is wrong.",
                              hint="The archive was damaged; make or fetch it again.")
        self.at += BLOCK
        self._spend(BLOCK)
        return block

    def _rest(self) -> bytes:
        return self.source.read(2**20)

    def _payload(self, size: int) -> bytes:
        self._spend(size)
        data = read_exactly(self.source, size, "an extended header")
        self.at += _padded(size)
        return data

    def _spend(self, size: int) -> None:
        self.spent += size
        if size < 0 or self.spent > HEADER_LIMIT:
            raise FormatError(f"The archive's names and headers are more than {HEADER_LIMIT} bytes.")

    def _take_common(self, records: list[tuple[bytes, bytes]]) -> None:
        for key, value in records:
            if key == b"comment":
                self.comment = value
            else:
                self.common[key] = value

    def _member(self, block: bytes, long: dict[bytes, bytes], own: list[tuple[bytes, bytes]]) -> Member:
        mine = dict(own)
        records = [(key, value) for key, value in self.common.items() if key not in mine] + own
        said = dict(records)
        kind = block[156:157]
        ustar = block[257:263] == b"ustar\0"
        name = _text(block[:100])
        if ustar and _text(block[345:500]):
            name = _text(block[345:500]) + b"/" + name
        name = said.get(b"path", long.get(b"L", name))
        name = said.get(b"GNU.sparse.name", name)
        if kind in (b"\0", b"7"):
            kind = b"0"
        if kind == b"0" and name.endswith(b"/"):
            kind = DIRECTORY
        size = _decimal(said[b"size"]) if b"size" in said else _number(block[124:136])
        if kind in _BARE:
            size = 0
        extended = self._sparse_headers(block) if kind == SPARSE else 0
        size += extended
        offset = self.at
        self.at += _padded(size)
        if size < 0 or self.at > _padded(self.end):
            raise FormatError(f"The archive ends within '{name[:200].decode('utf-8', 'replace')}'.",
                              hint="It was cut off; make or fetch it again.")
        return Member(
            name=name, linkname=said.get(b"linkpath", long.get(b"K", _text(block[157:257]))), kind=kind,
            mode=_number(block[100:108]), uid=_decimal(said.get(b"uid"), block[108:116]),
            gid=_decimal(said.get(b"gid"), block[116:124]), mtime=_decimal(said.get(b"mtime"), block[136:148]),
            uname=said.get(b"uname", _text(block[265:297])), gname=said.get(b"gname", _text(block[297:329])),
            major=_number(block[329:337]) if kind in (b"3", b"4") else 0,
            minor=_number(block[337:345]) if kind in (b"3", b"4") else 0,
            records=tuple(records), raw=block, offset=offset, size=size, extended=extended)

    def _sparse_headers(self, block: bytes) -> int:
        """How many bytes of further maps follow (GNU tar's manual, 'Old GNU Format': a flag says that one follows)."""
        count, more = 0, block[482]
        while more:
            extension = read_exactly(self.source, BLOCK, "the map of a sparse file")
            self._spend(BLOCK)
            count, more = count + BLOCK, extension[504]
        return count


def _sums(block: bytes) -> bool:
    try:
        said = _number(block[148:156])
    except FormatError:
        return False
    unsigned = sum(block) - sum(block[148:156]) + 8 * 32
    return said in (unsigned, unsigned - 256 * sum(byte > 127 for byte in block[:148] + block[156:]))


def _number(field: bytes) -> int:
    """A header's number: octal digits, or, of great ones, the bytes themselves after a first bit that is set."""
    if field[0] & 0x80:
        value = int.from_bytes(field, "big") & ((1 << (8 * len(field) - 1)) - 1)
        return value - (1 << (8 * len(field) - 1)) if field[0] == 0xFF else value
    text = field.split(b"\0", 1)[0].strip()
    if text.strip(b"01234567"):
        raise FormatError("A header of the archive has letters where a number should be.")
    return int(text or b"0", 8)


def _decimal(text: bytes | None, field: bytes = b"0") -> int:
    """An extended header's number, fractions cut off; where there is none, the header's own."""
    if text is None:
        return _number(field)
    found = re.match(rb"(-?[0-9]{1,20})(?:\.[0-9]*)?\Z", text)
    if found is None:
        raise FormatError("An extended header of the archive has letters where a number should be.")
    return int(found.group(1))


def _text(field: bytes) -> bytes:
    return field.split(b"\0", 1)[0]


def _padded(size: int) -> int:
    return -(-size // BLOCK) * BLOCK


def _records(data: bytes) -> list[tuple[bytes, bytes]]:
    """'<length> <key>=<value>\\n' again and again; GNU's sparse maps repeat their keys."""
    records, at = [], 0
    while at < len(data) and data[at:at + 1] != b"\0":
        found = _RECORD.match(data, at)
        record = data[found.end():at + int(found.group(1))] if found else b""
        key, equals, value = record[:-1].partition(b"=")
        if found is None or not equals or record[-1:] != b"\n" or at + int(found.group(1)) > len(data):
            raise FormatError("An extended header of the archive is broken.")
        records.append((key, value))
        at += int(found.group(1))
    return records
