"""The console scripts, and ``gitian`` with everything as a subcommand. Commands are imported when they are called."""

from __future__ import annotations

import importlib

import click

from gitian.cli import common
from gitian.cli.lazy import Lazy

#: command -> (module in gitian.cli, one line of help). The help is here so that `gitian --help` loads no command.
COMMANDS = {
    "canon": ("canon", "Make archives canonical: times, order, owners and modes."),
    "canon-zip": ("canon_zip", "Set the date of every member of a zip file."),
    "collect": ("collect", "Put several rebuilders' results side by side: who agrees, and with what."),
    "doctor": ("doctor", "Tell what this machine has, lacks, or cannot use, for each backend."),
    "environment": ("environment", "Record, show, compare or fetch what is installed when a build starts."),
    "gbuild": ("gbuild", "Build a descriptor in clean guests and write the report."),
    "gsign": ("gsign", "Sign the report of a build as one signer."),
    "gverify": ("gverify", "Check the signatures of a release, and whether the signers agree."),
    "keys": ("keys", "List who signed a release: known, expired or missing keys."),
    "layers": ("layers", "List or remove the layers that builds start from."),
    "lint": ("lint", "Look for what may keep a build from being reproduced."),
    "make-base-vm": ("make_base_vm", "Make the base image that guests start from."),
    "vary": ("vary", "Find what makes a build's outputs differ: build it in varied circumstances."),
    "update": ("update", "Install or update a program from a release that enough signers agree on."),
}

#: Hidden from the list: what the launchers in libexec/ call.
TARGET_COMMANDS = ("on-target", "copy-to-target", "copy-from-target", "start-target", "stop-target", "make-clean-vm")


def load(name: str) -> click.Command:
    """The command of that name."""
    if name in TARGET_COMMANDS:
        found = importlib.import_module("gitian.cli.targets").COMMANDS[name]
    else:
        found = importlib.import_module(f"gitian.cli.{COMMANDS[name][0]}").command
    assert isinstance(found, click.Command)
    return found


def _version(ctx: click.Context, parameter: click.Parameter, value: bool) -> None:
    if value and not ctx.resilient_parsing:
        from importlib.metadata import version

        click.echo(f"gitian {version('gitian')}")
        ctx.exit()


@click.group(cls=Lazy, lines={name: line for name, (_, line) in COMMANDS.items()}, load=load, hidden=TARGET_COMMANDS,
             context_settings=common.CONTEXT)
@click.option("--version", is_flag=True, expose_value=False, is_eager=True, callback=_version,
              help="Print the version and exit.")
def group() -> None:
    """Prove that a binary came from its source.

    A descriptor says what to build; clean guests build it; several people sign what came out; anybody can check that
    they agree.
    """


main = common.entry(lambda: group, "gitian")
make_base_vm = common.entry(lambda: load("make-base-vm"), "make-base-vm")
gbuild = common.entry(lambda: load("gbuild"), "gbuild")
gsign = common.entry(lambda: load("gsign"), "gsign")
gverify = common.entry(lambda: load("gverify"), "gverify")
canon_zip = common.entry(lambda: load("canon-zip"), "canon-zip")


if __name__ == "__main__":
    main()
