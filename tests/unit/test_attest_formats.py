"""Statements, package URLs, envelopes: by the specifications' own examples, by in-toto's own library, byte by byte."""

from __future__ import annotations

import contextlib
import json
import re
from dataclasses import replace
from typing import Any

import pytest

from gitian.errors import FormatError
from gitian.formats import provenance
from gitian.formats.envelope import Envelope, EnvelopeSignature, parse_bundle, pre_authentication, write_bundle
from gitian.formats.provenance import Material, Provenance, git_uri, package_url
from tests.attest_kit import STATEMENT

PURL = re.compile(r"pkg:deb/[a-z]+/[A-Za-z0-9._~%-]+@[A-Za-z0-9._~%:-]+\?arch=[a-z0-9]+&distro=[a-z0-9.-]+")


@pytest.mark.parametrize(("file", "expected"), [
    # The package URL specification's examples of the type 'deb': curl, attr.
    ("curl_7.50.3-1_i386.deb", "pkg:deb/debian/curl@7.50.3-1?arch=i386&distro=jessie"),
    ("dpkg_1.19.0.4_amd64.deb", "pkg:deb/debian/dpkg@1.19.0.4?arch=amd64&distro=jessie"),
    # Its section on characters: a colon stays, a plus sign is encoded, '~' is not.
    ("attr_1%3a2.4.47-2+b2_amd64.deb", "pkg:deb/debian/attr@1:2.4.47-2%2Bb2?arch=amd64&distro=jessie"),
    ("libstdc++6_12.2.0-14~deb12u1_amd64.deb",
     "pkg:deb/debian/libstdc%2B%2B6@12.2.0-14~deb12u1?arch=amd64&distro=jessie"),
    ("no-deb.tar.gz", ""),
])
def test_package_urls(file: str, expected: str) -> None:
    assert package_url(file, distro="debian", suite="jessie") == expected
    assert not expected or PURL.fullmatch(expected)


@pytest.mark.parametrize(("url", "expected"), [
    ("https://example.invalid/a/b.git", "git+https://example.invalid/a/b.git@" + "c" * 40),
    ("https://user:secret@example.invalid:8443/a", "git+https://example.invalid:8443/a@" + "c" * 40),
    ("git@example.invalid:a/b.git", "git+ssh://example.invalid/a/b.git@" + "c" * 40),
    ("ssh://git@example.invalid/a", "git+ssh://example.invalid/a@" + "c" * 40),
    ("/home/somebody/a", ""), ("../a", ""), ("file:///home/somebody/a", ""), ("https://[bad/a", ""),
])
def test_where_a_commit_came_from_tells_no_secret_and_no_path_of_a_machine(url: str, expected: str) -> None:
    assert git_uri(url, "c" * 40) == expected


def test_a_statement_is_what_in_toto_and_slsa_specify() -> None:
    from google.protobuf import json_format
    from in_toto_attestation.predicates.provenance.v1 import provenance_pb2
    from in_toto_attestation.v1 import statement_pb2
    from in_toto_attestation.v1.statement import Statement

    read = json_format.Parse(STATEMENT.to_json(), statement_pb2.Statement())  # refuses fields it does not know
    Statement.copy_from_pb(read).validate()
    assert [(item.name, dict(item.digest)) for item in read.subject] == [
        (path, {"sha256": digest}) for path, digest in STATEMENT.subjects]
    predicate = json.loads(STATEMENT.to_json())["predicate"]
    made = json_format.ParseDict(predicate, provenance_pb2.Provenance())
    assert made.build_definition.build_type == "urn:gitian:build:v1"
    assert made.run_details.builder.id == "urn:gitian:builder:lxc:0.1.0"
    assert dict(made.run_details.builder.version) == {"gitian": "0.1.0"}
    assert made.run_details.metadata.started_on.ToJsonString() == STATEMENT.started
    uris = {item.name: item.uri for item in made.build_definition.resolved_dependencies}
    assert uris["bash_5.2.15-2+b2_amd64.deb"] == "pkg:deb/debian/bash@5.2.15-2%2Bb2?arch=amd64&distro=bookworm"
    assert {item.name for item in made.build_definition.resolved_dependencies} >= {
        "pkg-desc.yml", "patch.diff", "src", "base-bookworm-amd64.tar", "base-bookworm-amd64.vmlinuz"}


def test_a_target_without_outputs_still_makes_a_valid_statement() -> None:
    json_format = pytest.importorskip("google.protobuf.json_format")
    from in_toto_attestation.v1 import statement_pb2
    from in_toto_attestation.v1.statement import Statement

    empty = replace(STATEMENT, subjects=())
    Statement.copy_from_pb(json_format.Parse(empty.to_json(), statement_pb2.Statement())).validate()
    assert Provenance.parse(empty.to_json(), "s") == empty


def test_a_statement_is_read_back_as_it_was_written() -> None:
    assert Provenance.parse(STATEMENT.to_json(), "s") == STATEMENT
    assert STATEMENT.to_json() == Provenance.parse(STATEMENT.to_json(), "s").to_json()


def test_only_metadata_tells_two_builds_apart() -> None:
    other = replace(STATEMENT, invocation="urn:uuid:other", started="2030-01-01T00:00:00Z",
                    finished="2030-01-01T00:01:00Z")
    one, two = json.loads(STATEMENT.to_json()), json.loads(other.to_json())
    assert one != two
    del one["predicate"]["runDetails"]["metadata"], two["predicate"]["runDetails"]["metadata"]
    assert one == two


def change(path: str, value: Any) -> bytes:
    document = json.loads(STATEMENT.to_json())
    at: Any = document
    *parts, last = [int(part) if part.isdigit() else part for part in path.split(".")]
    for part in parts:
        at = at[part]
    if value is ...:
        del at[last]
    else:
        at[last] = value
    return json.dumps(document).encode()


@pytest.mark.parametrize(("path", "value"), [
    ("_type", "https://in-toto.io/Statement/v0.1"), ("predicateType", "https://slsa.dev/provenance/v0.2"),
    ("subject", []), ("subject", {}), ("subject", ...), ("subject.0.digest.sha256", "AB" * 32),
    ("subject.0.digest", {"sha1": "a" * 40}), ("subject.0.name", 5), ("subject.1.name", "pkg.tar.gz"),
    ("predicate.buildDefinition.buildType", "https://example.invalid/other"),
    ("predicate.buildDefinition.externalParameters.name", None),
    ("predicate.buildDefinition.resolvedDependencies.0.annotations.role", "friend"),
    ("predicate.buildDefinition.resolvedDependencies.0.digest.sha256", "a" * 63),
    ("predicate.buildDefinition.resolvedDependencies.2.digest.gitCommit", "main"),
    ("predicate.runDetails.builder.id", "https://example.invalid/"), ("predicate.runDetails.builder.id", 7),
    ("predicate.runDetails.byproducts", []), ("predicate.runDetails.metadata", []),
])
def test_statements_of_another_form_are_refused(path: str, value: Any) -> None:
    with pytest.raises(FormatError):
        Provenance.parse(change(path, value), "s")


@pytest.mark.parametrize("data", [
    b"", b"{}", b"[]", b"null", b"\xff\xfe", b"[" * 100_000, b'{"_type": 1, "_type": 1}', b'{"a": NaN}',
    b'{"a": "\\ud800"}', b"9" * 10_000, b"<html>", b" " * (provenance.LIMIT + 1),
], ids=range(12))
def test_hostile_json_is_refused_in_words(data: bytes) -> None:
    with pytest.raises(FormatError, match="^s"):
        Provenance.parse(data, "s")


def test_the_pre_authentication_encoding_is_the_specifications() -> None:
    # The DSSE protocol's own test vector.
    assert pre_authentication("http://example.com/HelloWorld", b"hello world") == \
        b"DSSEv1 29 http://example.com/HelloWorld 11 hello world"


ENVELOPE = Envelope(payload=b"hello world", payload_type="http://example.com/HelloWorld", signatures=(
    EnvelopeSignature(keyid="ab" * 20, sig=bytes(range(64)), other_headers=b"\x04\x00\x16\x08\x00\x00"),
    EnvelopeSignature(keyid="SHA256:x", sig=bytes(range(64)))))


def test_a_bundle_is_read_back_as_it_was_written() -> None:
    assert parse_bundle(write_bundle((ENVELOPE, ENVELOPE)), "b") == (ENVELOPE, ENVELOPE)


def test_securesystemslib_reads_the_same_from_an_envelope() -> None:
    from securesystemslib import dsse

    read = dsse.Envelope.from_dict(json.loads(ENVELOPE.to_json()))
    assert read.payload == ENVELOPE.payload
    assert read.pae() == ENVELOPE.signed_bytes
    assert read.signatures["ab" * 20].unrecognized_fields == {"other_headers": "040016080000"}


def test_no_byte_of_a_bundle_can_change_and_leave_it_the_same() -> None:
    """Spelling (base64's spare bits, blanks, unknown fields) is as fixed as what is signed."""
    whole = write_bundle((ENVELOPE,))
    for at in range(len(whole)):
        for bit in (1, 2, 4, 8, 16, 32, 64, 128):
            changed = whole[:at] + bytes((whole[at] ^ bit,)) + whole[at + 1:]
            with contextlib.suppress(FormatError):
                assert parse_bundle(changed, "b") != (ENVELOPE,), (at, bit)


@pytest.mark.parametrize("data", [
    b"", b"\n", b"{}\n", write_bundle((ENVELOPE,))[:-1], write_bundle((ENVELOPE,)) + b"\n",
    write_bundle((ENVELOPE,)) + b" ", b" " + write_bundle((ENVELOPE,)), write_bundle((ENVELOPE,)) * 257,
    b"{" * 5000 + b"\n", b'{"payload":"","payloadType":"","signatures":[]}\n',
    b'{"payload":"YQ","payloadType":"","signatures":[]}\n', b'{"payload":"YR==","payloadType":"","signatures":[]}\n',
], ids=range(12))
def test_hostile_bundles_are_refused(data: bytes) -> None:
    with pytest.raises(FormatError):
        parse_bundle(data, "b")


def test_roles_are_kept_apart() -> None:
    assert Material(role=provenance.PACKAGE, name="x", digest="a" * 64).role in provenance.ROLES
    assert STATEMENT.packages() == {"bash_5.2.15-2+b2_amd64.deb": "1" * 64, "zlib1g_1%3a1.2.13_amd64.deb": "2" * 64}
