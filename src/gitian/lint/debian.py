"""Debian's names and versions of packages."""

from __future__ import annotations

import re
from dataclasses import dataclass

from gitian.sigs.environments import order

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
    return (order(one) > order(other)) - (order(one) < order(other))
