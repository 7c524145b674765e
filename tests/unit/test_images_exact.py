"""Places of exact images: one for each environment, the least recently used removed, and never one in use."""

from __future__ import annotations

import contextlib
import os
import secrets
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from gitian.errors import EnvironmentUnavailableError, FormatError, HostError, ImageError
from gitian.formats.environment import Environment, Kernel
from gitian.formats.image_record import ImageRecord, InstalledPackage
from gitian.host.workspace import locked
from gitian.images import exact, lxc
from gitian.images.exact import ExactRequest
from gitian.images.record import ImageFiles

A = InstalledPackage(name="apt", version="1.0", architecture="all", sha256="a" * 64)
B = InstalledPackage(name="openssh-server", version="1:2", architecture="amd64", sha256="b" * 64)
IMAGE = InstalledPackage(name="linux-image-6.1", version="6.1", architecture="amd64", sha256="c" * 64)
BUSYBOX = InstalledPackage(name="busybox-static", version="1.35", architecture="amd64", sha256="d" * 64)
ENVIRONMENT = Environment(distro="debian", suite="bookworm", architecture="amd64", packages=(A, B))
MB = 2**20


def test_each_environment_has_a_place_of_its_own(tmp_path: Path) -> None:
    others = [
        replace(ENVIRONMENT, distro="ubuntu"), replace(ENVIRONMENT, suite="trixie"),
        replace(ENVIRONMENT, architecture="i386"), replace(ENVIRONMENT, packages=(A,)),
        replace(ENVIRONMENT, packages=(replace(A, sha256="e" * 64), B)),
        replace(ENVIRONMENT, packages=(replace(A, version="1.1"), B)),
        replace(ENVIRONMENT, kernel=Kernel(release="6.1", packages=(IMAGE, BUSYBOX))),
        replace(ENVIRONMENT, kernel=Kernel(release="6.2", packages=(IMAGE, BUSYBOX)))]
    places = {exact.place_of(tmp_path, environment) for environment in (ENVIRONMENT, *others)}
    assert len(places) == len(others) + 1
    assert all(place.parent == tmp_path / "environments" and len(place.name) == 32 for place in places)
    # Where the packages came from, their order, and what the root filesystem should be, make no other environment.
    same = replace(ENVIRONMENT, packages=(B, A), sources=("deb http://example.org x main",), base="f" * 64)
    assert exact.place_of(tmp_path, same) == exact.place_of(tmp_path, ENVIRONMENT)


def record(kvm: dict[str, Any] | None) -> ImageRecord:
    return ImageRecord(distro="debian", suite="bookworm", architecture="amd64", mirror="", epoch=0,
                       tarball_sha256="0" * 64, tarball_size=0, sources=(), indices=(), packages=(), made_by="",
                       kvm=kvm)


def test_the_kernel_of_an_image() -> None:
    def one(package: InstalledPackage) -> dict[str, str]:
        return {"name": package.name, "version": package.version, "architecture": package.architecture,
                "sha256": package.sha256}

    fields: dict[str, Any] = {"kernel_release": "6.1", "kernel_packages": [one(IMAGE)],
                              "initrd_packages": [one(BUSYBOX)]}
    assert exact.kernel_of(record(fields)) == Kernel(release="6.1", packages=(BUSYBOX, IMAGE))
    assert exact.kernel_of(record(None)) is None
    for name in fields:
        with pytest.raises(FormatError, match="does not tell of its kernel"):
            exact.kernel_of(record({key: value for key, value in fields.items() if key != name}))


# What is refused before anything is made --------------------------------------------------------------------------


def refuse(tmp_path: Path, environment: Environment, backend: str = "kvm", **more: Any) -> tuple[type, str]:
    debs = {package: tmp_path / package.file_name for package in environment.packages}
    request = ExactRequest(directory=tmp_path / "images", environment=environment, backend=backend,
                           **{"debs": debs, **more})
    with pytest.raises((EnvironmentUnavailableError, ImageError)) as caught:
        exact.make_exact(request)
    assert not (tmp_path / "images").exists(), "nothing is begun"
    return caught.type, str(caught.value)


def test_what_cannot_be_made_is_said_before_anything_is_begun(tmp_path: Path) -> None:
    kernel = Kernel(release="6.1", packages=(IMAGE, BUSYBOX))
    deb = tmp_path / IMAGE.file_name
    deb.write_bytes(b"another")

    kind, said = refuse(tmp_path, ENVIRONMENT, "lxc", debs={A: tmp_path / "a"})
    assert kind is EnvironmentUnavailableError and "openssh-server_1%3a2_amd64.deb" in said

    kind, said = refuse(tmp_path, replace(ENVIRONMENT, packages=(B,)), "lxc")
    assert kind is EnvironmentUnavailableError and "no package 'apt'" in said

    kind, said = refuse(tmp_path, replace(ENVIRONMENT, packages=(A,)))
    assert kind is EnvironmentUnavailableError and "no package 'openssh-server'" in said and "KVM" in said

    kind, said = refuse(tmp_path, ENVIRONMENT)
    assert kind is ImageError and "names no kernel" in said and "no ordinary base image" in said

    kind, said = refuse(tmp_path, replace(ENVIRONMENT, kernel=kernel))
    assert kind is EnvironmentUnavailableError and BUSYBOX.file_name in said and IMAGE.file_name in said

    kind, said = refuse(tmp_path, replace(ENVIRONMENT, kernel=kernel), kernel_debs={IMAGE: deb, BUSYBOX: deb})
    assert kind is EnvironmentUnavailableError and "not the packages that they should be" in said


def test_an_image_with_another_digest_is_not_the_one_that_is_meant(tmp_path: Path) -> None:
    files = ImageFiles(directory=exact.place_of(tmp_path, ENVIRONMENT), suite="bookworm", arch="amd64")
    files.lxc.mkdir(parents=True)
    files.write_record(replace(record(None), lxc={"tarball_sha256": "0" * 64}))
    found = exact.find_exact(tmp_path, ENVIRONMENT, "lxc")
    assert found is not None and found.path == files.lxc
    assert exact.find_exact(tmp_path, replace(ENVIRONMENT, base="0" * 64), "lxc") == found
    assert exact.find_exact(tmp_path, replace(ENVIRONMENT, base="1" * 64), "lxc") is None


# Pruning ----------------------------------------------------------------------------------------------------------


def place(directory: Path, name: str, megabytes: int, hours: float) -> Path:
    """A place that was used so many hours ago."""
    path = directory / "environments" / name
    path.mkdir(parents=True)
    (path / "base-bookworm-amd64.json").write_bytes(b"{}")
    (path / "base-bookworm-amd64.qcow2").write_bytes(os.urandom(megabytes * MB))
    (path / ".used").touch()
    when = time.time() - hours * 3600
    os.utime(path / ".used", (when, when))
    return path


@pytest.fixture
def places(tmp_path: Path) -> list[Path]:
    """From the newest to the oldest, 2 MiB each and a bit."""
    return [place(tmp_path, name * 32, 2, hours) for name, hours in
            (("a", 0.1), ("b", 2), ("c", 3), ("d", 4), ("e", 5))]


def test_the_least_recently_used_go(places: list[Path], tmp_path: Path) -> None:
    listed = exact.environments(tmp_path)
    assert [one.path for one in listed] == places
    assert {one.label for one in listed} == {"bookworm-amd64"}
    assert all(2 * MB <= one.size < 3 * MB for one in listed)
    assert exact.prune(tmp_path, 7 * MB) == places[3:]
    assert [path.exists() for path in places] == [True, True, True, False, False]
    assert exact.prune(tmp_path, 7 * MB) == []
    # What was used within the last hour stays, whatever the limit.
    assert exact.prune(tmp_path, 0) == places[1:3]
    assert [one.path for one in exact.environments(tmp_path)] == places[:1]
    assert exact.prune(tmp_path / "nowhere", 0) == []


def test_what_somebody_wants_kept_stays(places: list[Path], tmp_path: Path) -> None:
    removed = exact.prune(tmp_path, 5 * MB, keep=[places[4]])
    assert removed == [places[2], places[3]]
    assert places[4].exists()


@contextlib.contextmanager
def another_process(script: str, *words: str) -> Iterator[None]:
    """A process of its own that runs a script, from when it says that it is ready until the block ends."""
    source = Path(__file__).resolve().parents[2] / "src"
    with subprocess.Popen([sys.executable, "-c", script, *words], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                          env={**os.environ, "PYTHONPATH": str(source)}) as process:
        assert process.stdin is not None and process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        try:
            yield
        finally:
            process.stdin.close()
            process.wait(60)


HOLDS = """
import sys
from pathlib import Path
from gitian.images.exact import held
with held([Path(sys.argv[1])]):
    print("ready", flush=True)
    sys.stdin.read()
"""
OPENS = """
import sys
from pathlib import Path
with open(Path(sys.argv[1]) / "base-bookworm-amd64.qcow2", "rb"):
    print("ready", flush=True)
    sys.stdin.read()
"""
MAKES = """
import sys
from pathlib import Path
from gitian.host.workspace import locked
with locked(Path(sys.argv[1]).parent / ".lock", wait=True, shared=True, what="it"):
    print("ready", flush=True)
    sys.stdin.read()
"""


@pytest.mark.parametrize(("script", "removed"), [(HOLDS, 3), (OPENS, 3), (MAKES, 0)])
def test_what_another_process_uses_stays(places: list[Path], tmp_path: Path, script: str, removed: int) -> None:
    with another_process(script, str(places[2])):
        assert len(exact.prune(tmp_path, 0)) == removed
        assert places[2].exists()
    assert places[2] in exact.prune(tmp_path, 0)


def test_one_that_was_killed_leaves_nothing_that_looks_whole(places: list[Path], tmp_path: Path) -> None:
    places[4].rename(tmp_path / "environments" / ".gone-0123456789ab")
    assert [one.path for one in exact.environments(tmp_path)] == places[:4]
    assert exact.prune(tmp_path, 100 * MB) == []
    assert not (tmp_path / "environments" / ".gone-0123456789ab").exists()


def test_what_cannot_be_removed_is_told_and_no_error(places: list[Path], tmp_path: Path,
                                                     monkeypatch: pytest.MonkeyPatch,
                                                     capsys: pytest.CaptureFixture[str]) -> None:
    """A build that has ended well must not fail by it."""
    (places[3] / ".held").mkdir()  # a lock that cannot be opened, as that of a place that is root's
    rubbish = tmp_path / "environments" / ".gone-0123456789ab"
    rubbish.mkdir()

    def remove(path: Path) -> None:
        if path in (rubbish, tmp_path / "environments" / ".gone-0" / "base-bookworm-amd64.qcow2"):
            raise HostError(f"'{path}' cannot be removed.")
        real(path)

    real = lxc.remove
    monkeypatch.setattr(lxc, "remove", remove)
    monkeypatch.setattr(secrets, "token_hex", lambda size: "0")
    assert exact.prune(tmp_path, 7 * MB) == [places[4]]
    said = capsys.readouterr().err
    assert f"'{rubbish}' cannot be removed" in said
    assert f"The images in '{places[3]}' stay" in said
    assert "base-bookworm-amd64.qcow2' cannot be removed" in said
    assert places[3].exists() and not places[4].exists()
    with exact.held([places[0], places[3]]):
        assert f"Others may remove the images in '{places[3]}'" in capsys.readouterr().err
    guard = tmp_path / "environments" / ".lock"
    guard.unlink()
    guard.mkdir()
    assert exact.prune(tmp_path, 0) == []
    assert "cannot be opened" in capsys.readouterr().err
    exact.discard(tmp_path, ENVIRONMENT)


@pytest.mark.skipif(os.geteuid() != 0, reason="becomes another user")
def test_places_that_are_another_s_are_used_and_left_alone(places: list[Path], tmp_path: Path) -> None:
    with exact.held(places[:1]):
        pass
    tmp_path.chmod(0o755)
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            # The directories above are closed to others.
            os.chdir(tmp_path)
            os.setgid(65534)
            os.setuid(65534)
            mine, never_held = (place.relative_to(tmp_path) for place in places[:2])
            with locked(mine / ".held", wait=False, shared=True, what="it"), exact.held([mine, never_held]):
                status = 0 if exact.prune(Path(), 0) == [] else 2
        finally:
            os._exit(status)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    assert all(place.exists() for place in places)


@pytest.mark.parametrize(("value", "limit"), [("", 20 * 2**30), ("5", 5 * MB), ("0", 0), ("-1", 20 * 2**30),
                                              ("much", 20 * 2**30)])
def test_the_limit(value: str, limit: int) -> None:
    assert exact.limit_of({"GITIAN_ENVIRONMENTS_SIZE": value}) == limit
