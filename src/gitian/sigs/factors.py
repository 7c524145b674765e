"""What could explain that one build came out differently: everything it had that nobody who agrees had, best first.

For one thing (a package, an input, a cache entry) the signers fall in two by a single question: had they what most of
those who agree had, or something else? How much that question tells about who agrees is its separation: the
information gain, as a share of what there is to know (1: it tells all; 0: nothing). Asking for the common value, not
for each value, keeps things that differ everywhere (and so change nothing) from looking like perfect witnesses.
"""

from __future__ import annotations

import enum
import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from gitian.sigs.environments import Domain, Kind, Record, Value

#: So many names of one family, and so many values of those who agree, are kept.
NAMES_LIMIT = 1000
VALUES_LIMIT = 5

_INPUTS = (Kind.COMMIT, Kind.INPUT)
_KINDS = tuple(Kind)
# Only among equals: what writes code into an output comes before what merely lay in the guest.
_COMPILERS = re.compile(r"(gcc|g\+\+|cpp|gfortran|gobjc|clang|llvm|lld|binutils|mingw|go|rust|cargo|openjdk|nasm|yasm|"
                        r"ld64|cctools|dmg|genisoimage|libgcc|libstdc|libc6|musl|linux-libc|faketime|libfaketime)")
_TOOLS = re.compile(r"(python|perl|tar|gzip|bzip2|xz|zip|make|cmake|auto|libtool|pkg|patch|sed|bison|flex|qt|openssl|"
                    r"osslsigncode|git|dpkg|zlib|lib.*-dev)")


class Change(enum.StrEnum):
    """How a dissenter's build differs from those that agree."""

    CHANGED = "changed"
    ADDED = "added"
    MISSING = "missing"


@dataclass(frozen=True, slots=True, kw_only=True)
class Held:
    """What so many signers had: a version (packages only) and a sha256 or commit; or nothing at all."""

    present: bool
    version: str
    digest: str
    signers: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Suspect:
    """Something that could be why builds differ.

    ``where`` is a package's target, or which cache. ``agreed`` is what those who agree had, most common first (the
    first few); ``own`` what those who do not had. ``also`` names others that changed in exactly the same way: packages
    of one source, say. ``separation`` tells this signer and whoever built the same from those who agree; ``overall``
    all dissenters from all who agree; both are between 0 and 1. ``exact``: all who agree had one thing, and those who
    built otherwise another. ``spread``: how many different things all dissenters had.
    """

    kind: Kind
    where: str
    name: str
    change: Change
    own: tuple[Held, ...]
    agreed: tuple[Held, ...]
    separation: float
    overall: float
    exact: bool
    spread: int
    also: tuple[str, ...] = ()


@dataclass(slots=True)
class Tally:
    """How many signers record a domain, and how many of them had which value of each name."""

    known: int = 0
    counts: dict[str, dict[Value, int]] = field(default_factory=dict)

    def add(self, values: Mapping[str, Value], signers: int) -> None:
        """Count what so many signers had alike."""
        self.known += signers
        for name, value in values.items():
            held = self.counts.setdefault(name, {})
            held[value] = held.get(value, 0) + signers

    def of(self, name: str) -> dict[Value | None, int]:
        """Value -> signers, None for those who had nothing of that name."""
        held: dict[Value | None, int] = dict(self.counts.get(name, {}).items())
        absent = self.known - sum(held.values())
        if absent:
            held[None] = absent
        return held


Tallies = Mapping[Domain, Tally]


def tally(records: Iterable[Record]) -> dict[Domain, Tally]:
    """Count what signers had. Linear in the sizes of the distinct manifests."""
    alike: dict[tuple[Domain, int], tuple[Mapping[str, Value], int]] = {}
    for record in records:
        for domain, values in record.domains.items():
            # Signers with one manifest text share one mapping.
            _, count = alike.get((domain, id(values)), (values, 0))
            alike[domain, id(values)] = values, count + 1
    found: dict[Domain, Tally] = {}
    for (domain, _), (values, count) in alike.items():
        found.setdefault(domain, Tally()).add(values, count)
    return found


def suspects(own: Record, peers: Tallies, agreeing: Tallies, dissenting: Tallies) -> tuple[tuple[Suspect, ...], int]:
    """What one signer had that nobody who agrees had, best first; and how many other differences there are.

    ``peers`` counts this signer and all who built the same, ``dissenting`` all who do not agree. A difference that
    somebody who agrees shares did not keep that one from agreeing: it is only counted.
    """
    found: list[Suspect] = []
    harmless = 0
    for domain, values in own.domains.items():
        there = agreeing.get(domain)
        if there is None:
            continue
        for name in values.keys() | there.counts.keys():
            value = values.get(name)
            held = there.counts.get(name, {})
            if value is not None and held.get(value) == there.known:
                continue
            counts = there.of(name)
            if value in counts:
                harmless += value != _mode(counts)
                continue
            found.append(_suspect(domain, name, {value: 1}, counts, _counts(peers, domain, name),
                                  _counts(dissenting, domain, name)))
    return _families(found), harmless


def ranking(agreeing: Tallies, dissenting: Tallies) -> tuple[Suspect, ...]:
    """What separates all who agree from all who do not, best first; what tells nothing is left out."""
    found: list[Suspect] = []
    for domain, there in agreeing.items():
        here = dissenting.get(domain)
        if here is None:
            continue
        for name in here.counts.keys() | there.counts.keys():
            theirs, ours = there.counts.get(name, {}), here.counts.get(name, {})
            if len(theirs) == len(ours) == 1 and theirs.keys() == ours.keys() and (
                    sum(theirs.values()) == there.known and sum(ours.values()) == here.known):
                continue
            counts, own = there.of(name), here.of(name)
            suspect = _suspect(domain, name, own, counts, own, own)
            if suspect.overall > 0:
                found.append(suspect)
    return _families(found)


def separation(agreeing: int, with_common: int, dissenting: int, with_common_too: int) -> float:
    """Information gain of 'had the common value' about 'agrees', as a share of the entropy of 'agrees' (0 to 1).

    0 also when the common value is commoner among those who do not agree. Source: information gain as in Quinlan,
    'Induction of Decision Trees', 1986.
    """
    if not agreeing or not dissenting or with_common * dissenting <= with_common_too * agreeing:
        return 0.0
    whole = agreeing + dissenting
    common = with_common + with_common_too
    rest = whole - common
    left = common / whole * _entropy(with_common, with_common_too)
    right = rest / whole * _entropy(agreeing - with_common, dissenting - with_common_too) if rest else 0.0
    return min(1.0, max(0.0, 1 - (left + right) / _entropy(agreeing, dissenting)))


def _entropy(one: int, other: int) -> float:
    whole = one + other
    return -sum(part / whole * math.log2(part / whole) for part in (one, other) if part)


def _counts(tallies: Tallies, domain: Domain, name: str) -> dict[Value | None, int]:
    found = tallies.get(domain)
    return found.of(name) if found is not None else {}


def _mode(counts: Mapping[Value | None, int]) -> Value | None:
    """The most common value; among equals a present one, and then any, but always the same."""
    return max(counts, key=lambda value: (counts[value], value is not None, value or ("", "")))


def _suspect(domain: Domain, name: str, own: Mapping[Value | None, int], agreed: Mapping[Value | None, int],
             peers: Mapping[Value | None, int], dissenting: Mapping[Value | None, int]) -> Suspect:
    kind, where = domain
    common = _mode(agreed)
    whole = sum(agreed.values())
    most = _mode(own)
    change = Change.MISSING if most is None else Change.ADDED if common is None else Change.CHANGED
    return Suspect(kind=kind, where=where, name=name, change=change, own=_held(own), agreed=_held(agreed),
                   separation=separation(whole, agreed[common], sum(peers.values()), peers.get(common, 0)),
                   overall=separation(whole, agreed[common], sum(dissenting.values()), dissenting.get(common, 0)),
                   exact=len(agreed) == 1 and common not in peers, spread=len(dissenting))


def _held(counts: Mapping[Value | None, int]) -> tuple[Held, ...]:
    ordered = sorted(counts.items(), key=lambda item: (-item[1], item[0] is None, item[0] or ("", "")))
    return tuple(Held(present=value is not None, version=value[0] if value else "", digest=value[1] if value else "",
                      signers=count) for value, count in ordered[:VALUES_LIMIT])


def _rank(suspect: Suspect) -> tuple[object, ...]:
    """Best first. Inputs before all else: other inputs are another build, not the same one gone wrong."""
    return (not suspect.exact, suspect.kind not in _INPUTS, -round(suspect.separation, 9), -round(suspect.overall, 9),
            suspect.spread, _KINDS.index(suspect.kind), tuple(Change).index(suspect.change), _relevance(suspect),
            suspect.where, suspect.name)


def _relevance(suspect: Suspect) -> int:
    if suspect.kind is not Kind.PACKAGE:
        return 0
    return 0 if _COMPILERS.match(suspect.name) else 1 if _TOOLS.match(suspect.name) else 2


def _families(found: Sequence[Suspect]) -> tuple[Suspect, ...]:
    """Sorted; what changed in exactly the same way under one name, the rest in ``also``."""
    families: dict[object, list[Suspect]] = {}
    for suspect in sorted(found, key=_rank):
        families.setdefault(_family(suspect), []).append(suspect)
    return tuple(_headed(family) for family in families.values())


def _headed(family: Sequence[Suspect]) -> Suspect:
    return replace(family[0], also=tuple(other.name for other in family[1:NAMES_LIMIT]))


def _family(suspect: Suspect) -> object:
    if suspect.kind not in (Kind.PACKAGE, Kind.CACHE):
        return suspect.kind, suspect.where, suspect.name
    alike = (suspect.kind, suspect.where, suspect.change, suspect.exact, round(suspect.separation, 9),
             round(suspect.overall, 9), suspect.spread)
    if suspect.kind is Kind.PACKAGE and suspect.change is Change.CHANGED:
        # One source makes many packages of one version. Without a version there is nothing to tell them by.
        versions = tuple(_versions(suspect))
        return (*alike, versions) if any(version for version, _ in versions) else (*alike, suspect.name)
    return alike


def _versions(suspect: Suspect) -> Iterator[tuple[str, int]]:
    for held in (*suspect.own, *suspect.agreed):
        yield held.version, held.signers
