"""gverify --explain as a user runs it, on trees that real keys signed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from gitian.formats.assertion import Assertion
from gitian.formats.report import Report
from tests.gverify_kit import Ran, gverify
from tests.shared import FIXTURES, needs_shared
from tests.signers import Signers, put

Lay = Callable[..., None]
PEOPLE = ("alice", "bob", "carol", "dave")


@pytest.fixture(scope="module")
def signers() -> Iterator[Signers]:
    people = Signers()
    try:
        for name in PEOPLE:
            people.make(name)
        yield people
    finally:
        people.close()


def assertion(*, out: str = "a", sdk: str = "b", commit: str = "c", gcc: str = "12.2.0-14", cache: str = "d",
              extra: str = "", name: str = "pkg", output: str = "pkg.tar.gz") -> Assertion:
    return Assertion(release="1.0", name=name, report=Report(
        out_manifest=f"{out * 64}  {output}\n",
        in_manifest=f"{'9' * 64}  {name}-desc.yml\n{sdk * 64}  sdk-unsigned.tar.gz\n{extra}git:{commit * 40} pkg",
        base_manifests=(("bookworm-amd64", f"{'1' * 64}  bash_5.2-2_amd64.deb\n{'2' * 64}  gcc-12_{gcc}_amd64.deb\n"),),
        cache_package_manifest=f"{cache * 64}  host/qt\n"))


BAD = replace(assertion(), report=replace(assertion().report, out_manifest=f"{'f' * 64}  pkg.tar.gz\n"))


@pytest.fixture
def lay(signers: Signers, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Lay]:
    """A workspace with a descriptor and no other keys than those of a file."""
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.delenv("GNUPGHOME", raising=False)
    monkeypatch.delenv("GITIAN_BASE", raising=False)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "keys.gpg").write_bytes(signers.export(*PEOPLE))
    (tmp_path / "pkg.yml").write_text("name: pkg\n")

    def lay(builds: dict[str, Assertion], name: str = "pkg") -> None:
        for signer, built in builds.items():
            content = built.to_yaml().encode()
            put(tmp_path / "sigs" / name, "1.0", signer, content, signers.sign(signer, content), name)

    yield lay


def run(capfd: pytest.CaptureFixture[str], *words: str) -> Ran:
    return gverify(capfd, "--no-markup", "-r", "1.0", "--keyring", "keys.gpg", "--only-keyring", "--explain", *words,
                   "pkg.yml")


@pytest.mark.parametrize("changed,line,cause", [
    ({"gcc": "12.2.0-15"}, "package 'gcc-12' (bookworm-amd64): 12.2.0-15 instead of 12.2.0-14", "environment"),
    ({"sdk": "e"}, f"input file 'sdk-unsigned.tar.gz': {'e' * 16}... instead of {'b' * 16}...", "inputs"),
    ({"commit": "e"}, f"commit 'pkg': {'e' * 40} instead of {'c' * 40}", "inputs"),
    ({"cache": "e"}, f"cache entry 'host/qt' in the package cache: {'e' * 16}... instead of {'d' * 16}...", "caches"),
])
def test_a_planted_cause_is_named_first(capfd: pytest.CaptureFixture[str], lay: Lay, changed: dict[str, str], line: str,
                                        cause: str) -> None:
    lay({"alice": assertion(), "bob": assertion(), "carol": assertion(), "dave": assertion(out="f", **changed)})
    ran = run(capfd)
    assert ran.status == 1, ran.stderr
    assert ("dave", "MISMATCH") in ran.verdicts
    assert f"   1. {line}\n" in ran.stdout
    assert "not deterministic" not in ran.stdout
    assert "3 signers built in 1 distinct environment (base manifests)." in ran.stdout
    explanation = run(capfd, "--json").document["explanation"]
    assert explanation["dissents"][0]["signer"] == "dave"
    assert explanation["dissents"][0]["diagnosis"]["cause"] == cause
    assert len(explanation["dissents"][0]["diagnosis"]["suspects"]) == 1
    assert [output["path"] for output in explanation["dissents"][0]["outputs"]] == ["pkg.tar.gz"]


def test_a_random_output_is_called_not_deterministic(capfd: pytest.CaptureFixture[str], lay: Lay) -> None:
    lay({"alice": assertion(), "bob": assertion(), "carol": BAD})
    ran = run(capfd)
    assert ran.status == 1
    assert "carol: the build itself is not deterministic. 'alice', 'bob' had the same inputs" in ran.stdout


def test_all_agree_and_the_status_stays_0(capfd: pytest.CaptureFixture[str], lay: Lay) -> None:
    lay({"alice": assertion(), "bob": assertion(gcc="12.2.0-15")})
    ran = run(capfd)
    assert ran.status == 0, ran.stderr
    assert "2 signers built in 2 distinct environments (base manifests)." in ran.stdout
    assert "Nobody built anything else." in ran.stdout
    assert "explanation" not in gverify(capfd, "-r", "1.0", "--keyring", "keys.gpg", "--only-keyring", "--json",
                                        "pkg.yml").document


def test_an_input_is_traced_to_another_package_of_the_workspace(capfd: pytest.CaptureFixture[str], lay: Lay) -> None:
    stage = {"name": "stage", "output": "pkg-1.0-unsigned.tar.gz"}
    lay({"alice": assertion(out="b", **stage), "bob": assertion(out="b", **stage),
         "dave": assertion(out="e", gcc="99", **stage)}, "stage")
    lay({"alice": assertion(), "bob": assertion(), "dave": assertion(out="f", sdk="e")})
    ran = run(capfd)
    assert ("'sdk-unsigned.tar.gz' comes from an earlier stage: it is 'pkg-1.0-unsigned.tar.gz' of stage stage/1.0."
            in ran.stdout)
    assert "There, this one was made by 'dave'; the one of those who agree by 'alice', 'bob'." in ran.stdout
    assert "package 'gcc-12' (bookworm-amd64): 99 instead of 12.2.0-14" in ran.stdout


def test_no_control_character_reaches_the_terminal(capfd: pytest.CaptureFixture[str], lay: Lay) -> None:
    nasty = f"{'3' * 64}  evil\x1b]0;owned\x07\x9b2J\u202e.tar.gz\n"
    lay({"alice": assertion(), "bob": assertion(), "carol": assertion(out="f", extra=nasty, output="o\x1b[2Jut")})
    ran = run(capfd)
    assert "evil\\x1b]0;owned\\x07\\x9b2J\\u202e.tar.gz" in ran.stdout and "o\\x1b[2Jut" in ran.stdout
    assert all(char.isprintable() or char == "\n" for char in ran.stdout)


@needs_shared
def test_a_real_release(capfd: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two signers had a wrong input in 2015; both are named, and one of them although his key is not at hand."""
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "signer.yml").write_text("name: bitcoin-dmg-signer\n")
    ran = gverify(capfd, "--no-markup", "--explain", "-r", "0.10.3rc2-osx-signed", "--no-cache", "--only-keyring",
                  "--keyring", str(FIXTURES / "keys"), "-d", str(FIXTURES / "sigs" / "bitcoin-core_gitian.sigs"),
                  str(tmp_path / "signer.yml"))
    assert ran.status == 1
    one, other = ran.stdout.split("Why do they differ?")[1].split("midnightmagic (NO KEY")
    assert "   1. input file 'signature.tar.gz': 70ef7a3ee8d6bb37... instead of 8fd314339799a8f5..." in one
    assert "   1. input file 'bitcoin-osx-unsigned.tar.gz': 7e596f3335360538... instead of ca8f8af171b51fc5..." in other
