"""Environments: what is installed in a guest when the script starts, as a file of its own that a build can be held to.

The format is described in docs/reference/environment-files.md, with a JSON Schema.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from gitian.errors import FormatError
from gitian.formats import jsonio
from gitian.formats.debversion import order
from gitian.formats.image_record import InstalledPackage
from gitian.formats.jsonio import Fields
from gitian.formats.manifest import Entry, Manifest
from gitian.formats.report import Report
from gitian.formats.yamlio import read_bounded
from gitian.names import check_directory_name, check_package, parse_deb_name, shown

#: What a file of this format calls itself.
FORMAT = "gitian-environment/1"

#: An environment of 600 packages is a file of 100 kB; more than this many bytes is no environment.
LIMIT = 16 * 2**20
TARGETS_LIMIT = 100
PACKAGES_LIMIT = 100_000
SOURCES_LIMIT = 1000

_LINE = re.compile(r"[ -~]{1,4096}")
_RELEASE = re.compile(r"[A-Za-z0-9][A-Za-z0-9.+~_-]{0,63}")
_NAMES_OF_AMD64 = ("amd64", "linux64")


@dataclass(frozen=True, slots=True, kw_only=True)
class Kernel:
    """The kernel that a virtual machine is started with, and the packages that it and its RAM disk come from."""

    release: str
    packages: tuple[InstalledPackage, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Environment:
    """What is installed in the guest of one target.

    ``distro`` is '' where a report, which does not name it, is all there is; ``architecture`` is the guest's dpkg's
    (amd64, i386); ``packages`` are sorted by the names of their files, one version of each. ``base`` is the SHA-256 of
    the root filesystem that is made of exactly these packages, None when nobody has made it; ``sources`` are the lines
    of sources.list that the packages came from.
    """

    distro: str
    suite: str
    architecture: str
    packages: tuple[InstalledPackage, ...]
    base: str | None = None
    kernel: Kernel | None = None
    sources: tuple[str, ...] = ()

    @property
    def label(self) -> str:
        """'<suite>-<architecture>', the architecture as dpkg calls it."""
        return f"{self.suite}-{self.architecture}"

    def manifest(self) -> str:
        """The environment's manifest, as a report has it: lines '<sha256>  <file of the package>', sorted by file."""
        return "".join(f"{package.sha256}  {package.file_name}\n" for package in by_file_name(self.packages))


@dataclass(frozen=True, slots=True, kw_only=True)
class EnvironmentFile:
    """The environments of one build, one for each target, sorted by suite and architecture."""

    environments: tuple[Environment, ...]

    @classmethod
    def parse(cls, data: bytes, source: str) -> EnvironmentFile:
        """Read an environment file, in whatever layout and order. Raises FormatError, which names ``source``."""
        document = Fields(jsonio.loads(data, source, "environment", limit=LIMIT), source)
        marker = document.text("format")
        if marker != FORMAT:
            raise FormatError(f"{source}: the format is {shown(marker)}, not '{FORMAT}'.",
                              hint="Was it written by a newer version of gitian?")
        document.only("format", "environments")
        found = [_environment(fields, f"{source}.environments[{number}]")
                 for number, fields in enumerate(document.objects("environments", most=TARGETS_LIMIT))]
        return cls(environments=_each_once(found, source))

    @classmethod
    def read(cls, path: Path) -> EnvironmentFile:
        """Read an environment file from the disk. Raises FormatError."""
        return cls.parse(read_bounded(path, "environment"), str(path))

    def to_json(self) -> bytes:
        """The file's bytes, the same ones for the same environments: sorted, ASCII, a line for each package.

        Raises FormatError: what could not be read again.
        """
        for environment in _each_once(self.environments, "environment"):
            _check(environment, environment.label)
        parts = ",\n".join(_text_of(environment) for environment in sorted(self.environments, key=_place))
        return f'{{"format": {_json(FORMAT)},\n "environments": [\n{parts}\n ]}}\n'.encode("ascii")


def by_file_name(packages: Iterable[InstalledPackage]) -> tuple[InstalledPackage, ...]:
    """Packages in the order of a manifest."""
    return tuple(sorted(packages, key=lambda package: package.file_name))


def of_report(report: Report, *, distro: str = "", source: str = "report") -> tuple[Environment, ...]:
    """The environments that a report or assertion records, sorted by suite and architecture.

    The classic's manifests list whatever .debs lay in apt's cache; apt installs the newest, so the newest one of each
    package counts. Raises FormatError: none are recorded, a line that is no package's, two newest of one package.
    """
    if not report.base_manifests:
        raise FormatError(f"{source}: no environment is recorded here.")
    if len(report.base_manifests) > TARGETS_LIMIT:
        raise FormatError(f"{source}: it records more than {TARGETS_LIMIT} environments.")
    found = []
    for label, text in report.base_manifests:
        where = f"{source}: base_manifests.{label[:80]}"
        suite, _, architecture = label.rpartition("-")
        architecture = "amd64" if architecture in _NAMES_OF_AMD64 else architecture
        environment = Environment(distro=distro, suite=suite, architecture=architecture,
                                  packages=_newest(_listed(text, where), architecture, where))
        _check(environment, where)
        if environment not in found:  # targets amd64 and linux64 have the same guest
            found.append(environment)
    return _each_once(found, source)


def read_any(path: Path, *, distro: str = "") -> EnvironmentFile:
    """The environments that an environment file, a report or an assertion states.

    ``distro`` is the distribution of those of a report, which does not say. Raises FormatError.
    """
    data = read_bounded(path, "environment")
    if data.lstrip()[:1] == b"{":
        return EnvironmentFile.parse(data, str(path))
    return EnvironmentFile(environments=of_report(Report.parse(data, str(path)), distro=distro, source=str(path)))


def _listed(text: str, where: str) -> list[InstalledPackage]:
    manifest = Manifest.parse(text)
    strange = [*manifest.strange, *(f"git:{remote.commit} {remote.dir}" for remote in manifest.remotes)]
    if len(manifest.entries) > PACKAGES_LIMIT:
        raise FormatError(f"{where}: it lists more than {PACKAGES_LIMIT} packages.")
    found = []
    for entry in manifest.entries:
        parsed = parse_deb_name(entry.path)
        if parsed is None:
            strange.append(_line(entry))
        else:
            name, version, architecture = parsed
            found.append(InstalledPackage(name=name, architecture=architecture, version=version, sha256=entry.sha256))
    if strange:
        raise FormatError(f"{where}: the line {shown(strange[0])} is no package's.",
                          hint="Such a line is '<sha256>  <name>_<version>_<architecture>.deb'.")
    return found


def _line(entry: Entry) -> str:
    return f"{entry.sha256}  {entry.path}"


def _newest(packages: Iterable[InstalledPackage], own: str, where: str) -> tuple[InstalledPackage, ...]:
    newest: dict[tuple[str, str], InstalledPackage] = {}
    for package in packages:
        key = package.identity(own)
        held = newest.get(key)
        if held is None or order(held.version) < order(package.version):
            newest[key] = package
    for package in packages:
        held = newest[package.identity(own)]
        if held != package and order(held.version) == order(package.version):
            raise FormatError(f"{where}: '{package.name}' {package.version} stands there twice, and differs.",
                              hint="Which of the two was installed cannot be told.")
    return by_file_name(newest.values())


def _place(environment: Environment) -> tuple[str, str]:
    return environment.suite, environment.architecture


def _each_once(environments: Iterable[Environment], source: str) -> tuple[Environment, ...]:
    found: dict[tuple[str, str], Environment] = {}
    for environment in environments:
        if found.setdefault(_place(environment), environment) is not environment:
            raise FormatError(f"{source}: there are two environments of '{environment.label}'.")
    if not found:
        raise FormatError(f"{source}: there is no environment in it.")
    return tuple(found[place] for place in sorted(found))


def _environment(fields: Fields, where: str) -> Environment:
    fields.only("distro", "suite", "architecture", "base", "kernel", "sources", "packages")
    found = Environment(
        distro=fields.text("distro"), suite=fields.text("suite"), architecture=fields.text("architecture"),
        base=_base(fields), kernel=_kernel(fields, where), sources=_sources(fields, where),
        packages=_packages(fields))
    _check(found, where)
    return replace(found, packages=by_file_name(found.packages))


def _base(fields: Fields) -> str | None:
    if fields.raw("base") is None:
        return None
    base = fields.object("base")
    base.only("sha256")
    return base.sha256("sha256")


def _kernel(fields: Fields, where: str) -> Kernel | None:
    if fields.raw("kernel") is None:
        return None
    kernel = fields.object("kernel")
    kernel.only("release", "packages")
    return Kernel(release=kernel.text("release"), packages=by_file_name(_packages(kernel)))


def _sources(fields: Fields, where: str) -> tuple[str, ...]:
    values = fields.raw("sources")
    if not isinstance(values, list) or len(values) > SOURCES_LIMIT or not all(isinstance(v, str) for v in values):
        raise FormatError(f"{where}: 'sources' should be a list of at most {SOURCES_LIMIT} texts.")
    return tuple(values)


def _packages(fields: Fields) -> tuple[InstalledPackage, ...]:
    found = []
    for package in fields.objects("packages", most=PACKAGES_LIMIT):
        package.only("name", "version", "architecture", "sha256")
        found.append(InstalledPackage(name=package.text("name"), version=package.text("version"),
                                      architecture=package.text("architecture"), sha256=package.sha256("sha256")))
    return tuple(found)


def _check(environment: Environment, where: str) -> None:
    """Refuse what no guest has. Raises FormatError."""
    if environment.distro:
        _checked(check_directory_name, environment.distro, f"{where}: 'distro'")
    _checked(check_directory_name, environment.suite, f"{where}: 'suite'")
    try:
        check_package("none", "0", environment.architecture)
    except ValueError as error:
        raise FormatError(f"{where}: 'architecture': {error}.") from error
    for line in environment.sources:
        if _LINE.fullmatch(line) is None:
            raise FormatError(f"{where}: 'sources' should hold lines of printable ASCII, and {shown(line)} is none.")
    _check_packages(environment.packages, environment.architecture, f"{where}.packages")
    if environment.kernel is not None:
        if _RELEASE.fullmatch(environment.kernel.release) is None:
            raise FormatError(f"{where}.kernel: {shown(environment.kernel.release)} is no kernel's release.")
        _check_packages(environment.kernel.packages, environment.architecture, f"{where}.kernel.packages")


def _check_packages(packages: tuple[InstalledPackage, ...], own: str, where: str) -> None:
    if not packages:
        raise FormatError(f"{where}: there are none.")
    seen: dict[tuple[str, str], InstalledPackage] = {}
    by_hash: dict[str, InstalledPackage] = {}
    for package in packages:
        try:
            check_package(package.name, package.version, package.architecture)
        except ValueError as error:
            raise FormatError(f"{where}: {error}.") from error
        if seen.setdefault(package.identity(own), package) is not package:
            raise FormatError(f"{where}: '{package.name}' ({package.architecture}) stands there twice.")
        other = by_hash.setdefault(package.sha256, package)
        if other is not package:
            raise FormatError(f"{where}: '{other.name}' and '{package.name}' have the same SHA-256.",
                              hint="A package's name is in its file, so that no file is two packages.")


def _checked(check: Callable[[str], str], text: str, where: str) -> None:
    try:
        check(text)
    except ValueError as error:
        raise FormatError(f"{where}: {error}.") from error


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=True, allow_nan=False)


def _text_of(environment: Environment) -> str:
    base = None if environment.base is None else {"sha256": environment.base}
    kernel = "null" if environment.kernel is None else (
        f'{{"release": {_json(environment.kernel.release)}, "packages": {_lines_of(environment.kernel.packages)}}}')
    sources = "[" + ",".join(f"\n    {_json(line)}" for line in environment.sources) + "]"
    return (f'  {{"distro": {_json(environment.distro)},\n'
            f'   "suite": {_json(environment.suite)},\n'
            f'   "architecture": {_json(environment.architecture)},\n'
            f'   "base": {_json(base)},\n'
            f'   "kernel": {kernel},\n'
            f'   "sources": {sources},\n'
            f'   "packages": {_lines_of(environment.packages)}}}')


def _lines_of(packages: Iterable[InstalledPackage]) -> str:
    return "[" + ",".join("\n    " + _json({
        "name": package.name, "version": package.version, "architecture": package.architecture,
        "sha256": package.sha256}) for package in by_file_name(packages)) + "]"
