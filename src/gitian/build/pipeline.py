"""A whole build: descriptor -> plan -> inputs -> one target after the other -> report."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from gitian.build.outputs import manifest_of, merge
from gitian.build.request import TargetOutcome, TargetRequest
from gitian.build.target import build_target
from gitian.formats.descriptor import Descriptor
from gitian.formats.report import Report
from gitian.guest.protocol import Backend
from gitian.host import hashing, progress
from gitian.host.workspace import Workspace, write_atomically
from gitian.images.lookup import find_image
from gitian.inputs.prepare import prepare
from gitian.plan import BuildPlan, Options, make_plan


@dataclass(frozen=True, slots=True, kw_only=True)
class BuildRequest:
    """A descriptor to be built, in a workspace that the caller has locked."""

    descriptor: Path
    options: Options
    workspace: Workspace
    backend: Backend
    environment: Mapping[str, str] = field(default_factory=dict)
    tell: Callable[[str], None] = lambda line: None  # results, line by line: manifest, then the report's own hash


@dataclass(frozen=True, slots=True, kw_only=True)
class BuildOutcome:
    """A report, where it lies, and its SHA-256."""

    report: Report
    path: Path
    sha256: str


def build(request: BuildRequest) -> BuildOutcome:
    """Build every target of a descriptor and write the report. Raises any GitianError.

    An earlier report is removed first, so that none is left that looks like the success of a build that failed.
    """
    workspace = request.workspace
    descriptor = Descriptor.read(request.descriptor)
    plan = make_plan(descriptor, request.options)
    for note in plan.notes:
        progress.warn(note)
    request.backend.sweep(workspace.root)
    for target in plan.targets:  # a missing base image is better said before the inputs are fetched
        find_image(workspace.image_directory, suite=target.suite, arch=target.dpkg_arch,
                   backend=request.backend.name, distro=target.distro)
    report_path = workspace.result / f"{descriptor.name}-res.yml"
    report_path.unlink(missing_ok=True)
    for directory in (workspace.var, workspace.result, workspace.inputs):
        directory.mkdir(parents=True, exist_ok=True)
    _empty(workspace.build)
    if descriptor.enable_cache:
        for name in ("common", descriptor.name):
            (workspace.cache / name).mkdir(parents=True, exist_ok=True)
    inputs = prepare(plan, workspace)

    owners: dict[str, str] = {}
    manifests: dict[str, str] = {}
    last = plan.targets[-1] if plan.targets else None
    for target in plan.targets:
        progress.say(f"--- Building for {target.suite} {target.architecture} ---")
        with workspace.scratch() as scratch:
            outcome = build_target(TargetRequest(
                plan=plan, target=target, inputs=inputs, workspace=workspace, backend=request.backend,
                environment=request.environment, echo=bool(request.environment.get("CI")),
                keep=request.options.skip_cleanup and target is last), scratch)
            for conflict in merge(outcome.out, workspace.build / "out", label=outcome.label, owners=owners):
                progress.warn(f"'{conflict.path}' was made by {conflict.earlier} and by {conflict.later}, with "
                              f"different contents; the one of {conflict.later} is kept.")
            _keep_caches(outcome, plan, workspace)
            manifests[target.label] = outcome.manifest

    with progress.step("Generating report"):
        report = _report(plan, inputs.manifest_text, manifests, workspace)
        data = report.to_yaml().encode()
        write_atomically(report_path, data)
    for line in report.out_manifest.splitlines():
        request.tell(line)
    digest = hashing.sha256_bytes(data)
    request.tell(f"{digest}  {report_path.name}")
    return BuildOutcome(report=report, path=report_path, sha256=digest)


def _report(plan: BuildPlan, in_manifest: str, manifests: dict[str, str], workspace: Workspace) -> Report:
    cached = plan.descriptor.enable_cache
    return Report(
        out_manifest=manifest_of(workspace.build / "out"),
        in_manifest=in_manifest,
        base_manifests=tuple(manifests.items()),
        cache_common_manifest=manifest_of(workspace.cache / "common") if cached else "",
        cache_package_manifest=manifest_of(workspace.cache / plan.descriptor.name) if cached else "")


def _empty(directory: Path) -> None:
    """Make ``directory`` an empty directory. A link there is removed, never followed."""
    if directory.is_symlink() or directory.is_file():
        directory.unlink()
    elif directory.exists():
        shutil.rmtree(directory)
    (directory / "out").mkdir(parents=True)


def _keep_caches(outcome: TargetOutcome, plan: BuildPlan, workspace: Workspace) -> None:
    """Put what came back of the caches in the place of what was there.

    Each is renamed into its place, the old one out of it; a build that is killed in between leaves the old one beside
    it, in the scratch that the next run sweeps, and the cache is filled again.
    """
    for came, name in ((outcome.cache_common, "common"), (outcome.cache_package, plan.descriptor.name)):
        if came is None:
            continue
        place = workspace.cache / name
        if place.exists():
            shutil.move(place, came.with_name(came.name + ".old"))
        shutil.move(came, place)
