"""What Ruby's Psych 4.0.3 takes a plain scalar for, and how it quotes a string. Pure; no YAML library.

The classic reads and writes all of its documents through Psych, so these rules decide both what an unquoted word in a
document was meant to be and the exact bytes of what we write. Source: the behaviour recorded in tests/fixtures/golden
(emit.jsonl, parse.jsonl) and Psych's documentation of YAML 1.1 types (yaml.org/type).
"""

from __future__ import annotations

import math
import re
import unicodedata
from dataclasses import dataclass
from datetime import date


@dataclass(frozen=True, slots=True)
class Symbol:
    """A Ruby symbol, ':name'."""

    name: str


@dataclass(frozen=True, slots=True)
class Moment:
    """A plain scalar that Ruby takes for a date or a time, which its safe loader refuses; we keep the text.

    Also a number of more digits than anybody reads, which only Ruby would compute.
    """

    text: str


Scalar = None | bool | int | float | str | Symbol | Moment

_DATE_AND_TIME = re.compile(
    r"-?\d{4}-\d{1,2}-\d{1,2}(?:[Tt]|[ \t\r\n\f\v]+)\d{1,2}:\d\d:\d\d(?:\.\d*)?"
    r"(?:[ \t\r\n\f\v]*(?:Z|[-+]\d{1,2}:?(\d\d)?))?", re.ASCII)
_DATE = re.compile(r"(\d{4})-(1[012]|0\d|\d)-([12]\d|3[01]|0\d|\d)", re.ASCII)
_SEXAGESIMAL = re.compile(r"[-+]?[0-9][0-9_]*(?::[0-5]?[0-9]){1,2}")
_SEXAGESIMAL_FLOAT = re.compile(r"[-+]?[0-9][0-9_]*(?::[0-5]?[0-9]){1,2}\.[0-9_]*")
_FLOAT = re.compile(r"[-+]?(?:[0-9][0-9_,]*)?\.[0-9]*(?:[eE][+-][0-9]+)?")
_INTEGER = re.compile(
    # Possessive: for each turn of the loop that it could take back the matcher would keep a hundred bytes.
    r"[-+]?0b[01_,]+|[-+]?0[0-7_,]+|[-+]?(?:0|[1-9][0-9]*+(?:[,_][0-9]++)*+)|[-+]?0x[0-9a-fA-F_,]+")
_NUMBERS = (_SEXAGESIMAL, _SEXAGESIMAL_FLOAT, _FLOAT, _INTEGER)
_NEWLINE_INSIDE = re.compile(r"\n(?!\n?\Z)")
_TRUE = frozenset(("yes", "true", "on"))
_FALSE = frozenset(("no", "false", "off"))
_TEXTUAL = frozenset("_ \t\r\n\f\v!@#$%^&*(){}<>|/\\~;=")
_DIGITS_AND_MARKS = frozenset("0123456789.:-")

# Circled and squared letters are symbols to Python and letters to Ruby (the property Other_Alphabetic).
_LETTERLIKE = ((0x24B6, 0x24E9), (0x1F130, 0x1F149), (0x1F150, 0x1F169), (0x1F170, 0x1F189))


#: Longer plain scalars are not computed with (characters).
_LONGEST_NUMBER = 1000


def tokenize(text: str) -> Scalar:
    """What Ruby takes the plain scalar ``text`` for: text, number, truth value, nothing, symbol, date or time."""
    if not text:
        return None
    if "\n" in text or _starts_like_text(text):
        return _word(text)
    if _DATE_AND_TIME.fullmatch(text):
        return Moment(text)
    if found := _DATE.fullmatch(text):
        return Moment(text) if _is_date(*found.groups()) else text
    low = text.lower()
    if low in (".inf", "+.inf"):
        return math.inf
    if low == "-.inf":
        return -math.inf
    if low == ".nan":
        return math.nan
    if text[0] == ":" and len(text) > 1:
        return Symbol(re.sub("[\"']$", "", text[2:]) if text[1] in "\"'" else text[1:])
    if len(text) > _LONGEST_NUMBER:
        return Moment(text) if any(form.fullmatch(text) for form in _NUMBERS) else text
    if _SEXAGESIMAL.fullmatch(text):
        return _of_sixties([_leading_integer(part) for part in text.split(":")])
    if _SEXAGESIMAL_FLOAT.fullmatch(text):
        return float(_of_sixties([float(part.replace("_", "").rstrip(".") or 0) for part in text.split(":")]))
    if _FLOAT.fullmatch(text):
        return text if text.strip("+-") == "." else _float(text)
    if _INTEGER.fullmatch(text):
        return _integer(text)
    return text


def _starts_like_text(text: str) -> bool:
    """Ruby's shortcut: at most one character that is no digit, '.', ':' or '-', then a letter or one of some signs."""
    first = text[0]
    if first in _DIGITS_AND_MARKS:
        return False
    return _is_letter(first) or first in _TEXTUAL or (
        len(text) > 1 and (_is_letter(text[1]) or text[1] in _TEXTUAL))


def _word(text: str) -> Scalar:
    if len(text) > 5:
        return text
    lines = [line.lower() for line in text.split("\n")]
    if any(line[:1] not in "ytonf~" for line in lines) or "\n\n" in text or text.startswith("\n"):
        return text
    if text == "~" or "null" in lines:
        return None
    if not _TRUE.isdisjoint(lines):
        return True
    return text if _FALSE.isdisjoint(lines) else False


def _is_date(year: str, month: str, day: str) -> bool:
    try:
        date(max(int(year), 1), int(month), int(day))
    except ValueError:
        return False
    return True


def _of_sixties(parts: list[int] | list[float]) -> int | float:
    """Hours, minutes and perhaps seconds: '1:30' is 5400 to Ruby, as the first part counts 3600 always."""
    return sum(part * (3600, 60, 1)[place] for place, part in enumerate(parts))


def _leading_integer(text: str) -> int:
    found = re.match(r"[-+]?[0-9]+(?:_[0-9]+)*", text)
    return int(found.group()) if found else 0


def _float(text: str) -> float | str:
    plain = re.sub(r"\.([Ee]|$)", r"\1", text.replace(",", "").replace("_", ""))
    try:
        return float(plain)
    except ValueError:
        return text


def _integer(text: str) -> int | str:
    sign = -1 if text.startswith("-") else 1
    digits = text.lstrip("+-").replace(",", "").replace("_", "")
    base = {"0b": 2, "0x": 16}.get(digits[:2].lower(), 8 if digits.startswith("0") and len(digits) > 1 else 10)
    try:
        return sign * int(digits[2:] if base in (2, 16) else digits, base)
    except ValueError:  # '0x_', say: nothing is left
        return text


def _is_letter(character: str) -> bool:
    if character < "\x80":
        return character.isalpha()
    category = unicodedata.category(character)
    return category[0] == "L" or category in ("Nl", "Mn", "Mc") or _is_letterlike(character)


def _is_word(character: str) -> bool:
    if character < "\x80":
        return character.isalnum() or character == "_"
    category = unicodedata.category(character)
    return category[0] in "LM" or category in ("Nd", "Nl", "Pc") or _is_letterlike(character)


def _is_letterlike(character: str) -> bool:
    return any(low <= ord(character) <= high for low, high in _LETTERLIKE)


def style_of(text: str) -> str | None:
    """The style that Psych asks its emitter for when it writes the string ``text``.

    '|' (literal), '"', "'" or None (plain). The emitter still turns down a style that cannot hold the text.
    """
    if _NEWLINE_INSIDE.search(text):
        return "|"
    if text in ("y", "n"):
        return '"'
    if _has_line_of_odd_start(text):
        return '"'
    return None if isinstance(tokenize(text), str) else "'"


def _has_line_of_odd_start(text: str) -> bool:
    """Whether some line starts with what is no word character and a line ends after it before any double quote."""
    start = 0
    while start < len(text):
        if not _is_word(text[start]):
            # the rest up to some end of line must be free of '"': the nearest end of line decides
            end = text.find("\n", start + 1)
            if '"' not in text[start + 1:end if end >= 0 else len(text)]:
                return True
        following = text.find("\n", start)
        if following < 0:
            break
        start = following + 1
    return False


def float_text(value: float) -> str:
    """A float as Ruby's Float#to_s gives it: 1.0, 1.0e+20, 1.0e-05."""
    if math.isnan(value):
        return ".nan"
    if math.isinf(value):
        return ".inf" if value > 0 else "-.inf"
    mantissa, e, exponent = repr(value).partition("e")  # Ruby and Python take to exponents at the same sizes
    return mantissa + ("" if "." in mantissa else ".0") + e + exponent
