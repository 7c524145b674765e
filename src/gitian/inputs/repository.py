"""One git repository in inputs/: its git directory, its work tree, and git run in it so that nothing in it runs.

The ``git`` program is used, through the one door to programs, and not GitPython: every call must have a private
environment, a bound and an end, and GitPython reads no repository whose hashes are SHA-256.

What could run a program or lead elsewhere (git-config(1), gitrepository-layout(5)): hooks, core.fsmonitor, filters,
textconv, aliases, credential helpers, url.*.insteadOf, includes, alternates, replaced objects, grafts, a .git that
points elsewhere. The descriptor's URL and commit are the truth, so a repository's configuration is written anew by us
each time, and what it holds besides objects and refs is removed.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import stat
import threading
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from gitian.errors import HostError, InputError
from gitian.host import process, progress
from gitian.host.workspace import remove_tree
from gitian.inputs.urls import Location, without_secrets

_SETTINGS = {
    "core.hooksPath": "/dev/null", "core.fsmonitor": "false", "core.attributesFile": "/dev/null",
    "core.excludesFile": "/dev/null", "core.commitGraph": "false", "core.multiPackIndex": "false",
    "core.logAllRefUpdates": "false", "core.autocrlf": "false",
    "core.eol": "lf", "core.safecrlf": "false", "core.fileMode": "true",
    "submodule.recurse": "false", "fetch.recurseSubmodules": "false", "fetch.writeCommitGraph": "false",
    "gc.auto": "0", "maintenance.auto": "false", "log.showSignature": "false", "advice.detachedHead": "false",
    "init.defaultBranch": "master", "transfer.bundleURI": "false", "checkout.workers": "1",
    # A remote that says nothing for a minute is gone.
    "http.lowSpeedLimit": "1", "http.lowSpeedTime": "60",
}
_OPTIONS = [word for key, value in _SETTINGS.items() for word in ("-c", f"{key}={value}")]
#: What may stay in a git directory that was there before; everything else is removed.
_KEPT = {"HEAD", "objects", "refs", "packed-refs", "shallow", "modules", "description", "index", "config",
         "gitian-checkout"}
_EXPECTED = re.compile(r"core\.(repositoryformatversion|filemode|bare|logallrefupdates|worktree|ignorecase|symlinks)|"
                       r"extensions\.objectformat|remote\..*\.(url|fetch|pushurl|tagopt)|branch\..*|user\.[a-z]+|"
                       r"submodule\..*\.(url|active)", re.DOTALL)
_MARK = "gitian-checkout"
_LISTING = 512 * 2**20  # bytes of a listing of a tree


def environment(protocols: str) -> dict[str, str]:
    """What git sees besides the usual: no configuration but ours, no prompts, no lazy fetching.

    $GITIAN_GIT_CONFIG may name a configuration file of the user's, for credentials or a proxy.
    """
    values = {
        "GIT_CONFIG_NOSYSTEM": "1", "GIT_ATTR_NOSYSTEM": "1", "GIT_TERMINAL_PROMPT": "0", "TZ": "UTC",
        "GIT_CONFIG_GLOBAL": os.environ.get("GITIAN_GIT_CONFIG") or os.devnull, "GIT_OPTIONAL_LOCKS": "0",
        "GIT_NO_REPLACE_OBJECTS": "1", "GIT_NO_LAZY_FETCH": "1", "GIT_ALLOW_PROTOCOL": protocols,
        "GIT_SSH_COMMAND": "ssh -o BatchMode=yes -o ConnectTimeout=30 -o ServerAliveInterval=15",
    }
    # The user's own way to a host or a certificate, and whom sudo stands for (git asks whose a repository is).
    for name in ("GIT_SSH_COMMAND", "GIT_SSL_CAINFO", "GIT_SSL_CAPATH", "SUDO_UID"):
        if name in os.environ:
            values[name] = os.environ[name]
    return values


def run_git(words: Sequence[str | Path], *, protocols: str = "", cwd: Path = Path("/"), input: bytes | None = None,
            check: bool = True, limit: int = process.OUTPUT_LIMIT) -> process.Completed:
    """Run git with our settings, umask 022 (a checkout must not depend on the user's) and nobody's configuration."""
    return process.run(["git", *_OPTIONS, *words], env=environment(protocols or "none"), cwd=cwd, input=input,
                       check=check, limit=limit, umask=0o022, tied=True)


def last_words(done: process.Completed) -> str:
    """The end of what git said, on one line, without passwords."""
    lines = [line.strip() for line in done.stderr.decode(errors="replace").splitlines() if line.strip()]
    return without_secrets(" / ".join(lines[-4:]))[:800] or process.ended_how(done.status)


@dataclass(frozen=True, slots=True, kw_only=True)
class Repository:
    """A repository that we may change: ``label`` is what messages call it."""

    git_dir: Path
    work_tree: Path
    location: Location
    label: str

    def git(self, *words: str | Path, input: bytes | None = None, check: bool = True, fetching: bool = False,
            limit: int = process.OUTPUT_LIMIT) -> process.Completed:
        """Run git in this repository; only with ``fetching`` may it go elsewhere."""
        return run_git([f"--git-dir={self.git_dir}", f"--work-tree={self.work_tree}", *words],
                       protocols=self.location.protocols if fetching else "", cwd=self.work_tree, input=input,
                       check=check, limit=limit)

    def init(self, object_format: str) -> None:
        """Make it, empty; ``object_format`` is 'sha1' or 'sha256'."""
        self.work_tree.mkdir(parents=True, exist_ok=True)
        self.git_dir.mkdir(parents=True)
        run_git([f"--git-dir={self.git_dir}", "init", "-q", "--template=", f"--object-format={object_format}"],
                cwd=self.work_tree)
        self.write_config(object_format)

    def write_config(self, object_format: str, submodules: Iterable[tuple[str, str]] = ()) -> None:
        """Write .git/config anew: the format, where the work tree is, and the submodules' names and URLs."""
        lines = ["[core]", f"\trepositoryformatversion = {int(object_format != 'sha1')}", "\tfilemode = true",
                 "\tbare = false", "\tlogallrefupdates = true"]
        if self.git_dir.parent != self.work_tree:
            lines.append(f"\tworktree = {_quoted(os.path.relpath(self.work_tree, self.git_dir))}")
        if object_format != "sha1":
            lines += ["[extensions]", f"\tobjectformat = {object_format}"]
        for name, url in submodules:
            lines += [f"[submodule {_quoted(name)}]", "\tactive = true", f"\turl = {_quoted(url)}"]
        new = self.git_dir / "config.new"
        new.unlink(missing_ok=True)
        new.write_bytes(("\n".join(lines) + "\n").encode("utf-8", "surrogateescape"))
        new.replace(self.git_dir / "config")

    def tame(self) -> str:
        """Take over a git directory that was there before: nothing of it is believed but its objects and refs.

        Returns its object format. Raises InputError when it is no git directory of the usual kind.
        """
        if not _is_directory(self.git_dir):
            raise self.unusable("its '.git' is not a directory")
        for name in ("objects", "refs", "objects/info", "objects/pack", "modules"):
            path = self.git_dir / name
            if not _is_directory(path) and (os.path.lexists(path) or name in ("objects", "refs")):
                raise self.unusable(f"'{name}' in it is not a directory")
        for name in ("HEAD", "packed-refs", "shallow", "config", "index"):
            path = self.git_dir / name
            if (os.path.lexists(path) or name == "HEAD") and not _is_file(path):
                raise self.unusable(f"'{name}' in it is not a file")
        alternates = self.git_dir / "objects" / "info" / "alternates"
        if os.path.lexists(alternates):
            raise self.unusable("it borrows objects from another repository (alternates)")
        object_format = self._examine_config()
        for entry in list(self.git_dir.iterdir()):
            if entry.name not in _KEPT and not remove_tree(entry):
                raise HostError(f"'{entry}' cannot be removed.")
        for entry in list((self.git_dir / "objects").glob("info/*")):
            remove_tree(entry)
        # Locks and half-written packs of a git that was killed: the workspace is ours alone.
        for path in (self.git_dir / "refs").rglob("*.lock"):
            remove_tree(path)
        for path in (self.git_dir / "objects" / "pack").glob("tmp_*"):
            path.unlink()
        self.write_config(object_format)
        self.drop_refs("refs/replace")
        return object_format

    def drop_refs(self, below: str) -> None:
        """Delete all refs below a prefix. Raises InputError when the refs cannot be read."""
        done = self.git("for-each-ref", "--format=delete %(refname)", below, check=False)
        if done.status != 0:
            raise self.unusable(last_words(done))
        if done.stdout:
            self.git("update-ref", "--stdin", input=done.stdout)

    def _examine_config(self) -> str:
        path = self.git_dir / "config"
        if not _is_file(path):
            return "sha1"
        done = run_git(["config", "--file", path, "--no-includes", "--null", "--list"], check=False, limit=2**20)
        found = [item.partition("\n") for item in done.stdout.decode(errors="replace").split("\0") if item]
        if strange := sorted({key for key, _, _ in found if not _EXPECTED.fullmatch(key)}):
            progress.warn(f"The clone {self.label} had settings that gitian does not use; they were removed: "
                          f"{', '.join(strange[:10])}{' ...' if len(strange) > 10 else ''}")
        formats = [value for key, _, value in found if key == "extensions.objectformat"]
        return "sha256" if formats[-1:] == ["sha256"] else "sha1"

    def resolve(self, revision: str) -> str | None:
        """The full hash of the commit that a revision leads to, through tags; None when there is none here."""
        done = self.git("rev-parse", "--verify", "--quiet", "--end-of-options", revision + "^{commit}", check=False)
        return done.stdout.decode().strip() or None if done.status == 0 else None

    def head(self) -> str | None:
        """The commit checked out by a run that came to its end, or None."""
        return None if os.path.lexists(self.git_dir / _MARK) else self.resolve("HEAD")

    def changes(self) -> list[str]:
        """Files of the user's in the work tree that are not committed; those that are ignored do not count."""
        if os.path.lexists(self.git_dir / _MARK) or not _is_file(self.git_dir / "index"):
            return []
        done = self.git("status", "--porcelain", "--null", "--ignore-submodules=all", "--no-renames", check=False,
                        limit=_LISTING)
        names = [item[3:] for item in done.stdout.decode("utf-8", "surrogateescape").split("\0") if item]
        # A directory with a repository in it is a submodule of a commit that was checked out before.
        return [name for name in names if not os.path.lexists(self.work_tree / name / ".git")]

    def check_out(self, commit: str) -> None:
        """Replace everything in the work tree by the files of a commit. A mark tells if this was not finished."""
        (self.git_dir / _MARK).touch()
        (self.git_dir / "index").unlink(missing_ok=True)
        for entry in list(self.work_tree.iterdir()):
            if entry.name != ".git" and not remove_tree(entry):
                raise HostError(f"'{entry}' cannot be removed.")
        done = self.git("checkout", "-q", "-f", "--detach", commit, check=False)
        if done.status != 0:
            raise InputError(f"The commit {commit} of {self.label} cannot be checked out: {last_words(done)}",
                             hint=f"Remove '{self.work_tree}', and it is cloned afresh.")

    def finished(self) -> None:
        """What was checked out, with its submodules, is complete."""
        (self.git_dir / "FETCH_HEAD").unlink(missing_ok=True)
        (self.git_dir / _MARK).unlink(missing_ok=True)

    def author_date(self, commit: str) -> str:
        """'YYYY-MM-DD HH:MM:SS' in UTC."""
        done = self.git("log", "-1", "--date=format-local:%Y-%m-%d %H:%M:%S", "--format=%ad", commit)
        return done.stdout.decode().strip()

    def verify(self, commit: str) -> None:
        """Hash the commit, its trees and its files: git itself believes what it finds in its store.

        What was fetched just now was hashed by git on its way in; this is for a clone that was there before. Raises
        InputError.
        """
        listed = self.git("rev-list", "--objects", "--no-object-names", "--no-walk", commit, check=False,
                          limit=_LISTING)
        if listed.status != 0:
            raise self.unusable(last_words(listed))
        words = ["git", *_OPTIONS, f"--git-dir={self.git_dir}", "cat-file", "--batch", "--buffer"]
        with process.start(words, stdin=process.PIPE, stdout=process.PIPE, stderr=process.DEVNULL,
                           env=environment("none"), cwd=Path("/"), tied=True) as batch:
            assert batch.stdin is not None and batch.stdout is not None
            feeder = threading.Thread(target=_feed, args=(batch, listed.stdout), daemon=True)
            feeder.start()
            for name in listed.stdout.split():
                header = batch.stdout.readline(200).split()
                if len(header) != 3 or header[0] != name:
                    raise self.unusable(f"the object {name.decode()} is missing")
                digest = hashlib.new("sha1" if len(name) == 40 else "sha256", usedforsecurity=False)
                digest.update(b"%b %b\0" % (header[1], header[2]))
                left = int(header[2])
                while left and (piece := batch.stdout.read(min(left, 2**20))):
                    digest.update(piece)
                    left -= len(piece)
                batch.stdout.read(1)
                if left or digest.hexdigest().encode() != name:
                    raise self.unusable(f"the object {name.decode()} is not what its name says")

    def unusable(self, why: str) -> InputError:
        """The error for a clone that cannot be worked with."""
        return InputError(f"The clone {self.label} cannot be used: {why}.",
                          hint=f"Move '{self.work_tree}' away or remove it, and it is cloned afresh.")


def _feed(batch: process.Popen[bytes], names: bytes) -> None:
    assert batch.stdin is not None
    with contextlib.suppress(OSError, ValueError):
        batch.stdin.write(names)
        batch.stdin.close()


def _quoted(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


def _is_directory(path: Path) -> bool:
    try:
        return stat.S_ISDIR(path.lstat().st_mode)
    except OSError:
        return False


def _is_file(path: Path) -> bool:
    try:
        return stat.S_ISREG(path.lstat().st_mode)
    except OSError:
        return False
