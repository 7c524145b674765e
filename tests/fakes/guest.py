"""A guest that answers from a table: for tests of what is done with the answers. It implements our own protocol."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path, PurePosixPath

from gitian.errors import GuestError
from gitian.guest.protocol import Limits, Result


class TableGuest:
    """Answers each command with what the table says for its first word."""

    user = "debian"
    label = "bookworm-amd64"
    network = True

    def __init__(self, answers: Mapping[str, Result | Callable[[Sequence[str]], Result]]) -> None:
        self.answers = answers
        self.commands: list[list[str]] = []

    def run(self, command: Sequence[str], *, user: str | None = None, input: bytes | None = None,
            env: Mapping[str, str] | None = None, cwd: str | None = None,
            output: Callable[[bytes], None] | None = None, timeout: float | None = None, check: bool = True,
            limit: int = 16 * 2**20) -> Result:
        self.commands.append(list(command))
        answer = self.answers[command[0]]
        result = answer(command) if callable(answer) else answer
        if check and result.status != 0:
            raise GuestError(f"'{command[0]}' failed.")
        return result

    def put(self, source: Path, destination: PurePosixPath, *, user: str | None = None,
            progress: Callable[[int], None] | None = None) -> None:
        raise NotImplementedError

    def get(self, source: PurePosixPath, destination: Path, *, limits: Limits | None = None,
            progress: Callable[[int], None] | None = None, user: str | None = None) -> None:
        raise NotImplementedError

    def close(self, *, keep: bool = False) -> None:
        """Nothing to end."""
