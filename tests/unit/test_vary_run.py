"""What a run of gitian vary makes of its builds: what is kept, what is told, and what each variation came to."""

from __future__ import annotations

import json
import os
import shutil
import tarfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner

from gitian.cli import vary as cli
from gitian.cli import vary_html, vary_text
from gitian.errors import HostError, UsageError, VariesError
from gitian.host.workspace import Workspace
from gitian.vary import kept
from gitian.vary.building import Built, Seen, strayed, without_effect
from gitian.vary.circumstances import Circumstances
from gitian.vary.differences import compare_files
from gitian.vary.kept import Aside, Outputs
from gitian.vary.minimise import Cause, Minimised, Result
from gitian.vary.outcome import Explained, Found, Outcome, State, Tried, by_chance, folded, joined, judged
from gitian.vary.variations import VARIATIONS, Setting, implications

HOSTILE = "<script>alert(1)</script>\x1b[31m\u202e&\"'"


#: Targets in machines that go on from a saved state, with one processor.
SETTINGS = {"a": Setting(backend="kvm", suite="bookworm", architecture="amd64", distro="debian", processors=1,
                         image_directory=Path("/nowhere"))}


def built(number: int, names: str = "", answers: Mapping[str, str] | None = None) -> Built:
    chosen = frozenset(names.split())
    return Built(number=number, names=chosen, outputs=Outputs(place=Path("/nowhere"), digests={}), seconds=1.0,
                 seen=(Seen(label="a", varied=chosen, answers=answers or {}),))


def searched(results: Mapping[str, list[str]] | None = None, unfinished: str | None = None) -> Minimised:
    known = {frozenset(names.split()): Result(changed=dict.fromkeys(paths, "x"))
             for names, paths in (results or {}).items()}
    return Minimised(causes=(), left=(), unfinished=unfinished, builds=0, results=known)


# What is kept


def test_differing_knows_what_lacks_and_what_is_more() -> None:
    outputs = Outputs(place=Path("/nowhere"), digests={"same": "1", "other": "2", "more": "3"})
    assert outputs.differing({"same": "1", "other": "9", "less": "4"}) == {"less": "", "more": "3", "other": "2"}


def test_of_a_varied_build_only_what_differs_is_kept(tmp_path: Path) -> None:
    out = tmp_path / "out"
    (out / "sub").mkdir(parents=True)
    (out / "sub" / "a").write_text("a")
    (out / "b").write_text("b")
    (out / "link").symlink_to("b")
    kept.keep(out, tmp_path / "place" / "x", ["sub/a", "link", "gone"])
    place = tmp_path / "place" / "x"
    assert sorted(os.listdir(place)) == ["link", "sub"] and (place / "sub" / "a").read_text() == "a"
    assert os.readlink(place / "link") == "b"
    kept.keep(out, tmp_path / "place" / "y")
    assert (tmp_path / "place" / "y" / "b").read_text() == "b" and not out.exists()


def test_the_largest_sets_make_room_first(tmp_path: Path) -> None:
    builds = {}
    for names, size in (("a", 50), ("b c", 50), ("a b c", 50), ("d", 50)):
        place = builds[frozenset(names.split())] = tmp_path / names.replace(" ", "")
        place.mkdir()
        (place / "file").write_bytes(bytes(size))
    assert kept.trim(builds, room=200) == []
    assert kept.trim(builds, room=120) == [tmp_path / "abc", tmp_path / "bc"]
    assert sorted(os.listdir(tmp_path)) == ["a", "d"]


def test_the_disk_is_not_filled_with_what_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "file").write_bytes(bytes(100))
    builds = {frozenset({name}): tmp_path / name for name in ("a", "b")}
    monkeypatch.setattr("gitian.host.space.free", lambda path: 200)
    assert kept.trim(builds) == [], "as much is free as is taken"
    monkeypatch.setattr("gitian.host.space.free", lambda path: 190)
    assert len(kept.trim(builds)) == 1


class Sweeper:
    """A backend of which nothing is asked but to sweep."""

    name = "lxc"

    def __init__(self) -> None:
        self.swept: list[Path] = []

    def sweep(self, workspace: Path) -> None:
        self.swept.append(workspace)


def test_a_place_aside_shares_layers_caches_and_inputs_and_nothing_else(tmp_path: Path) -> None:
    workspace = Workspace(root=tmp_path, image_directory=tmp_path)
    aside = Aside.within(workspace)
    assert (aside.layers, aside.cache, aside.inputs) == (workspace.layers, workspace.cache, workspace.inputs)
    for place in (aside.var, aside.result, aside.guests, aside.builds, aside.build):
        assert place.is_relative_to(tmp_path / "var" / "vary")
    backend = Sweeper()
    aside.renew(backend)  # type: ignore[arg-type]
    assert backend.swept == []
    (aside.builds / "1").mkdir()
    elsewhere = tmp_path / "elsewhere"
    (elsewhere / "precious").mkdir(parents=True)
    aside.renew(backend)  # type: ignore[arg-type]
    assert backend.swept == [aside.guests] and not os.listdir(aside.builds)
    shutil.rmtree(aside.root)
    aside.root.symlink_to(elsewhere)
    aside.renew(backend)  # type: ignore[arg-type]
    assert (elsewhere / "precious").is_dir() and not aside.root.is_symlink()


def test_nothing_is_removed_below_which_something_is_mounted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    aside = Aside.within(Workspace(root=tmp_path, image_directory=tmp_path))
    aside.root.mkdir(parents=True)
    monkeypatch.setattr("gitian.host.workspace.mounted_below", lambda path: [path / "x"])
    with pytest.raises(HostError, match="mounted"):
        aside.renew(Sweeper())  # type: ignore[arg-type]


# What the probes say


def test_a_probe_that_says_the_same_means_no_effect() -> None:
    usual = built(1, answers={"umask": "0002", "user": "debian", "seed": "1"})
    varied = built(2, "umask user", {"umask": "0022", "user": "debian", "seed": "2"})
    assert without_effect(usual, varied) == {"user": "a"}
    assert strayed(usual, varied, SETTINGS) == {}, "every build has random numbers of its own"
    assert without_effect(usual, built(3, "umask")) == {}, "a guest that said nothing"


def test_what_changes_without_being_varied_is_seen_unless_it_is_implied() -> None:
    usual = built(1, answers={"file-order": "x", "filesystem": "ext4", "cores": "2"})
    other = {"file-order": "y", "filesystem": "tmpfs", "cores": "2"}
    assert strayed(usual, built(2, "filesystem", other), SETTINGS) == {}
    assert strayed(usual, built(2, "filesystem", {**other, "cores": "1"}), SETTINGS) == {"cores": "a"}
    assert strayed(usual, built(2, "", other), SETTINGS) == {"file-order": "a", "filesystem": "a"}
    assert strayed(usual, built(2, "upgrade", other), SETTINGS) == {"filesystem": "a"}, "other packages"


# What is told of which variation


def test_what_an_implied_variation_explains_is_told_once() -> None:
    order = Cause(variations=("file-order",), outputs={"a": "1", "b": "1"})
    causes, same = folded([order, Cause(variations=("filesystem",), outputs={"a": "2"})])
    assert causes == (order,) and same == {"filesystem": "file-order"}
    both = Cause(variations=("filesystem",), outputs={"a": "2", "c": "2"})
    causes, same = folded([order, both])
    assert causes == (order, replace(both, outputs={"c": "2"})) and same == {}
    pair = Cause(variations=("file-order", "user"), outputs={"z": "1"})
    causes, same = folded([pair, Cause(variations=("filesystem", "user"), outputs={"z": "2"})])
    assert causes == (pair,)
    assert folded([both]) == ((both,), {}), "nothing else explains it"


def test_a_failure_that_an_implied_variation_explains_is_told_once() -> None:
    cold = Cause(variations=("cold",), outputs={}, fails="it died")
    causes, same = folded([cold, Cause(variations=("cpu",), outputs={}, fails="it died as well")])
    assert causes == (cold,) and same == {"cpu": "cold"}


def test_another_number_of_processors_may_take_a_machine_that_boots() -> None:
    usual, other = (built(1, names, {"cold": names, "cores": names}) for names in ("", "cores"))
    assert strayed(usual, other, SETTINGS) == {}
    cold, cores = (Cause(variations=(name,), outputs={"boot": name}) for name in ("cold", "cores"))
    assert folded([cold, cores], implications(SETTINGS.values())) == ((cold,), {"cores": "cold"})
    for more in ({"processors": 2}, {"restored": False}, {"backend": "lxc"}):
        same_machine = {"a": replace(SETTINGS["a"], **more)}
        assert strayed(usual, other, same_machine) == {"cold": "a"}
        assert folded([cold, cores], implications(same_machine.values())) == ((cold, cores), {})


def test_what_became_of_a_variation() -> None:
    one = Explained(target="a", path="x", difference=None)
    causes = [Found(variations=("clock",), differences=(one,)),
              Found(variations=("user", "home"), differences=(one, replace(one, path="y"))),
              Found(variations=("umask",), fails="no")]
    whole = searched()
    assert judged("clock", causes, {}, whole, effect=True) == (State.DIFFERS, ((),), 1)
    assert judged("home", causes, {}, whole, effect=True) == (State.DIFFERS, (("user",),), 2)
    assert judged("umask", causes, {}, whole, effect=True)[0] is State.FAILS
    assert judged("filesystem", causes, {"filesystem": "file-order"}, whole, effect=True)[0] is State.AS
    assert judged("path", causes, {}, whole, effect=True)[0] is State.HELD
    assert judged("path", causes, {}, whole, effect=False)[0] is State.NO_EFFECT
    assert judged("path", causes, {}, whole, effect=None)[0] is State.OPEN, "no build has told"


def test_an_unfinished_search_says_held_only_of_what_was_built_and_equal() -> None:
    spent = searched({"clock umask": [], "clock user": ["x"]}, "The budget is spent.")
    assert judged("umask", [], {}, spent, effect=True)[0] is State.HELD
    assert judged("user", [], {}, spent, effect=True)[0] is State.OPEN


def explained(tmp_path: Path, name: str, one: str, other: str) -> Explained:
    paths = []
    for side, text in (("1", one), ("2", other)):
        (tmp_path / side).mkdir(exist_ok=True)
        paths.append(tmp_path / side / name)
        paths[-1].write_text(text)
    difference = compare_files(paths[0], paths[1], Circumstances(time=(1700000000, 1700000010)),
                               Circumstances(time=(1700000100, 1700000110)), name=name)
    assert difference is not None
    return Explained(target="a", path=name, difference=difference)


def test_what_is_random_only_because_time_goes_on(tmp_path: Path) -> None:
    time = explained(tmp_path, "time", "built at 1700000005\n", "built at 1700000105\n")
    chance = explained(tmp_path, "chance", "1f83d9abfb41bd6b\n", "5be0cd19137e2179\n")
    both = explained(tmp_path, "both", "built at 1700000005\nby hand\n", "built at 1700000105\nby foot\n")
    assert by_chance([time, chance, both, Explained(target="a", path="gone", difference=None)]) == (time,)


def test_differences_join_a_cause_that_is_there_or_make_one() -> None:
    one, other = (Explained(target="a", path=path, difference=None) for path in ("x", "y"))
    clock = Found(variations=("clock",), differences=(one,))
    assert joined([clock], "clock", [other]) == (replace(clock, differences=(one, other)),)
    assert joined([clock], "aslr", [other])[1] == Found(variations=("aslr",), differences=(other,))
    assert joined([clock], "aslr", []) == (clock,)


# What is shown


def outcome(tmp_path: Path, **more: Any) -> Outcome:
    hostile = replace(explained(tmp_path, "time", "built at 1700000005" + HOSTILE, "built at 1700000105"),
                      path=HOSTILE, problem=HOSTILE, note=HOSTILE, reports=(Path(HOSTILE),))
    values: dict[str, Any] = {
        "name": "pkg", "backend": "lxc", "targets": ("bookworm-amd64",), "manifest": {"x": "1"}, "repeats": 1,
        "random": Found(variations=(), differences=(hostile,)), "builds": 3, "seconds": 60.0,
        "reference": tmp_path / "1",
        "causes": (Found(variations=("clock",), differences=(hostile,)),
                   Found(variations=("umask", "user"), fails=HOSTILE, log=Path("/log"), certain=False)),
        "variations": (Tried(name="clock", what="w", state=State.DIFFERS, others=((),), outputs=1,
                             probes={"bookworm-amd64": (HOSTILE, "other")}),
                       Tried(name="umask", what="w", state=State.FAILS, others=(("user",),)),
                       Tried(name="cpu", what="w", state=State.NOT_TRIED, why="it takes a virtual machine"))}
    return Outcome(**{**values, **more})


def held(tmp_path: Path, **more: Any) -> Outcome:
    return outcome(tmp_path, **{"random": None, "causes": (), "variations": (
        Tried(name="clock", what="w", state=State.HELD), Tried(name="cpu", what="w", state=State.NOT_TRIED)), **more})


def test_only_what_held_is_a_success(tmp_path: Path) -> None:
    assert held(tmp_path).held
    cli._say_whether(held(tmp_path))
    worse: list[dict[str, Any]] = [{"random": Found(variations=())}, {"unfinished": "The budget is spent."}]
    worse += [{"variations": (Tried(name="clock", what="w", state=state),)} for state in State
              if state not in (State.HELD, State.NOT_TRIED)]
    for more in worse:
        assert not held(tmp_path, **more).held
        with pytest.raises(VariesError) as raised:
            cli._say_whether(held(tmp_path, **more))
        assert raised.value.exit_code == 31


def test_hostile_text_steers_no_terminal_and_no_page(tmp_path: Path) -> None:
    found = outcome(tmp_path, unfinished=HOSTILE, left=(HOSTILE,))
    lines = "\n".join(vary_text.lines(found))
    for state in (State.DIFFERS, State.FAILS):  # a colour of our own
        lines = lines.replace(click.style(state.value, fg="red"), state.value)
    assert "\x1b" not in lines and "\u202e" not in lines and "only together with user" in lines
    page = vary_html.page(found)
    assert "<script" not in page and "\x1b" not in page and "\u202e" not in page
    assert page.count("&lt;script&gt;") >= 8 and "default-src 'none'" in page


def test_random_is_said_first(tmp_path: Path) -> None:
    assert next(iter(vary_text.lines(outcome(tmp_path)))) == "RANDOM without any variation: 1 output"
    assert next(iter(vary_text.lines(held(tmp_path)))).startswith("VARIATION")


def test_a_build_that_fails_by_chance_is_random(tmp_path: Path) -> None:
    found = held(tmp_path, random=Found(variations=(), fails="it failed" + HOSTILE, log=Path("/log")),
                 causes=(Found(variations=("umask",), fails="no", certain=False),))
    lines = list(vary_text.lines(found))
    assert lines[0] == "RANDOM without any variation: the build sometimes fails" and "it failed" in lines[1]
    assert "umask: the build fails (perhaps by chance)" in lines and not any("0 outputs" in line for line in lines)
    assert vary_text.document(found)["random_failure"]["log"] == "/log"
    assert "it failed" in vary_html.page(found) and not found.held
    with pytest.raises(VariesError, match="sometimes fails without any variation"):
        cli._say_whether(found)


def test_long_remarks_stand_below_the_table_once(tmp_path: Path) -> None:
    long = "a container has the host's: it takes a virtual machine (KVM)"
    rows = (Tried(name="cpu", what="w", state=State.NOT_TRIED, why=long),
            Tried(name="user", what="w", state=State.DIFFERS, outputs=2, others=((),), remark="some\x1b else " * 9),
            Tried(name="cold", what="w", state=State.NOT_TRIED, why=long))
    lines = [" ".join(click.unstyle(line).split()) for line in vary_text.lines(held(tmp_path, variations=rows))]
    assert lines[1:4] == ["cpu not tried (1)", "user differs 2 outputs; alone; (2)", "cold not tried (1)"]
    assert lines[4] == f"(1) {long}"
    assert lines[5].startswith("(2) some\\x1b else") and lines.count(f"(1) {long}") == 1


def test_the_document_says_all_of_it(tmp_path: Path) -> None:
    found = json.loads(json.dumps(vary_text.document(outcome(tmp_path))))
    assert found["held"] is False and found["variations"][1]["with"] == [["user"]]
    assert found["causes"][1]["fails"] == HOSTILE and found["causes"][1]["certain"] is False
    assert found["causes"][0]["outputs"][0]["difference"]["hints"][0]["cause"] == "embedded time"
    assert found["variations"][0]["probes"]["bookworm-amd64"] == {"usual": HOSTILE, "varied": "other"}


# What is asked for


def test_words_of_packages() -> None:
    assert cli._packages(("time,packages=a/b.yml", "-clock")) == ("time,packages,-clock", "a/b.yml")
    assert cli._packages(()) == ("", None)
    for words in (("clock=1",), ("packages=",), ("packages=a,packages=b",)):
        with pytest.raises(UsageError):
            cli._packages(words)


def test_the_list_names_all_and_why_some_do_not_work() -> None:
    lines = list(vary_text.listing({"cpu": "no machine\x1b"}, as_json=False))
    assert len(lines) == len(VARIATIONS) + 1
    assert any("does not work here: no machine\\x1b" in line for line in lines)
    (text,) = vary_text.listing({"cpu": "no machine"}, as_json=True)
    assert {one["name"]: one["works"] for one in json.loads(text)}["cpu"] is False
    shown = CliRunner().invoke(cli.command, ["--list"])
    assert shown.exit_code == 0 and "file-order" in shown.output


def test_a_time_that_was_given_without_its_zone_is_laid_to_the_zone(tmp_path: Path) -> None:
    # 2022-12-26 00:00 UTC, and the same by a clock that is 9 hours and a half behind: 34200 seconds later.
    for name, moment in (("a", 1672012800), ("b", 1672012800 + 34200)):
        with tarfile.open(tmp_path / f"{name}.tar", "w") as archive:
            info = tarfile.TarInfo("usr")
            info.mtime = moment
            archive.addfile(info)
    found = compare_files(tmp_path / "a.tar", tmp_path / "b.tar", Circumstances(time_zone="UTC"),
                          Circumstances(time_zone="<-0930>9:30"))
    assert found is not None and [(hint.cause.value, hint.sure) for hint in found.hints] == [("time zone", True)]
    other = compare_files(tmp_path / "a.tar", tmp_path / "b.tar", Circumstances(time_zone="UTC"),
                          Circumstances(time_zone="UTC"))
    assert other is not None and [(hint.cause.value, hint.sure) for hint in other.hints] == [("embedded time", False)]
