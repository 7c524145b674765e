"""The environment manifest: exactly the packages that are installed when the script starts, each with its hash.

The hashes come from the archive's signed indices, which apt has downloaded and checked already; nothing is fetched to
hash it. Only a package that is in no index any more (or was installed from a local file) is hashed from its .deb, if
that is at hand.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from gitian.errors import GuestError
from gitian.guest.protocol import Guest
from gitian.names import check_package, deb_name

_FIELDS = "${db:Status-Abbrev}\\t${Package}\\t${Version}\\t${Architecture}\\n"
_SHA256 = re.compile(r"[0-9a-f]{64}\Z")

#: apt's answer for a thousand packages is about 2 MB; more than this many bytes is no honest answer.
_LIMIT = 128 * 2**20


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class Package:
    """A package as dpkg has it installed."""

    name: str
    version: str
    architecture: str

    @property
    def file_name(self) -> str:
        """The name apt gives its file."""
        return deb_name(self.name, self.version, self.architecture)

    @property
    def apt_name(self) -> str:
        """How apt is asked for it: packages of all architectures go by their bare name."""
        return self.name if self.architecture == "all" else f"{self.name}:{self.architecture}"


def environment_manifest(guest: Guest, known: Mapping[str, str] | None = None) -> str:
    """Lines ``<sha256>  <package>_<version>_<arch>.deb``, sorted by file name, of what is installed in the guest.

    ``known`` gives hashes by file name for packages that no index has any more (the base image's record). Raises
    GuestError: a package whose hash cannot be known is named, with what to do.
    """
    packages = installed_packages(guest)
    hashes = index_hashes(guest, packages)
    for package in packages:
        if package not in hashes and known and _SHA256.match(known.get(package.file_name, "")):
            hashes[package] = known[package.file_name]
    missing = [package for package in packages if package not in hashes]
    if missing:
        hashes.update(_hash_at_hand(guest, missing))
        missing = [package for package in missing if package not in hashes]
    if missing:
        names = ", ".join(f"'{package.name}={package.version}'" for package in missing[:10])
        raise GuestError(
            f"The hash of {len(missing)} installed package(s) is in no index of the archive: {names}"
            + (" and more." if len(missing) > 10 else "."),
            hint="Newer versions have replaced them in the archive. Run gbuild with --upgrade, or make the base image "
                 "again.")
    lines = sorted((package.file_name, hashes[package]) for package in packages)
    return "".join(f"{digest}  {name}\n" for name, digest in lines)


def installed_packages(guest: Guest) -> list[Package]:
    """What dpkg says is installed, sorted. Raises GuestError for an answer that dpkg would not give."""
    answer = guest.run(["dpkg-query", "-W", "-f", _FIELDS], user="root", limit=_LIMIT).stdout
    found = []
    for line in answer.decode("utf-8", errors="replace").splitlines():
        fields = line.split("\t")
        if len(fields) != 4:
            raise GuestError("The guest's dpkg-query answered with a line of another form.",
                             hint="Is its dpkg database damaged? Make the base image again.")
        status, name, version, architecture = fields
        if status[1:2] != "i":
            continue
        try:
            check_package(name, version, architecture)
        except ValueError as error:
            raise GuestError("The guest's dpkg-query answered with a name, version or architecture that Debian's "
                             f"policy does not allow: {error}.") from error
        found.append(Package(name=name, version=version, architecture=architecture))
    return sorted(found)


def index_hashes(guest: Guest, packages: Iterable[Package]) -> dict[Package, str]:
    """The SHA-256 of those of the packages that are in the guest's downloaded indices (apt-cache(8))."""
    wanted = set(packages)
    if not wanted:
        return {}
    names = sorted({package.apt_name for package in wanted})
    # A name that apt does not know makes it end with 100 after it has shown all the others.
    answer = guest.run(["apt-cache", "--no-generate", "show", "--", *names], user="root", check=False,
                       limit=_LIMIT).stdout
    found: dict[Package, str] = {}
    for paragraph in answer.decode("utf-8", errors="replace").split("\n\n"):
        fields = _fields(paragraph)
        if not {"Package", "Version", "Architecture", "SHA256"} <= fields.keys():
            continue  # what dpkg's own status file says of it bears no hash
        package = Package(name=fields["Package"], version=fields["Version"], architecture=fields["Architecture"])
        if package in wanted and _SHA256.match(fields["SHA256"]):
            found.setdefault(package, fields["SHA256"])
    return found


def _fields(paragraph: str) -> dict[str, str]:
    fields = {}
    for line in paragraph.splitlines():
        key, colon, value = line.partition(": ")
        if colon and key in ("Package", "Version", "Architecture", "SHA256"):
            fields[key] = value.strip()
    return fields


def _hash_at_hand(guest: Guest, packages: list[Package]) -> dict[Package, str]:
    by_name = {package.file_name: package for package in packages}
    answer = guest.run(["sha256sum", "--", *by_name], user="root", cwd="/var/cache/apt/archives", check=False,
                       limit=_LIMIT).stdout
    found = {}
    for line in answer.decode("utf-8", errors="replace").splitlines():
        digest, _, name = line.partition("  ")
        if _SHA256.match(digest) and name in by_name:
            found[by_name[name]] = digest
    return found
