r"""Citations in Markdown: `[@key]`, `[@key, sec. 3.2; @other]` and `@key` in running text.

A Python-Markdown extension, so that notes, pages and docstrings share it. Inline processors never see code, and the one
for bare keys runs after links, e-mail addresses and HTML tags have been taken out of the text. A parenthesis of unknown
keys is still a citation; a bare `@word` is one only if the bibliography has it or it looks like a key (letters, four
digits, letters), so that decorators and user names stay as they are. `\@` is a plain @ sign.
"""

import functools
import logging
import re
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from markdown import Markdown
from markdown.extensions import Extension
from markdown.inlinepatterns import InlineProcessor
from markdown.util import AtomicString

from papercode.site.bibliography import KEY, Bibliography, load_bibliography
from papercode.site.prose import line_of, without_code

_ITEM = rf"@{KEY}(?:,[^;@\[\]]*)?"
# not [@key](address), which is a link, nor [@key][reference]; [@a][@b] is two citations
GROUP = rf"\[\s*({_ITEM}(?:\s*;\s*{_ITEM})*)\s*\](?!\(|\[(?![@^]))"
"""A citation in brackets; its first group is what stands between them."""

BARE = rf"(?<![A-Za-z0-9@/\\.:+=&#%~-])(?<![A-Za-z0-9]_)@((?>{KEY}))(?![@/])"
"""What may be a citation in running text; its first group is the key and what may cling to it."""

_LOOKS_LIKE_KEY = re.compile(r"[A-Za-z]+\d{4}[A-Za-z][A-Za-z0-9_]*")
_NO_PROSE = re.compile(
    r"(?<!\\)\$[^$\n]+\$"  # math
    r"|\[[^\[\]]*\](?:\([^()\n]*(?:\([^()\n]*\)[^()\n]*)*\)|\[(?![@^])[^\[\]]*\])"  # links
    r"|^ {0,3}\[(?!\^)[^\]\n]+\]:[ \t]*\S+"  # the address of a reference
    r"|<[A-Za-z/][^>]*>|\b[a-z]+://\S+",  # tags and addresses
    re.MULTILINE,
)
_log = logging.getLogger(__name__)


def cited_keys(text: str, known: Collection[str] = frozenset()) -> list[tuple[str, int]]:
    """The citations of a Markdown text, whether the bibliography has them or not.

    Args:
        text: The Markdown; front matter, code, comments, addresses and tags in it are skipped.
        known: The keys of the bibliography. Those that do not look like a key (letters, four digits, letters) are found
            in running text only if they are in it.

    Returns:
        (key, line) of each citation from top to bottom, lines counted from 1.
    """
    return list(_cited(text, frozenset(known)))


@functools.lru_cache(maxsize=1024)  # while serving, the same pages are read again on every save
def _cited(text: str, known: frozenset[str]) -> tuple[tuple[str, int], ...]:
    text = _NO_PROSE.sub(lambda match: re.sub(r"[^\n]", "\x02", match[0]), without_code(text))
    found: list[tuple[int, str]] = []
    for group in re.finditer(GROUP, text):
        found += [(group.start(1) + item.start(), item[1]) for item in re.finditer(f"@({KEY})", group[1])]
    rest = re.sub(GROUP, lambda match: re.sub(r"[^\n]", "\x02", match[0]), text)
    for bare in re.finditer(BARE, rest):
        key = key_in(bare[1], known)
        if key:
            found.append((bare.start(), key))
    return tuple((key, line_of(text, position)) for position, key in sorted(found))


class CitationExtension(Extension):
    """Turns citations into links to the bibliography.

    Args:
        bibliography: A `Bibliography`, or the path of a BibTeX file.
        page: Where the bibliography stands; a key's address is `page#key`. Unused if `link` is given.
        link: Called with a key, gives the address of its entry as seen from the page being rendered.
        missing: Called with each key that the bibliography lacks; without it such a key is logged as a warning.
    """

    def __init__(self, **kwargs: Any) -> None:
        # no default may be None: Python-Markdown would turn the value given for it into a bool
        self.config = {
            "bibliography": ["references.bib", "a Bibliography or the path of a BibTeX file"],
            "page": ["bibliography/", "address of the page that lists the bibliography"],
            "link": ["", "function from a key to the address of its entry"],
            "missing": ["", "function that is told each unknown key"],
        }
        super().__init__(**kwargs)

    def extendMarkdown(self, md: Markdown) -> None:  # noqa: N802 (Python-Markdown's name)
        """Registers the two inline processors."""
        bibliography = self.getConfig("bibliography")
        if not isinstance(bibliography, Bibliography):
            bibliography = load_bibliography(Path(bibliography))
        page = self.getConfig("page")
        link = self.getConfig("link") or (lambda key: f"{page}#{key}")
        missing = self.getConfig("missing") or _warn
        md.registerExtension(self)
        if "@" not in md.ESCAPED_CHARS:
            md.ESCAPED_CHARS.append("@")
        # after code, math and escapes, before links; and after links, addresses, tags and emphasis
        md.inlinePatterns.register(_Group(GROUP, md, bibliography, link, missing), "papercode-citations", 172)
        md.inlinePatterns.register(_Bare(BARE, md, bibliography, link, missing), "papercode-citation", 47)


class _Citations(InlineProcessor):
    """What the two processors share."""

    ANCESTOR_EXCLUDES = ("a", "code", "pre")

    def __init__(
        self,
        pattern: str,
        md: Markdown,
        bibliography: Bibliography,
        link: Callable[[str], str],
        missing: Callable[[str], None],
    ) -> None:
        super().__init__(pattern, md)
        self.bibliography, self.link, self.missing = bibliography, link, missing

    def element(self, key: str, *, parenthetical: bool) -> ElementTree.Element:
        """The link to a key's entry, or the marked key if there is no entry."""
        entry = self.bibliography.get(key)
        if entry is None:
            self.missing(key)
            element = ElementTree.Element("span", {"class": "citation missing"})
            element.text = AtomicString(f"@{key}?")
            return element
        element = ElementTree.Element("a", {"class": "citation", "href": self.link(key), "title": entry.reference})
        element.text = AtomicString(entry.parenthetical if parenthetical else entry.label)
        return element


class _Group(_Citations):
    """`[@key, sec. 3; @other]` becomes (Vaswani et al., 2017, sec. 3; Li and Liang, 2021)."""

    def handleMatch(  # type: ignore[override]  # noqa: N802
        self, match: re.Match[str], data: str
    ) -> tuple[ElementTree.Element, int, int]:
        group = ElementTree.Element("span", {"class": "citations"})
        group.text = "("
        for number, item in enumerate(match[1].split(";")):
            key, _, locator = item.strip().removeprefix("@").partition(",")
            if number:
                group[-1].tail = (group[-1].tail or "") + "; "
            group.append(self.element(key.strip(), parenthetical=True))
            if locator.strip():
                group[-1].tail = f", {locator.strip()}"
        group[-1].tail = (group[-1].tail or "") + ")"
        return group, match.start(), match.end()


class _Bare(_Citations):
    """`@key` becomes Vaswani et al. (2017)."""

    def handleMatch(  # type: ignore[override]  # noqa: N802
        self, match: re.Match[str], data: str
    ) -> tuple[ElementTree.Element | None, int | None, int | None]:
        key = key_in(match[1], self.bibliography)
        if key is None:
            return None, None, None
        return self.element(key, parenthetical=False), match.start(), match.start() + 1 + len(key)


def key_in(word: str, known: Collection[str]) -> str | None:
    """The key with which `word` begins: of `li2021prefix-based` it is `li2021prefix`, of `dataclass` there is none."""
    parts = re.split(r"([:-])", word)
    for end in range(len(parts), 0, -2):
        if "".join(parts[:end]) in known:
            return "".join(parts[:end])
    match = _LOOKS_LIKE_KEY.match(word)
    return match[0] if match else None


def _warn(key: str) -> None:
    _log.warning("the bibliography has no %s; add the entry or correct the key", key)
