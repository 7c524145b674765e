"""Fetch single packages of a distribution, checked against its signed indices, without root and installing nothing.

apt does the fetching and the checking, in a directory of its own: the host's sources, keys and state play no part.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from gitian.errors import FetchError, ImageError
from gitian.host import process
from gitian.host.hashing import sha256_file
from gitian.images.sources import Source

#: Seconds that fetching the indices, or one package, may take.
_PATIENCE = 1800
_HINT = "Try again later; or leave the source that failed out, as in 'make-base-vm --without security' or " \
        "'--without updates'; or name another mirror."


@dataclass(frozen=True, slots=True, kw_only=True)
class Package:
    """A package file that was fetched. ``sha256`` is what the signed index says, and what the file has."""

    name: str
    version: str
    architecture: str
    sha256: str
    source: str  # where it came from
    path: Path


class AptRoot:
    """A private apt: its own sources, keys, indices and architecture, below one directory."""

    def __init__(self, *, directory: Path, architecture: str, sources: Sequence[Source],
                 keyrings: Sequence[Path]) -> None:
        self._directory = directory
        self._architecture = architecture
        self._sources = [source.name for source in sources]
        lines = [source.host_line(architecture, keyrings) for source in sources]
        for part in ("etc/trusted.gpg.d", "etc/apt.conf.d", "etc/preferences.d", "etc/sources.list.d",
                     "state/lists/partial", "cache/archives/partial", "debs"):
            (directory / part).mkdir(parents=True, exist_ok=True)
        (directory / "state/status").touch()
        (directory / "etc/sources.list").write_text("".join(f"{line}\n" for line in lines))
        self._configuration = directory / "apt.conf"
        self._configuration.write_text(self._settings())

    def _settings(self) -> str:
        settings = {
            "Dir": str(self._directory), "Dir::Etc": "etc", "Dir::State": "state", "Dir::Cache": "cache",
            "Dir::State::status": f"{self._directory}/state/status", "Dir::Log": "cache",
            "APT::Architecture": self._architecture, "APT::Architectures": self._architecture,
            # Started by root, apt would fetch as a user who cannot reach this directory.
            "APT::Sandbox::User": "root",
            "APT::Update::Error-Mode": "any", "Acquire::Languages": "none", "Acquire::Retries": "3",
            "Acquire::IndexTargets::deb::Contents-deb::DefaultEnabled": "false",
        }
        return "".join(f'{key} "{value}";\n' for key, value in settings.items())

    def _run(self, program: str, *arguments: str, check: bool = True) -> str:
        done = process.run([program, *arguments], cwd=self._directory / "debs", timeout=_PATIENCE, check=False,
                           env={"APT_CONFIG": str(self._configuration)})
        if done.status != 0 and check:
            raise FetchError(f"apt could not fetch for '{self._architecture}': {_complaint(done.stderr)}", hint=_HINT)
        return done.stdout.decode(errors="replace")

    def update(self) -> None:
        """Fetch the indices and check their signatures. Raises FetchError, saying which source failed."""
        self._run("apt-get", "-q", "update")

    def describe(self, name: str) -> dict[str, str] | None:
        """The index's fields of the version that apt would install, or None when there is no such package."""
        text = self._run("apt-cache", "show", "--no-all-versions", f"{name}:{self._architecture}", check=False)
        fields: dict[str, str] = {}
        for line in text.split("\n\n")[0].splitlines():
            key, colon, value = line.partition(":")
            if colon and not line.startswith((" ", "\t")):
                fields[key] = value.strip()
        return fields if fields.get("Package") == name else None

    def fetch(self, name: str) -> Package:
        """Fetch one package. Raises FetchError, ImageError: the sources do not have it."""
        fields = self.describe(name)
        if fields is None:
            raise ImageError(f"None of these sources has the package '{name}' for '{self._architecture}': "
                             f"{'; '.join(self._sources)}.", hint="Name a mirror that has it with '--mirror'.")
        wanted = f"{name}:{self._architecture}={fields['Version']}"
        told = self._run("apt-get", "-q", "download", "--print-uris", wanted)
        match = re.search(r"^'([^']+)' (\S+) (\d+) SHA256:([0-9a-f]{64})\s*$", told, re.MULTILINE)
        if match is None:
            raise FetchError(f"apt does not say where the package '{name}' is, or gives no SHA-256 for it.",
                             hint=_HINT)
        uri, _, _, sha256 = match.groups()
        self._run("apt-get", "-q", "download", wanted)
        # apt names the file itself; the architecture in the name may be 'all'.
        found = sorted((self._directory / "debs").glob(f"{name}_*.deb"))
        if len(found) != 1:
            raise FetchError(f"apt did not leave the package '{name}' where it should be.", hint=_HINT)
        if (have := sha256_file(found[0])) != sha256:
            raise FetchError(f"The package '{name}' is not what its index says: {have} instead of {sha256}.",
                             hint=_HINT)
        return Package(name=name, version=fields["Version"], architecture=self._architecture, sha256=sha256,
                       source=uri, path=found[0])


def _complaint(said: bytes) -> str:
    """apt's errors, or else its warnings, on one line."""
    lines = said.decode(errors="replace").splitlines()
    for mark in ("E:", "Err:", "W:"):
        found = [line.removeprefix(mark).strip() for line in lines if line.startswith(mark)]
        if found:
            return " / ".join(found[:4])[:1500]
    return "it did not say why"


def unpack(package: Package, directory: Path) -> None:
    """Unpack a package's files, without running anything of it. Raises ProgramError."""
    process.run(["dpkg-deb", "-x", package.path, directory], timeout=600)
