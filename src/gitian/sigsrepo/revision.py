"""A tree of signatures as it is in a revision of a git repository: a branch, a tag, a fetched pull request.

Nothing is checked out. What the revision holds is as little trusted as a directory of strangers: links are followed
only inside the tree, submodules are not entered.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from pathlib import Path

from gitian.errors import NothingToVerifyError
from gitian.inputs.gittree import ObjectError, Repository, TreeEntry
from gitian.sigs.tree import ENTRIES_LIMIT, Entry, Kind, Missing, Refused, TooLarge, TreeError

_DIRECTORY, _LINK, _FILE, _TYPE = 0o040000, 0o120000, 0o100000, 0o170000
_MOST_LINKS = 40
_LONGEST_LINK = 4096


class RevisionTree:
    """The part of a revision that lies below one folder. Made by :func:`opened`."""

    def __init__(self, repository: Repository, top: TreeEntry, label: str, whole: RevisionTree | None = None) -> None:
        self._repository = repository
        self._top = top
        self._label = label
        self._whole = whole
        self._folders: dict[str, dict[str, TreeEntry]] = {}
        self._lock = threading.RLock()  # one process of git's answers everything

    @property
    def label(self) -> str:
        return self._label

    @property
    def identity(self) -> str | None:
        """Stamps are the ids of contents, which mean the same in every revision of a repository."""
        return f"git:{self._repository.git_dir}"

    @property
    def top(self) -> RevisionTree:
        """All of the revision: the repository's keys need not lie below the folder of releases."""
        return self._whole or self

    def list(self, path: str) -> tuple[Entry, ...]:
        with self._lock:
            entry = self._find(path)
            if entry.mode & _TYPE != _DIRECTORY:
                raise Refused("is not a directory")
            names = self._folder(entry)
            if len(names) > ENTRIES_LIMIT:
                raise TooLarge(f"has more than {ENTRIES_LIMIT} entries")
            found = [Entry(name=name, kind=self._kind(path, each), link=each.mode & _TYPE == _LINK)
                     for name, each in names.items()]
        return tuple(sorted(found, key=lambda each: each.name.encode(errors="surrogateescape")))

    def read(self, path: str, limit: int) -> bytes:
        with self._lock:
            entry = self._file(path)
            try:
                return self._repository.blob(entry.id, limit)
            except ObjectError as error:
                raise (TooLarge if "at most" in str(error) else Refused)(str(error)) from None

    def stamp(self, path: str) -> str | None:
        try:
            with self._lock:
                # The two numbers stand where a directory has its times: an object never changes.
                return f"{self._file(path).id}:0:0"
        except TreeError:
            return None

    def _file(self, path: str) -> TreeEntry:
        try:
            entry = self._find(path)
        except Missing:
            folder, _, name = path.rpartition("/")
            above = self._find(folder)
            if above.mode & _TYPE == _DIRECTORY and name in self._folder(above):
                raise Refused("is a link that leads nowhere") from None
            raise
        if entry.mode & _TYPE != _FILE:
            raise Refused("is not a regular file")
        return entry

    def _kind(self, folder: str, entry: TreeEntry) -> Kind:
        kind = entry.mode & _TYPE
        if kind == _LINK:
            try:
                kind = self._find(f"{folder}/{entry.name}" if folder else entry.name).mode & _TYPE
            except TreeError:
                return Kind.OTHER
        return Kind.FILE if kind == _FILE else Kind.DIRECTORY if kind == _DIRECTORY else Kind.OTHER

    def _folder(self, entry: TreeEntry) -> dict[str, TreeEntry]:
        known = self._folders.get(entry.id)
        if known is None:
            try:
                # Git itself makes no such names; who wrote the object by hand may have.
                known = {each.name: each for each in self._repository.entries(entry.id)
                         if each.name not in ("", ".", "..") and "/" not in each.name}
            except ObjectError as error:
                raise Refused(str(error)) from None
            self._folders[entry.id] = known
        return known

    def _find(self, path: str) -> TreeEntry:
        """What is at a path, links followed as long as they stay in the tree. Raises TreeError."""
        if "\0" in path or path.startswith("/") or ".." in path.split("/"):
            raise Refused("leads out of the tree")
        ahead = [part for part in reversed(path.split("/")) if part not in ("", ".")]
        way = [self._top]
        links = 0
        while ahead:
            part = ahead.pop()
            if part == "..":
                if len(way) == 1:
                    raise Refused("leads out of the tree")
                way.pop()
                continue
            if way[-1].mode & _TYPE != _DIRECTORY:
                raise Missing("does not exist")
            entry = self._folder(way[-1]).get(part)
            if entry is None:
                raise Missing("does not exist")
            if entry.mode & _TYPE == _LINK:
                links += 1
                if links > _MOST_LINKS:
                    raise Refused("is a link that leads nowhere")
                ahead += self._link(entry)
            else:
                way.append(entry)
        return way[-1]

    def _link(self, entry: TreeEntry) -> tuple[str, ...]:
        try:
            target = self._repository.blob(entry.id, _LONGEST_LINK).decode(errors="surrogateescape")
        except ObjectError as error:
            raise Refused(str(error)) from None
        if target.startswith("/"):
            raise Refused("leads out of the tree")
        return tuple(part for part in reversed(target.split("/")) if part not in ("", "."))


@contextlib.contextmanager
def opened(place: Path, revision: str) -> Iterator[RevisionTree]:
    """The folder ``place`` of a work tree (or a bare repository) as it is in ``revision``; it need not exist otherwise.

    Raises UsageError: no repository, no such revision. Raises NothingToVerifyError: the folder is not in the revision.
    """
    with Repository.opened(place) as repository:
        commit = repository.commit_id(revision)
        top = TreeEntry(name="", mode=_DIRECTORY, id=repository.tree_id(commit))
        whole = RevisionTree(repository, top, f"{repository.work_tree or place} at {revision}")
        try:
            # The way to the folder is the user's, so a link there may not lead out of the repository either.
            entry = whole._find(repository.prefix)
        except TreeError as error:
            raise NothingToVerifyError(f"The folder '{repository.prefix}' of the revision '{revision}' {error}.",
                                       hint="Is it the right revision, and the right --destination?") from error
        if entry.mode & _TYPE != _DIRECTORY:
            raise NothingToVerifyError(f"'{repository.prefix}' is no folder in the revision '{revision}'.")
        label = f"{place} at {revision} ({commit[:12]})"
        yield RevisionTree(repository, entry, label, whole if repository.prefix else None)
