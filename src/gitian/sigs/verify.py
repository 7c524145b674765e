"""gverify's work: every signer of a release gets an outcome, those who built the same a group, the release a verdict.

Nothing stops at the first bad file. Files are read once; what was read is what is checked and parsed.
"""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Protocol

from gitian.errors import FormatError, NothingToVerifyError, UsageError
from gitian.formats.assertion import Assertion
from gitian.sigs import judging, packets, program, tree
from gitian.sigs.cache import VERSION, Cache
from gitian.sigs.grouping import Candidate, decide
from gitian.sigs.keys import Keyring
from gitian.sigs.policy import Policy
from gitian.sigs.tree import SigsTree
from gitian.sigs.verdict import Document, Facts, Outcome, SignatureState, Verdict, build_digest

#: The largest real assertion has 0.3 MB; this bounds what one file may cost (bytes).
ASSERTION_LIMIT = 8 * 2**20
#: So many bytes of assertions are held in memory while their signatures are checked.
HELD = 64 * 2**20

SUFFIX = "-build.assert"


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    """A release of a package: the directory's path in the tree, and the package's name."""

    release: str
    name: str

    @property
    def said(self) -> str:
        """What the assertions must call the release: the last part of its path."""
        return self.release.rsplit("/", 1)[-1]


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """A signer whose signature is good, to be looked at further: the assertion's path in the tree, and what it is."""

    number: int
    signer: str
    path: str
    state: SignatureState
    assertion: Callable[[], Assertion | None] = field(repr=False)


class Inspector(Protocol):
    """Looks further at signers whose signature is good: at what lies beside their assertions."""

    def __call__(self, where: SigsTree, claims: Sequence[Claim],
                 judge: Callable[[Sequence[judging.Case]], Mapping[int, SignatureState]]
                 ) -> Mapping[int, SignatureState]:
        """New states for some of the claims, by number. ``judge`` checks more OpenPGP signatures."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What to verify, with what. ``words`` asks for GnuPG's own text too; ``program`` replaces GnuPG.

    ``now`` is in seconds since 1970, the present when None. ``progress`` is called with the number of signers done.
    ``inspector`` has a say about every signer whose signature is good.
    """

    tree: SigsTree
    keyring: Keyring
    policy: Policy = field(default_factory=Policy)
    compare_to: str | None = None
    program: tuple[str, ...] | None = None
    words: bool = False
    cache: Cache = field(default_factory=lambda: Cache(None))
    now: int | None = None
    progress: Callable[[int], None] = field(default=lambda count: None)
    inspector: Inspector | None = None


def verify_release(request: Request, release: str, name: str) -> Verdict:
    """The verdict on one release of one package.

    Raises NothingToVerifyError when there is no such release, UsageError when the signer to compare to has no readable
    result, MissingToolError when there is no gpg.
    """
    return next(iter(verify_releases(request, [Pair(release=release, name=name)])))


def verify_releases(request: Request, pairs: Iterable[Pair]) -> Iterator[Verdict]:
    """Verdicts in the order of ``pairs``; the keys are imported, and GnuPG's home is made, once for all.

    Raises as :func:`verify_release`.
    """
    with judging.Court(request.keyring, words=request.words, now=request.now) as court:
        for batch in _batches(request, pairs):
            _judge(request, court, batch)
            if request.inspector is not None:
                _inspect(request, request.inspector, court, batch)
            for found in batch:
                request.progress(len(found.files))
                yield decide(found.pair.said, found.pair.name, [file.candidate() for file in found.files],
                             policy=request.policy, compare_to=request.compare_to)


def packages(where: SigsTree, release: str) -> tuple[str, ...]:
    """The packages that anybody has signed for this release. Raises tree.TreeError."""
    found = set()
    for entry in where.list(release):
        if entry.kind is tree.Kind.DIRECTORY:
            with contextlib.suppress(tree.TreeError):
                found |= {inner.name[:-len(SUFFIX)] for inner in where.list(tree.join(release, entry.name))
                          if inner.name.endswith(SUFFIX)}
    return tuple(sorted(found))


class _File:
    """One signer's files on their way to an outcome."""

    def __init__(self, signer: str, path: str) -> None:
        self.signer = signer
        self.path = path
        self.digests = ("", "")
        self.contents: tuple[bytes, bytes] | None = None
        self.state: SignatureState | None = None
        self.facts = Facts()
        self.key = ""
        self.reread: Callable[[], bytes] = bytes

    def candidate(self) -> Candidate:
        assert self.state is not None
        document = Document(self.assertion) if self.facts.build else None
        return Candidate(signer=self.signer, path=self.path, state=self.state, facts=self.facts, document=document)

    def assertion(self) -> Assertion | None:
        try:
            return Assertion.parse(self.reread(), self.path)
        except (FormatError, tree.TreeError):
            return None


@dataclass(frozen=True, slots=True, kw_only=True)
class _Release:
    pair: Pair
    files: list[_File]


def _batches(request: Request, pairs: Iterable[Pair]) -> Iterator[list[_Release]]:
    """Releases, so many at a time that what has to be checked stays in bounds."""
    batch: list[_Release] = []
    held = 0
    for pair in pairs:
        found = _read_release(request, pair)
        batch.append(found)
        held += sum(len(file.contents[0]) for file in found.files if file.contents)
        # Releases that are known already cost nothing to hold, but whoever waits wants to see them come.
        if held > HELD or len(batch) >= 256:
            yield batch
            batch, held = [], 0
    if batch:
        yield batch


def _read_release(request: Request, pair: Pair) -> _Release:
    """Find the signers; read what is not known by its stamp; ask the cache about the rest."""
    try:
        entries = request.tree.list(pair.release)
    except tree.TreeError as error:
        raise NothingToVerifyError(
            f"There is no release '{pair.release}' to verify: '{request.tree.label}/{pair.release}' {error}.",
            hint="Name the release with -r and the directory of signatures with -d.") from None
    digests = _Digests(request, pair.release)
    files = []
    for entry in entries:
        if entry.kind is tree.Kind.FILE:
            continue
        folder = tree.join(pair.release, entry.name)
        file = _File(entry.name, tree.join(folder, pair.name + SUFFIX))
        files.append(file)
        if entry.kind is tree.Kind.OTHER:
            file.state = SignatureState(outcome=Outcome.UNREADABLE,
                                        detail="it is no directory but a link that leads out of the tree, or a device")
            continue
        _read_signer(request, file, digests)
    digests.keep()
    waiting = [file for file in files if file.state is None]
    if request.cache.usable and request.program is None:
        now = request.now or int(time.time())
        known = request.cache.findings(file.key for file in waiting)
        for file in waiting:
            _recall(file, known.get(file.key), now)
    for file in files:
        if file.state is None and file.contents is None:
            _load(request, file)
    return _Release(pair=pair, files=files)


def _read_signer(request: Request, file: _File, digests: _Digests) -> None:
    """Digests of the assertion and its signature, or at once the outcome when one of them cannot be read."""
    try:
        first, content = digests.of(file.path, ASSERTION_LIMIT)
    except tree.Missing:
        file.state = SignatureState(outcome=Outcome.MISSING_RESULT)
        return
    except tree.TreeError as error:
        file.state = SignatureState(outcome=Outcome.UNREADABLE, detail=f"the assertion {error}")
        return
    try:
        second, proof = digests.of(file.path + ".sig", packets.SIGNATURE_LIMIT)
    except tree.TreeError as error:
        if isinstance(error, tree.Missing):
            file.state = SignatureState(outcome=Outcome.MISSING_SIGNATURE)
        else:
            file.state = SignatureState(outcome=Outcome.BAD_SIGNATURE, detail=f"the signature file {error}")
        file.facts = facts(content if content is not None else _again(request, file.path), file.path)
        file.reread = lambda: _again(request, file.path)
        return
    file.digests = (first, second)
    file.key = _key(request, file, first, second)
    file.reread = lambda: _checked(_again(request, file.path), first)
    if content is not None and proof is not None:
        file.contents = (content, proof)


def _again(request: Request, path: str) -> bytes:
    try:
        return request.tree.read(path, ASSERTION_LIMIT)
    except tree.TreeError:
        return b""


def _checked(content: bytes, digest: str) -> bytes:
    """The content that was judged, and no other that may lie there by now."""
    if hashlib.sha256(content).hexdigest() != digest:
        raise tree.Refused("has changed while it was read")
    return content


def _load(request: Request, file: _File) -> None:
    """Read what was only known by its stamp. What changed in between has to be judged as it is now."""
    try:
        content = request.tree.read(file.path, ASSERTION_LIMIT)
        proof = request.tree.read(file.path + ".sig", packets.SIGNATURE_LIMIT)
    except tree.TreeError as error:
        file.state = SignatureState(outcome=Outcome.UNREADABLE, detail=f"one of the files {error}")
        return
    first = hashlib.sha256(content).hexdigest()
    file.contents = (content, proof)
    file.key = _key(request, file, first, hashlib.sha256(proof).hexdigest())
    file.reread = lambda: _checked(_again(request, file.path), first)


class _Digests:
    """Digests of files, by stamp where the cache knows the file unchanged, else by reading."""

    def __init__(self, request: Request, folder: str) -> None:
        self._request = request
        self._root = request.tree.identity
        stamped = request.cache.usable and request.program is None and self._root is not None
        self._known = request.cache.stamps(self._root or "", folder) if stamped else {}
        self._new: dict[str, tuple[str, str]] = {}
        self._stamped = stamped

    def of(self, path: str, limit: int) -> tuple[str, bytes | None]:
        """The digest, and the content if it had to be read. Raises tree.TreeError."""
        stamp = self._request.tree.stamp(path) if self._stamped else None
        known = self._known.get(path)
        if stamp is not None and known is not None and known[0] == stamp:
            return known[1], None
        content = self._request.tree.read(path, limit)
        digest = hashlib.sha256(content).hexdigest()
        if stamp is not None and stamp == self._request.tree.stamp(path):
            self._new[path] = (stamp, digest)
        return digest, content

    def keep(self) -> None:
        if self._new and self._root is not None:
            self._request.cache.keep_stamps(self._root, self._new)


def _key(request: Request, file: _File, first: str, second: str) -> str:
    """Everything that a finding depends on; its words name the file."""
    parts = (str(VERSION), first, second, request.keyring.digest, _gnupg(), "words" if request.words else "",
             file.path.rsplit("/", 1)[-1])
    return hashlib.sha256("\n".join(parts).encode("utf-8", "surrogateescape")).hexdigest()



_gnupg_known: list[str] = []


def _gnupg() -> str:
    """Which GnuPG this is: another version may judge otherwise."""
    if not _gnupg_known:
        found = shutil.which("gpg") or "none"
        status = Path(found).stat() if found != "none" else None
        _gnupg_known.append(f"{found}:{status.st_size}:{status.st_mtime_ns}" if status else found)
    return _gnupg_known[0]


def _recall(file: _File, found: object, now: int) -> None:
    if not isinstance(found, dict):
        return
    try:
        state = dict(found["state"])
        state.update(outcome=Outcome(state["outcome"]), keys=tuple(state["keys"]), remarks=tuple(state["remarks"]))
        recalled = SignatureState(**state)
        known = Facts(**found["facts"])
    except (KeyError, TypeError, ValueError):
        return
    if not recalled.until or now < recalled.until:
        file.state, file.facts = recalled, known


def _judge(request: Request, court: judging.Court, batch: Sequence[_Release]) -> None:
    """Check all signatures of a batch that are not known yet, and remember what came out."""
    waiting = [file for found in batch for file in found.files if file.state is None and file.contents is not None]
    if not waiting:
        return
    contents = [file.contents or (b"", b"") for file in waiting]
    cases = [judging.Case(name=number, content=content, proof=proof)
             for number, (content, proof) in enumerate(contents)]
    states = court.judge(cases) if request.program is None else \
        _ask_program(request.program, [file.path.rsplit("/", 1)[-1] for file in waiting], cases)
    for number, (file, (content, _)) in enumerate(zip(waiting, contents, strict=True)):
        file.state = states[number]
        file.facts = facts(content, file.path)
        file.contents = None
    if request.cache.usable and request.program is None:
        request.cache.keep({file.key: {"state": {**asdict(file.state), "outcome": file.state.outcome.value},
                                       "facts": asdict(file.facts)} for file in waiting if file.state is not None})


def _inspect(request: Request, inspector: Inspector, court: judging.Court, batch: Sequence[_Release]) -> None:
    """Let the inspector look at who counts so far. What it says is not remembered: it looks at other files."""
    files = [file for found in batch for file in found.files]
    claims = [Claim(number=number, signer=file.signer, path=file.path, state=file.state, assertion=file.assertion)
              for number, file in enumerate(files)
              if file.state is not None and file.state.outcome is Outcome.OK and file.facts.build]

    def judge(cases: Sequence[judging.Case]) -> Mapping[int, SignatureState]:
        if request.program is None:
            return court.judge(cases)
        return _ask_program(request.program, ["statement"] * len(cases), cases)

    for number, state in inspector(request.tree, claims, judge).items():
        files[number].state = state


def facts(content: bytes, path: str) -> Facts:
    """What an assertion says of itself, or why it cannot be read; whatever is in it."""
    try:
        assertion = Assertion.parse(content, path.rsplit("/", 1)[-1])
    except FormatError as error:
        return Facts(error=str(error))
    except (RecursionError, MemoryError, ValueError) as error:
        return Facts(error=f"the assertion cannot be read: {type(error).__name__}.")
    return Facts(release=assertion.release, name=assertion.name, build=build_digest(assertion.out_manifest))


def _ask_program(words: tuple[str, ...], names: Sequence[str],
                 cases: Sequence[judging.Case]) -> dict[int, SignatureState]:
    """Ask the user's own program about each signature, on private copies under their own names."""
    from concurrent.futures import ThreadPoolExecutor

    where = Path(tempfile.mkdtemp(prefix="gitian-verify-"))

    def one(name: str, case: judging.Case) -> SignatureState:
        place = where / str(case.name)
        place.mkdir()
        content, proof = place / name, place / (name + ".sig")
        content.write_bytes(case.content)
        proof.write_bytes(case.proof)
        state = program.verify(words, proof, content)
        claims: tuple[str, ...] = ()
        with contextlib.suppress(packets.PacketError):
            claims = tuple(found.issuers[0] for found in packets.detached(case.proof) if found.issuers)
        # The program does not say whose key it was; what the signature claims tells signers apart.
        return SignatureState(outcome=state.outcome, detail=state.detail, text=state.text,
                              fingerprint=claims[0] if claims else "",
                              keys=claims[:1] if state.outcome is Outcome.OK else ())

    try:
        with ThreadPoolExecutor(max_workers=max(1, len(os.sched_getaffinity(0)))) as pool:
            return dict(zip(itertools.count(), pool.map(one, names, cases)))
    finally:
        shutil.rmtree(where, ignore_errors=True)


def check_compare_to(name: str) -> str:
    """A signer's name as --compare-to takes it: one directory of the release. Raises UsageError."""
    if not name or "/" in name or name in (".", "..") or "\0" in name:
        raise UsageError(f"'{name}' is no signer: --compare-to takes the name of a directory in the release.")
    return name
