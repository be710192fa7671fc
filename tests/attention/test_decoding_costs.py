"""Shazeer's analysis, counted: against torch's own counter, against the paper's code, and against his orders."""

import math

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from papercode.attention.decoding_costs import (
    Cost,
    attention_cost,
    batched_ratio,
    incremental_cost,
    incremental_ratio,
    kv_cache_bytes,
)
from papercode.attention.kv_cache import KVCache
from papercode.attention.multi_query import MultiQueryAttention
from papercode.attention.transformer import MultiHeadAttention, causal_mask
from papercode.attention.wrapping import wrapped

B, N, M, D, H, K, V = 2, 5, 7, 11, 3, 13, 17
LAYERS = {1: MultiQueryAttention, H: MultiHeadAttention}


def counted(function):
    with FlopCounterMode(display=False) as counter:
        function()
    return counter.get_total_flops()


def layer(g):
    return LAYERS[g](D, H, d_k=K, d_v=V, bias=False)


# operations and elements


@pytest.mark.parametrize("g", LAYERS)
def test_operations_equal_torchs_count(g):
    cost = attention_cost(B, N, D, H, g=g, m=M, k=K, v=V)
    assert counted(lambda: layer(g)(torch.randn(B, N, D), torch.randn(B, M, D))) == sum(cost.operations.values())


@pytest.mark.parametrize("g", LAYERS)
def test_decoding_equals_torchs_count(g):
    model = layer(g)

    def decode():
        with wrapped(model, KVCache):
            for _ in range(N):
                model(torch.randn(B, 1, D), mask=causal_mask)

    assert counted(decode) == sum(incremental_cost(B, N, D, H, g=g, k=K, v=V).operations.values())


@pytest.mark.parametrize("heads", ["", "h"])
def test_elements_are_the_tensors_of_the_papers_code(heads):
    """The einsums of sections 2.3 and 3, which differ in the letter h."""
    sizes = {"b": B, "n": N, "m": M, "d": D, "h": H, "k": K, "v": V}

    def tensor(axes):
        return torch.randn(*(sizes[axis] for axis in axes))

    t = {"X": tensor("bnd"), "M": tensor("bmd"), "P_q": tensor("hdk"), "P_o": tensor("hdv")}
    t |= {"P_k": tensor(heads + "dk"), "P_v": tensor(heads + "dv")}
    t["Q"] = torch.einsum("bnd,hdk->bhnk", t["X"], t["P_q"])
    t["K"] = torch.einsum(f"bmd,{heads}dk->b{heads}mk", t["M"], t["P_k"])
    t["V"] = torch.einsum(f"bmd,{heads}dv->b{heads}mv", t["M"], t["P_v"])
    t["logits"] = torch.einsum(f"bhnk,b{heads}mk->bhnm", t["Q"], t["K"])
    t["weights"] = t["logits"].softmax(-1)
    t["O"] = torch.einsum(f"bhnm,b{heads}mv->bhnv", t["weights"], t["V"])
    t["Y"] = torch.einsum("bhnv,hdv->bnd", t["O"], t["P_o"])
    cost = attention_cost(B, N, D, H, g=H if heads else 1, m=M, k=K, v=V)
    assert cost.elements == {name: x.numel() for name, x in t.items()}


def test_by_hand():
    """One sequence, one query, two positions of which one is new; width 4 in 2 heads of 2."""
    many = attention_cost(1, 1, 4, 2, m=2, new=1)
    assert many.operations == {"Q": 32, "K": 32, "V": 32, "logits": 16, "O": 16, "Y": 32}
    assert many.elements["K"] == many.elements["V"] == 8
    one = attention_cost(1, 1, 4, 2, g=1, m=2, new=1)
    assert one.operations == {"Q": 32, "K": 16, "V": 16, "logits": 16, "O": 16, "Y": 32}
    assert one.elements["K"] == one.elements["V"] == 4
    assert one.ratio == sum(one.elements.values()) / 128


def test_costs_add_up():
    total = Cost({"a": 1, "d": 8}, {"b": 2}) + Cost({"a": 10, "c": 4}, {"b": 20})
    assert (total.operations, total.elements) == ({"a": 11, "d": 8, "c": 4}, {"b": 22})
    assert total.ratio == 22 / 23
    steps = [attention_cost(B, 1, D, H, m=t, new=1, k=K) for t in (1, 2, 3)]
    assert incremental_cost(B, 3, D, H, k=K) == steps[0] + steps[1] + steps[2]


def test_defaults_are_those_of_multi_head_self_attention():
    assert attention_cost(B, N, 12, H) == attention_cost(B, N, 12, H, g=H, m=N, new=N, k=4, v=4)
    assert attention_cost(B, N, D, H, k=K) == attention_cost(B, N, D, H, k=K, v=K)


# the orders


def logs(values):
    return [math.log(value) for value in values]


def test_orders_by_hand():
    assert batched_ratio(4, 8, 32, 2) == 1 / 16 + 1 / 32
    assert incremental_ratio(4, 8, 32, 2, g=1) == 1 / 32 + 8 / 64 + 1 / 4
    assert incremental_ratio(4, 8, 32, 2) == incremental_ratio(4, 8, 32, 2, g=2) == 1 / 32 + 8 / 32 + 1 / 4


@pytest.mark.parametrize("b", [1, 8, 64, 512])
@pytest.mark.parametrize("n", [64, 256, 1024])
@pytest.mark.parametrize("h", [4, 16])
def test_counts_are_of_the_papers_orders(b, n, h):
    """Theta: the ratio of count and formula stays between two constants, whatever the sizes, while n <= d."""
    d = 1024
    counts = attention_cost(b, n, d, h), incremental_cost(b, n, d, h), incremental_cost(b, n, d, h, g=1)
    orders = batched_ratio(b, n, d, h), incremental_ratio(b, n, d, h), incremental_ratio(b, n, d, h, g=1)
    for count, order in zip(counts, orders, strict=True):
        assert 1 / 16 < count.ratio / order < 1 / 2


def test_one_head_gains_up_to_h_and_nothing_at_small_batch():
    gain = {b: incremental_cost(b, 512, 512, 8).ratio / incremental_cost(b, 512, 512, 8, g=1).ratio for b in (1, 4096)}
    assert gain[1] < 1.5
    assert 4 < gain[4096] < 8


def test_logits_are_left_out_of_the_papers_sum_while_decoding():
    """2 h numbers a position, against 2 k of keys and values: with 96 heads of 128, three quarters as many."""
    elements = incremental_cost(1, 64, 96 * 128, 96, g=1).elements
    assert elements["logits"] + elements["weights"] == 0.75 * (elements["K"] + elements["V"])


# the cache


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.int8])
def test_cache_bytes_are_those_of_the_tensors(dtype):
    k, v = (torch.zeros(B, H, M, width, dtype=dtype) for width in (K, V))
    expected = N * sum(x.numel() * x.element_size() for x in (k, v))
    assert kv_cache_bytes(B, M, layers=N, heads=H, width=K, value_width=V, dtype=dtype) == expected


def test_cache_by_hand():
    assert kv_cache_bytes(1, 1, layers=1, heads=1, width=1) == 4  # a key and a value of two bytes
    many, one = (kv_cache_bytes(3, 5, layers=2, heads=heads, width=7) for heads in (8, 1))
    assert many == 8 * one


@pytest.mark.parametrize("g", LAYERS)
def test_cache_bytes_are_those_of_a_cache(g):
    model = layer(g)
    with wrapped(model, KVCache) as caches, torch.no_grad():
        for _ in range(N):
            model(torch.randn(B, 1, D))
    kept = sum(x.numel() * x.element_size() for x in (caches[""].k, caches[""].v))
    assert kept == kv_cache_bytes(B, N, layers=1, heads=g, width=K, value_width=V, dtype=torch.float32)


# errors


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ({"b": 0}, "b=0 must be at least 1"),
        ({"h": 0}, "h=0 must be at least 1"),
        ({"m": -1}, "m=-1 must be at least 1"),
        ({"g": 2}, "h=3 is not a multiple of g=2"),
        ({"k": None}, "d=11 is not divisible by h=3"),
        ({"new": 8}, "new=8 positions are more than all m=7"),
    ],
)
def test_impossible_sizes_are_refused(sizes, message):
    with pytest.raises(ValueError, match=message):
        attention_cost(**{"b": B, "n": N, "d": D, "h": H, "m": M, "k": K} | sizes)


def test_no_steps_and_no_cache_are_refused():
    with pytest.raises(ValueError, match="n=0 must be at least 1"):
        incremental_cost(B, 0, D, H, k=K)
    with pytest.raises(ValueError, match="layers=0 must be at least 1"):
        kv_cache_bytes(1, 1, layers=0, heads=1, width=1)
