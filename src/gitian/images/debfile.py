"""What a package's file holds, read as a stream: nothing of it is run, and no name in it becomes a path of ours.

A package may be anybody's (what a record names, an archive that was not checked), and unpacking one as it wants to be
unpacked would follow the links that another one brought.
"""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import IO

from gitian.errors import HostError, ImageError, OutputError
from gitian.host import process
from gitian.host.progress import plain
from gitian.host.tarstream import Member, TarStream

#: The control fields of a package are some kB; more than this many bytes are an attack.
CONTROL_LIMIT = 2**20
#: One file that is taken out of a package, and all of them (bytes, number): the largest kernels have a tenth of it.
FILE_LIMIT = 256 * 2**20
_TAKEN_LIMIT = 4 * 2**30
_NUMBER_LIMIT = 100_000
#: So much is read of a package at most, uncompressed: of its control data, and of what it installs (bytes).
_STREAM_LIMITS = {"--ctrl-tarfile": 64 * 2**20, "--fsys-tarfile": 16 * 2**30}
_PIECE = 2**18


def control(deb: Path) -> bytes:
    """The control file of a package (deb-control(5)), of at most CONTROL_LIMIT bytes.

    Raises ImageError: it is no package that can be read; MissingToolError.
    """
    with contextlib.closing(_members(deb, "--ctrl-tarfile")) as members:
        for member, content in members:
            if _name(member) == "control" and _plain_file(member):
                if member.size > CONTROL_LIMIT:
                    raise ImageError(f"The control file of '{deb.name}' has more than {CONTROL_LIMIT} bytes.")
                return b"".join(content)
    raise ImageError(f"The package '{deb.name}' has no control file.")


def take(deb: Path, directory: Path, wanted: Callable[[str], bool]) -> dict[str, Path]:
    """Those of a package's regular files whose path in it (as 'boot/vmlinuz') is ``wanted``, by that path.

    They are written into ``directory``, which is made, under numbers for names. Raises ImageError: it is no package
    that can be read, or more than a kernel has; HostError: no room; MissingToolError.
    """
    found: dict[str, Path] = {}
    size = 0
    try:
        directory.mkdir(parents=True)
        with contextlib.closing(_members(deb, "--fsys-tarfile")) as members:
            for member, content in members:
                name = _name(member)
                if not name or not wanted(name):
                    continue
                found.pop(name, None)
                if member.kind == "link" and (same := found.get(_normal(member.target))) is not None:
                    found[name] = same
                elif _plain_file(member):
                    size += member.size
                    if member.size > FILE_LIMIT or size > _TAKEN_LIMIT or len(found) >= _NUMBER_LIMIT:
                        raise ImageError(f"The package '{deb.name}' has more or larger files than any kernel.")
                    path = directory / f"{len(found)}-{size}"
                    with path.open("xb") as file:
                        file.writelines(content)
                    found[name] = path
    except OSError as error:
        raise HostError(f"'{deb.name}' cannot be unpacked: {error.strerror}.") from error
    return found


def _plain_file(member: Member) -> bool:
    return member.kind == "file" and member.segments is None


def _name(member: Member) -> str:
    return _normal(member.name)


def _normal(name: bytes) -> str:
    """A path in an archive without './' and such; '' when it goes up."""
    parts = [part for part in name.split(b"/") if part not in (b"", b".")]
    return "" if b".." in parts else os.fsdecode(b"/".join(parts))


def _members(deb: Path, part: str) -> Generator[tuple[Member, Iterator[bytes]], None, None]:
    """The members of one of a package's two archives, each with its content; whoever has enough closes it."""
    with tempfile.TemporaryFile() as said, process.start(["dpkg-deb", part, deb], stdout=process.PIPE,
                                                         stderr=said) as running:
        assert running.stdout is not None
        number, left, ended = running.stdout.fileno(), _STREAM_LIMITS[part], False

        def read(size: int) -> bytes:
            nonlocal left, ended
            data = os.read(number, min(size, _PIECE))
            left, ended = left - len(data), not data
            if left < 0:
                raise OutputError(f"It holds more than {_STREAM_LIMITS[part]} bytes.")
            return data

        try:
            stream = TarStream(read)
            for member in stream.members():
                yield member, stream.content()
            running.wait()
        except OutputError as error:
            if ended:  # too early, and dpkg-deb may be about to say why
                running.wait()
            else:
                process.end(running)
            raise ImageError(_unreadable(deb, said, str(error))) from error
        if running.returncode:
            raise ImageError(_unreadable(deb, said, process.ended_how(running.returncode)))


def _unreadable(deb: Path, said: IO[bytes], otherwise: str) -> str:
    said.seek(0)
    text = said.read(4096).decode(errors="replace").strip()[-300:]
    return f"'{deb.name}' is no package that 'dpkg-deb' can read: {plain(text or otherwise)}"
