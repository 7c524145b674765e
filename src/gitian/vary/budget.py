"""How many builds, or how much time, a search may spend; and what it says before each build."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from gitian.errors import UsageError

_BUILDS = re.compile(r"([0-9]{1,6})(?: ?builds?)?", re.ASCII)
_TIME = re.compile(r"(?:([0-9]{1,5}(?:\.[0-9]{1,3})?) ?h(?:ours?)?)? ?"
                   r"(?:([0-9]{1,6}(?:\.[0-9]{1,3})?) ?m(?:in|inutes?)?)?", re.ASCII)
_HINT = "Write a number of builds ('12'), a time ('30m', '2h', '1h30m'), or both with a comma ('12,2h')."


@dataclass(frozen=True, slots=True, kw_only=True)
class Budget:
    """What a search may spend: so many builds, so many minutes, whichever ends first; None is no bound."""

    builds: int | None = None
    minutes: float | None = None

    @classmethod
    def parse(cls, text: str) -> Budget:
        """Read '12' or '12 builds', '30m', '2h', '1h30m', or one of each kind with a comma between.

        A bare number is builds, never minutes. Raises UsageError for anything else, and for nothing at all ('0').
        """
        builds: int | None = None
        minutes: float | None = None
        for part in text.split(","):
            part = part.strip().lower()
            if (match := _BUILDS.fullmatch(part)) and builds is None:
                builds = int(match[1])
            elif part and (match := _TIME.fullmatch(part)) and minutes is None:
                minutes = float(match[1] or 0) * 60 + float(match[2] or 0)
            else:
                raise UsageError(f"'{text}' is no budget.", hint=_HINT)
        if builds == 0 or minutes == 0:
            raise UsageError(f"The budget '{text}' leaves no room for a single build.", hint=_HINT)
        return cls(builds=builds, minutes=minutes)

    def __str__(self) -> str:
        parts = [] if self.builds is None else [f"{self.builds} build{'s' if self.builds != 1 else ''}"]
        parts += [] if self.minutes is None else [f"{self.minutes:g} minute{'s' if self.minutes != 1 else ''}"]
        return " and ".join(parts) or "no bound"


class Meter:
    """Counts what is spent of a budget, from the moment it is made; one meter may go through several searches.

    ``clock`` gives seconds. A build is not started when one of the usual length so far would end too late: a budget
    of time is for whoever waits for the end, not for the start of the last build.
    """

    def __init__(self, budget: Budget | None = None, *, clock: Callable[[], float] = time.monotonic) -> None:
        self.budget = budget or Budget()
        self.builds = 0
        self._clock = clock
        self._start = clock()
        self._building = 0.0

    @property
    def minutes(self) -> float:
        """Minutes since the meter was made, builds or not."""
        return (self._clock() - self._start) / 60

    def exhausted(self) -> str | None:
        """Why no further build may start, as a sentence, or None."""
        if self.budget.builds is not None and self.builds >= self.budget.builds:
            return f"The budget of {self.budget} is spent."
        if self.budget.minutes is not None:
            usual = self._building / self.builds / 60 if self.builds else 0.0
            if self.minutes >= self.budget.minutes:
                return f"The budget of {self.budget} is spent."
            if self.minutes + usual > self.budget.minutes:
                return f"Of the budget of {self.budget}, less is left than a build has taken so far."
        return None

    def left(self) -> int | None:
        """Builds that the budget still has; None when it has no bound on them."""
        return None if self.budget.builds is None else max(0, self.budget.builds - self.builds)

    def seconds_left(self) -> float | None:
        """How much time the budget still has; None when it has no bound on it."""
        return None if self.budget.minutes is None else max(0.0, (self.budget.minutes - self.minutes) * 60)

    @contextmanager
    def building(self) -> Iterator[None]:
        """Around each build, so that it is counted and its time is known; one that raises is counted, too."""
        begun = self._clock()
        self.builds += 1
        try:
            yield
        finally:
            self._building += self._clock() - begun


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """What a search is about to build.

    ``remaining_at_most`` counts this build and all after it, as far as is known by now. It goes down with every build;
    where it rises, ``news`` says what came to light that nobody could know before (else ``news`` is None).
    """

    built: int
    remaining_at_most: int
    chosen: frozenset[str]
    purpose: str
    news: str | None = None
