"""Comparing whole builds: what goes wrong with the comparison is told, and does not end the run."""

from __future__ import annotations

import errno
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from gitian.errors import InputError
from gitian.host.workspace import Workspace
from gitian.vary.building import Bed, Built
from gitian.vary.comparing import Comparing
from gitian.vary.kept import Aside, Outputs
from gitian.vary.minimise import Cause


@pytest.fixture
def builds(tmp_path: Path) -> tuple[Bed, Built, Built]:
    """A bed of one target, and two builds that differ in two files."""
    made = []
    for number, text in enumerate(("on one\n", "on two\n"), 1):
        place = tmp_path / "builds" / str(number)
        place.mkdir(parents=True)
        for name in ("x", "y"):
            (place / name).write_text(text)
        made.append(Built(number=number, names=frozenset(), seen=(), seconds=1.0,
                          outputs=Outputs(place=place, digests=dict.fromkeys(("x", "y"), text))))
    plan = SimpleNamespace(targets=(SimpleNamespace(label="bookworm-amd64"),))
    bed = SimpleNamespace(plan=plan, aside=Aside.within(Workspace(root=tmp_path, image_directory=tmp_path)))
    return cast(Bed, bed), made[0], made[1]


@pytest.mark.parametrize(("error", "words"), [
    (lambda: InputError("It holds more than 200000 files."), "more than 200000 files"),
    (lambda: OSError(errno.ENOSPC, "No space left on device"), "No space left on device"),
])
@pytest.mark.parametrize("where", ["pair", "compare_trees"])
def test_a_comparison_that_fails_is_told_and_ends_nothing(builds: tuple[Bed, Built, Built], where: str, words: str,
                                                          error: Callable[[], Exception],
                                                          monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*arguments: Any, **named: Any) -> None:
        raise error()

    bed, usual, varied = builds
    cause = Cause(variations=("home",), outputs=varied.outputs.digests)
    comparing = Comparing(bed, usual, None)
    found = comparing.cause(cause, varied)
    assert [(one.path, one.problem, one.difference is None) for one in found.differences] == [
        ("x", None, False), ("y", None, False)]
    monkeypatch.setattr(f"gitian.vary.comparing.{where}", fail)
    found = comparing.cause(cause, varied)
    assert [one.path for one in found.differences] == ["x", "y"]
    assert all(one.difference is None and words in str(one.problem) for one in found.differences)
    comparing.learn({"x": varied})
    assert set(comparing.changed(varied)) == {"y"}


def test_what_is_unpacked_lies_in_the_workspaces_scratch(builds: tuple[Bed, Built, Built], tmp_path: Path,
                                                         monkeypatch: pytest.MonkeyPatch) -> None:
    places = []

    def compared(*arguments: Any, scratch: Path, **named: Any) -> tuple[()]:
        places.append((scratch, scratch.is_dir()))
        return ()

    bed, usual, varied = builds
    monkeypatch.setattr("gitian.vary.comparing.compare_trees", compared)
    Comparing(bed, usual, None).cause(Cause(variations=("home",), outputs=varied.outputs.digests), varied)
    (place, there), = places
    assert there and place.is_relative_to(tmp_path / "var" / "vary") and not place.exists()
