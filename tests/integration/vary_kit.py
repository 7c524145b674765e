"""What tests of variations share: a build with every well-known fault, run by the real runner in a guest that is there.

Each fault is a file in the output that hangs on one variation alone; all of them are the same in every usual build.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from gitian.build.changes import Changes
from gitian.build.log import Log
from gitian.build.request import TargetRequest
from gitian.build.script import build_script
from gitian.build.varied import run_varied, seen_path
from gitian.formats.descriptor import Descriptor
from gitian.guest.kvm import KvmBackend
from gitian.guest.lxc import LxcBackend
from gitian.guest.protocol import Backend, Guest
from gitian.host.workspace import Workspace, write_atomically
from gitian.images.lookup import find_image
from gitian.inputs.prepare import PreparedInputs
from gitian.plan import Options, make_plan
from gitian.vary.probe import parse_probe
from gitian.vary.variations import Setting, changes_for

#: variation -> what writes the fault. 'm' is a new file, 'listed' a directory of many, 'input' one of the inputs.
FAULTS = {
    "clock": "date -u +%Y; stat -c %y m | cut -c 1-4",
    "timezone": "date -d @1000000000 +%H%z",
    "locale": r"printf 'b\nA\na\nB\n' | sort; date -u -d @1000000000 +%B",
    "umask": "tar --format=gnu --mtime=@0 --owner=0 --group=0 -cf - m",
    "user": "stat -c '%U %G' m",
    "uid": "tar --format=gnu --mtime=@0 --mode=0600 --numeric-owner -cf - m",
    "home": 'echo "$HOME"',
    "path": "echo 'int main(void) { return 0; }' >c.c; gcc -g -c c.c; cat c.o",
    "hostname": "hostname",
    "domain": "hostname -d",
    "environment": 'echo "$TERM"; echo "$PATH"; env | wc -l',
    "cores": "nproc; getconf _NPROCESSORS_ONLN; grep -c ^processor /proc/cpuinfo; echo ${MAKEOPTS[@]} $NUM_PROCS",
    "memory": 'echo "$NUM_MEM"; awk \'/^MemTotal/ { print int($2 / 262144 + 1) }\' /proc/meminfo',
    "file-order": "find listed; perl -e 'opendir(D, q(listed)); print readdir(D)'",
    "filesystem": "stat -f -c %T .",
    "inputs": "stat -c %Y input tree tree/file",
    "aslr": "awk '/stack/ { print ($1 ~ /^7ffffff/) }' /proc/self/maps",
    "pids": "echo $(($$ / 10000))",
    "shell": "sh -c 'echo ${BASH_VERSION:+bash}'",
    "cpu": "grep -m 1 ^flags /proc/cpuinfo | grep -ow avx2 || echo none",
    "kernel": "uname -r",
    "cold": "stat -c %Y /dev/zero",
}
SCRIPT = "touch m\nmkdir listed\ntouch listed/{a,b,c,d}{1,2,3,4,5,6}\n" + "".join(
    f"{{ {words}; }} > $OUTDIR/{name}\n" for name, words in FAULTS.items())
HEAD = ("name: faults\nsuites: [bookworm]\narchitectures: [amd64]\ndistro: debian\npackages: []\nremotes: []\n"
        "files: []\nreference_datetime: '2020-01-01 00:00:00'\n")

_TIME = "2020-01-01 00:00:00"

_FILL = r"""rm -rf build out install cache
mkdir -p build/tree out install cache/common
echo input >build/input
echo file >build/tree/file
find build -exec touch -d @1577836800 {} +
"""


@dataclass(frozen=True, kw_only=True)
class Seen:
    """What came of a build: what its probes said, the hash of each output, and its status."""

    status: int
    probes: dict[str, str]
    outputs: dict[str, str]
    raw: bytes

    def differs(self, other: Seen) -> tuple[set[str], set[str]]:
        """The variations whose probe, and those whose fault, shows another value."""
        return ({name for name in self.probes if self.probes[name] != other.probes.get(name)},
                {name for name in self.outputs if self.outputs[name] != other.outputs.get(name)})


@dataclass(frozen=True, kw_only=True)
class Builder:
    """Builds the faulty descriptor in guests of a workspace."""

    root: Path
    images: Path
    backend: str
    script: str = SCRIPT
    setting: Setting = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "setting", Setting(
            backend=self.backend, suite="bookworm", architecture="amd64", distro="debian",
            image_directory=self.images, memory=1024))

    def request(self, changes: Changes | None) -> TargetRequest:
        """What one build is asked for with."""
        workspace = Workspace(root=self.root, image_directory=self.images)
        workspace.var.mkdir(exist_ok=True)
        body = "".join(f"  {line}\n" for line in self.script.splitlines())
        plan = make_plan(Descriptor.parse(f"{HEAD}script: |\n{body}".encode(), "faults.yml"), Options(memory=1024))
        backend: Backend = LxcBackend() if self.backend == "lxc" else KvmBackend()
        image = find_image(self.images, "bookworm", "amd64", self.backend, "debian")
        return TargetRequest(
            plan=plan, target=plan.targets[0], image=image,
            inputs=PreparedInputs(files=(), remotes=(), manifest_text="", reference_datetime=_TIME),
            workspace=workspace, backend=backend, state=self.root, environment=dict(os.environ), changes=changes)

    def build(self, guest: Guest, names: frozenset[str] = frozenset()) -> Seen:
        """One build with these variations in a guest that is there, its directories made afresh."""
        changes = changes_for(names, self.setting, seed=7)
        request = self.request(changes)
        var, target = request.workspace.var, request.target
        guest.run(["sh", "-c", _FILL])
        local, script = var / "build-script", PurePosixPath("/var/cache/gitian/build-script")
        write_atomically(local, build_script(request.plan, target, reference_datetime=_TIME, changes=changes.script))
        guest.put(local, script, user="root")
        with Log(var / "build.log", echo=False) as log:
            status = run_varied(guest, request, changes, script, log)
        sums = guest.run(["sh", "-c", "cd out && sha256sum *"], check=False).stdout.decode()
        raw = seen_path(var, "").read_bytes()
        return Seen(status=status, probes=parse_probe(raw), raw=raw,
                    outputs={name: digest for digest, name in map(str.split, sums.splitlines())})
