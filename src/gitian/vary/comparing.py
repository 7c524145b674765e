"""What differs between the usual build and others, output by output; reports of diffoscope, if wanted."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path

from gitian.errors import GitianError
from gitian.host.progress import plain
from gitian.host.workspace import make_directory
from gitian.vary import diffoscope
from gitian.vary.budget import Meter
from gitian.vary.building import Bed, Built, Seen, prefix_of
from gitian.vary.circumstances import UNKNOWN, Circumstances
from gitian.vary.contents import Limits
from gitian.vary.differences import compare_trees
from gitian.vary.findings import Difference
from gitian.vary.hints import Cause as Hinted
from gitian.vary.kept import pair
from gitian.vary.minimise import Cause
from gitian.vary.outcome import Explained, Found

#: So many outputs of one cause are given to diffoscope, and so long may each take (seconds).
_REPORTS = 20
_PATIENCE = 300.0
#: Of what is different in every build, so many outputs are looked at after each build, each within these limits.
_RANDOM = 200
_QUICK = Limits(unpacked=2**28, members=20_000, seconds=20.0)


class Comparing:
    """Compares other builds with the usual one. ``reports`` is the directory for diffoscope's, or None; diffoscope is
    asked as long as ``meter`` has time left.

    Some outputs are different in every build. Of those a build is said to have another one when something in it is
    surely known to come from a circumstance, of a kind that does not differ between usual builds.
    """

    def __init__(self, bed: Bed, usual: Built, reports: Path | None, meter: Meter | None = None) -> None:
        self.bed, self.usual = bed, usual
        self.reports = reports if reports is not None and diffoscope.installed() else None
        self.meter = meter or Meter()
        self.random: dict[str, Built] = {}
        self._asked: Counter[str] = Counter()
        self._usual_causes: dict[str, frozenset[Hinted]] = {}
        self._causes: dict[tuple[int, str], frozenset[Hinted]] = {}

    def learn(self, random: Mapping[str, Built]) -> None:
        """These outputs differ between usual builds: by path, a usual build in which one was otherwise."""
        new = {path: built for path, built in random.items() if path not in self.random}
        self.random |= new
        for built, paths in _by_build(dict(list(new.items())[:_RANDOM])):
            for path, difference in self._compared(built, paths, _QUICK):
                self._usual_causes[path] = frozenset(hint.cause for hint in difference.hints)

    def changed(self, built: Built) -> dict[str, str]:
        """Path -> what tells that a build has another output there: a digest, or known causes."""
        differing = built.outputs.differing(self.usual.outputs.digests)
        found = {path: digest for path, digest in differing.items() if path not in self.random}
        random = [path for path in differing if path in self._usual_causes]
        unknown = [path for path in random if (built.number, path) not in self._causes]
        for path, difference in self._compared(built, unknown, _QUICK):
            self._causes[built.number, path] = frozenset(hint.cause for hint in difference.hints if hint.sure)
        for path in random:
            causes = self._causes.get((built.number, path), frozenset()) - self._usual_causes[path]
            found |= {path: ", ".join(sorted(causes))} if causes else {}
        return found

    def cause(self, cause: Cause, built: Built) -> Found:
        """A confirmed cause, with what differs by it."""
        name = "+".join(cause.variations)
        return Found(variations=cause.variations, fails=cause.fails, log=built.log, certain=cause.certain,
                     differences=tuple(replace(one, note="besides what is different in every build")
                                       if one.path in self.random else one
                                       for one in self._explained(built, cause.outputs, name)),
                     outputs=built.outputs.place if cause.outputs else None)

    def chance(self) -> tuple[Explained, ...]:
        """What differs between usual builds."""
        found = [one for built, paths in _by_build(self.random) for one in self._explained(built, paths, "random")]
        return tuple(sorted(found, key=lambda one: one.path))

    def _explained(self, built: Built, paths: Iterable[str], name: str) -> Iterator[Explained]:
        for label, prefix, mine in self._by_target(paths):
            if not built.outputs.place.exists() and any(built.outputs.digests.get(prefix + path) for path in mine):
                yield from (Explained(target=label, path=prefix + path, difference=None,
                                      problem="there was no room to keep it") for path in mine)
                continue
            told: set[str] = set()
            try:
                with self._trees(built, prefix, mine) as (left, right, scratch):
                    for difference in compare_trees(left, right, _of(self.usual.seen, label), _of(built.seen, label),
                                                    scratch=scratch):
                        reports, problem = self._reports(left / difference.path, right / difference.other_path, name,
                                                         prefix + difference.path, scratch)
                        told |= {difference.path, difference.other_path}
                        yield Explained(target=label, path=prefix + difference.path, difference=difference,
                                        reports=reports, problem=problem)
            except (GitianError, OSError) as error:  # a full disk, say: the outcome of the run is known all the same
                yield from (Explained(target=label, path=prefix + path, difference=None,
                                      problem=f"it could not be compared: {_why(error)}")
                            for path in mine if plain(path) not in told)

    def _compared(self, built: Built, paths: Iterable[str], limits: Limits) -> Iterator[tuple[str, Difference]]:
        for label, prefix, mine in self._by_target(paths):
            # What cannot be compared, for want of room or because there is too much of it, has no cause that is known.
            with suppress(GitianError, OSError), self._trees(built, prefix, mine) as (left, right, scratch):
                for one in compare_trees(left, right, _of(self.usual.seen, label), _of(built.seen, label),
                                         limits=limits, scratch=scratch):
                    yield prefix + one.path, one

    def _by_target(self, paths: Iterable[str]) -> Iterator[tuple[str, str, list[str]]]:
        wanted = list(paths)
        for target in self.bed.plan.targets:
            prefix = prefix_of(self.bed.plan, target.label)
            mine = [path.removeprefix(prefix) for path in wanted if path.startswith(prefix)]
            if mine:
                yield target.label, prefix, mine

    @contextmanager
    def _trees(self, built: Built, prefix: str, paths: Iterable[str]) -> Iterator[tuple[Path, Path, Path]]:
        """Two trees of these paths, and a directory for what is unpacked of them."""
        with self.bed.aside.scratch() as scratch, pair(
                scratch, self.usual.outputs, built.outputs, paths, prefix) as trees:
            yield *trees, make_directory(scratch / "unpacked")

    def _reports(self, left: Path, right: Path, cause: str, path: str,
                 scratch: Path) -> tuple[tuple[Path, ...], str | None]:
        if self.reports is None or not left.is_file() or not right.is_file():
            return (), None
        if self._asked[cause] >= _REPORTS:
            return (), f"diffoscope was asked for the first {_REPORTS} outputs of a cause only"
        room = self.meter.seconds_left()
        if room is not None and room < 1:
            return (), f"diffoscope was not asked: the budget of {self.meter.budget} is spent"
        self._asked[cause] += 1
        try:
            made = diffoscope.report(left, right, self.reports, f"{cause}/{path}", allowance=diffoscope.Allowance(
                seconds=_PATIENCE if room is None else min(_PATIENCE, room), scratch=scratch))
        except GitianError as error:
            return (), str(error)
        if made is None:
            return (), None
        return tuple(path for path in (made.text, made.html) if path is not None), made.problem


def _of(seen: Iterable[Seen], label: str) -> Circumstances:
    return next((one.circumstances for one in seen if one.label == label), UNKNOWN)


def _why(error: GitianError | OSError) -> str:
    return str(error) if isinstance(error, GitianError) else f"{error.strerror or error}."


def _by_build(random: Mapping[str, Built]) -> Iterator[tuple[Built, list[str]]]:
    for number in sorted({built.number for built in random.values()}):
        paths = [path for path, built in random.items() if built.number == number]
        yield random[paths[0]], paths
