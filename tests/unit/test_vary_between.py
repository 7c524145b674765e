"""Which package flips the output: what lies between two environments, the search, and what is said of it."""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gitian.build.request import TargetOutcome, TargetRequest
from gitian.cli import vary_between
from gitian.cli.common import json_text
from gitian.environment.compare import TargetDifference, compare_targets
from gitian.errors import BuildError, GuestError, HangError, HostError, InputError, UsageError
from gitian.formats.descriptor import Descriptor
from gitian.formats.environment import Environment, by_file_name
from gitian.formats.image_record import InstalledPackage
from gitian.formats.report import Report
from gitian.guest.protocol import Backend
from gitian.host.workspace import Workspace
from gitian.images import exact
from gitian.images.lookup import BaseImage
from gitian.inputs.prepare import PreparedInputs
from gitian.plan import Options, make_plan
from gitian.vary.between import Answer, Between, Finding, Side, bound_for, check_records, search
from gitian.vary.bisect import Outcome, units_of
from gitian.vary.budget import Budget, Meter
from gitian.vary.mixtures import Apart, Bed, Chosen, Field, Mixer, field_of
from gitian.vary.relations import Move, Relations, arranged, needed, problems

PROPERTY = settings(max_examples=100, deadline=None, derandomize=True, database=None,
                    suppress_health_check=[HealthCheck.too_slow])
A, B = {"tool": "a" * 64, "same": "5" * 64}, {"tool": "b" * 64, "same": "5" * 64}
OTHER = {"tool": "c" * 64, "same": "5" * 64}


def package(name: str, version: str = "1", architecture: str = "amd64", sha256: str = "") -> InstalledPackage:
    return InstalledPackage(name=name, version=version, architecture=architecture,
                            sha256=sha256 or f"{sum(map(ord, name + version + architecture)):064x}")


def environment(*packages: InstalledPackage, architecture: str = "amd64") -> Environment:
    return Environment(distro="debian", suite="bookworm", architecture=architecture, packages=by_file_name(packages))


def said(name: str, version: str = "1", architecture: str = "amd64", **fields: str) -> Relations:
    written = {key.replace("_", "-"): value for key, value in fields.items()}
    return Relations.parse(package(name, version, architecture), written, "amd64")


# What packages need ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("needs", "found"), [
    ("libx (>= 1.2)", True), ("libx (>> 1.2-1)", False), ("libx (= 1.2-1)", True), ("libx (<< 1.2-1~)", False),
    ("libx:amd64", True), ("libx:i386", False), ("nothing | libx", True), ("virtual", True),
    ("virtual (>= 2)", True), ("virtual (>= 4)", False), ("bare", True), ("bare (>= 1)", False), ("libx , bare", True),
    ("libx , nothing", False), ("$nothing anybody understands | nothing", True)])
def test_what_satisfies_a_dependency(needs: str, found: bool) -> None:
    one = said("one", Depends=needs)
    libx = said("libx", "1.2-1", Provides="virtual (= 3), bare")
    assert (problems([one, libx]) == frozenset()) is found


def test_packages_of_other_architectures() -> None:
    foreign = said("tool", architecture="i386", Multi_Arch="foreign")
    allowed = said("perl", architecture="i386", Multi_Arch="allowed")
    assert not problems([said("one", Depends="tool"), foreign])
    assert not problems([said("one", Depends="perl:any"), allowed])
    assert problems([said("one", Depends="perl"), allowed]) == {"one 1 needs perl"}
    # What is for all architectures is the machine's own.
    assert not problems([said("one", Depends="data"), said("data", architecture="all")])
    same = [said("libc", "1", Multi_Arch="same"), said("libc", "2", "i386", Multi_Arch="same")]
    assert problems(same) == {"libc has not the same version for all architectures"}


def test_packages_that_stand_in_each_others_way() -> None:
    breaks = said("new", "2", Breaks="old (<< 2)")
    assert problems([breaks, said("old", "1")]) == {"new 2 refuses old 1"}
    assert not problems([breaks, said("old", "2")])
    # Whoever provides a name may refuse all others that do, and is not in its own way.
    assert not problems([said("mta", Provides="mail", Conflicts="mail")])
    assert problems([said("mta", Provides="mail", Conflicts="mail"), said("exim", Provides="mail")])


def moved(name: str, old: Relations | None, new: Relations | None) -> Move:
    return Move(name=name, old=old, new=new)


def test_what_a_change_needs() -> None:
    lib = moved("lib", said("lib", "1"), said("lib", "2"))
    dev = moved("dev", said("dev", "1", Depends="lib (= 1)"), said("dev", "2", Depends="lib (= 2)"))
    user = moved("user", said("user", "1", Depends="lib"), said("user", "2", Depends="lib (>= 2)"))
    free = moved("free", said("free", "1", Depends="lib"), said("free", "2", Depends="lib | other"))
    added = moved("added", None, said("added", Depends="user (>= 2)"))
    found = needed([lib, dev, user, free, added], [said("always")])
    assert found == {"dev": {"lib"}, "lib": {"dev"}, "user": {"lib"}, "added": {"user"}}
    order, groups = arranged(["added", "dev", "free", "lib", "user"], found)
    assert groups == [["dev", "lib"]]
    assert order == ["free", "dev", "lib", "user", "added"]


def test_what_takes_a_package_away_needs_what_comes_in_its_place() -> None:
    old, new = moved("libold", said("libold"), None), moved("libnew", None, said("libnew"))
    user = said("user", Depends="libold | libnew")
    assert needed([old, new], [user]) == {"libold": {"libnew"}}
    breaks = moved("one", said("one", "1"), said("one", "2", Breaks="two (<< 2)"))
    two = moved("two", said("two", "1"), said("two", "2", Conflicts="three (<< 2)"))
    three = moved("three", said("three", "1"), said("three", "2"))
    assert needed([breaks, two, three], []) == {"one": {"two"}, "two": {"three"}}


@PROPERTY
@given(st.data())
def test_every_place_in_the_order_makes_a_system(data: st.DataObject) -> None:
    """Old packages need old versions or any, new ones new versions or any: A and B are whole, and so is all between."""
    count = data.draw(st.integers(1, 9))
    words = st.lists(st.tuples(st.integers(0, count - 1), st.sampled_from(["", "(= {})", "(>= {})", "(<= {})"])),
                     max_size=3)
    moves = []
    for at in range(count):
        sides = [said(f"p{at}", version, Depends=", ".join(f"p{other} {text.format(version)}" for other, text
                                                           in data.draw(words))) for version in ("1", "2")]
        moves.append(moved(f"p{at}", *sides))
    order, groups = arranged([move.name for move in moves], needed(moves, []))
    together = {name: group for group in groups for name in group}
    by_name = {move.name: move for move in moves}
    done: set[str] = set()
    assert not problems([by_name[name].old for name in order if by_name[name].old is not None])  # type: ignore[misc]
    for name in order:
        if name in done:
            continue
        done |= {name, *together.get(name, [])}
        mixture = [by_name[one].new if one in done else by_name[one].old for one in order]
        assert not problems([one for one in mixture if one is not None])


# What lies between -------------------------------------------------------------------------------------------------


def test_mixtures_of_two_environments() -> None:
    a = environment(package("gcc", "1"), package("gone"), package("same"), package("libc", "1", "i386"))
    b = environment(package("gcc", "2"), package("new"), package("same"), package("libc", "2", "i386"))
    lie = field_of({"bookworm-amd64": (a, b)})
    assert [str(change) for change in lie.changes] == [
        "gcc 1 -> 2", "gone 1 removed", "libc:i386 1 -> 2", "new 1 added"]
    ends = lie.ends["bookworm-amd64"]
    assert ends.mixture(frozenset()) is a
    assert ends.mixture(frozenset(change.name for change in lie.changes)) is b
    mixed = ends.mixture(frozenset({"gone", "libc:i386", "new"}))
    assert {(one.name, one.version) for one in mixed.packages} == {("gcc", "1"), ("new", "1"), ("same", "1"),
                                                                   ("libc", "2")}


def test_one_change_in_several_targets_is_one_and_others_are_told_apart() -> None:
    amd64 = (environment(package("gcc", "1"), package("data", "1", "all")),
             environment(package("gcc", "2"), package("data", "2", "all")))
    i386 = (environment(package("gcc", "1", "i386"), package("data", "1", "all"), architecture="i386"),
            environment(package("gcc", "3", "i386"), package("data", "2", "all"), architecture="i386"))
    lie = field_of({"bookworm-amd64": amd64, "bookworm-i386": i386})
    assert [str(change) for change in lie.changes] == [
        "data 1 -> 2", "gcc of bookworm-amd64 1 -> 2", "gcc of bookworm-i386 1 -> 3"]
    mixed = {label: ends.mixture(frozenset({"data", "gcc of bookworm-i386"})) for label, ends in lie.ends.items()}
    assert {(one.name, one.version) for one in mixed["bookworm-amd64"].packages} == {("gcc", "1"), ("data", "2")}
    assert mixed["bookworm-i386"] == i386[1]


def test_another_file_of_the_same_version_is_a_change() -> None:
    lie = field_of({"l": (environment(package("gcc", sha256="1" * 64)), environment(package("gcc", sha256="2" * 64)))})
    assert str(lie.changes[0]) == f"gcc 1 (sha256 {'1' * 16}...) -> 1 (sha256 {'2' * 16}...)"


# The search --------------------------------------------------------------------------------------------------------


class Pretended(Mixer):
    """Everything but the building itself: what a set of packages gives is said by ``truth``, or raised."""

    def __init__(self, lie: Field, truth: Callable[[frozenset[str]], Mapping[str, str] | Exception], *,
                 partial: bool = False) -> None:
        super().__init__(cast(Bed, None), lie, A, B, partial=partial)
        self.truth = truth

    def _build(self, chosen: Chosen, *, keep: bool = False) -> dict[str, str]:
        result = self.truth(frozenset(change.name for change in chosen))
        if isinstance(result, Exception):
            raise result
        return dict(result)


def upgrades(count: int) -> Field:
    sides = [environment(*(package(f"p{at:03}", version) for at in range(count))) for version in ("1", "2")]
    return field_of({"bookworm-amd64": (sides[0], sides[1])})


def flipped_by(*culprit: str) -> Callable[[frozenset[str]], Mapping[str, str]]:
    return lambda names: B if set(culprit) <= names else A


def searched(lie: Field, truth: Callable[[frozenset[str]], Mapping[str, str] | Exception],
             budget: Budget | None = None) -> tuple[Finding, Pretended]:
    mixer = Pretended(lie, truth)
    return search(lie, mixer, Meter(budget), ("a", "b")), mixer


def culprits(found: Finding) -> list[list[str]]:
    assert found.bisection is not None
    return [[change.name for change in culprit.changes] for culprit in found.bisection.culprits]


@pytest.mark.parametrize("count", [*range(1, 25), 31, 64, 65, 100, 127, 150, 151, 256, 300])
def test_one_package_is_named_within_the_bound_the_ends_included(count: int) -> None:
    lie = upgrades(count)
    for at in range(count) if count < 40 else {0, 1, count // 3, count // 2, count - 2, count - 1}:
        found, mixer = searched(lie, flipped_by(f"p{at:03}"))
        assert (found.answer, found.certain, culprits(found)) == (Answer.NAMED, True, [[f"p{at:03}"]])
        assert mixer.builds <= 2 * math.log2(count) + 2
        assert mixer.builds <= bound_for(count)


def test_packages_that_only_together_do_it() -> None:
    found, mixer = searched(upgrades(150), flipped_by("p017", "p131"))
    assert (found.answer, found.certain, culprits(found)) == (Answer.NAMED, True, [["p017", "p131"]])
    assert found.bisection is not None and len(found.bisection.culprits[0].units) == 2
    assert mixer.builds < 40


def test_two_packages_that_each_do_it() -> None:
    found, _ = searched(upgrades(60), lambda names: (
        B if {"p003", "p044"} <= names else OTHER if {"p003", "p044"} & names else A))
    assert found.answer is Answer.NAMED and sorted(culprits(found)) == [["p003"], ["p044"]]


def test_packages_that_change_together_are_named_together() -> None:
    lie = upgrades(40)
    grouped = Field(changes=lie.changes, groups=(("p010", "p030"),), ends=lie.ends)

    def truth(names: frozenset[str]) -> Mapping[str, str]:
        assert len({"p010", "p030"} & names) != 1, "no such environment can be made"
        return B if "p030" in names else A

    found, mixer = searched(grouped, truth)
    assert culprits(found) == [["p010", "p030"]]
    assert mixer.builds <= 2 * math.log2(39) + 2


def test_what_packages_say_spares_builds_and_costs_no_budget() -> None:
    """p005 can be installed with p006's new version only, which is not known beforehand."""
    lie = upgrades(16)
    ends = lie.ends["bookworm-amd64"]
    known = {one: said(one.name, one.version, **({"Depends": "p006 (>= 2)"} if (one.name, one.version) == ("p005", "2")
                                                 else {})) for one in (*ends.a.packages, *ends.b.packages)}
    lie = Field(changes=lie.changes, groups=(), ends=lie.ends, relations={"bookworm-amd64": known})
    built = []

    def truth(names: frozenset[str]) -> Mapping[str, str]:
        assert not ("p005" in names and "p006" not in names)
        built.append(names)
        return B if "p005" in names else A

    found, mixer = searched(lie, truth, Budget(builds=60))
    assert culprits(found) == [["p005", "p006"]] or culprits(found) == [["p005"]]
    assert mixer.builds == len(built) < len(mixer.steps)
    assert {step.reason for step in mixer.steps if not step.built} == {"p005 2 needs p006 (>= 2)"}


def test_mixtures_that_fail_are_worked_around_and_a_guest_that_fails_once_is_started_again() -> None:
    failures = {"guest": 1}

    def truth(names: frozenset[str]) -> Mapping[str, str] | Exception:
        if "p002" in names and "p009" not in names:
            return BuildError("the script failed")
        if len(names) == 12 and failures["guest"]:
            failures["guest"] -= 1
            return GuestError("no guest starts")
        return B if "p012" in names else A

    found, mixer = searched(upgrades(14), truth)
    assert found.answer is Answer.NAMED and culprits(found) == [["p012"]]
    assert not failures["guest"]
    assert {step.reason for step in mixer.steps if step.reason} <= {"the script failed"}


def test_errors_of_this_machine_end_the_search_and_so_do_ends_that_cannot_be_built() -> None:
    with pytest.raises(HostError):
        searched(upgrades(9), lambda names: HostError("no room") if 0 < len(names) < 9 else A if not names else B)
    with pytest.raises(BuildError):
        searched(upgrades(9), lambda names: BuildError("fails") if len(names) == 9 else A)


def test_it_is_not_the_packages() -> None:
    for outputs in (A, B, OTHER):
        found, mixer = searched(upgrades(20), lambda names, outputs=outputs: outputs)  # type: ignore[misc]
        assert (found.answer, found.certain, mixer.builds) == (Answer.NOT_THE_PACKAGES, True, 2)
        found, mixer = searched(upgrades(5), lambda names, outputs=outputs: outputs)  # type: ignore[misc]
        assert (found.answer, found.certain) == (Answer.NOT_THE_PACKAGES, True)
    found, mixer = searched(upgrades(0), lambda names: A)
    assert (found.answer, found.certain, mixer.builds) == (Answer.NOT_THE_PACKAGES, True, 0)


def test_packages_alone_do_not_explain_it() -> None:
    for a, b in ((OTHER, B), (A, OTHER), (B, A)):
        found, mixer = searched(upgrades(5), lambda names, a=a, b=b: b if names else a)  # type: ignore[misc]
        assert (found.answer, found.certain) == (Answer.NOT_ALONE, False), "A is believed only until it is doubtful"
        found, mixer = searched(upgrades(20), lambda names, a=a, b=b: b if names else a)  # type: ignore[misc]
        assert (found.answer, found.certain, mixer.builds) == (Answer.NOT_ALONE, False, 2)


def test_a_budget_leaves_suspects() -> None:
    found, mixer = searched(upgrades(64), flipped_by("p050"), Budget(builds=5))
    assert (found.answer, found.certain, mixer.builds) == (Answer.UNDECIDED, False, 5)
    assert found.bisection is not None and found.unfinished
    (suspects,) = found.bisection.suspects
    assert "p050" in {change.name for change in suspects} and len(suspects) == 8
    found, mixer = searched(upgrades(64), flipped_by("p050"), Budget(builds=1))
    assert (found.answer, found.certain, mixer.builds) == (Answer.UNDECIDED, False, 1)


def test_of_one_target_only_its_own_outputs_are_compared() -> None:
    """The records have the outputs of all targets; this one makes 'tool' and, with B's packages, 'more'."""
    lie = upgrades(8)
    mixer = Pretended(lie, lambda names: {"tool": A["tool"]} if "p003" not in names else {"tool": B["tool"]},
                      partial=True)
    found = search(lie, mixer, Meter(), ("a", "b"))
    assert (found.answer, culprits(found)) == (Answer.NAMED, [["p003"]])
    assert (found.a, found.b) == (Outcome.LIKE_A, Outcome.LIKE_B)
    assert mixer.own(["other", "tool"]) == ("tool",)
    # A file that is lacking is another output.
    mixer = Pretended(lie, lambda names: {"tool": A["tool"]} if not names else dict(B) if len(names) == 8 else {
        "same": B["same"]} if "p003" in names else {"tool": A["tool"]}, partial=True)
    search(lie, mixer, Meter(), ("a", "b"))
    assert Outcome.OTHER in {step.outcome for step in mixer.steps}


class Timed(Mixer):
    """One whose images are there, and whose builds say what they may take."""

    @contextlib.contextmanager
    def _image(self, environment: Environment, *, keep: bool) -> Iterator[BaseImage]:
        yield cast(BaseImage, None)


def timed(directory: Path, monkeypatch: pytest.MonkeyPatch, budget: Budget | None,
          hangs: Callable[[int], bool]) -> tuple[Timed, list[float | None], Finding]:
    """A search in which the builds hang whose numbers ``hangs`` says."""
    given: list[float | None] = []

    def build_target(request: TargetRequest, scratch: Path) -> TargetOutcome:
        given.append(request.patience)
        if hangs(len(given)):
            raise HangError("The script did not end.")
        (scratch / "out").mkdir()
        (scratch / "out" / "tool").write_text("a" if len(given) == 1 else "b")
        return TargetOutcome(label="bookworm-amd64", manifest="", out=scratch / "out")

    monkeypatch.setattr("gitian.vary.mixtures.build_target", build_target)
    plan = make_plan(Descriptor.parse(
        b"name: pkg\nsuites: [bookworm]\narchitectures: [amd64]\ndistro: debian\npackages: []\nremotes: []\n"
        b"files: []\nreference_datetime: '2020-01-01 00:00:00'\nscript: 'true'\n", "pkg.yml"), Options())
    lie, meter = upgrades(9), Meter(budget)
    mixer = Timed(Bed(plan=plan, inputs=cast(PreparedInputs, None), aside=apart(directory), environment={}, debs={},
                      backend=cast(Backend, SimpleNamespace(name="lxc")), images=directory), lie,
                  *({"tool": hashlib.sha256(text).hexdigest()} for text in (b"a", b"b")), meter=meter)
    return mixer, given, search(lie, mixer, meter, ("a", "b"))


def apart(directory: Path) -> Apart:
    workspace = Workspace(root=directory, image_directory=directory)
    return Apart(root=workspace.var / "vary-between", image_directory=directory, of=workspace)


def test_a_mixture_that_hangs_is_ended_by_what_the_first_build_took(
        tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mixer, given, _ = timed(tmp_path, monkeypatch, None, lambda number: number == 3)
    assert given[0] is None and all(patience is not None and 600 <= patience < 700 for patience in given[1:])
    (step,) = [step for step in mixer.steps if step.reason]
    assert step.reason == "The script did not end." and step.outcome is Outcome.UNRESOLVED


@pytest.mark.parametrize("at", [1, 2, 3])
def test_a_budget_of_time_ends_a_mixture_that_hangs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at: int) -> None:
    _, given, found = timed(tmp_path, monkeypatch, Budget(minutes=5), lambda number: number == at)
    assert all(patience is not None and patience <= 300 for patience in given) and len(given) == at
    assert found.answer is Answer.UNDECIDED and "spent while it built" in str(found.unfinished)


def test_images_of_mixtures_that_a_killed_search_has_left_are_removed(tmp_path: Path) -> None:
    aside, one, other = apart(tmp_path), environment(package("gcc", "1")), environment(package("gcc", "2"))
    for place in (exact.place_of(tmp_path, one), exact.place_of(tmp_path, other)):
        place.mkdir(parents=True)
        (place / "held.lock").touch()
    with aside.mixture(one):
        (record,) = (aside.root / "mixtures").iterdir()
        text = record.read_bytes()
    assert not exact.place_of(tmp_path, one).exists() and not record.exists()
    exact.place_of(tmp_path, one).mkdir()
    record.write_bytes(text)  # as a kill would have left it
    record.with_name("broken.json").write_bytes(b"{")
    aside.forget()
    assert not exact.place_of(tmp_path, one).exists() and not record.exists()
    assert exact.place_of(tmp_path, other).exists(), "not recorded"


# Records and results -----------------------------------------------------------------------------------------------


def side(name: str, outputs: Mapping[str, str], inputs: str = "") -> Side:
    text = "".join(f"{digest}  {path}\n" for path, digest in outputs.items())
    return Side(origin=name, report=Report(out_manifest=text, in_manifest=inputs, base_manifests=()))


def test_records_that_cannot_be_searched() -> None:
    file, remote = f"{'1' * 64}  pkg-desc.yml\n", f"git:{'2' * 40} src"
    check_records(side("a", A, file + remote), side("b", B, file + remote))
    with pytest.raises(InputError, match="'a' and 'b' have other inputs: 'pkg-desc.yml', the remote 'src'"):
        check_records(side("a", A, file + remote), side("b", B, file.replace("1", "3") + remote.replace("2", "4")))
    with pytest.raises(InputError, match="the remote 'src'"):
        check_records(side("a", A, file + remote), side("b", B, file))
    with pytest.raises(UsageError, match="the same outputs"):
        check_records(side("a", A), side("b", A))


def result(finding: Finding, mixer: Mixer, lie: Field) -> Between:
    ends = lie.ends["bookworm-amd64"]
    count = len(units_of(lie.changes, lie.groups))
    return Between(
        name="pkg", a="a-res.yml", b="b-res.yml", finding=finding, outputs=("tool",), builds=mixer.builds,
        where={change.name: ("bookworm-amd64",) for change in lie.changes}, changes=len(lie.changes), units=count,
        environments=(TargetDifference(label="bookworm-amd64", old=ends.a, new=ends.b,
                                       changes=compare_targets(ends.a, ends.b)),),
        steps=tuple(mixer.steps), bound=bound_for(count), targets=("bookworm-amd64",))


def told(truth: Callable[[frozenset[str]], Mapping[str, str]], count: int = 9,
         budget: Budget | None = None) -> tuple[str, dict[str, object]]:
    lie = upgrades(count)
    found = result(*searched(lie, truth, budget), lie)
    document = json.loads(json_text(vary_between.document(found)))
    assert isinstance(document, dict)
    return "\n".join(vary_between.lines(found)), document


def test_what_is_said_of_a_culprit() -> None:
    text, document = told(flipped_by("p003"))
    assert "This package flips the output:\n  p003 1 -> 2\n" in text
    assert "of this one of B, the outputs are like B" in text.replace("A and", "of")
    assert "bookworm-amd64: 0 packages added, 0 removed, 9 changed" in text
    assert "gitian environment diff a-res.yml b-res.yml" in text
    (culprit,) = cast(list[dict[str, object]], document["culprits"])
    assert culprit["changes"] == [{"name": "p003", "old": "1", "new": "2", "environments": ["bookworm-amd64"]}]
    assert (culprit["alone"], culprit["without"], culprit["together"]) == ("like B", "like A", False)
    assert document["certain"] is True and document["answer"] == "packages named"
    steps = cast(list[dict[str, object]], document["steps"])
    assert len(steps) == document["builds"] and [step["outcome"] for step in steps[:2]] == ["like A", "like B"]
    text, document = told(flipped_by("p003", "p006"))
    assert "Only together these packages flip the output:\n  p003 1 -> 2\n  p006 1 -> 2\n" in text


@pytest.mark.parametrize(("truth", "budget", "words"), [
    (lambda names: A, None, "It is not the packages: with those of A and with those of B the outputs are the same"),
    (lambda names: OTHER if names else A, None, "Packages alone do not explain"),
    (flipped_by("p003"), Budget(builds=3), "Suspected (")])
def test_what_is_said_without_a_culprit(truth: Callable[[frozenset[str]], Mapping[str, str]], budget: Budget | None,
                                        words: str) -> None:
    text, document = told(truth, budget=budget)
    assert words in text and document["culprits"] == []
    assert document["certain"] is ("not the packages" in text)
