"""Compressed files: opened with bounds, and written again without names and times.

Gzip: RFC 1952. The bytes of what is compressed again depend on the library (zlib, libbz2, liblzma, zstd), so people who
compare outcomes need the same one.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator
from typing import IO

from gitian.canon.model import PIECE, Bounded, Settings, copy, read_exactly, size_of
from gitian.errors import FormatError, MissingToolError

#: The first bytes of each kind.
MAGIC = {"gz": b"\x1f\x8b", "bz2": b"BZh", "xz": b"\xfd7zXZ\0", "zst": b"\x28\xb5\x2f\xfd"}
#: Gzip's header of a stream: no flags, no time, the slowest method, Unix; what 'gzip -n -9' writes.
_PLAIN_GZIP = b"\x1f\x8b\x08\0\0\0\0\0\x02\x03"
_EXTRA, _NAME, _COMMENT, _CHECK = 4, 8, 16, 2
#: What decompressing xz may take (bytes); its highest preset takes 65 MiB.
_MEMORY = 2**30


def decompress(kind: str, source: IO[bytes], write: Callable[[bytes], object], settings: Settings) -> None:
    """Pass on what a compressed file holds. Raises FormatError: broken, cut off, or a bomb; MissingToolError."""
    bounded = Bounded(write, settings, size_of(source))
    source.seek(0)
    if kind == "gz":
        for _ in _gzip_members(source, bounded.write):
            pass
    elif kind == "zst":
        _zstd(settings)(["-dc", "--no-progress", "-q", "--memory=1024MB"], source, bounded.write)
    else:
        _decompress(kind, source, bounded.write)


def compress(kind: str, source: IO[bytes], target: IO[bytes], settings: Settings) -> None:
    """Compress a whole file. Raises MissingToolError."""
    import bz2
    import lzma

    source.seek(0)
    if kind == "zst":
        _zstd(settings)(["-19", "-c", "--no-progress", "-q", "-T1"], source, target.write)
        return
    if kind == "gz":
        target.write(_PLAIN_GZIP)
        deflate, check, size = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS), 0, 0
        for data in iter(lambda: source.read(PIECE), b""):
            target.write(deflate.compress(data))
            check, size = zlib.crc32(data, check), size + len(data)
        target.write(deflate.flush())
        target.write(check.to_bytes(4, "little") + (size & 0xFFFFFFFF).to_bytes(4, "little"))
        return
    packer = bz2.BZ2Compressor(9) if kind == "bz2" else lzma.LZMACompressor(preset=6)
    for data in iter(lambda: source.read(PIECE), b""):
        target.write(packer.compress(data))
    target.write(packer.flush())


def write_canonical_gzip(source: IO[bytes], target: IO[bytes], settings: Settings) -> None:
    """Write a gzip file without name, comment and time; the compressed data are copied as they are.

    Raises FormatError: broken, cut off, or beyond bounds when it is decompressed, which is how its members are found.
    """
    bounded = Bounded(lambda data: None, settings, size_of(source))
    source.seek(0)
    for header, start, end in _gzip_members(source, bounded.write):
        # Extra fields stay: dictzip and bgzip keep the places there from which a reader may start.
        flags = header[3] & _EXTRA
        target.write(header[:3] + bytes([flags]) + bytes(4) + header[8:9] + b"\x03" + header[10:])
        copy(source, start, end - start, target.write)


def _gzip_members(source: IO[bytes], write: Callable[[bytes], object]) -> Iterator[tuple[bytes, int, int]]:
    """Inflate one member after another: its header (fixed part and extra field), where its data begin and end."""
    first = True
    while True:
        at = source.tell()
        fixed = source.read(10)
        if not first and not fixed.strip(b"\0"):  # filled up with zeros, as on tapes
            for data in iter(lambda: source.read(PIECE), b""):
                if data.strip(b"\0"):
                    raise FormatError("Something follows the compressed data.")
            return
        if len(fixed) < 10 or fixed[:3] != b"\x1f\x8b\x08" or fixed[3] & 0xE0:
            raise FormatError("Something follows the compressed data." if not first else "This is no gzip file.")
        header = fixed
        if fixed[3] & _EXTRA:
            length = read_exactly(source, 2, "gzip's header")
            header += length + read_exactly(source, int.from_bytes(length, "little"), "gzip's header")
        for flag in (_NAME, _COMMENT):
            if fixed[3] & flag:
                _skip_text(source)
        if fixed[3] & _CHECK:
            read_exactly(source, 2, "gzip's header")
        start = source.tell()
        end = _inflate(source, start, write)
        if end <= at:
            raise FormatError("This is no gzip file.")
        yield header, start, end
        source.seek(end)
        first = False


def _skip_text(source: IO[bytes]) -> None:
    for _ in range(4096):
        if read_exactly(source, 1, "gzip's header") == b"\0":
            return
    raise FormatError("Gzip's header holds a name that does not end.")


def _inflate(source: IO[bytes], start: int, write: Callable[[bytes], object]) -> int:
    """Pass on what one deflate stream holds, and check it; where it and its checksum end."""
    inflate, check, size, at = zlib.decompressobj(-zlib.MAX_WBITS), 0, 0, start
    while not inflate.eof:
        data = inflate.unconsumed_tail or source.read(PIECE)
        if not data:
            raise FormatError("The file ends within the compressed data.",
                              hint="It was cut off; make or fetch it again.")
        try:
            plain = inflate.decompress(data, PIECE)
        except zlib.error as error:
            raise FormatError(f"The compressed data are broken: {error}.") from error
        # At the end what is left over stands in both, when the call before left something over too.
        at += len(data) - len(inflate.unused_data if inflate.eof else inflate.unconsumed_tail)
        check, size = zlib.crc32(plain, check), size + len(plain)
        write(plain)
    source.seek(at)
    trailer = read_exactly(source, 8, "the compressed data")
    if trailer != check.to_bytes(4, "little") + (size & 0xFFFFFFFF).to_bytes(4, "little"):
        raise FormatError("The compressed data are damaged: their checksum is wrong.")
    return at + 8


def _decompress(kind: str, source: IO[bytes], write: Callable[[bytes], object]) -> None:
    """Pass on what a bz2 or xz file holds, stream after stream."""
    import bz2
    import lzma

    data = source.read(PIECE)
    while data:
        unpacker = bz2.BZ2Decompressor() if kind == "bz2" else lzma.LZMADecompressor(lzma.FORMAT_XZ, _MEMORY)
        try:
            while not unpacker.eof:
                if not data and unpacker.needs_input:
                    data = source.read(PIECE)
                    if not data:
                        raise FormatError("The file ends within the compressed data.",
                                          hint="It was cut off; make or fetch it again.")
                write(unpacker.decompress(data, PIECE))
                data = b""
        except (OSError, lzma.LZMAError) as error:
            raise FormatError(f"The compressed data are broken: {error}.") from error
        data = unpacker.unused_data or source.read(PIECE)
        if kind == "xz":
            while data and not data.strip(b"\0"):  # padding between streams
                data = source.read(PIECE)
            data = data.lstrip(b"\0")


def _zstd(settings: Settings) -> Callable[[list[str], IO[bytes], Callable[[bytes], object]], None]:
    if settings.zstd is None:
        raise MissingToolError("Files compressed by zstd cannot be made canonical here.",
                               hint="Decompress it with zstd, make the archive canonical, and compress it again.")
    return settings.zstd
