"""Suppression by comment: '# gitian-lint: ignore=ID[,ID] reason', beside a line or above it, or for a whole file."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

from gitian.lint import rules
from gitian.lint.model import Finding, Findings

_COMMENT = re.compile(r"#\s*gitian-lint:\s*ignore(-file)?\s*=\s*([A-Za-z0-9_-]+(?:\s*,\s*[A-Za-z0-9_-]+)*)[ \t]*(.*)$")


@dataclass(frozen=True, slots=True, kw_only=True)
class Comment:
    """A suppression: of which rules, in which line (None: in the whole file), why, and where the comment stands."""

    ids: tuple[str, ...]
    target: int | None
    reason: str
    line: int

    def covers(self, finding: Finding) -> bool:
        """Whether it is about this finding."""
        if finding.rule.id not in self.ids:
            return False
        if self.target is None:
            return True
        return finding.line is not None and finding.line <= self.target <= (finding.end_line or finding.line)


def find_comments(text: str) -> tuple[Comment, ...]:
    """All suppressions of a document, the script's comments included."""
    lines = text.splitlines()
    found = []
    for number, line in enumerate(lines, 1):
        matched = _COMMENT.search(line) if "gitian-lint" in line else None
        if matched is None:
            continue
        target: int | None = number
        if matched[1]:
            target = None
        elif line.lstrip().startswith("#"):
            target = next((at for at in range(number + 1, len(lines) + 1)
                           if lines[at - 1].strip() and not lines[at - 1].lstrip().startswith("#")), number)
        found.append(Comment(ids=tuple(re.split(r"\s*,\s*", matched[2])), target=target, reason=matched[3].strip(),
                             line=number))
    return tuple(found)


def apply(findings: Sequence[Finding], comments: Sequence[Comment]) -> tuple[Finding, ...]:
    """The findings, those suppressed marked so; and what is to be said about the comments themselves."""
    used: set[tuple[int, str]] = set()
    marked = []
    for finding in findings:
        for comment in comments:
            if comment.covers(finding):
                used.add((comment.line, finding.rule.id))
                finding = replace(finding, suppressed=comment.reason or "no reason is given")
                break
        marked.append(finding)
    more = Findings()
    for comment in comments:
        if not comment.reason:
            more.add(rules.IGNORED_WITHOUT_REASON, f"'{', '.join(comment.ids)}' is ignored without a reason; write it "
                     "behind.", line=comment.line)
        for id in comment.ids:
            if (comment.line, id) not in used:
                what = "there is no such rule" if id not in rules.RULES else "it is not found here"
                more.add(rules.IGNORED_NOTHING, f"'{id}' is ignored, and {what}.", line=comment.line)
    return (*marked, *more.ordered())
