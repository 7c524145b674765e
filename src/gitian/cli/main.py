"""The console scripts, and ``gitian`` with everything as a subcommand. Commands are imported when they are called."""

from __future__ import annotations

import importlib
from typing import Any

import click

from gitian.cli import common

#: command -> (module in gitian.cli, one line of help). The help is here so that `gitian --help` loads no command.
COMMANDS = {
    "canon": ("canon", "Make archives canonical: times, order, owners and modes."),
    "canon-zip": ("canon_zip", "Set the date of every member of a zip file."),
    "collect": ("collect", "Put several rebuilders' results side by side: who agrees, and with what."),
    "doctor": ("doctor", "Tell what this machine has, lacks, or cannot use, for each backend."),
    "gbuild": ("gbuild", "Build a descriptor in clean guests and write the report."),
    "gsign": ("gsign", "Sign the report of a build as one signer."),
    "gverify": ("gverify", "Check the signatures of a release, and whether the signers agree."),
    "keys": ("keys", "List who signed a release: known, expired or missing keys."),
    "layers": ("layers", "List or remove the layers that builds start from."),
    "lint": ("lint", "Look for what may keep a build from being reproduced."),
    "make-base-vm": ("make_base_vm", "Make the base image that guests start from."),
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


class Lazy(click.Group):
    """A group that imports a subcommand when it is called, not before."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name in COMMANDS or cmd_name in TARGET_COMMANDS:
            return load(cmd_name)
        return None

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, help) for name, (_, help) in sorted(COMMANDS.items())])

    def resolve_command(self, ctx: click.Context, args: list[str]) -> tuple[Any, Any, list[str]]:
        if args and args[0] not in COMMANDS and args[0] not in TARGET_COMMANDS and not args[0].startswith("-"):
            import difflib

            near = difflib.get_close_matches(args[0], COMMANDS, 1)
            ctx.fail(f"No such command '{args[0]}'." + (f" Did you mean '{near[0]}'?" if near else ""))
        return super().resolve_command(ctx, args)


def _version(ctx: click.Context, parameter: click.Parameter, value: bool) -> None:
    if value and not ctx.resilient_parsing:
        from importlib.metadata import version

        click.echo(f"gitian {version('gitian')}")
        ctx.exit()


@click.group(cls=Lazy, context_settings=common.CONTEXT)
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
