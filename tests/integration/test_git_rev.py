"""gverify --git-rev: what a revision holds is verified as if it were checked out, and nothing is checked out."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from gitian.errors import NothingToVerifyError, UsageError
from gitian.sigs.tree import DirectoryTree, Kind, TreeError
from gitian.sigsrepo import revision
from tests.integration import update_kit as kit

Git = Callable[..., str]


@pytest.fixture(scope="module")
def keyring() -> Iterator[kit.Keys]:
    with kit.keys() as found:
        yield found


@pytest.fixture
def git(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Git:
    """Run git as a user without any configuration of this machine's."""
    (tmp_path / "home").mkdir()
    for name in [name for name in os.environ if name.startswith("GIT_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    for name, value in (("GIT_CONFIG_NOSYSTEM", "1"), ("GIT_AUTHOR_NAME", "A"), ("GIT_AUTHOR_EMAIL", "a@example.org"),
                        ("GIT_COMMITTER_NAME", "A"), ("GIT_COMMITTER_EMAIL", "a@example.org")):
        monkeypatch.setenv(name, value)

    def run(*words: str | Path, cwd: Path, input: bytes | None = None) -> str:
        done = subprocess.run(["git", *map(str, words)], cwd=cwd, capture_output=True, check=False, input=input)
        assert done.returncode == 0, done.stderr.decode()
        return done.stdout.decode().strip()

    return run


@pytest.fixture
def sigs(tmp_path: Path, git: Git, keyring: kit.Keys) -> Path:
    """A clone with alice's signature on 'main', and bob's on the branch 'pull', which is not checked out."""
    top = tmp_path / "gitian.sigs"
    top.mkdir()
    git("init", "--quiet", "--initial-branch=main", cwd=top)
    content = kit.assertion({"demo.tar.gz": b"out"}, release="1.0")
    for name, branch in (("alice", "main"), ("bob", "pull")):
        if branch != "main":
            git("switch", "--quiet", "--create", branch, cwd=top)
        kit.Parts({f"1.0/{name}/demo-build.assert": content,
                   f"1.0/{name}/demo-build.assert.sig": keyring.sign(name, content),
                   f"gitian-keys/{name}.asc": keyring.public(name)}).directory(top)
        git("add", "--all", cwd=top)
        git("commit", "--quiet", "--message", name, cwd=top)
    git("switch", "--quiet", "main", cwd=top)
    (tmp_path / "demo.yml").write_text('name: "demo"\n')
    return top


def outcomes(sigs: Path, *words: str, status: int = 0) -> dict[str, str]:
    done = kit.gitian("gverify", sigs.parent / "demo.yml", "-r", "1.0", "-d", sigs, "--json", *words)
    assert done.returncode == status, done.stderr
    return {signer["signer"]: signer["outcome"] for signer in json.loads(done.stdout)["signers"]}


def test_a_branch_that_is_not_checked_out(sigs: Path, git: Git) -> None:
    before = kit.tree(sigs)
    assert outcomes(sigs) == {"alice": "OK"}
    assert outcomes(sigs, "--git-rev", "pull") == {"alice": "OK", "bob": "OK"}
    assert outcomes(sigs, "--git-rev", "pull") == {"alice": "OK", "bob": "OK"}  # remembered
    assert outcomes(sigs, "--git-rev", "pull~1") == {"alice": "OK"}
    assert kit.tree(sigs) == before
    assert git("status", "--porcelain", cwd=sigs) == ""


def test_a_pull_request_that_was_fetched(sigs: Path, git: Git, tmp_path: Path) -> None:
    git("update-ref", "refs/pull/7/head", "pull", cwd=sigs)
    git("clone", "--quiet", "--single-branch", "--branch", "main", f"file://{sigs}", "mine", cwd=tmp_path)
    git("fetch", "--quiet", "origin", "pull/7/head", cwd=tmp_path / "mine")
    assert outcomes(tmp_path / "mine", "--git-rev", "FETCH_HEAD") == {"alice": "OK", "bob": "OK"}


def test_a_bare_repository_and_one_with_sha256(sigs: Path, git: Git, tmp_path: Path) -> None:
    git("clone", "--quiet", "--bare", sigs, "bare.git", cwd=tmp_path)
    assert outcomes(tmp_path / "bare.git", "--git-rev", "pull") == {"alice": "OK", "bob": "OK"}
    other = tmp_path / "other"
    git("init", "--quiet", "--object-format=sha256", "--initial-branch=main", other, cwd=tmp_path)
    for name, data in kit.tree(sigs).items():
        if not name.startswith(".git/") and isinstance(data, bytes):
            kit.Parts({name: data}).directory(other)
    git("add", "--all", cwd=other)
    git("commit", "--quiet", "--message", "x", cwd=other)
    assert outcomes(other, "--git-rev", "main") == {"alice": "OK"}


def test_a_folder_below_the_top_that_is_gone_from_the_work_tree(sigs: Path, git: Git, tmp_path: Path) -> None:
    top = tmp_path / "project"
    git("init", "--quiet", "--initial-branch=main", top, cwd=tmp_path)
    for name, data in kit.tree(sigs).items():
        if not name.startswith(".git/") and isinstance(data, bytes):
            kit.Parts({f"contrib/sigs/{name}": data}).directory(top)
    git("add", "--all", cwd=top)
    git("commit", "--quiet", "--message", "x", cwd=top)
    git("tag", "--annotate", "--message", "t", "v1", cwd=top)
    git("rm", "-r", "--quiet", "contrib", cwd=top)
    git("commit", "--quiet", "--message", "y", cwd=top)
    assert not (top / "contrib").exists()
    done = kit.gitian("gverify", tmp_path / "demo.yml", "-r", "1.0", "-d", top / "contrib/sigs", "--no-markup",
                      "--git-rev", "v1")
    assert done.returncode == 0 and "alice: OK" in done.stdout
    with pytest.raises(NothingToVerifyError, match="does not exist"), revision.opened(top / "contrib/sigs", "main"):
        pass


@pytest.mark.parametrize("rev", ["nonsense", "--help", "", "main:1.0", "main..pull", "a\nb", "0" * 40, "^main"])
def test_revisions_that_are_none(sigs: Path, rev: str) -> None:
    done = kit.gitian("gverify", sigs.parent / "demo.yml", "-r", "1.0", "-d", sigs, f"--git-rev={rev}")
    assert done.returncode == 2
    assert "revision" in done.stderr


def test_outside_of_any_repository(sigs: Path, tmp_path: Path) -> None:
    (tmp_path / "plain").mkdir()
    with pytest.raises(UsageError, match="in no git repository"), revision.opened(tmp_path / "plain", "main"):
        pass


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a repository to somebody else")
def test_a_repository_of_somebody_else(sigs: Path) -> None:
    for path in (sigs, sigs / ".git"):
        os.chown(path, 12345, 12345)
    done = kit.gitian("gverify", sigs.parent / "demo.yml", "-r", "1.0", "-d", sigs, "--git-rev", "main")
    assert done.returncode == 2 and "dubious ownership" in done.stderr


def test_nothing_of_the_repository_is_run_or_applied(sigs: Path, git: Git, tmp_path: Path) -> None:
    """Filters, line endings, replaced objects, monitors: none has a say in what is read."""
    (sigs / ".gitattributes").write_text("* filter=evil text eol=crlf ident export-ignore\n")
    git("add", ".gitattributes", cwd=sigs)
    git("commit", "--quiet", "--message", "attributes", cwd=sigs)
    run = f"sh -c 'touch {tmp_path}/ran; cat'"
    for key in ("filter.evil.smudge", "filter.evil.clean", "core.fsmonitor", "core.sshCommand", "diff.external"):
        git("config", key, run, cwd=sigs)
    blob = git("rev-parse", "main:1.0/alice/demo-build.assert", cwd=sigs)
    other = git("hash-object", "-w", "--stdin", "-t", "blob", cwd=sigs, input=b"evil\n")
    git("replace", blob, other, cwd=sigs)
    (tmp_path / "ran").unlink(missing_ok=True)
    assert outcomes(sigs, "--git-rev", "main") == {"alice": "OK"}
    assert not (tmp_path / "ran").exists()


def test_an_object_that_is_missing(sigs: Path, git: Git) -> None:
    blob = git("rev-parse", "pull:1.0/bob/demo-build.assert.sig", cwd=sigs)
    (sigs / ".git/objects" / blob[:2] / blob[2:]).unlink()
    git("config", "remote.origin.promisor", "true", cwd=sigs)
    git("config", "remote.origin.url", "ext::touch ran", cwd=sigs)
    found = outcomes(sigs, "--git-rev", "pull", "--no-cache", status=1)
    assert found["alice"] == "OK" and found["bob"] != "OK"
    assert not (sigs / "ran").exists()


def test_the_same_as_a_directory(git: Git, tmp_path: Path) -> None:
    """Every path of a tree with odd names and links: the revision says what the directory says."""
    top = tmp_path / "odd"
    names = ["1.0/alice/x", "1.0/al ice/x", "1.0/ä\u202e$(id)/x", "1.0/'q\"\\/x", "1.0/:x/*", "top"]
    kit.Parts({name: name.encode() for name in names}).directory(top)
    (top / os.fsdecode(b"1.0/\xff\xfe")).write_bytes(b"bytes")
    for link, target in (("1.0/same", "alice"), ("1.0/up", "../top"), ("1.0/out", "../../secret"),
                         ("abs", "/etc/passwd"), ("loop", "loop"), ("round/a", "../round/b"),
                         ("round/b", "a"), ("dangling", "nothing"),
                         ("1.0/deep", "./same/../alice/x"), ("through", "1.0/alice/x/y"), ("dot", ".")):
        (top / link).parent.mkdir(exist_ok=True)
        (top / link).symlink_to(target)
    (tmp_path / "secret").write_bytes(b"secret")
    git("init", "--quiet", "--initial-branch=main", cwd=top)
    git("add", "--all", cwd=top)
    git("commit", "--quiet", "--message", "x", cwd=top)
    (top / ".git").rename(tmp_path / "hidden.git")
    git("config", "core.bare", "true", cwd=tmp_path / "hidden.git")
    directory = DirectoryTree(top)
    with revision.opened(tmp_path / "hidden.git", "main") as tree:
        pending, seen = [""], 0
        while pending:
            folder = pending.pop()
            entries = directory.list(folder)
            assert tree.list(folder) == entries, folder
            for entry in entries:
                path = f"{folder}/{entry.name}" if folder else entry.name
                seen += 1
                assert answer(tree.read, path) == answer(directory.read, path), path
                if entry.kind is Kind.DIRECTORY and path.count("/") < 3:
                    pending.append(path)
        for path in ("../secret", "/etc/passwd", "1.0/../top", "nothing", "top/x", "1.0"):
            assert answer(tree.read, path) == answer(directory.read, path), path
        assert seen > 30
        with pytest.raises(TreeError, match="at most 3"):
            tree.read("1.0/alice/x", 3)


def answer(read: Callable[[str, int], bytes], path: str) -> bytes | type[TreeError]:
    try:
        return read(path, 1000)
    except TreeError as error:
        return type(error)


def test_names_that_git_itself_would_not_make(git: Git, tmp_path: Path) -> None:
    top = tmp_path / "forged"
    git("init", "--quiet", "--initial-branch=main", top, cwd=tmp_path)
    blob = bytes.fromhex(git("hash-object", "-w", "--stdin", cwd=top, input=b"x"))
    forged = b"".join(b"100644 " + name + b"\0" + blob for name in (b"..", b"a/b", b"good"))
    tree = git("hash-object", "-w", "--literally", "-t", "tree", "--stdin", cwd=top, input=forged)
    commit = git("commit-tree", tree, "-m", "x", cwd=top)
    with revision.opened(top, commit) as found:
        assert [entry.name for entry in found.list("")] == ["good"]
