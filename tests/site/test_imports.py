"""What an import brings: folded below the claim, its source as it was run."""

import json
import re

from papercode.site.code_names import Name
from papercode.site.imports_fold import brought, fold, source_script
from papercode.site.symbols import Symbol
from tiny import edit

SCALED = "zoo.attention.scaled"
F, G = Symbol("a.b", "f", 3, 9, True), Symbol("a.b", "_G", 1, 1, False)


def name(target, imported=False):
    return Name(0, 0, target.name, target, imported)


def test_each_symbol_is_shown_once_below_the_first_claim_that_has_it():
    names = [[name(F, imported=True)], [name(F), name(F)], [name(F), name(G, imported=True)]]
    assert brought(names, [True, True, True]) == [[F], [], [G]]


def test_a_figure_s_imports_are_shown_below_the_claim_that_uses_them_if_there_is_one():
    names = [[name(F, imported=True), name(G, imported=True)], [name(F)]]
    assert brought(names, [False, True]) == [[G], [F]]


def test_modules_are_not_symbols():
    assert brought([[Name(0, 5, "a.b", "a.b", imported=True)]], [True]) == [[]]


def test_the_fold_says_where_each_source_stands():
    html = fold([F, G], lambda module: "src/a/b.py", lambda target: "api/#f" if target is F else None)
    assert "What the imports bring: <code>f</code> · <code>_G</code>" in html
    assert '<a href="api/#f"><code>f</code></a> <span>src/a/b.py, lines 3–9</span>' in html
    assert "line 1<" in html
    assert "What the import brings: <code>f</code></summary>" in fold([F], str, lambda target: "x")
    assert fold([], str, str) == ""


def test_a_script_hands_over_the_lines_of_each_symbol():
    script = source_script("a.b", "G = '</script>'\n\ndef f():\n    pass", [Symbol("a.b", "f", 3, 4, True), G])
    assert "</script" not in script
    sources = json.loads(re.fullmatch(r'papercodeSource\("a\.b", (.*)\);\n', script)[1])
    assert sources == {"f": "def f():\n    pass", "_G": "G = '</script>'"}


def sources(built, module):
    script = built.files()[f"assets/source/{module}.js"].decode()
    return json.loads(script[script.index("{") : script.rindex("}") + 1])


def test_the_sources_are_those_of_the_module_that_was_run(base):
    assert list(sources(base, SCALED)) == ["scaled"]
    text = re.sub("<[^>]+>", "", sources(base, SCALED)["scaled"])
    assert text.startswith("def scaled(x: int)")
    assert text.endswith("return FACTOR * x")
    page = base.page("papers/attention/scaled")
    assert 'data-module="zoo.attention.scaled" data-name="scaled"' in page
    assert "src/zoo/attention/scaled.py, lines 6–15" in page


def test_what_no_page_imports_is_in_no_script(base):
    assert "assets/source/zoo.words.plain.js" not in base.files()


def test_page_and_script_follow_the_source(site):
    site.build(strict=True)
    edit(site.root / "src/zoo/attention/scaled.py", "FACTOR = 2\n", "FACTOR = 2\nMORE = 3\n")
    built = site.build(strict=True)
    assert "lines 7–16" in built.page("papers/attention/scaled")
    edit(site.root / "src/zoo/attention/scaled.py", "return FACTOR * x", "return x * FACTOR")
    assert re.sub("<[^>]+>", "", sources(site.build(strict=True), SCALED)["scaled"]).endswith("return x * FACTOR")


def test_a_second_build_reads_back_what_the_first_one_made(site):
    first, second = site.build(strict=True), site.build(strict=True)
    assert second.misses == 0
    assert {k: v for k, v in first.files().items() if "search" not in k} == {
        k: v for k, v in second.files().items() if "search" not in k
    }


def test_constants_show_their_assignment(site):
    edit(site.root / "papers/attention/scaled.md", "import scaled\n", "import FACTOR, scaled\n")
    built = site.build(strict=True)
    assert sources(built, SCALED)["FACTOR"].startswith('<span class="n">FACTOR</span>')
    page = built.page("papers/attention/scaled")
    assert "What the imports bring: <code>FACTOR</code> · <code>scaled</code>" in page
    assert '<a href="../../../api/attention/scaled/"><code>FACTOR</code></a>' in page
    assert "#zoo.attention.scaled.FACTOR" not in page  # the API page does not tell of what has no docstring


def test_the_search_does_not_find_what_is_folded(base):
    index = base.files()["search/search_index.json"].decode()
    assert "doubles" in index
    assert "What the import" not in index
