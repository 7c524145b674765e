"""Where a page is written: files whole or not at all, devices, pipes and links never replaced."""

from __future__ import annotations

import os
import stat
import threading
from pathlib import Path

import pytest

from gitian.errors import HostError, UsageError
from gitian.host import destination


def write(path: Path, data: bytes = b"page") -> None:
    destination.check(path)
    with destination.writing(path) as file:
        file.write(data)


def test_a_new_file(tmp_path: Path) -> None:
    write(tmp_path / "page.html")
    assert (tmp_path / "page.html").read_bytes() == b"page"
    assert os.listdir(tmp_path) == ["page.html"]


def test_a_file_is_replaced_whole_and_keeps_its_mode(tmp_path: Path) -> None:
    path = tmp_path / "page.html"
    path.write_bytes(b"old")
    path.chmod(0o640)
    with path.open("rb") as reader:
        with destination.writing(path) as file:
            file.write(b"new page")
            file.flush()
            assert path.read_bytes() == b"old"
        assert reader.read() == b"old"
    assert path.read_bytes() == b"new page"
    assert stat.S_IMODE(path.stat().st_mode) == 0o640


def test_what_fails_leaves_all_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "page.html"
    path.write_bytes(b"old")
    with pytest.raises(RuntimeError), destination.writing(path) as file:
        file.write(b"half")
        raise RuntimeError
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["page.html"]


def test_a_full_device_stays_one(tmp_path: Path) -> None:
    """A prototype renamed a file over /dev/full, which root may do."""
    before = Path("/dev/full").lstat()
    with pytest.raises(HostError, match="No space left"):
        write(Path("/dev/full"), b"x" * 100_000)
    after = Path("/dev/full").lstat()
    assert stat.S_ISCHR(after.st_mode) and (after.st_ino, after.st_rdev) == (before.st_ino, before.st_rdev)


def test_the_null_device(tmp_path: Path) -> None:
    write(Path("/dev/null"))
    assert stat.S_ISCHR(Path("/dev/null").lstat().st_mode)


def test_a_pipe_is_written_into(tmp_path: Path) -> None:
    path = tmp_path / "pipe"
    os.mkfifo(path)
    got: list[bytes] = []
    reader = threading.Thread(target=lambda: got.append(path.read_bytes()), daemon=True)
    reader.start()
    write(path)
    reader.join(60)
    assert got == [b"page"]
    assert stat.S_ISFIFO(path.lstat().st_mode)


@pytest.mark.parametrize("exists", [True, False])
def test_a_link_stays_one(tmp_path: Path, exists: bool) -> None:
    target = tmp_path / "target"
    if exists:
        target.write_bytes(b"something longer than the page")
    (tmp_path / "link").symlink_to("target")
    write(tmp_path / "link")
    assert (tmp_path / "link").is_symlink()
    assert target.read_bytes() == b"page"


@pytest.mark.parametrize("name", ["/dev/fd/{}", "/proc/self/fd/{}"])
def test_an_open_file_goes_on_where_it_is(tmp_path: Path, name: str) -> None:
    """Opened anew, '/dev/stdout' of a regular file would be cut to nothing, and what was printed be lost."""
    with (tmp_path / "out").open("wb") as file:
        file.write(b"first ")
        file.flush()
        with destination.writing(Path(name.format(file.fileno()))) as page:
            page.write(b"page")
    assert (tmp_path / "out").read_bytes() == b"first page"


def test_what_cannot_be(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "none" / "page.html"):
        with pytest.raises(UsageError):
            destination.check(path)
    (tmp_path / "link").symlink_to(".")
    with pytest.raises(UsageError, match="is a directory"):
        destination.check(tmp_path / "link")
    with pytest.raises(HostError, match="cannot be written"), destination.writing(tmp_path / "none" / "page.html"):
        pass


def test_a_file_that_becomes_a_pipe_meanwhile_is_not_replaced(tmp_path: Path) -> None:
    path = tmp_path / "page.html"
    with pytest.raises(HostError, match="not replaced"), destination.writing(path) as file:
        file.write(b"page")
        os.mkfifo(path)
    assert stat.S_ISFIFO(path.lstat().st_mode)
    assert os.listdir(tmp_path) == ["page.html"]
