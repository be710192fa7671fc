"""What readers can do with the code of a page: follow its names to the API pages, unfold what its imports bring."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from mkdocs.utils import get_relative_url

from papercode.site.code_links import blocks, link
from papercode.site.code_names import Name, names_of, names_of_module
from papercode.site.header import api_page_of
from papercode.site.imports_fold import brought, fold, source_script
from papercode.site.project import Project
from papercode.site.runner import Session
from papercode.site.store import Store, digest
from papercode.site.symbols import Symbol, Symbols

# what finds the names: a change of it may change what is found
_CODE = [Path(__file__).with_name(f"{name}.py").read_text("utf-8") for name in ("code_names", "symbols")]


class CodePages:
    """Finishes the HTML of pages, and gathers the sources that they unfold.

    Args:
        project: its modules.
        files: the files of the site, the API pages among them.
        store: where it is kept what the names in a piece of code mean, while no module that the code reaches changes.
    """

    def __init__(self, project: Project, files: Any, store: Store):
        self.project, self.files, self.store = project, files, store
        self.symbols = Symbols(project.sources)
        self._highlighted: dict[str, str] = {}
        self._brought: dict[str, dict[Symbol, None]] = {}

    def note(self, html: str, url: str, session: Session) -> str:
        """The HTML of the page of `session`, with links in its code and folds below it."""
        fences = session.fences
        pieces = [[fence.language, fence.code] for fence in fences]
        reached = self.project.sources.fingerprint(*session.code)
        names = self._known([pieces, reached], lambda: names_of(fences, self.symbols))
        if not any(names):
            return html
        claims = [fence.language == "pycon" for fence in fences]
        names = [[name for name in block if self._page(name.target)] for block in names]
        folds = brought(names, claims)
        parts, end = [], 0
        for index, match in blocks(html, [fence.code for fence in fences]):
            parts += [html[end : match.start(1)], link(match[1], names[index], lambda t: self._address(t, url))]
            end = match.end()
            parts.append(html[match.end(1) : end])
            if not claims[index] and html.startswith("\n</details>", end):  # below the fold of a figure's code
                parts.append("\n</details>")
                end += len("\n</details>")
            parts.append(fold(folds[index], self._file, lambda t: self._address(t, url)))
            for symbol in folds[index]:
                self._brought.setdefault(symbol.module, {})[symbol] = None
        return "".join([*parts, html[end:]])

    def api(self, html: str, url: str, module: str) -> str:
        """The HTML of the API page of `module`, with links in its source."""
        code = self.project.sources.paths[module].read_text("utf-8")
        for _, match in blocks(html, [code]):
            self._highlighted[module] = match[1]
            depends_on = self.project.sources.fingerprint(f"import {module}")
            (names,) = self._known([code, depends_on], lambda: [names_of_module(code, self.symbols)])
            linked = link(match[1], names, lambda target: self._address(target, url))
            return html[: match.start(1)] + linked + html[match.end(1) :]
        return html

    def scripts(self) -> Iterator[tuple[str, str]]:
        """(file, content) of the scripts with the sources that the pages finished so far unfold."""
        for module, symbols in sorted(self._brought.items()):
            if module in self._highlighted:
                yield f"assets/source/{module}.js", source_script(module, self._highlighted[module], list(symbols))

    def _known(self, depends_on: Any, find: Callable[[], list[list[Name]]]) -> list[list[Name]]:
        """What `find` gives, or gave when all that it depends on was the same."""
        key = digest("names", _CODE, depends_on)
        saved = self.store.get(key)
        if saved is None:
            found = find()
            self.store.put(key, [[name.saved() for name in block] for block in found])
            return found
        return [[Name.read(name) for name in block] for block in saved]

    def _page(self, target: Symbol | str) -> Any:
        """The file of the API page that tells of `target`, if there is one."""
        module = target.module if isinstance(target, Symbol) else target
        return self.files.get_file_from_path(api_page_of(module))

    def _address(self, target: Symbol | str, url: str) -> str | None:
        """The link from the page at `url` to where `target` is told of."""
        page = self._page(target)
        if not page or (isinstance(target, Symbol) and not target.public):
            return None
        anchor = f"#{target.anchor}" if isinstance(target, Symbol) else ""
        return get_relative_url(page.url, url) + anchor

    def _file(self, module: str) -> str:
        return self.project.relative(self.project.sources.paths[module]).as_posix()
