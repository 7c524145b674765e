"""The commands of libexec/: they act on the one target of the workspace, whichever backend runs it."""

from __future__ import annotations

import codecs
import contextlib
import os
import shlex
import sys
from collections.abc import Callable
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, TextIO

import click

from gitian.cli.common import CONTEXT
from gitian.errors import GuestError, UsageError

if TYPE_CHECKING:
    from gitian.guest.protocol import Guest
    from gitian.host.workspace import Workspace

_DIRECTORY = click.option("-C", "--directory", type=click.Path(path_type=Path, file_okay=False),
                          help="The workspace [default: $GITIAN_BASE, else the current directory].")
_USER = click.option("-u", "--user", help="Run as this user [default: the guest's own, named as the distro].")
#: The command's own options come after its name, and are none of ours.
_WORDS = {**CONTEXT, "ignore_unknown_options": False, "allow_interspersed_args": False}


def _workspace(directory: Path | None) -> Workspace:
    from gitian.host.workspace import Workspace

    return Workspace.locate(directory, os.environ)


def _attach(directory: Path | None) -> Guest:
    """The guest that runs in the workspace. Raises GuestError."""
    from gitian.cli.backends import choose_backend
    from gitian.guest import session

    workspace = _workspace(directory)
    record = session.running(workspace.root)
    for variable, is_now in (("LXC_SUITE", record.suite), ("LXC_ARCH", record.arch)):
        wanted = os.environ.get(variable, "")
        if wanted and wanted != is_now:
            raise GuestError(f"{variable} asks for '{wanted}', but the target that runs is {record.label}.",
                             hint=f"Unset {variable}, or start the other target with 'start-target'.")
    return choose_backend(record.backend, os.environ).attach(workspace.root, environment=os.environ)


def _user(guest: Guest, wanted: str | None) -> str:
    """The user meant: root, or the guest's own. Raises UsageError for another."""
    if wanted is None or wanted == guest.user:
        return guest.user
    if wanted != "root":
        raise UsageError(f"The target has no user '{wanted}'.", hint=f"It has '{guest.user}' and 'root'.")
    return wanted


@click.command("on-target", context_settings=_WORDS)
@_USER
@click.option("-e", "--env", "variables", metavar="'NAME=VALUE ...'", default="", help="Environment variables.")
@_DIRECTORY
@click.argument("command", nargs=-1)
def on_target(user: str | None, variables: str, directory: Path | None, command: tuple[str, ...]) -> int:
    """Run COMMAND on the target, by its shell, and end with its exit status.

    As with ssh, the words are joined by spaces and read again by the target's shell. Standard input is passed on unless
    it is a terminal; without a COMMAND it is what the shell runs.
    """
    from gitian.guest.protocol import PipedGuest

    terminal = sys.stdin is None or sys.stdin.closed or sys.stdin.isatty()
    if not command and terminal:
        raise UsageError("No command is given.", hint="For example: on-target ls -l build")
    guest = _attach(directory)
    if not isinstance(guest, PipedGuest):
        raise GuestError("This target cannot run commands with pipes.")
    return guest.pipe(["/bin/bash", "-c", " ".join(command)] if command else ["/bin/bash", "-s"],
                      user=_user(guest, user), env=_variables(variables),
                      stdin=None if terminal else lambda size: os.read(0, size),
                      stdout=_passing_on(sys.stdout), stderr=_passing_on(sys.stderr))


def _variables(text: str) -> dict[str, str]:
    """'A=1 B=2' as a dictionary. Raises UsageError."""
    try:
        words = shlex.split(text)
    except ValueError as error:
        raise UsageError(f"The variables '{text}' cannot be read: {error}.") from error
    pairs = [word.partition("=") for word in words]
    for name, equals, _ in pairs:
        if not equals or not name.isidentifier() or not name.isascii():
            raise UsageError(f"'{name}' is not of the form NAME=VALUE.", hint="For example: -e 'A=1 B=2'")
    return {name: value for name, _, value in pairs}


def _passing_on(to: TextIO | None) -> Callable[[bytes], None]:
    """A sink for what the target says: byte for byte, but onto a terminal as text that cannot steer it."""
    from gitian.host.progress import plain

    if to is None:  # closed by whoever started us
        return lambda data: None
    stream = to.buffer
    if not stream.isatty():
        def raw(data: bytes) -> None:
            stream.write(data)
            stream.flush()

        return raw
    decoder = codecs.getincrementaldecoder("utf-8")("replace")

    def text(data: bytes) -> None:
        stream.write(plain(decoder.decode(data).replace("\r\n", "\n"), lines=True).encode())
        stream.flush()

    return text


@click.command("copy-to-target", context_settings=CONTEXT)
@_USER
@click.option("-q", "--quiet", is_flag=True, help="Show no progress.")
@_DIRECTORY
@click.argument("source", type=click.Path(path_type=Path))
@click.argument("destination")
def copy_to_target(user: str | None, quiet: bool, directory: Path | None, source: Path, destination: str) -> None:
    """Copy SOURCE, a file or a directory, to DESTINATION on the target (relative to the user's home).

    Into DESTINATION when that is a directory, ends with '/', or SOURCE is a directory; else a file becomes DESTINATION.
    """
    from gitian.host import progress
    from gitian.host.pack import measure

    progress.set_quiet(quiet)
    if not source.exists():
        raise UsageError(f"There is no '{source}' to copy.")
    guest = _attach(directory)
    account = _user(guest, user)
    place = PurePosixPath("/root" if account == "root" else f"/home/{account}") / destination
    into = source.is_dir() or destination.endswith("/")
    if into or guest.run(["test", "-d", str(place)], user=account, check=False).status == 0:
        place = place / source.resolve().name
    with progress.bar(f"Copying '{source.name}' to the target", measure(source)) as advance:
        guest.put(source, place, user=account, progress=advance)


@click.command("copy-from-target", context_settings=CONTEXT)
@_USER
@click.option("-q", "--quiet", is_flag=True, help="Show no progress.")
@_DIRECTORY
@click.argument("source")
@click.argument("destination", type=click.Path(path_type=Path))
def copy_from_target(user: str | None, quiet: bool, directory: Path | None, source: str, destination: Path) -> None:
    """Copy SOURCE, a file or a directory on the target (relative to the user's home), to DESTINATION.

    Into DESTINATION when that is a directory, or SOURCE is one; else a file becomes DESTINATION. Run through sudo, what
    was copied belongs to the user who called sudo.
    """
    from gitian.host import progress
    from gitian.host.workspace import give_to_caller, make_directory

    progress.set_quiet(quiet)
    guest = _attach(directory)
    account = _user(guest, user)
    path = PurePosixPath("/root" if account == "root" else f"/home/{account}") / source.rstrip("/")
    if path.name in ("", "..") or ".." in path.parts:
        raise UsageError(f"'{source}' is not a name that a copy could have.", hint="Name a file or directory.")
    is_directory = guest.run(["test", "-d", str(path)], user=account, check=False).status == 0
    into = is_directory or destination.is_dir()
    place = destination / path.name if into else destination
    made = [one for one in (destination, *destination.absolute().parents) if into and not one.exists()]
    if into:
        make_directory(destination)
    with progress.bar(f"Copying '{path.name}' from the target") as advance:
        guest.get(path, place, user=account, progress=advance)
    give_to_caller(place, os.environ)
    for one in made:
        give_to_caller(one, os.environ, below=False)


@click.command("start-target", context_settings=CONTEXT)
@click.argument("bits", type=click.Choice(["32", "64"]))
@click.argument("target", metavar="SUITE-ARCH")
@_DIRECTORY
def start_target(bits: str, target: str, directory: Path | None) -> None:
    """Start the target SUITE-ARCH of BITS (32 or 64) bits, as make-clean-vm or the last run left it.

    It runs until stop-target, or until another target is started in this workspace.
    """
    from gitian.cli.backends import choose_backend
    from gitian.guest.protocol import HOST_ADDRESS, StartRequest
    from gitian.host import progress

    suite, _, arch = target.rpartition("-")
    suite, arch = _checked(suite, arch)
    if (bits == "32") != (arch == "i386"):
        raise UsageError(f"A target of {bits} bits is not one for {arch}.", hint="i386 has 32 bits, amd64 has 64.")
    workspace = _workspace(directory)
    backend = choose_backend(None, os.environ)
    with workspace.lock():
        image, distro = _image(workspace, suite, arch, backend.name)
        with progress.step(f"Starting the target {suite}-{arch}"):
            guest = backend.start(StartRequest(
                suite=suite, arch=arch, distro=distro, image=image, workspace=workspace.root, fresh=False, keep=True,
                memory=_number("VMEM", 2000), processors=_number("NPROCS", 2), environment=os.environ,
                host_address=os.environ.get("GITIAN_HOST_IP") or HOST_ADDRESS))
            try:
                guest.close(keep=True)
            except BaseException:
                guest.close()
                raise


@click.command("stop-target", context_settings=CONTEXT)
@_DIRECTORY
def stop_target(directory: Path | None) -> None:
    """Stop the target that runs in the workspace, if there is one. What it wrote stays until make-clean-vm."""
    from gitian.cli.backends import choose_backend
    from gitian.guest import session
    from gitian.guest.protocol import StoppableGuest

    workspace = _workspace(directory)
    with workspace.lock():
        record = session.load(workspace.root)
        if record is None:
            return
        # What the guest still has in memory only: a virtual machine is ended like one whose plug is pulled.
        with contextlib.suppress(GuestError):
            guest = choose_backend(record.backend, os.environ).attach(workspace.root, environment=os.environ)
            guest.run(["sync"], user="root", timeout=60, check=False)
            if isinstance(guest, StoppableGuest):
                guest.stop(overlay=False)
        session.sweep(workspace.root, kept=True, overlay=False)


@click.command("make-clean-vm", context_settings=CONTEXT)
@click.option("-s", "--suite", help="The suite [default: $LXC_SUITE, else the distro's living long-term one].")
@click.option("-a", "--arch", help="The architecture [default: $LXC_ARCH, else amd64].")
@_DIRECTORY
def make_clean_vm(suite: str | None, arch: str | None, directory: Path | None) -> None:
    """Make a clean target of the base image: the one that runs is ended, what it wrote is removed."""
    from gitian.cli.backends import choose_backend
    from gitian.guest import session
    from gitian.images.distros import find_distro

    suite, arch = _checked(
        suite or os.environ.get("LXC_SUITE") or find_distro(os.environ.get("DISTRO") or "ubuntu").default_suite,
        arch or os.environ.get("LXC_ARCH") or "amd64")
    workspace = _workspace(directory)
    backend = choose_backend(None, os.environ)
    with workspace.lock():
        image, _ = _image(workspace, suite, arch, backend.name)
        session.sweep(workspace.root, kept=True)
        label = f"target-{suite}-{arch}"
        session.remove([workspace.root / label, workspace.root / f"{label}.qcow2"])
        if backend.name == "lxc":
            from gitian.guest.lxc import prepare_overlay
            from gitian.host.subids import SubIds

            prepare_overlay(workspace.root / label, image, SubIds.of_current_user(), fresh=True)


def _checked(suite: str, arch: str) -> tuple[str, str]:
    """The suite and dpkg's name of the architecture. Raises UsageError."""
    from gitian.names import check_name

    try:
        check_name(suite)
    except ValueError as error:
        raise UsageError(f"'{suite}' cannot be a suite: {error}", hint="For example: start-target 64 bookworm-amd64"
                         ) from error
    arch = "amd64" if arch == "linux64" else arch
    if arch not in ("amd64", "i386"):
        raise UsageError(f"'{arch}' is no architecture of a target.", hint="There are amd64 and i386.")
    return suite, arch


def _image(workspace: Workspace, suite: str, arch: str, backend: str) -> tuple[Path, str]:
    """The base image and its distro: $DISTRO, else the one that the image was made for. Raises ImageError."""
    from gitian.images.lookup import find_image
    from gitian.images.record import ImageFiles

    distro = os.environ.get("DISTRO")
    if not distro:
        record = ImageFiles(directory=workspace.image_directory, suite=suite, arch=arch).read_record()
        distro = record.distro if record is not None else "ubuntu"
    return find_image(workspace.image_directory, suite, arch, backend, distro).path, distro


def _number(variable: str, otherwise: int) -> int:
    """An environment variable's number. Raises UsageError."""
    text = os.environ.get(variable) or str(otherwise)
    if not (text.isascii() and text.isdigit() and 0 < int(text) < 2**24):
        raise UsageError(f"{variable} is '{text}', which is no number of the kind that is needed.")
    return int(text)


COMMANDS = {command.name: command for command in (on_target, copy_to_target, copy_from_target, start_target,
                                                  stop_target, make_clean_vm)}
