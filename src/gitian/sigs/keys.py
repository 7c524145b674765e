"""Which public keys are at hand: key files, the folders that sigs repositories carry, the user's own GnuPG home.

Reading keys is cheap and complete; only those that signatures ask for are ever handed to GnuPG. The user's GnuPG home
is read, never written: its keyring is copied, and its trust database is not looked at.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from gitian.errors import InputError, ProgramError
from gitian.host import process
from gitian.sigs import home as homes
from gitian.sigs import packets, tree

#: Where the repositories of known projects keep their builders' keys, from the root of the tree.
KEY_FOLDERS = ("gitian-keys", "gitian-pubkeys", "builder-keys", "keys", "pubkeys", "contrib/gitian-keys",
               "contrib/builder-keys", "utils/gpg_keys")
SUFFIXES = (".asc", ".pgp", ".gpg", ".key", ".kbx")

#: Bounds of what the user names (bytes, files, bytes together).
FILE_LIMIT = 32 * 2**20
FILES_LIMIT = 5000
TOTAL_LIMIT = 256 * 2**20
#: Bounds of what a tree brings along; what is beyond them is left out.
CARRIED_FILE_LIMIT = 8 * 2**20
CARRIED_LIMIT = 64 * 2**20
#: Of revocations that lie in files by themselves, so many are tried.
REVOCATIONS_LIMIT = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyData:
    """The bytes of one key file and where they came from, for people."""

    origin: str
    data: bytes = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Sources:
    """Where keys are to be looked for.

    ``keyrings``: files and directories named by the user. ``folders``: in the tree. ``home``: the user's GnuPG home.
    """

    keyrings: tuple[Path, ...] = ()
    folders: bool = True
    home: Path | None = None


class Keyring:
    """Public keys by key id and fingerprint. Parsed when first asked; ``digest`` needs the bytes alone."""

    def __init__(self, data: Iterable[KeyData], problems: Iterable[tuple[str, str]] = ()) -> None:
        self._data = tuple(data)
        self.digest = hashlib.sha256(b"".join(sorted(
            hashlib.sha256(item.data).digest() for item in self._data))).hexdigest()
        self._parsed = False
        self._by_id: dict[str, list[packets.KeyBlock]] = {}
        self._origins: dict[str, list[str]] = {}
        self._revocations: list[packets.Signature] = []
        self._problems = list(problems)

    def __contains__(self, issuer: str) -> bool:
        """Whether a key with this key id or fingerprint is at hand."""
        self._parse()
        return issuer in self._by_id

    @property
    def problems(self) -> tuple[tuple[str, str], ...]:
        """Key files that could not be read: where, and why as the end of a sentence."""
        self._parse()
        return tuple(self._problems)

    @property
    def fingerprints(self) -> tuple[str, ...]:
        """All primary keys."""
        self._parse()
        return tuple(sorted(self._origins))

    def origins(self, fingerprint: str) -> tuple[str, ...]:
        """Which files hold this primary key."""
        self._parse()
        return tuple(self._origins.get(fingerprint, ()))

    def needed(self, issuers: Iterable[str]) -> tuple[list[bytes], list[bytes]]:
        """Keys and revocations that GnuPG needs to judge signatures by these key ids or fingerprints."""
        self._parse()
        chosen: dict[int, packets.KeyBlock] = {}
        wanted = list(issuers)
        seen: set[str] = set()
        while wanted:
            issuer = wanted.pop()
            if issuer in seen:
                continue
            seen.add(issuer)
            for block in self._by_id.get(issuer, ()):
                chosen[id(block)] = block
                # A key may name another one that may revoke it; without that one GnuPG cannot tell.
                wanted.extend(block.revokers)
        ids = {name for block in chosen.values() for name in block.key_ids}
        revocations = [found.raw for found in self._revocations if ids.intersection(found.issuers)]
        return [block.raw for block in chosen.values()], revocations[:REVOCATIONS_LIMIT]

    def _parse(self) -> None:
        if self._parsed:
            return
        self._parsed = True
        seen: set[bytes] = set()
        for item in self._data:
            try:
                for data in _exported(item):
                    found = packets.key_file(data)
                    self._revocations += found.revocations
                    self._problems += [(item.origin, f"holds the key {fingerprint}, which has over "
                                                     f"{packets.KEY_PACKETS_LIMIT} parts and is passed over")
                                       for fingerprint in found.oversized]
                    for block in found.blocks:
                        self._origins.setdefault(block.fingerprint, []).append(item.origin)
                        same = hashlib.sha256(block.raw).digest()
                        if same not in seen:
                            seen.add(same)
                            for name in block.key_ids:
                                self._by_id.setdefault(name, []).append(block)
            except packets.PacketError as error:
                self._problems.append((item.origin, str(error)))
            except ProgramError:
                self._problems.append((item.origin, "is a keybox that GnuPG cannot read"))


def _exported(item: KeyData) -> Iterator[bytes]:
    """A keybox is GnuPG's own format: GnuPG turns a copy of it into packets. Anything else is packets already."""
    if item.data[8:12] != b"KBXf":
        yield item.data
        return
    with homes.private_home() as private:
        (private / "pubring.kbx").write_bytes(item.data)
        yield process.run(["gpg", "--homedir", private, "--no-options", "--no-tty", "--batch", "--no-autostart",
                           "--no-auto-check-trustdb", "--export"], check=False, timeout=120).stdout or b"\n"


def gather(sources: Sources, where: tree.SigsTree | None = None) -> Keyring:
    """All keys of the sources: the user's own first, so that nothing a tree brings keeps them from being used.

    Raises InputError for a --keyring that cannot be read.
    """
    found: list[KeyData] = []
    problems: list[tuple[str, str]] = []
    size = 0
    for path in sources.keyrings:
        for file in _given(path):
            found.append(KeyData(origin=str(file), data=_bytes_of(file)))
            size += len(found[-1].data)
            if size > TOTAL_LIMIT:
                raise InputError(f"The key files are larger than {TOTAL_LIMIT >> 20} MiB in all.",
                                 hint="Name the keyrings that matter with --keyring.")
    if sources.home is not None:
        found += _own(sources.home, problems)
    if sources.folders and where is not None:
        found += _carried(where, problems)
    return Keyring(found, problems)


def _given(path: Path) -> list[Path]:
    if path.is_dir():
        try:
            names = sorted(path.iterdir())[:FILES_LIMIT]
        except OSError as error:
            raise InputError(f"The keyring directory '{path}' cannot be read: {error.strerror}.") from error
        files = [entry for entry in names if entry.suffix.lower() in SUFFIXES and entry.is_file()]
        if not files:
            raise InputError(f"The keyring directory '{path}' holds no key file.",
                             hint=f"Key files end in {', '.join(SUFFIXES)}.")
    else:
        files = [path]
    return files


def _bytes_of(file: Path) -> bytes:
    try:
        if not file.is_file():
            raise InputError(f"The keyring '{file}' is {'not a file' if file.exists() else 'not there'}.")
        with file.open("rb") as stream:
            data = stream.read(FILE_LIMIT + 1)
    except OSError as error:
        raise InputError(f"The keyring '{file}' cannot be read: {error.strerror}.") from error
    if len(data) > FILE_LIMIT:
        raise InputError(f"The keyring '{file}' is larger than {FILE_LIMIT >> 20} MiB.")
    return data


def _carried(where: tree.SigsTree, problems: list[tuple[str, str]]) -> Iterator[KeyData]:
    """The key folders of a tree, and those of the repository that it is a part of."""
    count = size = 0
    for place in dict.fromkeys((where, where.top)):
        for folder in KEY_FOLDERS:
            try:
                entries = place.list(folder)
            except tree.TreeError:
                continue
            for entry in entries:
                if entry.kind is not tree.Kind.FILE or Path(entry.name).suffix.lower() not in SUFFIXES:
                    continue
                path = tree.join(folder, entry.name)
                origin = path if place is where else tree.join(place.label, path)
                if count >= FILES_LIMIT or size >= CARRIED_LIMIT:
                    problems.append((origin, "was left out, and what comes after it: the tree holds more than "
                                             f"{FILES_LIMIT} key files, or {CARRIED_LIMIT >> 20} MiB of them"))
                    return
                count += 1
                try:
                    data = place.read(path, min(CARRIED_FILE_LIMIT, CARRIED_LIMIT - size))
                except tree.TreeError as error:
                    problems.append((origin, str(error)))
                    continue
                size += len(data)
                yield KeyData(origin=origin, data=data)


def _own(home: Path, problems: list[tuple[str, str]]) -> Iterator[KeyData]:
    for ring in homes.public_rings(home):
        try:
            if ring.stat().st_size > homes.RING_LIMIT:
                problems.append((str(ring), f"is larger than {homes.RING_LIMIT >> 20} MiB"))
            elif ring.match(homes.KEYBOXD_RING):
                yield KeyData(origin=str(ring), data=homes.exported_by_daemon(ring) or b"\n")
            else:
                yield KeyData(origin=str(ring), data=ring.read_bytes())
        except OSError as error:
            problems.append((str(ring), f"cannot be read: {error.strerror}"))
        except ProgramError as error:
            problems.append((str(ring), f"cannot be read: {error}"))


def default_sources(keyrings: tuple[Path, ...], *, only: bool, environ: Mapping[str, str] | None = None) -> Sources:
    """What a command uses: the keyrings given, and, unless ``only`` those, the tree's folders and the user's home."""
    environ = os.environ if environ is None else environ
    return Sources(keyrings=keyrings, folders=not only, home=None if only else homes.user_home(environ))
