"""The directory that a user works in: inputs, outputs, caches, signatures; and how two commands keep out of each
other's way there."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import secrets
import shlex
import shutil
import stat
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from gitian.errors import BusyError, HostError, UsageError
from gitian.host import process, progress


@dataclass(frozen=True, slots=True, kw_only=True)
class Workspace:
    """A workspace's root, and the places below it. Nothing is made before it is needed."""

    root: Path
    image_directory: Path

    @classmethod
    def locate(cls, directory: Path | None = None, environ: Mapping[str, str] | None = None) -> Workspace:
        """The workspace meant: ``directory`` (-C), else $GITIAN_BASE, else the current directory.

        Base images lie in $GITIAN_IMAGES when that is set, else in the workspace. Raises UsageError when the directory
        is not there.
        """
        values = os.environ if environ is None else environ
        chosen = directory or (Path(values["GITIAN_BASE"]) if values.get("GITIAN_BASE") else Path())
        root = chosen.absolute()
        if not root.is_dir():
            raise UsageError(f"The workspace '{chosen}' is not a directory.",
                             hint="Make it first, or choose another with -C or GITIAN_BASE.")
        images = values.get("GITIAN_IMAGES")
        return cls(root=root.resolve(), image_directory=Path(images).absolute() if images else root.resolve())

    @property
    def inputs(self) -> Path:
        """Input files by name, and one git clone per remote."""
        return self.root / "inputs"

    @property
    def build(self) -> Path:
        """The outputs of the last build, in ``out``."""
        return self.root / "build"

    @property
    def result(self) -> Path:
        """Reports."""
        return self.root / "result"

    @property
    def cache(self) -> Path:
        """Caches that guests fill, ``common`` and one per package."""
        return self.root / "cache"

    @property
    def var(self) -> Path:
        """Logs, the build script, state of guests, locks."""
        return self.root / "var"

    @property
    def layers(self) -> Path:
        """Guests that have their packages, for later ones to start from."""
        return self.var / "layers"

    @property
    def sigs(self) -> Path:
        """Assertions and signatures."""
        return self.root / "sigs"

    @contextlib.contextmanager
    def lock(self) -> Iterator[None]:
        """Have the workspace for ourselves. Raises BusyError at once when another command has it."""
        make_directory(self.var)
        with locked(self.var / "lock", wait=False, what=f"the workspace '{self.root}'"):
            yield

    @contextlib.contextmanager
    def scratch(self) -> Iterator[Path]:
        """A private, empty directory under var/tmp, gone afterwards; those of dead processes are swept first."""
        with scratch_below(self.var / "tmp") as room:
            yield room


@contextlib.contextmanager
def scratch_below(top: Path) -> Iterator[Path]:
    """A private, empty directory below ``top``, gone afterwards; those of dead processes are swept first.

    A lock, which the kernel drops when its process dies, tells the living from the dead. Raises HostError.
    """
    make_directory(top)
    with locked(top / ".guard", wait=True, what=f"'{top}'"):
        _sweep(top)
        home = top / secrets.token_hex(6)
        home.mkdir(mode=0o700)
        alive = os.open(home / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        fcntl.flock(alive, fcntl.LOCK_EX)
    try:
        room = home / "d"
        room.mkdir(mode=0o700)
        yield room
    finally:
        remove_tree(home)
        os.close(alive)


@contextlib.contextmanager
def scratch_of_user() -> Iterator[Path]:
    """The same for a command without a workspace: in the system's directory for temporary files ($TMPDIR, tempfile(3)).

    Programs that give up root, as apt does, get through to it. Where somebody else has taken our name nothing is swept.
    """
    import tempfile

    top = Path(tempfile.gettempdir()) / f"gitian-{os.geteuid()}"
    with contextlib.ExitStack() as stack:
        if _our_own(top):
            room = stack.enter_context(scratch_below(top))
            room.parent.chmod(0o711)
        else:
            room = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="gitian-", ignore_cleanup_errors=True)))
        yield room


def _our_own(top: Path) -> bool:
    """Make a directory among other people's, or see that it is ours, and nobody else's to write."""
    try:
        with contextlib.suppress(FileExistsError):
            top.mkdir(mode=0o700)
        status = top.lstat()
        if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.geteuid() or status.st_mode & 0o022:
            return False
        top.chmod(0o711)
    except OSError:
        return False
    return True


def _sweep(top: Path) -> None:
    for entry in sorted(top.iterdir()):
        if entry.name.startswith(".") or not stat.S_ISDIR(entry.lstat().st_mode):
            continue
        try:
            number = os.open(entry / "lock", os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
        except FileNotFoundError:
            remove_tree(entry)  # its owner died before the lock was made: we hold the guard, so no one is making it
            continue
        except OSError:
            continue
        try:
            fcntl.flock(number, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            continue
        else:
            remove_tree(entry)
        finally:
            os.close(number)


def make_directory(path: Path) -> Path:
    """Make a directory and its parents where they are lacking. Raises HostError."""
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise HostError(f"The directory '{path}' cannot be made: {error.strerror}.") from error
    return path


@contextlib.contextmanager
def locked(path: Path, *, wait: bool, shared: bool = False, what: str) -> Iterator[None]:
    """Hold a lock file while the block runs; the kernel drops it when we die, so a dead process never blocks.

    Its text says who holds it. ``shared`` locks go together with each other. Without ``wait``, a lock held by another
    is a BusyError that names its process; ``what`` is what is busy then ("the workspace 'x'"). The file stays: removing
    it would let two processes lock two different files. For a shared lock it is enough that it can be read.
    """
    try:
        number = _lock_file(path, shared)
    except OSError as error:
        raise HostError(f"The lock '{path}' cannot be opened: {error.strerror}.",
                        hint="Was a command run here through sudo? Go on so, or work in another workspace (-C DIR)."
                        if error.errno == errno.EACCES else None) from error
    try:
        how = fcntl.LOCK_SH if shared else fcntl.LOCK_EX
        try:
            fcntl.flock(number, how | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno not in (errno.EAGAIN, errno.EACCES):
                raise HostError(f"The lock '{path}' cannot be taken: {error.strerror}.") from error
            holder = _holder(number)
            if not wait:
                raise BusyError(f"Another command is using {what}{holder}.",
                                hint="Wait for it to end, or work in another workspace (-C DIR).") from error
            progress.say(f"Waiting for {what}{holder} ...")
            fcntl.flock(number, how)
        if not shared:
            os.ftruncate(number, 0)
            os.pwrite(number, f"{os.getpid()} {shlex.join(sys.argv)[:1000]}\n".encode(errors="replace"), 0)
        try:
            yield
        finally:
            if not shared:
                with contextlib.suppress(OSError):
                    os.ftruncate(number, 0)
    finally:
        os.close(number)


def _lock_file(path: Path, shared: bool) -> int:
    flags = os.O_CLOEXEC | os.O_NOFOLLOW
    try:
        return os.open(path, os.O_RDWR | os.O_CREAT | flags, 0o644)
    except OSError as error:
        if not shared or error.errno not in (errno.EACCES, errno.EPERM, errno.EROFS):
            raise
        with contextlib.suppress(FileNotFoundError):
            return os.open(path, os.O_RDONLY | flags)
        raise


def _holder(number: int) -> str:
    """': process 123 (gbuild ...)' from a lock file's text, if that process is still there."""
    text = os.pread(number, 1100, 0).decode(errors="replace").strip()
    pid, _, command = text.partition(" ")
    if not (pid.isascii() and pid.isdigit()) or len(pid) > 10 or process.identity(int(pid)) is None:
        return ""
    return f": process {pid} ({progress.plain(command)})"


def write_atomically(path: Path, data: bytes, mode: int = 0o644) -> None:
    """Write a file that is there either as it was or whole, even when the machine stops in between.

    Raises HostError.
    """
    temporary = path.with_name(f".{path.name[:200]}.{secrets.token_hex(4)}")
    try:
        number = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, mode)
        try:
            with os.fdopen(number, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(number)
            temporary.replace(path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
    except OSError as error:
        raise HostError(f"'{path}' cannot be written: {error.strerror}.") from error


def remove_tree(path: Path) -> bool:
    """Remove a file or directory and all below it; True when it is gone.

    Links are not followed; directories that their owner may not write are opened up first; nothing is removed while
    something is mounted below (what lies in the mount may be precious).
    """
    try:
        kind = path.lstat().st_mode
    except FileNotFoundError:
        return True
    if not stat.S_ISDIR(kind):
        path.unlink(missing_ok=True)
        return True
    if mounted_below(path):
        return False
    if os.geteuid() != 0:
        _open_up(path)
    shutil.rmtree(path, ignore_errors=True)
    return not os.path.lexists(path)


def _open_up(path: Path) -> None:
    pending = [path]
    while pending:
        directory = pending.pop()
        with contextlib.suppress(OSError):
            if directory.lstat().st_mode & 0o700 != 0o700:
                directory.chmod(0o700)
            with os.scandir(directory) as entries:
                pending += [Path(entry.path) for entry in entries if entry.is_dir(follow_symlinks=False)]


def give_to_caller(path: Path, environ: Mapping[str, str], *, below: bool = True) -> None:
    """Let what root has made belong to the user who called sudo (sudo(8): SUDO_UID, SUDO_GID), if one did.

    A tree that is not there is passed over; ``below`` False changes ``path`` alone. Links are not followed.
    """
    numbers = [environ.get(name, "") for name in ("SUDO_UID", "SUDO_GID")]
    if os.geteuid() != 0 or not all(number.isascii() and number.isdigit() for number in numbers):
        return
    uid, gid = map(int, numbers)

    def give(name: str | Path, directory: int | None) -> None:
        with contextlib.suppress(FileNotFoundError):
            if os.stat(name, dir_fd=directory, follow_symlinks=False).st_uid == 0:
                os.chown(name, uid, gid, dir_fd=directory, follow_symlinks=False)

    give(path, None)
    if below and path.is_dir() and not path.is_symlink():
        for _, directories, files, number in os.fwalk(path, follow_symlinks=False):
            for name in (*directories, *files):
                give(name, number)


def mounted_below(path: Path) -> list[Path]:
    """The mount points at or below a path (proc(5), /proc/self/mountinfo, whose fifth field escapes by octals)."""
    top = os.fsencode(path.resolve())
    found = []
    for line in Path("/proc/self/mountinfo").read_bytes().splitlines():
        point = line.split(b" ")[4].decode("unicode_escape").encode("latin-1")
        if point == top or point.startswith(top.rstrip(b"/") + b"/"):
            found.append(Path(os.fsdecode(point)))
    return found


def data_directory(name: str) -> Path:
    """A folder of files that come with gitian: 'libexec', 'target-bin', 'etc' or 'share'.

    It lies in the checkout, or in the installed package under ``data``. Raises HostError when it is not there.
    """
    package = Path(__file__).resolve().parents[1]
    checkout = package.parents[1]
    for place in (package / "data" / name, checkout / name):
        if place.is_dir() and (place.parent == package / "data" or (checkout / "pyproject.toml").is_file()):
            return place
    raise HostError(f"The files '{name}' that come with gitian are not there.", hint="Install gitian again.")
