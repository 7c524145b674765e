"""Where a remote may lie, and by which transports git may go there."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path

from gitian.errors import InputError

_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://")
_HELPER = re.compile(r"[A-Za-z0-9+.-]*::")
_TRANSPORTS = {"https": "https", "http": "http", "git": "git", "ssh": "ssh", "git+ssh": "ssh", "ssh+git": "ssh"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Location:
    """A URL as git is given it; ``local`` when it is a path on this machine."""

    url: str
    local: bool

    @property
    def protocols(self) -> str:
        """What GIT_ALLOW_PROTOCOL is set to: never ``ext``, and ``file`` only for a local path."""
        return "https:http:ssh:git" + (":file" if self.local else "")

    @property
    def shown(self) -> str:
        """The URL without the password or token that may be in it."""
        return without_secrets(self.url)


def locate(url: str, relative_to: Path) -> Location:
    """A descriptor's URL. A relative path counts from ``relative_to``, the clone's own directory, as the classic's did.

    Raises InputError for a transport that could run a program ('ext::...') or is unknown.
    """
    if not url or url.startswith("-") or not url.isprintable():
        raise _refused(url, "it is no URL")
    if _HELPER.match(url):
        raise _refused(url, "transport helpers ('...::') can run programs")
    if scheme := _SCHEME.match(url):
        name = scheme[1].lower()
        if name == "file":
            return Location(url=url, local=True)
        if name not in _TRANSPORTS:
            raise _refused(url, f"'{name}' is no transport that is used")
        return Location(url=url, local=False)
    colon, slash = url.find(":"), url.find("/")
    if colon >= 0 and (slash < 0 or colon < slash):
        return Location(url=url, local=False)  # host:path, by ssh
    return Location(url=os.path.normpath(relative_to / url), local=True)


def of_submodule(url: str, parent: Location, name: str) -> Location:
    """A URL from .gitmodules; './' and '../' at its start count from the parent's URL (gitsubmodules(7)).

    Raises InputError; a local path is accepted only when the parent is one too.
    """
    if url.startswith(("./", "../")):
        base = parent.url.rstrip("/")
        while url.startswith(("./", "../")):
            if url.startswith("./"):
                url = url[2:]
                continue
            url = url[3:]
            at = max(base.rfind("/"), base.rfind(":") if "/" not in base else -1)
            if at < 0 or base[:at + 1].endswith("://"):
                raise _refused(url, f"the submodule '{name}' lies above its parent's URL")
            base = base[:at]
        url = base + "/" + url.lstrip("/")
    elif not _SCHEME.match(url) and not url.startswith("/") and ":" not in url:
        raise _refused(url, f"the submodule '{name}' has a path where a URL must be")
    found = locate(url, Path("/"))
    if found.local and not parent.local:
        raise _refused(url, f"the submodule '{name}' of a remote repository may not come from this machine")
    return found


def without_secrets(text: str) -> str:
    """The text with what stands before an '@' in its URLs masked."""
    return re.sub(r"(//)[^/@\s]+@", r"\1***@", text)


def _refused(url: str, why: str) -> InputError:
    return InputError(f"The URL '{without_secrets(url)}' was refused: {why}.",
                      hint="Use an https, ssh or git URL, or give the path of a clone with --url DIR=PATH.")
