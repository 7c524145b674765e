"""Verdicts on a whole tree as one page that needs nothing else: no network, and no script for the basics.

Every text of a tree is made plain (control and bidirectional characters escaped) and then escaped for HTML. Should
something slip through nevertheless: the page's own policy lets no script and no style run but the two that it has, by
their hashes, and fetches nothing.
"""

from __future__ import annotations

import base64
import hashlib
import html
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from typing import IO, TYPE_CHECKING, BinaryIO

from gitian.cli.verdict_table import WORDS, pairs_of, tally
from gitian.host.progress import plain
from gitian.host.workspace import data_directory
from gitian.sigs.judging import date
from gitian.sigs.survey import natural, series
from gitian.sigs.verdict import ABSENT, Decision, Outcome

if TYPE_CHECKING:
    from gitian.sigs.survey import Found, Totals
    from gitian.sigs.verdict import Group, SignerOutcome, Verdict
    from gitian.sigs.verify import Pair

#: So many files are shown that a group has otherwise than the reference; the others are counted.
_FILES = 100
#: Up to so many releases make one matrix; more are parted by series, and a series of more than _PART in parts.
_ONE = 40
_PART = 100
#: So many problems of the tree are listed.
_PROBLEMS = 200

#: A sign, a class of colours, and what it means, for each outcome.
_SIGNS: dict[Outcome, tuple[str, str, str]] = {
    Outcome.OK: ("✓", "ok", "built the same as the reference"),
    Outcome.MISMATCH: ("≠", "bad", "built something else"),
    Outcome.BAD_SIGNATURE: ("✗", "bad", "the signature is not of this file"),
    Outcome.NO_KEY: ("?", "odd", "the public key is not at hand"),
    Outcome.EXPIRED_KEY: ("†", "odd", "the key had expired when it signed"),
    Outcome.REVOKED_KEY: ("⊘", "bad", "the key was revoked"),
    Outcome.WRONG_RELEASE: ("R", "odd", "the assertion names another release"),
    Outcome.WRONG_NAME: ("N", "odd", "the assertion names another package"),
    Outcome.BAD_ATTESTATION: ("A", "bad", "the attestation beside the assertion does not hold"),
    Outcome.UNREADABLE: ("!", "odd", "the assertion cannot be read"),
    Outcome.MISSING_RESULT: ("–", "none", "a directory without a result of this package"),
    Outcome.MISSING_SIGNATURE: ("○", "odd", "an assertion that nobody signed"),
}
_CLASSES = {Decision.AGREE: "agree", Decision.DISAGREE: "disagree", Decision.POLICY: "policy",
            Decision.NOTHING: "nothing"}


def text(value: str) -> str:
    """A text from anywhere, fit to stand in HTML, in an attribute too."""
    return html.escape(plain(value), quote=True)


def name(value: str) -> str:
    """A name from anywhere; letters that are written from right to left do not turn what stands around it."""
    return f"<bdi>{text(value)}</bdi>"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Row:
    """What is held in memory of a release; its details are ``length`` bytes at ``offset`` of the file kept aside."""

    number: int
    release: str
    package: str
    decision: Decision
    cells: tuple[tuple[str, Outcome], ...]
    offset: int
    length: int

    @property
    def differs(self) -> bool:
        """Whether anybody whose signature counts built something else."""
        return any(outcome is Outcome.MISMATCH for _, outcome in self.cells)

    @property
    def classes(self) -> str:
        """What the filter goes by."""
        return _CLASSES[self.decision] + (" differs" if self.differs else "")


class Page:
    """Collects verdicts; what is long goes to ``aside``, so that memory is taken for the matrix alone."""

    def __init__(self, label: str, aside: IO[bytes]) -> None:
        self._label = label
        self._rows: list[_Row] = []
        self._names: dict[str, str] = {}
        self._kept = aside
        self._end = 0

    def add(self, pair: Pair, verdict: Verdict, why: Sequence[str] = ()) -> None:
        """Take a verdict in. ``why`` are lines that explain it."""
        number = len(self._rows)
        details = "".join(_details(number, pair, verdict, why)).encode()
        self._kept.write(details)
        cells = tuple((self._names.setdefault(signer.signer, signer.signer), signer.outcome)
                      for signer in verdict.signers)
        self._rows.append(_Row(number=number, release=pair.release, package=pair.name, decision=verdict.decision,
                               cells=cells, offset=self._end, length=len(details)))
        self._end += len(details)

    def write(self, file: BinaryIO, found: Found, totals: Totals, *, keys: str) -> None:
        """Write the page. ``keys`` says in a sentence which keys were at hand. Raises OSError."""
        for piece in self._pieces(found, totals, keys):
            file.write(piece if isinstance(piece, bytes) else piece.encode())

    def _pieces(self, found: Found, totals: Totals, keys: str) -> Iterator[str | bytes]:
        style, script = _part("page.css"), _part("page.js")
        policy = (f"default-src 'none'; style-src '{_digest(style)}'; script-src '{_digest(script)}'; img-src data:; "
                  "base-uri 'none'; form-action 'none'")
        title = f"Signatures of {text(self._label)}"
        yield (f'<!DOCTYPE html>\n<html lang="en" dir="ltr">\n<head>\n<meta charset="utf-8">\n'
               f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n'
               f'<meta name="viewport" content="width=device-width, initial-scale=1">\n'
               f'<meta name="referrer" content="no-referrer">\n<meta name="color-scheme" content="light dark">\n'
               f'<link rel="icon" href="data:,">\n<title>{title}</title>\n<style>{style}</style>\n</head>\n<body>\n'
               f'<a class="skip" href="#releases">Skip to the releases</a>\n<header>\n<h1>{title}</h1>\n')
        now = time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime())
        yield f'<p>{text(tally(totals))}.<br><span class="soft">{text(keys)} Checked on {now}.</span></p>\n'
        yield from _counts(totals)
        yield from _problems(found)
        yield from self._filter(totals)
        yield '</header>\n<main id="releases" tabindex="-1">\n'
        if not self._rows:
            yield "<p>There is nothing to verify.</p>\n"
        sections = list(self._sections())
        for number, (heading, rows) in enumerate(sections):
            yield from self._section(heading, rows, opened=number == 0 or len(self._rows) <= _PART)
        yield '</main>\n<footer>'
        yield from _legend(totals)
        yield ('<p>Made by gverify. A page proves nothing: whoever relies on it runs gverify '
               f"again.</p></footer>\n<script>{script}</script>\n</body>\n</html>\n")

    def _filter(self, totals: Totals) -> Iterator[str]:
        if len(self._rows) < 2:
            return
        yield '<div class="filter" role="search" aria-label="Filter">\n<fieldset><legend>Verdict</legend>'
        yield ('<div class="choices"><input type="radio" name="v" id="v-all" value="all" checked autocomplete="off">'
               f'<label for="v-all">All <b>{totals.pairs}</b></label>')
        for decision, count in totals.decisions.items():
            if count:
                word = _CLASSES[decision]
                yield (f'<input type="radio" name="v" id="v-{word}" value="{word}" autocomplete="off">'
                       f'<label for="v-{word}">{WORDS[decision].capitalize()} <b>{count}</b></label>')
        differing = sum(1 for row in self._rows if row.differs)
        if differing:
            yield ('<input type="radio" name="v" id="v-differs" value="differs" autocomplete="off">'
                   f'<label for="v-differs">Different files <b>{differing}</b></label>')
        yield '</div></fieldset>\n<div class="fields js" hidden>'
        for where, label in (("q", "Release or package"), ("s", "Signer")):
            yield (f'<label class="field"><span>{label}</span><input type="search" id="{where}" autocomplete="off" '
                   'spellcheck="false" autocapitalize="none"></label>')
        yield '<label class="field"><span>Outcome</span><select id="o" autocomplete="off"><option value="">any</option>'
        for outcome, count in totals.outcomes.items():
            if count:
                yield f'<option value="{_code(outcome)}">{outcome.value} ({count})</option>'
        yield '</select></label><output id="count"></output></div>\n</div>\n'

    def _sections(self) -> Iterator[tuple[str, list[_Row]]]:
        """Headings and rows, the newest first."""
        few = len(self._rows) <= _ONE
        parted: dict[str, list[_Row]] = {}
        for row in self._rows:
            parted.setdefault(row.release.rpartition("/")[0] if few else series(row.release), []).append(row)
        # Without a heading are, of few releases, those that lie in no folder; of many, those with no number.
        for heading, rows in sorted(parted.items(), key=lambda item: (few and not item[0], natural(item[0])),
                                    reverse=True):
            rows = rows[::-1]
            shown = heading or ("Releases" if few else "Other releases")
            for start in range(0, len(rows), _PART):
                part = f" ({start // _PART + 1})" if len(rows) > _PART else ""
                yield shown + part, rows[start:start + _PART]

    def _section(self, heading: str, rows: Sequence[_Row], *, opened: bool) -> Iterator[str | bytes]:
        counts = {decision: sum(1 for row in rows if row.decision is decision) for decision in Decision}
        kinds = "".join(f" has-{each}" for each in sorted({each for row in rows for each in row.classes.split()}))
        told = ", ".join(f"{count} {WORDS[decision]}" for decision, count in counts.items() if count)
        yield (f'<details class="series{kinds}"{" open" if opened else ""}>\n<summary><h2>{name(heading)}</h2> '
               f'<span class="soft">{pairs_of(len(rows))}: {told}</span></summary>\n'
               f'<div class="scroll"><table class="matrix" role="table" aria-label="Signers of {text(heading)}">\n')
        often: dict[str, int] = {}
        for row in rows:
            for signer, outcome in row.cells:
                if outcome is not Outcome.MISSING_RESULT:
                    often[signer] = often.get(signer, 0) + 1
        columns = sorted(often, key=lambda signer: (-often[signer], natural(signer.lower())))
        yield '<thead role="rowgroup"><tr role="row"><th scope="col" role="columnheader">Release and package</th>'
        for signer in columns:
            yield f'<th scope="col" role="columnheader">{name(signer)}</th>'
        yield '<td class="fill" aria-hidden="true"></td></tr></thead>\n'
        for row in rows:
            yield from self._row(row, columns)
        yield "</table></div>\n</details>\n"

    def _row(self, row: _Row, columns: Sequence[str]) -> Iterator[str | bytes]:
        yield (f'<tbody class="row {row.classes}" role="rowgroup"><tr role="row">'
               f'<th scope="row" role="rowheader"><span class="release">{name(row.release.rpartition("/")[2])}</span> '
               f'<span class="package">{name(row.package)}</span>'
               f'<span class="unseen">: {WORDS[row.decision]}</span></th>')
        places = {signer: place for place, (signer, _) in enumerate(row.cells)}
        for signer in columns:
            place = places.get(signer)
            yield "<td></td>" if place is None else _cell(row.number, place, signer, row.cells[place][1])
        yield f'<td class="fill"></td></tr>\n<tr class="more" role="row"><td colspan="{len(columns) + 2}" role="cell">'
        self._kept.seek(row.offset)
        yield self._kept.read(row.length)
        yield "</td></tr></tbody>\n"


@cache
def _part(file: str) -> str:
    return (data_directory("share") / "verdicts" / file).read_text("utf-8")


def _digest(part: str) -> str:
    """How a content security policy names an inline script or style (CSP level 3, 2.3.1)."""
    return "sha256-" + base64.b64encode(hashlib.sha256(part.encode()).digest()).decode()


def _code(outcome: Outcome) -> str:
    return outcome.name.lower().replace("_", "-")


def _cell(number: int, place: int, signer: str, outcome: Outcome) -> str:
    sign, colours, _ = _SIGNS[outcome]
    if outcome is Outcome.MISSING_RESULT:
        return (f'<td class="none" role="cell"><span class="unseen">missing result</span>'
                f'<span aria-hidden="true">{sign}</span></td>')
    # The tab key would stop at thousands of them: the script makes one reachable, and the summaries below always are.
    return (f'<td class="{colours}" role="cell" data-o="{_code(outcome)}"><a href="#r{number}-{place}" tabindex="-1">'
            f'<span class="sign" aria-hidden="true">{sign}</span><span class="who">{name(signer)}'
            f'<span class="unseen">: {outcome.value}</span></span></a></td>')


def _problems(found: Found) -> Iterator[str]:
    if not found.problems:
        return
    count = len(found.problems) + found.more
    yield (f'<div class="problems"><p><strong>{count} {"problem" if count == 1 else "problems"} of the tree '
           "itself</strong></p><ul>")
    for problem in found.problems[:_PROBLEMS]:
        yield f"<li><code>{name(problem.path)}</code> {text(problem.text)}.</li>"
    if count > _PROBLEMS:
        yield f"<li>and {count - _PROBLEMS} more</li>"
    yield "</ul></div>\n"


def _counts(totals: Totals) -> Iterator[str]:
    yield '<ul class="counts" aria-label="Outcomes of signers">'
    for outcome, count in totals.outcomes.items():
        if count:
            sign, colours, _ = _SIGNS[outcome]
            yield (f'<li><span class="sign {colours}" aria-hidden="true">{sign}</span> <span>{outcome.value} '
                   f"<b>{count}</b></span></li>")
    yield "</ul>\n"


def _legend(totals: Totals) -> Iterator[str]:
    yield '<h2 id="signs">What the outcomes mean</h2>\n<dl class="legend">'
    for outcome, count in totals.outcomes.items():
        if count:
            sign, colours, meaning = _SIGNS[outcome]
            yield (f'<div><dt><span class="sign {colours}" aria-hidden="true">{sign}</span> {outcome.value}</dt>'
                   f"<dd>{meaning}</dd></div>")
    yield "</dl>\n"


# What stands below each release.


def _details(number: int, pair: Pair, verdict: Verdict, why: Sequence[str]) -> Iterator[str]:
    agree = f"{verdict.agreeing} {'key agrees' if verdict.agreeing == 1 else 'keys agree'}"
    told = "; ".join((agree, *verdict.reasons))
    yield (f'<details id="r{number}"><summary>{text(told)}<span class="unseen">: details of {text(pair.release)} '
           f'{text(pair.name)}</span></summary><div class="inside">')
    for group in verdict.groups:
        if group.number != verdict.reference:
            yield from _group(group, verdict)
    if why:
        yield f'<div class="why">{text_lines(why)}</div>'
    yield '<h3>Signers</h3><ul class="signers">'
    for place, signer in sorted(enumerate(verdict.signers), key=lambda item: item[1].outcome is Outcome.OK):
        if signer.outcome is not Outcome.MISSING_RESULT:
            yield from _signer(number, place, signer)
    yield "</ul>"
    absent = [signer.signer for signer in verdict.signers if signer.outcome is Outcome.MISSING_RESULT]
    if absent:
        yield f'<p class="soft">No result from {", ".join(map(name, absent))}.</p>'
    yield "</div></details>"


def text_lines(lines: Sequence[str]) -> str:
    """Lines from anywhere, to stand in an element that keeps line ends."""
    return "\n".join(text(line) for line in lines).strip("\n")


def _group(group: Group, verdict: Verdict) -> Iterator[str]:
    """The files that a group has otherwise; the same for each of its signers, so they are shown once."""
    first = next((signer for signer in verdict.signers if signer.group == group.number and signer.differences), None)
    who = ", ".join(name(signer) for signer in group.signers)
    if first is None:
        if verdict.reference is None and group.number == 0:
            yield f"<h3>With the build of {who} the others are compared below</h3>"
        return
    count = len(first.differences)
    than = "in the reference" if verdict.reference is not None else "there"
    yield (f"<h3>{who} built something else: {count} {'file differs' if count == 1 else 'files differ'}</h3>"
           '<dl class="files">')
    for difference in first.differences[:_FILES]:
        yield f"<dt><code>{name(difference.path)}</code></dt>"
        for label, value in ((than, difference.reference), ("here", difference.own)):
            shown = f"<code>{text(value)}</code>" if value is not None else "missing"
            yield f"<dd><span>{label}</span> {shown}</dd>"
    yield "</dl>"
    if count > _FILES:
        yield (f'<p class="soft">and {count - _FILES} more: <code>gverify -v -r {text(verdict.release)}</code> lists '
               "them all.</p>")


def _signer(number: int, place: int, signer: SignerOutcome) -> Iterator[str]:
    sign, colours, _ = _SIGNS[signer.outcome]
    yield (f'<li id="r{number}-{place}" tabindex="-1"><span class="sign {colours}" aria-hidden="true">{sign}</span>'
           f"<strong>{name(signer.signer)}</strong> {signer.outcome.value}")
    if signer.detail and signer.outcome is not Outcome.OK:
        yield f"<p>{text(signer.detail)}</p>"
    if signer.fingerprint and not (signer.outcome is Outcome.NO_KEY and signer.fingerprint in signer.detail):
        user = f" {name(signer.user_id)}" if signer.user_id else ""
        made = f", signed {date(signer.made)}" if signer.made else ""
        yield f'<p class="key">Key <code>{text(signer.fingerprint)}</code>{user}{made}</p>'
    for remark in signer.remarks:
        yield f"<p>Note: {text(remark)}</p>"
    if signer.outcome in ABSENT:
        yield f"<p>There is no signature beside <code>{name(signer.path)}</code>.</p>"
    yield "</li>"
