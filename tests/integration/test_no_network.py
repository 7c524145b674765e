"""Scripts without a network, under both backends: nothing answers, nothing arrives, whatever root in the guest does."""

from __future__ import annotations

import contextlib
import json
import select
import shutil
import socket
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from gitian.errors import GuestError
from gitian.guest import isolation, lxc_config
from tests.integration import kvm_kit, lxc_kit
from tests.integration.conftest import ROOT
from tests.integration.test_gbuild import HEAD, descriptor, gbuild, report_of

BACKENDS = [pytest.param("lxc", marks=pytest.mark.lxc), pytest.param("kvm", marks=pytest.mark.kvm)]
KITS: dict[str, Any] = {"lxc": lxc_kit, "kvm": kvm_kit}

FETCHED = "result/pkg-bookworm-amd64-fetched.json"

#: Says of each way out whether something answered: TCP and UDP to HOST:PORT arguments, DNS, and (root only) ICMP.
TRY = r"""
use strict;
use Socket;
sub answered { my ($socket) = @_; my ($read, $data) = (""); vec($read, fileno($socket), 1) = 1;
               return select($read, undef, undef, 3) && defined recv($socket, $data, 2000, 0) && length($data); }
sub tried { my ($name, $type, $protocol, $host, $port, $say) = @_;
    local $SIG{ALRM} = sub { die "late\n" };
    my $socket;
    my $yes = eval { alarm(5);
        socket($socket, AF_INET, $type, $protocol) && connect($socket, pack_sockaddr_in($port, inet_aton($host)))
            && defined send($socket, $say, 0) && answered($socket) };
    alarm(0);
    print "$name ", ($yes ? "yes" : "no"), "\n"; }
for my $place (@ARGV) {
    my ($host, $port) = split(/:/, $place);
    tried("tcp $place", SOCK_STREAM, 0, $host, $port, "tcp");
    tried("udp $place", SOCK_DGRAM, 0, $host, $port, "udp");
}
tried("dns", SOCK_DGRAM, 0, "10.0.2.3", 53,
      pack("n6", 1, 0x100, 1, 0, 0, 0) . "\7example\7invalid" . pack("Cn2", 0, 1, 1));
# A real echo: type 8, checksum of the words below.
tried("icmp", SOCK_RAW, 1, "10.0.2.2", 0, pack("C2n3", 8, 0, 0xf7fe, 0, 1)) if $> == 0;
"""

#: As the user, as root, and after root has done what it could to have a network again.
SCRIPT = """
set -o pipefail
perl try.pl {places} | sed 's/^/user /' > $OUTDIR/tried
sudo -n perl try.pl {places} | sed 's/^/root /' >> $OUTDIR/tried
sudo -n sh -c '
    ip rule del pref 2; ip rule del pref 1; ip rule del pref 20
    ip link set lo up; ip link set eth0 up; ip link add eth0 type dummy; ip link set eth0 up
    ip addr add 10.0.2.15/24 dev eth0; ip route add default via 10.0.2.2; ip route add 10.0.2.2 dev eth0
    iptables -F; true' 2> /dev/null
sudo -n perl try.pl {places} | sed 's/^/again /' >> $OUTDIR/tried
perl -MSocket -e 'my ($one, $two); socket($one, AF_INET, SOCK_STREAM, 0)
    && bind($one, pack_sockaddr_in(0, INADDR_LOOPBACK)) && listen($one, 1)
    && socket($two, AF_INET, SOCK_STREAM, 0) && connect($two, getsockname($one)) or die "$!"
    ' && echo works > $OUTDIR/loopback
"""


class Service:
    """A TCP and a UDP service at one address of this machine: it answers, and counts who came."""

    def __init__(self, host: str) -> None:
        self.tcp = socket.create_server((host, 0))
        self.host, self.port = self.tcp.getsockname()
        self.udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.udp.bind((self.host, self.port))
        self.came = 0
        self.over, self._end = socket.socketpair()

    def run(self) -> None:
        while True:
            ready, _, _ = select.select([self.tcp, self.udp, self.over], [], [])
            if self.over in ready:
                return
            self.came += 1
            if self.tcp in ready:
                other, _ = self.tcp.accept()
                other.sendall(b"tcp heard\n")
                other.close()
            if self.udp in ready:
                _, sender = self.udp.recvfrom(2000)
                self.udp.sendto(b"udp heard\n", sender)

    def close(self) -> None:
        self._end.close()


def outside_address() -> str | None:
    """The address of this machine that others see, if it has one (no packet is sent)."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe, contextlib.suppress(OSError):
        probe.connect(("192.0.2.1", 9))
        return str(probe.getsockname()[0])
    return None


@pytest.fixture
def services() -> Iterator[list[Service]]:
    """Services on the loopback, and, if there is one, at the address outside."""
    import threading

    found = [Service(host) for host in ("127.0.0.1", outside_address()) if host is not None]
    threads = [threading.Thread(target=one.run) for one in found]
    for thread in threads:
        thread.start()
    yield found
    for one in found:
        one.close()
    for thread in threads:
        thread.join()


def tried(workspace: Path) -> dict[str, str]:
    lines = (workspace / "build" / "out" / "tried").read_text().splitlines()
    return {way: word for way, _, word in (line.rpartition(" ") for line in lines)}


@pytest.mark.parametrize("backend", BACKENDS)
def test_nothing_leaves_whatever_root_in_the_guest_does(backend: str, tmp_path: Path, images: Path,
                                                        services: list[Service]) -> None:
    workspace = tmp_path / "ws"
    (workspace / "inputs").mkdir(parents=True)
    (workspace / "inputs" / "try.pl").write_text(TRY)
    places = [f"10.0.2.2:{services[0].port}", *(f"{one.host}:{one.port}" for one in services[1:])]
    path = descriptor(workspace, SCRIPT.format(places=" ".join(places)), extra="sudo: true\n",
                      head=HEAD.replace("files: []", 'files: ["try.pl"]'))
    # The host's loopback is open to guests, as it is for those who have their package cache there.
    env = {"USE_LXC": "1" if backend == "lxc" else "", "MIRROR_HOST": "127.0.0.1", "HOME": str(tmp_path),
           "XDG_CACHE_HOME": str(tmp_path / "cache")}

    # What the script tries is worth something: with a network it is heard.
    gbuild(workspace, images, "--allow-sudo", str(path), env=env)
    found = tried(workspace)
    for way in (f"user tcp {places[0]}", f"user udp {places[0]}", f"root tcp {places[0]}", "root icmp"):
        assert found[way] == "yes", found
    assert services[0].came >= 4

    for one in services:
        one.came = 0
    cut = gbuild(workspace, images, "--allow-sudo", "--no-network", str(path), env=env)
    assert "from its layer without a network" in cut.stderr
    found = tried(workspace)
    ways = [f"{kind} {place}" for place in places for kind in ("tcp", "udp")]
    assert set(found) == {f"{who} {way}" for who in ("user", "root", "again") for way in (*ways, "dns", "icmp")} \
        - {"user icmp"}
    if backend == "kvm":
        # qemu itself is at home at 10.0.2.2, and says so to root who has removed the rules; nobody else hears of it.
        del found["again icmp"]
    assert set(found.values()) == {"no"}, found
    assert [one.came for one in services] == [0] * len(services)
    assert (workspace / "build/out/loopback").read_text() == "works\n"
    log = (workspace / "var/build.log").read_text()
    for probe in ("dns 10.0.2.3:53", "tcp 10.0.2.2:80", "udp 192.0.2.1:123", "icmp 192.0.2.1", "name "):
        assert any(line.startswith(f"--- {probe}") and ": refused (" in line for line in log.splitlines()), log[:3000]


@pytest.mark.parametrize("backend", BACKENDS)
def test_no_socket_to_the_hypervisor_either(backend: str, tmp_path: Path, images: Path) -> None:
    workspace = tmp_path / "ws"
    (workspace / "var").mkdir(parents=True)
    attempt = f"socket(my $one, {int(socket.AF_VSOCK)}, SOCK_STREAM, 0) and die 'open'; print $! + 0"
    with KITS[backend].running(workspace, images, network=False) as guest:
        assert not guest.network
        assert guest.run(["perl", "-MSocket", "-e", attempt], user="root").stdout == b"97"
        said = isolation.check_isolation(guest)
        if backend == "lxc":
            # Through io_uring the host's kernel makes sockets that the profile never sees: there is none, for nobody.
            ring = "print syscall(425, 1, my $parameters = qq(\\0) x 120), ' ', $! + 0"
            for user in ("root", guest.user):
                assert guest.run(["perl", "-e", ring], user=user).stdout == b"-1 38"
            assert "io_uring opens: refused (Function not implemented)" in said
            assert "vsock opens: refused (Address family not supported by protocol)" in said
        else:
            assert "vsock 2: refused (Address family not supported by protocol)" in said
        # Otherwise it is a guest like any other: what it does with sockets of its own it can do.
        assert guest.run(["perl", "-MSocket", "-e", "socket(my $one, AF_UNIX, SOCK_STREAM, 0) or die $!"]).status == 0


@pytest.mark.parametrize("backend", BACKENDS)
def test_the_probe_can_tell(backend: str, tmp_path: Path, images: Path) -> None:
    """In a guest with a network the same probe finds it."""
    workspace = tmp_path / "ws"
    (workspace / "var").mkdir(parents=True)
    with KITS[backend].running(workspace, images) as guest:
        assert guest.network
        with pytest.raises(GuestError, match="has been answered from outside") as caught:
            isolation.check_isolation(guest)
    heard = [line.split()[0] for line in str(caught.value).splitlines()[1:]]
    assert {"icmp", "tcp"} <= set(heard), caught.value


@pytest.mark.lxc
def test_a_profile_that_leaves_a_way_is_noticed(tmp_path: Path, images: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lxc_config, "cut_off", lambda profile: profile)
    workspace = tmp_path / "ws"
    (workspace / "var").mkdir(parents=True)
    with lxc_kit.running(workspace, images, network=False) as guest:
        ring = guest.run(["perl", "-e", "print syscall(425, 1, my $parameters = qq(\\0) x 120)"], user="root").stdout
        if int(ring) < 0:
            pytest.skip("this machine has no io_uring for containers")
        with pytest.raises(GuestError, match="leaves a way to one") as caught:
            isolation.check_isolation(guest)
    assert "io_uring opens: answered (it opens)" in str(caught.value)


@pytest.mark.lxc
def test_the_same_outputs_with_and_without_however_the_guest_came_about(tmp_path: Path, images: Path) -> None:
    script = "(id; hostname; cat /etc/resolv.conf /etc/hosts) > $OUTDIR/around; hello > $OUTDIR/a"
    head = HEAD.replace("packages: []", "packages: [hello]")
    path = descriptor(tmp_path, script, head=head)
    gbuild(tmp_path, images, str(path))
    outputs = sorted((one.name, one.read_bytes()) for one in (tmp_path / "build/out").iterdir())
    fetched = json.loads((tmp_path / FETCHED).read_text())
    gbuild(tmp_path, images, "--no-network", str(path))
    expected = report_of(tmp_path)
    # What came for the layer is on record with every build from it, and agrees with the environment manifest.
    assert json.loads((tmp_path / FETCHED).read_text()) == {**fetched, "network": False} and fetched["network"]
    lines = (tmp_path / "var/base-bookworm-amd64.manifest").read_text().splitlines()
    manifest = {name: digest for digest, _, name in (line.partition("  ") for line in lines)}
    urls = {one["url"].rpartition("/")[2]: one for one in fetched["fetched"]}
    assert urls["hello_2.10-3_amd64.deb"]["sha256"] == manifest["hello_2.10-3_amd64.deb"]
    assert urls["hello_2.10-3_amd64.deb"]["url"].endswith("/pool/main/h/hello/hello_2.10-3_amd64.deb")
    assert urls["InRelease"]["url"].startswith("http") and urls["Packages"]["size"] > 2**20
    for more in (["--no-layers"], ["--skip-image"], ["--skip-cleanup", "--skip-image"], ["--skip-image"]):
        done = gbuild(tmp_path, images, "--no-network", *more, str(path))
        assert "Starting the last target again without a network" in done.stderr
        assert report_of(tmp_path) == expected, more
    # The same in the descriptor: another input, the same outputs. What it tries to fetch is not there.
    path = descriptor(tmp_path, script + "\n! getent ahosts www.example.org", head=head, extra="network: false\n")
    gbuild(tmp_path, images, str(path))
    assert sorted((one.name, one.read_bytes()) for one in (tmp_path / "build/out").iterdir()) == outputs
    assert '"network": false' in (tmp_path / "result/pkg-bookworm-amd64.intoto.json").read_text()


@pytest.mark.kvm
def test_a_machine_that_installed_its_packages_goes_on_without_a_network(tmp_path: Path, images: Path) -> None:
    path = descriptor(tmp_path, "! getent ahosts www.example.org\nuname -m > $OUTDIR/a")
    done = gbuild(tmp_path, images, "--no-network", "--no-layers", str(path),
                  env={"USE_LXC": "", "XDG_CACHE_HOME": str(tmp_path / "cache")})
    assert "Starting the last target again without a network" in done.stderr
    assert (tmp_path / "build/out/a").read_text() == "x86_64\n"


@pytest.mark.lxc
def test_gnu_hello_still_reproduces(tmp_path: Path, images: Path) -> None:
    """The demo's program, from the archive that the base image was made from: the same bytes with and without."""
    sources = json.loads((images / "base-bookworm-amd64.json").read_text())["sources"]
    archive = next(word for line in sources for word in line.split() if word.startswith(("http://", "https://")))
    (tmp_path / "inputs").mkdir()
    name = "hello_2.10.orig.tar.gz"  # the script checks its hash
    with urllib.request.urlopen(f"{archive.rstrip('/')}/pool/main/h/hello/{name}", timeout=120) as answer:
        (tmp_path / "inputs" / name).write_bytes(answer.read(10 * 2**20))
    shutil.copy(ROOT / "share/examples/hello.yml", tmp_path)
    with_it = gbuild(tmp_path, images, "-j4", "hello.yml").stdout
    report = report_of(tmp_path, "hello")
    without = gbuild(tmp_path, images, "-j4", "--no-network", "hello.yml").stdout
    assert "  hello-2.10-linux-amd64.tar.gz\n" in with_it
    assert without == with_it and report_of(tmp_path, "hello") == report
