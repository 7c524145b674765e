"""Packages fetched into the pool: several at a time, each no larger than its index says and checked by its hash."""

from __future__ import annotations

import hashlib
import http.client
import ipaddress
import queue
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from gitian.host.pool import Deb, PoolUse
from gitian.host.space import free

#: Requests at a time, whatever number of packages there is: more is no faster and a burden to a mirror.
AT_ONCE = 6

_PIECE = 2**17
_PATIENCE = 30.0  # seconds without a byte
_SLOWEST = 10_000  # bytes per second; slower than that is left to apt, which has all the time
_TRIES = 2
#: Room that is left on the disk whatever is fetched (bytes).
_RESERVE = 512 * 2**20


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """A package to be fetched from ``url``, as this machine reaches it."""

    deb: Deb
    url: str


def fetch(orders: Sequence[Order], use: PoolUse, directory: Path) -> set[Deb]:
    """Fetch packages into ``directory`` (on the pool's file system) and into the pool; those that came.

    What does not come is no error here: apt, asked for it, knows better what to say.
    """
    orders = [order for order in orders if urlsplit(order.url).scheme in ("http", "https")]
    if not orders or free(directory) < sum(order.deb.size for order in orders) + _RESERVE:
        return set()
    # The largest first, so that none is left alone at the end.
    todo: queue.SimpleQueue[Order] = queue.SimpleQueue()
    for order in sorted(orders, key=lambda order: -order.deb.size):
        todo.put(order)
    came: queue.SimpleQueue[tuple[Order, bool]] = queue.SimpleQueue()
    stop = threading.Event()

    def work() -> None:
        while not stop.is_set():
            try:
                order = todo.get_nowait()
            except queue.Empty:
                return
            good = False
            try:
                good = _one(order, directory / order.deb.name, stop)
            finally:
                came.put((order, good))

    # Daemons: whoever interrupts us shall not wait for a server that says nothing.
    for _ in range(min(AT_ONCE, len(orders))):
        threading.Thread(target=work, daemon=True).start()
    good = set()
    try:
        for _ in orders:
            order, fetched = came.get()
            if fetched:
                use.keep(directory / order.deb.name, order.deb)
                good.add(order.deb)
    finally:
        stop.set()
    return good


def _one(order: Order, path: Path, stop: threading.Event) -> bool:
    for _ in range(_TRIES):
        try:
            if _attempt(order, path, stop):
                return True
        except urllib.error.HTTPError as error:
            error.close()
            if 400 <= error.code < 500 and error.code not in (408, 429):
                break
        except (OSError, http.client.HTTPException, ValueError):
            pass
        if stop.is_set():
            break
    path.unlink(missing_ok=True)
    return False


def _attempt(order: Order, path: Path, stop: threading.Event) -> bool:
    size, digest = 0, hashlib.sha256()
    until = time.monotonic() + 60 + order.deb.size / _SLOWEST
    request = urllib.request.Request(order.url, headers={"User-Agent": "gitian", "Accept-Encoding": "identity"})
    with _opener(order.url).open(request, timeout=_PATIENCE) as answer, path.open("wb") as file:
        while piece := answer.read(_PIECE):
            size += len(piece)
            if size > order.deb.size or stop.is_set() or time.monotonic() > until:
                return False
            digest.update(piece)
            file.write(piece)
    return size == order.deb.size and digest.hexdigest() == order.deb.sha256


def _opener(url: str) -> urllib.request.OpenerDirector:
    """What opens a URL: http and https only, over the user's proxies, and never this machine's own services by a
    redirection or a name that says so, which what a guest is told by an archive could lead us to."""
    parts = urlsplit(url)
    host = parts.hostname or ""
    proxies = {} if is_own(host) else urllib.request.getproxies()
    own = is_own(host) or (parts.scheme in proxies and not urllib.request.proxy_bypass(host))
    opener = urllib.request.OpenerDirector()
    for handler in (urllib.request.ProxyHandler(proxies), urllib.request.UnknownHandler(),
                    urllib.request.HTTPDefaultErrorHandler(), urllib.request.HTTPRedirectHandler(),
                    urllib.request.HTTPErrorProcessor(), _Http(own), _Https(own)):
        opener.add_handler(handler)
    return opener


def is_own(address: str) -> bool:
    """Whether an address (or 'localhost') is this machine's loopback."""
    try:
        found = ipaddress.ip_address(address)
    except ValueError:
        return address.lower().rstrip(".") in ("localhost", "ip6-localhost") \
            or address.lower().rstrip(".").endswith(".localhost")
    found = getattr(found, "ipv4_mapped", None) or found
    return found.is_loopback or found.is_unspecified


def _check_peer(connection: http.client.HTTPConnection, own: bool) -> None:
    if not own and is_own(connection.sock.getpeername()[0]):
        connection.close()
        raise OSError("An archive led to this machine's own services.")


class _Connection(http.client.HTTPConnection):
    own = False

    def connect(self) -> None:
        super().connect()
        _check_peer(self, self.own)


class _SecureConnection(http.client.HTTPSConnection):
    own = False

    def connect(self) -> None:
        super().connect()
        _check_peer(self, self.own)


class _Http(urllib.request.HTTPHandler):
    def __init__(self, own: bool) -> None:
        super().__init__()
        self._kind: Any = type("Connection", (_Connection,), {"own": own})

    def http_open(self, req: urllib.request.Request) -> Any:
        return self.do_open(self._kind, req)


class _Https(urllib.request.HTTPSHandler):
    def __init__(self, own: bool) -> None:
        super().__init__()
        self._kind: Any = type("SecureConnection", (_SecureConnection,), {"own": own})

    def https_open(self, req: urllib.request.Request) -> Any:
        return self.do_open(self._kind, req)
