"""qemu's command line and what is handed over at the start; ports; the console's log."""

from __future__ import annotations

import socket
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from gitian.errors import BusyError, UsageError
from gitian.guest import kvm, kvm_start, qemu
from gitian.guest.ssh_wire import LINE_LIMIT, Account, command_line
from gitian.host import process

MACHINE = qemu.Machine(
    program=("qemu-system-x86_64",), name="gitian-1", accel="tcg", memory=1500, processors=3,
    kernel=Path("/images/base.vmlinuz"), initrd=Path("/w/var/initrd"), overlay=Path("/w/a,b/target.qcow2"),
    disk_size=12 * 2**30, console=Path("/w/a,b/target.log"), qmp=5, port=2223)


def after(argv: Sequence[str], option: str) -> list[str]:
    return [argv[index + 1] for index, word in enumerate(argv) if word == option]


def test_what_was_asked_for_is_in_it() -> None:
    argv = qemu.argv(MACHINE)
    assert after(argv, "-m") == ["1500"] and after(argv, "-smp") == ["3"]
    assert after(argv, "-accel") == ["tcg,thread=multi"] and after(argv, "-cpu") == ["max,cx16=off"]
    assert after(argv, "-kernel") == ["/images/base.vmlinuz"] and after(argv, "-initrd") == ["/w/var/initrd"]
    assert "gitian-1" in after(argv, "-name")[0]
    hardware = qemu.argv(replace(MACHINE, accel="kvm"))
    assert after(hardware, "-accel") == ["kvm"] and after(hardware, "-cpu") == ["host"]


def test_the_guest_is_reached_from_this_machine_alone_and_has_no_screen() -> None:
    argv = qemu.argv(MACHINE)
    (network,) = after(argv, "-netdev")
    forwards = [part for part in network.split(",") if part.startswith("hostfwd")]
    assert forwards == ["hostfwd=tcp:127.0.0.1:2223-10.0.2.15:22"]
    assert after(argv, "-display") == ["none"] and after(argv, "-vga") == ["none"]
    assert not any("vnc" in word for word in argv)
    assert "-nodefaults" in argv and "-no-user-config" in argv


def test_commas_in_names_of_files_are_no_options() -> None:
    argv = qemu.argv(MACHINE)
    assert "file=/w/a,,b/target.qcow2," in after(argv, "-drive")[0]
    assert after(argv, "-chardev")[0].endswith("path=/w/a,,b/target.log")


def test_it_dies_with_its_owner_unless_it_is_kept() -> None:
    assert qemu.argv(MACHINE)[:3] == ["setpriv", "--pdeathsig", "KILL"]
    assert "setpriv" not in qemu.argv(replace(MACHINE, tied=False))


def test_what_it_writes_is_bounded() -> None:
    argv = qemu.argv(MACHINE)
    limit = next(word for word in argv if word.startswith("--fsize="))
    assert 12 * 2**30 < int(limit.removeprefix("--fsize=")) < 20 * 2**30


def test_the_binary_may_be_chosen() -> None:
    assert qemu.program("amd64", {"KVM": "/opt/qemu -nice thing"}) == ["/opt/qemu", "-nice", "thing"]
    assert qemu.program("amd64", {"KVM": ""}) == ["qemu-system-x86_64"]
    with pytest.raises(UsageError, match="KVM"):
        qemu.program("amd64", {"KVM": "a 'b"})


@pytest.mark.parametrize("accel", ["tcg"])
def test_qemu_takes_this_command_line(accel: str, tmp_path: Path) -> None:
    """A kernel that is none is refused only after every option was understood."""
    (tmp_path / "kernel").write_bytes(b"no kernel")
    (tmp_path / "initrd").write_bytes(b"")
    process.run(["qemu-img", "create", "-q", "-f", "qcow2", str(tmp_path / "a,b.qcow2"), "1M"])
    with socket.socket(socket.AF_UNIX) as control:
        control.bind(f"\0gitian-test-{tmp_path}"[:100])
        control.listen()
        machine = replace(MACHINE, accel=accel, memory=64, kernel=tmp_path / "kernel", initrd=tmp_path / "initrd",
                          overlay=tmp_path / "a,b.qcow2", console=tmp_path / "a,b.log", qmp=control.fileno(),
                          port=kvm_start.choose_port({}, first=False))
        with (tmp_path / "said").open("wb") as said:
            running = process.popen(qemu.argv(machine), stdout=said, stderr=said, pass_fds=(control.fileno(),))
            process.wait_until(lambda: running.poll() is not None, 30)
            process.end(running)
    text = (tmp_path / "said").read_text()
    assert running.returncode == 1 and "kernel" in text, text
    assert (tmp_path / "a,b.log").exists()


def test_the_handover_is_an_archive_that_cpio_reads(tmp_path: Path) -> None:
    data = qemu.handover(host_key="private\n", host_key_public="ssh-ed25519 AAAA", authorized_key="ssh-ed25519 BBBB",
                         time=1_700_000_000)
    assert len(data) % 512 == 0
    process.run(["busybox", "cpio", "-i", "-d"], input=data, cwd=tmp_path)
    place = tmp_path / "gitian"
    assert (place / "config").read_text().splitlines() == [
        "hostname=gitian", "address=10.0.2.15/24", "gateway=10.0.2.2", "dns=10.0.2.3", "time=1700000000"]
    assert (place / "authorized_keys").read_text() == "ssh-ed25519 BBBB\n"
    assert (place / "ssh_host_ed25519_key").read_text() == "private\n"
    assert (place / "ssh_host_ed25519_key").stat().st_mode & 0o777 == 0o600


def test_ports() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(BusyError, match=f"port {port} .VM_SSH_PORT. is taken"):
            kvm_start.choose_port({"VM_SSH_PORT": str(port)})
    assert kvm_start.choose_port({"VM_SSH_PORT": str(port)}) == port
    for wrong in ("0", "65536", "22x", "-1", "99999999999"):
        with pytest.raises(UsageError, match="is no port"):
            kvm_start.choose_port({"VM_SSH_PORT": wrong})
    found = kvm_start.choose_port({}, first=False)
    with socket.create_server(("127.0.0.1", found)):
        assert kvm_start.choose_port({}, first=False) != found


def test_the_port_of_a_guest_that_has_just_ended_is_free() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        with socket.create_connection(("127.0.0.1", port)) as client:
            accepted, _ = server.accept()
            accepted.close()  # the first to close is the one who remembers
            assert client.recv(1) == b""
    with socket.socket() as plain:
        with pytest.raises(OSError, match="in use"):
            plain.bind(("127.0.0.1", port))
    assert kvm_start.choose_port({"VM_SSH_PORT": str(port)}) == port


def test_the_consoles_log_is_cut_to_its_end(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_bytes(b"a" * 5000 + b"end")
    with log.open("ab") as appending:
        kvm.shorten(log, most=6000, kept=100)
        assert log.stat().st_size == 5003, "it is not too long yet"
        kvm.shorten(log, most=5000, kept=100)
        appending.write(b" more")
    assert log.read_bytes() == b"[...]\n" + b"a" * 97 + b"end more"
    assert kvm.console_tail(log, 10)[-1] == "aaend more"[-10:]
    assert kvm.console_tail(tmp_path / "absent") == []


def test_a_guest_that_ended_is_explained_with_its_last_words(tmp_path: Path) -> None:
    console = tmp_path / "log"
    console.write_text("gitian: failed: there is no disk /dev/vda\n")
    ended = process.popen(["true"])
    ended.wait()
    error = kvm.Fate(console, None, ended).lost("The guest did not start.")
    assert str(error) == "The guest did not start (there is no disk /dev/vda)."
    assert error.hint is not None and "var/target.log, ends: gitian: failed" in error.hint
    killed = process.popen(["sleep", "100"])
    killed.kill()
    killed.wait()
    assert "ended by signal SIGKILL" in str(kvm.Fate(console, None, killed).lost("It was lost."))


def test_a_command_line_too_long_or_impossible() -> None:
    from gitian.errors import GuestError

    def line(*command: str, **environment: str) -> bytes:
        return command_line(command, account=Account.root(), environment=environment, cwd="/", umask=0o22)

    with pytest.raises(GuestError, match="at most"):
        line("echo", "x" * LINE_LIMIT)
    with pytest.raises(GuestError, match="NUL"):
        line("echo", "a\0b")
    with pytest.raises(GuestError, match="empty command"):
        line()
    with pytest.raises(ValueError, match="A=B"):
        line("true", **{"A=B": "x"})
    assert b"setarch linux32 uname" in command_line(["uname"], account=Account.root(), environment={}, cwd="/",
                                                    umask=0o22, narrow=True)
