"""GPT-2 by what sets it apart from GPT: norms that moved, initial weights, sizes. Weights: tests/checkpoints."""

import math

import pytest
import torch

from helpers import assert_differs, assert_same, randomise
from papercode.attention.layer_norm import LayerNorm
from papercode.attention.transformer import PostNorm, attention
from papercode.decoders.gpt import GPT
from papercode.decoders.gpt2 import GPT2, PreNorm

V, SIZES = 29, {"n_positions": 23, "d_model": 14, "n_heads": 2, "d_ff": 19, "n_layers": 3}


def tokens(b=2, n=7):
    return torch.randint(V, (b, n))


def test_the_norm_comes_first():
    block, x = randomise(PreNorm(LayerNorm(7))), torch.randn(2, 3, 7, dtype=torch.float64)
    assert_same(block(x, torch.exp), x + block.norm(x).exp())
    assert_differs(block(x, torch.exp), block.norm(x + x.exp()))
    dropped = PreNorm(LayerNorm(7), 0.5).double()(torch.ones_like(x), lambda y: y + 3)
    assert set(dropped.unique().tolist()) == {1.0, 7.0}  # the norm of a constant is 0, and 3 is doubled or dropped
    assert PreNorm(LayerNorm(7)).dropout.p == 0


def test_it_is_gpt_with_the_norms_moved():
    ours, text = randomise(GPT2(V, **SIZES)).eval(), tokens()
    with torch.no_grad():
        x = ours.embed(text)
        for layer in ours.layers:
            first, second = (residual.norm for residual in layer.residuals)
            x = x + layer.attention(first(x), mask=torch.ones(7, 7).tril().bool())
            x = x + layer.feed_forward(second(x))
    assert_same(ours.encode(text), ours.norm(x))
    assert_same(ours(text), ours.norm(x) @ ours.words.weight.T)
    assert_differs(ours(text), x @ ours.words.weight.T)  # without the last norm
    post = randomise(GPT2(V, **SIZES, residual=PostNorm)).eval()
    assert_same(post.encode(text), post.norm(GPT.encode(post, text)))
    assert_differs(post(text), ours(text))


def test_mask_and_start_reach_every_layer():
    ours, text, mask = randomise(GPT2(V, **SIZES)).eval(), tokens(), torch.eye(7).bool()
    found = ours.encode(text, mask, 3)
    assert_same(found, ours.norm(GPT.encode(ours, text, mask, 3)))
    assert_differs(found, ours.encode(text, mask))
    assert_differs(found, ours.encode(text, start=3))


def test_arguments_reach_the_model():
    def attend(*args, **kwargs):
        return attention(*args, **kwargs)

    def found(model):
        layer = model.layers[0]
        rates = {model.dropout.p, layer.attention.dropout, *(residual.dropout.p for residual in layer.residuals)}
        epsilons = {model.norm.eps, *(residual.norm.eps for residual in layer.residuals)}
        return rates, epsilons, layer.attention.d_k, model.positions.num_embeddings, layer.attention.attend

    with torch.device("meta"):
        assert found(GPT2(V, **SIZES, dropout=0.3, eps=0.5, attend=attend)) == ({0.3}, {0.5}, 7, 23, attend)
        assert found(GPT2(V, n_layers=1)) == ({0.1}, {1e-5}, 64, 1024, attention)


def test_initial_weights_on_the_residual_path_are_divided_by_the_root_of_its_layers():
    torch.manual_seed(0)
    ours = GPT2(500, **{**SIZES, "d_model": 100, "d_ff": None, "n_layers": 8})
    scaled = 0
    for name, p in ours.named_parameters():
        if p.ndim > 1:
            last = name.endswith(("o.weight", "contract.weight"))
            scaled += last
            assert p.std().item() == pytest.approx(0.02 / math.sqrt(16) if last else 0.02, rel=0.1), name
    assert scaled == 16


def growth(n_layers, scaled):
    """Variance of the residual stream behind the last layer over that of the first sublayer's output times N."""
    torch.manual_seed(0)
    ours = GPT2(101, n_positions=16, d_model=64, n_heads=2, n_layers=n_layers).eval()
    if not scaled:
        for name, p in ours.named_parameters():
            if name.endswith(("o.weight", "contract.weight")):
                p.data *= (2 * n_layers) ** 0.5
    with torch.no_grad():
        x = ours.embed(torch.randint(101, (8, 16)))
        for layer in ours.layers:
            x = layer(x, mask=torch.ones(16, 16).tril().bool())
    return x.var().item()


def test_scaling_keeps_the_variance_at_every_depth():
    shallow, deep = growth(2, True), growth(32, True)
    assert deep == pytest.approx(shallow, rel=0.25)
    assert growth(32, False) > 3 * growth(2, False)


@pytest.mark.parametrize(
    ("n_layers", "d_model", "n_heads", "count"),
    [
        (12, 768, 12, 124_439_808),
        (24, 1024, 16, 354_823_168),
        (36, 1280, 20, 774_030_080),
        (48, 1600, 25, 1_557_611_200),
    ],
)
def test_sizes_of_table_2(n_layers, d_model, n_heads, count):
    with torch.device("meta"):
        ours = GPT2(n_layers=n_layers, d_model=d_model, n_heads=n_heads)
    assert sum(p.numel() for p in ours.parameters()) == count
    if n_layers == 12:
        with torch.device("meta"):
            assert sum(p.numel() for p in GPT2().parameters()) == count


def test_the_width_inside_is_four_times_that_outside_unless_given():
    with torch.device("meta"):
        assert GPT2(V, d_model=20, n_heads=2, n_layers=1).layers[0].feed_forward.expand.out_features == 80
        assert GPT2(V, d_model=20, n_heads=2, n_layers=1, d_ff=7).layers[0].feed_forward.expand.out_features == 7
