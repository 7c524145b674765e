"""gsign with real GnuPG, checked by gverify and by gpgv."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from gitian.cli import common, main
from tests.gverify_kit import gverify
from tests.signers import Signers
from tests.unit.golden import cases


@pytest.fixture(scope="module")
def signers() -> Iterator[Signers]:
    found = Signers()
    try:
        found.make("alice")
        found.make("bob")
        yield found
    finally:
        found.close()


@pytest.fixture
def base(tmp_path: Path, signers: Signers, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GNUPGHOME", str(signers.home))
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.delenv("GITIAN_BASE", raising=False)
    for name, text in next(case for case in cases("gsign") if case["id"] == "destination")["inputs"].items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    return tmp_path


def gsign(*words: str) -> int:
    return common.status_of(main.load("gsign"), "gsign", list(words))


def test_two_sign_and_agree(base: Path, signers: Signers, capfd: pytest.CaptureFixture[str]) -> None:
    assert gsign("-s", "alice", "-r", "1.0", "pkg.yml") == 0
    assert gsign("-s", "bob", "-r", "1.0", "-p", "gpg --batch --detach-sign", "pkg.yml") == 0
    ran = gverify(capfd, "-r", "1.0", "--require", "2", "pkg.yml")
    assert ran.status == 0
    assert ran.verdicts == [("alice", "OK"), ("bob", "OK")]
    made = base / "sigs/pkg/1.0/alice/pkg-build.assert"
    assert Path(f"{made}.sig").read_bytes()[0] & 0x80, "the signature is binary, not armoured"
    (base / "ring.gpg").write_bytes(signers.export("alice"))
    subprocess.run(["gpgv", "--keyring", str(base / "ring.gpg"), f"{made}.sig", str(made)], check=True,
                   capture_output=True)


def test_signing_again_replaces_both_files(base: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert gsign("-s", "alice", "pkg.yml") == 0
    report = base / "result/pkg-res.yml"
    report.write_text(report.read_text().replace("ca978112", "00000000"))
    assert gsign("-s", "alice", "pkg.yml") == 0
    assert gverify(capfd, "-r", "test", "pkg.yml").verdicts == [("alice", "OK")]


def test_no_such_key_leaves_nothing_behind(base: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert gsign("-s", "nobody", "pkg.yml") == 15
    assert "as 'nobody'" in capfd.readouterr().err
    assert not (base / "sigs").exists()


def test_signed_elsewhere_and_dropped_in(base: Path, signers: Signers, capfd: pytest.CaptureFixture[str]) -> None:
    assert gsign("-s", "alice", "-p", "true", "pkg.yml") == 0
    assert gverify(capfd, "-r", "test", "pkg.yml").status == 14
    made = base / "sigs/pkg/test/alice/pkg-build.assert"
    Path(f"{made}.sig").write_bytes(signers.sign("alice", made.read_bytes(), armour=True))
    assert gverify(capfd, "-r", "test", "pkg.yml").verdicts == [("alice", "OK")]
