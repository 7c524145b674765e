"""Command lines as the classic's option parser took them: long options may be cut short where that is clear."""

from __future__ import annotations

import re
from typing import Any

import click


class Whole(click.IntRange):
    """A whole number in a range, in the digits 0 to 9: to Python '\uff12' and '1_0' are numbers too."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if isinstance(value, str) and not re.fullmatch("[+-]?[0-9]{1,18}", value):
            self.fail(f"{value!r} is not a whole number.", param, ctx)
        return super().convert(value, param, ctx)


class Measure(click.FloatRange):
    """A number in a range, in the digits 0 to 9: neither 'nan', which is in every range, nor 'inf'."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if isinstance(value, str) and not re.fullmatch(r"[+-]?[0-9]{1,18}(\.[0-9]{0,18})?", value):
            self.fail(f"{value!r} is not a number.", param, ctx)
        return super().convert(value, param, ctx)


class ClassicCommand(click.Command):
    """A command whose long options may be abbreviated: ``--verb`` is ``--verbose`` when nothing else starts so."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        return super().parse_args(ctx, self._spelt_out(ctx, args))

    def _spelt_out(self, ctx: click.Context, args: list[str]) -> list[str]:
        known: dict[str, bool] = {}
        takes: set[str] = set()
        for parameter in self.get_params(ctx):
            if isinstance(parameter, click.Option):
                for name in (*parameter.opts, *parameter.secondary_opts):
                    known[name] = not parameter.is_flag
                    if not parameter.is_flag:
                        takes.add(name)
        spelt: list[str] = []
        value_next = False
        for at, word in enumerate(args):
            if value_next:
                value_next = False
            elif word == "--":
                return [*spelt, *args[at:]]
            elif word.startswith("--"):
                name, equals, value = word.partition("=")
                if name not in known:
                    near = sorted(option for option in known if option.startswith(name))
                    # Two spellings of one option are no ambiguity ('--signing_program', '--signing-program').
                    if len({option.replace("_", "-") for option in near}) == 1:
                        name = near[0]
                        word = name + equals + value
                value_next = not equals and name in takes
            elif word.startswith("-") and len(word) == 2:
                value_next = word in takes
            spelt.append(word)
        return spelt
