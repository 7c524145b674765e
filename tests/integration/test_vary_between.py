"""gitian vary --between: one package among many that flips the output is named, within the bound, in real guests."""

from __future__ import annotations

import json
import math
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pytest

from gitian.formats.environment import Environment, EnvironmentFile, by_file_name
from gitian.images import lxc
from tests.fakes import tiny_distro
from tests.fakes.archive import make_deb
from tests.integration.test_exact import described
from tests.integration.test_gbuild import SCRIPTS, descriptor, environment, gbuild, leftovers, sha256

pytestmark = pytest.mark.lxc

#: Among so many changed packages one flips the output.
COUNT = 160
CULPRIT = 107
#: What a root filesystem wants to find free while it is made, and some more (bytes).
ENOUGH = 5 * 2**30

SCRIPT = f"""
cat /usr/share/gitian/part-{CULPRIT:03} > $OUTDIR/tool
echo the same whatever is installed > $OUTDIR/same
"""


def quick_place() -> Path | None:
    """A directory in memory: dpkg waits for the disk after each package, and here are very many of them."""
    place = Path("/dev/shm")
    try:
        about = os.statvfs(place)
        free = int(next(line for line in Path("/proc/meminfo").read_text().splitlines()
                        if line.startswith("MemAvailable:")).split()[1]) * 1024
    except (OSError, StopIteration):
        return None
    if about.f_bavail * about.f_frsize < ENOUGH or free < ENOUGH or about.f_flag & os.ST_NOEXEC \
            or not os.access(place, os.W_OK):
        return None
    return Path(tempfile.mkdtemp(prefix="gitian-test-", dir=place))


@dataclass(frozen=True, kw_only=True)
class Signers:
    """Two reports of one build by people with other packages, which all lie in ``debs``."""

    images: Path
    debs: Path
    descriptor: Path
    a: Path
    b: Path

    def workspace(self, where: Path) -> Path:
        (where / "inputs").mkdir(parents=True)
        for path in (self.descriptor, self.a, self.b):
            shutil.copy(path, where / path.name)
        return where

    def command(self, *words: str, a: str = "a-res.yml", b: str = "b-res.yml", debs: bool = True) -> list[str | Path]:
        places = ["--debs", str(self.debs)] if debs else []
        return [SCRIPTS / "gitian", "vary", "pkg.yml", "--between", a, b, "--offline", *places, *words]

    def vary(self, workspace: Path, *words: str, a: str = "a-res.yml", b: str = "b-res.yml", debs: bool = True,
             status: int = 0) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(self.command(*words, a=a, b=b, debs=debs), cwd=workspace, env=self.env(), text=True,
                              capture_output=True, stdin=subprocess.DEVNULL, timeout=900)
        assert done.returncode == status, f"{done.returncode}\n{done.stdout}\n{done.stderr}"
        return done

    def env(self) -> dict[str, str]:
        return environment(self.images, {"GITIAN_POOL": "off"})

    def places(self) -> list[str]:
        return sorted(path.name for path in (self.images / "environments").iterdir() if path.is_dir())


def contents(number: int, version: str) -> bytes:
    return f"part {number} of {version}\n".encode()


def package(directory: Path, number: int, version: str) -> Path:
    """One of many. Some need another in the very same version, one a newer version of another."""
    needs = {20: f"gitian-part-140 (= {version})", 140: f"gitian-part-020 (= {version})",
             5: "gitian-part-150 (>= 2)" if version == "2.0" else "gitian-part-150"}
    return make_deb(directory, f"gitian-part-{number:03}", version, depends=needs.get(number, ""),
                    files={f"/usr/share/gitian/part-{number:03}": contents(number, version)})


@pytest.fixture(scope="module")
def signers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Signers]:
    quick = quick_place()
    room = quick or tmp_path_factory.mktemp("signers")
    images, debs = room / "images", room / "debs"
    images.mkdir(mode=0o755)
    room.chmod(0o755)
    try:
        base = tiny_distro.packages(debs, (), "amd64", guest=True)
        with ThreadPoolExecutor(4) as workers:
            sides = {name: list(workers.map(lambda number, version=version: package(debs, number, version),
                                            range(COUNT))) for name, version in (("a", "1.0"), ("b", "2.0"))}
        workspace = tmp_path_factory.mktemp("workspace")
        (workspace / "inputs").mkdir()
        path = descriptor(workspace, SCRIPT)
        for name, some in sides.items():
            packages = by_file_name(described(*base, *some))
            (workspace / "env.json").write_bytes(EnvironmentFile(environments=(Environment(
                distro="debian", suite="bookworm", architecture="amd64", packages=packages),)).to_json())
            gbuild(workspace, images, "--environment", "env.json", "--debs", str(debs), "--no-layers",
                   str(path), env={"GITIAN_POOL": "off"})
            (workspace / "result" / "pkg-res.yml").rename(workspace / f"{name}-res.yml")
        yield Signers(images=images, debs=debs, descriptor=path, a=workspace / "a-res.yml", b=workspace / "b-res.yml")
    finally:
        for entry in (*images.glob("environments/*/*"), *images.glob("environments/*/.*")):
            lxc.remove(entry)
        if quick is not None:
            shutil.rmtree(quick, ignore_errors=True)


def test_the_package_that_flips_the_output_is_named(signers: Signers, tmp_path: Path) -> None:
    workspace = signers.workspace(tmp_path)
    ends = signers.places()
    done = signers.vary(workspace, "--json")
    found = json.loads(done.stdout)
    (culprit,) = found["culprits"]
    assert culprit["changes"] == [{"name": f"gitian-part-{CULPRIT}", "old": "1.0", "new": "2.0",
                                   "environments": ["bookworm-amd64"]}]
    assert (culprit["alone"], culprit["without"], culprit["certain"]) == ("like B", "like A", True)
    assert (found["answer"], found["certain"], found["outputs"]) == ("packages named", True, ["tool"])
    # Two packages need each other in one version; nothing that cannot be installed was tried.
    assert (found["changed_packages"], found["changes"]) == (COUNT, COUNT - 1)
    assert found["builds"] == len(found["steps"]) <= 2 * math.log2(COUNT) + 2
    assert found["builds"] <= found["builds_at_most_for_one"]
    assert all(step["outcome"] in ("like A", "like B") for step in found["steps"])
    assert f"at most {found['builds_at_most_for_one']} builds remain" in done.stderr
    # Nothing of the workspace was touched, images of mixtures are gone, those of A and B are kept.
    assert not (workspace / "result").exists() and not (workspace / "build").exists()
    assert signers.places() == ends and len(ends) == 2
    assert leftovers(workspace) == []


def test_a_killed_search_leaves_nothing_to_the_next_and_a_budget_ends_it(signers: Signers, tmp_path: Path) -> None:
    workspace = signers.workspace(tmp_path)
    ends = signers.places()
    log = tmp_path / "log"
    # Killed where the image of a mixture is whole, and in use.
    for number, words in ((signal.SIGINT, "--- Build 3"), (signal.SIGKILL, "(log in var/vary-between/build-3-")):
        with log.open("wb") as file:
            process = subprocess.Popen(
                ["env", "--default-signal=INT", *signers.command()], cwd=workspace, env=signers.env(),
                stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=file, start_new_session=True)
            deadline = time.monotonic() + 300
            while words not in log.read_text() and process.poll() is None and time.monotonic() < deadline:
                time.sleep(0.05)
            assert process.poll() is None, log.read_text()
            process.send_signal(number)
            process.wait(120)
        if number == signal.SIGINT:
            assert process.returncode == 130 and leftovers(workspace) == []
    done = signers.vary(workspace, "--budget", "4 builds", status=31)
    assert "Undecided: the search is not finished" in done.stderr
    suspects = next(line for line in done.stdout.splitlines() if line.startswith("Suspected"))
    assert suspects.startswith("Suspected (40): ") and "4 builds of bookworm-amd64" in done.stdout
    assert leftovers(workspace) == []
    assert signers.places() == ends, "also the image of the mixture in which the search was killed is gone"


def test_what_is_missing_is_told_at_once(signers: Signers, tmp_path: Path) -> None:
    workspace = signers.workspace(tmp_path)
    done = signers.vary(workspace, debs=False, status=19)
    assert f"gitian-part-{CULPRIT} 1.0" in done.stderr and f"gitian-part-{CULPRIT} 2.0" in done.stderr
    assert "--- Build" not in done.stderr
    (workspace / "var" / "vary-between").mkdir(parents=True)
    (workspace / "var" / "vary-between" / "last.log").touch()
    signers.vary(workspace, debs=False, status=19)
    assert (workspace / "var" / "vary-between" / "last.log").exists(), "what the last search has left stays"


def test_records_that_are_not_to_be_searched(signers: Signers, tmp_path: Path) -> None:
    workspace = signers.workspace(tmp_path)
    text = (workspace / "b-res.yml").read_text()
    (workspace / "same-res.yml").write_bytes((workspace / "a-res.yml").read_bytes())
    done = signers.vary(workspace, b="same-res.yml", status=2)
    assert "the same outputs" in done.stderr
    own = sha256(signers.descriptor.read_bytes())
    assert own in text
    (workspace / "other-res.yml").write_text(text.replace(own, "0" * 64))
    done = signers.vary(workspace, b="other-res.yml", status=4)
    assert "other inputs: 'pkg-desc.yml'" in done.stderr
    for words in (("--vary", "clock"), ("--html", "page.html")):
        assert "--between" in signers.vary(workspace, *words, status=2).stderr


def test_outputs_that_hang_on_something_else_and_signers_by_name(signers: Signers, tmp_path: Path) -> None:
    """Bob's outputs are what nobody gets with his packages."""
    workspace = signers.workspace(tmp_path)
    for name, path in (("ann", signers.a), ("bob", signers.b)):
        text = path.read_text()
        if name == "bob":
            text = text.replace(sha256(contents(CULPRIT, "2.0")), "0" * 64)
            assert text != path.read_text()
        place = workspace / "sigs" / "pkg" / "1.0" / name
        place.mkdir(parents=True)
        (place / "pkg-build.assert").write_text(text + "- release: '1.0'\n- name: pkg\n- type: build\n- optionals:\n")
    done = signers.vary(workspace, a="ann", b="carol", status=2)
    assert "'carol' is no file" in done.stderr and "--between names" in done.stderr
    done = signers.vary(workspace, "--release", "1.0", a="ann", b="bob", status=31)
    assert "A's packages give outputs that are like A, B's packages ones that are unlike both" in done.stderr
    assert "Packages alone do not explain" in done.stdout and "2 builds of bookworm-amd64" in done.stdout
