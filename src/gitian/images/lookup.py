"""Finding a base image that a guest can start from."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from gitian.errors import FormatError, ImageError
from gitian.formats.image_record import ImageRecord
from gitian.images.record import ImageFiles

_REMAKE = "Remove it, and make it again: '{command}'."


@dataclass(frozen=True, slots=True, kw_only=True)
class BaseImage:
    """A usable base image: a directory (LXC), or a qcow2 file with its kernel and initrd (KVM)."""

    path: Path
    record: ImageRecord
    kernel: Path | None = None
    initrd: Path | None = None


def make_command(suite: str, arch: str, backend: str, distro: str) -> str:
    """The command that makes an image."""
    return f"make-base-vm --distro {distro} --suite {suite} --arch {arch}" + (" --lxc" if backend == "lxc" else "")


def find_image(directory: Path, suite: str, arch: str, backend: str, distro: str) -> BaseImage:
    """The base image for a guest. ``arch`` is dpkg's: amd64 or i386; ``backend`` is 'lxc' or 'kvm'.

    Raises ImageError, with the command that makes the image, when there is none, when it is unfinished or foreign, or
    when it holds another distro.
    """
    files = ImageFiles(directory=directory, suite=suite, arch=arch)
    command = make_command(suite, arch, backend, distro)
    path = files.lxc if backend == "lxc" else files.kvm
    if not (path.is_dir() if backend == "lxc" else path.is_file()):
        what = f"'{path}' is no directory" if path.exists() else f"'{path}' is not there"
        raise ImageError(f"There is no base image for {suite} {arch} under {backend.upper()}: {what}.",
                         hint=f"{'Remove it, and make' if path.exists() else 'Make'} it: '{command}'.")
    try:
        record = files.read_record()
    except FormatError as error:
        raise ImageError(str(error), hint=_REMAKE.format(command=command)) from error
    adopted = None if record is None else record.lxc if backend == "lxc" else record.kvm
    if record is None or adopted is None:
        raise ImageError(f"The base image '{path}' was not made by this make-base-vm, or not finished: "
                         f"'{files.record.name}' does not tell of it.", hint=_REMAKE.format(command=command))
    if record.distro != distro:
        raise ImageError(f"The base image '{path}' is of {record.distro}, but {distro} is wanted.",
                         hint=_REMAKE.format(command=command))
    if adopted.get("tarball_sha256", record.tarball_sha256) != record.tarball_sha256:
        raise ImageError(f"The base image '{path}' was made from another root filesystem than '{files.record.name}' "
                         "tells of.", hint=_REMAKE.format(command=command))
    if backend == "lxc":
        return BaseImage(path=path, record=record)
    for part in (files.kernel, files.initrd):
        if not part.is_file():
            raise ImageError(f"The base image '{path}' has lost its '{part.name}'.",
                             hint=_REMAKE.format(command=command))
    return BaseImage(path=path, record=record, kernel=files.kernel, initrd=files.initrd)
