"""Reading the keys of a descriptor: every problem is collected, with its line and the way to it ('remotes[1].dir')."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from gitian.errors import DescriptorError
from gitian.formats import yamlio
from gitian.formats.yamlio import MappingNode, Node, ScalarNode, SequenceNode
from gitian.names import shown

#: At most so many problems are shown; the rest is counted.
_SHOWN = 40


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """One thing that is wrong: the line (from 1), the way to it, what, and what to do."""

    line: int
    path: str
    what: str
    hint: str | None = None


class Problems:
    """What was found wrong in one document so far."""

    def __init__(self, source: str) -> None:
        self.source = source
        self.found: list[Problem] = []
        self.general_hint: str | None = None

    def add(self, line: int, path: str, what: str, hint: str | None = None) -> None:
        """Note one problem and go on."""
        self.found.append(Problem(line=line, path=path, what=what, hint=hint))

    def raise_if_any(self) -> None:
        """Raise DescriptorError with all of them, in the order of the file."""
        if not self.found:
            return
        ordered = sorted(dict.fromkeys(self.found), key=lambda problem: problem.line)
        lines = [f"{self.source}:{p.line}: {p.path}: {p.what}" for p in ordered[:_SHOWN]]
        if len(ordered) > _SHOWN:
            lines.append(f"{self.source}: and {len(ordered) - _SHOWN} more problems")
        hints = list(dict.fromkeys(hint for hint in (self.general_hint, *(p.hint for p in ordered)) if hint))
        head = f"The descriptor '{self.source}' cannot be used"
        raise DescriptorError(f"{head}: {lines[0]}" if len(lines) == 1 else "\n  ".join((f"{head}:", *lines)),
                              hint="\n".join(hints[:6]) or None)


class Fields:
    """One mapping of a descriptor. A repeated key counts as Ruby counts it: the last one."""

    def __init__(self, node: MappingNode, problems: Problems, path: str = "") -> None:
        self.problems, self.path, self.line = problems, path, node.line
        self.nodes: dict[str, Node] = {}
        self.lines: dict[str, int] = {}
        for key, value in node.pairs:
            if isinstance(key, ScalarNode):
                self.nodes[key.text] = value
                self.lines[key.text] = key.line
            else:
                problems.add(key.line, path or "(top)", "a list or mapping cannot be a key")

    def at(self, key: str) -> str:
        """The way to ``key`` from the top."""
        return f"{self.path}.{key}" if self.path else key

    def has(self, key: str) -> bool:
        """Whether the key is there and says something."""
        return key in self.nodes and not is_null(self.nodes[key])

    def missing(self, key: str, hint: str | None = None) -> None:
        """Note that a required key is absent, or there with nothing after it."""
        if key in self.nodes:
            self.problems.add(self.lines[key], self.at(key), "must not be empty", hint)
        else:
            self.problems.add(self.line, self.at(key), "is missing", hint)

    def text(self, key: str, check: Callable[[str], str] | None = None, *, required: bool = False,
             hint: str | None = None) -> str | None:
        """The text of a scalar as it stands in the file, unquoted numbers and dates too; None when absent."""
        if not self.has(key):
            if required:
                self.missing(key, hint)
            return None
        return self.text_of(self.nodes[key], self.at(key), check)

    def text_of(self, node: Node, path: str, check: Callable[[str], str] | None) -> str | None:
        """The text of a scalar that may be an item of a list."""
        if not isinstance(node, ScalarNode):
            self.problems.add(node.line, path, "must be a text", f"Write '{path}' as one value, not {_kind(node)}.")
            return None
        if is_null(node):
            self.problems.add(node.line, path, "must not be empty", "Remove the lone '-', or put it in quotes.")
            return None
        if check is not None:
            try:
                check(node.text)
            except ValueError as error:
                self.problems.add(node.line, path, str(error))
                return None
        return node.text

    def truth(self, key: str) -> bool:
        """What Ruby takes for true: anything but false, no, off and nothing."""
        if not self.has(key):
            return False
        node = self.nodes[key]
        if not isinstance(node, ScalarNode):
            self.problems.add(node.line, self.at(key), "must be true or false")
            return False
        if yamlio.means_truth(node.text) is not None:
            return bool(yamlio.means_truth(node.text))
        self.problems.add(node.line, self.at(key), f"must be true or false, and is {shown(node.text)}",
                          f"Write '{key}: true' or '{key}: false', without quotes.")
        return False

    def items(self, key: str, *, required: bool = False, hint: str | None = None) -> Sequence[tuple[str, Node]]:
        """The items of a list with the way to each; none when absent or null."""
        if not self.has(key):
            if required:
                self.missing(key, hint)
            return ()
        node = self.nodes[key]
        if not isinstance(node, SequenceNode):
            self.problems.add(node.line, self.at(key), "must be a list",
                              f"Write '{key}:' and below it one line '- \"...\"' for each.")
            return ()
        return [(f"{self.at(key)}[{index}]", item) for index, item in enumerate(node.items)]

    def texts(self, key: str, check: Callable[[str], str] | None = None, *, required: bool = False,
              hint: str | None = None) -> tuple[str, ...]:
        """The texts of a list."""
        found = (self.text_of(node, path, check) for path, node in self.items(key, required=required, hint=hint))
        return tuple(text for text in found if text is not None)

    def mappings(self, key: str, example: str) -> list[Fields]:
        """The mappings of a list; ``example`` shows in the hint what one looks like."""
        found = []
        for path, node in self.items(key):
            if isinstance(node, MappingNode):
                found.append(Fields(node, self.problems, path))
            else:
                self.problems.add(node.line, path, "must be a mapping", f"Write it like this: {example}")
        return found


def is_null(node: Node) -> bool:
    """Whether nothing, '~' or 'null' stands there, unquoted."""
    return isinstance(node, ScalarNode) and node.plain and node.tag is None and yamlio.means_nothing(node.text)


def _kind(node: Node) -> str:
    return "a list" if isinstance(node, SequenceNode) else "a mapping"
