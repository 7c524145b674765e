"""The commands of a shell script: which programs with which words, in which pipelines, under which variables.

Loops, conditions and functions are taken apart; what is in them counts as if it were run. Commands within words
($(date)) and in the words of others (xargs, find -exec, sudo, bash -c) are found too.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field, replace

from gitian.lint.shell import DEPTH_LIMIT, Document, Operator, Token, Word, tokens

#: A script of more commands than this is looked at no further.
COMMAND_LIMIT = 20_000
#: A pipeline is taken to end after so many commands.
PIPELINE_LIMIT = 100

_LEADING = frozenset(("if", "then", "elif", "else", "while", "until", "do", "!", "{", "time", "coproc"))
_ENDING = frozenset(("fi", "done", "esac", "}"))
_REDIRECTIONS = frozenset(("<", ">", ">>", "&>", "&>>", ">&", "<&", "<>", ">|", "<<", "<<-", "<<<"))
_ASSIGNMENT = re.compile(r"([A-Za-z_][A-Za-z0-9_]*)(?:\[[^]]*\])?\+?=", re.ASCII)
#: Programs that run another: name to the options of theirs that take a word.
_WRAPPERS = {
    "sudo": "ugpChrt", "env": "uC", "nice": "n", "ionice": "cnp", "nohup": "", "command": "", "exec": "a",
    "builtin": "", "time": "fo", "stdbuf": "ioe", "setarch": "", "linux32": "", "linux64": "", "eatmydata": "",
    "fakeroot": "sl", "timeout": "ks", "xvfb-run": "ensfpw", "setsid": "", "chronic": "", "unbuffer": "",
    "catchsegv": "", "busybox": "",
    "xargs": "IndPLsaE", "faketime": "f", "chroot": "", "unshare": "", "ccache": "",
}
#: Of those, how many words stand before the other's name.
_SKIPPED = {"timeout": 1, "faketime": 1, "setarch": 1, "chroot": 1}
_SHELLS = frozenset(("sh", "bash", "dash", "ksh", "zsh", "ash"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Command:
    """A program and its words; ``words[0]`` is the name. ``name`` is without directories.

    ``pipeline`` numbers the pipeline it is part of, ``position`` its place there, from 0. ``under`` names the programs
    that run it (xargs, faketime). ``outer`` is the command in whose word it stands.
    """

    name: str
    words: tuple[Word, ...]
    line: int
    end_line: int
    assignments: tuple[tuple[str, Word], ...] = ()
    redirections: tuple[tuple[str, Word], ...] = ()
    documents: tuple[str, ...] = ()
    pipeline: int = 0
    position: int = 0
    under: tuple[str, ...] = ()
    outer: Command | None = None

    @property
    def texts(self) -> tuple[str, ...]:
        """The words after the name, as texts."""
        return tuple(word.text for word in self.words[1:])

    def has(self, *options: str) -> bool:
        """Whether one of these options is there: '--sort' (also as '--sort=name'), or '-n' (also as '-9n')."""
        for text in self.texts:
            if text == "--":
                return False
            for option in options:
                if option.startswith("--"):
                    if text == option or text.startswith(option + "="):
                        return True
                elif re.match(r"-[A-Za-z0-9]", text) and option[1:] in text[1:]:
                    return True
        return False

    @property
    def everything(self) -> tuple[Word, ...]:
        """Its words, and those of its redirections and assignments."""
        return (*self.words, *(word for _, word in self.redirections), *(word for _, word in self.assignments))


@dataclass(slots=True, kw_only=True)
class Script:
    """All commands in the order of the text, and the functions that the script defines."""

    commands: list[Command] = field(default_factory=list)
    functions: set[str] = field(default_factory=set)
    pipelines: dict[int, list[Command]] = field(default_factory=dict)

    def pipeline_of(self, command: Command) -> list[Command]:
        """The commands that it is piped together with, itself included."""
        return self.pipelines[command.pipeline]


def parse(text: str, first_line: int = 1) -> Script:
    """The commands of a script; it never fails."""
    parser = _Parser()
    parser.take(tokens(text, first_line), None, 0)
    return parser.script


class _Parser:
    def __init__(self) -> None:
        self.script = Script()
        self.pipelines = 0

    def take(self, found: list[Token], outer: Command | None, depth: int) -> None:
        self.pipelines += 1
        pipeline, position = self.pipelines, 0
        current: list[Word] = []
        redirections: list[tuple[str, Word]] = []
        cases = 0
        pattern = False
        redirection = ""
        heredoc: Command | None = None
        for index, token in enumerate(found):
            if isinstance(token, Document):
                if heredoc is not None:
                    heredoc = self._attach(heredoc, token.text)
                continue
            if isinstance(token, Word):
                if redirection:
                    redirections.append((redirection, token))
                    redirection = ""
                elif pattern:
                    if token.text == "esac" and not token.quoted:
                        pattern, cases = False, max(0, cases - 1)
                elif not current and token.text in _LEADING and not token.quoted:
                    continue
                elif not current and token.text in _ENDING and not token.quoted:
                    cases -= token.text == "esac" and cases > 0
                elif token.text == "in" and current and current[0].text == "case" and len(current) == 2:
                    self._finish(current, redirections, pipeline, position, outer, depth)
                    current, redirections = [], []
                    cases, pattern = cases + 1, True
                else:
                    current.append(token)
                continue
            text = token.text
            if text in _REDIRECTIONS:
                redirection = text
                if current and current[-1].text.isdigit() and not current[-1].quoted:
                    current.pop()  # '2>' : the number of a file
                continue
            if pattern:
                pattern = text != ")"
                continue
            if text == "(" and len(current) in (1, 2) and self._closes(found, index):
                self.script.functions.add(current[-1].text)
                current = []
                continue
            if current and current[0].text == "function" and len(current) >= 2:
                self.script.functions.add(current[1].text)
                current = [word for word in current[2:] if word.text != "{"]
            made = self._finish(current, redirections, pipeline, position, outer, depth)
            if made is not None and any(kind in ("<<", "<<-") for kind, _ in made.redirections):
                heredoc = made
            current, redirections = [], []
            if text in ("|", "|&") and position < PIPELINE_LIMIT:
                position += 1
            else:
                if text == "\n" and position and made is None and self._piped_before(found, index):
                    continue  # a line that ends in '|' goes on
                self.pipelines += 1
                pipeline, position = self.pipelines, 0
            pattern = text in (";;", ";&", ";;&") and cases > 0
        self._finish(current, redirections, pipeline, position, outer, depth)

    @staticmethod
    def _closes(found: list[Token], index: int) -> bool:
        after = found[index + 1] if index + 1 < len(found) else None
        return isinstance(after, Operator) and after.text == ")"

    @staticmethod
    def _piped_before(found: list[Token], index: int) -> bool:
        before = found[index - 1]
        return isinstance(before, Operator) and before.text in ("|", "|&", "\n")

    def _attach(self, command: Command, text: str) -> Command:
        """The command with one more document that it reads."""
        changed = replace(command, documents=(*command.documents, text))
        for known in (self.script.commands, self.script.pipelines[command.pipeline]):
            known[next(number for number in range(len(known) - 1, -1, -1) if known[number] is command)] = changed
        return changed

    def _finish(self, words: list[Word], redirections: list[tuple[str, Word]], pipeline: int, position: int,
                outer: Command | None, depth: int, under: tuple[str, ...] = ()) -> Command | None:
        if len(self.script.commands) >= COMMAND_LIMIT:
            return None
        words = list(words)
        while words and words[0].text in _LEADING and not words[0].quoted:
            words.pop(0)
        assignments = []
        while words and (found := _ASSIGNMENT.match(words[0].text)):
            word = words.pop(0)
            assignments.append((found[1], Word(text=word.text[found.end():], line=word.line, quoted=word.quoted,
                                               inner=word.inner)))
        if not words and not assignments and not redirections:
            return None
        everything = [*words, *(word for _, word in assignments), *(word for _, word in redirections)]
        line, end = min(word.line for word in everything), max(word.line for word in everything)
        name = words[0].text.rpartition("/")[2] if words else ""
        command = Command(name=name, words=tuple(words), line=line, end_line=end, assignments=tuple(assignments),
                          redirections=tuple(redirections), pipeline=pipeline, position=position, under=under,
                          outer=outer)
        self.script.commands.append(command)
        self.script.pipelines.setdefault(pipeline, []).append(command)
        if depth < DEPTH_LIMIT:
            for word in everything:
                for text, first in word.inner:
                    self.take(tokens(text, first), command, depth + 1)
            for inner in _inner_commands(command):
                if isinstance(inner, str):
                    self.take(tokens(inner, line), command, depth + 1)
                else:
                    self._finish(inner, [], pipeline, position, command, depth + 1, (*under, name))
        return command


def _inner_commands(command: Command) -> Iterator[list[Word] | str]:
    """What a command runs: the words of another one, or the text of a script."""
    name, words = command.name, list(command.words[1:])
    bare = [Word(text=word.text, line=word.line, quoted=word.quoted) for word in words]  # their scripts are known
    if name in _WRAPPERS:
        at = 0
        while at < len(bare) and (bare[at].text.startswith("-") or _ASSIGNMENT.match(bare[at].text)):
            text = bare[at].text
            at += 2 if text[0] == "-" and text[-1:] in _WRAPPERS[name] and len(text) == 2 else 1
        at += _SKIPPED.get(name, 0)
        if at < len(bare):
            yield bare[at:]
    elif name in _SHELLS and "-c" in command.texts[:3]:
        at = command.texts.index("-c") + 1
        if at < len(bare):
            yield bare[at].text
    elif name == "eval":
        yield " ".join(command.texts)
    elif name == "find":
        for number, word in enumerate(bare):
            if word.text in ("-exec", "-execdir", "-ok"):
                end = next((n for n in range(number, len(bare)) if bare[n].text in (";", "+")), len(bare))
                if bare[number + 1:end]:
                    yield bare[number + 1:end]
