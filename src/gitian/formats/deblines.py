"""Lines of sources.list(5), as a guest has them."""

from __future__ import annotations

from collections.abc import Iterable
from urllib.parse import urlsplit, urlunsplit


def deb_words(line: str) -> list[str]:
    """The words of a 'deb' line of sources.list(5) without its options, [] of any other line."""
    words = line.split()
    if words[:1] != ["deb"]:
        return []
    if len(words) > 1 and words[1].startswith("["):
        end = next((number for number, word in enumerate(words) if word.endswith("]")), len(words))
        return [words[0], *words[end + 1:]]
    return words


def seen_from_here(url: str, host_address: str) -> str:
    """A guest's URL as this machine reaches it: the host's address in the guest is our own.

    What is no URL stays as it is.
    """
    try:
        parts = urlsplit(url)
        port = f":{parts.port}" if parts.port else ""
    except ValueError:
        return url
    if parts.hostname != host_address:
        return url
    return urlunsplit(parts._replace(netloc=f"127.0.0.1{port}"))


#: The parts of a suite by what follows its name: 'bookworm', 'bookworm-updates', 'bookworm-security', 'buster/updates'.
POCKETS = {"": "", "-updates": "updates", "-security": "security", "/updates": "security"}


def pocket_of(theirs: str, suite: str) -> str | None:
    """Which part of ``suite`` a line's suite is: '' itself, 'updates', 'security'; None when it is none of it."""
    return POCKETS.get(theirs.removeprefix(suite)) if theirs.startswith(suite) else None


def own_lines(lines: Iterable[str], suite: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The lines of a distro's own archive, and all others.

    Its own are the first one of the suite, those of the same address, and the suite's other parts wherever they are.
    """
    own: list[str] = []
    others: list[str] = []
    address = None
    for line in lines:
        words = deb_words(line)
        pocket = pocket_of(words[2], suite) if len(words) > 3 else None
        if pocket is None or (pocket == "" and address not in (None, words[1])):
            others.append(line)
            continue
        if pocket == "":
            address = words[1]
        own.append(line)
    return tuple(own), tuple(others)
