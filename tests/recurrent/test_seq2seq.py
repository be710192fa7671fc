"""Two deep LSTMs against torch's own, padding, reversal, searches, and the paper's counts."""

import math
import pickle

import pytest
import torch
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence

from helpers import assert_differs, assert_same, leaks, randomise
from papercode.data.sequences import END, START, pad
from papercode.decoding import beam_search, greedy_search
from papercode.recurrent.fused import fused
from papercode.recurrent.gru import GRUCell
from papercode.recurrent.seq2seq import Seq2Seq, reverse_source
from papercode.recurrent.seq2seq_decoding import unpenalised
from papercode.recurrent.unroll import unroll
from papercode.training import train

S, T, D, LAYERS = 17, 13, 7, 3
SOURCE = torch.tensor([[5, 3, 9, 4, 11], [6, 8, 0, 0, 0], [7, 7, 10, 12, 0]])
TARGET = torch.tensor([[1, 4, 6, 8, 3, 9, 2], [1, 12, 2, 0, 0, 0, 0], [1, 5, 5, 7, 2, 0, 0]])


def small(seed=0, **options):
    return randomise(Seq2Seq(S, T, D, LAYERS, **options), seed, std=1.0)


class Torch(nn.Module):
    """The same, of torch's layers; sentences are turned row by row."""

    def __init__(self, ours, bias):
        super().__init__()
        self.source, self.target, self.output = ours.source, ours.target, ours.output
        self.encoder, self.decoder = (nn.LSTM(D, D, LAYERS, batch_first=True, bias=bias).double() for _ in range(2))
        for layers, cells in ((self.encoder, ours.encoder.cells), (self.decoder, ours.decoder.cells)):
            for i, cell in enumerate(cells):
                weights = {f"weight_ih_l{i}": cell.input.weight, f"weight_hh_l{i}": cell.hidden.weight}
                if bias:  # torch has two, of which only the sum matters
                    part = torch.randn_like(cell.input.bias)
                    weights |= {f"bias_ih_l{i}": cell.input.bias - part, f"bias_hh_l{i}": part}
                for name, weight in weights.items():
                    getattr(layers, name).data.copy_(weight)

    def forward(self, source, inputs, *, reverse=True):
        lengths = (source != 0).sum(1)
        rows = [row[:n].flip(0) if reverse else row[:n] for row, n in zip(source, lengths)]
        read = self.source(nn.utils.rnn.pad_sequence(rows, batch_first=True))
        _, state = self.encoder(pack_padded_sequence(read, lengths, batch_first=True, enforce_sorted=False))
        return self.output(self.decoder(self.target(inputs), state)[0]), state


@pytest.mark.parametrize("run", [unroll, fused])
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("reverse", [True, False])
def test_equal_to_torchs_layers(parity, reverse, bias, run):
    ours = small(reverse=reverse, bias=bias, run=run)
    theirs = Torch(ours, bias)
    logits, (h, c) = theirs(SOURCE, TARGET[:, :-1], reverse=reverse)
    found = ours(SOURCE, TARGET[:, :-1])
    states = ours.encode(SOURCE)
    words = f"{LAYERS} layers, {'reversed' if reverse else 'forward'} source, {'' if bias else 'no '}biases"
    parity(
        "Seq2Seq", "torch.nn.LSTM", f"{words}, {run.__name__}, padding",
        [found, *(state.h for state in states), *(state.c for state in states)], [logits, *h, *c],
    )  # fmt: skip
    assert_differs(found, theirs(SOURCE, TARGET[:, :-1], reverse=not reverse)[0])


@pytest.mark.parametrize("reverse", [True, False])
def test_gradients_equal_to_torchs(reverse):
    ours = small(reverse=reverse)
    theirs = Torch(ours, bias=False)
    weights = torch.randn(3, 6, T, dtype=torch.float64)
    (ours(SOURCE, TARGET[:, :-1]) * weights).sum().backward()
    embedding, output = ours.source.weight.grad.clone(), ours.output.weight.grad.clone()
    ours.zero_grad()
    (theirs(SOURCE, TARGET[:, :-1], reverse=reverse)[0] * weights).sum().backward()
    assert_same(embedding, ours.source.weight.grad)
    assert_same(output, ours.output.weight.grad)
    for i, cell in enumerate(ours.encoder.cells):
        assert cell.input.weight.grad is None or not cell.input.weight.grad.any()
        assert getattr(theirs.encoder, f"weight_hh_l{i}").grad.any()


# reversal and padding


def test_reversed_by_hand():
    assert reverse_source(SOURCE).tolist() == [[11, 4, 9, 3, 5], [8, 6, 0, 0, 0], [12, 10, 7, 7, 0]]
    assert reverse_source(torch.tensor([[3, 4, 9], [5, 9, 9]]), padding=9).tolist() == [[4, 3, 9], [5, 9, 9]]
    assert torch.equal(reverse_source(reverse_source(SOURCE)), SOURCE)


def test_the_reversed_source_is_what_a_loop_from_right_to_left_reads():
    model = small()
    first = model.encoder.cells[0]
    lengths = (SOURCE != 0).sum(1)
    _, state = unroll(first, model.source(SOURCE), lengths=lengths, reverse=True)
    assert_same(model.encode(SOURCE)[0].h, state.h)
    _, forward = unroll(first, model.source(SOURCE), lengths=lengths)
    assert_differs(model.encode(SOURCE)[0].h, forward.h)


def test_reading_in_reverse_is_reading_the_reversed_source():
    backward, forward = small(reverse=True), small(reverse=False)
    assert_same(backward(SOURCE, TARGET), forward(reverse_source(SOURCE), TARGET))
    assert_differs(backward(SOURCE, TARGET), forward(SOURCE, TARGET))


@pytest.mark.parametrize("reverse", [True, False])
def test_padding_is_not_read(reverse):
    model = small(reverse=reverse)
    logits = model(SOURCE, TARGET[:, :-1])
    for i, (source, target) in enumerate(zip(SOURCE, TARGET)):
        n, m = (source != 0).sum(), (target != 0).sum() - 1
        assert_same(logits[i : i + 1, :m], model(source[None, :n], target[None, :m]))
    longer = nn.functional.pad(SOURCE, (0, 4))
    assert_same(logits, model(longer, TARGET[:, :-1]))
    assert_same(model.log_probability(SOURCE, TARGET), model.log_probability(longer, nn.functional.pad(TARGET, (0, 2))))


def test_another_token_can_be_the_padding():
    model, other = small(), small(padding=16)
    assert_same(model.encode(SOURCE)[0].h, other.encode(SOURCE.masked_fill(SOURCE == 0, 16))[0].h)
    # and 0 is then a word as any other
    assert_differs(model.encode(SOURCE)[0].h[1:], other.encode(SOURCE)[0].h[1:])


def test_an_empty_source():
    with pytest.raises(ValueError, match=r"lengths=\[1, 0\] must be 2 numbers from 1 to n=2"):
        small().encode(torch.tensor([[3, 0], [0, 0]]))


# what the decoder sees


def test_the_sentence_is_all_that_the_decoder_sees():
    model = small()
    vectors = model.sentence(SOURCE)
    assert vectors.shape == (3, 2 * LAYERS * D)
    states = model.encode(SOURCE)
    assert torch.equal(vectors[:, :D], states[0].h)
    assert torch.equal(vectors[:, D : 2 * D], states[0].c)
    assert torch.equal(vectors[:, -D:], states[-1].c)
    rebuilt = [type(states[0])(*vectors[:, 2 * D * i : 2 * D * (i + 1)].chunk(2, 1)) for i in range(LAYERS)]
    h, _ = model.decoder(model.target(TARGET), rebuilt)
    assert_same(model.output(h), model(SOURCE, TARGET), 1e-12)


def test_every_part_of_the_state_matters():
    model = small()
    states = [tensor.detach().requires_grad_() for state in model.encode(SOURCE) for tensor in state]
    pairs = [type(model.encode(SOURCE)[0])(*states[2 * i : 2 * i + 2]) for i in range(LAYERS)]
    model.decoder(model.target(TARGET[:, :1]), pairs)[0].sum().backward()
    assert all((state.grad != 0).all() for state in states)


def test_no_word_is_seen_before_it_is_due():
    model, changed = small(), TARGET.clone()
    changed[:, 4] = 11
    where = torch.zeros(3, 7, T, dtype=torch.bool)
    where[:, :4] = True
    assert not leaks(lambda inputs: model(SOURCE, inputs), TARGET, changed, where)
    assert leaks(lambda inputs: model(SOURCE, inputs), TARGET, changed, ~where)


def test_no_peepholes():
    """The gates do not see c: from a given h, what is left of c is in proportion to c."""
    cell = small(bias=True).decoder.cells[1]
    x, h, c = (torch.randn(2, D, dtype=torch.float64) for _ in range(3))
    none, once, twice = (cell(x, (h, k * c)).c for k in (0, 1, 2))
    assert_same(twice - once, once - none)
    assert_differs(once, none)


def test_the_loop_is_the_callers():
    ran = []

    def run(cell, *arguments, **options):
        ran.append(cell)
        return unroll(cell, *arguments, **options)

    model = small(run=run)
    assert_same(model(SOURCE, TARGET), small()(SOURCE, TARGET))
    assert ran == [*model.encoder.cells, *model.decoder.cells]


def test_another_cell():
    """One that shows a lone tensor, under layers and in steps."""

    def cell(i, d, *, bias):
        return GRUCell(i, d, bias=bias)

    model = small(cell=cell)
    assert model.sentence(SOURCE).shape == (3, LAYERS * D)
    assert torch.equal(model.sentence(SOURCE), torch.cat(model.encode(SOURCE), 1))
    with torch.no_grad():
        step, rows = model.steps(SOURCE), torch.arange(3)
        found = [step(TARGET[:, : i + 1], rows) for i in range(TARGET.shape[1])]
    assert_same(torch.stack(found, 1), model(SOURCE, TARGET))
    assert_differs(model(SOURCE, TARGET), small()(SOURCE, TARGET))


def test_encoder_and_decoder_share_nothing():
    model = Seq2Seq(S, S, D, 2)
    names = [name for name, _ in model.named_parameters()]
    assert len({parameter.data_ptr() for parameter in model.parameters()}) == len(names) == 2 * 2 * 2 + 3


# probabilities


def test_the_probability_of_a_translation_by_hand():
    model = small()
    logits = model(SOURCE, TARGET[:, :-1])
    expected = []
    for row, target in zip(logits, TARGET):
        words = [word for word in target.tolist()[1:] if word]
        expected.append(sum(row[i].softmax(0)[word].log() for i, word in enumerate(words)))
    assert_same(model.log_probability(SOURCE, TARGET), torch.stack(expected))


def test_probabilities_of_all_translations_add_up_to_one():
    model = randomise(Seq2Seq(S, 4, D, 2), 1, std=1.0)
    # 3 goes on, all else ends: after n words there is an end, or the n-th word is the last that fits
    targets = [[1, *body, last] for n in range(3) for body in [[3] * n] for last in (1, 2)] + [[1, 3, 3, 3]]
    # token 0 is padding and cannot be asked for: its share is what the first words leave
    source = SOURCE[:1].expand(len(targets), -1)
    total = model.log_probability(source, pad(targets)).exp().sum()
    inputs = torch.tensor([[1, 3, 3]])
    probability = model(SOURCE[:1], inputs).softmax(-1)[0]
    padding = probability[0, 0] + probability[0, 3] * (probability[1, 0] + probability[1, 3] * probability[2, 0])
    assert_same(total + padding, torch.ones((), dtype=torch.float64))


def test_a_fresh_model_knows_nothing():
    model = Seq2Seq(S, T, 50)
    assert model.log_probability(SOURCE, TARGET)[0].item() == pytest.approx(-6 * math.log(T), rel=0.01)


# searches


@pytest.mark.parametrize("bias", [False, True])
def test_stepping_is_teacher_forcing(bias):
    model = small(bias=bias)
    with torch.no_grad():
        expected = model(SOURCE, TARGET)
        step, rows = model.steps(SOURCE), torch.arange(3)
        found = [step(TARGET[:, : i + 1], rows) for i in range(TARGET.shape[1])]
        assert_same(torch.stack(found, 1), expected)
        # a prompt of several tokens is read at once
        step = model.steps(SOURCE)
        assert_same(step(TARGET[:, :4], rows), expected[:, 3])
        assert_same(step(TARGET[:, :5], rows), expected[:, 4])


def test_a_step_follows_the_hypotheses():
    model = small()
    with torch.no_grad():
        step, prompt = model.steps(SOURCE), torch.tensor([[START]] * 3)
        step(prompt, torch.arange(3))
        parents = torch.tensor([2, 0, 0, 1])
        tokens = torch.tensor([[START, 4], [START, 5], [START, 6], [START, 7]])
        found = step(tokens, parents)
        assert_same(found, model(SOURCE[parents], tokens)[:, -1])
        assert_differs(found, model(SOURCE[[0, 0, 1, 2]], tokens)[:, -1])


def textbook_greedy(model, source, max_new):
    """One sentence at a time, everything read anew for each word."""
    tokens = [START]
    while len(tokens) <= max_new and tokens[-1] != END:
        tokens.append(model(source[None], torch.tensor([tokens]))[0, -1].argmax().item())
    return tokens + [END] * (max_new + 1 - len(tokens))


@pytest.mark.parametrize("seed", range(3))
def test_greedy_search_translates_each_sentence_as_alone(seed):
    model, prompt = randomise(Seq2Seq(S, T, D, 2), seed, std=1.0), torch.tensor([[START]] * 3)
    found = greedy_search(model.steps(SOURCE), prompt, end=END, max_new=9)
    found = nn.functional.pad(found, (0, 10 - found.shape[1]), value=END)
    with torch.no_grad():
        assert found.tolist() == [textbook_greedy(model, source[source != 0], 9) for source in SOURCE]
    beam, _ = beam_search(model.steps(SOURCE), prompt, end=END, max_new=9, beam=1)
    assert nn.functional.pad(beam[:, 0], (0, 10 - beam.shape[2]), value=END).tolist() == found.tolist()


@pytest.mark.parametrize("seed", range(3))
def test_the_scores_of_a_beam_are_those_of_the_model(seed):
    model, beam = randomise(Seq2Seq(S, T, D, 2), seed, std=1.0), 4
    found, scores = beam_search(
        model.steps(SOURCE), torch.tensor([[START]] * 3), end=END, max_new=6, beam=beam, penalty=unpenalised
    )
    with torch.no_grad():
        for i in range(3):
            for tokens, score in zip(found[i], scores[i]):
                words = tokens[1:].tolist()
                cut = words.index(END) + 1 if END in words else len(words)
                log_p = model(SOURCE[i : i + 1], tokens[None, :-1]).log_softmax(-1)[0]
                assert_same(log_p[range(cut), words[:cut]].sum(), score)


def test_a_wider_beam_finds_what_greedy_search_misses():
    better = 0
    for seed in range(5):
        model, prompt = randomise(Seq2Seq(S, T, D, 2), seed, std=1.0), torch.tensor([[START]] * 3)
        _, narrow = beam_search(model.steps(SOURCE), prompt, end=END, max_new=6, beam=1, penalty=unpenalised)
        _, wide = beam_search(model.steps(SOURCE), prompt, end=END, max_new=6, beam=T**2, penalty=unpenalised)
        better += (wide[:, 0] > narrow[:, 0] + 1e-9).sum()
    assert better >= 3


# learning, sizes, start


def test_one_batch_can_be_learned_and_said_again():
    model = Seq2Seq(S, T, 32, 2, spread=0.2, run=fused)
    adam = torch.optim.Adam(model.parameters(), 0.01)
    losses = train(model, lambda s, t: -model.log_probability(s, t).mean(), [(SOURCE, TARGET)] * 80, adam, clip=5.0)
    assert losses[-1] < 0.2 < 5 < losses[0]
    found = greedy_search(model.steps(SOURCE), TARGET[:, :1], end=END, max_new=6)
    assert found.tolist() == TARGET.where(TARGET != 0, END).tolist()


def test_the_papers_size():
    with torch.device("meta"):
        model = Seq2Seq(160_000, 80_000)
    assert sum(p.numel() for p in model.parameters()) == 384_000_000
    encoder, decoder = (sum(p.numel() for p in part.parameters()) for part in (model.encoder, model.decoder))
    assert encoder == decoder == 32_000_000
    assert sum(2 * cell.width for cell in model.encoder.cells) == 8000  # as `sentence` has it
    with torch.device("meta"):
        assert sum(p.numel() for p in Seq2Seq(160_000, 80_000, bias=True).parameters()) == 384_112_000


def test_all_parameters_start_within_the_spread():
    model = Seq2Seq(S, T, 50, 2, bias=True)
    for parameter in model.parameters():
        assert parameter.abs().max() <= 0.08
        assert parameter.std().item() == pytest.approx(0.08 / math.sqrt(3), rel=0.25)
    assert max(p.abs().max() for p in Seq2Seq(S, T, 50, 2, spread=0.3).parameters()) > 0.2


def test_wrong_sizes():
    with pytest.raises(ValueError, match="n_layers=0 must be at least 1"):
        Seq2Seq(S, T, D, 0)


def test_it_can_be_pickled():
    model = small()
    copied = pickle.loads(pickle.dumps(model))
    assert_same(copied(SOURCE, TARGET), model(SOURCE, TARGET))
