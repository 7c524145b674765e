"""From what a signature file holds and GnuPG answers to one state: good, by whom, when, and whether the key was valid
then.

A signature is judged at its own time. Expiry is a date: what was signed before it stays signed. A revocation is a
statement with a reason: 'superseded' and 'retired' say nothing against what was signed before; 'compromised', or no
reason at all, means that somebody else may have made the signature and put any date on it (RFC 9580, 5.2.3.31).
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from gitian.sigs import packets
from gitian.sigs.gpg import Answer, Judge, KeyRecord, Question
from gitian.sigs.keys import Keyring
from gitian.sigs.verdict import Outcome, SignatureState, worst

#: Reasons after which earlier signatures stay good.
_HARMLESS = frozenset({1, 3})
#: ``until`` of a state that is not to be remembered: it may be otherwise the next time.
_NEVER_AGAIN = 1
_SHA1 = 2
_DAY = 86400


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One signature file and the assertion beside it. ``name`` tells them apart."""

    name: int
    proof: bytes
    content: bytes


class Court:
    """Judges many signature files with one private GnuPG home, opened when it is first needed. A context manager.

    ``words``: also ask for GnuPG's own text, which takes a process for each signature. ``now`` in seconds since 1970.
    """

    def __init__(self, keyring: Keyring, *, words: bool = False, now: int | None = None) -> None:
        self._keyring = keyring
        self._words = words
        self._now = int(time.time()) if now is None else now
        self._stack = contextlib.ExitStack()
        self._gpg: Judge | None = None
        self._learnt: set[str] = set()

    def __enter__(self) -> Court:
        return self

    def __exit__(self, *why: object) -> None:
        self._stack.close()

    def judge(self, cases: Sequence[Case]) -> dict[int, SignatureState]:
        """The state of each case. GnuPG is only started when a key is at hand for one of them.

        Raises MissingToolError.
        """
        found: dict[int, list[SignatureState | None]] = {}
        asked: list[tuple[Question, int, int]] = []
        issuers: set[str] = set()
        for case in cases:
            found[case.name] = []
            try:
                proofs = packets.detached(case.proof)
            except packets.PacketError as error:
                found[case.name].append(_bad(f"the signature file {error}"))
                continue
            for at, proof in enumerate(proofs):
                known = [issuer for issuer in proof.issuers if issuer in self._keyring]
                if not proof.issuers:
                    found[case.name].append(_bad("the signature does not say which key made it"))
                elif not known and not self._words:
                    found[case.name].append(_no_key(proof.issuers[0], proof.created))
                else:
                    issuers.update(known)
                    asked.append((Question(name=len(asked), proof=proof, content=case.content), case.name, at))
                    found[case.name].append(None)
        if asked:
            self._answer(asked, issuers, found)
        return {name: summary([each for each in states if each is not None]) for name, states in found.items()}

    def _answer(self, asked: Sequence[tuple[Question, int, int]], issuers: set[str],
                found: dict[int, list[SignatureState | None]]) -> None:
        if self._gpg is None:
            self._gpg = self._stack.enter_context(Judge())
        if issuers - self._learnt:
            self._gpg.learn(*self._keyring.needed(issuers - self._learnt))
            self._learnt |= issuers
        questions = [question for question, _, _ in asked]
        answers = self._gpg.ask_in_words(questions) if self._words else \
            {name: (answer, "") for name, answer in self._gpg.ask(questions).items()}
        records = self._gpg.records()
        for question, name, at in asked:
            answer, text = answers[question.name]
            at_hand = any(issuer in self._keyring for issuer in question.proof.issuers)
            found[name][at] = state(answer, question.proof, records, self._now, text, at_hand=at_hand)


def summary(states: Sequence[SignatureState]) -> SignatureState:
    """One state of all signatures of a file: the worst one counts, as GnuPG itself has it."""
    chosen = worst(states)
    if len(states) == 1:
        return chosen
    keys = tuple(dict.fromkeys(key for each in states if each.outcome is Outcome.OK for key in each.keys))
    remark = f"the file holds {len(states)} signatures; this is what the worst of them came to" \
        if any(each.outcome is not chosen.outcome for each in states) else \
        f"the file holds {len(states)} signatures, by " + " and ".join(
            dict.fromkeys(each.fingerprint for each in states))
    return SignatureState(outcome=chosen.outcome, detail=chosen.detail, fingerprint=chosen.fingerprint,
                          user_id=chosen.user_id, made=chosen.made, keys=keys, remarks=(*chosen.remarks, remark),
                          until=min((each.until for each in states if each.until), default=0),
                          text="".join(each.text for each in states))


def state(answer: Answer, proof: packets.Signature, records: Mapping[str, KeyRecord], now: int,
          text: str = "", *, at_hand: bool = False) -> SignatureState:
    """What one answer of GnuPG means, given what it knows of the key; ``at_hand``: a key file holds the key."""
    claim = proof.issuers[0] if proof.issuers else answer.fingerprint
    if answer.verdict == "no key":
        return _no_key(claim, proof.created, text, refused=at_hand)
    record = records.get(answer.fingerprint) or _record_of(claim, records)
    primary = records.get(answer.primary or (record.primary if record else "")) or record
    fingerprint = primary.fingerprint if primary else claim
    user = primary.user_id if primary else ""
    made = answer.created or proof.created
    if answer.verdict != "good" or record is None or primary is None:
        detail = answer.reason or "GnuPG does not know the key"
        if answer.verdict == "expired":
            detail = f"the signature itself expired on {date(answer.expires)}" if answer.expires else detail
        # GnuPG may have been ended, or short of room: that says nothing about the signature.
        return SignatureState(outcome=Outcome.BAD_SIGNATURE, detail=detail, fingerprint=fingerprint, user_id=user,
                              made=made, text=text, until=0 if answer.verdict in ("bad", "expired") else _NEVER_AGAIN)
    outcome, detail, remarks = _validity(answer, record, primary, now)
    if proof.digest == _SHA1:
        remarks += ("it signs a SHA-1 digest, which people who can choose what is signed are able to forge",)
    turning = (primary.expires, record.expires, answer.expires, made - _DAY)
    return SignatureState(outcome=outcome, detail=detail, fingerprint=fingerprint, user_id=user, made=made,
                          keys=(primary.fingerprint,), remarks=remarks, text=text,
                          until=min((moment for moment in turning if moment > now), default=0))


def _validity(answer: Answer, record: KeyRecord, primary: KeyRecord,
              now: int) -> tuple[Outcome, str, tuple[str, ...]]:
    """Whether the key was valid when it signed; what is to be said about it."""
    made = answer.created
    remarks: list[str] = []
    own = (primary,) if record.fingerprint == primary.fingerprint else (primary, record)
    if answer.revoked or any(key.revoked for key in own):
        revocations = [(key, found) for key in own for found in key.revocations]
        if not revocations:
            # GnuPG says so and we could not find out why (a revocation by another key, say).
            return Outcome.REVOKED_KEY, "the key was revoked", ()
        for key, found in revocations:
            what = "the key" if key is primary else "the subkey"
            reason = packets.REASONS.get(found.reason, "unknown reason")
            told = f"{what} was revoked on {date(found.created)} ({reason})"
            if found.reason not in _HARMLESS:
                return Outcome.REVOKED_KEY, f"{told}: anybody may have made the signature", ()
            if made >= found.created:
                return Outcome.REVOKED_KEY, f"{told}, before the signature of {date(made)}", ()
            remarks.append(f"{told}, after the signature of {date(made)}")
    for key in own:
        what = "the key" if key is primary else "the subkey"
        if key.expires and made >= key.expires:
            return (Outcome.EXPIRED_KEY,
                    f"{what} had expired on {date(key.expires)} when it signed on {date(made)}", tuple(remarks))
        if key.expires and now >= key.expires:
            remarks.append(f"{what} has expired since, on {date(key.expires)}")
    if made > now + _DAY:
        remarks.append(f"the signature is dated {date(made)}, which is to come")
    return Outcome.OK, "", tuple(remarks)


def _record_of(claim: str, records: Mapping[str, KeyRecord]) -> KeyRecord | None:
    return records.get(claim) or next((record for name, record in records.items() if claim and name.endswith(claim)),
                                      None)


def _bad(detail: str) -> SignatureState:
    return SignatureState(outcome=Outcome.BAD_SIGNATURE, detail=detail)


def _no_key(claim: str, made: int, text: str = "", *, refused: bool = False) -> SignatureState:
    detail = f"GnuPG does not take the public key {claim} that is at hand: it is damaged, or dated in the future (is " \
             "this machine's clock right?)" if refused else f"the public key {claim} is not at hand"
    return SignatureState(outcome=Outcome.NO_KEY, detail=detail, fingerprint=claim, made=made, text=text,
                          until=_NEVER_AGAIN if refused else 0)


def date(seconds: int) -> str:
    """The day in UTC, as people write it in these files."""
    try:
        return time.strftime("%Y-%m-%d", time.gmtime(seconds))
    except (ValueError, OverflowError, OSError):
        return str(seconds)

