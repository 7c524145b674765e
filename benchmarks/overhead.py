"""What gbuild costs besides the script: a table of wall times, taken side by side in one run.

    benchmarks/overhead.py [--backend lxc|kvm] [--runs N] [--images DIRECTORY]

Needs a base image of Debian bookworm amd64 in DIRECTORY (default: $GITIAN_IMAGES, else the current directory).
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

DESCRIPTOR = """\
---
name: "tiny"
distro: "debian"
suites: ["bookworm"]
architectures: ["amd64"]
packages: ["git", "build-essential"]
reference_datetime: "2013-06-01 00:00:00"
remotes: []
files: []
script: |
  sleep 0.2
  echo hello > $OUTDIR/hello.txt
"""


def timed(command: list[str | Path], **arguments: object) -> tuple[float, str]:
    before = time.monotonic()
    done = subprocess.run(command, capture_output=True, text=True, check=True, **arguments)  # type: ignore[call-overload]
    return time.monotonic() - before, done.stderr


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--backend", choices=["lxc", "kvm"], default="lxc")
    options.add_argument("--runs", type=int, default=5)
    options.add_argument("--images", type=Path, default=Path(os.environ.get("GITIAN_IMAGES", ".")))
    chosen = options.parse_args()
    scripts = Path(sys.executable).parent
    with tempfile.TemporaryDirectory(prefix="gitian-bench-", dir="/var/tmp") as name:
        workspace = Path(name)
        (workspace / "tiny.yml").write_text(DESCRIPTOR)
        environment = {**os.environ, "GITIAN_IMAGES": str(chosen.images.resolve())}
        rows: dict[str, list[float]] = {"python3 -c pass": [], "gverify --help": [], "gbuild --help": [],
                                        f"gbuild, {chosen.backend}": []}
        said = ""
        for _ in range(chosen.runs):
            rows["python3 -c pass"].append(timed([sys.executable, "-c", "pass"])[0])
            rows["gverify --help"].append(timed([scripts / "gverify", "--help"])[0])
            rows["gbuild --help"].append(timed([scripts / "gbuild", "--help"])[0])
            seconds, said = timed([scripts / "gbuild", "--backend", chosen.backend, "tiny.yml"], cwd=workspace,
                                  env=environment)
            rows[f"gbuild, {chosen.backend}"].append(seconds - 0.2)
    base = statistics.median(rows["python3 -c pass"])
    print(f"{'besides the script':<24}{'min s':>9}{'median s':>10}{'max s':>9}{'/ python':>10}")
    for name, seconds_of in rows.items():
        middle = statistics.median(seconds_of)
        print(f"{name:<24}{min(seconds_of):>9.2f}{middle:>10.2f}{max(seconds_of):>9.2f}{middle / base:>10.1f}")
    print("\nThe steps of the last build:\n" + said)


if __name__ == "__main__":
    main()
