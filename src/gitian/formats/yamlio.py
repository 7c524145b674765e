"""YAML in and out: the only module that knows the YAML library.

In: one document becomes a tree of nodes that remember line, tag and whether a scalar was quoted, so that an unquoted
1.10 or 2011-01-30 can stay the text it was. Bounded in size, depth and number of nodes; aliases are refused, as Ruby's
safe loader does, so no document can grow while it is read. Out: the bytes that Ruby's Psych 4 writes, because the same
emitter (libyaml) is given the same events.
"""

from __future__ import annotations

import base64
import binascii
import os
import re
import stat
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gitian.errors import FormatError
from gitian.formats import psych

#: Bounds of a document. Real assertions have at most 0.2 MB, some twenty nodes and three levels.
SIZE_LIMIT = 16 * 2**20
DEPTH_LIMIT = 32
NODE_LIMIT = 200_000
#: The parser compares each tag directive with all before it; nobody needs one.
TAG_DIRECTIVES_LIMIT = 100

_OMAP = ("tag:yaml.org,2002:omap", "!omap")
_STRING = ("tag:yaml.org,2002:str", "!str", "!ruby/string")
_BINARY = ("tag:yaml.org,2002:binary", "!binary")
_KEY = re.compile(rb"[ -]*[\"']?([A-Za-z_][A-Za-z0-9_+-]*)[\"']?\s*:(?:\s|$)")
_NULL = "tag:yaml.org,2002:null"


@dataclass(frozen=True, slots=True, kw_only=True)
class ScalarNode:
    """A single value as it stands in the file. ``line`` counts from 1."""

    text: str
    plain: bool  # neither quoted nor a block
    tag: str | None
    line: int


@dataclass(frozen=True, slots=True, kw_only=True)
class SequenceNode:
    """A list."""

    items: tuple[Node, ...]
    tag: str | None
    line: int


@dataclass(frozen=True, slots=True, kw_only=True)
class MappingNode:
    """Keys and values in the order of the file, repeated keys and all."""

    pairs: tuple[tuple[Node, Node], ...]
    tag: str | None
    line: int


Node = ScalarNode | SequenceNode | MappingNode


@dataclass(frozen=True, slots=True)
class Omap:
    """An ordered map, which Psych writes as '!!omap' and a list of one-key mappings."""

    pairs: tuple[tuple[Value, Value], ...]


@dataclass(frozen=True, slots=True)
class Hash:
    """A mapping. No dict: to Ruby 1, 1.0 and true are three keys."""

    pairs: tuple[tuple[Value, Value], ...]


Value = (psych.Symbol | psych.Moment | None | bool | int | float | str | bytes | tuple["Value", ...] | Hash | Omap)


def read_bounded(path: Path, what: str) -> bytes:
    """The bytes of a document. Raises FormatError when it is larger than SIZE_LIMIT, is no file, or cannot be read."""
    try:
        # Not blocking: a named pipe that lies in a tree of signatures must not hold us up.
        with open(path, "rb", opener=lambda name, flags: os.open(name, flags | os.O_NONBLOCK)) as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                raise FormatError(f"The {what} '{path}' cannot be read: it is no regular file.")
            data = file.read(SIZE_LIMIT + 1)
    except FileNotFoundError:
        raise FormatError(f"The {what} '{path}' does not exist.") from None
    except OSError as error:
        raise FormatError(f"The {what} '{path}' cannot be read: {error.strerror or error}.") from error
    if len(data) > SIZE_LIMIT:
        raise FormatError(f"The {what} '{path}' is larger than {SIZE_LIMIT // 2**20} MiB, so it is no {what}.")
    return data


def parse(data: bytes, source: str, *, only_document: bool = False) -> Node | None:
    """The first document of ``data`` as a tree; None when there is none.

    With ``only_document`` a second document is an error. ``source`` names the file in messages.
    Raises FormatError: no YAML, an alias, or beyond SIZE_LIMIT, DEPTH_LIMIT, NODE_LIMIT or TAG_DIRECTIVES_LIMIT.
    """
    import yaml

    if len(data) > SIZE_LIMIT:
        raise FormatError(f"{source}: the document is larger than {SIZE_LIMIT // 2**20} MiB.")
    if data.count(b"%TAG") + data.count(b"%\0T\0A\0G") > TAG_DIRECTIVES_LIMIT:
        raise FormatError(f"{source}: a document of over {TAG_DIRECTIVES_LIMIT} tag directives is not read.")
    try:
        return _Tree(yaml, yaml.parse(data, Loader=yaml.CSafeLoader), source).document(only_document)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f":{mark.line + 1}" if mark else ""
        key = _key_near(data, mark.line) if mark else None
        began = error.context_mark
        context = f" {error.context}" if error.context else ""
        if began and mark and began.line != mark.line:
            context += f" that began at line {began.line + 1}"
        raise FormatError(f"{source}{where}: {f'{key}: ' if key else ''}this is not YAML: {error.problem}{context}.",
                          hint=_hint_of_syntax(data, mark.line if mark else 0)) from error
    except yaml.reader.ReaderError as error:  # no UTF-8, or a control character
        line = data.count(b"\n", 0, error.position) + 1
        raise FormatError(f"{source}:{line}: this is not YAML: {error.reason} (#x{error.character:02x}).",
                          hint="Save the file as UTF-8 text, without control characters.") from error
    except yaml.YAMLError as error:
        raise FormatError(f"{source}: this is not YAML: {' '.join(str(error).split())}.") from error
    except (ValueError, UnicodeError) as error:
        raise FormatError(f"{source}: this is not YAML: {error}.") from error


def _key_near(data: bytes, line: int) -> str | None:
    """The last key that starts at or before ``line`` (from 0), to say where in the document that is."""
    for text in reversed(data.split(b"\n")[max(0, line - 200):line + 1]):
        if found := _KEY.match(text[:200]):
            return found[1].decode()
    return None


def _hint_of_syntax(data: bytes, line: int) -> str | None:
    lines = data.split(b"\n")
    if line < len(lines) and lines[line].lstrip(b" ").startswith(b"\t"):
        return "YAML is indented with spaces; a tab stands at the start of that line."
    return "Look at that line and the one before it: a quote left open, a missing '-', or an uneven indent."


class _Tree:
    """Turns the parser's events into nodes, counting as it goes."""

    def __init__(self, yaml: Any, events: Iterator[Any], source: str) -> None:
        self.yaml, self.events, self.source = yaml, events, source
        self.nodes = 0

    def document(self, only: bool) -> Node | None:
        yaml, root, seen = self.yaml, None, False
        for event in self.events:
            if isinstance(event, yaml.DocumentStartEvent):
                if seen:
                    raise FormatError(f"{self.source}:{event.start_mark.line + 1}: a second document starts here; "
                                      "there must be only one.")
                seen, root = True, self.node(next(self.events), 1)
            elif isinstance(event, yaml.DocumentEndEvent) and not only:
                return root  # like Ruby, which never looks at what follows
        return root

    def node(self, event: Any, depth: int) -> Node:
        yaml, line = self.yaml, event.start_mark.line + 1
        self.nodes += 1
        if depth > DEPTH_LIMIT or self.nodes > NODE_LIMIT:
            what = f"nested more than {DEPTH_LIMIT} deep" if depth > DEPTH_LIMIT else f"of over {NODE_LIMIT} values"
            raise FormatError(f"{self.source}:{line}: a document {what} is not read.")
        if isinstance(event, yaml.AliasEvent):
            raise FormatError(f"{self.source}:{line}: the alias '*{event.anchor}' is not supported.",
                              hint="Write out what it stands for.")
        if isinstance(event, yaml.ScalarEvent):
            return ScalarNode(text=event.value, plain=event.style in (None, ""), tag=event.tag, line=line)
        if isinstance(event, yaml.SequenceStartEvent):
            items = []
            while not isinstance(inner := next(self.events), yaml.SequenceEndEvent):
                items.append(self.node(inner, depth + 1))
            return SequenceNode(items=tuple(items), tag=event.tag, line=line)
        pairs = []
        while not isinstance(inner := next(self.events), yaml.MappingEndEvent):
            pairs.append((self.node(inner, depth + 1), self.node(next(self.events), depth + 1)))
        return MappingNode(pairs=tuple(pairs), tag=event.tag, line=line)


def means_nothing(text: str) -> bool:
    """Whether the plain scalar ``text`` is null: empty, '~' or 'null'."""
    return psych.tokenize(text) is None


def means_truth(text: str) -> bool | None:
    """What the plain scalar ``text`` says when it is yes or no, true or false, on or off; else None."""
    value = psych.tokenize(text)
    return value if isinstance(value, bool) else None


def load(data: bytes, source: str) -> Value:
    """The first document as the values that Ruby's safe loader gives.

    Raises FormatError, also where Ruby refuses: aliases, dates and times, classes.
    """
    node = parse(data, source)
    return None if node is None else resolve(node, source)


def resolve(node: Node, source: str) -> Value:
    """A node as the value that Ruby's safe loader gives for it. Raises FormatError where that loader refuses."""
    tag = node.tag or ""
    where = f"{source}:{node.line}"
    if isinstance(node, ScalarNode):
        return _resolve_scalar(node, tag, where)
    if tag.startswith(("!ruby/object:", "!ruby/struct", "!ruby/exception", "!struct", "!map:", "!seq:", "!ruby/hash:",
                       "!ruby/array:")) and not (isinstance(node, SequenceNode) and tag.startswith("!ruby/object:")):
        raise FormatError(f"{where}: the type '{tag}' is not supported.", hint="Leave the tag out.")
    if isinstance(node, SequenceNode):
        if tag in _OMAP:
            return _resolve_omap(node, source)
        return tuple(resolve(item, source) for item in node.items)
    if tag in _OMAP or tag in ("tag:yaml.org,2002:set", "!set"):
        raise FormatError(f"{where}: an ordered map or set is written as a list of '- key: value'.")
    pairs: list[tuple[Value, Value]] = []
    for key_node, value_node in node.pairs:
        key, value = resolve(key_node, source), resolve(value_node, source)
        if key == "<<" and isinstance(value, Hash) and isinstance(key_node, ScalarNode) and key_node.plain:
            pairs += value.pairs
        else:
            pairs.append((key, value))
    return Hash(_last_counts(pairs))


def _last_counts(pairs: Iterable[tuple[Value, Value]]) -> tuple[tuple[Value, Value], ...]:
    """As in a Ruby Hash: a key stands where it came first, with the value that came last."""
    found: dict[tuple[type, Value], tuple[Value, Value]] = {}
    for key, value in pairs:
        found[type(key), key] = (key, value)
    return tuple(found.values())


def _resolve_scalar(node: ScalarNode, tag: str, where: str) -> Value:
    if tag in _STRING:
        return node.text
    if tag in _BINARY:
        try:
            return base64.b64decode(node.text)
        except binascii.Error as error:
            raise FormatError(f"{where}: this is not base64: {error}.") from error
    if tag.startswith("!ruby/sym"):
        return psych.Symbol(node.text)
    if tag.startswith(("!ruby/", "!struct")):
        raise FormatError(f"{where}: the type '{tag}' is not supported.", hint="Leave the tag out.")
    if not node.plain:
        return node.text
    value = node.text if tag == "!" else psych.tokenize(node.text)
    if tag in ("tag:yaml.org,2002:float", "!float") and not isinstance(value, bool) and isinstance(value, int):
        return float(value)
    if isinstance(value, psych.Moment):
        short = node.text if len(node.text) <= 40 else node.text[:40] + "..."
        raise FormatError(f"{where}: '{short}' is taken for a date or an endless number.",
                          hint=f'Write it in quotes: "{short}"')
    return value


def _resolve_omap(node: SequenceNode, source: str) -> Omap:
    pairs: list[tuple[Value, Value]] = []
    for item in node.items:
        if not isinstance(item, MappingNode) or not item.pairs:
            raise FormatError(f"{source}:{item.line}: an item of an ordered map is 'key: value'.")
        # Ruby takes the first key and the last value
        pairs.append((resolve(item.pairs[0][0], source), resolve(item.pairs[-1][1], source)))
    return Omap(_last_counts(pairs))


def dump_psych(pairs: Iterable[tuple[Value, Value]]) -> str:
    """The ordered map ``pairs`` as Psych 4.0.3 over libyaml 0.2.5 writes it, byte for byte.

    Raises FormatError: text that is not Unicode (a lone surrogate), or a value of no known kind.
    """
    return dump_value(Omap(tuple(pairs)))


def dump_value(value: Value) -> str:
    """Any value as Psych writes it. Raises FormatError as dump_psych."""
    import yaml

    try:
        text = yaml.emit(_document(yaml, value), Dumper=yaml.CSafeDumper, allow_unicode=True)
    except (yaml.YAMLError, UnicodeError) as error:
        raise FormatError(f"This text cannot be written as YAML: {error}.") from error
    assert isinstance(text, str)
    return text


def _document(yaml: Any, value: Value) -> Iterator[Any]:
    yield yaml.StreamStartEvent(encoding="utf-8")
    yield yaml.DocumentStartEvent(explicit=True)
    yield from _events(yaml, value)
    yield yaml.DocumentEndEvent(explicit=False)
    yield yaml.StreamEndEvent()


def _events(yaml: Any, value: Value) -> Iterator[Any]:
    if isinstance(value, Omap):
        yield yaml.SequenceStartEvent(None, _OMAP[0], False, flow_style=False)
        for key, inner in value.pairs:
            yield from _events(yaml, Hash(((key, inner),)))
        yield yaml.SequenceEndEvent()
    elif isinstance(value, Hash):
        yield yaml.MappingStartEvent(None, None, True, flow_style=False)
        for key, inner in value.pairs:
            yield from _events(yaml, key)
            yield from _events(yaml, inner)
        yield yaml.MappingEndEvent()
    elif isinstance(value, tuple):
        yield yaml.SequenceStartEvent(None, None, True, flow_style=False)
        for inner in value:
            yield from _events(yaml, inner)
        yield yaml.SequenceEndEvent()
    elif isinstance(value, str):
        yield _string_event(yaml, value)
    elif isinstance(value, bytes):
        encoded = base64.b64encode(value).decode()
        yield yaml.ScalarEvent(None, _BINARY[1], (False, False), encoded, style="|")
    elif value is None:
        yield yaml.ScalarEvent(None, _NULL, (True, False), "")
    else:
        yield yaml.ScalarEvent(None, None, (True, False), _plain_text(value))


def _string_event(yaml: Any, text: str) -> Any:
    if text == "<<":
        return yaml.ScalarEvent(None, _STRING[0], (False, False), text, style="'")
    return yaml.ScalarEvent(None, None, (True, True), text, style=psych.style_of(text))


def _plain_text(value: bool | int | float | psych.Symbol | psych.Moment) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, psych.Symbol):
        return f":{value.name}"
    if isinstance(value, psych.Moment):
        return value.text
    return psych.float_text(value) if isinstance(value, float) else str(value)
