"""``gverify --rbvf``: a verdict written as a file of results of rebuilds, signed when asked."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from gitian.attest import results
from gitian.errors import UsageError
from gitian.formats import rbvf
from gitian.host import destination

if TYPE_CHECKING:
    from gitian.attest.inspection import Attested
    from gitian.sigs.verdict import Verdict


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """Where to write, as whom to sign it, and what to say of where the binaries come from; None for the usual."""

    path: Path
    signer: str | None
    origin: str | None
    uri: str | None
    outputs: Path | None


def check(wanted: Wanted) -> None:
    """Find out early what would only fail late. Raises UsageError."""
    destination.check(wanted.path)
    if wanted.origin is not None and rbvf.origin_name(wanted.origin) != wanted.origin:
        raise UsageError(f"'{wanted.origin}' cannot be the name of an origin.",
                         hint="The format allows letters, '-' and '_'.")


def write(wanted: Wanted, verdict: Verdict, attested: Mapping[str, Attested]) -> None:
    """Write FILE (gzip when it ends in .gz), and FILE.sig when it is to be signed. Raises HostError, SigningError."""
    origin = results.Origin(name=wanted.origin or rbvf.origin_name(verdict.name),
                            uri=wanted.uri if wanted.uri is not None else f"urn:gitian:release:{verdict.name}")
    made = results.document(verdict, attested, results.initial_of(verdict, wanted.outputs), origin).to_json()
    data = rbvf.packed(made) if wanted.path.suffix == ".gz" else made
    signature = None
    if wanted.signer is not None:
        from gitian.sigs import gpg

        signature = gpg.sign_detached(data, wanted.signer)
    beside = wanted.path.with_name(wanted.path.name + ".sig")
    if signature is None and beside.is_file():
        beside.unlink()  # it belongs to what was there before
    with destination.writing(wanted.path) as file:
        file.write(data)
    if signature is not None:
        with destination.writing(beside) as file:
            file.write(signature)
