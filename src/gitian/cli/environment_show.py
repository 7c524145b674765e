"""``gitian environment show``: what a file says is installed."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from gitian.cli.common import CONTEXT

if TYPE_CHECKING:
    from gitian.formats.environment import Environment


@click.command("show", context_settings=CONTEXT)
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="Print it as an environment file: so a report becomes one.")
def command(file: Path, as_json: bool) -> None:
    """Print what FILE says is installed: an environment file, a report or an assertion."""
    from gitian.formats.environment import read_any
    from gitian.host.progress import plain

    found = read_any(file)
    if as_json:
        click.echo(found.to_json().decode("ascii"), nl=False)
        return
    for number, environment in enumerate(found.environments):
        if number:
            click.echo()
        for line in _lines(environment):
            click.echo(plain(line))


def _lines(environment: Environment) -> list[str]:
    packages = environment.packages
    name = max(len(package.name) for package in packages)
    version = max(len(package.version) for package in packages)
    architecture = max(len(package.architecture) for package in packages)
    distro = f" ({environment.distro})" if environment.distro else ""
    kernel = environment.kernel
    return [
        f"{environment.suite} {environment.architecture}{distro}: {count(len(packages), 'package')}",
        *([f"base    {environment.base}"] if environment.base is not None else []),
        *([f"kernel  {kernel.release} ({', '.join(package.file_name for package in kernel.packages)})"]
          if kernel is not None else []),
        *(f"source  {line}" for line in environment.sources),
        *(f"  {package.name:<{name}}  {package.version:<{version}}  {package.architecture:<{architecture}}  "
          f"{package.sha256}" for package in packages)]


def count(number: int, what: str) -> str:
    """'1 package', '2 packages'."""
    return f"{number} {what}{'' if number == 1 else 's'}"
