"""Builds each case in each way, as often as it takes to tell noise from cost, and collects the numbers.

The ways: 'cold' is the first build of a workspace on a machine that has no packages yet, so that they are downloaded
and installed, and a layer is kept; 'warm' is a later build, from the layer; 'no layers' (--no-layers) installs the
packages, which the pool has by then, and keeps no layer.
"""

from __future__ import annotations

import os
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from benchmarks import machine, steps
from benchmarks.cases import Case, Target, cases
from benchmarks.classic import Classic, ClassicCannotRun
from benchmarks.steps import BuildFailed, Timing

ROOT = Path(__file__).resolve().parents[1]
SCRIPTS = Path(sys.executable).parent

#: What the cases can use: two suites by two architectures.
WANTED: tuple[Target, ...] = (("bookworm", "amd64"), ("bookworm", "i386"), ("trixie", "amd64"), ("trixie", "i386"))
FIRST: Target = WANTED[0]

#: How often a case is built in a way: (quick, full), by backend. Emulated machines take minutes without a layer.
RUNS = {
    "lxc": {"cold": (1, 3), "warm": (5, 9), "no layers": (1, 3), "classic": (1, 2)},
    "kvm": {"cold": (1, 1), "warm": (2, 5), "no layers": (0, 1)},
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """Where and how much is built. ``prefix`` comes before each of our commands; ``only`` names cases, or is empty."""

    scratch: Path
    images: Path
    quick: bool
    make_images: bool = False
    only: tuple[str, ...] = ()
    prefix: tuple[str, ...] = ()
    variables: Mapping[str, str] = field(default_factory=dict)

    def environment(self) -> dict[str, str]:
        """What our commands see: nothing of the user's own that could change what is built."""
        kept = {name: os.environ[name] for name in ("http_proxy", "https_proxy", "TMPDIR", "GITIAN_ACCEL", "KVM")
                if name in os.environ}
        return {**kept, "PATH": f"{SCRIPTS}:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
                "HOME": str(self.scratch), "LANG": "C.UTF-8", "GITIAN_IMAGES": str(self.images),
                "GITIAN_POOL": str(self.pool), **self.variables}

    @property
    def pool(self) -> Path:
        """Where packages are kept."""
        return self.scratch / "pool"

    def program(self, name: str) -> list[str]:
        """The beginning of a command line."""
        return [*self.prefix, str(SCRIPTS / name)]


class Runner:
    """Fills ``results`` while it goes, so that what was measured before a failure is not lost."""

    def __init__(self, setting: Setting, results: dict[str, Any]) -> None:
        self.setting = setting
        self.results = results

    def backend(self, name: str, *, classic: Path | None) -> None:
        """Build every case on a backend, side by side with the classic where it can run and knows how."""
        if classic is not None:
            self._side_by_side(name, classic)
        self._cases(name, self.setting, None)

    def _side_by_side(self, name: str, classic: Path) -> None:
        try:
            with Classic(classic, self.setting.scratch / "classic").ready(archives=archives(self.setting.scratch),
                                                                          progress=say) as place:
                setting = replace(self.setting, prefix=place.prefix, variables={"MIRROR_HOST": "127.0.0.1"},
                                  images=place.images)
                tarball = setting.images / "base-{}-{}.tar".format(*FIRST)
                times = self.results["make-base-vm"] = {}
                before = time.monotonic()
                if not make_image(setting, name, FIRST, pockets=True):
                    raise ClassicCannotRun(["no base image could be made through the package cache"])
                times["gitian"] = round(time.monotonic() - before, 1)
                own = False
                if not setting.quick:
                    say("Making the classic's base image, its own way ...")
                    before = time.monotonic()
                    try:
                        place.make_base(*FIRST)
                        times["classic"], own = round(time.monotonic() - before, 1), True
                    except BuildFailed as error:
                        self._note(f"The classic's make-base-vm did not succeed: {error}")
                if not own:
                    self._note("The classic was given a base image made of the same, up to date root filesystem as "
                               "ours: it had nothing to upgrade.")
                    place.adopt(tarball)
                self.results["classic"] = {"ran": True, "why not": [], "own base image": own}
                self._cases(name, setting, place.build)
        except ClassicCannotRun as error:
            self.results["classic"] = {"ran": False, "why not": error.reasons}
            for reason in error.reasons:
                self._note(f"The classic was not run: {reason}.")

    def _cases(self, name: str, setting: Setting, classic: Callable[[Case, Path], Timing] | None) -> None:
        """Build those cases that have not been built yet; with the classic, those of the one target that it has."""
        available = images(setting, name)
        for target in WANTED if setting.make_images and classic is None else (FIRST,):
            if target not in available and make_image(setting, name, target):
                available = (*available, target)
        if not available:
            self._note(f"There is no base image for {name}, and none could be made: nothing was built.")
            return
        chosen = cases(FIRST if FIRST in available else available[0], available, quick=setting.quick,
                       processors=len(os.sched_getaffinity(0)))
        found: dict[str, Any] = self.results["builds"].setdefault(name, {})
        for case in chosen:
            if case.name in found:
                continue
            if setting.only and (case.workspace or case.name) not in setting.only:
                continue
            if name == "kvm" and setting.quick and case.name != "tiny":
                continue
            found[case.name] = {"title": case.title, "targets": ["-".join(target) for target in case.targets],
                                "ways": self._case(case, name, setting, classic)}
        for workspace in setting.scratch.glob(f"{name}-*"):
            shutil.rmtree(workspace)

    def _case(self, case: Case, backend: str, setting: Setting, classic: Callable[[Case, Path], Timing] | None
              ) -> dict[str, Any]:
        runs = {way: (number[0] if setting.quick else number[1]) for way, number in RUNS[backend].items()}
        workspace = setting.scratch / f"{backend}-{case.workspace or case.name}"
        workspace.mkdir(exist_ok=True)
        descriptor = case.lay_out(workspace)
        reports = set()

        def build(*options: str) -> Timing:
            timing = steps.gbuild(setting.program("gbuild"), descriptor, "-C", str(workspace), "--backend", backend,
                                  *case.options, *options, workspace=workspace, environment=setting.environment())
            reports.add((workspace / "result" / f"{case.name}-res.yml").read_bytes())
            return timing

        def forget() -> None:
            for place in (workspace / "var/layers", setting.pool):
                if place.exists():
                    shutil.rmtree(place)

        found: dict[str, Any] = {}
        for way in case.ways:
            if way == "classic" and (classic is None or len(case.targets) > 1):
                continue
            timings: list[Timing] = []
            loads: list[float] = []
            try:
                for number in range(runs.get(way, 0)):
                    say(f"{backend}, {case.title}: {way} ({number + 1} of {runs[way]}) ...")
                    loads.append(machine.load())
                    if way == "cold":
                        forget()
                    if way == "classic" and classic is not None:
                        timings.append(classic(case, workspace))
                    else:
                        timings.append(build(*(["--no-layers"] if way == "no layers" else [])))
            except BuildFailed as error:
                self._note(f"'{case.title}' on {backend}, {way}: {error}")
            if timings:
                found[way] = summary(timings, loads)
        if len(reports) > 1:
            self._note(f"'{case.title}' on {backend}: its builds gave {len(reports)} different reports. Has the "
                       "archive changed in between?")
        return found

    def _note(self, text: str) -> None:
        say(text)
        self.results["notes"].append(text)


def summary(timings: list[Timing], loads: list[float]) -> dict[str, Any]:
    """Of several builds the fastest, with its own steps, and how far they lie apart (seconds).

    What else the machine does can only add to what a build takes.
    """
    ordered = sorted(timings, key=lambda timing: timing.seconds)
    best = ordered[0]
    return {"runs": len(ordered), "seconds": round(best.seconds, 3),
            "middle": round(statistics.median(timing.seconds for timing in ordered), 3),
            "most": round(ordered[-1].seconds, 3), "overhead": round(best.overhead, 3),
            "usable": None if best.usable is None else round(best.usable, 3), "load": round(statistics.mean(loads), 2),
            "stages": {stage: round(seconds, 3) for stage, seconds in best.stages.items()}}


def images(setting: Setting, backend: str) -> tuple[Target, ...]:
    """The targets that there are base images for."""
    suffix = ".qcow2" if backend == "kvm" else ""
    return tuple(target for target in WANTED if (setting.images / ("base-{}-{}".format(*target) + suffix)).exists())


def make_image(setting: Setting, backend: str, target: Target, *, pockets: bool = False) -> bool:
    """Make a base image; whether it is there now. Without ``pockets`` from the suite alone."""
    suite, architecture = target
    setting.images.mkdir(parents=True, exist_ok=True)
    say(f"Making the base image {suite}-{architecture} for {backend} ...")
    without = [] if pockets else ["--without", "security", "--without", "updates"]
    done = subprocess.run([*setting.program("make-base-vm"), "--distro", "debian", "--suite", suite, "--arch",
                           architecture, *without, *(["--lxc"] if backend == "lxc" else [])],
                          env=setting.environment(), cwd=setting.scratch, stdin=subprocess.DEVNULL,
                          capture_output=True, text=True, check=False)
    if done.returncode != 0:
        say("It could not be made: " + " / ".join(done.stderr.strip().splitlines()[-4:]))
    return done.returncode == 0


def archives(scratch: Path) -> tuple[str, ...]:
    """Where this machine gets Debian's packages from: the archive, then that of security updates."""
    from gitian.images.distros import find_distro
    from gitian.images.sources import SourceOptions, find_sources

    suite, architecture = FIRST
    found = find_sources(find_distro("debian"), suite, architecture, SourceOptions(), scratch)
    return tuple(dict.fromkeys(source.host_uri for source in found))


def say(text: str) -> None:
    """Progress, on standard error."""
    print(text, file=sys.stderr, flush=True)
