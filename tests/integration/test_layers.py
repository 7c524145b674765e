"""Layers in real LXC guests: the same report with and without them, a changed archive noticed, kills survived."""

from __future__ import annotations

import contextlib
import random
import shutil
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.fakes.archive import Archive, make_deb
from tests.integration.test_gbuild import HEAD, descriptor, gbuild, leftovers, report_of, start

pytestmark = pytest.mark.lxc

SCRIPT = """
gitian-test-tool > $OUTDIR/tool
cat /var/lib/dpkg/status | sha256sum > $OUTDIR/status
ls -A /var/cache/apt/archives /var/cache/gitian /home/debian > $OUTDIR/listing
"""


class Repository:
    """An archive of one package, which the guests reach as a service of the host."""

    def __init__(self, archive: Archive, directory: Path, address: str) -> None:
        self.archive, self.directory = archive, directory
        port = address.rsplit(":", 1)[1]
        self.source = f"deb [trusted=yes] http://10.0.2.2:{port} testing main"

    def publish(self, version: str) -> None:
        deb = make_deb(self.directory / version, "gitian-test-tool", version, arch="all",
                       files={"/usr/bin/gitian-test-tool": f"#!/bin/sh\necho tool {version}\n".encode()})
        self.archive.add_deb(deb, "testing")
        self.archive.publish()


@pytest.fixture
def repository(tmp_path: Path) -> Iterator[Repository]:
    archive = Archive(tmp_path / "archive")
    try:
        archive.add_suite("testing")
        with archive.serve() as address:
            yield Repository(archive, tmp_path / "debs", address)
    finally:
        archive.close()


#: Lets guests reach services of the host's loopback, as a package cache of the host would need.
ON_HOST = {"MIRROR_HOST": "127.0.0.1"}


def using(workspace: Path, repository: Repository) -> Path:
    return descriptor(workspace, SCRIPT, extra=(
        f'repositories:\n- distribution: "testing"\n  source: "{repository.source}"\n'
        '  packages:\n  - "gitian-test-tool"\n'))


def test_a_layer_gives_the_report_of_a_build_from_scratch(tmp_path: Path, images: Path,
                                                          repository: Repository) -> None:
    workspace = tmp_path / "ws"
    workspace.mkdir()
    repository.publish("1.0")
    path = str(using(workspace, repository))
    first = gbuild(workspace, images, path, env=ON_HOST)
    assert "Installing" in first.stderr
    expected = report_of(workspace)
    again = gbuild(workspace, images, path, env=ON_HOST)
    assert "Installing" not in again.stderr
    assert report_of(workspace) == expected
    scratch = gbuild(workspace, images, "--no-layers", path, env=ON_HOST)
    assert "Installing" in scratch.stderr
    assert report_of(workspace) == expected
    assert len(list((workspace / "var/layers").iterdir())) == 1

    # Another version on the mirror: one request tells, and the layer of the old one is not used.
    repository.publish("2.0")
    newer = gbuild(workspace, images, path, env=ON_HOST)
    assert "Installing" in newer.stderr
    assert (workspace / "build/out/tool").read_text() == "tool 2.0\n"
    assert b"gitian-test-tool_2.0_all.deb" in report_of(workspace)
    assert len(list((workspace / "var/layers").iterdir())) == 2


def test_offline_builds_from_the_layer_and_says_so(tmp_path: Path, images: Path, repository: Repository) -> None:
    workspace = tmp_path / "ws"
    workspace.mkdir()
    repository.publish("1.0")
    path = str(using(workspace, repository))
    done = gbuild(workspace, images, "--offline", path, env=ON_HOST, status=12)
    assert "without --offline" in done.stderr
    gbuild(workspace, images, path, env=ON_HOST)
    expected = report_of(workspace)
    repository.publish("2.0")
    done = gbuild(workspace, images, "--offline", path, env=ON_HOST)
    assert "Offline" in done.stderr
    assert report_of(workspace) == expected


def test_an_archive_that_is_gone_stops_the_build_but_not_an_offline_one(tmp_path: Path, images: Path,
                                                          repository: Repository) -> None:
    workspace = tmp_path / "ws"
    workspace.mkdir()
    repository.publish("1.0")
    path = str(using(workspace, repository))
    gbuild(workspace, images, path, env=ON_HOST)
    for name in ("InRelease", "Release"):
        (repository.archive.root / "dists" / "testing" / name).unlink()
    done = gbuild(workspace, images, path, env=ON_HOST, status=12)
    assert "'testing'" in done.stderr
    gbuild(workspace, images, "--offline", path, env=ON_HOST)


def test_a_build_does_not_write_to_the_layer(tmp_path: Path, images: Path) -> None:
    path = descriptor(tmp_path, "mkdir x; echo more >> ~/.bashrc; rm -f ~/.profile; id -un > $OUTDIR/a")
    gbuild(tmp_path, images, str(path))

    def state() -> dict[str, tuple[int, int, int]]:
        layers = tmp_path / "var" / "layers"
        return {str(entry.relative_to(layers)): (entry.stat().st_mtime_ns, entry.stat().st_size, entry.stat().st_mode)
                for entry in layers.rglob("*") if entry.name != "record.json" and not entry.is_symlink()}

    before = state()
    assert before
    gbuild(tmp_path, images, str(path))
    assert state() == before


def test_a_layer_from_which_no_guest_starts_is_made_anew(tmp_path: Path, images: Path) -> None:
    path = descriptor(tmp_path, "echo 1 > $OUTDIR/a")
    gbuild(tmp_path, images, str(path))
    expected = report_of(tmp_path)
    (layer,) = (tmp_path / "var" / "layers").iterdir()
    shutil.rmtree(layer / "upper")
    done = gbuild(tmp_path, images, "--offline", str(path), status=8)
    assert "Updating" not in done.stderr
    done = gbuild(tmp_path, images, str(path))
    assert "is therefore made anew" in done.stderr and "Updating" in done.stderr
    assert report_of(tmp_path) == expected
    assert list((tmp_path / "var" / "layers").iterdir()) == [layer]
    assert "Updating" not in gbuild(tmp_path, images, str(path)).stderr


def test_the_plug_pulled_while_a_layer_is_made(tmp_path: Path, images: Path) -> None:
    path = descriptor(tmp_path, "echo 1 > $OUTDIR/a", head=HEAD.replace("packages: []", 'packages:\n- "hello"'))
    gbuild(tmp_path, images, "--no-layers", str(path))
    expected = report_of(tmp_path)
    chance = random.Random(5)
    for _ in range(12):
        process = start(tmp_path, images, str(path))
        # From the start of the install to shortly after the layer has its name.
        until = time.monotonic() + chance.uniform(0.3, 4.0)
        while time.monotonic() < until and process.poll() is None:
            time.sleep(0.01)
            if list((tmp_path / "var/layers").glob(".partial*")) and chance.random() < 0.5:
                break
        with contextlib.suppress(ProcessLookupError):
            process.send_signal(signal.SIGKILL)
        process.wait(60)
        gbuild(tmp_path, images, str(path))
        assert report_of(tmp_path) == expected
        for layer in (tmp_path / "var/layers").iterdir():
            assert not layer.name.startswith("."), "an unfinished layer was left"
            (layer / "record.json").unlink()  # the next round makes it again; this one is no layer any more
    assert leftovers(tmp_path) == []
