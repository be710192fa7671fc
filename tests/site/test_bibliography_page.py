import html
import re
import subprocess
import sys
import textwrap
from html.parser import HTMLParser
from pathlib import Path

import pytest
from markdown import Markdown

from papercode.site.bibliography import load_bibliography
from papercode.site.bibliography_page import NoteLink, listing, render
from papercode.site.citations import CitationExtension
from papercode.site.project import Project

ASSETS = Path(__file__).parents[2] / "src/papercode/site/assets/pages"

BIB = r"""
@inproceedings{vaswani2017attention,
  title = {Attention Is All You Need},
  author = {Vaswani, Ashish and Shazeer, Noam and Kaiser, {\L}ukasz},
  booktitle = {Advances in Neural Information Processing Systems 30 (NIPS 2017)},
  year = {2017},
  eprint = {1706.03762},
}

@article{hochreiter1997long,
  title = {Long Short-Term Memory},
  author = {Hochreiter, Sepp and Schmidhuber, J{\"u}rgen},
  journal = {Neural Computation},
  volume = {9},
  year = {1997},
  month = nov,
  doi = {10.1162/neco.1997.9.8.1735},
}

@misc{doe2020cost,
  title = {On $O(n^2)$ *stars*, <b>, a_b_c [x](y), user@hu2022lora & "quotes"},

  author = {van Doe, J_a_ne},
  year = {2020},
  eprint = {2001.00001},
  url = {https://example.org/a_(b)_c?d=1&e=2},
}

@misc{hu2022lora, title = {{LoRA}: Low-Rank Adaptation}, author = {Hu, Edward J.}, year = {2022}, eprint = {2106.09685}}
"""
NOTES = {
    "vaswani2017attention": NoteLink(
        "The *Trans_for_mer*",
        "papers/attention/transformer.md",
        "papercode.attention.transformer",
        "api/a.md",
    ),
    "hu2022lora": NoteLink("LoRA", "papers/adaptation/lora.md"),
}
CITED_BY = {
    "vaswani2017attention": [("LoRA", "papers/adaptation/lora.md"), ("GPT-2", "papers/decoders/gpt2.md")],
    "hochreiter1997long": [("The *Trans_for_mer*", "papers/attention/transformer.md")],
}


@pytest.fixture(scope="module")
def bibliography(tmp_path_factory):
    path = tmp_path_factory.mktemp("bib") / "references.bib"
    path.write_text(BIB, "utf-8")
    loaded = load_bibliography(path)
    assert loaded.problems == []
    return loaded


@pytest.fixture(scope="module")
def page(bibliography):
    """The page as the site renders it, without Material."""
    extensions = ["attr_list", "md_in_html", "toc", "pymdownx.arithmatex", CitationExtension(bibliography=bibliography)]
    options = {"toc": {"permalink": True, "toc_depth": 3}, "pymdownx.arithmatex": {"generic": True}}
    text = listing(bibliography, NOTES, CITED_BY)
    assert re.match(r"---\nhide:\n(  - \w+\n)*  - toc\n---\n\n# Bibliography\n", text)
    return Markdown(extensions=extensions, extension_configs=options).convert(text.split("---\n", 2)[2])


class Entries(HTMLParser):
    """Takes the page apart: entry -> class -> text, entry -> links; and sees that every tag is closed."""

    VOID = ("input", "br", "meta")

    def __init__(self, page):
        super().__init__()
        self.entries, self.stack, self.key = {}, [], None
        self.feed(page)
        assert self.stack == []

    def handle_starttag(self, tag, attrs):
        attrs = dict(attrs)
        if tag in self.VOID:
            return
        kind = next((c for c in attrs.get("class", "").split() if c.startswith("bib-")), None)
        self.stack.append((tag, kind))
        if kind == "bib-entry":
            self.attributes = attrs
        if kind == "bib-title":
            self.key = attrs["id"]
            self.entries[self.key] = {"attributes": self.attributes, "links": []}
        if tag == "a" and self.key and attrs.get("class") != "headerlink":
            self.entries[self.key]["links"].append(attrs["href"])

    def handle_endtag(self, tag):
        assert self.stack.pop()[0] == tag
        if tag == "li":
            self.key = None

    def handle_data(self, data):
        kind = next((kind for _, kind in reversed(self.stack) if kind), None)
        if self.key and kind and self.stack[-1][0] != "summary":
            self.entries[self.key][kind] = self.entries[self.key].get(kind, "") + data


@pytest.fixture(scope="module")
def entries(page):
    return Entries(page).entries


def test_entries_by_author(entries):
    assert list(entries) == ["hochreiter1997long", "hu2022lora", "doe2020cost", "vaswani2017attention"]


def test_an_entry_in_full(entries, bibliography):
    entry = entries["vaswani2017attention"]
    assert entry["bib-title"] == "Attention Is All You Need¶"
    assert entry["bib-authors"] == "Ashish Vaswani, Noam Shazeer, Łukasz Kaiser"
    assert entry["bib-source"] == "Advances in Neural Information Processing Systems 30 (NIPS 2017)"
    assert (
        entry["bib-links"]
        == "arXiv · Note: The *Trans_for_mer* · papercode.attention.transformer · vaswani2017attention"
    )
    assert entry["bib-cited"] == "Cited by LoRA, GPT-2"
    assert entry["links"] == [
        "https://arxiv.org/abs/1706.03762",
        "papers/attention/transformer.md",
        "api/a.md",
        "papers/adaptation/lora.md",
        "papers/decoders/gpt2.md",
    ]
    assert "".join(entry["bib-bibtex"].split()) == "".join(bibliography["vaswani2017attention"].bibtex.split())
    assert entry["attributes"]["data-cited"] == "2"
    assert entry["attributes"]["data-year"] == "2017-06"


def test_what_is_missing_is_left_out(entries):
    entry = entries["hu2022lora"]
    assert "bib-cited" not in entry
    assert entry["attributes"]["data-cited"] == "0"
    assert entry["links"] == ["https://arxiv.org/abs/2106.09685", "papers/adaptation/lora.md"]
    assert entries["hochreiter1997long"]["bib-source"] == "Neural Computation 9, 1997"
    assert entries["hochreiter1997long"]["links"][0] == "https://doi.org/10.1162/neco.1997.9.8.1735"


def test_nothing_in_an_entry_is_taken_for_markdown(entries, page, bibliography):
    entry = entries["doe2020cost"]
    assert entry["bib-title"] == 'On \\(O(n^2)\\) *stars*, <b>, a_b_c [x](y), user@hu2022lora & "quotes"¶'
    assert '<span class="arithmatex">\\(O(n^2)\\)</span>' in page
    assert entry["bib-authors"] == "J_a_ne van Doe"
    assert entry["bib-source"] == "arXiv:2001.00001, 2020"
    assert entry["links"] == ["https://arxiv.org/abs/2001.00001", "https://example.org/a_(b)_c?d=1&e=2"]
    assert entry["bib-bibtex"].strip() == bibliography["doe2020cost"].bibtex  # to the letter, empty line included
    assert "citation" not in page


def test_headings_stay_out_of_the_table_of_contents(bibliography):
    converter = Markdown(extensions=["md_in_html", "toc"], extension_configs={"toc": {"toc_depth": 3}})
    converter.convert(listing(bibliography, {}, {}).split("---\n", 2)[2])
    assert [token["name"] for token in converter.toc_tokens] == ["Bibliography"]
    assert converter.toc_tokens[0]["children"] == []


def test_without_javascript_it_is_a_list_without_dead_controls(page):
    assert '<div class="bib-controls" hidden' in page
    assert page.count('class="bib-copy" hidden') == 4
    assert "4 papers, 2 with a note." in page
    assert 'role="status"' in page
    assert "<script" not in page


def test_one_paper_is_not_many(tmp_path):
    path = tmp_path / "x.bib"
    path.write_text("@misc{hu2022lora, title={T}, author={A}, year=2022}")
    assert "\n1 paper, 0 with a note.\n" in listing(load_bibliography(path), {}, {})


def test_the_year_is_shown_once_and_with_its_letter(tmp_path):
    path = tmp_path / "x.bib"
    path.write_text(
        "@misc{hu2022a, title={T}, author={Hu}, year=2022, howpublished={ICLR 2022}}\n"
        "@misc{hu2022b, title={U}, author={Hu}, year=2022, howpublished={ICLR 2022}}\n"
        "@misc{li2022a, title={T}, author={Li}, year=2022, howpublished={ICLR 2022}}\n"
        "@misc{wu2012a, title={T}, author={Wu}, year=2012, eprint={2012.00001}}\n"  # the number of December 2020
    )
    sources = re.findall(r'class="bib-source" markdown="span">(.*?)</p>', listing(load_bibliography(path), {}, {}))
    assert sources == ["ICLR 2022, 2022a", "ICLR 2022, 2022b", "ICLR 2022", "arXiv:2012.00001, 2012"]


def test_an_empty_bibliography(tmp_path):
    (tmp_path / "x.bib").write_text("")
    assert "0 papers" in listing(load_bibliography(tmp_path / "x.bib"), {}, {})


# of a project


@pytest.fixture
def project(tmp_path):
    def write(path, text):
        target = tmp_path / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(textwrap.dedent(text), "utf-8")

    write("references.bib", BIB)
    write("src/papercode/__init__.py", "")
    write("src/papercode/attention/transformer.py", '"""Attention."""')
    write(
        "papers/attention/transformer.md",
        """\
        ---
        key: vaswani2017attention
        module: papercode.attention.transformer
        builds_on: [hochreiter1997long]
        ---
        # Transformer

        By @vaswani2017attention; not `@hu2022lora`.
        """,
    )
    write(
        "papers/adaptation/lora.md",
        """\
        ---
        key: hu2022lora
        module: papercode.adaptation.gone
        builds_on: []
        ---
        # LoRA

        See [@vaswani2017attention, sec. 3; @doe2020cost] and @vaswani2017attention, @nobody2020x.
        """,
    )
    return Project(tmp_path)


def test_of_a_project(project):
    text = render(project)
    rows = dict(re.findall(r'<h4 id="(\w+)"(.*?)</li>', text, re.DOTALL))
    assert "[Note: Transformer](papers/attention/transformer.md)" in rows["vaswani2017attention"]
    assert "[`papercode.attention.transformer`](api/attention/transformer.md)" in rows["vaswani2017attention"]
    assert "[Note: LoRA](papers/adaptation/lora.md)" in rows["hu2022lora"]
    assert "gone" not in rows["hu2022lora"]  # a module that is not there has no page
    cited = {key: re.findall(r"Cited by (.*?)</p>", row) for key, row in rows.items()}
    assert cited == {
        "vaswani2017attention": ["[LoRA](papers/adaptation/lora.md)"],  # once, and not by itself
        "doe2020cost": ["[LoRA](papers/adaptation/lora.md)"],
        "hochreiter1997long": ["[Transformer](papers/attention/transformer.md)"],  # builds_on
        "hu2022lora": [],  # named in code only
    }


def test_mkdocs_knows_its_links_and_anchors(tmp_path, project):
    """A link to an entry is checked by MkDocs, and so are the links of the page."""
    docs = tmp_path / "docs"
    (docs / "papers/attention").mkdir(parents=True)
    (docs / "papers/adaptation").mkdir()
    (docs / "api/attention").mkdir(parents=True)
    for name in ("papers/attention/transformer.md", "papers/adaptation/lora.md", "api/attention/transformer.md"):
        (docs / name).write_text("# X\n")
    (docs / "bibliography.md").write_text(render(project), "utf-8")
    (docs / "index.md").write_text("# X\n\n[a](bibliography.md#doe2020cost)\n")
    (tmp_path / "mkdocs.yml").write_text(
        "site_name: x\nplugins: []\nmarkdown_extensions: [attr_list, md_in_html]\n"
        "validation: {links: {anchors: warn, not_found: warn}}\n"
    )

    def build():
        command = [sys.executable, "-m", "mkdocs", "build", "--strict", "-f", str(tmp_path / "mkdocs.yml")]
        return subprocess.run(command, capture_output=True, text=True)

    done = build()
    assert done.returncode == 0, done.stderr
    built = (tmp_path / "site/bibliography/index.html").read_text("utf-8")
    assert 'href="../papers/adaptation/lora/"' in built
    (docs / "index.md").write_text("# X\n\n[a](bibliography.md#nobody)\n")
    done = build()
    assert done.returncode == 1
    assert "#nobody" in done.stderr


# in the browser


@pytest.fixture
def shown(browser, page, tmp_path):
    """Opens the page from a file, with the script and the style."""
    contexts = []

    def show(before="", anchor="", **options):
        style = f'<link rel="stylesheet" href="{(ASSETS / "bibliography.css").as_uri()}">'
        script = f'<script src="{(ASSETS / "bibliography.js").as_uri()}"></script>'
        path = tmp_path / "page.html"
        viewport = '<meta name="viewport" content="width=device-width">'
        head = f"<!doctype html><meta charset=utf-8>{viewport}{style}"
        path.write_text(f'{head}<body class="md-typeset"><main>{page}</main>{before}{script}', "utf-8")
        context = browser.new_context(**options)
        contexts.append(context)
        opened = context.new_page()
        opened.errors = []
        opened.on("pageerror", lambda error: opened.errors.append(str(error)))
        opened.goto(path.as_uri() + anchor)
        return opened

    yield show
    for context in contexts:
        context.close()


def visible(page):
    return page.locator(".bib-title:visible").evaluate_all("titles => titles.map(title => title.id)")


@pytest.mark.browser
def test_find(shown):
    page = shown()
    field, count = page.get_by_label("Find"), page.get_by_role("status")
    assert count.inner_text() == "4 papers"
    for query, keys in {
        "attention": ["vaswani2017attention"],
        "lukasz": ["vaswani2017attention"],  # Łukasz: letters without their strokes and accents
        "JURGEN memory": ["hochreiter1997long"],
        "2017 nips": ["vaswani2017attention"],
        "doe2020": ["doe2020cost"],
        "transformer": ["vaswani2017attention"],  # the name of its note
        "memory attention": [],
        "booktitle": [],  # BibTeX is not searched
        "": ["hochreiter1997long", "hu2022lora", "doe2020cost", "vaswani2017attention"],
    }.items():
        field.fill(query)
        assert visible(page) == keys, query
        assert count.inner_text() == (f"{len(keys)} of 4 papers" if query else "4 papers")
    field.fill("attention")
    field.press("Escape")
    assert len(visible(page)) == 4
    assert page.errors == []


@pytest.mark.browser
def test_sort_by_keyboard(shown):
    page = shown()
    pressed = "buttons => buttons.filter(b => b.ariaPressed === 'true').map(b => b.textContent)"
    page.get_by_label("Find").focus()
    orders = {}
    for name in ("Author", "Year", "Title", "Times cited"):
        page.keyboard.press("Tab")
        button = page.get_by_role("button", name=name)
        assert button.evaluate("button => button === document.activeElement")
        page.keyboard.press("Enter")
        first = [key[:2] for key in visible(page)]
        page.keyboard.press("Space")
        orders[name] = (first, [key[:2] for key in visible(page)])
        assert page.locator(".bib-sort button").evaluate_all(pressed) == [name]
    assert orders == {
        "Author": (["va", "do", "hu", "ho"], ["ho", "hu", "do", "va"]),  # pressed already: turned round
        "Year": (["hu", "do", "va", "ho"], ["ho", "va", "do", "hu"]),
        "Title": (["va", "ho", "hu", "do"], ["do", "hu", "ho", "va"]),
        "Times cited": (["va", "ho", "hu", "do"], ["hu", "do", "ho", "va"]),
    }
    assert page.errors == []


@pytest.mark.browser
@pytest.mark.parametrize("permissions", [["clipboard-read", "clipboard-write"], ["clipboard-read"]])
def test_copy_bibtex(shown, bibliography, permissions):
    page = shown(permissions=permissions)
    if len(permissions) == 1:  # as on a page without the clipboard interface
        page.evaluate("navigator.clipboard.writeText = undefined")
    entry = page.locator(".bib-entry", has_text="Attention Is All You Need")
    assert not entry.get_by_role("button").is_visible()  # folded
    entry.get_by_text("BibTeX").click()
    button = entry.get_by_role("button")
    button.click()
    page.wait_for_function("document.querySelector('.bib-copy:disabled')")
    assert button.inner_text() == "Copied"
    copied = page.evaluate("navigator.clipboard.readText()")
    assert copied.strip() == bibliography["vaswani2017attention"].bibtex
    page.wait_for_function("!document.querySelector('.bib-copy:disabled')")
    assert button.inner_text() == "Copy"
    assert page.errors == []


@pytest.mark.browser
def test_a_link_to_a_hidden_entry_shows_it(shown):
    page = shown()
    page.get_by_label("Find").fill("memory")
    page.evaluate("location.hash = '#hu2022lora'")
    page.wait_for_function("document.querySelector('.bib-find input').value === ''")
    assert len(visible(page)) == 4
    assert page.locator("#hu2022lora").evaluate("e => e.matches(':target')")


@pytest.mark.browser
def test_without_javascript(shown):
    page = shown(java_script_enabled=False)
    assert len(visible(page)) == 4
    assert not page.locator(".bib-controls").is_visible()
    page.locator("summary").first.click()
    assert "hochreiter1997long" in page.locator("pre:visible").inner_text()
    assert page.locator("button:visible").count() == 0


@pytest.mark.browser
def test_on_a_phone(shown):
    page = shown(viewport={"width": 360, "height": 700})
    page.locator("summary").last.click()
    assert page.evaluate("document.documentElement.scrollWidth") <= 360


@pytest.mark.browser
def test_instant_navigation_starts_each_new_page_once(shown):
    stream = "<script>window.document$ = { subscribe(f) { this.go = f; f(); } }</script>"
    page = shown(before=stream)
    page.evaluate("document$.go()")
    assert visible(page)[0] == "hochreiter1997long"
    page.get_by_role("button", name="Year").click()
    assert visible(page)[0] == "hu2022lora"  # one listener: two would have turned it round again
    page.evaluate(
        "() => { const main = document.querySelector('main'); main.replaceWith(main.cloneNode(true));"
        " delete document.querySelector('.bib-list').dataset.ready; document$.go() }"
    )
    page.get_by_label("Find").fill("memory")
    assert visible(page) == ["hochreiter1997long"]
    assert page.errors == []


def test_entries_are_escaped_in_attributes(page):
    for value in re.findall(r'data-author="([^"]*)"', page):
        assert "<" not in value
        assert html.unescape(value)


def test_the_name_that_people_use_stands_behind_a_title_that_lacks_it(bibliography):
    names = {"vaswani2017attention": "Transformer", "hu2022lora": "LoRA"}
    page = listing(bibliography, {}, {}, names)
    assert re.findall(r'(\w+) <span class="bib-name">(.*?)</span></h4>', page) == [("Need", "Transformer")]
    assert "bib-name" not in listing(bibliography, {}, {})
