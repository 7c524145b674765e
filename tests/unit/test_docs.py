"""What the documents say is there: files that are linked to, and every command and option in its reference."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from gitian.cli.main import COMMANDS, TARGET_COMMANDS, load

ROOT = Path(__file__).resolve().parents[2]
REFERENCE = ROOT / "docs" / "reference"
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])

#: Commands whose reference is not a page of their own name.
PAGE_OF = {**dict.fromkeys(TARGET_COMMANDS, "libexec"), "keys": "gverify", "canon-zip": "canon"}


def options_of(name: str) -> list[click.Option]:
    """The options of a command and of its subcommands, but those that only tell how to do without them."""
    command = load(name)
    commands = [command]
    if isinstance(command, click.Group):
        context = click.Context(command)
        found = [command.get_command(context, other) for other in command.list_commands(context)]
        commands += [one for one in found if one is not None]
    return [parameter for one in commands for parameter in one.params
            if isinstance(parameter, click.Option) and not parameter.hidden]


def spellings_of(*names: str) -> set[str]:
    """Every way to write an option of these commands."""
    return {"-h", "--help"} | {spelling for name in names for option in options_of(name)
                               for spelling in (*option.opts, *option.secondary_opts)}


def without_code(text: str) -> str:
    """A page without its examples."""
    return re.sub(r"^```.*?^```|^    .*?$", "", text, flags=re.MULTILINE | re.DOTALL)


def links(page: Path) -> Iterator[str]:
    for match in re.finditer(r"\]\(([^)\s]+)\)", page.read_text()):
        yield match[1]


def anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, as the usual renderers make them."""
    found = set()
    for line in without_code(page.read_text()).splitlines():
        if match := re.match(r"#+ (.*)", line):
            words = re.sub(r"[^\w\- ]", "", re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", match[1]).lower())
            found.add(words.replace(" ", "-"))
    return found


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    for link in links(page):
        place, _, anchor = link.partition("#")
        if re.match("[a-z]+:", link):
            continue
        target = (page.parent / place).resolve() if place else page
        assert target.is_relative_to(ROOT) and target.exists(), link
        if anchor:
            assert anchor in anchors(target), link


def test_every_page_can_be_found_from_the_readme() -> None:
    reached, ahead = set(), [ROOT / "README.md"]
    while ahead:
        page = ahead.pop()
        if page not in reached and page.suffix == ".md":
            reached.add(page)
            ahead += [(page.parent / link.partition("#")[0]).resolve() for link in links(page)
                      if not re.match("[a-z]+:|#", link)]
    assert [str(page.relative_to(ROOT)) for page in PAGES if page not in reached] == []


@pytest.mark.parametrize("name", [*COMMANDS, *TARGET_COMMANDS])
def test_every_option_is_in_the_reference_of_its_command(name: str) -> None:
    page = REFERENCE / f"{PAGE_OF.get(name, name)}.md"
    assert page.is_file(), f"'{name}' has no reference"
    text = page.read_text()
    for option in options_of(name):
        assert any(re.search(rf"(?<![\w-]){re.escape(word)}(?![\w-])", text) for word in option.opts), \
            f"{option.opts} of '{name}' is not in {page.relative_to(ROOT)}"


@pytest.mark.parametrize("name", [*COMMANDS, *TARGET_COMMANDS])
def test_every_option_in_a_table_of_the_reference_exists(name: str) -> None:
    known = spellings_of(*(other for other in [*COMMANDS, *TARGET_COMMANDS]
                           if PAGE_OF.get(other, other) == PAGE_OF.get(name, name)))
    text = (REFERENCE / f"{PAGE_OF.get(name, name)}.md").read_text()
    for row in re.findall(r"^\| (`-.*?) \|", text.replace(r"\|", "/"), flags=re.MULTILINE):
        for word in re.findall(r"(?<![\w-])--?[A-Za-z][\w-]*", row):
            assert word in known, f"{word}, of which {name}'s reference tells, does not exist"


def test_every_example_of_a_command_line_is_one() -> None:
    """Each of our commands in an indented example or a code span has options that it takes."""
    names = sorted([*COMMANDS, *TARGET_COMMANDS], key=len, reverse=True)
    pattern = re.compile(rf"(?:^    |`)(?:[A-Z_]+=\S+ )*(?:gitian )?(?:bin/|libexec/)?({'|'.join(names)}) ([^`\n#]*)",
                         re.MULTILINE)
    seen = 0
    for page in PAGES:
        for name, rest in pattern.findall(page.read_text()):
            known = spellings_of(name)
            line = re.sub(r"""'[^']*'|"[^"]*\"""", "x", rest)
            if name == "on-target":  # what follows the command's name is the target's
                continue
            for word in re.findall(r"(?<![\w-])--[a-z][\w-]*", line):
                assert word in known, f"{page.relative_to(ROOT)}: {name} {rest}"
                seen += 1
    assert seen > 20


def test_nothing_says_where_it_was_made() -> None:
    """No archive, registry or path of one machine: what runs elsewhere must not depend on them."""
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=False)
    if listed.returncode != 0:
        pytest.skip("not a git checkout")
    words = re.compile("|".join((r"deb\." r"debian\.org", r"security\." r"debian\.org", r"archive\." r"ubuntu\.com",
                                 r"snapshot\." r"debian\.org", r"pypi\." r"org", r"(?<![\w}.*/-])/work" r"/")))
    found = []
    for name in listed.stdout.decode().split("\0"):
        path = ROOT / name
        # Recorded outputs of the classic are what they are.
        if name and path.is_file() and not path.is_symlink() and not name.startswith("tests/fixtures/"):
            found += [f"{name}: {match[0]}" for match in words.finditer(path.read_text(errors="replace"))]
    assert found == []
