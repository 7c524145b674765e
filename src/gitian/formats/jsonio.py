"""JSON from strangers: one value, no key twice, no number that is none, nothing deeper or larger than can be held.

Two readers of a document that names a key twice may see two different documents; such a one is refused.
"""

from __future__ import annotations

import json
import re
from typing import Any

from gitian.errors import FormatError

SHA256 = re.compile(r"[0-9a-f]{64}")
_SURROGATE = re.compile(rb"\\u[dD][89a-fA-F]")


def loads(data: bytes, source: str, what: str, *, limit: int) -> Any:
    """The value of a JSON document of at most ``limit`` bytes. Raises FormatError, which names ``source``."""
    try:
        if len(data) > limit:
            raise ValueError(f"it is larger than {limit >> 20} MiB")
        value = json.loads(data.decode("utf-8"), object_pairs_hook=_once, parse_constant=_constant)
        if _SURROGATE.search(data):
            json.dumps(value, ensure_ascii=False).encode("utf-8")  # half a character alone cannot be written again
        return value
    except UnicodeError as error:
        raise FormatError(f"{source}: this is no {what}: it holds bytes or characters that are no Unicode.") from error
    except RecursionError as error:
        raise FormatError(f"{source}: this is no {what}: it is nested too deeply.") from error
    except ValueError as error:
        raise FormatError(f"{source}: this is no {what}: {error}.") from error


def dumps(value: Any) -> bytes:
    """A document for people and programs: keys sorted, one line per value, ASCII, a newline at its end."""
    return (json.dumps(value, indent=1, sort_keys=True, allow_nan=False) + "\n").encode("ascii")


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("it has a key twice")
    return found


def _constant(text: str) -> Any:
    raise ValueError(f"'{text}' is no number")


class Fields:
    """An object of a document, field by field. Every method raises FormatError: missing, or of another type."""

    def __init__(self, value: Any, where: str) -> None:
        if not isinstance(value, dict):
            raise FormatError(f"{where} should be an object.")
        self._value: dict[str, Any] = value
        self._where = where

    def __contains__(self, key: str) -> bool:
        return key in self._value

    @property
    def keys(self) -> set[str]:
        """The names of all fields."""
        return set(self._value)

    def only(self, *known: str) -> None:
        """Nothing but these fields, whether they are there or not."""
        if strange := sorted(self.keys.difference(known)):
            raise FormatError(f"{self._where}: '{strange[0][:80]}' is not known here.",
                              hint="Known are: " + ", ".join(known) + ".")

    def raw(self, key: str) -> Any:
        """Whatever stands there."""
        if key not in self._value:
            raise FormatError(f"{self._where}: '{key}' is missing.")
        return self._value[key]

    def text(self, key: str, default: str | None = None, *, longest: int = 8192) -> str:
        """A text of at most ``longest`` characters."""
        if default is not None and key not in self._value:
            return default
        value = self.raw(key)
        if not isinstance(value, str):
            raise FormatError(f"{self._where}: '{key}' should be a text.")
        if len(value) > longest:
            raise FormatError(f"{self._where}: '{key}' is longer than {longest} characters.")
        return value

    def number(self, key: str, default: int | None = None) -> int:
        """A whole number from 0 to 2^53."""
        if default is not None and key not in self._value:
            return default
        value = self.raw(key)
        if isinstance(value, float) and value.is_integer():
            value = int(value)
        if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= 2**53:
            raise FormatError(f"{self._where}: '{key}' should be a whole number from 0 to 2^53.")
        return value

    def sha256(self, key: str) -> str:
        """64 hexadecimal digits."""
        value = self.text(key)
        if SHA256.fullmatch(value) is None:
            raise FormatError(f"{self._where}: '{key}' should be a SHA-256.")
        return value

    def object(self, key: str) -> Fields:
        """An object."""
        return Fields(self.raw(key), f"{self._where}.{key}")

    def objects(self, key: str, *, most: int, optional: bool = False) -> list[Fields]:
        """A list of at most ``most`` objects."""
        if optional and key not in self._value:
            return []
        value = self.raw(key)
        if not isinstance(value, list):
            raise FormatError(f"{self._where}: '{key}' should be a list.")
        if len(value) > most:
            raise FormatError(f"{self._where}: '{key}' has more than {most} items.")
        return [Fields(item, f"{self._where}.{key}[{number}]") for number, item in enumerate(value)]
