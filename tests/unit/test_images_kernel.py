"""Kernels out of a real apt archive, made and signed for the test, with kernels that are not real."""

from __future__ import annotations

import functools
import lzma
import subprocess
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest

from gitian.errors import FetchError, ImageError
from gitian.host.workspace import data_directory
from gitian.images import initrd, kernel, packages
from gitian.images.archive import Indices, fetch_indices
from gitian.images.sources import Source
from tests.fakes.archive import Archive, make_deb
from tests.fakes.modules import module

BASE = {"virtio_ring": module("depends="), "virtio": module("depends=virtio_ring"),
        "virtio_pci": module("depends=virtio,virtio_ring"), "virtio_blk": module("depends=virtio,virtio_ring"),
        "failover": module("depends="), "net_failover": module("depends=failover"),
        "virtio_net": module("depends=virtio,virtio_ring,net_failover"),
        "virtio_rng": module("depends=virtio", wide=False), "nfs": module("depends=sunrpc")}
EXT4 = {"ext4": module("depends=jbd2,mbcache", "softdep=pre: crc32c"), "jbd2": module(), "mbcache": module(),
        "crc32c_generic": module("alias=crc32c")}


def files(release: str, modules: Mapping[str, bytes], *, top: str = "/lib/modules", ending: str = ".ko",
          built_in: str = "", image: bool = True) -> dict[str, bytes | Path]:
    """A kernel package's files."""
    squeeze: Callable[[bytes], bytes] = lzma.compress if ending == ".ko.xz" else _zstd if ending == ".ko.zst" else bytes
    found: dict[str, bytes | Path] = {f"{top}/{release}/kernel/drivers/{name.replace('_', '-')}{ending}": squeeze(data)
                                      for name, data in modules.items()}
    if modules:
        found[f"{top}/{release}/modules.builtin"] = built_in.encode()
    if image:
        found[f"/boot/vmlinuz-{release}"] = f"the kernel {release}".encode()
    return found


def _zstd(data: bytes) -> bytes:
    return subprocess.run(["zstd", "-q", "-c"], input=data, stdout=subprocess.PIPE, check=True).stdout


@pytest.fixture
def archive(tmp_path: Path) -> Iterator[Archive]:
    made = Archive(tmp_path / "archive")
    yield made
    made.close()


@pytest.fixture
def indices(archive: Archive, tmp_path: Path) -> Iterator[Callable[..., Indices]]:
    """The archive's indices as apt fetches them; pockets follow the suite 'test'."""
    archive.publish()
    with archive.serve() as address:
        @functools.cache
        def fetch(arch: str, *pockets: str) -> Indices:
            archive.publish()
            sources = [Source(host_uri=address, guest_uri=address, suite=suite, components=("main",), pocket=pocket)
                       for suite, pocket in (("test", ""), *((f"test-{pocket}", pocket) for pocket in pockets))]
            scratch = tmp_path / f"indices-{arch}"
            scratch.mkdir()
            return fetch_indices(sources, arch, [archive.keyring], scratch)
        yield fetch


def obtain(indices: Callable[..., Indices], tmp_path: Path, distro: str = "debian", arch: str = "amd64",
           *pockets: str) -> kernel.Kernel:
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    return kernel.obtain(distro=distro, arch=arch, indices=lambda arch: indices(arch, *pockets), scratch=scratch)


def add(archive: Archive, tmp_path: Path, name: str, version: str = "6.1.9-1", *, arch: str = "amd64",
        depends: str = "", suite: str = "test", content: Mapping[str, bytes | Path] | None = None) -> Path:
    deb = make_deb(tmp_path / "debs", name, version, arch=arch, depends=depends, files=content)
    archive.add_deb(deb, suite)
    return deb


def test_debian(archive: Archive, indices: Callable[..., Indices], tmp_path: Path) -> None:
    archive.add_suite("test")
    add(archive, tmp_path, "linux-image-cloud-amd64", depends="linux-image-6.1.0-9-cloud-amd64 (= 6.1.9-1)")
    deb = add(archive, tmp_path, "linux-image-6.1.0-9-cloud-amd64",
              depends="kmod, linux-base, initramfs-tools | dracut",
              content=files("6.1.0-9-cloud-amd64", BASE, built_in="kernel/fs/ext4/ext4.ko\n"))
    found = obtain(indices, tmp_path)
    assert found.release == "6.1.0-9-cloud-amd64"
    assert found.image == b"the kernel 6.1.0-9-cloud-amd64"
    assert list(found.modules) == ["virtio_ring", "virtio", "virtio_pci", "virtio_blk", "failover", "net_failover",
                                   "virtio_net", "virtio_rng"]
    assert all(found.modules[name] == BASE[name] for name in found.modules)
    (package,) = found.packages
    said = subprocess.run(["sha256sum", deb], stdout=subprocess.PIPE, check=True).stdout.decode()
    assert (package.name, package.version, package.architecture, package.sha256) == (
        "linux-image-6.1.0-9-cloud-amd64", "6.1.9-1", "amd64", said.split()[0])


def test_debian_trixie_packs_its_modules_and_has_them_elsewhere(archive: Archive, indices: Callable[..., Indices],
                                                               tmp_path: Path) -> None:
    archive.add_suite("test")
    add(archive, tmp_path, "linux-image-cloud-amd64", depends="linux-image-6.12.5+deb13-cloud-amd64 (= 6.1.9-1)")
    add(archive, tmp_path, "linux-image-6.12.5+deb13-cloud-amd64", content=files(
        "6.12.5+deb13-cloud-amd64", BASE | EXT4, top="/usr/lib/modules", ending=".ko.xz"))
    found = obtain(indices, tmp_path)
    assert found.release == "6.12.5+deb13-cloud-amd64"
    assert found.modules["ext4"] == EXT4["ext4"]
    names = list(found.modules)
    assert names.index("jbd2") < names.index("ext4") > names.index("mbcache")
    assert "crc32c_generic" in names
    assert "nfs" not in names


def test_ubuntu_has_image_and_modules_apart(archive: Archive, indices: Callable[..., Indices], tmp_path: Path) -> None:
    archive.add_suite("test", origin="Ubuntu")
    release = "6.8.0-31-generic"
    add(archive, tmp_path, "linux-image-virtual", depends=f"linux-image-{release}, linux-modules-extra-none")
    add(archive, tmp_path, f"linux-image-{release}", content=files(release, {}),
        depends=f"kmod, linux-base (>= 4.5ubuntu1~16.04.1), linux-modules-{release}")
    add(archive, tmp_path, f"linux-modules-{release}", content=files(
        release, {"failover": BASE["failover"], "net_failover": BASE["net_failover"], "virtio_rng": BASE["virtio_rng"]},
        ending=".ko.zst", image=False, built_in="kernel/fs/ext4/ext4.ko\nkernel/drivers/virtio/virtio_pci.ko\n"
        "kernel/drivers/virtio/virtio.ko\nkernel/drivers/block/virtio_blk.ko\nkernel/drivers/net/virtio_net.ko\n"))
    found = obtain(indices, tmp_path, "ubuntu")
    assert [package.name for package in found.packages] == [f"linux-image-{release}", f"linux-modules-{release}"]
    assert found.modules == {"virtio_rng": BASE["virtio_rng"]}


def test_i386_has_a_kernel_of_its_own(archive: Archive, indices: Callable[..., Indices], tmp_path: Path) -> None:
    archive.add_suite("test", architectures=("amd64", "i386"))
    add(archive, tmp_path, "linux-image-686-pae", arch="i386", depends="linux-image-6.1.0-9-686-pae (= 6.1.9-1)")
    add(archive, tmp_path, "linux-image-6.1.0-9-686-pae", arch="i386",
        content=files("6.1.0-9-686-pae", BASE | EXT4))
    found = obtain(indices, tmp_path, arch="i386")
    assert [(package.name, package.architecture) for package in found.packages] == [
        ("linux-image-6.1.0-9-686-pae", "i386")]


def test_i386_without_one_has_the_amd64_kernel(archive: Archive, indices: Callable[..., Indices],
                                               tmp_path: Path) -> None:
    archive.add_suite("test", architectures=("amd64", "i386"))
    add(archive, tmp_path, "linux-image-cloud-amd64", depends="linux-image-6.12.1-cloud-amd64 (= 6.1.9-1)")
    add(archive, tmp_path, "linux-image-6.12.1-cloud-amd64", content=files("6.12.1-cloud-amd64", BASE | EXT4))
    found = obtain(indices, tmp_path, arch="i386")
    assert [package.architecture for package in found.packages] == ["amd64"]


def test_the_newest_of_all_pockets(archive: Archive, indices: Callable[..., Indices], tmp_path: Path) -> None:
    archive.add_suite("test")
    archive.add_suite("test-security")
    for version, suite in (("6.1.9-1", "test"), ("6.1.10-1", "test-security")):
        add(archive, tmp_path, "linux-image-cloud-amd64", version, suite=suite, depends=f"linux-image-{version}-cloud")
        add(archive, tmp_path, f"linux-image-{version}-cloud", version, suite=suite,
            content=files(f"{version}-cloud", BASE | EXT4))
    assert obtain(indices, tmp_path, "debian", "amd64", "security").release == "6.1.10-1-cloud"


def test_no_kernel(archive: Archive, indices: Callable[..., Indices], tmp_path: Path) -> None:
    archive.add_suite("test")
    add(archive, tmp_path, "hello")
    with pytest.raises(ImageError, match="'linux-image-cloud-amd64:amd64', 'linux-image-amd64:amd64'.*127.0.0.1.* test"
                       ) as caught:
        obtain(indices, tmp_path)
    assert "--without security" in str(caught.value.hint)


def test_a_kernel_without_disks(archive: Archive, indices: Callable[..., Indices], tmp_path: Path) -> None:
    archive.add_suite("test")
    few = {name: data for name, data in BASE.items() if name != "virtio_blk"}
    add(archive, tmp_path, "linux-image-amd64", depends="linux-image-6.1.0-1-amd64")
    add(archive, tmp_path, "linux-image-6.1.0-1-amd64", content=files("6.1.0-1-amd64", few | EXT4))
    with pytest.raises(ImageError, match="'6.1.0-1-amd64' has neither built in nor as a module 'virtio_blk'"):
        obtain(indices, tmp_path)


def test_a_pocket_that_lists_what_it_does_not_have(archive: Archive, indices: Callable[..., Indices],
                                                   tmp_path: Path) -> None:
    archive.add_suite("test")
    archive.add_suite("test-security")
    deb = add(archive, tmp_path, "linux-image-cloud-amd64", suite="test-security")
    found = indices("amd64", "security")
    (archive.root / "pool/main" / deb.name).unlink()
    with pytest.raises(FetchError, match="test-security' lists 'linux-image-cloud-amd64' 6.1.9-1") as caught:
        packages.fetch(found, "linux-image-cloud-amd64", tmp_path)
    assert "--without security" in str(caught.value.hint)


def test_a_package_that_is_another_than_was_signed(archive: Archive, indices: Callable[..., Indices], tmp_path: Path,
                                                   monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gitian.images.archive.PAUSES", ())
    archive.add_suite("test")
    deb = add(archive, tmp_path, "busybox-static", content={"/bin/busybox": b"good"})
    found = indices("amd64")
    pooled = archive.root / "pool/main" / deb.name
    pooled.write_bytes(pooled.read_bytes().replace(b"good", b"evil"))
    with pytest.raises(FetchError):
        packages.fetch(found, "busybox-static", tmp_path)


def test_no_such_package(archive: Archive, indices: Callable[..., Indices], tmp_path: Path) -> None:
    archive.add_suite("test")
    add(archive, tmp_path, "hello")
    with pytest.raises(ImageError, match="None of these sources has the package 'busybox-static' for 'amd64'"):
        packages.fetch(indices("amd64"), "busybox-static", tmp_path)


def test_other_distros_have_no_kernel() -> None:
    with pytest.raises(ImageError, match="'plan9'"):
        kernel.choose("plan9", "amd64")


def test_the_ram_disk_is_the_same_for_the_same_parts() -> None:
    parts = kernel.Kernel(release="1", image=b"", modules={"b": b"1", "a": b"2"}, packages=())
    made = initrd.build(kernel=parts, busybox=b"busybox")
    assert made == initrd.build(kernel=parts, busybox=b"busybox")
    # The order of loading is that of the names.
    assert made.index(b"modules/00-b.ko\0") < made.index(b"modules/01-a.ko\0")
    for name in (b"init", b"bin/sh", b"bin/switch_root", b"gitian/init", b"gitian/poweroff", b"gitian/sshd_config"):
        assert b"\0" + name + b"\0" in made or name + b"\0" in made
    for script in ("initrd-init", "guest-init", "guest-poweroff", "guest-sshd_config"):
        assert (data_directory("target-bin") / script).read_bytes() in made


@pytest.mark.parametrize("script", ["initrd-init", "guest-init", "guest-poweroff"])
def test_the_scripts_are_shell(script: str) -> None:
    subprocess.run(["busybox", "sh", "-n", data_directory("target-bin") / script], check=True)


def test_the_first_script_calls_nothing_that_is_not_there() -> None:
    text = (data_directory("target-bin") / "initrd-init").read_text()
    words = {line.split()[0] for line in text.splitlines() if line.strip() and not line.strip().startswith("#")}
    commands = {word for word in words if word.isalpha() and word.islower()}
    shell = {"fail", "exec", "for", "do", "done", "if", "then", "fi", "while", "case", "esac", "until", "echo", "cd",
             "exit", "rm"}
    assert commands - shell <= set(initrd._APPLETS)
