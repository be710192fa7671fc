"""Gaps, samples to fill them, and labels: a right guess is no replacement."""

import torch

from papercode.encoders.bert_pretraining import IGNORED
from papercode.encoders.electra_data import hide, put_back, sample

V, MASK = 23, 4


# hidden words


def test_all_chosen_words_are_masks():
    x = torch.randint(5, V, (200, 40))
    x[:, 0], x[1::2, 35:] = 1, 0
    hidden, targets = hide(x, mask=MASK, special=(0, 1))
    chosen = targets != IGNORED
    assert (chosen.sum(1) == torch.tensor([6, 5]).repeat(100)).all()  # 0.15 of 39 and of 34 words
    assert (hidden[chosen] == MASK).all()
    assert torch.equal(torch.where(chosen, targets, hidden), x)
    assert not chosen[:, 0].any()
    quarter = hide(x, mask=MASK, special=(0, 1), rate=0.25)[1] != IGNORED
    assert (quarter.sum(1) == torch.tensor([10, 8]).repeat(100)).all()
    again = [hide(x, mask=MASK, special=(), generator=torch.Generator().manual_seed(7))[1] for _ in range(2)]
    assert torch.equal(*again)
    assert not torch.equal(again[0], hide(x, mask=MASK, special=())[1])


# samples


def test_samples_have_the_probabilities_of_the_softmax():
    logits = torch.tensor([0.5, 0.25, 0.125, 0.125, 0.0]).log() + 3.0
    drawn = sample(logits.expand(40_000, 5), torch.Generator().manual_seed(7))
    shares = drawn.bincount(minlength=5) / 40_000
    assert (shares - torch.tensor([0.5, 0.25, 0.125, 0.125, 0.0])).abs().max() < 0.01  # four deviations
    assert torch.equal(drawn, sample(logits.expand(40_000, 5), torch.Generator().manual_seed(7)))
    assert not torch.equal(drawn, sample(logits.expand(40_000, 5)))


def test_a_sample_has_no_gradient():
    logits = torch.randn(3, 5, requires_grad=True)
    assert not sample(logits).requires_grad


def test_a_right_guess_is_no_replacement():
    hidden = torch.tensor([[7, MASK, 9, MASK], [MASK, 6, 5, 0]])
    targets = torch.tensor([[IGNORED, 8, IGNORED, 10], [11, IGNORED, IGNORED, IGNORED]])
    corrupt, replaced = put_back(hidden, targets, torch.tensor([8, 12, 13]))
    assert corrupt.tolist() == [[7, 8, 9, 12], [13, 6, 5, 0]]
    assert replaced.tolist() == [[False, False, False, True], [True, False, False, False]]
    assert not put_back(hidden, targets, torch.tensor([8, 10, 11]))[1].any()
