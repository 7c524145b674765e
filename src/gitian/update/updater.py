"""The way of an update: find a package, weigh its signatures, check every file, wait if need be, switch.

Nothing is written to the destination before everything is known to be right, and then all of it at once.
"""

from __future__ import annotations

import enum
import json
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from gitian.errors import (
    ContentError,
    DowngradeError,
    DownloadError,
    GitianError,
    PackageError,
    PostCommandError,
    UntrustedError,
    UsageError,
    WaitingError,
    WrongPackageError,
)
from gitian.host import hashing, process, progress, space, workspace
from gitian.update import paths, places, releases, trust
from gitian.update.config import Configuration
from gitian.update.destination import Destination, Installed
from gitian.update.package import Package, opened


class Result(enum.Enum):
    """What an update came to."""

    INSTALLED = "installed"
    UPGRADED = "upgraded"
    REINSTALLED = "reinstalled"
    DOWNGRADED = "downgraded"
    CURRENT = "current"


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What is wanted. ``wait`` in hours overrides the configuration's waiting period; ``post`` is a command as a list.

    ``sources`` are paths or URLs, tried instead of the configuration's places.
    """

    destination: Path
    configuration: Configuration
    sources: tuple[str, ...] = ()
    force: bool = False
    dry_run: bool = False
    wait: float | None = None
    post: tuple[str, ...] = ()

    @property
    def waiting_period(self) -> float:
        """In seconds."""
        return (self.configuration.waiting_period if self.wait is None else self.wait) * 3600


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What was done, or with ``dry_run`` would have been. ``agreed`` is None when nothing had to be looked at."""

    result: Result
    dry_run: bool
    name: str
    release: str
    before: str | None
    missing: tuple[str, ...] = ()
    unlisted: tuple[str, ...] = ()
    agreed: trust.Agreement | None = None


def update(request: Request, *, now: Callable[[], float] = time.time) -> Outcome:
    """Do what is asked. Raises an error of one of the classes for 'gitian update', BusyError, HostError."""
    with Destination.held(request.destination) as destination:
        outcome = _Update(request, destination, now).run()
    if request.post and not request.dry_run and outcome.result is not Result.CURRENT:
        _post(request, outcome, destination.path)
    return outcome


class _Update:
    def __init__(self, request: Request, destination: Destination, now: Callable[[], float]) -> None:
        self.request = request
        self.configuration = request.configuration
        self.destination = destination
        self.now = now
        self.installed = destination.installed()

    def run(self) -> Outcome:
        waited = self._waited()
        if waited is not None:
            try:
                outcome = self._try(waited, waiting_is_over=True)
            except (WaitingError, DownloadError):
                raise
            except GitianError:
                self._forget_waiting()
                raise
            self._forget_waiting()
            return outcome
        search = places.Search(self.configuration, self.installed, force=self.request.force)
        candidates = iter([places.given(source) for source in self.request.sources]) if self.request.sources \
            else search.candidates()
        refusal: GitianError | None = None
        announced = False
        for candidate in candidates:
            if refusal is not None:
                progress.warn(f"{refusal} Trying the next place.")
            announced = announced or candidate.release is not None
            try:
                return self._try(candidate)
            except (DownloadError, PackageError, UntrustedError, ContentError, WrongPackageError,
                    DowngradeError) as error:
                if refusal is None or isinstance(refusal, DownloadError):
                    refusal = error
        nothing_newer = refusal is None or (isinstance(refusal, DownloadError) and not announced)
        if search.current and nothing_newer and self.installed is not None:
            return Outcome(result=Result.CURRENT, dry_run=self.request.dry_run, name=self.installed.name,
                           release=self.installed.release, before=self.installed.release)
        if refusal is not None:
            raise refusal
        if search.problems:
            raise DownloadError("No place gave a package: " + " ".join(str(problem) for problem in search.problems),
                                hint="Try again later.")
        raise UsageError("There is nowhere to get a package from.",
                         hint="Name a zip file, a directory or a URL, or give the configuration 'urls' or 'rss'.")

    # One candidate

    def _try(self, candidate: places.Candidate, *, waiting_is_over: bool = False) -> Outcome:
        request, limit = self.request, self.configuration.maximum_size
        with places.fetched(candidate, self.destination, limit=limit, keep=request.dry_run) as source:
            with opened(source) as package:
                agreed = trust.agreement(package, self.configuration)
                for remark in agreed.remarks:
                    progress.warn(f"does not count: {remark}.")
                self._check_release(candidate, agreed)
                result = self._check_order(agreed)
                with self.destination.staging() as stage:
                    present, missing = self._copy(package, agreed, stage)
                    new = self._manifest(agreed, present)
                    unlisted = tuple(sorted(path for path in package.members if path not in agreed.sums
                                            and not path.startswith(paths.EVIDENCE + "/")))
                    if result is Result.REINSTALLED and not request.force and self._intact(new):
                        result = Result.CURRENT
                    else:
                        self.destination.check_room_for(new, self.installed, force=request.force)
                        if self.installed is not None and request.waiting_period > 0 and not waiting_is_over \
                                and dict(self.installed.sums) != dict(new.sums):
                            self._start_waiting(package, agreed, stage)
                        elif not request.dry_run:
                            self.destination.install(new, self.installed, force=request.force)
                    return Outcome(result=result, dry_run=request.dry_run, name=agreed.name, release=agreed.release,
                                   before=self.installed.release if self.installed else None, missing=missing,
                                   unlisted=unlisted, agreed=agreed)

    def _check_release(self, candidate: places.Candidate, agreed: trust.Agreement) -> None:
        if candidate.release is not None and releases.compare(candidate.release, agreed.release) != 0:
            raise WrongPackageError(
                f"'{candidate.label}' is announced as release '{candidate.release}', and is '{agreed.release}'.",
                hint="Perhaps an old release is being replayed. If signers call it otherwise than the announcement, "
                     "say so by 'release_suffix' in the configuration.")

    def _check_order(self, agreed: trust.Agreement) -> Result:
        old = self.installed
        if old is None:
            return Result.INSTALLED
        if old.name != agreed.name:
            raise WrongPackageError(f"'{old.name}' is installed in '{self.destination.path}'; this is '{agreed.name}'.",
                                    hint="Choose another destination.")
        order = releases.compare(agreed.release, old.release)
        if order == 1:
            return Result.UPGRADED
        if order == 0 and not self._replayed(agreed, old):
            return Result.REINSTALLED
        if self.request.force:
            return Result.DOWNGRADED if order == -1 else Result.REINSTALLED if order == 0 else Result.UPGRADED
        hint = "Use --force if you really want that."
        if order == -1:
            raise DowngradeError(f"Release '{agreed.release}' is older than the installed '{old.release}'.", hint=hint)
        if order == 0:
            raise DowngradeError(f"Another build of release '{agreed.release}' is installed, with newer signatures.",
                                 hint=hint)
        raise DowngradeError(f"Nobody can tell whether release '{agreed.release}' is newer than the installed "
                             f"'{old.release}'.", hint=hint)

    @staticmethod
    def _replayed(agreed: trust.Agreement, old: Installed) -> bool:
        """Whether this is an earlier build of the same release: other files, and no newer signature of them."""
        same = all(agreed.sums.get(path) == digest for path, digest in old.sums.items())
        return not same and old.signed > 0 and agreed.signed <= old.signed

    def _copy(self, package: Package, agreed: trust.Agreement, stage: Path) -> tuple[list[str], tuple[str, ...]]:
        """Copy the listed files, and nothing else, checking each. Raises ContentError, PackageError, HostError."""
        present = [path for path in agreed.sums if path in package.members]
        absent = tuple(path for path in agreed.sums if path not in package.members)
        problems = [f"'{path}' is missing" for path in absent if path not in agreed.optionals]
        total = sum(package.members[path].size for path in present)
        limit = self.configuration.maximum_size
        if total > limit:
            raise PackageError(f"The files of '{package.source}' have {total} bytes together; at most {limit} are "
                               "accepted.", hint="If that is right, raise 'maximum_size' in the configuration.")
        if not problems:
            space.require_room(stage, total, f"release '{agreed.release}'")
            with progress.bar(f"Checking {len(present)} files", total) as advance:
                for path in present:
                    target = stage / path
                    target.parent.mkdir(parents=True, exist_ok=True)
                    mode = 0o777 if package.members[path].executable else 0o666
                    number = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, mode)
                    with os.fdopen(number, "wb") as stream:
                        if package.copy(path, stream, limit) != agreed.sums[path]:
                            problems.append(f"'{path}' is not what was signed")
                        stream.flush()
                        os.fsync(number)
                    advance(package.members[path].size)
        if problems:
            more = f", and {len(problems) - 10} more" if len(problems) > 10 else ""
            raise ContentError(f"The package '{package.source}' does not hold the release that was signed: "
                               f"{', '.join(problems[:10])}{more}.", hint="Download it again, or from another place.")
        return present, absent

    def _manifest(self, agreed: trust.Agreement, present: list[str]) -> Installed:
        return Installed(name=agreed.name, release=agreed.release, sums={path: agreed.sums[path] for path in present},
                         optionals=agreed.optionals, signed=agreed.signed,
                         signers=tuple(witness.fingerprint for witness in agreed.witnesses))

    def _intact(self, new: Installed) -> bool:
        """Whether the same files are installed already, unharmed."""
        old, top = self.installed, self.destination.path
        if old is None or any(old.sums.get(path) != digest for path, digest in new.sums.items()):
            return False
        for path, digest in new.sums.items():
            file = top / path
            if file.is_symlink() or not file.is_file() or hashing.sha256_file(file) != digest:
                return False
        return True

    # Waiting: the package is kept, so that what is installed in the end is what was seen in the beginning

    def _waited(self) -> places.Candidate | None:
        """The package whose waiting period is over; None when there is none. Raises WaitingError while it is not."""
        note = self.destination.waiting / "since.json"
        try:
            found = json.loads(note.read_bytes())
            since, release = float(found["since"]), str(found["release"])
        except (OSError, ValueError, KeyError, TypeError):
            return None
        if self.request.waiting_period <= 0 or self.installed is None:
            self._forget_waiting()
            return None
        if since > self.now():  # the clock was set back: the wait cannot be measured, so it starts again
            since = self.now()
            workspace.write_atomically(note, json.dumps({"since": since, "release": release}).encode(), 0o600)
        left = since + self.request.waiting_period - self.now()
        if left > 0:
            raise WaitingError(f"Release '{release}' waits for another {left / 3600:.2f} hours before it is installed.",
                               hint="Run the same command again then, or with '--wait 0' to install it now.")
        return places.Candidate(path=self.destination.waiting / "package")

    def _start_waiting(self, package: Package, agreed: trust.Agreement, stage: Path) -> None:
        hours = self.request.waiting_period / 3600
        text = f"Release '{agreed.release}' is good. It waits for {hours:.2f} hours before it is installed."
        if not self.request.dry_run:
            for path in package.members:
                if path.startswith(paths.EVIDENCE + "/") and not (stage / path).exists():
                    (stage / path).parent.mkdir(parents=True, exist_ok=True)
                    with (stage / path).open("xb") as stream:
                        package.copy(path, stream, trust.LARGEST_ASSERTION)
            self._forget_waiting()
            self.destination.waiting.mkdir(mode=0o700)
            stage.rename(self.destination.waiting / "package")
            note = json.dumps({"since": self.now(), "release": agreed.release}).encode()
            workspace.write_atomically(self.destination.waiting / "since.json", note, 0o600)
        raise WaitingError(text, hint="Run the same command again then, or with '--wait 0' to install it now.")

    def _forget_waiting(self) -> None:
        if not self.request.dry_run:
            workspace.remove_tree(self.destination.waiting)


def _post(request: Request, outcome: Outcome, destination: Path) -> None:
    """Run the user's command in the destination: a list of words, never a shell's."""
    status = process.run_in_foreground(list(request.post), cwd=destination, env={
        "GITIAN_DESTINATION": str(destination), "GITIAN_NAME": outcome.name, "GITIAN_RELEASE": outcome.release,
        "GITIAN_OLD_RELEASE": outcome.before or ""})
    if status != 0:
        raise PostCommandError(f"'{request.post[0]}' {process.ended_how(status)}.",
                               hint=f"Release '{outcome.release}' is installed all the same; run the command by hand.")
