"""A signed archive of given packages and no others, in a directory: what an exact image is made from.

The layout and the fields are those of every apt archive (https://wiki.debian.org/DebianRepository/Format). The key that
signs it exists while it signs and no longer: what counts is that apt finds the indices whole, and the packages to be
what the indices say.
"""

from __future__ import annotations

import contextlib
import datetime
import os
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from gitian.errors import EnvironmentUnavailableError, GitianError, ImageError
from gitian.formats.environment import by_file_name
from gitian.formats.image_record import InstalledPackage
from gitian.host import process
from gitian.host.hashing import sha256_bytes, sha256_files
from gitian.images import debfile
from gitian.names import check_package

#: Between these the date of a package's file is believed (seconds since 1970): dpkg's first year, and the largest time
#: that old file systems know.
EARLIEST, LATEST = 757382400, 2**31 - 1
#: A package has three members and may have some more, whose names begin with '_' (deb(5)).
_MEMBERS = 16
#: The control fields that an archive adds. Where the package's own file has them they would contradict it.
_ADDED = ("filename", "size", "md5sum", "sha1", "sha256", "sha512", "status")
_PATIENCE = 120.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Repository:
    """An archive in ``directory``, signed with a key in ``keyring`` (a file in it).

    ``epoch`` is its date, in seconds since 1970; ``essential`` are the names of the essential packages.
    """

    directory: Path
    suite: str
    architectures: tuple[str, ...]
    epoch: int
    packages: tuple[InstalledPackage, ...]
    essential: frozenset[str]

    @property
    def keyring(self) -> Path:
        """The public key, as apt reads it."""
        return self.directory / KEYRING

    def hashes(self) -> dict[tuple[str, str, str], str]:
        """(package, version, architecture) -> sha256 of its .deb."""
        return {(package.name, package.version, package.architecture): package.sha256 for package in self.packages}


KEYRING = "archive-key.gpg"


def make_repository(debs: Mapping[InstalledPackage, Path], directory: Path, *, suite: str,
                    architecture: str) -> Repository:
    """Make an archive of these packages in ``directory``, which is new. The files are copied, and checked as they are.

    Raises EnvironmentUnavailableError, which names each file that is not the package it should be; ProgramError,
    MissingToolError.
    """
    pool = directory / "pool"
    pool.mkdir(parents=True)
    packages = by_file_name(debs)
    for package in packages:
        try:
            check_package(package.name, package.version, package.architecture)
        except ValueError as error:
            raise EnvironmentUnavailableError(f"The environment has a package that cannot be one: {error}.") from error
        # Never a link: whoever installs them could write to the original.
        shutil.copyfile(debs[package], pool / package.file_name)
        (pool / package.file_name).chmod(0o644)
    paths = [pool / package.file_name for package in packages]
    _refuse_others(packages, sha256_files(paths))
    with ThreadPoolExecutor(max_workers=min(8, 2 * len(os.sched_getaffinity(0)))) as workers:
        stanzas = list(workers.map(_stanza, packages, paths))
    foreign = sorted({package.architecture for package in packages} - {architecture, "all"})
    repository = Repository(
        directory=directory, suite=suite, architectures=(architecture, *foreign), epoch=max(map(epoch_of, paths)),
        packages=packages, essential=frozenset(package.name for package, text in zip(packages, stanzas, strict=True)
                                               if "\nessential: yes\n" in text.lower()))
    _write_indices(repository, stanzas)
    return repository


def epoch_of(deb: Path) -> int:
    """The newest date in a package's own headers (ar(5)), bounded: it does not depend on who made a copy, or when.

    Raises EnvironmentUnavailableError.
    """
    with deb.open("rb") as file:
        dates = _member_dates(file, deb.stat().st_size)
    if not dates:
        raise EnvironmentUnavailableError(f"'{deb.name}' is no Debian package.")
    return min(max(EARLIEST, *dates), LATEST)


def _member_dates(file: IO[bytes], end: int) -> list[int]:
    if file.read(8) != b"!<arch>\n":
        return []
    dates = []
    for _ in range(_MEMBERS):
        header = file.read(60)
        if len(header) < 60 or header[58:] != b"`\n":
            break
        date, size = header[16:28].rstrip(b" "), header[48:58].rstrip(b" ")
        if date.isdigit():
            dates.append(int(date))
        if not size.isdigit() or file.tell() + int(size) >= end:
            break
        file.seek(int(size) + int(size) % 2, os.SEEK_CUR)
    return dates


def _refuse_others(packages: Sequence[InstalledPackage], hashes: Sequence[str]) -> None:
    wrong = [f"{package.file_name} (its sha256 is {have}, not {package.sha256})"
             for package, have in zip(packages, hashes, strict=True) if have != package.sha256]
    if wrong:
        more = f" and {len(wrong) - 5} more" if len(wrong) > 5 else ""
        raise EnvironmentUnavailableError(f"Files are not the packages that they should be: "
                                          f"{', '.join(wrong[:5])}{more}.",
                                          hint="Were they changed after they had been found? Try again.")


def _stanza(package: InstalledPackage, deb: Path) -> str:
    """What an index says of a package: its own control fields, and where its file is and what it has."""
    try:
        text = debfile.control(deb).decode(errors="replace")
    except ImageError as error:
        raise EnvironmentUnavailableError(str(error)) from error
    if "\0" in text:
        raise EnvironmentUnavailableError(f"The control file of '{deb.name}' holds a zero byte.")
    kept, fields, keep = [], dict[str, str](), True
    for line in text.splitlines():
        if not line.strip():
            continue
        if line[0] not in " \t":
            name, _, value = line.partition(":")
            keep = name.strip().lower() not in _ADDED
            fields[name.strip().lower()] = value.strip()
        if keep:
            kept.append(line)
    found = tuple(fields.get(name, "") for name in ("package", "version", "architecture"))
    if found != (package.name, package.version, package.architecture):
        raise EnvironmentUnavailableError(f"The file with the hash of '{package.file_name}' calls itself "
                                          f"'{' '.join(found)}'.",
                                          hint="The environment's record is wrong: ask whoever wrote it.")
    return "\n".join([*kept, f"Filename: pool/{deb.name}", f"Size: {deb.stat().st_size}",
                      f"SHA256: {package.sha256}"]) + "\n"


def _write_indices(repository: Repository, stanzas: Sequence[str]) -> None:
    top = repository.directory / "dists" / repository.suite
    sums = []
    for architecture in repository.architectures:
        path = top / "main" / f"binary-{architecture}" / "Packages"
        path.parent.mkdir(parents=True)
        data = "\n".join(text for package, text in zip(repository.packages, stanzas, strict=True)
                         if package.architecture in (architecture, "all")).encode()
        path.write_bytes(data)
        sums.append(f" {sha256_bytes(data)} {len(data)} {path.relative_to(top)}\n")
    date = datetime.datetime.fromtimestamp(repository.epoch, datetime.UTC).strftime("%a, %d %b %Y %H:%M:%S UTC")
    release = (f"Origin: gitian\nLabel: gitian\nSuite: {repository.suite}\nCodename: {repository.suite}\nDate: {date}\n"
               f"Architectures: {' '.join(repository.architectures)}\nComponents: main\nSHA256:\n" + "".join(sums))
    signed, key = _sign(release.encode(), repository.directory)
    (top / "InRelease").write_bytes(signed)
    repository.keyring.write_bytes(key)


def _sign(text: bytes, near: Path) -> tuple[bytes, bytes]:
    """Sign with a key made for it alone; the signed text and the public key. The key is gone afterwards.

    It lies beside the archive, which is swept whatever happens. The name of a socket has 107 bytes at most (unix(7)),
    and those of the agent lie beside the key: programs are told a name for it that is short wherever it lies.
    """
    home = Path(tempfile.mkdtemp(prefix="key-", dir=near))
    number = os.open(home, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    short = f"/proc/{os.getpid()}/fd/{number}"
    try:
        gpg = ["gpg", "--homedir", short, "--batch", "--no-tty", "--no-options", "--quiet", "--no-autostart",
               "--pinentry-mode", "loopback", "--passphrase", ""]
        # The agent ends by itself a moment after the program that it was started with, even one that was killed.
        script = ('set -e; "$@" --quick-generate-key archive ed25519 sign never\n'
                  '"$@" --export --output "$0/key"; "$@" --clearsign --output "$0/signed" "$0/text"')
        (home / "text").write_bytes(text)
        process.run(["gpg-agent", "--homedir", short, "--quiet", "--daemon", "--", "sh", "-c", script, short, *gpg],
                    timeout=_PATIENCE, tied=True)
        return (home / "signed").read_bytes(), (home / "key").read_bytes()
    finally:
        with contextlib.suppress(GitianError):
            process.run(["gpgconf", "--homedir", short, "--kill", "all"], check=False, timeout=_PATIENCE)
        shutil.rmtree(home, ignore_errors=True)
        os.close(number)
