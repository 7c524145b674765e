"""Read what a kernel module says about itself, and find the order in which modules must be loaded.

A kernel package brings no modules.dep (depmod makes it when the package is installed), but every module names what it
needs in its ELF section ``.modinfo``: NUL-terminated ``key=value`` texts (include/linux/module.h of the kernel).
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable
from pathlib import PurePosixPath

#: File name endings of modules, as compressed by distributions.
ENDINGS = (".ko", ".ko.xz", ".ko.zst", ".ko.gz")


def module_name(path: str) -> str | None:
    """The name of the module in a file (``crypto/crc32c-intel.ko.xz`` -> ``crc32c_intel``), or None."""
    name = PurePosixPath(path).name
    for ending in ENDINGS:
        if name.endswith(ending):
            return canonical(name.removesuffix(ending))
    return None


def canonical(name: str) -> str:
    """The kernel holds ``-`` and ``_`` for the same in names of modules."""
    return name.strip().replace("-", "_")


def builtin(text: str) -> frozenset[str]:
    """The names in a ``modules.builtin`` file: one path of a would-be module per line."""
    return frozenset(name for line in text.splitlines() if (name := module_name(line.strip())))


def information(module: bytes) -> dict[str, list[str]]:
    """The ``.modinfo`` texts of an (uncompressed) module, by key, in order. Raises ValueError: not an ELF module."""
    found: dict[str, list[str]] = {}
    for text in _section(module, b".modinfo").split(b"\0"):
        key, equals, value = text.decode(errors="replace").partition("=")
        if equals:
            found.setdefault(key, []).append(value)
    return found


def needs(module: bytes) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The modules that a module cannot do without, and those it wants before it (``softdep=pre:``).

    The latter may name an alias (``crc32c``) or something built in. Raises ValueError: not an ELF module.
    """
    told = information(module)
    hard = tuple(canonical(name) for text in told.get("depends", []) for name in text.split(",") if name.strip())
    soft: list[str] = []
    for text in told.get("softdep", []):
        before = False
        for word in text.split():
            if word in ("pre:", "post:"):
                before = word == "pre:"
            elif before:
                soft.append(canonical(word))
    return hard, tuple(soft)


def load_order(wanted: Iterable[str], load: Callable[[str], bytes | None],
               built_in: frozenset[str]) -> dict[str, bytes]:
    """The modules to load, in an order in which each comes after what it needs; name -> contents.

    ``load`` gives the contents of a module by its name, or None when there is no such file. What is built in is left
    out, and so is what is merely wanted by a ``softdep`` and not there.

    Raises LookupError with the name of a module that is neither a file nor built in, ValueError for a file that is not
    a module or modules that need each other in a circle.
    """
    order: dict[str, bytes] = {}

    def add(name: str, above: tuple[str, ...]) -> None:
        if name in order or name in built_in:
            return
        if name in above:
            raise ValueError("modules need each other in a circle: " + " -> ".join((*above, name)))
        data = load(name)
        if data is None:
            raise LookupError(name)
        hard, soft = needs(data)
        for other in soft:
            if load(other) is not None and other not in above:
                add(other, (*above, name))
        for other in hard:
            add(other, (*above, name))
        order[name] = data

    for name in wanted:
        add(canonical(name), ())
    return order


def _section(data: bytes, wanted: bytes) -> bytes:
    """The contents of a named section of an ELF file (System V ABI, chapter 4; little endian, 32 or 64 bits)."""
    if data[:4] != b"\x7fELF" or len(data) < 64 or data[5] != 1:
        raise ValueError("this is not a kernel module: no little-endian ELF file")
    wide = data[4] == 2
    try:
        if wide:
            (table,) = struct.unpack_from("<Q", data, 0x28)
            size, count, names = struct.unpack_from("<HHH", data, 0x3A)
        else:
            (table,) = struct.unpack_from("<I", data, 0x20)
            size, count, names = struct.unpack_from("<HHH", data, 0x2E)

        def header(number: int) -> tuple[int, int, int]:
            """Offset of the section's name, offset and size of its contents."""
            at = table + number * size
            if wide:
                (name,) = struct.unpack_from("<I", data, at)
                return name, *struct.unpack_from("<QQ", data, at + 0x18)
            name, _, _, _, offset, length = struct.unpack_from("<6I", data, at)
            return name, offset, length

        _, names_at, names_size = header(names)
        strings = data[names_at:names_at + names_size]
        for number in range(count):
            name, offset, length = header(number)
            if strings[name:strings.find(b"\0", name)] == wanted:
                if offset + length > len(data):
                    break
                return data[offset:offset + length]
    except struct.error as error:
        raise ValueError("this is not a kernel module: its section table is cut off") from error
    raise ValueError(f"this is not a kernel module: it has no section '{wanted.decode()}'")
