"""What differs between the usual build and others, output by output; reports of diffoscope, if wanted."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from gitian.errors import GitianError
from gitian.vary import diffoscope
from gitian.vary.building import Bed, Built, Seen, prefix_of
from gitian.vary.circumstances import UNKNOWN, Circumstances
from gitian.vary.differences import compare_trees
from gitian.vary.kept import pair
from gitian.vary.minimise import Cause
from gitian.vary.outcome import Explained, Found

#: So many outputs of one cause are given to diffoscope, and so long may each take (seconds).
_REPORTS = 20
_PATIENCE = 300.0


class Comparing:
    """Compares other builds with the usual one. ``reports`` is the directory for diffoscope's, or None."""

    def __init__(self, bed: Bed, usual: Built, reports: Path | None) -> None:
        self.bed, self.usual = bed, usual
        self.reports = reports if reports is not None and diffoscope.installed() else None

    def cause(self, cause: Cause, built: Built) -> Found:
        """A confirmed cause, with what differs by it."""
        name = "+".join(cause.variations)
        return Found(variations=cause.variations, fails=cause.fails, log=built.log, certain=cause.certain,
                     differences=tuple(self._differences(built, cause.outputs, name)),
                     outputs=built.outputs.place if cause.outputs else None)

    def chance(self, random: Mapping[str, Built]) -> tuple[Explained, ...]:
        """What differs between usual builds. By path, a build in which it was otherwise."""
        found: list[Explained] = []
        for number in sorted({built.number for built in random.values()}):
            paths = [path for path, built in random.items() if built.number == number]
            other = next(built for built in random.values() if built.number == number)
            found += self._differences(other, paths, "random")
        return tuple(sorted(found, key=lambda one: one.path))

    def _differences(self, built: Built, paths: Iterable[str], name: str) -> Iterator[Explained]:
        wanted = list(paths)
        for target in self.bed.plan.targets:
            prefix = prefix_of(self.bed.plan, target.label)
            mine = [path.removeprefix(prefix) for path in wanted if path.startswith(prefix)]
            if not mine:
                continue
            if not built.outputs.place.exists() and any(built.outputs.digests.get(prefix + path) for path in mine):
                yield from (Explained(target=target.label, path=prefix + path, difference=None,
                                      problem="there was no room to keep it") for path in mine)
                continue
            with self.bed.aside.scratch() as scratch, pair(
                    scratch, self.usual.outputs.place / prefix, built.outputs.place / prefix, mine) as (left, right):
                differences = compare_trees(left, right, _of(self.usual.seen, target.label),
                                            _of(built.seen, target.label))
                for number, difference in enumerate(differences):
                    reports, problem = self._reports(left / difference.path, right / difference.other_path,
                                                     f"{name}/{prefix}{difference.path}", number)
                    yield Explained(target=target.label, path=prefix + difference.path, difference=difference,
                                    reports=reports, problem=problem)

    def _reports(self, left: Path, right: Path, name: str, number: int) -> tuple[tuple[Path, ...], str | None]:
        if self.reports is None or not left.is_file() or not right.is_file():
            return (), None
        if number >= _REPORTS:
            return (), f"diffoscope was asked for the first {_REPORTS} outputs of a cause only"
        try:
            made = diffoscope.report(left, right, self.reports, name,
                                     allowance=diffoscope.Allowance(seconds=_PATIENCE))
        except GitianError as error:
            return (), str(error)
        if made is None:
            return (), None
        return tuple(path for path in (made.text, made.html) if path is not None), made.problem


def _of(seen: Iterable[Seen], label: str) -> Circumstances:
    return next((one.circumstances for one in seen if one.label == label), UNKNOWN)

