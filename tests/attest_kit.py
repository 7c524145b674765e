"""What tests of attestations share: a build's report and statements made by hand, of more than one kind of input."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from gitian.attest.statements import path_of
from gitian.formats import provenance
from gitian.formats.manifest import Manifest
from gitian.formats.provenance import Material, Provenance, package_materials
from gitian.formats.report import Report

DESCRIPTOR = """\
---
name: "pkg"
distro: "debian"
suites: ["bookworm"]
architectures: ["amd64"]
packages: []
reference_datetime: "2013-06-01 00:00:00"
remotes: []
files: []
script: ""
"""
COMMIT = "c" * 40
OUTPUTS = {"pkg.tar.gz": b"the package\n", "src/pkg-1.0.tar.gz": b"its source\n"}
ENVIRONMENT = "{}  bash_5.2.15-2+b2_amd64.deb\n{}  zlib1g_1%3a1.2.13_amd64.deb\n".format("1" * 64, "2" * 64)


def digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def report(outputs: Mapping[str, bytes] = OUTPUTS, environments: Mapping[str, str] | None = None) -> Report:
    """A report as gbuild writes it of a descriptor with a file and a remote."""
    return Report(
        out_manifest=Manifest.sorted((digest(data), path) for path, data in outputs.items()).text(),
        in_manifest=f"{digest(DESCRIPTOR.encode())}  pkg-desc.yml\n{'3' * 64}  patch.diff\ngit:{COMMIT} src",
        base_manifests=tuple((environments or {"bookworm-amd64": ENVIRONMENT}).items()))


def statement(of: Report, *, label: str = "bookworm-amd64", backend: str = "lxc",
              subjects: tuple[tuple[str, str], ...] | None = None) -> Provenance:
    """The statement about a target, by the specification of docs/reference/attestations.md, not by gbuild's code."""
    suite, architecture = label.split("-")
    materials = [Material(role=provenance.DESCRIPTOR, name="pkg-desc.yml", digest=digest(DESCRIPTOR.encode())),
                 Material(role=provenance.FILE, name="patch.diff", digest="3" * 64),
                 Material(role=provenance.REMOTE, name="src", digest=COMMIT,
                          uri=f"git+https://example.invalid/src.git@{COMMIT}"),
                 Material(role=provenance.BASE_IMAGE, name=f"base-{label}.tar", digest="4" * 64),
                 Material(role=provenance.KERNEL, name=f"base-{label}.vmlinuz", digest="5" * 64)]
    return Provenance(
        package="pkg", suite=suite, architecture=architecture, distro="debian",
        subjects=subjects if subjects is not None else
        tuple((entry.path, entry.sha256) for entry in Manifest.parse(of.out_manifest).entries),
        materials=(*materials, *package_materials(dict(of.base_manifests or ())[label], distro="debian", suite=suite)),
        builder=backend, version="0.1.0", report=digest(of.to_yaml().encode()), invocation="urn:uuid:1-2-3",
        started="2026-01-01T00:00:00Z", finished="2026-01-01T00:02:05Z", parameters={"numMake": 2})


STATEMENT = statement(report())


def workspace(where: Path, of: Report | None = None, statements: tuple[Provenance, ...] | None = None,
              outputs: Mapping[str, bytes] = OUTPUTS) -> Path:
    """Lay a finished build out as gbuild leaves it; the descriptor's path."""
    of = of or report(outputs)
    for name in ("result", "var", "build/out"):
        (where / name).mkdir(parents=True, exist_ok=True)
    (where / "pkg.yml").write_text(DESCRIPTOR)
    (where / "result" / "pkg-res.yml").write_bytes(of.to_yaml().encode())
    for each in statements if statements is not None else (statement(of),):
        path_of(where / "result", "pkg", each.label).write_bytes(each.to_json())
    (where / "var" / "last-build").write_text("urn:uuid:1-2-3\n")
    for path, data in outputs.items():
        (where / "build" / "out" / path).parent.mkdir(parents=True, exist_ok=True)
        (where / "build" / "out" / path).write_bytes(data)
    return where / "pkg.yml"


def other_run(one: Provenance, number: int) -> Provenance:
    """The same build on another machine, at another time."""
    return replace(one, invocation=f"urn:uuid:{number}", started="2026-02-01T00:00:00Z",
                   finished="2026-02-01T00:01:00Z")
