"""The training loop: what a step does, and what it leaves as it was."""

import pytest
import torch
from torch import nn

from helpers import assert_same
from papercode.training import train


def one_weight():
    model = nn.Linear(1, 1, bias=False)
    model.weight.data.fill_(2.0)
    return model, torch.optim.SGD(model.parameters(), lr=0.1)


def test_a_step_by_hand():
    """Loss w², w = 2: the gradient is 4, so w becomes 2 - 0.1 · 4 = 1.6, then 1.6 - 0.1 · 3.2 = 1.28."""
    model, optimizer = one_weight()
    losses = train(model, lambda: model.weight.square().sum(), [(), ()], optimizer)
    assert model.weight.item() == pytest.approx(1.28)
    assert losses == pytest.approx([4.0, 1.6**2])


def test_the_rate_is_that_of_the_step():
    model, optimizer = one_weight()
    asked = []

    def rate(step):
        asked.append(step)
        return 0.25 if step == 1 else 0.0

    train(model, lambda: model.weight.square().sum(), [()] * 3, optimizer, rate=rate)
    assert asked == [1, 2, 3]
    assert model.weight.item() == pytest.approx(1.0)


def test_a_long_gradient_is_cut():
    model, optimizer = one_weight()
    train(model, lambda: model.weight.square().sum(), [()], optimizer, clip=0.5)
    assert model.weight.item() == pytest.approx(2 - 0.1 * 0.5, abs=1e-5)


def test_it_is_the_plain_loop():
    torch.manual_seed(0)
    data = [(torch.randn(7, 3), torch.randn(7, 2)) for _ in range(5)]
    ours, plain = nn.Linear(3, 2), nn.Linear(3, 2)
    plain.load_state_dict(ours.state_dict())
    train(ours, lambda x, y: nn.functional.mse_loss(ours(x), y), data, torch.optim.Adam(ours.parameters(), 0.01))
    optimizer = torch.optim.Adam(plain.parameters(), 0.01)
    for x, y in data:
        optimizer.zero_grad()
        nn.functional.mse_loss(plain(x), y).backward()
        optimizer.step()
    assert_same(ours.weight, plain.weight, 0)


@pytest.mark.parametrize("mode", [True, False])
def test_the_mode_is_training_within_and_what_it_was_after(mode):
    model, optimizer = one_weight()
    seen = []

    def loss():
        seen.append(model.training)
        return model.weight.sum()

    train(model.train(mode), loss, [()], optimizer)
    assert seen == [True]
    assert model.training is mode


def test_a_loss_that_is_not_finite_stops_it():
    model, optimizer = one_weight()
    with pytest.raises(ValueError, match="loss=nan at step=2 is not finite"):
        train(model, lambda x: model.weight.sum() * x, [(1.0,), (float("nan"),)], optimizer)
