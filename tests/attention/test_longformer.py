"""The Longformer against transformers', against dense attention under the same mask, and by what it can reach."""

import copy
import pickle

import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import LongformerConfig, LongformerModel

from helpers import assert_differs, assert_same, leaks, randomise
from papercode.attention.longformer import (
    Longformer,
    LongformerAttention,
    merged,
    tiled_positions,
    to_longformer,
    windowed_and_global,
)
from papercode.attention.masks import Band
from papercode.attention.transformer import EncoderLayer, MultiHeadAttention, attention
from papercode.attention.windowed import windowed, windowed_log_sum

F64 = torch.float64
V, D_MODEL, HEADS, D_FF, LAYERS, N = 43, 12, 3, 23, 3, 29
WINDOWS = [4, 16, 8]  # powers of two, as transformers pads to the largest; it fails at 2


def some_globals(n=N):
    """Three in the first row, none in the second, one in the third, and padding: at the end, nowhere, at both ends."""
    chosen, keep = torch.zeros(3, n, dtype=torch.bool), torch.ones(3, n, dtype=torch.bool)
    chosen[0, [0, 1, 17]] = chosen[2, 9] = True
    keep[0, n - 6 :] = keep[2, :3] = keep[2, n - 2 :] = False
    return chosen, keep


def dense_mask(chosen, keep, window):
    """What the paper draws: the band, and the rows and columns of the global tokens; padding is seen by nobody."""
    n = chosen.shape[1]
    seen = Band(window // 2, window // 2)(n, n) | chosen[:, None, :] | chosen[:, :, None]
    return (seen & keep[:, None, :])[:, None]


# one softmax over window and global keys


@pytest.mark.parametrize("g", [1, 3])
def test_window_and_globals_are_one_softmax(g):
    chosen, keep = some_globals()
    q, k, v = (torch.randn(3, h, N, 5, dtype=F64, requires_grad=True) for h in (3, g, g))
    seen = (Band(2, 3)(N, N) | chosen[:, None, :]) & keep[:, None, :]
    y = windowed_and_global(q, k, v, mask=Band(2, 3, keep), global_tokens=chosen, scale=0.6)
    expected = attention(q, k, v, mask=seen[:, None], scale=0.6)
    assert_same(y, expected)
    dy = torch.randn_like(y)
    for ours, reference in zip(*(torch.autograd.grad(x, (q, k, v), dy) for x in (y, expected)), strict=True):
        assert_same(ours, reference)
    assert_differs(windowed_and_global(q, k, v, mask=Band(2, 3, keep), global_tokens=chosen), y)
    assert_differs(windowed_and_global(q, k, v, mask=Band(2, 3, keep), scale=0.6), y)


def test_a_global_token_in_the_window_counts_once():
    """Three keys with equal scores, one of them global: each weighs a third."""
    q = k = torch.zeros(1, 1, 3, 1)
    v = torch.tensor([0.0, 3.0, 9.0]).view(1, 1, 3, 1)
    chosen = torch.tensor([[True, False, False]])
    y = windowed_and_global(q, k, v, mask=Band(1, 1), global_tokens=chosen)
    assert_same(y.flatten(), torch.tensor([1.5, 4.0, 4.0]))


def test_without_globals_it_is_the_window():
    q, k, v = (torch.randn(2, 3, N, 5, dtype=F64) for _ in range(3))
    expected = windowed(q, k, v, mask=Band(2, 2))
    for chosen in (None, torch.zeros(2, N, dtype=torch.bool)):
        assert torch.equal(windowed_and_global(q, k, v, mask=Band(2, 2), global_tokens=chosen), expected)


def test_who_sees_nothing_gets_zeros_and_sends_zeros_back():
    """Row 0 is all padding, row 1 has a gap wider than its window and no global token, row 2 has one."""
    q, k, v = (torch.randn(3, 2, N, 5, dtype=F64, requires_grad=True) for _ in range(3))
    keep, chosen = torch.ones(3, N, dtype=torch.bool), torch.zeros(3, N, dtype=torch.bool)
    keep[0], keep[1, 3:12], chosen[2, 0], chosen[0, 0] = False, False, True, True
    y = windowed_and_global(q, k, v, mask=Band(2, 2, keep), global_tokens=chosen)
    assert (y[0] == 0).all()
    assert (y[1, :, 5:10] == 0).all()
    assert (y[1, :, :5] != 0).all()
    y.square().sum().backward()
    assert all(x.grad.isfinite().all() for x in (q, k, v))
    assert all((x.grad[0] == 0).all() for x in (q, k, v))
    assert (q.grad[1, :, 5:10] == 0).all()


def test_merging_is_exact():
    q, k, v = (torch.randn(2, 3, n, 5, dtype=F64) for n in (7, 7, 7))
    parts = []
    for keep in (torch.arange(7) < 3, torch.arange(7) >= 3):
        parts += windowed_log_sum(q, k, v, mask=Band(9, 9, keep.expand(2, -1)))
    assert_same(merged(*parts), attention(q, k, v))
    assert_differs(merged(*parts[2:], *parts[:1], parts[3]), attention(q, k, v))


def test_merging_in_half_precision_keeps_the_type():
    q, k, v = (torch.randn(3, 2, N, 8, dtype=torch.bfloat16) for _ in range(3))
    chosen, keep = some_globals()
    y = windowed_and_global(q, k, v, mask=Band(2, 2, keep), global_tokens=chosen)
    exact = windowed_and_global(*(x.double() for x in (q, k, v)), mask=Band(2, 2, keep), global_tokens=chosen)
    assert y.dtype == torch.bfloat16
    assert_same(y.double(), exact, 3e-2)


def test_dropout_keeps_the_mean():
    torch.manual_seed(0)
    q = k = torch.zeros(1, 1, 300, 1, dtype=F64)
    v, chosen = torch.ones(1, 1, 300, 1, dtype=F64), torch.arange(300)[None] < 20
    y = windowed_and_global(q, k, v, mask=Band(20, 20), global_tokens=chosen, dropout=0.5)
    assert y.mean().item() == pytest.approx(1, abs=0.05)
    identity = torch.eye(300, dtype=F64)[None, None]
    weights = windowed_and_global(q, k, identity, mask=Band(20, 20), global_tokens=chosen, dropout=0.5)
    for part in (weights[0, 0, 100:250, :20], weights[0, 0].diagonal()[100:250]):  # global keys, and the window
        assert (part == 0).double().mean().item() == pytest.approx(0.5, abs=0.1)
        assert_same(part[part > 0], torch.full_like(part[part > 0], 2 / (20 + 41)))


# the layer


def layer(window=6, **kwargs):
    return randomise(LongformerAttention(D_MODEL, HEADS, window=window, **kwargs))


def loops(ours, x, chosen, keep, window):
    """Section 3.1 word for word: one query after the other, with the projections that are its own."""
    rows, n, c = len(x), x.shape[1], D_MODEL // HEADS
    y = torch.zeros_like(x)
    for r in range(rows):
        for i in range(n):
            wide = bool(chosen[r, i])
            q, k, v = (getattr(ours, name + ("_global" if wide else "")) for name in "qkv")
            seen = [
                j
                for j in range(n)
                if keep[r, j] and (wide or abs(i - j) <= window // 2 or bool(chosen[r, j] & keep[r, j]))
            ]
            for h in range(HEADS):
                part = slice(c * h, c * h + c)
                scores = k(x[r, seen])[:, part] @ q(x[r, i])[part] / c**0.5
                y[r, i, part] = scores.softmax(0) @ v(x[r, seen])[:, part]
    return ours.o(y)


def test_equals_loops_over_the_definition(parity):
    chosen, keep = some_globals(13 + 5)
    ours, x = layer(), torch.randn(3, 18, D_MODEL, dtype=F64)
    y = ours(x, keep=keep, global_tokens=chosen)
    expected = loops(ours, x, chosen, keep, 6)
    parity("LongformerAttention", "the equations, with loops", "global tokens, padding", y[keep], expected[keep])
    for name in ("q", "k", "v", "q_global", "k_global", "v_global", "o"):
        other = copy.deepcopy(ours)
        getattr(other, name).weight.data *= 1.5
        assert_differs(other(x, keep=keep, global_tokens=chosen), y)


def test_the_pattern_is_band_rows_and_columns():
    """With global projections that equal the others it is plain attention under the mask of the paper's figure."""
    chosen, keep = some_globals()
    plain = randomise(MultiHeadAttention(D_MODEL, HEADS))
    x = torch.randn(3, N, D_MODEL, dtype=F64)
    y = to_longformer(plain, 6)(x, keep=keep, global_tokens=chosen)
    assert_same(y[keep], plain(x, mask=dense_mask(chosen, keep, 6))[keep])
    assert_differs(y[keep], plain(x, mask=dense_mask(chosen, keep, 8))[keep])


def test_padding_does_not_leak():
    chosen, keep = some_globals()
    ours, x = layer(), torch.randn(3, N, D_MODEL, dtype=F64)
    changed = torch.where(keep[..., None], x, x + 1)
    assert not leaks(lambda x: ours(x, keep=keep, global_tokens=chosen), x, changed, keep)
    assert leaks(lambda x: ours(x, global_tokens=chosen), x, changed, keep)
    alone = ours(x[:1, : N - 6], global_tokens=chosen[:1, : N - 6])
    assert_same(ours(x, keep=keep, global_tokens=chosen)[:1, : N - 6], alone)
    assert_same(ours(x, keep=keep, global_tokens=chosen | ~keep)[keep], ours(x, keep=keep, global_tokens=chosen)[keep])


def test_no_n_times_n_matrix():
    """The largest thing that any operation makes grows with the length, not with its square."""

    class Largest(TorchDispatchMode):
        size = 0

        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            out = func(*args, **(kwargs or {}))
            if isinstance(out, torch.Tensor):
                self.size = max(self.size, out.untyped_storage().nbytes())
            return out

    def largest(attend, n):
        x, chosen = torch.randn(1, n, D_MODEL, requires_grad=True), torch.arange(n)[None] % 100 < 2
        with Largest() as counter:
            attend(x, chosen & (torch.arange(n) < 200)).sum().backward()
        return counter.size

    long, plain = LongformerAttention(D_MODEL, HEADS, window=6), MultiHeadAttention(D_MODEL, HEADS)
    sizes = [largest(lambda x, chosen: long(x, global_tokens=chosen), n) for n in (1000, 4000)]
    assert sizes[1] <= 4 * sizes[0]
    dense = [largest(lambda x, chosen: plain(x, mask=chosen[:, None, None]), n) for n in (250, 1000)]
    assert dense[1] == 16 * dense[0]


def test_without_global_tokens_the_global_projections_are_not_used():
    ours = layer()
    ours(torch.randn(3, N, D_MODEL, dtype=F64), global_tokens=torch.zeros(3, N, dtype=torch.bool)).sum().backward()
    assert ours.k_global.weight.grad is None
    assert ours.k.weight.grad is not None
    ours(torch.randn(3, N, D_MODEL, dtype=F64), global_tokens=some_globals()[0]).sum().backward()
    assert (ours.k_global.weight.grad != 0).any()


def test_gradients():
    ours = layer(window=2)
    keep = torch.tensor([[True] * 5, [True, False, False, False, True]])
    chosen = torch.tensor([[False, False, True, False, False], [True, False, False, False, True]])
    x = torch.randn(2, 5, D_MODEL, dtype=F64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: ours(x, keep=keep, global_tokens=chosen), x)


def test_dropout_only_while_training():
    seen = []

    def spy(q, k, v, **kwargs):
        seen.append(kwargs["dropout"])
        return windowed_and_global(q, k, v, **kwargs)

    ours, x = layer(dropout=0.3, attend=spy), torch.randn(3, N, D_MODEL, dtype=F64)
    chosen = some_globals()[0]
    evaluated = ours.eval()(x, global_tokens=chosen)
    assert torch.equal(ours(x, global_tokens=chosen), evaluated)
    trained = ours.train()(x, global_tokens=chosen)
    assert seen == [0.0, 0.0, 0.3]
    assert_differs(trained[chosen], evaluated[chosen])
    assert_differs(trained[~chosen], evaluated[~chosen])


# the model


def settings(**changes):
    return {
        "d_model": D_MODEL,
        "n_heads": HEADS,
        "d_ff": D_FF,
        "n_layers": LAYERS,
        "window": WINDOWS,
        "n_positions": 37,
        "n_segments": 2,
        "dropout": 0.0,
        "eps": 1e-3,
        **changes,
    }


def model(**changes):
    return randomise(Longformer(V, **settings(**changes))).eval()


def peer(ours):
    """The model of transformers with the same weights."""
    config = LongformerConfig(
        vocab_size=V,
        hidden_size=D_MODEL,
        num_attention_heads=HEADS,
        intermediate_size=D_FF,
        num_hidden_layers=LAYERS,
        attention_window=list(WINDOWS),
        max_position_embeddings=37 + 2,
        type_vocab_size=2,
        pad_token_id=1,
        layer_norm_eps=1e-3,
    )
    reference = LongformerModel(config).double().eval()

    def norm(theirs, mine):
        theirs.load_state_dict({"weight": mine.gain, "bias": mine.bias})

    e = reference.embeddings
    for theirs, mine in (
        (e.word_embeddings, ours.words),
        (e.position_embeddings, ours.positions),
        (e.token_type_embeddings, ours.segments),
        (reference.pooler.dense, ours.pooler),
    ):
        theirs.load_state_dict(mine.state_dict())
    norm(e.LayerNorm, ours.norm)
    for theirs, mine in zip(reference.encoder.layer, ours.layers, strict=True):
        for name, full in (("q", "query"), ("k", "key"), ("v", "value")):
            getattr(theirs.attention.self, full).load_state_dict(getattr(mine.attention, name).state_dict())
            other = getattr(mine.attention, f"{name}_global")
            getattr(theirs.attention.self, f"{full}_global").load_state_dict(other.state_dict())
        theirs.attention.output.dense.load_state_dict(mine.attention.o.state_dict())
        theirs.intermediate.dense.load_state_dict(mine.feed_forward.expand.state_dict())
        theirs.output.dense.load_state_dict(mine.feed_forward.contract.state_dict())
        norm(theirs.attention.output.LayerNorm, mine.residuals[0].norm)
        norm(theirs.output.LayerNorm, mine.residuals[1].norm)
    return reference


def texts():
    chosen, keep = some_globals()
    tokens = torch.randint(2, V, (3, N))
    return tokens.masked_fill(~keep, 1), keep, chosen, torch.randint(2, (3, N))


@pytest.mark.parametrize("with_globals", [True, False])
@pytest.mark.parametrize("padded", [True, False])
def test_equals_transformers(with_globals, padded, parity):
    """1e-6, for its softmax is float32 whatever it is given. It pads to the widest window; ours needs no padding."""
    tokens, keep, chosen, segments = texts()
    if not padded:
        tokens, keep = torch.randint(2, V, (3, N)), torch.ones_like(keep)
    if not with_globals:
        chosen = torch.zeros_like(chosen)
    ours = model()
    with torch.no_grad():
        expected = peer(ours)(
            input_ids=tokens,
            attention_mask=keep.long(),
            global_attention_mask=chosen.long(),
            token_type_ids=segments,
        )
        states = ours(tokens, keep=keep, global_tokens=chosen, segments=segments)
    mine = [states[keep], ours.pool(states)[:2]]  # the third row begins with padding
    theirs = [expected.last_hidden_state[keep], expected.pooler_output[:2]]
    configuration = f"global tokens={with_globals}, padding={padded}, its softmax in float32"
    parity("Longformer", "transformers.LongformerModel", configuration, mine, theirs, 1e-6)
    assert_differs(states[keep], ours(tokens, keep=keep, global_tokens=~chosen, segments=segments)[keep])
    assert_differs(states[keep], ours(tokens, keep=keep, global_tokens=chosen, segments=1 - segments)[keep])
    assert_differs(states[keep], randomise(model(window=6))(tokens, keep=keep, global_tokens=chosen)[keep])


def test_attention_equals_transformers_without_its_output_map(parity):
    ours = model().layers[0].attention
    chosen, keep = some_globals(28)
    theirs = peer(model()).encoder.layer[0].attention.self
    x = torch.randn(3, 28, D_MODEL, dtype=F64)
    low = torch.zeros(3, 28, dtype=F64).masked_fill(~keep, torch.finfo(F64).min).masked_fill(chosen, 10_000.0)
    expected = theirs(x, attention_mask=low, is_index_masked=~keep, is_index_global_attn=chosen, is_global_attn=True)[0]
    ours.o = nn.Identity()
    y = ours(x, keep=keep, global_tokens=chosen)
    parity("LongformerAttention", "transformers' Longformer", "its softmax in float32", y[keep], expected[keep], 1e-6)
    assert (expected[~keep] == 0).all()  # what a padded query finds is zero there, and something here
    assert_differs(y[~keep], expected[~keep])


def test_full_size_on_the_meta_device():
    with torch.device("meta"):
        full = Longformer().eval()
        assert full(torch.zeros(2, 4096, dtype=torch.long)).shape == (2, 4096, 768)
    sizes = {name: sum(p.numel() for p in part.parameters()) for name, part in full.named_children()}
    assert sum(sizes.values()) == 148_659_456
    assert sizes["pooler"] == 590_592
    assert sum(p.numel() for name, p in full.named_parameters() if "_global" in name) == 12 * 3 * 590_592
    assert full.positions.weight.shape == (4098, 768)


def test_starts_from_small_normal_weights():
    torch.manual_seed(0)
    fresh = Longformer(997, **settings(d_model=96))
    for weight in (fresh.words.weight, fresh.layers[1].attention.q_global.weight, fresh.pooler.weight):
        assert weight.std().item() == pytest.approx(0.02, rel=0.05)


def test_positions_count_tokens_behind_the_offset():
    ours = model()
    tokens = torch.randint(2, V, (1, 5))
    keep = torch.tensor([[False, True, True, False, True]])
    expected = ours.norm(ours.words(tokens) + ours.positions(torch.tensor([[2, 2, 3, 3, 4]])) + ours.segments.weight[0])
    assert_same(ours.embed(tokens, keep)[keep], expected[keep])
    other = model(position_offset=0)
    assert other.positions.weight.shape == (37, D_MODEL)
    assert_same(
        other.embed(tokens), other.norm(other.words(tokens) + other.positions.weight[:5] + other.segments.weight[0])
    )


def test_dropout_falls_on_embeddings_sublayers_and_weights():
    ours = model(dropout=1.0).train()
    assert (ours.embed(torch.randint(2, V, (1, 5))) == 0).all()  # behind the norm, which would add its bias
    ours = model(dropout=0.25)
    for block in ours.layers:
        assert block.attention.dropout == 0.25
        assert [residual.dropout.p for residual in block.residuals] == [0.25, 0.25]


def test_copies_and_pickles():
    ours, (tokens, keep, chosen, segments) = model(), texts()
    expected = ours(tokens, keep=keep, global_tokens=chosen, segments=segments)
    for other in (copy.deepcopy(ours), pickle.loads(pickle.dumps(ours))):
        assert torch.equal(other(tokens, keep=keep, global_tokens=chosen, segments=segments), expected)


def test_one_batch_can_be_overfitted():
    """The answer stands at the far end: only a global token can bring it to the first position in two layers."""
    torch.manual_seed(0)
    tokens = torch.randint(2, V, (8, 30))
    goal = tokens[:, -1]
    ours = Longformer(V, **settings(d_model=24, n_layers=2, window=4))
    adam = torch.optim.Adam(ours.parameters(), 3e-3)
    first = torch.zeros(8, 30, dtype=torch.bool)
    first[:, 0] = True
    for _ in range(100):
        loss = nn.functional.cross_entropy(ours(tokens, global_tokens=first)[:, 0] @ ours.words.weight.T, goal)
        adam.zero_grad()
        loss.backward()
        adam.step()
    assert loss < 0.1


# how far it sees


def reach(depth, window, n=61, at=30, **kwargs):
    """Positions that move when one input does, after `depth` layers of attention alone."""
    layers = [randomise(LongformerAttention(D_MODEL, HEADS, window=window), seed) for seed in range(depth)]

    def stack(x):
        for attend in layers:
            x = attend(x, **kwargs)
        return x

    x = torch.randn(1, n, D_MODEL, dtype=F64)
    changed = x.clone()
    changed[:, at] += 1
    moved = (stack(x) - stack(changed)).abs().amax(-1)[0] > 0
    return moved.nonzero().flatten().tolist()


@pytest.mark.parametrize(("depth", "window"), [(1, 6), (3, 6), (4, 2)])
def test_the_receptive_field_is_depth_times_window_and_half_of_it_on_each_side(depth, window):
    assert reach(depth, window) == list(range(30 - depth * window // 2, 30 + depth * window // 2 + 1))


def test_one_global_token_makes_two_layers_enough():
    chosen = torch.zeros(1, 61, dtype=torch.bool)
    chosen[0, 5] = True
    assert reach(2, 2, global_tokens=chosen) == list(range(61))
    assert reach(1, 2, global_tokens=chosen) == [5, 29, 30, 31]
    assert reach(1, 2, at=5, global_tokens=chosen) == list(range(61))


# from a trained encoder to a long one


def test_a_converted_layer_is_the_old_one_on_texts_within_its_window():
    plain = randomise(MultiHeadAttention(D_MODEL, HEADS, dropout=0.2)).eval()
    long = to_longformer(plain, 2 * N)
    x = torch.randn(3, N, D_MODEL, dtype=F64)
    chosen, keep = some_globals()
    assert_same(long(x, keep=keep, global_tokens=chosen), plain(x, mask=keep[:, None, None]))
    assert_differs(to_longformer(plain, 4)(x), plain(x))
    assert (long.dropout, long.training) == (0.2, False)
    long.q_global.weight.data += 1  # a copy, not the same
    assert_differs(long.q.weight, long.q_global.weight)
    assert torch.equal(long.q.weight, plain.q.weight)
    assert long.q.weight is not plain.q.weight


def test_a_whole_layer_can_be_converted_in_place():
    ours = model(window=100)
    plain = copy.deepcopy(ours)
    tokens, keep, _, segments = texts()
    for block in plain.layers:
        assert isinstance(block, EncoderLayer)
        block.attention = to_longformer(block.attention, 100)
    assert_same(plain(tokens, keep=keep, segments=segments), ours(tokens, keep=keep, segments=segments))


def test_tiled_positions():
    table = torch.arange(2 + 5)[:, None].double()  # rows 0 and 1 belong to no position
    assert tiled_positions(table, 12).flatten().tolist() == [0, 1, 2, 3, 4, 5, 6, 2, 3, 4, 5, 6, 2, 3]
    assert tiled_positions(table, 3).flatten().tolist() == [0, 1, 2, 3, 4]
    assert tiled_positions(table, 7, position_offset=0).flatten().tolist() == list(range(7))
    assert tiled_positions(torch.zeros(514, 3), 4096).shape == (4098, 3)


# errors


@pytest.mark.parametrize("window", [0, 7, -2])
def test_an_odd_window_is_refused(window):
    with pytest.raises(ValueError, match=f"window={window} must be even and positive"):
        LongformerAttention(D_MODEL, HEADS, window=window)


def test_as_many_windows_as_layers():
    with pytest.raises(ValueError, match="window has 2 entries, but there are n_layers=3"):
        Longformer(V, **settings(window=[2, 4]))


def test_texts_that_are_too_long_are_refused():
    with pytest.raises(ValueError, match="tokens are 38 a row, more than n_positions=37"):
        model()(torch.zeros(1, 38, dtype=torch.long))
