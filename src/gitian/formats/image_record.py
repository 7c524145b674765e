"""The record beside a base image: what it was made of. JSON, read back with every type checked."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from gitian.errors import FormatError
from gitian.names import deb_name

VERSION = 1
#: A record of a base image is about 60 kB (bytes).
LIMIT = 16 * 2**20

_SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class InstalledPackage:
    """A package of a root filesystem; ``sha256`` is its .deb's as the archive's signed index states it."""

    name: str
    architecture: str
    version: str
    sha256: str

    @property
    def file_name(self) -> str:
        """What apt calls its .deb."""
        return deb_name(self.name, self.version, self.architecture)

    def identity(self, own: str) -> tuple[str, str]:
        """Name and architecture: what is installed once at most, where ``own`` is the machine's architecture.

        To dpkg a package of all architectures is one of the machine's own.
        """
        return self.name, own if self.architecture == "all" else self.architecture


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceIndex:
    """The signed index (InRelease) of one source at the time of making."""

    uri: str
    suite: str
    date: str
    sha256: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageRecord:
    """What a base image was made of.

    ``sources`` are the lines of the guest's sources.list; ``epoch`` is the date of the newest index, to which all times
    in the root filesystem are clamped (seconds since 1970). ``lxc`` and ``kvm`` say how each backend has adopted the
    tarball, None when it has not.
    """

    distro: str
    suite: str
    architecture: str
    mirror: str
    epoch: int
    tarball_sha256: str
    tarball_size: int
    sources: tuple[str, ...]
    indices: tuple[SourceIndex, ...]
    packages: tuple[InstalledPackage, ...]
    made_by: str
    lxc: Mapping[str, Any] | None = None
    kvm: Mapping[str, Any] | None = None
    without: tuple[str, ...] = field(default=())

    def to_json(self) -> str:
        """The record as it is kept on disk."""
        return json.dumps({"version": VERSION, **asdict(self)}, indent=1, sort_keys=True) + "\n"

    @classmethod
    def parse(cls, data: bytes, source: str) -> ImageRecord:
        """Read a record. Raises FormatError, which names ``source``."""
        try:
            if len(data) > LIMIT:
                raise ValueError(f"it is larger than {LIMIT} bytes")
            return cls._build(json.loads(data))
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise FormatError(f"The record '{source}' of a base image cannot be read: {_why(error)}.",
                              hint="Remove the image and its record, and make it again with make-base-vm.") from error

    @classmethod
    def _build(cls, value: Any) -> ImageRecord:
        if not isinstance(value, dict):
            raise ValueError("it is no JSON object")
        if value["version"] != VERSION:
            raise ValueError(f"it is of version {value['version']!r}, not {VERSION}")
        return cls(
            distro=_text(value["distro"]), suite=_text(value["suite"]), architecture=_text(value["architecture"]),
            mirror=_text(value["mirror"]), epoch=_number(value["epoch"]),
            tarball_sha256=_sha256(value["tarball_sha256"]), tarball_size=_number(value["tarball_size"]),
            sources=tuple(_text(line) for line in _list(value["sources"])),
            without=tuple(_text(pocket) for pocket in _list(value["without"])),
            indices=tuple(SourceIndex(uri=_text(index["uri"]), suite=_text(index["suite"]), date=_text(index["date"]),
                                      sha256=_sha256(index["sha256"])) for index in _list(value["indices"])),
            packages=tuple(InstalledPackage(name=_text(package["name"]), architecture=_text(package["architecture"]),
                                            version=_text(package["version"]), sha256=_sha256(package["sha256"]))
                           for package in _list(value["packages"])),
            made_by=_text(value["made_by"]), lxc=_mapping(value["lxc"]), kvm=_mapping(value["kvm"]))


def _why(error: Exception) -> str:
    return f"'{error.args[0]}' is missing" if isinstance(error, KeyError) and error.args else str(error)


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError(f"{value!r:.40} should be a text")
    return value


def _number(value: Any) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < 2**63:
        raise ValueError(f"{value!r:.40} should be a number")
    return value


def _sha256(value: Any) -> str:
    if not isinstance(value, str) or _SHA256.fullmatch(value) is None:
        raise ValueError(f"{value!r:.40} should be a sha256")
    return value


def _list(value: Any) -> list[Any]:
    if not isinstance(value, list):
        raise ValueError(f"{value!r:.40} should be a list")
    return value


def _mapping(value: Any) -> Mapping[str, Any] | None:
    if value is not None and not isinstance(value, dict):
        raise ValueError(f"{value!r:.40} should be an object or null")
    return value
