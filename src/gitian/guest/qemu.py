"""The command line of a guest's qemu, and what is handed over to the guest at its start. Pure.

docs/explanation/kvm-guests.md says what each part is for.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from gitian.errors import UsageError
from gitian.formats import cpio
from gitian.guest.protocol import DNS_ADDRESS, GUEST_ADDRESS, HOST_ADDRESS, HOSTNAME

#: What qemu may write into one file: the overlay, or the console's log (bytes beyond the disk's size).
_SLACK = 2 * 2**30

#: The kernel's own command line. A panic reboots at once and qemu, told not to reboot, ends: a dead guest is seen at
#: once. What processors leak to each other matters little in a machine with one tenant.
COMMAND_LINE = "console=ttyS0 panic=-1 oops=panic quiet loglevel=4 mitigations=off random.trust_cpu=on net.ifnames=0"


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """A virtual machine. ``program`` is qemu's name or path, perhaps with arguments; ``memory`` is in MiB; ``qmp`` the
    number of an inherited listening socket; ``disk_size`` in bytes. With ``incoming``, the number of an inherited
    socket, it does not boot: it goes on from the state that comes from there."""

    program: Sequence[str]
    name: str
    accel: str  # kvm or tcg
    memory: int
    processors: int
    kernel: Path
    initrd: Path | None
    overlay: Path
    disk_size: int
    console: Path
    qmp: int
    port: int
    #: End with the process that starts it, whatever ends that (prctl(2), PR_SET_PDEATHSIG).
    tied: bool = True
    #: qemu's name for the kind of machine: its newest, or, with its version, that of a saved state.
    kind: str = "pc"
    incoming: int | None = None
    #: Whether the guest reaches anything outside qemu. No part of a saved state: a machine goes on with or without.
    network: bool = True
    #: The processor's model and features, in place of the usual.
    cpu: str | None = None


def program(arch: str, environment: Mapping[str, str]) -> list[str]:
    """qemu's name for an architecture, or what $KVM says. Raises UsageError when that cannot be read."""
    chosen = environment.get("KVM")
    if chosen:
        try:
            words = shlex.split(chosen)
        except ValueError as error:
            raise UsageError(f"The variable KVM cannot be understood: {error}.",
                             hint="It names qemu's program, for example KVM=qemu-system-x86_64.") from error
        if words:
            return words
    # For i386 too: some suites have 32-bit guests but no 32-bit kernel any more, so that theirs is the 64-bit one.
    return ["qemu-system-x86_64"]


def value(text: str | Path) -> str:
    """A value within an option of qemu, where a comma stands for the next one unless doubled."""
    return str(text).replace(",", ",,")


def accelerated(accel: str, cpu: str | None = None) -> list[str]:
    """The options that say who executes the guest's instructions, and as which processor."""
    if accel == "kvm":
        return ["-accel", "kvm", "-cpu", cpu or "host"]
    # Linux 6.12 with several processors dies at one start in six when qemu 7.2 emulates 'lock cmpxchg16b', which its
    # allocator uses where it is; Linux 6.1 does not. No program of a distribution's baseline needs the instruction.
    return ["-accel", "tcg,thread=multi", "-cpu", cpu or "max,cx16=off"]


def argv(machine: Machine) -> list[str]:
    """The whole command that runs a machine."""
    network = (f"user,id=net,net=10.0.2.0/24,host={HOST_ADDRESS},dns={DNS_ADDRESS},dhcpstart={GUEST_ADDRESS},"
               f"hostname={HOSTNAME},ipv6=off,{'' if machine.network else 'restrict=on,'}"
               f"hostfwd=tcp:127.0.0.1:{machine.port}-{GUEST_ADDRESS}:22")
    return [
        *(["setpriv", "--pdeathsig", "KILL"] if machine.tied else []),
        "prlimit", f"--fsize={machine.disk_size + _SLACK}", "--core=0",
        *machine.program, "-name", f"guest={value(machine.name)}",
        "-no-user-config", "-nodefaults", "-no-reboot", "-display", "none", "-vga", "none",
        "-sandbox", "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny",
        "-machine", f"{machine.kind},vmport=off", *accelerated(machine.accel, machine.cpu),
        "-m", str(machine.memory), "-smp", str(machine.processors), "-rtc", "base=utc",
        "-kernel", str(machine.kernel), *(["-initrd", str(machine.initrd)] if machine.initrd is not None else []),
        "-append", COMMAND_LINE,
        # The overlay is thrown away: nothing of it need survive a crash of the host. When the host's disk is full the
        # machine stops, is seen to have stopped, and the reason is told.
        "-drive", f"if=none,id=disk,file={value(machine.overlay)},format=qcow2,cache=unsafe,discard=unmap,"
                  "detect-zeroes=unmap,werror=stop,rerror=stop",
        "-device", "virtio-blk-pci,drive=disk",
        "-netdev", network, "-device", "virtio-net-pci,netdev=net,romfile=",
        "-object", "rng-random,id=random,filename=/dev/urandom", "-device", "virtio-rng-pci,rng=random",
        # A number that is new at every start: a kernel that knows it (Linux 5.18) renews its random numbers when it
        # finds itself restored.
        "-device", "vmgenid,guid=auto",
        "-chardev", f"file,id=console,append=on,path={value(machine.console)}", "-serial", "chardev:console",
        "-chardev", f"socket,id=control,fd={machine.qmp},server=on,wait=off", "-mon", "chardev=control,mode=control",
        *(["-incoming", f"fd:{machine.incoming}"] if machine.incoming is not None else []),
    ]


def handover(*, host_key: str, host_key_public: str, authorized_key: str, time: int) -> bytes:
    """The archive that follows the initial RAM disk: what this one start of the guest needs (kvm-images.md).

    ``time`` is the host's clock in seconds since the epoch.
    """
    settings = {"hostname": HOSTNAME, "address": f"{GUEST_ADDRESS}/24", "gateway": HOST_ADDRESS, "dns": DNS_ADDRESS,
                "time": str(time)}
    return cpio.pack([
        cpio.file("gitian/config", "".join(f"{name}={text}\n" for name, text in settings.items()).encode()),
        cpio.file("gitian/authorized_keys", f"{authorized_key}\n".encode(), 0o600),
        cpio.file("gitian/ssh_host_ed25519_key", host_key.encode(), 0o600),
        cpio.file("gitian/ssh_host_ed25519_key.pub", f"{host_key_public}\n".encode()),
    ])
