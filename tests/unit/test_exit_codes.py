"""The page of exit codes and the errors say the same."""

from __future__ import annotations

import inspect
import re
from pathlib import Path

from gitian import errors

PAGE = Path(__file__).resolve().parents[2] / "docs" / "reference" / "exit-codes.md"


def test_every_exit_code_is_documented() -> None:
    rows = {int(code) for code in re.findall(r"^\| (\d+) \|", PAGE.read_text(), re.MULTILINE)}
    classes = [value for value in vars(errors).values()
               if inspect.isclass(value) and issubclass(value, errors.GitianError)]
    used = {value.exit_code for value in classes}
    assert {code for code in used if not 20 <= code < 30} <= rows
    assert rows <= used | {0, 2}
    assert all(code < 128 for code in used)


def test_interrupted_is_no_exception_that_a_broad_handler_swallows() -> None:
    assert not issubclass(errors.Interrupted, Exception)
    assert errors.Interrupted(15).exit_code == 143
