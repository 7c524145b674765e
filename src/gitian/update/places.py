"""Where a release may be got from: what the user names, else what the configuration's feeds and URLs lead to."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from gitian.errors import DownloadError
from gitian.host import progress
from gitian.update import download, feed, releases
from gitian.update.config import Configuration
from gitian.update.destination import Destination, Installed

_LONGEST_VERSION = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """A place to get a package from: a ``path`` or a ``url``. ``release`` is what was announced there, if any."""

    path: Path | None = None
    url: str | None = None
    release: str | None = None

    @property
    def label(self) -> str:
        """How to call it."""
        return self.url or str(self.path)


def given(source: str) -> Candidate:
    """What the user means by a SOURCE or --url: a URL, or the path of a zip file or directory."""
    scheme = urlsplit(source).scheme
    if scheme in ("http", "https"):
        return Candidate(url=source)
    if scheme == "file" and (path := download.local(source)) is not None:
        return Candidate(path=path)
    return Candidate(path=Path(source))


class Search:
    """Goes through the places of a configuration. Afterwards ``current`` says that one of them announced nothing newer
    than what is installed, and ``problems`` why others led nowhere."""

    def __init__(self, configuration: Configuration, installed: Installed | None, *, force: bool) -> None:
        self._configuration = configuration
        self._installed = installed
        self._force = force
        self.current = False
        self.problems: list[DownloadError] = []

    def candidates(self) -> Iterator[Candidate]:
        """Feeds first, then URLs, as in the classic."""
        for entry in self._configuration.feeds:
            try:
                found = feed.newest(download.small(entry.url, feed.LIMIT), xpath=entry.xpath, pattern=entry.pattern,
                                    source=entry.url)
                if found is None:
                    raise DownloadError(f"No link in the feed '{entry.url}' fits the pattern '{entry.pattern}'.")
            except DownloadError as error:
                self._trouble(error)
                continue
            yield from self._if_newer(given(found.url), found.release)
        for place in self._configuration.urls:
            release = None
            try:
                if place.version_url is not None:
                    release = _version(place.version_url)
            except DownloadError as error:
                self._trouble(error)  # the package itself may be there all the same
            yield from self._if_newer(given(place.url), release)

    def _if_newer(self, candidate: Candidate, release: str | None) -> Iterator[Candidate]:
        if release is None:
            yield candidate
            return
        release += self._configuration.release_suffix
        if self._installed is not None and not self._force:
            order = releases.compare(release, self._installed.release)
            if order == 0 or order == -1:
                if order == -1:
                    progress.warn(f"'{candidate.label}' is announced as release '{release}', older than the installed "
                                  f"'{self._installed.release}'; it is not looked at.")
                self.current = True
                return
        yield Candidate(path=candidate.path, url=candidate.url, release=release)

    def _trouble(self, error: DownloadError) -> None:
        self.problems.append(error)
        progress.warn(str(error))


def _version(url: str) -> str:
    text = download.small(url, 4096).decode(errors="replace").strip()
    if not text or len(text) > _LONGEST_VERSION or not text.isprintable():
        raise DownloadError(f"'{url}' does not hold the name of a release.")
    return text


@contextlib.contextmanager
def fetched(candidate: Candidate, destination: Destination, *, limit: int, keep: bool) -> Iterator[Path]:
    """The package as a local file or directory; a download goes away afterwards unless ``keep``.

    A download that is not finished is kept for the next run; one that turned out to be bad never is. Raises
    DownloadError.
    """
    if candidate.url is None:
        assert candidate.path is not None
        if not candidate.path.exists():
            raise DownloadError(f"There is no '{candidate.path}'.")
        yield candidate.path
        return
    path = download.package(candidate.url, destination.downloads, limit=limit)
    good = False
    try:
        yield path
        good = True
    finally:
        if not (good and keep):
            download.forget(candidate.url, destination.downloads)
