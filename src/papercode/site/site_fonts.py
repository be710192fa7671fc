"""The fonts of a site that is built: those of text and code and those of formulas, cut down to what its pages show."""

from collections.abc import Sequence
from pathlib import Path

from papercode.site import fonts, katex
from papercode.site.math_fonts import glyphs, math_fonts
from papercode.site.store import Store


def font_files(cache: Path, pages: Sequence[str], formulas: Path | None, *, inside: bool) -> dict[str, bytes]:
    """The files of the folder `fonts.FOLDER`: the style sheet, the fonts that it names, their licences.

    Args:
        cache: where packages and cut fonts are kept.
        pages: the HTML of all pages.
        formulas: KaTeX's folder; None if no formula was set.
        inside: whether the fonts stand in the style sheet: from a file, a browser may load no other.

    Raises:
        npm.NodeError: the packages could not be fetched.
    """
    folders = {package: package.ensure(cache) for package in (fonts.SANS, fonts.CODE)}
    store = Store(cache / "pages")
    sheet, files = fonts.text_fonts(folders, fonts.characters(pages), store)
    if formulas:
        folders[katex.KATEX] = formulas
        of_formulas, more = math_fonts(formulas, glyphs(pages), store)
        sheet, files = sheet + of_formulas, files | more
    if inside:
        sheet, files = fonts.embedded(sheet, files), {}
    licences = {f"LICENSE-{package.folder}.txt": (path / "LICENSE").read_bytes() for package, path in folders.items()}
    return {**files, **licences, "fonts.css": sheet.encode()}
