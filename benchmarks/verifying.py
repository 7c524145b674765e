#!/usr/bin/env python3
"""How fast signatures are verified: cold against bare gpgv, warm against cold.

    python3 benchmarks/verifying.py [--keys DIR] [--times N] [TREE ...]

A TREE is a directory of releases. Without one, the real trees beside the checkout are taken. Every release and package
is verified once with an empty cache (cold), then again (warm); the same signatures are checked by one gpgv process
each. CPU times are of this process and its children, user and system. Exit status 1 when a bound is not held: cold at
most 1.3 times the CPU of gpgv, warm at least 20 times faster than cold.
"""

from __future__ import annotations

import argparse
import resource
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "src"))

from gitian.host import process  # noqa: E402
from gitian.sigs import cache, gpg, keys, packets, tree, verify  # noqa: E402


def cpu() -> float:
    """Seconds of CPU used so far by this process and those it waited for."""
    return sum(used.ru_utime + used.ru_stime
               for used in (resource.getrusage(resource.RUSAGE_SELF), resource.getrusage(resource.RUSAGE_CHILDREN)))


def releases(where: tree.DirectoryTree) -> list[verify.Pair]:
    """Every release and package of a tree."""
    return [verify.Pair(release=entry.name, name=name)
            for entry in where.list("") if entry.kind is tree.Kind.DIRECTORY and not entry.name.startswith(".")
            for name in verify.packages(where, entry.name)]


def gathered(trees: list[tree.DirectoryTree], key_folder: Path | None) -> keys.Keyring:
    """The keys of the folder, or, without one, those that the first tree carries."""
    return keys.gather(keys.Sources(keyrings=(key_folder,) if key_folder else ()), trees[0])


def run(trees: list[tree.DirectoryTree], pairs: list[list[verify.Pair]], key_folder: Path | None,
        where: Path) -> tuple[int, float, float]:
    """Verify everything; number of signers, wall time and CPU time in seconds, the reading of keys included."""
    started, used, count = time.perf_counter(), cpu(), 0
    known = cache.Cache(where)
    keyring = gathered(trees, key_folder)
    for each, wanted in zip(trees, pairs, strict=True):
        for verdict in verify.verify_releases(verify.Request(tree=each, keyring=keyring, cache=known), wanted):
            count += len(verdict.signers)
    known.close()
    return count, time.perf_counter() - started, cpu() - used


def bare(trees: list[tree.DirectoryTree], pairs: list[list[verify.Pair]], key_folder: Path | None) -> tuple[int, float]:
    """Check every signature by one gpgv process, one after the other; how many, and the CPU time of gpgv alone."""
    with gpg.Judge() as judge:
        keyring = gathered(trees, key_folder)
        judge.learn(*keyring.needed(keyring.fingerprints))
        ring = Path(tempfile.mkdtemp()) / "ring.gpg"
        ring.write_bytes(judge.export())
    total, count = 0.0, 0
    for each, wanted in zip(trees, pairs, strict=True):
        for pair in wanted:
            for entry in each.list(pair.release):
                path = tree.join(pair.release, entry.name, pair.name + verify.SUFFIX)
                try:
                    packets.detached(each.read(path + ".sig", packets.SIGNATURE_LIMIT))
                    each.read(path, verify.ASSERTION_LIMIT)
                except (tree.TreeError, packets.PacketError):
                    continue
                file = each.root / path
                before = resource.getrusage(resource.RUSAGE_CHILDREN)
                process.run(["gpgv", "--quiet", "--keyring", ring, f"{file}.sig", file], check=False)
                after = resource.getrusage(resource.RUSAGE_CHILDREN)
                total += after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
                count += 1
    return count, total


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("trees", nargs="*", type=Path)
    parser.add_argument("--keys", type=Path)
    parser.add_argument("--times", type=int, default=3)
    options = parser.parse_args()
    fixtures = ROOT.parent / "shared" / "fixtures"
    roots = options.trees or sorted(path for path in (fixtures / "sigs").glob("*") if path.is_dir())
    folder = options.keys or (fixtures / "keys" if not options.trees else None)
    if not roots:
        print("No tree was given, and none lies beside the checkout.")
        return 2
    trees = [tree.DirectoryTree(root) for root in roots]
    pairs = [releases(each) for each in trees]
    cold, warm = [], []
    count = 0
    for _ in range(options.times):
        where = Path(tempfile.mkdtemp()) / "cache"
        count, *first = run(trees, pairs, folder, where)
        _, *second = run(trees, pairs, folder, where)
        cold.append(first)
        warm.append(second)
    asked, alone = bare(trees, pairs, folder)
    cold_wall, cold_cpu = (min(times) for times in zip(*cold, strict=True))
    warm_wall, _ = (min(times) for times in zip(*warm, strict=True))
    ratio, gain = cold_cpu / alone, cold_wall / warm_wall
    print(f"{count} signers, {asked} signatures")
    print(f"bare gpgv   {alone:8.3f} s CPU  ({alone / asked * 1000:.2f} ms each)")
    print(f"cold        {cold_cpu:8.3f} s CPU  ({cold_cpu / asked * 1000:.2f} ms each), {cold_wall:.3f} s")
    print(f"warm        {warm_wall:8.3f} s")
    print(f"cold is {ratio:.2f} times gpgv's CPU (at most 1.3); warm is {gain:.0f} times faster (at least 20)")
    return 0 if ratio <= 1.3 and gain >= 20 else 1


if __name__ == "__main__":
    raise SystemExit(main())
