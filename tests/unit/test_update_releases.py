from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gitian.update.releases import compare

OLDEST_FIRST = ["0.9", "v0.9.1", "0.10alpha1", "0.10-alpha2", "0.10b1", "0.10rc1", "0.10.rc2", "0.10", "0.10.1-linux",
                "0.10.2", "1.0", "2.0.0", "2023.10.1"]


def test_the_order_of_releases() -> None:
    for at, older in enumerate(OLDEST_FIRST):
        for newer in OLDEST_FIRST[at + 1:]:
            assert compare(older, newer) == -1, (older, newer)
            assert compare(newer, older) == 1, (newer, older)


@pytest.mark.parametrize("one, other, expected", [
    ("1.0", "v1.0", 0), ("1.0-linux", "1.0_linux", 0), ("1.0", "1.0-linux", -1),
    ("0.15.1rc2-linux", "0.15.1-linux", -1),
    ("0.15.1-linux", "0.15.2rc1-linux", -1), ("test", "test", 0), ("test", "1.0", None), ("1.0", "", None),
    ("1.00", "1.0", 0), ("1.010", "1.9", 1)])
def test_particular_releases(one: str, other: str, expected: int | None) -> None:
    assert compare(one, other) == expected


@given(st.lists(st.integers(0, 99), min_size=1, max_size=4), st.lists(st.integers(0, 99), min_size=1, max_size=4))
def test_plain_versions_are_ordered_as_lists_of_numbers(one: list[int], other: list[int]) -> None:
    assert compare(".".join(map(str, one)), ".".join(map(str, other))) == (one > other) - (one < other)


@given(st.text(max_size=20), st.text(max_size=20))
def test_any_text_can_be_compared_and_the_order_is_one(one: str, other: str) -> None:
    there, back = compare(one, other), compare(other, one)
    assert there in (-1, 0, 1, None)
    assert back == (None if there is None else -there)
    assert compare(one, one) == 0
