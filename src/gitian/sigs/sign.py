"""gsign's work: from a report to a signed assertion, ``<destination>/<release>/<signer>/<name>-build.assert[.sig]``.

A draft is made first, so that it can be shown; then it is signed. Each file is there whole or not at all.
"""

from __future__ import annotations

import contextlib
import os
from dataclasses import dataclass
from pathlib import Path

from gitian import names
from gitian.errors import SigningError, UsageError
from gitian.formats.assertion import Assertion
from gitian.formats.descriptor import Identity
from gitian.formats.manifest import Entry, Manifest
from gitian.formats.report import Report
from gitian.host import process
from gitian.host.workspace import make_directory, write_atomically
from gitian.sigs import gpg, packets, promises
from gitian.sigs.tree import DirectoryTree, TreeError


@dataclass(frozen=True, slots=True, kw_only=True)
class SignRequest:
    """What to sign as whom. ``destination`` None is ``<workspace>/sigs/<name>``; ``program`` None is GnuPG itself."""

    descriptor: Path
    result: Path
    sigs: Path
    signer: str
    release: str = "test"
    destination: Path | None = None
    program: tuple[str, ...] | None = None
    strict: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Draft:
    """What is about to be signed, and what there is to say against it."""

    request: SignRequest
    name: str
    content: bytes
    path: str
    outputs: tuple[Entry, ...]
    warnings: tuple[str, ...]

    @property
    def signature(self) -> Path:
        """Where the signature belongs."""
        return Path(self.path + ".sig")


def draft(request: SignRequest) -> Draft:
    """Read report and descriptor; nothing is written.

    Raises DescriptorError, FormatError (the report), UsageError (names), SigningError (--strict).
    """
    identity = Identity.read(request.descriptor)
    name = _name(request, identity)
    release = _checked(request.release, "release")
    _check_signer(request.signer)
    path = request.result / f"{name}-res.yml"
    report = Report.read(path)
    assertion = Assertion(
        report=report, release=release, name=name, optionals=identity.optionals,
        written_name=None if isinstance(identity.name_value, str) else identity.name_value)
    warnings = promises.broken(report, name, identity.sha256, request.descriptor)
    if warnings and request.strict:
        raise SigningError("The report is not what the descriptor promises, and --strict was given:\n"
                           + "\n".join(warnings), hint="Build again with 'gbuild', or sign without --strict.")
    base = str(request.destination) if request.destination is not None else str(request.sigs / identity.name)
    # Joined by hand, for pathlib would tidy up what the signing program is to be given.
    where = "/".join((base.rstrip("/") or "/", release, request.signer, f"{name}-build.assert"))
    return Draft(request=request, name=name, content=assertion.to_yaml().encode(), path=where,
                 outputs=Manifest.parse(report.out_manifest).entries, warnings=warnings)


def sign(prepared: Draft) -> bool:
    """Write the assertion and have it signed. False when the program left no signature ('-p true').

    With GnuPG itself nothing is written before it has signed. With a program, a signature that was there for other
    content is removed, for it would be a bad one, and what a failing program leaves is removed too.
    Raises SigningError, MissingToolError, HostError.
    """
    request = prepared.request
    path = Path(prepared.path)
    if request.program is None:
        signature = gpg.sign_detached(prepared.content, request.signer)
        make_directory(path.parent)
        _remove(prepared.signature)
        write_atomically(path, prepared.content)
        write_atomically(prepared.signature, signature)
        return True
    return _by_program(prepared, request.program)


def _by_program(prepared: Draft, program: tuple[str, ...]) -> bool:
    path, signature = Path(prepared.path), prepared.signature
    make_directory(path.parent)
    before: bytes | None = None
    with contextlib.suppress(OSError):
        if path.read_bytes() == prepared.content and not signature.is_symlink():
            before = signature.read_bytes()
    # GnuPG will not write over an old signature without asking.
    _remove(signature)
    write_atomically(path, prepared.content)
    try:
        with Path(os.devnull).open("rb") as nothing:
            status = process.run_in_foreground([*program, "-u", prepared.request.signer, prepared.path],
                                               stdin=None if has_terminal() else nothing)
    except BaseException:
        _put_back(signature, before)
        raise
    if status:
        _put_back(signature, before)
        raise SigningError(f"The signing program '{program[0]}' {process.ended_how(status)}.",
                           hint=f"The assertion is at '{prepared.path}', not signed.")
    _check_unchanged(path, prepared.content)
    if not os.path.lexists(signature):
        _put_back(signature, before)
        return before is not None
    try:
        packets.detached(DirectoryTree(path.parent).read(signature.name, packets.SIGNATURE_LIMIT))
    except (TreeError, packets.PacketError) as error:
        raise SigningError(f"What the signing program left is no signature: '{signature}' {error}.",
                           hint="It must leave an OpenPGP detached signature there, as 'gpg --detach-sign' does."
                           ) from error
    return True


def _remove(signature: Path) -> None:
    try:
        signature.unlink(missing_ok=True)
    except OSError as error:
        raise SigningError(f"'{signature}' is in the way of the signature, and cannot be removed: {error.strerror}.",
                           hint="Move it away, or make its directory writable, and sign again.") from error


def _check_unchanged(path: Path, content: bytes) -> None:
    try:
        if path.read_bytes() == content:
            return
    except OSError:
        pass
    raise SigningError(f"The signing program changed '{path}', which it was to sign.",
                       hint="It must leave the assertion as it is, and write the signature beside it.")


def _put_back(signature: Path, before: bytes | None) -> None:
    _remove(signature)
    if before is not None:
        write_atomically(signature, before)


def has_terminal() -> bool:
    """Whether standard input is a terminal, at which a program may ask for a password."""
    try:
        return os.isatty(0)
    except OSError:
        return False


def _name(request: SignRequest, identity: Identity) -> str:
    """The package's name in file names. An unquoted 1.10 is a number to Ruby, whose reports were named after that."""
    if isinstance(identity.name_value, str):
        return identity.name
    if request.destination is None:
        raise UsageError(f"The name {identity.name} of '{request.descriptor}' is no text to YAML.",
                         hint=f'Write it in quotes: name: "{identity.name}"')
    if (request.result / f"{identity.name}-res.yml").exists():
        return identity.name
    value = identity.name_value
    return _checked(str(value).lower() if isinstance(value, bool) else str(value), "name")


def _checked(text: str, what: str) -> str:
    try:
        return names.check_directory_name(text)
    except ValueError as error:
        raise UsageError(f"The {what} {error}.") from error


def _check_signer(signer: str) -> None:
    """A signer is a key's name and a directory's; it never reaches a shell, so only ways out are refused."""
    parts = signer.split("/")
    # Git cannot hold a '.git' in a folder, and what cannot be printed is somebody else's name in disguise, or no text.
    if any(part.lower() in ("", ".", "..", ".git") for part in parts) or not signer.isprintable() or signer[0] == "-":
        raise UsageError(f"'{signer}' cannot be the name of a signer's directory.",
                         hint="Name the key to sign with, such as a nickname, an address or a fingerprint.")
    if len(os.fsencode(signer)) > 200:
        raise UsageError("The signer's name is longer than 200 bytes.")
