"""The pages that gather what the notes mark: findings, common mistakes, readers' questions.

Each item is folded below its title and leads to the place in its note. `assets/findings.js` gives the controls life;
without it the pages are the same lists, unfiltered.
"""

from html import escape
from textwrap import indent

from papercode.site.header import page_of, plain, relative
from papercode.site.marked import Marked, marked
from papercode.site.moved import moved
from papercode.site.notes import FAMILIES, Note
from papercode.site.project import Project

PAGE = "findings.md"
PAGES = {"finding": PAGE, "mistake": "mistakes.md", "question": "questions.md"}

_TITLES = {"finding": "Findings", "mistake": "Common mistakes", "question": "Questions"}
_MANY = {"finding": "findings", "mistake": "common mistakes", "question": "questions with answers"}
_INTRODUCTIONS = {
    "finding": "What came out when a paper was recomputed and its text says otherwise or does not say: a number that is"
    " another one, a formula with a slip, a claim that holds in part, a reason that is not the one given.",
    "mistake": "What people believe or build though the paper says otherwise. The titles state the mistake.",
    "question": "What readers ask, answered from the paper or by code that ran.",
}
# without data-search-exclude each text would be found twice, and the note would not come first
_UNSEARCHED = "{ data-search-exclude }"

_CONTROLS = """\
<div class="marked-controls" data-search-exclude>
<label class="marked-find"><span>Find</span> \
<input type="search" autocomplete="off" spellcheck="false" placeholder="words of title or text, a paper"></label>
<label class="marked-family"><span>Family</span> <select><option value="">all</option>{options}</select></label>
<button type="button" aria-pressed="false" data-open="Open all" data-close="Close all">Open all</button>
<p class="marked-count" role="status" data-all="{{n}} {many}" data-some="{{m}} of {{n}} {many}">{count} {many}</p>
</div>
"""


def findings_pages(project: Project) -> dict[str, str]:
    """The Markdown of each page by its name."""
    found = [(note, item) for note in project.notes for item in marked(note.text) if item.title and item.body]
    groups = {kind: [(note, item) for note, item in found if item.kind == kind] for kind in PAGES}
    return {page: _page(kind, groups) for kind, page in PAGES.items()}


def _page(kind: str, groups: dict[str, list[tuple[Note, Marked]]]) -> str:
    items, page = groups[kind], PAGES[kind]
    papers = len({note.name for note, _ in items})
    others = " and ".join(f"[{len(groups[k])} {_MANY[k]}]({PAGES[k]})" for k in PAGES if k != kind)
    sorting = "by family, then from the oldest paper on"
    parts = [
        f"# {_TITLES[kind]}\n",
        f"{_INTRODUCTIONS[kind]} {len(items)} from {papers} notes, {sorting}; each leads to its place in the note,"
        f" where the code runs. There are also {others}.\n",
    ]
    present = [family for family in FAMILIES if any(note.family == family for note, _ in items)]
    options = "".join(f'<option value="{family}">{escape(FAMILIES[family])}</option>' for family in present)
    parts.append(_CONTROLS.format(options=options, many=_MANY[kind], count=len(items)))
    parts += _table(items, page)
    for family in present:
        parts.append(f"## {FAMILIES[family]} {_UNSEARCHED}\n")
        before = None
        for note, item in items:
            if note.family != family:
                continue
            if note is not before:
                parts.append(f"### {plain(note.title)} {_UNSEARCHED}\n")
            before = note
            parts.append(_item(note, item, page))
    return "\n".join(parts)


def _place(note: Note, item: Marked, page: str) -> str:
    return f"{relative(page_of(note), page)}#{item.anchor}"


def _item(note: Note, item: Marked, page: str) -> str:
    place = _place(note, item, page)
    body = moved(item.body, page_of(note), page, place)
    body += f"\n\n[In the note on {plain(note.title)}]({place}){{ .marked-place }}"
    return f'??? {item.kind} "{item.title}"\n\n{indent(body, "    ")}\n'


def _table(items: list[tuple[Note, Marked]], page: str) -> list[str]:
    """What papers say beside what we get, if anything of the kind is marked: HTML, as cells hold any Markdown."""
    rows = []
    for note, item in items:
        for numbers in item.numbers:
            paper = f"[{plain(note.title)}]({_place(note, item, page)})"
            cells = [("Paper", paper), ("What", numbers.what or item.title), ("The paper", numbers.paper)]
            cells += [("Here", numbers.here), ("Why", numbers.why)]
            shown = "".join(f'<td data-label="{label}" markdown="span">{cell}</td>' for label, cell in cells)
            rows.append(f'<tr data-family="{note.family}" markdown="1">{shown}</tr>')
    if not rows:
        return []
    head = "".join(f'<th scope="col">{name}</th>' for name in ("Paper", "What", "The paper", "Here", "Why"))
    return [
        f"## Numbers side by side {_UNSEARCHED}\n",
        '<table class="marked-numbers" markdown="1">',
        f"<thead><tr>{head}</tr></thead>",
        '<tbody markdown="1">',
        *rows,
        "</tbody>",
        "</table>\n",
    ]
