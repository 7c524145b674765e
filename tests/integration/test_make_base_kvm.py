"""KVM base images: what adopting a root filesystem makes, that it needs no root, and that a guest starts from it."""

from __future__ import annotations

import json
import os
import shutil
import stat
import subprocess
import tarfile
import tempfile
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from gitian.guest.kvm import KvmBackend
from gitian.guest.protocol import StartRequest
from gitian.host.hashing import sha256_file
from gitian.images import kvm
from gitian.images.archive import Indices, fetch_indices
from gitian.images.sources import Source
from tests.fakes.archive import Archive, make_deb

pytestmark = pytest.mark.kvm

#: A user of no name, with no subordinate ids.
STRANGER = 54321
RELEASE = "6.8.0-31-generic"


def ram_disk(data: bytes) -> dict[str, bytes]:
    """The regular files of a cpio archive in the newc format."""
    found: dict[str, bytes] = {}
    at = 0
    while data[at:at + 6] == b"070701":
        mode, size, length = (int(data[at + start:at + start + 8], 16) for start in (14, 54, 94))
        name = data[at + 110:at + 109 + length].decode()
        start = (at + 110 + length + 3) & ~3
        if stat.S_ISREG(mode):
            found[name] = data[start:start + size]
        at = (start + size + 3) & ~3
    return found


@dataclass(frozen=True, kw_only=True)
class Ubuntu:
    """An archive with Ubuntu's kernel packages, in which are the real kernel and modules of the Debian image."""

    address: str
    keyring: Path


@pytest.fixture(scope="module")
def public() -> Iterator[Path]:
    """A directory that everybody can get into."""
    place = Path(tempfile.mkdtemp(prefix="gitian-test-"))
    place.chmod(0o755)
    yield place
    shutil.rmtree(place, ignore_errors=True)


@pytest.fixture(scope="module")
def ubuntu(images: Path, public: Path) -> Iterator[Ubuntu]:
    # The images may be where only their owner looks; the stranger has to read this one.
    shutil.copyfile(images / "base-bookworm-amd64.tar", public / "base.tar")
    parts = ram_disk((images / "base-bookworm-amd64.initrd").read_bytes())
    modules: dict[str, bytes | Path] = {f"/lib/modules/{RELEASE}/modules.builtin": b"kernel/fs/ext4/ext4.ko\n"}
    for name, data in parts.items():
        if name.startswith("modules/"):
            squeezed = subprocess.run(["zstd", "-q", "-c"], input=data, stdout=subprocess.PIPE, check=True).stdout
            modules[f"/lib/modules/{RELEASE}/kernel/{name.removeprefix('modules/')[3:]}.zst"] = squeezed
    debs = public / "debs"
    made = [
        make_deb(debs, "linux-image-virtual", arch="amd64", depends=f"linux-image-{RELEASE}, linux-firmware"),
        make_deb(debs, f"linux-image-{RELEASE}", arch="amd64", depends=f"kmod, linux-modules-{RELEASE}",
                 files={f"/boot/vmlinuz-{RELEASE}": images / "base-bookworm-amd64.vmlinuz"}),
        make_deb(debs, f"linux-modules-{RELEASE}", arch="amd64", files=modules),
        make_deb(debs, "busybox-static", arch="amd64", files={"/usr/bin/busybox": parts["bin/busybox"]}),
    ]
    archive = Archive(public / "archive")
    try:
        archive.add_suite("noble", origin="Ubuntu")
        for deb in made:
            archive.add_deb(deb, "noble")
        archive.publish()
        with archive.serve() as address:
            yield Ubuntu(address=address, keyring=archive.keyring)
    finally:
        archive.close()


def adopt(public: Path, ubuntu: Ubuntu, place: Path) -> dict[str, Any]:
    """Adopt the tarball of the Debian image as if it were one of Ubuntu."""
    scratch = place / "scratch"
    scratch.mkdir()

    def indices(arch: str) -> Indices:
        source = Source(host_uri=ubuntu.address, guest_uri=ubuntu.address, suite="noble", components=("main",))
        return fetch_indices([source], arch, [ubuntu.keyring], scratch)

    request = kvm.KvmRequest(tarball=public / "base.tar", tarball_sha256="0" * 64, distro="ubuntu",
                             suite="noble", arch="amd64", disksize=4096, epoch=1_700_000_000,
                             boot=kvm.fetched(distro="ubuntu", suite="noble", arch="amd64", indices=indices))
    stem = place / "base-noble-amd64"
    return kvm.adopt(request, disk=stem.with_suffix(".qcow2"), vmlinuz=stem.with_suffix(".vmlinuz"),
                     ramdisk=stem.with_suffix(".initrd"), scratch=scratch)


def as_stranger(work: Callable[[], object], told: Path) -> None:
    """Do something in a process that has given up being root for good; ``told`` gets what went wrong."""
    child = os.fork()
    if child == 0:
        status = 1
        try:
            os.setgroups([])
            os.setresgid(STRANGER, STRANGER, STRANGER)
            os.setresuid(STRANGER, STRANGER, STRANGER)
            os.environ["HOME"] = os.environ["TMPDIR"] = str(told.parent)
            work()
            status = 0
        except BaseException:
            told.write_text(traceback.format_exc())
        finally:
            os._exit(status)
    _, status = os.waitpid(child, 0)
    assert status == 0, told.read_text() if told.exists() else status


def test_the_record_tells_of_the_files(images: Path) -> None:
    record = json.loads((images / "base-bookworm-amd64.json").read_text())
    stem = images / "base-bookworm-amd64"
    for kind, key in ((".qcow2", "disk"), (".vmlinuz", "kernel"), (".initrd", "initrd")):
        assert record["kvm"][f"{key}_sha256"] == sha256_file(stem.with_suffix(kind))
    assert record["kvm"]["tarball_sha256"] == record["tarball_sha256"]
    (package,) = record["kvm"]["kernel_packages"]
    assert package["name"] == f"linux-image-{record['kvm']['kernel_release']}"
    assert record["kvm"]["initrd_packages"][0]["name"] == "busybox-static"
    # The kernel is beside the root filesystem, not in it.
    assert not [installed for installed in record["packages"] if installed["name"].startswith("linux-image")]
    about = json.loads(subprocess.run(["qemu-img", "info", "--output=json", stem.with_suffix(".qcow2")], check=True,
                                      stdout=subprocess.PIPE).stdout)
    assert about["virtual-size"] == record["kvm"]["disksize"] * 2**20 == 12287 * 2**20


@pytest.fixture(scope="module")
def adopted(ubuntu: Ubuntu, public: Path) -> tuple[Path, dict[str, Any]]:
    """The image of Ubuntu, adopted by a user who is nobody; its directory and its record."""
    if os.geteuid() != 0:
        place = public / "own"
        place.mkdir()
        return place, adopt(public, ubuntu, place)
    place = public / "stranger"
    place.mkdir()
    os.chown(place, STRANGER, STRANGER)
    answer = place / "record.json"
    as_stranger(lambda: answer.write_text(json.dumps(adopt(public, ubuntu, place))), place / "told")
    return place, json.loads(answer.read_text())


def test_ubuntu_adopted_by_a_stranger(adopted: tuple[Path, dict[str, Any]], images: Path) -> None:
    place, record = adopted
    assert [package["name"] for package in record["kernel_packages"]] == [f"linux-image-{RELEASE}",
                                                                          f"linux-modules-{RELEASE}"]
    assert record["kernel_release"] == RELEASE
    assert sha256_file(place / "base-noble-amd64.vmlinuz") == sha256_file(images / "base-bookworm-amd64.vmlinuz")
    mine, debians = (ram_disk(path.read_bytes()) for path in (place / "base-noble-amd64.initrd",
                                                              images / "base-bookworm-amd64.initrd"))
    assert sorted(mine) == sorted(debians)
    assert all(mine[name] == data for name, data in debians.items() if name.startswith(("bin/", "modules/")))


def test_the_same_disk_whoever_makes_it(adopted: tuple[Path, dict[str, Any]], images: Path, ubuntu: Ubuntu,
                                        public: Path) -> None:
    place = public / "again"
    place.mkdir()
    assert adopt(public, ubuntu, place) == adopted[1]
    shutil.rmtree(place)


def test_the_disk_holds_what_the_tarball_holds(adopted: tuple[Path, dict[str, Any]], images: Path,
                                               public: Path) -> None:
    raw = public / "disk.raw"
    subprocess.run(["qemu-img", "convert", "-O", "raw", adopted[0] / "base-noble-amd64.qcow2", raw], check=True)
    try:
        path = {**os.environ, "PATH": f"{os.environ['PATH']}:/usr/sbin:/sbin"}
        subprocess.run(["e2fsck", "-fn", raw], check=True, env=path, stdin=subprocess.DEVNULL)
        out = public / "tree"
        out.mkdir()
        subprocess.run(["debugfs", "-R", f"rdump /usr/bin /etc {out}", raw], check=True, env=path,
                       stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        compared = 0
        with tarfile.open(images / "base-bookworm-amd64.tar") as archive:
            for member in archive:
                name = member.name.removeprefix("./")
                if name.startswith(("etc/", "usr/bin/")) and member.isreg():
                    stream = archive.extractfile(member)
                    assert stream is not None
                    assert (out / name.removeprefix("usr/")).read_bytes() == stream.read(), name
                    compared += 1
        assert compared > 400
    finally:
        raw.unlink()


@pytest.fixture(scope="module")
def workspace(public: Path) -> Path:
    place = public / "workspace"
    place.mkdir()
    return place


#: What a guest's start writes, and where other file systems are mounted.
OWN = {"etc/resolv.conf", "etc/hostname", "dev", "proc", "sys", "run/gitian", "run/sshd"}


def metadata_differs(tarball: Path, say: Callable[[str], str]) -> list[str]:
    """Files whose type, mode, owner, links, size, time or target the guest's kernel sees otherwise than the tarball."""
    listing = say(r"find / -xdev -printf '<\t%P\t%y\t%#m\t%U\t%G\t%s\t%T@\t%l\t>\n'")
    seen = {}
    for line in listing.splitlines():
        _, name, kind, mode, uid, gid, length, time, target, _ = line.split("\t")
        about = (kind, int(mode, 8) if kind != "l" else 0, int(uid), int(gid))
        # Directories have sizes of their own, and a start writes into some of them.
        seen[name] = (*about, *((int(length), int(float(time)), target) if kind != "d" else ()))
    wanted: dict[str, tuple[Any, ...]] = {}
    with tarfile.open(tarball) as archive:
        for member in archive:
            name = member.name.removeprefix(".").strip("/")
            if member.islnk():
                wanted[name] = wanted[member.linkname.removeprefix("./")]
                continue
            kind = "d" if member.isdir() else "l" if member.issym() else "f"
            size = len(member.linkname.encode()) if member.issym() else member.size
            about = (kind, member.mode if kind != "l" else 0, member.uid, member.gid)
            wanted[name] = (*about, *((size, int(member.mtime), member.linkname if member.issym() else "")
                                      if kind != "d" else ()))
    names = {name for name in (*wanted, *seen) if name not in OWN and not name.startswith("dev/")}
    return sorted(f"{name}: {wanted.get(name)} became {seen.get(name)}" for name in names
                  if wanted.get(name) != seen.get(name))[:20]


def test_a_guest_starts_from_it(adopted: tuple[Path, dict[str, Any]], images: Path, workspace: Path) -> None:
    # The root filesystem is Debian's, and so is its user.
    request = StartRequest(suite="noble", arch="amd64", distro="debian", workspace=workspace,
                           image=adopted[0] / "base-noble-amd64.qcow2")
    guest = KvmBackend().start(request)
    try:
        def say(script: str, user: str = "root") -> str:
            return guest.run(["sh", "-c", script], user=user).stdout.decode().strip()

        assert metadata_differs(images / "base-bookworm-amd64.tar", say) == []
        assert say("cat /etc/resolv.conf") == "nameserver 10.0.2.3"
        assert say("hostname; cat /etc/hostname") == "gitian\ngitian"
        assert say("ip -4 -o addr show eth0 | tr -s ' ' | cut -d ' ' -f 4") == "10.0.2.15/24"
        assert say("ip -6 -o addr show eth0") == ""
        assert say("ip route show default").startswith("default via 10.0.2.2 dev eth0")
        assert abs(int(say("date +%s")) - int(subprocess.run(["date", "+%s"], check=True,
                                                             stdout=subprocess.PIPE).stdout)) < 120
        # Few devices, none of them a disk or the host's; keys in memory alone.
        assert say("ls /dev").split() == ["fd", "full", "null", "ptmx", "pts", "random", "shm", "stderr", "stdin",
                                          "stdout", "tty", "urandom", "zero"]
        assert say("stat -f -c %T /run/gitian /dev /dev/shm") == "tmpfs\ntmpfs\ntmpfs"
        assert say("stat -c %a:%U /run/gitian/ssh_host_ed25519_key") == "600:root"
        assert "Permission denied" in say("cat /run/gitian/ssh_host_ed25519_key 2>&1 || true", "debian")
        assert "noatime" in say("grep ' / ext4 ' /proc/mounts")
        assert say("echo 1 2>/dev/null >/sys/kernel/mm/ksm/run || echo refused") == "refused"
        assert int(say("bash -c 'ulimit -u'", "debian")) <= 8192
        assert say("stat -c %a:%u:%g /dev/null /dev/shm /dev/pts/ptmx") == "666:0:0\n1777:0:0\n666:0:0"
        # What others leave behind is collected: nobody stays dead for long.
        assert say("sh -c 'sleep 0.2 & exec true'; sleep 0.5; for try in $(seq 100); do "
                   "dead=$(cat /proc/[0-9]*/stat 2>/dev/null | grep -c ') Z '); [ $dead = 0 ] && break; sleep 0.2; "
                   "done; echo $dead") == "0"
        assert say("touch /home/debian/written; sync; ls /home/debian", "debian") == "written"
    finally:
        guest.close()


def test_a_guest_that_is_switched_off_has_written_everything(adopted: tuple[Path, dict[str, Any]],
                                                             workspace: Path) -> None:
    request = StartRequest(suite="noble", arch="amd64", distro="debian", workspace=workspace,
                           image=adopted[0] / "base-noble-amd64.qcow2")
    guest = KvmBackend().start(request)
    try:
        guest.run(["sh", "-c", "echo here >/home/debian/kept"])
        guest.stop(overlay=False)
        assert b"gitian: off" in (workspace / "var/target.log").read_bytes()
        raw = workspace / "disk.raw"
        subprocess.run(["qemu-img", "convert", "-O", "raw", workspace / "target-noble-amd64.qcow2", raw], check=True)
        path = {**os.environ, "PATH": f"{os.environ['PATH']}:/usr/sbin:/sbin"}
        # Clean, not merely repaired: the disk was made read-only before the machine was switched off.
        subprocess.run(["e2fsck", "-fn", raw], check=True, env=path, stdin=subprocess.DEVNULL)
        said = subprocess.run(["debugfs", "-R", "cat /home/debian/kept", raw], check=True, env=path,
                              stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL).stdout
        assert said == b"here\n"
        raw.unlink()
    finally:
        guest.close()
