"""Manifests, with the git lines that run together."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gitian.formats.manifest import Entry, GitEntry, Manifest

A, B = "a" * 64, "b" * 64
C, D = "c" * 40, "d" * 40


def test_two_remotes_on_one_line_are_two() -> None:
    text = f"{A}  pkg-desc.yml\ngit:{C} signaturegit:{D} signapple"
    manifest = Manifest.parse(text)
    assert manifest.entries == (Entry(sha256=A, path="pkg-desc.yml"),)
    assert manifest.remotes == (GitEntry(commit=C, dir="signature"), GitEntry(commit=D, dir="signapple"))
    assert manifest.strange == ()
    assert manifest.text() == text


def test_a_directory_called_git_is_no_second_remote() -> None:
    assert Manifest.parse(f"git:{C} my-git").remotes == (GitEntry(commit=C, dir="my-git"),)


def test_sorted_by_bytes() -> None:
    manifest = Manifest.sorted([(A, "b"), (B, "a/c"), (A, "B"), (B, "a.txt"), (A, "ü"), (A, "\U0001f600")])
    assert [entry.path for entry in manifest.entries] == ["B", "a.txt", "a/c", "b", "ü", "\U0001f600"]


@pytest.mark.parametrize("line", ["no manifest", f"{A} one-space", f"{A[:-1]}  short", f"{A.upper()}  upper",
                                  f"git:{C[:-1]} x", f"git:{C}", "<html>", f"\\{A}  a"])
def test_anything_else_is_kept_apart(line: str) -> None:
    manifest = Manifest.parse(f"{A}  a\n{line}\n")
    assert manifest.strange == (line,)
    assert manifest.by_path() == {"a": A}


_paths = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\n"), min_size=1, max_size=20)


@given(st.lists(st.tuples(st.sampled_from([A, B]), _paths)),
       st.lists(st.tuples(st.sampled_from([C, D]), st.text("abc_.-", min_size=1, max_size=8))))
def test_comes_back(files: list[tuple[str, str]], remotes: list[tuple[str, str]]) -> None:
    manifest = Manifest.of(files, remotes)
    assert Manifest.parse(manifest.text()) == manifest


@given(st.text(max_size=200))
def test_never_fails(text: str) -> None:
    Manifest.parse(text)
