"""What the doctor says of machines that lack something."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from gitian.errors import HostError, MissingToolError
from gitian.host import doctor, process, space, subids, tools
from gitian.host.doctor import Check, Examination, examine, usable


def checks(tmp_path: Path, *backends: str, environment: dict[str, str] | None = None,
           probe: Callable[[], str] | None = None) -> dict[str, Check]:
    request = Examination(workspace=tmp_path, images=tmp_path, environment=environment or {},
                          backends=backends or doctor.BACKENDS, probe=probe)
    return {check.name: check for check in examine(request)}


def test_a_missing_program_and_its_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = tools.find

    def find(name: str, path: str | None = None) -> str:
        if name in ("slirp4netns", "qemu-img"):
            raise MissingToolError(f"The program '{name}' is not installed.")
        return real(name, path)

    monkeypatch.setattr(tools, "find", find)
    found = checks(tmp_path)
    assert found["slirp4netns"].state == "missing"
    assert found["slirp4netns"].backend == "lxc"
    assert found["slirp4netns"].hint == "Install it: 'apt-get install slirp4netns'."
    assert found["qemu-img"].hint == "Install it: 'apt-get install qemu-utils'."
    assert not usable(list(found.values()), "lxc")
    assert not usable(list(found.values()), "kvm")


def test_every_program_has_a_package() -> None:
    names = {*doctor._COMMON, *doctor._PROGRAMS["lxc"], *doctor._PROGRAMS["kvm"], "slirp4netns", "ip",
             "qemu-system-x86_64"}
    assert names <= set(tools.PACKAGES)


def test_a_bridge_needs_no_user_mode_network(tmp_path: Path) -> None:
    found = checks(tmp_path, "lxc", environment={"LXC_BRIDGE": "no-such-bridge0"})
    assert "slirp4netns" not in found
    assert found["network"].state == "missing"
    assert "no-such-bridge0" in found["network"].detail


@pytest.mark.parametrize(("room", "state"), [(10**9, "unusable"), (5 * 10**9, "note"), (10**11, "ok")])
def test_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, room: int, state: str) -> None:
    monkeypatch.setattr(space, "free", lambda path: room)
    found = checks(tmp_path, "kvm")
    assert found["room in the workspace"].state == found["room for base images"].state == state
    if state == "unusable":
        assert not usable(list(found.values()), "kvm")


def test_no_subordinate_ids(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def none(*places: Path) -> subids.SubIds:
        raise HostError("The user has none.", hint=subids.remedy("root", 0))

    monkeypatch.setattr(subids.SubIds, "of_current_user", none)
    found = checks(tmp_path, "lxc")["subordinate ids"]
    assert (found.state, found.detail) == ("missing", "The user has none.")
    assert "root:100000:65536" in found.hint


def test_neither_user_namespaces_nor_overlays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def run(argv: list[str], **options: object) -> process.Completed:
        return process.Completed(argv=tuple(map(str, argv)), status=1, stderr=b"it was refused\n")

    monkeypatch.setattr(process, "run", run)
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    found = checks(tmp_path, "lxc")
    assert found["user namespaces"].state == "unusable"
    assert "it was refused" in found["user namespaces"].detail
    assert found["overlayfs"].state == "unusable"
    assert "it was refused" in found["overlayfs"].detail
    assert found["i386 guests"].state == "note", "amd64 guests do without"


def test_lxc_is_for_root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert checks(tmp_path, "lxc")["root"].state == "unusable"
    assert "root" not in checks(tmp_path, "kvm")


def test_devices_for_the_network(tmp_path: Path) -> None:
    assert doctor._tunnel(tmp_path / "tun").state == "missing"
    (tmp_path / "tun").mkdir()
    assert doctor._tunnel(tmp_path / "tun").state == "unusable"


def test_control_groups_of_both_versions(tmp_path: Path) -> None:
    assert doctor._groups(tmp_path).state == "note"
    (tmp_path / "devices").mkdir()
    assert doctor._groups(tmp_path).detail == "version 1"
    (tmp_path / "cgroup.controllers").write_text("cpu pids\n")
    assert doctor._groups(tmp_path).detail == "version 2"


def test_hardware_support_is_what_a_kernel_says(tmp_path: Path) -> None:
    def untried() -> str:
        raise HostError("There is no kernel.", hint="Make one.")

    for probe, state, said in ((lambda: "", "ok", "was started"), (lambda: "it hung", "note", "Not used: it hung."),
                               (untried, "note", "There is no kernel")):
        found = checks(tmp_path, "kvm", probe=probe)["hardware support"]
        assert found.state == state
        assert said in found.detail
        assert found.good, "software emulation is always there"


def test_usable_looks_at_its_own_checks_and_at_those_for_all() -> None:
    good, note = Check(name="a", state="ok"), Check(name="b", state="note", backend="lxc")
    bad = Check(name="c", state="missing", backend="kvm")
    assert usable([good, note, bad], "lxc")
    assert not usable([good, note, bad], "kvm")
    assert not usable([Check(name="a", state="missing"), note], "lxc")
