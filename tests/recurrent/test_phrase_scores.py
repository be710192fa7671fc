"""Phrase scores: the sum word by word, whatever the batches; the log-linear model by hand."""

import math
import random
from itertools import product

import pytest
import torch

from helpers import randomise
from papercode.data.sequences import END, START
from papercode.recurrent.phrase_scores import log_linear, log_probability, scores
from papercode.recurrent.rnn_encoder_decoder import RNNEncoderDecoder

VS, VT = 17, 13


def model():
    return randomise(RNNEncoderDecoder(VS, VT, e=4, d=11, k=5, start=START))


def phrase_pairs(n=23):
    draw = random.Random(0)

    def phrase(v):
        return tuple(draw.randrange(3, v) for _ in range(draw.randint(1, 6)))

    sources = [phrase(VS) for _ in range(7)]
    return [(draw.choice(sources), phrase(VT)) for _ in range(n)]


def one_by_one(model, source, target):
    """log p word by word, without batches or padding."""
    c = model.encode(torch.tensor([[*source, END]]))
    total, step = 0.0, model.steps(c)
    tokens = [START]
    for word in (*target, END):
        total += step(torch.tensor([tokens]), torch.tensor([0])).log_softmax(-1)[0, word].item()
        tokens.append(word)
    return total


@pytest.mark.parametrize("batch", [1, 4, 64])
def test_scores_do_not_depend_on_batches(batch):
    ours, pairs = model(), phrase_pairs()
    found = scores(ours, pairs, start=START, end=END, batch=batch)
    with torch.no_grad():
        assert found == pytest.approx([one_by_one(ours, *pair) for pair in pairs], abs=1e-9)
    assert len(set(found)) == len(pairs)


def test_each_source_is_encoded_once():
    ours, pairs = model(), phrase_pairs()
    encoded, encode = [], ours.encode

    def counted(source, lengths):
        encoded.extend(map(tuple, source.tolist()))
        return encode(source, lengths)

    ours.encode = counted
    scores(ours, pairs, start=START, end=END)
    assert len(encoded) == len({source for source, _ in pairs}) < len(pairs)


@torch.no_grad()
def test_all_phrases_together_have_probability_one():
    ours = randomise(RNNEncoderDecoder(VS, 5, e=4, d=11, k=5, start=START))
    c = ours.encode(torch.tensor([[3, 4]]))

    def total(words, *last):
        rows = torch.tensor([(START, *row, *last) for row in product((0, 1, 3, 4), repeat=words)])
        return log_probability(ours, c.expand(len(rows), -1), rows).exp().sum().item()

    ended = [total(words, END) for words in range(3)]
    assert sum(ended) + total(3) == pytest.approx(1, abs=1e-9)  # those of three words have not ended
    assert sum(ended) < 0.999


def test_padding_does_not_count():
    ours, c = model(), torch.randn(2, 11, dtype=torch.float64)
    target = torch.tensor([[START, 5, END, 0, 0], [START, 4, 6, 7, END]])
    found = log_probability(ours, c, target, torch.tensor([3, 5]))
    assert found[0].item() == pytest.approx(log_probability(ours, c[:1], target[:1, :3])[0].item())
    assert found[1].item() == pytest.approx(log_probability(ours, c[1:], target[1:])[0].item())
    assert log_probability(ours, c, target)[0].item() < found[0].item() - 0.1


def test_the_log_linear_model_by_hand():
    """Sums 2 · 1 + 1 · log 3 - 2 and 2 · 0 + 0: weights 3 and 1."""
    features = {(5,): (1.0, math.log(3) - 2), (6, 7): (0.0, 0.0)}
    found = log_linear(features, (2.0, 1.0))
    assert [math.exp(value) for value in found.values()] == pytest.approx([0.75, 0.25])
    assert list(found) == [(5,), (6, 7)]


def test_errors():
    with pytest.raises(ValueError, match=r"\(6,\) has 2 features, but there are 1 weights"):
        log_linear({(5,): (1.0,), (6,): (1.0, 2.0)}, (1.0,))
    with pytest.raises(ValueError, match="batch=0 must be at least 1"):
        scores(model(), phrase_pairs(), start=START, end=END, batch=0)
    assert scores(model(), [], start=START, end=END) == []
