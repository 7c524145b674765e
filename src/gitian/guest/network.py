"""How an LXC guest reaches the network: in user mode, without any set-up on the host, by a bridge of the host's, or not
at all."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from gitian.errors import HostError
from gitian.guest.protocol import DNS_ADDRESS, GUEST_ADDRESS, HOST_ADDRESS

_INTERFACE = re.compile(r"[A-Za-z0-9_.-]{1,15}")
_LOOPBACK_NAMES = ("localhost", "ip6-localhost")

#: Large packets: the guest's end of a slirp4netns has no cable to respect (bytes).
_MTU = 65520
_EMPTY = ("lxc.net.0.type = empty",)
_RESOLV_CONF = f"nameserver {DNS_ADDRESS}\n"


@dataclass(frozen=True, slots=True, kw_only=True)
class Network:
    """Lines for the container's configuration, and what slirp4netns (in user mode) and ip(8) are told."""

    kind: str  # 'user', 'bridge' or 'none'
    config: tuple[str, ...]
    slirp: tuple[str, ...] = ()
    addresses: str = ""
    resolv_conf: str


def choose(environment: Mapping[str, str], *, host_address: str = HOST_ADDRESS, wanted: bool = True) -> Network:
    """The network that LXC_BRIDGE, LXC_GUEST_IP and MIRROR_HOST ask for; none unless ``wanted``. Raises HostError."""
    if not wanted:
        # A loopback and nothing else, which root in the guest cannot change: what it adds leads nowhere. The files are
        # those of a guest in user mode.
        return Network(kind="none", config=_EMPTY, addresses="link set lo up\n", resolv_conf=_RESOLV_CONF)
    bridge = environment.get("LXC_BRIDGE", "")
    if bridge:
        return _on_bridge(bridge, environment.get("LXC_GUEST_IP") or GUEST_ADDRESS, host_address)
    return _user_mode(proxy_on_host=is_loopback(environment.get("MIRROR_HOST", "")))


def is_loopback(host: str) -> bool:
    """Whether a host name or address means this machine itself."""
    if host in _LOOPBACK_NAMES:
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _user_mode(*, proxy_on_host: bool) -> Network:
    """slirp4netns(1): the guest's packets become this host's own connections; nothing can connect to the guest.

    What listens on the host's 127.0.0.1 stays out of reach, unless the package proxy is there.
    """
    options = [f"--mtu={_MTU}", "--enable-sandbox", "--enable-seccomp"]
    if not proxy_on_host:
        options.append("--disable-host-loopback")
    return Network(
        kind="user", config=_EMPTY, slirp=tuple(options),
        addresses=f"link set lo up\nlink set eth0 up mtu {_MTU}\naddr add {GUEST_ADDRESS}/24 dev eth0\n"
                  f"route add default via {HOST_ADDRESS}\n",
        resolv_conf=_RESOLV_CONF)


def _on_bridge(bridge: str, address: str, host_address: str, *, sysfs: Path = Path("/sys/class/net")) -> Network:
    if not _INTERFACE.fullmatch(bridge) or bridge in (".", "..") or not (sysfs / bridge / "bridge").is_dir():
        raise HostError(f"LXC_BRIDGE names '{bridge}', which is no bridge of this machine.",
                        hint="'ip link show type bridge' lists them. Without LXC_BRIDGE no bridge is needed.")
    try:
        interface = ipaddress.IPv4Interface(address if "/" in address else f"{address}/24")
    except ValueError as error:
        raise HostError(f"LXC_GUEST_IP is '{address}', which is no IPv4 address.",
                        hint=f"Leave it out to use {GUEST_ADDRESS}.") from error
    return Network(
        kind="bridge",
        config=("lxc.net.0.type = veth", "lxc.net.0.flags = up", f"lxc.net.0.link = {bridge}",
                "lxc.net.0.name = eth0", f"lxc.net.0.ipv4.address = {interface.with_prefixlen}",
                "lxc.net.0.ipv4.gateway = auto"),
        resolv_conf="".join(f"nameserver {server}\n" for server in name_servers() or [host_address]))


def name_servers(places: tuple[Path, ...] = (Path("/etc/resolv.conf"), Path("/run/systemd/resolve/resolv.conf"))
                 ) -> list[str]:
    """The host's name servers that a guest on a bridge can ask too: not those on the host's own loopback."""
    for place in places:
        try:
            text = place.read_text(encoding="utf-8", errors="replace")
        except OSError:
            continue
        found = []
        for line in text.splitlines():
            words = line.split()
            if len(words) >= 2 and words[0] == "nameserver":
                try:
                    server = ipaddress.ip_address(words[1].partition("%")[0])
                except ValueError:
                    continue
                if not server.is_loopback:
                    found.append(str(server))
        if found:
            return found[:3]
    return []
