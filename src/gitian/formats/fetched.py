"""What was fetched for a build: where it came from, how large it was, what it was.

Format: docs/reference/fetched.md.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from gitian.formats.jsonio import SHA256

VERSION = 1


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class Fetched:
    """A file that was fetched; ``size`` in bytes. ``sha256`` of a package is what it was checked to have.

    That is '' where the archive's index has no SHA-256. Of an index, size and hash are what the guest's own find and
    sha256sum said once apt had checked it; nobody else has hashed the file.
    With ``pooled`` it came from this machine's package pool, and ``url`` is where it would have been fetched.
    """

    url: str
    size: int
    sha256: str
    pooled: bool = False


def to_json(label: str, network: bool, fetched: Iterable[Fetched]) -> bytes:
    """The record of a target ('suite-arch'), a line per file; ``network`` is whether its script had the network."""
    lines = [json.dumps(_entry(one), sort_keys=True) for one in sorted(set(fetched))]
    head = {"version": VERSION, "target": label, "network": network}
    text = ",\n".join([*(f" {json.dumps(key)}: {json.dumps(head[key])}" for key in sorted(head)),
                       ' "fetched": [' + ",".join(f"\n  {line}" for line in lines) + ("\n ]" if lines else "]")])
    return ("{\n" + text + "\n}\n").encode("ascii")


def _entry(one: Fetched) -> dict[str, Any]:
    # What a source's line says of users and passwords is for nobody's eyes.
    # A guest's file names are in some URLs, so that they need not be any: nothing here takes them apart.
    url = re.sub("^([^/?#]*//)[^/?#]*@", r"\1", one.url)
    return {"url": url, "size": one.size, **({"sha256": one.sha256} if one.sha256 else {}),
            **({"from": "pool"} if one.pooled else {})}


def from_record(value: Any) -> Fetched:
    """One entry, as :func:`dataclasses.asdict` gives it. Raises ValueError, KeyError, TypeError."""
    one = Fetched(url=str(value["url"]), size=int(value["size"]), sha256=str(value["sha256"]),
                  pooled=bool(value["pooled"]))
    if one.sha256 and not SHA256.fullmatch(one.sha256):
        raise ValueError("no SHA-256")
    return one
