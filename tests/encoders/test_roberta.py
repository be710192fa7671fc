"""RoBERTa by hand: where it differs from BERT, and that it differs nowhere else.

It is held against transformers in tests/checkpoints/test_roberta_weights.py.
"""

import pytest
import torch
from transformers import RobertaTokenizer

from helpers import assert_differs, assert_same, leaks, randomise
from papercode.attention.layer_norm import LayerNorm
from papercode.encoders.bert import BERT
from papercode.encoders.bert_packed import packed
from papercode.encoders.roberta import (
    RoBERTa,
    RoBERTaForMaskedLM,
    RoBERTaForMultipleChoice,
    RoBERTaForSentences,
    RoBERTaForSpans,
    RoBERTaForTokens,
)
from papercode.tokens.byte_bpe import ByteLevelBPE

V, PAD, D, HEADS, D_FF, LAYERS, B, N = 23, 2, 14, 7, 19, 2, 3, 11
SIZES = {"n_positions": 13, "d_model": D, "n_heads": HEADS, "d_ff": D_FF, "n_layers": LAYERS, "pad": PAD}


def roberta(**changes):
    return randomise(RoBERTa(V, **SIZES | changes)).eval()


def texts(b=B, n=N):
    """Without padding."""
    return torch.randint(PAD + 1, V, (b, n))


def padded():
    keep = torch.arange(N) < torch.tensor([N, 5, 1])[:, None]
    return torch.where(keep, texts(), PAD), keep


def test_positions_by_hand():
    x = torch.tensor([[5, 7, 9, PAD, PAD], [PAD, 5, PAD, 7, 9]])
    assert roberta().places(x).tolist() == [[3, 4, 5, 2, 2], [2, 3, 2, 4, 5]]
    assert RoBERTa(V, **SIZES | {"pad": 0}).places(x[:1]).tolist() == [[1, 2, 3, 4, 5]]


def test_the_sum_of_three_by_hand():
    model, x = roberta(n_segments=3), torch.tensor([[5, PAD, 7]])
    total = model.words.weight[[5, PAD, 7]] + model.positions.weight[[3, 2, 4]]
    assert_same(model.embed(x)[0], model.norm(total + model.segments.weight[0]))
    assert_same(model.embed(x, torch.tensor([[2, 0, 1]]))[0], model.norm(total + model.segments.weight[[2, 0, 1]]))


def test_it_is_bert_with_a_table_that_begins_later():
    """Of the same function, for BERT's positions are rows 3, 4, … here."""
    model = roberta(n_segments=3)
    sizes = {name: size for name, size in SIZES.items() if name != "pad"}
    bert = BERT(V, **sizes, n_segments=3, eps=1e-5).double().eval()
    state = model.state_dict()
    bert.load_state_dict(state | {"positions.weight": state["positions.weight"][PAD + 1 :]})
    x, segments = texts(), torch.randint(3, (B, N))
    assert_same(model(x, segments), bert(x, segments), 1e-12)
    bert.load_state_dict(state | {"positions.weight": state["positions.weight"][:13]})
    assert_differs(model(x, segments), bert(x, segments))


def test_padding_may_stand_on_either_side():
    model, (x, keep) = roberta(), padded()
    left = torch.tensor([[PAD, PAD, *x[1, :5].tolist()]])
    assert_same(model(left, keep=left != PAD)[:, 2:], model(x[1:2, :5]))
    assert_same(model(x, keep=keep)[1:2, :5], model(x[1:2, :5]))
    assert_differs(model(x)[1:2, :5], model(x[1:2, :5]))


def test_padding_does_not_leak():
    model, (x, keep) = roberta(), padded()
    seen = torch.zeros_like(keep)
    seen[:, 0] = True

    def function(table):
        model.words.weight.data[PAD] = table[0, 0]
        return model(x, keep=keep)

    before, after = torch.zeros(1, 1, D, dtype=torch.float64), torch.ones(1, 1, D, dtype=torch.float64)
    assert not leaks(function, before, after, keep)
    assert leaks(function, before, after, ~keep)


def test_without_the_work_on_padding_it_is_the_same():
    model, (x, keep) = roberta(), padded()
    assert_same(packed(model, x, None, keep)[keep], model(x, keep=keep)[keep])


def test_the_longest_text_and_one_more():
    model = roberta()
    assert model(texts(1, 13)).shape == (1, 13, D)
    assert model.positions.num_embeddings == 13 + PAD + 1
    with pytest.raises(ValueError, match="tokens have length 14, but n_positions=13"):
        model(texts(1, 14))


@pytest.mark.parametrize("pad", [-1, V])
def test_padding_is_a_token(pad):
    with pytest.raises(ValueError, match=f"pad={pad} must be an id, at least 0 and less than n_tokens={V}"):
        RoBERTa(V, **SIZES | {"pad": pad})


def test_the_class_of_a_text_by_hand():
    encoder = RoBERTa(V, **SIZES, pooler=False)
    model, (x, keep) = randomise(RoBERTaForSentences(encoder, 5)).eval(), padded()
    first = model.encoder(x, keep=keep)[:, 0]
    hidden = torch.tanh(first @ model.hidden.weight.T + model.hidden.bias)
    assert_same(model(x, keep=keep), hidden @ model.output.weight.T + model.output.bias)
    assert_differs(model(x), model(x, keep=keep))
    with pytest.raises(ValueError, match="n_out=0 must be at least 1"):
        RoBERTaForSentences(encoder, 0)


def test_dropout_before_both_layers_of_the_class():
    model, x = randomise(RoBERTaForSentences(RoBERTa(V, **SIZES, dropout=0.0), 5, dropout=0.25)), texts()
    seen = []
    for layer in (model.hidden, model.output):
        layer.register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    model.eval()(x)
    model.train()(x)
    plain, after = seen[:2], seen[2:]
    assert ((after[0] == 0) | ((after[0] - plain[0] / 0.75).abs() < 1e-12)).all()
    assert all(0 < (rows == 0).double().mean() < 0.6 for rows in after)
    assert RoBERTaForSentences(RoBERTa(V, **SIZES, dropout=0.3), 5).dropout.p == 0.3


def test_dropout_on_the_sum():
    model, x = roberta(dropout=0.25), texts()
    expected, found = model.embed(x) / 0.75, model.train().embed(x)
    assert (((found - expected).abs() < 1e-12) | (found == 0)).all()
    assert 0.1 < (found == 0).double().mean() < 0.4


def test_the_other_heads_are_berts():
    encoder, x = RoBERTa(V, **SIZES), texts()
    assert RoBERTaForMaskedLM(encoder)(x).shape == (B, N, V)
    assert RoBERTaForTokens(encoder, 5)(x).shape == (B, N, 5)
    assert RoBERTaForMultipleChoice(encoder)(x[None]).shape == (1, B)
    assert [scores.shape for scores in RoBERTaForSpans(encoder)(x)] == [(B, N)] * 2
    assert RoBERTaForTokens(encoder, 5, 0.3).dropout.p == RoBERTaForMultipleChoice(encoder, 0.3).dropout.p == 0.3


def test_defaults_are_the_base_model():
    with torch.device("meta"):
        model = RoBERTa()
    assert (len(model.layers), model.words.weight.shape, model.n_positions) == (12, (50_265, 768), 512)
    assert (model.pad, model.positions.num_embeddings, model.segments.num_embeddings) == (1, 514, 1)
    assert {module.eps for module in model.modules() if isinstance(module, LayerNorm)} == {1e-5}
    layer = model.layers[0]
    assert (layer.attention.d_k, layer.feed_forward.expand.out_features, model.dropout.p) == (64, 3072, 0.1)


def test_tokens_from_the_two_files_of_a_released_model(tmp_path):
    """vocab.json and merges.txt, as the note has them; the frame of a pair is `<s> a </s></s> b </s>`."""
    special = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
    learned = ByteLevelBPE.learn(["the bell rang", "she rang the bell", "the ring of the bell"], 40, special=special)
    theirs = RobertaTokenizer(vocab=learned.vocabulary, merges=learned.merges)
    theirs.save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=r"RobertaProcessing\" is not implemented"):
        ByteLevelBPE.from_pretrained(tmp_path)
    learned.save(tmp_path)
    (tmp_path / "tokenizer.json").unlink()
    ours = ByteLevelBPE.from_pretrained(tmp_path)
    assert set(ours.special) == set(special)
    for text in ("the bell rang", "Ñandú 🔔  rings", "a<mask> bell", ""):
        assert ours.encode(text) == theirs(text, add_special_tokens=False)["input_ids"]
    assert ours.encode("<s>the bell</s></s>she rang</s>") == theirs("the bell", "she rang")["input_ids"]
    assert ours.encode("<s>the bell</s>she rang</s>") != theirs("the bell", "she rang")["input_ids"]
