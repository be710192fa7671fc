"""Finds the fenced code blocks of a Markdown text, with their lines, as pymdownx.superfences sees them."""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field

_OPENING = re.compile(r"(?P<indent>[> \t]*)(?P<fence>`{3,}|~{3,})[ \t]*(?P<info>[^`\n]*)$")
_OPTION = re.compile(r"""([a-zA-Z][\w-]*)(?:=(["'])(.*?)\2)?""")
_TRUE = {"1", "on", "true", "yes", "exec", "html"}


@dataclass(frozen=True)
class Fence:
    """A fenced code block. Lines are 1-based; `line` holds the opening fence, the code starts one below."""

    language: str
    options: dict[str, str]
    code: str
    line: int
    end: int
    indent: str = ""
    closed: bool = field(default=True, compare=False)

    @property
    def executed(self) -> bool:
        """Whether the author asked for this block to be run."""
        return self.options.get("exec", "off").lower() in _TRUE

    @property
    def html(self) -> bool:
        """Whether what the block prints is HTML or SVG, to be shown as it is."""
        return self.options.get("html", "off").lower() in _TRUE


def fences(text: str) -> Iterator[Fence]:
    """Yields the fenced code blocks of `text` from top to bottom, those inside admonitions and lists included."""
    lines = text.expandtabs(4).split("\n")  # as Markdown does: a form feed from a PDF ends no line
    number = 0
    while number < len(lines):
        opening = _OPENING.match(lines[number])
        if not opening:
            number += 1
            continue
        indent, fence = opening["indent"], opening["fence"]
        start, body, closed = number, [], False
        for line in lines[start + 1 :]:
            content = _inside(line, indent)
            closed = content is not None and content.rstrip() == fence
            if closed or content is None:
                break
            body.append(content)
        end = start + 1 + len(body) + closed
        number = start + 2 + len(body)  # superfences does not look again at a line that broke a fence
        language, _, rest = opening["info"].strip().partition(" ")
        options = {key: value if quote else key for key, quote, value in _OPTION.findall(rest)}
        yield Fence(language, options, "\n".join(body) + "\n", start + 1, end, indent, closed)


def _inside(line: str, indent: str) -> str | None:
    """`line` without what its fence is indented by; None if it stands further left, which breaks the fence off."""
    if line.startswith(indent):
        return line[len(indent) :]
    return None if line.strip("> " if ">" in indent else None) else ""


def without_fences(text: str) -> str:
    """`text` with the lines of its fenced code blocks blanked, so that line numbers stay true."""
    lines = text.split("\n")
    for fence in fences(text):
        lines[fence.line - 1 : fence.end] = [""] * (fence.end - fence.line + 1)
    return "\n".join(lines)
