"""Groups, the reference and the decision, from signers whose signatures were judged."""

from __future__ import annotations

import pytest

from gitian.errors import UsageError
from gitian.formats.assertion import Assertion
from gitian.formats.report import Report
from gitian.sigs.grouping import Candidate, decide
from gitian.sigs.policy import Policy
from gitian.sigs.verdict import Decision, Document, Facts, Outcome, SignatureState, Verdict, build_digest, differences

ONE = "{}  x\n".format("1" * 64)
TWO = "{}  x\n{}  y\n".format("2" * 64, "3" * 64)
THREE = "{}  x\n".format("3" * 64)


def signer(name: str, out: str, *, key: str = "", outcome: Outcome = Outcome.OK, release: str = "r",
           package: str = "p", error: str = "") -> Candidate:
    made = Assertion(report=Report(out_manifest=out, in_manifest="", base_manifests=()), release=release, name=package)
    state = SignatureState(outcome=outcome, fingerprint=key or name,
                           keys=(key or name,) if outcome is Outcome.OK else ())
    facts = Facts(error=error) if error else Facts(release=release, name=package, build=build_digest(out))
    return Candidate(signer=name, path=f"r/{name}/p-build.assert", state=state, facts=facts,
                     document=None if error else Document(lambda: made))


def outcomes(verdict: Verdict) -> dict[str, str]:
    return {found.signer: found.outcome.value for found in verdict.signers}


def test_the_largest_group_is_the_reference_not_the_first() -> None:
    found = decide("r", "p", [signer("a", ONE), signer("b", TWO), signer("c", TWO)], policy=Policy())
    assert outcomes(found) == {"a": "MISMATCH", "b": "OK", "c": "OK"}
    assert (found.decision, found.agreeing, found.reference) == (Decision.DISAGREE, 2, 0)
    assert [(each.path, each.reference, each.own) for each in found.signers[0].differences] == [
        ("x", "2" * 64, "1" * 64), ("y", "3" * 64, None)]


def test_a_tie_is_no_verdict() -> None:
    found = decide("r", "p", [signer("a", ONE), signer("b", TWO)], policy=Policy())
    assert outcomes(found) == {"a": "MISMATCH", "b": "MISMATCH"}
    assert (found.reference, found.agreeing, found.exit_code) == (None, 0, 1)


def test_signatures_that_do_not_count_make_no_group_larger() -> None:
    found = decide("r", "p", [signer("a", ONE, outcome=Outcome.NO_KEY), signer("b", ONE, outcome=Outcome.BAD_SIGNATURE),
                              signer("c", ONE, release="other"), signer("d", TWO)], policy=Policy())
    assert outcomes(found) == {"a": "NO KEY", "b": "BAD SIGNATURE", "c": "WRONG RELEASE", "d": "OK"}
    assert found.agreeing == 1


def test_a_key_counts_once_however_many_directories_it_fills() -> None:
    found = decide("r", "p", [signer("a", ONE, key="K"), signer("b", ONE, key="K"), signer("c", TWO), signer("d", TWO)],
                   policy=Policy())
    assert outcomes(found) == {"a": "MISMATCH", "b": "MISMATCH", "c": "OK", "d": "OK"}
    assert any("same key as 'b'" in remark for remark in found.signers[0].remarks)
    alone = decide("r", "p", [signer("a", ONE, key="K"), signer("b", ONE, key="K")], policy=Policy(require=2))
    assert (alone.decision, alone.agreeing) == (Decision.POLICY, 1)


def test_weights_decide_which_group_is_the_reference() -> None:
    heavy = Policy(minimum_weight=2, weights={"a": 2})
    found = decide("r", "p", [signer("a", ONE), signer("b", TWO), signer("c", TWO)], policy=heavy)
    assert outcomes(found) == {"a": "OK", "b": "MISMATCH", "c": "MISMATCH"}
    light = decide("r", "p", [signer("b", TWO), signer("c", TWO)], policy=heavy)
    assert (light.decision, light.weight, light.agreeing) == (Decision.POLICY, 0, 2)


def test_compare_to_takes_whoever_is_named() -> None:
    signers = [signer("a", ONE), signer("b", TWO), signer("c", TWO), signer("d", THREE, outcome=Outcome.NO_KEY)]
    assert outcomes(decide("r", "p", signers, policy=Policy(), compare_to="a")) == {
        "a": "OK", "b": "MISMATCH", "c": "MISMATCH", "d": "NO KEY"}
    assert outcomes(decide("r", "p", signers, policy=Policy(), compare_to="d"))["b"] == "MISMATCH"
    with pytest.raises(UsageError, match="no signer 'z'"):
        decide("r", "p", signers, policy=Policy(), compare_to="z")
    with pytest.raises(UsageError, match="web page"):
        decide("r", "p", [signer("a", ONE, error="a web page")], policy=Policy(), compare_to="a")


@pytest.mark.parametrize(("state", "code"), [
    (Outcome.OK, 0), (Outcome.NO_KEY, 1), (Outcome.BAD_SIGNATURE, 1), (Outcome.EXPIRED_KEY, 1),
    (Outcome.REVOKED_KEY, 1), (Outcome.UNREADABLE, 1), (Outcome.MISSING_RESULT, 0), (Outcome.MISSING_SIGNATURE, 0)])
def test_exit_status_beside_somebody_who_is_right(state: Outcome, code: int) -> None:
    assert decide("r", "p", [signer("a", ONE), signer("b", ONE, outcome=state)], policy=Policy()).exit_code == code


def test_nothing_to_verify() -> None:
    assert decide("r", "p", [], policy=Policy()).exit_code == 14
    assert decide("r", "p", [signer("a", ONE, outcome=Outcome.MISSING_SIGNATURE)], policy=Policy()).exit_code == 14


def test_the_same_files_written_differently_are_said_to_be_that() -> None:
    lines = TWO.splitlines(keepends=True)
    found = decide("r", "p", [signer("a", TWO), signer("b", TWO), signer("c", lines[1] + lines[0])], policy=Policy())
    assert found.signers[2].outcome is Outcome.MISMATCH
    assert "written down differently" in found.signers[2].detail
    assert not differences(TWO, lines[1] + lines[0])
