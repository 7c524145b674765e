"""Adopt the one root filesystem for virtual machines: a disk, and the kernel and RAM disk to start it with."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gitian.errors import ImageError
from gitian.host import process, progress
from gitian.host.hashing import sha256_files
from gitian.host.space import require_room
from gitian.images import ext4, initrd, kernel
from gitian.images.archive import Indices
from gitian.images.packages import Package, fetch, unpack


@dataclass(frozen=True, slots=True, kw_only=True)
class KvmRequest:
    """What to adopt: a tarball (and its hash) for a distro, suite and architecture.

    ``disksize`` is in MB (2^20 bytes); ``epoch``, in seconds, is the time of making that the disk shows; ``indices``
    gives the signed indices of the sources for an architecture, which need not be the guest's.
    """

    tarball: Path
    tarball_sha256: str
    distro: str
    suite: str
    arch: str
    disksize: int
    epoch: int
    indices: Callable[[str], Indices]


def adopt(request: KvmRequest, *, disk: Path, vmlinuz: Path, ramdisk: Path, scratch: Path) -> dict[str, Any]:
    """Make the three files under the (temporary) names given, written through to the disk; the fields for their record.

    The caller keeps others out meanwhile, and renames them into place, the disk last. Needs no root rights, mounts
    nothing, starts no guest.

    Raises ImageError, FetchError, HostError, MissingToolError, ProgramError, FormatError.
    """
    size = request.tarball.stat().st_size
    require_room(scratch, 2 * size + 2**29, "the disk of the base image")
    known: dict[str, Indices] = {}

    def indices(arch: str) -> Indices:
        if arch not in known:
            known[arch] = request.indices(arch)
        return known[arch]

    indices(request.arch)
    with progress.step(f"Fetching the kernel for {request.suite} ({request.arch})"):
        booted = kernel.obtain(distro=request.distro, arch=request.arch, indices=indices, scratch=scratch)
        busybox = fetch(indices(request.arch), "busybox-static", scratch)
        vmlinuz.write_bytes(booted.image)
        ramdisk.write_bytes(initrd.build(kernel=booted, busybox=_program(busybox, scratch)))
    with progress.step(f"Making the disk of {request.suite} ({request.arch})"):
        raw = scratch / "disk.raw"
        ext4.fill(tarball=request.tarball, image=raw, megabytes=request.disksize, epoch=request.epoch,
                  identity=f"{request.distro}/{request.suite}/{request.arch}")
        process.run(["qemu-img", "convert", "-f", "raw", "-O", "qcow2", "-o", "compat=1.1", raw, disk], timeout=1800)
        raw.unlink()
        files = (disk, vmlinuz, ramdisk)
        for path in files:
            _sync(path)
        disk_sum, vmlinuz_sum, ramdisk_sum = sha256_files(files)
    return {
        "tarball_sha256": request.tarball_sha256, "disksize": request.disksize, "disk_sha256": disk_sum,
        "kernel_sha256": vmlinuz_sum, "kernel_release": booted.release,
        "kernel_packages": [_described(package) for package in booted.packages],
        "initrd_sha256": ramdisk_sum, "initrd_modules": list(booted.modules),
        "initrd_packages": [_described(busybox)],
    }


def _program(busybox: Package, scratch: Path) -> bytes:
    """The program in the package of busybox."""
    unpack(busybox, scratch / "busybox")
    # Debian since trixie and Ubuntu since 24.04 have no /bin of its own any more.
    for place in ("bin/busybox", "usr/bin/busybox"):
        if (program := scratch / "busybox" / place).is_file() and not program.is_symlink():
            return program.read_bytes()
    raise ImageError("The package 'busybox-static' holds no program 'busybox'.")


def _described(package: Package) -> dict[str, str]:
    return {"name": package.name, "version": package.version, "architecture": package.architecture,
            "sha256": package.sha256}


def _sync(path: Path) -> None:
    number = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(number)
    finally:
        os.close(number)
