"""The classic's canon-zip: one date for every member, everything else as it stands.

Its outcome depends on Python's zip library, because the classic's does: the members are deflated again by it. What the
classic leaves in extra fields, times and owners above all, would make two builds differ, and is dropped.
"""

from __future__ import annotations

import struct
import zipfile
import zlib
from datetime import datetime
from pathlib import Path
from typing import IO

from gitian.canon import archive
from gitian.canon.model import PIECE, Bounded, Settings
from gitian.errors import FormatError, UsageError

#: Extended timestamps, NTFS times, and the owners of Unix, old and new (APPNOTE 4.5 and Info-ZIP's extrafld.txt).
_ACCIDENTS = (0x5455, 0x000A, 0x5855, 0x7855, 0x7875, 0x000D)


def parse_day(text: str) -> tuple[int, int, int]:
    """Year, month and day of 'YYYY-MM-DD'. Raises UsageError."""
    try:
        day = datetime.strptime(text, "%Y-%m-%d")
    except ValueError:
        raise UsageError(f"'{text}' is not a date.", hint="Write it as YYYY-MM-DD.") from None
    if not 1980 <= day.year <= 2107:
        raise UsageError(f"A zip file cannot hold the year {day.year}.", hint="Give one from 1980 to 2107.")
    return day.year, day.month, day.day


def canon_zip(day: tuple[int, int, int], source: Path, target: Path) -> None:
    """Write ``source`` to ``target`` with the date of every member set. Raises FormatError, InputError, HostError."""
    archive.replace_by(source, target, lambda opened, written: _write(day, opened, written))


def _write(day: tuple[int, int, int], source: IO[bytes], target: IO[bytes]) -> None:
    try:
        with zipfile.ZipFile(source) as old, zipfile.ZipFile(target, "w") as new:
            total = Bounded(lambda data: None, Settings(), sum(info.compress_size for info in old.infolist()))
            for info in old.infolist():
                if info.flag_bits & 1:
                    raise FormatError(f"The member '{info.filename}' is encrypted.")
                with old.open(info) as reader:
                    stamped = _stamped(info, day)
                    with new.open(stamped, "w") as writer:
                        for data in iter(lambda: reader.read(PIECE), b""):
                            total.write(data)
                            writer.write(data)
    except (zipfile.BadZipFile, zipfile.LargeZipFile, NotImplementedError, zlib.error, EOFError, struct.error,
            ValueError, RuntimeError) as error:
        raise FormatError(f"it is no zip archive that can be read: {error}.") from error


def _stamped(info: zipfile.ZipInfo, day: tuple[int, int, int]) -> zipfile.ZipInfo:
    """The same member, with the date."""
    new = zipfile.ZipInfo(info.filename, (*day, 0, 0, 0))
    for name in ("compress_type", "comment", "create_system", "create_version", "extract_version", "reserved", "volume",
                 "internal_attr", "external_attr", "file_size"):
        setattr(new, name, getattr(info, name))
    extra, at = b"", 0
    while at + 4 <= len(info.extra):
        kind, length = struct.unpack_from("<2H", info.extra, at)
        if kind not in _ACCIDENTS:
            extra += info.extra[at:at + 4 + length]
        at += 4 + length
    new.extra = extra
    return new
