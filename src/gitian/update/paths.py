"""Which names of files a package may hold, and which of them get into each other's way."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable

#: What the updater itself keeps in a destination.
INSTALLED = ".gitian-manifest"
#: Where the classic updater notes that it waits.
CLASSIC_WAITING = ".gitian-waiting"

#: Folder of a package with assertions, signatures and keys.
EVIDENCE = "gitian"

_LONGEST = 4000
_LONGEST_PART = 255


def check(path: str) -> str:
    """Return the path when it is a plain relative one, else raise ValueError saying what is wrong with it.

    Any printable character is fine, spaces too; what leads out of a directory, or means something else on another
    system (a backslash, a drive letter), is not.
    """
    if not path:
        raise ValueError("an empty name")
    if len(path.encode(errors="surrogatepass")) > _LONGEST:
        raise ValueError("a name of more than 4000 bytes")
    if path.startswith("/"):
        raise ValueError("an absolute path")
    if "\\" in path:
        raise ValueError("a backslash in the name")
    if len(path) > 1 and path[1] == ":" and path[0].isascii() and path[0].isalpha():
        raise ValueError("a drive letter in the name")
    if not path.isprintable():
        raise ValueError("an invisible or control character in the name")
    for part in path.split("/"):
        if part in ("", ".", ".."):
            raise ValueError("an empty part, '.' or '..' in the path")
        if len(part.encode()) > _LONGEST_PART:
            raise ValueError("a part of the path with more than 255 bytes")
    if folded(path.split("/")[0]) in (INSTALLED, CLASSIC_WAITING):
        raise ValueError("a name that the updater keeps for itself")
    return path


def folded(path: str) -> str:
    """What a file system that ignores case and the composition of accents makes of a path."""
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", path).casefold())


def collision(paths: Iterable[str]) -> tuple[str, str] | None:
    """Two of the paths that cannot both be files: the same, the same but for case, or one lies beneath the other."""
    seen: dict[str, str] = {}
    for path in paths:
        if (twin := seen.get(folded(path))) is not None:
            return twin, path
        seen[folded(path)] = path
    above: dict[str, tuple[str, str]] = {}  # a directory, folded -> how it is spelt, and a file beneath it
    for path in seen.values():
        parts = path.split("/")
        for end in range(1, len(parts)):
            directory = "/".join(parts[:end])
            if (file := seen.get(folded(directory))) is not None:
                return file, path
            spelt, first = above.setdefault(folded(directory), (directory, path))
            if spelt != directory:  # 'Doc/a' and 'doc/b': two directories here, one elsewhere
                return first, path
    return None
