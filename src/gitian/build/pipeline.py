"""A whole build: descriptor -> plan -> inputs -> one target after the other -> report."""

from __future__ import annotations

import functools
import os
import re
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from gitian.attest import statements
from gitian.attest.statements import Finished
from gitian.build import exact
from gitian.build.comparison import Comparison, compare
from gitian.build.exact import Base, Wanted
from gitian.build.layer import store_of
from gitian.build.log import empty_logs
from gitian.build.outputs import manifest_of, merge
from gitian.build.request import TargetOutcome, TargetRequest
from gitian.build.target import build_target
from gitian.environment.layers import size_limit
from gitian.formats import fetched
from gitian.formats.descriptor import Descriptor
from gitian.formats.report import Report
from gitian.guest.protocol import Backend
from gitian.host import hashing, progress
from gitian.host.children import Work, together
from gitian.host.workspace import Workspace, give_to_caller, remove_tree, write_atomically
from gitian.images import exact as images_of_environments
from gitian.images.lookup import find_image
from gitian.inputs.prepare import PreparedInputs, prepare
from gitian.plan import BuildPlan, Options, Target, make_plan


@dataclass(frozen=True, slots=True, kw_only=True)
class BuildRequest:
    """A descriptor to be built, in a workspace that the caller has locked; with ``wanted`` in these environments."""

    descriptor: Path
    options: Options
    workspace: Workspace
    backend: Backend
    environment: Mapping[str, str] = field(default_factory=dict)
    wanted: Wanted | None = None
    tell: Callable[[str], None] = lambda line: None  # results, line by line: manifest, then the report's own hash


@dataclass(frozen=True, slots=True, kw_only=True)
class BuildOutcome:
    """A report, where it lies, and its SHA-256; of a rebuild, what became of each recorded output."""

    report: Report
    path: Path
    sha256: str
    comparison: Comparison | None = None


def build(request: BuildRequest) -> BuildOutcome:
    """Build every target of a descriptor and write the report. Raises any GitianError.

    An earlier report is removed first, so that none is left that looks like the success of a build that failed. Through
    sudo, what is for the user belongs to the user.
    """
    workspace = request.workspace
    descriptor, options = Descriptor.read(request.descriptor), request.options
    if request.wanted is not None:
        options = exact.as_recorded(options, request.wanted, [remote.dir for remote in descriptor.remotes])
    plan = make_plan(descriptor, options)
    for note in plan.notes:
        progress.warn(note)
    try:
        return _build(request, plan)
    finally:
        give_to_caller(workspace.inputs, request.environment, below=False)
        for tree in (workspace.build, workspace.result, workspace.cache,
                     *(workspace.inputs / remote.dir for remote in plan.remotes)):
            give_to_caller(tree, request.environment)


def _build(request: BuildRequest, plan: BuildPlan) -> BuildOutcome:
    workspace = request.workspace
    sweep(request.backend, workspace)
    bases = _bases(request, plan)  # a missing base image is better said before the inputs are fetched
    exactly = [base.image.path.parent for base in bases.values() if base.exact is not None]
    try:
        with images_of_environments.held(exactly):
            return _build_from(bases, request, plan)
    finally:
        if exactly:
            images_of_environments.prune(workspace.image_directory,
                                         images_of_environments.limit_of(request.environment), exactly)


def _build_from(bases: Mapping[str, Base], request: BuildRequest, plan: BuildPlan) -> BuildOutcome:
    workspace, descriptor = request.workspace, plan.descriptor
    report_path = workspace.result / f"{descriptor.name}-res.yml"
    report_path.unlink(missing_ok=True)
    run = statements.begin(plan, workspace.result, workspace.var)
    for target in plan.targets:
        _fetched_path(workspace, plan, target.label).unlink(missing_ok=True)
    for directory in (workspace.var, workspace.result, workspace.inputs):
        directory.mkdir(parents=True, exist_ok=True)
    empty_logs(workspace.var)
    _empty(workspace.build)
    if descriptor.enable_cache:
        for name in ("common", descriptor.name):
            (workspace.cache / name).mkdir(parents=True, exist_ok=True)
    inputs = prepare(plan, workspace)
    if request.wanted is not None:
        exact.check_commits(request.wanted, inputs)

    owners: dict[str, str] = {}
    manifests: dict[str, str] = {}
    records: dict[str, bytes] = {}
    layers: set[Path] = set()
    for targets in _rounds(plan):
        with workspace.scratch() as scratch:
            for outcome in _build_round(targets, plan, request, inputs, bases, scratch):
                for conflict in merge(outcome.out, workspace.build / "out", label=outcome.label, owners=owners):
                    progress.warn(f"'{conflict.path}' was made by {conflict.earlier} and by {conflict.later}, with "
                                  f"different contents; the one of {conflict.later} is kept.")
                _keep_caches(outcome, plan, workspace)
                manifests[outcome.label] = outcome.manifest
                records[outcome.label] = fetched.to_json(outcome.label, plan.network, outcome.fetched)
                layers |= {outcome.layer} if outcome.layer is not None else set()
    # Not before: one of several targets must not take away what another starts from.
    store_of(workspace.var).prune(size_limit(request.environment), keep=layers)

    with progress.step("Generating report"):
        report = _report(plan, inputs.manifest_text, manifests, workspace)
        data = report.to_yaml().encode()
        digest = hashing.sha256_bytes(data)
        statements.write(Finished(plan=plan, inputs=inputs, report=report, report_sha256=digest, owners=owners,
                                  images={label: base.image.record for label, base in bases.items()},
                                  backend=request.backend.name, run=run),
                         workspace.result, workspace.var)
        for label, record in records.items():
            write_atomically(_fetched_path(workspace, plan, label), record)
        write_atomically(report_path, data)
    for line in report.out_manifest.splitlines():
        request.tell(line)
    request.tell(f"{digest}  {report_path.name}")
    comparison = None
    if request.wanted is not None and request.wanted.like is not None:
        comparison = compare(request.wanted.like, report)
        for line in comparison.lines():
            request.tell(line)
    return BuildOutcome(report=report, path=report_path, sha256=digest, comparison=comparison)


def _fetched_path(workspace: Workspace, plan: BuildPlan, label: str) -> Path:
    return workspace.result / f"{plan.name}-{label}-fetched.json"


def _bases(request: BuildRequest, plan: BuildPlan) -> dict[str, Base]:
    """What each target's guest is made from, by the target's label."""
    if request.wanted is not None:
        return exact.images_of(request.wanted, plan, request.workspace, request.backend.name)
    return {target.label: Base(image=find_image(
        request.workspace.image_directory, suite=target.suite, arch=target.dpkg_arch, backend=request.backend.name,
        distro=target.distro)) for target in plan.targets}


def sweep(backend: Backend, workspace: Workspace) -> None:
    """End and remove what dead builds left in a workspace: guests, states of parallel guests, unfinished layers."""
    backend.sweep(workspace.root)
    _sweep_aside(backend, workspace)
    store_of(workspace.var).sweep()


def _sweep_aside(backend: Backend, workspace: Workspace) -> None:
    for name in ("vary", "vary-between"):
        if (workspace.var / name).is_dir():
            backend.sweep(workspace.var / name / "guest")
    aside = workspace.var / "parallel"
    if aside.is_dir() and not aside.is_symlink():
        for place in aside.iterdir():
            backend.sweep(place)
            remove_tree(place)


def jobs(plan: BuildPlan, *, memory: int | None = None, processors: int | None = None) -> int:
    """How many targets are built at a time: --parallel, else what processors and memory (MiB) of this machine allow.

    By default that is two to a processor, if there is memory for them: a build waits, for its packages and its disk.
    One, when each target has to find what the one before it left: its caches, or (--skip-image) itself. One also when
    two need the same guest (amd64 and linux64): they share a layer, and one would put it in the other's place.
    """
    options = plan.options
    if len(plan.targets) < 2 or options.skip_image or (plan.descriptor.enable_cache and not options.cache_read_only):
        return 1
    if len({(target.suite, target.dpkg_arch) for target in plan.targets}) < len(plan.targets):
        return 1
    if options.parallel:
        return min(options.parallel, len(plan.targets))
    processors = processors or len(os.sched_getaffinity(0))
    memory = memory if memory is not None else _free_memory()
    return max(1, min(len(plan.targets), 2 * processors, memory // options.memory))


def _free_memory() -> int:
    """What a program could have without swapping (MiB; proc(5), /proc/meminfo)."""
    found = re.search(r"^MemAvailable:\s+(\d+) kB", Path("/proc/meminfo").read_text(), re.MULTILINE)
    return int(found[1]) // 1024 if found else 0


def _rounds(plan: BuildPlan) -> list[list[Target]]:
    """The targets that are built before anything of theirs is merged: all at once, or one after the other."""
    if jobs(plan) > 1:
        return [list(plan.targets)]
    return [[target] for target in plan.targets]


def _build_round(targets: list[Target], plan: BuildPlan, request: BuildRequest, inputs: PreparedInputs,
                 bases: Mapping[str, Base], scratch: Path) -> list[TargetOutcome]:
    """Build targets, side by side if they are several, each into a directory of its own in ``scratch``."""
    side_by_side = len(targets) > 1
    pieces = []
    for target in targets:
        last = target is plan.targets[-1]
        place = scratch / target.label
        place.mkdir()
        # A guest's state is kept per workspace: each of several at a time gets a place of its own in var/, save the
        # last, which --skip-cleanup may leave to the libexec utilities.
        state = request.workspace.root
        if side_by_side and not last:
            state = request.workspace.var / "parallel" / target.label
            (state / "var").mkdir(parents=True, exist_ok=True)
        one = TargetRequest(
            plan=plan, target=target, image=bases[target.label].image, exact=bases[target.label].exact,
            fetched=bases[target.label].fetched, inputs=inputs,
            workspace=request.workspace, backend=request.backend, environment=request.environment,
            echo=bool(request.environment.get("CI")), state=state,
            log_suffix=f"-{target.label}" if side_by_side and not last else "",
            keep=request.options.skip_cleanup and last)
        pieces.append(Work(name=target.label, do=functools.partial(build_target, one, place)))
    if side_by_side:
        progress.say(f"--- Building for {', '.join(target.label for target in targets)} ---")
        try:
            return together(pieces, at_once=jobs(plan))
        finally:
            _sweep_aside(request.backend, request.workspace)
    progress.say(f"--- Building for {targets[0].suite} {targets[0].architecture} ---")
    return [pieces[0].do()]


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
