"""What a backend and a guest are to the rest of the house: the ports that kvm.py and lxc.py implement."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Protocol, runtime_checkable

#: The guest contract (docs/reference/guest-contract.md): the same under every backend, compared by a test.
HOST_ADDRESS = "10.0.2.2"
DNS_ADDRESS = "10.0.2.3"
GUEST_ADDRESS = "10.0.2.15"
HOSTNAME = "gitian"
USER_ID = 1000
LOCALE = "en_US.UTF-8"
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
UMASK = 0o022


def contract_environment(user: str) -> dict[str, str]:
    """The whole environment of a command in a guest, run as ``user`` ('root', or the distro's user)."""
    home = "/root" if user == "root" else f"/home/{user}"
    return {"HOME": home, "USER": user, "LOGNAME": user, "SHELL": "/bin/bash", "PATH": PATH, "LANG": LOCALE,
            "LC_ALL": LOCALE, "TZ": "UTC", "TERM": "dumb"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """A command that ended in a guest. ``stdout`` and ``stderr`` are empty when they went to a sink."""

    status: int
    stdout: bytes = b""
    stderr: bytes = b""


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """How much may come out of a guest: bytes in all, number of entries, bytes of one path."""

    size: int = 64 * 2**30
    entries: int = 5_000_000
    path: int = 4096


@dataclass(frozen=True, slots=True, kw_only=True)
class MachineChanges:
    """A virtual machine other than the usual one (gitian vary); None is as usual. It boots: none goes on from a saved
    state. ``cpu`` is qemu's word for a model and its features; ``memory`` in MiB."""

    cpu: str | None = None
    kernel: Path | None = None
    initrd: Path | None = None
    memory: int | None = None
    processors: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class StartRequest:
    """What a new guest is made of.

    ``image`` is the adopted base image (a directory for LXC, a qcow2 file for KVM); ``workspace`` the workspace's
    root, whose var/ keeps the guest's state; ``memory`` is in MiB; ``keep`` asks for a guest that outlives this
    process, to be found again by ``attach``; ``fresh`` False means: reuse the overlay of the last target if there is
    one (--skip-image). ``layer`` is a directory that :class:`FreezableGuest` filled, over the same image. Without
    ``network`` the guest reaches nothing, whatever it does, and nothing reaches it but its backend. ``machine`` is for
    virtual machines alone: a container has none.
    """

    suite: str
    arch: str  # i386 or amd64: what the guest's dpkg says
    distro: str
    image: Path
    workspace: Path
    memory: int = 2000
    processors: int = 2
    allow_sudo: bool = False
    keep: bool = False
    fresh: bool = True
    layer: Path | None = None
    network: bool = True
    machine: MachineChanges | None = None
    host_address: str = HOST_ADDRESS
    environment: Mapping[str, str] = field(default_factory=dict)  # of the host: LXC_BRIDGE, KVM, VM_SSH_PORT ...


class Guest(Protocol):
    """A running guest. All of its answers are untrusted."""

    @property
    def user(self) -> str:
        """The name of the unprivileged user (the distro's name)."""

    @property
    def label(self) -> str:
        """'suite-arch', the architecture as dpkg says it."""

    @property
    def network(self) -> bool:
        """Whether it was started with a network."""

    def run(self, command: Sequence[str], *, user: str | None = None, input: bytes | None = None,
            env: Mapping[str, str] | None = None, cwd: str | None = None,
            output: Callable[[bytes], None] | None = None, timeout: float | None = None,
            check: bool = True, limit: int = 16 * 2**20) -> Result:
        """Run a command with the contract's environment (plus ``env``) in the user's home (or ``cwd``).

        ``user`` is the guest's unprivileged user when None, or 'root'. Standard input is ``input``, else empty. With
        ``output``, stdout and stderr go there, merged, as they come; otherwise both are collected, at most ``limit``
        bytes. Raises GuestError: the guest died, hangs or ``timeout`` (seconds) passed; with ``check`` also when the
        status is not 0.
        """

    def put(self, source: Path, destination: PurePosixPath, *, user: str | None = None,
            progress: Callable[[int], None] | None = None) -> None:
        """Copy a file, or a directory's contents, to ``destination`` in the guest, owned by ``user``.

        A file becomes ``destination``; of a directory the contents go into the directory ``destination``; it, or the
        directories above the file, are made if absent. Modes, times (whole seconds or better), links and holes are
        kept. ``progress`` gets byte counts.
        """

    def get(self, source: PurePosixPath, destination: Path, *, limits: Limits | None = None,
            progress: Callable[[int], None] | None = None, user: str | None = None) -> None:
        """Copy a file, or a directory's contents, out of the guest to ``destination`` on the host.

        Nothing is written outside ``destination``; links that lead out, devices and the like raise OutputError.
        """

    def close(self, *, keep: bool = False) -> None:
        """End the guest and remove its overlay; with ``keep`` leave it running for a later ``attach``."""


@runtime_checkable
class PipedGuest(Protocol):
    """A guest whose commands can be parts of a pipeline on the host (libexec/on-target)."""

    def pipe(self, command: Sequence[str], *, stdin: Callable[[int], bytes] | None, stdout: Callable[[bytes], None],
             stderr: Callable[[bytes], None], user: str | None = None, env: Mapping[str, str] | None = None,
             cwd: str | None = None) -> int:
        """Run a command whose input is read, and whose output is passed on, as they come; its exit status.

        ``stdin(n)`` returns at most n bytes, b'' at the end; it is called in another thread, and perhaps still waited
        for when this returns. None is an empty input. Raises GuestError.
        """


@runtime_checkable
class FreezableGuest(Protocol):
    """A guest whose state can become a layer."""

    def freeze(self, directory: Path) -> None:
        """End the guest and leave its state in ``directory``, which this makes, for ``StartRequest.layer``.

        Raises GuestError, HostError; the guest is ended all the same.
        """


@runtime_checkable
class FreezingBackend(Protocol):
    """A backend whose frozen guests go on only in the machine that they were frozen in."""

    def identity(self, *, image: Path, arch: str, workspace: Path, environment: Mapping[str, str]) -> str:
        """What of this machine a frozen guest over ``image`` depends on, as text that is part of a layer's key.

        Raises HostError, UsageError, MissingToolError.
        """


@runtime_checkable
class StoppableGuest(Protocol):
    """A guest that can be ended and started again as it was (libexec/stop-target)."""

    def stop(self, *, overlay: bool = True, quick: bool = False) -> None:
        """End the guest; without ``overlay`` what it has written stays for a later start with ``fresh=False``.

        With ``quick`` its processes are not ended in good order: what they have written so far is what stays.
        """


class Backend(Protocol):
    """Something that runs guests."""

    @property
    def name(self) -> str:
        """'lxc' or 'kvm'."""

    def start(self, request: StartRequest) -> Guest:
        """Start a guest. Raises HostError, MissingToolError, ImageError, GuestError, BusyError."""

    def attach(self, workspace: Path, *, environment: Mapping[str, str]) -> Guest:
        """Find the guest that an earlier process left running in this workspace. Raises GuestError: there is none."""

    def sweep(self, workspace: Path) -> None:
        """End and remove whatever a dead process left of its guests in this workspace (never a kept guest's)."""
