"""gverify on the trees made for the purpose, against what the classic said of them.

Every difference is of a kind that docs/reference/differences.md explains.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.gverify_kit import gverify

ROOT = Path(__file__).resolve().parents[2]
SYNTHETIC = ROOT / "tests" / "fixtures" / "gverify-synthetic"
CASES = [json.loads(line) for line in (SYNTHETIC / "expected.jsonl").read_text("utf-8").splitlines()]

CHECKED = "Every signer's release and name are checked"
CRASH = "Nothing stops the run"
TEXT = "An unquoted release is the text that it is"
LARGEST = "The reference is the largest group"
REVOKED = "A key that may be stolen does not count"
NO_KEY = "A key that is not at hand has its own word"
UNREADABLE = "What is no assertion is called so"
USAGE = "Exit statuses tell kinds of failure apart"

#: case -> (kind of difference, verdicts, exit status)
DIFFERENCES: dict[str, tuple[str, list[tuple[str, str]], int]] = {
    "mismatch-release-first": (CHECKED, [("alice", "WRONG RELEASE"), ("bob", "OK")], 1),
    "mismatch-release-first-cmp": (CHECKED, [("alice", "WRONG RELEASE"), ("bob", "OK")], 1),
    "mismatch-name": (CHECKED, [("alice", "OK"), ("bob", "WRONG NAME")], 1),
    "numeric-22": (CHECKED, [("alice", "WRONG RELEASE")], 1),
    "shorter": (CRASH, [("alice", "OK"), ("bob", "MISMATCH"), ("grace", "OK")], 1),
    "relname-date": (CRASH, [("alice", "OK"), ("bob", "OK")], 0),
    "odd-dollar": (CRASH, [("a$b", "OK")], 0),
    "odd-utf8": (CRASH, [("é", "OK")], 0),
    "odd-paren": (CRASH, [("a(b)", "OK"), ("zed", "OK")], 0),
    "relname-22": (TEXT, [("alice", "OK"), ("bob", "OK")], 0),
    "relname-1.0": (TEXT, [("alice", "OK"), ("bob", "OK")], 0),
    "relname-0x1": (TEXT, [("alice", "OK"), ("bob", "OK")], 0),
    "bad-first": (LARGEST, [("alice", "BAD SIGNATURE"), ("bob", "OK"), ("grace", "OK")], 1),
    "key-revoked": (REVOKED, [("dave", "REVOKED KEY")], 1),
    "key-unknown": (NO_KEY, [("alice", "OK"), ("frank", "NO KEY")], 1),
    "yaml-no-out-first": (UNREADABLE, [("alice", "UNREADABLE"), ("bob", "OK"), ("grace", "OK")], 1),
    **{f"yaml-{what}": (UNREADABLE, [("alice", "OK"), ("bob", "UNREADABLE"), ("grace", "OK")], 1)
       for what in ("empty", "html", "list", "bad", "alias", "number-out", "tab")},
    "release-absent": (USAGE, [], 14),
    "release-unsanitary": (USAGE, [], 2),
    "release-slash": (USAGE, [], 2),
    "compare-absent": (USAGE, [], 2),
    "compare-dotdot": (USAGE, [], 2),
    "no-name": (USAGE, [], 3),
    "name-unsanitary": (USAGE, [], 3),
    "desc-empty": (USAGE, [], 3),
    "desc-absent": (USAGE, [], 3),
    "no-args": (USAGE, [], 2),
}


@pytest.fixture(scope="module")
def home() -> Iterator[Path]:
    """A GnuPG home with the keys, for programs given with -p: they look into the user's."""
    path = Path(tempfile.mkdtemp(prefix="gs", dir="/tmp"))
    keys = sorted((SYNTHETIC / "keys").glob("*.asc"), key=lambda key: "revocation" in key.name)
    subprocess.run(["gpg", "--homedir", str(path), "--batch", "--quiet", "--import", *map(str, keys)],
                   check=True, capture_output=True)
    yield path
    subprocess.run(["gpgconf", "--homedir", str(path), "--kill", "all"], capture_output=True, check=False)
    shutil.rmtree(path, ignore_errors=True)


@pytest.fixture
def synthetic(tmp_path: Path, home: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(SYNTHETIC)
    monkeypatch.setenv("HOME", str(tmp_path / "nowhere"))
    monkeypatch.setenv("GNUPGHOME", str(home))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["id"])
def test_as_the_classic_or_better_on_purpose(case: dict[str, Any], synthetic: Path,
                                             capfd: pytest.CaptureFixture[str]) -> None:
    descriptor = synthetic / "D.yml"
    descriptor.write_text(case["descriptor"], "utf-8")
    words = [str(descriptor) if word == "D.yml" else word for word in case["argv"]]
    ran = gverify(capfd, *words, *([] if "--help" in words else ["--keyring", "keys", "--only-keyring"]))
    classic = ([tuple(found) for found in case["verdicts"]], case["exit_code"])
    _, *ours = DIFFERENCES.get(case["id"], ("", *classic))
    assert (ran.verdicts, ran.status) == tuple(ours)
    assert ran.missing == [tuple(found) for found in case["missing"]]
    if case["id"] in DIFFERENCES:
        assert tuple(ours) != classic, "the table says it differs, and it does not"
    bold = "\x1b[1m" in case["stdout"]
    assert ("\x1b[1m" in ran.stdout) == bold


def test_every_kind_of_difference_is_documented() -> None:
    text = (ROOT / "docs" / "reference" / "differences.md").read_text("utf-8")
    for kind in {kind for kind, _, _ in DIFFERENCES.values()}:
        assert f"\n## {kind}\n" in text


def test_gnupg_s_own_words_with_verbose(synthetic: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """The lines of the classic that do not depend on GnuPG's version."""
    (synthetic / "D.yml").write_text('name: "pkg"\n')
    ran = gverify(capfd, "-v", "--no-markup", "-d", "sigs", "-r", "mismatch-manifest", str(synthetic / "D.yml"),
                  "--keyring", "keys", "--only-keyring")
    expected = next(case for case in CASES if case["id"] == "mismatch-manifest")["stdout"]
    for line in expected.splitlines():
        if line.startswith(("gpg: Signature made", "gpg: Good signature", "- ", "+ ", "Primary key fingerprint:")):
            assert line in ran.stdout.splitlines()


def test_without_gnupg_s_home_or_any_home(synthetic: Path, capfd: pytest.CaptureFixture[str],
                                          monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("GNUPGHOME")
    monkeypatch.setenv("HOME", "")
    monkeypatch.delenv("XDG_CACHE_HOME")
    (synthetic / "D.yml").write_text('name: "pkg"\n')
    ran = gverify(capfd, "-d", "sigs", "-r", "all-ok", str(synthetic / "D.yml"), "--keyring", "keys/alice.asc")
    assert ran.verdicts == [("alice", "OK"), ("bob", "NO KEY"), ("grace", "NO KEY")]


def test_the_keys_that_a_repository_carries_and_the_user_s_own(synthetic: Path, capfd: pytest.CaptureFixture[str],
                                                               home: Path) -> None:
    (synthetic / "D.yml").write_text('name: "pkg"\n')
    shutil.copytree(SYNTHETIC / "sigs" / "all-ok", synthetic / "tree" / "all-ok")
    where = ("-d", str(synthetic / "tree"), "-r", "all-ok", str(synthetic / "D.yml"))
    before = {path: path.stat().st_mtime_ns for path in home.iterdir()}
    assert [word for _, word in gverify(capfd, *where).verdicts] == ["OK"] * 3  # $GNUPGHOME
    assert {path: path.stat().st_mtime_ns for path in home.iterdir()} == before, "the user's home was touched"
    os.environ["GNUPGHOME"] = str(synthetic / "none")
    assert [word for _, word in gverify(capfd, *where).verdicts] == ["NO KEY"] * 3
    assert not (synthetic / "none").exists()
    folder = synthetic / "tree" / "gitian-keys"
    folder.mkdir()
    for name in ("alice", "bob"):
        shutil.copy(SYNTHETIC / "keys" / f"{name}.asc", folder / f"{name}-key.pgp")
    assert [word for _, word in gverify(capfd, *where).verdicts] == ["OK", "OK", "NO KEY"]


def test_json_says_what_the_lines_say(synthetic: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (synthetic / "D.yml").write_text('name: "pkg"\n')
    ran = gverify(capfd, "--json", "-d", "sigs", "-r", "mismatch-manifest", str(synthetic / "D.yml"),
                  "--keyring", "keys", "--only-keyring")
    found = ran.document
    assert [(each["signer"], each["outcome"], each["group"]) for each in found["signers"]] == [
        ("alice", "OK", 0), ("bob", "MISMATCH", 1), ("grace", "OK", 0)]
    assert found["signers"][2]["fingerprint"] == "1879DCF74C8C41AAB96784C4859DA9B2C5DF445A"  # the primary key's
    assert [each["path"] for each in found["signers"][1]["differences"]] == ["pkg-1.0-win64.zip"]
    assert (found["exit_code"], ran.status, found["agreeing"]) == (1, 1, 2)


def test_require_and_policy(synthetic: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (synthetic / "D.yml").write_text('name: "pkg"\n')
    alice, bob = "64FBFD70A129A333C85902920769E6111947BCE5", "674E5F4D0DE28EF43F80A32408506024EB22BB4A"
    (synthetic / "enough").write_text(f"minimum_weight: 3\nsigners: {{{alice}: 2, {bob}: 1}}\n")
    (synthetic / "lacking").write_text(f"minimum_weight: 3\nsigners: {{{alice}: 2, {'A' * 40}: 1}}\n")
    common = ("-d", "sigs", "-r", "all-ok", str(synthetic / "D.yml"), "--keyring", "keys", "--only-keyring")
    assert gverify(capfd, "--require", "3", *common).status == 0
    short = gverify(capfd, "--require", "4", *common)
    assert (short.status, "3 of 4 required signers agree" in short.stdout) == (13, True)
    assert gverify(capfd, "--policy", str(synthetic / "enough"), *common).status == 0
    light = gverify(capfd, "--policy", str(synthetic / "lacking"), *common)
    assert (light.status, "weigh 2 of 3" in light.stdout) == (13, True)


@pytest.mark.parametrize("number", ["0", "-1", "10001", "\uff12", "1_0", " 1", "1.0", "nan", ""])
def test_require_takes_plain_numbers(synthetic: Path, capfd: pytest.CaptureFixture[str], number: str) -> None:
    ran = gverify(capfd, "--require", number, "-d", "sigs", "-r", "all-ok", "D.yml")
    assert ran.status == 2 and "--require" in ran.stderr


def test_keys_lists_who_is_known_and_who_is_not(synthetic: Path, capfd: pytest.CaptureFixture[str]) -> None:
    where = ("-d", "sigs", "--keyring", "keys", "--only-keyring")

    def states(release: str) -> list[tuple[str, str]]:
        ran = gverify(capfd, "--json", *where, "-r", release, command="keys")
        return [(row["signer"], row["state"]) for row in ran.document]

    assert states("key-unknown") == [("alice", "known"), ("frank", "missing")]
    assert states("key-expired") == [("carol", "expired")]
    assert states("key-revoked") == [("dave", "revoked")]
    assert states("missing-signature") == [("alice", "no signature"), ("bob", "known")]
    assert gverify(capfd, *where, "-r", "all-ok", command="keys").status == 0
    listed = gverify(capfd, "--keyring", "keys", "--only-keyring", command="keys")
    assert listed.stdout.count("example.invalid") == 6
    assert "expired" in listed.stdout and "revoked" in listed.stdout
