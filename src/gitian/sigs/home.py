"""GnuPG homes: the private temporary one that verifying works in, and where the user's own one lies."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

from gitian.errors import GitianError
from gitian.host import process

#: Where GnuPG keeps public keys, newest kind first. (The third, of GnuPG 2.4 with keyboxd, is a database.)
PUBLIC_RINGS = ("pubring.kbx", "pubring.gpg")
KEYBOXD_RING = "public-keys.d/pubring.db"

#: A user's keyring larger than this is not copied (bytes).
RING_LIMIT = 256 * 2**20


@contextlib.contextmanager
def private_home() -> Iterator[Path]:
    """An empty GnuPG home that only we can read, removed afterwards. It never holds a secret key."""
    path = Path(tempfile.mkdtemp(prefix="gitian-gpg-"))
    try:
        # Nothing of the machine's or the user's GnuPG configuration takes part; these say so to any version.
        (path / "gpg.conf").write_bytes(b"")
        (path / "common.conf").write_bytes(b"")
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)


def exported_by_daemon(ring: Path) -> bytes:
    """The keys of a ring that only GnuPG's own daemon can read (GnuPG 2.4's keyboxd): of a copy of it.

    In the user's home even an export may write: an older GnuPG makes an empty keyring there. Raises OSError,
    ProgramError.
    """
    with private_home() as private:
        (private / "common.conf").write_bytes(b"use-keyboxd\n")
        copy = private / KEYBOXD_RING
        copy.parent.mkdir(mode=0o700)
        shutil.copyfile(ring, copy)
        try:
            return process.run(["gpg", "--homedir", private, "--batch", "--no-tty", "--no-auto-check-trustdb",
                                "--export"], check=False, timeout=120).stdout
        finally:
            with contextlib.suppress(GitianError):
                process.run(["gpgconf", "--homedir", private, "--kill", "all"], check=False, timeout=20)


def user_home(environ: Mapping[str, str] | None = None) -> Path | None:
    """The user's GnuPG home ($GNUPGHOME, else ~/.gnupg) when there is one; it is never made."""
    environ = os.environ if environ is None else environ
    if environ.get("GNUPGHOME"):
        path = Path(environ["GNUPGHOME"])
    elif environ.get("HOME"):
        path = Path(environ["HOME"]) / ".gnupg"
    else:
        return None
    return path if path.is_dir() else None


def public_rings(home: Path) -> tuple[Path, ...]:
    """The files in a GnuPG home that hold public keys; GnuPG itself reads both kinds when both are there."""
    found = []
    for name in (*PUBLIC_RINGS, KEYBOXD_RING):
        path = home / name
        with contextlib.suppress(OSError):
            if path.is_file() and path.stat().st_size:
                found.append(path)
    return tuple(found)
