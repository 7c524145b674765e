"""Work side by side in child processes: results in order, one failure stops the rest, nothing outlives us."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from gitian.build.pipeline import jobs
from gitian.errors import BuildError, GitianError, Interrupted, ProgramError
from gitian.formats.descriptor import Descriptor
from gitian.host.children import Work, together
from gitian.plan import Options, make_plan


def answer(number: int) -> tuple[int, int]:
    return number, os.getpid()


def test_results_come_in_order_from_processes_of_their_own() -> None:
    found = together([Work(name=str(n), do=lambda n=n: answer(n)) for n in range(5)], at_once=2)  # type: ignore[misc]
    assert [number for number, _ in found] == list(range(5))
    assert len({pid for _, pid in found} | {os.getpid()}) == 6


def test_a_failure_is_raised_here_with_its_hint_and_stops_the_rest(tmp_path: Path) -> None:
    def fails() -> None:
        raise BuildError("It failed.", hint="Look.")

    def lasts() -> None:
        from gitian.cli.common import signals_as_exceptions

        with signals_as_exceptions():
            try:
                (tmp_path / "started").touch()
                time.sleep(300)
            except Interrupted:
                (tmp_path / "put away").touch()
                raise

    def fails_later() -> None:
        while not (tmp_path / "started").exists():
            time.sleep(0.01)
        time.sleep(0.2)
        fails()

    with pytest.raises(BuildError, match=r"It failed\.") as caught:
        together([Work(name="a", do=lasts), Work(name="b", do=fails_later), Work(name="c", do=lasts)], at_once=2)
    assert caught.value.hint == "Look."
    assert (tmp_path / "put away").exists()


def test_a_child_that_dies_without_a_word_is_an_error() -> None:
    with pytest.raises(ProgramError, match="'a'"):
        together([Work(name="a", do=lambda: os.kill(os.getpid(), signal.SIGKILL))], at_once=1)


def test_children_are_told_when_their_parent_is_killed(tmp_path: Path) -> None:
    code = f"""
import time
from pathlib import Path
from gitian.cli.common import signals_as_exceptions
from gitian.errors import Interrupted
from gitian.host.children import Work, together

def lasts():
    with signals_as_exceptions():
        try:
            Path({str(tmp_path / 'started')!r}).touch()
            time.sleep(300)
        except Interrupted:
            Path({str(tmp_path / 'put away')!r}).touch()

together([Work(name="a", do=lasts)], at_once=1)
"""
    parent = subprocess.Popen([sys.executable, "-c", code])
    until = time.monotonic() + 60
    while not (tmp_path / "started").exists() and time.monotonic() < until:
        time.sleep(0.02)
    parent.kill()
    parent.wait()
    while not (tmp_path / "put away").exists() and time.monotonic() < until:
        time.sleep(0.02)
    assert (tmp_path / "put away").exists()


def test_errors_keep_everything_on_their_way_between_processes() -> None:
    import pickle

    error = pickle.loads(pickle.dumps(BuildError("a", hint="b")))
    assert isinstance(error, GitianError)
    assert (str(error), error.hint, error.exit_code) == ("a", "b", 9)


DESCRIPTOR = """
name: "x"
suites: ["a", "b"]
architectures: ["i386", "amd64"]
packages: []
reference_datetime: "2013-06-01 00:00:00"
remotes: []
files: []
script: "true"
"""


@pytest.mark.parametrize(("options", "extra", "expected"), [
    (Options(), "", 2), (Options(parallel=3), "", 3), (Options(parallel=9), "", 4), (Options(parallel=1), "", 1),
    (Options(memory=3000), "", 1), (Options(skip_image=True, parallel=4), "", 1),
    # Each target finds the caches that the one before it left, as in the classic: one after the other.
    (Options(parallel=4), "enable_cache: true\n", 1),
    (Options(parallel=4, cache_read_only=True), "enable_cache: true\n", 4),
    # Two targets in the same kind of guest share a layer.
    (Options(parallel=4), 'architectures: ["amd64", "linux64"]\n', 1),
    (Options(parallel=4), 'architectures: ["i386", "linux64"]\n', 4),
])
def test_how_many_targets_at_a_time(options: Options, extra: str, expected: int) -> None:
    plan = make_plan(Descriptor.parse((DESCRIPTOR + extra).encode(), "x.yml"), options)
    assert jobs(plan, memory=5000, processors=2) == expected


@pytest.mark.parametrize(("memory", "processors", "expected"), [
    (100_000, 2, 4), (100_000, 1, 2), (7000, 2, 3), (9, 1, 1)])
def test_by_default_what_processors_and_memory_allow(memory: int, processors: int, expected: int) -> None:
    plan = make_plan(Descriptor.parse(DESCRIPTOR.encode(), "x.yml"), Options())
    assert jobs(plan, memory=memory, processors=processors) == expected
