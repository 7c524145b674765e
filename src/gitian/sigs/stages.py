"""Where an input came from: an earlier stage of the same release, whose outputs other people (or the same) have signed.

'bitcoin-osx-unsigned.tar.gz', an input of what makes the signed installer, is an output of '0.20.2rc1-osx-unsigned'
under another name: so it is found by its hash. Releases of the same version are searched first, then those with names
alike. What is found there is only what the assertions say; their signatures are not checked here.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass

from gitian.errors import FormatError
from gitian.formats.assertion import Assertion
from gitian.formats.manifest import Manifest
from gitian.sigs import tree
from gitian.sigs.tree import SigsTree
from gitian.sigs.verify import ASSERTION_LIMIT, SUFFIX

#: At most so many assertions of other releases are read, and so many bytes, when nothing nearby has the file.
FAR_FILES = 1500
FAR_BYTES = 96 * 2**20
_NEAR_FILES = 2000


@dataclass(frozen=True, slots=True, kw_only=True)
class Made:
    """Somebody asserts to have made a file: output ``path`` of a package in a release (a folder's path in the tree)."""

    sha256: str
    release: str
    name: str
    signer: str
    path: str
    assertion: Assertion


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where to search: a tree, and a folder of it that holds releases."""

    tree: SigsTree
    folder: str = ""


def makers(places: Sequence[Place], release: str, name: str, hashes: Collection[str]) -> tuple[Made, ...]:
    """Who asserts to have made files of these hashes, in any release but this one of this package.

    ``release`` is the release's path in the first place's tree.
    """
    if not hashes:
        return ()
    found: list[Made] = []
    version = _version(release.rsplit("/", 1)[-1])
    near: list[tuple[Place, str]] = []
    far: list[tuple[Place, str]] = []
    for place in places:
        for folder in _folders(place.tree, place.folder):
            said = folder.rsplit("/", 1)[-1]
            (near if _version(said) == version else far).append((place, folder))
    budget = _Budget(files=_NEAR_FILES, size=FAR_BYTES * 2)
    for place, folder in near:
        own = folder == release and place is places[0]
        found += _made(place.tree, folder, hashes, budget, name if own else None)
    if found:
        return tuple(found)
    last = release.rsplit("/", 1)[-1]
    far.sort(key=lambda item: -_alike(last, item[1].rsplit("/", 1)[-1]))
    budget = _Budget(files=FAR_FILES, size=FAR_BYTES)
    for place, folder in far:
        if budget.spent:
            break
        found += _made(place.tree, folder, hashes, budget, None)
    return tuple(found)


def _version(release: str) -> str:
    """What releases of one version have in common: '0.20.2rc1' of '0.20.2rc1-win-unsigned'."""
    return re.split(r"[-_]", release, maxsplit=1)[0]


def _alike(one: str, other: str) -> int:
    """How many letters they have in common at their start."""
    return next((number for number, (a, b) in enumerate(zip(one, other, strict=False)) if a != b),
                min(len(one), len(other)))


def _folders(where: SigsTree, folder: str) -> Iterator[str]:
    with contextlib.suppress(tree.TreeError):
        for entry in where.list(folder):
            if entry.kind is tree.Kind.DIRECTORY and not entry.name.startswith("."):
                yield tree.join(folder, entry.name)


@dataclass(slots=True)
class _Budget:
    files: int
    size: int

    @property
    def spent(self) -> bool:
        return self.files <= 0 or self.size <= 0


def _made(where: SigsTree, release: str, hashes: Collection[str], budget: _Budget, but: str | None) -> Iterator[Made]:
    marks = [sha256.encode() for sha256 in hashes]
    for folder in _folders(where, release):
        try:
            entries = where.list(folder)
        except tree.TreeError:
            continue
        for entry in entries:
            name = entry.name.removesuffix(SUFFIX)
            if entry.kind is not tree.Kind.FILE or name == entry.name or name == but:
                continue
            if budget.spent:
                return
            path = tree.join(folder, entry.name)
            try:
                data = where.read(path, ASSERTION_LIMIT)
            except tree.TreeError:
                continue
            budget.files -= 1
            budget.size -= len(data)
            if not any(mark in data for mark in marks):
                continue  # reading a document costs a hundred times more than looking for a hash in it
            with contextlib.suppress(FormatError, RecursionError, MemoryError, ValueError):
                assertion = Assertion.parse(data, path)
                for made in Manifest.parse(assertion.out_manifest).entries:
                    if made.sha256 in hashes:
                        yield Made(sha256=made.sha256, release=release, name=name,
                                   signer=folder.rsplit("/", 1)[-1], path=made.path, assertion=assertion)


def stages(made: Sequence[Made]) -> Mapping[tuple[str, str], tuple[Made, ...]]:
    """By release and package, the one that explains most first."""
    found: dict[tuple[str, str], list[Made]] = {}
    for each in made:
        found.setdefault((each.release, each.name), []).append(each)
    ordered = sorted(found.items(), key=lambda item: (-len({each.sha256 for each in item[1]}), -len(item[1]), item[0]))
    return {key: tuple(each) for key, each in ordered}
