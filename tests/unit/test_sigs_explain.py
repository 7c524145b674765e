"""Why signers differ: planted causes are named first, random builds are called so, and nothing is made up."""

from __future__ import annotations

import json
import math
import random
import string
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from gitian.cli import verdict_explain
from gitian.formats.assertion import Assertion
from gitian.formats.debversion import order
from gitian.formats.manifest import Manifest
from gitian.formats.report import Report
from gitian.host.progress import plain
from gitian.sigs import factors, tree, verify
from gitian.sigs.environments import Kind, Recorder
from gitian.sigs.explain import Cause, Diagnosis, Explanation, document, explain
from gitian.sigs.factors import Change
from gitian.sigs.grouping import Candidate, decide
from gitian.sigs.policy import Policy
from gitian.sigs.stages import Place
from gitian.sigs.verdict import Document, Outcome, SignatureState, Verdict
from tests.shared import FIXTURES, needs_shared


def sha(word: str) -> str:
    """Something that looks like a hash, the same for the same word."""
    return "".join(random.Random(word).choices("0123456789abcdef", k=64))


@dataclass(frozen=True, kw_only=True)
class Built:
    """What one signer built from what; each name stands for a word, from which its hash is made."""

    out: Mapping[str, str] = field(default_factory=lambda: {"pkg.tar.gz": "good", "src/pkg.tar.gz": "source"})
    files: Mapping[str, str] = field(default_factory=lambda: {"pkg-desc.yml": "descriptor", "sdk.tar.gz": "sdk"})
    commits: Mapping[str, str] = field(default_factory=lambda: {"pkg": "commit", "signature": "signature"})
    packages: Mapping[str, str] = field(default_factory=dict)
    common: Mapping[str, str] = field(default_factory=dict)
    cache: Mapping[str, str] = field(default_factory=dict)
    targets: Sequence[str] = ("bookworm-amd64",)

    def assertion(self, release: str = "1.0", name: str = "pkg") -> Assertion:
        packages = Manifest.sorted((sha(package + version), f"{package}_{version}_amd64.deb")
                                   for package, version in self.packages.items()).text()
        return Assertion(release=release, name=name, report=Report(
            out_manifest=_files(self.out),
            in_manifest=_files(self.files) + "".join(f"git:{sha(commit)[:40]} {directory}"
                                                     for directory, commit in self.commits.items()),
            base_manifests=tuple((target, packages) for target in self.targets),
            cache_common_manifest=_files(self.common), cache_package_manifest=_files(self.cache)))


def _files(files: Mapping[str, str]) -> str:
    return Manifest.sorted((sha(word), path) for path, word in files.items()).text()


BASE = Built(packages={"bash": "5.2-2", "gcc-12": "12.2.0-14", "g++-12": "12.2.0-14", "libc6": "2.36-9", "tzdata": "1"},
             common={"boost.tar.gz": "boost", "qt.tar.gz": "qt"}, cache={"host/boost-1": "b1", "host/qt-5": "q5"})


def judged(builds: Mapping[str, Built | Assertion], *, not_counting: Sequence[str] = (),
           compare_to: str | None = None) -> Verdict:
    """The verdict on signers who all have a good signature, but for those named."""
    candidates = []
    for signer, built in builds.items():
        assertion = built.assertion() if isinstance(built, Built) else built
        path = f"1.0/{signer}/pkg-build.assert"
        facts = verify.facts(assertion.to_yaml().encode(), path)
        state = SignatureState(outcome=Outcome.NO_KEY) if signer in not_counting else SignatureState(
            outcome=Outcome.OK, keys=(sha(signer)[:40],))
        candidates.append(Candidate(signer=signer, path=path, state=state, facts=facts,
                                    document=Document(lambda found=assertion: found)))  # type: ignore[misc]
    return decide("1.0", "pkg", candidates, policy=Policy(), compare_to=compare_to)


def why(builds: Mapping[str, Built | Assertion], signer: str) -> Diagnosis:
    return next(dissent.diagnosis for dissent in explain(judged(builds)).dissents if dissent.signer == signer)


def said(explanation: Explanation) -> str:
    return "\n".join(verdict_explain.lines(explanation))


# Versions and records.


def test_versions_sort_as_dpkg_sorts_them() -> None:
    # Each step was checked with 'dpkg --compare-versions A lt B'.
    ordered = ["0", "0.9-1", "1.0~~", "1.0~rc1", "1.0", "1.0-1~bpo1", "1.0-1", "1.0-1ubuntu1", "1.0-1+b1", "1.0a",
               "1.0+b1", "1.0.1", "1.2", "1.10", "2.27-3ubuntu1.4", "2.27-3ubuntu1.10", "1:0.1", "2:0"]
    shuffled = list(ordered)
    random.Random(1).shuffle(shuffled)
    assert sorted(shuffled, key=order) == ordered
    assert order("1.0") == order("01.00") == order("1.0")
    assert order("1" * 10_000) > order("9" * 9_999), "numbers of any length: they are a stranger's"


def test_the_newest_listed_version_counts_as_installed() -> None:
    lines = [(sha("old"), "bash_5.2-2_amd64.deb"), (sha("new"), "bash_5.2-10_amd64.deb"),
             (sha("epoch"), "git_1%3a2.39_amd64.deb"), (sha("old git"), "git_9.0_amd64.deb"),
             (sha("foreign"), "libc6_2.36_i386.deb"), (sha("all"), "tzdata_1_all.deb"), (sha("odd"), "what is this")]
    report = Report(out_manifest="", in_manifest="", base_manifests=(("bookworm-amd64", Manifest.of(lines).text()),))
    record = Recorder().record(Assertion(report=report, release="1.0", name="pkg"))
    assert record.domains[Kind.PACKAGE, "bookworm-amd64"] == {
        "bash": ("5.2-10", sha("new")), "git": ("1:2.39", sha("epoch")), "libc6:i386": ("2.36", sha("foreign")),
        "tzdata": ("1", sha("all")), "what is this": ("", sha("odd"))}


def test_odd_inputs_are_read() -> None:
    report = Report(out_manifest="", base_manifests=None, cache_common_manifest=None, cache_package_manifest=None,
                    in_manifest=f"{sha('d')}  pkg-desc.yml\ngit:{'a' * 40} signaturegit:{'b' * 40} signapple\nnonsense")
    record = Recorder().record(Assertion(report=report, release="1.0", name="pkg"))
    assert record.domains[Kind.COMMIT, ""] == {"signature": ("", "a" * 40), "signapple": ("", "b" * 40)}
    assert any("nonsense" in name for name in record.domains[Kind.INPUT, ""])
    assert record.environment is None and record.base is None
    assert record.domains[Kind.CACHE, "common"] == {}, "before there were caches, they were empty"


def test_thousands_of_targets_are_not_all_looked_at() -> None:
    """Each is a world of its own to compare: ten such assertions took a minute and more than a gigabyte."""
    report = Report(out_manifest="", in_manifest="",
                    base_manifests=tuple((f"t{number}", f"{sha('x')}  a_1_all.deb\n") for number in range(50_000)))
    record = Recorder().record(Assertion(report=report, release="1.0", name="pkg"))
    assert len(record.domains) < 110 and record.domains[Kind.PACKAGE, "t0"] == {"a": ("1", sha("x"))}


# The measure.


def test_separation_is_the_share_of_what_there_is_to_know() -> None:
    assert factors.separation(4, 4, 2, 0) == pytest.approx(1.0)
    assert factors.separation(4, 4, 2, 2) == 0.0, "everybody had it"
    assert factors.separation(3, 1, 1, 1) == 0.0, "commoner among those who differ"
    # By hand: the class has H(2/3); half of those who agree are told apart, the other two of three stay at one bit.
    whole = -(2 / 3 * math.log2(2 / 3) + 1 / 3 * math.log2(1 / 3))
    assert factors.separation(2, 1, 1, 0) == pytest.approx(1 - (2 / 3) / whole)
    assert factors.separation(5, 5, 2, 1) < factors.separation(5, 5, 2, 0)
    assert factors.separation(0, 0, 2, 0) == factors.separation(2, 2, 0, 0) == 0.0


# Planted causes.


def _with(built: Built, part: str, name: str, value: str | None) -> Built:
    before = dict(getattr(built, part))
    if value is None:
        del before[name]
    else:
        before[name] = value
    return replace(built, **{part: before})  # type: ignore[arg-type]


@dataclass(frozen=True, kw_only=True)
class Planted:
    plant: Callable[[Built], Built]
    kind: Kind
    name: str
    change: Change
    cause: Cause
    where: str = ""


PLANTED = {
    "version": Planted(plant=lambda built: _with(built, "packages", "gcc-12", "12.2.0-15"), kind=Kind.PACKAGE,
                       name="gcc-12", change=Change.CHANGED, cause=Cause.ENVIRONMENT, where="bookworm-amd64"),
    "dull package": Planted(plant=lambda built: _with(built, "packages", "tzdata", "2"), kind=Kind.PACKAGE,
                            name="tzdata", change=Change.CHANGED, cause=Cause.ENVIRONMENT, where="bookworm-amd64"),
    "package added": Planted(plant=lambda built: _with(built, "packages", "faketime", "1"), kind=Kind.PACKAGE,
                             name="faketime", change=Change.ADDED, cause=Cause.ENVIRONMENT, where="bookworm-amd64"),
    "package missing": Planted(plant=lambda built: _with(built, "packages", "bash", None), kind=Kind.PACKAGE,
                               name="bash", change=Change.MISSING, cause=Cause.ENVIRONMENT, where="bookworm-amd64"),
    "input": Planted(plant=lambda built: _with(built, "files", "sdk.tar.gz", "other"), kind=Kind.INPUT,
                     name="sdk.tar.gz", change=Change.CHANGED, cause=Cause.INPUTS),
    "input added": Planted(plant=lambda built: _with(built, "files", "a.patch", "patch"), kind=Kind.INPUT,
                           name="a.patch", change=Change.ADDED, cause=Cause.INPUTS),
    "input missing": Planted(plant=lambda built: _with(built, "files", "sdk.tar.gz", None), kind=Kind.INPUT,
                             name="sdk.tar.gz", change=Change.MISSING, cause=Cause.INPUTS),
    "descriptor": Planted(plant=lambda built: _with(built, "files", "pkg-desc.yml", "other"), kind=Kind.INPUT,
                          name="pkg-desc.yml", change=Change.CHANGED, cause=Cause.INPUTS),
    "commit": Planted(plant=lambda built: _with(built, "commits", "signature", "other"), kind=Kind.COMMIT,
                      name="signature", change=Change.CHANGED, cause=Cause.INPUTS),
    "common cache": Planted(plant=lambda built: _with(built, "common", "qt.tar.gz", "other"), kind=Kind.CACHE,
                            name="qt.tar.gz", change=Change.CHANGED, cause=Cause.CACHES, where="common"),
    "cache added": Planted(plant=lambda built: _with(built, "cache", "host/zlib", "z"), kind=Kind.CACHE,
                           name="host/zlib", change=Change.ADDED, cause=Cause.CACHES, where="package"),
    "target": Planted(plant=lambda built: replace(built, targets=("bookworm-amd64", "bookworm-i386")),
                      kind=Kind.TARGET, name="bookworm-i386", change=Change.ADDED, cause=Cause.ENVIRONMENT),
}


def _noisy(dice: random.Random, styles: int = 3) -> list[Built]:
    """Environments and caches that differ in much that does not matter."""
    found = []
    for style in range(styles):
        packages = dict(BASE.packages)
        common, cache = dict(BASE.common), dict(BASE.cache)
        for number in range(30):
            if dice.random() < 0.8:
                packages[f"noise-{number}"] = f"1.{dice.randrange(4)}-{style}"
            if dice.random() < 0.8:
                common[f"noise-{number}.tar.gz"] = str(dice.randrange(3))
                cache[f"noise/{number}"] = f"{style}"
        found.append(replace(BASE, packages=packages, common=common, cache=cache))
    return found


@pytest.mark.parametrize("same_output", [True, False], ids=["one other output", "each another output"])
@pytest.mark.parametrize("planted", PLANTED.values(), ids=PLANTED)
@pytest.mark.parametrize("seed", range(4))
def test_a_planted_cause_is_named_first(seed: int, planted: Planted, same_output: bool) -> None:
    dice = random.Random(seed)
    styles = _noisy(dice)
    builds = {f"agrees-{number}": styles[number % len(styles)] for number in range(3 + seed)}
    for number in range(1 + seed % 3):
        out = {"pkg.tar.gz": "bad" if same_output else f"bad {number}", "src/pkg.tar.gz": "source"}
        builds[f"differs-{number}"] = replace(planted.plant(dice.choice(styles)), out=out)
    if len(builds) % 2 and same_output:  # somebody who differs for another reason must not confuse it
        builds["stranger"] = replace(_with(styles[0], "commits", "pkg", "elsewhere"), out={"pkg.tar.gz": "strange"})
    explanation = explain(judged(builds))
    about = [dissent for dissent in explanation.dissents if dissent.signer.startswith("differs")]
    assert len(about) == 1 + seed % 3
    for dissent in about:
        assert dissent.outputs[0].path == "pkg.tar.gz"
        found = dissent.diagnosis
        first = found.suspects[0]
        assert (first.kind, first.name, first.where, first.change, first.also) == (
            planted.kind, planted.name, planted.where, planted.change, ())
        assert (found.cause, found.certain, first.exact) == (planted.cause, True, True)
        assert found.same_inputs == (() if planted.cause is Cause.INPUTS else explanation.agreement.signers)
        assert bool(found.same_environment) == (planted.cause is Cause.CACHES)
    text = said(explanation)
    assert f"   1. {planted.kind} '{planted.name}'" in text
    assert "not deterministic" not in text
    json.dumps(document(explanation))


def test_packages_of_one_source_are_told_together() -> None:
    other = replace(_with(_with(BASE, "packages", "gcc-12", "12.2.0-15"), "packages", "g++-12", "12.2.0-15"),
                    out={"pkg.tar.gz": "bad"})
    found = why({"a": BASE, "b": BASE, "c": other}, "c").suspects
    assert [(suspect.name, suspect.also) for suspect in found] == [("g++-12", ("gcc-12",))]


def test_a_package_of_the_same_version_with_another_hash_is_a_difference() -> None:
    plain_one = BASE.assertion()
    assert plain_one.base_manifests is not None
    text = plain_one.base_manifests[0][1].replace(sha("bash5.2-2"), sha("another bash"))
    other = replace(plain_one, report=replace(
        plain_one.report, base_manifests=(("bookworm-amd64", text),), out_manifest=_files({"pkg.tar.gz": "bad"})))
    explanation = explain(judged({"a": BASE, "b": BASE, "c": other}))
    assert explanation.dissents[0].diagnosis.suspects[0].name == "bash"
    assert sha("another bash")[:16] in said(explanation), "the versions alone would not tell"


def test_what_somebody_who_agrees_had_too_is_not_suspected() -> None:
    builds = {"a": BASE, "b": BASE, "c": _with(BASE, "packages", "bash", "5.2-3"),
              "d": replace(_with(_with(BASE, "packages", "bash", "5.2-3"), "packages", "libc6", "2.36-10"),
                           out={"pkg.tar.gz": "bad"})}
    found = why(builds, "d")
    assert [suspect.name for suspect in found.suspects] == ["libc6"]
    assert found.harmless == 1


def test_what_differs_in_only_some_of_those_who_built_the_same_comes_later() -> None:
    bad = {"pkg.tar.gz": "bad"}
    builds = {"a": BASE, "b": BASE, "c": BASE,
              "d": replace(_with(_with(BASE, "packages", "gcc-12", "99"), "packages", "libc6", "2.36-10"), out=bad),
              "e": replace(_with(BASE, "packages", "libc6", "2.36-10"), out=bad)}
    found = why(builds, "d").suspects
    assert [suspect.name for suspect in found] == ["libc6", "gcc-12"]
    assert [suspect.exact for suspect in found] == [True, False]


def test_other_inputs_come_before_what_follows_from_them() -> None:
    """Another descriptor installs other packages: whoever fixes that first has fixed the rest."""
    bad = _with(_with(_with(BASE, "packages", "gcc-12", "99"), "files", "pkg-desc.yml", "other"), "cache", "x", "y")
    # Another dissenter shares the packages alone, so that these separate the whole group better.
    builds = {"a": BASE, "b": BASE, "c": replace(bad, out={"pkg.tar.gz": "bad"}),
              "d": replace(_with(BASE, "packages", "gcc-12", "99"), out={"pkg.tar.gz": "worse"})}
    found = why(builds, "c")
    assert [suspect.name for suspect in found.suspects] == ["pkg-desc.yml", "gcc-12", "x"]
    assert (found.cause, found.certain) == (Cause.INPUTS, False)


def test_two_dissenters_with_two_causes_each_have_their_own() -> None:
    builds = {"a": BASE, "b": BASE, "c": BASE,
              "d": replace(_with(BASE, "packages", "gcc-12", "99"), out={"pkg.tar.gz": "bad"}),
              "e": replace(_with(BASE, "commits", "pkg", "other"), out={"pkg.tar.gz": "worse"})}
    assert [why(builds, signer).suspects[0].name for signer in "de"] == ["gcc-12", "pkg"]
    assert {suspect.name for suspect in explain(judged(builds)).ranking} == {"gcc-12", "pkg"}


def test_the_ranking_covers_the_whole_group() -> None:
    dissenters = {f"x{number}": replace(_with(BASE, "packages", "libc6", "2.36-10"), out={"pkg.tar.gz": str(number)})
                  for number in range(4)}
    dissenters["x0"] = _with(dissenters["x0"], "packages", "gcc-12", "99")
    ranking = explain(judged({"a": BASE, "b": BASE, "c": BASE, **dissenters})).ranking
    assert [suspect.name for suspect in ranking] == ["libc6", "gcc-12"]
    assert ranking[0].overall == pytest.approx(1.0) and 0 < ranking[1].overall < 1
    assert [(held.version, held.signers) for held in ranking[1].own] == [("12.2.0-14", 3), ("99", 1)]


# No cause.


def test_a_random_output_is_called_not_deterministic() -> None:
    explanation = explain(judged({"a": BASE, "b": BASE, "c": replace(BASE, out={"pkg.tar.gz": "random"})}))
    found = explanation.dissents[0].diagnosis
    assert (found.cause, found.certain, found.twins, found.suspects) == (Cause.NOT_DETERMINISTIC, True, ("a", "b"), ())
    assert "c: the build itself is not deterministic. 'a', 'b' had the same inputs, environment" in said(explanation)


@pytest.mark.parametrize("seed", range(5))
def test_a_random_output_among_noise_is_called_not_deterministic(seed: int) -> None:
    styles = _noisy(random.Random(seed))
    builds = {f"s{number}": styles[number % 3] for number in range(6)}
    builds["s4"] = replace(builds["s4"], out={"pkg.tar.gz": "random"})
    found = why(builds, "s4")
    assert (found.cause, found.certain, found.twins, found.suspects) == (Cause.NOT_DETERMINISTIC, True, ("s1",), ())


def test_what_varies_among_those_who_agree_does_not_explain() -> None:
    builds = {name: _with(BASE, "packages", "bash", f"5.{number}") for number, name in enumerate("abc")}
    builds["d"] = replace(_with(BASE, "packages", "bash", "5.9"), out={"pkg.tar.gz": "random"})
    explanation = explain(judged(builds))
    found = explanation.dissents[0].diagnosis
    assert (found.cause, found.certain, found.suspects[0].exact) == (Cause.NOT_DETERMINISTIC, False, False)
    assert "probably, the build itself is not deterministic" in said(explanation)


def test_caches_that_differ_everywhere_leave_it_open() -> None:
    builds = {name: _with(BASE, "cache", "host/qt-5", str(number)) for number, name in enumerate("abc")}
    builds["d"] = replace(_with(BASE, "cache", "host/qt-5", "x"), out={"pkg.tar.gz": "random"})
    explanation = explain(judged(builds))
    assert explanation.dissents[0].diagnosis.same_environment == ("a", "b", "c")
    assert "d: the build itself is not deterministic, or a cache made the difference" in said(explanation)


def test_without_a_recorded_environment_nothing_is_claimed() -> None:
    def bare(built: Built) -> Assertion:
        found = built.assertion()
        return replace(found, report=replace(found.report, base_manifests=None))

    explanation = explain(judged({"a": bare(BASE), "b": bare(BASE),
                                  "c": bare(replace(BASE, out={"pkg.tar.gz": "random"}))}))
    assert explanation.dissents[0].diagnosis.cause is Cause.UNRECORDED
    assert "not deterministic" not in said(explanation)
    assert explanation.agreement.unrecorded == ("a", "b") and explanation.agreement.environments == ()
    # A different commit is known all the same.
    assert why({"a": bare(BASE), "b": bare(BASE), "c": bare(replace(
        BASE, commits={"pkg": "other"}, out={"pkg.tar.gz": "bad"}))}, "c").cause is Cause.INPUTS


def test_the_same_files_written_down_differently() -> None:
    first = BASE.assertion()
    turned = "".join(reversed(first.out_manifest.splitlines(keepends=True)))
    other = replace(first, report=replace(first.report, out_manifest=turned))
    assert why({"a": first, "b": first, "c": other}, "c").cause is Cause.SAME_FILES


# Who counts.


def test_who_has_no_valid_signature_is_no_witness() -> None:
    liar = replace(_with(BASE, "packages", "bash", "666"), out={"pkg.tar.gz": "bad"})
    builds = {"a": BASE, "b": BASE, "c": replace(_with(BASE, "packages", "gcc-12", "99"), out={"pkg.tar.gz": "bad"}),
              **{f"liar-{number}": liar for number in range(5)}}
    explanation = explain(judged(builds, not_counting=[f"liar-{number}" for number in range(5)]))
    by_name = {dissent.signer: dissent for dissent in explanation.dissents}
    assert explanation.agreement.signers == ("a", "b") and explanation.agreement.counts
    assert [suspect.name for suspect in by_name["c"].diagnosis.suspects] == ["gcc-12"]
    assert by_name["c"].diagnosis.suspects[0].exact
    assert [suspect.name for suspect in explanation.ranking] == ["gcc-12"]
    assert not by_name["liar-0"].counts
    assert "liar-0 (NO KEY: the signature does not count): " in said(explanation)


def test_who_has_no_valid_signature_exonerates_nothing() -> None:
    guilty = _with(BASE, "packages", "gcc-12", "99")
    builds = {"a": BASE, "b": BASE, "c": replace(guilty, out={"pkg.tar.gz": "bad"}), "liar": guilty}
    explanation = explain(judged(builds, not_counting=["liar"]))
    assert [suspect.name for suspect in explanation.dissents[0].diagnosis.suspects] == ["gcc-12"]
    assert len(explanation.agreement.environments) == 1


def test_without_any_key_what_the_files_say_is_compared() -> None:
    builds = {"x": replace(_with(BASE, "packages", "gcc-12", "99"), out={"pkg.tar.gz": "bad"}), "a": BASE, "b": BASE}
    explanation = explain(judged(builds, not_counting=["x", "a", "b"]))
    assert explanation.agreement.signers == ("a", "b") and not explanation.agreement.counts
    assert [(dissent.signer, dissent.diagnosis.suspects[0].name) for dissent in explanation.dissents] == [
        ("x", "gcc-12")]
    assert "None of their signatures counts" in said(explanation)


def test_a_tie_is_explained_and_called_a_tie() -> None:
    builds = {"a": BASE, "b": replace(_with(BASE, "files", "sdk.tar.gz", "other"), out={"pkg.tar.gz": "bad"})}
    explanation = explain(judged(builds))
    assert not explanation.decided
    assert explanation.dissents[0].diagnosis.suspects[0].name == "sdk.tar.gz"
    assert "There is no reference" in said(explanation)


def test_compare_to_chooses_who_is_compared_with() -> None:
    builds = {"a": BASE, "b": BASE, "c": replace(_with(BASE, "packages", "gcc-12", "99"), out={"pkg.tar.gz": "bad"})}
    explanation = explain(judged(builds, compare_to="c"))
    assert [dissent.signer for dissent in explanation.dissents] == ["a", "b"]
    assert "b: the same as 'a'." in said(explanation)


def test_how_independent_the_agreement_is() -> None:
    stale = BASE.assertion()
    assert stale.base_manifests is not None
    lines = stale.base_manifests[0][1] + f"{sha('old')}  bash_1.0_amd64.deb\n"
    stale = replace(stale, report=replace(stale.report, base_manifests=(("bookworm-amd64", lines),)))
    bare = replace(stale, report=replace(stale.report, base_manifests=None))
    agreement = explain(judged({"a": BASE, "b": BASE, "c": stale, "d": bare,
                                "e": _with(BASE, "packages", "bash", "5.3")})).agreement
    assert agreement.keys == 5 and agreement.environments == (("a", "b"), ("c",), ("e",))
    assert agreement.package_sets == 2 and agreement.unrecorded == ("d",)
    assert "4 signers built in 3 distinct environments (base manifests), 2 by the newest" in said(
        explain(judged({"a": BASE, "b": BASE, "c": stale, "d": bare, "e": _with(BASE, "packages", "bash", "5.3")})))


def test_nothing_readable_is_nothing_to_explain() -> None:
    empty = decide("1.0", "pkg", [], policy=Policy())
    assert explain(empty).dissents == ()
    assert "Nobody's result can be read" in said(explain(empty))
    gone = judged({"a": BASE, "b": BASE, "c": replace(BASE, out={"x": "y"})})
    gone = replace(gone, signers=tuple(replace(signer, document=None) for signer in gone.signers))
    assert explain(gone).dissents == ()


# Earlier stages.


def _lay(root: Path, release: str, name: str, builds: Mapping[str, Built]) -> None:
    for signer, built in builds.items():
        where = root / release / signer
        where.mkdir(parents=True, exist_ok=True)
        (where / f"{name}-build.assert").write_text(built.assertion(release.rsplit("/")[-1], name).to_yaml())


def _signed(unsigned: str, out: str) -> Built:
    return replace(BASE, files={"pkg-desc.yml": "signer", "pkg-win-unsigned.tar.gz": unsigned},
                   out={"pkg-win.exe": out})


STAGE_FILE = "pkg-1.0-win-unsigned.tar.gz"
SIGNED = {"a": _signed("good", "good"), "b": _signed("good", "good"), "c": _signed("bad", "bad")}
UNSIGNED = {"a": replace(BASE, out={STAGE_FILE: "good"}), "b": replace(BASE, out={STAGE_FILE: "good"}),
            "c": replace(_with(BASE, "packages", "gcc-12", "99"), out={STAGE_FILE: "bad"})}


@pytest.mark.parametrize("release,name", [("1.0-win-unsigned", "pkg-win"), ("1.0", "pkg-win"), ("stage-one", "pkg"),
                                          ("v1.0_unsigned", "pkg-win")])
def test_an_input_is_traced_to_the_stage_that_made_it(tmp_path: Path, release: str, name: str) -> None:
    _lay(tmp_path, release, name, UNSIGNED)
    _lay(tmp_path, "1.0", "pkg", SIGNED)
    _lay(tmp_path, "0.9", "pkg", {"a": replace(BASE, out={"other": "other"})})
    explanation = explain(judged(SIGNED), [Place(tree=tree.DirectoryTree(tmp_path))])
    dissent = explanation.dissents[0]
    assert dissent.diagnosis.cause is Cause.INPUTS
    stage = dissent.stages[0]
    assert (stage.input, stage.release, stage.name, stage.output) == (
        "pkg-win-unsigned.tar.gz", release, name, STAGE_FILE)
    assert (stage.own, stage.agreed) == (("c",), ("a", "b"))
    assert stage.diagnosis is not None and stage.diagnosis.suspects[0].name == "gcc-12", "and there the reason is found"
    assert f"'pkg-win-unsigned.tar.gz' comes from an earlier stage: it is '{STAGE_FILE}' of {name} {release}" in said(
        explanation)
    json.dumps(document(explanation))


def test_a_stage_of_another_package_of_the_workspace_is_found(tmp_path: Path) -> None:
    _lay(tmp_path / "pkg-win", "1.0", "pkg-win", UNSIGNED)
    _lay(tmp_path / "pkg", "1.0", "pkg", SIGNED)
    places = verdict_explain.places(tree.DirectoryTree(tmp_path / "pkg"), tmp_path)
    stage = explain(judged(SIGNED), places).dissents[0].stages[0]
    assert (stage.release, stage.name) == ("pkg-win/1.0", "pkg-win")


def test_a_stage_that_is_random_is_called_so(tmp_path: Path) -> None:
    _lay(tmp_path, "1.0-unsigned", "pkg-win", {**UNSIGNED, "c": replace(BASE, out={STAGE_FILE: "bad"})})
    explanation = explain(judged(SIGNED), [Place(tree=tree.DirectoryTree(tmp_path))])
    assert "  There: the build itself is not deterministic. 'a', 'b' had the same inputs" in said(explanation)


def test_a_stage_that_knows_only_one_side_is_named_too(tmp_path: Path) -> None:
    _lay(tmp_path, "1.0-unsigned", "pkg-win", {"a": UNSIGNED["a"]})
    explanation = explain(judged(SIGNED), [Place(tree=tree.DirectoryTree(tmp_path))])
    stage = explanation.dissents[0].stages[0]
    assert (stage.own, stage.agreed, stage.diagnosis) == ((), ("a",), None)
    assert "this one was made by nobody" in said(explanation)


def test_an_input_that_no_stage_made_is_said_to_be_that(tmp_path: Path) -> None:
    explanation = explain(judged(SIGNED), [Place(tree=tree.DirectoryTree(tmp_path))])
    assert explanation.dissents[0].stages == ()
    assert "looks like the output of an earlier stage, and no release here lists it" in said(explanation)


def test_damaged_files_of_other_releases_do_no_harm(tmp_path: Path) -> None:
    _lay(tmp_path, "1.0-unsigned", "pkg-win", UNSIGNED)
    damaged = tmp_path / "1.0-linux" / "x"
    damaged.mkdir(parents=True)
    (damaged / "pkg-build.assert").write_bytes(b"- {" + sha("bad").encode() + b"\xff\0")
    (damaged / "gone-build.assert").symlink_to("/etc/passwd")
    (tmp_path / "1.0-osx").symlink_to("/")
    explanation = explain(judged(SIGNED), [Place(tree=tree.DirectoryTree(tmp_path))])
    assert explanation.dissents[0].stages[0].release == "1.0-unsigned"


# What is printed.


def test_strangers_words_are_escaped_and_long_lists_cut() -> None:
    nasty = "evil\x1b[2J\x07\u202e.tar.gz"
    packages = {**BASE.packages, **{f"p{number}-{letter}": f"{number}" for number in range(300)
                                    for letter in string.ascii_lowercase[:3]}}
    other = replace(BASE, packages=packages, commits={"pkg": "commit", "signature": "signature"},
                    files={**BASE.files, nasty: "x"}, common={f"c{number}": "x" for number in range(500)},
                    out={f"out{number}{nasty}": "x" for number in range(2000)})
    explanation = explain(judged({"a": BASE, "b": BASE, "c": other}))
    assert len(explanation.dissents[0].outputs) == 1000 and explanation.dissents[0].more_outputs > 1000
    shown = [plain(line) for line in verdict_explain.lines(explanation)]
    assert len(shown) < 60 and all(len(line) < 1500 for line in shown)
    assert all(line.isprintable() for line in shown)
    text = "\n".join(shown)
    assert "evil\\x1b[2J\\x07\\u202e.tar.gz" in text and "and 1994 more" in text


# Real trees. What is expected here was read off the files with other tools: grep and diff.


def real(repository: str, release: str, name: str) -> Explanation:
    root = FIXTURES / "sigs" / repository
    builds = {path.parent.name: Assertion.read(path)
              for path in sorted((root / release).glob(f"*/{name}-build.assert"))}
    return explain(judged(builds), [Place(tree=tree.DirectoryTree(root))])


@needs_shared
@pytest.mark.parametrize("release,name,signer,kind,first", [
    ("0.10.3rc2-osx-signed", "bitcoin-dmg-signer", "laanwj", Kind.INPUT, "signature.tar.gz"),
    ("0.10.3rc2-osx-signed", "bitcoin-dmg-signer", "midnightmagic", Kind.INPUT, "bitcoin-osx-unsigned.tar.gz"),
    ("0.14.0rc1-osx-signed", "bitcoin-dmg-signer", "fanquake", Kind.INPUT, "bitcoin-osx-unsigned.tar.gz"),
    ("0.5.1-win32", "bitcoin", "laanwj", Kind.INPUT, "bitcoin-desc.yml"),
])
def test_real_dissent_from_other_inputs(release: str, name: str, signer: str, kind: Kind, first: str) -> None:
    explanation = real("bitcoin-core_gitian.sigs", release, name)
    found = next(dissent.diagnosis for dissent in explanation.dissents if dissent.signer == signer)
    assert found.cause is Cause.INPUTS
    assert (found.suspects[0].kind, found.suspects[0].name) == (kind, first)


@needs_shared
def test_real_builds_that_were_not_deterministic() -> None:
    """luke-jr and aschildbach had the same inputs and packages, and no cache; michagogo's and hebasto's are alike."""
    windows = real("bitcoin-core_gitian.sigs", "0.10.0rc1-win", "bitcoin-win-0.10")
    found = next(dissent.diagnosis for dissent in windows.dissents if dissent.signer == "aschildbach")
    assert (found.cause, found.certain, found.twins) == (Cause.NOT_DETERMINISTIC, True, ("luke-jr",))
    linux = real("bitcoin-core_gitian.sigs", "0.19.0rc2-linux", "bitcoin-core-linux-0.19")
    found = next(dissent.diagnosis for dissent in linux.dissents if dissent.signer == "hebasto")
    assert (found.cause, found.same_environment) == (Cause.NOT_DETERMINISTIC, ("michagogo",))


@needs_shared
def test_every_real_release_can_be_explained() -> None:
    root = FIXTURES / "sigs"
    seen = 0
    for repository in sorted(path for path in root.iterdir() if path.is_dir()):
        where = tree.DirectoryTree(repository)
        for release in (entry.name for entry in where.list("")):
            for name in verify.packages(where, release):
                explanation = real(repository.name, release, name)
                assert len(list(verdict_explain.lines(explanation))) < 400
                json.dumps(document(explanation))
                seen += 1
    assert seen >= 20
