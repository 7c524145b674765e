"""What differs between the distributions that guests are made of."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from gitian.errors import ImageError, UsageError

#: What every base image holds besides the distro's essential packages and apt: what the classic's base images held and
#: descriptors have relied on since, and what a guest needs to be reached (docs/reference/make-base-vm.md). There is no
#: kernel and no boot loader: a kernel is not part of the root filesystem.
PACKAGES = ("build-essential", "ca-certificates", "cpio", "git", "iproute2", "locales", "lsb-release", "netbase",
            "openssh-server", "pciutils", "procps", "sudo", "tzdata", "wget")

ARCHITECTURES = ("amd64", "i386")

_SUITE = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*")


@dataclass(frozen=True, slots=True, kw_only=True)
class Distro:
    """A distribution: how its archive is laid out and who signs it.

    ``template`` is a suite that mmdebstrap knows in every version; a suite that it does not know gets the same sources.
    ``own_security`` is True where security updates come from an archive of their own.
    """

    name: str
    origin: str  # of the archive's Release files
    default_suite: str
    components: tuple[str, ...]
    keyrings: tuple[Path, ...]
    keyring_package: str
    suites: tuple[str, ...]
    template: str | None
    own_security: bool

    def find_keyrings(self) -> tuple[Path, ...]:
        """The keyrings of the distro that are installed. Raises ImageError, naming the package, when there is none."""
        found = tuple(path for path in self.keyrings if path.is_file())
        if not found:
            raise ImageError(f"The keys of {self.origin}'s archive, '{self.keyrings[0].name}', are not installed.",
                             hint=f"Install them: 'apt-get install {self.keyring_package}'; or name a keyring with "
                                  "--keyring FILE.")
        return found


_DISTROS = {
    distro.name: distro for distro in (
        Distro(name="debian", origin="Debian", default_suite="bookworm", components=("main",),
               keyrings=(Path("/usr/share/keyrings/debian-archive-keyring.gpg"),
                         Path("/usr/share/keyrings/debian-archive-keyring.pgp"),
                         Path("/usr/share/keyrings/debian-archive-removed-keys.gpg"),
                         Path("/usr/share/keyrings/debian-archive-removed-keys.pgp")),
               keyring_package="debian-archive-keyring",
               suites=("lenny", "squeeze", "wheezy", "jessie", "stretch", "buster", "bullseye", "bookworm", "trixie",
                       "forky", "sid", "stable", "oldstable", "testing", "unstable"),
               template=None, own_security=True),
        Distro(name="ubuntu", origin="Ubuntu", default_suite="noble", components=("main", "universe"),
               keyrings=(Path("/usr/share/keyrings/ubuntu-archive-keyring.gpg"),
                         Path("/usr/share/keyrings/ubuntu-archive-removed-keys.gpg")),
               keyring_package="ubuntu-keyring",
               suites=("hardy", "lucid", "precise", "trusty", "xenial", "bionic", "focal", "jammy", "noble",
                       "oracular", "plucky", "questing", "resolute"),
               template="bionic", own_security=False),
    )
}


def find_distro(name: str) -> Distro:
    """The distro of that name. Raises UsageError."""
    if name not in _DISTROS:
        raise UsageError(f"The distro '{name}' is not known.", hint="Known are: " + ", ".join(sorted(_DISTROS)) + ".")
    return _DISTROS[name]


def distro_of(suite: str) -> Distro | None:
    """The distro that has a suite of that name."""
    return next((distro for distro in _DISTROS.values() if suite in distro.suites), None)


def check_target(distro: Distro, suite: str, arch: str) -> None:
    """Refuse a suite or an architecture for which no image can be made. Raises UsageError."""
    if _SUITE.fullmatch(suite) is None or ".." in suite:
        raise UsageError(f"'{suite}' cannot be the name of a suite.",
                         hint=f"Names are made of letters, digits and '_.-'; for example '{distro.default_suite}'.")
    if arch not in ARCHITECTURES:
        raise UsageError(f"Base images for the architecture '{arch}' cannot be made.",
                         hint="Known are amd64 (also for linux64 targets) and i386.")
    for other in _DISTROS.values():
        if other is not distro and suite in other.suites and suite not in distro.suites:
            raise UsageError(f"The suite '{suite}' is one of {other.origin}, not of {distro.origin}.",
                             hint=f"Add '--distro {other.name}'.")
