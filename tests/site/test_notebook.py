"""Notes as notebooks: what stands in them, and that they run as they are."""

import ast
import re

import nbformat
import pytest
from executed import differences
from IPython.core.inputtransformer2 import TransformerManager

from papercode.site.notebook import notebook, notebook_of
from papercode.site.places import Places
from papercode.site.project import Project
from papercode.site.runner import examples
from tiny import ROOT, block, edit

PROJECT = Project(ROOT)
NAMES = [note.name for note in PROJECT.notes]
# short ones, with figures, tables and expected exceptions
RUN = ["adaptation/lora", "attention/rope", "recurrent/gated_units", "tokens/bpe"]


def made(project, places=None):
    """The notebook of every note of a project, by the note's name."""
    sessions = [project.session(note.path) for note in project.notes]
    outcomes = project.runner().run(sessions)
    places = places or Places.read(project)
    return {
        note.name: notebook(note, outcomes[session.path], project, places)
        for note, session in zip(project.notes, sessions)
    }


def cells(text, kind):
    return [cell for cell in nbformat.reads(text, as_version=4).cells if cell.cell_type == kind]


def prose(text):
    """The Markdown of a notebook, without code and formulas."""
    found = "\n\n".join(cell.source for cell in cells(text, "markdown"))
    found = re.sub(r"^[> ]*```.*?^[> ]*```$", "", found, flags=re.DOTALL | re.MULTILINE)
    return re.sub(r"`+[^`]+`+|\$\$.+?\$\$|\$[^$]+\$", "", found, flags=re.DOTALL)


@pytest.fixture(scope="module")
def books():
    """The notebooks of the real project."""
    return made(PROJECT)


# all notes


def test_every_notebook_is_valid_and_says_where_it_comes_from(books):
    assert list(books) == NAMES
    for name, text in books.items():
        book = nbformat.reads(text, as_version=4)
        nbformat.validate(book)
        assert (book.nbformat, book.nbformat_minor, book.metadata.kernelspec.name) == (4, 5, "python3"), name
        ids = [cell.id for cell in book.cells]
        assert len(set(ids)) == len(ids), name
        first = book.cells[0].source
        note = PROJECT.by_path[PROJECT.papers / f"{name}.md"]
        entry = PROJECT.bibliography[note.key]
        for expected in (f"# {note.title}\n", entry.title, entry.author_names[0], str(entry.year), "MIT License"):
            assert expected in first, name
        assert f"/blob/main/papers/{name}.md)" in first
        assert 'pip install "papercode[site] @ git+https://' in first


def test_every_cell_of_code_is_python(books):
    shell = TransformerManager()
    for name, text in books.items():
        for cell in cells(text, "code"):
            code = cell.source.removeprefix("%%capture shown\n")
            assert not re.search(r"^(>>>|\.\.\.)( |$)|# doctest:", code, re.MULTILINE), (name, code)
            ast.parse(shell.transform_cell(code), name)


def test_every_output_of_the_page_is_there(books):
    for note in PROJECT.notes:
        fences = PROJECT.session(note.path).fences
        wanted = [
            example for fence in fences if fence.language == "pycon" for example in examples(fence) if example.want
        ]
        outputs = [output for cell in cells(books[note.name], "code") for output in cell.outputs]
        markup = [output.data for output in outputs if len(output.get("data", {})) > 1]
        assert len(markup) == sum(fence.html for fence in fences), note.name
        assert all("<svg" in data.get("image/svg+xml", "") or "<" in data["text/html"] for data in markup)
        assert len(outputs) == len(wanted) + len(markup), note.name
        failing = [
            cell for cell in cells(books[note.name], "code") if "raises-exception" in cell.metadata.get("tags", [])
        ]
        assert len(failing) == sum(example.exc_msg is not None for example in wanted), note.name


def test_nothing_is_left_that_only_the_site_understands(books):
    for name, text in books.items():
        left = re.findall(
            r"\[@|(?<!\w)@[a-z]+\d{4}|\]\[|^\W*(?:!!!|\?\?\?|///)|\{ ?[.:#]\w|exec=", prose(text), re.MULTILINE
        )
        assert not left, name


def test_every_link_leads_out_or_to_a_heading(books):
    for name, text in books.items():
        headings = {
            re.sub(r"^#+ ", "", row).replace(" ", "-") for row in prose(text).split("\n") if row.startswith("#")
        }
        targets = re.findall(r"\]\(([^()\s]+(?:\([^()]*\))?[^()\s]*)\)", prose(text))
        assert len(targets) > 5, name
        for target in targets:
            assert target.startswith(("https://", "http://")) or target.removeprefix("#") in headings, (name, target)


def test_the_same_bytes_for_the_same_note(books):
    again = made(Project(ROOT))
    assert all(again[name] == text for name, text in books.items())


@pytest.mark.parametrize("name", RUN)
def test_runs_as_it_is(books, tmp_path, name):
    assert differences(books[name], tmp_path) == []


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in NAMES if name not in RUN])
def test_all_of_them_run_as_they_are(books, tmp_path, name):
    assert differences(books[name], tmp_path) == []


def test_a_wrong_output_is_seen(root, tmp_path):
    book = nbformat.reads(made(Project(root))["attention/scaled"], as_version=4)
    value, drawn = (cell.outputs[0].data for cell in reversed(book.cells) if cell.get("outputs"))
    value["text/plain"] = "5"
    drawn["image/svg+xml"] = drawn["image/svg+xml"].replace("<rect", "<circle")
    wrong = differences(nbformat.writes(book), tmp_path, root / "src")
    assert ["Expected:\n5" in wrong[1], "circle" in wrong[0], len(wrong)] == [True, True, 2]


def test_the_site_offers_what_the_command_writes(site):
    """And a new one when the note or what it cites has changed."""

    def offered():
        built = site.build()
        assert not built.warnings
        assert 'download="scaled.ipynb" href="../scaled.ipynb"' in built.page("papers/attention/scaled")
        return (built.folder / "papers/attention/scaled.ipynb").read_text("utf-8")

    before = offered()
    assert before == made(Project(site.root))["attention/scaled"]
    edit(site.root / "papers/attention/scaled.md", "About problem of", "On the problem of @third2013plain in")
    edit(site.root / "references.bib", "Plain, Dora", "Simple, Dora")
    after = offered()
    assert "problem of Simple (2013) in" in after
    assert after == made(Project(site.root))["attention/scaled"]


# one note, part by part


@pytest.fixture
def book(root):
    """The notebook of a note of the tiny project whose Implementation is as given."""

    def make(text, **places):
        path = root / "papers/attention/scaled.md"
        edit(path, "[`scaled`][zoo.attention.scaled.scaled] doubles:\n", block(text))
        project = Project(root)
        return made(project, Places(project, **places))["attention/scaled"]

    return make


def implementation(text):
    """The Markdown below `### Implementation` up to the code that follows."""
    [cell] = [cell for cell in cells(text, "markdown") if cell.source.startswith("### Implementation")]
    return cell.source.removeprefix("### Implementation\n\n")


CITED = "See [@first2015scaled; @second2019adapter, sec. 3] and @third2013plain."
REPOSITORY = "https://example.org/x"


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (CITED, "See (First, 2015; Second and Third, 2019, sec. 3) and Plain (2013)."),
        (
            "Mail a\\@b.org, `@first2015scaled`, $@first2015scaled$.",
            "Mail a@b.org, `@first2015scaled`, $@first2015scaled$.",
        ),
        ("[`scaled`][zoo.attention.scaled.scaled]", f"[`scaled`]({REPOSITORY}/blob/main/src/zoo/attention/scaled.py)"),
        ("[`zoo.attention.scaled`][]", f"[`zoo.attention.scaled`]({REPOSITORY}/blob/main/src/zoo/attention/scaled.py)"),
        ("[other](../words/plain.md#method)", f"[other]({REPOSITORY}/blob/main/papers/words/plain.md#method)"),
        ("[home](../../index.md)", f"[home]({REPOSITORY}/blob/main/docs/index.md)"),
        ("[code](../../api/words/plain.md)", f"[code]({REPOSITORY}/blob/main/src/zoo/words/plain.py)"),
        ("[list](../../bibliography.md)", "list"),
        ("[below](#five-cs)", "[below](#Five-Cs)"),
        ("[out](https://example.org/a_(b)){ target=_blank }", "[out](https://example.org/a_(b))"),
        ("A line. { .wide }", "A line."),
        ("```python\nx = '[@first2015scaled]'\n```", "```python\nx = '[@first2015scaled]'\n```"),
    ],
)
def test_prose(book, given, expected):
    assert implementation(book(given, repository=REPOSITORY)) == expected


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("[o](../words/plain.md#method)", "[o](https://x.org/papers/words/plain/#method)"),
        (
            "[`f`][zoo.attention.scaled.scaled]",
            "[`f`](https://x.org/api/attention/scaled/#zoo.attention.scaled.scaled)",
        ),
        ("[home](../../index.md)", "[home](https://x.org/)"),
        ("@third2013plain", "[Plain (2013)](https://x.org/bibliography/#third2013plain)"),
    ],
)
def test_with_an_address_of_the_site(book, given, expected):
    text = book(given, site="https://x.org")
    assert implementation(text) == expected
    assert "[the note on Scaled](https://x.org/papers/attention/scaled/)" in cells(text, "markdown")[0].source


def test_a_site_without_folders(root):
    places = Places(Project(root), "https://x.org", folders=False)
    assert places.page("papers/words/plain.md#a") == "https://x.org/papers/words/plain.html#a"
    assert places.page("papers/index.md") == "https://x.org/papers/index.html"


def test_admonitions_are_quotes_around_their_code(book):
    text = book(
        """
        !!! finding "Not 3 but 4"

            The sum

            $$
            2 + 2
            $$

            ```pycon exec="on"
            >>> 2 + 2
            4
            ```

            is four.

        ??? question "Why?"

            - Because
                - it is.
        """,
        repository=REPOSITORY,
    )
    found = nbformat.reads(text, as_version=4).cells
    start = next(n for n, cell in enumerate(found) if "Not 3 but 4" in cell.source)
    assert [cell.source for cell in found[start : start + 3]] == [
        "### Implementation\n\n> **Finding: Not 3 but 4**\n>\n> The sum\n>\n> $$ 2 + 2 $$",
        "2 + 2",
        "> is four.\n\n> **Question: Why?**\n>\n> - Because\n>     - it is.",
    ]


def code_of(text):
    """Cells between the setup and the figure's, and after: source, outputs, tags."""
    return [cell for cell in cells(text, "code") if "manual_seed" not in cell.source]


def test_claims_end_with_what_they_show(book):
    text = book(
        '''
        ```pycon exec="on"
        >>> # a comment
        >>> x = 1  # doctest: +ELLIPSIS
        >>> def f(y):
        ...     """Of
        ...     y."""
        ...
        ...     return y
        >>> f(x)
        1
        >>> print(f"a\\n\\nb")
        a
        <BLANKLINE>
        b
        >>> for n in range(2):
        ...     n
        0
        1
        >>> f(2) / 0
        Traceback (most recent call last):
            ...
        ZeroDivisionError: division by zero
        >>> x = 2
        ```
        '''
    )
    found = code_of(text)[1:]
    assert [cell.source for cell in found[:5]] == [
        '# a comment\nx = 1\n\ndef f(y):\n    """Of\n    y."""\n\n    return y\n\nf(x)',
        'print(f"a\\n\\nb")',
        "for n in range(2):\n    n",
        "f(2) / 0",
        "x = 2",
    ]
    value, printed, echoed, error = (cell.outputs[0] for cell in found[:4])
    assert (value.output_type, value.data) == ("execute_result", {"text/plain": "1"})
    assert (printed.output_type, printed.text) == ("stream", "a\n\nb\n")
    assert (echoed.output_type, echoed.text) == ("stream", "0\n1\n")
    assert (error.output_type, error.ename, error.evalue) == ("error", "ZeroDivisionError", "division by zero")
    assert found[3].metadata.tags == ["raises-exception"]
    assert found[4].outputs == []


def test_such_a_notebook_runs(book, tmp_path, root):
    """A loop echoes values as at Python's prompt, and long values are not broken as IPython would."""
    text = book(
        """
        ```pycon exec="on"
        >>> for n in range(2):
        ...     n
        0
        1
        >>> {"b": 1, "a": set()}
        {'b': 1, 'a': set()}
        >>> len
        <built-in function len>
        >>> {}["a"]
        Traceback (most recent call last):
            ...
        KeyError: 'a'
        ```
        """
    )
    assert differences(text, tmp_path, root / "src") == []


DRAWN = """\
def row(word):
    print(f"<p>{word}</p>")
row("a")
print("<p>b</p>")"""


def test_a_figure_is_shown_and_has_its_caption(book):
    text = book(
        """
        ```python exec="on" html="on"
        def row(word):
            print(f"<p>{word}</p>")
        row("a")
        print("<p>b</p>")
        ```
        """
    )
    drawn, capture, shown = code_of(text)[:3]
    assert drawn.source.startswith("SVG('<svg")
    assert drawn.outputs[0].data["image/svg+xml"].startswith("<svg")
    assert (capture.source, capture.outputs) == (f"%%capture shown\n{DRAWN}", [])
    assert (shown.source, shown.outputs[0].data["text/html"]) == ("HTML(shown.stdout)", "<p>a</p>\n<p>b</p>")
    assert "**Figure 1.** A square." in [cell.source for cell in cells(text, "markdown")]


def test_a_page_that_fails_still_has_its_code(book):
    text = book(
        """
        ```python exec="on" html="on"
        print(1 / 0)
        ```
        """
    )
    drawn = code_of(text)[1]
    assert (drawn.source, drawn.outputs) == ("HTML(1 / 0)", [])


def test_its_place(root):
    assert notebook_of(Project(root).notes[1]) == "papers/attention/scaled.ipynb"
