"""Layers of KVM: guests that go on from a saved machine differ where they must, and leave the layer as it was."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from gitian.environment.layers import LayerStore
from gitian.guest.kvm import KvmBackend, KvmGuest
from gitian.guest.kvm_state import LayerFiles
from gitian.host import process
from gitian.host.hashing import sha256_file
from tests.integration import kvm_kit
from tests.integration.conftest import ROOT
from tests.integration.test_gbuild import descriptor, gbuild, report_of

pytestmark = pytest.mark.kvm
BACKEND = KvmBackend()


@pytest.fixture(scope="module")
def layer(images: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A layer, under another name than the one that it was made with, as finished ones are."""
    workspace = tmp_path_factory.mktemp("workspace")
    guest = BACKEND.start(kvm_kit.request(workspace, images, allow_sudo=True))
    guest.run(["sh", "-c", "echo frozen >/etc/mark"], user="root")
    guest.freeze(workspace / "partial")
    assert kvm_kit.left_behind(workspace) == []
    return (workspace / "partial").rename(workspace / "layer")


def contents(layer: Path) -> dict[str, tuple[str, int]]:
    return {path.name: (sha256_file(path), path.stat().st_mtime_ns) for path in layer.iterdir()}


def said(guest: KvmGuest, script: str, *, user: str | None = None) -> str:
    return guest.run(["sh", "-c", script], user=user).stdout.decode().strip()


@contextlib.contextmanager
def restored(workspace: Path, images: Path, layer: Path, capfd: pytest.CaptureFixture[str],
             **more: bool) -> Iterator[KvmGuest]:
    """A guest from a layer that has not been booted for it."""
    workspace.mkdir(exist_ok=True)
    with kvm_kit.running(workspace, images, layer=layer, **more) as guest:
        errors = capfd.readouterr().err
        assert "is booted" not in errors and (workspace / "var" / "target.log").read_bytes() == b"", errors
        yield guest


def test_two_guests_of_one_layer(layer: Path, images: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert layer.stat().st_mode & 0o777 == 0o700
    assert {path.stat().st_mode & 0o777 for path in layer.iterdir()} == {0o600}, "keys are in the state"
    before = contents(layer)
    with restored(tmp_path / "1", images, layer, capfd, allow_sudo=True) as one, \
            restored(tmp_path / "2", images, layer, capfd) as other:
        both = (one, other)
        assert [said(guest, "cat /etc/mark") for guest in both] == ["frozen", "frozen"]
        numbers = [said(guest, "head -c 32 /dev/urandom | od -An -tx1") for guest in both]
        assert numbers[0] != numbers[1]
        assert said(one, "sudo id -u") == "0"
        assert other.run(["sudo", "-n", "id", "-u"], check=False).status != 0
        for guest in both:
            assert abs(float(said(guest, "date +%s.%N")) - time.time()) < 60, "its clock stood in the layer"
            said(guest, "head -c 1000000 /dev/urandom >/etc/mark; sync", user="root")
    assert contents(layer) == before
    assert kvm_kit.left_behind(tmp_path / "1") == kvm_kit.left_behind(tmp_path / "2") == []


def test_a_restored_guest_has_a_network(layer: Path, images: Path, tmp_path: Path,
                                        capfd: pytest.CaptureFixture[str]) -> None:
    with kvm_kit.service() as port:
        greet = f"timeout 60 bash -c 'cat </dev/tcp/10.0.2.2/{port}' || true"
        with restored(tmp_path, images, layer, capfd) as guest:
            assert said(guest, greet, user="root") == "from the host"
            assert said(guest, greet) == "", "the host's own services are out of reach, also in a guest that goes on"
        with kvm_kit.running(tmp_path, images, layer=layer, environment={"MIRROR_HOST": "127.0.0.1"}) as guest:
            assert said(guest, greet) == "from the host", "unless the package proxy is one of them"


def test_a_restored_guest_is_kept_and_its_disk_used_once_more(layer: Path, images: Path, tmp_path: Path) -> None:
    guest = BACKEND.start(kvm_kit.request(tmp_path, images, layer=layer, keep=True))
    said(guest, "echo 1 >kept")
    guest.close(keep=True)
    found = BACKEND.attach(tmp_path, environment={})
    assert said(found, "cat kept /etc/mark") == "1\nfrozen"
    found.stop(overlay=False)
    with kvm_kit.running(tmp_path, images, fresh=False) as again:
        assert said(again, "cat kept /etc/mark") == "1\nfrozen"
    assert kvm_kit.left_behind(tmp_path) == []


def test_a_state_that_cannot_be_read_is_no_disaster(layer: Path, images: Path, tmp_path: Path,
                                                    capfd: pytest.CaptureFixture[str]) -> None:
    broken = LayerFiles(directory=tmp_path / "layer")
    broken.directory.mkdir()
    for path in layer.iterdir():
        os.link(path, broken.directory / path.name)
    broken.state.unlink()
    broken.state.write_bytes(os.urandom(4096) + bytes((layer / "state").stat().st_size - 4096))
    workspace = tmp_path / "workspace"
    workspace.mkdir()
    with kvm_kit.running(workspace, images, layer=broken.directory) as guest:
        errors = capfd.readouterr().err
        assert "so its disk is booted" in errors and "qemu said" in errors, errors
        assert said(guest, "cat /etc/mark") == "frozen"
    assert kvm_kit.left_behind(workspace) == []


FREEZING = """
import sys
from pathlib import Path
from gitian.environment.layers import LayerRecord, LayerStore, VERSION
from gitian.guest.kvm import KvmBackend
from tests.integration import kvm_kit
workspace, images = map(Path, sys.argv[1:])
guest = KvmBackend().start(kvm_kit.request(workspace, images))
with LayerStore(workspace / "var/layers").making() as (partial, finish):
    guest.freeze(partial)
    finish(LayerRecord(version=VERSION, backend="kvm", label="", intent="", indices=(), manifest="", size=0, made=""))
"""


@pytest.mark.parametrize("sign", ["disk.qcow2", "state"], ids=["while it boots", "while its state is written"])
def test_the_plug_pulled_while_a_layer_is_made(images: Path, tmp_path: Path, sign: str) -> None:
    store = LayerStore(tmp_path / "var" / "layers")
    maker = process.popen([sys.executable, "-c", FREEZING, str(tmp_path), str(images)], cwd=ROOT,
                          env={"PYTHONPATH": f"{ROOT}/src:{ROOT}"})
    try:
        assert process.wait_until(lambda: bool(list(store.directory.glob(f".partial-*/{sign}")))
                                  or maker.poll() is not None, 300, every=0.005)
    finally:
        maker.send_signal(signal.SIGKILL)
        maker.wait()
    # A program that was being started in that moment runs to its end, the others end with their owner.
    assert process.wait_until(lambda: not kvm_kit.processes(tmp_path, b""), 60), "they end by themselves"
    assert store.layers() == [] != list(store.directory.iterdir())
    store.sweep()
    BACKEND.sweep(tmp_path)
    assert list(store.directory.iterdir()) == []
    assert kvm_kit.left_behind(tmp_path) == []


@pytest.mark.slow
def test_a_build_from_a_layer_gives_the_report_of_one_from_scratch(images: Path, tmp_path: Path) -> None:
    environment = {"USE_LXC": "", "XDG_CACHE_HOME": str(tmp_path / "cache"), "HOME": str(tmp_path)}
    workspace = tmp_path / "workspace"
    workspace.mkdir()
    path = str(descriptor(workspace, "dpkg-query -W | sha256sum >$OUTDIR/packages; ls -A ~ /tmp /run >$OUTDIR/listing"))
    scratch = gbuild(workspace, images, "--no-layers", path, env=environment)
    assert "layer" not in scratch.stderr
    expected = report_of(workspace)
    first = gbuild(workspace, images, path, env=environment)
    assert "as a layer" in first.stderr and "is booted" not in first.stderr, first.stderr
    assert report_of(workspace) == expected
    (layer,) = (workspace / "var" / "layers").iterdir()
    before = {name: what for name, what in contents(layer).items() if name != "record.json"}
    warm = gbuild(workspace, images, path, env=environment)
    assert "from its layer" in warm.stderr and "Updating" not in warm.stderr, warm.stderr
    assert report_of(workspace) == expected
    assert {name: what for name, what in contents(layer).items() if name != "record.json"} == before
    assert [what for what in kvm_kit.left_behind(workspace) if not what.endswith(".qcow2")] == []
