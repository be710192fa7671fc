"""The equations of appendix A with loops; what alignments can know, searching, initial weights and sizes."""

from itertools import islice

import pytest
import torch
from by_hand import additive_by_hand
from torch import nn

from helpers import assert_differs, assert_same, leaks, randomise
from papercode.data.sequences import END, FIRST, PAD, START, copy, pairs
from papercode.decoding import beam_search, greedy_search
from papercode.recurrent.bahdanau import AdditiveScore, SearchCell
from papercode.recurrent.rnnsearch import DeepOutput, RNNsearch, initialise
from papercode.recurrent.unroll import select, unroll
from papercode.training import train

B, M, N = 3, 5, 7  # batch, source, target
SOURCE, TARGET = 23, 19  # vocabularies
E, D, A, L = 11, 13, 17, 2  # embedding, hidden, alignment, maxout
LENGTHS = torch.tensor([M, 2, 1])


@pytest.fixture
def model():
    return randomise(RNNsearch(SOURCE, TARGET, d_embedding=E, d=D, d_score=A, d_maxout=L))


@pytest.fixture
def source():
    return torch.randint(SOURCE, (B, M))


@pytest.fixture
def target():
    return torch.randint(TARGET, (B, N))


def test_what_needs_the_keys_alone_is_done_once(model, source, target, monkeypatch):
    calls, project = [], AdditiveScore.project
    monkeypatch.setattr(AdditiveScore, "project", lambda self, keys: calls.append(0) or project(self, keys))
    model(source, target)
    assert len(calls) == 1


def gru_by_hand(cell, x, h, more=0.0):
    """Appendix A: this paper's z says how much to take, so the update rows of our weights are negated."""
    W_r, W_z, W = cell.input.weight.chunk(3)
    b_r, b_z, b = cell.input.bias.chunk(3)
    U_r, U_z, U = cell.hidden.weight.chunk(3)
    C_r, C_z, C = more.chunk(3) if isinstance(more, torch.Tensor) else (0.0, 0.0, 0.0)
    z = torch.sigmoid(-W_z @ x - U_z @ h - C_z - b_z)
    r = torch.sigmoid(W_r @ x + U_r @ h + C_r + b_r)
    candidate = torch.tanh(W @ x + U @ (r * h) + C + b)
    return (1 - z) * h + z * candidate


def annotate_by_hand(model, words):
    forward, backward = model.encoder.cells
    x = [model.source.weight[word] for word in words]
    h, right = torch.zeros(D).double(), []
    for vector in x:
        right.append(h := gru_by_hand(forward, vector, h))
    h, left = torch.zeros(D).double(), []
    for vector in reversed(x):
        left.append(h := gru_by_hand(backward, vector, h))
    return [torch.cat(both) for both in zip(right, reversed(left))], left[-1]


def translate_by_hand(model, words, target, read=lambda old, new: old):
    """Logits and weights of one sentence; `read` says which state the output layer reads."""
    annotations, first = annotate_by_hand(model, words)
    s = torch.tanh(model.first.weight @ first + model.first.bias)
    out, logits, alignment = model.output, [], []
    for word in target:
        x = model.target.weight[word]
        e = torch.stack([additive_by_hand(model.decoder.score, s, h) for h in annotations])
        alpha = [value.exp() / e.exp().sum() for value in e]
        c = sum(a * h for a, h in zip(alpha, annotations))
        new = gru_by_hand(model.decoder.gru, x, s, model.decoder.context.weight @ c)
        t = out.state.weight @ read(s, new) + out.state.bias + out.word.weight @ x + out.context.weight @ c
        t = torch.stack([torch.maximum(t[2 * j], t[2 * j + 1]) for j in range(L)])
        logits.append(out.logits.weight @ t + out.logits.bias)
        alignment.append(torch.stack(alpha))
        s = new
    return torch.stack(logits), torch.stack(alignment)


def test_equations_of_the_appendix(model, source, target, parity):
    with torch.no_grad():
        logits, weights = model.decode(target, model.encode(source, LENGTHS))
        assert torch.equal(model(source, target, LENGTHS), logits)
        for row, n in enumerate(LENGTHS.tolist()):
            words = source[row, :n].tolist()
            expected, alignment = translate_by_hand(model, words, target[row].tolist())
            ours = [logits[row], weights[row, :, :n]]
            parity("RNNsearch", "the equations, with loops", f"{n} words", ours, [expected, alignment])
            assert (weights[row, :, n:] == 0).all()
            other, _ = translate_by_hand(model, words, target[row].tolist(), read=lambda old, new: new)
            assert_differs(other, expected)  # Eq. 4 read literally is another model
        assert_differs(model(source, target), logits)


def test_deep_output_by_hand():
    """t = (1 + 0, 0 + 0, 0 + 0, -5 + 0): the pairs' maxima are 1 and 0."""
    output = DeepOutput(1, 1, 1, 2, 2)
    with torch.no_grad():
        for parameter in output.parameters():
            parameter.zero_()
        output.state.weight.copy_(torch.tensor([[1.0], [0.0], [0.0], [-5.0]]))
        output.logits.weight.copy_(torch.tensor([[3.0, 0.0], [0.0, 7.0]]))
        logits = output(torch.ones(1, 1), torch.ones(1, 1), torch.ones(1, 1))
    assert logits.tolist() == [[3.0, 0.0]]


def test_padding_does_not_leak(model, source, target):
    changed = torch.where(torch.arange(M) < LENGTHS[:, None], source, (source + 1) % SOURCE)
    everywhere = torch.ones(B, N, dtype=torch.bool)
    assert not leaks(lambda words: model(words, target, LENGTHS), source, changed, everywhere)
    assert leaks(lambda words: model(words, target), source, changed, everywhere)
    alone = model(source[1:2, :2], target[1:2])
    assert_same(model(source, target, LENGTHS)[1:2], alone)


def test_logits_do_not_know_the_next_words(model, source, target):
    changed = target.clone()
    changed[:, 3] = (changed[:, 3] + 1) % TARGET
    before = torch.arange(N).expand(B, N) < 3
    assert not leaks(lambda words: model(source, words), target, changed, before)
    assert leaks(lambda words: model(source, words), target, changed, ~before)


def test_an_alignment_does_not_know_the_previous_word(model, source, target):
    """alpha_i is made of s_{i-1}, which was made of y_{i-2}: the word just written comes one step too late."""
    changed = target.clone()
    changed[:, 3] = (changed[:, 3] + 1) % TARGET  # the word fed at step 3

    def weights(words):
        return model.decode(words, model.encode(source))[1]

    step = torch.arange(N).expand(B, N)
    assert not leaks(weights, target, changed, step <= 3)
    assert leaks(weights, target, changed, step == 4)
    assert leaks(lambda words: model(source, words), target, changed, step == 3)  # the logits know it


def test_with_one_annotation_kept_it_is_the_encoder_decoder(model, source, target):
    """The context is the last annotation at every step, whatever the scores say (end of appendix A.2.2)."""
    state = model.encode(source, LENGTHS)
    last = LENGTHS[:, None] - 1 == torch.arange(M)
    state = state._replace(memory=state.memory._replace(keep=last))
    (contexts, weights), _ = unroll(model.decoder, model.target(target), state, emit=lambda new: new[1:3])
    annotation = state.memory.keys[torch.arange(B), LENGTHS - 1]
    assert_same(contexts, annotation[:, None].expand(B, N, 2 * D))
    assert torch.equal(weights, last[:, None].expand(B, N, M).to(weights))
    contexts.square().sum().backward()
    assert all(p.grad is None or (p.grad == 0).all() for p in model.decoder.score.parameters())
    assert_differs(model.decode(target, state)[0], model(source, target, LENGTHS))


def test_targets_of_different_lengths(model, source, target):
    """`unroll` sorts rows and lets them leave; the memory goes with them."""
    state, x, lengths = model.encode(source, LENGTHS), model.target(target), torch.tensor([2, N, 4])
    s, last = unroll(model.decoder, x, state, lengths=lengths)
    whole, _ = unroll(model.decoder, x, state)
    for row, n in enumerate(lengths.tolist()):
        assert_same(s[row, :n], whole[row, :n])
        assert_same(last.s[row], whole[row, n - 1])
    assert torch.equal(last.memory.keys, state.memory.keys)
    assert torch.equal(last.memory.keep, state.memory.keep)


# --- decoding ---------------------------------------------------------------------------------------------------------


def test_steps_equal_one_pass(model, source, target):
    step, rows = model.steps(source, LENGTHS), torch.arange(B)
    with torch.no_grad():
        steps = [step(target[:, : i + 1], rows) for i in range(N)]
        assert_same(torch.stack(steps, 1), model(source, target, LENGTHS))
        assert_same(model.steps(source, LENGTHS)(target[:, :3], rows), steps[2])  # a prompt is read at once


def test_searching_keeps_no_graph_of_the_source(model, source, monkeypatch):
    encode, states = RNNsearch.encode, []
    monkeypatch.setattr(RNNsearch, "encode", lambda *a: states.append(encode(*a)) or states[-1])
    model.steps(source)
    model.encode(source)
    assert [state.memory.keys.requires_grad for state in states] == [False, True]


def test_steps_follow_their_parents(model, source, target):
    """Rows that continue others, more of them than before, see their parents' source and state."""
    parents = torch.tensor([2, 0, 0, 1])
    step = model.steps(source, LENGTHS)
    with torch.no_grad():
        step(target[:, :1], torch.arange(B))
        words = torch.cat([target[parents, :1], torch.randint(TARGET, (4, 1))], 1)
        expected = model(source[parents], words, LENGTHS[parents])[:, 1]
        assert_same(step(words, parents), expected)
        assert_differs(expected, model(source[parents.flip(0)], words, LENGTHS[parents.flip(0)])[:, 1])


@pytest.fixture(scope="module")
def trained():
    """Half trained on copying two or three symbols, enough for beams to compete."""
    torch.manual_seed(0)
    torch.set_num_threads(1)  # this runs before the fixture that does so for every test
    model = RNNsearch(FIRST + 4, FIRST + 4, d_embedding=12, d=24, d_score=16, d_maxout=16)
    for name, parameter in model.named_parameters():
        if parameter.ndim > 1 and "hidden" not in name:
            nn.init.xavier_uniform_(parameter)
    optimizer = torch.optim.Adam(model.parameters(), 2e-2)

    def loss(source, target):
        logits = model(source, target[:, :-1], (source != PAD).sum(1))
        return nn.functional.cross_entropy(logits.flatten(0, 1), target[:, 1:].flatten(), ignore_index=PAD)

    batches = islice(pairs(copy, n_symbols=4, shortest=2, longest=3), 90)
    losses = train(model, loss, batches, optimizer, clip=1.0)
    assert losses[-1] < losses[0] / 5
    return model.double().eval()


def test_it_learns_to_copy_and_where_to_look(trained):
    source = torch.tensor([[3, 5, 4], [6, 3, PAD], [4, 4, 5]])
    lengths = (source != PAD).sum(1)
    prompt = torch.full((3, 1), START)
    found = greedy_search(trained.steps(source, lengths), prompt, end=END, max_new=5)
    assert found[:, 1:].tolist() == [[3, 5, 4, END], [6, 3, END, END], [4, 4, 5, END]]
    beams, scores = beam_search(trained.steps(source, lengths), prompt, end=END, max_new=5, beam=3)
    assert torch.equal(beams[:, 0, : found.shape[1]], found)
    assert (scores.diff() <= 0).all()


def test_beams_have_the_scores_of_one_pass(trained):
    source = torch.tensor([[3, 5, 4], [6, 3, 3]])
    prompt = torch.full((2, 1), START)
    beams, scores = beam_search(trained.steps(source), prompt, end=END, max_new=4, beam=3, penalty=lambda n: 1.0)
    for row in range(2):
        for words, score in zip(beams[row], scores[row]):
            log_p = trained(source[row : row + 1], words[None, :-1]).log_softmax(-1)[0]
            log_p = log_p.gather(1, words[1:, None])[:, 0]
            end = (words == END).nonzero()
            n = int(end[0]) if len(end) else len(log_p)
            assert_same(score, log_p[:n].sum().to(score), 1e-5)


# --- how it begins, and how large it is -------------------------------------------------------------------------------


def test_initial_weights_of_appendix_b():
    model = RNNsearch(499, 503, d_embedding=101, d=103, d_score=107, d_maxout=53)
    for cell in (*model.encoder.cells, model.decoder.gru):
        for matrix in cell.hidden.weight.chunk(3):
            assert_same(matrix @ matrix.T, torch.eye(103), 1e-5)
    score = model.decoder.score
    expected = {score.query.weight: 0.001, score.key.weight: 0.001, score.v.weight: 0.0}
    recurrent = {cell.hidden.weight for cell in (*model.encoder.cells, model.decoder.gru)}
    for parameter in set(model.parameters()) - recurrent:
        std = expected.get(parameter, 0.01 if parameter.ndim > 1 else 0.0)
        assert parameter.std().item() == pytest.approx(std, rel=0.05)
        assert abs(parameter.mean().item()) <= std / 10
    with torch.no_grad():
        score.v.weight.fill_(1.0)
    initialise(model)
    assert not score.v.weight.any()


def test_attention_begins_as_the_average(source, target):
    model = RNNsearch(SOURCE, TARGET, d_embedding=E, d=D, d_score=A, d_maxout=L)
    _, weights = model.decode(target, model.encode(source, LENGTHS))
    expected = (torch.arange(M) < LENGTHS[:, None]) / LENGTHS[:, None]
    assert_same(weights, expected[:, None].expand(B, N, M), 1e-6)


def test_sizes_of_the_paper():
    """Matrix by matrix, from the shapes of appendix A.2 and the sizes of A.2.3, and one bias for each sum."""
    with torch.device("meta"):
        model = RNNsearch(30000, 30000)
    m, n, n_score, units, k = 620, 1000, 1000, 500, 30000
    encoder = 2 * (3 * (n * m + n * n) + 3 * n)
    decoder = 3 * (n * m + n * n + n * 2 * n) + 3 * n + (n * n + n)
    alignment = n_score * n + n_score * 2 * n + n_score + n_score
    output = 2 * units * (n + m + 2 * n) + 2 * units + k * units + k
    counted = 2 * k * m + encoder + decoder + alignment + output
    assert sum(parameter.numel() for parameter in model.parameters()) == counted
    assert isinstance(model.decoder, SearchCell)
    assert isinstance(model.output, DeepOutput)


def test_the_memory_is_selected_with_the_state(model, source):
    state = select(model.encode(source, LENGTHS), torch.tensor([1, 1]))
    assert state.memory.keep.tolist() == [[True, True, False, False, False]] * 2
    assert state.memory.projected.shape == (2, M, A)
