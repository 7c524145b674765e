"""The steps of a build as its lines of progress tell them, timed by when the lines arrive."""

from __future__ import annotations

import itertools
import os
import re
import subprocess
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

#: What the stages of a build are called in tables, and how a step's title begins that belongs to it: first gbuild's
#: own, then the classic's.
STAGES: dict[str, tuple[str, ...]] = {
    "archive asked": ("Asking whether the archive",),
    "guest started": ("Starting a clean target", "Stopping target if it is up", "Making a new image copy",
                      "Starting target", "Checking if target is up", "Trying whether the guest has no network"),
    "packages installed": ("Adding multiarch", "Adding repositories", "Updating apt-get", "Installing additional",
                           "Set alternatives", "Upgrading system"),
    "packages hashed": ("Creating package manifest",),
    "layer kept": ("Keeping the installed packages",),
    "inputs in": ("Hashing", "Preparing build environment", "Creating build script"),
    "script": ("Running build script",),
    "outputs out": ("Grabbing",),
    "report": ("Generating report",),
}
#: What no step accounts for: starting Python, reading the descriptor, ending the guest.
REST = "the rest"

_STEP = re.compile(r"(?:(?P<target>[a-z0-9.]+-[a-z0-9]+): )?(?P<title>[A-Z].*?)"
                   r"(?P<end> \.\.\.|: done \((?:.*, )?[\d.]+ s\))")


class BuildFailed(Exception):
    """A build that should have been timed did not succeed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Timing:
    """A build: its wall time, and how long each stage took (seconds).

    While several targets are in different stages at once, each stage gets its share of that time.

    ``usable`` is when the guest of the build was there, counted from the start of the command.
    """

    seconds: float
    stages: Mapping[str, float] = field(default_factory=dict)
    usable: float | None = None

    @property
    def overhead(self) -> float:
        """What the build took besides its script."""
        return self.seconds - self.stages.get("script", 0.0)


def stage_of(title: str) -> str:
    """The stage that a step belongs to."""
    return next((stage for stage, beginnings in STAGES.items() if title.startswith(beginnings)), REST)


def of_gbuild(lines: Iterable[tuple[float, str]]) -> dict[str, float]:
    """Stages from gbuild's lines ('title ...', then 'title: done (1.2 s)'), each with the moment of its arrival."""
    begun: dict[tuple[str, str], float] = {}
    took: list[tuple[float, float, str]] = []
    for moment, line in lines:
        match = _STEP.fullmatch(line.rstrip("\n"))
        if match is None:
            continue
        target, title = match["target"] or "", match["title"]
        if match["end"] == " ...":
            begun[target, title] = moment
        elif (target, title) in begun:
            took.append((begun.pop((target, title)), moment, stage_of(title)))
    return shares(took)


def shares(took: Sequence[tuple[float, float, str]]) -> dict[str, float]:
    """How long each stage took, of steps that may overlap: time that several were in is shared among them equally."""
    found = dict.fromkeys((stage for _, _, stage in took), 0.0)
    moments = sorted({moment for begin, end, _ in took for moment in (begin, end)})
    for begin, end in itertools.pairwise(moments):
        active = [stage for first, last, stage in took if first <= begin and end <= last]
        for stage in active:
            found[stage] += (end - begin) / len(active)
    return {stage: found[stage] for stage in (*STAGES, REST) if stage in found}


def of_classic(lines: Iterable[tuple[float, str]], ended: float) -> dict[str, float]:
    """Stages from the classic's lines: each says what begins, and so ends what was before it."""
    stages: dict[str, float] = {}
    current: tuple[str, float] | None = None
    for moment, line in [*lines, (ended, "Done.")]:
        stage = stage_of(line)
        if stage == REST and not line.startswith(("Cleaning up target", "Done.")):
            continue
        if current is not None:
            stages[current[0]] = stages.get(current[0], 0.0) + moment - current[1]
        current = (stage, moment)
    return {stage: stages[stage] for stage in (*STAGES, REST) if stage in stages}


def timed(command: Sequence[str | Path], *, cwd: Path, environment: Mapping[str, str], stream: str = "stderr",
          patience: float = 3600) -> tuple[float, list[tuple[float, str]]]:
    """Run a command; its wall time in seconds, and the lines of one of its streams with the moment of each.

    Moments are seconds after the start. Raises BuildFailed with the end of what it said.
    """
    other = "stdout" if stream == "stderr" else "stderr"
    said = cwd / f".{other}"
    started = time.monotonic()
    with said.open("wb") as file:
        popen = subprocess.Popen([str(word) for word in command], cwd=cwd, env=dict(environment),
                                 stdin=subprocess.DEVNULL,
                                 stdout=subprocess.PIPE if stream == "stdout" else file,
                                 stderr=subprocess.PIPE if stream == "stderr" else file)
        pipe = popen.stdout if stream == "stdout" else popen.stderr
        assert pipe is not None
        try:
            lines = list(_arriving(pipe.fileno(), started))
            status = popen.wait(patience)
        except BaseException:
            popen.terminate()
            popen.wait()
            raise
        finally:
            pipe.close()
    seconds = time.monotonic() - started
    if status != 0:
        tail = [line for _, line in lines[-15:]] + said.read_text(errors="replace").splitlines()[-15:]
        raise BuildFailed(f"'{Path(str(command[0])).name}' ended with status {status}:\n  " + "\n  ".join(tail))
    return seconds, lines


def _arriving(number: int, started: float) -> Iterator[tuple[float, str]]:
    """Lines with the moment when the first byte of each arrived."""
    rest, moment = b"", 0.0
    while data := os.read(number, 65536):
        now = time.monotonic() - started
        *whole, last = data.split(b"\n")
        for piece in whole:
            yield (moment if rest else now), (rest + piece).decode(errors="replace")
            rest = b""
        if last and not rest:
            moment = now
        rest += last
    if rest:
        yield moment, rest.decode(errors="replace")


def gbuild(program: Sequence[str | Path], descriptor: Path, *options: str, workspace: Path,
           environment: Mapping[str, str]) -> Timing:
    """Time one gbuild. Raises BuildFailed."""
    seconds, lines = timed([*program, *options, descriptor], cwd=workspace, environment=environment)
    usable = [moment for moment, line in lines if "Starting a clean target" in line and ": done (" in line]
    return with_rest(seconds, of_gbuild(lines), usable=usable[-1] if usable else None)


def with_rest(seconds: float, stages: Mapping[str, float], *, usable: float | None = None) -> Timing:
    """A timing whose stages add up to its wall time."""
    known = {stage: value for stage, value in stages.items() if stage != REST}
    return Timing(seconds=seconds, stages={**known, REST: max(0.0, seconds - sum(known.values()))}, usable=usable)
