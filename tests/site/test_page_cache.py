"""Whatever was built before, a build gives the bytes that a build from nothing gives, and makes only what changed."""

import logging

import mkdocs.exceptions
import pytest

from papercode.site.page_cache import _warnings_counted
from papercode.site.project import Project
from tiny import edit, note_text


def differing(one, other):
    """The files that only one of two builds has, or that differ."""
    first, second = one.files(), other.files()
    return sorted(name for name in first.keys() | second.keys() if first.get(name) != second.get(name))


def pages(names):
    """`papers/a/b/index.html` is the page `papers/a/b`."""
    return {name.removesuffix("index.html").rstrip("/") for name in names if name.endswith("index.html")}


PAPERS = {"papers", "papers/words/plain", "papers/attention/scaled", "papers/adaptation/adapter"}
API = {"api", "api/words/plain", "api/attention/scaled", "api/adaptation/adapter"}
GATHERED = {"map", "findings", "mistakes", "questions", "glossary"}  # from all notes: they change with what they gather
ALL = {"", "bibliography", *PAPERS, *API, *GATHERED}


def test_the_second_build_reads_everything_back(site, base):
    assert base.hits == 0
    assert base.misses == 3 * len(ALL)  # of each page the Markdown, the search entries and the HTML
    again = site.build()
    assert (again.misses, again.hits) == (0, base.misses)
    nothing_kept = site.build(cache=False)
    assert differing(again, base) == []
    assert differing(nothing_kept, base) == []
    files = again.files()
    assert pages(files) == ALL
    assert {"objects.inv", "assets/_mkdocstrings.css", "search/search_index.json", "sitemap.xml"} < files.keys()


def test_the_comparison_sees_a_difference(site, base):
    edit(site.root / "docs/index.md", "A tiny project", "A small project")
    assert "index.html" in differing(site.build(), base)


def change(name, old, new):
    return lambda root: edit(root / name, old, new)


def new_note(root):
    text = note_text("fourth2020new", "zoo.words.plain", "Newcomer", builds_on=["third2013plain"])
    (root / "papers/words/new.md").write_text(text)
    with (root / "references.bib").open("a") as file:
        file.write("@misc{fourth2020new, title = {N}, author = {New, A}, year = {2020}}\n")


def new_module(root):
    (root / "src/zoo/words/fancy.py").write_text('"""Fancy words."""\n\nX: int = 1\n"""One."""\n')


def new_page(root):
    (root / "docs/more.md").write_text("# More\n")


# what is changed together, and the pages that then look otherwise; the navigation is pruned, so that of a new name
# only the pages of the same part of the site tell
CHANGES = {
    "texts": (
        [
            change("papers/words/plain.md", "About method of", "About the method of"),
            change("papers/attention/scaled.md", ">>> scaled(2)\n4", ">>> scaled(3)\n6"),
            change("papers/attention/scaled.md", '<rect width="9"', '<rect width="8"'),
            change("docs/index.md", "title: Tiny", "title: Small"),
        ],
        {"", "papers/words/plain", "papers/attention/scaled"},
    ),
    "the name of a note": (
        [change("papers/attention/scaled.md", "# Scaled", "# Rescaled")],
        {"bibliography", "api", "api/attention/scaled", *PAPERS},
    ),
    "an author": (
        [change("references.bib", "First, Ada", "Fourth, Ada")],
        {"papers/attention/scaled", "papers/adaptation/adapter", "papers", "bibliography"},
    ),
    "a title": (
        [change("references.bib", "{A Plain Paper}", "{A Plainer Paper}")],
        {"papers/words/plain", "papers", "bibliography"},
    ),
    "lineage and a citation": (
        [
            change("papers/adaptation/adapter.md", "builds_on: [first2015scaled]", "builds_on: []"),
            change("papers/words/plain.md", "About method", "#### Deeper\n\nSee @second2019adapter, about method"),
        ],
        {"papers/adaptation/adapter", "papers/attention/scaled", "papers/words/plain", "bibliography"},
    ),
    "docstrings": (
        [
            change("src/zoo/attention/scaled.py", "Scales `x`", "Rescales `x`"),
            change("src/zoo/words/plain.py", "Plain words.", "Plainer words."),
        ],
        {"api/attention/scaled", "api/words/plain", "api"},
    ),
    "code": (
        [change("src/zoo/attention/scaled.py", "FACTOR * x", "x * FACTOR")],
        {"api/attention/scaled"},
    ),
    "the name of a function that others link to": (
        [
            change("src/zoo/attention/scaled.py", "def scaled", "scaled = None\n\n\ndef rescaled"),
            change("papers/attention/scaled.md", "import scaled\n", "import rescaled as scaled\n"),
        ],
        {"api/attention/scaled", "papers/attention/scaled", "papers/adaptation/adapter", "api/adaptation/adapter"},
    ),
    "what is new": (
        [new_note, new_module],
        {"papers/words/new", "api/words/fancy", "bibliography", *PAPERS, *API} - {"papers/adaptation/adapter"},
    ),
    "a page that is in no navigation": ([new_page], {"more"}),
    "what is gone": (
        [
            lambda root: (root / "papers/adaptation/adapter.md").unlink(),
            change("papers/words/plain.md", "module: zoo.words.plain", "module: []"),
        ],
        ALL - {"", "api/attention/scaled"},  # a whole part of the navigation, but it is not shown on these
    ),
    "the configuration": ([change("mkdocs.yml", "site_name: papercode", "site_name: paperclip")], ALL),
    "where the repository is": ([change("mkdocs.yml", "github.com/papercode", "github.com/papercodes")], ALL),
}  # fmt: skip


@pytest.mark.parametrize("what", CHANGES)
def test_after_a_change_nothing_is_stale(site, base, what):
    changes, expected = CHANGES[what]
    for alter in changes:
        alter(site.root)
    incremental, from_nothing = site.build(), site.build(cache=False)
    assert differing(incremental, from_nothing) == []
    assert incremental.warnings == from_nothing.warnings
    assert pages(differing(incremental, base)) - GATHERED == expected - GATHERED


@pytest.mark.parametrize(
    ("what", "misses"),
    [
        # its Markdown, its search entries and its HTML
        ("a note", 3),
        # those, and the HTML around its figure
        ("a page of a module", 3),
        # in the header of its note, on the page of references and in the list of papers
        ("a title", 9),
    ],
)
def test_only_what_changed_is_made(site, base, what, misses):
    alter = {
        "a note": change("papers/words/plain.md", "About method of", "About the method of"),
        "a page of a module": change("src/zoo/words/plain.py", "A word.", "Some word."),
        "a title": change("references.bib", "{A Plain Paper}", "{A Plainer Paper}"),
    }
    alter[what](site.root)
    built = site.build()
    # a page that names what changed is made again, too, even if it then looks the same
    assert misses <= built.misses <= misses + 3
    assert built.misses + built.hits == base.misses


def test_a_changed_name_is_shown_by_the_pages_that_mention_it(site):
    edit(site.root / "papers/attention/scaled.md", "# Scaled", "# Rescaled")
    built = site.build()
    assert ">Rescaled</a>" in built.page("papers/adaptation/adapter")  # its lineage
    for name in ("papers/words/plain", "papers", "api", "api/attention/scaled", "bibliography"):
        assert "Rescaled" in built.page(name)
    assert not any(">Scaled<" in built.page(name) for name in ALL)


def test_a_changed_author_is_shown_where_the_paper_is_cited(site, base):
    assert "First (2015)" in base.page("papers/adaptation/adapter")
    edit(site.root / "references.bib", "First, Ada", "Fourth, Ada")
    text = site.build().page("papers/adaptation/adapter")
    assert "Fourth (2015)" in text
    assert "First (2015)" not in text


def test_a_change_and_back(site, base):
    edit(site.root / "papers/attention/scaled.md", "# Scaled", "# Rescaled")
    assert site.build().misses > 0
    edit(site.root / "papers/attention/scaled.md", "# Rescaled", "# Scaled")
    back = site.build()
    assert back.misses == 0
    assert differing(back, base) == []


def test_a_link_to_what_is_gone(site):
    """The page that has the link did not change."""
    edit(site.root / "papers/words/plain.md", "About method", "See [it](../adaptation/adapter.md), about method")
    (site.root / "papers/words/map.png").write_bytes(b"png")
    edit(site.root / "papers/words/plain.md", "About evidence", "![A map](map.png) About evidence")
    assert site.build(strict=True).warnings == []
    (site.root / "papers/adaptation/adapter.md").unlink()
    (site.root / "papers/words/map.png").unlink()
    incremental, from_nothing = site.build(), site.build(cache=False)
    assert incremental.warnings == from_nothing.warnings
    assert len(incremental.warnings) == 2
    assert differing(incremental, from_nothing) == []


def test_mistakes_in_the_text_come_and_go(site):
    note, bibliography = site.root / "papers/words/plain.md", site.root / "references.bib"
    assert site.build().warnings == []
    edit(note, "About method", "See @fourth2020new, about method")
    [warning] = site.build().warnings
    assert "unknown citation key @fourth2020new" in warning
    entry = "@misc{fourth2020new, title = {N}, author = {New, A}, year = {2020}}\n"
    edit(bibliography, "@article{first", f"{entry}@article{{first")
    built = site.build()
    assert built.warnings == []
    assert "New (2020)" in built.page("papers/words/plain")
    edit(bibliography, entry, "")
    assert site.build().warnings == [warning]
    edit(note, "See @fourth2020new, about", "About")
    assert site.build(strict=True).warnings == []


def test_a_page_that_warns_is_made_and_warns_every_time(site):
    edit(site.root / "papers/words/plain.md", "About method", "See [it](nothing.md), about method")
    first, second = site.build(), site.build()
    assert first.warnings == second.warnings
    assert len(first.warnings) == 1
    assert second.misses == 1  # its Markdown alone
    assert differing(first, second) == []


def test_entries_that_are_corrupt_are_made_again(site, base):
    entries = sorted((Project(site.root).cache / "pages").glob("*/*"))
    assert len(entries) > base.misses
    for number, path in enumerate(entries):
        data = path.read_bytes()
        path.write_bytes([b"", data[:-5], data + b" ", data[:70] + data[70:].swapcase(), b"{}"][number % 5])
    again = site.build()
    assert again.hits == 0
    assert differing(again, base) == []
    assert site.build().misses == 0


def test_the_addresses_of_pages_matter(site):
    """Two builds of one project in turn, as `mkdocs serve` beside `mkdocs build`."""
    address = {"site_url": "https://example.org/x/"}
    first = site.build(**address)
    assert "https://example.org/x/papers/words/plain/" in first.page("papers/words/plain")
    assert "example.org" not in site.build().page("papers/words/plain")
    flat = site.build(use_directory_urls=False)
    assert (flat.folder / "papers/words/plain.html").is_file()
    assert differing(flat, site.build(use_directory_urls=False, cache=False)) == []
    assert differing(site.build(**address), first) == []


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("_engine", lambda: ["another"]),
        ("_version", lambda library: "2" if library == "markdown" else "1"),
        ("sys.version", "4"),
    ],
)
def test_the_engine_and_what_it_stands_on_matter(site, monkeypatch, name, value):
    monkeypatch.setattr(f"papercode.site.plugin.{name}", value)
    assert site.build().hits == 0


def test_strict_fails_on_what_was_read_back(site):
    edit(site.root / "papers/words/plain.md", "`plain` is", '```pycon exec="on"\n>>> 1\n2\n```\n\n`plain` is')
    site.build()
    again = site.build()
    assert again.misses == 0
    assert len(again.warnings) == 1
    with pytest.raises(mkdocs.exceptions.Abort):
        site.build(strict=True)


@pytest.mark.parametrize(
    "name",
    [
        "mkdocs.structure.pages",
        "mkdocs.plugins.mkdocs_autorefs",
        "griffe",
        "papercode.site",
        "properdocs.structure.pages",
    ],
)
def test_whoever_warns_is_heard(name):
    with _warnings_counted() as found:
        logging.getLogger(name).info("nothing")
        assert found == []
        logging.getLogger(name).warning("something")
        assert len(found) == 1
    logging.getLogger(name).warning("later")
    assert len(found) == 1


def test_what_a_quiet_build_kept_to_itself_is_told_by_the_next(site):
    edit(site.root / "papers/words/plain.md", "About method", "See [it](../attention/nothing.md), about method")
    assert site.build(quiet=True).warnings == []
    assert len(site.build().warnings) == 1
