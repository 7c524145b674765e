"""Filesystems filled from a tar archive, judged by e2fsck and read back by debugfs."""

from __future__ import annotations

import io
import os
import random
import re
import subprocess
import tarfile
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import pytest

from gitian.errors import ImageError
from gitian.images import ext4

ENVIRONMENT = {"PATH": "/usr/local/sbin:/usr/sbin:/sbin:/usr/local/bin:/usr/bin:/bin", "LC_ALL": "C.UTF-8", "TZ": "UTC"}
Member = tuple[tarfile.TarInfo, bytes]


def member(name: str, kind: bytes = tarfile.REGTYPE, data: bytes = b"", *, mode: int = 0o644, uid: int = 0,
           gid: int = 0, mtime: float = 1_000_000_000, link: str = "",
           attributes: dict[str, str] | None = None) -> Member:
    info = tarfile.TarInfo(name)
    info.type, info.size, info.mode, info.uid, info.gid, info.mtime = kind, len(data), mode, uid, gid, mtime
    info.linkname = link
    info.pax_headers = {f"SCHILY.xattr.{key}": value for key, value in (attributes or {}).items()}
    return info, data


def write(path: Path, members: Iterable[Member]) -> Path:
    with tarfile.open(path, "w", format=tarfile.PAX_FORMAT) as archive:
        for info, data in members:
            archive.addfile(info, io.BytesIO(data))
    return path


@pytest.fixture
def fill(tmp_path: Path) -> Callable[..., Path]:
    def make(members: Sequence[Member], megabytes: int = 64, name: str = "disk") -> Path:
        image = tmp_path / f"{name}.img"
        ext4.fill(tarball=write(tmp_path / f"{name}.tar", members), image=image, megabytes=megabytes,
                  epoch=1_500_000_000, identity="debian/bookworm/amd64")
        return image
    return make


def tool(*argv: str | Path) -> str:
    done = subprocess.run(argv, env=ENVIRONMENT, stdin=subprocess.DEVNULL, capture_output=True, timeout=300,
                          check=False)
    assert done.returncode == 0, (argv, done.stdout, done.stderr)
    return done.stdout.decode(errors="replace")


def sound(image: Path) -> Path:
    """Have e2fsck look at everything and find nothing to complain about."""
    tool("e2fsck", "-fn", image)
    return image


def about(image: Path, path: str) -> dict[str, str]:
    text = tool("debugfs", "-R", f'stat "{path}"', image)
    # The first 'Size' is the file's; there are others further down.
    found = dict(re.findall(r"(Type|Mode|User|Group|Size|Links|mtime): *(\S+)", text)[::-1])
    assert found, f"{path} is not there: {text}"
    target = re.search(r'Fast link dest: "(.*)"', text)
    return {**found, **({"target": target[1]} if target else {})}


def contents(image: Path, path: str) -> bytes:
    out = image.with_suffix(".out")
    out.unlink(missing_ok=True)
    tool("debugfs", "-R", f'dump "{path}" {out}', image)
    return out.read_bytes()


def listed(image: Path, path: str = "/") -> set[str]:
    text = tool("debugfs", "-R", f'ls -p "{path}"', image)
    return {line.split("/")[5] for line in text.splitlines() if line.count("/") >= 6} - {".", ".."}


def test_owners_modes_times_and_kinds(fill: Callable[..., Path]) -> None:
    image = sound(fill([
        member("./", tarfile.DIRTYPE, mode=0o751, mtime=5),
        member("./bin", tarfile.SYMTYPE, link="usr/bin"),
        member("./usr/", tarfile.DIRTYPE, mode=0o755),
        member("./usr/bin/", tarfile.DIRTYPE, mode=0o2755, gid=50),
        member("./usr/bin/sudo", data=b"#!" + bytes(9000), mode=0o4755),
        member("./usr/bin/sudoedit", tarfile.LNKTYPE, link="./usr/bin/sudo"),
        member("./home/", tarfile.DIRTYPE),
        member("./home/user", data=b"hello\n", mode=0o600, uid=70000, gid=1000, mtime=2**32 + 7),
        member("./empty", data=b""),
        member("./pipe", tarfile.FIFOTYPE, mode=0o640),
        member("./long", tarfile.SYMTYPE, link="x" * 60),
        member("./dev/", tarfile.DIRTYPE),
        member("./dev/null", tarfile.CHRTYPE),
        member("./dev/sda", tarfile.BLKTYPE),
    ]))
    assert listed(image) == {"bin", "usr", "home", "empty", "pipe", "long", "dev"}
    assert listed(image, "/dev") == set()
    assert about(image, "/")["Mode"] == "0751"
    assert about(image, "/bin")["target"] == "usr/bin"
    assert about(image, "/usr/bin")["Mode"] == "02755"
    assert about(image, "/usr/bin")["Group"] == "50"
    assert {key: about(image, "/usr/bin/sudo")[key] for key in ("Mode", "User", "Size", "Links")} == {
        "Mode": "04755", "User": "0", "Size": "9002", "Links": "2"}
    assert contents(image, "/usr/bin/sudoedit") == b"#!" + bytes(9000)
    user = about(image, "/home/user")
    assert (user["Mode"], user["User"], user["Group"]) == ("0600", "70000", "1000")
    # 32 bits of seconds, then (shifted by two bits of nanoseconds' neighbours) the bits above them.
    assert user["mtime"].rstrip(":") == "0x00000007:00000001"
    assert contents(image, "/home/user") == b"hello\n"
    assert about(image, "/pipe")["Type"] == "FIFO"
    assert about(image, "/long")["Size"] == "60"
    assert contents(image, "/empty") == b""


def test_large_directories_and_names(fill: Callable[..., Path]) -> None:
    names = [f"file-{number:04}-{'n' * (number % 200)}" for number in range(1500)] + ["ä b'c", "n" * 255]
    image = sound(fill([member("d/", tarfile.DIRTYPE), *(member(f"d/{name}", data=name.encode()) for name in names)]))
    assert listed(image, "/d") == set(names)
    assert contents(image, f"/d/{names[1234]}") == names[1234].encode()


def test_contents_across_groups_and_backups(fill: Callable[..., Path]) -> None:
    # A group has 128 MB; the second one starts with a copy of the superblock, which the file must go around.
    data = random.Random(1).randbytes(1 << 20)
    image = sound(fill([member("large", data=data * 160), member("after", data=b"after")], megabytes=400))
    assert contents(image, "/large") == data * 160
    assert contents(image, "/after") == b"after"


def test_a_file_in_many_pieces(fill: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> None:
    allocate = ext4._Filesystem.allocate

    def scattered(self: ext4._Filesystem, blocks: int) -> list[tuple[int, int]]:
        return [(block, 1) for first, length in allocate(self, blocks)[::-1]
                for block in range(first + length - 1, first - 1, -1)]

    monkeypatch.setattr(ext4._Filesystem, "allocate", scattered)
    data = random.Random(2).randbytes(4096 * 700 - 5)
    image = sound(fill([member("large", data=data), member("small", data=data[:20000])]))
    assert contents(image, "/large") == data
    assert contents(image, "/small") == data[:20000]


def test_sparse_members(tmp_path: Path) -> None:
    with (tmp_path / "holes").open("wb") as file:
        file.seek(3_000_000)
        file.write(b"end")
    tool("tar", "-C", tmp_path, "-cSf", tmp_path / "sparse.tar", "holes")
    image = tmp_path / "disk.img"
    ext4.fill(tarball=tmp_path / "sparse.tar", image=image, megabytes=64, epoch=0, identity="x")
    assert contents(sound(image), "/holes") == bytes(3_000_000) + b"end"


def test_attributes(fill: Callable[..., Path]) -> None:
    # cap_net_raw as setcap writes it: no byte of it is beyond ASCII, so that the archive's header holds it as it is.
    capability = "\x01\0\0\x02\0 " + "\0" * 14
    attributes = {"security.capability": capability, "user.note": "hello"}
    image = sound(fill([member("ping", data=b"p", attributes=attributes)]))
    assert "user.note" in tool("debugfs", "-R", "ea_list /ping", image)
    assert tool("debugfs", "-R", "ea_get /ping user.note", image).strip() == "user.note (5) = \"hello\""
    out = image.with_suffix(".ea")
    tool("debugfs", "-R", f"ea_get -f {out} /ping security.capability", image)
    assert out.read_bytes() == capability.encode()


def test_the_same_bytes_again(fill: Callable[..., Path]) -> None:
    members = [member("./", tarfile.DIRTYPE), member("b", data=b"1" * 5000), member("a", data=b"2")]
    first, second = fill(members, name="one").read_bytes(), fill(members, name="two").read_bytes()
    assert first == second
    superblock = first[1024:2048]
    # s_wtime, s_lastcheck and s_mkfs_time (Documentation/filesystems/ext4/super.rst)
    assert {int.from_bytes(superblock[at:at + 4], "little") for at in (0x30, 0x40, 0x108)} == {1_500_000_000}


@pytest.mark.parametrize(("members", "message"), [
    ([member("a", data=bytes(70 << 20))], "does not fit into 64 MB"),
    ([member("../a")], "impossible name"),
    ([member("x" * 256)], "impossible name"),
    ([member("a", tarfile.LNKTYPE, link="b")], "link to 'b', which is not there"),
    ([member("a"), member("a")], "'a' twice"),
    ([member("a"), member("a/b")], "below something that is no directory"),
    ([member("a", attributes={"user.a": "x" * 200})], "attribute 'user.a' is too large"),
])
def test_refused(fill: Callable[..., Path], members: list[Member], message: str) -> None:
    with pytest.raises(ImageError, match=message):
        fill(members)


def test_too_many_files(fill: Callable[..., Path]) -> None:
    with pytest.raises(ImageError, match="does not fit into 16 MB: it has room for"):
        fill([member(f"f{number}") for number in range(2000)], megabytes=16)


def test_a_truncated_archive(tmp_path: Path) -> None:
    whole = write(tmp_path / "a.tar", [member("a", data=bytes(100_000))])
    os.truncate(whole, 50_000)
    with pytest.raises(ImageError, match="cannot be read"):
        ext4.fill(tarball=whole, image=tmp_path / "disk.img", megabytes=64, epoch=0, identity="x")


def test_too_large_a_disk(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match="too large"):
        ext4.fill(tarball=tmp_path / "a.tar", image=tmp_path / "disk.img", megabytes=2**24, epoch=0, identity="x")
