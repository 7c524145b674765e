"""Packages fetched into the pool: several at a time, each no larger than its index says and checked by its hash."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import http.client
import ipaddress
import queue
import threading
import time
import urllib.request
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import SplitResult, unquote, urljoin, urlsplit, urlunsplit

from gitian.host.pool import Deb, PoolUse
from gitian.host.space import free

#: Requests at a time, whatever number of packages there is: more is no faster and a burden to a mirror.
AT_ONCE = 6

_PIECE = 2**17
_PATIENCE = 30.0  # seconds without a byte
_SLOWEST = 10_000  # bytes per second; slower than that is left to apt, which has all the time
_TRIES = 3  # of which one may be lost to a connection that the server had enough of
_REDIRECTIONS = 6
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
        client = _Client()
        while not stop.is_set():
            try:
                order = todo.get_nowait()
            except queue.Empty:
                break
            good = False
            try:
                good = _one(order, directory / order.deb.name, client, stop)
            finally:
                came.put((order, good))
        client.drop()

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


def _one(order: Order, path: Path, client: _Client, stop: threading.Event) -> bool:
    for _ in range(_TRIES):
        good: bool | None = None
        with contextlib.suppress(OSError, http.client.HTTPException, ValueError):
            good = _attempt(order, path, client, stop)
        if good:
            return True
        client.drop()  # whatever state it is in
        if good is False or stop.is_set():
            break
    path.unlink(missing_ok=True)
    return False


def _attempt(order: Order, path: Path, client: _Client, stop: threading.Event) -> bool:
    """Whether it came; False is an answer that will be the same the next time. Raises like :meth:`_Client.get`."""
    size, digest = 0, hashlib.sha256()
    until = time.monotonic() + 60 + order.deb.size / _SLOWEST
    answer = client.get(order.url)
    if answer.status in (408, 429) or answer.status >= 500:
        raise OSError(f"The server answers {answer.status}.")
    if answer.status != 200:
        return False
    with path.open("wb") as file:
        while piece := answer.read(_PIECE):
            size += len(piece)
            if size > order.deb.size or stop.is_set() or time.monotonic() > until:
                return False
            digest.update(piece)
            file.write(piece)
    return size == order.deb.size and digest.hexdigest() == order.deb.sha256


class _Client:
    """Asks servers one after the other for files, over connections that are kept: the second request to a server costs
    no look-up of its name and no handshake. Http and https only, over the user's proxies."""

    def __init__(self) -> None:
        self._kept: dict[tuple[str, str, bool], http.client.HTTPConnection] = {}
        self._proxies = urllib.request.getproxies()

    def get(self, url: str) -> http.client.HTTPResponse:
        """The answer, whatever its status, after redirections. It is read to its end, or :meth:`drop` is called.

        Raises OSError, HTTPException, ValueError.
        """
        own = is_own(urlsplit(url).hostname or "")
        for _ in range(_REDIRECTIONS):
            answer = self._ask(url, own)
            to = answer.headers.get("Location")
            if answer.status not in (301, 302, 303, 307, 308) or to is None:
                return answer
            if len(answer.read(_PIECE)) == _PIECE:
                self.drop()
            url = urljoin(url, to)
        raise OSError("Too many redirections.")

    def drop(self) -> None:
        """Close all connections."""
        for connection in self._kept.values():
            connection.close()
        self._kept.clear()

    def _ask(self, url: str, own: bool) -> http.client.HTTPResponse:
        parts = urlsplit(url)
        target = urlunsplit(("", "", parts.path or "/", parts.query, ""))
        headers = {"User-Agent": "gitian", "Accept-Encoding": "identity"}
        if parts.scheme not in ("http", "https") or parts.hostname is None or parts.username is not None:
            raise OSError("An archive led to something that is not on the web.")
        proxy = self._proxy(parts)
        if proxy is not None and parts.scheme == "http":
            target = urlunsplit(parts._replace(fragment=""))
            headers |= _authorization(proxy)
        key = (parts.scheme, parts.netloc, own)
        connection = self._kept.get(key) or self._connect(parts, proxy, own)
        self._kept[key] = connection
        connection.request("GET", target, headers=headers)
        return connection.getresponse()

    def _proxy(self, parts: SplitResult) -> SplitResult | None:
        proxy = self._proxies.get(parts.scheme)
        if not proxy or is_own(parts.hostname or "") or urllib.request.proxy_bypass(parts.hostname or ""):
            return None
        return urlsplit(proxy if "://" in proxy else f"http://{proxy}")

    def _connect(self, parts: SplitResult, proxy: SplitResult | None, own: bool) -> http.client.HTTPConnection:
        kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
        if proxy is not None:
            connection = kind(proxy.hostname or "", proxy.port or 80, timeout=_PATIENCE)
            if parts.scheme == "https":
                connection.set_tunnel(parts.hostname or "", parts.port, headers=_authorization(proxy))
            return connection
        connection = kind(parts.hostname or "", parts.port, timeout=_PATIENCE)
        connection.connect()
        # A redirection, or a name that says so, must not lead to this machine's own services: what a guest was told by
        # an archive would reach what the guest itself may not.
        if not own and is_own(connection.sock.getpeername()[0]):
            connection.close()
            raise OSError("An archive led to this machine's own services.")
        return connection


def _authorization(proxy: SplitResult) -> dict[str, str]:
    if proxy.username is None:
        return {}
    words = f"{unquote(proxy.username)}:{unquote(proxy.password or '')}"
    return {"Proxy-Authorization": "Basic " + base64.b64encode(words.encode()).decode()}


def is_own(address: str) -> bool:
    """Whether an address (or 'localhost') is this machine's loopback."""
    try:
        found = ipaddress.ip_address(address)
    except ValueError:
        return address.lower().rstrip(".") in ("localhost", "ip6-localhost") \
            or address.lower().rstrip(".").endswith(".localhost")
    found = getattr(found, "ipv4_mapped", None) or found
    return found.is_loopback or found.is_unspecified
