"""A guest's packages out of the package pool: what apt in the guest would download is laid before it.

apt is asked first what it would download, and with which hashes (from the signed indices that it has checked). That
comes from the pool, each file hashed, or is fetched into it, and is put where apt keeps what it has downloaded. What
cannot be had so is left to apt and taken into the pool afterwards. Either way nothing of it stays in the guest.
"""

from __future__ import annotations

import contextlib
import stat
from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from urllib.parse import unquote, urlsplit

from gitian.errors import HostError, OutputError
from gitian.formats.deblines import deb_words, seen_from_here
from gitian.formats.fetched import Fetched
from gitian.guest.protocol import Guest, Limits
from gitian.host import pool_fetch, progress
from gitian.host.pool import PRINT_URIS, Deb, Pool, PoolUse, parse_uris
from gitian.host.web import is_own

_ARCHIVES = PurePosixPath("/var/cache/apt/archives")
_ASIDE = PurePosixPath("/var/cache/gitian/new-packages")

#: The answer for a thousand packages is about 200 kB; more than this many bytes is no honest answer.
_LIMIT = 16 * 2**20
#: Without the pool apt itself throws away what it has downloaded (apt.conf(5)), and only that.
_KEEP_NOTHING = ("-o", "APT::Keep-Downloaded-Packages=false")


@dataclass(frozen=True, slots=True, kw_only=True)
class Supply:
    """Where packages of a guest come from: the pool, and the addresses of the archives that it may be filled from.

    ``host_address`` is this machine's address in the guest.
    """

    pool: Pool | None
    archives: tuple[str, ...]
    host_address: str

    @contextlib.contextmanager
    def lay_in(self, guest: Guest, apt: Sequence[str], words: Sequence[str], *, env: Mapping[str, str],
               note: Callable[[str], None],
               record: Callable[[Fetched], None] = lambda one: None) -> Iterator[tuple[str, ...]]:
        """Give the guest what ``apt words`` would download; the block, which runs it, gets further options for it.

        ``note`` is told where packages come from, ``record`` each of them once it is there. Raises GuestError.
        """
        asked = guest.run([*apt, *PRINT_URIS, *words], user="root", env=env, check=False, limit=_LIMIT)
        debs = parse_uris(asked.stdout.decode(errors="replace")) if asked.status == 0 else None
        if not debs:  # nothing to download, or apt has a complaint, which is its own to make
            if debs is None and asked.status == 0:
                progress.warn("What apt would download cannot be read, so that no record is kept of it.")
            yield _KEEP_NOTHING
            return
        with contextlib.ExitStack() as stack:
            try:
                use = stack.enter_context(self.pool.using()) if self.pool is not None else None
            except HostError as error:
                progress.warn(str(error))
                use = None
            if use is None:
                yield _KEEP_NOTHING
                _tell(record, debs, frozenset())
                return
            pooled, fetched = self._lay(guest, debs, use, note)
            laid = pooled | fetched
            yield ()
            _tell(record, debs, pooled)
            _collect(guest, [deb for deb in debs if deb not in laid], use)
            guest.run(["rm", "-f", "--", *(deb.name for deb in debs)], user="root", cwd=str(_ARCHIVES))

    def _lay(self, guest: Guest, debs: Sequence[Deb], use: PoolUse,
             note: Callable[[str], None]) -> tuple[set[Deb], set[Deb]]:
        """Lay packages before the guest's apt: those that the pool had, and those that were fetched into it."""
        directory = use.room / "archives"
        directory.mkdir()
        taken = use.take(debs, directory)
        orders = [pool_fetch.Order(deb=deb, url=url) for deb in debs if deb not in taken and deb.sha256
                  and (url := self.url_here(deb.uri)) is not None]
        fetched = pool_fetch.fetch(orders, use, directory)
        rest = len(debs) - len(taken) - len(fetched)
        note(f"Packages: {len(taken)} from the pool, {len(fetched)} fetched into it, {rest} left to apt")
        if taken or fetched:
            guest.put(directory, _ARCHIVES, user="root")
        return taken, fetched

    def url_here(self, uri: str) -> str | None:
        """Where this machine gets what a guest's apt calls ``uri``; None for what it should not ask for.

        That is anything that is in none of the archives, and what a guest would ask itself for.
        """
        parts = urlsplit(uri)
        steps = unquote(parts.path).split("/")
        if parts.scheme not in ("http", "https") or "@" in parts.netloc or ".." in steps \
                or is_own(parts.hostname or "localhost") \
                or not any(uri.startswith(archive.rstrip("/") + "/") for archive in self.archives):
            return None
        return seen_from_here(uri, self.host_address)


def archives_of(lines: Sequence[str]) -> tuple[str, ...]:
    """The addresses in lines of sources.list(5): DEB [OPTIONS] URI SUITE ...; other lines have none."""
    found = []
    for line in lines:
        words = deb_words(line)
        with contextlib.suppress(ValueError):  # a line that apt itself will complain of
            if len(words) > 2 and urlsplit(words[1]).scheme in ("http", "https"):
                found.append(words[1])
    return tuple(dict.fromkeys(found))


def _tell(record: Callable[[Fetched], None], debs: Sequence[Deb], pooled: Set[Deb]) -> None:
    for deb in debs:
        record(Fetched(url=deb.uri, size=deb.size, sha256=deb.sha256, pooled=deb in pooled))


def _collect(guest: Guest, debs: Sequence[Deb], use: PoolUse) -> None:
    """Take into the pool what apt has downloaded itself; only what it said beforehand it would."""
    wanted = [deb for deb in debs if deb.sha256]
    if not wanted:
        return
    # 'file:' archives leave nothing here; that is as well.
    guest.run(["sh", "-c", 'mkdir -p "$1" && shift && for name; do [ ! -f "$name" ] || mv -- "$name" "$0"; done',
               str(_ASIDE), str(_ASIDE), *(deb.name for deb in wanted)], user="root", cwd=str(_ARCHIVES))
    came = use.room / "came"
    try:
        guest.get(_ASIDE, came, user="root",
                  limits=Limits(size=sum(deb.size for deb in wanted), entries=2 * len(wanted) + 2))
    except OutputError as error:
        progress.warn(f"What the guest downloaded is not taken into the package pool: {error}")
    else:
        for deb in wanted:
            if _is_file(came / deb.name):
                use.add(came / deb.name, deb)
    guest.run(["rm", "-rf", "--", str(_ASIDE)], user="root")


def _is_file(path: Path) -> bool:
    try:
        return stat.S_ISREG(path.lstat().st_mode)
    except OSError:
        return False
