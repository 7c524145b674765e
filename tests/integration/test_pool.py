"""The package pool with real guests and a real archive: nothing is downloaded twice, whatever happens to the pool."""

from __future__ import annotations

import hashlib
import os
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from gitian.images import lxc
from gitian.images.distros import PACKAGES
from tests.fakes import tiny_distro
from tests.fakes.archive import Archive, make_deb
from tests.integration.conftest import Commands
from tests.integration.test_gbuild import SCRIPTS, descriptor, environment, gbuild, report_of

NAMES = ("gitian-test-a", "gitian-test-b", "gitian-test-c")

#: What a build could see of where its packages came from.
SCRIPT = """
cat /usr/share/gitian-test-*/text > $OUTDIR/texts
sha256sum < /var/lib/dpkg/status > $OUTDIR/status
ls -AlR /var/cache/apt/archives /var/cache/gitian | grep -v '^total' | sed -E 's/[A-Z][a-z]{2} +[0-9]+ [0-9:]+//' \
  > $OUTDIR/listing
"""


class Repository:
    """An archive that guests reach as a service of the host, and what was asked of it."""

    def __init__(self, archive: Archive, debs: Path, address: str, seen: list[str]) -> None:
        self.archive, self.debs, self.seen = archive, debs, seen
        self.source = f"deb [trusted=yes] {address.replace('127.0.0.1', '10.0.2.2')} testing main"

    def downloads(self) -> list[str]:
        """The packages that were asked for since the last time, by their names."""
        found = sorted(path.rsplit("/", 1)[1].partition("_")[0] for path in self.seen if path.endswith(".deb"))
        self.seen.clear()
        return found


@pytest.fixture
def repository(tmp_path: Path) -> Iterator[Repository]:
    archive, seen = Archive(tmp_path / "archive"), list[str]()
    try:
        archive.add_suite("testing")
        for number, name in enumerate(NAMES):
            content = f"{name}\n".encode() * (1, 1000, 1_000_000)[number]
            # An epoch, whose colon apt writes %3a in the name of the file.
            archive.add_deb(make_deb(tmp_path / "debs", name, f"{number}:1.0" if number else "1.0~rc1",
                                     files={f"/usr/share/{name}/text": content},
                                     depends=NAMES[number - 1] if number else ""), "testing")
        archive.publish()
        with archive.serve(seen=seen) as address:
            yield Repository(archive, tmp_path / "debs", address, seen)
    finally:
        archive.close()


@pytest.fixture
def env(tmp_path: Path) -> dict[str, str]:
    """With a pool of our own; guests may reach what listens on the host's loopback, as a cache there would need."""
    return {"MIRROR_HOST": "127.0.0.1", "GITIAN_POOL": str(tmp_path / "pool")}


def workspace_of(place: Path, repository: Repository, name: str = "ws") -> Path:
    workspace = place / name
    workspace.mkdir()
    descriptor(workspace, SCRIPT, extra=(
        f'repositories:\n- distribution: "testing"\n  source: "{repository.source}"\n'
        f'  packages:\n  - "{NAMES[-1]}"\n'))
    return workspace


def begin(workspace: Path, images: Path, env: Mapping[str, str]) -> subprocess.Popen[bytes]:
    return subprocess.Popen([SCRIPTS / "gbuild", "--no-layers", "pkg.yml"], cwd=workspace,
                            env=environment(images, env), stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                            stderr=subprocess.DEVNULL, start_new_session=True)


def pooled(pool: Path) -> dict[str, Path]:
    return {path.name: path for path in pool.glob("[0-9a-f][0-9a-f]/*")}


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.mark.lxc
def test_nothing_is_downloaded_twice_and_nothing_poisoned_is_used(tmp_path: Path, images: Path, env: dict[str, str],
                                                                  repository: Repository) -> None:
    workspace = workspace_of(tmp_path, repository)
    gbuild(workspace, images, "--no-layers", "pkg.yml", env=env)
    expected = report_of(workspace)
    assert repository.downloads() == list(NAMES)
    listing = (workspace / "build/out/listing").read_text()
    assert "partial" in listing
    assert ".deb" not in listing

    gbuild(workspace, images, "--no-layers", "pkg.yml", env=env)
    assert report_of(workspace) == expected
    assert repository.downloads() == []

    # Without the pool the same comes out, each package asked for by the guest itself.
    gbuild(workspace, images, "--no-layers", "pkg.yml", env={**env, "GITIAN_POOL": "off"})
    assert report_of(workspace) == expected
    assert repository.downloads() == list(NAMES)

    # Same size, other contents: apt itself would install that.
    files = pooled(tmp_path / "pool")
    good = {name: digest(deb) for name in NAMES for deb in repository.debs.glob(f"{name}_*.deb")}
    assert set(good.values()) <= files.keys()
    poisoned = files[good[NAMES[2]]]
    poisoned.write_bytes(poisoned.read_bytes().replace(b"gitian-test-c\n" * 9, b"gitian-evil-c\n" * 9, 1))
    assert digest(poisoned) != poisoned.name
    files[good[NAMES[1]]].write_bytes(b"")
    done = gbuild(workspace, images, "--no-layers", "pkg.yml", env=env)
    assert report_of(workspace) == expected
    assert repository.downloads() == list(NAMES[1:])
    assert "pool holds something else" in done.stderr
    assert digest(poisoned) == poisoned.name
    assert (tmp_path / "pool").stat().st_mode & 0o7777 == 0o700


@pytest.mark.lxc
def test_what_guests_download_themselves_is_kept_too(tmp_path: Path, images: Path, env: dict[str, str],
                                                     repository: Repository) -> None:
    """An archive with a password, which we leave to apt: it downloads, once."""
    workspace = workspace_of(tmp_path, repository)
    path = workspace / "pkg.yml"
    path.write_text(path.read_text().replace("http://10.0.2.2", "http://user:word@10.0.2.2"))
    for wanted in (list(NAMES), []):
        gbuild(workspace, images, "--no-layers", "pkg.yml", env=env)
        assert repository.downloads() == wanted
        log = (workspace / "var/install.log").read_text()
        assert f"Packages: {3 - len(wanted)} from the pool, 0 fetched into it, {len(wanted)} left to apt" in log
        listing = (workspace / "build/out/listing").read_text()
        assert ".deb" not in listing
        assert "new-packages" not in listing


@pytest.mark.lxc
def test_two_builds_fill_one_pool(tmp_path: Path, images: Path, env: dict[str, str], repository: Repository) -> None:
    places = [workspace_of(tmp_path, repository, f"ws{number}") for number in range(2)]
    running = [begin(place, images, env) for place in places]
    assert [build.wait(600) for build in running] == [0, 0]
    assert report_of(places[0]) == report_of(places[1])
    assert all(digest(path) == name for name, path in pooled(tmp_path / "pool").items())
    repository.downloads()
    gbuild(places[0], images, "--no-layers", "pkg.yml", env=env)
    assert repository.downloads() == []


@pytest.mark.lxc
def test_the_plug_pulled_while_the_pool_is_filled(tmp_path: Path, images: Path, env: dict[str, str],
                                                  repository: Repository) -> None:
    workspace = workspace_of(tmp_path, repository)
    gbuild(workspace, images, "--no-layers", "pkg.yml", env={**env, "GITIAN_POOL": "off"})
    expected = report_of(workspace)
    pool = tmp_path / "pool"
    for moment in ("tmp/*/d", "tmp/*/d/archives/*", "[0-9a-f][0-9a-f]/*"):
        for path in pooled(pool).values():
            path.unlink()
        build = begin(workspace, images, env)
        until = time.monotonic() + 120
        while not list(pool.glob(moment)) and build.poll() is None and time.monotonic() < until:
            time.sleep(0.002)
        build.send_signal(signal.SIGKILL)
        build.wait()
        assert all(digest(path) == name for name, path in pooled(pool).items())
    gbuild(workspace, images, "--no-layers", "pkg.yml", env=env)
    assert report_of(workspace) == expected
    assert [path for path in (pool / "tmp").iterdir() if not path.name.startswith(".")] == []


# make-base-vm ----------------------------------------------------------------------------------------------------

@pytest.mark.lxc
@pytest.mark.skipif(os.geteuid() != 0, reason="reads files that shifted ids own")
def test_a_base_image_is_the_same_from_an_empty_pool_a_full_one_and_none(tmp_path: Path, commands: Commands) -> None:
    archive, seen = Archive(tmp_path / "archive"), list[str]()
    pool = tmp_path / "pool"
    made: list[bytes] = []
    asked: list[list[str]] = []
    try:
        debs = tiny_distro.packages(tmp_path / "debs", PACKAGES, "amd64")
        tiny_distro.fill(archive, "noble", debs, origin="Ubuntu", arch="amd64", components=("main", "universe"),
                         pockets=("-updates", "-security"))
        archive.publish()
        with archive.serve("/ubuntu", seen=seen) as uri:
            for number, choice in enumerate(("off", str(pool), str(pool), str(pool))):
                if number == 3:
                    victim = max(pooled(pool).values(), key=lambda path: path.stat().st_size)
                    victim.write_bytes(bytes(victim.stat().st_size))
                room = tmp_path / f"images{number}"
                room.mkdir()
                commands.run("make-base-vm", "--suite", "noble", "--lxc", "--mirror", uri, "--keyring",
                             archive.keyring, env={"GITIAN_IMAGES": str(room), "GITIAN_POOL": choice}, cwd=room)
                made.append((room / "base-noble-amd64.tar").read_bytes())
                lxc.remove(room / "base-noble-amd64")
                asked.append(sorted(path.rsplit("/", 1)[1] for path in seen if path.endswith(".deb")))
                seen.clear()
    finally:
        archive.close()
    assert made[0] == made[1] == made[2] == made[3]
    assert asked[0] == asked[1]
    assert {name.partition("_")[0] for name in asked[0]} >= {"tiny-base", *PACKAGES}
    assert asked[2] == []
    assert len(asked[3]) == 1
    assert {digest(deb) for deb in debs if deb.name in asked[0]} == set(pooled(pool))
    assert all(digest(path) == name for name, path in pooled(pool).items())
