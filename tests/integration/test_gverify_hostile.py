"""gverify on trees made by somebody who wants it to err, hang, run something, or paint the terminal."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from gitian.sigs import packets
from tests.gverify_kit import Ran, gverify
from tests.signers import MANIFEST, OTHER, Signers, assertion, put


@pytest.fixture(scope="module")
def signers() -> Iterator[Signers]:
    found = Signers()
    try:
        for name in ("alice", "bob", "carol"):
            found.make(name)
        found.make("odd", user="\x1b[31mEve\x1b[0m $(touch pwned) `id` <eve@example.invalid>")
        found.make("short", expire="20210101T000000")
        yield found
    finally:
        found.close()


class Tree:
    def __init__(self, root: Path, capfd: pytest.CaptureFixture[str], keys: bytes) -> None:
        self.root = root / "sigs"
        self.root.mkdir()
        self.ring = root / "ring.gpg"
        self.ring.write_bytes(keys)
        self.descriptor = root / "D.yml"
        self.descriptor.write_text('name: "pkg"\n')
        self.capfd = capfd

    def verify(self, *words: str, release: str = "r1") -> Ran:
        return gverify(self.capfd, *words, "-d", str(self.root), "-r", release, "--keyring", str(self.ring),
                       "--only-keyring", str(self.descriptor))

    def outcomes(self, *words: str) -> dict[str, str]:
        found = self.verify("--json", "--no-cache", *words).document["signers"]
        return {each["signer"]: each["outcome"] for each in found}

    def words(self, signer: str) -> str:
        found = next(each for each in self.verify("--json").document["signers"] if each["signer"] == signer)
        return " ".join([found["detail"], *found["remarks"]])


@pytest.fixture
def tree(tmp_path: Path, signers: Signers, capfd: pytest.CaptureFixture[str],
         monkeypatch: pytest.MonkeyPatch) -> Tree:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    made = Tree(tmp_path, capfd, signers.export("alice", "bob", "carol", "odd", "short"))
    good = assertion("r1")
    put(made.root, "r1", "alice", good, signers.sign("alice", good))
    return made


def test_swapped_signatures(tree: Tree, signers: Signers) -> None:
    other = assertion("r1", out=OTHER)
    put(tree.root, "r1", "bob", assertion("r1"), signers.sign("bob", other))
    put(tree.root, "r1", "carol", other, signers.sign("carol", assertion("r1")))
    assert tree.outcomes() == {"alice": "OK", "bob": "BAD SIGNATURE", "carol": "BAD SIGNATURE"}


def test_a_signed_message_as_signature_of_something_else(tree: Tree, signers: Signers) -> None:
    """GnuPG, told to verify the .sig alone, would say Good."""
    inline = signers.gpg("-u", signers.fingerprints["bob"], "--sign", data=assertion("r1"))
    put(tree.root, "r1", "bob", assertion("r1", out=OTHER), inline)
    plain = signers.gpg("-u", signers.fingerprints["carol"], "--compress-algo", "none", "--sign", data=assertion("r1"))
    put(tree.root, "r1", "carol", assertion("r1", out=OTHER), plain)
    assert tree.outcomes() == {"alice": "OK", "bob": "BAD SIGNATURE", "carol": "BAD SIGNATURE"}


def test_a_bad_signature_does_not_spoil_its_neighbours(tree: Tree, signers: Signers) -> None:
    """GnuPG may end at a damaged signature in the middle of a batch."""
    good = assertion("r1")
    proof = bytearray(signers.sign("bob", good))
    proof[-1] ^= 1
    for number in range(12):
        put(tree.root, "r1", f"m{number:02d}", good, bytes(proof) if number % 2 else signers.sign("carol", good))
    assert tree.outcomes() == {"alice": "OK", **{f"m{number:02d}": "BAD SIGNATURE" if number % 2 else "OK"
                                                 for number in range(12)}}


def test_text_mode_and_armoured_signatures_are_good_ones(tree: Tree, signers: Signers) -> None:
    good = assertion("r1")
    text = signers.gpg("-u", signers.fingerprints["bob"], "--textmode", "--detach-sign", data=good)
    put(tree.root, "r1", "bob", good, text)
    put(tree.root, "r1", "carol", good, signers.sign("carol", good, armour=True))
    assert tree.outcomes() == {"alice": "OK", "bob": "OK", "carol": "OK"}


@pytest.mark.parametrize(("content", "words"), [
    (assertion("r1") + assertion("r1", out=OTHER), "second document"),
    (assertion("r1") + b"- release: r1\n", "twice"),
    (assertion("r1") + b"- out_manifest: x\n", "twice"),
    (b"--- !!omap\n- a: &a [x,x,x,x,x,x,x,x,x]\n- b: &b [*a,*a,*a,*a,*a,*a,*a,*a]\n- c: [*b,*b,*b,*b]\n", "alias"),
    (b"[" * 5000, ""),
    (b"- " * 20000 + b"x", ""),
    (b"--- !!python/object/apply:os.system ['touch pwned']\n", ""),
    (b"--- !ruby/object:Gem::Installer\ni: x\n", ""),
    (b"\xff\xfe\x00x" * 100, ""),
    (b"", "empty"),
])
def test_documents_that_are_no_assertion(tree: Tree, signers: Signers, content: bytes, words: str) -> None:
    put(tree.root, "r1", "bob", content, signers.sign("bob", content))
    assert tree.outcomes() == {"alice": "OK", "bob": "UNREADABLE"}
    assert words in tree.words("bob")
    assert not Path("pwned").exists()


def test_a_web_page_is_one_whatever_its_signature(tree: Tree, signers: Signers) -> None:
    """Three real ones lie in a repository of signatures, beside signatures of what should have been there."""
    page = b"<!DOCTYPE HTML>\n<html><head>\n<title>404 Not Found</title>\n</head></html>\n"
    put(tree.root, "r1", "bob", page, signers.sign("bob", assertion("r1")))
    put(tree.root, "r1", "carol", page, page)
    put(tree.root, "r1", "dave", page, None)
    assert tree.outcomes() == {"alice": "OK", "bob": "UNREADABLE", "carol": "UNREADABLE", "dave": "MISSING SIGNATURE"}
    assert "web page" in tree.words("bob") and "BAD SIGNATURE" in tree.words("bob")


def test_a_hundred_megabytes(tree: Tree, signers: Signers) -> None:
    where = put(tree.root, "r1", "bob", b"", signers.sign("bob", b""))
    os.truncate(where / "pkg-build.assert", 100 * 2**20)
    where = put(tree.root, "r1", "carol", assertion("r1"), b"")
    os.truncate(where / "pkg-build.assert.sig", 100 * 2**20)
    assert tree.outcomes() == {"alice": "OK", "bob": "UNREADABLE", "carol": "BAD SIGNATURE"}
    assert "104857600 bytes" in tree.words("bob")


def test_links_out_of_the_tree_pipes_and_devices(tree: Tree, signers: Signers, tmp_path: Path) -> None:
    outside = put(tmp_path, "outside", "x", assertion("r1"), signers.sign("bob", assertion("r1")))
    (tree.root / "r1" / "dir").symlink_to(outside)
    for name, target in (("file", outside / "pkg-build.assert"), ("device", Path("/dev/zero")),
                         ("sibling", Path("../alice/pkg-build.assert"))):
        where = put(tree.root, "r1", name, b"", signers.sign("alice", assertion("r1")))
        (where / "pkg-build.assert").unlink()
        (where / "pkg-build.assert").symlink_to(target)
    where = put(tree.root, "r1", "pipe", b"", None)
    (where / "pkg-build.assert").unlink()
    os.mkfifo(where / "pkg-build.assert")
    where = put(tree.root, "r1", "sigpipe", assertion("r1"), None)
    os.mkfifo(where / "pkg-build.assert.sig")
    assert tree.outcomes() == {"alice": "OK", "dir": "UNREADABLE", "file": "UNREADABLE", "device": "UNREADABLE",
                               "sibling": "OK", "pipe": "UNREADABLE", "sigpipe": "BAD SIGNATURE"}
    assert "out of the tree" in tree.words("file")


ODD = (b"a b", b"o'brien", b'qu"ote', b"$HOME", b"`touch pwned`", b"$(touch pwned)", b"back\\slash", b"; touch pwned;",
       b"-x", b"--keyring", b"\xff\xfe", "ü€".encode(), b"\x1b[31mred\x1b[0m", b"new\nline: OK", b"\x9b31m", b"*",
       b"~root", "\u202eevil".encode(), b"del\x7fete")


def test_directory_names_of_any_bytes(tree: Tree, signers: Signers) -> None:
    good = assertion("r1")
    for name in ODD:
        put(tree.root, "r1", os.fsdecode(name), good, signers.sign("bob", good))
    ran = tree.verify("--no-cache", "-v", "--no-markup")
    assert ran.status == 0
    assert len(ran.verdicts) == len(ODD) + 1
    assert {word for _, word in ran.verdicts} == {"OK"}
    assert not [char for char in ran.stdout if not char.isprintable() and char != "\n"]
    assert "\\x1b[31mred" in ran.stdout and "new\\x0aline: OK: OK" in ran.stdout and "\\xff\\xfe: OK" in ran.stdout
    assert not Path("pwned").exists()
    for words in (("--json",), ("--json", "--all"), ("--json", "--explain")):
        ran = tree.verify(*words)
        assert all(" " <= char <= "~" or char == "\n" for char in ran.stdout)
    assert len(tree.verify("--json").document["signers"]) == len(ODD) + 1


@pytest.mark.parametrize("encoding", ["latin-1", "utf-8"])
def test_names_that_the_user_s_encoding_lacks(tree: Tree, signers: Signers, encoding: str) -> None:
    good = assertion("r1")
    for name in ("\u017e\u20ac", "\xfc"):
        put(tree.root, "r1", name, good, signers.sign("bob", good))
    done = subprocess.run([sys.executable, "-m", "gitian.cli.main", "gverify", "-d", str(tree.root), "-r", "r1",
                           "--keyring", str(tree.ring), "--only-keyring", str(tree.descriptor)], check=False,
                          capture_output=True, env={**os.environ, "PYTHONIOENCODING": encoding, "PYTHONUTF8": "0"})
    assert done.returncode == 0, done.stderr
    assert done.stdout.decode(encoding).count(": OK") == 3
    assert ("\\u20ac" in done.stdout.decode(encoding)) == (encoding != "utf-8")


def test_names_are_escaped_in_errors_too(tree: Tree, signers: Signers) -> None:
    """A message may have lines; a name in it must not add one."""
    put(tree.root, "r1", "x\ngverify: all is well", b"", None)
    put(tree.root, "r1", "bob", b"--- !<tag:\xc2\xa0> [\"\\n all is well\"]\n", None)
    for words in (("-c", "nobody"), ("-c", "bob")):
        ran = tree.verify(*words)
        assert ran.status == 2 and "\n all is well" not in ran.stderr and "\ngverify: all" not in ran.stderr
    assert "x\\x0agverify: all is well" in tree.verify("-c", "nobody").stderr


def test_escapes_and_shell_text_in_everything_that_is_printed(tree: Tree, signers: Signers) -> None:
    evil = "\x1b]0;pwned\x07\x1b[2J$(touch pwned)\u202e"
    out = MANIFEST + f"{'f' * 64}  {evil}\n"
    escaped = assertion("r1").replace(b"out_manifest: |\n", b"x: |\n").replace(b"--- !!omap\n", (
        "--- !!omap\n- out_manifest: \"" + out.encode("unicode_escape").decode() + "\"\n").encode())
    put(tree.root, "r1", "bob", escaped, signers.sign("odd", escaped))
    named = assertion('"\\e[2J' + 'r9"')
    put(tree.root, "r1", "carol", named, signers.sign("carol", named))
    second = assertion("r1")
    put(tree.root, "r1", "dave", second, signers.sign("bob", second))
    ran = tree.verify("-v", "--no-markup")
    assert dict(ran.verdicts) == {"alice": "OK", "bob": "MISMATCH", "carol": "WRONG RELEASE", "dave": "OK"}
    assert "touch pwned" in ran.stdout
    assert not [char for char in ran.stdout + ran.stderr if not char.isprintable() and char != "\n"]
    assert not Path("pwned").exists()


def test_keys_judged_at_the_time_of_the_signature(tree: Tree, tmp_path: Path) -> None:
    own = Signers()
    try:
        good = assertion("r1")
        for name in ("superseded", "retired", "compromised", "unsaid", "toolate"):
            own.make(name)
            late = name == "toolate"
            put(tree.root, "r1", name, good, own.sign(name, good, at="20220601T000000" if late else "20200601T000000"))
        own.make("ended", expire="20210101T000000")
        put(tree.root, "r1", "ended", good, own.sign("ended", good))
        for name, reason in (("compromised", 1), ("superseded", 2), ("toolate", 2), ("retired", 3), ("unsaid", 0)):
            own.revoke(name, reason, "20210601T000000")
        tree.ring.write_bytes(tree.ring.read_bytes() + own.export(*own.fingerprints))
        assert tree.outcomes() == {"alice": "OK", "ended": "OK", "superseded": "OK", "retired": "OK",
                                   "compromised": "REVOKED KEY", "unsaid": "REVOKED KEY", "toolate": "REVOKED KEY"}
        assert "expired since, on 2021-01-01" in tree.words("ended")
        assert "superseded" in tree.words("superseded") and "2021-06-01" in tree.words("superseded")
        assert "before the signature of 2022-06-01" in tree.words("toolate")
    finally:
        own.close()


def test_signed_after_the_key_had_expired(tree: Tree, signers: Signers) -> None:
    """GnuPG does not let one do that by ordinary means: the key's life is shortened afterwards."""
    own = Signers()
    try:
        own.make("eve")
        good = assertion("r1")
        put(tree.root, "r1", "eve", good, own.sign("eve", good, at="20220601T000000"))
        own.gpg("--faked-system-time", "20200201T000000!", "--quick-set-expire", own.fingerprints["eve"],
                "20210101T000000")
        tree.ring.write_bytes(tree.ring.read_bytes() + own.export("eve"))
        assert tree.outcomes() == {"alice": "OK", "eve": "EXPIRED KEY"}
        assert "had expired on 2021-01-01 when it signed on 2022-06-01" in tree.words("eve")
    finally:
        own.close()


def test_a_forged_revocation_revokes_nobody(tree: Tree, signers: Signers) -> None:
    """Somebody else's revocation certificate, rewritten to name alice's key: GnuPG checks it, and drops it."""
    own = Signers()
    try:
        fingerprint = own.make("mallory")
        own.revoke("mallory", 1, "20210601T000000")
        revocation = next(packet for packet in packets.packets(own.export("mallory"))
                          if packet.tag == packets.SIGNATURE and packet.body[1] == packets.KEY_REVOCATION)
        alice = signers.fingerprints["alice"]
        forged = revocation.raw.replace(bytes.fromhex(fingerprint), bytes.fromhex(alice)).replace(
            bytes.fromhex(fingerprint[-16:]), bytes.fromhex(alice[-16:]))
        assert forged != revocation.raw
        inside = list(packets.packets(signers.export("alice")))
        (tree.ring.parent / "more.gpg").write_bytes(
            inside[0].raw + forged + b"".join(packet.raw for packet in inside[1:]))
        (tree.ring.parent / "certificate.gpg").write_bytes(forged)
        found = tree.outcomes("--keyring", "more.gpg", "--keyring", "certificate.gpg")
        assert found == {"alice": "OK"}
    finally:
        own.close()


def test_stopped_in_the_middle(tree: Tree, tmp_path: Path) -> None:
    """Neither the private home nor a process stays behind."""
    (tmp_path / "bin").mkdir()
    (tmp_path / "tmp").mkdir()
    (tmp_path / "bin" / "gpg").write_text(
        f'#!/bin/sh\ncase "$*" in *--verify*) touch {tmp_path}/started; sleep 1;; esac\n'
        f'exec {shutil.which("gpg")} "$@"\n')
    (tmp_path / "bin" / "gpg").chmod(0o755)
    running = subprocess.Popen(
        [sys.executable, "-m", "gitian.cli.main", "gverify", "-d", str(tree.root), "-r", "r1", "--keyring",
         str(tree.ring), "--only-keyring", "--no-cache", str(tree.descriptor)], stdout=subprocess.PIPE,
        stderr=subprocess.PIPE, env={**os.environ, "TMPDIR": str(tmp_path / "tmp"),
                                     "PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}"})
    until = time.monotonic() + 60
    while not (tmp_path / "started").exists() and time.monotonic() < until and running.poll() is None:
        time.sleep(0.02)
    assert list((tmp_path / "tmp").iterdir())
    running.terminate()
    out, err = running.communicate(timeout=60)
    assert (running.returncode, out) == (128 + signal.SIGTERM, b"") and b"SIGTERM" in err
    assert not list((tmp_path / "tmp").iterdir())


def test_key_files_that_are_none(tree: Tree) -> None:
    folder = tree.root / "gitian-keys"
    folder.mkdir()
    for name, data in (("a.asc", b"<html>"), ("b.pgp", b"\xff" * 1000), ("c.gpg", b""), ("d.key", b"\x99\x01"),
                       ("e.kbx", b"\0" * 8 + b"KBXf" + b"\xff" * 64)):
        (folder / name).write_bytes(data)
    (folder / "f.asc").symlink_to("/dev/zero")
    os.mkfifo(folder / "g.asc")
    ran = gverify(tree.capfd, "-d", str(tree.root), "-r", "r1", "--keyring", str(tree.ring), str(tree.descriptor))
    assert ran.verdicts == [("alice", "OK")]


def test_a_release_that_is_a_link_out_or_a_file(tree: Tree, tmp_path: Path) -> None:
    (tree.root / "out").symlink_to(tmp_path)
    (tree.root / "file").write_text("x")
    for release in ("out", "file", "none"):
        assert tree.verify(release=release).status == 14
    for release in ("..", ".", "a/b", "-x", ""):
        assert tree.verify(release=release).status == 2
