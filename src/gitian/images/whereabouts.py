"""Where an archive has packages of given hashes, or may still have them: out of its indices, which are not believed.

An index leads from a SHA-256 to a path in the archive, and that is all it is used for: what lies there is hashed. So
nothing hangs on who has signed it, or whether it is out of date.
"""

from __future__ import annotations

import contextlib
import mmap
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from urllib.parse import quote, urlsplit

from gitian.errors import FetchError, UsageError
from gitian.formats.deblines import deb_words, seen_from_here
from gitian.formats.image_record import InstalledPackage
from gitian.host.web import LARGEST, is_own
from gitian.images import unchecked
from gitian.images.archive import paragraphs
from gitian.images.distros import ARCHITECTURES
from gitian.images.sources import Source, check_uri

#: How many places of one archive are tried for a package that its index has in another version only.
_GUESSES = 6
#: A line of sources.list has no more components than this.
_COMPONENTS = 50
#: A paragraph of an index is no longer than this (bytes).
_PARAGRAPH = 2**18

_WORD = re.compile(r"[A-Za-z0-9_.~+/:-]+")
_FIELD = re.compile(rb"^(?:Package|SHA256): *([!-~]{1,300})[ \t\r]*$", re.MULTILINE)
_PATH = re.compile(r"[ -~]{1,4096}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """A place where a package may be: a URL, or a file of this machine. ``size`` in bytes, None when not known.

    A ``guess`` is one that nobody has named.
    """

    url: str
    size: int | None = None
    path: Path | None = None
    guess: bool = False


@dataclass(slots=True, kw_only=True)
class Whereabouts:
    """What was found out about packages: where they should be, where they might be, and what else there is to say."""

    exact: dict[InstalledPackage, list[Candidate]] = field(default_factory=dict)
    guesses: dict[InstalledPackage, list[Candidate]] = field(default_factory=dict)
    remarks: dict[InstalledPackage, list[str]] = field(default_factory=dict)

    def remark(self, packages: Iterable[InstalledPackage], text: str) -> None:
        """Say the same of several packages."""
        for package in packages:
            self.remarks.setdefault(package, []).append(text)


def read_sources(lines: Sequence[str], host_address: str, warn: Callable[[str], None]) -> list[Source]:
    """The archives that a guest's sources.list names, as this machine reaches them; what is none is left out.

    ``warn`` is told of lines that cannot be used. Lines that are comments, or of sources, have no packages.
    """
    found: dict[tuple[str, str, tuple[str, ...]], Source] = {}
    for line in lines:
        words = deb_words(line)
        if not words:
            continue
        try:
            if not 3 <= len(words) <= 3 + _COMPONENTS \
                    or not all(_WORD.fullmatch(word) and ".." not in word for word in words[2:]):
                raise UsageError("it is not well-formed")
            check_uri(words[1])
            if is_own(urlsplit(words[1]).hostname or ""):
                raise UsageError("a guest means itself by that")
        except UsageError as error:
            warn(f"The line '{line}' is passed over: {str(error).rstrip('.')}.")
            continue
        uri = re.sub("^(file|copy)://", r"\1:", seen_from_here(words[1], host_address)).rstrip("/")
        source = Source(host_uri=uri, guest_uri=words[1], suite=words[2], components=tuple(words[3:]))
        found.setdefault((uri, source.suite, source.components), source)
    return list(found.values())


def ask(source: Source, packages: Sequence[InstalledPackage], scratch: Path, known: Whereabouts, *,
        asker: unchecked.Asker, guess: bool = True, warn: Callable[[str], None]) -> None:
    """Look packages up in the index of one archive; with ``guess`` also where other versions of them lie.

    ``scratch`` is not there yet. An archive that cannot be asked is a warning. Raises HostError: there is no room.
    """
    # An index for any architecture lists what is for all of them.
    wished = {package.architecture for package in packages} - {"all"}
    architectures = sorted(wished & set(ARCHITECTURES)) or ["amd64"]
    for odd in sorted(wished - set(ARCHITECTURES)):
        known.remark((package for package in packages if package.architecture == odd),
                     f"{source.name}: it is not asked for {odd}, since no guest is of that architecture")
    wanted: dict[bytes, list[InstalledPackage]] = {}
    for package in packages:
        wanted.setdefault(package.sha256.encode(), []).append(package)
    names = {package.name.encode() for package in packages}
    exact: set[InstalledPackage] = set()
    others: dict[str, list[Mapping[str, str]]] = {}
    answered = False
    for architecture in architectures:
        try:
            paths = unchecked.fetch(source, architecture, scratch / architecture, asker)
            answered = True
            for path in paths:
                for entry in _entries(path, wanted, names):
                    for package in wanted.get(entry.get("SHA256", "").encode(), ()):
                        candidate = _candidate(source, entry.get("Filename", ""), entry.get("Size", ""))
                        if candidate is not None and package not in exact:
                            exact.add(package)
                            known.exact.setdefault(package, []).append(candidate)
                    if entry.get("Package"):
                        others.setdefault(entry["Package"], []).append(entry)
        except FetchError as error:
            warn(f"'{source.name}' cannot be asked for {architecture}: {error}")
            known.remark((package for package in packages if package.architecture in (architecture, "all")),
                          f"{source.name}: it cannot be asked")
    for package in packages if answered else ():
        if package in exact:
            continue
        entries = [entry for entry in others.get(package.name, [])
                   if entry.get("Architecture") in (package.architecture, "all")]
        versions = sorted({entry.get("Version", "") for entry in entries})
        known.remark([package], f"{source.name}: " + (f"it has {', '.join(versions)[:100]}" if versions else
                                                       "its index does not have it"))
        if guess:
            known.guesses.setdefault(package, []).extend(_guesses(source, package, others.get(package.name, [])))


def _entries(path: Path, hashes: Mapping[bytes, object], names: set[bytes]) -> Iterator[dict[str, str]]:
    """The paragraphs of a Packages file (deb822(5)) that are of one of these hashes or names.

    Only these are taken apart: the index of a large archive has 60 MB.
    """
    with path.open("rb") as file:
        try:
            data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        except ValueError:  # it is empty
            return
        with data:
            done = 0
            for match in _FIELD.finditer(data):
                if match.start() < done or (match[1] not in hashes and match[1] not in names):
                    continue
                before = data.rfind(b"\n\n", max(0, match.start() - _PARAGRAPH), match.start())
                start = before + 2 if before >= 0 else max(0, match.start() - _PARAGRAPH)
                end = data.find(b"\n\n", match.end(), match.end() + _PARAGRAPH)
                done = end if end >= 0 else min(len(data), match.end() + _PARAGRAPH)
                text = data[start:done].decode(errors="replace")
                yield from paragraphs(text.split("\n"))


def _candidate(source: Source, name: str, size: str = "") -> Candidate | None:
    """The place of a file that an index names (relative to the archive); None for a path that is none."""
    steps = [step for step in name.split("/") if step not in ("", ".")]
    if not steps or ".." in steps or _PATH.fullmatch(name) is None:
        return None
    # What is larger than anything that is fetched is somebody's invention, and no reason to look for room for it.
    number = int(size) if re.fullmatch("[0-9]{1,15}", size) and int(size) <= LARGEST else None
    scheme, _, place = source.host_uri.partition(":")
    if scheme in ("file", "copy"):
        path = Path(place).joinpath(*steps)
        return Candidate(url=f"file:{path}", size=number, path=path)
    # A '%3a' in the name of a file is no colon in a URL.
    return Candidate(url=f"{source.host_uri}/{quote('/'.join(steps), safe='/~+:@=,')}", size=number)


def _guesses(source: Source, package: InstalledPackage, others: Sequence[Mapping[str, str]]) -> list[Candidate]:
    """Where a version may lie that is in no index any more: beside other versions, or at the usual place of a pool.

    An archive keeps files for a while after its index has forgotten them. In their names the epoch is left out; the
    usual place is pool/COMPONENT/PREFIX/SOURCE/, PREFIX the first letter, or four where these are 'lib' and one more.
    """
    name = f"{package.name}_{package.version.partition(':')[2] or package.version}_{package.architecture}.deb"
    paths = [f"{entry['Filename'].rpartition('/')[0]}/{name}" for entry in others if "/" in entry.get("Filename", "")]
    origins = [entry.get("Source", entry["Package"]).partition(" ")[0] for entry in others] or [package.name]
    for origin in origins:
        prefix = origin[:4] if origin.startswith("lib") else origin[:1]
        paths += [f"pool/{component}/{prefix}/{origin}/{name}" for component in source.components]
    found = []
    for path in dict.fromkeys(paths):
        with contextlib.suppress(ValueError):
            candidate = _candidate(source, path)
            if candidate is not None:
                found.append(replace(candidate, guess=True))
    return list(dict.fromkeys(found))[:_GUESSES]
