"""The page of all papers: every paper once, with its references, and options whose counts add up."""

import re
from collections import Counter
from html.parser import HTMLParser

import pytest

from papercode.site.catalogue import catalogue
from papercode.site.catalogue_filters import state, years
from papercode.site.families import ABOUT
from papercode.site.notes import FAMILIES
from papercode.site.project import Project
from tiny import ROOT, add_listed, edit

LISTED = """\
early2001x:
  name: Early *stars*
  family: words
  contribution: "Comes <first>."
  builds_on: []
lost2020y:
  name: Lost
  family: multimodal
  contribution: "Is in no bibliography."
  builds_on: []
"""
BIB = """
@inproceedings{early2001x, title={An Early Paper}, author={Early, Zo{\\"e} and Late, Yan and Third, Xi}, year={2001},
  booktitle={Conference on Early Things (CET 2001)}, doi={10.1000/early}, eprint={2101.00001}}
"""


@pytest.fixture
def listed(root):
    """The tiny project with two papers that wait for a note, one of which has no entry."""
    return add_listed(root, LISTED, BIB)


def rows(text):
    """Each entry of the page's Markdown by its name."""
    found = re.findall(r'<li class="cat-paper".*?</li>', text, re.DOTALL)
    return {re.search(r"\[(.*?)\]\(", row)[1]: row for row in found}


def options(text):
    """The number beside each option of the controls, by its name and value."""
    found = re.findall(r'name="(\w+)" value="([^"]+)"[^>]*> <span>[^<]*</span> <span class="cat-n">(\d+)<', text)
    return {(name, value): int(number) for name, value, number in found}


def test_papers_stand_by_family_from_the_ground_up_and_the_oldest_first(listed):
    text = catalogue(Project(listed))
    assert re.findall(r"<h2 id=\"(.*?)\".*>(.*?)</h2>", text) == [
        ("family=words", "Word vectors"),
        ("family=attention", "Attention"),
        ("family=adaptation", "Adaptation"),
        ("family=multimodal", "Vision and speech"),
    ]
    assert list(rows(text)) == ["Early &#42;stars&#42;", "Plain", "Scaled", "Adapter", "Lost"]


def test_a_note_is_linked_and_a_listed_paper_has_its_reference(listed):
    text = rows(catalogue(Project(listed)))
    plain, early = text["Plain"], text["Early &#42;stars&#42;"]
    assert "[Plain](words/plain.md)" in plain
    assert "*A Plain Paper.* Plain, Journal of Tests 2013" in plain
    assert "Brings plain." in plain
    assert ">note</span>" in plain
    assert "[Early &#42;stars&#42;](../bibliography.md#early2001x)" in early
    assert "*An Early Paper.* Early et al., CET 2001" in early
    assert "Comes &#60;first&#62;." in early
    assert ">listed</span>" in early
    for link in ("[arXiv](https://arxiv.org/abs/2101.00001)", "[DOI](https://doi.org/10.1000/early)"):
        assert link in early
    assert early.count("](../bibliography.md#early2001x)") == 2
    assert 'data-words="early2001x Zoë Early Yan Late Xi Third"' in early


def test_a_paper_without_an_entry_is_listed_all_the_same(listed):
    text = catalogue(Project(listed))
    lost = rows(text)["Lost"]
    assert 'data-year="unknown"' in lost
    assert "Is in no bibliography." in lost
    assert "cat-title" not in lost
    assert options(text)["year", "unknown"] == 1


def test_badges_say_what_is_proved(root):
    tests = root / "tests/attention"
    tests.mkdir(parents=True)
    (tests / "test_scaled.py").write_text("from zoo.attention.scaled import scaled\n")
    (tests / "test_both.py").write_text("from zoo.adaptation.adapter import adapted\npytest.mark.gpu\n")
    (root / "tests/parity.csv").write_text(
        "model,test\nscaled,tests/attention/test_scaled.py\nadapted,tests/attention/test_both.py\n"
    )
    text = catalogue(Project(root))
    badges = {name: re.findall(r'cat-badge cat-[\w-]+">(.*?)<', row) for name, row in rows(text).items()}
    assert badges == {
        "Plain": ["note"],
        "Scaled": ["note", "parity-checked"],
        "Adapter": ["note", "parity-checked", "GPU path"],
    }
    assert 'data-note="yes" data-parity="yes" data-gpu="no"' in rows(text)["Scaled"]
    assert 'data-note="yes" data-parity="no" data-gpu="no"' in rows(text)["Plain"]
    assert (options(text)["parity", "yes"], options(text)["gpu", "yes"]) == (2, 1)


def test_chinese_terms_are_among_the_words(root):
    edit(root / "papers/words/plain.md", "module: zoo", "terms: {plainness: 朴素}\nmodule: zoo")
    assert 'data-words="third2013plain Dora Plain plainness 朴素"' in rows(catalogue(Project(root)))["Plain"]


def test_notes_are_found_by_their_own_page_and_listed_papers_here(listed):
    text = rows(catalogue(Project(listed)))
    excluded = [name for name, row in text.items() if "data-search-exclude" in row]
    assert excluded == ["Plain", "Scaled", "Adapter"]


def test_a_state_is_named_as_the_address_names_it():
    assert state(family="words", year=2013) == "family=words&year=2013"


def test_every_family_says_what_it_is_about():
    assert list(ABOUT) == list(FAMILIES)
    for text in ABOUT.values():
        assert text.endswith(".")
        assert len(text) <= 70


# the real collection


@pytest.fixture(scope="module")
def papers():
    return Project(ROOT).collection


@pytest.fixture(scope="module")
def markdown():
    return catalogue(Project(ROOT))


@pytest.mark.parametrize("name", ["note", "family", "year"])
def test_counts_add_up(papers, markdown, name):
    assert sum(number for (kind, _), number in options(markdown).items() if kind == name) == len(papers)


def test_counts_are_those_of_the_collection(papers, markdown):
    found = options(markdown)
    assert found["note", "yes"] == sum(paper.note is not None for paper in papers.values())
    assert found["parity", "yes"] == sum(paper.parity for paper in papers.values()) > 0
    assert found["gpu", "yes"] == sum(paper.gpu for paper in papers.values()) > 0
    for family, number in Counter(paper.family for paper in papers.values()).items():
        assert found["family", family] == number
        section = re.search(rf'<h2 id="family={family}".*?</section>', markdown, re.DOTALL)[0]
        assert section.count("cat-paper") - section.count("cat-papers") == number
        assert f'<span class="cat-of">{number}</span>' in section
    for year, number in years(papers.values()).items():
        assert found["year", year] == number == sum(str(p.published[0]) == year for p in papers.values())


class Entries(HTMLParser):
    """The entries of the built page: what each says of itself, and where its first link leads."""

    def __init__(self):
        super().__init__()
        self.found, self.ids = [], []

    def handle_starttag(self, tag, attrs):
        attributes = dict(attrs)
        if "id" in attributes:
            self.ids.append(attributes["id"])
        if attributes.get("class") == "cat-paper":
            self.found.append({**attributes, "links": []})
        elif tag == "a" and self.found:
            self.found[-1]["links"].append(attributes.get("href"))


def test_the_built_page_has_every_paper_once_and_its_links_lead_somewhere(whole_site, papers):
    page = Entries()
    page.feed((whole_site / "papers/index.html").read_text("utf-8"))
    assert sorted(entry["data-words"].split()[0] for entry in page.found) == sorted(papers)
    bibliography = (whole_site / "bibliography/index.html").read_text("utf-8")
    for entry in page.found:
        key = entry["data-words"].split()[0]
        first = entry["links"][0]
        if papers[key].note:
            assert (whole_site / "papers" / first / "index.html").is_file(), key
        else:
            assert first == f"../bibliography/#{key}"
        assert f"../bibliography/#{key}" in entry["links"]
        assert f'id="{key}"' in bibliography
    assert len(page.ids) == len(set(page.ids))
    for option in [f"year={year}" for year in years(papers.values())] + [
        "note=yes",
        "note=no",
        "parity=yes",
        "gpu=yes",
    ]:
        assert option in page.ids
