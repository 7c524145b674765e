"""The indices that a guest's apt has, as a record of what was fetched: Release files, lists of packages."""

from __future__ import annotations

import re
from collections.abc import Sequence
from urllib.parse import unquote, urlsplit

from gitian.environment.indices import SourceLine, fetchable
from gitian.errors import GuestError
from gitian.formats.deblines import deb_words
from gitian.formats.fetched import Fetched
from gitian.guest.protocol import Guest
from gitian.host import progress

_LISTS = "/var/lib/apt/lists"
_SIZE = re.compile(r"([0-9]{1,15})  ([!-.0-~]+)")
_HASH = re.compile(r"([0-9a-f]{64})  \./([!-.0-~]+)")
_LIMIT = 2**20


def fetched_indices(guest: Guest, source_lines: Sequence[str]) -> list[Fetched]:
    """Every index of the guest's apt, unpacked as it lies there, for lines of sources.list(5). Raises GuestError."""
    answer = guest.run(["find", ".", "-maxdepth", "1", "-type", "f", "!", "-name", "lock", "-printf", "%s  %f\\n",
                        "-exec", "sha256sum", "--", "{}", "+"], user="root", cwd=_LISTS, limit=_LIMIT).stdout
    sizes, hashes = {}, {}
    for line in answer.decode(errors="replace").splitlines():
        if match := _HASH.fullmatch(line):
            hashes[match[2]] = match[1]
        elif match := _SIZE.fullmatch(line):
            sizes[match[2]] = int(match[1])
        else:
            raise GuestError("The guest's list of indices has a line of another form.",
                             hint=f"Is there anything foreign in its '{_LISTS}'?")
    if sizes.keys() != hashes.keys():
        raise GuestError("The guest's list of indices is not complete.", hint="Build again.")
    urls = _urls(source_lines)
    return [Fetched(url=_checked(url_of(name, urls), name), size=sizes[name], sha256=hashes[name])
            for name in sorted(sizes)]


def _checked(url: str, name: str) -> str:
    """A URL of an index that the guest calls ``name``, which need not be apt's. Raises GuestError."""
    try:
        _ = urlsplit(url).port
    except ValueError as error:
        raise GuestError(f"The guest has an index '{progress.plain(name)}', whose name stands for no URL.",
                         hint=f"Is there anything foreign in its '{_LISTS}'?") from error
    return url


def _urls(source_lines: Sequence[str]) -> dict[str, str]:
    """What apt's names of a source's indices start with, and the URL that this stands for."""
    found = {}
    for line in source_lines:
        words = deb_words(line)
        if len(words) > 2 and fetchable(words[1]):
            source = SourceLine(uri=words[1], suite=words[2])
            found[source.list_name("")] = source.url("")
    return found


def url_of(name: str, urls: dict[str, str]) -> str:
    """The URL of what apt calls ``name``: '_' stands for '/', '%5f' for '_' (apt-pkg, URItoFileName).

    apt leaves the scheme out. For what none of the sources explains it stays out: '//host/path'.
    """
    start = max((start for start in urls if name.startswith(start)), key=len, default="")
    rest = unquote(name[len(start):].replace("_", "/"))
    if start:
        return urls[start] + rest
    return f"file:{rest}" if rest.startswith("/") else f"//{rest}"
