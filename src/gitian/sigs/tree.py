"""What a tree of signatures is to a verifier: folders and files by relative path, wherever they lie.

A directory is one such tree (:class:`DirectoryTree`); a revision of a git repository can be another. Nothing in a tree
is trusted: names may be any bytes, entries may be links, pipes or devices, files may be of any size.
"""

from __future__ import annotations

import contextlib
import enum
import os
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

#: More entries than this in one folder of a tree are not listed.
ENTRIES_LIMIT = 100_000
#: So many levels above a folder are looked at for the repository that it belongs to.
LEVELS_LIMIT = 16


class Kind(enum.Enum):
    """What an entry is, after following a link that stays in the tree."""

    FILE = "file"
    DIRECTORY = "directory"
    OTHER = "other"  # a pipe, a device, a socket, a link that leads nowhere or out


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One name in a folder. ``name`` is the file system's, undecodable bytes as surrogates (os.fsdecode).

    ``link``: it is a link to what ``kind`` says.
    """

    name: str
    kind: Kind
    link: bool = False


class TreeError(Exception):
    """A path of a tree that cannot be read; the message says why, as the end of a sentence. A value, not a failure."""


class Missing(TreeError):
    """There is nothing at this path."""


class TooLarge(TreeError):
    """The file is larger than the limit given."""


class Refused(TreeError):
    """The path leads out of the tree, or is no regular file."""


class SigsTree(Protocol):
    """Reads files by relative path: names joined by '/', '' is the tree itself."""

    @property
    def label(self) -> str:
        """How to call this tree when speaking to people: a path, a revision."""

    @property
    def identity(self) -> str | None:
        """What tells this tree from others when stamps are compared later; None when its files have no stamps."""

    @property
    def top(self) -> SigsTree:
        """The whole repository that this tree is a folder of; the tree itself where there is none."""

    def list(self, path: str) -> tuple[Entry, ...]:
        """The entries of a folder, sorted by their bytes. Raises TreeError."""

    def read(self, path: str, limit: int) -> bytes:
        """A regular file's content, of at most ``limit`` bytes. Raises TreeError."""

    def stamp(self, path: str) -> str | None:
        """Something that changes whenever the file's content does, got without reading it; None when there is none."""


def join(*parts: str) -> str:
    """Join relative paths, leaving out empty ones."""
    return "/".join(part for part in parts if part)


class DirectoryTree:
    """A tree that is a directory. A link is followed as long as it stays inside."""

    def __init__(self, root: Path) -> None:
        self._given = root
        self._root = os.path.realpath(root)
        self._inside = self._root.rstrip("/") + "/"

    @property
    def label(self) -> str:
        return str(self._given)

    @property
    def identity(self) -> str | None:
        return self._root

    @property
    def top(self) -> SigsTree:
        """The nearest directory upwards that has a '.git', be it a clone's, a worktree's or a submodule's."""
        path = Path(self._root)
        for above in (path, *path.parents[:LEVELS_LIMIT]):
            if os.path.lexists(above / ".git"):
                return self if above == path else DirectoryTree(above)
        return self

    @property
    def root(self) -> Path:
        """The directory, all links resolved."""
        return Path(self._root)

    def list(self, path: str) -> tuple[Entry, ...]:
        full = self._contained(path)
        entries: list[Entry] = []
        try:
            with os.scandir(full) as found:
                for entry in found:
                    if len(entries) >= ENTRIES_LIMIT:
                        raise TooLarge(f"has more than {ENTRIES_LIMIT} entries")
                    entries.append(Entry(name=entry.name, kind=self._kind(entry), link=entry.is_symlink()))
        except FileNotFoundError:
            raise Missing("does not exist") from None
        except NotADirectoryError:
            raise Refused("is not a directory") from None
        except OSError as error:
            raise Refused(f"cannot be read: {error.strerror}") from error
        return tuple(sorted(entries, key=lambda entry: os.fsencode(entry.name)))

    def read(self, path: str, limit: int) -> bytes:
        full = self._resolved(path)
        try:
            # Without O_NONBLOCK the opening of a pipe would wait for a writer for ever.
            number = os.open(full, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
        except (FileNotFoundError, NotADirectoryError):
            raise Missing("does not exist") from None
        except OSError as error:
            raise Refused(f"cannot be read: {error.strerror}") from error
        try:
            status = os.fstat(number)
            # What was opened counts, not what lay there a moment ago: the kernel says where the open file is.
            if not str(Path(f"/proc/self/fd/{number}").readlink()).startswith(self._inside):
                raise Refused("leads out of the tree")
            if not stat.S_ISREG(status.st_mode):
                raise Refused("is not a regular file")
            if status.st_size > limit:
                raise TooLarge(f"is {status.st_size} bytes long; at most {limit} are read")
            pieces = []
            left = limit + 1
            while left > 0 and (piece := os.read(number, min(left, 1 << 20))):
                pieces.append(piece)
                left -= len(piece)
            if left <= 0:
                raise TooLarge(f"is longer than {limit} bytes")
            return b"".join(pieces)
        except OSError as error:
            raise Refused(f"cannot be read: {error.strerror}") from error
        finally:
            os.close(number)

    def stamp(self, path: str) -> str | None:
        """Device, inode, size and both times in ns, as git's index does it; None for anything but a regular file."""
        with contextlib.suppress(OSError, TreeError, ValueError):
            status = os.lstat(self._inside + path)
            if stat.S_ISREG(status.st_mode):
                return f"{status.st_dev}:{status.st_ino}:{status.st_size}:{status.st_mtime_ns}:{status.st_ctime_ns}"
        return None

    def _kind(self, entry: os.DirEntry[str]) -> Kind:
        try:
            if entry.is_symlink():
                real = os.path.realpath(entry.path)
                if not (real + "/").startswith(self._inside):
                    return Kind.OTHER
                mode = Path(real).stat().st_mode
                return Kind.DIRECTORY if stat.S_ISDIR(mode) else Kind.FILE if stat.S_ISREG(mode) else Kind.OTHER
            if entry.is_dir(follow_symlinks=False):
                return Kind.DIRECTORY
            return Kind.FILE if entry.is_file(follow_symlinks=False) else Kind.OTHER
        except OSError:
            return Kind.OTHER

    def _plain(self, path: str) -> str:
        if "\0" in path or path.startswith("/") or ".." in path.split("/"):
            raise Refused("leads out of the tree")
        return self._inside + path

    def _contained(self, path: str) -> str:
        full = os.path.realpath(self._plain(path))
        if not (full + "/").startswith(self._inside):
            raise Refused("leads out of the tree")
        return full

    def _resolved(self, path: str) -> str:
        """The path to open. A last component that is no regular file is looked at before anything is opened."""
        full = self._plain(path)
        try:
            mode = os.lstat(full).st_mode
        except (FileNotFoundError, NotADirectoryError):
            raise Missing("does not exist") from None
        except OSError as error:
            raise Refused(f"cannot be read: {error.strerror}") from error
        if stat.S_ISLNK(mode):
            full = self._contained(path)
            try:
                mode = Path(full).stat().st_mode
            except OSError:
                raise Refused("is a link that leads nowhere") from None
        if not stat.S_ISREG(mode):
            raise Refused("is not a regular file")
        return full
