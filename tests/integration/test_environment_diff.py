"""gitian environment diff --archive: against an archive made for the test, fetched and checked by apt itself."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from gitian.formats.environment import Environment, EnvironmentFile, by_file_name
from gitian.formats.image_record import InstalledPackage
from gitian.formats.report import Report
from gitian.guest.protocol import HOST_ADDRESS
from gitian.images.offers import offers, own_sources
from tests.fakes.archive import Archive, make_deb
from tests.integration.conftest import Commands


@dataclass(frozen=True, kw_only=True)
class Place:
    """An archive that is served, and what was installed from its first state."""

    archive: Archive
    uri: str
    before: tuple[InstalledPackage, ...]
    newer: Path


def taken(deb: Path) -> InstalledPackage:
    name, version, architecture = deb.stem.split("_")
    return InstalledPackage(name=name, version=version.replace("%3a", ":"), architecture=architecture,
                            sha256=hashlib.sha256(deb.read_bytes()).hexdigest())


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    """Bash has a security update since, git an epoch more, gone is gone, tzdata is as it was, libc6 has a sister."""
    room = tmp_path_factory.mktemp("archive")
    old, new = room / "old", room / "new"
    before = [make_deb(old, "bash", "5.2-1", arch="amd64"), make_deb(old, "git", "9.0", arch="amd64"),
              make_deb(old, "gone", "1.0"), make_deb(old, "tzdata", "2024a"),
              make_deb(old, "libc6", "2.36", arch="amd64"), make_deb(old, "libc6", "2.36", arch="i386")]
    archive = Archive(room / "archive")
    try:
        for suite in ("bookworm", "bookworm-updates", "bookworm-security"):
            archive.add_suite(suite, architectures=("amd64", "i386"))
        for deb in (before[0], before[3], before[4], before[5], make_deb(new, "git", "1:2.0", arch="amd64"),
                    make_deb(new, "unused", "1.0")):
            archive.add_deb(deb, "bookworm")
        newer = make_deb(new, "bash", "5.2-1+deb12u1", arch="amd64")
        archive.add_deb(newer, "bookworm-security")
        archive.add_deb(make_deb(new, "libc6", "2.37", arch="i386"), "bookworm-updates")
        archive.publish()
        with archive.serve("/debian") as uri:
            yield Place(archive=archive, uri=uri, before=by_file_name(map(taken, before)), newer=newer)
    finally:
        archive.close()


def environment(place: Place, *, sources: bool) -> Environment:
    """As a guest states it, which reaches this machine under another address; a stranger's repository besides."""
    uri = place.uri.replace("127.0.0.1", HOST_ADDRESS)
    lines = tuple(f"deb {uri} bookworm{pocket} main" for pocket in ("", "-updates", "-security"))
    return Environment(distro="debian", suite="bookworm", architecture="amd64", packages=place.before,
                       sources=(*lines, "deb [trusted=yes] http://127.0.0.1:9/ppa bookworm main") if sources else ())


def diff(commands: Commands, place: Place, path: Path, *words: str) -> subprocess.CompletedProcess[str]:
    return commands.run("environment", "diff", path, "--archive", "--keyring", place.archive.keyring, *words,
                        check=False)


ALL = """\
bookworm-amd64: 6 packages -> 5 packages
  ~ bash   5.2-1 -> 5.2-1+deb12u1 (amd64)
  ~ git    9.0 -> 1:2.0 (amd64)
  - gone   1.0 (all)
  ~ libc6  2.36 -> 2.37 (i386)
0 packages added, 1 removed, 3 changed
"""


def test_what_the_archive_of_the_environment_gives_today(commands: Commands, place: Place, tmp_path: Path) -> None:
    path = tmp_path / "blessed.json"
    path.write_bytes(EnvironmentFile(environments=(environment(place, sources=True),)).to_json())
    done = diff(commands, place, path)
    assert (done.returncode, done.stdout) == (1, ALL), done.stderr
    assert "http://127.0.0.1:9/ppa" in done.stderr  # said to be left out; nothing answers there
    done = diff(commands, place, path, "--without", "security", "--json")
    changes = json.loads(done.stdout)["targets"][0]["changes"]
    assert [(change["name"], change["new"]) for change in changes] == [
        ("git", "1:2.0"), ("gone", None), ("libc6", "2.37")]


def test_a_report_is_compared_with_the_mirror_that_is_named(commands: Commands, place: Place, tmp_path: Path) -> None:
    """Nothing in it says which distribution; its suite does."""
    one = environment(place, sources=False)
    path = tmp_path / "hello-res.yml"
    path.write_text(Report(out_manifest="", in_manifest="",
                           base_manifests=(("bookworm-linux64", one.manifest()),)).to_yaml())
    words = ("--mirror", place.uri, "--security-mirror", place.uri)
    done = diff(commands, place, path, *words)
    assert (done.returncode, done.stdout) == (1, ALL), done.stderr
    archived = [package for package in place.before if package.name in ("tzdata", "libc6", "bash")
                and package.architecture != "i386"]
    path.write_bytes(EnvironmentFile(environments=(replace(one, packages=tuple(archived)),)).to_json())
    done = diff(commands, place, path, *words, "--without", "security")
    assert (done.returncode, done.stdout) == (0, "No difference in 1 environment.\n"), done.stderr


def test_what_is_a_security_update_is_known(place: Place, tmp_path: Path) -> None:
    sources, others = own_sources(environment(place, sources=True).sources, "bookworm", HOST_ADDRESS)
    asked = offers(sources, "amd64", [place.archive.keyring], tmp_path)
    found = {(one.name, one.version, one.security) for one in asked}
    assert found == {("bash", "5.2-1", False), ("bash", "5.2-1+deb12u1", True), ("git", "1:2.0", False),
                     ("libc6", "2.36", False), ("tzdata", "2024a", False), ("unused", "1.0", False)}
    assert len(others) == 1


def test_an_archive_that_nobody_has_signed_or_that_is_another_is_no_answer(commands: Commands, place: Place,
                                                                          tmp_path: Path) -> None:
    path = tmp_path / "blessed.json"
    path.write_bytes(EnvironmentFile(environments=(environment(place, sources=True),)).to_json())
    nobody = tmp_path / "nobody.gpg"
    nobody.write_bytes(b"")
    done = commands.run("environment", "diff", path, "--archive", "--keyring", nobody, check=False)
    assert (done.returncode, done.stdout) == (12, ""), done.stderr
    stranger = replace(environment(place, sources=True), packages=(replace(place.before[0], name="stranger"),))
    path.write_bytes(EnvironmentFile(environments=(stranger,)).to_json())
    done = diff(commands, place, path)
    assert done.returncode == 16 and "none of the packages of 'bookworm-amd64'" in done.stderr


def test_an_architecture_that_no_guest_has_is_not_asked_for(commands: Commands, place: Place, tmp_path: Path) -> None:
    path = tmp_path / "blessed.json"
    odd = tuple(replace(place.before[0], architecture=f"odd{number}", sha256=f"{number:064x}") for number in range(30))
    one = environment(place, sources=True)
    one = replace(one, packages=by_file_name((*one.packages, *odd)))
    path.write_bytes(EnvironmentFile(environments=(one,)).to_json())
    done = diff(commands, place, path)
    assert done.returncode == 1, done.stderr
    assert done.stderr.count("Asking the archive") <= 2 * 2  # of amd64 and i386, its beginning and its end
    assert done.stdout.count("  - bash") == 30


def test_nothing_is_left(commands: Commands, place: Place, tmp_path: Path) -> None:
    path, room = tmp_path / "blessed.json", tmp_path / "room"
    room.mkdir(mode=0o755)
    path.write_bytes(EnvironmentFile(environments=(environment(place, sources=True),)).to_json())
    own = room / f"gitian-{os.geteuid()}"
    (own / "0123456789ab" / "d" / "lists").mkdir(parents=True)  # of one that was killed
    done = commands.run("environment", "diff", path, "--archive", "--keyring", place.archive.keyring, check=False,
                        env={"TMPDIR": str(room)})
    assert done.returncode == 1, done.stderr
    assert os.listdir(room) == [own.name]
    assert os.listdir(own) == [".guard"]
