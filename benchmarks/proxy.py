"""A package cache as the classic expects one: http://HOST:3142/<archive host>/<path>, every file fetched once.

    python -m benchmarks.proxy --port 3142 --cache DIR --archive http://HOST/PATH [--archive ...]

What is asked for of any host is fetched from the archive whose path is the same, else from the first archive's host,
so that guests which name different mirrors of one archive share the cache. Nothing is ever fetched again: all builds of
a benchmark see the same state of the archive. Not for use outside of benchmarks.
"""

from __future__ import annotations

import argparse
import email.utils
import hashlib
import os
import shutil
import threading
import urllib.error
import urllib.request
from collections.abc import Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit


def upstream(path: str, archives: Sequence[str]) -> str:
    """Where '/<host>/<path>' is fetched from. Raises ValueError for a path that names no host."""
    host, slash, rest = path.lstrip("/").partition("/")
    if not host or not slash or ".." in rest.split("/"):
        raise ValueError("no archive's path")
    for archive in archives:
        parts = urlsplit(archive)
        if f"/{rest}".startswith(parts.path.rstrip("/") + "/"):
            return urlunsplit((parts.scheme, parts.netloc, f"/{rest}", "", ""))
    parts = urlsplit(archives[0])
    return urlunsplit((parts.scheme, parts.netloc, f"/{rest}", "", ""))


class Cache:
    """Files by URL, each fetched by one thread while others wait; an error is remembered like a file."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.lock = threading.Lock()
        self.locks: dict[str, threading.Lock] = {}

    def get(self, url: str) -> Path | int:
        """The file, or the HTTP status that the archive answered instead."""
        name = hashlib.sha256(url.encode()).hexdigest()
        place, refused = self.directory / name, self.directory / f"{name}.status"
        with self.lock:
            mine = self.locks.setdefault(name, threading.Lock())
        with mine:
            if place.exists():
                return place
            if refused.exists():
                return int(refused.read_text())
            partial = self.directory / f"{name}.partial"
            try:
                with urllib.request.urlopen(url, timeout=60) as answer, partial.open("wb") as file:
                    shutil.copyfileobj(answer, file, 2**20)
                    length = answer.headers.get("Content-Length")
                    if length and int(length) != file.tell():
                        return 502
                    modified = answer.headers.get("Last-Modified")
            except urllib.error.HTTPError as error:
                if 400 <= error.code < 500:
                    refused.write_text(str(error.code))
                return error.code
            except OSError:
                return 502
            if modified:
                moment = email.utils.parsedate_to_datetime(modified).timestamp()
                os.utime(partial, (moment, moment))
            partial.rename(place)
            return place


class Handler(BaseHTTPRequestHandler):
    """Answers GET and HEAD; a client that has the file of that time already is told so."""

    protocol_version = "HTTP/1.1"
    #: Else the head of an answer waits 40 ms for the client to acknowledge the one before.
    disable_nagle_algorithm = True
    cache: Cache
    archives: Sequence[str]

    def do_GET(self) -> None:
        """Send a file."""
        self._answer(body=True)

    def do_HEAD(self) -> None:
        """Send its head."""
        self._answer(body=False)

    def _answer(self, *, body: bool) -> None:
        try:
            found = self.cache.get(upstream(self.path, self.archives))
        except ValueError:
            found = 404
        if isinstance(found, int):
            self.send_response(found)
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        with found.open("rb") as file:
            status = os.fstat(file.fileno())
            modified = email.utils.formatdate(status.st_mtime, usegmt=True)
            if self.headers.get("If-Modified-Since") == modified:
                self.send_response(304)
                self.end_headers()
                return
            start = self._start(status.st_size)
            self.send_response(206 if start else 200)
            self.send_header("Content-Length", str(status.st_size - start))
            if start:
                self.send_header("Content-Range", f"bytes {start}-{status.st_size - 1}/{status.st_size}")
            self.send_header("Last-Modified", modified)
            self.end_headers()
            if body:
                self.connection.sendfile(file, start)

    def _start(self, size: int) -> int:
        """Where a resumed download begins ('Range: bytes=N-')."""
        unit, _, rest = self.headers.get("Range", "").partition("=")
        first, dash, last = rest.partition("-")
        if unit != "bytes" or not first.isdigit() or not dash or last or int(first) >= size:
            return 0
        return int(first)

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""


def main() -> None:
    """Serve until killed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--address", default="0.0.0.0")
    parser.add_argument("--port", type=int, default=3142)
    parser.add_argument("--cache", type=Path, required=True)
    parser.add_argument("--archive", action="append", required=True)
    options = parser.parse_args()
    options.cache.mkdir(parents=True, exist_ok=True)
    Handler.cache, Handler.archives = Cache(options.cache), options.archive
    server = ThreadingHTTPServer((options.address, options.port), Handler)
    server.daemon_threads = True
    print(f"ready {server.server_port}", flush=True)
    server.serve_forever()


if __name__ == "__main__":
    main()
