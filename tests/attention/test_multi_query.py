"""Multi-query attention against multi-head attention with tied heads, torch, and GPTBigCode."""

import copy
import pickle

import pytest
import torch
from torch import nn
from transformers import GPTBigCodeConfig, GPTBigCodeModel

from helpers import assert_differs, assert_same, leaks, randomise
from papercode.attention.kv_cache import KVCache
from papercode.attention.multi_query import MultiQueryAttention
from papercode.attention.transformer import MultiHeadAttention, attention, causal_mask
from papercode.attention.wrapping import Watch, wrapped

B, N, M, D, H, K, V = 2, 5, 7, 22, 3, 11, 13  # batch, queries, keys, width of model, heads, widths of key and value
F64 = torch.float64


def layer(**kwargs):
    return randomise(MultiQueryAttention(D, H, **{"d_k": K, "d_v": V} | kwargs))


def tied(model):
    """Multi-head attention whose heads of keys are all the one of model, and whose heads of values are."""
    many = MultiHeadAttention(D, H, d_k=K, d_v=V, bias=model.k.bias is not None).double()
    many.q, many.o = copy.deepcopy(model.q), copy.deepcopy(model.o)
    for name in "kv":
        state = {key: torch.cat([x] * H) for key, x in getattr(model, name).state_dict().items()}
        getattr(many, name).load_state_dict(state)
    return many


def inputs(requires_grad=False):
    return [torch.randn(B, length, D, dtype=F64, requires_grad=requires_grad) for length in (N, M)]


def test_by_hand():
    """Scores 0 and log 3 for head 1, log 3 and 0 for head 2, over the same values 10 and 20: 17.5 and 12.5."""
    model = MultiQueryAttention(2, 2, d_k=1, d_v=1, bias=False).double()
    log3 = torch.tensor(3.0, dtype=F64).log()
    weights = {"q": [[1.0, 0.0], [0.0, 1.0]], "k": [[log3, 0.0]], "v": [[20.0, 10.0]], "o": [[1.0, 0.0], [0.0, 1.0]]}
    for name, weight in weights.items():
        getattr(model, name).weight.data = torch.tensor(weight, dtype=F64)
    query, memory = torch.tensor([[[1.0, -1.0]]], dtype=F64), torch.eye(2, dtype=F64)[None]
    # head 1 asks with 1: scores log 3, 0 for values 20, 10; head 2 with -1: scores -log 3, 0
    assert_same(model(query, memory), torch.tensor([[[17.5, 12.5]]], dtype=F64))


@pytest.mark.parametrize("bias", [True, False])
def test_equals_multi_head_attention_with_tied_heads(bias):
    one, (x, memory) = layer(bias=bias), inputs()
    many = tied(one)
    for kwargs in ({}, {"mask": torch.rand(N, M) < 0.7}, {"bias": torch.randn(H, N, M, dtype=F64)}, {"scale": 0.3}):
        assert_same(one(x, memory, **kwargs), many(x, memory, **kwargs))
    many.k.weight.data[:K] += 0.1
    assert_differs(one(x, memory), many(x, memory))


def test_the_gradient_of_the_one_head_is_the_sum_of_the_tied_ones():
    one, (x, memory) = layer(), inputs(requires_grad=True)
    many, (other_x, other_memory) = tied(one), (t.detach().clone().requires_grad_() for t in (x, memory))
    one(x, memory, mask=causal_mask).square().sum().backward()
    many(other_x, other_memory, mask=causal_mask).square().sum().backward()
    for name in "kv":
        for (_, ours), (_, theirs) in zip(
            getattr(one, name).named_parameters(), getattr(many, name).named_parameters()
        ):
            heads = theirs.grad.unflatten(0, (H, -1))
            assert_same(ours.grad, heads.sum(0))
            if ours.ndim == 2 or name == "v":  # a bias of the keys shifts all scores alike: its gradient is zero
                assert_differs(ours.grad, heads.mean(0))
    for ours, theirs in ((one.q, many.q), (one.o, many.o)):
        assert_same(ours.weight.grad, theirs.weight.grad)
        assert_same(ours.bias.grad, theirs.bias.grad)
    assert_same(x.grad, other_x.grad)
    assert_same(memory.grad, other_memory.grad)


def test_gradients():
    model = MultiQueryAttention(4, 2, attend=attention)
    x = torch.randn(1, 3, 4, dtype=F64, requires_grad=True)
    assert torch.autograd.gradcheck(randomise(model), (x,))


def test_one_head_is_multi_head_attention():
    one = randomise(MultiQueryAttention(D, 1, d_k=K, d_v=V))
    many = MultiHeadAttention(D, 1, d_k=K, d_v=V).double()
    many.load_state_dict(one.state_dict())
    x, memory = inputs()
    assert_same(one(x, memory), many(x, memory))


def test_equals_the_code_of_the_paper(parity):
    """The einsums of section 3, no letter h on keys and values; the scale folded into P_q, as section 2.2 says."""
    model, (x, memory) = layer(bias=False), inputs()
    p_q, p_o = model.q.weight.view(H, K, D), model.o.weight.T.view(H, V, D)
    q = torch.einsum("bnd,hkd->bhnk", x, p_q * K**-0.5)
    k, v = torch.einsum("bmd,kd->bmk", memory, model.k.weight), torch.einsum("bmd,vd->bmv", memory, model.v.weight)
    weights = torch.einsum("bhnk,bmk->bhnm", q, k).softmax(-1)
    expected = torch.einsum("bhnv,hvd->bnd", torch.einsum("bhnm,bmv->bhnv", weights, v), p_o)
    parity("MultiQueryAttention", "the code of the paper", "to a memory", model(x, memory), expected)
    unscaled = torch.einsum("bhnk,bmk->bhnm", q * K**0.5, k).softmax(-1)
    assert_differs(model(x, memory), torch.einsum("bhnv,hvd->bnd", torch.einsum("bhnm,bmv->bhnv", unscaled, v), p_o))


def test_biases_are_a_choice():
    x, memory = inputs()
    with_bias, without = layer(), layer(bias=False)
    assert all(getattr(without, name).bias is None for name in "qkvo")
    assert all(getattr(with_bias, name).bias is not None for name in "qkvo")
    without.load_state_dict(with_bias.state_dict(), strict=False)
    assert_differs(with_bias(x, memory), without(x, memory))


def test_shapes_and_defaults():
    model = MultiQueryAttention(12, 3)
    assert [tuple(getattr(model, name).weight.shape) for name in "qkvo"] == [(12, 12), (4, 12), (4, 12), (12, 12)]
    model = layer()
    shapes = [(H * K, D), (K, D), (V, D), (D, H * V)]
    assert [tuple(getattr(model, name).weight.shape) for name in "qkvo"] == shapes


def test_what_attend_is_given():
    seen = {}

    def spy(q, k, v, **kwargs):
        seen.update(q=q.shape, k=k.shape, v=v.shape, **kwargs)
        return attention(q, k, v, **kwargs)

    model, (x, memory) = layer(attend=spy, dropout=0.25), inputs()
    model.train()(x, memory, scale=0.5)
    assert seen == {"q": (B, H, N, K), "k": (B, 1, M, K), "v": (B, 1, M, V), "dropout": 0.25, "scale": 0.5}
    model.eval()(x, memory)
    assert seen["dropout"] == 0


def test_heads_look_at_different_places():
    model, (x, memory) = layer(), inputs()
    with wrapped(model, Watch) as watches:
        model(x, memory)
    weights = watches[""].weights[0]
    assert weights.shape == (B, H, N, M)
    assert_differs(weights[:, 0], weights[:, 1])


def test_cached_equals_uncached_and_the_cache_holds_one_head():
    model, (x, _) = layer(), inputs()
    whole = model(x, mask=causal_mask)
    with wrapped(model, KVCache) as caches, torch.no_grad():
        steps = [model(x[:, i : i + 1], mask=causal_mask) for i in range(N)]
        assert caches[""].k.shape == (B, 1, N, K)
        assert caches[""].v.shape == (B, 1, N, V)
    assert_same(torch.cat(steps, 1), whole)
    assert_differs(torch.cat(steps, 1), model(x))
    with wrapped(tied(model), KVCache) as caches, torch.no_grad():
        next(iter(caches.values()))(*(torch.randn(B, H, 1, K, dtype=F64) for _ in range(3)))
        assert caches[""].k.shape == (B, H, 1, K)


def test_beams_are_reordered():
    model, (x, _) = layer(), inputs()
    rows = torch.tensor([1, 1])
    with wrapped(model, KVCache) as caches, torch.no_grad():
        model(x[:, :-1], mask=causal_mask)
        caches[""].reorder(rows)
        last = model(x[rows, -1:], mask=causal_mask)
    assert_same(last, model(x, mask=causal_mask)[rows, -1:])


def test_no_position_sees_a_later_one_and_padding_does_not_leak():
    model, (x, _) = layer(), inputs()
    changed, early = x.clone(), torch.arange(N) < 3
    changed[:, 3:] += 1
    assert not leaks(lambda t: model(t, mask=causal_mask).transpose(0, 1), x, changed, early)
    assert leaks(lambda t: model(t).transpose(0, 1), x, changed, early)
    keep = early.expand(B, 1, 1, N)
    assert not leaks(lambda t: model(x, t, mask=keep), x, changed, torch.ones(B, dtype=torch.bool))


def test_permuting_the_memory_changes_nothing():
    model, (x, memory) = layer(), inputs()
    assert_same(model(x, memory[:, torch.randperm(M)]), model(x, memory))


@pytest.mark.parametrize("implementation", ["eager", "sdpa"])
def test_equals_gpt_bigcode(implementation, parity):
    """Each attention inside GPTBigCodeModel, with the same input and weights; its fused map holds q, then k, then v."""
    sizes = {"vocab_size": 19, "n_positions": 17, "n_embd": D, "n_layer": 2, "n_head": 2}
    config = GPTBigCodeConfig(**sizes, multi_query=True, attn_implementation=implementation)
    tolerance = 1e-6 if implementation == "eager" else 1e-7  # eager computes its softmax in float32
    reference = randomise(GPTBigCodeModel(config)).eval()
    seen = []
    for block in reference.h:
        block.attn.register_forward_hook(lambda module, given, out: seen.append((module, given[0], out[0])))
    reference(torch.randint(19, (B, N)))
    assert len(seen) == 2
    for number, (module, x, out) in enumerate(seen):
        ours, parts = MultiQueryAttention(D, 2).double(), [D, D // 2, D // 2]
        weights, biases = module.c_attn.weight.split(parts), module.c_attn.bias.split(parts)
        for name, weight, bias in zip("qkv", weights, biases, strict=True):
            getattr(ours, name).load_state_dict({"weight": weight, "bias": bias})
        ours.o.load_state_dict(module.c_proj.state_dict())
        y, configuration = (
            ours(x, mask=causal_mask),
            f"layer {number}, {implementation}" + ", its softmax in float32" * (implementation == "eager"),
        )
        parity("MultiQueryAttention", "transformers' GPTBigCodeAttention", configuration, y, out, tolerance)
        assert_differs(ours(x), out)
        ours.k, ours.v = ours.v, ours.k
        assert_differs(ours(x, mask=causal_mask), out)


@pytest.mark.parametrize(("d_model", "n_heads", "parameters"), [(6144, 48, 2 * 6144**2 + 2 * 6144 * 128)])
def test_full_size_on_the_meta_device(d_model, n_heads, parameters):
    """StarCoder's attention: 48 heads of 128."""
    with torch.device("meta"):
        full = MultiQueryAttention(d_model, n_heads, bias=False)
        assert full(torch.zeros(1, 3, d_model)).shape == (1, 3, d_model)
    assert sum(p.numel() for p in full.parameters()) == parameters


def test_an_indivisible_width_is_refused():
    with pytest.raises(ValueError, match="d_model=22 is not divisible by n_heads=3"):
        MultiQueryAttention(D, H)


def test_copies_and_pickles():
    model, (x, memory) = layer(), inputs()
    expected = model(x, memory)
    assert torch.equal(copy.deepcopy(model)(x, memory), expected)
    assert torch.equal(pickle.loads(pickle.dumps(model))(x, memory), expected)
    fresh = MultiQueryAttention(D, H, d_k=K, d_v=V).double()
    fresh.load_state_dict(model.state_dict())
    assert torch.equal(fresh(x, memory), expected)


def test_every_parameter_learns():
    torch.manual_seed(0)
    model, x, target = MultiQueryAttention(12, 3), torch.randn(4, N, 12), torch.randn(4, N, 12)
    model.o = nn.Linear(12, 12)
    optimizer = torch.optim.Adam(model.parameters(), 0.02)
    for _ in range(300):
        loss = (model(x) - target).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss < 0.05
