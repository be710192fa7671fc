r"""The formulas of a Markdown text as pymdownx.arithmatex sees them, and what it would leave on the page as raw TeX.

A text is taken apart into pieces the way Python-Markdown does it: blocks between blank lines, list items, headings,
cells of tables, what stands in admonitions and quotes. A piece that is nothing but `$$…$$`, `\[…\]` or
`\begin{…}…\end{…}` is a display formula; in any other piece `$…$` and `\(…\)` are inline. The patterns are its own.
"""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from pymdownx.arithmatex import (
    RE_BRACKET_BLOCK,
    RE_BRACKET_INLINE,
    RE_DOLLAR_BLOCK,
    RE_SMART_DOLLAR_INLINE,
    RE_TEX_BLOCK,
)

from papercode.site.problem import Problem
from papercode.site.prose import BLANK, line_of, without_code

_BLOCK = re.compile(rf"(?s)^(?:{RE_DOLLAR_BLOCK}|{RE_BRACKET_BLOCK}|{RE_TEX_BLOCK})[ ]*$")
_INLINE = re.compile(rf"(?:{RE_SMART_DOLLAR_INLINE}|{RE_BRACKET_INLINE})")
_ESCAPED = re.compile(r"(?<!\\)(?:\\\\)+(?=\$|\\\()")
_TWO_DOLLARS = re.compile(r"(?<!\\)(?:\\\\)*\$\$")
_TAGS = (
    "address|article|aside|blockquote|center|details|div|dd|dl|dt|fieldset|figcaption|figure|footer|form|header|li|main"
    "|nav|ol|p|pre|script|section|style|summary|table|textarea|ul"
)
_RAW_HTML = re.compile(rf"^ {{0,3}}<(?P<tag>{_TAGS})\b(?P<attributes>[^>]*)>.*?</(?P=tag)>", re.M | re.S | re.I)
_TAG = re.compile(rf"</?(?:{_TAGS})\b[^>]*>", re.IGNORECASE)
_BLOCK_WITHIN = re.compile(  # \[ followed by TeX or by nothing, as opposed to an escaped bracket
    r"\\\[(?=(?:(?!\\\])[^\n])*(?:[\^_={]|\\(?!\]))|\s*$)|\\begin\{[a-z]+\*?\}", re.MULTILINE
)
_TITLED = re.compile(r"(?:!!!|\?\?\?\+?|===[!+]*)[ ]")
_HEADING = re.compile(r"#{1,6}")
_RULE = re.compile(r" {0,3}(?:(?:-+ {0,2}){3,}|(?:_+ {0,2}){3,}|(?:\*+ {0,2}){3,})$|(?:=+|-+) *$|///")
_ITEM = re.compile(r" {0,3}(?:\d+\.|[*+-]) +")
_NESTED_ITEM = re.compile(r" {4,7}(?:\d+\.|[*+-]) +")
_QUOTE = re.compile(r" {0,3}> ?")
_NOTE = re.compile(r" {0,3}(?:\[\^[^\]]*\]:|:) +")
_TABLE_RULE = re.compile(r" *\|?(?: *:?-+:? *\|)* *:?-+:? *\|? *$")
_CELL_BORDER = re.compile(r"(?<!\\)\|")

_Lines = list[tuple[int, str]]


@dataclass(frozen=True)
class Formula:
    """A formula: the line on which it starts (from 1), its TeX without delimiters, and whether it is displayed."""

    line: int
    tex: str
    display: bool


@dataclass(frozen=True)
class _Piece:
    """Text that Python-Markdown renders on its own, and the line of its first character."""

    line: int
    text: str


def find_formulas(text: str) -> list[Formula]:
    """The formulas of a Markdown text from top to bottom; none is found in code, comments or raw HTML."""
    found = []
    for piece in _pieces(text):
        if block := _BLOCK.match(piece.text):
            tex = block["math"] or block["math2"] or block["math3"]
            lead = piece.text.index(tex) + len(tex) - len(tex.lstrip())
            found.append(Formula(piece.line + line_of(piece.text, lead) - 1, tex.strip(), True))
        else:
            for match in _inline(piece.text):
                line = piece.line + line_of(piece.text, match.start()) - 1
                found.append(Formula(line, match[3] or match[6], False))
    return found


def lint_math(path: Path, text: str) -> list[Problem]:
    """What arithmatex would leave as raw TeX, or read otherwise than it is meant, in the text of the file `path`."""
    problems = []

    def report(piece: _Piece, position: int, message: str) -> None:
        problems.append(Problem(path, piece.line + line_of(piece.text, position) - 1, message))

    opened: _Piece | None = None  # a piece that ends inside $$
    for piece in _pieces(text):
        if len(_marks(piece.text)) % 2 == 0:
            if opened is None:
                _lint_piece(piece, report)
        elif opened is None:
            opened = piece
        else:
            after = opened.line + opened.text.count("\n")
            message = f"the formula that starts here is cut after line {after}: no blank lines, no list items inside $$"
            report(opened, _marks(opened.text)[-1], message)
            opened = None
    if opened is not None:
        report(opened, _marks(opened.text)[-1], "this $$ is never closed: add the second one")
    masked = without_code(text)
    for match in _RAW_HTML.finditer(masked):
        if _is_raw(match) and match["tag"].lower() not in ("script", "style", "pre", "textarea"):
            signs = list(re.finditer(r"(?<!\\)\$|\\[(\[]|\\begin\{", match[0]))
            if len(signs) > 1 or (signs and signs[0][0] != "$"):
                line = line_of(masked, match.start() + signs[0].start())
                message = f'a formula in raw HTML stays TeX: write <{match["tag"]} markdown="1"> (or "span" for a line)'
                problems.append(Problem(path, line, message))
    return sorted(problems)


def _lint_piece(piece: _Piece, report: Callable[[_Piece, int, str], None]) -> None:
    text, marks, rest = piece.text, _marks(piece.text), _without_inline(piece.text)
    if _BLOCK.match(text):
        if len(marks) > 2:
            report(piece, marks[2], "two formulas in one block: put a blank line between them")
    elif marks:
        first, last = marks[0], marks[-1]
        if _BLOCK.match(text.strip(" ")):
            message = "indent the formula by 0, 4, 8 … spaces, like the list or admonition it stands in"
        elif not text[:first].strip() and "\n" in text[first:last]:
            message = "put a blank line after the closing $$"
        elif not text[last + 2 :].strip() and text[:first].rstrip(" ").endswith("\n"):
            message = "put a blank line before the opening $$"
        else:
            message = "$$ within a paragraph stays TeX: write $…$, or put the formula between blank lines"
        report(piece, first, message)
    elif match := _BLOCK_WITHIN.search(rest):
        name = match[0].replace("\\[", "\\[…\\]")
        report(piece, match.start(), f"{name} is a formula only between blank lines, and without any inside")
    elif match := re.search(r"(?<!\\)\$", rest):
        message = "this $ opens no formula: close it, leave no space just inside the dollars, or write \\$ for the sign"
        report(piece, match.start(), message)
    elif match := re.search(r"(?<!\\)\\[()]", rest):
        report(piece, match.start(), f"this {match[0]} has no partner: inline formulas are $…$ or \\(…\\)")


def _inline(text: str) -> list[re.Match[str]]:
    """The inline formulas of a piece; group 3 or 6 of each holds the TeX."""
    text = _ESCAPED.sub(lambda match: BLANK * len(match[0]), text)
    return [match for match in _INLINE.finditer(text) if match[3] or match[6]]


def _without_inline(text: str) -> str:
    text = _ESCAPED.sub(lambda match: BLANK * len(match[0]), text)
    for match in _inline(text):
        text = text[: match.start()] + re.sub(r"[^\n]", BLANK, match[0]) + text[match.end() :]
    return text


def _marks(text: str) -> list[int]:
    """Where `$$` stands, as opposed to the end of one inline formula beside the start of the next."""
    rest = _without_inline(text)
    ends = [match.end() for match in _TWO_DOLLARS.finditer(text)]
    return [end - 2 for end in ends if "$" in rest[end - 2 : end]]


def _is_raw(match: re.Match[str]) -> bool:
    return not re.search(r"\bmarkdown\b", match["attributes"])


def _pieces(text: str) -> Iterator[_Piece]:
    text = without_code(text)
    text = _RAW_HTML.sub(lambda match: re.sub(r"[^\n]", " ", match[0]) if _is_raw(match) else match[0], text)
    text = _TAG.sub("", text)
    yield from _blocks([(number, line.expandtabs(4)) for number, line in enumerate(text.split("\n"), 1)])


def _blocks(lines: _Lines) -> Iterator[_Piece]:
    """Splits at blank lines; what is indented belongs to a container and moves left by whole levels of four spaces."""
    block: _Lines = []
    for number, line in [*lines, (0, "")]:
        if line.strip():
            block.append((number, line))
        elif block:
            level = _indent(block[0][1]) // 4 * 4
            yield from _parts([(n, text[min(level, _indent(text)) :]) for n, text in block])
            block = []


def _indent(line: str) -> int:
    return len(line) - len(line.lstrip())


def _parts(lines: _Lines) -> Iterator[_Piece]:
    """Takes one block apart, in the order in which Python-Markdown's processors look at it."""
    if not lines:
        return
    number, first = lines[0]
    whole = _Piece(number, "\n".join(line for _, line in lines))
    if (at := _first(_TITLED, lines)) is not None:
        yield from _parts(lines[:at])
        yield _Piece(*lines[at])
        end = next((n for n in range(at + 1, len(lines)) if _indent(lines[n][1]) < 4), len(lines))
        yield from _blocks([(n, line[4:]) for n, line in lines[at + 1 : end]])
        yield from _parts(lines[end:])
    elif _BLOCK.match(whole.text):
        yield whole
    elif len(lines) > 1 and "|" in first and _TABLE_RULE.match(lines[1][1]):
        for n, line in lines:
            yield from (_Piece(n, cell) for cell in _CELL_BORDER.split(line))
    elif (at := _first(_HEADING, lines)) is not None:
        yield from _parts(lines[:at])
        yield _Piece(*lines[at])
        yield from _parts(lines[at + 1 :])
    elif (at := _first(_RULE, lines)) is not None:
        yield from _parts(lines[:at])
        yield from _parts(lines[at + 1 :])
    elif _ITEM.match(first):
        yield from _items(lines)
    elif (at := _first(_QUOTE, lines)) is not None:
        yield from _parts(lines[:at])
        yield from _blocks([(n, _QUOTE.sub("", line, count=1)) for n, line in lines[at:]])
    elif note := _NOTE.match(first):
        yield from _parts([(number, first[note.end() :]), *lines[1:]])
    else:
        yield whole


def _items(lines: _Lines) -> Iterator[_Piece]:
    item: _Lines = []
    for number, line in lines:
        marker = _ITEM.match(line)
        if marker or _NESTED_ITEM.match(line):
            yield from _parts(item)
            item = [(number, line[marker.end() :] if marker else line[4:])]
        else:
            item.append((number, line))
    yield from _parts(item)


def _first(pattern: re.Pattern[str], lines: _Lines) -> int | None:
    return next((at for at, (_, line) in enumerate(lines) if pattern.match(line)), None)
