"""The page that gathers what the notes mark as findings, mistakes and questions."""

from papercode.site.project import Project

PAGE = "findings.md"


def findings_page(project: Project) -> str:
    """The Markdown of the page."""
    return "# Findings\n\n" + "\n".join(f"- {note.title}" for note in project.notes) + "\n"
