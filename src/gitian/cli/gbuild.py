"""``gbuild``: options and environment into a BuildRequest, results onto standard output."""

from __future__ import annotations

import os
from pathlib import Path

import click

from gitian.cli.classic import ClassicCommand
from gitian.cli.common import CONTEXT


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
@click.option("--backend", type=click.Choice(["kvm", "lxc"]), help="What runs the guest [default: lxc with "
              "USE_LXC=1, else kvm].")
@click.option("--accel", type=click.Choice(["auto", "kvm", "tcg"]), default="auto", show_default=True,
              help="How qemu runs the guest: with hardware support, in software, or what works.")
@click.option("-C", "--directory", type=click.Path(path_type=Path, file_okay=False),
              help="The workspace [default: $GITIAN_BASE, else the current directory].")
def command(descriptor: Path, allow_sudo: bool, skip_image: bool, upgrade: bool, quiet: bool, num_make: int,
            memory: int, commits: tuple[str, ...], urls: tuple[str, ...], cache_read_only: bool, skip_fetch: bool,
            fetch_branches: bool, fetch_tags: bool, skip_cleanup: bool, parallel: int, no_layers: bool, offline: bool,
            no_network: bool, backend: str | None, accel: str, directory: Path | None) -> None:
    """Build DESCRIPTOR in clean guests, one for each suite and architecture.

    The outputs are left in build/out, the report in result/NAME-res.yml, the logs in var/install.log and var/build.log.
    What was built is printed as '<sha256>  <path>', then the hash of the report itself.
    """
    from gitian.build.pipeline import BuildRequest, build
    from gitian.cli.backends import choose_backend
    from gitian.host import progress
    from gitian.host.workspace import Workspace
    from gitian.plan import Options, parse_assignments

    progress.set_quiet(quiet)
    options = Options(
        commits=parse_assignments(commits, "-c/--commit"), urls=parse_assignments(urls, "-u/--url"),
        allow_sudo=allow_sudo, skip_image=skip_image, upgrade=upgrade, quiet=quiet, num_make=num_make, memory=memory,
        cache_read_only=cache_read_only, skip_fetch=skip_fetch, fetch_branches=fetch_branches, fetch_tags=fetch_tags,
        skip_cleanup=skip_cleanup, parallel=parallel, layers=not no_layers, offline=offline,
        no_network=no_network)
    environment = {**os.environ, "GITIAN_ACCEL": accel} if accel != "auto" else dict(os.environ)
    workspace = Workspace.locate(directory, os.environ)
    with workspace.lock():
        build(BuildRequest(
            descriptor=descriptor, options=options, workspace=workspace,
            backend=choose_backend(backend, environment), environment=environment,
            tell=(lambda line: None) if quiet else lambda line: click.echo(progress.plain(line))))
