"""Every package of an environment as a file, by its SHA-256: from whoever still has it, checked, or said to be missing.

What is nearest is asked first: the pool, given directories, the archives that the packages came from, a snapshot
service. None of them is believed; a hash decides.
"""

from __future__ import annotations

import contextlib
import itertools
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from gitian.errors import EnvironmentUnavailableError
from gitian.formats.fetched import Fetched
from gitian.formats.image_record import InstalledPackage
from gitian.guest.protocol import HOST_ADDRESS
from gitian.host import progress
from gitian.host.pool import Pool, PoolUse
from gitian.host.pool_fetch import RESERVE
from gitian.host.space import require_room
from gitian.host.web import Client, Refused, Stopped, side_by_side
from gitian.host.workspace import make_directory, remove_tree
from gitian.images import shelves, snapshot, whereabouts
from gitian.images.sources import Source
from gitian.images.unchecked import Asker
from gitian.images.whereabouts import Candidate, Whereabouts

#: After so many requests in a row to one server that came to nothing, it is asked no more.
_GIVE_UP = 10
#: After so many servers that did not answer no other archive is asked.
_MOST_SILENT = 8
#: A list of missing packages longer than this states hashes in short.
_MANY = 10
#: Then no more than so many of the places that were tried are said of each.
_LAST = 4

_HINT = "Give directories that have them with --debs DIR, or a snapshot service with --snapshot URL or " \
        "$GITIAN_SNAPSHOT. 'gitian environment fetch' keeps what is found, for later."


@dataclass(frozen=True, slots=True, kw_only=True)
class Places:
    """Where to look for packages.

    ``sources`` are deb lines as a guest has them, to which this machine is ``host_address``; ``find_sources`` gives
    more of them, and is called if something is not on this machine. ``snapshot`` is a service's address; at
    ``snapshot_time`` (YYYYMMDDTHHMMSSZ) the sources are looked up there too. ``offline``: nobody but this machine is
    asked. The distro's usual archives are asked over the proxy on ``mirror_host``, if there is one.
    """

    pool: Pool | None
    directories: tuple[Path, ...] = ()
    sources: tuple[str, ...] = ()
    find_sources: Callable[[], Sequence[str]] = tuple
    snapshot: str | None = None
    snapshot_time: str | None = None
    offline: bool = False
    host_address: str = HOST_ADDRESS
    mirror_host: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Missing:
    """A package that nobody has, and what was tried, in words."""

    package: InstalledPackage
    tried: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Obtained:
    """Packages as files, which are to be read and no more (they may be the pool's own), and those that are missing.

    ``fetched`` is what came over the network.
    """

    files: Mapping[InstalledPackage, Path]
    missing: tuple[Missing, ...]
    fetched: tuple[Fetched, ...]


def obtain(packages: Sequence[InstalledPackage], places: Places, destination: Path, scratch: Path) -> Obtained:
    """Put the files of packages into ``destination``, under apt's names, and what is new into the pool.

    The two directories are the caller's own; in ``scratch`` rubbish is left. Of different packages whose files have
    one name only the first is looked for. Raises InputError: a given directory is none; HostError: no room.
    """
    make_directory(destination)
    make_directory(scratch)
    by_name: dict[str, InstalledPackage] = {}
    for package in packages:
        by_name.setdefault(package.file_name, package)
    wanted = list(by_name.values())
    twins = [package for package in dict.fromkeys(packages) if by_name[package.file_name] != package]
    shelves.clear(destination, wanted)
    with contextlib.ExitStack() as stack:
        use = stack.enter_context(places.pool.using()) if places.pool is not None else None
        search = _Search(places=places, destination=destination, scratch=scratch, use=use,
                         room=use.room if use is not None else scratch, missing=wanted)
        search.run()
    lacking = set(search.missing)
    return Obtained(
        files={package: destination / package.file_name for package in wanted if package not in lacking},
        missing=(*(Missing(package=package, tried=tuple(search.tried.get(package, ()))) for package in search.missing),
                 *(Missing(package=package, tried=("another package of that name and version is wanted too",))
                   for package in twins)),
        fetched=tuple(sorted(search.fetched)))


def require(obtained: Obtained) -> None:
    """See that nothing is missing. Raises EnvironmentUnavailableError, which names all that is."""
    if obtained.missing:
        raise unavailable(obtained.missing)


def unavailable(missing: Sequence[Missing]) -> EnvironmentUnavailableError:
    """The error for missing packages: all of them, each with what was tried; what was tried for all is said once."""
    count = Counter(text for one in missing for text in set(one.tried))
    common = [text for text in dict.fromkeys(text for one in missing for text in one.tried)
              if len(missing) > 1 and count[text] == len(missing)]
    lines = [f"{len(missing)} package{'s' if len(missing) > 1 else ''} of the environment cannot be had:"]
    for one in sorted(missing, key=lambda one: one.package):
        package = one.package
        digest = package.sha256 if len(missing) <= _MANY else package.sha256[:16] + "..."
        lines.append(f"  {package.name} {package.version} ({package.architecture}), sha256 {digest}")
        own = [text for text in one.tried if text not in common]
        lines += [f"    {text}" for text in (own if len(missing) <= _MANY else own[-_LAST:])]
    if common:
        lines += ["What was tried for " + ("both:" if len(missing) == 2 else "all of them:"),
                  *(f"    {text}" for text in common)]
    return EnvironmentUnavailableError("\n".join(lines), hint=_HINT)


class _Servers:
    """Which servers have not answered for so long that they are asked no more."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._silent: Counter[str] = Counter()

    @contextlib.contextmanager
    def asking(self, url: str, silence: int = 1) -> Iterator[None]:
        """The block asks a server, whose silence counts as that of so many requests. Raises Refused."""
        server = urlsplit(url).netloc
        with self._lock:
            if self._silent[server] >= _GIVE_UP:
                raise Refused("it was given up, since it did not answer", clean=True)
        try:
            yield
        except Refused as error:
            with self._lock:
                self._silent[server] = self._silent[server] + silence if error.silent else 0
            raise
        else:
            with self._lock:
                self._silent[server] = 0

    @contextlib.contextmanager
    def asking_for_index(self, url: str) -> Iterator[None]:
        """The block asks for what leads to packages: a server that is silent then is given up at once.

        After several of them those that were never asked are not asked either: each may cost a minute. Raises Refused.
        """
        with self._lock:
            silent = sum(number >= _GIVE_UP for number in self._silent.values())
            if silent >= _MOST_SILENT and urlsplit(url).netloc not in self._silent:
                raise Refused(f"it was not asked, since {silent} other servers did not answer", clean=True)
        with self.asking(url, _GIVE_UP):
            yield


@dataclass(slots=True, kw_only=True)
class _Search:
    """A search that is under way; ``missing`` becomes shorter, ``room`` is where files are made."""

    places: Places
    destination: Path
    scratch: Path
    use: PoolUse | None
    room: Path
    missing: list[InstalledPackage]
    tried: dict[InstalledPackage, list[str]] = field(default_factory=dict)
    fetched: list[Fetched] = field(default_factory=list)
    servers: _Servers = field(default_factory=_Servers)
    in_vain: set[str] = field(default_factory=set)
    numbers: Iterator[int] = field(default_factory=itertools.count)
    client: Client = field(default_factory=lambda: Client(hasty=True))

    def run(self) -> None:
        if self.use is not None:
            self._found(shelves.from_pool(self.missing, self.use, self.destination))
            self._note("the package pool: not there")
        for path in self.places.directories if self.missing else ():
            self._from_directory(path)
        if self.places.offline:
            self._note("no archive was asked (offline)")
            return
        if not self.missing:
            return
        lines = [*self.places.sources, *self.places.find_sources()]
        sources = whereabouts.read_sources(lines, self.places.host_address, progress.warn)
        for number, source in enumerate(sources):
            self._ask(source, f"archive-{number}", guess=True)
        service = self.places.snapshot
        if service is not None and self.places.snapshot_time is not None:
            then = (snapshot.at(source, service, self.places.snapshot_time) for source in sources)
            for number, source in enumerate(dict.fromkeys(source for source in then if source is not None)):
                self._ask(source, f"snapshot-{number}", guess=False)
        if service is not None and self.missing:
            self._from_service(service)

    def _note(self, text: str) -> None:
        for package in self.missing:
            self._note_all(package, [text])

    def _note_all(self, package: InstalledPackage, texts: Iterable[str]) -> None:
        self.tried.setdefault(package, []).extend(texts)

    def _found(self, packages: Iterable[InstalledPackage]) -> None:
        found = set(packages)
        self.missing = [package for package in self.missing if package not in found]

    def _keep(self, package: InstalledPackage, path: Path) -> None:
        """A file that is what it should be: into the pool, and where it was asked for."""
        if self.use is not None:
            self.use.keep(path, shelves.deb_of(package, path.stat().st_size))
        shelves.put(path, self.destination / package.file_name)
        path.unlink()

    def _new(self) -> Path:
        # Not by the package: of two that claim one hash, both are written at once, and what lies in the pool already
        # may be another name for either.
        return self.room / f"new-{next(self.numbers)}"

    def _from_directory(self, path: Path) -> None:
        directory = shelves.Directory(path)
        found = set()
        for package in self.missing:
            place, copy = directory.find(package), self._new()
            if place is not None and shelves.copy_checked(place, copy, package.sha256):
                self._keep(package, copy)
                found.add(package)
        self._found(found)
        self._note(f"the directory '{path}': not there")

    def _ask(self, source: Source, name: str, *, guess: bool) -> None:
        if not self.missing:
            return
        found = Whereabouts()
        with progress.step(f"Looking for {len(self.missing)} packages in {source.name}"):
            asker = Asker(client=self.client, asking=self.servers.asking_for_index)
            try:
                whereabouts.ask(source, self.missing, self.scratch / name, found, asker=asker, guess=guess,
                                warn=progress.warn)
            finally:  # of a thousand archives not all indices lie here at once
                remove_tree(self.scratch / name)
        for package in self.missing:
            self._note_all(package, found.remarks.get(package, ()))
        self._fetch(source.name, {package: [*found.exact.get(package, ()), *found.guesses.get(package, ())]
                                  for package in self.missing})

    def _from_service(self, service: str) -> None:
        def lookup(package: InstalledPackage, client: Client) -> list[Candidate]:
            with self.servers.asking(service):
                return snapshot.find(package, service, client)

        self._fetch(service, dict.fromkeys(self.missing), lookup)

    def _fetch(self, who: str, known: Mapping[InstalledPackage, Sequence[Candidate] | None],
               lookup: Callable[[InstalledPackage, Client], list[Candidate]] | None = None) -> None:
        """Fetch packages from the first of their candidates that has them; those of None are looked up first."""
        todo = [package for package in self.missing if known.get(package) or lookup is not None]
        sizes = {package: next((one.size for one in known.get(package) or () if one.size), 0) for package in todo}
        if not todo:
            return
        require_room(self.room, sum(sizes.values()) + RESERVE, "packages of an environment")
        found = set()
        with contextlib.ExitStack() as stack:
            advance = stack.enter_context(
                progress.bar(f"Fetching packages ({len(todo)} to be had)", sum(sizes.values()) or None))

            def work(package: InstalledPackage, client: Client) -> tuple[tuple[Candidate, Path] | None, list[str]]:
                try:
                    candidates = known.get(package) or (lookup(package, client) if lookup is not None else [])
                except (Refused, Stopped) as error:
                    return None, [f"{who}: {error}"]
                reasons = [] if candidates else [f"{who}: it does not have it for {package.architecture}"]
                for candidate in candidates:
                    if candidate.url in self.in_vain:  # pockets of one archive lead to the same places
                        continue
                    try:
                        return (candidate, self._bring(package, candidate, client, advance)), []
                    except Refused as error:
                        self.in_vain.add(candidate.url)
                        if not candidate.guess or "404" not in str(error):
                            reasons.append(f"{candidate.url}: {error}")
                    except Stopped:
                        break
                if any(candidate.guess for candidate in candidates):
                    reasons.append(f"{who}: nor is it at the usual place of its pool, or beside other versions")
                return None, reasons

            # The largest first, so that none is left alone at the end.
            results = stack.enter_context(
                contextlib.closing(side_by_side(sorted(todo, key=lambda one: -sizes[one]), work)))
            for package, (came, reasons) in results:
                if came is None:
                    self._note_all(package, reasons)
                    continue
                candidate, path = came
                if candidate.path is None:
                    self.fetched.append(Fetched(url=candidate.url, size=path.stat().st_size, sha256=package.sha256))
                self._keep(package, path)
                found.add(package)
        self._found(found)

    def _bring(self, package: InstalledPackage, candidate: Candidate, client: Client,
               advance: Callable[[int], None]) -> Path:
        """One candidate's file, checked, under a name of its own. Raises Refused, Stopped."""
        path = self._new()
        if candidate.path is not None:
            if not shelves.copy_checked(candidate.path, path, package.sha256):
                raise Refused("it is not there, or another file")
            return path
        with self.servers.asking(candidate.url):
            client.save(candidate.url, path, sha256=package.sha256, size=candidate.size, progress=advance)
        return path
