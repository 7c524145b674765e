"""Whether this machine runs guests in hardware. That /dev/kvm is there, and opens, proves nothing: a kernel is booted.

docs/reference/acceleration.md describes the probe and what is remembered.
"""

from __future__ import annotations

import contextlib
import json
import os
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gitian.errors import GitianError, HostError, UsageError
from gitian.guest import qemu
from gitian.host import process, tools
from gitian.host.workspace import write_atomically

DEVICE = Path("/dev/kvm")
#: A kernel prints its first line within a fraction of a second in hardware, and is through in about one (seconds).
_FIRST_WORD = 4.0
_WHOLE_BOOT = 20.0
#: That it does not work may be due to a passing trouble, so it is asked again after a week (seconds).
_DISBELIEF = 7 * 86400
_CHOICES = ("auto", "kvm", "tcg")


@dataclass(frozen=True, slots=True, kw_only=True)
class Acceleration:
    """``name`` is qemu's: 'kvm' or 'tcg' (software emulation). ``why`` says why not hardware, empty when it was asked
    for."""

    name: str
    why: str = ""


def choose(*, program: Sequence[str], kernel: Path, environment: Mapping[str, str], fallback: Path) -> Acceleration:
    """How guests run here: as $GITIAN_ACCEL says (kvm, tcg), else by what works, asked once and remembered.

    ``kernel`` is booted for the question; ``fallback`` is the directory in which the answer is kept when the user has
    no cache directory. Raises UsageError, HostError (kvm was asked for and cannot be had), MissingToolError.
    """
    wanted = environment.get("GITIAN_ACCEL") or "auto"
    if wanted not in _CHOICES:
        raise UsageError(f"'{wanted}' is no kind of acceleration.", hint="Choose one of: " + ", ".join(_CHOICES) + ".")
    if wanted == "tcg":
        return Acceleration(name="tcg")
    trouble = _device_trouble()
    if wanted == "kvm":
        if trouble:
            raise HostError(f"Guests cannot run in hardware: {trouble}.", hint="Use '--accel tcg', which is slow.")
        return Acceleration(name="kvm")
    if trouble:
        return Acceleration(name="tcg", why=trouble)
    key = _key(program)
    store = cache_file(environment, fallback)
    why = _remembered(store, key)
    if why is None:
        why = probe(program, kernel)
        _remember(store, key, why)
    return Acceleration(name="tcg", why=why) if why else Acceleration(name="kvm")


def cache_file(environment: Mapping[str, str], fallback: Path) -> Path:
    """Where answers are kept: the user's cache directory (XDG Base Directory Specification), else ``fallback``."""
    home = environment.get("XDG_CACHE_HOME") or ""
    if not home.startswith("/"):
        home = f"{environment['HOME']}/.cache" if environment.get("HOME", "").startswith("/") else ""
    if home:
        directory = Path(home) / "gitian"
        with contextlib.suppress(OSError):
            directory.mkdir(parents=True, exist_ok=True)
            if os.access(directory, os.W_OK):
                return directory / "acceleration.json"
    return fallback / "acceleration.json"


def probe(program: Sequence[str], kernel: Path) -> str:
    """Boot ``kernel`` in hardware, with nothing to start: it must get as far as missing its root file system.

    The reason why it does not work, or '' when it does. Takes about a second where it works, at most 20 s.
    """
    with tempfile.TemporaryDirectory(prefix="gitian-probe-") as scratch:
        console = Path(scratch) / "console"
        console.touch(0o600)
        command = [*program, "-no-user-config", "-nodefaults", "-no-reboot", "-display", "none", "-vga", "none",
                   "-machine", "pc", *qemu.accelerated("kvm"), "-m", "256", "-kernel", str(kernel),
                   "-append", "console=ttyS0 earlyprintk=ttyS0 panic=-1", "-serial", f"file:{qemu.value(console)}"]
        with (Path(scratch) / "said").open("w+b") as said:
            booting = process.popen(command, stdout=said, stderr=said)
            try:
                def talks() -> bool:
                    return booting.poll() is not None or console.stat().st_size > 0

                if not process.wait_until(talks, _FIRST_WORD):
                    return f"a kernel started with it printed nothing for {_FIRST_WORD:g} s"
                if not process.wait_until(lambda: booting.poll() is not None, _WHOLE_BOOT):
                    return f"a kernel started with it did not get through in {_WHOLE_BOOT:g} s"
            finally:
                process.end(booting, patience=0.2)
            if b"Kernel panic" in console.read_bytes()[-65536:]:
                return ""
            said.seek(0)
            lines = said.read(4096).decode(errors="replace").split("\n")
            return "qemu could not use it" + (f" ({lines[0].strip()[:200]})" if lines[0].strip() else "")


def _device_trouble() -> str:
    if os.uname().machine not in ("x86_64", "i686", "i586", "i386"):
        return "this machine's processor is of another kind than the guests'"
    try:
        os.close(os.open(DEVICE, os.O_RDWR | os.O_CLOEXEC))
    except FileNotFoundError:
        return "there is no /dev/kvm"
    except PermissionError:
        return "/dev/kvm may not be opened by this user (is it in the group kvm?)"
    except OSError as error:
        return f"/dev/kvm cannot be opened: {error.strerror}"
    return ""


def _key(program: Sequence[str]) -> str:
    """What the answer depends on: kernel, processor, and qemu."""
    return "|".join([os.uname().release, processor().partition(":")[2].strip(), *version_of(program)])


def version_of(program: Sequence[str]) -> list[str]:
    """What stands for qemu's version: a path, a size and a time. Raises MissingToolError."""
    binary = Path(tools.find(program[0])).resolve()
    about = binary.stat()
    return [str(binary), str(about.st_size), str(about.st_mtime_ns)]


def processor() -> str:
    """The line of /proc/cpuinfo that names the processor, '' when there is none."""
    with contextlib.suppress(OSError), Path("/proc/cpuinfo").open(errors="replace") as lines:
        return next((line.strip() for line in lines if line.startswith("model name")), "")
    return ""


def _load(store: Path) -> dict[str, Any]:
    try:
        value = json.loads(store.read_bytes()[:2**20])
    except (OSError, ValueError):
        return {}
    return value if isinstance(value, dict) else {}


def _remembered(store: Path, key: str) -> str | None:
    entry = _load(store).get(key)
    if not isinstance(entry, dict) or not isinstance(entry.get("why"), str) \
            or not isinstance(entry.get("time"), int | float):
        return None
    if entry["why"] and not 0 <= time.time() - entry["time"] < _DISBELIEF:
        return None
    return str(entry["why"])


def _remember(store: Path, key: str, why: str) -> None:
    entries = dict(list(_load(store).items())[-20:])
    entries[key] = {"why": why, "time": int(time.time())}
    # An answer that cannot be kept is asked for again.
    with contextlib.suppress(OSError, GitianError):
        write_atomically(store, (json.dumps(entries, indent=1) + "\n").encode())
