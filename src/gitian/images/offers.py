"""What archives offer today, from their signed indices: nothing is installed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from gitian.errors import UsageError
from gitian.formats.deblines import deb_words, own_lines, pocket_of, seen_from_here
from gitian.host.web import is_own
from gitian.images import archive
from gitian.images.sources import Source, check_uri


@dataclass(frozen=True, slots=True, kw_only=True)
class Offered:
    """A package in an index. ``sha256`` is '' where the index has none; ``security`` tells the archive of updates."""

    name: str
    version: str
    architecture: str
    sha256: str
    security: bool


def offers(sources: Sequence[Source], arch: str, keyrings: Sequence[Path], scratch: Path) -> Iterator[Offered]:
    """Everything that the sources offer for ``arch``, 'all' included; apt fetches and checks the indices.

    ``scratch`` is an empty directory of our own. Raises FetchError, ImageError.
    """
    scratch.chmod(0o755)  # apt fetches as a user of its own
    fetched = archive.fetch_indices(sources, arch, keyrings, scratch)
    for source in fetched.sources:
        stem = archive.list_stem(source)
        for path in sorted(fetched.lists.glob("*_Packages")):
            if path.name.startswith(stem):
                yield from stated(archive.stanzas(path), security=source.pocket == "security")


def stated(entries: Iterator[dict[str, str]], *, security: bool) -> Iterator[Offered]:
    """The packages of an index, by its paragraphs; a paragraph that names none is left out."""
    for entry in entries:
        if entry.get("Package") and entry.get("Version"):
            yield Offered(name=entry["Package"], version=entry["Version"], architecture=entry.get("Architecture", ""),
                          sha256=entry.get("SHA256", ""), security=security)


def own_sources(lines: Sequence[str], suite: str, host_address: str) -> tuple[tuple[Source, ...], tuple[str, ...]]:
    """The sources of a distro itself among a guest's lines of sources.list, and the lines that are not.

    ``host_address`` is this machine's in the guest. Raises UsageError: an address that is none, or by which the
    guest means itself.
    """
    own, others = own_lines(lines, suite)
    found = []
    for _, uri, theirs, *components in map(deb_words, own):
        check_uri(uri)
        if is_own(urlsplit(uri).hostname or ""):
            raise UsageError(f"A guest means itself by the address '{uri}' of its archive.",
                             hint="Name the archive to ask with --mirror URL.")
        here = seen_from_here(uri, host_address).rstrip("/")
        found.append(Source(host_uri=here, guest_uri=uri, suite=theirs, components=tuple(components),
                            pocket=pocket_of(theirs, suite) or ""))
    return tuple(found), others
