"""Two files that are no archives, and differ: text line by line, anything else section by section."""

from __future__ import annotations

import itertools
import re
from collections import Counter
from collections.abc import Sequence

from gitian.vary import alignment, objects
from gitian.vary.book import Book
from gitian.vary.circumstances import known_to_differ
from gitian.vary.clues import Clue, within
from gitian.vary.contents import Blob, same
from gitian.vary.findings import Item, Kind, shown_bytes
from gitian.vary.hints import Cause
from gitian.vary.objects import IDENTITY, MOVED, Region

#: Text longer than this (bytes) is compared as data.
_TEXT_LIMIT = 64 * 2**20
_RUNS, _STRINGS, _PAIRS = 200, 20_000, 4000
_NEAR = 64
_CODE = (".text", ".init", ".fini", ".plt")


def compare(book: Book, left: Blob, right: Blob, kind: str, place: str) -> None:
    """Write down what differs between two files of one kind. Raises TooMuchError."""
    if kind == "text" and max(left.size, right.size) <= _TEXT_LIMIT:
        _text(book, left, right, place)
    else:
        _data(book, left, right, kind, place)


def order(book: Book, left: Sequence[str], right: Sequence[str], habitat: str) -> tuple[tuple[Clue, ...], str]:
    """What explains that the same names or lines come in another order, and for which habitat the remedy is."""
    a, b = book.detective.a, book.detective.b
    known = known_to_differ(a, b)
    first = next(((one, other) for one, other in zip(left, right, strict=False) if one != other), ("", ""))

    def clue(cause: Cause, sure: bool) -> Clue:
        return Clue(cause=cause, left=f"{first[0]} ...", right=f"{first[1]} ...", sure=sure)

    if {_sorted_by(left), _sorted_by(right)} == {"bytes", "locale"} and (
            "locale" in known or not {"directory_order", "file_system"} & known):
        return (clue(Cause.LOCALE, "locale" in known),), "order"
    if {"directory_order", "file_system"} & known:
        return (clue(Cause.DIRECTORY_ORDER, True),), habitat
    clues = [clue(Cause.DIRECTORY_ORDER, False)]
    if "cores" in known:
        return (clue(Cause.CORES, False), *clues), habitat or "order"
    return tuple(clues), habitat


def _sorted_by(names: Sequence[str]) -> str:
    """'bytes' when they are in the order of the C locale, 'locale' when in that of most others (letters first, whatever
    their case, and other signs only among equals: ISO 14651), else ''."""
    if all(one <= other for one, other in itertools.pairwise(names)):
        return "bytes"
    keys = [re.sub(r"[\W_]", "", name).casefold() for name in names]
    return "locale" if all(one <= other for one, other in itertools.pairwise(keys)) else ""


def _text(book: Book, left: Blob, right: Blob, place: str) -> None:
    one, other = (blob.read(0, blob.size).decode("utf-8", "surrogateescape").split("\n") for blob in (left, right))
    lines = [line for line in one if line], [line for line in other if line]
    if alignment.reordered(*lines):
        _reordered(book, lines[0], lines[1], place)
        return
    pairs = []
    for pair in alignment.paired(one, other, book.budget):
        pairs.append(pair)
        if len(pairs) + len(book.items) > book.budget.limits.findings:
            book.dropped += 1
            break
    gone, come = [pair.left for pair in pairs if pair.left], [pair.right for pair in pairs if pair.right]
    if len(gone) > 1 and Counter(gone) == Counter(come):  # in the midst of others that stayed
        _reordered(book, gone, come, f"{place}:{pairs[0].at + 1}")
        return
    for pair in pairs:
        book.budget.tick()
        clues, habitat = _line(book, pair.left, pair.right)
        book.add(Kind.TEXT, f"{place}:{(pair.at if pair.left else pair.at_too) + 1}", pair.left, pair.right, clues,
                 habitat)


def _reordered(book: Book, one: Sequence[str], other: Sequence[str], place: str) -> None:
    clues, habitat = order(book, one, other, "")
    at = next((number for number, pair in enumerate(zip(one, other, strict=False)) if pair[0] != pair[1]), 0)
    where = place if ":" in place.rpartition("/")[2] else f"{place}:{at + 1}"
    book.add(Kind.LINE_ORDER, where, one[at], other[at], clues, habitat)


def _line(book: Book, left: str, right: str) -> tuple[tuple[Clue, ...], str]:
    clues = book.detective.text(left, right)
    if not any(clue.sure for clue in clues) and max(len(left), len(right)) < 100_000:
        words = left.split(), right.split()
        if len(words[0]) > 2 and alignment.reordered(*words):
            return order(book, words[0], words[1], "")
    return clues, ""


def _data(book: Book, left: Blob, right: Blob, kind: str, place: str) -> None:
    start = len(book.items)
    one = {region.name: region for region in objects.regions(left, kind)}
    other = {region.name: region for region in objects.regions(right, kind)}
    habitat = {"mach-o": "elf"}.get(kind, kind)
    if not one or not other:
        one = {"": Region(name="", start=0, size=left.size)}
        other = {"": Region(name="", start=0, size=right.size)}
    for name in one:
        if name not in other:
            book.add(Kind.BYTES, f"{place}!{name}", f"section of {one[name].size} bytes", "", (), habitat)
    for name in other:
        if name not in one:
            book.add(Kind.BYTES, f"{place}!{name}", "", f"section of {other[name].size} bytes", (), habitat)
    for name, region in one.items():
        if name in other:
            mine = objects.content(left, region, book.budget)
            theirs = objects.content(right, other[name], book.budget)
            if not same(mine, theirs, book.budget):
                _region(book, mine, theirs, region, place, habitat)
    if ".strtab" in one and ".strtab" in other and not any(item.clues for item in book.items[start:]):
        _linked_in_another_order(book, objects.content(left, one[".strtab"], book.budget),
                                 objects.content(right, other[".strtab"], book.budget), book.items[start:])
    _consequences(book, book.items[start:], kind, place)
    if kind == "data" and not any(item.clues for item in book.items[start:]):
        _by_chance(book, left, right, book.items[start:])


def _region(book: Book, left: Blob, right: Blob, region: Region, place: str, habitat: str) -> None:
    where = f"{place}!{region.name}" if region.name else place
    moved = region.name.partition("#")[0] in MOVED
    if region.meaning == "time" and left.size == right.size == 4:
        one, other = (int.from_bytes(blob.read(0, 4), "little") for blob in (left, right))
        sure = within(one, book.detective.a.time) and within(other, book.detective.b.time)
        clue = Clue(cause=Cause.TIME, left=str(one), right=str(other), sure=sure)
        book.add(Kind.FIELD, where, str(one), str(other), (clue,), habitat)
    elif region.meaning == "checksum" or region.name in IDENTITY:
        book.add(Kind.FIELD, where, left.read(0, 64).hex(), right.read(0, 64).hex(), (), habitat)
    elif region.meaning == "time":
        clue = Clue(cause=Cause.TIME, left=left.read(0, 64).hex(), right=right.read(0, 64).hex(), sure=False)
        book.add(Kind.FIELD, where, clue.left, clue.right, (clue,), habitat)
    elif left.size == right.size:
        _runs(book, left, right, where, habitat, moved)
    else:
        _strings(book, left, right, where, habitat, moved)


def _worth(clues: tuple[Clue, ...], moved: bool) -> tuple[Clue, ...]:
    """Without what only looks like something in data that are full of chance: machine code, compressed pictures."""
    return tuple(clue for clue in clues if clue.sure or (
        not moved and clue.cause is not Cause.LOCALE and (
            clue.cause is not Cause.RANDOM or "tmp" in clue.left or min(len(clue.left), len(clue.right)) >= 16)))


def _runs(book: Book, left: Blob, right: Blob, where: str, habitat: str, moved: bool) -> None:
    for start, end in alignment.runs(left, right, book.budget, _RUNS):
        low = max(0, start - 4 * _NEAR)
        one, other = left.read(low, end - low + 4 * _NEAR), right.read(low, end - low + 4 * _NEAR)
        book.budget.tick()
        clues = _worth(book.detective.binary(one, other, start - low, min(end, start + 4096) - low), moved)
        near = max(0, start - low - 12), min(end, start + 32) - low + 12
        kind = Kind.EMBEDDED_TEXT if any(not clue.left.isdigit() for clue in clues) else Kind.BYTES
        book.add(kind, f"{where}:{start:#x}", shown_bytes(one[near[0]:near[1]]), shown_bytes(other[near[0]:near[1]]),
                 clues, habitat)


def _strings(book: Book, left: Blob, right: Blob, where: str, habitat: str, moved: bool) -> None:
    one = alignment.strings(left, book.budget, _STRINGS)
    other = alignment.strings(right, book.budget, _STRINGS)
    found = 0
    texts = [text for _, text in one], [text for _, text in other]
    if not moved and len(one) > 2 and alignment.reordered(*texts):
        clues, _ = order(book, texts[0], texts[1], habitat)
        book.add(Kind.EMBEDDED_TEXT, where, " ".join(texts[0])[:200], " ".join(texts[1])[:200], clues, habitat)
        return
    for pair in itertools.islice(alignment.paired(*texts, book.budget), _PAIRS):
        book.budget.tick()
        clues = _worth(book.detective.text(pair.left, pair.right), moved)
        if clues:
            # Strings are counted as lines are; what is told is the place of the first of both that there is.
            at = one[pair.at][0] if pair.left else other[pair.at_too][0]
            book.add(Kind.EMBEDDED_TEXT, f"{where}:{at:#x}", pair.left, pair.right, clues, habitat)
            found += 1
        if found >= _RUNS:
            break
    if not found:
        shorter = min(left.size, right.size)
        cut = alignment.runs(left.part(0, shorter), right.part(0, shorter), book.budget, 1)
        at = cut[0][0] if cut else shorter
        low = max(0, at - 12)
        book.add(Kind.BYTES, f"{where}:{at:#x}", f"{left.size} bytes: {shown_bytes(left.read(low, 40))}",
                 f"{right.size} bytes: {shown_bytes(right.read(low, 40))}", (), habitat)


def _linked_in_another_order(book: Book, left: Blob, right: Blob, items: Sequence[Item]) -> None:
    """Where the same symbols come in another order, so did the objects of which the program was linked."""
    names = [blob.read(0, 2**22).decode("latin-1").split("\0") for blob in (left, right)]
    code = next((item for item in items if item.place.rpartition("!")[2].startswith(".text")), None)
    if code is not None and alignment.reordered(*names):
        code.clues, code.habitat = order(book, names[0], names[1], "elf")


def _consequences(book: Book, items: Sequence[Item], kind: str, place: str) -> None:
    """Tell what follows from other things in the same file: hashes of it, and addresses that moved."""
    if kind not in ("elf", "pe", "png", "pyc"):
        return

    def region_of(item: Item) -> str:
        return item.place.removeprefix(f"{place}!").partition(":")[0].partition("#")[0]

    def is_identity(item: Item) -> bool:
        return region_of(item) in IDENTITY or "checksum" in region_of(item) or region_of(item) == "hash of the source"

    causes = [item for item in items if item.clues]
    roots = [item for item in items if region_of(item) not in MOVED and not is_identity(item)]
    chief = next(iter(causes or roots), None)
    for item in items:
        if item.clues or item is chief:
            continue
        if is_identity(item):
            others = [other for other in items if not is_identity(other)]
            if others:
                item.consequence = (chief or others[0]).place
            elif region_of(item) in IDENTITY:
                item.clues = (Clue(cause=Cause.BUILD_ID, left=item.first, right=item.second, sure=False),)
        elif chief is not None and region_of(item) in MOVED and region_of(item) not in _CODE:
            item.consequence = chief.place
        elif causes and region_of(item) in MOVED:
            item.consequence = chief.place if chief else None
    code = next((item for item in items if region_of(item) in _CODE and item.consequence is None), None)
    if code is not None and not causes and {"cpu", "cpu_features"} & known_to_differ(book.detective.a,
                                                                                     book.detective.b):
        code.clues = (Clue(cause=Cause.CPU, left=book.detective.a.cpu or "machine code",
                           right=book.detective.b.cpu or "other machine code", sure=False),)


def _by_chance(book: Book, left: Blob, right: Blob, items: Sequence[Item]) -> None:
    """Where nothing explains data that look random on both sides, say so."""
    for item in items[:1]:
        start = int(item.place.rpartition(":")[2], 16) if re.search(r":0x[0-9a-f]+\Z", item.place) else 0
        one, other = left.read(start, _NEAR), right.read(start, _NEAR)
        count = min(len(one), len(other))
        equal = sum(mine == theirs for mine, theirs in zip(one, other, strict=False))
        if count >= 8 and equal <= count // 8 and min(len(set(one)), len(set(other))) * 4 >= count * 3:
            item.clues = (Clue(cause=Cause.RANDOM, left=one[:16].hex(), right=other[:16].hex(), sure=False),)
