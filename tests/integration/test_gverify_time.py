"""Outcomes that change with time, and what must not be remembered: expiring signatures, a wrong clock, a GnuPG that
gave up."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from gitian.sigs import cache, keys, tree, verify
from gitian.sigs.verdict import SignerOutcome
from tests.signers import Signers, assertion, put

GOOD = assertion("r1")
#: 2020-07-01, when everything here was just signed.
THEN = 1593561600
DAY = 86400


@pytest.fixture(scope="module")
def signers() -> Iterator[Signers]:
    found = Signers()
    try:
        found.make("alice")
        found.make("bob")
        found.make("short", expire="20200801T000000")
        yield found
    finally:
        found.close()


class Clock:
    """gverify, and the GnuPG that it starts, at a time of our choice."""

    def __init__(self, root: Path, signers: Signers, monkeypatch: pytest.MonkeyPatch) -> None:
        self.root = root
        self.ring = root / "ring.gpg"
        self.ring.write_bytes(signers.export("alice", "bob", "short"))
        self.real = shutil.which("gpg")
        (root / "bin").mkdir()
        (root / "cache").mkdir()
        monkeypatch.setenv("PATH", f"{root / 'bin'}:{os.environ['PATH']}")
        monkeypatch.setattr(verify, "_gnupg_known", ["the same program each time"])

    def gpg(self, script: str) -> None:
        (self.root / "bin" / "gpg").write_text(f"#!/bin/sh\n{script}\n")
        (self.root / "bin" / "gpg").chmod(0o755)

    def verify(self, now: int) -> dict[str, SignerOutcome]:
        self.gpg(f'exec {self.real} --faked-system-time {now}! "$@"')
        return self.ask(now)

    def ask(self, now: int) -> dict[str, SignerOutcome]:
        known = cache.Cache(self.root / "cache" / "gitian")
        try:
            ring = keys.gather(keys.Sources(keyrings=(self.ring,), folders=False))
            found = verify.verify_release(verify.Request(
                tree=tree.DirectoryTree(self.root / "sigs"), keyring=ring, cache=known, now=now), "r1", "pkg")
            return {signer.signer: signer for signer in found.signers}
        finally:
            known.close()


@pytest.fixture
def clock(tmp_path: Path, signers: Signers, monkeypatch: pytest.MonkeyPatch) -> Clock:
    put(tmp_path / "sigs", "r1", "alice", GOOD, signers.sign("alice", GOOD))
    return Clock(tmp_path, signers, monkeypatch)


def outcomes(found: dict[str, SignerOutcome]) -> dict[str, str]:
    return {name: signer.outcome.value for name, signer in found.items()}


def test_a_signature_that_expires_is_not_remembered_as_good(clock: Clock, signers: Signers) -> None:
    proof = signers.gpg("--faked-system-time", "20200601T000000!", "--default-sig-expire", "20200801T000000",
                        "-u", signers.fingerprints["bob"] + "!", "--detach-sign", data=GOOD)
    put(clock.root / "sigs", "r1", "bob", GOOD, proof)
    put(clock.root / "sigs", "r1", "short", GOOD, signers.sign("short", GOOD))
    for _ in range(2):
        assert outcomes(clock.verify(THEN)) == {"alice": "OK", "bob": "OK", "short": "OK"}
    later = clock.verify(THEN + 60 * DAY)
    assert outcomes(later) == {"alice": "OK", "bob": "BAD SIGNATURE", "short": "OK"}
    assert "expired on 2020-08-01" in later["bob"].detail
    assert "expired since, on 2020-08-01" in later["short"].remarks[0]


def test_a_clock_that_is_behind_is_not_held_against_anybody_later(clock: Clock) -> None:
    """In 2010 none of these keys had been made yet. GnuPG does not take them then, and says no more than 'no key'."""
    early = clock.verify(1262304000)
    assert outcomes(early) == {"alice": "NO KEY"}
    assert "clock" in early["alice"].detail
    assert outcomes(clock.verify(THEN)) == {"alice": "OK"}


def test_a_date_to_come_is_remarked_on_until_it_has_come(clock: Clock, signers: Signers) -> None:
    put(clock.root / "sigs", "r1", "bob", GOOD, signers.sign("bob", GOOD, at="20201001T000000"))
    assert "to come" in clock.verify(THEN)["bob"].remarks[0]
    assert not clock.verify(THEN + 200 * DAY)["bob"].remarks


@pytest.mark.parametrize("script", ["exit 2", "kill -9 $$"])
def test_a_gnupg_that_gave_up_is_asked_again(clock: Clock, script: str) -> None:
    clock.gpg(f'case "$*" in *--verify*) {script};; esac\nexec {clock.real} "$@"')
    assert outcomes(clock.ask(int(time.time()))) == {"alice": "BAD SIGNATURE"}
    assert outcomes(clock.verify(THEN)) == {"alice": "OK"}


def test_sha1_is_good_and_remarked_on_and_md5_is_not(clock: Clock, signers: Signers) -> None:
    for name in ("SHA1", "MD5"):
        proof = signers.gpg("--faked-system-time", "20200601T000000!", "-u", signers.fingerprints["bob"] + "!",
                            "--digest-algo", name, "--allow-weak-digest-algos", "--detach-sign", data=GOOD)
        put(clock.root / "sigs", "r1", name.lower(), GOOD, proof)
    found = clock.verify(THEN)
    assert outcomes(found) == {"alice": "OK", "sha1": "OK", "md5": "BAD SIGNATURE"}
    assert "SHA-1" in found["sha1"].remarks[0] and not found["alice"].remarks
    assert "digest that is no longer accepted" in found["md5"].detail


def test_an_expired_key_that_was_prolonged(clock: Clock, signers: Signers) -> None:
    """The newest statement of the owner about the key counts, in whichever file and order the copies come."""
    own = Signers()
    try:
        own.make("prolonged", expire="20200301T000000")
        old = own.export("prolonged")
        own.gpg("--faked-system-time", "20200201T000000!", "--quick-set-expire", own.fingerprints["prolonged"],
                "20300101T000000")
        put(clock.root / "sigs", "r1", "prolonged", GOOD, own.sign("prolonged", GOOD))
        new = own.export("prolonged")
    finally:
        own.close()
    rest = clock.ring.read_bytes()
    for data, word in ((old, "EXPIRED KEY"), (new, "OK"), (old + new, "OK"), (new + old, "OK")):
        clock.ring.write_bytes(rest + data)
        assert outcomes(clock.verify(THEN)) == {"alice": "OK", "prolonged": word}


def test_a_subkey_that_was_revoked(clock: Clock) -> None:
    own = Signers()
    try:
        own.gpg("--faked-system-time", "20200101T000000!", "--quick-generate-key", "sub <sub@example.invalid>",
                "ed25519", "cert", "never")

        def fingerprints() -> list[str]:
            listed = own.gpg("--with-colons", "--list-keys").decode()
            return [line.split(":")[9] for line in listed.splitlines() if line.startswith("fpr:")]

        own.fingerprints["sub"], = fingerprints()
        own.gpg("--faked-system-time", "20200101T000000!", "--quick-add-key", own.fingerprints["sub"], "ed25519",
                "sign", "never")
        put(clock.root / "sigs", "r1", "sub", GOOD, own.gpg(
            "--faked-system-time", "20200601T000000!", "-u", fingerprints()[1] + "!", "--detach-sign", data=GOOD))
        rest = clock.ring.read_bytes()
        clock.ring.write_bytes(rest + own.export("sub"))
        before = clock.verify(THEN)
        assert outcomes(before) == {"alice": "OK", "sub": "OK"}
        assert before["sub"].fingerprint == own.fingerprints["sub"], "the primary key's"
        own.edit("sub", "20210601T000000", "key 1", "revkey", "y", "1", "", "y", "save")
        clock.ring.write_bytes(rest + own.export("sub"))
        after = clock.verify(THEN)
        assert outcomes(after) == {"alice": "OK", "sub": "REVOKED KEY"}
        assert "the subkey was revoked on 2021-06-01 (compromised)" in after["sub"].detail
    finally:
        own.close()
