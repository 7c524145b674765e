"""The classic's ``canon-zip``."""

from __future__ import annotations

from pathlib import Path

import click

from gitian.cli.common import CONTEXT


@click.command("canon-zip", context_settings=CONTEXT)
@click.argument("date", metavar="YYYY-MM-DD")
@click.argument("source", metavar="INPUT", type=click.Path(path_type=Path))
@click.argument("target", metavar="OUTPUT", type=click.Path(path_type=Path))
def command(date: str, source: Path, target: Path) -> None:
    """Set the date of every member of a zip or jar file, as the classic did.

    Order, modes and comments stay as they are; 'gitian canon' sets those too.
    """
    from gitian.canon import classic

    classic.canon_zip(classic.parse_day(date), source, target)
