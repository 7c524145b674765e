"""``gitian lint``: documents into findings, as text, JSON or SARIF."""

from __future__ import annotations

import datetime
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from gitian.cli.common import CONTEXT

if TYPE_CHECKING:
    from gitian.lint.run import Outcome

_LEVELS = ("error", "warning", "note", "never")


@click.command("lint", context_settings=CONTEXT)
@click.argument("files", metavar="DESCRIPTOR|REPORT|ENVIRONMENT...", nargs=-1, type=click.Path(path_type=Path))
@click.option("--fail-on", metavar="LEVEL", type=click.Choice(_LEVELS), default="error", show_default=True,
              help="Exit with 1 from this severity on: error, warning, note or never.")
@click.option("--ignore", "ignored", metavar="ID", multiple=True, help="Leave out a rule. May be given more than once.")
@click.option("--archive", is_flag=True, help="Ask the archives of the suites for newer versions of the packages of a "
              "report or environment. Without it nothing is fetched.")
@click.option("--mirror", metavar="URL", help="With --archive: the archive to ask [default: what make-base-vm takes].")
@click.option("--security-mirror", metavar="URL", help="With --archive: the archive of security updates.")
@click.option("--index", "indices", metavar="FILE", multiple=True, type=click.Path(path_type=Path),
              help="Compare with this index (a Packages file, also .gz or .xz). May be given more than once.")
@click.option("--today", metavar="DATE", help="Judge ages as of this day, YYYY-MM-DD [default: today].")
@click.option("--suppressed", "show_all", is_flag=True, help="Show findings that a comment suppresses, too.")
@click.option("--rules", "list_rules", is_flag=True, help="List all rules and exit.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
@click.option("--sarif", metavar="FILE", type=click.Path(path_type=Path, allow_dash=True),
              help="Also write SARIF 2.1.0; '-' for standard output, in place of the text.")
@click.option("-C", "--directory", type=click.Path(path_type=Path, file_okay=False), help="The workspace, in whose "
              "inputs/ clones of remotes are looked for [default: $GITIAN_BASE, else the current directory].")
def command(files: tuple[Path, ...], fail_on: str, ignored: tuple[str, ...], archive: bool, mirror: str | None,
            security_mirror: str | None, indices: tuple[Path, ...], today: str | None, show_all: bool, list_rules: bool,
            as_json: bool, sarif: Path | None, directory: Path | None) -> int:
    """Look for what may keep a build from being reproduced, or makes its environment doubtful.

    \b
    Exit status: 0 nothing of severity error (or as --fail-on says); 1 something; 2 bad usage;
    3 or 16 no descriptor, report or environment.
    """
    from importlib.metadata import version

    from gitian.errors import UsageError
    from gitian.host.workspace import Workspace, write_atomically
    from gitian.lint import run
    from gitian.lint import sarif as sarif_format
    from gitian.lint.model import Circumstances
    from gitian.lint.rules import RULES

    if list_rules:
        for rule in RULES.values():
            click.echo(f"{rule.id:<24} {rule.severity.word:<8} {rule.title}")
        return 0
    if not files:
        raise UsageError("Which file? None was given.", hint="Try: gitian lint DESCRIPTOR")
    for id in ignored:
        if id not in RULES:
            raise UsageError(f"There is no rule '{id}'.", hint="See them all: gitian lint --rules")
    if as_json and sarif is not None and str(sarif) == "-":
        raise UsageError("--json and '--sarif -' both want standard output.", hint="Give --sarif the name of a file.")
    documents = [run.read(path) for path in files]
    offers = None
    if archive or indices:
        from gitian.cli import lint_archive

        targets = [target for document in documents for target in document.targets]
        offers = lint_archive.offers(targets, ask=archive, mirror=mirror, security_mirror=security_mirror,
                                     indices=indices)
    inputs = Workspace.locate(directory, os.environ).inputs
    circumstances = Circumstances(today=_day(today), inputs=inputs, offers=offers)
    outcomes = [run.lint(document, circumstances, ignored) for document in documents]
    if sarif is not None and str(sarif) != "-":
        write_atomically(sarif, sarif_format.text(outcomes, version("gitian")).encode())
    if sarif is not None and str(sarif) == "-":
        click.echo(sarif_format.text(outcomes, version("gitian")), nl=False)
    elif as_json:
        click.echo(json.dumps([_as_document(outcome) for outcome in outcomes], indent=2))
    else:
        _render(outcomes, show_all)
    grave = len(_LEVELS) - 1 - _LEVELS.index(fail_on)
    return int(grave > 0 and any(finding.severity >= grave for outcome in outcomes for finding in outcome.open))


def _day(text: str | None) -> datetime.date:
    from gitian.errors import UsageError

    if text is None:
        return datetime.datetime.now(datetime.UTC).date()
    try:
        return datetime.date.fromisoformat(text)
    except ValueError:
        raise UsageError(f"'{text}' is not a day.", hint="Write it as YYYY-MM-DD.") from None


def _render(outcomes: Sequence[Outcome], show_all: bool) -> None:
    from gitian.host.progress import plain

    count = {"error": 0, "warning": 0, "note": 0}
    suppressed = 0
    for outcome in outcomes:
        for finding in outcome.findings:
            if finding.suppressed is not None:
                suppressed += 1
                if not show_all:
                    continue
            else:
                count[finding.severity.word] += 1
            place = f"{outcome.document.path}" + (f":{finding.line}" if finding.line is not None else "")
            where = f"{finding.where}: " if finding.where and finding.line is None else ""
            why = f" (suppressed: {finding.suppressed})" if finding.suppressed is not None else ""
            click.echo(plain(f"{place}: {finding.severity.word}: {where}{finding.message} [{finding.rule.id}]{why}"))
    said = ", ".join(f"{number} {word}{'' if number == 1 else 's'}" for word, number in count.items())
    click.echo(said + (f", {suppressed} suppressed" if suppressed else ""))


def _as_document(outcome: Outcome) -> dict[str, Any]:
    return {"path": str(outcome.document.path), "kind": outcome.document.kind, "findings": [
        {"rule": finding.rule.id, "severity": finding.severity.word, "message": finding.message, "line": finding.line,
         "end_line": finding.end_line, "where": finding.where, "documentation": finding.rule.anchor,
         "suppressed": finding.suppressed} for finding in outcome.findings]}
