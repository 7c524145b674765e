"""Adopt the one root filesystem for virtual machines: a disk, and the kernel and RAM disk to start it with."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from gitian.errors import ImageError
from gitian.host import process, progress
from gitian.host.hashing import sha256_files
from gitian.host.space import require_room
from gitian.images import ext4, initrd, kernel
from gitian.images.archive import Indices, fetch_indices
from gitian.images.packages import Package, fetch, unpack
from gitian.images.sources import Source


#: The time of making that the disk shows (2020-01-01), whenever it was made: equal tarballs give equal disks.
_EPOCH = 1577836800


def adopt(*, tarball: Path, distro: str, suite: str, arch: str, directory: Path, disksize: int,
          sources: Sequence[Source], keyrings: Sequence[Path], scratch: Path,
          indices: Indices | None = None) -> dict[str, Any]:
    """Make ``base-SUITE-ARCH.qcow2``, ``.vmlinuz`` and ``.initrd`` in ``directory``; the fields for their record.

    ``disksize`` is in MB (2^20 bytes). Kernel and busybox come from ``sources``, whose indices are signed by one of
    ``keyrings``; ``indices`` are these indices for ``arch`` when they have been fetched already. ``scratch`` is a
    directory for what is needed meanwhile. All is written through to the disk; the caller renames it into place, the
    qcow2 file last. Needs no root rights, mounts nothing, starts no guest.

    Raises ImageError, FetchError, HostError, MissingToolError, ProgramError, FormatError.
    """
    disk, vmlinuz, ramdisk = (directory / f"base-{suite}-{arch}.{kind}" for kind in ("qcow2", "vmlinuz", "initrd"))
    size = tarball.stat().st_size
    require_room(scratch, 2 * size + 2**29, "the disk of the base image")
    require_room(directory, size + 2**28, "the base image")
    with progress.step(f"Fetching the kernel for {suite} ({arch})"):
        known = {arch: indices} if indices is not None else {}

        def open_indices(of: str) -> Indices:
            if of not in known:
                place = scratch / f"indices-{of}"
                place.mkdir()
                known[of] = fetch_indices(sources, of, keyrings, place)
            return known[of]

        booted = kernel.obtain(distro=distro, arch=arch, indices=open_indices, scratch=scratch)
        busybox = fetch(open_indices(arch), "busybox-static", scratch)
        vmlinuz.write_bytes(booted.image)
        ramdisk.write_bytes(initrd.build(kernel=booted, busybox=_program(busybox, scratch)))
    with progress.step(f"Making the disk of {suite} ({arch})"):
        raw = scratch / "disk.raw"
        ext4.fill(tarball=tarball, image=raw, megabytes=disksize, epoch=_EPOCH, identity=f"{distro}/{suite}/{arch}")
        process.run(["qemu-img", "convert", "-f", "raw", "-O", "qcow2", "-o", "compat=1.1", raw, disk], timeout=1800)
        raw.unlink()
        files = (disk, vmlinuz, ramdisk)
        for path in files:
            _sync(path)
        disk_sum, vmlinuz_sum, ramdisk_sum = sha256_files(files)
    return {
        "disksize": disksize, "disk_sha256": disk_sum,
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
