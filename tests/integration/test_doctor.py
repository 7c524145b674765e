"""``gitian doctor`` on this very machine."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

GITIAN = Path(sys.executable).parent / "gitian"


def doctor(tmp_path: Path, *words: str, path: str | None = None) -> subprocess.CompletedProcess[str]:
    environment = {"PATH": path if path is not None else os.environ["PATH"], "HOME": str(tmp_path), "LC_ALL": "C.UTF-8"}
    return subprocess.run([GITIAN, "doctor", "-C", tmp_path, *words], env=environment, stdin=subprocess.DEVNULL,
                          capture_output=True, text=True, check=False, timeout=300)


@pytest.mark.parametrize("words", [(), ("--backend", "kvm"), ("--backend", "lxc")], ids=" ".join)
def test_text_and_json_agree(tmp_path: Path, words: tuple[str, ...]) -> None:
    text, data = doctor(tmp_path, *words), doctor(tmp_path, *words, "--json")
    value = json.loads(data.stdout)
    backends = {name: about["usable"] for name, about in value["backends"].items()}
    assert set(backends) == ({words[1]} if words else {"lxc", "kvm"})
    assert text.returncode == data.returncode == (0 if any(backends.values()) else 6)
    for check in value["checks"]:
        assert check["state"] in ("ok", "missing", "unusable", "note")
        assert check["detail"]
        assert check["name"] in text.stdout
        if check["state"] in ("missing", "unusable"):
            assert check["hint"], check
    for name, good in backends.items():
        assert f"{name}: {'can' if good else 'cannot'} be used" in text.stdout
    assert sorted(entry.name for entry in tmp_path.iterdir()) in ([], [".cache"]), "it leaves nothing in the workspace"


def test_programs_that_this_machine_has_are_found(tmp_path: Path) -> None:
    value = json.loads(doctor(tmp_path, "--json").stdout)
    git = next(check for check in value["checks"] if check["name"] == "git")
    assert git["state"] == "ok"
    assert os.access(git["detail"], os.X_OK)


def test_help_is_there(tmp_path: Path) -> None:
    done = doctor(tmp_path, "--help")
    assert done.returncode == 0
    assert "--backend" in done.stdout


def test_a_workspace_that_is_not_there(tmp_path: Path) -> None:
    assert doctor(tmp_path / "nothing").returncode == 2
