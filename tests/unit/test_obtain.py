"""Every package by its hash: from where, in which order, and what is not believed on the way."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gitian.errors import EnvironmentUnavailableError, HostError, InputError, MissingToolError, UsageError
from gitian.formats.environment import Environment
from gitian.formats.fetched import Fetched
from gitian.formats.image_record import InstalledPackage
from gitian.host import web
from gitian.host.pool import Pool
from gitian.images import obtain as obtaining
from gitian.images import origins, shelves, snapshot, whereabouts
from gitian.images.distros import Distro
from gitian.images.obtain import Missing, Obtained, Places, obtain, require, unavailable
from gitian.images.sources import Source, SourceOptions
from tests.fakes.archive import Archive, make_deb
from tests.fakes.snapshot import TIME, Service


def package_of(deb: Path) -> InstalledPackage:
    name, version, architecture = deb.stem.split("_")
    return InstalledPackage(name=name, version=version.replace("%3a", ":"), architecture=architecture,
                            sha256=hashlib.sha256(deb.read_bytes()).hexdigest())


@pytest.fixture(scope="module")
def debs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Some packages: one with an epoch in two versions, one for all architectures, one for another."""
    room = tmp_path_factory.mktemp("debs")
    return {"old": make_deb(room, "hello", "1:1.0-1", arch="amd64", files={"/usr/share/hello": b"old"}),
            "new": make_deb(room, "hello", "1:2.0-1", arch="amd64", files={"/usr/share/hello": b"new"}),
            "data": make_deb(room, "libdata++", "3.0~rc1", fields={"Source": "data (3.0)"}),
            "foreign": make_deb(room, "libold", "1.0+b1", arch="i386")}


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory, debs: dict[str, Path]) -> Iterator[Archive]:
    """An archive that has them all but the old version, whose file is still there."""
    archive = Archive(tmp_path_factory.mktemp("archive") / "debian")
    archive.add_suite("bookworm", architectures=("amd64", "i386"))
    for name in ("new", "data", "foreign"):
        archive.add_deb(debs[name], "bookworm")
    archive.publish()
    # Files in an archive's pool have no epoch.
    (archive.root / "pool/main/hello_1.0-1_amd64.deb").write_bytes(debs["old"].read_bytes())
    yield archive
    archive.close()


@pytest.fixture
def pool(tmp_path: Path) -> Pool:
    directory = tmp_path / "pool"
    directory.mkdir(mode=0o700)
    return Pool(directory)


@pytest.fixture
def room(tmp_path: Path) -> Path:
    """For destination and scratch."""
    return tmp_path / "room"


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture(autouse=True)
def in_a_hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(web, "_PAUSES", (0.0, 0.0))


def got(obtained: Obtained) -> dict[str, str]:
    """The names of the files, with their hashes; each is where it should be."""
    for package, path in obtained.files.items():
        assert path.name == package.file_name
        assert hashlib.sha256(path.read_bytes()).hexdigest() == package.sha256
    return {path.name: package.sha256 for package, path in obtained.files.items()}


def get(room: Path, places: Places, *wanted: Path) -> Obtained:
    packages = [package_of(deb) for deb in wanted]
    obtained = obtain(packages, places, room / "debs", room / "work")
    found = got(obtained)
    assert {one.package for one in obtained.missing} == {one for one in packages if one.file_name not in found}
    assert sorted(path.name for path in (room / "debs").iterdir()) == sorted(found)
    return obtained


def stock(pool: Pool, deb: Path, content: bytes | None = None) -> Path:
    place = pool.place(hashlib.sha256(deb.read_bytes()).hexdigest())
    place.parent.mkdir(exist_ok=True)
    place.write_bytes(deb.read_bytes() if content is None else content)
    return place


def pooled(pool: Pool) -> set[str]:
    return {path.name for path in pool.directory.glob("??/*")}


# The pool --------------------------------------------------------------------------------------------------------

def test_from_the_pool_without_asking_anybody(pool: Pool, room: Path, debs: dict[str, Path]) -> None:
    for deb in debs.values():
        stock(pool, deb)
    obtained = get(room, Places(pool=pool, sources=("deb http://127.0.0.1:1/debian bookworm main",),
                                snapshot="http://127.0.0.1:1"), *debs.values())
    assert (obtained.missing, obtained.fetched) == ((), ())
    require(obtained)


def test_what_the_pool_has_instead_is_not_taken(pool: Pool, room: Path, debs: dict[str, Path],
                                                capsys: pytest.CaptureFixture[str]) -> None:
    place = stock(pool, debs["new"], content=b"x" * debs["new"].stat().st_size)
    obtained = get(room, Places(pool=pool, offline=True), debs["new"])
    assert [one.package.name for one in obtained.missing] == ["hello"]
    assert not place.exists()
    assert "something else" in capsys.readouterr().err


def test_what_lies_in_the_way_is_not_written_to(pool: Pool, room: Path, debs: dict[str, Path]) -> None:
    """A file of the last time may be another name for the pool's own."""
    get(room, Places(pool=pool, directories=(debs["old"].parent,), offline=True), debs["old"])
    place = pool.place(package_of(debs["old"]).sha256)
    other = room / "debs" / package_of(debs["new"]).file_name
    os.link(place, other)
    (room / "debs" / package_of(debs["old"]).file_name).unlink()
    stock(pool, debs["new"])
    get(room, Places(pool=pool, offline=True), debs["new"])
    assert place.read_bytes() == debs["old"].read_bytes()


# Directories -----------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("name", ["hello_1%3a2.0-1_amd64.deb", "hello_2.0-1_amd64.deb", "a/b/whatever.deb"])
@pytest.mark.parametrize("with_pool", [True, False])
def test_from_a_directory_by_whatever_name(pool: Pool, room: Path, debs: dict[str, Path], tmp_path: Path, name: str,
                                           with_pool: bool) -> None:
    given = tmp_path / "given" / name
    given.parent.mkdir(parents=True)
    given.write_bytes(debs["new"].read_bytes())
    given.chmod(0o444)
    places = Places(pool=pool if with_pool else None, directories=(tmp_path / "given",), offline=True)
    obtained = get(room, places, debs["new"], debs["old"])
    assert [one.package.version for one in obtained.missing] == ["1:1.0-1"]
    assert pooled(pool) == ({package_of(debs["new"]).sha256} if with_pool else set())
    # The giver's file stays the giver's.
    path = obtained.files[package_of(debs["new"])]
    assert not path.samefile(given)
    assert given.stat().st_nlink == 1


def test_a_name_is_no_proof(room: Path, debs: dict[str, Path], tmp_path: Path) -> None:
    given = tmp_path / "given"
    given.mkdir()
    (given / debs["new"].name).write_bytes(debs["old"].read_bytes())
    (given / debs["old"].name).write_bytes(debs["new"].read_bytes())
    (given / "broken.deb").write_bytes(b"")
    assert len(get(room, Places(pool=None, directories=(given,), offline=True), debs["new"], debs["old"]).files) == 2


def test_links_and_pipes_in_a_directory_lead_nowhere(room: Path, debs: dict[str, Path], tmp_path: Path) -> None:
    given, outside = tmp_path / "given", tmp_path / "outside"
    for place in (given, outside):
        place.mkdir()
    (outside / debs["new"].name).write_bytes(debs["new"].read_bytes())
    (given / debs["new"].name).symlink_to(outside / debs["new"].name)
    (given / "below").symlink_to(outside)
    os.mkfifo(given / debs["old"].name)
    obtained = get(room, Places(pool=None, directories=(given,), offline=True), debs["new"], debs["old"])
    assert obtained.files == {}
    with pytest.raises(InputError, match="not a directory"):
        get(room, Places(pool=None, directories=(tmp_path / "absent",), offline=True), debs["new"])


# Archives --------------------------------------------------------------------------------------------------------

def line_for(uri: str, rest: str = "bookworm main", options: str = "") -> str:
    """The line as a guest has it."""
    return f"deb {options}{uri.replace('127.0.0.1', '10.0.2.2')} {rest}"


@pytest.mark.parametrize("with_pool", [True, False])
def test_from_an_archive_whoever_has_signed_it(pool: Pool, room: Path, debs: dict[str, Path], published: Archive,
                                               with_pool: bool) -> None:
    """Nobody here has its key; for both architectures, and what is for all of them."""
    wanted = [debs["new"], debs["data"], debs["foreign"]]
    places = Places(pool=pool if with_pool else None)
    with published.serve("/debian") as uri:
        lines = ("# a comment", "", line_for(uri, options="[signed-by=/nowhere] "))
        obtained = get(room, Places(pool=places.pool, sources=lines), *wanted)
    # Our test's archive writes a colon in a file's name as apt does; in a URL that is a '%' to be quoted.
    names = {"hello_1%253a2.0-1_amd64.deb", "libdata++_3.0~rc1_all.deb", "libold_1.0+b1_i386.deb"}
    assert {one.url for one in obtained.fetched} == {f"{uri}/pool/main/{name}" for name in names}
    assert set(obtained.fetched) == {
        Fetched(url=next(one.url for one in obtained.fetched if one.sha256 == package_of(deb).sha256),
                size=deb.stat().st_size, sha256=package_of(deb).sha256) for deb in wanted}
    assert pooled(pool) == ({package_of(deb).sha256 for deb in wanted} if with_pool else set())
    # And now without anybody.
    assert len(get(room, Places(pool=places.pool, offline=True), *wanted).files) == (3 if with_pool else 0)


def test_an_old_version_that_no_index_has_any_more(room: Path, debs: dict[str, Path], published: Archive) -> None:
    with published.serve("/debian") as uri:
        obtained = get(room, Places(pool=None, sources=(line_for(uri),)), debs["old"], debs["new"])
    assert obtained.missing == ()
    assert f"{uri}/pool/main/hello_1.0-1_amd64.deb" in {one.url for one in obtained.fetched}


@pytest.mark.parametrize(("key", "path"), [("old", "pool/main/h/hello/hello_1.0-1_amd64.deb"),
                                           ("data", "pool/contrib/d/data/libdata++_3.0~rc1_all.deb"),
                                           ("foreign", "pool/main/libo/libold/libold_1.0+b1_i386.deb")])
def test_the_usual_place_in_a_pool(room: Path, tmp_path: Path, debs: dict[str, Path], key: str, path: str) -> None:
    """The source's name is known from another version; without one it is the package's own."""
    archive = Archive(tmp_path / "www")
    try:
        archive.add_suite("bookworm", components=("main", "contrib"), architectures=("amd64", "i386"))
        if key == "data":
            archive.add_deb(make_deb(tmp_path / "d", "libdata++", "4.0", fields={"Source": "data"}), "bookworm")
        archive.publish()  # for others the index is empty
        (archive.root / path).parent.mkdir(parents=True)
        (archive.root / path).write_bytes(debs[key].read_bytes())
        with archive.serve() as uri:
            obtained = get(room, Places(pool=None, sources=(line_for(uri, "bookworm main contrib"),)), debs[key])
        assert [one.url for one in obtained.fetched] == [f"{uri}/{path}"]
    finally:
        archive.close()


def test_a_flat_archive_and_one_on_the_disk(room: Path, tmp_path: Path, debs: dict[str, Path],
                                            published: Archive) -> None:
    flat = tmp_path / "flat"
    (flat / "sub").mkdir(parents=True)
    (flat / "sub" / "x.deb").write_bytes(debs["old"].read_bytes())
    (flat / "Packages").write_text(f"Package: hello\nVersion: 1:1.0-1\nArchitecture: amd64\nFilename: ./sub/x.deb\n"
                                   f"SHA256: {package_of(debs['old']).sha256}\nSize: {debs['old'].stat().st_size}\n")
    lines = (f"deb file:{flat} ./", f"deb copy:{published.root} bookworm main")
    obtained = get(room, Places(pool=None, sources=lines), debs["old"], debs["data"])
    assert (obtained.missing, obtained.fetched) == ((), ())


def test_a_line_that_fails_keeps_nobody_from_the_others(room: Path, debs: dict[str, Path], published: Archive,
                                                        capsys: pytest.CaptureFixture[str]) -> None:
    with published.serve("/debian") as uri:
        lines = ("deb http://127.0.0.1:1/debian bookworm main", "deb http://10.0.2.2:1/debian bookworm main",
                 line_for(uri, "absent main"), "deb nonsense", "deb cdrom:x bookworm main", line_for(uri))
        obtained = get(room, Places(pool=None, sources=lines), debs["new"], debs["foreign"])
    assert obtained.missing == ()
    said = capsys.readouterr().err
    assert "'http://127.0.0.1:1/debian bookworm' cannot be asked" in said  # the guest's 10.0.2.2
    assert "absent' cannot be asked" in said
    assert said.count("passed over") == 3  # the guest's own 127.0.0.1 among them


def test_an_index_that_lies(room: Path, tmp_path: Path, debs: dict[str, Path]) -> None:
    """Sizes, paths and hashes of an index that is somebody's invention."""
    archive = Archive(tmp_path / "www")
    new, old, data = (package_of(debs[key]) for key in ("new", "old", "data"))
    try:
        archive.add_suite("bookworm")
        archive.publish()
        secret = tmp_path / "secret.deb"
        secret.write_bytes(debs["old"].read_bytes())
        (archive.root / "x.deb").write_bytes(debs["new"].read_bytes() + b"more")
        (archive.root / "y.deb").write_bytes(b"z" * debs["data"].stat().st_size)
        stanzas = [(new, "x.deb", "99999999999999999999999"), (old, "../secret.deb", "1"), (old, str(secret), "7"),
                   (data, "y.deb", str(debs["data"].stat().st_size))]
        path = archive.root / "dists/bookworm/main/binary-amd64/Packages"
        path.write_text("".join(
            f"Package: {one.name}\nVersion: {one.version}\nArchitecture: {one.architecture}\nFilename: {name}\n"
            f"SHA256: {one.sha256}\nSize: {size}\n\n" for one, name, size in stanzas))
        (archive.root / "dists/bookworm/Release").unlink()
        (archive.root / "dists/bookworm/InRelease").unlink()
        with archive.serve() as uri:
            places = Places(pool=None, sources=(line_for(uri),))
            obtained = get(room, places, debs["new"], debs["old"], debs["data"])
        assert obtained.files == {}
        tried = {one.package: "\n".join(one.tried) for one in obtained.missing}
        assert "it is another file" in tried[data]
        assert "x.deb: it is another file" in tried[new]
        assert "secret" not in tried[old].replace(f"{uri}{secret}", "")
    finally:
        archive.close()


def test_a_size_that_no_disk_has_room_for_stops_nothing(room: Path, tmp_path: Path, debs: dict[str, Path],
                                                        published: Archive) -> None:
    """The index of one source says so; the next source has the file."""
    liar, package = tmp_path / "liar", package_of(debs["new"])
    liar.mkdir()
    (liar / "Packages").write_text(f"Package: {package.name}\nVersion: {package.version}\nArchitecture: amd64\n"
                                   f"Filename: ./x.deb\nSHA256: {package.sha256}\nSize: 999999999999999\n")
    lines = (f"deb file:{liar} ./", f"deb file:{published.root} bookworm main")
    assert get(room, Places(pool=None, sources=lines), debs["new"]).missing == ()


@pytest.mark.parametrize("with_pool", [True, False])
def test_two_packages_that_claim_one_hash(pool: Pool, room: Path, tmp_path: Path, debs: dict[str, Path],
                                          with_pool: bool) -> None:
    """Both are written at the same time; what got into the pool first is not written to again."""
    packages = [dataclasses.replace(package_of(debs["new"]), name=f"hello{number}") for number in range(12)]
    flat = tmp_path / "flat"
    flat.mkdir()
    (flat / "x.deb").write_bytes(debs["new"].read_bytes())
    (flat / "Packages").write_text(f"Package: hello\nVersion: 1\nArchitecture: amd64\nFilename: ./x.deb\n"
                                   f"SHA256: {packages[0].sha256}\nSize: {debs['new'].stat().st_size}\n")
    places = Places(pool=pool if with_pool else None, sources=(f"deb file:{flat} ./",))
    obtained = obtain(packages, places, room / "d", room / "s")
    assert got(obtained) == {package.file_name: package.sha256 for package in packages}
    assert pooled(pool) == ({packages[0].sha256} if with_pool else set())


# Snapshot services -----------------------------------------------------------------------------------------------

@pytest.fixture
def service(debs: dict[str, Path]) -> Service:
    found = Service()
    found.add(debs["old"], "hello", "1:1.0-1", "amd64")
    found.add(debs["new"], "hello", "1:1.0-1", "i386")  # another architecture's is another file
    found.add(debs["data"], "libdata++", "3.0~rc1", "all")
    return found


def test_by_hash_from_a_snapshot_service(pool: Pool, room: Path, debs: dict[str, Path], service: Service) -> None:
    with service.serve() as address:
        obtained = get(room, Places(pool=pool, snapshot=address), debs["old"], debs["data"], debs["foreign"])
    assert [one.package.name for one in obtained.missing] == ["libold"]
    assert [f"{address}: it answers 404"] == [text for text in obtained.missing[0].tried if address in text]
    sha1 = {key: hashlib.sha1(debs[key].read_bytes()).hexdigest() for key in debs}
    assert {one.url for one in obtained.fetched} == {f"{address}/file/{sha1[key]}" for key in ("old", "data")}
    assert pooled(pool) == {package_of(debs[key]).sha256 for key in ("old", "data")}
    assert "/mr/binary/hello/1:1.0-1/binfiles?fileinfo=1" in service.seen
    assert f"/file/{sha1['new']}" not in service.seen


@pytest.mark.parametrize("lie", ["404", "500", "hang up", "wrong", "empty", "cut short", "too large", "endless",
                                 "redirect"])
def test_what_a_file_is_taken_for_when_the_service_lies(room: Path, debs: dict[str, Path], service: Service,
                                                        tmp_path: Path, lie: str) -> None:
    """Then it is asked for the same file by its path; when that is no better, it is missing, and nothing is left."""
    service.lies["/file/"] = lie
    service.redirect = f"file://{debs['old']}"
    with service.serve() as address:
        obtained = get(room, Places(pool=None, snapshot=address), debs["old"])
        assert [one.url for one in obtained.fetched] == [
            f"{address}/archive/debian/{TIME}/pool/main/hello/hello_1.0-1_amd64.deb"]
        service.lies["/archive/"] = lie
        obtained = get(room, Places(pool=None, snapshot=address), debs["old"])
        assert obtained.files == {}
    reasons = [text for text in obtained.missing[0].tried if address in text]
    assert len(reasons) == 2
    assert not [path for path in room.rglob("*") if path.is_file()]
    assert service.sent < 2**28  # four files of 20 kB, and what the kernel buffers


@pytest.mark.parametrize("answer", [
    "no JSON", "[]", "{}", '{"result": 7}', '{"result": [1, null, {"hash": 2}]}', '{"result": []}',
    '{"result": [{"architecture": "amd64", "hash": "../../../etc/passwd"}]}', "[" * 100_000, "endless", "500",
    "redirect", '{"result": [{"architecture": "amd64", "hash": "' + "0" * 40 + '"}], "fileinfo": [7]}',
    json.dumps({"result": [{"architecture": "amd64", "hash": "0" * 40}], "fileinfo": {"0" * 40: [
        {"name": name, "archive_name": archive, "path": path, "first_seen": time, "size": size}
        for name, archive, path, time, size in [
            ("../x", "debian", "/pool", TIME, 1), ("x", "..", "/pool", TIME, -1), ("x", "debian", "/../..", TIME, True),
            ("x", "debian", "/pool", "../..", 2**70), ("", "debian", "/pool", TIME, "1"), (7, "debian", 1, TIME, 1),
            ("x y\r\nHost: z", "debian", "/pool", TIME, None)]]}})])
def test_answers_that_are_none(room: Path, debs: dict[str, Path], service: Service, answer: str) -> None:
    service.lies["/mr/"] = answer
    service.redirect = "ftp://127.0.0.1/"
    with service.serve() as address:
        obtained = get(room, Places(pool=None, snapshot=address), debs["old"])
    assert obtained.files == {}
    assert any(address in text for text in obtained.missing[0].tried)
    assert all(path.startswith(("/mr/binary/", f"/file/{'0' * 40}")) for path in service.seen)


KEYS = st.sampled_from(["hash", "architecture", "0" * 40, "name", "path", "archive_name", "first_seen", "size"])
TEXTS = st.text() | st.sampled_from(["0" * 40, "amd64", TIME, "/pool", "x.deb"])


@given(value=st.recursive(st.none() | st.booleans() | st.integers() | TEXTS,
                          lambda inner: st.lists(inner) | st.dictionaries(KEYS, inner)))
def test_no_answer_is_believed_or_breaks_anything(value: Any) -> None:
    class Answering(web.Client):
        def read(self, url: str, limit: int) -> bytes:
            return json.dumps({"result": value, "fileinfo": {"0" * 40: value}}).encode()

    package = InstalledPackage(name="hello", version="1.0", architecture="amd64", sha256="0" * 64)
    try:
        found = snapshot.find(package, "http://service.example", Answering())
    except web.Refused:
        return
    for candidate in found:
        assert candidate.url.startswith(("http://service.example/file/", "http://service.example/archive/"))
        assert ".." not in unquote(candidate.url).split("/")


def test_by_time_from_a_snapshot_service(room: Path, debs: dict[str, Path], published: Archive,
                                         tmp_path: Path) -> None:
    """The archive of today has forgotten everything; that of then is out of date and nobody has its key."""
    service = Service(archive=published.root)
    (tmp_path / "today" / "debian").mkdir(parents=True)
    with service.serve() as address:
        places = Places(pool=None, sources=(f"deb file:{tmp_path}/today/debian bookworm main",), snapshot=address)
        assert get(room, places, debs["data"]).files == {}
        obtained = get(room / "then", Places(pool=None, sources=places.sources, snapshot=address, snapshot_time=TIME),
                       debs["data"], debs["foreign"])
    assert {one.url for one in obtained.fetched} == {
        f"{address}/archive/debian/{TIME}/pool/main/{debs[key].name}" for key in ("data", "foreign")}


def test_a_service_that_says_nothing_is_given_up(room: Path, service: Service) -> None:
    """Of three hundred packages not every one waits for it."""
    service.lies["/"] = "hang up"
    packages = [InstalledPackage(name=f"p{number}", version="1", architecture="all", sha256=f"{number:064x}")
                for number in range(100)]
    with service.serve() as address:
        obtained = obtain(packages, Places(pool=None, snapshot=address), room / "d", room / "s")
    assert len(obtained.missing) == 100
    assert len(service.seen) < 100  # of 300
    assert sum("given up" in one.tried[-1] for one in obtained.missing) > 60


def test_a_server_elsewhere_does_not_lead_to_this_machines_own(room: Path, debs: dict[str, Path], service: Service,
                                                               monkeypatch: pytest.MonkeyPatch) -> None:
    """Played by a proxy: the service is not on this machine, so a redirection may not lead here."""
    own = Service(files=service.files)
    with service.serve() as proxy, own.serve() as address:
        for name in ("no_proxy", "NO_PROXY"):
            monkeypatch.delenv(name, raising=False)
        monkeypatch.setenv("http_proxy", proxy)
        service.lies["http://"] = "redirect"
        service.redirect = f"{address}/file/{hashlib.sha1(debs['old'].read_bytes()).hexdigest()}"
        obtained = get(room, Places(pool=None, snapshot="http://service.example"), debs["old"])
    assert obtained.files == {}
    assert service.seen
    assert own.seen == []


def test_an_archive_elsewhere_does_not_lead_to_this_machines_own(room: Path, debs: dict[str, Path], service: Service,
                                                                 monkeypatch: pytest.MonkeyPatch) -> None:
    """Nor do its indices, which nobody has signed."""
    own = Service()
    with service.serve() as proxy, own.serve() as address:
        for name in ("no_proxy", "NO_PROXY"):
            monkeypatch.delenv(name, raising=False)
        monkeypatch.setenv("http_proxy", proxy)
        service.lies["http://"] = "redirect"
        service.redirect = f"{address}/secret"
        lines = ("deb http://archive.example/debian bookworm main", "deb http://flat.example ./")
        assert get(room, Places(pool=None, sources=lines), debs["new"]).files == {}
    assert "http://archive.example/debian/dists/bookworm/InRelease" in service.seen
    assert own.seen == []


def test_a_silent_archive_is_asked_once(room: Path, debs: dict[str, Path], service: Service) -> None:
    """Whatever number of lines names it, and of architectures there is."""
    service.lies["/"] = "hang up"
    with service.serve() as address:
        lines = [line_for(f"{address}/{number}") for number in range(20)]
        assert get(room, Places(pool=None, sources=tuple(lines)), debs["new"], debs["foreign"]).files == {}
    assert service.seen == ["/0/dists/bookworm/InRelease"] * 3


def test_after_some_silent_archives_no_more_are_asked(room: Path, debs: dict[str, Path], published: Archive,
                                                      service: Service, capsys: pytest.CaptureFixture[str]) -> None:
    """Every one may cost a minute. One that has answered is asked again, and so is a snapshot service."""
    with published.serve("/debian") as uri, service.serve() as address:
        dead = [f"deb http://10.0.2.2:{port}/debian bookworm main" for port in range(1, 20)]
        lines = (line_for(uri, "absent main"), *dead, line_for(uri))
        assert get(room, Places(pool=None, sources=lines, snapshot=address), debs["new"], debs["old"]).missing == ()
    assert capsys.readouterr().err.count("it was not asked, since 8 other") == 11


def test_of_architectures_only_those_of_guests_are_asked_for(room: Path, debs: dict[str, Path],
                                                             published: Archive) -> None:
    odd = [dataclasses.replace(package_of(debs["foreign"]), architecture=f"odd{number}", sha256=f"{number:064x}")
           for number in range(50)]
    seen: list[str] = []
    with published.serve("/debian", seen) as uri:
        obtained = obtain([*odd, package_of(debs["new"])], Places(pool=None, sources=(line_for(uri),)), room / "d",
                          room / "s")
    assert got(obtained).keys() == {package_of(debs["new"]).file_name}
    assert [path for path in seen if "binary-" in path] == ["/debian/dists/bookworm/main/binary-amd64/Packages"]
    assert any("odd7" in text for one in obtained.missing for text in one.tried)


def test_nothing_of_an_archive_is_left_when_the_next_is_asked(room: Path, tmp_path: Path, debs: dict[str, Path],
                                                              published: Archive) -> None:
    lines = (f"deb file:{published.root} bookworm main", "deb file:/absent bookworm main")
    assert len(get(room, Places(pool=None, sources=lines), debs["new"], debs["old"]).files) == 2
    assert list((room / "work").iterdir()) == []


def test_a_busy_service_is_given_time(room: Path, debs: dict[str, Path], service: Service) -> None:
    waited: list[float] = []

    class Patient(threading.Event):
        def wait(self, timeout: float | None = None) -> bool:
            waited.append(timeout or 0)
            service.lies.clear()
            return False

    for said, seconds in (("7", 7), ("99999", 30), ("tomorrow", 0), ("-1", 0)):
        service.lies["/file/"] = "429"
        service.headers = {"Retry-After": said}
        client = web.Client(Patient())
        with service.serve() as address:
            room.mkdir(exist_ok=True)
            client.save(f"{address}/file/{hashlib.sha1(debs['old'].read_bytes()).hexdigest()}", room / "x",
                        sha256=package_of(debs["old"]).sha256)
        assert waited.pop() == seconds
        assert waited == []


def test_no_apt_is_needed(room: Path, debs: dict[str, Path], service: Service, published: Archive,
                          monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(*words: Any, **more: Any) -> Any:
        raise MissingToolError("The program 'apt-get' is not installed.")

    monkeypatch.setattr("gitian.host.process.run", absent)
    with service.serve() as address, published.serve("/debian") as uri:
        places = Places(pool=None, sources=("deb http://a.invalid/debian bookworm main", line_for(uri)),
                        snapshot=address)
        assert get(room, places, debs["old"], debs["new"]).missing == ()


def test_one_name_for_two_files(room: Path, debs: dict[str, Path], service: Service) -> None:
    """The kernel's packages and the guest's may be at odds with each other."""
    package = package_of(debs["old"])
    other = dataclasses.replace(package, sha256="0" * 64)
    with service.serve() as address:
        obtained = obtain([package, other, package], Places(pool=None, snapshot=address), room / "d", room / "s")
    assert got(obtained) == {package.file_name: package.sha256}
    assert [one.package for one in obtained.missing] == [other]


def test_sources_are_looked_up_when_something_is_missing(room: Path, debs: dict[str, Path], tmp_path: Path,
                                                         published: Archive, pool: Pool,
                                                         monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    def usual(distro: Distro, suite: str, arch: str, options: SourceOptions, scratch: Path) -> tuple[Source, ...]:
        asked.append(f"{distro.name} {suite} {arch} {options.mirror_host}")
        uri = f"file:{published.root}"
        return (Source(host_uri=uri, guest_uri=uri, suite=suite, components=("main",)),)

    monkeypatch.setattr(origins, "find_sources", usual)
    stock(pool, debs["new"])
    environment = Environment(distro="", suite="bookworm", architecture="amd64", packages=(package_of(debs["new"]),))
    places = origins.with_sources(Places(pool=pool, mirror_host="proxy"), environment, directory=tmp_path, scratch=room)
    assert get(room, places, debs["new"]).missing == ()
    assert asked == []
    assert get(room, places, debs["new"], debs["data"]).missing == ()
    assert asked == ["debian bookworm amd64 proxy"]
    stating = dataclasses.replace(environment, sources=("deb file:/absent bookworm main",))
    places = origins.with_sources(Places(pool=pool), stating, directory=tmp_path, scratch=room)
    assert places.find_sources() == stating.sources
    nowhere = dataclasses.replace(environment, suite="absent")
    assert origins.with_sources(Places(pool=pool), nowhere, directory=tmp_path, scratch=room).find_sources() == ()


def test_offline_nobody_is_asked(pool: Pool, room: Path, debs: dict[str, Path], service: Service) -> None:
    with service.serve() as address:
        places = Places(pool=pool, sources=(line_for(f"{address}/debian"),), snapshot=address, snapshot_time=TIME,
                        offline=True)
        obtained = get(room, places, debs["old"])
    assert service.seen == []
    assert "offline" in obtained.missing[0].tried[-1]


# What is said ----------------------------------------------------------------------------------------------------

def missing(number: int, *tried: str) -> Missing:
    return Missing(package=InstalledPackage(name=f"p{number}", version="1:2", architecture="amd64",
                                            sha256=f"{number:064x}"), tried=tried)


def test_all_that_is_missing_is_said_at_once() -> None:
    error = unavailable([missing(2, "the pool: not there", "a.example: it has 3"), missing(1, "the pool: not there")])
    text = str(error)
    assert text.splitlines()[0] == "2 packages of the environment cannot be had:"
    assert f"p1 1:2 (amd64), sha256 {1:064x}" in text
    assert f"p2 1:2 (amd64), sha256 {2:064x}\n    a.example: it has 3" in text
    assert text.count("the pool: not there") == 1
    for word in ("--debs", "--snapshot", "$GITIAN_SNAPSHOT"):
        assert word in (error.hint or "")
    many = str(unavailable([missing(number, "x") for number in range(300)]))
    assert all(f"  p{number} 1:2 (amd64), sha256 {number:064x}"[:40] in many for number in range(300))
    assert f"{299:064x}" not in many
    with pytest.raises(EnvironmentUnavailableError, match="1 package of"):
        require(Obtained(files={}, missing=(missing(1, "x"),), fetched=()))


# Lines and paths -------------------------------------------------------------------------------------------------

def test_lines_of_a_guest() -> None:
    said: list[str] = []
    found = whereabouts.read_sources(
        ["deb http://10.0.2.2:3142/a.example/debian/ bookworm main contrib", "deb-src http://a.example bookworm main",
         "deb [arch=amd64 signed-by=/x y] https://b.example/debian ./", "deb http://10.0.2.2:3142/a.example/debian "
         "bookworm main contrib # as above", "deb http://localhost/debian bookworm main", "deb ftp://c.example x main",
         "deb http://c.example/debian ../x main", "deb http://c.example/debian x m[ain"], "10.0.2.2", said.append)
    assert [(source.host_uri, source.suite, source.components) for source in found] == [
        ("http://127.0.0.1:3142/a.example/debian", "bookworm", ("main", "contrib")),
        ("https://b.example/debian", "./", ())]
    assert len(said) == 5


@given(st.lists(st.text(max_size=60) | st.from_regex(r"deb( \[[a-z=]*\])? (http|file)://?[!-~]{0,20} [ -~]{0,30}")))
def test_no_line_gets_anything_else_into_a_url(lines: list[str]) -> None:
    for source in whereabouts.read_sources(lines, "10.0.2.2", lambda text: None):
        parts = urlsplit(f"{source.host_uri}/dists/{source.suite}/{'/'.join(source.components)}")
        assert parts.geturl().isprintable() and " " not in parts.geturl()
        assert not parts.query and not parts.fragment and parts.scheme in ("http", "https", "file", "copy")
        assert ".." not in [step for word in (source.suite, *source.components) for step in word.split("/")]


@given(st.text(max_size=40) | st.from_regex(r"([a-z%0-9.]{1,4}/){0,4}[!-~]{1,10}"))
def test_no_path_of_an_index_leads_out_of_the_archive(name: str) -> None:
    for uri in ("http://a.example/debian", "file:/srv/debian"):
        found = whereabouts._candidate(
            Source(host_uri=uri, guest_uri=uri, suite="s", components=()), name)
        if found is None:
            continue
        assert found.url.startswith(uri + "/")
        if found.path is None:
            assert found.url.isprintable() and " " not in found.url
            assert ".." not in unquote(urlsplit(found.url).path).split("/")
            assert not urlsplit(found.url).query and not urlsplit(found.url).fragment
        else:
            assert Path(os.path.normpath(found.path)).is_relative_to("/srv/debian")


@pytest.mark.parametrize("url", ["", "snapshot.example", "ftp://a.example", "http://", "http://a.example/?x", "file:/x",
                                 "http://u:p@a.example", "http://a.example/#x", "http://a.example:x", "http://[::1",
                                 "http://a b"])
def test_what_is_no_services_address(url: str) -> None:
    with pytest.raises(UsageError):
        snapshot.check_service(url)
    assert snapshot.check_service("https://a.example/snapshot/") == "https://a.example/snapshot"
    for time in ("", "20240101", "2024-01-01T00:00:00Z", "20240101T000000Z/.."):
        with pytest.raises(UsageError):
            snapshot.check_time(time)
    assert snapshot.check_time(TIME) == TIME


def test_there_is_room_before_anything_is_fetched(room: Path, debs: dict[str, Path], service: Service,
                                                  monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(obtaining, "RESERVE", 2**62)
    with service.serve() as address, pytest.raises(HostError, match="too little room"):
        get(room, Places(pool=None, snapshot=address), debs["old"])
    assert service.seen == []


def test_a_full_disk_is_no_servers_fault(room: Path, debs: dict[str, Path], service: Service) -> None:
    """It is asked once, and what is said is said of this machine; a connection is kept for nobody."""
    room.mkdir()
    (room / "x").symlink_to("/dev/full")
    sha1 = hashlib.sha1(debs["old"].read_bytes()).hexdigest()
    with service.serve() as address, pytest.raises(HostError, match="/x' cannot be written: No space left"):
        web.Client().save(f"{address}/file/{sha1}", room / "x", sha256=package_of(debs["old"]).sha256)
    assert service.seen == [f"/file/{sha1}"]
    assert not (room / "x").is_symlink()


def test_what_cannot_be_written_here_is_not_missing_there(room: Path, debs: dict[str, Path]) -> None:
    sha256 = package_of(debs["old"]).sha256
    with pytest.raises(HostError, match="cannot be written"):
        shelves.copy_checked(debs["old"], room / "absent" / "x", sha256)
    with pytest.raises(HostError, match="cannot be written"):
        shelves.put(debs["old"], room / "absent" / "x")
    room.mkdir()
    assert not shelves.copy_checked(debs["new"], room / "x", sha256)
    assert not shelves.copy_checked(room / "absent", room / "x", sha256)
    assert list(room.iterdir()) == []
    assert shelves.copy_checked(debs["old"], room / "x", sha256)
    assert (room / "x").read_bytes() == debs["old"].read_bytes()
