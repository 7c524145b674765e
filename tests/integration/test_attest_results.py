"""gverify --rbvf and gitian collect, with real signatures: a release that several rebuilt, honest or not."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from gitian.formats.assertion import Assertion
from tests import attest_kit
from tests.attest_kit import OUTPUTS, report, statement
from tests.gverify_kit import gverify
from tests.signers import Signers, put

SCHEMA = json.loads((Path(__file__).resolve().parents[2] / "share" / "rbvf.schema.json").read_text())
EVIL = {**OUTPUTS, "pkg.tar.gz": b"the package, and a door\n"}


@pytest.fixture(scope="module")
def signers() -> Iterator[Signers]:
    made = Signers()
    for name in ("official", "alice", "bob", "carol", "stranger"):
        made.make(name)
    yield made
    made.close()


@pytest.fixture
def place(tmp_path: Path, signers: Signers, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("GNUPGHOME", str(signers.home))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("GITIAN_BASE", raising=False)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "pkg.yml").write_text(attest_kit.DESCRIPTOR)
    return tmp_path


def sign(where: Path, signers: Signers, builds: Mapping[str, Mapping[str, bytes]]) -> None:
    """Assertions of what each signer built."""
    for who, outputs in builds.items():
        made = Assertion(report=report(outputs), release="1.0", name="pkg")
        content = made.to_yaml().encode()
        put(where, "1.0", who, content, signers.sign(who, content))


def results(capfd: pytest.CaptureFixture[str], where: Path, file: str, *words: str) -> tuple[int, Any]:
    done = gverify(capfd, "-r", "1.0", "-d", str(where), "--rbvf", file, *words, "pkg.yml")
    assert Path(file).exists(), done.stderr
    data = Path(file).read_bytes()
    document = json.loads(gzip.decompress(data) if file.endswith(".gz") else data)
    jsonschema.validate(document, SCHEMA)
    return done.status, document


def by_who(document: Any) -> dict[str, str]:
    return {one["rebuilder"]["name"]: one["status"] for one in document["results"]}


def test_signers_are_rebuilders_of_the_build_compared_to(place: Path, signers: Signers,
                                                         capfd: pytest.CaptureFixture[str]) -> None:
    sign(place / "sigs", signers, {"official": OUTPUTS, "alice": OUTPUTS, "bob": EVIL})
    (place / "sigs" / "1.0" / "carol").mkdir()
    content = Assertion(report=report(), release="1.0", name="pkg").to_yaml().encode()
    put(place / "sigs", "1.0", "forged", content, signers.sign("alice", b"something else"))
    status, document = results(capfd, place / "sigs", "out.json", "-c", "official")
    assert status == 1
    assert by_who(document) == {"alice": "reproducible", "bob": "unreproducible", "carol": "untested",
                                "forged": "blocked"}
    assert document["initial"] == "the build of 'official'"
    one = next(each for each in document["results"] if each["rebuilder"]["name"] == "bob")
    assert (one["suite"], one["target"], one["name"], one["version"]) == (
        "bookworm", "x86_64-unknown-linux-gnu", "pkg", "1.0")
    assert one["rebuilder"]["key"] == signers.fingerprints["bob"]
    assert one["build_date"] == 1590969600, "without an attestation, the day it was signed: 2020-06-01"
    environment, = one["artifacts"]["environments"]
    assert environment["record"] == {"name": "bookworm-amd64", "packages": 2,
                                     "sha256": attest_kit.digest(attest_kit.ENVIRONMENT.encode())}
    assert environment["files"][0] == {"path": "pkg.tar.gz", "sha256": attest_kit.digest(EVIL["pkg.tar.gz"]),
                                       "origin_sha256": attest_kit.digest(OUTPUTS["pkg.tar.gz"])}


def test_without_an_initial_build_the_largest_group_is_what_is_reproducible(
        place: Path, signers: Signers, capfd: pytest.CaptureFixture[str]) -> None:
    sign(place / "sigs", signers, {"alice": OUTPUTS, "bob": OUTPUTS, "carol": EVIL})
    _, document = results(capfd, place / "sigs", "out.json")
    assert by_who(document) == {"alice": "reproducible", "bob": "reproducible", "carol": "unreproducible"}
    assert "origin_sha256" not in document["results"][0]["artifacts"]["environments"][0]["files"][0]
    sign(place / "alone", signers, {"alice": OUTPUTS})
    assert by_who(results(capfd, place / "alone", "alone.json")[1]) == {"alice": "untested"}


def test_an_attestation_says_when_how_long_and_which_target_made_what(
        place: Path, signers: Signers, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    both = {"bookworm-amd64": attest_kit.ENVIRONMENT, "bookworm-i386": f"{'7' * 64}  bash_5.2.15-2+b2_i386.deb\n"}
    of = report(environments=both)
    first = statement(of)
    attest_kit.workspace(place, of, (replace(first, subjects=first.subjects[:1]),
                                     statement(of, label="bookworm-i386", subjects=first.subjects[1:])))
    for words in (["-s", "alice", "--attest"], ["-s", "bob"]):
        assert gverify(capfd, *words, "-r", "1.0", "-d", "sigs", "pkg.yml", command="gsign").status == 0
    _, document = results(capfd, place / "sigs", "out.json", "-c", "bob")
    made = {one["architecture"]: one for one in document["results"]}
    assert {name: one["target"] for name, one in made.items()} == {
        "amd64": "x86_64-unknown-linux-gnu", "i386": "i686-unknown-linux-gnu"}
    assert [made[name]["artifacts"]["environments"][0]["files"][0]["path"] for name in ("amd64", "i386")] == [
        "pkg.tar.gz", "src/pkg-1.0.tar.gz"]
    # 2026-01-01T00:00:00Z to 00:02:05Z, as the statements of the kit say.
    assert {(one["build_date"], one["build_duration"]) for one in made.values()} == {(1767225725, 125)}
    assert {one["status"] for one in made.values()} == {"reproducible"}


def test_files_that_were_downloaded_can_be_the_initial_build(place: Path, signers: Signers,
                                                             capfd: pytest.CaptureFixture[str]) -> None:
    sign(place / "sigs", signers, {"alice": OUTPUTS, "bob": OUTPUTS})
    (place / "downloads").mkdir()
    (place / "downloads" / "pkg.tar.gz").write_bytes(EVIL["pkg.tar.gz"])
    status, document = results(capfd, place / "sigs", "out.json.gz", "--outputs", "downloads")
    assert status == 1
    assert by_who(document) == {"alice": "unreproducible", "bob": "unreproducible"}
    done = gverify(capfd, "out.json.gz", command="collect")
    assert done.status == 18
    assert "THE INITIAL BUILD IS NOT WHAT ITS SOURCE MAKES" in done.stderr
    assert "!!! all 2 rebuilders agree with each other, and NOT with the initial build" in done.stdout
    assert "pkg.tar.gz" in done.stderr
    (place / "downloads" / "pkg.tar.gz").write_bytes(OUTPUTS["pkg.tar.gz"])
    status, document = results(capfd, place / "sigs", "out.json.gz", "--outputs", "downloads")
    assert status == 0
    assert gverify(capfd, "out.json.gz", command="collect").status == 0


def test_rebuilders_with_a_file_each(place: Path, signers: Signers, capfd: pytest.CaptureFixture[str]) -> None:
    """Each verifies a tree of her own; the collector sees through the signatures who is who."""
    for who in ("alice", "bob", "carol"):
        sign(place / who, signers, {"official": EVIL, who: OUTPUTS})
        status, _ = results(capfd, place / who, f"{who}.json", "-c", "official", "--rbvf-sign", who)
        assert status == 1
        assert Path(f"{who}.json.sig").is_file()
    done = gverify(capfd, "--json", "--signed", "alice.json", "bob.json", "carol.json", command="collect")
    assert done.status == 18
    subject, = done.document["subjects"]
    assert (subject["standing"], subject["rebuilders"], subject["against_initial"]) == (
        "contradicted", 3, ["pkg.tar.gz"])
    assert [one["key"] for one in done.document["files"]] == [
        signers.fingerprints[who] for who in ("alice", "bob", "carol")]


def test_files_whose_signature_is_bad_do_not_count(place: Path, signers: Signers,
                                                   capfd: pytest.CaptureFixture[str]) -> None:
    sign(place / "sigs", signers, {"official": OUTPUTS, "alice": OUTPUTS})
    results(capfd, place / "sigs", "good.json", "-c", "official")
    results(capfd, place / "sigs", "bad.json", "-c", "official", "--rbvf-sign", "alice")
    Path("bad.json").write_bytes(Path("bad.json").read_bytes() + b"\n")
    done = gverify(capfd, "good.json", "bad.json", command="collect")
    assert done.status == 1
    assert "bad.json: REFUSED: BAD SIGNATURE" in done.stdout
    assert "REPRODUCED" in done.stdout
    done = gverify(capfd, "--signed", "good.json", command="collect")
    assert done.status == 1
    assert "it is not signed" in done.stdout
    # A key that we do not know is no reason to pass it over, unless signatures are required.
    keys = place / "key.gpg"
    keys.write_bytes(signers.export("stranger"))
    results(capfd, place / "sigs", "bad.json", "-c", "official", "--rbvf-sign", "alice")
    only = ("--only-keyring", "--keyring", str(keys))
    assert gverify(capfd, *only, "bad.json", command="collect").status == 0
    assert gverify(capfd, *only, "--signed", "bad.json", command="collect").status == 1


def test_a_damaged_file_does_not_keep_us_from_the_others(place: Path, signers: Signers,
                                                         capfd: pytest.CaptureFixture[str]) -> None:
    sign(place / "sigs", signers, {"official": OUTPUTS, "alice": OUTPUTS})
    results(capfd, place / "sigs", "good.json", "-c", "official")
    Path("bad.json").write_bytes(b'{"results": \x1b[2J')
    done = gverify(capfd, "good.json", "bad.json", command="collect")
    assert done.status == 1
    assert "bad.json: REFUSED" in done.stdout
    assert "REPRODUCED" in done.stdout
    assert "\x1b" not in done.stdout


def test_what_is_untested_is_said(place: Path, signers: Signers, capfd: pytest.CaptureFixture[str]) -> None:
    sign(place / "sigs", signers, {"official": OUTPUTS})
    (place / "sigs" / "1.0" / "alice").mkdir()
    results(capfd, place / "sigs", "out.json", "-c", "official")
    done = gverify(capfd, "out.json", command="collect")
    assert done.status == 14
    assert "UNTESTED" in done.stdout
    assert "untested: alice (MISSING RESULT)" in done.stdout


def test_more_rebuilders_can_be_required(place: Path, signers: Signers, capfd: pytest.CaptureFixture[str]) -> None:
    sign(place / "sigs", signers, {"official": OUTPUTS, "alice": OUTPUTS})
    results(capfd, place / "sigs", "out.json", "-c", "official")
    assert gverify(capfd, "out.json", command="collect").status == 0
    done = gverify(capfd, "--require", "2", "out.json", command="collect")
    assert done.status == 13
    assert "1 of 2 required rebuilders" in done.stdout


def test_an_old_signature_does_not_stay_beside_new_results(place: Path, signers: Signers,
                                                           capfd: pytest.CaptureFixture[str]) -> None:
    sign(place / "sigs", signers, {"official": OUTPUTS, "alice": OUTPUTS})
    results(capfd, place / "sigs", "out.json", "-c", "official", "--rbvf-sign", "alice")
    results(capfd, place / "sigs", "out.json", "-c", "official")
    assert not Path("out.json.sig").exists()


def test_bad_usage(place: Path, signers: Signers, capfd: pytest.CaptureFixture[str]) -> None:
    sign(place / "sigs", signers, {"official": OUTPUTS})
    assert gverify(capfd, "-r", "1.0", "-d", "sigs", "--rbvf-sign", "alice", "pkg.yml").status == 2
    assert gverify(capfd, "--all", "-d", "sigs", "--rbvf", "x", "pkg.yml").status == 2
    assert gverify(capfd, "-r", "1.0", "-d", "sigs", "--rbvf", "x", "--rbvf-origin", "a1", "pkg.yml").status == 2
    assert gverify(capfd, "absent.json", command="collect").status == 4
    assert gverify(capfd, "pkg.yml", "pkg.yml", command="collect").status == 2


def test_a_directory_whose_name_is_no_text(place: Path, signers: Signers, capfd: pytest.CaptureFixture[str]) -> None:
    import os

    sign(place / "sigs", signers, {"official": OUTPUTS})
    content = Assertion(report=report(), release="1.0", name="pkg").to_yaml().encode()
    put(place / "sigs", "1.0", os.fsdecode(b"al\xffice"), content, signers.sign("alice", content))
    _, document = results(capfd, place / "sigs", "out.json", "-c", "official")
    assert by_who(document) == {"al\\xffice": "reproducible"}
    assert gverify(capfd, "out.json", command="collect").status == 0


def test_a_whole_tree_is_verified_with_its_attestations(place: Path, signers: Signers,
                                                        capfd: pytest.CaptureFixture[str]) -> None:
    attest_kit.workspace(place)
    for release in ("1.0", "1.1"):
        assert gverify(capfd, "-s", "alice", "--attest", "-r", release, "-d", "sigs", "pkg.yml",
                       command="gsign").status == 0
    assert gverify(capfd, "--all", "-d", "sigs").status == 0
    bundle = place / "sigs" / "1.1" / "alice" / "pkg-build.intoto.jsonl"
    bundle.write_bytes(bundle.read_bytes()[:-1])
    done = gverify(capfd, "--all", "--json", "-d", "sigs")
    assert done.status == 1
    assert done.document["outcomes"]["BAD ATTESTATION"] == 1
