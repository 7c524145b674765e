"""Hashes, room, subordinate ids, streams, and what is shown while something takes long."""

from __future__ import annotations

import errno
import hashlib
import io
import os
import pwd
import sys
import threading
from pathlib import Path

import pytest

from gitian.errors import HostError, InputError
from gitian.host import progress, space, streams
from gitian.host.hashing import sha256_bytes, sha256_file, sha256_files
from gitian.host.subids import SubIds

# hashes


def test_known_hashes(tmp_path: Path) -> None:
    """Vectors of FIPS 180-2."""
    (tmp_path / "abc").write_bytes(b"abc")
    expected = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    assert sha256_file(tmp_path / "abc") == sha256_bytes(b"abc") == expected
    (tmp_path / "million").write_bytes(b"a" * 1_000_000)
    counts: list[int] = []
    assert sha256_file(tmp_path / "million", progress=counts.append) == (
        "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0")
    assert sum(counts) == 1_000_000


@pytest.mark.parametrize("workers", [None, 1, 2, 7])
def test_many_files_in_the_order_given(tmp_path: Path, workers: int | None) -> None:
    paths = []
    for number in range(150):
        path = tmp_path / str(number)
        path.write_bytes(str(number).encode() * (400_000 if number % 40 == 3 else 1))
        paths.append(path)
    expected = [hashlib.sha256(path.read_bytes()).hexdigest() for path in paths]
    assert sha256_files(iter(paths), workers) == expected
    assert sha256_files([]) == []


def test_what_cannot_be_hashed(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")  # opening it would wait for ever
    (tmp_path / "file").touch()
    (tmp_path / "link").symlink_to("file")
    for path in (tmp_path / "pipe", tmp_path):
        with pytest.raises(InputError, match="not a regular file"):
            sha256_file(path)
    assert sha256_file(tmp_path / "link") == hashlib.sha256(b"").hexdigest()
    with pytest.raises(OSError, match="symbolic links"):
        sha256_file(tmp_path / "link", follow=False)
    with pytest.raises(FileNotFoundError):
        sha256_files([tmp_path / "file", tmp_path / "nothing"], 2)


# room


def test_room(tmp_path: Path) -> None:
    status = os.statvfs(tmp_path)
    assert abs(space.free(tmp_path / "not" / "there" / "yet") - status.f_bavail * status.f_frsize) < 2**34
    space.require_room(tmp_path, 1, "a test")
    with pytest.raises(HostError, match=r"too little room on the disk of '.*': .* free, 1000.0 TB needed \(a test\)"):
        space.require_room(tmp_path, 10**15, "a test")


# subordinate ids


def subordinate(tmp_path: Path, users: str | None, groups: str | None) -> SubIds:
    for name, text in (("subuid", users), ("subgid", groups)):
        if text is not None:
            (tmp_path / name).write_text(text)
    return SubIds.of_current_user(tmp_path / "subuid", tmp_path / "subgid")


def test_subordinate_ids_by_name_or_number(tmp_path: Path) -> None:
    uid = os.geteuid()
    name = pwd.getpwuid(uid).pw_name
    found = subordinate(tmp_path, f"other:1:65536\n{name}:100000:65536\n", f"# remark\n\n{uid}:200000:200000\n")
    assert found == SubIds(uid=100000, gid=200000, count=65536)


@pytest.mark.parametrize("line", [
    "", "{name}:100000:65535\n", "{name}:0:65536\n", "{name}:100000\n", "{name}:x:65536\n", "{name}:-5:65536\n",
    "someone:100000:65536\n", "{name}:1\u0661000:65536\n"])
def test_ranges_that_will_not_do(tmp_path: Path, line: str) -> None:
    name = pwd.getpwuid(os.geteuid()).pw_name
    good = f"{name}:100000:65536\n"
    with pytest.raises(HostError, match="subuid") as caught:
        subordinate(tmp_path, line.format(name=name), good)
    assert "subgid" not in str(caught.value)
    assert caught.value.hint
    with pytest.raises(HostError, match="no range of 65536"):
        subordinate(tmp_path, good, line.format(name=name))


def test_no_such_files(tmp_path: Path) -> None:
    with pytest.raises(HostError, match="subuid and .*subgid"):
        subordinate(tmp_path, None, None)


# streams


def test_relay_and_tail() -> None:
    reading, writing = os.pipe()
    copy = io.BytesIO()
    tail = streams.Tail(size=100)
    text = b"".join(b"line %d\n" % number for number in range(100_000))

    def feed() -> None:
        streams.writer(writing)(text)
        os.close(writing)

    thread = threading.Thread(target=feed)
    thread.start()
    assert streams.relay(reading, copy.write, tail, piece=1000) == len(text)
    thread.join()
    os.close(reading)
    assert copy.getvalue() == text
    assert tail.lines(3) == ["line 99997", "line 99998", "line 99999"]


def test_a_tail_of_tiny_and_of_huge_pieces() -> None:
    tail = streams.Tail(size=1000)
    for number in range(5000):
        tail(b"%d\n" % number)
    assert tail.lines(2) == ["4998", "4999"]
    tail(b"x" * 10_000 + b"\nend\n")
    assert tail.lines(1) == ["end"]
    assert len(tail.lines(10)[0]) == 995


# what is shown


@pytest.mark.parametrize(("text", "shown"), [
    ("plain text, äöü 漢字", "plain text, äöü 漢字"),
    ("\x1b[31mred\x1b[0m", r"\x1b[31mred\x1b[0m"),
    ("a\rb\nc\td\x00\x07\x7f", r"a\x0db\x0ac\x09d\x00\x07\x7f"),
    ("\x9b31m", r"\x9b31m"),
    ("abc\u202egnp.exe", r"abc\u202egnp.exe"),
    ("\u2066x\u2069\u200f\u061c", r"\u2066x\u2069\u200f\u061c"),
    ("zero\u200bwidth\ufeff", r"zero\u200bwidth\ufeff"),
    ("line\u2028sep\u2029", r"line\u2028sep\u2029"),
    (os.fsdecode(b"\xff\xfe"), r"\xff\xfe"),
    ("\U000e0041tag", r"\U000e0041tag"),
    ("\ud800", r"\ud800"),
])
def test_plain(text: str, shown: str) -> None:
    assert progress.plain(text) == shown
    assert progress.plain(text).isprintable()


def test_plain_lines() -> None:
    assert progress.plain("a\n\tb\x1b", lines=True) == "a\n\tb\\x1b"


@pytest.mark.parametrize(("size", "text"), [(0, "0 bytes"), (999, "999 bytes"), (1000, "1.0 kB"), (999_940, "999.9 kB"),
                                            (999_960, "1.0 MB"), (1_400_000, "1.4 MB"), (5 * 10**15, "5000.0 TB")])
def test_amounts(size: int, text: str) -> None:
    assert progress.amount(size) == text


def test_steps_and_bars_in_a_log(capsys: pytest.CaptureFixture[str]) -> None:
    with progress.step("Doing \x1b[1m this"):
        progress.say("a remark")
        progress.warn("careful\n")
    with progress.bar("Copying", 3_000_000) as advance:
        advance(1_000_000)
        advance(2_000_000)
    with progress.bar("Hashing", 2, unit="files") as advance:
        advance(2)
    out, err = capsys.readouterr()
    assert out == ""
    lines = err.splitlines()
    assert lines[:3] == [r"Doing \x1b[1m this ...", "a remark", r"warning: careful\x0a"]
    assert lines[3].startswith(r"Doing \x1b[1m this: done (")
    assert lines[5].startswith("Copying: done (3.0 MB, ")
    assert lines[7].startswith("Hashing: done (2 files, ")


def test_a_step_that_fails_is_not_done(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(KeyError):
        with progress.step("Doing"):
            raise KeyError
    assert capsys.readouterr().err == "Doing ...\n"


def test_quiet(capsys: pytest.CaptureFixture[str]) -> None:
    progress.set_quiet(True)
    try:
        with progress.step("x"), progress.bar("y") as advance:
            advance(1)
            progress.say("z")
            progress.warn("still")
    finally:
        progress.set_quiet(False)
    assert capsys.readouterr().err == "warning: still\n"


def test_nobody_reads_what_is_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    class Gone(io.StringIO):
        def write(self, text: str) -> int:
            raise OSError(errno.EPIPE, "Broken pipe")

    monkeypatch.setattr(sys, "stderr", Gone())
    with progress.step("x"):
        progress.say("y")


def test_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    """Steps within steps, a bar, remarks in between, a pause: all lines are there, and the display is gone after."""
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    for name, value in (("TERM", "xterm"), ("COLUMNS", "120")):
        monkeypatch.setenv(name, value)
    with progress.step("outer"):
        with progress.bar("[bold]inner[/bold]", 100) as advance:
            advance(50)
            progress.say("remark [red]with[/red] \x1b")
            with progress.paused():
                terminal.write("<pinentry>")
            advance(50)
    after = terminal.getvalue()
    assert "remark [red]with[/red] \\x1b" in after
    assert "[bold]inner[/bold]: done (100 bytes, " in after
    assert "outer: done (" in after
    assert "<pinentry>" in after
    progress.say("plain again")
    assert terminal.getvalue() == after + "plain again\n"
