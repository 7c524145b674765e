"""Descriptor and options become a plan: what is built, in which guests, from which commits. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from gitian import names
from gitian.errors import InputError, UsageError
from gitian.formats.descriptor import ARCHITECTURES, Descriptor, Remote


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What gbuild was asked for besides the descriptor. ``memory`` is in MiB; ``commits`` and ``urls`` go by dir.

    ``pinned`` are commits that win over those of the descriptor too: the recorded ones of a rebuild.
    """

    commits: Mapping[str, str] = field(default_factory=dict)
    urls: Mapping[str, str] = field(default_factory=dict)
    pinned: Mapping[str, str] = field(default_factory=dict)
    allow_sudo: bool = False
    skip_image: bool = False
    upgrade: bool = False
    quiet: bool = False
    num_make: int = 2
    memory: int = 2000
    cache_read_only: bool = False
    skip_fetch: bool = False
    fetch_branches: bool = False
    fetch_tags: bool = False
    skip_cleanup: bool = False
    layers: bool = True
    offline: bool = False
    no_network: bool = False
    parallel: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """One (suite, architecture) of a descriptor, built in one guest."""

    suite: str
    architecture: str
    distro: str

    @property
    def label(self) -> str:
        """'<suite>-<architecture>', its key in the report and in var/."""
        return f"{self.suite}-{self.architecture}"

    @property
    def bits(self) -> int:
        """32 or 64."""
        return ARCHITECTURES[self.architecture][0]

    @property
    def setarch(self) -> str:
        """What setarch is given before the build script runs."""
        return ARCHITECTURES[self.architecture][1]

    @property
    def dpkg_arch(self) -> str:
        """The architecture of the guest, as its dpkg calls it: i386 or amd64."""
        return ARCHITECTURES[self.architecture][2]


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannedRemote:
    """A remote whose commit (or tag) and url are decided."""

    url: str
    dir: str
    commit: str


@dataclass(frozen=True, slots=True, kw_only=True)
class BuildPlan:
    """Everything that gbuild is going to do. ``sudo`` is true when both the descriptor and the user want it."""

    descriptor: Descriptor
    options: Options
    targets: tuple[Target, ...]
    remotes: tuple[PlannedRemote, ...]
    sudo: bool
    notes: tuple[str, ...] = ()

    @property
    def network(self) -> bool:
        """Whether the script has the network: not if the descriptor or the user does without."""
        return self.descriptor.network and not self.options.no_network

    @property
    def name(self) -> str:
        return self.descriptor.name

    @property
    def distro(self) -> str:
        return self.descriptor.distro


def parse_assignments(texts: Iterable[str], option: str) -> dict[str, str]:
    """'DIR=VALUE,DIR=VALUE', perhaps several times, as -c and -u take it. Raises UsageError."""
    found: dict[str, str] = {}
    for item in (item for text in texts for item in text.split(",")):
        if not item.strip():
            continue
        key, equals, value = item.partition("=")
        if not equals or not key or not value:
            raise UsageError(f"The option {option} takes DIR=VALUE, not '{item}'.",
                             hint=f"For example: {option} foo=v1.0,bar=v2.1")
        found[key] = value
    return found


def make_plan(descriptor: Descriptor, options: Options, *, commits: bool = True) -> BuildPlan:
    """Decide what is going to be done; without ``commits``, what needs no remote's commit.

    Raises UsageError: numbers that make no sense, a -c or -u for no remote, a commit or url that is unsafe.
    Raises InputError: a remote whose commit nobody gave.
    """
    _check_numbers(options)
    _check_directories(descriptor.remotes, options)
    targets = tuple(Target(suite=suite, architecture=architecture, distro=descriptor.distro)
                    for suite in descriptor.suites for architecture in descriptor.architectures)
    remotes = tuple(_planned(remote, options) for remote in descriptor.remotes)
    without = [remote.dir for remote in remotes if not remote.commit]
    if without and commits:
        wanted = ",".join(f"{name}=COMMIT" for name in without)
        raise InputError(f"There is no commit for {_listed('remote', without)} of '{descriptor.name}'.",
                         hint=f"Say which commit or tag to build: -c {wanted}")
    notes = list(descriptor.notes)
    if descriptor.sudo and not options.allow_sudo:
        notes.append("The descriptor asks for sudo in the guest, which it gets only with --allow-sudo.")
    return BuildPlan(descriptor=descriptor, options=options, targets=targets, remotes=remotes,
                     sudo=descriptor.sudo and options.allow_sudo, notes=tuple(notes))


def _planned(remote: Remote, options: Options) -> PlannedRemote:
    # The descriptor's own commit wins over -c, as in the classic; for the url it is the other way round.
    commit = options.pinned.get(remote.dir) or remote.commit or options.commits.get(remote.dir, "")
    return PlannedRemote(url=options.urls.get(remote.dir, remote.url), dir=remote.dir, commit=commit)


def _check_numbers(options: Options) -> None:
    if options.num_make < 1:
        raise UsageError(f"The number of make processes (-j) must be at least 1, not {options.num_make}.")
    if options.memory < 1:
        raise UsageError(f"The memory (-m, in MiB) must be at least 1, not {options.memory}.")


def _check_directories(remotes: tuple[Remote, ...], options: Options) -> None:
    known = [remote.dir for remote in remotes]
    for option, values, check in (("-c", options.commits, names.check_name), ("-u", options.urls, names.check_url)):
        strange = [name for name in values if name not in known]
        if strange:
            there = f"It has {_listed('remote', known)}." if known else "It has no remotes."
            raise UsageError(f"The descriptor has no {_listed('remote', strange)}, which {option} names.", hint=there)
        for name, value in values.items():
            try:
                check(value)
            except ValueError as error:
                raise UsageError(f"{option} {name}: {error}.") from error


def _listed(noun: str, items: list[str]) -> str:
    return f"{noun}{'s' if len(items) > 1 else ''} " + ", ".join(f"'{item}'" for item in items)
