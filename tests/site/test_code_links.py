"""Names in code: what they mean by Python's rules, and the links that lead there."""

import html
import re
from urllib.parse import unquote

import pytest

from papercode.site.code_links import blocks, link, plain_text
from papercode.site.code_names import Name, names_of, names_of_module
from papercode.site.fences import fences
from papercode.site.sources import Sources
from papercode.site.symbols import Symbol, Symbols
from tiny import ROOT, block, edit, write_project

SCALED, ADAPTED = "zoo.attention.scaled", "zoo.adaptation.adapter"


@pytest.fixture(scope="module")
def symbols(tmp_path_factory):
    return Symbols(Sources(write_project(tmp_path_factory.mktemp("names")) / "src"))


def found(symbols, *codes):
    """(line, column, text, what it means) of each name, in fences of python that are run in turn."""
    text = "\n".join(f'```python exec="on"\n{block(code)}```\n' for code in codes)
    names = names_of(fences(text), symbols)
    return [[(n.line, n.column, n.text, getattr(n.target, "anchor", n.target)) for n in names_] for names_ in names]


def uses(symbols, code):
    """The lines on which `scaled` means the symbol of zoo, imports left out."""
    names = names_of(fences(f'```python exec="on"\nfrom {SCALED} import scaled\n{block(code)}```\n'), symbols)
    return [name.line for name in names[0] if not name.imported]


# symbols


def test_a_symbol_knows_its_lines_and_whether_a_page_tells_of_it(symbols):
    assert symbols.find(SCALED, "scaled") == Symbol(SCALED, "scaled", 6, 15, True)
    assert symbols.find(SCALED, "FACTOR") == Symbol(SCALED, "FACTOR", 3, 3, False)
    assert symbols.find(SCALED, "nothing") is None
    assert symbols.find("os.path", "join") is None


def test_a_symbol_is_found_at_home_whoever_hands_it_on(symbols):
    assert symbols.find(ADAPTED, "scaled").module == SCALED


def test_decorators_constants_with_docstrings_and_conditions(tmp_path):
    path = write_project(tmp_path) / "src/zoo/words/plain.py"
    code = 'import functools\nX = 1\n"""One."""\nif X:\n    @functools.cache\n    def f():\n        """F."""\n'
    path.write_text(code, "utf-8")
    symbols = Symbols(Sources(tmp_path / "src"))
    assert symbols.find("zoo.words.plain", "X") == Symbol("zoo.words.plain", "X", 2, 3, True)
    assert symbols.find("zoo.words.plain", "f") == Symbol("zoo.words.plain", "f", 5, 7, True)


@pytest.mark.parametrize("text", ["", "x = 1\ndef broken(:\n"])
def test_a_module_that_is_empty_or_broken_defines_nothing(tmp_path, text):
    (tmp_path / "zoo").mkdir()
    (tmp_path / "zoo/new.py").write_text(text)
    assert Symbols(Sources(tmp_path)).find("zoo.new", "x") is None


def test_names_handed_round_in_a_circle_are_no_symbols(tmp_path):
    root = write_project(tmp_path)
    (root / "src/zoo/a.py").write_text("from zoo.b import x\n")
    (root / "src/zoo/b.py").write_text("from zoo.a import x\n")
    assert Symbols(Sources(root / "src")).find("zoo.a", "x") is None


# names


def test_an_import_and_its_uses(symbols):
    code = "from zoo.attention.scaled import scaled\nx = 1 + scaled(2)"
    assert found(symbols, code) == [
        [
            (0, 5, SCALED, SCALED),
            (0, 33, "scaled", f"{SCALED}.scaled"),
            (1, 8, "scaled", f"{SCALED}.scaled"),
        ]
    ]


def test_a_page_is_one_session(symbols):
    assert found(symbols, "import torch", f"from {SCALED} import scaled as s", "s(1)")[2] == [
        (0, 0, "s", f"{SCALED}.scaled")
    ]


def test_modules_and_what_is_taken_from_them(symbols):
    assert found(symbols, "from zoo.attention import scaled\nscaled.scaled(1)")[0][1:] == [
        (0, 26, "scaled", SCALED),
        (1, 0, "scaled", SCALED),
        (1, 7, "scaled", f"{SCALED}.scaled"),
    ]
    assert found(symbols, f"import {SCALED} as m\nm.scaled(1)")[0] == [
        (0, 7, SCALED, SCALED),
        (1, 0, "m", SCALED),
        (1, 2, "scaled", f"{SCALED}.scaled"),
    ]


def test_prompts_and_outputs_of_claims_are_counted(symbols):
    text = block(
        f"""
        ```pycon exec="on"
        >>> from {SCALED} import (
        ...     scaled,
        ... )
        >>> scaled(2)  # scaled
        4
        >>> "é", scaled
        scaled
        ```
        """
    )
    names = names_of(fences(text), symbols)[0]
    assert [(n.line, n.column, n.imported) for n in names] == [
        (0, 9, True),
        (1, 8, True),
        (3, 4, False),
        (5, 9, False),
    ]


KEPT = {
    "a call": "scaled(1)",
    "a default of a later function": "def f(x=scaled):\n    return x",
    "an argument by that name of another function": "f(x=scaled)",
    "inside a function": "def f(x):\n    return scaled(x)",
    "the value that takes its name": "scaled = scaled(1)",
}
TAKEN = {
    "an assignment": "scaled = 1\nscaled",
    "a function of that name": "def scaled():\n    return scaled",
    "an argument": "def f(scaled):\n    return scaled(1)",
    "a lambda's argument": "f = lambda scaled: scaled",
    "a loop": "for scaled in range(2):\n    print(scaled)",
    "a comprehension": "[scaled for scaled in range(3)]",
    "a local variable": "def f():\n    scaled = 1\n    return scaled",
    "an attribute": "torch.scaled",
    "the name of an argument": "f(scaled=1)",
    "a text": "'scaled'",
    "a comment": "# scaled",
    "another import": "from math import sin as scaled\nscaled(1)",
    "what is no Python": "scaled(",
}


@pytest.mark.parametrize("code", KEPT.values(), ids=KEPT)
def test_the_name_is_the_imported_one(symbols, code):
    assert uses(symbols, code)


@pytest.mark.parametrize("code", TAKEN.values(), ids=TAKEN)
def test_the_name_is_another_one(symbols, code):
    assert uses(symbols, code) == []


def test_names_survive_being_saved(symbols):
    for name in names_of_module(f"from {SCALED} import scaled\nscaled(1)", symbols):
        assert Name.read(name.saved()) == name


# links


CODE = '<span class="n">f</span><span class="p">(</span><span class="n">x</span><span class="p">)</span> <span class="o">&lt;</span> <span class="n">f</span>\n<span class="n">f</span>'  # noqa: E501
F = Symbol("a.b", "f", 1, 2, True)


def test_only_the_first_use_is_a_link_and_the_text_stays():
    names = [Name(0, 0, "f", F), Name(0, 7, "f", F), Name(1, 0, "f", F, imported=True)]
    linked = link(CODE, names, lambda target: f"x/?a&b#{target.anchor}")
    opening = '<a class="code-link" href="x/?a&amp;b#a.b.f">'
    assert linked == (
        CODE.replace('<span class="n">f</span>', f'{opening}<span class="n">f</span></a>', 1)[:-25]
        + f'\n{opening}<span class="n">f</span></a>'
    )
    assert plain_text(linked) == "f(x) < f\nf"


def test_what_does_not_stand_where_it_should_is_no_link():
    assert link(CODE, [Name(0, 1, "f", F), Name(0, 2, "g", F), Name(9, 0, "f", F)], lambda target: "x") == CODE


def test_what_has_no_address_is_no_link():
    assert link(CODE, [Name(0, 0, "f", F)], lambda target: None) == CODE


def test_blocks_are_found_by_their_text_in_order():
    page = "".join(
        f'<div class="language-python highlight"><pre><span></span><code>{code}\n</code></pre></div>'
        for code in ("a", "<span>b</span> &lt; 1", "a", "c")
    )
    assert [(n, plain_text(match[1])) for n, match in blocks(page, ["a", "hidden", "b < 1", "a"])] == [
        (0, "a\n"),
        (2, "b < 1\n"),
        (3, "a\n"),
    ]


def test_a_block_that_is_shown_twice_stands_for_one_piece_of_code():
    page = 2 * '<div class="language-python highlight"><pre><span></span><code>a\n</code></pre></div>'
    assert [n for n, _ in blocks(page, ["a"])] == [0]


def test_the_page_of_a_note_links_to_the_api_page(base):
    page = base.page("papers/attention/scaled")
    anchor = f"../../../api/attention/scaled/#{SCALED}.scaled"
    assert page.count(f'<a class="code-link" href="{anchor}">scaled</a>') == 2
    assert f'<a class="code-link" href="../../../api/attention/scaled/"><span class="nn">{SCALED}</span></a>' in page


def test_the_source_on_an_api_page_links_to_what_it_imports(base):
    link = f'<a class="code-link" href="../../attention/scaled/#{SCALED}.scaled">scaled</a>'
    assert link in base.page("api/adaptation/adapter")


def test_a_name_that_moves_is_followed(site):
    root = site.root
    (root / "src/zoo/attention/home.py").write_text(
        '"""Home."""\n\n\ndef scaled(x: int) -> int:\n    """Doubles."""\n    return 2 * x\n', "utf-8"
    )
    (root / "src/zoo/attention/scaled.py").write_text('"""Hands on."""\n\nfrom zoo.attention.home import scaled\n')
    edit(root / "papers/attention/scaled.md", "[`scaled`][zoo.attention.scaled.scaled]", "`scaled`")
    edit(root / "src/zoo/adaptation/adapter.py", "see [`scaled`][zoo.attention.scaled.scaled]", "see `scaled`")
    page = site.build(strict=True).page("papers/attention/scaled")
    assert 'href="../../../api/attention/home/#zoo.attention.home.scaled"' in page


# the real site


def dangling(folder, pages):
    """The links in code on the pages below `folder` that lead to no anchor; and how many there are in all."""
    anchors, bad, count = {}, [], 0
    for path in pages:
        for href in re.findall(r'class="code-link" href="([^"]+)"', path.read_text("utf-8")):
            address, _, anchor = html.unescape(href).partition("#")
            target = (path.parent / unquote(address)).resolve()
            target = target / "index.html" if target.is_dir() else target
            if target not in anchors:
                text = target.read_text("utf-8") if target.is_file() else None
                anchors[target] = None if text is None else set(re.findall(r' id="([^"]+)"', text))
            known = anchors[target]
            count += 1
            if known is None or (anchor and anchor not in known):
                bad.append(f"{path.relative_to(folder)}: {href}")
    return bad, count


def test_every_link_in_code_leads_to_an_anchor(whole_site):
    bad, count = dangling(whole_site, sorted(whole_site.rglob("*.html")))
    assert not bad
    assert count > 2500


def test_so_it_does_in_a_site_that_is_opened_from_a_disk(site):
    built = site.build(strict=True, use_directory_urls=False)
    bad, count = dangling(built.folder, sorted(built.folder.rglob("*.html")))
    assert not bad
    assert count >= 8
    assert (built.folder / "papers/attention/scaled.html").is_file()


def test_the_code_that_is_shown_is_the_code_that_was_run(whole_site):
    """Links leave the text of every claim as the note has it."""
    for name in ("adaptation/lora", "attention/transformer"):
        text = (ROOT / "papers" / f"{name}.md").read_text("utf-8")
        codes = [fence.code for fence in fences(text) if fence.executed and fence.options.get("source") != "no"]
        page = (whole_site / "papers" / name / "index.html").read_text("utf-8")
        assert [n for n, _ in blocks(page, codes)] == list(range(len(codes)))
