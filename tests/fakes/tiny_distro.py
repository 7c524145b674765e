"""A distro so small that a base image of it takes seconds: this machine's own programs, packed for a test."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterable, Sequence
from pathlib import Path

from tests.fakes.archive import Archive, make_deb

#: What dpkg, mmdebstrap and make-base-vm run in a new root.
PROGRAMS = ("bash", "cat", "chmod", "chown", "cp", "cut", "diff", "dpkg", "dpkg-deb", "dpkg-query", "dpkg-split",
            "dpkg-trigger", "dpkg-divert", "dpkg-statoverride", "env", "find", "getent", "grep", "groupadd", "id",
            "install", "ldconfig", "ln", "ls", "mkdir", "mv", "rm", "rmdir", "sed", "sh", "start-stop-daemon", "tar",
            "test", "touch", "true", "update-alternatives", "useradd", "userdel")

#: What a guest and a build script need besides.
GUEST_PROGRAMS = ("chroot", "date", "head", "mount", "setarch", "setsid", "sha256sum", "sleep", "sort", "stat", "tail",
                  "tr", "umount", "uname", "wc")

_PASSWD = "root:x:0:0:root:/root:/bin/bash\nnobody:x:65534:65534:nobody:/nonexistent:/usr/sbin/nologin\n"
_GROUP = "root:x:0:\nshadow:x:42:\nmail:x:8:\nnogroup:x:65534:\n"


def _which(name: str) -> Path:
    for place in ("/usr/bin", "/usr/sbin", "/bin", "/sbin"):
        if (path := Path(place) / name).exists():
            return path.resolve()
    raise FileNotFoundError(name)


def _libraries(programs: Iterable[Path]) -> set[Path]:
    found: set[Path] = set()
    for program in programs:
        said = subprocess.run(["ldd", program], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, check=False).stdout
        found |= {Path(word) for word in re.findall(r"(/\S+) \(0x", said.decode())}
    return found


def packages(directory: Path, others: Sequence[str], arch: str, *, guest: bool = False) -> list[Path]:
    """The distro's packages: one that is essential and holds all programs, and empty ones by name.

    With ``guest`` a build can run in a container that is made of them.
    """
    programs = {name: _which(name) for name in (*PROGRAMS, *(GUEST_PROGRAMS if guest else ()))}
    files: dict[str, bytes | Path] = {}
    for name, path in programs.items():
        place = "usr/sbin" if "sbin" in str(path.parent) else "usr/bin"
        files[f"/{place}/{name}"] = path
    for library in _libraries(programs.values()):
        merged = library if str(library).startswith("/usr/") else Path("/usr" + str(library))
        files[str(merged)] = library
    files |= {"/etc/passwd": _PASSWD.encode(), "/etc/group": _GROUP.encode(),
              "/etc/shadow": b"root:*:19000:0:99999:7:::\n", "/etc/gshadow": b"root:*::\n",
              "/etc/login.defs": b"UMASK 022\n", "/etc/skel/.profile": b"", "/etc/default/useradd": b"",
              "/etc/dpkg/origins/default": b""}
    directories = ("/etc/apt/trusted.gpg.d", "/tmp", "/var/log", "/root", "/home", "/var/tmp", "/dev", "/proc", "/sys",
                   "/run")
    links = {f"/{name}": f"usr/{name}" for name in ("bin", "sbin", "lib", "lib64")}
    made = [make_deb(directory, "tiny-base", arch=arch, essential=True, files=files, links=links,
                     directories=directories)]
    for name in ("apt", "locales", *others):
        extra: dict[str, bytes | Path] = {}
        if name == "locales":
            extra["/usr/sbin/locale-gen"] = b"#!/bin/sh\nmkdir -p /usr/lib/locale\n" \
                                            b"cat /etc/locale.gen > /usr/lib/locale/generated\n"
        if name == "openssh-server":
            extra["/etc/ssh/ssh_host_ed25519_key"] = b"made while being installed\n"
        if name not in {deb.name.split("_")[0] for deb in made}:
            made.append(make_deb(directory, name, files=extra))
    return made


def fill(archive: Archive, suite: str, debs: Sequence[Path], *, origin: str, arch: str,
         components: Sequence[str] = ("main",), pockets: Sequence[str] = ()) -> None:
    """A suite with these packages, and empty pockets of it."""
    archive.add_suite(suite, components=components, architectures=(arch,), origin=origin)
    for deb in debs:
        archive.add_deb(deb, suite)
    for pocket in pockets:
        archive.add_suite(f"{suite}{pocket}", components=components, architectures=(arch,), origin=origin)
