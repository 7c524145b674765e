"""The Packages files of an archive whoever has signed them, and whenever: what they lead to is checked by its hash.

They are fetched without apt, which would follow a redirection, or a name, to this machine's own services. The layout
is Debian's (wiki page 'DebianRepository/Format').
"""

from __future__ import annotations

import bz2
import contextlib
import gzip
import lzma
import os
import re
import stat
import zlib
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, cast

from gitian.errors import FetchError
from gitian.host.space import writing
from gitian.host.web import Client, Refused
from gitian.images.sources import Source

#: A Release file is no larger than this (bytes); the largest ones have 300 kB.
_RELEASE = 2**24
#: Nor an index as it is fetched, packed or not: Debian's main archive has 9 MB, or 50.
_PACKED = 2**27
#: Nor what all the indices of one source and architecture come to.
_UNPACKED = 2**31
#: What unpacking may take of the memory; xz -9 takes 65 MiB.
_MEMORY = 2**28

_PIECE = 2**20
_ENDINGS = (".xz", ".gz", ".bz2", "")
_LISTED = re.compile(r"^ [0-9a-f]{32,128} +[0-9]+ +(\S+)\r?$", re.MULTILINE)
_FOR_ALL = re.compile(r"^Architectures:[^\n]*\ball\b", re.MULTILINE)
_NOT_FOR_ALL = re.compile(r"^No-Support-for-Architecture-all: *Packages\b", re.MULTILINE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Asker:
    """How servers are asked: over ``client``, and only inside of ``asking`` the URL, which may raise Refused."""

    client: Client
    asking: Callable[[str], AbstractContextManager[None]]


def fetch(source: Source, arch: str, scratch: Path, asker: Asker) -> list[Path]:
    """The Packages files of a source for one architecture, unpacked, in the new directory ``scratch``.

    Raises FetchError: none can be had; HostError: there is no room for them.
    """
    scratch.mkdir(parents=True)
    place = _Place(source=source, scratch=scratch, asker=asker)
    listed, for_all = place.listed()
    if source.suite.endswith("/"):  # a flat archive
        stems = ["Packages"]
    else:
        stems = [f"{component}/binary-{architecture}/Packages" for component in dict.fromkeys(source.components)
                 for architecture in (arch, *(["all"] if for_all else []))]
    found: list[Path] = []
    why = ""
    for stem in stems:
        for ending in _ENDINGS:
            if listed is not None and stem + ending not in listed:
                continue
            path = scratch / f"{len(found)}_Packages"
            try:
                place.unpacked(stem, ending, path, _UNPACKED - sum(one.stat().st_size for one in found))
            except Refused as error:
                path.unlink(missing_ok=True)
                if error.silent:  # nor will it answer the next time
                    raise FetchError(f"{error}.") from error
                why = f"'{stem + ending}': {error}."
            else:
                found.append(path)
                break
    if why and not found:
        raise FetchError(why)
    return found


@dataclass(frozen=True, slots=True, kw_only=True)
class _Place:
    """Where the files of a suite lie."""

    source: Source
    scratch: Path
    asker: Asker

    def listed(self) -> tuple[set[str] | None, bool]:
        """The names in the Release file, None when there is none; whether what is for all has indices of its own."""
        for name in ("InRelease", "Release"):
            try:
                with self._opened(name, _RELEASE) as file:
                    text = file.read(_RELEASE).decode(errors="replace")
            except Refused as error:
                if error.silent:
                    raise FetchError(f"{error}.") from error
                continue
            names = set(_LISTED.findall(text))
            if names:
                return names, bool(_FOR_ALL.search(text)) and not _NOT_FOR_ALL.search(text)
        return None, False

    def unpacked(self, stem: str, ending: str, target: Path, limit: int) -> None:
        """One index, of at most ``limit`` bytes. Raises Refused, HostError."""
        came = 0
        with self._opened(stem + ending, _PACKED) as file, writing(target) as write:
            try:
                for piece in _pieces(file, ending):
                    came += len(piece)
                    if came > limit:
                        raise Refused("it is too large")
                    write(piece)
            except (OSError, EOFError, ValueError, lzma.LZMAError, zlib.error) as error:
                raise Refused("it cannot be unpacked") from error

    @contextlib.contextmanager
    def _opened(self, name: str, limit: int) -> Iterator[BinaryIO]:
        """A file of the suite. Raises Refused, HostError."""
        scheme, _, place = self.source.host_uri.partition(":")
        suite = self.source.suite if self.source.suite.endswith("/") else f"dists/{self.source.suite}/"
        if scheme in ("file", "copy"):
            with _local(Path(place) / suite / name, limit) as file:
                yield file
            return
        url, path = f"{self.source.host_uri}/{suite}{name}", self.scratch / "packed"
        with self.asker.asking(url):
            self.asker.client.save(url, path, limit=limit)
        try:
            with path.open("rb") as file:
                yield file
        finally:
            path.unlink(missing_ok=True)


@contextlib.contextmanager
def _local(path: Path, limit: int) -> Iterator[BinaryIO]:
    try:
        number = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY)
    except OSError as error:
        raise Refused(f"it cannot be read ({error.strerror})") from error
    try:
        status = os.fstat(number)
        if not stat.S_ISREG(status.st_mode) or status.st_size > limit:
            raise Refused("it is no file, or too large")
        with os.fdopen(number, "rb", closefd=False) as file:
            yield file
    finally:
        os.close(number)


def _pieces(file: BinaryIO, ending: str) -> Iterator[bytes]:
    """What is packed in a file. Raises OSError, EOFError, LZMAError, zlib.error."""
    if ending == ".xz":
        yield from _xz(file)
        return
    with gzip.open(file) if ending == ".gz" else bz2.open(file) if ending == ".bz2" else file as opened:
        while piece := cast(BinaryIO, opened).read(_PIECE):
            yield piece


def _xz(file: BinaryIO) -> Iterator[bytes]:
    unpacker = lzma.LZMADecompressor(format=lzma.FORMAT_XZ, memlimit=_MEMORY)
    while not unpacker.eof:
        packed = file.read(_PIECE) if unpacker.needs_input else b""
        if unpacker.needs_input and not packed:
            raise EOFError
        yield unpacker.decompress(packed, _PIECE)
