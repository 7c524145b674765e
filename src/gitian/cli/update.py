"""gitian update: install or update a program from a release that enough signers agree on."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from gitian.cli.classic import Measure
from gitian.cli.common import CONTEXT, json_text

if TYPE_CHECKING:
    from gitian.update.updater import Outcome


@click.command("update", context_settings=CONTEXT)
@click.argument("sources", metavar="[SOURCE]...", nargs=-1)
@click.option("-u", "--url", "urls", metavar="URL", multiple=True, help="The same as SOURCE.")
@click.option("-c", "--config", "config", metavar="FILE", required=True, type=click.Path(path_type=Path),
              help="Whom to trust how much, and where releases are found.")
@click.option("-d", "--dest", "--destination", "destination", metavar="DIR", required=True,
              type=click.Path(path_type=Path), help="The directory to install into.")
@click.option("-f", "--force", is_flag=True, help="Allow a downgrade; install again what is there already.")
@click.option("-n", "--dry-run", "--dryrun", "dry_run", is_flag=True, help="Check everything, install nothing.")
@click.option("-w", "--wait", type=Measure(0, 1e6), metavar="HOURS",
              help="The waiting period, instead of the configuration's; 0 for none.")
@click.option("-p", "--post", metavar="COMMAND",
              help="Run after a successful installation, in the destination. Split into words, not run by a shell.")
@click.option("-q", "--quiet", count=True, help="Say less; twice: nothing on standard output.")
@click.option("--json", "as_json", is_flag=True, help="Print the outcome as JSON.")
def command(sources: tuple[str, ...], urls: tuple[str, ...], config: Path, destination: Path, force: bool,
            dry_run: bool, wait: float | None, post: str | None, quiet: int, as_json: bool) -> None:
    """Install or update a program from a release that enough signers agree on.

    SOURCE is a zip file, a directory or a URL, with the files of the release and a folder 'gitian' of assertions,
    signatures and keys. Without one, the configuration's feeds and URLs are tried.

    Everything is checked first; then the destination changes from the old release to the new one in one step, or not
    at all. Files of yours in the destination stay.
    """
    import shlex

    from gitian.host import progress
    from gitian.update import config as configurations
    from gitian.update import updater

    progress.set_quiet(quiet > 0)
    try:
        words = tuple(shlex.split(post)) if post is not None else ()
    except ValueError as error:
        raise click.BadParameter(f"cannot be split into words: {error}", param_hint="--post") from error
    if post is not None and not words:
        raise click.BadParameter("is empty", param_hint="--post")
    outcome = updater.update(updater.Request(
        destination=destination, configuration=configurations.read(config), sources=(*urls, *sources), force=force,
        dry_run=dry_run, wait=wait, post=words))
    if as_json:
        click.echo(json_text(_document(outcome)))
    elif quiet < 2:
        click.echo(_text(outcome, destination))


def _text(outcome: Outcome, destination: Path) -> str:
    from gitian.host.progress import plain

    name, release, before = outcome.name, outcome.release, outcome.before
    lines = []
    if outcome.agreed is not None:
        lines.append("Signatures from:")
        for witness in outcome.agreed.witnesses:
            remark = f" ({witness.remark})" if witness.remark else ""
            lines.append(f"    {witness.signer.name}: weight {witness.signer.weight}{remark}")
        lines.append(f"    together: {outcome.agreed.weight}")
    lines += [f"Not installed, since nobody signed it: {path}" for path in outcome.unlisted]
    lines += [f"Left out, as it may be: {path}" for path in outcome.missing]
    would = "would be " if outcome.dry_run else ""
    lines.append({
        "installed": f"'{name}' {release} {would or 'is '}installed in '{destination}'.",
        "upgraded": f"'{name}' in '{destination}' {would or 'is '}updated from {before} to {release}.",
        "reinstalled": f"'{name}' {release} {would or 'is '}installed again in '{destination}'.",
        "downgraded": f"'{name}' in '{destination}' {would or 'is '}taken back from {before} to {release}.",
        "current": f"'{name}' {release} in '{destination}' is up to date.",
    }[outcome.result.value])
    return "\n".join(plain(line) for line in lines)


def _document(outcome: Outcome) -> dict[str, object]:
    agreed = outcome.agreed
    return {
        "result": outcome.result.value, "dry_run": outcome.dry_run, "name": outcome.name, "release": outcome.release,
        "before": outcome.before, "missing_optionals": list(outcome.missing), "not_installed": list(outcome.unlisted),
        "weight": agreed.weight if agreed else None,
        "signers": [{"name": witness.signer.name, "fingerprint": witness.fingerprint,
                     "weight": witness.signer.weight, "signed": witness.signed, "remark": witness.remark}
                    for witness in agreed.witnesses] if agreed else [],
    }
