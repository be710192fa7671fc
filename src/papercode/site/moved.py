"""Part of a note as it can stand on another page: links lead where they led, nothing runs a second time."""

import posixpath
import re
from collections.abc import Iterator

from papercode.site.fences import Fence, fences
from papercode.site.header import relative
from papercode.site.prose import without_code

LONG = 9
"""Lines of code beyond which a fence stays in the note."""

_LINK = re.compile(r"\]\((?P<target>[^()\s]+)")
_FOOTNOTE = re.compile(r"^\[\^[^\]\n]+\]:.*(?:\n {4}.*)*|\[\^[^\]\n]+\]", re.MULTILINE)
_ID = re.compile(r"(?<=\{)\s*:?\s*#[\w-]+\s*(?=\})")
_MARK = re.compile(r"[> ]*(?:`{3,}|~{3,})")


def moved(body: str, here: str, page: str, place: str) -> str:
    """`body`, which stands on the page `here`, as Markdown for `page`.

    Args:
        body: Markdown that starts at the margin.
        here: the source of the page that it is taken from, from the root of the site.
        page: the source of the page that it is put on.
        place: the address of the place it is taken from, as `page` links to it.

    Returns:
        The same with claims as plain code, with links in place of figures and long code, without footnotes and ids.
    """
    for start, end, new in reversed(list(_changes(body, here, page))):
        body = body[:start] + new + body[end:]
    lines = body.split("\n")
    for fence in reversed(list(fences(body))):
        if fence.executed:
            lines[fence.line - 1 : fence.end] = _shown(fence, lines[fence.line - 1 : fence.end], place)
    return "\n".join(lines)


def _shown(fence: Fence, lines: list[str], place: str) -> list[str]:
    if fence.html:
        name = fence.options.get("title", "").partition(".")[0] or "The picture"
        link = f"[{name}]({place}) is in the note."
    elif len(lines) - 2 > LONG:
        link = f"[{len(lines) - 2} lines of code]({place}) are in the note."
    else:
        mark = _MARK.match(lines[0])
        assert mark, lines[0]  # a fence begins with one
        return [f"{mark[0]}{fence.language}", *lines[1:]]
    return ["", f"{fence.indent}{link}", ""]


def _changes(text: str, here: str, page: str) -> Iterator[tuple[int, int, str]]:
    """(start, end, new text) of what must differ in the prose, from first to last."""
    prose = without_code(text)
    found = [(*link.span("target"), _target(link["target"], here, page)) for link in _LINK.finditer(prose)]
    found += [(*match.span(), "") for pattern in (_FOOTNOTE, _ID) for match in pattern.finditer(prose)]
    yield from sorted(found)


def _target(target: str, here: str, page: str) -> str:
    if re.match(r"[a-z][a-z+.-]*:|/", target):
        return target
    path, mark, fragment = target.partition("#")
    there = posixpath.normpath(posixpath.join(posixpath.dirname(here), path)) if path else here
    return relative(f"{there}{mark}{fragment}", page)
