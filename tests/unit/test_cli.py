"""The command line as a whole: every command answers --help, late imports stay late, errors end as documented."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import click
import pytest

from gitian.cli.common import status_of
from gitian.cli.main import COMMANDS, TARGET_COMMANDS, group, load
from gitian.errors import BuildError, Interrupted

SCRIPTS = Path(sys.executable).parent
HEAVY = {"paramiko", "git", "gnupg", "rich", "yaml", "cryptography"}


@pytest.mark.parametrize("name", ["gitian", "make-base-vm", "gbuild", "gsign", "gverify"])
@pytest.mark.parametrize("option", ["-h", "--help"])
def test_each_console_script_helps(name: str, option: str) -> None:
    done = subprocess.run([SCRIPTS / name, option], capture_output=True, text=True, stdin=subprocess.DEVNULL)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"Usage: {name} ")


@pytest.mark.parametrize("name", sorted(COMMANDS))
def test_help_imports_nothing_heavy(name: str) -> None:
    code = ("import sys\nfrom gitian.cli import main, common\n"
            f"status = common.status_of(main.load({name!r}), {name!r}, ['--help'])\n"
            f"print(sorted({HEAVY!r} & set(sys.modules)), status, file=sys.stderr)")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, stdin=subprocess.DEVNULL)
    assert done.stderr.strip().splitlines()[-1:] == ["[] 0"], done.stderr


@pytest.mark.parametrize("name", [*COMMANDS, *TARGET_COMMANDS])
def test_every_command_of_the_list_can_be_loaded_and_documents_its_options(name: str) -> None:
    command = load(name)
    assert command.help
    assert all(parameter.help for parameter in command.params
               if isinstance(parameter, click.Option) and not parameter.hidden)


def test_a_wrong_command_gets_a_suggestion(capsys: pytest.CaptureFixture[str]) -> None:
    assert status_of(group, "gitian", ["gbild"]) == 2
    assert "Did you mean 'gbuild'?" in capsys.readouterr().err


def test_an_error_ends_with_its_own_status_and_cannot_drive_a_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    @click.command()
    def failing() -> None:
        raise BuildError("It \x1b[31mfailed.", hint="Try\x07 again.")

    assert status_of(failing, "x", []) == 9
    said = capsys.readouterr().err
    assert said.startswith("x: It ")
    assert "again." in said
    assert "\x1b" not in said
    assert "\x07" not in said


def test_a_signal_ends_with_its_own_status(capsys: pytest.CaptureFixture[str]) -> None:
    @click.command()
    def stopped() -> None:
        raise Interrupted(15)

    assert status_of(stopped, "x", []) == 143
    assert "SIGTERM" in capsys.readouterr().err


def test_a_reader_that_goes_away_is_no_error() -> None:
    done = subprocess.run(["bash", "-c", f"set -o pipefail; '{SCRIPTS}/gitian' --help | true"], capture_output=True,
                          text=True, stdin=subprocess.DEVNULL, env={**os.environ, "PYTHONUNBUFFERED": "1"})
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("name", ["gbuild", "gsign", "gverify", "make-base-vm"])
def test_long_options_may_be_cut_short_as_in_the_classic(name: str) -> None:
    command = load(name)
    context = command.make_context(name, [], resilient_parsing=True)  # a bare Context would make -h unknown for good
    names = {spelling for parameter in command.get_params(context) if isinstance(parameter, click.Option)
             for spelling in parameter.opts if spelling.startswith("--")}
    flags = {spelling for parameter in command.get_params(context) if isinstance(parameter, click.Option)
             and parameter.is_flag for spelling in parameter.opts} - {"--help"}
    for spelling in names - {"--help"}:
        short = spelling[:-1]
        near = {other.replace("_", "-") for other in names if other.startswith(short)}
        known = True
        try:
            command.make_context(name, [short if spelling in flags else f"{short}=1", "descriptor.yml"])
        except click.NoSuchOption:
            known = False
        except click.UsageError:
            pass  # known, and not content with its value
        assert known == (len(near) == 1 or short in names), spelling
