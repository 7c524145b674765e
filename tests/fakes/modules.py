"""Kernel modules with nothing in them but what they say about themselves."""

from __future__ import annotations

import struct


def module(*texts: str, wide: bool = True) -> bytes:
    """An ELF file with the section ``.modinfo``, of 64 or 32 bits (System V ABI, chapter 4)."""
    modinfo = b"".join(text.encode() + b"\0" for text in texts)
    names = b"\0.modinfo\0.shstrtab\0"
    head = 64 if wide else 52
    table = head + len(modinfo) + len(names)

    def section(name: int, kind: int, offset: int, size: int) -> bytes:
        if wide:
            return struct.pack("<IIQQQQIIQQ", name, kind, 0, 0, offset, size, 0, 0, 1, 0)
        return struct.pack("<IIIIIIIIII", name, kind, 0, 0, offset, size, 0, 0, 1, 0)

    sections = [section(0, 0, 0, 0), section(1, 1, head, len(modinfo)), section(10, 3, head + len(modinfo), len(names))]
    ident = b"\x7fELF" + bytes([2 if wide else 1, 1, 1]) + bytes(9)
    if wide:
        header = struct.pack("<HHIQQQIHHHHHH", 1, 62, 1, 0, 0, table, 0, 64, 0, 0, 64, 3, 2)
    else:
        header = struct.pack("<HHIIIIIHHHHHH", 1, 3, 1, 0, 0, table, 0, 52, 0, 0, 40, 3, 2)
    return ident + header + modinfo + names + b"".join(sections)
