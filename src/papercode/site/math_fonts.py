"""KaTeX's style sheet and its fonts, cut down to the glyphs that the site's formulas show.

Of its 20 fonts a site uses a few hundred glyphs, which weigh less than two of the files.
"""

import html
import re
from collections.abc import Iterable
from pathlib import Path

from papercode.site.fonts import cut
from papercode.site.store import Store
from papercode.site.typeset import formulas_of

# the font that KaTeX's style sheet gives to a class; all else is Main-Regular
_FONTS = {
    "mathnormal": "Math-Italic",
    "boldsymbol": "Math-BoldItalic",
    "mathit": "Main-Italic",
    "textit": "Main-Italic",
    "mathbf": "Main-Bold",
    "textbf": "Main-Bold",
    "amsrm": "AMS-Regular",
    "mathbb": "AMS-Regular",
    "textbb": "AMS-Regular",
    "mathcal": "Caligraphic-Regular",
    "mathfrak": "Fraktur-Regular",
    "textfrak": "Fraktur-Regular",
    "mathboldfrak": "Fraktur-Bold",
    "textboldfrak": "Fraktur-Bold",
    "mathtt": "Typewriter-Regular",
    "texttt": "Typewriter-Regular",
    "mathscr": "Script-Regular",
    "textscr": "Script-Regular",
    "mathsf": "SansSerif-Regular",
    "textsf": "SansSerif-Regular",
    "mathboldsf": "SansSerif-Bold",
    "textboldsf": "SansSerif-Bold",
    "mathitsf": "SansSerif-Italic",
    "mathsfit": "SansSerif-Italic",
    "textitsf": "SansSerif-Italic",
    "size1": "Size1-Regular",
    "size2": "Size2-Regular",
    "size3": "Size3-Regular",
    "size4": "Size4-Regular",
    "small-op": "Size1-Regular",
    "large-op": "Size2-Regular",
    "delim-size1": "Size1-Regular",
    "delim-size4": "Size4-Regular",
}
_SIZED = {"delimsizing", "op-symbol"}  # only beside these do the sizes name fonts
_PIECES = ("delim-size1", "delim-size4")  # of which tall brackets are built, in spans without a class
_BRACKETS = "".join(map(chr, range(0x239B, 0x23AE)))
_HTML = '<span class="katex-html"'
_SHOWN = re.compile(r'<span(?: class="([^"]*)")?[^>]*>([^<]+)<')
_FACE = re.compile(r"@font-face\{[^}]*url\(fonts/KaTeX_([\w-]+)\.woff2\)[^}]*\}")


def glyphs(pages: Iterable[str]) -> dict[str, set[str]]:
    """The characters that the formulas in the HTML of `pages` show in each of KaTeX's fonts."""
    spans = {span for content in pages for _, start, end in formulas_of(content) for span in _found(content[start:end])}
    found: dict[str, set[str]] = {}
    for classes, text in spans:
        found.setdefault(_font(classes.split()), set()).update(html.unescape(text))
    return found


def _found(formula: str) -> set[tuple[str, str]]:
    """What the spans of a formula show, each with the classes of its span."""
    shown = formula.split(_HTML)[-1]
    pieces = {("delimsizing " + name, _BRACKETS) for name in _PIECES if name in shown}
    return {*_SHOWN.findall(shown), *pieces}


def _font(classes: list[str]) -> str:
    sized = bool(_SIZED.intersection(classes))
    names = (_FONTS[name] for name in classes if name in _FONTS and (sized or not _FONTS[name].startswith("Size")))
    return next(names, "Main-Regular")


def fonts_of(content: str) -> list[str]:
    """The files that the formulas in the HTML of a page need."""
    return [_name(font) for font in sorted(glyphs([content]))]


def math_fonts(katex: Path, shown: dict[str, set[str]], store: Store) -> tuple[str, dict[str, bytes]]:
    """KaTeX's style sheet without the fonts that show nothing, and the others by their names.

    Args:
        katex: the folder with KaTeX's files.
        shown: what `glyphs` found.
        store: keeps what was cut.
    """
    fonts = {}

    def face(match: re.Match[str]) -> str:
        characters = shown.get(match[1])
        if not characters:
            return ""
        fonts[_name(match[1])] = cut(katex / "fonts" / f"KaTeX_{match[1]}.woff2", characters, store)
        rule = match[0].replace(f"fonts/KaTeX_{match[1]}.woff2", _name(match[1]))
        return rule.replace("font-display:block", "font-display:optional")

    return _FACE.sub(face, (katex / "katex.min.css").read_text("utf-8")), fonts


def _name(font: str) -> str:
    return f"{font.lower()}.woff2"
