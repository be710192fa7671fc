"""The terms of the field in English and Chinese, with the papers that they come from."""

from markdown.extensions.toc import slugify

from papercode.site.header import page_of, plain, relative
from papercode.site.notes import Note
from papercode.site.project import Project

PAGE = "glossary.md"

_INTRODUCTION = (
    "The {count} terms that the papers are known for, with their usual names in Chinese"
    " and the notes that explain them. Each term is in its notes' headers as well."
)


def glossary_page(project: Project) -> str:
    """The Markdown of the table, in alphabetic order; a term that several notes name stands once."""
    terms: dict[str, tuple[dict[str, None], list[Note]]] = {}
    names: dict[str, str] = {}
    for note in project.notes:
        for english, chinese in note.terms.items():
            names.setdefault(english.casefold(), english)
            words, notes = terms.setdefault(english.casefold(), ({}, []))
            words[chinese] = None
            notes.append(note)
    rows = [_row(names[key], list(words), notes, project) for key, (words, notes) in sorted(terms.items())]
    head = "".join(f'<th scope="col">{name}</th>' for name in ("Term", "In Chinese", "Note"))
    return "\n".join([
        "# Glossary\n",
        _INTRODUCTION.format(count=len(rows)) + "\n",
        '<table class="glossary" markdown="1">',
        f"<thead><tr>{head}</tr></thead>",
        '<tbody markdown="1">',
        *rows,
        "</tbody>",
        "</table>",
        "",
    ])  # fmt: skip


def _row(english: str, chinese: list[str], notes: list[Note], project: Project) -> str:
    oldest = sorted(notes, key=lambda note: project.published(note.key))
    links = " · ".join(f"[{plain(note.title)}]({relative(page_of(note), PAGE)})" for note in oldest)
    return (
        f'<tr id="{slugify(english, "-")}" markdown="1"><td markdown="span">{plain(english)}</td>'
        f'<td lang="zh" markdown="span">{plain("、".join(chinese))}</td><td markdown="span">{links}</td></tr>'
    )
