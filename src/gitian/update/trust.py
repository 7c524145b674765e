"""Do enough of the people that the configuration trusts say the same of this package?

The key files that come with a package are only a convenience: a key counts when the configuration has its full
fingerprint, wherever its file came from. A key file beside the configuration is used together with the package's,
so that a revocation known here cannot be left out there.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from gitian.errors import FormatError, PackageError, UntrustedError, WrongPackageError
from gitian.formats.assertion import Assertion
from gitian.formats.manifest import Manifest
from gitian.sigs import gpg, keys, packets
from gitian.update import paths
from gitian.update.config import Configuration, Signer
from gitian.update.package import Package

LARGEST_ASSERTION = 8 * 2**20
#: All assertions of a package together; they are held in memory while their signatures are checked.
LARGEST_EVIDENCE = 64 * 2**20
LARGEST_SIGNATURE = 2**20
LARGEST_KEY = 8 * 2**20
MOST_ASSERTIONS = 500

_SIGNATURES = (".sig", ".pgp", ".asc", ".gpg")
#: The classic's key files are 'devrandom-key.pgp' for the key 'devrandom'.
_KEY_FILES = ("", "-key.pgp", "-key.asc", "-key.gpg", ".pgp", ".asc", ".gpg")


@dataclass(frozen=True, slots=True, kw_only=True)
class Witness:
    """A trusted signer with a valid signature. ``signed`` in seconds since 1970; ``remark`` is '' or worth knowing."""

    signer: Signer
    fingerprint: str
    signed: int
    remark: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Agreement:
    """What enough trusted signers say. ``sums``: path to sha256. ``remarks``: what did not count, and why."""

    name: str
    release: str
    sums: Mapping[str, str]
    optionals: tuple[str, ...]
    witnesses: tuple[Witness, ...]
    remarks: tuple[str, ...]

    @property
    def weight(self) -> int:
        """The weight of all who say so."""
        return sum(witness.signer.weight for witness in self.witnesses)

    @property
    def signed(self) -> int:
        """When the newest of their signatures was made (seconds since 1970)."""
        return max(witness.signed for witness in self.witnesses)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Statement:
    path: str
    content: bytes = field(repr=False)
    proofs: tuple[packets.Signature, ...]


def agreement(package: Package, configuration: Configuration) -> Agreement:
    """What the trusted signers of a package agree on.

    Raises UntrustedError when their weight is too little or they contradict each other, WrongPackageError when they
    speak of another program than the configuration does, PackageError for evidence beyond bounds.
    """
    remarks: list[str] = []
    statements = list(_statements(package, remarks))
    if not statements:
        raise UntrustedError(f"'{package.source}' holds no signed assertion.",
                             hint="They belong into its folder 'gitian': NAME-build.assert, NAME-build.assert.sig."
                             + _listed(remarks))
    found: dict[int, tuple[Witness, _Statement]] = {}
    about_keys: list[str] = []
    keyring = _keyring(package, configuration, about_keys)
    for statement, answer, record, primary in _judged(statements, keyring):
        signer = configuration.signer(answer.fingerprint, answer.primary)
        refusal, remark = _reason(answer, record, primary)
        if refusal:
            remarks.append(f"'{statement.path}': {refusal}")
        elif signer is None:
            remarks.append(f"'{statement.path}': signed by {answer.primary}, who is not in the configuration")
        else:
            witness = Witness(signer=signer, fingerprint=answer.primary, signed=answer.created, remark=remark)
            number = configuration.signers.index(signer)
            if number in found and _content(found[number][1]) != _content(statement):
                raise UntrustedError(f"'{signer.name}' says different things: '{found[number][1].path}' and "
                                     f"'{statement.path}'.")
            if number not in found or found[number][0].signed < witness.signed:
                found[number] = (witness, statement)
    if not found:
        raise UntrustedError(f"Nothing in '{package.source}' is validly signed by anybody in the configuration."
                             + _listed(remarks + about_keys))
    return _agreed([found[number] for number in sorted(found)], configuration, remarks, about_keys)


def _agreed(found: list[tuple[Witness, _Statement]], configuration: Configuration, remarks: list[str],
            about_keys: list[str]) -> Agreement:
    said: dict[tuple[object, ...], list[Witness]] = {}
    for witness, statement in found:
        said.setdefault(_content(statement), []).append(witness)
    if len(said) > 1:
        lines = [f"{', '.join(witness.signer.name for witness in witnesses)}: '{key[0]}', release '{key[1]}', "
                 f"{len(key[2])} files" for key, witnesses in said.items() if isinstance(key[2], tuple)]
        raise UntrustedError("The trusted signers contradict each other." + _listed(lines),
                             hint="Do not install this. Tell them.")
    (name, release, entries, optionals), witnesses = next(iter(said.items()))
    assert isinstance(name, str) and isinstance(release, str)
    assert isinstance(entries, tuple) and isinstance(optionals, tuple)
    result = Agreement(name=name, release=release, sums=dict(entries), optionals=optionals,
                       witnesses=tuple(witnesses), remarks=tuple(remarks))
    if result.weight < configuration.minimum_weight:
        raise UntrustedError(
            f"The signatures weigh {result.weight}, less than the {configuration.minimum_weight} that are required."
            + _listed([f"{witness.signer.name}: {witness.signer.weight}" for witness in witnesses] + remarks
                      + about_keys),
            hint="Wait until more people have signed, or look at why the others do not count.")
    if configuration.name is not None and name != configuration.name:
        raise WrongPackageError(f"This is '{name}', not '{configuration.name}'.",
                                hint="The name in the configuration must be the one in the assertions.")
    return result


def _listed(lines: list[str]) -> str:
    shown = lines[:20] + ([f"and {len(lines) - 20} more"] if len(lines) > 20 else [])
    return "".join(f"\n  {line}" for line in shown)


def _content(statement: _Statement) -> tuple[str, str, tuple[tuple[str, str], ...], tuple[str, ...]]:
    """What an assertion says of its outputs, in a form that can be compared. Raises UntrustedError, PackageError."""
    try:
        assertion = Assertion.parse(statement.content, statement.path)
    except FormatError as error:
        raise UntrustedError(f"A trusted signer signed something that is not an assertion: {error}") from error
    if not assertion.name or not assertion.release:
        raise UntrustedError(f"'{statement.path}' does not say of which name and release it is.")
    if assertion.type not in (None, "build"):
        raise UntrustedError(f"'{statement.path}' is of the type '{assertion.type}', not of a build.")
    manifest = Manifest.parse(assertion.out_manifest)
    if manifest.strange or manifest.remotes or not manifest.entries:
        raise UntrustedError(f"The list of files in '{statement.path}' is empty or not understood.")
    names = [entry.path for entry in manifest.entries]
    for name in names:
        try:
            paths.check(name)
        except ValueError as error:
            raise PackageError(f"'{statement.path}' lists '{name[:200]}', which is refused: {error}.") from error
    if (collision := paths.collision(names)) is not None:
        raise PackageError(f"'{statement.path}' lists '{collision[0]}' and '{collision[1]}', which get into each "
                           "other's way.")
    optionals = assertion.optionals or ()
    if isinstance(optionals, str):
        optionals = (optionals,)
    if not isinstance(optionals, tuple) or not all(isinstance(path, str) for path in optionals):
        raise UntrustedError(f"The optionals of '{statement.path}' are not a list of files.")
    return (assertion.name, assertion.release,
            tuple(sorted((entry.path, entry.sha256) for entry in manifest.entries)),
            tuple(sorted({str(path) for path in optionals})))


def _statements(package: Package, remarks: list[str]) -> Iterator[_Statement]:
    prefix = paths.EVIDENCE + "/"
    assertions = sorted(path for path in package.members if path.startswith(prefix) and path.endswith(".assert"))
    if len(assertions) > MOST_ASSERTIONS:
        raise PackageError(f"'{package.source}' holds {len(assertions)} assertions, more than {MOST_ASSERTIONS}.")
    left = LARGEST_EVIDENCE
    for path in assertions:
        signature = next((path + suffix for suffix in _SIGNATURES if path + suffix in package.members), None)
        if signature is None:
            remarks.append(f"'{path}': there is no signature of it")
            continue
        try:
            proofs = packets.detached(package.read(signature, LARGEST_SIGNATURE))
        except packets.PacketError as error:
            remarks.append(f"'{signature}' {error}")
            continue
        content = package.read(path, LARGEST_ASSERTION)
        left -= len(content)
        if left < 0:
            raise PackageError(f"The assertions of '{package.source}' have more than {LARGEST_EVIDENCE} bytes "
                               "together.")
        yield _Statement(path=path, content=content, proofs=proofs)


def _keyring(package: Package, configuration: Configuration, remarks: list[str]) -> keys.Keyring:
    """The keys of the configured signers, and no others, from the configuration's directory and from the package."""
    found: list[keys.KeyData] = []
    for signer in configuration.signers:
        known = 0
        for origin, data in _key_files(package, configuration, signer):
            try:
                file = packets.key_file(data)
            except packets.PacketError as error:
                remarks.append(f"the key file '{origin}' {error}")
                continue
            blocks = [block for block in file.blocks if block.key_ids.intersection(signer.fingerprints)]
            known += len(blocks)
            if not blocks:
                remarks.append(f"the key file '{origin}' does not hold the key of {signer.name}")
            found.append(keys.KeyData(origin=origin, data=b"".join(block.raw for block in blocks) or b"\n"))
            if file.revocations:
                found.append(keys.KeyData(origin=origin, data=b"".join(entry.raw for entry in file.revocations)))
        if not known:
            remarks.append(f"the key of {signer.name} is not at hand")
    return keys.Keyring([item for item in found if item.data.strip()])


def _key_files(package: Package, configuration: Configuration, signer: Signer) -> Iterator[tuple[str, bytes]]:
    names = [signer.key] if signer.key is not None else list(signer.fingerprints)
    for name in names:
        for suffix in _KEY_FILES:
            if configuration.directory is not None:
                path = configuration.directory / (name + suffix)
                if (data := _local(path)) is not None:
                    yield str(path), data
            inside = f"{paths.EVIDENCE}/{name}{suffix}"
            if inside in package.members:
                yield inside, package.read(inside, LARGEST_KEY)


def _local(path: Path) -> bytes | None:
    try:
        if not path.is_file():
            return None
        if path.stat().st_size > LARGEST_KEY:
            raise UntrustedError(f"The key file '{path}' has more than {LARGEST_KEY} bytes.")
        return path.read_bytes()
    except OSError as error:
        raise UntrustedError(f"The key file '{path}' cannot be read: {error.strerror}.") from error


def _judged(statements: list[_Statement], keyring: keys.Keyring) \
        -> Iterator[tuple[_Statement, gpg.Answer, gpg.KeyRecord | None, gpg.KeyRecord | None]]:
    """GnuPG's answer to each signature, with the records of the key that made it and of its primary key."""
    questions: list[gpg.Question] = []
    of: dict[int, _Statement] = {}
    for statement in statements:
        for proof in statement.proofs:
            of[len(questions)] = statement
            questions.append(gpg.Question(name=len(questions), proof=proof, content=statement.content))
    with gpg.Judge() as judge:
        judge.learn(*keyring.needed(keyring.fingerprints))
        answers = judge.ask(questions)
        records = judge.records()
    for question in questions:
        answer = answers[question.name]
        yield of[question.name], answer, records.get(answer.fingerprint), records.get(answer.primary)


def _reason(answer: gpg.Answer, record: gpg.KeyRecord | None, primary: gpg.KeyRecord | None) -> tuple[str, str]:
    """Why a signature does not count ('' when it does), and what is remarkable about one that does.

    An updater has nobody to ask, so it is stricter than a verifier: a key that was revoked, for whatever reason, does
    not count any more. One that has merely expired counts for what it signed before.
    """
    if answer.verdict != "good":
        who = f" ({answer.fingerprint})" if answer.fingerprint else ""
        return f"{answer.reason or answer.verdict}{who}", ""
    if record is None or primary is None:
        return "GnuPG does not know the key that it was made by", ""
    if answer.revoked or record.revoked or primary.revoked:
        return f"the key {primary.fingerprint} is revoked", ""
    remark = ""
    for key in (record, primary):
        if key.expires and answer.created >= key.expires:
            return f"the key {primary.fingerprint} had expired when it signed", ""
        if key.expires and key.expires < _now():
            remark = "the key has expired since"
    return "", remark


def _now() -> float:
    import time

    return time.time()
