"""OpenPGP packets: what lies in signature and key files, and nothing but that."""

from __future__ import annotations

import base64
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gitian.sigs import packets
from tests.shared import FIXTURES, needs_shared

SYNTHETIC = Path(__file__).resolve().parents[1] / "fixtures" / "gverify-synthetic"
GOOD = (SYNTHETIC / "sigs/all-ok/alice/pkg-build.assert.sig").read_bytes()
#: From the transcript of the classic in expected.jsonl: "using EDDSA key ...", "made Wed Jun 2 08:00:00 2021 UTC".
ALICE = "64FBFD70A129A333C85902920769E6111947BCE5"
MADE = 1622620800


def armoured(data: bytes, kind: str = "SIGNATURE", headers: str = "") -> bytes:
    body = base64.encodebytes(data).decode()
    return f"-----BEGIN PGP {kind}-----\n{headers}\n{body}=abcd\n-----END PGP {kind}-----\n".encode()


def test_a_detached_signature_says_who_and_when() -> None:
    found, = packets.detached(GOOD)
    assert found.issuers[0] == ALICE
    assert found.created == MADE
    assert found.kind == packets.BINARY_DOCUMENT


@pytest.mark.parametrize("headers", ["", "Version: GnuPG v1\n", "Version: GnuPG v1\nComment: x: y\n"])
def test_armour_makes_no_difference(headers: str) -> None:
    assert packets.detached(armoured(GOOD, headers=headers)) == packets.detached(GOOD)
    assert packets.detached(armoured(GOOD).replace(b"\n", b"\r\n")) == packets.detached(GOOD)


@pytest.mark.parametrize(("data", "words"), [
    (b"", "is empty"),
    (b"\n \n", "is empty"),
    (b"<!DOCTYPE html><p>404", "web page"),
    (b"hello", "not OpenPGP data"),
    (GOOD[:-3], "cut short"),
    (GOOD[:1], "cut short"),
    (GOOD + b"x", "no OpenPGP packet"),
    (armoured(GOOD)[:-40], "truncated"),
    (armoured(b"\x99", "PUBLIC KEY BLOCK"), "public key block"),
    (b"-----BEGIN PGP SIGNED MESSAGE-----\nHash: SHA256\n\nx\n", "clear-signed"),
    (packets._framed(packets.LITERAL, b"b\0\0\0\0\0x"), "another OpenPGP message"),
    (GOOD + packets._framed(packets.LITERAL, b"b\0\0\0\0\0x"), "another OpenPGP message"),
    (GOOD * 17, "more than 16"),
])
def test_what_is_no_detached_signature_is_called_by_its_name(data: bytes, words: str) -> None:
    with pytest.raises(packets.PacketError, match=words):
        packets.detached(data)


def test_a_file_of_nothing_but_beginnings_is_read_once() -> None:
    """16 MiB in which an armoured block begins half a million times and never ends: it took hours when an end was
    looked for after each beginning."""
    with pytest.raises(packets.PacketError, match="truncated"):
        packets.detached(b"-----BEGIN PGP SIGNATURE-----\n" * (2**24 // 30))


def test_two_armoured_blocks_in_one_file_are_two_signatures() -> None:
    assert len(packets.detached(armoured(GOOD) + b"between\n" + armoured(GOOD))) == 2


def test_a_signed_message_is_no_detached_signature() -> None:
    """GnuPG alone would accept it, and would not look at the document beside it."""
    with pytest.raises(packets.PacketError, match="another OpenPGP message"):
        packets.detached((SYNTHETIC / "sigs/sig-inline/bob/pkg-build.assert.sig").read_bytes())


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=300))
def test_no_bytes_get_through_as_anything_but_a_signature(data: bytes) -> None:
    for text in (data, b"\xc2" + data, b"\x88" + data, GOOD[:10] + data, armoured(data)):
        try:
            found = packets.detached(text)
        except packets.PacketError:
            continue
        assert all(each.raw in packets.binary(text, kinds=("SIGNATURE",)) for each in found)


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=400))
def test_key_files_of_any_bytes_are_keys_or_an_error(data: bytes) -> None:
    for text in (data, b"\x99" + data, b"\xc6" + data, armoured(data, "PUBLIC KEY BLOCK")):
        try:
            packets.key_file(text)
        except packets.PacketError:
            continue


def test_several_keys_in_one_file_and_a_revocation_alone() -> None:
    both = (SYNTHETIC / "keys/alice.asc").read_bytes() + (SYNTHETIC / "keys/grace.asc").read_bytes()
    found = packets.key_file(both)
    assert [block.fingerprint for block in found.blocks] == [ALICE, "1879DCF74C8C41AAB96784C4859DA9B2C5DF445A"]
    assert "DDD2AC4FB58AD038126A53D3F6B2D75AEB15677F" in found.blocks[1].key_ids  # the subkey, as the transcript has it
    alone = packets.key_file((SYNTHETIC / "keys/dave-revocation.asc").read_bytes())
    assert not alone.blocks
    assert alone.revocations[0].kind == packets.KEY_REVOCATION
    assert alone.revocations[0].issuers[-1] == "DA73D64B1D931E06"


@needs_shared
def test_fingerprints_of_real_keys() -> None:
    """The files are named after the fingerprint that GnuPG gave."""
    files = sorted((FIXTURES / "keys").glob("*.asc"))
    assert len(files) == 51
    for file in files:
        assert [block.fingerprint for block in packets.key_file(file.read_bytes()).blocks] == [file.stem]
