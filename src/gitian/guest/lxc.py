"""The LXC backend: a container over an overlay of the base image, commands by attach."""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import select
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from gitian.errors import GuestError, HostError, ImageError, OutputError
from gitian.guest import lxc_attach, lxc_config, network, session
from gitian.guest.lxc_attach import Container
from gitian.guest.protocol import USER_ID, Limits, Result, StartRequest
from gitian.guest.session import Session
from gitian.host import process, progress, tools
from gitian.host.extract import extract, extract_file
from gitian.host.pack import pack
from gitian.host.process import ProcessIdentity
from gitian.host.streams import Tail
from gitian.host.subids import SubIds
from gitian.host.workspace import data_directory, make_directory

#: A container is up in a blink; a machine that takes longer than this is stuck (seconds).
_PATIENCE = 60.0

#: What is made of a fresh root file system: name servers, and sudo only where it is allowed.
_SET_UP = """set -e
umask 022
rm -f /etc/resolv.conf /etc/sudoers.d/gitian
printf '%s' "$1" > /etc/resolv.conf
if [ "$2" = sudo ]; then
    mkdir -p /etc/sudoers.d
    printf '%s ALL=(ALL:ALL) NOPASSWD: ALL\\n' "$3" > /etc/sudoers.d/gitian
    chmod 0440 /etc/sudoers.d/gitian
fi
test "$(id -u "$3")" = "$4"
"""

#: Unpack into a directory, made if need be; into the directory of a file likewise. Records of 256 KiB, in place of
#: tar's own 10, halve what a large file costs at both ends.
_UNPACK = 'mkdir -p -- "$0" && exec tar -x -p -b 512 --no-same-owner --no-overwrite-dir -f - -C "$0"'
_PACK_DIRECTORY = 'exec tar -c -b 512 --format=posix --pax-option=delete=atime,delete=ctime -S -f - -C "$0" .'
_PACK_FILE = 'exec tar -c -h -b 512 --format=posix --pax-option=delete=atime,delete=ctime -S -f - -C "$0" -- "$1"'


class LxcGuest:
    """A running container. See :class:`gitian.guest.protocol.Guest`."""

    #: The host's: what it has that is in no namespace has to be kept from a guest without a network.
    shares_kernel = True

    def __init__(self, workspace: Path, record: Session, supervisor: process.Popen[bytes] | None) -> None:
        self._workspace = workspace
        self._record = record
        self._supervisor = supervisor
        self._container = Container(name=record.facts["name"], directory=Path(record.facts["run"]),
                                    init=record.processes["container"])

    @property
    def user(self) -> str:
        """The name of the unprivileged user."""
        return self._record.distro

    @property
    def label(self) -> str:
        """'suite-arch'."""
        return self._record.label

    @property
    def network(self) -> bool:
        """Whether it was started with a network."""
        return self._record.network

    @property
    def pid(self) -> int:
        """The container's first process, as the host numbers it."""
        return self._container.init.pid

    def run(self, command: Sequence[str], *, user: str | None = None, input: bytes | None = None,
            env: Mapping[str, str] | None = None, cwd: str | None = None,
            output: Callable[[bytes], None] | None = None, timeout: float | None = None,
            check: bool = True, limit: int = 16 * 2**20) -> Result:
        """Run a command; see the protocol."""
        what = f"running '{command[0]}'"
        result = lxc_attach.run(self._container, self._line(command, user, cwd=cwd, env=env), what=what, input=input,
                                output=output, timeout=timeout, limit=limit)
        if check and result.status != 0:
            said = " / ".join((result.stderr or result.stdout).decode(errors="replace").strip().splitlines()[-6:])
            raise GuestError(f"'{command[0]}' ended with status {result.status} in the guest: "
                             f"{said or 'it said nothing'}")
        return result

    def pipe(self, command: Sequence[str], *, stdin: Callable[[int], bytes] | None, stdout: Callable[[bytes], None],
             stderr: Callable[[bytes], None], user: str | None = None, env: Mapping[str, str] | None = None,
             cwd: str | None = None) -> int:
        """Run a command as part of a pipeline; see the protocol."""
        return lxc_attach.pipe(self._container, self._line(command, user, cwd=cwd, env=env),
                               what=f"running '{command[0]}'", stdin=stdin, stdout=stdout, stderr=stderr)

    def put(self, source: Path, destination: PurePosixPath, *, user: str | None = None,
            progress: Callable[[int], None] | None = None) -> None:
        """Copy a file or a directory's contents into the guest; see the protocol."""
        is_directory = source.is_dir()
        into = destination if is_directory else destination.parent
        number = 0 if user == "root" else USER_ID
        line = self._line(["sh", "-c", _UNPACK, self._absolute(into)], user)
        with lxc_attach.attached(self._container, line, f"copying '{source.name}' into it", stdin=True) as one:
            one.listen()
            # When tar in the guest ends early, finish() says why.
            with contextlib.suppress(BrokenPipeError):
                pack(source, one.write, uid=number, gid=number, uname=user or self.user,
                     name=None if is_directory else destination.name, progress=progress)
            one.finish()

    def get(self, source: PurePosixPath, destination: Path, *, limits: Limits | None = None,
            progress: Callable[[int], None] | None = None, user: str | None = None) -> None:
        """Copy a file or a directory's contents out of the guest; see the protocol."""
        path = self._absolute(source)
        is_directory = self.run(["test", "-d", path], user=user, check=False).status == 0
        if is_directory:
            command = ["sh", "-c", _PACK_DIRECTORY, path]
        else:
            command = ["sh", "-c", _PACK_FILE, self._absolute(source.parent), source.name]
        with lxc_attach.attached(self._container, self._line(command, user), f"copying '{source}' out of it",
                                 stdin=False) as one:
            one.listen()
            unpack = extract if is_directory else extract_file
            try:
                unpack(one.read, destination, limits=limits or Limits(), progress=progress)
            except OutputError:
                # An archive cut short is how it looks from here when tar in the guest failed: say that instead. But
                # an archive refused for what is in it may go on for ever.
                if _ended_badly(one):
                    one.finish()
                raise
            _drain(one)
            one.finish()

    def close(self, *, keep: bool = False) -> None:
        """End the guest, or leave it running; see the protocol."""
        if keep:
            self._leave()
        else:
            self.stop()

    def stop(self, *, overlay: bool = True, quick: bool = False) -> None:
        """End the guest; without ``overlay`` what it has written stays for a later start with ``fresh=False``.

        It is always ``quick``: what a container has written, the host has.
        """
        supervisor, self._supervisor = self._supervisor, None
        if supervisor is not None:
            _end_supervisor(supervisor)
        session.end(self._workspace, self._record, overlay=overlay)

    def freeze(self, directory: Path) -> None:
        """End the guest and make what it has written a layer; see the protocol."""
        overlay = self._record.overlay[0]
        self.stop(overlay=False)
        try:
            directory.mkdir(mode=0o700)
            (overlay / "upper").rename(directory / "upper")
        except OSError as error:
            raise HostError(f"The layer '{directory}' cannot be made: {error.strerror}.") from error
        finally:
            session.remove([overlay])

    def _leave(self) -> None:
        supervisor, self._supervisor = self._supervisor, None
        if not self._container.alive():
            raise lxc_attach.gone("it was to be kept")
        if supervisor is not None:
            # On record first: should we die in between, the guest dies with us and a sweep takes the record away.
            self._record = session.keep(self._workspace, self._record)
            assert supervisor.stdin is not None
            supervisor.stdin.write(b"keep\n")
            supervisor.stdin.close()

    def _line(self, command: Sequence[str], user: str | None, *, cwd: str | None = None,
              env: Mapping[str, str] | None = None) -> list[str]:
        return lxc_attach.command_line(self._container, command, user=user or self.user, cwd=cwd, env=env)

    def _absolute(self, path: PurePosixPath) -> str:
        return str(PurePosixPath("/home") / self.user / path)


def _ended_badly(one: lxc_attach.Attached) -> bool:
    with contextlib.suppress(process.TimeoutExpired):
        return one.popen.wait(1.0) != 0
    return False


def _drain(one: lxc_attach.Attached, most: int = 2**20) -> None:
    """Read what follows the end of an archive: tar fills its last record. Raises OutputError when there is much."""
    while data := one.read(65536):
        most -= len(data)
        if most < 0:
            raise OutputError("The guest goes on sending after the end of the archive.")


def _end_supervisor(supervisor: process.Popen[bytes]) -> None:
    """Cut the lifeline: the supervisor stops the container and ends. If it does not, end it."""
    if supervisor.stdin is not None:
        with contextlib.suppress(OSError):
            supervisor.stdin.close()
    with contextlib.suppress(process.TimeoutExpired):
        supervisor.wait(10)
    process.end(supervisor)
    if supervisor.stdout is not None:
        supervisor.stdout.close()


class LxcBackend:
    """Runs guests in LXC. See :class:`gitian.guest.protocol.Backend`."""

    @property
    def name(self) -> str:
        """'lxc'."""
        return "lxc"

    def start(self, request: StartRequest) -> LxcGuest:
        """Start a guest, in place of any that this workspace had; see the protocol."""
        _require_root()
        ids = SubIds.of_current_user()
        _check_image(request.image, ids)
        chosen = network.choose(request.environment, host_address=request.host_address, wanted=request.network)
        execute = request.environment.get("LXC_EXECUTE") or "lxc-execute"
        for program in (execute, "lxc-attach", "lxc-info", "lxc-stop", *_NEEDED[chosen.kind]):
            tools.find(program)
        session.sweep(request.workspace, kept=True, overlay=request.fresh)

        name = identifier(request.workspace)
        run = session.RUN / name
        overlay = request.workspace / f"target-{request.suite}-{request.arch}"
        record = Session(backend="lxc", suite=request.suite, arch=request.arch, distro=request.distro,
                         owner=session.mine(), litter=(run,), overlay=(overlay,),
                         facts={"name": f"gitian-{name}", "run": str(run), "network": session.said(request.network)})
        session.store(request.workspace, record)
        starting = _Starting(request=request, record=record, run=run, overlay=overlay)
        try:
            layer = prepare_overlay(overlay, request.image, ids, fresh=request.fresh, layer=request.layer)
            session.remove([run])
            make_directory(session.RUN)
            run.mkdir(mode=0o711)
            root = run / "root"
            profile = lxc_config.seccomp_profile()
            if not request.network:
                text = lxc_config.cut_off(profile.read_text(encoding="utf-8"))
                profile = run / "seccomp"
                profile.write_text(text, encoding="utf-8")
            config = lxc_config.render(lxc_config.ConfigRequest(
                root=root, arch=request.arch, ids=ids, network=chosen, allow_sudo=request.allow_sudo),
                seccomp=profile)
            (run / "config").write_text(config)
            (run / "addresses").write_text(chosen.addresses)
            guest = starting.launch(execute, chosen, layer)
        except BaseException:
            session.end(request.workspace, starting.record)
            raise
        try:
            _set_up(guest, request, chosen)
        except BaseException:
            guest.stop()
            raise
        return guest

    def attach(self, workspace: Path, *, environment: Mapping[str, str]) -> LxcGuest:
        """Find the guest that was left running in this workspace. Raises GuestError, HostError."""
        _require_root()
        record = session.running(workspace)
        if record.backend != self.name:
            raise GuestError(f"The target that runs in '{workspace}' is not a container ({record.backend}).",
                             hint="Choose the backend that started it: USE_LXC=1 for LXC, nothing for KVM.")
        return LxcGuest(workspace, record, None)

    def sweep(self, workspace: Path) -> None:
        """Put away what a dead process left of its guest; see the protocol. Raises HostError for others than root."""
        _require_root()
        session.sweep(workspace)


def identifier(workspace: Path) -> str:
    """What the guest of a workspace is called on this machine: its own, since a workspace has one guest."""
    return hashlib.sha256(os.fsencode(workspace.resolve())).hexdigest()[:16]


_NEEDED = {"user": ("slirp4netns", "nsenter", "ip"), "bridge": (), "none": ("nsenter", "ip")}


@dataclass(slots=True, kw_only=True)
class _Starting:
    """A container on its way up."""

    request: StartRequest
    record: Session
    run: Path
    overlay: Path

    def launch(self, execute: str, chosen: network.Network, layer: Path | None) -> LxcGuest:
        """Start the supervisor and wait for its word. Raises HostError, GuestError."""
        workspace = self.request.workspace
        log = os.open(workspace / "var" / "target.log",
                      os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, 0o644)
        with os.fdopen(log, "wb") as stderr:
            supervisor = process.popen(
                ["env", "--default-signal", "--", "unshare", "--mount", "--propagation", "private", "--", "sh",
                 data_directory("libexec") / "lxc-supervisor", self.run, self.record.facts["name"],
                 self.request.image.resolve(), _upper_of(layer), self.overlay, execute, chosen.kind, *chosen.slirp],
                stdin=process.PIPE, stdout=process.PIPE, stderr=stderr, cwd=Path("/"))
        try:
            word = _first_line(supervisor)
            match = re.fullmatch(r"ready (\d+) (\d+) (\d+)\n", word)
            if match is None:
                raise self._failure(word)
            numbers = {"container": int(match[1]), "monitor": int(match[2]), "slirp4netns": int(match[3]),
                       "supervisor": supervisor.pid}
            found = {name: process.identity(pid) for name, pid in numbers.items() if pid}
            alive: dict[str, ProcessIdentity] = {name: who for name, who in found.items() if who is not None}
            if len(alive) != len(found):
                raise self._failure("")
            self.record = Session(
                backend=self.record.backend, suite=self.record.suite, arch=self.record.arch, distro=self.record.distro,
                owner=self.record.owner, processes=alive, litter=self.record.litter, overlay=self.record.overlay,
                groups=tuple(_groups(alive)), facts=self.record.facts)
            session.store(workspace, self.record)
            return LxcGuest(workspace, self.record, supervisor)
        except BaseException:
            _end_supervisor(supervisor)
            raise

    def _failure(self, word: str) -> GuestError:
        what = word.removeprefix("failed ").strip() or "it ended at once"
        tail = Tail()
        for log in (self.request.workspace / "var" / "target.log", self.run / "lxc.log", self.run / "slirp.log"):
            with contextlib.suppress(OSError):
                tail(log.read_bytes()[-4096:])
        lines = [line for line in tail.lines(40) if " WARN " not in line][-6:]
        return GuestError(f"The container cannot be started; what failed was {what}."
                          + "\n  ".join(["", *(progress.plain(line) for line in lines)]),
                          hint="'gitian doctor' tells what this machine lacks for LXC.")


def _upper_of(layer: Path | None) -> str:
    return "-" if layer is None else str((layer / "upper").resolve())


def _first_line(supervisor: process.Popen[bytes]) -> str:
    """The supervisor's word, b'' when it ended without one. Raises GuestError after a minute of silence."""
    assert supervisor.stdout is not None
    number = supervisor.stdout.fileno()
    said = b""
    until = time.monotonic() + _PATIENCE
    while not said.endswith(b"\n") and len(said) < 4096:
        if not select.select([number], [], [], max(0.0, until - time.monotonic()))[0]:
            raise GuestError(f"The container did not start within {_PATIENCE:g} s.",
                             hint="'gitian doctor' tells what this machine lacks for LXC.")
        data = os.read(number, 4096)
        if not data:
            break
        said += data
    return said.decode(errors="replace")


def _require_root() -> None:
    if os.geteuid() != 0:
        raise HostError("LXC guests are run by root, and this is another user.",
                        hint=f"Run it through sudo ('sudo -E {Path(sys.argv[0]).name} ...'), or use KVM, which needs "
                             "no privilege: leave USE_LXC unset.")


def _check_image(image: Path, ids: SubIds) -> None:
    try:
        about = image.stat()
    except OSError as error:
        raise ImageError(f"The base image '{image}' cannot be used: {error.strerror}.",
                         hint="Make it with 'make-base-vm --lxc'.") from error
    if not image.is_dir():
        raise ImageError(f"The base image '{image}' is not a directory.", hint="Make it with 'make-base-vm --lxc'.")
    if about.st_uid != ids.uid or about.st_gid != ids.gid:
        raise ImageError(f"The base image '{image}' belongs to user {about.st_uid}, not to {ids.uid}, whom root in "
                         "a guest is on this machine.",
                         hint="It was made for other subordinate ids (/etc/subuid): remove it and make it again.")


def prepare_overlay(overlay: Path, image: Path, ids: SubIds, *, fresh: bool, layer: Path | None = None) -> Path | None:
    """Make a target's overlay, empty; unless ``fresh``, leave one that was made over the same image as it is.

    Returns the layer that the overlay is to lie on: ``layer``, or the one that an overlay left as it is was made over.
    Raises HostError.
    """
    about = image.stat()
    base = f"{image.resolve()} {about.st_dev} {about.st_ino}"
    marker = overlay / "base"
    usable = False
    if not fresh and overlay.is_dir() and not overlay.is_symlink() and overlay.stat().st_uid == os.geteuid() \
            and marker.is_file():
        was_base, _, was_layer = marker.read_text().partition("\n")
        was = Path(was_layer.rpartition("\n")[0]) if was_layer else None
        usable = was_base == base and was_layer == _layer_mark(was)
        if usable:
            layer = was
    if not usable:
        if not fresh:
            progress.say("The last target was made from what is no longer there: this one starts from the base image."
                         if overlay.is_dir() else "No target was left: this one starts from the base image.")
        session.remove([overlay])
        try:
            overlay.mkdir(mode=0o700)
            (overlay / "upper").mkdir(mode=0o755)
            # The overlay's top has the owner and mode of the upper directory: those of the guest's own '/'.
            os.chown(overlay / "upper", ids.uid, ids.gid)
            marker.write_text(f"{base}\n{_layer_mark(layer)}")
        except OSError as error:
            raise HostError(f"The target '{overlay}' cannot be made: {error.strerror}.") from error
    # overlayfs marks the working directory of a 'volatile' mount so that it is not mounted twice: take a new one.
    session.remove([overlay / "work"])
    (overlay / "work").mkdir(mode=0o700)
    return layer


def _layer_mark(layer: Path | None) -> str:
    """A layer's place, then which directory it is: one that is made anew in the same place is another one."""
    if layer is None:
        return ""
    try:
        about = (layer / "upper").stat()
    except OSError:
        return "gone"
    return f"{layer.resolve()}\n{about.st_dev} {about.st_ino}"


def _set_up(guest: LxcGuest, request: StartRequest, chosen: network.Network) -> None:
    result = guest.run(["sh", "-c", _SET_UP, "set-up", chosen.resolv_conf, "sudo" if request.allow_sudo else "none",
                        request.distro, str(USER_ID)], user="root", check=False, cwd="/", timeout=_PATIENCE)
    if result.status != 0:
        said = progress.plain(" / ".join(result.stderr.decode(errors="replace").strip().splitlines()[-3:]))
        raise ImageError(f"The base image '{request.image}' is not one of a '{request.distro}' guest: "
                         f"{said or 'it lacks the user'}.",
                         hint="Remove it and make it again with 'make-base-vm --lxc'.")


def _groups(processes: Mapping[str, ProcessIdentity]) -> list[Path]:
    """The control groups that lxc made: removed by it in the end, unless it is killed (proc(5), /proc/PID/cgroup)."""
    found = set()
    for name in ("container", "monitor"):
        with contextlib.suppress(OSError):
            for line in Path(f"/proc/{processes[name].pid}/cgroup").read_text().splitlines():
                _, controllers, path = line.split(":", 2)
                inner = path.lstrip("/")
                if not Path(inner).name.startswith("lxc.") or ".." in Path(inner).parts:
                    continue
                for hierarchy in (controllers.removeprefix("name="), "unified", "."):
                    group = Path("/sys/fs/cgroup") / hierarchy / inner
                    if group.is_dir():
                        found.add(group)
    return sorted(found)
