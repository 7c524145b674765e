"""gverify --all on trees signed for the purpose: the table, the document, the page's file, exit statuses."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import pty
import re
import stat
import struct
import subprocess
import sys
import termios
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from gitian.sigs import keys as gpg_keys
from gitian.sigs import tree as trees
from gitian.sigs import verify
from tests.gverify_kit import Ran, gverify
from tests.integration import git_kit
from tests.shared import FIXTURES, needs_shared
from tests.signers import MANIFEST, OTHER, Signers, assertion, put


@pytest.fixture(scope="module")
def signers() -> Iterator[Signers]:
    found = Signers()
    try:
        for name in ("alice", "bob", "carol"):
            found.make(name)
        yield found
    finally:
        found.close()


class Tree:
    """A tree of signatures, and gverify --all on it."""

    def __init__(self, root: Path, signers: Signers, capfd: pytest.CaptureFixture[str]) -> None:
        self.root = root / "sigs"
        self.root.mkdir()
        self.ring = root / "ring.gpg"
        self.ring.write_bytes(signers.export("alice", "bob", "carol"))
        self.signers = signers
        self.capfd = capfd

    def sign(self, release: str, *who: str, name: str = "pkg", out: str = MANIFEST) -> None:
        said = release.rsplit("/", 1)[-1]
        for signer in who:
            content = assertion(said, name, out)
            put(self.root, release, signer, content, self.signers.sign(signer, content), name)

    def all(self, *words: str | Path, keyring: bool = True) -> Ran:
        ring = ["--keyring", str(self.ring), "--only-keyring"] if keyring else []
        return gverify(self.capfd, "--all", "-d", str(self.root), *ring, *map(str, words))


@pytest.fixture
def tree(tmp_path: Path, signers: Signers, capfd: pytest.CaptureFixture[str],
         monkeypatch: pytest.MonkeyPatch) -> Tree:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    for name in ("XDG_CACHE_HOME", "GNUPGHOME", "GITIAN_BASE"):
        monkeypatch.delenv(name, raising=False)
    return Tree(tmp_path, signers, capfd)


def table(ran: Ran) -> list[list[str]]:
    """The rows of the table as words; the first is the heads."""
    return [line.split() for line in ran.stdout.split("\n\n")[0].splitlines()]


def test_every_release_and_package_without_a_descriptor(tree: Tree) -> None:
    tree.sign("1.10", "alice", "bob")
    tree.sign("1.9", "alice", "bob")
    tree.sign("1.9", "carol", name="other")
    ran = tree.all()
    assert ran.status == 0, ran.stdout + ran.stderr
    assert table(ran) == [["RELEASE", "PACKAGE", "VERDICT", "KEYS", "SIGNED", "WHO", "IS", "NOT", "OK"],
                          ["1.9", "other", "agree", "1", "1"],
                          ["1.9", "pkg", "agree", "2", "2"],
                          ["1.10", "pkg", "agree", "2", "2"]]
    assert "3 releases and packages: 3 agree\nsigners: 5 OK, 3 MISSING RESULT\n" in ran.stdout
    assert "\x1b" not in ran.stdout
    assert "Checking signatures" in ran.stderr


def test_who_is_not_ok_and_why(tree: Tree) -> None:
    tree.sign("1", "alice", "bob")
    tree.sign("1", "carol", out=OTHER)
    content = assertion("1")
    put(tree.root, "1", "dave", content, b"nonsense")
    put(tree.root, "1", "eve", content, None)
    ran = tree.all()
    assert ran.status == 1
    assert " ".join(table(ran)[1]) == ("1 pkg disagree 2 4 MISMATCH carol; BAD SIGNATURE dave; "
                                       "MISSING SIGNATURE eve")
    ran = tree.all("-v")
    assert f"- {'a' * 64}  pkg.tar.gz" in ran.stdout and f"+ {'c' * 64}  pkg.tar.gz" in ran.stdout
    assert "carol: MISMATCH, 1 file differs" in ran.stdout


@pytest.mark.parametrize(("who", "words", "status"), [
    ({"1": ("alice", "bob"), "2": ("alice", "bob")}, ("--require", "2"), 0),
    ({"1": ("alice", "bob"), "2": ("alice",)}, ("--require", "2"), 13),
    ({"1": ("alice", "bob"), "2": ()}, (), 14),
    ({"1": ("alice",), "2": ()}, ("--require", "2"), 14),
])
def test_exit_statuses(tree: Tree, who: dict[str, tuple[str, ...]], words: tuple[str, ...], status: int) -> None:
    for release, names in who.items():
        tree.sign(release, *names)
        put(tree.root, release, "unsigned", assertion(release), None)
    ran = tree.all(*words, "--json")
    assert ran.status == status == ran.document["exit_code"]


def test_nothing_to_verify_is_no_success(tree: Tree) -> None:
    ran = tree.all()
    assert ran.status == 14 and "There is no assertion" in ran.stderr
    tree.sign("1", "alice")
    assert tree.all("-r", "2").status == 14
    assert gverify(tree.capfd, "--all", "-d", str(tree.root / "none")).status == 14
    ran = gverify(tree.capfd, "--all", "-d", str(tree.root / "1"))
    assert ran.status == 14 and "lies in no signer's directory" in ran.stderr


def test_usage(tree: Tree) -> None:
    tree.sign("1", "alice")
    assert tree.all("--compare-to", "alice").status == 2
    assert tree.all("-r", "../x").status == 2
    assert tree.all("--html", tree.root).status == 2
    assert tree.all("--html", tree.root / "none" / "page.html").status == 2


def test_one_release_one_package(tree: Tree, tmp_path: Path) -> None:
    for release in ("1", "2"):
        tree.sign(release, "alice")
        tree.sign(release, "alice", name="other")
    descriptor = tmp_path / "D.yml"
    descriptor.write_text('name: "other"\n')
    shown = [row[:2] for row in table(tree.all("-r", "2"))[1:]]
    assert shown == [["2", "other"], ["2", "pkg"]]
    assert [row[:2] for row in table(tree.all(descriptor))[1:]] == [["1", "other"], ["2", "other"]]
    assert [row[:2] for row in table(tree.all("-r", "1", descriptor))[1:]] == [["1", "other"]]


def test_the_workspace_is_the_tree_when_none_is_named(tree: Tree, tmp_path: Path) -> None:
    """There a package's releases lie in a folder of its own."""
    tree.sign("pkg/1", "alice")
    tree.sign("other/1", "bob", name="other")
    ran = gverify(tree.capfd, "--all", "--keyring", str(tree.ring))
    assert ran.status == 0
    assert [row[:2] for row in table(ran)[1:]] == [["other/1", "other"], ["pkg/1", "pkg"]]
    descriptor = tmp_path / "D.yml"
    descriptor.write_text('name: "other"\n')
    ran = gverify(tree.capfd, "--all", "--keyring", str(tree.ring), str(descriptor))
    assert [row[:2] for row in table(ran)[1:]] == [["1", "other"]]


def test_the_document_is_that_of_each_release(tree: Tree) -> None:
    tree.sign("x/1", "alice", "bob")
    tree.sign("2", "alice")
    tree.sign("2", "carol", out=OTHER)
    (tree.root / "stray-build.assert").write_bytes(b"")
    ran = tree.all("--json")
    assert ran.status == 1
    found: dict[str, Any] = ran.document
    assert found["decisions"] == {"agree": 1, "disagree": 1, "policy": 0, "nothing": 0}
    assert found["outcomes"] == {"OK": 2, "MISMATCH": 2}
    assert [each["path"] for each in found["problems"]] == ["stray-build.assert"]
    descriptor = tree.root.parent / "D.yml"
    descriptor.write_text('name: "pkg"\n')
    for each in found["releases"]:
        alone = gverify(tree.capfd, "--json", "-d", str(tree.root / Path(each["path"]).parent), "-r",
                        Path(each["path"]).name, "--keyring", str(tree.ring), "--only-keyring", str(descriptor))
        expected = alone.document
        for signer in (*each["signers"], *expected["signers"]):
            signer["path"] = Path(signer["path"]).name
        assert {key: value for key, value in each.items() if key != "path"} == expected


def test_a_problem_of_the_tree_fails_the_run(tree: Tree) -> None:
    tree.sign("1", "alice")
    assert tree.all().status == 0
    (tree.root / "1" / "other-build.assert").write_bytes(b"")
    ran = tree.all()
    assert ran.status == 1
    assert "'1/other-build.assert' lies in no signer's directory" in ran.stderr
    assert "1 problem of the tree" in ran.stdout


def test_why_they_differ(tree: Tree) -> None:
    tree.sign("1", "alice", "bob")
    content = assertion("1", out=OTHER).replace(b"e" * 64 + b"  bash.deb", b"f" * 64 + b"  bash.deb")
    put(tree.root, "1", "carol", content, tree.signers.sign("carol", content))
    tree.sign("2", "alice")
    ran = tree.all("--explain", "--html", tree.root.parent / "page.html")
    assert ran.stdout.count("Why do they differ?") == 1 and "bash" in ran.stdout
    assert "Why do they differ?" in (tree.root.parent / "page.html").read_text("utf-8")
    explained = [("explanation" in each) for each in tree.all("--explain", "--json").document["releases"]]
    assert explained == [True, False]


def test_nothing_of_a_tree_paints_the_terminal(tree: Tree) -> None:
    for name in (b"\x1b[2J", b"a\nb", "\u202eevil".encode(), b"\xff", b"$(touch pwned)", b"<script>"):
        release = os.fsdecode(name)
        content = assertion("1")
        put(tree.root, release, release, content, tree.signers.sign("alice", content), release)
    (tree.root / os.fsdecode(b"\x1b]0;x\x07-build.assert")).write_bytes(b"")
    page = tree.root.parent / "page.html"
    for words in ((), ("-v",), ("--json",), ("--explain",)):
        ran = tree.all(*words, "--html", page)
        assert ran.status == 1
        assert not [char for char in ran.stdout + ran.stderr if not char.isprintable() and char != "\n"]
        made = page.read_bytes().decode("utf-8")
        assert not [char for char in made if not char.isprintable() and char != "\n"]
        assert made.count("<script>") == 1
    assert not Path("pwned").exists()


def test_the_page_is_written_whole_or_not_at_all(tree: Tree) -> None:
    tree.sign("1", "alice")
    page = tree.root.parent / "page.html"
    page.write_text("old")
    assert tree.all("-r", "2", "--html", page).status == 14
    assert page.read_text() == "old"
    assert tree.all("--html", page).status == 0
    assert page.read_text("utf-8").startswith("<!DOCTYPE html>")
    assert set(os.listdir(tree.root.parent)) - {"home"} == {"page.html", "ring.gpg", "sigs"}


def test_devices_are_not_replaced(tree: Tree) -> None:
    tree.sign("1", "alice")
    ran = tree.all("--html", "/dev/full")
    assert ran.status == 6 and "No space left" in ran.stderr
    assert stat.S_ISCHR(Path("/dev/full").lstat().st_mode)
    link = tree.root.parent / "link.html"
    link.symlink_to("target.html")
    assert tree.all("--html", link).status == 0
    assert link.is_symlink() and (tree.root.parent / "target.html").read_text("utf-8").endswith("</html>\n")


def test_the_page_of_one_release(tree: Tree) -> None:
    tree.sign("1", "alice")
    tree.sign("2", "bob")
    descriptor = tree.root.parent / "D.yml"
    descriptor.write_text('name: "pkg"\n')
    page = tree.root.parent / "page.html"
    ran = gverify(tree.capfd, "-d", str(tree.root), "-r", "1", "--keyring", str(tree.ring), "--only-keyring",
                  "--html", str(page), str(descriptor))
    assert ran.verdicts == [("alice", "OK")]
    made = page.read_text("utf-8")
    assert "<bdi>alice</bdi>" in made and "bob" not in made


def test_a_revision_that_is_not_checked_out(tree: Tree) -> None:
    tree.sign("1", "alice")
    tree.sign("2", "alice", "bob")
    git_kit.git(tree.root, "init", "-q")
    git_kit.git(tree.root, "add", "-A")
    git_kit.git(tree.root, "commit", "-q", "-m", "signed")
    expected = [row for row in table(tree.all()) if row]
    for path in sorted(tree.root.glob("*/*/*.assert*")):
        path.unlink()
    assert tree.all().status == 14
    ran = tree.all("--git-rev", "HEAD")
    assert ran.status == 0 and table(ran) == expected


def test_stdout_that_closes_early(tree: Tree, tmp_path: Path) -> None:
    tree.sign("1", "alice")
    command = [sys.executable, "-m", "gitian.cli.main", "gverify", "--all", "-d", str(tree.root), "--json"]
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout is not None and process.stderr is not None
    process.stdout.close()
    told = process.stderr.read().decode()
    process.stderr.close()
    process.wait(120)
    assert "Traceback" not in told


@needs_shared
def test_every_real_tree_release_by_release(capfd: pytest.CaptureFixture[str], tmp_path: Path,
                                            monkeypatch: pytest.MonkeyPatch) -> None:
    """All at once says the same as one after the other."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    page = tmp_path / "page.html"
    ran = gverify(capfd, "--all", "-d", str(FIXTURES / "sigs"), "--keyring", str(FIXTURES / "keys"),
                  "--only-keyring", "--html", str(page), "--json")
    assert ran.status == 1
    ring = gpg_keys.gather(gpg_keys.Sources(keyrings=(FIXTURES / "keys",), folders=False))
    where = trees.DirectoryTree(FIXTURES / "sigs")
    told = {(each["path"], each["name"]): [(signer["signer"], signer["outcome"]) for signer in each["signers"]]
            for each in json.loads(ran.stdout)["releases"]}
    runs = (FIXTURES / "expected" / "runs.tsv").read_text().splitlines()
    heads = runs[0].split("\t")
    assert len(told) == len(runs) - 1 == 26
    for line in runs[1:]:
        row = dict(zip(heads, line.split("\t"), strict=True))
        path = f"{row['sigs_dir']}/{row['release']}".removeprefix("sigs/")
        alone = verify.verify_release(verify.Request(tree=where, keyring=ring), path, row["package"])
        assert told[path, row["package"]] == [(each.signer, each.outcome.value) for each in alone.signers]
    made = page.read_text("utf-8")
    assert made.count('class="row ') == 26


def test_on_a_terminal_rows_fit_and_a_bar_shows_how_far_it_is(tree: Tree) -> None:
    tree.sign("1", "alice")
    for number in range(30):
        put(tree.root, "1", f"somebody{number}", assertion("1"), b"nonsense")
    tree.sign("2", "alice")
    command = [sys.executable, "-m", "gitian.cli.main", "gverify", "--all", "-d", str(tree.root), "--keyring",
               str(tree.ring), "--only-keyring"]
    leader, follower = pty.openpty()
    fcntl.ioctl(follower, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 100, 0, 0))
    environment = {**os.environ, "TERM": "xterm-256color", "COLUMNS": "100", "LINES": "24"}
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=follower, stderr=follower, env=environment)
    os.close(follower)
    shown = b""
    with contextlib.suppress(OSError):  # the other end is closed: the command has ended
        while piece := os.read(leader, 65536):
            shown += piece
    os.close(leader)
    assert process.wait(120) == 1
    text = shown.decode()
    assert "\x1b[?25l" in text and "Checking signatures" in text  # the cursor is hidden while the bar moves
    assert text.rindex("\x1b[?25h") < text.index("RELEASE")  # and shown again before the table comes
    rows = [re.sub(r"\x1b\[[0-9;]*m", "", line) for line in text[text.index("RELEASE"):].splitlines()]
    assert max(map(len, rows[:3])) <= 100
    assert rows[1].endswith("…") and rows[2].split() == ["2", "pkg", "agree", "1", "1"]
