"""The configuration of an update: whom we trust how much, and where releases are found.

The format is the classic updater's (its share/gitian_updater.py and doc/DOWNLOADER.md), with a few keys more; real ones
lie in contrib/gitian-downloader/ of several hundred projects. Numbers may be written as numbers or as text.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar
from urllib.parse import urlsplit

from gitian.errors import FormatError, UpdateConfigurationError
from gitian.update import documents, feed, paths

#: A configuration larger than this is refused (bytes).
LIMIT = 2**20
#: How big the files of a package may be together when the configuration says nothing (MiB).
DEFAULT_SIZE = 8192

KEYS = ("name", "waiting_period", "urls", "rss", "signers", "minimum_weight", "release_suffix", "maximum_size")
_T = TypeVar("_T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Signer:
    """One person or machine whose signature counts.

    ``fingerprints`` are those that the configuration knows the key by (of the primary key or of a signing subkey), 40
    or 64 upper-case hexadecimal digits. ``key`` names the key file, as in the configuration.
    """

    fingerprints: tuple[str, ...]
    weight: int
    name: str
    key: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where a package may be; ``version_url`` holds the name of its release, so that nothing is fetched in vain."""

    url: str
    version_url: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Feed:
    """An RSS or Atom feed whose links are searched for ``pattern``; its first group, if any, is the release."""

    url: str
    pattern: str
    xpath: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Configuration:
    """Everything a configuration says. ``waiting_period`` in hours, ``maximum_size`` in bytes.

    ``release_suffix`` is what an assertion's release has after the one that a feed or a version URL announces
    ('-linux' when the feed says 0.15.1 and people sign 0.15.1-linux). ``directory`` is where its key files may lie.
    """

    name: str | None
    signers: tuple[Signer, ...]
    minimum_weight: int
    waiting_period: float
    urls: tuple[Place, ...]
    feeds: tuple[Feed, ...]
    release_suffix: str
    maximum_size: int
    directory: Path | None

    def signer(self, *fingerprints: str) -> Signer | None:
        """Whose key that is, by the fingerprint of the primary key or of the subkey that signed."""
        for signer in self.signers:
            if any(fingerprint in signer.fingerprints for fingerprint in fingerprints):
                return signer
        return None


def read(path: Path) -> Configuration:
    """Read a configuration file. Raises UpdateConfigurationError."""
    try:
        with path.open("rb") as stream:
            data = stream.read(LIMIT + 1)
    except OSError as error:
        raise UpdateConfigurationError(f"The configuration '{path}' cannot be read: {error.strerror}.") from error
    return parse(data, str(path), path.resolve().parent)


def parse(data: bytes, source: str, directory: Path | None = None) -> Configuration:
    """Understand a configuration. Raises UpdateConfigurationError, which names every problem and where it is."""
    if len(data) > LIMIT:
        raise UpdateConfigurationError(f"The configuration '{source}' has more than {LIMIT} bytes.")
    try:
        document = documents.read(data, source)
    except FormatError as error:
        raise UpdateConfigurationError(f"The configuration cannot be read: {error}", hint=error.hint) from error
    if not isinstance(document, dict):
        raise UpdateConfigurationError(f"The configuration '{source}' is not a list of keys with values.",
                                       hint="See share/update-sample.yml for what one looks like.")
    reader = _Reader()
    configuration = reader.read(document, directory)
    if reader.problems or configuration is None:
        raise UpdateConfigurationError(
            f"The configuration '{source}' cannot be used:" + "".join(f"\n  {line}" for line in reader.problems),
            hint="See share/update-sample.yml, or docs/reference/update.md.")
    return configuration


class _Reader:
    """Reads everything and collects the problems, so that a user corrects them in one go."""

    def __init__(self) -> None:
        self.problems: list[str] = []

    def read(self, document: Mapping[str, object], directory: Path | None) -> Configuration | None:
        for key in document:
            if key not in KEYS:
                self.problem(str(key), f"is not a key that we know; known are {', '.join(KEYS)}")
        signers = self.signers(document.get("signers"))
        minimum = self.minimum(document.get("minimum_weight"), signers)
        name = self.text("name", document.get("name"))
        waiting = self.number("waiting_period", document.get("waiting_period"), float, 0.0)
        size = self.number("maximum_size", document.get("maximum_size"), int, DEFAULT_SIZE)
        suffix = self.text("release_suffix", document.get("release_suffix")) or ""
        urls = self.urls(document.get("urls"))
        feeds = self.feeds(document.get("rss"))
        if self.problems:
            return None
        return Configuration(name=name, signers=signers, minimum_weight=minimum, waiting_period=waiting, urls=urls,
                             feeds=feeds, release_suffix=suffix, maximum_size=size * 2**20, directory=directory)

    def problem(self, where: str, what: str) -> None:
        self.problems.append(f"{where}: {what}.")

    def text(self, where: str, value: object) -> str | None:
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, str | int | float):
            self.problem(where, "must be text")
            return None
        return str(value).strip() or None

    def number(self, where: str, value: object, kind: Callable[[str], _T], default: _T) -> _T:
        if value is None:
            return default
        try:
            if isinstance(value, bool) or not isinstance(value, str | int | float):
                raise ValueError
            # To Python '1_0' and '\uff12' are numbers too.
            if isinstance(value, str) and not re.fullmatch(r"[0-9]{1,15}(\.[0-9]{0,9})?", value.strip()):
                raise ValueError
            number = kind(str(value))
            if not 0 <= float(str(number)) < 1e12:
                raise ValueError
        except ValueError:
            self.problem(where, f"must be a number that is not negative, not '{value}'")
            return default
        return number

    def entries(self, where: str, value: object) -> list[object]:
        if value is None:
            return []
        if not isinstance(value, list | tuple):
            self.problem(where, "must be a list")
            return []
        return list(value)

    def known(self, where: str, value: Mapping[str, object], keys: tuple[str, ...]) -> None:
        for key in value:
            if key not in keys:
                self.problem(f"{where}.{key}", f"is not a key that we know; known are {', '.join(keys)}")

    def signers(self, value: object) -> tuple[Signer, ...]:
        if not isinstance(value, Mapping) or not value:
            self.problem("signers", "is missing or empty: nobody could be trusted")
            return ()
        signers = []
        seen: dict[str, str] = {}
        for key, entry in value.items():
            where = f"signers.{key}"
            if not isinstance(entry, Mapping):
                self.problem(where, "must have a weight, a name and a key")
                continue
            self.known(where, entry, ("weight", "name", "key", "keyid"))
            fingerprints = [self.fingerprint(where, key)]
            if entry.get("keyid") is not None:
                fingerprints.append(self.fingerprint(f"{where}.keyid", entry["keyid"]))
            for fingerprint in filter(None, fingerprints):
                if fingerprint in seen and seen[fingerprint] != where:
                    self.problem(where, f"is the key of {seen[fingerprint]} too")
                seen[fingerprint] = where
            if entry.get("weight") is None:
                self.problem(f"{where}.weight", "is missing")
            weight = self.number(f"{where}.weight", entry.get("weight"), int, 0)
            file = self.text(f"{where}.key", entry.get("key"))
            if file is not None:
                try:
                    paths.check(file)
                except ValueError as error:
                    self.problem(f"{where}.key", f"'{file}' has {error}")
            signers.append(Signer(fingerprints=tuple(dict.fromkeys(filter(None, fingerprints))), weight=weight,
                                  name=self.text(f"{where}.name", entry.get("name")) or str(key), key=file))
        return tuple(signers)

    def fingerprint(self, where: str, value: object) -> str:
        text = str(value).replace(" ", "").upper().removeprefix("0X")
        if isinstance(value, bool) or not re.fullmatch(r"[0-9A-F]{40}|[0-9A-F]{64}", text):
            what = "is a short key id, which anybody can imitate; write the full fingerprint" \
                if re.fullmatch(r"[0-9A-F]{8}|[0-9A-F]{16}", text) \
                else "is not a full fingerprint (40 or 64 hexadecimal digits, in quotes if they are digits alone)"
            self.problem(where, what)
            return ""
        return text

    def minimum(self, value: object, signers: tuple[Signer, ...]) -> int:
        if value is None:
            self.problem("minimum_weight", "is missing: how much weight is enough?")
            return 0
        minimum = self.number("minimum_weight", value, int, 0)
        if minimum < 1:
            self.problem("minimum_weight", "must be at least 1, or nothing would be checked")
        elif signers and sum(signer.weight for signer in signers) < minimum:
            self.problem("minimum_weight", f"is {minimum}, more than all signers together weigh")
        return minimum

    def url(self, where: str, value: object) -> str | None:
        text = self.text(where, value)
        if text is None:
            self.problem(where, "is missing")
            return None
        if urlsplit(text).scheme not in ("http", "https", "file"):
            self.problem(where, f"'{text}' is not an http, https or file URL")
            return None
        return text

    def urls(self, value: object) -> tuple[Place, ...]:
        places = []
        for number, entry in enumerate(self.entries("urls", value)):
            where = f"urls[{number}]"
            # Many real configurations have the bare URL.
            fields: Mapping[str, object] = entry if isinstance(entry, Mapping) else {"url": entry}
            self.known(where, fields, ("url", "version_url"))
            url = self.url(f"{where}.url", fields.get("url"))
            version = self.url(f"{where}.version_url", fields["version_url"]) if fields.get("version_url") else None
            if url is not None:
                places.append(Place(url=url, version_url=version))
        return tuple(places)

    def feeds(self, value: object) -> tuple[Feed, ...]:
        feeds = []
        for number, entry in enumerate(self.entries("rss", value)):
            where = f"rss[{number}]"
            if not isinstance(entry, Mapping):
                self.problem(where, "must have a url and a pattern")
                continue
            self.known(where, entry, ("url", "xpath", "pattern"))
            if entry.get("url") is None and len(entry) > 1:
                continue  # forks of real projects keep the entry and blank its URL
            url = self.url(f"{where}.url", entry.get("url"))
            pattern = self.text(f"{where}.pattern", entry.get("pattern"))
            xpath = self.text(f"{where}.xpath", entry.get("xpath"))
            if pattern is None:
                self.problem(f"{where}.pattern", "is missing: which of the links is a package?")
            else:
                try:
                    re.compile(pattern)
                except re.error as error:
                    self.problem(f"{where}.pattern", f"'{pattern}' is not a regular expression: {error}")
            try:
                if xpath is not None:
                    feed.Path.parse(xpath)
            except ValueError as error:
                self.problem(f"{where}.xpath", str(error))
            if url is not None and pattern is not None:
                feeds.append(Feed(url=url, pattern=pattern, xpath=xpath))
        return tuple(feeds)
