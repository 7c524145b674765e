"""How much agreement is enough: a number of distinct keys, or weights by fingerprint.

The file is JSON or YAML (docs/reference/policy.md):

    minimum_weight: 3
    signers:
      71A3B16735405025D447E8F274810B012346C9A6: {name: laanwj, weight: 2}
      E777299FC265DD04793070EB944D35F9AC3DB76A: 1
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from gitian.errors import FormatError

_FINGERPRINT = re.compile("[0-9A-F]{40}|[0-9A-F]{64}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """``require`` distinct keys must agree, and, with weights, keys of ``minimum_weight`` together.

    With weights a key that is not listed weighs nothing; without, each weighs one.
    """

    require: int = 1
    minimum_weight: int = 0
    weights: Mapping[str, int] | None = None
    names: Mapping[str, str] = field(default_factory=dict)

    def weight(self, fingerprint: str) -> int:
        """What a primary key weighs."""
        return 1 if self.weights is None else self.weights.get(fingerprint, 0)


def read(path: Path, *, require: int = 1) -> Policy:
    """A policy file. Raises FormatError with everything that is wrong with it."""
    from gitian.formats import yamlio

    source = str(path)
    document = yamlio.parse(yamlio.read_bounded(path, "policy"), source, only_document=True)
    wrong: list[str] = []
    top = _mapping(document, "", wrong)
    if not top:
        raise FormatError(f"The policy '{source}' is no mapping of 'minimum_weight' and 'signers'.",
                          hint="docs/reference/policy.md shows what a policy looks like.")
    wrong += [f"{key}: is no key of a policy" for key in top if key not in ("minimum_weight", "signers")]
    minimum = _number(top["minimum_weight"], 1) if "minimum_weight" in top else 1
    if minimum is None:
        wrong.append("minimum_weight: must be a whole number, 1 or more")
    weights: dict[str, int] = {}
    names: dict[str, str] = {}
    signers = _mapping(top.get("signers"), "signers.", wrong)
    if not signers:
        wrong.append("signers: must be a mapping of full fingerprints")
    for key, node in (signers or {}).items():
        fingerprint = key.replace(" ", "").upper().removeprefix("0X")
        fields = _mapping(node, f"signers.{key}.", wrong)
        weight = _number(node if fields is None else fields.get("weight"), 0, absent=1)
        if not _FINGERPRINT.fullmatch(fingerprint):
            wrong.append(f"signers.{key}: is no full fingerprint (40 or 64 hexadecimal digits)")
        elif fingerprint in weights:
            wrong.append(f"signers.{key}: stands there twice")
        elif weight is None:
            wrong.append(f"signers.{key}: the weight must be a whole number, 0 or more")
        else:
            weights[fingerprint] = weight
            names[fingerprint] = getattr((fields or {}).get("name"), "text", "")
        wrong += [f"signers.{key}.{field}: is no key of a signer" for field in fields or ()
                  if field not in ("name", "weight")]
    if weights and minimum is not None and minimum > sum(weights.values()):
        wrong.append("minimum_weight: is more than all signers weigh together")
    if wrong:
        raise FormatError(f"The policy '{source}' cannot be used:\n" + "\n".join(wrong),
                          hint="docs/reference/policy.md shows what a policy looks like.")
    return Policy(require=require, minimum_weight=minimum or 1, weights=weights, names=names)


def _mapping(node: object, where: str, wrong: list[str]) -> dict[str, object] | None:
    """A mapping with its keys as they are written: a fingerprint of digits alone would be a number to YAML."""
    from gitian.formats import yamlio

    if not isinstance(node, yamlio.MappingNode):
        return None
    found: dict[str, object] = {}
    for key, value in node.pairs:
        text = key.text if isinstance(key, yamlio.ScalarNode) else "?"
        if text in found:
            wrong.append(f"{where}{text}: stands there twice")
        found[text] = value
    return found


def _number(node: object, least: int, *, absent: int | None = None) -> int | None:
    if node is None:
        return absent
    text = getattr(node, "text", "")
    return int(text) if re.fullmatch("[0-9]{1,9}", text) and int(text) >= least else None
