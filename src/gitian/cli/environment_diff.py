"""``gitian environment diff``: two environments compared, or one with what today's archive gives."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from gitian.cli.common import CONTEXT, json_text
from gitian.cli.environment_show import count

if TYPE_CHECKING:
    from gitian.environment.compare import Change, Difference, TargetDifference


@click.command("diff", context_settings=CONTEXT)
@click.argument("old", type=click.Path(path_type=Path))
@click.argument("new", type=click.Path(path_type=Path), required=False)
@click.option("--archive", is_flag=True, help="In place of NEW: what today's archive gives for OLD's packages.")
@click.option("--mirror", metavar="URL", help="With --archive: the archive to ask [default: OLD's sources, else what "
              "make-base-vm takes].")
@click.option("--security-mirror", metavar="URL", help="With --archive: the archive of security updates.")
@click.option("--without", metavar="POCKET", multiple=True, help="With --archive: leave out 'security' or 'updates'; "
              "may be repeated.")
@click.option("--keyring", metavar="FILE", type=click.Path(path_type=Path, dir_okay=False, exists=True),
              help="With --archive: the keys that sign it [default: the distro's].")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
def command(old: Path, new: Path | None, archive: bool, mirror: str | None, security_mirror: str | None,
            without: tuple[str, ...], keyring: Path | None, as_json: bool) -> int:
    """Tell what has changed from OLD to NEW: environment files, reports or assertions.

    \b
    Exit status: 0 nothing differs; 1 something does; 2 bad usage; 12 the archive does not answer;
    16 a file is none of the three.
    """
    from gitian.environment.compare import compare
    from gitian.errors import UsageError
    from gitian.formats.environment import read_any
    from gitian.host.progress import plain

    if archive == (new is not None):
        raise UsageError("Compare with what? " + ("Both NEW and --archive were given." if archive else
                                                  "Neither NEW nor --archive was given."),
                         hint="Try: gitian environment diff OLD NEW, or: gitian environment diff OLD --archive")
    if not archive and (mirror or security_mirror or without or keyring):
        raise UsageError("--mirror, --security-mirror, --without and --keyring go with --archive.")
    ours = read_any(old)
    if new is not None:
        theirs = read_any(new)
    else:
        from gitian.cli.environment_archive import ArchiveOptions, today

        theirs = today(ours, ArchiveOptions(mirror=mirror, security_mirror=security_mirror, without=without,
                                            keyring=keyring))
    difference = compare(ours, theirs)
    if as_json:
        click.echo(json_text({"equal": difference.equal, "old": str(old), "new": None if new is None else str(new),
                              "targets": [_target(target) for target in difference.targets]}))
    else:
        for line in _lines(difference):
            click.echo(plain(line))
    return 0 if difference.equal else 1


def _lines(difference: Difference) -> Iterator[str]:
    from gitian.environment.compare import Subject

    for target in difference.targets:
        if not target.equal:
            yield _headline(target)
            width = max((len(_what(change)) for change in target.changes), default=0)
            for change in target.changes:
                yield f"  {change.sign} {_what(change):<{width}}  {_how(change)}"
    if difference.equal:
        yield f"No difference in {count(len(difference.targets), 'environment')}."
        return
    signs = [change.sign for change in difference.changes if change.subject is Subject.PACKAGE]
    said = {"other difference": len(difference.changes) - len(signs),
            "one-sided target": sum(target.old is None or target.new is None for target in difference.targets)}
    yield (f"{count(signs.count('+'), 'package')} added, {signs.count('-')} removed, {signs.count('~')} changed"
           + "".join(f"; {count(number, what)}" for what, number in said.items() if number))


def _headline(target: TargetDifference) -> str:
    old, new = (None if one is None else count(len(one.packages), "package") for one in (target.old, target.new))
    if old is None or new is None:
        return f"{target.label}: only in {'OLD' if new is None else 'NEW'} ({old or new})"
    return f"{target.label}: {old}" if old == new else f"{target.label}: {old} -> {new}"


def _what(change: Change) -> str:
    from gitian.environment.compare import Subject

    if change.subject is Subject.KERNEL_PACKAGE:
        return f"{change.name} (kernel)"
    return change.name or change.subject.value


def _how(change: Change) -> str:
    old, new = change.old_package, change.new_package
    if old is None and new is None:
        return " -> ".join(text for text in (change.old, change.new) if text is not None)
    if old is None or new is None:
        one = old or new
        assert one is not None
        return f"{one.version} ({one.architecture})"
    architecture = " -> ".join(dict.fromkeys((old.architecture, new.architecture)))
    if old.version == new.version:
        return f"{old.version} ({architecture}): another file, sha256 {old.sha256} -> {new.sha256}"
    return f"{old.version} -> {new.version} ({architecture})"


def _target(target: TargetDifference) -> dict[str, Any]:
    where = "both" if target.old is not None and target.new is not None else "old" if target.new is None else "new"
    return {"target": target.label, "in": where, "changes": [_change(change) for change in target.changes]}


def _change(change: Change) -> dict[str, Any]:
    found: dict[str, Any] = {"subject": change.subject.value, "name": change.name, "old": change.old, "new": change.new}
    if change.name:
        for side, package in (("old", change.old_package), ("new", change.new_package)):
            found[f"{side}_architecture"] = None if package is None else package.architecture
            found[f"{side}_sha256"] = None if package is None else package.sha256
    return found
