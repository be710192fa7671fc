"""Linformer in loops, at its limits, and by what padding must not change."""

import copy
import math
import pickle

import pytest
import torch
from torch import nn

from helpers import assert_differs, assert_same, randomise
from papercode.attention.kv_cache import KVCache
from papercode.attention.linformer import LinformerAttention, MeanPooling, SequenceProjection, StridedConvolution
from papercode.attention.masks import Band
from papercode.attention.transformer import MultiHeadAttention, attention, causal_mask

B, H, G, N, M, D, E, K, N_MAX = 2, 6, 3, 5, 7, 11, 13, 4, 17  # heads of queries, of keys; mixtures
F64 = torch.float64


def qkv(heads=H, requires_grad=False):
    shapes = (B, H, N, D), (B, heads, M, D), (B, heads, M, E)
    return [torch.randn(s, dtype=F64, requires_grad=requires_grad) for s in shapes]


def projection(seed, n_heads=1):
    return randomise(SequenceProjection(N_MAX, K, n_heads), seed)


def pair(n_heads=1):
    return LinformerAttention(projection(1, n_heads), projection(2, n_heads))


def general(name, width):
    """Every kind of projection, for vectors of a width."""
    makers = {
        "matrix": lambda: SequenceProjection(12, K),
        "pooling": lambda: MeanPooling(12, K),
        "convolution": lambda: StridedConvolution(12, K, width),
    }
    return randomise(makers[name]())


KINDS = ["matrix", "pooling", "convolution"]


# Eq. 7


def test_by_hand():
    """Keys 0 and log 9, mixed half and half: log 3. The other mixture is 0, so the weights are 3/4 and 1/4."""
    E, F = SequenceProjection(2, 2), SequenceProjection(2, 2)
    E.weight.data = torch.tensor([[[0.5, 0.5], [0.0, 0.0]]])
    F.weight.data = torch.tensor([[[1.0, 1.0], [0.0, 2.0]]])
    q, k, v = torch.ones(1), torch.tensor([0, math.log(9)]), torch.tensor([1.0, 3.0])
    y = LinformerAttention(E, F)(*(x.view(1, 1, -1, 1) for x in (q, k, v)))
    assert y.item() == pytest.approx(0.75 * 4 + 0.25 * 6)


@pytest.mark.parametrize("n_heads", [1, G])
def test_equals_loops_over_the_equation(n_heads, parity):
    (q, k, v), layer = qkv(G), pair(n_heads)
    expected = torch.zeros(B, H, N, E, dtype=F64)
    for b in range(B):
        for h in range(H):
            g = h // (H // G)
            e, f = (p.weight[g if n_heads > 1 else 0].detach() for p in (layer.E, layer.F))
            keys = [sum(e[c, j] * k[b, g, j] for j in range(M)) for c in range(K)]
            values = [sum(f[c, j] * v[b, g, j] for j in range(M)) for c in range(K)]
            for i in range(N):
                weights = [math.exp(q[b, h, i] @ key / math.sqrt(D)) for key in keys]
                expected[b, h, i] = sum(w * x for w, x in zip(weights, values)) / sum(weights)
    parity(
        "LinformerAttention",
        "the equations, with loops",
        "one mixture" if n_heads == 1 else "a mixture a head",
        layer(q, k, v),
        expected,
    )
    assert_differs(LinformerAttention(layer.F, layer.E)(q, k, v), expected)
    assert_differs(LinformerAttention(layer.E)(q, k, v), expected)
    assert_differs(layer(q, k, v, scale=1.0), expected)


def test_with_identities_it_is_attention():
    identity = SequenceProjection(M, M).double()
    identity.weight.data = torch.eye(M, dtype=F64)[None]
    (q, k, v), layer = qkv(), LinformerAttention(identity)
    assert_same(layer(q, k, v), attention(q, k, v))
    assert_same(layer(q, k, v, scale=0.3), attention(q, k, v, scale=0.3))
    assert_differs(pair()(q, k, v), attention(q, k, v))


def test_a_permutation_of_positions_is_attention_too():
    """The order of mixtures means nothing, as long as keys and values are mixed alike."""
    shuffled = SequenceProjection(M, M).double()
    shuffled.weight.data = torch.eye(M, dtype=F64)[None, torch.randperm(M)]
    q, k, v = qkv()
    assert_same(LinformerAttention(shuffled)(q, k, v), attention(q, k, v))


def test_one_mixture_tells_every_query_the_same():
    q, k, v = qkv()
    y = LinformerAttention(randomise(SequenceProjection(N_MAX, 1)))(q, k, v)
    assert_same(y, y[:, :, :1].expand_as(y))
    y = pair()(q, k, v)
    assert_differs(y, y[:, :, :1].expand_as(y))


def test_gradients():
    layer = pair(G)
    names = [name for name, _ in layer.named_parameters()]
    keep = torch.tensor([[True] * M, [True] * 4 + [False] * 3])[:, None, None]

    def function(q, k, v, *weights):
        return torch.func.functional_call(layer, dict(zip(names, weights)), (q, k, v), {"mask": keep})

    weights = [p.detach().requires_grad_() for p in layer.parameters()]
    assert torch.autograd.gradcheck(function, (*qkv(G, requires_grad=True), *weights))


# shorter inputs and padding


@pytest.mark.parametrize("kind", KINDS)
def test_shorter_is_filled_with_zeros(kind):
    x = torch.randn(B, G, M, D, dtype=F64)
    full = torch.cat([x, torch.zeros(B, G, 12 - M, D, dtype=F64)], 2)
    project = general(kind, D)
    assert project(x).shape == (B, G, K, D)
    assert_same(project(x), project(full))
    full[:, :, M] = 1.0
    assert_differs(project(x), project(full))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("as_mask", [lambda keep: keep[:, None, None, :], lambda keep: Band(keep=keep)])
def test_padding_does_not_leak_and_equals_the_shorter_input(kind, as_mask):
    q, k, v = qkv(G)
    layer = LinformerAttention(general(kind, D), general(kind, E))
    keep = torch.tensor([[True] * M, [True] * 4 + [False] * 3])
    far_k, far_v = k.clone(), v.clone()
    far_k[1, :, 4:], far_v[1, :, 4:] = 1e9, torch.nan
    y = layer(q, far_k, far_v, mask=as_mask(keep))
    assert_same(y[:1], layer(q[:1], k[:1], v[:1]))
    assert_same(y[1:], layer(q[1:], k[1:, :, :4], v[1:, :, :4]))
    assert_differs(layer(q, k, v)[1:], y[1:])


def test_nothing_to_attend_to_gives_zeros_and_sends_zeros_back():
    q, k, v = qkv(requires_grad=True)
    layer = pair()
    keep = torch.tensor([[True] * M, [False] * M])
    y = layer(q, k, v, mask=keep[:, None, None])
    y.square().sum().backward()
    assert (y[1] == 0).all()
    assert (y[0] != 0).all()
    assert all((x.grad[1] == 0).all() and (x.grad[0] != 0).any() for x in (q, k, v))


# where it cannot work


def all_of_them(*_):
    return torch.ones(N, M, dtype=torch.bool)


@pytest.mark.parametrize(
    ("mask", "said"),
    [
        (causal_mask, "mask=<function causal_mask"),
        (Band(right=0), r"mask=Band\(left=None, right=0"),
        (Band(left=2), r"mask=Band\(left=2"),
        (torch.ones(N, M, dtype=torch.bool), r"mask of shape \(5, 7\)"),
        (torch.ones(B, 1, N, M, dtype=torch.bool), r"mask of shape \(2, 1, 5, 7\)"),
        (all_of_them, "mask=<function all_of_them"),
    ],
)
def test_masks_that_tell_queries_apart_are_refused(mask, said):
    rest = r"\(as a causal mask does\), but the keys are mixed before any query sees them; .* \(b 1 1 m\)"
    with pytest.raises(ValueError, match=rf"{said}.* {rest}"):
        pair()(*qkv(), mask=mask)


def test_it_leaks_the_future_if_one_insists():
    """Why a causal mask is refused: the first query's answer depends on the last key."""
    q, k, v = qkv()
    changed = k.clone()
    changed[:, :, -1] += 1
    assert_differs(pair()(q, changed, v)[:, :, 0], pair()(q, k, v)[:, :, 0])


def test_other_errors():
    q, k, v = qkv()
    with pytest.raises(ValueError, match="bias is for pairs of a query and a key"):
        pair()(q, k, v, bias=torch.zeros(N, M, dtype=F64))
    with pytest.raises(ValueError, match="keep is for 1 keys, but there are 7"):
        pair()(q, k, v, mask=Band(keep=torch.ones(B, 1, dtype=torch.bool)))
    with pytest.raises(TypeError, match="mask must be bool"):
        pair()(q, k, v, mask=torch.zeros(B, 1, 1, M))
    for project in (SequenceProjection(6, 2), MeanPooling(6, 2), StridedConvolution(6, 2, D)):
        with pytest.raises(ValueError, match="x has 7 positions, but this projection was made for n_max=6"):
            project.double()(k)
    with pytest.raises(ValueError, match="x has 6 heads, this projection was made for n_heads=3"):
        SequenceProjection(8, 2, 3).double()(k)
    for make in (SequenceProjection, MeanPooling):
        with pytest.raises(ValueError, match="n_max=0 must be at least 1"):
            make(0, 2)
        with pytest.raises(ValueError, match="n_mixtures=0 must be at least 1"):
            make(8, 0)
    with pytest.raises(ValueError, match="n_heads=0 must be at least 1"):
        SequenceProjection(8, 2, 0)
    with pytest.raises(ValueError, match="width=0 must be at least 1"):
        StridedConvolution(8, 2, 0)
    for make in (lambda: MeanPooling(8, 3), lambda: StridedConvolution(8, 3, D)):
        with pytest.raises(ValueError, match="n_max=8 is no multiple of n_mixtures=3"):
            make()


# general projections


def test_mean_pooling_is_a_matrix():
    matrix = SequenceProjection(12, K).double()
    matrix.weight.data = torch.eye(K, dtype=F64).repeat_interleave(3, 1)[None] / 3
    x = torch.randn(B, G, M, D, dtype=F64)
    assert_same(MeanPooling(12, K)(x), matrix(x))
    assert not list(MeanPooling(12, K).parameters())


def test_the_convolution_by_its_definition(parity):
    project = general("convolution", D)
    x = torch.randn(B, G, 12, D, dtype=F64)
    weight = project.convolution.weight  # out, in, kernel
    expected = sum(x[:, :, i::3] @ weight[:, :, i].T for i in range(3))
    parity("StridedConvolution", "the equations, with loops", "stride 3", project(x), expected)
    assert sum(p.numel() for p in project.parameters()) == 3 * D * D


# in a layer


def test_in_multi_head_attention_with_every_sharing():
    """The paper's three levels, and none, as numbers of matrices: 2 h, 2, 1 a layer, and 1 for all layers."""

    def layers(*attends):
        return nn.ModuleList(MultiHeadAttention(12, 3, attend=attend) for attend in attends)

    def matrices(model):
        projections = [m for m in model.modules() if isinstance(m, SequenceProjection)]
        return sum(len(p.weight) for p in projections)

    def one(n_heads=1):
        return SequenceProjection(N_MAX, K, n_heads)

    assert matrices(layers(LinformerAttention(one(3), one(3)), LinformerAttention(one(3), one(3)))) == 2 * 2 * 3
    assert matrices(layers(LinformerAttention(one(), one()), LinformerAttention(one(), one()))) == 2 * 2
    assert matrices(layers(LinformerAttention(one()), LinformerAttention(one()))) == 2
    E = one()
    everywhere = layers(LinformerAttention(E), LinformerAttention(E))
    assert matrices(everywhere) == 1
    plain = layers(attention, attention)
    more = sum(p.numel() for p in everywhere.parameters()) - sum(p.numel() for p in plain.parameters())
    assert more == N_MAX * K
    x = torch.randn(B, N, 12)
    everywhere[1](everywhere[0](x)).sum().backward()
    assert E.weight.grad is not None
    assert pickle.loads(pickle.dumps(everywhere))[0](x).shape == (B, N, 12)
    copied = copy.deepcopy(everywhere)
    assert copied[0].attend.E is copied[1].attend.F


def test_dropout_and_scale_reach_attend():
    seen = {}

    def attend(q, k, v, **kwargs):
        seen.update(kwargs, mixtures=k.shape[2])
        return attention(q, k, v, **kwargs)

    LinformerAttention(SequenceProjection(N_MAX, K).double(), attend=attend)(*qkv(), scale=0.3, dropout=0.25)
    assert seen == {"scale": 0.3, "dropout": 0.25, "mixtures": K}


def test_with_a_cache_new_queries_see_all_keys():
    (q, k, v), layer = qkv(), pair()
    cache = KVCache(layer)
    cache(q[:, :, :3], k[:, :, :3], v[:, :, :3])
    assert_same(cache(q[:, :, 3:], k[:, :, 3:], v[:, :, 3:]), layer(q[:, :, 3:], k, v))


def test_initial_mixtures_keep_the_length_of_vectors():
    x = torch.randn(1, 1, 4096, 64)
    assert SequenceProjection(4096, 64)(x).std().item() == pytest.approx(1, abs=0.05)


def test_cost_is_linear_in_the_length():
    from torch.utils.flop_counter import FlopCounterMode

    def flops(n):
        layer = LinformerAttention(SequenceProjection(n, 128)).to("meta")
        x = torch.randn(1, 2, n, 64, device="meta")
        with FlopCounterMode(display=False) as counter:
            layer(x, x, x)
        return counter.get_total_flops()

    assert [flops(1024 * f) for f in (2, 4)] == [flops(1024) * f for f in (2, 4)]
    assert flops(1024) == 2 * 4 * (2 * 1024 * 128 * 64)  # two projections, scores and average, in each of two heads
