"""What was to be reached, compared with what was found."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def targets(results: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Each target that the measurements say something about: what, its bound, what was found, whether it is met."""
    found: list[dict[str, Any]] = []

    def add(what: str, value: float | None, bound: float, unit: str, *, least: bool = False) -> None:
        if value is not None:
            found.append({"what": what, "bound": f"{'>=' if least else '<='} {bound:.3g}{unit}",
                          "found": f"{value:.2f}{unit}", "met": value >= bound if least else value <= bound})

    def of(backend: str, case: str, way: str, key: str = "seconds") -> float | None:
        value = results["builds"].get(backend, {}).get(case, {}).get("ways", {}).get(way, {}).get(key)
        return value if isinstance(value, float | int) else None

    def divided(one: float | None, other: float | None) -> float | None:
        return one / other if one is not None and other else None

    add("LXC, tiny, warm: besides the script", of("lxc", "tiny", "warm", "overhead"), 1.0, " s")
    add("KVM, tiny, warm: until the guest is there", of("kvm", "tiny", "warm", "usable"), 3.0, " s")
    add("LXC, tiny, cold / the classic", divided(of("lxc", "tiny", "cold"), of("lxc", "tiny", "classic")), 1 / 3, "")
    for name, words in (("matrix", "by default"), ("matrix-wide", "all at once")):
        add(f"LXC, all targets / one, warm, idle, {words}",
            divided(of("lxc", name, "warm"), of("lxc", "one", "warm")), 1.5, "")
    for kind, one in results.get("hashing", {}).items():
        add(f"hashing {kind}: throughput / sha256sum x 2", one["of sha256sum"], 0.9, "", least=True)
    if starting := results.get("starting"):
        worst = max(one["cpu"] for name, one in starting.items() if name.endswith("--help"))
        add("the slowest --help: CPU", worst, 0.2, " s")
    return found
