"""The pass without padding against the padded one: states, gradients, and how many rows the linear maps see."""

import pytest
import torch

from helpers import assert_differs, assert_same, randomise
from papercode.attention.backends import auto, sdpa
from papercode.attention.layer_norm import fuse_norms
from papercode.attention.transformer import MultiHeadAttention, attention
from papercode.encoders.bert import BERT
from papercode.encoders.bert_packed import apart, packed

V, D, HEADS, D_FF, LAYERS, N = 23, 14, 7, 19, 2, 11
KEEPS = {
    "padding at the end": torch.arange(N) < torch.tensor([N, 5, 1, 5])[:, None],
    "padding at the start": torch.arange(N) >= torch.tensor([0, 5, 10, 3])[:, None],
    "holes": torch.tensor([[1, 0, 1] * 3 + [0, 1], [0] * 5 + [1] * 6, [1] * N, [0, 1] * 5 + [0]]).bool(),
    "nothing to drop": torch.ones(4, N, dtype=torch.bool),
    "a text without tokens": torch.arange(N) < torch.tensor([3, 0, N, 0])[:, None],
}


def model(attend=attention, **changes):
    sizes = {"n_positions": 13, "d_model": D, "n_heads": HEADS, "d_ff": D_FF, "n_layers": LAYERS}
    return randomise(BERT(V, **sizes | changes, attend=attend)).eval()


def batch():
    return torch.randint(V, (4, N)), torch.randint(2, (4, N))


@pytest.mark.parametrize("attend", [attention, sdpa, auto])
@pytest.mark.parametrize("name", KEEPS)
def test_equals_the_padded_pass(parity, name, attend):
    bert, (x, segments), keep = model(attend), batch(), KEEPS[name]
    found, expected = packed(bert, x, segments, keep), bert(x, segments, keep)
    label = f"{name}, {attend.__name__}"
    parity("BERT, packed", "BERT with its padding", label, found[keep], expected[keep])
    assert (found[~keep] == 0).all()
    if name != "nothing to drop":
        assert_differs(found[keep], bert(x, segments)[keep])
    assert_differs(found[keep], packed(bert, x, keep=keep)[keep])  # segments count


def test_without_padding_it_is_the_model_itself():
    bert, (x, segments) = model(), batch()
    assert_same(packed(bert, x, segments), bert(x, segments), 0)
    assert_same(packed(bert, x), bert(x), 0)


def test_fused_norms_too():
    bert, (x, segments), keep = model(sdpa), batch(), KEEPS["holes"]
    expected = bert(x, segments, keep)
    assert_same(packed(fuse_norms(bert), x, segments, keep)[keep], expected[keep])


def test_gradients():
    bert, (x, segments), keep = model(), batch(), KEEPS["holes"]
    weights = torch.randn(4, N, D, dtype=torch.float64) * keep[:, :, None]
    grads = []
    for way in (packed, BERT.__call__):
        bert.zero_grad()
        (way(bert, x, segments, keep) * weights).sum().backward()
        grads.append([p.grad.clone() for name, p in bert.named_parameters() if "pooler" not in name])
    for ours, theirs in zip(*grads, strict=True):
        assert_same(ours, theirs)
    assert all(grad.abs().max() > 1e-3 for grad in grads[0][:3])


def test_linear_maps_see_real_tokens_only():
    bert, (x, segments), keep = model(), batch(), KEEPS["padding at the end"]
    seen = []
    for layer in bert.layers:
        layer.feed_forward.expand.register_forward_hook(lambda _, inputs, __: seen.append(tuple(inputs[0].shape)))
        layer.attention.q.register_forward_hook(lambda _, inputs, __: seen.append(tuple(inputs[0].shape)))
    packed(bert, x, segments, keep)
    assert seen == [(1, keep.sum(), D)] * 2 * LAYERS


def test_the_model_is_as_before_afterwards_even_after_an_error():
    bert, (x, segments), keep = model(sdpa), batch(), KEEPS["holes"]
    attentions = [module for module in bert.modules() if isinstance(module, MultiHeadAttention)]
    packed(bert, x, segments, keep)
    bert.layers[1].feed_forward.expand.weight.data = torch.zeros(1, 1)
    with pytest.raises(RuntimeError):
        packed(bert, x, segments, keep)
    assert [module.attend for module in attentions] == [sdpa] * 2


def test_dropout_reaches_the_attend():
    bert, (x, segments), keep = model(dropout=0.5), batch(), KEEPS["holes"]
    given = []

    def watching(q, k, v, **kwargs):
        given.append(kwargs["dropout"])
        return attention(q, k, v, **kwargs)

    for layer in bert.layers:
        layer.attention.attend = watching
    packed(bert.train(), x, segments, keep)
    assert given == [0.5] * 4 * LAYERS


def test_texts_in_a_row_by_hand():
    """A text of one token looks at itself; two tokens with equal scores share their values."""
    q = k = torch.zeros(1, 1, 3, 2)
    v = torch.tensor([[5.0], [1.0], [3.0]]).view(1, 1, 3, 1)
    assert apart(attention, [1, 2], q, k, v).flatten().tolist() == [5.0, 2.0, 2.0]
    assert apart(attention, [3], q, k, v).flatten().tolist() == [3.0] * 3
