"""Small words that messages of variations have in common."""

from __future__ import annotations

from collections.abc import Sequence


def listed(items: Sequence[str], most: int = 5) -> str:
    """Some of the items, and how many more there are."""
    return ", ".join(items[:most]) + (f" and {len(items) - most} more" if len(items) > most else "")


def counted(number: int, noun: str) -> str:
    """A number of things: '1 build', '2 builds'."""
    return f"{number} {noun}{'' if number == 1 else 's'}"
