"""Where a release is installed, and how it is put there as a whole or not at all.

The new tree is built beside the destination, in a private directory ``.<name>.gitian``, and then changes places with
the old one. What the user keeps in the destination (anything that the installed release did not bring) goes along by
hard links. A journal says what was going on, so that after a crash at any moment the next run puts things in order.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import stat
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from gitian.errors import DestinationError, FormatError
from gitian.host import workspace
from gitian.host.progress import warn
from gitian.update import documents, paths, switch

#: An installed manifest larger than this is refused (bytes).
LIMIT = 64 * 2**20


@dataclass(frozen=True, slots=True, kw_only=True)
class Installed:
    """What a destination says is installed there.

    ``signed``: when the newest signature that counted was made (seconds since 1970), 0 when nobody noted it.
    """

    name: str
    release: str
    sums: Mapping[str, str]
    optionals: tuple[str, ...] = ()
    signed: int = 0
    signers: tuple[str, ...] = ()

    def document(self) -> bytes:
        """As it lies in ``.gitian-manifest``: JSON, which is YAML too, with the classic updater's keys."""
        return json.dumps({"name": self.name, "release": self.release, "optionals": list(self.optionals),
                           "sums": dict(sorted(self.sums.items())), "signed": self.signed,
                           "signers": list(self.signers)}, indent=1, ensure_ascii=False).encode() + b"\n"

    @staticmethod
    def parse(data: bytes, source: str) -> Installed:
        """Read one, the classic updater's (YAML) too. Raises DestinationError."""
        broken = DestinationError(f"'{source}' does not say what is installed.",
                                  hint="Move the directory away, and install afresh.")
        if len(data) > LIMIT:
            raise broken
        try:
            document: object = json.loads(data)
        except (ValueError, RecursionError):
            try:
                document = documents.read(data, source)
            except FormatError as error:
                raise broken from error
        if not isinstance(document, dict) or not isinstance(document.get("sums"), dict):
            raise broken
        signed = document.get("signed", 0)
        return Installed(name=str(document.get("name")), release=str(document.get("release")),
                         sums={str(path): str(value) for path, value in document["sums"].items()},
                         optionals=_texts(document.get("optionals")), signers=_texts(document.get("signers")),
                         signed=signed if isinstance(signed, int) else 0)


def _texts(value: object) -> tuple[str, ...]:
    return tuple(map(str, value)) if isinstance(value, list) else ()


class Destination:
    """One destination, for ourselves while the ``with`` block of :meth:`held` runs."""

    def __init__(self, path: Path, state: Path) -> None:
        self.path = path
        self.state = state
        self.downloads = state / "downloads"
        self.waiting = state / "waiting"
        self._stage = state / "stage"
        self._new = self._stage / "new"
        self._old = self._stage / "old"
        self._journal = state / "switching.json"

    @staticmethod
    @contextlib.contextmanager
    def held(path: Path) -> Iterator[Destination]:
        """Take the destination, and put in order what a run before us may have left undone.

        A symbolic link is followed: the directory that it leads to is the destination. Raises DestinationError, and
        BusyError when another update is running.
        """
        real = Path(os.path.realpath(path))
        if not real.name:
            raise DestinationError("The root of the file system cannot be a destination.")
        if not real.parent.is_dir():
            raise DestinationError(f"The destination '{path}' lies in '{real.parent}', which is not a directory.",
                                   hint=f"Make it first: mkdir -p '{real.parent}'")
        if real.exists() and not real.is_dir():
            raise DestinationError(f"The destination '{path}' is not a directory.")
        state = real.parent / f".{real.name}.gitian"
        try:
            with contextlib.suppress(FileExistsError):
                state.mkdir(mode=0o700)
            status = state.lstat()
        except OSError as error:
            raise DestinationError(f"'{state}' cannot be made: {error.strerror}.",
                                   hint="The directory above the destination must be writable: the new release is put "
                                        "together there, and changes places with the old one.") from error
        if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.geteuid():
            raise DestinationError(f"'{state}' is not a directory of ours.",
                                   hint="Somebody else made it. Look at it, and move it away.")
        if status.st_mode & 0o077:
            state.chmod(0o700)
        try:
            with workspace.locked(state / "lock", wait=False, what=f"the destination '{path}'"):
                destination = Destination(real, state)
                destination._recover()
                destination.downloads.mkdir(mode=0o700, exist_ok=True)
                yield destination
        finally:
            with contextlib.suppress(OSError):
                (state / "downloads").rmdir()

    # What is there

    def installed(self) -> Installed | None:
        """What is installed; None when the destination does not exist or is empty.

        Raises DestinationError when it holds something that no updater has put there.
        """
        try:
            with (self.path / paths.INSTALLED).open("rb") as stream:
                return Installed.parse(stream.read(LIMIT + 1), str(self.path / paths.INSTALLED))
        except FileNotFoundError:
            if self.path.exists() and any(self.path.iterdir()):
                raise DestinationError(
                    f"The destination '{self.path}' is not empty, and nothing there says that it was installed by us.",
                    hint="Choose an empty or a new directory.") from None
            return None
        except OSError as error:
            raise DestinationError(f"'{self.path / paths.INSTALLED}' cannot be read: {error.strerror}.") from error

    # Building the new tree

    @contextlib.contextmanager
    def staging(self) -> Iterator[Path]:
        """An empty private directory on the destination's file system, gone afterwards unless it was installed."""
        workspace.remove_tree(self._stage)
        self._new.mkdir(mode=0o700, parents=True)
        try:
            yield self._new
        finally:
            if not self._journal.exists():
                workspace.remove_tree(self._stage)

    def check_room_for(self, new: Installed, old: Installed | None, *, force: bool) -> None:
        """Raise DestinationError when the release would hit files of the user's, or the switch cannot work.

        With ``force`` files of the user's that are in the way of a file of the release are given up.
        """
        if not self.path.exists():
            return
        if mounts := workspace.mounted_below(self.path):
            raise DestinationError(f"Something is mounted at '{mounts[0]}', so '{self.path}' cannot be switched.",
                                   hint="Unmount it, or choose a directory below the mount point.")
        if force:
            return
        directories = {above for path in new.sums for above in _above(path)}
        for path in self._foreign(self.path, set(old.sums) if old else set()):
            hit = path if path in new.sums or path in directories else \
                next((above for above in _above(path) if above in new.sums), None)
            if hit is not None:
                raise DestinationError(f"'{path}' in '{self.path}' was not installed by us, and is in the way of "
                                       f"'{hit}' of the release.", hint="Move it away, or give it up with --force.")

    def _foreign(self, top: Path, ours: set[str]) -> list[str]:
        """What the user keeps in a tree: files that are not ours, and empty directories."""
        found: list[str] = []
        last = ""  # the directory met last, as long as nothing below it has come
        for path, is_directory in self._entries(top):
            if last and not path.startswith(last + "/"):
                found.append(last)
            last = path if is_directory else ""
            if not is_directory and path not in ours and path not in (paths.INSTALLED, paths.CLASSIC_WAITING):
                found.append(path)
        return [*found, last] if last else found

    def _entries(self, top: Path, prefix: str = "") -> Iterator[tuple[str, bool]]:
        """Everything below: path and whether it is a directory; a directory right before what it holds."""
        with os.scandir(top / prefix) as found:
            entries = sorted((entry.name, entry.is_dir(follow_symlinks=False)) for entry in found)
        for name, is_directory in entries:
            yield prefix + name, is_directory
            if is_directory:
                yield from self._entries(top, f"{prefix}{name}/")

    # The switch

    def install(self, new: Installed, old: Installed | None, *, force: bool = False) -> None:
        """Put the tree that was built by :meth:`staging` in the destination's place.

        Either all of it is there afterwards, or the destination is as it was. Raises DestinationError.
        """
        try:
            self.check_room_for(new, old, force=force)
            _write(self._new / paths.INSTALLED, new.document())
            if self.path.exists():
                self._carry_over(self.path, self._new, set(old.sums) if old else set())
                _like(self.path, self._new)
            else:
                self._new.chmod(0o777 & ~_umask())
            for path, is_directory in self._entries(self._new):
                if is_directory:
                    switch.sync_directory(self._new / path)
            switch.sync_directory(self._new)
            workspace.write_atomically(self._journal, json.dumps({"new": self._new.stat().st_ino}).encode(), 0o600)
            self._switch()
            self._finish()
        except OSError as error:
            self._recover()
            where = f" ('{error.filename}')" if error.filename else ""
            raise DestinationError(f"The release cannot be put into '{self.path}': {error.strerror}{where}.",
                                   hint="The destination is as it was; when that is mended, run the command again."
                                   ) from error
        except BaseException:
            self._recover()
            raise

    def _switch(self) -> None:
        if not self.path.exists():
            self._new.rename(self.path)
        elif switch.exchange(self.path, self._new):
            self._new.rename(self._old)
        else:
            self.path.rename(self._old)
            self._new.rename(self.path)
        switch.sync_directory(self.path.parent)

    def _finish(self) -> None:
        """After the switch: bring over what somebody put into the old tree at the last moment, and remove the rest."""
        if self._old.exists():
            with contextlib.suppress(DestinationError, OSError):
                manifest = self._old / paths.INSTALLED
                ours = Installed.parse(manifest.read_bytes(), str(manifest)).sums if manifest.exists() else {}
                self._carry_over(self._old, self.path, set(ours))
            # Under another name first: a tree that is half removed must not be taken for the old release.
            gone = self._stage / "gone"
            self._old.rename(gone)
            if not workspace.remove_tree(gone):
                warn(f"'{gone}', the release before, cannot be removed.")
        self._journal.unlink(missing_ok=True)
        workspace.remove_tree(self._stage)

    def _recover(self) -> None:
        """Put in order what a run that was killed has left: forward once the switch had begun, else back."""
        try:
            journal = json.loads(self._journal.read_bytes())
            number = int(journal["new"])
        except (OSError, ValueError, KeyError, TypeError):
            number = -1
        here = self.path.stat().st_ino if self.path.exists() else None
        if number >= 0 and here == number:
            if self._new.exists():  # the two had changed places, and that was all
                self._new.rename(self._old)
            self._finish()
        elif here is None and number >= 0 and self._new.exists() and self._new.stat().st_ino == number:
            self._new.rename(self.path)
            self._finish()
        elif here is None and self._old.exists():
            self._old.rename(self.path)
        self._journal.unlink(missing_ok=True)
        for entry in self.state.iterdir():  # also what a killed run was just about to rename
            if entry.name not in ("lock", self.downloads.name, self.waiting.name):
                workspace.remove_tree(entry)

    def _carry_over(self, source: Path, target: Path, ours: set[str]) -> None:
        """Link everything that is not ours from one tree into the other, where nothing is in its way."""
        for path in self._foreign(source, ours):
            if _blocked(target, path):
                continue  # there before us, or given up by --force
            for above in reversed(_above(path)):
                (target / above).mkdir(exist_ok=True)
            if (source / path).is_dir() and not (source / path).is_symlink():
                (target / path).mkdir()
            else:
                _link(source / path, target / path)
        for path, is_directory in self._entries(source):
            if is_directory and not _blocked(target, path + "/.") and (target / path).is_dir():
                _like(source / path, target / path)


def _above(path: str) -> list[str]:
    """The directories that a path lies in, innermost first."""
    parts = path.split("/")
    return ["/".join(parts[:end]) for end in range(len(parts) - 1, 0, -1)]


def _blocked(target: Path, path: str) -> bool:
    """Whether a path exists in a tree, or cannot, because something above it is no directory."""
    for above in reversed(_above(path)):
        try:
            if not stat.S_ISDIR((target / above).lstat().st_mode):
                return True
        except FileNotFoundError:
            return False
    return not path.endswith("/.") and os.path.lexists(target / path)


def _link(source: Path, target: Path) -> None:
    try:
        os.link(source, target, follow_symlinks=False)
    except PermissionError:
        # Files of others may not be linked (sysctl fs.protected_hardlinks).
        shutil.copy2(source, target, follow_symlinks=False)


def _like(source: Path, target: Path) -> None:
    """Give a directory the mode, times and, where we may, the owner of another."""
    status = source.stat()
    with contextlib.suppress(PermissionError):
        os.chown(target, status.st_uid, status.st_gid)
    shutil.copystat(source, target)


def _write(path: Path, data: bytes) -> None:
    number = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, 0o666)
    with os.fdopen(number, "wb") as stream:
        stream.write(data)
        stream.flush()
        os.fsync(number)


def _umask() -> int:
    text = Path("/proc/self/status").read_text()
    return int(next((line.split()[1] for line in text.splitlines() if line.startswith("Umask:")), "0022"), 8)
