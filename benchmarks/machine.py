"""The machine that numbers come from: without it they mean nothing."""

from __future__ import annotations

import os
import platform
import re
from pathlib import Path


def machine() -> dict[str, str | int | float]:
    """Processors, memory and kernel. Nothing that names the machine or its owner."""
    cpu = re.search(r"^model name\s*:\s*(.*)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    memory = re.search(r"^MemTotal:\s+(\d+)", Path("/proc/meminfo").read_text(), re.MULTILINE)
    return {"processors": len(os.sched_getaffinity(0)), "model": cpu[1].strip() if cpu else platform.machine(),
            "memory (GiB)": round(int(memory[1]) / 2**20, 1) if memory else 0,
            "kernel": platform.release().split("-")[0],
            "python": platform.python_version()}


def busy() -> tuple[float, float]:
    """Processor seconds spent by anybody, and all there were, since the machine was started (proc(5), /proc/stat)."""
    words = Path("/proc/stat").read_text().splitlines()[0].split()[1:9]
    tick = os.sysconf("SC_CLK_TCK")
    times = [int(word) / tick for word in words]
    return sum(times) - times[3] - times[4], sum(times)


def load() -> float:
    """How many processes wanted a processor during the last minute."""
    return round(os.getloadavg()[0], 2)
