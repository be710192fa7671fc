import re
from html import unescape
from pathlib import Path

import markdown
import pytest
import yaml

from papercode.site.embed import HTML_FENCE, check_fences, embed
from papercode.site.runner import Outcome, Session
from tiny import FIGURE, ROOT, block

PATH = Path("papers/attention/scaled.md")
SVG = '<svg xmlns="http://www.w3.org/2000/svg" width="72pt" height="36.5pt"><rect/></svg>\n'


class Unknown(yaml.SafeLoader):
    """Reads mkdocs.yml, whose tags name Python objects."""


Unknown.add_multi_constructor("", lambda loader, suffix, node: None)


@pytest.fixture(scope="module")
def html():
    """Renders Markdown as the site does."""
    config = yaml.load((ROOT / "mkdocs.yml").read_text("utf-8"), Loader=Unknown)
    extensions, options = [], {}
    for entry in config["markdown_extensions"]:
        name, given = next(iter(entry.items())) if isinstance(entry, dict) else (entry, {})
        extensions.append(name)
        options[name] = dict(given)
    raw = {"name": HTML_FENCE, "class": "", "format": lambda source, *rest, **more: f"<div class=raw>{source}</div>"}
    options["pymdownx.superfences"] = {"custom_fences": [raw]}
    return lambda text: markdown.markdown(text, extensions=extensions, extension_configs=options)


def outcome(text, *results):
    blank = {"examples": [], "error": None, "error_line": None, "output": ""}
    return Outcome(Session.of(PATH, text), [{**blank, **result} for result in results])


def shown(text, *results):
    """The page after its run, with the figures that were stored."""
    stored = []

    def store(svg):
        stored.append(svg)
        return f"../figures/{len(stored)}.svg"

    return embed(text, outcome(text, *results), store), stored


def plain(text):
    """The words of rendered HTML."""
    return " ".join(unescape(re.sub(r"<[^>]+>", " ", text)).split())


CLAIM = '```pycon exec="on"\n>>> 1 + 1\n2\n\n>>> "x"\n\'x\'\n```\n'
PASSED = {"examples": [{"ok": True, "got": "2\n"}, {"ok": True, "got": "'x'\n"}]}


def test_a_claim_is_shown_as_written(html):
    text, stored = shown(f"Before.\n\n{CLAIM}\nAfter.\n", PASSED)
    assert stored == []
    assert "exec" not in text
    for line in CLAIM.split("\n")[1:-2]:
        assert line in text.split("\n")
    page = html(text)
    assert plain(page) == "Before. >>> 1 + 1 2 >>> \"x\" 'x' After."
    assert "language-pycon" in page or "highlight" in page


def test_a_figure_takes_the_place_of_its_source(html):
    text, stored = shown(f"Before.\n\n{FIGURE}\nAfter.\n", {"output": SVG})
    assert stored == [SVG.strip()]
    page = html(text)
    image = re.search("<img[^>]*>", page)[0]
    assert 'src="../figures/1.svg"' in image
    assert 'alt="One black square."' in image
    assert 'loading="lazy"' in image
    assert 'width="96"' in image  # pixels, of which 72 pt are 96
    assert 'height="49"' in image
    assert re.search(r"<figcaption>\s*<p>Figure 1. A square.</p>\s*</figcaption>", page)
    folded = page[page.index("<details") :]
    assert "open" not in folded.split(">")[0]
    assert "rect width" in plain(folded)  # the source
    assert plain(page).startswith("Before. Figure 1. A square. Code print")
    assert plain(page).endswith("After.")


def test_a_table_is_shown_as_html(html):
    fence = '```python exec="on" html="on" title="Table 1. It."\nprint(1)\n```\n'
    text, stored = shown(fence, {"output": "<table><tr><td>a_b_ *c* $x$</td></tr></table>\n"})
    assert stored == []
    page = html(text)
    assert "<div class=raw><table><tr><td>a_b_ *c* $x$</td></tr></table></div>" in page
    assert "Table 1. It." in page


def test_the_source_of_a_figure_can_be_left_out(html):
    text, _ = shown(FIGURE.replace('alt="', 'source="no" alt="'), {"output": SVG})
    assert "<details" not in html(text)
    assert "<img" in html(text)


def test_a_caption_stands_for_a_missing_alternative_text(html):
    text, _ = shown(FIGURE.replace(' alt="One black square."', "").replace("A square", "A [square]"), {"output": SVG})
    assert 'alt="Figure 1. A (square)."' in html(text)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ("", "<em>b</em>"),
        ('source="above"', "print"),
        ('source="below"', "print"),
        ('source="tabbed-left"', "Source"),
        ('source="tabbed-left" tabs="Code|Out"', "Out"),
        ('source="material-block"', "print"),
        ('result="text"', "*b*"),
    ],
)
def test_a_script_is_shown_as_markdown_exec_would(html, options, expected):
    fence = f'```python exec="on" {options}\nprint("*b*")\n```\n'
    page = html(shown(fence, {"output": "*b*\n"})[0])
    assert expected in page
    assert ("print" in page) == ("source" in options)


def test_fences_in_admonitions_stay_in_them(html):
    text = f"!!! note\n\n    Inside.\n\n{block(CLAIM, 4)}\n    Still inside.\n\n{block(FIGURE)}\nOutside.\n"
    text, _ = shown(text, PASSED, {"output": SVG})
    page = html(text)
    inside = page[: page.index("</div>\n<p><img")] if "</div>\n<p><img" in page else page[: page.index("<img")]
    assert "&gt;&gt;&gt;" in inside
    assert "Still inside." in inside
    assert page.rindex("Outside.") > page.index("<figure>" if "<figure>" in page else "<img")
    assert html(text).count("<img") == 1

    deep = f"- item\n\n    ??? question\n\n{block(FIGURE, 8)}\nOutside.\n"
    page = html(shown(deep, {"output": SVG})[0])
    assert (
        page.index("<ul>")
        < page.index("<details")
        < page.index("<img")
        < page.index("</details>")
        < page.index("</ul>")
    )


def test_highlighting_options_are_kept(html):
    text, _ = shown(CLAIM.replace('exec="on"', 'exec="on" hl_lines="2" title="A title"'), PASSED)
    page = html(text)
    assert '<span class="hll">' in page
    assert "A title" in page


# what went wrong


def test_a_mismatch_is_shown_below_its_fence(html):
    text = f"# T\n\n{CLAIM}\nAfter.\n"
    result = {"examples": [{"ok": False, "got": "<3>\n"}, {"ok": True, "got": ""}]}
    page = html(shown(text, result)[0])
    assert '<div class="admonition failure">' in page
    words = plain(page)
    assert "scaled.md:4 : snippet mismatch Expected: 2 Got: <3> After." in words.replace("</code>", "")
    assert words.index(">>>") < words.index("scaled.md:4")
    assert "failure" not in html(shown(text, PASSED)[0])


def test_an_error_is_shown_below_its_fence(html):
    text = f"!!! note\n\n{block(FIGURE, 4)}\n{block(CLAIM, 4)}\nAfter.\n"
    stopped = {"error": "the <process> was ended by signal 11 (SIGSEGV)", "error_line": 1, "stopped": True}
    page = html(shown(text, stopped)[0])
    words = plain(page)
    assert "scaled.md:4 : snippet failed: the <process> was ended by signal 11 (SIGSEGV)" in words
    assert "scaled.md:7 : not run, because the page stopped above" in words
    assert words.endswith("After.")
    assert ">>> 1 + 1" in words  # what was not run is still shown
    assert page.count('class="admonition failure"') == 2
    assert page.rindex("admonition failure") < page.index("After.")


def test_nothing_else_is_touched():
    text = "A line.  \n\n```python\nx\n```\n\n\ttab\n\n~~~pycon\n>>> 1\n~~~\nend \x0c"
    assert shown(text) == (text, [])


# the lint


@pytest.mark.parametrize(
    ("fence", "message"),
    [
        ('```pycon exec="on"\n>>> 1\n', "this fence is never closed"),
        ('    ```pycon exec="on"\n    >>> 1\n1\n    ```\n', "this fence is never closed"),
        ('```sh exec="on"\nls\n```', "cannot run 'sh': only pycon, python, py fences are executed"),
        ('``` {.python exec="on"}\n1\n```', "cannot run '{.python'"),
        ('```python exec="on" htlm="on"\n1\n```', "unknown fence option htlm; known are alt, exec, html"),
        ("```pycon exec=on\n>>> 1\n```", "unknown fence option on"),
        ('```pycon exec="on"\n1\n```', "a pycon fence without a `>>>` prompt checks nothing"),
        ('```pycon exec="on"\n>>> 1  # doctest: +SKIP\n```', "an example that is skipped proves nothing"),
        ('```python exec="on" html="on"\nprint(svg(f))\n```', "a figure needs a caption and a text for blind readers"),
        ('```python exec="on" html="on" title="x"\nprint(svg(f))\n```', "a figure needs a caption"),
    ],
)
def test_finds_what_is_wrong_before_running(fence, message):
    problem = next(check_fences(PATH, f"# T\n\n{fence}\n"))
    assert (problem.path, problem.line) == (PATH, 3)
    assert problem.message.startswith(message)


def test_finds_nothing_in_good_fences():
    good = [
        CLAIM,
        FIGURE,
        '```python exec="on" html="on"\nprint("<table>")\n```\n',
        "```sh\nls\n```\n",
        "```\n1\n```\n",
    ]
    good.append('```python exec="on" source="above" result="text" hl_lines="1" session="x"\n1\n```\n')
    assert list(check_fences(PATH, "\n".join(good))) == []
