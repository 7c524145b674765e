"""What went into one signer's build, as its assertion records it: inputs, packages, cache entries, by name.

Manifests come from strangers: whatever is in them is taken as text, and nothing here fails on it. The classic's
environment manifest lists every .deb that lay in apt's cache, stale versions too; apt installs the newest, so the
newest one listed counts as installed.
"""

from __future__ import annotations

import enum
import functools
import hashlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from gitian.formats.assertion import Assertion
from gitian.formats.debversion import order
from gitian.formats.manifest import Manifest
from gitian.names import parse_deb_name


class Kind(enum.StrEnum):
    """What sort of thing went into a build. The value is the word that is printed."""

    COMMIT = "commit"
    INPUT = "input file"
    TARGET = "target"
    PACKAGE = "package"
    CACHE = "cache entry"


#: Where something is looked for: all inputs, the packages of one target, one of the two caches.
Domain = tuple[Kind, str]
#: What a name stands for there: a package's version ('' for anything else), and a sha256 or commit.
Value = tuple[str, str]

#: Environments of so many targets are looked at; real builds have at most a dozen.
TARGETS_LIMIT = 100
_PRESENT: Value = ("", "")
_NAMES_OF_AMD64 = ("amd64", "linux64")


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """Everything that one assertion records of where its build came from.

    A domain that the assertion does not record is absent from ``domains``; an empty one is there. Assertions without
    cache manifests were made before there were caches: theirs are empty. ``inputs``, ``environment`` and ``caches`` are
    digests of these parts, None when not recorded. ``base`` is the digest of the environment manifests as written.
    """

    domains: Mapping[Domain, Mapping[str, Value]]
    inputs: str
    environment: str | None
    caches: str
    base: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class _Part:
    values: Mapping[str, Value]
    digest: str


class Recorder:
    """Takes assertions apart; a manifest that many signers have alike is taken apart once."""

    def __init__(self) -> None:
        self._parts: dict[tuple[str, str, str], _Part] = {}

    def record(self, assertion: Assertion) -> Record:
        """The record of one assertion. Never fails."""
        domains: dict[Domain, Mapping[str, Value]] = {}
        commits = self._part("commits", "", assertion.in_manifest, lambda: _commits(assertion.in_manifest))
        files = self._part("inputs", "", assertion.in_manifest, lambda: _files(assertion.in_manifest))
        domains[Kind.COMMIT, ""], domains[Kind.INPUT, ""] = commits.values, files.values
        environment = base = None
        if assertion.base_manifests is not None:
            digests = []
            manifests = sorted(assertion.base_manifests)[:TARGETS_LIMIT]
            domains[Kind.TARGET, ""] = dict.fromkeys((label for label, _ in manifests), _PRESENT)
            for label, text in manifests:
                part = self._part("packages", _architecture(label), text, functools.partial(_packages, label, text))
                domains[Kind.PACKAGE, label] = part.values
                digests += [label, part.digest]
            environment = _digest(digests)
            base = _digest(word for label, text in sorted(assertion.base_manifests) for word in (label, text))
        caches: list[str] = []
        report = assertion.report
        for label, cache in (("common", report.cache_common_manifest), ("package", report.cache_package_manifest)):
            part = self._part("cache", "", cache or "", functools.partial(_files, cache or ""))
            domains[Kind.CACHE, label] = part.values
            caches += [label, part.digest]
        return Record(domains=domains, inputs=_digest([commits.digest, files.digest]), environment=environment,
                      caches=_digest(caches), base=base)

    def _part(self, what: str, label: str, text: str, read: Callable[[], dict[str, Value]]) -> _Part:
        found = self._parts.get((what, label, text))
        if found is None:
            values = read()
            words = (word for name in sorted(values) for word in (name, *values[name]))
            found = self._parts[what, label, text] = _Part(values=values, digest=_digest(words))
        return found


def _commits(text: str) -> dict[str, Value]:
    return {remote.dir: ("", remote.commit) for remote in Manifest.parse(text).remotes}


def _files(text: str) -> dict[str, Value]:
    manifest = Manifest.parse(text)
    values: dict[str, Value] = {path: ("", sha256) for path, sha256 in manifest.by_path().items()}
    for line in manifest.strange:  # it cannot be understood, and yet be what differs
        values.setdefault(f"(line that is no line of a manifest) {line[:200]}", ("", _digest([line])))
    return values


def _packages(label: str, text: str) -> dict[str, Value]:
    own = _architecture(label)
    values: dict[str, Value] = {}
    for path, (_, sha256) in _files(text).items():
        name, version = _named(path, own)
        held = values.get(name)
        if held is None or (order(version), sha256) > (order(held[0]), held[1]):
            values[name] = (version, sha256)
    return values


def _named(path: str, own: str) -> tuple[str, str]:
    """Package and version of a .deb by its name; a foreign architecture stays part of the package's name."""
    found = parse_deb_name(path)
    if found is None:
        return path, ""
    name, version, architecture = found
    return (name if architecture in (own, "all") else f"{name}:{architecture}"), version


def _architecture(label: str) -> str:
    """The dpkg architecture of '<suite>-<architecture>'."""
    last = label.rsplit("-", 1)[-1]
    return "amd64" if last in _NAMES_OF_AMD64 else last


def _digest(words: Iterable[str]) -> str:
    digest = hashlib.sha256()
    for word in words:
        data = word.encode("utf-8", "surrogateescape")
        digest.update(b"%d:" % len(data))
        digest.update(data)
    return digest.hexdigest()
