"""Signing and verifying programs that the user names: called with a list of words, never through a shell."""

from __future__ import annotations

import shlex
from pathlib import Path

from gitian.errors import GitianError, UsageError
from gitian.host import process
from gitian.sigs.verdict import Outcome, SignatureState

#: A verifying program may take so long for one signature (seconds).
PATIENCE = 120.0


def words(program: str, option: str) -> tuple[str, ...]:
    """A program and its arguments, split as a shell would split them, with nothing expanded. Raises UsageError."""
    try:
        split = tuple(shlex.split(program))
    except ValueError as error:
        raise UsageError(f"The program of {option} cannot be split into words: {error}: '{program}'.") from error
    if not split:
        raise UsageError(f"The program of {option} is empty.")
    return split


def verify(program: tuple[str, ...], proof: Path, content: Path) -> SignatureState:
    """Ask a program about one signature: ``PROGRAM --quiet --batch --verify SIGNATURE ASSERTION``; status 0 is good.

    What it prints is kept. A program that cannot be started verifies nothing: that is a bad signature, as in the
    classic.
    """
    try:
        done = process.run([*program, "--quiet", "--batch", "--verify", proof, content], check=False, timeout=PATIENCE,
                           limit=2**20)
    except GitianError as error:
        return SignatureState(outcome=Outcome.BAD_SIGNATURE, detail=f"the program gave no answer: {error}")
    text = (done.stdout + done.stderr).decode(errors="replace")
    if done.status:
        return SignatureState(outcome=Outcome.BAD_SIGNATURE, text=text,
                              detail=f"'{program[0]}' {process.ended_how(done.status)}")
    return SignatureState(outcome=Outcome.OK, text=text)
