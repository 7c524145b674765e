"""The report of a build, result/<name>-res.yml: five keys in a fixed order, written as Psych writes them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from gitian.errors import FormatError
from gitian.formats import yamlio
from gitian.formats.yamlio import MappingNode, Node, Omap, ScalarNode, SequenceNode, Value

MANIFESTS = ("out_manifest", "in_manifest", "cache_common_manifest", "cache_package_manifest")
KEYS = ("out_manifest", "in_manifest", "base_manifests", "cache_common_manifest", "cache_package_manifest")


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What was built from what, in which environment. Manifests are texts; see formats/manifest.py to take them apart.

    ``base_manifests`` holds ('<suite>-<arch>', manifest of the environment) in the order the targets were built; it is
    None where a published report has nothing there. A cache manifest is None when the report has no such key.
    ``extra`` holds other keys of a report that was read, so that they are signed too.
    """

    out_manifest: str
    in_manifest: str
    base_manifests: tuple[tuple[str, str], ...] | None
    cache_common_manifest: str | None = ""
    cache_package_manifest: str | None = ""
    extra: tuple[tuple[Value, Value], ...] = ()

    def pairs(self) -> list[tuple[Value, Value]]:
        """The keys and values in the order they are written."""
        base = None if self.base_manifests is None else Omap(self.base_manifests)
        values = {"out_manifest": self.out_manifest, "in_manifest": self.in_manifest, "base_manifests": base,
                  "cache_common_manifest": self.cache_common_manifest,
                  "cache_package_manifest": self.cache_package_manifest}
        present = [(key, value) for key, value in values.items()
                   if value is not None or not key.startswith("cache_")]
        return [*present, *self.extra]

    def to_yaml(self) -> str:
        """The exact text of the file. Raises FormatError: a path that is not Unicode."""
        return yamlio.dump_psych(self.pairs())

    @classmethod
    def parse(cls, data: bytes, source: str = "report") -> Report:
        """Read a report, ours or the classic's. Raises FormatError."""
        keys = document_keys(data, source, "report")
        extra = tuple((key, yamlio.resolve(node, source)) for key, node in keys.items() if key not in KEYS)
        return report_of(keys, source, "report", extra)

    @classmethod
    def read(cls, path: Path) -> Report:
        """Read a report from a file. Raises FormatError."""
        return cls.parse(yamlio.read_bounded(path, "report"), str(path))


def document_keys(data: bytes, source: str, what: str) -> dict[str, Node]:
    """The top keys of a report or assertion: an ordered map under any of its old headers, or a plain mapping.

    ``what`` is 'report' or 'assertion'. Raises FormatError: no YAML, something else, a key twice, two documents.
    """
    try:
        node = yamlio.parse(data, source, only_document=True)
    except FormatError as error:
        if looks_like_web_page(data):
            raise FormatError(f"{source}: this is a web page, not {_a(what)}.",
                              hint="Something saved an error page under this name; fetch the file again.") from error
        raise
    if node is None:
        raise FormatError(f"{source}: the {what} is empty.")
    if not isinstance(node, SequenceNode | MappingNode):
        kind = "a web page" if looks_like_web_page(data) else "a line of text"
        raise FormatError(f"{source}: this is {kind}, not {_a(what)}.")
    return _string_keys(node, source, what)


def report_of(keys: Mapping[str, Node], source: str, what: str, extra: tuple[tuple[Value, Value], ...]) -> Report:
    """The report's part of ``keys``. Raises FormatError: a key that is missing or is no text."""
    for key in ("out_manifest", "in_manifest", "base_manifests"):
        if key not in keys:
            raise FormatError(f"{source}: '{key}' is missing, so this is no {what} of a build.")
    texts = {key: text_of(keys[key], key, source) for key in MANIFESTS if key in keys}
    return Report(out_manifest=texts["out_manifest"], in_manifest=texts["in_manifest"],
                  base_manifests=_base_manifests(keys["base_manifests"], source, what),
                  cache_common_manifest=texts.get("cache_common_manifest"),
                  cache_package_manifest=texts.get("cache_package_manifest"), extra=extra)


def text_of(node: Node, key: str, source: str) -> str:
    """The text of a scalar, unquoted numbers, dates and booleans as they stand. Raises FormatError: no scalar."""
    if not isinstance(node, ScalarNode):
        raise FormatError(f"{source}:{node.line}: '{key}' must be a text.")
    return node.text


def is_null(node: Node) -> bool:
    """Whether nothing, '~' or 'null' stands there, unquoted. (Real assertions have '!!omap' with nothing after.)"""
    return (isinstance(node, ScalarNode) and node.plain and node.tag not in ("!", "tag:yaml.org,2002:str", "!str")
            and yamlio.means_nothing(node.text))


def looks_like_web_page(data: bytes) -> bool:
    """Whether the file starts as HTML does."""
    return data[:512].lstrip(b"\xef\xbb\xbf \t\r\n").lower().startswith((b"<!doctype", b"<html", b"<?xml", b"<head"))


def _base_manifests(node: Node, source: str, what: str) -> tuple[tuple[str, str], ...] | None:
    if is_null(node):
        return None
    if not isinstance(node, SequenceNode | MappingNode):
        raise FormatError(f"{source}:{node.line}: 'base_manifests' must be an ordered map.")
    return tuple((target, text_of(inner, f"base_manifests.{target}", source))
                 for target, inner in _string_keys(node, source, what).items())


def _string_keys(node: SequenceNode | MappingNode, source: str, what: str) -> dict[str, Node]:
    pairs: list[tuple[Node, Node]] = []
    if isinstance(node, MappingNode):
        pairs += node.pairs
    else:
        for item in node.items:
            if not isinstance(item, MappingNode) or len(item.pairs) != 1:
                raise FormatError(f"{source}:{item.line}: every item of {_a(what)} is one '- key: value'.")
            pairs += item.pairs
    found: dict[str, Node] = {}
    for key, value in pairs:
        if not isinstance(key, ScalarNode):
            raise FormatError(f"{source}:{key.line}: a list or mapping cannot be a key.")
        if key.text in found:
            raise FormatError(f"{source}:{key.line}: '{key.text}' stands there twice.")
        found[key.text] = value
    return found


def _a(what: str) -> str:
    return f"an {what}" if what[0] in "aeiou" else f"a {what}"
