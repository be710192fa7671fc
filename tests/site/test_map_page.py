"""The map as a page: every link leads somewhere in both kinds of site, and the table says the same."""

import re
from html import unescape
from html.parser import HTMLParser
from urllib.parse import unquote, urldefrag

import pytest

from papercode.site.project import Project
from tiny import ROOT, add_listed, edit

LISTED = """\
fourth2021listed:
  name: "A *bold* [name]"
  family: analysis
  contribution: "Says <b> & `c` of first2015scaled_x_."
  builds_on: [second2019adapter, third2013plain]
fifth: {name: Undated, family: words, contribution: Nobody knows when., builds_on: []}
"""
ENTRIES = """
@misc{fourth2021listed, title={T}, author={Last, Eve}, year={2021}}
@misc{fifth, title={U}, author={X, Ann}}
"""


class Page(HTMLParser):
    """The links of a page by the class of what holds them, its ids, and the rows of its table as texts."""

    def __init__(self, text):
        super().__init__()
        self.links, self.ids, self.rows, self.open = {}, set(), [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        attrs = dict(attrs)
        self.ids.add(attrs.get("id"))
        if tag in {"div", "table", "nav"}:
            self.open.append(attrs.get("class") or "")
        if tag == "a" and "href" in attrs:
            for name in set(self.open):
                self.links.setdefault(name, []).append(attrs["href"])
        if tag == "tr":
            self.rows.append([])
        if tag in {"td", "th"}:
            self.rows[-1].append("")

    def handle_endtag(self, tag):
        if tag in {"div", "table", "nav"}:
            self.open.pop()

    def handle_data(self, data):
        if "lineage-table" in self.open and self.rows and self.rows[-1]:
            self.rows[-1][-1] += data


def broken(page, path, name):
    """The links within `name` on the page at `path` that lead to no file, or to no anchor of it."""
    found = []
    for link in page.links[name]:
        target, anchor = urldefrag(link)
        file = (path.parent / unquote(target)).resolve() if target else path
        file = file / "index.html" if file.is_dir() else file
        if not file.is_file() or (anchor and f'id="{anchor}"' not in file.read_text("utf-8")):
            found.append(link)
    return found


@pytest.fixture
def listed(site):
    """The tiny project with two papers that are only listed, one of them without a year."""
    add_listed(site.root, LISTED, ENTRIES)
    return site


@pytest.mark.parametrize("folders", [True, False])
def test_every_link_of_map_table_and_neighbourhoods_leads_somewhere(listed, folders):
    built = listed.build(use_directory_urls=folders)
    assert [warning.split(": ", 1)[1] for warning in built.warnings] == ["fifth: the entry has no year: add it"]
    end = "/index.html" if folders else ".html"
    path = built.folder / f"map{end}"
    page = Page(path.read_text("utf-8"))
    assert len(page.links["lineage-year"]) == 4
    assert len(page.links["lineage-table"]) == 5 + 3
    assert not broken(page, path, "lineage")
    assert not broken(page, path, "lineage-table")
    note = built.folder / f"papers/adaptation/adapter{end}"
    neighbours = Page(note.read_text("utf-8"))
    assert len(neighbours.links["kin"]) == 3
    assert not broken(neighbours, note, "kin")
    page.links["kin"] = ["nowhere/", f"{page.links['lineage-year'][0]}x#y"]
    assert broken(page, path, "kin") == page.links["kin"]  # this test can fail


def test_every_link_of_the_real_map_leads_somewhere(whole_site):
    path = whole_site / "map/index.html"
    page = Page(path.read_text("utf-8"))
    collection = Project(ROOT).collection
    assert len(page.links["lineage-year"]) == len(collection)
    assert page.ids >= set(collection)
    bibliography = (whole_site / "bibliography/index.html").read_text("utf-8")
    for link, paper in zip(page.links["lineage-year"], collection.values(), strict=True):
        if paper.note:
            assert link == f"../papers/{paper.note.name}/"
            assert (path.parent / link / "index.html").is_file()
        else:
            assert link == f"../bibliography/#{paper.key}"
            assert f'id="{paper.key}"' in bibliography


def test_the_table_says_all_that_the_picture_says(listed):
    rows = Page(listed.build().page("map")).rows
    assert [" ".join(cell.split()) for cell in rows[0]] == ["Year", "Paper", "Family", "What it brought", "Builds on"]
    assert [[" ".join(cell.split()) for cell in row] for row in rows[1:]] == [
        ["2013", "Plain Plain", "Word vectors", "Brings plain.", ""],
        ["2015", "Scaled First", "Attention", "Brings scaled.", ""],
        ["2019", "Adapter Second and Third", "Adaptation", "Brings adapter.", "Scaled"],
        [
            "2021", "A *bold* [name] Last", "Analysis and surveys", "Says <b> & `c` of first2015scaled_x_.",
            "Adapter · Plain",
        ],
        ["–", "Undated X", "Word vectors", "Nobody knows when.", ""],
    ]  # fmt: skip


def test_a_paper_says_aloud_what_one_sees(listed):
    html = listed.build().page("map")
    link = re.search(r'<a [^>]*id="fourth2021listed".*?</a>', html, re.DOTALL)[0]
    text = unescape(re.sub(r"<[^>]*>", "", link))
    assert text == "A *bold* [name], 2021, Analysis and surveys: Says <b> & `c` of first2015scaled_x_."
    assert "listed" in re.search(r'class="([^"]*)"', link)[1].split()
    assert 'data-family="analysis"' in link
    assert "listed" not in re.search(r'<a [^>]*id="second2019adapter"[^>]*>', html)[0]
    assert 'id="fifth"' not in html


def test_lines_name_their_papers_by_number(listed):
    html = listed.build().page("map")
    groups = dict(re.findall(r'<g class="(code|said)">(.*?)</g>', html))
    assert re.findall(r'data-edge="([\d ]+)"', groups["code"]) == ["1 2"]
    assert re.findall(r'data-edge="([\d ]+)"', groups["said"]) == ["2 3", "0 3"]


def test_search_is_not_told_everything_twice(listed):
    index = (listed.build().folder / "search/search_index.json").read_text("utf-8")
    assert "Nobody knows when." not in re.sub(r'\{[^{}]*"location":"(?!map)[^{}]*\}', "", index)


def test_map_and_neighbourhoods_are_light(whole_site):
    assert len((whole_site / "map/index.html").read_bytes()) < 250_000
    sizes = {}
    for note in Project(ROOT).notes:
        html = (whole_site / "papers" / note.name / "index.html").read_text("utf-8")
        blocks = re.findall(r'<nav [^>]*class="kin".*?</nav>', html, re.DOTALL)
        sizes[note.name] = sum(len(block.encode()) for block in blocks)
    assert max(sizes.values()) < 6000, sizes
    assert sum(size > 0 for size in sizes.values()) > 0.9 * len(sizes)


def test_a_change_of_the_lineage_changes_the_map_and_both_notes(listed):
    before = listed.build().files()
    edit(listed.root / "papers/words/plain.md", "builds_on: []", "builds_on: [first2015scaled]")
    after = listed.build().files()
    changed = {name for name in before if name.endswith(".html") and before[name] != after.get(name)}
    assert {"map/index.html", "papers/words/plain/index.html", "papers/attention/scaled/index.html"} <= changed
