"""``gbuild``: options and environment into a BuildRequest, results onto standard output."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import click

from gitian.cli.backends import GuestOptions, guest_options
from gitian.cli.classic import ClassicCommand
from gitian.cli.common import CONTEXT
from gitian.cli.places import PlaceOptions, place_options
from gitian.cli.reference import Reference

if TYPE_CHECKING:
    from gitian.build.comparison import Comparison


@click.command("gbuild", cls=ClassicCommand, context_settings=CONTEXT)
@click.argument("descriptor", type=click.Path(path_type=Path, dir_okay=False))
@click.option("--allow-sudo", is_flag=True, help="Let the script use sudo without a password, if the descriptor asks "
              "for it ('sudo: true').")
@click.option("-i", "--skip-image", is_flag=True, help="Reuse the target of the last build as it is.")
@click.option("--upgrade", is_flag=True, help="Upgrade the guest's packages, also when they were upgraded before.")
@click.option("-q", "--quiet", is_flag=True, help="Say nothing but errors.")
@click.option("-j", "--num-make", metavar="N", type=click.IntRange(1, 4096), default=2, show_default=True,
              help="Number of processes for make, and of the guest's processors.")
@click.option("-m", "--memory", metavar="MIB", type=click.IntRange(64, 2**24), default=2000, show_default=True,
              help="Memory of the guest in MiB.")
@click.option("-c", "--commit", "commits", metavar="DIR=HASH,...", multiple=True,
              help="Commits or tags of remotes that have none in the descriptor.")
@click.option("-u", "--url", "urls", metavar="DIR=URL,...", multiple=True, help="Other URLs for remotes.")
@click.option("-o", "--cache-read-only", is_flag=True, help="Use the caches, but do not bring them back.")
@click.option("--skip-fetch", is_flag=True, help="Do not fetch remotes: what is in inputs/ must have the commit.")
@click.option("--fetch-branches", is_flag=True, help="Fetch all branches of the remotes.")
@click.option("--fetch-tags", is_flag=True, help="Fetch all tags of the remotes.")
@click.option("--skip-cleanup", is_flag=True, help="Leave the target running, for libexec/on-target and the like.")
@click.option("--parallel", metavar="N", type=click.IntRange(0, 256), default=0, help="Build up to N targets side by "
              "side [default: what processors and memory allow].")
@click.option("--no-layers", is_flag=True, help="Install the packages in the guest of this build, and keep no layer.")
@click.option("--offline", is_flag=True, help="Start from the layer as it is; do not ask whether the archive has "
              "changed.")
@click.option("--no-network", is_flag=True, help="Run the script in a guest that has its packages and inputs, and no "
              "network; as 'network: false' in the descriptor.")
@click.option("--like", metavar="REPORT|ASSERTION|SIGNER", help="Build in the environment that this records, from the "
              "inputs that it records, and say of each output whether it is reproduced.")
@click.option("--release", metavar="REL", help="The release of that SIGNER's assertion.")
@click.option("--destination", metavar="DIR", type=click.Path(path_type=Path), help="The directory that holds all "
              "releases [default: sigs/NAME].")
@click.option("--environment", "exactly", metavar="FILE", type=click.Path(path_type=Path, dir_okay=False),
              help="Build in the environment of this file (see 'gitian environment snapshot'), and in no other.")
@click.option("--fail-closed", is_flag=True, help="With --environment or --like: nothing that is not in the "
              "environment gets into the guest, by whatever means. Includes --no-network.")
@place_options
@guest_options
@click.option("-C", "--directory", type=click.Path(path_type=Path, file_okay=False),
              help="The workspace [default: $GITIAN_BASE, else the current directory].")
def command(descriptor: Path, allow_sudo: bool, skip_image: bool, upgrade: bool, quiet: bool, num_make: int,
            memory: int, commits: tuple[str, ...], urls: tuple[str, ...], cache_read_only: bool, skip_fetch: bool,
            fetch_branches: bool, fetch_tags: bool, skip_cleanup: bool, parallel: int, no_layers: bool, offline: bool,
            no_network: bool, like: str | None, release: str | None, destination: Path | None, exactly: Path | None,
            fail_closed: bool, places: PlaceOptions, guests: GuestOptions, directory: Path | None) -> None:
    """Build DESCRIPTOR in clean guests, one for each suite and architecture.

    The outputs are left in build/out, the report in result/NAME-res.yml, the logs in var/install.log and var/build.log.
    What was built is printed as '<sha256>  <path>', then the hash of the report itself. With --like the exit status is
    30 when an output is not what was recorded.
    """
    from gitian.build.pipeline import BuildRequest, build
    from gitian.host import progress
    from gitian.host.workspace import Workspace
    from gitian.plan import Options, parse_assignments

    progress.set_quiet(quiet)
    reference = Reference(like=like, environment=exactly, release=release, destination=destination)
    reference.check()
    _check_together(reference, places, fail_closed=fail_closed, upgrade=upgrade, skip_image=skip_image)
    options = Options(
        commits=parse_assignments(commits, "-c/--commit"), urls=parse_assignments(urls, "-u/--url"),
        allow_sudo=allow_sudo, skip_image=skip_image, upgrade=upgrade, quiet=quiet, num_make=num_make, memory=memory,
        cache_read_only=cache_read_only, skip_fetch=skip_fetch, fetch_branches=fetch_branches, fetch_tags=fetch_tags,
        skip_cleanup=skip_cleanup, parallel=parallel, layers=not no_layers, offline=offline,
        no_network=no_network or fail_closed)
    environment = guests.environment(os.environ)
    workspace = Workspace.locate(directory, os.environ)
    with workspace.lock():
        wanted = reference.wanted(descriptor, workspace, places.places(environment, offline=offline)) \
            if reference.given else None
        outcome = build(BuildRequest(
            descriptor=descriptor, options=options, workspace=workspace,
            backend=guests.backend(environment), environment=environment, wanted=wanted,
            tell=(lambda line: None) if quiet else lambda line: click.echo(progress.plain(line))))
    if wanted is not None and outcome.comparison is not None:
        _say_whether(outcome.comparison, wanted.origin)


def _check_together(reference: Reference, places: PlaceOptions, *, fail_closed: bool, upgrade: bool,
                    skip_image: bool) -> None:
    from gitian.errors import UsageError

    if reference.given:
        for name, given in (("--upgrade", upgrade), ("--skip-image", skip_image)):
            if given:
                raise UsageError(f"{name} changes what is installed, and --like and --environment say what is.",
                                 hint="Leave one of them out.")
    elif fail_closed or places.given:
        name = "--fail-closed" if fail_closed else "--debs, --snapshot and --snapshot-time"
        raise UsageError(f"{name}: there is no environment to be held to.",
                         hint="Name it with --environment FILE, or --like REPORT.")


def _say_whether(comparison: Comparison, origin: str) -> None:
    """The end of a rebuild. Raises NotReproducedError."""
    from gitian.errors import NotReproducedError
    from gitian.host import progress

    good = sum(output.fate.value == "reproduced" for output in comparison.outputs)
    if comparison.reproduced:
        progress.say(f"Reproduced: all {good} outputs are what '{origin}' records.")
        return
    raise NotReproducedError(
        f"Not reproduced: {len(comparison.outputs) - good} of {len(comparison.outputs)} outputs are not what "
        f"'{origin}' records." if comparison.outputs else f"Nothing was built, and '{origin}' records nothing.",
        hint="Inputs and environment were the same. What else differs from build to build: time, paths, the number of "
             "processors (-j), memory (-m), the kernel.")
