"""Outputs and losses of sequences: torch's distributions, by hand, what must not leak."""

import math

import pytest
import torch
from torch import distributions, nn

from helpers import assert_differs, assert_same, leaks, randomise
from papercode.recurrent.fused import fused
from papercode.recurrent.gated_units import PeepholeLSTMCell, RNNCell
from papercode.recurrent.gru import GRUCell
from papercode.recurrent.sequence_outputs import (
    GaussianMixture,
    Mixture,
    NextFrame,
    mean_nll,
    mixture_nll,
    notes_nll,
    sample,
    windows,
)

B, N, K, J, D = 3, 7, 5, 4, 11
F64 = torch.float64


def test_notes_equal_torchs_distribution(parity):
    logits, notes = torch.randn(B, N, J, dtype=F64), (torch.rand(B, N, J) < 0.4).double()
    theirs = -distributions.Independent(distributions.Bernoulli(logits=logits), 1).log_prob(notes)
    parity("NLL of notes", "torch.distributions.Bernoulli", "four notes", notes_nll(logits, notes), theirs)
    assert_differs(notes_nll(-logits, notes), theirs)


def test_notes_by_hand():
    """p = 3/4 for a note that sounds, 1/2 for one that does not."""
    found = notes_nll(torch.tensor([[[math.log(3), 0.0]]]), torch.tensor([[[1.0, 0.0]]]))
    assert found.item() == pytest.approx(-math.log(3 / 8))


def test_a_mixture_equals_torchs_distribution(parity):
    layer, h, x = randomise(GaussianMixture(D, J, K, floor=0.1)), torch.randn(B, N, D, dtype=F64), torch.randn(B, N, J)
    mixture, x = layer(h), x.double()
    assert mixture.mean.shape == mixture.scale.shape == (B, N, K, J)
    normal = distributions.Independent(distributions.Normal(mixture.mean, mixture.scale), 1)
    theirs = distributions.MixtureSameFamily(distributions.Categorical(mixture.log_weights.exp()), normal)
    what = "mixture of Gaussians", "torch.distributions.MixtureSameFamily", "five components, four numbers"
    parity(*what, mixture_nll(mixture, x), -theirs.log_prob(x))
    assert_differs(mixture_nll(mixture, x + 0.1), -theirs.log_prob(x))
    weights, mean, scale = layer.all(h).split([K, K * J, K * J], -1)
    assert_same(mixture.log_weights.exp(), weights.softmax(-1))
    assert_same(mixture.mean.flatten(2), mean)
    assert_same(mixture.scale.flatten(2), 0.1 + scale.exp())
    assert layer.k == 5
    assert GaussianMixture(D, J).all.out_features == 20 * (2 * J + 1)


def test_a_mixture_by_hand():
    """Two unit Gaussians at 0 and 2, weights 1/4 and 3/4, at 0: densities phi(0) and phi(2)."""
    mixture = Mixture(torch.tensor([0.25, 0.75]).log(), torch.tensor([[0.0], [2.0]]), torch.ones(2, 1))
    expected = (0.25 + 0.75 * math.exp(-2)) / math.sqrt(2 * math.pi)
    assert mixture_nll(mixture, torch.zeros(1)).item() == pytest.approx(-math.log(expected))


def test_a_mixture_integrates_to_one_and_samples_follow_it():
    mixture = Mixture(
        torch.tensor([0.3, 0.7], dtype=F64).log(),
        torch.tensor([[-2.0], [1.0]], dtype=F64),
        torch.tensor([[0.5], [0.2]], dtype=F64),
    )
    grid = torch.linspace(-8, 8, 16_001, dtype=F64)
    density = (-mixture_nll(Mixture(*(part[None] for part in mixture)), grid[:, None])).exp()
    assert density.sum().item() * 0.001 == pytest.approx(1, abs=1e-6)
    many = Mixture(*(part.expand(100_000, *part.shape) for part in mixture))
    drawn = sample(many, torch.Generator().manual_seed(1))
    assert drawn.shape == (100_000, 1)
    assert drawn.mean().item() == pytest.approx(0.3 * -2 + 0.7, abs=0.02)
    spread = 0.3 * 0.25 + 0.7 * 0.04 + 0.3 * 0.7 * 9
    assert drawn.var().item() == pytest.approx(spread, rel=0.02)
    assert ((drawn < -0.5).double().mean() - 0.3).abs() < 0.01


def test_the_components_of_a_sample_come_together():
    """Both numbers are of one component: never one near -5 and one near 5."""
    means = torch.tensor([[-5.0, -5.0], [5.0, 5.0]]).expand(3, 200, 2, 2)
    mixture = Mixture(torch.full((3, 200, 2), 0.5).log(), means, torch.full((3, 200, 2, 2), 0.1))
    drawn = sample(mixture, torch.Generator().manual_seed(0))
    assert (drawn.sign()[..., 0] == drawn.sign()[..., 1]).all()
    assert 0.4 < (drawn > 0).float().mean() < 0.6


def test_the_floor_bounds_the_likelihood():
    layer = GaussianMixture(D, 1, 1, floor=1e-3)
    nn.init.zeros_(layer.all.weight)
    layer.all.bias.data = torch.tensor([0.0, 0.0, -1e3])
    assert mixture_nll(layer(torch.zeros(1, D)), torch.zeros(1, 1)).item() == pytest.approx(
        0.5 * math.log(2 * math.pi) + math.log(1e-3)
    )


@pytest.mark.parametrize("make", [RNNCell, PeepholeLSTMCell, GRUCell])
def test_a_frame_is_predicted_of_those_before_it(make):
    model, x = randomise(NextFrame(make(J, D), nn.Linear(D, J))), torch.randn(B, N, J, dtype=F64)
    changed = x.clone()
    changed[:, 4] += 1
    where = torch.arange(N).expand(B, N) <= 4
    assert not leaks(model, x, changed, where)
    assert leaks(model, x, changed, ~where)
    first = model(torch.zeros(B, 1, J, dtype=F64))
    assert_same(model(x)[:, :1], first)  # the first frame is predicted of zeros


def test_padding_of_a_sequence_and_another_runner():
    cell, lengths = RNNCell(J, D), torch.tensor([4, 7, 1])
    model, x = randomise(NextFrame(cell, nn.Linear(D, J))), torch.randn(B, N, J, dtype=F64)
    keep = torch.arange(N) < lengths[:, None]
    assert_same(model(x, lengths)[keep], model(x)[keep])
    assert_same(model(x, lengths)[~keep], model.output.bias.expand((~keep).sum(), J))  # nothing is computed there
    assert_same(NextFrame(cell, model.output, fused)(x, lengths)[keep], model(x)[keep])
    nll = notes_nll(model(x), (x > 0).double())
    assert_same(mean_nll(nll, lengths), nll[keep].mean())
    assert_same(mean_nll(nll), nll.mean())
    assert_differs(mean_nll(nll, lengths)[None], mean_nll(nll)[None])


def test_windows():
    wave = torch.arange(47.0)[None]
    past, future = windows(wave)
    assert past.shape == (1, 2, 20)
    assert future.shape == (1, 2, 10)
    assert past[0, 1].tolist() == list(range(10, 30))
    assert future.flatten().tolist() == list(range(20, 40))  # each sample once
    past, future = windows(wave, past=3, future=2)
    assert past[0, -1].tolist() == [42, 43, 44]
    assert future[0, -1].tolist() == [45, 46]


@pytest.mark.parametrize(("past", "future"), [(0, 1), (1, 0), (40, 8)])
def test_windows_that_do_not_fit(past, future):
    with pytest.raises(ValueError, match=f"past={past} and future={future} must be at least 1, together at most 47"):
        windows(torch.zeros(2, 47), past, future)
