"""Packages are installed once: the guest that has them is frozen as a layer, and later guests start from it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gitian.build.install import Installed
from gitian.build.request import TargetRequest
from gitian.environment import indices
from gitian.environment.indices import Index, SourceLine
from gitian.environment.layers import VERSION, Layer, LayerRecord, LayerStore, intent_of, size_of
from gitian.errors import FetchError, GuestError
from gitian.formats.fetched import Fetched
from gitian.guest.protocol import HOST_ADDRESS, FreezableGuest, FreezingBackend, Guest
from gitian.host import progress

_LISTS = "/var/lib/apt/lists"


@dataclass(frozen=True, slots=True, kw_only=True)
class Prepared:
    """What a build starts from: a layer, or (with ``guest``) a guest that has its packages already."""

    manifest: str
    fetched: tuple[Fetched, ...] = ()
    layer: Path | None = None
    guest: Guest | None = None


def store_of(workspace_var: Path) -> LayerStore:
    """The layers of a workspace."""
    return LayerStore(workspace_var / "layers")


def prepare(request: TargetRequest, start: Callable[[], Guest], install: Callable[[Guest], Installed], *,
            anew: bool = False) -> Prepared:
    """Find the layer that fits, or make it: ``start`` starts a clean guest, ``install`` gives it its packages.

    With ``anew`` a layer that is there is not looked at, but replaced.

    Where no layer can be made (--no-layers, a source that cannot be asked whether it has changed), the guest that was
    installed is returned to go on in. Raises FetchError (--offline without a layer; a source that does not answer) and
    whatever ``start`` and ``install`` raise.
    """
    options = request.plan.options
    store = LayerStore(request.workspace.layers)
    sources = indices.parse_sources(request.source_lines)
    wanted = options.layers and sources is not None
    intent = intent_of(_ingredients(request))
    if wanted and not anew and (request.offline or not options.upgrade):
        layer = _usable(store, intent, offline=request.offline)
        if layer is not None:
            return Prepared(manifest=layer.record.manifest, fetched=layer.record.fetched, layer=layer.path)
    if request.offline:
        raise FetchError(f"There is no layer for {request.target.label} to build from offline.",
                         hint="Build once without --offline (and without --no-layers).")
    guest = start()
    try:
        done = install(guest)
        found = _indices(guest, sources, request) if wanted and sources is not None else None
        if found is None or not isinstance(guest, FreezableGuest):
            return Prepared(manifest=done.manifest, fetched=done.fetched, guest=guest)
    except BaseException:
        guest.close()
        raise
    with progress.step("Keeping the installed packages as a layer"):
        layer = _freeze(guest, store, request, intent, found, done)
    return Prepared(manifest=done.manifest, fetched=done.fetched, layer=layer.path)


def _ingredients(request: TargetRequest) -> dict[str, Any]:
    """Everything that goes into a layer but the archive's state."""
    descriptor, options, image = request.plan.descriptor, request.plan.options, request.image
    found: dict[str, Any] = {
        "backend": request.backend.name, "base": image.record.tarball_sha256, "distro": request.target.distro,
        "suite": request.target.suite, "architecture": request.target.dpkg_arch,
        "sources": list(image.record.sources), "packages": list(descriptor.packages),
        "multiarch": list(descriptor.multiarch),
        "repositories": [[one.distribution, one.source, list(one.packages)] for one in descriptor.repositories],
        "alternatives": [[one.package, one.path] for one in descriptor.alternatives],
    }
    if request.backend.name == "kvm":
        # A machine is frozen with its processors, its memory and its kernel.
        kvm = image.record.kvm or {}
        found["machine"] = {
            "kernel": kvm.get("kernel_sha256"), "initrd": kvm.get("initrd_sha256"), "disk": kvm.get("disk_sha256"),
            "memory": options.memory, "processors": options.num_make}
    if isinstance(request.backend, FreezingBackend):
        found["host"] = request.backend.identity(image=image.path, arch=request.target.dpkg_arch,
                                                 workspace=request.state, environment=request.environment)
    return found


def _usable(store: LayerStore, intent: str, *, offline: bool) -> Layer | None:
    layer = store.find(intent)
    if layer is None:
        return None
    if offline:
        store.touch(layer)
        progress.warn("Offline: the packages are those of the layer, whatever the archive has today.")
        return layer
    if not layer.record.indices:  # nothing came from an archive
        store.touch(layer)
        return layer
    with progress.step("Asking whether the archive has changed"):
        same, now = indices.check(layer.record.indices)
        if not same:
            return None
        store.touch(layer, now)
        return layer


def _indices(guest: Guest, sources: tuple[SourceLine, ...], request: TargetRequest) -> tuple[Index, ...] | None:
    """The signed indices that this guest's packages came from, as they are to be asked for the next time."""
    answer = guest.run(["sh", "-c", "sha256sum -- *Release"], user="root", cwd=_LISTS, check=False,
                       limit=2**20).stdout
    digests = {}
    for line in answer.decode(errors="replace").splitlines():
        digest, _, name = line.partition("  ")
        digests[name] = digest
    host_address = request.environment.get("GITIAN_HOST_IP") or HOST_ADDRESS
    return indices.remember(sources, digests, host_address)


def _freeze(guest: FreezableGuest, store: LayerStore, request: TargetRequest, intent: str,
            found: tuple[Index, ...], done: Installed) -> Layer:
    descriptor = request.plan.descriptor
    with store.making() as (partial, finish):
        guest.freeze(partial)
        if not partial.is_dir():
            raise GuestError("The guest was to be frozen as a layer, and left nothing.")
        return finish(LayerRecord(
            version=VERSION, backend=request.backend.name, label=request.target.label, intent=intent, indices=found,
            manifest=done.manifest, fetched=done.fetched, size=size_of(partial),
            made=f"{descriptor.name}: {len(done.manifest.splitlines())} packages"))
