"""What packages need of each other, read from their control files: which mixtures of two package sets make a system.

The fields are those of https://www.debian.org/doc/debian-policy/ch-relationships.html, as dpkg and apt take them. What
is not understood is taken to be satisfied: apt has the last word when the mixture is made, this only saves its time and
puts changes in an order in which few mixtures fail.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from gitian.errors import ImageError
from gitian.formats.debversion import order
from gitian.formats.image_record import InstalledPackage
from gitian.images import debfile

_FIELDS = ("Depends", "Pre-Depends", "Breaks", "Conflicts", "Provides", "Multi-Arch")
_TERM = re.compile(r"([a-z0-9][a-z0-9+.-]*)(?::([a-z0-9-]+))?\s*"
                   r"(?:\(\s*(<<|<=|=|>=|>>|<|>)\s*([^\s()]+)\s*\))?", re.ASCII)
_HOLDS: Mapping[str, Callable[[int], bool]] = {
    "<<": lambda sign: sign < 0, "<=": lambda sign: sign <= 0, "=": lambda sign: sign == 0,
    ">=": lambda sign: sign >= 0, ">>": lambda sign: sign > 0, "<": lambda sign: sign <= 0, ">": lambda sign: sign >= 0}


@dataclass(frozen=True, slots=True, kw_only=True)
class Term:
    """'name:architecture (relation version)'; what is not said is ''."""

    name: str
    architecture: str = ""
    relation: str = ""
    version: str = ""

    def fits(self, version: str) -> bool:
        """Whether a version is one of those that are meant."""
        if not self.relation:
            return True
        ours, theirs = order(version), order(self.version)
        return _HOLDS[self.relation]((ours > theirs) - (ours < theirs))


@dataclass(frozen=True, slots=True, kw_only=True)
class Relations:
    """A package, and what it needs: one of each clause of ``needs``, none of ``refuses``.

    ``architecture`` is that of the machine for a package of all architectures.
    """

    package: InstalledPackage
    architecture: str
    needs: tuple[tuple[Term, ...], ...] = ()
    refuses: tuple[Term, ...] = ()
    provides: tuple[Term, ...] = ()
    multi_arch: str = ""

    @classmethod
    def parse(cls, package: InstalledPackage, fields: Mapping[str, str], own: str) -> Relations:
        """From control fields, on a machine of the architecture ``own``. Never raises."""
        clauses = [_terms(clause, "|") for name in ("Pre-Depends", "Depends")
                   for clause in fields.get(name, "").split(",") if clause.strip()]
        return cls(
            package=package, architecture=own if package.architecture == "all" else package.architecture,
            # A clause with a part that nobody understands may be satisfied by that part.
            needs=tuple(dict.fromkeys(tuple(terms) for terms, strange in clauses if not strange)),
            refuses=tuple(term for name in ("Conflicts", "Breaks") for term in _terms(fields.get(name, ""), ",")[0]),
            provides=tuple(_terms(fields.get("Provides", ""), ",")[0]),
            multi_arch=fields.get("Multi-Arch", "").strip().lower())

    def satisfies(self, term: Term, by: str) -> bool:
        """Whether this package is what a package of the architecture ``by`` needs."""
        if term.architecture in ("", "any"):
            ours = self.architecture == by or self.multi_arch == ("foreign" if not term.architecture else "allowed")
        else:
            ours = self.architecture == term.architecture
        return ours and self._is(term)

    def is_refused(self, term: Term) -> bool:
        """Whether this package is what somebody refuses: of whatever architecture, unless one is named."""
        return term.architecture in ("", "any", self.architecture) and self._is(term)

    def _is(self, term: Term) -> bool:
        if term.name == self.package.name:
            return term.fits(self.package.version)
        # Only a provided version satisfies a versioned relation.
        return any(one.name == term.name and (not term.relation or (one.relation == "=" and term.fits(one.version)))
                   for one in self.provides)


def _terms(text: str, separator: str) -> tuple[list[Term], bool]:
    """The terms of a list, and whether there was anything else in it."""
    parts = [part.strip() for part in text.split(separator) if part.strip()]
    found = [match for match in map(_TERM.fullmatch, parts) if match]
    return [Term(name=match[1], architecture=match[2] or "", relation=match[3] or "", version=match[4] or "")
            for match in found], len(found) < len(parts)


def read(debs: Mapping[InstalledPackage, Path], own: str) -> dict[InstalledPackage, Relations]:
    """The relations of packages, from their files. One that cannot be read states none: making an image will say so."""
    def one(package: InstalledPackage, path: Path) -> Relations:
        try:
            text = debfile.control(path).decode(errors="replace")
        except ImageError:
            text = ""
        return Relations.parse(package, _fields(text), own)

    with ThreadPoolExecutor(max_workers=min(8, 2 * len(os.sched_getaffinity(0)))) as workers:
        return dict(zip(debs, workers.map(one, debs.keys(), debs.values()), strict=True))


def _fields(text: str) -> dict[str, str]:
    found: dict[str, str] = {}
    name = ""
    for line in text.splitlines():
        if line[:1] in (" ", "\t"):
            found[name] = found.get(name, "") + " " + line.strip()
        else:
            name, _, value = line.partition(":")
            name = next((known for known in _FIELDS if known.lower() == name.strip().lower()), name)
            found[name] = value.strip()
    return found


def problems(packages: Collection[Relations]) -> frozenset[str]:
    """In what these packages make no system, in words; nothing, as far as their relations say."""
    index = _index(packages)
    found = set()
    for one in packages:
        for clause in one.needs:
            if not any(other.satisfies(term, one.architecture) for term in clause
                       for other in index.get(term.name, ())):
                found.add(f"{one.package.name} {one.package.version} needs {_words(clause)}")
        for term in one.refuses:
            found |= {f"{one.package.name} {one.package.version} refuses {other.package.name} {other.package.version}"
                      for other in index.get(term.name, ()) if _apart(one, other) and other.is_refused(term)}
    for name, several in _same(packages).items():
        if len({one.package.version for one in several}) > 1:
            found.add(f"{name} has not the same version for all architectures")
    return frozenset(found)


def _words(clause: Sequence[Term]) -> str:
    return " | ".join(term.name + (f" ({term.relation} {term.version})" if term.relation else "") for term in clause)


def _index(packages: Iterable[Relations]) -> dict[str, list[Relations]]:
    """Packages by each name that they go by."""
    index: dict[str, list[Relations]] = {}
    for one in packages:
        for name in dict.fromkeys((one.package.name, *(term.name for term in one.provides))):
            index.setdefault(name, []).append(one)
    return index


def _same(packages: Iterable[Relations]) -> dict[str, list[Relations]]:
    found: dict[str, list[Relations]] = {}
    for one in packages:
        if one.multi_arch == "same":
            found.setdefault(one.package.name, []).append(one)
    return found


def _apart(one: Relations, other: Relations) -> bool:
    """Whether two are not the same package: that one does not stand in its own way, nor in another version's."""
    return one.package.name != other.package.name or (
        one.architecture != other.architecture and one.package.version != other.package.version)


@dataclass(frozen=True, slots=True, kw_only=True)
class Move:
    """One package in which two sets differ; None where it is not installed."""

    name: str
    old: Relations | None
    new: Relations | None


#: Which package it is: the move that it belongs to, and whether it is the new one. ('', False) is in both sets.
_State = tuple[str, bool]
_ALWAYS: _State = ("", False)


def needed(moves: Iterable[Move], unchanged: Iterable[Relations]) -> dict[str, set[str]]:
    """By a move's name, those without which it cannot be made: their packages need each other in one version."""
    states: dict[int, _State] = {}
    packages: list[Relations] = []
    for relations, state in [*((one, _ALWAYS) for one in unchanged),
                             *((one, (move.name, new)) for move in moves
                               for one, new in ((move.old, False), (move.new, True)) if one is not None)]:
        states[id(relations)] = state
        packages.append(relations)
    index = _index(packages)
    found: dict[str, set[str]] = {}

    def needs(one: str, other: str) -> None:
        if one != other:
            found.setdefault(one, set()).add(other)

    for one in packages:
        name, new = states[id(one)]
        for clause in one.needs:
            able = {states[id(other)] for term in clause for other in index.get(term.name, ())
                    if other.satisfies(term, one.architecture)}
            for first, second in _implied((name, new), able):
                needs(first, second)
        refused = [states[id(other)] for term in one.refuses for other in index.get(term.name, ())
                   if _apart(one, other) and other.is_refused(term)]
        for other_name, other_new in refused:
            if name and other_name and new != other_new:
                needs(*((name, other_name) if new else (other_name, name)))
    for several in _same(packages).values():
        together = {states[id(one)][0] for one in several} - {""}
        for first in together:
            for second in together:
                needs(first, second)
    return found


def _implied(state: _State, able: set[_State]) -> Iterator[tuple[str, str]]:
    """What a clause of a package in a state says of moves, if the packages in the states ``able`` satisfy it."""
    name, new = state
    both = any((other, not late) in able for other, late in able)
    if _ALWAYS in able or both or (name and state in able):
        return
    olds, news = ([other for other, late in sorted(able) if late is which] for which in (False, True))
    if name and new and not olds and len(news) == 1:
        yield name, news[0]
    elif name and not new and not news and len(olds) == 1:
        yield olds[0], name
    elif len(news) == 1:  # whoever takes the old one away has to bring the new one
        for other in olds:
            yield other, news[0]


def arranged(names: Sequence[str], needs: Mapping[str, Collection[str]]) -> tuple[list[str], list[list[str]]]:
    """An order in which whatever a move needs stands before it, and the groups of moves that need each other."""
    reach = {name: _reached(name, needs) for name in names}
    # What is needed reaches less than what needs it, or just as much: then they need each other.
    ordered = sorted(names, key=lambda name: (len(reach[name]), name))
    groups = []
    for name in ordered:
        group = [other for other in ordered if other in reach[name] and name in reach[other]]
        if len(group) > 1 and group[0] == name:
            groups.append(group)
    return ordered, groups


def _reached(name: str, needs: Mapping[str, Collection[str]]) -> set[str]:
    found, todo = {name}, [name]
    while todo:
        for other in needs.get(todo.pop(), ()):
            if other not in found:
                found.add(other)
                todo.append(other)
    return found
