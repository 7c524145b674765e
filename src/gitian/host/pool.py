"""The package pool: a directory of .debs by SHA-256, so that nothing is downloaded twice on one machine.

What lies in it is not believed: each file is hashed anew whenever it is used, and one that is not what its name says
is removed. Files get into it under their final name by a rename only, from a scratch directory that is swept when its
owner is dead; so many may use it at once, and whoever is killed leaves it as it was.
"""

from __future__ import annotations

import contextlib
import os
import pwd
import re
import secrets
import shutil
import stat
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from gitian.errors import BusyError, HostError, InputError
from gitian.host import progress
from gitian.host.hashing import sha256_file, sha256_files
from gitian.host.workspace import locked, make_directory, remove_tree, scratch_below
from gitian.names import parse_deb_name

#: The files of the pool together may be this large (bytes), unless $GITIAN_POOL_SIZE says otherwise (MiB).
DEFAULT_LIMIT = 20 * 2**30

#: Have apt print SHA-256 where an index has several kinds of hashes (apt.conf(5) knows it as Acquire::ForceHash).
PRINT_URIS = ("-qq", "-o", "Acquire::ForceHash=SHA256", "--print-uris")

_LINE = re.compile(r"'([!-&(-~]+)' (\S+) ([0-9]{1,15})(?: (?:SHA256:([0-9a-f]{64})|\S+))?")
_SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Deb:
    """A package's file that apt would download. ``size`` in bytes; ``sha256`` is '' when the index has none."""

    uri: str
    name: str
    size: int
    sha256: str


def parse_uris(text: str) -> tuple[Deb, ...] | None:
    """What ``apt-get --print-uris`` answers (apt-get(8)): 'URI' FILE SIZE KIND:HASH; None when it is something else."""
    found: dict[str, Deb] = {}
    for line in text.splitlines():
        match = _LINE.fullmatch(line)
        if match is None or parse_deb_name(match[2]) is None or not _is_url(match[1]):
            return None
        deb = Deb(uri=match[1], name=match[2], size=int(match[3]), sha256=match[4] or "")
        if found.setdefault(deb.name, deb) != deb:
            return None
    return tuple(found.values())


def _is_url(text: str) -> bool:
    """Whether it can be taken apart as a URL: 'http://[x/' and a port of 99999 cannot."""
    try:
        return urlsplit(text).port is None or True
    except ValueError:
        return False


class Pool:
    """A pool at ``directory``, which :func:`find` has found to be ours alone. ``limit`` is in bytes."""

    def __init__(self, directory: Path, limit: int = DEFAULT_LIMIT) -> None:
        self.directory = directory
        self.limit = limit

    @contextlib.contextmanager
    def using(self) -> Iterator[PoolUse]:
        """The pool while the block runs; afterwards, if anything came in, it is cut back to its limit.

        Raises HostError: nothing can be written there.
        """
        with scratch_below(self.directory / "tmp") as room:
            use = PoolUse(self, room)
            yield use
        if use.added:
            self.prune()

    def place(self, sha256: str) -> Path:
        """Where a file of this hash lies, or would."""
        return self.directory / sha256[:2] / sha256

    def prune(self) -> list[Path]:
        """Remove the least recently used files until all together have at most ``limit`` bytes; returns them.

        What somebody uses right now has another name besides. Nothing is done while somebody else prunes.
        """
        removed = []
        with contextlib.suppress(BusyError), locked(self.directory / "lock", wait=False, what="the package pool"):
            total = 0
            for used, path, size in sorted(self._files(), reverse=True):
                total += size
                if total > self.limit:
                    with contextlib.suppress(OSError):
                        # Between the look and now somebody may have come for it.
                        if path.lstat().st_mtime == used:
                            path.unlink()
                            removed.append(path)
        return removed

    def _files(self) -> Iterator[tuple[float, Path, int]]:
        for top in self.directory.glob("[0-9a-f][0-9a-f]"):
            with contextlib.suppress(OSError), os.scandir(top) as entries:
                for entry in entries:
                    if _SHA256.fullmatch(entry.name):
                        with contextlib.suppress(FileNotFoundError):
                            status = entry.stat(follow_symlinks=False)
                            yield status.st_mtime, Path(entry.path), status.st_size


class PoolUse:
    """A pool in use; ``room`` is a private directory on its file system."""

    def __init__(self, pool: Pool, room: Path) -> None:
        self.pool = pool
        self.room = room
        self.added = 0

    def take(self, debs: Sequence[Deb], directory: Path) -> set[Deb]:
        """Put into ``directory``, by their file names, those that the pool has; each is hashed now.

        What is not what its name says is removed from the pool, with a warning. The files are the pool's own: they are
        to be read and no more.
        """
        there = []
        for deb in debs:
            if deb.sha256 and self._link(deb, directory / deb.name):
                there.append(deb)
        good = set()
        hashes = _hashes([directory / deb.name for deb in there])
        for deb, digest in zip(there, hashes, strict=True):
            path = directory / deb.name
            if digest == deb.sha256 and path.stat().st_size == deb.size:
                good.add(deb)
                with contextlib.suppress(OSError):
                    os.utime(self.pool.place(deb.sha256))
            else:
                path.unlink()
                self._refuse(deb)
        return good

    def _link(self, deb: Deb, path: Path) -> bool:
        place = self.pool.place(deb.sha256)
        try:
            kind = place.lstat()
        except OSError:
            return False
        if not stat.S_ISREG(kind.st_mode) or kind.st_size != deb.size:
            self._refuse(deb)
            return False
        try:
            os.link(place, path, follow_symlinks=False)
        except FileNotFoundError:  # pruned in this moment
            return False
        except OSError:  # a file system without hard links, or too many of them
            try:
                _copy(place, path)
            except OSError:
                path.unlink(missing_ok=True)
                return False
        return True

    def _refuse(self, deb: Deb) -> None:
        progress.warn(f"The package pool holds something else in the place of '{deb.name}'; that is removed.")
        with contextlib.suppress(OSError):
            remove_tree(self.pool.place(deb.sha256))

    def add(self, path: Path, deb: Deb) -> bool:
        """Take a file into the pool if it is what ``deb`` says, by another name for it or by a copy; False if not."""
        try:
            if path.lstat().st_size != deb.size or sha256_file(path, follow=False) != deb.sha256:
                return False
        except (OSError, InputError):
            return False
        self.keep(path, deb)
        return True

    def keep(self, path: Path, deb: Deb) -> None:
        """Like :meth:`add`, for a file that was hashed while it was written in :attr:`room`.

        A pool that takes nothing more (no room on the disk) is no error: the next build downloads it again.
        """
        place = self.pool.place(deb.sha256)
        temporary = self.room / f"keep-{secrets.token_hex(6)}"
        try:
            place.parent.mkdir(mode=0o700, exist_ok=True)
            try:
                os.link(path, temporary, follow_symlinks=False)
            except OSError:
                _copy(path, temporary)
            temporary.chmod(0o644)  # as it lies in a guest
            os.utime(temporary)
            temporary.replace(place)
        except OSError as error:
            progress.warn(f"The package pool does not take '{deb.name}': {error.strerror}.")
        else:
            self.added += 1
        finally:
            with contextlib.suppress(OSError):
                temporary.unlink(missing_ok=True)  # rename(2) leaves it when both are one file already


def find(environment: Mapping[str, str]) -> Pool | None:
    """The pool that the environment means: $GITIAN_POOL, else gitian/pool in the user's cache directory.

    None when it is switched off (GITIAN_POOL=off), or cannot be used; then a warning says why. Raises HostError when
    the one that was asked for cannot be used.
    """
    value = environment.get("GITIAN_POOL", "")
    if value.lower() == "off":
        return None
    size = environment.get("GITIAN_POOL_SIZE", "")
    limit = int(size) * 2**20 if size.isascii() and size.isdigit() else DEFAULT_LIMIT
    if value:
        return Pool(_own(Path(value).absolute()), limit)
    cache = _cache_directory(environment)
    try:
        if cache is None:
            raise HostError("There is no home directory to keep a package pool in.")
        return Pool(_own(cache / "gitian" / "pool"), limit)
    except HostError as error:
        progress.warn(f"{error} Packages are downloaded without a pool.")
        return None


def _cache_directory(environment: Mapping[str, str]) -> Path | None:
    """$XDG_CACHE_HOME, else ~/.cache (XDG Base Directory Specification); None when there is no home.

    Root by sudo may have somebody else's HOME: what is cached there would be neither's.
    """
    cache = environment.get("XDG_CACHE_HOME", "")
    if cache.startswith("/"):
        return Path(cache)
    homes = [environment.get("HOME", "")]
    with contextlib.suppress(KeyError):
        homes.append(pwd.getpwuid(os.geteuid()).pw_dir)
    for home in homes:
        with contextlib.suppress(OSError):
            if home.startswith("/") and Path(home).stat().st_uid == os.geteuid():
                return Path(home) / ".cache"
    return None


def _own(directory: Path) -> Path:
    """Make the pool's directory, or see that it is ours and nobody else's to write. Raises HostError."""
    if not directory.exists():
        make_directory(directory.parent)
        try:
            directory.mkdir(mode=0o700, exist_ok=True)
        except OSError as error:
            raise HostError(f"The package pool '{directory}' cannot be made: {error.strerror}.") from error
    status = directory.stat()
    hint = "Choose another place with GITIAN_POOL, or do without ('GITIAN_POOL=off')."
    if not stat.S_ISDIR(status.st_mode):
        raise HostError(f"The package pool '{directory}' is not a directory.", hint=hint)
    if status.st_uid != os.geteuid():
        raise HostError(f"The package pool '{directory}' belongs to another user.", hint=hint)
    if status.st_mode & 0o022:
        raise HostError(f"The package pool '{directory}' can be written by others.", hint=hint)
    return directory.resolve()


def _copy(source: Path, destination: Path) -> None:
    shutil.copyfile(source, destination, follow_symlinks=False)


def _hashes(paths: Sequence[Path]) -> list[str]:
    try:
        return sha256_files(paths, follow=False)
    except (OSError, InputError):  # one cannot be read: which one?
        found = []
        for path in paths:
            try:
                found.append(sha256_file(path, follow=False))
            except (OSError, InputError):
                found.append("")
        return found
