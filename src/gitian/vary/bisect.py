"""From two environments whose builds differ to the packages whose versions flip the output.

The changes from one environment to the other are put in an order. With the first k of them the output is as in A for
small k and not for large k; a binary search finds where it flips, and two builds confirm the change there: A with it
alone is not as A, B without it is. How the search goes on from there (several culprits, culprits only together,
environments that cannot be made) is minimise.py's: a change is a variation of A.

The bound. For n changes of which one is the culprit: one build with all of them; ceil(log2 n) for the place, since
each build halves the n places at which it may flip; one with the culprit alone; one with all others: ceil(log2 n) + 3.
That is at most 2 * log2(n) + 2. For n >= 4, ceil(log2 n) < log2(n) + 1 and 2 <= log2(n), so ceil(log2 n) + 3 <
2 * log2(n) + 2 + 2 - log2(n) <= 2 * log2(n) + 2. For n = 3 it is 5 <= 2 * 1.58 + 2; for n = 2 it is 4 <= 4; for n = 1
the first build is the culprit alone, and all others are A itself: 1 <= 2.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass

from gitian.vary.budget import Meter, Progress
from gitian.vary.minimise import Chosen, ReferenceDiffers, Result, Search

# The one output of which a bisection knows: whether all of them are as in A.
_OUTPUTS = "outputs"


class Outcome(enum.Enum):
    """What building in one environment gave: A's outputs, B's, some others, or nothing that could be compared."""

    LIKE_A = "like A"
    LIKE_B = "like B"
    OTHER = "unlike both"
    UNRESOLVED = "no build"


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """One package in which the environments differ; None stands for 'not installed'."""

    name: str
    before: str | None
    after: str | None

    def __str__(self) -> str:
        if self.before is None:
            return f"{self.name} {self.after} added"
        return f"{self.name} {self.before} removed" if self.after is None else \
            f"{self.name} {self.before} -> {self.after}"


class Conclusion(enum.Enum):
    """What a bisection says in the end."""

    NAMED = "packages named"
    NO_CHANGES = "the environments are the same"
    NOT_THE_PACKAGES = "with all packages of B the outputs are A's"
    START_DIFFERS = "even with all packages of A the outputs are not A's"
    UNDECIDED = "undecided"


@dataclass(frozen=True, slots=True, kw_only=True)
class Culprit:
    """A smallest set of changes that makes A's environment give other outputs.

    ``units``: each a change, or several that cannot be made apart; more than one unit if only their interaction
    does it. ``alone``: the outcome of A with nothing else changed. ``without``: that of all changes but
    these (None: not built; with nothing else to change it is A). ``certain`` False: smaller sets could not be built.
    """

    units: tuple[tuple[Change, ...], ...]
    alone: Outcome
    without: Outcome | None
    certain: bool = True

    @property
    def changes(self) -> tuple[Change, ...]:
        """All of them, whatever goes together."""
        return tuple(change for unit in self.units for change in unit)


@dataclass(frozen=True, slots=True, kw_only=True)
class Bisection:
    """What was found. ``unfinished`` says why the search ended early, or is None.

    ``suspects``, when unfinished: the changes among which something is needed, for each difference without a confirmed
    culprit. ``unchecked``: sets of which no environment could be made or built, so that a further culprit
    might hide there. ``builds`` were made by this search.
    """

    conclusion: Conclusion
    culprits: tuple[Culprit, ...]
    suspects: tuple[tuple[Change, ...], ...]
    unchecked: tuple[tuple[Change, ...], ...]
    unfinished: str | None
    builds: int

    @property
    def finished(self) -> bool:
        """Whether the search came to its end."""
        return self.unfinished is None


def changes_between(a: Mapping[str, str], b: Mapping[str, str]) -> tuple[Change, ...]:
    """What leads from one package set (name to version or hash) to the other, by name."""
    return tuple(Change(name=name, before=a.get(name), after=b.get(name))
                 for name in sorted({*a, *b}) if a.get(name) != b.get(name))


def units_of(changes: Iterable[Change], groups: Iterable[Collection[str]] = ()) -> tuple[tuple[Change, ...], ...]:
    """Changes put together that cannot be made apart: ``groups`` of names, which are joined where they overlap.

    Names that do not change are of no account. Each unit stands where its first change stood. Raises ValueError for
    two changes of one name.
    """
    changes = tuple(changes)
    leader = {change.name: change.name for change in changes}
    if len(leader) != len(changes):
        raise ValueError("a package changes twice")

    def lead(name: str) -> str:
        while leader[name] != name:
            leader[name] = name = leader[leader[name]]
        return name

    for group in groups:
        names = [name for name in group if name in leader]
        for name in names[1:]:
            leader[lead(name)] = lead(names[0])
    units: dict[str, list[Change]] = {}
    for change in changes:
        units.setdefault(lead(change.name), []).append(change)
    return tuple(map(tuple, units.values()))


def bisect(changes: Iterable[Change], step: Callable[[frozenset[Change]], Outcome], *,
           groups: Iterable[Collection[str]] = (), known: Mapping[frozenset[Change], Outcome] | None = None,
           meter: Meter | None = None, progress: Callable[[Progress], None] | None = None) -> Bisection:
    """Find the packages whose change flips the output.

    ``step`` builds A with the chosen changes made and nothing else. ``groups``: names of packages that must change
    together (binaries of one source package that depend on each other's exact version). ``known``: outcomes had
    before, the ends included; A's own end is believed to be like A until two culprits make it doubtful.

    For one culprit among n units, all of them buildable, at most ceil(log2 n) + 3 <= 2 * log2(n) + 2 builds; more
    culprits and environments that cannot be made take more. No set is built twice. Raises ValueError for two changes
    of one name, and whatever ``step`` raises.
    """
    units = {unit[0].name: unit for unit in units_of(changes, groups)}
    names = {change.name: first for first, unit in units.items() for change in unit}
    sets = {first: frozenset(unit) for first, unit in units.items()}
    outcomes: dict[Chosen, Outcome] = {}

    def whole(chosen: Chosen) -> frozenset[Change]:
        return frozenset[Change]().union(*(sets[first] for first in chosen))

    for before, outcome in (known or {}).items():
        chosen = frozenset(names[change.name] for change in before if change.name in names)
        if whole(chosen) == before:
            outcomes[chosen] = outcome

    def build(chosen: Chosen) -> Result:
        outcomes[chosen] = step(whole(chosen))
        return _result(outcomes[chosen])

    search = Search(tuple(units), build, known={chosen: _result(outcome) for chosen, outcome in outcomes.items()},
                    meter=meter, progress=progress, blame_failures=False, watched=(_OUTPUTS,))
    everything = frozenset(units)
    if not units:
        return _bisection(Conclusion.NO_CHANGES, search)
    if outcomes.get(frozenset(), Outcome.LIKE_A) in (Outcome.LIKE_B, Outcome.OTHER):
        return _bisection(Conclusion.START_DIFFERS, search)
    try:
        unfinished = search.run()
    except ReferenceDiffers:
        return _bisection(Conclusion.START_DIFFERS, search)

    def spread(chosen: Iterable[str]) -> tuple[Change, ...]:
        return tuple(change for first in search.ordered(chosen) for change in units[first])

    culprits = tuple(Culprit(units=tuple(units[first] for first in cause.variations),
                             alone=outcomes[frozenset(cause.variations)],
                             without=outcomes.get(everything.difference(cause.variations)), certain=cause.certain)
                     for cause in search.found())
    suspects = tuple(spread(left.suspects) for left in search.left()) if unfinished else ()
    unchecked = tuple(spread(chosen) for chosen in search.unchecked)
    conclusion = Conclusion.NAMED if culprits else Conclusion.UNDECIDED
    if not culprits and outcomes.get(everything) is Outcome.LIKE_A:
        conclusion = Conclusion.NOT_THE_PACKAGES
    return Bisection(conclusion=conclusion, culprits=culprits, suspects=suspects, unchecked=unchecked,
                     unfinished=unfinished, builds=search.builds)


def _bisection(conclusion: Conclusion, search: Search) -> Bisection:
    return Bisection(conclusion=conclusion, culprits=(), suspects=(), unchecked=(), unfinished=None,
                     builds=search.builds)


def _result(outcome: Outcome) -> Result:
    if outcome is Outcome.UNRESOLVED:
        return Result(failed=outcome.value)
    return Result(changed={} if outcome is Outcome.LIKE_A else {_OUTPUTS: outcome.value})
