"""Where packages of a recorded environment are looked for: options that several commands share."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from gitian.images.obtain import Places


@dataclass(frozen=True, slots=True, kw_only=True)
class PlaceOptions:
    """--debs, --snapshot and --snapshot-time as they were given."""

    debs: tuple[Path, ...] = ()
    snapshot: str | None = None
    snapshot_time: str | None = None

    @property
    def given(self) -> bool:
        """Whether any of them was."""
        return bool(self.debs or self.snapshot or self.snapshot_time)

    def places(self, environment: Mapping[str, str], *, offline: bool = False) -> Places:
        """The places that they and the environment's variables name, without the sources of anything.

        Raises UsageError; HostError when the pool that was asked for cannot be used.
        """
        from gitian.errors import UsageError
        from gitian.host import pool
        from gitian.images.obtain import Places
        from gitian.images.snapshot import check_service, check_time
        from gitian.images.sources import SourceOptions

        # An empty one, as in 'GITIAN_SNAPSHOT= gbuild', is none.
        service = self.snapshot or environment.get("GITIAN_SNAPSHOT") or None
        if self.snapshot_time is not None and service is None:
            raise UsageError("--snapshot-time is a time of a snapshot service, and none is known.",
                             hint="Name it with --snapshot URL or $GITIAN_SNAPSHOT.")
        sources = SourceOptions.of(mirror=None, security_mirror=None, without=(), environment=environment)
        return Places(pool=pool.find(environment), directories=self.debs,
                      snapshot=None if service is None else check_service(service),
                      snapshot_time=None if self.snapshot_time is None else check_time(self.snapshot_time),
                      offline=offline, host_address=sources.host_address, mirror_host=sources.mirror_host)


def place_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command these options; it gets them as ``places``, a PlaceOptions."""
    @click.option("--debs", "debs", metavar="DIR", multiple=True,
                  type=click.Path(path_type=Path, file_okay=False, exists=True), help="Look for packages in this "
                  "directory, and below it, whatever the files are called. May be given more than once.")
    @click.option("--snapshot", metavar="URL", help="Look for packages at this snapshot service "
                  "[default: $GITIAN_SNAPSHOT].")
    @click.option("--snapshot-time", metavar="TIME", help="Look them up in the service's archives as they were then, "
                  "too: YYYYMMDDTHHMMSSZ.")
    @functools.wraps(function)
    def command(*, debs: tuple[Path, ...], snapshot: str | None, snapshot_time: str | None, **more: Any) -> Any:
        return function(places=PlaceOptions(debs=debs, snapshot=snapshot, snapshot_time=snapshot_time), **more)

    return command
