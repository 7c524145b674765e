"""A snapshot service made for a test: Debian's protocol over HTTP, honest or not."""

from __future__ import annotations

import contextlib
import hashlib
import http.server
import json
import socket
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import unquote, urlsplit

#: When the service first saw everything.
TIME = "20240506T070809Z"


@dataclass
class Service:
    """What the service has, how it misbehaves, and what it was asked for.

    ``files`` maps (name, version) to the package's files by architecture; ``archive`` is served below
    /archive/debian/TIME; ``lies`` maps the beginning of a path to a way to misbehave.
    """

    files: dict[tuple[str, str], dict[str, Path]] = field(default_factory=dict)
    archive: Path | None = None
    lies: dict[str, str] = field(default_factory=dict)
    seen: list[str] = field(default_factory=list)
    sent: int = 0
    redirect: str = ""
    headers: dict[str, str] = field(default_factory=dict)

    def add(self, deb: Path, name: str, version: str, arch: str) -> None:
        """Have a package."""
        self.files.setdefault((name, version), {})[arch] = deb

    def answer(self, path: str) -> bytes | None:
        """The honest answer; None for 404."""
        steps = unquote(urlsplit(path).path).strip("/").split("/")
        if steps[:2] == ["mr", "binary"] and steps[4:] == ["binfiles"]:
            return self._describe(steps[2], steps[3], "fileinfo=1" in urlsplit(path).query)
        debs = [(deb, name) for (name, _), files in self.files.items() for deb in files.values()]
        if steps[0] == "file":
            return next((data for deb, _ in debs if _sha1(data := deb.read_bytes()) == steps[1]), None)
        if steps[:3] == ["archive", "debian", TIME]:
            rest = "/".join(steps[3:])
            found = next((deb for deb, name in debs if rest == f"pool/main/{name}/{_plain(deb)}"), None)
            if found is None and self.archive is not None and (self.archive / rest).is_file():
                found = self.archive / rest
            return None if found is None else found.read_bytes()
        return None

    def _describe(self, name: str, version: str, with_files: bool) -> bytes | None:
        files = self.files.get((name, version))
        if files is None:
            return None
        sums = {arch: _sha1(deb.read_bytes()) for arch, deb in files.items()}
        answer: dict[str, object] = {"_comment": "for a test", "binary": name, "binary_version": version, "result": [
            {"architecture": arch, "hash": sums[arch]} for arch in sums]}
        if with_files:
            answer["fileinfo"] = {sums[arch]: [{
                "name": _plain(deb), "archive_name": "debian", "path": f"/pool/main/{name}", "first_seen": TIME,
                "size": deb.stat().st_size}] for arch, deb in files.items()}
        return json.dumps(answer).encode()

    @contextlib.contextmanager
    def serve(self) -> Iterator[str]:
        """Serve it at 127.0.0.1; the address."""
        handler = type("Handler", (_Handler,), {"service": self})
        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}"
        finally:
            server.shutdown()
            server.server_close()
            thread.join(10)


def _sha1(data: bytes) -> str:
    return hashlib.sha1(data).hexdigest()


def _plain(deb: Path) -> str:
    """The name of a package's file in an archive: without the epoch."""
    name, version, rest = deb.name.split("_")
    return f"{name}_{version.rpartition('%3a')[2]}_{rest}"


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    service: Service

    def do_GET(self) -> None:
        service = self.service
        service.seen.append(self.path)
        lie = next((how for start, how in service.lies.items() if self.path.startswith(start)), "")
        data = service.answer(self.path)
        with contextlib.suppress(OSError):
            if lie == "hang up":
                self.close_connection = True
                self.connection.shutdown(socket.SHUT_RDWR)
            elif lie.isdigit() or (data is None and not lie):
                self._send(int(lie or "404"), b"no\n")
            elif lie == "endless":
                self._endless()
            elif lie == "redirect":
                self.send_response(302)
                self.send_header("Location", service.redirect)
                self.send_header("Content-Length", "0")
                self.end_headers()
            elif lie == "too large":
                self._send(200, b"x" * 1000, length=2**40)
            elif lie == "cut short":
                self._send(200, (data or b"")[:-1], length=len(data or b""))
            else:
                bodies = {"": data or b"", "wrong": b"x" * len(data or b""), "empty": b""}
                self._send(200, bodies.get(lie, lie.encode()))

    def _send(self, status: int, data: bytes, length: int | None = None) -> None:
        self.send_response(status)
        for name, value in self.service.headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(data) if length is None else length))
        self.end_headers()
        self.wfile.write(data)
        if length is not None:
            self.close_connection = True

    def _endless(self) -> None:
        self.close_connection = True
        self.send_response(200)
        self.send_header("Connection", "close")
        self.end_headers()
        while True:
            self.wfile.write(b"x" * 65536)
            self.service.sent += 65536

    def log_message(self, format: str, *args: object) -> None:
        pass
