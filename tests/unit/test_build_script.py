"""The build script and the report of every recorded gbuild, to the byte."""

from __future__ import annotations

import hashlib
import re
from datetime import datetime, timedelta, timezone

import pytest

from gitian.build.script import build_script, reference_of
from gitian.errors import UsageError
from gitian.formats.descriptor import Descriptor
from gitian.formats.manifest import Manifest
from gitian.formats.report import Report
from gitian.plan import BuildPlan, Options, make_plan, parse_assignments
from tests.shared import FIXTURES, needs_shared
from tests.unit.golden import Case, cases

#: The commits behind v1.0 of the recorded repositories, with author dates in UTC (of repos/*.bundle).
FOO = "de8c8130b566634d5f5ebf899a53ff085fa286c6"
BAR = "9631b3a5b93b024e194ede399be05d1b5353a510"
AUTHOR_DATES = {"foo": "2020-01-02 03:04:05", "bar": "2019-05-07 04:30:00"}

BUILDS = [case for name in ("gbuild", "gbuild_real") for case in cases(name) if case["argv"]]
SCRIPTS = [case for case in BUILDS if "var/build-script" in case["files_after"] and case["id"] != "date-quote-inject"]
#: In desc-named-a the classic puts the descriptor's name into the middle of its hash; we do not.
REPORTS = [case for case in BUILDS if case["exit_code"] == 0 and case["id"] != "desc-named-a"]


def _each(chosen: list[Case]) -> pytest.MarkDecorator:
    """One test per case; those of real descriptors need the descriptors beside the checkout."""
    return pytest.mark.parametrize("case", [
        pytest.param(case, id=case["id"], marks=[needs_shared] if case["descriptor"] is None else [])
        for case in chosen])


def _descriptor(case: Case) -> Descriptor:
    text = case["descriptor"]
    data = text.encode() if text is not None else (FIXTURES / case["descriptor_ref"]).read_bytes()
    return Descriptor.parse(data, "pkg.yml")


def _plan(case: Case) -> BuildPlan:
    options, words = Options(), list(case["argv"])
    changes: dict[str, object] = {}
    while words:
        word = words.pop(0)
        name, equals, value = word.partition("=") if word.startswith("--") else (word, "", "")
        if name in ("-j", "--num-make"):
            changes["num_make"] = int(value or words.pop(0))
        elif name in ("-m", "--memory"):
            changes["memory"] = int(value or words.pop(0))
        elif name in ("-c", "--commit", "-u", "--url"):
            given = value if equals else words.pop(0)
            changes["commits" if "c" in name else "urls"] = parse_assignments([given], name)
        elif name == "--allow-sudo":
            changes["allow_sudo"] = True
    options = Options(**changes)  # type: ignore[arg-type]
    return make_plan(_descriptor(case), options)


def _reference(plan: BuildPlan) -> str:
    if plan.descriptor.reference_datetime is not None:
        return plan.descriptor.reference_datetime
    return AUTHOR_DATES["bar" if plan.remotes[-1].dir == "bar" else "foo"]


@_each(SCRIPTS)
def test_script(case: Case) -> None:
    plan = _plan(case)
    # each target's script overwrites the one before: the last is left
    script = build_script(plan, plan.targets[-1], reference_datetime=_reference(plan))
    assert script == case["files_after"]["var/build-script"].encode()


@_each(REPORTS)
def test_report(case: Case) -> None:
    plan, files = _plan(case), case["files_after"]

    def hashes(directory: str) -> str:
        return Manifest.sorted((hashlib.sha256(text.encode()).hexdigest(), path.removeprefix(directory))
                               for path, text in files.items() if path.startswith(directory)).text()

    inputs = [(plan.descriptor.sha256, f"{plan.name}-desc.yml")]
    inputs += [(hashlib.sha256(case["inputs"][name].encode()).hexdigest(), name)
               for name in plan.descriptor.files]
    commits = [(BAR if remote.dir == "bar" else FOO, remote.dir) for remote in plan.remotes]
    cached = plan.descriptor.enable_cache
    report = Report(
        out_manifest=hashes("build/out/"), in_manifest=Manifest.of(inputs, commits).text(),
        base_manifests=tuple((target.label, files[f"var/base-{target.label}.manifest"]) for target in plan.targets),
        cache_common_manifest=hashes("cache/common/") if cached else "",
        cache_package_manifest=hashes(f"cache/{plan.name}/") if cached else "")
    assert report.to_yaml() == files[f"result/{plan.name}-res.yml"]
    assert Report.parse(files[f"result/{plan.name}-res.yml"].encode()) == report


@pytest.mark.parametrize("name", ["remote-unsanitary-commit", "remote-slash-commit"])
def test_commits_that_the_classic_refused(name: str) -> None:
    case, = (case for case in BUILDS if case["id"] == name)
    with pytest.raises(UsageError):
        _plan(case)


def test_most_cases_are_tried() -> None:
    assert len(SCRIPTS) >= 60 and len(REPORTS) >= 55


def test_32_bits() -> None:
    case, = (case for case in BUILDS if case["id"] == "two-archs")
    plan = _plan(case)
    scripts = [build_script(plan, target, reference_datetime="2013-06-01 00:00:00") for target in plan.targets]
    assert [re.findall(rb"GBUILD_BITS=(\d+)\n", script) for script in scripts] == [[b"32"], [b"64"]]


def test_the_reference_is_in_utc() -> None:
    zone = timezone(timedelta(hours=5, minutes=30))
    assert reference_of(datetime(2019, 5, 7, 10, 0, 0, tzinfo=zone)) == "2019-05-07 04:30:00"
