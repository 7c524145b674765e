"""What comparing may cost: where a limit is reached, or there is no room, one comparison ends, and says so."""

from __future__ import annotations

import errno
import gzip
import io
import zipfile
from pathlib import Path
from typing import IO

import pytest

from gitian.errors import InputError
from gitian.vary import contents
from gitian.vary.clues import Detective
from gitian.vary.contents import Limits
from gitian.vary.differences import compare_files, compare_trees
from gitian.vary.findings import Kind
from tests.unit.test_vary_differences import A, B, make_zip, only


def test_no_room_for_what_is_unpacked_ends_one_comparison_alone(tmp_path: Path,
                                                                monkeypatch: pytest.MonkeyPatch) -> None:
    for name, byte in (("a", b"\0"), ("b", b"\1")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "1.gz").write_bytes(gzip.compress(byte * 3_000_000, mtime=0))
        with zipfile.ZipFile(tmp_path / name / "2.zip", "w") as archive:
            archive.writestr(zipfile.ZipInfo("x"), byte * 1000)
        (tmp_path / name / "3").write_bytes(byte)

    class Full(io.BytesIO):
        """A place that is full; what is kept back until then is told when it is flushed."""

        def __init__(self, size: int, *, prefix: str, dir: str | None) -> None:
            super().__init__()
            assert dir == str(tmp_path)

        def flush(self) -> None:
            raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("gitian.vary.contents.tempfile.SpooledTemporaryFile", Full)
    found = compare_trees(tmp_path / "a", tmp_path / "b", A, B, scratch=tmp_path)
    assert [(one.path, "no room" in (one.unfinished or "")) for one in found] == [
        ("1.gz", True), ("2.zip", True), ("3", False)]


def test_the_list_of_a_zip_archive_is_bounded_before_it_is_read(tmp_path: Path,
                                                                 monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a").write_bytes(make_zip([f"a{number}" for number in range(300)]))
    (tmp_path / "b").write_bytes(make_zip([f"b{number}" for number in range(300)]))
    made = []
    reader = zipfile.ZipInfo

    def counted(*words: object) -> zipfile.ZipInfo:
        made.append(words)
        return reader(*words)  # type: ignore[arg-type]

    monkeypatch.setattr("zipfile.ZipInfo", counted)
    found = compare_files(tmp_path / "a", tmp_path / "b", limits=Limits(members=299))
    assert found is not None and "more than 299 members" in (found.unfinished or "") and not made
    monkeypatch.setattr("gitian.vary.contents._DIRECTORY_LIMIT", 10_000)
    found = compare_files(tmp_path / "a", tmp_path / "b")
    assert found is not None and "10000 bytes" in (found.unfinished or "") and not made


def test_names_are_compared_within_limits(tmp_path: Path) -> None:
    for name in "ab":
        (tmp_path / name).mkdir()
        for number in range(3):
            (tmp_path / name / f"{name}{number}-20261122").write_text(name)
        (tmp_path / name / "link").symlink_to(f"/of/{name}")
    found = compare_trees(tmp_path / "a", tmp_path / "b", A, B, limits=Limits(seconds=-1))
    assert [one.kind for one in found] == [Kind.ONLY_IN_FIRST] * 3 + [Kind.ONLY_IN_SECOND] * 3 + [Kind.LINK]
    assert all("Not all names were compared" in (one.unfinished or "") for one in found)


def test_a_file_that_cannot_be_read_ends_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in "ab":
        (tmp_path / name).mkdir()
        for file in ("closed", "open"):
            (tmp_path / name / file).write_text(name)
    def opened(path: Path) -> IO[bytes]:
        if path.name == "closed":
            raise InputError(f"'{path}' cannot be read: Permission denied.")
        return contents.opened(path)

    monkeypatch.setattr("gitian.vary.differences.opened", opened)
    closed, other = compare_trees(tmp_path / "a", tmp_path / "b", A, B)
    assert closed.kind is Kind.UNREADABLE and "Permission denied" in closed.findings[0].first
    assert other.kind is Kind.TEXT and other.unfinished is None


def test_only_so_many_variables_are_looked_for() -> None:
    hostile = (tuple((f"V{number:04}", f"{side}-{number} " * 100) for number in range(500)) for side in ("one", "two"))
    one, other = (only(environment=values) for values in hostile)
    assert len(Detective(one, other).values) == 100
    assert not Detective(only(environment=(("V", "x" * 5000),)), only(environment=(("V", "y" * 5000),))).values
