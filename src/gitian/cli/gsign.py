"""``gsign``: options into a SignRequest; what is about to be signed is shown on standard error."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import click

from gitian.cli.classic import ClassicCommand
from gitian.cli.common import CONTEXT

if TYPE_CHECKING:
    from gitian.sigs.sign import Draft

#: What the classic refused, it refused with this status; scripts made for it may look.
_REFUSED = 1


@click.command("gsign", cls=ClassicCommand, context_settings=CONTEXT)
@click.argument("descriptors", metavar="DESCRIPTOR", nargs=-1, type=click.Path(path_type=Path))
@click.option("-s", "--signer", metavar="SIGNER", help="Whom to sign as: the key, and the name of the directory. "
              "Required.")
@click.option("-r", "--release", metavar="REL", default="test", show_default=True, help="The release's name.")
@click.option("-d", "--destination", metavar="DIR", type=click.Path(path_type=Path),
              help="The directory that holds all releases [default: sigs/NAME].")
@click.option("-p", "--signing_program", "--signing-program", "program", metavar="PROG",
              help="Sign by 'PROG -u SIGNER ASSERTION' instead of GnuPG; '-p true' leaves the assertion unsigned, to "
              "be signed elsewhere.")
@click.option("--strict", is_flag=True, help="Refuse when the report is not what the descriptor promises.")
@click.option("-q", "--quiet", is_flag=True, help="Do not show what is signed.")
@click.option("-C", "--directory", type=click.Path(path_type=Path, file_okay=False),
              help="The workspace [default: $GITIAN_BASE, else the current directory].")
def command(descriptors: tuple[Path, ...], signer: str | None, release: str, destination: Path | None,
            program: str | None, strict: bool, quiet: bool, directory: Path | None) -> None:
    """Sign the report of DESCRIPTOR's last build as SIGNER.

    Writes the assertion DIR/REL/SIGNER/NAME-build.assert and beside it the detached signature NAME-build.assert.sig.
    """
    from gitian.errors import DescriptorError, FormatError, UsageError
    from gitian.host.workspace import Workspace
    from gitian.sigs import program as programs
    from gitian.sigs import sign

    try:
        if not descriptors:
            raise UsageError("Which descriptor? None was given.", hint="Try: gsign --signer SIGNER DESCRIPTOR")
        if not signer:
            raise UsageError("Whom to sign as? --signer was not given.", hint="Try: gsign --signer SIGNER DESCRIPTOR")
        workspace = Workspace.locate(directory, os.environ)
        prepared = sign.draft(sign.SignRequest(
            descriptor=descriptors[0], result=workspace.result, sigs=workspace.sigs, signer=signer, release=release,
            destination=destination, strict=strict,
            program=None if program is None else programs.words(program, "--signing-program")))
    except (DescriptorError, FormatError, UsageError) as error:
        error.exit_code = _REFUSED
        raise
    if not quiet:
        _show(prepared)
        if len(descriptors) > 1:
            _say(f"warning: only the first descriptor is signed; '{descriptors[1]}' is passed over")
    for warning in prepared.warnings:
        _say(f"warning: {warning}")
    signed = sign.sign(prepared)
    if not quiet:
        _say(f"signed: {prepared.signature}" if signed else
             f"not signed yet: put the detached signature at {prepared.signature}")


def _show(prepared: Draft) -> None:
    """What is about to be signed, as 'git commit' shows what it commits."""
    request = prepared.request
    _say(f"signing '{prepared.name}', release '{request.release}', as '{request.signer}':")
    for entry in prepared.outputs:
        _say(f"  {entry.sha256}  {entry.path}")


def _say(text: str) -> None:
    from gitian.host.progress import plain

    click.echo(plain(text), err=True)
