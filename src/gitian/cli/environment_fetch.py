"""``gitian environment fetch``: an environment's packages into the pool, so that a rebuild works offline."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from gitian.cli.common import CONTEXT, json_text
from gitian.cli.places import PlaceOptions, place_options

if TYPE_CHECKING:
    from gitian.formats.environment import Environment
    from gitian.formats.image_record import InstalledPackage
    from gitian.images.obtain import Obtained, Places


@click.command("fetch", context_settings=CONTEXT)
@click.argument("files", metavar="FILE...", nargs=-1, required=True, type=click.Path(path_type=Path))
@place_options
@click.option("--check", "--dry-run", "check", is_flag=True, help="Only say what the pool and the directories lack; "
              "fetch and keep nothing.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
@click.option("-q", "--quiet", is_flag=True, help="Say nothing but errors and the result.")
@click.option("-C", "--directory", type=click.Path(path_type=Path, file_okay=False), help="The workspace, whose base "
              "images tell which archives to ask [default: $GITIAN_BASE, else the current directory].")
def command(files: tuple[Path, ...], places: PlaceOptions, check: bool, as_json: bool, quiet: bool,
            directory: Path | None) -> None:
    """Get all packages of the environments in FILE into the package pool, so that a rebuild works offline.

    FILE is an environment file, a report or an assertion. Every package is checked by the SHA-256 that stands there, so
    it does not matter where it comes from.

    \b
    Exit status: 0 everything is there; 19 something is missing; what was found stays in the pool.
    """
    from gitian.errors import UsageError
    from gitian.formats.environment import read_any
    from gitian.host import progress
    from gitian.host.workspace import Workspace
    from gitian.images.obtain import unavailable

    progress.set_quiet(quiet)
    environments = [environment for path in files for environment in read_any(path).environments]
    asked = places.places(os.environ, offline=check)
    if asked.pool is None:
        raise UsageError("Without a package pool there is nowhere to keep packages.",
                         hint="Let GITIAN_POOL name a directory; it is 'off', or cannot be used.")
    images = Workspace.locate(directory, os.environ).image_directory
    outcomes = [_look(environment, asked) if check else _fetch(environment, asked, images)
                for environment in environments]
    if as_json:
        click.echo(json_text([_as_document(*pair) for pair in zip(environments, outcomes, strict=True)]))
    else:
        for environment, outcome in zip(environments, outcomes, strict=True):
            click.echo(progress.plain(_line(environment, outcome)))
    missing = {one.package: one for outcome in outcomes for one in outcome.missing}
    if missing:
        raise unavailable(list(missing.values()))
    if not check:
        _see_that_all_stay(environments, asked)


def _packages(environment: Environment) -> list[InstalledPackage]:
    kernel = environment.kernel.packages if environment.kernel is not None else ()
    return list(dict.fromkeys([*environment.packages, *kernel]))


@contextlib.contextmanager
def _room(environment: Environment, places: Places) -> Iterator[Path]:
    """A directory on the pool's file system, where a package from there is another name and no copy."""
    from gitian.host.progress import step
    from gitian.host.workspace import scratch_below

    assert places.pool is not None
    with scratch_below(places.pool.directory / "tmp") as room:
        with step(f"Looking for the {len(_packages(environment))} packages of {environment.label}"):
            yield room


def _fetch(environment: Environment, places: Places, images: Path) -> Obtained:
    from gitian.images.obtain import obtain
    from gitian.images.origins import with_sources

    with _room(environment, places) as room:
        known = with_sources(places, environment, directory=images, scratch=room)
        return obtain(_packages(environment), known, room / "debs", room / "work")


def _look(environment: Environment, places: Places) -> Obtained:
    """What is here, without taking anything into the pool."""
    from gitian.images.obtain import Missing, Obtained, obtain

    with _room(environment, places) as room:
        pooled = obtain(_packages(environment), replace(places, directories=()), room / "pool", room / "work")
        lacking = {one.package: one for one in pooled.missing}
        found = obtain(list(lacking), replace(places, pool=None), room / "debs", room / "work")
    return Obtained(files={**pooled.files, **found.files}, fetched=(), missing=tuple(
        Missing(package=one.package, tried=tuple(dict.fromkeys([*lacking[one.package].tried, *one.tried])))
        for one in found.missing))


def _see_that_all_stay(environments: Sequence[Environment], places: Places) -> None:
    """A pool that is smaller than the environments has thrown away the first for the last. Raises HostError."""
    from gitian.errors import HostError

    assert places.pool is not None
    wanted = {package.sha256 for environment in environments for package in _packages(environment)}
    lost = sum(not places.pool.place(sha256).exists() for sha256 in wanted)
    if lost:
        raise HostError(f"The package pool '{places.pool.directory}' did not keep {lost} of {len(wanted)} packages.",
                        hint="Is there room on the disk? A larger pool: GITIAN_POOL_SIZE (MiB).")


def _line(environment: Environment, outcome: Obtained) -> str:
    from gitian.host.progress import amount

    size = amount(sum(one.size for one in outcome.fetched))
    came = f", {len(outcome.fetched)} fetched now ({size})" if outcome.fetched else ""
    lost = f", {len(outcome.missing)} missing" if outcome.missing else ""
    return f"{environment.label}: {len(outcome.files)} of {len(_packages(environment))} packages{came}{lost}"


def _as_document(environment: Environment, outcome: Obtained) -> dict[str, Any]:
    return {"target": environment.label, "packages": len(_packages(environment)), "found": len(outcome.files),
            "fetched": [{"url": one.url, "size": one.size, "sha256": one.sha256} for one in outcome.fetched],
            "missing": [{"name": one.package.name, "version": one.package.version,
                         "architecture": one.package.architecture, "sha256": one.package.sha256,
                         "tried": list(one.tried)} for one in outcome.missing]}
