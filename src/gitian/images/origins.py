"""The archives that an environment's packages came from, or will be looked for in."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from gitian.errors import GitianError
from gitian.formats.environment import Environment
from gitian.host import progress
from gitian.images.distros import distro_of, find_distro
from gitian.images.obtain import Places
from gitian.images.record import ImageFiles
from gitian.images.sources import SourceOptions, find_sources


def with_sources(places: Places, environment: Environment, *, directory: Path, scratch: Path) -> Places:
    """The places with the sources where packages of an environment may be, besides those that are there already.

    These are the ones that the environment states; those of the ordinary base image of its suite in ``directory``,
    which lead to the archive that this machine uses; where neither of these are, the distro's usual ones. What cannot
    be found out is a warning. Nothing is looked up before a package is missing; ``scratch`` has to be there until then.
    """
    def find() -> tuple[str, ...]:
        lines = [*environment.sources]
        try:
            files = ImageFiles(directory=directory, suite=environment.suite, arch=environment.architecture)
            record = files.read_record()
            if record is not None and environment.distro in ("", record.distro):
                lines += record.sources
            if not lines:
                lines += _usual(places, environment, scratch)
        except GitianError as error:
            progress.warn(f"It is not known where packages of {environment.label} come from: {error}")
        return (*places.find_sources(), *lines)

    return replace(places, find_sources=find)


def _usual(places: Places, environment: Environment, scratch: Path) -> list[str]:
    distro = find_distro(environment.distro) if environment.distro else distro_of(environment.suite)
    if distro is None:
        return []
    options = SourceOptions(mirror_host=places.mirror_host, host_address=places.host_address)
    return [source.guest_line for source in find_sources(distro, environment.suite, environment.architecture, options,
                                                         scratch)]
