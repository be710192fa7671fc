"""The page that lists every paper, with a note or without: by family, oldest first, to be filtered and searched.

The page is Markdown, so that MkDocs resolves and checks its links, around HTML that is the whole list without
JavaScript. The controls are part of the page from the start, so that nothing moves when `assets/catalogue.js` gives
them life; its words stand here, in attributes.
"""

import re
from html import escape

from papercode.site.catalogue_filters import controls, of_the_catalogue, state, year_of
from papercode.site.collection import Paper
from papercode.site.entry import Entry
from papercode.site.families import ABOUT
from papercode.site.header import plain, relative
from papercode.site.notes import FAMILIES
from papercode.site.project import Project

PAGE = "papers/index.md"

_HEAD = """\
---
hide:
  - navigation
  - toc
---

# Papers

<p class="cat-intro" markdown="span">{total} papers: {notes} have a note, {listed} are listed with their reference. \
*Parity-checked*: a test holds one of its modules against an independent implementation{parity}. *GPU path*: a test \
runs one of its modules on a GPU. The year is that of the first public version.</p>

<div class="cat" markdown="1">
<script>location.hash.includes("=") && document.currentScript.parentElement.setAttribute("data-waiting", "")</script>
{controls}
<div class="cat-list" markdown="1">
"""


def catalogue(project: Project) -> str:
    """The Markdown of the list of papers: families from the ground up, papers from the oldest."""
    papers = list(project.collection.values())
    notes = sum(paper.reviewed for paper in papers)
    table = " ([which](../parity.md))" if (project.root / "docs/parity.md").is_file() else ""
    head = _HEAD.format(
        total=len(papers), notes=notes, listed=len(papers) - notes, parity=table, controls=controls(papers)
    )
    groups = [_group(family, [p for p in papers if p.family == family]) for family in of_the_catalogue(papers)]
    return "\n".join([head, *groups, "</div>", "</div>", ""])


def _group(family: str, papers: list[Paper]) -> str:
    rows = "\n".join(_row(paper) for paper in papers)
    return f"""\
<section class="cat-group" markdown="1">
<h2 id="{state(family=family)}" markdown="span">{FAMILIES[family]}</h2>
<p class="cat-about">{ABOUT[family]} <span class="cat-of">{len(papers)}</span></p>
<ul class="cat-papers" markdown="1">
{rows}
</ul>
</section>
"""


def _row(paper: Paper) -> str:
    data = f' data-family="{paper.family}" data-year="{year_of(paper)}"'
    for name, there in (("note", paper.reviewed), ("parity", paper.parity), ("gpu", paper.gpu)):
        data += f' data-{name}="{"yes" if there else "no"}"'
    published = "{:04}-{:02}".format(*paper.published)
    # a note is found by its own page, a listed paper only here
    search = " data-search-exclude" if paper.reviewed else ""
    entry = paper.entry
    lines = [
        f'<li class="cat-paper" markdown="1"{data} data-published="{published}" data-words="{_words(paper)}"{search}>',
        f'<p class="cat-name" markdown="span">[{plain(paper.name)}]({relative(paper.page, PAGE)})'
        f' <span class="cat-year">{year_of(paper)}</span></p>',
    ]
    if entry:
        cited = f"{entry.cited_authors}, {_venue(entry)}"
        lines.append(f'<p class="cat-title" markdown="span">*{plain(entry.title)}.* {plain(cited)}</p>')
    lines.append(f'<p class="cat-line" markdown="span">{plain(paper.contribution)}</p>')
    lines.append(f'<p class="cat-facts" markdown="span">{" · ".join([_badges(paper), *_references(paper)])}</p>')
    return "\n".join([*lines, "</li>"])


def _badges(paper: Paper) -> str:
    badges = ["note" if paper.reviewed else "listed"]
    badges += [name for name, there in (("parity-checked", paper.parity), ("GPU path", paper.gpu)) if there]
    return " ".join(f'<span class="cat-badge cat-{name.split()[0].lower()}">{name}</span>' for name in badges)


def _references(paper: Paper) -> list[str]:
    """Where the paper itself is."""
    if not paper.entry:
        return []
    links = [f"[{plain(name)}]({url})" for name, url in paper.entry.links]
    return [*links, f"[Bibliography]({relative(f'bibliography.md#{paper.key}', PAGE)})"]


def _venue(entry: Entry) -> str:
    """The short name of the venue with its year: `ICLR 2022`; the year alone where there is no venue."""
    short = re.search(r"\(([^()]*\b\d{4})\)$", entry.venue)
    if short:
        return short[1]
    venue = "arXiv" if entry.venue.startswith("arXiv:") else entry.venue
    return venue if re.search(rf"\b{entry.year}\b", venue) else f"{venue} {entry.year}".strip()


def _words(paper: Paper) -> str:
    """What the search finds beside what one reads: the key, all authors, and what the paper is known for."""
    words = [paper.key, *(paper.entry.author_names if paper.entry else ())]
    if paper.note:
        words += [word for pair in paper.note.terms.items() for word in pair]
    return escape(" ".join(words))
