"""A group of commands each of which is imported when it is called, so that one's ``--help`` pays for that one alone."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import Any

import click


class Lazy(click.Group):
    """``lines`` are the commands and a line of help for each; ``load`` gives one; ``hidden`` ones are not listed."""

    def __init__(self, *words: Any, lines: Mapping[str, str], load: Callable[[str], click.Command],
                 hidden: Collection[str] = (), **more: Any) -> None:
        super().__init__(*words, **more)
        self._lines, self._load, self._hidden = lines, load, hidden

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted(self._lines)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        return self._load(cmd_name) if cmd_name in self._lines or cmd_name in self._hidden else None

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(sorted(self._lines.items()))

    def resolve_command(self, ctx: click.Context, args: list[str]) -> tuple[Any, Any, list[str]]:
        if args and args[0] not in self._lines and args[0] not in self._hidden and not args[0].startswith("-"):
            import difflib

            near = difflib.get_close_matches(args[0], self._lines, 1)
            ctx.fail(f"No such command '{args[0]}'." + (f" Did you mean '{near[0]}'?" if near else ""))
        return super().resolve_command(ctx, args)
