"""The pages that are made from the whole collection when the site is built."""

from collections.abc import Iterator

from papercode.site.api_pages import api_index
from papercode.site.bibliography_page import render
from papercode.site.catalogue import catalogue
from papercode.site.findings_page import findings_pages
from papercode.site.glossary_page import glossary_page
from papercode.site.map_page import map_page
from papercode.site.project import Project


def generated_pages(project: Project) -> Iterator[tuple[str, str, str | None]]:
    """(page, Markdown, the file to edit) of each, the pages of modules aside."""
    yield "api/index.md", api_index(project), None
    yield "papers/index.md", catalogue(project), None
    yield "map.md", map_page(project), None
    for page, text in findings_pages(project).items():
        yield page, text, None
    yield "glossary.md", glossary_page(project), None
    yield "bibliography.md", render(project), "../references.bib"
