"""Running a build script in circumstances other than the usual ones, with a probe that tells what it sees."""

from __future__ import annotations

import time
from pathlib import Path, PurePosixPath
from typing import NoReturn

from gitian.build.changes import PROBE, READY, SEEN, SEEN_LIMIT, WRAPPER, Changes
from gitian.build.log import Log
from gitian.build.request import TargetRequest
from gitian.build.script import probe_script
from gitian.errors import GuestError, HangError, NotVariedError
from gitian.guest.protocol import Guest
from gitian.host.workspace import write_atomically

#: A guest that is not busy reads a small file in this time (seconds).
_MOMENT = 120.0
#: The variation that puts the build into memory, and strerror(3) of ENOSPC.
_MEMORY, _FULL = "filesystem", "No space left on device"


def seen_path(var: Path, log_suffix: str) -> Path:
    """Where it is kept what a varied build's probe has said: untrusted, even when the build failed."""
    return var / f"probe{log_suffix}"


def run_varied(guest: Guest, request: TargetRequest, changes: Changes, script: PurePosixPath, log: Log) -> int:
    """Run probe and script, the one right before the other; the script's status.

    Raises NotVariedError: not everything could be changed, so that the script was not run; HangError: it took too
    long; GuestError.
    """
    seen = seen_path(request.workspace.var, request.log_suffix)
    seen.unlink(missing_ok=True)
    probe = probe_script(request.plan, request.target, changes.probe, changes=changes.script)
    _send(guest, request, "vary-probe", probe, PROBE)
    words = ["setarch", request.target.setarch, *changes.setarch]
    _send(guest, request, "vary-wrapper", changes.wrapper, WRAPPER)
    hangs: HangError | None = None
    try:
        status = run_script(guest, request, ["bash", str(WRAPPER), str(PROBE), str(SEEN), str(script), *words], log,
                            user="root")
    except HangError as error:
        status, hangs = 1, error
    try:
        said = guest.run(["head", "-c", str(SEEN_LIMIT), str(SEEN)], user="root", check=False, limit=SEEN_LIMIT,
                         timeout=_MOMENT).stdout
    except GuestError:
        if hangs is None:
            raise
        raise hangs from None
    write_atomically(seen, said.removeprefix(READY))
    if hangs is not None and said.startswith(READY):
        raise hangs
    if not said.startswith(READY):
        _refuse(said, changes, log)
    # It may have cleared away what was too much: then its words tell.
    if status != 0 and _MEMORY in changes.names and (
            f"\nunfit {_MEMORY}\n".encode() in said or any(_FULL in line for line in log.tail(200))):
        raise NotVariedError("The build does not fit into a file system in memory.", names=frozenset({_MEMORY}),
                             why="the build does not fit into half of its memory (-m)",
                             hint=f"The whole log is in '{log.path}'.")
    return status


def run_script(guest: Guest, request: TargetRequest, command: list[str], log: Log, *, user: str | None = None) -> int:
    """Run what runs the script; its status. Raises HangError (the request's patience has ended), GuestError."""
    began = time.monotonic()
    try:
        return guest.run(command, user=user, output=log, check=False, timeout=request.patience).status
    except GuestError as error:
        if request.patience is None or time.monotonic() - began < request.patience:
            raise
        raise HangError(
            f"The script of '{request.plan.descriptor.name}' did not end within {request.patience / 60:.0f} minutes "
            f"for {request.target.label}. The last lines of its log:" + "\n  ".join(["", *log.tail()]),
            hint=f"The whole log is in '{log.path}'.") from error


def _refuse(said: bytes, changes: Changes, log: Log) -> NoReturn:
    """The wrapper has ended before it was through. Raises NotVariedError; GuestError: no variation is at fault."""
    tail = log.tail(8)
    hint = f"The whole log is in '{log.path}'."
    names = changes.names & set(said.partition(b"\n")[0].decode(errors="replace").split()[1:])
    if not names:
        raise GuestError("The guest could not be prepared: " + "\n  ".join(["", *tail]), hint=hint)
    last = next((line.strip() for line in reversed(tail) if line.strip()), "no reason is known")
    raise NotVariedError(f"The guest could not be varied ({', '.join(sorted(names))}): " + "\n  ".join(["", *tail]),
                         names=names, why=f"it could not be made in the guest: {last[:300]}", hint=hint)


def _send(guest: Guest, request: TargetRequest, name: str, data: bytes, place: PurePosixPath) -> None:
    local = request.workspace.var / f"{name}{request.log_suffix}"
    write_atomically(local, data)
    guest.put(local, place, user="root")
