"""What was found to differ, and what becomes of it: consequences are told from causes, and causes become hints."""

from __future__ import annotations

import enum
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace

from gitian.host.progress import plain
from gitian.vary.clues import Clue
from gitian.vary.hints import Cause, Hint, hint

_SHOWN = 240
_HASH = re.compile(r"[0-9a-fA-F]{32,128}|[A-Za-z0-9+/_-]{43,88}")


class Kind(enum.StrEnum):
    """What kind of thing differs."""

    ONLY_IN_FIRST = "only in the first"
    ONLY_IN_SECOND = "only in the second"
    NAME = "name"
    TYPE = "type"
    LINK = "link target"
    MEMBER_ORDER = "member order"
    MEMBER_TIME = "member time"
    MEMBER_OWNER = "member owner"
    MEMBER_MODE = "member mode"
    MEMBER_ATTRIBUTE = "member attribute"
    GZIP_HEADER = "gzip header"
    COMPRESSION = "compression"
    LINE_ORDER = "line order"
    TEXT = "text"
    EMBEDDED_TEXT = "embedded text"
    FIELD = "field"
    BYTES = "bytes"
    CONTAINER = "container"
    UNREADABLE = "unreadable"


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One thing that differs, and where: 'file!member!section:offset' or 'file!member:line'.

    ``first`` and ``second`` are what each build has, shortened and printable. ``consequence`` says what it follows
    from, when it is no cause itself.
    """

    kind: Kind
    place: str
    first: str
    second: str
    consequence: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """One output that differs. ``kind`` and ``where`` are those of the finding that tells most.

    ``path`` is its name in the first build, ``other_path`` in the second; sizes are in bytes, None where there is no
    such file. ``findings`` are at most as many as the limits allow, ``more`` how many there were beyond. ``unfinished``
    says which limit ended the comparison early.
    """

    path: str
    other_path: str
    kind: Kind
    where: str
    sizes: tuple[int | None, int | None]
    hashes: tuple[str | None, str | None]
    findings: tuple[Finding, ...]
    hints: tuple[Hint, ...]
    more: int = 0
    unfinished: str | None = None

    @property
    def summary(self) -> tuple[str, ...]:
        """A line for each finding, printable."""
        return tuple(f"{item.place}: {item.kind}: {item.first or '(nothing)'} / {item.second or '(nothing)'}"
                     + (f" (follows from {item.consequence})" if item.consequence else "") for item in self.findings)


@dataclass(slots=True, kw_only=True)
class Item:
    """A finding in the making: raw texts, and what explains it. ``habitat`` chooses the remedy."""

    kind: Kind
    place: str
    first: str
    second: str
    clues: tuple[Clue, ...] = ()
    habitat: str = ""
    consequence: str | None = None


@dataclass(slots=True)
class Digests:
    """Hashes of everything that differs, on each side, and where it is: so that lists of hashes explain themselves."""

    first: dict[str, str] = field(default_factory=dict)
    second: dict[str, str] = field(default_factory=dict)

    def explain(self, left: str, right: str) -> str | None:
        """What it is whose hash stands on both sides; None when it is no such line."""
        mine = {self.first[token] for token in _tokens(left) if token in self.first}
        for token in _tokens(right):
            place = self.second.get(token)
            if place is not None and place in mine:
                return place
        return None


def _tokens(text: str) -> Iterable[str]:
    for match in _HASH.finditer(text):
        yield match[0].lower() if re.fullmatch("[0-9a-fA-F]+", match[0]) else match[0]


def shown(text: str) -> str:
    """A text, printable and shortened."""
    return plain(text if len(text) <= _SHOWN else text[:_SHOWN - 3] + "...")


def shown_bytes(data: bytes) -> str:
    """Bytes, printable: what is no ASCII as \\xNN."""
    return plain(data.decode("ascii", "surrogateescape"))


def difference(path: str, other_path: str, items: Sequence[Item], digests: Digests, *, more: int = 0,
               sizes: tuple[int | None, int | None], hashes: tuple[str | None, str | None],
               unfinished: str | None = None) -> Difference:
    """The value for one output, from all that was found in it."""
    for item in items:
        if item.consequence is None and not any(clue.sure for clue in item.clues):
            place = digests.explain(item.first, item.second)
            if place is not None and place != item.place:
                item.consequence = place
    chief = min(items, key=_rank)
    return Difference(
        path=plain(path), other_path=plain(other_path), kind=chief.kind, where=plain(chief.place), sizes=sizes,
        hashes=hashes, more=more, unfinished=unfinished, hints=_hints(items),
        findings=tuple(Finding(kind=item.kind, place=plain(item.place), first=shown(item.first),
                               second=shown(item.second),
                               consequence=plain(item.consequence) if item.consequence else None) for item in items))


def _rank(item: Item) -> tuple[bool, bool, bool]:
    return (item.consequence is not None, not any(clue.sure for clue in item.clues), not item.clues)


def _hints(items: Iterable[Item]) -> tuple[Hint, ...]:
    """One hint for each cause and remedy: the first place, and how many more there are; what is sure first."""
    found: dict[tuple[Cause, str], Hint] = {}
    counted: dict[tuple[Cause, str], int] = {}
    for item in items:
        if item.consequence is not None:
            continue
        for clue in item.clues:
            new = hint(clue.cause, item.habitat, _evidence(clue), plain(item.place), sure=clue.sure)
            key = clue.cause, new.remedy
            old = found.get(key)
            counted[key] = counted.get(key, -1) + 1
            if old is None or (new.sure and not old.sure):
                found[key] = new
    sure = {cause for (cause, _), value in found.items() if value.sure}
    whole = [replace(value, also=counted[key]) for key, value in found.items()
             if value.sure or key[0] not in sure]
    return tuple(sorted(whole, key=lambda value: not value.sure))


def _evidence(clue: Clue) -> str:
    first, second = shown(clue.left), shown(clue.right)
    if not first or not second:
        return f"only one has '{first or second}'"
    return f"'{first}' in the first, '{second}' in the second"
