"""The terms of the field in English and Chinese, with the papers that they come from."""

from papercode.site.header import page_of, plain, relative
from papercode.site.project import Project

PAGE = "glossary.md"


def glossary_page(project: Project) -> str:
    """The Markdown of the table, in alphabetic order."""
    found = [(english, chinese, note) for note in project.notes for english, chinese in note.terms.items()]
    rows = [
        f"| {plain(english)} | {chinese} | [{plain(note.title)}]({relative(page_of(note), PAGE)}) |"
        for english, chinese, note in sorted(found, key=lambda term: (term[0].casefold(), term[2].name))
    ]
    return "# Glossary\n\n| term | in Chinese | note |\n| --- | --- | --- |\n" + "\n".join(rows) + "\n"
