"""Where each paper stands in the picture of the lineage: years along x, a lane for each family.

Lengths are in em of the picture's own type, so that the picture grows with it. Nothing here knows HTML.

Most papers appeared within a few years, so a year is as wide as it has papers, and one without any takes no room.
Within its year a paper stands at its month. To save rows, the labels of the older half of a lane stand left of their
dots and those of its newer half right of them; from the middle outwards, each takes the first row that has room.
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from papercode.site.collection import Paper
from papercode.site.notes import FAMILIES

WIDTH = 110.0
GUTTER = 9.0  # the names of the lanes
MARGIN = 8.0  # the labels of the last months
HEAD = 2.2  # the numbers of the years
YEAR = 3.2  # the least width of a year: its number
ROW = 1.55
PAD = 0.55  # above and below the rows of a lane
DOT = 0.85  # from the middle of a dot to its label
GAP = 0.5  # between two labels

# the widths of letters in DejaVu Sans, which is wider than what other systems show; all others are _SMALL
_THIN, _SLIM, _BROAD, _CAPITAL, _SMALL = 0.33, 0.45, 0.99, 0.74, 0.63
_WIDTHS = {
    **dict.fromkeys("ijlI.,:;'|! ’", _THIN),
    **dict.fromkeys("()[]-rtf/", _SLIM),
    **dict.fromkeys("mMW@%w", _BROAD),
}

Span = tuple[float, float, bool]  # from, to, and whether the label stands before the dot


@dataclass(frozen=True)
class Place:
    """A paper's dot and its label, from `left` to `right`.

    Attributes:
        x: the middle of the dot.
        y: the middle of dot and label.
        left: where dot and label begin.
        right: where they end.
        before: whether the label stands left of the dot.
    """

    x: float
    y: float
    left: float
    right: float
    before: bool


@dataclass(frozen=True)
class Band:
    """A year (`start` and `size` along x) or the lane of a family (along y)."""

    name: str
    start: float
    size: float


@dataclass(frozen=True)
class Edge:
    """A paper and one that builds on it; `code` if the code of the newer one imports that of the older."""

    older: str
    newer: str
    code: bool


@dataclass(frozen=True)
class Layout:
    """The whole picture.

    Attributes:
        height: its height; its width is WIDTH.
        years: the years that have papers, in order.
        lanes: the families that have papers, from the ground up.
        places: where each paper stands, by its key, in the order of time.
        edges: the lineage.
    """

    height: float
    years: tuple[Band, ...]
    lanes: tuple[Band, ...]
    places: Mapping[str, Place]
    edges: tuple[Edge, ...]


def layout(collection: Mapping[str, Paper]) -> Layout:
    """Gives a place to every paper whose year is known."""
    dated = (paper for paper in collection.values() if paper.entry and paper.published[0])
    papers = sorted(dated, key=lambda paper: (paper.published, paper.key))
    years = _years([paper.published[0] for paper in papers])
    xs = {paper.key: _x(paper, years[paper.published[0]]) for paper in papers}
    found, lanes, top = {}, [], HEAD
    for family in FAMILIES:
        own = [paper for paper in papers if paper.family == family]
        if not own:
            continue
        rows = _rows(own, xs)
        for number, row in enumerate(rows):
            y = top + PAD + (number + 0.5) * ROW
            found.update({key: Place(xs[key], y, *span) for key, span in row.items()})
        size = 2 * PAD + max(len(rows), 2) * ROW
        lanes.append(Band(family, top, size))
        top += size
    return Layout(
        top, tuple(years.values()), tuple(lanes), {paper.key: found[paper.key] for paper in papers}, edges(papers)
    )


def edges(papers: Iterable[Paper]) -> tuple[Edge, ...]:
    """Who builds on whom among `papers`, in their order."""
    papers = list(papers)
    known = {paper.key for paper in papers}
    return tuple(
        Edge(older, paper.key, older in paper.imports)
        for paper in papers
        for older in paper.builds_on
        if older in known
    )


def label_width(text: str) -> float:
    """The room that a label needs; rather too much than too little."""
    return sum(_WIDTHS.get(letter, _CAPITAL if letter.isupper() else _SMALL) for letter in text)


def _years(dates: list[int]) -> dict[int, Band]:
    """The years in order: each as wide as it has papers, but no narrower than its number."""
    counts = dict(sorted(Counter(dates).items()))
    narrow: set[int] = set()
    unit = 0.0
    while len(narrow) < len(counts):
        wide = sum(count for year, count in counts.items() if year not in narrow)
        unit = (WIDTH - GUTTER - MARGIN - YEAR * len(narrow)) / wide
        more = {year for year, count in counts.items() if count * unit < YEAR} - narrow
        if not more:
            break
        narrow |= more
    found, x = {}, GUTTER
    for year, count in counts.items():
        size = YEAR if year in narrow else count * unit
        found[year] = Band(str(year), x, size)
        x += size
    return found


def _x(paper: Paper, year: Band) -> float:
    """The place of a paper's month; if that is unknown, the beginning of its year."""
    month = max(paper.published[1] - 1, 0)
    return year.start + DOT + (year.size - DOT) * month / 12


def _rows(papers: list[Paper], xs: Mapping[str, float]) -> list[dict[str, Span]]:
    """The rows of a lane: in each, by the papers' keys, where dot and label begin and end, and on which side it is."""
    half = len(papers) // 2
    rows: list[dict[str, Span]] = []
    for paper in [*reversed(papers[:half]), *papers[half:]]:
        older = paper in papers[:half]
        both = [_span(paper, xs[paper.key], before) for before in (older, not older)]
        spans = [span for span in both if span[0] >= GUTTER and span[1] <= WIDTH] or both
        spot = next(
            ((row, span) for row in rows for span in spans if all(_apart(span, other) for other in row.values())), None
        )
        if spot is None:
            rows.append({})
            spot = rows[-1], spans[0]
        spot[0][paper.key] = spot[1]
    return rows


def _span(paper: Paper, x: float, before: bool) -> Span:
    """From where to where dot and label reach, and on which side of the dot the label is."""
    length = DOT + label_width(paper.name)
    return (x - length, x + DOT, before) if before else (x - DOT, x + length, before)


def _apart(one: Span, other: Span) -> bool:
    return one[1] + GAP <= other[0] or other[1] + GAP <= one[0]
