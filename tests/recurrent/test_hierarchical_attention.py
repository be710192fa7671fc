"""HAN: its equations document by document, torch's GRU below them, and padding that changes nothing."""

import math

import pytest
import torch
from torch import nn

from helpers import assert_differs, assert_same, randomise
from papercode.data.sentiment import Sentiment
from papercode.recurrent.bahdanau import AdditiveScore
from papercode.recurrent.fused import fused
from papercode.recurrent.hierarchical_attention import HAN, AttentionPool, pad_documents, word_importance

V, K, D, A, C = 13, 3, 5, 7, 2
DOCUMENTS = [[[1, 2, 3], [4], [5, 6, 7, 8, 9]], [[10, 11]], [[12, 1, 4, 4], [9, 3]]]


def network(**settings):
    model = randomise(HAN(nn.Embedding(V, K), C, d=D, a=A, **settings), std=0.6)
    for recurrent in (model.words, model.sentences):
        for cell in recurrent.cells:
            cell.reset_bias.data += 1
    return model


def twin(recurrent):
    """torch's bidirectional GRU with the same weights."""
    width = recurrent.cells[0].input.in_features
    gru = nn.GRU(width, D, bidirectional=True, batch_first=True).double()
    for cell, suffix in zip(recurrent.cells, ("", "_reverse")):
        weights = cell.input.weight, cell.hidden.weight, cell.input.bias, cell.hidden_bias()
        for name, weight in zip(("weight_ih", "weight_hh", "bias_ih", "bias_hh"), weights):
            getattr(gru, f"{name}_l0{suffix}").data.copy_(weight)
    return gru


def pooled(attention, h):
    """Eq. 5 to 7 on a list of vectors, with loops."""
    scores = []
    for vector in h:
        u = [math.tanh(sum(w * x for w, x in zip(row, vector.tolist())) + b)
             for row, b in zip(attention.hidden.weight.tolist(), attention.hidden.bias.tolist())]  # fmt: skip
        scores.append(sum(x * y for x, y in zip(u, attention.context.tolist())))
    total = sum(math.exp(score) for score in scores)
    weights = [math.exp(score) / total for score in scores]
    return sum(weight * vector for weight, vector in zip(weights, h)), torch.tensor(weights, dtype=torch.float64)


def one_by_one(model, document):
    words_gru, sentences_gru = twin(model.words), twin(model.sentences)
    vectors, words = [], []
    for sentence in document:
        h = words_gru(model.embedding(torch.tensor([sentence])))[0][0]
        vector, weights = pooled(model.word_attention, h)
        vectors.append(vector)
        words.append(weights)
    h = sentences_gru(torch.stack(vectors)[None])[0][0]
    vector, sentences = pooled(model.sentence_attention, h)
    return model.output(vector), sentences, words


def test_equals_the_equations_document_by_document(parity):
    model = network()
    reading = model.read(pad_documents(DOCUMENTS))
    logits = []
    for row, document in enumerate(DOCUMENTS):
        theirs, sentences, words = one_by_one(model, document)
        logits.append(theirs)
        assert_same(reading.sentences[row, : len(document)], sentences)
        for column, weights in enumerate(words):
            assert_same(reading.words[row, column, : len(weights)], weights)
    reference = "torch.nn.GRU, and the attentions with loops"
    parity("HAN", reference, "three documents of 3, 1, 2 sentences", reading.logits, torch.stack(logits))
    assert_differs(model(pad_documents([DOCUMENTS[0][::-1], *DOCUMENTS[1:]]))[:1], logits[0][None])


def test_by_hand():
    """u = tanh(h) against the context (ln 3 / tanh 1): scores 0, ln 3, so that the second weighs three quarters."""
    pool = AttentionPool(1, 1)
    pool.hidden.weight.data.fill_(1)
    pool.hidden.bias.data.zero_()
    pool.context.data.fill_(math.log(3) / math.tanh(1))
    vector, weights = pool(torch.tensor([[[0.0], [1.0]]]))
    assert_same(weights, torch.tensor([[0.25, 0.75]]), 1e-6)
    assert_same(vector, torch.tensor([[0.75]]), 1e-6)


def test_the_context_vector_starts_at_random():
    """At zero all words would weigh the same, and the hidden layer would get no gradient."""
    context = AttentionPool(3, 400).context
    assert 0.049 < context.max() <= 0.05
    assert -0.05 <= context.min() < -0.049


def test_it_is_additive_attention_without_a_query():
    pool, score = randomise(AttentionPool(D, A)), randomise(AdditiveScore(1, D, A))
    score.key.load_state_dict(pool.hidden.state_dict())
    score.v.weight.data = pool.context.detach()[None]
    h, nothing = torch.randn(2, 4, D, dtype=torch.float64), torch.zeros(2, 1, dtype=torch.float64)
    assert_same(pool(h)[1], score(nothing, h).softmax(-1))
    assert_differs(pool(h)[1], score(nothing + 1, h).softmax(-1))


def test_weights_add_up_to_one_where_there_is_something():
    tokens = pad_documents(DOCUMENTS)
    reading = network().read(tokens)
    real = tokens != 0
    assert_same(reading.sentences.sum(1), torch.ones(3, dtype=torch.float64))
    assert_same(reading.words.sum(2), real.any(2).double())
    assert (reading.words[~real] == 0).all()
    assert (reading.sentences[~real.any(2)] == 0).all()
    assert (reading.words[real] > 0).all()


def test_padding_and_neighbours_change_nothing():
    model = network()
    together = model(pad_documents(DOCUMENTS))
    for row, document in enumerate(DOCUMENTS):
        tokens = pad_documents([document])
        assert_same(model(tokens), together[row : row + 1])
        assert_same(model(nn.functional.pad(tokens, (0, 4, 0, 2))), together[row : row + 1])
    model.embedding.weight.data[0] += 5  # what stands for the padding is never read
    assert_same(model(pad_documents(DOCUMENTS)), together)
    model.embedding.weight.data[1] += 5
    assert_differs(model(pad_documents(DOCUMENTS)), together)


def test_fused_is_the_same():
    plain, quick = network(), network(run=fused)
    assert quick.words.run is quick.sentences.run is fused
    quick.load_state_dict(plain.state_dict())
    tokens = pad_documents(DOCUMENTS)
    for ours, theirs in zip(quick.read(tokens), plain.read(tokens), strict=True):
        assert_same(ours, theirs)


def test_word_importance():
    reading = network().read(pad_documents(DOCUMENTS))
    assert_same(word_importance(reading)[1, 0], reading.words[1, 0])  # its only sentence weighs 1
    expected = reading.sentences[0, 2].sqrt() * reading.words[0, 2]
    assert_same(word_importance(reading)[0, 2], expected)


def test_gradients_reach_everything():
    model = network()
    model(pad_documents(DOCUMENTS)).square().sum().backward()
    assert all((p.grad != 0).any() for p in model.parameters())


def test_full_size():
    """50 units a direction, so annotations and context vectors of 100 (section 3.3 of the paper's experiments)."""
    with torch.device("meta"):
        model = HAN(nn.Embedding(10_000, 200), 5)
    assert (model.words.width, model.sentences.width) == (100, 100)
    assert tuple(model.word_attention.context.shape) == tuple(model.sentence_attention.context.shape) == (100,)
    assert tuple(model.output.weight.shape) == (5, 100)


def test_one_batch_can_be_overfitted():
    torch.manual_seed(0)
    documents, labels, _ = Sentiment(n_polar=2, n_neutral=9).documents(16)
    model = HAN(nn.Embedding(20, 8), 2, d=6, a=6)
    optimizer = torch.optim.Adam(model.parameters(), 0.02)
    for _ in range(30):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(pad_documents(documents)), labels).backward()
        optimizer.step()
    assert (model(pad_documents(documents)).argmax(1) == labels).all()


def test_padding_of_documents():
    assert pad_documents([[[1, 2], [3]], [[4]]]).tolist() == [[[1, 2], [3, 0]], [[4, 0], [0, 0]]]


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (lambda: pad_documents([]), "documents must be one or more"),
        (lambda: pad_documents([[]]), "each with a sentence"),
        (lambda: pad_documents([[[]]]), "each sentence needs a word"),
        (lambda: pad_documents([[[1, 0]]]), "0 is the padding"),
        (lambda: network()(torch.zeros(1, 2, 3, dtype=torch.long)), "a word in each document"),
        (lambda: network()(torch.tensor([[[1, 0, 2]]])), "behind all words"),
        (lambda: network()(torch.tensor([[[0, 0], [1, 2]]])), "behind all words"),
    ],
)
def test_errors(wrong, message):
    with pytest.raises(ValueError, match=message):
        wrong()
