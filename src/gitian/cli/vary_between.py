"""``gitian vary --between A B``: which package flips the output."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from gitian.cli.common import json_text
from gitian.vary.words import counted, listed

if TYPE_CHECKING:
    from gitian.cli.places import PlaceOptions
    from gitian.guest.protocol import Backend
    from gitian.host.workspace import Workspace
    from gitian.plan import Options
    from gitian.vary.between import Between, Side
    from gitian.vary.bisect import Change, Culprit
    from gitian.vary.budget import Budget

#: So many of a list are shown on a terminal; all of them stand in the document.
_MOST = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class BetweenOptions:
    """--between and what belongs to it: two reports, assertions or signers, and where the signers' assertions are."""

    pair: tuple[str, str]
    release: str | None
    destination: Path | None
    target: str | None
    budget: Budget | None
    places: PlaceOptions
    as_json: bool


def between(asked: BetweenOptions, *, descriptor: Path, options: Options, workspace: Workspace, backend: Backend,
            environment: Mapping[str, str]) -> None:
    """Search, and print what was found. The workspace is locked. Raises VariesError: nothing certain was found."""
    from gitian.errors import VariesError
    from gitian.host.progress import plain
    from gitian.vary import between as vary_between

    a, b = (_side(name, asked, descriptor, workspace) for name in asked.pair)
    found = vary_between.between(vary_between.BetweenRequest(
        descriptor=descriptor, options=options, workspace=workspace, backend=backend, a=a, b=b,
        places=asked.places.places(environment, offline=options.offline), environment=environment,
        target=asked.target, budget=asked.budget))
    if asked.as_json:
        click.echo(json_text(document(found)))
    else:
        for line in lines(found):
            click.echo(plain(line))
    if not found.finding.certain:
        raise VariesError(f"Undecided: {_why(found)}", hint=_hint(found))


def _side(name: str, asked: BetweenOptions, descriptor: Path, workspace: Workspace) -> Side:
    from gitian.cli.reference import Reference
    from gitian.vary.between import Side

    signer = not Path(name).is_file()
    reference = Reference(like=name, environment=None, release=asked.release if signer else None,
                          destination=asked.destination if signer else None, option="--between ")
    origin, report = reference.record(descriptor, workspace)
    return Side(origin=origin, report=report)


# For a terminal ----------------------------------------------------------------------------------------------------


def lines(found: Between) -> Iterator[str]:
    """The whole of it for people."""
    yield f"A: {found.a}"
    yield f"B: {found.b}"
    yield f"The records of {counted(len(found.outputs), 'output')} differ: {listed(found.outputs, _MOST)}"
    yield from _environments(found)
    yield ""
    yield from _answer(found)
    yield ""
    bound = f", at most {found.bound} for one cause" if found.units else ""
    nothing = sum(step.reason is not None for step in found.steps)
    yield (f"{counted(found.builds, 'build')} of {', '.join(found.targets)}{bound}"
           + (f"; {counted(nothing, 'mixture')} of the packages gave none" if nothing else "") + ".")
    yield f"All that differs: gitian environment diff {found.a} {found.b}"


def _environments(found: Between) -> Iterator[str]:
    for target in found.environments:
        signs = [change.sign for change in target.changes if change.name]
        yield (f"{target.label}: {counted(signs.count('+'), 'package')} added, {signs.count('-')} removed, "
               f"{signs.count('~')} changed")
    if found.units < found.changes:
        yield f"Packages that need each other in one version change together: {counted(found.units, 'change')} in all."


def _answer(found: Between) -> Iterator[str]:
    from gitian.vary.between import Answer

    finding = found.finding
    if finding.answer is Answer.NAMED:
        assert finding.bisection is not None
        for culprit in finding.bisection.culprits:
            yield from _culprit(culprit, found)
    elif finding.answer is Answer.NOT_THE_PACKAGES:
        if finding.a is None:
            yield "It is not the packages: they are the same in both."
        else:
            yield f"It is not the packages: with those of A and with those of B the outputs are the same here, " \
                  f"{finding.a.value}."
    else:
        yield f"Undecided: {_why(found)}"
    if finding.bisection is not None:
        for names in finding.bisection.suspects:
            yield f"Suspected ({len(names)}): {listed([str(change) for change in names], _MOST)}"
        for names in finding.bisection.unchecked:
            yield "No environment with this alone could be built, so it may matter too: " \
                  f"{listed([*map(str, names)], _MOST)}"


def _culprit(culprit: Culprit, found: Between) -> Iterator[str]:
    together = len(culprit.units) > 1
    yield "Only together these packages flip the output:" if together else \
        "These packages, which change together, flip the output:" if len(culprit.changes) > 1 else \
        "This package flips the output:"
    for change in culprit.changes:
        yield f"  {change}{_where(change, found)}"
    alone = f"with the packages of A and {'these' if len(culprit.changes) > 1 else 'this one'} of B, the outputs are " \
            f"{culprit.alone.value}"
    if culprit.without is not None:
        alone += f"; with all packages of B but {'these' if len(culprit.changes) > 1 else 'this one'}, " \
                 f"{_outcome(culprit.without.value)}"
    yield f"  seen: {alone}"
    if not culprit.certain:
        yield "  (fewer of them may do it as well: that could not be built)"


def _outcome(value: str) -> str:
    return "there is no build" if value == "no build" else value


def _where(change: Change, found: Between) -> str:
    """In which guests, where there are several."""
    return f" ({', '.join(found.where[change.name])})" if len(found.environments) > 1 else ""


def _why(found: Between) -> str:
    from gitian.vary.between import Answer

    finding = found.finding
    if finding.unfinished is not None:
        return f"the search is not finished. {finding.unfinished}"
    if finding.answer is Answer.NOT_ALONE:
        if finding.bisection is not None:
            return "A's environment does not always give A's outputs here, so packages alone do not explain it."
        said = [f"A's packages give outputs that are {finding.a.value}" if finding.a else "",
                f"B's packages ones that are {finding.b.value}" if finding.b else ""]
        return f"{', '.join(one for one in said if one)}. Packages alone do not explain what was recorded."
    if finding.answer is Answer.NAMED:
        return "some environments could not be built, so fewer packages may do it."
    return "too few of the environments between the two can be built."


def _hint(found: Between) -> str | None:
    from gitian.vary.between import Answer

    if found.finding.unfinished is not None:
        return "Give it a larger --budget: images of A and B are there already."
    if found.finding.answer is Answer.NOT_ALONE:
        return "Find what else the outputs hang on: 'gitian vary DESCRIPTOR'."
    return None


# As a document -----------------------------------------------------------------------------------------------------


def document(found: Between) -> dict[str, Any]:
    """The JSON document; docs/reference/vary.md describes it."""
    finding = found.finding
    bisection = finding.bisection
    return {
        "name": found.name, "a": found.a, "b": found.b, "targets": list(found.targets),
        "outputs": list(found.outputs), "answer": finding.answer.value, "certain": finding.certain,
        "unfinished": finding.unfinished,
        "with_a": finding.a.value if finding.a else None, "with_b": finding.b.value if finding.b else None,
        "culprits": [{
            "changes": [_change(change, found) for change in culprit.changes],
            "together": len(culprit.units) > 1, "alone": culprit.alone.value,
            "without": culprit.without.value if culprit.without else None, "certain": culprit.certain,
        } for culprit in (bisection.culprits if bisection else ())],
        "suspects": [[_change(one, found) for one in some] for some in (bisection.suspects if bisection else ())],
        "unchecked": [[_change(one, found) for one in some] for some in (bisection.unchecked if bisection else ())],
        "changed_packages": found.changes, "changes": found.units, "builds": found.builds,
        "builds_at_most_for_one": found.bound,
        "steps": [{"changed_packages": len(step.chosen), "outcome": step.outcome.value, "built": step.built,
                   "reason": step.reason, "seconds": round(step.seconds, 1)} for step in found.steps],
    }


def _change(change: Change, found: Between) -> dict[str, Any]:
    return {"name": change.name, "old": change.before, "new": change.after,
            "environments": list(found.where[change.name])}
