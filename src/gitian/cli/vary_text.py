"""What ``gitian vary`` has found, for a terminal and as a document."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import click

from gitian.host.progress import plain
from gitian.vary.outcome import State
from gitian.vary.words import counted

if TYPE_CHECKING:
    from gitian.vary.outcome import Explained, Found, Outcome, Tried

#: So many outputs of a cause, and findings of an output, are shown on a terminal; all of them stand in the document.
_OUTPUTS = 20
_FINDINGS = 3
#: So long a remark stands in the table (characters).
_REMARK = 40
_COLOURS = {State.HELD: "green", State.NOT_TRIED: None, State.NO_EFFECT: "yellow", State.OPEN: "yellow"} \
    | dict.fromkeys((State.DIFFERS, State.AS, State.FAILS), "red")


def listing(why: Mapping[str, str] | None, *, as_json: bool) -> Iterator[str]:
    """All variations; with ``why``, the reasons for which some do not work with a descriptor, by name."""
    from gitian.vary.variations import VARIATIONS

    if as_json:
        yield json.dumps([{"name": one.name, "group": one.group, "what": one.what, "backends": sorted(one.backends),
                           "usual": one.usual, "implies": sorted(one.implies),
                           **({} if why is None else {"works": one.name not in why, "why": why.get(one.name)})}
                          for one in VARIATIONS.values()], indent=2)
        return
    rows: list[tuple[str, ...]] = [("NAME", "GROUP", "BACKENDS", "WHAT CHANGES")]
    for one in VARIATIONS.values():
        usual = "" if one.usual else " (only when it is named)" if one.backends else " (never: use --repeat)"
        rows.append((one.name, one.group, ", ".join(sorted(map(str.upper, one.backends))) or "-", one.what + usual))
        if why is not None and one.name in why:
            rows[-1] = (*rows[-1][:3], f"does not work here: {plain(why[one.name])}")
    yield from _table(rows)


def lines(outcome: Outcome) -> Iterator[str]:
    """All of it for people: what is random first, then the variations, then each cause."""
    if outcome.random is not None:
        if outcome.random.fails is not None:
            yield "RANDOM without any variation: the build sometimes fails"
            yield from _failure(outcome.random)
        if outcome.random.differences:
            yield f"RANDOM without any variation: {counted(len(outcome.random.differences), 'output')}"
            yield from _differences(outcome.random.differences)
        yield ""
    rows = [("VARIATION", "RESULT", "REMARKS")]
    notes: dict[str, int] = {}
    rows += [(one.name, one.state.value, "; ".join(_short(remarks(one), notes))) for one in outcome.variations]
    states = (None, *(one.state for one in outcome.variations))
    for state, line in zip(states, _table(rows), strict=True):
        colour = _COLOURS.get(state) if state is not None else None
        # A pipe gets none: click takes them out.
        yield line if colour is None or state is None else line.replace(
            state.value, click.style(state.value, fg=colour), 1)
    for note, number in notes.items():
        yield f"({number}) {note}"
    for cause in outcome.causes:
        yield ""
        yield from _cause(cause)
    for text in outcome.left:
        yield f"not found out: {plain(text)}"
    yield ""
    yield (f"{counted(outcome.builds, 'build')} of {', '.join(outcome.targets)} under {outcome.backend.upper()} in "
           f"{outcome.seconds / 60:.1f} minutes")
    if outcome.unfinished is not None:
        yield f"The search is not finished: {plain(outcome.unfinished)}"


def remarks(tried: Tried) -> Iterator[str]:
    """What is to be said of a variation besides its result."""
    if tried.outputs:
        yield counted(tried.outputs, "output")
    for others in tried.others:
        yield "alone" if not others else f"only together with {', '.join(others)}"
    if tried.why:
        yield plain(tried.why.rstrip("."))
    if tried.remark:
        yield plain(tried.remark)


def _short(texts: Iterable[str], notes: dict[str, int]) -> Iterator[str]:
    """The texts, but a number in place of a long one, which becomes a note: the same one for all who say the same."""
    for text in texts:
        yield text if len(text) <= _REMARK else f"({notes.setdefault(text, len(notes) + 1)})"


def title(cause: Found) -> str:
    """A cause in a line."""
    names = " + ".join(cause.variations)
    if cause.fails is not None:
        return f"{names}: the build fails" + ("" if cause.certain else " (perhaps by chance)")
    unsure = "" if cause.certain else " (perhaps fewer: not every smaller set could be built)"
    count = len(cause.differences)
    return f"{names}: {counted(count, 'output')} differ{'s' if count == 1 else ''}{unsure}"


def _cause(cause: Found) -> Iterator[str]:
    yield title(cause)
    yield from _failure(cause)
    yield from _differences(cause.differences)


def _failure(found: Found) -> Iterator[str]:
    if found.fails is not None:
        for line in found.fails.splitlines()[:12]:
            yield f"  {plain(line)}"
        if found.log is not None:
            yield f"  log: {plain(str(found.log))}"


def _differences(differences: Iterable[Explained]) -> Iterator[str]:
    every = list(differences)
    for one in every[:_OUTPUTS]:
        if one.difference is None:
            yield f"  {plain(one.path)}: {plain(one.problem or 'it differs')}"
            continue
        yield f"  {plain(one.path)}: {one.difference.kind.value}" + (f" ({plain(one.note)})" if one.note else "")
        prefix = f"{one.target}/" if one.path != one.difference.path else ""
        found = zip(one.difference.findings, one.difference.summary, strict=True)
        for _, line in sorted(found, key=lambda item: item[0].consequence is not None)[:_FINDINGS]:
            yield f"    {plain(prefix + line)}"
        beyond = len(one.difference.findings) - _FINDINGS + one.difference.more
        if beyond > 0:
            yield f"    and {beyond} more"
        if one.difference.unfinished:
            yield f"    {plain(one.difference.unfinished)}"
        for hint in one.difference.hints[:_FINDINGS]:
            sure = "" if hint.sure else "perhaps "
            yield f"    -> {sure}{hint.cause.value} at {plain(hint.place)}: {hint.remedy}"
        for path in one.reports:
            yield f"    diffoscope: {plain(str(path))}"
        if one.problem:
            yield f"    {plain(one.problem)}"
    if len(every) > _OUTPUTS:
        yield f"  and {counted(len(every) - _OUTPUTS, 'output')} more (--json has all)"


def _table(rows: Sequence[tuple[str, ...]]) -> Iterator[str]:
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    for row in rows:
        yield "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()


def document(outcome: Outcome) -> dict[str, Any]:
    """All of it as a document: docs/reference/vary.md."""
    return {
        "name": outcome.name, "backend": outcome.backend, "targets": list(outcome.targets), "held": outcome.held,
        "builds": outcome.builds, "seconds": round(outcome.seconds, 1), "repeats": outcome.repeats,
        "unfinished": outcome.unfinished, "left": list(outcome.left),
        "missed": list(outcome.missed),
        "outputs": dict(outcome.manifest), "reference": str(outcome.reference),
        "random": [_explained(one) for one in outcome.random.differences] if outcome.random else [],
        "random_failure": None if outcome.random is None or outcome.random.fails is None else {
            "fails": outcome.random.fails, "log": str(outcome.random.log)},
        "variations": [{
            "name": one.name, "what": one.what, "state": one.state.value, "with": [list(names) for names in one.others],
            "outputs": one.outputs, "why": one.why or None, "remark": one.remark or None,
            "probes": {label: {"usual": before, "varied": after} for label, (before, after) in one.probes.items()},
        } for one in outcome.variations],
        "causes": [{
            "variations": list(cause.variations), "certain": cause.certain, "fails": cause.fails,
            "log": str(cause.log) if cause.log is not None else None,
            "kept": str(cause.outputs) if cause.outputs is not None else None,
            "outputs": [_explained(one) for one in cause.differences]} for cause in outcome.causes],
    }


def _explained(one: Explained) -> dict[str, Any]:
    from dataclasses import asdict

    return {"target": one.target, "path": one.path, "problem": one.problem, "note": one.note,
            "reports": [str(path) for path in one.reports],
            "difference": asdict(one.difference) if one.difference is not None else None}

