"""Reading a tar stream that may come from an enemy: members one by one, everything bounded and checked.

Formats: POSIX.1-2001 ustar and pax, and GNU's extensions (tar 1.34 manual, appendix "Tar Internals"): long names,
base-256 numbers, files with holes in the old form (``S``) and as pax 0.0, 0.1 and 1.0.
"""

from __future__ import annotations

import re
from array import array
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from gitian.errors import OutputError

_PIECE = 2**20
_BLOCK = 512
_EXTENDED_LIMIT = 2**20  # bytes of one extended header or long name
_SEGMENTS_LIMIT = 2**20  # runs of data in one sparse file
_TIME_LIMIT = 2**55  # seconds; what time_t and nanoseconds after it can hold
_FILE_KINDS = {b"0": "file", b"\0": "file", b"7": "file", b"S": "file", b"5": "directory", b"1": "link",
               b"2": "symlink"}
_REFUSED_KINDS = {b"3": "a character device", b"4": "a block device", b"6": "a FIFO"}
_TIME = re.compile(rb"(-?)(\d{1,17})(?:\.(\d*))?\Z")


@dataclass(frozen=True, slots=True, kw_only=True)
class Member:
    """One member. ``kind`` is file, directory, link or symlink.

    ``mtime`` is in nanoseconds; ``size`` as a reader of the file sees it, ``stored`` as it lies in the stream;
    ``segments`` holds offset and length of each run of data, in turn, of a file with holes.
    """

    name: bytes
    kind: str
    mode: int
    mtime: int
    size: int
    stored: int
    target: bytes
    segments: array[int] | None


def refused(name: bytes, why: str) -> OutputError:
    """The error for a member that is not accepted."""
    return OutputError(f"The archive was refused: '{name.decode(errors='backslashreplace')}' {why}.")


def broken(why: str) -> OutputError:
    """The error for a stream that is no tar, or is cut short."""
    return OutputError(f"The archive cannot be read: {why}.")


class TarStream:
    """The members of a tar stream; after each, its content by :meth:`content` (what is not taken is skipped)."""

    def __init__(self, read: Callable[[int], bytes]) -> None:
        self._read = read
        self._buffer = b""
        self._at = 0
        self._left = 0  # of the current member's stored bytes
        self._padding = 0

    def members(self) -> Iterator[Member]:
        """All members, to the end of the archive; then the stream is read to its end, which must be near and zero.

        Raises OutputError.
        """
        extended: dict[bytes, bytes] = {}
        holes: list[tuple[bytes, bytes]] = []
        standing: dict[bytes, bytes] = {}
        long_name = long_target = None
        while True:
            block = self._exactly(_BLOCK)
            if not block.strip(b"\0"):
                break
            _check_sum(block)
            kind = block[156:157]
            size = _parse(block[124:136])
            if kind in b"xgXLK":
                body = self._extension(size)
                if kind == b"L":
                    long_name = body.rstrip(b"\0")
                elif kind == b"K":
                    long_target = body.rstrip(b"\0")
                elif kind == b"g":
                    standing.update(_records(body)[0])
                else:
                    extended, holes = _records(body)
                continue
            yield self._member(block, kind, size, {**standing, **extended}, holes, long_name, long_target)
            for _ in self.content():
                pass
            self._skip_padding()
            extended, holes, long_name, long_target = {}, [], None, None
        if extended or holes or long_name is not None or long_target is not None:
            raise broken("a header that belongs to a member stands alone at its end")
        self._finish()

    def content(self) -> Iterator[bytes]:
        """The current member's stored bytes, in pieces of at most 1 MiB."""
        while self._left:
            piece = self._some(min(self._left, _PIECE))
            self._left -= len(piece)
            yield piece

    def _member(self, block: bytes, kind: bytes, stored: int, extended: dict[bytes, bytes],
                holes: list[tuple[bytes, bytes]], long_name: bytes | None, long_target: bytes | None) -> Member:
        name = block[:100].partition(b"\0")[0]
        if block[257:263] == b"ustar\0" and (prefix := block[345:500].partition(b"\0")[0]):
            name = prefix + b"/" + name
        name = extended.get(b"GNU.sparse.name") or extended.get(b"path") or long_name or name
        target = extended.get(b"linkpath") or long_target or block[157:257].partition(b"\0")[0]
        if kind in _REFUSED_KINDS:
            raise refused(name, f"is {_REFUSED_KINDS[kind]}")
        if kind not in _FILE_KINDS:
            raise refused(name, f"is of a kind that is not accepted ({kind!r})")
        what = _FILE_KINDS[kind]
        if what == "file" and name.endswith(b"/"):
            what = "directory"
        if b"size" in extended:
            stored = _decimal(extended[b"size"])
        if what != "file" and stored:
            # Readers disagree whether content follows then; nothing that writes archives in earnest does this.
            raise refused(name, "has a size and is not a file")
        self._left, self._padding = stored, -stored % _BLOCK
        size, segments = stored, None
        if what == "file":
            if kind == b"S":
                size, segments = self._old_sparse(block)
            elif any(key.startswith(b"GNU.sparse.") for key in extended) or holes:
                size, segments = self._pax_sparse(extended, holes, stored)
            if segments is not None:
                _check_segments(name, segments, size, self._left)
        if not 0 <= size < 2**63:
            raise refused(name, "has an impossible size")
        mtime = _time(extended[b"mtime"]) if b"mtime" in extended else _bounded(_parse(block[136:148])) * 10**9
        return Member(name=name, kind=what, mode=_parse(block[100:108]) & 0o777, mtime=mtime, size=size,
                      stored=self._left, target=target, segments=segments)

    # sparse files

    def _old_sparse(self, block: bytes) -> tuple[int, array[int]]:
        segments: array[int] = array("Q")
        size = _parse(block[483:495])
        place, count, more = block[386:482], 4, block[482]
        while True:
            for start in range(0, count * 24, 24):
                entry = place[start:start + 24]
                if not entry[0]:
                    break
                _append(segments, _parse(entry[:12]), _parse(entry[12:]))
            if not more:
                return size, segments
            block = self._exactly(_BLOCK)
            place, count, more = block[:504], 21, block[504]

    def _pax_sparse(self, extended: dict[bytes, bytes], holes: list[tuple[bytes, bytes]],
                    stored: int) -> tuple[int, array[int]]:
        segments: array[int] = array("Q")
        size = _decimal(extended.get(b"GNU.sparse.realsize") or extended.get(b"GNU.sparse.size") or b"x")
        if extended.get(b"GNU.sparse.major") == b"1":
            self._map_in_content(segments)
            return size, segments
        if b"GNU.sparse.map" in extended:
            numbers = [_decimal(text) for text in extended[b"GNU.sparse.map"].split(b",") if text]
        else:
            numbers = []
            for place, (key, value) in enumerate(holes):
                if key != (b"GNU.sparse.offset", b"GNU.sparse.numbytes")[place % 2]:
                    raise broken("a map of holes is in disorder")
                numbers.append(_decimal(value))
        if len(numbers) % 2:
            raise broken("a map of holes is cut short")
        for place in range(0, len(numbers), 2):
            _append(segments, numbers[place], numbers[place + 1])
        return size, segments

    def _map_in_content(self, segments: array[int]) -> None:
        """Version 1.0: the content starts with the map: decimal numbers, a newline after each, in whole blocks."""
        text = b""
        count: int | None = None
        offset: int | None = None
        while count is None or len(segments) < 2 * count:
            if self._left < _BLOCK or len(text) > _BLOCK:
                raise broken("a map of holes is in disorder")
            self._left -= _BLOCK
            *lines, text = (text + self._exactly(_BLOCK)).split(b"\n")
            for line in lines:
                if count is None:
                    count = _decimal(line)
                elif len(segments) == 2 * count:
                    break  # a newline in what fills the last block
                elif offset is None:
                    offset = _decimal(line)
                else:
                    _append(segments, offset, _decimal(line))
                    offset = None

    # bytes

    def _extension(self, size: int) -> bytes:
        if not 0 <= size <= _EXTENDED_LIMIT:
            raise broken("an extended header is too large")
        body = self._exactly(size)
        self._exactly(-size % _BLOCK)
        return body

    def _skip_padding(self) -> None:
        self._exactly(self._padding)
        self._padding = 0

    def _more(self) -> bytes:
        try:
            return self._read(_PIECE)
        except OSError as error:
            raise broken(f"the stream broke ({error.strerror or error})") from error

    def _exactly(self, size: int) -> bytes:
        end = self._at + size
        while len(self._buffer) < end:
            data = self._more()
            if not data:
                raise broken("it ends too early")
            self._buffer = self._buffer[self._at:] + data
            self._at, end = 0, size
        piece = self._buffer[self._at:end]
        self._at = end
        return piece

    def _some(self, size: int) -> bytes:
        if self._at >= len(self._buffer):
            self._buffer, self._at = self._more(), 0
            if not self._buffer:
                raise broken("it ends too early")
            if len(self._buffer) <= size:
                piece, self._buffer = self._buffer, b""
                return piece
        piece = self._buffer[self._at:self._at + size]
        self._at += len(piece)
        return piece

    def _finish(self) -> None:
        if self._exactly(_BLOCK).strip(b"\0"):
            raise broken("something follows its end")
        # Padding up to a whole record (10 KiB; up to 1 MiB with a large blocking factor). Who sends must get rid of it.
        rest = self._buffer[self._at:]
        seen = 0
        while rest:
            seen += len(rest)
            if seen > 4 * _PIECE or rest.strip(b"\0"):
                raise broken("something follows its end")
            rest = self._more()


def _check_sum(block: bytes) -> None:
    if sum(block) - sum(block[148:156]) + 8 * 0x20 != _parse(block[148:156]):
        raise broken("a header's checksum is wrong")


def _parse(field: bytes) -> int:
    """A number in a header: octal digits among blanks, or base 256 when the first bit is set."""
    if field[0] & 0x80:
        if field[0] == 0xFF:
            return int.from_bytes(field, "big", signed=True)
        return int.from_bytes(bytes([field[0] & 0x7F]) + field[1:], "big")
    text = field.strip(b" \0")
    if not text:
        return 0
    try:
        if text.isdigit():
            return int(text, 8)
    except ValueError:
        pass
    raise broken("a header holds no number where one must be")


def _decimal(text: bytes) -> int:
    if not text.isdigit() or len(text) > 19:
        raise broken("an extended header holds no number where one must be")
    return int(text)


def _bounded(seconds: int) -> int:
    return max(-_TIME_LIMIT, min(_TIME_LIMIT, seconds))


def _time(text: bytes) -> int:
    """Nanoseconds of a time in an extended header ('1700000000.5')."""
    match = _TIME.match(text)
    if match is None:
        raise broken("an extended header holds no time where one must be")
    sign, seconds, fraction = match.groups()
    value = min(int(seconds), _TIME_LIMIT) * 10**9 + int((fraction or b"")[:9].ljust(9, b"0"))
    return -value if sign else value


def _records(body: bytes) -> tuple[dict[bytes, bytes], list[tuple[bytes, bytes]]]:
    """An extended header's records, ``<length> <key>=<value>\\n``; and those of sparse 0.0, whose keys repeat."""
    found: dict[bytes, bytes] = {}
    holes: list[tuple[bytes, bytes]] = []
    at = 0
    while at < len(body) and body[at] != 0:
        space = body.find(b" ", at, at + 21)
        length = _decimal(body[at:space]) if space > at else 0
        record = body[space + 1:at + length]
        key, equals, value = record[:-1].partition(b"=")
        if length < 5 or at + length > len(body) or record[-1:] != b"\n" or not equals:
            raise broken("an extended header is in disorder")
        if key in (b"GNU.sparse.offset", b"GNU.sparse.numbytes"):
            holes.append((key, value))
        else:
            found[key] = value
        at += length
    return found, holes


def _append(segments: array[int], offset: int, length: int) -> None:
    if not (0 <= offset < 2**63 and 0 <= length < 2**63):
        raise broken("a map of holes is in disorder")
    if len(segments) >= 2 * _SEGMENTS_LIMIT:
        raise broken("a file has too many holes")
    segments.append(offset)
    segments.append(length)


def _check_segments(name: bytes, segments: array[int], size: int, stored: int) -> None:
    end = total = 0
    for place in range(0, len(segments), 2):
        offset, length = segments[place], segments[place + 1]
        if offset < end:
            raise refused(name, "has a map of holes in disorder")
        end = offset + length
        total += length
    if end > size or total != stored:
        raise refused(name, "has a map of holes that does not fit its size")
