"""Ar archives (static libraries, Debian packages): one date, no owners, plain modes, in place.

Order and sizes stay: a library's table of symbols counts bytes, and a package's members have their order. Format:
ar(5), in GNU's and BSD's dialects.
"""

from __future__ import annotations

import re
from typing import IO

from gitian.canon.model import MEMBER_LIMIT, Settings, copy, read_exactly, size_of
from gitian.errors import FormatError

MAGIC, THIN = b"!<arch>\n", b"!<thin>\n"
_HEADER = 60
#: GNU's table of symbols, whose date 'ar -D' writes as 0, and table of names, which has none.
_SYMBOLS, _NAMES = (b"/", b"/SYM64/"), b"//"


def write_canonical_ar(source: IO[bytes], target: IO[bytes], settings: Settings) -> None:
    """Write ``source`` in canonical form. Raises FormatError: broken, cut off, or thin."""
    end = size_of(source)
    source.seek(0)
    if source.read(len(MAGIC)) != MAGIC:
        raise FormatError("This is a thin archive, which only names its members.", hint="Make a whole one: ar rcD.")
    target.write(MAGIC)
    at = len(MAGIC)
    for _ in range(MEMBER_LIMIT):
        if at >= end:
            return
        source.seek(at)
        header = read_exactly(source, _HEADER, "the header of a member")
        size = header[48:58].rstrip(b" ")
        if header[58:] != b"`\n" or not re.match(rb"[0-9]{1,10}\Z", size):
            raise FormatError(f"The header of the member at byte {at} is broken.")
        target.write(_normalised(header, settings))
        copy(source, at + _HEADER, int(size), target.write)
        at += _HEADER + int(size)
        if at % 2 and at <= end:
            at += 1
            target.write(b"\n")
    raise FormatError(f"The archive has more than {MEMBER_LIMIT} members.")


def _normalised(header: bytes, settings: Settings) -> bytes:
    name = header[:16].rstrip(b" ")
    if name == _NAMES:
        return header
    meta = name in _SYMBOLS
    date = header[16:28] if "times" in settings.keep else b"%-12d" % (0 if meta else settings.date)
    owners = header[28:40] if "owners" in settings.keep else b"%-6d%-6d" % (0, 0)
    mode = header[40:48] if "modes" in settings.keep else b"%-8s" % (b"0" if meta else b"100644")
    return header[:16] + date + owners + mode + header[48:]
