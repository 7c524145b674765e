"""Debian's names and versions of packages (Debian policy 5.6.12; dpkg's lib/dpkg/version.c tells the same in C)."""

from __future__ import annotations

import re
from dataclasses import dataclass
from itertools import zip_longest

_FILE = re.compile(r"([a-z0-9][a-z0-9+.-]*)_([A-Za-z0-9.+:~%-]+)_([a-z0-9-]+)\.u?deb")


@dataclass(frozen=True, slots=True, kw_only=True)
class Deb:
    """A package's name, version and architecture, as the name of its file tells them."""

    name: str
    version: str
    architecture: str


def deb_of(file_name: str) -> Deb | None:
    """The package that a file of this name holds; None when it is no such name."""
    found = _FILE.fullmatch(file_name)
    if found is None:
        return None
    return Deb(name=found[1], version=re.sub("%3a", ":", found[2], flags=re.IGNORECASE), architecture=found[3])


def compare(one: str, other: str) -> int:
    """Below, equal to or above zero, as version ``one`` is older than, the same as or newer than the other."""
    first, second = _parts(one), _parts(other)
    if first[0] != second[0]:
        return first[0] - second[0]
    return _compare(first[1], second[1]) or _compare(first[2], second[2])


def _parts(version: str) -> tuple[int, str, str]:
    epoch, colon, rest = version.partition(":")
    if not colon or not epoch.isdigit():
        epoch, rest = "0", version
    upstream, _, revision = rest.rpartition("-") if "-" in rest else (rest, "", "0")
    return int(epoch[:9]), upstream, revision


def _compare(one: str, other: str) -> int:
    """Parts of digits and parts of others in turn; '~' sorts before the end, letters before all other signs."""
    pieces = [re.findall(r"([^0-9]*)([0-9]*)", text)[:-1] or [("", "")] for text in (one, other)]
    for (text, digits), (text2, digits2) in zip_longest(*pieces, fillvalue=("", "")):
        weights, weights2 = [_weight(char) for char in text] + [0], [_weight(char) for char in text2] + [0]
        if weights != weights2:
            return -1 if weights < weights2 else 1
        number, number2 = digits.lstrip("0"), digits2.lstrip("0")
        if number != number2:
            return -1 if (len(number), number) < (len(number2), number2) else 1
    return 0


def _weight(char: str) -> int:
    return -1 if char == "~" else ord(char) if char.isascii() and char.isalpha() else ord(char) + 256
