"""Points of time in text, as programs write them, and whether a build's clock explains them."""

from __future__ import annotations

import calendar
import datetime
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

from gitian.vary.circumstances import Circumstances

_DAY = 86400
_MONTHS = {name: number for number, name in enumerate(
    ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"), 1)}
_MONTH = r"(?P<month>Jan|Feb|Mar|Apr|May|Jun|Jul|Aug|Sep|Oct|Nov|Dec)[a-z]{0,6}\.?"
_CLOCK = r"(?P<hour>[012]?\d):(?P<minute>[0-5]\d)(?::(?P<second>[0-6]\d)(?:[.,]\d{1,9})?)?(?: ?(?P<half>[AP]M))?"
_ZONE = r"(?P<zone> ?(?:Z|UTC|GMT|[+-]\d\d(?::?\d\d)?)(?![\w:])| [A-Z]{3,5}(?![\w]))?"
_YEAR = r"(?P<year>(?:19|20|21)\d\d)"
#: The way ISO 8601, C's __DATE__ and __TIME__, ctime(), date(1), RFC 5322, git and PDF write a time.
_PATTERNS = tuple(re.compile(pattern, re.ASCII) for pattern in (
    rf"(?<!\d){_YEAR}[-/.](?P<number>[01]?\d)[-/.](?P<day>[0-3]?\d)(?!\d)(?:[T _]{_CLOCK}{_ZONE})?",
    rf"(?<![A-Za-z]){_MONTH} {{1,2}}(?P<day>\d\d?),? (?:{_CLOCK}{_ZONE} )?{_YEAR}(?!\d)"
    rf"(?:[ ,]+{_CLOCK.replace('?P<', '?P<x')}{_ZONE.replace('?P<', '?P<x')})?",
    rf"(?<!\d)(?P<day>\d\d?)[ -]{_MONTH}[ -]{_YEAR}(?!\d)(?:[ ,]+{_CLOCK}{_ZONE})?",
    rf"(?<!\d){_YEAR}(?P<number>0[1-9]|1[0-2])(?P<day>0[1-9]|[12]\d|3[01])"
    r"(?:[T_.-]?(?P<hour>[01]\d|2[0-3])(?P<minute>[0-5]\d)(?P<second>[0-5]\d))?(?P<zone>Z)?(?!\d)",
    rf"(?<!\d)(?P<day>[0-3]?\d)[./](?P<number>[01]?\d)[./]{_YEAR}(?!\d)(?:[ ,T]+{_CLOCK}{_ZONE})?",
    rf"(?<!\d)(?P<number>[01]?\d)[./](?P<day>[0-3]?\d)[./]{_YEAR}(?!\d)(?:[ ,T]+{_CLOCK}{_ZONE})?",
    rf"(?<![\d:]){_CLOCK}{_ZONE}(?![\d:])",
))
_SECONDS = re.compile(r"(?<![\w.])(\d{9,10}|\d{12,13}|\d{18,19})(?!\w)", re.ASCII)
_LONE_YEAR = re.compile(rf"(?<![\w.]){_YEAR}(?!\w)", re.ASCII)


@dataclass(frozen=True, slots=True, kw_only=True)
class Moment:
    """A time in a text. ``naive``: seconds since 1970 if the text were UTC, or since midnight (``daily``); ``width``:
    its precision (seconds); ``offset``: what its zone is ahead of UTC, None when it does not say."""

    start: int
    end: int
    text: str
    naive: int
    width: int
    offset: int | None = None
    daily: bool = False


def moments(text: str) -> tuple[Moment, ...]:
    """The times in a text; the longer ones first, none within another."""
    found = sorted({(moment.start, moment.end): moment for moment in _all(text[:20000])}.values(),
                   key=lambda moment: (moment.start - moment.end, moment.start))
    kept: list[Moment] = []
    for moment in found[:500]:
        if not any(other.start <= moment.start and moment.end <= other.end and (other.start, other.end) != (
                moment.start, moment.end) for other in kept):
            kept.append(moment)
    return tuple(kept)


def _all(text: str) -> Iterator[Moment]:
    for pattern in _PATTERNS:
        for match in pattern.finditer(text):
            moment = _moment(match)
            if moment is not None:
                yield moment
    for match in _SECONDS.finditer(text):
        digits = match[1]
        scale = {9: 1, 10: 1, 12: 10**3, 13: 10**3, 18: 10**9, 19: 10**9}[len(digits)]
        yield Moment(start=match.start(), end=match.end(), text=match[0], naive=int(digits) // scale, width=1, offset=0)
    for match in _LONE_YEAR.finditer(text):
        yield Moment(start=match.start(), end=match.end(), text=match[0], width=366 * _DAY,
                     naive=calendar.timegm((int(match["year"]), 1, 1, 0, 0, 0)))


def _moment(match: re.Match[str]) -> Moment | None:
    named = match.groupdict()

    def field(name: str) -> str | None:
        return named.get(name) or named.get("x" + name)

    hour, minute, second = int(field("hour") or 0), int(field("minute") or 0), int(field("second") or 0)
    half = field("half")
    if half and hour <= 12:
        hour = hour % 12 + 12 * (half == "PM")
    width = 1 if field("second") else 60 if field("minute") else _DAY
    clock = 3600 * hour + 60 * minute + second
    if field("hour") and hour > 23:
        return None
    offset = _offset(field("zone"))
    year = field("year")
    if year is None:
        return Moment(start=match.start(), end=match.end(), text=match[0], naive=clock, width=width, offset=offset,
                      daily=True)
    month = _MONTHS[named["month"].lower()] if named.get("month") else int(named["number"])
    try:
        day = datetime.datetime(int(year), month, int(named["day"]), tzinfo=datetime.UTC)
    except ValueError:
        return None
    return Moment(start=match.start(), end=match.end(), text=match[0], naive=int(day.timestamp()) + clock, width=width,
                  offset=offset)


def _offset(zone: str | None) -> int | None:
    if zone is None:
        return None
    zone = zone.strip()
    if zone in ("Z", "UTC", "GMT"):
        return 0
    match = re.fullmatch(r"([+-])(\d\d):?(\d\d)?", zone)
    if match is None:
        return None
    return (3600 * int(match[2]) + 60 * int(match[3] or 0)) * (-1 if match[1] == "-" else 1)


@lru_cache(maxsize=256)
def zone_offset(zone: str | None, moment: int) -> int | None:
    """How far a time zone (a name of the tz database, or POSIX's TZ like 'XYZ+3') is ahead of UTC then, in seconds."""
    if zone is None:
        return None
    if zone in ("", "UTC", "UTC0", "GMT", "Etc/UTC", "Z"):
        return 0
    match = re.fullmatch(r"(?:[A-Za-z]{3,}|<[^>]{3,}>)([+-]?)(\d{1,2})(?::?(\d\d))?", zone)
    if match:  # POSIX: what must be added to local time to get UTC
        return (3600 * int(match[2]) + 60 * int(match[3] or 0)) * (1 if match[1] == "-" else -1)
    import zoneinfo

    try:
        then = datetime.datetime.fromtimestamp(moment, zoneinfo.ZoneInfo(zone)).utcoffset()
    except (zoneinfo.ZoneInfoNotFoundError, ValueError, OSError, OverflowError):
        return None
    return int(then.total_seconds()) if then is not None else None


def told_by(moment: Moment, build: Circumstances) -> bool:
    """Whether the clock of a build explains a time: in its own zone or in UTC."""
    if build.time is None:
        return False
    low, high = build.time
    offsets = {moment.offset} if moment.offset is not None else {0, zone_offset(build.time_zone, low)}
    for offset in offsets:
        if offset is None:
            continue
        start, end = low + offset - moment.width, high + offset
        if moment.daily:
            if end - start >= _DAY or (moment.naive - start) % _DAY <= end - start:
                return True
        elif start < moment.naive <= end:
            return True
    return False


def zones_differ(a: Moment, b: Moment, ca: Circumstances, cb: Circumstances) -> bool:
    """Whether both are one instant in two time zones, or two in two, as far as the zones are known."""
    if a.offset is not None and b.offset is not None and a.width <= 60:
        return a.offset != b.offset
    if ca.time_zone is None or cb.time_zone is None:
        return False
    one, other = zone_offset(ca.time_zone, a.naive), zone_offset(cb.time_zone, b.naive)
    if a.daily:  # the time of day alone: the offset as it is when they were built
        one, other = (zone_offset(c.time_zone, c.time[0] if c.time else 0) for c in (ca, cb))
    if one is None or other is None or one == other:
        return False
    apart = b.naive - a.naive - (other - one)
    if a.daily:
        apart = (apart + _DAY // 2) % _DAY - _DAY // 2
    return abs(apart) < (a.width if a.width > 1 else 2)


def same_instant(a: Moment, b: Moment, ca: Circumstances, cb: Circumstances) -> bool:
    """Whether two texts say the same instant, each in its own zone."""
    if a.daily != b.daily:
        return False
    if a.offset is not None and b.offset is not None:
        return a.naive - a.offset == b.naive - b.offset
    return a.naive == b.naive or zones_differ(a, b, ca, cb)
