"""diffoscope, when it is installed: the detailed comparison, within limits, kept as text and as HTML.

It reads hostile files with many programs, so it gets so much time, memory and room and no more, and what it says is
made harmless for terminals. Options and exit statuses: diffoscope(1).
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import tempfile
from dataclasses import dataclass
from pathlib import Path

from gitian.errors import HostError, MissingToolError, ProgramError
from gitian.host import process, tools
from gitian.host.progress import plain
from gitian.host.workspace import write_atomically

_SAID_LIMIT = 2**20
#: When it is asked to end it has so long for that (seconds).
_GRACE = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Allowance:
    """What diffoscope may use: seconds, bytes of memory for each process, bytes of a report, bytes of any other file
    that it writes; ``scratch`` is where its own temporary files lie (unless given, where the reports are kept)."""

    seconds: float = 600.0
    memory: int = 4 * 2**30
    report: int = 4 * 2**20
    file: int = 4 * 2**30
    scratch: Path | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What diffoscope left: its reports (None: it left none). ``problem`` tells why it did not end well."""

    text: Path | None
    html: Path | None
    problem: str | None = None


def installed() -> bool:
    """Whether diffoscope can be started."""
    try:
        tools.find("diffoscope", process.environment()["PATH"])
    except MissingToolError:
        return False
    return True


def report(a: Path, b: Path, directory: Path, name: str, *, allowance: Allowance | None = None) -> Report | None:
    """Compare two files or directories and keep the reports under ``directory``; None when it is not installed.

    The reports' names are made from ``name``. Raises MissingToolError when prlimit is not there, HostError when the
    reports cannot be kept.
    """
    if not installed():
        return None
    allowance = allowance or Allowance()
    directory, stem = directory.absolute(), file_name(name)
    try:
        directory.mkdir(parents=True, exist_ok=True)
        # Its own temporary files die with this directory, also when it is killed.
        with tempfile.TemporaryDirectory(prefix="gitian-diffoscope-", dir=(allowance.scratch or directory).absolute(),
                                         ignore_cleanup_errors=True) as own:
            return _kept(Path(own), a, b, directory / stem, allowance)
    except OSError as error:
        raise HostError(f"The reports of diffoscope cannot be kept in '{directory}': {error.strerror}.") from error


def _kept(own: Path, a: Path, b: Path, target: Path, allowance: Allowance) -> Report:
    problem, said = _run(own, a, b, allowance)
    text, text_problem = _taken(own / "report.txt", 2 * allowance.report)
    html, html_problem = _taken(own / "report.html", 4 * allowance.report)
    kept: dict[str, Path] = {}
    if text is not None:
        # As a file it will be shown on terminals too.
        harmless = plain(text.decode("utf-8", "surrogateescape"), lines=True)
        kept["text"] = target.with_name(target.name + ".txt")
        write_atomically(kept["text"], harmless.encode())
    if html is not None:
        kept["html"] = target.with_name(target.name + ".html")
        write_atomically(kept["html"], html)
    if text is None and html is None and problem is None:
        # Python ends with 1 after an error that nobody caught, which here also means that there are differences.
        problem = text_problem or html_problem or (
            f"diffoscope left no report: {said}" if said else "diffoscope found no difference.")
    return Report(text=kept.get("text"), html=kept.get("html"), problem=problem)


def _run(own: Path, a: Path, b: Path, allowance: Allowance) -> tuple[str | None, str]:
    """Run it; what went wrong, in a sentence, and the last line of what it said."""
    scratch = own / "tmp"
    scratch.mkdir()
    # Absolute, since it takes '@...' for a file of arguments and '-...' for an option. Should we be killed, timeout(1)
    # is asked to end, and ends it and the programs that it runs; should we hang, it is ended all the same.
    try:
        done = process.run(
            ["setpriv", "--pdeathsig", "TERM", "--", tools.find("timeout"), f"--kill-after={_GRACE}",
             str(allowance.seconds + _GRACE),
             tools.find("prlimit"), f"--as={allowance.memory}", f"--fsize={allowance.file}", "--core=0", "--",
             tools.find("diffoscope", process.environment()["PATH"]), "--no-progress",
             "--max-report-size", str(allowance.report), "--max-text-report-size", str(allowance.report),
             "--text", own / "report.txt", "--html", own / "report.html", "--", a.absolute(), b.absolute()],
            env={"TMPDIR": str(scratch), "HOME": str(own), "NO_COLOR": "1"}, cwd=own, timeout=allowance.seconds,
            limit=_SAID_LIMIT, check=False)
    except ProgramError as error:
        return plain(str(error).replace("'setpriv'", "diffoscope", 1)), ""
    lines = done.stderr.decode("utf-8", "surrogateescape").strip().splitlines()
    said = plain(lines[-1][:300]) if lines else ""
    if done.status in (0, 1):
        return None, said
    return f"diffoscope {process.ended_how(done.status)}: {said or 'it said nothing'}", said


def _taken(path: Path, limit: int) -> tuple[bytes | None, str | None]:
    """A report's content, if it is a regular file of a bearable size; else why not."""
    try:
        number = os.open(str(path), os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return None, None
    with contextlib.closing(os.fdopen(number, "rb")) as file:
        data = file.read(limit + 1)
    if len(data) > limit:
        return None, f"diffoscope wrote a report of more than {limit} bytes, which is not kept."
    return (data, None) if data else (None, None)


def file_name(name: str) -> str:
    """A safe name for reports about an output, different for different outputs."""
    words = re.sub(r"[^A-Za-z0-9._-]+", "_", name).strip("._-")[:100] or "output"
    if words == name:
        return words
    return f"{words}.{hashlib.sha256(name.encode('utf-8', 'surrogateescape')).hexdigest()[:8]}"
