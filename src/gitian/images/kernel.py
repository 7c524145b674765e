"""Take the kernel that a distribution ships, and of its modules only those that a guest cannot start without."""

from __future__ import annotations

import gzip
import io
import lzma
import re
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from gitian.errors import FormatError, ImageError, ProgramError
from gitian.formats import kmodule
from gitian.host import process, progress
from gitian.images import debfile
from gitian.images.archive import Indices
from gitian.images.packages import Package, describe, fetch

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
_IMAGE = re.compile(r"boot/vmlinu[xz]-([A-Za-z0-9][A-Za-z0-9.+~_-]{0,200})")
#: Debian before trixie and Ubuntu have /lib/modules, later ones /usr/lib/modules.
_MODULES = re.compile(r"(?:usr/)?lib/modules/([^/]+)/(modules\.builtin|(?s:.+)\.ko(?:\.(?:xz|gz|zst))?)")
#: A module, and all that a guest cannot start without (bytes): real ones have some MB together.
_MODULE_LIMIT = 64 * 2**20
_MODULES_LIMIT = 256 * 2**20
#: A program that unpacks may take so much memory (bytes): the kernel's own does with far less.
_MEMORY_LIMIT = 256 * 2**20
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
    files: dict[str, Path] = {}
    for number, package in enumerate(packages):
        files |= debfile.take(package.path, scratch / f"kernel-{number}", _wanted)
    images = sorted(name for name in files if _IMAGE.fullmatch(name))
    if len(images) != 1:
        names = " and ".join(f"'{package.name}'" for package in packages)
        raise ImageError(f"There are {len(images)} kernels instead of one in: {names or 'no package'}.")
    release = images[0].partition("-")[2]
    return Kernel(release=release, image=files[images[0]].read_bytes(), modules=_modules(files, release),
                  packages=tuple(packages))


def _wanted(name: str) -> bool:
    return bool(_IMAGE.fullmatch(name) or _MODULES.fullmatch(name))


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


def _modules(files: Mapping[str, Path], release: str) -> dict[str, bytes]:
    modules: dict[str, tuple[str, Path]] = {}
    built_in: frozenset[str] = frozenset()
    size = 0
    for path in sorted(files):
        match = _MODULES.fullmatch(path)
        if match is None or match[1] != release:
            continue
        if match[2] == "modules.builtin":
            built_in |= kmodule.builtin(files[path].read_text(errors="replace"))
        elif (name := kmodule.module_name(path)) is not None:
            modules[name] = (path, files[path])

    def load(name: str) -> bytes | None:
        nonlocal size
        if name not in modules:
            return None
        data = _contents(*modules[name])
        size += len(data)
        if size > _MODULES_LIMIT:
            raise ValueError(f"with what it needs it has more than {_MODULES_LIMIT} bytes")
        return data

    present = [name for name in WELCOME if name in modules]
    try:
        return kmodule.load_order([*REQUIRED, *present], load, built_in)
    except LookupError as error:
        raise ImageError(f"The kernel '{release}' has neither built in nor as a module '{error.args[0]}', without "
                         "which a guest cannot start.") from error
    except (ValueError, RecursionError) as error:
        raise FormatError(f"A module of the kernel '{release}' cannot be used: {error}.") from error


def _contents(name: str, path: Path) -> bytes:
    """A module's bytes, uncompressed: the initial RAM disk's program loads them as they are. Raises ValueError."""
    packed = path.read_bytes()
    try:
        if name.endswith(".xz"):
            data = lzma.LZMADecompressor(memlimit=_MEMORY_LIMIT).decompress(packed, _MODULE_LIMIT + 1)
        elif name.endswith(".gz"):
            data = gzip.GzipFile(fileobj=io.BytesIO(packed)).read(_MODULE_LIMIT + 1)
        elif name.endswith(".zst"):
            data = process.run(["zstd", "-dcq", f"--memory={_MEMORY_LIMIT}"], input=packed, limit=_MODULE_LIMIT).stdout
        else:
            data = packed
    except (lzma.LZMAError, zlib.error, OSError, EOFError, ProgramError) as error:
        raise ValueError(f"'{progress.plain(PurePosixPath(name).name)}' cannot be uncompressed ({error})") from error
    if len(data) > _MODULE_LIMIT:
        raise ValueError(f"'{progress.plain(PurePosixPath(name).name)}' has more than {_MODULE_LIMIT} bytes")
    return data
