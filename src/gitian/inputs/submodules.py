"""The submodules of a commit: what its tree and .gitmodules say, checked before anything is done with it."""

from __future__ import annotations

import re
from dataclasses import dataclass

from gitian.errors import InputError
from gitian.inputs.repository import Repository, last_words
from gitian.inputs.urls import Location, of_submodule

_LISTING = 512 * 2**20
_KEY = re.compile(r"submodule\.(.+)\.(path|url|update)", re.DOTALL)


@dataclass(frozen=True, slots=True, kw_only=True)
class Submodule:
    """A repository in a repository: its name (and directory below .git/modules), place, commit and URL."""

    name: str
    path: str
    commit: str
    location: Location


def submodules_of(repository: Repository, commit: str) -> list[Submodule]:
    """The submodules to check out with a commit, those excepted that .gitmodules marks 'update = none'.

    Raises InputError: a name or URL that leads elsewhere, a submodule without a URL.
    """
    listing = repository.git("ls-tree", "-r", "-z", "--full-tree", commit, limit=_LISTING).stdout
    links: dict[str, str] = {}
    configuration = b""
    for line in listing.split(b"\0"):
        if line.startswith(b"160000 "):
            fields, _, raw = line.partition(b"\t")
            links[raw.decode("utf-8", "surrogateescape")] = fields.split()[2].decode()
        elif line.endswith(b"\t.gitmodules"):
            configuration = line.partition(b"\t")[0]
    if not links:
        return []
    names = _by_path(repository, configuration)
    found = []
    for path, wanted in sorted(links.items()):
        if path not in names:
            raise InputError(f"The submodule '{path}' of {repository.label} has no URL: the commit {commit} does not "
                             "name it in its .gitmodules.")
        name, url, update = names[path]
        if update == "none":
            continue
        if url is None:
            raise InputError(f"The submodule '{path}' of {repository.label} has no URL in .gitmodules.")
        found.append(Submodule(name=name, path=path, commit=wanted,
                               location=of_submodule(url, repository.location, name)))
    _check_places(repository, found)
    return found


def _by_path(repository: Repository, configuration: bytes) -> dict[str, tuple[str, str | None, str | None]]:
    """path -> (name, url, update) of .gitmodules."""
    if not configuration:
        return {}
    mode, _, blob = configuration.split()
    if not mode.startswith(b"100"):
        raise InputError(f"'.gitmodules' of {repository.label} is not a regular file.")
    done = repository.git("config", f"--blob={blob.decode()}", "--no-includes", "--null", "--list", check=False,
                          limit=4 * 2**20)
    if done.status != 0:
        raise InputError(f"'.gitmodules' of {repository.label} cannot be read: {last_words(done)}")
    values: dict[str, dict[str, str]] = {}
    for item in done.stdout.decode("utf-8", "surrogateescape").split("\0"):
        key, _, value = item.partition("\n")
        if match := _KEY.fullmatch(key):
            values.setdefault(match[1], {})[match[2]] = value
    return {entry["path"].rstrip("/"): (name, entry.get("url"), entry.get("update"))
            for name, entry in values.items() if "path" in entry}


def _check_places(repository: Repository, found: list[Submodule]) -> None:
    names = {submodule.name for submodule in found}
    if len(names) < len(found):
        raise InputError(f"Two submodules of {repository.label} have the same name in .gitmodules.")
    for name in sorted(names):
        parts = name.split("/")
        if not name.isprintable() or "\\" in name or any(part in ("", ".", "..") for part in parts):
            raise InputError(f"The submodule '{name}' of {repository.label} was refused: its name leads elsewhere.")
        # One git directory inside another could make the inner one's files the outer one's.
        for above in ("/".join(parts[:count]) for count in range(1, len(parts))):
            if above in names:
                raise InputError(f"The submodules '{above}' and '{name}' of {repository.label} were refused: one would "
                                 "lie in the other.")
