"""A rebuild beside what was recorded: file by file, reproduced or not. Pure."""

from __future__ import annotations

import enum
from collections.abc import Iterator
from dataclasses import dataclass

from gitian.formats.manifest import Manifest
from gitian.formats.report import Report


class Fate(enum.StrEnum):
    """What became of an output; the value is the word that is printed."""

    REPRODUCED = "reproduced"
    DIFFERS = "differs"
    MISSING = "missing"
    UNEXPECTED = "unexpected"


@dataclass(frozen=True, slots=True, kw_only=True)
class Output:
    """One output: its hash as it was recorded and as it was built now, '' where it is absent."""

    path: str
    recorded: str
    built: str

    @property
    def fate(self) -> Fate:
        if self.recorded == self.built:
            return Fate.REPRODUCED
        if not self.built:
            return Fate.MISSING
        return Fate.DIFFERS if self.recorded else Fate.UNEXPECTED


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """All outputs by path, and of each target how many packages its environment has and how many lines of the record
    name versions that were not installed (the classic lists all that lay in apt's cache)."""

    outputs: tuple[Output, ...]
    environments: tuple[tuple[str, int, int], ...]

    @property
    def reproduced(self) -> bool:
        """Whether every output is what was recorded, and there is nothing else. Nothing at all proves nothing."""
        return bool(self.outputs) and all(output.fate is Fate.REPRODUCED for output in self.outputs)

    def lines(self) -> Iterator[str]:
        """The comparison as gbuild prints it."""
        for label, installed, stale in self.environments:
            more = f" ({stale} more lines of the record are of files that were not installed)" if stale else ""
            yield f"same environment: {label}, {installed} packages{more}"
        for output in self.outputs:
            yield f"{output.fate}: {output.path}"
            if output.fate is not Fate.REPRODUCED:
                yield f"  recorded {output.recorded or 'nothing'}"
                yield f"  built    {output.built or 'nothing'}"


def compare(recorded: Report, built: Report) -> Comparison:
    """Compare the outputs of two reports whose inputs and environments were found to be the same."""
    before, now = (Manifest.parse(report.out_manifest).by_path() for report in (recorded, built))
    was = {label: len(text.splitlines()) for label, text in recorded.base_manifests or ()}
    environments = []
    for label, text in built.base_manifests or ():
        installed = len(text.splitlines())
        environments.append((label, installed, max(0, was.get(label, 0) - installed)))
    return Comparison(
        outputs=tuple(Output(path=path, recorded=before.get(path, ""), built=now.get(path, ""))
                      for path in sorted({*before, *now}, key=lambda path: path.encode("utf-8", "surrogateescape"))),
        environments=tuple(environments))
