"""The encoder by hand and by its invariants; against transformers in tests/checkpoints/test_deberta_weights.py."""

import copy
import pickle
from functools import partial

import pytest
import torch

from helpers import assert_differs, assert_same, leaks, randomise
from papercode.attention.layer_norm import LayerNorm
from papercode.encoders.deberta import DeBERTa, DeBERTaForSentences
from papercode.encoders.deberta_attention import DisentangledAttention
from papercode.training import train

V, K, D, HEADS, D_FF, LAYERS, B, N = 23, 4, 14, 7, 19, 2, 3, 11
SIZES = {"k": K, "d_model": D, "n_heads": HEADS, "d_ff": D_FF, "n_layers": LAYERS}


def deberta(**changes):
    return randomise(DeBERTa(V, **SIZES | changes)).eval()


def texts(b=B, n=N):
    return torch.randint(V, (b, n))


def count(model):
    return sum(p.numel() for p in model.parameters())


def test_embeddings_are_words_and_nothing_else():
    model, x = deberta(), texts()
    found = model.embed(model.words(x))
    for i in range(B):
        for j in range(N):
            vector = model.words.weight[x[i, j]]
            centred = vector - vector.mean()
            expected = model.norm.gain * centred / (centred.square().mean() + 1e-7).sqrt() + model.norm.bias
            assert_same(found[i, j], expected)


def test_the_order_of_a_layer_by_hand():
    model, x = deberta(n_layers=1), texts(1, 4)
    (layer,), states, relative = model.layers, model.embed(model.words(x)), model.relative(4)
    middle = layer.residuals[0].norm(states + layer.attention(states, relative=relative))
    hidden = layer.feed_forward.expand(middle)
    gelu = hidden * 0.5 * (1 + torch.erf(hidden / 2**0.5))
    assert_same(model(x), layer.residuals[1].norm(middle + layer.feed_forward.contract(gelu)))


def test_one_table_serves_all_layers():
    model = deberta()
    assert sum(name.startswith("relative") for name, _ in model.named_parameters()) == 1
    seen = []
    for layer in model.layers:
        layer.attention.register_forward_pre_hook(
            lambda _, args, kwargs: seen.append(kwargs["relative"]), with_kwargs=True
        )
    model(texts())
    assert len(seen) == LAYERS
    assert all(relative is seen[0] for relative in seen)


def test_a_text_may_stand_anywhere():
    """The claim: states depend on distances alone. The same words, with padding before and after them."""
    model, x = deberta(), texts(1, 6)
    alone = model(x)
    for before in range(5):
        padded = texts(1, 11)
        padded[:, before : before + 6] = x
        place = torch.arange(11)
        keep = ((place >= before) & (place < before + 6))[None]
        assert_same(model(padded, keep)[:, before : before + 6], alone, 1e-12)
        if before:
            assert_differs(model(padded)[:, before : before + 6], alone)


def test_order_matters_all_the_same():
    model, x = deberta(), texts(1)
    order = torch.randperm(N)
    assert_differs(model(x[:, order]), model(x)[:, order])
    blind = deberta(make_attention=partial(DisentangledAttention, c2p=False, p2c=False))
    assert_same(blind(x[:, order]), blind(x)[:, order])


@pytest.mark.parametrize("left_out", ["c2p", "p2c"])
def test_each_term_alone_makes_order_matter(left_out):
    model, x = deberta(make_attention=partial(DisentangledAttention, **{left_out: False})), texts(1)
    assert_differs(model(x.flip(1)), model(x).flip(1))


def test_beyond_k_the_distance_does_not_matter():
    """One layer, k = 2: the states of the first word are the same if the words beyond k change places."""
    model, x = deberta(k=2, n_layers=1), texts(1)
    order = torch.tensor([0, 1, *range(10, 1, -1)])
    assert_same(model(x[:, order])[:, 0], model(x)[:, 0], 1e-12)
    near = torch.tensor([0, 2, 1, *range(3, 11)])
    assert_differs(model(x[:, near])[:, 0], model(x)[:, 0])


def test_texts_may_be_longer_than_the_table():
    model = deberta(k=2)
    assert model(texts(1, 53)).shape == (1, 53, D)


def test_padding_does_not_leak_and_costs_nothing_but_time():
    model, x = deberta(), texts()
    keep = torch.arange(N) < torch.tensor([N, 5, 1])[:, None]
    other = torch.where(keep, x, (x + 1) % V)
    assert not leaks(lambda x: model(x, keep), x, other, keep)
    assert leaks(model, x, other, keep)
    assert_same(model(x, keep)[1:2, :5], model(x[1:2, :5]))


def test_every_token_sees_every_other():
    model, x = deberta(), texts(1)
    for position in range(N):
        changed = x.clone()
        changed[0, position] = (x[0, position] + 1) % V
        assert (model(x) - model(changed)).abs().amax(-1).gt(1e-6).all()


def test_fewer_layers():
    model, x = deberta(), texts()
    short = DeBERTa(V, **SIZES | {"n_layers": 1}).double()
    short.load_state_dict({name: t for name, t in model.state_dict().items() if not name.startswith("layers.1")})
    assert_same(model.encode(model.words(x), n_layers=1), short.eval()(x))


def test_dropout_falls_on_embeddings_attention_and_sublayers():
    model, x = deberta(dropout=0.25), texts()
    layer = model.layers[1]
    assert {model.dropout.p, layer.attention.dropout, *(r.dropout.p for r in layer.residuals)} == {0.25}
    assert torch.equal(model(x), model(x))
    vectors = model.words(x)
    assert torch.equal(model.embed(vectors), model.norm(vectors))
    model.train()
    assert_differs(model(x), model(x))
    dropped = model.embed(vectors)
    assert 0.1 < (dropped == 0).float().mean() < 0.4
    assert_same(dropped[dropped != 0], model.norm(vectors)[dropped != 0] / 0.75)


def test_initial_weights_and_defaults():
    model = DeBERTa(211, k=5, d_model=64, n_heads=2, d_ff=128, n_layers=1)
    for module in (model.words, model.relative.vectors, model.layers[0].attention.position_k):
        assert module.weight.abs().max() <= 0.04
        assert module.weight.std() > 0.01
    with torch.device("meta"):
        base = DeBERTa()
    assert (len(base.layers), base.words.weight.shape, base.relative.k) == (12, (50_265, 768), 512)
    layer = base.layers[0]
    assert (layer.attention.d_k, layer.feed_forward.expand.out_features) == (64, 3072)
    norms = [module for module in base.modules() if isinstance(module, LayerNorm)]
    assert len(norms) == 25
    assert {norm.eps for norm in norms} == {1e-7}
    assert base.dropout.p == 0.1


def test_published_sizes():
    with torch.device("meta"):
        base, large = DeBERTa(), DeBERTa(d_model=1024, n_heads=16, d_ff=4096, n_layers=24)
        assert base(texts(2, 5)).shape == (2, 5, 768)  # without a weight in memory
    assert count(base) == 138_601_728
    assert count(large) == 405_163_008


def test_sentences_by_hand():
    model, x = randomise(DeBERTaForSentences(DeBERTa(V, **SIZES), 5)).eval(), texts()
    keep = torch.arange(N) < torch.tensor([N, 5, 1])[:, None]
    first = model.encoder(x, keep)[:, 0]
    hidden = first @ model.pooler.weight.T + model.pooler.bias
    gelu = hidden * 0.5 * (1 + torch.erf(hidden / 2**0.5))
    assert_same(model(x, keep), gelu @ model.classifier.weight.T + model.classifier.bias)
    assert_differs(model(x), model(x, keep))
    assert model.dropout.p == 0.1
    assert DeBERTaForSentences(DeBERTa(V, **SIZES), dropout=0.5).dropout.p == 0.5
    assert DeBERTaForSentences(DeBERTa(V, **SIZES).double()).classifier.weight.dtype == torch.float64
    with pytest.raises(ValueError, match="n_classes=0 must be at least 1"):
        DeBERTaForSentences(DeBERTa(V, **SIZES), 0)
    head = randomise(DeBERTaForSentences(DeBERTa(V, **SIZES, dropout=0.0), 5, 0.5)).train()
    assert_differs(head(x), head(x))  # on what the classifier reads
    assert_same(head.encoder(x), head.encoder(x))


def test_a_batch_can_be_learned():
    model = DeBERTaForSentences(DeBERTa(V, **SIZES, dropout=0.0), 2)
    x, y = texts(8), torch.arange(8) % 2
    optimizer = torch.optim.Adam(model.parameters(), 0.01)
    losses = train(model, lambda: torch.nn.functional.cross_entropy(model(x), y), [()] * 60, optimizer)
    assert losses[-1] < 0.05 < losses[0]


def test_copies():
    model, x = deberta(), texts()
    for twin in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert torch.equal(twin(x), model(x))
