"""Adopt the one root filesystem for virtual machines: a disk, and the kernel and RAM disk to start it with."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gitian.errors import ImageError
from gitian.host import process, progress
from gitian.host.hashing import sha256_bytes, sha256_files
from gitian.host.space import require_room
from gitian.images import debfile, ext4, initrd, kernel
from gitian.images.archive import Indices
from gitian.images.packages import Package, fetch


@dataclass(frozen=True, slots=True, kw_only=True)
class KvmRequest:
    """What to adopt: a tarball (and its hash) for a distro, suite and architecture.

    ``disksize`` is in MB (2^20 bytes); ``epoch``, in seconds, is the time of making that the disk shows; ``boot`` gets
    the kernel, and is given a directory to work in: :func:`fetched`, :func:`unpacked` or :func:`taken_over`.
    """

    tarball: Path
    tarball_sha256: str
    distro: str
    suite: str
    arch: str
    disksize: int
    epoch: int
    boot: Callable[[Path], Boot]


@dataclass(frozen=True, slots=True, kw_only=True)
class Boot:
    """What a virtual machine is started with, and what the record says of it."""

    vmlinuz: bytes
    initrd: bytes
    fields: Mapping[str, Any]


def fetched(*, distro: str, suite: str, arch: str, indices: Callable[[str], Indices]) -> Callable[[Path], Boot]:
    """A kernel from an archive. ``indices`` gives the signed indices of the sources for an architecture, which need not
    be the guest's. The function raises what :func:`kernel.obtain` does.
    """
    known: dict[str, Indices] = {}

    def once(arch: str) -> Indices:
        if arch not in known:
            known[arch] = indices(arch)
        return known[arch]

    def boot(scratch: Path) -> Boot:
        once(arch)
        with progress.step(f"Fetching the kernel for {suite} ({arch})"):
            booted = kernel.obtain(distro=distro, arch=arch, indices=once, scratch=scratch)
            return _boot(booted, fetch(once(arch), "busybox-static", scratch), scratch)

    return boot


def unpacked(packages: Sequence[Package], busybox: Package) -> Callable[[Path], Boot]:
    """The kernel in exactly these packages. The function raises what :func:`kernel.unpacked` does."""
    return lambda scratch: _boot(kernel.unpacked(packages, scratch), busybox, scratch)


def taken_over(fields: Mapping[str, Any], vmlinuz: Path, ramdisk: Path) -> Callable[[Path], Boot]:
    """The kernel of another image, whose record's ``fields`` these are.

    The function raises ImageError: the files are not those that the record tells of.
    """
    def boot(_: Path) -> Boot:
        data = {"kernel": vmlinuz.read_bytes(), "initrd": ramdisk.read_bytes()}
        for name, path in (("kernel", vmlinuz), ("initrd", ramdisk)):
            if sha256_bytes(data[name]) != fields.get(f"{name}_sha256"):
                raise ImageError(f"'{path}' is not what its image's record tells of.",
                                 hint="Remove that image and its files, and make it again with make-base-vm.")
        return Boot(vmlinuz=data["kernel"], initrd=data["initrd"],
                    fields={name: fields[name] for name in _TAKEN if name in fields})

    return boot


#: What a record says of a kernel whatever disk it is started with.
_TAKEN = ("kernel_release", "kernel_packages", "initrd_modules", "initrd_packages")


def _boot(booted: kernel.Kernel, busybox: Package, scratch: Path) -> Boot:
    return Boot(vmlinuz=booted.image, initrd=initrd.build(kernel=booted, busybox=_program(busybox, scratch)), fields={
        "kernel_release": booted.release, "kernel_packages": [_described(package) for package in booted.packages],
        "initrd_modules": list(booted.modules), "initrd_packages": [_described(busybox)]})


def adopt(request: KvmRequest, *, disk: Path, vmlinuz: Path, ramdisk: Path, scratch: Path) -> dict[str, Any]:
    """Make the three files under the (temporary) names given, written through to the disk; the fields for their record.

    The caller keeps others out meanwhile, and renames them into place, the disk last. Needs no root rights, mounts
    nothing, starts no guest.

    Raises ImageError, FetchError, HostError, MissingToolError, ProgramError, FormatError.
    """
    size = request.tarball.stat().st_size
    require_room(scratch, 2 * size + 2**29, "the disk of the base image")
    boot = request.boot(scratch)
    vmlinuz.write_bytes(boot.vmlinuz)
    ramdisk.write_bytes(boot.initrd)
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
    return {"tarball_sha256": request.tarball_sha256, "disksize": request.disksize, "disk_sha256": disk_sum,
            "kernel_sha256": vmlinuz_sum, "initrd_sha256": ramdisk_sum, **boot.fields}


def _program(busybox: Package, scratch: Path) -> bytes:
    """The program in the package of busybox."""
    # Debian since trixie and Ubuntu since 24.04 have no /bin of its own any more.
    places = ("bin/busybox", "usr/bin/busybox")
    found = debfile.take(busybox.path, scratch / "busybox", places.__contains__)
    for place in places:
        if place in found:
            return found[place].read_bytes()
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
