"""Write cpio archives in the "newc" format, the one that the kernel unpacks as an initial RAM disk.

Source of the format: Documentation/driver-api/early-userspace/buffer-format.rst of the kernel. The same entries always
give the same bytes: everything belongs to root, times are 0, entries are sorted by name.
"""

from __future__ import annotations

import stat
from collections.abc import Iterable
from dataclasses import dataclass

_MAGIC = b"070701"
_TRAILER = "TRAILER!!!"
#: Archives that follow each other must start on a multiple of four; whole sectors are customary.
_RECORD = 512


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One file: ``name`` relative to the root without a leading slash; ``mode`` as in stat(2), with the file type."""

    name: str
    mode: int
    data: bytes = b""


def file(name: str, data: bytes, mode: int = 0o644) -> Entry:
    """A regular file."""
    return Entry(name=name, mode=stat.S_IFREG | mode, data=data)


def directory(name: str, mode: int = 0o755) -> Entry:
    """A directory."""
    return Entry(name=name, mode=stat.S_IFDIR | mode)


def symlink(name: str, target: str) -> Entry:
    """A symbolic link to ``target``."""
    return Entry(name=name, mode=stat.S_IFLNK | 0o777, data=target.encode())


def pack(entries: Iterable[Entry]) -> bytes:
    """The archive's bytes. Parent directories that are not given are added, since the kernel does not make them.

    Raises ValueError for two entries of one name, and for a name that is empty, absolute or holds '.', '..' or NUL.
    """
    named: dict[str, Entry] = {}
    for entry in entries:
        _check(entry.name)
        if entry.name in named:
            raise ValueError(f"the archive has two entries named '{entry.name}'")
        named[entry.name] = entry
    for name in list(named):
        parts = name.split("/")[:-1]
        for depth in range(1, len(parts) + 1):
            parent = "/".join(parts[:depth])
            named.setdefault(parent, directory(parent))
    pieces: list[bytes] = []
    for number, name in enumerate(sorted(named), start=1):
        pieces += _record(named[name], number)
    pieces += _record(Entry(name=_TRAILER, mode=0), 0)
    size = sum(map(len, pieces))
    pieces.append(b"\0" * (-size % _RECORD))
    return b"".join(pieces)


def _check(name: str) -> None:
    if any(part in ("", ".", "..") for part in name.split("/")) or "\0" in name:
        raise ValueError(f"'{name}' is no name for an entry of an archive")
    if name == _TRAILER:
        raise ValueError(f"'{name}' marks the end of an archive")


def _record(entry: Entry, number: int) -> list[bytes]:
    name = entry.name.encode() + b"\0"
    links = 2 if stat.S_ISDIR(entry.mode) else 1
    # inode, mode, uid, gid, links, mtime, size, device (major, minor), its own device (major, minor), name, checksum
    fields = (number, entry.mode, 0, 0, links, 0, len(entry.data), 0, 0, 0, 0, len(name), 0)
    header = _MAGIC + b"".join(b"%08X" % value for value in fields) + name
    return [header, b"\0" * (-len(header) % 4), entry.data, b"\0" * (-len(entry.data) % 4)]
