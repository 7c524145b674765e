"""Packages by SHA-256 that this machine has already: in the pool, or in directories that somebody has given."""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import stat
from collections.abc import Iterable, Sequence
from pathlib import Path

from gitian.errors import HostError, InputError
from gitian.formats.image_record import InstalledPackage
from gitian.host import progress
from gitian.host.hashing import sha256_file
from gitian.host.pool import Deb, PoolUse
from gitian.host.space import not_written, writing

#: More .debs than this in one directory are not looked through.
_MOST = 200_000
_PIECE = 2**20


def deb_of(package: InstalledPackage, size: int) -> Deb:
    """A package as the pool knows it."""
    return Deb(uri="", name=package.file_name, size=size, sha256=package.sha256)


def from_pool(packages: Sequence[InstalledPackage], use: PoolUse, destination: Path) -> set[InstalledPackage]:
    """Put what the pool has into ``destination``; each file is hashed."""
    debs = {}
    for package in packages:
        with contextlib.suppress(OSError):
            debs[package] = deb_of(package, use.pool.place(package.sha256).lstat().st_size)
    taken = use.take(list(debs.values()), destination)
    return {package for package, deb in debs.items() if deb in taken}


class Directory:
    """A directory with .debs, below it too; links are not followed. Raises InputError: it is none."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._by_name: dict[str, list[Path]] = {}
        self._by_hash: dict[str, Path] | None = None
        if not path.is_dir():
            raise InputError(f"'{path}' is not a directory with packages.", hint="It is what was given with --debs.")
        count = 0
        for top, _, names in os.walk(path, onerror=_tell):
            for name in names:
                if name.endswith(".deb") and _is_file(Path(top, name)):
                    self._by_name.setdefault(name, []).append(Path(top, name))
                    count += 1
            if count > _MOST:
                raise InputError(f"'{path}' holds more than {_MOST} packages.",
                                 hint="Give a directory with those that are needed.")

    def find(self, package: InstalledPackage) -> Path | None:
        """A file of that hash, whatever it is called; by the names that apt and archives give it first."""
        plain = package.version.partition(":")[2] or package.version
        for name in (package.file_name, f"{package.name}_{plain}_{package.architecture}.deb"):
            for path in self._by_name.get(name, []):
                if _sha256(path) == package.sha256:
                    return path
        if self._by_hash is None:
            self._by_hash = self._hash_all()
        return self._by_hash.get(package.sha256)

    def _hash_all(self) -> dict[str, Path]:
        paths = sorted(path for paths in self._by_name.values() for path in paths)
        found: dict[str, Path] = {}
        with progress.bar(f"Hashing the packages in {self.path}", len(paths), unit="packages") as advance:
            for path in paths:
                found.setdefault(_sha256(path), path)
                advance(1)
        return found


def copy_checked(source: Path, target: Path, sha256: str) -> bool:
    """Copy a file that should have that hash; False, and nothing there, when it has not, or cannot be read.

    What was hashed before may have changed since: this is the hash that counts. Raises HostError: there can be no copy.
    """
    digest = hashlib.sha256()
    try:
        number = os.open(source, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_NOCTTY)
        with os.fdopen(number, "rb") as file:
            if not stat.S_ISREG(os.fstat(number).st_mode):
                return False
            with writing(target, new=True) as write:
                while piece := file.read(_PIECE):
                    digest.update(piece)
                    write(piece)
        if digest.hexdigest() == sha256:
            return True
    except OSError:  # of the source's
        pass
    except HostError:
        target.unlink(missing_ok=True)
        raise
    target.unlink(missing_ok=True)
    return False


def put(source: Path, target: Path) -> None:
    """Give a checked file another name, or copy it where that cannot be; what lay there is gone. Raises HostError."""
    try:
        target.unlink(missing_ok=True)
        try:
            os.link(source, target, follow_symlinks=False)
        except OSError:
            shutil.copyfile(source, target, follow_symlinks=False)
    except OSError as error:
        raise not_written(target, error) from error


def clear(destination: Path, packages: Iterable[InstalledPackage]) -> None:
    """Remove what lies in the way. A file there may be the pool's own, and must not be written to."""
    for package in packages:
        (destination / package.file_name).unlink(missing_ok=True)


def _tell(error: OSError) -> None:
    progress.warn(f"'{error.filename}' cannot be looked through: {error.strerror}.")


def _is_file(path: Path) -> bool:
    try:
        return stat.S_ISREG(path.lstat().st_mode)
    except OSError:
        return False


def _sha256(path: Path) -> str:
    try:
        return sha256_file(path, follow=False)
    except (OSError, InputError):
        return ""
