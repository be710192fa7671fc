"""The picture of the lineage, on the real collection: nothing overlaps, nothing is out of time, nothing is left out."""

import dataclasses
from itertools import combinations

import pytest
from matplotlib.font_manager import FontProperties
from matplotlib.textpath import TextToPath

from papercode.site.collection import Paper
from papercode.site.entry import Entry
from papercode.site.lineage_layout import GAP, GUTTER, MARGIN, ROW, WIDTH, YEAR, Place, label_width, layout
from papercode.site.notes import FAMILIES
from papercode.site.project import Project
from tiny import ROOT


@pytest.fixture(scope="module")
def collection():
    return Project(ROOT).collection


@pytest.fixture(scope="module")
def picture(collection):
    return layout(collection)


def paper(key, family="attention", published=(2015, 6), builds_on=(), name=None, **more):
    year, month = published
    fields = {"month": str(month)} if month else {}
    entry = Entry(key, "misc", key, (), year, "", fields, 1, "")
    return Paper(key, name or key, family, "Brings it.", tuple(builds_on), entry, **more)


def test_every_paper_has_one_place_in_the_lane_of_its_family(collection, picture):
    assert list(picture.places) == list(collection)
    assert [lane.name for lane in picture.lanes] == [
        f for f in FAMILIES if any(p.family == f for p in collection.values())
    ]
    lanes = {lane.name: lane for lane in picture.lanes}
    for key, place in picture.places.items():
        lane = lanes[collection[key].family]
        assert lane.start + ROW / 2 <= place.y <= lane.start + lane.size - ROW / 2, key
    for above, below in zip(picture.lanes, picture.lanes[1:], strict=False):
        assert above.start + above.size == pytest.approx(below.start)
    assert picture.lanes[-1].start + picture.lanes[-1].size == pytest.approx(picture.height)


def test_later_is_further_right_and_within_its_year(collection, picture):
    years = {year.name: year for year in picture.years}
    before = 0.0
    for key, place in picture.places.items():
        assert place.x >= before, key
        before = place.x
        year = years[str(collection[key].published[0])]
        assert year.start < place.x < year.start + year.size, key
    assert list(years) == sorted(years)


def test_no_label_touches_another_or_leaves_the_picture(picture):
    places = picture.places
    for one, other in combinations(places, 2):
        a, b = places[one], places[other]
        if abs(a.y - b.y) < ROW - 1e-6:
            assert a.right + GAP <= b.left + 1e-6 or b.right + GAP <= a.left + 1e-6, (one, other)
    assert all(GUTTER <= place.left < place.x < place.right <= WIDTH for place in places.values())


def test_labels_are_given_the_room_that_a_wide_font_needs(collection):
    measure, font = TextToPath(), FontProperties(family="DejaVu Sans", size=100)
    for name in (p.name for p in collection.values()):
        needed = measure.get_text_width_height_descent(name, font, False)[0] / 100
        assert needed - 0.1 <= label_width(name) <= 1.25 * needed + 0.4, name


def test_a_year_is_as_wide_as_it_has_papers_but_holds_its_number(collection, picture):
    counts = {y.name: sum(str(p.published[0]) == y.name for p in collection.values()) for y in picture.years}
    assert all(count > 0 for count in counts.values())
    assert sum(year.size for year in picture.years) == pytest.approx(WIDTH - GUTTER - MARGIN)
    assert min(year.size for year in picture.years) == YEAR
    wide = [year.size / counts[year.name] for year in picture.years if year.size > YEAR]
    assert len(wide) > 3
    assert wide == pytest.approx([wide[0]] * len(wide))


def test_lines_are_the_lineage_and_solid_where_the_code_imports(collection, picture):
    found = {(edge.older, edge.newer): edge.code for edge in picture.edges}
    assert len(found) == len(picture.edges)
    assert found == {(old, key): old in p.imports for key, p in collection.items() for old in p.builds_on}
    assert found["vaswani2017attention", "devlin2019bert"]
    assert not found["houlsby2019parameter", "hu2022lora"]


def test_lineage_goes_forward_in_time(collection, picture):
    backward = {
        (edge.older, edge.newer)
        for edge in picture.edges
        if collection[edge.older].published > collection[edge.newer].published
    }
    # the journal version of BERT-wwm adds RoBERTa-wwm-ext to the preprint, which is a month older than RoBERTa
    assert backward == {("liu2019roberta", "cui2021pretraining")}


def test_the_picture_depends_on_the_papers_only(collection, picture):
    assert layout(dict(reversed(collection.items()))) == picture


def test_the_older_half_of_a_lane_is_labelled_on_the_left():
    keys = ("a", "b", "c", "d")
    places = layout({key: paper(key, published=(2010 + n, 6)) for n, key in enumerate(keys)}).places
    assert [places[key].before for key in keys] == [True, True, False, False]
    assert len({place.y for place in places.values()}) == 1
    long = {key: paper(key, published=(2015, 5 + n), name="x" * 30) for n, key in enumerate(keys)}
    wide = layout(long).places
    assert [wide[key].before for key in keys] == [True, True, False, False]
    assert len({place.y for place in wide.values()}) == 2


def test_a_label_that_would_leave_the_picture_stands_on_the_other_side():
    first, last = "f" + "o" * 30, "l" + "o" * 30
    places = layout({first: paper(first, published=(1990, 1)), last: paper(last, published=(2020, 12))}).places
    assert not places[first].before
    assert places[last].before
    assert isinstance(places[first], Place)


def test_an_unknown_month_is_the_beginning_and_an_unknown_year_has_no_place():
    papers = [paper("a", published=(2015, 0)), paper("b", published=(2015, 1)), paper("c", published=(2015, 12))]
    unknown = [dataclasses.replace(paper("d"), entry=None, builds_on=("a",)), paper("e", published=(0, 0))]
    picture = layout({p.key: p for p in [*unknown, *papers]})
    assert list(picture.places) == ["a", "b", "c"]
    assert picture.places["a"].x == picture.places["b"].x < picture.places["c"].x
    assert not picture.edges


def test_nothing_gives_an_empty_picture():
    picture = layout({})
    assert (picture.years, picture.lanes, picture.edges) == ((), (), ())
    assert not picture.places
