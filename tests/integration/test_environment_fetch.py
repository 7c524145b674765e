"""gitian environment fetch: the pool is filled from real archives and services, and then nobody else is needed."""

from __future__ import annotations

import contextlib
import hashlib
import json
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from gitian.formats.environment import Environment, EnvironmentFile, Kernel
from gitian.formats.image_record import ImageRecord, InstalledPackage
from gitian.formats.report import Report
from gitian.images.record import ImageFiles
from tests.fakes.archive import Archive, make_deb
from tests.fakes.snapshot import Service
from tests.integration.conftest import Commands


def package_of(deb: Path) -> InstalledPackage:
    name, version, architecture = deb.stem.split("_")
    return InstalledPackage(name=name, version=version.replace("%3a", ":"), architecture=architecture,
                            sha256=hashlib.sha256(deb.read_bytes()).hexdigest())


@pytest.fixture(scope="module")
def debs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    room = tmp_path_factory.mktemp("debs")
    return {"hello": make_deb(room, "hello", "1:1.0-1", arch="amd64"), "data": make_deb(room, "data", "2.0"),
            "kernel": make_deb(room, "linux-image-1", "6.1-1", arch="amd64")}


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory, debs: dict[str, Path]) -> Iterator[Archive]:
    """An archive with the first two."""
    found = Archive(tmp_path_factory.mktemp("archive") / "debian")
    found.add_suite("bookworm")
    found.add_deb(debs["hello"], "bookworm")
    found.add_deb(debs["data"], "bookworm")
    found.publish()
    yield found
    found.close()


def environment(debs: dict[str, Path], *sources: str) -> Environment:
    return Environment(
        distro="debian", suite="bookworm", architecture="amd64", sources=sources,
        packages=tuple(sorted((package_of(debs[name]) for name in ("hello", "data")), key=lambda one: one.file_name)),
        kernel=Kernel(release="6.1.0-1-amd64", packages=(package_of(debs["kernel"]),)))


def written(path: Path, *environments: Environment) -> Path:
    path.write_bytes(EnvironmentFile(environments=environments).to_json())
    return path


def in_pool(pool: Path) -> set[str]:
    assert not list((pool / "tmp").glob("[!.]*")), "rubbish is left"
    return {path.name for path in pool.glob("??/*")}


def test_the_pool_is_filled_and_then_nobody_is_asked(commands: Commands, tmp_path: Path, debs: dict[str, Path],
                                                     archive: Archive) -> None:
    pool, everything = tmp_path / "pool", {package_of(deb).sha256 for deb in debs.values()}
    service = Service()
    service.add(debs["kernel"], "linux-image-1", "6.1-1", "amd64")
    settings = {"GITIAN_POOL": str(pool)}
    with archive.serve("/debian") as uri, service.serve() as address:
        line = f"deb {uri.replace('127.0.0.1', '10.0.2.2')} bookworm main"
        path = written(tmp_path / "environment.json", environment(debs, line))

        # The kernel is nowhere in the archive: that is said, what could be had stays.
        done = commands.run("environment", "fetch", path, env=settings, cwd=tmp_path, check=False)
        assert done.returncode == 19, done.stderr
        assert done.stdout.startswith("bookworm-amd64: 2 of 3 packages, 2 fetched now (")
        assert f"linux-image-1 6.1-1 (amd64), sha256 {package_of(debs['kernel']).sha256}" in done.stderr
        assert f"{uri} bookworm: its index does not have it" in done.stderr
        assert "--snapshot URL" in done.stderr
        assert in_pool(pool) == everything - {package_of(debs["kernel"]).sha256}

        # To look is not to take.
        done = commands.run("environment", "fetch", "--check", "--debs", debs["kernel"].parent, path, env=settings,
                            cwd=tmp_path)
        assert done.stdout == "bookworm-amd64: 3 of 3 packages\n"
        assert len(in_pool(pool)) == 2
        done = commands.run("environment", "fetch", "--dry-run", "--json", path, env=settings, cwd=tmp_path,
                            check=False)
        assert done.returncode == 19
        assert [one["name"] for one in json.loads(done.stdout)[0]["missing"]] == ["linux-image-1"]

        done = commands.run("environment", "fetch", "--json", path, cwd=tmp_path,
                            env={**settings, "GITIAN_SNAPSHOT": address})
        target, = json.loads(done.stdout)
        assert (target["target"], target["packages"], target["found"]) == ("bookworm-amd64", 3, 3)
        assert [(one["sha256"], one["size"]) for one in target["fetched"]] == [
            (package_of(debs["kernel"]).sha256, debs["kernel"].stat().st_size)]
        assert in_pool(pool) == everything
    for words in ((), ("--check",)):
        done = commands.run("environment", "fetch", *words, path, env=settings, cwd=tmp_path)
        assert done.stdout == "bookworm-amd64: 3 of 3 packages\n"


def test_of_a_report_by_the_sources_of_the_base_image(commands: Commands, tmp_path: Path, debs: dict[str, Path],
                                                      archive: Archive) -> None:
    """A report states no sources; the machine's own base image of that suite leads to an archive."""
    wanted = environment(debs)
    report = tmp_path / "result.yml"
    report.write_text(Report(out_manifest="", in_manifest="", base_manifests=(("bookworm-amd64", wanted.manifest()),),
                             cache_common_manifest="", cache_package_manifest="").to_yaml())
    images = tmp_path / "images"
    images.mkdir()
    with archive.serve("/debian") as uri:
        line = f"deb {uri.replace('127.0.0.1', '10.0.2.2')} bookworm main"
        ImageFiles(directory=images, suite="bookworm", arch="amd64").write_record(ImageRecord(
            distro="debian", suite="bookworm", architecture="amd64", mirror=uri, epoch=0, tarball_sha256="0" * 64,
            tarball_size=0, sources=(line,), indices=(), packages=(), made_by="a test"))
        done = commands.run("environment", "fetch", "-q", report, cwd=tmp_path,
                            env={"GITIAN_POOL": str(tmp_path / "pool"), "GITIAN_IMAGES": str(images)})
    assert done.stdout.startswith("bookworm-amd64: 2 of 2 packages, 2 fetched now")
    assert done.stderr == ""


def test_several_files_and_a_pool_that_is_too_small(commands: Commands, tmp_path: Path, debs: dict[str, Path]) -> None:
    first = environment(debs)
    second = Environment(distro="debian", suite="trixie", architecture="amd64", packages=first.packages[:1])
    big = make_deb(tmp_path / "big", "big", files={"/x": b"x" * 2**20})
    third = Environment(distro="debian", suite="sid", architecture="amd64", packages=(package_of(big),))
    paths = [written(tmp_path / f"{one.suite}.json", one) for one in (first, second, third)]
    words = ["environment", "fetch", "-q", "--debs", str(debs["hello"].parent), "--debs", str(big.parent)]
    done = commands.run(*words, *paths, cwd=tmp_path, env={"GITIAN_POOL": str(tmp_path / "pool")})
    assert [line.split(",")[0] for line in done.stdout.splitlines()] == [
        "bookworm-amd64: 3 of 3 packages", "trixie-amd64: 1 of 1 packages", "sid-amd64: 1 of 1 packages"]
    done = commands.run(*words, *paths, cwd=tmp_path, check=False,
                        env={"GITIAN_POOL": str(tmp_path / "small"), "GITIAN_POOL_SIZE": "1"})
    assert done.returncode == 6
    assert "GITIAN_POOL_SIZE" in done.stderr


@pytest.mark.parametrize(("words", "settings", "status", "said"), [
    ((), {"GITIAN_POOL": "off"}, 2, "nowhere to keep packages"),
    (("--snapshot", "ftp://a.example"), {}, 2, "cannot be the address of a snapshot service"),
    (("--snapshot-time", "20240101T000000Z"), {}, 2, "Name it with --snapshot"),
    (("--snapshot-time", "yesterday"), {"GITIAN_SNAPSHOT": "http://a.example"}, 2, "YYYYMMDDTHHMMSSZ"),
    (("--debs", "absent"), {}, 2, "does not exist")])
def test_options_that_make_no_sense(commands: Commands, tmp_path: Path, debs: dict[str, Path], words: tuple[str, ...],
                                    settings: dict[str, str], status: int, said: str) -> None:
    path = written(tmp_path / "environment.json", environment(debs))
    done = commands.run("environment", "fetch", *words, path, cwd=tmp_path, check=False,
                        env={"GITIAN_POOL": str(tmp_path / "pool"), **settings})
    assert done.returncode == status
    assert said in done.stderr


def test_stopped_while_a_server_goes_on_for_ever(commands: Commands, tmp_path: Path, debs: dict[str, Path]) -> None:
    service = Service(lies={"/file/": "endless", "/archive/": "endless"})
    for name in ("hello", "data"):
        package = package_of(debs[name])
        service.add(debs[name], package.name, package.version, package.architecture)
    # What the service says of sizes is no bound here: it says nothing.
    service.lies["/mr/"] = json.dumps({"result": [{"architecture": "amd64", "hash": "0" * 40}]})
    path = written(tmp_path / "environment.json", environment(debs, "deb file:/absent bookworm main"))
    with service.serve() as address:
        process = commands.start("environment", "fetch", "--snapshot", address, path, cwd=tmp_path,
                                 env={"GITIAN_POOL": str(tmp_path / "pool")})
        try:
            end = time.monotonic() + 120
            while service.sent < 2**20 and process.poll() is None and time.monotonic() < end:
                time.sleep(0.02)
            process.send_signal(signal.SIGTERM)
            _, said = process.communicate(timeout=120)
        finally:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            process.wait()
    assert process.returncode == 128 + signal.SIGTERM, said.decode()
    # Whoever comes next removes what a thread may have left in the last moment.
    commands.run("environment", "fetch", "--check", path, cwd=tmp_path, env={"GITIAN_POOL": str(tmp_path / "pool")},
                 check=False)
    assert in_pool(tmp_path / "pool") == set()
