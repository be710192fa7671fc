"""What may follow what: every pair of tags against what spans can be written, and the claim of the note."""

import re
from itertools import pairwise, product

import pytest
import torch

from papercode.data.tagging import bio_to_iobes
from papercode.evaluation.spans import bio_spans, conll_spans, iobes_spans
from papercode.recurrent.crf import LinearChainCRF
from papercode.recurrent.tag_constraints import bio, iobes, violations

BIO = ["O", "B-X", "I-X", "B-Y", "I-Y"]
IOBES = ["O", *(f"{letter}-{kind}" for kind in "XY" for letter in "BIES")]


def regular(path):
    """Whether a sentence is well-formed IOBES, as a regular expression says it."""
    return re.fullmatch(r"(O|S.|(B(.)(I\3)*E\3))*", "".join(tag.replace("-", "") for tag in path)) is not None


def allows(allowed, names, path):
    numbers = [names.index(tag) for tag in path]
    pairs = all(allowed.transitions[pair] for pair in pairwise(numbers))
    return bool(allowed.start[numbers[0]] and allowed.end[numbers[-1]] and pairs)


@pytest.mark.parametrize("n", [1, 2, 3, 4])
def test_bio_allows_what_both_ways_of_reading_agree_on(n):
    allowed = bio(BIO)
    # where the generous reading finds no more than the strict one
    paths = list(product(BIO, repeat=n))
    assert [allows(allowed, BIO, path) for path in paths] == [bio_spans(path) == conll_spans(path) for path in paths]


@pytest.mark.parametrize("n", [1, 2, 3, 4])
def test_iobes_allows_what_is_well_formed(n):
    allowed = iobes(IOBES)
    paths = list(product(IOBES, repeat=n))
    good = [path for path in paths if allows(allowed, IOBES, path)]
    assert good == [path for path in paths if regular(path)]
    # and nothing that BIO could say is lost
    plain = [path for path in product(BIO, repeat=n) if allows(bio(BIO), BIO, path)]
    assert sorted(tuple(bio_to_iobes(path)) for path in plain) == sorted(good)
    assert sorted(iobes_spans(path) for path in good) == sorted(bio_spans(path) for path in plain)


def test_by_hand():
    allowed = bio(["B-X", "I-X", "I-Y", "O"])
    assert allowed.transitions.tolist() == [
        [True, True, False, True],  # after B-X
        [True, True, False, True],  # after I-X
        [True, False, True, True],  # after I-Y
        [True, False, False, True],  # after O
    ]
    assert allowed.start.tolist() == [True, False, False, True]
    assert allowed.end.tolist() == [True] * 4
    assert iobes(["B-X", "I-X", "E-X", "S-X", "O"]).end.tolist() == [False, False, True, True, True]


def test_the_order_of_names_is_that_of_the_tags():
    order = torch.randperm(len(IOBES))
    names = [IOBES[i] for i in order]
    assert torch.equal(iobes(names).transitions, iobes(IOBES).transitions[order][:, order])
    assert torch.equal(iobes(names).start, iobes(IOBES).start[order])
    assert torch.equal(iobes(names).end, iobes(IOBES).end[order])


def test_violations():
    allowed = iobes(IOBES)
    number = {name: i for i, name in enumerate(IOBES)}
    rows = [["O", "B-X", "E-X", "S-Y"], ["I-X", "E-Y", "B-Y", "B-Y"], ["B-X", "E-X", "I-X", "I-Y"]]
    paths = torch.tensor([[number[tag] for tag in row] for row in rows])
    assert violations(paths[:1], allowed) == 0
    assert violations(paths[1:2], allowed) == 4  # the start, I-X E-Y, B-Y B-Y, the end
    assert violations(paths, allowed) == 4 + 3
    assert violations(paths, allowed, torch.tensor([2, 1, 2])) == 1 + 2
    assert violations(paths[:, :1], allowed, torch.tensor([1, 1, 1])) == 3


@pytest.mark.parametrize(("scheme", "names"), [(bio, BIO), (iobes, IOBES)], ids=["BIO", "IOBES"])
@pytest.mark.parametrize("seed", range(3))
def test_a_constrained_crf_breaks_no_rule_and_a_decision_for_each_word_does(scheme, names, seed):
    torch.manual_seed(seed)
    allowed = scheme(names)
    crf = LinearChainCRF(len(names), allowed=allowed)
    scores, lengths = 5 * torch.randn(13, 17, len(names)), torch.randint(1, 18, (13,))
    assert violations(crf.decode(scores, lengths)[0], allowed, lengths) == 0
    assert violations(scores.argmax(-1), allowed, lengths) > 20
    assert violations(LinearChainCRF(len(names)).decode(scores, lengths)[0], allowed, lengths) > 20


def test_the_likeliest_tag_of_each_word_may_be_forbidden_beside_the_next():
    """An I needs some B or I before it, but an O may be likelier there than either alone."""
    names = ["O", "B-X", "I-X"]
    crf = LinearChainCRF(3, allowed=bio(names))
    scores = 2 * torch.randn(1000, 6, 3)
    assert 0 < violations(crf.marginals(scores).argmax(-1), bio(names)) < 100
    assert violations(crf.decode(scores)[0], bio(names)) == 0


@pytest.mark.parametrize("names", [["O", "X"], ["B-"], ["BX"], [""], ["E-X"], ["Q-X"], ["OB"], ["B_X"]])
def test_names_that_are_none(names):
    with pytest.raises(
        ValueError, match=rf"names={re.escape(str(names))} must each be O or one of B, I, a dash and a type"
    ):
        bio(names)
    if names != ["E-X"]:
        with pytest.raises(ValueError, match=r"must each be O or one of B, I, E, S, a dash and a type"):
            iobes(names)
