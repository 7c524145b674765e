"""The signed indices of the sources, fetched once by apt itself into a directory of our own.

Everything after that (the root filesystem, the hashes of its packages, a kernel) uses exactly these indices, so an
archive that changes in between changes nothing. The machine's own apt configuration is left out, except for its
proxies.
"""

from __future__ import annotations

import datetime
import email.utils
import re
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from gitian.errors import FetchError, ImageError
from gitian.formats.image_record import SourceIndex
from gitian.host import process, progress
from gitian.host.hashing import sha256_file
from gitian.host.pool import PRINT_URIS, Deb, Pool, parse_uris
from gitian.images.sources import Source

#: How long to wait before each new attempt (seconds): mirrors are in step again within minutes, mostly within seconds.
PAUSES = (3.0, 10.0, 30.0)
#: An index update or a download that takes longer is stuck (seconds).
PATIENCE = 1800
#: How a record writes the date of an index; always UTC.
DATE = "%Y-%m-%dT%H:%M:%SZ"

#: What apt says when a mirror is out of step or a connection fails, which may be over a moment later.
_TRANSIENT = re.compile(
    r"Mirror sync in progress|unexpected size|Hash Sum mismatch|Could not connect"
    r"|Connection (?:timed out|refused|failed)|Unable to connect|Temporary failure|Error reading from server"
    r"|Undetermined Error|connection was reset|timed out"
    r"|Bad header data|Could not resolve|Clearsigned file isn't valid|\b(?:403|408|425|429|500|502|503|504) +[A-Z]")
_FAILED = re.compile(r"^(?:Err:\d+|[EW]: (?:Failed to fetch|The repository|Unable to fetch|GPG error:))\s*(.*)$")


@dataclass(frozen=True, slots=True, kw_only=True)
class Indices:
    """The indices of some sources at one moment, in ``directory`` (private to one run).

    ``epoch`` is the date of the newest of them, in seconds since 1970. ``pool`` is where packages need not be fetched.
    """

    directory: Path
    arch: str
    sources: tuple[Source, ...]
    keyrings: tuple[Path, ...]
    releases: tuple[SourceIndex, ...]
    origins: tuple[str, ...]
    epoch: int
    pool: Pool | None = None

    @property
    def lists(self) -> Path:
        """Where they lie, named as apt names them in /var/lib/apt/lists."""
        return self.directory / "lists"

    def package_hashes(self) -> dict[tuple[str, str, str], str]:
        """(package, version, architecture) -> sha256 of its .deb, for everything that the sources offer."""
        found: dict[tuple[str, str, str], str] = {}
        for path in sorted(self.lists.glob("*_Packages")):
            for entry in stanzas(path):
                if "SHA256" in entry and "Package" in entry:
                    key = (entry["Package"], entry.get("Version", ""), entry.get("Architecture", ""))
                    found.setdefault(key, entry["SHA256"])
        return found

    def download(self, packages: Sequence[str], destination: Path) -> list[Path]:
        """Fetch packages (names, or NAME=VERSION) as .deb files, checked by apt. Raises FetchError."""
        destination.mkdir(parents=True, exist_ok=True)
        _with_patience(["apt-get", "--quiet", "download", *packages], self.directory, self.sources, destination)
        return sorted(destination.glob("*.deb"))

    def print_uris(self, *arguments: str) -> tuple[Deb, ...]:
        """What ``apt-get`` would download, on an empty system. Raises ProgramError."""
        said = process.run(["apt-get", *PRINT_URIS, *arguments], env=_environment(self.directory), timeout=PATIENCE)
        return parse_uris(said.stdout.decode(errors="replace")) or ()

    def cache(self, *arguments: str) -> str:
        """What ``apt-cache`` answers about these sources."""
        return process.run(["apt-cache", *arguments], env=_environment(self.directory),
                           timeout=PATIENCE).stdout.decode(errors="replace")


def fetch_indices(sources: Sequence[Source], arch: str, keyrings: Sequence[Path], scratch: Path,
                  pool: Pool | None = None) -> Indices:
    """Fetch and check the indices of all sources.

    What may be over in a moment is tried again. Raises FetchError, which names the source that failed and how to go on
    without it.
    """
    if not any(source.pocket == "" for source in sources):
        raise ImageError("There is no source for the suite itself.")
    directory = _private_apt(scratch, arch)
    # apt fetches as a user of its own, who may not get at the originals.
    copies = [copy_keyring(keyring, directory, f"keyring-{number}") for number, keyring in enumerate(keyrings)]
    lines = [source.host_line(arch, copies) for source in sources]
    (directory / "sources.list").write_text("\n".join(lines) + "\n")
    _with_patience(["apt-get", "--quiet", "--error-on=any", "update"], directory, sources, None)
    releases, origins, dates = [], [], []
    for source in sources:
        path = release_file(directory / "lists", source)
        fields = _release_fields(path)
        try:
            date = email.utils.parsedate_to_datetime(fields["Date"]).astimezone(datetime.UTC)
        except (KeyError, ValueError) as error:
            raise FetchError(f"The index of '{source.name}' has no date that can be read.") from error
        releases.append(SourceIndex(uri=source.host_uri, suite=source.suite, date=date.strftime(DATE),
                                    sha256=sha256_file(path)))
        origins.append(fields.get("Origin", ""))
        dates.append(int(date.timestamp()))
    return Indices(directory=directory, arch=arch, sources=tuple(sources), keyrings=tuple(copies),
                   releases=tuple(releases), origins=tuple(origins), epoch=max(dates), pool=pool)


def _private_apt(scratch: Path, arch: str) -> Path:
    """A new directory in which apt knows nothing of this machine but its proxies."""
    directory = scratch / f"apt-{arch}"
    for name in ("lists/partial", "archives/partial", "empty"):
        (directory / name).mkdir(parents=True)
    (directory / "status").write_bytes(b"")
    (directory / "apt.conf").write_text(_configuration(directory, arch))
    return directory


def copy_keyring(keyring: Path, directory: Path, stem: str) -> Path:
    """A copy that everybody can read, under a name that apt reads: .asc for armoured keys, .gpg for others."""
    data = keyring.read_bytes()
    copy = directory / f"{stem}.{'asc' if data.lstrip().startswith(b'-----BEGIN') else 'gpg'}"
    copy.write_bytes(data)
    copy.chmod(0o644)
    return copy


def release_file(lists: Path, source: Source) -> Path:
    """A source's signed index among apt's lists. Raises FetchError."""
    stem = list_stem(source)
    for name in ("InRelease", "Release"):
        if (lists / (stem + name)).is_file():
            return lists / (stem + name)
    raise FetchError(f"The source '{source.name}' has left no index.", hint=_way_on(source))


def parse_date(text: str) -> float:
    """Seconds since 1970 of a date as SourceIndex has it."""
    return datetime.datetime.strptime(text, DATE).replace(tzinfo=datetime.UTC).timestamp()


def list_prefix(uri: str) -> str:
    """What the names of an archive's lists begin with (apt's URItoFileName: no scheme, '/' and some others quoted)."""
    rest = re.sub(r"^[a-z]+:(?://)?", "", uri)
    # apt quotes the characters \\|{}[]<>"^~_=!@#$%^&* by %hex, then turns '/' into '_'.
    quoted = "".join(f"%{ord(char):02x}" if char in '\\|{}[]<>"^~_=!@#$%&*' else char for char in rest)
    return quoted.replace("/", "_")


def list_stem(source: Source) -> str:
    """What the names of a source's lists begin with."""
    return list_prefix(source.host_uri) + "_dists_" + source.suite.replace("/", "_") + "_"


def stanzas(path: Path) -> Iterator[dict[str, str]]:
    """The paragraphs of a Packages file or of dpkg's status."""
    with path.open(encoding="utf-8", errors="replace") as file:
        yield from paragraphs(file)


def paragraphs(lines: Iterable[str]) -> Iterator[dict[str, str]]:
    """Control data (deb822(5)) by paragraphs, fields that go on in further lines cut to the first."""
    entry: dict[str, str] = {}
    for line in lines:
        if not line.strip():
            if entry:
                yield entry
            entry = {}
        elif line[0] not in " \t":
            name, _, value = line.partition(":")
            entry[name] = value.strip()
    if entry:
        yield entry


def _release_fields(path: Path) -> dict[str, str]:
    """The one-line fields of a Release or InRelease file (its signature was checked by apt)."""
    fields: dict[str, str] = {}
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        if line.startswith("-----BEGIN PGP SIGNATURE"):
            break
        name, colon, value = line.partition(": ")
        if colon and name[:1] not in ("", " ", "\t"):
            fields.setdefault(name, value.strip())
    return fields


def proxies() -> dict[str, str]:
    """The proxies that this machine's apt is configured to use (``Acquire::http::Proxy`` and the like)."""
    dump = process.run(["apt-config", "dump"], timeout=60, check=False).stdout.decode(errors="replace")
    found = re.findall(r'^(Acquire::https?::Proxy(?:::[^ ]+)?) "([^"]*)";$', dump, re.MULTILINE)
    # Whatever proxy there is, this machine is not behind it.
    return {name: value for name, value in found if value} | {f"Acquire::{scheme}::Proxy::{host}": "DIRECT"
                                                              for scheme in ("http", "https")
                                                              for host in ("127.0.0.1", "localhost")}


def _configuration(directory: Path, arch: str) -> str:
    """The whole configuration of our private apt (apt.conf(5))."""
    values: Mapping[str, str] = {
        "Dir::Etc": f"{directory}/empty", "Dir::Etc::SourceList": f"{directory}/sources.list",
        "Dir::Etc::SourceParts": f"{directory}/empty", "Dir::Etc::Parts": f"{directory}/empty",
        "Dir::Etc::Main": f"{directory}/empty/none", "Dir::Etc::Trusted": f"{directory}/empty/none",
        "Dir::Etc::TrustedParts": f"{directory}/empty", "Dir::Etc::Preferences": f"{directory}/empty/none",
        "Dir::Etc::PreferencesParts": f"{directory}/empty", "Dir::Etc::netrc": f"{directory}/empty/none",
        "Dir::Etc::netrcparts": f"{directory}/empty", "Dir::State": str(directory),
        "Dir::State::lists": f"{directory}/lists", "Dir::State::status": f"{directory}/status",
        "Dir::Cache": f"{directory}", "Dir::Cache::archives": f"{directory}/archives", "Dir::Log": f"{directory}",
        "APT::Architecture": arch, "APT::Architectures": arch,
        "Acquire::Languages": "none", "Acquire::PDiffs": "false", "Acquire::Retries": "3",
        "Acquire::IndexTargets::deb::Contents-deb::DefaultEnabled": "false",
        "Acquire::IndexTargets::deb::DEP-11::DefaultEnabled": "false",
        "APT::Get::List-Cleanup": "true", "Acquire::GzipIndexes": "false", **proxies(),
    }
    return "".join(f'{name} "{value}";\n' for name, value in values.items())


def _environment(directory: Path) -> dict[str, str]:
    return {"APT_CONFIG": str(directory / "apt.conf"), "TMPDIR": str(directory), "DEBIAN_FRONTEND": "noninteractive"}


def _with_patience(argv: Sequence[str], directory: Path, sources: Sequence[Source], cwd: Path | None) -> None:
    """Run apt, and again after a pause when it failed by something that may be over then. Raises FetchError."""
    for seconds in (*PAUSES, None):
        done = process.run(argv, env=_environment(directory), cwd=cwd, timeout=PATIENCE, check=False)
        if done.status == 0:
            return
        said = (done.stdout + b"\n" + done.stderr).decode(errors="replace")
        if seconds is None or not transient(said):
            raise failure(said, sources)
        progress.say(f"{failure(said, sources)} Trying again in {seconds:g} s ...")
        pause(seconds)


def pause(seconds: float) -> None:
    """Wait before the next attempt."""
    time.sleep(seconds)


def transient(said: str) -> bool:
    """Whether what apt said may be over in a moment."""
    return _TRANSIENT.search(said) is not None


def failure(said: str, sources: Sequence[Source]) -> FetchError:
    """The error for a failed apt: which source failed, why, and how to go on without it."""
    reasons = _reasons(said)
    failed: list[tuple[Source, str]] = []
    for source in sources:
        marks = tuple(mark for uri in (source.host_uri, "copy:" + source.host_uri.removeprefix("file:"))
                      for mark in (f"{uri}/dists/{source.suite}/", f"{uri} {source.suite} "))
        why = [reason for where, reason in reasons if any(mark in f"{where} " for mark in marks)]
        if not why and not any(source.host_uri == other.host_uri for other, _ in failed):
            # Packages lie in one pool, whichever suite of the archive they belong to.
            why = [reason for where, reason in reasons if f"{source.host_uri.removeprefix('file:')}/pool/" in where]
        if why:
            failed.append((source, next((reason for reason in why if reason), "apt does not say why")))
    if not failed:
        last = next((reason or where for where, reason in reasons), (said.strip().splitlines() or ["no word"])[-1])
        return FetchError(f"Fetching from the archive failed: {last.strip().rstrip('.')}.",
                          hint="Try again later, or use another archive: --mirror URL.")
    source, reason = failed[0]
    others = "".join(f" So did '{other.name}'." for other, _ in failed[1:])
    hint = _way_on(*(other for other, _ in failed))
    if re.search("NO_PUBKEY|BADSIG|EXPKEYSIG|KEYEXPIRED|signatures", reason):
        hint = "Its keys are in another keyring, or a newer one: install that, or name it with --keyring FILE. " + hint
    return FetchError(f"The source '{source.name}' failed: {reason.rstrip('.')}.{others}", hint=hint)


def _reasons(said: str) -> list[tuple[str, str]]:
    """apt's failures: what failed, and why, which may be empty.

    apt says both on one line, two spaces or a colon between them, or the reason on the next line, indented.
    """
    lines = said.splitlines()
    found = []
    for number, line in enumerate(lines):
        matched = _FAILED.match(line)
        if matched is None:
            continue
        below = lines[number + 1].strip() if line.startswith("Err:") and number + 1 < len(lines) else ""
        text = matched[1].strip()
        where, _, why = (text, "", below) if below else text.partition(": " if line[1:].startswith(": GPG") else "  ")
        found.append((where.strip("'"), re.sub(r"\s+", " ", why).strip()[:400]))
    # What is known with its reason says more than what is not.
    return sorted(found, key=lambda pair: not pair[1])


def _way_on(*failed: Source) -> str:
    if all(source.pocket for source in failed):
        without = " ".join(f"--without {pocket}" for pocket in sorted({source.pocket for source in failed}))
        return f"A mirror may be out of step for minutes or hours. Try again later, or go on without it: '{without}'."
    return "Try again later, or use another archive: --mirror URL."
