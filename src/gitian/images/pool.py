"""Base images out of the package pool: mmdebstrap's apt finds what the pool has, and what it downloads goes there."""

from __future__ import annotations

import contextlib
import shlex
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from gitian.errors import HostError, ProgramError
from gitian.formats.image_record import InstalledPackage
from gitian.host import progress
from gitian.host.pool import Deb, Pool, PoolUse
from gitian.images.archive import Indices


@dataclass(frozen=True, slots=True, kw_only=True)
class Seed:
    """What mmdebstrap is told of the pool: options that come before those that use what they leave.

    Without a pool there are none. ``came`` is where what it has downloaded ends up.
    """

    use: PoolUse | None = None
    options: tuple[str, ...] = ()
    came: Path | None = None

    def collect(self, packages: Iterable[InstalledPackage]) -> None:
        """Take into the pool what was downloaded for these packages."""
        if self.use is None or self.came is None:
            return
        for package in packages:
            with contextlib.suppress(OSError):
                path = self.came / package.file_name
                self.use.add(path, Deb(uri="", name=path.name, size=path.lstat().st_size, sha256=package.sha256))


@contextlib.contextmanager
def seeded(indices: Indices, packages: Sequence[str]) -> Iterator[Seed]:
    """What the pool has of the packages that a root filesystem with these is made of.

    What is one too many, or lacking, does no harm: apt takes what it needs from there, and downloads the rest.
    """
    with contextlib.ExitStack() as stack:
        pool = _pool(indices)
        if pool is None:
            yield Seed()
            return
        try:
            use = stack.enter_context(pool.using())
        except HostError as error:
            progress.warn(str(error))
            yield Seed()
            return
        have, came = use.room / "have", use.room / "came"
        for place in (have, came):
            place.mkdir()
            place.chmod(0o755)  # of 'have' the mode is copied too, and apt's own user has to get through there
        names = sorted(deb.name for deb in use.take(_wanted(indices, packages), have))
        options = [
            # What was downloaded stays until it is taken out.
            "--skip=essential/unlink",
            '--setup-hook=mkdir -p "$1/var/cache/apt/archives"',
            f"--setup-hook=sync-in {shlex.quote(str(have))} /var/cache/apt/archives"]
        if names:
            options.append(f'--customize-hook=cd "$1/var/cache/apt/archives" && rm -f -- {shlex.join(names)}')
        options.append(f"--customize-hook=sync-out /var/cache/apt/archives {shlex.quote(str(came))}")
        yield Seed(use=use, options=tuple(options), came=came)


def _pool(indices: Indices) -> Pool | None:
    """The pool, unless all that could go there lies on this machine anyway."""
    return indices.pool if any(source.host_uri.startswith("http") for source in indices.sources) else None


def _wanted(indices: Indices, packages: Sequence[str]) -> tuple[Deb, ...]:
    """What apt would download for a new root filesystem, as far as that can be known beforehand."""
    try:
        return indices.print_uris("--no-install-recommends", "install", "?essential", "?priority(required)",
                                  *packages)
    except ProgramError:
        return ()


def take(indices: Indices, deb: Deb, directory: Path) -> bool:
    """Put a single package from the pool into ``directory``; False when it is not there."""
    pool = _pool(indices)
    if pool is None:
        return False
    try:
        with pool.using() as use:
            if deb not in use.take([deb], use.room):
                return False
            directory.mkdir(parents=True, exist_ok=True)
            # A copy: the pool may be on another file system, and this one is the image maker's own.
            (directory / deb.name).write_bytes((use.room / deb.name).read_bytes())
            return True
    except HostError as error:
        progress.warn(str(error))
        return False


def keep(indices: Indices, deb: Deb, path: Path) -> None:
    """Take a single package into the pool."""
    pool = _pool(indices)
    if pool is not None:
        try:
            with pool.using() as use:
                use.add(path, deb)
        except HostError as error:
            progress.warn(str(error))
