"""YAML as Ruby's Psych reads and writes it, to the byte."""

from __future__ import annotations

import itertools
import re
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gitian.errors import FormatError
from gitian.formats import psych, yamlio
from gitian.formats.yamlio import Hash, Omap, Value
from tests.unit.golden import Case, cases, same, value_of


@pytest.mark.parametrize("case", cases("emit"), ids=lambda case: str(case["id"]))
def test_writes_what_psych_writes(case: Case) -> None:
    assert yamlio.dump_psych((key, value_of(value)) for key, value in case["pairs"]) == case["yaml"]


@pytest.mark.parametrize("case", cases("parse"), ids=lambda case: str(case["id"]))
def test_reads_what_ruby_reads(case: Case) -> None:
    if "error_class" in case:
        with pytest.raises(FormatError):
            yamlio.load(case["yaml"].encode(), "file")
    else:
        assert same(yamlio.load(case["yaml"].encode(), "file"), case["ruby"])


@pytest.mark.parametrize(("data", "words"), [
    (b"a: &a [x, x]\nb: &b [*a, *a]\n", "alias"),
    (b"[" * 100_000, "nested"),
    (b"- " * 100_000, "nested"),
    (b"{a: " * 100_000, "nested"),
    (b"- a\n" * 300_000, "200000 values"),
    (b"x" * (16 * 2**20 + 1), "16 MiB"),
    (b"a: \xff\n", "UTF-8"),
    (b"a: b\nc: \x00\n", "file:2"),
    (b"a: " + b"9" * 100_000, "endless number"),
    (b"? [a]\n: b\n- c\n", "file:3"),
], ids=["bomb", "flow", "block", "maps", "many", "large", "latin", "nul", "digits", "mixed"])
def test_hostile_documents_are_bounded(data: bytes, words: str) -> None:
    with pytest.raises(FormatError) as caught:
        yamlio.load(data, "file")
    assert words in str(caught.value) + (caught.value.hint or "")
    assert len(str(caught.value)) < 500


def test_says_where() -> None:
    with pytest.raises(FormatError) as caught:
        yamlio.load(b'name: x\nremotes:\n- "url": "u\n  "dir": "d"\n', "some.yml")
    assert str(caught.value).startswith("some.yml:4: dir: this is not YAML: ")
    with pytest.raises(FormatError) as caught:
        yamlio.load(b"script: |\n  a\n\tb\n", "some.yml")
    assert "tab" in str(caught.value)


def test_second_document() -> None:
    assert yamlio.load(b"--- a\n--- b\n", "file") == "a"
    with pytest.raises(FormatError, match="file:2: a second document"):
        yamlio.parse(b"--- a\n--- b\n", "file", only_document=True)


def test_lone_surrogates_are_refused() -> None:
    with pytest.raises(FormatError):
        yamlio.dump_psych([("a", "\udcff")])


_texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=60) | st.text("ynotf~\n \t:-#'\"01.", max_size=8)


@given(_texts)
def test_every_text_comes_back(text: str) -> None:
    value: Value = Omap((("a", text), ("b", Omap(((text, text),)))))
    assert yamlio.load(yamlio.dump_value(value).encode(), "file") == value


_scalars = _texts | st.none() | st.booleans() | st.integers() | st.binary(max_size=20)
_values = st.recursive(_scalars, lambda inner: st.lists(inner, max_size=4).map(tuple) | st.lists(
    st.tuples(_texts, inner), max_size=4, unique_by=lambda pair: pair[0]).map(lambda pairs: Hash(tuple(pairs))),
    max_leaves=8)


@given(_values)
def test_every_value_comes_back(value: Value) -> None:
    text = yamlio.dump_psych([("optionals", value)])
    assert yamlio.load(text.encode(), "file") == Omap((("optionals", value),))


# Float#to_s of Ruby: at least one digit after the point, exponents from 1e16 on and below 1e-4.
@pytest.mark.parametrize(("value", "text"), [
    (1.0, "1.0"), (2.5, "2.5"), (1e15, "1000000000000000.0"), (1e16, "1.0e+16"), (1e20, "1.0e+20"),
    (1.5e300, "1.5e+300"), (0.0001, "0.0001"), (0.00001, "1.0e-05"), (-0.0, "-0.0"), (float("inf"), ".inf"),
    (float("-inf"), "-.inf")])
def test_floats(value: float, text: str) -> None:
    assert psych.float_text(value) == text


def test_tag_directives_are_bounded() -> None:
    """The parser compares each with all before it: eight megabytes of them took it hours."""
    lines = "".join(f"%TAG !a{number}! tag:x\n" for number in range(300_000)) + "--- x\n"
    for data in (lines.encode(), lines.encode("utf-16")):
        with pytest.raises(FormatError, match="tag directives"):
            yamlio.parse(data, "x")
    assert yamlio.parse(b"%TAG !a! tag:x\n--- x\n", "x") is not None


def test_a_number_without_end_takes_no_gigabyte() -> None:
    """Eight million digits once took the matcher a gigabyte, so that two hundred signers could take all there is."""
    script = ("import resource\nfrom gitian.formats import psych\ndigits = '9' * 2**23\n"
              "resource.setrlimit(resource.RLIMIT_AS, (2**29, 2**29))\n"
              "for text in (digits, '1_' * 2**22, '1,' * 2**22, '1_' * 2**22 + '1'):\n    psych.tokenize(text)\n")
    subprocess.run([sys.executable, "-c", script], check=True)


def test_integers_are_what_the_plain_form_of_the_pattern_says() -> None:
    plain = re.compile(r"[-+]?0b[01_,]+|[-+]?0[0-7_,]+|[-+]?(?:0|[1-9](?:[0-9]|,[0-9]|_[0-9])*)|[-+]?0x[0-9a-fA-F_,]+")
    for length in range(1, 6):
        for letters in itertools.product("019,_-xb", repeat=length):
            text = "".join(letters)
            assert bool(psych._INTEGER.fullmatch(text)) == bool(plain.fullmatch(text)), text
