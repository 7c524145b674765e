"""Where in a program, picture or compiled module an offset lies: its sections, chunks and fields, by small readers.

Formats: ELF-64/32 Object File Format (System V gABI, chapter 4), Microsoft's PE and COFF specification, PNG (ISO/IEC
15948, 5.3) and PEP 552. A table that is broken, or hostile, gives fewer sections, never an error.
"""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass

from gitian.vary.contents import Blob, Budget

_SECTIONS_LIMIT = 5000
_COMPRESSED_FLAG, _NOBITS = 0x800, 8

#: Sections whose bytes are made from all the others'.
IDENTITY = frozenset((".note.gnu.build-id", ".note.go.buildid", ".go.buildid", ".gnu_debuglink"))
#: Regions that hold addresses, sizes and offsets: they change when anything else moves.
MOVED = frozenset((
    "header", "program headers", "section headers", "padding", ".text", ".plt", ".plt.got", ".plt.sec", ".eh_frame",
    ".eh_frame_hdr", ".symtab", ".dynsym", ".dynamic", ".hash", ".gnu.hash", ".gnu.version", ".gnu.version_r", ".got",
    ".got.plt", ".init_array", ".fini_array", ".data.rel.ro", ".init", ".fini", ".debug_info", ".debug_aranges",
    ".debug_line", ".debug_abbrev", ".debug_ranges", ".debug_rnglists", ".debug_loc", ".debug_loclists",
    ".debug_str_offsets", ".debug_addr", ".debug_frame", ".strtab", ".shstrtab", ".reloc", ".pdata", ".xdata"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Region:
    """A named part of a file. ``meaning`` is 'time' for a field that is known to hold one; ``packed`` how many bytes of
    header stand before zlib-compressed content (0: it is not compressed)."""

    name: str
    start: int
    size: int
    meaning: str | None = None
    packed: int = 0


def regions(blob: Blob, kind: str) -> tuple[Region, ...]:
    """The regions of a file in the order of their places; names are unique. () when it is of no known kind."""
    readers = {"elf": _elf, "pe": _pe, "png": _png, "pyc": _pyc}
    if kind not in readers:
        return ()
    try:
        found = readers[kind](blob)
    except (struct.error, IndexError, OverflowError):
        return ()
    return _complete(found, blob.size)


def content(blob: Blob, region: Region, budget: Budget) -> Blob:
    """What a region holds, decompressed when it is compressed and sound. Raises TooMuchError."""
    from io import BytesIO

    part = blob.part(region.start, region.size)
    if not region.packed:
        return part
    plain, unpacker = BytesIO(), zlib.decompressobj()
    try:
        for piece in part.part(region.packed, part.size).pieces():
            data = unpacker.decompress(piece, 2**20)
            while data:
                budget.take_bytes(len(data))
                plain.write(data)
                data = unpacker.decompress(unpacker.unconsumed_tail, 2**20)
    except zlib.error:
        return part
    return Blob(plain)


def _complete(found: list[Region], size: int) -> tuple[Region, ...]:
    """Sorted, cut where they overlap, what lies between named 'padding', names made unique."""
    whole: list[Region] = []
    counts: dict[str, int] = {}
    at = 0

    def add(region: Region, start: int, end: int) -> None:
        count = counts[region.name] = counts.get(region.name, 0) + 1
        name = region.name if count == 1 else f"{region.name}#{count}"
        whole.append(Region(name=name, start=start, size=end - start, meaning=region.meaning,
                            packed=region.packed if start == region.start else 0))

    for region in sorted(found[:_SECTIONS_LIMIT], key=lambda region: (region.start, -region.size)):
        start, end = max(region.start, at), min(region.start + region.size, size)
        if end <= start:
            continue
        if start > at:
            add(Region(name="padding", start=at, size=0), at, start)
        add(region, start, end)
        at = end
    if at < size:
        add(Region(name="padding" if whole else "content", start=at, size=0), at, size)
    return tuple(whole)


def _printable(name: bytes) -> str:
    return name[:200].decode("ascii", "backslashreplace")


def _elf(blob: Blob) -> list[Region]:
    head = blob.read(0, 64)
    wide, order = head[4] == 2, "<" if head[5] == 1 else ">"
    if wide:
        phoff, shoff, _, ehsize, phentsize, phnum, shentsize, shnum, shstrndx = struct.unpack_from(
            order + "2QI6H", head, 32)
        shape = struct.Struct(order + "2I4Q2I2Q")
    else:
        phoff, shoff, _, ehsize, phentsize, phnum, shentsize, shnum, shstrndx = struct.unpack_from(
            order + "3I6H", head, 28)
        shape = struct.Struct(order + "10I")
    found = [Region(name="header", start=0, size=ehsize),
             Region(name="program headers", start=phoff, size=phentsize * phnum)]
    if shentsize != shape.size or not shoff:
        return found
    table = blob.read(shoff, min(shnum, _SECTIONS_LIMIT) * shentsize)
    rows = [shape.unpack_from(table, at) for at in range(0, len(table) - shentsize + 1, shentsize)]
    names = blob.read(rows[shstrndx][4], min(rows[shstrndx][5], 2**20)) if shstrndx < len(rows) else b""
    found.append(Region(name="section headers", start=shoff, size=shentsize * shnum))
    for row in rows:
        name, kind, flags, _, offset, size = row[:6]
        if kind in (0, _NOBITS) or not size:
            continue
        packed = 0
        if flags & _COMPRESSED_FLAG:
            length = 24 if wide else 12
            if struct.unpack(order + "I", blob.read(offset, 4))[0] == 1:
                packed = length
        text = _printable(names[name:names.find(b"\0", name)]) if name < len(names) else ""
        found.append(Region(name=text or "section without a name", start=offset, size=size, packed=packed))
    return found


def _pe(blob: Blob) -> list[Region]:
    at = int.from_bytes(blob.read(60, 4), "little")
    _, count, _, _, _, optional, _ = struct.unpack("<2H3I2H", blob.read(at + 4, 20))
    table = at + 24 + optional
    found = [Region(name="DOS header", start=0, size=at), Region(name="header", start=at, size=8),
             Region(name="time in the header", start=at + 8, size=4, meaning="time"),
             Region(name="header", start=at + 12, size=table - at - 12),
             Region(name="section headers", start=table, size=40 * count)]
    for number in range(min(count, 96)):
        row = blob.read(table + 40 * number, 40)
        size, offset = struct.unpack_from("<2I", row, 16)
        found.append(Region(name=_printable(row[:8].rstrip(b"\0")), start=offset, size=size))
    # The checksum of the optional header is over everything.
    found.append(Region(name="checksum in the header", start=at + 24 + 64, size=4, meaning="checksum"))
    return _split(found)


def _split(found: list[Region]) -> list[Region]:
    """A field cuts the header around it in two."""
    fields = [region for region in found if region.meaning]
    whole = list(fields)
    for region in found:
        if region.meaning:
            continue
        start, end = region.start, region.start + region.size
        for field in sorted(fields, key=lambda field: field.start):
            if start < field.start < end:
                whole.append(Region(name=region.name, start=start, size=field.start - start))
                start = field.start + field.size
        whole.append(Region(name=region.name, start=start, size=end - start))
    return whole


def _png(blob: Blob) -> list[Region]:
    found, at = [Region(name="header", start=0, size=8)], 8
    while at + 12 <= blob.size and len(found) < _SECTIONS_LIMIT:
        size, kind = struct.unpack(">I4s", blob.read(at, 8))
        found.append(Region(name=f"chunk {_printable(kind)}", start=at, size=size + 8,
                            meaning="time" if kind == b"tIME" else None))
        found.append(Region(name=f"checksum of chunk {_printable(kind)}", start=at + 8 + size, size=4,
                            meaning="checksum"))
        at += size + 12
    return found


def _pyc(blob: Blob) -> list[Region]:
    checked_by_hash = blob.read(4, 1)[0] & 1
    stamp = Region(name="hash of the source", start=8, size=8, meaning="checksum") if checked_by_hash else Region(
        name="time of the source", start=8, size=4, meaning="time")
    found = [Region(name="header", start=0, size=8), stamp, Region(name="code", start=16, size=blob.size - 16)]
    if not checked_by_hash:
        found.insert(2, Region(name="size of the source", start=12, size=4))
    return found
