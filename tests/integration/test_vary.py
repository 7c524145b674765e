"""gitian vary in real guests: planted faults are found and named alone, clean builds hold, nothing is left behind."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.fakes.archive import Archive
from tests.integration.test_gbuild import HEAD, SCRIPTS, descriptor, environment, gbuild, leftovers, report_of
from tests.integration.test_layers import ON_HOST, Repository

ROOT = Path(__file__).resolve().parents[2]

#: output -> (the variation that must be named for it, alone; what writes it)
FAULTS: dict[str, tuple[str, str]] = {
    "date": ("clock", "date -u +%Y-%m > OUT"),
    "seconds": ("clock", "sleep 1; date +%s > OUT"),
    "order.tar": ("file-order", "mkdir t; for i in $(seq 40); do echo $i > t/f$i; done; find t -type f | "
                                "tar --mtime=@0 --owner=0 --group=0 --mode=644 -cf OUT -T -"),
    "hostname": ("hostname", "hostname > OUT"),
    "user": ("user", "id -un > OUT"),
    "home": ("home", "echo $HOME > OUT"),
    "debug.o": ("path", "echo 'int main(void) { return 0; }' > c.c; gcc -g -c $PWD/c.c -o OUT"),
    "sorted": ("locale", r"printf 'a\nB\n' | sort > OUT"),
    "nproc": ("cores", "nproc > OUT"),
    "umask.tar": ("umask", "touch m; tar --mtime=@0 --owner=0 --group=0 -cf OUT m"),
    "uid.tar": ("uid", "touch u; tar --mtime=@0 --mode=644 --numeric-owner -cf OUT u"),
    "pid": ("pids", "echo $$ > OUT"),
    "zone": ("timezone", "date -d @0 +%H:%M > OUT"),
    "pointer": ("aslr", r"printf '#include <stdio.h>\nint main(void) { int a; return printf(\"%%p\", (void *)&a); }'"
                        " > p.c; gcc -O1 -o p p.c; ./p > OUT || :"),
}
RANDOM = "head -c 8 /dev/urandom | od -An -tx1 > $OUTDIR/random\n"
CLEAN = "echo the same > $OUTDIR/same\n"


def vary(workspace: Path, images: Path, *arguments: str, status: int = 0, env: Mapping[str, str] | None = None,
         timeout: float = 600) -> subprocess.CompletedProcess[str]:
    done = subprocess.run([SCRIPTS / "gitian", "vary", *arguments], cwd=workspace, env=environment(images, env),
                          text=True, capture_output=True, stdin=subprocess.DEVNULL, timeout=timeout)
    assert done.returncode == status, f"{done.returncode}\n{done.stdout}\n{done.stderr}"
    return done


def document(workspace: Path, images: Path, *arguments: str, status: int = 0,
             env: Mapping[str, str] | None = None) -> dict[str, Any]:
    found = json.loads(vary(workspace, images, "--json", "-q", *arguments, status=status, env=env).stdout)
    assert isinstance(found, dict)
    return found


def states(found: Mapping[str, Any]) -> dict[str, str]:
    return {one["name"]: one["state"] for one in found["variations"]}


def causes(found: Mapping[str, Any]) -> dict[str, list[str]]:
    """Output -> the causes named for it, each with its variations joined by a plus."""
    told: dict[str, list[str]] = {}
    for cause in found["causes"]:
        for output in cause["outputs"]:
            told.setdefault(output["path"], []).append("+".join(cause["variations"]))
    return told


@pytest.fixture
def workspace(tmp_path: Path) -> Path:
    (tmp_path / "inputs").mkdir()
    return tmp_path


@pytest.mark.lxc
def test_every_planted_fault_is_named_alone(workspace: Path, images: Path) -> None:
    script = "".join(f"( {words.replace('OUT', '$OUTDIR/' + name)} )\n" for name, (_, words) in FAULTS.items())
    path = descriptor(workspace, script + RANDOM + CLEAN)
    page = workspace / "page.html"
    found = document(workspace, images, "--html", str(page), str(path), status=31)
    assert causes(found) == {name: [variation] for name, (variation, _) in FAULTS.items()}
    assert [one["path"] for one in found["random"]] == ["random"]
    expected = {variation for variation, _ in FAULTS.values()}
    told = states(found)
    assert {name for name, state in told.items() if state == "differs"} == expected
    # A tmpfs lists directories in another order, unless the workspace is on one too.
    assert told.pop("filesystem") in ("differs as another does", "held")
    assert {name for name, state in told.items() if state == "held"} == {"domain", "environment", "memory", "shell"}
    assert {name for name, state in told.items() if state == "not tried"} == {"inputs", "cpu", "kernel", "cold"}
    for one in found["variations"]:
        if one["state"] != "not tried":
            probe = one["probes"]["bookworm-amd64"]
            assert probe["usual"] != probe["varied"], one["name"]
    hints = {output["path"]: [hint["cause"] for hint in output["difference"]["hints"]]
             for cause in found["causes"] for output in cause["outputs"]}
    assert "embedded time" in hints["date"] and "path" in hints["debug.o"] and "umask" in hints["umask.tar"]
    assert all(hints.values()), "each has a hint"
    text = page.read_text()
    assert "Not held" in text and "debug.o" in text and "<script" not in text


@pytest.mark.lxc
def test_a_clean_build_holds_and_nothing_of_the_workspace_is_touched(workspace: Path, images: Path) -> None:
    (workspace / "inputs" / "in.txt").write_text("input\n")
    path = descriptor(workspace, """
cat in.txt > $OUTDIR/copy
mkdir -p $OUTDIR/sub $GBUILD_COMMON_CACHE
ls $GBUILD_COMMON_CACHE | LC_ALL=C sort > $OUTDIR/sub/cached
echo more >> $GBUILD_COMMON_CACHE/b
""", head=HEAD.replace("files: []", 'files:\n- "in.txt"') + "enable_cache: true\n")
    gbuild(workspace, images, str(path))
    (workspace / "cache" / "common" / "a").write_text("a\n")

    def state() -> dict[str, bytes]:
        return {str(entry.relative_to(workspace)): entry.read_bytes()
                for top in ("build", "result", "cache", "inputs") for entry in (workspace / top).rglob("*")
                if entry.is_file()}

    before = state()
    done = vary(workspace, images, str(path))
    assert state() == before
    assert "Held: all 2 outputs" in done.stderr
    assert len([line for line in done.stderr.splitlines() if line.startswith("Build ")]) == 2, "one build, two lines"
    assert "inputs" in done.stdout and "differs" not in done.stdout
    # What gbuild has left can still be looked at, and the outputs of the usual build lie aside.
    (reference,) = (workspace / "var" / "vary" / "builds").iterdir()
    assert (reference / "sub" / "cached").read_text() == "a\nb\n"
    assert not leftovers(workspace)


@pytest.mark.lxc
def test_two_faults_in_one_output_are_both_named(workspace: Path, images: Path) -> None:
    path = descriptor(workspace, "{ hostname; date -u +%Y; } > $OUTDIR/both\n" + CLEAN)
    found = document(workspace, images, "--vary", "clock,hostname,umask,shell", str(path), status=31)
    assert sorted(causes(found)["both"]) == ["clock", "hostname"]
    assert states(found) == {"clock": "differs", "hostname": "differs", "umask": "held", "shell": "held"}
    # Also where one of them makes it another one in every build.
    path = descriptor(workspace, 'echo "$(date) by $(id -un)" > $OUTDIR/line\n'
                                 "{ od -An -tx1 -N8 /dev/urandom; nproc; } > $OUTDIR/lines\n" + CLEAN)
    found = document(workspace, images, "--vary", "clock,user,cores,umask", str(path), status=31)
    told = causes(found)
    assert sorted(told.pop("line")) == ["clock", "user"] and told == {"lines": ["cores"]}
    assert [one["path"] for one in found["random"]] == ["lines"]


@pytest.mark.lxc
def test_what_takes_two_variations_is_told_as_a_pair_and_a_build_that_fails_as_such(workspace: Path,
                                                                                    images: Path) -> None:
    path = descriptor(workspace, """
if [ "$(id -un)$(hostname)" = rebuilderelsewhere ]; then echo both; fi > $OUTDIR/pair
[ "$(umask)" = 0002 ]
date -d @0 +%z > $OUTDIR/zone
""", head=HEAD.replace('- "amd64"', '- "amd64"\n- "linux64"'))
    found = document(workspace, images, "--vary", "user,hostname,umask,timezone,domain", str(path), status=31)
    told = causes(found)
    assert told == {f"bookworm-{arch}/{name}": [cause] for arch in ("amd64", "linux64")
                    for name, cause in (("pair", "user+hostname"), ("zone", "timezone"))}
    (failure,) = [cause for cause in found["causes"] if cause["fails"]]
    assert failure["variations"] == ["umask"] and "failed with status 1" in failure["fails"]
    assert Path(failure["log"]).is_file()
    assert states(found) == {"user": "differs", "hostname": "differs", "umask": "build fails", "timezone": "differs",
                             "domain": "held"}
    one = document(workspace, images, "--vary", "timezone", "--target", "bookworm-linux64", str(path), status=31)
    assert one["targets"] == ["bookworm-linux64"] and causes(one) == {"zone": ["timezone"]}


@pytest.mark.lxc
def test_a_spent_budget_says_what_is_left(workspace: Path, images: Path) -> None:
    path = descriptor(workspace, "hostname > $OUTDIR/name\n")
    done = vary(workspace, images, "--budget", "3", str(path), status=31)
    assert "not found out: name: something among clock" in done.stdout
    assert "3 builds of bookworm-amd64" in done.stdout and "The budget of 3 builds is spent" in done.stdout
    found = document(workspace, images, "--budget", "3", str(path), status=31)
    assert found["unfinished"] and set(states(found).values()) == {"undecided", "not tried"}


@pytest.mark.lxc
def test_what_has_no_effect_and_what_does_not_work_here_is_said(workspace: Path, images: Path) -> None:
    path = descriptor(workspace, CLEAN)
    refused = vary(workspace, images, "--vary", "cpu,clock", str(path), status=2)
    assert "'cpu'" in refused.stderr and "virtual machine" in refused.stderr and not (workspace / "var/vary").exists()
    vary(workspace, images, "--vary", "clock", "--target", "bookworm-i386", str(path), status=2)
    vary(workspace, images, "--vary", "packages", str(path), status=2)
    # The layer has just been made of what the archive has: there is nothing to upgrade.
    found = document(workspace, images, "--vary", "upgrade,umask", str(path), status=31)
    assert states(found) == {"upgrade": "no effect", "umask": "held"}
    broken = descriptor(workspace, "exit 3", name="broken")
    assert "status 3" in vary(workspace, images, str(broken), status=9).stderr


@pytest.mark.lxc
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_stopped_in_the_middle(workspace: Path, images: Path, number: int) -> None:
    path = descriptor(workspace, "echo 1 > $OUTDIR/a\n")
    gbuild(workspace, images, str(path))
    expected = report_of(workspace)
    slow = descriptor(workspace, "echo 1 > $OUTDIR/a; sleep 300\n", name="slow")
    process = subprocess.Popen([SCRIPTS / "gitian", "vary", str(slow)], cwd=workspace, env=environment(images),
                               stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
                               start_new_session=True)
    try:
        log = workspace / "var" / "vary" / "build-1-bookworm-amd64.log"
        end = time.monotonic() + 120
        while not (log.exists() and b"sleep 300" in log.read_bytes()):
            assert time.monotonic() < end and process.poll() is None
            time.sleep(0.1)
        os.kill(process.pid, number)
        assert process.wait(timeout=120) == (130 if number == signal.SIGINT else -number)
    finally:
        process.kill()
        process.wait()
        assert process.stderr is not None
        process.stderr.close()
    if number == signal.SIGINT:
        assert not leftovers(workspace)
    vary(workspace, images, "--vary", "umask", "--repeat", "0", str(path))
    assert not leftovers(workspace)
    assert report_of(workspace) == expected


@pytest.mark.lxc
def test_packages_are_installed_once_and_what_an_upgrade_changes_is_named(workspace: Path, images: Path) -> None:
    archive = Archive(workspace / "archive")
    try:
        archive.add_suite("testing")
        with archive.serve() as address:
            repository = Repository(archive, workspace / "debs", address)
            repository.publish("1.0")
            path = descriptor(workspace, "gitian-test-tool > $OUTDIR/tool\n" + CLEAN, extra=(
                f'repositories:\n- distribution: "testing"\n  source: "{repository.source}"\n'
                '  packages:\n  - "gitian-test-tool"\n'))
            done = vary(workspace, images, "--vary", "umask", str(path), env=ON_HOST)
            assert "(log in var/vary/install-1-bookworm-amd64.log)" in done.stderr
            installed = "".join(log.read_text() for log in (workspace / "var/vary").glob("install-*.log"))
            assert installed.count("--- Installing additional packages") == 1
            assert "3 builds of bookworm-amd64" in done.stdout
            # The layer stays what it was; the archive has a newer package now.
            repository.publish("2.0")
            found = document(workspace, images, "--offline", "--vary", "upgrade,umask", str(path), status=31,
                             env=ON_HOST)
    finally:
        archive.close()
    assert causes(found) == {"tool": ["upgrade"]}
    assert states(found) == {"upgrade": "differs", "umask": "held"}
    (output,) = found["causes"][0]["outputs"]
    assert [(one["first"], one["second"]) for one in output["difference"]["findings"]] == [("tool 1.0", "tool 2.0")]


@pytest.mark.lxc
def test_gnu_hello_holds(workspace: Path, images: Path) -> None:
    """The demo's program, whose script once hung on time zone and path: docs/explanation/vary-review.md."""
    sources = json.loads((images / "base-bookworm-amd64.json").read_text())["sources"]
    archive = next(word for line in sources for word in line.split() if word.startswith(("http://", "https://")))
    name = "hello_2.10.orig.tar.gz"  # the script checks its hash
    with urllib.request.urlopen(f"{archive.rstrip('/')}/pool/main/h/hello/{name}", timeout=120) as answer:
        (workspace / "inputs" / name).write_bytes(answer.read(10 * 2**20))
    found = document(workspace, images, str(ROOT / "share/examples/hello.yml"))
    assert found["held"] and found["builds"] == 3
    assert states(found)["timezone"] == states(found)["path"] == states(found)["inputs"] == "held"


@pytest.mark.kvm
def test_a_processor_s_features_are_named_in_a_virtual_machine(workspace: Path, images: Path) -> None:
    path = descriptor(workspace, "grep -m 1 -o -w sse4_2 /proc/cpuinfo > $OUTDIR/cpu || echo none > $OUTDIR/cpu\n"
                                 "umask > $OUTDIR/umask\n")
    found = document(workspace, images, "--backend", "kvm", "-m", "1024", "--repeat", "0", "--vary",
                     "cpu,umask,hostname", str(path), status=31, env={"USE_LXC": "0"})
    assert causes(found) == {"cpu": ["cpu"], "umask": ["umask"]}
    assert states(found) == {"cpu": "differs", "umask": "differs", "hostname": "held"}
    kernel = vary(workspace, images, "--backend", "kvm", "--vary", "kernel", str(path), status=2, env={"USE_LXC": "0"})
    assert "no other kernel" in kernel.stderr
