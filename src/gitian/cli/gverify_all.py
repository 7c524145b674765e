"""``gverify --all``: every release and package of a tree, as a table, a JSON document, a page."""

from __future__ import annotations

import contextlib
import io
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING

from gitian.cli import verdict_explain, verdict_table
from gitian.cli.verdict_html import Page
from gitian.errors import NothingToVerifyError
from gitian.host import destination, progress
from gitian.sigs import survey, tree
from gitian.sigs.verdict import Decision

if TYPE_CHECKING:
    from gitian.sigs.explain import Explanation
    from gitian.sigs.keys import Keyring
    from gitian.sigs.stages import Place
    from gitian.sigs.survey import Found
    from gitian.sigs.verdict import Verdict
    from gitian.sigs.verify import Pair, Request

#: So many problems of a tree are told on standard error; all of them stand in the JSON document.
_TOLD = 20
#: So much of each form is held in memory before it goes to a temporary file (bytes).
_HELD = 4 * 2**20


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """What of the tree is to be verified, None for all, and in which form it is to be shown."""

    release: str | None
    name: str | None
    html: Path | None
    as_json: bool
    verbose: bool
    markup: bool
    explained: bool


def run(request: Request, wanted: Wanted) -> int:
    """Verify all that is wanted and print it; the exit status. Raises NothingToVerifyError, HostError, UsageError."""
    if wanted.html is not None:
        destination.check(wanted.html)
    found = _found(request, wanted)
    for problem in found.problems[:_TOLD]:
        progress.warn(f"'{problem.path}' {problem.text}.")
    if len(found.problems) + found.more > _TOLD:
        progress.warn(f"and {len(found.problems) + found.more - _TOLD} more problems and remarks of the tree.")
    totals = survey.Totals(found)
    with contextlib.ExitStack() as stack:
        page = Page(request.tree.label, stack.enter_context(_aside())) if wanted.html is not None else None
        lines = stack.enter_context(io.TextIOWrapper(stack.enter_context(_aside()), encoding="utf-8"))
        table = verdict_table.Table(found.pairs, lines, markup=wanted.markup)
        document = verdict_table.Document(request.tree.label, lines) if wanted.as_json else None
        with progress.bar("Checking signatures", len(found.pairs), unit="releases") as advance:
            for pair, verdict in survey.survey(request, found.pairs):
                totals.add(verdict)
                explanation = _explained(request, pair, verdict) if wanted.explained else None
                why = _lines(explanation)
                if document is not None:
                    document.add(pair, _document(verdict, explanation))
                else:
                    table.add(pair, verdict, [*(verdict_table.about(verdict) if wanted.verbose else ()), *why])
                if page is not None:
                    page.add(pair, verdict, why)
                advance(1)
        if page is not None and wanted.html is not None:
            with progress.step(f"Writing {wanted.html}"), destination.writing(wanted.html) as file:
                page.write(file, found, totals, keys=_keys(request.keyring))
        (document or table).show(found, totals)
    return totals.exit_code


def write_page(path: Path, request: Request, pair: Pair, verdict: Verdict, explanation: Explanation | None) -> None:
    """The page of one release alone. Raises HostError."""
    found = survey.Found(pairs=(pair,), problems=(), remarks=())
    totals = survey.Totals(found)
    totals.add(verdict)
    with _aside() as aside:
        page = Page(request.tree.label, aside)
        page.add(pair, verdict, _lines(explanation))
        with destination.writing(path) as file:
            page.write(file, found, totals, keys=_keys(request.keyring))


def _aside() -> IO[bytes]:
    return tempfile.SpooledTemporaryFile(max_size=_HELD)


def _found(request: Request, wanted: Wanted) -> Found:
    try:
        found = survey.discover(request.tree, release=wanted.release, name=wanted.name)
    except tree.TreeError as error:
        raise NothingToVerifyError(f"There is nothing to verify: '{request.tree.label}' {error}.",
                                   hint="Name the directory that holds all releases with -d.") from None
    if not found.pairs:
        asked = [f"of release '{wanted.release}'"] if wanted.release is not None else []
        asked += [f"of package '{wanted.name}'"] if wanted.name is not None else []
        hint = "An assertion lies in DIR/RELEASE/SIGNER/NAME-build.assert."
        if found.problems:
            hint += f" But '{found.problems[0].path}' {found.problems[0].text}."
        raise NothingToVerifyError(f"There is no assertion {' '.join([*asked, 'in'])} '{request.tree.label}'.",
                                   hint=hint)
    return found


def _explained(request: Request, pair: Pair, verdict: Verdict) -> Explanation | None:
    """Why they differ, where anybody does. Earlier stages are looked for beside the release."""
    if verdict.decision is not Decision.DISAGREE or len(verdict.groups) < 2:
        return None
    from gitian.sigs import explain

    return explain.explain(verdict, _places(request, pair))


def _places(request: Request, pair: Pair) -> Sequence[Place]:
    from gitian.sigs.stages import Place

    return [Place(tree=request.tree, folder=pair.release.rpartition("/")[0])]


def _lines(explanation: Explanation | None) -> list[str]:
    return [] if explanation is None else list(verdict_explain.lines(explanation))


def _document(verdict: Verdict, explanation: Explanation | None) -> dict[str, object]:
    from gitian.cli.gverify import as_document
    from gitian.sigs import explain

    made = as_document(verdict)
    return made if explanation is None else {**made, "explanation": explain.document(explanation)}


def _keys(keyring: Keyring) -> str:
    count = len(keyring.fingerprints)
    return f"{count} public {'key was' if count == 1 else 'keys were'} at hand."
