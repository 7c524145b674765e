"""Key files: where they are looked for, and what a tree's owner can do with them."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from gitian.sigs import home, keys, packets
from gitian.sigs.tree import DirectoryTree
from gitian.sigsrepo import revision
from tests.gverify_kit import gverify
from tests.signers import Signers, assertion, put


@pytest.fixture(scope="module")
def signers() -> Iterator[Signers]:
    found = Signers()
    try:
        for name in ("alice", "bob", "eve"):
            found.make(name)
        yield found
    finally:
        found.close()


@pytest.fixture
def repository(tmp_path: Path, signers: Signers, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A repository that has its releases in sigs/pkg and its keys at the top."""
    for name, value in (("GNUPGHOME", str(tmp_path / "none")), ("HOME", str(tmp_path / "home")),
                        ("XDG_CACHE_HOME", str(tmp_path / "cache"))):
        monkeypatch.setenv(name, value)
    top = tmp_path / "top"
    (top / "gitian-keys").mkdir(parents=True)
    (top / "gitian-keys" / "alice-key.pgp").write_bytes(signers.export("alice"))
    for name in ("alice", "bob"):
        put(top / "sigs" / "pkg", "r1", name, assertion("r1"), signers.sign(name, assertion("r1")))
    (tmp_path / "D.yml").write_text('name: "pkg"\n')
    return top


def git(place: Path, *words: str) -> None:
    subprocess.run(["git", "-c", "user.name=A", "-c", "user.email=a@example.org", "-c", "init.defaultBranch=main",
                    *words], cwd=place, check=True, capture_output=True,
                   env={"PATH": os.environ["PATH"], "HOME": "/nonexistent", "GIT_CONFIG_NOSYSTEM": "1"})


def outcomes(capfd: pytest.CaptureFixture[str], where: Path, *words: str) -> dict[str, str]:
    ran = gverify(capfd, "-d", str(where), "-r", "r1", "--json", *words, str(where / "../../../D.yml"))
    return {each["signer"]: each["outcome"] for each in ran.document["signers"]}


def test_keys_at_the_top_of_the_repository(capfd: pytest.CaptureFixture[str], repository: Path,
                                           signers: Signers) -> None:
    where = repository / "sigs" / "pkg"
    assert outcomes(capfd, where) == {"alice": "NO KEY", "bob": "NO KEY"}, "no repository, no top"
    git(repository, "init", "--quiet")
    assert outcomes(capfd, where) == {"alice": "OK", "bob": "NO KEY"}
    assert outcomes(capfd, where, "--only-keyring") == {"alice": "NO KEY", "bob": "NO KEY"}
    (where / "keys").mkdir()
    (where / "keys" / "bob.asc").write_bytes(signers.export("bob"))
    assert outcomes(capfd, where) == {"alice": "OK", "bob": "OK"}, "beside the releases as well"
    git(where, "init", "--quiet")
    assert outcomes(capfd, where) == {"alice": "NO KEY", "bob": "OK"}, "the nearest repository counts"


def test_keys_at_the_top_of_a_revision(capfd: pytest.CaptureFixture[str], repository: Path, signers: Signers) -> None:
    where = repository / "sigs" / "pkg"
    git(repository, "init", "--quiet")
    git(repository, "add", ".")
    git(repository, "commit", "--quiet", "--message", "x")
    (repository / "gitian-keys" / "bob-key.pgp").write_bytes(signers.export("bob"))
    assert outcomes(capfd, where, "--git-rev", "main") == {"alice": "OK", "bob": "NO KEY"}, "the revision's own"
    with revision.opened(where, "main") as tree:
        assert tree.top.top is tree.top
        assert [entry.name for entry in tree.top.list("gitian-keys")] == ["alice-key.pgp"]
    with revision.opened(repository, "main") as tree:
        assert tree.top is tree


def test_a_link_does_not_lead_out_of_the_repository(repository: Path, tmp_path: Path) -> None:
    shutil.move(repository / "gitian-keys", tmp_path / "outside")
    (repository / "gitian-keys").symlink_to(tmp_path / "outside")
    git(repository, "init", "--quiet")
    assert not keys.gather(keys.Sources(), DirectoryTree(repository / "sigs" / "pkg")).fingerprints


def test_thousands_of_key_files_and_gigabytes_of_them(repository: Path, signers: Signers,
                                                      monkeypatch: pytest.MonkeyPatch) -> None:
    """What a tree brings is read up to a bound; the user's own keys are read before it, and count."""
    folder = repository / "sigs" / "pkg" / "gitian-keys"
    folder.mkdir()
    for number in range(100):
        (folder / f"{number:03d}.asc").write_bytes(b"")
        os.truncate(folder / f"{number:03d}.asc", keys.CARRIED_FILE_LIMIT)
    os.truncate(folder / "050.asc", 2**30)
    read: list[int] = []
    original = DirectoryTree.read

    def counted(self: DirectoryTree, path: str, limit: int) -> bytes:
        data = original(self, path, limit)
        read.append(len(data))
        return data

    monkeypatch.setattr(DirectoryTree, "read", counted)
    (repository.parent / "own.gpg").write_bytes(signers.export("bob"))
    found = keys.gather(keys.Sources(keyrings=(repository.parent / "own.gpg",)),
                        DirectoryTree(repository / "sigs" / "pkg"))
    assert sum(read) <= keys.CARRIED_LIMIT
    assert found.fingerprints == (signers.fingerprints["bob"],)
    assert any("left out" in why for _, why in found.problems)
    monkeypatch.setattr(keys, "FILES_LIMIT", 3)
    read.clear()
    keys.gather(keys.Sources(), DirectoryTree(repository / "sigs" / "pkg"))
    assert len(read) == 3


def test_a_key_that_gnupg_would_chew_on_for_hours(capfd: pytest.CaptureFixture[str], repository: Path,
                                                  signers: Signers) -> None:
    """Ten thousand user ids cost GnuPG half a minute, a hundred thousand an hour. Such a key is passed over."""
    head, user, proof, *rest = packets.packets(signers.export("eve"))
    more = b"".join(bytes((0xC0 | packets.USER_ID, 10)) + f"eve {number:06d}".encode() + proof.raw
                    for number in range(20_000))
    put(repository / "sigs" / "pkg", "r1", "eve", assertion("r1"), signers.sign("eve", assertion("r1")))
    ring = repository.parent / "ring.gpg"
    ring.write_bytes(head.raw + user.raw + proof.raw + more + b"".join(each.raw for each in rest)
                     + signers.export("alice"))
    where = repository / "sigs" / "pkg"
    assert outcomes(capfd, where, "--keyring", str(ring)) == {"alice": "OK", "bob": "NO KEY", "eve": "NO KEY"}
    ran = gverify(capfd, "--keyring", str(ring), "--only-keyring", command="keys")
    assert signers.fingerprints["eve"] in ran.stderr and "passed over" in ran.stderr


def test_what_gnupg_takes_too_long_for_is_left_out(repository: Path, signers: Signers, tmp_path: Path,
                                                   monkeypatch: pytest.MonkeyPatch,
                                                   capfd: pytest.CaptureFixture[str]) -> None:
    """An import that does not end is ended, and the run goes on."""
    from gitian.sigs import gpg

    real = shutil.which("gpg")
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "gpg").write_text(
        f'#!/bin/sh\ncase "$*" in *--import\\ *) exec sleep 600;; esac\nexec {real} "$@"\n')
    (tmp_path / "bin" / "gpg").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    monkeypatch.setattr(gpg, "PATIENCE", 1.0)
    git(repository, "init", "--quiet")
    assert outcomes(capfd, repository / "sigs" / "pkg")["alice"] == "NO KEY"


def test_a_ring_of_another_gnupg_is_read_from_a_copy(tmp_path: Path) -> None:
    """A GnuPG without that daemon makes an empty keyring where it is asked to export: not in the user's home."""
    own = tmp_path / "gnupg"
    (own / "public-keys.d").mkdir(parents=True)
    (own / "public-keys.d" / "pubring.db").write_bytes(b"SQLite format 3\0" + bytes(100))
    before = sorted(own.rglob("*"))
    assert home.public_rings(own) == (own / "public-keys.d" / "pubring.db",)
    assert not keys.gather(keys.Sources(home=own)).fingerprints
    assert sorted(own.rglob("*")) == before
