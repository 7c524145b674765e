"""zstd, which Python's standard library has not: the program, run here; inside a guest its driver runs it."""

from __future__ import annotations

from collections.abc import Callable
from typing import IO

from gitian.errors import FormatError
from gitian.host import process
from gitian.host.streams import relay


def run(arguments: list[str], source: IO[bytes], write: Callable[[bytes], object]) -> None:
    """Run zstd on a file and pass on what it says. Raises FormatError when it fails; MissingToolError."""
    import tempfile

    source.seek(0)
    source.flush()
    with tempfile.TemporaryFile() as said:
        with process.start(["zstd", *arguments], stdin=source, stdout=process.PIPE, stderr=said) as running:
            assert running.stdout is not None
            relay(running.stdout.fileno(), write)
        if running.returncode:
            said.seek(0)
            words = said.read(2000).decode(errors="replace").strip().splitlines()
            raise FormatError(f"zstd failed: {words[-1] if words else 'it said nothing'}.")
