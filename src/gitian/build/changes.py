"""In what a build's circumstances differ from the usual ones (gitian vary). A usual build has none of this."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import PurePosixPath

from gitian.guest.protocol import MachineChanges

#: Where things of a varied build lie in the guest: nowhere that a build looks.
STATE = PurePosixPath("/var/cache/gitian")
WRAPPER = STATE / "vary-wrapper"
PROBE = STATE / "vary-probe"
#: What the probe saw; its first line is READY once everything was changed.
SEEN = STATE / "vary-seen"
READY = b"ready\n"
#: A guest's answers to all probes are a few KiB; no more than this is read (bytes).
SEEN_LIMIT = 2**18


@dataclass(frozen=True, slots=True, kw_only=True)
class ScriptChanges:
    """What the header of the build script says in place of the usual; None leaves it. ``memory`` is in MiB."""

    locale: str | None = None
    umask: int | None = None
    processors: int | None = None
    memory: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Changes:
    """One set of changes for one build.

    ``wrapper`` is a bash script for root in the guest that makes the changes and then runs probe and build script as
    the guest's user, and puts everything back: 'bash WRAPPER PROBE SEEN SCRIPT setarch WORD...'. ``probe`` is the body
    of a script that prints what the build script is going to see. ``setarch`` are further options of setarch.
    ``machine`` is for KVM alone.
    """

    names: frozenset[str] = frozenset()
    script: ScriptChanges = field(default_factory=ScriptChanges)
    wrapper: bytes = b""
    probe: bytes = b""
    setarch: tuple[str, ...] = ()
    machine: MachineChanges | None = None
