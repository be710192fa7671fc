import logging
import re

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from markdown import Markdown

from papercode.site.bibliography import load_bibliography
from papercode.site.citations import CitationExtension, cited_keys

BIB = """
@article{vaswani2017attention, title={Attention "Is" <All> You Need}, author={Vaswani, A and Shazeer, N and Parmar, N},
  year=2017, journal={NIPS}}
@article{li2021prefix, title={Prefix-Tuning}, author={Li, Xiang Lisa and Liang, Percy}, year=2021}
@misc{d2l, title={Dive into Deep Learning}, author={Zhang, Aston}, year=2021}
"""
# as in mkdocs.yml
EXTENSIONS = [
    "abbr", "admonition", "attr_list", "def_list", "footnotes", "md_in_html", "tables", "toc", "pymdownx.arithmatex",
    "pymdownx.details", "pymdownx.highlight", "pymdownx.inlinehilite", "pymdownx.superfences", "pymdownx.tabbed",
]  # fmt: skip
V = "Vaswani et al."
VASWANI_TITLE = "A Vaswani, N Shazeer and N Parmar (2017). Attention &quot;Is&quot; &lt;All&gt; You Need. NIPS."


@pytest.fixture(scope="module")
def bibliography(tmp_path_factory):
    path = tmp_path_factory.mktemp("bib") / "references.bib"
    path.write_text(BIB, "utf-8")
    return load_bibliography(path)


@pytest.fixture(scope="module")
def render(bibliography):
    def to_html(text, missing=lambda key: None, **options):
        extension = CitationExtension(bibliography=bibliography, missing=missing, **options)
        configs = {"pymdownx.arithmatex": {"generic": True}}
        return Markdown(extensions=[*EXTENSIONS, extension], extension_configs=configs).convert(text)

    return to_html


def plain(html):
    """What a reader sees."""
    return re.sub("<[^>]+>", "", html)


# rendering


def test_a_link_with_the_full_reference(render):
    assert render("See [@vaswani2017attention].") == (
        '<p>See <span class="citations">(<a class="citation" href="bibliography/#vaswani2017attention" '
        f'title="{VASWANI_TITLE}">Vaswani et al., 2017</a>)</span>.</p>'
    )


def test_in_running_text(render):
    assert render("@li2021prefix tune.") == (
        '<p><a class="citation" href="bibliography/#li2021prefix" '
        'title="Xiang Lisa Li and Percy Liang (2021). Prefix-Tuning.">Li and Liang (2021)</a> tune.</p>'
    )


@pytest.mark.parametrize(
    ("markdown", "text"),
    [
        ("[@vaswani2017attention; @li2021prefix]", f"({V}, 2017; Li and Liang, 2021)"),
        ("[@vaswani2017attention;@li2021prefix ; @d2l]", f"({V}, 2017; Li and Liang, 2021; Zhang, 2021)"),
        ("[ @vaswani2017attention ]", f"({V}, 2017)"),
        ("[@vaswani2017attention, sec. 3.2]", f"({V}, 2017, sec. 3.2)"),
        ("[@vaswani2017attention, sec. 3.2; @li2021prefix, p. 4]", f"({V}, 2017, sec. 3.2; Li and Liang, 2021, p. 4)"),
        ("[@vaswani2017attention,\neq. *1*;\n@li2021prefix]", f"({V}, 2017, eq. 1; Li and Liang, 2021)"),
        ("[@li2021prefix][@d2l]", "(Li and Liang, 2021)(Zhang, 2021)"),
        ("as [@li2021prefix]: next", "as (Li and Liang, 2021): next"),
        ("as [@li2021prefix][^1]\n\n[^1]: X", "as (Li and Liang, 2021)1\n\n\n\n\nX&#160;&#8617;\n\n\n"),
        ("(see @li2021prefix, @d2l.)", "(see Li and Liang (2021), Zhang (2021).)"),
        ("*@li2021prefix* _@li2021prefix_ **@li2021prefix**", "Li and Liang (2021) " * 2 + "Li and Liang (2021)"),
        ("“@li2021prefix”—@li2021prefix’s", "“Li and Liang (2021)”—Li and Liang (2021)’s"),
        ("the @li2021prefix-like method", "the Li and Liang (2021)-like method"),
        ("@li2021prefix: yes", "Li and Liang (2021): yes"),
        ("# On @li2021prefix", "On Li and Liang (2021)"),
        ("如@li2021prefix所示[@d2l]。", "如Li and Liang (2021)所示(Zhang, 2021)。"),
        ("a ` b\n\n@d2l ` c", "a ` b\nZhang (2021) ` c"),
        ("\\`@d2l`", "`Zhang (2021)`"),
        ("<!-- ` -->\n@d2l `x`", "\nZhang (2021) x"),
        ("```\nx\n```\n    @d2l", "x\n\n    Zhang (2021)"),
        ("x[^1]\n\n[^1]: @d2l", "x1\n\n\n\n\nZhang (2021)&#160;&#8617;\n\n\n"),
        ("| a |\n|---|\n| [@li2021prefix; @d2l] |", "\n\n\na\n\n\n\n\n(Li and Liang, 2021; Zhang, 2021)\n\n\n"),
        ('!!! note "After @d2l"\n\n    [@d2l]', "\nAfter Zhang (2021)\n(Zhang, 2021)\n"),
    ],
)
def test_text(render, bibliography, markdown, text):
    html = render(markdown)
    assert plain(html) == text
    assert len(cited_keys(markdown, bibliography)) == html.count('class="citation"')


def test_locators_may_hold_math_and_code(render):
    html = render("[@li2021prefix, the $a;b$ of `c;d`]")
    assert r'</a>, the <span class="arithmatex">\(a;b\)</span> of <code>c;d</code>)' in html


@pytest.mark.parametrize(
    "markdown",
    [
        "`@li2021prefix` and `[@li2021prefix]`",
        "```python\n@li2021prefix\n```",
        "```\n[@li2021prefix]\n```",
        "    [@li2021prefix]\n    @li2021prefix",
        "!!! note\n\n    ```\n    @li2021prefix\n    ```",
        "user@li2021prefix and jane.doe@li2021prefix.org",
        "<jane@li2021prefix.org>",
        "https://example.org/@li2021prefix and https://example.org/?q=@li2021prefix",
        "[x](https://example.org/@li2021prefix)",
        "[x](<https://example.org/a b@li2021prefix> 't')",
        "![x](https://example.org/@li2021prefix.png)",
        "[x]\n\n[x]: https://example.org/@li2021prefix",
        '<a href="https://example.org/@li2021prefix">x</a>',
        "@dataclass and @property and @media",
        "snake_@li2021prefix",
        '<b title="@li2021prefix">x</b>',
        "@li2021prefix@example.org",
        "@li2021prefix/package",
        r"\@li2021prefix",
        "<!-- @li2021prefix -->",
        "$@li2021prefix$",
        "[text @li2021prefix](https://example.org)",
        "[@li2021prefix](https://example.org)",
        "@ li2021prefix and [@ li2021prefix]",
    ],
)
def test_what_is_no_citation(render, bibliography, markdown):
    found = []
    html = render(markdown, missing=found.append)
    assert "citation" not in html
    assert found == []
    assert cited_keys(markdown, bibliography) == []


def test_control_the_same_key_is_a_citation_elsewhere(render):
    assert 'class="citation"' in render("@li2021prefix")


def test_an_escaped_sign_loses_its_backslash(render):
    assert render(r"\@li2021prefix") == "<p>@li2021prefix</p>"


def test_unknown_keys_are_shown_and_reported(render):
    found = []
    html = render("[@nobody; @d2l, p. 3] and @smith2020what-based, not @someone", missing=found.append)
    assert '(<span class="citation missing">@nobody?</span>; <a' in html
    assert '<span class="citation missing">@smith2020what?</span>-based, not @someone' in html
    assert found == ["nobody", "smith2020what"]


def test_unknown_keys_are_logged_where_nobody_listens(bibliography, caplog):
    with caplog.at_level(logging.WARNING):
        Markdown(extensions=[CitationExtension(bibliography=bibliography)]).convert("[@nobody]")
    assert [r.getMessage() for r in caplog.records] == [
        "the bibliography has no nobody; add the entry or correct the key"
    ]


def test_the_page_or_a_function_gives_the_address(render):
    assert 'href="../refs.html#d2l"' in render("@d2l", page="../refs.html")
    assert 'href="/there/d2l?a&amp;b"' in render("@d2l", link=lambda key: f"/there/{key}?a&b")


def test_registered_for_mkdocs_by_name_with_a_path(tmp_path):
    path = tmp_path / "x.bib"
    path.write_text(BIB, "utf-8")
    configs = {"papercode_citations": {"bibliography": str(path)}}
    assert "Zhang (2021)" in Markdown(extensions=["papercode_citations"], extension_configs=configs).convert("@d2l")


def test_an_unknown_option_is_refused(bibliography):
    with pytest.raises(KeyError, match="hook"):
        CitationExtension(bibliography=bibliography, hook=print)


def test_one_extension_serves_several_converters(bibliography):
    extension = CitationExtension(bibliography=bibliography)
    first, second = Markdown(extensions=[extension]), Markdown(extensions=[extension])
    assert first.convert("@d2l") == second.convert("@d2l")
    assert "Zhang (2021)" in first.reset().convert("@d2l")


# finding


def test_cited_keys_with_lines(bibliography):
    text = """---
key: "@front2020matter"
---
[@vaswani2017attention; @li2021prefix, p. 3] and

* @li2021prefix,
  @someone, @d2l; [@nobody]

```
@fence2020d
```

    @code2020d

!!! note

    ```
    @fence2020d
    ```

    @smith2020what
"""
    assert cited_keys(text, bibliography) == [
        ("vaswani2017attention", 4),
        ("li2021prefix", 4),
        ("li2021prefix", 6),
        ("d2l", 7),
        ("nobody", 7),
        ("smith2020what", 21),
    ]


def test_without_a_bibliography_only_what_looks_like_a_key_is_found_in_running_text():
    assert cited_keys("@d2l, [@d2l] and @li2021prefix") == [("d2l", 1), ("li2021prefix", 1)]


def test_code_may_hold_what_opens_a_comment_and_the_other_way_round(bibliography):
    assert cited_keys("`<!--` @d2l `-->`", bibliography) == [("d2l", 1)]
    assert cited_keys("<!-- ` -->\n\n@d2l `code`", bibliography) == [("d2l", 3)]


KEYS = ("@li2021prefix", "@d2l", "[@d2l]", "[@d2l; @li2021prefix, p. 2]", "@nobody", "@smith2020what", "[@nobody]")
WRAPS = ("{}", "*{}*", "**a {}** b", "`{}`", "({})", "“{}”", "a {}, b", "x{}", "[{} t](http://h/@d2l)", "<b>{}</b>")
FOOTNOTE = "[^1]: {}"
BLOCKS = (
    "{}", "# {}", "- {}\n- b", "- a\n\n    {}", "> {}", "!!! note\n\n    {}", '??? question "{}"\n\n    b', "    {}",
    "```\n{}\n```", "~~~ python\n{}\n~~~", "1. {}", "| {} | b |\n|---|---|\n| c | d |", "<!-- {} -->", FOOTNOTE,
    "!!! a\n\n    - b\n\n        {}\n\n            {}",
)  # fmt: skip


@settings(deadline=None)
@given(st.lists(st.tuples(st.sampled_from(BLOCKS), st.sampled_from(WRAPS), st.sampled_from(KEYS)), max_size=5))
def test_finds_what_is_rendered(render, bibliography, parts):
    """The scan and the renderer agree on every page made of these parts."""
    assume(sum(block == FOOTNOTE for block, _, _ in parts) < 2)  # a footnote defined twice is rendered once
    text = "\n\n---\n\n".join(block.replace("{}", wrap.format(key)) for block, wrap, key in parts)
    html = render(f"{text}\n\nSee[^1]", link=lambda key: key)
    rendered = re.findall(r'<a class="citation" href="([^"]+)"', html) + re.findall(r">@(\w+)\?</span>", html)
    found = cited_keys(text, bibliography)
    assert sorted(key for key, _ in found) == sorted(rendered)
    lines = text.split("\n")
    assert all(f"@{key}" in lines[line - 1] for key, line in found)
