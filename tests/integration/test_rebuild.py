"""What somebody else built, built again: gbuild --like and --environment, gitian environment snapshot, under both
backends."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.fakes.archive import Archive, make_deb
from tests.integration import git_kit
from tests.integration.test_gbuild import SCRIPTS, descriptor, environment, gbuild, leftovers, report_of
from tests.integration.test_layers import ON_HOST, Repository

pytestmark = pytest.mark.lxc

SCRIPT = """
gitian-test-tool > $OUTDIR/tool
dpkg-query -W > $OUTDIR/packages
cat in.txt src/file > $OUTDIR/in.txt
"""


@dataclass(frozen=True, kw_only=True)
class Recorded:
    """A report of another day: the archive has a newer tool now, the old one's .deb lies in ``debs``."""

    images: Path
    descriptor: Path
    report: Path
    debs: Path
    repository: Repository
    pool: Path
    commit: str  # of the remote 'src', which has moved on too

    def workspace(self, where: Path) -> Path:
        (where / "inputs").mkdir(parents=True)
        (where / "inputs" / "in.txt").write_bytes(b"input\n")
        shutil.copy(self.descriptor, where / "pkg.yml")
        return where

    def env(self, extra: Mapping[str, str] | None = None) -> dict[str, str]:
        return {**ON_HOST, "GITIAN_POOL": str(self.pool), **(extra or {})}


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory, images: Path) -> Iterator[Recorded]:
    place = tmp_path_factory.mktemp("recorded")
    before = set((images / "environments").glob("*"))
    archive = Archive(place / "archive")
    try:
        archive.add_suite("testing")
        with archive.serve() as address:
            repository = Repository(archive, place / "debs", address)
            repository.publish("1.0")
            workspace = place / "ws"
            (workspace / "inputs").mkdir(parents=True)
            (workspace / "inputs" / "in.txt").write_bytes(b"input\n")
            path = descriptor(workspace, SCRIPT, extra=(
                f'repositories:\n- distribution: "testing"\n  source: "{repository.source}"\n'
                '  packages:\n  - "gitian-test-tool"\n')).rename(workspace / "pkg.yml")
            commit = git_kit.make(place / "src", {"file": "one"})
            path.write_text(path.read_text().replace("files: []", 'files:\n- "in.txt"').replace(
                "remotes: []", f'remotes:\n- "url": "{place}/src"\n  "dir": "src"'))
            gbuild(workspace, images, "-c", f"src={commit}", str(path), env=ON_HOST)
            # Another day: the source has moved on, and the archive too, which gives the old package no more.
            git_kit.commit(place / "src", {"file": "two"})
            archive._suites["testing"].debs.clear()
            shutil.rmtree(archive.root / "pool")
            repository.publish("2.0")
            (place / "pool").mkdir(mode=0o700)
            yield Recorded(images=images, descriptor=path, report=workspace / "result" / "pkg-res.yml",
                           debs=place / "debs" / "1.0", repository=repository, pool=place / "pool",
                           commit=commit)
    finally:
        archive.close()
        from gitian.images import lxc

        for entry in set((images / "environments").glob("*")) - before:
            lxc.remove(entry)


def test_what_is_missing_is_told_at_once_and_nothing_starts(recorded: Recorded, tmp_path: Path) -> None:
    workspace = recorded.workspace(tmp_path)
    (workspace / "inputs" / "in.txt").write_bytes(b"another input\n")
    done = gbuild(workspace, recorded.images, "--like", str(recorded.report), "pkg.yml", env=recorded.env(), status=19)
    assert "gitian-test-tool" in done.stderr and "1.0" in done.stderr
    assert "in.txt" in done.stderr, "inputs that differ are told in the same breath"
    assert "Starting" not in done.stderr and not (workspace / "result").exists()
    assert not list(workspace.glob("target-*"))


def test_an_old_report_is_rebuilt_from_kept_packages(recorded: Recorded, tmp_path: Path) -> None:
    workspace = recorded.workspace(tmp_path)
    like = ("--like", str(recorded.report), "--debs", str(recorded.debs), "pkg.yml")
    done = gbuild(workspace, recorded.images, *like, env=recorded.env())
    assert "reproduced: tool\n" in done.stdout and "reproduced: packages\n" in done.stdout
    assert "same environment: bookworm-amd64" in done.stdout
    assert report_of(workspace) == recorded.report.read_bytes(), "inputs, environment and outputs, line for line"
    assert (workspace / "build/out/tool").read_text() == "tool 1.0\n"
    assert (workspace / "build/out/in.txt").read_text() == "input\none", "the remote is at its recorded commit"
    # All that it takes is on this machine now: in another workspace nobody is asked, and there is no layer yet.
    again = gbuild(recorded.workspace(tmp_path / "again"), recorded.images, "--like", str(recorded.report), "--offline",
                   "pkg.yml", env=recorded.env())
    assert "reproduced: tool\n" in again.stdout
    assert leftovers(workspace) == []
    # Another commit than the recorded one is not built, whoever asks for it.
    other = git_kit.git(recorded.debs.parent.parent / "src", "rev-parse", "HEAD")
    done = gbuild(workspace, recorded.images, "--like", str(recorded.report), "-c", f"src={other}", "pkg.yml",
                  env=recorded.env(), status=4)
    assert f"recorded {recorded.commit}, here {other}" in done.stderr


def test_what_the_packages_of_an_old_report_change_is_named(recorded: Recorded, tmp_path: Path) -> None:
    """gitian vary: usually the archive's new tool, with the variation of packages the report's."""
    workspace = recorded.workspace(tmp_path)
    done = subprocess.run(
        [SCRIPTS / "gitian", "vary", "--vary", f"packages={recorded.report},umask", "--debs", str(recorded.debs),
         "-c", f"src={recorded.commit}", "--json", "pkg.yml"], cwd=workspace, text=True, capture_output=True,
        env=environment(recorded.images, recorded.env()), stdin=subprocess.DEVNULL, timeout=900)
    assert done.returncode == 31, done.stderr
    found = json.loads(done.stdout)
    assert {one["name"]: one["state"] for one in found["variations"]} == {"umask": "held", "packages": "differs"}
    (cause,) = found["causes"]
    assert cause["variations"] == ["packages"]
    said = {output["path"]: [(one["first"], one["second"]) for one in output["difference"]["findings"]]
            for output in cause["outputs"]}
    assert said["tool"] == [("tool 2.0", "tool 1.0")] and {"tool"} <= said.keys() <= {"tool", "packages"}
    assert leftovers(workspace) == []


@pytest.mark.kvm
def test_the_same_report_is_rebuilt_in_a_virtual_machine(recorded: Recorded, tmp_path: Path) -> None:
    workspace = recorded.workspace(tmp_path)
    done = gbuild(workspace, recorded.images, "--like", str(recorded.report), "--debs", str(recorded.debs), "pkg.yml",
                  env=recorded.env({"USE_LXC": ""}))
    assert "reproduced: tool\n" in done.stdout
    assert report_of(workspace) == recorded.report.read_bytes()


def test_a_package_that_is_another_one_is_named(recorded: Recorded, tmp_path: Path) -> None:
    """Same name, same version, other bytes: it is not taken for the recorded one."""
    workspace = recorded.workspace(tmp_path / "ws")
    swapped = make_deb(tmp_path / "swapped", "gitian-test-tool", "1.0",
                       files={"/usr/bin/gitian-test-tool": b"#!/bin/sh\necho tool 1.0, another one\n"})
    text = recorded.report.read_text()
    own = hashlib.sha256((recorded.debs / swapped.name).read_bytes()).hexdigest()
    unknown = tmp_path / "unknown-res.yml"
    unknown.write_text(text.replace(own, "ab" * 32))
    done = gbuild(workspace, recorded.images, "--like", str(unknown), "--debs", str(recorded.debs), "--debs",
                  str(swapped.parent), "pkg.yml", env=recorded.env(), status=19)
    assert "gitian-test-tool" in done.stderr and "Starting" not in done.stderr
    # A report that names the other package: its environment is had, and the outputs are not those that it records.
    other = tmp_path / "other-res.yml"
    other.write_text(text.replace(own, hashlib.sha256(swapped.read_bytes()).hexdigest()))
    assert other.read_text() != text
    done = gbuild(workspace, recorded.images, "--like", str(other), "--debs", str(swapped.parent), "pkg.yml",
                  env=recorded.env(), status=30)
    assert "differs: tool\n" in done.stdout and "reproduced: packages\n" in done.stdout
    assert "1 of 3" in done.stderr
    compared = subprocess.run([SCRIPTS / "gitian", "environment", "diff", recorded.report, other], text=True,
                              capture_output=True, stdin=subprocess.DEVNULL, timeout=60)
    assert compared.returncode == 1
    assert "gitian-test-tool" in compared.stdout and compared.stdout.count("1.0") >= 1


def test_a_signers_assertion_is_rebuilt(recorded: Recorded, tmp_path: Path) -> None:
    workspace = recorded.workspace(tmp_path)
    place = workspace / "sigs" / "pkg" / "1.0" / "ann"
    place.mkdir(parents=True)
    lines = recorded.report.read_text()
    (place / "pkg-build.assert").write_text(lines + "- release: '1.0'\n- name: pkg\n- type: build\n- optionals:\n")
    done = gbuild(workspace, recorded.images, "--like", "ann", "--debs", str(recorded.debs), "pkg.yml",
                  env=recorded.env())
    assert "reproduced: tool\n" in done.stdout
    assert "does not count: MISSING SIGNATURE" in done.stderr
    nobody = gbuild(workspace, recorded.images, "--like", "bob", "pkg.yml", env=recorded.env(), status=2)
    assert "'bob' is no file, and no signer" in nobody.stderr


def test_the_workspaces_own_report_is_kept(recorded: Recorded, tmp_path: Path) -> None:
    workspace = recorded.workspace(tmp_path)
    (workspace / "result").mkdir()
    own = workspace / "result" / "pkg-res.yml"
    shutil.copy(recorded.report, own)
    text = own.read_text()
    tool = hashlib.sha256(b"tool 1.0\n").hexdigest()
    own.write_text(text.replace(tool, "0" * 64))
    gbuild(workspace, recorded.images, "--like", str(own), "--debs", str(recorded.debs), "pkg.yml", env=recorded.env(),
           status=30)
    assert (workspace / "result" / "pkg-like.yml").read_text() == text.replace(tool, "0" * 64)
    assert own.read_bytes() == recorded.report.read_bytes()
    # The same again would hold the rebuild against itself.
    done = gbuild(workspace, recorded.images, "--like", str(own), "pkg.yml", env=recorded.env(), status=2)
    assert "pkg-like.yml" in done.stderr
    assert (workspace / "result" / "pkg-like.yml").read_text() == text.replace(tool, "0" * 64)


def snapshot(workspace: Path, images: Path, *words: str, env: Mapping[str, str]) -> None:
    done = subprocess.run([SCRIPTS / "gitian", "environment", "snapshot", *words], cwd=workspace, text=True,
                          env=environment(images, env), capture_output=True, stdin=subprocess.DEVNULL, timeout=600)
    assert done.returncode == 0, f"{done.returncode}\n{done.stdout}\n{done.stderr}"


@pytest.fixture(scope="module")
def blessed(recorded: Recorded, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The environment of the day with the tool's version 2.0, which the archive has moved on from."""
    workspace = recorded.workspace(tmp_path_factory.mktemp("blessed") / "ws")
    snapshot(workspace, recorded.images, "pkg.yml", "-o", "env.json", env=recorded.env())
    assert not (workspace / "result").exists(), "nothing was built"
    recorded.repository.publish("3.0")
    return workspace / "env.json"


def test_a_blessed_environment_and_no_other(recorded: Recorded, blessed: Path, tmp_path: Path) -> None:
    """snapshot, then builds in what it recorded, however the archive has changed; nothing else is let in."""
    workspace = recorded.workspace(tmp_path)
    images, env = recorded.images, recorded.env()
    (entry,) = json.loads(blessed.read_text())["environments"]
    assert (entry["distro"], entry["suite"], entry["architecture"]) == ("debian", "bookworm", "amd64")
    assert recorded.repository.source in entry["sources"] and len(entry["base"]["sha256"]) == 64
    tools = [one for one in entry["packages"] if one["name"] == "gitian-test-tool"]
    assert [one["version"] for one in tools] == ["2.0"]

    commit = ("-c", f"src={recorded.commit}")
    gbuild(workspace, images, "--environment", str(blessed), "--fail-closed", *commit, "pkg.yml", env=env)
    assert (workspace / "build/out/tool").read_text() == "tool 2.0\n"

    # A descriptor that asks for more than the environment has is refused.
    text = (workspace / "pkg.yml").read_text()
    (workspace / "more.yml").write_text(text.replace("packages: []", 'packages:\n- "cowsay"'))
    done = gbuild(workspace, images, "--environment", str(blessed), *commit, "more.yml", env=env, status=19)
    assert "cowsay" in done.stderr
    # So is a root filesystem that is not the blessed one.
    document = json.loads(blessed.read_text())
    document["environments"][0]["base"]["sha256"] = "0" * 64
    (workspace / "other.json").write_text(json.dumps(document))
    done = gbuild(workspace, images, "--environment", "other.json", *commit, "pkg.yml", env=env, status=19)
    assert "0" * 64 in done.stderr and entry["base"]["sha256"] in done.stderr


def test_failing_closed_nothing_else_is_fetched(recorded: Recorded, blessed: Path, tmp_path: Path) -> None:
    """A descriptor that adds a source of its own, and has root in the guest, gets nothing from there."""
    workspace = recorded.workspace(tmp_path / "ws")
    images, env = recorded.images, recorded.env()
    seen: list[str] = []
    evil = Archive(tmp_path / "evil")
    try:
        evil.add_suite("testing")
        evil.add_deb(make_deb(tmp_path / "debs", "gitian-test-evil", "9.0"), "testing")
        # A newer one of what is in the environment, too.
        evil.add_deb(make_deb(tmp_path / "debs", "gitian-test-tool", "9.0"), "testing")
        evil.publish()
        with evil.serve(seen=seen) as address:
            line = f"deb [trusted=yes] http://10.0.2.2:{address.rsplit(':', 1)[1]} testing main"
            text = (workspace / "pkg.yml").read_text()
            (workspace / "asks.yml").write_text(text.replace(recorded.repository.source, line).replace(
                '- "gitian-test-tool"', '- "gitian-test-evil"'))
            done = gbuild(workspace, images, "--environment", str(blessed), "--fail-closed", "-c",
                          f"src={recorded.commit}", "asks.yml", env=env, status=19)
            assert "gitian-test-evil" in done.stderr
            (workspace / "tries.yml").write_text(text.replace(recorded.repository.source, line).replace(
                "script: |\n", "sudo: true\nscript: |\n"
                f"  echo '{line}' | sudo tee /etc/apt/sources.list\n"
                "  ! sudo apt-get -o APT::Update::Error-Mode=any -o Acquire::Retries=0 update\n"
                "  ! sudo apt-get -y install gitian-test-evil\n"))
            gbuild(workspace, images, "--environment", str(blessed), "--fail-closed", "--allow-sudo", "-c",
                   f"src={recorded.commit}", "tries.yml", env=env)
            assert (workspace / "build/out/tool").read_text().startswith("tool ")
            assert seen == [], "the archive was asked"
    finally:
        evil.close()


def test_options_that_do_not_go_together(tmp_path: Path, images: Path) -> None:
    path = str(descriptor(tmp_path, "echo 1 > $OUTDIR/a"))
    for words, said in ((("--like", "x", "--environment", "y"), "Leave one"), (("--fail-closed",), "--environment"),
                        (("--release", "1.0"), "--like"), (("--like", "no/such.yml"), "no file 'no/such.yml'"),
                        (("--environment", path, "--upgrade"), "--upgrade")):
        done = gbuild(tmp_path, images, *words, path, status=2)
        assert said in done.stderr, done.stderr
