"""What tests of gverify share: its command in this process, and what it printed, taken apart."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Any

import pytest

WORDS = ("OK", "MISMATCH", "BAD SIGNATURE", "NO KEY", "EXPIRED KEY", "REVOKED KEY", "WRONG RELEASE", "WRONG NAME",
         "BAD ATTESTATION",         "UNREADABLE")
_LINE = re.compile(r"^(?:\x1b\[1m)?(.+): (" + "|".join(WORDS) + r")(?:\x1b\[0m)?$", re.MULTILINE)
_MISSING = re.compile(r"^missing (result|signature) at (.+)$", re.MULTILINE)


@dataclass(frozen=True, kw_only=True)
class Ran:
    """A run of gverify."""

    status: int
    stdout: str
    stderr: str

    @property
    def verdicts(self) -> list[tuple[str, str]]:
        return [(found[1], found[2]) for found in _LINE.finditer(self.stdout)]

    @property
    def missing(self) -> list[tuple[str, str]]:
        return [(found[1], found[2]) for found in _MISSING.finditer(self.stdout)]

    @property
    def document(self) -> Any:
        return json.loads(self.stdout)


def gverify(capfd: pytest.CaptureFixture[str], *words: str, command: str = "gverify") -> Ran:
    """Run gverify, or another command, with all that a user sees of it."""
    from gitian.cli import common, main

    capfd.readouterr()
    status = common.status_of(main.load(command), command, list(words))
    out, err = capfd.readouterr()
    return Ran(status=status, stdout=out, stderr=err)
