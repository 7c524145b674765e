"""Which releases and packages a tree holds, in which order, and what all verdicts come to."""

from __future__ import annotations

import itertools
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gitian.sigs import survey, tree
from gitian.sigs.tree import DirectoryTree
from gitian.sigs.verdict import Decision, Outcome, SignerOutcome, Verdict


def lay(root: Path, *paths: str) -> DirectoryTree:
    for path in paths:
        file = root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(b"")
    return DirectoryTree(root)


def pairs(found: survey.Found) -> list[tuple[str, str]]:
    return [(pair.release, pair.name) for pair in found.pairs]


def test_releases_at_any_depth_and_every_package(tmp_path: Path) -> None:
    where = lay(tmp_path, "1.10/alice/a-build.assert", "1.9/alice/a-build.assert", "1.9/bob/b-build.assert",
                "archive/0.1/carol/a-build.assert", "README.md", "gitian-keys/alice.pgp", "1.9/alice/notes.txt",
                ".git/x/y/z-build.assert")
    assert pairs(survey.discover(where)) == [
        ("archive/0.1", "a"), ("1.9", "a"), ("1.9", "b"), ("1.10", "a")]
    assert not survey.discover(where).problems


def test_a_signature_without_its_assertion_does_not_go_unseen(tmp_path: Path) -> None:
    assert pairs(survey.discover(lay(tmp_path, "1/alice/a-build.assert.sig"))) == [("1", "a")]


def test_only_what_is_asked_for(tmp_path: Path) -> None:
    where = lay(tmp_path, *(f"{release}/alice/{name}-build.assert" for release in ("1", "2", "x/1")
                            for name in ("a", "b")))
    assert pairs(survey.discover(where, release="1")) == [("x/1", "a"), ("x/1", "b"), ("1", "a"), ("1", "b")]
    assert pairs(survey.discover(where, name="b")) == [("x/1", "b"), ("1", "b"), ("2", "b")]
    assert pairs(survey.discover(where, release="2", name="b")) == [("2", "b")]
    assert pairs(survey.discover(where, release="3")) == []


def test_what_lies_in_nobodys_directory_is_a_problem(tmp_path: Path) -> None:
    where = lay(tmp_path, "1/alice/a-build.assert", "1/b-build.assert", "c-build.assert")
    found = survey.discover(where)
    assert pairs(found) == [("1", "a")]
    assert sorted(each.path for each in found.problems) == ["1/b-build.assert", "c-build.assert"]


def test_links_are_not_walked_in_circles(tmp_path: Path) -> None:
    """Ten links to the tree in the tree would be ten to the twelfth folders."""
    where = lay(tmp_path, "1/alice/a-build.assert", "1/real/readme")
    for number in range(10):
        (tmp_path / f"again{number}").symlink_to(".")
    (tmp_path / "latest").symlink_to("1")
    (tmp_path / "1" / "alias").symlink_to("alice")
    (tmp_path / "out").symlink_to("/")
    found = survey.discover(where)
    assert pairs(found) == [("1", "a")]
    assert not found.problems
    told = {each.path: each.text for each in found.remarks}
    assert set(told) == {*(f"again{number}" for number in range(10)), "latest", "out"}
    assert "link to another folder" in told["latest"] and "leads out" in told["out"]


def test_a_signers_folder_may_be_a_link(tmp_path: Path) -> None:
    where = lay(tmp_path, "store/x/y/z/a-build.assert", "1/bob/readme")
    (tmp_path / "1" / "alice").symlink_to("../store/x/y/z")
    assert ("1", "a") in pairs(survey.discover(where))


def test_folders_that_cannot_be_listed_are_problems(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    where = lay(tmp_path, "1/alice/a-build.assert", "2/alice/a-build.assert")
    monkeypatch.setattr(tree, "ENTRIES_LIMIT", 3)
    for number in range(4):
        (tmp_path / "2" / f"s{number}").mkdir()
    found = survey.discover(where)
    assert pairs(found) == [("1", "a")]
    assert [(each.path, "more than" in each.text) for each in found.problems] == [("2", True)]


def test_too_deep_is_a_problem(tmp_path: Path) -> None:
    deep = "/".join("d" * (survey.DEPTH_LIMIT + 2))
    found = survey.discover(lay(tmp_path, "1/alice/a-build.assert", f"{deep}/a-build.assert"))
    assert pairs(found) == [("1", "a")]
    assert len(found.problems) == 1 and "deeper" in found.problems[0].text


def test_a_tree_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(tree.TreeError):
        survey.discover(DirectoryTree(tmp_path / "none"))


def test_remarks_are_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(survey, "REMARKS_LIMIT", 5)
    found = survey.discover(lay(tmp_path, *(f"p{number}-build.assert" for number in range(9))))
    assert (len(found.problems), found.more) == (5, 4)


def test_names_of_any_bytes(tmp_path: Path) -> None:
    name = os.fsdecode(b"\xff\x1b[2J")
    assert pairs(survey.discover(lay(tmp_path, f"{name}/{name}/{name}-build.assert"))) == [(name, name)]


@pytest.mark.parametrize("names", [
    ["0.9", "0.10", "0.21", "1.0"],
    ["0.9.2rc1", "0.9.2rc2", "0.9.2rc10", "0.9.2", "0.9.2-win"],
    ["1.0-alpha", "1.0-beta2", "1.0-rc1-linux", "1.0", "1.0-amd64", "1.0-linux"],
    ["v1.2", "1.9", "v1.10", "1.11"],
    ["archive/1.0", "nightly", "0.1"],
    ["v6.12.0", "v6.12.0_bookworm"],
])
def test_natural_order(names: list[str]) -> None:
    mixed = names[::-1]
    assert sorted(mixed, key=survey.natural) == names


@given(st.lists(st.text(max_size=20), max_size=6))
def test_any_names_can_be_sorted(names: list[str]) -> None:
    assert sorted(sorted(names, key=survey.natural)) == sorted(names)


@given(st.text(max_size=20), st.text(max_size=20))
def test_the_order_tells_names_apart(one: str, other: str) -> None:
    if survey.natural(one) == survey.natural(other):
        # But for zeros in front of a number, and a 'v' in front of all: '1.01', '1.1' and 'v1.1'.
        bare = [name.replace("0", "").removeprefix("v").removeprefix("V") for name in (one, other)]
        assert bare[0] == bare[1]


@pytest.mark.parametrize(("release", "line"), [
    ("0.21.1-linux", "0.21"), ("v0.18.0.0-android", "0.18"), ("archive/0.12.3-win-unsigned", "archive/0.12"),
    ("10.0.5-build1", "10.0"), ("7", "7"), ("nightly", ""), ("a/nightly", "a"), ("v6.12.0_bookworm", "6.12"),
])
def test_the_line_of_a_release(release: str, line: str) -> None:
    assert survey.series(release) == line


def verdict(decision: Decision, *outcomes: Outcome) -> Verdict:
    signers = tuple(SignerOutcome(signer=f"s{number}", path="p", outcome=outcome)
                    for number, outcome in enumerate(outcomes))
    return Verdict(release="1", name="a", signers=signers, groups=(), reference=None, compared_to=None, agreeing=0,
                   weight=0, decision=decision, reasons=())


FOUND = survey.Found(pairs=(), problems=(), remarks=(survey.Remark(path="x", text="y"),))


def test_the_worst_verdict_is_the_exit_status() -> None:
    """As documented for one release: 1 comes before 14, and 14 before 13."""
    order = [Decision.DISAGREE, Decision.NOTHING, Decision.POLICY, Decision.AGREE]
    for count in range(1, 5):
        for chosen in itertools.combinations(order, count):
            totals = survey.Totals(FOUND)
            for decision in reversed(chosen):
                totals.add(verdict(decision))
            assert totals.exit_code == chosen[0].value
            assert totals.pairs == count


def test_a_problem_of_the_tree_is_never_all_well() -> None:
    totals = survey.Totals(survey.Found(pairs=(), problems=(survey.Remark(path="x", text="y"),), remarks=()))
    totals.add(verdict(Decision.AGREE, Outcome.OK))
    assert totals.exit_code == 1


def test_totals() -> None:
    totals = survey.Totals(FOUND)
    assert totals.exit_code == 14
    totals.add(verdict(Decision.AGREE, Outcome.OK, Outcome.OK))
    totals.add(verdict(Decision.DISAGREE, Outcome.OK, Outcome.NO_KEY))
    assert {key.value: count for key, count in totals.outcomes.items() if count} == {"OK": 3, "NO KEY": 1}
