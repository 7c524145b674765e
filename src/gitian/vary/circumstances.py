"""What is known of the machine, the clock and the user of one build, as its script saw them."""

from __future__ import annotations

from dataclasses import dataclass, fields


@dataclass(frozen=True, slots=True, kw_only=True)
class Circumstances:
    """One build's circumstances; None is what nobody knows.

    ``time``: when the build's own clock said it began and ended (seconds since 1970, UTC). ``time_zone``: as TZ has
    it. ``paths``: directories in which it was built. ``memory`` in MiB; ``pids`` the lowest and the highest;
    ``environment``: (name, value) of variables; ``kernel``: its release; ``sh``: which shell /bin/sh is;
    ``directory_order``, ``file_system``, ``seed``: any word that tells one way from another.
    """

    time: tuple[int, int] | None = None
    time_zone: str | None = None
    locale: str | None = None
    umask: int | None = None
    user: str | None = None
    uid: int | None = None
    gid: int | None = None
    home: str | None = None
    paths: tuple[str, ...] = ()
    hostname: str | None = None
    domain: str | None = None
    cores: int | None = None
    memory: int | None = None
    kernel: str | None = None
    cpu: str | None = None
    cpu_features: tuple[str, ...] | None = None
    environment: tuple[tuple[str, str], ...] = ()
    pids: tuple[int, int] | None = None
    sh: str | None = None
    aslr: bool | None = None
    directory_order: str | None = None
    file_system: str | None = None
    seed: str | None = None


UNKNOWN = Circumstances()


def known_to_differ(a: Circumstances, b: Circumstances) -> frozenset[str]:
    """The names of what both are known to have, and not alike. Times differ when they do not overlap."""
    found = set()
    for field in fields(Circumstances):
        one, other = getattr(a, field.name), getattr(b, field.name)
        if one is None or other is None or one == other:
            continue
        if field.name == "time" and one[0] <= other[1] and other[0] <= one[1]:
            continue
        if field.name in ("paths", "environment") and not (one and other):
            continue
        found.add(field.name)
    return frozenset(found)
