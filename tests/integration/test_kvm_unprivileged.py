"""Not one command of the KVM path needs root: all of it is run here by a user who has no rights at all."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.kvm_kit import left_behind
from tests.integration.unprivileged import NUMBER, Unprivileged

pytestmark = [pytest.mark.kvm, pytest.mark.slow,
              pytest.mark.skipif(os.geteuid() != 0, reason="becomes another user")]

DESCRIPTOR = """\
---
name: "humble"
suites: ["bookworm"]
distro: "debian"
architectures: ["amd64"]
packages: []
reference_datetime: "2024-01-02 03:04:05"
remotes: []
files: ["input.txt"]
script: |
  id -un > $OUTDIR/who
  cp input.txt $OUTDIR/copied
  echo "$REFERENCE_DATE" >> $OUTDIR/copied
"""


@pytest.fixture
def somebody() -> Iterator[Unprivileged]:
    with Unprivileged.somebody() as one:
        yield one


def test_the_whole_way(images: Path, somebody: Unprivileged) -> None:
    home = somebody.home
    assert somebody.run("-c", "import os; print(os.geteuid(), os.getgroups())").stdout == f"{NUMBER} []\n"
    own = home / "images"
    own.mkdir()
    for name in ("base-bookworm-amd64.tar", "base-bookworm-amd64.json"):
        shutil.copy(images / name, own / name)
    # An image of the other backend tells make-base-vm that this root filesystem is to be adopted; it is root's affair.
    (own / "base-bookworm-amd64").mkdir()
    workspace = home / "workspace"
    (workspace / "inputs").mkdir(parents=True)
    (workspace / "inputs" / "input.txt").write_text("an input\n")
    (workspace / "humble.yml").write_text(DESCRIPTOR)
    for path in (own, *own.iterdir(), workspace, *workspace.rglob("*")):
        os.chown(path, NUMBER, NUMBER)
    environment = {"GITIAN_IMAGES": str(own), "GITIAN_BASE": str(workspace)}

    somebody.run("make-base-vm", "--distro", "debian", "--suite", "bookworm", "--without", "security", env=environment)
    built = somebody.run("gbuild", "--skip-cleanup", workspace / "humble.yml", env=environment)
    assert (workspace / "build" / "out" / "who").read_text() == "debian\n", built.stderr
    assert (workspace / "build" / "out" / "copied").read_text() == "an input\n2024-01-02\n"
    assert (workspace / "result" / "humble-res.yml").stat().st_uid == NUMBER

    def target(*words: str | Path) -> str:
        return somebody.run(*words, env=environment).stdout

    assert target("on-target", "cat", "out/who") == "debian\n"
    assert target("on-target", "-u", "root", "id", "-u") == "0\n"
    target("copy-to-target", workspace / "humble.yml", "here")
    target("copy-from-target", "here", home / "back")
    assert (home / "back").read_text() == DESCRIPTOR
    target("stop-target")
    target("make-clean-vm", "--suite", "bookworm")
    target("start-target", "64", "bookworm-amd64")
    assert target("on-target", "ls") == "", "it is a clean one"
    target("stop-target")
    target("make-clean-vm", "--suite", "bookworm")
    assert left_behind(workspace) == []
