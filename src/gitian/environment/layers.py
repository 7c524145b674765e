"""Layers: guests frozen after their packages were installed, for later guests to start from.

A layer is a directory var/layers/<key>/ with what the backend froze and, written last, record.json. Its key is a
digest of everything that went into it, so a change of anything makes another layer and none is ever changed. While it
is made it has another name; whoever finds that name later knows that it was never finished.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from gitian.environment.indices import Index
from gitian.formats.fetched import Fetched, from_record
from gitian.host import process
from gitian.host.workspace import make_directory, remove_tree, write_atomically

#: Changed whenever the way in which layers are made changes.
VERSION = 2

#: All layers of a workspace together may be this large (bytes), unless $GITIAN_LAYERS_SIZE says otherwise (MiB).
DEFAULT_LIMIT = 20 * 2**30

_PARTIAL = ".partial-"
_RECORD = "record.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerRecord:
    """What is known of a layer: what it was made for (``intent``), with which indices, and what is installed in it.

    ``fetched`` is what came over the network for it; ``size`` is in bytes as they lie on the disk; ``made`` the words
    of ``intent`` for people.
    """

    version: int
    backend: str
    label: str
    intent: str
    indices: tuple[Index, ...]
    manifest: str
    fetched: tuple[Fetched, ...] = ()
    size: int
    made: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Layer:
    """A finished layer on the disk; ``used`` is when it was used last (seconds since 1970)."""

    path: Path
    record: LayerRecord
    used: float


def intent_of(ingredients: Mapping[str, Any]) -> str:
    """The digest of what a layer is made of, all but the archive's state."""
    return _digest({"layer version": VERSION, **ingredients})


def key_of(intent: str, indices: Sequence[Index]) -> str:
    """A layer's name: its intent, and the digest of every signed index in force."""
    return _digest({"intent": intent, "indices": sorted([index.url, index.sha256] for index in indices)})


def _digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


class LayerStore:
    """The layers of one workspace, whose lock the caller holds."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    def layers(self) -> list[Layer]:
        """All finished layers, the last used first. What cannot be read is no layer."""
        found = []
        with contextlib.suppress(FileNotFoundError):
            for entry in self.directory.iterdir():
                if not entry.name.startswith(".") and entry.is_dir() and not entry.is_symlink():
                    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
                        record = _read(entry / _RECORD, entry.name)
                        found.append(Layer(path=entry, record=record, used=(entry / _RECORD).stat().st_mtime))
        return sorted(found, key=lambda layer: (-layer.used, layer.path.name))

    def find(self, intent: str) -> Layer | None:
        """The last used layer that was made for this."""
        return next((layer for layer in self.layers() if layer.record.intent == intent), None)

    def touch(self, layer: Layer, indices: Sequence[Index] | None = None) -> None:
        """Note that a layer was used, and what the servers said of its indices."""
        if indices is not None and tuple(indices) != layer.record.indices:
            record = {**asdict(layer.record), "indices": [asdict(index) for index in indices]}
            write_atomically(layer.path / _RECORD, _text(record))
        else:
            os.utime(layer.path / _RECORD)

    @contextlib.contextmanager
    def making(self) -> Iterator[tuple[Path, Callable[[LayerRecord], Layer]]]:
        """A place to make a layer in, and the function that finishes it there; unfinished, it is removed."""
        make_directory(self.directory)
        partial = self.directory / _unfinished("new")

        def finish(record: LayerRecord) -> Layer:
            write_atomically(partial / _RECORD, _text(asdict(record)))
            _sync(partial)
            place = self.directory / key_of(record.intent, record.indices)
            if place.exists():
                _remove(place)
            partial.rename(place)
            return Layer(path=place, record=record, used=(place / _RECORD).stat().st_mtime)

        try:
            yield partial, finish
        finally:
            if partial.exists():
                _remove(partial)

    def sweep(self) -> None:
        """Remove what a dead process left unfinished, and what is no layer of this version.

        What a living process is making stays: a build makes the layers of several targets side by side.
        """
        good = {layer.path for layer in self.layers()}
        with contextlib.suppress(FileNotFoundError):
            for entry in list(self.directory.iterdir()):
                if entry not in good and not _in_the_making(entry.name):
                    _remove(entry)

    def prune(self, limit: int, *, keep: Collection[Path] = ()) -> list[Layer]:
        """Remove the least recently used layers, but those of ``keep``, until all together have at most ``limit``
        bytes; returns them."""
        self.sweep()
        removed = []
        total = 0
        for layer in self.layers():
            total += layer.record.size
            if total > limit and layer.path not in keep:
                _remove(layer.path)
                removed.append(layer)
        return removed


def size_limit(environment: Mapping[str, str]) -> int:
    """How much layers may take (bytes)."""
    text = environment.get("GITIAN_LAYERS_SIZE", "")
    return int(text) * 2**20 if text.isdigit() else DEFAULT_LIMIT


def size_of(directory: Path) -> int:
    """The bytes that a tree takes on the disk."""
    total = 0
    for top, _, files in os.walk(directory):
        for name in files:
            with contextlib.suppress(OSError):
                total += (Path(top) / name).lstat().st_blocks * 512
    return total


def _unfinished(what: str) -> str:
    """A name that is no layer's, and tells who is at work there."""
    who = process.identity(os.getpid())
    assert who is not None, "a process can see itself"
    return f"{_PARTIAL}{who.pid}-{who.started}-{what}"


def _in_the_making(name: str) -> bool:
    """Whether the process that is at work under this name is another one, and alive."""
    words = name.removeprefix(_PARTIAL).split("-")
    if not name.startswith(_PARTIAL) or len(words) < 2 or not (words[0] + words[1]).isdecimal():
        return False
    who = process.ProcessIdentity(pid=int(words[0]), started=int(words[1]))
    return who.pid != os.getpid() and process.identity(who.pid) == who


def _remove(path: Path) -> None:
    # Out of sight first: a half-removed layer must not look like a layer.
    if not path.name.startswith("."):
        hidden = path.with_name(_unfinished(f"removed-{path.name[:16]}"))
        path.rename(hidden)
        path = hidden
    if path.is_dir() and not path.is_symlink():
        remove_tree(path)
    else:
        path.unlink(missing_ok=True)


def _sync(directory: Path) -> None:
    """Everything of a layer is on the disk before it gets its name: after a power cut it is whole or not there."""
    os.sync()
    number = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(number)
    finally:
        os.close(number)


def _text(record: Mapping[str, Any]) -> bytes:
    return json.dumps(record, indent=1, sort_keys=True).encode() + b"\n"


def _read(path: Path, key: str) -> LayerRecord:
    data = json.loads(path.read_bytes())
    record = LayerRecord(
        version=int(data["version"]), backend=str(data["backend"]), label=str(data["label"]),
        intent=str(data["intent"]), indices=tuple(
            Index(url=str(index["url"]), sha256=str(index["sha256"]),
                  etag=str(index["etag"]), last_modified=str(index["last_modified"])) for index in data["indices"]),
        manifest=str(data["manifest"]), fetched=tuple(from_record(one) for one in data["fetched"]),
        size=int(data["size"]), made=str(data["made"]))
    if record.version != VERSION or key_of(record.intent, record.indices) != key:
        raise ValueError("not a layer of this version, or not the one that its name says")
    return record
