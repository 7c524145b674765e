"""GnuPG as a judge: keys into a private home, many signatures checked by few processes; and GnuPG as a pen.

Answers are taken from GnuPG's status lines (GnuPG's doc/DETAILS), never from its words, which are for people. The
status lines come through a pipe of their own, so that nothing a file says can pass for one.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from gitian.errors import ProgramError, SigningError
from gitian.host import process
from gitian.sigs import home as homes
from gitian.sigs import packets

#: So many signatures are handed to one GnuPG process at most; a process that dies costs no more than these.
BATCH = 64
#: A GnuPG process may take so long (seconds).
PATIENCE = 120.0

_COMMON = ("--no-tty", "--no-options", "--no-auto-check-trustdb", "--no-permission-warning", "--no-autostart",
           "--no-auto-key-locate", "--no-auto-key-retrieve", "--disable-dirmngr")


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """Is this detached signature one of this content? ``name`` only tells the answers apart."""

    name: int
    proof: packets.Signature
    content: bytes = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What GnuPG says of one signature.

    ``verdict``: 'good', 'bad', 'no key', 'expired' (the signature itself) or 'error' with ``reason`` in words.
    ``fingerprint`` is the key that signed, ``primary`` its primary key; ``created`` when (seconds since 1970).
    ``revoked``: GnuPG found a valid revocation of the key, as of now.
    """

    verdict: str
    reason: str = ""
    fingerprint: str = ""
    primary: str = ""
    created: int = 0
    expires: int = 0
    revoked: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Revocation:
    """A revocation that GnuPG found to be valid: when (seconds since 1970), and the reason's code."""

    created: int
    reason: int


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyRecord:
    """A primary key or subkey as GnuPG knows it after checking the key's own signatures. ``expires`` 0: never."""

    fingerprint: str
    primary: str
    user_id: str
    created: int
    expires: int
    revoked: bool
    revocations: tuple[Revocation, ...] = ()


#: Error codes of the ERRSIG status line that have better words than a number (libgpg-error's err-codes).
_ERRORS = {4: "GnuPG does not know the algorithm of the signature", 5: "it uses a digest that is no longer accepted",
           8: "the signature is damaged", 9: "no public key", 53: "the signature was made by a key that may not sign",
           58: "the signature is dated before its key", 76: "the signature is damaged"}


class Judge:
    """A private GnuPG home with keys in it, and the questions it answers. Use as a context manager."""

    def __init__(self, *, workers: int | None = None) -> None:
        self._stack = contextlib.ExitStack()
        self._workers = workers or max(1, len(os.sched_getaffinity(0)))
        self._home = Path()
        self._records: dict[str, KeyRecord] | None = None

    def __enter__(self) -> Judge:
        self._home = self._stack.enter_context(homes.private_home())
        return self

    def __exit__(self, *why: object) -> None:
        self._stack.close()

    def learn(self, keys: Sequence[bytes], revocations: Sequence[bytes] = ()) -> None:
        """Import keys, then revocation certificates. What GnuPG does not take is left out without a word.

        Give those that matter first: what takes GnuPG longer than PATIENCE is left out too.
        """
        for number, data in enumerate((b"".join(keys), b"".join(revocations))):
            if data:
                path = self._home / f"import-{number}"
                path.write_bytes(data)
                # Some of it may be damaged or of a kind this GnuPG does not know: the rest still counts.
                with contextlib.suppress(ProgramError):
                    process.run([*self._gpg(), "--import-options", "no-import-clean", "--import", path], check=False,
                                timeout=PATIENCE)
                path.unlink()

        self._records = None

    def ask(self, questions: Sequence[Question]) -> dict[int, Answer]:
        """Answer all questions, by several processes at a time. Raises MissingToolError when there is no gpg."""
        from concurrent.futures import ThreadPoolExecutor

        answers: dict[int, Answer] = {}
        batched = [question for question in questions if _batchable(question)]
        alone = [question for question in questions if not _batchable(question)]
        size = min(BATCH, -(-len(batched) // self._workers) or 1)
        chunks = [batched[at:at + size] for at in range(0, len(batched), size)]
        if len(chunks) == 1:
            answers.update(self._ask_batch(chunks[0]))
        else:
            with ThreadPoolExecutor(max_workers=self._workers) as pool:
                for found in pool.map(self._ask_batch, chunks):
                    answers.update(found)
        answers.update({name: answer for name, (answer, _) in self.ask_in_words(alone).items()} if alone else {})
        return answers

    def ask_in_words(self, questions: Sequence[Question]) -> dict[int, tuple[Answer, str]]:
        """Answer each question by a process of its own, with what GnuPG says to people about it."""
        from concurrent.futures import ThreadPoolExecutor

        with ThreadPoolExecutor(max_workers=self._workers) as pool:
            return dict(zip((question.name for question in questions), pool.map(self._ask_alone, questions),
                            strict=True))

    def _ask_alone(self, question: Question) -> tuple[Answer, str]:
        with self._directory() as where:
            (where / "document.sig").write_bytes(question.proof.raw)
            (where / "document").write_bytes(question.content)
            done = self._verify(["--batch", "--verify", where / "document.sig", where / "document"])
        return _answer(_statuses(done.stdout)), done.stderr.decode(errors="replace")

    def records(self) -> Mapping[str, KeyRecord]:
        """All keys and subkeys that were learnt, by fingerprint."""
        if self._records is None:
            listed = process.run([*self._gpg(), "--with-colons", "--fixed-list-mode", "--with-fingerprint",
                                  "--with-fingerprint", "--list-keys"], check=False, timeout=PATIENCE).stdout
            self._records = _records(listed)
            revoked = sorted({record.primary for record in self._records.values() if record.revoked})
            if revoked:
                exported = process.run([*self._gpg(), "--export", *revoked], check=False, timeout=PATIENCE).stdout
                self._records = _with_revocations(self._records, exported)
        return self._records

    def export(self) -> bytes:
        """All keys that were learnt."""
        return process.run([*self._gpg(), "--export"], check=False, timeout=PATIENCE).stdout

    # The rest is how it is done.

    def _gpg(self) -> list[process.Argument]:
        return ["gpg", "--homedir", self._home, *_COMMON, "--quiet"]

    @contextlib.contextmanager
    def _directory(self) -> Iterator[Path]:
        where = Path(tempfile.mkdtemp(dir=self._home))
        try:
            yield where
        finally:
            shutil.rmtree(where, ignore_errors=True)

    def _verify(self, words: Sequence[process.Argument]) -> process.Completed:
        try:
            return process.run(["gpg", "--homedir", self._home, *_COMMON, "--lock-never", "--status-fd", "1", *words],
                               check=False, timeout=PATIENCE)
        except ProgramError as error:  # it hangs, or talks without end: that is no answer
            return process.Completed(argv=(), status=1, stderr=str(error).encode())

    def _ask_batch(self, questions: Sequence[Question]) -> dict[int, Answer]:
        """One process for many signatures, each given as the signed message it amounts to.

        GnuPG may end at a damaged one. What it had finished counts; it is started again for those after it.
        """
        answers: dict[int, Answer] = {}
        with self._directory() as where:
            for question in questions:
                (where / str(question.name)).write_bytes(packets.as_message(question.proof, question.content))
            waiting = [question.name for question in questions]
            while waiting:
                done = self._verify(["--trust-model", "always", "--multifile", "--verify",
                                     *[where / str(name) for name in waiting]])
                before = len(answers)
                for path, statuses, finished in _by_file(_statuses(done.stdout)):
                    answer = _answer(statuses)
                    if finished or answer.verdict != "error":
                        with contextlib.suppress(ValueError):
                            answers.setdefault(int(Path(path).name), answer)
                if len(answers) == before:
                    # It ended without a word about the first one.
                    answers[waiting[0]] = Answer(verdict="error", reason="GnuPG gave up on the signature")
                waiting = [name for name in waiting if name not in answers]
        return answers


def _batchable(question: Question) -> bool:
    try:
        packets.as_message(question.proof, b"")
    except packets.PacketError:
        return False
    return True


def _statuses(output: bytes) -> list[list[str]]:
    lines = []
    for line in output.split(b"\n"):
        if line.startswith(b"[GNUPG:] "):
            lines.append(line[9:].decode(errors="replace").split(" "))
    return lines


def _by_file(statuses: list[list[str]]) -> Iterator[tuple[str, list[list[str]], bool]]:
    path: str | None = None
    held: list[list[str]] = []
    for words in statuses:
        if words[0] == "FILE_START":
            if path is not None:
                yield path, held, False
            path, held = " ".join(words[2:]), []
        elif words[0] == "FILE_DONE":
            if path is not None:
                yield path, held, True
            path = None
        else:
            held.append(words)
    if path is not None:
        yield path, held, False


def _answer(statuses: list[list[str]]) -> Answer:
    """The one answer that the status lines of one signature add up to; anything unexpected is not 'good'."""
    verdict, reason = "error", "GnuPG could not make anything of the signature"
    fingerprint = primary = ""
    created = expires = 0
    revoked = False
    seen = 0
    for words in statuses:
        keyword = words[0]
        if keyword in ("GOODSIG", "EXPKEYSIG", "REVKEYSIG"):
            seen += 1
            verdict, reason, revoked = "good", "", keyword == "REVKEYSIG"
        elif keyword == "EXPSIG":
            seen += 1
            verdict, reason = "expired", "the signature itself has expired"
        elif keyword == "BADSIG":
            seen += 1
            verdict, reason, fingerprint = "bad", "the signature does not belong to this file", words[1]
        elif keyword == "ERRSIG":
            seen += 1
            code = int(words[6]) if len(words) > 6 and words[6].isdigit() else 0
            verdict = "no key" if code == 9 else "error"
            reason = _ERRORS.get(code, f"GnuPG cannot check the signature (error {code})")
            fingerprint = words[8] if len(words) > 8 and re.fullmatch("[0-9A-F]{40,64}", words[8]) else words[1]
            created = int(words[5]) if len(words) > 5 and words[5].isdigit() else 0
        elif keyword == "VALIDSIG" and len(words) >= 10:
            fingerprint, primary = words[1], words[-1]
            created = int(words[3]) if words[3].isdigit() else 0
            expires = int(words[4]) if words[4].isdigit() else 0
    if seen > 1 or (verdict == "good" and not primary):
        return Answer(verdict="error", reason="GnuPG gave a confused answer")
    return Answer(verdict=verdict, reason=reason, fingerprint=fingerprint, primary=primary, created=created,
                  expires=expires, revoked=revoked)


def _records(listing: bytes) -> dict[str, KeyRecord]:
    """Keys of a colon listing (GnuPG's doc/DETAILS): pub, sub, fpr and uid lines."""
    found: dict[str, KeyRecord] = {}
    primary = ""
    users: dict[str, str] = {}
    revoked_users: dict[str, str] = {}
    line_of: list[str] = []
    for raw in listing.decode(errors="replace").splitlines():
        fields = raw.split(":")
        if fields[0] in ("pub", "sub"):
            line_of = fields
            if fields[0] == "pub":
                primary = ""
        elif fields[0] == "fpr" and line_of:
            fingerprint = fields[9]
            primary = primary or fingerprint
            found[fingerprint] = KeyRecord(
                fingerprint=fingerprint, primary=primary, user_id="", created=_seconds(line_of[5]),
                expires=_seconds(line_of[6]), revoked=line_of[1] == "r")
            line_of = []
        elif fields[0] == "uid" and primary:
            # The first that is not revoked is the one GnuPG shows first; a revoked one is better than none.
            (revoked_users if fields[1] == "r" else users).setdefault(primary, unescaped(fields[9]))
    names = revoked_users | users
    return {name: replace(record, user_id=names.get(record.primary, "")) for name, record in found.items()}


def _seconds(text: str) -> int:
    return int(text) if text.isdigit() else 0


def unescaped(text: str) -> str:
    """A field of a colon listing: ``\\xNN`` stands for a byte."""
    return re.sub(rb"\\x([0-9a-fA-F]{2})", lambda match: bytes((int(match[1], 16),)),
                  text.encode()).decode(errors="replace")


def _with_revocations(records: dict[str, KeyRecord], exported: bytes) -> dict[str, KeyRecord]:
    """Time and reason of revocations, from keys that GnuPG has taken in: it drops revocations that are not valid."""
    found: dict[str, list[Revocation]] = {}
    current = primary = ""
    with contextlib.suppress(packets.PacketError):
        for packet in packets.packets(exported):
            if packet.tag == packets.PUBLIC_KEY:
                current = primary = packets.identifier(packet.body)[0]
            elif packet.tag == packets.PUBLIC_SUBKEY:
                current = packets.identifier(packet.body)[0]
            elif packet.tag == packets.SIGNATURE:
                with contextlib.suppress(packets.PacketError):
                    parsed = packets.signature(packet)
                    if parsed.kind in (packets.KEY_REVOCATION, packets.SUBKEY_REVOCATION):
                        where = primary if parsed.kind == packets.KEY_REVOCATION else current
                        found.setdefault(where, []).append(
                            Revocation(created=parsed.created, reason=parsed.reason or 0))
    return {name: replace(record, revocations=tuple(found.get(name, ()))) for name, record in records.items()}


def sign_detached(content: bytes, signer: str, *, digest: str | None = None) -> bytes:
    """A binary detached signature of ``content`` by the key that GnuPG finds for ``signer`` in the user's home.

    ``digest`` names a hash that has to be used. Raises SigningError with GnuPG's own words, MissingToolError when there
    is no gpg.
    """
    import gnupg

    from gitian.host import tools

    gpg = gnupg.GPG(gpgbinary=tools.find("gpg"))
    gpg.encoding = "utf-8"
    # Not keyid=: that becomes --default-key, and GnuPG signs with another key when it cannot find that one.
    made = gpg.sign(content, detach=True, clearsign=False, binary=True, extra_args=[
        "--local-user", signer, *(["--digest-algo", digest] if digest is not None else [])])
    if not made.data or made.returncode not in (0, None):
        said = [line.removeprefix("gpg: ") for line in str(made.stderr).splitlines()
                if line and not line.startswith("[GNUPG:]")]
        raise SigningError(f"GnuPG did not sign as '{signer}': {'; '.join(said) or 'it said nothing'}.",
                           hint="'gpg --list-secret-keys' shows who you can sign as; choose one with --signer.")
    return bytes(made.data)
