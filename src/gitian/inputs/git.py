"""Remotes: fetched, checked out at one commit, with their submodules; nothing of theirs is run."""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import stat
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from gitian.errors import FetchError, GitianError, InputError
from gitian.host import progress
from gitian.host.workspace import remove_tree
from gitian.inputs.repository import Repository, last_words, run_git
from gitian.inputs.submodules import Submodule, submodules_of
from gitian.inputs.urls import Location, locate

_FULL = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")
_ABSENT = ("not our ref", "couldn't find remote ref", "unadvertised object", "did not send all necessary objects",
           "Cannot obtain needed object")
_DEEPEST = 16
_PARTIAL = ".partial-"


@dataclass(frozen=True, slots=True, kw_only=True)
class Fetching:
    """What to fetch besides the commit: nothing at all, or all branches, or all tags."""

    skip: bool = False
    branches: bool = False
    tags: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class InputRemote:
    """A remote, checked out: its dir, where it lies, the commit, and that commit's author date in UTC."""

    dir: str
    path: Path
    commit: str
    author_date: str


def check_out(url: str, name: str, commit: str, *, inputs: Path, fetching: Fetching) -> InputRemote:
    """Have the remote ``name`` in inputs/<name>, at ``commit`` (a full hash, a tag, or a branch), detached.

    An existing clone is brought up to date; nothing in it is believed but objects whose hashes are right. A new one
    appears under its name when it is complete. The caller has locked the workspace.

    Raises InputError: no such commit, changes of the user's in the clone, a URL or submodule that is refused.
    Raises FetchError: the remote does not answer.
    """
    place = inputs / name
    location = locate(url, inputs.resolve() / name)
    repository = Repository(git_dir=place / ".git", work_tree=place, location=location, label=f"'inputs/{name}'")
    if _exists(place, repository):
        object_format = repository.tame()
        if changed := repository.changes():
            raise InputError(f"{repository.label} holds changes that are not committed: "
                             + ", ".join(f"'{path}'" for path in changed[:5]) + (" ..." if changed[5:] else "") + ".",
                             hint="They would not be built, and checking out would lose them. Move them elsewhere.")
        found = _obtain(repository, commit, fetching, object_format)
        repository.verify(found)
        _fill(repository, found, object_format, fetching)
    elif fetching.skip:
        raise InputError(f"There is no clone {repository.label}, and nothing is fetched with --skip-fetch.",
                         hint="Leave out --skip-fetch.")
    else:
        with _new(repository) as partial:
            object_format = _object_format(location, commit)
            partial.init(object_format)
            found = _obtain(partial, commit, fetching, object_format)
            _fill(partial, found, object_format, fetching)
    return InputRemote(dir=name, path=place, commit=found, author_date=repository.author_date(found))


def sweep(inputs: Path) -> None:
    """Remove the halves of clones that killed runs left."""
    for entry in inputs.glob(_PARTIAL + "*"):
        remove_tree(entry)


def _exists(place: Path, repository: Repository) -> bool:
    try:
        kind = place.lstat().st_mode
    except FileNotFoundError:
        return False
    if stat.S_ISLNK(kind):
        raise InputError(f"{repository.label} is a link: a clone there would be changed behind its owner's back.",
                         hint=f"Remove the link, and use '--url {place.name}=PATH' to fetch from a clone of yours.")
    if not stat.S_ISDIR(kind):
        raise InputError(f"{repository.label} is not a directory.", hint="Move it away.")
    if os.path.lexists(repository.git_dir):
        return True
    with contextlib.suppress(OSError):
        place.rmdir()  # if it is empty
        return False
    raise InputError(f"{repository.label} is there and is no git clone.", hint="Move it away, and it is cloned.")


@contextlib.contextmanager
def _new(repository: Repository) -> Iterator[Repository]:
    """A clone under another name, which gets its own when the block ends well."""
    place = repository.work_tree
    hidden = place.with_name(f"{_PARTIAL}{place.name[:200]}-{secrets.token_hex(4)}")
    try:
        yield replace(repository, git_dir=hidden / ".git", work_tree=hidden)
        hidden.rename(place)
    finally:
        remove_tree(hidden)


def _object_format(location: Location, commit: str) -> str:
    if _FULL.fullmatch(commit):
        return "sha256" if len(commit) == 64 else "sha1"
    return "sha256" if any(len(value) == 64 for value in _references(location, commit).values()) else "sha1"


def _references(location: Location, name: str) -> dict[str, str]:
    """The remote's refs that a name may mean, and where they point."""
    wanted = ["HEAD"] if name == "HEAD" else [f"refs/tags/{name}", f"refs/heads/{name}"]
    done = run_git(["ls-remote", location.url, *wanted], protocols=location.protocols, check=False)
    if done.status != 0:
        raise _failed(location, last_words(done))
    # Patterns match ends of names; only the very names count.
    lines = [line.partition("\t") for line in done.stdout.decode(errors="replace").splitlines()]
    return {ref: value for value, _, ref in lines if ref in wanted and _FULL.fullmatch(value)}


def _failed(location: Location, said: str) -> FetchError:
    return FetchError(f"Nothing can be fetched from '{location.shown}': {said}",
                      hint="Check the URL and the network and try again; with --skip-fetch, a commit that is in "
                           "inputs/ already is built without asking the remote.")


def _obtain(repository: Repository, wanted: str, fetching: Fetching, object_format: str) -> str:
    """Have a commit, given by hash, tag or branch, in the repository; its full hash."""
    exact = _FULL.fullmatch(wanted) is not None
    if exact and len(wanted) != (64 if object_format == "sha256" else 40):
        raise InputError(f"The commit {wanted} is not of the kind that {repository.label} has ({object_format}).")
    if fetching.skip:
        found = _local(repository, wanted, exact)
        if found is None:
            raise InputError(f"'{wanted}' is not in {repository.label}, and nothing is fetched with --skip-fetch.",
                             hint="Leave out --skip-fetch.")
        return found
    with progress.step(f"Fetching {repository.label}"):
        for wish, refs in ((fetching.branches, "refs/heads/*"), (fetching.tags, "refs/tags/*")):
            if wish:
                _fetch(repository, f"+{refs}:{refs}")
        if exact:
            return _obtain_exact(repository, wanted)
        references = _references(repository.location, wanted)
        tag = f"refs/tags/{wanted}"
        if tag in references:
            _fetch(repository, f"+{tag}:{tag}")
            found = repository.resolve(tag)
        elif references:
            _fetch(repository, next(iter(references)))
            found = repository.resolve("FETCH_HEAD")
        else:
            raise InputError(f"'{repository.location.shown}' has no tag or branch '{wanted}'.",
                             hint="Give a tag, a branch, or a full commit hash.")
    if found is None:
        raise InputError(f"'{wanted}' of '{repository.location.shown}' does not lead to a commit.")
    return found


def _local(repository: Repository, wanted: str, exact: bool) -> str | None:
    names = [wanted] if exact or wanted == "HEAD" else [
        f"refs/tags/{wanted}", f"refs/heads/{wanted}", f"refs/remotes/origin/{wanted}"]
    return next((found for name in names if (found := repository.resolve(name))), None)


def _obtain_exact(repository: Repository, wanted: str) -> str:
    # What an earlier run checked out to the end is here with all that belongs to it, and a hash does not change.
    if repository.head() == wanted:
        return wanted
    # Some servers give only what a ref points to: then all branches and tags are fetched, and it must be among them.
    with contextlib.suppress(InputError):
        _fetch(repository, wanted)
        if (found := repository.resolve(wanted)) is not None:
            return found
    try:
        _fetch(repository, "+refs/heads/*:refs/gitian/heads/*", "+refs/tags/*:refs/gitian/tags/*")
        if (found := repository.resolve(wanted)) is not None:
            return found
    finally:
        repository.drop_refs("refs/gitian")
    raise InputError(f"'{repository.location.shown}' has no commit {wanted}.",
                     hint="Is it a hash of this repository, and was it pushed?")


def _fetch(repository: Repository, *refs: str) -> None:
    done = repository.git("fetch", "-q", "-f", "--no-tags", "--update-head-ok", "--no-recurse-submodules",
                          repository.location.url, *refs, check=False, fetching=True)
    if done.status == 0:
        return
    said = last_words(done)
    if any(words in said for words in _ABSENT):
        raise InputError(f"'{repository.location.shown}' does not have {' and '.join(refs)}: {said}")
    raise _failed(repository.location, said)


def _fill(repository: Repository, commit: str, object_format: str, fetching: Fetching, depth: int = 0) -> None:
    """Check a commit out, and its submodules in it."""
    repository.check_out(commit)
    submodules = submodules_of(repository, commit)
    if submodules and depth >= _DEEPEST:
        raise InputError(f"The submodules of {repository.label} go deeper than {_DEEPEST} levels.")
    repository.write_config(object_format, [(one.name, one.location.url) for one in submodules])
    for submodule in submodules:
        _fill_submodule(repository, submodule, fetching, depth + 1)
    repository.finished()


def _fill_submodule(parent: Repository, submodule: Submodule, fetching: Fetching, depth: int) -> None:
    place = parent.work_tree / submodule.path
    inner = Repository(git_dir=parent.git_dir / "modules" / submodule.name, work_tree=place,
                       location=submodule.location, label=f"{parent.label[:-1]}/{submodule.path}'")
    _check_way(parent.git_dir, "modules/" + submodule.name, inner)
    _check_way(parent.work_tree, submodule.path, inner)
    place.mkdir(exist_ok=True)
    (place / ".git").write_text(f"gitdir: {os.path.relpath(inner.git_dir, place)}\n", encoding="utf-8",
                                errors="surrogateescape")
    exact = Fetching(skip=fetching.skip)
    if os.path.lexists(inner.git_dir):
        try:
            object_format = inner.tame()
            found = _obtain(inner, submodule.commit, exact, object_format)
            inner.verify(found)
            _fill(inner, found, object_format, fetching, depth)
            return
        except InputError:
            if fetching.skip:
                raise
        # Half made by a run that was killed, or spoilt: it holds nothing that cannot be fetched again.
        remove_tree(inner.git_dir)
    if fetching.skip:
        raise InputError(f"There is no clone of the submodule {inner.label}, and nothing is fetched with --skip-fetch.",
                         hint="Leave out --skip-fetch.")
    object_format = "sha256" if len(submodule.commit) == 64 else "sha1"
    inner.init(object_format)
    try:
        found = _obtain(inner, submodule.commit, exact, object_format)
    except GitianError as error:
        raise type(error)(f"The submodule {inner.label}: {error}", hint=error.hint) from error
    _fill(inner, found, object_format, fetching, depth)


def _check_way(top: Path, path: str, inner: Repository) -> None:
    """Nothing on the way down may be a link."""
    at = top
    for part in Path(path).parts:
        at = at / part
        if at.is_symlink() or (os.path.lexists(at) and not at.is_dir()):
            raise InputError(f"The submodule {inner.label} was refused: '{at}' is in its way.")
