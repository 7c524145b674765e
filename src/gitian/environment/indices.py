"""Has an archive changed? The signed indices (InRelease) of a layer's sources, asked about without a guest.

One conditional request per source (RFC 9110, 13.1: If-None-Match, If-Modified-Since), all at once. What has not changed
is not fetched again; what has is compared by its hash, so a mirror that knows no conditions is merely slower.
"""

from __future__ import annotations

import hashlib
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from http.client import HTTPException
from urllib.parse import urlsplit

from gitian.errors import FetchError
from gitian.formats.deblines import deb_words, seen_from_here

#: The largest InRelease of Debian and Ubuntu is about 300 kB (bytes).
_LIMIT = 16 * 2**20
_PATIENCE = 30.0  # seconds without an answer
_TRIES = 3

# What apt escapes in the names of its index files (apt-pkg/contrib/strutl.cc, URItoFileName), besides what is no
# printable ASCII.
_ESCAPED = "\\|{}[]<>\"^~_=!@#$%&*"


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceLine:
    """A line of sources.list(5) that fetches packages over http or https."""

    uri: str
    suite: str

    def url(self, name: str = "InRelease") -> str:
        """Where its InRelease (or Release) is: a suite that ends in '/' is a flat archive's path."""
        base = self.uri.rstrip("/") + "/"
        return base + (self.suite if self.suite.endswith("/") else f"dists/{self.suite}/") + name

    def list_name(self, name: str = "InRelease") -> str:
        """What apt calls its copy in /var/lib/apt/lists."""
        parts = urlsplit(self.url(name))
        rest = f"{parts.hostname or ''}{f':{parts.port}' if parts.port else ''}{parts.path}"
        escaped = "".join(f"%{ord(letter):02x}" if letter in _ESCAPED or not 0x20 < ord(letter) < 0x7f else letter
                          for letter in rest)
        return escaped.replace("/", "_")


@dataclass(frozen=True, slots=True, kw_only=True)
class Index:
    """An InRelease that a layer was made with, and what its server said of it."""

    url: str
    sha256: str
    etag: str = ""
    last_modified: str = ""


def fetchable(uri: str) -> bool:
    """Whether this is the address of an archive that is asked over http or https."""
    try:
        parts = urlsplit(uri)
        return parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:  # a port or a bracketed address that is none
        return False


def parse_sources(lines: Sequence[str]) -> tuple[SourceLine, ...] | None:
    """The sources of 'deb' lines; None when one of them cannot be asked about from outside (file:, cdrom:, no URL)."""
    found = []
    for line in lines:
        words = deb_words(line)
        if not words:
            continue
        if len(words) < 3 or not fetchable(words[1]):
            return None
        source = SourceLine(uri=words[1], suite=words[2])
        if source not in found:
            found.append(source)
    return tuple(found)


def remember(sources: Sequence[SourceLine], digests: Mapping[str, str], host_address: str) -> tuple[Index, ...] | None:
    """What to ask the next time, for a layer whose guest has indices with these ``digests`` (by apt's file names).

    Of a source that is trusted without its signature ([trusted=yes]) apt keeps the same file as 'Release'. None when
    the guest has neither for a source, so that nobody could tell whether it has changed.
    """
    found = []
    for source in sources:
        name = next((name for name in ("InRelease", "Release") if source.list_name(name) in digests), None)
        if name is None:
            return None
        found.append(Index(url=seen_from_here(source.url(), host_address), sha256=digests[source.list_name(name)]))
    return tuple(found)


def check(indices: Sequence[Index]) -> tuple[bool, tuple[Index, ...]]:
    """Whether every index is still the one that was remembered, and the indices with what servers say of them now.

    Raises FetchError: a source that cannot be asked.
    """
    if not indices:
        return True, ()
    with ThreadPoolExecutor(max_workers=min(8, len(indices))) as pool:
        answers = list(pool.map(_ask, indices))
    return all(same for same, _ in answers), tuple(index for _, index in answers)


def _ask(index: Index) -> tuple[bool, Index]:
    headers = {"User-Agent": "gitian"}
    if index.etag:
        headers["If-None-Match"] = index.etag
    if index.last_modified:
        headers["If-Modified-Since"] = index.last_modified
    problem: Exception | None = None
    for _ in range(_TRIES):
        try:
            with urllib.request.urlopen(urllib.request.Request(index.url, headers=headers),
                                        timeout=_PATIENCE) as answer:
                data = answer.read(_LIMIT + 1)
                if len(data) > _LIMIT:
                    raise FetchError(f"'{index.url}' is no InRelease: it is larger than {_LIMIT} bytes.")
                same = hashlib.sha256(data).hexdigest() == index.sha256
                return same, replace(index, etag=answer.headers.get("ETag") or "",
                                     last_modified=answer.headers.get("Last-Modified") or "")
        except urllib.error.HTTPError as error:
            if error.code == 304:
                return True, index
            if 400 <= error.code < 500:
                return False, index  # it has no InRelease, or none any more: apt in a guest will see
            problem = error
        except (OSError, HTTPException) as error:
            problem = error
    raise FetchError(f"'{index.url}' cannot be asked whether it has changed: {problem}.",
                     hint="To build with the packages of the last time, without asking: 'gbuild --offline'.")
