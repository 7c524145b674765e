"""The descriptor: the YAML file that says what to build and in which guest.

Everything is checked before anything is done, and every problem is reported at once. Keys that nobody knows are kept
as notes, for a typing error there would otherwise go unseen. Format: docs/reference/descriptor.md.
"""

from __future__ import annotations

import difflib
import hashlib
import re
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from gitian import names
from gitian.errors import DescriptorError, FormatError
from gitian.formats import yamlio
from gitian.formats.deblines import deb_words
from gitian.formats.fields import Fields, Problems
from gitian.formats.yamlio import MappingNode, ScalarNode, Value

#: Architecture to (bits of the guest, what setarch is given, what the guest's dpkg calls it).
ARCHITECTURES = {"i386": (32, "i386", "i386"), "amd64": (64, "x86_64", "amd64"), "linux64": (64, "linux64", "amd64")}

_KEYS = ("name", "suites", "architectures", "packages", "remotes", "files", "script", "distro", "reference_datetime",
         "enable_cache", "multiarch", "repositories", "alternatives", "sudo", "network", "optionals",
         "docker_image_digests")
_PACKAGE = re.compile(r"[a-z0-9A-Z][A-Za-z0-9+.:~_*?^=/-]*[+-]?")
_DISTRO = re.compile(r"[a-z][a-z0-9_-]*")
_PRINTABLE = re.compile(r"[ -~]+")
_UTF7_QUOTE = b": +ACI-"


@dataclass(frozen=True, slots=True, kw_only=True)
class Remote:
    """A git repository, cloned to inputs/<dir> and copied to build/<dir> in the guest."""

    url: str
    dir: str
    commit: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Repository:
    """An additional apt source, and the packages to install from its distribution ('apt-get -t')."""

    distribution: str
    source: str
    packages: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Alternative:
    """What 'update-alternatives --set package path' is told in the guest."""

    package: str
    path: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """The little of a descriptor that gsign and gverify need; the rest of it is not looked at.

    ``name_value`` is the name as Ruby reads it (22 and yes are no texts to it); ``optionals`` likewise.
    """

    name: str
    name_value: Value
    optionals: Value
    sha256: str

    @classmethod
    def parse(cls, data: bytes, source: str) -> Identity:
        """Raises DescriptorError: no YAML, or no usable name."""
        top, problems = _top(data, source)
        name = top.text("name", names.check_directory_name, required=True, hint=_NAME_HINT)
        problems.raise_if_any()
        assert name is not None
        try:
            optionals = yamlio.resolve(top.nodes["optionals"], source) if "optionals" in top.nodes else None
        except FormatError as error:
            raise DescriptorError(str(error), hint=error.hint) from error
        return cls(name=name, name_value=_value_of(top.nodes["name"], source), optionals=optionals,
                   sha256=hashlib.sha256(data).hexdigest())

    @classmethod
    def read(cls, path: Path) -> Identity:
        """Read from a file. Raises DescriptorError."""
        return cls.parse(_read(path), str(path))


@dataclass(frozen=True, slots=True, kw_only=True)
class Descriptor:
    """A descriptor that can be built. Texts are as they stand in the file: an unquoted 1.10 is '1.10'.

    ``source`` names the file; ``sha256`` is that of its bytes; ``optionals`` and ``name_value`` are values as Ruby
    reads them, for the assertion; ``notes`` are remarks for the user (keys that nobody knows).
    """

    source: str
    sha256: str
    name: str
    suites: tuple[str, ...]
    architectures: tuple[str, ...]
    distro: str = "ubuntu"
    packages: tuple[str, ...] = ()
    remotes: tuple[Remote, ...] = ()
    files: tuple[str, ...] = ()
    script: str = ""
    reference_datetime: str | None = None
    enable_cache: bool = False
    multiarch: tuple[str, ...] = ()
    repositories: tuple[Repository, ...] = ()
    alternatives: tuple[Alternative, ...] = ()
    sudo: bool = False
    network: bool = True
    optionals: Value = None
    name_value: Value = None
    notes: tuple[str, ...] = ()

    @classmethod
    def parse(cls, data: bytes, source: str) -> Descriptor:
        """Read a descriptor; ``source`` names the file in messages.

        Raises DescriptorError with every problem: '<file>:<line>: <key>: <what>'.
        """
        top, problems = _top(data, source)
        name = top.text("name", names.check_directory_name, required=True, hint=_NAME_HINT)
        suites = _once(top.texts("suites", names.check_directory_name, required=True,
                                 hint='List the suites to build for, such as - "bookworm".'))
        architectures = _once(top.texts("architectures", _check_architecture, required=True,
                                        hint=f"List the architectures to build for, of {', '.join(ARCHITECTURES)}."))
        if top.has("docker_image_digests") and len(top.items("docker_image_digests")) != len(top.items("suites")):
            problems.add(top.lines["docker_image_digests"], "docker_image_digests", "must have one item per suite",
                         "Images are not made with Docker here: leave 'docker_image_digests' out.")
        remotes = _remotes(top)
        reference = top.text("reference_datetime", _check_datetime)
        if not top.has("reference_datetime") and (not top.has("remotes") or not top.items("remotes")):
            problems.add(top.line, "reference_datetime", "is missing, and there is no remote to take a date from",
                         'Add a line like this: reference_datetime: "2011-01-30 00:00:00"')
        script = top.text("script")
        packages = _packages(top)
        files = top.texts("files", names.check_file_name)
        multiarch = top.texts("multiarch", names.check_directory_name)
        repositories, alternatives = _repositories(top), _alternatives(top)
        enable_cache, sudo = top.truth("enable_cache"), top.truth("sudo")
        network = _network(top)
        distro = top.text("distro", _check_distro)
        try:
            optionals = yamlio.resolve(top.nodes["optionals"], source) if "optionals" in top.nodes else None
        except FormatError as error:
            problems.add(top.lines["optionals"], "optionals", str(error), error.hint)
            optionals = None
        problems.raise_if_any()
        assert name is not None
        return cls(source=source, sha256=hashlib.sha256(data).hexdigest(), name=name, suites=suites,
                   architectures=architectures, distro=distro or "ubuntu", packages=packages, remotes=remotes,
                   files=files, script=script or "", reference_datetime=reference, enable_cache=enable_cache,
                   multiarch=multiarch, repositories=repositories, alternatives=alternatives, sudo=sudo,
                   network=network, optionals=optionals, name_value=_value_of(top.nodes["name"], source),
                   notes=_notes(top, source))

    @classmethod
    def read(cls, path: Path) -> Descriptor:
        """Read a descriptor from a file. Raises DescriptorError."""
        return cls.parse(_read(path), str(path))


_NAME_HINT = 'Add a line like this: name: "hello"'


def _read(path: Path) -> bytes:
    try:
        return yamlio.read_bounded(path, "descriptor")
    except FormatError as error:
        raise DescriptorError(str(error), hint="Give the path of a descriptor, a YAML file (*.yml).") from error


def _top(data: bytes, source: str) -> tuple[Fields, Problems]:
    problems = Problems(source)
    try:
        node = yamlio.parse(data, source)
    except FormatError as error:
        raise DescriptorError(str(error), hint=error.hint) from error
    if node is None:
        raise DescriptorError(f"{source}:1: name: the descriptor is empty.", hint=_NAME_HINT)
    if not isinstance(node, MappingNode):
        raise DescriptorError(f"{source}:{node.line}: name: the descriptor is not a mapping of keys to values.",
                              hint="It should start with a line like this: name: \"hello\"")
    if _UTF7_QUOTE in data:
        problems.general_hint = "The file seems to be written in UTF-7 ('+ACI-' is a quote there); save it as UTF-8."
    return Fields(node, problems), problems


def _value_of(node: yamlio.Node, source: str) -> Value:
    """As Ruby reads it; what its safe loader refuses (a date) stays text."""
    try:
        return yamlio.resolve(node, source)
    except FormatError:
        return node.text if isinstance(node, ScalarNode) else None


def _remotes(top: Fields) -> tuple[Remote, ...]:
    found: list[Remote] = []
    for fields in top.mappings("remotes", '- "url": "https://example.org/foo.git"'):
        url = fields.text("url", names.check_url, required=True, hint="A remote needs a 'url' and a 'dir'.")
        name = fields.text("dir", names.check_directory_name, required=True,
                           hint="A remote needs a 'url' and a 'dir'.")
        commit = fields.text("commit", names.check_name)
        if url is None or name is None:
            continue
        remote = Remote(url=url, dir=name, commit=commit)
        if name in [other.dir for other in found if other != remote]:
            top.problems.add(fields.lines["dir"], fields.at("dir"),
                             f"{names.shown(name)} is the directory of another remote")
        elif remote not in found:
            found.append(remote)
    return tuple(found)


def _network(top: Fields) -> bool:
    """Whether the script has the network; a key that says nothing is not left to guesses."""
    if "network" not in top.nodes:
        return True
    if not top.has("network"):
        top.missing("network", "Write 'network: false' for a script that is to have no network.")
        return True
    return top.truth("network")


def _repositories(top: Fields) -> tuple[Repository, ...]:
    found: list[Repository] = []
    example = '- {distribution: "bullseye-backports", source: "deb http://... bullseye-backports main", packages: []}'
    for fields in top.mappings("repositories", example):
        distribution = fields.text("distribution", names.check_path, required=True)
        source = fields.text("source", _check_source, required=True)
        packages = _packages(fields)
        if distribution is not None and source is not None:
            found.append(Repository(distribution=distribution, source=source, packages=packages))
    return tuple(found)


def _alternatives(top: Fields) -> tuple[Alternative, ...]:
    found: list[Alternative] = []
    for fields in top.mappings("alternatives", '- {package: "gcc", path: "/usr/bin/gcc-12"}'):
        package = fields.text("package", names.check_path, required=True)
        path = fields.text("path", names.check_path, required=True)
        if package is not None and path is not None:
            found.append(Alternative(package=package, path=path))
    return tuple(found)


def _packages(fields: Fields) -> tuple[str, ...]:
    """Package names; the classic hands the list to a shell, so one item may hold several words."""
    return tuple(word for item in fields.texts("packages", _check_packages) for word in item.split())


def _once(values: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(values))


def _check_architecture(text: str) -> str:
    if text not in ARCHITECTURES:
        raise ValueError(f"{names.shown(text)} is no known architecture; it must be one of {', '.join(ARCHITECTURES)}")
    return text


def _check_packages(text: str) -> str:
    if not text.split() or not all(_PACKAGE.fullmatch(word) for word in text.split()):
        raise ValueError(f"{names.shown(text)} is not the name of a package")
    return text


def _check_source(text: str) -> str:
    if not _PRINTABLE.fullmatch(text):
        raise ValueError("must be one line of printable ASCII characters, as in sources.list")
    words = deb_words(re.sub(r"^\s*deb-src\s", "deb ", text))
    if len(words) > 1:
        try:
            _ = urlsplit(words[1]).port
        except ValueError as error:  # a port or a bracketed address that is none
            raise ValueError(f"{names.shown(words[1])} is no URL: {error}") from error
    return text


def _check_distro(text: str) -> str:
    if not _DISTRO.fullmatch(text) or text == "root":
        raise ValueError(f"{names.shown(text)} is no distro; it is the name of the guest's user too, "
                         "such as debian or ubuntu")
    return text


def _check_datetime(text: str) -> str:
    if not text.split() or not _PRINTABLE.fullmatch(text) or "'" in text:  # the build script puts it in quotes
        raise ValueError(f"{names.shown(text)} is not a date and time; write it like this: \"2011-01-30 00:00:00\"")
    return text


def _notes(top: Fields, source: str) -> tuple[str, ...]:
    notes = []
    for key in top.nodes:
        if key not in _KEYS:
            near = difflib.get_close_matches(key, _KEYS, n=1, cutoff=0.8)
            notes.append(f"{source}:{top.lines[key]}: {names.shown(key)[1:-1]}: is no known key and has no effect"
                         + (f"; did you mean '{near[0]}'?" if near else "."))
    if not top.has("script"):
        notes.append(f"{source}:{top.line}: script: is missing, so nothing will be built.")
    return tuple(notes)
