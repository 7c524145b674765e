"""What every command does the same way: end by an error's own status, stop in good order at a signal."""

from __future__ import annotations

import contextlib
import io
import os
import signal
import sys
from collections.abc import Callable, Iterator
from types import FrameType

import click

from gitian.errors import GitianError, Interrupted

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
CONTEXT = {"help_option_names": ["-h", "--help"], "max_content_width": 100}


def json_text(document: object) -> str:
    """A document as JSON in printable ASCII: the standard library leaves DEL as it is."""
    import json

    return json.dumps(document, indent=2).replace("\x7f", "\\u007f")


def run(command: click.Command, name: str) -> None:
    """Run a command as a whole program and exit with its status; the only place that does."""
    status = status_of(command, name, None)
    if status == 0:  # all is done: a signal that comes while the interpreter ends must not say otherwise
        for number in _SIGNALS:
            with contextlib.suppress(ValueError):
                signal.signal(number, signal.SIG_IGN)
    sys.exit(status)


def status_of(command: click.Command, name: str, arguments: list[str] | None) -> int:
    """Run a command; errors are printed on stderr, and the exit status is returned."""
    from gitian.host.progress import plain

    # What the user's encoding lacks (a signer called 'ü' in a Latin-2 world) is escaped; it is no reason to fail.
    if isinstance(sys.stdout, io.TextIOWrapper) and sys.stdout.errors == "strict":
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        with signals_as_exceptions():
            outcome = command.main(args=arguments, prog_name=name, standalone_mode=False)
        if sys.stdout is not None:  # closed by whoever started us
            sys.stdout.flush()
        return outcome if isinstance(outcome, int) else 0
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except (Interrupted, KeyboardInterrupt, click.Abort) as error:
        number = error.number if isinstance(error, Interrupted) else signal.SIGINT
        with contextlib.suppress(ValueError, OSError):
            print(f"{name}: stopped by {signal.Signals(number).name}; everything was put away.", file=sys.stderr)
        return 128 + number
    except GitianError as error:
        print(f"{name}: {plain(str(error), lines=True)}", file=sys.stderr)
        if error.hint:
            print(plain(error.hint, lines=True), file=sys.stderr)
        return error.exit_code
    except BrokenPipeError:
        # Whoever read our output has seen enough ('gverify | head'). Nothing more can be said there.
        with contextlib.suppress(OSError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 128 + signal.SIGPIPE


@contextlib.contextmanager
def signals_as_exceptions() -> Iterator[None]:
    """While the block runs, SIGINT, SIGTERM and SIGHUP raise Interrupted in it, once.

    A second signal is left to wait while the first one is being obeyed: the cleaning up must not be cut short; three
    of them mean that somebody is in a hurry, and end the program at once (the next run cleans up).
    """
    seen = 0

    def stop(number: int, frame: FrameType | None) -> None:
        nonlocal seen
        seen += 1
        if seen == 1:
            raise Interrupted(number)
        if seen >= 3:
            os._exit(128 + number)

    before = {}
    for number in _SIGNALS:
        with contextlib.suppress(ValueError):  # not in the main thread
            before[number] = signal.signal(number, stop)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler if handler is not None else signal.SIG_DFL)


def entry(load: Callable[[], click.Command], name: str) -> Callable[[], None]:
    """A console script: the command is loaded when it is called, so that ``--help`` of one pays for that one alone."""

    def script() -> None:
        run(load(), name)

    return script
