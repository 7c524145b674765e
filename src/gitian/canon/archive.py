"""One file made canonical: what it is, is seen from its content; it is replaced whole or not at all."""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import stat
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, NamedTuple

from gitian.canon import ars, compression, tars
from gitian.canon.model import PIECE, Settings, copy, size_of
from gitian.canon.tarwrite import write_canonical_tar
from gitian.canon.zips import write_canonical_zip
from gitian.errors import FormatError, HostError, InputError

_UNPACKED = {"tar.gz": "gz", "tar.bz2": "bz2", "tar.xz": "xz", "tar.zst": "zst"}


class Outcome(NamedTuple):
    """What a file is, and whether it was (or, when only looked at, would be) changed."""

    path: Path
    kind: str
    changed: bool


def canonicalize(path: Path, settings: Settings, *, output: Path | None = None, write: bool = True) -> Outcome:
    """Make a file canonical, in place or as ``output``; without ``write`` only say whether it is.

    The file keeps its own permissions. Raises FormatError: no archive, a broken or hostile one; InputError: no file;
    HostError: it cannot be written.
    """
    with _opened(path) as source, _told(path):
        kind = kind_of(source, settings)
        with _nameless(output or path, write) as target:
            _transform(kind, source, target, settings)
            changed = not _same(source, target)
            if write and (changed or output is not None):
                _put(target, output or path, _mode_of(source))
    return Outcome(path=output or path, kind=kind, changed=changed)


def replace_by(path: Path, output: Path, transform: Callable[[IO[bytes], IO[bytes]], None]) -> None:
    """Write ``output``, whole or not at all, by what ``transform`` makes of ``path``. Raises as canonicalize does."""
    with _opened(path) as source, _told(path), _nameless(output, True) as target:
        transform(source, target)
        target.flush()
        _put(target, output, _mode_of(source))


@contextlib.contextmanager
def _told(path: Path) -> Iterator[None]:
    """Errors in the block name the file."""
    try:
        yield
    except FormatError as error:
        raise FormatError(f"'{path}': {error}", hint=error.hint) from error
    except OSError as error:
        room = error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EROFS, errno.EPERM)
        raise HostError(f"'{path}' cannot be made canonical: {error.strerror or error}.",
                        hint="Make room, or allow writing there." if room else None) from error


def _mode_of(file: IO[bytes]) -> int:
    return stat.S_IMODE(os.fstat(file.fileno()).st_mode)


def kind_of(source: IO[bytes], settings: Settings) -> str:
    """'zip', 'tar', 'tar.gz', 'gz', 'ar' and so on. Raises FormatError when it is none of them."""
    source.seek(0)
    head = source.read(tars.BLOCK)
    if head.startswith((b"PK\3\4", b"PK\5\6")):
        return "zip"
    if head.startswith((ars.MAGIC, ars.THIN)):
        return "ar"
    if tars.looks_like_tar(head):
        return "tar"
    for kind, magic in compression.MAGIC.items():
        if head.startswith(magic):
            inner = _beginning(kind, source, settings)
            return f"tar.{kind}" if tars.looks_like_tar(inner) or _is_empty_tar(inner) else kind
    size = size_of(source)
    source.seek(max(0, size - 65557))
    if b"PK\5\6" in source.read():  # a program that unpacks itself, or one for Python
        return "zip"
    if _is_empty_tar(head) and size % tars.BLOCK == 0:
        return "tar"
    raise FormatError("this is no archive that is known: zip, jar, tar, gzip, bzip2, xz, zstd or ar.")


def _is_empty_tar(head: bytes) -> bool:
    return len(head) == tars.BLOCK and not any(head)


class _EnoughError(Exception):
    """The beginning has been seen."""


def _beginning(kind: str, source: IO[bytes], settings: Settings) -> bytes:
    found = bytearray()

    def take(data: bytes) -> None:
        found.extend(data[:tars.BLOCK])
        if len(found) >= tars.BLOCK:
            raise _EnoughError

    with contextlib.suppress(_EnoughError):
        compression.decompress(kind, source, take, settings)
    return bytes(found[:tars.BLOCK])


def _transform(kind: str, source: IO[bytes], target: IO[bytes], settings: Settings) -> None:
    source.seek(0)
    if kind == "zip":
        write_canonical_zip(source, target, settings)
    elif kind == "ar":
        ars.write_canonical_ar(source, target, settings)
    elif kind == "tar":
        write_canonical_tar(source, tars.read_tar(source), target, settings)
    elif kind == "gz":
        compression.write_canonical_gzip(source, target, settings)
    elif kind in _UNPACKED:
        method = _UNPACKED[kind]
        with _scratch() as unpacked, _scratch() as packed:
            compression.decompress(method, source, unpacked.write, settings)
            unpacked.flush()
            write_canonical_tar(unpacked, tars.read_tar(unpacked), packed, settings)
            packed.flush()
            compression.compress(method, packed, target, settings)
    else:  # bz2, xz and zst have neither names nor times
        copy(source, 0, size_of(source), target.write)
    target.flush()


@contextlib.contextmanager
def _scratch() -> Iterator[IO[bytes]]:
    # Without a name, so that nothing is left behind whatever happens.
    with tempfile.TemporaryFile(prefix="gitian-canon-") as file:
        yield file


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[IO[bytes]]:
    try:
        # Not blocking: a named pipe must not hold us up.
        number = os.open(str(path), os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        raise InputError(f"'{path}' cannot be read: {error.strerror}.") from error
    if not stat.S_ISREG(os.fstat(number).st_mode):
        os.close(number)
        raise InputError(f"'{path}' is no regular file.")
    with os.fdopen(number, "rb") as file:
        yield file


@contextlib.contextmanager
def _nameless(path: Path, write: bool) -> Iterator[IO[bytes]]:
    """A file without a name beside ``path``, which may get one; when nothing is to be written, anywhere."""
    if not write:
        with _scratch() as file:
            yield file
        return
    try:
        number = os.open(str(_parent(path)), os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC, 0o600)
    except OSError as error:
        if error.errno not in (errno.EOPNOTSUPP, errno.EISDIR, errno.ENOENT):
            raise
        if not _parent(path).is_dir():
            raise HostError(f"The directory '{_parent(path)}' is not there.") from error
        with _scratch() as file:  # this file system has no nameless files: the content is copied at the end
            yield file
        return
    with os.fdopen(number, "w+b") as file:
        yield file


def _put(target: IO[bytes], path: Path, mode: int) -> None:
    """Give the content the name ``path``, in one step."""
    path = path.resolve()  # where a link leads is replaced, not the link
    other = path.with_name(f".{path.name[:200]}.{secrets.token_hex(4)}")
    try:
        try:
            os.link(f"/proc/self/fd/{target.fileno()}", str(other), follow_symlinks=True)
            number = os.open(str(other), os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
        except OSError:
            number = os.open(str(other), os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
            with os.fdopen(os.dup(number), "wb") as file:
                copy(target, 0, size_of(target), file.write)
        try:
            os.fchmod(number, mode)
            with contextlib.suppress(OSError):
                old = path.stat()
                os.fchown(number, old.st_uid, old.st_gid)
                os.fchmod(number, mode)
            os.fsync(number)
        finally:
            os.close(number)
        other.replace(path)
    except BaseException:
        with contextlib.suppress(OSError):
            other.unlink()
        raise


def _parent(path: Path) -> Path:
    return path.resolve().parent


def _same(first: IO[bytes], second: IO[bytes]) -> bool:
    size = size_of(first)
    if size != size_of(second):
        return False
    first.seek(0)
    second.seek(0)
    return all(first.read(PIECE) == second.read(PIECE) for _ in range(0, size, PIECE))
