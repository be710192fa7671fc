"""GPT against the equations with loops, by its counts, and by what must not change. Weights: tests/checkpoints."""

import math

import pytest
import torch
from torch import nn

from helpers import assert_differs, assert_same, leaks, randomise
from papercode.attention.masks import Band
from papercode.attention.transformer import PostNorm, attention
from papercode.decoders.gpt import GPT, initialise

V, SIZES = 29, {"n_positions": 23, "d_model": 14, "n_heads": 2, "d_ff": 19, "n_layers": 3}


def model(**settings):
    return randomise(GPT(V, **{**SIZES, **settings})).eval()


def tokens(b=2, n=7):
    return torch.randint(V, (b, n))


def by_hand(ours, text):
    """One text through the equations: Eq. 2 of the paper, each head of each layer, each position in turn."""
    x = ours.words.weight[text] + ours.positions.weight[: len(text)]
    for layer in ours.layers:
        a, f, (first, second) = layer.attention, layer.feed_forward, (r.norm for r in layer.residuals)
        mixed = torch.zeros_like(x)
        for i in range(len(text)):
            for h in (slice(0, 7), slice(7, 14)):
                q, k, v = ((m.weight @ y + m.bias)[h] for m, y in ((a.q, x[i]), (a.k, x[i]), (a.v, x[i])))
                scores, values = [], []
                for j in range(i + 1):
                    k, v = ((m.weight @ x[j] + m.bias)[h] for m in (a.k, a.v))
                    scores.append(q @ k / math.sqrt(7))
                    values.append(v)
                weights = torch.stack(scores).softmax(0)
                mixed[i, h] = sum(w * v for w, v in zip(weights, values))
        x = normed(x + mixed @ a.o.weight.T + a.o.bias, first)
        hidden = x @ f.expand.weight.T + f.expand.bias
        hidden = 0.5 * hidden * (1 + torch.tanh(math.sqrt(2 / math.pi) * (hidden + 0.044715 * hidden**3)))
        x = normed(x + hidden @ f.contract.weight.T + f.contract.bias, second)
    return x @ ours.words.weight.T


def normed(x, norm):
    centred = x - x.mean(-1, keepdim=True)
    return norm.gain * centred / (centred.square().mean(-1, keepdim=True) + 1e-5).sqrt() + norm.bias


def test_equals_the_equations_with_loops(parity):
    ours, text = model(), tokens(1, 5)
    with torch.no_grad():
        expected = by_hand(ours, text[0])
    parity("GPT", "the equations, with loops", "3 layers", ours(text)[0], expected)
    exact = model()
    for layer in exact.layers:
        layer.feed_forward.activation = nn.GELU()
    assert_differs(exact(text)[0], expected, 1e-5)  # the exact GELU, which the authors' code does not use


def test_no_token_sees_a_later_one():
    ours, text = model(), tokens()
    changed = text.clone()
    changed[:, 4:] = (changed[:, 4:] + 1) % V
    before = torch.arange(7) < 4

    def logits(text):
        return ours(text).transpose(0, 1)

    assert not leaks(logits, text, changed, before)
    assert leaks(logits, text, changed, ~before)
    assert leaks(lambda text: ours(text, mask=Band()).transpose(0, 1), text, changed, before)


def test_the_table_of_words_reads_and_writes():
    ours, text = model(), tokens()
    assert [tuple(p.shape) for p in ours.parameters() if V in p.shape] == [(V, 14)]
    assert_same(ours(text), ours.encode(text) @ ours.words.weight.T)
    assert_same(ours.logits(ours.encode(text)[:, -1]), ours(text)[:, -1])
    assert_same(ours.embed(text), ours.words.weight[text] + ours.positions.weight[:7])


def test_positions_may_start_anywhere_and_differ_between_rows():
    ours, text = model(), tokens()
    assert_same(ours.embed(text, 5), ours.words(text) + ours.positions.weight[5:12])
    start = torch.tensor([3, -2])
    expected = ours.words(text) + torch.stack(
        [ours.positions.weight[3:10], ours.positions.weight[[0, 0, 0, 1, 2, 3, 4]]]
    )
    assert_same(ours.embed(text, start), expected)
    assert_same(ours(text, start=torch.tensor([4, 4])), ours(text, start=4))
    assert_differs(ours(text, start=4), ours(text))


def test_left_padding_with_keep_and_start_is_no_padding():
    ours, text = model(), tokens(1, 5)
    padded = torch.cat([torch.tensor([[8, 8]]), text], 1)
    keep = torch.tensor([[False] * 2 + [True] * 5])
    found = ours(padded, Band(right=0, keep=keep), torch.tensor([-2]))
    assert_same(found[:, 2:], ours(text))
    assert_differs(ours(padded, Band(right=0, keep=keep))[:, 2:], ours(text))


def test_the_seams():
    ours, text = model(), tokens()
    assert type(ours.layers[0].residuals[0]) is PostNorm
    assert {layer.attention.attend for layer in ours.layers} == {attention}
    calls = []

    def counting(q, k, v, **kwargs):
        calls.append(q.shape)
        return attention(q, k, v, **kwargs)

    other = model(attend=counting)
    assert_same(other(text), ours(text))
    assert calls == [(2, 2, 7, 7)] * 3


def test_dropout_falls_on_three_places():
    ours = GPT(V, **SIZES, dropout=0.25)
    assert {m.p for m in ours.modules() if isinstance(m, nn.Dropout)} == {0.25}
    assert {layer.attention.dropout for layer in ours.layers} == {0.25}
    assert (ours.embed(tokens(1, 23)) == 0).any()
    assert not (ours.eval().embed(tokens(1, 23)) == 0).any()
    assert GPT(V, **SIZES).dropout.p == 0.1


def test_initial_weights():
    torch.manual_seed(0)
    ours = GPT(500, **{**SIZES, "d_model": 100, "d_ff": 400})
    for name, p in ours.named_parameters():
        if p.ndim > 1:
            assert p.std().item() == pytest.approx(0.02, rel=0.1), name
        else:
            assert (p == (1.0 if name.endswith("gain") else 0.0)).all(), name
    plain = nn.Linear(3, 3, bias=False)
    initialise(plain)
    assert plain.weight.abs().max() < 0.1


def test_size_of_the_paper():
    """40,000 merges (section 4.1) and the 478 pieces that the released vocabulary begins with."""
    with torch.device("meta"):
        ours = GPT()
    assert sum(p.numel() for p in ours.parameters()) == 116_534_784
    layer = 4 * (768 * 768 + 768) + 2 * 768 * 3072 + 3072 + 768 + 4 * 768
    assert sum(p.numel() for p in ours.parameters()) == (40_478 + 512) * 768 + 12 * layer


def test_gradients_reach_everything_and_a_batch_can_be_learned():
    torch.manual_seed(0)
    ours, text = GPT(V, **{**SIZES, "d_model": 32, "n_layers": 2}, dropout=0.0), tokens(4, 9)
    adam = torch.optim.Adam(ours.parameters(), lr=1e-2)
    for _ in range(60):
        loss = nn.functional.cross_entropy(ours(text[:, :-1]).flatten(0, 1), text[:, 1:].flatten())
        adam.zero_grad()
        loss.backward()
        assert all(p.grad is not None for p in ours.parameters())
        adam.step()
    assert loss < 0.1


def test_errors():
    with pytest.raises(ValueError, match="tokens reach position 24, but n_positions=23"):
        model()(tokens(1, 24))
    for start in (17, torch.tensor([0, 17])):
        with pytest.raises(ValueError, match="tokens reach position 24, but n_positions=23"):
            model().embed(tokens(), start)
    with pytest.raises(ValueError, match="start=-9 must be at least 0; give one a row where rows begin with padding"):
        model().embed(tokens(), -9)
