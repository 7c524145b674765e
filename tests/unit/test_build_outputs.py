"""Outputs: merged from several targets, hashed, and refused when no report can hold them."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import pytest

from gitian.build.log import Log
from gitian.build.outputs import manifest_of, merge
from gitian.errors import OutputError


def tree(top: Path, **files: str) -> Path:
    for name, text in files.items():
        path = top / name.replace("__", "/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    top.mkdir(parents=True, exist_ok=True)
    return top


def digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def test_a_manifest_has_every_file_sorted_bytewise_dot_files_too(tmp_path: Path) -> None:
    tree(tmp_path, b="1", a__c="2", B="3")
    (tmp_path / ".hidden").write_text("4")
    (tmp_path / "a-b").write_text("5")
    (tmp_path / "empty" / "dir").mkdir(parents=True)
    assert manifest_of(tmp_path) == "".join(
        f"{digest(text)}  {name}\n" for name, text in
        [(".hidden", "4"), ("B", "3"), ("a-b", "5"), ("a/c", "2"), ("b", "1")])


def test_no_directory_is_an_empty_manifest(tmp_path: Path) -> None:
    assert manifest_of(tmp_path / "absent") == ""


def test_a_link_to_a_file_counts_as_the_file_and_one_to_a_directory_does_not(tmp_path: Path) -> None:
    # As the classic does it: fixtures/golden/gbuild.jsonl, script-symlink.
    tree(tmp_path, t="1", d__x="2")
    (tmp_path / "l").symlink_to("t")
    (tmp_path / "ld").symlink_to("d")
    assert manifest_of(tmp_path) == f"{digest('2')}  d/x\n{digest('1')}  l\n{digest('1')}  t\n"


@pytest.mark.parametrize("target", ["nope", "../outside", "/etc/passwd"])
def test_links_that_lead_nowhere_or_out_are_refused(tmp_path: Path, target: str) -> None:
    (tmp_path / "outside").write_text("secret")
    top = tree(tmp_path / "out", x="1")
    (top / "link").symlink_to(target)
    with pytest.raises(OutputError, match="link"):
        manifest_of(top)


@pytest.mark.parametrize("name", ["ü", "a'b", "a b", "a\nb", "-x/y", "a\x1b[31m"])
def test_names_no_report_can_hold_are_refused(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.parent.mkdir(exist_ok=True)
    path.write_text("1")
    with pytest.raises(OutputError):
        manifest_of(tmp_path)


def test_a_device_or_pipe_is_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(OutputError, match="pipe"):
        manifest_of(tmp_path)


def test_two_targets_are_merged_and_different_contents_reported(tmp_path: Path) -> None:
    owners: dict[str, str] = {}
    out = tmp_path / "out"
    first = merge(tree(tmp_path / "1", same="s", only1="1", differs="x", d__f="1"), out, label="one", owners=owners)
    assert first == []
    found = merge(tree(tmp_path / "2", same="s", only2="2", differs="y", d__g="2"), out, label="two", owners=owners)
    assert [(c.path, c.earlier, c.later) for c in found] == [("differs", "one", "two")]
    assert (out / "differs").read_text() == "y"
    assert sorted(str(p.relative_to(out)) for p in out.rglob("*") if p.is_file()) == \
        ["d/f", "d/g", "differs", "only1", "only2", "same"]


def test_a_directory_never_replaces_a_file_nor_a_file_a_directory(tmp_path: Path) -> None:
    for first, second in (({"x": "1"}, {"x__y": "1"}), ({"x__y": "1"}, {"x": "1"})):
        base = tmp_path / next(iter(first))
        out = base / "out"
        merge(tree(base / "1", **first), out, label="one", owners={})
        with pytest.raises(OutputError, match="'x'"):
            merge(tree(base / "2", **second), out, label="two", owners={})


def test_a_link_to_a_directory_of_the_first_target_is_not_written_through(tmp_path: Path) -> None:
    victim = tree(tmp_path / "victim", keep="1")
    first = tree(tmp_path / "1")
    (first / "d").symlink_to(victim)
    out = tmp_path / "out"
    merge(first, out, label="one", owners={})
    with pytest.raises(OutputError):
        merge(tree(tmp_path / "2", d__evil="2"), out, label="two", owners={})
    assert [p.name for p in victim.iterdir()] == ["keep"]


def test_a_log_keeps_all_on_disk_and_only_the_end_in_memory(tmp_path: Path) -> None:
    with Log(tmp_path / "var" / "build.log") as log:
        for number in range(50_000):
            log(f"line {number}\n".encode())
        assert log.tail(2) == ["line 49998", "line 49999"]
        assert log._tail_size < 200_000
    assert (tmp_path / "var" / "build.log").read_bytes().count(b"\n") == 50_000


def test_a_log_is_not_written_through_a_link(tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_text("precious")
    (tmp_path / "build.log").symlink_to(victim)
    with Log(tmp_path / "build.log") as log:
        log(b"x\n")
    assert victim.read_text() == "precious"


def test_an_echoed_log_cannot_drive_a_terminal(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with Log(tmp_path / "build.log", echo=True) as log:
        log(b"safe\n\x1b]0;evil\x07\x1b[2")
        log(b"Jrest")
    out = capsys.readouterr().out
    assert out.startswith("safe\n")
    assert "\x1b" not in out
    assert "\x07" not in out
    assert "rest" in out
