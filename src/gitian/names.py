"""Which names, paths and URLs are safe to use: the alphabets of the classic, and never a way out.

Each check returns the text it was given, or raises ValueError with words that follow a key: 'holds ...'. Everything
is ASCII. Source of the alphabets: docs/reference/descriptor.md, 'Names'.
"""

from __future__ import annotations

import re

NAME_ALPHABET = "letters, digits, '_', '.' and '-'"
PATH_ALPHABET = "letters, digits and '@', '_', '/', '.', ':', '+', '-'"

_NAME = re.compile(r"[A-Za-z0-9_.-]+")
_PATH = re.compile(r"[@A-Za-z0-9_/.:+-]+")
_PRINTABLE = re.compile(r"[ -~]+")
# Debian policy 5.6.1, 5.6.12 and 11.1: what these three may be made of. In a file's name a colon is written %3a.
_PACKAGE = re.compile(r"[a-z0-9][a-z0-9+.-]*")
_VERSION = re.compile(r"[A-Za-z0-9][A-Za-z0-9.+:~-]*")
_ARCHITECTURE = re.compile(r"[a-z0-9][a-z0-9-]*")
_DEB = re.compile(r"([a-z0-9][a-z0-9+.-]*)_([A-Za-z0-9](?:[A-Za-z0-9.+~-]|%3a)*)_([a-z0-9][a-z0-9-]*)\.deb")

#: What a file system takes as the name of one file (bytes).
_LONGEST_NAME = 255
_LONGEST_PATH = 4096


def check_name(text: str) -> str:
    """A word: a release, a signer's package, a commit or tag. It may be '.', which check_directory_name refuses."""
    _check_common(text, _LONGEST_NAME)
    if not _NAME.fullmatch(text):
        raise ValueError(f"{shown(text)} holds {_strangers(text, _NAME)}; a name is made of {NAME_ALPHABET}")
    return text


def check_directory_name(text: str) -> str:
    """A name that becomes a file or a directory of its own: as check_name, and not '.'."""
    check_name(text)
    if text == ".":
        raise ValueError("'.' is no name of its own")
    return text


def check_path(text: str) -> str:
    """A path, relative or absolute, with no '..' in it."""
    check_url(text)
    if ".." in text.split("/"):
        raise ValueError(f"{shown(text)} leads upwards by '..'")
    return text


def check_url(text: str) -> str:
    """Where a git remote is: a URL, host:path, or a path; a relative path may lead upwards ('../repos/foo')."""
    _check_common(text, _LONGEST_PATH)
    if not _PATH.fullmatch(text):
        raise ValueError(f"{shown(text)} holds {_strangers(text, _PATH)}; a path or URL is made of {PATH_ALPHABET}")
    return text


def check_file_name(text: str) -> str:
    """A file in inputs/: any printable ASCII but '/'. More than the classic took, so quote it everywhere."""
    _check_common(text, _LONGEST_NAME)
    if text == ".":
        raise ValueError("'.' is no name of a file")
    if "/" in text:
        raise ValueError(f"{shown(text)} holds a '/'; files lie directly in inputs/")
    if not _PRINTABLE.fullmatch(text):
        raise ValueError(f"{shown(text)} holds {_strangers(text, _PRINTABLE)}; "
                         "a file's name is made of printable ASCII characters")
    return text


def check_package(name: str, version: str, architecture: str) -> None:
    """A package's name, version and architecture as Debian's policy allows them, short enough for a file's name."""
    for text, pattern, what in ((name, _PACKAGE, "name"), (version, _VERSION, "version"),
                                (architecture, _ARCHITECTURE, "architecture")):
        if not pattern.fullmatch(text):
            raise ValueError(f"{shown(text)} is no {what} of a package by Debian's policy")
    if len(deb_name(name, version, architecture)) > _LONGEST_NAME:
        raise ValueError(f"{shown(name)} {shown(version)} makes a file's name longer than {_LONGEST_NAME} characters")


def deb_name(name: str, version: str, architecture: str) -> str:
    """What apt calls a package's file: the epoch's colon is written %3a."""
    return f"{name}_{version.replace(':', '%3a')}_{architecture}.deb"


def parse_deb_name(text: str) -> tuple[str, str, str] | None:
    """Name, version and architecture of the package whose file apt calls so; None for any other text."""
    found = _DEB.fullmatch(text) if len(text) <= _LONGEST_NAME else None
    return None if found is None else (found[1], found[2].replace("%3a", ":"), found[3])


def shown(text: str) -> str:
    """``text`` in quotes for a message: short, and with control characters and the like written out."""
    short = text if len(text) <= 80 else text[:77] + "..."
    return "'" + "".join(c if c.isprintable() else ascii(c)[1:-1] for c in short) + "'"


def _check_common(text: str, longest: int) -> None:
    if not text:
        raise ValueError("is empty")
    if text == "..":
        raise ValueError("'..' leads upwards")
    if text.startswith("-"):
        raise ValueError(f"{shown(text)} starts with '-' and would be taken for an option")
    if len(text) > longest:
        raise ValueError(f"{shown(text)} is longer than {longest} characters")


def _strangers(text: str, alphabet: re.Pattern[str]) -> str:
    strange = dict.fromkeys(character for character in text if not alphabet.fullmatch(character))
    return ", ".join("a space" if character == " " else ascii(character) for character in list(strange)[:5])
