"""The fonts of text and code: the site's own files, cut down to the characters that the site shows.

Text is set in Source Sans 3, code in Source Code Pro; what is neither Latin nor a sign, Chinese for one, comes from the
reader's system. All fonts are optional and asked for together with the style sheets, so that nothing jumps: where they
are not there when the text is, the first page is shown in fonts of the system.
"""

import base64
import hashlib
import html
import io
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fontTools import subset
from fontTools.ttLib import TTFont
from fontTools.varLib import instancer

from papercode.site import npm
from papercode.site.store import Store, digest

FOLDER = "assets/fonts/"
"""Their place in the site."""

SANS = npm.Package(
    "source-sans",
    "3.52.0",
    "sha512-xsm7qlMI/JwxwNdp6pvpR6l+aZjn90fzOzoeUz/qoohIYbKbDwQNRIz5/ItYs7/hvqLirQNUoDFGXSVA3TU9tw==",
    r"package/(?:WOFF2/(?:VF|TTF)/(SourceSans3(?:VF-Upright|-It)\.ttf\.woff2)|(LICENSE)\.md)",
)
CODE = npm.Package(
    "source-code-pro",
    "2.42.0",
    "sha512-18isp9l4xtOL3r61TwL9m1hjYX9qb1+i7iK0pSHEeWADKuQCOdQkBzhFiv8pBfOP7u9lNTBN75yYif2HUdyiyg==",
    r"package/(?:WOFF2/TTF/(SourceCodePro-Regular\.ttf\.woff2)|(LICENSE)\.md)",
)
TEXT_FONTS = ("text.woff2", "italic.woff2", "code.woff2")
"""The files that every page shows."""


@dataclass(frozen=True)
class _Face:
    package: npm.Package
    source: str
    family: str
    style: str = "normal"
    weight: tuple[int, int] | None = None
    features: tuple[str, ...] = ("kern", "mark", "mkmk", "ccmp", "locl")


_FACES = {
    "text.woff2": _Face(SANS, "SourceSans3VF-Upright.ttf.woff2", "Source Sans 3", weight=(400, 700)),
    "italic.woff2": _Face(SANS, "SourceSans3-It.ttf.woff2", "Source Sans 3", "italic"),
    "code.woff2": _Face(CODE, "SourceCodePro-Regular.ttf.woff2", "Source Code Pro", features=()),
}
_ENTITY = re.compile(r"&#?\w+;")
_OURS = {chr(code) for part in ((0x20, 0x250), (0x2000, 0x2300)) for code in range(*part)}  # Latin, and signs


def text_fonts(folders: Mapping[npm.Package, Path], characters: set[str], store: Store) -> tuple[str, dict[str, bytes]]:
    """The fonts of text and code.

    Args:
        folders: where the files of SANS and of CODE are.
        characters: what the site shows.
        store: keeps what was cut.

    Returns:
        A style sheet with `url(name)` for each font, and the fonts by their names.
    """
    rules, fonts = [], {}
    for name, face in _FACES.items():
        path = folders[face.package] / face.source
        shown = covered(path) & characters & _OURS
        fonts[name] = cut(path, shown, store, weight=face.weight, features=face.features)
        # an italic or a code font of one weight stands for all: a bold made by the browser would be smeared
        rules.append(
            f'@font-face{{font-family:"{face.family}";font-style:{face.style};font-weight:400 700;'
            f'font-display:optional;src:url({name}) format("woff2");unicode-range:{_ranges(shown)}}}\n'
        )
    return "".join(rules), fonts


def characters(pages: Iterable[str]) -> set[str]:
    """Every character in the HTML of `pages`, those included that are written as `&nbsp;`."""
    found: set[str] = set()
    for content in pages:
        found.update(content, html.unescape("".join(set(_ENTITY.findall(content)))))
    return found


def embedded(sheet: str, fonts: Mapping[str, bytes]) -> str:
    """The style sheet with the fonts in it: opened without a server, a page may not be allowed to load them."""
    for name, font in fonts.items():
        sheet = sheet.replace(f"url({name})", f"url(data:font/woff2;base64,{base64.b64encode(font).decode()})")
    return sheet


def cut(path: Path, characters: set[str], store: Store, *, weight: Any = None, features: Iterable[str] = ()) -> bytes:
    """The font in `path` (woff2) with no more than `characters`, the weights and the layout features asked for.

    Args:
        path: the font.
        characters: what it is to show.
        store: keeps what was cut.
        weight: of a variable font, the range of weights to keep.
        features: the OpenType features to keep, such as `kern`.
    """
    content = path.read_bytes()
    key = digest("font", hashlib.sha256(content).hexdigest(), sorted(characters), weight, list(features))
    if kept := store.get(key):
        return base64.b64decode(kept)
    options = subset.Options(layout_features=list(features), hinting=False, notdef_outline=False)
    with TTFont(io.BytesIO(content), recalcTimestamp=False) as font:
        subsetter = subset.Subsetter(options)
        subsetter.populate(unicodes=[ord(character) for character in characters])
        subsetter.subset(font)
        if weight:
            instancer.instantiateVariableFont(font, {"wght": weight}, inplace=True)
        font.flavor = "woff2"
        made = io.BytesIO()
        font.save(made)
    store.put(key, base64.b64encode(made.getvalue()).decode())
    return made.getvalue()


def covered(path: Path) -> set[str]:
    """The characters that a font has."""
    with TTFont(path, lazy=True) as font:
        return {chr(code) for code in font.getBestCmap()}


def _ranges(characters: Iterable[str]) -> str:
    """Characters as CSS names them: `U+41-5a,U+e9`."""
    codes = sorted(map(ord, characters))
    starts = [code for code in codes if code - 1 not in set(codes)]
    ends = [code for code in codes if code + 1 not in set(codes)]
    return ",".join(f"U+{a:x}" if a == b else f"U+{a:x}-{b:x}" for a, b in zip(starts, ends, strict=True))
