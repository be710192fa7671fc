"""The heads of tasks by hand; best spans against a search over all; features of all layers."""

import pytest
import torch
from transformers import BertModel

from helpers import assert_differs, assert_same, randomise
from papercode.encoders.bert import BERT
from papercode.encoders.bert_tasks import (
    BERTForMultipleChoice,
    BERTForSentences,
    BERTForSpans,
    BERTForTokens,
    all_states,
    best_span,
    features,
)

V, D, HEADS, D_FF, LAYERS, B, N, C = 23, 14, 7, 19, 3, 3, 11, 5
SIZES = {"n_positions": 13, "d_model": D, "n_heads": HEADS, "d_ff": D_FF, "n_layers": LAYERS}


def made(cls, *args, **changes):
    return randomise(cls(BERT(V, **SIZES | changes), *args)).eval()


def batch(b=B):
    x, segments = torch.randint(V, (b, N)), torch.randint(2, (b, N))
    return x, segments, torch.arange(N) < torch.randint(2, N + 1, (b, 1))


def test_a_text_is_classified_by_its_pooled_first_state():
    model, given = made(BERTForSentences, C), batch()
    states = model.encoder(*given)
    pooled = torch.tanh(states[:, 0] @ model.encoder.pooler.weight.T + model.encoder.pooler.bias)
    assert_same(model(*given), pooled @ model.classifier.weight.T + model.classifier.bias)
    assert_differs(model(*given), states[:, 0] @ model.classifier.weight.T + model.classifier.bias)
    assert_differs(model(given[0]), model(*given))


def test_every_token_is_classified_by_the_same_layer():
    model, given = made(BERTForTokens, C), batch()
    states = model.encoder(*given)
    assert model.classifier.weight.shape == (C, D)
    for i in range(N):
        assert_same(model(*given)[:, i], states[:, i] @ model.classifier.weight.T + model.classifier.bias)


def test_choices_are_read_one_by_one():
    model, given = made(BERTForMultipleChoice), [t.unflatten(0, (B, 2)) for t in batch(2 * B)]
    found = model(*given)
    assert found.shape == (B, 2)
    for i in range(B):
        for j in range(2):
            alone = [t[i : i + 1, j : j + 1] for t in given]
            assert_same(found[i, j], model(*alone)[0, 0])
    assert_same(model(given[0].flip(1)), model(given[0]).flip(1))
    assert_differs(model(given[0]), found)


def test_spans_have_two_vectors():
    model, given = made(BERTForSpans), batch()
    states = model.encoder(*given)
    first, last = model(*given)
    assert_same(first, states @ model.span.weight[0] + model.span.bias[0])
    assert_same(last, states @ model.span.weight[1] + model.span.bias[1])


def test_the_loss_of_spans_is_the_sum_of_two_log_likelihoods():
    model, (x, segments, _) = made(BERTForSpans), batch()
    keep = torch.arange(N) < torch.tensor([N, 7, 9])[:, None]
    first, last = torch.tensor([2, 0, 5]), torch.tensor([4, 6, 5])
    expected = 0
    for i, n in enumerate((N, 7, 9)):
        scores = model(x[i : i + 1, :n], segments[i : i + 1, :n])
        expected -= scores[0][0].log_softmax(0)[first[i]] + scores[1][0].log_softmax(0)[last[i]]
    assert_same(model.loss(x, first, last, segments, keep), expected / B)
    assert_differs(model.loss(x, first, last, segments), expected / B)
    model.loss(x, first, last, segments, keep).backward()
    assert all(p.grad.isfinite().all() for name, p in model.named_parameters() if "pooler" not in name)


@pytest.mark.parametrize(
    ("cls", "given"), [(BERTForSentences, (C,)), (BERTForTokens, (C,)), (BERTForMultipleChoice, ())]
)
def test_dropout_before_the_new_layer(cls, given):
    assert cls(BERT(V, **SIZES, dropout=0.2), *given).dropout.p == 0.2
    model = randomise(cls(BERT(V, **SIZES, dropout=0.0), *given, 0.5))
    assert model.dropout.p == 0.5
    x = torch.randint(V, (B, 2, N) if cls is BERTForMultipleChoice else (B, N))
    assert_same(model.eval()(x), model(x), 0)
    expected = model(x)
    assert_differs(model.train()(x), expected)


def test_no_dropout_before_spans():
    model, given = randomise(BERTForSpans(BERT(V, **SIZES, dropout=0.0))), batch()
    assert_same(model.train()(*given)[0], model.eval()(*given)[0], 0)


@pytest.mark.parametrize(("cls", "given"), [(BERTForSentences, (C,)), (BERTForMultipleChoice, ())])
def test_a_pooler_is_needed(cls, given):
    with pytest.raises(ValueError, match="encoder has no pooler"):
        cls(BERT(V, **SIZES, pooler=False), *given)


def test_no_pooler_is_needed_for_tokens():
    for model in (BERTForTokens(BERT(V, **SIZES, pooler=False), C), BERTForSpans(BERT(V, **SIZES, pooler=False))):
        model(*batch())
    with pytest.raises(ValueError, match="n_out=0 must be at least 1"):
        BERTForTokens(BERT(V, **SIZES), 0)


def test_new_layers_are_fresh_and_have_a_bias():
    model = BERTForSentences(BERT(V, **SIZES), C)
    assert 0 < model.classifier.weight.abs().max() <= 0.04
    assert (model.classifier.bias == 0).all()
    assert BERTForSpans(BERT(V, **SIZES)).span.bias.shape == (2,)


# the best span


def test_by_hand():
    """Best first and best last token do not make a span: 3 is after 1."""
    first, last = torch.tensor([[0.0, 1, 0, 9]]), torch.tensor([[0.0, 8, 3, 2]])
    span, score = best_span(first, last)
    assert (span.tolist(), score.tolist()) == ([[3, 3]], [11.0])
    span, score = best_span(first, last, torch.tensor([[True, True, True, False]]))
    assert (span.tolist(), score.tolist()) == ([[1, 1]], [9.0])


@pytest.mark.parametrize("longest", [1, 2, 4, 30])
def test_equals_a_search_over_all_spans(longest):
    first, last = torch.randn(2, 50, N).double()
    allowed = torch.rand(50, N) < 0.6
    allowed[:, 3] = True
    spans, scores = best_span(first, last, allowed, longest)
    for row in range(50):
        candidates = {
            (i, j): (first[row, i] + last[row, j]).item()
            for i in range(N)
            for j in range(i, min(N, i + longest))
            if allowed[row, i] and allowed[row, j]
        }
        assert tuple(spans[row].tolist()) == max(candidates, key=candidates.get)
        assert scores[row].item() == pytest.approx(max(candidates.values()))


def test_nowhere_to_answer():
    scores = torch.zeros(1, 3)
    assert best_span(scores, scores, torch.zeros(1, 3, dtype=torch.bool))[1].item() == -torch.inf
    with pytest.raises(ValueError, match="longest=0 must be at least 1"):
        best_span(scores, scores, longest=0)


# features


def test_all_states_are_those_of_transformers(parity, tmp_path):
    model, (x, segments, keep) = randomise(BERT(V, **SIZES)).eval(), batch()
    model.to_transformers(tmp_path)
    reference = BertModel.from_pretrained(tmp_path, dtype=torch.float64).eval()
    theirs = reference(x, token_type_ids=segments, attention_mask=keep.long(), output_hidden_states=True).hidden_states
    ours = all_states(model, x, segments, keep)
    parity("BERT", "transformers.BertModel", "states of all layers", [s[keep] for s in ours], [s[keep] for s in theirs])
    assert len(ours) == LAYERS + 1
    assert_same(ours[-1], model(x, segments, keep), 0)
    assert_same(ours[0], model.embed(x, segments), 0)
    assert_differs(all_states(model, x, segments)[-1], ours[-1])


def test_features_stand_side_by_side():
    states = [torch.full((1, 2, 3), float(i)) for i in range(5)]
    assert features(states)[0, 0].tolist() == [1.0] * 3 + [2.0] * 3 + [3.0] * 3 + [4.0] * 3
    assert features(states, 1).shape == (1, 2, 3)
    assert features(states, 5)[0, 1, 0] == 0
    for layers in (0, 6):
        with pytest.raises(ValueError, match=f"layers={layers} must be at least 1 and at most 5"):
            features(states, layers)
