"""Take the kernel that a distribution ships, and of its modules only those that a guest cannot start without."""

from __future__ import annotations

import gzip
import lzma
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from gitian.errors import FormatError, ImageError
from gitian.formats import kmodule
from gitian.host import process
from gitian.images.archive import Indices
from gitian.images.packages import Package, describe, fetch, unpack

#: (distro, architecture of the guest) -> kernel packages to try: (package, architecture of the kernel). Kernels made
#: for virtual machines come first: they are small and have most of what is needed built in. Where a distribution has
#: given up 32-bit kernels (Debian since trixie, Ubuntu since 20.04), the 64-bit one runs the 32-bit guest.
_KERNELS = {
    ("debian", "amd64"): (("linux-image-cloud-amd64", "amd64"), ("linux-image-amd64", "amd64")),
    ("debian", "i386"): (("linux-image-686-pae", "i386"), ("linux-image-cloud-amd64", "amd64")),
    ("ubuntu", "amd64"): (("linux-image-virtual", "amd64"), ("linux-image-generic", "amd64")),
    ("ubuntu", "i386"): (("linux-image-virtual", "i386"), ("linux-image-generic", "i386"),
                         ("linux-image-virtual", "amd64"), ("linux-image-generic", "amd64")),
}
#: A guest's disk, network, file system. ``virtio_rng`` may be absent: the processor can give random numbers too.
REQUIRED = ("virtio_pci", "virtio_blk", "virtio_net", "ext4")
#: ext4 asks for 'crc32c' by an alias on kernels before 6.10; which module serves it is a matter of configuration.
WELCOME = ("virtio_rng", "crc32c_generic", "af_packet", "rtc_cmos")
_FOLLOWED = re.compile(r"linux-(image|modules)-(unsigned-)?\d+\.\d[a-z0-9.+~-]*")


@dataclass(frozen=True, slots=True, kw_only=True)
class Kernel:
    """A kernel image and the modules to load, in order, uncompressed."""

    release: str
    image: bytes
    modules: dict[str, bytes]
    packages: tuple[Package, ...]


def choose(distro: str, arch: str) -> tuple[tuple[str, str], ...]:
    """The kernel packages to try for a guest: (package, architecture). Raises ImageError: none is known."""
    try:
        return _KERNELS[distro, arch]
    except KeyError:
        raise ImageError(f"No kernel package is known for '{distro}' on '{arch}'.",
                         hint="KVM guests are Debian or Ubuntu, amd64 or i386; '--lxc' needs no kernel.") from None


def obtain(*, distro: str, arch: str, indices: Callable[[str], Indices], scratch: Path) -> Kernel:
    """Fetch, check and unpack the kernel for a guest.

    ``indices`` gives the sources' indices for an architecture. Raises ImageError: no kernel package in the sources, or
    it lacks what a guest needs; FetchError, ProgramError, FormatError.
    """
    tried = choose(distro, arch)
    for name, kernel_arch in tried:
        if describe(indices(kernel_arch), name) is not None:
            break
    else:
        names = ", ".join(dict.fromkeys(f"'{name}:{kernel_arch}'" for name, kernel_arch in tried))
        raise ImageError(
            f"No kernel package ({names}) is in any of these sources: "
            f"{'; '.join(source.name for source in indices(arch).sources)}.",
            hint="Name an archive that has one with '--mirror URL'; when only the security archive is at fault, leave "
                 "it out with '--without security'; '--lxc' needs no kernel.")
    return unpacked(_follow(indices(kernel_arch), name, scratch), scratch)


def unpacked(packages: Sequence[Package], scratch: Path) -> Kernel:
    """The kernel in a package, with the modules of that or of another one.

    Raises ImageError: these are no kernel's packages, or lack what a guest needs; ProgramError, FormatError.
    """
    tree = scratch / "kernel"
    for package in packages:
        unpack(package, tree)
    images = sorted(path for path in (tree / "boot").glob("vmlinu[xz]-*") if path.is_file() and not path.is_symlink())
    if len(images) != 1:
        names = " and ".join(f"'{package.name}'" for package in packages)
        raise ImageError(f"There are {len(images)} kernels instead of one in: {names or 'no package'}.")
    release = images[0].name.partition("-")[2]
    return Kernel(release=release, image=images[0].read_bytes(), modules=_modules(tree, release),
                  packages=tuple(packages))


def _follow(indices: Indices, name: str, scratch: Path) -> list[Package]:
    """Fetch what a kernel (meta)package stands for: the image, and where they are apart, the modules."""
    packages: dict[str, Package] = {}
    waiting = [name]
    while waiting:
        current = waiting.pop()
        fields = describe(indices, current)
        if current in packages or fields is None:
            continue
        depends = [alternative.split()[0].partition(":")[0] for clause in fields.get("Depends", "").split(",")
                   for alternative in clause.split("|")[:1] if alternative.split()]
        following = [other for other in depends if _FOLLOWED.fullmatch(other)]
        waiting += following
        if _FOLLOWED.fullmatch(current) or not following:
            packages[current] = fetch(indices, current, scratch)
    return [packages[key] for key in sorted(packages)]


def _modules(tree: Path, release: str) -> dict[str, bytes]:
    # Debian before trixie and Ubuntu have /lib/modules, later ones /usr/lib/modules.
    places = [place for place in (tree / "lib/modules" / release, tree / "usr/lib/modules" / release) if place.is_dir()]
    files: dict[str, Path] = {}
    built_in: frozenset[str] = frozenset()
    for place in places:
        for path in place.rglob("*.ko*"):
            name = kmodule.module_name(path.name)
            if name is not None and path.is_file() and not path.is_symlink():
                files[name] = path
        if (listing := place / "modules.builtin").is_file():
            built_in |= kmodule.builtin(listing.read_text(errors="replace"))

    def load(name: str) -> bytes | None:
        return _contents(files[name]) if name in files else None

    present = [name for name in WELCOME if name in files]
    try:
        return kmodule.load_order([*REQUIRED, *present], load, built_in)
    except LookupError as error:
        raise ImageError(f"The kernel '{release}' has neither built in nor as a module '{error.args[0]}', without "
                         "which a guest cannot start.") from error
    except ValueError as error:
        raise FormatError(f"A module of the kernel '{release}' cannot be used: {error}.") from error


def _contents(path: Path) -> bytes:
    """A module's bytes, uncompressed: the initial RAM disk's program loads them as they are."""
    data = path.read_bytes()
    if path.suffix == ".xz":
        return lzma.decompress(data)
    if path.suffix == ".gz":
        return gzip.decompress(data)
    if path.suffix == ".zst":
        return process.run(["zstd", "-dcq"], input=data).stdout
    return data
