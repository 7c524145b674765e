"""From a finished build to its statements, one per target; and where they lie beside the report."""

from __future__ import annotations

import datetime
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from gitian.formats import provenance
from gitian.formats.image_record import ImageRecord
from gitian.formats.manifest import Manifest
from gitian.formats.provenance import Material, Provenance
from gitian.formats.report import Report
from gitian.host.workspace import write_atomically

if TYPE_CHECKING:
    from gitian.inputs.prepare import PreparedInputs
    from gitian.plan import BuildPlan, Target

#: In var/: which build left what lies in build/out.
_LAST = "last-build"


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """One run of gbuild, which all of its statements name."""

    invocation: str = field(default_factory=lambda: uuid.uuid4().urn)
    started: str = field(default_factory=lambda: now())


@dataclass(frozen=True, slots=True, kw_only=True)
class Finished:
    """A build whose report is written. ``owners`` says which target left which output; ``images`` go by label."""

    plan: BuildPlan
    inputs: PreparedInputs
    report: Report
    report_sha256: str
    owners: Mapping[str, str]
    images: Mapping[str, ImageRecord]
    backend: str
    run: Run


def now() -> str:
    """The time in UTC, to the second, as RFC 3339 writes it."""
    return datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def path_of(result: Path, name: str, label: str) -> Path:
    """Where the statement about a target lies."""
    return result / f"{name}-{label}.intoto.json"


def begin(plan: BuildPlan, result: Path, var: Path) -> Run:
    """Remove what an earlier build of these targets left, so that nothing looks like the success of one that fails."""
    for target in plan.targets:
        path_of(result, plan.name, target.label).unlink(missing_ok=True)
    (var / _LAST).unlink(missing_ok=True)
    return Run()


def write(finished: Finished, result: Path, var: Path) -> None:
    """Write a statement per target beside the report. Raises HostError."""
    for statement in statements(finished):
        write_atomically(path_of(result, finished.plan.name, statement.label), statement.to_json())
    write_atomically(var / _LAST, f"{finished.run.invocation}\n".encode())


def last_build(var: Path) -> str:
    """The invocation that left what lies in build/out; '' when the last build failed, or there was none."""
    try:
        with (var / _LAST).open("rb") as file:
            return file.read(200).decode("ascii", errors="replace").strip()
    except OSError:
        return ""


def statements(finished: Finished) -> tuple[Provenance, ...]:
    """A statement per target, in the order they were built. An output that several left is the last one's."""
    from importlib.metadata import version

    ended = now()
    outputs = Manifest.parse(finished.report.out_manifest).entries
    return tuple(Provenance(
        package=finished.plan.name, suite=target.suite, architecture=target.architecture, distro=target.distro,
        subjects=tuple((entry.path, entry.sha256) for entry in outputs
                       if finished.owners.get(entry.path) == target.label),
        materials=_materials(finished, target), builder=finished.backend, version=version("gitian"),
        report=finished.report_sha256, invocation=finished.run.invocation, started=finished.run.started,
        finished=ended, parameters=_parameters(finished)) for target in finished.plan.targets)


def _parameters(finished: Finished) -> dict[str, object]:
    """What the script can see of how gbuild was called."""
    options = finished.plan.options
    return {"allowSudo": finished.plan.sudo, "numMake": options.num_make, "memory": options.memory,
            "referenceDatetime": finished.inputs.reference_datetime,
            **({} if finished.plan.network else {"network": False})}


def _materials(finished: Finished, target: Target) -> tuple[Material, ...]:
    plan, inputs, image = finished.plan, finished.inputs, finished.images[target.label]
    urls = {remote.dir: remote.url for remote in plan.remotes}
    base = f"base-{target.suite}-{target.dpkg_arch}"
    found = [Material(role=provenance.DESCRIPTOR, name=f"{plan.name}-desc.yml", digest=plan.descriptor.sha256)]
    found += [Material(role=provenance.FILE, name=file.name, digest=file.sha256) for file in inputs.files]
    found += [Material(role=provenance.REMOTE, name=remote.dir, digest=remote.commit,
                       uri=provenance.git_uri(urls[remote.dir], remote.commit)) for remote in inputs.remotes]
    found.append(Material(role=provenance.BASE_IMAGE, name=f"{base}.tar", digest=image.tarball_sha256))
    if finished.backend == "kvm":
        found += [Material(role=role, name=f"{base}.{suffix}", digest=str((image.kvm or {})[key]))
                  for role, suffix, key in ((provenance.KERNEL, "vmlinuz", "kernel_sha256"),
                                            (provenance.INITRD, "initrd", "initrd_sha256"))]
    manifest = dict(finished.report.base_manifests or ())[target.label]
    return (*found, *provenance.package_materials(manifest, distro=target.distro, suite=target.suite))
