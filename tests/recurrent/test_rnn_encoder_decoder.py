"""The RNN encoder-decoder: the whole of it with loops, what must not change, its size, its start, a search."""

import math
from itertools import product

import pytest
import torch
from torch import nn

from helpers import assert_differs, assert_same, leaks, randomise
from papercode.data.sequences import END, PAD, START, pairs, reverse
from papercode.decoding import beam_search, greedy_search
from papercode.recurrent.decoder_cell import DecoderCell, ResetAfterDecoderCell
from papercode.recurrent.gated_recursive import GatedRecursiveConv
from papercode.recurrent.gru import GRUCell, ResetAfterGRUCell
from papercode.recurrent.maxout import maxout
from papercode.recurrent.phrase_scores import log_probability
from papercode.recurrent.rnn_encoder_decoder import DeepOutput, LastState, RNNEncoderDecoder, initialise
from papercode.recurrent.unroll import unroll
from papercode.training import train

B, S, T, VS, VT, E, D, K = 3, 5, 7, 17, 19, 4, 11, 6
F64 = torch.float64


def model(**given):
    made = randomise(RNNEncoderDecoder(VS, VT, e=E, d=D, k=K, start=START, **given))
    made.target.weight.data[START] = 0
    return made


def data():
    source, target = torch.randint(3, VS, (B, S)), torch.randint(3, VT, (B, T))
    target[:, 0] = START
    return source, target, torch.tensor([4, 5, 1])


def looped(model, source, target, lengths):
    """Section 2.3 and appendix A.1, one phrase and one word after the other."""
    enc, dec, out = model.encoder, model.decoder, model.output
    (W_r, W_z, W), (U_r, U_z, U) = enc.cell.input.weight.chunk(3), enc.cell.hidden.weight.chunk(3)
    b_r, b_z, b = enc.cell.input.bias.chunk(3)
    (X_r, X_z, X), (Y_r, Y_z, Y) = dec.input.weight.chunk(3), dec.hidden.weight.chunk(3)
    (C_r, C_z, C), (a_r, a_z, a) = dec.context.weight.chunk(3), dec.input.bias.chunk(3)
    logits = torch.empty(*target.shape, VT, dtype=F64)
    for row in range(len(source)):
        h = torch.zeros(D, dtype=F64)
        for word in source[row, : lengths[row]]:
            x = model.source.weight[word]
            r, z = torch.sigmoid(W_r @ x + U_r @ h + b_r), torch.sigmoid(W_z @ x + U_z @ h + b_z)
            h = z * h + (1 - z) * torch.tanh(W @ x + U @ (r * h) + b)
        c = torch.tanh(enc.summary.weight @ h + enc.summary.bias)
        h = torch.tanh(dec.first.weight @ c + dec.first.bias)
        for t, word in enumerate(target[row]):
            y = torch.zeros(E, dtype=F64) if t == 0 else model.target.weight[word]
            r, z = torch.sigmoid(X_r @ y + Y_r @ h + C_r @ c + a_r), torch.sigmoid(X_z @ y + Y_z @ h + C_z @ c + a_z)
            h = z * h + (1 - z) * torch.tanh(X @ y + a + r * (Y @ h + C @ c + dec.reset_bias))
            s = out.h.weight @ h + out.h.bias + out.y.weight @ y + out.c.weight @ c
            s = torch.stack([torch.maximum(s[2 * i], s[2 * i + 1]) for i in range(K)])
            logits[row, t] = out.left.weight @ (out.right.weight @ s) + out.left.bias
    return logits


def test_equals_the_equations(parity):
    ours, given = model(), data()
    expected = looped(ours, *given)
    what = "RNN encoder-decoder", "the equations, with loops", "padded sources, appendix's decoder, maxout"
    parity(*what, ours(given[0], given[1], given[2]), expected)
    assert_differs(ours(given[0], given[1]), expected)  # padding read as words
    with torch.no_grad():
        ours.output.c.weight.zero_()
    assert_differs(ours(*given), expected)


def test_the_papers_defaults():
    ours = RNNEncoderDecoder(VS, VT, e=E, d=D, k=K, start=START)
    assert type(ours.encoder.cell) is GRUCell
    assert type(ours.decoder) is ResetAfterDecoderCell
    with torch.device("meta"):
        full = RNNEncoderDecoder(15_000, 15_000, start=START)
    sizes = [module.weight.shape for module in (full.source, full.encoder.cell.hidden, full.decoder.hidden)]
    assert sizes == [(15_000, 100), (3000, 1000), (3000, 1000)]
    assert full.output.h.weight.shape == (2 * 500, 1000)
    assert full.output.right.weight.shape == (100, 500)
    assert full.output.left.weight.shape == (15_000, 100)
    assert sum(parameter.numel() for parameter in full.parameters()) == 18_275_000


def test_other_parts_fit():
    conv, plain = GatedRecursiveConv(E, 13), DecoderCell(E, D, 13)
    ours, given = model(encoder=conv, decoder=plain), data()
    assert ours(*given).shape == (B, T, VT)
    assert_same(ours.encode(given[0], given[2]), conv(ours.source(given[0]), given[2]))
    encoder = LastState(ResetAfterGRUCell(E, D).double()).double()
    ours = model(encoder=encoder)
    gru = encoder.cell(ours.source(given[0])[:, 0])
    assert_same(ours.encode(given[0][:, :1]), encoder.summary(gru).tanh())


def test_the_decoder_looks_back_alone():
    ours, (source, target, _) = model(), data()
    changed = target.clone()
    changed[:, 4] = (changed[:, 4] - 2) % (VT - 3) + 3
    where = torch.arange(T).expand(B, T) < 4
    assert not leaks(lambda y: ours(source, y), target, changed, where)
    assert leaks(lambda y: ours(source, y), target, changed, ~where)


def test_padding_of_a_source_does_not_leak():
    ours, (source, target, lengths) = model(), data()
    other = source.clone()
    other[0, 4], other[2, 1:] = 3, 5
    assert_same(ours(other, target, lengths), ours(source, target, lengths))
    assert_differs(ours(other, target), ours(source, target))


def test_the_vector_of_the_start_stays_zero():
    ours, (source, target, lengths) = RNNEncoderDecoder(VS, VT, e=E, d=D, k=K, start=START), data()
    assert (ours.target.weight[START] == 0).all()
    ours(source, target, lengths).square().sum().backward()
    assert (ours.target.weight.grad[START] == 0).all()
    assert (ours.target.weight.grad[target[0, 1]] != 0).any()


def test_steps_equal_teacher_forcing():
    ours, (source, target, lengths) = model(), data()
    c = ours.encode(source, lengths)
    step, logits = ours.steps(c), ours.decode(c, target)
    for t in range(T):
        assert_same(step(target[:, : t + 1], torch.arange(B)), logits[:, t])
    assert_same(ours.steps(c)(target[:, :3], torch.arange(B)), logits[:, 2])  # a prompt is read at once
    rows = torch.tensor([2, 0, 0])  # parents of a beam
    step = ours.steps(c)
    step(target[:, :1], torch.arange(B))
    again = torch.cat([target[rows, :1], target[:, 1:2]], 1)
    assert_same(step(again, rows), ours.decode(c[rows], again)[:, 1])
    step = ours.steps(c)
    step(target[:, :1], torch.arange(B))
    assert_differs(step(again, torch.arange(B)), ours.decode(c[rows], again)[:, 1])  # the parents count


@torch.no_grad()
def test_a_wide_beam_finds_the_best_of_all():
    ours = randomise(RNNEncoderDecoder(VS, 4, e=E, d=D, k=K, start=START))
    ours.target.weight[START] = 0
    c = ours.encode(data()[0][:2])
    every = [(*words, END) for n in range(3) for words in product((0, 1, 3), repeat=n)]
    every += product((0, 1, 3), repeat=3)
    prompt = torch.full((2, 1), START)
    found, found_scores = beam_search(ours.steps(c), prompt, end=END, max_new=3, beam=64, penalty=lambda length: 1.0)
    for row in range(2):
        scored = {y: log_probability(ours, c[row : row + 1], torch.tensor([[START, *y]])).item() for y in every}
        order = sorted(scored, key=lambda y: -scored[y])
        for place, y in enumerate(order[:20]):
            assert found_scores[row, place].item() == pytest.approx(scored[y], abs=1e-5)
            assert found[row, place, 1 : 1 + len(y)].tolist() == list(y)


def test_output_by_hand():
    """s' = (1 + 2 + 3, 0, 0, -1): maxout (6, 0), one inner number 6 + 0, words 6 and -6."""
    output = DeepOutput(1, 1, 1, k=2, rank=1, v=2)
    for parameter in output.parameters():
        nn.init.zeros_(parameter)
    for layer, value in ((output.h, 1.0), (output.y, 2.0), (output.c, 3.0)):
        layer.weight.data[0] = value
    output.h.weight.data[3] = -1
    output.right.weight.data.fill_(1)
    output.left.weight.data = torch.tensor([[1.0], [-1.0]])
    one = torch.ones(1, 1)
    assert output(one, one, one).tolist() == [[6.0, -6.0]]
    assert output(one[None], one[None], one).tolist() == [[[6.0, -6.0]]]


def test_the_output_layer_at_all_steps_is_that_at_each():
    output, h, y, c = (
        randomise(DeepOutput(E, D, 5, K, 3, VT)),
        *(torch.randn(B, *s, dtype=F64) for s in [(T, D), (T, E), (5,)]),
    )
    together = output(h, y, c)
    assert_same(together, torch.stack([output(h[:, t], y[:, t], c) for t in range(T)], 1))
    s = maxout(output.h(h) + output.y(y) + output.c(c)[:, None])
    assert_same(together, output.left(output.right(s)))


def test_the_papers_start():
    ours = initialise(RNNEncoderDecoder(200, 300, e=20, d=101, k=50, start=START))
    for cell in (ours.encoder.cell, ours.decoder):
        for matrix in cell.hidden.weight.split(101):
            torch.testing.assert_close(matrix @ matrix.T, torch.eye(101), rtol=0, atol=1e-5)
    recurrent = {"encoder.cell.hidden.weight", "decoder.hidden.weight"}
    for name, parameter in ours.named_parameters():
        if "bias" in name:
            assert (parameter == 0).all()
        elif name not in recurrent:
            assert parameter.std().item() == pytest.approx(0.01, rel=0.1), name
            assert abs(parameter.mean().item()) < 1e-3
    assert (ours.target.weight[START] == 0).all()


def test_it_learns_to_reverse_a_few_phrases():
    ours = RNNEncoderDecoder(8, 8, e=16, d=48, k=16, start=START)
    source, target = next(pairs(reverse, n_symbols=5, shortest=1, longest=5, batch=12, seed=1))
    lengths = (source != PAD).sum(1)

    def loss():
        logits = ours(source, target[:, :-1], lengths)
        return nn.functional.cross_entropy(logits.transpose(1, 2), target[:, 1:], ignore_index=PAD)

    losses = train(ours, loss, [()] * 150, torch.optim.Adam(ours.parameters(), 1e-2), clip=1.0)
    assert losses[0] == pytest.approx(math.log(8), abs=0.3)
    assert losses[-1] < 0.05
    with torch.no_grad():
        c = ours.encode(source, lengths)
        found = greedy_search(ours.steps(c), torch.full((12, 1), START), end=END, max_new=target.shape[1] - 1)
    assert torch.equal(found.masked_fill(target == PAD, PAD), target)


def test_the_decoder_is_run_by_unroll():
    ours, (source, target, _) = model(), data()
    c = ours.encode(source)
    h, last = unroll(ours.decoder, ours.target(target), ours.decoder.begin(c))
    assert_same(ours.output(h, ours.target(target), c), ours.decode(c, target))
    assert_same(last.h, h[:, -1])
