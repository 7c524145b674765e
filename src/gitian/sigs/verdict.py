"""What checking a release says: one outcome per signer, groups of signers that built the same, a verdict. Pure values.

The words of the outcomes are documented in docs/reference/outcomes.md.
"""

from __future__ import annotations

import enum
import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

from gitian.formats.assertion import Assertion
from gitian.formats.manifest import Manifest


class Outcome(enum.Enum):
    """What one signer's part of a release came to. The value is the word that is printed."""

    OK = "OK"
    MISMATCH = "MISMATCH"
    BAD_SIGNATURE = "BAD SIGNATURE"
    NO_KEY = "NO KEY"
    EXPIRED_KEY = "EXPIRED KEY"
    REVOKED_KEY = "REVOKED KEY"
    WRONG_RELEASE = "WRONG RELEASE"
    WRONG_NAME = "WRONG NAME"
    BAD_ATTESTATION = "BAD ATTESTATION"
    UNREADABLE = "UNREADABLE"
    MISSING_RESULT = "MISSING RESULT"
    MISSING_SIGNATURE = "MISSING SIGNATURE"


#: Nothing was asserted, so nothing is wrong: these do not fail a run, as in the classic.
ABSENT = frozenset({Outcome.MISSING_RESULT, Outcome.MISSING_SIGNATURE})
#: The signature counts: it is good, by a key that was valid when it was made, and says what its place says.
VALID = frozenset({Outcome.OK, Outcome.MISMATCH})


@dataclass(frozen=True, slots=True, kw_only=True)
class SignatureState:
    """What the signature alone came to, before anybody looked at what was signed.

    ``made`` is in seconds since 1970. ``keys`` are the primary keys of all good signatures in the file; ``fingerprint``
    the first one's, or what the signature claims when it could not be checked. ``until``: when this has to be judged
    anew, because a key or the signature expires then; 0 is never, a moment that has passed each time.
    """

    outcome: Outcome
    detail: str = ""
    fingerprint: str = ""
    user_id: str = ""
    made: int = 0
    keys: tuple[str, ...] = ()
    remarks: tuple[str, ...] = ()
    until: int = 0
    text: str = field(default="", repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """What an assertion says, as far as a verdict needs it. ``build`` is the digest of its out_manifest."""

    release: str | None = None
    name: str | None = None
    build: str = ""
    error: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """A file that two builds do not have alike: its hash there and here, None where it is missing."""

    path: str
    reference: str | None
    own: str | None


class Document:
    """An assertion that is read and parsed when somebody asks: most of a verdict needs its facts alone."""

    def __init__(self, read: Callable[[], Assertion | None]) -> None:
        self._read = read
        self._known = False
        self._assertion: Assertion | None = None

    @property
    def assertion(self) -> Assertion | None:
        if not self._known:
            self._assertion = self._read()
            self._known = True
        return self._assertion


@dataclass(frozen=True, slots=True, kw_only=True)
class SignerOutcome:
    """One signer's directory in a release.

    ``signer`` is the directory's name, ``path`` the assertion's path in the tree. ``group`` is the number of the group
    of signers that built the same (0 is the largest), None when the assertion is not readable; signers without a valid
    signature have one too, so that what they built can be looked at, but they do not count. ``detail`` says in words
    what is wrong; ``remarks`` what else is worth knowing. ``differences`` are those from the reference.
    """

    signer: str
    path: str
    outcome: Outcome
    detail: str = ""
    fingerprint: str = ""
    user_id: str = ""
    made: int = 0
    keys: tuple[str, ...] = ()
    remarks: tuple[str, ...] = ()
    group: int | None = None
    differences: tuple[Difference, ...] = ()
    facts: Facts = Facts()
    text: str = field(default="", repr=False)
    document: Document | None = field(default=None, repr=False, compare=False)

    @property
    def assertion(self) -> Assertion | None:
        """What was asserted, parsed; None when there is nothing readable."""
        return self.document.assertion if self.document is not None else None

    @property
    def valid(self) -> bool:
        """Whether this signer's build counts."""
        return self.outcome in VALID


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """Signers that built the same files. ``keys`` are the distinct primary keys of those whose signature is valid."""

    number: int
    build: str
    signers: tuple[str, ...]
    keys: tuple[str, ...]
    weight: int


class Decision(enum.Enum):
    """What a verdict comes to, with the exit status that says so."""

    AGREE = 0
    DISAGREE = 1
    POLICY = 13
    NOTHING = 14


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What checking all signers of one release of one package says.

    ``reference`` is the number of the group that the others are compared with; None when there is none: no valid
    signature, or a tie. ``agreeing`` and ``weight`` count the distinct keys of the reference group.
    """

    release: str
    name: str
    signers: tuple[SignerOutcome, ...]
    groups: tuple[Group, ...]
    reference: int | None
    compared_to: str | None
    agreeing: int
    weight: int
    decision: Decision
    reasons: tuple[str, ...]

    @property
    def exit_code(self) -> int:
        """The exit status of gverify."""
        return self.decision.value

    def signer(self, name: str) -> SignerOutcome | None:
        """The outcome of the signer with this directory name."""
        return next((outcome for outcome in self.signers if outcome.signer == name), None)


def build_digest(out_manifest: str) -> str:
    """What two assertions must have alike to agree: the exact text of the output manifest, as the classic compares."""
    return hashlib.sha256(out_manifest.encode("utf-8", "surrogateescape")).hexdigest()


def differences(reference: str, own: str) -> tuple[Difference, ...]:
    """The files that two output manifests do not have alike, by path."""
    there, here = Manifest.parse(reference).by_path(), Manifest.parse(own).by_path()
    return tuple(Difference(path=path, reference=there.get(path), own=here.get(path))
                 for path in sorted(there.keys() | here.keys()) if there.get(path) != here.get(path))


def with_problems(verdict: Verdict, problems: Sequence[str]) -> Verdict:
    """The verdict when something besides the signers' files was found wrong, a sentence each: nobody may rely on it."""
    if not problems:
        return verdict
    return replace(verdict, decision=Decision.DISAGREE,
                   reasons=(*verdict.reasons, *(problem.rstrip(".") for problem in problems)))


def worst(states: Sequence[SignatureState]) -> SignatureState:
    """One state for a file of several signatures: GnuPG accepts such a file only when all of them are good."""
    order = (Outcome.BAD_SIGNATURE, Outcome.REVOKED_KEY, Outcome.EXPIRED_KEY, Outcome.NO_KEY, Outcome.OK)
    return min(states, key=lambda state: order.index(state.outcome))
