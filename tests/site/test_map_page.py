"""The map as a page: every link leads somewhere in both kinds of site, the table says the same, and colours can be told apart."""

import re
from html import unescape
from html.parser import HTMLParser
from itertools import pairwise, product
from pathlib import Path
from urllib.parse import unquote, urldefrag

import numpy as np
import pytest

from papercode.site.map_page import map_page
from papercode.site.notes import FAMILIES
from papercode.site.project import Project
from tiny import ROOT, edit

STYLES = (ROOT / "src/papercode/site/assets/map.css").read_text("utf-8")
LISTED = """\
fourth2021listed:
  name: "A *bold* [name]"
  family: analysis
  contribution: "Says <b> & `c` of first2015scaled_x_."
  builds_on: [second2019adapter, third2013plain]
fifth: {name: Undated, family: words, contribution: Nobody knows when., builds_on: []}
"""
ENTRY = "@misc{fourth2021listed, title={T}, author={Last, Eve}, year={2021}}\n@misc{fifth, title={U}, author={X, Ann}}\n"


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
    (site.root / "papers/listed.yaml").write_text(LISTED, "utf-8")
    with (site.root / "references.bib").open("a", encoding="utf-8") as file:
        file.write("\n" + ENTRY)
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
        sizes[note.name] = sum(len(block.encode()) for block in re.findall(r'<nav [^>]*class="kin".*?</nav>', html, re.DOTALL))
    assert max(sizes.values()) < 6000, sizes
    assert sum(size > 0 for size in sizes.values()) > 0.9 * len(sizes)


def test_a_change_of_the_lineage_changes_the_map_and_both_notes(listed):
    before = listed.build().files()
    edit(listed.root / "papers/words/plain.md", "builds_on: []", "builds_on: [first2015scaled]")
    after = listed.build().files()
    changed = {name for name in before if name.endswith(".html") and before[name] != after.get(name)}
    assert {"map/index.html", "papers/words/plain/index.html", "papers/attention/scaled/index.html"} <= changed


# colours


def colours(scheme):
    before = r'^\[data-md-color-scheme="slate"\] ' if scheme == "dark" else "^"
    found = dict(re.findall(before + r'\[data-family="(\w+)"\] \{ --family: (#\w{6}); \}', STYLES, re.MULTILINE))
    return {family: np.array([int(value[n : n + 2], 16) / 255 for n in (1, 3, 5)]) for family, value in found.items()}


def linear(colour):
    return np.where(colour <= 0.04045, colour / 12.92, ((colour + 0.055) / 1.055) ** 2.4)


def contrast(one, other):
    a, b = sorted((linear(np.asarray(c)) @ [0.2126, 0.7152, 0.0722] for c in (one, other)), reverse=True)
    return (a + 0.05) / (b + 0.05)


# how linear RGB looks without one of the three cones (Machado, Oliveira and Fernandes, 2009)
SIGHT = {
    "all cones": np.eye(3),
    "protan": np.array([[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]]),
    "deutan": np.array([[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.01182, 0.04294, 0.968881]]),
    "tritan": np.array([[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.3039]]),
}  # fmt: skip


def oklab(rgb):
    cones = np.array([[0.41222, 0.53633, 0.05145], [0.2119, 0.6807, 0.1074], [0.0883, 0.28172, 0.62998]]) @ rgb
    axes = np.array([[0.21045, 0.79362, -0.00407], [1.978, -2.42859, 0.45059], [0.0259, 0.78277, -0.80868]])
    return axes @ np.cbrt(cones.clip(0))


@pytest.mark.parametrize(("scheme", "ground"), [("light", (0.957, 0.965, 0.976)), ("dark", (0.17, 0.18, 0.2))])
def test_families_can_be_seen_and_told_from_the_next_lane(scheme, ground):
    found = colours(scheme)
    assert list(found) == list(FAMILIES)
    assert len({tuple(colour) for colour in found.values()}) == len(FAMILIES)
    assert min(contrast(colour, ground) for colour in found.values()) >= 3
    for (one, other), sight in product(pairwise(FAMILIES), SIGHT):
        a, b = (oklab(np.clip(SIGHT[sight] @ linear(found[family]), 0, 1)) for family in (one, other))
        assert np.linalg.norm(a - b) > 0.1, (one, other, sight)


def test_no_colour_is_the_only_sign_of_a_family():
    text = map_page(Project(ROOT))
    for family in {paper.family for paper in Project(ROOT).collection.values()}:
        assert f">{FAMILIES[family]}</button>" in text
    assert Path(ROOT / "src/papercode/site/assets/map.js").is_file()
