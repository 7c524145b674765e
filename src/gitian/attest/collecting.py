"""Several rebuilders' results put side by side: who agrees with whom, and with the initial build. Pure.

The case that matters most: all rebuilders agree with each other, and the initial build is another one. Then it is the
initial build that was tampered with, or made on a machine that was.
"""

from __future__ import annotations

import enum
from collections.abc import Sequence
from dataclasses import dataclass

from gitian.formats.rbvf import TESTED, Document, Result, Status


class Standing(enum.Enum):
    """What all results about one thing come to."""

    CONTRADICTED = "ALL REBUILDERS CONTRADICT THE INITIAL BUILD"
    DISPUTED = "DISPUTED"
    SPLIT = "REBUILDERS DISAGREE"
    UNREPRODUCIBLE = "UNREPRODUCIBLE"
    AGREED = "AGREED"
    REPRODUCED = "REPRODUCED"
    FAILED = "NOT REBUILT"
    UNTESTED = "UNTESTED"


#: What fails a collection.
WRONG = frozenset({Standing.CONTRADICTED, Standing.DISPUTED, Standing.SPLIT, Standing.UNREPRODUCIBLE})
GOOD = frozenset({Standing.AGREED, Standing.REPRODUCED})


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """A file of results: what to call it, what is in it, and the key that signed it ('' when nobody did)."""

    label: str
    document: Document
    key: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """A result, by whom, and in which file."""

    rebuilder: str
    source: str
    result: Result


@dataclass(frozen=True, slots=True, kw_only=True)
class Build:
    """The same files, or (without hashes) the same word about them: who built it. ``initial``: as the initial build."""

    rebuilders: tuple[str, ...]
    files: tuple[tuple[str, str | None], ...]
    initial: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """One package of one origin for one target, and all that was told of it.

    ``against`` are the files in which all rebuilders agree with each other and not with the initial build;
    ``differing`` those that not everybody built the same. ``problems`` are sentences.
    """

    origin: str
    suite: str
    component: str
    target: str
    architecture: str
    name: str
    version: str
    standing: Standing
    builds: tuple[Build, ...]
    others: tuple[Told, ...]
    against: tuple[str, ...]
    differing: tuple[str, ...]
    problems: tuple[str, ...]

    @property
    def rebuilders(self) -> int:
        """How many rebuilders have built and compared it."""
        return len({who for build in self.builds for who in build.rebuilders})


def collect(sources: Sequence[Source]) -> tuple[Subject, ...]:
    """Everything that the files tell of, sorted; what is worst about each stands in its ``standing``."""
    told: dict[tuple[str, ...], list[Told]] = {}
    for source in sources:
        for result in source.document.results:
            # A bare draft's file names nobody: the file itself, or who signed it, is the rebuilder.
            who = result.key or result.rebuilder or source.key or source.label
            told.setdefault((source.document.origin_name, *result.what), []).append(
                Told(rebuilder=who, source=source.label, result=result))
    return tuple(_subject(key, told[key]) for key in sorted(told))


def _subject(key: tuple[str, ...], told: Sequence[Told]) -> Subject:
    tested = [one for one in told if one.result.status in TESTED]
    problems: list[str] = []
    builds = _builds(tested, problems)
    initials = _initials(tested)
    disputed = [path for path, digests in initials.items() if len(digests) > 1]
    problems += [f"'{path}' of the initial build is not the same file for everybody: "
                 + ", ".join(sorted(digest or "missing" for digest in initials[path])) for path in disputed]
    against = tuple(path for path, digest in _agreed(builds).items() if path in initials and path not in disputed
                    and initials[path] != {digest})
    names: dict[str, set[str | None]] = {}
    for build in builds:
        for path, digest in build.files:
            names.setdefault(path, set()).add(digest)
    differing = tuple(sorted(path for path, digests in names.items() if len(digests) > 1))
    return Subject(
        origin=key[0], suite=key[1], component=key[2], target=key[3], architecture=key[4], name=key[5],
        version=key[6], standing=_standing(builds, told, bool(against), bool(problems)), builds=tuple(builds),
        others=tuple(one for one in told if one.result.status not in TESTED), against=against, differing=differing,
        problems=tuple(problems))


def _builds(tested: Sequence[Told], problems: list[str]) -> list[Build]:
    """Rebuilders in groups by what they built. Hashes count, words only where there are none."""
    members: dict[tuple[object, ...], list[str]] = {}
    initial: dict[tuple[object, ...], bool] = {}
    files: dict[tuple[object, ...], tuple[tuple[str, str | None], ...]] = {}
    known: dict[str, tuple[object, ...]] = {}
    for one in tested:
        built = tuple(sorted((artifact.path, artifact.sha256) for artifact in one.result.artifacts))
        compared = [artifact for artifact in one.result.artifacts if artifact.compared]
        same = one.result.status is Status.REPRODUCIBLE
        if compared and same != all(artifact.sha256 == artifact.origin for artifact in compared):
            problems.append(f"{one.rebuilder} (in '{one.source}') says '{one.result.status.value}', and the hashes "
                            "beside it say otherwise")
            same = not same
        group: tuple[object, ...] = (built,) if built else ("as the initial build",) if same else (one.rebuilder,)
        if known.setdefault(one.rebuilder, group) != group:
            problems.append(f"{one.rebuilder} is said to have built two different things")
        if one.rebuilder not in members.setdefault(group, []):
            members[group].append(one.rebuilder)
        files[group] = built
        # What was compared with no build at all is 'reproducible' when others built the same.
        initial[group] = initial.get(group, False) or (same and (bool(compared) or not built))
    return sorted((Build(rebuilders=tuple(sorted(who)), files=files[group], initial=initial[group])
                   for group, who in members.items()), key=lambda build: (-len(build.rebuilders), build.rebuilders))


def _initials(tested: Sequence[Told]) -> dict[str, set[str | None]]:
    """What the rebuilders say each file of the initial build was."""
    found: dict[str, set[str | None]] = {}
    for one in tested:
        for artifact in one.result.artifacts:
            if artifact.compared:
                found.setdefault(artifact.path, set()).add(artifact.origin)
    return found


def _agreed(builds: Sequence[Build]) -> dict[str, str | None]:
    """The files that two or more rebuilders, and all there are, built alike."""
    if len({who for build in builds for who in build.rebuilders}) < 2 or not all(build.files for build in builds):
        return {}
    first, *others = [dict(build.files) for build in builds]
    paths = first.keys() | {path for other in others for path in other}
    return {path: first.get(path) for path in sorted(paths)
            if all(other.get(path) == first.get(path) for other in others)}


def _standing(builds: Sequence[Build], told: Sequence[Told], against: bool, problems: bool) -> Standing:
    if against:
        return Standing.CONTRADICTED
    if problems:
        return Standing.DISPUTED
    if not builds:
        failed = {Status.BUILDFAIL, Status.NOTFOUND, Status.TIMEOUT, Status.DEPWAIT}
        return Standing.FAILED if any(one.result.status in failed for one in told) else Standing.UNTESTED
    if all(build.initial for build in builds):
        return Standing.REPRODUCED
    if len(builds) > 1:
        # Without hashes nobody can tell whether those who did not reproduce it built the same.
        return Standing.SPLIT if any(build.initial or build.files for build in builds) else Standing.UNREPRODUCIBLE
    tested = [one.result for one in told if one.result.status in TESTED]
    if any(artifact.compared for result in tested for artifact in result.artifacts) or not builds[0].files:
        return Standing.UNREPRODUCIBLE
    if len(builds[0].rebuilders) > 1:
        return Standing.AGREED
    # Nobody said what it was compared with, and there is nobody else to compare it with.
    return Standing.UNREPRODUCIBLE if any(one.status is Status.UNREPRODUCIBLE for one in tested) else Standing.UNTESTED
