r"""Sets formulas when the site is built, so that a page shows them at once, without a script and without a jump.

pymdownx.arithmatex (generic) leaves `<span class="arithmatex">\(…\)</span>` and `<div class="arithmatex">\[…\]</div>`
in the HTML of a page; what KaTeX makes of the TeX takes its place. One process of Node serves a whole build; the first
formula that is not known yet starts it. Each formula is set once and kept.
"""

import contextlib
import html
import json
import logging
import re
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

from papercode.site import npm
from papercode.site.katex import KATEX, SCRIPT
from papercode.site.store import Store, digest

log = logging.getLogger("mkdocs.plugins.papercode")

_RAW = re.compile(r'<(?P<tag>span|div) class="arithmatex">\s*(?P<tex>\\[(\[].*?\\[)\]])\s*</(?P=tag)>', re.DOTALL)
_SET = re.compile(r'<(span|div) class="arithmatex">(?=<span class="katex)')
_PART = re.compile(r"<(/?)(?:span|div)\b[^>]*>")
_TEX = re.compile(r'<annotation encoding="application/x-tex">(.*?)</annotation>', re.DOTALL)
_SECONDS = 60


class Typesetter:
    """Sets the formulas of pages.

    Args:
        katex: the folder with KaTeX's files.
        store: where formulas are kept.
    """

    def __init__(self, katex: Path, store: Store):
        self.katex, self.store = katex, store
        self._process: subprocess.Popen[str] | None = None
        self._engine = digest(KATEX.version, SCRIPT.read_text("utf-8"))

    def set_formulas(self, content: str, page: str) -> str:
        """The HTML `content` of `page` with its formulas set; one that KaTeX cannot read stays TeX, with a warning."""
        found = [html.unescape(match["tex"]) for match in _RAW.finditer(content)]
        if not found:
            return content
        try:
            answers = iter(self._answers(found))
        except npm.NodeError as error:
            log.warning("%s: formulas stay TeX: %s", page, error)
            return content

        def shown(match: re.Match[str]) -> str:
            answer = next(answers)
            if "html" not in answer:
                tex = html.unescape(match["tex"])
                log.warning("%s: KaTeX cannot read the formula %s: %s", page, tex, answer["message"])
                return match[0]
            return f'<{match["tag"]} class="arithmatex">{answer["html"]}</{match["tag"]}>'

        return _RAW.sub(shown, content)

    def close(self) -> None:
        """Ends the process of Node, if there is one."""
        if self._process:
            with contextlib.suppress(OSError):  # it may have ended by itself
                self._process.communicate()  # its input ends, and with it the process
            self._process = None

    def _answers(self, formulas: list[str]) -> list[dict]:
        keys = {tex: digest("formula", self._engine, tex) for tex in formulas}
        answers = {tex: self.store.get(key) for tex, key in keys.items()}
        if unknown := [tex for tex, answer in answers.items() if answer is None]:
            for tex, answer in zip(unknown, self._ask(unknown), strict=True):
                answers[tex] = answer
                self.store.put(keys[tex], answer)
        return [answers[tex] or {} for tex in formulas]

    def _ask(self, formulas: list[str]) -> list[dict]:
        """What KaTeX makes of `formulas`, each between its delimiters."""
        if not self._process:
            command = [*npm.node(), str(SCRIPT), str((self.katex / "katex.min.js").resolve()), "set"]
            self._process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, encoding="utf-8"
            )
        process = self._process
        question = json.dumps([{"tex": tex[2:-2], "display": tex.startswith("\\[")} for tex in formulas])
        watch = threading.Timer(_SECONDS, process.kill)
        watch.start()
        try:
            return json.loads(_exchange(process, question))
        except (OSError, ValueError) as error:  # it ended, or was ended: nothing more comes from it
            self.close()
            raise npm.NodeError(f"node ended while it set formulas (exit status {process.returncode})") from error
        finally:
            watch.cancel()


def formulas_of(content: str) -> Iterator[tuple[str, int, int]]:
    """The formulas set in the HTML `content`: `span` or `div`, start and end of each."""
    position = 0
    while found := _SET.search(content, position):
        depth, position = 1, found.end()
        while depth and (part := _PART.search(content, position)):
            depth, position = depth + (-1 if part[1] else 1), part.end()
        yield found[1], found.start(), position


def without_formulas(content: str) -> str:
    """The HTML `content` as search is to know it: of what is set, only inline formulas without TeX commands remain."""
    kept, position = [], 0
    for tag, start, end in formulas_of(content):
        kept.append(content[position:start])
        tex = _TEX.search(content, start, end)
        if tag == "span" and tex and "\\" not in tex[1]:
            kept.append(tex[1])
        position = end
    return "".join([*kept, content[position:]])


def _exchange(process: subprocess.Popen[str], line: str) -> str:
    assert process.stdin
    assert process.stdout
    process.stdin.write(line + "\n")
    process.stdin.flush()
    return process.stdout.readline()
