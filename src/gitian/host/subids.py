"""Subordinate user and group ids: what an unprivileged guest's ids are mapped to (subuid(5), subgid(5))."""

from __future__ import annotations

import os
import pwd
from dataclasses import dataclass
from pathlib import Path

from gitian.errors import HostError

#: A guest needs ids 0 to 65535 (nobody and nogroup are 65534).
NEEDED = 65536


@dataclass(frozen=True, slots=True, kw_only=True)
class SubIds:
    """The first of the host's user ids and group ids for a guest, and how many of each there are."""

    uid: int
    gid: int
    count: int = NEEDED

    @classmethod
    def of_current_user(cls, subuid: Path = Path("/etc/subuid"), subgid: Path = Path("/etc/subgid")) -> SubIds:
        """The ids that the current user may map. Raises HostError when there is no range of 65,536 of either."""
        uid = os.geteuid()
        try:
            name = pwd.getpwuid(uid).pw_name
        except KeyError:
            name = str(uid)
        first_user, first_group = (_first(path, name, uid) for path in (subuid, subgid))
        if first_user is None or first_group is None:
            lacking = " and ".join(str(path) for path, first in ((subuid, first_user), (subgid, first_group))
                                   if first is None)
            raise HostError(f"The user '{name}' has no range of {NEEDED} subordinate ids in {lacking}.",
                            hint=remedy(name, uid))
        return cls(uid=first_user, gid=first_group)


def remedy(name: str, uid: int) -> str:
    """The command that gives a user subordinate ids."""
    if uid == 0:
        return "Add them: 'echo root:100000:65536 | tee -a /etc/subuid >> /etc/subgid'."
    return f"Add them: 'sudo usermod --add-subuids 100000-165535 --add-subgids 100000-165535 {name}'."


def _first(path: Path, name: str, uid: int) -> int | None:
    """Where the user's first range that is large enough starts; lines are ``name-or-uid:start:count``."""
    try:
        text = path.read_text(encoding="utf-8", errors="replace")
    except (FileNotFoundError, PermissionError):
        return None
    for line in text.splitlines():
        fields = line.strip().split(":")
        if len(fields) != 3 or fields[0] not in (name, str(uid)):
            continue
        if not (fields[1].isascii() and fields[1].isdigit() and fields[2].isascii() and fields[2].isdigit()):
            continue
        start, count = int(fields[1]), int(fields[2])
        # A range that holds id 0 would give the guest's root the host's.
        if count >= NEEDED and start > 0:
            return start
    return None
