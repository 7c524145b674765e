"""From a base image to a running virtual machine that answers."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import secrets
import shutil
import signal
import socket
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from gitian.errors import BusyError, GitianError, GuestError, HostError, ImageError, ProgramError, UsageError
from gitian.guest import acceleration, qemu, session, ssh
from gitian.guest.protocol import StartRequest
from gitian.guest.qmp import Qmp, listen
from gitian.guest.session import Session
from gitian.host import process, progress
from gitian.host.workspace import make_directory

#: From power-on to the line below on the console: seconds in software emulation, longer on a machine that is busy.
_BOOT = 300.0
#: From qemu's start to its first answer: a moment (seconds).
_ANSWER = 60.0
_READY = b"gitian: ready\n"
_FAILED = b"gitian: failed: "
_CLASSIC_PORT = 2223


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where a guest's things lie on the host. One guest per workspace, so fixed names do."""

    workspace: Path

    @property
    def private(self) -> Path:
        """The directory, ours alone, with keys and control socket."""
        return self.workspace / "var" / "target-kvm"

    @property
    def key(self) -> Path:
        return self.private / "id_ed25519"

    @property
    def control(self) -> Path:
        return self.private / "qmp"

    @property
    def console(self) -> Path:
        """What the guest's kernel and init say."""
        return self.workspace / "var" / "target.log"

    def overlay(self, suite: str, arch: str) -> Path:
        """What the guest writes, over its base image."""
        return self.workspace / f"target-{suite}-{arch}.qcow2"


@dataclass(frozen=True, slots=True, kw_only=True)
class Started:
    """A machine that runs and has a connection."""

    session: Session
    qemu: process.Popen[bytes]
    connection: ssh.Connection
    accel: str


def start(request: StartRequest, lost: Callable[[process.Popen[bytes]], ssh.Lost]) -> Started:
    """Start a machine and connect to it. Raises HostError, MissingToolError, ImageError, GuestError, BusyError.

    ``lost`` gives the maker of errors for a machine. Whatever fails, nothing is left behind.
    """
    place = Place(workspace=request.workspace)
    make_directory(place.console.parent)
    machine = _plan(request, place)
    overlay = place.overlay(request.suite, request.arch)
    token = f"gitian-{secrets.token_hex(8)}"
    record = Session(backend="kvm", suite=request.suite, arch=request.arch, distro=request.distro,
                     owner=session.mine(), litter=(place.private,), overlay=(overlay,),
                     facts={"name": token, "accel": machine.accel, "sudo": "yes" if request.allow_sudo else "no"})
    # On record before anything is made: a kill at any moment leaves nothing that the next command does not find.
    session.store(request.workspace, record)
    try:
        machine = replace(machine, name=token, disk_size=_make_overlay(request, overlay))
        key, host_key = ssh.make_key(), ssh.make_key()
        _write_private(place, request, key, host_key)
        running, port = _launch(machine, place, request.environment)
        who = process.identity(running.pid)
        if who is not None:
            record = replace(record, processes={"qemu": who},
                             facts={**record.facts, "port": str(port), "host_key": host_key.public})
            session.store(request.workspace, record)
        try:
            _await_boot(running, place, lost(running))
            (place.private / "initrd").unlink()
            connection = ssh.Connection.open(ssh.Server(port=port, host_key=host_key.public), key, timeout=_BOOT / 2,
                                             lost=lost(running))
        except BaseException:
            process.end(running, patience=0)
            raise
        return Started(session=record, qemu=running, connection=connection, accel=machine.accel)
    except BaseException:
        for stray in strays(token):  # a signal may have come between its start and its record
            process.kill_identity(stray, first=signal.SIGKILL)
        session.end(request.workspace, record)
        raise


def _plan(request: StartRequest, place: Place) -> qemu.Machine:
    """The machine, without what is made for this start: name, disk size, control socket, port."""
    kernel, initrd = request.image.with_suffix(".vmlinuz"), request.image.with_suffix(".initrd")
    for part in (request.image, kernel, initrd):
        if not part.is_file():
            raise ImageError(f"The base image '{request.image}' is not complete: '{part}' is not there.",
                             hint=f"Remove what there is of it and make it again: 'make-base-vm -d {request.distro} "
                                  f"-s {request.suite} -a {request.arch}'.")
    program = qemu.program(request.arch, request.environment)
    chosen = acceleration.choose(program=program, kernel=kernel, environment=request.environment,
                                 fallback=place.console.parent)
    if chosen.why:
        progress.warn(f"Guests run in software emulation, which is slow: {chosen.why}.")
    return qemu.Machine(
        program=program, name="", accel=chosen.name, memory=request.memory, processors=request.processors,
        kernel=kernel, initrd=place.private / "initrd", overlay=place.overlay(request.suite, request.arch),
        disk_size=0, console=place.console, qmp=-1, port=0,
        # A parent's death is that of the thread that started it (prctl(2)): only the main one lives as long as we do.
        tied=not request.keep and _in_main_thread())


def _in_main_thread() -> bool:
    import threading

    return threading.current_thread() is threading.main_thread()


def layer_disk(layer: Path) -> Path:
    """A layer's disk, which lies over the base image."""
    return layer / "disk.qcow2"


def _make_overlay(request: StartRequest, overlay: Path) -> int:
    """Make the overlay, or find the last target's again; the disk's size in bytes."""
    image = request.image.resolve()
    if not request.fresh and overlay.is_file():
        size = _usable(overlay, image)
        if size is not None:
            return size
        progress.say("The last target was made from what is no longer there; starting from the base image.")
    below = layer_disk(request.layer).resolve() if request.layer is not None else image
    session.remove([overlay])
    process.run(["qemu-img", "create", "-q", "-f", "qcow2", "-F", "qcow2", "-b", str(below), str(overlay)])
    size = _usable(overlay, image)
    if size is None:
        raise ImageError(f"'{below}' is no disk over the base image '{image}', or that one is from the future.",
                         hint="Make the base image again; build with --no-layers.")
    return size


def _usable(overlay: Path, image: Path) -> int | None:
    """The size of an overlay's disk, if what it lies over is all there, down to an image that is no younger."""
    done = process.run(["qemu-img", "info", "-U", "--backing-chain", "--output=json", str(overlay)], check=False)
    if done.status != 0:
        return None
    try:
        chain = json.loads(done.stdout)
        bottom = Path(chain[-1]["filename"])
        if bottom.resolve() != image or any(disk["format"] != "qcow2" for disk in chain):
            return None
        return int(chain[0]["virtual-size"]) if overlay.stat().st_mtime >= image.stat().st_mtime else None
    except (ValueError, LookupError, TypeError, OSError) as error:
        raise ProgramError(f"What 'qemu-img info' says of '{overlay}' cannot be understood.") from error


def _write_private(place: Place, request: StartRequest, key: ssh.Key, host_key: ssh.Key) -> None:
    session.remove([place.private])
    place.private.mkdir(mode=0o700)
    handover = qemu.handover(host_key=host_key.private, host_key_public=host_key.public, authorized_key=key.public,
                             time=int(time.time()))
    for path, mode in ((place.key, 0o600), (place.private / "initrd", 0o600)):
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode))
    place.key.write_text(key.private)
    with (place.private / "initrd").open("wb") as whole, request.image.with_suffix(".initrd").open("rb") as base:
        shutil.copyfileobj(base, whole)
        whole.write(bytes(-whole.tell() % 512))
        whole.write(handover)
    # The console's log is the last start's; a link that somebody put there is not followed.
    place.console.unlink(missing_ok=True)
    place.console.touch(0o644)


def _launch(machine: qemu.Machine, place: Place, environment: Mapping[str, str]) -> tuple[process.Popen[bytes], int]:
    """Run qemu on a port that is free. Two starts may choose the same one: the second tries another."""
    for attempt in range(5):
        port = choose_port(environment, first=attempt == 0)
        place.control.unlink(missing_ok=True)
        with listen(place.control) as listener, (place.private / "qemu.log").open("w+b") as said:
            command = qemu.argv(replace(machine, port=port, qmp=listener.fileno()))
            running = process.popen(command, stdout=said, stderr=said, pass_fds=(listener.fileno(),))
        try:
            # qemu answers once it has its port and everything else; when it ends instead, the socket, which is now its
            # own alone, is closed.
            Qmp.connect(place.control, timeout=_ANSWER).close()
            return running, port
        except GuestError:
            process.end(running, patience=1)
        except BaseException:
            process.end(running, patience=0)
            raise
        words = (place.private / "qemu.log").read_bytes()[:8192].decode(errors="replace").strip()
        if "host forwarding rule" not in words or environment.get("VM_SSH_PORT"):
            break
    raise _refused(machine, running.returncode, words)


def _refused(machine: qemu.Machine, status: int, words: str) -> GitianError:
    reason = " / ".join(words.splitlines()[-4:])[:600].rstrip(".") or "it said nothing"
    if "cannot set up guest memory" in words or "Cannot allocate memory" in words:
        return HostError(f"There is not enough memory for a guest of {machine.memory} MiB: {reason}.",
                         hint="Give it less with '-m', or end other guests.")
    return GuestError(f"qemu {process.ended_how(status)} before the guest ran: {reason}.",
                      hint="'gitian doctor' checks what guests need; KVM names another qemu.")


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        try:
            probe.bind(("127.0.0.1", port))
        except OSError as error:
            return error.errno == errno.EADDRINUSE
    return False


def choose_port(environment: Mapping[str, str], *, first: bool = True) -> int:
    """$VM_SSH_PORT, or the classic's port when it is free, or any. Raises UsageError, BusyError."""
    asked = environment.get("VM_SSH_PORT")
    if asked:
        if not (asked.isascii() and asked.isdigit() and 0 < int(asked[:6]) < 65536):
            raise UsageError(f"VM_SSH_PORT is '{asked}', which is no port.", hint="Choose a number below 65536.")
        if _listens(int(asked)):
            raise BusyError(f"The port {asked} (VM_SSH_PORT) is taken by another program.",
                            hint="Unset VM_SSH_PORT, so that a free one is found.")
        return int(asked)
    if first and not _listens(_CLASSIC_PORT):
        return _CLASSIC_PORT
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _await_boot(running: process.Popen[bytes], place: Place, lost: ssh.Lost) -> None:
    """Wait for the guest's init to say that it is ready; it speaks before anything foreign runs in the guest."""
    def said(words: bytes) -> bool:
        with contextlib.suppress(OSError):
            return words in place.console.read_bytes()[:2**20].replace(b"\r", b"")
        return False

    if not process.wait_until(lambda: said(_READY) or said(_FAILED) or running.poll() is not None, _BOOT, every=0.1):
        raise lost(f"The guest was not ready within {_BOOT:g} s.")
    if not said(_READY):
        raise lost("The guest did not start.")


def strays(name: str) -> list[process.ProcessIdentity]:
    """The processes that run a machine of this name, on record or not (a kill may come between start and record)."""
    found = []
    wanted = f"guest={name}".encode()
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                if wanted in (entry / "cmdline").read_bytes().split(b"\0"):
                    who = process.identity(int(entry.name))
                    if who is not None:
                        found.append(who)
    return found
