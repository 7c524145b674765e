"""The classic gitian-builder on the same machine: what it needs, set up apart from everything else, and timed.

It runs from a copy of the checkout, under LXC, in network and mount namespaces of its own. Its base image is one that
its own make-base-vm makes, or, where that cannot be, or is to be quick, the very tarball that ours is made from, put
into an ext4 file likewise. Then it is spared the packages that it else has to upgrade in every build, and those of its
own choice to hash; what is measured is in its favour.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from benchmarks import steps
from benchmarks.cases import Case
from benchmarks.steps import BuildFailed, Timing

ROOT = Path(__file__).resolve().parents[1]

_PROGRAMS = {"ruby": "ruby", "sudo": "sudo", "lxc-execute": "lxc", "unshare": "util-linux", "nsenter": "util-linux",
             "slirp4netns": "slirp4netns", "ip": "iproute2", "mkfs.ext4": "e2fsprogs", "tar": "tar"}
_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_DISK = 12287  # MB, as its make-base-vm makes it


class ClassicCannotRun(Exception):
    """Why not, in as many sentences as there are reasons."""

    def __init__(self, reasons: list[str]) -> None:
        super().__init__("; ".join(reasons))
        self.reasons = reasons


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where both run: ``prefix`` is what a command line begins with to run there, ``images`` are ours."""

    classic: Path
    images: Path
    prefix: tuple[str, ...]

    def make_base(self, suite: str, architecture: str) -> None:
        """Make its base image by its own make-base-vm. Raises BuildFailed.

        Its fix-up for LXC looks for signs of a container that LXC no longer gives: the user is added here instead. And
        where no name server can be reached, none is to be waited for.
        """
        if shutil.which("debootstrap", path=_PATH) is None:
            raise BuildFailed("'debootstrap' is not installed")
        environment = {"PATH": _PATH, "HOME": str(self.classic), "LANG": "C.UTF-8", "USER": "root",
                       "MIRROR_HOST": "127.0.0.1"}
        image, mounted = self.classic / f"base-{suite}-{architecture}", self.classic / "mounted"
        mounted.mkdir()
        fix_up = ('mount -o loop "$0" "$1" && : > "$1/etc/resolv.conf" && '
                  'chroot "$1" adduser --quiet --disabled-password --gecos debian debian && umount "$1"')
        try:
            for command in (["env", f"--chdir={self.classic}", "bin/make-base-vm", "--distro", "debian", "--suite",
                             suite, "--arch", architecture, "--lxc"], ["sh", "-c", fix_up, image, mounted]):
                steps.timed([*self.prefix, *command], cwd=self.classic, environment=environment)
        except BuildFailed:
            image.unlink(missing_ok=True)
            raise

    def adopt(self, tarball: Path) -> None:
        """Make the classic's base image from a root filesystem. Raises ClassicCannotRun."""
        suite_architecture = tarball.name.removesuffix(".tar").removeprefix("base-")
        image = self.classic / f"base-{suite_architecture}"
        mounted = self.classic / "mounted"
        mounted.mkdir(exist_ok=True)
        # In the namespace, where a mount is gone with it.
        script = ('truncate -s "$1" "$2" && mkfs.ext4 -q -F "$2" && mount -o loop "$2" "$3" && '
                  'tar -x -p --numeric-owner --xattrs -C "$3" -f "$4" && umount "$3"')
        done = subprocess.run([*self.prefix, "sh", "-c", script, "adopt", f"{_DISK}M", image, mounted, tarball],
                              capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise ClassicCannotRun([f"its base image cannot be made: {done.stderr.strip()[-300:]}"])

    def build(self, case: Case, workspace: Path) -> Timing:
        """Time one of its builds, from the descriptor and inputs in ``workspace``. Raises BuildFailed."""
        shutil.copy(workspace / f"{case.name}.yml", self.classic)
        inputs = self.classic / "inputs"
        inputs.mkdir(exist_ok=True)
        for path in (workspace / "inputs").iterdir():
            if path.is_file() and not (inputs / path.name).exists():
                os.link(path, inputs / path.name)
        environment = {"PATH": _PATH, "HOME": str(self.classic), "LANG": "C.UTF-8", "USE_LXC": "1",
                       "DISTRO": "debian", "MIRROR_HOST": "127.0.0.1", "GITIAN_HOST_IP": "10.0.2.2", "USER": "root"}
        seconds, lines = steps.timed([*self.prefix, "env", f"--chdir={self.classic}", "bin/gbuild",
                                      f"{case.name}.yml"], cwd=self.classic, environment=environment, stream="stdout")
        return steps.with_rest(seconds, steps.of_classic(lines, seconds))


class Classic:
    """A checkout of the classic, and a directory to run it in."""

    def __init__(self, checkout: Path, directory: Path) -> None:
        self.checkout = checkout
        self.directory = directory

    def why_not(self) -> list[str]:
        """What is missing for it to run here."""
        reasons = []
        if not (self.checkout / "bin/gbuild").is_file() or not (self.checkout / "libexec/on-target").is_file():
            reasons.append(f"'{self.checkout}' is no checkout of it (bin/gbuild, libexec/on-target)")
        if os.geteuid() != 0:
            reasons.append("it needs root for LXC and for a network of its own")
        reasons += [f"'{program}' is not installed (package '{package}')" for program, package in _PROGRAMS.items()
                    if shutil.which(program, path=_PATH) is None]
        return reasons

    @contextlib.contextmanager
    def ready(self, *, archives: tuple[str, ...], progress: Callable[[str], None] = lambda text: None
              ) -> Iterator[Place]:
        """Set up its network and package cache while the block runs. Raises ClassicCannotRun."""
        if reasons := self.why_not():
            raise ClassicCannotRun(reasons)
        progress("Setting up the classic ...")
        self.directory.mkdir(parents=True)
        copy = self.directory / "checkout"
        # Its programs, not what builds have left there.
        shutil.copytree(self.checkout, copy, symlinks=True, ignore=lambda directory, names: [
            name for name in names if Path(directory) == self.checkout
            and name not in ("bin", "etc", "libexec", "target-bin", "share")])
        (copy / "var").mkdir()
        aside = self.directory / "control-groups"
        aside.mkdir()
        resolv = self.directory / "resolv.conf"
        resolv.write_text("nameserver 10.0.3.3\n")
        with contextlib.ExitStack() as stack:
            holder = stack.enter_context(_running(
                ["unshare", "--net", "--mount", "--propagation", "private", "--", "sh",
                 ROOT / "benchmarks/network.sh", resolv, aside], "ready"))
            prefix = ("nsenter", "-t", str(holder.pid), "-n", "-m", "--wd=/", "--")
            # The way out, for the package cache; not 10.0.2.0/24, which is the bridge's.
            stack.enter_context(_running(
                ["sh", "-c", 'exec slirp4netns --configure --mtu=65520 --cidr=10.0.3.0/24 --ready-fd=1 "$1" tap0 '
                             '2>/dev/null', "slirp", str(holder.pid)], "1"))
            stack.enter_context(_running(
                [*prefix, "env", f"--chdir={ROOT}", sys.executable, "-m", "benchmarks.proxy", "--cache",
                 self.directory / "packages", *(word for archive in archives for word in ("--archive", archive))],
                "ready 3142"))
            yield Place(classic=copy, images=self.directory / "images", prefix=prefix)


@contextlib.contextmanager
def _running(command: list[str | Path], word: str) -> Iterator[subprocess.Popen[bytes]]:
    """A program that says ``word`` when it is ready, and is ended with the block. Raises ClassicCannotRun."""
    popen = subprocess.Popen([str(part) for part in command], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                             stderr=subprocess.PIPE)
    assert popen.stdin is not None and popen.stdout is not None and popen.stderr is not None
    try:
        said = b""
        until = time.monotonic() + 60
        while not said.startswith(word.encode()) and time.monotonic() < until:
            piece = os.read(popen.stdout.fileno(), 256)
            if not piece:
                break
            said += piece
        if not said.startswith(word.encode()):
            popen.kill()
            why = popen.stderr.read().decode(errors="replace").strip()[-300:]
            raise ClassicCannotRun([f"'{Path(str(command[0])).name}' did not get ready: {why or 'it said nothing'}"])
        yield popen
    finally:
        with contextlib.suppress(OSError):
            popen.stdin.close()
        popen.terminate()
        try:
            popen.wait(10)
        except subprocess.TimeoutExpired:
            popen.kill()
            popen.wait()
        popen.stdout.close()
        popen.stderr.close()
