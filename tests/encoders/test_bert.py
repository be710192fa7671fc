"""The encoder by hand, by what must not change, and by what it must refuse.

It is held against transformers in tests/checkpoints/test_bert_weights.py.
"""

import copy
import pickle

import pytest
import torch

from helpers import assert_differs, assert_same, leaks, randomise
from papercode.attention.layer_norm import LayerNorm
from papercode.attention.transformer import MultiHeadAttention
from papercode.encoders.bert import BERT, initialise

V, SEGMENTS, POSITIONS, D, HEADS, D_FF, LAYERS, B, N = 23, 3, 13, 14, 7, 19, 2, 3, 11
SIZES = {
    "n_segments": SEGMENTS,
    "n_positions": POSITIONS,
    "d_model": D,
    "n_heads": HEADS,
    "d_ff": D_FF,
    "n_layers": LAYERS,
}


def bert(**changes):
    return randomise(BERT(V, **SIZES | changes)).eval()


def texts(b=B, n=N):
    return torch.randint(V, (b, n)), torch.randint(SEGMENTS, (b, n))


def test_embeddings_are_a_normalised_sum_of_three():
    model, (x, segments) = bert(), texts()
    found = model.embed(x, segments)
    for i in range(B):
        for j in range(N):
            total = model.words.weight[x[i, j]] + model.positions.weight[j] + model.segments.weight[segments[i, j]]
            centred = total - total.mean()
            expected = model.norm.gain * centred / (centred.square().mean() + 1e-12).sqrt() + model.norm.bias
            assert_same(found[i, j], expected)
    assert_same(model.embed(x), model.embed(x, torch.zeros_like(x)))
    assert_differs(model.embed(x), model.embed(x, torch.ones_like(x)))


def test_a_token_has_one_segment_and_not_the_sum_of_both():
    model, x = bert(), torch.tensor([[5, 7]])
    model.norm = torch.nn.Identity()
    first, second = (model.embed(x, torch.full_like(x, i)) for i in range(2))
    difference = model.segments.weight[1] - model.segments.weight[0]
    assert_same(second - first, difference.expand(1, 2, -1))


def test_the_order_of_layers_by_hand():
    """Sum, norm, sum, norm: what the Transformer's encoder does, with GELU in the network."""
    model, (x, _) = bert(n_layers=1), texts(1, 4)
    (layer,), states = model.layers, model.embed(x)
    middle = layer.residuals[0].norm(states + layer.attention(states))
    hidden = layer.feed_forward.expand(middle)
    gelu = hidden * 0.5 * (1 + torch.erf(hidden / 2**0.5))
    assert_same(model(x), layer.residuals[1].norm(middle + layer.feed_forward.contract(gelu)))


def test_pooling_reads_the_first_state_alone():
    model, states = bert(), torch.randn(B, N, D, dtype=torch.float64)
    expected = torch.tanh(states[:, 0] @ model.pooler.weight.T + model.pooler.bias)
    assert_same(model.pool(states), expected)
    assert not leaks(model.pool, states, states + torch.arange(N)[:, None], torch.ones(B, dtype=torch.bool))


def test_every_token_sees_every_other():
    model, (x, _) = bert(), texts(1)
    for position in range(N):
        changed = x.clone()
        changed[0, position] = (x[0, position] + 1) % V
        assert (model(x) - model(changed)).abs().amax(-1).gt(1e-6).all()


def test_padding_does_not_leak_and_costs_nothing_but_time():
    model, (x, segments) = bert(), texts()
    keep = torch.arange(N) < torch.tensor([N, 5, 1])[:, None]
    other = torch.where(keep, x, (x + 1) % V)
    assert not leaks(lambda x: model(x, segments, keep), x, other, keep)
    assert leaks(lambda x: model(x, segments), x, other, keep)
    alone = model(x[1:2, :5], segments[1:2, :5])
    assert_same(model(x, segments, keep)[1:2, :5], alone)
    assert_differs(model(x, segments)[1:2, :5], alone)


def test_order_matters_through_positions_only():
    model, (x, _) = bert(), texts(1)
    order = torch.randperm(N)
    assert_differs(model(x[:, order]), model(x)[:, order])
    with torch.no_grad():
        model.positions.weight.copy_(model.positions.weight[:1].expand(POSITIONS, -1))
    assert_same(model(x[:, order]), model(x)[:, order])


def test_the_longest_text_and_one_more():
    model = bert()
    assert model(texts(1, POSITIONS)[0]).shape == (1, POSITIONS, D)
    with pytest.raises(ValueError, match=f"tokens have length {POSITIONS + 1}, but n_positions={POSITIONS}"):
        model(texts(1, POSITIONS + 1)[0])


def test_without_pooler():
    model = bert(pooler=False)
    assert not any("pooler" in name for name in model.state_dict())
    with pytest.raises(ValueError, match="made with pooler=False: there is nothing to pool with"):
        model.pool(model(texts()[0]))


def test_initial_weights():
    """The authors' code: a normal of deviation 0.02, cut off at 0.04; biases 0, gains 1."""
    model = BERT(1009, d_model=64, n_heads=2, d_ff=128, n_layers=1)
    for module in (model.words, model.positions, model.segments, model.pooler, model.layers[0].attention.q):
        assert module.weight.abs().max() <= 0.04
    cut = 0.02 * 0.8796  # the deviation of a normal that is cut off at two of its own
    assert abs(model.words.weight.std().item() - cut) < 2e-4
    assert abs(model.words.weight.mean().item()) < 2e-4
    assert all((p == 0).all() for name, p in model.named_parameters() if name.endswith("bias"))
    assert all((p == 1).all() for name, p in model.named_parameters() if name.endswith("gain"))
    bare = torch.nn.Linear(3, 5, bias=False)
    initialise(bare)
    assert bare.weight.abs().max() <= 0.04


def test_defaults_are_the_base_model():
    with torch.device("meta"):
        model = BERT()
    assert (len(model.layers), model.words.embedding_dim, model.positions.num_embeddings) == (12, 768, 512)
    layer = model.layers[0]
    assert (layer.attention.d_k, layer.attention.q.out_features, layer.feed_forward.expand.out_features) == (
        64,
        768,
        3072,
    )
    norms = [module for module in model.modules() if isinstance(module, LayerNorm)]
    assert len(norms) == 25
    assert {norm.eps for norm in norms} == {1e-12}
    assert all(p.bias is not None for p in (layer.attention.q, layer.attention.k, layer.attention.v, layer.attention.o))


def test_dropout_falls_on_embeddings_attention_and_sublayers():
    model, (x, _) = bert(dropout=0.25), texts()
    layer = model.layers[1]
    assert {model.dropout.p, layer.attention.dropout, *(r.dropout.p for r in layer.residuals)} == {0.25}
    assert_same(model(x), model(x), 0)
    model.train()
    assert_differs(model.embed(x), model.eval().embed(x))
    expected, found = model.embed(x) / 0.75, model.train().embed(x)
    assert (((found - expected).abs() < 1e-12) | (found == 0)).all()


def test_attend_is_given_to_every_layer_and_the_model_can_be_pickled():
    calls = []

    class Counting(torch.nn.Module):
        def forward(self, q, k, v, **kwargs):
            calls.append(kwargs["mask"])
            return v

    model = BERT(V, **SIZES, attend=Counting())
    model(texts()[0])
    assert calls == [None] * LAYERS
    assert all(
        m.attend is model.layers[0].attention.attend for m in model.modules() if isinstance(m, MultiHeadAttention)
    )
    model, (x, _) = bert(), texts()
    assert_same(pickle.loads(pickle.dumps(model))(x), model(x), 0)
    assert_same(copy.deepcopy(model)(x), model(x), 0)
