"""gbuild in real LXC guests: the same report every time, failures that say so, nothing left behind."""

from __future__ import annotations

import contextlib
import hashlib
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path

import pytest
import yaml

from tests.integration import git_kit

pytestmark = pytest.mark.lxc

SCRIPTS = Path(sys.executable).parent

HEAD = """\
---
name: "{name}"
distro: "debian"
suites:
- "bookworm"
architectures:
- "amd64"
packages: []
reference_datetime: "2013-06-01 00:00:00"
remotes: []
files: []
"""


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def descriptor(where: Path, script: str, *, name: str = "pkg", extra: str = "", head: str = HEAD) -> Path:
    path = where / f"{name}.yml"
    body = "".join(f"  {line}\n" for line in script.strip("\n").splitlines())
    path.write_text(head.format(name=name) + extra + "script: |\n" + body)
    return path


def environment(images: Path, extra: Mapping[str, str] | None = None) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items()
            if name in ("HOME", "USER", "TMPDIR", "LANG") or name.endswith("_proxy")}
    return {**kept, "PATH": f"{SCRIPTS}:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "USE_LXC": "1",
            "GITIAN_IMAGES": str(images), **(extra or {})}


def gbuild(workspace: Path, images: Path, *arguments: str, env: Mapping[str, str] | None = None,
           status: int = 0) -> subprocess.CompletedProcess[str]:
    done = subprocess.run([SCRIPTS / "gbuild", *arguments], cwd=workspace, env=environment(images, env), text=True,
                          capture_output=True, stdin=subprocess.DEVNULL, timeout=600)
    assert done.returncode == status, f"{done.returncode}\n{done.stdout}\n{done.stderr}"
    return done


def start(workspace: Path, images: Path, *arguments: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen([SCRIPTS / "gbuild", *arguments], cwd=workspace, env=environment(images),
                            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
                            start_new_session=True)


def report_of(workspace: Path, name: str = "pkg") -> bytes:
    return (workspace / "result" / f"{name}-res.yml").read_bytes()


class Omap(yaml.SafeLoader):
    """Reads the reports' ordered maps as dictionaries, by PyYAML's own means."""


Omap.add_constructor("tag:yaml.org,2002:omap", lambda loader, node: {
    key: value for pair in node.value for key, value in loader.construct_mapping(pair, deep=True).items()})


def leftovers(workspace: Path) -> list[str]:
    """Processes and mounts that have to do with this workspace, save our own."""
    found = []
    here = str(workspace)
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            words = (process / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            if here in words and int(process.name) != os.getpid():
                found.append(f"process {process.name}: {words}")
    with open("/proc/self/mounts") as mounts:
        found += [f"mount: {line.strip()}" for line in mounts if here in line]
    return found


@pytest.fixture
def workspace(tmp_path: Path) -> Path:
    (tmp_path / "inputs").mkdir()
    return tmp_path


def test_the_report_is_what_the_script_made_and_the_same_again(workspace: Path, images: Path) -> None:
    (workspace / "inputs" / "in.txt").write_bytes(b"input\n")
    path = descriptor(workspace, """
mkdir -p $OUTDIR/sub
cp in.txt $OUTDIR/copy.txt
echo hello > $OUTDIR/sub/hello.txt
echo "$GBUILD_BITS $NUM_PROCS $NUM_MEM ${MAKEOPTS[@]} ${#MAKEOPTS[@]} $REFERENCE_DATETIME" > $OUTDIR/.prelude
umask >> $OUTDIR/.prelude
test "$(cat)" = ""
""", head=HEAD.replace("files: []", 'files:\n- "in.txt"'))
    first = gbuild(workspace, images, "-j", "3", "-m", "1500", str(path))
    prelude = b"64 3 1500 -j3 1 2013-06-01 00:00:00\n0002\n"
    out = (f"{sha256(prelude)}  .prelude\n{sha256(b'input' + bytes([10]))}  copy.txt\n"
           f"{sha256(b'hello' + bytes([10]))}  sub/hello.txt\n")
    data = report_of(workspace)
    report = yaml.load(data, Omap)
    assert list(report) == ["out_manifest", "in_manifest", "base_manifests", "cache_common_manifest",
                            "cache_package_manifest"]
    assert report["out_manifest"] == out
    assert report["in_manifest"] == (f"{sha256(path.read_bytes())}  pkg-desc.yml\n"
                                     f"{sha256(b'input' + bytes([10]))}  in.txt\n")
    assert list(report["base_manifests"]) == ["bookworm-amd64"]
    lines = report["base_manifests"]["bookworm-amd64"].splitlines()
    names = [line.split("  ")[1] for line in lines]
    assert names == sorted(names)
    assert any(name.startswith("libc6_") for name in names)
    assert all(len(line.split("  ")[0]) == 64 for line in lines)
    assert first.stdout == out + f"{sha256(data)}  pkg-res.yml\n"
    assert (workspace / "var" / "base-bookworm-amd64.manifest").read_text() == \
        report["base_manifests"]["bookworm-amd64"]
    assert (workspace / "build" / "out" / "copy.txt").read_bytes() == b"input\n"
    assert b"+ cp in.txt" in (workspace / "var" / "build.log").read_bytes()

    gbuild(workspace, images, "-j", "3", "-m", "1500", str(path))
    assert report_of(workspace) == data
    assert leftovers(workspace) == []


def test_a_script_that_fails_fails_the_build(workspace: Path, images: Path) -> None:
    good = descriptor(workspace, "echo 1 > $OUTDIR/a")
    gbuild(workspace, images, str(good))
    assert report_of(workspace)
    bad = descriptor(workspace, """
echo 1 > $OUTDIR/a
printf 'the \\033[31mreason\\n' | tee /dev/stderr
false
echo not reached
""")
    for extra in ({}, {"CI": "1"}):
        done = gbuild(workspace, images, str(bad), env=extra, status=9)
        assert "reason" in done.stderr
        assert str(workspace / "var" / "build.log") in done.stderr
        assert "\x1b" not in done.stderr + done.stdout
        assert "not reached" not in done.stdout
        assert not (workspace / "result" / "pkg-res.yml").exists()
    assert leftovers(workspace) == []


def test_a_busy_workspace_says_so_and_two_workspaces_do_not_disturb_each_other(tmp_path: Path, images: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    for where in (one, two):
        where.mkdir()
        descriptor(where, "sleep 6; echo 1 > $OUTDIR/a")
    quick = descriptor(tmp_path, "echo 1 > $OUTDIR/a", name="quick")
    running = [start(where, images, "pkg.yml") for where in (one, two)]
    try:
        while not (one / "var" / "lock").exists():
            assert running[0].poll() is None
            time.sleep(0.05)
        time.sleep(0.3)
        done = gbuild(one, images, str(quick), status=11)
        assert "gbuild" in done.stderr or str(running[0].pid) in done.stderr
        assert [process.wait(300) for process in running] == [0, 0]
    finally:
        for process in running:
            process.kill()
            process.wait()
    assert report_of(one) == report_of(two)


def test_remotes_tags_caches_and_the_date_of_the_last_remote(workspace: Path, images: Path) -> None:
    git_env = {**os.environ, "GIT_CONFIG_GLOBAL": "/dev/null", "GIT_AUTHOR_NAME": "a", "GIT_AUTHOR_EMAIL": "a@b",
               "GIT_COMMITTER_NAME": "a", "GIT_COMMITTER_EMAIL": "a@b"}
    commits = {}
    for name, date in (("first", "2020-01-02T03:04:05+00:00"), ("last", "2021-05-06T09:08:09+02:00")):
        repository = workspace / "repos" / name
        repository.mkdir(parents=True)
        env = {**git_env, "GIT_AUTHOR_DATE": date, "GIT_COMMITTER_DATE": "2022-01-01T00:00:00+00:00"}
        (repository / "file").write_text(name)
        for command in (["init", "-q", "-b", "main"], ["add", "."], ["commit", "-q", "-m", "m"],
                        ["tag", "-a", "-m", "t", "v1"]):
            subprocess.run(["git", *command], cwd=repository, env=env, check=True)
        commits[name] = subprocess.run(["git", "rev-parse", "HEAD"], cwd=repository, env=env, check=True,
                                       capture_output=True, text=True).stdout.strip()
    remotes = "".join(f'- "url": "{workspace}/repos/{name}"\n  "dir": "{name}"\n' for name in ("first", "last"))
    path = descriptor(workspace, """
cat first/file last/file > $OUTDIR/files
git -C last log -1 --format=%H >> $OUTDIR/files
echo "$REFERENCE_DATETIME|$REFERENCE_DATE|$REFERENCE_TIME" > $OUTDIR/date
cat $GBUILD_PACKAGE_CACHE/count 2>/dev/null > count || echo 0 > count
expr $(cat count) + 1 > $GBUILD_PACKAGE_CACHE/count || true
echo shared > $GBUILD_COMMON_CACHE/shared
test "$GBUILD_CACHE_ENABLED" = 1
""", head=HEAD.replace('reference_datetime: "2013-06-01 00:00:00"\n', "")
                      .replace("remotes: []", "remotes:\n" + remotes),
                      extra="enable_cache: true\n")
    gbuild(workspace, images, "-c", f"first=v1,last={commits['last']}", str(path))
    report = yaml.load(report_of(workspace), Omap)
    assert report["in_manifest"].splitlines()[1] == f"git:{commits['first']} firstgit:{commits['last']} last"
    assert (workspace / "build/out/date").read_text() == "2021-05-06 07:08:09|2021-05-06|07:08:09\n"
    assert (workspace / "build/out/files").read_text() == f"firstlast{commits['last']}\n"
    assert report["cache_package_manifest"] == f"{sha256(b'1' + bytes([10]))}  count\n"
    assert report["cache_common_manifest"] == f"{sha256(b'shared' + bytes([10]))}  shared\n"
    gbuild(workspace, images, "-o", "-c", f"first=v1,last={commits['last']}", str(path))
    assert (workspace / "cache/pkg/count").read_text() == "1\n"
    gbuild(workspace, images, "--skip-fetch", "-c", f"first=v1,last={commits['last']}", str(path))
    assert (workspace / "cache/pkg/count").read_text() == "2\n"
    absent = "0123456789abcdef0123456789abcdef01234567"
    gbuild(workspace, images, "--skip-fetch", "-c", f"first=v1,last={absent}", str(path), status=4)


@pytest.mark.skipif(os.geteuid() != 0, reason="what sudo tells is believed of root only")
def test_through_sudo_what_is_for_the_user_is_the_users(workspace: Path, images: Path) -> None:
    git_kit.make(workspace / "repos" / "one", {"file": "text"}, tag="v1")
    path = descriptor(workspace, "cp one/file $OUTDIR; echo 1 > $GBUILD_PACKAGE_CACHE/cached",
                      head=HEAD.replace("remotes: []", f"remotes:\n- url: {workspace}/repos/one\n  dir: one\n"),
                      extra="enable_cache: true\n")
    sudo = {"SUDO_UID": "12345", "SUDO_GID": "23456"}
    for _ in range(2):  # what is the user's is no obstacle the next time
        gbuild(workspace, images, "-c", "one=v1", str(path), env=sudo)
        mine = [place for name in ("build", "result", "cache", "inputs")
                for place in ((workspace / name), *(workspace / name).rglob("*"))]
        assert {(place.lstat().st_uid, place.lstat().st_gid) for place in mine} == {(12345, 23456)}
        assert {"file", "cached", "pkg-res.yml", "HEAD"} <= {place.name for place in mine}
    gbuild(workspace, images, "-c", "one=v1", str(descriptor(workspace, "false")), env=sudo, status=2)
    gbuild(workspace, images, str(descriptor(workspace, "false")), env=sudo, status=9)
    assert (workspace / "build" / "out").stat().st_uid == 12345


def test_packages_multiarch_alternatives_and_sudo(workspace: Path, images: Path) -> None:
    path = descriptor(workspace, """
dpkg --print-foreign-architectures > $OUTDIR/foreign
command -v hello > $OUTDIR/hello
readlink /etc/alternatives/awk > $OUTDIR/awk
if sudo -n id -u > $OUTDIR/sudo 2>/dev/null; then :; else echo no > $OUTDIR/sudo; fi
""", head=HEAD.replace("packages: []", 'packages:\n- "hello"\n- "original-awk"'),
                      extra='multiarch:\n- "i386"\nalternatives:\n- package: "awk"\n  path: "/usr/bin/original-awk"\n'
                            "sudo: true\n")
    gbuild(workspace, images, str(path))
    out = workspace / "build/out"
    assert (out / "foreign").read_text() == "i386\n"
    assert (out / "hello").read_text() == "/usr/bin/hello\n"
    assert (out / "awk").read_text() == "/usr/bin/original-awk\n"
    assert (out / "sudo").read_text() == "no\n"
    assert "  hello_2.10-" in (workspace / "var/base-bookworm-amd64.manifest").read_text()
    gbuild(workspace, images, "--allow-sudo", str(path))
    assert (out / "sudo").read_text() == "0\n"


def test_what_comes_out_of_a_guest_is_not_trusted(workspace: Path, images: Path) -> None:
    secret = workspace / "secret"
    secret.write_text("precious")
    for script in ("ln -s /etc/passwd $OUTDIR/link", "ln -s ../../secret $OUTDIR/link", "mkfifo $OUTDIR/pipe",
                   "echo 1 > \"$OUTDIR/a'b\""):
        done = gbuild(workspace, images, str(descriptor(workspace, script)), status=10)
        assert "Traceback" not in done.stderr
        assert not (workspace / "result" / "pkg-res.yml").exists()
    assert secret.read_text() == "precious"


def test_unknown_packages_and_missing_inputs_are_named(workspace: Path, images: Path) -> None:
    done = gbuild(workspace, images, str(descriptor(
        workspace, "true", head=HEAD.replace("packages: []", 'packages:\n- "no-such-package-here"'))), status=12)
    assert "no-such-package-here" in done.stderr
    done = gbuild(workspace, images, str(descriptor(
        workspace, "true", head=HEAD.replace("files: []", 'files:\n- "absent.tar.gz"'))), status=4)
    assert "absent.tar.gz" in done.stderr
    done = gbuild(workspace, images, str(descriptor(
        workspace, "true", head=HEAD.replace("bookworm", "nosuchsuite"))), status=7)
    assert "make-base-vm" in done.stderr


def test_killed_at_ten_moments_the_next_build_is_clean_and_the_same(workspace: Path, images: Path) -> None:
    path = descriptor(workspace, "sleep 1; echo 1 > $OUTDIR/a")
    gbuild(workspace, images, str(path))
    expected = report_of(workspace)
    chance = random.Random(20131)
    numbers = [signal.SIGINT, signal.SIGTERM, signal.SIGKILL] * 3 + [signal.SIGKILL]
    for number in numbers:
        process = start(workspace, images, str(path))
        time.sleep(chance.uniform(0.2, 4.0))
        with contextlib.suppress(ProcessLookupError):
            process.send_signal(number)
        status = process.wait(120)
        if number != signal.SIGKILL and status != 0:
            # In its first and last moments it dies of the signal itself, which to a shell is the same.
            assert status in (128 + number, -number)
            assert leftovers(workspace) == []
        if (workspace / "result" / "pkg-res.yml").exists():  # the signal came after the report was complete
            assert report_of(workspace) == expected
        else:
            assert status != 0
    gbuild(workspace, images, str(path))
    assert report_of(workspace) == expected
    assert leftovers(workspace) == []
    assert not [entry.name for entry in (workspace / "var" / "tmp").glob("[!.]*")]


def test_two_architectures_in_one_descriptor(workspace: Path, images_i386: Path) -> None:
    path = descriptor(workspace, """
uname -m > $OUTDIR/machine-$GBUILD_BITS
dpkg --print-architecture > $OUTDIR/dpkg-$GBUILD_BITS
echo $GBUILD_BITS > $OUTDIR/same-path
echo same > $OUTDIR/same
""", head=HEAD.replace('- "amd64"', '- "i386"\n- "amd64"'))
    done = gbuild(workspace, images_i386, str(path))
    out = workspace / "build/out"
    assert {name: (out / name).read_text().strip() for name in os.listdir(out)} == {
        "machine-32": "i686", "machine-64": "x86_64", "dpkg-32": "i386", "dpkg-64": "amd64", "same-path": "64",
        "same": "same"}
    assert "'same-path' was made by bookworm-i386 and by bookworm-amd64" in done.stderr
    assert "'same' was made" not in done.stderr
    report = yaml.load(report_of(workspace), Omap)
    assert list(report["base_manifests"]) == ["bookworm-i386", "bookworm-amd64"]
    assert "_i386.deb" in report["base_manifests"]["bookworm-i386"]
