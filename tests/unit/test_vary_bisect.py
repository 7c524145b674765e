"""The search for the packages that flip an output: the bound at every place, interactions, and what cannot be made."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterable
from itertools import combinations

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gitian.vary.bisect import Bisection, Change, Conclusion, Outcome, bisect, changes_between, units_of
from gitian.vary.budget import Budget, Meter, Progress

PROPERTY = settings(max_examples=200, deadline=None, derandomize=True, database=None,
                    suppress_health_check=[HealthCheck.too_slow])
Environment = frozenset[Change]


def upgrades(count: int) -> list[Change]:
    return [Change(name=f"p{at:03}", before="1.0-1", after="1.0-2") for at in range(count)]


class Steps:
    """Outcomes from a truth; takes note of each environment and refuses to build one again."""

    def __init__(self, truth: Callable[[Environment], Outcome]) -> None:
        self.truth = truth
        self.made: dict[Environment, Outcome] = {}

    def __call__(self, chosen: Environment) -> Outcome:
        assert chosen not in self.made, "built twice"
        self.made[chosen] = self.truth(chosen)
        return self.made[chosen]


def flipped_by(changes: list[Change], *culprits: Collection[int],
               needs: Iterable[tuple[int, int]] = ()) -> Steps:
    """B's outputs with all of some culprit; no environment where the first of a pair has changed and not the second."""
    sets = [frozenset(changes[at] for at in culprit) for culprit in culprits]
    pairs = [(changes[one], changes[other]) for one, other in needs]

    def truth(chosen: Environment) -> Outcome:
        if any(one in chosen and other not in chosen for one, other in pairs):
            return Outcome.UNRESOLVED
        active = sum(culprit <= chosen for culprit in sets)
        return Outcome.LIKE_A if not active else Outcome.LIKE_B if active == len(sets) else Outcome.OTHER

    return Steps(truth)


def places(found: Bisection) -> set[frozenset[int]]:
    return {frozenset(int(change.name[1:]) for change in culprit.changes) for culprit in found.culprits}


@pytest.mark.slow
def test_one_culprit_is_named_and_confirmed_within_the_bound_wherever_it_is() -> None:
    everything = upgrades(300)
    # Every place among up to 64, and around powers of two, where the bound is tightest; of other numbers some places.
    for count in range(1, 301):
        changes = everything[:count]
        for at in range(0, count, 1 if count <= 64 or count in (127, 128, 129, 150, 256, 257, 300) else 17):
            culprit = changes[at]
            steps = flipped_by(changes, [at])
            found = bisect(changes, steps)
            made = steps.made
            assert len(made) == found.builds <= 2 * math.log2(count) + 2, (count, at)
            assert (found.conclusion, found.finished, found.unchecked) == (Conclusion.NAMED, True, ())
            assert [named.changes for named in found.culprits] == [(culprit,)]
            # Both builds that confirm it were made: A with the culprit alone, and B without it (A itself if no more).
            assert made[frozenset([culprit])] is found.culprits[0].alone is Outcome.LIKE_B
            if count > 1:
                assert made[frozenset(changes) - {culprit}] is found.culprits[0].without is Outcome.LIKE_A
            else:
                assert found.culprits[0].without is None


@pytest.mark.parametrize("count", [1, 2, 3, 7, 150, 300])
def test_the_builds_that_remain_never_rise_for_one_culprit(count: int) -> None:
    changes = upgrades(count)
    for at in {0, count // 3, count // 2, count - 1}:
        said: list[Progress] = []
        found = bisect(changes, flipped_by(changes, [at]), progress=said.append)
        remaining = [progress.remaining_at_most for progress in said]
        assert remaining == sorted(set(remaining), reverse=True)
        assert remaining[0] <= 2 * math.log2(count) + 2
        assert all(left >= found.builds - at for at, left in enumerate(remaining))


some = st.frozensets(st.integers(min_value=0, max_value=7), min_size=1, max_size=3)


@PROPERTY
@given(culprits=st.lists(some, min_size=1, max_size=4))
def test_all_culprits_and_interactions_are_named(culprits: list[frozenset[int]]) -> None:
    changes = upgrades(8)
    steps = flipped_by(changes, *culprits)
    found = bisect(changes, steps)
    assert found.finished and found.conclusion is Conclusion.NAMED
    assert places(found) == {one for one in culprits if not any(other < one for other in culprits)}
    assert found.builds == len(steps.made)
    for culprit in found.culprits:
        assert culprit.certain
        assert culprit.alone is steps.made[frozenset(culprit.changes)] is not Outcome.LIKE_A


def test_two_of_many_and_an_interaction() -> None:
    changes = upgrades(150)
    two = bisect(changes, flipped_by(changes, [20], [133]))
    assert places(two) == {frozenset([20]), frozenset([133])}
    assert [culprit.alone for culprit in two.culprits] == [Outcome.OTHER, Outcome.OTHER]
    pair = bisect(changes, flipped_by(changes, [20, 133]))
    assert places(pair) == {frozenset([20, 133])}
    assert len(pair.culprits[0].units) == 2


def test_what_must_change_together_is_one_unit() -> None:
    changes = upgrades(40)
    groups = [["p010", "p030", "not-changed"], ["p030", "p035"], ["p001", "p002"]]
    units = units_of(changes, groups)
    assert [[change.name for change in unit] for unit in units if len(unit) > 1] == \
        [["p001", "p002"], ["p010", "p030", "p035"]]
    together = [frozenset(changes[at] for at in (10, 30, 35)), frozenset(changes[at] for at in (1, 2))]

    def truth(chosen: Environment) -> Outcome:
        assert all(group <= chosen or not group & chosen for group in together), "torn apart"
        return Outcome.LIKE_B if changes[30] in chosen else Outcome.LIKE_A

    found = bisect(changes, Steps(truth), groups=groups)
    assert places(found) == {frozenset([10, 30, 35])}
    assert len(found.culprits[0].units) == 1
    assert found.builds <= 2 * math.log2(len(units)) + 2


@PROPERTY
@given(culprit=st.integers(0, 39), needs=st.lists(st.tuples(st.integers(0, 39), st.integers(0, 39)), max_size=4))
def test_environments_that_cannot_be_made_are_worked_around(culprit: int, needs: list[tuple[int, int]]) -> None:
    changes = upgrades(40)
    steps = flipped_by(changes, [culprit], needs=needs)
    found = bisect(changes, steps)
    assert found.conclusion is Conclusion.NAMED and found.finished
    assert len(found.culprits) == 1 and culprit in next(iter(places(found)))
    # What the culprit cannot do without is named with it, and nothing else.
    wanted = {culprit}
    while more := {other for one, other in needs if one in wanted} - wanted:
        wanted |= more
    if len(wanted) <= 4:
        assert places(found) == {frozenset(wanted)}
    for named in found.culprits:
        chosen = frozenset(named.changes)
        assert steps.made[chosen] is Outcome.LIKE_B
        smaller = [frozenset(part) for part in combinations(chosen, len(chosen) - 1) if part]
        assert all(steps.made[part] in (Outcome.LIKE_A, Outcome.UNRESOLVED) for part in smaller)


@pytest.mark.parametrize(("culprit", "needs"), [
    (40, [(20, 100)]),  # the order stands in the way: all prefixes between 20 and 100
    (20, [(20, 100)]),  # the culprit cannot do without another
    (60, [(20, 100), (99, 21)]),  # neither the order nor its reverse can be made
])
def test_working_around_takes_far_fewer_builds_than_packages(culprit: int, needs: list[tuple[int, int]]) -> None:
    changes = upgrades(150)
    found = bisect(changes, flipped_by(changes, [culprit], needs=needs))
    assert places(found) == {frozenset([culprit, *(other for one, other in needs if one == culprit)])}
    assert found.builds <= 150 // 3


def test_what_a_culprit_needs_is_found_by_halving_too() -> None:
    changes = upgrades(150)
    found = bisect(changes, flipped_by(changes, [100], needs=[(100, 20)]))
    assert places(found) == {frozenset([20, 100])} and not found.culprits[0].certain
    # All; its place; it alone (cannot be made); the place of what it needs; both, and the other one alone; all
    # without the one or the other; the pieces of the latter, which cannot be made with the culprit in it.
    halvings = math.ceil(math.log2(150))
    assert found.builds <= 1 + halvings + 1 + halvings + 2 + 2 + (2 * halvings + 2)


def test_what_cannot_be_looked_at_is_said() -> None:
    changes = upgrades(16)
    found = bisect(changes, flipped_by(changes, [5], needs=[(11, 5)]))
    assert places(found) == {frozenset([5])}
    assert found.culprits[0].without is Outcome.UNRESOLVED
    assert found.unchecked == ((changes[11],),)


def test_b_cannot_be_made_at_all() -> None:
    changes = upgrades(64)

    def truth(chosen: Environment) -> Outcome:
        if len(chosen) > 32:
            return Outcome.UNRESOLVED
        return Outcome.OTHER if changes[50] in chosen else Outcome.LIKE_A

    found = bisect(changes, Steps(truth))
    assert places(found) == {frozenset([50])} and found.conclusion is Conclusion.NAMED


def test_nothing_can_be_made() -> None:
    found = bisect(upgrades(64), Steps(lambda chosen: Outcome.UNRESOLVED))
    assert found.conclusion is Conclusion.UNDECIDED and found.culprits == ()
    assert {change for part in found.unchecked for change in part} == set(upgrades(64))
    assert found.builds <= 2 * math.log2(64) + 4


def test_the_packages_are_not_the_cause() -> None:
    found = bisect(upgrades(150), Steps(lambda chosen: Outcome.LIKE_A))
    assert (found.conclusion, found.builds) == (Conclusion.NOT_THE_PACKAGES, 1)


def test_a_itself_does_not_give_its_outputs_here() -> None:
    found = bisect(upgrades(150), Steps(lambda chosen: Outcome.LIKE_B))
    assert (found.conclusion, found.culprits) == (Conclusion.START_DIFFERS, ())
    assert found.builds <= math.ceil(math.log2(150)) + 3
    known = {frozenset[Change](): Outcome.OTHER}
    assert bisect(upgrades(150), Steps(lambda chosen: Outcome.LIKE_B), known=known).builds == 0


def test_the_same_environments() -> None:
    versions = {"gcc": "12", "make": "4"}
    found = bisect(changes_between(versions, dict(versions)), Steps(lambda chosen: Outcome.LIKE_B))
    assert (found.conclusion, found.builds) == (Conclusion.NO_CHANGES, 0)


def test_changes_are_upgrades_additions_and_removals() -> None:
    changes = changes_between({"gcc": "12", "make": "4", "sed": "4.8"}, {"gcc": "13", "sed": "4.8", "zip": "3"})
    assert list(map(str, changes)) == ["gcc 12 -> 13", "make 4 removed", "zip 3 added"]


def test_known_ends_are_not_built_again() -> None:
    changes = upgrades(150)
    known = {frozenset(changes): Outcome.LIKE_B, frozenset[Change](): Outcome.LIKE_A}
    steps = flipped_by(changes, [77])
    found = bisect(changes, steps, known=known)
    assert places(found) == {frozenset([77])} and frozenset(changes) not in steps.made
    assert found.builds <= math.ceil(math.log2(150)) + 2


def test_a_spent_budget_leaves_suspects() -> None:
    changes = upgrades(128)
    for budget in range(1, 9):
        found = bisect(changes, flipped_by(changes, [99]), meter=Meter(Budget(builds=budget)))
        assert found.builds == budget and found.unfinished and found.culprits == ()
        assert found.conclusion is Conclusion.UNDECIDED
        assert changes[99] in found.suspects[0]
        assert len(found.suspects[0]) == 128 >> (budget - 1)


def test_a_package_that_changes_twice_is_refused() -> None:
    with pytest.raises(ValueError):
        bisect([*upgrades(2), *upgrades(1)], Steps(lambda chosen: Outcome.LIKE_A))
