"""What is made of a guest's probes for a network: an answer, or a probe that was not made, is an error."""

from __future__ import annotations

import errno
import shutil
import socket
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import pytest

from gitian.errors import GuestError
from gitian.guest import isolation, lxc_config, network, qemu
from gitian.guest.protocol import Guest, Result
from tests.unit.test_qemu import MACHINE, after


@dataclass(kw_only=True)
class Answering:
    """A guest whose perl says of each probe what ``but`` says, or that it was refused."""

    but: dict[str, str | None]
    status: int = 0
    label: str = "bookworm-amd64"
    shares_kernel: bool = False
    gateway_answers: bool = False

    def run(self, command: Sequence[str], **more: Any) -> Result:
        assert more["user"] == "root" and command[:2] == ["perl", "-"]
        lines = [(probe, self.but.get(probe, "refused (Permission denied)")) for probe in command[3:]]
        return Result(status=self.status, stderr=b"it hurts\n",
                      stdout="".join(f"{probe}: {said}\n" for probe, said in lines if said is not None).encode())


def checked(but: dict[str, str | None], **more: Any) -> tuple[str, ...]:
    return isolation.check_isolation(cast(Guest, Answering(but=but, **more)))


def test_a_guest_that_reaches_nothing_is_cut_off() -> None:
    lines = checked({"dns 10.0.2.3:53": "silent (no answer within 3 s)"})
    assert "dns 10.0.2.3:53: silent (no answer within 3 s)" in lines
    kinds = {line.split()[0] for line in lines}
    assert kinds == {"dns", "name", "icmp", "udp", "tcp", "tcp6", "vsock"}
    assert list(lines) == sorted(lines)


@pytest.mark.parametrize("probe", ["dns 10.0.2.3:53", "name www.example.org", "icmp 10.0.2.2", "udp 192.0.2.1:123",
                                   "tcp 10.0.2.2:80", "vsock 2"])
def test_any_answer_is_an_error(probe: str) -> None:
    with pytest.raises(GuestError, match="answered from outside") as caught:
        checked({probe: "answered (33 bytes)"})
    assert f"{probe}: answered (33 bytes)" in str(caught.value)


def test_what_was_not_tried_is_an_error() -> None:
    for probe in ("icmp 10.0.2.2", "name www.example.org"):
        with pytest.raises(GuestError, match="could not be tried"):
            checked({probe: None})
    with pytest.raises(GuestError, match="status 255: it hurts"):
        checked({}, status=255)


def test_only_qemus_own_answers_are_passed_over_and_only_where_they_cannot_be_kept_away() -> None:
    own: dict[str, str | None] = {"icmp 10.0.2.2": "answered (52 bytes)",
                                  "tcp 192.0.2.1:80": "answered (Connection refused)"}
    assert checked(own, gateway_answers=True)
    with pytest.raises(GuestError, match="answered"):
        checked(own)
    for other in ({"icmp 192.0.2.1": "answered (52 bytes)"}, {"tcp 10.0.2.2:80": "answered (connected)"},
                  {"dns 10.0.2.3:53": "answered (33 bytes)"}):
        with pytest.raises(GuestError, match="answered"):
            checked({**own, **other}, gateway_answers=True)


@pytest.mark.parametrize("probe", ["vsock opens", "io_uring opens"])
def test_a_way_that_is_in_no_namespace_is_an_error_where_the_kernel_is_the_hosts(probe: str) -> None:
    assert f"{probe}: refused (Permission denied)" in checked({}, shares_kernel=True)
    with pytest.raises(GuestError, match="seccomp profile leaves a way") as caught:
        checked({probe: "answered (it opens)"}, shares_kernel=True)
    assert f"{probe}: answered (it opens)" in str(caught.value)
    with pytest.raises(GuestError, match="could not be tried"):
        checked({probe: None}, shares_kernel=True)


def test_what_no_profile_can_refuse_to_32_bit_programs_is_not_tried_in_their_guests() -> None:
    lines = checked({"vsock opens": "answered (it opens)"}, shares_kernel=True, label="bookworm-i386")
    assert [line for line in lines if line.startswith(("vsock", "io_uring"))] == [
        "io_uring opens: refused (Permission denied)"]


@pytest.mark.skipif(shutil.which("perl") is None or shutil.which("unshare") is None, reason="needs perl and unshare")
def test_the_probe_itself_on_this_machine_without_a_network() -> None:
    """A network namespace without even a loopback: everything is tried, and refused at once.

    But for what is in no namespace: that is as this machine has it.
    """
    probes = (*isolation._outside("10.0.2.2"), "vsock opens", "io_uring opens")
    done = subprocess.run(["unshare", "--user", "--map-root-user", "--net", "perl", "-", "3", *probes],
                          input=isolation._PROBE.encode(), capture_output=True, timeout=120, check=False)
    if done.returncode != 0 and b"unshare" in done.stderr:
        pytest.skip("this machine gives its users no namespaces")
    lines = done.stdout.decode().splitlines()
    assert {line.rpartition(": ")[0] for line in lines} == set(probes), done.stderr
    assert not [line for line in lines if "answered" in line and not line.startswith(("vsock opens", "io_uring opens"))]
    (said,) = (line for line in lines if line.startswith("vsock"))
    try:
        socket.socket(socket.AF_VSOCK).close()
        assert said == "vsock opens: answered (it opens)"
    except OSError as error:
        assert said == f"vsock opens: refused ({error.strerror})"


def test_qemu_is_told_and_everything_else_stays_the_same() -> None:
    with_it, without = qemu.argv(MACHINE), qemu.argv(replace(MACHINE, network=False))
    (options,), (cut,) = after(with_it, "-netdev"), after(without, "-netdev")
    assert "restrict" not in options
    assert set(cut.split(",")) - set(options.split(",")) == {"restrict=on"}
    assert [word for word in with_it if word != options] == [word for word in without if word != cut]


def test_a_container_has_a_loopback_and_no_more_whatever_bridge_there_is(tmp_path: Path) -> None:
    chosen = network.choose({"LXC_BRIDGE": "br-nowhere", "MIRROR_HOST": "127.0.0.1"}, wanted=False)
    assert chosen.config == ("lxc.net.0.type = empty",) and not chosen.slirp
    assert chosen.addresses.splitlines() == ["link set lo up"]
    assert chosen.resolv_conf == network.choose({}).resolv_conf


def test_a_containers_profile_refuses_what_is_in_no_namespace() -> None:
    """One rule per line (lxc.container.conf(5)): socket(2) fails with EAFNOSUPPORT if its argument 0 is AF_VSOCK.

    There is no io_uring at all: the sockets that are made through it pass no rule.
    """
    lines = lxc_config.cut_off("2\ndenylist\n[all]\nkexec_load errno 1").splitlines()
    assert lines == ["2", "denylist", "[all]", "kexec_load errno 1",
                     f"socket errno {errno.EAFNOSUPPORT} [0,{int(socket.AF_VSOCK)},SCMP_CMP_EQ]",
                     f"io_uring_setup errno {errno.ENOSYS}"]
