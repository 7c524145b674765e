"""Which paths, as strangers write them, mean a file in a directory."""

from __future__ import annotations

from pathlib import Path

import pytest

from gitian.attest.files import compare, own_file


@pytest.fixture
def outputs(tmp_path: Path) -> Path:
    (tmp_path / "outside").write_text("secret")
    place = tmp_path / "out"
    (place / "sub").mkdir(parents=True)
    (place / "file").write_text("x")
    (place / "link").symlink_to("file")
    (place / "away").symlink_to("../outside")
    (place / "round").symlink_to("round")
    return place


@pytest.mark.parametrize("path", ["absent", "sub", "away", "round", "../outside", "sub/../file", "/etc/hostname",
                                  "n" * 300, "nul\0"])
def test_what_is_no_file_of_its_own(outputs: Path, path: str) -> None:
    assert own_file(outputs, path) is None


@pytest.mark.parametrize("path", ["file", "link"])
def test_what_is_one(outputs: Path, path: str) -> None:
    assert own_file(outputs, path) == outputs / "file"


def test_a_name_that_no_file_can_have_is_absent(outputs: Path) -> None:
    checked = compare(outputs, {"n" * 300: "0" * 64, "file": "0" * 64}, "out")
    assert checked.absent == ("n" * 300,) and checked.present == ("file",) and len(checked.problems) == 1
