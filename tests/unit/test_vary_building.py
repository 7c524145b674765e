"""Builds in varied circumstances, one after the other: what is a finding of one, what is trouble of something else."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from gitian.build.request import TargetOutcome, TargetRequest
from gitian.build.varied import seen_path
from gitian.errors import BuildError, HostError, OutputSizeError
from gitian.formats.descriptor import Descriptor
from gitian.host.workspace import Workspace
from gitian.inputs.prepare import PreparedInputs
from gitian.plan import Options, make_plan
from gitian.vary import building
from gitian.vary.building import Bed, Builder
from gitian.vary.kept import Aside
from gitian.vary.outcome import Outcome, State
from gitian.vary.run import VaryRequest, _Run
from gitian.vary.variations import Setting, choose

LABEL = "bookworm-amd64"
SOME = frozenset({"umask", "user", "home"})
Act = Callable[[TargetRequest], dict[str, str]]


class Sweeper:
    """A backend of which nothing is asked but to sweep: no build here starts a guest."""

    name = "lxc"

    def sweep(self, workspace: Path) -> None:
        pass


class Field:
    """A builder whose builds are made by ``act``: what it returns is the output, by path."""

    def __init__(self, directory: Path, act: Act) -> None:
        self.act = act
        self.tried: list[frozenset[str]] = []
        plan = make_plan(Descriptor.parse(
            b"name: pkg\nsuites: [bookworm]\narchitectures: [amd64]\ndistro: debian\npackages: []\nremotes: []\n"
            b"files: []\nreference_datetime: '2020-01-01 00:00:00'\nscript: 'true'\n", "pkg.yml"), Options())
        aside = Aside.within(Workspace(root=directory, image_directory=directory))
        backend = cast(Any, Sweeper())
        aside.renew(backend)
        self.builder = Builder(Bed(
            plan=plan, aside=aside, backend=backend, environment={}, can={LABEL: SOME},
            inputs=PreparedInputs(files=(), remotes=(), manifest_text="", reference_datetime="2020-01-01 00:00:00"),
            bases={LABEL: cast(Any, SimpleNamespace(image=None, exact=None))},
            settings={LABEL: Setting(backend="lxc", suite="bookworm", architecture="amd64", distro="debian",
                                     image_directory=directory)}))

    def build_target(self, request: TargetRequest, scratch: Path) -> TargetOutcome:
        assert request.changes is not None
        self.tried.append(request.changes.names)
        files = self.act(request)
        answers = "".join(f"probe {name}\n {name in request.changes.names}\n" for name in sorted(SOME))
        seen_path(request.workspace.var, request.log_suffix).write_text(answers)
        (scratch / "out").mkdir()
        for path, text in files.items():
            (scratch / "out" / path).write_text(text)
        return TargetOutcome(label=LABEL, manifest="the packages", out=scratch / "out")


@pytest.fixture
def field(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[Act], Field]:
    def made(act: Act) -> Field:
        one = Field(tmp_path, act)
        monkeypatch.setattr(building, "build_target", one.build_target)
        return one
    return made


def names_of(request: TargetRequest) -> frozenset[str]:
    assert request.changes is not None
    return request.changes.names


def run_of(one: Field, directory: Path) -> Outcome:
    """All of a run, without what comes before and after."""
    bed = one.builder.bed
    request = VaryRequest(descriptor=directory / "pkg.yml", options=Options(), workspace=bed.aside.of,
                          backend=bed.backend, chosen=choose(",".join(SOME)))
    return _Run(request, bed, {}).outcome()


def test_outputs_for_which_there_is_no_room_are_no_finding(field: Callable[[Act], Field]) -> None:
    def act(request: TargetRequest) -> dict[str, str]:
        if names_of(request):
            raise OutputSizeError("The archive was refused: it holds more than 17 bytes.")
        return {"x": "usual"}

    builder = field(act).builder
    builder.build(frozenset(), "as usual")
    with pytest.raises(HostError, match="too little room .* 17 bytes"):
        builder.build(SOME, "everything")


def test_a_usual_build_that_fails_after_one_that_did_not_is_a_finding(field: Callable[[Act], Field]) -> None:
    def act(request: TargetRequest) -> dict[str, str]:
        if len(one.tried) != 1:
            raise BuildError("The script failed.")
        return {"x": "usual"}

    one = field(act)
    one.builder.build(frozenset(), "as usual")
    again = one.builder.build(frozenset(), "as usual again")
    assert again.failed == "The script failed." and again.names == frozenset()
    first = field(lambda request: (_ for _ in ()).throw(BuildError("It never works.")))
    with pytest.raises(BuildError, match="never"):
        first.builder.build(frozenset(), "as usual")


def test_a_run_goes_on_after_a_repeat_that_failed(field: Callable[[Act], Field], tmp_path: Path) -> None:
    def act(request: TargetRequest) -> dict[str, str]:
        if len(one.tried) == 2:
            raise BuildError("The script failed.")
        return {"x": "varied" if "umask" in names_of(request) else "usual"}

    one = field(act)
    found = run_of(one, tmp_path)
    assert found.random is not None and found.random.fails == "The script failed." and not found.random.differences
    assert [cause.variations for cause in found.causes] == [("umask",)]
    assert {tried.name: tried.state for tried in found.variations} == {
        "umask": State.DIFFERS, "user": State.HELD, "home": State.HELD}
