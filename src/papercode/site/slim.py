"""Leaves out of a finished page what no reader would miss: blank lines, marks on code that show nothing."""

import re

_VERBATIM = re.compile(r"(<(?:pre|textarea|script|style)\b.*?</(?:pre|textarea|script|style)>)", re.DOTALL)
_PLAIN = re.compile(r'<span class="[nw]">([^<]*)</span>')
_SPACE = re.compile(r"[ \t]*\n\s*")


def slim(page: str) -> str:
    """The HTML of a page, smaller and the same to look at.

    Names and blanks in code look as code does without a mark. Runs of white space with a line break in them become one
    line break, which a browser shows as it showed them; what is verbatim stays.
    """
    parts = _VERBATIM.split(page)
    parts[::2] = [_SPACE.sub("\n", part) for part in parts[::2]]
    parts[1::2] = [_PLAIN.sub(r"\1", part) for part in parts[1::2]]
    return "".join(parts)
