"""A verdict as results of rebuilds: each signer is a rebuilder, for each target that was built."""

from __future__ import annotations

import datetime
import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from gitian.attest.files import own_file
from gitian.attest.inspection import Attested
from gitian.errors import GitianError
from gitian.formats import rbvf
from gitian.formats.manifest import Manifest
from gitian.formats.rbvf import Artifact, Document, Environment, Result, Status
from gitian.host import hashing
from gitian.sigs.verdict import Outcome, SignerOutcome, Verdict

#: The draft's component; the releases that are signed have no sub-branches.
COMPONENT = "main"

_UNTESTED = frozenset({Outcome.MISSING_RESULT, Outcome.MISSING_SIGNATURE, Outcome.NO_KEY})


@dataclass(frozen=True, slots=True, kw_only=True)
class Initial:
    """The build that the others are held against. ``partial``: it has some of the files; only these are compared."""

    words: str
    files: Mapping[str, str]
    signer: str | None = None
    partial: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Origin:
    """Where the binaries come from, as the draft has it."""

    name: str
    uri: str


@dataclass(frozen=True, slots=True, kw_only=True)
class _Build:
    """What one signer built, and for which target which file, as far as that is known."""

    signer: SignerOutcome
    files: Mapping[str, str]
    environments: tuple[tuple[str, str], ...]
    attested: Attested | None
    makers: Mapping[str, str] = field(default_factory=dict)


def initial_of(verdict: Verdict, outputs: Path | None) -> Initial | None:
    """The files of ``outputs``, or the result of the signer that the others were compared to; None for neither."""
    if outputs is not None:
        paths = {path for signer in verdict.signers for path in _files(signer)}
        found = {}
        for path in sorted(paths):
            place = own_file(outputs, path)
            if place is not None:
                try:
                    found[path] = hashing.sha256_file(place)
                except (OSError, GitianError):
                    continue
        return Initial(words="the files that were given", files=found, partial=True)
    chosen = verdict.signer(verdict.compared_to) if verdict.compared_to is not None else None
    if chosen is None or chosen.assertion is None:
        return None
    return Initial(words=f"the build of '{_unicode(chosen.signer)}'", files=_files(chosen), signer=chosen.signer)


def document(verdict: Verdict, attested: Mapping[str, Attested], initial: Initial | None, origin: Origin) -> Document:
    """All results of a verdict; of the initial build itself there is none, for it is no rebuild."""
    # Where some signers attest which target made which file, that is so for the files of all.
    makers = {path: statement.label for signer in reversed(verdict.signers) if signer.path in attested
              for statement in attested[signer.path].statements for path, _ in statement.subjects}
    builds = [_build(signer, attested.get(signer.path), makers) for signer in verdict.signers
              if initial is None or signer.signer != initial.signer]
    labels = list(dict.fromkeys(label for signer in verdict.signers for label, _ in _environments(signer)))
    results = []
    for build in builds:
        known = dict(build.environments)
        for label in labels or [""]:
            results.append(_result(verdict, build, label, known.get(label), initial))
    return Document(origin_uri=origin.uri, origin_name=origin.name, results=tuple(results),
                    initial=initial.words if initial is not None else "")


def _build(signer: SignerOutcome, attested: Attested | None, makers: Mapping[str, str]) -> _Build:
    return _Build(signer=signer, files=_files(signer), environments=_environments(signer), attested=attested,
                  makers=makers)


def _files(signer: SignerOutcome) -> Mapping[str, str]:
    return Manifest.parse(signer.assertion.out_manifest).by_path() if signer.assertion is not None else {}


def _environments(signer: SignerOutcome) -> tuple[tuple[str, str], ...]:
    return (signer.assertion.base_manifests or ()) if signer.assertion is not None else ()


def _result(verdict: Verdict, build: _Build, label: str, environment: str | None, initial: Initial | None) -> Result:
    signer = build.signer
    suite, _, architecture = label.rpartition("-") if "-" in label else (label, "", "")
    statement = next((one for one in build.attested.statements if one.label == label), None) if build.attested else None
    status, detail = _early(signer, environment)
    environments: tuple[Environment, ...] = ()
    if status is None and environment is not None:
        artifacts = _artifacts(build, label, initial)
        status, detail = _status(verdict, build, artifacts, initial)
        environments = (Environment(name=label, sha256=hashlib.sha256(environment.encode()).hexdigest(),
                                    packages=len(Manifest.parse(environment).entries), artifacts=artifacts),)
    started, finished = (_seconds(statement.started), _seconds(statement.finished)) if statement else (None, None)
    return Result(
        suite=suite, component=COMPONENT, architecture=architecture,
        target=rbvf.TRIPLES.get(architecture, f"{architecture}-unknown-linux-gnu" if architecture else ""),
        name=verdict.name, version=verdict.release, status=status or Status.UNTESTED, rebuilder=_unicode(signer.signer),
        key=signer.fingerprint if signer.valid else "", detail=detail, environments=environments,
        build_date=finished or signer.made,
        build_duration=finished - started if started and finished and finished >= started else None)


def _early(signer: SignerOutcome, environment: str | None) -> tuple[Status | None, str]:
    """What is known without looking at files: what does not count was not tested, or kept out on purpose."""
    if not signer.valid:
        words = f"{signer.outcome.value}: {signer.detail}" if signer.detail else signer.outcome.value
        return Status.UNTESTED if signer.outcome in _UNTESTED else Status.BLOCKED, words
    if environment is None:
        return Status.UNTESTED, "this signer did not build for this target"
    return None, ""


def _artifacts(build: _Build, label: str, initial: Initial | None) -> tuple[Artifact, ...]:
    """The files of a target, where an attestation says which these are; else all of the build."""
    there = initial.files if initial is not None else {}
    return tuple(Artifact(path=_unicode(path), sha256=build.files.get(path), origin=there.get(path),
                          compared=initial is not None and (not initial.partial or path in there))
                 for path in _ordered({*build.files, *there}) if build.makers.get(path, label) == label)


def _unicode(text: str) -> str:
    """A name in a tree, whose bytes need not be any characters, as text that can be written in JSON and read again."""
    return text.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def _ordered(paths: Iterable[str]) -> list[str]:
    return sorted(paths, key=lambda path: path.encode("utf-8", "surrogateescape"))


def _status(verdict: Verdict, build: _Build, artifacts: tuple[Artifact, ...],
            initial: Initial | None) -> tuple[Status, str]:
    unknown = "" if build.makers or len(build.environments) < 2 else \
        "; which target made which file is not known: all of the build's are listed"
    if initial is not None:
        if not any(one.compared for one in artifacts):
            return Status.UNTESTED, "none of these files was given to compare with"
        wrong = [one.path for one in artifacts if one.compared and one.sha256 != one.origin]
        if not wrong:
            return Status.REPRODUCIBLE, unknown.removeprefix("; ")
        return Status.UNREPRODUCIBLE, f"{len(wrong)} {'file differs' if len(wrong) == 1 else 'files differ'}{unknown}"
    group = next((one for one in verdict.groups if one.number == build.signer.group), None)
    if sum(len(one.keys) for one in verdict.groups) < 2:
        return Status.UNTESTED, "nobody else has built it"
    if group is not None and group.number == verdict.reference and len(group.keys) > 1:
        return Status.REPRODUCIBLE, f"{len(group.keys)} signers built the same{unknown}"
    return Status.UNREPRODUCIBLE, f"the largest group built something else{unknown}"


def _seconds(text: str) -> int | None:
    try:
        return int(datetime.datetime.fromisoformat(text).timestamp())
    except (ValueError, OverflowError):
        return None
