"""Pairs of sequences: what they hold, and that a seed is enough to have them again."""

from itertools import islice

import pytest
import torch

from papercode.data.sequences import END, FIRST, PAD, START, copy, pad, pairs, reverse


def test_pad_by_hand():
    assert pad([[5, 6, 7], [8]]).tolist() == [[5, 6, 7], [8, PAD, PAD]]


@pytest.mark.parametrize("rule", [copy, reverse, sorted, lambda symbols: symbols + symbols])
def test_targets_follow_the_rule(rule):
    lengths = set()
    for source, target in islice(pairs(rule, n_symbols=5, shortest=2, longest=6, batch=13), 7):
        assert source.shape[0] == target.shape[0] == 13
        for s, t in zip(source.tolist(), target.tolist(), strict=True):
            symbols = [x for x in s if x != PAD]
            assert s == symbols + [PAD] * (len(s) - len(symbols))
            assert [x for x in t if x != PAD] == [START, *rule(symbols), END]
            assert set(symbols) <= set(range(FIRST, FIRST + 5))
            lengths.add(len(symbols))
    assert lengths == set(range(2, 7))


def test_rules_by_hand():
    assert copy([3, 4, 5]) == [3, 4, 5]
    assert reverse([3, 4, 5]) == [5, 4, 3]


def test_the_same_seed_gives_the_same_stream():
    def stream(seed):
        return torch.cat([source.flatten() for source, _ in islice(pairs(copy, shortest=4, longest=4, seed=seed), 5)])

    assert torch.equal(stream(1), stream(1))
    assert not torch.equal(stream(1), stream(2))


def test_errors():
    with pytest.raises(ValueError, match="1 <= shortest=5 <= longest=4"):
        next(pairs(copy, shortest=5, longest=4))
    with pytest.raises(ValueError, match="n_symbols=0 >= 1"):
        next(pairs(copy, n_symbols=0))
