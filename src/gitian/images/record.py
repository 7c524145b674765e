"""The files of a base image in the directory of base images: their names, and the record beside them."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from gitian.formats.image_record import LIMIT, ImageRecord
from gitian.host.workspace import locked, make_directory, write_atomically


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageFiles:
    """Where everything of one base image lies. Partial files have names that no finished file has."""

    directory: Path
    suite: str
    arch: str

    @property
    def name(self) -> str:
        """'base-SUITE-ARCH', as the classic calls it."""
        return f"base-{self.suite}-{self.arch}"

    @property
    def lxc(self) -> Path:
        """The root filesystem as a directory, owned by shifted ids."""
        return self.directory / self.name

    @property
    def tarball(self) -> Path:
        """The root filesystem from which every backend's image is made."""
        return self.directory / f"{self.name}.tar"

    @property
    def record(self) -> Path:
        """What it was made of."""
        return self.directory / f"{self.name}.json"

    @property
    def kvm(self) -> Path:
        """The disk of a virtual machine."""
        return self.directory / f"{self.name}.qcow2"

    @property
    def kernel(self) -> Path:
        """The kernel that is booted with it."""
        return self.directory / f"{self.name}.vmlinuz"

    @property
    def initrd(self) -> Path:
        """The kernel's initial RAM disk."""
        return self.directory / f"{self.name}.initrd"

    @property
    def partial(self) -> Path:
        """A directory for everything unfinished; whatever is in it when nobody holds the lock is rubbish."""
        return self.directory / f".{self.name}.partial"

    @property
    def partial_root(self) -> Path:
        """The root filesystem while it is unpacked.

        It lies beside its place: whoever does not own a directory may rename it within its parent, but not move it.
        """
        return self.directory / f".{self.name}.partial-root"

    @contextlib.contextmanager
    def lock(self, *, wait: bool = False) -> Iterator[None]:
        """Be the only one who makes or adopts this image. Without ``wait``, raises BusyError at once."""
        make_directory(self.directory)
        with locked(self.directory / f".{self.name}.lock", wait=wait, what=f"the base image '{self.name}'"):
            yield

    def read_record(self) -> ImageRecord | None:
        """The record, or None when there is none. Raises FormatError."""
        try:
            with self.record.open("rb") as file:
                data = file.read(LIMIT + 1)
        except FileNotFoundError:
            return None
        return ImageRecord.parse(data, str(self.record))

    def write_record(self, record: ImageRecord) -> None:
        """Put the record in place, whole or not at all. Raises HostError."""
        write_atomically(self.record, record.to_json().encode())
