"""Numbers for people: aligned tables of what was measured, and which targets were met."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks.steps import REST, STAGES

#: How a case was built, in the order in which it is shown. The classic knows one way only.
WAYS = ("cold", "warm", "no layers", "classic")


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Columns, the first to the left and the others to the right."""
    widths = [max(len(row[place]) for row in (head, *rows)) for place in range(len(head))]

    def line(row: Sequence[str]) -> str:
        return "  ".join(cell.ljust(width) if place == 0 else cell.rjust(width)
                         for place, (cell, width) in enumerate(zip(row, widths, strict=True))).rstrip()

    return "\n".join([line(head), line(["-" * width for width in widths]), *map(line, rows)]) + "\n"


def builds(results: Mapping[str, Any], backend: str) -> str:
    """Wall times of every case of a backend, and how much faster a layer makes it; then the steps of each case."""
    entries = results["builds"].get(backend, {})
    ways = [way for way in WAYS if any(way in case["ways"] for case in entries.values())]
    head = [f"{backend}: seconds", *ways, "no layers / warm"]
    against = [way for way in ("cold", "warm") if way in ways and "classic" in ways]
    head += [f"classic / {way}" for way in against]
    rows = []
    for case in entries.values():
        seconds = {way: case["ways"][way]["seconds"] for way in ways if way in case["ways"]}
        rows.append([case["title"], *(shown(seconds.get(way)) for way in ways),
                     ratio(seconds.get("no layers"), seconds.get("warm")),
                     *(ratio(seconds.get("classic"), seconds.get(way)) for way in against)])
    text = table(head, rows)
    for case in entries.values():
        used = [way for way in ways if way in case["ways"]]
        stages = [stage for stage in (*STAGES, REST)
                  if any(case["ways"][way]["stages"].get(stage, 0) >= 0.005 for way in used)]
        text += "\n" + table([f"{backend}, {case['title']}", *used], [
            [stage, *(shown(case["ways"][way]["stages"].get(stage)) for way in used)] for stage in stages] + [
            ["besides the script", *(shown(case["ways"][way]["overhead"]) for way in used)]])
    return text


def costs(results: Mapping[str, Any]) -> str:
    """Hashing and starting."""
    text = ""
    if images := results.get("make-base-vm"):
        text += table(["making a base image", "seconds"], [[name, shown(value)] for name, value in images.items()])
        text += "\n"
    if hashing := results.get("hashing"):
        text += table(["hashing an output tree", "files", "GB", "sha256sum x 2 (s)", "gitian (s)", "of sha256sum"], [
            [kind, str(one["files"]), f"{one['bytes'] / 1e9:.2f}", f"{one['sha256sum (s)']:.2f}",
             f"{one['gitian (s)']:.2f}", f"{one['of sha256sum']:.2f}"] for kind, one in hashing.items()]) + "\n"
    if starting := results.get("starting"):
        text += table(["starting", "CPU s", "wall s", "/ python"], [
            [name, f"{one['cpu']:.3f}", f"{one['wall']:.3f}", f"{one['ratio']:.1f}"]
            for name, one in starting.items()]) + "\n"
    return text


def targets(results: Mapping[str, Any]) -> str:
    """What was to be reached, and what was."""
    return table(["target", "bound", "found", ""], [
        [one["what"], one["bound"], one["found"], "met" if one["met"] else "MISSED"] for one in results["targets"]])


def shown(seconds: float | None) -> str:
    """'1.23', or nothing."""
    return "" if seconds is None else f"{seconds:.2f}"


def ratio(one: float | None, other: float | None) -> str:
    """'12.3', or nothing where one of them is missing."""
    return f"{one / other:.1f}" if one is not None and other else ""
