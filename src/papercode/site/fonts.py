"""The fonts of text and code: the site's own files, cut down to the characters that the site shows.

Text is set in Source Sans 3, code in Source Code Pro; what they lack, Chinese for one, comes from the reader's system.
They are optional, so that nothing jumps: a reader whose line is slow reads the first page in a system font.
"""

import base64
import hashlib
import io
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fontTools import subset
from fontTools.ttLib import TTFont
from fontTools.varLib import instancer

from papercode.site import npm
from papercode.site.store import Store, digest

_WANTED = r"package/(?:files/({}-(?:latin|latin-ext|greek)-wght-(?:normal|italic)\.woff2)|(LICENSE))"

SANS = npm.Package(
    "@fontsource-variable/source-sans-3",
    "5.3.0",
    "sha512-dpi0GZk7EQe2tYpg6Q0Fx0OmUgnuGu+0rHPgtXqtKhglYmJuP7jZ12Mu1uN+NfRaJRY1Emn8AQJEWzmoZ4wa9g==",
    _WANTED.format("source-sans-3"),
)
CODE = npm.Package(
    "@fontsource-variable/source-code-pro",
    "5.3.0",
    "sha512-CxzAbqtNrQ6EQXTb9ovRZIRiOhFPcBQhNKla58K5UV6IMoL/ROkWxXDSBOa/frIDLuV4B5PLHI4R1e9SWVinYg==",
    _WANTED.format("source-code-pro"),
)


@dataclass(frozen=True)
class _Face:
    """One file of a family: which weights of it the site shows, and which layout features it keeps."""

    package: npm.Package
    family: str
    subset: str
    style: str
    weight: Any
    features: tuple[str, ...] = ("kern", "mark", "mkmk", "ccmp", "locl")

    @property
    def source(self) -> str:
        stem = self.package.name.rsplit("/", 1)[1]
        return f"{stem}-{self.subset}-wght-{self.style}.woff2"

    def rule(self, name: str, characters: Iterable[str]) -> str:
        # an italic or a code font of one weight stands for all: a bold made by the browser would be smeared
        weights = "400 700"
        return (
            f'@font-face{{font-family:"{self.family}";font-style:{self.style};font-weight:{weights};'
            f'font-display:optional;src:url({name}) format("woff2");unicode-range:{_ranges(characters)}}}\n'
        )


_FACES = (
    *(_Face(SANS, "Source Sans 3", subset, "normal", (400, 700)) for subset in ("latin", "latin-ext", "greek")),
    *(_Face(SANS, "Source Sans 3", subset, "italic", 400) for subset in ("latin", "latin-ext")),
    _Face(CODE, "Source Code Pro", "latin", "normal", 400, features=()),
)
PRELOADED = ("source-sans-3-latin-normal.woff2", "source-code-pro-latin-normal.woff2")
"""The fonts that every page shows, in `assets/fonts/`."""


def write_fonts(target: Path, folders: dict[str, Path], characters: set[str], store: Store) -> str:
    """Writes the fonts and their licences into the folder `target`.

    Args:
        target: a folder of the built site.
        folders: where the files of each package are, by its name.
        characters: what the site shows.
        store: keeps what was cut.

    Returns:
        The style sheet that names them, to be put into the same folder.
    """
    target.mkdir(parents=True, exist_ok=True)
    rules = []
    for face in _FACES:
        path = folders[face.package.name] / face.source
        if shown := _covered(path) & characters:
            name = face.source.replace("-wght", "")
            (target / name).write_bytes(cut(path, shown, store, weight=face.weight, features=face.features))
            rules.append(face.rule(name, shown))
    for package in (SANS, CODE):
        (target / f"LICENSE-{package.folder}.txt").write_bytes((folders[package.name] / "LICENSE").read_bytes())
    return "".join(rules)


def cut(path: Path, characters: set[str], store: Store, *, weight: Any = None, features: Iterable[str] = ()) -> bytes:
    """The font in `path` (woff2) with no more than `characters`, the `weight`s and the layout features asked for.

    Args:
        path: the font.
        characters: what it is to show.
        store: keeps what was cut.
        weight: of a variable font, the weight or the range of weights to keep.
        features: the OpenType features to keep, such as `kern`.
    """
    content = path.read_bytes()
    key = digest("font", hashlib.sha256(content).hexdigest(), sorted(characters), weight, list(features))
    if kept := store.get(key):
        return base64.b64decode(kept)
    options = subset.Options(flavor="woff2", layout_features=list(features), hinting=False, notdef_outline=False)
    with TTFont(io.BytesIO(content), recalcTimestamp=False) as font:
        subsetter = subset.Subsetter(options)
        subsetter.populate(unicodes=[ord(character) for character in characters])
        subsetter.subset(font)
        if weight and "fvar" in font:
            instancer.instantiateVariableFont(font, {"wght": weight}, inplace=True)
        font.flavor = "woff2"
        made = io.BytesIO()
        font.save(made)
    store.put(key, base64.b64encode(made.getvalue()).decode())
    return made.getvalue()


def _covered(path: Path) -> set[str]:
    """The characters that a font has."""
    with TTFont(path, lazy=True) as font:
        return {chr(code) for code in font.getBestCmap()}


def _ranges(characters: Iterable[str]) -> str:
    """Characters as CSS names them: `U+41-5a,U+e9`."""
    codes = sorted(map(ord, characters))
    starts = [code for code in codes if code - 1 not in set(codes)]
    ends = [code for code in codes if code + 1 not in set(codes)]
    return ",".join(f"U+{a:x}" if a == b else f"U+{a:x}-{b:x}" for a, b in zip(starts, ends, strict=True))

