"""The configuration of an LXC guest: etc/lxc.config.in filled in, and what depends on this machine added."""

from __future__ import annotations

import re
import resource
from dataclasses import dataclass
from pathlib import Path

from gitian.errors import HostError
from gitian.guest.network import Network
from gitian.host.subids import SubIds
from gitian.host.workspace import data_directory

#: dpkg's architecture -> what personality(2) the guest's processes get, in lxc's words.
ARCHITECTURES = {"amd64": "x86_64", "i386": "i686"}

#: Character devices that a guest may use: null, zero, full, random, urandom, tty, console, ptmx, and pseudo terminals.
_DEVICES = ("1:3", "1:5", "1:7", "1:8", "1:9", "5:0", "5:1", "5:2", "136:*")

#: No honest build comes near so many processes; a fork bomb ends there.
PROCESSES = 8192

#: Soft limits of what runs in a guest, the same wherever it runs: open files, stack (KiB), core dumps.
OPEN_FILES = 1024
STACK = 8192

_SECCOMP_PLACES = (Path("/usr/share/lxc/config/common.seccomp"), Path("/usr/local/share/lxc/config/common.seccomp"))
#: Sockets between a virtual machine and its hypervisor (vsock(7)) belong to no network namespace: a guest without a
#: network is told that there are none (EAFNOSUPPORT). What 32-bit programs call socketcall(2) cannot be looked into.
#: What is done through io_uring(7), where sockets are made since Linux 5.19, no seccomp profile sees: it is told that
#: this kernel has none (ENOSYS), and programs then do without.
_CUT_OFF = ("socket errno 97 [0,40,SCMP_CMP_EQ]", "io_uring_setup errno 38")

_BLANK = re.compile(r"@([A-Z_]+)@")


@dataclass(frozen=True, slots=True, kw_only=True)
class ConfigRequest:
    """What a container is configured from."""

    root: Path  # where the mounted root file system will be
    arch: str
    ids: SubIds
    network: Network
    allow_sudo: bool = False


def render(request: ConfigRequest, *, cgroups: Path = Path("/sys/fs/cgroup"), template: str | None = None,
           seccomp: Path | None = None) -> str:
    """The text of the configuration (lxc.container.conf(5)). Raises HostError; ValueError for a wrong request."""
    if request.arch not in ARCHITECTURES:
        raise ValueError(f"no architecture of a guest: {request.arch!r}")
    if re.search(r"[\s#]", str(request.root)):
        raise ValueError(f"a path that the configuration's syntax cannot hold: {request.root}")
    values = {
        "ROOT": str(request.root), "ARCH": ARCHITECTURES[request.arch],
        "FIRST_UID": str(request.ids.uid), "FIRST_GID": str(request.ids.gid), "COUNT": str(request.ids.count),
        "SECCOMP": str(seccomp or seccomp_profile()),
        # Where sudo is allowed its set-user-id bit must work; nowhere else does anybody need one.
        "NO_NEW_PRIVS": "0" if request.allow_sudo else "1",
    }
    text = template if template is not None else (data_directory("etc") / "lxc.config.in").read_text(encoding="utf-8")
    filled = _BLANK.sub(lambda blank: values[blank[1]], text)
    return "\n".join([filled.rstrip("\n"), *group_lines(cgroups), *limit_lines(), *request.network.config, ""])


def seccomp_profile() -> Path:
    """The profile that comes with lxc. Raises HostError: no guest runs without one."""
    for place in _SECCOMP_PLACES:
        if place.is_file():
            return place
    raise HostError("lxc's seccomp profile 'common.seccomp' is not on this machine.",
                    hint="It comes with lxc: 'apt-get install lxc'.")


def cut_off(profile: str) -> str:
    """A seccomp profile (of version 2) for a guest that is to have no network at all."""
    return "\n".join([profile.rstrip("\n"), *_CUT_OFF, ""])


def group_lines(cgroups: Path) -> list[str]:
    """Limits by control groups, in the words of the version (1, or 2 alone) that has the controllers here."""
    lines = []
    if (cgroups / "cgroup.controllers").is_file():
        key = "lxc.cgroup2"
        devices = True  # by a BPF program; there is no controller of that name
        pids = "pids" in (cgroups / "cgroup.controllers").read_text().split()
    else:
        key = "lxc.cgroup"
        devices, pids = (cgroups / "devices").is_dir(), (cgroups / "pids").is_dir()
    if devices:
        lines.append(f"{key}.devices.deny = a")
        lines += [f"{key}.devices.allow = c {numbers} rwm" for numbers in _DEVICES]
    if pids:
        lines.append(f"{key}.pids.max = {PROCESSES}")
    else:
        lines.append(f"lxc.prlimit.nproc = {PROCESSES}")
    return lines


def limit_lines() -> list[str]:
    """Resource limits of the container's first process; hard ones only as this process may set them."""
    def line(name: str, kind: int, soft: int) -> str:
        hard = resource.getrlimit(kind)[1]
        if hard != resource.RLIM_INFINITY:
            soft = min(soft, hard)
        return f"lxc.prlimit.{name} = {soft}:{'unlimited' if hard == resource.RLIM_INFINITY else hard}"

    return [line("core", resource.RLIMIT_CORE, 0), line("nofile", resource.RLIMIT_NOFILE, OPEN_FILES),
            line("stack", resource.RLIMIT_STACK, STACK * 1024)]
