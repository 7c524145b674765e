"""What is left of a target after a build: for --skip-image, and to be looked at."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.integration.lxc_kit import left_behind
from tests.integration.test_gbuild import descriptor, gbuild, leftovers, report_of
from tests.integration.test_libexec import Shell

#: Counts the builds that a target has seen, and leaves the number where the next one finds it.
COUNTING = """
count=$(cat ~/count 2>/dev/null || echo 0)
echo $((count + 1)) > ~/count
cp ~/count $OUTDIR/count
test ! -e ~/fail
"""


def counted(workspace: Path) -> str:
    return (workspace / "build" / "out" / "count").read_text()


def built_again(workspace: Path, images: Path, *arguments: str, env: dict[str, str]) -> None:
    """Build twice in one target, look at it, fail in it, go on in it, and begin anew."""
    shell = Shell(workspace=workspace, images=images, extra=env)
    path = str(descriptor(workspace, COUNTING))
    gbuild(workspace, images, *arguments, path, env=env)
    first = report_of(workspace)
    assert counted(workspace) == "1\n"
    assert leftovers(workspace) == []
    again = gbuild(workspace, images, *arguments, "-i", path, env=env)
    assert counted(workspace) == "2\n" and "No target was left" not in again.stderr
    # The environment is the same; only the output is another one.
    assert report_of(workspace).partition(b"in_manifest")[2] == first.partition(b"in_manifest")[2]
    shell("start-target 64 bookworm-amd64; on-target 'touch fail; cat count'; stop-target")
    gbuild(workspace, images, *arguments, "--skip-image", path, env=env, status=9)
    assert leftovers(workspace) == []
    shell("start-target 64 bookworm-amd64")
    assert shell("on-target cat out/count").stdout == b"3\n"
    shell("on-target rm fail")
    gbuild(workspace, images, *arguments, "--skip-image", path, env=env)  # in the one that runs
    assert counted(workspace) == "4\n"
    assert leftovers(workspace) == []


@pytest.mark.lxc
def test_a_container_goes_on_where_the_last_build_left_it(images: Path, tmp_path: Path) -> None:
    environment = {"USE_LXC": "1"}
    built_again(tmp_path, images, env=environment)
    path = str(descriptor(tmp_path, COUNTING))
    gbuild(tmp_path, images, path, env=environment)
    assert counted(tmp_path) == "1\n", "a clean target again"
    # It lies over a layer; without that it cannot be gone on with.
    shutil.rmtree(tmp_path / "var" / "layers")
    done = gbuild(tmp_path, images, "-i", path, env=environment)
    assert "no longer there" in done.stderr and counted(tmp_path) == "1\n"
    shutil.rmtree(tmp_path / "target-bookworm-amd64")
    done = gbuild(tmp_path, images, "-i", path, env=environment)
    assert "No target was left" in done.stderr and counted(tmp_path) == "1\n"
    shutil.rmtree(tmp_path / "target-bookworm-amd64")
    assert left_behind(tmp_path) == []


@pytest.mark.lxc
def test_a_failed_script_leaves_its_target_running_if_asked_to(images: Path, tmp_path: Path) -> None:
    environment = {"USE_LXC": "1"}
    shell = Shell(workspace=tmp_path, images=images, extra=environment)
    path = str(descriptor(tmp_path, "echo to look at > file; false"))
    gbuild(tmp_path, images, "--skip-cleanup", path, env=environment, status=9)
    assert shell("on-target cat build/file; stop-target").stdout == b"to look at\n"
    shutil.rmtree(tmp_path / "target-bookworm-amd64")
    assert left_behind(tmp_path) == []


@pytest.mark.kvm
def test_a_machine_goes_on_where_the_last_build_left_it(images: Path, tmp_path: Path) -> None:
    built_again(tmp_path, images, "--no-layers", env={"USE_LXC": "", "XDG_CACHE_HOME": str(tmp_path / "cache"),
                                                      "HOME": str(tmp_path)})
