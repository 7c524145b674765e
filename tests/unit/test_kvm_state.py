"""A machine's saved state: told from another one, believed only when it is whole; saved and loaded by a real qemu."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from gitian.errors import GuestError
from gitian.guest import kvm_state, qemu
from gitian.guest.kvm_state import LayerFiles, Saved
from gitian.guest.qmp import Qmp, listen
from gitian.host import process

QEMU = "qemu-system-x86_64"
MACHINE = qemu.Machine(program=(QEMU,), name="x", accel="tcg", memory=64, processors=1, kernel=Path("/k"), initrd=None,
                       overlay=Path("/o"), disk_size=5, console=Path("/c"), qmp=3, port=1)


@contextmanager
def bare(place: Path, *words: str, inherit: int | None = None) -> Iterator[Path]:
    """A qemu that runs no guest, stopped before its first instruction; the path of its control socket."""
    place.mkdir()
    with listen(place / "qmp") as listener:
        running = process.popen(
            [QEMU, "-machine", "pc", "-nodefaults", "-display", "none", "-accel", "tcg", "-m", "64", "-S", "-chardev",
             f"socket,id=c,fd={listener.fileno()},server=on,wait=off", "-mon", "chardev=c,mode=control", *words],
            pass_fds=[number for number in (listener.fileno(), inherit) if number is not None])
    try:
        yield place / "qmp"
    finally:
        process.end(running)


@pytest.fixture
def layer(tmp_path: Path) -> LayerFiles:
    """The layer of a machine that has done nothing yet."""
    files = LayerFiles(directory=tmp_path / "layer")
    files.directory.mkdir()
    files.running_disk.touch()
    with bare(tmp_path / "first") as control:
        kvm_state.save(control, MACHINE, files, key="secret", host_key="ssh-ed25519 AAAA")
    return files


def saved(files: LayerFiles) -> Saved:
    found = kvm_state.read(files.directory)
    assert found is not None
    return found


def test_saved_and_gone_on_with(layer: LayerFiles, tmp_path: Path) -> None:
    found = saved(layer)
    assert found.kind.startswith("pc-i440fx-") and (found.key, found.host_key) == ("secret", "ssh-ed25519 AAAA")
    assert "secret" not in repr(found)
    assert {path.stat().st_mode & 0o777 for path in (layer.state, layer.key, layer.about)} == {0o600}
    ours, theirs = socket.socketpair()
    with ours, theirs, bare(tmp_path / "second", "-incoming", f"fd:{theirs.fileno()}",
                            inherit=theirs.fileno()) as control:
        theirs.close()
        kvm_state.load(found, ours, control)
        with Qmp.connect(control, timeout=60) as again:
            assert again.status() == "running"


def test_a_state_that_qemu_does_not_take(layer: LayerFiles, tmp_path: Path) -> None:
    layer.state.write_bytes(b"x" * layer.state.stat().st_size)
    ours, theirs = socket.socketpair()
    with ours, theirs, bare(tmp_path / "second", "-incoming", f"fd:{theirs.fileno()}",
                            inherit=theirs.fileno()) as control:
        theirs.close()
        with pytest.raises(GuestError):
            kvm_state.load(saved(layer), ours, control)


def change(files: LayerFiles, **values: object) -> None:
    files.about.write_text(json.dumps({**json.loads(files.about.read_bytes()), **values}))


@pytest.mark.parametrize("harm", [
    lambda files: files.about.unlink(),
    lambda files: files.about.write_text("{"),
    lambda files: files.about.write_text("[]"),
    lambda files: change(files, memory="much"),
    lambda files: change(files, kind=None),
    lambda files: files.key.unlink(),
    lambda files: files.running_disk.unlink(),
    lambda files: os.truncate(files.state, 100),
], ids=["nothing known", "cut short", "a list", "no number", "no text", "no key", "no disk", "half a state"])
def test_what_is_not_whole_is_no_saved_machine(layer: LayerFiles, harm: Callable[[LayerFiles], object]) -> None:
    assert saved(layer)
    harm(layer)
    assert kvm_state.read(layer.directory) is None


def test_another_machine_does_not_go_on_with_it(layer: LayerFiles, tmp_path: Path) -> None:
    found = saved(layer)
    assert found.differs(MACHINE) == ""
    assert "memory" in found.differs(replace(MACHINE, memory=65))
    assert "processors" in found.differs(replace(MACHINE, processors=2))
    assert "qemu" in found.differs(replace(MACHINE, accel="kvm"))
    assert "qemu" in found.differs(replace(MACHINE, program=(QEMU, "-nice")))
    other = tmp_path / "other-qemu"
    other.write_text("#!/bin/sh\n")
    other.chmod(0o755)
    assert "qemu" in found.differs(replace(MACHINE, program=(str(other),)))


def test_a_machine_goes_on_with_the_same_command_line_but_for_where_it_starts() -> None:
    booted = qemu.argv(replace(MACHINE, initrd=Path("/i")))
    restored = qemu.argv(replace(MACHINE, incoming=7, kind="pc-i440fx-7.2"))
    assert restored[-2:] == ["-incoming", "fd:7"] and "-incoming" not in booted and "-initrd" not in restored
    assert [word for word in restored if word not in booted] == ["pc-i440fx-7.2,vmport=off", "-incoming", "fd:7"]
    assert any(word.startswith("vmgenid") for word in restored)
