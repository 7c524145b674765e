"""Builds in varied circumstances, one after the other: what is a finding of one, what is trouble of something else."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path, PurePosixPath
from types import SimpleNamespace
from typing import Any, cast

import pytest

from gitian.build.changes import Changes
from gitian.build.log import Log
from gitian.build.request import TargetOutcome, TargetRequest
from gitian.build.varied import run_varied, seen_path
from gitian.errors import BuildError, GuestError, HangError, HostError, NotVariedError, OutputSizeError
from gitian.formats.descriptor import Descriptor
from gitian.guest.protocol import Result
from gitian.host.workspace import Workspace
from gitian.inputs.prepare import PreparedInputs
from gitian.plan import Options, make_plan
from gitian.vary import building, run
from gitian.vary.budget import Budget, Meter
from gitian.vary.building import Bed, Builder, give_back
from gitian.vary.comparing import Comparing
from gitian.vary.diffoscope import Allowance, Report
from gitian.vary.kept import Aside
from gitian.vary.minimise import Cause
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
        monkeypatch.setattr(run, "_SECOND", 0.0)
        return one
    return made


def names_of(request: TargetRequest) -> frozenset[str]:
    assert request.changes is not None
    return request.changes.names


def run_of(one: Field, directory: Path, budget: Budget | None = None, named: str = "") -> Outcome:
    """All of a run, without what comes before and after."""
    bed = one.builder.bed
    request = VaryRequest(descriptor=directory / "pkg.yml", options=Options(), workspace=bed.aside.of,
                          backend=bed.backend, chosen=choose(",".join(SOME)), budget=budget,
                          named=frozenset(named.split()))
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


class Guest:
    """A guest in which the wrapper leaves ``seen``, says ``says`` and hangs, or ends with ``status``."""

    def __init__(self, *, seen: bytes = b"ready\n", says: bytes = b"", status: int | None = 0) -> None:
        self.seen, self.says, self.status = seen, says, status

    def put(self, source: Path, destination: PurePosixPath, **more: Any) -> None:
        pass

    def run(self, command: Sequence[str], *, timeout: float | None = None, **more: Any) -> Result:
        if command[0] == "head":
            return Result(status=0, stdout=self.seen)
        more["output"](self.says)
        if self.status is None:
            assert timeout is not None, "it would wait for ever"
            time.sleep(timeout)
            raise GuestError(f"It did not come to an end within {timeout} s.")
        return Result(status=self.status)


def ran(one: Field, guest: Guest, changes: Changes, patience: float | None = None) -> int:
    request = replace(one.builder._request(1, one.builder.bed.plan.targets[0], changes.names), changes=changes,
                      patience=patience)
    with Log(request.workspace.var / "build.log") as log:
        return run_varied(cast(Any, guest), request, changes, PurePosixPath("/script"), log)


def test_a_script_that_does_not_end_fails(field: Callable[[Act], Field]) -> None:
    one = field(lambda request: {})
    with pytest.raises(HangError, match="did not end") as raised:
        ran(one, Guest(status=None, says=b"still here\n", seen=b"ready\nprobe umask\n 22\n"), Changes(), 0.01)
    assert "still here" in str(raised.value)
    assert next(one.builder.bed.aside.var.glob("probe-*")).read_bytes() == b"probe umask\n 22\n", "it had begun"
    assert ran(one, Guest(status=3), Changes(), 60) == 3


def test_varied_builds_get_a_multiple_of_the_usual_time_and_the_usual_one_all_it_wants(
        field: Callable[[Act], Field], tmp_path: Path) -> None:
    given: list[float | None] = []

    def act(request: TargetRequest) -> dict[str, str]:
        given.append(request.patience)
        if "umask" in names_of(request):
            raise HangError("The script did not end.")
        return {"x": "usual"}

    one = field(act)
    found = run_of(one, tmp_path)
    assert given[0] is None and all(patience is not None and 600 <= patience < 700 for patience in given[1:])
    assert [(cause.variations, cause.fails) for cause in found.causes] == [(("umask",), "The script did not end.")]


def test_a_build_that_the_budget_ends_is_no_finding(field: Callable[[Act], Field], tmp_path: Path) -> None:
    def act(request: TargetRequest) -> dict[str, str]:
        if names_of(request):
            raise HangError("The script did not end.")
        return {"x": "usual"}

    found = run_of(field(act), tmp_path, Budget(minutes=5))
    assert found.unfinished is not None and "spent while it built" in found.unfinished
    assert not found.causes and not found.held


@pytest.mark.parametrize("at", [2, 3])
def test_a_budget_of_time_bounds_builds_as_usual_too(field: Callable[[Act], Field], tmp_path: Path, at: int) -> None:
    """The second as usual is the repeat, the third would show what is random after all."""
    given: list[float | None] = []

    def act(request: TargetRequest) -> dict[str, str]:
        if not names_of(request):
            given.append(request.patience)
            if len(given) == at:
                raise HangError("The script did not end.")
        return {"x": "varied" if "umask" in names_of(request) else "usual"}

    found = run_of(field(act), tmp_path, Budget(minutes=5))
    assert given[0] is None and all(patience is not None and patience <= 300 for patience in given[1:])
    assert found.unfinished is not None and "spent while it built" in found.unfinished and not found.held
    assert found.random is None, "it has not failed"


def test_messages_name_logs_from_the_workspace(field: Callable[[Act], Field], tmp_path: Path) -> None:
    builder = field(lambda request: {}).builder
    request = builder._request(1, builder.bed.plan.targets[0], frozenset())
    assert request.told(request.workspace.var / "build-1-x.log") == "var/vary/build-1-x.log"
    own = Workspace(root=tmp_path, image_directory=tmp_path)
    assert replace(request, workspace=own).told(own.var / "build.log") == "var/build.log"


def test_the_step_at_which_the_wrapper_has_ended_names_the_variations(field: Callable[[Act], Field]) -> None:
    one = field(lambda request: {})
    changes = Changes(names=frozenset({"home", "user"}))
    with pytest.raises(NotVariedError) as raised:
        ran(one, Guest(status=1, seen=b"step user clock\n", says=b"awk: no\n\n"), changes)
    assert raised.value.names == {"user"}, "of those that were on"
    assert raised.value.why == "it could not be made in the guest: awk: no"
    for seen in (b"", b"step \n", b"step clock\n", b"\xff"):
        with pytest.raises(GuestError, match="prepared") as other:
            ran(one, Guest(status=1, seen=seen), changes)
        assert not isinstance(other.value, NotVariedError)


def dropping(name: str) -> Act:
    def act(request: TargetRequest) -> dict[str, str]:
        if name in names_of(request):
            raise NotVariedError("It could not be.", names=frozenset({name}), why="there is no awk")
        return {"x": "varied" if "umask" in names_of(request) else "usual"}
    return act


def test_what_cannot_be_made_is_not_tried_and_the_run_goes_on(field: Callable[[Act], Field], tmp_path: Path) -> None:
    one = field(dropping("user"))
    found = run_of(one, tmp_path)
    assert [cause.variations for cause in found.causes] == [("umask",)] and found.missed == ("user",)
    assert {tried.name: (tried.state, tried.why) for tried in found.variations} == {
        "umask": (State.DIFFERS, ""), "user": (State.NOT_TRIED, "there is no awk"), "home": (State.HELD, "")}
    assert sum("user" in names for names in one.tried) == 1, "once is enough"
    assert len(one.tried) == len(set(one.tried)) + one.tried.count(frozenset()) - 1, "nothing is built twice"


def test_what_cannot_be_made_is_no_success(field: Callable[[Act], Field], tmp_path: Path) -> None:
    found = run_of(field(dropping("home")), tmp_path, named="home")
    assert found.missed == ("home",) and not found.held

    def clean(request: TargetRequest) -> dict[str, str]:
        return dict.fromkeys(dropping("home")(request), "usual")

    found = run_of(field(clean), tmp_path / "clean")
    assert found.missed == ("home",) and not found.causes and not found.held, "nor in a run that named nothing"


def test_what_a_group_asked_for_and_cannot_work_is_no_success(field: Callable[[Act], Field], tmp_path: Path) -> None:
    one = field(lambda request: {"x": "usual"})
    bed = one.builder.bed
    request = VaryRequest(descriptor=tmp_path / "pkg.yml", options=Options(), workspace=bed.aside.of,
                          backend=bed.backend, chosen=choose("umask,user,cpu"), asked=frozenset({"cpu", "user"}))
    found = _Run(request, bed, {"cpu": "it takes a virtual machine"}).outcome()
    assert found.missed == ("cpu",) and not found.held
    bed.aside.renew(bed.backend)
    assert _Run(replace(request, asked=frozenset({"user"})), bed, {"cpu": "it takes one"}).outcome().held

    def act(request: TargetRequest) -> dict[str, str]:
        if names_of(request):
            raise NotVariedError("It could not be.", names=SOME, why="nothing works")
        return {"x": "usual"}

    assert run_of(field(act), tmp_path / "all").missed == ("umask", "user", "home"), "nothing was tried"


def test_a_variation_with_which_guests_break_down_is_not_tried(field: Callable[[Act], Field], tmp_path: Path) -> None:
    def act(request: TargetRequest) -> dict[str, str]:
        if "home" in names_of(request):
            raise GuestError("The guest did not start.")
        return {"x": "usual"}

    found = run_of(field(act), tmp_path)
    told = {tried.name: (tried.state, tried.why) for tried in found.variations}
    assert told["home"] == (State.NOT_TRIED, "a guest with it breaks down: The guest did not start.")
    assert told["user"][0] is State.HELD and told["umask"][0] is State.HELD
    assert found.missed == ("home",) and not found.causes and not found.held


def test_trouble_of_the_host_is_no_finding(field: Callable[[Act], Field], tmp_path: Path) -> None:
    def act(request: TargetRequest) -> dict[str, str]:
        if len(one.tried) > 2:
            raise GuestError("There is no memory left.")
        return {"x": "usual"}

    one = field(act)
    with pytest.raises(GuestError, match="memory"):
        run_of(one, tmp_path)
    assert one.tried[-1] == frozenset(), "one as usual had the same trouble"


def test_a_build_that_does_not_fit_into_memory_is_no_build_that_fails(field: Callable[[Act], Field]) -> None:
    one = field(lambda request: {})
    on, off = Changes(names=frozenset({"filesystem", "home"})), Changes(names=frozenset({"home"}))
    full = b"cc1: error writing to a.s: No space left on device\nmake: *** [a.o] Error 1\n"
    for guest in (Guest(status=1, says=full), Guest(status=1, seen=b"ready\nfact pid 1\nunfit filesystem\n")):
        with pytest.raises(NotVariedError, match="does not fit") as raised:
            ran(one, guest, on)
        assert raised.value.names == {"filesystem"}
        assert ran(one, guest, off) == 1, "the disk is full"
    assert ran(one, Guest(status=1, says=b"no such file\n"), on) == 1
    assert ran(one, Guest(status=0, says=full), on) == 0, "it did without"


def test_diffoscope_is_asked_within_the_budget_and_so_often_for_a_cause(
        field: Callable[[Act], Field], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one = field(lambda request: {f"file{number}": str(sorted(names_of(request))) for number in range(25)})
    usual = one.builder.build(frozenset(), "as usual")
    causes = [Cause(variations=(name,), outputs=dict.fromkeys(usual.outputs.digests, "")) for name in ("home", "user")]
    others = [one.builder.build(frozenset(cause.variations), "varied") for cause in causes]
    now, allowed = [0.0], []

    def report(left: Path, right: Path, directory: Path, name: str, *, allowance: Allowance) -> Report:
        allowed.append(allowance.seconds)
        now[0] += 10
        return Report(text=None, html=None)

    monkeypatch.setattr("gitian.vary.diffoscope.installed", lambda: True)
    monkeypatch.setattr("gitian.vary.diffoscope.report", report)
    meter = Meter(Budget(minutes=8), clock=lambda: now[0])
    comparing = Comparing(one.builder.bed, usual, tmp_path / "reports", meter)
    first, second = (comparing.cause(cause, built) for cause, built in zip(causes, others, strict=True))
    problems = [[output.problem for output in cause.differences] for cause in (first, second)]
    assert problems[0].count(None) == 20 and "first 20 outputs of a cause" in str(problems[0][-1])
    # Of the 48 times for which there is time, every cause has its own.
    assert problems[1].count(None) == 20 and max(allowed) == 300 and round(allowed[20]) == 280
    third = comparing.cause(replace(causes[0], variations=("umask",)), others[0])
    said = [output.problem for output in third.differences]
    assert said.count(None) == 8 and "budget of 8 minutes is spent" in str(said[-1]) and round(allowed[-1]) == 10


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")
def test_what_a_run_through_sudo_has_made_is_the_callers(field: Callable[[Act], Field]) -> None:
    bed = field(lambda request: {}).builder.bed
    inputs = bed.aside.of.inputs
    made = [inputs / "src", inputs / "src" / "file", bed.aside.root / "builds"]
    others = [inputs / "other", inputs / "other" / "file"]
    for path in (*made, *others):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.mkdir(exist_ok=True)
    remote = SimpleNamespace(dir="src")
    give_back(bed.aside, cast(Any, SimpleNamespace(remotes=(remote,))), {"SUDO_UID": "1234", "SUDO_GID": "1234"})
    assert {path.stat().st_uid for path in (inputs, *made)} == {1234}
    assert others[1].stat().st_uid == 0, "what the run has not made"
