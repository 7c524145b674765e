"""Inputs made ready: the manifest and the reference date, as the original recorded them."""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import re
from pathlib import Path
from typing import Any

import pytest

from gitian.errors import InputError
from gitian.formats.descriptor import Descriptor
from gitian.formats.report import Report
from gitian.host.workspace import Workspace
from gitian.inputs.files import find_files
from gitian.inputs.prepare import PreparedInputs, prepare
from gitian.plan import Options, make_plan
from tests.integration.git_kit import git
from tests.shared import FIXTURES, needs_shared

GOLDEN = Path(__file__).resolve().parents[1] / "fixtures" / "golden"


def recorded(name: str) -> list[dict[str, Any]]:
    cases = [json.loads(line) for line in (GOLDEN / f"{name}.jsonl").read_bytes().splitlines()]
    return [case for case in cases if case["exit_code"] == 0]


def options_of(argv: list[str]) -> Options:
    parser = argparse.ArgumentParser()
    parser.add_argument("-c", "--commit", default="")
    parser.add_argument("--fetch-tags", action="store_true")
    parser.add_argument("--fetch-branches", action="store_true")
    known, _ = parser.parse_known_args(argv)
    commits = dict(item.split("=") for item in known.commit.split(",") if item)
    return Options(commits=commits, fetch_tags=known.fetch_tags, fetch_branches=known.fetch_branches)


def make_ready(data: bytes, options: Options, place: Path) -> PreparedInputs:
    workspace = Workspace.locate(place, {})
    with workspace.lock():
        return prepare(make_plan(Descriptor.parse(data, "d.yml"), options), workspace)


def in_manifest(case: dict[str, Any]) -> str:
    (text,) = [text for name, text in case["files_after"].items() if name.endswith("-res.yml")]
    return Report.parse(text.encode()).in_manifest


def reference_datetime(case: dict[str, Any]) -> str:
    found = re.search(r"^REFERENCE_DATETIME='(.*)'$", case["files_after"]["var/build-script"], re.MULTILINE)
    assert found
    return found[1]


@pytest.mark.parametrize("case", [case for case in recorded("gbuild") if case["repos"] or case["inputs"]],
                         ids=lambda case: str(case["id"]))
def test_recorded_builds(case: dict[str, Any], tmp_path: Path) -> None:
    place = tmp_path / "a" / "workspace"
    (place / "inputs").mkdir(parents=True)
    for name, text in case["inputs"].items():
        (place / "inputs" / name).write_text(text)
    for name in case["repos"]:
        git(tmp_path, "clone", "-q", GOLDEN / "repos" / f"{name}.bundle", tmp_path / "repos" / name)
    # The recorded relative URLs lead three levels up from inputs/<dir>.
    (tmp_path / "a" / "repos").symlink_to(tmp_path / "repos")
    options = options_of(case["argv"])
    for _ in range(2):
        found = make_ready(case["descriptor"].encode(), options, place)
        assert found.manifest_text == in_manifest(case)
        assert found.reference_datetime == reference_datetime(case)
    assert [remote.path for remote in found.remotes] == [place / "inputs" / remote.dir for remote in found.remotes]


@needs_shared
@pytest.mark.parametrize("case", recorded("gbuild_real"), ids=lambda case: str(case["id"]))
def test_recorded_builds_of_real_descriptors(case: dict[str, Any], tmp_path: Path) -> None:
    """Every file held its own name and a newline; every remote was a copy of one repository, commit v1.0."""
    data = (FIXTURES / case["descriptor_ref"]).read_bytes()
    descriptor = Descriptor.parse(data, "d.yml")
    (tmp_path / "inputs").mkdir()
    for name in descriptor.files:
        (tmp_path / "inputs" / name).write_text(f"{name}\n")
    git(tmp_path, "clone", "-q", GOLDEN / "repos" / "foo.bundle", tmp_path / "foo")
    options = Options(commits={remote.dir: "v1.0" for remote in descriptor.remotes},
                      urls={remote.dir: str(tmp_path / "foo") for remote in descriptor.remotes})
    found = make_ready(data, options, tmp_path)
    assert found.manifest_text == in_manifest(case)
    assert found.reference_datetime == reference_datetime(case)


DESCRIPTOR = b"""name: x
suites: [bookworm]
architectures: [amd64]
packages: []
remotes: []
files: [%s]
reference_datetime: "2020-01-01 00:00:00"
script: "true"
"""


def test_missing_files_are_named_all_at_once(tmp_path: Path) -> None:
    (tmp_path / "inputs").mkdir()
    (tmp_path / "inputs" / "there").touch()
    (tmp_path / "inputs" / "directory").mkdir()
    with pytest.raises(InputError) as caught:
        make_ready(DESCRIPTOR % b"there, gone, 'also gone', directory", Options(), tmp_path)
    assert "'gone', 'also gone' are not in" in str(caught.value)
    assert "'directory' is no regular file" in str(caught.value)
    assert caught.value.hint
    assert str(tmp_path / "inputs") in caught.value.hint


def test_files_may_be_links(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").write_bytes(b"content")
    (tmp_path / "inputs").mkdir()
    (tmp_path / "inputs" / "file").symlink_to(tmp_path / "elsewhere")
    found = make_ready(DESCRIPTOR % b"file", Options(), tmp_path)
    digest = hashlib.sha256(b"content").hexdigest()
    assert [(file.name, file.sha256) for file in found.files] == [("file", digest)]
    assert found.manifest_text.splitlines()[1] == f"{digest}  file"
    (tmp_path / "elsewhere").unlink()
    with pytest.raises(InputError, match="'file' is not in"):
        make_ready(DESCRIPTOR % b"file", Options(), tmp_path)


def test_a_fifo_does_not_hang(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(InputError, match="no regular file"):
        find_files(["pipe"], tmp_path)
    assert find_files([], tmp_path) == ()
