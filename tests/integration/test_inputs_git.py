"""Remotes with real git: tags, commits, branches, submodules; and repositories that want to run something."""

from __future__ import annotations

import http.server
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from gitian.errors import FetchError, InputError
from gitian.host import process, progress
from gitian.inputs import git as inputs_git
from gitian.inputs.git import Fetching, InputRemote, check_out
from gitian.inputs.urls import locate, of_submodule
from tests.integration.git_kit import commit, git, make, with_submodule

GOLDEN = Path(__file__).resolve().parents[1] / "fixtures" / "golden"


@pytest.fixture
def inputs(tmp_path: Path) -> Path:
    place = tmp_path / "workspace" / "inputs"
    place.mkdir(parents=True)
    return place


@pytest.fixture
def upstream(tmp_path: Path) -> Path:
    """A repository with a tag v1 (annotated), a lightweight one, and a branch that went on."""
    place = tmp_path / "upstream"
    make(place, {"README": "one\n", "src/a.c": "int a;\n"}, tag="v1")
    git(place, "tag", "light")
    commit(place, {"README": "two\n"})
    return place


@pytest.fixture
def canary(tmp_path: Path) -> Iterator[Path]:
    """A program that leaves a trace when somebody runs it: nobody may."""
    trace = tmp_path / "was-run"
    program = tmp_path / "canary"
    program.write_text(f"#!/bin/sh\ntouch {trace}\n")
    program.chmod(0o755)
    yield program
    assert not trace.exists(), "something of the repository was run"


def obtain(url: Path | str, wanted: str, inputs: Path, *, skip: bool = False, branches: bool = False,
           tags: bool = False, name: str = "foo") -> InputRemote:
    return check_out(str(url), name, wanted, inputs=inputs,
                     fetching=Fetching(skip=skip, branches=branches, tags=tags))


def files_in(place: Path) -> dict[str, str]:
    return {str(path.relative_to(place)): path.read_text() for path in place.rglob("*")
            if path.is_file() and ".git" not in path.relative_to(place).parts}


def test_tag_commit_and_branch(upstream: Path, inputs: Path) -> None:
    one, two = git(upstream, "rev-parse", "v1^{commit}"), git(upstream, "rev-parse", "master")
    for wanted, expected in (("v1", one), (two, two), ("light", one), ("master", two), (one, one), ("HEAD", two)):
        found = obtain(upstream, wanted, inputs)
        # 03:04:05 at +0300 is four minutes past midnight in UTC.
        assert found == InputRemote(dir="foo", path=inputs / "foo", commit=expected, author_date="2020-01-02 00:04:05")
        assert (inputs / "foo" / "README").read_text() == ("one\n" if expected == one else "two\n")
        assert git(inputs / "foo", "rev-parse", "HEAD") == expected
        assert git(inputs / "foo", "status", "--porcelain", "--ignored") == ""
        assert (inputs / "foo" / ".git" / "HEAD").read_text().strip() == expected, "detached"
    assert [path.name for path in inputs.iterdir()] == ["foo"]


def test_a_commit_that_no_ref_points_to_any_more(upstream: Path, inputs: Path) -> None:
    one = git(upstream, "rev-parse", "v1^{commit}")
    git(upstream, "checkout", "-q", "--orphan", "other")
    commit(upstream, {"README": "other\n"})
    other = git(upstream, "rev-parse", "HEAD")
    git(upstream, "checkout", "-q", "master")
    git(upstream, "branch", "-D", "other")
    assert obtain(upstream, one, inputs).commit == one
    assert obtain(upstream, other, inputs).commit == other


def test_an_exact_commit_is_not_fetched_twice(upstream: Path, inputs: Path) -> None:
    one = git(upstream, "rev-parse", "v1^{commit}")
    obtain(upstream, one, inputs)
    shutil.rmtree(upstream)
    assert obtain(upstream, one, inputs).commit == one
    with pytest.raises(FetchError):
        obtain(upstream, "v1", inputs)  # where a tag points to must be asked


def test_a_tag_that_moved(upstream: Path, inputs: Path) -> None:
    obtain(upstream, "v1", inputs)
    git(upstream, "tag", "-f", "-a", "-m", "again", "v1", "master")
    assert obtain(upstream, "v1", inputs).commit == git(upstream, "rev-parse", "master")


def test_branches_and_tags_on_request(upstream: Path, inputs: Path) -> None:
    obtain(upstream, "v1", inputs)
    assert git(inputs / "foo", "for-each-ref", "--format=%(refname)") == "refs/tags/v1"
    obtain(upstream, "v1", inputs, branches=True, tags=True)
    assert git(inputs / "foo", "for-each-ref", "--format=%(refname)").split() == [
        "refs/heads/master", "refs/tags/light", "refs/tags/v1"]


def test_skip_fetch(upstream: Path, inputs: Path) -> None:
    with pytest.raises(InputError, match="no clone 'inputs/foo'.*--skip-fetch"):
        obtain(upstream, "v1", inputs, skip=True)
    one = obtain(upstream, "v1", inputs).commit
    shutil.rmtree(upstream)
    assert obtain(upstream, "v1", inputs, skip=True).commit == one
    assert obtain(upstream, one, inputs, skip=True).commit == one
    for wanted in ("v2", "a" * 40):
        with pytest.raises(InputError, match="is not in 'inputs/foo'"):
            obtain(upstream, wanted, inputs, skip=True)


@pytest.mark.parametrize("wanted", ["v2", "a" * 40, "abcdef1"])
def test_no_such_commit(upstream: Path, inputs: Path, wanted: str) -> None:
    with pytest.raises(InputError, match=f"has no (tag or branch|commit) '?{wanted}"):
        obtain(upstream, wanted, inputs)
    assert list(inputs.iterdir()) == [], "a clone that failed leaves nothing"
    obtain(upstream, "v1", inputs)
    with pytest.raises(InputError):
        obtain(upstream, wanted, inputs)
    assert obtain(upstream, "v1", inputs).commit


def test_a_tag_that_leads_to_no_commit(upstream: Path, inputs: Path) -> None:
    git(upstream, "tag", "tree", "master^{tree}")
    with pytest.raises(InputError, match="does not lead to a commit"):
        obtain(upstream, "tree", inputs)


def test_a_remote_that_is_not_there(tmp_path: Path, inputs: Path) -> None:
    with pytest.raises(FetchError, match="Nothing can be fetched"):
        obtain(tmp_path / "nothing", "v1", inputs)
    with pytest.raises(FetchError, match="Nothing can be fetched"):
        obtain("http://127.0.0.1:1/x.git", "a" * 40, inputs)
    assert list(inputs.iterdir()) == []


def test_passwords_in_urls_are_not_shown(inputs: Path) -> None:
    with pytest.raises(FetchError) as caught:
        obtain("http://user:secret@127.0.0.1:1/x.git", "a" * 40, inputs)
    assert "secret" not in f"{caught.value} {caught.value.hint}"
    assert "***@127.0.0.1" in str(caught.value)


def test_relative_paths_count_from_the_clone(tmp_path: Path, upstream: Path, inputs: Path) -> None:
    """As the classic's did, which ran git in inputs/<dir>."""
    assert obtain("../../../upstream", "v1", inputs).commit == git(upstream, "rev-parse", "v1^{commit}")


def test_sha256_repositories(tmp_path: Path, inputs: Path) -> None:
    upstream = tmp_path / "upstream"
    first = make(upstream, {"README": "one\n"}, tag="v1", sha256=True)
    assert len(first) == 64
    for wanted in (first, "v1", first):
        assert obtain(upstream, wanted, inputs).commit == first
    shutil.rmtree(inputs / "foo")
    assert obtain(upstream, "v1", inputs).commit == first
    with pytest.raises(InputError, match="not of the kind"):
        obtain(upstream, "a" * 40, inputs)


def test_the_recorded_repositories(tmp_path: Path, inputs: Path) -> None:
    """Commits and dates as the original recorded them (golden/gbuild.jsonl, cases remote-sha and remote-two)."""
    for name, expected in (("foo", "de8c8130b566634d5f5ebf899a53ff085fa286c6"),
                           ("bar", "9631b3a5b93b024e194ede399be05d1b5353a510")):
        bundle = GOLDEN / "repos" / f"{name}.bundle"
        git(tmp_path, "clone", "-q", bundle, tmp_path / "repos" / name)
        assert obtain(f"../../../repos/{name}", "v1.0", inputs, name=name).commit == expected
        assert obtain(bundle, expected, inputs, name=f"{name}-from-bundle").commit == expected


# the user's own things

def test_changes_of_the_user_are_not_lost(upstream: Path, inputs: Path) -> None:
    obtain(upstream, "v1", inputs)
    (inputs / "foo" / "README").write_text("my own work\n")
    (inputs / "foo" / "notes.txt").write_text("my notes\n")
    with pytest.raises(InputError, match=r"not committed: 'README', 'notes.txt'"):
        obtain(upstream, "v1", inputs)
    assert (inputs / "foo" / "README").read_text() == "my own work\n"
    assert (inputs / "foo" / "notes.txt").read_text() == "my notes\n"


def test_ignored_leftovers_are_removed(tmp_path: Path, inputs: Path) -> None:
    """They would reach the guest: its 'git clean' leaves what is ignored."""
    upstream = tmp_path / "upstream"
    make(upstream, {".gitignore": "*.o\n", "a.c": ""}, tag="v1")
    obtain(upstream, "v1", inputs)
    (inputs / "foo" / "a.o").write_text("built by hand")
    obtain(upstream, "v1", inputs)
    assert sorted(files_in(inputs / "foo")) == [".gitignore", "a.c"]


def test_something_else_is_there(upstream: Path, inputs: Path, tmp_path: Path) -> None:
    (inputs / "foo").mkdir()
    obtain(upstream, "v1", inputs)  # an empty directory is no obstacle
    (inputs / "bar").mkdir()
    (inputs / "bar" / "file").touch()
    with pytest.raises(InputError, match="no git clone"):
        obtain(upstream, "v1", inputs, name="bar")
    (inputs / "file").touch()
    with pytest.raises(InputError, match="not a directory"):
        obtain(upstream, "v1", inputs, name="file")
    (inputs / "link").symlink_to(upstream)
    with pytest.raises(InputError, match="is a link"):
        obtain(upstream, "v1", inputs, name="link")
    assert (upstream / "README").read_text() == "two\n"


def test_modes_do_not_depend_on_the_umask(upstream: Path, inputs: Path) -> None:
    before = os.umask(0o077)
    try:
        obtain(upstream, "v1", inputs)
    finally:
        os.umask(before)
    assert (inputs / "foo" / "README").stat().st_mode & 0o777 == 0o644
    assert (inputs / "foo" / "src").stat().st_mode & 0o777 == 0o755


def test_what_a_killed_run_left(upstream: Path, inputs: Path) -> None:
    obtain(upstream, "v1", inputs)
    foo = inputs / "foo"
    # In the midst of checking out: the mark is there, files are gone, git's locks and halves of packs lie about.
    (foo / ".git" / "gitian-checkout").touch()
    (foo / "README").write_text("half")
    for name in ("index.lock", "HEAD.lock", "config.lock", "packed-refs.lock", "shallow.lock", "refs/tags/v1.lock",
                 "objects/pack/tmp_pack_x"):
        (foo / ".git" / name).parent.mkdir(exist_ok=True)
        (foo / ".git" / name).touch()
    obtain(upstream, "master", inputs)
    assert files_in(foo) == {"README": "two\n", "src/a.c": "int a;\n"}
    assert not list((foo / ".git").rglob("*.lock"))
    # In the midst of cloning: nothing that could be taken for a clone, and it is swept.
    (inputs / ".partial-foo-1234" / ".git").mkdir(parents=True)
    inputs_git.sweep(inputs)
    assert [path.name for path in inputs.iterdir()] == ["foo"]


# a clone that is not to be trusted

def test_settings_and_hooks_of_an_existing_clone_run_nothing(upstream: Path, inputs: Path, canary: Path,
                                                             capsys: pytest.CaptureFixture[str]) -> None:
    obtain(upstream, "v1", inputs)
    foo = inputs / "foo"
    evil = foo / ".git" / "evil"
    evil.write_text(f"[core]\n\tfsmonitor = {canary}\n")
    (foo / ".git" / "config").write_text(f"""
[core]
\trepositoryformatversion = 0
\tbare = false
\thooksPath = {foo}/.git/hooks
\tfsmonitor = {canary}
\tsshCommand = {canary}
\tgitProxy = {canary}
\taskPass = {canary}
\tpager = {canary}
\teditor = {canary}
\tattributesFile = {foo}/.git/attributes
[include]
\tpath = {evil}
[filter "evil"]
\tclean = {canary}
\tsmudge = {canary}
\tprocess = {canary}
\trequired = true
[diff]
\texternal = {canary}
[diff "evil"]
\ttextconv = {canary}
[credential]
\thelper = {canary}
[alias]
\tfetch = !{canary}
\tcheckout = !{canary}
[gpg]
\tprogram = {canary}
[log]
\tshowSignature = true
[uploadpack]
\tpackObjectsHook = {canary}
[remote "origin"]
\turl = ext::{canary}
\tuploadpack = {canary}
[url "ext::{canary} "]
\tinsteadOf = {upstream}
[protocol]
\tallow = always
[submodule "x"]
\tupdate = !{canary}
""")
    for name in ("post-checkout", "reference-transaction", "pre-auto-gc", "fsmonitor-watchman", "post-index-change",
                 "post-rewrite", "proc-receive"):
        (foo / ".git" / "hooks").mkdir(exist_ok=True)
        shutil.copy(canary, foo / ".git" / "hooks" / name)
    (foo / ".git" / "info").mkdir(exist_ok=True)
    (foo / ".git" / "info" / "attributes").write_text("* filter=evil diff=evil\n")
    found = obtain(upstream, "master", inputs)
    assert files_in(foo) == {"README": "two\n", "src/a.c": "int a;\n"}
    assert found.commit == git(upstream, "rev-parse", "master")
    assert not (foo / ".git" / "hooks").exists()
    assert not (foo / ".git" / "info").exists()
    assert str(canary) not in (foo / ".git" / "config").read_text()
    assert "core.fsmonitor" in capsys.readouterr().err


def test_settings_of_the_user_and_the_system_do_not_count(upstream: Path, inputs: Path, canary: Path, tmp_path: Path,
                                                          monkeypatch: pytest.MonkeyPatch) -> None:
    home = tmp_path / "home"
    home.mkdir()
    (home / ".gitconfig").write_text(f"[core]\n\tfsmonitor = {canary}\n\tautocrlf = true\n\thooksPath = {tmp_path}\n"
                                     f"[url \"ext::{canary} \"]\n\tinsteadOf = {upstream}\n")
    monkeypatch.setenv("HOME", str(home))
    for name, value in (("GIT_DIR", "/nonexistent"), ("GIT_EXTERNAL_DIFF", str(canary)), ("GIT_CONFIG_COUNT", "1"),
                        ("GIT_CONFIG_KEY_0", "core.fsmonitor"), ("GIT_CONFIG_VALUE_0", str(canary))):
        monkeypatch.setenv(name, value)
    obtain(upstream, "v1", inputs)
    assert (inputs / "foo" / "README").read_bytes() == b"one\n"


def test_filters_that_a_repository_asks_for_are_not_there(tmp_path: Path, inputs: Path, canary: Path) -> None:
    upstream = tmp_path / "upstream"
    make(upstream, {".gitattributes": "* filter=evil diff=evil merge=evil\n", "a": "text\n"}, tag="v1")
    obtain(upstream, "v1", inputs)
    assert (inputs / "foo" / "a").read_text() == "text\n"


def test_another_remote_in_the_clone_is_not_asked(upstream: Path, inputs: Path, tmp_path: Path) -> None:
    """The descriptor's URL is the truth, even when the clone calls another one by this very URL."""
    obtain(upstream, "v1", inputs)
    other = tmp_path / "other"
    make(other, {"README": "evil\n"}, tag="v1")
    with (inputs / "foo" / ".git" / "config").open("a") as config:
        config.write(f'[remote "{upstream}"]\n\turl = {other}\n[url "{other}"]\n\tinsteadOf = {upstream}\n')
    (inputs / "foo" / ".git" / "remotes").mkdir()
    (inputs / "foo" / ".git" / "remotes" / "upstream").write_text(f"URL: {other}\n")
    obtain(upstream, "v1", inputs)
    assert (inputs / "foo" / "README").read_text() == "one\n"


def test_replaced_and_grafted_objects_do_not_count(upstream: Path, inputs: Path) -> None:
    one = obtain(upstream, "v1", inputs, branches=True).commit
    foo = inputs / "foo"
    git(foo, "replace", one, git(upstream, "rev-parse", "master"))
    (foo / ".git" / "info").mkdir(exist_ok=True)
    (foo / ".git" / "info" / "grafts").write_text(f"{git(upstream, 'rev-parse', 'master')}\n")
    assert git(foo, "show", f"{one}:README") == "two", "the replacement is there"
    assert obtain(upstream, "v1", inputs).commit == one
    assert (foo / "README").read_text() == "one\n"
    assert git(foo, "show", f"{one}:README") == "one", "and gone, for the guest's git too"


def test_an_object_with_another_content_than_its_name_says(upstream: Path, inputs: Path) -> None:
    """git itself believes what it finds in its store."""
    obtain(upstream, "v1", inputs)
    foo = inputs / "foo"
    blob = git(foo, "rev-parse", "v1:src/a.c")
    evil = git(foo, "hash-object", "-w", "--stdin", input=b"int evil;\n")
    target = foo / ".git" / "objects" / blob[:2] / blob[2:]
    if not target.exists():
        pack = next((foo / ".git" / "objects" / "pack").glob("*.pack"))
        moved = foo / "moved.pack"
        pack.rename(moved)
        pack.with_suffix(".idx").unlink()
        git(foo, "unpack-objects", "-q", input=moved.read_bytes())
        moved.unlink()
    target.unlink()
    shutil.copy(foo / ".git" / "objects" / evil[:2] / evil[2:], target)
    with pytest.raises(InputError, match=f"{blob} is not what its name says"):
        obtain(upstream, "v1", inputs)


def test_clones_of_strange_kinds_are_refused(upstream: Path, inputs: Path, tmp_path: Path, canary: Path) -> None:
    def fresh() -> Path:
        shutil.rmtree(inputs / "foo", ignore_errors=True)
        obtain(upstream, "v1", inputs)
        return inputs / "foo" / ".git"

    elsewhere = tmp_path / "elsewhere"
    shutil.copytree(fresh(), elsewhere)
    shutil.rmtree(inputs / "foo" / ".git")
    (inputs / "foo" / ".git").write_text(f"gitdir: {elsewhere}\n")
    with pytest.raises(InputError, match="'.git' is not a directory"):
        obtain(upstream, "v1", inputs)
    (inputs / "foo" / ".git").unlink()
    (inputs / "foo" / ".git").symlink_to(elsewhere)
    with pytest.raises(InputError, match="'.git' is not a directory"):
        obtain(upstream, "v1", inputs)
    (inputs / "foo" / ".git").unlink()

    for name in ("objects", "refs"):
        top = fresh()
        shutil.rmtree(top / name)
        (top / name).symlink_to(elsewhere / name)
        with pytest.raises(InputError, match=f"'{name}' in it is not a directory"):
            obtain(upstream, "v1", inputs)
    for name in ("HEAD", "config", "packed-refs", "index"):
        top = fresh()
        (top / name).unlink(missing_ok=True)
        os.mkfifo(top / name)  # opening it would wait for ever
        with pytest.raises(InputError, match=f"'{name}' in it is not a file"):
            obtain(upstream, "v1", inputs)
    top = fresh()
    (top / "objects" / "info").mkdir(exist_ok=True)
    (top / "objects" / "info" / "alternates").write_text(f"{elsewhere}/objects\n")
    with pytest.raises(InputError, match="alternates"):
        obtain(upstream, "v1", inputs)
    top = fresh()
    (top / "commondir").write_text(f"{elsewhere}\n")
    obtain(upstream, "v1", inputs)
    assert not (top / "commondir").exists()
    assert (elsewhere / "HEAD").exists()


def test_links_in_the_work_tree_are_not_followed(upstream: Path, inputs: Path, tmp_path: Path) -> None:
    obtain(upstream, "v1", inputs)
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "a.c").write_text("mine\n")
    shutil.rmtree(inputs / "foo" / "src")
    (inputs / "foo" / "src").symlink_to(outside)
    (inputs / "foo" / ".git" / "gitian-checkout").touch()
    obtain(upstream, "v1", inputs)
    assert (outside / "a.c").read_text() == "mine\n"
    assert not (inputs / "foo" / "src").is_symlink()


# submodules

def test_submodules_within_submodules(tmp_path: Path, inputs: Path) -> None:
    leaf, middle, top = tmp_path / "leaf", tmp_path / "middle", tmp_path / "top"
    make(leaf, {"leaf.txt": "leaf\n"})
    old = git(leaf, "rev-parse", "HEAD")
    commit(leaf, {"leaf.txt": "newer\n"})
    make(middle, {"middle.txt": "middle\n"})
    in_middle = with_submodule(middle, "deps/leaf", "../leaf", old)
    make(top, {"top.txt": "top\n"})
    with_submodule(top, "src/middle", str(middle), in_middle, name="a name/of its own")
    git(top, "tag", "v1")
    make(tmp_path / "unused", {"x": ""})
    for _ in range(2):
        obtain(top, "v1", inputs)
        assert {name: text for name, text in files_in(inputs / "foo").items() if name.endswith(".txt")} == {
            "top.txt": "top\n", "src/middle/middle.txt": "middle\n", "src/middle/deps/leaf/leaf.txt": "leaf\n"}
    assert git(inputs / "foo", "status", "--porcelain") == ""
    shown = git(inputs / "foo", "submodule", "status", "--recursive")
    assert [line[:41] for line in shown.splitlines()] == [f" {in_middle}", f" {old}"]
    # It may be moved as a whole, as it is into a guest, and needs no one any more.
    moved = tmp_path / "moved"
    shutil.copytree(inputs / "foo", moved, symlinks=True)
    shutil.rmtree(leaf)
    shutil.rmtree(middle)
    assert git(moved / "src" / "middle" / "deps" / "leaf", "rev-parse", "HEAD") == old
    shutil.rmtree(inputs / "foo" / "src")
    (inputs / "foo" / ".git" / "gitian-checkout").touch()
    obtain(top, "v1", inputs, skip=True)
    assert (inputs / "foo" / "src/middle/deps/leaf/leaf.txt").read_text() == "leaf\n"


def test_a_submodule_that_changes_comes_and_goes(tmp_path: Path, inputs: Path) -> None:
    library, top = tmp_path / "library", tmp_path / "top"
    first = make(library, {"l": "1"})
    second = commit(library, {"l": "2"})
    without = make(top, {"t": ""})
    one = with_submodule(top, "lib", "../library", first)
    (top / ".gitmodules").unlink()
    two = with_submodule(top, "lib", "../library", second)
    for wanted, expected in ((one, "1"), (two, "2"), (without, None), (one, "1")):
        obtain(top, wanted, inputs)
        path = inputs / "foo" / "lib" / "l"
        assert (path.read_text() if path.exists() else None) == expected
        assert (inputs / "foo" / "lib").exists() == (expected is not None)


def test_a_spoilt_clone_of_a_submodule_is_cloned_again(tmp_path: Path, inputs: Path, canary: Path) -> None:
    library, top = tmp_path / "library", tmp_path / "top"
    first = make(library, {"l": "1"})
    make(top, {"t": ""})
    wanted = with_submodule(top, "lib", "../library", first)
    obtain(top, wanted, inputs)
    inner = inputs / "foo" / ".git" / "modules" / "lib"
    (inner / "config").write_text(f"[core]\n\tfsmonitor = {canary}\n\tworktree = /\n")
    (inner / "hooks").mkdir()
    shutil.copy(canary, inner / "hooks" / "post-checkout")
    obtain(top, wanted, inputs)
    assert "lib" in (inner / "config").read_text()
    (inner / "HEAD").unlink()
    obtain(top, wanted, inputs)
    assert (inputs / "foo" / "lib" / "l").read_text() == "1"


def test_a_submodule_marked_as_not_to_be_updated(tmp_path: Path, inputs: Path) -> None:
    top = tmp_path / "top"
    make(top, {"t": ""})
    wanted = with_submodule(top, "lib", "https://example.invalid/x", "1" * 40, settings="\tupdate = none\n")
    obtain(top, wanted, inputs)
    assert list((inputs / "foo" / "lib").iterdir()) == []


def evil_submodule(top: Path, **what: str) -> str:
    if not top.exists():
        make(top, {"t": ""})
    values = {"path": "lib", "url": "../library", "pointing": "1" * 40, **what}
    return with_submodule(top, values.pop("path"), values.pop("url"), values.pop("pointing"), **values)


@pytest.mark.parametrize(("what", "said"), [
    ({"url": "ext::touch /tmp/gitian-evil"}, "can run programs"),
    ({"url": "file::x"}, "can run programs"),
    ({"url": "ftp://example.invalid/x"}, "no transport"),
    ({"url": "-u./canary"}, "refused"),
    ({"url": "somewhere"}, "where a URL must be"),
    ({"name": "../../x"}, "name leads elsewhere"),
    ({"name": "x/../../../y"}, "name leads elsewhere"),
    ({"name": "/absolute"}, "name leads elsewhere"),
    ({"name": "a//b"}, "name leads elsewhere"),
    ({"url": ""}, "refused|no URL"),
])
def test_submodules_that_lead_elsewhere(tmp_path: Path, inputs: Path, what: dict[str, str], said: str) -> None:
    wanted = evil_submodule(tmp_path / "top", **what)
    with pytest.raises(InputError, match=said):
        obtain(tmp_path / "top", wanted, inputs)
    assert list(inputs.iterdir()) == []


def test_a_submodule_inside_anothers_git_directory(tmp_path: Path, inputs: Path) -> None:
    top = tmp_path / "top"
    evil_submodule(top, path="one", name="a")
    wanted = evil_submodule(top, path="two", name="a/modules/b")
    with pytest.raises(InputError, match="one would lie in the other"):
        obtain(top, wanted, inputs)


def test_a_submodule_without_a_url(tmp_path: Path, inputs: Path) -> None:
    top = tmp_path / "top"
    make(top, {"t": ""})
    git(top, "update-index", "--add", "--cacheinfo", f"160000,{'1' * 40},lib")
    git(top, "commit", "-q", "-m", "x")
    with pytest.raises(InputError, match="'lib' of 'inputs/foo' has no URL"):
        obtain(top, git(top, "rev-parse", "HEAD"), inputs)


def test_a_list_of_submodules_that_is_a_link(tmp_path: Path, inputs: Path) -> None:
    top = tmp_path / "top"
    evil_submodule(top)
    blob = git(top, "hash-object", "-w", "--stdin", input=b"/etc/passwd")
    # Only by its plumbing does git make one.
    listing = git(top, "ls-tree", "HEAD").splitlines()
    changed = [line if not line.endswith("\t.gitmodules") else f"120000 blob {blob}\t.gitmodules" for line in listing]
    tree = git(top, "mktree", "--missing", input="\n".join(changed).encode() + b"\n")
    with pytest.raises(InputError, match="not a regular file|cannot be checked out"):
        obtain(top, git(top, "commit-tree", "-m", "x", tree), inputs)


def test_a_submodule_whose_commit_is_not_there(tmp_path: Path, inputs: Path) -> None:
    make(tmp_path / "library", {"l": ""})
    wanted = evil_submodule(tmp_path / "top")
    with pytest.raises(InputError, match="submodule 'inputs/foo/lib'.*has no commit 1111"):
        obtain(tmp_path / "top", wanted, inputs)


# transports

@pytest.mark.parametrize(("url", "local"), [
    ("https://example.org/a.git", False), ("http://example.org/a", False), ("git://example.org/a", False),
    ("ssh://git@example.org/a", False), ("git@example.org:a/b.git", False), ("example.org:a", False),
    ("HTTPS://example.org/a", False), ("file:///a/b", True), ("/a/b", True), ("../a", True), ("a", True),
    ("./a:b", True)])
def test_where_a_url_leads(url: str, local: bool) -> None:
    location = locate(url, Path("/w/inputs/foo"))
    assert location.local is local
    assert ("file" in location.protocols.split(":")) is local
    assert "ext" not in location.protocols


def test_relative_urls() -> None:
    assert locate("../../../repos/foo", Path("/w/x/inputs/foo")).url == "/w/repos/foo"
    parent = locate("https://example.org/group/top.git", Path("/w"))
    assert of_submodule("../other.git", parent, "x").url == "https://example.org/group/other.git"
    assert of_submodule("./sub", parent, "x").url == "https://example.org/group/top.git/sub"
    assert of_submodule("../../else/y", parent, "x").url == "https://example.org/else/y"
    by_ssh = locate("git@example.org:group/top.git", Path("/w"))
    assert of_submodule("../other.git", by_ssh, "x").url == "git@example.org:group/other.git"
    for url in ("../../../../../etc", "file:///etc", "/etc/x", "ext::x"):
        with pytest.raises(InputError):
            of_submodule(url, parent, "x")


@pytest.mark.parametrize("url", ["ext::sh -c x", "ext::sh", "fd::3", "rsync://example.org/x", "ftp://x/y", "-x", "",
                                 "https://x/\ny", "gopher://x"])
def test_urls_that_are_refused(url: str, inputs: Path) -> None:
    with pytest.raises(InputError, match="refused"):
        obtain(url, "v1", inputs)


@pytest.fixture
def served(tmp_path: Path) -> Iterator[tuple[Path, str]]:
    """A directory served over plain HTTP ('dumb': git can fetch what refs point to, and no single hash)."""
    root = tmp_path / "served"
    root.mkdir()

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, format: str, *arguments: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(root)))
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield root, f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def publish(source: Path, root: Path) -> None:
    git(root, "clone", "-q", "--bare", source, root / f"{source.name}.git")
    git(root / f"{source.name}.git", "update-server-info")


def test_a_server_that_gives_only_what_refs_point_to(upstream: Path, inputs: Path, tmp_path: Path,
                                                     monkeypatch: pytest.MonkeyPatch) -> None:
    """As version 0 of git's protocol does by default: then all is fetched, and the commit must be in it."""
    (tmp_path / "gitconfig").write_text("[protocol]\n\tversion = 0\n")
    monkeypatch.setenv("GITIAN_GIT_CONFIG", str(tmp_path / "gitconfig"))
    commit(upstream, {"README": "three\n"})
    wanted = git(upstream, "rev-parse", "master~1")
    assert obtain(upstream, wanted, inputs).commit == wanted
    assert git(inputs / "foo", "for-each-ref") == ""
    with pytest.raises(InputError, match="has no commit"):
        obtain(upstream, "a" * 40, inputs)


def test_over_http(upstream: Path, inputs: Path, served: tuple[Path, str], monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    root, base = served
    publish(upstream, root)
    one = git(upstream, "rev-parse", "v1^{commit}")
    assert obtain(f"{base}/upstream.git", "v1", inputs).commit == one
    commit(upstream, {"README": "three\n"})
    shutil.rmtree(root / "upstream.git")
    publish(upstream, root)
    wanted = git(upstream, "rev-parse", "master~1")
    assert obtain(f"{base}/upstream.git", wanted, inputs, name="bar").commit == wanted
    assert git(inputs / "bar", "for-each-ref") == ""
    with pytest.raises(InputError, match="has no commit"):
        obtain(f"{base}/upstream.git", "a" * 40, inputs)


def test_a_remote_repository_may_not_reach_into_this_machine(tmp_path: Path, inputs: Path, served: tuple[Path, str],
                                                             monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    root, base = served
    private = tmp_path / "private"
    secret = make(private, {"secret": "secret\n"})
    for number, url in enumerate((str(private), f"file://{private}")):
        top = tmp_path / f"top{number}"
        wanted = evil_submodule(top, url=url, pointing=secret)
        publish(top, root)
        with pytest.raises(InputError, match="may not come from this machine"):
            obtain(f"{base}/{top.name}.git", wanted, inputs)
    assert list(inputs.iterdir()) == []


def test_nothing_is_said_on_standard_output(upstream: Path, inputs: Path, capfd: pytest.CaptureFixture[str]) -> None:
    progress.set_quiet(True)
    try:
        obtain(upstream, "v1", inputs)
    finally:
        progress.set_quiet(False)
    assert capfd.readouterr() == ("", "")


def test_killed_at_any_moment(upstream: Path, tmp_path: Path, inputs: Path) -> None:
    """Whatever is left, the next run comes to the same end."""
    first = git(upstream, "rev-parse", "v1^{commit}")
    top = tmp_path / "top"
    make(top, {f"directory/{number}": "x" * number for number in range(300)})
    one = with_submodule(top, "lib", "../upstream", first)
    two = with_submodule(top, "another", "../upstream", git(upstream, "rev-parse", "master"))
    text = ("import sys\nfrom pathlib import Path\nfrom gitian.inputs.git import Fetching, check_out, sweep\n"
            "inputs = Path(sys.argv[1])\nprint('ready', flush=True)\nsweep(inputs)\n"
            "check_out(sys.argv[2], 'foo', sys.argv[3], inputs=inputs, fetching=Fetching())\n")
    for number in range(8):
        running = subprocess.Popen([sys.executable, "-c", text, inputs, top, (one, two)[number % 2]],
                                   stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, start_new_session=True)
        assert running.stdout is not None
        with running.stdout:
            assert running.stdout.readline() == b"ready\n"
            time.sleep(0.02 * number)
            running.kill()
            running.wait()

    def swept() -> bool:
        inputs_git.sweep(inputs)
        return not list(inputs.glob(".partial*"))

    assert process.wait_until(swept, 60), "git's own children outlive their parent, but for a moment only"
    for wanted, expected in ((one, ["lib"]), (two, ["another", "lib"])):
        assert obtain(top, wanted, inputs).commit == wanted
        assert git(inputs / "foo", "status", "--porcelain") == ""
        assert [name for name in ("another", "lib") if (inputs / "foo" / name / "README").exists()] == expected
    assert [path.name for path in inputs.iterdir()] == ["foo"]
