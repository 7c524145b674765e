"""The SSH connection against OpenSSH's own server, on this machine's loopback, with a configuration of its own."""

from __future__ import annotations

import io
import os
import secrets
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gitian.errors import GuestError
from gitian.guest import ssh
from gitian.guest.protocol import Result
from gitian.guest.ssh_wire import Account, command_line
from gitian.host import process, tools

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="logs in to its own SSH server as root")

CONFIGURATION = """\
Port {port}
ListenAddress 127.0.0.1
HostKey {at}/host_key
AuthorizedKeysFile {at}/authorized_keys
StrictModes no
UsePAM no
PermitRootLogin prohibit-password
PasswordAuthentication no
KbdInteractiveAuthentication no
UseDNS no
PidFile none
MaxSessions 100
SetEnv HOME={at}
"""
ENVIRONMENT = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "HOME": "/nowhere", "LANG": "C.UTF-8"}


class LocalServer:
    """An sshd of our own, for one directory."""

    def __init__(self, at: Path) -> None:
        self.at = at
        self.key, host_key = ssh.make_key(), ssh.make_key()
        (at / "host_key").touch(0o600)
        (at / "host_key").write_text(host_key.private)
        (at / "authorized_keys").write_text(self.key.public + "\n")
        with socket.create_server(("127.0.0.1", 0)) as probe:
            port = probe.getsockname()[1]
        (at / "sshd_config").write_text(CONFIGURATION.format(port=port, at=at))
        Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)
        self.server = ssh.Server(port=port, host_key=host_key.public, marks=str(at))
        with (at / "log").open("wb") as log:
            self.process = process.popen([tools.find("sshd"), "-D", "-e", "-f", str(at / "sshd_config")],
                                         stdout=log, stderr=log)

    def connect(self, **options: float) -> ssh.Connection:
        try:
            return ssh.Connection.open(self.server, self.key, timeout=60, **options)  # type: ignore[arg-type]
        except GuestError as error:
            raise AssertionError(f"{error}: {(self.at / 'log').read_text()}") from error

    def session_process(self, connection: ssh.Connection) -> int:
        """The number of the server's process at the other end of a connection (the shell's parent)."""
        return int(run(connection, "sh", "-c", "read -r _ _ _ p _ </proc/$PPID/stat; echo $p").stdout)

    def stop(self) -> None:
        process.end(self.process)


def run(connection: ssh.Connection, *command: str, merged: bool = False, cwd: str = "/", input: bytes | None = None,
        environment: dict[str, str] | None = None, output: Callable[[bytes], None] | None = None,
        timeout: float | None = None, limit: int = 2**24) -> Result:
    mark = connection.mark()
    line = command_line(command, account=Account.root(), environment=environment or ENVIRONMENT, cwd=cwd, umask=0o022,
                        merged=merged, mark=mark)
    return connection.run(line, what=command[0], mark=mark, output=output, timeout=timeout, limit=limit, input=input)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalServer]:
    local = LocalServer(tmp_path_factory.mktemp("sshd"))
    yield local
    local.stop()


@pytest.fixture(scope="module")
def connection(server: LocalServer) -> Iterator[ssh.Connection]:
    open_connection = server.connect()
    yield open_connection
    open_connection.close()


def test_streams_and_status_are_kept_apart(connection: ssh.Connection) -> None:
    result = run(connection, "sh", "-c", "echo out; echo err >&2; exit 7")
    assert (result.status, result.stdout) == (7, b"out\n")
    # Whatever a login shell's own start-up file may print on stderr comes before the command.
    assert result.stderr.endswith(b"err\n")


def test_a_signal_becomes_128_plus_its_number_without_words(connection: ssh.Connection) -> None:
    result = run(connection, "sh", "-c", "kill -SEGV $$")
    assert result.status == 128 + signal.SIGSEGV
    assert b"egmentation" not in result.stderr


def test_the_environment_is_exactly_what_was_asked_for(connection: ssh.Connection) -> None:
    wanted = {"PATH": "/usr/bin:/bin", "A": "", "B": "two words", "C": "$HOME `x` \\ \" ' \n end", "D": "ü="}
    result = run(connection, "env", "-0", environment=wanted)
    assert dict(entry.split("=", 1) for entry in result.stdout.decode().split("\0") if entry) == wanted


def test_directory_umask_and_input(connection: ssh.Connection, tmp_path: Path) -> None:
    odd = tmp_path / "a 'b' $c"
    odd.mkdir()
    assert run(connection, "sh", "-c", "pwd; umask; cat", cwd=str(odd), input=b"in").stdout == \
        f"{odd}\n0022\nin".encode()
    assert run(connection, "cat").stdout == b"", "standard input is empty, not a terminal that never ends"
    missing = run(connection, "true", cwd=str(tmp_path / "absent"))
    assert missing.status == 126
    assert b"absent" in missing.stderr


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"])), min_size=1, max_size=4))
def test_arguments_arrive_as_they_left(connection: ssh.Connection, words: list[str]) -> None:
    result = run(connection, "printf", "%s\\0", *words)
    assert result.stdout.decode().split("\0")[:-1] == words


def test_a_program_with_an_equals_sign_in_its_name(connection: ssh.Connection, tmp_path: Path) -> None:
    program = tmp_path / "a=b"
    program.write_text("#!/bin/sh\necho ran\n")
    program.chmod(0o755)
    assert run(connection, str(program)).stdout == b"ran\n"


def test_merged_output_keeps_its_order_and_comes_as_it_is_made(connection: ssh.Connection) -> None:
    pieces: list[tuple[float, bytes]] = []
    script = "echo 1; echo 2 >&2; echo 3; echo 4 >&2; sleep 1; echo 5"
    result = run(connection, "sh", "-c", script, merged=True, output=lambda piece: pieces.append(
        (time.monotonic(), piece)))
    assert b"".join(piece for _, piece in pieces).endswith(b"1\n2\n3\n4\n5\n")
    assert (result.stdout, result.stderr, result.status) == (b"", b"", 0)
    assert pieces[-1][0] - pieces[0][0] > 0.5, "all of it came at the end"


def test_much_goes_both_ways_at_once(connection: ssh.Connection) -> None:
    data = secrets.token_bytes(5 * 2**20 + 17)
    assert run(connection, "cat", input=data).stdout == data


def test_a_command_need_not_read_its_input(connection: ssh.Connection) -> None:
    assert run(connection, "true", input=bytes(2**23)).status == 0


def test_several_commands_at_once(connection: ssh.Connection) -> None:
    results: dict[int, bytes] = {}

    def work(number: int) -> None:
        results[number] = run(connection, "sh", "-c", f"sleep 0.2; echo {number}").stdout

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == {number: b"%d\n" % number for number in range(8)}


def test_collected_output_is_bounded(connection: ssh.Connection) -> None:
    with pytest.raises(GuestError, match="more than 1000000 bytes"):
        run(connection, "head", "-c", "2000000", "/dev/zero", limit=1_000_000)
    assert run(connection, "echo", "still here").stdout == b"still here\n"


def test_a_command_that_takes_too_long_is_ended_with_all_it_started(connection: ssh.Connection,
                                                                   tmp_path: Path) -> None:
    with pytest.raises(GuestError, match="'sh' did not end within 2 s"):
        run(connection, "sh", "-c", f"sleep 1000 & echo $! $$ >{tmp_path}/pids; wait", timeout=2)
    for pid in map(int, (tmp_path / "pids").read_text().split()):
        assert process.wait_until(lambda: process.identity(pid) is None, 30)  # noqa: B023


def test_what_stays_behind_in_the_background_does_not_hold_the_command(connection: ssh.Connection,
                                                                      tmp_path: Path) -> None:
    result = run(connection, "sh", "-c", f"sleep 600 & echo $! >{tmp_path}/pid; echo done")
    assert (result.status, result.stdout) == (0, b"done\n")
    os.kill(int((tmp_path / "pid").read_text()), signal.SIGKILL)


def test_another_host_key_is_refused(server: LocalServer) -> None:
    other = ssh.Server(port=server.server.port, host_key=ssh.make_key().public)
    with pytest.raises(GuestError, match="another host key"):
        ssh.Connection.open(other, server.key, timeout=30)


def test_another_user_key_is_refused(server: LocalServer) -> None:
    with pytest.raises(GuestError, match="does not accept our key"):
        ssh.Connection.open(server.server, ssh.make_key(), timeout=30)


def test_nobody_there(server: LocalServer) -> None:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    with pytest.raises(GuestError, match="could not be reached within 1 s"):
        ssh.Connection.open(ssh.Server(port=port, host_key=server.server.host_key), server.key, timeout=1)


def test_a_server_that_dies_is_said_to(server: LocalServer) -> None:
    connection = server.connect()
    victim = server.session_process(connection)
    threading.Timer(1.0, os.kill, (victim, signal.SIGKILL)).start()
    with pytest.raises(GuestError, match="'sleep'"):
        run(connection, "sleep", "60")
    with pytest.raises(GuestError, match="'true' could not be started"):
        run(connection, "true")
    connection.close()


def test_a_server_that_hangs_is_said_to(server: LocalServer) -> None:
    connection = server.connect(patience=3.0)
    victim = server.session_process(connection)
    threading.Timer(1.0, os.kill, (victim, signal.SIGSTOP)).start()
    try:
        with pytest.raises(GuestError, match="has answered nothing for 3 s"):
            run(connection, "sleep", "60")
    finally:
        os.kill(victim, signal.SIGKILL)
        connection.close()


def test_a_long_silence_is_no_hang(server: LocalServer) -> None:
    connection = server.connect(patience=2.0)
    assert run(connection, "sleep", "5").status == 0
    connection.close()


FLOOD = """
import sys
from pathlib import Path
from gitian.guest import ssh
from gitian.guest.ssh_wire import Account, command_line
port, host_key, key, size = sys.argv[1:]
connection = ssh.Connection.open(ssh.Server(port=int(port), host_key=host_key), ssh.Key(
    private=Path(key).read_text(), public=""), timeout=60)
seen = 0
def sink(piece):
    global seen
    seen += len(piece)
line = command_line(["head", "-c", size, "/dev/zero"], account=Account.root(), environment={"PATH": "/usr/bin:/bin"},
                    cwd="/", umask=0o22, merged=True)
status = connection.run(line, what="head", output=sink).status
# Not getrusage's maxrss: that remembers the size of the process which started this one (getrusage(2), execve(2)).
peak = next(line for line in open("/proc/self/status") if line.startswith("VmHWM:"))
print(status, seen, int(peak.split()[1]) // 1024)
"""


def test_a_flood_passes_through_little_memory(server: LocalServer, tmp_path: Path) -> None:
    (tmp_path / "key").write_text(server.key.private)
    size = 200 * 2**20
    done = process.run([sys.executable, "-c", FLOOD, str(server.server.port), server.server.host_key,
                        str(tmp_path / "key"), str(size)], timeout=600)
    status, seen, memory = map(int, done.stdout.split())
    assert (status, seen) == (0, size)
    assert memory < 150, "MiB"


def test_a_server_that_heeds_no_window_is_cut_off() -> None:
    import paramiko

    host_key, key = ssh.make_key(), ssh.make_key()

    class Careless(paramiko.ServerInterface):
        def check_auth_publickey(self, username: str, key: paramiko.PKey) -> int:
            return 0  # paramiko.AUTH_SUCCESSFUL

        def check_channel_request(self, kind: str, chanid: int) -> int:
            return 0  # paramiko.OPEN_SUCCEEDED

        def check_channel_exec_request(self, channel: paramiko.Channel, command: bytes) -> bool:
            threading.Thread(target=self.flood, args=(channel,), daemon=True).start()
            return True

        def flood(self, channel: paramiko.Channel) -> None:
            time.sleep(0.5)
            channel.out_window_size = 2**40
            try:
                while True:
                    channel.sendall_stderr(bytes(2**20))
            except (OSError, EOFError):
                pass

    with socket.create_server(("127.0.0.1", 0)) as listener:
        def serve() -> None:
            transport = paramiko.Transport(listener.accept()[0])
            transport.add_server_key(paramiko.Ed25519Key.from_private_key(io.StringIO(host_key.private)))
            transport.start_server(server=Careless())

        threading.Thread(target=serve, daemon=True).start()
        connection = ssh.Connection.open(ssh.Server(port=listener.getsockname()[1], host_key=host_key.public), key,
                                         timeout=60)

        def slow(piece: bytes) -> None:  # a terminal that was stopped, say
            process.wait_until(lambda: not connection._transport.is_active(), 60)

        with pytest.raises(GuestError, match="lost while 'flood' ran"):
            connection.run(b"flood", what="flood", output=slow, timeout=120)
        connection.close()
