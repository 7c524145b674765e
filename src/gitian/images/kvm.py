"""Adopt the one root filesystem for virtual machines: a disk, and the kernel and RAM disk to start it with."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Sequence
from pathlib import Path

from gitian.errors import ImageError
from gitian.host import process, progress
from gitian.host.hashing import sha256_files
from gitian.host.space import require_room
from gitian.images import ext4, initrd, kernel
from gitian.images.packages import AptRoot, Package, unpack
from gitian.images.sources import Source

#: The time of making that the disk shows (2020-01-01), whenever it was made: equal tarballs give equal disks.
_EPOCH = 1577836800


def adopt(*, tarball: Path, distro: str, suite: str, arch: str, directory: Path, disksize: int,
          sources: Sequence[Source], keyrings: Sequence[Path], scratch: Path) -> dict[str, object]:
    """Make ``base-<suite>-<arch>.qcow2``, ``.vmlinuz`` and ``.initrd`` in ``directory``; the fields for their record.

    ``disksize`` is in MB (2^20 bytes); ``keyrings`` are the files of keys that may sign the indices of ``sources``. The
    disk is renamed into place last: where it is, all three are whole. Needs no root rights, mounts nothing, starts no
    guest. The caller keeps others out meanwhile.

    Raises ImageError, FetchError, HostError, MissingToolError, ProgramError, FormatError.
    """
    stem = f"base-{suite}-{arch}"
    partial = {kind: directory / f".partial-{stem}.{kind}" for kind in ("vmlinuz", "initrd", "qcow2")}
    require_room(scratch, 2 * tarball.stat().st_size + 2**29, "the disk of the base image")
    require_room(directory, tarball.stat().st_size + 2**28, "the base image")
    try:
        with progress.step(f"Fetching the kernel for '{suite}-{arch}'"):
            booted, busybox = _boot_parts(distro, arch, sources, keyrings, scratch)
            _write(partial["vmlinuz"], booted.image)
            program = (scratch / "busybox/bin/busybox").read_bytes()
            _write(partial["initrd"], initrd.build(kernel=booted, busybox=program))
        with progress.step(f"Making the disk of '{suite}-{arch}'"):
            raw = scratch / "disk.raw"
            ext4.fill(tarball=tarball, image=raw, megabytes=disksize, epoch=_EPOCH,
                      identity=f"{distro}/{suite}/{arch}")
            process.run(["qemu-img", "convert", "-f", "raw", "-O", "qcow2", "-o", "compat=1.1,lazy_refcounts=off",
                         raw, partial["qcow2"]], timeout=1800)
            raw.unlink()
        sums = sha256_files(list(partial.values()))
        for kind, path in partial.items():
            _sync(path)
            path.replace(directory / f"{stem}.{kind}")
        _sync(directory)
    except BaseException:
        for path in partial.values():
            with contextlib.suppress(OSError):
                path.unlink(missing_ok=True)
        raise
    vmlinuz_sum, initrd_sum, disk_sum = sums
    return {
        "disk": {"file": f"{stem}.qcow2", "sha256": disk_sum, "megabytes": disksize},
        "kernel": {"file": f"{stem}.vmlinuz", "sha256": vmlinuz_sum, "release": booted.release,
                   "packages": [_described(package) for package in booted.packages]},
        "initrd": {"file": f"{stem}.initrd", "sha256": initrd_sum, "modules": list(booted.modules),
                   "packages": [_described(busybox)]},
    }


def _boot_parts(distro: str, arch: str, sources: Sequence[Source], keyrings: Sequence[Path],
                scratch: Path) -> tuple[kernel.Kernel, Package]:
    """The kernel, and the package of the busybox that the RAM disk runs (unpacked in ``scratch``)."""
    roots: dict[str, AptRoot] = {}

    def open_root(architecture: str) -> AptRoot:
        if architecture not in roots:
            place = scratch / f"apt-{architecture}"
            roots[architecture] = AptRoot(directory=place, architecture=architecture, sources=sources,
                                          keyrings=keyrings)
            roots[architecture].update()
        return roots[architecture]

    booted = kernel.obtain(distro=distro, arch=arch, open_root=open_root, sources=sources, scratch=scratch)
    busybox = open_root(arch).fetch("busybox-static")
    unpack(busybox, scratch / "busybox")
    if not (program := scratch / "busybox/bin/busybox").is_file():
        # Debian since trixie, Ubuntu since 24.04: /bin is no place of its own any more.
        other = scratch / "busybox/usr/bin/busybox"
        if not other.is_file():
            raise ImageError("The package 'busybox-static' holds no program 'busybox'.")
        program.parent.mkdir(exist_ok=True)
        other.rename(program)
    return booted, busybox


def _described(package: Package) -> dict[str, str]:
    return {"name": package.name, "version": package.version, "architecture": package.architecture,
            "sha256": package.sha256, "source": package.source}


def _write(path: Path, data: bytes) -> None:
    path.unlink(missing_ok=True)
    path.write_bytes(data)


def _sync(path: Path) -> None:
    number = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(number)
    finally:
        os.close(number)
