"""Two files of whatever kind: archives are opened, as deep as the limits allow, and their members compared."""

from __future__ import annotations

import calendar
import stat
import time
from collections.abc import Sequence

from gitian.errors import FormatError, MissingToolError, ProgramError
from gitian.vary import leaves, moments
from gitian.vary.book import Book
from gitian.vary.clues import Clue
from gitian.vary.contents import (
    COMPRESSED,
    CONTAINERS,
    Blob,
    Entry,
    GzipHeader,
    entries,
    gzip_header,
    kind_of,
    same,
    unpacked,
)
from gitian.vary.findings import Kind
from gitian.vary.hints import Cause


class Comparison(Book):
    """One pair of outputs."""

    def blobs(self, left: Blob, right: Blob, place: str, depth: int) -> None:
        """Write down what differs between two files that are not the same. Raises TooMuchError."""
        self.budget.tick()
        self.remember(left, right, place)
        kind, kind_too = kind_of(left), kind_of(right)
        if kind != kind_too and not {kind, kind_too} <= {"text", "data", "empty"}:
            self.add(Kind.TYPE, place, kind, kind_too)
            return
        before = len(self.items)
        if kind == kind_too and kind in CONTAINERS and depth < self.budget.limits.depth:
            try:
                if kind in COMPRESSED:
                    self._streams(left, right, kind, place, depth)
                else:
                    self._members(entries(left, kind, self.budget), entries(right, kind, self.budget), kind, place,
                                  depth)
                if len(self.items) == before and not self.dropped:
                    self.add(Kind.CONTAINER, place, f"{left.size} bytes", f"{right.size} bytes",
                             consequence=None)
                return
            except (FormatError, MissingToolError, ProgramError) as error:
                self.add(Kind.UNREADABLE, place, str(error), "")
        leaves.compare(self, left, right, kind if kind == kind_too else "data", place)

    def _streams(self, left: Blob, right: Blob, kind: str, place: str, depth: int) -> None:
        inner, inner_too = unpacked(left, kind, self.budget), unpacked(right, kind, self.budget)
        before = len(self.items)
        if kind == "gz":
            header, header_too = gzip_header(left), gzip_header(right)
            if header is not None and header_too is not None:
                self._gzip_headers(header, header_too, place)
        alike = same(inner, inner_too, self.budget)
        if not alike:
            self.blobs(inner, inner_too, place, depth + 1)
        elif len(self.items) == before:
            a, b = self.detective.a, self.detective.b
            clues = [Clue(cause=Cause.COMPRESSION, left=f"{left.size} bytes", right=f"{right.size} bytes", sure=True)]
            if a.cores is not None and b.cores is not None and a.cores != b.cores:
                clues = [Clue(cause=Cause.CORES, left=str(a.cores), right=str(b.cores), sure=False)]
            self.add(Kind.COMPRESSION, place, f"{left.size} bytes", f"{right.size} bytes of the same content",
                     tuple(clues), "compressed")
        if not alike:
            self.add(Kind.COMPRESSION, place, f"{left.size} bytes", f"{right.size} bytes",
                     consequence=f"what is compressed in {place}")

    def _gzip_headers(self, one: GzipHeader, other: GzipHeader, place: str) -> None:
        if one.mtime != other.mtime:
            self.add(Kind.GZIP_HEADER, f"{place}!header", f"time {_utc(one.mtime)}", f"time {_utc(other.mtime)}",
                     self._time(one.mtime, other.mtime, 0, 1), "gzip")
        if one.name != other.name:
            clues = self.detective.text(one.name or "", other.name or "")
            self.add(Kind.GZIP_HEADER, f"{place}!header", f"name {one.name}", f"name {other.name}", clues, "gzip")
        if (one.system, one.effort, one.comment) != (other.system, other.effort, other.comment):
            clue = Clue(cause=Cause.COMPRESSION, left=f"system {one.system}, effort {one.effort}",
                        right=f"system {other.system}, effort {other.effort}", sure=True)
            self.add(Kind.GZIP_HEADER, f"{place}!header", clue.left, clue.right, (clue,), "gzip")

    def _members(self, left: Sequence[Entry], right: Sequence[Entry], kind: str, place: str, depth: int) -> None:
        one, other = _keyed(left), _keyed(right)
        gone, come = [key for key in one if key not in other], [key for key in other if key not in one]
        renamed = self._renamed(gone, come, place, kind)
        for key in gone:
            if key not in renamed:
                self.add(Kind.ONLY_IN_FIRST, f"{place}!{key}", key, "")
        for key in come:
            if key not in renamed.values():
                self.add(Kind.ONLY_IN_SECOND, f"{place}!{key}", "", key)
        shared, shared_too = [key for key in one if key in other], [key for key in other if key in one]
        if shared != shared_too:
            clues, habitat = leaves.order(self, shared, shared_too, kind)
            at = next(number for number, key in enumerate(shared) if key != shared_too[number])
            self.add(Kind.MEMBER_ORDER, f"{place}!{shared[at]}", shared[at], shared_too[at], clues, habitat)
        tables = []
        for key in one:
            partner = renamed.get(key, key)
            if partner not in other:
                continue
            mine, theirs = one[key], other[partner]
            self._metadata(mine, theirs, f"{place}!{key}", kind)
            if kind == "ar" and mine.kind == "table":
                tables.append((mine, theirs, f"{place}!{key}"))
            else:
                self._contents(mine, theirs, f"{place}!{key}", depth)
        for mine, theirs, where in tables:
            a, b = _content(mine), _content(theirs)
            if not same(a, b, self.budget):
                self.add(Kind.BYTES, where, f"{a.size} bytes", f"{b.size} bytes", consequence="the archive's members")

    def _renamed(self, gone: Sequence[str], come: Sequence[str], place: str, kind: str) -> dict[str, str]:
        """Members whose names differ by something known; written down."""
        renamed: dict[str, str] = {}
        if len(gone) != len(come) or len(gone) > 1000:
            return renamed
        for one, other in zip(gone, come, strict=True):
            self.budget.tick()
            clues = self.detective.text(one, other)
            if clues:
                renamed[one] = other
                self.add(Kind.NAME, f"{place}!{one}", one, other, clues, "")
        return renamed

    def _contents(self, one: Entry, other: Entry, place: str, depth: int) -> None:
        try:
            left, right = _content(one), _content(other)
        except FormatError as error:
            self.add(Kind.UNREADABLE, place, str(error), "")
            return
        if not same(left, right, self.budget):
            self.blobs(left, right, place, depth + 1)

    def _metadata(self, one: Entry, other: Entry, place: str, kind: str) -> None:
        if one.kind != other.kind:
            self.add(Kind.TYPE, place, one.kind, other.kind)
        if one.target != other.target:
            self.add(Kind.LINK, place, one.target or "", other.target or "",
                     self.detective.text(one.target or "", other.target or ""))
        said, said_too = dict(one.attributes), dict(other.attributes)
        if one.mtime != other.mtime and one.mtime is not None and other.mtime is not None:
            # A zip file keeps local time, in steps of two seconds; and UTC besides, in a field of its own.
            local = kind == "zip"
            clues = self._time(one.mtime, other.mtime, None if local else 0, 2 if local else 1)
            utc = said.get("time in UTC")
            if local and utc is not None and utc == said_too.get("time in UTC"):
                clues = (Clue(cause=Cause.TIME_ZONE, left=_utc(one.mtime), right=_utc(other.mtime), sure=True),)
            self.add(Kind.MEMBER_TIME, place, _utc(one.mtime), _utc(other.mtime), clues, kind)
        self._owners(one, other, place, kind)
        if one.mode != other.mode and one.mode is not None and other.mode is not None:
            clues = tuple(self._mode(stat.S_IMODE(one.mode), stat.S_IMODE(other.mode)))
            self.add(Kind.MEMBER_MODE, place, f"{one.mode:04o}", f"{other.mode:04o}", clues, kind)
        for name in sorted({*said, *said_too}):
            mine, theirs = said.get(name, ""), said_too.get(name, "")
            if mine == theirs:
                continue
            clues = self.detective.text(mine, theirs) if mine and theirs else ()
            if "time" in name:
                clues = clues or (Clue(cause=Cause.TIME, left=mine, right=theirs, sure=False),)
            follows = place if name == "external attributes" and one.mode != other.mode else None
            self.add(Kind.MEMBER_ATTRIBUTE, place, f"{name} {mine}", f"{name} {theirs}", clues, kind,
                     f"the mode of {place}" if follows else None)

    def _time(self, one: int, other: int, offset: int | None, width: int) -> tuple[Clue, ...]:
        left, right = (moments.Moment(start=0, end=0, text=_utc(number), naive=number, width=width, offset=offset)
                       for number in (one, other))
        found = tuple(self.detective.times(left, right))
        ahead, ahead_too = (moments.zone_offset(build.time_zone, number) for build, number in (
            (self.detective.a, one), (self.detective.b, other)))
        sure = any(clue.sure for clue in found)
        if not sure and None not in (ahead, ahead_too) and other - one == (ahead or 0) - (ahead_too or 0) != 0:
            # A time was given without its zone ('touch --date=...'): each build took it for its own local time.
            found = (Clue(cause=Cause.TIME_ZONE, left=left.text, right=right.text, sure=True),)
        return found or (
            Clue(cause=Cause.TIME, left=left.text, right=right.text, sure=False),)

    def _owners(self, one: Entry, other: Entry, place: str, kind: str) -> None:
        a, b = self.detective.a, self.detective.b
        for name, mine, theirs, known, known_too in (
                ("uid", one.uid, other.uid, a.uid, b.uid), ("gid", one.gid, other.gid, a.gid, b.gid),
                ("user", one.uname, other.uname, a.user, b.user), ("group", one.gname, other.gname, a.user, b.user)):
            if mine == theirs or mine is None or theirs is None:
                continue
            cause = Cause.OWNER if name in ("uid", "gid") else Cause.USER
            sure = mine == known and theirs == known_too
            clue = Clue(cause=cause, left=f"{name} {mine}", right=f"{name} {theirs}", sure=sure)
            self.add(Kind.MEMBER_OWNER, place, clue.left, clue.right, (clue,), kind)

    def _mode(self, one: int, other: int) -> list[Clue]:
        a, b = self.detective.a.umask, self.detective.b.umask

        def clue(sure: bool) -> list[Clue]:
            return [Clue(cause=Cause.UMASK, left=f"{one:04o}", right=f"{other:04o}", sure=sure)]

        if a is not None and b is not None:
            # What the one's umask took away, the other may have left, and the other way round.
            fits = not one & a and not other & b and one & ~b == other & ~a
            return clue(True) if fits and a != b else clue(False) if a != b else []
        return clue(False) if not (one ^ other) & ~0o077 else []


def _keyed(members: Sequence[Entry]) -> dict[str, Entry]:
    """By name; of those that have one name, the later ones with a number."""
    found: dict[str, Entry] = {}
    counts: dict[str, int] = {}
    for entry in members:
        count = counts[entry.name] = counts.get(entry.name, 0) + 1
        found[entry.name if count == 1 else f"{entry.name} (the {count}. of this name)"] = entry
    return found


def _content(entry: Entry) -> Blob:
    from io import BytesIO

    return entry.content() if entry.content is not None else Blob(BytesIO())


def _utc(number: int) -> str:
    """A member's time for people; the number itself when no calendar has it."""
    try:
        moment = time.gmtime(number)
        if calendar.timegm(moment) != number or moment.tm_year > 9999:
            return str(number)
        return time.strftime("%Y-%m-%d %H:%M:%S", moment)
    except (ValueError, OverflowError, OSError):
        return str(number)
