"""Records of base images, and finding an image by them."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest

from gitian.errors import FormatError, ImageError
from gitian.formats.image_record import ImageRecord, InstalledPackage, SourceIndex
from gitian.images.lookup import find_image
from gitian.images.record import ImageFiles

SHA = "ab" * 32
RECORD = ImageRecord(
    distro="debian", suite="bookworm", architecture="amd64", mirror="http://archive.example/debian", epoch=1700000000,
    tarball_sha256=SHA, tarball_size=12345, sources=("deb http://archive.example/debian bookworm main",),
    indices=(SourceIndex(uri="http://archive.example/debian", suite="bookworm", date="2023-11-14T22:13:20Z",
                         sha256=SHA),),
    packages=(InstalledPackage(name="bash", architecture="amd64", version="1:5.2", sha256=SHA),), made_by="a test",
    lxc={"uid": 100000, "gid": 100000, "tarball_sha256": SHA}, kvm={"tarball_sha256": SHA}, without=("security",))


def test_a_record_is_read_as_it_was_written() -> None:
    assert ImageRecord.parse(RECORD.to_json().encode(), "x.json") == RECORD


@pytest.mark.parametrize("change", [
    {"version": 2}, {"distro": 1}, {"epoch": "now"}, {"epoch": -1}, {"epoch": True}, {"tarball_sha256": "AB" * 32},
    {"tarball_sha256": SHA + "\n"}, {"packages": {}}, {"packages": [1]}, {"packages": [{"name": "x"}]},
    {"sources": [None]}, {"lxc": []}, {"kvm": "yes"}, {"indices": None},
])
def test_a_record_of_another_shape_is_refused(change: dict[str, Any]) -> None:
    value = {**json.loads(RECORD.to_json()), **change}
    with pytest.raises(FormatError, match=r"The record 'x\.json' of a base image cannot be read"):
        ImageRecord.parse(json.dumps(value).encode(), "x.json")


@pytest.mark.parametrize("data", [b"", b"{", b"[]", b"null", b"\xff", b"[" * 100000, b'{"version": 1}'])
def test_what_is_no_record_is_refused(data: bytes) -> None:
    with pytest.raises(FormatError):
        ImageRecord.parse(data, "x.json")


@pytest.fixture
def files(tmp_path: Path) -> ImageFiles:
    """A whole base image of both kinds, as far as looking for it goes."""
    files = ImageFiles(directory=tmp_path, suite="bookworm", arch="amd64")
    files.lxc.mkdir()
    for path in (files.kvm, files.kernel, files.initrd, files.tarball):
        path.write_bytes(b"")
    files.write_record(RECORD)
    return files


def find(files: ImageFiles, backend: str, distro: str = "debian") -> Path:
    return find_image(files.directory, "bookworm", "amd64", backend, distro).path


def test_an_image_is_found(files: ImageFiles) -> None:
    assert find(files, "lxc") == files.directory / "base-bookworm-amd64"
    disk = find_image(files.directory, "bookworm", "amd64", "kvm", "debian")
    assert (disk.path, disk.kernel, disk.initrd) == tuple(
        files.directory / f"base-bookworm-amd64.{kind}" for kind in ("qcow2", "vmlinuz", "initrd"))
    assert disk.record == RECORD


@pytest.mark.parametrize("backend", ["lxc", "kvm"])
def test_a_missing_image_tells_how_to_make_it(tmp_path: Path, backend: str) -> None:
    with pytest.raises(ImageError, match="There is no base image for bookworm amd64") as caught:
        find_image(tmp_path, "bookworm", "amd64", backend, "debian")
    command = "make-base-vm --distro debian --suite bookworm --arch amd64" + (" --lxc" if backend == "lxc" else "")
    assert f"'{command}'" in str(caught.value.hint)


def test_a_classics_image_is_not_taken_for_ours(files: ImageFiles) -> None:
    files.lxc.rmdir()
    files.lxc.write_bytes(b"a file system in a file")
    with pytest.raises(ImageError, match="is no directory"):
        find(files, "lxc")
    files.record.unlink()
    with pytest.raises(ImageError, match="was not made by this make-base-vm"):
        find(files, "kvm")


@pytest.mark.parametrize(("change", "message"), [
    ({"lxc": None, "kvm": None}, "not finished"), ({"distro": "ubuntu"}, "is of ubuntu, but debian is wanted"),
    ({"tarball_sha256": "cd" * 32}, "another root filesystem"),
])
@pytest.mark.parametrize("backend", ["lxc", "kvm"])
def test_an_image_that_is_not_what_its_record_says_is_refused(files: ImageFiles, change: dict[str, Any],
                                                              message: str, backend: str) -> None:
    files.write_record(dataclasses.replace(RECORD, **change))
    with pytest.raises(ImageError, match=message) as caught:
        find(files, backend)
    assert "make-base-vm" in str(caught.value.hint)


def test_a_spoiled_record_is_an_error_of_the_image(files: ImageFiles) -> None:
    files.record.write_bytes(b"{")
    with pytest.raises(ImageError, match=r"base-bookworm-amd64\.json"):
        find(files, "lxc")


@pytest.mark.parametrize("lost", ["kernel", "initrd"])
def test_a_disk_without_its_kernel_is_refused(files: ImageFiles, lost: str) -> None:
    path = getattr(files, lost)
    path.unlink()
    with pytest.raises(ImageError, match=path.name):
        find(files, "kvm")
    find(files, "lxc")
