"""diffoscope within limits: a small program stands in for it, that is obedient, silent, slow, greedy or hostile."""

from __future__ import annotations

import os
import signal
import stat
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from gitian.host import process
from gitian.vary.diffoscope import Allowance, file_name, installed, report

OBEDIENT = """
import os, sys
words = sys.argv[1:]
open(os.environ["RECORD"], "w").write("\\n".join([*words, os.environ["TMPDIR"], os.getcwd()]))
open(words[words.index("--text") + 1], "w").write("--- a\\n+++ b\\n\\x1b[31mred\\x1b[0m\\n")
open(words[words.index("--html") + 1], "w").write("<html>differs</html>")
open(os.path.join(os.environ["TMPDIR"], "left-behind"), "w").write("x")
sys.exit(1)
"""


@pytest.fixture
def stand_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory, first on PATH, for a program called diffoscope."""
    programs = tmp_path / "bin"
    programs.mkdir()
    monkeypatch.setenv("PATH", f"{programs}:/usr/bin:/bin")
    for name in "ab":
        (tmp_path / name).write_text(name)
    return programs


def write(directory: Path, text: str) -> None:
    program = directory / "diffoscope"
    program.write_text(f"#!{sys.executable}\n{text}")
    program.chmod(program.stat().st_mode | stat.S_IXUSR)


def test_its_reports_are_kept_and_harmless(stand_in: Path, tmp_path: Path) -> None:
    record = tmp_path / "record"
    write(stand_in, OBEDIENT.replace('os.environ["RECORD"]', repr(str(record))))
    found = report(tmp_path / "a", tmp_path / "b", tmp_path / "kept", "sub/x.tar")
    assert found is not None and found.problem is None
    assert found.text is not None and found.html is not None
    assert found.html.read_text() == "<html>differs</html>"
    assert found.text.read_text() == "--- a\n+++ b\n\\x1b[31mred\\x1b[0m\n"
    assert sorted(path.name for path in (tmp_path / "kept").iterdir()) == sorted([found.text.name, found.html.name])
    *words, scratch, _ = record.read_text().split("\n")
    assert words[-3:] == ["--", str(tmp_path / "a"), str(tmp_path / "b")]
    assert "--max-report-size" in words and "--no-progress" in words
    assert not Path(scratch).exists()


def test_a_relative_directory_for_reports_and_another_for_scratch(stand_in: Path, tmp_path: Path,
                                                                  monkeypatch: pytest.MonkeyPatch) -> None:
    record = tmp_path / "record"
    write(stand_in, OBEDIENT.replace('os.environ["RECORD"]', repr(str(record))))
    (tmp_path / "scratch").mkdir()
    monkeypatch.chdir(tmp_path)
    found = report(Path("a"), Path("b"), Path("kept"), "x", allowance=Allowance(scratch=Path("scratch")))
    assert found is not None and found.problem is None and found.text is not None
    assert found.text.parent == tmp_path / "kept" and found.text.exists()
    assert Path(record.read_text().split("\n")[-1]).parent == tmp_path / "scratch"
    assert list((tmp_path / "scratch").iterdir()) == []


def test_it_does_not_outlive_us(stand_in: Path, tmp_path: Path) -> None:
    """Neither it nor a program that it runs, when we are killed and can do nothing about it any more."""
    (tmp_path / "pids").mkdir()
    write(stand_in, f"""
import os, pathlib, time
os.fork()
pathlib.Path({str(tmp_path / 'pids')!r}, str(os.getpid())).touch()
time.sleep(600)
""")
    words = f"from pathlib import Path; from gitian.vary.diffoscope import report; " \
            f"d = Path({str(tmp_path)!r}); report(d / 'a', d / 'b', d / 'kept', 'x')"
    with process.start([sys.executable, "-c", words], env={"PATH": os.environ["PATH"]}) as running:
        pids = until(lambda: len(found := os.listdir(tmp_path / "pids")) == 2 and found)
        who = [process.identity(int(pid)) for pid in pids]
        assert None not in who
        os.kill(running.pid, signal.SIGKILL)
    until(lambda: all(process.identity(int(pid)) != one for pid, one in zip(pids, who, strict=True)) and pids)


def until(told: Callable[[], list[str] | bool]) -> list[str]:
    """Wait for something, patiently."""
    for _ in range(1200):
        found = told()
        if found and not isinstance(found, bool):
            return found
        time.sleep(0.05)
    raise AssertionError("it has not come to pass within a minute")


def test_without_it_there_is_no_report(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    empty = tmp_path / "bin"
    empty.mkdir()
    monkeypatch.setenv("PATH", str(empty))
    if installed():
        pytest.skip("diffoscope is in one of the system's own directories")
    assert report(tmp_path, tmp_path, tmp_path / "kept", "x") is None
    assert not (tmp_path / "kept").exists()


@pytest.mark.parametrize(("program", "words"), [
    ("import time\ntime.sleep(600)", "did not end within"),
    ("import os\nwhile True: os.write(1, b'x' * 65536)", "said more than"),
    ("import sys\nsys.stderr.write('first\\nno \\x1b[2Jluck\\n'); sys.exit(2)", r"ended with status 2: no \x1b[2Jluck"),
    ("x = bytearray(3 << 30); import sys; sys.exit(0)", "MemoryError"),
    ("import os, sys\nopen(sys.argv[sys.argv.index('--text') + 1], 'wb').write(b'x' * 5_000_000); sys.exit(1)",
     "of more than 2000000 bytes"),
    ("import os, sys\nos.symlink('/etc/passwd', sys.argv[sys.argv.index('--text') + 1]); sys.exit(1)",
     "found no difference"),
])
def test_what_goes_wrong_is_told(program: str, words: str, stand_in: Path, tmp_path: Path) -> None:
    write(stand_in, program)
    slow = "sleep" in program
    found = report(tmp_path / "a", tmp_path / "b", tmp_path / "kept", "x",
                   allowance=Allowance(seconds=1 if slow else 120, memory=2 << 30, report=1_000_000))
    assert found is not None and found.problem is not None
    assert words in found.problem and found.problem.isprintable()
    assert found.text is None and found.html is None
    assert list((tmp_path / "kept").iterdir()) == []


def test_names_of_reports_stay_in_their_directory() -> None:
    hostile = ("../../etc/passwd", "a/b", "a_b", "", "..", "x" * 500, "\udcff", "ok.tar")
    names = {name: file_name(name) for name in hostile}
    assert len(set(names.values())) == len(names)
    assert all("/" not in name and name not in ("", ".", "..") and len(name) < 120 for name in names.values())
    assert names["ok.tar"] == "ok.tar"
