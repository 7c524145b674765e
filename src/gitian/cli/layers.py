"""``gitian layers``: what builds start from, listed and removed."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from gitian.cli.common import CONTEXT, json_text

if TYPE_CHECKING:
    from gitian.environment.layers import Layer

_DIRECTORY = click.option("-C", "--directory", type=click.Path(path_type=Path, file_okay=False),
                          help="The workspace [default: $GITIAN_BASE, else the current directory].")
_JSON = click.option("--json", "as_json", is_flag=True, help="Print the layers as JSON.")


@click.group("layers", context_settings=CONTEXT)
def command() -> None:
    """List or remove layers: guests with their packages installed, which later builds start from."""


@command.command("list")
@_JSON
@_DIRECTORY
def list_layers(as_json: bool, directory: Path | None) -> None:
    """List the layers of a workspace, the last used first."""
    from gitian.build.layer import store_of
    from gitian.host.workspace import Workspace

    _show(store_of(Workspace.locate(directory, os.environ).var).layers(), as_json=as_json)


@command.command("prune")
@click.option("--all", "everything", is_flag=True, help="Remove all of them.")
@click.option("--size", metavar="MIB", type=click.IntRange(0, 2**30), help="Remove the least recently used ones until "
              "the rest takes no more than this [default: $GITIAN_LAYERS_SIZE, else 20480].")
@_JSON
@_DIRECTORY
def prune(everything: bool, size: int | None, as_json: bool, directory: Path | None) -> None:
    """Remove layers that nobody has used for long, and print which. The next build that wants one makes it again."""
    from gitian.build.layer import store_of
    from gitian.environment.layers import size_limit
    from gitian.errors import BusyError, UsageError
    from gitian.guest import session
    from gitian.host.workspace import Workspace

    if everything and size is not None:
        raise UsageError("'--all' and '--size' cannot be used together.", hint="'--size 0' is the same as '--all'.")
    workspace = Workspace.locate(directory, os.environ)
    with workspace.lock():
        record = session.load(workspace.root)
        if record is not None and session.alive(record):
            raise BusyError(f"A guest ({record.label}) runs in the workspace '{workspace.root}', perhaps from a layer.",
                            hint="Stop it first: 'libexec/stop-target'.")
        limit = 0 if everything else size_limit(os.environ) if size is None else size * 2**20
        _show(store_of(workspace.var).prune(limit), as_json=as_json)


def _show(layers: Sequence[Layer], *, as_json: bool) -> None:
    from gitian.host.progress import amount, plain

    if as_json:
        click.echo(json_text([_as_json(layer) for layer in layers]))
        return
    for layer in layers:
        record = layer.record
        click.echo(plain(f"{layer.path.name[:12]}  {record.backend}  {record.label:<16}  {amount(record.size):>9}  "
                         f"{time.strftime('%Y-%m-%d %H:%M', time.localtime(layer.used))}  {record.made}"))


def _as_json(layer: Layer) -> dict[str, Any]:
    record = layer.record
    return {"key": layer.path.name, "backend": record.backend, "target": record.label, "size": record.size,
            "used": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(layer.used)), "made": record.made,
            "packages": len(record.manifest.splitlines()),
            "indices": [{"url": index.url, "sha256": index.sha256} for index in record.indices]}
