"""Two reports of the same inputs with other packages and other outputs: which package flips the output?

Environments between the two are made as exact images, built in, and searched by bisect.py. Nobody is believed: A's
packages have to give A's outputs here, and B's those of B, before anything between them means anything.
"""

from __future__ import annotations

import enum
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from gitian.build import exact
from gitian.build.exact import Wanted
from gitian.build.pipeline import sweep
from gitian.environment.compare import TargetDifference, compare_targets
from gitian.errors import InputError, UsageError
from gitian.formats.descriptor import Descriptor
from gitian.formats.environment import Environment, by_file_name, of_report
from gitian.formats.image_record import InstalledPackage
from gitian.formats.manifest import Manifest
from gitian.formats.report import Report
from gitian.guest.protocol import Backend
from gitian.host import progress
from gitian.host.workspace import Workspace, remove_tree
from gitian.images import exact as images_of_environments
from gitian.images import obtain
from gitian.images.obtain import Missing, Places
from gitian.images.origins import with_sources
from gitian.inputs.prepare import prepare
from gitian.plan import BuildPlan, Options, make_plan
from gitian.vary.bisect import Bisection, Conclusion, Outcome, bisect, units_of
from gitian.vary.budget import Budget, Meter, Progress
from gitian.vary.building import give_back, narrowed
from gitian.vary.minimise import Exhausted, bound_for_one
from gitian.vary.mixtures import Apart, Bed, Chosen, Field, Mixer, Step, differing, field_of, place_of
from gitian.vary.words import listed


class Answer(enum.StrEnum):
    """What a search comes to."""

    NAMED = "packages named"
    NOT_THE_PACKAGES = "not the packages"
    NOT_ALONE = "not the packages alone"
    UNDECIDED = "undecided"


@dataclass(frozen=True, slots=True, kw_only=True)
class Side:
    """One of the two: how messages call it, and what it recorded."""

    origin: str
    report: Report

    @property
    def outputs(self) -> Mapping[str, str]:
        """What it says that the build gave: path to SHA-256."""
        return Manifest.parse(self.report.out_manifest).by_path()


@dataclass(frozen=True, slots=True, kw_only=True)
class BetweenRequest:
    """Two records of one descriptor's build, in a workspace that the caller has locked.

    ``places`` is where packages may come from; ``target`` the label of the only one to build.
    """

    descriptor: Path
    options: Options
    workspace: Workspace
    backend: Backend
    a: Side
    b: Side
    places: Places
    environment: Mapping[str, str] = field(default_factory=dict)
    target: str | None = None
    budget: Budget | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """What a search found: the answer, what came of A's and of B's environment, and the bisection, if there was one."""

    answer: Answer
    a: Outcome | None
    b: Outcome | None
    bisection: Bisection | None = None
    unfinished: str | None = None

    @property
    def certain(self) -> bool:
        """Whether the answer has been seen to be right: culprits built alone, and no smaller ones left untried."""
        if self.answer is Answer.NAMED:
            assert self.bisection is not None
            return self.bisection.finished and all(culprit.certain for culprit in self.bisection.culprits)
        return self.answer is Answer.NOT_THE_PACKAGES


@dataclass(frozen=True, slots=True, kw_only=True)
class Between:
    """All of it. ``outputs`` are the paths whose records differ; ``units`` how many changes there are when those that
    go together count as one; ``bound`` how many builds one culprit takes at most. ``targets`` are those built;
    ``where`` says in which guests' environments a change is, by its name."""

    name: str
    a: str
    b: str
    finding: Finding
    outputs: tuple[str, ...]
    where: Mapping[str, tuple[str, ...]]
    environments: tuple[TargetDifference, ...]
    changes: int
    units: int
    steps: tuple[Step, ...]
    builds: int
    bound: int
    targets: tuple[str, ...]


def between(request: BetweenRequest) -> Between:
    """Build in environments between two recorded ones until it is known which package flips the output.

    Raises UsageError and InputError when there is nothing to search; EnvironmentUnavailableError, which names all
    packages of either side that cannot be had; BuildError when the build fails in A's or B's own environment; any
    GitianError. Outputs and results of the workspace stay as they are; caches are empty for every build.
    """
    workspace, a, b = request.workspace, request.a, request.b
    check_records(a, b)
    wanted = _wanted(a, request.places), _wanted(b, request.places)
    plan = _plan(request, wanted[0])
    for note in plan.notes:
        progress.warn(note)
    pairs: dict[str, tuple[Environment, Environment]] = {
        place_of(target): (exact.environment_of(wanted[0], target), exact.environment_of(wanted[1], target))
        for target in plan.targets}
    apart = tuple(TargetDifference(label=label, old=one, new=other, changes=compare_targets(one, other))
                  for label, (one, other) in pairs.items())
    aside = Apart(root=workspace.var / "vary-between", image_directory=workspace.image_directory, of=workspace)
    sweep(request.backend, workspace)
    aside.forget()
    try:
        with workspace.scratch() as scratch:
            lie = field_of(pairs)
            debs = dict[InstalledPackage, Path]()
            if lie.changes:
                debs = _packages(request, plan, wanted[0], pairs, scratch)
                lie = field_of(pairs, debs)
            inputs = prepare(plan, workspace)
            exact.check_commits(wanted[0], inputs)
            aside.renew(request.backend)  # not before: what is missing should not cost what the last search has left
            meter = Meter(request.budget)
            mixer = Mixer(Bed(plan=plan, inputs=inputs, aside=aside, backend=request.backend, debs=debs,
                              environment=request.environment, images=workspace.image_directory),
                          lie, a.outputs, b.outputs, partial=request.target is not None, meter=meter)
            count = len(units_of(lie.changes, lie.groups))
            if count:
                progress.say(f"{len(lie.changes)} packages differ, in {count} changes that can be made apart. If one "
                             f"of them is the cause, at most {bound_for(count)} builds name it.")
            finding = search(lie, mixer, meter, (a.origin, b.origin))
            kept = [images_of_environments.place_of(workspace.image_directory, one) for pair in pairs.values()
                    for one in pair]
        images_of_environments.prune(workspace.image_directory, images_of_environments.limit_of(request.environment),
                                     kept)
    finally:
        remove_tree(aside.guests)
        give_back(aside, plan, request.environment)
    return Between(
        name=plan.name, a=a.origin, b=b.origin, finding=finding,
        outputs=mixer.own(differing(a.outputs, b.outputs)),
        where={change.name: tuple(label for label, ends in lie.ends.items() if change.name in ends.replaced)
               for change in lie.changes},
        environments=apart, changes=len(lie.changes), units=count, steps=tuple(mixer.steps), builds=mixer.builds,
        bound=bound_for(count), targets=tuple(target.label for target in plan.targets))


def bound_for(count: int) -> int:
    """How many builds one culprit among so many changes takes at most, A's own environment included.

    Never more than 2 * log2(count) + 2: where that has no room for it, A is built only when it becomes doubtful.
    """
    return bound_for_one(count) + (not _believed(count))


def _believed(count: int) -> bool:
    """Whether A's environment is believed to give A's outputs, for want of room: with 2, 3 and 5 changes."""
    return count > 1 and bound_for_one(count) + 1 > 2 * math.log2(count) + 2


def check_records(a: Side, b: Side) -> None:
    """See that there is something to search: the same inputs, other outputs. Raises InputError, UsageError."""
    ours, theirs = (Manifest.parse(side.report.in_manifest) for side in (a, b))
    files = [f"'{path}'" for path in differing(ours.by_path(), theirs.by_path())]
    dirs = [f"the remote '{path}'" for path in differing({one.dir: one.commit for one in ours.remotes},
                                                         {one.dir: one.commit for one in theirs.remotes})]
    if files or dirs:
        raise InputError(f"'{a.origin}' and '{b.origin}' have other inputs: {listed([*files, *dirs], 10)}.",
                         hint="Where the inputs differ, outputs may differ whatever the packages are: a search among "
                              "these would mean nothing.")
    if not differing(a.outputs, b.outputs):
        raise UsageError(f"'{a.origin}' and '{b.origin}' have the same outputs: there is nothing to be searched for.")


def _wanted(side: Side, places: Places) -> Wanted:
    return Wanted(origin=side.origin, environments=of_report(side.report, source=side.origin), places=places,
                  like=side.report)


def _plan(request: BetweenRequest, wanted: Wanted) -> BuildPlan:
    descriptor = Descriptor.read(request.descriptor)
    # The images hold all packages: a layer of each would be made once and never used again.
    options = replace(request.options, cache_read_only=True, skip_image=False, skip_cleanup=False, layers=False,
                      offline=False, upgrade=False)
    plan = make_plan(descriptor, exact.as_recorded(options, wanted, [remote.dir for remote in descriptor.remotes]))
    return narrowed(plan, request.target)


def _packages(request: BetweenRequest, plan: BuildPlan, wanted: Wanted,
              pairs: Mapping[str, tuple[Environment, Environment]], scratch: Path) -> dict[InstalledPackage, Path]:
    """The files of all packages of both sides. Raises EnvironmentUnavailableError, InputError: all that is wrong."""
    problems = list(exact.problems_of(wanted, plan, request.workspace))
    repositories = tuple(one.source for one in plan.descriptor.repositories)
    places = replace(request.places, sources=(*request.places.sources, *repositories))
    files: dict[InstalledPackage, Path] = {}
    missing: list[Missing] = []
    for number, environment in enumerate(one for pair in pairs.values() for one in pair):
        # The images of A and B may be there already; whatever lies between them is made of the packages.
        lacking = [package for package in environment.packages if package not in files]
        room = scratch / f"{number}-{environment.label}"
        room.mkdir()
        with progress.step(f"Looking for {len(lacking)} packages of {environment.label}"):
            known = with_sources(places, replace(environment, packages=by_file_name(lacking)),
                                 directory=request.workspace.image_directory, scratch=room)
            found = obtain.obtain(lacking, known, room / "debs", room / "work")
        files |= found.files
        missing += found.missing
    exact.refuse(wanted, problems, list(dict.fromkeys(missing)))
    return files


# The search --------------------------------------------------------------------------------------------------------


def search(lie: Field, mixer: Mixer, meter: Meter, names: tuple[str, str]) -> Finding:
    """Build A, then B, and if they are what they should be, what lies between them. ``names`` are those of A and B."""
    everything = frozenset(lie.changes)
    count = len(units_of(lie.changes, lie.groups))
    bound = bound_for(count)

    def end(chosen: Chosen, name: str, remaining: int) -> Outcome:
        progress.say(f"--- Build {mixer.builds + 1}: all packages of {name}; at most {remaining} builds remain ---")
        with meter.building():
            return mixer.end(chosen)

    if not everything:
        return Finding(answer=Answer.NOT_THE_PACKAGES, a=None, b=None)
    a = b = None
    try:
        a = None if _believed(count) else end(frozenset(), names[0], bound)
        if (spent := meter.exhausted()) is not None:
            raise Exhausted(spent)
        b = end(everything, names[1], bound - (a is not None))
        if a is None and b is not Outcome.LIKE_B:
            a = end(frozenset(), names[0], 1)
    except Exhausted as spent:
        return Finding(answer=Answer.UNDECIDED, a=a, b=b, unfinished=str(spent))
    if mixer.outputs[everything] == mixer.outputs.get(frozenset()):
        return Finding(answer=Answer.NOT_THE_PACKAGES, a=a, b=b)
    if a not in (None, Outcome.LIKE_A) or b is not Outcome.LIKE_B:
        return Finding(answer=Answer.NOT_ALONE, a=a, b=b)

    def step(chosen: Chosen) -> Outcome:
        before = mixer.builds
        outcome = mixer.mixture(chosen)
        meter.builds -= before == mixer.builds  # what is refused for what its packages say costs nothing
        return outcome

    known = {everything: b} if a is None else {frozenset(): a, everything: b}
    found = bisect(lie.changes, step, groups=lie.groups, known=known, meter=meter, progress=_teller(mixer, count))
    if a is None:
        a = next((one.outcome for one in mixer.steps if not one.chosen), None)
    if found.conclusion is Conclusion.NAMED:
        answer = Answer.NAMED
    elif found.conclusion is Conclusion.UNDECIDED:
        answer = Answer.UNDECIDED
    else:  # A, which had been believed, has other outputs than were recorded: perhaps B's
        same = mixer.outputs[everything] == mixer.outputs.get(frozenset())
        answer = Answer.NOT_THE_PACKAGES if same else Answer.NOT_ALONE
    return Finding(answer=answer, a=a, b=b, bisection=found, unfinished=found.unfinished)


def _teller(mixer: Mixer, units: int) -> Callable[[Progress], None]:
    def tell(about: Progress) -> None:
        if about.news is not None:
            progress.say(f"{about.news}.")
        progress.say(f"--- Build {mixer.builds + 1}: {len(about.chosen)} of {units} changes made ({about.purpose}); at "
                     f"most {about.remaining_at_most} builds remain ---")

    return tell
