"""The package pool: what is believed of it, what gets into it, and from where."""

from __future__ import annotations

import contextlib
import hashlib
import http.server
import os
import random
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

import pytest

from gitian.environment.pool import Supply, archives_of
from gitian.errors import HostError
from gitian.formats.fetched import Fetched
from gitian.guest.protocol import Limits, Result
from gitian.host import pool_fetch
from gitian.host.pool import Deb, Pool, find, parse_uris
from gitian.host.pool_fetch import Order, fetch
from gitian.host.web import is_own
from tests.fakes.archive import serve

HELLO = b"!<arch>\nhello, as far as anybody hashes it\n" * 1000
WORLD = b"!<arch>\nworld\n" * 5000


def deb(content: bytes, name: str, uri: str = "http://archive.example/debian/pool/x.deb") -> Deb:
    return Deb(uri=uri, name=name, size=len(content), sha256=hashlib.sha256(content).hexdigest())


HELLO_DEB = deb(HELLO, "hello_2.10-3_amd64.deb")
WORLD_DEB = deb(WORLD, "world_1%3a1.0_all.deb")


@pytest.fixture
def pool(tmp_path: Path) -> Pool:
    found = find({"GITIAN_POOL": str(tmp_path / "pool")})
    assert found is not None
    return found


def fill(pool: Pool, content: bytes, one: Deb) -> Path:
    with pool.using() as use:
        path = use.room / "new"
        path.write_bytes(content)
        assert use.add(path, one)
    return pool.place(one.sha256)


def taken(pool: Pool, *debs: Deb) -> dict[str, bytes]:
    with pool.using() as use:
        directory = use.room / "t"
        directory.mkdir()
        good = use.take(debs, directory)
        assert {one.name for one in good} == {path.name for path in directory.iterdir()}
        return {path.name: path.read_bytes() for path in directory.iterdir()}


# What apt says ---------------------------------------------------------------------------------------------------

def test_apts_list_is_read() -> None:
    # Lines as apt-get of Debian 12 printed them.
    digest = "15c5627e7f1ae650ea1103b864b77d874b5b1d2693802649b956efeed3ccb02f"
    text = ("'http://archive.example/debian/pool/main/g/golang-defaults/golang-src_1.19%7e1_all.deb' "
            f"golang-src_2%3a1.19~1_all.deb 5756 SHA256:{digest}\n"
            "'http://archive.example/debian/pool/main/h/hello/hello_2.10-3_amd64.deb' hello_2.10-3_amd64.deb 53080 "
            "MD5Sum:d04c2e9639dee67aa836d8232b1ca658\n")
    assert parse_uris(text) == (
        Deb(uri="http://archive.example/debian/pool/main/g/golang-defaults/golang-src_1.19%7e1_all.deb",
            name="golang-src_2%3a1.19~1_all.deb", size=5756, sha256=digest),
        Deb(uri="http://archive.example/debian/pool/main/h/hello/hello_2.10-3_amd64.deb",
            name="hello_2.10-3_amd64.deb", size=53080, sha256=""))
    assert parse_uris("") == ()


@pytest.mark.parametrize("line", [
    "Reading package lists...",
    "'http://a/x' ../../etc/passwd 5 SHA256:" + "0" * 64,
    "'http://a/x' a_1_all.deb/../b_1_all.deb 5 SHA256:" + "0" * 64,
    "'http://a/x' a_1_%2f.deb 5 SHA256:" + "0" * 64,
    "'http://a/x' a_1_all.deb -5 SHA256:" + "0" * 64,
    "'http://a/x' a_1_all.deb " + "9" * 30 + " SHA256:" + "0" * 64,
    "'http://a/x y' a_1_all.deb 5 SHA256:" + "0" * 64,
    "'http://[x/' a_1_all.deb 5 SHA256:" + "0" * 64,
    "'http://a:99999/x' a_1_all.deb 5 SHA256:" + "0" * 64,
    "'http://a/\x1b[2J' a_1_all.deb 5 SHA256:" + "0" * 64,
    "'http://a/x' -a_1_all.deb 5 SHA256:" + "0" * 64,
    "'http://a/x' a_" + "1" * 300 + "_all.deb 5 SHA256:" + "0" * 64,
])
def test_what_apt_would_not_say_is_not_read(line: str) -> None:
    good = "'http://a/x' good_1_all.deb 5 SHA256:" + "0" * 64
    assert parse_uris(good) is not None
    assert parse_uris(f"{good}\n{line}\n") is None


def test_one_name_for_two_files_is_not_read() -> None:
    lines = ["'http://a/x' a_1_all.deb 5 SHA256:" + digit * 64 for digit in "01"]
    assert parse_uris("\n".join(lines)) is None


# Where the pool lies ---------------------------------------------------------------------------------------------

def test_the_places_of_the_pool(tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir()
    cases = {str(tmp_path / "p"): {"GITIAN_POOL": str(tmp_path / "p"), "HOME": str(home), "XDG_CACHE_HOME": "/x"},
             str(tmp_path / "c/gitian/pool"): {"HOME": str(home), "XDG_CACHE_HOME": str(tmp_path / "c")},
             str(home / ".cache/gitian/pool"): {"HOME": str(home), "XDG_CACHE_HOME": "relative"}}
    for place, environment in cases.items():
        found = find(environment)
        assert found is not None
        assert str(found.directory) == place
        assert Path(place).stat().st_mode & 0o7777 == 0o700
        assert found.limit == 20 * 2**30
    sized = find({"HOME": str(home), "GITIAN_POOL_SIZE": "5"})
    assert sized is not None
    assert sized.limit == 5 * 2**20
    assert find({"HOME": str(home), "GITIAN_POOL": "off"}) is None
    assert find({"HOME": str(home), "GITIAN_POOL": "OFF"}) is None


@pytest.mark.parametrize("spoil", ["writable", "group", "foreign", "file", "dangling"])
def test_a_pool_that_is_not_ours_alone_is_refused(tmp_path: Path, spoil: str,
                                                  capsys: pytest.CaptureFixture[str]) -> None:
    place = tmp_path / "gitian" / "pool"
    place.parent.mkdir()
    if spoil == "file":
        place.write_bytes(b"")
    elif spoil == "dangling":
        place.symlink_to("/dev/null")
    else:
        place.mkdir(mode=0o700)
        if spoil == "foreign":
            if os.geteuid() != 0:
                pytest.skip("only root can give a directory away")
            os.chown(place, 1, 1)
        else:
            place.chmod(0o777 if spoil == "writable" else 0o770)
    with pytest.raises(HostError, match=r"pool") as error:
        find({"GITIAN_POOL": str(place)})
    assert error.value.hint is not None
    # Nobody asked for the one in the cache directory: go on without it, and say so.
    assert find({"XDG_CACHE_HOME": str(tmp_path)}) is None
    assert "without a pool" in capsys.readouterr().err


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a directory away")
def test_roots_pool_is_not_in_another_users_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import pwd

    home, own = tmp_path / "user", tmp_path / "root"
    for place in (home, own):
        place.mkdir()
    os.chown(home, 1, 1)
    entry = pwd.struct_passwd(("root", "x", 0, 0, "", str(own), "/bin/sh"))
    monkeypatch.setattr(pwd, "getpwuid", lambda number: entry)
    found = find({"HOME": str(home)})
    assert found is not None
    assert found.directory == own / ".cache/gitian/pool"
    assert list(home.iterdir()) == []


# What is believed of it ------------------------------------------------------------------------------------------

def test_what_was_put_in_comes_out(pool: Pool) -> None:
    assert taken(pool, HELLO_DEB) == {}
    place = fill(pool, HELLO, HELLO_DEB)
    assert place == pool.directory / HELLO_DEB.sha256[:2] / HELLO_DEB.sha256
    assert taken(pool, HELLO_DEB, WORLD_DEB) == {HELLO_DEB.name: HELLO}
    assert list((pool.directory / "tmp").glob("[!.]*")) == []


def poison_same_size(place: Path) -> None:
    place.write_bytes(HELLO[:-1] + b"X")


def poison_truncated(place: Path) -> None:
    place.write_bytes(HELLO[:-1])


def poison_empty(place: Path) -> None:
    place.write_bytes(b"")


def poison_link(place: Path) -> None:
    other = place.parent.parent / "elsewhere"
    other.write_bytes(HELLO)
    place.unlink()
    place.symlink_to(other)


def poison_fifo(place: Path) -> None:
    place.unlink()
    os.mkfifo(place)


def poison_directory(place: Path) -> None:
    place.unlink()
    place.mkdir()
    (place / "x").write_bytes(b"")


@pytest.mark.parametrize("poison", [poison_same_size, poison_truncated, poison_empty, poison_link, poison_fifo,
                                    poison_directory])
def test_a_poisoned_file_is_refused_and_removed(pool: Pool, poison: Callable[[Path], None],
                                                capsys: pytest.CaptureFixture[str]) -> None:
    place = fill(pool, HELLO, HELLO_DEB)
    fill(pool, WORLD, WORLD_DEB)
    poison(place)
    assert taken(pool, HELLO_DEB, WORLD_DEB) == {WORLD_DEB.name: WORLD}
    assert HELLO_DEB.name in capsys.readouterr().err
    assert not os.path.lexists(place)
    fill(pool, HELLO, HELLO_DEB)
    assert taken(pool, HELLO_DEB) == {HELLO_DEB.name: HELLO}


def test_a_file_that_cannot_be_what_it_should_does_not_get_in(pool: Pool, tmp_path: Path) -> None:
    with pool.using() as use:
        path = tmp_path / "new"
        for content in (HELLO[:-1] + b"X", HELLO[:-1], HELLO + b"X"):
            path.write_bytes(content)
            assert not use.add(path, HELLO_DEB)
        assert not use.add(tmp_path / "absent", HELLO_DEB)
        path.write_bytes(HELLO)
        (tmp_path / "link").symlink_to(path)
        assert not use.add(tmp_path / "link", HELLO_DEB)
    assert not pool.place(HELLO_DEB.sha256).exists()


def test_a_file_that_was_spoilt_is_replaced_by_a_good_one(pool: Pool) -> None:
    place = fill(pool, HELLO, HELLO_DEB)
    poison_same_size(place)
    fill(pool, HELLO, HELLO_DEB)
    assert place.read_bytes() == HELLO
    fill(pool, HELLO, HELLO_DEB)  # it is there: nothing is left of the second one
    assert place.read_bytes() == HELLO
    assert place.stat().st_mode & 0o777 == 0o644


def test_a_pool_without_room_is_no_error(pool: Pool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
                                         capsys: pytest.CaptureFixture[str]) -> None:
    new = tmp_path / "new"
    new.write_bytes(HELLO)

    def full(*_: Any, **__: Any) -> None:
        raise OSError(28, "No space left on device")

    with pool.using() as use:
        monkeypatch.setattr(os, "link", full)
        monkeypatch.setattr("gitian.host.pool._copy", full)
        assert use.add(new, HELLO_DEB)
    assert "No space left" in capsys.readouterr().err
    assert not pool.place(HELLO_DEB.sha256).exists()


def test_without_hard_links_there_are_copies(pool: Pool, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "link", refuse)
    fill(pool, HELLO, HELLO_DEB)
    assert taken(pool, HELLO_DEB) == {HELLO_DEB.name: HELLO}


# How large it gets -----------------------------------------------------------------------------------------------

def test_what_was_not_used_for_longest_goes_first(tmp_path: Path) -> None:
    pool = Pool(tmp_path, limit=3000)
    contents = [bytes([number]) * 1000 for number in range(3)]
    debs = [deb(content, f"p{number}_1_all.deb") for number, content in enumerate(contents)]
    for number, (content, one) in enumerate(zip(contents, debs, strict=True)):
        os.utime(fill(pool, content, one), (1000 + number, 1000 + number))
    foreign = tmp_path / debs[0].sha256[:2] / "keep-me"
    foreign.write_bytes(b"x" * 9000)
    assert taken(pool, debs[0])  # the oldest of them is used once more
    last = deb(b"y" * 1000, "y_1_all.deb")
    fill(pool, b"y" * 1000, last)
    assert [pool.place(one.sha256).exists() for one in [*debs, last]] == [True, False, True, True]
    assert foreign.exists()


def test_what_is_in_use_survives_pruning(tmp_path: Path) -> None:
    pool = Pool(tmp_path, limit=10 * len(HELLO))
    fill(pool, HELLO, HELLO_DEB)
    with pool.using() as use:
        assert use.take([HELLO_DEB], use.room) == {HELLO_DEB}
        assert Pool(tmp_path, limit=0).prune() == [pool.place(HELLO_DEB.sha256)]
        assert (use.room / HELLO_DEB.name).read_bytes() == HELLO


# Fetched into it -------------------------------------------------------------------------------------------------

@pytest.fixture
def archive(tmp_path: Path) -> Iterator[tuple[str, Path, list[str]]]:
    """A server: its address, its directory, the paths that it was asked for."""
    root, seen = tmp_path / "www", list[str]()
    root.mkdir()
    (root / "hello.deb").write_bytes(HELLO)
    (root / "world.deb").write_bytes(WORLD)
    with serve(root, seen=seen) as address:
        yield address, root, seen


def fetched(pool: Pool, *orders: Order) -> set[Deb]:
    with pool.using() as use:
        directory = use.room / "f"
        directory.mkdir()
        good = fetch(orders, use, directory)
        assert {path.name for path in directory.iterdir()} == {one.name for one in good}
        return good


def test_packages_are_fetched_into_the_pool(pool: Pool, archive: tuple[str, Path, list[str]]) -> None:
    address, _, seen = archive
    orders = [Order(deb=HELLO_DEB, url=f"{address}/hello.deb"), Order(deb=WORLD_DEB, url=f"{address}/world.deb")]
    assert fetched(pool, *orders) == {HELLO_DEB, WORLD_DEB}
    assert sorted(seen) == ["/hello.deb", "/world.deb"]
    assert taken(pool, HELLO_DEB, WORLD_DEB) == {HELLO_DEB.name: HELLO, WORLD_DEB.name: WORLD}


@pytest.mark.parametrize("content", [HELLO[:-1] + b"X", HELLO[:-10], HELLO + b"more", b"", None])
def test_what_is_not_what_the_index_says_does_not_get_in(pool: Pool, archive: tuple[str, Path, list[str]],
                                                         content: bytes | None) -> None:
    address, root, _ = archive
    (root / "hello.deb").unlink()
    if content is not None:
        (root / "hello.deb").write_bytes(content)
    orders = [Order(deb=HELLO_DEB, url=f"{address}/hello.deb"), Order(deb=WORLD_DEB, url=f"{address}/world.deb")]
    assert fetched(pool, *orders) == {WORLD_DEB}
    assert not pool.place(HELLO_DEB.sha256).exists()


class Odd(http.server.BaseHTTPRequestHandler):
    """Sends people elsewhere, goes on for ever, breaks off, or says nothing."""

    to = ""
    sent = 0

    def do_GET(self) -> None:
        if self.path == "/endless":
            self.send_response(200)
            self.end_headers()
            with contextlib.suppress(OSError):
                while True:
                    self.wfile.write(b"x" * 65536)
                    type(self).sent += 65536
        elif self.path == "/short":
            self.send_response(200)
            self.send_header("Content-Length", str(len(HELLO)))
            self.end_headers()
            self.wfile.write(HELLO[:100])
        elif self.path == "/nonsense":
            self.wfile.write(b"\0\0\0\r\n\r\n")
        else:
            self.send_response(302)
            self.send_header("Location", self.to)
            self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def odd() -> Iterator[tuple[str, type[Odd]]]:
    handler = type("Odd", (Odd,), {})
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}", handler
    server.shutdown()
    server.server_close()


@pytest.mark.parametrize("path", ["/endless", "/short", "/nonsense"])
def test_a_server_that_does_not_behave(pool: Pool, odd: tuple[str, type[Odd]], path: str) -> None:
    address, handler = odd
    assert fetched(pool, Order(deb=HELLO_DEB, url=address + path)) == set()
    assert handler.sent < 2**27  # what the kernel buffers, and no more than twice


def test_redirections_are_followed_to_the_web_alone(pool: Pool, archive: tuple[str, Path, list[str]],
                                                    odd: tuple[str, type[Odd]], tmp_path: Path) -> None:
    address, handler = odd
    handler.to = f"{archive[0]}/hello.deb"
    assert fetched(pool, Order(deb=HELLO_DEB, url=f"{address}/moved")) == {HELLO_DEB}
    for to in (f"file://{tmp_path}/www/world.deb", f"ftp://127.0.0.1{tmp_path}/www/world.deb", f"{address}/moved"):
        handler.to = to
        assert fetched(pool, Order(deb=WORLD_DEB, url=f"{address}/moved")) == set()
    assert fetched(pool, Order(deb=WORLD_DEB, url=f"file://{tmp_path}/www/world.deb")) == set()


def test_a_name_does_not_lead_to_our_own_services(pool: Pool, archive: tuple[str, Path, list[str]],
                                                  monkeypatch: pytest.MonkeyPatch) -> None:
    """A name of an archive that is 127.0.0.1 today: the guest could not go there, and neither do we for it."""
    address, _, seen = archive
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    real = socket.getaddrinfo

    def lie(host: Any, *arguments: Any, **more: Any) -> Any:
        return real("127.0.0.1" if host == "archive.example" else host, *arguments, **more)

    monkeypatch.setattr(socket, "getaddrinfo", lie)
    url = address.replace("127.0.0.1", "archive.example") + "/hello.deb"
    assert fetched(pool, Order(deb=HELLO_DEB, url=url)) == set()
    assert seen == []


def test_over_a_proxy_and_not_from_there_to_our_own_services(pool: Pool, archive: tuple[str, Path, list[str]],
                                                             odd: tuple[str, type[Odd]],
                                                             monkeypatch: pytest.MonkeyPatch) -> None:
    address, root, seen = archive
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    # A proxy is asked for the whole address, which our server takes for a path.
    (root / "http:" / "archive.example").mkdir(parents=True)
    (root / "http:" / "archive.example" / "hello.deb").write_bytes(HELLO)
    monkeypatch.setenv("http_proxy", address)
    assert fetched(pool, Order(deb=HELLO_DEB, url="http://archive.example/hello.deb")) == {HELLO_DEB}
    assert seen == ["http://archive.example/hello.deb"]
    seen.clear()
    elsewhere, handler = odd
    handler.to = f"{address}/world.deb"
    monkeypatch.setenv("http_proxy", elsewhere)
    assert fetched(pool, Order(deb=WORLD_DEB, url="http://archive.example/world.deb")) == set()
    assert seen == []


def test_own_addresses() -> None:
    for address in ("127.0.0.1", "127.8.8.8", "::1", "localhost", "LOCALHOST.", "a.localhost", "::ffff:127.0.0.1",
                    "0.0.0.0", "::"):
        assert is_own(address), address
    for address in ("10.0.2.2", "192.0.2.1", "archive.example", "2001:db8::1", "localhost.example"):
        assert not is_own(address), address


def test_a_disk_that_is_full_before_the_end_stops_nobody(pool: Pool, archive: tuple[str, Path, list[str]],
                                                          capsys: pytest.CaptureFixture[str]) -> None:
    address, _, seen = archive
    with pool.using() as use:
        (use.room / HELLO_DEB.name).symlink_to("/dev/full")
        orders = [Order(deb=HELLO_DEB, url=f"{address}/hello.deb"), Order(deb=WORLD_DEB, url=f"{address}/world.deb")]
        assert fetch(orders, use, use.room) == {WORLD_DEB}
    assert sorted(seen) == ["/hello.deb", "/world.deb"]
    assert "cannot be written: No space left" in capsys.readouterr().err


def test_with_no_room_nothing_is_fetched(pool: Pool, archive: tuple[str, Path, list[str]],
                                         monkeypatch: pytest.MonkeyPatch) -> None:
    address, _, seen = archive
    monkeypatch.setattr(pool_fetch, "free", lambda path: 2**20)
    assert fetched(pool, Order(deb=HELLO_DEB, url=f"{address}/hello.deb")) == set()
    assert seen == []


# Killed ----------------------------------------------------------------------------------------------------------

FILLER = """
import hashlib, sys
from pathlib import Path
from gitian.host.pool import Deb, Pool
from gitian.host.pool_fetch import Order, fetch
pool, address = Pool(Path(sys.argv[1])), sys.argv[2]
print("ready", flush=True)
while True:
    with pool.using() as use:
        orders = []
        for number in range(8):
            content = bytes([number]) * 300_000
            one = Deb(uri="", name=f"p{number}_1_all.deb", size=300_000, sha256=hashlib.sha256(content).hexdigest())
            pool.place(one.sha256).unlink(missing_ok=True)
            orders.append(Order(deb=one, url=f"{address}/p{number}"))
        assert len(fetch(orders, use, use.room)) == 8
"""


def test_killed_fifty_times_at_random_moments(pool: Pool, tmp_path: Path) -> None:
    root = tmp_path / "www"
    root.mkdir()
    contents = [bytes([number]) * 300_000 for number in range(8)]
    for number, content in enumerate(contents):
        (root / f"p{number}").write_bytes(content)
    debs = [deb(content, f"p{number}_1_all.deb") for number, content in enumerate(contents)]
    dice = random.Random(5)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    with serve(root) as address:
        for _ in range(50):
            filler = subprocess.Popen([sys.executable, "-c", FILLER, str(pool.directory), address],
                                      stdout=subprocess.PIPE, env=environment)
            try:
                assert filler.stdout is not None
                assert filler.stdout.readline() == b"ready\n"
                time.sleep(dice.random() * 0.06)
            finally:
                filler.send_signal(signal.SIGKILL)
                filler.communicate()
            for path in pool.directory.glob("??/*"):
                # What has its name is whole, whenever it was killed.
                assert hashlib.sha256(path.read_bytes()).hexdigest() == path.name
        with pool.using() as use:
            good = use.take(debs, use.room)
            left = [Order(deb=one, url=f"{address}/{one.name.partition('_')[0]}") for one in debs if one not in good]
            assert len(good | fetch(left, use, use.room)) == 8
            assert [path.name for path in (pool.directory / "tmp").glob("[!.]*")] == [use.room.parent.name]


# A guest's packages ----------------------------------------------------------------------------------------------

class AptGuest:
    """A guest whose apt wants packages; files are on this machine's disk. It implements our own protocol."""

    user = "debian"
    label = "bookworm-amd64"
    network = True

    def __init__(self, root: Path, answer: str, *, contents: Mapping[str, bytes], status: int = 0) -> None:
        self.root = root
        self.archives = root / "var/cache/apt/archives"
        self.archives.mkdir(parents=True)
        self.answer, self.contents, self.status = answer, contents, status
        self.downloads: list[str] = []
        self.installed: dict[str, bytes] = {}
        self.options: list[str] = []

    def run(self, command: Sequence[str], *, user: str | None = None, input: bytes | None = None,
            env: Mapping[str, str] | None = None, cwd: str | None = None,
            output: Callable[[bytes], None] | None = None, timeout: float | None = None, check: bool = True,
            limit: int = 16 * 2**20) -> Result:
        if "--print-uris" in command:
            return Result(status=self.status, stdout=self.answer.encode())
        where = self.root / (cwd or "/").lstrip("/")
        words = [str(self.root) + word if word.startswith("/var") else word for word in command]
        done = subprocess.run(words, cwd=where, capture_output=True, check=check)
        return Result(status=done.returncode, stdout=done.stdout, stderr=done.stderr)

    def put(self, source: Path, destination: PurePosixPath, *, user: str | None = None,
            progress: Callable[[int], None] | None = None) -> None:
        for path in source.iterdir():
            (Path(str(self.root) + str(destination)) / path.name).write_bytes(path.read_bytes())

    def get(self, source: PurePosixPath, destination: Path, *, limits: Limits | None = None,
            progress: Callable[[int], None] | None = None, user: str | None = None) -> None:
        destination.mkdir()
        for path in Path(str(self.root) + str(source)).iterdir():
            (destination / path.name).write_bytes(path.read_bytes())

    def install(self, more: Sequence[str]) -> None:
        """What apt does: take what lies there, download the rest, leave all of it."""
        self.options += more
        for name, content in self.contents.items():
            path = self.archives / name
            if not path.exists():
                self.downloads.append(name)
                path.write_bytes(content)
            self.installed[name] = path.read_bytes()

    def close(self, *, keep: bool = False) -> None:
        """Nothing to end."""


def line(one: Deb, address: str, path: str) -> str:
    return f"'{address}/{path}' {one.name} {one.size} SHA256:{one.sha256}\n"


def install(guest: AptGuest, supply: Supply, record: list[Fetched] | None = None) -> list[str]:
    notes: list[str] = []
    with supply.lay_in(guest, ["apt-get"], ["install", "hello"], env={}, note=notes.append,
                       record=(record if record is not None else []).append) as more:
        guest.install(more)
    return notes


def test_a_guest_gets_its_packages_from_the_pool(pool: Pool, archive: tuple[str, Path, list[str]],
                                                 tmp_path: Path) -> None:
    address, _, seen = archive
    inside = address.replace("127.0.0.1", "10.0.2.2")  # as the guest knows this machine
    answer = line(HELLO_DEB, inside, "hello.deb") + line(WORLD_DEB, inside, "world.deb")
    contents = {HELLO_DEB.name: HELLO, WORLD_DEB.name: WORLD}
    supply = Supply(pool=pool, archives=(inside,), host_address="10.0.2.2")
    for number in range(3):
        if number == 2:
            poison_same_size(pool.place(HELLO_DEB.sha256))
        seen.clear()
        guest = AptGuest(tmp_path / str(number), answer, contents=contents)
        (guest.archives / "local_1_all.deb").write_bytes(b"somebody's own")
        record: list[Fetched] = []
        notes = install(guest, supply, record)
        assert [(one.url, one.size, one.sha256) for one in record] == [
            (f"{inside}/hello.deb", len(HELLO), HELLO_DEB.sha256),
            (f"{inside}/world.deb", len(WORLD), WORLD_DEB.sha256)]
        assert [one.pooled for one in record] == [[False, False], [True, True], [False, True]][number]
        assert guest.downloads == []
        assert guest.installed == contents
        assert [path.name for path in guest.archives.iterdir()] == ["local_1_all.deb"]
        assert sorted(seen) == [["/hello.deb", "/world.deb"], [], ["/hello.deb"]][number]
        assert notes == [f"Packages: {(0, 2, 1)[number]} from the pool, {(2, 0, 1)[number]} fetched into it, "
                         "0 left to apt"]
    assert taken(pool, HELLO_DEB, WORLD_DEB) == contents


def test_what_the_pool_cannot_fetch_is_taken_from_the_guest(pool: Pool, tmp_path: Path) -> None:
    address = "https://192.0.2.1:9/nobody/is/there"
    contents = {HELLO_DEB.name: HELLO, WORLD_DEB.name: WORLD}
    answer = line(HELLO_DEB, address, "hello.deb") + line(WORLD_DEB, address, "world.deb")
    supply = Supply(pool=pool, archives=("http://other.example",), host_address="10.0.2.2")
    first = AptGuest(tmp_path / "first", answer, contents={**contents, HELLO_DEB.name: HELLO[:-1] + b"X"})
    install(first, supply)
    assert sorted(first.downloads) == sorted(contents)
    assert list(first.archives.iterdir()) == []
    assert not (first.root / "var/cache/gitian/new-packages").exists()
    # A guest that lies about what it has downloaded poisons nothing.
    assert taken(pool, HELLO_DEB, WORLD_DEB) == {WORLD_DEB.name: WORLD}
    second = AptGuest(tmp_path / "second", answer, contents=contents)
    install(second, supply)
    assert second.downloads == [HELLO_DEB.name]
    third = AptGuest(tmp_path / "third", answer, contents=contents)
    install(third, supply)
    assert third.downloads == []


@pytest.mark.parametrize("case", ["off", "fails", "nothing", "gibberish"])
def test_without_the_pool_apt_keeps_nothing_either(pool: Pool, tmp_path: Path, case: str) -> None:
    answers = {"off": line(HELLO_DEB, "http://a.example", "hello.deb"), "fails": "", "nothing": "", "gibberish": "?\n"}
    guest = AptGuest(tmp_path / "guest", answers[case], contents={}, status=100 if case == "fails" else 0)
    supply = Supply(pool=None if case == "off" else pool, archives=("http://a.example",), host_address="10.0.2.2")
    record: list[Fetched] = []
    assert install(guest, supply, record) == []
    # Without a pool too, what apt fetched itself is on record.
    assert [one.url for one in record] == (["http://a.example/hello.deb"] if case == "off" else [])
    assert guest.options == ["-o", "APT::Keep-Downloaded-Packages=false"]


def test_only_archives_are_asked() -> None:
    lines = ["deb http://archive.example/debian bookworm main", "# deb http://no.example/ x main",
             "deb [trusted=yes arch=amd64] https://other.example/flat/ ./", "deb-src http://src.example/ x main",
             "deb file:/srv/archive x main", "deb [ signed-by=/x ] http://10.0.2.2:3142/archive.example/d x main",
             "deb http://10.0.2.2/own x main", "deb http://127.0.0.1:8080/ x main",
             "deb http://u:p@secret.example/ x main", "deb http://[/ x main"]
    supply = Supply(pool=None, archives=archives_of(lines), host_address="10.0.2.2")
    for uri in ("http://archive.example/debian/pool/a%7e1.deb", "https://other.example/flat/./a.deb"):
        assert supply.url_here(uri) == uri
    for uri in ("http://10.0.2.2:3142/archive.example/d/a.deb", "http://10.0.2.2/own/a.deb"):
        assert supply.url_here(uri) == uri.replace("10.0.2.2", "127.0.0.1")
    for uri in ("http://archive.example/debian-other/a.deb", "http://no.example/a.deb", "http://src.example/a.deb",
                "http://10.0.2.2:8080/a.deb", "http://archive.example/debian/../secret", "file:/srv/archive/a.deb",
                "http://archive.example/debian/%2e%2e/secret", "http://127.0.0.1:8080/a.deb",
                "http://u:p@secret.example/a.deb", "http://archive.example/debian"):
        assert supply.url_here(uri) is None, uri
