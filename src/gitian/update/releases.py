"""Which of two releases is the newer one."""

from __future__ import annotations

import re

#: Words that come before the release they are attached to: 1.0rc1 is older than 1.0.
_EARLY = {"dev": 0, "pre": 1, "preview": 1, "alpha": 2, "a": 2, "beta": 3, "b": 3, "rc": 4, "c": 4}


def compare(one: str, other: str) -> int | None:
    """-1 when ``one`` is older, 0 when they are the same, 1 when it is newer; None when nobody can tell.

    Numbers count as numbers, 'v' in front and punctuation do not count, early words (rc, beta, ...) come before their
    release and other words (a platform, as in '0.15.1-linux') after it. A release without any digit ('test') can only
    be the same as another.
    """
    if one == other:
        return 0
    if not (re.search(r"[0-9]", one) and re.search(r"[0-9]", other)):
        return None
    left, right = _key(one), _key(other)
    return (left > right) - (left < right)


def _key(release: str) -> list[tuple[int, int, str]]:
    words = re.findall(r"[0-9]+|[a-z]+", re.sub(r"^v(?=[0-9])", "", release.lower()))
    key = [(3, int(word), "") if word.isdigit() else (0, _EARLY[word], "") if word in _EARLY else (2, 0, word)
           for word in words]
    return [*key, (1, 0, "")]  # the end: after an early word, before anything else
