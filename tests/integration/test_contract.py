"""The guest contract: what a command finds in a guest is the same under LXC and under KVM."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from gitian.cli.backends import choose_backend
from gitian.guest.protocol import Guest, StartRequest

pytestmark = [pytest.mark.lxc, pytest.mark.kvm]

#: Everything that docs/reference/guest-contract.md promises, as a command would find it out.
QUESTIONS = {
    "environment": "cat /proc/self/environ | tr '\\0' '\\n' | sort",
    "identity": "id",
    "accounts": "cat /etc/passwd /etc/group",
    "directory": "pwd",
    "umask": "umask; touch made; stat -c %a made; rm made",
    "limits": "ulimit -S -n; ulimit -S -c; ulimit -S -s",
    "locale": "locale; locale charmap",
    "hostname": "hostname; uname -n; cat /etc/hostname",
    "hosts": "cat /etc/hosts; getent hosts localhost; getent hosts gitian",
    "name servers": "cat /etc/resolv.conf",
    "time zone": "date +%Z; date -d @0 +%H; readlink /etc/localtime; cat /etc/timezone",
    "machine": "uname -m; uname -s; dpkg --print-architecture; getconf LONG_BIT",
    "input": "wc -c",
    "terminal": "tty; (: </dev/tty) 2>/dev/null && echo controlling || echo none",
    "open files": "ls /proc/self/fd",
    # But for 32 and 33, which the C library keeps to itself: neither env(1) nor anybody else can give them back.
    "signals": "while read -r name value; do case $name in SigIgn:|SigBlk:) "
               "echo $name $((16#$value & ~0x180000000));; esac; done < /proc/self/status",
    "session": "test \"$(ps -o sid= -p $$ | tr -d ' ')\" = $$ && echo own",
    "address": "ip -4 -o addr show dev eth0 | awk '{print $4}'; ip -4 route show default",
    "other addresses": "ip -6 -o addr show dev eth0 | wc -l; ls /sys/class/net | sort",
    "loopback": "ip -4 -o addr show dev lo | awk '{print $4}'",
    "directories": "stat -c '%n %U %G %a' / /tmp /var/tmp /run /root /home /home/debian /dev/shm /etc /usr/local",
    "home": "ls -A ~",
    "devices": "for one in null zero full random urandom tty ptmx; do test -c /dev/$one && echo $one; done; "
               "echo x > /dev/null; readlink /dev/fd /dev/stdin; test -d /dev/pts && echo pts",
    "pseudo terminals": "python3 -c 'import pty; pty.openpty(); print(1)' 2>/dev/null || script -qc 'echo 1' /dev/null",
    "system": "stat -f -c %T /dev/shm; awk '$2 == \"/sys\" {print substr($4, 1, 2)}' /proc/mounts",
    "sudo": "sudo -n id -u 2>/dev/null || echo refused",
    "status": "(exit 3); echo $?; (kill -9 $BASHPID); echo $?",
}


@pytest.fixture(scope="module")
def both(images: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Guest, Guest]]:
    """A fresh guest of either backend, made from one root file system."""
    guests: list[Guest] = []
    try:
        for backend, name in (("lxc", "base-bookworm-amd64"), ("kvm", "base-bookworm-amd64.qcow2")):
            workspace = tmp_path_factory.mktemp(backend)
            guests.append(choose_backend(backend, {}).start(StartRequest(
                suite="bookworm", arch="amd64", distro="debian", image=images / name, workspace=workspace)))
        yield guests[0], guests[1]
    finally:
        for guest in guests:
            guest.close()


@pytest.mark.parametrize("user", ["debian", "root"])
@pytest.mark.parametrize("question", QUESTIONS)
def test_the_same_under_both(both: tuple[Guest, Guest], question: str, user: str) -> None:
    command = ["bash", "-c", QUESTIONS[question]]
    answers = [guest.run(command, user=user, timeout=300, check=False) for guest in both]
    assert answers[0].stdout
    assert answers[0].stdout.decode() == answers[1].stdout.decode()
    assert answers[0].status == answers[1].status


def test_the_environment_itself(both: tuple[Guest, Guest]) -> None:
    one, two = (guest.run(["env"], env={"EXTRA": "a  b"}).stdout.decode().splitlines() for guest in both)
    assert sorted(one) == sorted(two)
    assert "EXTRA=a  b" in one and len(one) == 10


def test_what_a_command_says_and_how_it_ends(both: tuple[Guest, Guest]) -> None:
    for guest in both:
        result = guest.run(["sh", "-c", "echo out; echo err >&2; exit 5"], check=False)
        assert (result.status, result.stdout, result.stderr) == (5, b"out\n", b"err\n")
        assert guest.run(["sh", "-c", "kill -9 $$"], check=False).status == 137
        assert guest.run(["no-such-program"], check=False).status == 127
        assert guest.run(["pwd"], cwd="/no/such", check=False).status == 126
