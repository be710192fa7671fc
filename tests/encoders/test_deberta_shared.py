"""Attention whose maps serve words and distances alike, against its equation with loops."""

import pytest
import torch

from helpers import assert_differs, randomise
from papercode.encoders.deberta_attention import RelativeTable, clipped
from papercode.encoders.deberta_shared import SharedAttention

K, D, HEADS = 4, 14, 7


def test_distances_go_through_the_maps_of_words(parity):
    attention, relative = randomise(SharedAttention(D, HEADS)).eval(), randomise(RelativeTable(K, D), seed=1)
    x = torch.randn(1, 5, D, dtype=torch.float64)
    table, width = relative.table(), D // HEADS

    def mapped(layer, y):
        return (layer.weight @ y + layer.bias).unflatten(0, (HEADS, width))

    out = torch.zeros(5, HEADS, width, dtype=torch.float64)
    for i in range(5):
        scores = torch.zeros(5, HEADS, dtype=torch.float64)
        for j in range(5):
            row = table[clipped(torch.tensor(i - j), K)]
            q, k = mapped(attention.q, x[0, i]), mapped(attention.k, x[0, j])
            scores[j] = (q * k + q * mapped(attention.k, row) + k * mapped(attention.q, row)).sum(-1)
        weights = (scores / (3 * width) ** 0.5).softmax(0)
        out[i] = sum(weights[j][:, None] * mapped(attention.v, x[0, j]) for j in range(5))
    wanted = attention.o(out.flatten(1))[None]
    found = attention(x, relative=relative(5))
    parity("SharedAttention", "the equations, with loops", "n = 5, k = 4", found.detach(), wanted.detach())
    attention.same_distance = False
    assert_differs(attention(x, relative=relative(5)), wanted)
    assert {name.split(".")[0] for name, _ in attention.named_parameters()} == {"q", "k", "v", "o"}


@pytest.mark.parametrize(("c2p", "p2c"), [(True, False), (False, True), (False, False)])
def test_without_a_term(c2p, p2c):
    attention = SharedAttention(D, HEADS, c2p=c2p, p2c=p2c)
    assert attention.scale == pytest.approx((D // HEADS * (1 + c2p + p2c)) ** -0.5)
    _, first, second = attention.terms(torch.randn(1, 5, D), relative=RelativeTable(K, D)(5))
    assert (first is not None, second is not None) == (c2p, p2c)
