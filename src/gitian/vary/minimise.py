"""From 'something differs when all of these are varied' to the smallest sets of variations that make it differ.

The root is delta debugging: Andreas Zeller and Ralf Hildebrandt, "Simplifying and Isolating Failure-Inducing Input",
IEEE Transactions on Software Engineering 28(2), 2002, whose ddmin is ``Search._ddmin`` here. It is used only where
builds fail: elsewhere one binary search over the prefixes of an ordered set finds one member of a cause (the search
for a transition in Ulrich Junker, "QuickXPlain", AAAI 2004). That other causes hide behind the first is answered by
the hitting set tree of Raymond Reiter, "A Theory of Diagnosis from First Principles", Artificial Intelligence 32(1),
1987: one member of each known cause is left out, and what is left is built.

That more variations never undo a difference is a guess which saves builds. It is not believed: a cause has been built
as exactly that set, and so have its subsets without one member.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations

from gitian.vary.budget import Meter, Progress
from gitian.vary.words import listed

Chosen = frozenset[str]
# What a search asks of a build: does this path differ, or (None) does the build fail?
Kind = str | None
FAILS: Kind = None

# Up to so many members, every smaller set within a cause is built, too; beyond, those with one member less.
_ALL_SUBSETS = 4
# How many other places are tried where a prefix cannot be built, before ddmin takes over.
_PROBES = 5
# What a search without a budget of builds may spend: every subset of eight, else some for each name. Only outputs that
# are random, in a way that no repeat showed, come near it.
_ENOUGH = 256


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """What one build gave: each output that differs from the reference build, with the digest of its content.

    Equal outputs are absent. ``failed`` says why there are no outputs at all; ``changed`` is of no account then.
    """

    changed: Mapping[str, str] = field(default_factory=dict)
    failed: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Cause:
    """A smallest set of variations that alone makes outputs differ, or makes the build fail.

    ``outputs`` are the paths for which no smaller set within it suffices, with the digests that exactly this set gave.
    ``fails`` says why the build failed; then there are no outputs. ``certain`` is False where a smaller set
    could not be built, so that it may be a cause as well.
    """

    variations: tuple[str, ...]
    outputs: Mapping[str, str]
    fails: str | None = None
    certain: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Left:
    """What an unfinished search knows of a difference that has no confirmed cause yet.

    All of ``variations`` together make ``outputs`` differ (or the build fail); something among ``suspects`` is needed.
    """

    variations: tuple[str, ...]
    suspects: tuple[str, ...]
    outputs: tuple[str, ...]
    fails: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Minimised:
    """The causes, smallest first. ``unfinished`` says why the search ended early, or is None.

    ``left``: seen differences without a confirmed cause, only when unfinished. Even when nothing is left, an
    unfinished search has not looked at everything behind the causes that it names. ``results`` has all that was built
    or known before. ``builds`` counts this search's own.
    """

    causes: tuple[Cause, ...]
    left: tuple[Left, ...]
    unfinished: str | None
    builds: int
    results: Mapping[Chosen, Result]

    @property
    def finished(self) -> bool:
        """Whether the search came to its end."""
        return self.unfinished is None


def minimise(variations: Sequence[str], build: Callable[[Chosen], Result], *, noisy: Collection[str] = (),
             known: Mapping[Chosen, Result] | None = None, meter: Meter | None = None,
             progress: Callable[[Progress], None] | None = None) -> Minimised:
    """Find every smallest set of variations that makes an output differ from the reference, or the build fail.

    Never builds a set twice, nor one of ``known``, nor the empty set (it is the reference). ``noisy`` outputs differ
    without any variation and are left out. With n variations and one of them the cause, at most
    ``bound_for_one(n)`` builds. Put the likeliest variation first: nothing depends on the order but the number of
    builds. Raises ValueError for a name given twice, and whatever ``build`` raises.
    """
    search = Search(variations, build, noisy=noisy, known={**(known or {}), frozenset(): Result()}, meter=meter,
                    progress=progress)
    unfinished = search.run()
    return Minimised(causes=search.found(), left=search.left() if unfinished else (), unfinished=unfinished,
                     builds=search.builds, results=dict(search.results))


def halvings(count: int) -> int:
    """How often ``count`` places can be halved until one is left: the logarithm to the base of 2, rounded up."""
    return max(0, count - 1).bit_length()


def bound_for_one(count: int) -> int:
    """How many builds name the cause at most, when it is one of ``count``.

    One with all; the logarithm rounded up for the place in the order; one with the cause alone; one with all others.
    With a single candidate the first of them says everything.
    """
    return min(count, 1) if count < 2 else halvings(count) + 3


class Exhausted(Exception):
    """Inside a search: no further build may start; says why."""


class ReferenceDiffers(Exception):
    """Inside a search that was not told the result of the empty set: it differs, too."""


class Search:
    """One search: what was built, what was found, and the ways to find more. ``minimise`` and ``bisect`` run it.

    ``blame_failures`` False: a failed build is no finding, only something to work around. ``watched``: outputs to
    look for even when no build showed them.
    """

    def __init__(self, names: Sequence[str], build: Callable[[Chosen], Result], *, noisy: Collection[str] = (),
                 known: Mapping[Chosen, Result] | None = None, meter: Meter | None = None,
                 progress: Callable[[Progress], None] | None = None, blame_failures: bool = True,
                 watched: Iterable[str] = ()) -> None:
        self.names = tuple(names)
        self._rank = {name: rank for rank, name in enumerate(self.names)}
        if len(self._rank) != len(self.names):
            raise ValueError("a name is given twice")
        self._everything = frozenset(self.names)
        self._noisy = frozenset(noisy)
        self._build = build
        self._meter = meter or Meter()
        self._progress = progress
        self._blame = blame_failures
        self.results: dict[Chosen, Result] = {}
        self._seen: set[str] = set(watched)
        self._causes: dict[Kind, list[Chosen]] = {}
        self._explained: dict[Kind, set[Chosen]] = {}
        # Sets of which something could not be built, so that nobody knows what it does.
        self.unchecked: list[Chosen] = []
        self.builds = 0
        self._expected = 0
        self._news: str | None = None
        for chosen, result in (known or {}).items():
            if chosen <= self._everything:
                self._keep(chosen, result)

    def run(self) -> str | None:
        """Search until everything is explained (None), or return why it ended before."""
        try:
            self._explore()
        except Exhausted as end:
            return str(end)
        return None

    # What is known

    def ordered(self, chosen: Iterable[str]) -> tuple[str, ...]:
        """Names in the order in which they were given."""
        return tuple(sorted(chosen, key=self._rank.__getitem__))

    def causes(self, kind: Kind) -> list[Chosen]:
        """Confirmed causes of one kind, in the order in which they were found."""
        return self._causes.get(kind, [])

    def found(self) -> tuple[Cause, ...]:
        """All confirmed causes: those of failures first, then the smallest."""
        outputs: dict[Chosen, dict[str, str]] = {}
        for kind in sorted(kind for kind in self._causes if kind is not None):
            for chosen in self._causes[kind]:
                outputs.setdefault(chosen, {})[kind] = self.results[chosen].changed[kind]
        causes = [self._cause(chosen, {}, self.results[chosen].failed) for chosen in self.causes(FAILS)]
        causes += [self._cause(chosen, paths, None) for chosen, paths in outputs.items()]
        return tuple(sorted(causes, key=lambda cause: (cause.fails is None, len(cause.variations),
                                                       [self._rank[name] for name in cause.variations])))

    def left(self) -> tuple[Left, ...]:
        """Differences seen that no confirmed cause explains, each within the smallest set that showed it."""
        groups: dict[tuple[Chosen, Chosen, bool], list[str]] = {}
        for kind in self._kinds():
            open_sets = [chosen for chosen in self.results if self._unexplained(chosen, kind)]
            if not open_sets:
                continue
            smallest = min(open_sets, key=lambda chosen: (len(chosen), self.ordered(chosen)))
            same = [chosen for chosen in self.results if chosen < smallest and self._known(chosen, kind) is False]
            suspects = smallest - max(same, key=len, default=frozenset())
            groups.setdefault((smallest, suspects, kind is FAILS), []).extend([] if kind is None else [kind])
        return tuple(Left(variations=self.ordered(chosen), suspects=self.ordered(suspects), outputs=tuple(outputs),
                          fails=self.results[chosen].failed if fails else None)
                     for (chosen, suspects, fails), outputs in groups.items())

    def _cause(self, chosen: Chosen, outputs: Mapping[str, str], fails: str | None) -> Cause:
        certain = fails is not None or all(self.results[part].failed is None for part in self._parts(chosen))
        return Cause(variations=self.ordered(chosen), outputs=outputs, fails=fails, certain=certain)

    def _kinds(self) -> Iterator[Kind]:
        if self._blame:
            yield FAILS
        yield from sorted(self._seen)

    def _known(self, chosen: Chosen, kind: Kind) -> bool | None:
        """Does a set that was built show it? None: the build failed, nobody knows."""
        result = self.results[chosen]
        if kind is None:
            return result.failed is not None
        return None if result.failed is not None else kind in result.changed

    def _unexplained(self, chosen: Chosen, kind: Kind) -> bool:
        if not chosen or chosen in self._explained.get(kind, ()) or not self._known(chosen, kind):
            return False
        if any(cause <= chosen for cause in self.causes(kind)):
            self._explained.setdefault(kind, set()).add(chosen)
            return False
        return True

    def _keep(self, chosen: Chosen, result: Result) -> None:
        changed = {path: digest for path, digest in result.changed.items() if path not in self._noisy}
        self.results[chosen] = Result(changed={} if result.failed is not None else changed, failed=result.failed)
        self._seen.update(self.results[chosen].changed)

    # Building

    def _state(self, chosen: Iterable[str], kind: Kind, purpose: str) -> bool | None:
        chosen = frozenset(chosen)
        if chosen not in self.results:
            self._make(chosen, purpose)
        return self._known(chosen, kind)

    def _make(self, chosen: Chosen, purpose: str) -> None:
        reason = self._meter.exhausted()
        if reason is None and self._meter.budget.builds is None and self.builds >= max(_ENOUGH, 8 * len(self.names)):
            reason = f"{self.builds} builds led to no end; outputs that are random without any variation do that."
        if reason is not None:
            raise Exhausted(reason)
        if self._expected < 1:
            self._expect(1, "What came to light needs a build more")
        if self._progress:
            budget = self._meter.left()
            remaining = self._expected if budget is None else min(self._expected, budget)
            self._progress(Progress(built=self.builds, remaining_at_most=remaining, chosen=chosen, purpose=purpose,
                                    news=self._news))
        self._news = None
        self.builds += 1
        self._expected -= 1
        with self._meter.building():
            result = self._build(chosen)
        self._keep(chosen, result)

    def _expect(self, builds: int, news: str) -> None:
        """So many builds remain at most, by what is known now. ``news`` is told only if that is more than was said."""
        if builds > self._expected and self.builds:
            self._news = news
        self._expected = builds

    def _after(self, size: int) -> int:
        """Builds that follow when a cause of ``size`` members is confirmed, and those still due for the others."""
        subsets = 0 if size == 1 else size if size > _ALL_SUBSETS else 2 ** size - 2
        due = {name for causes in self._causes.values() for cause in causes for name in cause
               if self._everything - {name} not in self.results}
        return subsets + size + len(due)

    # Searching

    def _explore(self) -> None:
        if not self.names:
            return
        self._expect(bound_for_one(len(self.names)), "")
        self._state(self._everything, FAILS, "everything together")
        # What is found after a kind was looked through, by failures of other sets or against the guess that more never
        # undoes a difference, opens other ways through the tree.
        done: dict[Kind, int] = {}
        while True:
            self._explain_all()
            pending = [kind for kind in self._kinds() if done.get(kind) != self._ways(kind)]
            if not pending:
                return
            for kind in pending:
                before = len(self.results)
                self._enumerate(kind)
                done[kind] = self._ways(kind)
                if len(self.results) > before:
                    self._explain_all()

    def _ways(self, kind: Kind) -> int:
        return len(self.causes(kind)) + len(self.causes(FAILS))

    def _explain_all(self) -> None:
        """Name a cause for all that any build has shown."""
        again = True
        while again:
            again = False
            for kind in self._kinds():
                open_sets = [chosen for chosen in self.results if self._unexplained(chosen, kind)]
                if open_sets:
                    self._explain(min(open_sets, key=lambda chosen: (len(chosen), self.ordered(chosen))), kind)
                    again = True
                    break

    def _enumerate(self, kind: Kind) -> None:
        """Reiter's tree: leave out one member of each known cause, smallest sets first, until nothing differs."""
        queue: list[tuple[int, tuple[int, ...]]] = [(0, ())]
        queued: set[tuple[int, ...]] = {()}
        leaves: list[Chosen] = []
        while queue:
            _, ranks = heapq.heappop(queue)
            without = frozenset(self.names[rank] for rank in ranks)
            chosen = self._everything - without
            if not chosen or any(leaf <= without for leaf in leaves):
                continue
            cause = self._cause_within(chosen, kind) or self._look(chosen, kind)
            if cause is None:
                leaves.append(without)
                continue
            for name in cause:
                child = tuple(sorted((*ranks, self._rank[name])))
                if child not in queued:
                    queued.add(child)
                    heapq.heappush(queue, (len(child), child))

    def _cause_within(self, chosen: Chosen, kind: Kind) -> Chosen | None:
        causes = self.causes(kind) if kind is FAILS or not self._blame else self.causes(FAILS) + self.causes(kind)
        return min((cause for cause in causes if cause <= chosen), key=len, default=None)

    def _look(self, chosen: Chosen, kind: Kind) -> Chosen | None:
        """Build a set without any known cause in it; if it differs all the same, find why."""
        without = self.ordered(self._everything - chosen)
        purpose = f"everything without {_quoted(without)}" if without else "everything together"
        state = self._state(chosen, kind, purpose)
        if state is False:
            return None
        if state is None and not self._blame:
            self._cover(chosen, kind)
        elif without and frozenset() not in self.results:
            self._doubt(kind)
        self._explain_all()
        return self._cause_within(chosen, kind)

    def _doubt(self, kind: Kind) -> None:
        """More than one cause, and nobody has looked at the start: perhaps everything differs from what was said."""
        self._expect(self._expected + 1, "It still differs without what was found")
        if self._state((), kind, "nothing changed at all"):
            raise ReferenceDiffers

    def _explain(self, chosen: Chosen, kind: Kind) -> None:
        """Find and confirm one cause within a set that shows the difference."""
        if not self._singles(chosen, kind):
            self._confirm(self._shrink(chosen, kind), kind)

    def _singles(self, chosen: Chosen, kind: Kind) -> bool:
        """Many causes among few candidates: to try each alone is cheaper than to halve again for every cause."""
        found = len({cause for causes in self._causes.values() for cause in causes})
        cleared = [other for other in self.results if self._known(other, kind) is False]
        alone = [name for name in self.ordered(chosen) if frozenset((name,)) not in self.results
                 and not any(name in other for other in cleared)]
        if found < 3 or len(alone) > found * (halvings(len(alone)) + 2):
            return False
        for at, name in enumerate(alone):
            self._expect(len(alone) - at + self._after(1), "There are many causes: each candidate is tried alone")
            if self._state((name,), kind, f"'{name}' alone"):
                self._confirm(frozenset((name,)), kind)
                return True
        return False

    def _shrink(self, chosen: Chosen, kind: Kind) -> Chosen:
        """A set within ``chosen`` that shows the difference: a smallest if more never undoes it and nothing fails."""
        base: Chosen = frozenset()
        pool = self.ordered(chosen)
        builds = True
        while True:
            low, high = self._transition(base, pool, kind, failing_is_same=not builds)
            if high - low > 1:
                # Most often one needs another that comes later: the other way round, it comes first.
                context, block = base.union(pool[:low]), pool[low:high][::-1]
                first, last = self._transition(context, block, kind)
                pool, low, block = (*pool[:low], *block[:first]), low + first, block[first:last]
                if len(block) > 1:
                    block = self._ddmin(base.union(pool), block, kind)
            else:
                block = pool[low:high]
            base = base.union(block)
            pool = pool[:low]
            if not pool:
                return base
            self._expect(1 + self._after(len(base)), "Some of these sets cannot be built" if not builds or any(
                result.failed is not None for result in self.results.values()) else "It takes several together"
                if len(base) > 1 else "Another cause came to light")
            names = _quoted(self.ordered(base))
            state = self._state(base, kind, f"{names} alone" if len(base) == 1 else f"only {names}")
            if state:
                return base
            builds = state is not None

    def _transition(self, base: Chosen, pool: Sequence[str], kind: Kind, *,
                    failing_is_same: bool = False) -> tuple[int, int]:
        """Where the prefixes of ``pool``, added to ``base``, begin to show the difference: (last without, first with).

        They are neighbours unless what lies between cannot be built. ``failing_is_same``: look for what ``base`` needs
        to be built at all, so that a failure is one side of the place looked for.
        """
        low, high = self._remembered(base, pool, kind)
        news = "It takes several together" if base else "Another cause came to light"
        while high - low > 1:
            self._expect(halvings(high - low) + 1 + self._after(len(base) + 1), news)
            for middle in _probes(low, high):
                state = self._state(base.union(pool[:middle]), kind, f"half of {high - low} candidates")
                if state is not None or failing_is_same:
                    break
                news = "Some of these sets cannot be built"
            else:
                return low, high
            low, high = (low, middle) if state else (middle, high)
        return low, high

    def _remembered(self, base: Chosen, pool: Sequence[str], kind: Kind) -> tuple[int, int]:
        """The same from what is built already: earlier searches went along the same prefixes."""
        place = {name: at for at, name in enumerate(pool)}
        states: list[tuple[int, bool | None]] = []
        for other in self.results:
            length = len(other) - len(base)
            if 0 < length < len(pool) and base <= other and all(place.get(name, length) < length
                                                                for name in other - base):
                states.append((length, self._known(other, kind)))
        high = min((length for length, state in states if state), default=len(pool))
        return max((length for length, state in states if state is False and length < high), default=0), high

    def _ddmin(self, context: Chosen, block: tuple[str, ...], kind: Kind) -> tuple[str, ...]:
        """Zeller and Hildebrandt's ddmin: what cannot be built is neither one nor the other, and is cut finer."""
        parts = 2
        while len(block) > 1:
            chunks = [block[at * len(block) // parts:(at + 1) * len(block) // parts] for at in range(parts)]
            rests = [tuple(name for name in block if name not in chunk) for chunk in chunks] if parts > 2 else []
            self._expect(len(chunks) + len(rests) + 1 + self._after(1), "Some of these sets cannot be built")
            smaller = next((part for part in (*chunks, *rests)
                            if self._state(context.union(part), kind, f"{len(part)} of {len(block)} candidates")), None)
            if smaller is not None:
                parts = 2 if smaller in chunks else max(parts - 1, 2)
                block = smaller
            elif parts >= len(block):
                break
            else:
                parts = min(2 * parts, len(block))
        return block

    def _parts(self, chosen: Chosen) -> Iterator[Chosen]:
        """The smaller sets that must not show the difference, if ``chosen`` is a cause."""
        sizes = range(len(chosen) - 1, 0, -1) if len(chosen) <= _ALL_SUBSETS else (len(chosen) - 1,)
        return (frozenset(part) for size in sizes for part in combinations(self.ordered(chosen), size))

    def _confirm(self, chosen: Chosen, kind: Kind) -> None:
        """Build what is smaller than a would-be cause; keep the cause, for every other output that it explains, too."""
        self._expect(self._after(len(chosen)), "It takes several together")
        while smaller := next((part for part in self._parts(chosen)
                               if self._state(part, kind, f"only {_quoted(self.ordered(part))}")), None):
            chosen = smaller
        parts = tuple(self._parts(chosen))
        for other in self._kinds():
            if self._unexplained(chosen, other) and not any(self._known(part, other) for part in parts):
                self._causes.setdefault(other, []).append(chosen)

    def _cover(self, chosen: Chosen, kind: Kind) -> None:
        """A set that cannot be built is looked at in pieces, as large as can be, with a bound on their number."""
        pieces = [self.ordered(chosen)]
        tries = 2 * halvings(len(self.names)) + 2
        blind: list[Chosen] = []
        while pieces and tries > 0:
            piece = pieces.pop(0)
            middle = len(piece) // 2
            for half in (piece[:middle], piece[middle:]):
                if not half:
                    continue
                tries -= frozenset(half) not in self.results
                self._expect(max(tries, 0) + 1, "Not everything can be built together: it is tried in pieces")
                state = self._state(half, kind, f"{len(half)} of {len(chosen)} candidates")
                if state:
                    return
                if state is None and len(half) > 1:
                    pieces.append(half)
                elif state is None:
                    blind.append(frozenset(half))
        self.unchecked += blind + [frozenset(piece) for piece in pieces]


def _probes(low: int, high: int) -> Iterator[int]:
    """Places strictly between, the middle first, then its quarters: where one cannot be built, the next is tried."""
    given: set[int] = set()
    for part, of in ((1, 2), (1, 4), (3, 4), (1, 8), (7, 8)):
        place = min(max(low + (high - low) * part // of, low + 1), high - 1)
        if place not in given:
            given.add(place)
            yield place


def _quoted(names: Sequence[str]) -> str:
    return listed([f"'{name}'" for name in names], 4)
