import re
from html import unescape

import markdown
import pytest

from papercode.site.citations import CitationExtension
from papercode.site.header import api_page_of, header, insert_header, page_of, relative
from papercode.site.project import Project
from tiny import edit

REPOSITORY = "https://example.org/x/blob/main/"


def rows(text):
    """The header's rows: name and Markdown."""
    return dict(re.findall(r"<dt>(.*?)</dt>\n<dd[^>]*>(.*)</dd>", text))


@pytest.fixture
def shown(root):
    """The header of a note of the tiny project."""

    def of(key, repository=""):
        project = Project(root)
        return header(project.by_key[key], project, repository)

    return of


def test_says_who_wrote_what(shown):
    found = rows(shown("second2019adapter"))
    assert found == {
        "Paper": "*A Second Paper on Adapters*",
        "Authors": "Bob Second, Cleo Third",
        "Published": "Journal of Tests, 2019",
        "Links": "[Bibliography](../../bibliography.md#second2019adapter)",
        "Code": "[`zoo.adaptation.adapter`](../../api/adaptation/adapter.md)",
    }


def test_the_entry_can_be_cited(shown):
    text = shown("first2015scaled")
    assert "    @article{first2015scaled,\n" in text
    assert "    }\n    ```\n" in text


def test_the_notebook_and_the_reference_can_be_taken_away(shown, root):
    text = shown("first2015scaled")
    assert '[Notebook](scaled.ipynb){ download="scaled.ipynb" }' in text
    [copied] = re.findall(r'data-clipboard-text="([^"]*)"', text)
    assert unescape(copied) == Project(root).bibliography["first2015scaled"].bibtex
    assert not re.search(r"[^A-Za-z0-9 ,.=&#;]", copied)  # nothing that Markdown could take for its own


def test_links_to_source_and_tests_where_they_exist(shown, root):
    assert "[source]" not in shown("first2015scaled", REPOSITORY)
    for name in ("src/papercode/attention/scaled.py", "tests/attention/test_scaled.py"):
        (root / name).parent.mkdir(parents=True)
        (root / name).touch()
    code = rows(shown("first2015scaled", REPOSITORY))["Code"]
    assert code.endswith(
        f"[source]({REPOSITORY}src/papercode/attention/scaled.py) · [tests]({REPOSITORY}tests/attention/test_scaled.py)"
    )
    assert "[source]" not in shown("first2015scaled", "")


def test_several_modules(shown, root):
    edit(
        root / "papers/attention/scaled.md",
        "module: zoo.attention.scaled",
        "module: [zoo.attention.scaled, zoo.attention.b]",
    )
    assert rows(shown("first2015scaled"))["Code"] == (
        "[`zoo.attention.scaled`](../../api/attention/scaled.md) · [`b`](../../api/attention/b.md)"
    )


def test_a_paper_that_the_bibliography_lacks_has_no_header(shown, root):
    edit(root / "papers/attention/scaled.md", "key: first2015scaled", "key: unknown2015x")
    assert shown("unknown2015x") == ""
    assert insert_header("# A\n\ntext", "") == "# A\n\ntext"


def test_titles_with_special_characters_stay_as_they_are(shown, root):
    tex = "$x_1 < \\alpha_i^*$"
    title = f"A_b_c *d* [e] <f> `g` @first2015scaled \\& {tex}"
    edit(root / "references.bib", "{A First Paper on Scaling}", "{" + title + "}")
    row = rows(shown("first2015scaled"))["Paper"]
    assert tex in row
    citations = CitationExtension(bibliography=Project(root).bibliography)
    page = markdown.markdown(row.replace(tex, "TEX"), extensions=[citations])
    assert unescape(page) == "<p><em>A_b_c *d* [e] <f> `g` @first2015scaled & TEX</em></p>"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("# A\n\nb", "# A\n\nHEADER\n\nb"),
        ("---\nx: y\n# z\n---\n\n# A\nb", "---\nx: y\n# z\n---\n\n# A\n\nHEADER\nb"),
        ("```\n# c\n```\n# A\nb", "```\n# c\n```\n# A\n\nHEADER\nb"),
        ("# A\n# B\n", "# A\n\nHEADER\n# B\n"),
        ("## A\nb", "## A\nb"),
    ],
)
def test_stands_below_the_title(text, expected):
    assert insert_header(text, "HEADER") == expected


@pytest.mark.parametrize(
    ("target", "page", "expected"),
    [
        ("papers/a/b.md", "papers/a/c.md", "b.md"),
        ("papers/a/b.md", "papers/c/d.md", "../a/b.md"),
        ("bibliography.md#key", "papers/c/d.md", "../../bibliography.md#key"),
        ("papers/a/b.md", "index.md", "papers/a/b.md"),
        ("index.md", "index.md", "index.md"),
        ("api/a.md", "api/index.md", "a.md"),
    ],
)
def test_relative_links(target, page, expected):
    assert relative(target, page) == expected


def test_pages(root):
    assert [page_of(note) for note in Project(root).notes] == [
        "papers/words/plain.md",
        "papers/attention/scaled.md",
        "papers/adaptation/adapter.md",
    ]
    assert api_page_of("zoo.attention.scaled") == "api/attention/scaled.md"
    assert api_page_of("zoo.training") == "api/training.md"
    assert api_page_of("zoo") == "api/index.md"
