"""The Transformer against torch's, by hand, in loops, and by what must not change."""

import copy
import inspect
import io
import math
import os
import pickle
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

import papercode
from helpers import assert_differs, assert_same, leaks, randomise
from papercode.attention import transformer
from papercode.attention.layer_norm import LayerNorm
from papercode.attention.sinusoids import positions
from papercode.attention.transformer import (
    DecoderLayer,
    EncoderLayer,
    FeedForward,
    MultiHeadAttention,
    PostNorm,
    Transformer,
    attention,
    causal_mask,
)

B, H, N, M, D, E = 2, 3, 5, 7, 11, 13  # batch, heads, queries, keys, widths of keys and of values
V, D_MODEL, HEADS, D_FF, LAYERS, S, T = 23, 14, 2, 19, 3, 7, 5
F64 = torch.float64


def qkv(requires_grad=False):
    shapes = (B, H, N, D), (B, H, M, D), (B, H, M, E)
    return [torch.randn(s, dtype=F64, requires_grad=requires_grad) for s in shapes]


def some_mask():
    mask = torch.rand(B, 1, N, M) < 0.6
    mask[..., 0] = True
    return mask


# attention


def test_by_hand():
    """exp(0) = 1 and exp(log 3) = 3: weights 1/4 and 3/4."""
    q, k, v = torch.ones(1), torch.tensor([0, math.log(3)]), torch.tensor([0.0, 1.0])
    assert attention(*(t.view(1, 1, -1, 1) for t in (q, k, v))).item() == pytest.approx(0.75)


def test_equals_loops_over_the_equation(parity):
    (q, k, v), mask, bias = qkv(), some_mask(), torch.randn(1, H, N, M, dtype=F64)
    expected = torch.zeros(B, H, N, E, dtype=F64)
    for b in range(B):
        for h in range(H):
            for n in range(N):
                scores = [math.fsum(q[b, h, n] * k[b, h, m]) / math.sqrt(D) + bias[0, h, n, m].item() for m in range(M)]
                weights = [math.exp(s) if mask[b, 0, n, m] else 0.0 for m, s in enumerate(scores)]
                for m in range(M):
                    expected[b, h, n] += weights[m] / sum(weights) * v[b, h, m]
    parity("attention", "the equations, with loops", "mask, bias", attention(q, k, v, mask=mask, bias=bias), expected)


def test_equals_torch_with_every_argument(parity):
    (q, k, v), mask, bias = qkv(), some_mask(), torch.randn(B, H, N, M, dtype=F64)
    reference = nn.functional.scaled_dot_product_attention
    both = bias.masked_fill(~mask, -torch.inf)
    for name, given, theirs in (
        ("plain", {}, {}),
        ("mask", {"mask": mask}, {"attn_mask": mask}),
        ("mask, bias, scale", {"mask": mask, "bias": bias, "scale": 0.7}, {"attn_mask": both, "scale": 0.7}),
    ):
        parity("attention", "torch.nn.functional", name, attention(q, k, v, **given), reference(q, k, v, **theirs))
    assert_differs(attention(q, k, v, mask=mask), attention(q, k, v))
    assert_differs(attention(q, k, v, mask=~mask), attention(q, k, v, mask=mask))
    assert_differs(attention(q, k, v, bias=bias), attention(q, k, v))
    assert_differs(attention(q, k, v, scale=1 / D), attention(q, k, v))  # not by d_k but by its root


def test_gradients():
    mask = some_mask()
    mask[0, 0, 3] = False
    bias = torch.randn(1, H, N, M, dtype=F64, requires_grad=True)

    def function(q, k, v, bias):
        return attention(q, k, v, mask=mask, bias=bias)

    assert torch.autograd.gradcheck(function, (*qkv(requires_grad=True), bias))


@pytest.mark.filterwarnings("ignore:Anomaly Detection")
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
def test_a_query_without_keys_gets_zeros_and_sends_zeros_back(dtype):
    q, k, v = (t.detach().to(dtype).requires_grad_() for t in qkv())
    bias = torch.zeros(N, M, dtype=dtype, requires_grad=True)
    mask = torch.ones(N, M, dtype=torch.bool)
    mask[2] = False
    with torch.autograd.detect_anomaly():  # it would raise at a NaN even if a later step hid it
        y = attention(q, k, v, mask=mask, bias=bias)
        y.square().sum().backward()
    assert (y[:, :, 2] == 0).all()
    assert (y[:, :, 1] != 0).all()
    assert (q.grad[:, :, 2] == 0).all()
    assert (bias.grad[2] == 0).all()
    assert (q.grad[:, :, 1] != 0).any()
    assert all(t.grad.isfinite().all() for t in (q, k, v, bias))
    nothing = attention(q, k, v, mask=torch.zeros(N, M, dtype=torch.bool))
    assert (nothing == 0).all()


def test_rows_of_weights_sum_to_one():
    q, k, v = qkv()
    assert_same(attention(q, k, torch.ones_like(v)), torch.ones(B, H, N, E, dtype=F64))


def test_a_masked_key_does_not_leak_however_large():
    (q, k, v), keep = qkv(), torch.tensor([True] * 4 + [False] * 3)
    far = k.clone()
    far[:, :, 4:] = 1e9
    assert torch.equal(attention(q, far, v, mask=keep), attention(q, k, v, mask=keep))
    assert_same(attention(q, k, v, mask=keep), attention(q, k[:, :, :4], v[:, :, :4]))


def test_dropout_falls_on_the_weights():
    q, k, _ = qkv()
    weights = attention(q, k, torch.eye(M, dtype=F64).expand(B, H, M, M))
    dropped = attention(q, k, torch.eye(M, dtype=F64).expand(B, H, M, M), dropout=0.25)
    assert (((dropped - weights / 0.75).abs() < 1e-12) | (dropped == 0)).all()
    assert 0 < (dropped == 0).sum() < dropped.numel()
    sums = attention(q, k, torch.ones(B, H, M, E, dtype=F64), dropout=0.25)
    assert_same(sums, sums[..., :1].expand_as(sums))  # all features of a value are dropped together
    assert_differs(sums, torch.ones_like(sums))


def test_a_mask_of_floats_is_refused():
    q, k, v = qkv()
    with pytest.raises(TypeError, match=r"mask must be bool \(True = may attend\), got torch.float64; .* as bias="):
        attention(q, k, v, mask=torch.zeros(N, M, dtype=F64))


def test_shapes_are_enforced_here():
    q, k, v = qkv()
    with pytest.raises(TypeError, match=r"(?s)parameter 'v'.*b g m e.*m=7"):
        attention(q, k, v[:, :, :-1])


def test_causal_mask():
    assert causal_mask(3).tolist() == [[True, False, False], [True, True, False], [True, True, True]]
    assert causal_mask(2, 4).tolist() == [[True, True, True, False], [True, True, True, True]]


# multi-head attention


def test_multi_head_equals_torch(parity):
    ours = randomise(MultiHeadAttention(D_MODEL, HEADS))
    reference = copy_attention(ours, nn.MultiheadAttention(D_MODEL, HEADS, batch_first=True).double())
    x, memory = torch.randn(B, N, D_MODEL, dtype=F64), torch.randn(B, M, D_MODEL, dtype=F64)
    keep = torch.tensor([[True] * M, [True] * (M - 3) + [False] * 3])
    expected, _ = reference(x, memory, memory, key_padding_mask=~keep)  # torch's True means: leave out
    mine, theirs = [ours(x, memory, mask=keep[:, None, None]), ours(x)], [expected, reference(x, x, x)[0]]
    parity("MultiHeadAttention", "torch.nn.MultiheadAttention", "to itself; to a padded memory", mine, theirs)
    assert_differs(ours(x, memory), expected)


def test_multi_head_equals_the_sum_over_heads_with_widths_of_their_own():
    """Concat(heads) W^O is a sum over heads, each with its rows of W^O; here d_k = 3 and d_v = 5 (Table 3, rows B)."""
    heads, d_k, d_v = 2, 3, 5
    layer = randomise(MultiHeadAttention(D_MODEL, heads, d_k=d_k, d_v=d_v, bias=False))
    x, memory = torch.randn(N, D_MODEL, dtype=F64), torch.randn(M, D_MODEL, dtype=F64)
    expected = torch.zeros(N, D_MODEL, dtype=F64)
    for i in range(heads):
        w_q, w_k = (w.weight[i * d_k : (i + 1) * d_k].T for w in (layer.q, layer.k))
        w_v, w_o = layer.v.weight[i * d_v : (i + 1) * d_v].T, layer.o.weight[:, i * d_v : (i + 1) * d_v].T
        weights = ((x @ w_q) @ (memory @ w_k).T / math.sqrt(d_k)).softmax(-1)
        expected += weights @ (memory @ w_v) @ w_o
    assert_same(layer(x[None], memory[None])[0], expected)


def test_without_positions_order_does_not_matter():
    layer, x, order = (
        randomise(MultiHeadAttention(D_MODEL, HEADS)),
        torch.randn(B, N, D_MODEL, dtype=F64),
        [3, 0, 4, 2, 1],
    )
    assert_same(layer(x[:, order]), layer(x)[:, order])
    assert_differs(layer(x[:, order], mask=causal_mask(N)), layer(x, mask=causal_mask(N))[:, order])


def test_attend_is_all_between_the_projections_and_the_output():
    seen = {}

    def average(q, k, v, **kwargs):
        seen.update(kwargs, shapes=[tuple(t.shape) for t in (q, k, v)])
        return v.mean(2, keepdim=True).expand(-1, -1, q.shape[2], -1)

    layer = randomise(MultiHeadAttention(D_MODEL, HEADS, dropout=0.3, attend=average))
    x, memory = torch.randn(B, N, D_MODEL, dtype=F64), torch.randn(B, M, D_MODEL, dtype=F64)
    y = layer(x, memory, anything=17)
    assert seen == {"anything": 17, "dropout": 0.3, "shapes": [(B, HEADS, n, D_MODEL // HEADS) for n in (N, M, M)]}
    assert_same(y, layer.o(layer.v(memory).mean(1, keepdim=True)).expand(-1, N, -1))
    layer.eval()(x)
    assert seen["dropout"] == 0.0


def test_projections_may_be_replaced():
    """Two heads that share one key and one value: grouped-query attention, without a change to this module."""

    def share(q, k, v, **kwargs):
        return attention(q, k.expand_as(q), v.expand_as(q), **kwargs)

    layer = randomise(MultiHeadAttention(D_MODEL, HEADS, attend=share))
    layer.k, layer.v = (randomise(nn.Linear(D_MODEL, D_MODEL // HEADS), seed) for seed in (1, 2))
    full = randomise(MultiHeadAttention(D_MODEL, HEADS))
    for name in "kv":
        getattr(full, name).weight.data = getattr(layer, name).weight.repeat(HEADS, 1)
        getattr(full, name).bias.data = getattr(layer, name).bias.repeat(HEADS)
    x = torch.randn(B, N, D_MODEL, dtype=F64)
    assert_same(layer(x), full(x))


def test_a_learned_attend_is_trained_with_the_layer():
    class Scaled(nn.Module):
        def __init__(self):
            super().__init__()
            self.scale = nn.Parameter(torch.ones(()))

        def forward(self, q, k, v, **kwargs):
            return attention(q * self.scale, k, v, **kwargs)

    assert "attend.scale" in dict(MultiHeadAttention(D_MODEL, HEADS, attend=Scaled()).named_parameters())


def test_heads_must_divide_the_width():
    with pytest.raises(ValueError, match="d_model=10 is not divisible by n_heads=3"):
        MultiHeadAttention(10, 3)
    assert MultiHeadAttention(10, 3, d_k=4).o.in_features == 12


# layers


def test_feed_forward_is_equation_2():
    layer, x = randomise(FeedForward(D_MODEL, D_FF)), torch.randn(B, N, D_MODEL, dtype=F64)
    hidden = (x @ layer.expand.weight.T + layer.expand.bias).clamp(min=0)
    assert_same(layer(x), hidden @ layer.contract.weight.T + layer.contract.bias)
    tanh = FeedForward(D_MODEL, D_FF, nn.Tanh()).double()
    tanh.load_state_dict(layer.state_dict())
    assert_differs(tanh(x), layer(x))


def test_the_norm_comes_last_as_in_section_3_1():
    block, x = PostNorm(LayerNorm(D_MODEL, eps=0.0)).double(), torch.randn(B, N, D_MODEL, dtype=F64)
    y = block(x, torch.exp)
    assert_same(y.mean(-1), torch.zeros(B, N, dtype=F64))
    assert_same(y.std(-1, correction=0), torch.ones(B, N, dtype=F64))
    assert_same(y, block.norm(x + x.exp()))
    assert_differs(y, x + block.norm(x).exp())  # norm first, the order of many implementations


def test_layers_equal_torch(parity):
    ours = encoder_layer(randomised=True)
    reference = nn.TransformerEncoderLayer(D_MODEL, HEADS, D_FF, dropout=0, batch_first=True).double()
    copy_encoder_layer(ours, reference)
    x, keep = torch.randn(B, N, D_MODEL, dtype=F64), torch.tensor([[True] * N, [True] * 2 + [False] * 3])
    mine, theirs = ours(x, mask=keep[:, None, None]), reference(x, src_key_padding_mask=~keep)
    parity("Transformer", "torch.nn.TransformerEncoderLayer", "padding", mine, theirs)
    first = nn.TransformerEncoderLayer(D_MODEL, HEADS, D_FF, dropout=0, batch_first=True, norm_first=True).double()
    first.load_state_dict(reference.state_dict())
    assert_differs(ours(x), first(x))


def test_residuals_come_from_a_factory_one_for_each_sublayer():
    class Plain(nn.Module):
        def forward(self, x, sublayer):
            return sublayer(x)

    def layer(x, **kwargs):
        return x * 2 + len(kwargs)

    def cross(x, memory, mask):
        return x + memory + mask

    encoder = EncoderLayer(Lambda(layer), Lambda(lambda x: x + 1), Plain)
    decoder = DecoderLayer(Lambda(layer), Lambda(cross), Lambda(lambda x: x + 1), Plain)
    one = torch.ones(1, 1, 1)
    assert len({id(r) for r in encoder.residuals}) == 2
    assert len({id(r) for r in decoder.residuals}) == 3
    assert encoder(one, mask=None).item() == 1 * 2 + 1 + 1
    assert decoder(one, 100 * one, memory_mask=1000 * one, mask=None).item() == 1 * 2 + 1 + 100 + 1000 + 1


# the whole model


def model(randomised=True, **kwargs):
    settings = {"d_model": D_MODEL, "n_heads": HEADS, "d_ff": D_FF, "n_layers": LAYERS, "dropout": 0.0, **kwargs}
    built = Transformer(V, **settings)
    return randomise(built).eval() if randomised else built


def batch():
    source, target = torch.randint(V, (B, S)), torch.randint(V, (B, T))
    return source, target, torch.tensor([[True] * S, [True] * (S - 3) + [False] * 3])


def test_equals_torch_with_padding(parity):
    ours = model()
    for layer in ours.modules():
        if isinstance(layer, MultiHeadAttention):  # torch's maps have biases; ours may be replaced
            layer.q, layer.k, layer.v, layer.o = (nn.Linear(D_MODEL, D_MODEL) for _ in range(4))
    randomise(ours)
    reference = torch_transformer(ours)
    source, target, keep = batch()
    expected = reference(
        embedded(ours, source),
        embedded(ours, target),
        tgt_mask=~causal_mask(T),
        src_key_padding_mask=~keep,
        memory_key_padding_mask=~keep,
    )
    logits = expected @ ours.embedding.weight.T
    parity("Transformer", "torch.nn.Transformer", "padding", ours(source, target, keep), logits)
    assert_differs(ours(source, target), ours(source, target, keep))
    assert_differs(ours(source, target, keep), (expected + 0.1) @ ours.embedding.weight.T)


def test_projections_have_no_bias_and_the_networks_have():
    names = [name for name, _ in model(randomised=False).named_parameters() if name.endswith("bias")]
    assert {name.split(".")[-2] for name in names} == {"expand", "contract", "norm"}


def test_one_matrix_for_source_target_and_output():
    ours, (source, target, keep) = model(), batch()
    assert [p.shape for p in ours.parameters() if V in p.shape] == [(V, D_MODEL)]
    assert_same(ours.embed(source), embedded(ours, source))
    before = ours(source, target, keep)
    ours.embedding.weight.data *= 2
    assert_differs(ours(source, target, keep), before)
    assert_differs(ours.embed(source), 2 * embedded(ours, source))


def test_embeddings_start_with_variance_one():
    torch.manual_seed(0)
    big = Transformer(1009, d_model=128, n_heads=2, d_ff=11, n_layers=1)
    assert (big.embedding.weight * 128**0.5).std().item() == pytest.approx(1, abs=0.01)
    glorot = math.sqrt(6 / (128 + 11))
    assert 0.99 * glorot < big.encoder[0].feed_forward.expand.weight.abs().max() <= glorot


def test_no_position_sees_a_later_one():
    ours, (source, target, keep) = model(), batch()
    changed = target.clone()
    changed[:, 3:] = (changed[:, 3:] + 1) % V
    before = torch.arange(T) < 3

    def logits(target):
        return ours(source, target, keep).transpose(0, 1)

    assert not leaks(logits, target, changed, before)
    assert leaks(logits, target, changed, ~before)


def test_padding_does_not_leak():
    ours, (source, target, keep) = model(), batch()
    changed = torch.where(keep, source, (source + 1) % V)
    assert not leaks(lambda s: ours(s, target, keep), source, changed, torch.ones(B, dtype=torch.bool))
    assert leaks(lambda s: ours(s, target), source, changed, torch.tensor([False, True]))
    alone = ours(source[1:, : S - 3], target[1:])
    assert_same(ours(source, target, keep)[1:], alone)
    padded = torch.cat([target, torch.zeros(B, 2, dtype=torch.long)], 1)
    assert_same(ours(source, padded, keep)[:, :T], ours(source, target, keep))


def test_every_decoder_layer_attends_to_the_memory():
    ours, (source, target, keep) = model(), batch()
    memory = ours.encode(source, keep)
    for layer in ours.decoder:
        whole = ours.decode(target, memory, keep)
        o = layer.cross_attention.o.weight
        o.data, kept = torch.zeros_like(o), o.data
        assert_differs(ours.decode(target, memory, keep), whole)
        o.data = kept


def test_teacher_forcing_is_one_pass_that_equals_token_by_token():
    ours, (source, target, keep) = model(), batch()
    steps = [ours(source, target[:, : i + 1], keep)[:, -1] for i in range(T)]
    assert_same(ours(source, target, keep), torch.stack(steps, 1))


def test_dropout_is_where_section_5_4_puts_it(monkeypatch):
    calls = []
    plain = nn.functional.dropout

    def spy(x, p=0.5, training=True, inplace=False):
        calls.append((tuple(x.shape), p))
        return plain(x, p, training, inplace)

    monkeypatch.setattr(nn.functional, "dropout", spy)
    source, target, _ = batch()
    model(randomised=False, dropout=0.25).train()(source, target)
    dropped = [shape for shape, p in calls if p]
    assert dropped.count((B, S, D_MODEL)) == 1 + 2 * LAYERS  # sum of embedding and position, two sublayers a layer
    assert dropped.count((B, T, D_MODEL)) == 1 + 3 * LAYERS
    assert len(dropped) == 2 + 5 * LAYERS  # and nowhere else: not on the weights, not inside the networks


def test_dropout_falls_before_the_sum_and_the_norm():
    block = PostNorm(LayerNorm(D_MODEL), dropout=1.0)
    x = torch.randn(B, N, D_MODEL)
    assert torch.equal(block.train()(x, torch.exp), block.norm(x))


def test_one_batch_can_be_overfitted():
    torch.manual_seed(0)
    ours, (source, target, keep) = model(randomised=False), batch()
    optimizer = torch.optim.Adam(ours.parameters(), 3e-3)
    for _ in range(150):
        loss = nn.functional.cross_entropy(ours(source, target[:, :-1], keep).flatten(0, 1), target[:, 1:].flatten())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss < 0.05
    assert torch.equal(ours(source, target[:, :-1], keep).argmax(-1), target[:, 1:])


def test_attend_is_given_to_every_attention():
    calls = []

    def spy(q, k, v, **kwargs):
        calls.append(q.shape)
        return attention(q, k, v, **kwargs)

    source, target, keep = batch()
    assert_same(model(attend=spy)(source, target, keep), model()(source, target, keep))
    assert len(calls) == 3 * LAYERS


def test_copies_and_pickles():
    ours, inputs = model(), batch()
    expected = ours(*inputs)
    assert torch.equal(copy.deepcopy(ours)(*inputs), expected)
    assert torch.equal(pickle.loads(pickle.dumps(ours))(*inputs), expected)
    buffer = io.BytesIO()
    torch.save(ours.state_dict(), buffer)
    fresh = model(randomised=False).double()
    fresh.load_state_dict(torch.load(io.BytesIO(buffer.getvalue()), weights_only=True))
    assert torch.equal(fresh(*inputs), expected)


def test_compiles_without_a_graph_break():
    """In a process of its own, where no shapes are enforced: torch cannot trace those checks."""
    code = """if True:
        import torch
        from papercode.attention.transformer import Transformer
        model = Transformer(23, d_model=14, n_heads=2, d_ff=19, n_layers=2).eval()
        inputs = torch.randint(23, (2, 7)), torch.randint(23, (2, 5)), torch.rand(2, 7) < 0.7
        compiled = torch.compile(model, backend="eager", fullgraph=True)
        torch.testing.assert_close(compiled(*inputs), model(*inputs))
        print("same")
    """
    source = str(Path(papercode.__file__).parents[1])
    done = subprocess.run([sys.executable, "-c", code], env={**os.environ, "PYTHONPATH": source}, capture_output=True)
    assert done.stdout == b"same\n", done.stderr.decode()


@pytest.mark.parametrize(
    ("settings", "parameters"),
    [({}, 63_045_632), ({"d_model": 1024, "d_ff": 4096, "n_heads": 16}, 214_171_648)],
    ids=["base", "big"],
)
def test_full_size_on_the_meta_device(settings, parameters):
    with torch.device("meta"):
        full = Transformer(37_000, **settings)
        tokens = torch.zeros(2, 17, dtype=torch.long)
        assert full(tokens, tokens).shape == (2, 17, 37_000)
    assert sum(p.numel() for p in full.parameters()) == parameters


def test_odd_width_is_refused():
    with pytest.raises(ValueError, match="d=7 must be even"):
        model(d_model=7, n_heads=1)(*batch())


def test_signatures_that_descendants_build_on():
    """A hub with many dependants: a change here is a change everywhere."""
    signatures = {
        "attention": ["q", "k", "v", "*mask", "*bias", "*scale", "*dropout"],
        "MultiHeadAttention": ["d_model", "n_heads", "*d_k", "*d_v", "*bias", "*dropout", "*attend"],
        "FeedForward": ["d_model", "d_ff", "activation"],
        "PostNorm": ["norm", "dropout"],
        "EncoderLayer": ["attention", "feed_forward", "residual"],
        "DecoderLayer": ["self_attention", "cross_attention", "feed_forward", "residual"],
    }
    for name, expected in signatures.items():
        parameters = inspect.signature(getattr(transformer, name)).parameters.values()
        assert [("*" if p.kind is p.KEYWORD_ONLY else "") + p.name for p in parameters] == expected


# helpers


class Lambda(nn.Module):
    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, *args, **kwargs):
        return self.function(*args, **kwargs)


def encoder_layer(randomised=False):
    layer = EncoderLayer(
        MultiHeadAttention(D_MODEL, HEADS), FeedForward(D_MODEL, D_FF), lambda: PostNorm(LayerNorm(D_MODEL))
    )
    return randomise(layer) if randomised else layer


def embedded(ours, tokens):
    return ours.embedding.weight[tokens] * math.sqrt(D_MODEL) + positions(tokens.shape[1], D_MODEL)


def copy_attention(ours, reference):
    reference.in_proj_weight.data = torch.cat([ours.q.weight, ours.k.weight, ours.v.weight])
    reference.in_proj_bias.data = torch.cat([ours.q.bias, ours.k.bias, ours.v.bias])
    reference.out_proj.weight.data, reference.out_proj.bias.data = ours.o.weight, ours.o.bias
    return reference


def copy_rest(ours, reference):
    reference.linear1.load_state_dict(ours.feed_forward.expand.state_dict())
    reference.linear2.load_state_dict(ours.feed_forward.contract.state_dict())
    for i, residual in enumerate(ours.residuals, 1):
        getattr(reference, f"norm{i}").load_state_dict({"weight": residual.norm.gain, "bias": residual.norm.bias})


def copy_encoder_layer(ours, reference):
    copy_attention(ours.attention, reference.self_attn)
    copy_rest(ours, reference)


def torch_transformer(ours):
    settings = {"d_model": D_MODEL, "nhead": HEADS, "dim_feedforward": D_FF, "dropout": 0.0, "batch_first": True}
    encoder = nn.TransformerEncoder(nn.TransformerEncoderLayer(**settings), LAYERS, None, enable_nested_tensor=False)
    decoder = nn.TransformerDecoder(nn.TransformerDecoderLayer(**settings), LAYERS, None)
    reference = nn.Transformer(
        D_MODEL, HEADS, custom_encoder=encoder, custom_decoder=decoder, batch_first=True
    ).double()
    for mine, theirs in zip(ours.encoder, encoder.layers, strict=True):
        copy_encoder_layer(mine, theirs)
    for mine, theirs in zip(ours.decoder, decoder.layers, strict=True):
        copy_attention(mine.self_attention, theirs.self_attn)
        copy_attention(mine.cross_attention, theirs.multihead_attn)
        copy_rest(mine, theirs)
    return reference.eval()
