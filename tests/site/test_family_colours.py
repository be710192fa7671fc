"""The colours of the families: seen on both grounds, told from the next lane, and never the only sign."""

import re
from itertools import pairwise, product

import numpy as np
import pytest

from papercode.site.map_page import map_page
from papercode.site.notes import FAMILIES
from papercode.site.project import Project
from tiny import ROOT

STYLES = (ROOT / "src/papercode/site/assets/families.css").read_text("utf-8")


def colours(scheme):
    before = r'^\[data-md-color-scheme="slate"\] ' if scheme == "dark" else "^"
    found = dict(re.findall(before + r'\[data-family="(\w+)"\] \{ --family: (#\w{6}); \}', STYLES, re.MULTILINE))
    return {family: np.array([int(value[n : n + 2], 16) / 255 for n in (1, 3, 5)]) for family, value in found.items()}


def linear(colour):
    return np.where(colour <= 0.04045, colour / 12.92, ((colour + 0.055) / 1.055) ** 2.4)


def contrast(one, other):
    a, b = sorted((linear(np.asarray(c)) @ [0.2126, 0.7152, 0.0722] for c in (one, other)), reverse=True)
    return (a + 0.05) / (b + 0.05)


# how linear RGB looks without one of the three cones (Machado, Oliveira and Fernandes, 2009)
SIGHT = {
    "all cones": [1, 0, 0, 0, 1, 0, 0, 0, 1],
    "protan": [0.152286, 1.052583, -0.204868, 0.114503, 0.786281, 0.099216, -0.003882, -0.048116, 1.051998],
    "deutan": [0.367322, 0.860646, -0.227968, 0.280085, 0.672501, 0.047413, -0.01182, 0.04294, 0.968881],
    "tritan": [1.255528, -0.076749, -0.178779, -0.078411, 0.930809, 0.147602, 0.004733, 0.691367, 0.3039],
}


def oklab(rgb):
    cones = np.array([[0.41222, 0.53633, 0.05145], [0.2119, 0.6807, 0.1074], [0.0883, 0.28172, 0.62998]]) @ rgb
    axes = np.array([[0.21045, 0.79362, -0.00407], [1.978, -2.42859, 0.45059], [0.0259, 0.78277, -0.80868]])
    return axes @ np.cbrt(cones.clip(0))


@pytest.mark.parametrize(("scheme", "ground"), [("light", (0.957, 0.965, 0.976)), ("dark", (0.17, 0.18, 0.2))])
def test_families_can_be_seen_and_told_from_the_next_lane(scheme, ground):
    found = colours(scheme)
    assert list(found) == list(FAMILIES)
    assert len({tuple(colour) for colour in found.values()}) == len(FAMILIES)
    assert min(contrast(colour, ground) for colour in found.values()) >= 3
    for (one, other), sight in product(pairwise(FAMILIES), SIGHT):
        a, b = (
            oklab(np.clip(np.reshape(SIGHT[sight], (3, 3)) @ linear(found[family]), 0, 1)) for family in (one, other)
        )
        assert np.linalg.norm(a - b) > 0.1, (one, other, sight)


def test_a_family_has_its_name_in_the_picture():
    text = map_page(Project(ROOT))
    for family in {paper.family for paper in Project(ROOT).collection.values()}:
        assert f'data-family="{family}" aria-pressed="false" disabled>{FAMILIES[family]}</button>' in text
