"""The block under a note's header: what it builds on, and what builds on it."""

import re

import pytest

from papercode.site.neighbourhood import SHOWN, neighbourhood
from papercode.site.project import Project
from tiny import edit

LISTED = "late{n}: {{name: Late {n}, family: decoders, contribution: Comes late., builds_on: [{on}]}}\n"
ENTRY = "\n@misc{{late{n}, title={{Late}}, author={{L, L}}, year={{20{n:02d}}}}}\n"


@pytest.fixture
def shown(root):
    def of(key):
        project = Project(root)
        return neighbourhood(project.by_key[key], project)

    return of


def late(root, count, on):
    """So many listed papers that build on `on`, from 2031 on."""
    numbers = range(31, 31 + count)
    (root / "papers/listed.yaml").write_text("".join(LISTED.format(n=n, on=on) for n in numbers), "utf-8")
    with (root / "references.bib").open("a", encoding="utf-8") as file:
        file.write("".join(ENTRY.format(n=n) for n in numbers))


def items(text):
    """Each paper: whether its line is solid, its name, where it leads."""
    return [(bool(code), name, to) for code, name, to in re.findall(r"<li( class=code)?[^>]*>\[(.*?)\]\((.*?)\)", text)]


def test_shows_both_sides_with_the_kind_of_their_lines(shown, root):
    late(root, 1, "second2019adapter")
    text = shown("second2019adapter")
    older, newer = text.split('class="kin-self')
    assert items(older) == [(True, "Scaled", "../attention/scaled.md")]
    assert items(newer) == [(False, "Late 31", "../../bibliography.md#late31")]
    assert ">Builds on<" in older
    assert ">Built on by<" in newer
    assert "<b>Adapter</b> <small>[on the map](../../map.md#second2019adapter)</small>" in newer
    assert re.findall(r"<small>(\d+)</small>", text) == ["2015", "2031"]
    assert "<details" not in text


def test_papers_stand_in_the_order_of_time_whatever_the_note_says(shown, root):
    edit(
        root / "papers/adaptation/adapter.md",
        "builds_on: [first2015scaled]",
        "builds_on: [first2015scaled, unknown2000x, third2013plain]",
    )
    assert [name for _, name, _ in items(shown("second2019adapter"))] == ["Plain", "Scaled"]


def test_a_side_without_papers_is_not_there(shown):
    assert items(shown("first2015scaled")) == [(True, "Adapter", "../adaptation/adapter.md")]
    assert "Builds on" not in shown("first2015scaled")
    assert "Built on by" not in shown("second2019adapter")
    assert shown("third2013plain") == ""


def test_of_many_those_with_a_note_are_shown_and_the_rest_is_folded(shown, root):
    late(root, 9, "first2015scaled")
    edit(root / "references.bib", "year = {2019}", "year = {2050}")  # the only one with a note is the last
    top, folded = shown("first2015scaled").split("<details")
    assert [name for _, name, _ in items(top)] == [*(f"Late {n}" for n in range(31, 30 + SHOWN)), "Adapter"]
    assert [name for _, name, _ in items(folded)] == [f"Late {n}" for n in range(30 + SHOWN, 40)]
    assert "<summary>Built on by 4 more</summary>" in folded


def test_titles_with_special_characters_stay_as_they_are(shown, root):
    edit(root / "papers/attention/scaled.md", "# Scaled", "# Sc*a*led_x_")
    assert "[Sc&#42;a&#42;led&#95;x&#95;](../attention/scaled.md)" in shown("second2019adapter")
    assert "<b>Sc&#42;a&#42;led&#95;x&#95;</b>" in shown("first2015scaled")
