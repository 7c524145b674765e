"""The one guest of a workspace, on record in var/target.json, so that it is found again: by a later command while it
runs, by the next one after its owner was killed."""

from __future__ import annotations

import json
import os
import signal
import stat
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from gitian.errors import BusyError, FormatError, GuestError, HostError
from gitian.host import process
from gitian.host.process import ProcessIdentity
from gitian.host.workspace import make_directory, write_atomically

#: Where guests that root runs have their private directories, one per workspace.
RUN = Path("/run/gitian")
_LIMIT = 2**20


@dataclass(frozen=True, slots=True, kw_only=True)
class Session:
    """A guest and what it consists of on the host.

    ``owner`` is the process that the guest dies with, None for a kept one. ``processes`` are ended when the guest is:
    the first one is killed, which ends the others by itself or else they are ended too. Then each path of ``litter``
    is removed, and each of ``groups``, empty control groups. What may be reused (--skip-image) is in ``overlay``.
    ``facts`` are the backend's own (ports, addresses, keys' places).
    """

    backend: str
    suite: str
    arch: str
    distro: str
    owner: ProcessIdentity | None
    processes: Mapping[str, ProcessIdentity] = field(default_factory=dict)
    litter: tuple[Path, ...] = ()
    overlay: tuple[Path, ...] = ()
    groups: tuple[Path, ...] = ()
    facts: Mapping[str, str] = field(default_factory=dict)

    @property
    def label(self) -> str:
        """'suite-arch'."""
        return f"{self.suite}-{self.arch}"

    @property
    def network(self) -> bool:
        """Whether the guest was started with a network."""
        return self.facts.get("network") != said(False)

    @property
    def kept(self) -> bool:
        """Whether the guest was left running on purpose."""
        return self.owner is None


def said(yes: bool) -> str:
    """A truth value as a fact of a record."""
    return "yes" if yes else "no"


def mine() -> ProcessIdentity:
    """This process, as the owner of a guest."""
    found = process.identity(os.getpid())
    assert found is not None, "a process can see itself"
    return found


def record_path(workspace: Path) -> Path:
    """Where the record of a workspace's guest lies. There is one, since there is one guest."""
    return workspace / "var" / "target.json"


def store(workspace: Path, session: Session) -> None:
    """Put a guest on record, in place of what was there. Raises HostError."""
    path = record_path(workspace)
    make_directory(path.parent)
    write_atomically(path, (json.dumps(_to_json(session), indent=1) + "\n").encode(), mode=0o600)


def load(workspace: Path) -> Session | None:
    """The guest on record, or None. Raises FormatError, HostError when the record is not one that we wrote.

    What it says is acted upon (processes ended, paths removed), perhaps by root in another user's directory: so it must
    be ours, and each path one that a guest of this workspace can have.
    """
    path = record_path(workspace)
    try:
        number = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise HostError(f"The guest's record '{path}' cannot be read: {error.strerror}.",
                        hint="Was the guest started by another user? Then that user should stop it.") from error
    try:
        about = os.fstat(number)
        if about.st_uid != os.geteuid() or not stat.S_ISREG(about.st_mode):
            raise HostError(f"The guest's record '{path}' was not made by this user.",
                            hint="Stop that guest as the user who started it, then remove the file.")
        data = os.read(number, _LIMIT)
    finally:
        os.close(number)
    try:
        session = _from_json(json.loads(data))
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise FormatError(f"The guest's record '{path}' cannot be understood.",
                          hint="If no guest of this workspace is running, remove the file.") from error
    for place in (*session.litter, *session.overlay):
        if not _belongs(place, workspace):
            raise FormatError(f"The guest's record '{path}' names '{place}', which is no part of a guest.",
                              hint="If no guest of this workspace is running, remove the file.")
    return session


def forget(workspace: Path) -> None:
    """Remove the record."""
    record_path(workspace).unlink(missing_ok=True)


def running(workspace: Path) -> Session:
    """The guest that runs in this workspace. Raises GuestError when there is none."""
    session = load(workspace)
    if session is None or not alive(session):
        raise GuestError(f"No target is running in the workspace '{workspace}'.",
                         hint="Start one ('libexec/start-target BITS SUITE-ARCH'), or build with "
                              "'gbuild --skip-cleanup'.")
    return session


def alive(session: Session) -> bool:
    """Whether every process of a guest is there."""
    return bool(session.processes) and all(process.identity(who.pid) == who for who in session.processes.values())


def keep(workspace: Path, session: Session) -> Session:
    """Put on record that the guest outlives us."""
    kept = replace(session, owner=None)
    store(workspace, kept)
    return kept


def sweep(workspace: Path, *, kept: bool = False, overlay: bool = True) -> bool:
    """End what is left of the workspace's guest and take it off the record; whether there was anything.

    A kept guest that still runs is left alone unless ``kept``; ``overlay`` False leaves the overlay for --skip-image.
    Raises BusyError when the guest's owner is another process that lives, HostError when a process does not end.
    """
    session = load(workspace)
    if session is None:
        return False
    if session.owner is not None and session.owner != mine() and process.identity(session.owner.pid) == session.owner:
        raise BusyError(f"A guest runs in the workspace '{workspace}', for process {session.owner.pid}.",
                        hint="Wait for it to end, or work in another workspace (-C DIR).")
    if session.kept and not kept and alive(session):
        return False
    end(workspace, session, overlay=overlay)
    return True


def end(workspace: Path, session: Session, *, overlay: bool = True) -> None:
    """End a guest's processes, remove what it leaves, take it off the record. Raises HostError."""
    for index, (name, who) in enumerate(session.processes.items()):
        if index == 0:
            gone = process.kill_identity(who, first=signal.SIGKILL)
        else:
            gone = process.wait_until(lambda one=who: process.identity(one.pid) != one, 2.0)  # type: ignore[misc]
            gone = gone or process.kill_identity(who)
        if not gone:
            raise HostError(f"The process '{name}' ({who.pid}) of the guest does not end.",
                            hint="It may be waiting for a disk; try again with 'libexec/stop-target'.")
    remove([*session.litter, *(session.overlay if overlay else ())])
    for group in session.groups:
        _remove_groups(group)
    forget(workspace)


def remove(paths: Iterable[Path]) -> None:
    """Remove trees that a guest has written: as deep, and with such names, as it liked. Raises HostError."""
    there = [path for path in paths if os.path.lexists(path)]
    if not there:
        return
    done = process.run(["rm", "-rf", "--one-file-system", "--", *there], check=False)
    if done.status != 0:
        raise HostError(f"'{there[0]}' cannot be removed: {done.stderr.decode(errors='replace').strip()[:400]}",
                        hint="Remove it by hand, as the user who ran the guest.")


def _remove_groups(group: Path) -> None:
    """Remove a control group and those below; one that is still in use, or gone, is passed over."""
    if group.is_relative_to("/sys/fs/cgroup") and ".." not in group.parts:
        for path, _, _ in os.walk(group, topdown=False):
            try:
                Path(path).rmdir()
            except OSError:
                continue


def _belongs(place: Path, workspace: Path) -> bool:
    if not place.is_absolute() or ".." in place.parts:
        return False
    if place.parent == RUN:
        return True
    return place.name.startswith("target") and place.parent in (workspace, workspace / "var")


def _to_json(session: Session) -> dict[str, Any]:
    def who(identity: ProcessIdentity | None) -> list[int] | None:
        return None if identity is None else [identity.pid, identity.started]

    return {"backend": session.backend, "suite": session.suite, "arch": session.arch, "distro": session.distro,
            "owner": who(session.owner), "processes": {name: who(one) for name, one in session.processes.items()},
            "litter": [str(path) for path in session.litter], "overlay": [str(path) for path in session.overlay],
            "groups": [str(path) for path in session.groups], "facts": dict(session.facts)}


def _from_json(value: Any) -> Session:
    def who(pair: Any) -> ProcessIdentity:
        pid, started = pair
        if type(pid) is not int or type(started) is not int or pid < 2:
            raise ValueError("no process")
        return ProcessIdentity(pid=pid, started=started)

    return Session(
        backend=str(value["backend"]), suite=str(value["suite"]), arch=str(value["arch"]), distro=str(value["distro"]),
        owner=None if value["owner"] is None else who(value["owner"]),
        processes={str(name): who(pair) for name, pair in value["processes"].items()},
        litter=tuple(Path(path) for path in value["litter"]), overlay=tuple(Path(path) for path in value["overlay"]),
        groups=tuple(Path(path) for path in value["groups"]),
        facts={str(name): str(fact) for name, fact in value["facts"].items()})
