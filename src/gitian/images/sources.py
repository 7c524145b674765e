"""Where a base image's packages come from: the sources, as the host fetches from them and as the guest sees them."""

from __future__ import annotations

import contextlib
import re
import urllib.parse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from gitian.errors import ImageError, UsageError
from gitian.formats import deblines
from gitian.guest.protocol import HOST_ADDRESS
from gitian.host import process
from gitian.images.distros import Distro

POCKETS = ("security", "updates")
#: The port of apt-cacher-ng and its kind, fixed in the classic too.
PROXY_PORT = 3142

_SCHEMES = ("http", "https", "file", "copy")
_OWN_NAMES = ("127.0.0.1", "localhost", "::1")
_HOST = re.compile(r"[A-Za-z0-9_.-]+|\[?[0-9A-Fa-f:]+\]?")


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """One line of sources.list. ``pocket`` is '' (the suite itself), 'updates' or 'security'.

    ``host_uri`` is what this machine fetches from, ``guest_uri`` the same place as a guest reaches it.
    """

    host_uri: str
    guest_uri: str
    suite: str
    components: tuple[str, ...]
    pocket: str = ""

    @property
    def name(self) -> str:
        """How messages call it."""
        return f"{self.host_uri} {self.suite}"

    @property
    def guest_line(self) -> str:
        """The line in the guest, whose apt trusts its distro's keys without being told."""
        return f"deb {self.guest_uri} {self.suite} {' '.join(self.components)}"

    def host_line(self, arch: str, keyrings: Sequence[Path]) -> str:
        """The line for this machine's apt, which trusts the given keyrings and no others (sources.list(5))."""
        # With file: apt leaves packages where they are, out of reach of a chroot; copy: brings them.
        uri = "copy:" + self.host_uri.removeprefix("file:") if self.host_uri.startswith("file:") else self.host_uri
        signed = f"signed-by={','.join(map(str, keyrings))}"
        return f"deb [arch={arch} {signed}] {uri} {self.suite} {' '.join(self.components)}".rstrip()


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceOptions:
    """What a user said about sources: --mirror, --security-mirror, --without, MIRROR_HOST, GITIAN_HOST_IP."""

    mirror: str | None = None
    security_mirror: str | None = None
    without: tuple[str, ...] = ()
    mirror_host: str | None = None
    host_address: str = HOST_ADDRESS

    @classmethod
    def of(cls, *, mirror: str | None, security_mirror: str | None, without: Sequence[str],
           environment: Mapping[str, str]) -> SourceOptions:
        """From options and the environment. Raises UsageError."""
        for uri in (mirror, security_mirror):
            if uri is not None:
                check_uri(uri)
        unknown = sorted(set(without) - set(POCKETS))
        if unknown:
            raise UsageError(f"There is no pocket '{unknown[0]}'.", hint="Known are: " + ", ".join(POCKETS) + ".")
        host = environment.get("MIRROR_HOST") or None
        address = environment.get("GITIAN_HOST_IP") or HOST_ADDRESS
        for name, value in (("MIRROR_HOST", host), ("GITIAN_HOST_IP", address)):
            if value is not None and _HOST.fullmatch(value) is None:
                raise UsageError(f"{name} is '{value}', which is neither a host's name nor an address.",
                                 hint=f"For example: {name}=127.0.0.1, without scheme and port.")
        return cls(mirror=mirror, security_mirror=security_mirror, without=tuple(sorted(set(without))),
                   mirror_host=host, host_address=address)


def check_uri(uri: str) -> None:
    """Refuse what cannot be an archive's address, before it gets into a sources.list. Raises UsageError."""
    good = False
    with contextlib.suppress(ValueError):  # a port or a bracketed address that is none
        parts = urllib.parse.urlsplit(uri)
        good = (parts.scheme in _SCHEMES and re.fullmatch(r"[!-~]+", uri) is not None
                and not set(uri) & set("#\"'\\<>|") and not set(parts.path) & set("[]") and not parts.query
                and (parts.port is None or parts.port > 0))
        if parts.scheme in ("http", "https"):
            good = good and bool(parts.hostname)
        else:
            good = good and not parts.netloc and parts.path.startswith("/")
    if not good:
        raise UsageError(f"'{uri}' cannot be a mirror's address.",
                         hint="For example: http://HOST/PATH, https://HOST/PATH, file:/PATH or copy:/PATH.")


def find_sources(distro: Distro, suite: str, arch: str, options: SourceOptions, scratch: Path) -> tuple[Source, ...]:
    """The sources of a base image: the suite, then its updates, then its security updates.

    Without --mirror these are the ones that mmdebstrap takes for the suite. Raises ImageError, MissingToolError.
    """
    template = distro.template or suite
    found = []
    for uri, theirs in default_lines(template, arch, scratch):
        name, pocket = _in_suite(theirs, template, suite)
        if pocket in options.without:
            continue
        source = Source(host_uri=uri, guest_uri=uri, suite=name, components=distro.components, pocket=pocket)
        own = options.security_mirror if pocket == "security" else options.mirror
        if own is None and pocket == "security" and not distro.own_security:
            own = options.mirror
        found.append(_at(source, own, options))
    return tuple(found)


def _in_suite(theirs: str, template: str, suite: str) -> tuple[str, str]:
    """The name of the asked suite's part that answers to a part of the template, and its pocket."""
    rest = theirs.removeprefix(template)
    pocket = deblines.POCKETS.get(rest)
    if pocket is None:
        raise ImageError(f"'mmdebstrap' names a source '{theirs}' for the suite '{suite}', which was not foreseen.",
                         hint="Name the archive with --mirror, and leave pockets out with --without.")
    return suite + rest, pocket


def _at(source: Source, own: str | None, options: SourceOptions) -> Source:
    """The source at the user's own mirror, or behind the proxy on MIRROR_HOST, or as it is."""
    if own is not None:
        uri = re.sub("^(file|copy)://", r"\1:", own).rstrip("/")
        return replace(source, host_uri=uri, guest_uri=seen_by_guest(uri, options.host_address))
    if options.mirror_host is not None:
        host = options.mirror_host
        host = f"[{host}]" if ":" in host and not host.startswith("[") else host
        uri = f"http://{host}:{PROXY_PORT}/{re.sub('^[a-z]+://', '', source.host_uri)}"
        return replace(source, host_uri=uri, guest_uri=seen_by_guest(uri, options.host_address))
    return source


def seen_by_guest(uri: str, host_address: str) -> str:
    """The same address as a guest reaches it: what is this machine to us is ``host_address`` to it."""
    parts = urllib.parse.urlsplit(uri)
    if parts.scheme not in ("http", "https") or parts.hostname not in _OWN_NAMES:
        return uri
    address = f"[{host_address}]" if ":" in host_address else host_address
    netloc = address if parts.port is None else f"{address}:{parts.port}"
    return urllib.parse.urlunsplit(parts._replace(netloc=netloc))


def default_lines(suite: str, arch: str, scratch: Path) -> list[tuple[str, str]]:
    """What mmdebstrap takes for a suite when it is told nothing: pairs of address and suite.

    It has no option that prints them, so it is stopped by its first hook, before it fetches anything (0.15 s). Raises
    ImageError, MissingToolError.
    """
    # The hook's own status is lost in mmdebstrap's; that it ran is seen by what it printed.
    marker = "gitian-source:"
    hook = f"sed -n 's/^deb /{marker} /p' \"$1/etc/apt/sources.list\" >&2; exit 1"
    done = process.run(["mmdebstrap", "--mode=chrootless", "--format=null", "--variant=custom", f"--arch={arch}",
                        f"--setup-hook={hook}", suite, "/dev/null"],
                       env={"TMPDIR": str(scratch)}, check=False, timeout=120)
    said = done.stderr.decode(errors="replace").splitlines()
    lines = []
    for line in said:
        words = re.sub(r"\[[^]]*\] ", "", line).split()
        if len(words) >= 4 and words[0] == marker:
            lines.append((words[1].rstrip("/"), words[2]))
    if not lines:
        raise ImageError(f"'mmdebstrap' does not say where the suite '{suite}' comes from: "
                         f"{' / '.join(said[-3:]) or 'it said nothing'}",
                         hint="Name the archive with --mirror URL.")
    return lines
