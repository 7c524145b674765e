"""gsign --commit: exactly two files, in a commit of their own, or nothing at all."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.integration import update_kit as kit
from tests.integration.test_git_rev import Git, git

__all__ = ["git"]

REPORT = kit.assertion({"demo.tar.gz": b"out"}).split(b"- release:")[0]
Sign = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="module")
def keyring() -> Iterator[kit.Keys]:
    with kit.keys() as found:
        found.fingerprint("alice")
        yield found


@pytest.fixture
def workspace(tmp_path: Path, git: Git) -> Path:
    """A workspace with a finished build, and a clone of the signatures in sigs/demo."""
    kit.Parts({"result/demo-res.yml": REPORT, "demo.yml": b'name: "demo"\n', "sigs/demo/README": b"signatures\n"}
              ).directory(tmp_path / "w")
    git("init", "--quiet", "--initial-branch=main", cwd=tmp_path / "w/sigs/demo")
    git("add", "--all", cwd=tmp_path / "w/sigs/demo")
    git("commit", "--quiet", "--message", "first", cwd=tmp_path / "w/sigs/demo")
    return tmp_path / "w"


@pytest.fixture
def sign(workspace: Path, keyring: kit.Keys) -> Sign:
    def run(*words: str, signer: str = "alice", release: str = "1.0") -> subprocess.CompletedProcess[str]:
        return kit.gitian("gsign", "demo.yml", "-s", signer, "-r", release, "--commit", *words, cwd=workspace,
                          GNUPGHOME=str(keyring.home))

    return run


def test_two_files_and_nothing_else(workspace: Path, sign: Sign, git: Git) -> None:
    sigs = workspace / "sigs/demo"
    (sigs / "README").write_bytes(b"changed, not staged\n")
    (sigs / "scratch").write_bytes(b"untracked\n")
    done = sign()
    assert done.returncode == 0, done.stderr
    assert git("show", "--format=", "--name-status", "HEAD", cwd=sigs).splitlines() == [
        "A\t1.0/alice/demo-build.assert", "A\t1.0/alice/demo-build.assert.sig"]
    assert git("log", "-1", "--format=%B", cwd=sigs) == (
        "demo 1.0: signature of alice\n\nname: demo\nrelease: 1.0\nsigner: alice")
    assert git("status", "--porcelain", cwd=sigs).splitlines() == ["M README", "?? scratch"]
    assert git("rev-parse", "--short=12", "HEAD", cwd=sigs) in done.stderr
    # What was committed is what was signed.
    (workspace / "sigs/demo/README").write_bytes(b"signatures\n")
    check = kit.gitian("gverify", "demo.yml", "-r", "1.0", "--git-rev", "HEAD", "--no-markup", cwd=workspace,
                       GNUPGHOME=sign_home(sign))
    assert "alice: OK" in check.stdout, check.stderr


def sign_home(sign: Sign) -> str:
    home = sign.__closure__
    assert home is not None
    return next(str(cell.cell_contents.home) for cell in home if isinstance(cell.cell_contents, kit.Keys))


def test_again_for_another_release(workspace: Path, sign: Sign, git: Git) -> None:
    assert sign().returncode == 0
    assert sign(release="1.1").returncode == 0
    (workspace / "result/demo-res.yml").write_bytes(REPORT.replace(b"demo.tar.gz", b"demo.zip"))
    assert sign(release="1.1").returncode == 0
    assert git("rev-list", "--count", "HEAD", cwd=workspace / "sigs/demo") == "4"


def test_something_else_is_staged(workspace: Path, sign: Sign, git: Git) -> None:
    sigs = workspace / "sigs/demo"
    (sigs / "README").write_bytes(b"staged\n")
    git("add", "README", cwd=sigs)
    done = sign()
    assert done.returncode == 15
    assert "Something else is staged" in done.stderr and "'README'" in done.stderr
    assert not (sigs / "1.0").exists(), "nothing was signed"
    assert git("status", "--porcelain", cwd=sigs) == "M  README"


def test_in_the_middle_of_a_merge(workspace: Path, sign: Sign, git: Git) -> None:
    head = git("rev-parse", "HEAD", cwd=workspace / "sigs/demo")
    (workspace / "sigs/demo/.git/MERGE_HEAD").write_text(head + "\n")
    done = sign()
    assert done.returncode == 15 and "in the middle of a merge" in done.stderr
    assert not (workspace / "sigs/demo/1.0").exists()


def test_no_repository(workspace: Path, keyring: kit.Keys, tmp_path: Path) -> None:
    done = kit.gitian("gsign", "demo.yml", "-s", "alice", "--commit", "-d", tmp_path / "elsewhere", cwd=workspace,
                      GNUPGHOME=str(keyring.home))
    assert done.returncode == 2 and "in no git repository" in done.stderr
    assert not (tmp_path / "elsewhere").exists()


def test_a_first_commit(workspace: Path, sign: Sign, git: Git, keyring: kit.Keys, tmp_path: Path) -> None:
    git("init", "--quiet", "--initial-branch=main", tmp_path / "fresh", cwd=tmp_path)
    done = kit.gitian("gsign", "demo.yml", "-s", "alice", "--commit", "-d", tmp_path / "fresh", cwd=workspace,
                      GNUPGHOME=str(keyring.home))
    assert done.returncode == 0, done.stderr
    assert len(git("ls-tree", "-r", "--name-only", "HEAD", cwd=tmp_path / "fresh").splitlines()) == 2


def test_signed_elsewhere(workspace: Path, sign: Sign, git: Git, keyring: kit.Keys) -> None:
    """-p true writes the assertion; the signature is made on another machine and dropped in; then it is committed."""
    sigs = workspace / "sigs/demo"
    done = sign("-p", "true")
    assert done.returncode == 15 and "no signature yet" in done.stderr
    assert git("rev-list", "--count", "HEAD", cwd=sigs) == "1"
    assert git("status", "--porcelain", cwd=sigs) == "?? 1.0/"
    path = sigs / "1.0/alice/demo-build.assert"
    path.with_name("demo-build.assert.sig").write_bytes(keyring.sign("alice", path.read_bytes()))
    done = sign("-p", "true")
    assert done.returncode == 0, done.stderr
    assert git("rev-list", "--count", "HEAD", cwd=sigs) == "2"
    done = sign("-p", "true")
    assert done.returncode == 0 and "nothing to commit" in done.stderr
    assert git("rev-list", "--count", "HEAD", cwd=sigs) == "2"


def test_a_hook_that_refuses_leaves_nothing_staged(workspace: Path, sign: Sign, git: Git) -> None:
    sigs = workspace / "sigs/demo"
    hook = sigs / ".git/hooks/pre-commit"
    hook.parent.mkdir(exist_ok=True)
    hook.write_text("#!/bin/sh\necho 'not on a Sunday' >&2\nexit 1\n")
    hook.chmod(0o755)
    done = sign()
    assert done.returncode == 4 and "not on a Sunday" in done.stderr
    assert git("status", "--porcelain", cwd=sigs) == "?? 1.0/"
    assert git("rev-list", "--count", "HEAD", cwd=sigs) == "1"


@pytest.mark.parametrize("script", [
    "echo x > other; git add other",
    "echo '# x' >> 1.0/alice/demo-build.assert; git add 1.0/alice/demo-build.assert",
    "git rm -q --cached README",
])
def test_a_hook_that_changes_what_is_committed(workspace: Path, sign: Sign, git: Git, script: str) -> None:
    """Those that tidy up white space are common; a signature does not survive it."""
    sigs = workspace / "sigs/demo"
    before = git("rev-parse", "HEAD", cwd=sigs)
    hook = sigs / ".git/hooks/pre-commit"
    hook.parent.mkdir(exist_ok=True)
    hook.write_text(f"#!/bin/sh\n{script}\n")
    hook.chmod(0o755)
    done = sign()
    assert done.returncode == 15 and "A hook of" in done.stderr and "taken back" in done.stderr
    assert git("rev-parse", "HEAD", cwd=sigs) == before
    assert git("diff", "--cached", "--name-only", cwd=sigs) == ""
    hook.unlink()
    assert sign().returncode == 0
    assert git("show", "--format=", "--name-only", "HEAD", cwd=sigs).splitlines() == [
        "1.0/alice/demo-build.assert", "1.0/alice/demo-build.assert.sig"]


def test_a_hook_that_changes_the_first_commit(workspace: Path, sign: Sign, git: Git) -> None:
    sigs = workspace / "sigs/demo"
    git("update-ref", "-d", "HEAD", cwd=sigs)
    git("rm", "-r", "-q", "--cached", ".", cwd=sigs)
    hook = sigs / ".git/hooks/pre-commit"
    hook.parent.mkdir(exist_ok=True)
    hook.write_text("#!/bin/sh\ngit add README\n")
    hook.chmod(0o755)
    assert sign().returncode == 15
    assert git("rev-list", "--count", "--all", cwd=sigs) == "0"
    assert git("ls-files", cwd=sigs) == ""


def test_a_commit_on_no_branch_is_remarked_on(workspace: Path, sign: Sign, git: Git) -> None:
    git("checkout", "--quiet", "--detach", cwd=workspace / "sigs/demo")
    done = sign()
    assert done.returncode == 0 and "no branch is checked out" in done.stderr


def test_a_hook_s_environment_does_not_lead_elsewhere(workspace: Path, keyring: kit.Keys, git: Git,
                                                      tmp_path: Path) -> None:
    """gsign may be run by a hook of another repository, which finds GIT_DIR set to that one."""
    other = tmp_path / "other"
    git("init", "--quiet", "--initial-branch=main", other, cwd=tmp_path)
    for number, extra in enumerate(({"GIT_DIR": str(other / ".git")}, {"GIT_INDEX_FILE": str(tmp_path / "index")},
                                    {"GIT_DIR": str(other / ".git"), "GIT_WORK_TREE": str(other)},
                                    {"GIT_OBJECT_DIRECTORY": str(other / ".git/objects")},
                                    {"GIT_GLOB_PATHSPECS": "1"})):
        done = kit.gitian("gsign", "demo.yml", "-s", "alice", "-r", f"1.{number}", "--commit", cwd=workspace,
                          GNUPGHOME=str(keyring.home), **extra)
        assert done.returncode == 0, done.stderr
        assert git("ls-tree", "-r", "--name-only", "HEAD", f"1.{number}", cwd=workspace / "sigs/demo").count("\n") == 1
    assert git("count-objects", cwd=other).startswith("0 objects")
    assert git("status", "--porcelain", cwd=other) == ""


def test_in_a_folder_below_the_top_and_through_a_link(workspace: Path, sign: Sign, git: Git, tmp_path: Path) -> None:
    sigs = workspace / "sigs/demo"
    (tmp_path / "link").symlink_to(sigs)
    for base in (sigs / "a/b", tmp_path / "link/c"):
        done = sign("-d", str(base))
        assert done.returncode == 0, done.stderr
    assert [name for name in git("ls-tree", "-r", "--name-only", "HEAD", cwd=sigs).splitlines() if ".sig" in name] == [
        "a/b/1.0/alice/demo-build.assert.sig", "c/1.0/alice/demo-build.assert.sig"]


def test_places_that_are_no_work_tree(workspace: Path, sign: Sign, git: Git, tmp_path: Path) -> None:
    git("clone", "--quiet", "--bare", workspace / "sigs/demo", tmp_path / "bare.git", cwd=tmp_path)
    for base in (workspace / "sigs/demo/.git/x", tmp_path / "bare.git", tmp_path / "outside"):
        assert sign("-d", str(base)).returncode == 2
        assert not list(base.glob("**/*.assert"))


def test_files_that_are_ignored(workspace: Path, sign: Sign, git: Git) -> None:
    sigs = workspace / "sigs/demo"
    (sigs / ".git/info").mkdir(exist_ok=True)
    (sigs / ".git/info/exclude").write_text("*.sig\n")
    done = sign()
    assert done.returncode == 4 and "ignored" in done.stderr
    assert git("diff", "--cached", "--name-only", cwd=sigs) == ""


def test_bytes_that_git_would_change(workspace: Path, sign: Sign, git: Git) -> None:
    """With line endings converted the committed assertion would not fit its signature."""
    sigs = workspace / "sigs/demo"
    (sigs / ".git/info").mkdir(exist_ok=True)
    (sigs / ".git/info/attributes").write_text("*.assert filter=up\n")
    git("config", "filter.up.clean", "tr a-z A-Z", cwd=sigs)
    done = sign()
    assert done.returncode == 15 and "would not fit" in done.stderr
    assert git("status", "--porcelain", cwd=sigs) == "?? 1.0/"


def test_a_signer_with_a_name_that_is_a_pattern(workspace: Path, sign: Sign, git: Git) -> None:
    """'*' as a directory's name stands for itself, not for whoever else lies there."""
    sigs = workspace / "sigs/demo"
    kit.Parts({"1.0/other/demo-build.assert": b"x", "1.0/other/demo-build.assert.sig": b"x"}).directory(sigs)
    done = sign("-p", "true", signer="*")
    path = sigs / "1.0/*/demo-build.assert"
    path.with_name("demo-build.assert.sig").write_bytes(signature(sign, path.read_bytes()))
    done = sign("-p", "true", signer="*")
    assert done.returncode == 0, done.stderr
    assert git("ls-tree", "-r", "--name-only", "HEAD", cwd=sigs).splitlines() == [
        "1.0/*/demo-build.assert", "1.0/*/demo-build.assert.sig", "README"]


def signature(sign: Sign, content: bytes) -> bytes:
    return kit.Keys(Path(sign_home(sign))).gpg("--detach-sign", input=content)
