"""RSS and Atom feeds: which link, if any, names a release.

XML is read as a stream of events (expat), never as a tree; a feed with a document type is refused, so that no entity
can be declared, expanded or fetched.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from urllib.parse import urljoin, urlsplit
from xml.parsers import expat

from gitian.errors import DownloadError
from gitian.update import releases

#: A feed larger than this is refused (bytes).
LIMIT = 8 * 2**20
_DEEPEST = 200
_MOST_TEXTS = 100_000
_LONGEST_TEXT = 4096

#: Where a feed without ``xpath`` is looked at: RSS links, enclosures and guids; Atom links.
COMMON = ("//item/link/text()", "//item/enclosure/@url", "//item/guid/text()", "//entry/link/@href")

_NAME = r"(?:[A-Za-z_][\w.-]*:)?[A-Za-z_][\w.-]*"
_STEP = re.compile(rf"(//?)(text\(\)|@{_NAME}|{_NAME}|\*)")


@dataclass(frozen=True, slots=True, kw_only=True)
class Path:
    """The part of XPath 1.0 that feeds need: ``/a//b/*/text()`` or ``.../@attribute``; prefixes are ignored."""

    steps: tuple[tuple[bool, str], ...]  # (at any depth, name)
    attribute: str | None  # None: the element's text

    @staticmethod
    def parse(text: str) -> Path:
        """Read an expression. Raises ValueError, with a sentence."""
        position = 0
        steps: list[tuple[bool, str]] = []
        attribute: str | None = None
        ended = False
        while position < len(text):
            match = _STEP.match(text, position)
            if match is None or ended:
                raise ValueError(f"the xpath '{text}' is not understood at '{text[position:]}': only paths such as "
                                 "'//item/link/text()' or '//entry/link/@href' are")
            deep, name = match[1] == "//", match[2]
            if name == "text()":
                if deep:
                    raise ValueError(f"the xpath '{text}' has '//' before 'text()'; write '/text()'")
                ended = True
            elif name.startswith("@"):
                if deep:
                    raise ValueError(f"the xpath '{text}' has '//' before an attribute; write '/@name'")
                attribute, ended = name[1:].rpartition(":")[2], True
            else:
                steps.append((deep, name.rpartition(":")[2]))
            position = match.end()
        if not steps:
            raise ValueError(f"the xpath '{text}' names no element")
        return Path(steps=tuple(steps), attribute=attribute)

    def matches(self, stack: list[str]) -> bool:
        """Whether the innermost of the open elements is one that the path leads to."""
        reached = {0}  # how many elements, from the outermost, the steps so far may have used up
        for deep, name in self.steps:
            ahead = set()
            for start in reached:
                for at in range(start, len(stack) if deep else min(start + 1, len(stack))):
                    if name in ("*", stack[at]):
                        ahead.add(at + 1)
            reached = ahead
        return len(stack) in reached


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """A link of a feed that fits the pattern. ``release`` is what the pattern's first group holds, if it has one."""

    url: str
    release: str | None


def texts(document: bytes, xpath: str | None, source: str) -> list[str]:
    """What the path leads to, in the order of the feed. Raises DownloadError for what is not a decent feed."""
    paths = [Path.parse(text) for text in ((xpath,) if xpath else COMMON)]
    reader = _Reader(paths, source)
    parser = expat.ParserCreate()
    parser.buffer_text = True
    parser.StartElementHandler = reader.start
    parser.EndElementHandler = reader.end
    parser.CharacterDataHandler = reader.text
    parser.StartDoctypeDeclHandler = reader.document_type
    try:
        parser.Parse(document, True)
    except (expat.ExpatError, ValueError, LookupError) as error:  # LookupError: an encoding nobody knows
        raise DownloadError(f"The feed '{source}' is not XML: {error}.") from error
    return reader.found


class _Reader:
    def __init__(self, paths: list[Path], source: str) -> None:
        self.paths = paths
        self.source = source
        self.stack: list[str] = []
        self.open: list[list[str] | None] = []
        self.found: list[str] = []

    def document_type(self, *_: object) -> None:
        raise DownloadError(f"The feed '{self.source}' has a document type declaration, which is refused.",
                            hint="No RSS or Atom feed needs one; entities declared there are a known attack.")

    def start(self, name: str, attributes: dict[str, str]) -> None:
        self.stack.append(name.rpartition(":")[2])
        if len(self.stack) > _DEEPEST:
            raise DownloadError(f"The feed '{self.source}' is nested more than {_DEEPEST} elements deep.")
        collect = False
        for path in self.paths:
            if path.matches(self.stack):
                if path.attribute is None:
                    collect = True
                else:
                    for key, value in attributes.items():
                        if key.rpartition(":")[2] == path.attribute:
                            self.add(value)
        self.open.append([] if collect else None)

    def text(self, data: str) -> None:
        if self.open and (pieces := self.open[-1]) is not None:
            pieces.append(data)

    def end(self, name: str) -> None:
        self.stack.pop()
        if pieces := self.open.pop():
            self.add("".join(pieces))

    def add(self, text: str) -> None:
        text = text.strip()
        if not text or len(text) > _LONGEST_TEXT:
            return
        if len(self.found) >= _MOST_TEXTS:
            raise DownloadError(f"The feed '{self.source}' has more than {_MOST_TEXTS} links.")
        self.found.append(text)


def newest(document: bytes, *, xpath: str | None, pattern: str, source: str) -> Found | None:
    """The link that fits the pattern, of several the one with the highest release, else the first; None: no link fits.

    ``pattern`` is a regular expression (searched for, as in Python's ``re``); its first group, if any, is the release.
    A link may be relative to the feed. Raises DownloadError.
    """
    expression = re.compile(pattern)
    best: Found | None = None
    for text in texts(document, xpath, source):
        match = expression.search(text)
        if match is None:
            continue
        url = urljoin(source, text)
        # A feed from elsewhere must not make us read files of this machine.
        if urlsplit(url).scheme not in ("http", "https", *(("file",) if urlsplit(source).scheme == "file" else ())):
            continue
        found = Found(url=url, release=match[1] if expression.groups else None)
        if best is None or (found.release and best.release and releases.compare(found.release, best.release) == 1):
            best = found
    return best
