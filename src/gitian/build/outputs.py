"""What the guests made: merged into build/out, hashed, and written down in the report."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from gitian import names
from gitian.errors import OutputError
from gitian.host import hashing


@dataclass(frozen=True, slots=True, kw_only=True)
class Conflict:
    """A path that two targets left with different contents; the later one's is kept, as in the classic."""

    path: str
    earlier: str
    later: str


def merge(source: Path, destination: Path, *, label: str, owners: dict[str, str]) -> list[Conflict]:
    """Move everything under ``source`` (one target's output) into ``destination`` (all targets' output).

    ``owners`` remembers which target left which path, and is added to. Returns the paths that an earlier target left
    with other contents. Raises OutputError where a directory meets a file.
    """
    conflicts = []
    destination.mkdir(parents=True, exist_ok=True)
    for relative, entry in _walk(source):
        path, place = Path(entry.path), destination / relative
        if entry.is_dir(follow_symlinks=False):
            if place.is_symlink() or (place.exists() and not place.is_dir()):
                raise _clash(relative, owners.get(relative, "an earlier target"), label)
            if not place.exists():
                place.mkdir()
                owners[relative] = label
                shutil.copystat(path, place)
            continue
        if place.is_dir() and not place.is_symlink():
            raise _clash(relative, owners.get(relative, "an earlier target"), label)
        if (place.exists() or place.is_symlink()) and not _same(path, place):
            conflicts.append(Conflict(path=relative, earlier=owners.get(relative, "an earlier target"), later=label))
        shutil.move(path, place)
        owners[relative] = label
    return conflicts


def _walk(top: Path | str, above: str = "") -> Iterator[tuple[str, os.DirEntry[str]]]:
    """Everything below ``top``, with its path from there, a directory before what is in it."""
    for entry in sorted(os.scandir(top), key=lambda entry: os.fsencode(entry.name)):
        yield above + entry.name, entry
        if entry.is_dir(follow_symlinks=False):
            yield from _walk(entry.path, f"{above}{entry.name}/")


def _clash(path: str, earlier: str, later: str) -> OutputError:
    return OutputError(f"The outputs of '{earlier}' and '{later}' do not fit together: '{path}' is a directory in one "
                       "and a file in the other.", hint="Give the outputs of each target names of their own.")


def _same(one: Path, other: Path) -> bool:
    if one.is_symlink() or other.is_symlink():
        return one.is_symlink() and other.is_symlink() and one.readlink() == other.readlink()
    return one.stat().st_size == other.stat().st_size and \
        hashing.sha256_file(one) == hashing.sha256_file(other)


def manifest_of(top: Path) -> str:
    """Lines ``<sha256>  <path>`` of every file below ``top``, dot files too, sorted by path bytewise.

    A link to a file counts as that file, as in the classic; a link to a directory does not count. Raises OutputError: a
    name the report cannot hold, a link that leads nowhere or out of ``top``, a device.
    """
    if not top.is_dir():
        return ""
    found: list[tuple[str, str]] = []
    inside = top.resolve()
    for relative, entry in _walk(top):
        if entry.is_symlink():
            target = Path(entry.path).resolve()
            if not target.exists():
                raise OutputError(f"The output '{relative}' is a link that leads nowhere.",
                                  hint="Let the script copy what it links to into OUTDIR, or remove the link.")
            if not target.is_relative_to(inside):
                raise OutputError(f"The output '{relative}' is a link that leads out of OUTDIR.")
        if entry.is_dir():
            continue
        if not entry.is_file():
            raise OutputError(f"The output '{relative}' is neither a file nor a directory.")
        try:
            names.check_path(relative)
        except ValueError as error:
            raise OutputError(f"The output {relative!r} has a name that no report can hold: {error}.",
                              hint="Outputs may be named with ASCII letters, digits and @_/.:+- only.") from error
        found.append((relative, entry.path))
    found.sort(key=lambda entry: os.fsencode(entry[0]))
    digests = hashing.sha256_files([path for _, path in found])
    return "".join(f"{digest}  {relative}\n" for digest, (relative, _) in zip(digests, found, strict=True))
