"""Two pieces of text, or of binary data, that differ: what in them the circumstances of the two builds explain.

What both builds are known to have had is looked for first (a path, a name, a number, a time of the clock): where the
one stands on the left and the other on the right, that is the cause. What remains is judged by its looks, and said to
be no more than that.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

from gitian.vary import moments
from gitian.vary.circumstances import Circumstances
from gitian.vary.hints import Cause

_WINDOW = 4096
_ORDERS: tuple[Literal["little", "big"], ...] = ("little", "big")
_TOKENS_LIMIT = 400
#: So many variables that differ are looked for; a build has some dozens, what a hostile one tells may be any number.
_VARIABLES_LIMIT = 100
_TOKEN = re.compile(r"\w+|\s+|.", re.DOTALL)


@dataclass(frozen=True, slots=True, kw_only=True)
class Clue:
    """A cause that explains a difference: what stands left and right, and whether it is known or only looks so."""

    cause: Cause
    left: str
    right: str
    sure: bool


@dataclass(frozen=True, slots=True)
class _Span:
    """Where two texts differ: from and to, on the left and on the right."""

    i: int
    i_end: int
    j: int
    j_end: int


_Found = tuple[int, int, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Value:
    """What the one build had and the other had otherwise; None is what only the other one had."""

    cause: Cause
    left: str | None
    right: str | None
    number: bool = False

    def here(self) -> re.Pattern[str] | None:
        """What finds the left one as a word of its own; None when there is none."""
        return _finder(self.left, self.number)

    def there(self) -> re.Pattern[str] | None:
        """The same for the right one."""
        return _finder(self.right, self.number)


class Detective:
    """Explains differences between one pair of builds."""

    def __init__(self, a: Circumstances, b: Circumstances) -> None:
        self.a, self.b = a, b
        self.values = tuple((value, value.here(), value.there()) for value in _values(a, b))

    def text(self, left: str, right: str) -> tuple[Clue, ...]:
        """What explains that one text (a line) became another; () when nothing is known to."""
        left, right = _windows(left, right)
        clues: dict[Clue, None] = {}
        open_spans = list(_spans(left, right))
        for look in (self._by_values, self._by_time, self._by_features, self._by_looks):
            rest = []
            for span in open_spans:
                found = list(look(left, right, span))
                if not found:
                    rest.append(span)
                clues.update(dict.fromkeys(found))
            open_spans = rest
        if any(clue.sure for clue in clues):  # beside what is known, what it only looks like says little
            clues = {clue: None for clue in clues if clue.sure or clue.cause not in (Cause.RANDOM, Cause.LOCALE)}
        return tuple(clues)

    def _by_values(self, left: str, right: str, span: _Span) -> Iterator[Clue]:
        for value, finder, finder_too in self.values:
            here, there = _occurrences(left, value.left, finder), _occurrences(right, value.right, finder_too)
            one = _touching(here, span.i, span.i_end)
            other = _touching(there, span.j, span.j_end)
            if value.left is None or value.right is None:
                # Only one of the builds has it, and only its text: a variable that the other one has not.
                only, text = (other, left) if value.left is None else (one, right)
                word = value.right if value.left is None else value.left
                if only and word is not None and word not in text:
                    yield Clue(cause=value.cause, left=one[0][2] if one else "", right=other[0][2] if other else "",
                               sure=True)
                    return
            elif one and other and _else_equal(left, right, span, one[0], other[0], value.number):
                yield Clue(cause=value.cause, left=value.left, right=value.right, sure=True)
                return

    def _by_time(self, left: str, right: str, span: _Span) -> Iterator[Clue]:
        for one in _moments_at(left, span.i, span.i_end):
            for other in _moments_at(right, span.j, span.j_end):
                if one.daily != other.daily or one.text == other.text:
                    continue
                found = tuple(self.times(one, other))
                if found:
                    yield from found
                    return

    def times(self, one: moments.Moment, other: moments.Moment) -> Iterator[Clue]:
        """What explains that one time became another."""
        def clue(cause: Cause, sure: bool) -> Clue:
            return Clue(cause=cause, left=one.text, right=other.text, sure=sure)

        zones = moments.zones_differ(one, other, self.a, self.b)
        if zones:
            yield clue(Cause.TIME_ZONE, True)
        if moments.same_instant(one, other, self.a, self.b):
            if not zones:
                yield clue(Cause.LOCALE, self.a.locale != self.b.locale and None not in (self.a.locale, self.b.locale))
            return
        if moments.told_by(one, self.a) and moments.told_by(other, self.b):
            yield clue(Cause.TIME, True)
        elif one.text.isdigit() and None not in (self.a.time, self.b.time):
            return  # any number may look like seconds; what the clocks said is known, and it is not that
        elif not zones and (one.daily or (one.width <= 86400 and min(one.naive, other.naive) >= 10**8)):
            yield clue(Cause.TIME, False)

    def _by_features(self, left: str, right: str, span: _Span) -> Iterator[Clue]:
        if self.a.cpu_features is None or self.b.cpu_features is None:
            return
        one, other = set(self.a.cpu_features), set(self.b.cpu_features)
        words = set(re.findall(r"\w+", left[span.i:span.i_end]))
        too = set(re.findall(r"\w+", right[span.j:span.j_end]))
        only, only_too = words & (one - other), too & (other - one)
        if only - too or only_too - words:
            yield Clue(cause=Cause.CPU, left=" ".join(sorted(only)[:8]), right=" ".join(sorted(only_too)[:8]),
                       sure=True)

    def _by_looks(self, left: str, right: str, span: _Span) -> Iterator[Clue]:
        if self._pids(left, right, span):
            yield Clue(cause=Cause.PID, left=_word(left, span.i, span.i_end), right=_word(right, span.j, span.j_end),
                       sure=False)
            return
        for cause, pattern, alike in _LOOKS:
            one = _touching(_matches(pattern, left), span.i, span.i_end)
            other = _touching(_matches(pattern, right), span.j, span.j_end)
            if one and other and one[0][2] != other[0][2] and alike(one[0][2], other[0][2]):
                if cause is Cause.PATH and not _is_other_path(one[0][2], other[0][2]):
                    continue
                known = cause is Cause.ADDRESS and None not in (self.a.aslr, self.b.aslr) and self.a.aslr != self.b.aslr
                yield Clue(cause=cause, left=one[0][2], right=other[0][2], sure=known)
                return
        one_text, other_text = left[span.i:span.i_end], right[span.j:span.j_end]
        if None not in (self.a.locale, self.b.locale) and self.a.locale != self.b.locale:
            comma = {one_text, other_text} == {".", ","}
            if comma or (_is_words(one_text) and _is_words(other_text)):
                yield Clue(cause=Cause.LOCALE, left=_word(left, span.i, span.i_end) if comma else one_text,
                           right=_word(right, span.j, span.j_end) if comma else other_text, sure=comma)

    def _pids(self, left: str, right: str, span: _Span) -> bool:
        if self.a.pids is None or self.b.pids is None:
            return False
        one, other = _touching(_matches(_INTEGER, left), span.i, span.i_end), _touching(
            _matches(_INTEGER, right), span.j, span.j_end)
        return bool(one and other and self.a.pids[0] <= int(one[0][2]) <= self.a.pids[1]
                    and self.b.pids[0] <= int(other[0][2]) <= self.b.pids[1])

    def binary(self, left: bytes, right: bytes, start: int, end: int) -> tuple[Clue, ...]:
        """What explains that the bytes from ``start`` to ``end`` differ in two windows of one size."""
        one, other = _string_at(left, start, end), _string_at(right, start, end)
        if len(one) >= 3 and len(other) >= 3 and one != other:
            found = self.text(one, other)
            if found:
                return found
        return tuple(self._numbers(left, right, start, end))[:2]

    def _numbers(self, left: bytes, right: bytes, start: int, end: int) -> Iterator[Clue]:
        for width in (8, 4):
            for at in range(max(0, end - width), min(start, len(left) - width, len(right) - width) + 1):
                for order in _ORDERS:
                    if (at + width == end or at == start or at % 4 == 0) and width >= end - start:
                        one = int.from_bytes(left[at:at + width], order)
                        other = int.from_bytes(right[at:at + width], order)
                        found = self._number(one, other, width)
                        if found is not None:
                            yield found
                            return

    def _number(self, one: int, other: int, width: int) -> Clue | None:
        def clue(cause: Cause, sure: bool, shape: str = "{}") -> Clue:
            return Clue(cause=cause, left=shape.format(one), right=shape.format(other), sure=sure)

        if within(one, self.a.time) and within(other, self.b.time):
            return clue(Cause.TIME, True)
        if width == 4:
            first, second = dos_time(one), dos_time(other)
            if first and second and moments.told_by(first, self.a) and moments.told_by(second, self.b):
                return Clue(cause=Cause.TIME, left=first.text, right=second.text, sure=True)
        for value, _, _ in self.values:
            if value.number and value.left == str(one) and value.right == str(other):
                return clue(value.cause, True)
        if width == 8 and _is_address(one) and _is_address(other):
            return clue(Cause.ADDRESS, False, "{:#x}")
        return None


def dos_time(number: int) -> moments.Moment | None:
    """A time as DOS and zip files keep it: the date in the upper 16 bits, the time in the lower."""
    date, clock = number >> 16, number & 0xFFFF
    text = (f"{1980 + (date >> 9)}-{date >> 5 & 15:02}-{date & 31:02} "
            f"{clock >> 11:02}:{clock >> 5 & 63:02}:{(clock & 31) * 2:02}")
    found = moments.moments(text)
    return found[0] if found and found[0].end == len(text) else None


def within(number: int, time: tuple[int, int] | None) -> bool:
    """Whether a number is a second in which a build ran, give or take one; no number is, of a time nobody knows."""
    return time is not None and time[0] - 1 <= number <= time[1] + 1


def _is_address(number: int) -> bool:
    # Where Linux on x86-64 puts programs that can be moved, and the stack and libraries.
    return 0x550000000000 <= number < 0x570000000000 or 0x7F0000000000 <= number < 0x800000000000


def _values(a: Circumstances, b: Circumstances) -> Iterator[_Value]:
    """What both builds had, otherwise; what says most first."""
    places = list(zip(a.paths, b.paths, strict=False))
    if a.home and b.home:
        places.append((a.home, b.home))
    for left, right in sorted(set(places), key=lambda pair: (-len(pair[0]), pair)):
        if left.rstrip("/") != right.rstrip("/") and len(left) > 2 and len(right) > 2:
            yield _Value(cause=Cause.PATH, left=left.rstrip("/"), right=right.rstrip("/"))
    if a.hostname and b.hostname and a.domain and b.domain:
        whole = f"{a.hostname}.{a.domain}", f"{b.hostname}.{b.domain}"
        if whole[0] != whole[1]:
            yield _Value(cause=Cause.HOSTNAME, left=whole[0], right=whole[1])
    words = ((Cause.HOSTNAME, a.hostname, b.hostname), (Cause.HOSTNAME, a.domain, b.domain),
             (Cause.USER, a.user, b.user), (Cause.KERNEL, a.kernel, b.kernel), (Cause.CPU, a.cpu, b.cpu),
             (Cause.LOCALE, a.locale, b.locale), (Cause.TIME_ZONE, a.time_zone, b.time_zone),
             (Cause.SHELL, a.sh, b.sh))
    for cause, one, other in words:
        if one and other and one != other:
            yield _Value(cause=cause, left=one, right=other)
    numbers = ((Cause.CORES, a.cores, b.cores), (Cause.OWNER, a.uid, b.uid), (Cause.OWNER, a.gid, b.gid),
               (Cause.MEMORY, a.memory, b.memory))
    for cause, count, count_too in numbers:
        if count is not None and count_too is not None and count != count_too:
            yield _Value(cause=cause, left=str(count), right=str(count_too), number=True)
    if a.umask is not None and b.umask is not None and a.umask != b.umask:
        yield _Value(cause=Cause.UMASK, left=f"{a.umask:04o}", right=f"{b.umask:04o}")
    mine, theirs = dict(a.environment), dict(b.environment)
    told = 0
    for name in sorted({*mine, *theirs}):
        if told >= _VARIABLES_LIMIT:
            break
        left_value, right_value = mine.get(name), theirs.get(name)
        if left_value != right_value and (a.environment and b.environment):
            one_value, other_value = (value if value and 3 <= len(value) <= _WINDOW else None
                                      for value in (left_value, right_value))
            if (left_value is None or one_value) and (right_value is None or other_value):
                told += 1
                yield _Value(cause=Cause.ENVIRONMENT, left=one_value, right=other_value)


def _finder(value: str | None, number: bool) -> re.Pattern[str] | None:
    if not value:
        return None
    edges = (r"(?<![0-9.])", r"(?![0-9])") if number else (r"(?<![A-Za-z0-9])", r"(?![A-Za-z0-9])")
    before = edges[0] if value[0].isalnum() else ""
    after = edges[1] if value[-1].isalnum() else ""
    return re.compile(before + re.escape(value) + after)


def _occurrences(text: str, value: str | None, finder: re.Pattern[str] | None) -> Sequence[_Found]:
    # Most values are nowhere in most texts, which is found out fastest without the pattern.
    return _matches(finder, text) if value and finder is not None and value in text else ()


@lru_cache(maxsize=256)
def _matches(pattern: re.Pattern[str], text: str) -> Sequence[_Found]:
    found = []
    for match in pattern.finditer(text):
        found.append((match.start(), match.end(), match[0]))
        if len(found) >= 200:
            break
    return found


def _touching(found: Iterable[_Found], start: int, end: int) -> list[_Found]:
    """What covers a place, or a part of it; next to it is enough when the place is empty."""
    if start == end:
        return [item for item in found if item[0] <= start <= item[1]]
    return [item for item in found if item[0] < end and start < item[1]]


def _moments_at(text: str, start: int, end: int) -> list[moments.Moment]:
    near = max(0, start - 80)
    found = []
    for moment in moments.moments(text[near:end + 80]):
        low, high = moment.start + near, moment.end + near
        if (low <= start <= high) if start == end else (low < end and start < high):
            found.append(moment)
    return found[:4]


def _else_equal(left: str, right: str, span: _Span, one: _Found, other: _Found, number: bool) -> bool:
    """Whether the place differs by nothing but the value. Only asked of numbers, of which there are many everywhere."""
    if not number:
        return True
    before, before_too = left[min(span.i, one[0]):one[0]], right[min(span.j, other[0]):other[0]]
    after, after_too = left[one[1]:max(span.i_end, one[1])], right[other[1]:max(span.j_end, other[1])]
    return before == before_too and after == after_too


def _windows(left: str, right: str) -> tuple[str, str]:
    """Around where they differ, when they are long."""
    if max(len(left), len(right)) <= _WINDOW:
        return left, right
    start = _common(left, right)
    end = _common(left[start:][::-1], right[start:][::-1])
    low = max(0, start - 256)
    return (left[low:max(start, len(left) - end) + 256][:_WINDOW],
            right[low:max(start, len(right) - end) + 256][:_WINDOW])


def _common(left: str, right: str) -> int:
    low, high = 0, min(len(left), len(right))
    while low < high:
        middle = (low + high + 1) // 2
        if left[:middle] == right[:middle]:
            low = middle
        else:
            high = middle - 1
    return low


def _spans(left: str, right: str) -> Iterator[_Span]:
    one = [match.span() for match in _TOKEN.finditer(left)]
    other = [match.span() for match in _TOKEN.finditer(right)]
    if max(len(one), len(other)) > _TOKENS_LIMIT:
        start = _common(left, right)
        end = _common(left[start:][::-1], right[start:][::-1])
        yield _Span(start, max(start, len(left) - end), start, max(start, len(right) - end))
        return
    matcher = difflib.SequenceMatcher(None, [left[a:b] for a, b in one], [right[a:b] for a, b in other], autojunk=False)
    for tag, i, i_end, j, j_end in matcher.get_opcodes():
        if tag != "equal":
            at = one[i][0] if i < len(one) else len(left)
            at_too = other[j][0] if j < len(other) else len(right)
            yield _Span(at, one[i_end - 1][1] if i_end > i else at,
                        at_too, other[j_end - 1][1] if j_end > j else at_too)


def _word(text: str, start: int, end: int) -> str:
    """The place with what is written together with it."""
    while start > 0 and end - start < 60 and not text[start - 1].isspace():
        start -= 1
    while end < len(text) and end - start < 80 and not text[end].isspace():
        end += 1
    return text[start:end]


def _is_words(text: str) -> bool:
    return re.search(r"[^\W\d_]{3,}", text) is not None and re.fullmatch(r"[0-9a-fA-F]+", text) is None


def _is_other_path(left: str, right: str) -> bool:
    """Whether two paths lead to something of one name: the place differs, not the thing."""
    return left.rpartition("/")[2] == right.rpartition("/")[2] or left.split("/")[1] == right.split("/")[1]


def _string_at(data: bytes, start: int, end: int) -> str:
    """The printable text around a place."""
    low = high = start
    while low > 0 and 32 <= data[low - 1] < 127:
        low -= 1
    high = max(start, min(end, len(data)))
    for at in range(start, high):
        if not 32 <= data[at] < 127 and data[at]:
            return ""
    while high < len(data) and 32 <= data[high] < 127:
        high += 1
    return data[low:high].split(b"\0")[0].decode("ascii", "replace")


def _any(left: str, right: str) -> bool:
    return True


def _one_length(left: str, right: str) -> bool:
    return len(left) == len(right)


_INTEGER = re.compile(r"(?<![\w.])\d{1,7}(?![\w.])", re.ASCII)
#: What random things look like, and addresses of a process; tried in this order.
_LOOKS: tuple[tuple[Cause, re.Pattern[str], Callable[[str, str], bool]], ...] = (
    (Cause.ADDRESS, re.compile(r"\b(?:0x)?0{0,4}(?:5[56][0-9a-f]|7f[0-9a-f])[0-9a-f]{9}\b", re.ASCII), _any),
    (Cause.RANDOM, re.compile(r"\b[0-9a-fA-F]{8}-(?:[0-9a-fA-F]{4}-){3}[0-9a-fA-F]{12}\b", re.ASCII), _any),
    (Cause.RANDOM, re.compile(r"(?:/tmp/[\w./-]*[\w]{6,}|\btmp[._-]?[A-Za-z0-9_]{6,12}\b|\bcc[A-Za-z0-9]{6}\.[os]\b|"
                              r"\b[\w-]{1,40}\.[A-Za-z0-9]{6,10}\b(?=/|$|['\"\s]))", re.ASCII), _one_length),
    (Cause.PATH, re.compile(r"(?<![\w.])/(?:[\w.+~@-]+/)+[\w.+~@-]*", re.ASCII), _any),
    (Cause.RANDOM, re.compile(r"\b[0-9a-fA-F]{16,128}\b|\b(?:[0-9a-f]{2}[ :-]){7,63}[0-9a-f]{2}\b", re.ASCII),
     _one_length),
    (Cause.RANDOM, re.compile(r"\b(?=\w*\d)(?=\w*[A-Za-z])[A-Za-z0-9_]{8,64}\b|\b[A-Za-z0-9+/]{20,}={0,2}", re.ASCII),
     _one_length),
    (Cause.RANDOM, re.compile(r"(?<![\w.])\d{4,20}(?!\w)|\b0\.\d{8,20}\b", re.ASCII), _any),
)
