"""Policies: weights by full fingerprint, in JSON or YAML, all mistakes named at once."""

from __future__ import annotations

from pathlib import Path

import pytest

from gitian.errors import FormatError
from gitian.sigs import policy

A, B = "A" * 40, "0" * 39 + "1"


def read(tmp_path: Path, text: str) -> policy.Policy:
    (tmp_path / "p").write_text(text)
    return policy.read(tmp_path / "p")


@pytest.mark.parametrize("text", [
    f"minimum_weight: 3\nsigners:\n  {A}: {{name: alice, weight: 2}}\n  {B}: 1\n",
    f'{{"minimum_weight": 3, "signers": {{"{A.lower()}": {{"name": "alice", "weight": 2}}, "{B}": {{}}}}}}',
    f'minimum_weight: "3"\nsigners:\n  "0x{A}": {{name: alice, weight: 2}}\n  {B[:20]} {B[20:]}: 1\n',
])
def test_json_and_yaml(tmp_path: Path, text: str) -> None:
    found = read(tmp_path, text)
    assert found.minimum_weight == 3
    # The second fingerprint is a number to YAML; it stays the text that it is.
    assert dict(found.weights or {}) == {A: 2, B: 1}
    assert found.names[A] == "alice"
    assert (found.weight(A), found.weight("F" * 40)) == (2, 0)


def test_without_weights_every_key_weighs_one() -> None:
    assert policy.Policy().weight(A) == 1


@pytest.mark.parametrize(("text", "words"), [
    ("", "no mapping"),
    ("- a\n", "no mapping"),
    ("minimum_weight: 1\n", "signers: must be"),
    (f"minimum_weight: 0\nsigners: {{{A}: 1}}\n", "minimum_weight: must be"),
    (f"minimum_weight: 2\nsigners: {{{A}: 1}}\n", "more than all signers weigh"),
    (f"signers: {{{A[:16]}: 1}}\n", "no full fingerprint"),
    (f"signers: {{{A}: -1}}\n", "weight must be"),
    (f"signers: {{{A}: much}}\n", "weight must be"),
    (f"signers: {{{A}: 1, {A.lower()}: 1}}\n", "twice"),
    (f"signers: {{{A}: 1}}\nsigners: {{{A}: 1}}\n", "twice"),
    (f"signers: {{{A}: {{wieght: 1}}}}\n", "wieght"),
    (f"minimum: 1\nsigners: {{{A}: 1}}\n", "minimum: is no key"),
])
def test_mistakes_are_named(tmp_path: Path, text: str, words: str) -> None:
    with pytest.raises(FormatError, match=words):
        read(tmp_path, text)
