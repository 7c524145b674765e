"""A whole tree of signatures: which releases and packages it holds, in which order, and what they come to altogether.

Trees in the wild are untidy: a release copied into another one, an assertion that lies in nobody's directory, a link
from 'latest' to the last release. Whatever is called an assertion is either verified or named as what was not.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from gitian.sigs import tree, verify
from gitian.sigs.tree import Kind, SigsTree
from gitian.sigs.verdict import Decision, Outcome, Verdict
from gitian.sigs.verify import SUFFIX, Pair, Request

#: Folders deeper than this are not looked into.
DEPTH_LIMIT = 12
#: So many remarks of one kind are kept; the others are counted.
REMARKS_LIMIT = 1000

#: What git keeps for itself is no release, and large.
_SKIPPED = frozenset({".git"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Remark:
    """Something about a path of the tree; ``text`` ends a sentence that the path begins."""

    path: str
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """What a tree holds. ``pairs`` are in natural order of release, then package.

    ``problems`` are assertions that belong to no release, and folders that cannot be read: whoever relies on the tree
    must know of them. ``remarks`` are harmless. ``more`` counts problems and remarks beyond the limit.
    """

    pairs: tuple[Pair, ...]
    problems: tuple[Remark, ...]
    remarks: tuple[Remark, ...]
    more: int = 0


def discover(where: SigsTree, *, release: str | None = None, name: str | None = None) -> Found:
    """Find every release and package of a tree, at any depth; only those called so, when names are given.

    A release is the folder above a folder that holds an assertion or a signature. Links to folders are not followed,
    but that one may be a signer's folder in a release. Raises tree.TreeError when the tree itself cannot be listed.
    """
    search = _Search(where)
    search.run()
    pairs = [Pair(release=place, name=package) for place, packages in search.releases.items() for package in packages
             if release is None or release in (place, place.rsplit("/", 1)[-1]) if name is None or package == name]
    pairs.sort(key=lambda pair: (natural(pair.release), pair.release, natural(pair.name), pair.name))
    return Found(pairs=tuple(pairs), problems=tuple(search.problems), remarks=tuple(search.remarks), more=search.more)


class _Search:
    def __init__(self, where: SigsTree) -> None:
        self._where = where
        self.releases: dict[str, set[str]] = {}
        self.problems: list[Remark] = []
        self.remarks: list[Remark] = []
        self.more = 0

    def run(self) -> None:
        waiting = [("", False, 0)]
        while waiting:
            path, link, depth = waiting.pop()
            try:
                entries = self._where.list(path)
            except tree.TreeError as error:
                if not path:
                    raise
                self._note(self.problems, path, str(error))
                continue
            if link:
                # What a link leads to lies in this tree and is seen there; here it may only be somebody's folder.
                if "/" in path and self._packages(path, entries):
                    continue
                if any(entry.kind is Kind.DIRECTORY or _package(entry.name) for entry in entries):
                    self._note(self.remarks, path, "is a link to another folder, and was not looked into")
                continue
            self._packages(path, entries)
            for entry in entries:
                inner = tree.join(path, entry.name)
                if entry.kind is Kind.OTHER and not _package(entry.name):
                    self._note(self.remarks, inner, "is a device, or a link that leads out or nowhere")
                elif entry.kind is Kind.DIRECTORY and entry.name not in _SKIPPED:
                    if depth >= DEPTH_LIMIT:
                        self._note(self.problems, inner, f"lies deeper than {DEPTH_LIMIT} folders, and was not "
                                                         "looked into")
                    else:
                        waiting.append((inner, entry.link, depth + 1))

    def _packages(self, path: str, entries: Iterable[tree.Entry]) -> bool:
        """Note what lies in a folder that may be a signer's; whether there was any."""
        packages = {package for entry in entries if (package := _package(entry.name))}
        release, inside, _ = path.rpartition("/")
        if packages and inside:
            self.releases.setdefault(release, set()).update(packages)
        else:
            for package in sorted(packages):
                self._note(self.problems, tree.join(path, package + SUFFIX),
                           "lies in no signer's directory of a release, so it counts for nothing")
        return bool(packages)

    def _note(self, notes: list[Remark], path: str, text: str) -> None:
        if len(notes) < REMARKS_LIMIT:
            notes.append(Remark(path=path, text=text))
        else:
            self.more += 1


def _package(name: str) -> str:
    """The package of an assertion's or a signature's file name; '' for other files."""
    name = name.removesuffix(".sig")
    return name[:-len(SUFFIX)] if name.endswith(SUFFIX) else ""


def survey(request: Request, pairs: Iterable[Pair]) -> Iterator[tuple[Pair, Verdict]]:
    """The verdict on each pair, in their order. Raises as :func:`verify.verify_releases`."""
    known = tuple(pairs)
    yield from zip(known, verify.verify_releases(request, known), strict=True)


class Totals:
    """What all verdicts come to. ``decisions`` counts releases and packages, ``outcomes`` what signers came to."""

    def __init__(self, found: Found) -> None:
        self._problems = bool(found.problems)
        self.decisions = dict.fromkeys(Decision, 0)
        self.outcomes = dict.fromkeys(Outcome, 0)

    def add(self, verdict: Verdict) -> None:
        self.decisions[verdict.decision] += 1
        for signer in verdict.signers:
            self.outcomes[signer.outcome] += 1

    @property
    def pairs(self) -> int:
        """How many releases and packages were verified."""
        return sum(self.decisions.values())

    @property
    def exit_code(self) -> int:
        """The worst verdict's: 1 (also for problems of the tree) before 14, 14 before 13, as for one release."""
        return self.decision.value

    @property
    def decision(self) -> Decision:
        """The decision that the exit status stands for."""
        if self.decisions[Decision.DISAGREE] or self._problems:
            return Decision.DISAGREE
        if self.decisions[Decision.NOTHING] or not self.pairs:
            return Decision.NOTHING
        return Decision.POLICY if self.decisions[Decision.POLICY] else Decision.AGREE


#: What is tried out before a release, in the names people give it.
_EARLIER = re.compile(r"[-._~+]*(rc|alpha|beta|pre|dev|test|a|b)(?![a-z])", re.IGNORECASE)
_PREFIXED = re.compile(r"[vV][0-9]")
_PIECES = re.compile(r"[0-9]+|[^0-9]+")


def natural(name: str) -> tuple[tuple[int, int, str], ...]:
    """A key that sorts names as people do: '0.9' before '0.10', '1.0rc2' before '1.0' before '1.0-linux'.

    A 'v' before the first number says nothing. Names that begin with a word come before those that begin with a number.
    """
    key: list[tuple[int, int, str]] = []
    for piece in _PIECES.findall(name[1:] if _PREFIXED.match(name) else name):
        if "0" <= piece[0] <= "9":
            key.append((3, int(piece), ""))
        else:
            key.append((0 if key and _EARLIER.match(piece) else 2, 0, piece))
    return (*key, (1, 0, ""))


_SERIES = re.compile(r"[vV]?([0-9]+(?:[._][0-9]+)?)")


def series(release: str) -> str:
    """What a release's path says of its line: 'archive/0.12' of 'archive/0.12.3-win'; without a number, its folder."""
    folder, _, last = release.rpartition("/")
    found = _SERIES.search(last)
    return tree.join(folder, found[1].replace("_", ".") if found else "")
