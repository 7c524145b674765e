"""Findings as SARIF 2.1.0 (OASIS standard of 2020-03-27), which code hosts and editors show beside the lines."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

from gitian.lint.model import LEFT_OUT, Finding
from gitian.lint.rules import RULES
from gitian.lint.run import Outcome

SCHEMA = "https://docs.oasis-open.org/sarif/sarif/v2.1.0/errata01/os/schemas/sarif-schema-2.1.0.json"


def document(outcomes: Sequence[Outcome], version: str) -> dict[str, Any]:
    """One SARIF document with one run; ``version`` is gitian's."""
    numbers = {id: number for number, id in enumerate(RULES)}
    return {
        "$schema": SCHEMA, "version": "2.1.0",
        "runs": [{
            "tool": {"driver": {"name": "gitian lint", "semanticVersion": version, "rules": [
                {"id": rule.id, "shortDescription": {"text": rule.title},
                 "help": {"text": f"See {rule.anchor}", "markdown": f"See [{rule.id}]({rule.anchor})"},
                 "defaultConfiguration": {"level": rule.severity.word}} for rule in RULES.values()]}},
            "columnKind": "unicodeCodePoints",
            "invocations": [{"executionSuccessful": True}],
            "artifacts": [{"location": {"uri": _uri(outcome.document.path)},
                           "hashes": {"sha-256": hashlib.sha256(outcome.document.data).hexdigest()}}
                          for outcome in outcomes],
            "results": [_result(finding, outcome, index, numbers) for index, outcome in enumerate(outcomes)
                        for finding in outcome.findings],
        }]}


def text(outcomes: Sequence[Outcome], version: str) -> str:
    """The same, as text."""
    return json.dumps(document(outcomes, version), indent=2) + "\n"


def _result(finding: Finding, outcome: Outcome, index: int, numbers: dict[str, int]) -> dict[str, Any]:
    place: dict[str, Any] = {"physicalLocation": {
        "artifactLocation": {"uri": _uri(outcome.document.path), "index": index}}}
    if finding.line is not None:
        place["physicalLocation"]["region"] = {"startLine": finding.line, "endLine": finding.end_line or finding.line}
    if finding.where:
        place["logicalLocations"] = [{"fullyQualifiedName": finding.where}]
    # Not the line: a finding stays the same one when lines are added above it.
    mark = "\0".join((finding.rule.id, outcome.document.path.name, finding.where, finding.message))
    result: dict[str, Any] = {
        "ruleId": finding.rule.id, "ruleIndex": numbers[finding.rule.id], "level": finding.severity.word,
        "message": {"text": finding.message}, "locations": [place],
        "partialFingerprints": {"gitian/v1": hashlib.sha256(mark.encode("utf-8", "surrogateescape")).hexdigest()}}
    if finding.suppressed is not None:
        kind = "external" if finding.suppressed == LEFT_OUT else "inSource"
        result["suppressions"] = [{"kind": kind, "justification": finding.suppressed}]
    return result


def _uri(path: Path) -> str:
    if path.is_absolute():
        return path.as_uri()
    return quote(str(path).encode("utf-8", "surrogateescape"))
