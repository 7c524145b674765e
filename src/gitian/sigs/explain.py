"""Why do they differ? For each signer who built something else: which files, and what went into the build differently.

What a verdict found is compared with what the assertions record: inputs, environment, caches. Only signers whose
signature counts are witnesses, as long as there are any: nobody without a key can point at a package. An input that an
earlier stage made is traced to that stage, where the same question is asked again.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from gitian.sigs import factors, stages
from gitian.sigs.environments import Kind, Record, Recorder
from gitian.sigs.factors import Suspect, Tallies
from gitian.sigs.stages import Made, Place
from gitian.sigs.verdict import Difference, SignerOutcome, Verdict, differences

#: So many suspects, and differing outputs, of one signer are kept; how many more there were is counted.
KEPT = 1000
_STAGE_SUSPECTS = 5


class Cause(enum.StrEnum):
    """Where the reason lies, in one or two words."""

    INPUTS = "inputs"
    ENVIRONMENT = "environment"
    CACHES = "caches"
    NOT_DETERMINISTIC = "not deterministic"
    UNRECORDED = "not recorded"
    SAME_FILES = "same files"


_CAUSES = {Kind.COMMIT: Cause.INPUTS, Kind.INPUT: Cause.INPUTS, Kind.TARGET: Cause.ENVIRONMENT,
           Kind.PACKAGE: Cause.ENVIRONMENT, Kind.CACHE: Cause.CACHES}


@dataclass(frozen=True, slots=True, kw_only=True)
class Diagnosis:
    """Why one build differs from others.

    ``certain``: the first suspect is the only kind of thing that sets all who built so apart from all who agree; or,
    for a build that is not deterministic, somebody who agrees (``twins``) had the very same inputs, environment and
    caches. ``same_inputs`` had the same inputs, ``same_environment`` the same inputs and environment. ``harmless``
    counts further differences that somebody who agrees has too.
    """

    cause: Cause
    certain: bool
    suspects: tuple[Suspect, ...] = ()
    more: int = 0
    harmless: int = 0
    twins: tuple[str, ...] = ()
    same_inputs: tuple[str, ...] = ()
    same_environment: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """An input traced to the release and package whose output it is.

    ``own`` are the signers there who assert the file that the dissenter used, ``agreed`` those who assert the one that
    the others used. ``diagnosis`` says why these two differ, when both are there.
    """

    input: str
    release: str
    name: str
    output: str
    own: tuple[str, ...]
    agreed: tuple[str, ...]
    diagnosis: Diagnosis | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Dissent:
    """One signer who built something else than those who agree. ``counts``: the signature is valid."""

    signer: str
    outcome: str
    counts: bool
    group: int
    outputs: tuple[Difference, ...]
    more_outputs: int
    diagnosis: Diagnosis
    stages: tuple[Stage, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Agreement:
    """Who agrees, and how independent that is.

    ``keys`` counts distinct keys. ``environments`` are the signers by distinct environment manifests, the largest set
    first; ``package_sets`` counts those in which other packages were installed (the classic also lists stale ones);
    ``unrecorded`` are those who record no environment. ``counts``: their signatures are valid.
    """

    signers: tuple[str, ...]
    counts: bool
    keys: int
    environments: tuple[tuple[str, ...], ...]
    package_sets: int
    unrecorded: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Explanation:
    """Why the signers of one release differ. ``decided`` is False when no group is the reference.

    ``ranking`` is what separates all who agree from all who do not; empty when nobody dissents.
    """

    release: str
    name: str
    decided: bool
    agreement: Agreement
    dissents: tuple[Dissent, ...]
    ranking: tuple[Suspect, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class _Witness:
    outcome: SignerOutcome
    record: Record


def explain(verdict: Verdict, places: Sequence[Place] = ()) -> Explanation:
    """Explain a verdict; earlier stages are looked for in ``places``, the first of which holds the verdict's tree.

    Takes time linear in the sizes of the distinct manifests and the number of signers. Raises nothing of its own.
    """
    recorder = Recorder()
    base = _base(verdict)
    readable = [_Witness(outcome=outcome, record=recorder.record(outcome.assertion)) for outcome in verdict.signers
                if outcome.group is not None and outcome.assertion is not None]
    together = [witness for witness in readable if witness.outcome.group == base]
    # Someone to compare to may have been named whose signature does not count.
    agreeing = [witness for witness in together if witness.outcome.valid] or together
    # Files may have gone since they were judged: then there is nothing to compare with.
    others = [witness for witness in readable if witness.outcome.group != base] if together else []
    counting = [witness for witness in others if witness.outcome.valid] or others
    there, here = factors.tally(_records(agreeing)), factors.tally(_records(counting))
    peers: dict[tuple[int | None, int | None], Tallies] = {}
    dissents = []
    for witness in others:
        group = witness.outcome.group
        own = [other for other in counting if other.outcome.group == group]
        # Someone who does not count is a peer of his own words alone.
        key = (group, None if witness in own else id(witness))
        if key not in peers:
            peers[key] = factors.tally(_records(own if witness in own else [*own, witness]))
        dissents.append(_dissent(witness, agreeing, peers[key], there, here, verdict.compared_to))
    dissents = _traced(dissents, others, places, verdict.name, recorder)
    return Explanation(release=verdict.release, name=verdict.name, decided=verdict.reference is not None,
                       agreement=_agreement(agreeing), dissents=tuple(dissents),
                       ranking=factors.ranking(there, here)[:KEPT])


def document(explanation: Explanation) -> dict[str, Any]:
    """An explanation as JSON has it; docs/how-to/explain-a-mismatch.md describes it."""
    return asdict(explanation)


def _base(verdict: Verdict) -> int | None:
    """The group that others are compared with: the reference, else the one with most signers."""
    if verdict.reference is not None:
        return verdict.reference
    counting = [group for group in verdict.groups if group.keys] or list(verdict.groups)
    if not counting:
        return None
    return max(counting, key=lambda group: (group.weight, len(group.keys), len(group.signers), -group.number)).number


def _records(witnesses: Sequence[_Witness]) -> list[Record]:
    return [witness.record for witness in witnesses]


def _dissent(witness: _Witness, agreeing: Sequence[_Witness], peers: Tallies, there: Tallies, here: Tallies,
             compared_to: str | None) -> Dissent:
    outcome = witness.outcome
    reference = next((other for other in agreeing if other.outcome.signer == compared_to), agreeing[0])
    assert reference.outcome.assertion is not None and outcome.assertion is not None and outcome.group is not None
    outputs = differences(reference.outcome.assertion.out_manifest, outcome.assertion.out_manifest)
    found = _diagnose(witness.record, peers, [(other.outcome.signer, other.record) for other in agreeing], there, here)
    if not outputs:
        found = replace(found, cause=Cause.SAME_FILES, certain=True)
    return Dissent(signer=outcome.signer, outcome=outcome.outcome.value, counts=outcome.valid, group=outcome.group,
                   outputs=outputs[:KEPT], more_outputs=max(0, len(outputs) - KEPT), diagnosis=found)


def _diagnose(own: Record, peers: Tallies, agreeing: Sequence[tuple[str, Record]], there: Tallies,
              here: Tallies) -> Diagnosis:
    suspects, harmless = factors.suspects(own, peers, there, here)
    same_inputs = [(signer, record) for signer, record in agreeing if record.inputs == own.inputs]
    same_environment = [(signer, record) for signer, record in same_inputs
                        if own.environment is not None and record.environment == own.environment]
    twins = [signer for signer, record in same_environment if record.caches == own.caches]
    recorded = own.environment is not None and any(record.environment is not None for _, record in agreeing)
    first = suspects[0] if suspects else None
    if first is not None and (first.exact or _CAUSES[first.kind] is Cause.INPUTS):
        cause, certain = _CAUSES[first.kind], first.exact and all(
            _CAUSES[other.kind] is _CAUSES[first.kind] for other in suspects if other.exact)
    elif not recorded:
        cause, certain = Cause.UNRECORDED, False
    else:
        cause, certain = Cause.NOT_DETERMINISTIC, bool(twins)
    return Diagnosis(cause=cause, certain=certain, suspects=suspects[:KEPT], more=max(0, len(suspects) - KEPT),
                     harmless=harmless, twins=tuple(twins), same_inputs=tuple(signer for signer, _ in same_inputs),
                     same_environment=tuple(signer for signer, _ in same_environment))


def _agreement(agreeing: Sequence[_Witness]) -> Agreement:
    by_base: dict[str, list[str]] = {}
    for witness in agreeing:
        if witness.record.base is not None:
            by_base.setdefault(witness.record.base, []).append(witness.outcome.signer)
    counts = bool(agreeing) and agreeing[0].outcome.valid
    return Agreement(
        signers=tuple(witness.outcome.signer for witness in agreeing), counts=counts,
        keys=len({key for witness in agreeing for key in witness.outcome.keys}) if counts else 0,
        environments=tuple(tuple(signers) for signers in sorted(by_base.values(), key=len, reverse=True)),
        package_sets=len({witness.record.environment for witness in agreeing} - {None}),
        unrecorded=tuple(witness.outcome.signer for witness in agreeing if witness.record.base is None))


# Earlier stages.


def _traced(dissents: Sequence[Dissent], others: Sequence[_Witness], places: Sequence[Place], name: str,
            recorder: Recorder) -> list[Dissent]:
    """Look once for everything that any dissenter's suspect inputs could come from."""
    wanted = {sha256 for dissent in dissents for suspect in _inputs(dissent) for sha256 in _hashes(suspect)}
    if not wanted or not places:
        return list(dissents)
    release = others[0].outcome.path.rsplit("/", 2)[0]
    found = stages.stages(stages.makers(places, release, name, wanted))
    return [replace(dissent, stages=tuple(stage for suspect in _inputs(dissent)
                                          if (stage := _stage(suspect, dissent.signer, found, recorder)) is not None))
            for dissent in dissents]


def _inputs(dissent: Dissent) -> list[Suspect]:
    return [suspect for suspect in dissent.diagnosis.suspects
            if suspect.kind is Kind.INPUT and not suspect.name.endswith("-desc.yml")]


def _hashes(suspect: Suspect) -> set[str]:
    return {held.digest for held in (*suspect.own, *suspect.agreed) if held.present}


def _stage(suspect: Suspect, signer: str, found: Mapping[tuple[str, str], Sequence[Made]],
           recorder: Recorder) -> Stage | None:
    """The release and package that made this input, with most of what is known of it."""
    best: Stage | None = None
    for (release, name), made in found.items():
        own = [each for each in made if any(each.sha256 == held.digest for held in suspect.own)]
        agreed = [each for each in made if any(each.sha256 == held.digest for held in suspect.agreed)]
        if not own and not agreed:
            continue
        stage = Stage(input=suspect.name, release=release, name=name, output=(own or agreed)[0].path,
                      own=_signers(own), agreed=_signers(agreed))
        if own and agreed:
            return replace(stage, diagnosis=_inside(own, agreed, signer, recorder))
        best = best or stage
    return best


def _signers(made: Sequence[Made]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(each.signer for each in made))


def _inside(own: Sequence[Made], agreed: Sequence[Made], signer: str, recorder: Recorder) -> Diagnosis:
    """Why the earlier stage itself came out differently."""
    mine = next((each for each in own if each.signer == signer), own[0])
    agreeing = [(each.signer, recorder.record(each.assertion)) for each in agreed]
    there = factors.tally(record for _, record in agreeing)
    here = factors.tally(recorder.record(each.assertion) for each in own)
    found = _diagnose(recorder.record(mine.assertion), here, agreeing, there, here)
    return replace(found, suspects=found.suspects[:_STAGE_SUSPECTS],
                   more=found.more + max(0, len(found.suspects) - _STAGE_SUSPECTS))
