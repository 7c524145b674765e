"""Exact images: base images whose root filesystem is made of exactly the packages of an environment.

They lie in a place of their own for each environment, below the directory of base images, and are found, locked and
adopted there as ordinary ones are. What is the same bit for bit: docs/explanation/exact-environments.md.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import secrets
import shutil
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from gitian.errors import (
    BusyError,
    EnvironmentUnavailableError,
    FormatError,
    GitianError,
    HostError,
    ImageError,
)
from gitian.formats.environment import Environment, Kernel, by_file_name
from gitian.formats.image_record import ImageRecord, InstalledPackage
from gitian.host import progress
from gitian.host.hashing import sha256_files
from gitian.host.workspace import locked, make_directory
from gitian.images import lxc, make, rootfs, secluded
from gitian.images.distros import check_target, find_distro
from gitian.images.lookup import BaseImage, find_image, make_command
from gitian.images.record import ImageFiles
from gitian.images.repository import Repository, make_repository

if TYPE_CHECKING:
    from gitian.images.kvm import Boot

#: Changes when images that are made from now on are not what was made before from the same packages.
_VERSION = 1
#: The places together may be this large (bytes), unless $GITIAN_ENVIRONMENTS_SIZE says otherwise (MiB).
DEFAULT_LIMIT = 20 * 2**30
#: What was used within so many seconds stays: a build may be about to start a guest from it.
YOUNG = 3600.0

_TOP = "environments"
_MARK = ".used"
#: Held by whoever makes an image, together with others; by one that prunes, alone.
_GUARD = ".lock"
#: Whoever holds an image for a build has this lock, together with others.
_HELD = ".held"
#: The package that the RAM disk's program comes from; the others of a kernel are the kernel's own.
_BUSYBOX = "busybox-static"
#: What every environment has to have, whoever made it: apt is how a root filesystem is made.
_NEEDED = ("apt",)


@dataclass(frozen=True, slots=True, kw_only=True)
class ExactRequest:
    """What image to make: for ``backend`` 'lxc' or 'kvm', from ``debs``, the files of the environment's packages.

    ``directory`` is the one of the base images. ``kernel_debs`` are the files of the environment's kernel, which KVM
    needs when the environment names one. ``disksize`` is in MB (KVM only).
    """

    directory: Path
    environment: Environment
    backend: str
    debs: Mapping[InstalledPackage, Path]
    kernel_debs: Mapping[InstalledPackage, Path] = field(default_factory=dict)
    disksize: int = 12287


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where the images of one environment lie. ``size`` in bytes, about; ``used`` in seconds since 1970."""

    path: Path
    label: str
    size: int
    used: float


def place_of(directory: Path, environment: Environment) -> Path:
    """Where the images of an environment lie, or would, below the directory of base images."""
    kernel = environment.kernel
    parts = [_VERSION, environment.distro, environment.suite, environment.architecture, environment.manifest(),
             None if kernel is None else [kernel.release, [[package.file_name, package.sha256]
                                                           for package in by_file_name(kernel.packages)]]]
    return directory / _TOP / hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:32]


def kernel_of(record: ImageRecord) -> Kernel | None:
    """The kernel that virtual machines of an image are started with; None when KVM has not adopted it.

    Raises FormatError: the record does not say what it should.
    """
    if record.kvm is None:
        return None
    try:
        packages = [InstalledPackage(**{name: str(one[name]) for name in ("name", "architecture", "version", "sha256")})
                    for one in (*record.kvm["kernel_packages"], *record.kvm["initrd_packages"])]
        return Kernel(release=str(record.kvm["kernel_release"]), packages=by_file_name(packages))
    except (KeyError, TypeError) as error:
        raise FormatError(f"The record of base-{record.suite}-{record.architecture} does not tell of its kernel.",
                          hint="Remove the image and its record, and make it again with make-base-vm.") from error


def find_exact(directory: Path, environment: Environment, backend: str) -> BaseImage | None:
    """The image of an environment, marked as used now; None when there is none, no whole one, or one with another
    digest than the environment states.
    """
    place = place_of(directory, environment)
    try:
        image = find_image(place, environment.suite, environment.architecture, backend, environment.distro)
    except ImageError:
        return None
    if environment.base not in (None, image.record.tarball_sha256):
        return None
    with contextlib.suppress(OSError):
        (place / _MARK).touch()
    return image


def make_exact(request: ExactRequest) -> BaseImage:
    """Make the image of an environment, or find the one that somebody else has just made.

    One of the same packages that has another digest than the environment states gives way to one that has it.

    Raises EnvironmentUnavailableError: these packages do not make a system, or another one than was recorded;
    BusyError: somebody uses the one that should give way; ImageError, UsageError (a distro, suite or architecture that
    images cannot have), HostError, MissingToolError.
    """
    environment = request.environment
    check_target(find_distro(environment.distro), environment.suite, environment.architecture)
    _check_packages(request)
    boot = _boot(request) if request.backend == "kvm" else None
    top = make_directory(request.directory / _TOP)
    files = ImageFiles(directory=place_of(request.directory, environment), suite=environment.suite,
                       arch=environment.architecture)
    with locked(top / _GUARD, wait=True, shared=True, what="the images of environments"), files.lock(wait=True):
        image = find_exact(request.directory, environment, request.backend)
        if image is None:
            other = _is_other(environment, files)
            if not other:
                # What is there under the lock, and is no whole image, is nobody's.
                lxc.remove(files.lxc if request.backend == "lxc" else files.kvm)
            with make.making(files) as scratch:
                record = None if other else make.adoptable(files, request.backend, environment.distro)
                if record is None:
                    record = _fresh(request, files, scratch)
                if boot is None:
                    make.adopt_lxc(files, record)
                else:
                    make.adopt_kvm(files, record, boot, request.disksize, scratch)
            # For those who may use the place and not write there.
            (files.directory / _HELD).touch()
            image = find_exact(request.directory, environment, request.backend)
    if image is None:
        raise ImageError(f"The image of the environment of {environment.label} was made, but is not there.")
    return image


def remade(request: ExactRequest) -> str:
    """The SHA-256 of the environment's root filesystem when it is made once more, whatever image there is already.

    Packages that leave random data behind when they are installed show in this. Raises like :func:`make_exact`.
    """
    environment = request.environment
    check_target(find_distro(environment.distro), environment.suite, environment.architecture)
    _check_packages(request)
    top = make_directory(request.directory / _TOP)
    files = ImageFiles(directory=place_of(request.directory, environment), suite=environment.suite,
                       arch=environment.architecture)
    with locked(top / _GUARD, wait=True, shared=True, what="the images of environments"), files.lock(wait=True), \
            make.making(files) as scratch:
        return _root(request, scratch / files.tarball.name, scratch)[1].sha256


def _fresh(request: ExactRequest, files: ImageFiles, scratch: Path) -> ImageRecord:
    """The tarball, with its record, in place of what there is."""
    environment = request.environment
    repository, made = _root(request, scratch / files.tarball.name, scratch)
    _check_base(environment, made.sha256)
    if _is_other(environment, files):
        _make_way(environment, files)
    record = ImageRecord(
        distro=environment.distro, suite=environment.suite, architecture=environment.architecture, mirror="",
        epoch=repository.epoch, tarball_sha256=made.sha256, tarball_size=made.size, sources=(), indices=(),
        packages=made.packages, made_by=make.made_by())
    make.keep(files, made, record)
    return record


def _is_other(environment: Environment, files: ImageFiles) -> bool:
    """Whether the root filesystem that is there has another digest than the environment states."""
    try:
        record = files.read_record()
    except FormatError:
        return False
    return environment.base is not None and record is not None and record.tarball_sha256 != environment.base


def _make_way(environment: Environment, files: ImageFiles) -> None:
    """Remove both backends' images. Raises BusyError: somebody uses one."""
    what = f"the image of {environment.label} that has another digest than the environment states"
    with locked(files.directory / _HELD, wait=False, what=what):
        if _at_work(files.directory):
            raise BusyError(f"Another command is using {what}.", hint="Wait for it to end.")
        for path in (files.lxc, files.kvm, files.kernel, files.initrd):
            lxc.remove(path)


def _root(request: ExactRequest, tarball: Path, scratch: Path) -> tuple[Repository, rootfs.RootFilesystem]:
    """The root filesystem of exactly these packages."""
    environment = request.environment
    work = scratch / "exact"
    secluded.prepare(work)
    with progress.step(f"Checking the {len(environment.packages)} packages of {environment.label}"):
        repository = make_repository({package: request.debs[package] for package in environment.packages},
                                     work / "archive", suite=environment.suite, architecture=environment.architecture)
    _check_repository(repository)
    with progress.step(f"Making the root filesystem of {environment.label} from {len(environment.packages)} packages"):
        made = rootfs.make_root_filesystem(
            rootfs.RootRequest(distro=find_distro(environment.distro), suite=environment.suite,
                               arch=environment.architecture, source=repository), tarball, scratch)
    _check_installed(environment, made.packages)
    lxc.remove(work)  # the next step needs the room
    return repository, made


def _check_packages(request: ExactRequest) -> None:
    environment = request.environment
    lacking = [package.file_name for package in by_file_name(environment.packages) if package not in request.debs]
    if lacking:
        raise EnvironmentUnavailableError(f"The environment of {environment.label} cannot be made without the files of "
                                          f"{_some(lacking)}.")
    names = {package.name for package in environment.packages}
    missing = [name for name in (*_NEEDED, *(["openssh-server"] if request.backend == "kvm" else [])) if
               name not in names]
    if missing:
        raise EnvironmentUnavailableError(
            f"The environment of {environment.label} has no package '{missing[0]}', without which no guest can be made "
            f"of it under {request.backend.upper()}.",
            hint="Does the record list all packages that were installed, or only some?")
    if "locales" not in names:
        progress.warn(f"The environment of {environment.label} has no package 'locales': its guest has no en_US.UTF-8.")


def _check_repository(repository: Repository) -> None:
    if not repository.essential:
        raise EnvironmentUnavailableError(
            f"None of the {len(repository.packages)} packages is essential: they make no system.",
            hint="Does the record list all packages that were installed, or only some?")


def _check_installed(environment: Environment, installed: Collection[InstalledPackage]) -> None:
    wanted, found = set(environment.packages), set(installed)
    if wanted != found:
        lacking = _some([package.file_name for package in by_file_name(wanted - found)])
        added = _some([package.file_name for package in by_file_name(found - wanted)])
        raise EnvironmentUnavailableError(
            f"The root filesystem made of the packages of {environment.label} is not what was recorded; not installed: "
            f"{lacking}; installed besides: {added}.",
            hint="A package that removes others while it is installed may be why.")


def _check_base(environment: Environment, sha256: str) -> None:
    if environment.base is not None and environment.base != sha256:
        raise EnvironmentUnavailableError(
            f"The root filesystem made of the packages of {environment.label} has the sha256 {sha256}, and the "
            f"environment states {environment.base}.",
            hint="Another version of mmdebstrap may be why, or of gitian, or a package that leaves something random "
                 "when installed (a key, a keystore). Without 'base' in the environment's file any root filesystem of "
                 "these packages will do.")


def _some(names: Collection[str]) -> str:
    shown = ", ".join(list(names)[:8]) or "none"
    return shown + (f" and {len(names) - 8} more" if len(names) > 8 else "")


# The kernel --------------------------------------------------------------------------------------------------------


def _boot(request: ExactRequest) -> Callable[[Path], Boot]:
    """Where the kernel comes from: the environment's packages, or, when it names none, the ordinary base image.

    Raises EnvironmentUnavailableError, ImageError.
    """
    from gitian.images import kvm
    from gitian.images.packages import Package

    environment = request.environment
    if environment.kernel is None:
        return _ordinary(request)
    lacking = [package.file_name for package in environment.kernel.packages if package not in request.kernel_debs]
    if lacking:
        raise EnvironmentUnavailableError(f"The environment of {environment.label} cannot be made without the files of "
                                          f"its kernel: {_some(lacking)}.")
    wanted = by_file_name(environment.kernel.packages)
    paths = [request.kernel_debs[package] for package in wanted]
    wrong = [package.file_name for package, have in zip(wanted, sha256_files(paths), strict=True)
             if have != package.sha256]
    if wrong:
        raise EnvironmentUnavailableError(f"Files are not the packages that they should be: {_some(wrong)}.")
    packages = [Package(name=package.name, version=package.version, architecture=package.architecture,
                        sha256=package.sha256, path=path) for package, path in zip(wanted, paths, strict=True)]
    busybox = [package for package in packages if package.name == _BUSYBOX]
    if len(busybox) != 1:
        raise EnvironmentUnavailableError(f"The kernel of the environment of {environment.label} comes without "
                                          f"'{_BUSYBOX}', of which its RAM disk is made.")
    make_boot = kvm.unpacked([package for package in packages if package.name != _BUSYBOX], busybox[0])

    def boot(scratch: Path) -> Boot:
        made = make_boot(scratch)
        if environment.kernel is not None and made.fields["kernel_release"] != environment.kernel.release:
            raise EnvironmentUnavailableError(
                f"The kernel in the packages of {environment.label} is '{made.fields['kernel_release']}', not "
                f"'{environment.kernel.release}'.")
        return made

    return boot


def _ordinary(request: ExactRequest) -> Callable[[Path], Boot]:
    """The kernel of the ordinary base image of that suite and architecture."""
    from gitian.images import kvm

    environment = request.environment
    try:
        image = find_image(request.directory, environment.suite, environment.architecture, "kvm", environment.distro)
    except ImageError as error:
        command = make_command(environment.suite, environment.architecture, "kvm", environment.distro)
        raise ImageError(f"The environment of {environment.label} names no kernel, and there is no ordinary base image "
                         f"to take one from: {error}", hint=f"Make it: '{command}'.") from error
    assert image.record.kvm is not None and image.kernel is not None and image.initrd is not None
    return kvm.taken_over(image.record.kvm, image.kernel, image.initrd)


# The places --------------------------------------------------------------------------------------------------------


def limit_of(environment: Mapping[str, str]) -> int:
    """How large all places together may be, in bytes ($GITIAN_ENVIRONMENTS_SIZE, in MiB)."""
    size = environment.get("GITIAN_ENVIRONMENTS_SIZE", "")
    return int(size) * 2**20 if size.isascii() and size.isdigit() else DEFAULT_LIMIT


def environments(directory: Path) -> tuple[Place, ...]:
    """The places of exact images below the directory of base images, the one used last first."""
    found = []
    with contextlib.suppress(OSError), os.scandir(directory / _TOP) as entries:
        for entry in entries:
            if not entry.name.startswith(".") and entry.is_dir(follow_symlinks=False):
                with contextlib.suppress(OSError):  # removed in this moment, or closed to us
                    found.append(_place(Path(entry.path)))
    return tuple(sorted(found, key=lambda place: (-place.used, place.path)))


def _place(path: Path) -> Place:
    mark = path / _MARK
    used = (mark if mark.exists() else path).stat().st_mtime
    size, label = 0, ""
    for entry in path.iterdir():
        status = entry.lstat()
        size += status.st_blocks * 512
        if entry.suffix == ".json":
            label = entry.stem.removeprefix("base-")
        if entry.suffix == ".tar" and entry.with_suffix("").is_dir():
            size += status.st_size  # a directory that shifted ids own has about the size of its tarball
    return Place(path=path, label=label, size=size, used=used)


@contextlib.contextmanager
def held(places: Collection[Path]) -> Iterator[None]:
    """Keep others from removing these places while the block runs; where that cannot be, a warning says so."""
    with contextlib.ExitStack() as stack:
        for place in sorted(places):
            if place.is_dir():
                try:
                    stack.enter_context(locked(place / _HELD, wait=True, shared=True, what=f"the images in '{place}'"))
                except HostError as error:
                    progress.warn(f"Others may remove the images in '{place}' meanwhile. {error}")
        yield


def prune(directory: Path, limit: int, keep: Collection[Path] = ()) -> list[Path]:
    """Remove the least recently used places until all together have at most ``limit`` bytes; returns them.

    Those in ``keep``, those used within the last hour, and those that somebody makes, holds or runs a guest from stay.
    Nothing is done while anybody makes one, or where the places are another's. Raises nothing, for what was made
    meanwhile must not be lost: a warning says what cannot be removed.
    """
    top, removed = directory / _TOP, list[Path]()
    if not os.access(top, os.W_OK):
        return removed
    with contextlib.suppress(BusyError), _warned(), \
            locked(top / _GUARD, wait=False, what="the images of environments"):
        for rubbish in top.glob(".gone-*"):  # of one that was killed
            with _warned():
                lxc.remove(rubbish)
        total = 0
        for place in environments(directory):
            total += place.size
            if total > limit and place.path not in keep and time.time() - place.used > YOUNG and _take_away(place):
                removed.append(place.path)
                total -= place.size
    return removed


@contextlib.contextmanager
def _warned() -> Iterator[None]:
    """What fails in the block for want of rights or means is a warning."""
    try:
        yield
    except BusyError:
        raise
    except GitianError as error:
        progress.warn(str(error))
    except OSError as error:
        progress.warn(f"'{error.filename}': {error.strerror}.")


def discard(directory: Path, environment: Environment) -> None:
    """Remove the images of an environment that nobody will ask for again.

    They stay when somebody uses them, or makes one of any environment: then they go in their time (:func:`prune`).
    """
    top, place = directory / _TOP, place_of(directory, environment)
    if place.is_dir():
        with contextlib.suppress(BusyError), _warned(), \
                locked(top / _GUARD, wait=False, what="the images of environments"):
            _take_away(_place(place))


def _take_away(place: Place) -> bool:
    """Remove a place, unless somebody uses it after all. It has another name before anything in it is gone."""
    gone = place.path.with_name(f".gone-{secrets.token_hex(6)}")
    try:
        with locked(place.path / _HELD, wait=False, what=f"the images in '{place.path}'"):
            if _at_work(place.path):
                return False
            place.path.rename(gone)
    except BusyError:
        return False
    except (HostError, OSError) as error:
        progress.warn(f"The images in '{place.path}' stay: they cannot be removed. {error}")
        return False
    with _warned():
        for entry in gone.iterdir():
            lxc.remove(entry)
    shutil.rmtree(gone, ignore_errors=True)
    return True


def _at_work(place: Path) -> bool:
    """Whether a process that we can look at has a file below ``place`` open, or mounted as a guest's lower layer."""
    text = os.fsencode(place.resolve())
    for process in Path("/proc").iterdir():
        if process.name.isdigit():
            with contextlib.suppress(OSError):
                if text in (process / "mountinfo").read_bytes():
                    return True
            with contextlib.suppress(OSError):
                for number in (process / "fd").iterdir():
                    with contextlib.suppress(OSError):
                        # Our own lock is one that we have open.
                        if os.fsencode(number.readlink()).startswith(text + b"/base-"):
                            return True
    return False
