"""What tests of LXC guests share."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from gitian.guest import session
from gitian.guest.lxc import LxcBackend, LxcGuest, identifier
from gitian.guest.protocol import StartRequest


def request(workspace: Path, images: Path, **more: Any) -> StartRequest:
    """A bookworm amd64 guest."""
    return StartRequest(suite="bookworm", arch="amd64", distro="debian", image=images / "base-bookworm-amd64",
                        workspace=workspace, **more)


@contextlib.contextmanager
def running(workspace: Path, images: Path, **more: Any) -> Iterator[LxcGuest]:
    """A guest while the block runs."""
    guest = LxcBackend().start(request(workspace, images, **more))
    try:
        yield guest
    finally:
        guest.close()


def left_behind(workspace: Path) -> list[str]:
    """What a guest of this workspace has left on the machine: processes, mounts, directories, its record."""
    found = [str(path) for path in workspace.glob("target-*")]
    if session.record_path(workspace).exists():
        found.append("the record")
    mark = identifier(workspace)
    for process in Path("/proc").iterdir():
        if process.name.isdigit():
            with contextlib.suppress(OSError):
                line = (process / "cmdline").read_bytes()
                if mark.encode() in line:
                    found.append(f"process {process.name}: {line!r}")
    if (session.RUN / mark).exists():
        found.append(str(session.RUN / mark))
    found += [str(group) for group in Path("/sys/fs/cgroup").glob(f"*/lxc.*{mark}*")]
    found += [str(group) for group in Path("/sys/fs/cgroup").glob(f"lxc.*{mark}*")]
    return found + [line for line in Path("/proc/self/mountinfo").read_text().splitlines() if mark in line]
