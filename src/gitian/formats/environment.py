"""Environments: what is installed in a guest when the script starts, as a file of its own that a build can be held to.

The format is described in docs/reference/environment-files.md, with a JSON Schema.
"""

from __future__ import annotations

from dataclasses import dataclass

from gitian.formats.image_record import InstalledPackage

#: What a file of this format calls itself.
FORMAT = "gitian-environment/1"


@dataclass(frozen=True, slots=True, kw_only=True)
class Kernel:
    """The kernel that a virtual machine is started with, and the packages that it and its RAM disk come from."""

    release: str
    packages: tuple[InstalledPackage, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Environment:
    """What is installed in the guest of one target.

    ``distro`` is '' where a report, which does not name it, is all there is; ``architecture`` is the guest's dpkg's
    (amd64, i386); ``packages`` are sorted by the names of their files, one version of each. ``base`` is the SHA-256 of
    the root filesystem that is made of exactly these packages, None when nobody has made it; ``sources`` are the lines
    of sources.list that the packages came from.
    """

    distro: str
    suite: str
    architecture: str
    packages: tuple[InstalledPackage, ...]
    base: str | None = None
    kernel: Kernel | None = None
    sources: tuple[str, ...] = ()

    @property
    def label(self) -> str:
        """'<suite>-<architecture>', the architecture as dpkg calls it."""
        return f"{self.suite}-{self.architecture}"
