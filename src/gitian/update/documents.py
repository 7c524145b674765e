"""YAML as plain texts, lists and mappings: in a configuration a number is whatever its reader makes of the text."""

from __future__ import annotations

from gitian.errors import FormatError
from gitian.formats import yamlio

#: What a document is made of here. A fingerprint of digits alone stays a text.
Plain = str | None | list["Plain"] | dict[str, "Plain"]


def read(data: bytes, source: str) -> Plain:
    """The one document of ``data``. Raises FormatError: no YAML, two documents, a key twice, a key that is no text."""
    node = yamlio.parse(data, source, only_document=True)
    return None if node is None else _plain(node, source)


def _plain(node: yamlio.Node, source: str) -> Plain:
    if isinstance(node, yamlio.ScalarNode):
        return None if node.plain and yamlio.means_nothing(node.text) else node.text
    if isinstance(node, yamlio.SequenceNode):
        return [_plain(item, source) for item in node.items]
    found: dict[str, Plain] = {}
    for key, value in node.pairs:
        if not isinstance(key, yamlio.ScalarNode):
            raise FormatError(f"{source}:{key.line}: a key must be a text.")
        if key.text in found:
            raise FormatError(f"{source}:{key.line}: the key '{key.text}' stands there twice.")
        found[key.text] = _plain(value, source)
    return found
