"""What was built from what: an in-toto Statement v1 with a SLSA Provenance v1 predicate, one per target of a build.

Sources: the in-toto attestation framework's Statement v1 and ResourceDescriptor v1, SLSA's provenance v1, the package
URL specification with its 'deb' type. What we write in which field: docs/reference/attestations.md.
"""

from __future__ import annotations

import re
import urllib.parse
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from gitian.errors import FormatError
from gitian.formats import jsonio
from gitian.formats.jsonio import Fields
from gitian.formats.manifest import Manifest
from gitian.names import parse_deb_name

STATEMENT_TYPE = "https://in-toto.io/Statement/v1"
PREDICATE_TYPE = "https://slsa.dev/provenance/v1"
#: What a payload of an envelope is called that holds a statement.
PAYLOAD_TYPE = "application/vnd.in-toto+json"
BUILD_TYPE = "urn:gitian:build:v1"
BUILDER = "urn:gitian:builder:"

#: A statement about 600 packages and a hundred outputs has 0.3 MB (bytes).
LIMIT = 16 * 2**20
_MOST = 100_000

DESCRIPTOR, FILE, REMOTE, PACKAGE = "descriptor", "file", "remote", "package"
BASE_IMAGE, KERNEL, INITRD = "base image", "kernel", "initrd"
ROLES = (DESCRIPTOR, FILE, REMOTE, BASE_IMAGE, KERNEL, INITRD, PACKAGE)

_COMMIT = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Material:
    """Something that went into a build. ``role`` is one of ROLES; ``digest`` a SHA-256, or a remote's commit."""

    role: str
    name: str
    digest: str
    uri: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Provenance:
    """One target of one build.

    ``subjects`` are (path, sha256) of the outputs that this target left, in the order of the report. ``builder`` is the
    backend, ``version`` gitian's. ``report`` is the SHA-256 of the report. ``started`` and ``finished`` are of the
    whole build (RFC 3339, UTC); all statements of one build have the same ``invocation``.
    """

    package: str
    suite: str
    architecture: str
    distro: str
    subjects: tuple[tuple[str, str], ...]
    materials: tuple[Material, ...]
    builder: str
    version: str
    report: str
    invocation: str
    started: str
    finished: str
    parameters: Mapping[str, Any] = field(default_factory=dict)

    @property
    def label(self) -> str:
        """'<suite>-<architecture>', the target's key in the report."""
        return f"{self.suite}-{self.architecture}"

    @property
    def report_name(self) -> str:
        """The report's file name, as which a target that left no output names it as its only subject."""
        return f"{self.package}-res.yml"

    def packages(self) -> dict[str, str]:
        """File name to SHA-256 of every package of the environment."""
        return {material.name: material.digest for material in self.materials if material.role == PACKAGE}

    def to_json(self) -> bytes:
        """The statement as it is written and signed: the same bytes for the same build but for runDetails.metadata."""
        return jsonio.dumps({
            "_type": STATEMENT_TYPE,
            "subject": [{"name": path, "digest": {"sha256": digest}}
                        for path, digest in self.subjects or ((self.report_name, self.report),)],
            "predicateType": PREDICATE_TYPE,
            "predicate": {
                "buildDefinition": {
                    "buildType": BUILD_TYPE,
                    "externalParameters": {"name": self.package, "suite": self.suite, "distro": self.distro,
                                           "architecture": self.architecture, **self.parameters},
                    "internalParameters": {},
                    "resolvedDependencies": [_dependency(material) for material in self.materials],
                },
                "runDetails": {
                    "builder": {"id": f"{BUILDER}{self.builder}:{self.version}",
                                "version": {"gitian": self.version}},
                    "metadata": {"invocationId": self.invocation, "startedOn": self.started,
                                 "finishedOn": self.finished},
                    "byproducts": [{"name": self.report_name, "digest": {"sha256": self.report}}],
                },
            },
        })

    @classmethod
    def parse(cls, data: bytes, source: str) -> Provenance:
        """Read a statement that this program wrote. Raises FormatError."""
        top = Fields(jsonio.loads(data, source, "in-toto statement", limit=LIMIT), source)
        for key, wanted in (("_type", STATEMENT_TYPE), ("predicateType", PREDICATE_TYPE)):
            if top.text(key) != wanted:
                raise FormatError(f"{source}: '{key}' is not '{wanted}'.")
        predicate = top.object("predicate")
        definition, run = predicate.object("buildDefinition"), predicate.object("runDetails")
        if definition.text("buildType") != BUILD_TYPE:
            raise FormatError(f"{source}: 'buildType' is not '{BUILD_TYPE}', so it tells of no build by gbuild.")
        given = definition.object("externalParameters")
        builder, metadata = run.object("builder"), run.object("metadata")
        backend, _, version = builder.text("id").removeprefix(BUILDER).partition(":")
        if not builder.text("id").startswith(BUILDER) or not backend or not version:
            raise FormatError(f"{source}: the builder '{builder.text('id')}' is not gbuild.")
        own = ("name", "suite", "architecture", "distro")
        package = given.text("name")
        reports = [item for item in run.objects("byproducts", most=100) if item.text("name") == f"{package}-res.yml"]
        if len(reports) != 1:
            raise FormatError(f"{source}: 'byproducts' must name the report '{package}-res.yml' once.")
        report = reports[0].object("digest").sha256("sha256")
        subjects = tuple((item.text("name"), item.object("digest").sha256("sha256"))
                         for item in top.objects("subject", most=_MOST))
        if not subjects:
            raise FormatError(f"{source}: 'subject' is empty.")
        if len({path for path, _ in subjects}) != len(subjects):
            raise FormatError(f"{source}: a subject stands there twice.")
        return cls(
            package=package, suite=given.text("suite"), architecture=given.text("architecture"),
            distro=given.text("distro"), builder=backend, version=version, report=report,
            subjects=() if subjects == ((f"{package}-res.yml", report),) else subjects,
            materials=tuple(_material(item) for item in definition.objects("resolvedDependencies", most=_MOST)),
            invocation=metadata.text("invocationId"), started=metadata.text("startedOn"),
            finished=metadata.text("finishedOn"),
            parameters={key: given.raw(key) for key in sorted(given.keys) if key not in own})


def package_url(file_name: str, *, distro: str, suite: str) -> str:
    """The package URL of a .deb by the name apt gives its file ('bash_1%3a5.2-1_amd64.deb'); '' for another name."""
    found = parse_deb_name(file_name)
    if found is None:
        return ""
    name, version, architecture = found
    quoted = urllib.parse.quote(version, safe=":~.-_")  # the specification leaves a colon as it is
    return (f"pkg:deb/{urllib.parse.quote(distro.lower(), safe='')}/{urllib.parse.quote(name, safe='.-_~')}@{quoted}"
            f"?arch={urllib.parse.quote(architecture, safe='')}&distro={urllib.parse.quote(suite, safe='')}")


def git_uri(url: str, commit: str) -> str:
    """Where a commit was fetched from, as SPDX writes it: without a user or password; '' for a local path."""
    scp = re.fullmatch(r"(?:[^@/:]+@)?([A-Za-z0-9.-]+\.[A-Za-z]+):([^/].*)", url)
    if scp is not None and "://" not in url:
        url = f"ssh://{scp[1]}/{scp[2]}"
    try:
        parts = urllib.parse.urlsplit(url)
        if parts.scheme not in ("https", "http", "git", "ssh") or not parts.hostname:
            return ""
        host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
        where = host + (f":{parts.port}" if parts.port else "")
    except ValueError:
        return ""
    return f"git+{parts.scheme}://{where}{parts.path}@{commit}"


def package_materials(manifest: str, *, distro: str, suite: str) -> tuple[Material, ...]:
    """Every package of an environment manifest."""
    return tuple(Material(role=PACKAGE, name=entry.path, digest=entry.sha256,
                          uri=package_url(entry.path, distro=distro, suite=suite))
                 for entry in Manifest.parse(manifest).entries)


def _dependency(material: Material) -> dict[str, Any]:
    kind = "gitCommit" if material.role == REMOTE else "sha256"
    found: dict[str, Any] = {"name": material.name, "digest": {kind: material.digest},
                             "annotations": {"role": material.role}}
    return {**found, "uri": material.uri} if material.uri else found


def _material(item: Fields) -> Material:
    role = item.object("annotations").text("role")
    digest = item.object("digest")
    if role not in ROLES:
        raise FormatError(f"A dependency has the unknown role '{role}'.")
    if role == REMOTE:
        value = digest.text("gitCommit")
        if _COMMIT.fullmatch(value) is None:
            raise FormatError(f"The commit '{value[:80]}' of a remote is none.")
    else:
        value = digest.sha256("sha256")
    return Material(role=role, name=item.text("name"), digest=value, uri=item.text("uri", ""))
