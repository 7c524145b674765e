"""Rules, findings, and what they are judged by."""

from __future__ import annotations

import datetime
import enum
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

#: Where the rules are explained; each has a heading of its name.
PAGE = "docs/reference/lint.md"
#: Why a finding is suppressed that no comment is about.
LEFT_OUT = "left out by the user"


class Severity(enum.IntEnum):
    """How grave a finding is.

    An error is certain from the text alone: what comes out differs from build to build, or what is installed or run is
    authenticated by nobody. A warning may be harmless, or is a fact that changes with time; a note is to be known.
    """

    NOTE = 1
    WARNING = 2
    ERROR = 3

    @property
    def word(self) -> str:
        """'note', 'warning' or 'error', which are SARIF's levels too."""
        return self.name.lower()


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """A rule: its id, its usual severity, and what it is about, in one sentence."""

    id: str
    severity: Severity
    title: str

    @property
    def anchor(self) -> str:
        """Where it is explained."""
        return f"{PAGE}#{self.id}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """Something found: the rule, how grave it is here, a full sentence, and where.

    ``line`` and ``end_line`` count from 1 and are None for the document as a whole; ``where`` names the key or target.
    ``suppressed`` is the reason given in a comment, or by the user.
    """

    rule: Rule
    message: str
    severity: Severity
    line: int | None = None
    end_line: int | None = None
    where: str = ""
    suppressed: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Offer:
    """The newest version that an archive offers of a package, and whether it comes from the security archive."""

    version: str
    security: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Circumstances:
    """What is judged by: the day; where clones of remotes lie, if anywhere; what archives offer, by target and package.

    ``offers`` is None when no archive was asked. Its keys are ('suite', 'architecture', 'package').
    """

    today: datetime.date
    inputs: Path | None = None
    offers: Mapping[tuple[str, str, str], Offer] | None = None


@dataclass(slots=True, kw_only=True)
class Findings:
    """Collects findings, each once."""

    found: dict[tuple[str, int | None, str, str], Finding] = field(default_factory=dict)

    def add(self, rule: Rule, message: str, *, line: int | None = None, end_line: int | None = None, where: str = "",
            severity: Severity | None = None) -> None:
        """Note a finding; the same one again counts once, with the graver severity."""
        finding = Finding(rule=rule, message=message, severity=severity or rule.severity, line=line,
                          end_line=end_line or line, where=where)
        key = (rule.id, line, message, where)
        if key not in self.found or self.found[key].severity < finding.severity:
            self.found[key] = finding

    def ordered(self) -> tuple[Finding, ...]:
        """In the order of the document, the graver first."""
        return tuple(sorted(self.found.values(), key=lambda finding: (
            finding.line or 0, -finding.severity, finding.where, finding.rule.id, finding.message)))
