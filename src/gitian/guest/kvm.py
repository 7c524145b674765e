"""The KVM backend: a qemu virtual machine over an overlay of the base image, reached by SSH. None of it needs root."""

from __future__ import annotations

import contextlib
import os
import secrets
import shlex
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path, PurePosixPath

from gitian.errors import GitianError, GuestError, HostError, ImageError
from gitian.guest import acceleration, kvm_start, kvm_state, qemu, session, ssh
from gitian.guest.kvm_start import Place
from gitian.guest.kvm_state import LayerFiles
from gitian.guest.network import is_loopback
from gitian.guest.protocol import UMASK, USER_ID, Limits, Result, StartRequest, contract_environment
from gitian.guest.qemu import Machine
from gitian.guest.qmp import Qmp
from gitian.guest.session import Session
from gitian.guest.ssh_wire import Account, checked_line, command_line
from gitian.guest.transfer import Transfer
from gitian.host import process, progress
from gitian.host.streams import Tail

#: The console's log is cut to its last part when it grows beyond this (bytes).
_CONSOLE_LIMIT = 32 * 2**20
_CONSOLE_KEPT = 2**20
#: How often a running machine is looked after (seconds).
_ROUND = 5.0
#: An orderly end: everything in the guest is ended and its disk written (seconds).
_POWER_OFF = 60.0
#: Its disk alone written; in a guest that has no processes left to give it may not come to that (seconds).
_SYNC = 30.0

#: Random numbers, the time (the guest's clock stood while it started); sudo only where it is allowed; a base image that
#: is meant for this user; the host's own services out of reach, unless the package proxy is one of them. $1: yes or no;
#: $2: user; $3: its number; $4: seconds since the epoch; $5: open, closed or cut.
#: A restored guest has the random numbers of every other one that was: it gets 64 bytes of ours, and its generator is
#: seeded with them at once (random(4): RNDADDENTROPY; linux/random.h: RNDRESEEDCRNG, since Linux 4.14). perl is
#: essential in every distribution that we know.
#: qemu makes every address of the guest's network but the name server's the host's loopback, and no option changes
#: that: so the guest's kernel refuses them to all users but root, whose answers to us go there. A saved guest's does.
#: A guest that is cut off needs none of that: no packet leaves its qemu (restrict=on). Its kernel sends none either
#: but from sshd's port, so that it does not even see qemu's own echoes and resets; those rules are never taken back.
#: Run by root's shell as it is, with as few programs as can be: each costs an emulated guest 30 ms.
_SET_UP = """set -e
perl -e '
    read(STDIN, my $seed, 64) == 64 or die "there is no seed\\n";
    open(my $random, ">", "/dev/urandom") or die "/dev/urandom: $!\\n";
    ioctl($random, 0x40085203, pack("iia*", 8 * 64, 64, $seed)) or die "RNDADDENTROPY: $!\\n";
    print "seeded\\n" if ioctl($random, 0x5207, 0);
    unlink("/etc/sudoers.d/gitian");
    my ($user, $number) = @ARGV;
    my $found = getpwnam($user);
    defined $found && $found == $number or die "there is no user $user with the number $number\\n";
' -- "$2" "$3"
date -u -s "@$4" >/dev/null
if [ "$1" = yes ]; then
    umask 022
    mkdir -p /etc/sudoers.d
    printf '%s ALL=(ALL:ALL) NOPASSWD: ALL\\n' "$2" >/etc/sudoers.d/gitian
    chmod 0440 /etc/sudoers.d/gitian
fi
if [ "$5" = cut ]; then
    printf 'rule add %s\n' 'pref 1 ipproto tcp sport 22 lookup main' 'pref 2 prohibit' | ip -batch - || echo blunt
elif [ "$5" = open ]; then
    if [ -e /run/gitian/closed ]; then ip rule del pref 20; rm /run/gitian/closed; fi
elif [ ! -e /run/gitian/closed ]; then
    if printf 'rule add %s\n' 'pref 10 to 10.0.2.3 lookup main' \
        'pref 20 uidrange 1-4294967294 to 10.0.2.0/24 prohibit' | ip -batch -
    then : >/run/gitian/closed; else echo open; fi
fi
"""

#: What builds start with, run before a machine is saved: its programs and libraries are in memory then.
_WARM_UP = """setarch linux64 bash -c 'mkdir -p /tmp; test -d ~; rm -f ""'
tar --create --format=posix --sparse --file=- --directory=/etc hostname | tar --list --file=- >/dev/null
"""
#: Nothing is under way when a machine is saved, and nothing of ours lies about.
_QUIET = "rm -f /etc/sudoers.d/gitian /run/gitian/command.*; sync"

_TROUBLES = {"io-error": "the host's disk is full, so the guest's could not be written",
             "internal-error": "qemu has met an error of its own",
             "guest-panicked": "the guest's kernel has failed"}


class KvmGuest:
    """A running virtual machine. See :class:`gitian.guest.protocol.Guest`."""

    def __init__(self, workspace: Path, record: Session, connection: ssh.Connection,
                 fate: Fate, running: process.Popen[bytes] | None,
                 origin: tuple[StartRequest, Machine] | None = None) -> None:
        self._place = Place(workspace=workspace)
        self._record = record
        self._connection = connection
        self._fate = fate
        self._running = running
        self._origin = origin
        #: Whether its kernel took random numbers of ours at once, so that no two guests of one layer have the same.
        self.seeded = False
        #: Whether a guest that is cut off sees answers of qemu's own (not of anything else).
        self.gateway_answers = False
        self._over = threading.Event()
        threading.Thread(target=self._look_after, daemon=True, name="kvm-look-after").start()

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
    def acceleration(self) -> str:
        """'kvm', or 'tcg' for software emulation."""
        return self._record.facts["accel"]

    @property
    def pid(self) -> int:
        """The number of its qemu."""
        return self._record.processes["qemu"].pid

    @property
    def server(self) -> ssh.Server:
        """Where its SSH server is reached; the key for it lies in the workspace's var/target-kvm/."""
        return _server(self._record)

    def run(self, command: Sequence[str], *, user: str | None = None, input: bytes | None = None,
            env: Mapping[str, str] | None = None, cwd: str | None = None,
            output: Callable[[bytes], None] | None = None, timeout: float | None = None,
            check: bool = True, limit: int = 16 * 2**20) -> Result:
        """Run a command; see the protocol."""
        mark = self._connection.mark()
        line = self._line(command, user, env, cwd, mark=mark, merged=output is not None)
        result = self._connection.run(line, what=command[0], mark=mark, input=input, output=output, timeout=timeout,
                                      limit=limit)
        if check and result.status != 0:
            said = " / ".join((result.stderr or result.stdout).decode(errors="replace").strip().splitlines()[-6:])
            raise GuestError(f"'{command[0]}' ended with status {result.status} in the guest: "
                             f"{said or 'it said nothing'}")
        return result

    def pipe(self, command: Sequence[str], *, stdin: Callable[[int], bytes] | None, stdout: Callable[[bytes], None],
             stderr: Callable[[bytes], None], user: str | None = None, env: Mapping[str, str] | None = None,
             cwd: str | None = None) -> int:
        """Run a command as part of a pipeline; see the protocol."""
        mark = self._connection.mark()
        return self._connection.pipe(self._line(command, user, env, cwd, mark=mark, merged=False), what=command[0],
                                     mark=mark, stdin=stdin, stdout=stdout, stderr=stderr)

    def put(self, source: Path, destination: PurePosixPath, *, user: str | None = None,
            progress: Callable[[int], None] | None = None) -> None:
        """Copy a file or a directory's contents into the guest; see the protocol."""
        Transfer(connection=self._connection, account=self._account(user)).put(source, destination, progress)

    def get(self, source: PurePosixPath, destination: Path, *, limits: Limits | None = None,
            progress: Callable[[int], None] | None = None, user: str | None = None) -> None:
        """Copy a file or a directory's contents out of the guest; see the protocol."""
        transfer = Transfer(connection=self._connection, account=self._account(user))
        transfer.get(source, destination, limits or Limits(), progress)

    def close(self, *, keep: bool = False) -> None:
        """End the guest at once and remove its overlay, or leave it running; see the protocol."""
        if not keep:
            self.stop()
            return
        if not self._fate.alive():
            raise self._fate.lost("The guest was to be kept.")
        self._leave()
        self._record = session.keep(self._place.workspace, self._record)

    def stop(self, *, overlay: bool = True, quick: bool = False) -> None:
        """End the guest; without ``overlay``, in good order, and what it has written stays for ``fresh=False``.

        With ``quick`` only its disk is brought into good order; see the protocol.
        """
        if not overlay:
            with contextlib.suppress(GitianError):
                if quick:
                    self.run(["sync"], user="root", timeout=_SYNC)
                else:
                    self.run(["/run/gitian/poweroff"], user="root", timeout=_POWER_OFF)
                    self._fate.wait(_POWER_OFF)
        self._leave()
        if self._fate.alive():
            # Nothing that the guest still does matters: its disk goes with it, or has what is to stay.
            with contextlib.suppress(GitianError), Qmp.connect(self._place.control, timeout=1.0) as control:
                control.quit()
            self._fate.wait(1.0 if overlay else _POWER_OFF)
        session.end(self._place.workspace, self._record, overlay=overlay)
        if self._running is not None:
            process.end(self._running, patience=0)

    def freeze(self, directory: Path) -> None:
        """End the guest in good order and make its disk a layer, with a machine that has just booted from it.

        See the protocol. Where such a machine cannot be saved, the layer is the disk alone: a warning says so.
        """
        files = LayerFiles(directory=directory)
        (overlay,) = self._record.overlay
        self.stop(overlay=False)
        try:
            directory.mkdir(mode=0o700)
            overlay.chmod(0o600)
            overlay.rename(files.disk)
        except OSError as error:
            raise HostError(f"The layer '{directory}' cannot be made: {error.strerror}.") from error
        finally:
            session.remove([overlay])
        if self._origin is None:
            return
        request, _ = self._origin
        try:
            booted = KvmBackend().start(replace(request, layer=directory, fresh=True, keep=False, allow_sudo=False))
            booted.save(files)
        except (GuestError, OSError) as error:
            session.remove([files.about, files.state, files.running_disk, files.key])
            progress.warn(f"The layer keeps no running machine, so that guests boot from it: {error}")

    def save(self, files: LayerFiles) -> None:
        """End the guest and keep it, as it runs, beside the disk that it has booted from. Raises GuestError."""
        assert self._origin is not None, "only who has started a guest makes a layer of it"
        machine = self._origin[1]
        (overlay,) = self._record.overlay
        try:
            if not self.seeded:
                raise GuestError("Its kernel is too old to renew its random numbers.")
            # What the first commands of a guest need is in its memory when it goes on.
            self.run(["sh", "-c", _WARM_UP], check=False, timeout=_POWER_OFF)
            self.run(["sh", "-c", _QUIET], user="root", timeout=_POWER_OFF)
            self._leave()
            kvm_state.save(self._place.control, machine, files, key=self._place.key.read_text(),
                           host_key=self.server.host_key)
            self._fate.wait(_POWER_OFF)
            overlay.chmod(0o600)
            overlay.rename(files.running_disk)
            # A layer gets another name once it is finished, so the one disk finds the other beside it.
            process.run(["qemu-img", "rebase", "-u", "-f", "qcow2", "-F", "qcow2", "-b", files.disk.name,
                         str(files.running_disk)], tied=True)
        finally:
            self.stop()

    def _leave(self) -> None:
        self._over.set()
        self._connection.close()

    def _line(self, command: Sequence[str], user: str | None, env: Mapping[str, str] | None, cwd: str | None, *,
              mark: str, merged: bool) -> bytes:
        account = self._account(user)
        return command_line(command, account=account, environment=contract_environment(account.name) | dict(env or {}),
                            cwd=cwd or account.home, umask=UMASK, merged=merged, mark=mark,
                            privileges=account.uid == 0 or self._record.facts["sudo"] == "yes",
                            narrow=self._record.arch == "i386")

    def _account(self, user: str | None) -> Account:
        if user == "root":
            return Account.root()
        name = user or self.user
        return Account(name=name, uid=USER_ID, home=f"/home/{name}")

    def _look_after(self) -> None:
        """Keep the console's log within bounds, and see that the machine has not stopped by itself."""
        while not self._over.wait(_ROUND):
            with contextlib.suppress(OSError):
                shorten(self._place.console, most=_CONSOLE_LIMIT, kept=_CONSOLE_KEPT)
            with contextlib.suppress(GitianError, OSError):
                with Qmp.connect(self._place.control) as control:
                    trouble = _TROUBLES.get(control.status())
                if trouble:
                    self._fate.trouble = trouble
                    self._connection.close()
                    return


class Fate:
    """Whether a machine still runs, and if not, why, in words that help."""

    def __init__(self, console: Path, who: process.ProcessIdentity | None,
                 running: process.Popen[bytes] | None) -> None:
        self.trouble = ""
        self._console = console
        self._who = who
        self._running = running

    def alive(self) -> bool:
        """Whether its qemu is there."""
        if self._running is not None:
            return self._running.poll() is None
        return self._who is not None and process.identity(self._who.pid) == self._who

    def wait(self, seconds: float) -> bool:
        """Whether it ended within so many seconds."""
        return process.wait_until(lambda: not self.alive(), seconds)

    def lost(self, what: str) -> GuestError:
        """The error for a guest that is gone: what was going on, why it ended, what its console said last."""
        self.wait(1.0)
        lines = [line.strip() for line in console_tail(self._console) if line.strip()]
        end = next((line.removeprefix("gitian: failed: ") for line in lines if line.startswith("gitian: failed: ")), "")
        if self.trouble:
            why = self.trouble
        elif self.alive():
            why = end
        elif self._running is not None and self._running.returncode != 0:
            why = f"its qemu {process.ended_how(self._running.returncode)}"
        else:
            why = end or "it switched itself off, or its kernel failed" if self._running is not None \
                else "its qemu was ended"
        message = what.rstrip(".") + (f" ({why})." if why else ".")
        said = " / ".join(lines[-6:])[-900:]
        return GuestError(message, hint=("Its console, var/target.log, ends: " + said) if said
                          else "Its console, var/target.log, is empty.")


def console_tail(console: Path, size: int = 4096) -> list[str]:
    """The last lines of a console's log, as text that is not yet escaped."""
    tail = Tail(size)
    with contextlib.suppress(OSError), console.open("rb") as log:
        log.seek(max(0, os.fstat(log.fileno()).st_size - size))
        tail(log.read(size))
    return tail.lines()


def shorten(log: Path, *, most: int, kept: int) -> None:
    """Cut a log that others append to down to its last ``kept`` bytes, once it is longer than ``most``."""
    with log.open("r+b") as file:
        size = os.fstat(file.fileno()).st_size
        if size > most:
            file.seek(size - kept)
            end = file.read(kept)
            file.seek(0)
            file.write(b"[...]\n" + end)
            file.truncate()


def _reach(request: StartRequest) -> str:
    if not request.network:
        return "cut"
    return "open" if is_loopback(request.environment.get("MIRROR_HOST", "")) else "closed"


def _server(record: Session) -> ssh.Server:
    return ssh.Server(port=int(record.facts["port"]), host_key=record.facts["host_key"])


class KvmBackend:
    """Runs guests in qemu. See :class:`gitian.guest.protocol.Backend`."""

    @property
    def name(self) -> str:
        """'kvm'."""
        return "kvm"

    def start(self, request: StartRequest) -> KvmGuest:
        """Start a guest, in place of any that this workspace had; see the protocol."""
        self._end_strays(request.workspace)
        session.sweep(request.workspace, kept=True, overlay=request.fresh)
        place = Place(workspace=request.workspace)
        fates: list[Fate] = []

        def lost(running: process.Popen[bytes]) -> ssh.Lost:
            fates.append(Fate(place.console, None, running))
            return fates[-1].lost

        started = kvm_start.start(request, lost)
        guest = KvmGuest(request.workspace, started.session, started.connection, fates[-1], started.qemu,
                         origin=(request, started.machine))
        try:
            words = shlex.join([started.session.facts["sudo"], request.distro, str(USER_ID), f"{time.time():.3f}",
                                _reach(request)])
            done = started.connection.run(checked_line(f"set -- {words}\n{_SET_UP}"), what="set up", timeout=_POWER_OFF,
                                          input=secrets.token_bytes(64))
            if done.status != 0:
                said = " / ".join(done.stderr.decode(errors="replace").strip().splitlines()[-3:])
                raise ImageError(f"The base image '{request.image}' is not one of a '{request.distro}' guest: "
                                 f"{said or 'it lacks the user'}.",
                                 hint="Remove it and make it again with 'make-base-vm'.")
            guest.seeded = b"seeded\n" in done.stdout
            if b"open\n" in done.stdout:
                progress.warn("The guest's 'ip' is too old to keep it from the services on this machine's loopback.")
            if b"blunt\n" in done.stdout:
                guest.gateway_answers = True
                progress.warn("The guest's 'ip' is too old to keep it from seeing that qemu itself answers pings and "
                              "refuses connections; nothing else is reached.")
            if started.restored and not guest.seeded:
                raise GuestError("The guest that was kept in a layer could not be given random numbers of its own.",
                                 hint="Build with --no-layers.")
        except BaseException:
            guest.stop()
            raise
        return guest

    def identity(self, *, image: Path, arch: str, workspace: Path, environment: Mapping[str, str]) -> str:
        """Which qemu runs guests here, and how: a saved machine goes on in no other; see the protocol."""
        program = qemu.program(arch, environment)
        chosen = acceleration.choose(program=program, kernel=image.with_suffix(".vmlinuz"), environment=environment,
                                     fallback=Place(workspace=workspace).console.parent)
        return kvm_state.identity(program, chosen.name)

    def attach(self, workspace: Path, *, environment: Mapping[str, str]) -> KvmGuest:
        """Find the guest that was left running in this workspace. Raises GuestError, HostError."""
        record = session.running(workspace)
        if record.backend != self.name:
            raise GuestError(f"The target that runs in '{workspace}' is not a virtual machine ({record.backend}).",
                             hint="Choose the backend that started it: USE_LXC=1 for LXC, nothing for KVM.")
        place = Place(workspace=workspace)
        fate = Fate(place.console, record.processes["qemu"], None)
        try:
            key = ssh.Key(private=place.key.read_text(), public="")
        except OSError as error:
            raise GuestError(f"The key of the target in '{workspace}' cannot be read: {error.strerror}.",
                             hint="Stop it with 'libexec/stop-target' and start it again.") from error
        connection = ssh.Connection.open(_server(record), key, timeout=120.0, lost=fate.lost)
        return KvmGuest(workspace, record, connection, fate, None)

    def sweep(self, workspace: Path) -> None:
        """Put away what a dead process left of its guest; see the protocol."""
        self._end_strays(workspace)
        session.sweep(workspace)

    def _end_strays(self, workspace: Path) -> None:
        """End a machine whose start was killed before its process was on record."""
        record = session.load(workspace)
        if record is None or record.backend != self.name or record.processes:
            return
        if record.owner is None or process.identity(record.owner.pid) == record.owner:
            return
        for who in kvm_start.strays(record.facts["name"]):
            process.kill_identity(who)
