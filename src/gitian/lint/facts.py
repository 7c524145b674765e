"""What a script does as a whole that a single command must be judged by: its variables, its faked clock, its care."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cached_property

from gitian.lint.commands import Command, Script, parse
from gitian.lint.shell import Word

_DECLARES = frozenset(("export", "declare", "local", "readonly", "typeset"))
_NAMED = re.compile(r"([A-Za-z_][A-Za-z0-9_]*)\+?=(.*)", re.DOTALL | re.ASCII)
_USED = re.compile(r"(?<!\\)\$\{?!?([A-Za-z_][A-Za-z0-9_]*)", re.ASCII)
_OUT = re.compile(r"(?<!\\)\$\{?OUTDIR\b|(?:~|\$HOME|\$\{HOME\})/out\b")


@dataclass(frozen=True)
class Facts:
    """A script, taken apart, with what is known about it. ``suites`` are those of the descriptor."""

    text: str
    first_line: int
    suites: tuple[str, ...]

    @cached_property
    def script(self) -> Script:
        return parse(self.text, self.first_line)

    @cached_property
    def assigned(self) -> dict[str, list[Word]]:
        """Variable to all the values that are assigned to it, by 'export' and the like too."""
        found: dict[str, list[Word]] = {}
        for command in self.script.commands:
            for name, word in assignments(command):
                found.setdefault(name, []).append(word)
        return found

    @cached_property
    def all_faked(self) -> bool:
        """Whether the whole script runs under faketime."""
        return any("faketime" in word.text.lower() for word in self.assigned.get("LD_PRELOAD", ()))

    @cached_property
    def faked(self) -> frozenset[str]:
        """Programs that are wrapped in faketime: by convention listed in a variable such as FAKETIME_PROGS."""
        listed = {name for variable, words in self.assigned.items() if "FAKETIME" in variable.upper()
                  for word in words for name in word.text.split()}
        if "libfaketime" in self.text:
            listed |= {word.text for command in self.script.commands if command.name == "for"
                       for word in command.words[3:]}
        return frozenset(listed)

    def is_faked(self, command: Command) -> bool:
        """Whether this command sees a faked clock (libfaketime fakes the times of files too)."""
        return self.all_faked or command.name in self.faked or "faketime" in command.under

    @cached_property
    def touches(self) -> bool:
        """Whether the script sets times of files to something."""
        return any(command.name == "touch" and any(re.match(r"-[a-z]*[dtr]|--(date|reference)", text)
                                                   for text in command.texts) for command in self.script.commands)

    @cached_property
    def repairs(self) -> bool:
        """Whether the script has archives made canonical afterwards."""
        programs = ("canon", "canon-zip", "strip-nondeterminism", "add-determinism")
        return any(command.name in programs or any(text.rpartition("/")[2] in programs for text in command.texts[:2])
                   for command in self.script.commands)

    @cached_property
    def checks(self) -> bool:
        """Whether the script compares a checksum or checks a signature anywhere."""
        for command in self.script.commands:
            if re.fullmatch(r"(sha\d+|md5|b2)sum|shasum|cksum", command.name) and (
                    command.has("-c", "--check") or command.outer is not None):
                return True
            if command.name in ("gpgv", "minisign", "signify", "cosign") or (
                    command.name in ("gpg", "gpg2", "openssl", "ssh-keygen")
                    and any("verify" in text or text in ("-dgst", "dgst", "-Y") for text in command.texts)):
                return True
        return False

    @cached_property
    def out_variables(self) -> frozenset[str]:
        """Variables whose values lie in the directory of outputs."""
        found: set[str] = set()
        for _ in range(4):  # through one another
            found |= {name for name, words in self.assigned.items()
                      for word in words if _OUT.search(word.text) or used(word.text) & found}
        return frozenset(found)

    def goes_out(self, word: Word) -> bool:
        """Whether a word names something in the directory of outputs."""
        return bool(_OUT.search(word.text)) or bool(used(word.text) & self.out_variables)

    def value_has(self, variable: str, *needles: str) -> bool:
        """Whether something assigned to a variable holds one of the texts."""
        return any(needle in word.text for word in self.assigned.get(variable, ()) for needle in needles)


def assignments(command: Command) -> list[tuple[str, Word]]:
    """What a command assigns to variables of the shell."""
    found = list(command.assignments)
    if command.name in _DECLARES:
        for word in command.words[1:]:
            if matched := _NAMED.match(word.text):
                found.append((matched[1], Word(text=matched[2], line=word.line, quoted=word.quoted, inner=word.inner)))
    return found


def used(text: str) -> set[str]:
    """The variables that a text uses."""
    return set(_USED.findall(text))
