"""gverify on real release trees of seven projects, against what the classic said of each signer."""

from __future__ import annotations

from collections import Counter, defaultdict
from functools import cache
from pathlib import Path

import pytest

from gitian.formats.assertion import Assertion
from gitian.sigs import keys, tree, verify
from gitian.sigs.verdict import Outcome, Verdict
from tests.shared import FIXTURES, needs_shared

pytestmark = needs_shared

Run = tuple[str, str, str]

#: Signers whose key, in the copy at hand, had expired when they signed: GnuPG looks at the present only.
EXPIRED = {("19.3.0-win-signed", "UdjinM6"), ("19.3.0-win-signed", "pasta"), ("0.14.0rc1-osx-signed", "E50FE137")}


def rows(name: str) -> list[dict[str, str]]:
    lines = (FIXTURES / "expected" / name).read_text().splitlines()
    heads = lines[0].split("\t")
    return [dict(zip(heads, line.split("\t"), strict=True)) for line in lines[1:]]


@cache
def keyring() -> keys.Keyring:
    return keys.gather(keys.Sources(keyrings=(FIXTURES / "keys",), folders=False))


@cache
def ours(run: Run, compare_to: str | None = None) -> Verdict:
    where = tree.DirectoryTree(FIXTURES / run[0])
    return verify.verify_release(verify.Request(tree=where, keyring=keyring(), compare_to=compare_to), *run[1:])


def runs() -> dict[Run, dict[str, dict[str, str]]]:
    found: dict[Run, dict[str, dict[str, str]]] = defaultdict(dict)
    if FIXTURES.is_dir():
        for row in rows("verdicts.tsv"):
            found[row["sigs_dir"], row["release"], row["package"]][row["signer"]] = row
    return found


def assertion(run: Run, signer: str) -> Assertion:
    return Assertion.read(Path(FIXTURES) / run[0] / run[1] / signer / f"{run[2]}-build.assert")


@pytest.mark.parametrize("run", runs(), ids="/".join)
def test_every_signer_as_the_classic_or_for_a_reason(run: Run) -> None:
    classic = runs()[run]
    verdict = ours(run)
    assert [signer.signer for signer in verdict.signers] == list(classic)
    for signer in verdict.signers:
        row, outcome = classic[signer.signer], signer.outcome
        word = row["verdict"]
        if word in ("MISSING RESULT", "MISSING SIGNATURE"):
            assert outcome.value == word
        elif word == "BAD SIGNATURE":
            assert outcome is (Outcome.NO_KEY if row["reason"] == "no public key" else Outcome.BAD_SIGNATURE)
        elif (run[1], signer.signer) in EXPIRED:
            assert outcome is Outcome.EXPIRED_KEY
        elif assertion(run, signer.signer).release != run[1]:
            assert outcome is Outcome.WRONG_RELEASE
        else:
            assert outcome in (Outcome.OK, Outcome.MISMATCH)


@pytest.mark.parametrize("run", runs(), ids="/".join)
def test_the_reference_is_what_most_valid_signers_built(run: Run) -> None:
    """Counted here by other means: texts of manifests, by people of whom the test above says that they count."""
    verdict = ours(run)
    built = {signer.signer: assertion(run, signer.signer).out_manifest for signer in verdict.signers if signer.valid}
    counts = Counter(built.values()).most_common(2)
    tie = len(counts) == 2 and counts[0][1] == counts[1][1]
    for name, text in built.items():
        signer = verdict.signer(name)
        assert signer is not None
        agrees = bool(counts) and not tie and text == counts[0][0]
        assert signer.outcome is (Outcome.OK if agrees else Outcome.MISMATCH)


@pytest.mark.parametrize("run", runs(), ids="/".join)
def test_exit_status(run: Run) -> None:
    classic = int(next(iter(runs()[run].values()))["exit_code"])
    verdict = ours(run)
    words = {signer.outcome for signer in verdict.signers}
    if words <= {Outcome.MISSING_RESULT, Outcome.MISSING_SIGNATURE}:
        assert verdict.exit_code == 14  # nothing to verify; the classic is content with that
    elif words & {Outcome.WRONG_RELEASE, Outcome.EXPIRED_KEY} and classic == 0:
        assert verdict.exit_code == 1
    else:
        assert verdict.exit_code == classic


def test_compared_to_each_signer_in_turn() -> None:
    seen = 0
    for row in rows("verdicts_compare_to.tsv"):
        run = (row["sigs_dir"], row["release"], row["package"])
        if row["crash"]:
            continue
        signer = ours(run, row["compare_to"]).signer(row["signer"])
        assert signer is not None
        if signer.outcome in (Outcome.OK, Outcome.MISMATCH):
            seen += 1
            assert signer.outcome.value == row["verdict"], row
        else:
            # Everything else was looked at above, and does not depend on whom one compares to.
            plain = ours(run).signer(row["signer"])
            assert plain is not None and signer.outcome is plain.outcome
    assert seen > 400


def test_both_ways_of_asking_gnupg_agree() -> None:
    """Many signatures as messages in one process, or each as what it is in a process of its own."""
    for run in runs():
        where = tree.DirectoryTree(FIXTURES / run[0])
        words = verify.verify_release(
            verify.Request(tree=where, keyring=keyring(), words=True), *run[1:])
        for one, other in zip(ours(run).signers, words.signers, strict=True):
            assert (one.outcome, one.fingerprint, one.made, one.remarks) == (
                other.outcome, other.fingerprint, other.made, other.remarks)
            if one.valid:
                assert "Good signature" in other.text


def test_fingerprints_are_those_that_gnupg_printed() -> None:
    for run in runs():
        text = (FIXTURES / "expected" / "stdout" / run[0] / f"{run[1]}__{run[2]}.out").read_text().replace(" ", "")
        for signer in ours(run).signers:
            if signer.valid:
                assert f"Primarykeyfingerprint:{signer.fingerprint}" in text
