"""What one comparison writes down as it goes, and what it may cost."""

from __future__ import annotations

import base64

from gitian.vary.clues import Clue, Detective
from gitian.vary.contents import Blob, Budget
from gitian.vary.findings import Digests, Item, Kind


class Book:
    """Findings, at most as many as the limits allow; what is beyond is counted."""

    def __init__(self, detective: Detective, budget: Budget, digests: Digests) -> None:
        self.detective, self.budget, self.digests = detective, budget, digests
        self.items: list[Item] = []
        self.dropped = 0

    def add(self, kind: Kind, place: str, first: str, second: str, clues: tuple[Clue, ...] = (), habitat: str = "",
            consequence: str | None = None) -> None:
        """Write one thing down."""
        if len(self.items) >= self.budget.limits.findings:
            self.dropped += 1
            return
        self.items.append(Item(kind=kind, place=place, first=first, second=second, clues=clues, habitat=habitat,
                               consequence=consequence))

    def remember(self, left: Blob, right: Blob, place: str) -> None:
        """Hash both, so that a list of hashes that names them explains itself."""
        for blob, known in ((left, self.digests.first), (right, self.digests.second)):
            self.budget.tick()
            for name in ("md5", "sha1", "sha256", "sha512"):
                value = blob.digest(name, self.budget)
                known.setdefault(value.hex(), place)
                if name != "md5":  # as wheels and npm write them
                    known.setdefault(base64.urlsafe_b64encode(value).decode().rstrip("="), place)
                    known.setdefault(base64.b64encode(value).decode().rstrip("="), place)
