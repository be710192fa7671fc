"""ELECTRA's encoder and heads: what differs from BERT by hand, and that nothing else does.

It is held against transformers in tests/checkpoints/test_electra_weights.py.
"""

import pytest
import torch

from helpers import assert_differs, assert_same, leaks, randomise
from papercode.attention.layer_norm import LayerNorm
from papercode.encoders.bert import BERT
from papercode.encoders.bert_packed import packed
from papercode.encoders.bert_pretraining import new_layer
from papercode.encoders.electra import ELECTRA, ELECTRAForSentences, ELECTRAForSpans, ELECTRAForTokens

V, E, D, HEADS, D_FF, LAYERS, B, N = 23, 5, 14, 7, 19, 2, 3, 11
SIZES = {"n_positions": 13, "d_embedding": E, "d_model": D, "n_heads": HEADS, "d_ff": D_FF, "n_layers": LAYERS}


def electra(**changes):
    return randomise(ELECTRA(V, **SIZES | changes)).eval()


def texts():
    x, segments = torch.randint(V, (B, N)), torch.randint(2, (B, N))
    return x, segments, torch.arange(N) < torch.tensor([N, 5, 1])[:, None]


def gelu(x):
    return x * 0.5 * (1 + torch.erf(x / 2**0.5))


def test_embeddings_have_a_width_of_their_own():
    model, (x, segments, _) = electra(), texts()
    total = model.words.weight[x] + model.positions.weight[:N] + model.segments.weight[segments]
    assert total.shape == (B, N, E)
    assert_same(model.embed(x, segments), model.norm(total) @ model.project.weight.T + model.project.bias)
    assert_differs(model.embed(x), model.embed(x, segments))
    assert [p.shape[-1] for p in (model.words.weight, model.positions.weight, model.segments.weight)] == [E] * 3
    assert model.norm.gain.shape == (E,)


def test_of_one_width_it_is_bert():
    model, given = electra(d_embedding=D), texts()
    sizes = {name: size for name, size in SIZES.items() if name != "d_embedding"}
    bert = BERT(V, **sizes, pooler=False).double().eval()
    bert.load_state_dict(model.state_dict())
    assert model.project is None
    assert_same(model(*given), bert(*given), 0)
    assert_differs(model(*given), bert(*given[:2]))


def test_dropout_comes_before_the_map():
    model, (x, segments, _) = electra(dropout=0.5).train(), texts()
    with torch.no_grad():
        model.project.weight.copy_(torch.eye(D, E))
        model.project.bias.fill_(3.0)
    assert (model.embed(x, segments)[..., E:] == 3.0).all()
    assert 0.3 < (model.embed(x, segments)[..., :E] == 3.0).double().mean() < 0.7


def test_padding_does_not_leak_and_need_not_be_computed():
    model, (x, segments, keep) = electra(), texts()
    other = torch.where(keep, x, (x + 1) % V)
    assert not leaks(lambda x: model(x, segments, keep), x, other, keep)
    assert leaks(lambda x: model(x, segments), x, other, keep)
    assert_same(packed(model, x, segments, keep)[keep], model(x, segments, keep)[keep])


def test_there_is_no_pooler():
    with pytest.raises(ValueError, match="made with pooler=False"):
        electra().pool(torch.zeros(1, 1, D, dtype=torch.float64))


@pytest.mark.parametrize("e", [E, D])
def test_the_class_of_a_text_by_hand(e):
    model, (x, segments, keep) = (
        randomise(ELECTRAForSentences(ELECTRA(V, **SIZES | {"d_embedding": e}), 3)).eval(),
        texts(),
    )
    first = model.encoder(x, segments, keep)[:, 0]
    hidden = gelu(first @ model.hidden.weight.T + model.hidden.bias)
    assert_same(model(x, segments, keep), hidden @ model.output.weight.T + model.output.bias)
    assert_differs(model(x, segments), model(x, segments, keep))
    assert_differs(model(x, None, keep), model(x, segments, keep))


def test_dropout_before_both_layers_of_the_class():
    model, (x, _, _) = randomise(ELECTRAForSentences(ELECTRA(V, **SIZES, dropout=0.0), 5, dropout=0.25)), texts()
    seen = []
    for layer in (model.hidden, model.output):
        layer.register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    model.eval()(x)
    model.train()(x)
    plain, after = seen[:2], seen[2:]
    assert ((after[0] == 0) | ((after[0] - plain[0] / 0.75).abs() < 1e-12)).all()
    assert all(0 < (rows == 0).double().mean() < 0.6 for rows in after)
    assert ELECTRAForSentences(ELECTRA(V, **SIZES, dropout=0.3), 5).dropout.p == 0.3


def test_the_other_heads_read_states_and_not_embeddings():
    encoder, (x, segments, keep) = ELECTRA(V, **SIZES), texts()
    tokens, spans = ELECTRAForTokens(encoder, 4, 0.3).eval(), ELECTRAForSpans(encoder).eval()
    states = encoder.eval()(x, segments, keep)
    assert_same(tokens(x, segments, keep), states @ tokens.classifier.weight.T + tokens.classifier.bias, 1e-5)
    assert tokens.dropout.p == 0.3
    assert ELECTRAForTokens(encoder, 4).dropout.p == 0.1
    first, last = spans(x, segments, keep)
    assert_same(torch.stack([first, last], -1), states @ spans.span.weight.T + spans.span.bias, 1e-5)


@pytest.mark.parametrize("cls", [ELECTRAForSentences, ELECTRAForTokens])
def test_classes_there_must_be(cls):
    with pytest.raises(ValueError, match="n_out=0 must be at least 1"):
        cls(ELECTRA(V, **SIZES), 0)


def test_new_layers_read_states():
    encoder = ELECTRA(1009, d_embedding=24, d_model=64, n_heads=2, d_ff=128, n_layers=1).double()
    layer = new_layer(encoder, 31)
    assert (layer.weight.shape, layer.weight.dtype) == ((31, 64), torch.float64)
    for module in (encoder.words, encoder.positions, encoder.segments, encoder.project, layer):
        assert 0 < module.weight.abs().max() <= 0.04
    assert all((module.bias == 0).all() for module in (encoder.project, layer))


def test_defaults_are_the_small_model():
    with torch.device("meta"):
        model = ELECTRA()
    assert (len(model.layers), model.words.weight.shape, model.positions.num_embeddings) == (12, (30_522, 128), 512)
    assert (model.project.weight.shape, model.segments.num_embeddings, model.dropout.p) == ((256, 128), 2, 0.1)
    assert {module.eps for module in model.modules() if isinstance(module, LayerNorm)} == {1e-12}
    layer = model.layers[0]
    assert (layer.attention.d_k, layer.feed_forward.expand.out_features) == (64, 1024)
