"""Debian's versions, which of two is the newer."""

from __future__ import annotations

import functools

#: A version as something that sorts: epoch, upstream version, revision, each as (text, number, text, number, ...).
_Pieces = tuple[tuple[tuple[int, ...], int, str], ...]


@functools.lru_cache(maxsize=100_000)
def order(version: str) -> tuple[_Pieces, _Pieces, _Pieces]:
    """A key that sorts Debian versions from old to new.

    Source: deb-version(7), 'Sorting algorithm'. Texts sort by letters before non-letters, '~' before everything, even
    the end; numbers by value (as length and digits: a stranger's number may have any length).
    """
    epoch, colon, rest = version.partition(":")
    if not colon:
        epoch, rest = "", version
    upstream, _, revision = rest.rpartition("-") if "-" in rest else (rest, "", "")
    return _pieces(epoch), _pieces(upstream), _pieces(revision)


def _pieces(text: str) -> _Pieces:
    pieces = []
    at = 0
    while True:
        start = at
        while at < len(text) and text[at] not in "0123456789":
            at += 1
        # The end of a text sorts as 0: after '~' (-1), before letters and all others.
        signs = (*(-1 if char == "~" else ord(char) if char.isascii() and char.isalpha() else ord(char) + 0x200000
                   for char in text[start:at]), 0)
        start = at
        while at < len(text) and text[at] in "0123456789":
            at += 1
        digits = text[start:at].lstrip("0")
        pieces.append((signs, len(digits), digits))
        if at >= len(text):
            # What ended is as if nothing followed for ever: only '~' sorts before that.
            return (*pieces, ((0,), 0, ""))
