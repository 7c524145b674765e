"""What goes over an SSH connection as a command: one line for the shell that sshd starts, quoted exactly. Pure."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from gitian.errors import GuestError
from gitian.guest.lxc_config import OPEN_FILES, STACK

#: Linux takes no single argument longer than this (MAX_ARG_STRLEN, execve(2)); sshd passes the line as one (bytes).
LINE_LIMIT = 128 * 1024 - 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Account:
    """Who a command runs as. Connections log in as root; going down to an account is up to ``setpriv``."""

    name: str
    uid: int
    home: str

    @classmethod
    def root(cls) -> Account:
        return cls(name="root", uid=0, home="/root")


def command_line(command: Sequence[str], *, account: Account, environment: Mapping[str, str], cwd: str,
                 umask: int, merged: bool = False, mark: str | None = None, privileges: bool = True,
                 narrow: bool = False) -> bytes:
    """The line that runs ``command`` with exactly ``environment``, in ``cwd``, as ``account``.

    Without ``privileges`` no program may get more rights than its user has (sudo fails, as it should). ``narrow`` makes
    a 64-bit kernel call itself a 32-bit one (personality(2), PER_LINUX32), as an i386 container's does. ``merged``
    sends stderr where stdout goes, in the guest, so that their order is kept. ``mark`` is a file that gets the number
    of the process, which is also its session's: :func:`ending_line` ends all of that. Raises GuestError (empty command,
    NUL bytes, too long), ValueError (no environment variable).
    """
    if not command:
        raise GuestError("An empty command cannot be run in the guest.")
    for name, value in environment.items():
        if not name or "=" in name or "\0" in name + value:
            raise ValueError(f"no environment variable: {name!r}")
    # The assignments come before setpriv, so that a program with '=' in its name is not taken for one more of them.
    words = ["env", "-i", *(f"{name}={value}" for name, value in environment.items()), "setsid",
             "setpriv", f"--reuid={account.uid}", f"--regid={account.uid}", "--init-groups",
             *([] if privileges else ["--no-new-privs"]), "--", *(["setarch", "linux32"] if narrow else []), *command]
    start = f"cd -- {shlex.quote(cwd)} || exit 126; ulimit -S -c 0; ulimit -S -s {STACK}; ulimit -S -n {OPEN_FILES}; "
    # The outer shell stays and turns a signal into the status 128 + number, since SSH's own message for that gets lost
    # on the way; what it says about it itself belongs to nobody. The inner one becomes the command, in a session of
    # its own, and so keeps its number.
    mark_it = f"echo $BASHPID >{shlex.quote(mark)}; " if mark is not None else ""
    streams = "2>&1 3>&-" if merged else "2>&3 3>&-"
    return checked_line(f"{start}umask {umask:03o}; exec 3>&2 2>/dev/null; "
                        f"({mark_it}exec {shlex.join(words)} {streams}); exit $?")


#: $group: a session. The fields of /proc/PID/stat after the name: state, parent, process group, session (proc(5)).
_END = """for stat in /proc/[0-9]*/stat; do
    read -r line <$stat && set -- ${line##*) } && [ "$4" = "$group" ] && stat=${stat%/stat} && kill -KILL ${stat#/proc/}
done 2>/dev/null
"""


def ending_line(mark: str) -> bytes:
    """The line that ends, at once, the session that ``mark`` names."""
    quoted = shlex.quote(mark)
    return checked_line(f"read -r group <{quoted} && rm -f -- {quoted} && kill -STOP $group && {_END}kill -KILL $group")


def checked_line(line: str) -> bytes:
    """The line as bytes (names of any bytes survive). Raises GuestError when no shell could take it."""
    raw = line.encode("utf-8", "surrogateescape")
    if b"\0" in raw:
        raise GuestError("A command for the guest holds a NUL byte.")
    if len(raw) > LINE_LIMIT:
        raise GuestError(f"A command for the guest is {len(raw)} bytes long; at most {LINE_LIMIT} can be sent.",
                         hint="Put long lists into a file, copy it to the guest and read it there.")
    return raw
