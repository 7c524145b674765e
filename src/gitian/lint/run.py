"""One document linted: a descriptor, a report or assertion, an environment, a manifest or a base image's record."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

from gitian.errors import FormatError
from gitian.formats import jsonio, yamlio
from gitian.formats.environment import LIMIT, Environment, EnvironmentFile
from gitian.formats.manifest import Manifest
from gitian.formats.report import Report
from gitian.formats.yamlio import MappingNode, ScalarNode
from gitian.lint import comments, rules
from gitian.lint.debian import Deb, deb_of
from gitian.lint.descriptor import check_descriptor
from gitian.lint.environment import check_environment, check_packages, check_source, check_suite
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

    ``kind`` is 'descriptor', 'report' or 'environment'; ``targets`` are those of the last two. ``environments`` are
    those of an environment file, ``sources`` those of a base image's record.
    """

    path: Path
    kind: str
    data: bytes
    targets: tuple[Target, ...] = ()
    sources: tuple[str, ...] = ()
    environments: tuple[Environment, ...] = ()


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
    for environment in document.environments:
        check_environment(environment, findings)
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
    """An environment file, or a base image's record, which has no 'format' and is read as far as it can be."""
    value = jsonio.loads(data, str(path), "environment", limit=LIMIT)
    if isinstance(value, dict) and "format" in value:
        environments = EnvironmentFile.parse(data, str(path)).environments
        return Document(path=path, kind="environment", data=data, environments=environments, targets=tuple(
            Target(suite=one.suite, architecture=one.architecture, packages=tuple(
                Deb(name=package.name, version=package.version, architecture=package.architecture)
                for package in one.packages)) for one in environments))
    suite, architecture = _text(value, "suite"), _text(value, "architecture")
    packages = _items(value, "packages")
    if suite is None or architecture is None or not packages:
        raise FormatError(f"{path}: this is no environment: it names no suite, architecture and packages.",
                          hint="Give a descriptor, a report, an assertion, an environment or a base image's record.")
    target = Target(suite=suite, architecture=architecture, packages=_packages(packages))
    sources = (source for source in _items(value, "sources") if isinstance(source, str))
    return Document(path=path, kind="environment", data=data, targets=(target,), sources=tuple(dict.fromkeys(sources)))


def _packages(values: list[object]) -> tuple[Deb, ...]:
    found = []
    for value in values:
        name, version = _text(value, "name"), _text(value, "version")
        if name is not None and version is not None:
            found.append(Deb(name=name, version=version, architecture=_text(value, "architecture") or ""))
    return tuple(found)


def _items(value: object, key: str) -> list[object]:
    inner = value.get(key) if isinstance(value, dict) else None
    return inner if isinstance(inner, list) else []


def _text(value: object, key: str) -> str | None:
    inner = value.get(key) if isinstance(value, dict) else None
    return inner if isinstance(inner, str) else None
