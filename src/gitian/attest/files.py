"""Files on this machine against what signers assert: our own last build, or outputs that somebody downloaded."""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from gitian.attest.inspection import Attested
from gitian.attest.statements import last_build, path_of
from gitian.errors import FormatError, GitianError, UsageError
from gitian.formats import provenance
from gitian.formats.manifest import Manifest
from gitian.formats.provenance import Provenance
from gitian.host import hashing, progress
from gitian.host.workspace import Workspace
from gitian.sigs.verdict import Verdict


@dataclass(frozen=True, slots=True, kw_only=True)
class Checked:
    """What comparing files gave. ``problems`` are sentences; ``absent`` are asserted files that are not there."""

    problems: tuple[str, ...]
    present: tuple[str, ...]
    absent: tuple[str, ...]


def against_own_build(workspace: Workspace, name: str, attested: Iterable[Attested]) -> tuple[str, ...]:
    """What in this workspace is not as it was when an attestation was made of it; nothing when none is of a build here.

    A build is recognised by its invocation, never by what it made, for that is the same wherever it is reproduced.
    Outputs are looked at while build/out is still that build's; files that were moved away are not missed.
    """
    report = _read(workspace.result / f"{name}-res.yml")
    found: list[str] = []
    for one in attested:
        statement = one.statements[0]
        if statement.package != name:
            continue
        here = {each.label: _read(path_of(workspace.result, name, each.label)) for each in one.statements}
        same = last_build(workspace.var) == statement.invocation
        if not same and statement.invocation not in map(_invocation, here.values()):
            continue
        found += _documents(one, report, here, f"result/{name}-res.yml", name)
        if same:
            wanted = {path: digest for each in one.statements for path, digest in each.subjects}
            found += compare(workspace.build / "out", wanted, "build/out").problems
    return tuple(dict.fromkeys(found))


def _documents(one: Attested, report: bytes | None, here: Mapping[str, bytes | None], where: str,
               name: str) -> Iterator[str]:
    if report is not None and hashlib.sha256(report).hexdigest() != one.statements[0].report:
        yield f"'{where}' is not the report that '{one.path}' attests; it has changed since."
    for statement, payload in zip(one.statements, one.payloads, strict=True):
        data = here[statement.label]
        if data is not None and data != payload:
            yield (f"'result/{path_of(Path(), name, statement.label)}' is not what was signed in '{one.path}'; "
                   "it has changed since.")


def compare(directory: Path, wanted: Mapping[str, str], shown: str) -> Checked:
    """Compare the files in a directory with their asserted hashes. What is there and is not asserted does not matter.

    Links are not followed out of the directory.
    """
    problems, present, absent = [], [], []
    for path, digest in sorted(wanted.items()):
        if not os.path.lexists(directory / path):
            absent.append(path)
            continue
        real = own_file(directory, path)
        if real is None:
            problems.append(f"'{shown}/{path}' is no file of its own.")
            continue
        present.append(path)
        try:
            found = hashing.sha256_file(real)
        except (OSError, GitianError) as error:
            problems.append(f"'{shown}/{path}' cannot be read: {error}.")
            continue
        if found != digest:
            problems.append(f"'{shown}/{path}' is not what was signed: it has {found}, and {digest} was asserted.")
    return Checked(problems=tuple(problems), present=tuple(present), absent=tuple(absent))


def against_verdict(directory: Path, verdict: Verdict) -> tuple[str, ...]:
    """What in a directory of outputs is not what the reference's signers assert. Raises UsageError: no directory."""
    if not directory.is_dir():
        raise UsageError(f"'{directory}' is not a directory.", hint="--outputs names a directory of built files.")
    chosen = next((signer for signer in verdict.signers if signer.valid and signer.group == verdict.reference
                   and signer.group is not None and signer.assertion is not None), None)
    if chosen is None or chosen.assertion is None:
        return (f"there is no agreed result to compare '{directory}' with",)
    checked = compare(directory, Manifest.parse(chosen.assertion.out_manifest).by_path(), str(directory))
    if not checked.present and not checked.problems:
        return (f"'{directory}' holds none of the files that were signed",)
    if checked.absent:
        progress.warn(f"{len(checked.absent)} of the files that were signed are not in '{directory}'.")
    return checked.problems


def own_file(directory: Path, path: str) -> Path | None:
    """The regular file that a path in a directory means, links followed; None: there is none, or it lies outside."""
    try:
        real = (directory / path).resolve()
        inside = ".." not in path.split("/") and real.is_relative_to(directory.resolve())
        return real if inside and stat.S_ISREG(real.stat().st_mode) else None
    except (OSError, ValueError, RuntimeError):  # no such name can be, or links that go round
        return None


def _read(path: Path) -> bytes | None:
    try:
        with open(path, "rb", opener=lambda name, flags: os.open(name, flags | os.O_NONBLOCK)) as file:
            return file.read(provenance.LIMIT + 1) if stat.S_ISREG(os.fstat(file.fileno()).st_mode) else None
    except OSError:
        return None


def _invocation(data: bytes | None) -> str:
    try:
        return Provenance.parse(data or b"", "statement").invocation
    except FormatError:
        return ""
