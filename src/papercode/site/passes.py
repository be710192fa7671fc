"""How long the three passes of a note take to read; what the margin and the line under the title say of it."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from markdown.extensions.toc import slugify

from papercode.site.fences import fences
from papercode.site.notes import HEADINGS, body_lines

# what a reader spends on each; docs/reading.md tells readers
WORDS_A_MINUTE = 220
SECONDS_A_FORMULA = 15
SECONDS_A_FIGURE = 30
SECONDS_A_LINE_OF_CODE = 3

_PASSES = [heading for heading in HEADINGS if heading.startswith("## ")]
_WORD = re.compile(r"[^\W_](?:[\w'’.,:/-]*\w)?")
_CHINESE = re.compile(r"[\u3400-\u9fff]")  # read at about 1.6 characters to the time of a word
_FORMULA = re.compile(r"\$\$.+?\$\$", re.DOTALL)
_INLINE_FORMULA = re.compile(r"\$[^$\n]+\$")
_ADDRESS = re.compile(r"\]\([^)\s]*\)|\]\[[^\]]*\]|<[^>\n]*>")


@dataclass(frozen=True)
class Pass:
    """One pass of a note.

    Attributes:
        name: what it is called, "First pass".
        anchor: the id of its heading.
        minutes: how long it takes to read, at least 1.
    """

    name: str
    anchor: str
    minutes: int


def passes(text: str) -> list[Pass]:
    """The passes of a note's Markdown with their reading times; those whose heading is missing are left out."""
    lines = text.split("\n")
    starts = [(n, line.strip()) for n, line in enumerate(body_lines(text)) if line.strip() in _PASSES]
    found = []
    for (start, heading), (end, _) in zip(starts, [*starts[1:], (len(lines), "")], strict=False):
        title = heading.removeprefix("## ")
        minutes = max(1, round(seconds("\n".join(lines[start:end])) / 60))
        found.append(Pass(title.partition(" — ")[0], slugify(title, "-"), minutes))
    return found


def seconds(text: str) -> float:
    """How long it takes to read a piece of Markdown without front matter: its words, formulas, figures and code."""
    spent = 0.0
    for fence in fences(text):
        if fence.executed and fence.html:
            spent += SECONDS_A_FIGURE  # its code is folded
            continue
        spent += SECONDS_A_LINE_OF_CODE * sum(bool(line.strip()) for line in fence.code.split("\n"))
    prose = "\n".join(body_lines(text))
    spent += SECONDS_A_FORMULA * len(_FORMULA.findall(prose))
    prose = _ADDRESS.sub(" ", _INLINE_FORMULA.sub(" formula ", _FORMULA.sub(" ", prose)))
    chinese = len(_CHINESE.findall(prose))
    words = len(_WORD.findall(_CHINESE.sub(" ", prose))) + chinese / 1.6
    return spent + 60 * words / WORDS_A_MINUTE


def passes_line(found: Sequence[Pass]) -> str:
    """A line of links to the passes as Markdown, for narrow screens, which have no margin; empty if there are none."""
    if not found:
        return ""
    first, *others = found
    links = [f"[{first.name}](#{first.anchor}) {first.minutes} min"]
    links += [f"[{each.name.removesuffix(' pass')}](#{each.anchor}) {each.minutes} min" for each in others]
    return '<p class="passes" data-search-exclude="" markdown="span">' + " · ".join(links) + "</p>\n"
