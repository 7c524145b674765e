"""``gsign --attest``: the statements of a build, checked against the assertion, each in a signed envelope."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from gitian.attest import openpgp
from gitian.attest.contradictions import contradictions
from gitian.attest.ed25519 import SecretKey, keyid_of
from gitian.attest.statements import path_of
from gitian.errors import FormatError, SigningError
from gitian.formats import provenance
from gitian.formats.assertion import Assertion
from gitian.formats.envelope import (
    BUNDLE_LIMIT,
    Envelope,
    EnvelopeSignature,
    parse_bundle,
    pre_authentication,
    write_bundle,
)
from gitian.formats.provenance import Provenance
from gitian.host import process
from gitian.host.workspace import write_atomically
from gitian.sigs import gpg
from gitian.sigs.packets import PacketError
from gitian.sigs.sign import has_terminal

#: Beside '<name>-build.assert'.
SUFFIX = "-build.intoto.jsonl"

_HINT = "Build again with 'gbuild', or sign without --attest."


@dataclass(frozen=True, slots=True, kw_only=True)
class Attestation:
    """What is going to be attested: where, and each statement's label and bytes."""

    path: Path
    statements: tuple[tuple[str, bytes], ...]


def beside(assertion: str) -> str:
    """The attestation's path, given the assertion's."""
    return assertion.removesuffix("-build.assert") + SUFFIX


def gather(assertion: bytes, assertion_path: str, result: Path, name: str) -> Attestation:
    """Read the statements beside the report. Raises SigningError: one is missing, or tells of something else."""
    read = Assertion.parse(assertion, assertion_path)
    labels = [label for label, _ in read.base_manifests or ()]
    if not labels:
        raise SigningError("The report names no environment, so there is nothing to attest.", hint=_HINT)
    found, parsed = [], []
    for label in labels:
        path = path_of(result, name, label)
        try:
            with path.open("rb") as file:
                data = file.read(provenance.LIMIT + 1)
            parsed.append(Provenance.parse(data, str(path)))
        except OSError as error:
            raise SigningError(f"The statement '{path}' about {label} cannot be read: {error.strerror}.",
                               hint=_HINT) from error
        except FormatError as error:
            raise SigningError(str(error), hint=_HINT) from error
        found.append((label, data))
    if wrong := contradictions(read, parsed):
        more = f" (and {len(wrong) - 5} more)" if len(wrong) > 5 else ""
        raise SigningError("The statements do not tell of what is signed: " + "; ".join(wrong[:5]) + more + ".",
                           hint=_HINT)
    return Attestation(path=Path(beside(assertion_path)), statements=tuple(found))


def by_gpg(signer: str) -> Callable[[bytes], EnvelopeSignature]:
    """Sign with the OpenPGP key that signs assertions. What is returned raises SigningError, MissingToolError."""
    return lambda content: _enclosed(gpg.sign_detached(content, signer, digest="SHA256"), "GnuPG")


def by_program(program: tuple[str, ...], signer: str) -> Callable[[bytes], EnvelopeSignature]:
    """Sign by the user's program, called as for assertions. What is returned raises SigningError."""
    def sign(content: bytes) -> EnvelopeSignature:
        with tempfile.TemporaryDirectory(prefix="gitian-attest-") as where:
            path = Path(where) / "statement"
            path.write_bytes(content)
            with Path(os.devnull).open("rb") as nothing:
                status = process.run_in_foreground([*program, "-u", signer, path],
                                                   stdin=None if has_terminal() else nothing)
            if status:
                raise SigningError(f"The signing program '{program[0]}' {process.ended_how(status)}.")
            try:
                proof = path.with_name("statement.sig").read_bytes()
            except OSError:
                raise SigningError(f"The signing program '{program[0]}' left no signature of the attestation.",
                                   hint="Sign where the key is, or with an Ed25519 key (--attest-key).") from None
        return _enclosed(proof, f"'{program[0]}'")
    return sign


def by_key(key: SecretKey) -> Callable[[bytes], EnvelopeSignature]:
    """Sign with an Ed25519 key."""
    return lambda content: EnvelopeSignature(keyid=keyid_of(key.public), sig=key.sign(content))


def sign(attestation: Attestation, pen: Callable[[bytes], EnvelopeSignature]) -> bytes:
    """The signed bundle. Raises whatever the pen raises."""
    return write_bundle(tuple(
        Envelope(payload=payload, payload_type=provenance.PAYLOAD_TYPE,
                 signatures=(pen(pre_authentication(provenance.PAYLOAD_TYPE, payload)),))
        for _, payload in attestation.statements))


def keep(attestation: Attestation, bundle: bytes) -> None:
    """Put a signed bundle in its place. Raises HostError."""
    write_atomically(attestation.path, bundle)


def remove_stale(assertion: bytes, assertion_path: str) -> bool:
    """Remove an attestation beside an assertion that it contradicts, for it belongs to an earlier one; whether it did.
    """
    path = Path(beside(assertion_path))
    try:
        with path.open("rb") as file:
            data = file.read(BUNDLE_LIMIT + 1)
    except OSError:
        return False
    try:
        statements = [Provenance.parse(envelope.payload, str(path)) for envelope in parse_bundle(data, str(path))]
        if not contradictions(Assertion.parse(assertion, assertion_path), statements):
            return False
    except FormatError:
        pass
    path.unlink(missing_ok=True)
    return True


def _enclosed(proof: bytes, who: str) -> EnvelopeSignature:
    try:
        return openpgp.enclosed(proof)
    except PacketError as error:
        raise SigningError(f"What {who} made is no signature of the attestation: it {error}.") from error
