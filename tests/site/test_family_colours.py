"""The colours of the families: seen on both grounds, told from the next lane, and never the only sign."""

import re
from itertools import pairwise

import pytest

from papercode.site.colours import contrast, distance, parse
from papercode.site.figure_colours import CONTRAST, DIFFERENCE
from papercode.site.map_page import map_page
from papercode.site.notes import FAMILIES
from papercode.site.project import Project
from tiny import ROOT

STYLES = (ROOT / "src/papercode/site/assets/families.css").read_text("utf-8")


def colours(scheme):
    before = r'^\[data-md-color-scheme="slate"\] ' if scheme == "dark" else "^"
    found = dict(re.findall(before + r'\[data-family="(\w+)"\] \{ --family: (#\w{6}); \}', STYLES, re.MULTILINE))
    return {family: parse(value) for family, value in found.items()}


@pytest.mark.parametrize(("scheme", "ground"), [("light", "#f4f6f9"), ("dark", "#2b2e33")])
def test_families_can_be_seen_and_told_from_the_next_lane(scheme, ground):
    found = colours(scheme)
    assert list(found) == list(FAMILIES)
    assert len(set(found.values())) == len(FAMILIES)
    assert min(contrast(colour, parse(ground)) for colour in found.values()) >= CONTRAST
    for one, other in pairwise(FAMILIES):
        far, eyes = distance(found[one], found[other])
        assert far >= DIFFERENCE, (one, other, far, eyes)


def test_a_family_has_its_name_in_the_picture():
    text = map_page(Project(ROOT))
    for family in {paper.family for paper in Project(ROOT).collection.values()}:
        assert f'data-family="{family}" aria-pressed="false" disabled>{FAMILIES[family]}</button>' in text
