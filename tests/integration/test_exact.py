"""Exact images: a system made of given packages and no others, by programs of strangers, the same bit for bit."""

from __future__ import annotations

import hashlib
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from gitian.errors import BusyError, EnvironmentUnavailableError, ImageError
from gitian.formats.environment import Environment, by_file_name
from gitian.formats.image_record import ImageRecord, InstalledPackage
from gitian.guest.protocol import Guest
from gitian.host import process
from gitian.host.hashing import sha256_file
from gitian.host.subids import SubIds
from gitian.images import exact, lxc, make, obtain, secluded
from gitian.images.distros import PACKAGES
from gitian.images.exact import ExactRequest
from gitian.images.lookup import BaseImage
from gitian.images.obtain import Places
from gitian.images.record import ImageFiles
from gitian.names import parse_deb_name
from tests.fakes import tiny_distro
from tests.fakes.archive import MOMENT, make_deb
from tests.integration import kvm_kit, lxc_kit
from tests.integration.conftest import ROOT

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="reads files that shifted ids own")

Debs = dict[InstalledPackage, Path]


def described(*debs: Path) -> Debs:
    found: Debs = {}
    for deb in debs:
        name = parse_deb_name(deb.name)
        assert name is not None
        found[InstalledPackage(name=name[0], version=name[1], architecture=name[2], sha256=sha256_file(deb))] = deb
    return found


def environment_of(debs: Debs) -> Environment:
    return Environment(distro="ubuntu", suite="noble", architecture="amd64", packages=by_file_name(debs))


def made(room: Path, debs: Debs, environment: Environment | None = None, backend: str = "lxc") -> BaseImage:
    return exact.make_exact(ExactRequest(directory=room, environment=environment or environment_of(debs), debs=debs,
                                         backend=backend, disksize=1024))


# A tiny distro: seconds instead of half a minute -------------------------------------------------------------------


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Debs:
    return described(*tiny_distro.packages(tmp_path_factory.mktemp("debs"), PACKAGES, "amd64"))


@pytest.fixture
def room(tmp_path: Path) -> Iterator[Path]:
    """A directory for base images, emptied afterwards also of what shifted ids own."""
    directory = tmp_path / "images"
    directory.mkdir()
    yield directory
    for entry in (*directory.glob("environments/*/*"), *directory.glob("environments/*/.*")):
        lxc.remove(entry)


def left(room: Path) -> list[str]:
    """What is in the place of one environment besides locks and marks."""
    (place,) = (path for path in (room / "environments").iterdir() if path.is_dir())
    return sorted(path.name for path in place.iterdir()
                  if path.name not in (".used", ".held") and path.suffix != ".lock")


@pytest.mark.lxc
@needs_root
def test_the_same_wherever_it_is_made(tiny: Debs, room: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    environment = environment_of(tiny)
    assert exact.find_exact(room, environment, "lxc") is None
    image = made(room, tiny)
    assert set(image.record.packages) == set(tiny)
    assert (image.record.sources, image.record.indices, image.record.epoch) == ((), (), int(MOMENT.timestamp()))
    assert (image.path / "etc/apt/sources.list").read_bytes() == b""
    assert [path.name for path in (image.path / "var/lib/apt/lists").iterdir()] == ["partial"]
    assert not list((image.path / "etc/apt/sources.list.d").glob("*"))
    assert left(room) == ["base-noble-amd64", "base-noble-amd64.json", "base-noble-amd64.tar"]
    assert exact.find_exact(room, environment, "lxc") == image
    assert exact.find_exact(room, environment, "kvm") is None
    # It is there: nothing is made again, from whatever files.
    assert made(room, dict.fromkeys(tiny, tmp_path / "none")) == image
    digest = image.record.tarball_sha256

    # In another place, as root of this machine, with nothing around it.
    other = tmp_path / "other"
    other.mkdir()
    work = ImageFiles(directory=exact.place_of(other, environment), suite="noble", arch="amd64").partial / "exact"
    with monkeypatch.context() as patch:
        patch.setattr(secluded, "WORK", work)
        patch.setattr(secluded, "BOX", work / "box")
        patch.setattr(secluded, "command", lambda argv: [word.replace("=unshare", "=root") for word in argv])
        patch.setenv("TZ", "Asia/Tokyo")
        again = made(other, tiny)
    assert again.record.tarball_sha256 == digest
    lxc.remove(again.path)

    # Whoever states what should come out is told when it does not.
    assert made(room, tiny, replace(environment, base=digest)) == image
    with pytest.raises(EnvironmentUnavailableError, match=f"has the sha256 {digest}, and .* states {'0' * 64}"):
        made(room, tiny, replace(environment, base="0" * 64))
    assert exact.find_exact(room, environment, "lxc") == image, "what is there is not lost by it"


@pytest.mark.lxc
@needs_root
def test_an_image_with_another_digest_gives_way(tiny: Debs, room: Path) -> None:
    """As another version of mmdebstrap would have made it."""
    environment = environment_of(tiny)
    image = made(room, tiny)
    digest = image.record.tarball_sha256
    files = ImageFiles(directory=image.path.parent, suite="noble", arch="amd64")
    files.write_record(replace(image.record, tarball_sha256="0" * 64,
                               lxc={**(image.record.lxc or {}), "tarball_sha256": "0" * 64}))
    (image.path / "other").touch()
    stated = replace(environment, base=digest)
    assert exact.find_exact(room, stated, "lxc") is None
    with exact.held([image.path.parent]), pytest.raises(BusyError, match="has another digest"):
        made(room, tiny, stated)
    with (image.path / "other").open("rb"), pytest.raises(BusyError, match="has another digest"):
        made(room, tiny, stated)
    assert (image.path / "other").exists()
    again = made(room, tiny, stated)
    assert again.record.tarball_sha256 == digest and not (again.path / "other").exists()
    assert exact.find_exact(room, environment, "lxc") == again


LOOKS_AROUND = """#!/bin/sh
mkdir /seen
cut -d: -f1 /proc/net/dev > /seen/net
ls /proc/1/root > /seen/root
ls /proc/1/root/tmp /proc/1/root/run /proc/1/root/var/tmp /proc/1/root/root > /seen/rest
for place in usr etc opt; do
  mount -o remount,rw,bind /proc/1/root/$place && echo $place >> /seen/written
done
for place in usr etc work work/archive work/archive/pool; do
  if touch /proc/1/root/$place/hostile; then echo $place >> /seen/written; fi
done
exit 0
"""


@pytest.mark.lxc
@needs_root
def test_what_a_package_runs_sees_nothing_of_this_machine(tiny: Debs, room: Path, tmp_path: Path) -> None:
    debs = tiny | described(make_deb(tmp_path / "debs", "curious", scripts={"postinst": LOOKS_AROUND}))
    seen = made(room, debs).path / "seen"
    assert seen.stat().st_uid == SubIds.of_current_user().uid
    assert (seen / "net").read_text().split()[-1] == "lo" and len((seen / "net").read_text().splitlines()) == 3
    root = (seen / "root").read_text().split()
    assert {"work", "usr"} < set(root)
    assert not {"home", "srv", "boot", "mnt", "old"} & set(root)
    # mount(8)'s own notes of what was mounted there lie in /run.
    assert {line for line in (seen / "rest").read_text().splitlines() if line and line[-1] != ":"} <= {"mount"}
    assert not (seen / "written").exists()
    assert not list(Path("/usr").glob("hostile")) and not list(Path("/etc").glob("hostile"))


@pytest.mark.lxc
def test_packages_that_make_no_system_are_refused(tiny: Debs, room: Path, tmp_path: Path) -> None:
    place = tmp_path / "debs"
    for deb, message in (
            (make_deb(place, "enemy", fields={"Conflicts": "wget"}), "enemy"),
            (make_deb(place, "lonely", depends="friend (>= 2)"), "friend"),
            (make_deb(place, "broken", scripts={"postinst": "#!/bin/sh\nexit 3\n"}), "broken")):
        with pytest.raises(EnvironmentUnavailableError, match="do not make a system") as caught:
            made(room, tiny | described(deb))
        assert message in f"{caught.value} {caught.value.hint}"
    essential = next(package for package in tiny if package.name == "tiny-base")
    with pytest.raises(EnvironmentUnavailableError, match="is essential"):
        made(room, {package: deb for package, deb in tiny.items() if package != essential})
    changed = tmp_path / "changed.deb"
    changed.write_bytes(tiny[essential].read_bytes()[:-2] + b"xx")
    with pytest.raises(EnvironmentUnavailableError, match=essential.file_name):
        made(room, {**tiny, essential: changed})
    assert not list(room.glob("environments/*/base-*")) and not list(room.glob("environments/*/.base-*.partial*"))


MAKES = """
import json, sys
from pathlib import Path
from gitian.formats.environment import EnvironmentFile
from gitian.images.exact import ExactRequest, make_exact
room, file, debs = map(Path, sys.argv[1:])
(environment,) = EnvironmentFile.read(file).environments
make_exact(ExactRequest(directory=room, environment=environment, backend="lxc",
                        debs={package: debs / package.file_name for package in environment.packages}))
"""


def processes(mark: str) -> list[str]:
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                line = (entry / "cmdline").read_bytes()
            except OSError:
                continue
            if mark.encode() in line and entry.name != str(os.getpid()):
                found.append(f"{entry.name}: {line!r}")
    return found


@pytest.mark.lxc
@needs_root
def test_one_that_is_killed_leaves_nothing(tiny: Debs, room: Path, tmp_path: Path) -> None:
    from gitian.formats.environment import EnvironmentFile

    # Its name tells its processes from those of others.
    name = f"endless-{os.getpid()}"
    place = next(iter(tiny.values())).parent
    debs = tiny | described(make_deb(place, name, scripts={"postinst": "#!/bin/sh\nwhile :; do :; done\n"}))
    environment = environment_of(debs)
    file = tmp_path / "environment.json"
    file.write_bytes(EnvironmentFile(environments=(environment,)).to_json())
    with subprocess.Popen([sys.executable, "-c", MAKES, room, file, place], stdin=subprocess.DEVNULL,
                          stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True,
                          env={**os.environ, "PYTHONPATH": str(ROOT / "src")}) as maker:
        try:
            assert process.wait_until(lambda: bool(processes(f"{name}.postinst")), 300, every=0.2)
        finally:
            maker.send_signal(signal.SIGKILL)
    assert process.wait_until(lambda: not processes(f"{name}.postinst"), 60, every=0.1), processes(name)
    assert exact.find_exact(room, environment, "lxc") is None
    files = ImageFiles(directory=exact.place_of(room, environment), suite="noble", arch="amd64")
    assert files.partial.exists()
    with files.lock(), make.making(files):
        pass
    assert left(room) == []


@pytest.mark.kvm
@needs_root
def test_without_a_kernel_of_its_own_it_takes_the_ordinary_image_s(tiny: Debs, room: Path) -> None:
    environment = environment_of(tiny)
    with pytest.raises(ImageError, match="names no kernel") as caught:
        made(room, tiny, backend="kvm")
    assert "make-base-vm --distro ubuntu --suite noble --arch amd64" in (caught.value.hint or "")
    ordinary = ImageFiles(directory=room, suite="noble", arch="amd64")
    parts = {"kernel": b"the kernel", "initrd": b"the RAM disk", "disk": b"the disk"}
    for path, data in ((ordinary.kernel, "kernel"), (ordinary.initrd, "initrd"), (ordinary.kvm, "disk")):
        path.write_bytes(parts[data])
    sums = {f"{name}_sha256": hashlib.sha256(data).hexdigest() for name, data in parts.items()}
    packages = [{"name": "linux-image-1", "version": "1", "architecture": "amd64", "sha256": "c" * 64}]
    ordinary.write_record(ImageRecord(
        distro="ubuntu", suite="noble", architecture="amd64", mirror="", epoch=0, tarball_sha256="0" * 64,
        tarball_size=0, sources=(), indices=(), packages=(), made_by="", kvm={
            **sums, "kernel_release": "1-test", "kernel_packages": packages, "initrd_packages": [],
            "initrd_modules": ["ext4"], "disksize": 5, "tarball_sha256": "0" * 64}))

    image = made(room, tiny, backend="kvm")
    assert image.kernel is not None and image.kernel.read_bytes() == parts["kernel"]
    assert image.initrd is not None and image.initrd.read_bytes() == parts["initrd"]
    assert image.record.kvm is not None and image.record.kvm["kernel_release"] == "1-test"
    assert image.record.kvm["disksize"] == 1024 and image.record.kvm["disk_sha256"] == sha256_file(image.path)
    kernel = exact.kernel_of(image.record)
    assert kernel is not None and [package.name for package in kernel.packages] == ["linux-image-1"]
    # LXC adopts the same tarball.
    other = made(room, {package: Path("none") for package in tiny})
    assert other.record.tarball_sha256 == image.record.tarball_sha256
    lxc.remove(other.path)

    lxc.remove(exact.place_of(room, environment))
    ordinary.initrd.write_bytes(b"another")
    with pytest.raises(ImageError, match="is not what its image's record tells of"):
        made(room, tiny, backend="kvm")


# Debian itself ----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def debian(images: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, ExactRequest]]:
    """What the ordinary base image was made of, as an environment with its packages; where exact images of it go."""
    record = ImageFiles(directory=images, suite="bookworm", arch="amd64").read_record()
    assert record is not None
    kernel = exact.kernel_of(record)
    assert kernel is not None
    environment = Environment(distro="debian", suite="bookworm", architecture="amd64", kernel=kernel,
                              packages=by_file_name(record.packages))
    place = tmp_path_factory.mktemp("exact")
    found = obtain.obtain([*environment.packages, *kernel.packages], Places(pool=None, sources=record.sources),
                          place / "debs", place / "scratch")
    obtain.require(found)
    directory = place / "images"
    directory.mkdir()
    yield directory, ExactRequest(
        directory=directory, environment=environment, backend="lxc",
        debs={package: found.files[package] for package in environment.packages},
        kernel_debs={package: found.files[package] for package in kernel.packages})
    shutil.rmtree(place / "debs")
    for entry in (*directory.glob("environments/*/*"), *directory.glob("environments/*/.*")):
        lxc.remove(entry)


def check_guest(guest: Guest, environment: Environment) -> None:
    """It has the environment's packages, asks nobody for others, and is otherwise as every guest."""
    shown = guest.run(["dpkg-query", "-W", "-f", "${Package} ${Version} ${Architecture} ${db:Status-Status}\\n"])
    assert sorted(shown.stdout.decode().splitlines()) == sorted(
        f"{package.name} {package.version} {package.architecture} installed" for package in environment.packages)
    said = guest.run(["sh", "-c", "cat /etc/apt/sources.list; ls /var/lib/apt/lists; hostname; id -un; "
                                  "locale charmap; dpkg --audit"]).stdout.decode()
    assert said == "partial\ngitian\ndebian\nUTF-8\n"


@pytest.mark.lxc
def test_debian_under_lxc(debian: tuple[Path, ExactRequest], images: Path, tmp_path: Path) -> None:
    directory, request = debian
    image = exact.make_exact(request)
    assert set(image.record.packages) == set(request.environment.packages)
    workspace = tmp_path / "workspace"
    workspace.mkdir()
    with lxc_kit.running(workspace, image.path.parent) as guest:
        check_guest(guest, request.environment)
    assert [place.label for place in exact.environments(directory)] == ["bookworm-amd64"]


@pytest.mark.kvm
def test_debian_under_kvm(debian: tuple[Path, ExactRequest], images: Path, tmp_path: Path) -> None:
    _, request = debian
    image = exact.make_exact(replace(request, backend="kvm"))
    ordinary = ImageFiles(directory=images, suite="bookworm", arch="amd64")
    assert image.kernel is not None and image.kernel.read_bytes() == ordinary.kernel.read_bytes()
    assert image.record.kvm is not None and exact.kernel_of(image.record) == request.environment.kernel
    workspace = tmp_path / "workspace"
    workspace.mkdir()
    with kvm_kit.running(workspace, image.path.parent) as guest:
        check_guest(guest, request.environment)
