"""Who agrees with whom: signers in groups by what they built, the reference among them, and what it comes to."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from gitian.errors import UsageError
from gitian.host.progress import plain
from gitian.sigs.policy import Policy
from gitian.sigs.verdict import (
    ABSENT,
    Decision,
    Document,
    Facts,
    Group,
    Outcome,
    SignatureState,
    SignerOutcome,
    Verdict,
    differences,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """A signer whose files were read and whose signature was judged; not yet compared with anybody."""

    signer: str
    path: str
    state: SignatureState
    facts: Facts
    document: Document | None


def decide(release: str, name: str, candidates: Sequence[Candidate], *, policy: Policy,
           compare_to: str | None = None) -> Verdict:
    """The verdict on signers whose signatures were judged. Raises UsageError: nothing to compare to."""
    signers = [_alone(candidate, release, name) for candidate in candidates]
    signers = _same_keys(signers)
    groups = _groups(signers, policy)
    reference = _compared(signers, groups, compare_to) if compare_to is not None else _largest(groups)
    number_of = {group.build: group.number for group in groups}
    signers = [replace(signer, group=number_of[signer.facts.build]) if signer.facts.build else signer
               for signer in signers]
    signers = _compare(signers, groups, reference, compare_to)
    chosen = next((group for group in groups if group.number == reference), None)
    agreeing, weight = (len(chosen.keys), chosen.weight) if chosen else (0, 0)
    decision, reasons = _decision(signers, groups, reference, agreeing, weight, policy)
    return Verdict(release=release, name=name, signers=tuple(signers), groups=tuple(groups), reference=reference,
                   compared_to=compare_to, agreeing=agreeing, weight=weight, decision=decision, reasons=reasons)


def _alone(candidate: Candidate, release: str, name: str) -> SignerOutcome:
    """What can be said of a signer without looking at the others. OK here means: counts."""
    state, facts = candidate.state, candidate.facts
    outcome, detail, remarks = state.outcome, state.detail, list(state.remarks)
    if facts.error and outcome not in ABSENT:
        # A web page stays one when somebody finds the key: the plainer fault goes first, the other is told beside it.
        if outcome is not Outcome.OK:
            remarks.append(f"its signature does not count either: {outcome.value}, {detail}")
        outcome, detail = Outcome.UNREADABLE, facts.error
    elif outcome is not Outcome.OK:
        pass
    elif facts.release != release:
        says = "no release" if facts.release is None else f"release '{facts.release}'"
        outcome, detail = Outcome.WRONG_RELEASE, f"the assertion names {says}, and it lies in '{release}'"
    elif facts.name != name:
        says = "no package" if facts.name is None else f"package '{facts.name}'"
        outcome, detail = Outcome.WRONG_NAME, f"the assertion names {says}, and its file says '{name}'"
    keys = state.keys or ((f"directory {candidate.signer}",) if state.outcome is Outcome.OK else ())
    return SignerOutcome(signer=candidate.signer, path=candidate.path, outcome=outcome, detail=detail,
                         fingerprint=state.fingerprint, user_id=state.user_id, made=state.made, keys=keys,
                         remarks=tuple(remarks), facts=facts, text=state.text, document=candidate.document)


def _same_keys(signers: Sequence[SignerOutcome]) -> list[SignerOutcome]:
    """Remark where a key signed in more than one directory; groups count distinct keys, so it counts once."""
    owners: dict[str, list[str]] = {}
    for signer in signers:
        if signer.valid:
            for key in signer.keys:
                owners.setdefault(key, []).append(signer.signer)
    changed = []
    for signer in signers:
        others = {other for key in signer.keys for other in owners.get(key, ()) if other != signer.signer}
        if signer.valid and others:
            told = " and ".join(f"'{other}'" for other in sorted(others))
            signer = replace(signer, remarks=(*signer.remarks, f"signed by the same key as {told}: they count once"))
        changed.append(signer)
    return changed


def _groups(signers: Sequence[SignerOutcome], policy: Policy) -> list[Group]:
    """Groups by build, the one that counts most first; among equals the one with the first signer."""
    members: dict[str, list[SignerOutcome]] = {}
    for signer in signers:
        if signer.facts.build:
            members.setdefault(signer.facts.build, []).append(signer)
    groups = []
    for build, inside in members.items():
        keys = tuple(dict.fromkeys(key for signer in inside if signer.valid for key in signer.keys))
        groups.append(Group(number=0, build=build, signers=tuple(signer.signer for signer in inside), keys=keys,
                            weight=sum(policy.weight(key) for key in keys)))
    groups.sort(key=lambda group: (-group.weight, -len(group.keys)))
    return [replace(group, number=number) for number, group in enumerate(groups)]


def _largest(groups: Sequence[Group]) -> int | None:
    """The group that counts most; None when nobody counts, or two count the same."""
    counting = [group for group in groups if group.keys]
    if not counting:
        return None
    if len(counting) > 1 and _size(counting[0]) == _size(counting[1]):
        return None
    return counting[0].number


def _size(group: Group) -> tuple[int, int]:
    return group.weight, len(group.keys)


def _compared(signers: Sequence[SignerOutcome], groups: Sequence[Group], compare_to: str) -> int:
    chosen = next((signer for signer in signers if signer.signer == compare_to), None)
    if chosen is None:
        raise UsageError(f"There is no signer '{compare_to}' to compare to.",
                         hint="Signers here: " + plain(", ".join(signer.signer for signer in signers)[:500]))
    if not chosen.facts.build:
        why = chosen.detail or chosen.facts.error or "there is no result"
        raise UsageError(f"Nothing can be compared to the result of '{compare_to}': {plain(why)}.")
    return next(group.number for group in groups if group.build == chosen.facts.build)


def _compare(signers: Sequence[SignerOutcome], groups: Sequence[Group], reference: int | None,
             compare_to: str | None) -> list[SignerOutcome]:
    """Who counts and is not in the reference group mismatches; in a tie everybody does."""
    base = reference if reference is not None else 0
    there = next((signer for signer in signers if signer.group == base and signer.document is not None
                  and (compare_to is None or signer.signer == compare_to)), None)
    changed = []
    for signer in signers:
        if signer.outcome is not Outcome.OK:
            if compare_to == signer.signer:
                signer = replace(signer, remarks=(
                    *signer.remarks, "the others were compared to this result although it does not count"))
            elif reference is not None and signer.group == reference:
                signer = replace(signer, remarks=(*signer.remarks, "the files are those of the reference"))
            elif reference is not None and signer.group is not None:
                signer = replace(signer, remarks=(*signer.remarks, "the files are not those of the reference"))
            changed.append(signer)
            continue
        if reference is None:
            tied = sum(1 for group in groups if group.keys and _size(group) == _size(groups[0]))
            signer = replace(signer, outcome=Outcome.MISMATCH,
                             detail=f"{tied} groups of the same size built different files: there is no verdict")
        elif signer.group != reference:
            signer = replace(signer, outcome=Outcome.MISMATCH)
        if signer.group != base and there is not None and there.assertion is not None and signer.assertion is not None:
            found = differences(there.assertion.out_manifest, signer.assertion.out_manifest)
            detail = signer.detail or _told(len(found))
            signer = replace(signer, differences=found, detail=detail)
        changed.append(signer)
    return changed


def _told(count: int) -> str:
    if count == 0:
        return "the same files, but written down differently (their order, or line ends)"
    return "1 file differs" if count == 1 else f"{count} files differ"


def _decision(signers: Sequence[SignerOutcome], groups: Sequence[Group], reference: int | None, agreeing: int,
              weight: int, policy: Policy) -> tuple[Decision, tuple[str, ...]]:
    """What it comes to. Something wrong outweighs everything else: the classic's scripts look for 1."""
    wrong = [signer for signer in signers if signer.outcome is not Outcome.OK and signer.outcome not in ABSENT]
    reasons = []
    if wrong:
        counts: dict[str, int] = {}
        for signer in wrong:
            counts[signer.outcome.value] = counts.get(signer.outcome.value, 0) + 1
        reasons.append(", ".join(f"{count} {word}" for word, count in counts.items()))
    if not any(group.keys for group in groups):
        reasons.append("no valid signature")
    elif reference is None:
        reasons.append("no group of signers is larger than the others")
    if agreeing < policy.require:
        reasons.append(f"{agreeing} of {policy.require} required signers agree")
    if policy.weights is not None and weight < policy.minimum_weight:
        reasons.append(f"those who agree weigh {weight} of {policy.minimum_weight} required")
    if wrong:
        return Decision.DISAGREE, tuple(reasons)
    if not any(group.keys for group in groups):
        return Decision.NOTHING, tuple(reasons)
    if reasons:
        return Decision.POLICY, tuple(reasons)
    return Decision.AGREE, ()
