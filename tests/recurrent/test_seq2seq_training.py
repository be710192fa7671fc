"""Batches of a length, the falling rate, and a decoder that reads its own words."""

import random
from itertools import islice, pairwise

import pytest
import torch

from helpers import assert_differs, assert_same, randomise
from papercode.data.sequences import END, START, copy, pairs
from papercode.decoding import greedy_search
from papercode.recurrent.fused import fused
from papercode.recurrent.seq2seq import Seq2Seq
from papercode.recurrent.seq2seq_training import buckets, exposure, free_running, halved_rate, padded
from papercode.training import train

S, T = 17, 13
SOURCE = torch.tensor([[5, 3, 9, 4, 11], [6, 8, 0, 0, 0], [7, 7, 10, 12, 0]])
TARGET = torch.tensor([[1, 4, 6, 8, 3, 9, 2], [1, 12, 2, 0, 0, 0, 0], [1, 5, 5, 7, 2, 0, 0]])


def small(seed=0):
    return randomise(Seq2Seq(S, T, 7, 2), seed, std=1.0)


# the rate


def test_the_rate_by_hand():
    epochs = [0, 4.99, 5, 5.49, 5.5, 6, 6.5, 7, 7.49]
    assert [0.7 / halved_rate(epoch) for epoch in epochs] == [1, 1, 2, 2, 4, 8, 16, 32, 32]


# buckets


def test_a_batch_holds_neighbours_in_length():
    draw = random.Random(0)
    lengths = [draw.randint(1, 50) for _ in range(103)]
    batches = buckets(lengths, 8)
    assert sorted(i for batch in batches for i in batch) == list(range(103))
    assert sorted(map(len, batches)) == [7] + [8] * 12
    spans = sorted((min(lengths[i] for i in batch), max(lengths[i] for i in batch)) for batch in batches)
    assert all(high <= low for (_, high), (low, _) in pairwise(spans))  # no two batches overlap


def test_batches_come_in_random_order():
    lengths = list(range(40))
    firsts = [batch[0] for batch in buckets(lengths, 4)]
    assert firsts != sorted(firsts)
    assert buckets(lengths, 4, seed=1) != buckets(lengths, 4, seed=0) == buckets(lengths, 4)
    # and so do sentences of the same length
    assert buckets([3] * 12, 12) != [list(range(12))]
    assert sorted(buckets([3] * 12, 12, seed=1)[0]) == list(range(12))


def test_pairs_are_sorted_by_source_then_target():
    lengths = [(2, 9), (1, 5), (2, 1), (1, 7)]
    assert sorted(buckets(lengths, 2)) == [[1, 3], [2, 0]]


def test_padding_by_hand():
    lengths = [1, 4, 2, 3]
    assert padded(lengths, [[0, 1], [2, 3]]) == 1 - 10 / 14
    assert padded(lengths, [[0], [1], [2], [3]]) == 0
    assert padded(lengths, [[0, 1, 2, 3]]) == 1 - 10 / 16


def test_buckets_hold_less_padding_than_chance():
    draw = random.Random(0)
    lengths = [draw.randint(1, 50) for _ in range(1000)]
    chance = [list(range(i, i + 20)) for i in range(0, 1000, 20)]
    assert padded(lengths, buckets(lengths, 20)) < 0.05 < 0.4 < padded(lengths, chance)


def test_a_wrong_batch():
    with pytest.raises(ValueError, match="batch=0 must be at least 1"):
        buckets([1], 0)


# running free


@pytest.mark.parametrize("seed", range(3))
def test_running_free_is_greedy_search(seed):
    model = small(seed)
    with torch.no_grad():
        logits = free_running(model, SOURCE, TARGET[:, :-1])
    found = greedy_search(model.steps(SOURCE), TARGET[:, :1], end=END, max_new=6)[:, 1:]
    for ours, theirs in zip(logits.argmax(-1).tolist(), found.tolist()):
        n = theirs.index(END) + 1 if END in theirs else 6
        assert ours[:n] == theirs[:n]


def test_never_guessing_is_teacher_forcing():
    model = small()
    assert_same(free_running(model, SOURCE, TARGET, own=0.0), model(SOURCE, TARGET))
    assert_differs(free_running(model, SOURCE, TARGET, own=1.0), model(SOURCE, TARGET))


def test_true_words_are_not_read_where_guesses_replace_them():
    model, changed = small(), TARGET.clone()
    changed[:, 1:] = 11
    assert torch.equal(free_running(model, SOURCE, TARGET), free_running(model, SOURCE, changed))
    assert not torch.equal(free_running(model, SOURCE, TARGET, own=0.5), free_running(model, SOURCE, changed, own=0.5))


def test_each_word_is_drawn_alone():
    """Half guesses: what was fed in can be told from the scores, and it is a mixture within a row."""
    model = small()
    generator = torch.Generator().manual_seed(3)
    guessed = torch.rand(TARGET.shape, generator=torch.Generator().manual_seed(3)) < 0.5
    logits = free_running(model, SOURCE, TARGET, own=0.5, generator=generator)
    fed = torch.cat([TARGET[:, :1], logits.argmax(-1)[:, :-1].where(guessed[:, 1:], TARGET[:, 1:])], 1)
    assert_same(logits, model(SOURCE, fed))
    assert 0 < guessed[:, 1:].sum() < guessed[:, 1:].numel()


def test_gradients_go_through_the_steps():
    model = small()
    free_running(model, SOURCE, TARGET, own=0.0).pow(2).sum().backward()
    found = [parameter.grad.clone() for parameter in model.parameters()]
    model.zero_grad()
    model(SOURCE, TARGET).pow(2).sum().backward()
    for ours, parameter in zip(found, model.parameters()):
        assert_same(ours, parameter.grad)


def test_a_wrong_share():
    for own in (-0.1, 1.5):
        with pytest.raises(ValueError, match=f"own={own} must be between 0 and 1"):
            free_running(small(), SOURCE, TARGET, own=own)


# exposure


def test_exposure_of_one_who_says_the_same_word_always():
    model = randomise(Seq2Seq(S, T, 7, 2, bias=True))
    model.output.bias.data[5] = 100
    found = exposure(model, SOURCE, torch.tensor([[1, 5, 5, 5], [1, 5, 0, 0], [1, 7, 5, 0]]))
    for shares in (found.forced, found.free):
        assert_same(shares, torch.tensor([2 / 3, 2 / 2, 1 / 1]))
    assert found.whole_forced == found.whole_free == pytest.approx(2 / 3)
    model.output.bias.data[0] = 200  # that padding is padding is no merit
    found = exposure(model, SOURCE, torch.tensor([[1, 5, 5, 5], [1, 5, 0, 0], [1, 7, 5, 0]]))
    assert not found.forced.any()
    assert not found.free.any()


def test_exposure_as_counted_in_loops():
    model = small(2)
    found = exposure(model, SOURCE, TARGET)
    with torch.no_grad():
        forced = model(SOURCE, TARGET[:, :-1]).argmax(-1)
        free = free_running(model, SOURCE, TARGET[:, :-1]).argmax(-1)
    for shares, whole, guesses in (
        (found.forced, found.whole_forced, forced),
        (found.free, found.whole_free, free),
    ):
        right = [
            [guess == word for guess, word in zip(row, words) if word]
            for row, words in zip(guesses.tolist(), TARGET[:, 1:].tolist())
        ]
        expected = [sum(row[i] for row in right if len(row) > i) / sum(len(row) > i for row in right) for i in range(6)]
        assert_same(shares.double(), torch.tensor(expected, dtype=torch.float64), 1e-6)
        assert whole == sum(map(all, right)) / 3


def trained(steps, seed):
    torch.manual_seed(seed)
    model = Seq2Seq(9, 9, 32, 1, spread=0.3, run=fused)
    data = islice(pairs(copy, n_symbols=6, shortest=3, longest=6, batch=32, seed=seed), steps)
    adam = torch.optim.Adam(model.parameters(), 0.01)
    train(model, lambda s, t: -model.log_probability(s, t).mean(), data, adam, clip=5.0)
    return model


@pytest.mark.parametrize("seed", range(3))
def test_whole_sentences_do_not_suffer(seed):
    """Up to its first mistake a model reads the true words either way. Some targets are what it says itself."""
    model = randomise(Seq2Seq(S, T, 7, 2, bias=True), seed, std=1.0)
    model.output.bias.data[[0, END]] = -100  # all say six words
    source = torch.randint(3, S, (40, 5), generator=torch.Generator().manual_seed(seed))
    own = greedy_search(model.steps(source), torch.full((40, 1), START), end=END, max_new=6)
    wrong = torch.arange(40) % 4 == 0
    target = own.clone()
    target[wrong, 2] = torch.where(own[wrong, 2] == 5, 6, 5)
    found = exposure(model, source, target)
    assert found.whole_forced == found.whole_free == 0.75
    assert found.forced[0] == found.free[0] == 1
    assert found.forced[1] == found.free[1] == 0.75
    assert not torch.equal(found.forced, found.free)


def test_words_after_a_mistake_suffer():
    model = trained(150, 0)
    source, target = next(pairs(copy, n_symbols=6, shortest=6, longest=6, batch=300, seed=99))
    found = exposure(model, source, target)
    assert found.whole_forced == found.whole_free < 0.98
    assert (found.forced - found.free)[2:].mean() > 0.01


def test_only_real_words_count():
    model = trained(30, 0)
    source, target = next(pairs(copy, n_symbols=6, shortest=3, longest=6, batch=50, seed=99))
    found = exposure(model, source, target)
    longer = exposure(model, source, torch.nn.functional.pad(target, (0, 1)))
    assert_same(found.forced, longer.forced[:-1], 1e-6)
    assert found.whole_free == longer.whole_free
    assert START not in target[:, 1:]
