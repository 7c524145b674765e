"""Debian's names and versions of packages."""

from __future__ import annotations

from dataclasses import dataclass

from gitian.formats.debversion import order
from gitian.names import parse_deb_name


@dataclass(frozen=True, slots=True, kw_only=True)
class Deb:
    """A package's name, version and architecture, as the name of its file tells them."""

    name: str
    version: str
    architecture: str


def deb_of(file_name: str) -> Deb | None:
    """The package that a file of this name holds; None when it is no such name."""
    found = parse_deb_name(file_name)
    return None if found is None else Deb(name=found[0], version=found[1], architecture=found[2])


def compare(one: str, other: str) -> int:
    """Below, equal to or above zero, as version ``one`` is older than, the same as or newer than the other."""
    return (order(one) > order(other)) - (order(one) < order(other))
