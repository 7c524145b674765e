"""What a rebuild is held to: the record itself, its commits; and what is said of each output."""

from __future__ import annotations

import pytest

from gitian.build.comparison import Fate, compare
from gitian.build.exact import Wanted, as_recorded, check_record
from gitian.errors import FormatError
from gitian.formats.descriptor import Descriptor
from gitian.formats.report import Report
from gitian.images.obtain import Places
from gitian.plan import Options, make_plan

ONE, TWO = "1" * 64, "2" * 64
COMMIT, OTHER = "a" * 40, "b" * 40


def report(out: str, inputs: str = "") -> Report:
    return Report(out_manifest=out, in_manifest=inputs, base_manifests=(("bookworm-amd64", f"{ONE}  a_1_all.deb\n"),))


def test_every_output_has_its_fate() -> None:
    found = compare(report(f"{ONE}  same\n{ONE}  other\n{ONE}  gone\n"),
                    report(f"{ONE}  same\n{TWO}  other\n{TWO}  new\n"))
    assert {output.path: output.fate for output in found.outputs} == {
        "same": Fate.REPRODUCED, "other": Fate.DIFFERS, "gone": Fate.MISSING, "new": Fate.UNEXPECTED}
    assert not found.reproduced
    assert compare(report(f"{ONE}  same\n"), report(f"{ONE}  same\n")).reproduced
    assert not compare(report(""), report("")).reproduced, "nothing proves nothing"


def test_lines_of_the_classic_that_were_not_installed_are_counted() -> None:
    stale = Report(out_manifest="", in_manifest="", base_manifests=(("bookworm-amd64", f"{ONE}  a_1_all.deb\n"
                                                                     f"{TWO}  a_0.9_all.deb\n"),))
    (line,) = [line for line in compare(stale, report("")).lines() if line.startswith("same environment")]
    assert line.startswith("same environment: bookworm-amd64, 1 packages (1 more lines")


@pytest.mark.parametrize(("out", "inputs", "said"), [
    (f"{ONE}  x\n{TWO}  x\n", "", "'x' stands 2 times"),
    (f"{ONE}  x\nAAAA  other-output\n", "", "other-output"),
    (f"{ONE}  x\n", f"{ONE}  in\n{TWO}  in\n", "'in' stands 2 times"),
    (f"{ONE}  x\n", f"git:{COMMIT} agit:{OTHER} a", "stands 2 times among the inputs"),
    (f"{ONE}  x\n", "git:abc a", "line that is none"),
])
def test_a_record_that_says_two_things_is_refused(out: str, inputs: str, said: str) -> None:
    with pytest.raises(FormatError, match=said):
        check_record("x.yml", report(out, inputs))


def test_an_honest_record_is_not() -> None:
    check_record("x.yml", report(f"{ONE}  x\n{ONE}  y\n", f"{ONE}  in\ngit:{COMMIT} agit:{OTHER} b"))


def test_the_recorded_commit_is_built_even_where_the_descriptor_names_a_tag_that_may_have_moved() -> None:
    text = ("name: p\nsuites: [bookworm]\narchitectures: [amd64]\ndistro: debian\npackages: []\nfiles: []\n"
            "remotes:\n- {url: x, dir: a, commit: v1.0}\n- {url: x, dir: b}\nscript: 'true'\n")
    descriptor = Descriptor.parse(text.encode(), "p.yml")
    wanted = Wanted(origin="r", environments=(), places=Places(pool=None),
                    like=report("", f"git:{COMMIT} agit:{OTHER} b"))
    plan = make_plan(descriptor, as_recorded(Options(), wanted, ["a", "b"]))
    assert {remote.dir: remote.commit for remote in plan.remotes} == {"a": COMMIT, "b": OTHER}
    # What somebody asks for is what is tried, and is then found to be another one.
    asked = make_plan(descriptor, as_recorded(Options(commits={"b": "v2"}), wanted, ["a", "b"]))
    assert {remote.dir: remote.commit for remote in asked.remotes} == {"a": COMMIT, "b": "v2"}
