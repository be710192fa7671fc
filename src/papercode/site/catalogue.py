"""The page that lists the notes by family."""

from papercode.site.header import page_of, plain, relative
from papercode.site.notes import FAMILIES, Note
from papercode.site.project import Project

PAGE = "papers/index.md"


def catalogue(project: Project) -> str:
    """The Markdown of the list of notes: families from the ground up, papers from the oldest."""
    parts = ["# Papers\n\nEach note can be read alone; within a family the older paper comes first.\n"]
    for family, title in FAMILIES.items():
        notes = [note for note in project.notes if note.family == family]
        if notes:
            parts.append(f"## {title}\n\n" + "\n".join(_row(note, project) for note in notes) + "\n")
    return "\n".join(parts)


def _row(note: Note, project: Project) -> str:
    entry = project.bibliography.get(note.key)
    paper = f": *{plain(entry.title)}*. {plain(entry.label)}" if entry else ""
    return f"- [{plain(note.title)}]({relative(page_of(note), PAGE)}){paper}"
