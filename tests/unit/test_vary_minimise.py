"""The search for the smallest sets of variations, against truth known beforehand and, for small ones, all subsets."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable
from itertools import combinations, pairwise

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gitian.errors import UsageError
from gitian.vary.budget import Budget, Meter, Progress
from gitian.vary.minimise import Left, Minimised, Result, bound_for_one, halvings, minimise

Chosen = frozenset[str]
NAMES = tuple("abcdefgh")
# No deadline: the machine may be busy. The same examples everywhere, so that a failure can be had again.
PROPERTY = settings(max_examples=200, deadline=None, derandomize=True, database=None,
                    suppress_health_check=[HealthCheck.too_slow])


class Builds:
    """A truth function that takes note of what is built, and refuses to build anything a second time."""

    def __init__(self, truth: Callable[[Chosen], Result]) -> None:
        self.truth = truth
        self.made: dict[Chosen, Result] = {}

    def __call__(self, chosen: Chosen) -> Result:
        assert chosen, "the empty set is the reference, which is there already"
        assert chosen not in self.made, "built twice"
        self.made[chosen] = self.truth(chosen)
        return self.made[chosen]


def planted(causes: Iterable[tuple[str, Iterable[str]]], failing: Iterable[Iterable[str]] = ()) -> Builds:
    """Outputs that differ when all of one of their causes is chosen; builds that fail likewise."""
    wholes = [(path, frozenset(cause)) for path, cause in causes]
    fatal = [frozenset(cause) for cause in failing]

    def truth(chosen: Chosen) -> Result:
        if any(cause <= chosen for cause in fatal):
            return Result(failed="the script ended with 1")
        active = sorted((path, sorted(cause)) for path, cause in wholes if cause <= chosen)
        return Result(changed={path: repr([cause for other, cause in active if other == path]) for path, _ in active})

    return Builds(truth)


def subsets(names: Iterable[str]) -> list[Chosen]:
    names = tuple(names)
    return [frozenset(part) for size in range(1, len(names) + 1) for part in combinations(names, size)]


def by_force(names: Iterable[str], truth: Callable[[Chosen], Result]) -> set[tuple[str | None, Chosen]]:
    """Every minimal cause, by looking at all subsets; None for a failing build."""
    shown: dict[str | None, list[Chosen]] = {}
    for chosen in subsets(names):  # the smaller ones first
        result = truth(chosen)
        for kind in [None] if result.failed is not None else list(result.changed):
            if not any(cause <= chosen for cause in shown.get(kind, [])):
                shown.setdefault(kind, []).append(chosen)
    return {(kind, chosen) for kind, causes in shown.items() for chosen in causes}


def named(found: Minimised) -> set[tuple[str | None, Chosen]]:
    pairs = {(path, frozenset(cause.variations)) for cause in found.causes for path in cause.outputs}
    return pairs | {(None, frozenset(cause.variations)) for cause in found.causes if cause.fails is not None}


some = st.frozensets(st.sampled_from(NAMES), min_size=1, max_size=4)
paths = st.sampled_from(["bin/x", "lib/y", "z.tar"])


@pytest.mark.parametrize("count", [*range(1, 34), 64, 65])
def test_one_of_many_within_the_bound_at_every_place(count: int) -> None:
    names = [f"v{at}" for at in range(count)]
    for name in names:
        said: list[Progress] = []
        found = minimise(names, planted([("out", [name]), ("log", [name])]), progress=said.append)
        assert named(found) == {("out", frozenset([name])), ("log", frozenset([name]))}
        assert found.finished and found.left == ()
        assert found.builds == len(said) <= bound_for_one(count)
        assert [progress.built for progress in said] == list(range(found.builds))
        remaining = [progress.remaining_at_most for progress in said]
        assert all(later < before for before, later in pairwise(remaining))
        assert all(left >= found.builds - at for at, left in enumerate(remaining)), "it promised fewer"
        assert all(progress.news is None for progress in said)


def test_the_bound_is_the_logarithm_and_three() -> None:
    assert [bound_for_one(count) for count in (0, 1, 2, 3, 4, 5, 16, 17, 20)] == [0, 1, 4, 5, 5, 6, 7, 8, 8]


def test_nothing_differs_takes_one_build() -> None:
    found = minimise(NAMES, planted([]))
    assert (found.causes, found.left, found.builds, found.finished) == ((), (), 1, True)


def test_no_variations_take_no_build() -> None:
    assert minimise([], planted([])).builds == 0


@PROPERTY
@given(causes=st.lists(st.tuples(paths, some), max_size=6), failing=st.lists(some, max_size=2))
def test_all_causes_are_found_where_more_never_undoes_a_difference(
        causes: list[tuple[str, Chosen]], failing: list[Chosen]) -> None:
    builds = planted(causes, failing)
    found = minimise(NAMES, builds)
    assert found.finished
    assert named(found) == by_force(NAMES, builds.truth)
    assert found.builds == len(builds.made)
    for cause in found.causes:
        result = builds.made[frozenset(cause.variations)]
        assert cause.fails == result.failed
        assert all(result.changed[path] == digest for path, digest in cause.outputs.items())


@PROPERTY
@given(table=st.lists(st.sampled_from(["", "", "p", "q", "pq", "fail"]), min_size=31, max_size=31))
def test_whatever_builds_do_each_cause_is_minimal_and_each_difference_has_one(table: list[str]) -> None:
    names = NAMES[:5]
    rows = dict(zip(subsets(names), table, strict=True))

    def truth(chosen: Chosen) -> Result:
        row = rows[chosen]
        return Result(failed="no") if row == "fail" else Result(changed={path: str(sorted(chosen)) for path in row})

    def shows(chosen: Chosen, kind: str | None) -> bool:
        result = truth(chosen)
        return result.failed is not None if kind is None else kind in result.changed

    builds = Builds(truth)
    found = minimise(names, builds)
    assert found.finished
    for kind, cause in named(found):
        assert shows(cause, kind)
        smaller = [part for part in subsets(cause) if part != cause and (len(cause) < 5 or len(part) == 4)]
        assert not any(shows(part, kind) for part in smaller)
    for chosen in builds.made:
        for kind in (None, "p", "q"):
            assert not shows(chosen, kind) or any(cause <= chosen for other, cause in named(found) if other == kind)
    for cause_ in found.causes:
        parts = [part for part in subsets(cause_.variations) if part != frozenset(cause_.variations)]
        if cause_.fails is None and len(cause_.variations) < 5:
            assert cause_.certain == (not any(shows(part, None) for part in parts))


@pytest.mark.parametrize("same_file", [False, True])
@pytest.mark.parametrize("count", [2, 3])
def test_a_few_independent_causes_take_little_more_than_one_each(count: int, same_file: bool) -> None:
    chance = random.Random(7)
    names = [f"v{at}" for at in range(20)]
    for _ in range(100):
        causes = chance.sample(names, count)
        found = minimise(names, planted([("out" if same_file else name, [name]) for name in causes]))
        assert sorted(cause.variations for cause in found.causes) == sorted((name,) for name in causes)
        assert found.builds <= 1 + count * (halvings(20) + 2)


@pytest.mark.parametrize("same_file", [False, True])
def test_many_causes_take_no_more_than_trying_each_alone_would_after_the_third(same_file: bool) -> None:
    chance = random.Random(8)
    names = [f"v{at}" for at in range(20)]
    for count in range(4, 21):
        causes = chance.sample(names, count)
        found = minimise(names, planted([("out" if same_file else name, [name]) for name in causes]))
        assert sorted(cause.variations for cause in found.causes) == sorted((name,) for name in causes)
        assert found.builds <= 1 + 3 * (halvings(20) + 1) + 17 + count


def test_two_that_hide_each_other_in_one_file_are_both_named_alone() -> None:
    # The content is the first one's whenever the first is chosen: the second shows only without it.
    def truth(chosen: Chosen) -> Result:
        digest = "1" if "b" in chosen else "2" if "g" in chosen else None
        return Result(changed={} if digest is None else {"out": digest})

    found = minimise(NAMES, Builds(truth))
    assert [(cause.variations, dict(cause.outputs)) for cause in found.causes] == \
        [(("b",), {"out": "1"}), (("g",), {"out": "2"})]


def test_causes_that_share_a_member_are_both_named() -> None:
    found = minimise(NAMES, planted([("out", "ab"), ("out", "ac"), ("doc", "a")]))
    assert named(found) == {("doc", frozenset("a")), ("out", frozenset("ab")), ("out", frozenset("ac"))}
    assert [cause.variations for cause in found.causes] == [("a",), ("a", "b"), ("a", "c")]


def test_what_makes_the_build_fail_is_named_and_does_not_hide_the_rest() -> None:
    names = [f"v{at}" for at in range(20)]
    found = minimise(names, planted([("out", ["v3"]), ("out", ["v17"])], failing=[["v9"]]))
    assert [(cause.variations, cause.fails is not None) for cause in found.causes] == \
        [(("v9",), True), (("v3",), False), (("v17",), False)]
    assert found.causes[0].fails == "the script ended with 1" and found.causes[0].outputs == {}


def test_noise_is_left_out() -> None:
    builds = planted([("out", "d"), ("log", "a")])
    found = minimise(NAMES, builds, noisy={"log"})
    assert named(found) == {("out", frozenset("d"))}


def test_what_is_known_already_is_not_built() -> None:
    builds = planted([("out", "d")])
    first = minimise(NAMES, builds)
    again = minimise(NAMES, builds, known=first.results)
    assert again.builds == 0 and again.causes == first.causes


def test_a_name_given_twice_is_refused() -> None:
    with pytest.raises(ValueError):
        minimise(["time", "time"], planted([]))


@PROPERTY
@given(causes=st.lists(st.tuples(paths, some), max_size=4), failing=st.lists(some, max_size=1),
       budget=st.integers(min_value=1, max_value=12))
def test_a_spent_budget_leaves_what_is_known(causes: list[tuple[str, Chosen]], failing: list[Chosen],
                                             budget: int) -> None:
    builds = planted(causes, failing)
    found = minimise(NAMES, builds, meter=Meter(Budget(builds=budget)))
    everything = by_force(NAMES, builds.truth)
    assert found.builds == len(builds.made) <= budget
    assert named(found) <= everything
    if found.finished:
        assert named(found) == everything and found.left == ()
    else:
        assert found.builds == budget
        assert found.unfinished and "spent" in found.unfinished
    open_kinds = {path for left in found.left for path in left.outputs or (None,)}
    seen = {kind for result in builds.made.values()
            for kind in ([None] if result.failed is not None else list(result.changed))}
    assert seen <= open_kinds | {kind for kind, _ in named(found)}, "something seen is told nowhere"
    for left in found.left:
        check_left(left, everything)


def check_left(left: Left, everything: set[tuple[str | None, Chosen]]) -> None:
    assert set(left.suspects) <= set(left.variations)
    for kind in left.outputs or (None,):
        within = [cause for other, cause in everything if other == kind and cause <= set(left.variations)]
        assert within, "no cause is within what is left"
        assert all(cause & set(left.suspects) for cause in within), "the suspects have no part in it"


def test_suspects_grow_fewer_with_the_budget() -> None:
    names = [f"v{at}" for at in range(16)]
    counts = []
    for budget in range(1, 7):
        found = minimise(names, planted([("out", ["v5"])]), meter=Meter(Budget(builds=budget)))
        counts.append(len(found.left[0].suspects) if found.left else 0)
    # Halved by each build after the first; the one that confirms leaves none, though others might hide behind it.
    assert counts == [16, 8, 4, 2, 1, 0]


@PROPERTY
@given(causes=st.lists(st.tuples(paths, some), max_size=6), failing=st.lists(some, max_size=2))
def test_progress_never_rises_without_news(causes: list[tuple[str, Chosen]], failing: list[Chosen]) -> None:
    said: list[Progress] = []
    builds = planted(causes, failing)
    minimise(NAMES, builds, progress=said.append)
    assert [progress.chosen for progress in said] == list(builds.made)
    assert all(progress.remaining_at_most >= 1 and progress.purpose for progress in said)
    for before, after in pairwise(said):
        assert after.remaining_at_most < before.remaining_at_most or after.news


def test_without_a_budget_there_is_an_end_all_the_same() -> None:
    # Any three of 24 do it: 2024 causes, which nobody waits for.
    names = [f"v{at}" for at in range(24)]
    found = minimise(names, Builds(lambda chosen: Result(changed={"out": "x"} if len(chosen) >= 3 else {})))
    assert found.builds == 256 and found.unfinished and "random" in found.unfinished
    assert found.causes and all(len(cause.variations) == 3 for cause in found.causes)


def test_a_second_output_costs_no_build_that_the_first_has_paid_for() -> None:
    # All; the first 8, 4, 2, 1 (which is 'v0' alone). That the first 2 change 'log' and 'v0' does not is known by then:
    # 'v1' alone is left to try. Then all without either.
    found = minimise([f"v{at}" for at in range(16)], planted([("out", ["v0"]), ("log", ["v1"])]))
    assert found.finished and len(found.causes) == 2
    assert found.builds == 1 + 4 + 1 + 2


def test_what_is_within_a_set_known_to_be_equal_is_not_built_to_look_for_more() -> None:
    builds = planted([("out", "ab"), ("out", "ac")])
    minimise(NAMES, builds)
    assert frozenset(NAMES) - {"a"} in builds.made
    assert frozenset(NAMES) - {"a", "b"} not in builds.made and frozenset(NAMES) - {"a", "c"} not in builds.made


# Budgets

@pytest.mark.parametrize(("text", "builds", "minutes"), [
    ("12", 12, None), ("12 builds", 12, None), ("1 build", 1, None), ("30m", None, 30), ("2h", None, 120),
    ("1h30m", None, 90), ("1.5h", None, 90), ("45 minutes", None, 45), ("12,2h", 12, 120), ("30M, 4", 4, 30),
])
def test_budgets(text: str, builds: int | None, minutes: float | None) -> None:
    assert Budget.parse(text) == Budget(builds=builds, minutes=minutes)


@pytest.mark.parametrize("text", ["", "0", "0m", "-3", "12s", "m", "h", "1,2", "30m,2h", "12,", "1e3", "٣", "nan",
                                  "3.5"])
def test_what_is_no_budget(text: str) -> None:
    with pytest.raises(UsageError) as caught:
        Budget.parse(text)
    assert caught.value.hint


class Clock:
    def __init__(self) -> None:
        self.seconds = 1000.0

    def __call__(self) -> float:
        return self.seconds


def test_minutes_are_spent_by_the_clock_and_no_build_starts_that_would_end_too_late() -> None:
    clock = Clock()
    truth = planted([("out", ["v5"])])

    def build(chosen: Chosen) -> Result:
        clock.seconds += 7 * 60
        return truth(chosen)

    meter = Meter(Budget(minutes=30), clock=clock)
    found = minimise([f"v{at}" for at in range(16)], build, meter=meter)
    # Four builds take 28 minutes; the fifth would end after 35.
    assert (found.builds, meter.builds, meter.minutes) == (4, 4, 28)
    assert found.unfinished and not found.finished


def test_a_first_build_is_allowed_however_little_time_there_is() -> None:
    clock = Clock()
    meter = Meter(Budget(minutes=1), clock=clock)
    assert meter.exhausted() is None
    clock.seconds += 60
    assert meter.exhausted() is not None


def test_one_meter_goes_through_several_searches() -> None:
    meter = Meter(Budget(builds=9))
    names = [f"v{at}" for at in range(16)]
    assert minimise(names, planted([("out", ["v5"])]), meter=meter).finished
    spent = meter.builds
    second = minimise(names, planted([("out", ["v6"])]), meter=meter)
    assert not second.finished and second.builds == 9 - spent == meter.builds - spent
