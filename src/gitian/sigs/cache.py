"""What was found out before about exactly the same bytes, so that nothing is verified twice.

A finding is kept under a digest of everything it depends on: the assertion's and the signature's content, the content
of all keyrings, the GnuPG program. Policies are applied afresh each time, so they need no place in it. Beside the
findings lie the digests of files by their stamp (device, inode, size, times), as in git's index, so that a file that
did not change need not be read.

Nobody else's findings are believed: a directory or file that belongs to somebody else, or that others may write to, is
not used. Whatever goes wrong with a cache only costs time.
"""

from __future__ import annotations

import contextlib
import json
import os
import stat
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import sqlite3

#: Changes whenever what is kept, or the rules by which it is found out, change.
VERSION = 2
#: A file that changed so recently might change again without its times showing it (ns).
_FRESH = 2_000_000_000
_ROWS_LIMIT = 200_000

_SCHEMA = """
create table if not exists findings (key text primary key, value text not null, used integer not null) without rowid;
create table if not exists stamps (root text, path text, stamp text not null, digest text not null,
                                   primary key (root, path)) without rowid;
"""


def directory(environ: Mapping[str, str] | None = None) -> Path | None:
    """Where findings are kept: $XDG_CACHE_HOME/gitian, else ~/.cache/gitian; None without a home."""
    environ = os.environ if environ is None else environ
    base = environ.get("XDG_CACHE_HOME", "")
    if base.startswith("/"):
        return Path(base) / "gitian"
    home = environ.get("HOME", "")
    return Path(home) / ".cache" / "gitian" if home.startswith("/") and Path(home).is_dir() else None


class Cache:
    """Findings on disk. With ``where`` None, or when it may not be used, it stays empty and keeps nothing."""

    def __init__(self, where: Path | None) -> None:
        self._database: sqlite3.Connection | None = None
        if where is not None:
            with contextlib.suppress(OSError):
                self._database = _opened(where)

    def close(self) -> None:
        """Let go of the file."""
        if self._database is not None:
            self._database.close()
            self._database = None

    @property
    def usable(self) -> bool:
        """Whether anything is kept."""
        return self._database is not None

    def findings(self, keys: Iterable[str]) -> dict[str, dict[str, Any]]:
        """What is known under these keys."""
        wanted = list(keys)
        found: dict[str, dict[str, Any]] = {}
        for at in range(0, len(wanted), 500):
            part = wanted[at:at + 500]
            marks = ",".join("?" * len(part))
            rows = self._rows(f"select key, value from findings where key in ({marks})", part)
            for key, value in rows:
                with contextlib.suppress(ValueError):
                    found[key] = json.loads(value)
        return found

    def keep(self, findings: Mapping[str, Mapping[str, Any]]) -> None:
        """Keep findings under their keys."""
        now = int(time.time())
        self._write("insert or replace into findings values (?, ?, ?)",
                    [(key, json.dumps(value), now) for key, value in findings.items()])
        self._write("delete from findings where key in (select key from findings order by used desc limit -1 offset ?)",
                    [(_ROWS_LIMIT,)])

    def stamps(self, root: str, folder: str) -> dict[str, tuple[str, str]]:
        """Path -> (stamp, digest) of the files below a folder of a tree, as they were when they were read."""
        return {path: (stamp, digest) for path, stamp, digest in self._rows(
            "select path, stamp, digest from stamps where root = ? and path > ? and path < ?",
            [root, folder + "/", folder + "0"])}

    def keep_stamps(self, root: str, stamps: Mapping[str, tuple[str, str]]) -> None:
        """Keep digests of files by their stamps, but for files that changed a moment ago."""
        now = time.time_ns()
        settled = [(root, path, stamp, digest) for path, (stamp, digest) in stamps.items()
                   if all(int(moment) < now - _FRESH for moment in stamp.split(":")[-2:])]
        self._write("insert or replace into stamps values (?, ?, ?, ?)", settled)

    def _rows(self, statement: str, values: list[str]) -> list[tuple[Any, ...]]:
        if self._database is None:
            return []
        import sqlite3

        try:
            return self._database.execute(statement, values).fetchall()
        except (sqlite3.Error, UnicodeError):
            return []

    def _write(self, statement: str, rows: list[tuple[Any, ...]]) -> None:
        if self._database is None or not rows:
            return
        import sqlite3

        with contextlib.suppress(sqlite3.Error, UnicodeError), self._database:
            self._database.executemany(statement, rows)


def _opened(where: Path) -> sqlite3.Connection | None:
    import sqlite3

    where.parent.mkdir(parents=True, exist_ok=True)
    with contextlib.suppress(FileExistsError):
        where.mkdir(mode=0o700)
    if not _ours(where, stat.S_ISDIR):
        return None
    file = where / f"verdicts-{VERSION}.sqlite"
    with contextlib.suppress(FileExistsError):
        os.close(os.open(file, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_NOFOLLOW, 0o600))
    if not _ours(file, stat.S_ISREG):
        return None
    for attempt in range(2):
        try:
            database = sqlite3.connect(file, timeout=2.0)
        except sqlite3.Error:  # a file of ours that we may not read
            return None
        try:
            database.executescript(_SCHEMA)
            return database
        except sqlite3.DatabaseError as error:
            database.close()
            if attempt or isinstance(error, sqlite3.OperationalError):
                return None
            file.write_bytes(b"")  # damaged: begin again
    return None


def _ours(path: Path, right_kind: Any) -> bool:
    status = path.lstat()
    return bool(right_kind(status.st_mode)) and status.st_uid == os.geteuid() and not status.st_mode & 0o022
