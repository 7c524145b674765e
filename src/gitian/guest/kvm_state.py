"""A machine's saved state: written when a guest becomes a layer, read when the next guest starts from there.

docs/explanation/layers.md says what lies in a layer and why.
"""

from __future__ import annotations

import json
import os
import socket
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

from gitian.errors import GuestError
from gitian.guest import acceleration
from gitian.guest.qemu import Machine, argv
from gitian.guest.qmp import Qmp
from gitian.host import process
from gitian.host.hashing import sha256_bytes
from gitian.host.workspace import write_atomically

#: Nothing is read or written for so long: qemu hangs (seconds).
_PATIENCE = 120.0
_PIECE = 2**20
_LIMIT = 2**16  # of machine.json (bytes)


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerFiles:
    """What lies in a layer of KVM. All of it is ours alone: the state holds keys."""

    directory: Path

    @property
    def disk(self) -> Path:
        """The disk with the packages, over the base image. It was switched off in good order: a machine can boot it."""
        return self.directory / "disk.qcow2"

    @property
    def running_disk(self) -> Path:
        """What the saved machine had written since it booted, over ``disk``. Good only together with ``state``."""
        return self.directory / "running.qcow2"

    @property
    def state(self) -> Path:
        """Memory and devices of the saved machine, as qemu's migration writes them."""
        return self.directory / "state"

    @property
    def key(self) -> Path:
        """The private key that the saved machine's sshd accepts."""
        return self.directory / "id_ed25519"

    @property
    def about(self) -> Path:
        """What there is to know of the saved machine; written last."""
        return self.directory / "machine.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class Saved:
    """A saved machine: what has to be the same to go on with it, and how it is reached.

    ``kind`` is qemu's name for the kind of machine with its version, 'pc-i440fx-7.2'; ``state_size`` is in bytes.
    """

    files: LayerFiles
    identity: str
    kind: str
    memory: int
    processors: int
    host_key: str
    key: str = field(repr=False)
    state_size: int

    def differs(self, machine: Machine) -> str:
        """In what ``machine`` is another one, as words; '' when it is the same."""
        if self.identity != identity(machine.program, machine.accel):
            return "another qemu, or another processor"
        if (self.memory, self.processors) != (machine.memory, machine.processors):
            return "other memory or processors"
        return ""


def identity(program: Sequence[str], accel: str) -> str:
    """What a saved machine depends on in this one: qemu, how we call it, and, where it runs in hardware, processor and
    kernel. Raises MissingToolError."""
    somewhere = Path("-")
    call = argv(Machine(program=program, name="", accel=accel, memory=0, processors=0, kernel=somewhere, initrd=None,
                        overlay=somewhere, disk_size=0, console=somewhere, qmp=0, port=0))
    words = [accel, *acceleration.version_of(program), sha256_bytes(repr(call).encode())[:16]]
    if accel == "kvm":
        words += [os.uname().release, *filter(None, [acceleration.processor()])]
    return "|".join(words)


def read(directory: Path) -> Saved | None:
    """The saved machine of a layer; None when there is none, or not all of it."""
    files = LayerFiles(directory=directory)
    try:
        with files.about.open("rb") as file:
            data = json.loads(file.read(_LIMIT))
        saved = Saved(
            files=files, identity=_text(data["identity"]), kind=_text(data["kind"]),
            memory=int(data["memory"]), processors=int(data["processors"]), host_key=_text(data["host_key"]),
            key=files.key.read_text(), state_size=int(data["state_size"]))
        return saved if files.state.stat().st_size == saved.state_size and files.running_disk.is_file() else None
    except (OSError, ValueError, LookupError, TypeError):
        return None


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError("no text")
    return value


def save(control: Path, machine: Machine, files: LayerFiles, *, key: str, host_key: str) -> None:
    """Stop the machine behind a control socket, write its state, and end it. Its disk is the caller's business.

    Raises GuestError: qemu refused, or what it wrote could not be kept.
    """
    with Qmp.connect(control) as qmp:
        qmp.execute("stop")
        kind = str(qmp.execute("qom-get", {"path": "/machine", "property": "type"})).removesuffix("-machine")
        ours, theirs = socket.socketpair()
        with ours, new_file(files.state) as state:
            with theirs:
                qmp.give("state", theirs)
            # Without a bound, which is there for machines that go on running meanwhile (bytes per second).
            qmp.execute("migrate-set-parameters", {"max-bandwidth": 2**50})
            qmp.execute("migrate", {"uri": "fd:state"})
            ours.settimeout(_PATIENCE)
            try:
                while piece := ours.recv(_PIECE):
                    state.write(piece)
            except OSError as error:
                raise GuestError(f"The machine's state could not be written: {error.strerror or error}.") from error
        _await_saved(qmp)
        qmp.quit()
    with new_file(files.key) as file:
        file.write(key.encode())
    write_atomically(files.about, json.dumps({
        "identity": identity(machine.program, machine.accel), "kind": kind,
        "memory": machine.memory, "processors": machine.processors, "host_key": host_key,
        "state_size": files.state.stat().st_size}, indent=1).encode() + b"\n",
        mode=0o600)


def _await_saved(qmp: Qmp) -> None:
    until = time.monotonic() + _PATIENCE
    while True:
        answer = qmp.execute("query-migrate")
        status = answer.get("status")
        if status == "completed":
            return
        if status not in ("setup", "active", "device") or time.monotonic() > until:
            raise GuestError(f"qemu could not save the machine's state ({status}): "
                             f"{answer.get('error-desc', 'no reason given')}.")
        time.sleep(0.01)


def load(saved: Saved, pipe: socket.socket, control: Path) -> None:
    """Give a qemu that waits for it (-incoming) a saved machine's state through ``pipe``, and let the machine go on.

    Raises GuestError: qemu does not take it.
    """
    try:
        pipe.settimeout(_PATIENCE)
        with saved.files.state.open("rb") as state:
            pipe.sendfile(state)
        pipe.close()
        with Qmp.connect(control, timeout=_PATIENCE) as qmp:
            process.wait_until(lambda: qmp.status() != "inmigrate", _PATIENCE, every=0.005)
            qmp.execute("cont")
    except OSError as error:
        raise GuestError(f"qemu does not take the saved state: {error.strerror or error}.") from error


def new_file(path: Path) -> BinaryIO:
    """A file that nobody else reads."""
    return os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600), "wb")
