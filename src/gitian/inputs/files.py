"""The files of a descriptor, in inputs/: all there, all regular, hashed."""

from __future__ import annotations

import os
import stat
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from gitian.errors import InputError
from gitian.host import hashing, progress


@dataclass(frozen=True, slots=True, kw_only=True)
class InputFile:
    """A file: the name in the descriptor, where it lies, its SHA-256."""

    name: str
    path: Path
    sha256: str


def find_files(names: Sequence[str], directory: Path) -> tuple[InputFile, ...]:
    """The files of these names in a directory (links to regular files will do), hashed, in the order given.

    Raises InputError that names every file that is missing or is no regular file, or one that cannot be read.
    """
    paths = [directory / name for name in names]
    missing, strange, total = [], [], 0
    for name, path in zip(names, paths, strict=True):
        try:
            status = path.stat()
        except OSError:
            missing.append(name)
            continue
        total += status.st_size
        if not stat.S_ISREG(status.st_mode):
            strange.append(name)
        elif not os.access(path, os.R_OK):
            raise InputError(f"The input file '{path}' may not be read.")
    if missing or strange:
        said = [f"{_listed(missing)} not in '{directory}'"] if missing else []
        said += [f"{_listed(strange)} no regular file{'s' if len(strange) > 1 else ''}"] if strange else []
        raise InputError(f"Of the descriptor's input files {', and '.join(said)}.",
                         hint=f"Put each file into '{directory}' under the name that the descriptor gives it.")
    if not paths:
        return ()
    with progress.bar(f"Hashing {len(paths)} input file{'s' if len(paths) > 1 else ''}", total) as advance:
        digests = hashing.sha256_files(paths, progress=advance)
    return tuple(InputFile(name=name, path=path, sha256=digest)
                 for name, path, digest in zip(names, paths, digests, strict=True))


def _listed(names: list[str]) -> str:
    return ", ".join(f"'{name}'" for name in names) + (" is" if len(names) == 1 else " are")
