"""A tree of signatures reads what lies in it, and nothing else."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from gitian.sigs.tree import DirectoryTree, Kind, Missing, Refused, TooLarge, TreeError


@pytest.fixture
def tree(tmp_path: Path) -> DirectoryTree:
    (tmp_path / "outside").write_text("secret")
    root = tmp_path / "root"
    (root / "a").mkdir(parents=True)
    (root / "a" / "file").write_bytes(b"12345")
    (root / "inner").symlink_to("a/file")
    (root / "innerdir").symlink_to("a")
    (root / "out").symlink_to("../outside")
    (root / "outdir").symlink_to("..")
    (root / "absolute").symlink_to(tmp_path / "outside")
    (root / "nowhere").symlink_to("nothing")
    (root / "loop").symlink_to("loop")
    os.mkfifo(root / "pipe")
    return DirectoryTree(root)


def test_files_and_links_inside(tree: DirectoryTree) -> None:
    assert tree.read("a/file", 5) == tree.read("inner", 5) == tree.read("innerdir/file", 5) == b"12345"


@pytest.mark.parametrize("path", ["out", "outdir/outside", "absolute", "loop", "nowhere", "pipe", "a", "../outside",
                                  "a/../../outside", "/etc/passwd", "a/file\0"])
def test_ways_out_and_things_that_are_no_files_are_refused(tree: DirectoryTree, path: str) -> None:
    with pytest.raises(Refused):
        tree.read(path, 100)


def test_what_is_not_there_and_what_is_too_long(tree: DirectoryTree) -> None:
    with pytest.raises(Missing):
        tree.read("a/other", 100)
    with pytest.raises(Missing):
        tree.read("a/file/x", 100)
    with pytest.raises(TooLarge):
        tree.read("a/file", 4)


def test_a_folder_that_leads_out_is_not_listed(tree: DirectoryTree) -> None:
    for path in ("outdir", "..", "pipe"):
        with pytest.raises(TreeError):
            tree.list(path)
    with pytest.raises(Missing):
        tree.list("none")


def test_a_listing_is_sorted_by_bytes_and_says_what_is_what(tmp_path: Path) -> None:
    for name in (b"b", b"B", b"\xff", "é".encode(), b"a b"):
        os.mkdir(os.path.join(os.fsencode(tmp_path), name))
    (tmp_path / "f").write_text("")
    (tmp_path / "up").symlink_to("..")
    found = DirectoryTree(tmp_path).list("")
    assert [os.fsencode(entry.name) for entry in found] == [b"B", b"a b", b"b", b"f", b"up", "é".encode(), b"\xff"]
    assert [entry.kind for entry in found] == [Kind.DIRECTORY] * 3 + [Kind.FILE, Kind.OTHER] + [Kind.DIRECTORY] * 2


def test_the_stamp_changes_with_the_file(tree: DirectoryTree) -> None:
    before = tree.stamp("a/file")
    (tree.root / "a" / "file").write_bytes(b"123456")
    assert before is not None
    assert tree.stamp("a/file") != before
    assert tree.stamp("pipe") is None and tree.stamp("none") is None
