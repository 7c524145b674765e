"""Files and small documents from servers that are not believed: bounded, by several connections at a time."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import http.client
import ipaddress
import math
import queue
import threading
import time
import urllib.request
from collections.abc import Callable, Generator, Iterator, Sequence
from pathlib import Path
from typing import TypeVar
from urllib.parse import SplitResult, unquote, urljoin, urlsplit, urlunsplit

from gitian.errors import HostError
from gitian.host.space import writing

#: Requests at a time, whatever number of files there is: more is no faster and a burden to a server.
AT_ONCE = 6
#: A file whose size is not known beforehand is no larger than this (bytes).
LARGEST = 2**29

_PIECE = 2**17
_PATIENCE = 30.0  # seconds without a byte
_HASTY = (10.0, 600.0)  # seconds without a byte; seconds for all of an answer
_SLOWEST = 10_000  # bytes per second; what is slower than that is given up
# Seconds before each new attempt; the first may be lost to a connection that the server had enough of.
_PAUSES = (0.0, 2.0)
_LONGEST_PAUSE = 30.0  # whatever a busy server asks for
_REDIRECTIONS = 6

Item = TypeVar("Item")
Found = TypeVar("Found")


class _Busy(OSError):
    """A server that asks for patience (RFC 9110, 10.2.3: Retry-After, here in seconds only)."""

    def __init__(self, status: int, after: str | None) -> None:
        super().__init__(f"it answers {status}")
        said = float(after) if after is not None and after.isascii() and after.isdigit() and len(after) < 9 else 0.0
        self.after = min(said, _LONGEST_PAUSE)


class Stopped(Exception):
    """Nobody waits any more for what is being fetched."""


class Refused(Exception):
    """What came is not what was asked for, or nothing came; ``str`` says why, with 'it' for the server or file.

    After a ``clean`` one the connection can be used again; ``silent`` says that no answer came to its end.
    """

    def __init__(self, why: str, *, clean: bool = False, silent: bool = False) -> None:
        super().__init__(why)
        self.clean = clean
        self.silent = silent


class Client:
    """Asks servers one after the other for files, over connections that are kept: the second request to a server costs
    no look-up of its name and no handshake. Http and https only, over the user's proxies.

    Once ``stop`` is set, what is being fetched ends with the next piece of it. A ``hasty`` one does not wait long for a
    silent server, nor for anything that does not come within ten minutes.
    """

    def __init__(self, stop: threading.Event | None = None, *, hasty: bool = False) -> None:
        self.stop = stop or threading.Event()
        self._patience, self._longest = _HASTY if hasty else (_PATIENCE, math.inf)
        self._kept: dict[tuple[str, str, bool], http.client.HTTPConnection] = {}
        self._proxies = urllib.request.getproxies()

    def get(self, url: str) -> http.client.HTTPResponse:
        """The answer, whatever its status, after redirections. It is read to its end, or :meth:`drop` is called.

        Raises Refused, OSError, HTTPException, ValueError.
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
        raise Refused("it redirects too often")

    def save(self, url: str, path: Path, *, sha256: str | None = None, size: int | None = None, limit: int = LARGEST,
             progress: Callable[[int], object] = lambda count: None) -> None:
        """Fetch a file, of that hash if there is one, to ``path``; when it does not come, nothing is left there.

        ``size`` is in bytes, None when it is not known; then it has at most ``limit``. ``progress`` gets byte counts.
        Raises Refused, Stopped; HostError: the file cannot be written, for which no server is blamed.
        """
        def attempt() -> None:
            digest, came = hashlib.sha256(), 0
            with writing(path) as write:
                for piece in self._pieces(url, limit if size is None else size):
                    came += len(piece)
                    digest.update(piece)
                    write(piece)
                    progress(len(piece))
            if size is not None and came != size:
                raise Refused(f"it has {came} bytes, not {size}", clean=True)
            if sha256 is not None and digest.hexdigest() != sha256:
                raise Refused("it is another file", clean=True)

        try:
            self._patiently(attempt)
        except (Refused, Stopped):
            path.unlink(missing_ok=True)
            raise
        except HostError:
            self.drop()
            with contextlib.suppress(OSError):
                path.unlink(missing_ok=True)
            raise

    def read(self, url: str, limit: int) -> bytes:
        """A document of at most ``limit`` bytes. Raises Refused, Stopped."""
        return self._patiently(lambda: b"".join(self._pieces(url, limit)))

    def drop(self) -> None:
        """Close all connections."""
        for connection in self._kept.values():
            connection.close()
        self._kept.clear()

    def _patiently(self, attempt: Callable[[], Found]) -> Found:
        """What an attempt comes to; one that may succeed the next time is made again. Raises Refused, Stopped."""
        why, after = "it does not answer", 0.0
        for pause in (*_PAUSES, None):
            if self.stop.is_set():
                raise Stopped
            try:
                return attempt()
            except Refused as error:
                if not error.clean:
                    self.drop()  # whatever state it is in
                raise
            except Stopped:
                self.drop()
                raise
            except (OSError, http.client.HTTPException, ValueError) as error:
                self.drop()
                why = str(error).strip() or type(error).__name__
                after = error.after if isinstance(error, _Busy) else 0.0
            if pause is not None:
                self.stop.wait(max(pause, after))
        raise Refused(why, silent=True)

    def _pieces(self, url: str, limit: int) -> Iterator[bytes]:
        """The body of a good answer. Raises Refused for what will be the same the next time, Stopped, and as
        :meth:`get`."""
        answer = self.get(url)
        if answer.status in (408, 425, 429) or answer.status >= 500:
            raise _Busy(answer.status, answer.headers.get("Retry-After"))
        if answer.status != 200:
            raise Refused(f"it answers {answer.status}", clean=len(answer.read(_PIECE)) < _PIECE)
        said, came = answer.length, 0
        if said is not None and said > limit:
            raise Refused(f"it has {said} bytes, more than {limit}")
        until = time.monotonic() + min(60 + (limit if said is None else said) / _SLOWEST, self._longest)
        while piece := answer.read(_PIECE):
            if self.stop.is_set():
                raise Stopped
            came += len(piece)
            if came > limit:
                raise Refused(f"it has more than {limit} bytes")
            if time.monotonic() > until:
                raise Refused("it is too slow", silent=True)
            yield piece
        if said is not None and came < said:
            raise OSError("it breaks off")

    def _ask(self, url: str, own: bool) -> http.client.HTTPResponse:
        parts = urlsplit(url)
        target = urlunsplit(("", "", parts.path or "/", parts.query, ""))
        headers = {"User-Agent": "gitian", "Accept-Encoding": "identity"}
        if parts.scheme not in ("http", "https") or parts.hostname is None or parts.username is not None:
            raise Refused("it leads to something that is not on the web")
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
            connection = kind(proxy.hostname or "", proxy.port or 80, timeout=self._patience)
            if parts.scheme == "https":
                connection.set_tunnel(parts.hostname or "", parts.port, headers=_authorization(proxy))
            return connection
        connection = kind(parts.hostname or "", parts.port, timeout=self._patience)
        connection.connect()
        # A redirection, or a name that says so, must not lead to this machine's own services: what a guest was told by
        # an archive would reach what the guest itself may not.
        if not own and is_own(connection.sock.getpeername()[0]):
            connection.close()
            raise Refused("it leads to this machine's own services")
        return connection


def side_by_side(items: Sequence[Item],
                 work: Callable[[Item, Client], Found]) -> Generator[tuple[Item, Found], None, None]:
    """Do ``work`` for every item, several at a time, each with a client of its thread; results as they come.

    Whoever stops listening (Ctrl-C) closes it and waits for no server: the threads are daemons whose clients are told
    to stop.
    """
    todo: queue.SimpleQueue[Item] = queue.SimpleQueue()
    for item in items:
        todo.put(item)
    came: queue.SimpleQueue[tuple[Item, Found | None, BaseException | None]] = queue.SimpleQueue()
    stop = threading.Event()

    def thread() -> None:
        client = Client(stop)
        while not stop.is_set():
            try:
                item = todo.get_nowait()
            except queue.Empty:
                break
            try:
                came.put((item, work(item, client), None))
            except BaseException as error:  # whatever it is, somebody waits for it
                came.put((item, None, error))
        client.drop()

    for _ in range(min(AT_ONCE, len(items))):
        threading.Thread(target=thread, daemon=True).start()
    try:
        for _ in items:
            item, found, error = came.get()
            if error is not None:
                raise error
            yield item, found  # type: ignore[misc]  # None only beside an error, or when work returns it
    finally:
        stop.set()


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
