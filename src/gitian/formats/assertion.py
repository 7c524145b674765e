"""An assertion, <name>-build.assert: a report with release and name, as one signer signs it.

Every shape that was ever published is read: '!omap' and '!!omap' headers, plain mappings, keys that are missing,
manifests that are null. What is signed is bytes: an assertion that was read is checked by its own bytes, never by
writing it again.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from gitian.formats import yamlio
from gitian.formats.descriptor import Identity
from gitian.formats.report import KEYS, Report, document_keys, is_null, report_of, text_of
from gitian.formats.yamlio import Value

_OWN_KEYS = ("release", "name", "type", "optionals")


@dataclass(frozen=True, slots=True, kw_only=True)
class Assertion:
    """What one signer asserts. ``release``, ``name`` and ``type`` are None where an old assertion lacks them.

    ``optionals`` is the descriptor's value, as Ruby reads it. ``written_name`` is set when the descriptor's name was
    not a text to Ruby (22, yes): the classic wrote it without quotes. ``has_optionals`` tells a missing key from null.
    """

    report: Report
    release: str | None
    name: str | None
    type: str | None = "build"
    optionals: Value = None
    has_optionals: bool = True
    written_name: Value = None

    @classmethod
    def of(cls, report: Report, *, release: str, identity: Identity) -> Assertion:
        """What gsign asserts: this report is ``release`` of what the descriptor ``identity`` names."""
        written = None if isinstance(identity.name_value, str) else identity.name_value
        return cls(report=report, release=release, name=identity.name, optionals=identity.optionals,
                   written_name=written)

    @property
    def out_manifest(self) -> str:
        return self.report.out_manifest

    @property
    def in_manifest(self) -> str:
        return self.report.in_manifest

    @property
    def base_manifests(self) -> tuple[tuple[str, str], ...] | None:
        return self.report.base_manifests

    def to_yaml(self) -> str:
        """The exact text of the file, as gsign writes it. Raises FormatError."""
        name = self.name if self.written_name is None else self.written_name
        own: list[tuple[Value, Value]] = [
            (key, value) for key, value in (("release", self.release), ("name", name), ("type", self.type))
            if value is not None]
        if self.has_optionals:
            own.append(("optionals", self.optionals))
        return yamlio.dump_psych([*self.report.pairs(), *own])

    @classmethod
    def parse(cls, data: bytes, source: str) -> Assertion:
        """Read an assertion; ``source`` names the file in messages.

        Raises FormatError: a web page, no YAML, no ordered map, a key twice, two documents, manifests missing.
        """
        keys = document_keys(data, source, "assertion")
        extra = tuple((key, yamlio.resolve(node, source)) for key, node in keys.items()
                      if key not in KEYS and key not in _OWN_KEYS)
        report = report_of(keys, source, "assertion", extra)
        own = {key: None if key not in keys or is_null(keys[key]) else text_of(keys[key], key, source)
               for key in ("release", "name", "type")}
        return cls(report=report, release=own["release"], name=own["name"], type=own["type"],
                   optionals=yamlio.resolve(keys["optionals"], source) if "optionals" in keys else None,
                   has_optionals="optionals" in keys)

    @classmethod
    def read(cls, path: Path) -> Assertion:
        """Read an assertion from a file. Raises FormatError."""
        return cls.parse(yamlio.read_bounded(path, "assertion"), str(path))
