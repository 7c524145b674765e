"""One target in one guest: packages installed, inputs copied in, the script run, what it left copied out."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from gitian.build import layer
from gitian.build.layer import Prepared
from gitian.build.log import Log
from gitian.build.request import TargetOutcome, TargetRequest
from gitian.build.script import build_script
from gitian.environment.manifest import environment_manifest
from gitian.environment.pool import Supply, archives_of
from gitian.errors import BuildError, FetchError, GuestError, ImageError, ProgramError
from gitian.guest.protocol import HOST_ADDRESS, Guest, Limits, StartRequest, StoppableGuest
from gitian.host import pool, progress
from gitian.host.space import free
from gitian.host.workspace import write_atomically
from gitian.images.lookup import BaseImage, find_image

#: Where the script lies in the guest: nowhere that a build looks.
_SCRIPT = PurePosixPath("/var/cache/gitian/build-script")
_UPGRADED = "/var/cache/gitian/initial-upgrade"

_APT = ["apt-get", "-q", "-y", "-o", "Acquire::Retries=3", "-o", "Dpkg::Use-Pty=0", "--no-install-recommends"]
#: After so long a failure is no hiccup (seconds).
_APT_PATIENCE = 60.0
_APT_ENVIRONMENT = {"DEBIAN_FRONTEND": "noninteractive"}

#: Room that is left on the host's disk whatever a guest sends (bytes).
_RESERVE = 512 * 2**20


def build_target(request: TargetRequest, scratch: Path) -> TargetOutcome:
    """Build one target in a guest of its own and copy what it made into ``scratch``.

    Raises ImageError, GuestError, FetchError (apt failed), BuildError (the script failed), OutputError (what came out
    was refused). Afterwards the guest has ended, and what it has written stays for --skip-image and start-target; with
    ``keep`` it still runs. That is so when the script failed too; after other errors nothing stays.
    """
    workspace, target = request.workspace, request.target
    image = find_image(workspace.image_directory, suite=target.suite, arch=target.dpkg_arch,
                       backend=request.backend.name, distro=target.distro)
    prepared, guest = _opened(request, image)
    try:
        write_atomically(workspace.var / f"base-{target.label}.manifest", prepared.manifest.encode())
        _copy_inputs(guest, request)
        try:
            _run_script(guest, request)
        except BuildError:
            with contextlib.suppress(GuestError):  # the script's failure is what is to be told
                _leave(guest, request)
            raise
        outcome = _copy_out(guest, request, scratch, prepared)
        _leave(guest, request)
        return outcome
    except BuildError:
        raise
    except BaseException:
        guest.close()
        raise


def _leave(guest: Guest, request: TargetRequest) -> None:
    """End the guest, or keep it running. What it has written stays, unless it was one of several side by side, or has
    filled the host's disk."""
    if request.keep:
        guest.close(keep=True)
    elif isinstance(guest, StoppableGuest) and request.state == request.workspace.root \
            and free(request.state) > _RESERVE:
        guest.stop(overlay=False, quick=True)
    else:
        guest.close()


def _opened(request: TargetRequest, image: BaseImage) -> tuple[Prepared, Guest]:
    """A guest that has its packages, from a layer if there is one. A layer that no guest starts from is made anew."""
    prepared = _prepared(request, image)
    if prepared.guest is not None:
        return prepared, prepared.guest
    try:
        return prepared, _start(request, image, prepared.layer)
    except (GuestError, ImageError, ProgramError) as error:
        if request.plan.options.offline:
            raise
        progress.warn(f"No guest starts from the layer, which is therefore made anew: {error}")
    prepared = _prepared(request, image, anew=True)
    return prepared, prepared.guest or _start(request, image, prepared.layer)


def _prepared(request: TargetRequest, image: BaseImage, *, anew: bool = False) -> Prepared:
    """A guest with its packages installed, or the layer of one."""
    path = request.workspace.var / f"install{request.log_suffix}.log"
    installed = False

    def install(guest: Guest) -> str:
        nonlocal installed
        installed = True
        with Log(path) as log:
            _install(guest, request, log, _supply(request, image))
        with progress.step("Creating package manifest"):
            return environment_manifest(guest, _known_hashes(image))

    if not request.plan.options.skip_image:
        prepared = layer.prepare(request, image, lambda: _start(request, image, None), install, anew=anew)
        if not installed and prepared.layer is not None:
            with Log(path) as log:
                log.note(f"The packages are those of the layer var/layers/{prepared.layer.name}")
        return prepared
    guest = _reused(request, image)
    try:
        return Prepared(manifest=install(guest), guest=guest)
    except BaseException:
        guest.close()
        raise


def _reused(request: TargetRequest, image: BaseImage) -> Guest:
    """The last target as it is (--skip-image): running still, or started again."""
    with contextlib.suppress(GuestError):
        guest = request.backend.attach(request.state, environment=request.environment)
        if guest.label == f"{request.target.suite}-{request.target.dpkg_arch}":
            progress.say("Reusing the target that runs")
            return guest
        guest.close()
    return _start(request, image, None)


def _start(request: TargetRequest, image: BaseImage, start_from: Path | None) -> Guest:
    plan, target, options = request.plan, request.target, request.plan.options
    title = "Starting the last target again" if options.skip_image else "Starting a clean target"
    with progress.step(title + (" from its layer" if start_from else "")):
        return request.backend.start(StartRequest(
            suite=target.suite, arch=target.dpkg_arch, distro=target.distro, image=image.path,
            workspace=request.state, memory=options.memory, processors=options.num_make,
            allow_sudo=plan.sudo, keep=request.keep, fresh=not options.skip_image, layer=start_from,
            host_address=request.environment.get("GITIAN_HOST_IP") or HOST_ADDRESS,
            environment=request.environment))


def _known_hashes(image: BaseImage) -> dict[str, str]:
    """The hashes of the base image's own packages, which its record has from the day it was made."""
    return {pool.file_name(package.name, package.version, package.architecture): package.sha256
            for package in image.record.packages}


@contextlib.contextmanager
def _logged(title: str, log: Log) -> Iterator[None]:
    """A step whose failure shows the end of its log and where the whole of it lies."""
    log.note(title)
    with progress.step(f"{title} (log in var/{log.path.name})"):
        yield


def _supply(request: TargetRequest, image: BaseImage) -> Supply:
    """The package pool, and the archives that it may be filled from."""
    lines = [*image.record.sources, *(repository.source for repository in request.plan.descriptor.repositories)]
    return Supply(pool=pool.find(request.environment), archives=archives_of(lines),
                  host_address=request.environment.get("GITIAN_HOST_IP") or HOST_ADDRESS)


def _install(guest: Guest, request: TargetRequest, log: Log, supply: Supply) -> None:
    """Bring the guest's packages into the state that the descriptor asks for (COMPAT, 'In the guest')."""
    descriptor = request.plan.descriptor
    if descriptor.multiarch:
        with _logged("Adding multiarch support", log):
            for architecture in descriptor.multiarch:
                _as_root(guest, ["dpkg", "--add-architecture", architecture], log)
    if descriptor.repositories:
        with _logged("Adding repositories to the sources list", log):
            lines = "".join(f"{repository.source}\n" for repository in descriptor.repositories)
            _as_root(guest, ["tee", "-a", "/etc/apt/sources.list"], log, input=lines.encode())
    with _logged("Updating apt-get repository", log):
        _apt_update(guest, log)
    if descriptor.packages:
        with _logged("Installing additional packages", log):
            _apt(guest, ["install", "--", *descriptor.packages], log, supply)
    for repository in descriptor.repositories:
        with _logged(f"Installing additional packages from repository {repository.distribution}", log):
            _apt(guest, ["-t", repository.distribution, "install", "--", *repository.packages], log, supply)
    if descriptor.alternatives:
        with _logged("Set alternatives", log):
            for alternative in descriptor.alternatives:
                _as_root(guest, ["update-alternatives", "--set", alternative.package, alternative.path], log)
    upgraded = guest.run(["test", "-e", _UPGRADED], user="root", check=False).status == 0
    if request.plan.options.upgrade or not upgraded:
        with _logged("Upgrading system, may take a while", log):
            _apt(guest, ["dist-upgrade"], log, supply)
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


def _apt(guest: Guest, words: list[str], log: Log, supply: Supply) -> None:
    with supply.lay_in(guest, _APT, words, env=_APT_ENVIRONMENT, note=log.note) as more:
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


def _copy_inputs(guest: Guest, request: TargetRequest) -> None:
    """Make the build directories afresh and fill them: files flat, each remote a clone, the caches if enabled."""
    descriptor, workspace = request.plan.descriptor, request.workspace
    home = PurePosixPath("/home") / guest.user
    with progress.step("Preparing build environment"):
        guest.run(["rm", "-rf", "install", "out", "build", "cache"])
        guest.run(["mkdir", "-p", "build", "out", "install", "cache/common"])
        for file in request.inputs.files:
            guest.put(file.path, home / "build" / file.name)
        for remote in request.inputs.remotes:
            guest.put(remote.path, home / "build" / remote.dir)
        if descriptor.enable_cache:
            for name in ("common", descriptor.name):
                source = workspace.cache / name
                if source.is_dir():
                    guest.put(source, home / "cache" / name)


def _run_script(guest: Guest, request: TargetRequest) -> None:
    """Send the script as a file and run it with empty standard input. Raises BuildError."""
    workspace, target = request.workspace, request.target
    with progress.step(f"Creating build script (var/build-script{request.log_suffix})"):
        script = build_script(request.plan, target, reference_datetime=request.inputs.reference_datetime)
        local = workspace.var / f"build-script{request.log_suffix}"
        write_atomically(local, script)
        guest.put(local, _SCRIPT, user="root")
    with Log(workspace.var / f"build{request.log_suffix}.log", echo=request.echo) as log:
        with progress.step(f"Running build script (log in var/{log.path.name})"):
            status = guest.run(["setarch", target.setarch, "bash", "-x", str(_SCRIPT)], output=log,
                               check=False).status
            if status != 0:
                raise BuildError(
                    f"The script of '{request.plan.descriptor.name}' failed with status {status} for "
                    f"{target.label}. The last lines of its log:" + "\n  ".join(["", *log.tail()]),
                    hint=f"The whole log is in '{log.path}'.")


def _copy_out(guest: Guest, request: TargetRequest, scratch: Path, prepared: Prepared) -> TargetOutcome:
    descriptor = request.plan.descriptor
    home = PurePosixPath("/home") / guest.user
    limits = Limits(size=max(0, free(scratch) - _RESERVE))

    def grab(inside: PurePosixPath, name: str) -> Path:
        place = scratch / name
        guest.get(inside, place, limits=limits)
        return place

    with progress.step("Grabbing results from target"):
        out = grab(home / "out", "out")
    common = package = None
    if descriptor.enable_cache and not request.plan.options.cache_read_only:
        with progress.step("Grabbing cache from target"):
            common = grab(home / "cache" / "common", "cache-common")
            if guest.run(["test", "-d", f"cache/{descriptor.name}"], check=False).status == 0:
                package = grab(home / "cache" / descriptor.name, "cache-package")
    return TargetOutcome(label=request.target.label, manifest=prepared.manifest, out=out, cache_common=common,
                         cache_package=package, layer=prepared.layer)


