"""Files into and out of a guest, as a tar stream over its SSH connection; both ends are checked."""

from __future__ import annotations

import stat
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from gitian.errors import GuestError, InputError
from gitian.guest.protocol import UMASK, Limits, Result, contract_environment
from gitian.guest.ssh import Connection
from gitian.guest.ssh_wire import Account, command_line
from gitian.host.extract import extract, extract_file
from gitian.host.pack import pack

#: $1: the directory to unpack into. What is there already is replaced, files and links alike, never written through.
_UNPACK = """mkdir -p -- "$1" &&
exec tar --extract --preserve-permissions --no-same-owner --no-overwrite-dir --warning=no-timestamp --file=- \
    --directory="$1"
"""
#: $1: an absolute path. One letter goes ahead of the archive and says what it holds.
_PACK = """options='--create --format=posix --pax-option=delete=atime,delete=ctime --sparse --numeric-owner --file=-'
if [ -d "$1" ]; then printf d && exec tar $options --directory="$1" .
elif [ -f "$1" ]; then printf f && exec tar $options --dereference --directory="${1%/*}/" "./${1##*/}"
elif [ -e "$1" ]; then echo "'$1' is neither a file nor a directory" >&2; exit 1
else exec ls -d -- "$1" >&2
fi
"""
Progress = Callable[[int], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Transfer:
    """Copying over a connection, as an account of the guest."""

    connection: Connection
    account: Account

    def put(self, source: Path, destination: PurePosixPath, progress: Progress | None = None) -> None:
        """As Guest.put. Raises InputError (the source), GuestError (the guest's disk is full, and the like)."""
        try:
            single = not stat.S_ISDIR(source.stat().st_mode)
        except OSError as error:
            raise InputError(f"'{source}' cannot be copied into the guest: {error.strerror}.") from error
        target = self._absolute(destination)
        name = target.name if single else None
        if single and not name:
            raise InputError(f"'{source}' cannot become '{destination}' in the guest.", hint="Name the new file.")
        account = self.account

        def produce(write: Callable[[bytes], object]) -> None:
            pack(source, write, uid=account.uid, gid=account.uid, uname=account.name, name=name, progress=progress)

        what = f"copy '{source.name}' into the guest"
        line, mark = self._line(_UNPACK, target.parent if single else target)
        result = self.connection.send(line, produce, what=what, mark=mark)
        if result.status != 0:
            raise GuestError(f"'{source}' could not be copied to '{destination}' in the guest: {_complaint(result)}.")

    def get(self, source: PurePosixPath, destination: Path, limits: Limits, progress: Progress | None = None) -> None:
        """As Guest.get. Raises OutputError (what comes is refused), HostError (our disk is full), GuestError."""
        def consume(read: Callable[[int], bytes]) -> None:
            kind = read(1)
            if kind == b"d":
                extract(read, destination, limits=limits, progress=progress)
            elif kind == b"f":
                extract_file(read, destination, limits=limits, progress=progress)

        line, mark = self._line(_PACK, self._absolute(source))
        result = self.connection.receive(line, consume, what=f"copy '{source}' out of the guest", mark=mark)
        if result.status != 0:
            raise GuestError(f"'{source}' could not be copied out of the guest: {_complaint(result)}.")

    def _absolute(self, path: PurePosixPath) -> PurePosixPath:
        return PurePosixPath(self.account.home) / path

    def _line(self, script: str, path: PurePosixPath) -> tuple[bytes, str]:
        mark = self.connection.mark()
        return command_line(["sh", "-c", script, "sh", str(path)], account=self.account,
                            environment=contract_environment(self.account.name), cwd="/", umask=UMASK, mark=mark), mark


def _complaint(result: Result) -> str:
    lines = result.stderr.decode(errors="replace").strip().splitlines()
    said = " / ".join(lines[:4])[:600].rstrip(".") or f"tar ended with status {result.status}"
    # tar has two ways of saying it, one of which says little.
    return f"the guest's disk is full ({said})" if "Wrote only" in said or "No space left" in said else said
