"""The loss against loops, the schedules against transformers' and by hand."""

import math

import pytest
import torch
from torch import nn
from transformers import get_cosine_schedule_with_warmup, get_linear_schedule_with_warmup

from helpers import assert_differs, assert_same
from papercode.attention.layer_norm import LayerNorm
from papercode.decoders.gpt import GPT
from papercode.decoders.gpt_training import cosine_rate, decayed_groups, language_loss, linear_rate


def test_the_loss_is_that_of_the_next_token_with_loops():
    logits, tokens = torch.randn(2, 5, 7, dtype=torch.float64), torch.randint(7, (2, 5))
    keep = torch.tensor([[True] * 5, [True] * 3 + [False] * 2])
    every = [[-logits[b, i].log_softmax(-1)[tokens[b, i + 1]] for i in range(4)] for b in range(2)]
    assert_same(language_loss(logits, tokens), torch.stack([x for row in every for x in row]).mean())
    assert_same(language_loss(logits, tokens, keep), torch.stack(every[0] + every[1][:2]).mean())
    assert_differs(language_loss(logits, tokens, keep), language_loss(logits, tokens))
    assert_same(language_loss(logits[None], tokens[None], keep[None]), language_loss(logits, tokens, keep))
    assert language_loss(logits[:, :1], tokens[:, :1]) == 0


def test_what_is_certain_costs_nothing_and_what_is_unknown_the_logarithm():
    tokens = torch.tensor([[0, 2, 1]])
    certain = 1000.0 * nn.functional.one_hot(torch.tensor([[2, 1, 0]]), 3)
    assert language_loss(certain, tokens) == 0
    assert language_loss(torch.zeros(1, 3, 3), tokens).item() == pytest.approx(math.log(3))


@pytest.mark.parametrize(
    ("ours", "theirs", "warmup"),
    [
        (lambda step: cosine_rate(step, 50, peak=0.3, warmup=10), get_cosine_schedule_with_warmup, 10),
        (lambda step: cosine_rate(step, 50, peak=0.3, warmup=0), get_cosine_schedule_with_warmup, 0),
        (lambda step: linear_rate(step, 50, peak=0.3, warmup=0.2), get_linear_schedule_with_warmup, 10),
        (lambda step: linear_rate(step, 50, peak=0.3, warmup=0.0), get_linear_schedule_with_warmup, 0),
    ],
)
def test_schedules_are_transformers(ours, theirs, warmup):
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.3)
    schedule = theirs(optimizer, warmup, 50)
    rates = []
    for _ in range(50):
        optimizer.step()
        schedule.step()
        rates.append(schedule.get_last_lr()[0])
    assert [ours(step) for step in range(1, 51)] == pytest.approx(rates)


def test_rates_of_the_paper():
    assert cosine_rate(1000, 100_000) == pytest.approx(1.25e-4)
    assert cosine_rate(2000, 100_000) == 2.5e-4
    assert cosine_rate(51_000, 100_000) == pytest.approx(1.25e-4)
    assert cosine_rate(100_000, 100_000) == 0
    assert linear_rate(2, 1000) == 6.25e-5
    assert linear_rate(501, 1000) == pytest.approx(6.25e-5 * 499 / 998)
    assert linear_rate(1000, 1000) == 0
    assert linear_rate(1, 3) == pytest.approx(6.25e-5 * 2 / 2.994)  # no step goes up


def test_what_decays():
    model = GPT(7, n_positions=5, d_model=4, n_heads=2, d_ff=3, n_layers=2)
    model.positions.weight.requires_grad_(False)
    decayed, free = decayed_groups(model)
    names = {id(p): name for name, p in model.named_parameters()}
    assert {names[id(p)].rpartition(".")[2] for p in decayed["params"]} == {"weight"}
    assert {names[id(p)].rpartition(".")[2] for p in free["params"]} == {"gain", "bias"}
    assert (decayed["weight_decay"], free["weight_decay"]) == (0.01, 0.0)
    assert len(decayed["params"]) + len(free["params"]) == len(list(model.parameters())) - 1
    assert [len(group["params"]) for group in decayed_groups(LayerNorm(3))] == [0, 2]
    assert decayed_groups(model, 0.3)[0]["weight_decay"] == 0.3


def test_errors():
    for step in (0, 11):
        for rate in (cosine_rate, linear_rate):
            with pytest.raises(ValueError, match=f"step={step} must be between 1 and steps=10"):
                rate(step, 10)
    with pytest.raises(ValueError, match="warmup ends at step 11, which is not between 0 and steps=10"):
        cosine_rate(1, 10, warmup=11)
    with pytest.raises(ValueError, match=r"warmup ends at step 20\.0, which is not"):
        linear_rate(1, 10, warmup=2.0)
