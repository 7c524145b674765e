"""Single packages out of an archive's signed indices: found, fetched, checked; no root, nothing installed."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from gitian.errors import FetchError, ImageError
from gitian.host.hashing import sha256_file
from gitian.host.pool import Deb
from gitian.images import pool
from gitian.images.archive import Indices, paragraphs
from gitian.images.sources import Source
from gitian.names import deb_name


@dataclass(frozen=True, slots=True, kw_only=True)
class Package:
    """A package file that was fetched. ``sha256`` is what the signed index says, and what the file has."""

    name: str
    version: str
    architecture: str
    sha256: str
    path: Path


def describe(indices: Indices, name: str) -> dict[str, str] | None:
    """The index's fields of the version that apt would install, or None when no source has the package."""
    version = None
    for line in indices.cache("policy", f"{name}:{indices.arch}").splitlines():
        key, _, value = line.strip().partition(": ")
        if key == "Candidate" and value != "(none)":
            version = value
    if version is None:
        return None
    return next(paragraphs(indices.cache("show", f"{name}:{indices.arch}={version}").splitlines()), None)


def fetch(indices: Indices, name: str, scratch: Path) -> Package:
    """Fetch one package into a directory of its own below ``scratch``.

    Raises ImageError: no source has it; FetchError: one lists it, but does not give it, or gives something else.
    """
    fields = describe(indices, name)
    if fields is None:
        raise ImageError(f"None of these sources has the package '{name}' for '{indices.arch}': "
                         f"{'; '.join(source.name for source in indices.sources)}.",
                         hint="Name a mirror that has it with '--mirror URL'.")
    version, sha256 = fields["Version"], fields.get("SHA256")
    if sha256 is None:
        raise FetchError(f"The index gives no SHA-256 for the package '{name}'.")
    place = scratch / f"deb-{indices.arch}-{name}"
    size = fields.get("Size", "")
    deb = Deb(uri="", name=deb_name(name, version, fields.get("Architecture", indices.arch)),
              size=int(size) if size.isdigit() else -1, sha256=sha256)
    try:
        pooled = pool.take(indices, deb, place)
        found = [place / deb.name] if pooled else indices.download([f"{name}:{indices.arch}={version}"], place)
    except FetchError as error:
        source = _source_of(indices, name, version)
        if source is None or not source.pocket:
            raise
        raise FetchError(f"The source '{source.name}' lists '{name}' {version}, but does not give it: {error}",
                         hint=f"Try again later, or go on without it: '--without {source.pocket}'.") from error
    if len(found) != 1 or (have := sha256_file(found[0])) != sha256:
        raise FetchError(f"What was fetched as the package '{name}' is not what the index says: "
                         f"{have if len(found) == 1 else len(found)} instead of {sha256}.",
                         hint="Try again later, or use another archive: --mirror URL.")
    if not pooled:
        pool.keep(indices, deb, found[0])
    return Package(name=name, version=version, architecture=indices.arch, sha256=sha256, path=found[0])


def _source_of(indices: Indices, name: str, version: str) -> Source | None:
    """Which source has a package in that version ('apt-cache madison': package | version | address suite/part arch)."""
    for line in indices.cache("madison", f"{name}:{indices.arch}").splitlines():
        words = [word.strip() for word in line.split("|")]
        if len(words) == 3 and words[1] == version:
            for source in indices.sources:
                if words[2].startswith(f"{source.host_uri} {source.suite}/"):
                    return source
    return None
