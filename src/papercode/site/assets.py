"""Our styles and scripts: those of every page as one file of each kind, those of one page as files of their own."""

from collections.abc import Iterator
from pathlib import Path

from papercode.site import npm

OURS = Path(__file__).parent / "assets"
WORKER = "assets/iframe-worker.js"
"""The place in the site of what offline.yml names."""

_IFRAME_WORKER = npm.Package(  # without which search needs a server; Material would load it from elsewhere
    "iframe-worker",
    "1.0.4",
    "sha512-roeaaI+Lg1LJNfgpCjoRe/+WzEjy9+Z08LoEvu85MCPbBjwm+qXz8Ag5U05lHa6V1CysZyGzE0SOkAtSUA5q7Q==",
    r"package/(?:shim/(index\.js)|(LICENSE))",
)


PAGES = {
    "index.md": "home",
    "papers/index.md": "catalogue",
    "map.md": "map",
    "findings.md": "findings",
    "mistakes.md": "findings",
    "questions.md": "findings",
    "bibliography.md": "bibliography",
    "glossary.md": "glossary",
}
"""The pages with a style or a script of their own, and its name."""

# a page that is come back to brings its script again, which must not run twice
_ONCE = "if (!(window.papercodeRan ??= new Set()).has({name!r})) {{ papercodeRan.add({name!r});\n{script}}}\n"


def own_files() -> Iterator[tuple[str, str]]:
    """Our files by their places in the site."""
    for kind in ("css", "js"):
        yield f"assets/papercode.{kind}", "\n".join(path.read_text("utf-8") for path in sorted(OURS.glob(f"*.{kind}")))
    for path in sorted(OURS.glob("*.svg")):
        yield f"assets/{path.name}", path.read_text("utf-8")
    for path in sorted(OURS.glob("pages/*")):
        text = path.read_text("utf-8")
        yield f"assets/{path.name}", _ONCE.format(name=path.stem, script=text) if path.suffix == ".js" else text


def own_of(page: str) -> dict[str, str]:
    """The places of the style (css) and of the script (js) of the page `page`, as MkDocs names sources."""
    files = [OURS / "pages" / f"{PAGES[page]}.{kind}" for kind in ("css", "js")] if page in PAGES else []
    return {path.suffix[1:]: f"assets/{path.name}" for path in files if path.is_file()}


def iframe_worker(cache: Path) -> dict[str, Path]:
    """The script that stands in for a worker where there is no server, and its licence, by their places in the site.

    Raises:
        npm.NodeError: it could not be fetched.
    """
    folder = _IFRAME_WORKER.ensure(cache)
    return {WORKER: folder / "index.js", "assets/LICENSE-iframe-worker.txt": folder / "LICENSE"}
