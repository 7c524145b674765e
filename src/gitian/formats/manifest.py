"""Manifests: lines '<sha256>  <path>', and in an input manifest 'git:<commit> <dir>' for each remote.

A remote's line has no newline after it (the classic's habit, kept), so two of them run together on one line
('git:<sha> signaturegit:<sha> signapple'). They are read back as two. Manifests come from strangers: whatever is no
line of a manifest is kept apart in ``strange`` and never raises.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

_FILE = re.compile(r"([0-9a-f]{64})  (.+)")
_REMOTE = re.compile(r"git:([0-9a-f]{40}|[0-9a-f]{64}) ((?:(?!git:[0-9a-f]{40}).)+)")


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """A file and its hash (64 hexadecimal digits)."""

    sha256: str
    path: str


@dataclass(frozen=True, slots=True, kw_only=True)
class GitEntry:
    """A remote: the commit it was built at, and its directory under inputs/."""

    commit: str
    dir: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """What a manifest says, in its order; ``strange`` holds the lines that are neither a file nor a remote."""

    entries: tuple[Entry, ...] = ()
    remotes: tuple[GitEntry, ...] = ()
    strange: tuple[str, ...] = ()

    @classmethod
    def of(cls, files: Iterable[tuple[str, str]], remotes: Iterable[tuple[str, str]] = ()) -> Manifest:
        """From ``(sha256, path)`` and ``(commit, dir)`` pairs, in the order given."""
        return cls(entries=tuple(Entry(sha256=sha256, path=path) for sha256, path in files),
                   remotes=tuple(GitEntry(commit=commit, dir=name) for commit, name in remotes))

    @classmethod
    def sorted(cls, files: Iterable[tuple[str, str]]) -> Manifest:
        """From ``(sha256, path)`` pairs, sorted by path as the bytes of UTF-8 sort."""
        return cls.of(sorted(files, key=lambda pair: pair[1].encode("utf-8", "surrogateescape")))

    @classmethod
    def parse(cls, text: str) -> Manifest:
        """Read the text of a manifest; it never fails."""
        entries, remotes, strange = [], [], []
        for line in text.split("\n"):
            if found := _FILE.fullmatch(line):
                entries.append(Entry(sha256=found[1], path=found[2]))
            elif line.startswith("git:") and "".join(m.group() for m in _REMOTE.finditer(line)) == line:
                remotes += [GitEntry(commit=m[1], dir=m[2]) for m in _REMOTE.finditer(line)]
            elif line.strip():
                strange.append(line)
        return cls(entries=tuple(entries), remotes=tuple(remotes), strange=tuple(strange))

    def text(self) -> str:
        """The manifest as it is written: a newline after each file, none after a remote."""
        files = "".join(f"{entry.sha256}  {entry.path}\n" for entry in self.entries)
        return files + "".join(f"git:{remote.commit} {remote.dir}" for remote in self.remotes)

    def by_path(self) -> dict[str, str]:
        """Path to sha256. Where a path stands twice, the last counts."""
        return {entry.path: entry.sha256 for entry in self.entries}
