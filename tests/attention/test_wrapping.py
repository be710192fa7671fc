"""Something around every attention for a while: what it sees, and that it leaves no trace."""

import torch
from torch import nn

from helpers import assert_same, randomise
from papercode.attention.transformer import MultiHeadAttention, Transformer, attention, causal_mask
from papercode.attention.wrapping import Watch, wrapped

B, S, T, V = 2, 7, 5, 23


def model(**kwargs):
    return randomise(Transformer(V, d_model=14, n_heads=2, d_ff=19, n_layers=3, dropout=0.0, **kwargs))


def inputs():
    return torch.randint(V, (B, S)), torch.randint(V, (B, T)), torch.tensor([[True] * S, [True] * 4 + [False] * 3])


def test_weights_are_the_softmax_of_the_scores():
    layer, x = randomise(MultiHeadAttention(14, 2)), torch.randn(B, T, 14, dtype=torch.float64)
    with wrapped(layer, Watch) as watches:
        layer(x, mask=causal_mask(T))
    q, k = (w(x).unflatten(-1, (2, 7)).transpose(1, 2) for w in (layer.q, layer.k))
    scores = (q @ k.mT / 7**0.5).masked_fill(~causal_mask(T), -torch.inf)
    assert_same(watches[""].weights[0], scores.softmax(-1))


def test_watching_changes_nothing_and_ends():
    ours, batch = model(), inputs()
    expected = ours(*batch)
    with wrapped(ours, Watch) as watches:
        assert torch.equal(ours(*batch), expected)
    assert all(len(watch.weights) == 1 for watch in watches.values())
    assert torch.equal(ours(*batch), expected)
    assert all(len(watch.weights) == 1 for watch in watches.values())
    assert not any(isinstance(module, Watch) for module in ours.modules())


def test_names_and_shapes():
    ours = model()
    with wrapped(ours, Watch) as watches:
        ours(*inputs())
    shapes = {name: tuple(watch.weights[0].shape) for name, watch in watches.items()}
    expected = {f"encoder.{i}.attention": (B, 2, S, S) for i in range(3)}
    expected |= {f"decoder.{i}.self_attention": (B, 2, T, T) for i in range(3)}
    expected |= {f"decoder.{i}.cross_attention": (B, 2, T, S) for i in range(3)}
    assert shapes == expected


def test_weights_have_neither_dropout_nor_gradient():
    layer, x = MultiHeadAttention(14, 2, dropout=0.5).double(), torch.randn(B, T, 14, dtype=torch.float64)
    with wrapped(layer.train(), Watch) as watches:
        y = layer(x)
    (weights,) = watches[""].weights
    assert_same(weights.sum(-1), torch.ones(B, 2, T, dtype=torch.float64))
    assert not weights.requires_grad
    assert y.requires_grad


def test_an_attend_that_is_a_module_comes_back():
    class Learned(nn.Module):
        def __init__(self):
            super().__init__()
            self.scale = nn.Parameter(torch.ones(()))

        def forward(self, q, k, v, **kwargs):
            return attention(q * self.scale, k, v, **kwargs)

    layer, learned = MultiHeadAttention(14, 2), Learned()
    layer.attend = learned  # a module where a function was
    with wrapped(layer, Watch):
        assert isinstance(layer.attend, Watch)
    assert layer.attend is learned
    assert "attend.scale" in dict(layer.named_parameters())


def test_the_attend_comes_back_after_an_error():
    layer = MultiHeadAttention(14, 2)
    try:
        with wrapped(layer, Watch):
            raise KeyError
    except KeyError:
        assert layer.attend is attention
