"""How fast gitian is: the same descriptors cold, warm (from layers) and without layers, per backend.

    python -m benchmarks [--quick] [--backend lxc|kvm] [--classic DIR] [--json FILE] [--chart FILE.svg]

A table of steps is printed, and everything written as JSON. 'Cold' is the first build of a workspace, 'warm' a later
one, from its layer; 'no layers' installs the packages again, and keeps nothing.
With --classic, the path of a checkout of the classic gitian-builder, both build the same descriptors side by side,
through the same package cache. Of several builds the fastest is shown; the JSON says how far they lie apart.

Base images (Debian bookworm and trixie) are taken from --images, or $GITIAN_IMAGES, or var/benchmarks of the checkout;
one of bookworm amd64 is made there when there is none. --make-images makes all that the cases could use.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import tempfile
from pathlib import Path
from typing import Any

from benchmarks import chart, costs, machine, tables
from benchmarks.runner import ROOT, Runner, Setting, say
from benchmarks.targets import targets


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="two or three minutes: fewer runs, smaller files, of KVM "
                        "only the smallest case")
    parser.add_argument("--backend", choices=["lxc", "kvm"], action="append", help="may be repeated [default: both]")
    parser.add_argument("--case", action="append", help="only this one: tiny, packages, large, matrix; may be repeated")
    parser.add_argument("--images", type=Path, help="where base images are")
    parser.add_argument("--make-images", action="store_true", help="make the base images that are missing")
    parser.add_argument("--classic", type=Path, metavar="DIR", help="a checkout of the classic; it is not written to")
    parser.add_argument("--json", type=Path, default=ROOT / "var/benchmarks/results.json")
    parser.add_argument("--chart", type=Path, help="also draw the results as SVG")
    return parser.parse_args()


def main() -> int:
    """Measure, print, write."""
    options = arguments()
    images = options.images or Path(os.environ.get("GITIAN_IMAGES") or ROOT / "var/benchmarks/images")
    started = machine.busy()
    results: dict[str, Any] = {
        "date": datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d"), "quick": options.quick,
        "machine": machine.machine(), "load at the start": machine.load(), "builds": {}, "notes": []}
    with tempfile.TemporaryDirectory(prefix="gitian-bench-", dir="/var/tmp") as name:
        scratch = Path(name)
        setting = Setting(scratch=scratch, images=images.absolute(), quick=options.quick,
                          make_images=options.make_images, only=tuple(options.case or ()))
        runner = Runner(setting, results)
        if not options.case:
            say("Hashing ...")
            results["hashing"] = costs.hashing(scratch, megabytes=400 if options.quick else 4000,
                                               runs=2 if options.quick else 4)
            results["starting"] = costs.starting(runs=5 if options.quick else 15)
        for backend in options.backend or ["lxc", "kvm"]:
            runner.backend(backend, classic=options.classic if backend == "lxc" else None)
    busy, total = (after - before for after, before in zip(machine.busy(), started, strict=True))
    results["processors busy"] = round(busy / total, 2) if total else 0.0
    results["load at the end"] = machine.load()
    results["targets"] = targets(results)
    print()
    for backend in results["builds"]:
        print(tables.builds(results, backend))
    print(tables.costs(results) + tables.targets(results))
    for note in results["notes"]:
        print(f"note: {note}")
    options.json.parent.mkdir(parents=True, exist_ok=True)
    options.json.write_text(json.dumps(results, indent=1) + "\n")
    print(f"written: {options.json}")
    if options.chart:
        options.chart.write_text(chart.draw(results))
        print(f"written: {options.chart}")
    return 0 if results["builds"] or options.case else 1


if __name__ == "__main__":
    raise SystemExit(main())
