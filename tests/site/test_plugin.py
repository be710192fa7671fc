"""Building the tiny project: its pages, and what its author is told."""

import json
import os
import re
import subprocess
import sys
import time
import zlib

import mkdocs.exceptions
import pytest
from mkdocs.livereload import LiveReloadServer

from papercode.site import katex as katex_module
from papercode.site.npm import NodeError
from papercode.site.project import Project
from papercode.site.runner import Runner
from papercode.site.scaffold import scaffold
from tiny import edit, line_of


def article(text):
    return re.search(r"<article.*?</article>", text, re.DOTALL)[0]


def words(html):
    return " ".join(re.sub(r"<[^>]+>", " ", html).split())


# pages


def test_a_good_project_gives_a_site_without_warnings(base):
    assert base.warnings == []
    pages = {path.relative_to(base.folder).parent.as_posix() for path in base.folder.rglob("index.html")}
    assert pages == {
        *(".", "bibliography", "papers", "api", "map", "findings", "mistakes", "questions", "glossary"),
        *("papers/words/plain", "papers/attention/scaled", "papers/adaptation/adapter"),
        *("api/words/plain", "api/attention/scaled", "api/adaptation/adapter"),
    }
    for name in ("_mkdocstrings.css", "fonts/fonts.css", "papercode.css", "papercode.js"):
        assert (base.folder / "assets" / name).is_file()
    text = base.page("papers/attention/scaled")
    for name in ("fonts/fonts.css", "papercode.css", "papercode.js"):
        assert f'"../../../assets/{name}"' in text


def test_a_note_has_its_header_claims_and_figure(base):
    text = article(base.page("papers/attention/scaled"))
    assert "&gt;&gt;&gt; " in text
    assert "Journal of Tests, 2015" in words(text)
    assert '<a data-family="adaptation" href="../../adaptation/adapter/">Adapter</a>' in text
    source = re.search(r'<img[^>]*src="\.\./\.\./\.\./(assets/figures/\w+\.svg)"', text)[1]
    assert (base.folder / source).read_text().startswith('<svg xmlns="http://www.w3.org/2000/svg" width="72pt"')
    assert 'alt="One black square."' in text
    assert '<span class="arithmatex"><span class="katex">' in text
    assert '<annotation encoding="application/x-tex">y = 2x</annotation>' in text
    assert "exec=" not in text


def test_notes_and_pages_of_modules_link_to_each_other(base):
    assert 'href="../../../api/attention/scaled/#zoo.attention.scaled.scaled"' in base.page("papers/attention/scaled")
    api = article(base.page("api/adaptation/adapter"))
    assert '<a href="../../../papers/adaptation/adapter/">Adapter</a>' in api
    assert 'href="../../attention/scaled/#zoo.attention.scaled.scaled"' in api
    assert 'id="zoo.adaptation.adapter.adapted"' in api
    assert "return scaled(x) + 1" in words(api).replace(" ( ", "(").replace(" )", ")")


def test_citations_lead_to_the_bibliography_and_back(base):
    note = article(base.page("papers/adaptation/adapter"))
    link = r'<a class="citation" href="\.\./\.\./\.\./bibliography/#first2015scaled"[^>]*>First \(2015\)'
    assert re.search(link, note)
    bibliography = article(base.page("bibliography"))
    entry = bibliography[bibliography.index('id="first2015scaled"') :].split("</li>")[0]
    assert 'Cited by <a href="../papers/adaptation/adapter/">Adapter</a>' in entry
    assert 'href="../papers/attention/scaled/"' in entry


@pytest.mark.parametrize(
    ("page", "file"),
    [
        ("papers/attention/scaled", "papers/attention/scaled.md"),
        ("", "docs/index.md"),
        ("api/attention/scaled", "src/zoo/attention/scaled.py"),
        ("bibliography", "references.bib"),
        ("papers", None),
    ],
)
def test_edit_links_lead_to_the_sources(base, page, file):
    address = "https://github.com/papercode/papercode/edit/main/"
    found = re.findall(r'href="(https://github.com/papercode/papercode/edit/[^"]*)"', base.page(page))
    assert found == ([address + file] if file else [])
    assert file is None or (base.root / file).is_file()


def test_the_navigation_goes_by_family(base):
    text = base.page("papers/adaptation/adapter")
    navigation = words(text[text.index('class="md-nav md-nav--primary') : text.index("<article")])
    order = [navigation.index(name) for name in ("Word vectors", "Attention", "Adaptation", "Bibliography")]
    assert order == sorted(order)


def test_the_search_finds_words_and_authors_but_no_source(base):
    entries = json.loads((base.folder / "search/search_index.json").read_text())["docs"]
    texts = {entry["location"]: entry["text"] for entry in entries}

    def below(place):
        return " ".join(text for name, text in texts.items() if name.startswith(place))

    assert "doubles" in texts["papers/attention/scaled/#implementation"]
    assert "papers/attention/scaled/#method" in texts
    assert "Ada First" in below("bibliography/")
    assert "Ada First" in below("papers/attention/scaled/")
    assert "Scales" in below("api/attention/scaled/")
    assert "return" not in below("api/attention/scaled/")  # the source
    assert "print" not in below("papers/attention/scaled/#in-one-picture")  # that of a figure


def test_the_inventory_lists_what_notes_can_link_to(base):
    data = (base.folder / "objects.inv").read_bytes()
    names = zlib.decompress(data.split(b"zlib.\n", 1)[1]).decode()
    assert "zoo.attention.scaled.scaled py:function 1 api/attention/scaled/#$" in names


def test_pictures_beside_a_note_are_part_of_the_site(site):
    (site.root / "papers/attention/map.png").write_bytes(b"png")
    edit(site.root / "papers/attention/scaled.md", "About evidence", "![A map](map.png) About evidence")
    built = site.build()
    assert built.warnings == []
    assert (built.folder / "papers/attention/map.png").read_bytes() == b"png"


def test_a_stub_can_be_read(site):
    (site.root / "src/papercode").mkdir()
    (site.root / "src/papercode/__init__.py").touch()
    scaffold(Project(site.root), "decoders/new_one", "smith2021new")
    note = site.root / "papers/decoders/new_one.md"
    edit(note, "from papercode.decoders.new_one import new_one", "from operator import neg")
    edit(note, ">>> new_one(1)", ">>> neg(-2)")  # the worker's papercode is the real one
    built = site.build(strict=True)
    assert "TODO" in built.page("papers/decoders/new_one")
    assert "new_one" in built.page("api/decoders/new_one")


# what the author is told


def test_a_failing_snippet_is_shown_and_logged_also_when_read_back(site):
    path = site.root / "papers/adaptation/adapter.md"
    edit(path, "    5\n", "    6\n")
    place = f"papers/adaptation/adapter.md:{line_of(path, '    >>> adapted(2)')}"
    for cache in (True, True, False):
        built = site.build(cache=cache)
        assert built.warnings == [f"{place}: snippet mismatch\nExpected:\n    6\nGot:\n    5"]
        assert "snippet mismatch" in words(article(built.page("papers/adaptation/adapter")))
    for cache in (True, False):
        with pytest.raises(mkdocs.exceptions.Abort, match="1 warnings"):
            site.build(strict=True, cache=cache)
    edit(path, "    6\n", "    5\n")
    assert site.build(strict=True).warnings == []


def test_a_page_that_crashes_harms_no_other(site):
    path = site.root / "papers/attention/scaled.md"
    edit(path, ">>> scaled(2)\n4", ">>> import os; os._exit(1)")
    edit(site.root / "src/zoo/attention/scaled.py", "FACTOR * x", "x * FACTOR")  # so that the others are run, too
    built = site.build()
    place = f"papers/attention/scaled.md:{line_of(path, '>>> import os; os._exit(1)')}"
    assert built.warnings == [f"{place}: snippet failed: the process ended itself with exit code 1"]
    assert "the process ended itself" in built.page("papers/attention/scaled")
    assert "snippet" not in article(built.page("papers/adaptation/adapter"))


PLAIN, SCALED, ADAPTER = "papers/words/plain.md", "papers/attention/scaled.md", "papers/adaptation/adapter.md"
# (file, what is replaced, by what): file, the line that holds this text, and how the message begins
MISTAKES = [
    {
        (PLAIN, "About method", "See [@nobody2020x], about method"): [
            (PLAIN, "[@nobody2020x]", "unknown citation key @nobody2020x: add it to references.bib or correct it")
        ],
        (PLAIN, "### Evidence\n", ""): [(PLAIN, None, "missing heading `### Evidence`")],
        (PLAIN, "About five", "$$x$$ about five"): [(PLAIN, "$$x$$", "$$ within a paragraph stays TeX: write $…$")],
        ("docs/index.md", "# A tiny", "# @nobody2020y on a tiny"): [
            ("docs/index.md", "@nobody2020y", "unknown citation key @nobody2020y: add it")
        ],
        (SCALED, "key: ", "kee: "): [
            (SCALED, "---", "front matter lacks `key:`, which is the paper's key in references.bib"),
            (SCALED, "kee:", "front matter has an unknown entry `kee`; known are key, "),
        ],
        (ADAPTER, "---\nkey", "key"): [(ADAPTER, "key", "front matter is missing: begin with `---`, `key:`")],
    },
    {
        (PLAIN, "key: third2013plain", "key: fourth2013plain"): [
            (PLAIN, "key:", "front matter `key`: fourth2013plain is not in references.bib")
        ],
        (PLAIN, "builds_on: []", "builds_on: []\n2017: 1\n2017-01-01: [x]"): [
            (PLAIN, "2017: 1", "front matter has an unknown entry `2017`"),
            (PLAIN, "2017-01-01", "front matter has an unknown entry `2017-01-01`"),
        ],
        (SCALED, "builds_on: []", "builds_on: [{a: b}]"): [
            (SCALED, "builds_on", "front matter `builds_on` must be a list of keys, [] if there is none; got [{'a'")
        ],
        (ADAPTER, "module: zoo", "module: [zoo"): [(ADAPTER, "builds_on", "front matter is not YAML: ")],
    },
    {
        ("references.bib", "third2013plain,", "first2015scaled,"): [
            ("references.bib", "third", "first2015scaled: the key is already used on line 1; remove one of the two"),
            (PLAIN, "key:", "front matter `key`: third2013plain is not in references.bib"),
        ],
        ("references.bib", "@article{second2019adapter,", "@article{second2019adapter"): [
            (
                "references.bib",
                "second2019adapter",
                "this entry cannot be read; look for a missing brace, comma or `=`",
            ),
            (ADAPTER, "key:", "front matter `key`: second2019adapter is not in references.bib"),
        ],
    },
]


@pytest.mark.parametrize("number", range(len(MISTAKES)))
def test_mistakes_are_logged_with_file_line_and_what_to_do(site, number):
    """By every build, whether the page is rendered or read back; a strict build fails."""
    for name, old, new in MISTAKES[number]:
        if "third2013plain," in old:  # of the bibliography the line tells; there is no text to find it by
            expected_line = line_of(site.root / name, old)
        edit(site.root / name, old, new)
    expected = set()
    for name, text, message in (mistake for listed in MISTAKES[number].values() for mistake in listed):
        path = site.root / name
        last = len(path.read_text().rstrip("\n").split("\n"))
        line = last if text is None else expected_line if text == "third" else line_of(path, text)
        expected.add(f"{name}:{line}: {message}")
    for _ in range(2):
        found = [warning for warning in site.build().warnings if re.match(r"[\w/.]+:\d+: ", warning)]
        assert len(found) == len(expected), found
        for start in expected:
            assert any(warning.startswith(start) for warning in found), (start, found)
    with pytest.raises(mkdocs.exceptions.Abort):
        site.build(strict=True)


def test_an_unknown_key_in_a_docstring(site):
    edit(site.root / "src/zoo/words/plain.py", '"""A word."""', '"""A word, see @nobody2020x."""')
    for _ in range(2):
        [warning] = site.build().warnings
        assert warning == "api/words/plain.md: unknown citation key @nobody2020x: add it to references.bib"


def test_citations_in_docstrings(site):
    edit(site.root / "src/zoo/words/plain.py", '"""A word."""', '"""A word: @first2015scaled, [@third2013plain]."""')
    built = site.build()
    assert '<a class="citation" href="../../../bibliography/#first2015scaled"' in built.page("api/words/plain")
    edit(site.root / "references.bib", "First, Ada", "Fourth, Ada")
    assert "Fourth (2015)" in site.build().page("api/words/plain")
    assert built.warnings == []


def test_what_leads_nowhere_is_told_every_time(site):
    """A page, a section and a name that do not exist."""
    path = site.root / "papers/words/plain.md"
    edit(path, "About method", "See [it](../attention/nothing.md#x), about method")
    edit(path, "About evidence", "See [it](../attention/scaled.md#nowhere), about evidence")
    edit(path, "About numbers", "See [it][zoo.nothing], about numbers")
    for _ in range(3):
        found = "\n".join(site.build().warnings)
        assert len(found.split("\n")) == 3
        for text in ("'../attention/nothing.md#x'", "#nowhere", "zoo.nothing"):
            assert text in found


def test_a_section_that_does_not_exist_is_told_of_by_a_page_that_was_read_back(site):
    """MkDocs looks for it when all pages are rendered."""
    edit(site.root / "papers/words/plain.md", "About evidence", "[It](../attention/scaled.md#nowhere), about evidence")
    first, second = site.build(), site.build()
    assert "#nowhere" in first.warnings[0]
    assert second.warnings == first.warnings
    assert second.misses == 0
    # nor does the page change when the section appears in another
    edit(site.root / "papers/attention/scaled.md", "About evidence", "#### Nowhere\n\nAbout evidence")
    assert site.build(strict=True).warnings == []


def test_names_of_modules_that_import_an_object_are_no_names_of_it(site):
    """mkdocstrings knows some of them, which ones depends on what it has rendered so far."""
    edit(site.root / "papers/words/plain.md", "About method", "[It][zoo.adaptation.adapter.scaled], about method")
    for built in (site.build(), site.build(cache=False)):
        [warning] = built.warnings
        assert "zoo.adaptation.adapter.scaled" in warning


def test_one_figure_on_two_pages_is_one_file(site):
    text = (site.root / "papers/attention/scaled.md").read_text()
    figure = text[text.index("```python exec") : text.index("### Five Cs")]
    edit(site.root / "papers/words/plain.md", "About evidence", f"{figure}\nAbout evidence")
    built = site.build(strict=True)
    source = re.findall(r"assets/figures/\w+\.svg", built.page("papers/words/plain"))
    assert source == re.findall(r"assets/figures/\w+\.svg", built.page("papers/attention/scaled"))
    assert len(list((built.folder / "assets/figures").iterdir())) == 1


def test_other_plugins_are_left_as_they_were(base):
    assert "register_anchor" not in vars(base.config.plugins["autorefs"])


def test_without_katex_there_is_a_site_and_a_warning(site, monkeypatch):
    def fails(cache):
        raise NodeError("no network")

    monkeypatch.setattr(katex_module, "ensure_katex", fails)
    built = site.build()
    assert built.warnings == ["formulas stay TeX: no network"]
    assert r"\(y = 2x\)" in built.page("papers/attention/scaled")


def test_a_build_whose_runner_fails_does_not_wait_for_it(site, monkeypatch):
    def fails(self, *arguments):
        raise OSError("no more processes")

    monkeypatch.setattr(Runner, "stream", fails)
    with pytest.raises(OSError, match="no more processes"):
        site.build()


# options, and the other tools


def test_without_a_cache_nothing_is_kept(site):
    cache = Project(site.root).cache

    def kept():
        return {path for path in cache.rglob("*") if path.is_file()}

    before = kept()
    edit(site.root / "docs/index.md", "1 + 1", "2 - 0")
    assert site.build(cache=False).warnings == []
    assert kept() == before
    site.build()
    assert len(kept()) > len(before)


def test_so_many_pages_at_once(site, monkeypatch):
    jobs = []
    original = Runner.stream

    def noted(self, *arguments):
        jobs.append(self.jobs)
        return original(self, *arguments)

    monkeypatch.setattr(Runner, "stream", noted)
    edit(site.root / "mkdocs.yml", "  papercode: {}\n", "  papercode: {jobs: 3}\n")
    site.build()
    assert jobs == [3]


def test_what_is_watched_while_serving(base):
    for name in ("papers", "src", "references.bib"):
        assert str(base.root / name) in base.config.watch


def test_a_save_is_noticed(base):
    """Of a page, a note, a module and the bibliography, by the server that `mkdocs serve` starts."""
    with LiveReloadServer(builder=lambda: None, host="127.0.0.1", port=0, root=str(base.folder)) as server:
        config = base.config
        server.watch(config.docs_dir)
        server.watch(config.config_file_path)
        assert config.plugins.on_serve(server, config=config, builder=server.builder) is server
        for path in config.watch:
            server.watch(path)
        server.observer.start()
        try:
            for name in ("docs/index.md", "papers/words/plain.md", "src/zoo/words/plain.py", "references.bib"):
                server._want_rebuild = False
                os.utime(base.root / name, (0, time.time()))
                patience = time.monotonic() + 20
                while not server._want_rebuild:
                    assert time.monotonic() < patience, name
                    time.sleep(0.02)
        finally:
            server.observer.stop()
            server.observer.join()


def test_properdocs_builds_the_same_pages(site):
    """The maintained fork of MkDocs, by its command; it reads our snippets back, warns and fails as MkDocs does."""
    edit(site.root / "docs/index.md", "\n2\n", "\n3\n")
    edit(site.root / "papers/words/plain.md", "About method", "See [it](../attention/nothing.md), about method")
    ours = site.build()
    command = [sys.executable, "-m", "properdocs", "build", "--strict", "-f", "mkdocs.yml", "-d", "other"]
    done = subprocess.run(command, cwd=site.root, capture_output=True, text=True)
    assert (done.returncode, done.stderr.count("WARNING")) == (1, 2), done.stderr
    assert "docs/index.md:8: snippet mismatch" in done.stderr
    assert "../attention/nothing.md" in done.stderr
    pages = [path.relative_to(ours.folder) for path in ours.folder.rglob("index.html")]
    assert len(pages) == 15
    for name in ("objects.inv", "assets/_mkdocstrings.css"):  # though no page of a module was rendered
        assert (site.root / "other" / name).read_bytes() == (ours.folder / name).read_bytes()
    for page in pages:
        assert article((site.root / "other" / page).read_text()) == article((ours.folder / page).read_text())
