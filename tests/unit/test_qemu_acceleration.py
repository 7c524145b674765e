"""Hardware or software: what is believed, what is asked, what is remembered."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

import pytest

from gitian.errors import HostError, UsageError
from gitian.guest import acceleration
from gitian.guest.acceleration import Acceleration, choose, probe
from gitian.host import process

KERNEL = Path("/dev/null")


@pytest.fixture
def device(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine on which /dev/kvm can be opened."""
    monkeypatch.setattr(acceleration, "DEVICE", Path("/dev/null"))
    monkeypatch.setattr(os, "uname", lambda: os.uname_result(("Linux", "h", "6.1", "v", "x86_64")))


def stand_in(tmp_path: Path, script: str) -> list[str]:
    """A program that is started as qemu would be; $console is where the guest's console goes."""
    path = tmp_path / "qemu"
    path.write_text("#!/bin/sh\nfor word; do case $word in file:*) console=${word#file:};; esac; done\n" + script)
    path.chmod(0o755)
    return [str(path)]


def test_a_kernel_that_gets_through(tmp_path: Path) -> None:
    assert probe(stand_in(tmp_path, 'echo "Kernel panic - not syncing: VFS" >$console'), KERNEL) == ""


def test_a_kernel_that_says_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(acceleration, "_FIRST_WORD", 0.5)
    program = stand_in(tmp_path, f"echo $$ >{tmp_path}/pid; exec sleep 1000")
    assert "printed nothing for 0.5 s" in probe(program, KERNEL)
    if (tmp_path / "pid").exists():
        assert process.identity(int((tmp_path / "pid").read_text())) is None, "it was ended"


def test_a_kernel_that_stops_half_way(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(acceleration, "_FIRST_WORD", 60.0)
    monkeypatch.setattr(acceleration, "_WHOLE_BOOT", 0.5)
    assert "did not get through" in probe(stand_in(tmp_path, "echo Linux version >$console; exec sleep 1000"), KERNEL)


def test_a_qemu_that_refuses(tmp_path: Path) -> None:
    said = probe(stand_in(tmp_path, "echo 'qemu: failed to set MSR 0x10a' >&2; exit 1"), KERNEL)
    assert said == "qemu could not use it (qemu: failed to set MSR 0x10a)"


def test_the_answer_is_remembered_until_something_changes(tmp_path: Path, device: None) -> None:
    program = stand_in(tmp_path, f"echo asked >>{tmp_path}/log; echo 'Kernel panic' >$console")
    environment = {"XDG_CACHE_HOME": str(tmp_path / "cache")}

    def asked() -> int:
        return len((tmp_path / "log").read_text().splitlines())

    for _ in range(3):
        assert choose(program=program, kernel=KERNEL, environment=environment, fallback=tmp_path) == \
            Acceleration(name="kvm")
    assert asked() == 1
    os.utime(program[0], (1, 1))  # another version of it
    choose(program=program, kernel=KERNEL, environment=environment, fallback=tmp_path)
    assert asked() == 2


def test_a_no_is_asked_again_after_a_week(tmp_path: Path, device: None) -> None:
    program = stand_in(tmp_path, f"echo asked >>{tmp_path}/log; echo no >&2; exit 1")
    environment = {"HOME": str(tmp_path)}

    def answer() -> Acceleration:
        return choose(program=program, kernel=KERNEL, environment=environment, fallback=tmp_path)

    assert answer().name == "tcg" and "no" in answer().why
    store = tmp_path / ".cache/gitian/acceleration.json"
    entries = json.loads(store.read_text())
    for entry in entries.values():
        assert entry["time"] <= time.time()
        entry["time"] -= 8 * 86400
    store.write_text(json.dumps(entries))
    answer()
    assert (tmp_path / "log").read_text() == "asked\nasked\n"


@pytest.mark.parametrize("content", [b"", b"[]", b"{", b"\xff", b'{"x": 1}'])
def test_a_spoilt_memory_is_no_memory(tmp_path: Path, device: None, content: bytes) -> None:
    (tmp_path / "gitian").mkdir()
    (tmp_path / "gitian" / "acceleration.json").write_bytes(content)
    program = stand_in(tmp_path, "echo 'Kernel panic' >$console")
    found = choose(program=program, kernel=KERNEL, environment={"XDG_CACHE_HOME": str(tmp_path)}, fallback=tmp_path)
    assert found.name == "kvm"


def test_without_a_home_the_workspace_remembers(tmp_path: Path) -> None:
    assert acceleration.cache_file({}, tmp_path) == tmp_path / "acceleration.json"
    assert acceleration.cache_file({"HOME": "/proc/nowhere"}, tmp_path) == tmp_path / "acceleration.json"
    assert acceleration.cache_file({"HOME": "relative", "XDG_CACHE_HOME": "too"}, tmp_path).parent == tmp_path


def test_what_was_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(acceleration, "DEVICE", tmp_path / "absent")

    def asked(how: str) -> Acceleration:
        return choose(program=["qemu"], kernel=KERNEL, environment={"GITIAN_ACCEL": how}, fallback=tmp_path)

    assert asked("tcg") == Acceleration(name="tcg")
    assert asked("auto").name == asked("").name == "tcg"
    assert asked("auto").why
    with pytest.raises(HostError, match="cannot run in hardware"):
        asked("kvm")
    with pytest.raises(UsageError, match="'xen' is no kind"):
        asked("xen")
