"""The model with loops, for all ways to look; what feeding tells the layers, searching, the paper's sizes."""

import math
from itertools import islice

import pytest
import torch
from by_hand import local_by_hand, scores_by_hand
from torch import nn

from helpers import assert_differs, assert_same, leaks, randomise
from papercode.data.sequences import END, FIRST, PAD, START, copy, pairs
from papercode.decoding import beam_search, greedy_search
from papercode.recurrent.attentional_seq2seq import AttentionalCell, AttentionalSeq2Seq, AttentionalState
from papercode.recurrent.fused import fused
from papercode.recurrent.layers import Stack
from papercode.recurrent.lstm import LSTMCell
from papercode.recurrent.luong import ConcatScore, DotScore, GeneralScore, Global, LocalM, LocalP, LocationScore
from papercode.recurrent.unroll import select, shown, unroll
from papercode.training import train

B, M, N = 3, 7, 5  # batch, source, target
SOURCE, TARGET = 23, 19  # vocabularies
D, E, A = 11, 13, 17  # state, keys, concat's hidden layer
LENGTHS = torch.tensor([M, 4, 1])
KEEP = torch.arange(M) < LENGTHS[:, None]

ATTENTIONS = {
    "global (dot)": lambda: Global(DotScore()),
    "global (concat)": lambda: Global(ConcatScore(D, D, A)),
    "global (location)": lambda: Global(LocationScore(D, 2)),
    "local-m (general)": lambda: LocalM(GeneralScore(D, D), 1),
    "local-p (general)": lambda: LocalP(GeneralScore(D, D), D, 2),
}


def build(attend, *, feeding=True, layers=2):
    return randomise(AttentionalSeq2Seq(SOURCE, TARGET, d=D, n_layers=layers, attend=attend, feeding=feeding))


@pytest.fixture
def source():
    return torch.randint(SOURCE, (B, M))


@pytest.fixture
def target():
    return torch.randint(TARGET, (B, N))


def lstm_by_hand(cell, x, h, c):
    W, U, b = cell.input.weight, cell.hidden.weight, cell.input.bias
    i, f, g, o = (W @ x + U @ h + b).chunk(4)
    c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
    return torch.sigmoid(o) * torch.tanh(c), c


def translate_by_hand(model, words, target, feeding):
    zeros, decoder = torch.zeros(D).double(), model.decoder
    states = [(zeros, zeros) for _ in model.encoder.cells]
    keys = []
    for word in words:
        x = model.source.weight[word]
        for layer, cell in enumerate(model.encoder.cells):
            states[layer] = lstm_by_hand(cell, x, *states[layer])
            x = states[layer][0]
        keys.append(x)
    keys, attend, tilde, logits, alignment = torch.stack(keys), decoder.attend, zeros, [], []
    for t, word in enumerate(target):
        x = model.target.weight[word]
        x = torch.cat([x, tilde]) if feeding else x
        for layer, cell in enumerate(decoder.cells.cells):
            states[layer] = lstm_by_hand(cell, x, *states[layer])
            x = states[layer][0]
        h = x
        scores = scores_by_hand(attend.score, h, keys)
        if isinstance(attend, LocalP):
            raw = attend.v.weight[0] @ torch.tanh(attend.hidden.weight @ h)
            centre = len(words) / (1 + math.exp(-raw.item()))
            weights, context = local_by_hand(h, keys, scores, centre, attend.reach, attend.reach / 2)
        elif isinstance(attend, LocalM):
            weights, context = local_by_hand(h, keys, scores, t + 1, attend.reach)
        else:
            weights = torch.zeros(len(words)).double()
            weights[: len(scores)] = scores.exp() / scores.exp().sum()
            context = weights @ keys
        tilde = torch.tanh(decoder.combine.weight @ torch.cat([context, h]))
        logits.append(model.logits.weight @ tilde)
        alignment.append(weights)
    return torch.stack(logits), torch.stack(alignment)


@pytest.mark.parametrize("feeding", [True, False])
@pytest.mark.parametrize("name", ATTENTIONS)
def test_equations(name, feeding, source, target, parity):
    model = build(ATTENTIONS[name](), feeding=feeding)
    with torch.no_grad():
        logits, weights = model.decode(target, model.encode(source, LENGTHS))
        assert torch.equal(model(source, target, LENGTHS), logits)
        for row, n in enumerate(LENGTHS.tolist()):
            expected = translate_by_hand(model, source[row, :n].tolist(), target[row].tolist(), feeding)
            configuration = f"{name}, feeding={feeding}, {n} words"
            ours = [logits[row], weights[row, :, :n]]
            parity("Attentional seq2seq", "the equations, with loops", configuration, ours, expected)
            assert not weights[row, :, n:].any()
        assert_differs(model(source, target), logits)


def test_an_alignment_knows_the_previous_word(source, target):
    """a_t is made of h_t, which has read y_{t-1}; in RNNsearch it comes one step later."""
    model = build(Global(DotScore()))
    changed = target.clone()
    changed[:, 3] = (changed[:, 3] + 1) % TARGET

    def weights(words):
        return model.decode(words, model.encode(source))[1]

    step = torch.arange(N).expand(B, N)
    assert not leaks(weights, target, changed, step < 3)
    assert leaks(weights, target, changed, step == 3)
    assert not leaks(lambda words: model(source, words), target, changed, step < 3)


def test_only_feeding_tells_the_layers_where_one_looked(source, target):
    """Without it the states are those of a decoder without attention; with it they change with the weights."""
    for feeding in (False, True):
        model = build(Global(GeneralScore(D, D)), feeding=feeding)

        def hidden(model=model):
            state = model.encode(source)
            (h, _), _ = unroll(model.decoder, model.target(target), state, emit=lambda new: (shown(new.cells), new.t))
            return h

        before = hidden()
        with torch.no_grad():
            model.decoder.attend.score.key.weight.mul_(-1)
        after = hidden()
        assert torch.equal(before[:, 0], after[:, 0])  # the first vector fed is zeros
        assert torch.equal(before, after) is not feeding


def test_without_feeding_attention_can_wait_until_the_end(source, target):
    """The layers run over the whole target first, and then every step looks at the source."""
    model = build(Global(GeneralScore(D, D)), feeding=False)
    state = model.encode(source, LENGTHS)
    h, _ = unroll(model.decoder.cells, model.target(target), state.cells)
    scores = h @ model.decoder.attend.score.project(state.memory.keys).mT
    weights = scores.masked_fill(~KEEP[:, None], -torch.inf).softmax(-1)
    tilde = torch.tanh(model.decoder.combine(torch.cat([weights @ state.memory.keys, h], -1)))
    assert_same(model.logits(tilde), model(source, target, LENGTHS))
    fed = build(Global(GeneralScore(D, D)))
    assert fed.decoder.cells.cells[0].input.in_features == 2 * D


def test_padding_does_not_leak(source, target):
    model = build(LocalP(ConcatScore(D, D, A), D, 2))
    changed, everywhere = torch.where(KEEP, source, (source + 1) % SOURCE), torch.ones(B, N, dtype=torch.bool)
    assert not leaks(lambda words: model(words, target, LENGTHS), source, changed, everywhere)
    assert leaks(lambda words: model(words, target), source, changed, everywhere)
    assert_same(model(source, target, LENGTHS)[1:2], model(source[1:2, :4], target[1:2]))


def test_steps_equal_one_pass_and_follow_their_parents(source, target):
    model = build(LocalM(GeneralScore(D, D), 1))
    step, rows = model.steps(source, LENGTHS), torch.arange(B)
    with torch.no_grad():
        logits = [step(target[:, : i + 1], rows) for i in range(N)]
        assert_same(torch.stack(logits, 1), model(source, target, LENGTHS))
        assert_same(model.steps(source, LENGTHS)(target[:, :3], rows), logits[2])  # a prompt is read at once
        parents, step = torch.tensor([2, 0, 0, 1]), model.steps(source, LENGTHS)
        step(target[:, :1], rows)
        words = torch.cat([target[parents, :1], torch.randint(TARGET, (4, 1))], 1)
        assert_same(step(words, parents), model(source[parents], words, LENGTHS[parents])[:, 1])


def test_searching_keeps_no_graph_of_the_source(source, monkeypatch):
    model, encode, states = build(Global(DotScore())), AttentionalSeq2Seq.encode, []
    monkeypatch.setattr(AttentionalSeq2Seq, "encode", lambda *a: states.append(encode(*a)) or states[-1])
    model.steps(source)
    model.encode(source)
    assert [state.memory.keys.requires_grad for state in states] == [False, True]


def test_targets_of_different_lengths(source, target):
    model, lengths = build(LocalM(GeneralScore(D, D), 1)), torch.tensor([2, N, 4])
    state, x = model.encode(source, LENGTHS), model.target(target)
    ragged, last = unroll(model.decoder, x, state, lengths=lengths)
    whole, _ = unroll(model.decoder, x, state)
    for row, n in enumerate(lengths.tolist()):
        assert_same(ragged[row, :n], whole[row, :n])
    assert last.t.tolist() == lengths.tolist()
    assert isinstance(select(last, slice(1)), AttentionalState)


def test_the_source_may_be_read_by_torchs_kernels(source, target):
    plain = build(Global(DotScore()))
    quick = AttentionalSeq2Seq(SOURCE, TARGET, d=D, n_layers=2, attend=Global(DotScore()), run=fused).double()
    assert_differs(quick(source, target, LENGTHS), plain(source, target, LENGTHS))
    quick.load_state_dict(plain.state_dict())
    assert_same(quick(source, target, LENGTHS), plain(source, target, LENGTHS))
    assert quick.encoder.run is fused


def test_a_decoder_has_no_start_of_its_own():
    cell = AttentionalCell(Stack([LSTMCell(E + D, D)]), Global(GeneralScore(D, E)), E)
    with pytest.raises(TypeError, match=r"AttentionalCell needs a state: begin\(cells, keys, keep\) makes the first"):
        cell(torch.randn(B, E))
    assert cell.width == D


def test_it_learns_to_copy():
    torch.manual_seed(0)
    model = AttentionalSeq2Seq(FIRST + 4, FIRST + 4, d=24, n_layers=2, attend=Global(GeneralScore(24, 24)), spread=0.3)
    optimizer = torch.optim.Adam(model.parameters(), 2e-2)

    def loss(source, target):
        logits = model(source, target[:, :-1], (source != PAD).sum(1))
        return nn.functional.cross_entropy(logits.flatten(0, 1), target[:, 1:].flatten(), ignore_index=PAD)

    losses = train(model, loss, islice(pairs(copy, n_symbols=4, shortest=2, longest=3), 100), optimizer, clip=5.0)
    assert losses[-1] < losses[0] / 5
    source = torch.tensor([[3, 5, 4], [6, 3, PAD], [4, 4, 5]])
    lengths, prompt = (source != PAD).sum(1), torch.full((3, 1), START)
    found = greedy_search(model.steps(source, lengths), prompt, end=END, max_new=5)
    assert found[:, 1:].tolist() == [[3, 5, 4, END], [6, 3, END, END], [4, 4, 5, END]]
    beams, _ = beam_search(model.steps(source, lengths), prompt, end=END, max_new=5, beam=3)
    assert torch.equal(beams[:, 0, : found.shape[1]], found)


def test_defaults_are_the_papers():
    """Section 4.1: 4 layers of 1000 cells, words of 1000 numbers, weights within 0.1, D = 10, and so sigma = 5."""
    with torch.device("meta"):
        model = AttentionalSeq2Seq(50000, 50000)
    attend = model.decoder.attend
    assert isinstance(attend, LocalP)
    assert (attend.reach, attend.sigma) == (10, 5)
    assert isinstance(attend.score, GeneralScore)
    d, words = 1000, 3 * 50000 * 1000  # source, target, and the logits
    layer = 4 * (2 * d * d + d)
    counted = words + 8 * layer + 4 * d * d + 2 * d * d + d * d + (d * d + d)  # feeding, W_c, W_a, W_p and v_p
    assert sum(parameter.numel() for parameter in model.parameters()) == counted
    small = AttentionalSeq2Seq(101, 103, d=31, n_layers=2)
    for parameter in small.parameters():
        assert parameter.abs().max() <= 0.1
        assert parameter.numel() < 100 or parameter.std().item() == pytest.approx(0.1 / 3**0.5, rel=0.15)


def test_dropout_between_the_layers(source, target):
    model = AttentionalSeq2Seq(SOURCE, TARGET, d=D, n_layers=2, dropout=0.5).eval()
    assert torch.equal(model(source, target), model(source, target))
    model.train()
    assert not torch.equal(model(source, target), model(source, target))
    assert not torch.equal(model.encode(source).memory.keys, model.encode(source).memory.keys)
    state = model.encode(source)
    assert not torch.equal(model.decode(target, state)[0], model.decode(target, state)[0])
