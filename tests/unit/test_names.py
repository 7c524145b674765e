"""Which names are safe: the classic's answers, and where we are stricter or kinder on purpose."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gitian import names
from tests.unit.golden import Case, cases

# The last case of the file gives a symbol, no text, to the classic: Python's types leave no room for that.
#: The classic takes these, and they lead upwards, are options, or nothing at all.
REFUSED_ON_PURPOSE = {"", "--help"}


@pytest.mark.parametrize("case", [case for case in cases("sanitize") if "s" in case], ids=lambda case: ascii(case["s"]))
def test_as_the_classic(case: Case) -> None:
    text = case["s"]
    for check, recorded in ((names.check_name, case["gbuild.sanitize"]),
                            (names.check_url, case["gbuild.sanitize_path"]),
                            (names.check_path, case["gbuild.sanitize_path"])):
        if recorded == "ok" and text not in REFUSED_ON_PURPOSE:
            assert check(text) == text
        else:
            with pytest.raises(ValueError):
                check(text)


@pytest.mark.parametrize("check", [names.check_name, names.check_directory_name, names.check_path, names.check_url,
                                   names.check_file_name])
@pytest.mark.parametrize("text", ["", "..", "-x", "--help", "a\n", "\n", "a\0b", "é", "２", "a\x1b[31m", "x" * 5000])
def test_nobody_takes_these(check: object, text: str) -> None:
    assert callable(check)
    with pytest.raises(ValueError):
        check(text)


def test_upwards() -> None:
    assert names.check_url("../../../repos/foo") == "../../../repos/foo"
    for text in ("../x", "a/../b", "a/.."):
        with pytest.raises(ValueError, match="upwards"):
            names.check_path(text)
    assert names.check_path("a..b/c") == "a..b/c"


def test_a_name_that_becomes_a_directory_is_not_a_dot() -> None:
    assert names.check_name(".") == "."
    with pytest.raises(ValueError):
        names.check_directory_name(".")
    assert names.check_directory_name(".hidden") == ".hidden"


@pytest.mark.parametrize("text", ["noscript@noscript.net.xpi", "a~b", "Bitcoin Core.app", "a'b", 'a"b', "$(x)", "a;b",
                                  "a\\b", "...", "%s", "~"])
def test_files_may_be_called_anything_printable(text: str) -> None:
    assert names.check_file_name(text) == text


@pytest.mark.parametrize("text", ["a/b", ".", "/", "a\tb", "ü.tar"])
def test_but_not_this(text: str) -> None:
    with pytest.raises(ValueError):
        names.check_file_name(text)


@given(st.text(max_size=30))
def test_what_is_taken_stays_where_it_is(text: str) -> None:
    for check in (names.check_directory_name, names.check_file_name):
        try:
            check(text)
        except ValueError:
            continue
        assert text.isascii() and text.isprintable() and "/" not in text and text not in ("", ".", "..")
        assert not text.startswith("-")


@given(st.text(st.sampled_from("ab./-@:"), max_size=12))
def test_no_path_that_is_taken_leads_upwards(text: str) -> None:
    try:
        names.check_path(text)
    except ValueError:
        return
    assert ".." not in text.split("/")
