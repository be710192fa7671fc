"""The page that lists references.bib: one entry a paper, with what the project has about it and who cites it.

The page is Markdown, so that MkDocs resolves and checks its links, around HTML that is a plain list without JavaScript.
`assets/bibliography.js` shows the controls and gives them life; its words stand here, in attributes.
"""

import re
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape

from papercode.site.bibliography import Bibliography, Entry
from papercode.site.citations import cited_keys
from papercode.site.header import api_page_of, page_of
from papercode.site.project import Project

_SPECIAL = re.compile(r"[\\`*_\[\]<>&@#!{}|~^\"'$]")
_MATH = re.compile(r"(\$[^$\s](?:[^$]*[^$\s])?\$)")

_HEAD = """\
---
hide:
  - navigation
  - toc
---

# Bibliography

{introduction}

<div class="bib-controls" hidden data-search-exclude>
<label class="bib-find"><span>Find</span> \
<input type="search" autocomplete="off" spellcheck="false" placeholder="author, title, venue, year"></label>
<div role="group" aria-label="Sort by" class="bib-sort">
<button type="button" data-by="author" aria-pressed="true">Author</button>
<button type="button" data-by="year" data-descending aria-pressed="false">Year</button>
<button type="button" data-by="title" aria-pressed="false">Title</button>
<button type="button" data-by="cited" data-descending aria-pressed="false">Times cited</button>
</div>
<p class="bib-count" role="status" data-all="{{n}} papers" data-some="{{m}} of {{n}} papers"></p>
</div>
"""


@dataclass(frozen=True)
class NoteLink:
    """What the project has about a paper; addresses are relative to the bibliography page.

    Args:
        title: The name of the note.
        url: The note.
        module: The dotted name of its main module, None if it has none.
        module_url: The API page of that module, None if it has none.
    """

    title: str
    url: str
    module: str | None = None
    module_url: str | None = None


def render(project: Project) -> str:
    """The Markdown of the bibliography page of a project.

    A note cites the papers it names in its text and those it builds on.
    """
    notes: dict[str, NoteLink] = {}
    cited_by: dict[str, list[tuple[str, str]]] = {}
    for note in project.notes:
        module = next(iter(note.modules), None)
        known = module in project.sources.paths
        notes[note.key] = NoteLink(note.title, page_of(note), module, api_page_of(module) if module and known else None)
        cited = {key for key, _ in cited_keys(note.text, project.bibliography)} | set(note.builds_on)
        for key in cited - {note.key}:
            cited_by.setdefault(key, []).append((note.title, page_of(note)))
    names = {key: paper.name for key, paper in project.collection.items()}
    return listing(project.bibliography, notes, cited_by, names)


def listing(
    bibliography: Bibliography,
    notes: Mapping[str, NoteLink],
    cited_by: Mapping[str, Sequence[tuple[str, str]]],
    names: Mapping[str, str] | None = None,
) -> str:
    """The Markdown of a bibliography page.

    Args:
        bibliography: The entries; they are listed by first author, and by first publication for the same one.
        notes: What there is about a paper, by its key.
        cited_by: (title, address) of the pages that cite a paper, by its key.
        names: What people call a paper, by its key; said where the title does not say it.

    Returns:
        A page whose addresses are as they were given; each entry is an anchor named by its key.
    """
    count = len(bibliography)
    introduction = f"{count} paper{'s' if count != 1 else ''}, {sum(key in notes for key in bibliography)} with a note."
    entries = sorted(bibliography.values(), key=lambda e: (_plain(_sortable(e)), e.published, e.key))
    names = names or {}
    rows = [
        _row(entry, notes.get(entry.key), cited_by.get(entry.key, ()), names.get(entry.key, "")) for entry in entries
    ]
    head = _HEAD.format(introduction=introduction)
    return "\n".join([head, '<ul class="bib-list" markdown="1">', *rows, "</ul>", ""])


def _row(entry: Entry, note: NoteLink | None, cited_by: Sequence[tuple[str, str]], name: str) -> str:
    year = f"{entry.published[0]:04}-{entry.published[1]:02}"
    places = [f'<a href="{escape(url)}">{escape(name)}</a>' for name, url in entry.links]
    ours = []
    if note:
        ours.append(f"[Note: {_text(note.title)}]({note.url})")
        if note.module and note.module_url:
            ours.append(f"[`{note.module}`]({note.module_url})")
    source = entry.source
    if not re.search(rf"\b{entry.year}\b(?!\.)", source) or entry.suffix:  # (ICLR 2015) has said it
        source = f"{source}, {entry.cited_year}".lstrip(", ")
    called = "" if name in entry.title else f' <span class="bib-name">{_text(name)}</span>'
    citing = ", ".join(f"[{_text(title)}]({url})" for title, url in cited_by)
    lines = [
        f'<li class="bib-entry" markdown="1" data-author="{escape(_sortable(entry))}" data-year="{year}"'
        f' data-cited="{len(cited_by)}" data-words="{escape(entry.key)} {entry.cited_year}">',
        # a heading, so that the site's search leads to it; of level 4, so that the table of contents leaves it out
        f'<h4 id="{escape(entry.key)}" class="bib-title" aria-level="2" markdown="span">'
        f"{_text(entry.title)}{called}</h4>",
        f'<p class="bib-authors" markdown="span">{_text(", ".join(entry.author_names))}</p>',
        f'<p class="bib-source" markdown="span">{_text(source)}</p>',
    ]
    key = f"<code>{escape(entry.key)}</code>"  # by which authors cite it, and the search finds it
    lines.append(f'<p class="bib-links" markdown="span">{" · ".join([*places, *ours, key])}</p>')
    if citing:
        lines.append(f'<p class="bib-cited" markdown="span">Cited by {citing}</p>')
    lines += [
        '<details class="bib-bibtex" markdown="0" data-search-exclude><summary>BibTeX</summary>'
        '<button type="button" class="bib-copy" hidden data-done="Copied">Copy</button>'
        f'<pre class="no-copy"><code>{_escaped(entry.bibtex)}</code></pre></details>',
        "</li>",
    ]
    return "\n".join(lines)


def _sortable(entry: Entry) -> str:
    """The authors, last name first, as they are sorted; particles count."""
    return "; ".join(f"{last}, {first}".strip(", ") for first, last in entry.authors) or entry.key


def _plain(text: str) -> str:
    """Small letters without accents."""
    return "".join(c for c in unicodedata.normalize("NFD", text.casefold()) if not unicodedata.combining(c))


def _text(text: str) -> str:
    """Plain text as Markdown that means nothing but that text; `$math$` stays math."""
    parts = _MATH.split(text)
    for number in range(0, len(parts), 2):
        parts[number] = _escaped(parts[number])
    return "".join(parts)


def _escaped(text: str) -> str:
    return _SPECIAL.sub(lambda match: f"&#{ord(match[0])};", text)
