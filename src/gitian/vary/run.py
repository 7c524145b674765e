"""A descriptor built as usual, then in varied circumstances; and what that says of its outputs."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from gitian.build.exact import Base, Wanted, images_of
from gitian.build.layer import store_of
from gitian.build.pipeline import sweep
from gitian.environment.layers import size_limit
from gitian.errors import HangError, UsageError
from gitian.formats.descriptor import Descriptor
from gitian.guest.protocol import Backend
from gitian.host import progress
from gitian.host.workspace import Workspace, remove_tree
from gitian.images import exact as images_of_environments
from gitian.images.lookup import find_image
from gitian.inputs.prepare import prepare
from gitian.plan import BuildPlan, Options, make_plan
from gitian.vary import variations
from gitian.vary.budget import Budget, Meter, Progress
from gitian.vary.building import PACKAGES, Bed, Builder, Built, Names, give_back, narrowed, strayed, without_effect
from gitian.vary.comparing import Comparing
from gitian.vary.kept import Aside
from gitian.vary.minimise import Exhausted, Minimised, Result, minimise
from gitian.vary.outcome import Explained, Found, Outcome, State, Tried, by_chance, folded, joined, judged
from gitian.vary.variations import Setting, Variation
from gitian.vary.words import counted, listed

#: A little more than that.
_SECOND = 1.1
#: Without it, what depends on addresses is no longer random.
ASLR = "aslr"


@dataclass(frozen=True, slots=True, kw_only=True)
class VaryRequest:
    """A descriptor, and in what its build is to be varied, in a workspace that the caller has locked.

    ``named`` are the variations that were asked for by their own names: where one of them cannot work, nothing is
    begun. Of ``asked``, by groups too, all have to be tried. ``target`` is the label of the only one to build.
    ``wanted`` is the environment for the variation of packages. ``reports`` is the directory for
    diffoscope's; None: it is not asked.
    """

    descriptor: Path
    options: Options
    workspace: Workspace
    backend: Backend
    environment: Mapping[str, str] = field(default_factory=dict)
    chosen: tuple[Variation, ...] = field(default_factory=lambda: variations.choose(None))
    named: Names = frozenset()
    asked: Names = frozenset()
    target: str | None = None
    repeats: int = 1
    budget: Budget | None = None
    wanted: Wanted | None = None
    reports: Path | None = None


def vary(request: VaryRequest) -> Outcome:
    """Build as usual and with variations, and find the smallest sets that make a difference.

    Outputs, results and caches of the workspace stay as they are. Raises UsageError before anything is begun, and
    BuildError when the usual build fails; any GitianError.
    """
    workspace = request.workspace
    plan = _plan(request)
    for note in plan.notes:
        progress.warn(note)
    settings = {target.label: _setting(request, plan, index) for index, target in enumerate(plan.targets)}
    why = _check(request, settings)
    aside = Aside.within(workspace)
    sweep(request.backend, workspace)
    bases = {target.label: Base(image=find_image(
        workspace.image_directory, suite=target.suite, arch=target.dpkg_arch, backend=request.backend.name,
        distro=target.distro)) for target in plan.targets}
    others = _others(request, plan)
    aside.renew(request.backend)  # not before: what is missing should not cost what the last run has left
    try:
        with images_of_environments.held([base.image.path.parent for base in others.values()]):
            bed = Bed(plan=plan, inputs=prepare(plan, workspace), aside=aside, backend=request.backend,
                      environment=request.environment, bases=bases, others=others, settings=settings,
                      can=_can(request, settings))
            return _Run(request, bed, why).outcome()
    finally:
        remove_tree(aside.guests)
        if others:
            images_of_environments.prune(
                workspace.image_directory, images_of_environments.limit_of(request.environment),
                [base.image.path.parent for base in others.values()])
        give_back(aside, plan, request.environment)


def prospects(request: VaryRequest) -> dict[str, str]:
    """Of the chosen variations, those that work for no target of the descriptor, and why. Nothing is built."""
    plan = _plan(request, commits=False)
    return _hindrances(request, {target.label: _setting(request, plan, index)
                                 for index, target in enumerate(plan.targets)})


def _plan(request: VaryRequest, *, commits: bool = True) -> BuildPlan:
    plan = make_plan(Descriptor.read(request.descriptor), replace(
        request.options, cache_read_only=True, skip_image=False, skip_cleanup=False), commits=commits)
    return narrowed(plan, request.target)


def _setting(request: VaryRequest, plan: BuildPlan, index: int) -> Setting:
    target, options = plan.targets[index], plan.options
    return Setting(
        backend=request.backend.name, suite=target.suite, architecture=target.dpkg_arch, distro=target.distro,
        image_directory=request.workspace.image_directory, processors=options.num_make, memory=options.memory,
        network=plan.network, sudo=plan.sudo, inputs=bool(plan.descriptor.files or plan.remotes),
        restored=request.backend.name == "kvm" and options.layers)


def _can(request: VaryRequest, settings: Mapping[str, Setting]) -> dict[str, Names]:
    """By target, the chosen variations that work there."""
    return {label: frozenset(entry.name for entry in request.chosen if not _hindrance(request, entry, setting))
            for label, setting in settings.items()}


def _hindrance(request: VaryRequest, variation: Variation, setting: Setting) -> str:
    if variation.name == PACKAGES and request.wanted is not None:
        return ""
    return variations.available(variation, setting)


def _check(request: VaryRequest, settings: Mapping[str, Setting]) -> dict[str, str]:
    """Of the chosen variations, those that work for no target, and why. Raises UsageError when one was named."""
    why = _hindrances(request, settings)
    for name in sorted(request.named & set(why)):
        raise UsageError(f"The variation '{name}' does not work here: {why[name]}.",
                         hint="Leave it out, or see 'gitian vary --list'.")
    if len(why) == len(request.chosen):
        raise UsageError("None of the variations that were chosen works here: " + "; ".join(
            f"{name}: {reason}" for name, reason in why.items()) + ".", hint="See 'gitian vary --list'.")
    return why


def _hindrances(request: VaryRequest, settings: Mapping[str, Setting]) -> dict[str, str]:
    found = {}
    for entry in request.chosen:
        hindrances = [_hindrance(request, entry, setting) for setting in settings.values()]
        if all(hindrances):
            found[entry.name] = hindrances[0]
    return found


def _others(request: VaryRequest, plan: BuildPlan) -> dict[str, Base]:
    """Images of the other environment, by target."""
    if request.wanted is None or PACKAGES not in {entry.name for entry in request.chosen}:
        return {}
    return images_of(request.wanted, plan, request.workspace, request.backend.name)


class _Run:
    """The builds of one run, in their order."""

    def __init__(self, request: VaryRequest, bed: Bed, why: dict[str, str]) -> None:
        self.request, self.bed, self.why = request, bed, why
        self.began = time.monotonic()
        self.builder = Builder(bed)
        self.meter = Meter(request.budget)
        self.names = tuple(entry.name for entry in request.chosen if entry.name not in why)
        self.title = ""
        #: Why guests with a variation break down; and with which others they do.
        self.broken: dict[str, str] = {}
        self.together: dict[str, str] = {}
        #: Why a build that was to show what is random did not come to its end.
        self.cut: str | None = None

    def outcome(self) -> Outcome:
        """Build, search, compare, judge."""
        builder = self.builder
        with self.meter.building():
            usual = builder.build(frozenset(), "The usual build", quiet=False)
        self.comparing = Comparing(self.bed, usual, self.request.reports, self.meter)
        for number in range(1, self.request.repeats + 1):
            if self.meter.exhausted() is None:
                # Most times are written in seconds: a build within the same one would not show them.
                time.sleep(max(0.0, _SECOND - usual.seconds))
                again = self._again(frozenset(), f"The usual build again, {number} of {self.request.repeats}")
                if again is not None and again.failed is not None:
                    progress.say("  it fails, though nothing is varied")
        found, told = Minimised(causes=(), left=(), unfinished=None, builds=0, results={}), -1
        # What is random may show late. What was built until then need not be built again.
        while len(random := self._random(usual)) > told:
            if random:
                progress.say(f"Random without any variation: {listed(sorted(random))}")
            told = len(random)
            self.comparing.learn(random)
            known = {built.names: self._result(built) for built in builder.built if built.names}
            found = minimise([name for name in self.names if builder.makeable(frozenset({name}))], self._search,
                             known=known, meter=self.meter, progress=self._tell)
            if not any(cause.outputs for cause in found.causes) or self.meter.exhausted() is not None:
                break
            if builder.built[-1].names:
                self._again(frozenset(), f"Build {len(builder.built) + 1}: as usual, to see whether it is as before")
        for one in builder.built[1:]:
            for name, label in strayed(usual, one, self.bed.settings).items():
                progress.warn(f"'{name}' of {label} was otherwise in build {one.number} ("
                              f"{', '.join(sorted(one.names)) or 'as usual'}), though it was not varied.")
        store_of(self.bed.aside.of.var).prune(size_limit(self.request.environment), keep=builder.layers)
        return self._judge(usual, random, found)

    def _random(self, usual: Built) -> dict[str, Built]:
        """Outputs that usual builds have otherwise than the first, each with the first such build."""
        found: dict[str, Built] = {}
        for one in self.builder.built[1:]:
            if not one.names and one.failed is None:
                for path in one.outputs.differing(usual.outputs.digests):
                    found.setdefault(path, one)
        return found

    def _again(self, names: Names, title: str) -> Built | None:
        """A build beside the search; None when the budget ended while it built."""
        with self.meter.building():
            try:
                return self.builder.build(names, title, within=self.meter.seconds_left())
            except HangError:
                self.cut = self._spent()
                return None

    def _spent(self) -> str:
        return f"The budget of {self.meter.budget} was spent while it built."

    def _tell(self, now: Progress) -> None:
        if now.news:
            progress.say(f"{now.news}.")
        most = now.remaining_at_most
        self.title = f"Build {len(self.builder.built) + 1}: {now.purpose} ({counted(most, 'build')} " \
                     f"remain{'s' if most == 1 else ''} at most)"

    def _search(self, names: Names) -> Result:
        """Build a set and see what differs; what cannot be made is left out of it."""
        before = self._built(names)
        if not self.builder.makeable(names) or before is not None:
            self.meter.builds -= 1  # nothing is built
            return self._result(before) if before is not None else Result()
        try:
            built = self.builder.build(names, self.title, within=self.meter.seconds_left())
        except HangError:
            raise Exhausted(self._spent()) from None
        if not built.names:  # of what cannot be made nothing differs; what did differ is random
            return Result()
        result = self._result(built)
        if result.failed is not None:
            progress.say(f"  it fails: {result.failed.splitlines()[0]}")
        else:
            progress.say(f"  {len(result.changed) or 'no'} output{'' if len(result.changed) == 1 else 's'} of "
                         f"{len(self.comparing.usual.outputs.digests)} changed"
                         + (", besides what is random" if self.comparing.random else ""))
        return result

    def _built(self, names: Iterable[str]) -> Built | None:
        """The first build with these variations, as far as they can be made."""
        made = self.builder.makeable(frozenset(names))
        return next((built for built in self.builder.built if built.names == made), None) if made else None

    def _result(self, built: Built) -> Result:
        if built.failed is not None:
            return Result(failed=built.failed)
        return Result(changed=self.comparing.changed(built))

    def _judge(self, usual: Built, random: Mapping[str, Built], found: Minimised) -> Outcome:
        builder, comparing = self.builder, self.comparing
        by_names = {built.names: built for built in builder.built if built.names}
        found = self._without_broken(found, by_names)
        causes, same = folded(found.causes, variations.implications(self.bed.settings.values()))
        with progress.step("Comparing what differs"):
            told = tuple(comparing.cause(cause, by_names[frozenset(cause.variations)]) for cause in causes)
            chance = comparing.chance()
        chance, told = self._named(chance, told)
        chanced = next((built for built in builder.built if not built.names and built.failed is not None), None)
        failure = chanced.failed if chanced is not None else None
        if failure is not None:  # then any other build may have failed by chance, too
            told = tuple(replace(one, certain=one.certain and one.fails is None) for one in told)
        kept = {usual.number, *(built.number for built in random.values()),
                *(by_names[frozenset(cause.variations)].number for cause in causes)}
        for built in builder.built:
            if built.number not in kept:
                remove_tree(built.outputs.place)
        tried = tuple(self._tried(entry, usual, told, same, found) for entry in self.request.chosen)
        missed = {*builder.dropped, *self.broken} | self.request.asked & set(self.why)
        return Outcome(
            name=self.bed.plan.name, backend=self.bed.backend.name,
            targets=tuple(target.label for target in self.bed.plan.targets), manifest=usual.outputs.digests,
            repeats=self.request.repeats, random=Found(
                variations=(), differences=chance, fails=failure, log=chanced.log if chanced is not None else None)
            if chance or failure is not None else None,
            causes=told, variations=tried,
            missed=tuple(one.name for one in tried if one.name in missed),
            builds=len(builder.built), seconds=time.monotonic() - self.began, reference=usual.outputs.place,
            unfinished=found.unfinished or self.cut, left=tuple(
                f"{listed(one.outputs) if one.fails is None else 'a failure'}: something among "
                f"{', '.join(one.suspects)}" for one in found.left))

    def _without_broken(self, found: Minimised, by_names: Mapping[Names, Built]) -> Minimised:
        """What was found, without guests that broke down: they say nothing of the build."""
        causes = []
        for cause in found.causes:
            if cause.fails is None or not by_names[frozenset(cause.variations)].broken:
                causes.append(cause)
            elif len(cause.variations) == 1:
                self.broken[cause.variations[0]] = f"a guest with it breaks down: {cause.fails.splitlines()[0]}"
            else:
                for name in cause.variations:
                    others = ", ".join(other for other in cause.variations if other != name)
                    self.together[name] = f"not tried with {others}: the guest breaks down"
        return replace(found, causes=tuple(causes))

    def _named(self, chance: tuple[Explained, ...],
               told: tuple[Found, ...]) -> tuple[tuple[Explained, ...], tuple[Found, ...]]:
        """What is random, without what is so for a reason that is a variation; the causes, with that."""
        if "clock" in self.names:
            times = by_chance(chance)
            chance = tuple(one for one in chance if one not in times)
            told = joined(told, "clock", [replace(one, note="in every build, since time goes on") for one in times])
        if chance and ASLR in self.names:
            still = self._still({one.path for one in chance})
            told = joined(told, ASLR, [replace(one, note="in every build, but not when addresses are not random")
                                       for one in chance if one.path in still])
            chance = tuple(one for one in chance if one.path not in still)
        return chance, told

    def _still(self, random: set[str]) -> set[str]:
        """Of what is random, what is the same in two builds whose addresses are not."""
        alone = frozenset({ASLR})
        while self.builder.makeable(alone) and sum(built.names == alone for built in self.builder.built) < 2:
            if self.meter.exhausted() is not None:
                return set()
            built = self._again(alone, f"Build {len(self.builder.built) + 1}: what is random, without random addresses")
            if built is None or built.failed is not None:
                return set()
        twice = [built.outputs.digests for built in self.builder.built if built.names == alone][:2]
        return {path for path in random if len(twice) == 2 and path in twice[0]
                and twice[0][path] == twice[1].get(path)}

    def _tried(self, entry: Variation, usual: Built, causes: Sequence[Found], same: Mapping[str, str],
               found: Minimised) -> Tried:
        name = entry.name
        dropped = self.builder.dropped.get(name, {})
        labels = [label for label, can in self.builder.can.items() if name in can]
        why = self.why.get(name) or self.broken.get(name) or (next(iter(dropped.values()), "") if not labels else "")
        if why:
            return Tried(name=name, what=entry.what, state=State.NOT_TRIED, why=why)
        probes, effect = self._effect(name, usual)
        state, others, outputs = judged(name, causes, same, found, effect=effect)
        missing = [f"not for {label}" + (f": {dropped[label]}" if label in dropped else "") for label in self.bed.can
                   if label not in labels]
        remark = "; ".join(filter(None, [variations.remarks(entry, self.bed.settings[labels[0]]), *missing,
                                         self.together.get(name, "")]))
        words = {State.AS: f"as {same.get(name, '')} does",
                 State.NO_EFFECT: "the probe in the guest saw no change: nothing is known of it",
                 State.OPEN: found.unfinished or "no build with it has come to its script"}
        return Tried(name=name, what=entry.what, state=state, others=others, outputs=outputs, why=words.get(state, ""),
                     remark=remark, probes=probes)

    def _effect(self, name: str, usual: Built) -> tuple[dict[str, tuple[str, str]], bool | None]:
        """What the probe saw, by target, and whether it saw a change in every build that had the variation."""
        before = {seen.label: seen.answers.get(name, "") for seen in usual.seen}
        probes: dict[str, tuple[str, str]] = {}
        effect: bool | None = None
        for built in sorted(self.builder.built, key=lambda built: len(built.names)):
            if name not in built.names or not any(seen.answers and name in seen.varied for seen in built.seen):
                continue
            for seen in built.seen:
                if seen.answers and name in seen.varied:
                    probes.setdefault(seen.label, (before[seen.label], seen.answers.get(name, "")))
            effect = effect is not False and name not in without_effect(usual, built)
        return probes, effect
