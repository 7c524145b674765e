"""What gverify makes of the attestations beside assertions: signed by the same key, and of the same build, or refused.

A signer without an attestation is judged by the assertion alone. An attestation that is there has to hold in every
byte: whoever can change one could otherwise make a signer's evidence say something else.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import PurePosixPath

from gitian.attest import ed25519, openpgp
from gitian.attest.contradictions import contradictions
from gitian.attest.ed25519 import PublicKey
from gitian.attest.signing import beside
from gitian.errors import FormatError
from gitian.formats import provenance
from gitian.formats.envelope import BUNDLE_LIMIT, Envelope, EnvelopeSignature, parse_bundle
from gitian.formats.provenance import Provenance
from gitian.sigs import tree
from gitian.sigs.judging import Case
from gitian.sigs.keys import KEY_FOLDERS
from gitian.sigs.packets import PacketError
from gitian.sigs.tree import Kind, SigsTree
from gitian.sigs.verdict import Outcome, SignatureState
from gitian.sigs.verify import Claim

_FILES_LIMIT = 2000
#: So many bytes of attestations are held while their signatures are checked.
_HELD = 64 * 2**20
_TOLD = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Attested:
    """A signer's attestation that holds: the statements, their bytes, and in which file."""

    path: str
    statements: tuple[Provenance, ...]
    payloads: tuple[bytes, ...] = field(repr=False)


@dataclass(slots=True)
class _Trial:
    """One attestation while its signatures are checked. ``keys`` are those that have signed every statement."""

    claim: Claim
    path: str
    envelopes: tuple[Envelope, ...]
    statements: list[Provenance]
    asked: list[int]
    faults: list[str]


class Inspector:
    """Judges attestations; ``attested`` has those that hold, by the assertion's path in the tree.

    ``keys``: Ed25519 keys that the user names; ``folders``: whether those that the tree carries count too. Without
    ``remember``, ``attested`` stays empty: a whole tree's attestations are more than one wants to hold.
    """

    def __init__(self, keys: Sequence[PublicKey] = (), *, folders: bool = True, remember: bool = True) -> None:
        self._keys = list(keys)
        self._remember = remember
        self._folders = folders
        self._carried: list[PublicKey] | None = None
        self.attested: dict[str, Attested] = {}

    def __call__(self, where: SigsTree, claims: Sequence[Claim],
                 judge: Callable[[Sequence[Case]], Mapping[int, SignatureState]]) -> dict[int, SignatureState]:
        """The states of those claims that have an attestation, by number, with what it adds or takes away."""
        trials: list[_Trial] = []
        changed: dict[int, SignatureState] = {}
        cases: list[Case] = []
        held = 0
        for claim in claims:
            path = beside(claim.path)
            try:
                data = where.read(path, BUNDLE_LIMIT)
            except tree.Missing:
                continue
            except tree.TreeError as error:
                changed[claim.number] = _bad(claim, f"the attestation {error}")
                continue
            trials.append(self._open(claim, path, data, where, cases))
            held += len(data)
            if held > _HELD:
                changed.update(self._judged(trials, cases, judge))
                trials, cases, held = [], [], 0
        changed.update(self._judged(trials, cases, judge))
        return changed

    def _judged(self, trials: Sequence[_Trial], cases: Sequence[Case],
                judge: Callable[[Sequence[Case]], Mapping[int, SignatureState]]) -> dict[int, SignatureState]:
        states = judge(cases) if cases else {}
        for trial in trials:
            for number in trial.asked:
                self._weigh(trial, states[number])
            if not trial.faults:
                trial.faults += _compare(trial)
        return {trial.claim.number: self._settle(trial) for trial in trials}

    def _open(self, claim: Claim, path: str, data: bytes, where: SigsTree, cases: list[Case]) -> _Trial:
        trial = _Trial(claim=claim, path=path, envelopes=(), statements=[], asked=[], faults=[])
        name = PurePosixPath(path).name
        try:
            trial.envelopes = parse_bundle(data, name)
            for number, envelope in enumerate(trial.envelopes, 1):
                if envelope.payload_type != provenance.PAYLOAD_TYPE:
                    raise FormatError(f"{name}:{number}: the payload is no in-toto statement.")
                if not envelope.signatures:
                    raise FormatError(f"{name}:{number}: nobody has signed it.")
                trial.statements.append(Provenance.parse(envelope.payload, f"{name}:{number}"))
        except FormatError as error:
            trial.faults.append(str(error).rstrip("."))
            return trial
        for envelope in trial.envelopes:
            for signature in envelope.signatures:
                if signature.keyid.startswith("SHA256:"):
                    self._check(trial, envelope, signature, where)
                    continue
                try:
                    proof = openpgp.disclosed(signature, envelope.signed_bytes)
                except PacketError as error:
                    trial.faults.append(f"a signature of the attestation {error}")
                    continue
                trial.asked.append(len(cases))
                cases.append(Case(name=len(cases), content=envelope.signed_bytes, proof=proof))
        return trial

    def _check(self, trial: _Trial, envelope: Envelope, signature: EnvelopeSignature, where: SigsTree) -> None:
        found = [key for key in (*self._keys, *self._found(where)) if key.keyid == signature.keyid]
        if not found:
            trial.faults.append(f"the attestation is signed by the Ed25519 key {signature.keyid}, which is not at hand")
        elif not any(key.may_sign_for(trial.claim.signer) for key in found):
            trial.faults.append(f"the attestation is signed by the Ed25519 key {signature.keyid}, which is somebody "
                                "else's")
        elif not ed25519.verify(found[0], signature.sig, envelope.signed_bytes):
            trial.faults.append("the attestation has a signature that does not belong to it")

    def _found(self, where: SigsTree) -> list[PublicKey]:
        """Ed25519 keys in the folders that the tree carries: 'alice.pub' is alice's."""
        if self._carried is None:
            self._carried = []
            for folder in KEY_FOLDERS if self._folders else ():
                try:
                    entries = [entry for entry in where.list(folder)
                               if entry.kind is Kind.FILE and entry.name.endswith(".pub")]
                    for entry in entries[:_FILES_LIMIT]:
                        path = tree.join(folder, entry.name)
                        self._carried += ed25519.public_keys(where.read(path, ed25519.FILE_LIMIT), path,
                                                             (_literally(entry.name.removesuffix(".pub")),))
                except tree.TreeError:
                    continue
        return self._carried

    def _weigh(self, trial: _Trial, state: SignatureState) -> None:
        """An OpenPGP signature counts when it is good and by the key that signed the assertion."""
        if state.outcome is not Outcome.OK:
            trial.faults.append(f"the attestation's signature: {state.outcome.value}"
                                + (f", {state.detail}" if state.detail else ""))
        elif trial.claim.state.keys and not set(state.keys) & set(trial.claim.state.keys):
            trial.faults.append(f"the attestation is signed by another key than the assertion: {state.fingerprint}")

    def _settle(self, trial: _Trial) -> SignatureState:
        claim = trial.claim
        if trial.faults:
            shown = list(dict.fromkeys(trial.faults))
            more = f"; and {len(shown) - _TOLD} more" if len(shown) > _TOLD else ""
            return _bad(claim, "; ".join(shown[:_TOLD]) + more)
        if self._remember:
            self.attested[claim.path] = Attested(path=trial.path, statements=tuple(trial.statements),
                                                 payloads=tuple(envelope.payload for envelope in trial.envelopes))
        builders = ", ".join(dict.fromkeys(f"{one.builder}, gitian {one.version}" for one in trial.statements))
        labels = ", ".join(statement.label for statement in trial.statements)
        return replace(claim.state, remarks=(*claim.state.remarks, f"attested: {labels} ({builders})"))


def _compare(trial: _Trial) -> list[str]:
    assertion = trial.claim.assertion()
    if assertion is None:
        return ["the assertion cannot be read again to compare the attestation with it"]
    return [f"the attestation contradicts the assertion: {words}" for words in
            contradictions(assertion, trial.statements)]


def _bad(claim: Claim, detail: str) -> SignatureState:
    return replace(claim.state, outcome=Outcome.BAD_ATTESTATION, detail=detail)


def _literally(name: str) -> str:
    """A name as a pattern that fits it alone."""
    return "".join(f"[{char}]" if char in "*?[" else char for char in name)
