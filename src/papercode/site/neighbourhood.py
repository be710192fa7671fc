"""The block of a note that shows its neighbours on the map: what it builds on, and what builds on it."""

from papercode.site.collection import Paper
from papercode.site.header import plain, relative
from papercode.site.map_page import PAGE, link
from papercode.site.notes import Note
from papercode.site.project import Project

SHOWN = 6
"""How many papers stand on a side; the others are folded."""

Neighbours = list[tuple[Paper, bool]]  # and whether the code of the newer one imports that of the older


def neighbourhood(note: Note, project: Project) -> str:
    """The Markdown of the neighbourhood of `note`; empty if it has no neighbours.

    Papers stand in the order of time. A line is solid where the code of one imports that of the other.
    """
    collection = project.collection
    paper = collection.get(note.key)
    if paper is None:
        return ""
    older = [(other, key in paper.imports) for key, other in collection.items() if key in paper.builds_on]
    newer = [(other, paper.key in other.imports) for other in collection.values() if paper.key in other.builds_on]
    if not older + newer:
        return ""
    parts = [
        _side("older", "Builds on", older, paper.page),
        f'<div class="kin-self{"" if newer else " last"}" data-family="{paper.family}" markdown="span">'
        f"<span><b>{plain(paper.name)}</b> "
        f"<small>[on the map]({relative(PAGE, paper.page)}#{paper.key})</small></span></div>",
        _side("newer", "Built on by", newer, paper.page),
        _folded("Builds on", older, paper.page),
        _folded("Built on by", newer, paper.page),
    ]
    return '<nav class="kin" aria-label="Lineage" markdown="1">\n' + "\n".join(filter(None, parts)) + "\n</nav>\n\n"


def _split(papers: Neighbours) -> tuple[Neighbours, Neighbours]:
    """Those to show and those to fold; of many, those with a note are shown first."""
    first = sorted(papers, key=lambda item: not item[0].reviewed)[:SHOWN]
    return [item for item in papers if item in first], [item for item in papers if item not in first]


def _side(name: str, title: str, papers: Neighbours, page: str) -> str:
    shown, _ = _split(papers)
    return f'<div class="kin-side {name}" markdown="1">\n<p>{title}</p>\n{_list(shown, page)}\n</div>' if shown else ""


def _folded(title: str, papers: Neighbours, page: str) -> str:
    _, folded = _split(papers)
    if not folded:
        return ""
    return f'<details markdown="1"><summary>{title} {len(folded)} more</summary>\n{_list(folded, page)}\n</details>'


def _list(papers: Neighbours, page: str) -> str:
    items = (
        f'<li{" class=code" if code else ""} markdown="span">{link(paper, page)}{_year(paper)}</li>'
        for paper, code in papers
    )
    return '<ul markdown="1">\n' + "\n".join(items) + "\n</ul>"


def _year(paper: Paper) -> str:
    return f" <small>{paper.published[0]}</small>" if paper.entry else ""
