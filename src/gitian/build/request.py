"""What building one target takes, and what it gives."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from gitian.build.changes import Changes
from gitian.formats.environment import Environment
from gitian.formats.fetched import Fetched
from gitian.guest.protocol import Backend
from gitian.host.workspace import Workspace
from gitian.images.lookup import BaseImage
from gitian.inputs.prepare import PreparedInputs
from gitian.plan import BuildPlan, Target

if TYPE_CHECKING:
    from gitian.build.layer import Prepared


@dataclass(frozen=True, slots=True, kw_only=True)
class TargetRequest:
    """Everything that building one target needs.

    ``state`` is the directory whose var/ keeps the guest's state; logs are named with ``log_suffix``. With ``exact``,
    the image holds that environment's packages already, and nothing else is to be installed; ``fetched`` is what was
    fetched for it. ``changes`` make it another build than the usual one (gitian vary).
    With ``ready``, the guest starts from that layer, and nothing is asked or made anew. ``patience`` is how long the
    script may take (seconds).
    """

    plan: BuildPlan
    target: Target
    image: BaseImage
    inputs: PreparedInputs
    workspace: Workspace
    backend: Backend
    environment: Mapping[str, str] = field(default_factory=dict)
    echo: bool = False
    keep: bool = False
    state: Path
    log_suffix: str = ""
    exact: Environment | None = None
    fetched: tuple[Fetched, ...] = ()
    changes: Changes | None = None
    ready: Prepared | None = None
    patience: float | None = None

    def told(self, path: Path) -> str:
        """How messages name a file of the workspace: from the user's own, whose inputs these are."""
        own = self.workspace.inputs.parent
        return str(path.relative_to(own) if path.is_relative_to(own) else path)

    @property
    def offline(self) -> bool:
        """Whether a layer is all that may be built from: packages that have to be installed cannot be had."""
        return self.plan.options.offline and self.exact is None

    @property
    def source_lines(self) -> tuple[str, ...]:
        """The lines of sources.list(5) that the guest's packages come from: none where they are all there."""
        if self.exact is not None:
            return ()
        return (*self.image.record.sources, *(repository.source for repository in self.plan.descriptor.repositories))


@dataclass(frozen=True, slots=True, kw_only=True)
class TargetOutcome:
    """What one target gave: where its output and caches lie (in the caller's scratch), its environment, the layer that
    it started from, and what had been fetched for it before the script ran."""

    label: str
    manifest: str
    out: Path
    cache_common: Path | None = None
    cache_package: Path | None = None
    layer: Path | None = None
    fetched: tuple[Fetched, ...] = ()
