"""The recorded cases of the classic: what it was given, what it answered (tests/fixtures/golden, JSON lines)."""

from __future__ import annotations

import base64
import json
import math
from functools import cache
from pathlib import Path
from typing import Any

from gitian.formats import psych
from gitian.formats.yamlio import Hash, Omap, Value

GOLDEN = Path(__file__).resolve().parents[1] / "fixtures" / "golden"

Case = dict[str, Any]


@cache
def cases(name: str) -> list[Case]:
    """The cases of one file, each with an 'id'."""
    lines = (GOLDEN / f"{name}.jsonl").read_bytes().splitlines()  # of bytes: U+2028 stands in some texts
    found = [json.loads(line) for line in lines]
    assert found
    return found


def value_of(recorded: Any) -> Value:
    """A value as emit.jsonl records what was emitted."""
    if isinstance(recorded, dict):
        (kind, inner), = recorded.items()
        pairs = tuple((key, value_of(value)) for key, value in (inner.items() if isinstance(inner, dict) else inner))
        return Omap(pairs) if kind == "omap" else Hash(pairs)
    if isinstance(recorded, list):
        return tuple(value_of(item) for item in recorded)
    assert recorded is None or isinstance(recorded, bool | int | float | str)
    return recorded


def same(value: Value, ruby: Case) -> bool:
    """Whether our value is the one that Ruby gave (tagged: 't' type, 'v' value)."""
    kind, recorded = ruby["t"], ruby.get("v")
    if kind == "nil":
        return value is None
    if kind == "String":
        return value == (base64.b64decode(ruby["b64"]) if "b64" in ruby else recorded)
    if kind == "Symbol":
        return value == psych.Symbol(str(recorded))
    if kind == "Bool":
        return value is recorded
    if kind == "Integer":
        return type(value) is int and str(value) == recorded
    if kind == "Float":
        assert recorded is not None
        if not isinstance(value, float):
            return False
        return math.isnan(value) if recorded == "NaN" else value == float(recorded)
    assert isinstance(recorded, list)
    if kind == "Array":
        return isinstance(value, tuple) and len(value) == len(recorded) and all(map(same, value, recorded))
    pairs = getattr(value, "pairs", ())
    return (isinstance(value, {"Hash": Hash, "Psych::Omap": Omap}[kind]) and len(pairs) == len(recorded)
            and all(same(a[0], b[0]) and same(a[1], b[1]) for a, b in zip(pairs, recorded, strict=True)))


