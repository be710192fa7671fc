"""KaTeX: its files for the site, and its parser as a check of every formula."""

import json
import re
from collections.abc import Iterable
from pathlib import Path

from papercode.site import npm
from papercode.site.formulas import Formula, find_formulas, lint_math
from papercode.site.problem import Problem

__all__ = ["KATEX", "SCRIPT", "Formula", "check_formulas", "ensure_katex", "find_formulas", "lint_math"]

_ANCIENT_FONTS = re.compile(r',url\([^)]+\) format\("(?:woff|truetype)"\)')
SCRIPT = Path(__file__).with_name("katex.mjs")
"""What Node runs to check formulas, and to set them."""
_CHECK_SECONDS = 60


def _without_ancient_fonts(name: str, data: bytes) -> bytes:
    return _ANCIENT_FONTS.sub("", data.decode()).encode() if name.endswith(".css") else data


KATEX = npm.Package(
    "katex",
    "0.19.1",
    "sha512-jG8uKntjSEcm2EpQOh0XturpPuuC9r3Sq5HLHdsFdWZT27E672SF19QEi+of0/YeOy15lDgRhKvr5614uRrEfA==",
    r"package/(?:dist/(katex\.min\.(?:js|css)|fonts/[\w-]+\.woff2)|(LICENSE))",
    _without_ancient_fonts,
)
"""The KaTeX with which formulas are set."""


def ensure_katex(cache: Path) -> Path:
    """The folder with katex.min.js, katex.min.css, fonts/*.woff2 and LICENSE, fetched if need be.

    Raises:
        npm.NodeError: it could not be fetched.
    """
    return KATEX.ensure(cache)


def check_formulas(formulas: Iterable[tuple[Path, int, str, bool]], katex: Path) -> list[Problem]:
    """Lets KaTeX parse every formula, strictly, in one process of Node.

    Args:
        formulas: (file, line, TeX, whether it is displayed) of each.
        katex: The folder that `ensure_katex` gave.

    Returns:
        What KaTeX objects to, on the line of the objection.

    Raises:
        npm.NodeError: Node is missing or fails.
    """
    formulas = list(formulas)
    if not formulas:
        return []
    question = json.dumps([{"tex": tex, "display": display} for _, _, tex, display in formulas])
    command = [*npm.node(), str(SCRIPT), str((katex / "katex.min.js").resolve()), "check"]
    answer = json.loads(npm.run(command, seconds=_CHECK_SECONDS, what="check the formulas", input=question))
    problems = []
    for (path, line, tex, _), found in zip(formulas, answer, strict=True):
        if "message" in found:
            position = found["position"] if found["position"] is not None else 0
            here = tex[position : position + 20].split("\n")[0]
            where = f" at `{here}`" if here else " at its end"
            said = re.sub(r"^LaTeX-incompatible input and strict mode is set to 'error': ", "", found["message"])
            message = f"KaTeX cannot read this formula{where}: {said}"
            problems.append(Problem(path, line + tex.count("\n", 0, position), message))
    return sorted(problems)
