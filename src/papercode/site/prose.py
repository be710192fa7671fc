"""What of a Markdown text is prose: the same lines with front matter, code and comments blanked."""

import re

from papercode.site.fences import fences

BLANK = "\x02"
"""Stands for each character of inline code; Python-Markdown marks what it has dealt with by the same character."""

_FRONT_MATTER = re.compile(r"\A---\n(?:.*?\n)?---(?:\n|\Z)", re.DOTALL)
_BLOCK_COMMENT = re.compile(r"^ {0,3}<!--.*?-->", re.DOTALL | re.MULTILINE)
_COMMENT = re.compile(r"<!--.*?-->", re.DOTALL)
_CODE = re.compile(r"(?<![\\`])(`+)(?!`)(?:(?!\n[ \t]*\n).)+?(?<!`)\1(?!`)", re.DOTALL)
_CONTAINER = re.compile(r"[ ]*(?:(?:!!!|\?\?\?\+?|===)[ \t]|[-*+][ \t]|\d+\.[ \t]|:[ \t]|\[\^[^\]]+\]:|///)")


def without_code(text: str) -> str:
    """`text` without front matter, code and comments, its line numbers and columns kept.

    Fenced and indented code blocks, front matter and comments become blank lines; each character of inline code
    becomes `BLANK`.
    """
    text = _blank(_FRONT_MATTER, text, " ")
    lines = text.split("\n")
    fenced: set[int] = set()
    for fence in fences(text):
        fenced.update(range(fence.line - 1, fence.end))
    text = _blank(_BLOCK_COMMENT, "\n".join(_without_blocks(lines, fenced)), " ")
    return _blank(_COMMENT, _blank(_CODE, text, BLANK), " ")


def line_of(text: str, position: int) -> int:
    """The line, from 1, on which the character at `position` stands."""
    return text.count("\n", 0, position) + 1


def _blank(pattern: re.Pattern[str], text: str, filler: str) -> str:
    return pattern.sub(lambda match: re.sub(r"[^\n]", filler, match[0]), text)


def _without_blocks(lines: list[str], fenced: set[int]) -> list[str]:
    """Blanks fenced lines, and code made by four spaces as opposed to what belongs to an admonition or a list item."""
    indents: list[int] = []  # how far the content of each open container is indented
    result, in_code, after_blank = [], False, True
    for number, line in enumerate(lines):
        if not line.strip() or (number in fenced and number - 1 in fenced):
            result.append(" " * len(line))
            after_blank = number not in fenced
            continue
        indent = len(line.expandtabs(4)) - len(line.expandtabs(4).lstrip())
        if after_blank:
            while indents and indent < indents[-1]:
                indents.pop()
            in_code = indent >= (indents[-1] if indents else 0) + 4
        if not in_code and _CONTAINER.match(line):
            while indents and indent < indents[-1]:
                indents.pop()
            indents.append(indent + 4)
        result.append(" " * len(line) if in_code or number in fenced else line)
        after_blank = False
    return result
