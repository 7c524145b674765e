"""The linter's view of a shell script: words, commands, pipelines; and that nothing can hold it up."""

from __future__ import annotations

import shlex

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gitian.lint.commands import parse
from gitian.lint.shell import Word, tokens


def names(text: str) -> list[str]:
    return [command.name for command in parse(text).commands]


def words(text: str) -> list[list[str]]:
    return [[word.text for word in command.words] for command in parse(text).commands]


@settings(max_examples=200, deadline=None)
@given(st.lists(st.text("ab '\"\\$`#;&|<>()\n\t{}*é", min_size=1, max_size=8), min_size=1, max_size=5))
def test_quoted_words_are_read_as_the_standard_library_quotes_them(texts: list[str]) -> None:
    found = [token for token in tokens("x " + " ".join(map(shlex.quote, texts))) if isinstance(token, Word)]
    assert [word.text for word in found] == ["x", *texts]


@settings(max_examples=300, deadline=None)
@given(st.text("ab=$()`'\"\\{}<>|&;#\n \t[]!EOF-", max_size=120))
def test_nothing_makes_it_fail(text: str) -> None:
    parse(text)


@pytest.mark.parametrize("text", ['"$(' * 20000, "$(" * 20000, "`" * 20000, "a|" * 20000, "<<E " * 5000 + "\n",
                                  "${" * 20000, "case x in " * 5000, "f() { " * 5000, "'" + "x" * 10**6, "((" * 20000,
                                  "bash -c 'bash -c x'\n" * 3000, "cat <<E\nx\nE\n" * 5000])
def test_hostile_scripts_end(text: str) -> None:
    assert len(parse(text).commands) <= 20_000


def test_commands_are_found_wherever_they_stand() -> None:
    assert names("if a; then b; elif c; then d; else e; fi") == list("abcde")
    assert names("for i in 1 2; do a; done; while b; do c; done") == ["for", "a", "b", "c"]
    assert names("a && b || c & d; (e); { f; }; ! g") == list("abcdefg")
    assert names("case $x in a|date) b;; *) c ;; esac; d") == ["case", "b", "c", "d"]
    assert sorted(names("X=$(a) b `c` \"$(d \"$(e)\")\" <(f)")) == list("abcdef")
    assert names("sudo -u root env X=1 nice -n 5 a b") == ["sudo", "env", "nice", "a"]
    assert names("find . -name x -exec a {} + -exec b {} \\; | xargs -0 -n 1 c -d") == ["find", "a", "b", "xargs", "c"]
    assert names("bash -c 'a | b'; eval 'c d'") == ["bash", "a", "b", "eval", "c"]
    assert names("/usr/bin/env python3 -m x") == ["env", "python3"]
    assert names("echo 'date' \"uname\" \\`c\\` # d") == ["echo"]
    assert names("function f { a; }\nfunction g() {\n b\n}\nh () { c; }") == ["a", "b", "c"]
    assert parse("function f { a; }\ng() { b; }").functions == {"f", "g"}


def test_pipelines_and_lines() -> None:
    script = parse("a |\n  b \\\n  c | # why\n d > out 2>&1\ne", 10)
    assert [(c.name, c.line, c.end_line, c.position) for c in script.commands] == [
        ("a", 10, 10, 0), ("b", 11, 12, 1), ("d", 13, 13, 2), ("e", 14, 14, 0)]
    assert [c.name for c in script.pipeline_of(script.commands[0])] == ["a", "b", "d"]
    assert [(kind, word.text) for kind, word in script.commands[2].redirections] == [(">", "out"), (">&", "1")]
    assert words("a 2>/dev/null b") == [["a", "b"]]


def test_documents_are_no_commands_and_belong_to_theirs() -> None:
    script = parse("cat > f <<'EOF'\ndate\n\"open\nEOF\npython3 - <<-E\n\timport time\n\tE\nls")
    assert [(c.name, c.documents) for c in script.commands] == [
        ("cat", ('date\n"open',)), ("python3", ("\timport time",)), ("ls", ())]


def test_expansions_stay_and_escaped_ones_are_told_apart() -> None:
    assert words('a "$X/${Y:-b c}" $((1 + 2)) \\$Z') == [["a", "$X/${Y:-b c}", "$((1 + 2))", "\\$Z"]]
    assert [(name, word.text) for name, word in parse("A=1 B+='2 3' c D=4").commands[0].assignments] == [
        ("A", "1"), ("B", "2 3")]
