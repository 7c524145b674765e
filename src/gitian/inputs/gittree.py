"""A user's own git repository: objects read without checking anything out, and two files committed. By GitPython.

Reading follows objects by their ids alone: no attributes, filters, replacement objects or grafts take part, nothing is
fetched, and nothing of the repository is run. Committing is 'git commit' itself, so that the user's identity,
hooks and signing key are used as ever.
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gitian.errors import InputError, UsageError
from gitian.host import tools

if TYPE_CHECKING:
    import git

#: A folder's object larger than this is refused (bytes).
TREE_LIMIT = 64 * 2**20

#: Reading asks nobody else: no fetching on demand, no replaced objects, no questions.
_ALONE = {"GIT_ALLOW_PROTOCOL": "", "GIT_NO_LAZY_FETCH": "1", "GIT_NO_REPLACE_OBJECTS": "1",
          "GIT_GRAFT_FILE": os.devnull, "GIT_TERMINAL_PROMPT": "0", "GIT_OPTIONAL_LOCKS": "0"}
#: What a hook that runs us, or a careless shell, may have set: they would lead git to another repository than the one
#: that was found (git-rev-parse(1), --local-env-vars), or make it take paths for patterns.
_ELSEWHERE = ("GIT_DIR", "GIT_WORK_TREE", "GIT_IMPLICIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_OBJECT_DIRECTORY",
              "GIT_ALTERNATE_OBJECT_DIRECTORIES", "GIT_COMMON_DIR", "GIT_PREFIX", "GIT_SHALLOW_FILE", "GIT_NAMESPACE",
              "GIT_LITERAL_PATHSPECS", "GIT_GLOB_PATHSPECS", "GIT_NOGLOB_PATHSPECS", "GIT_ICASE_PATHSPECS")
#: What GitPython hands on to Popen for a pipe.
_PIPE = -1
_DIFF = ("diff-tree", "--no-commit-id", "-r", "-z", "--no-renames", "--no-ext-diff")
_UNFINISHED = (("MERGE_HEAD", "a merge"), ("CHERRY_PICK_HEAD", "a cherry-pick"), ("REVERT_HEAD", "a revert"),
               ("rebase-merge", "a rebase"), ("rebase-apply", "a rebase"))


class ObjectError(Exception):
    """An object that cannot be read; the message says why, as the end of a sentence."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TreeEntry:
    """One name in a folder of a revision. ``mode`` as git has it (0o100644, 0o120000, ...)."""

    name: str
    mode: int
    id: str


class Repository:
    """A git repository, found from a path in its work tree or from its git directory. Use :meth:`opened`."""

    def __init__(self, repo: git.Repo, place: Path) -> None:
        self._git = repo.git
        self._git.update_environment(**_ALONE)
        # Committing runs the user's hooks, which shall find the environment that they are used to.
        self._pen = type(repo.git)(repo.working_tree_dir)
        self._pen.update_environment(LC_ALL="C.UTF-8")
        self.git_dir = Path(repo.git_dir).resolve()
        self.work_tree = None if repo.working_tree_dir is None else Path(repo.working_tree_dir).resolve()
        self.place = place
        self._readers: dict[str, Any] = {}

    @staticmethod
    @contextlib.contextmanager
    def opened(place: Path) -> Iterator[Repository]:
        """The repository that a path belongs to; the path itself need not exist. Raises UsageError.

        While it is open, variables that would lead git elsewhere are taken out of our environment.
        """
        tools.find("git")
        # GitPython looks for git when it is imported; it would fail there, and we have better words.
        os.environ.setdefault("GIT_PYTHON_REFRESH", "quiet")
        import git

        real = Path(os.path.realpath(place))
        start = next(path for path in (real, *real.parents) if path.is_dir())
        with _undistracted():
            try:
                repo = git.Repo(start, search_parent_directories=True, odbt=git.GitCmdObjectDB)
            except (git.InvalidGitRepositoryError, git.NoSuchPathError, git.GitCommandError) as error:
                raise UsageError(f"'{place}' is in no git repository.",
                                 hint="Name the folder of signatures in a clone with --destination.") from error
            repository = Repository(repo, real)
            try:
                try:
                    repository._git.execute(["git", "rev-parse", "--git-dir"])
                except git.GitCommandError as error:  # a repository of somebody else's, mostly
                    raise UsageError(f"git does not read '{start}': {_words(error)}") from error
                yield repository
            finally:
                repository._end()
                repo.close()

    @property
    def prefix(self) -> str:
        """Where the place lies in the work tree ('' is its top). Raises UsageError."""
        if self.work_tree is None:
            if self.place == self.git_dir:
                return ""
            raise UsageError(f"'{self.place}' lies inside the git directory '{self.git_dir}'.")
        try:
            relative = self.place.relative_to(self.work_tree)
        except ValueError as error:
            raise UsageError(f"'{self.place}' does not lie in the work tree '{self.work_tree}'.") from error
        return "" if relative == Path() else str(relative)

    # Reading

    def commit_id(self, revision: str) -> str:
        """The commit that a revision means (a branch, tag, hash, 'FETCH_HEAD', ...). Raises UsageError."""
        if not revision or revision.startswith("-") or not revision.isprintable():
            raise UsageError(f"'{revision}' is no revision.")
        done = self._run("rev-parse", "--verify", "--quiet", f"{revision}^{{commit}}")
        if done is None or not re.fullmatch("[0-9a-f]{40,64}", done):
            raise UsageError(f"There is no revision '{revision}' in '{self.work_tree or self.git_dir}'.",
                             hint="A pull request must be fetched first: git fetch origin pull/NUMBER/head, "
                                  "and then --git-rev FETCH_HEAD.")
        return done

    def tree_id(self, commit: str) -> str:
        """The top folder of a commit. Raises UsageError."""
        found = self._run("rev-parse", "--verify", "--quiet", f"{commit}^{{tree}}")
        if not found:
            raise UsageError(f"The commit '{commit}' is not complete here.", hint="Fetch it again, without a filter.")
        return found

    def entries(self, id: str) -> tuple[TreeEntry, ...]:
        """What a folder holds, in git's order. Raises ObjectError."""
        data = self._object(id, b"tree", TREE_LIMIT)
        size = len(id) // 2
        found = []
        position = 0
        while position < len(data):
            space, zero = data.find(b" ", position), data.find(b"\0", position)
            end = zero + 1 + size
            if not position < space < zero or end > len(data) or space - position > 7:
                raise ObjectError("is damaged")
            try:
                mode = int(data[position:space], 8)
            except ValueError:
                raise ObjectError("is damaged") from None
            found.append(TreeEntry(name=os.fsdecode(data[space + 1:zero]), mode=mode, id=data[zero + 1:end].hex()))
            position = end
        return tuple(found)

    def blob(self, id: str, limit: int) -> bytes:
        """A file's content. Raises ObjectError when it has more than ``limit`` bytes, or is not here."""
        return self._object(id, b"blob", limit)

    def _object(self, id: str, kind: bytes, limit: int) -> bytes:
        # Not GitPython's own reading of these two programs: it knows ids of 40 digits only.
        about = self._ask("--batch-check", id)
        if about[1] != kind:
            raise ObjectError(f"is not a {kind.decode()} in the repository")
        size = int(about[2])
        if size > limit:
            raise ObjectError(f"is {size} bytes long; at most {limit} are read")
        self._ask("--batch", id)
        data = self._readers["--batch"].stdout.read(size + 1)
        if len(data) != size + 1:
            raise ObjectError("cannot be read from the repository")
        assert isinstance(data, bytes)
        return data[:-1]

    def _ask(self, how: str, id: str) -> list[bytes]:
        """Id, kind and size of an object, as 'git cat-file' answers. Raises ObjectError."""
        try:
            if how not in self._readers:
                self._readers[how] = self._git.cat_file(how, istream=_PIPE, as_process=True)
            reader = self._readers[how]
            reader.stdin.write(id.encode() + b"\n")
            reader.stdin.flush()
            words = reader.stdout.readline().split()
        except OSError as error:
            raise ObjectError("cannot be read from the repository") from error
        if len(words) != 3:
            raise ObjectError("is not in the repository; it may have to be fetched")
        return list(words)

    def _end(self) -> None:
        for reader in self._readers.values():
            reader.proc.terminate()
            reader.proc.communicate()

    # Committing

    def staged(self) -> tuple[str, ...]:
        """What is staged: paths from the top of the work tree."""
        found = self._run("diff", "--cached", "--name-only", "--no-ext-diff", "--no-renames", "-z") or ""
        return tuple(name for name in found.split("\0") if name)

    def unfinished(self) -> str | None:
        """What the user is in the middle of ('a merge'), if anything."""
        for name, what in _UNFINISHED:
            if (self.git_dir / name).exists():
                return what
        return None

    def stage(self, paths: Sequence[str]) -> dict[str, str]:
        """Stage files, ignored ones not; the ids that their contents got. Raises InputError with git's own words."""
        import git

        try:
            self._pen.execute(["git", "add", "--", *_literal(paths)])
            listed = self._git.execute(["git", "ls-files", "--stage", "-z", "--", *_literal(paths)])
        except git.GitCommandError as error:
            raise InputError(f"git did not take the files: {_words(error)}") from error
        found = {}
        for line in str(listed).split("\0"):
            about, _, name = line.partition("\t")
            if name:
                found[name] = about.split(" ")[1]
        return found

    def id_of(self, path: str) -> str:
        """The id of a file's own bytes, with no filter of git's between."""
        return str(self._git.execute(["git", "hash-object", "--no-filters", "--", path]))

    def unstage(self, paths: Sequence[str]) -> None:
        """Take files out of the index again; the files themselves stay. Says nothing when that fails."""
        if self._run("rev-parse", "--verify", "--quiet", "HEAD"):
            self._run("reset", "--quiet", "--", *_literal(paths))
        else:
            self._run("rm", "--cached", "--quiet", "--ignore-unmatch", "--", *_literal(paths))

    def commit(self, paths: Sequence[str], message: str) -> str:
        """Commit the named files, which are staged, and nothing else; the new commit's id.

        Raises InputError with git's own words: no identity, a hook that refuses, a signing key that is not there.
        """
        import git

        try:
            self._pen.execute(["git", "commit", "--quiet", "--only", "--message", message, "--",
                               *_literal(paths)])
        except git.GitCommandError as error:
            raise InputError(f"git did not commit: {_words(error)}") from error
        return self.head() or ""

    def head(self) -> str | None:
        """The commit that is checked out; None before the first one."""
        return self._run("rev-parse", "--verify", "--quiet", "HEAD")

    def detached(self) -> bool:
        """Whether a commit made now would belong to no branch."""
        return self._run("symbolic-ref", "--quiet", "HEAD") is None

    def changed(self, before: str | None) -> dict[str, str]:
        """What HEAD has otherwise than the commit ``before``: path to the id of its content (zeros: it is gone)."""
        words = [*_DIFF, before, "HEAD"] if before else [*_DIFF, "--root", "HEAD"]
        fields = (self._run(*words) or "").split("\0")
        # ':oldmode newmode oldid newid status', path, ...
        return {path: about.split(" ")[3] for about, path in zip(fields[::2], fields[1::2], strict=False)}

    def take_back(self, before: str | None) -> None:
        """Let the branch be at ``before`` again; index and files stay as they are."""
        if before:
            self._run("reset", "--quiet", "--soft", before)
        else:
            self._run("update-ref", "-d", "HEAD")

    def _run(self, *words: str) -> str | None:
        import git

        try:
            return str(self._git.execute(["git", *words]))
        except git.GitCommandError:
            return None


@contextlib.contextmanager
def _undistracted() -> Iterator[None]:
    """GitPython can add to the environment of git, and not take away from it."""
    taken = {name: os.environ.pop(name) for name in _ELSEWHERE if name in os.environ}
    try:
        yield
    finally:
        os.environ.update(taken)


def _literal(paths: Sequence[str]) -> list[str]:
    """Paths as they are, from the top: a signer called '*' or ':x' is no pattern."""
    return [f":(top,literal){path}" for path in paths]


def _words(error: Any) -> str:
    """What git said, without GitPython's frame around it."""
    lines = [line.strip() for line in str(error.stderr).strip().removeprefix("stderr:").strip().strip("'").splitlines()
             if line.strip() and not line.lstrip().startswith("hint:")]
    return " ".join(lines[:6]) or "it said nothing."
