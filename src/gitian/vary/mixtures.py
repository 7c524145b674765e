"""Builds in mixtures of two recorded environments: exact images of them, and whose outputs come out."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from gitian.build.outputs import manifest_of
from gitian.build.request import TargetRequest
from gitian.build.target import build_target
from gitian.environment.compare import Change as Difference
from gitian.environment.compare import Subject, compare_targets
from gitian.errors import (
    BuildError,
    EnvironmentUnavailableError,
    FormatError,
    GitianError,
    GuestError,
    HangError,
    ImageError,
    OutputError,
)
from gitian.formats.environment import Environment, EnvironmentFile, by_file_name
from gitian.formats.image_record import InstalledPackage
from gitian.formats.manifest import Manifest
from gitian.guest.protocol import Backend
from gitian.host import progress
from gitian.host.workspace import make_directory, write_atomically
from gitian.images import exact
from gitian.images.exact import ExactRequest
from gitian.images.lookup import BaseImage
from gitian.inputs.prepare import PreparedInputs
from gitian.plan import BuildPlan, Target
from gitian.vary import relations
from gitian.vary.bisect import Change, Outcome
from gitian.vary.budget import Meter
from gitian.vary.building import patience_with
from gitian.vary.kept import Aside
from gitian.vary.minimise import Exhausted
from gitian.vary.relations import Move, Relations

Chosen = frozenset[Change]
#: The directory of the records of mixtures.
_MIXTURES = "mixtures"
#: Why a mixture gives no outputs; another error is one of this machine, or of the user.
_NO_BUILD = (EnvironmentUnavailableError, ImageError, BuildError, OutputError, GuestError)


@dataclass(frozen=True, slots=True, kw_only=True)
class Ends:
    """The two environments of one target's guest, and how A becomes B: by the name of each change, what it replaces
    with what (None: nothing)."""

    a: Environment
    b: Environment
    replaced: Mapping[str, tuple[InstalledPackage | None, InstalledPackage | None]]

    def mixture(self, names: frozenset[str]) -> Environment:
        """A with some of the changes made; with none or all of them it is A or B."""
        own = [self.replaced[name] for name in sorted(names & self.replaced.keys())]
        if not own:
            return self.a
        if len(own) == len(self.replaced):
            return self.b
        gone = {old for old, _ in own}
        packages = [package for package in self.a.packages if package not in gone]
        return replace(self.a, packages=by_file_name([*packages, *(new for _, new in own if new is not None)]),
                       base=None)


@dataclass(frozen=True, slots=True, kw_only=True)
class Field:
    """All that lies between two environments: the changes, which of them go together, and the ends by target.

    ``problems``: what A and B lack by the word of their own packages, which is no reason against a mixture.
    """

    changes: tuple[Change, ...]
    groups: tuple[tuple[str, ...], ...]
    ends: Mapping[str, Ends]
    relations: Mapping[str, Mapping[InstalledPackage, Relations]] = field(default_factory=dict)
    problems: frozenset[str] = frozenset()

    def hindrance(self, chosen: Chosen) -> str | None:
        """Why a mixture makes no system, by what its packages say; None when they do not say so."""
        names = frozenset(change.name for change in chosen)
        for label, ends in self.ends.items():
            known = self.relations.get(label, {})
            found = relations.problems([known[one] for one in ends.mixture(names).packages if one in known])
            if found - self.problems:
                return min(found - self.problems)
        return None


def field_of(pairs: Mapping[str, tuple[Environment, Environment]],
             debs: Mapping[InstalledPackage, Path] | None = None) -> Field:
    """What lies between environments, by target. With ``debs``, their files, also what packages need of each other.

    A change that several targets have is one: it is made in all of them or in none.
    """
    ends, order = {}, dict[str, Change]()
    labels: dict[tuple[str, str | None, str | None], set[str]] = {}
    for label, (a, b) in pairs.items():
        for one in _packages(a, b):
            labels.setdefault((_name(one, a), *_versions(one)), set()).add(label)
    ambiguous = {name for name, *_ in labels if sum(other == name for other, *_ in labels) > 1}
    for label, (a, b) in pairs.items():
        replaced = {}
        for one in _packages(a, b):
            name, versions = _name(one, a), _versions(one)
            if name in ambiguous:
                name += f" of {', '.join(sorted(labels[(name, *versions)]))}"
            order[name] = Change(name=name, before=versions[0], after=versions[1])
            replaced[name] = (one.old_package, one.new_package)
        ends[label] = Ends(a=a, b=b, replaced=replaced)
    names = sorted(order)
    if debs is None:
        return Field(changes=tuple(order[name] for name in names), groups=(), ends=ends)
    known, needs, problems = dict[str, dict[InstalledPackage, Relations]](), dict[str, set[str]](), set[str]()
    for label, both in ends.items():
        wanted = {one: debs[one] for one in dict.fromkeys([*both.a.packages, *both.b.packages])}
        known[label] = relations.read(wanted, both.a.architecture)
        for environment in (both.a, both.b):
            problems |= relations.problems([known[label][one] for one in environment.packages])
        for name, others in _needed(both, known[label]).items():
            needs.setdefault(name, set()).update(others)
    names, groups = relations.arranged(names, needs)
    return Field(changes=tuple(order[name] for name in names), groups=tuple(map(tuple, groups)), ends=ends,
                 relations=known, problems=frozenset(problems))


def _packages(a: Environment, b: Environment) -> list[Difference]:
    return [one for one in compare_targets(a, b) if one.subject is Subject.PACKAGE]


def _name(one: Difference, environment: Environment) -> str:
    package = one.old_package or one.new_package
    assert package is not None, "a package has changed"
    foreign = package.identity(environment.architecture)[1] != environment.architecture
    return f"{one.name}:{package.architecture}" if foreign else one.name


def _versions(one: Difference) -> tuple[str | None, str | None]:
    if one.old is not None and one.old == one.new and one.old_package is not None and one.new_package is not None:
        # Another file of the same version: somebody has built the package again.
        return (f"{one.old} (sha256 {one.old_package.sha256[:16]}...)",
                f"{one.new} (sha256 {one.new_package.sha256[:16]}...)")
    return one.old, one.new


def _needed(ends: Ends, known: Mapping[InstalledPackage, Relations]) -> dict[str, set[str]]:
    moves = [Move(name=name, old=None if old is None else known[old], new=None if new is None else known[new])
             for name, (old, new) in ends.replaced.items()]
    gone = {old for old, _ in ends.replaced.values()}
    return relations.needed(moves, [known[one] for one in ends.a.packages if one not in gone])


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One mixture: what came of it, and why there is nothing. ``built`` is False where its packages alone say so."""

    chosen: Chosen
    outcome: Outcome
    reason: str | None
    built: bool
    seconds: float


class Apart(Aside):
    """Where mixtures are built. A cache may hold what another environment's compiler made: each build begins with an
    empty one. Mixtures of which there may be images are recorded here: they are of no use to anybody else."""

    @property
    def cache(self) -> Path:
        """One for this search alone."""
        return self.root / "cache"

    @contextlib.contextmanager
    def mixture(self, environment: Environment) -> Iterator[None]:
        """Its image is made while the block runs, and gone afterwards; if we are killed, so it is by :meth:`forget`."""
        name = exact.place_of(self.image_directory, environment).name
        record = make_directory(self.root / _MIXTURES) / f"{name}.json"
        write_atomically(record, EnvironmentFile(environments=(environment,)).to_json())
        try:
            yield
        finally:
            self._discard(environment, record)

    def forget(self) -> None:
        """Remove the images of mixtures that a killed search has left."""
        for record in sorted((self.root / _MIXTURES).glob("*.json")):
            try:
                environments = EnvironmentFile.read(record).environments
            except FormatError:
                continue
            for environment in environments:
                self._discard(environment, record)

    def _discard(self, environment: Environment, record: Path) -> None:
        with contextlib.suppress(GitianError):
            exact.discard(self.image_directory, environment)
        if not exact.place_of(self.image_directory, environment).exists():
            record.unlink(missing_ok=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class Bed:
    """What all builds have in common. ``debs`` are the files of all packages of both ends; ``images`` the directory of
    base images. ``log``: called with what a build says of itself."""

    plan: BuildPlan
    inputs: PreparedInputs
    aside: Apart
    backend: Backend
    environment: Mapping[str, str]
    debs: Mapping[InstalledPackage, Path]
    images: Path


class Mixer:
    """Builds mixtures and says whose outputs they give.

    ``a`` and ``b`` are the recorded outputs, path to SHA-256. With ``partial`` only some targets are built: then what
    the ends are seen to make says which of the recorded outputs are theirs. ``meter`` bounds how long a script may
    take; so does what the first build took.
    """

    def __init__(self, bed: Bed, between: Field, a: Mapping[str, str], b: Mapping[str, str], *,
                 partial: bool = False, meter: Meter | None = None) -> None:
        self.bed = bed
        self.meter = meter or Meter()
        #: What the first build took (seconds); and whether the budget ends the script that runs.
        self._usual: float | None = None
        self._cut = False
        self.between = between
        self.steps: list[Step] = []
        self.outputs: dict[Chosen, dict[str, str]] = {}
        self._recorded = {Outcome.LIKE_A: a, Outcome.LIKE_B: b}
        self._partial = partial
        self._own: dict[Outcome, Mapping[str, str]] = {}

    @property
    def builds(self) -> int:
        """How often something was really built."""
        return sum(step.built for step in self.steps)

    def own(self, paths: Iterable[str]) -> tuple[str, ...]:
        """Those of the paths that the targets which are built have made."""
        made = set().union(*self.outputs.values()) if self._partial else None
        return tuple(path for path in paths if made is None or path in made)

    def end(self, chosen: Chosen) -> Outcome:
        """Build A or B. Raises every GitianError: what was recorded has to be possible; and Exhausted."""
        began = time.monotonic()
        built = self._retried(chosen, keep=True)
        outcome = self._whose(built)
        if self._partial and outcome in self._recorded:
            self._own.setdefault(outcome, built)
        self.outputs[chosen] = built
        if self._usual is None:
            self._usual = time.monotonic() - began
        self.steps.append(Step(chosen=chosen, outcome=outcome, reason=None, built=True,
                               seconds=time.monotonic() - began))
        return outcome

    def mixture(self, chosen: Chosen) -> Outcome:
        """Build a mixture; one that cannot be made or built is UNRESOLVED. Raises other GitianErrors, and
        Exhausted: the budget has ended meanwhile."""
        began = time.monotonic()
        reason = self.between.hindrance(chosen)
        tried, outcome = reason is None, Outcome.UNRESOLVED
        if reason is None:
            try:
                built = self._retried(chosen)
                outcome = self._whose(built)
                self.outputs[chosen] = built
            except _NO_BUILD as error:
                reason = str(error)
        if reason is not None:
            progress.say(f"No build: {reason}")
        self.steps.append(Step(chosen=chosen, outcome=outcome, reason=reason, built=tried,
                               seconds=time.monotonic() - began))
        return outcome

    def _retried(self, chosen: Chosen, *, keep: bool = False) -> dict[str, str]:
        try:
            try:
                return self._build(chosen, keep=keep)
            except GuestError as error:  # a guest may fail by chance, and that says nothing of its packages
                progress.warn(f"{error} It is tried once more.")
                return self._build(chosen, keep=keep)
        except HangError:
            if self._cut:
                raise Exhausted(f"The budget of {self.meter.budget} was spent while it built.") from None
            raise

    def _whose(self, built: Mapping[str, str]) -> Outcome:
        for outcome, recorded in self._recorded.items():
            if not self._partial:
                if built == recorded:
                    return outcome
            elif outcome in self._own:
                if built == self._own[outcome]:
                    return outcome
            elif built and built.items() <= recorded.items():
                return outcome
        return Outcome.OTHER

    def _build(self, chosen: Chosen, *, keep: bool = False) -> dict[str, str]:
        names = frozenset(change.name for change in chosen)
        found: dict[str, str] = {}
        with contextlib.ExitStack() as stack:
            images = {}
            for label, ends in self.between.ends.items():
                environment = ends.mixture(names)
                images[label] = environment, stack.enter_context(
                    self._image(environment, keep=keep or environment in (ends.a, ends.b)))
            for target in self.bed.plan.targets:
                environment, image = images[place_of(target)]
                with self.bed.aside.scratch() as scratch:
                    patience, self._cut = patience_with(self._usual, self.meter.seconds_left())
                    outcome = build_target(TargetRequest(
                        plan=self.bed.plan, target=target, image=image, exact=environment, inputs=self.bed.inputs,
                        workspace=self.bed.aside, backend=self.bed.backend, environment=self.bed.environment,
                        state=self.bed.aside.guests, log_suffix=f"-{len(self.steps) + 1}-{target.label}",
                        patience=patience), scratch)
                    found |= Manifest.parse(manifest_of(outcome.out)).by_path()
        return found

    @contextlib.contextmanager
    def _image(self, environment: Environment, *, keep: bool) -> Iterator[BaseImage]:
        """An environment's image while the block runs; gone afterwards, unless it is to be kept, or was there."""
        name = self.bed.backend.name
        image = exact.find_exact(self.bed.images, environment, name)
        with contextlib.ExitStack() as stack:
            if image is None:
                if not keep:
                    stack.enter_context(self.bed.aside.mixture(environment))
                image = exact.make_exact(ExactRequest(
                    directory=self.bed.images, environment=environment, backend=name,
                    debs={one: self.bed.debs[one] for one in environment.packages}))
            with exact.held([image.path.parent]):
                yield image


def place_of(target: Target) -> str:
    """The label of a target's guest: amd64 and linux64 have the same one."""
    return f"{target.suite}-{target.dpkg_arch}"


def differing(a: Mapping[str, str], b: Mapping[str, str]) -> tuple[str, ...]:
    """The paths of which two manifests say different things."""
    return tuple(path for path in sorted({*a, *b}) if a.get(path) != b.get(path))
