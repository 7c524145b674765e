"""The page of gverify --html in a real browser: on a desk, on a phone, by keyboard, without scripts.

The tree has names and manifests that try to become markup; its signatures are made by throw-away keys.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration import webdriver
from tests.integration.conftest import Commands
from tests.integration.webdriver import DOWN, END, ENTER, HOME, RIGHT, SPACE, TAB, UP, Browser
from tests.shared import FIXTURES, needs_shared
from tests.signers import MANIFEST, OTHER, Signers, assertion, put

pytestmark = pytest.mark.skipif(webdriver.BROWSER is None or webdriver.DRIVER is None,
                                reason="chromium and chromedriver are not installed (apt install chromium-driver)")

EVIL = '<script>window.pwned=1<'  # no slash: it is a directory's name
EVIL_IMAGE = '"><img src=x onerror="window.pwned=2">'
EVIL_FILE = "<svg onload=window.pwned=3></svg></details></table>\u202egpj.exe"


@pytest.fixture(scope="module")
def window() -> Iterator[Browser]:
    with webdriver.browser() as found:
        yield found


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The address of a page with 11 releases in two folders: most agree, in '1.5' somebody differs, two are hostile."""
    top = tmp_path_factory.mktemp("page")
    root = top / "sigs"
    signers = Signers()
    try:
        for name in ("alice", "bob", "carol"):
            signers.make(name)
        (top / "ring.gpg").write_bytes(signers.export("alice", "bob", "carol"))
        for number in range(10):
            release = f"1.{number}"
            content = assertion(release)
            for name in ("alice", "bob"):
                put(root, release, name, content, signers.sign(name, content))
        other = assertion("1.5", out=OTHER)
        put(root, "1.5", "carol", other, signers.sign("carol", other))
        put(root, "1.3", "nokey", assertion("1.3"), b"nonsense")
        put(root, "1.2", "sleepy", assertion("1.2"), None)
        out = MANIFEST + f"{'f' * 64}  {EVIL_FILE}\n"
        quoted = assertion("1.0").replace(b"out_manifest: |\n", b"x: |\n").replace(b"--- !!omap\n", (
            "--- !!omap\n- out_manifest: \"" + out.replace('"', '\\"').encode("unicode_escape").decode() + "\"\n"
        ).encode())
        put(root, "1.0", EVIL, quoted, signers.sign("carol", quoted))
        evil = assertion("1")
        put(root, os.fsdecode(b"evil/\x1b[2J<b>"), EVIL_IMAGE, evil, signers.sign("carol", evil), EVIL_IMAGE)
        (root / f"{EVIL}-build.assert").write_bytes(b"")
    finally:
        signers.close()
    made = Commands(home=top).run("gverify", "--all", "-d", root, "--keyring", top / "ring.gpg", "--only-keyring",
                                  "--html", top / "page.html", check=False)
    assert made.returncode == 1, made.stderr
    return (top / "page.html").as_uri()


def visible(window: Browser, selector: str) -> list[str]:
    """The texts of those elements that a person sees."""
    found = window.run("return Array.from(document.querySelectorAll(arguments[0])).filter(e => e.checkVisibility())"
                       ".map(e => e.textContent)", selector)
    return list(found)


def releases(window: Browser) -> list[str]:
    return visible(window, "tbody.row th .release")


ALL = [f"1.{number}" for number in reversed(range(10))]


@pytest.fixture
def desk(window: Browser, page: str) -> Browser:
    window.scripts(True)
    window.size(1280, 900)
    window.open("about:blank")
    window.open(page)
    return window


def test_the_matrix(desk: Browser) -> None:
    assert releases(desk) == [*ALL, "\\x1b[2J<b>"]
    heads = visible(desk, ".matrix thead th")
    assert heads[:3] == ["Release and package", "alice", "bob"] and EVIL in heads
    row = desk.run("return Array.from(document.querySelectorAll('tbody.row')).find(r => r.querySelector('.release')"
                   ".textContent === '1.5').innerText")
    assert row.split()[:2] == ["1.5", "pkg"]
    cells = desk.run("return Array.from(document.querySelectorAll('tbody.row')).find(r => r.querySelector('.release')"
                     ".textContent === '1.5').querySelectorAll('td[data-o]').length")
    assert cells == 3
    assert desk.run("return document.getElementById('count').textContent") == "11 of 11 shown"


def test_nothing_hostile_runs_and_the_browser_has_no_complaint(desk: Browser) -> None:
    assert desk.run("return window.pwned") is None
    assert desk.run("return document.querySelectorAll('img, svg, iframe, object, embed').length") == 0
    assert desk.run("return document.scripts.length") == 1
    text = desk.run("document.querySelectorAll('details').forEach(d => { d.open = true; }); "
                    "return document.body.innerText")
    assert EVIL in text and EVIL_IMAGE in text and "</details></table>\\u202egpj.exe" in text
    assert desk.complaints() == []
    # Nothing but the page itself was asked for, whether or not it was there.
    assert desk.run("return performance.getEntriesByType('resource').map(e => e.name)") == []


def test_the_policy_stops_what_would_slip_through(desk: Browser) -> None:
    """An element with a script in it, made after the fact, as a flaw in escaping would: nothing runs."""
    desk.run("const d = document.createElement('div'); d.innerHTML = '<img src=x onerror=\"window.pwned=4\">'; "
             "document.body.append(d); const s = document.createElement('script'); s.textContent = 'window.pwned=5'; "
             "document.body.append(s); const p = document.createElement('p'); p.setAttribute('style', 'color: red'); "
             "document.body.append(p);")
    assert desk.run("return window.pwned") is None
    assert "Content Security Policy" in " ".join(desk.complaints())


def test_filter_by_verdict(desk: Browser) -> None:
    desk.click("label[for=v-differs]")
    assert releases(desk) == ["1.5", "1.0"]
    assert desk.run("return document.getElementById('count').textContent") == "2 of 11 shown"
    desk.click("label[for=v-agree]")
    assert releases(desk) == ["1.9", "1.8", "1.7", "1.6", "1.4", "1.2", "1.1"]
    desk.click("label[for=v-all]")
    assert len(releases(desk)) == 11


def typed(window: Browser, field: str, text: str) -> None:
    window.click(f"#{field}")
    window.run("document.getElementById(arguments[0]).value = ''", field)
    window.press(*text)


def test_search_for_release_signer_and_outcome(desk: Browser) -> None:
    typed(desk, "q", "1.5")
    desk.until("return document.getElementById('count').textContent === '1 of 11 shown'")
    assert releases(desk) == ["1.5"]
    typed(desk, "q", "PKG")
    desk.until("return document.getElementById('count').textContent === '10 of 11 shown'")
    typed(desk, "s", "carol")
    desk.until("return document.getElementById('count').textContent === '1 of 11 shown'")
    assert visible(desk, ".series:not([hidden]) thead th") == ["Release and package", "carol"]
    desk.run("const s = document.getElementById('s'); s.value = ''; s.dispatchEvent(new Event('input'))")
    desk.run("const o = document.getElementById('o'); o.value = 'bad-signature'; o.dispatchEvent(new Event('change'))")
    assert releases(desk) == ["1.3"]
    assert len(visible(desk, ".series:not([hidden]) thead th")) > 3


def test_a_sign_leads_to_what_it_stands_for(desk: Browser) -> None:
    desk.click("tbody.differs td.bad a")
    desk.until("return document.querySelector(':target') !== null")
    target = visible(desk, "li:target")
    assert len(target) == 1 and target[0].startswith("≠carol MISMATCH")
    text = desk.run("return document.querySelector(':target').closest('.inside').innerText")
    assert "carol built something else: 1 file differs" in text and "a" * 64 in text and "c" * 64 in text


def test_by_keyboard_alone(desk: Browser) -> None:
    """Skip link, filter, headings, rows: everything is reached in order, and what has the focus is seen."""
    seen = []
    for _ in range(30):
        desk.press(TAB)
        seen.append(desk.run("const e = document.activeElement; const r = e.getBoundingClientRect(); "
                             "return [e.tagName, e.id || e.textContent.slice(0, 30), r.width > 0 && r.top >= 0 && "
                             "r.bottom <= innerHeight, getComputedStyle(e).outlineStyle]"))
    names = [each[1] for each in seen]
    assert names[0] == "Skip to the releases"
    assert names[1:5] == ["v-all", "q", "s", "o"]
    assert [each[0] for each in seen[5:8]] == ["SUMMARY", "A", "SUMMARY"]
    assert all(each[2] for each in seen[:20]), seen
    assert all(each[3] != "none" for each in seen if each[0] in ("A", "SUMMARY")), seen


def test_rows_open_by_keyboard_and_arrows_move_in_the_matrix(desk: Browser) -> None:
    def focus() -> list[str]:
        found: list[str] = desk.run(
            "const e = document.activeElement, row = e.closest('tbody.row');"
            "const who = e.querySelector('.who bdi');"
            "return [row && row.querySelector('.release').textContent, who ? who.textContent : e.tagName]")
        return found

    desk.run("document.querySelector('.series > summary').focus()")
    for keys, expected in (((TAB,), ["1.9", "alice"]), ((RIGHT,), ["1.9", "bob"]),
                           ((DOWN, DOWN, DOWN, DOWN), ["1.5", "bob"]), ((END,), ["1.5", "carol"]),
                           ((UP,), ["1.6", "bob"]), ((HOME, UP, UP, UP, UP), ["1.9", "alice"])):
        desk.press(*keys)
        assert focus() == expected
    # The browser moves the focus at once and tells the page a moment later: wait for both.
    desk.run("addEventListener('hashchange', () => { window.arrived = true; })")
    desk.press(DOWN, DOWN, DOWN, DOWN, END, ENTER)
    desk.until("return window.arrived && document.activeElement.matches('li:target')")
    assert desk.run("return document.activeElement.textContent").startswith("≠carol MISMATCH")
    desk.run("document.querySelector('tbody.row details > summary').focus()")
    desk.press(SPACE)
    desk.until("return document.querySelector('tbody.row details').open")
    desk.press(ENTER)
    desk.until("return !document.querySelector('tbody.row details').open")


def test_without_scripts(window: Browser, page: str) -> None:
    """The matrix, the filter by verdict, details, and links into closed details work by HTML and style alone."""
    window.scripts(False)
    try:
        window.size(1280, 900)
        window.open("about:blank")
        window.open(page)
        assert len(releases(window)) == 11
        assert visible(window, ".fields") == []
        window.click("label[for=v-disagree]")
        assert releases(window) == ["1.5", "1.3", "1.0", "\\x1b[2J<b>"]
        window.click("label[for=v-all]")
        window.click("tbody.row details > summary")
        assert window.run("return document.querySelector('tbody.row details').open") is True
        window.click("tbody.differs td.bad a")
        assert visible(window, "li:target")[0].startswith("≠carol MISMATCH")
    finally:
        window.scripts(True)


@pytest.mark.parametrize("width", [320, 390])
def test_on_a_phone(window: Browser, page: str, width: int) -> None:
    """Nothing is cut off or needs scrolling sideways, and what is to be touched is large enough (WCAG 2.2, 2.5.8)."""
    window.scripts(True)
    window.size(width, 844, phone=True)
    window.open("about:blank")
    window.open(page)
    assert len(releases(window)) == 11
    window.run("document.querySelectorAll('details').forEach(d => { d.open = true; })")
    assert window.run("return document.documentElement.scrollWidth") <= width
    beyond = window.run(
        "return Array.from(document.querySelectorAll('main *, header *')).filter(e => e.checkVisibility() && "
        "!e.closest('.unseen') && !e.matches('.skip') && (e.getBoundingClientRect().right > innerWidth + 1 || "
        "e.getBoundingClientRect().left < -1)).map(e => e.outerHTML.slice(0, 100))")
    assert beyond == []
    small = window.run(
        "return Array.from(document.querySelectorAll('td > a, summary, .choices label, input[type=search], select'))"
        ".filter(e => e.checkVisibility()).map(e => [e.getBoundingClientRect(), e]).filter(([r]) => r.height < 24 || "
        "r.width < 24).map(([r, e]) => e.outerHTML.slice(0, 80))")
    assert small == []
    # A signer's name stands with its sign, since there are no columns here.
    assert "carol: MISMATCH" in visible(window, "td .who")
    assert window.run("return document.querySelector('td .who').getBoundingClientRect().width") > 20


def _luminance(colour: list[float]) -> float:
    """Relative luminance (WCAG 2.2)."""
    parts = [value / 255 / 12.92 if value / 255 <= 0.04045 else ((value / 255 + 0.055) / 1.055) ** 2.4
             for value in colour[:3]]
    return 0.2126 * parts[0] + 0.7152 * parts[1] + 0.0722 * parts[2]


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_contrast(desk: Browser, page: str, scheme: str) -> None:
    """4.5 to 1 for every text (WCAG 2.2, 1.4.3), in both colour schemes."""
    desk.colours(scheme)
    try:
        desk.open(page)
        desk.run("document.querySelectorAll('details').forEach(d => { d.open = true; })")
        found = desk.run("""
            const numbers = text => text.match(/[0-9.]+/g).map(Number);
            const back = e => { for (; e; e = e.parentElement) { const c = numbers(getComputedStyle(e).backgroundColor);
                if (c.length < 4 || c[3] > 0) return c; } return [255, 255, 255]; };
            return Array.from(document.querySelectorAll('body *')).filter(e => e.checkVisibility() &&
                Array.from(e.childNodes).some(n => n.nodeType === 3 && n.data.trim())).map(e =>
                [numbers(getComputedStyle(e).color), back(e), e.outerHTML.slice(0, 80)]);""")
        assert len(found) > 100
        for ink, paper, where in found:
            light, dark = sorted((_luminance(ink), _luminance(paper)), reverse=True)
            assert (light + 0.05) / (dark + 0.05) >= 4.5, (scheme, where, ink, paper)
        paper = desk.run("return getComputedStyle(document.body).backgroundColor")
        assert (paper == "rgb(255, 255, 255)") is (scheme == "light")
    finally:
        desk.colours("light")


def test_for_readers_of_the_screen(desk: Browser) -> None:
    """What the browser tells a screen reader: headers of columns and rows, cells in words, no sign without them."""
    nodes = desk.command("Accessibility.getFullAXTree")["nodes"]
    told = [(node["role"]["value"], " ".join(node.get("name", {}).get("value", "").replace(" :", ":").split()))
            for node in nodes if not node["ignored"]]
    assert ("columnheader", "alice") in told
    assert any(role == "rowheader" and name.replace(" ", "").startswith("1.5pkg") for role, name in told)
    assert ("link", "carol: MISMATCH") in told, [each for each in told if each[0] == "link"]
    assert {name for role, name in told if role == "table"} == {"Signers of Releases", "Signers of evil"}
    assert any(role == "DisclosureTriangle" and "details of 1.5 pkg" in name for role, name in told), \
        [each for each in told if "details of" in each[1]][:3]


@needs_shared
def test_a_page_of_real_trees(window: Browser, tmp_path: Path) -> None:
    made = Commands(home=tmp_path).run("gverify", "--all", "-d", FIXTURES / "sigs", "--keyring", FIXTURES / "keys",
                                       "--only-keyring", "--html", tmp_path / "page.html", check=False)
    assert made.returncode == 1, made.stderr
    window.scripts(True)
    for width in (1280, 390):
        window.size(width, 844, phone=width < 500)
        window.open((tmp_path / "page.html").as_uri())
        assert len(releases(window)) == 26
        assert window.run("return document.documentElement.scrollWidth") <= width
        assert window.picture().startswith(b"\x89PNG")
    assert window.complaints() == []
