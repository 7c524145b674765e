"""What archives offer today, for ``gitian lint``: from their signed indices, or from index files that are at hand."""

from __future__ import annotations

import gzip
import lzma
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from gitian.errors import FormatError, UsageError
from gitian.host.progress import step
from gitian.host.workspace import scratch_of_user
from gitian.images import archive
from gitian.images.distros import distro_of
from gitian.images.offers import Offered, stated
from gitian.images.offers import offers as ask
from gitian.images.sources import SourceOptions, find_sources
from gitian.lint.debian import compare
from gitian.lint.model import Offer
from gitian.lint.run import Target

#: An index is no larger than this when decompressed (bytes); Debian's main archive has 60 MB.
_LIMIT = 2**30

Offers = dict[tuple[str, str, str], Offer]


def offers(targets: Sequence[Target], *, ask: bool, mirror: str | None, security_mirror: str | None,
           indices: Sequence[Path]) -> Offers:
    """The newest version of each package, by suite, architecture and name.

    With ``ask``, the archives' signed indices are fetched and checked by apt. Index files count for every target of
    their architecture. Raises FetchError, FormatError, MissingToolError, UsageError.
    """
    found: Offers = {}
    places = sorted({(target.suite, target.architecture) for target in targets})
    if ask:
        for suite, arch in places:
            _ask(suite, arch, mirror, security_mirror, found)
    for path in indices:
        for offered in stated(_stanzas(path), security="security" in path.name):
            for suite, arch in places:
                if offered.architecture in (arch, "all"):
                    _take(found, suite, arch, offered)
    return found


def _ask(suite: str, arch: str, mirror: str | None, security_mirror: str | None, found: Offers) -> None:
    distro = distro_of(suite)
    if distro is None:
        raise UsageError(f"It is not known which archive has the suite '{suite}'.",
                         hint="Leave out --archive, and give its index with --index FILE.")
    options = SourceOptions.of(mirror=mirror, security_mirror=security_mirror, without=(), environment=os.environ)
    with scratch_of_user() as room, step(f"asking the archive about {suite} {arch}"):
        sources = find_sources(distro, suite, arch, options, room)
        for offered in ask(sources, arch, distro.find_keyrings(), room):
            _take(found, suite, arch, offered)


def _take(found: Offers, suite: str, arch: str, offered: Offered) -> None:
    key = (suite, arch, offered.name)
    known = found.get(key)
    if known is None or compare(known.version, offered.version) < 0:
        found[key] = Offer(version=offered.version, security=offered.security)
    elif known.version == offered.version and offered.security:
        found[key] = Offer(version=offered.version, security=True)


def _stanzas(path: Path) -> Iterator[dict[str, str]]:
    """The paragraphs of a Packages file, compressed or not. Raises FormatError."""
    try:
        if path.name.endswith(".gz"):
            with gzip.open(path) as packed:
                data = packed.read(_LIMIT + 1)
        else:
            with lzma.open(path) if path.name.endswith(".xz") else path.open("rb") as file:
                data = file.read(_LIMIT + 1)
    except (OSError, EOFError, lzma.LZMAError) as error:
        raise FormatError(f"The index '{path}' cannot be read: {error}.",
                          hint="Give an archive's Packages file: as it is, or compressed as .gz or .xz.") from error
    if len(data) > _LIMIT:
        raise FormatError(f"The index '{path}' is larger than {_LIMIT // 2**20} MiB, so it is no index.")
    return archive.paragraphs(data.decode("utf-8", "replace").split("\n"))
