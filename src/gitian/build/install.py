"""A guest's packages: the state that the descriptor asks for, brought about by apt in the guest."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import PurePosixPath

from gitian.build.log import Log
from gitian.build.request import TargetRequest
from gitian.environment.lists import fetched_indices
from gitian.environment.manifest import environment_manifest
from gitian.environment.pool import Supply, archives_of
from gitian.errors import EnvironmentUnavailableError, FetchError, GuestError
from gitian.formats.fetched import Fetched
from gitian.guest.protocol import HOST_ADDRESS, Guest
from gitian.host import pool, progress
from gitian.images.lookup import BaseImage

_UPGRADED = "/var/cache/gitian/initial-upgrade"

_APT = ["apt-get", "-q", "-y", "-o", "Acquire::Retries=3", "-o", "Dpkg::Use-Pty=0", "--no-install-recommends"]
#: After so long a failure is no hiccup (seconds).
_APT_PATIENCE = 60.0
_APT_ENVIRONMENT = {"DEBIAN_FRONTEND": "noninteractive"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Installed:
    """A guest's packages: the environment manifest, and what was fetched for them."""

    manifest: str
    fetched: tuple[Fetched, ...] = ()


def installed(guest: Guest, request: TargetRequest, log: Log) -> Installed:
    """Bring the guest's packages into the state that is asked for, and say which ones they are.

    Raises FetchError (apt failed), GuestError, EnvironmentUnavailableError (another environment than was asked for).
    """
    fetched: list[Fetched] = [*request.fetched]
    _add_architectures(guest, request, log)
    if request.exact is None:
        _install(guest, request, log, fetched.append)
        fetched += fetched_indices(guest, request.source_lines)
    else:
        _check_packages(guest, request, log)
    _set_alternatives(guest, request, log)
    if request.exact is None:
        _upgrade(guest, request, log, fetched.append)
    with progress.step("Creating package manifest"):
        manifest = environment_manifest(guest, _known_hashes(request.image))
    if request.exact is not None and manifest != request.exact.manifest():
        raise EnvironmentUnavailableError(
            f"The guest of {request.target.label} has another environment than was asked for: "
            + _difference(request.exact.manifest(), manifest),
            hint=f"Remove '{request.image.path.parent}', so that its image is made again.")
    return Installed(manifest=manifest, fetched=tuple(sorted(set(fetched))))


def _difference(wanted: str, found: str) -> str:
    lines, others = set(wanted.splitlines()), set(found.splitlines())
    lacks, more = sorted(lines - others), sorted(others - lines)
    words = [f"it lacks {line.split()[-1]}" for line in lacks[:5]] + [f"it has {line.split()[-1]}" for line in more[:5]]
    return "; ".join(words) + (" and more." if len(lacks) > 5 or len(more) > 5 else ".")


def _check_packages(guest: Guest, request: TargetRequest, log: Log) -> None:
    """See that everything that the descriptor asks for is there, nothing having been installed.

    apt itself is asked, which knows of nothing but what is installed: it would have nothing to do. Raises
    EnvironmentUnavailableError.
    """
    descriptor = request.plan.descriptor
    named = [*descriptor.packages, *(name for repository in descriptor.repositories for name in repository.packages)]
    wanted = to_be_there(named)
    if not wanted:
        return
    log.note("Are the packages that the descriptor asks for in the environment?")
    asked = guest.run([*_APT, "--simulate", "install", "--", *wanted], user="root", env=_APT_ENVIRONMENT, check=False)
    said = (asked.stdout + asked.stderr).decode(errors="replace").splitlines()
    log("".join(f"{line}\n" for line in said).encode())
    reasons = [line for line in said if line.startswith(("E:", "Inst ", "Remv "))]
    if asked.status != 0 or reasons:
        raise EnvironmentUnavailableError(
            "The environment is not one that the descriptor asks for: " + "\n  ".join(["", *reasons[:10]]),
            hint="Nothing is installed beyond the environment. Record a new one: 'gitian environment snapshot'.")


def to_be_there(named: Iterable[str]) -> list[str]:
    """The packages that are to be installed, as apt knows them that has no indices.

    'NAME-' is one that is not to be there, of which it may never have heard. 'NAME/SUITE' says where one is to come
    from, and of suites it knows nothing; that it is the right one, the environment says (apt-get(8)).
    """
    return [name.partition("/")[0] for name in named if not name.endswith("-")]


def _known_hashes(image: BaseImage) -> dict[str, str]:
    """The hashes of the base image's own packages, which its record has from the day it was made."""
    return {package.file_name: package.sha256 for package in image.record.packages}


@contextlib.contextmanager
def _logged(title: str, request: TargetRequest, log: Log) -> Iterator[None]:
    """A step whose failure shows the end of its log and where the whole of it lies."""
    log.note(title)
    with progress.step(f"{title} (log in {request.told(log.path)})"):
        yield


def _supply(request: TargetRequest) -> Supply:
    """The package pool, and the archives that it may be filled from."""
    return Supply(pool=pool.find(request.environment), archives=archives_of(request.source_lines),
                  host_address=request.environment.get("GITIAN_HOST_IP") or HOST_ADDRESS)


def _install(guest: Guest, request: TargetRequest, log: Log, record: Callable[[Fetched], None]) -> None:
    """Install what the descriptor asks for, in the order of the classic (COMPAT, 'In the guest')."""
    descriptor, supply = request.plan.descriptor, _supply(request)
    if descriptor.repositories:
        with _logged("Adding repositories to the sources list", request, log):
            lines = "".join(f"{repository.source}\n" for repository in descriptor.repositories)
            _as_root(guest, ["tee", "-a", "/etc/apt/sources.list"], log, input=lines.encode())
    with _logged("Updating apt-get repository", request, log):
        _apt_update(guest, log)
    if descriptor.packages:
        with _logged("Installing additional packages", request, log):
            _apt(guest, ["install", "--", *descriptor.packages], log, supply, record)
    for repository in descriptor.repositories:
        with _logged(f"Installing additional packages from repository {repository.distribution}", request, log):
            _apt(guest, ["-t", repository.distribution, "install", "--", *repository.packages], log, supply, record)


def _add_architectures(guest: Guest, request: TargetRequest, log: Log) -> None:
    if request.plan.descriptor.multiarch:
        with _logged("Adding multiarch support", request, log):
            for architecture in request.plan.descriptor.multiarch:
                _as_root(guest, ["dpkg", "--add-architecture", architecture], log)


def _set_alternatives(guest: Guest, request: TargetRequest, log: Log) -> None:
    descriptor = request.plan.descriptor
    if descriptor.alternatives:
        with _logged("Set alternatives", request, log):
            for alternative in descriptor.alternatives:
                _as_root(guest, ["update-alternatives", "--set", alternative.package, alternative.path], log)


def _upgrade(guest: Guest, request: TargetRequest, log: Log, record: Callable[[Fetched], None]) -> None:
    """Upgrade the whole guest: the first time, and whenever it is asked for."""
    upgraded = guest.run(["test", "-e", _UPGRADED], user="root", check=False).status == 0
    if request.plan.options.upgrade or not upgraded:
        with _logged("Upgrading system, may take a while", request, log):
            _apt(guest, ["dist-upgrade"], log, _supply(request), record)
            _as_root(guest, ["mkdir", "-p", str(PurePosixPath(_UPGRADED).parent)], log)
            _as_root(guest, ["touch", _UPGRADED], log)


def _apt_update(guest: Guest, log: Log) -> None:
    # Without Error-Mode apt calls a source that it could not read a warning, and old indices would be used. A mirror
    # that is being synchronised is an everyday matter: try again before giving up.
    command = ["apt-get", "-q", "-o", "Acquire::Retries=3", "-o", "APT::Update::Error-Mode=any", "update"]
    began = time.monotonic()
    for patience in (2, 5, None):
        result = guest.run(command, user="root", env=_APT_ENVIRONMENT, output=log, check=False)
        if result.status == 0:
            return
        if time.monotonic() - began > _APT_PATIENCE:
            break  # apt has waited and tried again itself: there is no network, and there will be none
        if patience is not None:
            log.note(f"apt-get update failed; trying again in {patience} s")
            time.sleep(patience)
    failed = [line for line in log.tail(60) if line.startswith(("E:", "Err:"))][-6:]
    raise FetchError("The guest's 'apt-get update' failed: " + ("\n  ".join(["", *failed]) if failed else
                                                                "\n  ".join(["", *log.tail(8)])),
                     hint=f"The whole log is in '{log.path}'. If a mirror is being synchronised, try again later, or "
                          "make the base image without the source that fails ('make-base-vm --without security'). A "
                          "layer of an earlier build can be used without asking the archive: 'gbuild --offline'.")


def _apt(guest: Guest, words: list[str], log: Log, supply: Supply, record: Callable[[Fetched], None]) -> None:
    with supply.lay_in(guest, _APT, words, env=_APT_ENVIRONMENT, note=log.note, record=record) as more:
        result = guest.run([*_APT, *more, *words], user="root", env=_APT_ENVIRONMENT, output=log, check=False)
        if result.status != 0:
            said = [line for line in log.tail(60) if line.startswith("E:")] or log.tail(8)
            raise FetchError("The guest's package manager failed: " + "\n  ".join(["", *said]),
                             hint=f"The whole log is in '{log.path}'. Are the packages' names right for this suite?")


def _as_root(guest: Guest, command: list[str], log: Log, input: bytes | None = None) -> None:
    result = guest.run(command, user="root", input=input, output=log, check=False)
    if result.status != 0:
        raise GuestError(f"'{command[0]}' failed in the guest with status {result.status}: "
                         + "\n  ".join(["", *log.tail(8)]), hint=f"The whole log is in '{log.path}'.")
