"""Running a build script in circumstances other than the usual ones, with a probe that tells what it sees."""

from __future__ import annotations

from pathlib import Path, PurePosixPath

from gitian.build.changes import PROBE, READY, SEEN, SEEN_LIMIT, WRAPPER, Changes
from gitian.build.log import Log
from gitian.build.request import TargetRequest
from gitian.build.script import probe_script
from gitian.errors import GuestError
from gitian.guest.protocol import Guest
from gitian.host.workspace import write_atomically


def seen_path(var: Path, log_suffix: str) -> Path:
    """Where it is kept what a varied build's probe has said: untrusted, even when the build failed."""
    return var / f"probe{log_suffix}"


def run_varied(guest: Guest, request: TargetRequest, changes: Changes, script: PurePosixPath, log: Log) -> int:
    """Run probe and script, the one right before the other; the script's status.

    Raises GuestError: not everything could be changed, so that the script was not run.
    """
    seen = seen_path(request.workspace.var, request.log_suffix)
    seen.unlink(missing_ok=True)
    probe = probe_script(request.plan, request.target, changes.probe, changes=changes.script)
    _send(guest, request, "vary-probe", probe, PROBE)
    words = ["setarch", request.target.setarch, *changes.setarch]
    if not changes.wrapper:
        said = guest.run([*words, "bash", str(PROBE)], check=False, limit=SEEN_LIMIT).stdout
        status = guest.run([*words, "bash", "-x", str(script)], output=log, check=False).status
        end = guest.run([*words, "bash", str(PROBE), "end"], check=False, limit=SEEN_LIMIT).stdout
        write_atomically(seen, said + end)
        return status
    _send(guest, request, "vary-wrapper", changes.wrapper, WRAPPER)
    status = guest.run(["bash", str(WRAPPER), str(PROBE), str(SEEN), str(script), *words], user="root", output=log,
                       check=False).status
    said = guest.run(["head", "-c", str(SEEN_LIMIT), str(SEEN)], user="root", check=False, limit=SEEN_LIMIT).stdout
    write_atomically(seen, said.removeprefix(READY))
    if not said.startswith(READY):
        raise GuestError("The guest could not be varied: " + "\n  ".join(["", *log.tail(8)]),
                         hint=f"The variations were: {', '.join(sorted(changes.names))}. The whole log is in "
                              f"'{log.path}'.")
    return status


def _send(guest: Guest, request: TargetRequest, name: str, data: bytes, place: PurePosixPath) -> None:
    local = request.workspace.var / f"{name}{request.log_suffix}"
    write_atomically(local, data)
    guest.put(local, place, user="root")
