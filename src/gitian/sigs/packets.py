"""OpenPGP packets, as far as a verifier must look into them itself: armour, frames, signatures, key identifiers.

Judging a signature is GnuPG's work. This module only says what lies in a file before GnuPG sees it (nothing but
signatures in a signature file, which keys in a key file), and why a key was revoked. All sizes are bounded.

Source of the formats: RFC 4880 and RFC 9580 (sections 4.2 framing, 5.2 signatures, 5.5 keys, 6 armour).
"""

from __future__ import annotations

import base64
import binascii
import contextlib
import hashlib
import re
from collections.abc import Iterator
from dataclasses import dataclass, field

SIGNATURE, ONE_PASS, SECRET_KEY, PUBLIC_KEY, SECRET_SUBKEY, LITERAL = 2, 4, 5, 6, 7, 11
USER_ID, PUBLIC_SUBKEY, USER_ATTRIBUTE, TRUST = 13, 14, 17, 12

BINARY_DOCUMENT, TEXT_DOCUMENT = 0x00, 0x01
KEY_REVOCATION, SUBKEY_REVOCATION = 0x20, 0x28
_CERTIFICATIONS = (0x10, 0x11, 0x12, 0x13, 0x30)

#: Reasons for revocation (RFC 9580, 5.2.3.31).
REASONS = {0: "no reason given", 1: "superseded", 2: "compromised", 3: "retired", 32: "user id no longer valid"}

_NOT_DETACHED = "is not a detached signature but another OpenPGP message"

#: A file of detached signatures larger than this is not read (bytes).
SIGNATURE_LIMIT = 256 * 2**10
#: More packets than this in one file are not looked at.
PACKETS_LIMIT = 200_000
#: A key of more packets than this, certifications by others not counted, is passed over. (GnuPG takes minutes to import
#: a key with ten thousand user ids; of the real keys at hand none has more than 50 packets.)
KEY_PACKETS_LIMIT = 1000

_BEGIN = re.compile(rb"-----BEGIN PGP ([A-Z ,/0-9]{1,40})-----[ \t]*\r?\n")
_END = re.compile(rb"-----END PGP [A-Z ,/0-9]{1,40}-----")


class PacketError(Exception):
    """Bytes that are not the OpenPGP packets they should be; the message says why, as the end of a sentence."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Packet:
    """One packet: its tag, its body, and all of its bytes with the header."""

    tag: int
    body: bytes
    raw: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Signature:
    """What a signature packet claims; nothing of it is proved before GnuPG says so.

    ``created`` is in seconds since 1970. ``issuers`` are key ids (16 hex digits) or fingerprints in capitals, the
    fingerprint first. ``reason`` is the code of a revocation, None when it gives none.
    """

    version: int
    kind: int
    algorithm: int
    digest: int
    created: int
    issuers: tuple[str, ...]
    reason: int | None
    raw: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyBlock:
    """One transferable public key: its primary key's fingerprint, the ids of all its keys, and its bytes."""

    fingerprint: str
    key_ids: frozenset[str]
    raw: bytes = field(repr=False)
    user_ids: tuple[str, ...] = ()
    revokers: frozenset[str] = frozenset()  # others who signed a revocation of it


def binary(data: bytes, *, kinds: tuple[str, ...]) -> bytes:
    """The packets in ``data``, be they armoured or not; several armoured blocks are joined.

    ``kinds`` are the armour headings that are welcome ('SIGNATURE'). Raises PacketError.
    """
    if not data.strip():
        raise PacketError("is empty")
    if data[0] & 0x80:
        return data
    blocks = []
    for heading, text in _armoured(data):
        if heading not in kinds:
            raise PacketError(f"holds a PGP {heading.lower()}")
        blocks.append(_dearmour(text))
    if not blocks:
        raise PacketError(_what_else(data))
    return b"".join(blocks)


def _armoured(data: bytes) -> Iterator[tuple[str, bytes]]:
    """Heading and inside of each armoured block. Looks at every byte once: a file of nothing but beginnings is no
    reason to look for an end after each of them."""
    position = 0
    while (begin := _BEGIN.search(data, position)) is not None:
        end = _END.search(data, begin.end())
        if end is None:
            return
        yield begin[1].decode("ascii"), data[begin.end():end.start()]
        position = end.end()


def _what_else(data: bytes) -> str:
    start = data[:512].lstrip().lower()
    if start.startswith((b"<!doctype", b"<html", b"<?xml")):
        return "is a web page, not OpenPGP data"
    if start.startswith(b"-----begin pgp signed message"):
        return "is a clear-signed message, not a detached signature"
    if start.startswith(b"-----begin pgp"):
        return "is a truncated armoured file"
    return "is not OpenPGP data"


def _dearmour(text: bytes) -> bytes:
    # Header lines ("Version: ...") end at the first empty line; a checksum line begins with "=".
    start = 0
    while start < len(text):
        end = text.find(b"\n", start) + 1 or len(text)
        line = text[start:end].strip()
        if line and b":" not in line:
            break
        start = end
        if not line:
            break
    body, _, rest = (b"\n" + text[start:]).partition(b"\n=")
    try:
        if rest.partition(b"\n")[2].strip():
            raise ValueError("there is more after the checksum")
        body = body.translate(None, b" \t\r\n\v\f")
        return base64.b64decode(body, validate=True)
    except (binascii.Error, ValueError):
        raise PacketError("is a damaged armoured file") from None


def packets(data: bytes) -> Iterator[Packet]:
    """The packets one after the other. Raises PacketError at the first that is cut short or framed wrongly."""
    position = 0
    count = 0
    end = len(data)
    while position < end:
        count += 1
        if count > PACKETS_LIMIT:
            raise PacketError(f"holds more than {PACKETS_LIMIT} packets")
        start = position
        first = data[position]
        if not first & 0x80:
            raise PacketError("holds bytes that are no OpenPGP packet")
        try:
            if first & 0x40:
                tag = first & 0x3F
                length, position = _new_length(data, position + 1)
            else:
                tag = (first >> 2) & 0x0F
                kind = first & 3
                if kind == 3:
                    raise PacketError("holds a packet of unknown length")
                size = 1 << kind
                if position + 1 + size > end:
                    raise PacketError("is cut short")
                length = int.from_bytes(data[position + 1:position + 1 + size], "big")
                position += 1 + size
        except IndexError:
            raise PacketError("is cut short") from None
        if position + length > end:
            raise PacketError("is cut short")
        yield Packet(tag=tag, body=data[position:position + length], raw=data[start:position + length])
        position += length


def _new_length(data: bytes, position: int) -> tuple[int, int]:
    first = data[position]
    if first < 192:
        return first, position + 1
    if first < 224:
        return ((first - 192) << 8) + data[position + 1] + 192, position + 2
    if first == 255:
        if position + 5 > len(data):
            raise PacketError("is cut short")
        return int.from_bytes(data[position + 1:position + 5], "big"), position + 5
    raise PacketError("holds a packet in pieces, which only data may be")


def signature(packet: Packet) -> Signature:
    """What a signature packet says of itself. Raises PacketError."""
    body = packet.body
    try:
        version = body[0]
        if version in (2, 3):
            # One length byte (5), class, time, key id, algorithms.
            return Signature(version=version, kind=body[2], created=int.from_bytes(body[3:7], "big"),
                             issuers=(body[7:15].hex().upper(),), algorithm=body[15], digest=body[16], reason=None,
                             raw=packet.raw)
        if version not in (4, 5, 6):
            raise PacketError(f"holds a signature of unknown version {version}")
        width = 4 if version == 6 else 2
        kind, algorithm, digest = body[1], body[2], body[3]
        at = 4
        length = int.from_bytes(body[at:at + width], "big")
        hashed = body[at + width:at + width + length]
        at += width + length
        length = int.from_bytes(body[at:at + width], "big")
        loose = body[at + width:at + width + length]
        if at + width + length > len(body):
            raise PacketError("holds a damaged signature")
    except IndexError:
        raise PacketError("holds a damaged signature") from None
    created, reason = 0, None
    fingerprints: list[str] = []
    ids: list[str] = []
    for proved, area in ((True, hashed), (False, loose)):
        for kind_of, value in _subpackets(area):
            if kind_of == 2 and proved and len(value) == 4:
                created = int.from_bytes(value, "big")
            elif kind_of == 29 and proved and value:
                reason = value[0]
            elif kind_of == 16 and len(value) == 8:
                ids.append(value.hex().upper())
            elif kind_of == 33 and len(value) in (21, 33):
                fingerprints.append(value[1:].hex().upper())
    return Signature(version=version, kind=kind, algorithm=algorithm, digest=digest, created=created,
                     issuers=tuple(fingerprints + ids), reason=reason, raw=packet.raw)


def _subpackets(area: bytes) -> Iterator[tuple[int, bytes]]:
    position = 0
    while position < len(area):
        try:
            length, position = _subpacket_length(area, position)
        except IndexError:
            raise PacketError("holds a damaged signature") from None
        if length < 1 or position + length > len(area):
            raise PacketError("holds a damaged signature")
        yield area[position] & 0x7F, area[position + 1:position + length]
        position += length


def _subpacket_length(area: bytes, position: int) -> tuple[int, int]:
    first = area[position]
    if first < 192:
        return first, position + 1
    if first < 255:
        return ((first - 192) << 8) + area[position + 1] + 192, position + 2
    return int.from_bytes(area[position + 1:position + 5], "big"), position + 5


def detached(data: bytes) -> tuple[Signature, ...]:
    """The signatures of a detached signature file, armoured or binary, and nothing else. Raises PacketError."""
    found: list[Signature] = []
    plain = binary(data, kinds=("SIGNATURE", "MESSAGE"))
    if plain[:1] and (plain[0] & 0x3F if plain[0] & 0x40 else plain[0] >> 2 & 0x0F) != SIGNATURE:
        raise PacketError(_NOT_DETACHED)
    for packet in packets(plain):
        if packet.tag != SIGNATURE:
            raise PacketError(_NOT_DETACHED)
        parsed = signature(packet)
        if parsed.kind not in (BINARY_DOCUMENT, TEXT_DOCUMENT):
            raise PacketError("holds a signature that is not one of a document")
        found.append(parsed)
        if len(found) > 16:
            raise PacketError("holds more than 16 signatures")
    if not found:
        raise PacketError("is empty")
    return tuple(found)


def identifier(body: bytes) -> tuple[str, str]:
    """Fingerprint and key id of a key packet's body (RFC 9580, 5.5.4). Raises PacketError."""
    if not body:
        raise PacketError("holds a damaged key")
    version = body[0]
    if version == 4:
        if len(body) > 0xFFFF:
            raise PacketError("holds a damaged key")
        framed = b"\x99" + len(body).to_bytes(2, "big") + body
        digest = hashlib.sha1(framed, usedforsecurity=False).hexdigest().upper()
        return digest, digest[-16:]
    if version in (5, 6):
        lead = b"\x9a" if version == 5 else b"\x9b"
        digest = hashlib.sha256(lead + len(body).to_bytes(4, "big") + body).hexdigest().upper()
        return digest, digest[:16]
    # Versions 2 and 3 (before 1998): today's GnuPG does not take them either.
    return "", ""


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyFile:
    """What a key file holds: keys, and revocations that stand for themselves (a revocation certificate).

    ``oversized``: fingerprints of keys that were passed over, for they have more than KEY_PACKETS_LIMIT packets.
    """

    blocks: tuple[KeyBlock, ...]
    revocations: tuple[Signature, ...]
    oversized: tuple[str, ...] = ()


def key_file(data: bytes) -> KeyFile:
    """The public keys of a key file, armoured or binary, any number of them. Raises PacketError.

    Secret keys are passed over, and so is what other people certified: nothing here rests on it, and there are public
    keys with a hundred thousand of such signatures. What comes after damage is lost, what comes before is kept.
    """
    blocks: list[KeyBlock] = []
    revocations: list[Signature] = []
    pieces: list[bytes] = []
    ids: set[str] = set()
    users: list[str] = []
    revokers: set[str] = set()
    oversized: list[str] = []
    fingerprint = ""

    def finish() -> None:
        if fingerprint and len(pieces) > KEY_PACKETS_LIMIT:
            oversized.append(fingerprint)
        elif fingerprint:
            blocks.append(KeyBlock(fingerprint=fingerprint, key_ids=frozenset(ids), raw=b"".join(pieces),
                                   user_ids=tuple(users), revokers=frozenset(revokers - ids)))

    try:
        for packet in packets(binary(data, kinds=("PUBLIC KEY BLOCK", "SIGNATURE", "PRIVATE KEY BLOCK", "MESSAGE"))):
            if packet.tag in (PUBLIC_KEY, SECRET_KEY):
                finish()
                fingerprint, key_id = identifier(packet.body) if packet.tag == PUBLIC_KEY else ("", "")
                pieces, ids, users, revokers = [packet.raw], {key_id, fingerprint}, [], set()
            elif packet.tag == TRUST:
                continue
            elif fingerprint:
                if packet.tag == SIGNATURE and _by_others(packet, ids):
                    continue
                pieces.append(packet.raw)
                if packet.tag == PUBLIC_SUBKEY:
                    ids.update(identifier(packet.body))
                elif packet.tag == USER_ID and len(users) < 64:
                    users.append(packet.body[:512].decode(errors="replace"))
                elif packet.tag == SIGNATURE and packet.body[1:2] == b"\x20":
                    with contextlib.suppress(PacketError):
                        revokers.update(signature(packet).issuers)
            elif packet.tag == SIGNATURE:
                parsed = signature(packet)
                if parsed.kind in (KEY_REVOCATION, SUBKEY_REVOCATION):
                    revocations.append(parsed)
    except PacketError:
        finish()
        if not blocks and not revocations:
            raise
    else:
        finish()
    return KeyFile(blocks=tuple(blocks), revocations=tuple(revocations), oversized=tuple(oversized))


def _by_others(packet: Packet, ids: set[str]) -> bool:
    """Whether this is somebody else's statement that the key belongs to its user (0x10 to 0x13, 0x30)."""
    try:
        parsed = signature(packet)
    except PacketError:
        return True
    return parsed.kind in _CERTIFICATIONS and bool(parsed.issuers) and not ids.intersection(parsed.issuers)


def as_message(proof: Signature, content: bytes) -> bytes:
    """The signed message that says the same as a detached signature beside its document.

    GnuPG checks many messages in one process, but only one detached signature; both hash the same bytes (RFC 9580,
    5.2.4: the document's content, then the signature's own fields), so it is the same check. Only for signatures of
    binary documents; raises PacketError for others and for those that name no key.
    """
    if proof.kind != BINARY_DOCUMENT or proof.version not in (3, 4) or not proof.issuers:
        raise PacketError("cannot be checked as a message")
    key_id = bytes.fromhex(proof.issuers[-1][-16:])
    one_pass = bytes((3, proof.kind, proof.digest, proof.algorithm)) + key_id + b"\x01"
    literal = b"b\x00\x00\x00\x00\x00" + content
    return b"".join((_framed(ONE_PASS, one_pass), _framed(LITERAL, literal), proof.raw))


def _framed(tag: int, body: bytes) -> bytes:
    return bytes((0xC0 | tag, 0xFF)) + len(body).to_bytes(4, "big") + body
