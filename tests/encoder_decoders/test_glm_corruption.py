"""Blanks by hand and by their laws."""

import itertools
import math
import random
from collections import Counter

import pytest
import torch

from papercode.encoder_decoders.glm_corruption import (
    IGNORE,
    assemble,
    blank_out,
    collate,
    document_span,
    sentence_spans,
    short_spans,
)

MASK, START, END = 90, 91, 92
IDS = {"start": START, "end": END}
TEXT = [11, 12, 13, 14, 15, 16]


def test_by_hand_the_example_of_figure_2():
    """Six tokens, the third and the last two are blanks, the later one comes first."""
    found = blank_out(TEXT, [(2, 3), (4, 6)], mask=MASK, order=[1, 0], **IDS)
    assert found.tokens.tolist() == [11, 12, MASK, 14, MASK, START, 15, 16, START, 13]
    assert found.targets.tolist() == [IGNORE] * 5 + [15, 16, END, 13, END]
    assert found.positions.tolist() == [1, 2, 3, 4, 5, 5, 5, 5, 3, 3]
    assert found.inner.tolist() == [0, 0, 0, 0, 0, 1, 2, 3, 1, 2]
    assert found.context.item() == 5
    assert [x.shape for x in found.inputs()] == [(10,), (10,), (10,), ()]


def test_the_order_of_spans_is_the_order_given():
    spans = [(4, 6), (0, 1), (2, 3)]
    found = blank_out(TEXT, spans, mask=MASK, **IDS)
    assert found.tokens.tolist() == [MASK, 12, MASK, 14, MASK, START, 15, 16, START, 11, START, 13]
    assert found.positions.tolist()[5:] == [5, 5, 5, 1, 1, 3, 3]
    again = blank_out(TEXT, spans, mask=MASK, order=[1, 2, 0], **IDS)
    assert again.tokens.tolist()[5:] == [START, 11, START, 13, START, 15, 16]
    assert blank_out(TEXT, [(0, 6)], mask=MASK, **IDS).tokens.tolist() == [MASK, START, *TEXT]


@pytest.mark.parametrize("seed", range(20))
def test_nothing_is_lost(seed):
    """The blanks filled with what part B says give the text again, and each span's targets are its inputs, shifted."""
    draw = random.Random(seed)
    n = draw.randint(1, 60)
    text = [draw.randint(0, 80) for _ in range(n)]
    spans = short_spans(n, draw)
    found = blank_out(text, spans, mask=MASK, order=draw.sample(range(len(spans)), len(spans)), **IDS)
    a = found.context.item()
    pieces, at = {}, a
    while at < len(found.tokens):
        assert found.tokens[at] == START
        end = at + found.targets[at:].tolist().index(END)
        pieces[found.positions[at].item()] = found.targets[at:end].tolist()
        assert found.tokens[at + 1 : end + 1].tolist() == found.targets[at:end].tolist()
        assert found.inner[at : end + 1].tolist() == list(range(1, end - at + 2))
        assert len(set(found.positions[at : end + 1].tolist())) == 1
        at = end + 1
    back = [
        token
        for place, one in enumerate(found.tokens[:a].tolist(), 1)
        for token in (pieces.pop(place) if one == MASK else [one])
    ]
    assert back == text
    assert not pieces


def test_the_length_of_a_span_cannot_be_seen_from_part_a():
    short = blank_out([1, 2, 3, 4, 5, 6], [(1, 2)], mask=MASK, **IDS)
    long = blank_out([1, 2, 9, 9, 9, 3, 4, 5, 6], [(1, 5)], mask=MASK, **IDS)
    assert torch.equal(short.tokens[:6], long.tokens[:6])
    assert torch.equal(short.positions[:7], long.positions[:7])


@pytest.mark.parametrize("n", [1, 2, 3, 7, 100])
def test_short_spans_cover_enough_and_do_not_touch(n):
    for seed in range(50):
        spans = short_spans(n, random.Random(seed))
        masked = sum(end - first for first, end in spans)
        assert masked >= 0.15 * n
        assert masked - (spans[-1][1] - spans[-1][0]) < 0.15 * n  # the last was drawn last
        assert all(0 <= first < end <= n for first, end in spans)
        assert all(later[0] > earlier[1] for earlier, later in itertools.pairwise(spans))


def test_lengths_are_poisson_without_zero():
    draw = random.Random(0)
    lengths = Counter(end - first for _ in range(300) for first, end in short_spans(1000, draw))
    total = sum(lengths.values())
    for k in range(1, 8):
        law = math.exp(-3) * 3**k / math.factorial(k) / (1 - math.exp(-3))
        assert lengths[k] / total == pytest.approx(law, abs=0.01)
    assert lengths[0] == 0


def test_short_spans_stop_as_soon_as_there_is_enough():
    draw = random.Random(0)
    shares = [sum(end - first for first, end in short_spans(1000, draw)) / 1000 for _ in range(100)]
    assert 0.15 <= min(shares) <= sum(shares) / 100 < 0.153
    exact = {sum(end - first for first, end in short_spans(20, draw)) for _ in range(200)}
    assert min(exact) == 3  # 15 % of 20, no more


def test_short_spans_stand_anywhere():
    draw = random.Random(0)
    hit = Counter(i for _ in range(4000) for first, end in short_spans(10, draw, mean=1.0) for i in range(first, end))
    assert min(hit[i] for i in range(10)) / max(hit.values()) > 0.6
    touched = {edge for _ in range(200) for first, end in short_spans(10, draw) for edge in (first, end)}
    assert {0, 10} <= touched


def test_sentences_are_whole():
    lengths = [5, 3, 7, 2, 11]
    borders = [0, 5, 8, 15, 17, 28]
    sizes = []
    for seed in range(200):
        spans = sentence_spans(lengths, random.Random(seed))
        assert all(first in borders and end == borders[borders.index(first) + 1] for first, end in spans)
        assert spans == sorted(spans)
        masked = [end - first for first, end in spans]
        assert sum(masked) >= 0.15 * 28
        assert len(masked) == 1 or sum(masked) - max(masked) < 0.15 * 28
        sizes.append(len(masked))
    assert set(sizes) == {1, 2}
    assert sentence_spans([4], random.Random(0)) == [(0, 4)]


def test_the_document_span_ends_the_text():
    draw = random.Random(0)
    found = Counter(document_span(10, draw)[0] for _ in range(3000))
    assert set(found) == {(10 - k, 10) for k in range(5, 11)}
    assert min(found.values()) > 3000 / 6 * 0.8
    assert {document_span(7, draw)[0] for _ in range(100)} == {(7 - k, 7) for k in (4, 5, 6, 7)}
    assert {document_span(1, draw, least=0.0)[0] for _ in range(50)} == {(0, 1)}


def test_collate():
    one = blank_out(TEXT, [(1, 2)], mask=MASK, **IDS)
    two = blank_out(TEXT[:3], [(0, 3)], mask=MASK, **IDS)
    batch = collate([one, two], pad=7)
    assert batch.tokens.tolist()[1] == [MASK, START, 11, 12, 13, 7, 7, 7]
    assert batch.targets.tolist()[1] == [IGNORE, 11, 12, 13, END, IGNORE, IGNORE, IGNORE]
    assert batch.positions.tolist()[1] == [1, 1, 1, 1, 1, 0, 0, 0]
    assert batch.inner.tolist()[1] == [0, 1, 2, 3, 4, 0, 0, 0]
    assert batch.context.tolist() == [6, 1]
    assert torch.equal(batch.tokens[0], one.tokens)


def test_refused():
    draw = random.Random(0)
    with pytest.raises(ValueError, match=r"order=\[0, 0\] is no permutation of 2 spans"):
        blank_out(TEXT, [(0, 1), (2, 3)], mask=MASK, order=[0, 0], **IDS)
    for spans in ([(2, 2)], [(0, 3), (2, 4)], [(5, 7)], [(-1, 2)]):
        with pytest.raises(ValueError, match=r"span .* is empty, overlaps another or leaves the 6 tokens"):
            blank_out(TEXT, spans, mask=MASK, **IDS)
    for place in (-1, 6):
        with pytest.raises(ValueError, match=f"place={place} lies outside part A, which has 6 tokens"):
            assemble(TEXT, [(place, [1])], **IDS)
    for n, ratio in ((0, 0.15), (5, 0.0), (5, 1.5)):
        with pytest.raises(ValueError, match=f"need n={n} of at least 1 and ratio={ratio}"):
            short_spans(n, draw, ratio=ratio)
    for mean in (0.0, -1.0):
        with pytest.raises(ValueError, match=f"mean={mean} must be above 0"):
            short_spans(5, draw, mean=mean)
    with pytest.raises(ValueError, match="leaves no token between the spans"):
        short_spans(20, draw, ratio=1.0, mean=1.0)
    for lengths in ([], [3, 0]):
        with pytest.raises(ValueError, match=r"need lengths=.* of at least 1"):
            sentence_spans(lengths, draw)
    with pytest.raises(ValueError, match=r"least=1\.5 from 0 to 1"):
        document_span(5, draw, least=1.5)
