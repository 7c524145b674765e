"""Variations: how they are chosen, what a build with them is given, and that the wrapper is a script for every set."""

from __future__ import annotations

import itertools
import json
import random
import re
import subprocess
from dataclasses import fields, replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from gitian.build.script import build_script, probe_script
from gitian.errors import UsageError
from gitian.formats.descriptor import Descriptor
from gitian.plan import Options, make_plan
from gitian.vary import run, wrapper
from gitian.vary.probe import PROBES, circumstances, parse_probe
from gitian.vary.variations import (
    GROUPS,
    VARIATIONS,
    Setting,
    available,
    changes_for,
    choose,
    leap_day,
    remarks,
)
from gitian.vary.wrapper import Circumstance

NOWHERE = Path("/nowhere")
LXC = Setting(backend="lxc", suite="bookworm", architecture="amd64", distro="debian", image_directory=NOWHERE)
KVM = Setting(backend="kvm", suite="bookworm", architecture="amd64", distro="debian", image_directory=NOWHERE)
NOW = datetime(2026, 11, 22, 12, 0, 0, tzinfo=UTC).timestamp()
PIECES = sorted(set(VARIATIONS) - {"packages", "seed", "cpu", "kernel", "cold"})


def chosen(text: str | None) -> list[str]:
    return [entry.name for entry in choose(text)]


def test_every_variation_has_a_probe_and_implies_what_there_is() -> None:
    assert set(PROBES) == set(VARIATIONS)
    for name, entry in VARIATIONS.items():
        assert entry.name == name and entry.what
        assert entry.backends <= {"lxc", "kvm"} and bool(entry.backends) is (name != "seed")
        assert entry.implies <= set(VARIATIONS) - {name}


def test_the_page_has_them_all() -> None:
    page = (Path(__file__).resolve().parents[2] / "docs/reference/variations.md").read_text()
    rows = [[cell.strip(" `") for cell in line.split("|")[1:-1]] for line in page.splitlines()
            if line.startswith("| `")]
    told = {row[0]: (row[1], {backend for backend, cell in zip(("lxc", "kvm"), row[3:], strict=True) if cell != "-"})
            for row in rows if len(row) == 5}
    assert told == {name: (entry.group, set(entry.backends))
                    for name, entry in VARIATIONS.items()}
    probes = {name.strip(" `") for row in rows if len(row) == 2 for name in row[0].split(",")}
    assert probes == set(VARIATIONS) - {"seed"}


def test_choosing() -> None:
    usual = [name for name, entry in VARIATIONS.items() if entry.usual]
    assert chosen(None) == chosen("") == chosen("usual") == usual
    assert "upgrade" not in usual and "upgrade" in chosen("all")
    assert "seed" not in usual, "it works nowhere, and would stand in every table"
    assert chosen("hostname,clock") == ["clock", "hostname"], "in the table's order"
    assert chosen("time") == ["clock", "timezone"], "a group"
    assert chosen("time,-clock,uid") == ["timezone", "uid"]
    assert chosen("-kernel") == [name for name in usual if name != "kernel"]
    assert chosen("-time, -kernel") == [name for name in usual if name not in ("clock", "timezone", "kernel")]
    assert chosen("environment") == ["environment"], "a name comes before a group of that name"
    for text in ("nonsense", "-nonsense", "clock,-time", "clock,;rm"):
        with pytest.raises(UsageError):
            choose(text)
    for group in GROUPS:
        assert chosen(group)


def hindered(setting: Setting) -> dict[str, str]:
    return {name: why for name, entry in VARIATIONS.items() if (why := available(entry, setting))}


def test_what_cannot_work_says_why() -> None:
    why = hindered(LXC)
    assert {"cpu", "kernel", "cold", "seed", "packages", "usrmerge"} == set(why)
    assert "virtual machine" in why["cpu"] and "--repeat" in why["seed"] and "bookworm" in why["usrmerge"]
    assert {"kernel", "seed", "packages", "usrmerge"} == set(hindered(KVM))
    bare = Setting(backend="kvm", suite="bullseye", architecture="amd64", distro="debian", image_directory=NOWHERE,
                   network=False, inputs=False, restored=False)
    assert {"inputs", "cold", "upgrade"} <= set(hindered(bare))
    online = replace(KVM, suite="bullseye")
    assert available(VARIATIONS["usrmerge"], online) == ""
    assert "overlay" in available(VARIATIONS["usrmerge"], replace(LXC, suite="bullseye"))
    with pytest.raises(UsageError, match="virtual machine"):
        changes_for(frozenset({"cpu"}), LXC)
    with pytest.raises(UsageError, match="no variation"):
        changes_for(frozenset({"nonsense"}), LXC)
    assert "processor" in remarks(VARIATIONS["cores"], Setting(
        backend="lxc", suite="bookworm", architecture="amd64", distro="debian", image_directory=NOWHERE, processors=1))
    assert remarks(VARIATIONS["clock"], LXC) and not remarks(VARIATIONS["clock"], KVM)


def record(directory: Path, suite: str, arch: str, release: str) -> None:
    """What an image's directory has of one image for KVM, as far as kernels go."""
    name = f"base-{suite}-{arch}"
    for ending in ("vmlinuz", "initrd"):
        (directory / f"{name}.{ending}").write_bytes(b"")
    (directory / f"{name}.json").write_text(json.dumps({
        "version": 1, "distro": "debian", "suite": suite, "architecture": arch, "mirror": "http://mirror.example",
        "epoch": 1, "tarball_sha256": "0" * 64, "tarball_size": 1, "sources": [], "without": [], "indices": [],
        "packages": [], "made_by": "test", "lxc": None, "kvm": {"kernel_release": release}}))


def test_the_kernel_of_another_image(tmp_path: Path) -> None:
    setting = Setting(backend="kvm", suite="bookworm", architecture="amd64", distro="debian", image_directory=tmp_path)
    record(tmp_path, "bookworm", "amd64", "6.1.0")
    record(tmp_path, "bookish", "amd64", "6.1.0")
    record(tmp_path, "trixie", "i386", "6.12.0")
    (tmp_path / "base-broken-amd64.vmlinuz").write_bytes(b"")
    assert "no other kernel" in available(VARIATIONS["kernel"], setting)
    record(tmp_path, "trixie", "amd64", "6.12.0")
    assert available(VARIATIONS["kernel"], setting) == ""
    machine = changes_for(frozenset({"kernel"}), setting).machine
    assert machine is not None and machine.cpu is None and machine.memory is None
    assert machine.kernel == tmp_path / "base-trixie-amd64.vmlinuz"
    assert machine.initrd == tmp_path / "base-trixie-amd64.initrd"


def test_a_leap_day_more_than_a_year_ahead() -> None:
    for text in ("2026-11-22T12:00", "2027-02-28T23:59", "2027-03-01T00:00", "2028-02-29T05:00", "2095-06-01T23:30"):
        now = datetime.fromisoformat(f"{text}:00+00:00")
        for seed in range(14):
            then = datetime.fromtimestamp(leap_day(now.timestamp(), seed), UTC)
            assert (then.month, then.day) == (2, 29) and then.hour != now.hour
            assert 366 < (then - now).days < 366 * 9
    assert datetime.fromtimestamp(leap_day(NOW), UTC).year == 2028


def test_the_usual_build_is_changed_in_nothing_but_where_process_numbers_begin() -> None:
    changes = changes_for(frozenset(), LXC)
    assert changes.machine is None and changes.setarch == () and changes.probe and changes.names == frozenset()
    assert b"replaced /" not in changes.wrapper and b"numbered 2000\n" in changes.wrapper
    other = changes_for(frozenset({"user", "locale"}), LXC).wrapper
    assert b"numbered 2000\n" in other, "however many programs it runs"
    assert b"numbered 2000\n" not in changes_for(frozenset({"pids"}), LXC).wrapper
    assert changes_for(frozenset({"umask"}), KVM).machine is None, "nothing that takes another machine"
    with_machine = changes_for(frozenset({"memory", "cold"}), KVM).machine
    assert with_machine is not None and with_machine.memory == 2256
    assert changes_for(frozenset({"aslr"}), LXC).setarch == ("-R",)


def plan_of(script: str = "true") -> Descriptor:
    return Descriptor.parse(
        f"name: pkg\nsuites: [bookworm]\narchitectures: [amd64]\ndistro: debian\npackages: []\nremotes: []\nfiles: []\n"
        f"reference_datetime: '2020-01-01 00:00:00'\nscript: |\n  {script}\n".encode(), "pkg.yml")


def test_what_a_setting_knows_is_what_a_run_can_fill_in() -> None:
    """A field that nobody fills in would decide something all the same."""
    source = (Path(run.__file__)).read_text(encoding="utf-8")
    call = source.partition("return Setting(")[2].partition("\n\n")[0]
    assert {field.name for field in fields(Setting)} == set(re.findall(r"(\w+)=", call))


def test_a_merged_system_is_not_merged_again() -> None:
    script = changes_for(frozenset({"usrmerge"}), replace(KVM, suite="bullseye")).wrapper.decode()
    guard = script[script.index("if [ -L /bin ]"):]
    guard = guard[:guard.index("DEBIAN_FRONTEND")]
    done = subprocess.run(["bash", "-e"], input=guard.replace("-L /bin", "-L /proc/self"), text=True,
                          capture_output=True)
    assert done.returncode == 1 and "taken apart" in done.stdout
    assert subprocess.run(["bash", "-e"], input=guard.replace("-L /bin", "-L /proc"), text=True).returncode == 0


def test_the_header_of_the_script() -> None:
    plan = make_plan(plan_of("make it"), Options())
    usual = build_script(plan, plan.targets[0], reference_datetime="2020-01-01 00:00:00").decode()
    changes = changes_for(frozenset({"locale", "umask", "cores", "memory"}), LXC)
    other = build_script(plan, plan.targets[0], reference_datetime="2020-01-01 00:00:00",
                         changes=changes.script).decode()
    differing = [pair for pair in zip(usual.splitlines(), other.splitlines(), strict=True) if pair[0] != pair[1]]
    assert differing == [
        ("export LANG='en_US.UTF-8'", "export LANG='fr_FR.UTF-8'"),
        ("export LC_ALL='en_US.UTF-8'", "export LC_ALL='fr_FR.UTF-8'"),
        ("umask 002", "umask 022"), ("MAKEOPTS=(-j2)", "MAKEOPTS=(-j1)"), ("NUM_PROCS=2", "NUM_PROCS=1"),
        ("NUM_MEM=2000", "NUM_MEM=2256")]
    probed = probe_script(plan, plan.targets[0], b"echo probe\n", changes=changes.script).decode()
    assert probed.endswith("cd build\necho probe\n") and "make it" not in probed and "umask 022\n" in probed


def valid(script: bytes) -> None:
    done = subprocess.run(["bash", "-n"], input=script, capture_output=True, check=False)
    assert (done.returncode, done.stderr) == (0, b""), done.stderr.decode()


def subsets() -> list[frozenset[str]]:
    """Each alone, each pair, all, all but one, and some by chance (always the same)."""
    found = [frozenset(names) for size in (0, 1, 2) for names in itertools.combinations(PIECES, size)]
    found += [frozenset(PIECES) - {name} for name in ("", *PIECES)]
    chance = random.Random(7)
    found += [frozenset(name for name in PIECES if chance.random() < 0.5) for _ in range(60)]
    return found


@pytest.mark.parametrize("backend", ["lxc", "kvm"])
def test_the_wrapper_is_a_script_for_every_set(backend: str) -> None:
    scripts = {wrapper.wrapper(names, Circumstance(distro="debian", backend=backend, offset=10**7, memory=2256,
                                                   single=True)) for names in subsets()}
    assert len(scripts) > 200
    # One run for all: each is the body of a function, so that one left open swallows the next one's head.
    valid(b"".join(b"one() {\n" + script + b"\n}\n" for script in scripts))
    for script in random.Random(7).sample(sorted(scripts), 12):
        valid(script)


@pytest.mark.parametrize("setting", [LXC, KVM])
def test_a_file_system_in_memory_holds_half_of_what_was_asked_for(setting: Setting) -> None:
    other = replace(setting, memory=3000)
    script = changes_for(frozenset({"filesystem"}), other).wrapper.decode()
    assert re.findall(r"mount -t tmpfs -o (\S+) tmpfs", script) == ["mode=0755,nosuid,nodev,size=1500m"]
    assert "1500 MiB" in remarks(VARIATIONS["filesystem"], other)


def test_each_step_says_whose_it_is_before_it_runs() -> None:
    without = {"umask", "aslr", "environment", "memory"}  # made elsewhere, or by words that cannot fail
    for name in sorted(set(PIECES) - without):
        script = wrapper.wrapper(frozenset({name}), Circumstance(distro="debian", backend="lxc", single=True)).decode()
        assert f"echo 'step {name}' >\"$seen\"" in script, name
    script = wrapper.wrapper(frozenset(PIECES), Circumstance(distro="debian", backend="lxc", single=True)).decode()
    assert "echo 'step clock file-order'" in script, "one library for both"
    assert script.index("echo 'step '") < script.index("echo ready"), "what comes last is nobody's"


def test_the_order_of_the_names_does_not_matter() -> None:
    scripts = set()
    for names in itertools.islice(itertools.permutations(["clock", "uid", "path", "pids"]), 24):
        changes = changes_for(frozenset(names), LXC, now=NOW)
        scripts.add((changes.wrapper, changes.probe, changes.script, changes.setarch))
    assert len(scripts) == 1


def test_nothing_of_a_guests_name_reaches_a_shell_unquoted(tmp_path: Path) -> None:
    evil = f"x'; touch {tmp_path}/hurt; $(touch {tmp_path}/hurt) `touch {tmp_path}/hurt` \\"
    names = frozenset(PIECES)
    script = wrapper.wrapper(names, Circumstance(distro=evil, backend="lxc", single=True, memory=1))
    valid(script)
    # The assignments and the function are read by a shell, nothing is called.
    head = script.decode().partition("home=")[2].partition("mkdir -p")[0]
    called = ("home=" + head + 'chroot() { printf "%s\\n" "$@"; }; setpriv() { :; }\n'
              'taskset() { printf "%s\\n" "$@"; }\nas_user true; printf "%s\\n" "$user" "$home"\n')
    done = subprocess.run(["bash", "-c", called], capture_output=True, text=True, check=True,
                          env={"PATH": "/bin:/usr/bin"})
    assert done.stdout.endswith(f"{evil}\n/home/{evil}\n")
    assert not (tmp_path / "hurt").exists()


def test_the_environment_is_what_is_asked_for() -> None:
    usual = wrapper.environment(frozenset(), "debian")
    assert dict(usual)["HOME"] == "/home/debian" and len(usual) == 9
    for name, changed in (("user", {"USER", "LOGNAME"}), ("home", {"HOME"}), ("locale", {"LANG", "LC_ALL"}),
                          ("timezone", {"TZ"}), ("umask", set())):
        other = dict(wrapper.environment(frozenset({name}), "debian"))
        assert {key for key in other if other[key] != dict(usual)[key]} == changed and list(other) == list(dict(usual))
    more = wrapper.environment(frozenset({"environment"}), "debian")
    assert set(dict(usual)) < set(dict(more)) and dict(more)["PATH"].startswith(dict(usual)["PATH"] + ":")
    kept = [name for name, _ in more if name in dict(usual)]
    assert kept == [name for name, _ in reversed(usual)]


def test_the_probe_script_runs_anywhere_and_is_read_back(tmp_path: Path) -> None:
    body = changes_for(frozenset(), LXC).probe
    valid(body)
    done = subprocess.run(["bash", "-s"], input=body, capture_output=True, cwd=tmp_path, timeout=120, env={
        "PATH": "/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin", "HOME": "/somewhere", "TZ": "UTC", "USER": "nobody",
        "NUM_MEM": "77", "LC_ALL": "C.UTF-8"})
    end = subprocess.run(["bash", "-s", "end"], input=body, capture_output=True, cwd=tmp_path, timeout=120)
    assert done.returncode == 0 and done.stderr == b""
    answers = parse_probe(done.stdout)
    assert set(answers) == {name for name, entry in VARIATIONS.items() if entry.usual and not available(entry, LXC)}
    assert answers["path"] == str(tmp_path.resolve()) and answers["home"].startswith("/somewhere")
    about = circumstances(done.stdout + end.stdout)
    assert (about.memory, about.user, about.time_zone, about.home) == (77, "nobody", "UTC", "/somewhere")
    assert about.time is not None and about.time[0] <= about.time[1]
    assert ("NUM_MEM", "77") in about.environment


def test_hostile_answers_are_only_text() -> None:
    said = b"probe clock\n a\n b\nprobe nonsense\n c\nfact uid -1\nfact uid 5\nprobe clock\n d\nfact time x\n" \
           b"fact cores 99999999999999999999\nfact umask 9\nfact \xff\xfe\nfact environment =\n" \
           b"fact environment A=1=2\nfact path \x1b[31m\n stray\nprobe path\n\xff\n"
    assert parse_probe(said) == {"clock": "a\nb", "path": ""}
    about = circumstances(said)
    assert (about.time, about.cores, about.umask, about.uid, about.pids) == (None, None, None, None, None)
    assert about.environment == (("", ""), ("A", "1=2")) and about.paths == ("\x1b[31m",)
    chance = random.Random(7)
    for _ in range(300):
        data = bytes(chance.choice(b"probe clockfact \n=0123456789\xff\x00") for _ in range(chance.randrange(400)))
        parse_probe(data)
        circumstances(data)
    assert all(len(text) <= 4096 for text in parse_probe(b"probe clock\n " + b"x" * 100000).values())
