"""Results of rebuilds: the draft 'Reproducible Builds Verification Format', and what its critics missed in it.

The draft's fields keep their names and meanings. Added: a primary key, who rebuilt, artifacts that are always there and
lie below the record of the environment that they were made in, with the hashes of the rebuild and of the origin. Files
of the bare draft are read too. Source: the draft of A. Spooren (2019), and its discussion on the reproducible builds
list of May 2020. Our page: docs/reference/rbvf.md; the schema: share/rbvf.schema.json.
"""

from __future__ import annotations

import enum
import gzip
import re
import urllib.parse
import zlib
from dataclasses import dataclass, field
from typing import Any

from gitian.errors import FormatError
from gitian.formats import jsonio
from gitian.formats.jsonio import SHA256, Fields

FORMAT = "urn:gitian:rbvf:v1"

#: As it lies on disk, and unpacked (bytes).
FILE_LIMIT = 32 * 2**20
LIMIT = 64 * 2**20
RESULTS_LIMIT = 100_000
_FILES_LIMIT = 100_000

#: rustc's names of what our architectures build for.
TRIPLES = {"amd64": "x86_64-unknown-linux-gnu", "linux64": "x86_64-unknown-linux-gnu",
           "i386": "i686-unknown-linux-gnu"}
URIS = ("buildlog_uri", "diffoscope_html_uri", "diffoscope_json_uri", "binary_uri")

_ORIGIN = re.compile(r"[A-Za-z0-9_.+-]{1,100}")


class Status(enum.Enum):
    """What came of a rebuild, in the draft's words."""

    REPRODUCIBLE = "reproducible"
    UNREPRODUCIBLE = "unreproducible"
    BUILDFAIL = "buildfail"
    NOTFOUND = "notfound"
    TIMEOUT = "timeout"
    BLOCKED = "blocked"
    NOTFORUS = "notforus"
    UNTESTED = "untested"
    DEPWAIT = "depwait"


#: Something was built and compared.
TESTED = frozenset({Status.REPRODUCIBLE, Status.UNREPRODUCIBLE})


@dataclass(frozen=True, slots=True, kw_only=True)
class Artifact:
    """A file that was built. ``sha256`` is None where the rebuild lacks it, ``origin`` where the initial build does.

    ``compared`` is false when nobody looked at the initial build's: ``origin`` means nothing then.
    """

    path: str
    sha256: str | None
    origin: str | None = None
    compared: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Environment:
    """What was made in one environment: the record's name and SHA-256, and how many packages it lists."""

    name: str
    sha256: str
    packages: int
    artifacts: tuple[Artifact, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """One rebuild of one package for one target.

    ``build_date`` is in seconds since 1970, 0 when it is not known; ``build_duration`` in seconds. ``key`` is the
    rebuilder's, '' when it is not known. ``uris`` are the draft's, such as ('buildlog_uri', 'https://...').
    """

    suite: str
    component: str
    target: str
    architecture: str
    name: str
    version: str
    status: Status
    rebuilder: str = ""
    key: str = ""
    detail: str = ""
    environments: tuple[Environment, ...] = ()
    uris: tuple[tuple[str, str], ...] = ()
    build_date: int = 0
    build_duration: int | None = None

    @property
    def what(self) -> tuple[str, ...]:
        """What was rebuilt, whoever did it."""
        return self.suite, self.component, self.target, self.architecture, self.name, self.version

    @property
    def artifacts(self) -> tuple[Artifact, ...]:
        """The files of all environments."""
        return tuple(artifact for environment in self.environments for artifact in environment.artifacts)


@dataclass(frozen=True, slots=True, kw_only=True)
class Document:
    """A file of results. ``initial`` says what the rebuilds were compared with, in words; '' when with no build."""

    origin_uri: str
    origin_name: str
    results: tuple[Result, ...]
    initial: str = ""
    extended: bool = field(default=True, compare=False)

    def to_json(self) -> bytes:
        """The document as it is written."""
        return jsonio.dumps({
            "format": FORMAT, "origin_uri": self.origin_uri, "origin_name": self.origin_name, "initial": self.initial,
            "results": [self._result(result) for result in self.results]})

    def primary_key(self, result: Result) -> str:
        """What tells a result from every other one, in this file and in all of them."""
        parts = (self.origin_name, *result.what, result.key or result.rebuilder)
        return "/".join(urllib.parse.quote(part, safe="") for part in parts)

    def _result(self, result: Result) -> dict[str, Any]:
        made: dict[str, Any] = {
            "primary_key": self.primary_key(result), "suite": result.suite, "component": result.component,
            "target": result.target, "architecture": result.architecture, "name": result.name,
            "version": result.version, "status": result.status.value, "detail": result.detail,
            "rebuilder": {"name": result.rebuilder, "key": result.key},
            "artifacts": {**dict.fromkeys(URIS, ""), **dict(result.uris), "environments": [
                {"record": {"name": environment.name, "sha256": environment.sha256, "packages": environment.packages},
                 "files": [{"path": artifact.path, "sha256": artifact.sha256,
                            **({"origin_sha256": artifact.origin} if artifact.compared else {})}
                           for artifact in environment.artifacts]} for environment in result.environments]},
            "build_date": result.build_date}
        if result.build_duration is not None:
            made["build_duration"] = result.build_duration
        return made

    @classmethod
    def parse(cls, data: bytes, source: str) -> Document:
        """Read a file, gzip or not, ours or the bare draft's. Raises FormatError."""
        top = Fields(jsonio.loads(unpacked(data, source), source, "file of results", limit=LIMIT), source)
        extended = "format" in top
        if extended and top.text("format") != FORMAT:
            raise FormatError(f"{source}: it is in the format '{top.text('format')[:80]}', not '{FORMAT}'.")
        name = top.text("origin_name")
        if _ORIGIN.fullmatch(name) is None:
            raise FormatError(f"{source}: 'origin_name' is made of letters, digits and '-', '_', '.', '+'.")
        origin_uri, initial = top.text("origin_uri"), top.text("initial", "")
        items = top.objects("results", most=RESULTS_LIMIT)
        document = cls(origin_uri=origin_uri, origin_name=name, initial=initial,
                       results=tuple(_read(item) for item in items), extended=extended)
        seen: set[str] = set()
        for result, item in zip(document.results, items, strict=True):
            key = document.primary_key(result)
            if item.text("primary_key", key) != key:
                raise FormatError(f"{source}: the primary key '{item.text('primary_key')[:200]}' is not that of its "
                                  "result.")
            if key in seen:
                raise FormatError(f"{source}: there are two results of '{key[:200]}'.")
            seen.add(key)
        return document


def origin_name(text: str) -> str:
    """A package's name as the draft wants an origin's: letters, '-' and '_' alone."""
    return re.sub(r"[^A-Za-z_]+", "-", text).strip("-") or "unnamed"


def packed(data: bytes) -> bytes:
    """The same bytes for the same data, compressed (gzip, without a time)."""
    return gzip.compress(data, mtime=0)


def unpacked(data: bytes, source: str) -> bytes:
    """What a file holds, whether it is compressed or not. Raises FormatError: too large, damaged, more behind it."""
    if len(data) > FILE_LIMIT:
        raise FormatError(f"{source}: it is larger than {FILE_LIMIT >> 20} MiB.")
    if data[:2] != b"\x1f\x8b":
        return data
    stream = zlib.decompressobj(wbits=31)
    try:
        plain = stream.decompress(data, LIMIT + 1)
    except zlib.error as error:
        raise FormatError(f"{source}: the compressed file is damaged: {error}.") from error
    if len(plain) > LIMIT:
        raise FormatError(f"{source}: unpacked it is larger than {LIMIT >> 20} MiB.")
    if not stream.eof or stream.unused_data:
        raise FormatError(f"{source}: the compressed file is cut short, or has something behind it.")
    return plain


def _read(item: Fields) -> Result:
    try:
        status = Status(item.text("status"))
    except ValueError:
        raise FormatError(f"The status '{item.text('status')[:40]}' is none of "
                          + ", ".join(status.value for status in Status) + ".") from None
    who = item.object("rebuilder") if "rebuilder" in item else Fields({}, "rebuilder")
    artifacts = item.object("artifacts") if "artifacts" in item else Fields({}, "artifacts")
    return Result(
        suite=item.text("suite", longest=200), component=item.text("component", longest=200),
        target=item.text("target", longest=200), architecture=item.text("architecture", "", longest=200),
        name=item.text("name", longest=200), version=item.text("version", longest=200), status=status,
        rebuilder=who.text("name", "", longest=400), key=who.text("key", "", longest=200),
        detail=item.text("detail", ""),
        environments=tuple(_environment(one) for one in artifacts.objects("environments", most=1000, optional=True)),
        uris=tuple((key, artifacts.text(key)) for key in URIS if key in artifacts and artifacts.text(key)),
        build_date=item.number("build_date", 0),
        build_duration=item.number("build_duration") if "build_duration" in item else None)


def _environment(item: Fields) -> Environment:
    record = item.object("record")
    artifacts = tuple(Artifact(path=file.text("path"), sha256=_digest(file, "sha256"),
                               origin=_digest(file, "origin_sha256") if "origin_sha256" in file else None,
                               compared="origin_sha256" in file)
                      for file in item.objects("files", most=_FILES_LIMIT))
    if len({artifact.path for artifact in artifacts}) != len(artifacts):
        raise FormatError("A file stands twice in an environment.")
    return Environment(name=record.text("name"), sha256=record.sha256("sha256"), packages=record.number("packages"),
                       artifacts=artifacts)


def _digest(file: Fields, key: str) -> str | None:
    value = file.raw(key)
    if value is not None and (not isinstance(value, str) or SHA256.fullmatch(value) is None):
        raise FormatError(f"'{key}' of a file should be a SHA-256 or null.")
    return value
