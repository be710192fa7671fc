"""What the pages of docs/ say about the collection: numbers and lists that are made when the site is built.

A page asks for them by comments: `<!-- papercode families -->` stands for the list of families,
`<!-- papercode minutes recurrent/lstm -->` for the time that a note takes to read.
"""

import re
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

from papercode.site.catalogue import PAGE
from papercode.site.catalogue_filters import of_the_catalogue, state, years
from papercode.site.families import ABOUT
from papercode.site.fences import without_fences
from papercode.site.header import relative
from papercode.site.notes import FAMILIES, Note
from papercode.site.passes import passes
from papercode.site.problem import Problem
from papercode.site.project import Project

_MARKER = re.compile(r"<!-- papercode (\w+)((?: [^\s>]+)*) -->")


def fill(text: str, page: str, project: Project) -> str:
    """`text` with what its comments ask for, in place of them; what cannot be given stays, and is a problem.

    Args:
        text: the Markdown of a page.
        page: the page, as MkDocs names sources.
        project: the papers.
    """
    return _MARKER.sub(lambda found: _made(found, page, project) or found[0], text)


def problems(path: Path, text: str, project: Project) -> Iterator[Problem]:
    """The comments of a page that ask for something unknown."""
    for found in _MARKER.finditer(without_fences(text)):
        if _made(found, "index.md", project) is None:
            line = text.count("\n", 0, found.start()) + 1
            known = ", ".join([*_MAKERS, "minutes <family>/<name> …"])
            yield Problem(path, line, f"`{found[0]}` asks for nothing that is known; known are {known}")


def minutes(note: Note) -> int:
    """How long the three passes of a note take to read, rounded to 5."""
    return max(5, 5 * round(sum(each.minutes for each in passes(note.text)) / 5))


def _made(found: re.Match[str], page: str, project: Project) -> str | None:
    maker, names = found[1], found[2].split()
    if maker == "minutes":
        notes = {note.name: note for note in project.notes}
        known = names and all(name in notes for name in names)
        return f'<span class="home-n">{_duration(sum(minutes(notes[n]) for n in names))}</span>' if known else None
    return _MAKERS[maker](page, project) if maker in _MAKERS and not names else None


def _duration(total: int) -> str:
    return f"{total} min" if total < 90 else f"{total / 60:.0f} hours"


def _papers(page: str, project: Project) -> str:
    return str(len(project.collection))


def _notes(page: str, project: Project) -> str:
    return str(sum(paper.reviewed for paper in project.collection.values()))


def _parity(page: str, project: Project) -> str:
    return str(sum(paper.parity for paper in project.collection.values()))


def _families(page: str, project: Project) -> str:
    """Every family: its name, how many papers and notes it has, what it is about."""
    papers = project.collection.values()
    total = Counter(paper.family for paper in papers)
    notes = Counter(paper.family for paper in papers if paper.reviewed)
    rows = []
    for family in of_the_catalogue(papers):
        link = f"[{FAMILIES[family]}]({relative(PAGE, page)}#{state(family=family)})"
        count = _number(total[family], "paper") + (f", {_number(notes[family], 'note')}" if notes[family] else "")
        about = f'<span class="home-about">{ABOUT[family]}</span>'
        rows.append(f'<li markdown="span">{link} <span class="home-n">{count}</span> {about}</li>')
    return _list("home-families", rows)


def _years(page: str, project: Project) -> str:
    """Every year with how many papers first appeared in it."""
    found = years(project.collection.values())
    most = max(found.values(), default=1)
    rows = [
        f'<li markdown="span" style="--share: {count / most:.2f}">'
        f'[{year} <span class="home-n">{count}</span>]({relative(PAGE, page)}#{state(year=year)})</li>'
        for year, count in found.items()
    ]
    return _list("home-years", rows)


def _number(count: int, thing: str) -> str:
    return f"{count} {thing}{'s' if count != 1 else ''}"


def _list(name: str, rows: list[str]) -> str:
    return "\n".join([f'<ul class="{name}" markdown="1">', *rows, "</ul>"])


_MAKERS: dict[str, Callable[[str, Project], str]] = {
    "papers": _papers,
    "notes": _notes,
    "parity": _parity,
    "families": _families,
    "years": _years,
}
