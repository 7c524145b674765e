"""Guests that have their packages: from a layer, or installed now."""

from __future__ import annotations

import contextlib
from pathlib import Path

from gitian.build import layer
from gitian.build.install import Installed, installed
from gitian.build.layer import Prepared
from gitian.build.log import Log
from gitian.build.request import TargetRequest
from gitian.errors import GuestError, ImageError, ProgramError
from gitian.guest.protocol import HOST_ADDRESS, Guest, MachineChanges, StartRequest, StoppableGuest
from gitian.host import progress


def opened(request: TargetRequest) -> tuple[Prepared, Guest]:
    """A guest that has its packages, from a layer if there is one. A layer that no guest starts from is made anew.

    It has a network only if the script is to have it, and is the machine that the script is to have.
    """
    network, machine = request.plan.network, request.changes.machine if request.changes is not None else None
    if request.ready is not None:
        return request.ready, _start(request, request.ready.layer, network=network, machine=machine)
    ready = prepared(request)
    if ready.guest is not None:
        return ready, ready.guest if network and machine is None else _again(request, ready.guest, machine)
    try:
        return ready, _start(request, ready.layer, network=network, machine=machine)
    except (GuestError, ImageError, ProgramError) as error:
        if machine is not None or request.offline:
            raise
        progress.warn(f"No guest starts from the layer, which is therefore made anew: {error}")
    ready = prepared(request, anew=True)
    if ready.guest is not None:
        return ready, ready.guest if network else _again(request, ready.guest, None)
    return ready, _start(request, ready.layer, network=network)


def _again(request: TargetRequest, guest: Guest, machine: MachineChanges | None) -> Guest:
    """A guest that has got its packages, started again as the script is to have it. What it has written stays."""
    if not isinstance(guest, StoppableGuest):
        guest.close()
        how = ["without a network"] * (not request.plan.network) + ["as another machine"] * (machine is not None)
        raise GuestError(f"A target of '{request.backend.name}' that has its packages cannot be started again "
                         f"{' and '.join(how)}.", hint="Build without --no-layers and --skip-image.")
    guest.stop(overlay=False)
    return _start(request, None, fresh=False, network=request.plan.network, machine=machine)


def prepared(request: TargetRequest, *, anew: bool = False) -> Prepared:
    """A guest with its packages installed, or the layer of one."""
    path = request.workspace.var / f"install{request.log_suffix}.log"
    done = False

    def install(guest: Guest) -> Installed:
        nonlocal done
        done = True
        with Log(path) as log:
            return installed(guest, request, log)

    if not request.plan.options.skip_image:
        ready = layer.prepare(request, lambda: _start(request, None), install, anew=anew)
        if not done and ready.layer is not None:
            with Log(path) as log:
                log.note(f"The packages are those of the layer var/layers/{ready.layer.name}")
        return ready
    guest = _reused(request)
    try:
        packages = install(guest)
        return Prepared(manifest=packages.manifest, fetched=packages.fetched, guest=guest)
    except BaseException:
        guest.close()
        raise


def _reused(request: TargetRequest) -> Guest:
    """The last target as it is (--skip-image): running still, or started again."""
    with contextlib.suppress(GuestError):
        guest = request.backend.attach(request.state, environment=request.environment)
        if guest.label == f"{request.target.suite}-{request.target.dpkg_arch}":
            if not guest.network and isinstance(guest, StoppableGuest):
                guest.stop(overlay=False)  # its packages may need the network
            else:
                progress.say("Reusing the target that runs")
                return guest
        else:
            guest.close()
    return _start(request, None)


def _start(request: TargetRequest, start_from: Path | None, *, fresh: bool | None = None,
           network: bool = True, machine: MachineChanges | None = None) -> Guest:
    plan, target, options = request.plan, request.target, request.plan.options
    if fresh is None:
        fresh = not options.skip_image
    title = "Starting a clean target" if fresh else "Starting the last target again"
    with progress.step(title + (" from its layer" if start_from else "") + ("" if network else " without a network")):
        return request.backend.start(StartRequest(
            suite=target.suite, arch=target.dpkg_arch, distro=target.distro, image=request.image.path,
            workspace=request.state, memory=options.memory, processors=options.num_make,
            allow_sudo=plan.sudo, keep=request.keep, fresh=fresh, layer=start_from, network=network, machine=machine,
            host_address=request.environment.get("GITIAN_HOST_IP") or HOST_ADDRESS,
            environment=request.environment))
