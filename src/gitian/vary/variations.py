"""The variations: what each one changes, where it works, and what a build with some of them is given.

docs/reference/variations.md is the table for users.
"""

from __future__ import annotations

import datetime
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType

from gitian.build.changes import Changes, ScriptChanges
from gitian.errors import FormatError, UsageError
from gitian.guest.protocol import MachineChanges
from gitian.images.record import ImageFiles
from gitian.vary import probe, wrapper
from gitian.vary.wrapper import Circumstance

_BOTH = frozenset({"lxc", "kvm"})
_KVM = frozenset({"kvm"})

#: Releases whose /usr is merged by force, and from which on that cannot be chosen any more.
_UNMERGED = frozenset({"jessie", "stretch", "buster", "bullseye", "trusty", "xenial", "bionic", "focal"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Variation:
    """One circumstance that can be changed.

    ``implies`` are variations whose effect this one has too: what they explain is not told again for it. ``group`` is
    a word by which several are chosen. Without ``usual`` it takes part only when it is named.
    """

    name: str
    what: str
    group: str
    backends: frozenset[str] = _BOTH
    implies: frozenset[str] = frozenset()
    usual: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """Where a build takes place, as far as variations depend on it.

    ``backend`` is 'lxc' or 'kvm'; ``architecture`` dpkg's; ``memory`` in MiB; ``processors`` those of the guest, also
    NUM_PROCS. ``inputs``: whether the build has files or remotes. ``restored``: whether guests go on from a saved
    machine.
    """

    backend: str
    suite: str
    architecture: str
    distro: str
    image_directory: Path
    processors: int = 2
    memory: int = 2000
    network: bool = True
    sudo: bool = False
    inputs: bool = True
    restored: bool = True


def _table(*entries: Variation) -> Mapping[str, Variation]:
    return MappingProxyType({entry.name: entry for entry in entries})


VARIATIONS: Mapping[str, Variation] = _table(
    Variation(name="clock", group="time", what="the clock: a leap day, years ahead, at another hour"),
    Variation(name="timezone", group="time", what="the time zone: 9 hours and a half behind UTC"),
    Variation(name="locale", group="language", what="language, formats and sorting: French, sorted by code point"),
    Variation(name="umask", group="user", what="the umask: 022 in place of 002"),
    Variation(name="user", group="user", what="the names of the user and its group"),
    Variation(name="uid", group="user", what="the numbers of the user and its group"),
    Variation(name="home", group="place", what="the home directory, with out, install and cache in it"),
    Variation(name="path", group="place", what="the directory in which it is built"),
    Variation(name="hostname", group="host", what="the machine's name"),
    Variation(name="domain", group="host", what="the machine's domain"),
    Variation(name="environment", group="environment",
              what="more variables, another order of them, another terminal, a longer PATH"),
    Variation(name="cores", group="machine", what="the number of processors, in NUM_PROCS and MAKEOPTS too"),
    Variation(name="memory", group="machine", what="the memory, in NUM_MEM too", implies=frozenset({"cold"})),
    Variation(name="file-order", group="files", what="the order in which directories are listed"),
    Variation(name="filesystem", group="files", what="the build directory's file system: tmpfs",
              implies=frozenset({"file-order"})),
    Variation(name="inputs", group="files", what="the inputs' time stamps and the order in which they were written"),
    Variation(name="aslr", group="process", what="addresses: no randomization"),
    Variation(name="pids", group="process", what="the numbers of processes: of five digits"),
    Variation(name="shell", group="environment", what="/bin/sh: bash in place of dash, or the other way"),
    Variation(name="cpu", group="machine", backends=_KVM, implies=frozenset({"cold"}),
              what="the model and the features of the processor"),
    Variation(name="kernel", group="machine", backends=_KVM, implies=frozenset({"cold"}),
              what="the kernel: that of another base image"),
    Variation(name="cold", group="machine", backends=_KVM, what="a machine that boots, in place of one that goes on"),
    Variation(name="seed", group="machine", usual=False, backends=frozenset(), what="random numbers"),
    Variation(name="upgrade", group="packages", usual=False, what="packages: upgraded to what the archive has now"),
    Variation(name="packages", group="packages", usual=False,
              what="packages: those of a peer's report (packages=FILE)"),
    Variation(name="usrmerge", group="packages", usual=False, backends=_KVM, what="/bin and /lib: links into /usr"),
)
GROUPS: frozenset[str] = frozenset(entry.group for entry in VARIATIONS.values())


def choose(text: str | None) -> tuple[Variation, ...]:
    """The variations that ``--vary TEXT`` asks for, in the table's order.

    Names and groups, by commas: 'time,cores'. With a '-' first, what is left out of those before it, or, at the
    beginning, of the usual ones: '-kernel'. 'all' is all of them, nothing the usual ones. A name comes before a group
    of that name. Raises UsageError: an unknown name, or nothing left.
    """
    usual = [name for name, entry in VARIATIONS.items() if entry.usual]
    words = [word.strip() for word in (text or "").split(",") if word.strip()]
    chosen: set[str] = set(usual) if not words or words[0].startswith("-") else set()
    for word in words:
        names = _named(word.removeprefix("-"), usual)
        if word.startswith("-"):
            chosen -= names
        else:
            chosen |= names
    if not chosen:
        raise UsageError(f"'--vary {text}' leaves no variation.", hint="'gitian vary --list' shows all of them.")
    return tuple(entry for name, entry in VARIATIONS.items() if name in chosen)


def named(text: str | None) -> frozenset[str]:
    """The variations that ``--vary TEXT`` asks for by their own names. Raises UsageError."""
    words = {word.strip() for word in (text or "").split(",")}
    return frozenset(entry.name for entry in choose(text) if entry.name in words)


def asked(text: str | None) -> frozenset[str]:
    """Those that it asks for by their names or their groups' ones; of a group, the usual ones. Raises UsageError.

    'all' asks for whatever works.
    """
    words = {word.strip() for word in (text or "").split(",")} - set(VARIATIONS)
    return named(text) | {entry.name for entry in choose(text) if entry.usual and entry.group in words}


def _named(word: str, usual: Iterable[str]) -> set[str]:
    if word == "all":
        return set(VARIATIONS)
    if word == "usual":
        return set(usual)
    if word in VARIATIONS:
        return {word}
    found = {name for name, entry in VARIATIONS.items() if entry.group == word}
    if not found:
        raise UsageError(f"'{word}' is no variation, and no group of variations.",
                         hint=f"They are: {', '.join(VARIATIONS)}. Groups: {', '.join(sorted(GROUPS))}.")
    return found


def available(variation: Variation, setting: Setting) -> str:
    """Why a variation cannot work here, in words that end a sentence; '' when it can."""
    if variation.name == "seed":
        return "every build has random numbers of its own already: repeat it with --repeat"
    if variation.name == "usrmerge":
        if setting.suite not in _UNMERGED:
            return f"{setting.suite} allows no other way: its /bin and /lib are always links into /usr"
        if setting.backend not in variation.backends:
            return "in a container's overlay directories cannot be merged: it takes a virtual machine (KVM)"
    if setting.backend not in variation.backends:
        return "a container has the host's: it takes a virtual machine (KVM)"
    if variation.name == "packages":
        return "it takes an environment: 'packages=FILE'"
    if variation.name == "kernel" and _other_kernel(setting) is None:
        return (f"'{setting.image_directory}' has no other kernel for {setting.architecture}: make a base image of "
                "another suite for KVM")
    if variation.name == "cold" and not setting.restored:
        return "every guest here boots: none goes on from a saved machine"
    if variation.name == "inputs" and not setting.inputs:
        return "the descriptor has no files and no remotes"
    if variation.name in ("upgrade", "usrmerge") and not setting.network:
        return "the guest has no network"
    return ""


def implied(variation: Variation, setting: Setting) -> frozenset[str]:
    """What else a variation changes here: ``implies``, and what its way of being made brings with it."""
    if variation.name == "cores" and _more_processors(setting) and setting.restored:
        return variation.implies | {"cold"}
    return variation.implies


def implications(settings: Iterable[Setting]) -> dict[str, frozenset[str]]:
    """What each variation implies for any of several targets."""
    every = tuple(settings)
    return {name: entry.implies.union(*(implied(entry, setting) for setting in every))
            for name, entry in VARIATIONS.items()}


def remarks(variation: Variation, setting: Setting) -> str:
    """What a variation does not reach here, in words that end a sentence; '' when there is nothing to say."""
    if variation.name == "cores" and setting.processors < 2 and setting.backend == "lxc":
        return "the guest has but one processor: only NUM_PROCS and MAKEOPTS differ"
    if variation.name == "clock" and setting.backend == "lxc":
        return "a container has the host's clock: programs are shown another one, static ones are not"
    if variation.name == "file-order":
        return "programs are shown another order; static ones are not, nor is what the C library lists by itself"
    if variation.name == "filesystem":
        return f"the build directory has room for {setting.memory // 2} MiB then (half of -m)"
    if variation.name == "memory" and setting.backend == "lxc":
        return "only NUM_MEM and /proc/meminfo differ"
    return ""


def changes_for(names: frozenset[str], setting: Setting, seed: int = 0, *, now: float | None = None,
                probed: Iterable[str] | None = None) -> Changes:
    """What a build with these variations is given; of no names, the usual build with its probes, whose
    processes are numbered from where those of every other build are.

    ``seed`` chooses among values that do as well as each other; ``now`` is the time in seconds since 1970; ``probed``
    are the variations that are asked for in the guest: all usual ones when None, and those of ``names`` in any case.
    Raises UsageError: a variation that is not known, or not available.
    """
    for name in sorted(names):
        if name not in VARIATIONS:
            raise UsageError(f"'{name}' is no variation.", hint="'gitian vary --list' shows all of them.")
        why = available(VARIATIONS[name], setting)
        if why:
            raise UsageError(f"The variation '{name}' does not work here: {why}.")
    asked = set(probed) if probed is not None else {name for name, entry in VARIATIONS.items()
                                                    if entry.usual and not available(entry, setting)}
    changes = Changes(names=names, probe=probe.probe_script(name for name in VARIATIONS if name in asked | names))
    processors = _processors(setting) if "cores" in names else None
    memory = _memory(setting) if "memory" in names else None
    moment = time.time() if now is None else now
    text = wrapper.wrapper(names, Circumstance(
        distro=setting.distro, backend=setting.backend, sudo=setting.sudo, seed=seed,
        offset=leap_day(moment, seed) - int(moment), memory=memory,
        single=processors == 1, room=setting.memory // 2))
    return replace(
        changes, wrapper=text, setarch=("-R",) if "aslr" in names else (), machine=_machine(names, setting),
        script=ScriptChanges(locale=wrapper.LOCALE if "locale" in names else None,
                             umask=0o022 if "umask" in names else None, processors=processors, memory=memory))


def leap_day(now: float, seed: int = 0) -> int:
    """A moment on a 29 February more than a year ahead, at another hour than ``now`` (seconds since 1970)."""
    here = datetime.datetime.fromtimestamp(now, datetime.UTC)
    year = here.year + 1
    while True:
        if year % 4 == 0 and (year % 100 != 0 or year % 400 == 0):
            day = datetime.datetime(year, 2, 29, (here.hour + 5 + seed % 13) % 24, here.minute, here.second,
                                    tzinfo=datetime.UTC)
            if day.timestamp() - now > 366 * 86400:
                return int(day.timestamp())
        year += 1


def _processors(setting: Setting) -> int:
    """Another number: one, or two where there is one."""
    return 1 if setting.processors > 1 else 2


def _memory(setting: Setting) -> int:
    """More than there was: a build that had enough still has (MiB)."""
    return setting.memory + 256


def _more_processors(setting: Setting) -> bool:
    """Whether another number of processors takes another machine."""
    return setting.backend == "kvm" and _processors(setting) > setting.processors


def _machine(names: frozenset[str], setting: Setting) -> MachineChanges | None:
    more = "cores" in names and _more_processors(setting)
    if setting.backend != "kvm" or not (more or names & {"cpu", "kernel", "memory", "cold"}):
        return None
    kernel, initrd = (_other_kernel(setting) if "kernel" in names else None) or (None, None)
    return MachineChanges(
        # A plain model, which every accelerator has without what emulation does badly (guest/qemu.py); the
        # real one has far more features.
        cpu="qemu64,cx16=off" if "cpu" in names else None,
        kernel=kernel, initrd=initrd, memory=_memory(setting) if "memory" in names else None,
        processors=2 if more else None)


def _other_kernel(setting: Setting) -> tuple[Path, Path] | None:
    """Kernel and initial RAM disk of another base image, whose kernel has another release."""
    own = _release(ImageFiles(directory=setting.image_directory, suite=setting.suite, arch=setting.architecture))
    for path in sorted(setting.image_directory.glob("base-*.vmlinuz")):
        suite, _, arch = path.name.removeprefix("base-").removesuffix(".vmlinuz").rpartition("-")
        files = ImageFiles(directory=setting.image_directory, suite=suite, arch=arch)
        # A kernel for amd64 runs programs for i386 too.
        if arch not in (setting.architecture, "amd64") or not suite or not files.initrd.is_file():
            continue
        release = _release(files)
        if release and release != own:
            return files.kernel, files.initrd
    return None


def _release(files: ImageFiles) -> str:
    try:
        record = files.read_record()
    except FormatError:
        return ""
    return str((record.kvm or {}).get("kernel_release") or "") if record is not None else ""
