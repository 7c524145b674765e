"""What gitian vary is asked for: options that do not go together, and reports that another environment is read from."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from gitian.build.exact import Wanted
from gitian.cli import vary as cli
from gitian.cli import vary_html, vary_text
from gitian.cli.places import PlaceOptions
from gitian.errors import UsageError, VariesError
from gitian.host.workspace import Workspace
from gitian.vary import variations
from gitian.vary.outcome import Explained, Found, Outcome, State, Tried

REPORT = """--- !!omap
- out_manifest: |
    {digest}  tool
- in_manifest: |
    {digest}  pkg-desc.yml
- base_manifests: !!omap
  - bookworm-amd64: |
      {digest}  tool_1_amd64.deb
- cache_common_manifest: ''
- cache_package_manifest: ''
"""


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("GITIAN_BASE", raising=False)
    (tmp_path / "result").mkdir()
    (tmp_path / "result" / "pkg-res.yml").write_text(REPORT.format(digest="1" * 64))
    (tmp_path / "pkg.yml").write_text(
        "name: pkg\nsuites: [bookworm]\narchitectures: [amd64]\ndistro: debian\npackages: []\nremotes: []\n"
        "files: []\nreference_datetime: '2020-01-01 00:00:00'\nscript: 'true'\n")
    return tmp_path


def asked(*words: str) -> Result:
    return CliRunner().invoke(cli.command, words)


def refused(*words: str) -> str:
    """The message of a UsageError, with its hint."""
    done = asked(*words)
    assert isinstance(done.exception, UsageError), done.exception
    return f"{done.exception} {done.exception.hint}"


def wanted(peer: str, place: Path) -> Wanted | None:
    return cli._wanted(peer, place / "pkg.yml", Workspace(root=place, image_directory=place), PlaceOptions(),
                       {}, offline=False)


def test_a_report_of_this_workspace_stays_the_only_one(place: Path) -> None:
    for number in "12":  # another one, too
        (place / "result" / "pkg-res.yml").write_text(REPORT.format(digest=number * 64))
        found = wanted("result/pkg-res.yml", place)
        assert found is not None and found.like is None and found.environments[0].packages[0].sha256 == number * 64
        assert os.listdir(place / "result") == ["pkg-res.yml"]


def test_a_file_that_is_not_there_is_told_by_the_option_that_named_it(place: Path) -> None:
    with pytest.raises(UsageError, match="There is no file 'a/b.yml'") as raised:
        wanted("a/b.yml", place)
    assert str(raised.value.hint).startswith("packages names a report") and "--release" not in str(raised.value.hint)
    with pytest.raises(UsageError, match="is no file, and") as raised:
        wanted("ann", place)
    assert "--like" not in str(raised.value.hint)
    said = refused("pkg.yml", "--between", "ann", "bob", "--backend", "lxc")
    assert "--between names" in said and "--like" not in said


@pytest.mark.parametrize("words", [("--list",), ("--repeat", "1"), ("--vary", "clock")])
def test_what_says_nothing_with_between_is_refused(place: Path, words: tuple[str, ...]) -> None:
    assert f"{words[0]}: with --between nothing is varied" in refused("pkg.yml", "--between", "a", "b", *words)


def test_what_is_no_variation_is_refused_in_a_list_too(place: Path) -> None:
    assert "'nonsense' is no variation" in refused("--list", "--vary", "nonsense")
    assert asked("--list", "--vary", "clock").exit_code == 0


def test_a_page_that_a_run_would_empty_away_is_refused(place: Path) -> None:
    (place / "var" / "vary" / "pages").mkdir(parents=True)
    (place / "link").symlink_to("var/vary")
    for path in ("var/vary/page.html", "var/vary/pages/page.html", "link/page.html"):
        assert "which each run empties" in refused("pkg.yml", "--html", path)
    assert "There is no directory" in refused("pkg.yml", "--html", "nowhere/page.html")


def test_groups_ask_for_their_usual_ones() -> None:
    assert variations.named("machine,uid") == {"uid"}
    assert variations.asked("machine,uid") == {"uid", "cores", "memory", "cpu", "kernel", "cold"}
    assert variations.asked("machine,-cpu,-kernel,-cold") == {"cores", "memory"}
    assert variations.asked("all") == variations.asked("") == variations.asked("usual") == frozenset()
    assert variations.asked("environment") == {"environment"}, "the name"


def test_the_list_says_what_never_works() -> None:
    row = next(line for line in vary_text.listing(None, as_json=False) if line.startswith("seed"))
    assert row.split()[2] == "-" and "never" in row


def outcome(place: Path) -> Outcome:
    """Of two outputs both differ, and a third is made in other circumstances only."""
    differ = tuple(Explained(target="bookworm-amd64", path=path, difference=None) for path in ("a", "b", "more"))
    return Outcome(name="pkg", backend="lxc", targets=("bookworm-amd64",), manifest={"a": "1", "b": "2"}, repeats=1,
                   random=None, causes=(Found(variations=("clock",), differences=differ),), builds=3, seconds=1.0,
                   variations=(Tried(name="clock", what="w", state=State.DIFFERS),), reference=place / "1")


def test_no_more_outputs_differ_than_there_are(place: Path) -> None:
    with pytest.raises(VariesError, match="3 of 3 outputs differ"):
        cli._say_whether(outcome(place))
    assert "3 of 3 outputs differ" in vary_html.page(outcome(place))


def test_what_was_missed_is_said_everywhere(place: Path) -> None:
    found = replace(outcome(place), causes=(), missed=("cpu",), variations=(
        Tried(name="cpu", what="w", state=State.NOT_TRIED, why="it takes a virtual machine"),))
    with pytest.raises(VariesError, match="Not held: cpu could not be tried"):
        cli._say_whether(found)
    assert "Not tried: cpu" in vary_html.page(found) and vary_text.document(found)["missed"] == ["cpu"]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")
def test_through_sudo_report_and_page_are_the_callers(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def run(request: Any) -> Outcome:
        (request.workspace.var / "vary").mkdir(parents=True)
        return outcome(place)

    monkeypatch.setattr("gitian.vary.run.vary", run)
    monkeypatch.setattr("gitian.cli.backends.choose_backend", lambda name, environment: None)
    monkeypatch.setenv("SUDO_UID", "1234")
    monkeypatch.setenv("SUDO_GID", "1234")
    done = asked("pkg.yml", "--html", "page.html", "-q")
    assert isinstance(done.exception, VariesError), done.exception
    assert {(place / path).stat().st_uid for path in ("page.html", "var/vary/report.json")} == {1234}
