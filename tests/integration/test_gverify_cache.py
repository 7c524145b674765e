"""Findings are kept, and believed only about the same bytes, keys and owner."""

from __future__ import annotations

import os
import shutil
import sqlite3
import tempfile
from pathlib import Path

import pytest

from gitian.sigs import cache, gpg, keys, tree, verify
from gitian.sigs.verdict import Verdict

SYNTHETIC = Path(__file__).resolve().parents[1] / "fixtures" / "gverify-synthetic"


class Bench:
    """A copied tree whose files look old enough to be remembered by their stamps."""

    def __init__(self, root: Path) -> None:
        self.root = root / "sigs"
        shutil.copytree(SYNTHETIC / "sigs" / "mismatch-manifest", self.root / "r")
        for file in self.root.rglob("*.assert"):
            file.write_bytes(file.read_bytes().replace(b"release: mismatch-manifest", b"release: mismatch-manifest"))
        (self.root / "r").rename(self.root / "mismatch-manifest")
        self.ring = root / "ring.asc"
        self.ring.write_bytes(b"".join((SYNTHETIC / "keys" / f"{name}.asc").read_bytes()
                                       for name in ("alice", "bob", "grace")))
        self.where = root / "cache" / "gitian"

    def verify(self) -> Verdict:
        known = cache.Cache(self.where)
        try:
            ring = keys.gather(keys.Sources(keyrings=(self.ring,), folders=False))
            return verify.verify_release(
                verify.Request(tree=tree.DirectoryTree(self.root), keyring=ring, cache=known),
                "mismatch-manifest", "pkg")
        finally:
            known.close()

    def words(self) -> list[str]:
        return [signer.outcome.value for signer in self.verify().signers]


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    (tmp_path / "cache").mkdir()
    return Bench(tmp_path)


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many signatures GnuPG was asked about, call by call."""
    counts: list[int] = []
    ask = gpg.Judge.ask

    def counted(self: gpg.Judge, questions: list[gpg.Question]) -> dict[int, gpg.Answer]:
        counts.append(len(questions))
        return ask(self, questions)

    monkeypatch.setattr(gpg.Judge, "ask", counted)
    return counts


def test_a_second_run_asks_nobody_and_says_the_same(bench: Bench, asked: list[int]) -> None:
    first = bench.verify()
    second = bench.verify()
    assert asked == [3]
    assert [signer.outcome.value for signer in first.signers] == ["OK", "MISMATCH", "OK"]
    for one, other in zip(first.signers, second.signers, strict=True):
        assert one == other
        assert one.assertion == other.assertion and one.assertion is not None
    assert first.groups == second.groups and first.exit_code == second.exit_code == 1


def test_changed_bytes_are_judged_anew(bench: Bench, asked: list[int]) -> None:
    assert bench.words() == ["OK", "MISMATCH", "OK"]
    file = bench.root / "mismatch-manifest" / "grace" / "pkg-build.assert"
    file.write_bytes(file.read_bytes().replace(b"apt.deb", b"apx.deb"))
    assert bench.words() == ["MISMATCH", "MISMATCH", "BAD SIGNATURE"]  # one against one: no verdict
    assert asked == [3, 1]


def test_the_same_size_and_time_do_not_hide_a_change(bench: Bench) -> None:
    """A file's stamp holds the time of its last change, which nobody can set back."""
    file = bench.root / "mismatch-manifest" / "grace" / "pkg-build.assert"
    os.utime(file, ns=(10**18, 10**18))
    assert bench.words()[2] == "OK"
    file.write_bytes(file.read_bytes().replace(b"apt.deb", b"apx.deb"))
    os.utime(file, ns=(10**18, 10**18))
    assert bench.words()[2] == "BAD SIGNATURE"


def test_other_keys_make_other_findings(bench: Bench, asked: list[int]) -> None:
    bench.verify()
    bench.ring.write_bytes((SYNTHETIC / "keys" / "alice.asc").read_bytes())
    assert bench.words() == ["OK", "NO KEY", "NO KEY"]
    assert asked == [3, 1]


def test_stamps_of_files_at_rest_save_reading_them(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cache, "_FRESH", -10**12)  # as if the files had lain there for long
    bench.verify()
    read: list[str] = []
    original = tree.DirectoryTree.read

    def counted(self: tree.DirectoryTree, path: str, limit: int) -> bytes:
        read.append(path)
        return original(self, path, limit)

    monkeypatch.setattr(tree.DirectoryTree, "read", counted)
    found = bench.verify()
    # Only what has to be shown: the manifests of the one who differs and of the reference.
    assert {path.split("/")[1] for path in read} == {"alice", "bob"}
    assert [signer.outcome.value for signer in found.signers] == ["OK", "MISMATCH", "OK"]


def test_nobody_else_s_findings_are_believed(bench: Bench, asked: list[int]) -> None:
    bench.verify()
    file, = bench.where.glob("*.sqlite")
    assert bench.where.stat().st_mode & 0o777 == 0o700
    assert file.stat().st_mode & 0o077 == 0
    bench.where.chmod(0o777)
    bench.verify()
    bench.where.chmod(0o700)
    file.chmod(0o666)
    bench.verify()
    file.chmod(0o600)
    assert asked == [3, 3, 3]
    if os.geteuid() == 0:
        os.chown(file, 12345, 12345)
        bench.verify()
        assert asked == [3, 3, 3, 3]
        os.chown(file, 0, 0)
    bench.verify()
    assert len(asked) == (4 if os.geteuid() == 0 else 3)


def test_a_link_for_a_cache_is_not_followed(bench: Bench, tmp_path: Path, asked: list[int]) -> None:
    (tmp_path / "victim").mkdir()
    bench.where.symlink_to(tmp_path / "victim")
    bench.verify()
    assert not list((tmp_path / "victim").iterdir())


@pytest.mark.parametrize("damage", [b"", b"garbage" * 1000, b"SQLite format 3\0" + b"\xff" * 4000])
def test_a_damaged_cache_costs_time_only(bench: Bench, damage: bytes) -> None:
    bench.verify()
    file, = bench.where.glob("*.sqlite")
    file.write_bytes(damage)
    assert bench.words() == ["OK", "MISMATCH", "OK"]
    assert bench.words() == ["OK", "MISMATCH", "OK"]


def test_findings_of_another_shape_are_passed_over(bench: Bench, asked: list[int]) -> None:
    bench.verify()
    file, = bench.where.glob("*.sqlite")
    with sqlite3.connect(file) as database:
        database.execute("update findings set value = ?", ('{"state": {"outcome": "GREAT"}}',))
    database.close()
    assert bench.words() == ["OK", "MISMATCH", "OK"]
    assert asked == [3, 3]


def test_a_finding_s_words_name_the_file_that_they_are_about(bench: Bench) -> None:
    """The same bytes as another package's assertion are not told of under that one's name."""
    for name in ("pkg", "twin"):
        for signer in ("alice", "bob", "grace"):
            file = bench.root / "mismatch-manifest" / signer / f"{name}-build.assert"
            file.write_bytes(b"[")
            file.with_name(file.name + ".sig").write_bytes(b"x")
    details = []
    for name in ("pkg", "twin"):
        known = cache.Cache(bench.where)
        request = verify.Request(tree=tree.DirectoryTree(bench.root), keyring=keys.Keyring([]), cache=known)
        details.append(verify.verify_release(request, "mismatch-manifest", name).signers[0].detail)
        known.close()
    assert "pkg-build.assert" in details[0] and "twin-build.assert" in details[1]


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to become somebody who may not read the file")
def test_a_cache_that_we_may_not_read_costs_time_only() -> None:
    base = Path(tempfile.mkdtemp(prefix="gc", dir="/tmp"))  # not below a directory of root's alone
    try:
        where = base / "gitian"
        cache.Cache(where).close()
        file, = where.glob("*.sqlite")
        file.chmod(0o000)
        for path in (base, where, file):
            os.chown(path, 65534, 65534)
        child = os.fork()
        if child == 0:
            status = 2
            try:
                os.setgroups([])
                os.setgid(65534)
                os.setuid(65534)
                status = int(not file.exists() or cache.Cache(where).usable)
            finally:
                os._exit(status)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    finally:
        shutil.rmtree(base)
