"""What the tests of 'gitian update' share: real keys, packages signed with them, and a web server on 127.0.0.1."""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
import threading
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from gitian.update import config


class Keys:
    """A GnuPG home with secret keys, made on demand, one per name."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self._known: dict[str, str] = {}

    def gpg(self, *words: str, input: bytes = b"") -> bytes:
        done = subprocess.run(["gpg", "--homedir", str(self.home), "--batch", "--no-tty", "--quiet", "--yes",
                               "--pinentry-mode", "loopback", "--passphrase", "", "--trust-model", "always", *words],
                              input=input, capture_output=True, check=False)
        assert done.returncode == 0, done.stderr.decode()
        return done.stdout

    def fingerprint(self, name: str, *, expire: str = "never") -> str:
        """The key is of 2020, so that a test can sign in the past."""
        if name not in self._known:
            self.gpg("--faked-system-time", "20200101T000000",
                     "--quick-generate-key", f"{name} <{name}@example.org>", "ed25519", "sign", expire)
            listed = self.gpg("--with-colons", "--list-keys", f"={name} <{name}@example.org>").decode()
            self._known[name] = next(line.split(":")[9] for line in listed.splitlines() if line.startswith("fpr"))
        return self._known[name]

    def public(self, name: str) -> bytes:
        return self.gpg("--armor", "--export", self.fingerprint(name))

    def sign(self, name: str, content: bytes, *, when: str | None = None) -> bytes:
        clock = ["--faked-system-time", when] if when else []
        return self.gpg(*clock, "--local-user", self.fingerprint(name), "--detach-sign", input=content)


@contextlib.contextmanager
def keys() -> Iterator[Keys]:
    """A GnuPG home, its agent ended afterwards. Its path is short: a socket's may have no more than 107 bytes."""
    home = Path(tempfile.mkdtemp(prefix="gu-", dir="/tmp"))
    try:
        yield Keys(home)
    finally:
        subprocess.run(["gpgconf", "--homedir", str(home), "--kill", "all"], check=False, capture_output=True)
        shutil.rmtree(home, ignore_errors=True)


def digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def assertion(files: Mapping[str, bytes], *, name: str = "demo", release: str = "1.0",
              optionals: Sequence[str] = ()) -> bytes:
    """An assertion as gsign writes it: an ordered map with the manifests and who says what of which release."""
    lines = "".join(f"    {digest(data)}  {path}\n" for path, data in sorted(files.items()))
    extra = "- optionals: []\n" if not optionals else "- optionals:\n" + "".join(f"  - '{p}'\n" for p in optionals)
    return (f"--- !!omap\n- out_manifest: |\n{lines}- in_manifest: |\n    {digest(b'desc')}  demo-desc.yml\n"
            f"- base_manifests: !!omap\n  - bookworm-amd64: |\n      {digest(b'deb')}  base_1_amd64.deb\n"
            f"- cache_common_manifest: ''\n- cache_package_manifest: ''\n- release: '{release}'\n- name: '{name}'\n"
            f"- type: build\n{extra}").encode()


@dataclass
class Parts:
    """A package in the making: files by path; tests change them as an attacker would."""

    files: dict[str, bytes] = field(default_factory=dict)

    def directory(self, where: Path) -> Path:
        for path, data in self.files.items():
            (where / path).parent.mkdir(parents=True, exist_ok=True)
            (where / path).write_bytes(data)
        return where

    def zip(self, where: Path, compression: int = zipfile.ZIP_DEFLATED) -> Path:
        with zipfile.ZipFile(where, "w", compression) as archive:
            for path, data in self.files.items():
                info = zipfile.ZipInfo(path)
                info.compress_type = compression
                info.external_attr = (0o100755 if path.startswith("bin/") else 0o100644) << 16
                archive.writestr(info, data)
        return where


def package(keyring: Keys, files: Mapping[str, bytes], signers: Sequence[str], *, name: str = "demo",
            release: str = "1.0", optionals: Sequence[str] = (), when: str | None = None,
            carried: bool = True) -> Parts:
    """A rightly signed package; with ``carried`` the signers' keys are in it, as the classic has them."""
    parts = Parts(dict(files))
    content = assertion(files, name=name, release=release, optionals=optionals)
    for signer in signers:
        parts.files[f"gitian/{signer}-build.assert"] = content
        parts.files[f"gitian/{signer}-build.assert.sig"] = keyring.sign(signer, content, when=when)
        if carried:
            parts.files[f"gitian/{signer}-key.pgp"] = keyring.public(signer)
    return parts


def configuration_text(keyring: Keys, signers: Mapping[str, int], *, minimum: int, **more: str) -> str:
    lines = ["name: demo", f"minimum_weight: {minimum}", *(f"{key}: {value}" for key, value in more.items())]
    lines.append("signers:")
    for name, weight in signers.items():
        lines += [f"  {keyring.fingerprint(name)}:", f"    weight: {weight}", f"    name: {name}", f"    key: {name}"]
    return "\n".join(lines) + "\n"


def configuration(keyring: Keys, signers: Mapping[str, int], *, minimum: int, **more: str) -> config.Configuration:
    return config.parse(configuration_text(keyring, signers, minimum=minimum, **more).encode(), "test")


def tree(top: Path) -> dict[str, bytes | str]:
    """Every file below: its bytes; a link: where it leads; an empty directory: ''. Not what the updater notes."""
    found: dict[str, bytes | str] = {}
    for directory, names, files in os.walk(top):
        for name in [*names, *files]:
            path = Path(directory, name)
            relative = str(path.relative_to(top))
            if path.is_symlink():
                found[relative] = os.readlink(path)
            elif path.is_file():
                if relative != ".gitian-manifest":
                    found[relative] = path.read_bytes()
            elif not any(path.iterdir()):
                found[relative] = ""
    return found


def gitian(*words: str | Path, cwd: Path | None = None, **environ: str) -> subprocess.CompletedProcess[str]:
    """Run the program itself, as a user does."""
    return subprocess.run([sys.executable, "-m", "gitian.cli.main", *map(str, words)], cwd=cwd, text=True,
                          capture_output=True, stdin=subprocess.DEVNULL, check=False, timeout=300,
                          env={**os.environ, **environ})


@dataclass
class Served:
    """One document of the server. ``cut``: so many bytes of the body, then the connection breaks, once per request."""

    body: bytes
    cut: list[int] = field(default_factory=list)
    etag: str | None = None
    ranges: bool = True
    headers: dict[str, str] = field(default_factory=dict)
    status: int = 200
    length: bool = True
    stall: threading.Event | None = None


class Server:
    """A web server on 127.0.0.1 that can do what real ones do: ranges, redirections, and breaking off."""

    def __init__(self) -> None:
        self.documents: dict[str, Served] = {}
        self.requests: list[tuple[str, str | None]] = []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                outer.answer(self)

            def log_message(self, *words: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"

    def answer(self, request: BaseHTTPRequestHandler) -> None:
        asked = request.headers.get("Range")
        self.requests.append((request.path, asked))
        document = self.documents.get(request.path)
        if document is None:
            request.send_error(404)
            return
        body, start, status = document.body, 0, document.status
        match = re.fullmatch(r"bytes=([0-9]+)-", asked or "")
        condition = request.headers.get("If-Range")
        if match and document.ranges and document.etag is not None and condition in (None, document.etag):
            start, status = int(match[1]), 206
            if start >= len(body):
                request.send_response(416)
                request.send_header("Content-Range", f"bytes */{len(body)}")
                request.send_header("Content-Length", "0")
                request.end_headers()
                return
        request.send_response(status)
        if document.length:
            request.send_header("Content-Length", str(len(body) - start))
        if status == 206:
            request.send_header("Content-Range", f"bytes {start}-{len(body) - 1}/{len(body)}")
        if document.etag is not None:
            request.send_header("ETag", document.etag)
        for name, value in document.headers.items():
            request.send_header(name, value)
        request.close_connection = True
        request.send_header("Connection", "close")
        request.end_headers()
        with contextlib.suppress(OSError):
            if document.cut:
                request.wfile.write(body[start:start + document.cut.pop(0)])
                request.wfile.flush()
                if document.stall is not None:
                    document.stall.wait(120)
            else:
                request.wfile.write(body[start:])

    def start(self) -> None:
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()

    def stop(self) -> None:
        self._server.shutdown()
        self._server.server_close()
