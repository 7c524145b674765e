"""gitian layers: what is listed, what is removed, and what stands in the way."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from gitian.cli.common import status_of
from gitian.cli.main import group
from gitian.environment.indices import Index
from gitian.environment.layers import VERSION, LayerRecord, LayerStore
from gitian.guest import session
from gitian.guest.session import Session
from gitian.host import process


@pytest.fixture
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Three layers of 100 MiB each, the third used last."""
    monkeypatch.delenv("GITIAN_BASE", raising=False)
    monkeypatch.delenv("GITIAN_LAYERS_SIZE", raising=False)
    store = LayerStore(tmp_path / "var" / "layers")
    for number in range(3):
        with store.making() as (partial, finish):
            partial.mkdir()
            done = finish(LayerRecord(
                version=VERSION, backend="lxc", label="bookworm-amd64", intent=str(number), size=100 * 2**20,
                indices=(Index(url="http://a/InRelease", sha256="0" * 64),), manifest="1  a\n2  b\n",
                made=f"number {number}\x1b[31m"))
        os.utime(done.path / "record.json", (1_700_000_000 + number,) * 2)
    return tmp_path


def layers(workspace: Path, *words: str) -> int:
    return status_of(group, "gitian", ["layers", *words, "-C", str(workspace)])


def left(workspace: Path) -> list[str]:
    return [layer.record.intent for layer in LayerStore(workspace / "var" / "layers").layers()]


def test_they_are_listed_the_last_used_first(workspace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert layers(workspace, "list") == 0
    said = capsys.readouterr().out
    assert [line.split("number ")[1][0] for line in said.splitlines()] == ["2", "1", "0"]
    assert "104.9 MB" in said and "bookworm-amd64" in said and "\x1b" not in said
    assert layers(workspace, "list", "--json") == 0
    first = json.loads(capsys.readouterr().out)[0]
    assert first.pop("key") in os.listdir(workspace / "var" / "layers")
    assert first == {"backend": "lxc", "target": "bookworm-amd64", "size": 100 * 2**20, "packages": 2,
                     "used": "2023-11-14T22:13:22Z", "made": "number 2\x1b[31m",
                     "indices": [{"url": "http://a/InRelease", "sha256": "0" * 64}]}
    assert layers(workspace.parent, "list") == 0
    assert capsys.readouterr().out == ""


def test_the_least_recently_used_are_removed(workspace: Path, capsys: pytest.CaptureFixture[str],
                                             monkeypatch: pytest.MonkeyPatch) -> None:
    assert layers(workspace, "prune") == 0
    assert left(workspace) == ["2", "1", "0"], "they are far below the usual limit"
    monkeypatch.setenv("GITIAN_LAYERS_SIZE", "250")
    assert layers(workspace, "prune") == 0
    assert left(workspace) == ["2", "1"]
    capsys.readouterr()
    assert layers(workspace, "prune", "--size", "150", "--json") == 0
    assert [layer["made"] for layer in json.loads(capsys.readouterr().out)] == ["number 1\x1b[31m"]
    assert left(workspace) == ["2"]
    assert layers(workspace, "prune", "--all") == 0
    assert list((workspace / "var" / "layers").iterdir()) == []
    assert layers(workspace, "prune", "--all", "--size", "1") == 2


def test_not_under_a_guest_that_runs_nor_under_a_build(workspace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with process.start(["sleep", "1000"]) as running:
        who = process.identity(running.pid)
        assert who is not None
        session.store(workspace, Session(backend="lxc", suite="bookworm", arch="amd64", distro="debian", owner=None,
                                         processes={"container": who}))
        assert layers(workspace, "prune", "--all") == 11
        assert "stop-target" in capsys.readouterr().err
        process.kill_group(running)
    lock = workspace / "var" / "lock"
    holder = process.popen(["flock", str(lock), "sleep", "1000"])
    try:
        assert process.wait_until(lambda: process.run(["flock", "-n", str(lock), "true"], check=False).status != 0, 60)
        assert layers(workspace, "prune", "--all") == 11
        assert layers(workspace, "list") == 0
    finally:
        process.end(holder)
    assert left(workspace) == ["2", "1", "0"]
    assert layers(workspace, "prune", "--all") == 0
