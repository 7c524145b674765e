"""Fetching over HTTP: small documents within bounds, and packages that can be resumed.

Everything that is fetched is checked against signatures later on. What is guarded against here is a server that never
ends, sends too much or too slowly, cuts off, or answers with another file's rest.
"""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import json
import os
import re
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from email.message import Message
from pathlib import Path
from typing import IO
from urllib.parse import unquote, urlsplit

from gitian.errors import DownloadError
from gitian.host import progress

#: Seconds without a byte after which a connection is given up.
PATIENCE = 60.0
#: Slower than this (bytes per second, over SLOW_SPAN seconds) and a connection is given up.
SLOWEST = 256
SLOW_SPAN = 120.0
#: How often a download that was cut off is taken up again, as long as each time brings something.
ATTEMPTS = 5
_PIECE = 256 * 1024
_MOST_REDIRECTIONS = 8


class _Redirections(urllib.request.HTTPRedirectHandler):
    max_redirections = _MOST_REDIRECTIONS

    def redirect_request(self, req: urllib.request.Request, fp: IO[bytes], code: int, msg: str, headers: Message,
                         newurl: str) -> urllib.request.Request | None:
        before, after = urlsplit(req.full_url).scheme, urlsplit(newurl).scheme
        if after not in ("http", "https") or (before == "https" and after == "http"):
            raise DownloadError(f"'{req.full_url}' sends us on to '{newurl}', which is less safe; that is refused.")
        new = super().redirect_request(req, fp, code, msg, headers, newurl)  # type: ignore[arg-type]
        if new is not None:
            for name in ("Range", "If-range"):
                if req.has_header(name):
                    new.add_unredirected_header(name, req.get_header(name) or "")
        return new


def _opener() -> urllib.request.OpenerDirector:
    # Built by hand: the usual opener also opens file:, ftp: and data: URLs.
    opener = urllib.request.OpenerDirector()
    for handler in (urllib.request.ProxyHandler(), urllib.request.HTTPHandler(), urllib.request.HTTPSHandler(),
                    urllib.request.HTTPDefaultErrorHandler(), _Redirections(),
                    urllib.request.HTTPErrorProcessor(), urllib.request.UnknownHandler()):
        opener.add_handler(handler)
    opener.addheaders = [("User-Agent", "gitian-update")]
    return opener


@contextlib.contextmanager
def _open(url: str, headers: dict[str, str]) -> Iterator[http.client.HTTPResponse]:
    request = urllib.request.Request(url, headers={"Accept-Encoding": "identity", "Cache-Control": "no-cache"})
    for name, value in headers.items():
        request.add_unredirected_header(name.capitalize(), value)
    try:
        response = _opener().open(request, timeout=PATIENCE)
    except urllib.error.HTTPError as error:
        if error.code == 416:
            # Not a failure: what we have may be all there is.
            with error:
                yield error  # type: ignore[misc]
            return
        error.close()
        raise DownloadError(f"'{url}' answers with status {error.code}.") from error
    except (OSError, http.client.HTTPException, ValueError) as error:
        reason = getattr(error, "reason", None) or error
        raise DownloadError(f"'{url}' cannot be fetched: {reason}.") from error
    with response:
        encoding = response.headers.get("Content-Encoding", "identity").strip().lower()
        if encoding not in ("", "identity"):
            raise DownloadError(f"'{url}' is sent in the encoding '{encoding}', though none was asked for.")
        yield response


def small(url: str, limit: int) -> bytes:
    """A document of at most ``limit`` bytes. ``file:`` URLs too. Raises DownloadError."""
    if (path := local(url)) is not None:
        try:
            with path.open("rb") as stream:
                data = stream.read(limit + 1)
        except OSError as error:
            raise DownloadError(f"'{path}' cannot be read: {error.strerror}.") from error
    else:
        pieces, size, pace = [], 0, _Pace(url)
        with _open(url, {}) as response:
            try:
                while size <= limit and (piece := response.read(min(_PIECE, limit + 1 - size))):
                    pieces.append(piece)
                    size += len(piece)
                    pace.got(len(piece))
            except (OSError, http.client.HTTPException) as error:
                raise DownloadError(f"'{url}' broke off: {error}.") from error
            announced = _length(response)
        if announced is not None and size < min(announced, limit + 1):
            raise DownloadError(f"'{url}' was cut off: {size} of {announced} bytes came.")
        data = b"".join(pieces)
    if len(data) > limit:
        raise DownloadError(f"'{url}' has more than {limit} bytes.")
    return data


def local(url: str) -> Path | None:
    """The file that a ``file:`` URL means, or None. Raises DownloadError for one on another host."""
    parts = urlsplit(url)
    if parts.scheme != "file":
        return None
    if parts.netloc not in ("", "localhost"):
        raise DownloadError(f"'{url}' is on another host.", hint="Write file:///path.")
    return Path(unquote(parts.path))


@dataclass(frozen=True, slots=True, kw_only=True)
class _Partial:
    """A file that is partly there, and what the server said of it."""

    path: Path
    notes: Path

    @staticmethod
    def of(url: str, directory: Path) -> _Partial:
        name = hashlib.sha256(url.encode()).hexdigest()[:32]
        return _Partial(path=directory / f"{name}.part", notes=directory / f"{name}.json")

    def validator(self, url: str) -> str | None:
        """What ``If-Range`` needs: a strong ETag, else a date (RFC 9110, 13.1.5); None: start afresh."""
        try:
            notes = json.loads(self.notes.read_bytes()[:65536])
            if self.path.stat().st_size == 0 or not isinstance(notes, dict) or notes.get("url") != url:
                return None
        except (OSError, ValueError):
            return None
        value = notes.get("validator")
        return value if isinstance(value, str) and re.fullmatch(r"[\x20-\x7e]{1,1000}", value) else None

    def note(self, url: str, response: http.client.HTTPResponse) -> None:
        etag = response.headers.get("ETag", "")
        validator = etag if etag.startswith('"') else response.headers.get("Last-Modified")
        self.notes.write_text(json.dumps({"url": url, "validator": validator}))

    def forget(self) -> None:
        self.notes.unlink(missing_ok=True)
        self.path.unlink(missing_ok=True)


def forget(url: str, directory: Path) -> None:
    """Throw away what was downloaded of it: it turned out to be bad, or is no longer needed."""
    _Partial.of(url, directory).forget()


def package(url: str, directory: Path, *, limit: int) -> Path:
    """Download to a file in ``directory``, from where an earlier try ended if the server still has the same file.

    At most ``limit`` bytes. The caller holds a lock on the directory. Raises DownloadError; what came is kept for
    the next try.
    """
    partial = _Partial.of(url, directory)
    for attempt in range(1, ATTEMPTS + 1):
        before = partial.path.stat().st_size if partial.path.exists() else 0
        try:
            _continue(url, partial, limit)
            return partial.path
        except _Changed as error:
            progress.say(str(error))
        except _CutOff as error:
            if attempt == ATTEMPTS or partial.path.stat().st_size <= before:
                raise DownloadError(f"{error}", hint="Run the same command again: it goes on from there.") from error
            progress.say(f"{error} Taking it up again.")
    raise DownloadError(f"'{url}' changes all the time.", hint="Try again later.")


class _CutOff(Exception):
    """A connection that ended early. Trying again may help."""


class _Changed(Exception):
    """What we have is a part of something else."""


def _continue(url: str, partial: _Partial, limit: int) -> None:
    validator = partial.validator(url)
    headers = {}
    offset = 0
    if validator is not None:
        offset = partial.path.stat().st_size
        headers = {"Range": f"bytes={offset}-", "If-Range": validator}
    with _open(url, headers) as response:
        if response.status == 416:
            total = re.fullmatch(r"bytes \*/([0-9]+)", response.headers.get("Content-Range", ""))
            if total is not None and int(total[1]) == offset:
                return
            partial.forget()
            raise _Changed(f"'{url}' has changed since it was partly downloaded. Starting from the beginning.")
        length = _length(response)
        if response.status == 206:
            match = re.fullmatch(r"bytes ([0-9]+)-([0-9]+)/([0-9]+|\*)", response.headers.get("Content-Range", ""))
            if match is None or int(match[1]) != offset or \
                    (length is not None and length != int(match[2]) - offset + 1):
                partial.forget()
                raise DownloadError(f"'{url}' sends another part than the one asked for.",
                                    hint="Run the same command again: it starts from the beginning.")
            total_size = int(match[3]) if match[3] != "*" else None
        elif response.status == 200:
            offset, total_size = 0, length
            partial.notes.unlink(missing_ok=True)
        else:
            raise DownloadError(f"'{url}' answers with status {response.status}.")
        if total_size is not None and total_size > limit:
            partial.forget()
            raise DownloadError(f"'{url}' has {total_size} bytes; at most {limit} are accepted.",
                                hint="Raise 'maximum_size' in the configuration if that is right.")
        with _writable(partial.path, offset) as stream:
            if offset == 0:
                partial.note(url, response)
            with progress.bar(f"Downloading {urlsplit(url).path.rpartition('/')[2] or url}", total_size) as advance:
                advance(offset)
                _receive(url, response, stream, offset, total_size, limit, advance)


@contextlib.contextmanager
def _writable(path: Path, offset: int) -> Iterator[IO[bytes]]:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "wb") as stream:
        stream.truncate(offset)
        stream.seek(offset)
        yield stream


def _receive(url: str, response: http.client.HTTPResponse, stream: IO[bytes], offset: int, total: int | None,
             limit: int, advance: Callable[[int], None]) -> None:
    done, pace = offset, _Pace(url)
    trouble: Exception | None = None
    while total is None or done < total:
        try:
            piece = response.read1(_PIECE)
        except (OSError, http.client.HTTPException) as error:
            trouble = error
            break
        if not piece:
            break
        done += len(piece)
        if done > limit or (total is not None and done > total):
            raise DownloadError(f"'{url}' sends more bytes than it said, or than the {limit} that are accepted.")
        stream.write(piece)
        advance(len(piece))
        pace.got(len(piece))
    if trouble is not None or (total is not None and done < total):
        why = f" ({trouble})" if trouble is not None else ""
        raise _CutOff(f"'{url}' was cut off after {done} of {total if total is not None else 'so many'} bytes{why}.")


def _length(response: http.client.HTTPResponse) -> int | None:
    text = response.headers.get("Content-Length", "")
    return int(text) if re.fullmatch(r"[0-9]{1,18}", text) and not response.chunked else None


class _Pace:
    """Gives up on a server that trickles: a download that never ends keeps us from an update for ever."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.since = time.monotonic()
        self.bytes = 0

    def got(self, number: int) -> None:
        self.bytes += number
        seconds = time.monotonic() - self.since
        if seconds >= SLOW_SPAN:
            if self.bytes < SLOWEST * seconds:
                raise DownloadError(f"'{self.url}' sends only {self.bytes / seconds:.0f} bytes a second.",
                                    hint="Run the same command again later: it goes on from there.")
            self.since, self.bytes = time.monotonic(), 0
