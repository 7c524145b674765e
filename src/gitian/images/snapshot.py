"""Snapshot services: every package that an archive ever had, by Debian's protocol.

Asked for a binary package's version, the service names the files by SHA-1 and says where and when it first saw each
('GET /mr/binary/NAME/VERSION/binfiles?fileinfo=1', JSON). A file is to be had by its SHA-1 ('/file/SHA1') and in the
archive as it was at a time ('/archive/ARCHIVE/TIME/PATH'). Source: the 'API' page of the service's own documentation.
None of it is believed: what comes is checked by its SHA-256.
"""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any
from urllib.parse import quote, urlsplit

from gitian.errors import FormatError, UsageError
from gitian.formats import jsonio
from gitian.formats.image_record import InstalledPackage
from gitian.host.web import LARGEST, Client, Refused
from gitian.images.sources import Source
from gitian.images.whereabouts import Candidate

#: The answer for a package of twenty architectures is 10 kB; more than this many bytes is no honest one.
_LIMIT = 2**22
#: How many files of one package are tried.
_FILES = 8

_SHA1 = re.compile(r"[0-9a-f]{40}")
_ARCHIVE = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.+-]{0,99}")
_TIME = re.compile(r"[0-9]{8}T[0-9]{6}Z")
_PATH = re.compile(r"[!-~]{0,2000}")


def check_service(url: str) -> str:
    """A service's address without the '/' at its end. Raises UsageError."""
    try:
        parts = urlsplit(url)
        good = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.username is None \
            and not parts.query and not parts.fragment and re.fullmatch("[!-~]+", url) is not None \
            and (parts.port is None or parts.port > 0)
    except ValueError:
        good = False
    if not good:
        raise UsageError(f"'{url}' cannot be the address of a snapshot service.",
                         hint="It begins with http:// or https://, and '/mr/' and '/file/' are below it.")
    return url.rstrip("/")


def check_time(text: str) -> str:
    """A time as snapshot services write it. Raises UsageError."""
    if _TIME.fullmatch(text) is None:
        raise UsageError(f"'{text}' is not a snapshot's time.", hint="Write it as YYYYMMDDTHHMMSSZ, always UTC.")
    return text


def at(source: Source, service: str, time: str) -> Source | None:
    """A source as it was at that time; None when no archive's name can be told from its address.

    The service's archives are called as the last part of their path: 'debian', 'debian-security'.
    """
    archive = source.host_uri.rstrip("/").rpartition("/")[2]
    if _ARCHIVE.fullmatch(archive) is None or ".." in archive:
        return None
    uri = f"{service}/archive/{archive}/{time}"
    return replace(source, host_uri=uri, guest_uri=uri)


def find(package: InstalledPackage, service: str, client: Client) -> list[Candidate]:
    """Where the service has a package's version. Raises Refused, Stopped."""
    question = f"{service}/mr/binary/{quote(package.name, safe='+')}/{quote(package.version, safe=':+~')}" \
               "/binfiles?fileinfo=1"
    try:
        answer = jsonio.loads(client.read(question, _LIMIT), question, "answer", limit=_LIMIT)
    except FormatError as error:
        raise Refused("its answer is no JSON", clean=True) from error
    by_hash, by_path = [], []
    for sha1, infos in _files(answer, package.architecture)[:_FILES]:
        size = next((info["size"] for info in infos if _is_size(info.get("size"))), None)
        by_hash.append(Candidate(url=f"{service}/file/{sha1}", size=size))
        for info in infos[:_FILES]:
            path = _path(info)
            if path is not None:
                by_path.append(Candidate(url=f"{service}/archive/{path}", size=size))
    return by_hash + by_path


def _files(answer: Any, architecture: str) -> list[tuple[str, list[dict[str, Any]]]]:
    """The files for an architecture: SHA-1, and what the service says of each place where it was."""
    results, infos = (answer.get("result"), answer.get("fileinfo")) if isinstance(answer, dict) else (None, None)
    if not isinstance(results, list):
        raise Refused("its answer names no files", clean=True)
    found: dict[str, list[dict[str, Any]]] = {}
    for result in results:
        sha1 = result.get("hash") if isinstance(result, dict) else None
        if isinstance(sha1, str) and _SHA1.fullmatch(sha1) and result.get("architecture") in (architecture, None):
            of_it = infos.get(sha1) if isinstance(infos, dict) else None
            found[sha1] = [info for info in of_it if isinstance(info, dict)] if isinstance(of_it, list) else []
    return list(found.items())


def _path(info: dict[str, Any]) -> str | None:
    """ARCHIVE/TIME/PATH/NAME of a file that the service has described; None when it is none."""
    archive, seen, path, name = (info.get(key) for key in ("archive_name", "first_seen", "path", "name"))
    if not (isinstance(archive, str) and isinstance(seen, str) and isinstance(path, str) and isinstance(name, str)):
        return None
    if not (_ARCHIVE.fullmatch(archive) and _TIME.fullmatch(seen) and _PATH.fullmatch(path) and _PATH.fullmatch(name)):
        return None
    steps = [step for step in [*path.split("/"), name] if step]
    if not name or "/" in name or any(step in (".", "..") for step in [archive, *steps]):
        return None
    return f"{archive}/{seen}/" + quote("/".join(steps), safe="/~+:@=,")


def _is_size(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 < value <= LARGEST
