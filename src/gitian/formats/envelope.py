"""DSSE envelopes: a payload, its type, and signatures over both. Several, one per line, are an attestation bundle.

Source: the 'Dead Simple Signing Envelope' protocol v1 and its JSON envelope; in-toto's attestation bundle (.jsonl).
Whatever is not signed (spelling of base64, names of fields) may be written in one way only, so that no byte can be
changed without being noticed.
"""

from __future__ import annotations

import base64
import binascii
import json
import re
from dataclasses import dataclass

from gitian.errors import FormatError
from gitian.formats import jsonio
from gitian.formats.jsonio import Fields

#: One line holds a statement of at most provenance.LIMIT bytes in base64; so many lines are a bundle.
LINE_LIMIT = 24 * 2**20
BUNDLE_LIMIT = 32 * 2**20
LINES_LIMIT = 256
SIGNATURES_LIMIT = 16

_HEX = re.compile(r"(?:[0-9a-f]{2})+")


@dataclass(frozen=True, slots=True, kw_only=True)
class EnvelopeSignature:
    """A signature in an envelope.

    ``other_headers`` are the hashed bytes of an OpenPGP signature, as securesystemslib keeps them beside it; empty for
    other kinds of signatures.
    """

    keyid: str
    sig: bytes
    other_headers: bytes = b""


@dataclass(frozen=True, slots=True, kw_only=True)
class Envelope:
    """A signed payload."""

    payload: bytes
    payload_type: str
    signatures: tuple[EnvelopeSignature, ...]

    @property
    def signed_bytes(self) -> bytes:
        """What the signatures are of (DSSE's pre-authentication encoding)."""
        return pre_authentication(self.payload_type, self.payload)

    def to_json(self) -> bytes:
        """One line, without its newline."""
        signatures = []
        for signature in self.signatures:
            item = {"keyid": signature.keyid, "sig": base64.b64encode(signature.sig).decode()}
            if signature.other_headers:
                item["other_headers"] = signature.other_headers.hex()
            signatures.append(item)
        return json.dumps({"payload": base64.b64encode(self.payload).decode(), "payloadType": self.payload_type,
                           "signatures": signatures}, separators=(",", ":")).encode("ascii")

    @classmethod
    def parse(cls, line: bytes, source: str) -> Envelope:
        """Read one line. Raises FormatError."""
        if line != line.strip():
            raise FormatError(f"{source}: there are blanks around the envelope.")
        top = Fields(jsonio.loads(line, source, "envelope", limit=LINE_LIMIT), source)
        _only(top, {"payload", "payloadType", "signatures"}, source)
        signatures = []
        for item in top.objects("signatures", most=SIGNATURES_LIMIT):
            _only(item, {"keyid", "sig", "other_headers"}, source)
            headers = item.text("other_headers", "")
            if "other_headers" in item and _HEX.fullmatch(headers) is None:
                raise FormatError(f"{source}: 'other_headers' is not in hexadecimal.")
            signatures.append(EnvelopeSignature(keyid=item.text("keyid"), sig=_decoded(item, "sig", source),
                                                other_headers=bytes.fromhex(headers)))
        return cls(payload=_decoded(top, "payload", source), payload_type=top.text("payloadType"),
                   signatures=tuple(signatures))


def pre_authentication(payload_type: str, payload: bytes) -> bytes:
    """DSSE's PAE: 'DSSEv1 LENGTH TYPE LENGTH PAYLOAD'."""
    kind = payload_type.encode()
    return b"DSSEv1 %d %b %d %b" % (len(kind), kind, len(payload), payload)


def write_bundle(envelopes: tuple[Envelope, ...]) -> bytes:
    """Envelopes, one per line."""
    return b"".join(envelope.to_json() + b"\n" for envelope in envelopes)


def parse_bundle(data: bytes, source: str) -> tuple[Envelope, ...]:
    """Read a bundle. Raises FormatError: an empty one, a line that is no envelope, a last line without its newline."""
    if len(data) > BUNDLE_LIMIT:
        raise FormatError(f"{source}: the attestation is larger than {BUNDLE_LIMIT >> 20} MiB.")
    lines = data.split(b"\n")
    if not data or lines.pop():
        raise FormatError(f"{source}: the attestation is empty or cut short.")
    if len(lines) > LINES_LIMIT:
        raise FormatError(f"{source}: the attestation has more than {LINES_LIMIT} lines.")
    return tuple(Envelope.parse(line, f"{source}:{number}") for number, line in enumerate(lines, 1))


def _only(fields: Fields, known: set[str], source: str) -> None:
    if strange := sorted(fields.keys - known):
        raise FormatError(f"{source}: an envelope has no field '{strange[0][:80]}'.")


def _decoded(fields: Fields, key: str, source: str) -> bytes:
    text = fields.text(key, longest=LINE_LIMIT)
    try:
        data = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        data = b""
    if not data or base64.b64encode(data).decode() != text:
        raise FormatError(f"{source}: '{key}' is not in base64.")
    return data
