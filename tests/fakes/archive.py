"""A real apt archive made for a test: packages by dpkg-deb, indices signed with a throw-away key, an HTTP server."""

from __future__ import annotations

import contextlib
import datetime
import functools
import hashlib
import http.server
import os
import shutil
import subprocess
import tempfile
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

#: When everything in the archive was made, unless a test says otherwise.
MOMENT = datetime.datetime(2024, 5, 6, 7, 8, 9, tzinfo=datetime.UTC)


def make_deb(directory: Path, name: str, version: str = "1.0", *, arch: str = "all", depends: str = "",
             essential: bool = False, fields: Mapping[str, str] | None = None,
             files: Mapping[str, bytes | Path] | None = None, links: Mapping[str, str] | None = None,
             scripts: Mapping[str, str] | None = None, directories: Sequence[str] = ()) -> Path:
    """Build a package. ``files`` maps paths in it to contents, or to a file whose contents and mode are taken.

    Contents that begin with '#!' become executable. ``scripts`` are maintainer scripts by name.
    """
    directory.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=directory) as temporary:
        tree = Path(temporary) / "tree"
        control = tree / "DEBIAN"
        control.mkdir(parents=True)
        lines = {"Package": name, "Version": version, "Architecture": arch, "Maintainer": "Test <test@example.org>",
                 "Priority": "required" if essential else "optional", **({"Essential": "yes"} if essential else {}),
                 **({"Depends": depends} if depends else {}), **(fields or {}), "Description": f"{name} for a test"}
        (control / "control").write_text("".join(f"{key}: {value}\n" for key, value in lines.items()))
        for script, text in (scripts or {}).items():
            (control / script).write_text(text)
            (control / script).chmod(0o755)
        for path in directories:
            (tree / path.lstrip("/")).mkdir(parents=True, exist_ok=True)
        for path, target in (links or {}).items():
            place = tree / path.lstrip("/")
            place.parent.mkdir(parents=True, exist_ok=True)
            place.symlink_to(target)
        for path, content in (files or {}).items():
            place = tree / path.lstrip("/")
            place.parent.mkdir(parents=True, exist_ok=True)
            if isinstance(content, Path):
                shutil.copy(content, place)
            else:
                place.write_bytes(content)
                place.chmod(0o755 if content.startswith(b"#!") else 0o644)
        for place in (tree, *(entry for entry in tree.rglob("*") if entry.is_dir() and not entry.is_symlink())):
            place.chmod(0o755)
        deb = directory / f"{name}_{version.replace(':', '%3a')}_{arch}.deb"
        subprocess.run(["dpkg-deb", "--root-owner-group", "-Znone", "--build", tree, deb], check=True,
                       stdout=subprocess.DEVNULL, env={**os.environ, "SOURCE_DATE_EPOCH": str(int(MOMENT.timestamp()))})
    return deb


@dataclass
class _Suite:
    components: Sequence[str]
    architectures: Sequence[str]
    origin: str
    date: datetime.datetime
    debs: list[tuple[str, Path]] = field(default_factory=list)


class Archive:
    """An archive below ``root``; nothing is there for apt before :meth:`publish`."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.root.mkdir(parents=True, exist_ok=True)
        self._suites: dict[str, _Suite] = {}
        # Sockets of gpg-agent lie here, and their names may have no more than 107 bytes.
        self._gnupg = Path(tempfile.mkdtemp(prefix="gnupg-", dir="/tmp"))
        self.keyring = root / "archive-keyring.gpg"
        self._gpg("--quick-generate-key", "--passphrase", "", "Archive <archive@example.org>", "ed25519", "sign", "0")
        self.keyring.write_bytes(self._gpg("--export"))

    def _gpg(self, *words: str) -> bytes:
        return subprocess.run(
            ["gpg", "--batch", "--quiet", "--no-tty", "--pinentry-mode", "loopback", "--homedir", self._gnupg, *words],
            check=True, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE).stdout

    def close(self) -> None:
        """End the key's agent and forget the key."""
        subprocess.run(["gpgconf", "--homedir", self._gnupg, "--kill", "all"], check=False)
        shutil.rmtree(self._gnupg, ignore_errors=True)

    def add_suite(self, name: str, *, components: Sequence[str] = ("main",), architectures: Sequence[str] = ("amd64",),
                  origin: str = "Debian", date: datetime.datetime = MOMENT) -> None:
        """A suite, or a pocket of one ('noble-updates'), without packages so far."""
        self._suites[name] = _Suite(components, architectures, origin, date)

    def add_deb(self, deb: Path, suite: str, component: str = "main") -> None:
        """Have a package in a suite."""
        pool = self.root / "pool" / component
        pool.mkdir(parents=True, exist_ok=True)
        if not (pool / deb.name).exists():
            shutil.copy(deb, pool / deb.name)
        self._suites[suite].debs.append((component, pool / deb.name))

    def publish(self) -> None:
        """Write and sign the indices of all suites."""
        for name, suite in self._suites.items():
            top = self.root / "dists" / name
            sums = []
            for component in suite.components:
                for arch in suite.architectures:
                    path = top / component / f"binary-{arch}" / "Packages"
                    path.parent.mkdir(parents=True, exist_ok=True)
                    path.write_bytes(b"".join(self._stanza(deb) for part, deb in suite.debs if part == component
                                              and deb.stem.rsplit("_", 1)[1] in (arch, "all")))
                    data = path.read_bytes()
                    sums.append(f" {hashlib.sha256(data).hexdigest()} {len(data)} {path.relative_to(top)}")
            date = suite.date.strftime("%a, %d %b %Y %H:%M:%S UTC")
            release = "\n".join([f"Origin: {suite.origin}", f"Label: {suite.origin}", f"Suite: {name}",
                                 f"Codename: {name}", f"Date: {date}", f"Components: {' '.join(suite.components)}",
                                 f"Architectures: {' '.join(suite.architectures)}", "SHA256:", *sums]) + "\n"
            (top / "Release").write_text(release)
            (top / "InRelease").unlink(missing_ok=True)
            self._gpg("--clearsign", "--output", str(top / "InRelease"), str(top / "Release"))

    def _stanza(self, deb: Path) -> bytes:
        data = deb.read_bytes()
        control = subprocess.run(["dpkg-deb", "--field", deb], check=True, stdout=subprocess.PIPE).stdout
        more = (f"Filename: {deb.relative_to(self.root)}\nSize: {len(data)}\n"
                f"SHA256: {hashlib.sha256(data).hexdigest()}\n\n")
        return control.rstrip(b"\n") + b"\n" + more.encode()

    @contextlib.contextmanager
    def serve(self, path: str = "", seen: list[str] | None = None) -> Iterator[str]:
        """Serve the archive at 127.0.0.1, below ``path``; the address. What is asked for is added to ``seen``."""
        with serve(self.root, path, seen) as address:
            yield address


class _Handler(http.server.SimpleHTTPRequestHandler):
    protocol_version = "HTTP/1.1"  # connections are kept, as apt likes it
    prefix = ""
    seen: list[str] | None = None

    def do_GET(self) -> None:
        if self.seen is not None:
            self.seen.append(self.path)
        super().do_GET()

    def translate_path(self, path: str) -> str:
        if not path.startswith(self.prefix):
            return str(Path(self.directory) / "absent")
        return super().translate_path(path[len(self.prefix):] or "/")

    def list_directory(self, path: object) -> None:
        self.send_error(404)

    def log_message(self, format: str, *args: object) -> None:
        pass


@contextlib.contextmanager
def serve(directory: Path, path: str = "", seen: list[str] | None = None) -> Iterator[str]:
    """An HTTP/1.1 server for a directory's files, on a port of its own; its address, with ``path``."""
    handler = type("Handler", (_Handler,), {"prefix": path, "seen": seen})
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(handler, directory=str(directory)))
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}{path}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join(10)
