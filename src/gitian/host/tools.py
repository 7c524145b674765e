"""Each program that gitian starts, and the Debian package that brings it."""

from __future__ import annotations

import shutil
from pathlib import Path

from gitian.errors import MissingToolError

#: program -> Debian and Ubuntu package
PACKAGES = {
    "apt-ftparchive": "apt-utils",
    "apt-get": "apt",
    "apt-helper": "apt",
    "ar": "binutils",
    "busybox": "busybox-static",
    "debugfs": "e2fsprogs",
    "dpkg-deb": "dpkg",
    "e2fsck": "e2fsprogs",
    "git": "git",
    "gpg": "gpg",
    "gpg-agent": "gpg-agent",
    "gpgconf": "gpgconf",
    "gpgv": "gpgv",
    "ip": "iproute2",
    "lxc-attach": "lxc",
    "lxc-execute": "lxc",
    "lxc-info": "lxc",
    "lxc-start": "lxc",
    "lxc-stop": "lxc",
    "lxc-usernsexec": "lxc",
    "mke2fs": "e2fsprogs",
    "mmdebstrap": "mmdebstrap",
    "newgidmap": "uidmap",
    "newuidmap": "uidmap",
    "nsenter": "util-linux",
    "prlimit": "util-linux",
    "qemu-img": "qemu-utils",
    "qemu-system-i386": "qemu-system-x86",
    "qemu-system-x86_64": "qemu-system-x86",
    "setpriv": "util-linux",
    "slirp4netns": "slirp4netns",
    "sudo": "sudo",
    "tar": "tar",
    "unshare": "util-linux",
    "zstd": "zstd",
}


def find(name: str, path: str | None = None) -> str:
    """The program's full path. Raises MissingToolError, with the package that brings it when we know it."""
    found = shutil.which(name, path=path) if path else shutil.which(name)
    if found is None and "/" not in name:
        found = shutil.which(name, path="/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
    if found is None:
        package = PACKAGES.get(Path(name).name)
        hint = f"Install it: 'apt-get install {package}'; 'gitian doctor' lists what else is missing." if package \
            else "Install it, or put it on PATH."
        raise MissingToolError(f"The program '{name}' is not installed.", hint=hint)
    return found
