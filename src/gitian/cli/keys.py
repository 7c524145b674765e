"""``gitian keys``: who signed a release, and whether their keys are at hand."""

from __future__ import annotations

import os
from pathlib import Path

import click

from gitian.cli.classic import ClassicCommand
from gitian.cli.common import CONTEXT, json_text


@click.command("keys", cls=ClassicCommand, context_settings=CONTEXT)
@click.argument("descriptor", required=False, type=click.Path(path_type=Path))
@click.option("-d", "--destination", metavar="DIR", type=click.Path(path_type=Path),
              help="The directory that holds all releases [default: sigs/NAME].")
@click.option("-r", "--release", metavar="REL", help="The release; without it all keys at hand are listed.")
@click.option("--keyring", "keyrings", metavar="FILE|DIR", multiple=True, type=click.Path(path_type=Path),
              help="Public keys, armoured or binary. May be given more than once.")
@click.option("--only-keyring", is_flag=True, help="Use only the keys of --keyring: neither key folders beside the "
              "signatures nor the GnuPG home.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
@click.option("-C", "--directory", type=click.Path(path_type=Path, file_okay=False),
              help="The workspace [default: $GITIAN_BASE, else the current directory].")
def command(descriptor: Path | None, destination: Path | None, release: str | None, keyrings: tuple[Path, ...],
            only_keyring: bool, as_json: bool, directory: Path | None) -> int:
    """List who signed a release: with keys that are known, expired, revoked or missing.

    With DESCRIPTOR only its package is looked at, else all packages of the release. No signature is checked.

    Exit status: 0 all keys are known; 1 a key is missing, expired or revoked, or a signature is missing.
    """
    from gitian.cli.gverify import check_release
    from gitian.errors import NothingToVerifyError, UsageError
    from gitian.formats.descriptor import Identity
    from gitian.host.progress import plain
    from gitian.host.workspace import Workspace
    from gitian.sigs import keys, roster, tree

    name = None if descriptor is None else Identity.read(descriptor).name
    if destination is None and name is not None:
        destination = Workspace.locate(directory, os.environ).sigs / name
    if release is not None:
        check_release(release)
        if destination is None:
            raise UsageError("Which signatures? Neither a descriptor nor a directory was given.",
                             hint="Try: gitian keys -d DIR -r RELEASE")
    where = None if destination is None else tree.DirectoryTree(destination)
    keyring = keys.gather(keys.default_sources(keyrings, only=only_keyring), where)
    for origin, problem in keyring.problems:
        click.echo(plain(f"keys: the key file '{origin}' {problem}"), err=True)
    if release is None or where is None:
        rows = roster.of_keyring(keyring)
    else:
        try:
            rows = roster.of_release(where, release, keyring, name=name)
        except tree.TreeError as error:
            raise NothingToVerifyError(f"The release '{where.label}/{release}' {error}.") from None
    if as_json:
        click.echo(json_text([{"signer": row.signer, "state": row.state.value, "fingerprint": row.fingerprint,
                                "user_id": row.user_id, "detail": row.detail, "packages": list(row.packages),
                                "origins": list(row.origins)} for row in rows]))
    else:
        width = max((len(plain(row.signer)) for row in rows), default=0)
        for row in rows:
            words = [row.state.value.ljust(12), row.fingerprint, f'"{row.user_id}"' if row.user_id else "", row.detail]
            lead = plain(row.signer).ljust(width) + "  " if width else ""
            click.echo((lead + plain(" ".join(word for word in words if word))).rstrip())
    return 0 if all(row.state is roster.State.KNOWN for row in rows) else 1
