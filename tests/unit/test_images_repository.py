"""The archive of given packages: what apt reads there depends on the packages alone, and only on what they are."""

from __future__ import annotations

import os
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gitian.errors import EnvironmentUnavailableError
from gitian.formats.image_record import InstalledPackage
from gitian.host.hashing import sha256_file
from gitian.images.archive import stanzas
from gitian.images.repository import EARLIEST, LATEST, Repository, epoch_of, make_repository
from gitian.names import parse_deb_name
from tests.fakes.archive import MOMENT, make_deb

Debs = dict[InstalledPackage, Path]


def described(deb: Path) -> InstalledPackage:
    found = parse_deb_name(deb.name)
    assert found is not None
    return InstalledPackage(name=found[0], version=found[1], architecture=found[2], sha256=sha256_file(deb))


@pytest.fixture(scope="module")
def debs(tmp_path_factory: pytest.TempPathFactory) -> Debs:
    room = tmp_path_factory.mktemp("debs")
    made = [make_deb(room, "tiny-base", "1:2.0", arch="amd64", essential=True), make_deb(room, "apt"),
            make_deb(room, "libtiny", arch="amd64", fields={"Multi-Arch": "same"}),
            make_deb(room, "libtiny", arch="i386", fields={"Multi-Arch": "same"}),
            make_deb(room, "liar", fields={"Filename": "pool/../../../etc/passwd", "SHA256": "0" * 64})]
    return {described(deb): deb for deb in made}


@pytest.fixture
def archive(debs: Debs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Repository]:
    home = tmp_path / "home"
    home.mkdir()
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.delenv("GNUPGHOME", raising=False)
    yield make_repository(debs, tmp_path / "archive", suite="noble", architecture="amd64")
    assert list(home.iterdir()) == [], "the user's keyring is not ours"


def signed_text(repository: Repository) -> bytes:
    """What gpgv gives for the InRelease file, checked with the archive's key and no other."""
    return subprocess.run(["gpgv", "--quiet", "--keyring", repository.keyring, "--output", "-",
                           repository.directory / "dists" / repository.suite / "InRelease"],
                          check=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL).stdout


def test_apt_s_own_view(archive: Repository, debs: Debs) -> None:
    """apt itself updates from it, verifies the signature, and gives each package's file with its hash."""
    room = archive.directory.parent / "apt"
    for place in ("lists/partial", "archives/partial", "empty"):
        (room / place).mkdir(parents=True)
    (room / "status").write_bytes(b"")
    (room / "sources.list").write_text(
        f"deb [arch=amd64,i386 signed-by={archive.keyring}] file:{archive.directory} noble main\n")
    (room / "apt.conf").write_text("".join(f'{name} "{value}";\n' for name, value in {
        "Dir::Etc": room / "empty", "Dir::Etc::SourceList": room / "sources.list", "Dir::State": room,
        "Dir::State::lists": room / "lists", "Dir::State::status": room / "status", "Dir::Cache": room,
        "Dir::Etc::Trusted": room / "none", "Dir::Etc::TrustedParts": room / "empty",
        "APT::Architecture": "amd64", "APT::Architectures": "amd64,i386", "APT::Sandbox::User": "root"}.items()))

    def apt(*words: str) -> str:
        return subprocess.run(["apt-get", "-qq", *words], check=True, stdout=subprocess.PIPE, stdin=subprocess.DEVNULL,
                              env={"PATH": os.environ["PATH"], "APT_CONFIG": str(room / "apt.conf")}).stdout.decode()

    apt("--error-on=any", "update")
    said = apt("-o", "Acquire::ForceHash=SHA256", "--print-uris", "install", "tiny-base", "apt", "liar",
               "libtiny:amd64", "libtiny:i386")
    found = {line.split("SHA256:")[1]: line.split("'")[1] for line in said.splitlines()}
    assert found == {package.sha256: f"file:{archive.directory}/pool/{package.file_name.replace('%', '%25')}"
                     for package in debs}


def test_it_depends_on_the_packages_alone(archive: Repository, debs: Debs, tmp_path: Path) -> None:
    copies = {}
    for number, (package, deb) in enumerate(reversed(debs.items())):
        copy = tmp_path / f"{number}.bin"  # other names, another order, other dates
        copy.write_bytes(deb.read_bytes())
        os.utime(copy, (number, number))
        copies[package] = copy
    again = make_repository(copies, tmp_path / ("long" * 30) / "archive", suite="noble", architecture="amd64")
    assert signed_text(again) == signed_text(archive)
    assert again.keyring.read_bytes() != archive.keyring.read_bytes()
    assert (again.epoch, sorted(again.essential)) == (int(MOMENT.timestamp()), ["tiny-base"])
    assert again.architectures == ("amd64", "i386")
    assert not list(archive.directory.glob("key-*"))


def test_the_key_lies_where_it_is_swept(debs: Debs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A signer that is killed leaves a key's directory, and beside the archive somebody removes it."""
    seen = []

    def make(prefix: str, dir: Path) -> str:
        seen.append(dir)
        return real(prefix=prefix, dir=dir)

    real = tempfile.mkdtemp
    monkeypatch.setattr("gitian.images.repository.tempfile.mkdtemp", make)
    directory = tmp_path / ("long" * 30) / "archive"
    made = make_repository(debs, directory, suite="noble", architecture="amd64")
    assert signed_text(made)
    assert seen == [directory] and not list(directory.glob("key-*"))


def test_a_package_is_not_unpacked_to_be_described(debs: Debs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its control archive may hold gigabytes."""
    monkeypatch.setenv("TMPDIR", str(tmp_path / "none"))
    make_repository(debs, tmp_path / "archive", suite="noble", architecture="amd64")
    assert not (tmp_path / "none").exists()


def test_what_an_archive_adds_is_not_believed_of_a_package(archive: Repository, debs: Debs) -> None:
    entries = {entry["Package"] + ":" + entry["Architecture"]: entry
               for entry in stanzas(archive.directory / "dists/noble/main/binary-amd64/Packages")}
    assert set(entries) == {"tiny-base:amd64", "apt:all", "libtiny:amd64", "liar:all"}
    liar = next(package for package in debs if package.name == "liar")
    assert (entries["liar:all"]["Filename"], entries["liar:all"]["SHA256"]) == ("pool/liar_1.0_all.deb", liar.sha256)
    text = (archive.directory / "dists/noble/main/binary-amd64/Packages").read_text()
    assert "passwd" not in text and text.count("\nFilename: ") == 4


def test_a_package_s_file_that_is_another_is_refused(debs: Debs, tmp_path: Path) -> None:
    package = next(package for package in debs if package.name == "apt")
    changed = tmp_path / "changed.deb"
    data = bytearray(debs[package].read_bytes())
    data[-700] ^= 1
    changed.write_bytes(data)
    with pytest.raises(EnvironmentUnavailableError, match=r"apt_1\.0_all\.deb \(its sha256 is [0-9a-f]{64}, not "):
        make_repository({**debs, package: changed}, tmp_path / "archive", suite="noble", architecture="amd64")


@pytest.mark.parametrize(("name", "version", "message"), [
    ("apt", "2.0", "calls itself 'apt 1.0 all'"), ("dpkg", "1.0", "calls itself 'apt 1.0 all'"),
    ("Apt", "1.0", "is no name of a package"), ("apt", "1.0/../..", "is no version of a package")])
def test_a_record_that_calls_a_package_by_another_name_is_refused(debs: Debs, tmp_path: Path, name: str, version: str,
                                                                  message: str) -> None:
    package = next(package for package in debs if package.name == "apt")
    other = InstalledPackage(name=name, version=version, architecture="all", sha256=package.sha256)
    with pytest.raises(EnvironmentUnavailableError, match=message):
        make_repository({other: debs[package]}, tmp_path / "archive", suite="noble", architecture="amd64")


def test_what_is_no_package_is_refused(tmp_path: Path) -> None:
    deb = tmp_path / "apt_1.0_all.deb"
    deb.write_bytes(b"!<arch>\nnothing")
    with pytest.raises(EnvironmentUnavailableError, match=r"'apt_1\.0_all\.deb' is no"):
        make_repository({described(deb): deb}, tmp_path / "archive", suite="noble", architecture="amd64")


@given(dates=st.lists(st.integers(0, 10**12 - 1), min_size=1, max_size=4), sizes=st.lists(st.integers(0, 9), min_size=4,
                                                                                         max_size=4))
def test_the_date_is_the_newest_within_bounds(tmp_path_factory: pytest.TempPathFactory, dates: list[int],
                                              sizes: list[int]) -> None:
    data = b"!<arch>\n"
    for date, size in zip(dates, sizes, strict=False):
        data += b"%-16s%-12d%-6d%-6d%-8s%-10d`\n" % (b"member", date, 0, 0, b"100644", size) + b"x" * (size + size % 2)
    deb = tmp_path_factory.mktemp("ar") / "x.deb"
    deb.write_bytes(data)
    assert epoch_of(deb) == min(max(*dates, EARLIEST), LATEST)
