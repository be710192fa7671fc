"""Reading times: by hand, and on the pages."""

import pytest

from papercode.site.passes import passes, passes_line, seconds
from tiny import PLAIN, SCALED, block, note_text

PARTS = {
    "words": ("one two three four " * 55, 60),  # 220 words
    "words in Chinese": ("注意力机制" * 32, 60 * 100 / 220),  # 160 characters
    "a formula in a line is a word": ("$y = W x + b$ " * 22, 6),
    "a displayed formula": ("\n$$\ny = W x\n\n+ b\n$$\n", 15),
    "an address is not read": ("[word](https://example.org/a/long/address.html) [word][papercode.a.b]", 2 * 60 / 220),
    "code, but for its empty lines": ("```python\na = 1\n\nb = 2\n```\n", 6),
    "a claim": ('```pycon exec="on"\n>>> 1 + 1\n2\n```\n', 6),
    "a figure, not its folded code": ('```python exec="on" html="on"\na = 1\nb = 2\n```\n', 30),
    "nothing": ("\n\n", 0),
}


@pytest.mark.parametrize(("text", "expected"), PARTS.values(), ids=PARTS)
def test_each_part_costs_what_the_page_on_reading_says(text, expected):
    assert seconds(text) == pytest.approx(expected)


def test_parts_add_up():
    assert seconds("\n\n".join(text for text, _ in PARTS.values())) == pytest.approx(sum(s for _, s in PARTS.values()))


def test_the_costs_are_those_that_readers_are_told(request):
    told = " ".join((request.config.rootpath / "docs/reading.md").read_text("utf-8").split())
    assert "220 words a minute, 15 seconds a displayed formula, 30 a figure and 3 a line of code" in told


def test_each_pass_is_timed_on_its_own():
    text = note_text("k", "m", "T", First="word " * 440, Problem="word " * 1100, Claim="word " * 2200)
    found = passes(text)
    assert [(each.name, each.minutes) for each in found] == [("First pass", 2), ("Second pass", 5), ("Third pass", 10)]


def test_a_pass_takes_at_least_a_minute():
    assert [each.minutes for each in passes(PLAIN)] == [1, 1, 1]


def test_a_draft_shows_the_passes_it_has():
    draft = PLAIN[: PLAIN.index("## Third")]
    assert [each.name for each in passes(draft)] == ["First pass", "Second pass"]
    assert passes("# A page\n\nwithout passes\n") == []


def test_headings_in_code_begin_no_pass():
    text = block(
        """
        ## First pass — is it for me?

        ```markdown
        ## Second pass — what does it say?
        ```
        """
    )
    assert [each.name for each in passes(text)] == ["First pass"]


def test_the_line_of_links_names_each_pass():
    lines = passes_line(passes(SCALED)).split("\n")
    assert "[First pass](#first-pass-is-it-for-me) 1 min · [Second](#second-pass-what-does-it-say) 1 min" in lines[0]
    assert passes_line([]) == ""


def test_the_page_links_to_each_pass_where_it_is_and_headings_stay_as_they_are(base):
    html = base.page("papers/attention/scaled")
    for each in passes(SCALED):
        assert f'id="{each.anchor}"' in html
        assert html.count(f'href="#{each.anchor}"') == 4  # above the text, in margin and menu, at the heading
        assert f'<span class="md-ellipsis">{each.name}</span><span class="pass-time">{each.minutes} min</span>' in html
    assert ">Second pass — what does it say?<" in html


def test_other_pages_have_a_plain_table_of_contents(base):
    html = base.page("api/attention/scaled")
    assert "pass-time" not in html
    assert 'class="passes"' not in html


def test_times_change_with_the_note(site):
    path = site.root / "papers/words/plain.md"
    path.write_text(path.read_text("utf-8").replace("About verdict", "word " * 2200 + "About verdict"), "utf-8")
    html = site.build(strict=True).page("papers/words/plain")
    assert '<span class="pass-time">10 min</span>' in html


def test_the_search_does_not_find_the_line_of_links(base):
    index = base.files()["search/search_index.json"].decode()
    assert "is it for me" in index
    assert "Second</a> 1 min" not in index
    assert "Second 1 min" not in index
