"""Layer normalisation against torch's, by hand, and its invariances."""

import pytest
import torch
from torch import nn

from helpers import assert_differs, assert_same, randomise
from papercode.attention.layer_norm import FusedLayerNorm, LayerNorm, fuse_norms

B, N, D = 2, 5, 7


def test_equals_torch(parity):
    ours, reference = randomise(LayerNorm(D, eps=0.03)), nn.LayerNorm(D, eps=0.03).double()
    reference.load_state_dict({"weight": ours.gain, "bias": ours.bias})
    x = torch.randn(B, N, D, dtype=torch.float64) * 3 + 1
    parity("LayerNorm", "torch.nn.LayerNorm", "eps=0.03", ours(x), reference(x))
    assert_differs(ours(x), randomise(LayerNorm(D, eps=0.3))(x))  # the eps is seen


def test_gradients():
    norm, x = randomise(LayerNorm(D)), torch.randn(2, D, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(norm, (x,))


def test_by_hand():
    """1, 2, 3, 4: mean 2.5, variance 5/4 (not 5/3), so that 1 becomes -1.5 / sqrt(1.25)."""
    y = LayerNorm(4, eps=0.0).double()(torch.tensor([1.0, 2, 3, 4]).double())
    assert_same(y, torch.tensor([-1.5, -0.5, 0.5, 1.5]).double() / 1.25**0.5)


def test_a_constant_vector_gives_zeros():
    assert torch.equal(LayerNorm(D)(torch.full((N, D), 3.0)), torch.zeros(N, D))
    assert LayerNorm(D, eps=0.0)(torch.full((N, D), 3.0)).isnan().all()  # what the equation without eps gives


def test_blind_to_shift_and_scale_of_one_vector():
    norm, x = randomise(LayerNorm(D, eps=0.0)), torch.randn(B, N, D, dtype=torch.float64)
    per_vector = torch.rand(B, N, 1, dtype=torch.float64) + 0.5
    assert_same(norm(x * per_vector + 11), norm(x))
    assert_differs(norm(-x), norm(x))  # but not to the sign


def test_neither_the_batch_nor_the_sequence_nor_the_mode_matters():
    norm, x = randomise(LayerNorm(D)), torch.randn(B, N, D, dtype=torch.float64)
    assert torch.equal(norm.train()(x)[1:, 2:4], norm.eval()(x[1:, 2:4]))


def test_errors():
    with pytest.raises(ValueError, match="d=0 must be at least 1"):
        LayerNorm(0)
    with pytest.raises(ValueError, match="x is 5 wide, this LayerNorm was made for d=7"):
        LayerNorm(7)(torch.zeros(2, 5))


def test_fused_is_the_same_map_of_the_same_parameters():
    shared = LayerNorm(D, eps=0.03)
    model = randomise(nn.Sequential(shared, nn.Linear(D, D), nn.Sequential(LayerNorm(D), shared))).eval()
    x = torch.randn(B, N, D, dtype=torch.float64)
    plain, names, parameters = model(x), list(model.state_dict()), list(model.parameters())
    assert fuse_norms(model) is model
    assert [type(m) for m in (model[0], model[2][0])] == [FusedLayerNorm] * 2
    assert model[2][1] is model[0]
    assert not model[0].training
    assert list(model.state_dict()) == names
    assert all(a is b for a, b in zip(model.parameters(), parameters, strict=True))
    assert_same(model(x), plain)
    assert isinstance(fuse_norms(LayerNorm(D)), FusedLayerNorm)
    with pytest.raises(ValueError, match="x is 5 wide, this LayerNorm was made for d=7"):
        fuse_norms(LayerNorm(D))(torch.zeros(2, 5))
