"""``gitian canon``: archives made canonical."""

from __future__ import annotations

import json
import os
from pathlib import Path

import click

from gitian.cli.common import CONTEXT


@click.command("canon", context_settings=CONTEXT)
@click.argument("files", metavar="FILE...", nargs=-1, type=click.Path(path_type=Path))
@click.option("--date", metavar="DATE", help="The date of every member: seconds since 1970, YYYY-MM-DD, or "
              "'YYYY-MM-DD HH:MM:SS' in UTC [default: $SOURCE_DATE_EPOCH, else 1980-01-01].")
@click.option("-o", "--output", metavar="FILE", type=click.Path(path_type=Path),
              help="Write here and leave the file as it is (one file only).")
@click.option("--keep", metavar="WHAT", multiple=True, type=click.Choice(["times", "order", "owners", "modes"]),
              help="Leave as they stand: times, order, owners or modes. May be given more than once.")
@click.option("--limit", metavar="BYTES", type=click.IntRange(1), help="What a compressed file may grow to "
              "[default: 16 GiB, and no more than 250 times its size].")
@click.option("--check", is_flag=True, help="Change nothing; exit with 1 when a file is not canonical.")
@click.option("--script", metavar="FILE", type=click.Path(path_type=Path), help="Write canon itself as one file that "
              "runs inside a guest with its python3.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
def command(files: tuple[Path, ...], date: str | None, output: Path | None, keep: tuple[str, ...], limit: int | None,
            check: bool, script: Path | None, as_json: bool) -> int:
    """Make archives canonical, in place: times, order, owners and modes.

    Zip and jar files, tar files (plain, or compressed by gzip, bzip2, xz or zstd), headers of gzip files, and ar files.
    What the members hold is unchanged, and nothing is unpacked.

    \b
    Exit status: 0 done; 1 a file is not canonical (--check); 2 bad usage; 4 no such file;
    16 no archive, or a broken or hostile one.
    """
    from gitian.canon import archive, zstandard
    from gitian.canon.model import DEFAULT_DATE, Settings, parse_date
    from gitian.errors import UsageError
    from gitian.host.progress import plain

    if script is not None:
        from gitian.canon.script import script as packed
        from gitian.host.workspace import write_atomically

        write_atomically(script, packed(), 0o755)
    elif not files:
        raise UsageError("Which files? None was given.", hint="Try: gitian canon --date 2011-01-30 FILE...")
    if output is not None and (len(files) != 1 or check):
        raise UsageError("--output is for one file that is to be written.", hint="Leave out --output or --check.")
    when = date if date is not None else os.environ.get("SOURCE_DATE_EPOCH") or str(DEFAULT_DATE)
    settings = Settings(date=parse_date(when), keep=frozenset(keep), limit=limit, zstd=zstandard.run)
    outcomes = []
    for path in files:
        outcome = archive.canonicalize(path, settings, output=output, write=not check)
        outcomes.append(outcome)
        if not as_json:
            state = "canonical" if not outcome.changed else "not canonical" if check else "rewritten"
            click.echo(f"{plain(str(outcome.path))} ({outcome.kind}): {state}")
    if as_json:
        click.echo(json.dumps({"date": settings.date, "files": [
            {"path": str(found.path), "kind": found.kind, "changed": found.changed} for found in outcomes]}, indent=2))
    return 1 if check and any(found.changed for found in outcomes) else 0
