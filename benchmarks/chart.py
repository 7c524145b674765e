"""The results as a picture: bars of stacked steps, one group for each case, readable on light and dark pages.

    python -m benchmarks.chart RESULTS.json > FILE.svg
"""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Iterable, Mapping
from html import escape
from pathlib import Path
from typing import Any

from benchmarks.steps import REST, STAGES
from benchmarks.tables import WAYS

# Of middling lightness, so that they stand out from white and from black; neighbours differ in hue and lightness.
COLOURS = dict(zip((*STAGES, REST), ("#c9a227", "#2f7fd1", "#e0762f", "#a463c8", "#5f8f2f", "#17a398", "#8b939c",
                                     "#d6457f", "#6f6ad8", "#9a7b5f"), strict=True))
STYLE = """
  text { font: 12px system-ui, sans-serif; fill: #24292f }
  .title { font-weight: 600; font-size: 14px }
  .case { font-weight: 600 }
  .quiet { fill: #57606a }
  .grid { stroke: #d0d7de; stroke-width: 1 }
  @media (prefers-color-scheme: dark) {
    text { fill: #e6edf3 }
    .quiet { fill: #9aa4af }
    .grid { stroke: #30363d }
  }
"""
_WIDTH, _LEFT, _RIGHT, _BAR, _GAP = 860, 110, 70, 16, 6


def draw(results: Mapping[str, Any]) -> str:
    """The SVG file's text."""
    parts: list[str] = []
    top = 24
    for backend, entries in results["builds"].items():
        drawn = [case for case in entries.values() if case["ways"]]
        if drawn:
            top = _panel(parts, top, backend, drawn)
    top = _legend(parts, top, _used(results))
    machine = results["machine"]
    about = (f"{results['date']}; {machine['processors']} processors, {results['processors busy']:.0%} busy with this "
             f"and with whatever else the machine did; Python {machine['python']}")
    parts.append(f'<text class="quiet" x="16" y="{top + 14}">{escape(about)}</text>')
    return (f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {top + 28}" width="{_WIDTH}" '
            f'height="{top + 28}" role="img" aria-label="Seconds that builds take, by step">\n'
            f"<style>{STYLE}</style>\n" + "\n".join(parts) + "\n</svg>\n")


def _panel(parts: list[str], top: int, backend: str, drawn: list[Mapping[str, Any]]) -> int:
    """A backend's cases over one axis; where the next panel begins."""
    most = max(one["seconds"] for case in drawn for one in case["ways"].values())
    step = tick(most)
    scale = (_WIDTH - _LEFT - _RIGHT) / most
    name = {"lxc": "LXC", "kvm": "KVM"}.get(backend, backend)
    parts.append(f'<text class="title" x="16" y="{top}">{name}: seconds of wall time</text>')
    bars: list[str] = []
    y = top + 14
    stretches = []
    for case in drawn:
        y += 16
        bars.append(f'<text class="case" x="16" y="{y}">{escape(case["title"])}</text>')
        y += 8
        start = y - 3
        for way in WAYS:
            if way in case["ways"]:
                _bar(bars, y, way, case["ways"][way], scale)
                y += _BAR + _GAP
        stretches.append((start, y - _GAP + 3))
    for number in range(int(most / step) + 1):
        x = _LEFT + number * step * scale
        for start, end in stretches:  # not through the titles
            parts.append(f'<line class="grid" x1="{x:.1f}" y1="{start}" x2="{x:.1f}" y2="{end}"/>')
        parts.append(f'<text class="quiet" x="{x:.1f}" y="{y + 14}" text-anchor="middle">{number * step:g}</text>')
    parts += bars
    return y + 50


def _bar(parts: list[str], y: int, way: str, one: Mapping[str, Any], scale: float) -> None:
    parts.append(f'<text x="{_LEFT - 8}" y="{y + 12}" text-anchor="end">{way}</text>')
    x = float(_LEFT)
    # Targets side by side have steps that overlap: their bar is as long as the build, and its parts in proportion.
    total = sum(one["stages"].values())
    shrunk = min(1.0, one["seconds"] / total) if total else 1.0
    for stage in (*STAGES, REST):
        seconds = one["stages"].get(stage, 0.0)
        width = seconds * shrunk * scale
        if width >= 0.3:
            parts.append(f'<rect x="{x:.1f}" y="{y}" width="{max(0.5, width - 0.7):.1f}" height="{_BAR}" '
                         f'fill="{COLOURS[stage]}"><title>{stage}: {seconds:.2f} s</title></rect>')
        x += width
    parts.append(f'<text x="{x + 6:.1f}" y="{y + 12}">{one["seconds"]:.{1 if one["seconds"] >= 10 else 2}f}</text>')


def _used(results: Mapping[str, Any]) -> list[str]:
    """The stages that are to be seen anywhere."""
    ways = [one for entries in results["builds"].values() for case in entries.values()
            for one in case["ways"].values()]
    return [stage for stage in (*STAGES, REST) if any(one["stages"].get(stage, 0.0) >= 0.01 for one in ways)]


def _legend(parts: list[str], top: int, stages: Iterable[str]) -> int:
    x = 16
    for stage in stages:
        width = 30 + 7 * len(stage)
        if x + width > _WIDTH - 16:
            x, top = 16, top + 20
        parts.append(f'<rect x="{x}" y="{top - 10}" width="12" height="12" fill="{COLOURS[stage]}"/>'
                     f'<text x="{x + 17}" y="{top}">{stage}</text>')
        x += width
    return top + 16


def tick(most: float) -> float:
    """A round distance of grid lines, of which about six fit into ``most``."""
    rough = max(most, 1e-6) / 6
    power = 10 ** math.floor(math.log10(rough))
    return float(next(factor * power for factor in (1, 2, 5, 10) if factor * power >= rough))


if __name__ == "__main__":
    sys.stdout.write(draw(json.loads(Path(sys.argv[1]).read_bytes())))
