"""Grouped-query attention against its two limits, torch, and LLaMA; and the conversion of what is trained already."""

import copy
import pickle
from functools import partial

import pytest
import torch
from torch import nn
from transformers import LlamaConfig, LlamaModel
from transformers.models.llama.modeling_llama import apply_rotary_pos_emb

from helpers import assert_differs, assert_same, leaks, randomise
from papercode.attention.grouped_query import (
    GroupedQueryAttention,
    first_head,
    mean_pool,
    random_heads,
    to_grouped_query,
)
from papercode.attention.kv_cache import KVCache, cached_steps
from papercode.attention.multi_query import MultiQueryAttention
from papercode.attention.transformer import MultiHeadAttention, Transformer, attention, causal_mask
from papercode.attention.wrapping import Watch, wrapped

B, N, M, D, H, G, K, V = 2, 5, 7, 22, 6, 3, 11, 13  # batch, queries, keys, width, heads, groups, widths in a head
F64 = torch.float64
POOLS = [mean_pool, first_head, random_heads]


def layer(n_groups=G, **kwargs):
    return randomise(GroupedQueryAttention(D, H, n_groups, **{"d_k": K, "d_v": V} | kwargs))


def heads(**kwargs):
    return randomise(MultiHeadAttention(D, H, **{"d_k": K, "d_v": V} | kwargs), seed=1)


def inputs():
    return [torch.randn(B, length, D, dtype=F64) for length in (N, M)]


def repeated(parameter, n_groups=G):
    """Each head of a group once for every head of queries: g1 g1 g2 g2 g3 g3."""
    return parameter.detach().unflatten(0, (n_groups, -1)).repeat_interleave(H // n_groups, 0).flatten(0, 1)


def tied(model):
    """Multi-head attention whose heads are the same within a group."""
    many = MultiHeadAttention(D, H, d_k=K, d_v=V, bias=model.k.bias is not None).double()
    many.q, many.o = copy.deepcopy(model.q), copy.deepcopy(model.o)
    for name in "kv":
        getattr(many, name).load_state_dict({key: repeated(x) for key, x in getattr(model, name).state_dict().items()})
    return many


# the layer


def test_by_hand():
    """Four heads that all ask with 1 and see one memory; group 1 has the value 10, group 2 the value 20."""
    model = GroupedQueryAttention(4, 4, 2, d_k=1, bias=False).double()
    model.q.weight.data = model.o.weight.data = torch.eye(4, dtype=F64)
    model.k.weight.data = torch.zeros(2, 4, dtype=F64)
    model.v.weight.data = torch.tensor([[10.0, 0, 0, 0], [20.0, 0, 0, 0]], dtype=F64)
    x, memory = torch.ones(1, 1, 4, dtype=F64), torch.eye(4, dtype=F64)[None, :1]
    assert model(x, memory).tolist() == [[[10, 10, 20, 20]]]


def test_one_group_is_multi_query_attention():
    ours, (x, memory) = layer(1), inputs()
    other = MultiQueryAttention(D, H, d_k=K, d_v=V).double()
    other.load_state_dict(ours.state_dict())
    assert_same(ours(x, memory, mask=causal_mask), other(x, memory, mask=causal_mask), 0)


def test_as_many_groups_as_heads_are_multi_head_attention():
    ours, (x, memory) = layer(H), inputs()
    other = MultiHeadAttention(D, H, d_k=K, d_v=V).double()
    other.load_state_dict(ours.state_dict())
    assert_same(ours(x, memory, mask=causal_mask), other(x, memory, mask=causal_mask), 0)


@pytest.mark.parametrize("bias", [True, False])
def test_equals_multi_head_attention_with_heads_tied_in_groups(bias):
    ours, (x, memory) = layer(bias=bias), inputs()
    many = tied(ours)
    assert_same(ours(x, memory), many(x, memory))
    for name in "kv":  # the heads dealt out in turn, g1 g2 g3 g1 g2 g3
        dealt = tied(ours)
        state = {key: torch.cat([x, x]) for key, x in getattr(ours, name).state_dict().items()}
        getattr(dealt, name).load_state_dict(state)
        assert_differs(ours(x, memory), dealt(x, memory))


def test_the_gradient_of_a_group_is_the_sum_of_its_heads():
    ours, (x, memory) = layer(), inputs()
    many = tied(ours)
    for model in (ours, many):
        model(x, memory).square().sum().backward()
    for name in "kv":
        parameters = zip(getattr(ours, name).parameters(), getattr(many, name).parameters(), strict=True)
        for one, tied_ones in parameters:
            in_groups = tied_ones.grad.unflatten(0, (G, H // G, -1))
            assert_same(one.grad, in_groups.sum(1).flatten(0, 1))


def test_equals_torch(parity):
    ours, (x, memory) = layer(), inputs()

    def split(t, n_heads):
        return t.unflatten(-1, (n_heads, -1)).transpose(1, 2)

    q, k, v = split(ours.q(x), H), split(ours.k(memory), G), split(ours.v(memory), G)
    expected = nn.functional.scaled_dot_product_attention(q, k, v, enable_gqa=True)
    expected = ours.o(expected.transpose(1, 2).flatten(2))
    parity("GroupedQueryAttention", "torch.nn.functional", "enable_gqa=True", ours(x, memory), expected)


def rotated(q, k, v, *, cos, sin, **kwargs):
    return attention(*apply_rotary_pos_emb(q, k, cos, sin), v, **kwargs)


@pytest.mark.parametrize("still", [True, False], ids=["all at position 0", "rotated alike"])
def test_equals_llama(still, parity):
    """Each attention inside LlamaModel, with the same input and weights."""
    config = LlamaConfig(
        vocab_size=19,
        hidden_size=24,
        intermediate_size=17,
        num_hidden_layers=2,
        num_attention_heads=H,
        num_key_value_heads=G,
        head_dim=10,
        attention_bias=True,
        attn_implementation="sdpa",
    )
    reference = randomise(LlamaModel(config)).eval()
    seen = []
    for block in reference.layers:
        block.self_attn.register_forward_hook(
            lambda module, args, kwargs, out: seen.append((module, kwargs, out[0])), with_kwargs=True
        )
    positions = torch.zeros(B, N, dtype=torch.long) if still else torch.arange(N).expand(B, N)
    reference(torch.randint(19, (B, N)), position_ids=positions)
    assert len(seen) == 2
    for number, (module, given, out) in enumerate(seen):
        cos, sin = given["position_embeddings"]
        attend = attention if still else partial(rotated, cos=cos, sin=sin)
        ours = GroupedQueryAttention(24, H, G, d_k=10, attend=attend).double()
        for name in "qkvo":
            getattr(ours, name).load_state_dict(getattr(module, f"{name}_proj").state_dict())
        x = given["hidden_states"]
        rotary = "at position 0" if still else "rotated"
        configuration = f"layer {number}, {rotary}"
        parity("GroupedQueryAttention", "transformers' LlamaAttention", configuration, ours(x, mask=causal_mask), out)
        assert_differs(ours(x), out)
        for name in "kv":  # groups in another order
            weight = getattr(ours, name).weight
            weight.data = weight.data.unflatten(0, (G, -1)).flip(0).flatten(0, 1)
            assert_differs(ours(x, mask=causal_mask), out)


def test_shapes_and_defaults():
    model = GroupedQueryAttention(12, 4, 2)
    assert [tuple(getattr(model, name).weight.shape) for name in "qkvo"] == [(12, 12), (6, 12), (6, 12), (12, 12)]
    model = layer()
    shapes = [(H * K, D), (G * K, D), (G * V, D), (D, H * V)]
    assert [tuple(getattr(model, name).weight.shape) for name in "qkvo"] == shapes
    assert all(getattr(layer(bias=False), name).bias is None for name in "qkvo")


def test_what_attend_is_given():
    seen = {}

    def spy(q, k, v, **kwargs):
        seen.update(q=q.shape, k=k.shape, v=v.shape, **kwargs)
        return attention(q, k, v, **kwargs)

    model, (x, memory) = layer(attend=spy, dropout=0.25), inputs()
    model.train()(x, memory)
    assert seen == {"q": (B, H, N, K), "k": (B, G, M, K), "v": (B, G, M, V), "dropout": 0.25}


def test_cached_equals_uncached_and_the_cache_holds_a_head_a_group():
    model, (x, _) = layer(), inputs()
    whole = model(x, mask=causal_mask)
    with wrapped(model, KVCache) as caches, torch.no_grad():
        steps = [model(x[:, i : i + 1], mask=causal_mask) for i in range(N)]
        assert (caches[""].k.shape, caches[""].v.shape) == ((B, G, N, K), (B, G, N, V))
    assert_same(torch.cat(steps, 1), whole)
    assert_differs(torch.cat(steps, 1), model(x))


def test_no_position_sees_a_later_one():
    model, (x, _) = layer(), inputs()
    changed, early = x.clone(), torch.arange(N) < 3
    changed[:, 3:] += 1
    assert not leaks(lambda t: model(t, mask=causal_mask).transpose(0, 1), x, changed, early)
    assert leaks(lambda t: model(t).transpose(0, 1), x, changed, early)


@pytest.mark.parametrize("n_groups", [0, -2, 4, 12])
def test_groups_that_do_not_divide_the_heads_are_refused(n_groups):
    with pytest.raises(ValueError, match=f"n_heads=6 is not a multiple of n_groups={n_groups}"):
        GroupedQueryAttention(12, 6, n_groups)


def test_an_indivisible_width_is_refused():
    with pytest.raises(ValueError, match="d_model=22 is not divisible by n_heads=6"):
        GroupedQueryAttention(D, H, G)


def test_copies_and_pickles():
    model, (x, memory) = layer(), inputs()
    expected = model(x, memory)
    assert torch.equal(copy.deepcopy(model)(x, memory), expected)
    assert torch.equal(pickle.loads(pickle.dumps(model))(x, memory), expected)


# pools


def example():
    """Four heads of width 2, input 1: weights 1 2, 3 4, 5 6, 7 8, biases ten times as large."""
    linear = nn.Linear(1, 8)
    linear.weight.data = torch.arange(1.0, 9)[:, None]
    linear.bias.data = 10 * torch.arange(1.0, 9)
    return linear


def test_mean_and_first_by_hand():
    mean, first = mean_pool(example(), 4, 2), first_head(example(), 4, 2)
    assert mean.weight[:, 0].tolist() == [2, 3, 6, 7]
    assert mean.bias.tolist() == [20, 30, 60, 70]
    assert first.weight[:, 0].tolist() == [1, 2, 5, 6]
    assert first.bias.tolist() == [10, 20, 50, 60]
    assert mean_pool(example(), 4, 1).weight[:, 0].tolist() == [4, 5]
    assert first_head(example(), 4, 1).weight[:, 0].tolist() == [1, 2]


def test_random_heads_are_drawn_as_torch_draws_them():
    linear = example()
    torch.manual_seed(3)
    expected = nn.Linear(1, 4)
    torch.manual_seed(3)
    drawn = random_heads(linear, 4, 2)
    assert torch.equal(drawn.weight, expected.weight)
    assert torch.equal(drawn.bias, expected.bias)


@pytest.mark.parametrize("pool", POOLS)
@pytest.mark.parametrize("bias", [True, False])
def test_pools_keep_dtype_device_and_bias_and_share_no_memory(pool, bias):
    linear = nn.Linear(5, 12, bias=bias, dtype=torch.bfloat16, device="meta")
    pooled = pool(linear, 6, 3)
    assert (pooled.weight.dtype, pooled.weight.device.type) == (torch.bfloat16, "meta")
    assert pooled.weight.shape == (6, 5)
    assert (pooled.bias is None) == (not bias)
    linear = nn.Linear(5, 12, bias=bias)
    before = linear.weight.clone()
    with torch.no_grad():
        for parameter in pool(linear, 6, 6).parameters():
            parameter.add_(1)
    assert torch.equal(linear.weight, before)


@pytest.mark.parametrize("pool", [mean_pool, first_head])
def test_nothing_is_drawn_where_nothing_is_random(pool):
    linear, state = nn.Linear(5, 12), torch.get_rng_state()
    pool(linear, 6, 3)
    assert torch.equal(torch.get_rng_state(), state)


def test_first_heads_are_twice_as_far_as_the_mean():
    """In squares, on average over which head is the first: an identity, whatever the weights."""
    linear = randomise(nn.Linear(7, H * K))
    weights = linear.weight.unflatten(0, (G, H // G, K))

    def distance(pooled):
        return (weights - pooled.unflatten(0, (G, 1, K))).square().sum()

    mean = distance(mean_pool(linear, H, G).weight)
    firsts = []
    for shift in range(H // G):
        rolled = copy.deepcopy(linear)
        rolled.weight.data = weights.roll(shift, 1).flatten(0, 2)
        firsts.append(distance(first_head(rolled, H, G).weight))
    assert_same(torch.stack(firsts).mean(), 2 * mean)


# whole models


def transformer(**kwargs):
    sizes = {"d_model": 12, "n_heads": 6, "d_ff": 17, "n_layers": 2, "dropout": 0.0} | kwargs
    return randomise(Transformer(23, **sizes)).eval()


def tokens():
    return torch.randint(23, (B, M)), torch.randint(23, (B, N))


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("n_groups", [1, 2, 3, 6])
def test_tied_heads_are_converted_without_loss(n_groups, bias):
    """If the heads of a group are the same, mean and first are that head."""
    ours, (x, memory) = layer(n_groups, bias=bias), inputs()
    for pool in (mean_pool, first_head):
        many = heads(bias=bias)
        many.q, many.o = ours.q, ours.o
        for name in "kv":
            state = {key: repeated(x, n_groups) for key, x in getattr(ours, name).state_dict().items()}
            getattr(many, name).load_state_dict(state)
        assert to_grouped_query(many, n_groups, pool=pool) == [""]
        assert_same(many(x, memory), ours(x, memory))
        for name in "kv":
            assert_same(getattr(many, name).weight, getattr(ours, name).weight)


def test_a_converted_layer_does_what_a_grouped_layer_does():
    many, (x, memory) = heads(), inputs()
    to_grouped_query(many, G)
    ours = GroupedQueryAttention(D, H, G, d_k=K, d_v=V).double()
    ours.load_state_dict(many.state_dict())
    assert_same(many(x, memory), ours(x, memory), 0)
    assert_differs(many(x, memory), heads()(x, memory))


def test_as_many_groups_as_heads_change_nothing():
    for pool in (mean_pool, first_head):
        model, given = transformer(), tokens()
        before = model(*given)
        to_grouped_query(model, 6, pool=pool)
        assert_same(model(*given), before, 0)
    to_grouped_query(model, 6, pool=random_heads)
    assert_differs(model(*given), before)


def test_groups_of_groups_are_groups():
    once, twice = heads(), heads()
    to_grouped_query(once, 1)
    to_grouped_query(twice, G)
    to_grouped_query(twice, 1)
    assert_same(once.k.weight, twice.k.weight)
    assert_same(once.v.bias, twice.v.bias)


def test_only_keys_and_values_of_what_is_given_are_replaced():
    model = transformer()
    before = {name: (parameter, parameter.clone()) for name, parameter in model.named_parameters()}
    found = to_grouped_query(model.decoder, 2)
    assert found == ["0.self_attention", "0.cross_attention", "1.self_attention", "1.cross_attention"]
    converted = {f"decoder.{name}.{which}.weight" for name in found for which in "kv"}
    for name, parameter in model.named_parameters():
        if name in converted:
            assert parameter.shape == (4, 12)
            assert_same(parameter, before[name][0].view(2, 3, 2, 12).mean(1).flatten(0, 1))
        else:
            assert parameter is before[name][0]
            assert torch.equal(parameter, before[name][1])
    assert {layer.__class__ for layer in model.modules() if hasattr(layer, "attend")} == {MultiHeadAttention}


def test_attend_dropout_mode_and_frozen_weights_stay():
    attend = Watch(attention)
    model = MultiHeadAttention(12, 6, dropout=0.3, attend=attend).train()
    model.v.eval().weight.requires_grad_(False)
    to_grouped_query(model, 2)
    assert (model.attend, model.dropout, model.training) == (attend, 0.3, True)
    assert (model.k.training, model.v.training) == (True, False)
    frozen = [name for name, parameter in model.named_parameters() if not parameter.requires_grad]
    assert frozen == ["v.weight"]


def test_shared_maps_stay_shared():
    first, second = MultiHeadAttention(12, 6), MultiHeadAttention(12, 6)
    second.k, first.v = first.k, first.k
    model = nn.ModuleDict({"a": first, "b": second, "again": first})
    assert to_grouped_query(model, 2) == ["a", "b"]
    assert first.k is first.v is second.k
    assert second.v is not first.v
    assert first.k.weight.shape == second.v.weight.shape == (4, 12)


def test_a_converted_model_decodes_with_a_smaller_cache():
    model, (source, target) = transformer(), tokens()
    to_grouped_query(model.decoder, 2)
    whole, rows = model(source, target), torch.arange(B)
    with torch.no_grad(), cached_steps(model, source) as step:
        steps = [step(target[:, : i + 1], rows) for i in range(N)]
        caches = [layer.self_attention.attend.k.shape for layer in model.decoder]
    assert_same(torch.stack(steps, 1), whole)
    assert caches == [(B, 2, N, 2)] * 2


@pytest.mark.parametrize("n_groups", [0, -1, 4, 12])
def test_groups_that_do_not_fit_are_refused_before_anything_changes(n_groups):
    model = nn.ModuleList([MultiHeadAttention(24, n_heads) for n_heads in (12, 6)])
    before = list(model.modules())
    message = "1.k has 6 heads" if n_groups in (4, 12) else "0.k has 12 heads"
    with pytest.raises(ValueError, match=f"{message}, no multiple of n_groups={n_groups}"):
        to_grouped_query(model, n_groups)
    assert list(model.modules()) == before


def test_maps_that_are_no_linear_are_refused_before_anything_changes():
    model = transformer()
    model.decoder[1].cross_attention.v = nn.Sequential(model.decoder[1].cross_attention.v)
    before = list(model.modules())
    with pytest.raises(TypeError, match=r"1\.cross_attention\.v must be an nn\.Linear to be pooled, got Sequential"):
        to_grouped_query(model, 2)
    assert list(model.modules()) == before


def test_a_layer_by_itself_has_no_name():
    with pytest.raises(ValueError, match=r"^k has 6 heads, no multiple of n_groups=4"):
        to_grouped_query(heads(), 4)


def test_a_model_without_attention_is_refused():
    with pytest.raises(ValueError, match="Linear has no MultiHeadAttention"):
        to_grouped_query(nn.Linear(2, 2), 1)


def test_full_size_on_the_meta_device():
    """T5 1.1 XXL's decoder: 64 heads of 64, of which 8 groups are made."""
    with torch.device("meta"):
        model = MultiHeadAttention(4096, 64, bias=False)
        to_grouped_query(model, 8)
        assert model(torch.zeros(1, 3, 4096)).shape == (1, 3, 4096)
    assert sum(p.numel() for p in model.parameters()) == 2 * 4096**2 + 2 * 4096 * 8 * 64
