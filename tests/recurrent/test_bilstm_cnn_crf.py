"""BiLSTM-CNN-CRF: torch's own LSTM, convolution and pytorch-crf put together, places of dropout, start, training."""

import math

import pytest
import torch
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from helpers import assert_differs, assert_same, leaks, randomise
from papercode.data.tagging import Vocabulary, sentences
from papercode.evaluation.spans import span_scores
from papercode.recurrent.bilstm_cnn_crf import BiLSTMCNNCRF, decayed
from papercode.recurrent.crf import LinearChainCRF, PairCRF
from papercode.recurrent.fused import fused
from papercode.recurrent.tag_constraints import bio, violations
from papercode.recurrent.unroll import unroll
from papercode.training import train

torchcrf = pytest.importorskip("torchcrf")

WORDS, CHARS, K, B, N, C = 13, 11, 5, 3, 7, 6
SIZES = {"d_word": 5, "d_char": 3, "n_filters": 4, "d": 6}
LENGTHS = torch.tensor([4, 7, 1])


def model(crf=None, **options):
    return randomise(BiLSTMCNNCRF(WORDS, CHARS, crf or LinearChainCRF(K), **SIZES | options)).eval()


def batch():
    words, tags = torch.randint(1, WORDS, (B, N)), torch.randint(K, (B, N))
    chars = torch.randint(1, CHARS, (B, N, C)) * (torch.arange(C) < torch.randint(1, C + 1, (B, N, 1)))
    gone = torch.arange(N) >= LENGTHS[:, None]
    return words.masked_fill(gone, 0), chars.masked_fill(gone[..., None], 0), tags.masked_fill(gone, 0)


class Reference:
    """The same from torch's own parts, with the same weights."""

    def __init__(self, ours):
        self.ours = ours
        self.lstm = nn.LSTM(9, 6, bidirectional=True, batch_first=True).double()
        for suffix, cell in zip(("", "_reverse"), ours.lstm.cells):
            for name, value in (
                ("weight_ih", cell.input.weight), ("weight_hh", cell.hidden.weight),
                ("bias_ih", cell.input.bias), ("bias_hh", torch.zeros(24)),
            ):  # fmt: skip
                getattr(self.lstm, f"{name}_l0{suffix}").data.copy_(value)
        self.crf = torchcrf.CRF(K, batch_first=True).double()
        self.crf.transitions.data.copy_(ours.crf.transitions)
        self.crf.start_transitions.data.copy_(ours.crf.start)
        self.crf.end_transitions.data.copy_(ours.crf.end)

    def emissions(self, words, chars, lengths):
        of_words = torch.zeros(B, N, 4, dtype=torch.float64)
        convolution, table = self.ours.chars.convolution, self.ours.chars.embed.weight
        for i in range(B):
            for t in range(N):
                if spelled := [c for c in chars[i, t].tolist() if c]:
                    answers = nn.functional.conv1d(
                        table[spelled].T[None], convolution.weight, convolution.bias, padding=1
                    )
                    of_words[i, t] = nn.functional.adaptive_max_pool1d(answers, 1)[0, :, 0].tanh()
        x = torch.cat([nn.functional.embedding(words, self.ours.words.weight), of_words], -1)
        packed = pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=False)
        z = pad_packed_sequence(self.lstm(packed)[0], batch_first=True, total_length=N)[0]
        return nn.functional.linear(z, self.ours.output.weight, self.ours.output.bias)


@pytest.mark.parametrize("run", [unroll, fused])
def test_equals_the_parts_of_others(run, parity):
    ours = model(run=run)
    assert ours.lstm.run is run
    words, chars, tags = batch()
    reference = Reference(ours)
    emissions = reference.emissions(words, chars, LENGTHS)
    mask = torch.arange(N) < LENGTHS[:, None]
    loss = -reference.crf(emissions, tags, mask, reduction="none")
    found = ours(words, chars, tags, LENGTHS), ours.scores(words, chars, LENGTHS)[mask]
    parity("BiLSTMCNNCRF", "torch.nn.LSTM, Conv1d, torchcrf.CRF", run.__name__, found, (loss, emissions[mask]))
    paths = ours.decode(words, chars, LENGTHS)
    assert [path[:n].tolist() for path, n in zip(paths, LENGTHS)] == reference.crf.decode(emissions, mask)
    assert_differs(ours(words.roll(1, 1), chars, tags, LENGTHS), found[0])
    assert_differs(ours(words, chars.roll(1, 1), tags, LENGTHS), found[0])


@pytest.mark.parametrize("crf", [LinearChainCRF, PairCRF])
def test_padding_has_no_influence(crf):
    ours = model(crf(K))
    words, chars, tags = batch()
    gone = torch.arange(N) >= LENGTHS[:, None]
    expected = ours(words, chars, tags, LENGTHS)
    more = words.masked_fill(gone, 7), chars.masked_fill(gone[..., None], 2), tags.masked_fill(gone, 3)
    assert_same(ours(*more, LENGTHS), expected)
    assert torch.equal(ours.decode(*more[:2], LENGTHS), ours.decode(words, chars, LENGTHS))
    for i, n in enumerate(LENGTHS.tolist()):
        assert_same(ours(words[i : i + 1, :n], chars[i : i + 1, :n], tags[i : i + 1, :n]), expected[i : i + 1])
    assert_differs(ours(*more), expected)


def test_every_word_sees_both_sides():
    ours = model()
    words, chars, _ = batch()
    changed = words.clone()
    changed[1, 3] = words[1, 3] % (WORDS - 1) + 1
    for t in range(N):
        where = torch.zeros(B, N, K, dtype=torch.bool)
        where[1, t] = True
        assert leaks(lambda x: ours.scores(x, chars, LENGTHS), words, changed, where)
    where = torch.ones(B, N, K, dtype=torch.bool)
    where[1] = False
    assert not leaks(lambda x: ours.scores(x, chars, LENGTHS), words, changed, where)


def test_dropout_is_where_the_paper_has_it():
    """On the characters' vectors, and on what goes into the BiLSTM and what comes out of it; nowhere else."""
    ours = BiLSTMCNNCRF(WORDS, CHARS, LinearChainCRF(K), **SIZES)
    assert {name: module.p for name, module in ours.named_modules() if isinstance(module, nn.Dropout) and module.p} == {
        "chars.dropout": 0.5,
        "dropout": 0.5,
    }
    words, chars, _ = batch()
    seen = {}
    for name, module in (("convolution", ours.chars.convolution), ("lstm", ours.lstm), ("output", ours.output)):
        module.register_forward_pre_hook(lambda _, inputs, name=name: seen.setdefault(name, []).append(inputs[0]))
    real = torch.arange(N) < LENGTHS[:, None]
    for _ in range(2):
        ours.scores(words, chars, LENGTHS)
    ours.eval().scores(words, chars, LENGTHS)
    for name, (one, two, plain) in seen.items():
        if name != "convolution":
            one, two, plain = one[real], two[real], plain[real]
        nonzero = plain != 0
        assert 0.3 < (one == 0)[nonzero].double().mean() < 0.7, name
        assert not torch.equal(one == 0, two == 0)
    kept = (seen["lstm"][0] != 0) & real[..., None]
    words_only = kept[..., : SIZES["d_word"]]
    assert_same(seen["lstm"][0][..., :5][words_only], 2 * seen["lstm"][2][..., :5][words_only])


def test_start():
    ours = BiLSTMCNNCRF(31, CHARS, LinearChainCRF(K))
    assert 0.95 * math.sqrt(3 / 100) < ours.words.weight.abs().max() <= math.sqrt(3 / 100)
    for cell in ours.lstm.cells:
        for weight, columns in ((cell.input.weight, 130), (cell.hidden.weight, 200)):
            assert weight.shape == (800, columns)
            bound = math.sqrt(6 / (200 + columns))
            for gate in weight.chunk(4):
                assert 0.95 * bound < gate.abs().max() <= bound
        assert (cell.input.bias.view(4, 200)[1] == 1).all()
        assert (cell.input.bias.view(4, 200)[[0, 2, 3]] == 0).all()
    bound = math.sqrt(6 / (400 + K))
    assert 0.95 * bound < ours.output.weight.abs().max() <= bound
    assert (ours.output.bias == 0).all()


def test_sizes_of_the_paper():
    """IOBES for four types: 17 tags. 30 filters of width 3, 200 cells in each direction."""

    def count(crf):
        with torch.device("meta"):
            model = BiLSTMCNNCRF(1, 1, crf(17))
        return sum(p.numel() for p in model.parameters()) - 100 - 30  # one word, one character

    cells = 2 * 4 * 200 * (130 + 200 + 1)
    assert count(LinearChainCRF) == (30 * 3 * 30 + 30) + cells + 401 * 17 + 17 * 17 + 2 * 17
    assert count(PairCRF) == (30 * 3 * 30 + 30) + cells + 401 * 18 * 17


def test_decayed():
    rate = decayed(0.015, epoch=10)
    assert [rate(step) for step in (1, 10)] == [0.015] * 2
    assert rate(11) == 0.015 / 1.05
    assert rate(21) == 0.015 / 1.1
    assert decayed(0.01, decay=0.5)(3) == 0.005


@pytest.mark.parametrize("crf", [LinearChainCRF, PairCRF])
def test_it_learns_names_it_has_never_seen(crf):
    corpus, others = sentences(100, seed=1), sentences(50, seed=2)
    vocabulary = Vocabulary.of(corpus)
    words, chars, tags, lengths = vocabulary.tensors(corpus)
    allowed = bio(vocabulary.tags)
    tagger = BiLSTMCNNCRF(
        *vocabulary.sizes[:2], crf(vocabulary.sizes[2], allowed=allowed), **SIZES | {"d": 16}, dropout=0.1, run=fused
    )
    new_words, new_chars, _, new_lengths = vocabulary.tensors(others)

    def f1():
        paths = tagger.eval().decode(new_words, new_chars, new_lengths)
        assert violations(paths, allowed, new_lengths) == 0
        return span_scores([tags for _, tags in others], vocabulary.names(paths, new_lengths)).f1

    before = f1()
    picks = [(torch.randint(100, (10,)),) for _ in range(100)]
    sgd = torch.optim.SGD(tagger.parameters(), momentum=0.9)

    def loss(i):
        return tagger(words[i], chars[i], tags[i], lengths[i]).mean()

    losses = train(tagger, loss, picks, sgd, rate=decayed(0.03, epoch=10), clip=5.0)
    assert sum(losses[-10:]) < 0.2 * sum(losses[:10])
    assert before < 0.3
    assert f1() > 0.7
