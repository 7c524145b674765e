"""Shell text, cut into words: as much of bash's grammar as is needed to see which programs a script calls, and how.

Nothing is run and nothing expanded. What cannot be understood is passed over: a linter had better miss something than
stop. Grammar: POSIX.1-2017, 2.3 Token Recognition, and bash's manual.
"""

from __future__ import annotations

from dataclasses import dataclass

#: Bounds: of a script (characters), and of substitutions within each other.
SIZE_LIMIT = 2**20
DEPTH_LIMIT = 20
_OPERATORS = ("<<<", "<<-", "&>>", ";;&", "&&", "||", ";;", ";&", "<<", ">>", "|&", "&>", ">&", "<&", "<>", ">|",
              "\n", ";", "&", "|", "<", ">", "(", ")")
_BREAKS = frozenset(" \t\n;&|<>()")


@dataclass(frozen=True, slots=True, kw_only=True)
class Word:
    """A word of a command. ``text`` is without quotes, expansions left as they stand ('$X', '$(date)').

    ``inner`` holds the scripts that are run to make the word ($(...), `...`, <(...)), each with its first line;
    ``quoted`` says that some part of it was in quotes or escaped.
    """

    text: str
    line: int
    quoted: bool = False
    inner: tuple[tuple[str, int], ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Operator:
    """Something between words: ';', '|', '>', a newline."""

    text: str
    line: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Document:
    """What follows a '<<': lines that a program reads."""

    text: str
    line: int
    quoted: bool


Token = Word | Operator | Document


def tokens(script: str, first_line: int = 1) -> list[Token]:
    """The tokens of a script, at most SIZE_LIMIT characters of it; ``first_line`` is the number of its first line."""
    return _Lexer(script[:SIZE_LIMIT], first_line).all()


class _Lexer:
    def __init__(self, text: str, line: int) -> None:
        self.text, self.at, self.line = text, 0, line
        self.found: list[Token] = []
        self.waiting: list[tuple[str, bool, bool]] = []  # (delimiter, tabs are stripped, quoted)

    def all(self) -> list[Token]:
        text = self.text
        while self.at < len(text):
            char = text[self.at]
            if char in " \t\r":
                self.at += 1
            elif text.startswith("\\\n", self.at):
                self.at, self.line = self.at + 2, self.line + 1
            elif char == "#":
                end = text.find("\n", self.at)
                self.at = len(text) if end < 0 else end
            elif char in _BREAKS and not text.startswith(("<(", ">("), self.at):
                self._operator()
            else:
                word = self._word()
                previous = self.found[-1] if self.found else None
                if isinstance(previous, Operator) and previous.text in ("<<", "<<-"):
                    self.waiting.append((word.text, previous.text == "<<-", word.quoted))
                self.found.append(word)
        return self.found

    def _operator(self) -> None:
        text = next(operator for operator in _OPERATORS if self.text.startswith(operator, self.at))
        self.found.append(Operator(text=text, line=self.line))
        self.at += len(text)
        if text == "\n":
            self.line += 1
            for delimiter, strip, quoted in self.waiting:
                self._document(delimiter, strip, quoted)
            self.waiting = []

    def _document(self, delimiter: str, strip: bool, quoted: bool) -> None:
        first, lines = self.line, []
        while self.at < len(self.text):
            end = self.text.find("\n", self.at)
            end = len(self.text) if end < 0 else end
            line = self.text[self.at:end]
            self.at, self.line = end + 1, self.line + 1
            if (line.lstrip("\t") if strip else line) == delimiter:
                break
            lines.append(line)
        self.at = min(self.at, len(self.text))
        self.found.append(Document(text="\n".join(lines), line=first, quoted=quoted))

    def _word(self) -> Word:
        line, quoted = self.line, False
        parts: list[str] = []
        inner: list[tuple[str, int]] = []
        while self.at < len(self.text):
            char = self.text[self.at]
            if char in _BREAKS and not self.text.startswith(("<(", ">("), self.at):
                break
            if self.text.startswith(("<(", ">("), self.at):
                parts.append(self._substitution(self.at + 2, inner, self.text[self.at] + "("))
            elif char == "'":
                parts.append(self._until("'"))
                quoted = True
            elif char == '"':
                parts.append(self._double(inner))
                quoted = True
            elif char == "\\":
                parts.append(self._escaped())
                quoted = True
            elif self.text.startswith("$'", self.at):
                self.at += 1
                parts.append(self._until("'", escapes=True))
                quoted = True
            elif char in "$`":
                parts.append(self._expansion(inner))
            else:
                parts.append(char)
                self.at += 1
        return Word(text="".join(parts), line=line, quoted=quoted, inner=tuple(inner))

    def _until(self, quote: str, *, escapes: bool = False) -> str:
        """What stands in single quotes."""
        start = self.at + 1
        end = start
        while end < len(self.text) and self.text[end] != quote:
            end += 2 if escapes and self.text[end] == "\\" else 1
        self.at = min(end + 1, len(self.text))
        body = self.text[start:end]
        self.line += body.count("\n")
        return body

    def _double(self, inner: list[tuple[str, int]]) -> str:
        parts = []
        self.at += 1
        while self.at < len(self.text) and self.text[self.at] != '"':
            char = self.text[self.at]
            if char == "\\":
                follower = self.text[self.at + 1:self.at + 2]
                if follower in ('"', "\\", "$", "`", "\n", ""):
                    parts.append(self._escaped())
                else:
                    parts.append(char)
                    self.at += 1
            elif char in "$`":
                parts.append(self._expansion(inner))
            else:
                self.line += char == "\n"
                parts.append(char)
                self.at += 1
        self.at += 1
        return "".join(parts)

    def _escaped(self) -> str:
        """What stands after a backslash; nothing where a line goes on. An escaped '$' keeps it: it is no expansion."""
        follower = self.text[self.at + 1:self.at + 2]
        self.at += 2
        if follower == "\n":
            self.line += 1
            return ""
        return "\\$" if follower == "$" else follower

    def _expansion(self, inner: list[tuple[str, int]]) -> str:
        """A '$' or '`' and what belongs to it."""
        text, start = self.text, self.at
        if text[start] == "`":
            return self._backticks(inner)
        if text.startswith("$((", start):
            end = _closing(text, start + 3, "(", ")", 2)
            return self._taken(end)
        if text.startswith("$(", start):
            return self._substitution(start + 2, inner, "$(")
        if text.startswith("${", start):
            return self._taken(_closing(text, start + 2, "{", "}", 1))
        end = start + 1
        if end < len(text) and (text[end].isalpha() or text[end] == "_"):
            while end < len(text) and (text[end].isalnum() or text[end] == "_"):
                end += 1
        elif end < len(text) and text[end] in "0123456789@*#?$!-":
            end += 1
        return self._taken(end)

    def _taken(self, end: int) -> str:
        taken = self.text[self.at:end]
        self.line += taken.count("\n")
        self.at = end
        return taken

    def _substitution(self, start: int, inner: list[tuple[str, int]], opening: str) -> str:
        end = _closing(self.text, start, "(", ")", 1)
        body = self.text[start:end].removesuffix(")")
        inner.append((body, self.line))
        self.line += body.count("\n")
        self.at = end
        return f"{opening}{body})"

    def _backticks(self, inner: list[tuple[str, int]]) -> str:
        parts, end = [], self.at + 1
        while end < len(self.text) and self.text[end] != "`":
            if self.text[end] == "\\" and self.text[end + 1:end + 2] in ("`", "\\", "$"):
                end += 1
            parts.append(self.text[end:end + 1])
            end += 1
        body = "".join(parts)
        inner.append((body, self.line))
        self.line += body.count("\n")
        self.at = min(end + 1, len(self.text))
        return f"$({body})"


def _closing(text: str, at: int, opening: str, closing: str, depth: int, nested: int = 0) -> int:
    """Behind the bracket that closes ``depth`` open ones; quotes, escapes and comments are heeded."""
    if nested > 4 * DEPTH_LIMIT:
        return len(text)
    while at < len(text):
        char = text[at]
        if char == "\\":
            at += 1
        elif char == "'":
            end = text.find("'", at + 1)
            at = len(text) if end < 0 else end
        elif char == '"':
            at += 1
            while at < len(text) and text[at] != '"':
                if text.startswith("$(", at):
                    at = _closing(text, at + 2, "(", ")", 1, nested + 1) - 1
                at += 2 if text[at:at + 1] == "\\" else 1
        elif char == "#" and text[at - 1] in " \t\n" and closing == ")":
            end = text.find("\n", at)
            at = len(text) if end < 0 else end
        elif char == opening:
            depth += 1
        elif char == closing:
            depth -= 1
            if not depth:
                return at + 1
        at += 1
    return len(text)
