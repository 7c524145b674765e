"""OpenPGP signatures in DSSE envelopes, in the form that securesystemslib gives them, and back.

securesystemslib keeps of a version 4 signature its hashed bytes ('other_headers') and the bare numbers ('sig'): an
RSA signature as it is, an EdDSA one as R and S of 32 bytes each. From these and the content the packet that GnuPG
checks can be made again. Signatures that securesystemslib does not know are kept whole, without 'other_headers'.
Source of the packets: RFC 4880 5.2.3, RFC 9580 5.2.3.
"""

from __future__ import annotations

import hashlib

from gitian.formats.envelope import EnvelopeSignature
from gitian.sigs import packets
from gitian.sigs.packets import PacketError

_RSA = (1, 3)
_EDDSA = 22
_HASHES = {8: "sha256", 9: "sha384", 10: "sha512", 11: "sha224"}
_ISSUER = 16


def enclosed(proof: bytes) -> EnvelopeSignature:
    """The detached signature ``proof`` as it goes into an envelope. Raises PacketError: none, several, no issuer."""
    found = packets.detached(proof)
    if len(found) != 1:
        raise PacketError("holds several signatures")
    signature = found[0]
    if not signature.issuers or len(signature.issuers[0]) < 40:
        raise PacketError("does not name the fingerprint of the key that made it")
    keyid = signature.issuers[0].lower()
    body = next(packets.packets(signature.raw)).body
    whole = EnvelopeSignature(keyid=keyid, sig=signature.raw)
    if signature.version != 4 or signature.digest not in _HASHES:
        return whole
    hashed = 6 + int.from_bytes(body[4:6], "big")
    loose = hashed + 2 + int.from_bytes(body[hashed:hashed + 2], "big")
    numbers = _numbers(body[loose + 2:])
    if signature.algorithm in _RSA and len(numbers) == 1:
        bare = numbers[0]
    elif signature.algorithm == _EDDSA and len(numbers) == 2 and max(map(len, numbers)) <= 32:
        bare = b"".join(number.rjust(32, b"\0") for number in numbers)
    else:
        return whole
    return EnvelopeSignature(keyid=keyid, sig=bare, other_headers=body[:hashed])


def disclosed(signature: EnvelopeSignature, content: bytes) -> bytes:
    """The detached signature of ``content`` that an envelope holds. Raises PacketError: it cannot be one."""
    proof = _remade(signature, content) if signature.other_headers else signature.sig
    found = packets.detached(proof)
    # Only one spelling of each signature is good: nothing in it may change without being noticed.
    if len(found) != 1 or enclosed(proof) != signature:
        raise PacketError("is not written as it should be")
    return proof


def _remade(signature: EnvelopeSignature, content: bytes) -> bytes:
    headers = signature.other_headers
    if len(headers) < 6 or headers[0] != 4 or len(headers) != 6 + int.from_bytes(headers[4:6], "big"):
        raise PacketError("holds a damaged signature")
    algorithm, digest = headers[2], _HASHES.get(headers[3])
    if digest is None or len(signature.keyid) != 40:
        raise PacketError("holds a damaged signature")
    if algorithm in _RSA:
        numbers = [signature.sig]
    elif algorithm == _EDDSA and len(signature.sig) == 64:
        numbers = [signature.sig[:32], signature.sig[32:]]
    else:
        raise PacketError("holds a damaged signature")
    hashed = hashlib.new(digest, content + headers + b"\x04\xff" + len(headers).to_bytes(4, "big")).digest()
    try:
        issuer = bytes((9, _ISSUER)) + bytes.fromhex(signature.keyid)[-8:]
    except ValueError:
        raise PacketError("holds a damaged signature") from None
    body = b"".join((headers, len(issuer).to_bytes(2, "big"), issuer, hashed[:2], *map(_mpi, numbers)))
    if len(body) > 0xFFFF:
        raise PacketError("holds a damaged signature")
    return bytes((0xC0 | packets.SIGNATURE, 0xFF)) + len(body).to_bytes(4, "big") + body


def _mpi(number: bytes) -> bytes:
    """A number as OpenPGP writes it: its length in bits, then its bytes without leading zeros."""
    value = int.from_bytes(number, "big")
    return value.bit_length().to_bytes(2, "big") + value.to_bytes((value.bit_length() + 7) // 8, "big")


def _numbers(data: bytes) -> list[bytes]:
    found = []
    while data:
        length = (int.from_bytes(data[:2], "big") + 7) // 8
        if len(data) < 2 + length:
            raise PacketError("holds a damaged signature")
        found.append(data[2:2 + length])
        data = data[2 + length:]
    return found
