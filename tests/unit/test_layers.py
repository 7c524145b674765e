"""Layers: named by everything that went into them, never trusted half-made; indices asked about once per build."""

from __future__ import annotations

import hashlib
import http.server
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from gitian.environment import indices
from gitian.environment.indices import Index, SourceLine, parse_sources, remember
from gitian.environment.layers import VERSION, LayerRecord, LayerStore, intent_of, key_of, size_limit, size_of
from gitian.errors import FetchError
from gitian.formats.deblines import seen_from_here
from gitian.formats.fetched import Fetched


def record(intent: str = "i", size: int = 10, url: str = "http://a/InRelease", sha256: str = "0" * 64) -> LayerRecord:
    return LayerRecord(version=VERSION, backend="lxc", label="bookworm-amd64", intent=intent,
                       indices=(Index(url=url, sha256=sha256),), manifest="m\n", size=size, made="for a test",
                       fetched=(Fetched(url="http://a.example/a.deb", size=3, sha256="e" * 64, pooled=True),))


def make(store: LayerStore, one: LayerRecord, used: int | None = None) -> Path:
    with store.making() as (partial, finish):
        (partial / "upper").mkdir(parents=True)
        layer = finish(one)
    if used is not None:
        os.utime(layer.path / "record.json", (used, used))
    return layer.path


def test_every_ingredient_counts() -> None:
    base: dict[str, Any] = {"packages": ["a", "b"], "base": "x", "repositories": []}
    others: list[dict[str, Any]] = [
        {**base, "packages": ["b", "a"]}, {**base, "base": "y"}, {**base, "repositories": [["s", "deb u s", []]]}]
    assert len({intent_of(one) for one in (base, *others)}) == 4
    assert intent_of(base) == intent_of(dict(reversed(list(base.items()))))


def test_a_layer_is_found_by_what_it_was_made_for(tmp_path: Path) -> None:
    store = LayerStore(tmp_path / "layers")
    assert store.find("i") is None
    old = make(store, record(sha256="1" * 64), used=100)
    new = make(store, record(sha256="2" * 64), used=200)
    make(store, record(intent="other"), used=300)
    found = store.find("i")
    assert found is not None and found.path == new != old
    assert found.record == record(sha256="2" * 64)
    assert new.name == key_of("i", (Index(url="http://a/InRelease", sha256="2" * 64),))


def test_an_unfinished_layer_is_no_layer_and_is_swept(tmp_path: Path) -> None:
    store = LayerStore(tmp_path / "layers")
    with pytest.raises(RuntimeError):
        with store.making() as (partial, _):
            (partial / "upper").mkdir(parents=True)
            raise RuntimeError("stopped")
    assert list(store.directory.iterdir()) == []
    # What kill -9 leaves: a partial name; a name without a record; a record of other things than the name says.
    good = make(store, record())
    (store.directory / ".partial-1234" / "upper").mkdir(parents=True)
    (store.directory / ("0" * 64) / "upper").mkdir(parents=True)
    renamed = store.directory / ("1" * 64)
    renamed.mkdir()
    (renamed / "record.json").write_bytes((good / "record.json").read_bytes())
    cut = store.directory / ("2" * 64)
    cut.mkdir()
    (cut / "record.json").write_bytes((good / "record.json").read_bytes()[:50])
    assert [layer.path for layer in store.layers()] == [good]
    store.sweep()
    assert list(store.directory.iterdir()) == [good]


def test_what_another_target_of_a_build_is_making_is_left_alone(tmp_path: Path) -> None:
    script = ("import sys\nfrom pathlib import Path\nfrom gitian.environment.layers import LayerStore\n"
              "with LayerStore(Path(sys.argv[1])).making() as (partial, _):\n"
              "    (partial / 'upper').mkdir(parents=True)\n    print(partial, flush=True)\n    sys.stdin.read()\n")
    store = LayerStore(tmp_path / "layers")
    with subprocess.Popen([sys.executable, "-c", script, store.directory], stdin=subprocess.PIPE,
                          stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None
        partial = Path(other.stdout.readline().strip())
        good = make(store, record())
        store.prune(0, keep=[good])
        assert sorted(store.directory.iterdir()) == sorted([good, partial])
        other.kill()
        other.wait()
    store.sweep()
    assert list(store.directory.iterdir()) == [good]


def test_a_record_of_another_version_is_no_layer(tmp_path: Path) -> None:
    store = LayerStore(tmp_path / "layers")
    path = make(store, record()) / "record.json"
    data = json.loads(path.read_text())
    path.write_text(json.dumps({**data, "version": VERSION + 1}))
    assert store.layers() == []


def test_the_least_recently_used_go_first(tmp_path: Path) -> None:
    store = LayerStore(tmp_path / "layers")
    paths = [make(store, record(intent=str(number), size=10), used=number) for number in range(5)]
    removed = store.prune(25)
    assert [layer.path for layer in removed] == [paths[2], paths[1], paths[0]]
    assert {layer.path for layer in store.layers()} == {paths[3], paths[4]}
    assert [layer.path for layer in store.prune(0, keep=[paths[3]])] == [paths[4]]
    assert paths[3].exists()


def test_using_a_layer_makes_it_the_last_used(tmp_path: Path) -> None:
    store = LayerStore(tmp_path / "layers")
    first = make(store, record(intent="1"), used=100)
    make(store, record(intent="2"), used=200)
    layer = store.find("1")
    assert layer is not None
    told = (Index(url="http://a/InRelease", sha256="0" * 64, etag='"e"', last_modified="now"),)
    store.touch(layer, told)
    assert store.layers()[0].path == first
    assert store.layers()[0].record.indices == told


def test_sizes(tmp_path: Path) -> None:
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / "f").write_bytes(b"x" * 100_000)
    assert 100_000 <= size_of(tmp_path) <= 200_000
    assert size_limit({}) == 20 * 2**30
    assert size_limit({"GITIAN_LAYERS_SIZE": "5"}) == 5 * 2**20


@pytest.mark.parametrize(("line", "url", "name"), [
    # The names are those that apt 2.6 gave its files for these sources on a Debian 12 machine.
    ("deb http://h.example/debian bookworm main", "http://h.example/debian/dists/bookworm/InRelease",
     "h.example_debian_dists_bookworm_InRelease"),
    ("deb [arch=amd64 signed-by=/x] https://h.example:8080/a_b/ s/updates main x",
     "https://h.example:8080/a_b/dists/s/updates/InRelease", "h.example:8080_a%5fb_dists_s_updates_InRelease"),
    ("deb http://h.example/flat ./", "http://h.example/flat/./InRelease", "h.example_flat_._InRelease"),
])
def test_where_an_index_is_and_what_apt_calls_its_copy(line: str, url: str, name: str) -> None:
    parsed = parse_sources([line, "", "# deb no", "deb-src http://h.example/debian bookworm main"])
    assert parsed is not None
    assert [(source.url(), source.list_name()) for source in parsed] == [(url, name)]


@pytest.mark.parametrize("line", ["deb file:/a b c", "deb cdrom:[x]/ b c", "deb [arch=amd64 http://a b c", "deb http://a",
                                  "deb http://[x/ b c", "deb http://10.0.2.2:abc/ b c", "deb http:///a b c"])
def test_sources_that_cannot_be_asked_about(line: str) -> None:
    assert parse_sources(["deb http://a b c", line]) is None


def test_the_host_seen_from_the_guest_is_this_machine() -> None:
    assert seen_from_here("http://10.0.2.2:3142/a/b", "10.0.2.2") == "http://127.0.0.1:3142/a/b"
    assert seen_from_here("http://mirror/a", "10.0.2.2") == "http://mirror/a"


def test_a_source_whose_index_the_guest_lacks_makes_no_layer() -> None:
    one, two = SourceLine(uri="http://a", suite="s"), SourceLine(uri="http://b", suite="s")
    digests = {one.list_name(): "0" * 64}
    assert remember([one], digests, "10.0.2.2") == (Index(url="http://a/dists/s/InRelease", sha256="0" * 64),)
    assert remember([one, two], digests, "10.0.2.2") is None
    # What apt keeps of a source that is trusted without a signature ([trusted=yes]).
    digests[two.list_name("Release")] = "1" * 64
    told = remember([one, two], digests, "10.0.2.2")
    assert told is not None and told[1] == Index(url="http://b/dists/s/InRelease", sha256="1" * 64)


class Archive(http.server.BaseHTTPRequestHandler):
    """Serves one text at every path, with validators, and remembers what was asked."""

    protocol_version = "HTTP/1.1"
    text = b"one"
    conditions = True
    asked: list[str | None]

    def do_GET(self) -> None:
        tag = '"' + hashlib.sha256(self.text).hexdigest()[:8] + '"'
        self.asked.append(self.headers.get("If-None-Match"))
        if "missing" in self.path:
            self.send_response(404)
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        same = self.conditions and self.headers.get("If-None-Match") == tag
        self.send_response(304 if same else 200)
        if self.conditions:
            self.send_header("ETag", tag)
        self.send_header("Content-Length", "0" if same else str(len(self.text)))
        self.end_headers()
        if not same:
            self.wfile.write(self.text)

    def log_message(self, format: str, *arguments: object) -> None:
        """Say nothing."""


@pytest.fixture
def archive() -> Iterator[tuple[type[Archive], str]]:
    class Mine(Archive):
        asked: list[str | None] = []  # noqa: RUF012  # one list per test

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Mine)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield Mine, f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    server.server_close()
    thread.join()


def test_one_conditional_request_tells_whether_an_index_has_changed(archive: tuple[type[Archive], str]) -> None:
    served, url = archive
    index = Index(url=f"{url}/InRelease", sha256=hashlib.sha256(b"one").hexdigest())
    same, now = indices.check((index,))
    assert same and now[0].etag
    assert served.asked == [None]
    assert indices.check(now) == (True, now)
    assert served.asked == [None, now[0].etag]
    served.text = b"two"
    same, _ = indices.check(now)
    assert not same
    assert len(served.asked) == 3


def test_a_server_without_conditions_is_compared_by_content(archive: tuple[type[Archive], str]) -> None:
    served, url = archive
    served.conditions = False
    index = Index(url=f"{url}/InRelease", sha256=hashlib.sha256(b"one").hexdigest(), etag='"old"')
    assert indices.check((index,))[0]
    served.text = b"two"
    assert not indices.check((index,))[0]


def test_a_source_that_does_not_answer_is_named_with_what_to_do() -> None:
    with pytest.raises(FetchError, match=r"127\.0\.0\.1:1/x") as caught:
        indices.check((Index(url="http://127.0.0.1:1/x", sha256="0" * 64),))
    assert "--offline" in str(caught.value.hint)


def test_an_index_that_is_not_there_is_one_that_has_changed(archive: tuple[type[Archive], str]) -> None:
    served, url = archive
    index = Index(url=f"{url}/missing", sha256="0" * 64)
    assert indices.check((index,)) == (False, (index,))
    assert len(served.asked) == 1
