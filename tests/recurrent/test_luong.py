"""The equations with loops; what equals what (concat and additive, local and global), windows, feeding, searching."""

import math
from itertools import islice

import pytest
import torch
from torch import nn

from helpers import assert_differs, assert_same, leaks, randomise
from papercode.data.sequences import END, FIRST, PAD, START, copy, pairs
from papercode.decoding import beam_search, greedy_search
from papercode.recurrent.attentional_seq2seq import AttentionalCell, AttentionalSeq2Seq, AttentionalState
from papercode.recurrent.bahdanau import AdditiveScore, Memory
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


def memory_of(score, keys, keep=KEEP):
    return Memory(keys, score.project(keys), keep)


@pytest.fixture
def h():
    return torch.randn(B, D).double()


@pytest.fixture
def keys():
    return torch.randn(B, M, E).double()


def steps(t):
    return torch.full((B,), t)


# --- scores -----------------------------------------------------------------------------------------------------------


def test_by_hand():
    """h = (1, 2): with itself 5 and with (3, 0) 3; with W_a turning (x, y) into (y, x) 4 and 6."""
    h, keys = torch.tensor([[1.0, 2.0]]), torch.tensor([[[1.0, 2.0], [3.0, 0.0]]])
    assert DotScore()(h, keys).tolist() == [[5.0, 3.0]]
    general = GeneralScore(2, 2)
    with torch.no_grad():
        general.key.weight.copy_(torch.tensor([[0.0, 1.0], [1.0, 0.0]]))
    assert general(h, keys).tolist() == [[4.0, 6.0]]


def scores_by_hand(score, h, keys):
    """Of one row, as the paper writes them."""
    if isinstance(score, GeneralScore):
        return torch.stack([h @ score.key.weight @ key for key in keys])
    if isinstance(score, DotScore):
        return torch.stack([sum(h[i] * key[i] for i in range(len(h))) for key in keys])
    if isinstance(score, ConcatScore):
        return torch.stack([score.v.weight[0] @ torch.tanh(score.both.weight @ torch.cat([h, key])) for key in keys])
    return (score.positions.weight @ h)[: len(keys)]


@pytest.mark.parametrize("score", [GeneralScore(D, E), ConcatScore(D, E, A), LocationScore(D, M + 2)])
def test_scores(score, h, keys, parity):
    randomise(score)
    expected = torch.stack([scores_by_hand(score, *row) for row in zip(h, keys)])
    parity(type(score).__name__, "the equations, with loops", "float64", score(h, keys), expected)
    assert_same(score.compare(h, score.project(keys)), expected)
    assert_differs(score(h.flip(0), keys), expected)


def test_dot_score(keys, parity):
    query = torch.randn(B, E).double()
    expected = torch.stack([scores_by_hand(DotScore(), *row) for row in zip(query, keys)])
    parity("DotScore", "the equations, with loops", "float64", DotScore()(query, keys), expected)
    general = GeneralScore(E, E).double()
    nn.init.eye_(general.key.weight)  # dot is general with W_a = 1
    assert_same(general(query, keys), expected)


def test_the_dot_needs_one_width(h, keys):
    with pytest.raises(ValueError, match=f"query has width {D} and keys {E}: the dot needs one width"):
        DotScore()(h, keys)


def test_concat_is_the_additive_score(h, keys):
    """W_a [h; k] = W_1 h + W_2 k."""
    concat, additive = randomise(ConcatScore(D, E, A)), randomise(AdditiveScore(D, E, A, bias=False), seed=1)
    assert_differs(concat(h, keys), additive(h, keys))
    with torch.no_grad():
        concat.both.weight.copy_(torch.cat([additive.query.weight, additive.key.weight], 1))
        concat.v.weight.copy_(additive.v.weight)
    assert_same(concat(h, keys), additive(h, keys), 1e-12)


def test_location_does_not_look_at_the_words(h, keys):
    score = randomise(LocationScore(D, M))
    assert torch.equal(score(h, keys), score(h, torch.randn_like(keys)))


def test_words_after_the_last_position_are_ignored(h, keys):
    score = randomise(LocationScore(D, 3))
    context, weights = Global(score)(h, memory_of(score, keys), steps(0))
    expected = scores_by_hand(score, h[0], keys[0, :3]).softmax(0)
    assert_same(weights[0, :3], expected)
    assert not weights[:, 3:].any()
    assert_same(context[0], expected @ keys[0, :3])


# --- global and local -------------------------------------------------------------------------------------------------


def local_by_hand(h, keys, scores, centre, reach, sigma=math.inf):
    """The window of section 3.2, place by place, counted from 1: weights of all places, and the context."""
    inside = [s for s in range(1, len(keys) + 1) if abs(s - centre) <= reach]
    total = sum(scores[s - 1].exp() for s in inside)
    weights = torch.zeros(len(keys)).double()
    for s in inside:
        weights[s - 1] = scores[s - 1].exp() / total * math.exp(-((s - centre) ** 2) / (2 * sigma**2))
    return weights, sum((weights[s - 1] * keys[s - 1] for s in inside), torch.zeros(keys.shape[1]).double())


@pytest.mark.parametrize("reach", [0, 1, 2, 10])
@pytest.mark.parametrize("t", [0, 2, 6, 9])
def test_local_m(h, keys, reach, t, parity):
    attend = randomise(LocalM(GeneralScore(D, E), reach))
    context, weights = attend(h, memory_of(attend.score, keys), steps(t))
    for row, n in enumerate(LENGTHS.tolist()):
        scores = scores_by_hand(attend.score, h[row], keys[row, :n])
        expected = local_by_hand(h[row], keys[row, :n], scores, t + 1, reach)
        ours = [weights[row, :n], context[row]]
        parity("local-m", "the equations, with loops", f"D={reach}, step {t + 1}, {n} words", ours, expected)
        assert not weights[row, n:].any()


@pytest.mark.parametrize("reach", [1, 2, 10])
@pytest.mark.parametrize("sigma", [None, 0.7, math.inf])
def test_local_p(h, keys, reach, sigma, parity):
    attend = randomise(LocalP(GeneralScore(D, E), D, reach, sigma=sigma), std=0.6)
    context, weights = attend(h, memory_of(attend.score, keys), steps(99))  # the step plays no part
    for row, n in enumerate(LENGTHS.tolist()):
        scores = scores_by_hand(attend.score, h[row], keys[row, :n])
        raw = attend.v.weight[0] @ torch.tanh(attend.hidden.weight @ h[row])
        centre = n / (1 + math.exp(-raw.item()))
        width = reach / 2 if sigma is None else sigma
        expected = local_by_hand(h[row], keys[row, :n], scores, centre, reach, width)
        name = f"D={reach}, sigma={'D/2' if sigma is None else sigma}, {n} words"
        parity("local-p", "the equations, with loops", name, [weights[row, :n], context[row]], expected)
        assert not weights[row, n:].any()


def pinned(score, d, reach, value, sigma=None):
    """A local-p whose v_p tanh(W_p h) is `value` for h with ones."""
    attend = LocalP(score, d, reach, sigma=sigma).double()
    with torch.no_grad():
        attend.hidden.weight.zero_()
        attend.hidden.weight[:, 0] = math.atanh(0.5)
        attend.v.weight.zero_()
        attend.v.weight[0, 0] = value / 0.5
    return attend


@pytest.mark.parametrize(
    ("p", "expected"),
    [
        (4.0, [2, 3, 4, 5, 6]),  # an integer: 2D + 1 places
        (4.3, [3, 4, 5, 6]),  # no integer: 2D
        (0.6, [1, 2]),
        (6.9, [5, 6, 7]),
    ],
)
def test_places_in_a_window(p, expected):
    attend = pinned(DotScore(), 1, 2, math.log(p / (M - p)))
    keys = torch.ones(1, M, 1).double()
    _, weights = attend(torch.ones(1, 1).double(), Memory(keys, keys, keys[..., 0] > 0), steps(0)[:1])
    assert (weights[0].nonzero()[:, 0] + 1).tolist() == expected


def test_the_gaussian_by_hand():
    """S = 4 and sigmoid 1/2 put p at 2. With sigma = 1 the weight falls by exp(-1/2) one place away, by exp(-2) two."""
    attend = pinned(DotScore(), 1, 2, 0.0)
    keys = torch.ones(1, 4, 1).double()
    h = torch.zeros(1, 1).double()
    _, weights = attend(h, Memory(keys, keys, keys[..., 0] > 0), steps(0)[:1])
    expected = [math.exp(-1 / 2) / 4, 1 / 4, math.exp(-1 / 2) / 4, math.exp(-2) / 4]
    assert_same(weights[0], torch.tensor(expected).double())


def test_local_equals_global_where_the_window_holds_all(h, keys):
    """local-p without its Gaussian: always, once D >= S. local-m: while t - D <= 1, so D >= S is not enough."""
    score = randomise(GeneralScore(D, E))
    memory = memory_of(score, keys)
    expected = Global(score)(h, memory, steps(0))
    attend = randomise(LocalP(score, D, M, sigma=math.inf))
    randomise(score)  # it is part of attend, and has just been drawn anew
    for ours, theirs in zip(attend(h, memory, steps(0)), expected):
        assert_same(ours, theirs, 1e-12)
    for t in range(2 * M):
        context, _ = LocalM(score, M)(h, memory, steps(t))
        if t <= M:
            assert_same(context, expected[0], 1e-12)
        else:
            assert_differs(context, expected[0])
    gaussian = LocalP(score, D, M).double()
    assert_differs(gaussian(h, memory, steps(0))[0], expected[0])


def test_a_window_past_the_end_is_empty(h, keys):
    attend = LocalM(GeneralScore(D, E), 2).double()
    keys.requires_grad_()
    context, weights = attend(h, memory_of(attend.score, keys), steps(M + 2))
    assert not context.any()
    assert not weights.any()
    context.sum().backward()
    assert not keys.grad.any()
    context, _ = attend(h, memory_of(attend.score, keys), steps(M + 1))
    assert context[0].any()  # the last word is just within reach


def test_only_the_gaussian_teaches_where_to_look(h, keys):
    for sigma, learns in ((None, True), (math.inf, False)):
        attend = randomise(LocalP(GeneralScore(D, E), D, 2, sigma=sigma))
        attend(h, memory_of(attend.score, keys), steps(0))[0].square().sum().backward()
        assert bool(attend.v.weight.grad.any()) is learns
        assert bool(attend.hidden.weight.grad.any()) is learns


def test_local_p_weights_sum_to_less_than_one(h, keys):
    attend = randomise(LocalP(GeneralScore(D, E), D, 3))
    _, weights = attend(h, memory_of(attend.score, keys), steps(0))
    assert (weights.sum(1) < 1).all()
    assert (weights.sum(1) > math.exp(-2) - 1e-9).all()  # the edge of the window stands at two sigma


def test_only_the_window_is_compared(h, keys, monkeypatch):
    compared = []
    attend = LocalM(GeneralScore(D, E), 2).double()
    compare = attend.score.compare
    monkeypatch.setattr(attend.score, "compare", lambda q, k: compared.append(k.shape[1]) or compare(q, k))
    attend(h, memory_of(attend.score, keys), steps(1))
    assert compared == [5]


def test_gradients_are_those_of_finite_differences():
    attend = randomise(LocalP(ConcatScore(2, 3, 5), 2, 2))
    keep = torch.tensor([[True] * 4 + [False]])

    def context(h, keys):
        return attend(h, memory_of(attend.score, keys, keep), torch.tensor([0]))[0]

    assert torch.autograd.gradcheck(
        context, (torch.randn(1, 2).double().requires_grad_(), torch.randn(1, 5, 3).double().requires_grad_())
    )


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: LocalM(DotScore(), -1), "reach=-1 must be at least 0"),
        (lambda: LocalP(DotScore(), D, 0), r"sigma=0.0 must be positive \(D / 2 with D = reach=0 unless given\)"),
        (lambda: LocalP(DotScore(), D, 3, sigma=-2.0), "sigma=-2.0 must be positive"),
    ],
)
def test_refuses(make, message):
    with pytest.raises(ValueError, match=message):
        make()


# --- the model --------------------------------------------------------------------------------------------------------

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


def translate_by_hand(model, words, target, feeding, fed=lambda old, new: old):
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
