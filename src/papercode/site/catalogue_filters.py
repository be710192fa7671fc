"""What one can filter the catalogue by, and the controls for it.

A state of the filters is the part of the address after `#`: `family=attention&year=2017`. Each option is also a place
of the page with that name, so that MkDocs can check a link to it.
"""

from collections import Counter
from collections.abc import Iterable
from html import escape

from papercode.site.collection import Paper
from papercode.site.notes import FAMILIES

_CONTROLS = """\
<form class="cat-controls" role="search" aria-label="Filter the papers" data-search-exclude>
<div class="cat-bar">
<label class="cat-find"><span>Find</span> \
<input type="search" name="q" autocomplete="off" spellcheck="false" placeholder="name, title, author, 注意力 …"></label>
<label class="cat-order"><span>Order</span> <select name="order">
<option value="">by family</option><option value="oldest">oldest first</option>\
<option value="newest">newest first</option>
</select></label>
<button type="button" class="cat-fold" aria-expanded="false" aria-controls="cat-facets">Filters\
<span class="cat-chosen"></span></button>
<p class="cat-count"><span role="status" data-all="{{n}} papers" data-some="{{m}} of {{n}} papers">{total} papers</span>
<button type="button" class="cat-clear" disabled>Clear all</button></p>
</div>
<div class="cat-facets" id="cat-facets">
{facets}
</div>
</form>
<p class="cat-none" hidden>No paper is like that. <button type="button" class="cat-clear">Clear all filters</button></p>
"""


def state(**chosen: object) -> str:
    """The name of a state in which one option is chosen, as it stands after the `#` of an address."""
    return "&".join(f"{name}={value}" for name, value in chosen.items())


def of_the_catalogue(papers: Iterable[Paper]) -> list[str]:
    """The families that have a paper, from the ground up."""
    found = {paper.family for paper in papers}
    return [family for family in FAMILIES if family in found]


def year_of(paper: Paper) -> str:
    """The year of the first public version; `unknown` if the bibliography does not say."""
    year = paper.published[0]
    return str(year) if year < 9999 else "unknown"


def years(papers: Iterable[Paper]) -> dict[str, int]:
    """How many papers first appeared in each year, oldest first; `unknown` comes last."""
    return dict(sorted(Counter(map(year_of, papers)).items()))


def controls(papers: list[Paper]) -> str:
    """The HTML of the form: text, order, and options with how many papers each has."""
    notes = sum(paper.reviewed for paper in papers)
    families = Counter(paper.family for paper in papers)
    facets = [
        _facet("Note", [
            ("note", "yes", "with a note", notes),
            ("note", "no", "listed only", len(papers) - notes),
        ]),
        _facet("Proof", [
            ("parity", "yes", "parity-checked", sum(paper.parity for paper in papers)),
            ("gpu", "yes", "GPU path", sum(paper.gpu for paper in papers)),
        ]),
        _facet("Family", [("family", f, FAMILIES[f], families[f]) for f in of_the_catalogue(papers)]),
        _facet("Year", [("year", year, year, count) for year, count in years(papers).items()]),
    ]  # fmt: skip
    return _CONTROLS.format(total=len(papers), facets="\n".join(facets))


def _facet(legend: str, options: list[tuple[str, str, str, int]]) -> str:
    rows = []
    for name, value, label, count in options:
        # the heading of a family bears its name already
        place = "" if name == "family" else f' id="{state(**{name: value})}"'
        rows.append(
            f'<label><input type="checkbox" name="{name}" value="{value}"{place}>'
            f' <span>{escape(label)}</span> <span class="cat-n">{count}</span></label>'
        )
    return f'<fieldset class="cat-by-{legend.lower()}"><legend>{legend}</legend>\n' + "\n".join(rows) + "\n</fieldset>"
