"""Who signed a release with which key, and whether that key is at hand: without checking any signature."""

from __future__ import annotations

import enum
import time
from collections.abc import Sequence
from dataclasses import dataclass

from gitian.sigs import judging, packets, tree
from gitian.sigs.gpg import Judge, KeyRecord
from gitian.sigs.keys import Keyring
from gitian.sigs.verify import SUFFIX


class State(enum.Enum):
    """What is known about a key now. The value is the word that is printed."""

    KNOWN = "known"
    EXPIRED = "expired"
    REVOKED = "revoked"
    MISSING = "missing"
    UNSIGNED = "no signature"


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """A signer and a key, or a key alone (``signer`` is empty then). ``origins`` are the files that hold the key."""

    signer: str
    state: State
    fingerprint: str = ""
    user_id: str = ""
    detail: str = ""
    packages: tuple[str, ...] = ()
    origins: tuple[str, ...] = ()


def of_release(where: tree.SigsTree, release: str, keyring: Keyring, *, name: str | None = None,
               now: int | None = None) -> tuple[Row, ...]:
    """A row for each signer and key of a release, of one package or of all. Raises tree.TreeError."""
    claims: dict[tuple[str, str], list[str]] = {}
    for entry in where.list(release):
        if entry.kind is not tree.Kind.DIRECTORY:
            continue
        folder = tree.join(release, entry.name)
        try:
            files = [inner.name for inner in where.list(folder)]
        except tree.TreeError:
            continue
        for file in files:
            package = file[:-len(SUFFIX)]
            if file.endswith(SUFFIX) and name in (None, package):
                for claim in _claims(where, tree.join(folder, file + ".sig")):
                    claims.setdefault((entry.name, claim), []).append(package)
    records = _records(keyring, [claim for _, claim in claims if claim])
    rows = []
    for (signer, claim), packages in claims.items():
        if not claim:
            rows.append(Row(signer=signer, state=State.UNSIGNED, packages=tuple(packages)))
            continue
        rows.append(_row(signer, claim, records, keyring, tuple(packages), now))
    return tuple(rows)


def of_keyring(keyring: Keyring, *, now: int | None = None) -> tuple[Row, ...]:
    """A row for each primary key at hand."""
    records = _records(keyring, keyring.fingerprints)
    return tuple(_row("", fingerprint, records, keyring, (), now) for fingerprint in keyring.fingerprints
                 if fingerprint)


def _claims(where: tree.SigsTree, path: str) -> tuple[str, ...]:
    try:
        found = packets.detached(where.read(path, packets.SIGNATURE_LIMIT))
    except (tree.TreeError, packets.PacketError):
        return ("",)
    return tuple(dict.fromkeys(each.issuers[0] if each.issuers else "" for each in found))


def _records(keyring: Keyring, claims: Sequence[str]) -> dict[str, KeyRecord]:
    wanted = [claim for claim in claims if claim in keyring]
    if not wanted:
        return {}
    with Judge() as gpg:
        gpg.learn(*keyring.needed(wanted))
        return dict(gpg.records())


def _row(signer: str, claim: str, records: dict[str, KeyRecord], keyring: Keyring, packages: tuple[str, ...],
         now: int | None) -> Row:
    now = int(time.time()) if now is None else now
    record = next((found for name, found in records.items() if name == claim or name.endswith(claim)), None)
    if record is None:
        detail = "GnuPG does not take the key" if claim in keyring else ""
        return Row(signer=signer, state=State.MISSING, fingerprint=claim, detail=detail, packages=packages)
    primary = records.get(record.primary, record)
    state, detail = State.KNOWN, ""
    if record.revoked or primary.revoked:
        state = State.REVOKED
        told = [*primary.revocations, *record.revocations]
        if told:
            detail = f"{judging.date(told[0].created)}: {packets.REASONS.get(told[0].reason, 'unknown reason')}"
    else:
        ended = [key.expires for key in (primary, record) if key.expires and key.expires <= now]
        if ended:
            state, detail = State.EXPIRED, judging.date(min(ended))
    return Row(signer=signer, state=state, fingerprint=primary.fingerprint, user_id=primary.user_id, detail=detail,
               packages=packages, origins=keyring.origins(primary.fingerprint))
