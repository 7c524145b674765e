"""The reference page of 'gitian update' says what the program does."""

from __future__ import annotations

import inspect
import re
from pathlib import Path

from gitian import errors
from gitian.cli.update import command
from gitian.update import config

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "reference" / "update.md").read_text()


def test_every_exit_status() -> None:
    rows = {int(code) for code in re.findall(r"^\| (\d+) \|", PAGE, re.MULTILINE)}
    codes = [value.exit_code for value in vars(errors).values()
             if inspect.isclass(value) and issubclass(value, errors.GitianError) and 20 <= value.exit_code < 30]
    assert sorted(codes) == list(range(20, 30))
    assert set(codes) <= rows


def test_every_option() -> None:
    for parameter in command.params:
        for name in parameter.opts:
            if name.startswith("-"):
                assert f"`{name}" in PAGE, name


def test_every_key() -> None:
    for key in config.KEYS:
        assert f"`{key}`" in PAGE, key
