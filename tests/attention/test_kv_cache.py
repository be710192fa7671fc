"""Cached equals uncached: token by token, in greedy and in beam search, with padding."""

from functools import partial
from itertools import islice

import pytest
import torch

from helpers import assert_differs, assert_same, randomise
from papercode.attention.kv_cache import KVCache, cached_steps
from papercode.attention.transformer import MultiHeadAttention, Transformer, attention, causal_mask
from papercode.attention.transformer_training import label_smoothing_loss
from papercode.attention.wrapping import wrapped
from papercode.data.sequences import END, FIRST, PAD, START, pairs, reverse
from papercode.decoding import beam_search, greedy_search
from papercode.training import train

B, S, T, V, D = 3, 7, 5, 23, 14


@pytest.fixture(scope="module")
def model():
    """Half trained, so that its searches depend on the source and its beams compete; a random model repeats itself."""
    torch.manual_seed(0)
    model = Transformer(V, d_model=D, n_heads=2, d_ff=19, n_layers=2, dropout=0.0)
    optimizer = torch.optim.Adam(model.parameters(), 1e-2)

    def loss(source, target):
        return label_smoothing_loss(model(source, target[:, :-1], source != PAD), target[:, 1:], padding=PAD)

    batches = islice(pairs(reverse, n_symbols=V - FIRST, shortest=2, longest=5), 120)
    losses = train(model, loss, batches, optimizer)
    assert losses[-1] < losses[0]
    return model.double().eval()


@pytest.fixture
def source():
    return torch.randint(FIRST, V, (B, S))


KEEP = torch.tensor([[True] * S, [True] * 4 + [False] * 3, [True] * 2 + [False] * 5])


def uncached_steps(model, source, source_mask):
    memory, mask = model.encode(source, source_mask), source_mask

    def step(tokens, parents):
        nonlocal memory, mask
        memory, mask = memory[parents], mask[parents]
        return model.decode(tokens, memory, mask)[:, -1]

    return step


def test_a_layer_fed_in_pieces_equals_the_layer_fed_at_once():
    layer, x = randomise(MultiHeadAttention(D, 2)), torch.randn(B, T, D, dtype=torch.float64)
    whole = layer(x, mask=causal_mask(T))
    with wrapped(layer, KVCache) as caches:
        pieces = [layer(x[:, a:b], mask=causal_mask(b - a, b)) for a, b in [(0, 2), (2, 3), (3, T)]]
        assert caches[""].k.shape == (B, 2, T, D // 2)
    assert_same(torch.cat(pieces, 1), whole)
    assert_differs(layer(x[:, 3:]), whole[:, 3:])  # without the cache the last two know nothing of the others
    assert layer.attend is attention


def test_logits_equal_those_of_one_pass(model, source):
    target = torch.randint(V, (B, T))
    expected, rows = model(source, target, KEEP), torch.arange(B)
    with torch.no_grad(), cached_steps(model, source, KEEP) as step:
        steps = [step(target[:, : i + 1], rows) for i in range(T)]
    assert_same(torch.stack(steps, 1), expected)
    with torch.no_grad(), cached_steps(model, source) as step:
        assert_differs(step(target[:, :1], rows), expected[:, 0])  # the mask of the source is used


def test_a_prompt_may_have_several_tokens(model, source):
    target = torch.randint(V, (B, T))
    expected = model(source, target, KEEP)
    with torch.no_grad(), cached_steps(model, source, KEEP) as step:
        assert_same(step(target[:, :3], torch.arange(B)), expected[:, 2])
        assert_same(step(target, torch.arange(B)), expected[:, -1])


def test_rows_follow_their_parents(model, source):
    first, second = torch.randint(V, (B, 2)), torch.randint(V, (4, 1))
    parents = torch.tensor([2, 0, 0, 1])
    tokens = torch.cat([first[parents], second], 1)
    with torch.no_grad(), cached_steps(model, source, KEEP) as step:
        step(first, torch.arange(B))
        logits = step(tokens, parents)
    assert_same(logits, model(source[parents], tokens, KEEP[parents])[:, -1])


def test_keys_of_the_source_are_computed_once(model, source):
    """The maps k and v of the cross-attention see S rows in the first step and none later; the others one a step."""
    seen = {"k": [], "v": [], "self": []}
    layer = model.decoder[0]
    layer.cross_attention.k.register_forward_hook(lambda _, x, y: seen["k"].append(x[0].shape[1]))
    layer.cross_attention.v.register_forward_hook(lambda _, x, y: seen["v"].append(x[0].shape[1]))
    layer.self_attention.k.register_forward_hook(lambda _, x, y: seen["self"].append(x[0].shape[1]))
    with cached_steps(model, source, KEEP) as step:
        greedy_search(step, torch.full((B, 1), START), end=V, max_new=4)
    assert seen == {"k": [S, 0, 0, 0], "v": [S, 0, 0, 0], "self": [1, 1, 1, 1]}


def test_searches_equal_those_without_a_cache(model, source):
    prompt = torch.full((B, 1), START)
    settings = {"end": END, "max_new": 9}
    with cached_steps(model, source, KEEP) as step:
        cached = greedy_search(step, prompt, **settings)
    assert torch.equal(cached, greedy_search(uncached_steps(model, source, KEEP), prompt, **settings))
    with cached_steps(model, source, KEEP) as step:
        tokens, scores = beam_search(step, prompt, beam=4, **settings)
    expected, expected_scores = beam_search(uncached_steps(model, source, KEEP), prompt, beam=4, **settings)
    assert torch.equal(tokens, expected)
    assert_same(scores, expected_scores)
    assert len({tuple(row) for row in tokens[:, 0].tolist()}) > 1  # the sources matter


def test_without_reordering_the_beams_mix(model, source, monkeypatch):
    prompt = torch.full((B, 1), START)
    expected = beam_search(uncached_steps(model, source, KEEP), prompt, end=END, max_new=9)[1]
    reorder = KVCache.reorder

    def expand_only(self, rows):
        if self.k is not None and len(rows) != len(self.k):
            reorder(self, rows)

    monkeypatch.setattr(KVCache, "reorder", expand_only)
    with cached_steps(model, source, KEEP) as step:
        assert_differs(beam_search(step, prompt, end=END, max_new=9)[1], expected)


def test_the_model_is_as_before(model, source):
    target = torch.randint(V, (B, T))
    expected = model(source, target, KEEP)
    with torch.no_grad(), cached_steps(model, source, KEEP) as step:
        step(target, torch.arange(B))
    assert torch.equal(model(source, target, KEEP), expected)


# the buffers


def fed(cache, lengths, g=2, **settings):
    """The cache after some calls; and all that it was given."""
    given = [[torch.randn(B, g, m, x, **settings) for x in (5, 7)] for m in lengths]
    for k, v in given:
        cache(torch.randn(B, 4, 1, 5), k, v)
    return [torch.cat(x, 2) for x in zip(*given)]


def test_buffers_double_so_that_steps_cost_the_same():
    cache, sizes = KVCache(attention), []
    for i in range(40):
        k, v = fed(cache, [1])
        assert torch.equal(cache.k[:, :, i:], k)
        assert torch.equal(cache.v[:, :, i:], v)
        sizes.append(cache._k.shape[2])
    assert sizes[-1] == 64
    assert sorted(set(sizes)) == [1, 2, 4, 8, 16, 32, 64]


def test_room_made_at_the_start_is_filled_in_place():
    cache = KVCache(attention, capacity=9)
    first, _ = fed(cache, [4])
    before = cache._k.data_ptr(), cache._v.data_ptr()
    second, _ = fed(cache, [3, 2])
    assert (cache._k.data_ptr(), cache._v.data_ptr()) == before
    assert torch.equal(cache.k, torch.cat([first, second], 2))
    third, _ = fed(cache, [30])  # more than twice as much
    assert cache.k.shape[2] == cache.length == 39
    assert torch.equal(cache.k[:, :, 9:], third)
    assert torch.equal(cache.k[:, :, :4], first)


def test_grouped_heads_are_kept_grouped():
    cache = KVCache(attention)
    fed(cache, [3], g=1)
    assert cache.k.shape == (B, 1, 3, 5)


def test_where_gradients_are_wanted_they_flow():
    cache = KVCache(attention, capacity=8)
    k = torch.randn(B, 2, 3, 5, requires_grad=True)
    q = torch.randn(B, 2, 1, 5)
    found = torch.cat([cache(q, k, k), cache(q, 2 * k[:, :, :1], k[:, :, :1])])  # the first outlives the second's write
    both = torch.cat([k, 2 * k[:, :, :1]], 2), torch.cat([k, k[:, :, :1]], 2)
    expected = torch.cat([attention(q, k, k), attention(q, *both)])
    assert torch.equal(found, expected)
    grads = [torch.autograd.grad(x.square().sum(), k, retain_graph=True)[0] for x in (found, expected)]
    assert_same(*grads, 1e-6)


def test_reordering_keeps_the_rest_of_the_buffer_usable():
    cache = KVCache(attention, capacity=16)
    first, _ = fed(cache, [4])
    rows = torch.tensor([2, 0, 0])
    cache.reorder(rows)
    second, _ = fed(cache, [2])
    assert torch.equal(cache.k, torch.cat([first[rows], second], 2))
    assert KVCache(attention).reorder(rows) is None  # nothing there yet


def test_what_does_not_fit_the_cache():
    cache = KVCache(attention)
    fed(cache, [2])
    call = partial(KVCache.forward.__wrapped__, cache)  # past the checks of shapes that only tests have
    q = torch.randn(B, 4, 1, 5)
    for k, message in [
        (torch.randn(B + 1, 2, 1, 5), "k has batch 4, but the cache holds batch 3"),
        (torch.randn(B, 4, 1, 5), "k has heads 4, but the cache holds heads 2"),
        (torch.randn(B, 2, 1, 6), "k has width 6, but the cache holds width 5"),
        (torch.randn(B, 2, 1, 5).double(), "k is torch.float64 on cpu, but the cache holds torch.float32 on cpu"),
    ]:
        with pytest.raises(ValueError, match=message):
            call(q, k, k)
    with pytest.raises(ValueError, match="v has width 5, but the cache holds width 7"):
        call(q, torch.randn(B, 2, 1, 5), torch.randn(B, 2, 1, 5))
    assert cache.k.shape == (B, 2, 2, 5)
    with pytest.raises(ValueError, match="capacity=-1 must be at least 0"):
        KVCache(attention, capacity=-1)
