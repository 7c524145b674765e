"""What this machine has, lacks, or cannot use, for each backend: found by trying, not by believing that a file exists.

docs/reference/doctor.md describes every check.
"""

from __future__ import annotations

import contextlib
import os
import struct
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from gitian.errors import GitianError, MissingToolError
from gitian.host import process, space, subids, tools
from gitian.host.progress import amount

State = Literal["ok", "missing", "unusable", "note"]
BACKENDS = ("lxc", "kvm")

_COMMON = ("git", "gpg", "gpgv", "mmdebstrap", "tar")
_PROGRAMS = {
    "lxc": ("lxc-execute", "lxc-attach", "lxc-info", "lxc-stop", "lxc-usernsexec", "newuidmap", "newgidmap", "unshare",
            "nsenter", "setpriv"),
    "kvm": ("qemu-img", "mke2fs", "dpkg-deb", "busybox"),
}
_SECCOMP = (Path("/usr/share/lxc/config/common.seccomp"), Path("/usr/local/share/lxc/config/common.seccomp"))
#: A base image, a guest's changes and outputs hardly fit into less (bytes); making an image takes the larger one.
_LEAST_ROOM, _GOOD_ROOM = 2 * 10**9, 8 * 10**9
_PATIENCE = 20.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """One thing looked at. A backend with a check that is 'missing' or 'unusable' cannot be used; a 'note' is advice.

    ``backend`` is '' for what every backend needs.
    """

    name: str
    state: State
    backend: str = ""
    detail: str = ""
    hint: str = ""

    @property
    def good(self) -> bool:
        return self.state in ("ok", "note")


@dataclass(frozen=True, slots=True, kw_only=True)
class Examination:
    """What to look at: the workspace and images' directories, the environment, and how qemu is asked (if at all).

    ``probe`` answers why guests do not run in hardware ('' when they do); ``programs`` are qemu's, by architecture.
    """

    workspace: Path
    images: Path
    environment: Mapping[str, str]
    backends: Sequence[str] = BACKENDS
    probe: Callable[[], str] | None = None
    qemu: Sequence[str] = ("qemu-system-x86_64",)


def examine(request: Examination) -> Iterator[Check]:
    """Every check of the backends asked for, one after the other, as each is done."""
    yield from _programs(_COMMON, "")
    yield from _rooms(request)
    if "lxc" in request.backends:
        yield from _lxc(request)
    if "kvm" in request.backends:
        yield from _kvm(request)


def usable(checks: Sequence[Check], backend: str) -> bool:
    """Whether a backend can be used: nothing that it needs is missing or unusable."""
    return all(check.good for check in checks if check.backend in ("", backend))


def _programs(names: Sequence[str], backend: str) -> Iterator[Check]:
    for name in names:
        try:
            yield Check(name=name, backend=backend, state="ok", detail=tools.find(name))
        except MissingToolError as error:
            package = tools.PACKAGES.get(name)
            yield Check(name=name, backend=backend, state="missing", detail=f"The program '{name}' is not installed.",
                        hint=f"Install it: 'apt-get install {package}'." if package else error.hint or "")


def _rooms(request: Examination) -> Iterator[Check]:
    for name, place in (("room in the workspace", request.workspace), ("room for base images", request.images)):
        try:
            room = space.free(place)
        except OSError as error:
            yield Check(name=name, state="unusable", detail=f"'{place}' cannot be looked at: {error.strerror}.")
            continue
        detail = f"{amount(room)} free on the disk of '{place}'"
        if room < _LEAST_ROOM:
            yield Check(name=name, state="unusable", detail=f"Too little: {detail}.",
                        hint=f"Have at least {amount(_LEAST_ROOM)} free.")
        elif room < _GOOD_ROOM:
            yield Check(name=name, state="note", detail=f"Little: {detail}.",
                        hint=f"Making a base image takes up to {amount(_GOOD_ROOM)} for a while.")
        else:
            yield Check(name=name, state="ok", detail=detail)


# LXC

def _lxc(request: Examination) -> Iterator[Check]:
    yield from _programs(_PROGRAMS["lxc"], "lxc")
    if os.geteuid() != 0:
        yield Check(name="root", backend="lxc", state="unusable", detail="LXC guests are run by root.",
                    hint="Use sudo, or KVM, which needs no root.")
    try:
        ids = subids.SubIds.of_current_user()
        yield Check(name="subordinate ids", backend="lxc", state="ok",
                    detail=f"users from {ids.uid}, groups from {ids.gid}")
    except GitianError as error:
        yield Check(name="subordinate ids", backend="lxc", state="missing", detail=str(error), hint=error.hint or "")
    yield _user_namespaces()
    yield _overlay(request.workspace)
    yield _seccomp()
    yield _groups()
    if bridge := request.environment.get("LXC_BRIDGE"):
        there = Path("/sys/class/net", bridge, "bridge").is_dir() and "/" not in bridge
        yield Check(name="network", backend="lxc", state="ok" if there else "missing",
                    detail=f"the bridge '{bridge}'" if there else f"LXC_BRIDGE names '{bridge}', which is no bridge.",
                    hint="" if there else "'ip link show type bridge' lists them; without LXC_BRIDGE none is needed.")
    else:
        yield from _programs(("slirp4netns", "ip"), "lxc")
        yield _tunnel()
    yield _thirty_two_bits()


def _user_namespaces() -> Check:
    name = "user namespaces"
    limit = Path("/proc/sys/user/max_user_namespaces")
    with contextlib.suppress(OSError, ValueError):
        if int(limit.read_text()) == 0:
            return Check(name=name, backend="lxc", state="unusable", detail="They are switched off.",
                         hint="Switch them on: 'sysctl user.max_user_namespaces=15000'.")
    said = _attempt(["unshare", "--user", "--map-root-user", "true"])
    if said is None:
        return Check(name=name, backend="lxc", state="ok", detail="one was made")
    return Check(name=name, backend="lxc", state="unusable", detail=f"None can be made: {said}",
                 hint="Are they restricted (sysctl kernel.unprivileged_userns_clone, "
                      "kernel.apparmor_restrict_unprivileged_userns), or is this inside a container?")


def _overlay(workspace: Path) -> Check:
    """Mount one where guests will have theirs: not every file system can carry the upper layer."""
    name = "overlayfs"
    if os.geteuid() != 0:
        known = b"overlay" in Path("/proc/filesystems").read_bytes()
        return Check(name=name, backend="lxc", state="ok" if known else "note",
                     detail="known to the kernel" if known else "Not known to the kernel yet; root may load it.",
                     hint="" if known else "'sudo modprobe overlay'")
    var = workspace / "var"
    try:
        with tempfile.TemporaryDirectory(prefix="doctor-", dir=var if var.is_dir() else workspace) as scratch:
            for part in ("lower", "upper", "work", "top"):
                Path(scratch, part).mkdir()
            # The mount is in a namespace of its own, and gone with it. Relative paths: nothing in them needs escaping.
            mount = "mount -t overlay -o lowerdir=lower,upperdir=upper,workdir=work overlay top && : > top/file"
            said = _attempt(["unshare", "--mount", "--propagation", "private", "sh", "-c", mount], cwd=Path(scratch))
    except OSError as error:
        said = f"nothing can be written in '{workspace}' ({error.strerror})"
    if said is None:
        return Check(name=name, backend="lxc", state="ok", detail=f"mounted and written to in '{workspace}'")
    return Check(name=name, backend="lxc", state="unusable", detail=f"It cannot be used in '{workspace}': {said}",
                 hint="Try 'modprobe overlay'; a workspace that lies on an overlay or a network file system cannot "
                      "carry one: use another (-C DIR).")


def _seccomp() -> Check:
    found = next((path for path in _SECCOMP if path.is_file()), None)
    return Check(name="seccomp profile", backend="lxc", state="ok" if found else "missing",
                 detail=str(found) if found else "lxc's 'common.seccomp' is not there.",
                 hint="" if found else "It comes with lxc: 'apt-get install lxc'.")


def _groups(top: Path = Path("/sys/fs/cgroup")) -> Check:
    if (top / "cgroup.controllers").is_file():
        return Check(name="control groups", backend="lxc", state="ok", detail="version 2")
    if (top / "devices").is_dir() or (top / "pids").is_dir():
        return Check(name="control groups", backend="lxc", state="ok", detail="version 1")
    return Check(name="control groups", backend="lxc", state="note", detail="None are mounted.",
                 hint="Guests run, but without limits by control groups.")


def _tunnel(device: Path = Path("/dev/net/tun")) -> Check:
    try:
        os.close(os.open(device, os.O_RDWR | os.O_CLOEXEC))
    except FileNotFoundError:
        return Check(name=str(device), backend="lxc", state="missing", detail=f"There is no '{device}'.",
                     hint=f"'modprobe tun', or 'mkdir -p {device.parent}; mknod {device} c 10 200'. Or set LXC_BRIDGE.")
    except OSError as error:
        return Check(name=str(device), backend="lxc", state="unusable",
                     detail=f"'{device}' cannot be opened: {error.strerror}.", hint="Or set LXC_BRIDGE to a bridge.")
    return Check(name=str(device), backend="lxc", state="ok", detail="opened")


def _thirty_two_bits() -> Check:
    """Run a 32-bit program: ten bytes of code that end with status 42, in the smallest ELF file (elf(5))."""
    name = "i386 guests"
    code = bytes.fromhex("31c0 40 b32a cd80")  # xor eax,eax; inc eax (exit); mov bl,42; int 0x80
    base, header = 0x08048000, 52 + 32
    size = header + len(code)
    image = struct.pack("<16sHHIIIIIHHHHHH", b"\x7fELF\x01\x01\x01", 2, 3, 1, base + header, 52, 0, 0, 52, 32, 1,
                        0, 0, 0)
    image += struct.pack("<IIIIIIII", 1, 0, base, base, size, size, 5, 0x1000)
    try:
        with tempfile.TemporaryDirectory(prefix="gitian-doctor-") as scratch:
            program = Path(scratch, "exit42")
            program.write_bytes(image + code)
            program.chmod(0o700)
            done = process.run([program], check=False, timeout=_PATIENCE)
            if done.status == 42:
                return Check(name=name, backend="lxc", state="ok", detail="a 32-bit program was run")
            why = process.ended_how(done.status)
    except (OSError, GitianError) as error:
        why = str(error)
    return Check(name=name, backend="lxc", state="note", detail=f"A 32-bit program does not run here ({why}).",
                 hint="amd64 guests do; for i386 use KVM, or a kernel with IA32 emulation.")


# KVM

def _kvm(request: Examination) -> Iterator[Check]:
    yield from _programs((*request.qemu, *_PROGRAMS["kvm"]), "kvm")
    name = "hardware support"
    if request.probe is None:
        return
    try:
        why = request.probe()
    except GitianError as error:
        yield Check(name=name, backend="kvm", state="note", detail=f"It was not tried: {error}", hint=error.hint or "")
        return
    if why:
        yield Check(name=name, backend="kvm", state="note", detail=f"Not used: {why}.",
                    hint="Guests run in software emulation, about ten times slower.")
    else:
        yield Check(name=name, backend="kvm", state="ok", detail="a kernel was started with it")


def _attempt(argv: list[str], cwd: Path | None = None) -> str | None:
    """None when a program does its work, else what it said."""
    try:
        done = process.run(argv, check=False, timeout=_PATIENCE, cwd=cwd, limit=2**20)
    except GitianError as error:
        return str(error)
    if done.status == 0:
        return None
    lines = (done.stderr or done.stdout).decode(errors="replace").strip().splitlines()
    return lines[-1][:300] if lines else process.ended_how(done.status)
