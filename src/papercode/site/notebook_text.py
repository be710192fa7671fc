"""The Markdown of a note as Jupyter reads it: links that lead somewhere, citations as text, block quotes."""

import re
from collections.abc import Callable, Iterable, Iterator
from itertools import groupby

from markdown.extensions.toc import slugify

from papercode.site.bibliography import Bibliography
from papercode.site.citations import BARE, GROUP, key_in
from papercode.site.fences import Fence, fences
from papercode.site.places import Places

_ADMONITION = re.compile(r'(?P<indent> *)(?:!!!|\?\?\?\+?) (?P<kind>[\w-]+)[^"\n]*(?:"(?P<title>.*)")?\s*$')
_HEADING = re.compile(r"#{2,6} ")
_INLINE = re.compile(
    r"(?P<fence>^ *(?P<ticks>`{3,}|~{3,})[^\n]*\n.*?^ *(?P=ticks) *$)"
    r"|(?P<display>\$\$.+?\$\$)"
    r"|(?P<escaped>\\.)"
    r"|(?P<code>(?<!`)(?P<tick>`+)(?!`).+?(?<!`)(?P=tick)(?!`))"
    r"|(?P<math>\$(?!\s)(?:[^$\\]|\\.)+?(?<!\s)\$)"
    r"|(?P<image>!)?\[(?P<text>(?:`[^`]*`|\[[^\[\]]*\]|[^\[\]`])*)\]"
    r"(?:\((?P<target>[^()\s]*(?:\([^()\s]*\)[^()\s]*)?)\)|\[(?![@^])(?P<object>[^\[\]\s]*)\])(?:\{[^{}\n]*\})?"
    r"|(?P<kept><[A-Za-z/][^>]*>|\b[a-z]+://\S+)"
    rf"|(?P<cited>{GROUP})"
    rf"|(?P<bare>{BARE})"
    r"|(?P<attributes>[ \t]*\{:?[ ]*[.#][^{}\n]*\}[ \t]*$)",
    re.DOTALL | re.MULTILINE,
)


def parts(text: str, executed: Iterable[Fence], convert: Callable[[str], str]) -> Iterator[str | Fence]:
    """Prose and executed fences of a note from top to bottom; a heading begins a new piece of prose.

    Args:
        text: the note without what stands before its first heading of level 2.
        executed: the fences that become code; their lines count in `text`.
        convert: what is to be done with prose before admonitions become block quotes.
    """
    runs = {fence.line - 1: fence for fence in executed}
    listed = {fence.line - 1: fence for fence in fences(text)}
    lines: list[tuple[int, str]] = []  # of the piece at hand: how deep each line stands in admonitions, and the line
    depths: list[int] = []  # how far the contents of the open admonitions are indented
    source, number = text.split("\n"), 0
    while number < len(source):
        line = source[number]
        indent = len(line) - len(line.lstrip(" "))
        if line.strip():
            while depths and indent < depths[-1]:
                depths.pop()
        begins = _ADMONITION.match(line)
        if number in runs or (_HEADING.match(line) and number not in listed):
            yield from _prose(lines, convert)
            lines = []
        if number in runs:
            yield runs[number]
            number = runs[number].end
            continue
        if begins and number not in listed:
            lines.append((len(depths), ""))  # so that two quotes do not run into one
            depths.append(indent + 4)
            kind = begins["kind"].capitalize()
            lines += [(len(depths), f"**{kind}: {begins['title']}**" if begins["title"] else f"**{kind}**")]
            lines += [(len(depths), "")]
        else:
            end = listed[number].end if number in listed else number + 1
            lines += [(len(depths), row[depths[-1] if depths else 0 :]) for row in source[number:end]]
            number = end - 1
        number += 1
    yield from _prose(lines, convert)


def _prose(lines: list[tuple[int, str]], convert: Callable[[str], str]) -> Iterator[str]:
    blocks = []
    for depth, rows in groupby(lines, key=lambda line: line[0]):
        text = re.sub(r"\n{3,}", "\n\n", convert("\n".join(row for _, row in rows)).strip("\n"))
        if depth:  # a formula of several lines would swallow the marks of the quote
            text = re.sub(r"\$\$.+?\$\$", lambda match: " ".join(match[0].split()), text, flags=re.DOTALL)
            text = "\n".join(f"{'> ' * depth}{row}".rstrip() for row in text.split("\n"))
        if text.strip("> \n"):
            blocks.append(text)
    if blocks:
        yield "\n\n".join(blocks)


class Converter:
    """Makes the Markdown of one page such that Jupyter can show it.

    Args:
        page: the page, as MkDocs names sources; relative links start there.
        places: what links lead to.
        bibliography: what citations lead to.
        headings: the headings of the page, which Jupyter gives other anchors.
    """

    def __init__(self, page: str, places: Places, bibliography: Bibliography, headings: Iterable[str]):
        self.page, self.places, self.bibliography = page, places, bibliography
        self.anchors = {slugify(heading, "-"): heading.strip().replace(" ", "-") for heading in headings}

    def __call__(self, text: str) -> str:
        """`text` with its citations and links written out; code and formulas are left alone."""
        return _INLINE.sub(self._replace, text)

    def _replace(self, match: re.Match[str]) -> str:
        if match["text"] is not None:
            return self._link(match)
        if match["cited"]:
            items = [self._item(item.strip()) for item in match["cited"].strip("[] \n").split(";")]
            return f"({'; '.join(items)})"
        if match["bare"]:
            word = match["bare"].removeprefix("@")
            key = key_in(word, self.bibliography)
            return self._cite(key, parenthetical=False) + word[len(key) :] if key else match[0]
        if match["attributes"]:
            return ""
        return "@" if match[0] == r"\@" else match[0]

    def _link(self, match: re.Match[str]) -> str:
        text, target, name = match["text"], match["target"], match["object"]
        if target is None:
            address = self.places.object(name or text.strip("`"))
        elif target.startswith("#"):
            address = f"#{self.anchors.get(target[1:], target[1:])}"
        elif re.match(r"[a-z]+:", target):
            address = target
        else:
            address = self.places.linked(target, self.page)
        return f"{match['image'] or ''}[{text}]({address})" if address else text

    def _item(self, item: str) -> str:
        key, _, locator = item.removeprefix("@").partition(",")
        cited = self._cite(key.strip(), parenthetical=True)
        return f"{cited}, {locator.strip()}" if locator.strip() else cited

    def _cite(self, key: str, *, parenthetical: bool) -> str:
        entry = self.bibliography.get(key)
        if not entry:
            return f"@{key}"
        label = entry.parenthetical if parenthetical else entry.label
        address = entry.links[0][1] if entry.links else self.places.page(f"bibliography.md#{key}")
        return f"[{label}]({address})" if address else label
