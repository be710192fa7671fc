"""Perplexity against torch's cross entropy and scikit-learn's log loss."""

import math

import pytest
import torch
from sklearn.metrics import log_loss
from torch.nn.functional import cross_entropy

from helpers import assert_same
from papercode.evaluation.perplexity import log_probabilities, perplexity

B, N, V = 3, 7, 11


def case(seed=0):
    generator = torch.Generator().manual_seed(seed)
    logits = 3 * torch.randn(B, N, V, generator=generator, dtype=torch.float64)
    targets = torch.randint(V, (B, N), generator=generator)
    keep = torch.arange(N) < torch.tensor([[7], [2], [5]])
    return logits, targets, keep


@pytest.mark.parametrize("seed", range(3))
def test_as_torch_and_scikit_learn_have_it(seed):
    logits, targets, _ = case(seed)
    found = perplexity(log_probabilities(logits, targets))
    assert found == pytest.approx(cross_entropy(logits.flatten(0, 1), targets.flatten()).exp().item(), rel=1e-12)
    probabilities = logits.softmax(-1).flatten(0, 1).numpy()
    assert found == pytest.approx(
        math.exp(log_loss(targets.flatten().numpy(), probabilities, labels=range(V))), rel=1e-9
    )
    assert found != pytest.approx(2 ** cross_entropy(logits.flatten(0, 1), targets.flatten()).item())  # nats, no bits


@pytest.mark.parametrize("padding", [-100, 0, V + 5])
def test_padding_is_ignored_whatever_stands_there(padding):
    logits, targets, keep = case()
    targets = targets.where(keep, padding)
    log_p = log_probabilities(logits, targets, keep=keep)
    ignored = targets.where(keep, -100)
    expected = cross_entropy(logits.flatten(0, 1), ignored.flatten(), ignore_index=-100, reduction="none")
    assert_same(-log_p.flatten(), expected)
    mean = cross_entropy(logits.flatten(0, 1), ignored.flatten(), ignore_index=-100)
    assert perplexity(log_p, keep=keep) == pytest.approx(mean.exp().item(), rel=1e-12)
    assert perplexity(log_p) < perplexity(log_p, keep=keep)  # the control: zeros that count


def test_by_hand():
    assert perplexity(torch.tensor([0.5, 0.125]).log()) == pytest.approx(4)
    assert perplexity(torch.full((2, 3), 1 / 7).log()) == pytest.approx(7)
    logits = torch.tensor([[0.0, math.log(3)]])
    assert_same(log_probabilities(logits, torch.tensor([1])), torch.tensor([0.75]).log(), 1e-6)


def test_it_is_of_all_tokens_and_no_mean_of_sentences():
    log_p = torch.tensor([[0.5, 0.5, 0.5], [0.01, 1, 1]]).log()
    keep = torch.tensor([[True, True, True], [True, False, False]])
    assert perplexity(log_p, keep=keep) == pytest.approx((8 * 100) ** 0.25)
    assert perplexity(log_p[0]) == pytest.approx(2)
    assert perplexity(log_p[1, :1]) == pytest.approx(100)


def test_batches_are_joined_before_the_mean():
    logits, targets, keep = case()
    parts = [log_probabilities(logits[i], targets[i], keep=keep[i])[keep[i]] for i in range(B)]
    assert perplexity(torch.cat(parts)) == pytest.approx(
        perplexity(log_probabilities(logits, targets, keep=keep), keep=keep), rel=1e-12
    )


def test_units_make_other_tokens_comparable():
    # one word of probability 1/8, as one token or as three
    whole, pieces = torch.tensor([1 / 8]).log(), torch.tensor([1 / 2, 1 / 2, 1 / 2]).log()
    assert perplexity(whole) == pytest.approx(8)
    assert perplexity(pieces) == pytest.approx(2)
    assert perplexity(pieces, units=1) == pytest.approx(8)


def test_gradients_flow_into_the_logits_that_count():
    logits, targets, keep = case()
    logits.requires_grad_()
    log_probabilities(logits, targets, keep=keep).sum().backward()
    assert (logits.grad != 0).any(-1).tolist() == keep.tolist()


def test_small_types_are_summed_as_large_ones():
    log_p = torch.full((5000,), -1.0, dtype=torch.bfloat16)
    assert perplexity(log_p) == pytest.approx(math.e)


def test_impossible_tokens():
    assert perplexity(torch.tensor([-1.0, -torch.inf])) == math.inf
    # padding that a model thinks impossible does not count
    logits = torch.tensor([[0.0, -torch.inf], [0.0, -torch.inf]])
    log_p = log_probabilities(logits, torch.tensor([0, 1]), keep=torch.tensor([True, False]))
    assert log_p.tolist() == [0, 0]


def test_wrong_arguments():
    with pytest.raises(ValueError, match="tokens=0 and units=None must be at least 1"):
        perplexity(torch.zeros(2), keep=torch.zeros(2, dtype=torch.bool))
    with pytest.raises(ValueError, match="tokens=2 and units=0 must be at least 1"):
        perplexity(torch.zeros(2), units=0)
