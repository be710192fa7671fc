"""The files that every page loads: our styles as one, our scripts as one, and what lets search run without a server."""

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


def own_files() -> Iterator[tuple[str, str]]:
    """Our files by their places in the site: one style sheet, one script, and the rest as they are."""
    for kind in ("css", "js"):
        yield f"assets/papercode.{kind}", "\n".join(path.read_text("utf-8") for path in sorted(OURS.glob(f"*.{kind}")))
    for path in sorted(OURS.iterdir()):
        if path.suffix not in {".css", ".js"}:
            yield f"assets/{path.name}", path.read_text("utf-8")


def iframe_worker(cache: Path) -> dict[str, Path]:
    """The script that stands in for a worker where there is no server, and its licence, by their places in the site.

    Raises:
        npm.NodeError: it could not be fetched.
    """
    folder = _IFRAME_WORKER.ensure(cache)
    return {WORKER: folder / "index.js", "assets/LICENSE-iframe-worker.txt": folder / "LICENSE"}
