"""Real LXC guests: what a command sees, what gets in and out, what a guest cannot do."""

from __future__ import annotations

import io
import os
import signal
import socket
import tarfile
import threading
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

import pytest

from gitian.errors import GuestError, OutputError
from gitian.guest.lxc import LxcBackend, LxcGuest
from gitian.guest.protocol import Limits, StartRequest
from gitian.host import process
from tests.integration import lxc_kit

pytestmark = pytest.mark.lxc


@pytest.fixture(scope="module")
def guest(images: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LxcGuest]:
    """One guest for everything that does not harm it."""
    workspace = tmp_path_factory.mktemp("workspace")
    with lxc_kit.running(workspace, images) as one:
        yield one


def said(guest: LxcGuest, script: str, *, user: str | None = None) -> str:
    return guest.run(["sh", "-c", script], user=user).stdout.decode().strip()


# What a command sees


def test_environment_is_the_contracts_and_nothing_else(guest: LxcGuest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECRET", "of the host")
    lines = guest.run(["env"]).stdout.decode().splitlines()
    assert sorted(lines) == [
        "HOME=/home/debian", "LANG=en_US.UTF-8", "LC_ALL=en_US.UTF-8", "LOGNAME=debian",
        "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "SHELL=/bin/bash", "TERM=dumb", "TZ=UTC",
        "USER=debian"]
    added = guest.run(["env"], env={"A": "b c\n$d"}, user="root").stdout.decode()
    assert "A=b c\n$d" in added and "HOME=/root" in added


def test_users_directory_and_limits(guest: LxcGuest) -> None:
    assert said(guest, "id; pwd; umask; ulimit -n; ulimit -c; ulimit -s") == (
        "uid=1000(debian) gid=1000(debian) groups=1000(debian)\n/home/debian\n0022\n1024\n0\n8192")
    assert said(guest, "id -u; pwd", user="root") == "0\n/root"
    assert guest.run(["pwd"], cwd="/var/tmp").stdout == b"/var/tmp\n"
    # The guest's own accounts decide about groups, as they would at a login.
    guest.run(["sh", "-c", "groupadd -g 4321 extra && usermod -a -G extra debian"], user="root")
    assert said(guest, "id -G") == "1000 4321"
    guest.run(["sh", "-c", "gpasswd -d debian extra && groupdel extra"], user="root")


def test_names_and_addresses(guest: LxcGuest) -> None:
    assert said(guest, "hostname; cat /etc/resolv.conf; date +%Z; locale charmap; getent hosts gitian | wc -l") == (
        "gitian\nnameserver 10.0.2.3\nUTC\nUTF-8\n1")
    assert "10.0.2.15/24" in said(guest, "ip -4 addr show dev eth0")
    assert said(guest, "ip -4 route show default") == "default via 10.0.2.2 dev eth0"


def test_no_input_no_terminal_no_files_no_ignored_signals(guest: LxcGuest) -> None:
    assert guest.run(["cat"]).stdout == b""
    assert said(guest, "(: </dev/tty) 2>/dev/null && echo terminal || echo none") == "none"
    # ls itself has the directory open, as 3.
    assert said(guest, "ls /proc/self/fd").split() == ["0", "1", "2", "3"]
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        ignored = int(said(guest, "grep SigIgn /proc/self/status").split()[1], 16)
        # 32 and 33 are the C library's own, and beyond anybody's reach.
        assert ignored & ~0x180000000 == 0
    finally:
        signal.signal(signal.SIGHUP, before)
    assert "SigBlk:\t0000000000000000" in said(guest, "grep SigBlk /proc/self/status")
    assert said(guest, 'test "$(ps -o sid= -p $$ | tr -d " ")" = $$ && echo own session') == "own session"


# Running


def test_streams_and_status(guest: LxcGuest) -> None:
    result = guest.run(["sh", "-c", "echo out; echo err >&2; exit 7"], check=False)
    assert (result.status, result.stdout, result.stderr) == (7, b"out\n", b"err\n")
    with pytest.raises(GuestError, match="status 7 in the guest: because"):
        guest.run(["sh", "-c", "echo because >&2; exit 7"])
    merged: list[bytes] = []
    result = guest.run(["sh", "-c", "echo one; echo two >&2; echo three"], output=merged.append)
    assert b"".join(merged) == b"one\ntwo\nthree\n" and result.stdout == b""
    assert guest.run(["sh", "-c", "kill -9 $$"], check=False).status == 137
    assert guest.run(["no-such-program"], check=False).status == 127
    assert guest.run(["pwd"], cwd="/no/such", check=False).status == 126


def test_large_input_and_output(guest: LxcGuest) -> None:
    data = os.urandom(3_000_000)
    assert guest.run(["cat"], input=data).stdout == data
    # A command that does not read its input is none the worse for it.
    assert guest.run(["true"], input=data).status == 0
    with pytest.raises(GuestError, match="more than 1000 bytes"):
        guest.run(["head", "-c", "5000", "/dev/zero"], limit=1000)


def test_words_arrive_as_they_are(guest: LxcGuest) -> None:
    words = ["", " ", "a b", "$HOME", "`id`", "'", '"', "\\", "*", "-n", "--", "a\nb", "ü", "\x07"]
    result = guest.run(["printf", "%s\\0", *words])
    assert result.stdout.decode().split("\0")[:-1] == words


def test_timeout_ends_the_command_and_what_it_started(guest: LxcGuest) -> None:
    with pytest.raises(GuestError, match="within 1 s"):
        guest.run(["sh", "-c", "sleep 4321 & sleep 4321"], timeout=1)
    assert said(guest, "ps ax -o args | grep -c '[s]leep 4321' || true") == "0"


def test_what_is_left_in_the_background_does_not_hold_us(guest: LxcGuest) -> None:
    result = guest.run(["sh", "-c", "sleep 600 & echo done"], timeout=300)
    assert result.stdout == b"done\n"
    guest.run(["pkill", "sleep"], check=False)


def test_interruption_ends_the_command(guest: LxcGuest) -> None:
    class Stop(BaseException):
        pass

    def stop(data: bytes) -> None:
        raise Stop

    with pytest.raises(Stop):
        guest.run(["sh", "-c", "echo go; sleep 8765"], output=stop)
    assert said(guest, "ps ax -o args | grep -c '[s]leep 8765' || true") == "0"


# In and out


def test_a_tree_survives_the_way_in_and_out(guest: LxcGuest, tmp_path: Path) -> None:
    source = tmp_path / "source"
    (source / "sub" / "empty").mkdir(parents=True)
    (source / "plain").write_bytes(b"text\n")
    (source / "plain").chmod(0o640)
    (source / "tool").write_bytes(b"#!/bin/sh\n")
    (source / "tool").chmod(0o755)
    (source / ("n" * 200)).write_bytes(b"long name")
    (source / "sub" / "b\u00e4d \n name").write_bytes(b"odd name")
    (source / "sub" / "link").symlink_to("../plain")
    (source / "dangling").symlink_to("nowhere")
    with (source / "sparse").open("wb") as file:
        file.truncate(300 * 2**20)
        file.seek(100 * 2**20)
        file.write(b"island")
    os.utime(source / "plain", ns=(10**18 + 123_000_000, 10**18 + 123_000_000))
    guest.put(source, PurePosixPath("tree"))
    assert said(guest, "stat -c '%U %a %s' tree/plain tree/tool") == "debian 640 5\ndebian 755 10"
    guest.get(PurePosixPath("tree"), tmp_path / "back")
    for path in sorted(source.rglob("*")):
        other = tmp_path / "back" / path.relative_to(source)
        one, two = path.lstat(), other.lstat()
        assert (one.st_mode, one.st_mtime_ns) == (two.st_mode, two.st_mtime_ns), path
        if path.is_symlink():
            assert os.readlink(path) == os.readlink(other)
        elif path.is_file():
            assert one.st_size == two.st_size and path.read_bytes() == other.read_bytes()
    assert (tmp_path / "back" / "sparse").stat().st_blocks * 512 < 2**20
    guest.run(["rm", "-rf", "tree"])


def test_one_file(guest: LxcGuest, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"x")
    counted: list[int] = []
    guest.put(tmp_path / "file", PurePosixPath("/var/cache/gitian/deep/name"), user="root", progress=counted.append)
    assert sum(counted) == 1
    assert said(guest, "stat -c %U /var/cache/gitian/deep/name", user="root") == "root"
    guest.get(PurePosixPath("/var/cache/gitian/deep/name"), tmp_path / "back")
    assert (tmp_path / "back").read_bytes() == b"x"
    with pytest.raises(GuestError, match="No such file"):
        guest.get(PurePosixPath("missing"), tmp_path / "missing")
    assert not (tmp_path / "missing").exists()
    with pytest.raises(GuestError, match="Permission denied"):
        guest.put(tmp_path / "file", PurePosixPath("/etc/not-mine"))


def archive(*members: tuple[tarfile.TarInfo, bytes]) -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for info, data in members:
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return stream.getvalue()


def member(name: str, *, kind: bytes = tarfile.REGTYPE, target: str = "", data: bytes = b""
           ) -> tuple[tarfile.TarInfo, bytes]:
    info = tarfile.TarInfo(name)
    info.type, info.linkname, info.mode = kind, target, 0o644
    return info, data


HOSTILE = {
    "absolute": [member("/tmp/gitian-escape", data=b"x")],
    "dots": [member("../escape", data=b"x")],
    "link then file": [member("a", kind=tarfile.SYMTYPE, target=".."), member("a/escape", data=b"x")],
    "link out": [member("a", kind=tarfile.SYMTYPE, target="/etc/passwd")],
    "hard link out": [member("a", kind=tarfile.LNKTYPE, target="/etc/hostname")],
    "hard link up": [member("a", kind=tarfile.LNKTYPE, target="../secret")],
    "device": [member("null", kind=tarfile.CHRTYPE)],
    "pipe": [member("pipe", kind=tarfile.FIFOTYPE)],
}


@pytest.fixture
def lying_tar(guest: LxcGuest) -> Iterator[LxcGuest]:
    """A guest whose root put another tar before the real one: it prints what lies in /root/stream."""
    script = b"#!/bin/sh\nexec cat /opt/stream\n"
    guest.run(["sh", "-c", "cat > /usr/local/bin/tar && chmod 755 /usr/local/bin/tar"], user="root", input=script)
    yield guest
    guest.run(["rm", "-f", "/usr/local/bin/tar", "/opt/stream"], user="root")


@pytest.mark.parametrize("case", HOSTILE)
def test_hostile_archives_do_not_get_out(lying_tar: LxcGuest, tmp_path: Path, case: str) -> None:
    (tmp_path / "secret").write_bytes(b"secret")
    lying_tar.run(["tee", "/opt/stream"], user="root", input=archive(*HOSTILE[case]))
    with pytest.raises(OutputError):
        lying_tar.get(PurePosixPath("/home/debian"), tmp_path / "out")
    assert {path.name for path in tmp_path.iterdir()} <= {"secret", "out"}
    assert not Path("/tmp/gitian-escape").exists()
    assert (tmp_path / "secret").read_bytes() == b"secret" and (tmp_path / "secret").stat().st_nlink == 1


def test_archives_without_end_are_refused(lying_tar: LxcGuest, tmp_path: Path) -> None:
    big = archive(member("big", data=bytes(3 * 2**20)))
    lying_tar.run(["tee", "/opt/stream"], user="root", input=big)
    with pytest.raises(OutputError):
        lying_tar.get(PurePosixPath("/home/debian"), tmp_path / "a", limits=Limits(size=2**20))
    lying_tar.run(["sh", "-c", "cat > /usr/local/bin/tar"], user="root",
                  input=b"#!/bin/sh\ncat /opt/stream\nexec cat /dev/zero\n")
    with pytest.raises(OutputError):
        lying_tar.get(PurePosixPath("/home/debian"), tmp_path / "b")
    lying_tar.run(["sh", "-c", "cat > /usr/local/bin/tar"], user="root", input=b"#!/bin/sh\nexit 0\n")
    with pytest.raises((OutputError, GuestError)):
        lying_tar.get(PurePosixPath("/home/debian"), tmp_path / "c")
    lying_tar.run(["sh", "-c", "cat > /usr/local/bin/tar"], user="root",
                  input=b"#!/bin/sh\ncat /opt/stream\necho broken >&2\nexit 3\n")
    with pytest.raises(GuestError, match="status 3 while copying .* broken"):
        lying_tar.get(PurePosixPath("/home/debian"), tmp_path / "d")


# What a guest cannot do


def test_root_in_the_guest_is_nobody_outside(guest: LxcGuest) -> None:
    assert os.stat(f"/proc/{guest.pid}").st_uid >= 100_000
    mapping = Path(f"/proc/{guest.pid}/uid_map").read_text().split()
    assert mapping[0] == "0" and int(mapping[1]) >= 100_000
    for command in (["mknod", "/tmp/disk", "b", "8", "0"], ["mknod", "/tmp/zero", "c", "1", "5"],
                    ["mount", "-o", "remount,rw", "/sys"], ["sh", "-c", "echo 1 > /proc/sys/kernel/panic"],
                    ["sh", "-c", "echo h > /proc/sysrq-trigger"], ["date", "-s", "2001-01-01"]):
        assert guest.run(command, user="root", check=False, timeout=60).status != 0, command


def test_only_harmless_devices_and_no_host_files(guest: LxcGuest) -> None:
    assert said(guest, "find /dev -type b") == ""
    devices = set(said(guest, "find /dev -maxdepth 1 -type c -printf '%f\\n'").split())
    assert devices <= {"null", "zero", "full", "random", "urandom", "tty", "ptmx", "console"}
    sources = {line.split()[2] for line in said(guest, "cat /proc/mounts").splitlines()}
    assert sources <= {"overlay", "proc", "sysfs", "tmpfs", "devtmpfs", "devpts", "mqueue"}
    assert said(guest, "awk '$2 == \"/sys\" {print substr($4, 1, 2)}' /proc/mounts") == "ro"
    status = said(guest, "grep -E 'Seccomp:|NoNewPrivs' /proc/self/status")
    assert status.split() == ["NoNewPrivs:", "1", "Seccomp:", "2"]


def test_no_way_to_sudo_unless_allowed(guest: LxcGuest) -> None:
    assert guest.run(["sudo", "-n", "id"], check=False).status != 0
    assert guest.run(["test", "-e", "/etc/sudoers.d/gitian"], user="root", check=False).status != 0


def serve(address: str) -> tuple[socket.socket, int]:
    """A service of the host that greets whoever connects."""
    listener = socket.create_server((address, 0))

    def greet() -> None:
        while True:
            try:
                connected, _ = listener.accept()
            except OSError:
                return
            connected.sendall(b"hello from the host\n")
            connected.close()

    threading.Thread(target=greet, daemon=True).start()
    return listener, listener.getsockname()[1]


def greeting(guest: LxcGuest, address: str, port: int) -> str:
    return guest.run(["timeout", "20", "bash", "-c", f"cat < /dev/tcp/{address}/{port}"], check=False).stdout.decode()


def test_services_on_the_hosts_loopback_are_out_of_reach(guest: LxcGuest) -> None:
    listener, port = serve("127.0.0.1")
    with listener:
        for address in ("10.0.2.2", "127.0.0.1", "10.0.2.15"):
            assert greeting(guest, address, port) == ""


def test_a_fork_bomb_is_bounded(images: Path, tmp_path: Path) -> None:
    script = "my $n = 0; while (defined(my $p = fork)) { if (!$p) { sleep 1000; exit } $n++ } print $n"
    with lxc_kit.running(tmp_path, images) as bombed:
        count = int(bombed.run(["perl", "-e", script], timeout=300).stdout)
        assert 100 < count <= 8192
        # The machine has room for more, the guest has not.
        assert process.run(["true"]).status == 0
    assert lxc_kit.left_behind(tmp_path) == []


# Other guests


def test_sudo_where_it_is_allowed_and_not_when_reused_without(images: Path, tmp_path: Path) -> None:
    backend = LxcBackend()
    allowed = backend.start(lxc_kit.request(tmp_path, images, allow_sudo=True))
    try:
        assert said(allowed, "sudo -n id -u") == "0"
        allowed.run(["sh", "-c", "echo kept > file"])
    finally:
        allowed.stop(overlay=False)
    again = backend.start(lxc_kit.request(tmp_path, images, fresh=False))
    try:
        assert said(again, "cat file") == "kept"
        assert again.run(["sudo", "-n", "id"], check=False).status != 0
    finally:
        again.close()
    clean = backend.start(lxc_kit.request(tmp_path, images, fresh=False))
    try:
        assert clean.run(["test", "-e", "file"], check=False).status == 1
    finally:
        clean.close()


def test_the_proxy_on_the_hosts_loopback_can_be_reached(images: Path, tmp_path: Path) -> None:
    listener, port = serve("127.0.0.1")
    with listener, lxc_kit.running(tmp_path, images, environment={"MIRROR_HOST": "127.0.0.1"}) as one:
        assert greeting(one, "10.0.2.2", port) == "hello from the host\n"


def test_on_a_bridge(images: Path, tmp_path: Path) -> None:
    name = f"gtn{os.getpid() % 10**8}"
    if process.run(["ip", "link", "add", name, "type", "bridge"], check=False).status != 0:
        pytest.skip("this kernel has no bridges")
    try:
        process.run(["ip", "addr", "add", "10.87.65.1/24", "dev", name])
        process.run(["ip", "link", "set", name, "up"])
        listener, port = serve("10.87.65.1")
        with listener, lxc_kit.running(tmp_path, images, environment={
                "LXC_BRIDGE": name, "LXC_GUEST_IP": "10.87.65.5"}) as one:
            assert "10.87.65.5/24" in said(one, "ip -4 addr show dev eth0")
            assert "via 10.87.65.1" in said(one, "ip -4 route show default")
            assert greeting(one, "10.87.65.1", port) == "hello from the host\n"
    finally:
        process.run(["ip", "link", "delete", name], check=False)


def test_odd_names_of_workspaces(images: Path, tmp_path: Path) -> None:
    workspace = tmp_path / "a:b,c d\\e'f\"g$(h)\n\u00e4"
    workspace.mkdir()
    with lxc_kit.running(workspace, images) as one:
        one.run(["sh", "-c", "echo x > /home/debian/y"])
        assert (workspace / "target-bookworm-amd64" / "upper" / "home" / "debian" / "y").read_text() == "x\n"
    assert lxc_kit.left_behind(workspace) == []


def test_32_bits(images_i386: Path, tmp_path: Path) -> None:
    request = StartRequest(suite="bookworm", arch="i386", distro="debian", image=images_i386 / "base-bookworm-i386",
                           workspace=tmp_path)
    one = LxcBackend().start(request)
    try:
        assert said(one, "uname -m; dpkg --print-architecture; getconf LONG_BIT") == "i686\ni386\n32"
    finally:
        one.close()
