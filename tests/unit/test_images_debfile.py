"""Packages of anybody: what is read of them writes nowhere else, and is bounded."""

from __future__ import annotations

import gzip
import io
import lzma
import subprocess
import tarfile
from pathlib import Path

import pytest

from gitian.errors import FormatError, HostError, ImageError
from gitian.images import debfile, kernel, kvm
from gitian.images.packages import Package
from tests.fakes.archive import make_deb
from tests.fakes.modules import module

RELEASE = "6.1.0-9"
TOP = f"/lib/modules/{RELEASE}/kernel"
PARTS = {f"{TOP}/{name}.ko": module() for name in ("virtio_pci", "virtio_blk", "virtio_net", "ext4")}
IMAGE = {f"/boot/vmlinuz-{RELEASE}": b"the kernel"}


def package(deb: Path) -> Package:
    name, version, architecture = deb.stem.split("_")
    return Package(name=name, version=version, architecture=architecture, sha256="0" * 64, path=deb)


def archive(*members: tuple[str, bytes]) -> bytes:
    """A tar archive of regular files, compressed."""
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w") as tar:
        for name, content in members:
            about = tarfile.TarInfo(name)
            about.size = len(content)
            tar.addfile(about, io.BytesIO(content))
    return gzip.compress(data.getvalue(), 1)


def hand_made(path: Path, control: bytes, data: bytes) -> Path:
    """A package of these two archives (deb(5))."""
    text = b"!<arch>\n"
    for name, body in ((b"debian-binary", b"2.0\n"), (b"control.tar.gz", control), (b"data.tar.gz", data)):
        text += b"%-16s%-12d%-6d%-6d%-8s%-10d`\n" % (name, 1_700_000_000, 0, 0, b"100644", len(body))
        text += body + b"\n" * (len(body) % 2)
    path.write_bytes(text)
    return path


@pytest.fixture
def scratch(tmp_path: Path) -> Path:
    directory = tmp_path / "scratch"
    directory.mkdir()
    return directory


CONTROL = b"Package: x\nVersion: 1\nArchitecture: all\nMaintainer: T <t@example.org>\nDescription: x\n"


def test_a_package_cannot_write_through_another_one_s_link(tmp_path: Path, scratch: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "secret").write_bytes(b"the host's")
    debs = tmp_path / "debs"
    link = make_deb(debs, "link", links={"/boot": str(outside), "/lib/modules": str(outside)})
    # Without the directories themselves among its members, which would take the link's place.
    file = hand_made(debs / "file_1_all.deb", archive(("./control", CONTROL)), archive(
        *((f".{name}", content) for name, content in {**IMAGE, **PARTS, "/boot/pwned": b"x"}.items())))
    found = kernel.unpacked([package(link), package(file)], scratch)
    assert found.image == b"the kernel" and set(found.modules) == {"virtio_pci", "virtio_blk", "virtio_net", "ext4"}
    assert [path.name for path in outside.iterdir()] == ["secret"]


@pytest.mark.parametrize("links", [{f"/boot/vmlinuz-{RELEASE}": "OUTSIDE/secret"}, {"/boot": "OUTSIDE"}])
def test_a_package_cannot_have_a_file_of_this_machine_read(tmp_path: Path, scratch: Path,
                                                          links: dict[str, str]) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    for name in ("secret", f"vmlinuz-{RELEASE}"):
        (outside / name).write_bytes(b"the host's")
    links = {name: target.replace("OUTSIDE", str(outside)) for name, target in links.items()}
    deb = make_deb(tmp_path / "debs", "link", links=links)
    with pytest.raises(ImageError, match="0 kernels instead of one"):
        kernel.unpacked([package(deb)], scratch)
    with pytest.raises(ImageError, match="holds no program"):
        busybox = make_deb(tmp_path / "debs", "busybox-static", links={"/bin": str(outside)})
        kvm._program(package(busybox), scratch)


def test_the_program_of_busybox(tmp_path: Path) -> None:
    for number, (place, content) in enumerate((("/bin/busybox", b"old"), ("/usr/bin/busybox", b"new"))):
        deb = make_deb(tmp_path / "debs", "busybox-static", files={place: content, "/usr/share/doc/x": b"x"})
        assert kvm._program(package(deb), tmp_path / f"scratch-{number}") == content


def _zstd(data: bytes) -> bytes:
    return subprocess.run(["zstd", "-q", "-c"], input=data, stdout=subprocess.PIPE, check=True).stdout


@pytest.mark.parametrize(("ending", "squeeze"), [
    ("xz", lzma.compress), ("gz", gzip.compress), ("zst", _zstd)])
def test_a_module_that_is_a_bomb_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ending: str,
                                            squeeze: object) -> None:
    assert callable(squeeze)
    monkeypatch.setattr(kernel, "_MODULE_LIMIT", 2**20)
    for number, content in enumerate((module() + bytes(2**20 + 1), b"")):
        packed = squeeze(content) if content else b"nothing that was ever compressed"
        deb = make_deb(tmp_path / "debs", "kernel", files={
            **IMAGE, **PARTS, f"{TOP}/virtio_pci.ko": b"", f"{TOP}/x/virtio_pci.ko.{ending}": packed})
        with pytest.raises(FormatError, match=f"virtio_pci.ko.{ending}' (has more than|cannot be uncompressed)"):
            kernel.unpacked([package(deb)], tmp_path / f"scratch-{number}")


def test_modules_that_need_each_other_without_end_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    chain = {f"{TOP}/m{number}.ko": module(f"depends=m{number + 1}") for number in range(1100)}
    deb = make_deb(tmp_path / "debs", "kernel", files={
        **IMAGE, **PARTS, **chain, f"{TOP}/ext4.ko": module("depends=m0")})
    with pytest.raises(FormatError, match="cannot be used"):
        kernel.unpacked([package(deb)], tmp_path / "scratch")
    monkeypatch.setattr(kernel, "_MODULES_LIMIT", len(module()))
    deb = make_deb(tmp_path / "debs", "kernel", files={**IMAGE, **PARTS})
    with pytest.raises(FormatError, match="with what it needs"):
        kernel.unpacked([package(deb)], tmp_path / "again")


def test_what_is_taken_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    deb = hand_made(tmp_path / "x_1_all.deb", archive(("./control", CONTROL)),
                    archive(("./boot/a", bytes(2000)), ("boot//b", b"b"), ("../boot/c", b"c"), ("./d", b"d")))
    found = debfile.take(deb, tmp_path / "all", lambda name: name.startswith("boot/"))
    assert {name: path.read_bytes() for name, path in found.items()} == {"boot/a": bytes(2000), "boot/b": b"b"}
    assert len(list((tmp_path / "all").iterdir())) == 2
    for name, value in (("FILE_LIMIT", 1999), ("_TAKEN_LIMIT", 1999), ("_NUMBER_LIMIT", 1)):
        with monkeypatch.context() as patch, pytest.raises(ImageError, match="more or larger files"):
            patch.setattr(debfile, name, value)
            debfile.take(deb, tmp_path / name, lambda name: True)
    with pytest.raises(HostError):
        debfile.take(deb, tmp_path / "all", lambda name: True)


@pytest.mark.parametrize("part", ["--ctrl-tarfile", "--fsys-tarfile"])
def test_no_more_is_read_than_a_package_has(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, part: str) -> None:
    """A control archive of much, before its control file, or anything of it, is reached."""
    monkeypatch.setitem(debfile._STREAM_LIMITS, part, 2**20)
    much = ("./much", bytes(2**23))
    deb = hand_made(tmp_path / "x_1_all.deb", archive(much, ("./control", CONTROL)), archive(much, ("./boot/a", b"a")))
    with pytest.raises(ImageError, match=r"more than 1048576 bytes"):
        if part == "--ctrl-tarfile":
            debfile.control(deb)
        else:
            debfile.take(deb, tmp_path / "taken", lambda name: name == "boot/a")


def test_the_control_file(tmp_path: Path) -> None:
    data = archive(("./x", b"x"))
    much = ("./much", bytes(2**27))
    assert debfile.control(hand_made(tmp_path / "x_1_all.deb", archive(("./control", CONTROL), much), data)) == CONTROL
    for control, message in ((archive(("./control", bytes(debfile.CONTROL_LIMIT + 1))), "has more than"),
                             (archive(("./kontrol", CONTROL)), "has no control file"),
                             (b"nothing", "that 'dpkg-deb' can read"),
                             (archive(("./a", bytes(2**20)))[:-900], "that 'dpkg-deb' can read")):
        with pytest.raises(ImageError, match=message):
            debfile.control(hand_made(tmp_path / "y_1_all.deb", control, data))
    (tmp_path / "z_1_all.deb").write_bytes(b"!<arch>\nnothing")
    with pytest.raises(ImageError, match="that 'dpkg-deb' can read: dpkg-deb: error"):
        debfile.control(tmp_path / "z_1_all.deb")
