"""What can be measured without a guest: hashing against sha256sum, and what it costs to start each program."""

from __future__ import annotations

import os
import random
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from gitian.build.outputs import manifest_of

SCRIPTS = ("gitian", "make-base-vm", "gbuild", "gsign", "gverify")

_BIG = 250  # MB


def hashing(scratch: Path, *, megabytes: int, runs: int) -> dict[str, Any]:
    """The manifest of an output tree against ``sha256sum`` in two processes on the same files; the better of ``runs``.

    Half of the tree's bytes is in few large files, half in many small ones. ``of sha256sum`` is the throughput in
    proportion to sha256sum's: larger is better.
    """
    found: dict[str, Any] = {}
    for kind, fill in (("large files", _few_large), ("small files", _many_small)):
        top = scratch / kind.replace(" ", "-")
        top.mkdir()
        fill(top, megabytes // 2)
        files = sorted(path for path in top.rglob("*") if path.is_file())
        size = sum(path.stat().st_size for path in files)
        names = b"\0".join(os.fsencode(path) for path in files)
        # As many names as each of two processes can get, as one who is in a hurry would type it.
        share = str(max(1, min(500, (len(files) + 1) // 2)))
        theirs, ours = [], []
        for _ in range(runs):  # in turn, so that what else the machine does meets both
            theirs.append(_wall(lambda: _sha256sum(names, share)))  # noqa: B023
            ours.append(_wall(lambda: manifest_of(top)))  # noqa: B023
        found[kind] = {"files": len(files), "bytes": size, "sha256sum (s)": round(min(theirs), 3),
                       "gitian (s)": round(min(ours), 3), "GB/s": round(size / min(ours) / 1e9, 2),
                       "of sha256sum": round(min(theirs) / min(ours), 2)}
    return found


def _sha256sum(names: bytes, share: str) -> None:
    subprocess.run(["xargs", "-0", "-P", "2", "-n", share, "sha256sum"], input=names, stdout=subprocess.DEVNULL,
                   check=True)


def _wall(work: Callable[[], object]) -> float:
    started = time.monotonic()
    work()
    return time.monotonic() - started


def _few_large(top: Path, megabytes: int) -> None:
    numbers = random.Random(3)
    piece = numbers.randbytes(10**6)
    for number in range(max(2, megabytes // _BIG)):
        with (top / f"large-{number}").open("wb") as file:
            for count in range(min(megabytes // 2, _BIG)):
                file.write(count.to_bytes(8, "big") + piece[8:])


def _many_small(top: Path, megabytes: int) -> None:
    numbers = random.Random(4)
    left, number = megabytes * 10**6, 0
    while left > 0:
        place = top / f"{number // 500:03d}"
        if number % 500 == 0:
            place.mkdir()
        size = min(left, numbers.randrange(100, 32000))
        (place / f"file-{number:06d}").write_bytes(numbers.randbytes(size))
        left -= size
        number += 1


def starting(*, runs: int) -> dict[str, dict[str, float]]:
    """CPU and wall time of each console script's --help (seconds, medians), and the ratio to ``python -c pass``."""
    place = Path(sys.executable).parent
    base = _started([sys.executable, "-c", "pass"], runs)
    found = {"python -c pass": {**base, "ratio": 1.0}}
    for name in SCRIPTS:
        one = _started([place / name, "--help"], runs)
        found[f"{name} --help"] = {**one, "ratio": round(one["cpu"] / base["cpu"], 1) if base["cpu"] else 0.0}
    return found


def _started(command: Sequence[str | Path], runs: int) -> dict[str, float]:
    cpu, wall = [], []
    for _ in range(runs):
        started = time.monotonic()
        pid = os.posix_spawn(str(command[0]), [str(word) for word in command], os.environ, file_actions=[
            (os.POSIX_SPAWN_OPEN, number, "/dev/null", os.O_RDWR, 0) for number in (0, 1, 2)])
        _, status, used = os.wait4(pid, 0)
        if status != 0:
            raise RuntimeError(f"{command} failed")
        wall.append(time.monotonic() - started)
        cpu.append(used.ru_utime + used.ru_stime)
    return {"cpu": round(statistics.median(cpu), 4), "wall": round(statistics.median(wall), 4)}
