"""The one door to other programs: what they see, how they end, and what becomes of their output."""

from __future__ import annotations

import os
import shutil
import signal
import sys
import time
from pathlib import Path

import pytest

from gitian.errors import MissingToolError, ProgramError
from gitian.host import process, tools


def python(text: str) -> list[str]:
    return [sys.executable, "-c", text]


def gone(pid: int) -> bool:
    return process.identity(pid) is None


def test_output_status_and_input() -> None:
    text = "import sys; print(sys.stdin.read().upper()); print('said', file=sys.stderr); sys.exit(3)"
    done = process.run(python(text), input=b"abc", check=False)
    assert (done.status, done.stdout, done.stderr) == (3, b"ABC\n", b"said\n")
    with pytest.raises(ProgramError, match=r"ended with status 3: said"):
        done.check()


def test_standard_input_is_empty_when_none_is_given() -> None:
    assert process.run(python("import sys; print(len(sys.stdin.read()))")).stdout == b"0\n"


def test_a_program_ended_by_a_signal() -> None:
    done = process.run(python("import os, signal; os.kill(os.getpid(), signal.SIGKILL)"), check=False)
    assert done.status == -signal.SIGKILL
    assert process.ended_how(done.status) == "was ended by signal SIGKILL"
    assert process.ended_how(-32) == "was ended by signal 32"


def test_the_environment_is_small(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("LC_MESSAGES", "LANGUAGE", "GIT_DIR", "BASH_ENV", "PYTHONPATH", "LD_PRELOAD_X"):
        monkeypatch.setenv(name, "x")
    monkeypatch.setenv("LC_ALL", "de_DE.UTF-8")
    monkeypatch.setenv("PATH", "/usr/bin:/bin")
    seen = dict(line.split("=", 1) for line in
                process.run(["env"], env={"EXTRA": "yes"}).stdout.decode().splitlines())
    assert seen["LC_ALL"] == seen["LANG"] == "C.UTF-8"
    assert seen["EXTRA"] == "yes"
    assert seen["PATH"].split(":")[:2] == ["/usr/bin", "/bin"]
    assert "/usr/sbin" in seen["PATH"].split(":"), "mke2fs and others live there"
    assert not {"LC_MESSAGES", "LANGUAGE", "GIT_DIR", "BASH_ENV", "PYTHONPATH", "LD_PRELOAD_X"} & set(seen)


def test_a_umask_for_the_program_alone(tmp_path: Path) -> None:
    before = os.umask(0o077)
    try:
        process.run(["touch", tmp_path / "file"], umask=0o022)
        (tmp_path / "ours").touch()
    finally:
        os.umask(before)
    assert (tmp_path / "file").stat().st_mode & 0o777 == 0o644
    assert (tmp_path / "ours").stat().st_mode & 0o777 == 0o600


def test_a_program_that_is_not_there() -> None:
    with pytest.raises(MissingToolError, match="'no-such-program-at-all' is not installed") as caught:
        process.run(["no-such-program-at-all"])
    assert caught.value.hint
    with pytest.raises(MissingToolError, match="is not installed"):
        process.run(["/nonexistent/program"])


def test_the_package_that_brings_a_program(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda *a, **k: None)
    with pytest.raises(MissingToolError) as caught:
        tools.find("slirp4netns")
    assert caught.value.hint is not None
    assert "apt-get install slirp4netns" in caught.value.hint


def test_programs_that_cannot_start(tmp_path: Path) -> None:
    with pytest.raises(ProgramError, match="no such directory"):
        process.run(["true"], cwd=tmp_path / "nothing")
    (tmp_path / "text").write_text("no program")
    (tmp_path / "text").chmod(0o755)
    with pytest.raises(ProgramError, match="Exec format error"):
        process.run([tmp_path / "text"])


def test_a_program_that_takes_too_long_is_ended_with_its_children(tmp_path: Path) -> None:
    child = tmp_path / "child"
    with pytest.raises(ProgramError, match=r"did not end within 1 s"):
        process.run(["sh", "-c", f"sleep 600 & echo $! > {child}; wait"], timeout=1)
    assert process.wait_until(lambda: gone(int(child.read_text())), 30)


def test_a_flood_of_output_is_cut_off() -> None:
    with pytest.raises(ProgramError, match="said more than 100000 bytes"):
        process.run(["cat", "/dev/zero"], limit=100_000)


def test_a_program_that_does_not_read_its_input() -> None:
    done = process.run(["true"], input=b"x" * 10_000_000)
    assert done.status == 0


def test_a_grandchild_that_holds_the_pipe_open(tmp_path: Path) -> None:
    """The program has ended: what it said is the answer, and its heirs are not waited for."""
    child = tmp_path / "child"
    for redirected in ("", ">/dev/null", "2>/dev/null"):
        done = process.run(["sh", "-c", f"sleep 600 {redirected} & echo $! > {child}; echo said"], timeout=300)
        os.kill(int(child.read_text()), signal.SIGKILL)
        assert done.stdout == b"said\n"


def test_much_output_until_the_very_end_is_kept() -> None:
    done = process.run(["sh", "-c", "sleep 600 & head -c 3000000 /dev/zero; kill $!"])
    assert len(done.stdout) == 3_000_000


def test_an_exception_ends_the_program_and_its_children(tmp_path: Path) -> None:
    child = tmp_path / "child"
    with pytest.raises(KeyError):
        with process.start(["sh", "-c", f"sleep 600 & echo $! > {child}.new; mv {child}.new {child}; wait"]) as running:
            assert process.wait_until(child.exists, 60)
            raise KeyError
    assert running.returncode is not None
    assert process.wait_until(lambda: gone(int(child.read_text())), 30)


def test_a_tied_program_does_not_outlive_us(tmp_path: Path) -> None:
    child = tmp_path / "child"
    text = ("from gitian.host import process\n"
            f"process.run(['sh', '-c', 'echo $$ > {child}.new; mv {child}.new {child}; sleep 600'], tied=True)")
    parent = process.popen(python(text), env={"PYTHONPATH": ":".join(sys.path)})
    assert process.wait_until(child.exists, 60)
    parent.kill()
    parent.wait()
    assert process.wait_until(lambda: gone(int(child.read_text())), 30)


def test_a_program_that_ignores_the_polite_signal(tmp_path: Path) -> None:
    ready = tmp_path / "ready"
    running = process.popen(["sh", "-c", f"trap '' TERM; touch {ready}; while :; do sleep 1; done"])
    assert process.wait_until(ready.exists, 60)
    process.end(running, patience=0.2)
    assert running.returncode == -signal.SIGKILL


def test_identity_tells_a_process_from_a_later_one_of_the_same_number() -> None:
    running = process.popen(["sleep", "600"])
    who = process.identity(running.pid)
    assert who is not None
    assert who == process.identity(running.pid)
    other = process.ProcessIdentity(pid=who.pid, started=who.started - 1)
    assert process.kill_identity(other)
    assert running.poll() is None, "another process of that number was meant, and that one is gone"
    assert process.kill_identity(who)
    running.wait()
    assert process.identity(running.pid) is None


def test_a_zombie_is_no_process_any_more() -> None:
    running = process.popen(["true"])
    assert process.wait_until(lambda: process.identity(running.pid) is None, 60)
    running.wait()


def test_in_the_foreground_it_has_our_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("SOMETHING_OF_THE_USER", "yes")
    out = tmp_path / "out"
    status = process.run_in_foreground(["sh", "-c", f'echo "$SOMETHING_OF_THE_USER" > {out}; exit 7'])
    assert (status, out.read_text()) == (7, "yes\n")


def test_wait_until() -> None:
    began = time.monotonic()
    assert not process.wait_until(lambda: False, 0.05)
    assert time.monotonic() - began >= 0.05
    assert process.wait_until(lambda: True, 0)
