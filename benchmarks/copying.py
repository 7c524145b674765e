"""Copying into a KVM guest against OpenSSH doing the same: one large file, and many small ones.

    python benchmarks/copying.py IMAGE.qcow2 [--size MB] [--files N] [--json]

Both go to the same guest, one after the other, each twice in turn; the better of two counts. IMAGE is a base image as
made by make-base-vm (bookworm, amd64), with kernel and RAM disk beside it.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shlex
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path, PurePosixPath

from gitian.guest.kvm import KvmBackend, KvmGuest
from gitian.guest.protocol import StartRequest


def large(directory: Path, megabytes: int) -> None:
    numbers = random.Random(1)
    with (directory / "file").open("wb") as file:
        for _ in range(megabytes):
            file.write(numbers.randbytes(10**6))


def small(directory: Path, files: int) -> None:
    numbers = random.Random(2)
    for number in range(files):
        place = directory / f"{number // 200:03d}"
        place.mkdir(exist_ok=True)
        (place / f"file-{number:05d}.c").write_bytes(numbers.randbytes(numbers.randrange(100, 4000)))


def openssh(guest: KvmGuest, workspace: Path, source: Path, destination: str) -> None:
    """What anybody would type: tar | ssh tar, with the options that such a connection needs and no others."""
    server = guest.server
    known = workspace / "known_hosts"
    known.write_text(f"[127.0.0.1]:{server.port} {server.host_key}\n")
    command = ["ssh", "-F", "/dev/null", "-p", str(server.port), "-i", str(workspace / "var/target-kvm/id_ed25519"),
               "-o", f"UserKnownHostsFile={known}", "-o", "IdentitiesOnly=yes", "-o", "BatchMode=yes",
               "root@127.0.0.1", f"mkdir -p {shlex.quote(destination)} && tar -x -C {shlex.quote(destination)}"]
    with subprocess.Popen(["tar", "-c", "-C", str(source), "."], stdout=subprocess.PIPE) as packing:
        subprocess.run(command, stdin=packing.stdout, check=True)
    assert packing.returncode == 0


def timed(work: Callable[[], None], guest: KvmGuest) -> float:
    guest.run(["sync"], user="root")
    started = time.monotonic()
    work()
    return time.monotonic() - started


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("image", type=Path)
    parser.add_argument("--size", type=int, default=500, help="of the large file (MB)")
    parser.add_argument("--files", type=int, default=20000)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="gitian-copying-", dir="/var/tmp") as scratch:
        workspace = Path(scratch) / "workspace"
        workspace.mkdir()
        kinds: dict[str, tuple[Path, Callable[[Path, int], None], int]] = {
            "one large file": (Path(scratch) / "large", large, options.size),
            "many small files": (Path(scratch) / "small", small, options.files)}
        started = time.monotonic()
        guest = KvmBackend().start(StartRequest(
            suite="bookworm", arch="amd64", distro="debian", image=options.image.absolute(), workspace=workspace,
            environment=dict(os.environ)))
        found: dict[str, dict[str, float]] = {
            "start": {"seconds": round(time.monotonic() - started, 2), "acceleration": guest.acceleration}}  # type: ignore[dict-item]
        try:
            for kind, (source, make, amount) in kinds.items():
                source.mkdir()
                make(source, amount)
                times: dict[str, list[float]] = {"openssh": [], "gitian": []}
                for turn in range(2):
                    target = f"/root/copy-{turn}"
                    for who in times:
                        guest.run(["rm", "-rf", target], user="root")
                        if who == "openssh":
                            took = timed(lambda: openssh(guest, workspace, source, target), guest)  # noqa: B023
                        else:
                            took = timed(lambda: guest.put(source, PurePosixPath(target), user="root"), guest)  # noqa: B023
                        times[who].append(took)
                    guest.run(["rm", "-rf", target], user="root")
                best = {who: min(all_times) for who, all_times in times.items()}
                found[kind] = {**{f"{who} (s)": round(value, 2) for who, value in best.items()},
                               "throughput, times OpenSSH's": round(best["openssh"] / best["gitian"], 2)}
        finally:
            guest.close()
        if options.json:
            print(json.dumps(found, indent=1))
        else:
            for kind, numbers in found.items():
                print(kind, *(f"{name} {value}" for name, value in numbers.items()), sep="; ")


if __name__ == "__main__":
    main()
