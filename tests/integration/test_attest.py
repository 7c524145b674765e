"""Attestations, signed by real GnuPG and real Ed25519 keys, judged by gverify: whatever is changed is noticed."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from gitian.attest.statements import path_of
from tests import attest_kit
from tests.attest_kit import OUTPUTS, report, statement
from tests.gverify_kit import gverify
from tests.signers import Signers

ASSERT, BUNDLE = "pkg-build.assert", "pkg-build.intoto.jsonl"


@pytest.fixture(scope="module")
def signers() -> Iterator[Signers]:
    made = Signers()
    made.make("alice")
    made.make("bob")
    made.gpg("--quick-generate-key", "rsa <rsa@example.invalid>", "rsa2048", "sign", "never")
    made.gpg("--quick-generate-key", "nist <nist@example.invalid>", "nistp256", "sign", "never")
    made.gpg("--quick-generate-key", "sub <sub@example.invalid>", "ed25519", "cert", "never")
    listed = made.gpg("--with-colons", "--list-keys", "sub@example.invalid").decode()
    primary = next(line.split(":")[9] for line in listed.splitlines() if line.startswith("fpr:"))
    made.gpg("--quick-add-key", primary, "ed25519", "sign", "never")
    yield made
    made.close()


@pytest.fixture
def place(tmp_path: Path, signers: Signers, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A workspace whose build is done, and a user with all the keys."""
    monkeypatch.setenv("GNUPGHOME", str(signers.home))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("GITIAN_BASE", raising=False)
    where = tmp_path / "workspace"
    where.mkdir()
    attest_kit.workspace(where)
    monkeypatch.chdir(where)
    return where


def gsign(capfd: pytest.CaptureFixture[str], *words: str, signer: str = "alice@example.invalid",
          status: int = 0) -> str:
    done = gverify(capfd, "-s", signer, "-r", "1.0", *words, "pkg.yml", command="gsign")
    assert done.status == status, done.stderr
    return done.stderr


def verdict(capfd: pytest.CaptureFixture[str], *words: str) -> tuple[int, str]:
    done = gverify(capfd, "--no-markup", "-r", "1.0", *words, "pkg.yml")
    return done.status, done.stdout + done.stderr


def folder(place: Path, signer: str = "alice@example.invalid") -> Path:
    return place / "sigs" / "pkg" / "1.0" / signer


@pytest.mark.parametrize("who", ["alice", "rsa", "nist", "sub"])
def test_an_attestation_is_signed_by_the_key_of_the_assertion(place: Path, who: str,
                                                              capfd: pytest.CaptureFixture[str]) -> None:
    signer = f"{who}@example.invalid"
    assert BUNDLE in gsign(capfd, "--attest", signer=signer)
    status, said = verdict(capfd)
    assert status == 0, said
    assert f"{signer}: OK" in said
    assert "attested: bookworm-amd64 (lxc, gitian 0.1.0)" in said
    line, = (folder(place, signer) / BUNDLE).read_bytes().splitlines()
    assert json.loads(line)["payloadType"] == "application/vnd.in-toto+json"


@pytest.mark.parametrize("who", ["alice", "rsa"])
def test_securesystemslib_verifies_what_we_signed(place: Path, who: str, signers: Signers,
                                                  capfd: pytest.CaptureFixture[str]) -> None:
    from securesystemslib.dsse import Envelope
    from securesystemslib.signer import GPGSigner  # type: ignore[attr-defined]

    signer = f"{who}@example.invalid"
    gsign(capfd, "--attest", signer=signer)
    envelope = Envelope.from_dict(json.loads((folder(place, signer) / BUNDLE).read_text()))
    keyid, = envelope.signatures
    _, key = GPGSigner.import_(keyid, str(signers.home))
    assert list(envelope.verify([key], 1)) == [keyid]
    assert envelope.payload == path_of(place / "result", "pkg", "bookworm-amd64").read_bytes()


@pytest.mark.parametrize("who", ["alice", "rsa"])
def test_what_securesystemslib_signs_is_good_for_us(place: Path, who: str, signers: Signers,
                                                    capfd: pytest.CaptureFixture[str]) -> None:
    from securesystemslib.dsse import Envelope
    from securesystemslib.signer import GPGSigner  # type: ignore[attr-defined]

    signer = f"{who}@example.invalid"
    gsign(capfd, signer=signer)
    listed = signers.gpg("--with-colons", "--list-keys", signer).decode()
    _, key = GPGSigner.import_(next(line.split(":")[9] for line in listed.splitlines()
                                    if line.startswith("fpr:")).lower(), str(signers.home))
    envelope = Envelope(path_of(place / "result", "pkg", "bookworm-amd64").read_bytes(),
                        "application/vnd.in-toto+json", {})
    envelope.sign(GPGSigner(key, str(signers.home)))
    (folder(place, signer) / BUNDLE).write_text(json.dumps(envelope.to_dict()) + "\n")
    status, said = verdict(capfd)
    assert status == 0, said
    assert "attested: bookworm-amd64" in said


def flipped(path: Path, at: int) -> None:
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.write_bytes(data)


@pytest.mark.parametrize("which", ["assertion", "attestation", "report", "statement", "output"])
@pytest.mark.parametrize("where", [0.0, 0.3, 0.55, 0.8, 1.0])
def test_a_changed_byte_in_any_file_is_noticed(place: Path, which: str, where: float,
                                               capfd: pytest.CaptureFixture[str]) -> None:
    gsign(capfd, "--attest")
    assert verdict(capfd)[0] == 0
    path = {"assertion": folder(place) / ASSERT, "attestation": folder(place) / BUNDLE,
            "report": place / "result" / "pkg-res.yml", "output": place / "build" / "out" / "pkg.tar.gz",
            "statement": path_of(place / "result", "pkg", "bookworm-amd64")}[which]
    flipped(path, int(where * (path.stat().st_size - 1)))
    status, said = verdict(capfd)
    assert status == 1, said
    words = {"assertion": "does not belong to this file", "attestation": "BAD ATTESTATION",
             "report": "result/pkg-res.yml", "statement": "intoto.json", "output": "build/out/pkg.tar.gz"}[which]
    assert words in said


def test_every_field_outside_of_what_is_signed_counts_too(place: Path, capfd: pytest.CaptureFixture[str]) -> None:
    gsign(capfd, "--attest")
    path = folder(place) / BUNDLE
    good = path.read_bytes()
    end = good.index(b'"signatures"')
    for at in [*range(end, len(good), 7), len(good) - 1]:
        path.write_bytes(good)
        flipped(path, at)
        status, said = verdict(capfd)
        assert (status, "BAD ATTESTATION" in said) == (1, True), (at, good[at:at + 1], said)
    path.write_bytes(good)
    assert verdict(capfd)[0] == 0


def sign_statements(place: Path, signers: Signers, *statements: object, who: str = "alice") -> None:
    """What a signer could do with another program: sign any payloads whatever."""
    from gitian.attest import openpgp
    from gitian.formats.envelope import Envelope, pre_authentication, write_bundle

    kind = "application/vnd.in-toto+json"
    envelopes = []
    for each in statements:
        payload = each.to_json()  # type: ignore[attr-defined]
        proof = signers.gpg("-u", f"{who}@example.invalid", "--detach-sign", data=pre_authentication(kind, payload))
        envelopes.append(Envelope(payload=payload, payload_type=kind, signatures=(openpgp.enclosed(proof),)))
    (folder(place) / BUNDLE).write_bytes(write_bundle(tuple(envelopes)))


ONE = statement(report())
CONTRADICTIONS = {
    "another output": (replace(ONE, subjects=(("pkg.tar.gz", "9" * 64), *ONE.subjects[1:])), "pkg.tar.gz"),
    "an output more": (replace(ONE, subjects=(*ONE.subjects, ("evil", "9" * 64))), "evil"),
    "an output less": (replace(ONE, subjects=ONE.subjects[1:]), "no statement names the output 'pkg.tar.gz'"),
    "another report": (replace(ONE, report="9" * 64), "another report"),
    "another package": (replace(ONE, package="other"), "'other'"),
    "another target": (replace(ONE, suite="bullseye"), "no statement about bookworm-amd64"),
    "another .deb": (replace(ONE, materials=(*ONE.materials[:-1], replace(ONE.materials[-1], digest="9" * 64))),
                     "zlib1g_1%3a1.2.13_amd64.deb"),
    "a .deb less": (replace(ONE, materials=ONE.materials[:-1]), "zlib1g_1%3a1.2.13_amd64.deb"),
    "a .deb more": (replace(ONE, materials=(*ONE.materials, replace(ONE.materials[-1], name="evil.deb"))), "evil.deb"),
    "another commit": (replace(ONE, materials=(*ONE.materials[:2], replace(ONE.materials[2], digest="9" * 40),
                                               *ONE.materials[3:])), "remote 'src'"),
    "another descriptor": (replace(ONE, materials=(replace(ONE.materials[0], digest="9" * 64), *ONE.materials[1:])),
                           "pkg-desc.yml"),
    "a file less": (replace(ONE, materials=(ONE.materials[0], *ONE.materials[2:])), "patch.diff"),
}


@pytest.mark.parametrize("case", CONTRADICTIONS)
def test_a_contradiction_is_noticed_however_well_it_is_signed(place: Path, signers: Signers, case: str,
                                                              capfd: pytest.CaptureFixture[str]) -> None:
    gsign(capfd)
    shutil.rmtree(place / "result")
    changed, words = CONTRADICTIONS[case]
    sign_statements(place, signers, changed)
    status, said = verdict(capfd)
    assert status == 1, said
    assert "alice@example.invalid: BAD ATTESTATION" in said
    assert "contradicts the assertion" in said
    assert words in said


def test_two_statements_about_one_target_and_two_builds_are_contradictions(
        place: Path, signers: Signers, capfd: pytest.CaptureFixture[str]) -> None:
    gsign(capfd)
    sign_statements(place, signers, ONE, attest_kit.other_run(ONE, 2))
    status, said = verdict(capfd)
    assert status == 1
    assert "2 statements about bookworm-amd64" in said
    assert "not of one build" in said


def test_somebody_elses_signature_is_none(place: Path, signers: Signers, capfd: pytest.CaptureFixture[str]) -> None:
    gsign(capfd)
    sign_statements(place, signers, ONE, who="bob")
    status, said = verdict(capfd)
    assert status == 1
    assert "signed by another key than the assertion" in said


def test_a_bad_attestation_takes_the_signer_out_of_the_count(place: Path, signers: Signers,
                                                             capfd: pytest.CaptureFixture[str]) -> None:
    gsign(capfd)
    gsign(capfd, "--attest", signer="bob@example.invalid")
    sign_statements(place, signers, CONTRADICTIONS["another report"][0])
    done = gverify(capfd, "--json", "-r", "1.0", "pkg.yml")
    assert done.status == 1
    assert {one["signer"]: one["outcome"] for one in done.document["signers"]} == {
        "alice@example.invalid": "BAD ATTESTATION", "bob@example.invalid": "OK"}
    assert done.document["agreeing"] == 1


def test_several_targets_make_one_bundle(tmp_path: Path, place: Path, capfd: pytest.CaptureFixture[str]) -> None:
    both = {"bookworm-amd64": attest_kit.ENVIRONMENT, "bookworm-i386": f"{'7' * 64}  bash_5.2.15-2+b2_i386.deb\n"}
    of = report(environments=both)
    subjects = ONE.subjects
    attest_kit.workspace(place, of, (statement(of, subjects=subjects[:1]),
                                     statement(of, label="bookworm-i386", subjects=subjects[1:])))
    gsign(capfd, "--attest")
    assert len((folder(place) / BUNDLE).read_bytes().splitlines()) == 2
    status, said = verdict(capfd)
    assert status == 0, said
    assert "attested: bookworm-amd64, bookworm-i386" in said
    # One line less: a target that nobody speaks for any more.
    lines = (folder(place) / BUNDLE).read_bytes().splitlines(keepends=True)
    (folder(place) / BUNDLE).write_bytes(lines[0])
    status, said = verdict(capfd)
    assert status == 1
    assert "no statement about bookworm-i386" in said


def test_gsign_refuses_statements_of_another_build(place: Path, capfd: pytest.CaptureFixture[str]) -> None:
    path = path_of(place / "result", "pkg", "bookworm-amd64")
    path.write_bytes(CONTRADICTIONS["another output"][0].to_json())
    assert "pkg.tar.gz" in gsign(capfd, "--attest", status=15)
    path.unlink()
    assert "Build again" in gsign(capfd, "--attest", status=15)
    assert not folder(place).exists(), "nothing is written when something is refused"


def test_an_attestation_of_an_earlier_assertion_does_not_stay(place: Path,
                                                              capfd: pytest.CaptureFixture[str]) -> None:
    gsign(capfd, "--attest")
    gsign(capfd)  # the same content: the attestation is still one of it
    assert (folder(place) / BUNDLE).exists()
    attest_kit.workspace(place, outputs={**OUTPUTS, "new": b"new\n"})
    assert "removed an attestation" in gsign(capfd)
    assert not (folder(place) / BUNDLE).exists()
    assert verdict(capfd)[0] == 0


def test_a_build_of_somebody_elses_with_the_same_report_is_not_ours(place: Path,
                                                                    capfd: pytest.CaptureFixture[str]) -> None:
    gsign(capfd, "--attest")
    path = path_of(place / "result", "pkg", "bookworm-amd64")
    path.write_bytes(attest_kit.other_run(ONE, 9).to_json())
    (place / "var" / "last-build").write_text("urn:uuid:9\n")
    (place / "build" / "out" / "pkg.tar.gz").write_bytes(b"of another descriptor")
    assert verdict(capfd)[0] == 0


def test_outputs_that_were_moved_away_are_not_missed(place: Path, capfd: pytest.CaptureFixture[str]) -> None:
    gsign(capfd, "--attest")
    (place / "build" / "out" / "pkg.tar.gz").rename(place / "pkg.tar.gz")
    assert verdict(capfd)[0] == 0


def test_downloaded_outputs_are_compared_with_what_was_signed(place: Path, tmp_path: Path,
                                                              capfd: pytest.CaptureFixture[str]) -> None:
    gsign(capfd)
    there = tmp_path / "downloads"
    there.mkdir()
    assert verdict(capfd, "--outputs", str(there))[0] == 1, "none of the files is there"
    (there / "pkg.tar.gz").write_bytes(OUTPUTS["pkg.tar.gz"])
    status, said = verdict(capfd, "--outputs", str(there))
    assert status == 0
    assert "1 of the files that were signed are not in" in said
    (there / "pkg.tar.gz").write_bytes(OUTPUTS["pkg.tar.gz"] + b"!")
    status, said = verdict(capfd, "--outputs", str(there))
    assert status == 1
    assert "pkg.tar.gz' is not what was signed" in said
    (there / "pkg.tar.gz").unlink()
    (there / "pkg.tar.gz").symlink_to("/etc/passwd")
    assert verdict(capfd, "--outputs", str(there))[0] == 1


def ssh_key(where: Path, name: str = "key", password: str = "", kind: str = "ed25519") -> Path:
    subprocess.run(["ssh-keygen", "-q", "-t", kind, "-N", password, "-C", "", "-f", str(where / name)], check=True,
                   stdin=subprocess.DEVNULL)
    return where / name


def test_an_openssh_key_signs_and_has_to_be_known(place: Path, tmp_path: Path,
                                                  capfd: pytest.CaptureFixture[str]) -> None:
    key = ssh_key(tmp_path)
    gsign(capfd, "--attest-key", str(key))
    status, said = verdict(capfd)
    assert status == 1
    assert "which is not at hand" in said
    assert subprocess.run(["ssh-keygen", "-l", "-f", f"{key}.pub"], capture_output=True, text=True,
                          check=True).stdout.split()[1] in said, "the fingerprint is the one ssh-keygen shows"
    assert verdict(capfd, "--attest-key", f"{key}.pub")[0] == 0
    allowed = tmp_path / "allowed_signers"
    allowed.write_text("bob@example.invalid " + Path(f"{key}.pub").read_text())
    status, said = verdict(capfd, "--attest-key", str(allowed))
    assert status == 1
    assert "somebody else's" in said
    allowed.write_text('*@example.invalid namespaces="git" ' + Path(f"{key}.pub").read_text())
    assert verdict(capfd, "--attest-key", str(allowed))[0] == 0


def test_a_key_that_the_tree_carries_is_its_owners(place: Path, tmp_path: Path,
                                                   capfd: pytest.CaptureFixture[str]) -> None:
    key = ssh_key(tmp_path)
    gsign(capfd, "--attest-key", str(key))
    keys = place / "sigs" / "pkg" / "keys"
    keys.mkdir()
    shutil.copy(f"{key}.pub", keys / "bob@example.invalid.pub")
    assert verdict(capfd)[0] == 1
    shutil.copy(f"{key}.pub", keys / "alice@example.invalid.pub")
    assert verdict(capfd)[0] == 0


def test_another_ed25519_signature_is_noticed(place: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    key = ssh_key(tmp_path)
    gsign(capfd, "--attest-key", str(key))
    path = folder(place) / BUNDLE
    data = bytearray(path.read_bytes())
    at = data.index(b'"sig":"') + 20
    data[at] = ord("B" if data[at] == ord("A") else "A")  # base64 still, whatever stood there
    path.write_bytes(data)
    status, said = verdict(capfd, "--attest-key", f"{key}.pub")
    assert status == 1
    assert "does not belong to it" in said


def test_keys_of_another_kind_are_refused(place: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert "no Ed25519 key" in gsign(capfd, "--attest-key", str(ssh_key(tmp_path, kind="ecdsa")), status=15)
    (tmp_path / "rubbish").write_bytes(b"\0\xff" * 100)
    gsign(capfd, "--attest-key", str(tmp_path / "rubbish"), status=15)
    gsign(capfd, "--attest-key", str(tmp_path / "absent"), status=15)
    assert not folder(place).exists()


def test_the_users_program_signs_the_attestation_too(place: Path, tmp_path: Path, signers: Signers,
                                                     capfd: pytest.CaptureFixture[str]) -> None:
    program = tmp_path / "sign"
    program.write_text(f'#!/bin/sh\nexec gpg --homedir {signers.home} --batch --quiet --detach-sign "$@"\n')
    program.chmod(0o755)
    gsign(capfd, "--attest", "-p", str(program))
    status, said = verdict(capfd)
    assert status == 0, said
    assert "attested:" in said
    assert verdict(capfd, "-p", "gpg")[0] == 0
    gsign(capfd, "--attest", "-p", "true", signer="bob@example.invalid", status=15)
    assert not (folder(place, "bob@example.invalid") / BUNDLE).exists()


def test_gsign_commits_the_attestation_with_the_assertion(place: Path, capfd: pytest.CaptureFixture[str]) -> None:
    tree = place / "sigs" / "pkg"
    tree.mkdir(parents=True)
    for words in (["init", "-q"], ["config", "user.name", "a"], ["config", "user.email", "a@example.invalid"]):
        subprocess.run(["git", "-C", str(tree), *words], check=True)
    gsign(capfd, "--attest", "--commit")
    listed = subprocess.run(["git", "-C", str(tree), "ls-tree", "-r", "--name-only", "HEAD"], check=True,
                            capture_output=True, text=True).stdout.split()
    assert listed == [f"1.0/alice@example.invalid/{name}" for name in (ASSERT, f"{ASSERT}.sig", BUNDLE)]


@pytest.mark.parametrize("data", [b"", b"{}\n", b"\0" * 1000, b"[" * 100_000 + b"\n", b'{"payload":1}\n' * 300])
def test_rubbish_is_a_bad_attestation_and_no_accident(place: Path, data: bytes,
                                                      capfd: pytest.CaptureFixture[str]) -> None:
    gsign(capfd)
    (folder(place) / BUNDLE).write_bytes(data)
    status, said = verdict(capfd)
    assert status == 1
    assert "alice@example.invalid: BAD ATTESTATION" in said


def test_a_pipe_and_a_link_out_are_not_read(place: Path, capfd: pytest.CaptureFixture[str]) -> None:
    gsign(capfd)
    import os

    os.mkfifo(folder(place) / BUNDLE)
    assert "BAD ATTESTATION" in verdict(capfd)[1]
    (folder(place) / BUNDLE).unlink()
    (folder(place) / BUNDLE).symlink_to("/etc/passwd")
    assert "BAD ATTESTATION" in verdict(capfd)[1]
