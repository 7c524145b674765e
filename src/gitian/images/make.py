"""make-base-vm: one root filesystem, adopted by a backend."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from gitian.errors import ExistsError, FormatError, GitianError, ImageError, UsageError
from gitian.formats.image_record import ImageRecord
from gitian.host import progress
from gitian.host.hashing import sha256_file
from gitian.host.pool import Pool
from gitian.images import archive, lxc, rootfs, sources
from gitian.images.archive import Indices
from gitian.images.distros import check_target, find_distro
from gitian.images.record import ImageFiles
from gitian.images.sources import SourceOptions

if TYPE_CHECKING:
    from gitian.images.kvm import Boot


@dataclass(frozen=True, slots=True, kw_only=True)
class MakeRequest:
    """What image to make. ``disksize`` is in MB (KVM only); ``suite`` None is the distro's default."""

    directory: Path
    distro: str = "ubuntu"
    suite: str | None = None
    arch: str = "amd64"
    backend: str = "kvm"
    disksize: int = 12287
    keyring: Path | None = None
    sources: SourceOptions = field(default_factory=SourceOptions)
    pool: Pool | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Made:
    """A finished image. ``adopted`` is True when its tarball was there already."""

    path: Path
    tarball: Path
    record: ImageRecord
    adopted: bool


def make_image(request: MakeRequest) -> Made:
    """Make a base image.

    Raises ExistsError (it is there; nothing is touched), UsageError, BusyError, FetchError, ImageError, HostError,
    MissingToolError.
    """
    distro = find_distro(request.distro)
    suite = request.suite or distro.default_suite
    check_target(distro, suite, request.arch)
    files = ImageFiles(directory=request.directory, suite=suite, arch=request.arch)
    path = files.lxc if request.backend == "lxc" else files.kvm
    _refuse_existing(path)
    if request.keyring is not None and not request.keyring.is_file():
        raise UsageError(f"The keyring '{request.keyring}' is not a file.")
    with files.lock():
        _refuse_existing(path)
        with making(files) as scratch:
            return _make(request, files, suite, path, scratch)


@contextlib.contextmanager
def making(files: ImageFiles) -> Iterator[Path]:
    """A directory for what is unfinished while the block runs, which whoever was killed may have left something in.

    The caller holds the lock.
    """
    lxc.remove(files.partial_root)
    lxc.remove(files.partial)
    files.partial.mkdir(mode=0o755)
    try:
        yield files.partial
    finally:
        _clear(files.partial)
        _clear(files.partial_root)


def _clear(partial: Path) -> None:
    """Remove what is unfinished; the next run sweeps what resists, and an error here would hide what went wrong."""
    for pause in (0.1, 0.5, 2.0, None):  # what was ended a moment ago may still be writing
        try:
            lxc.remove(partial)
            return
        except GitianError as error:
            if pause is None:
                progress.warn(str(error))
                return
            time.sleep(pause)


def _refuse_existing(path: Path) -> None:
    if os.path.lexists(path):
        raise ExistsError(f"{path.name} already exists, please remove it first")


def _make(request: MakeRequest, files: ImageFiles, suite: str, path: Path, scratch: Path) -> Made:
    record = adoptable(files, request.backend, request.distro)
    if record is not None:
        progress.say(f"Using the root filesystem '{files.tarball.name}', from which "
                     f"the other backend's image was made.")
    adopted = record is not None
    indices = None
    if record is None:
        record, indices = _fresh(request, files, suite, scratch)
    if request.backend == "lxc":
        record = adopt_lxc(files, record)
    else:
        record = _adopt_kvm(request, files, record, indices, scratch)
    return Made(path=path, tarball=files.tarball, record=record, adopted=adopted)


def adopt_lxc(files: ImageFiles, record: ImageRecord) -> ImageRecord:
    """Have LXC adopt the tarball that the record tells of; the caller holds the lock. Raises HostError, ImageError."""
    with progress.step(f"Unpacking {files.lxc.name}"):
        image = lxc.adopt(files.tarball, record.tarball_sha256, files.partial_root)
    record = replace(record, lxc=image.to_record())
    # A record of an image that is not there yet does no harm; an image without a record would.
    files.write_record(record)
    files.partial_root.rename(files.lxc)
    return record


def _adopt_kvm(request: MakeRequest, files: ImageFiles, record: ImageRecord, indices: Indices | None,
               scratch: Path) -> ImageRecord:
    from gitian.images import kvm

    # The kernel is fetched now, though the root filesystem may be there already: from what is asked for now, but
    # without what the root filesystem was made without.
    wanted = replace(request.sources, without=tuple(sorted({*request.sources.without, *record.without})))

    def indices_for(arch: str) -> Indices:
        if indices is not None and indices.arch == arch:
            return indices
        return _fetch(replace(request, sources=wanted), files.suite, arch, scratch)

    boot = kvm.fetched(distro=request.distro, suite=files.suite, arch=files.arch, indices=indices_for)
    return adopt_kvm(files, record, boot, request.disksize, scratch)


def adopt_kvm(files: ImageFiles, record: ImageRecord, boot: Callable[[Path], Boot], disksize: int,
              scratch: Path) -> ImageRecord:
    """Have KVM adopt the tarball that the record tells of; the caller holds the lock. ``disksize`` is in MB.

    Raises what ``kvm.adopt`` and ``boot`` do.
    """
    from gitian.images import kvm

    room = scratch / "kvm"
    room.mkdir()
    fields = kvm.adopt(
        kvm.KvmRequest(tarball=files.tarball, tarball_sha256=record.tarball_sha256, distro=record.distro,
                       suite=files.suite, arch=files.arch, disksize=disksize, epoch=record.epoch, boot=boot),
        disk=room / files.kvm.name, vmlinuz=room / files.kernel.name, ramdisk=room / files.initrd.name, scratch=room)
    record = replace(record, kvm=fields)
    files.write_record(record)
    for path in (files.kernel, files.initrd, files.kvm):
        (room / path.name).replace(path)
    return record


def _keyrings(request: MakeRequest) -> tuple[Path, ...]:
    return (request.keyring.resolve(),) if request.keyring else find_distro(request.distro).find_keyrings()


def adoptable(files: ImageFiles, backend: str, distro: str) -> ImageRecord | None:
    """The record of the tarball to adopt, when the other backend has an image made from it; else None.

    Two images of one name must come from one root filesystem: guests of both backends then have the same packages.
    Raises ImageError: there is such an image, but its tarball is not what it was.
    """
    other = files.kvm if backend == "lxc" else files.lxc
    if not os.path.lexists(other):
        return None
    hint = f"Remove '{other.name}' too, and make both anew."
    try:
        record = files.read_record()
    except FormatError as error:
        raise ImageError(str(error), hint=hint) from error
    if record is None:
        raise ImageError(f"'{other.name}' is there, but no record of what it was made from.", hint=hint)
    if record.distro != distro:
        raise ImageError(f"'{other.name}' is of {record.distro}, not of {distro}.", hint=hint)
    if not files.tarball.is_file():
        raise ImageError(f"'{other.name}' is there, but the root filesystem it was made from, '{files.tarball.name}', "
                         "is not.", hint=hint)
    with progress.step(f"Checking {files.tarball.name}"):
        if files.tarball.stat().st_size != record.tarball_size or sha256_file(files.tarball) != record.tarball_sha256:
            raise ImageError(f"'{files.tarball.name}' is not the root filesystem from which '{other.name}' was made.",
                             hint=hint)
    return record


def _fetch(request: MakeRequest, suite: str, arch: str, scratch: Path) -> Indices:
    distro = find_distro(request.distro)
    keyrings = _keyrings(request)
    wanted = sources.find_sources(distro, suite, arch, request.sources, scratch)
    with progress.step(f"Fetching the package indices of {suite} ({arch})"):
        indices = archive.fetch_indices(wanted, arch, keyrings, scratch, request.pool)
    if request.keyring is None:
        for source, origin in zip(wanted, indices.origins, strict=True):
            if origin != distro.origin:
                raise ImageError(f"The archive '{source.name}' is of '{progress.plain(origin)}', not of "
                                 f"{distro.origin}.", hint="Choose another with --distro or --mirror.")
    return indices


def _fresh(request: MakeRequest, files: ImageFiles, suite: str, scratch: Path) -> tuple[ImageRecord, Indices]:
    """A new tarball with its record, in place of a stale one."""
    distro = find_distro(request.distro)
    indices = _fetch(request, suite, request.arch, scratch)
    with progress.step(f"Making the root filesystem of {files.name}"):
        made = rootfs.make_root_filesystem(
            rootfs.RootRequest(distro=distro, suite=suite, arch=request.arch, source=indices, keyring=request.keyring),
            scratch / files.tarball.name, scratch)
    record = ImageRecord(
        distro=distro.name, suite=suite, architecture=request.arch, mirror=indices.sources[0].guest_uri,
        epoch=indices.epoch, tarball_sha256=made.sha256, tarball_size=made.size,
        sources=tuple(source.guest_line for source in indices.sources), without=request.sources.without,
        indices=indices.releases, packages=made.packages, made_by=made_by())
    keep(files, made, record)
    return record, indices


def keep(files: ImageFiles, made: rootfs.RootFilesystem, record: ImageRecord) -> None:
    """Put a new tarball in its place, with its record, instead of a stale one; the caller holds the lock."""
    files.record.unlink(missing_ok=True)
    made.tarball.replace(files.tarball)
    files.write_record(record)


def made_by() -> str:
    """What programs make an image here, for its record."""
    from importlib.metadata import PackageNotFoundError, version

    from gitian.host import process

    said = process.run(["mmdebstrap", "--version"], check=False).stdout.decode(errors="replace").strip()
    try:
        return f"gitian {version('gitian')}, {said}"
    except PackageNotFoundError:
        return f"gitian, {said}"
