"""Runs our commands as a user without any rights, whom nobody gave a password, sudo or subordinate ids."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.integration.conftest import ROOT

NUMBER = 64321


@dataclass(frozen=True, kw_only=True)
class Unprivileged:
    """``home`` belongs to the user. Where Python, its libraries or the checkout lie out of the user's reach (below
    root's home, say), they are mounted elsewhere for the command alone."""

    home: Path

    @classmethod
    @contextlib.contextmanager
    def somebody(cls) -> Iterator[Unprivileged]:
        """One with a home that is gone afterwards. Not among pytest's, which are shut to others again and again."""
        directory = Path(tempfile.mkdtemp(prefix="gitian-test-", dir="/var/tmp"))
        try:
            directory.chmod(0o755)
            home = directory / "home"
            home.mkdir()
            os.chown(home, NUMBER, NUMBER)
            yield cls(home=home)
        finally:
            shutil.rmtree(directory)

    def run(self, *words: str | Path, cwd: Path | None = None, env: Mapping[str, str] | None = None,
            timeout: float = 600, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run our command line, or with '-c' a script of Python, to its end."""
        python = Path(sys.base_prefix)
        libraries = Path(sysconfig.get_path("purelib"))
        places = {place: place for place in (python, libraries, ROOT)}
        mounts: list[str] = []
        for number, place in enumerate(places):
            if not all(parent.stat().st_mode & 0o1 for parent in (place, *place.parents)):
                places[place] = self.home.parent / f"mounted-{number}"
                places[place].mkdir(exist_ok=True)
                mounts += ["mount", "--bind", str(place), str(places[place]), "&&"]
        interpreter = Path(os.path.realpath(sys.executable))
        if interpreter.is_relative_to(python):
            interpreter = places[python] / interpreter.relative_to(python)
        argv = [str(interpreter), *(["-m", "gitian.cli.main"] if words[0] != "-c" else []), *map(str, words)]
        inner = " ".join([*mounts, 'exec setpriv --reuid="$0" --regid="$0" --clear-groups --no-new-privs "$@"'])
        line: Sequence[str] = ["unshare", "--mount", "--propagation", "private", "sh", "-c", inner, str(NUMBER), *argv]
        if not mounts:
            line = ["setpriv", f"--reuid={NUMBER}", f"--regid={NUMBER}", "--clear-groups", "--no-new-privs", *argv]
        environment = {
            "PATH": "/usr/local/bin:/usr/bin:/bin", "HOME": str(self.home), "LANG": "C.UTF-8",
            "LD_LIBRARY_PATH": str(places[python] / "lib"), "TMPDIR": str(self.home), "PYTHONDONTWRITEBYTECODE": "1",
            "PYTHONPATH": f"{places[ROOT] / 'src'}:{places[ROOT]}:{places[libraries]}",
            **{name: os.environ[name] for name in ("http_proxy", "https_proxy", "no_proxy") if name in os.environ},
            **(env or {})}
        done = subprocess.run(line, cwd=cwd or self.home, env=environment, stdin=subprocess.DEVNULL,
                              capture_output=True, timeout=timeout, check=False)
        found = subprocess.CompletedProcess(words, done.returncode, done.stdout.decode(errors="replace"),
                                            done.stderr.decode(errors="replace"))
        if check:
            assert found.returncode == 0, f"{words} ended with {found.returncode}:\n{found.stdout}\n{found.stderr}"
        return found
