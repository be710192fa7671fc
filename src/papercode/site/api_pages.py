"""The generated page of each module: its docstrings by mkdocstrings, its note, its source."""

import ast
import functools
from collections.abc import Iterator

from papercode.site.header import api_page_of, page_of, plain, relative
from papercode.site.project import Project
from papercode.site.sources import parsed


def api_pages(project: Project) -> Iterator[tuple[str, str, str]]:
    """(page, module, Markdown) of every module that has something to say."""
    for module, path in project.sources.paths.items():
        parts = module.split(".")
        if len(parts) > 1 and parts[1] == "site":
            continue  # the engine: no reader of a paper looks for it here
        if path.name != "__init__.py":
            yield api_page_of(module), module, _page(project, module)


def _page(project: Project, module: str) -> str:
    page, path = api_page_of(module), project.sources.paths[module]
    note = project.by_module.get(module)
    told = f"Explained in the note on [{plain(note.title)}]({relative(page_of(note), page)}).\n\n" if note else ""
    source = "\n".join("    " + line for line in path.read_text("utf-8").rstrip("\n").splitlines())
    name = module.split(".", 1)[1]
    return (
        f"---\ntitle: {name}\n---\n\n# {name}\n\n{told}::: {module}\n\n"
        f'??? source "Source of {project.relative(path)}"\n\n'
        f'    ``````` {{ .python .api-source data-search-exclude="" }}\n{source}\n    ```````\n'
    )


@functools.lru_cache(maxsize=1024)  # while serving, every module is asked for on every save
def _summary(code: str) -> str:
    tree = parsed(code)
    doc = (ast.get_docstring(tree) if tree else None) or ""
    return " ".join(doc.split("\n\n")[0].split())


def api_index(project: Project) -> str:
    """The Markdown of the page that lists the modules with what their docstrings say first."""
    rows = []
    for uri, module, _ in api_pages(project):
        note = project.by_module.get(module)
        told = f"[{plain(note.title)}]({relative(page_of(note), 'api/index.md')})" if note else ""
        summary = _summary(project.sources.paths[module].read_text("utf-8"))
        rows.append(f"| [`{module}`]({relative(uri, 'api/index.md')}) | {summary} | {told} |")
    return "# Modules\n\n| module | what it holds | note |\n| --- | --- | --- |\n" + "\n".join(rows) + "\n"
