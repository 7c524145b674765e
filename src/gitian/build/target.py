"""One target in one guest: packages installed, inputs copied in, the script run, what it left copied out."""

from __future__ import annotations

import contextlib
from pathlib import Path, PurePosixPath

from gitian.build.changes import Changes
from gitian.build.guests import opened
from gitian.build.layer import Prepared
from gitian.build.log import Log
from gitian.build.request import TargetOutcome, TargetRequest
from gitian.build.script import build_script
from gitian.build.varied import run_script, run_varied
from gitian.errors import BuildError, GuestError
from gitian.guest.isolation import check_isolation
from gitian.guest.protocol import HOST_ADDRESS, Guest, Limits, StoppableGuest
from gitian.host import progress
from gitian.host.space import free
from gitian.host.workspace import write_atomically

#: Where the script lies in the guest: nowhere that a build looks.
_SCRIPT = PurePosixPath("/var/cache/gitian/build-script")

#: Room that is left on the host's disk whatever a guest sends (bytes).
_RESERVE = 512 * 2**20


def build_target(request: TargetRequest, scratch: Path) -> TargetOutcome:
    """Build one target in a guest of its own and copy what it made into ``scratch``.

    Raises ImageError, GuestError, FetchError (apt failed), BuildError (the script failed), OutputError (what came out
    was refused). Afterwards the guest has ended, and what it has written stays for --skip-image and start-target; with
    ``keep`` it still runs. That is so when the script failed too; after other errors nothing stays.
    """
    workspace, target = request.workspace, request.target
    prepared, guest = opened(request)
    try:
        write_atomically(workspace.var / f"base-{target.label}.manifest", prepared.manifest.encode())
        _copy_inputs(guest, request)
        try:
            _run_script(guest, request)
        except BuildError:
            with contextlib.suppress(GuestError):  # the script's failure is what is to be told
                _leave(guest, request)
            raise
        outcome = _copy_out(guest, request, scratch, prepared)
        _leave(guest, request)
        return outcome
    except BuildError:
        raise
    except BaseException:
        guest.close()
        raise


def _leave(guest: Guest, request: TargetRequest) -> None:
    """End the guest, or keep it running. What it has written stays, unless it was one of several side by side, or has
    filled the host's disk."""
    if request.keep:
        guest.close(keep=True)
    elif isinstance(guest, StoppableGuest) and request.state == request.workspace.root \
            and free(request.state) > _RESERVE:
        guest.stop(overlay=False, quick=True)
    else:
        guest.close()


def _copy_inputs(guest: Guest, request: TargetRequest) -> None:
    """Make the build directories afresh and fill them: files flat, each remote a clone, the caches if enabled."""
    descriptor, workspace = request.plan.descriptor, request.workspace
    home = PurePosixPath("/home") / guest.user
    with progress.step("Preparing build environment"):
        guest.run(["rm", "-rf", "install", "out", "build", "cache"])
        guest.run(["mkdir", "-p", "build", "out", "install", "cache/common"])
        for file in request.inputs.files:
            guest.put(file.path, home / "build" / file.name)
        for remote in request.inputs.remotes:
            guest.put(remote.path, home / "build" / remote.dir)
        if descriptor.enable_cache:
            for name in ("common", descriptor.name):
                source = workspace.cache / name
                if source.is_dir():
                    guest.put(source, home / "cache" / name)


def _run_script(guest: Guest, request: TargetRequest) -> None:
    """Send the script as a file and run it with empty standard input. Raises BuildError; GuestError: the network is
    there."""
    workspace, target = request.workspace, request.target
    local = workspace.var / f"build-script{request.log_suffix}"
    with progress.step(f"Creating build script ({request.told(local)})"):
        changes = request.changes or Changes()
        script = build_script(request.plan, target, reference_datetime=request.inputs.reference_datetime,
                              changes=changes.script)
        write_atomically(local, script)
        guest.put(local, _SCRIPT, user="root")
    with Log(workspace.var / f"build{request.log_suffix}.log", echo=request.echo) as log:
        if not request.plan.network:
            with progress.step("Trying whether the guest has no network"):
                for line in check_isolation(guest, host_address=request.environment.get("GITIAN_HOST_IP")
                                            or HOST_ADDRESS):
                    log.note(line)
        with progress.step(f"Running build script (log in {request.told(log.path)})"):
            if request.changes is not None:
                status = run_varied(guest, request, request.changes, _SCRIPT, log)
            else:
                status = run_script(guest, request, ["setarch", target.setarch, "bash", "-x", str(_SCRIPT)], log)
            if status != 0:
                raise BuildError(
                    f"The script of '{request.plan.descriptor.name}' failed with status {status} for "
                    f"{target.label}. The last lines of its log:" + "\n  ".join(["", *log.tail()]),
                    hint=f"The whole log is in '{log.path}'.")


def _copy_out(guest: Guest, request: TargetRequest, scratch: Path, prepared: Prepared) -> TargetOutcome:
    descriptor = request.plan.descriptor
    home = PurePosixPath("/home") / guest.user
    limits = Limits(size=max(0, free(scratch) - _RESERVE))

    def grab(inside: PurePosixPath, name: str) -> Path:
        place = scratch / name
        guest.get(inside, place, limits=limits)
        return place

    with progress.step("Grabbing results from target"):
        out = grab(home / "out", "out")
    common = package = None
    if descriptor.enable_cache and not request.plan.options.cache_read_only:
        with progress.step("Grabbing cache from target"):
            common = grab(home / "cache" / "common", "cache-common")
            if guest.run(["test", "-d", f"cache/{descriptor.name}"], check=False).status == 0:
                package = grab(home / "cache" / descriptor.name, "cache-package")
    return TargetOutcome(label=request.target.label, manifest=prepared.manifest, out=out, cache_common=common,
                         cache_package=package, layer=prepared.layer, fetched=prepared.fetched)


