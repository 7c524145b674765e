"""What every format needs: the settings, the bounds, and careful reading and copying.

This room also runs inside guests, as one file that 'gitian canon --script' writes: it uses the standard library and
gitian.errors alone, and the language of Python 3.7 (hence named tuples in place of dataclasses with slots).
"""

from __future__ import annotations

import calendar
import datetime
import re
from collections.abc import Callable
from typing import IO, NamedTuple

from gitian.errors import FormatError, UsageError

#: What a user may want to keep as it stands.
KEEPABLE = ("times", "order", "owners", "modes")
#: Where neither --date nor SOURCE_DATE_EPOCH says when: 1980-01-01, the earliest that every format can hold.
DEFAULT_DATE = 315532800
#: The latest: 2107-12-31 23:59:58, the last that a zip file can hold.
LAST_DATE = 4354819198

#: What a compressed file may grow to unless the user says otherwise (bytes), and how many times its own size it may
#: become once it is larger than SMALL. Source code compresses tenfold, logs fiftyfold, bombs a thousandfold.
SIZE_LIMIT = 16 * 2**30
SMALL = 256 * 2**20
RATIO = 250
#: An archive of more members, or with more names and headers than this many bytes, is no honest archive.
MEMBER_LIMIT = 2_000_000
HEADER_LIMIT = 256 * 2**20

PIECE = 2**20


class Settings(NamedTuple):
    """How to make archives canonical.

    ``date``: seconds since 1970 that all times become. ``keep``: of KEEPABLE, what stays as it is. ``limit``: bytes
    that a compressed file may grow to; None means SIZE_LIMIT, and no more than RATIO times its size. ``zstd``: runs
    that program with the arguments, the file as standard input and what it says given to the function.
    """

    date: int = DEFAULT_DATE
    keep: frozenset[str] = frozenset()
    limit: int | None = None
    zstd: Callable[[list[str], IO[bytes], Callable[[bytes], object]], None] | None = None


def parse_date(text: str) -> int:
    """Seconds since 1970 of '1700000000', '@1700000000', '2011-01-30' or '2011-01-30 12:00:00' (UTC; also with a 'T'
    between and a 'Z' behind). Raises UsageError."""
    text = text.strip()
    if re.match(r"@?[0-9]{1,12}\Z", text):
        seconds = int(text.lstrip("@"))
    else:
        found = re.match(r"(\d{4})-(\d\d?)-(\d\d?)(?:[ T](\d\d?):(\d\d)(?::(\d\d))?Z?)?\Z", text, re.ASCII)
        try:
            if found is None:
                raise ValueError
            year, month, day, hour, minute, second = (int(group or 0) for group in found.groups())
            seconds = calendar.timegm(datetime.datetime(year, month, day, hour, minute, second).timetuple())
        except ValueError:
            raise UsageError(f"'{text}' is not a date.", hint="Write it as 2011-01-30, as '2011-01-30 12:00:00' (UTC), "
                                                              "or in seconds since 1970.") from None
    if not 0 <= seconds <= LAST_DATE:
        raise UsageError(f"'{text}' is a date that archives cannot hold.", hint="Give one from 1970 to 2107.")
    return seconds


class Bounded:
    """Passes bytes on and counts them; raises FormatError when they become more than the settings allow."""

    def __init__(self, write: Callable[[bytes], object], settings: Settings, compressed: int) -> None:
        self.forward, self.settings, self.compressed, self.count = write, settings, compressed, 0

    def write(self, data: bytes) -> None:
        self.count += len(data)
        limit = SIZE_LIMIT if self.settings.limit is None else self.settings.limit
        bomb = self.settings.limit is None and self.count > max(SMALL, RATIO * self.compressed)
        if self.count > limit or bomb:
            why = f"{RATIO} times its size" if bomb and self.count <= limit else f"{limit} bytes"
            raise FormatError(f"The file holds more than {why} when it is decompressed, so it is left alone.",
                              hint="If it is no bomb, allow it so many bytes with --limit.")
        self.forward(data)


def read_exactly(source: IO[bytes], count: int, what: str) -> bytes:
    """So many bytes. Raises FormatError where the file ends before."""
    data = source.read(count)
    if len(data) != count:
        raise FormatError(f"The file ends within {what}.", hint="It was cut off; make or fetch it again.")
    return data


def copy(source: IO[bytes], offset: int, count: int, write: Callable[[bytes], object]) -> None:
    """Copy a part of a file. Raises FormatError where it ends before."""
    source.seek(offset)
    while count:
        data = read_exactly(source, min(count, PIECE), "a member")
        write(data)
        count -= len(data)


def size_of(source: IO[bytes]) -> int:
    """The size of a file (bytes)."""
    return source.seek(0, 2)
