"""What was fetched for a build: where it came from, how large it was, what it was."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class Fetched:
    """A file that was fetched; ``size`` in bytes. ``sha256`` is what it was checked to have."""

    url: str
    size: int
    sha256: str
