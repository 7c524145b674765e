"""make-base-vm with real tools: against a test's own archive with a tiny distro, and, once, against the real one."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from gitian.errors import FetchError, ImageError
from gitian.guest.protocol import DNS_ADDRESS, HOSTNAME, LOCALE, USER_ID
from gitian.images import archive as archives
from gitian.images import lxc
from gitian.images.distros import PACKAGES
from gitian.images.lookup import find_image
from gitian.images.sources import Source, SourceOptions, find_sources
from tests.fakes import tiny_distro
from tests.fakes.archive import Archive, make_deb
from tests.integration.conftest import ROOT, SYSTEM_PATH, Commands, made

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="reads files that shifted ids own")


# The tiny distro: everything but Debian itself --------------------------------------------------------------------


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Archive]:
    """An archive of a tiny 'Ubuntu', with pockets."""
    room = tmp_path_factory.mktemp("tiny")
    archive = Archive(room / "archive")
    debs = tiny_distro.packages(room / "debs", PACKAGES, "amd64")
    tiny_distro.fill(archive, "noble", debs, origin="Ubuntu", arch="amd64", components=("main", "universe"),
                     pockets=("-updates", "-security"))
    archive.add_deb(make_deb(room / "debs", "wget", "1.0+security", files={"/usr/share/newer": b""}), "noble-security")
    archive.publish()
    yield archive
    archive.close()


@pytest.fixture
def room(tmp_path: Path) -> Iterator[Path]:
    """A directory for base images, emptied afterwards also of what shifted ids own."""
    directory = tmp_path / "images"
    directory.mkdir()
    yield directory
    for entry in directory.iterdir():
        lxc.remove(entry)


def make_tiny(commands: Commands, archive: Archive, room: Path, *words: str, uri: str, check: bool = True,
              env: Mapping[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    return commands.run("make-base-vm", "--suite", "noble", "--lxc", "--mirror", uri, "--keyring", archive.keyring,
                        *words, env={"GITIAN_IMAGES": str(room), **(env or {})}, cwd=room, check=check)


def record_of(room: Path, name: str = "base-noble-amd64") -> dict[str, Any]:
    value = json.loads((room / f"{name}.json").read_text())
    assert isinstance(value, dict)
    return value


def sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def leftovers(room: Path) -> list[str]:
    return sorted(path.name for path in room.iterdir() if not path.name.endswith(".lock"))


@pytest.mark.lxc
@needs_root
def test_a_tiny_ubuntu_made_twice_is_the_same(commands: Commands, tiny: Archive, room: Path) -> None:
    with tiny.serve("/ubuntu") as uri:
        first = make_tiny(commands, tiny, room, uri=uri)
        tarball = room / "base-noble-amd64.tar"
        before = tarball.read_bytes()
        assert first.stdout == f"{hashlib.sha256(before).hexdigest()}  base-noble-amd64.tar\n"
        record = record_of(room)
        image = room / "base-noble-amd64"

        # The guest reaches this machine under another address; what lies in apt's lists is named after it.
        guest_uri = uri.replace("127.0.0.1", "10.0.2.2")
        lines = [f"deb {guest_uri} {suite} main universe" for suite in ("noble", "noble-updates", "noble-security")]
        assert (image / "etc/apt/sources.list").read_text().splitlines() == lines == record["sources"]
        lists = [path.name for path in (image / "var/lib/apt/lists").glob("*_InRelease")]
        assert sorted(lists) == sorted(f"{guest_uri.removeprefix('http://').replace('/', '_')}_dists_{suite}_InRelease"
                                       for suite in ("noble", "noble-updates", "noble-security"))
        assert (image / "etc/apt/trusted.gpg.d/gitian-archive.gpg").read_bytes() == tiny.keyring.read_bytes()

        assert (record["distro"], record["suite"], record["architecture"]) == ("ubuntu", "noble", "amd64")
        assert record["mirror"] == guest_uri
        debs = {deb.name: sha256(deb) for deb in (tiny.root / "pool/main").iterdir()}
        installed = {f"{package['name']}_{package['version']}_{package['architecture']}.deb": package["sha256"]
                     for package in record["packages"]}
        assert installed == {name: debs[name] for name in installed}
        assert set(PACKAGES) < {package["name"] for package in record["packages"]}
        assert "wget_1.0+security_all.deb" in installed  # the security pocket counts
        check_contract(image, "ubuntu")

        # The same again, by another hand, in another time zone, and where apt's own user gets through, or does not.
        lxc.remove(image)
        for mode in (0o755, 0o700):
            with tempfile.TemporaryDirectory(dir="/tmp") as other:
                Path(other).chmod(mode)
                try:
                    make_tiny(commands, tiny, Path(other), uri=uri,
                              env={"TZ": "Asia/Tokyo", "LANG": "de_DE.UTF-8", "USER": "other"})
                    assert (Path(other) / tarball.name).read_bytes() == before, f"{mode:o}"
                finally:
                    lxc.remove(Path(other) / image.name)


@pytest.mark.lxc
@needs_root
def test_without_root_rights_it_makes_the_same(commands: Commands, tiny: Archive, room: Path) -> None:
    """A user with subordinate ids, whom this machine does not have: files of /etc are replaced for him alone."""
    with tiny.serve() as uri, tempfile.TemporaryDirectory(dir="/tmp") as place:
        home = Path(place)
        home.chmod(0o755)
        shutil.copy(tiny.keyring, home / "key.gpg")
        (home / "passwd").write_text(Path("/etc/passwd").read_text() + f"tester:x:1234:1234::{home}/home:/bin/sh\n")
        (home / "subids").write_text("tester:300000:65536\n")
        for name in ("home", "images"):
            (home / name).mkdir()
            os.chown(home / name, 1234, 1234)
        # The interpreter that runs this test may lie where a user cannot get at it; the machine's own does not.
        libraries = ":".join([str(ROOT / "src"), *(path for path in sys.path if path.endswith("-packages"))])
        user = ["setpriv", "--reuid=1234", "--regid=1234", "--clear-groups", "env", "-i", f"PATH={SYSTEM_PATH}",
                f"HOME={home}/home", f"PYTHONPATH={libraries}", "no_proxy=127.0.0.1", "PYTHONDONTWRITEBYTECODE=1",
                f"GITIAN_IMAGES={home}/images", "/usr/bin/python3"]
        probe = subprocess.run([*user, "-c", "import click, gitian.cli.main"], cwd=home, check=False,
                               stdin=subprocess.DEVNULL, capture_output=True)
        if probe.returncode != 0:
            pytest.skip(f"an ordinary user cannot run gitian from here: {probe.stderr[-200:].decode()}")
        script = ("set -e; mount --make-rprivate /; mount --bind subids /etc/subuid; mount --bind subids /etc/subgid; "
                  'mount --bind passwd /etc/passwd; cd home; exec "$@"')
        make = [*user, "-m", "gitian.cli.main", "make-base-vm", "--suite", "noble", "--lxc", "--mirror", uri,
                "--keyring", f"{home}/key.gpg"]
        done = subprocess.run(["unshare", "--mount", "sh", "-c", script, "sh", *make], cwd=home, check=False,
                              stdin=subprocess.DEVNULL, capture_output=True, timeout=300)
        assert done.returncode == 0, done.stderr.decode()
        image = home / "images/base-noble-amd64"
        assert image.stat().st_uid == 300000
        check_contract(image, "ubuntu")
        assert leftovers(home / "images") == ["base-noble-amd64", "base-noble-amd64.json", "base-noble-amd64.tar"]
        make_tiny(commands, tiny, room, uri=uri)
        assert sha256(home / "images/base-noble-amd64.tar") == sha256(room / "base-noble-amd64.tar")
        lxc.remove(image)


def check_contract(image: Path, user: str) -> None:
    """What the guest contract says about files (docs/reference/guest-contract.md)."""
    ids = image.stat().st_uid
    assert ids >= 65536, "root in the guest must be nobody here"
    assert (image / "etc/hostname").read_text() == f"{HOSTNAME}\n"
    assert f"127.0.1.1 {HOSTNAME}\n" in (image / "etc/hosts").read_text()
    assert (image / "etc/resolv.conf").read_text() == f"nameserver {DNS_ADDRESS}\n"
    assert (image / "etc/machine-id").read_bytes() == b""
    assert os.readlink(image / "etc/localtime") == "/usr/share/zoneinfo/Etc/UTC"
    assert (image / "etc/locale.gen").read_text() == f"{LOCALE} UTF-8\n"
    assert not list((image / "etc/ssh").glob("ssh_host_*"))
    line = next(line for line in (image / "etc/passwd").read_text().splitlines() if line.startswith(f"{user}:"))
    assert line == f"{user}:x:{USER_ID}:{USER_ID}::/home/{user}:/bin/bash"
    home = (image / "home" / user).stat()
    assert (home.st_uid - ids, home.st_mode & 0o777) == (USER_ID, 0o755)
    assert not list((image / "dev").iterdir())
    for path in [image / "etc/sudoers", *(image / "etc/sudoers.d").glob("*")]:
        assert not path.exists() or user not in path.read_text()
    assert not (image / "etc/apt/apt.conf.d/99mmdebstrap").exists()
    assert 'APT::Install-Recommends "false";' in (image / "etc/apt/apt.conf.d/90gitian").read_text()
    assert (image / "usr/sbin/policy-rc.d").read_text().endswith("exit 101\n")


@pytest.mark.lxc
@needs_root
def test_pockets_can_be_left_out(commands: Commands, tiny: Archive, room: Path) -> None:
    with tiny.serve() as uri:
        make_tiny(commands, tiny, room, "--without", "security", "--without", "updates", uri=uri)
    record = record_of(room)
    assert [line.split()[2] for line in record["sources"]] == ["noble"]
    assert "1.0" in {package["version"] for package in record["packages"] if package["name"] == "wget"}


@pytest.mark.lxc
@needs_root
def test_packages_come_from_a_directory_too(commands: Commands, tiny: Archive, room: Path) -> None:
    make_tiny(commands, tiny, room, uri=f"file://{tiny.root}")
    assert find_image(room, "noble", "amd64", "lxc", "ubuntu").record.mirror == f"file:{tiny.root}"


@pytest.mark.lxc
@needs_root
def test_an_existing_image_is_refused_and_untouched(commands: Commands, room: Path) -> None:
    image = room / "base-noble-amd64"
    image.mkdir()
    (image / "precious").write_text("mine")
    before = image.stat()
    done = commands.run("make-base-vm", "--lxc", cwd=room, check=False)  # the suite is noble by default
    assert done.returncode == 1
    assert "base-noble-amd64 already exists, please remove it first" in done.stderr
    assert (image / "precious").read_text() == "mine"
    assert (image.stat().st_mtime_ns, leftovers(room)) == (before.st_mtime_ns, ["base-noble-amd64"])

    (room / "base-noble-amd64.qcow2").write_bytes(b"a classic's disk")
    done = commands.run("make-base-vm", cwd=room, check=False)
    assert done.returncode == 1
    assert "base-noble-amd64.qcow2 already exists, please remove it first" in done.stderr
    assert (room / "base-noble-amd64.qcow2").read_bytes() == b"a classic's disk"


@pytest.mark.lxc
@needs_root
def test_killed_half_way_it_leaves_nothing_to_be_taken_for_an_image(commands: Commands, tiny: Archive,
                                                                    room: Path) -> None:
    """Whenever it is killed: no image, or a whole one; and no process goes on behind our back."""
    with tiny.serve() as uri:
        words = ("make-base-vm", "--suite", "noble", "--lxc", "--mirror", uri, "--keyring", tiny.keyring)
        for delay in (0.3, 0.9, 1.6, 2.4):
            process = commands.start(*words, cwd=room, env={"GITIAN_IMAGES": str(room)})
            time.sleep(delay)
            process.send_signal(signal.SIGKILL)
            process.communicate(timeout=60)
            if not (room / "base-noble-amd64").exists():
                with pytest.raises(ImageError, match="There is no base image"):
                    find_image(room, "noble", "amd64", "lxc", "ubuntu")
                until = time.monotonic() + 60
                while (left := working_in(room)) and time.monotonic() < until:
                    time.sleep(0.1)
                assert not left, f"still working: {left}"
            else:
                find_image(room, "noble", "amd64", "lxc", "ubuntu")
                lxc.remove(room / "base-noble-amd64")
        make_tiny(commands, tiny, room, uri=uri)
    assert leftovers(room) == ["base-noble-amd64", "base-noble-amd64.json", "base-noble-amd64.tar"]
    find_image(room, "noble", "amd64", "lxc", "ubuntu")


def working_in(room: Path) -> list[str]:
    """The commands of processes whose arguments name a directory."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            words = (entry / "cmdline").read_bytes()
        except OSError:
            continue
        if os.fsencode(room / ".base") in words:
            found.append(words.replace(b"\0", b" ").decode(errors="replace")[:200])
    return found


@pytest.mark.lxc
@needs_root
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_interrupted_it_puts_everything_away(commands: Commands, tiny: Archive, room: Path, number: int) -> None:
    with tiny.serve() as uri:
        process = commands.start("make-base-vm", "--suite", "noble", "--lxc", "--mirror", uri, "--keyring",
                                 tiny.keyring, cwd=room, env={"GITIAN_IMAGES": str(room)})
        until = time.monotonic() + 60
        while not list(room.glob(".base-*.partial/work/mmdebstrap.*")) and time.monotonic() < until:
            time.sleep(0.05)
        process.send_signal(number)
        _, said = process.communicate(timeout=120)
    assert process.returncode == 128 + number, said.decode()
    assert leftovers(room) == []
    assert not working_in(room)


@pytest.mark.lxc
@needs_root
def test_only_one_makes_an_image_at_a_time(commands: Commands, tiny: Archive, room: Path) -> None:
    with tiny.serve() as uri:
        words = ("make-base-vm", "--suite", "noble", "--lxc", "--mirror", uri, "--keyring", tiny.keyring)
        first = commands.start(*words, cwd=room, env={"GITIAN_IMAGES": str(room)})
        try:
            until = time.monotonic() + 60
            while not (room / ".base-noble-amd64.partial").exists() and time.monotonic() < until:
                time.sleep(0.02)
            second = make_tiny(commands, tiny, room, uri=uri, check=False)
            assert second.returncode == 11
            assert "Another command is using the base image 'base-noble-amd64'" in second.stderr
        finally:
            _, said = first.communicate(timeout=300)
    assert first.returncode == 0, said.decode()
    find_image(room, "noble", "amd64", "lxc", "ubuntu")


@pytest.mark.lxc
@needs_root
def test_both_backends_have_one_root_filesystem(commands: Commands, tiny: Archive, room: Path) -> None:
    """With the other backend's image there, its tarball is adopted, or nothing is."""
    with tiny.serve() as uri:
        make_tiny(commands, tiny, room, uri=uri)
        # As if KVM had adopted it, and LXC had not.
        lxc.remove(room / "base-noble-amd64")
        (room / "base-noble-amd64.qcow2").write_bytes(b"a disk")
    done = make_tiny(commands, tiny, room, uri="http://127.0.0.1:9/nowhere")  # no archive is needed
    assert done.stdout == f"{record_of(room)['tarball_sha256']}  base-noble-amd64.tar\n"
    check_contract(room / "base-noble-amd64", "ubuntu")

    lxc.remove(room / "base-noble-amd64")
    tarball = room / "base-noble-amd64.tar"
    for message in ("is not the root filesystem", "is there, but the root filesystem it was made from"):
        if "made from" in message:
            tarball.unlink()
        else:
            tarball.write_bytes(b"x" + tarball.read_bytes()[1:])
        done = make_tiny(commands, tiny, room, uri="http://127.0.0.1:9/nowhere", check=False)
        assert (done.returncode, message in done.stderr) == (7, True), done.stderr
        assert "Remove 'base-noble-amd64.qcow2' too" in done.stderr
        assert not (room / "base-noble-amd64").exists()


@needs_root
def test_the_wrong_archive_is_refused(commands: Commands, tiny: Archive, room: Path, tmp_path: Path) -> None:
    other = Archive(tmp_path / "other")
    try:
        with tiny.serve() as uri:
            done = commands.run("make-base-vm", "--suite", "noble", "--lxc", "--mirror", uri, "--keyring",
                                other.keyring, cwd=room, env={"GITIAN_IMAGES": str(room)}, check=False)
    finally:
        other.close()
    assert done.returncode == 12, done.stderr
    assert f"The source '{uri} noble' failed: " in done.stderr
    assert "NO_PUBKEY" in done.stderr
    assert "--keyring" in done.stderr
    assert leftovers(room) == []


@pytest.mark.parametrize(("words", "status", "message"), [
    (("--docker",), 2, "Docker"), (("--vbox",), 2, "VirtualBox"),
    (("--distro", "fedora"), 2, "The distro 'fedora' is not known."),
    (("--suite", "bookworm"), 2, "Add '--distro debian'."),
    (("--suite", "a b"), 2, "'a b' cannot be the name of a suite"),
    (("--suite", "../x"), 2, "cannot be the name"), (("--arch", "sparc"), 2, "'sparc'"),
    (("--without", "backports"), 2, "'backports'"), (("--mirror", "ftp://x/y"), 2, "mirror's address"),
    (("--mirror", "http://x/y [trusted=yes]"), 2, "mirror's address"), (("--disksize", "lots"), 2, "disksize"),
])
def test_what_makes_no_sense_is_refused(commands: Commands, room: Path, words: tuple[str, ...], status: int,
                                        message: str) -> None:
    done = commands.run("make-base-vm", *words, cwd=room, check=False)
    assert done.returncode == status
    assert message in done.stderr
    assert leftovers(room) == []


@pytest.mark.skipif(Path("/usr/share/keyrings/ubuntu-archive-keyring.gpg").exists(), reason="the keyring is installed")
def test_a_missing_keyring_is_named_with_its_package(commands: Commands, room: Path) -> None:
    done = commands.run("make-base-vm", "--distro", "ubuntu", "--lxc", cwd=room, check=False)
    assert done.returncode == 7
    assert "ubuntu-archive-keyring" in done.stderr
    assert "apt-get install ubuntu-keyring" in done.stderr


# Sources and indices, with the real apt and the real mmdebstrap ---------------------------------------------------


def options(without: tuple[str, ...] = (), **environment: str) -> SourceOptions:
    return SourceOptions.of(mirror=None, security_mirror=None, without=without, environment=environment)


@pytest.mark.parametrize(("distro", "suite", "names"), [
    ("debian", "bookworm", ["bookworm", "bookworm-updates", "bookworm-security"]),
    ("debian", "sid", ["sid"]), ("debian", "buster", ["buster", "buster-updates", "buster/updates"]),
    ("ubuntu", "noble", ["noble", "noble-updates", "noble-security"]),
    ("ubuntu", "zz-not-out-yet", ["zz-not-out-yet", "zz-not-out-yet-updates", "zz-not-out-yet-security"]),
])
def test_default_sources_are_mmdebstraps(tmp_path: Path, distro: str, suite: str, names: list[str]) -> None:
    from gitian.images.distros import find_distro

    found = find_sources(find_distro(distro), suite, "amd64", options(), tmp_path)
    assert [source.suite for source in found] == names
    assert all(source.host_uri == source.guest_uri and source.host_uri.startswith("http") for source in found)
    assert found[0].components == {"debian": ("main",), "ubuntu": ("main", "universe")}[distro]
    proxied = find_sources(find_distro(distro), suite, "amd64", options(MIRROR_HOST="127.0.0.1"), tmp_path)
    for plain, behind in zip(found, proxied, strict=True):
        rest = plain.host_uri.removeprefix("http://")
        assert behind.host_uri == f"http://127.0.0.1:3142/{rest}"
        assert behind.guest_uri == f"http://10.0.2.2:3142/{rest}"
    assert not list(tmp_path.iterdir()), "mmdebstrap left something behind"


@pytest.fixture
def two_pockets(tmp_path: Path) -> Iterator[Archive]:
    archive = Archive(tmp_path / "archive")
    deb = make_deb(tmp_path / "debs", "foo", "1:2.0-3", arch="amd64")
    for suite in ("noble", "noble-security"):
        archive.add_suite(suite, origin="Ubuntu")
        archive.add_deb(deb, suite)
    archive.publish()
    yield archive
    archive.close()


def sources(uri: str) -> list[Source]:
    return [Source(host_uri=uri, guest_uri=uri, suite=suite, components=("main",), pocket=pocket)
            for suite, pocket in (("noble", ""), ("noble-security", "security"))]


@pytest.mark.parametrize("path", ["", "/ubuntu", "/with_underscore/and~tilde"])
def test_indices_and_packages_are_fetched_and_hashed(two_pockets: Archive, tmp_path: Path, path: str,
                                                     monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with two_pockets.serve(path) as uri:
        indices = archives.fetch_indices(sources(uri), "amd64", [two_pockets.keyring], tmp_path)
        deb = next((two_pockets.root / "pool/main").iterdir())
        assert indices.package_hashes() == {("foo", "1:2.0-3", "amd64"): sha256(deb)}
        assert indices.epoch == 1714979289  # 2024-05-06 07:08:09 UTC
        assert [release.sha256 for release in indices.releases] == \
            [sha256(two_pockets.root / "dists" / suite / "InRelease") for suite in ("noble", "noble-security")]
        (fetched,) = indices.download(["foo"], tmp_path / "down")
        assert fetched.read_bytes() == deb.read_bytes()


def spoiled(archive: Archive, how: str) -> None:
    top = archive.root / "dists/noble-security"
    packages = top / "main/binary-amd64/Packages"
    if how == "size":
        packages.write_bytes(packages.read_bytes() + b"\n")
    elif how == "hash":
        packages.write_bytes(packages.read_bytes().replace(b"foo", b"fox"))
    elif how == "absent":
        packages.unlink()
    elif how == "html":
        (top / "InRelease").write_bytes(b"<html>maintenance</html>")
    elif how == "signature":
        (top / "InRelease").write_bytes((top / "InRelease").read_bytes().replace(b"Ubuntu", b"Ubunto"))
    elif how == "gone":
        shutil.rmtree(top)


@pytest.mark.parametrize(("how", "reason"), [
    ("size", "unexpected size"), ("hash", "Hash Sum mismatch"), ("absent", "404"), ("gone", "404"),
    ("html", "Clearsigned"), ("signature", "BADSIG"),
])
def test_a_source_out_of_step_is_named_with_the_way_on(two_pockets: Archive, tmp_path: Path, how: str, reason: str,
                                                       monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setattr(archives, "PAUSES", (0.01,))
    spoiled(two_pockets, how)
    with two_pockets.serve() as uri:
        with pytest.raises(FetchError) as caught:
            archives.fetch_indices(sources(uri), "amd64", [two_pockets.keyring], tmp_path)
        assert str(caught.value).startswith(f"The source '{uri} noble-security' failed: ")
        assert reason in str(caught.value)
        assert caught.value.hint is not None
        assert "'--without security'" in caught.value.hint
        # And that way leads on.
        (tmp_path / "again").mkdir()
        archives.fetch_indices(sources(uri)[:1], "amd64", [two_pockets.keyring], tmp_path / "again")


def test_a_mirror_that_gets_in_step_is_tried_again(two_pockets: Archive, tmp_path: Path,
                                                   monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    spoiled(two_pockets, "size")
    waited = []

    def pause(seconds: float) -> None:
        waited.append(seconds)
        two_pockets.publish()  # meanwhile the mirror catches up

    monkeypatch.setattr(archives, "pause", pause)
    with two_pockets.serve() as uri:
        archives.fetch_indices(sources(uri), "amd64", [two_pockets.keyring], tmp_path)
    assert waited == [archives.PAUSES[0]]


# Debian itself ----------------------------------------------------------------------------------------------------


@pytest.mark.lxc
@needs_root
def test_debian_keeps_the_guest_contract(images: Path) -> None:
    image = find_image(images, "bookworm", "amd64", "lxc", "debian")
    check_contract(image.path, "debian")
    assert (image.path / "usr/lib/locale/locale-archive").stat().st_size > 10**6
    names = {package.name for package in image.record.packages}
    assert set(PACKAGES) < names
    assert not {name for name in names if name.startswith(("linux-image", "grub"))}
    status = (image.path / "var/lib/dpkg/status").read_text()
    assert status.count("\nStatus: install ok installed\n") == len(image.record.packages)
    assert (image.path / "usr/bin/sudo").stat().st_mode & 0o4000
    assert sha256(images / "base-bookworm-amd64.tar") == image.record.tarball_sha256
    disk = find_image(images, "bookworm", "amd64", "kvm", "debian")
    assert disk.record.kvm is not None
    assert disk.record.kvm["tarball_sha256"] == image.record.tarball_sha256


@pytest.mark.lxc
@pytest.mark.slow
@needs_root
def test_debian_made_twice_is_the_same_bit_for_bit(images: Path, room: Path, commands: Commands) -> None:
    made(room, commands.home, "amd64", lxc=True)
    first, second = record_of(images, "base-bookworm-amd64"), record_of(room, "base-bookworm-amd64")
    if first["indices"] != second["indices"]:  # the archive went on since the session's image was made
        lxc.remove(room / "base-bookworm-amd64")
        first = second
        made(room, commands.home, "amd64", lxc=True)
        second = record_of(room, "base-bookworm-amd64")
    assert first["indices"] == second["indices"], "the archive changed while the test ran"
    assert first["tarball_sha256"] == second["tarball_sha256"] == sha256(room / "base-bookworm-amd64.tar")
    assert first["packages"] == second["packages"]
