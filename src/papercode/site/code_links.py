"""Links the names in highlighted code to what they mean, without changing its text."""

import html
import re
from collections.abc import Callable, Iterable, Iterator, Sequence

from papercode.site.code_names import Name
from papercode.site.symbols import Symbol

_BLOCK = re.compile(
    r'<div class="language-(?:pycon|python)[ "](?:(?!</div>).)*?<pre>(?:<span></span>)?<code[^>]*>'
    r"(.*?)</code></pre></div>",
    re.DOTALL,
)
_TOKEN = re.compile(r'(<span class="[^"]*">)([^<]*)</span>|(<[^>]*>)|([^<]+)')


def blocks(page: str, codes: Sequence[str]) -> Iterator[tuple[int, re.Match[str]]]:
    """The highlighted blocks of a page's HTML that show one of `codes`, which stand in the same order.

    Yields:
        The index of the code, and the match whose first group is the HTML of the block's text.
    """
    at = 0
    for match in _BLOCK.finditer(page):
        text = plain_text(match[1]).rstrip("\n")
        found = next((n for n in range(at, len(codes)) if codes[n].rstrip("\n") == text), None)
        if found is not None:
            yield found, match
            at = found + 1


def plain_text(code: str) -> str:
    """The text of highlighted code."""
    return html.unescape(re.sub(r"<[^>]*>", "", code))


def link(code: str, names: Iterable[Name], address: Callable[[Symbol | str], str | None]) -> str:
    """Highlighted `code` in which `names` are links.

    What an import names is always one; of a name that is used, only the first in the block, so that reading by
    keyboard stays possible.

    Args:
        code: the HTML that Pygments made, a `span` to a token.
        names: what stands where in it.
        address: where a symbol or a module is told of; None if nowhere.
    """
    wanted = {(name.line, name.column): (name, href) for name, href in _once(names, address)}
    line = column = 0
    parts = []
    for opening, token, tag, text in _TOKEN.findall(code):
        shown = html.unescape(token or text)
        name, href = wanted.get((line, column), (None, ""))
        if opening and name and name.text == shown:
            parts.append(f'<a class="code-link" href="{html.escape(href)}">{opening}{token}</span></a>')
        else:
            parts.append(f"{opening}{token}</span>" if opening else tag or text)
        line += shown.count("\n")
        column = len(shown) - shown.rfind("\n") - 1 if "\n" in shown else column + len(shown)
    return "".join(parts)


def _once(names: Iterable[Name], address: Callable[[Symbol | str], str | None]) -> Iterator[tuple[Name, str]]:
    used = set()
    for name in names:
        href = address(name.target)
        if href and (name.imported or name.target not in used):
            yield name, href
        if not name.imported:
            used.add(name.target)
