"""The environment of a descriptor, recorded without building anything."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from gitian.build import exact, guests
from gitian.build.exact import Wanted
from gitian.build.layer import store_of
from gitian.build.pipeline import sweep
from gitian.build.request import TargetRequest
from gitian.environment.layers import size_limit
from gitian.errors import GuestError
from gitian.formats.descriptor import Descriptor
from gitian.formats.environment import Environment, EnvironmentFile, of_report
from gitian.formats.report import Report
from gitian.guest.protocol import Backend
from gitian.host import progress
from gitian.host.workspace import Workspace
from gitian.images.exact import kernel_of, limit_of, prune
from gitian.images.lookup import find_image
from gitian.images.obtain import Places
from gitian.inputs.prepare import PreparedInputs
from gitian.plan import BuildPlan, Options, Target, make_plan

#: A guest that builds nothing gets nothing.
_NOTHING = PreparedInputs(files=(), remotes=(), manifest_text="", reference_datetime="")


@dataclass(frozen=True, slots=True, kw_only=True)
class SnapshotRequest:
    """A descriptor whose environment is to be recorded, in a workspace that the caller has locked.

    With ``places``, where packages come from, the root filesystem of exactly these packages is made too, twice: if it
    is the same both times, its digest is stated.
    """

    descriptor: Path
    options: Options
    workspace: Workspace
    backend: Backend
    environment: Mapping[str, str] = field(default_factory=dict)
    places: Places | None = None


def snapshot(request: SnapshotRequest) -> EnvironmentFile:
    """Install every target's packages in a guest (or find the layer that has them) and say which they are.

    Targets that have the same guest (amd64 and linux64) have one environment. Raises any GitianError.
    """
    plan = make_plan(Descriptor.read(request.descriptor), request.options, commits=False)
    sweep(request.backend, request.workspace)
    found: dict[tuple[str, str], Environment] = {}
    layers: set[Path] = set()
    request.workspace.var.mkdir(parents=True, exist_ok=True)
    for target in plan.targets:
        if (target.suite, target.dpkg_arch) not in found:
            environment, layer = _one(request, plan, target)
            found[target.suite, target.dpkg_arch] = environment
            layers |= {layer} if layer is not None else set()
    store_of(request.workspace.var).prune(size_limit(request.environment), keep=layers)
    environments = tuple(found.values())
    if request.places is not None:
        wanted = Wanted(origin=str(request.descriptor), environments=environments, places=request.places)
        images = {base.exact.label: base.image for base in exact.images_of(
            wanted, plan, request.workspace, request.backend.name).values() if base.exact is not None}
        bases = {one.label: exact.base_of(one, images[one.label], wanted, request.workspace, request.backend.name)
                 for one in environments}
        prune(request.workspace.image_directory, limit_of(request.environment),
              [image.path.parent for image in images.values()])
        environments = tuple(replace(one, base=bases[one.label]) for one in environments)
    return EnvironmentFile(environments=environments)


def _one(request: SnapshotRequest, plan: BuildPlan, target: Target) -> tuple[Environment, Path | None]:
    image = find_image(request.workspace.image_directory, suite=target.suite, arch=target.dpkg_arch,
                       backend=request.backend.name, distro=target.distro)
    asked = TargetRequest(plan=plan, target=target, image=image, inputs=_NOTHING, workspace=request.workspace,
                          backend=request.backend, environment=request.environment, state=request.workspace.root)
    progress.say(f"--- Environment of {target.suite} {target.architecture} ---")
    ready = guests.prepared(asked)
    if ready.guest is not None:
        with contextlib.suppress(GuestError):
            ready.guest.close()
    label = f"{target.suite}-{target.dpkg_arch}"
    report = Report(out_manifest="", in_manifest="", base_manifests=((label, ready.manifest),))
    (found,) = of_report(report, distro=target.distro, source=label)
    return replace(found, kernel=kernel_of(image.record), sources=asked.source_lines), ready.layer
