"""Reports and assertions: the recorded ones of the classic to the byte, real ones of ten years, and hostile ones."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gitian.errors import DescriptorError, FormatError
from gitian.formats import yamlio
from gitian.formats.assertion import Assertion
from gitian.formats.descriptor import Identity
from gitian.formats.manifest import Manifest
from gitian.formats.report import Report
from gitian.formats.yamlio import Hash
from tests.shared import FIXTURES, needs_shared
from tests.unit.golden import Case, cases

#: Names that the classic took and that we refuse: nothing at all, an option, a list, ':sym' (whose text holds a colon).
REFUSED_NAMES = ("name-06", "name-12", "name-14", "name-dest-04")


def _option(argv: list[str], letter: str, default: str) -> str:
    for index, word in enumerate(argv):
        if word == f"-{letter}":
            return argv[index + 1]
        if word.startswith(f"-{letter}"):
            return word[2:]
    return default


@pytest.mark.parametrize("case", [case for case in cases("gsign") if case["files_written"]],
                         ids=lambda case: str(case["id"]))
def test_gsign_writes_what_the_classic_wrote(case: Case) -> None:
    descriptor = case["inputs"]["pkg.yml"].encode()
    if case["id"] in REFUSED_NAMES:
        with pytest.raises(DescriptorError):
            Identity.parse(descriptor, "pkg.yml")
        return
    identity = Identity.parse(descriptor, "pkg.yml")
    (path, text), = ((path, text) for path, text in case["files_written"].items() if path.endswith(".assert"))
    report, = (data for name, data in case["inputs"].items() if name.startswith("result/"))
    assertion = Assertion.of(Report.parse(report.encode()), identity=identity,
                             release=_option(case["argv"], "r", "test"))
    assert assertion.to_yaml() == text
    back = Assertion.parse(text.encode(), path)
    assert (back.release, back.name, back.optionals) == (assertion.release, _name_of(text), assertion.optionals)
    if isinstance(identity.name_value, str):  # else the name was written without quotes, and reads back as text
        assert back.to_yaml() == text


def _name_of(text: str) -> str:
    return next(line for line in text.splitlines() if line.startswith("- name: ")).removeprefix("- name: ").strip("'")


@pytest.mark.parametrize("case", [case for case in cases("gsign") if case["id"] in (
    "res-bad-yaml", "res-date-value", "bad-descriptor", "empty-descriptor", "alias-descriptor")],
    ids=lambda case: str(case["id"]))
def test_gsign_refuses_what_the_classic_refused(case: Case) -> None:
    report, = (data for name, data in case["inputs"].items() if name.startswith("result/"))
    with pytest.raises((FormatError, DescriptorError)):
        Identity.parse(case["inputs"]["pkg.yml"].encode(), "pkg.yml")
        Report.parse(report.encode())


def _flat(assertion: Assertion) -> dict[str, Any]:
    report = assertion.report
    return {"out_manifest": report.out_manifest, "in_manifest": report.in_manifest,
            "base_manifests": report.base_manifests, "cache_common_manifest": report.cache_common_manifest,
            "cache_package_manifest": report.cache_package_manifest, "release": assertion.release,
            "name": assertion.name, "type": assertion.type, "optionals": assertion.optionals}


def _is(value: Any, recorded: Case) -> bool:
    if recorded["t"] == "nil":
        return value is None
    if recorded["t"] == "Psych::Omap":
        return len(value) == len(recorded["v"]) and all(
            key == name and _is(text, inner) for (key, text), (name, inner) in zip(value, recorded["v"], strict=True))
    assert recorded["t"] == "String"
    return bool(hashlib.sha256(value.encode()).hexdigest() == recorded["sha256"])


@needs_shared
def test_every_real_assertion_reads_as_ruby_reads_it() -> None:
    rows = [json.loads(line) for line in (FIXTURES / "sigs/asserts_parsed.jsonl").read_bytes().splitlines()]
    assert len(rows) == len(list((FIXTURES / "sigs").rglob("*.assert"))) == 141
    for row in rows:
        data = (FIXTURES / row["path"]).read_bytes()
        assertion = Assertion.parse(data, row["path"])
        values = _flat(assertion)
        keys = dict(row["parsed"]["v"])
        for key, recorded in keys.items():
            assert _is(values.pop(key), recorded), (row["path"], key)
        assert all(value is None for value in values.values()), row["path"]
        assert assertion.has_optionals == ("optionals" in keys)
        written = assertion.to_yaml().encode()
        assert hashlib.sha256(written).hexdigest() == row["reemit_sha256"], row["path"]
        assert (written == data) == (row["reemit"] == "identical")


@needs_shared
def test_every_real_manifest_is_understood() -> None:
    remotes = 0
    for path in sorted((FIXTURES / "sigs").rglob("*.assert")):
        assertion = Assertion.read(path)
        for text in (assertion.out_manifest, assertion.in_manifest,
                     *(manifest for _, manifest in assertion.base_manifests or ())):
            manifest = Manifest.parse(text)
            assert manifest.strange == (), path
            assert manifest.text() == text, path
            remotes += len(manifest.remotes)
    assert remotes > 100


_GOOD = b"--- !!omap\n- out_manifest: ''\n- in_manifest: ''\n- base_manifests: !!omap []\n"


@pytest.mark.parametrize(("data", "words"), [
    (b"<!DOCTYPE html>\n<html><head><title>404</title></head></html>\n", "web page"),
    (b"<html>\n<body>Not: found: here</body></html>", "web page"),
    (b"", "empty"),
    (b"Not Found\n", "line of text"),
    (b"- a\n- b\n", "one '- key: value'"),
    (b"--- !!omap\n- out_manifest: ''\n", "'in_manifest' is missing"),
    (_GOOD + b"- release: '1'\n- release: '2'\n", "twice"),
    (_GOOD.replace(b"- out", b"- ? [a]\n  : b\n- out"), "cannot be a key"),
    (_GOOD + b"--- second\n", "second document"),
    (_GOOD.replace(b"!!omap []", b"text"), "ordered map"),
    (_GOOD.replace(b"out_manifest: ''", b"out_manifest: [a]"), "must be a text"),
    (_GOOD.replace(b"!!omap []", b"\n  - a: x\n  - a: y"), "twice"),
    (b"\x99\x01\x0d\x04", "not YAML"),
])
def test_unreadable_assertions_say_why(data: bytes, words: str) -> None:
    with pytest.raises(FormatError) as caught:
        Assertion.parse(data, "some.assert")
    assert words in str(caught.value)
    assert str(caught.value).startswith("some.assert")


@pytest.mark.parametrize("header", ["--- !!omap", "--- !omap", "--- !omap ", "---"])
def test_old_headers(header: str) -> None:
    text = f"{header}\n- out_manifest: |\n    x\n- in_manifest: ! 'y'\n- base_manifests: !omap\n  - lucid-i386: z\n"
    assertion = Assertion.parse(text.encode(), "old")
    assert (assertion.out_manifest, assertion.in_manifest) == ("x\n", "y")
    assert assertion.base_manifests == (("lucid-i386", "z"),)
    assert (assertion.release, assertion.name, assertion.has_optionals) == (None, None, False)


def test_a_plain_mapping_is_read_too() -> None:
    data = b"---\nout_manifest: x\nin_manifest: y\nbase_manifests:\n  a-b: z\nrelease: 0.10\nname: 22\n"
    assertion = Assertion.parse(data, "plain")
    assert assertion.base_manifests == (("a-b", "z"),)


@pytest.mark.parametrize("text", ["0.10", "22", "2011-01-30", "yes", "1e3", "0x1F", "1_000", "12:30"])
def test_unquoted_releases_stay_the_text_they_were(text: str) -> None:
    assertion = Assertion.parse(_GOOD + f"- release: {text}\n- name: {text}\n".encode(), "a")
    assert (assertion.release, assertion.name) == (text, text)


def test_a_pipe_or_directory_is_no_assertion(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path, tmp_path / "pipe"):
        with pytest.raises(FormatError, match="cannot be read"):
            Assertion.read(path)
    with pytest.raises(FormatError, match="does not exist"):
        Assertion.read(tmp_path / "nothing.assert")


_texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=40)
_labels = st.text("abcdefghijklmnop0123456789-._", min_size=1, max_size=12)
_reports = st.builds(Report, out_manifest=_texts, in_manifest=_texts,
                     base_manifests=st.lists(st.tuples(_labels, _texts), max_size=3,
                                             unique_by=lambda pair: pair[0]).map(tuple),
                     cache_common_manifest=_texts, cache_package_manifest=_texts)


@given(_reports)
def test_reports_come_back(report: Report) -> None:
    assert Report.parse(report.to_yaml().encode()) == report


@given(_reports, _labels, _labels)
def test_assertions_come_back(report: Report, release: str, name: str) -> None:
    assertion = Assertion(report=report, release=release, name=name,
                          optionals=Hash((("a", ("b", None, True, 2)),)))
    assert Assertion.parse(assertion.to_yaml().encode(), "some.assert") == assertion


@given(st.binary(max_size=200) | st.text("-: !omap\n[]{}'\"|>&*#%@`,?\tab", max_size=80).map(str.encode))
def test_noise_is_read_or_refused_with_words(data: bytes) -> None:
    for head in (b"", _GOOD):
        try:
            Assertion.parse(head + data, "noise")
        except FormatError as error:
            assert str(error).startswith("noise")
        try:
            yamlio.load(head + data, "noise")
        except FormatError as error:
            assert str(error).startswith("noise")
