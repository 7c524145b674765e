"""What differs between two files, or two trees of outputs, that should have been equal, and probably why."""

from __future__ import annotations

import os
import stat
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

from gitian.errors import FormatError, InputError, MissingToolError, ProgramError
from gitian.vary.circumstances import UNKNOWN, Circumstances
from gitian.vary.clues import Clue, Detective
from gitian.vary.contents import Blob, Budget, Limits, TooMuchError, opened, same
from gitian.vary.findings import Difference, Digests, Item, Kind, difference
from gitian.vary.inside import Comparison

_ENTRIES_LIMIT = 200_000


def compare_files(a: Path, b: Path, ca: Circumstances = UNKNOWN, cb: Circumstances = UNKNOWN, *,
                  limits: Limits | None = None, name: str | None = None,
                  scratch: Path | None = None) -> Difference | None:
    """What differs between a file of one build and the same of another; None when nothing does.

    ``name`` is what places begin with (the file's own name unless given); ``scratch`` is a directory for what is
    unpacked (the system's for temporary files unless given). Whatever the files hold, it ends within the limits. Raises
    InputError: no regular file, or one that cannot be read.
    """
    found = _Found(Detective(ca, cb), limits or Limits(), scratch)
    found.files(a, b, name or a.name, name or a.name)
    return next(found.finish(), None)


def compare_trees(a: Path, b: Path, ca: Circumstances = UNKNOWN, cb: Circumstances = UNKNOWN, *,
                  limits: Limits | None = None, scratch: Path | None = None) -> tuple[Difference, ...]:
    """Everything that differs between two directories of outputs, sorted by path. Links are not followed.

    The limits are for each pair of files, and for finding out which names belong together. ``scratch``: as above.
    Raises InputError when a directory cannot be read.
    """
    found = _Found(Detective(ca, cb), limits or Limits(), scratch)
    left, right = _listed(a), _listed(b)
    only, only_too = [path for path in left if path not in right], [path for path in right if path not in left]
    renamed: dict[str, str] = {}
    if len(only) == len(only_too) <= 1000:
        renamed = found.renamed((one, other) for one, other in zip(only, only_too, strict=True)
                                if left[one] == right[other])
    for path in sorted({*left, *right}):
        partner = renamed.get(path, path)
        if path in left and partner in right:
            found.pair(a / path, b / partner, path, partner, left[path], right[partner])
        elif path not in renamed.values():
            found.only(path, first=path in left)
    return tuple(found.finish())


def _listed(root: Path) -> dict[str, str]:
    """Path below the root -> 'file', 'link' or 'special'; directories only for what is in them."""
    found: dict[str, str] = {}
    ahead = [""]
    while ahead:
        below = ahead.pop()
        try:
            with os.scandir(root / below) as entries:
                for entry in entries:
                    path = f"{below}/{entry.name}" if below else entry.name
                    if entry.is_dir(follow_symlinks=False):
                        ahead.append(path)
                    else:
                        mode = entry.stat(follow_symlinks=False).st_mode
                        found[path] = "file" if stat.S_ISREG(mode) else "link" if stat.S_ISLNK(mode) else "special"
        except OSError as error:
            raise InputError(f"'{root / below}' cannot be read: {error.strerror}.") from error
        if len(found) + len(ahead) > _ENTRIES_LIMIT:
            raise InputError(f"'{root}' holds more than {_ENTRIES_LIMIT} files.")
    return dict(sorted(found.items()))


class _Found:
    """All that was found so far; what follows from what is only known at the end."""

    def __init__(self, detective: Detective, limits: Limits, scratch: Path | None) -> None:
        self.detective, self.limits, self.scratch = detective, limits, scratch
        self.digests = Digests()
        self.names: dict[tuple[str, str], tuple[Clue, ...]] = {}
        self.left = self.limits.seconds
        self.unnamed: str | None = None
        self.waiting: list[tuple[str, str, Comparison | None, list[Item], tuple[int | None, int | None],
                                 tuple[str | None, str | None], str | None]] = []

    def renamed(self, pairs: Iterable[tuple[str, str]]) -> dict[str, str]:
        """Of these names, those of which known causes make the other; as many as there is time for."""
        return {one: other for one, other in pairs if self.name(one, other)}

    def name(self, one: str, other: str) -> tuple[Clue, ...]:
        """What explains that a name, or where a link leads, became another; nothing once that took too long."""
        if self.left < 0:
            self.unnamed = f"Not all names were compared: more than {self.limits.seconds:g} seconds."
        elif (one, other) not in self.names:
            began = time.monotonic()
            self.names[one, other] = self.detective.text(one, other)
            self.left -= time.monotonic() - began
        return self.names.get((one, other), ())

    def only(self, path: str, *, first: bool) -> None:
        """Write down what only one build has."""
        kind = Kind.ONLY_IN_FIRST if first else Kind.ONLY_IN_SECOND
        item = Item(kind=kind, place=path, first=path if first else "", second="" if first else path)
        self.waiting.append((path, path, None, [item], (None, None), (None, None), self.unnamed))

    def pair(self, a: Path, b: Path, path: str, partner: str, kind: str, kind_too: str) -> None:
        """Compare what both builds have: files, links, or one of each."""
        if kind != kind_too:
            item = Item(kind=Kind.TYPE, place=path, first=kind, second=kind_too)
            self.waiting.append((path, partner, None, [item], (None, None), (None, None), None))
        elif kind == "link":
            one, other = str(a.readlink()), str(b.readlink())
            if one != other:
                item = Item(kind=Kind.LINK, place=path, first=one, second=other, clues=self.name(one, other))
                self.waiting.append((path, partner, None, [item], (None, None), (None, None),
                                     None if item.clues else self.unnamed))
        elif kind == "file":
            try:
                self.files(a, b, path, partner)
            except InputError as error:
                item = Item(kind=Kind.UNREADABLE, place=path, first=str(error), second="")
                self.waiting.append((path, partner, None, [item], (None, None), (None, None),
                                     "The comparison ended early: a file cannot be read."))

    def files(self, a: Path, b: Path, path: str, partner: str) -> None:
        """Compare two regular files."""
        items: list[Item] = []
        if path != partner:
            items.append(Item(kind=Kind.NAME, place=path, first=path, second=partner,
                              clues=self.name(path, partner)))
        with opened(a) as file, opened(b) as file_too:
            left, right = Blob(file), Blob(file_too)
            budget = Budget(self.limits, self.scratch)
            comparison = Comparison(self.detective, budget, self.digests)
            unfinished = None
            hashes: tuple[str | None, str | None] = (None, None)
            try:
                if same(left, right, budget):
                    if items:
                        self.waiting.append((path, partner, None, items, (left.size, right.size), hashes, None))
                    return
                hashes = left.digest("sha256", budget).hex(), right.digest("sha256", budget).hex()
                comparison.blobs(left, right, path, 0)
            except TooMuchError as error:
                unfinished = f"The comparison ended early: {error}."
            except (FormatError, MissingToolError, ProgramError, RecursionError, MemoryError) as error:
                unfinished = f"The comparison ended early: {error}"
            except OSError as error:
                unfinished = f"The comparison ended early: {error.strerror or error}."
            items += comparison.items
            if not comparison.items:
                items.append(Item(kind=Kind.BYTES, place=path, first=f"{left.size} bytes",
                                  second=f"{right.size} bytes"))
            self.waiting.append((path, partner, comparison, items, (left.size, right.size), hashes, unfinished))

    def finish(self) -> Iterator[Difference]:
        """Every difference, in the order in which they were found."""
        for path, partner, comparison, items, sizes, hashes, unfinished in self.waiting:
            yield difference(path, partner, items, self.digests, sizes=sizes, hashes=hashes, unfinished=unfinished,
                             more=comparison.dropped if comparison else 0)
