"""Formulas set when the site is built."""

import html
import re
import subprocess

import pytest
from markdown import Markdown

from papercode.site import npm
from papercode.site.math_fonts import fonts_of, glyphs
from papercode.site.store import Forgetful, Store
from papercode.site.typeset import Typesetter, formulas_of, without_formulas


@pytest.fixture
def typesetter(katex, tmp_path):
    found = Typesetter(katex, Store(tmp_path / "store"))
    yield found
    found.close()


def page(text):
    options = {"pymdownx.arithmatex": {"generic": True}}
    return Markdown(extensions=["pymdownx.arithmatex"], extension_configs=options).convert(text)


def tex(content):
    return [html.unescape(found) for found in re.findall(r"<annotation[^>]*>(.*?)</annotation>", content, re.DOTALL)]


@pytest.fixture
def started(monkeypatch):
    """The processes that were started."""
    found = []
    start = subprocess.Popen

    def count(*arguments, **options):
        found.append(start(*arguments, **options))
        return found[-1]

    monkeypatch.setattr(subprocess, "Popen", count)
    return found


def test_formulas_are_set_for_eyes_and_for_screen_readers(typesetter):
    text = "a $x<y$ b & c\n\n$$\n\\begin{aligned} a &< b \\\\ c &> \\text{注} \\end{aligned}\n$$"
    content = typesetter.set_formulas(page(text), "a.md")
    assert tex(content) == ["x<y", "\n\\begin{aligned} a &< b \\\\ c &> \\text{注} \\end{aligned}\n"]
    assert content.count('<span class="katex-display">') == 1
    assert content.count("<math ") == content.count('<span class="katex-html" aria-hidden="true">') == 2
    assert "<mi>x</mi><mo>&lt;</mo><mi>y</mi>" in content
    assert "\\(" not in content
    assert "\\[" not in content
    assert "</span> b &amp; c</p>" in content


def test_set_once_by_one_process_and_none_when_all_is_known(typesetter, started, katex):
    first = typesetter.set_formulas(page("$x$ and $y$"), "a.md")
    more = typesetter.set_formulas(page("$y$ and $z$"), "b.md")
    assert len(started) == 1
    assert tex(first + more) == ["x", "y", "y", "z"]
    typesetter.close()
    assert started[0].poll() == 0
    again = Typesetter(katex, typesetter.store)
    assert again.set_formulas(page("$z$ and $x$"), "c.md").count("katex-html") == 2
    assert len(started) == 1


def test_the_same_tex_displayed_is_another_formula(typesetter):
    typesetter.set_formulas(page("$x$"), "a.md")
    assert "katex-display" in typesetter.set_formulas(page("$$x$$"), "a.md")


def test_what_katex_cannot_read_stays_tex_and_is_reported_every_time(typesetter, caplog):
    for _ in range(2):
        caplog.clear()
        content = typesetter.set_formulas(page(r"$\frac{x}$ and $y$"), "papers/a.md")
        assert '<span class="arithmatex">\\(\\frac{x}\\)</span>' in content
        assert tex(content) == ["y"]
        [warning] = caplog.messages
        assert warning.startswith(r"papers/a.md: KaTeX cannot read the formula \(\frac{x}\): ")


def test_a_node_that_ends_leaves_tex_and_a_warning(katex, tmp_path, caplog, monkeypatch):
    (tmp_path / "katex.min.js").write_text("process.exit(3)")
    broken = Typesetter(tmp_path, Forgetful())
    assert broken.set_formulas(page("$x$"), "a.md") == page("$x$")
    assert caplog.messages == ["a.md: formulas stay TeX: node ended while it set formulas (exit status 3)"]


def test_a_node_that_hangs_is_ended(tmp_path, caplog, monkeypatch):
    (tmp_path / "katex.min.js").write_text("for (;;);")
    monkeypatch.setattr("papercode.site.typeset._SECONDS", 0.2)
    assert "katex" not in Typesetter(tmp_path, Forgetful()).set_formulas(page("$x$"), "a.md")
    assert "node ended while it set formulas" in caplog.text


def test_without_node_the_site_is_built_and_says_so(site, monkeypatch):
    def missing():
        raise npm.NodeError("no node")

    monkeypatch.setattr(npm, "node", missing)
    built = site.build()
    assert built.warnings == ["formulas stay TeX: no node"]
    assert r"\(y = 2x\)" in built.page("papers/attention/scaled")
    monkeypatch.undo()
    assert r"\(y = 2x\)" not in site.build().page("papers/attention/scaled")


def test_a_warm_build_starts_no_node(site, started):
    nodes = [process for process in started if "katex.mjs" in str(process.args)]
    built = site.build()
    assert "katex-html" in built.page("papers/attention/scaled")
    assert [process for process in started if "katex.mjs" in str(process.args)] == nodes == []


def test_search_knows_plain_inline_formulas_and_no_others(typesetter):
    content = typesetter.set_formulas(page("a $d_k$-th **b** $\\sqrt{x}$, c\n\n$$y$$\n\nd"), "a.md")
    assert re.sub(r"<[^>]*>", "", without_formulas(content)).split() == ["a", "d_k-th", "b", ",", "c", "d"]
    assert without_formulas("<p>no <span>formula</span></p>") == "<p>no <span>formula</span></p>"


def test_the_index_is_free_of_what_katex_writes(base):
    index = (base.folder / "search/search_index.json").read_text("utf-8")
    assert "It is y = 2x, that is" in index
    assert "katex" not in index
    assert "annotation" not in index


def test_formulas_are_found_whole(typesetter):
    content = typesetter.set_formulas(page("a $\\frac{x}{y}$ b $$ c\n\n$$\\sqrt{z}$$\n\nd"), "a.md")
    pieces = [content[start:end] for _, start, end in formulas_of(content)]
    assert [kind for kind, _, _ in formulas_of(content)] == ["span", "div"]
    for piece in pieces:
        assert piece.count("<span") == piece.count("</span")
        assert "katex-html" in piece
        assert "annotation" in piece


def test_glyphs_by_font(typesetter):
    text = (
        r"$x_1 \mathbf{W} \mathcal{L} \mathbb{R} \text{if 注}$ and $$\sum \Bigl( \Biggr) $$"
        "\n\n$$\\sum \\begin{cases}a\\\\b\\\\c\\\\d\\end{cases}$$"
    )
    found = glyphs([typesetter.set_formulas(page(text), "a.md"), '<span class="mathbf">not a formula</span>'])
    assert found["Math-Italic"] >= {"x", "a", "b", "c", "d"}
    assert found["Main-Bold"] == {"W"}
    assert found["Caligraphic-Regular"] == {"L"}
    assert found["AMS-Regular"] == {"R"}
    assert found["Main-Regular"] >= {"1", "i", "f"}
    assert found["Size2-Regular"] == {"∑"}
    assert found["Size4-Regular"] >= {"⎧", "⎨", "⎩"}
    assert fonts_of("<p>none</p>") == []
