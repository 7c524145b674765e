"""From a base image to a running virtual machine that answers."""

from __future__ import annotations

import contextlib
import errno
import functools
import json
import secrets
import shutil
import signal
import socket
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from gitian.errors import BusyError, GitianError, GuestError, HostError, ImageError, ProgramError, UsageError
from gitian.guest import acceleration, kvm_state, qemu, session, ssh
from gitian.guest.kvm_state import LayerFiles, Saved
from gitian.guest.protocol import MachineChanges, StartRequest
from gitian.guest.qemu import Machine
from gitian.guest.qmp import Qmp, listen
from gitian.guest.session import Session
from gitian.host import process, progress
from gitian.host.workspace import make_directory

#: From power-on to the line below on the console: seconds in software emulation, longer on a machine that is busy.
_BOOT = 300.0
#: From there to an answer of a restored machine's sshd: a moment (seconds).
_GO_ON = 60.0
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
    def initrd(self) -> Path:
        """What is booted: the image's, and the keys after it. Gone once the guest has read it."""
        return self.private / "initrd"

    @property
    def words(self) -> Path:
        """What qemu itself says."""
        return self.private / "qemu.log"

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
    machine: Machine
    restored: bool


def start(request: StartRequest, lost: Callable[[process.Popen[bytes]], ssh.Lost]) -> Started:
    """Start a machine and connect to it. Raises HostError, MissingToolError, ImageError, GuestError, BusyError.

    ``lost`` gives the maker of errors for a machine. Whatever fails, nothing is left behind.
    """
    place = Place(workspace=request.workspace)
    make_directory(place.console.parent)
    machine = plan(request)
    overlay = place.overlay(request.suite, request.arch)
    saved = _saved(request, machine) if request.fresh or not overlay.is_file() else None
    if saved is not None:
        try:
            return _Starting(request=request, place=place, machine=machine, saved=saved, lost=lost).start()
        except GuestError as error:
            progress.warn(f"The machine that the layer keeps does not go on, so its disk is booted: {error}")
    return _Starting(request=request, place=place, machine=machine, saved=None, lost=lost).start()


def _saved(request: StartRequest, machine: Machine) -> Saved | None:
    """The machine that a layer keeps, if it can be gone on with."""
    if request.layer is None or request.machine is not None:
        return None
    saved = kvm_state.read(request.layer)
    if saved is not None and (why := saved.differs(machine)):
        progress.say(f"The layer keeps a machine with {why}: its disk is booted.")
        return None
    return saved


@dataclass(frozen=True, slots=True, kw_only=True)
class _Starting:
    """A machine on its way up: booted, or, with ``saved``, restored."""

    request: StartRequest
    place: Place
    machine: Machine
    saved: Saved | None
    lost: Callable[[process.Popen[bytes]], ssh.Lost]

    def start(self) -> Started:
        request, place, saved = self.request, self.place, self.saved
        overlay = place.overlay(request.suite, request.arch)
        token = f"gitian-{secrets.token_hex(8)}"
        record = Session(backend="kvm", suite=request.suite, arch=request.arch, distro=request.distro,
                         owner=session.mine(), litter=(place.private,), overlay=(overlay,),
                         facts={"name": token, "accel": self.machine.accel,
                                "sudo": session.said(request.allow_sudo), "network": session.said(request.network)})
        # On record before anything is made: a kill at any moment leaves nothing that the next command does not find.
        session.store(request.workspace, record)
        try:
            machine = replace(self.machine, name=token, disk_size=_make_overlay(request, overlay, saved))
            key, host_key = _keys(saved)
            _write_private(place, key)
            if saved is None:
                _write_initrd(place, request, key, host_key)
                machine = replace(machine, initrd=place.initrd)
            with contextlib.ExitStack() as ends:
                if saved is not None:
                    ours, theirs = (ends.enter_context(end) for end in socket.socketpair())
                    machine = replace(machine, kind=saved.kind, incoming=theirs.fileno())
                running, port = _launch(machine, place, request.environment)
                who = process.identity(running.pid)
                if who is not None:
                    record = replace(record, processes={"qemu": who},
                                     facts={**record.facts, "port": str(port), "host_key": host_key.public})
                    session.store(request.workspace, record)
                gone = self.lost(running)
                try:
                    if saved is not None:
                        theirs.close()
                        _restore(saved, ours, place)
                    else:
                        _await_boot(running, place, gone)
                        place.initrd.unlink()
                    connection = ssh.Connection.open(
                        ssh.Server(port=port, host_key=host_key.public), key,
                        timeout=_BOOT / 2 if saved is None else _GO_ON, lost=gone)
                except BaseException:
                    process.end(running, patience=0)
                    raise
            return Started(session=record, qemu=running, connection=connection, machine=machine,
                           restored=saved is not None)
        except BaseException:
            for stray in strays(token):  # a signal may have come between its start and its record
                process.kill_identity(stray, first=signal.SIGKILL)
            session.end(request.workspace, record)
            raise


def _restore(saved: Saved, pipe: socket.socket, place: Place) -> None:
    try:
        kvm_state.load(saved, pipe, place.control)
    except GuestError as error:
        words = _words(place).rstrip(".")
        raise GuestError(f"{error} qemu said: {words}." if words else str(error)) from error


def _keys(saved: Saved | None) -> tuple[ssh.Key, ssh.Key]:
    """The key to log in with, and the one that the guest shows: of a saved machine, those that it has already."""
    if saved is None:
        return ssh.make_key(), ssh.make_key()
    return ssh.Key(private=saved.key, public=""), ssh.Key(private="", public=saved.host_key)


def plan(request: StartRequest) -> Machine:
    """The machine, without what is made for this start: name, disk size, RAM disk, control socket, port.

    Raises ImageError, UsageError, HostError, MissingToolError.
    """
    place = Place(workspace=request.workspace)
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
        _warn_of_emulation(chosen.why)
    other = request.machine or MachineChanges()
    return Machine(
        program=program, name="", accel=chosen.name, memory=other.memory or request.memory,
        processors=other.processors or request.processors, cpu=other.cpu, kernel=other.kernel or kernel,
        initrd=None, overlay=place.overlay(request.suite, request.arch), disk_size=0,
        console=place.console, qmp=-1, port=0,
        # A parent's death is that of the thread that started it (prctl(2)): only the main one lives as long as we do.
        network=request.network, tied=not request.keep and _in_main_thread())


@functools.cache
def _warn_of_emulation(why: str) -> None:
    # Once per command: a build starts several guests.
    progress.warn(f"Guests run in software emulation, which is slow: {why}.")


def _in_main_thread() -> bool:
    import threading

    return threading.current_thread() is threading.main_thread()


def _make_overlay(request: StartRequest, overlay: Path, saved: Saved | None) -> int:
    """Make the overlay, or find the last target's again; the disk's size in bytes."""
    image = request.image.resolve()
    if not request.fresh and overlay.is_file():
        size = _usable(overlay, image)
        if size is not None:
            return size
        progress.say("The last target was made from what is no longer there: this one starts from the base image.")
    elif not request.fresh:
        progress.say("No target was left: this one starts from the base image.")
    below = image
    if saved is not None:
        below = saved.files.running_disk.resolve()
    elif request.layer is not None:
        below = LayerFiles(directory=request.layer).disk.resolve()
    session.remove([overlay])
    process.run(["qemu-img", "create", "-q", "-f", "qcow2", "-F", "qcow2", "-b", str(below), str(overlay)],
                tied=True)
    size = _usable(overlay, image)
    if size is None:
        raise ImageError(f"'{below}' is no disk over the base image '{image}', or that one is from the future.",
                         hint="Make the base image again; build with --no-layers.")
    return size


def _usable(overlay: Path, image: Path) -> int | None:
    """The size of an overlay's disk, if what it lies over is all there, down to the image, and nothing is younger."""
    done = process.run(["qemu-img", "info", "-U", "--backing-chain", "--output=json", str(overlay)], check=False)
    if done.status != 0:
        return None
    try:
        chain = json.loads(done.stdout)
        bottom = Path(chain[-1]["filename"])
        if bottom.resolve() != image or any(disk["format"] != "qcow2" for disk in chain):
            return None
        youngest = max(Path(disk["filename"]).stat().st_mtime for disk in chain[1:])
        return int(chain[0]["virtual-size"]) if overlay.stat().st_mtime >= youngest else None
    except (ValueError, LookupError, TypeError, OSError) as error:
        raise ProgramError(f"What 'qemu-img info' says of '{overlay}' cannot be understood.") from error


def _write_private(place: Place, key: ssh.Key) -> None:
    session.remove([place.private])
    place.private.mkdir(mode=0o700)
    with kvm_state.new_file(place.key) as file:
        file.write(key.private.encode())
    # The console's log is the last start's; a link that somebody put there is not followed.
    place.console.unlink(missing_ok=True)
    place.console.touch(0o644)


def _write_initrd(place: Place, request: StartRequest, key: ssh.Key, host_key: ssh.Key) -> None:
    handover = qemu.handover(host_key=host_key.private, host_key_public=host_key.public, authorized_key=key.public,
                             time=int(time.time()))
    initrd = (request.machine.initrd if request.machine is not None else None) or request.image.with_suffix(".initrd")
    with kvm_state.new_file(place.initrd) as whole, initrd.open("rb") as base:
        shutil.copyfileobj(base, whole)
        whole.write(bytes(-whole.tell() % 512))
        whole.write(handover)


def _launch(machine: Machine, place: Place, environment: Mapping[str, str]) -> tuple[process.Popen[bytes], int]:
    """Run qemu on a port that is free. Two starts may choose the same one: the second tries another."""
    for attempt in range(5):
        port = choose_port(environment, first=attempt == 0)
        place.control.unlink(missing_ok=True)
        with listen(place.control) as listener, place.words.open("wb") as said:
            command = qemu.argv(replace(machine, port=port, qmp=listener.fileno()))
            inherited = [listener.fileno(), *([machine.incoming] if machine.incoming is not None else [])]
            running = process.popen(command, stdout=said, stderr=said, pass_fds=inherited)
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
        words = _words(place)
        if "host forwarding rule" not in words or environment.get("VM_SSH_PORT"):
            break
    raise _refused(machine, running.returncode, words)


def _words(place: Place) -> str:
    with place.words.open("rb") as said:
        return said.read(8192).decode(errors="replace").strip()


def _refused(machine: Machine, status: int, words: str) -> GitianError:
    reason = " / ".join(words.splitlines()[-4:])[:600].rstrip(".") or "it said nothing"
    if "cannot set up guest memory" in words or "Cannot allocate memory" in words:
        return HostError(f"There is not enough memory for a guest of {machine.memory} MiB: {reason}.",
                         hint="Give it less with '-m', or end other guests.")
    return GuestError(f"qemu {process.ended_how(status)} before the guest ran: {reason}.",
                      hint="'gitian doctor' checks what guests need; KVM names another qemu.")


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        # As qemu binds it: what is left of connections to the last guest is in nobody's way (tcp(7), TIME_WAIT).
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
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
