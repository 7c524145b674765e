"""``gsign``: options into a SignRequest; what is about to be signed is shown on standard error."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import click

from gitian.cli.classic import ClassicCommand
from gitian.cli.common import CONTEXT

if TYPE_CHECKING:
    from gitian.sigs.sign import Draft
    from gitian.sigsrepo.commit import Plan

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
@click.option("--attest", "attested", is_flag=True, help="Sign the statements beside the report too: what was built "
              "from what, for other programs to read.")
@click.option("--attest-key", "attest_key", metavar="FILE", type=click.Path(path_type=Path, dir_okay=False),
              help="Sign these with an Ed25519 key of OpenSSH or minisign instead (includes --attest).")
@click.option("--strict", is_flag=True, help="Refuse when the report is not what the descriptor promises.")
@click.option("--commit", "commit", is_flag=True, help="Commit the assertion and its signature, and nothing else, to "
              "the git repository that they lie in.")
@click.option("-q", "--quiet", is_flag=True, help="Do not show what is signed.")
@click.option("-C", "--directory", type=click.Path(path_type=Path, file_okay=False),
              help="The workspace [default: $GITIAN_BASE, else the current directory].")
def command(descriptors: tuple[Path, ...], signer: str | None, release: str, destination: Path | None,
            program: str | None, attested: bool, attest_key: Path | None, strict: bool, commit: bool, quiet: bool,
            directory: Path | None) -> None:
    """Sign the report of DESCRIPTOR's last build as SIGNER.

    Writes the assertion DIR/REL/SIGNER/NAME-build.assert and beside it the detached signature NAME-build.assert.sig;
    with --attest also NAME-build.intoto.jsonl.
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
    with contextlib.ExitStack() as stack:
        wanted = attested or attest_key is not None
        plan = stack.enter_context(_planned(prepared, wanted)) if commit else None
        keep = _attestation(prepared, workspace.result, attest_key) if wanted else None
        signed = sign.sign(prepared)
        if not quiet:
            _say(f"signed: {prepared.signature}" if signed else
                 f"not signed yet: put the detached signature at {prepared.signature}")
        if keep is not None:
            path = keep()
            if not quiet:
                _say(f"attested: {path}")
        else:
            from gitian.attest import signing

            if signing.remove_stale(prepared.content, prepared.path) and not quiet:
                _say("warning: removed an attestation that contradicts what was signed; --attest makes a new one")
        if plan is not None:
            _commit(plan, signed, quiet=quiet)


def _attestation(prepared: Draft, result: Path, key: Path | None) -> Callable[[], Path]:
    """The statements, checked; called after the assertion was signed, they are signed too. Raises SigningError."""
    from gitian.attest import signing

    request = prepared.request
    attestation = signing.gather(prepared.content, prepared.path, result, prepared.name)
    if key is not None:
        from gitian.attest.ed25519 import secret_key

        pen = signing.by_key(secret_key(key, _password))
    elif request.program is not None:
        pen = signing.by_program(request.program, request.signer)
    else:
        pen = signing.by_gpg(request.signer)

    def keep() -> Path:
        signing.keep(attestation, signing.sign(attestation, pen))
        return attestation.path
    return keep


def _password(prompt: str) -> str:
    import getpass

    from gitian.errors import SigningError

    try:
        return getpass.getpass(prompt)
    except (EOFError, AttributeError):  # standard input is at its end, or closed
        raise SigningError("The key has a password, and nobody is there to give it.",
                           hint="Run it at a terminal, or use a key without a password.") from None


def _planned(prepared: Draft, attested: bool) -> contextlib.AbstractContextManager[Plan]:
    from gitian.attest.signing import beside
    from gitian.sigsrepo.commit import planned

    request = prepared.request
    return planned(Path(prepared.path), prepared.signature, *([Path(beside(prepared.path))] if attested else []),
                   name=prepared.name, release=request.release, signer=request.signer)


def _commit(plan: Plan, signed: bool, *, quiet: bool) -> None:
    from gitian.errors import SigningError
    from gitian.sigsrepo.commit import carry_out

    if not signed:
        raise SigningError("There is no signature yet, so nothing was committed.",
                           hint="Put it there, and run the same command again.")
    if plan.detached:
        _say("warning: no branch is checked out there: the commit will be on none")
    made = carry_out(plan)
    if not quiet:
        _say(f"committed: {made[:12]}" if made is not None else "nothing to commit: it is there already")


def _show(prepared: Draft) -> None:
    """What is about to be signed, as 'git commit' shows what it commits."""
    request = prepared.request
    _say(f"signing '{prepared.name}', release '{request.release}', as '{request.signer}':")
    for entry in prepared.outputs:
        _say(f"  {entry.sha256}  {entry.path}")


def _say(text: str) -> None:
    from gitian.host.progress import plain

    click.echo(plain(text), err=True)
