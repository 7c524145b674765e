"""Which piece of one file stands against which of the other: lines, strings and runs of bytes, within bounds."""

from __future__ import annotations

import difflib
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from gitian.vary.contents import Blob, Budget

#: Lines beyond this are not aligned by what they say, only by their number.
_ALIGNED_LIMIT = 4000
#: Bytes that differ closer together than this are one place.
_GAP = 8
_PIECE = 65536
_STRING = re.compile(rb"[\x20-\x7e\t]{4,}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    """What stands on the left and on the right, '' when it is only on one side, and its number or offset in each."""

    left: str
    right: str
    at: int
    at_too: int


def paired(left: Sequence[str], right: Sequence[str], budget: Budget) -> Iterator[Pair]:
    """The lines (or strings) that differ, each with its partner. Raises TooMuchError."""
    start, end = 0, 0
    shorter = min(len(left), len(right))
    while start < shorter and left[start] == right[start]:
        start += 1
    while end < shorter - start and left[-1 - end] == right[-1 - end]:
        end += 1
    one, other = left[start:len(left) - end], right[start:len(right) - end]
    budget.tick()
    if max(len(one), len(other)) > _ALIGNED_LIMIT or len(one) == len(other):
        blocks = [(0, len(one), 0, len(other))]
    else:
        matcher = difflib.SequenceMatcher(None, one, other)
        blocks = [(i, i_end, j, j_end) for tag, i, i_end, j, j_end in matcher.get_opcodes() if tag != "equal"]
    for i, i_end, j, j_end in blocks:
        for number in range(max(i_end - i, j_end - j)):
            if number % 256 == 0:
                budget.tick()
            mine = one[i + number] if i + number < i_end else ""
            theirs = other[j + number] if j + number < j_end else ""
            if mine != theirs:
                yield Pair(left=mine, right=theirs, at=start + min(i + number, i_end),
                           at_too=start + min(j + number, j_end))


def reordered(left: Sequence[str], right: Sequence[str]) -> bool:
    """Whether both hold the same lines in another order."""
    return len(left) == len(right) and list(left) != list(right) and Counter(left) == Counter(right)


def strings(blob: Blob, budget: Budget, limit: int) -> list[tuple[int, str]]:
    """(offset, text) of the printable strings in binary data, at most ``limit``. Raises TooMuchError."""
    found: list[tuple[int, str]] = []
    for base in range(0, blob.size, 2**20):
        budget.tick()
        for match in _STRING.finditer(blob.read(base, 2**20)):
            found.append((base + match.start(), match[0][:4096].decode("ascii")))
            if len(found) >= limit:
                return found
    return found


def runs(left: Blob, right: Blob, budget: Budget, limit: int) -> list[tuple[int, int]]:
    """From and to of the places where two of one size differ, at most ``limit`` of them. Raises TooMuchError."""
    found: list[tuple[int, int]] = []
    for base in range(0, min(left.size, right.size), _PIECE):
        one, other = left.read(base, _PIECE), right.read(base, _PIECE)
        if one == other:
            continue
        budget.tick()
        for low in range(0, len(one), 256):
            if one[low:low + 256] == other[low:low + 256]:
                continue
            if found and base + low - found[-1][1] < _GAP and found[-1][1] - found[-1][0] > _PIECE:
                # Nothing is alike here: where exactly each byte of it differs is of no interest any more.
                found[-1] = found[-1][0], base + min(low + 256, len(one))
                continue
            for at in range(low, min(low + 256, len(one), len(other))):
                if one[at] != other[at]:
                    if found and base + at - found[-1][1] < _GAP:
                        found[-1] = found[-1][0], base + at + 1
                    elif len(found) >= limit:
                        return found
                    else:
                        found.append((base + at, base + at + 1))
    return found
