"""Builds in varied circumstances: each in fresh guests from the same layers, what they left, and what they saw."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from gitian.build.exact import Base
from gitian.build.layer import Prepared
from gitian.build.outputs import manifest_of
from gitian.build.request import TargetOutcome, TargetRequest
from gitian.build.target import build_target
from gitian.build.varied import seen_path
from gitian.errors import (
    BuildError,
    EnvironmentUnavailableError,
    GuestError,
    HangError,
    HostError,
    NotVariedError,
    OutputError,
    OutputSizeError,
    UsageError,
)
from gitian.formats.manifest import Manifest
from gitian.guest.protocol import Backend
from gitian.host import progress
from gitian.host.workspace import give_to_caller, remove_tree
from gitian.inputs.prepare import PreparedInputs
from gitian.plan import BuildPlan, Target
from gitian.vary import kept
from gitian.vary.circumstances import UNKNOWN, Circumstances
from gitian.vary.kept import Aside, Outputs
from gitian.vary.probe import circumstances, parse_probe
from gitian.vary.variations import VARIATIONS, Setting, changes_for, implications

Names = frozenset[str]
#: A build in another environment is given that one's image; nothing in the guest is changed for it.
PACKAGES = "packages"
#: Chooses among values that do as well as each other: the same ones in every build of every run.
_SEED = 1
#: A build that takes so many times as long as the first, and so many seconds more, hangs.
_PATIENCE, _AT_LEAST = 10, 600.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """What one target's build saw: the probes' answers (untrusted text) and what follows from them.

    ``varied`` are the variations that were on: not all work for every target.
    """

    label: str
    varied: Names = frozenset()
    answers: Mapping[str, str] = field(default_factory=dict)
    circumstances: Circumstances = UNKNOWN


@dataclass(frozen=True, slots=True, kw_only=True)
class Built:
    """One build of all targets. ``names`` are the variations that could be made. ``failed`` says why there are no
    outputs, and ``broken`` that it was not the build that failed, but its guest, while one as usual works. ``log`` is
    where to read on, ``seconds`` what it took."""

    number: int
    names: Names
    outputs: Outputs
    seen: tuple[Seen, ...]
    seconds: float
    failed: str | None = None
    broken: bool = False
    log: Path | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Bed:
    """What all builds of a run have in common.

    By the target's label: ``bases`` of the guests, ``settings``, the variations that ``can`` be made, and ``others``,
    the images of another environment for the variation of packages.
    """

    plan: BuildPlan
    inputs: PreparedInputs
    aside: Aside
    backend: Backend
    environment: Mapping[str, str]
    bases: Mapping[str, Base]
    settings: Mapping[str, Setting]
    can: Mapping[str, Names]
    others: Mapping[str, Base] = field(default_factory=dict)


class Builder:
    """Builds sets of variations, one after the other, and keeps what differs from the first build."""

    def __init__(self, bed: Bed) -> None:
        self.bed = bed
        self.reference: Built | None = None
        self.built: list[Built] = []
        self.layers: set[Path] = set()
        #: By target, the variations that can be made; and by name and target, why one turned out not to be.
        self.can: dict[str, Names] = dict(bed.can)
        self.dropped: dict[str, dict[str, str]] = {}
        self._within: float | None = None
        self._began = 0.0
        self._cut = False
        self._ready: dict[tuple[str, bool], Prepared] = {}
        self._manifests: dict[tuple[str, bool], str] = {}

    def makeable(self, names: Names) -> Names:
        """Those that can be made for some target, as far as is known by now."""
        return names & frozenset().union(*self.can.values())

    def build(self, names: Names, title: str, *, quiet: bool = True, within: float | None = None) -> Built:
        """Build all targets with these variations; the first build of all is the reference.

        A variation that cannot be made in a guest is dropped. A script that fails and an output that is refused are
        results of a build; of the reference they are errors: BuildError, OutputError. When a guest breaks down, one
        as usual tells whether that is due to the variations, or to the host: GuestError. A script that does not end,
        by the length of the reference, has failed; but HangError is raised when it has not ended ``within`` so many
        seconds before that. Raises every other GitianError.
        """
        self._within = within
        self._began = time.monotonic()
        number = len(self.built) + 1
        if not quiet:
            progress.say(f"--- {title} ---")
            made = self._build(number, names)
        else:
            with progress.step(title), progress.hushed():
                made = self._build(number, names)
        self.built.append(made)
        if self.reference is None:
            self.reference = made
        else:
            kept.trim({frozenset({*one.names, str(one.number)}): one.outputs.place for one in self.built[1:]})
        return made

    def _build(self, number: int, names: Names) -> Built:
        began = time.monotonic()
        place = self.bed.aside.builds / str(number)
        digests: dict[str, str] = {}
        seen: list[Seen] = []
        for target in self.bed.plan.targets:
            log = self.bed.aside.var / f"build-{number}-{target.label}.log"
            try:
                digests |= self._as_far_as_can_be(number, target, names, place)
            except (BuildError, OutputError, GuestError) as error:
                varied = names & self.can[target.label]
                broken = isinstance(error, GuestError)
                if self.reference is None or (isinstance(error, HangError) and self._cut) or (broken and not varied):
                    raise
                if broken:
                    self._try_as_usual(target)
                seen.append(self._seen(number, target, varied))
                remove_tree(place)
                return Built(number=number, names=self.makeable(names), outputs=Outputs(place=place, digests={}),
                             seen=tuple(seen), seconds=time.monotonic() - began, failed=str(error), broken=broken,
                             log=log)
            seen.append(self._seen(number, target, names & self.can[target.label]))
        return Built(number=number, names=self.makeable(names), outputs=Outputs(place=place, digests=digests),
                     seen=tuple(seen), seconds=time.monotonic() - began, log=log)

    def _as_far_as_can_be(self, number: int, target: Target, names: Names, place: Path) -> dict[str, str]:
        """Build one target with those of the variations that can be made."""
        label = target.label
        while True:
            varied = names & self.can[label]
            try:
                return self._target(number, target, varied, place)
            except NotVariedError as error:
                if not error.names & varied:
                    raise
                for name in sorted(error.names & varied):
                    progress.warn(f"'{name}' is not tried for {label}: {error.why}")
                    self.dropped.setdefault(name, {})[label] = error.why
                self.can[label] -= error.names

    def _try_as_usual(self, target: Target) -> None:
        """A build without variations, of which nothing is kept. Raises GuestError: that breaks down, too."""
        progress.warn("A guest broke down. One as usual shows whether that is due to what was varied.")
        with self.bed.aside.scratch() as scratch, contextlib.suppress(BuildError, OutputError):
            build_target(self._request(0, target, frozenset()), scratch)

    def _target(self, number: int, target: Target, varied: Names, place: Path) -> dict[str, str]:
        """Build one target and keep what it left; the digests of that."""
        self._seen_file(number, target).unlink(missing_ok=True)
        for attempt in (1, 2):
            with self.bed.aside.scratch() as scratch:
                try:
                    outcome = build_target(self._request(number, target, varied), scratch)
                except GuestError as error:
                    # A guest may fail by chance. What cannot be varied cannot be so twice.
                    if attempt == 2 or isinstance(error, NotVariedError) or self._seen_file(number, target).exists():
                        raise
                    progress.warn(f"{error} It is tried once more.")
                    continue
                except OutputSizeError as error:
                    # It was refused for want of room, which says nothing of the build.
                    raise HostError(f"There is too little room for the outputs of {target.label}: {error}",
                                    hint=f"Make room on the disk of '{self.bed.aside.root}', or use -C.") from error
                self._check_environment(outcome, varied)
                prefix = prefix_of(self.bed.plan, target.label)
                digests = {f"{prefix}{path}": digest for path, digest
                           in Manifest.parse(manifest_of(outcome.out)).by_path().items()}
                only = None
                if self.reference is not None:
                    usual = self.reference.outputs.digests
                    only = [path.removeprefix(prefix) for path, digest in digests.items() if usual.get(path) != digest]
                kept.keep(outcome.out, place / prefix if prefix else place, only)
                return digests
        raise AssertionError("the second attempt returns or raises")

    def _patience(self) -> float | None:
        """How long a script that is about to run may take (seconds)."""
        if self.reference is None:
            return None
        left = None if self._within is None else self._within - (time.monotonic() - self._began)
        patience, self._cut = patience_with(self.reference.seconds, left)
        return patience

    def _request(self, number: int, target: Target, varied: Names) -> TargetRequest:
        bed, label = self.bed, target.label
        elsewhere = PACKAGES in varied
        base = bed.others[label] if elsewhere else bed.bases[label]
        return TargetRequest(
            plan=bed.plan, target=target, image=base.image, exact=base.exact, inputs=bed.inputs, workspace=bed.aside,
            backend=bed.backend, environment=bed.environment, state=bed.aside.guests, log_suffix=f"-{number}-{label}",
            changes=changes_for(varied - {PACKAGES}, bed.settings[label], _SEED, probed=bed.can[label]),
            patience=self._patience(), ready=self._ready.get((label, elsewhere)))

    def _check_environment(self, outcome: TargetOutcome, varied: Names) -> None:
        """All builds start from the same packages. Raises EnvironmentUnavailableError."""
        key = outcome.label, PACKAGES in varied
        if outcome.layer is not None:
            self.layers.add(outcome.layer)
            self._ready.setdefault(key, Prepared(manifest=outcome.manifest, layer=outcome.layer))
        if self._manifests.setdefault(key, outcome.manifest) != outcome.manifest:
            raise EnvironmentUnavailableError(
                f"The packages of {outcome.label} are others than a build ago: the archive has changed meanwhile.",
                hint="Run it again; with layers (without --no-layers) all builds start from the same packages.")

    def _seen_file(self, number: int, target: Target) -> Path:
        return seen_path(self.bed.aside.var, f"-{number}-{target.label}")

    def _seen(self, number: int, target: Target, varied: Names) -> Seen:
        try:
            data = self._seen_file(number, target).read_bytes()
        except FileNotFoundError:
            return Seen(label=target.label, varied=varied)
        return Seen(label=target.label, varied=varied, answers=parse_probe(data), circumstances=circumstances(data))


def patience_with(usual: float | None, left: float | None) -> tuple[float | None, bool]:
    """How long a script may take (seconds; None: as long as it wants), when one that does as it should has taken
    ``usual`` and a budget has ``left`` so much; and whether that is the budget's word."""
    longest = None if usual is None else _PATIENCE * usual + _AT_LEAST
    if left is None or (longest is not None and longest <= left):
        return longest, False
    return max(1.0, left), True


def prefix_of(plan: BuildPlan, label: str) -> str:
    """What paths of a target's outputs begin with: its label, where there are several targets."""
    return f"{label}/" if len(plan.targets) > 1 else ""


def narrowed(plan: BuildPlan, label: str | None) -> BuildPlan:
    """The plan with the target of this label alone (None: with all). Raises UsageError."""
    if label is None:
        return plan
    targets = tuple(target for target in plan.targets if target.label == label)
    if not targets:
        raise UsageError(f"'{plan.name}' has no target '{label}'.",
                         hint="It has: " + ", ".join(target.label for target in plan.targets) + ".")
    return replace(plan, targets=targets)


def give_back(aside: Aside, plan: BuildPlan, environment: Mapping[str, str]) -> None:
    """Let what a run through sudo has made belong to the user who called sudo: inputs, and what lies aside."""
    inputs = aside.of.inputs
    give_to_caller(inputs, environment, below=False)
    for tree in (aside.root, *(inputs / remote.dir for remote in plan.remotes)):
        give_to_caller(tree, environment)


def without_effect(reference: Built, built: Built) -> dict[str, str]:
    """Variations that were on in a build, and of which its probe saw nothing: name -> target."""
    usual = {seen.label: seen for seen in reference.seen}
    return {name: seen.label for seen in built.seen if seen.answers for name in sorted(seen.varied)
            if seen.answers.get(name, "") == usual[seen.label].answers.get(name, "")}


def strayed(reference: Built, built: Built, settings: Mapping[str, Setting]) -> dict[str, str]:
    """Variations that were not on, and of which the probe saw a change all the same: name -> target."""
    usual = {seen.label: seen for seen in reference.seen}
    found = {}
    for seen in built.seen:
        if not seen.answers:
            continue
        expected = set(_closure(seen.varied, implications([settings[seen.label]]))) | {"seed"}
        for name, answer in seen.answers.items():
            if name not in expected and answer != usual[seen.label].answers.get(name, ""):
                found[name] = seen.label
    return found


def _closure(names: Iterable[str], implies: Mapping[str, Names]) -> Iterable[str]:
    """The variations whose probes may change with these."""
    for name in names:
        yield name
        yield from implies[name]
        if VARIATIONS[name].group == PACKAGES:
            # Other packages: other directories, and another saved machine to go on from.
            yield from ("file-order", "cold", *(other for other, entry in VARIATIONS.items()
                                                if entry.group == PACKAGES))


