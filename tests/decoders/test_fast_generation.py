"""The fast steps against the readable GPT-2, in both layouts, through searches that move rows."""

import pytest
import torch
from torch import nn

from helpers import assert_differs, assert_same, randomise
from papercode.attention.layer_norm import fuse_norms
from papercode.attention.transformer import PostNorm, attention, causal_mask
from papercode.decoders.fast_generation import FastGPT2, FastMap, fused_attention
from papercode.decoders.gpt2 import GPT2
from papercode.decoding import beam_search, greedy_search

V, END, SIZES = 29, 28, {"n_positions": 31, "d_model": 14, "n_heads": 2, "d_ff": 19, "n_layers": 3}
F32, F64 = torch.float32, torch.float64


def model(dtype=F64, **settings):
    return randomise(GPT2(V, **{**SIZES, **settings})).eval().to(dtype)


def tolerance(dtype):
    return 1e-7 if dtype == F64 else 2e-4


@pytest.mark.parametrize("dtype", [F32, F64])
@pytest.mark.parametrize("rows", [1, 5])
@pytest.mark.parametrize("bias", [True, False])
def test_a_map_is_linear_in_every_layout(dtype, rows, bias):
    weight, b = torch.randn(7, 11, dtype=dtype), torch.randn(7, dtype=dtype) if bias else None
    layout = FastMap(weight, b, rows)
    packed = rows > 1 and dtype == F32 and torch.backends.mkldnn.is_available()
    assert (layout.packed is not None) == packed
    for r in (1, 2, 5):
        x = torch.randn(r, 11, dtype=dtype)
        y = layout(x)
        assert_same(y, nn.functional.linear(x, weight, b), 1e-5 if dtype == F32 else 1e-12)
        assert_differs(y, nn.functional.linear(x, weight, torch.ones(7, dtype=dtype) if b is None else None))


def test_without_onednn_a_map_is_the_same(monkeypatch):
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: False)
    weight, x = torch.randn(7, 11), torch.randn(3, 11)
    assert FastMap(weight, None, 3).packed is None
    assert_same(FastMap(weight, None, 3)(x), x @ weight.T, 1e-5)


@pytest.mark.parametrize("dtype", [F32, F64])
@pytest.mark.parametrize("rows", [1, 3])
@pytest.mark.parametrize("capacity", [0, 5, 40])
def test_logits_are_the_models(dtype, rows, capacity):
    ours, text = model(dtype), torch.randint(V, (rows, 23))
    step = FastGPT2(ours, rows).steps(capacity)
    for end in (3, 4, 5, 8, 9, 20, 21):  # also several new tokens at once
        logits = step(text[:, :end], torch.arange(rows))
        assert_same(logits, ours(text[:, :end])[:, -1], tolerance(dtype))
        assert not logits.requires_grad
    assert_differs(logits, ours(text[:, :20])[:, -1], 1e-2)


@pytest.mark.parametrize("dtype", [F32, F64])
def test_rows_move_within_and_between_prompts(dtype):
    ours, text = model(dtype), torch.randint(V, (2, 5))
    step = FastGPT2(ours, 4).steps(7)
    tokens = text
    step(tokens, torch.arange(2))
    moves = [0, 0, 1, 1], [1, 0, 3, 3], [0, 1, 2, 3], [3, 0, 0, 1], [2, 2], [1, 0, 1]
    for parents in map(torch.tensor, moves):
        tokens = torch.cat([tokens[parents], torch.randint(V, (len(parents), 1))], 1)
        assert_same(step(tokens, parents), ours(tokens)[:, -1], tolerance(dtype))


def test_a_prompt_stays_where_it_is(monkeypatch):
    """Once each hypothesis has a row, moves leave the prompt's five tokens out: the shapes of what they gather tell."""
    ours, text = model(), torch.randint(V, (1, 5))
    step = FastGPT2(ours, 2).steps(9)
    tokens = text
    step(tokens, torch.arange(1))
    sizes = []
    real = torch.Tensor.__getitem__

    def spy(x, index):
        y = real(x, index)
        if x.ndim == 6 and isinstance(index, tuple) and len(index) > 2 and isinstance(index[2], torch.Tensor):
            sizes.append(tuple(y.shape))
        return y

    monkeypatch.setattr(torch.Tensor, "__getitem__", spy)
    for parents in ([0, 0], [1, 0], [1, 1]):
        tokens = torch.cat([tokens[torch.tensor(parents)], torch.randint(V, (2, 1))], 1)
        step(tokens, torch.tensor(parents))
    assert sizes == [(3, 2, 2, 2, 9, 7), (3, 2, 2, 2, 1, 7), (3, 2, 2, 2, 2, 7)]


@pytest.mark.parametrize("beam", [2, 5])
def test_searches_find_the_same(beam):
    ours, prompt = model(), torch.randint(V, (3, 4))
    fast = FastGPT2(ours, 3 * beam)

    def plain(tokens, parents):
        return ours(tokens)[:, -1]

    expected = greedy_search(plain, prompt, end=END, max_new=12)
    assert torch.equal(greedy_search(fast.steps(16), prompt, end=END, max_new=12), expected)
    assert torch.equal(greedy_search(fast.steps(), prompt, end=END, max_new=12), expected)  # a second search
    tokens, scores = beam_search(fast.steps(16), prompt, end=END, max_new=12, beam=beam)
    others, theirs = beam_search(plain, prompt, end=END, max_new=12, beam=beam)
    assert torch.equal(tokens, others)
    assert_same(scores.double(), theirs.double(), 1e-5)


def test_other_attends_and_activations_are_called():
    def sharper(q, k, v, *, mask=None, dropout=0.0):
        return attention(q, k, v, mask=mask, scale=1.7)

    ours, text = model(attend=sharper), torch.randint(V, (2, 6))
    for layer in ours.layers:
        layer.feed_forward.activation = nn.SiLU()
    step = FastGPT2(fuse_norms(ours)).steps()
    for end in (4, 5, 6):
        assert_same(step(text[:, :end], torch.arange(2)), ours(text[:, :end])[:, -1])
    assert_differs(model()(text), ours(text))


def test_the_models_dropout_is_not_taken():
    ours, text = model(dropout=0.5).train(), torch.randint(V, (2, 6))
    logits = FastGPT2(ours).steps()(text, torch.arange(2))
    assert_same(logits, ours.eval()(text)[:, -1])


def test_it_is_a_copy():
    ours, text = model(), torch.randint(V, (1, 6))
    fast, expected = FastGPT2(ours), ours(text)[:, -1]
    for layer in ours.layers:
        for parameter in (layer.attention.parameters(), layer.feed_forward.parameters()):
            for p in parameter:
                p.data.zero_()
    assert_same(fast.steps()(text, torch.arange(1)), expected)
    assert_differs(ours(text)[:, -1], expected)


def test_fused_attention_is_attention():
    q, k, v = (torch.randn(2, 3, n, 5, dtype=F64) for n in (4, 7, 7))
    for n, m in ((4, 7), (4, 4), (1, 7)):
        for mask in (causal_mask, None):
            x = q[:, :, :n], k[:, :, :m], v[:, :, :m]
            assert_same(fused_attention(*x, mask=mask), attention(*x, mask=mask))
    assert_differs(fused_attention(q, k, v), fused_attention(q, k, v, mask=causal_mask))


def test_what_would_be_left_out_is_refused():
    with pytest.raises(ValueError, match="rows=0 must be at least 1"):
        FastGPT2(model(), 0)
    with pytest.raises(ValueError, match=r"layers\.0\.residuals\.0 is of type PostNorm, which would be left out"):
        FastGPT2(model(residual=PostNorm))

    class Adapted(nn.Linear):
        pass

    adapted = model()
    adapted.layers[1].attention.q = Adapted(14, 14)
    with pytest.raises(ValueError, match=r"layers\.1\.attention\.q is of type Adapted, which would be left out"):
        FastGPT2(adapted)
    grouped = model()
    grouped.layers[2].attention.k = nn.Linear(14, 7)
    with pytest.raises(ValueError, match=r"layers\.2\.attention has q, k and v of different shapes"):
        FastGPT2(grouped)

    class Scaled(GPT2):
        def logits(self, states):
            return 2 * super().logits(states)

    with pytest.raises(ValueError, match=r"Scaled has its own logits\(\), which would be left out"):
        FastGPT2(randomise(Scaled(V, **SIZES)))
    step = FastGPT2(model()).steps()
    with pytest.raises(ValueError, match="tokens reach position 32, but n_positions=31"):
        step(torch.zeros(1, 32, dtype=torch.long), torch.arange(1))
