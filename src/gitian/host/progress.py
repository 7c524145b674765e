"""What a user sees while something takes long: steps with their time, bars with bytes; all of it on standard error.

On a terminal one live line per step or bar is kept up to date; elsewhere (a log, CI) each step is two plain lines.
"""

from __future__ import annotations

import contextlib
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.progress import Progress


def plain(text: str, *, lines: bool = False) -> str:
    """The text with everything escaped that could steer a terminal or deceive the eye.

    Control characters (C0 and C1), bidirectional and invisible formatting, line and paragraph separators and bytes that
    are not text become ``\\xNN`` or ``\\uNNNN``. With ``lines``, newlines and tabs stay.
    """
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() or (lines and char in "\n\t") else _escaped(char) for char in text)


def _escaped(char: str) -> str:
    number = ord(char)
    if 0xDC80 <= number <= 0xDCFF:  # a byte that is not UTF-8, as os.fsdecode keeps it
        number -= 0xDC00
    if number < 0x100:
        return f"\\x{number:02x}"
    return f"\\u{number:04x}" if number < 0x10000 else f"\\U{number:08x}"


class _Display:
    """The one live display of this process, and whether anything is to be shown at all."""

    def __init__(self) -> None:
        self.quiet = False
        self.prefix = ""
        self.lock = threading.RLock()
        self.live: Progress | None = None
        self.users = 0

    def on_terminal(self) -> bool:
        try:
            return not self.prefix and sys.stderr.isatty() and os.environ.get("TERM", "dumb") != "dumb"
        except (AttributeError, ValueError):
            return False

    def line(self, text: str) -> None:
        text = self.prefix + text
        with self.lock:
            if self.live is not None:
                self.live.console.print(text, markup=False, highlight=False, soft_wrap=True)
            else:
                # Whoever reads our progress may be gone; that is no reason to stop working.
                with contextlib.suppress(OSError, ValueError, AttributeError):
                    sys.stderr.write(text + "\n")
                    sys.stderr.flush()

    @contextlib.contextmanager
    def task(self, title: str, total: int | None, unit: str) -> Iterator[Callable[[int], None]]:
        with self.lock:
            if self.live is None:
                self.live = _rich_progress()
                self.live.start()
            live = self.live
            self.users += 1
            number = live.add_task(title, total=total, unit=unit)
        try:
            yield lambda count: live.advance(number, count)
        finally:
            with self.lock:
                live.remove_task(number)
                self.users -= 1
                if not self.users:
                    live.stop()
                    self.live = None


_DISPLAY = _Display()


def _rich_progress() -> Progress:
    # Late, because it costs more than everything else that a short command does.
    from rich.console import Console
    from rich.progress import BarColumn, Progress, ProgressColumn, SpinnerColumn, TextColumn, TimeElapsedColumn
    from rich.text import Text

    class Amount(ProgressColumn):
        def render(self, task: Any) -> Text:
            if task.fields["unit"] != "bytes":
                return Text(f"{int(task.completed)}/{int(task.total)}" if task.total else "")
            done = amount(int(task.completed))
            return Text(f"{done} of {amount(int(task.total))}" if task.total else done if task.completed else "")

    class OnlyWithTotal(BarColumn):
        def render(self, task: Any) -> Any:
            return super().render(task) if task.total else Text("")

    return Progress(SpinnerColumn(), TextColumn("{task.description}", markup=False), OnlyWithTotal(bar_width=24),
                    Amount(), TimeElapsedColumn(), console=Console(stderr=True), transient=True,
                    redirect_stdout=False, redirect_stderr=False, refresh_per_second=8)


def set_quiet(quiet: bool) -> None:
    """Show no steps, bars and remarks any more (warnings stay), or show them again."""
    _DISPLAY.quiet = quiet


def set_prefix(name: str) -> None:
    """Begin every line with a name, and draw nothing live: others say something at the same time."""
    _DISPLAY.prefix = f"{plain(name)}: " if name else ""


@contextlib.contextmanager
def hushed() -> Iterator[None]:
    """While the block runs, show nothing but warnings: what it does has been said in fewer words."""
    before = _DISPLAY.quiet
    _DISPLAY.quiet = True
    try:
        yield
    finally:
        _DISPLAY.quiet = before


def say(text: str) -> None:
    """One remark on standard error, unless quiet."""
    if not _DISPLAY.quiet:
        _DISPLAY.line(plain(text))


def warn(text: str) -> None:
    """One warning on standard error, quiet or not."""
    _DISPLAY.line("warning: " + plain(text))


@contextlib.contextmanager
def step(title: str) -> Iterator[None]:
    """Show that something is being done, and afterwards how long it took (seconds)."""
    title = plain(title)
    if _DISPLAY.quiet:
        yield
        return
    started = time.monotonic()
    if _DISPLAY.on_terminal():
        with _DISPLAY.task(title, None, ""):
            yield
    else:
        _DISPLAY.line(f"{title} ...")
        yield
    _DISPLAY.line(f"{title}: done ({time.monotonic() - started:.1f} s)")


@contextlib.contextmanager
def bar(title: str, total: int | None = None, *, unit: str = "bytes") -> Iterator[Callable[[int], None]]:
    """Show how much of ``total`` is done; yields ``advance(n)``, which any thread may call.

    ``unit`` is 'bytes', or whatever else is counted.
    """
    title = plain(title)
    done = 0

    def count(number: int) -> None:
        nonlocal done
        done += number

    if _DISPLAY.quiet:
        yield count
        return
    started = time.monotonic()
    if _DISPLAY.on_terminal():
        with _DISPLAY.task(title, total, unit) as show:
            def advance(number: int) -> None:
                count(number)
                show(number)

            yield advance
    else:
        _DISPLAY.line(f"{title} ...")
        yield count
    shown = amount(done) if unit == "bytes" else f"{done} {unit}"
    _DISPLAY.line(f"{title}: done ({shown}, {time.monotonic() - started:.1f} s)")


@contextlib.contextmanager
def paused() -> Iterator[None]:
    """Keep the live display still while another program (a pinentry, an editor) has the terminal."""
    with _DISPLAY.lock:
        live = _DISPLAY.live
        if live is not None:
            live.stop()
    try:
        yield
    finally:
        with _DISPLAY.lock:
            if live is not None and _DISPLAY.live is live:
                live.start()


def amount(size: int) -> str:
    """A number of bytes for people: '512 bytes', '1.4 MB' (decimal, as disks are sold)."""
    if size < 1000:
        return f"{size} bytes"
    value = size / 1000
    units = ["kB", "MB", "GB", "TB"]
    while value >= 999.95 and len(units) > 1:
        value /= 1000
        del units[0]
    return f"{value:.1f} {units[0]}"
