"""What ``gitian vary`` has found, as one page that needs nothing else.

Every text is made plain (control and bidirectional characters escaped) and then escaped for HTML. Should something slip
through: the page's own policy lets no script run, no style but the one that it has, and fetches nothing.
"""

from __future__ import annotations

import base64
import hashlib
import html
import time
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from gitian.cli.vary_text import remarks, title
from gitian.host.progress import plain
from gitian.vary.outcome import State

if TYPE_CHECKING:
    from gitian.vary.findings import Difference
    from gitian.vary.outcome import Explained, Found, Outcome

#: So many outputs of one cause stand on the page, and so many findings of one output.
_OUTPUTS = 500
_FINDINGS = 50

_CLASSES = {State.HELD: "ok", State.DIFFERS: "bad", State.AS: "bad", State.FAILS: "bad", State.NO_EFFECT: "odd",
            State.OPEN: "odd", State.NOT_TRIED: "none"}

_STYLE = """
:root { color-scheme: light dark; font: 100%/1.5 system-ui, sans-serif; --line: #8886; }
body { max-width: 70rem; margin: 0 auto; padding: 1rem; }
table { border-collapse: collapse; width: 100%; }
caption { text-align: left; font-weight: bold; padding: .5rem 0; }
th, td { text-align: left; vertical-align: top; padding: .3rem .6rem; border-bottom: 1px solid var(--line); }
td, li, p, code { overflow-wrap: anywhere; }
.wide { overflow-x: auto; }
.ok { color: #176f2c; } .bad { color: #b3261e; font-weight: bold; } .odd { color: #8a5a00; font-weight: bold; }
.none, .soft { color: #666; }
@media (prefers-color-scheme: dark) {
  .ok { color: #7bd88f; } .bad { color: #ff9d94; } .odd { color: #f0c674; } .none, .soft { color: #aaa; }
}
section { border: 1px solid var(--line); border-radius: .4rem; padding: 0 1rem .5rem; margin: 1rem 0; }
pre { white-space: pre-wrap; overflow-wrap: anywhere; }
summary { cursor: pointer; }
"""


def text(value: object) -> str:
    """A text from anywhere, fit to stand in HTML, in an attribute too."""
    return html.escape(plain(str(value)), quote=True)


def page(outcome: Outcome) -> str:
    """The whole page."""
    return "".join(_pieces(outcome))


def _pieces(outcome: Outcome) -> Iterator[str]:
    digest = base64.b64encode(hashlib.sha256(_STYLE.encode()).digest()).decode()
    policy = f"default-src 'none'; style-src 'sha256-{digest}'; img-src data:; base-uri 'none'; form-action 'none'"
    heading = f"Variations of {text(outcome.name)}"
    yield (f'<!DOCTYPE html>\n<html lang="en" dir="ltr">\n<head>\n<meta charset="utf-8">\n'
           f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n'
           '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
           '<meta name="referrer" content="no-referrer">\n<link rel="icon" href="data:,">\n'
           f"<title>{heading}</title>\n<style>{_STYLE}</style>\n</head>\n<body>\n<main>\n<h1>{heading}</h1>\n")
    word = '<strong class="ok">Held</strong>' if outcome.held else '<strong class="bad">Not held</strong>'
    yield (f"<p>{word}: {len(outcome.differing)} of {outcome.outputs} outputs differ. {outcome.builds} builds of "
           f"{text(', '.join(outcome.targets))} under {text(outcome.backend.upper())} in {outcome.seconds / 60:.1f} "
           f'minutes. <span class="soft">{time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime())}</span></p>\n')
    if outcome.unfinished is not None:
        yield f'<p class="odd">The search is not finished: {text(outcome.unfinished)}</p>\n'
    if outcome.missed:
        yield f'<p class="odd">Not tried: {text(", ".join(outcome.missed))}</p>\n'
    for left in outcome.left:
        yield f'<p class="odd">Not found out: {text(left)}</p>\n'
    if outcome.random is not None:
        yield from _section("Random without any variation", outcome.random)
    yield from _table(outcome)
    for cause in outcome.causes:
        yield from _section(title(cause), cause)
    yield "</main>\n<footer><p>Made by gitian vary.</p></footer>\n</body>\n</html>\n"


def _table(outcome: Outcome) -> Iterator[str]:
    yield ('<div class="wide"><table>\n<caption>Variations</caption>\n<thead><tr><th scope="col">Variation</th>'
           '<th scope="col">Changes</th><th scope="col">Result</th><th scope="col">Remarks</th>'
           '<th scope="col">Seen in the guest</th></tr></thead>\n<tbody>\n')
    for one in outcome.variations:
        probes = "".join(f"<li>{text(label)}: <code>{text(before)}</code> → <code>{text(after)}</code></li>"
                         for label, (before, after) in one.probes.items())
        yield (f'<tr><th scope="row">{text(one.name)}</th><td>{text(one.what)}</td>'
               f'<td class="{_CLASSES[one.state]}">{text(one.state.value)}</td>'
               f"<td>{text('; '.join(remarks(one)))}</td><td>"
               + (f"<details><summary>probe</summary><ul>{probes}</ul></details>" if probes else "") + "</td></tr>\n")
    yield "</tbody>\n</table></div>\n"


def _section(heading: str, found: Found) -> Iterator[str]:
    yield f"<section>\n<h2>{text(heading)}</h2>\n"
    if found.fails is not None:
        yield f"<pre>{html.escape(plain(found.fails, lines=True), quote=True)}</pre>\n"
    yield from _outputs(found.differences)
    yield "</section>\n"


def _outputs(differences: Iterable[Explained]) -> Iterator[str]:
    every = list(differences)
    for one in every[:_OUTPUTS]:
        yield f"<h3>{text(one.path)}</h3>\n"
        if one.difference is not None:
            yield from _difference(one.difference)
        for remark in filter(None, (one.note, one.problem)):
            yield f'<p class="soft">{text(remark)}</p>\n'
        for path in one.reports:
            yield f'<p class="soft">diffoscope: {text(path)}</p>\n'
    if len(every) > _OUTPUTS:
        yield f"<p>and {len(every) - _OUTPUTS} outputs more</p>\n"


def _difference(difference: Difference) -> Iterator[str]:
    yield "<ul>\n"
    for line in difference.summary[:_FINDINGS]:
        yield f"<li>{text(line)}</li>\n"
    beyond = max(0, len(difference.findings) - _FINDINGS) + difference.more
    if beyond:
        yield f"<li>and {beyond} more</li>\n"
    yield "</ul>\n"
    if difference.unfinished:
        yield f'<p class="soft">{text(difference.unfinished)}</p>\n'
    for hint in difference.hints:
        yield (f"<p><strong>{'' if hint.sure else 'Perhaps: '}{text(hint.cause.value)}</strong> at "
               f"<code>{text(hint.place)}</code>: {text(hint.evidence)}. {text(hint.remedy)} "
               f'<a rel="noreferrer" href="{text(hint.reference)}">More</a></p>\n')
