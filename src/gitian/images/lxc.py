"""LXC adopts a root filesystem: unpacked into a directory whose owners are shifted.

So root in a guest is nobody in particular on this machine.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gitian.errors import HostError, ImageError
from gitian.host import process
from gitian.host.space import require_room
from gitian.host.subids import SubIds
from gitian.host.workspace import mounted_below, remove_tree


@dataclass(frozen=True, slots=True, kw_only=True)
class LxcImage:
    """How a directory was made: from which tarball, owned by which of the host's ids."""

    uid: int
    gid: int
    tarball_sha256: str

    def to_record(self) -> dict[str, Any]:
        """As the record keeps it."""
        return {"uid": self.uid, "gid": self.gid, "tarball_sha256": self.tarball_sha256}


def adopt(tarball: Path, tarball_sha256: str, destination: Path) -> LxcImage:
    """Unpack the tarball into ``destination``, a new directory.

    Device nodes are left out: a container makes its own. Raises HostError (no subordinate ids, no room), ImageError,
    MissingToolError.
    """
    ids = SubIds.of_current_user()
    require_room(destination.parent, tarball.stat().st_size * 5 // 4, "unpack a root filesystem")
    destination.mkdir(mode=0o755)
    try:
        give(destination, ids)
        # The working directory is inherited, so no directory above it needs to be open to the shifted ids.
        argv = ["tar", "--extract", "--file=-", "--numeric-owner", "--preserve-permissions", "--same-owner", "--xattrs",
                "--xattrs-include=*", "--exclude=./dev/*", "--delay-directory-restore"]
        with tarball.open("rb") as archive:
            with process.start(in_namespace(argv, ids), stdin=archive, stderr=process.PIPE, stdout=process.DEVNULL,
                               cwd=destination) as running:
                assert running.stderr is not None
                said = running.stderr.read(65536).decode(errors="replace")
                while running.stderr.read(65536):
                    pass
        if running.returncode != 0:
            raise ImageError(f"The root filesystem could not be unpacked: 'tar' "
                             f"{process.ended_how(running.returncode)}: {' / '.join(said.strip().splitlines()[-4:])}")
    except BaseException:
        remove(destination)
        raise
    return LxcImage(uid=ids.uid, gid=ids.gid, tarball_sha256=tarball_sha256)


def in_namespace(argv: Sequence[str], ids: SubIds, *, ours: bool = False) -> list[str]:
    """The command as root of a user namespace with the shifted ids.

    With ``ours`` our own comes last, to take over our files: never for what strangers have written.
    """
    maps = [f"u:0:{ids.uid}:{ids.count}", f"g:0:{ids.gid}:{ids.count}"]
    if ours and os.geteuid() != 0:
        maps += [f"u:{ids.count}:{os.geteuid()}:1", f"g:{ids.count}:{os.getegid()}:1"]
    words = ["lxc-usernsexec"]
    for line in maps:
        words += ["-m", line]
    return [*words, "--", *argv]


def give(directory: Path, ids: SubIds) -> None:
    """Let a directory of ours belong to root of the shifted ids."""
    if os.geteuid() == 0:
        os.chown(directory, ids.uid, ids.gid)
    else:
        process.run(in_namespace(["chown", "0:0", "."], ids, ours=True), cwd=directory)


def remove(path: Path) -> None:
    """Remove a directory that shifted ids may own. Raises HostError when it is still there afterwards."""
    if not os.path.lexists(path):
        return
    if path.is_symlink() or not path.is_dir():
        path.unlink()
        return
    if mounted_below(path):
        raise HostError(f"Something is mounted below '{path}', so it is not removed.", hint="Unmount it first.")
    if not remove_tree(path) and shutil.which("lxc-usernsexec") is not None:
        process.run(in_namespace(["find", ".", "-mindepth", "1", "-delete"], SubIds.of_current_user(), ours=True),
                    cwd=path, check=False)
        remove_tree(path)
    if os.path.lexists(path):
        raise HostError(f"'{path}' cannot be removed.", hint="Remove it as root.")
