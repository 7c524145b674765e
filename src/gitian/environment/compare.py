"""How two environments differ: packages added, removed and changed, and what else is stated of them. Pure."""

from __future__ import annotations

import enum
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from gitian.formats.environment import Environment, EnvironmentFile
from gitian.formats.image_record import InstalledPackage


class Subject(enum.StrEnum):
    """What has changed. The value is the word that is printed."""

    DISTRO = "distro"
    BASE = "base"
    KERNEL = "kernel"
    KERNEL_PACKAGE = "kernel package"
    SOURCE = "source"
    PACKAGE = "package"


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """Something that differs. ``old`` is None for what was added, ``new`` for what was removed.

    Of a package they are versions, and ``old_package`` and ``new_package`` say all; with one version on both sides its
    file is another one. Of the rest they are what is stated. ``name`` is the package's, else ''.
    """

    subject: Subject
    old: str | None
    new: str | None
    name: str = ""
    old_package: InstalledPackage | None = None
    new_package: InstalledPackage | None = None

    @property
    def sign(self) -> str:
        """'+' added, '-' removed, '~' changed."""
        return "+" if self.old is None else "-" if self.new is None else "~"


@dataclass(frozen=True, slots=True, kw_only=True)
class TargetDifference:
    """The changes of one target. ``old`` or ``new`` is None where only one side has the target at all."""

    label: str
    old: Environment | None
    new: Environment | None
    changes: tuple[Change, ...] = ()

    @property
    def equal(self) -> bool:
        """Whether both sides have the target, and nothing differs."""
        return self.old is not None and self.new is not None and not self.changes


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """All targets of either side, sorted."""

    targets: tuple[TargetDifference, ...]

    @property
    def equal(self) -> bool:
        """Whether nothing differs. What only one side states, but for packages and targets, is no difference."""
        return all(target.equal for target in self.targets)

    @property
    def changes(self) -> tuple[Change, ...]:
        """Those of all targets."""
        return tuple(change for target in self.targets for change in target.changes)


def compare(old: EnvironmentFile, new: EnvironmentFile) -> Difference:
    """What must change for ``old`` to become ``new``."""
    ours = {(one.suite, one.architecture): one for one in old.environments}
    theirs = {(one.suite, one.architecture): one for one in new.environments}
    found = []
    for place in sorted(ours.keys() | theirs.keys()):
        one, other = ours.get(place), theirs.get(place)
        changes = () if one is None or other is None else compare_targets(one, other)
        found.append(TargetDifference(label="-".join(place), old=one, new=other, changes=changes))
    return Difference(targets=tuple(found))


def compare_targets(old: Environment, new: Environment) -> tuple[Change, ...]:
    """The changes of one target: packages by name, then what is stated besides.

    Reports state neither distro, base, kernel nor sources: what one side leaves open is no change.
    """
    changes = list(_packages(old.packages, new.packages, old.architecture, Subject.PACKAGE))
    if old.distro and new.distro and old.distro != new.distro:
        changes.append(Change(subject=Subject.DISTRO, old=old.distro, new=new.distro))
    if old.base is not None and new.base is not None and old.base != new.base:
        changes.append(Change(subject=Subject.BASE, old=old.base, new=new.base))
    if old.kernel is not None and new.kernel is not None:
        if old.kernel.release != new.kernel.release:
            changes.append(Change(subject=Subject.KERNEL, old=old.kernel.release, new=new.kernel.release))
        changes += _packages(old.kernel.packages, new.kernel.packages, old.architecture, Subject.KERNEL_PACKAGE)
    if old.sources and new.sources:  # the order in which they stand decides nothing about what is installed
        changes += [Change(subject=Subject.SOURCE, old=line, new=None)
                    for line in dict.fromkeys(old.sources) if line not in new.sources]
        changes += [Change(subject=Subject.SOURCE, old=None, new=line)
                    for line in dict.fromkeys(new.sources) if line not in old.sources]
    return tuple(changes)


def _packages(old: Sequence[InstalledPackage], new: Sequence[InstalledPackage], own: str,
              subject: Subject) -> Iterator[Change]:
    ours = {package.identity(own): package for package in old}
    theirs = {package.identity(own): package for package in new}
    for key in sorted(ours.keys() | theirs.keys()):
        one, other = ours.get(key), theirs.get(key)
        if one != other:
            yield Change(subject=subject, name=key[0], old=None if one is None else one.version,
                         new=None if other is None else other.version, old_package=one, new_package=other)
