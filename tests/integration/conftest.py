"""What integration tests share: base images made once, and our commands with a clean environment."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SCRIPTS = Path(sys.executable).parent
SYSTEM_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


@dataclass(frozen=True, kw_only=True)
class Commands:
    """Runs our console scripts as a user would, with an environment that holds nothing of the user's own."""

    home: Path
    extra: Mapping[str, str] = field(default_factory=dict)

    def environment(self, extra: Mapping[str, str] | None = None) -> dict[str, str]:
        kept = {name: os.environ[name] for name in ("TMPDIR", "http_proxy", "https_proxy") if name in os.environ}
        return {**kept, "no_proxy": "127.0.0.1,localhost", "PATH": f"{SCRIPTS}:{SYSTEM_PATH}", "HOME": str(self.home),
                "LANG": "C.UTF-8", "PYTHONPATH": str(ROOT / "src"), **self.extra, **(extra or {})}

    def start(self, *words: str | Path, cwd: Path | None = None,
              env: Mapping[str, str] | None = None) -> subprocess.Popen[bytes]:
        """Start 'make-base-vm', 'gbuild', 'gsign', 'gverify' or any subcommand of gitian."""
        argv = [sys.executable, "-m", "gitian.cli.main", *map(str, words)]
        return subprocess.Popen(argv, cwd=cwd, env=self.environment(env), stdin=subprocess.DEVNULL,
                                stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True)

    def run(self, *words: str | Path, cwd: Path | None = None, env: Mapping[str, str] | None = None,
            check: bool = True, timeout: float = 800) -> subprocess.CompletedProcess[str]:
        """Run one to its end; with ``check`` a failure fails the test, showing what was said."""
        process = self.start(*words, cwd=cwd, env=env)
        try:
            out, err = process.communicate(timeout=timeout)
        finally:
            process.kill()
            process.wait()
        done = subprocess.CompletedProcess(words, process.returncode, out.decode(errors="replace"),
                                           err.decode(errors="replace"))
        if check:
            assert done.returncode == 0, f"{words} ended with {done.returncode}:\n{done.stdout}\n{done.stderr}"
        return done


@pytest.fixture
def commands(tmp_path_factory: pytest.TempPathFactory) -> Commands:
    """Our commands, with a home of their own."""
    return Commands(home=tmp_path_factory.mktemp("home"))


@pytest.fixture(scope="session")
def image_directory(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Where base images are kept: $GITIAN_TEST_IMAGES, else a directory that is gone after the session."""
    chosen = os.environ.get("GITIAN_TEST_IMAGES")
    if chosen:
        Path(chosen).mkdir(parents=True, exist_ok=True)
        yield Path(chosen)
        return
    directory = tmp_path_factory.mktemp("images")
    yield directory
    from gitian.images import lxc

    for entry in directory.iterdir():
        lxc.remove(entry)


def made(directory: Path, home: Path, arch: str, *, lxc: bool) -> None:
    """Make a bookworm image unless it is there."""
    path = directory / (f"base-bookworm-{arch}" + ("" if lxc else ".qcow2"))
    if not path.exists():
        Commands(home=home).run("make-base-vm", "--distro", "debian", "--suite", "bookworm", "--arch", arch,
                                "--without", "security", *(["--lxc"] if lxc else []),
                                env={"GITIAN_IMAGES": str(directory)}, cwd=home)


@pytest.fixture(scope="session")
def images(image_directory: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with base images of Debian bookworm amd64, for LXC and KVM, from one root filesystem."""
    home = tmp_path_factory.mktemp("make")
    made(image_directory, home, "amd64", lxc=True)
    made(image_directory, home, "amd64", lxc=False)
    return image_directory


@pytest.fixture(scope="session")
def images_i386(images: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same directory, with an LXC image of bookworm i386 besides."""
    made(images, tmp_path_factory.mktemp("make"), "i386", lxc=True)
    return images
