"""Real KVM guests: what a command sees, what gets in and out, what a guest cannot do."""

from __future__ import annotations

import io
import os
import tarfile
import time
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

import pytest

from gitian.errors import GitianError, GuestError, ImageError, OutputError
from gitian.guest.kvm import KvmBackend, KvmGuest
from gitian.guest.protocol import Limits
from gitian.host import process
from tests.integration import kvm_kit

pytestmark = pytest.mark.kvm


@pytest.fixture(scope="module")
def guest(images: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[KvmGuest]:
    """One guest for everything that does not harm it."""
    workspace = tmp_path_factory.mktemp("workspace")
    with kvm_kit.running(workspace, images) as one:
        yield one
    assert kvm_kit.left_behind(workspace) == []


def said(guest: KvmGuest, script: str, *, user: str | None = None) -> str:
    return guest.run(["sh", "-c", script], user=user).stdout.decode().strip()


# What a command sees


def test_what_it_says_of_itself(guest: KvmGuest) -> None:
    # test_contract.py asks a guest of either backend for much more, and compares.
    assert said(guest, "id -un; hostname; uname -m; pwd; umask") == "debian\ngitian\nx86_64\n/home/debian\n0022"
    assert guest.label == "bookworm-amd64" and guest.user == "debian"
    assert guest.acceleration in ("kvm", "tcg")


def test_the_clock_is_the_hosts(guest: KvmGuest) -> None:
    assert abs(float(said(guest, "date +%s.%N")) - time.time()) < 60


# Running


def test_streams_and_status(guest: KvmGuest) -> None:
    result = guest.run(["sh", "-c", "echo out; echo err >&2; exit 7"], check=False)
    assert (result.status, result.stdout, result.stderr) == (7, b"out\n", b"err\n")
    with pytest.raises(GuestError, match="status 7 in the guest: because"):
        guest.run(["sh", "-c", "echo because >&2; exit 7"])
    merged: list[bytes] = []
    guest.run(["sh", "-c", "echo one; echo two >&2; echo three"], output=merged.append)
    assert b"".join(merged) == b"one\ntwo\nthree\n"
    assert guest.run(["sh", "-c", "kill -9 $$"], check=False).status == 137
    assert guest.run(["no-such-program"], check=False).status == 127
    assert guest.run(["pwd"], cwd="/no/such", check=False).status == 126
    words = ["", " ", "a b", "$HOME", "`id`", "'", '"', "\\", "*", "-n", "--", "a\nb", "ü", "\x07"]
    assert guest.run(["printf", "%s\\0", *words]).stdout.decode().split("\0")[:-1] == words
    data = os.urandom(1_000_000)
    assert guest.run(["cat"], input=data, user="root").stdout == data
    assert guest.run(["sh", "-c", "echo $A; pwd"], env={"A": "b c"}, cwd="/var/tmp").stdout == b"b c\n/var/tmp\n"


def test_timeout_ends_the_command_and_what_it_started(guest: KvmGuest) -> None:
    with pytest.raises(GuestError, match="within 2 s"):
        guest.run(["sh", "-c", "sleep 4321 & sleep 4321"], timeout=2)
    assert said(guest, "ps ax -o args | grep -c '[s]leep 4321' || true") == "0"


def greeting(guest: KvmGuest, address: str, port: int, *, user: str | None = None) -> str:
    return said(guest, f"timeout 60 bash -c 'cat </dev/tcp/{address}/{port}' || true", user=user)


def test_the_guest_has_a_network_but_not_what_is_on_the_hosts_loopback(guest: KvmGuest) -> None:
    with kvm_kit.service() as port:
        assert greeting(guest, "10.0.2.2", port, user="root") == "from the host"
        for address in ("10.0.2.2", "10.0.2.1", "10.0.2.4", "10.0.2.15", "127.0.0.1"):
            assert greeting(guest, address, port) == "", address
        # Another user is no way around.
        assert said(guest, f"setpriv --reuid 33 --clear-groups bash -c 'cat </dev/tcp/10.0.2.2/{port}' || true",
                    user="root") == ""
    assert "via 10.0.2.2" in said(guest, "ip route get 192.0.2.1 uid 1000", user="root")
    assert "dev eth0" in said(guest, "ip route get 10.0.2.3 uid 1000", user="root")


def test_the_proxy_on_the_hosts_loopback_can_be_reached(images: Path, tmp_path: Path) -> None:
    with kvm_kit.service() as port, kvm_kit.running(tmp_path, images, environment={"MIRROR_HOST": "localhost"}) as one:
        assert greeting(one, "10.0.2.2", port) == "from the host"


def test_nobody_else_reaches_its_ssh(guest: KvmGuest) -> None:
    own = f"0100007F:{guest.server.port:04X}"
    listening = [line.split()[1] for line in Path("/proc/net/tcp").read_text().splitlines() if " 0A " in line]
    assert [address for address in listening if address.endswith(own[-5:])] == [own], "127.0.0.1 and no other"


# Copying


def test_files_in_and_out(guest: KvmGuest, tmp_path: Path) -> None:
    source = tmp_path / "one"
    source.write_bytes(b"\0\1\2" * 1000)
    source.chmod(0o751)
    os.utime(source, ns=(1, 1_234_567_890_123_456_789))
    counts: list[int] = []
    guest.put(source, PurePosixPath("a/deep/place/other name"), progress=counts.append)
    assert sum(counts) == 3000
    assert said(guest, "stat -c '%a %U %s %.9Y' 'a/deep/place/other name'") == "751 debian 3000 1234567890.123456789"
    guest.get(PurePosixPath("a/deep/place/other name"), tmp_path / "back")
    back = (tmp_path / "back").stat()
    assert (tmp_path / "back").read_bytes() == source.read_bytes()
    assert (back.st_mode & 0o7777, back.st_mtime_ns) == (0o751, 1_234_567_890_123_456_789)
    guest.put(source, PurePosixPath("/root/for-root"), user="root")
    assert said(guest, "stat -c %U /root/for-root", user="root") == "root"
    with pytest.raises(GuestError, match="Permission denied"):
        guest.get(PurePosixPath("/root/for-root"), tmp_path / "no")
    with pytest.raises(GuestError, match="No such file"):
        guest.get(PurePosixPath("nothing"), tmp_path / "no")
    with pytest.raises(GuestError, match="ermission denied"):
        guest.put(source, PurePosixPath("/etc/for-user"))
    assert not (tmp_path / "no").exists()


def test_what_is_there_is_replaced_and_not_written_through(guest: KvmGuest, tmp_path: Path) -> None:
    guest.run(["sh", "-c", "echo precious >target; ln -s target link"])
    (tmp_path / "link").write_text("new")
    guest.put(tmp_path / "link", PurePosixPath("link"))
    assert said(guest, "cat target; cat link; test -L link || echo file") == "precious\nnewfile"


@pytest.mark.parametrize(("member", "why"), [
    ({"name": "../out", "type": tarfile.REGTYPE}, "'..'"),
    ({"name": "/abs", "type": tarfile.REGTYPE}, "absolute"),
    ({"name": "link", "type": tarfile.SYMTYPE, "linkname": "/etc"}, "symbolic link"),
    ({"name": "dev", "type": tarfile.CHRTYPE}, "refused"),
])
def test_a_malicious_tar_is_refused(guest: KvmGuest, tmp_path: Path, member: dict[str, str], why: str) -> None:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as archive:
        evil = tarfile.TarInfo(member["name"])
        evil.type = member["type"]  # type: ignore[assignment]
        evil.linkname = member.get("linkname", "")
        archive.addfile(evil)
    (tmp_path / "evil").write_bytes(stream.getvalue())
    (tmp_path / "tar").write_text("#!/bin/sh\nexec cat /var/tmp/evil\n")
    (tmp_path / "tar").chmod(0o755)
    guest.put(tmp_path / "evil", PurePosixPath("/var/tmp/evil"), user="root")
    guest.put(tmp_path / "tar", PurePosixPath("/usr/local/bin/tar"), user="root")
    inside = tmp_path / "room" / "inside"
    inside.parent.mkdir()
    try:
        with pytest.raises(OutputError, match=why):
            guest.get(PurePosixPath("."), inside)
    finally:
        guest.run(["rm", "/usr/local/bin/tar"], user="root")
    assert [path for path in inside.parent.rglob("*") if path != inside] == []


def test_an_endless_archive_is_cut_off(guest: KvmGuest, tmp_path: Path) -> None:
    guest.run(["sh", "-c", "mkdir -p many; head -c 3000000 /dev/urandom >many/file"])
    with pytest.raises(OutputError, match="more than 1000000 bytes"):
        guest.get(PurePosixPath("many"), tmp_path / "x", limits=Limits(size=1_000_000))
    with pytest.raises(OutputError, match="more than 2 entries"):
        guest.run(["touch", "many/a", "many/b", "many/c"])
        guest.get(PurePosixPath("many"), tmp_path / "y", limits=Limits(entries=2))


def test_a_full_disk_in_the_guest(guest: KvmGuest, tmp_path: Path) -> None:
    (tmp_path / "big").write_bytes(os.urandom(8_000_000))
    # All that is free but a little, without writing it.
    guest.run(["sh", "-c", "fallocate -l $(($(stat -f -c '%a * %S' /) - 4000000)) /var/tmp/filler"], user="root")
    try:
        with pytest.raises(GuestError, match="could not be copied to 'big' in the guest: the guest's disk is full"):
            guest.put(tmp_path / "big", PurePosixPath("big"))
    finally:
        guest.run(["rm", "-f", "/var/tmp/filler", "/home/debian/big"], user="root")
    guest.put(tmp_path / "big", PurePosixPath("big"))


# What harms a guest


def test_a_fork_bomb_ends_with_the_guest(images: Path, tmp_path: Path) -> None:
    guest = KvmBackend().start(kvm_kit.request(tmp_path, images, processors=1, memory=512))
    try:
        # Nothing is said of how it goes: what is tried may fail, or even work, but it comes to an end.
        for script in ("b() { b | b & }; b", "true"):
            try:
                guest.run(["bash", "-c", script], timeout=8, check=False)
            except GuestError as error:
                assert "within 8 s" in str(error) or "bash" in str(error)
    finally:
        started = time.monotonic()
        guest.close()
    assert time.monotonic() - started < 60
    assert kvm_kit.left_behind(tmp_path) == []


@pytest.mark.skipif(os.geteuid() != 0, reason="mounts a small file system")
def test_a_full_disk_on_the_host_is_told(images: Path, tmp_path: Path) -> None:
    small = tmp_path / "small"
    small.mkdir()
    process.run(["mount", "-t", "tmpfs", "-o", "size=48m", "tmpfs", str(small)])
    try:
        guest = KvmBackend().start(kvm_kit.request(small, images))
        try:
            with pytest.raises(GuestError, match="the host's disk is full"):
                guest.run(["dd", "if=/dev/urandom", "of=/var/tmp/much", "bs=1M", "count=100", "oflag=direct"],
                          user="root")
        finally:
            guest.close()
        assert kvm_kit.left_behind(small) == []
    finally:
        process.run(["umount", "-l", str(small)])


def test_an_image_that_is_not_whole(images: Path, tmp_path: Path) -> None:
    (tmp_path / "base.qcow2").touch()
    with pytest.raises(ImageError, match="is not complete: '.*base.vmlinuz' is not there"):
        KvmBackend().start(kvm_kit.request(tmp_path, images, image=tmp_path / "base.qcow2"))
    for part in ("qcow2", "vmlinuz", "initrd"):
        (tmp_path / f"base.{part}").write_bytes(b"rubbish")
    with pytest.raises(GitianError):
        KvmBackend().start(kvm_kit.request(tmp_path, images, image=tmp_path / "base.qcow2"))
    assert kvm_kit.left_behind(tmp_path) == []
