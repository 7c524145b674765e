"""What a run has found, as values: what is random, what each variation came to, and the causes of all differences."""

from __future__ import annotations

import enum
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from gitian.vary.findings import Difference
from gitian.vary.hints import Cause as Hinted
from gitian.vary.minimise import Cause, Minimised
from gitian.vary.variations import implications

#: What each variation implies everywhere.
IMPLIES: Mapping[str, frozenset[str]] = implications(())


class State(enum.StrEnum):
    """What became of one variation."""

    HELD = "held"
    DIFFERS = "differs"
    AS = "differs as another does"
    FAILS = "build fails"
    NO_EFFECT = "no effect"
    OPEN = "undecided"
    NOT_TRIED = "not tried"


#: What keeps a run from being a success. Of what was not tried, ``Outcome.missed`` says what should have been.
BAD = frozenset({State.DIFFERS, State.AS, State.FAILS, State.NO_EFFECT, State.OPEN})


@dataclass(frozen=True, slots=True, kw_only=True)
class Explained:
    """One output that differs, and how. ``path`` begins with the label of its ``target`` where there are several.

    ``difference`` is None when the outputs are no longer there. ``reports`` are those of diffoscope; ``problem`` says
    why there are none. ``note`` says what is special about it.
    """

    target: str
    path: str
    difference: Difference | None
    reports: tuple[Path, ...] = ()
    problem: str | None = None
    note: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """A smallest set of variations that makes outputs differ, or the build fail; or (without any) what is random.

    ``fails`` says how the build failed, and ``log`` where to read on. ``certain`` is False where a smaller set could
    not be built, or a failure may be one by chance. ``outputs`` is the directory where what differs lies.
    """

    variations: tuple[str, ...]
    differences: tuple[Explained, ...] = ()
    fails: str | None = None
    log: Path | None = None
    certain: bool = True
    outputs: Path | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Tried:
    """One variation: what became of it, with which ``others`` it does so (each a set; () is alone), and why.

    ``probes``: by target, what the probe saw in the usual build and in a varied one. Untrusted text.
    """

    name: str
    what: str
    state: State
    others: tuple[tuple[str, ...], ...] = ()
    outputs: int = 0
    why: str = ""
    remark: str = ""
    probes: Mapping[str, tuple[str, str]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """All of a run. ``builds`` counts all of them, ``seconds`` is their time; ``left`` says of what nobody knows the
    cause, when the search is ``unfinished``. ``missed`` are variations that were not tried, for some target at least,
    though they work here, or were asked for.
    ``reference`` is where the usual build's outputs lie."""

    name: str
    backend: str
    targets: tuple[str, ...]
    manifest: Mapping[str, str]
    repeats: int
    random: Found | None
    causes: tuple[Found, ...]
    variations: tuple[Tried, ...]
    builds: int
    seconds: float
    reference: Path
    unfinished: str | None = None
    left: tuple[str, ...] = ()
    missed: tuple[str, ...] = ()

    @property
    def held(self) -> bool:
        """Whether nothing is random, and every variation that can work here took effect and made no difference."""
        return (self.random is None and self.unfinished is None and not self.missed
                and not any(tried.state in BAD for tried in self.variations))

    @property
    def outputs(self) -> int:
        """How many there are: those of the usual build, and those that only others have."""
        return len({*self.manifest, *self.differing})

    @property
    def differing(self) -> tuple[str, ...]:
        """All outputs that are known to differ."""
        return tuple(sorted({one.path for found in (*self.causes, *([self.random] if self.random else []))
                             for one in found.differences}))


def by_chance(differences: Iterable[Explained]) -> tuple[Explained, ...]:
    """Of what differs between usual builds, what does so for no other reason than that time goes on.

    That is known where all that differs in it is a time, each of its own build.
    """
    found = []
    for one in differences:
        if one.difference is None or one.difference.more or one.difference.unfinished or not one.difference.hints:
            continue
        hints = one.difference.hints
        places = sum(1 for finding in one.difference.findings if finding.consequence is None)
        if all(hint.cause is Hinted.TIME and hint.sure for hint in hints) \
                and sum(1 + hint.also for hint in hints) >= places:
            found.append(one)
    return tuple(found)


def joined(causes: Sequence[Found], name: str, differences: Sequence[Explained]) -> tuple[Found, ...]:
    """The causes, with these differences told under a variation alone."""
    if not differences:
        return tuple(causes)
    told = list(causes)
    for at, cause in enumerate(told):
        if cause.variations == (name,) and cause.fails is None:
            told[at] = replace(cause, differences=(*cause.differences, *differences))
            return tuple(told)
    return (*told, Found(variations=(name,), differences=tuple(differences)))


def folded(causes: Iterable[Cause],
           implies: Mapping[str, frozenset[str]] = IMPLIES) -> tuple[tuple[Cause, ...], dict[str, str]]:
    """The causes without what another one tells already, and which variations differ just as others do.

    A tmpfs lists directories in another order: what differs by the order of files alone is not told again for the file
    system. ``implies`` says by name what a variation changes, too.
    """
    every = tuple(causes)
    known = {frozenset(cause.variations): cause for cause in every}
    told: list[Cause] = []
    same: dict[str, str] = {}
    for cause in every:
        outputs, fails, by = dict(cause.outputs), cause.fails, ""
        for name, implied in _replaced(cause.variations, implies):
            other = known.get(frozenset(implied))
            if other is None or set(implied) == set(cause.variations):
                continue
            before = len(outputs), fails
            outputs = {path: digest for path, digest in outputs.items() if path not in other.outputs}
            fails = None if other.fails is not None else fails
            if (len(outputs), fails) != before:
                by = name
                same.setdefault(name, ", ".join(implied))
        if outputs or fails is not None:
            told.append(replace(cause, outputs=outputs, fails=fails))
            if by:
                same.pop(by, None)
    return tuple(told), same


def _replaced(names: Sequence[str], implies: Mapping[str, frozenset[str]]) -> Iterable[tuple[str, tuple[str, ...]]]:
    """Every way to put a variation in the place of one that implies it."""
    for at, name in enumerate(names):
        for implied in sorted(implies.get(name, ())):
            yield name, tuple(dict.fromkeys((*names[:at], implied, *names[at + 1:])))


def judged(name: str, causes: Sequence[Found], same: Mapping[str, str], found: Minimised, *,
           effect: bool | None) -> tuple[State, tuple[tuple[str, ...], ...], int]:
    """What became of a variation that was tried: its state, with which others, and how many outputs.

    ``effect`` is None when no build tells whether it had any.
    """
    mine = [cause for cause in causes if name in cause.variations]
    others = tuple(tuple(other for other in cause.variations if other != name) for cause in mine)
    outputs = len({one.path for cause in mine for one in cause.differences})
    if any(cause.fails is not None for cause in mine):
        return State.FAILS, others, outputs
    if mine:
        return State.DIFFERS, others, outputs
    if name in same:
        return State.AS, (), 0
    if effect is False:
        return State.NO_EFFECT, (), 0
    if effect is None or (found.unfinished is not None and not _equal_with(name, found)):
        return State.OPEN, (), 0
    return State.HELD, (), 0


def _equal_with(name: str, found: Minimised) -> bool:
    """Whether an unfinished search has built something equal with a variation: then it cannot be a cause alone."""
    return any(name in names and not result.failed and not result.changed for names, result in found.results.items())
