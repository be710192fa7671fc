import math

import pytest
import torch

from decoders.dialogues import dialogue
from decoders.test_cdial_gpt import MARKS, toy
from helpers import assert_same
from papercode.decoders.cdial_gpt import response_losses, response_samples
from papercode.decoders.cdial_gpt_training import accumulate
from papercode.decoders.dialogpt import IGNORE


def samples(lengths):
    return [dialogue(4, length, low=5, seed=i) for i, length in enumerate(lengths)]


def n_targets(batch):
    return int((batch.targets != IGNORE).sum())


def gradients(turns, size, counted=False):
    """Loss and gradients of the mean over all targets, `size` samples at a time."""
    model = toy()
    parts = [response_samples(turns[i : i + size], MARKS) for i in range(0, len(turns), size)]

    def loss(batch):
        return response_losses(model, batch).sum() / n_targets(batch)

    value = accumulate(loss, [(part,) for part in parts], [n_targets(part) for part in parts] if counted else None)
    return value, [p.grad for p in model.parameters()]


def distance(one, other):
    return max((a - b).abs().max().item() for a, b in zip(one, other))


def test_sixty_four_micro_batches_of_eight_are_one_batch_of_512():
    turns = samples([3] * 512)
    (one, whole), (other, parts) = gradients(turns, 512), gradients(turns, 8)
    assert one == pytest.approx(other, abs=1e-12)
    for a, b in zip(whole, parts):
        assert_same(a, b)


def test_with_replies_of_different_length_only_if_counted():
    turns = samples([1, 2, 9, 1, 3, 12, 2, 1])
    one, whole = gradients(turns, 8)
    counted, weighted = gradients(turns, 2, counted=True)
    plain, mean_of_means = gradients(turns, 2)
    assert counted == pytest.approx(one, abs=1e-12)
    assert distance(whole, weighted) < 1e-12
    assert abs(plain - one) > 1e-3
    assert distance(whole, mean_of_means) > 1e-3


def test_by_hand():
    x = torch.tensor(3.0, requires_grad=True)
    batches = [(torch.tensor([1.0]),), (torch.tensor([2.0, 4.0, 6.0]),)]
    loss = accumulate(lambda y: (x * y).mean(), batches)
    assert (loss, x.grad.item()) == (3 * (1 + 4) / 2, (1 + 4) / 2)
    x.grad = None
    loss = accumulate(lambda y: (x * y).mean(), batches, [1, 3])
    assert (loss, x.grad.item()) == (3 * 13 / 4, 13 / 4)


def test_gradients_are_added_to_those_that_are_there():
    x = torch.tensor(3.0, requires_grad=True)
    for _ in range(2):
        accumulate(lambda y: x * y, [(2.0,)])
    assert x.grad == 4


def test_a_micro_batch_without_targets_is_left_out():
    x = torch.tensor(3.0, requires_grad=True)
    batches = [(torch.tensor([2.0]),), (torch.tensor([]),)]
    assert accumulate(lambda y: (x * y).mean(), batches, [1, 0]) == 6
    assert x.grad == 2
    assert math.isnan(accumulate(lambda y: (x * y).mean(), batches))


def test_errors():
    with pytest.raises(ValueError, match="micro_batches is empty"):
        accumulate(lambda: torch.zeros(()), [])
    for counts in ([1], [0, 0], [2, -1]):
        with pytest.raises(ValueError, match="must hold one count for each of 2 micro-batches"):
            accumulate(lambda: torch.zeros(()), [(), ()], counts)
