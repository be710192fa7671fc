"""The Transformer-XL: one long pass, what reaches how far, where gradients end, and the released sizes."""

import copy
import io
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
from papercode.attention.adaptive_softmax import AdaptiveEmbedding, AdaptiveSoftmax
from papercode.attention.kv_cache import KVCache
from papercode.attention.masks import Band
from papercode.attention.transformer import attention, causal_mask
from papercode.attention.transformer_xl import Memory, TransformerXL, in_segments, longest_dependency
from papercode.attention.wrapping import wrapped

V, D_MODEL, HEADS, D_FF, LAYERS, B = 23, 14, 2, 19, 3, 2
F64 = torch.float64


def model(randomised=True, **kwargs):
    settings = {"d_model": D_MODEL, "n_heads": HEADS, "d_ff": D_FF, "n_layers": LAYERS, "mem_len": 5, "dropout": 0.0}
    built = TransformerXL(V, **{**settings, **kwargs})
    return randomise(built).eval() if randomised else built


def text(n):
    return torch.randint(V, (B, n))


# one long pass


def layers_under(ours, tokens, mask):
    """The layers over the whole text at once, under a mask of our own."""
    x = ours.embedding(tokens)
    for layer in ours.layers:
        x = layer(x, mask=mask)
    return ours.softmax(x)


@pytest.mark.parametrize(("segment", "mem_len"), [(5, 5), (5, 7), (5, 3), (5, 11), (7, 100), (1, 4), (5, 0)])
def test_segments_equal_one_pass_under_the_staircase(segment, mem_len):
    """Position p in a segment that starts at s sees from s - M to p, in every layer."""
    ours, tokens = model(mem_len=mem_len), text(23)
    n, p = tokens.shape[1], torch.arange(23)
    start = p // segment * segment
    staircase = (p <= p[:, None]) & (p >= start[:, None] - mem_len)
    y, memory = in_segments(ours, tokens, segment)
    assert_same(y, layers_under(ours, tokens, staircase))
    assert len(memory) == min(n, mem_len)
    without = staircase.clone()
    without[p, staircase.long().argmax(1)] = False  # each row loses the first key it sees
    assert_differs(y, layers_under(ours, tokens, without))


@pytest.mark.parametrize("segments", [[23], [5, 5, 5, 5, 3], [1] * 23, [11, 1, 7, 4]], ids=str)
def test_with_a_reach_the_cuts_do_not_matter(segments):
    ours, tokens = model(mem_len=6, reach=6), text(23)
    memory, parts = None, []
    for piece in tokens.split(segments, 1):
        part, memory = ours(piece, memory)
        parts.append(part)
    assert_same(torch.cat(parts, 1), layers_under(ours, tokens, Band(6, 0)))
    assert_differs(torch.cat(parts, 1), layers_under(ours, tokens, Band(5, 0)))
    assert_differs(torch.cat(parts, 1), layers_under(ours, tokens, causal_mask))


def test_memory_of_everything_equals_the_causal_model():
    ours, tokens = model(mem_len=1000), text(23)
    assert_same(in_segments(ours, tokens, 4)[0], layers_under(ours, tokens, causal_mask))
    assert_same(in_segments(ours, tokens, 4)[0], ours(tokens)[0])


def test_a_longer_memory_at_evaluation():
    ours, tokens = model(mem_len=3), text(23)
    short, _ = in_segments(ours, tokens, 4)
    ours.mem_len = 17
    assert_differs(in_segments(ours, tokens, 4)[0], short)
    assert_same(in_segments(ours, tokens, 4)[0], in_segments(model(mem_len=17), tokens, 4)[0])


def test_keys_in_a_cache_equal_states_in_a_memory():
    ours, tokens = model(mem_len=1000), text(11)
    ours.mem_len = 0  # nothing but the caches
    with wrapped(ours, KVCache):
        steps = [ours(tokens[:, i : i + 1])[0] for i in range(11)]
    ours.mem_len = 1000
    assert_same(torch.cat(steps, 1), in_segments(ours, tokens, 1)[0])


# the memory


def test_what_the_memory_holds():
    ours, tokens = model(mem_len=7), text(15)
    memory, seen = None, []
    for piece in tokens.split(5, 1):
        seen.append(ours.embedding(piece))
        _, memory = ours(piece, memory)
        expected = torch.cat(seen, 1)[:, -7:]
        assert len(memory.states) == LAYERS  # the output of the last layer is not among them
        assert_same(memory.states[0], expected)
        assert not memory.states[0].requires_grad
        assert all(state.shape == (B, expected.shape[1], D_MODEL) for state in memory.states)


@pytest.mark.parametrize(("old", "n", "mem_len"), [(3, 5, 4), (3, 5, 6), (3, 5, 8), (3, 5, 20), (3, 5, 0), (0, 5, 3)])
def test_the_memory_keeps_the_last_states(old, n, mem_len):
    states = tuple(torch.randn(B, old, D_MODEL) for _ in range(2))
    inputs = [torch.randn(B, n, D_MODEL) for _ in range(2)]
    keep = torch.rand(B, old) < 0.5
    grown = Memory(states, keep).extended(inputs, mem_len)
    for state, past, new in zip(grown.states, states, inputs, strict=True):
        whole = torch.cat([past, new], 1)
        assert torch.equal(state, whole[:, max(0, old + n - mem_len) :])
        assert state.untyped_storage().nbytes() == state.numel() * 4  # what is forgotten is freed
    kept = torch.cat([keep, torch.ones(B, n, dtype=torch.bool)], 1)
    assert torch.equal(grown.keep, kept[:, max(0, old + n - mem_len) :])
    assert len(grown) == min(mem_len, old + n)
    assert Memory(states).extended(inputs, mem_len).keep is None


def test_only_keys_and_values_see_the_memory():
    seen = []

    def spy(q, k, v, **kwargs):
        seen.append((q.shape[2], k.shape[2], v.shape[2]))
        return attention(q, k, v, **kwargs)

    ours, tokens = model(mem_len=7, attend=spy), text(15)
    y, _ = in_segments(ours, tokens, 5)
    assert seen == [(5, 5, 5)] * LAYERS + [(5, 10, 10)] * LAYERS + [(5, 12, 12)] * LAYERS
    assert y.shape == (B, 15, V)


def test_before_the_first_segment_there_is_nothing():
    """A difference from the paper's TensorFlow code: zeros would be seen, as keys of their own."""
    ours, tokens = model(), text(5)
    zeros = Memory(tuple(torch.zeros(B, 5, D_MODEL, dtype=F64) for _ in range(LAYERS)))
    assert_same(ours(tokens)[0], layers_under(ours, tokens, causal_mask))
    assert_differs(ours(tokens, zeros)[0], ours(tokens)[0])


def test_a_row_that_begins_anew_has_no_past():
    ours, tokens = model(mem_len=7), text(20)
    memory, parts = None, []
    for i, piece in enumerate(tokens.split(5, 1)):
        if i == 2:
            memory = memory.restarted(torch.tensor([False, True]))
        part, memory = ours(piece, memory)
        parts.append(part)
    y = torch.cat(parts, 1)
    assert_same(y[:1], in_segments(ours, tokens[:1], 5)[0])
    assert_same(y[1:, :10], in_segments(ours, tokens[1:, :10], 5)[0])
    assert_same(y[1:, 10:], in_segments(ours, tokens[1:, 10:], 5)[0])
    assert_differs(y[1:, 10:], in_segments(ours, tokens[1:], 5)[0][:, 10:])
    again = memory.restarted(torch.tensor([True, False]))
    assert again.keep.tolist() == [[False] * 7, [True] * 7]
    assert memory.keep.tolist() == [[True] * 7] * B  # and the old memory is as it was
    assert again.restarted(torch.tensor([False, True])).keep.tolist() == [[False] * 7] * B


def test_a_memory_of_another_batch_or_model_is_refused():
    ours = model()
    _, memory = ours(text(5))
    with pytest.raises(ValueError, match="memory has 3 layers and batch 2, but the model has 3 and tokens 1"):
        ours(text(5)[:1], memory)
    with pytest.raises(ValueError, match="memory has 3 layers and batch 2, but the model has 2 and tokens 2"):
        model(n_layers=2)(text(5), memory)
    with pytest.raises(ValueError, match="mem_len=-1 must be at least 0"):
        model(mem_len=-1)


# influence


def earliest_influence(ours, tokens, segment, start):
    """The first position that changes anything in the segment that starts at `start`."""
    for p in range(start):
        changed = tokens.clone()
        changed[:, p] = (changed[:, p] + 1) % V
        y, other = (in_segments(ours, t[:, : start + segment], segment)[0][:, start:] for t in (tokens, changed))
        if not torch.equal(y, other):
            return p
    return start


@pytest.mark.parametrize(
    ("n_layers", "segment", "mem_len"), [(3, 4, 4), (2, 3, 6), (3, 4, 3), (2, 4, 6), (3, 2, 0), (3, 5, 1)]
)
def test_how_far_influence_reaches(n_layers, segment, mem_len):
    ours, start = model(n_layers=n_layers, mem_len=mem_len), 18 // segment * segment
    tokens = text(start + segment)
    reached = start - earliest_influence(ours, tokens, segment, start)
    assert reached == longest_dependency(n_layers, segment, mem_len)
    if mem_len % segment == 0:
        assert reached == n_layers * mem_len


def test_how_far_influence_reaches_with_a_reach():
    ours, tokens = model(n_layers=3, mem_len=6, reach=4), text(24)
    assert 20 - earliest_influence(ours, tokens, 4, 20) == 3 * 4  # from the first position of the segment


def test_no_position_sees_a_later_one():
    ours, tokens = model(mem_len=7), text(15)
    changed = tokens.clone()
    changed[:, 12:] = (changed[:, 12:] + 1) % V
    before = torch.arange(15) < 12

    def y(tokens):
        return in_segments(ours, tokens, 5)[0].transpose(0, 1)

    assert not leaks(y, tokens, changed, before)
    assert leaks(y, tokens, changed, ~before)


def test_no_gradient_crosses_the_border():
    ours = model(mem_len=5)
    first, second = torch.full((B, 5), 3), torch.full((B, 5), 7)
    _, memory = ours(first)
    ours.hidden(second, memory)[0].sum().backward()
    gradient = ours.embedding.tables[0].weight.grad
    assert (gradient[3] == 0).all()  # exactly, although token 3 is seen
    assert (gradient[7] != 0).any()
    changed, _ = ours.hidden(second, ours(torch.full((B, 5), 4))[1])
    assert_differs(changed, ours.hidden(second, memory)[0])
    ours.zero_grad()
    ours.hidden(torch.cat([first, second], 1))[0][:, 5:].sum().backward()
    assert (ours.embedding.tables[0].weight.grad[3] != 0).any()  # within a segment it does


# the parts


def test_biases_of_the_distances_are_tied():
    """A difference from the released WikiText-103 model, where each layer has its own."""
    shared = {id(layer.attention.attend.u) for layer in model().layers}
    shared |= {id(layer.attention.attend.v) for layer in model().layers}
    tied, own = model(), model(tie_biases=False)
    assert len({id(layer.attention.attend.u) for layer in tied.layers}) == 1
    assert len({id(layer.attention.attend.v) for layer in tied.layers}) == 1
    assert len({id(layer.attention.attend.u) for layer in own.layers}) == LAYERS
    count = [sum(p.numel() for p in m.parameters()) for m in (own, tied)]
    assert count[0] - count[1] == 2 * (LAYERS - 1) * D_MODEL
    assert len({id(layer.attention.attend.r.weight) for layer in tied.layers}) == LAYERS


def test_no_positions_but_distances():
    """One layer, all keys equal: only the terms of the distance tell the positions apart; without them, nothing."""
    ours, tokens = model(n_layers=1), torch.full((B, 5), 3)
    y, _ = ours(tokens)
    assert_same(y, y[:, :1].expand_as(y))  # all values are the same, wherever it looks
    mixed = torch.tensor([[3, 4, 4, 4], [4, 3, 4, 4]])
    y, _ = ours(mixed)
    assert_differs(y[0, -1], y[1, -1])
    for name in ("v", "r.weight"):
        dict(ours.layers[0].attention.attend.named_parameters())[name].data.zero_()
    y, _ = ours(mixed)
    assert_same(y[0, -1], y[1, -1])


def test_losses_are_those_of_the_log_probabilities():
    for cutoffs, div in (((), 1), ((5, 11), 2)):
        embedding = AdaptiveEmbedding(V, D_MODEL, cutoffs=cutoffs, div=div)
        ours, tokens, targets = model(embedding=embedding), text(5), text(5)
        _, memory = ours(text(5))
        losses, after = ours.loss(tokens, targets, memory)
        log_p, same = ours(tokens, memory)
        assert_same(losses, -log_p.gather(-1, targets[..., None])[..., 0])
        assert_same(log_p.exp().sum(-1), torch.ones(B, 5, dtype=F64))
        assert_same(after.states[-1], same.states[-1])


def test_initial_weights():
    """A difference from the paper."""
    torch.manual_seed(0)
    embedding = AdaptiveEmbedding(997, 128, cutoffs=[500], div=2)
    big = TransformerXL(997, d_model=128, n_heads=2, d_ff=257, n_layers=2, embedding=embedding)
    for name, parameter in big.named_parameters():
        if parameter.ndim > 1 and "clusters" not in name:
            assert parameter.std().item() == pytest.approx(0.02, abs=0.002), name
            assert parameter.mean().item() == pytest.approx(0, abs=0.004), name
    assert not big.softmax.clusters.weight.any()
    assert not any(bias.any() for bias in big.softmax.biases)


def test_dropout(monkeypatch):
    """A difference from the paper's code: none inside the networks, and none on R."""
    calls = []
    plain = nn.functional.dropout

    def spy(x, p=0.5, training=True, inplace=False):
        calls.append((tuple(x.shape), p))
        return plain(x, p, training, inplace)

    monkeypatch.setattr(nn.functional, "dropout", spy)
    model(randomised=False, dropout=0.25).train()(text(5))
    dropped = [shape for shape, p in calls if p]
    assert dropped == [(B, 5, D_MODEL)] * (2 + 2 * LAYERS)


def test_one_text_can_be_overfitted():
    torch.manual_seed(0)
    ours, tokens = model(randomised=False, mem_len=4), text(13)
    optimizer = torch.optim.Adam(ours.parameters(), 1e-2)
    for _ in range(100):
        memory, losses = None, []
        for piece in range(0, 12, 4):
            inputs, targets = tokens[:, piece : piece + 4], tokens[:, piece + 1 : piece + 5]
            loss, memory = ours.loss(inputs, targets, memory)
            losses.append(loss.mean())
        optimizer.zero_grad()
        sum(losses).backward()
        optimizer.step()
    assert sum(losses) / 3 < 0.05


def test_copies_and_pickles():
    ours, tokens = model(), text(11)
    expected, memory = in_segments(ours, tokens, 5)
    for other in (copy.deepcopy(ours), pickle.loads(pickle.dumps(ours))):
        assert torch.equal(in_segments(other, tokens, 5)[0], expected)
        assert len({id(layer.attention.attend.u) for layer in other.layers}) == 1
        assert other.softmax.words[0] is other.embedding.tables[0].weight
    buffer = io.BytesIO()
    torch.save(ours.state_dict(), buffer)
    fresh = model(randomised=False).double()
    fresh.load_state_dict(torch.load(io.BytesIO(buffer.getvalue()), weights_only=True))
    assert torch.equal(in_segments(fresh, tokens, 5)[0], expected)
    assert torch.equal(pickle.loads(pickle.dumps(memory)).states[0], memory.states[0])


def test_compiles_without_a_graph_break():
    code = """if True:
        import torch
        from papercode.attention.transformer_xl import TransformerXL
        model = TransformerXL(23, d_model=14, n_heads=2, d_ff=19, n_layers=2, mem_len=7).eval()
        tokens = torch.randint(23, (2, 5))
        compiled = torch.compile(model.hidden, backend="eager", fullgraph=True)
        first, memory = model.hidden(tokens)
        torch.testing.assert_close(compiled(tokens)[0], first)
        torch.testing.assert_close(compiled(tokens, memory)[0], model.hidden(tokens, memory)[0])
        print("same")
    """
    source = str(Path(papercode.__file__).parents[1])
    done = subprocess.run([sys.executable, "-c", code], env={**os.environ, "PYTHONPATH": source}, capture_output=True)
    assert done.stdout == b"same\n", done.stderr.decode()


# the released sizes, counted

WORDS, CUTS = 267_735, (20_000, 40_000, 200_000)


def count(n_tokens, cutoffs=(), div=1, project_head=False, tie=None, **settings):
    with torch.device("meta"):
        embedding = AdaptiveEmbedding(
            n_tokens, settings["d_model"], cutoffs=cutoffs, div=div, project_head=project_head
        )
        full = TransformerXL(n_tokens, embedding=embedding, softmax=AdaptiveSoftmax(embedding, tie), **settings)
    return sum(p.numel() for p in full.parameters())


@pytest.mark.parametrize(
    ("settings", "parameters"),
    [
        ({"n_tokens": WORDS, "cutoffs": CUTS, "d_model": 410}, 151_107_538),
        ({"n_tokens": 204, "d_model": 512, "n_heads": 8, "d_ff": 2048, "n_layers": 12}, 41_055_436),
        ({"n_tokens": 204, "d_model": 1024, "n_heads": 8, "d_ff": 3072, "n_layers": 24}, 277_231_820),
    ],
    ids=["standard, WikiText-103", "12 layers, enwik8", "24 layers, enwik8"],
)
def test_parameters(settings, parameters):
    """The first to the unit as the authors' code prints it, the others as rounded in Table 2."""
    assert count(**settings) == parameters


def test_parameters_of_the_large_model():
    """Not the 257M of Table 1, see the note."""
    wide = {"cutoffs": CUTS, "div": 4, "project_head": True, "tie": [False, True, True, True], "tie_biases": False}
    assert count(WORDS, d_model=1024, n_heads=16, d_ff=4096, n_layers=18, **wide) == 285_205_322


def test_the_defaults_are_the_standard_model():
    with torch.device("meta"):
        ours = TransformerXL(WORDS)
    assert len(ours.layers) == 16
    assert ours.layers[0].attention.attend.u.shape == (10, 41)
    assert ours.layers[0].feed_forward.expand.out_features == 2100
    assert ours.mem_len == 150
