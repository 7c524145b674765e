"""Trees of what differs between two builds: nothing else gets into them, whatever the builds left."""

from __future__ import annotations

import os
from pathlib import Path

from gitian.vary.kept import Outputs, pair


def outputs(place: Path, *paths: str) -> Outputs:
    return Outputs(place=place, digests=dict.fromkeys(paths, "0"))


def test_two_trees_of_what_differs_and_nothing_else(tmp_path: Path) -> None:
    usual, varied = tmp_path / "1", tmp_path / "2"
    for tree, text in ((usual, "one"), (varied, "two")):
        (tree / "sub").mkdir(parents=True)
        (tree / "sub" / "a").write_text(text)
    (usual / "same").write_text("same")
    (varied / "more").symlink_to("/etc/passwd")
    with pair(tmp_path / "scratch", outputs(usual, "sub/a", "same"), outputs(varied, "sub/a", "more"),
              ["sub/a", "more"]) as (left, right):
        assert (left / "sub" / "a").samefile(usual / "sub" / "a") and os.listdir(left) == ["sub"]
        assert (right / "more").is_symlink() and sorted(os.listdir(right)) == ["more", "sub"]
    assert not left.exists() and not right.exists() and (usual / "sub" / "a").exists()


def test_a_file_in_one_build_is_a_directory_in_the_other(tmp_path: Path) -> None:
    usual, varied = tmp_path / "1" / "target", tmp_path / "2" / "target"
    usual.mkdir(parents=True)
    (usual / "x").write_text("file")
    (varied / "x").mkdir(parents=True)
    (varied / "x" / "y").write_text("below")
    with pair(tmp_path / "scratch", outputs(tmp_path / "1", "target/x"), outputs(tmp_path / "2", "target/x/y"),
              ["x", "x/y"], "target/") as (left, right):
        assert (left / "x").read_text() == "file" and (right / "x" / "y").read_text() == "below"


def test_a_link_to_a_directory_leads_nowhere(tmp_path: Path) -> None:
    """The one build's link leads to where the other's file would be."""
    usual, varied = tmp_path / "1", tmp_path / "2"
    (varied / "x").mkdir(parents=True)
    (varied / "x" / "secret").write_text("built")
    usual.mkdir()
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "secret").write_text("not built")
    (usual / "x").symlink_to(tmp_path / "elsewhere")
    with pair(tmp_path / "scratch", outputs(usual, "x"), outputs(varied, "x/secret"), ["x/secret"]) as (left, right):
        assert not list(left.iterdir()) and (right / "x" / "secret").read_text() == "built"
