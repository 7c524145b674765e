"""``gitian environment snapshot``: a descriptor's environment, as a file to be blessed."""

from __future__ import annotations

import os
from pathlib import Path

import click

from gitian.cli.backends import GuestOptions, guest_options
from gitian.cli.common import CONTEXT
from gitian.cli.places import PlaceOptions, place_options


@click.command("snapshot", context_settings=CONTEXT)
@click.argument("descriptor", type=click.Path(path_type=Path, dir_okay=False))
@click.option("-o", "--output", type=click.Path(path_type=Path, dir_okay=False), help="Write the file there, whole or "
              "not at all [default: standard output].")
@click.option("--no-base", is_flag=True, help="Do not make the root filesystem of these packages, and so do not state "
              "its digest.")
@click.option("--offline", is_flag=True, help="Take the packages of the layer as it is; do not ask whether the archive "
              "has changed.")
@click.option("--no-layers", is_flag=True, help="Install the packages anew, and keep no layer.")
@place_options
@guest_options
@click.option("-C", "--directory", type=click.Path(path_type=Path, file_okay=False),
              help="The workspace [default: $GITIAN_BASE, else the current directory].")
def command(descriptor: Path, output: Path | None, no_base: bool, offline: bool, no_layers: bool, places: PlaceOptions,
            guests: GuestOptions, directory: Path | None) -> None:
    """Record the environment of DESCRIPTOR's guests without building anything.

    Its packages are installed, or found in a layer, as for a build. A project keeps the file in its repository, and
    everybody builds with 'gbuild --environment FILE'.
    """
    from gitian.build.snapshot import SnapshotRequest, snapshot
    from gitian.errors import UsageError
    from gitian.host import progress
    from gitian.host.workspace import Workspace, give_to_caller, write_atomically
    from gitian.plan import Options

    if output is not None and not output.absolute().parent.is_dir():
        raise UsageError(f"There is no directory '{output.parent}' to write '{output.name}' to.")
    environment = guests.environment(os.environ)
    workspace = Workspace.locate(directory, os.environ)
    with workspace.lock():
        found = snapshot(SnapshotRequest(
            descriptor=descriptor, options=Options(offline=offline, layers=not no_layers), workspace=workspace,
            backend=guests.backend(environment), environment=environment,
            places=None if no_base else places.places(environment, offline=offline)))
    data = found.to_json()
    if output is None:
        click.echo(data.decode(), nl=False)
        return
    write_atomically(output, data)
    give_to_caller(output, environment)
    progress.say(f"'{output}' has " + ", ".join(f"{one.label} ({len(one.packages)} packages)"
                                                for one in found.environments))
