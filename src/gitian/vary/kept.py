"""Where a run's builds lie: below var/vary, apart from what gbuild leaves, and bounded; the next run replaces them."""

from __future__ import annotations

import os
import shutil
import stat
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from gitian.errors import HostError
from gitian.guest.protocol import Backend
from gitian.host import space
from gitian.host.workspace import Workspace, make_directory, remove_tree

#: So much of varied outputs is kept while it is searched, besides the reference (bytes); sets of many variations, which
#: are seldom a cause, go first. Never more than half of what would be free without them.
ROOM = 8 * 2**30


@dataclass(frozen=True, slots=True, kw_only=True)
class Aside(Workspace):
    """A workspace within another: logs, guests and results of its own; inputs, caches and layers are the other's."""

    of: Workspace

    @classmethod
    def within(cls, workspace: Workspace) -> Aside:
        """The place for variations in a workspace."""
        return cls(root=workspace.var / "vary", image_directory=workspace.image_directory, of=workspace)

    @property
    def inputs(self) -> Path:
        """Those of the other."""
        return self.of.inputs

    @property
    def cache(self) -> Path:
        """Those of the other: every build gets the same, and none brings its own back."""
        return self.of.cache

    @property
    def var(self) -> Path:
        """The place itself: it holds nothing but such things."""
        return self.root

    @property
    def layers(self) -> Path:
        """Those of the other."""
        return self.of.layers

    @property
    def guests(self) -> Path:
        """Where guests keep their state while they run."""
        return self.root / "guest"

    @property
    def builds(self) -> Path:
        """One directory for each build: its outputs, by target."""
        return self.root / "builds"

    def renew(self, backend: Backend) -> None:
        """Remove what the last run left, its guests first, should it have been killed. Raises HostError."""
        if self.root.is_symlink():
            self.root.unlink()
        if self.root.is_dir():
            backend.sweep(self.guests)
        if not remove_tree(self.root):
            raise HostError(f"'{self.root}' cannot be removed: something is mounted there.", hint="Unmount it.")
        for directory in (self.guests / "var", self.builds, self.var, self.result):
            make_directory(directory)


@dataclass(frozen=True, slots=True, kw_only=True)
class Outputs:
    """What a build left: a SHA-256 for each path.

    Of a build that is not the reference, ``place`` holds only what differs from it, and is gone when there was no room.
    """

    place: Path
    digests: Mapping[str, str]

    def differing(self, reference: Mapping[str, str]) -> dict[str, str]:
        """Path -> digest of what is otherwise than in the reference, lacks or is more; '' where it lacks."""
        return {path: self.digests.get(path, "") for path in sorted({*reference, *self.digests})
                if reference.get(path) != self.digests.get(path)}


def keep(out: Path, place: Path, only: Iterable[str] | None = None) -> None:
    """Move a target's output from scratch to its place, or only some of its paths."""
    make_directory(place.parent)
    if only is None:
        out.rename(place)
        return
    for path in only:
        if os.path.lexists(out / path):
            make_directory((place / path).parent)
            (out / path).rename(place / path)


def trim(builds: Mapping[frozenset[str], Path], room: int = ROOM) -> list[Path]:
    """Remove outputs until the rest takes no more than ``room`` bytes, and leaves the next build as much as it takes;
    those of the largest sets first.

    Returns what is gone.
    """
    sizes = {names: _size(place) for names, place in builds.items()}
    total, gone = sum(sizes.values()), []
    if total:
        room = min(room, (total + space.free(next(iter(builds.values())))) // 2)
    for names in sorted(sizes, key=lambda names: (-len(names), -sizes[names])):
        if total <= room:
            break
        if sizes[names]:
            remove_tree(builds[names])
            gone.append(builds[names])
            total -= sizes[names]
    return gone


def _size(top: Path) -> int:
    return sum((Path(above) / name).lstat().st_size for above, _, files in os.walk(top) for name in files)


@contextmanager
def pair(scratch: Path, reference: Outputs, other: Outputs, paths: Iterable[str],
         prefix: str = "") -> Iterator[tuple[Path, Path]]:
    """Two trees that hold some paths of two builds and nothing else, while the block runs: of hard links.

    Of each build there is only what its digests name below ``prefix``: where one has a file, the other may have a
    directory, or a link that leads anywhere. Raises OSError.
    """
    sides = (scratch / "usual", scratch / "varied")
    try:
        for side in sides:
            side.mkdir(parents=True)
        for path in paths:
            for outputs, side in zip((reference, other), sides, strict=True):
                source = outputs.place / prefix / path
                if prefix + path not in outputs.digests or not _is_file_or_link(source):
                    continue
                (side / path).parent.mkdir(parents=True, exist_ok=True)
                try:
                    os.link(source, side / path, follow_symlinks=False)
                except OSError:  # a file system without hard links
                    shutil.copy2(source, side / path, follow_symlinks=False)
        yield sides
    finally:
        for side in sides:
            remove_tree(side)


def _is_file_or_link(path: Path) -> bool:
    try:
        mode = path.lstat().st_mode
    except OSError:
        return False
    return stat.S_ISREG(mode) or stat.S_ISLNK(mode)
