"""The page as text: nothing of a tree becomes markup, nothing is fetched, the matrix and the details are right."""

from __future__ import annotations

import base64
import hashlib
import html.parser
import io
import re
from collections.abc import Sequence

import pytest

from gitian.cli.verdict_html import Page
from gitian.sigs import survey
from gitian.sigs.verdict import Decision, Difference, Group, Outcome, SignerOutcome, Verdict
from gitian.sigs.verify import Pair

EVIL = ("<script>alert(1)</script>", '"><img src=x onerror=alert(1)>', "' onclick='alert(1)", "&lt;b&gt;", "</style>",
        "</details></table>", "<!--", "\x1b[31mred\x1b[0m", "a\u202egpj.exe", "\u2066x\u2069", "nul\x00", "\x9b31m",
        "new\nline", "\udcff\udcfe", "javascript:alert(1)", "{{7*7}}", "\u2028", "é ü €", "שלום", "ﷺ" * 100)


class Parsed(html.parser.HTMLParser):
    """Elements with their attributes, and all text, by a parser that is not ours."""

    def __init__(self, page: str) -> None:
        super().__init__(convert_charrefs=True)
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.open: list[str] = []
        self.comments: list[str] = []
        self.feed(page)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in ("meta", "link", "br", "input"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open and self.open.pop() == tag, f"</{tag}> closes nothing"

    def handle_data(self, data: str) -> None:
        if not self.open or self.open[-1] not in ("style", "script"):
            self.texts.append(data)

    def handle_comment(self, data: str) -> None:
        self.comments.append(data)


def signer(name: str, outcome: Outcome = Outcome.OK, **more: object) -> SignerOutcome:
    return SignerOutcome(signer=name, path=f"1/{name}/a-build.assert", outcome=outcome, **more)  # type: ignore[arg-type]


def verdict(*signers: SignerOutcome, decision: Decision = Decision.AGREE, groups: tuple[Group, ...] = (),
            reference: int | None = 0, release: str = "1", reasons: tuple[str, ...] = ()) -> Verdict:
    return Verdict(release=release, name="a", signers=signers, groups=groups, reference=reference, compared_to=None,
                   agreeing=1, weight=1, decision=decision, reasons=reasons)


def page(*verdicts: tuple[str, str, Verdict], label: str = "tree", problems: Sequence[survey.Remark] = (),
         why: Sequence[str] = ()) -> str:
    pairs = tuple(Pair(release=release, name=name) for release, name, _ in verdicts)
    found = survey.Found(pairs=pairs, problems=tuple(problems), remarks=())
    totals = survey.Totals(found)
    made = Page(label, io.BytesIO())
    for pair, (_, _, each) in zip(pairs, verdicts, strict=True):
        totals.add(each)
        made.add(pair, each, why)
    out = io.BytesIO()
    made.write(out, found, totals, keys="2 public keys were at hand.")
    return out.getvalue().decode("utf-8")


def hostile(text: str) -> str:
    different = Difference(path=text, reference=text, own=None)
    group = Group(number=1, build="x", signers=(text,), keys=(text,), weight=1)
    each = signer(text, Outcome.MISMATCH, detail=text, fingerprint=text, user_id=text, made=1, remarks=(text,), group=1,
                  differences=(different,))
    absent = signer(text, Outcome.MISSING_RESULT)
    unsigned = SignerOutcome(signer=text + "2", path=text, outcome=Outcome.MISSING_SIGNATURE)
    made = verdict(each, absent, unsigned, decision=Decision.DISAGREE, groups=(group,), release=text, reasons=(text,))
    return page((f"{text}/{text}", text, made), ("1", "a", verdict(signer("alice"))), label=text,
                problems=[survey.Remark(path=text, text=text)], why=[text])


@pytest.mark.parametrize("text", EVIL)
def test_nothing_of_a_tree_becomes_markup(text: str) -> None:
    plain, evil = Parsed(hostile("x")), Parsed(hostile(text))
    shape = [(tag, sorted(attributes)) for tag, attributes in plain.elements]
    assert [(tag, sorted(attributes)) for tag, attributes in evil.elements] == shape
    assert not evil.open and not evil.comments
    for tag, attributes in evil.elements:
        for name, value in attributes.items():
            assert not name.startswith("on") and name not in ("style", "srcset", "src")
            if name == "href":
                assert value == "data:," or (value or "").startswith("#"), (tag, value)


@pytest.mark.parametrize("text", EVIL)
def test_nothing_steers_or_deceives(text: str) -> None:
    made = hostile(text)
    assert not [char for char in made if not char.isprintable() and char != "\n"]
    shown = "".join(Parsed(made).texts)
    if text.isprintable():
        assert shown.count(text) >= 10
    else:
        assert "\\" in shown


def test_ids_are_ours_and_unique_and_every_link_leads_somewhere() -> None:
    parsed = Parsed(page(*((f"1.{number}", "a b", verdict(signer("alice"), signer("bob", Outcome.NO_KEY),
                                                          signer("c", Outcome.MISSING_RESULT)))
                           for number in range(50))))
    ids = [attributes["id"] for _, attributes in parsed.elements if "id" in attributes]
    assert len(ids) == len(set(ids))
    links = {(attributes["href"] or "")[1:] for tag, attributes in parsed.elements if tag == "a"}
    assert links <= set(ids) and len(links) > 100
    labels = {attributes["for"] for tag, attributes in parsed.elements if tag == "label" and "for" in attributes}
    assert labels and labels <= set(ids)


def test_the_policy_allows_the_pages_own_two_parts_and_nothing_else() -> None:
    made = page(("1", "a", verdict(signer("alice"))))
    policy = re.search(r'http-equiv="Content-Security-Policy" content="([^"]*)"', made)
    assert policy is not None
    rules = dict(rule.strip().split(" ", 1) for rule in policy[1].split(";"))
    assert rules["default-src"] == "'none'" and "unsafe" not in policy[1] and "http" not in policy[1]
    for rule, tag in (("style-src", "style"), ("script-src", "script")):
        inside = re.findall(f"<{tag}>(.*?)</{tag}>", made, re.DOTALL)
        assert len(inside) == 1
        digest = base64.b64encode(hashlib.sha256(inside[0].encode()).digest()).decode()
        assert rules[rule] == f"'sha256-{digest}'"
    assert made.index("Content-Security-Policy") < made.index("<style>")


def test_nothing_is_fetched() -> None:
    made = page(("1", "a", verdict(signer("alice"))))
    assert not re.search(r"https?:|//[a-z]|url\(|@import|src=", re.sub(r"^ *//.*$", "", made, flags=re.MULTILINE))


def test_headers_have_scopes_and_cells_say_their_outcome_in_words() -> None:
    parsed = Parsed(page(("1", "a", verdict(signer("alice"), signer("bob", Outcome.NO_KEY)))))
    scopes = [attributes.get("scope") for tag, attributes in parsed.elements if tag == "th"]
    assert scopes == ["col", "col", "col", "row"]
    assert "".join(parsed.texts).count(": NO KEY") == 1


def test_many_releases_are_parted_by_series_newest_first() -> None:
    made = page(*((f"0.{series}.{number}", "a", verdict(signer("alice")))
                  for series in (9, 10) for number in range(130)))
    assert re.findall(r"<h2><bdi>(.*?)</bdi>", made) == ["0.10 (1)", "0.10 (2)", "0.9 (1)", "0.9 (2)"]
    assert re.findall(r"<details class=\"series[^>]*>", made)[0].endswith(" open>")
    assert made.index(">0.10.129<") < made.index(">0.10.2<") < made.index(">0.9.1<")


def test_few_releases_are_one_matrix_and_folders_are_kept_apart() -> None:
    agreed = verdict(signer("alice"))
    assert re.findall(r"<h2><bdi>(.*?)</bdi>", page(("1", "a", agreed), ("2", "a", agreed))) == ["Releases"]
    assert re.findall(r"<h2><bdi>(.*?)</bdi>", page(("x/1", "a", agreed), ("y/2", "a", agreed))) == ["y", "x"]


def test_columns_grow_with_signatures_and_not_with_their_square() -> None:
    """Everybody signs one release only: a matrix of all would be nearly empty, and vast."""
    made = page(*((f"r{chr(97 + number // 26 % 26)}{chr(97 + number % 26)}", "a", verdict(signer(f"s{number}")))
                  for number in range(400)))
    assert made.count("<td") < 400 * 105


def test_a_groups_files_are_shown_once_and_bounded() -> None:
    found = tuple(Difference(path=f"file{number}", reference="a" * 64, own=None) for number in range(250))
    group = (Group(number=0, build="x", signers=("alice",), keys=("A",), weight=1),
             Group(number=1, build="y", signers=("bob", "carol"), keys=("B", "C"), weight=2))
    signers = [signer("alice", group=0)] + [signer(name, Outcome.MISMATCH, group=1, differences=found)
                                            for name in ("bob", "carol")]
    text = "".join(Parsed(page(("1", "a", verdict(*signers, decision=Decision.DISAGREE, groups=group)))).texts)
    assert "bob, carol built something else: 250 files differ" in text
    assert text.count("file0") == 1 and "file99" in text and "file100" not in text and "and 150 more" in text


def test_a_tie_says_with_whom_the_others_are_compared() -> None:
    found = (Difference(path="file", reference="a" * 64, own="b" * 64),)
    groups = tuple(Group(number=number, build=str(number), signers=(name,), keys=(name,), weight=1)
                   for number, name in enumerate(("alice", "bob")))
    signers = (signer("alice", Outcome.MISMATCH, group=0),
               signer("bob", Outcome.MISMATCH, group=1, differences=found))
    text = "".join(Parsed(page(("1", "a", verdict(*signers, decision=Decision.DISAGREE, groups=groups,
                                                  reference=None)))).texts)
    assert "With the build of alice the others are compared below" in text
    assert "bob built something else: 1 file differs" in text
