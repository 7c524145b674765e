"""What tests of KVM guests share."""

from __future__ import annotations

import contextlib
import os
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from gitian.guest import session
from gitian.guest.kvm import KvmBackend, KvmGuest
from gitian.guest.protocol import StartRequest


def request(workspace: Path, images: Path, **more: Any) -> StartRequest:
    """A small bookworm amd64 guest."""
    environment = {"PATH": os.environ["PATH"], "XDG_CACHE_HOME": str(workspace.parent / "cache"),
                   **more.pop("environment", {})}
    return StartRequest(**{"suite": "bookworm", "arch": "amd64", "distro": "debian", "workspace": workspace,
                           "image": images / "base-bookworm-amd64.qcow2", "memory": 1024,
                           "environment": environment, **more})


@contextlib.contextmanager
def running(workspace: Path, images: Path, **more: Any) -> Iterator[KvmGuest]:
    """A guest while the block runs."""
    guest = KvmBackend().start(request(workspace, images, **more))
    try:
        yield guest
    finally:
        guest.close()


@contextlib.contextmanager
def service() -> Iterator[int]:
    """The port of a service on this machine's loopback."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        def answer() -> None:
            with contextlib.suppress(OSError):
                while True:
                    other, _ = listener.accept()
                    other.sendall(b"from the host\n")
                    other.close()

        threading.Thread(target=answer, daemon=True).start()
        yield listener.getsockname()[1]


def left_behind(workspace: Path) -> list[str]:
    """What a guest of this workspace has left on the machine: processes, files, its record."""
    found = [str(path) for path in (*workspace.glob("target-*"), *workspace.glob("var/target-*"))]
    if session.record_path(workspace).exists():
        found.append("the record")
    return found + processes(workspace)


def processes(workspace: Path, kind: bytes = b"qemu") -> list[str]:
    """Those that run a guest of this workspace, or work at its disk; with another ``kind`` others."""
    found = []
    for process in Path("/proc").iterdir():
        if process.name.isdigit() and int(process.name) != os.getpid():
            with contextlib.suppress(OSError):
                line = (process / "cmdline").read_bytes()
                if kind in line and os.fsencode(workspace) in line:
                    found.append(f"process {process.name}: {line!r}")
    return found
