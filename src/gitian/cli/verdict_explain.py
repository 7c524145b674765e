"""An explanation of a verdict, onto standard output, for people: bounded, every word from a file made plain."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from gitian.sigs.explain import Agreement, Diagnosis, Dissent, Explanation, Stage
    from gitian.sigs.factors import Held, Suspect
    from gitian.sigs.stages import Place
    from gitian.sigs.tree import SigsTree

#: So many of anything are shown before 'and M more'.
OUTPUTS = 8
SUSPECTS = 8
NAMES = 5
SIGNERS = 12
RANKING = 12
_LENGTH = 160


def places(where: SigsTree, beside: Path | None = None) -> list[Place]:
    """Where earlier stages may lie: in the tree that was verified; in a workspace, in the other packages' trees too.

    ``beside`` is the workspace's sigs directory, with a folder for each package.
    """
    from gitian.sigs.stages import Place
    from gitian.sigs.tree import DirectoryTree, Kind, TreeError

    found = [Place(tree=where)]
    if beside is not None:
        with contextlib.suppress(TreeError):
            tree = DirectoryTree(beside)
            found += [Place(tree=tree, folder=entry.name) for entry in tree.list("") if entry.kind is Kind.DIRECTORY]
    return found


def render(explanation: Explanation) -> None:
    """Print an explanation."""
    from gitian.host.progress import plain

    for line in lines(explanation):
        click.echo(plain(line))


def lines(explanation: Explanation) -> Iterator[str]:
    """The lines of an explanation; what came from files in them is not escaped yet."""
    yield ""
    yield f"Why do they differ? {_short(explanation.name)} {_short(explanation.release)}"
    yield ""
    yield from _agreement(explanation.agreement, explanation.decided)
    seen: dict[object, str] = {}
    for dissent in explanation.dissents:
        yield ""
        # Signers who built the same from the same need not be told apart.
        known = (dissent.group, dissent.diagnosis, dissent.stages)
        if known in seen:
            yield f"{_head(dissent)}: the same as '{_short(seen[known])}'."
            continue
        seen[known] = dissent.signer
        yield from _dissent(dissent)
    if not explanation.dissents:
        yield "Nobody built anything else."
    if len(explanation.dissents) > 1 and explanation.ranking:
        yield ""
        yield "What best separates all who agree from all who do not:"
        yield from _listed(explanation.ranking, RANKING, overall=True)


def _agreement(agreement: Agreement, decided: bool) -> Iterator[str]:
    count = len(agreement.signers)
    if not count:
        yield "Nobody's result can be read, so there is nothing to compare."
        return
    who = _names(agreement.signers, SIGNERS)
    if decided:
        yield f"{_signers(count)} of the reference: {who}"
    else:
        yield f"There is no reference, so the others are compared with {_signers(count)} who built the same: {who}"
    if not agreement.counts:
        yield "None of their signatures counts, so this is only what the files say."
    elif agreement.keys != count:
        yield f"They signed with {agreement.keys} distinct {'key' if agreement.keys == 1 else 'keys'}."
    distinct = len(agreement.environments)
    if distinct:
        recorded = count - len(agreement.unrecorded)
        packages = "" if agreement.package_sets == distinct else (
            f", {agreement.package_sets} by the newest version listed of each package")
        alone = " Nobody else's environment has shown the same result." if distinct == 1 and count > 1 else ""
        yield (f"How independent that is: {_signers(recorded)} built in {distinct} distinct "
               f"{'environment' if distinct == 1 else 'environments'} (base manifests){packages}.{alone}")
    if agreement.unrecorded:
        yield f"No environment is recorded by {_names(agreement.unrecorded, SIGNERS)}."


def _dissent(dissent: Dissent) -> Iterator[str]:
    yield f"{_head(dissent)}: {_conclusion(dissent.diagnosis)}"
    for line in _diagnosis(dissent.diagnosis, SUSPECTS):
        yield "  " + line
    for stage in dissent.stages:
        for line in _stage(stage):
            yield "  " + line
    traced = {stage.input for stage in dissent.stages}
    for suspect in dissent.diagnosis.suspects[:SUSPECTS]:
        if suspect.name not in traced and suspect.kind.value == "input file" and "unsigned" in suspect.name:
            yield f"  '{_short(suspect.name)}' looks like the output of an earlier stage, and no release here lists it."
    if dissent.outputs:
        count = len(dissent.outputs) + dissent.more_outputs
        yield f"  {count} output {'file differs' if count == 1 else 'files differ'}:"
        for difference in dissent.outputs[:OUTPUTS]:
            here = " (only here)" if difference.reference is None else ""
            missing = " (missing here)" if difference.own is None else ""
            yield f"    {_short(difference.path)}{here}{missing}"
        if count > OUTPUTS:
            yield f"    and {count - OUTPUTS} more"


def _head(dissent: Dissent) -> str:
    return _short(dissent.signer) + ("" if dissent.counts else f" ({dissent.outcome}: the signature does not count)")


def _conclusion(diagnosis: Diagnosis) -> str:
    cause = diagnosis.cause.value
    first = diagnosis.suspects[0] if diagnosis.suspects else None
    if cause == "same files":
        return "the same files, but written down differently (their order, or line ends)."
    if cause == "not deterministic":
        if diagnosis.twins:
            return (f"the build itself is not deterministic. {_names(diagnosis.twins, SIGNERS)} had the same inputs, "
                    "environment and caches, and built what the reference is.")
        if diagnosis.same_environment:
            return (f"the build itself is not deterministic, or a cache made the difference: "
                    f"{_names(diagnosis.same_environment, SIGNERS)} had the same inputs and environment. The caches of "
                    "those who agree differ too.")
        if diagnosis.suspects:
            return ("probably, the build itself is not deterministic: nothing recorded sets this build apart from all "
                    "who agree, since they too differ among themselves in whatever only it has.")
        return ("probably, the build itself is not deterministic: each input, package and cache entry that it had, "
                "somebody who agrees had too.")
    if cause == "not recorded":
        return "the assertions do not record enough to tell: an environment is missing."
    if first is not None and first.kind.value == "commit":
        what = f"another commit of '{_short(first.name)}'"
    elif first is not None and first.kind.value == "input file" and first.name.endswith("-desc.yml"):
        what = "another version of the descriptor"
    else:
        what = {"inputs": "other inputs", "environment": "another environment", "caches": "another cache"}[cause]
    return f"built from {what}." if cause == "inputs" else f"built in {what}." if cause == "environment" else (
        f"built with {what}.")


def _diagnosis(diagnosis: Diagnosis, limit: int) -> Iterator[str]:
    cause = diagnosis.cause.value
    if cause == "caches" and diagnosis.same_environment:
        yield (f"Inputs and environment are the same as those of {_names(diagnosis.same_environment, SIGNERS)}; "
               "what is left is a cache, or the build itself.")
    elif diagnosis.same_inputs and cause in ("environment", "not recorded"):
        yield "The inputs are the same."
    if diagnosis.suspects:
        yield {"not deterministic": "Less likely, but only this build had them:",
               "not recorded": "Only this build had, of what is recorded:",
               "same files": "It had, and those who agree had not:"}.get(cause, "The likely reasons, likeliest first:")
        yield from _listed(diagnosis.suspects, limit, more=diagnosis.more)
    if diagnosis.harmless:
        count = diagnosis.harmless
        yield (f"{'1 further difference is' if count == 1 else f'{count} further differences are'} shared by somebody "
               "who agrees, and so not the reason alone.")


def _listed(suspects: Sequence[Suspect], limit: int, *, more: int = 0, overall: bool = False) -> Iterator[str]:
    for number, suspect in enumerate(suspects[:limit], 1):
        yield f"{number:4}. {_suspect(suspect, overall=overall)}"
        if suspect.also:
            yield f"      and in the same way: {_names(suspect.also, NAMES)}"
    rest = sum(1 + len(suspect.also) for suspect in suspects[limit:]) + more
    if rest:
        yield f"      and {rest} more"


def _suspect(suspect: Suspect, *, overall: bool) -> str:
    kind, where = suspect.kind.value, suspect.where
    place = f" in the {where} cache" if kind == "cache entry" else f" ({_short(where)})" if where else ""
    name = f"{kind} '{_short(suspect.name)}'{place}"
    short = _telling([*suspect.own, *suspect.agreed])
    if kind == "target":
        how = "only here" if suspect.own[0].present else "missing here"
        if overall:
            how = f"built for by {_counted(suspect.own, short)}; of those who agree: {_counted(suspect.agreed, short)}"
    elif overall:
        how = f"{_counted(suspect.own, short)}; of those who agree: {_counted(suspect.agreed, short)}"
    elif len(suspect.agreed) == 1:
        how = f"{_value(suspect.own[0], short)} instead of {_value(suspect.agreed[0], short)}"
    else:
        how = f"{_value(suspect.own[0], short)}; of those who agree: {_counted(suspect.agreed, short)}"
    share = suspect.overall if overall else suspect.separation
    return f"{name}: {how}" + ("" if share > 0.9999 else f" (separates {share:.0%})")


def _telling(held: Sequence[Held]) -> bool:
    """Whether versions alone tell these apart; else the hashes have to be shown too."""
    present = {(each.version, each.digest) for each in held if each.present}
    return all(version for version, _ in present) and len({version for version, _ in present}) == len(present)


def _counted(held: Sequence[Held], versions: bool) -> str:
    return ", ".join(f"{each.signers} had {_value(each, versions)}" for each in held)


def _value(held: Held, versions: bool) -> str:
    if not held.present:
        return "nothing"
    if versions:
        return _short(held.version)
    digest = held.digest if len(held.digest) == 40 else held.digest[:16] + "..." if held.digest else "present"
    return f"{_short(held.version)} ({digest})" if held.version else digest


def _stage(stage: Stage) -> Iterator[str]:
    where = f"{_short(stage.name)} {_short(stage.release)}"
    yield f"'{_short(stage.input)}' comes from an earlier stage: it is '{_short(stage.output)}' of {where}."
    own, agreed = (_names(names, SIGNERS) if names else "nobody" for names in (stage.own, stage.agreed))
    yield f"  There, this one was made by {own}; the one of those who agree by {agreed}."
    if stage.diagnosis is not None:
        yield f"  There: {_conclusion(stage.diagnosis)}"
        for line in _diagnosis(stage.diagnosis, 3):
            yield "  " + line


def _signers(count: int) -> str:
    return "1 signer" if count == 1 else f"{count} signers"


def _names(names: Sequence[str], limit: int) -> str:
    shown = ", ".join(f"'{_short(name)}'" for name in names[:limit])
    return f"{shown} and {len(names) - limit} more" if len(names) > limit else shown


def _short(text: str) -> str:
    return text if len(text) <= _LENGTH else text[:_LENGTH] + "..."
