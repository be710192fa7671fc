"""The page that shows the lineage of all papers: as a picture, and the same as a table.

The papers are Markdown links laid over the lines, so that MkDocs resolves and checks them. `lineage_layout` says where
they stand, `assets/map.css` how they look; `assets/map.js` lights up ancestors and descendants. All words stand here.
"""

from collections.abc import Iterator

from papercode.site.collection import Paper
from papercode.site.header import plain, relative
from papercode.site.lineage_layout import WIDTH, Band, Layout, Place, layout
from papercode.site.notes import FAMILIES
from papercode.site.project import Project

PAGE = "map.md"

_PAGE = """\
---
hide: [navigation, toc]
---

# Map

All papers of the collection, from the oldest on, in the colours of their families. Point at one, or tap it, to see what
it brought, what it came from and what came of it. It opens as a note, or as a reference while it has none. Lines lead
from a paper to those that build on it; a year is as wide as it has papers, and one without any is left out. Arrow keys
go from paper to paper. Below stands [the same as a table](#the-same-as-a-table).

<div class="lineage" data-search-exclude markdown="1">
<div class="lineage-key" markdown="0">
<span><i class="dot"></i> has a note</span> <span><i class="dot listed"></i> listed only</span>
<span><i class="line"></i> builds on it and imports its code</span> <span><i class="line said"></i> builds on it</span>
<span><i class="line up"></i> ancestors</span> <span><i class="line down"></i> descendants</span>
</div>
<div class="lineage-box" role="group" aria-label="Lineage of the papers" markdown="1">
<div class="lineage-picture" style="width:{width}em;height:{height}em" markdown="1">
<div class="lineage-lines" markdown="0">
{lines}
</div>
<div class="lineage-lanes" role="group" aria-label="Families" markdown="0">
{lanes}
</div>
<div class="lineage-axis" aria-hidden="true" markdown="0">{axis}</div>
{years}
</div>
</div>
<div class="lineage-card" hidden markdown="0">
<p><a></a> <span class="who"></span></p><p class="what"></p>
<p class="up"><b>Builds on</b> <span></span></p>
<p class="down"><b>Built on by</b> <span data-more="and {{n}} more"></span></p>
</div>
</div>

## The same as a table

<table class="lineage-table" role="table" data-search-exclude markdown="1">
<thead role="rowgroup"><tr role="row">{head}</tr></thead>
<tbody role="rowgroup" markdown="1">
{rows}
</tbody>
</table>
"""


def map_page(project: Project) -> str:
    """The Markdown of the map."""
    collection = project.collection
    picture = layout(collection)
    placed = [collection[key] for key in picture.places]  # map.js counts on their order
    others = [paper for key, paper in collection.items() if key not in picture.places]
    columns = ("Year", "Paper", "Family", "What it brought", "Builds on")
    return _PAGE.format(
        width=_em(WIDTH),
        height=_em(picture.height),
        lines=_lines(picture),
        lanes="\n".join(_lane(lane) for lane in picture.lanes),
        axis="".join(
            f'<span style="left:{_em(year.start)}em;width:{_em(year.size)}em">{year.name}</span>'
            for year in picture.years
        ),
        years="\n".join(_year(year.name, collection, picture) for year in picture.years),
        head="".join(f'<th role="columnheader" scope="col">{name}</th>' for name in columns),
        rows="\n".join(_row(paper, collection) for paper in (*placed, *others)),
    )


def link(paper: Paper, page: str, inner: str = "", attributes: str = "") -> str:
    """A Markdown link from the source `page` to a paper, in the colour of its family.

    Args:
        paper: where it leads to.
        page: the source of the page on which it stands.
        inner: what follows the paper's name in it.
        attributes: more of its attributes, as `attr_list` reads them.
    """
    listed = "" if paper.reviewed else ".listed "
    target = relative(paper.page, page)
    return f"[{plain(paper.name)}{inner}]({target}){{ {listed}{attributes}data-family={paper.family} }}"


def _lane(lane: Band) -> str:
    name = (
        f'<button type="button" data-family="{lane.name}" aria-pressed="false" disabled>{FAMILIES[lane.name]}</button>'
    )
    return f'<div style="top:{_em(lane.start)}em;height:{_em(lane.size)}em">{name}</div>'


def _year(name: str, collection: dict[str, Paper], picture: Layout) -> str:
    own = [key for key in picture.places if collection[key].published[0] == int(name)]
    head = f'<div class="lineage-year" role="group" aria-label="{name}" markdown="span"><b>{name}</b>'
    return "\n".join([head, *(_dot(collection[key], picture.places[key]) for key in own), "</div>"])


def _dot(paper: Paper, place: Place) -> str:
    """A paper in the picture; what one sees at a glance is said to those who do not."""
    said = f'<span class="said">, {paper.published[0]}, {FAMILIES[paper.family]}: {plain(paper.contribution)}</span>'
    side = f"right:{_em(WIDTH - place.right)}em" if place.before else f"left:{_em(place.left)}em"
    before = ".before " if place.before else ""
    return link(paper, PAGE, said, f'#{paper.key} {before}style="{side};top:{_em(place.y)}em" ')


def _lines(picture: Layout) -> str:
    number = {key: position for position, key in enumerate(picture.places)}
    size = f'width="{_em(WIDTH)}em" height="{_em(picture.height)}em" viewBox="0 0 {_em(WIDTH)} {_em(picture.height)}"'
    groups = []
    for code in (False, True):
        paths = (
            f'<path d="{_curve(picture.places[edge.older], picture.places[edge.newer])}" '
            f'data-edge="{number[edge.older]} {number[edge.newer]}"/>'
            for edge in picture.edges
            if edge.code == code
        )
        groups.append(f'<g class="{"code" if code else "said"}">{"".join(paths)}</g>')
    grid = "".join(f"M{_em(year.start)} 0V{_em(picture.height)}" for year in picture.years)
    return f'<svg {size} aria-hidden="true"><path class="grid" d="{grid}"/>{"".join(groups)}</svg>'


def _curve(older: Place, newer: Place) -> str:
    """From dot to dot, leaving and arriving along the years."""
    bend = max((newer.x - older.x) / 2, 1.5)
    points = (older.x + bend, older.y, newer.x - bend, newer.y, newer.x, newer.y)
    return f"M{_em(older.x)} {_em(older.y)}C" + " ".join(_em(point) for point in points)


def _em(length: float) -> str:
    return f"{length:.2f}".rstrip("0").rstrip(".")


def _row(paper: Paper, collection: dict[str, Paper]) -> str:
    year = (paper.entry and paper.published[0]) or "–"
    who = f" <small>{plain(paper.entry.cited_authors)}</small>" if paper.entry else ""
    cells = list(_cells(paper, collection))
    name = f'<th role="rowheader" scope="row" markdown="span">{link(paper, PAGE)}{who}</th>'
    return f'<tr role="row" markdown="1"><td role="cell">{year}</td>\n{name}\n' + "\n".join(cells) + "</tr>"


def _cells(paper: Paper, collection: dict[str, Paper]) -> Iterator[str]:
    older = (collection[key] for key in paper.builds_on if key in collection)
    links = " · ".join(f"[{plain(other.name)}]({relative(other.page, PAGE)})" for other in older)
    for text in (FAMILIES[paper.family], plain(paper.contribution), links):
        yield f'<td role="cell" markdown="span">{text}</td>'
