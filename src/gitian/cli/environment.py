"""``gitian environment``: what is installed in guests when a build starts, recorded, shown, compared and fetched."""

from __future__ import annotations

import importlib

import click

from gitian.cli.common import CONTEXT
from gitian.cli.lazy import Lazy

#: command -> one line of help; each has a module of its own, environment_<command>.
COMMANDS = {
    "diff": "Compare two environments, or one with what the archive gives today.",
    "fetch": "Get an environment's packages, so that a rebuild works offline.",
    "show": "Print what an environment file, report or assertion says is installed.",
    "snapshot": "Record the environment of a descriptor without building it.",
}


def load(name: str) -> click.Command:
    """The command of that name."""
    found = importlib.import_module(f"gitian.cli.environment_{name}").command
    assert isinstance(found, click.Command)
    return found


@click.group("environment", cls=Lazy, lines=COMMANDS, load=load, context_settings=CONTEXT)
def command() -> None:
    """What is installed in a guest when the script starts: recorded, shown, compared, fetched."""
