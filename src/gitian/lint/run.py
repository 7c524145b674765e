"""One document linted: a descriptor, a report or assertion, an environment, a manifest or a base image's record."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

from gitian.errors import FormatError
from gitian.formats import yamlio
from gitian.formats.manifest import Manifest
from gitian.formats.report import Report
from gitian.formats.yamlio import MappingNode, ScalarNode
from gitian.lint import comments, rules
from gitian.lint.debian import Deb, deb_of
from gitian.lint.descriptor import check_descriptor
from gitian.lint.environment import check_packages, check_source, check_suite
from gitian.lint.model import LEFT_OUT, Circumstances, Finding, Findings

_ARCHITECTURES = {"linux64": "amd64"}
_MANIFEST = re.compile(rb"[0-9a-f]{64}  \S+\.u?deb\r?\n")
_MANIFEST_NAME = re.compile(r"(?:base-)?([A-Za-z0-9_.]+)-([a-z0-9]+)\.manifest")


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """What was installed where: suite, architecture and packages."""

    suite: str
    architecture: str
    packages: tuple[Deb, ...]

    @property
    def label(self) -> str:
        """'<suite>-<arch>'."""
        return f"{self.suite}-{self.architecture}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Document:
    """A document as far as it is known before it is judged.

    ``kind`` is 'descriptor', 'report' or 'environment'; ``targets`` and ``sources`` are those of the last two.
    """

    path: Path
    kind: str
    data: bytes
    targets: tuple[Target, ...] = ()
    sources: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """A document's findings, those suppressed among them."""

    document: Document
    findings: tuple[Finding, ...]

    @property
    def open(self) -> tuple[Finding, ...]:
        """The findings that are not suppressed."""
        return tuple(finding for finding in self.findings if finding.suppressed is None)


def read(path: Path) -> Document:
    """Read a document and see what it is. Raises FormatError, DescriptorError."""
    data = yamlio.read_bounded(path, "document")
    if data.lstrip()[:1] == b"{":
        return _environment(path, data)
    if _MANIFEST.match(data):
        return _manifest(path, data)
    node = yamlio.parse(data, str(path))
    if isinstance(node, MappingNode) and not any(
            isinstance(key, ScalarNode) and key.text in ("out_manifest", "base_manifests") for key, _ in node.pairs):
        return Document(path=path, kind="descriptor", data=data)
    report = Report.parse(data, str(path))
    targets = []
    for label, text in report.base_manifests or ():
        suite, _, architecture = label.rpartition("-")
        targets.append(Target(suite=suite or label, architecture=_ARCHITECTURES.get(architecture, architecture),
                              packages=_debs(entry.path for entry in Manifest.parse(text).entries)))
    return Document(path=path, kind="report", data=data, targets=tuple(targets))


def lint(document: Document, circumstances: Circumstances, ignored: Iterable[str] = ()) -> Outcome:
    """Apply all rules to a document; ``ignored`` are rules that the user has said to leave out.

    Raises DescriptorError when it should be a descriptor and is none.
    """
    findings = Findings()
    if document.kind == "descriptor":
        check_descriptor(document.data, str(document.path), circumstances, findings)
    for target in document.targets:
        check_suite(target.suite, circumstances, findings, where=target.label)
        check_packages(target.packages, target.suite, target.architecture, circumstances, findings, where=target.label)
    for source in document.sources:
        check_source(source, findings, where="sources", own=True)
    if document.targets and circumstances.offers is None:
        findings.add(rules.PACKAGES_NOT_COMPARED, "Whether newer versions of the packages exist is not known: no "
                     "archive was asked (--archive, --index).", where="packages")
    found = findings.ordered()
    if document.kind == "descriptor":
        found = comments.apply(found, comments.find_comments(document.data.decode("utf-8", "replace")))
    left_out = set(ignored)
    return Outcome(document=document, findings=tuple(
        replace(finding, suppressed=LEFT_OUT) if finding.rule.id in left_out else finding
        for finding in found))


def _debs(names: Iterable[str]) -> tuple[Deb, ...]:
    return tuple(package for package in map(deb_of, names) if package is not None)


def _manifest(path: Path, data: bytes) -> Document:
    found = _MANIFEST_NAME.fullmatch(path.name)
    entries = Manifest.parse(data.decode("utf-8", "surrogateescape")).entries
    target = Target(suite=found[1] if found else "unknown", architecture=found[2] if found else "amd64",
                    packages=_debs(entry.path for entry in entries))
    return Document(path=path, kind="environment", data=data, targets=(target,))


def _environment(path: Path, data: bytes) -> Document:
    """A JSON document that names suite, architecture and packages: an environment, or the record of a base image."""
    try:
        value = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise FormatError(f"{path}: this is no JSON that can be read: {str(error)[:200]}.") from error
    targets, sources = [], []
    for part in [value, *_items(value, "targets"), *_items(value, "environments")]:
        suite = _text(part, "suite")
        architecture = _text(part, "architecture") or _text(part, "arch")
        if suite is not None and architecture is not None and isinstance(part.get("packages"), list):
            targets.append(Target(suite=suite, architecture=architecture, packages=_packages(part["packages"])))
        sources += [source for source in part.get("sources", ()) if isinstance(source, str)] if isinstance(
            part, dict) and isinstance(part.get("sources"), list) else []
    if not targets:
        raise FormatError(f"{path}: this is no environment: it names no suite, architecture and packages.",
                          hint="Give a descriptor, a report, an assertion, an environment or a base image's record.")
    return Document(path=path, kind="environment", data=data, targets=tuple(targets),
                    sources=tuple(dict.fromkeys(sources)))


def _packages(values: list[object]) -> tuple[Deb, ...]:
    found = []
    for value in values:
        if isinstance(value, str):
            package = deb_of(value.split()[-1]) if value.split() else None
        else:
            name, version = _text(value, "name"), _text(value, "version")
            package = Deb(name=name, version=version, architecture=_text(value, "architecture") or "") \
                if name is not None and version is not None else None
        if package is not None:
            found.append(package)
    return tuple(found)


def _items(value: object, key: str) -> list[dict[str, object]]:
    inner = value.get(key) if isinstance(value, dict) else None
    return [item for item in inner if isinstance(item, dict)] if isinstance(inner, list) else []


def _text(value: object, key: str) -> str | None:
    inner = value.get(key) if isinstance(value, dict) else None
    return inner if isinstance(inner, str) else None
