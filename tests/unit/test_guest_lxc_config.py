"""What an LXC container is told: its configuration on either version of control groups, its network, its commands."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from gitian.errors import HostError
from gitian.guest import lxc_attach, lxc_config, network
from gitian.guest.lxc_attach import Container
from gitian.guest.lxc_config import ConfigRequest
from gitian.host.process import ProcessIdentity
from gitian.host.subids import SubIds


def settings(text: str) -> dict[str, list[str]]:
    """lxc.container.conf(5): 'key = value' lines."""
    found: dict[str, list[str]] = {}
    for line in text.splitlines():
        if line and not line.startswith("#"):
            key, equals, value = line.partition("=")
            assert equals, line
            found.setdefault(key.strip(), []).append(value.strip())
    return found


def rendered(cgroups: Path, *, allow_sudo: bool = False, arch: str = "amd64") -> dict[str, list[str]]:
    return settings(lxc_config.render(ConfigRequest(
        root=Path("/run/gitian/x/root"), arch=arch, ids=SubIds(uid=200_000, gid=300_000),
        network=network.choose({}), allow_sudo=allow_sudo), cgroups=cgroups, seccomp=Path("/profile")))


@pytest.fixture
def version_1(tmp_path: Path) -> Path:
    for name in ("devices", "pids", "unified"):
        (tmp_path / name).mkdir()
    return tmp_path


@pytest.fixture
def version_2(tmp_path: Path) -> Path:
    (tmp_path / "cgroup.controllers").write_text("cpu io memory pids\n")
    return tmp_path


def test_what_holds_everywhere(version_1: Path) -> None:
    found = rendered(version_1)
    assert found["lxc.idmap"] == ["u 0 200000 65536", "g 0 300000 65536"]
    assert found["lxc.rootfs.path"] == ["dir:/run/gitian/x/root"]
    assert found["lxc.seccomp.profile"] == ["/profile"]
    assert found["lxc.uts.name"] == ["gitian"]
    assert found["lxc.no_new_privs"] == ["1"]
    assert found["lxc.net.0.type"] == ["empty"]
    assert found["lxc.arch"] == ["x86_64"]
    assert {"sys_module", "sys_rawio", "sys_time", "mac_admin", "mac_override"} <= set(
        " ".join(found["lxc.cap.drop"]).split())
    # No directory of the host: the only mounts are file systems of the kernel's own.
    assert all(entry.split()[2] in ("tmpfs",) and "bind" not in entry for entry in found["lxc.mount.entry"])
    assert "@" not in str(found)
    assert rendered(version_1, allow_sudo=True)["lxc.no_new_privs"] == ["0"]
    assert rendered(version_1, arch="i386")["lxc.arch"] == ["i686"]
    with pytest.raises(ValueError, match="sparc"):
        rendered(version_1, arch="sparc")


def test_groups_of_version_1(version_1: Path) -> None:
    found = rendered(version_1)
    assert found["lxc.cgroup.devices.deny"] == ["a"]
    assert found["lxc.cgroup.pids.max"] == ["8192"]
    assert not any(key.startswith("lxc.cgroup2") for key in found)
    assert not any("b " in line[:2] for line in found["lxc.cgroup.devices.allow"])


def test_groups_of_version_2(version_2: Path) -> None:
    found = rendered(version_2)
    assert found["lxc.cgroup2.devices.deny"] == ["a"]
    assert found["lxc.cgroup2.pids.max"] == ["8192"]
    assert not any(key.startswith("lxc.cgroup.") for key in found)


def test_without_controllers_a_resource_limit_bounds_processes(tmp_path: Path) -> None:
    found = rendered(tmp_path)
    assert found["lxc.prlimit.nproc"] == ["8192"]
    assert not any(key.startswith("lxc.cgroup") for key in found)


def test_a_path_that_the_syntax_cannot_hold(version_1: Path) -> None:
    with pytest.raises(ValueError, match="syntax"):
        lxc_config.render(ConfigRequest(root=Path("/run/a b"), arch="amd64", ids=SubIds(uid=1, gid=1),
                                        network=network.choose({})), cgroups=version_1, seccomp=Path("/p"))


# Network


def test_user_mode_hides_the_hosts_loopback_unless_the_proxy_is_there() -> None:
    plain = network.choose({})
    assert plain.kind == "user" and "--disable-host-loopback" in plain.slirp
    assert plain.resolv_conf == "nameserver 10.0.2.3\n"
    assert "addr add 10.0.2.15/24 dev eth0" in plain.addresses and "default via 10.0.2.2" in plain.addresses
    assert "--disable-host-loopback" in network.choose({"MIRROR_HOST": "cache.example"}).slirp
    for host in ("127.0.0.1", "localhost", "127.0.1.1", "::1"):
        assert "--disable-host-loopback" not in network.choose({"MIRROR_HOST": host}).slirp


@pytest.mark.parametrize("name", ["nosuch0", "a b", "x\nlxc.hook.start = /bin/evil", "../../etc", "", "."])
def test_only_a_bridge_of_this_machine(name: str, tmp_path: Path) -> None:
    with pytest.raises(HostError, match="LXC_BRIDGE"):
        network._on_bridge(name, "10.0.2.15", "10.0.2.2", sysfs=tmp_path)


def test_an_address_on_the_bridge(tmp_path: Path) -> None:
    (tmp_path / "br0" / "bridge").mkdir(parents=True)
    chosen = network._on_bridge("br0", "10.0.3.7", "10.0.3.1", sysfs=tmp_path)
    assert "lxc.net.0.link = br0" in chosen.config and "lxc.net.0.ipv4.address = 10.0.3.7/24" in chosen.config
    assert "lxc.net.0.ipv4.address = 10.0.3.7/16" in network._on_bridge("br0", "10.0.3.7/16", "", sysfs=tmp_path).config
    for wrong in ("10.0.3", "10.0.3.7\nlxc.hook.start = /bin/evil", "::1", "10.0.3.7/99"):
        with pytest.raises(HostError, match="LXC_GUEST_IP"):
            network._on_bridge("br0", wrong, "10.0.3.1", sysfs=tmp_path)


def test_name_servers_that_a_guest_can_reach(tmp_path: Path) -> None:
    (tmp_path / "one").write_text("# resolved\nnameserver 127.0.0.53\noptions edns0\n")
    (tmp_path / "two").write_text("nameserver 192.0.2.1\nnameserver fe80::1%eth0\nnameserver nonsense\n")
    assert network.name_servers((tmp_path / "one", tmp_path / "two")) == ["192.0.2.1", "fe80::1"]
    assert network.name_servers((tmp_path / "one", tmp_path / "absent")) == []


# Commands


CONTAINER = Container(name="gitian-x", directory=Path("/run/gitian/x"), init=ProcessIdentity(pid=2**22 + 1, started=1))


def test_variables_cannot_become_words() -> None:
    for name in ("", "A=B", "A\0B"):
        with pytest.raises(ValueError, match="environment variable"):
            lxc_attach.command_line(CONTAINER, ["true"], user="debian", cwd=None, env={name: "x"})
    with pytest.raises(ValueError, match="environment variable"):
        lxc_attach.command_line(CONTAINER, ["true"], user="debian", cwd=None, env={"A": "x\0y"})


def test_a_command_that_looks_like_a_variable_or_an_option_is_still_run(tmp_path: Path) -> None:
    """The part of the line that runs in the guest, run here: env(1) takes leading NAME=VALUE words for variables."""
    if not (shutil.which("setsid") and shutil.which("env")):
        pytest.skip("setsid and env are not here")
    tool = tmp_path / "a=b"
    tool.write_text("#!/bin/sh\necho ran \"$@\"\n")
    tool.chmod(0o755)
    line = lxc_attach.command_line(CONTAINER, [str(tool), "-x", ""], user="debian", cwd=str(tmp_path), env=None)
    inner = line[line.index("/bin/sh"):]
    done = subprocess.run(inner, capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=60)
    assert (done.stdout, done.returncode) == ("ran -x \n", 0), done


def test_a_container_that_is_gone() -> None:
    assert not CONTAINER.alive()
