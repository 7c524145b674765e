"""Verdicts on a whole tree as a table for people, or as one JSON document.

Both are kept aside, in a file, until everything is known and the progress bar is gone.
"""

from __future__ import annotations

import shutil
import sys
import unicodedata
from collections.abc import Iterator, Sequence
from typing import IO, TYPE_CHECKING, Any

import click

from gitian.cli.common import json_text
from gitian.host.progress import plain
from gitian.sigs.verdict import ABSENT, Decision, Outcome

if TYPE_CHECKING:
    from gitian.sigs.survey import Found, Totals
    from gitian.sigs.verdict import Verdict
    from gitian.sigs.verify import Pair

#: A decision in the words of tables and pages.
WORDS = {Decision.AGREE: "agree", Decision.DISAGREE: "disagree", Decision.POLICY: "too few agree",
         Decision.NOTHING: "nothing to verify"}
_COLOURS = {Decision.AGREE: "green", Decision.DISAGREE: "red", Decision.POLICY: "yellow", Decision.NOTHING: "yellow"}
_HEADS = ("RELEASE", "PACKAGE", "VERDICT", "KEYS", "SIGNED", "WHO IS NOT OK")
#: So many names of signers stand in a row before '+ N'.
_NAMES = 5
#: So much of the last column is shown even on a narrow terminal (characters).
_LEAST = 30


def pairs_of(count: int) -> str:
    """'1 release', '12 releases': of each package one."""
    return f"{count} {'release' if count == 1 else 'releases'}"


def tally(totals: Totals) -> str:
    """Verdicts, counted, in one line."""
    found = [f"{count} {WORDS[decision]}" for decision, count in totals.decisions.items() if count]
    return f"{pairs_of(totals.pairs)} and packages: {', '.join(found)}" if found else "nothing to verify"


def outcomes(totals: Totals) -> str:
    """Outcomes of signers, counted, in one line."""
    return ", ".join(f"{count} {outcome.value}" for outcome, count in totals.outcomes.items() if count)


class Table:
    """Rows for a terminal. ``lines`` of each release, when there are any, stand below its row."""

    def __init__(self, pairs: Sequence[Pair], aside: IO[str], *, markup: bool) -> None:
        self._markup = markup
        widths = [max((_width(plain(text)) for text in texts), default=0)
                  for texts in ([pair.release for pair in pairs], [pair.name for pair in pairs])]
        self._widths = [max(width, len(head)) for width, head in zip(
            (*widths, max(len(word) for word in WORDS.values()), 0, 0, 0), _HEADS, strict=True)]
        self._kept = aside
        self._room = shutil.get_terminal_size().columns if sys.stdout.isatty() else None

    def add(self, pair: Pair, verdict: Verdict, lines: Sequence[str] = ()) -> None:
        signed = sum(1 for signer in verdict.signers if signer.outcome not in ABSENT)
        cells = [pair.release, pair.name, WORDS[verdict.decision], str(verdict.agreeing), str(signed), _who(verdict)]
        self._row([plain(cell) for cell in cells], _COLOURS[verdict.decision])
        for line in lines:
            self._kept.write(f"    {plain(line)}".rstrip() + "\n")

    def _row(self, cells: list[str], colour: str) -> None:
        padded = [cell.rjust(width) if number in (3, 4) else cell + " " * (width - _width(cell))
                  for number, (cell, width) in enumerate(zip(cells, self._widths, strict=True))]
        if self._room is not None:
            left = max(self._room - sum(map(_width, padded[:-1])) - 2 * (len(padded) - 1), _LEAST)
            padded[-1] = cells[-1] if len(cells[-1]) <= left else cells[-1][:left - 1] + "…"
        if self._markup:
            padded[2] = click.style(padded[2], fg=colour)
        self._kept.write("  ".join(padded).rstrip() + "\n")

    def show(self, found: Found, totals: Totals) -> None:
        """Print all of it on standard output."""
        heads = "  ".join(head.rjust(width) if number in (3, 4) else head.ljust(width)
                          for number, (head, width) in enumerate(zip(_HEADS, self._widths, strict=True)))
        click.echo(click.style(heads, bold=True) if self._markup else heads)
        self._kept.seek(0)
        for line in self._kept:
            click.echo(line, nl=False)
        click.echo()
        click.echo(tally(totals))
        click.echo(f"signers: {outcomes(totals)}")
        count = len(found.problems)
        if count:
            click.echo(f"{count} {'problem' if count == 1 else 'problems'} of the tree itself")


def _width(text: str) -> int:
    """How many columns a text takes on a terminal."""
    if text.isascii():
        return len(text)
    return sum(0 if unicodedata.combining(char) else 2 if unicodedata.east_asian_width(char) in "WF" else 1
               for char in text)


def _who(verdict: Verdict) -> str:
    """'MISMATCH carol, dave; NO KEY eve': those whose outcome is not OK, or 'no reference: ...' for a tie."""
    found: dict[Outcome, list[str]] = {}
    for signer in verdict.signers:
        if signer.outcome is not Outcome.OK and signer.outcome is not Outcome.MISSING_RESULT:
            found.setdefault(signer.outcome, []).append(signer.signer)
    told = []
    for outcome in Outcome:
        names = found.get(outcome, [])
        if names:
            rest = f" + {len(names) - _NAMES}" if len(names) > _NAMES else ""
            told.append(f"{outcome.value} {', '.join(names[:_NAMES])}{rest}")
    return "; ".join(told)


def about(verdict: Verdict) -> Iterator[str]:
    """For --verbose: all signers that are not OK, what is wrong, and the files that differ."""
    for signer in verdict.signers:
        if signer.outcome is Outcome.OK or signer.outcome is Outcome.MISSING_RESULT:
            continue
        detail = f", {signer.detail}" if signer.detail else ""
        yield f"{signer.signer}: {signer.outcome.value}{detail}"
        for remark in signer.remarks:
            yield f"  note: {remark}"
        for difference in signer.differences:
            if difference.reference is not None:
                yield f"  - {difference.reference}  {difference.path}"
            if difference.own is not None:
                yield f"  + {difference.own}  {difference.path}"


class Document:
    """One JSON document; releases are written aside as they come, so that memory stays as it is."""

    def __init__(self, label: str, aside: IO[str]) -> None:
        self._label = label
        self._kept = aside
        self._any = False

    def add(self, pair: Pair, document: dict[str, Any]) -> None:
        text = json_text({"path": pair.release, **document}).replace("\n", "\n    ")
        self._kept.write((",\n    " if self._any else "\n    ") + text)
        self._any = True

    def show(self, found: Found, totals: Totals) -> None:
        """Print all of it on standard output."""
        head = {"tree": self._label, "exit_code": totals.exit_code, "decision": totals.decision.name.lower(),
                "decisions": {decision.name.lower(): count for decision, count in totals.decisions.items()},
                "outcomes": {outcome.value: count for outcome, count in totals.outcomes.items() if count},
                "problems": [{"path": each.path, "problem": each.text} for each in found.problems],
                "remarks": [{"path": each.path, "remark": each.text} for each in found.remarks],
                "more_problems_and_remarks": found.more}
        click.echo(json_text(head)[:-2] + ',\n  "releases": [', nl=False)
        self._kept.seek(0)
        for line in self._kept:
            click.echo(line, nl=False)
        click.echo("\n  ]\n}" if self._any else "]\n}")
