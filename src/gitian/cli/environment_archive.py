"""What today's archive would give in place of an environment, for ``gitian environment diff --archive``."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from pathlib import Path

from gitian.errors import FormatError, UsageError
from gitian.formats.debversion import order
from gitian.formats.environment import Environment, EnvironmentFile, by_file_name
from gitian.formats.image_record import InstalledPackage
from gitian.host import progress
from gitian.host.workspace import scratch_of_user
from gitian.images.distros import ARCHITECTURES, Distro, distro_of, find_distro
from gitian.images.offers import Offered, offers, own_sources
from gitian.images.sources import Source, SourceOptions, find_sources


@dataclass(frozen=True, slots=True, kw_only=True)
class ArchiveOptions:
    """--mirror, --security-mirror, --without and --keyring."""

    mirror: str | None
    security_mirror: str | None
    without: tuple[str, ...]
    keyring: Path | None


def today(file: EnvironmentFile, options: ArchiveOptions) -> EnvironmentFile:
    """For each package of each environment the newest version that the archive has; all else as it is.

    Raises FetchError, UsageError, ImageError, FormatError (an archive that has none of them).
    """
    return EnvironmentFile(environments=tuple(_today(one, options) for one in file.environments))


def _today(environment: Environment, options: ArchiveOptions) -> Environment:
    distro = distro_of(environment.suite) if not environment.distro else find_distro(environment.distro)
    if distro is None:
        raise UsageError(f"It is not known which distribution has the suite '{environment.suite}'.",
                         hint="An environment file can name it, as 'distro'.")
    own = environment.architecture
    newest: dict[tuple[str, str], Offered] = {}
    # No guest has packages of other architectures, and each is a run of apt.
    for arch in sorted({own, *({package.architecture for package in environment.packages} & set(ARCHITECTURES))}):
        with scratch_of_user() as room, progress.step(f"Asking the archive about {environment.suite} ({arch})"):
            sources = _sources(environment, distro, arch, options, room)
            keyrings = distro.find_keyrings() if options.keyring is None else (options.keyring.resolve(),)
            for offered in offers(sources, arch, keyrings, room):
                key = (offered.name, arch)
                if offered.sha256 and (key not in newest or order(newest[key].version) < order(offered.version)):
                    newest[key] = offered
    found = (newest.get(package.identity(own)) for package in environment.packages)
    packages = tuple(InstalledPackage(name=one.name, version=one.version, architecture=one.architecture,
                                      sha256=one.sha256) for one in found if one is not None)
    if not packages:
        raise FormatError(f"The archive has none of the packages of '{environment.label}'.",
                          hint="Is it the archive of this suite? Name another with --mirror URL.")
    return replace(environment, packages=by_file_name(packages))


def _sources(environment: Environment, distro: Distro, arch: str, options: ArchiveOptions,
             scratch: Path) -> tuple[Source, ...]:
    asked = SourceOptions.of(mirror=options.mirror, security_mirror=options.security_mirror, without=options.without,
                             environment=os.environ)
    if asked.mirror is None and asked.security_mirror is None and asked.mirror_host is None:
        stated, others = own_sources(environment.sources, environment.suite, asked.host_address)
        if any(source.pocket == "" for source in stated):
            for line in others:
                progress.warn(f"Left out is the source '{line}', which is none of {distro.origin}'s own.")
            return tuple(source for source in stated if source.pocket not in asked.without)
    return find_sources(distro, environment.suite, arch, asked, scratch)
