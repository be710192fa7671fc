"""The page that shows the lineage of all papers."""

from papercode.site.project import Project

PAGE = "map.md"


def map_page(project: Project) -> str:
    """The Markdown of the map."""
    return "# Map\n\n" + "\n".join(f"- {paper.name}" for paper in project.collection.values()) + "\n"
