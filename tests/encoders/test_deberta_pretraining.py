"""The enhanced mask decoder: by hand, where it knows positions, and what it shares."""

import pytest
import torch
from torch.nn.functional import cross_entropy

from helpers import assert_differs, assert_same, leaks, randomise
from papercode.encoders.bert_pretraining import IGNORED
from papercode.encoders.deberta import DeBERTa
from papercode.encoders.deberta_pretraining import DeBERTaForMaskedLM, EnhancedMaskDecoder
from papercode.training import train

V, K, D, HEADS, D_FF, LAYERS, B, N, POSITIONS = 23, 4, 14, 7, 19, 3, 3, 11, 13
SIZES = {"k": K, "d_model": D, "n_heads": HEADS, "d_ff": D_FF, "n_layers": LAYERS}


def made(**changes):
    return randomise(DeBERTaForMaskedLM(DeBERTa(V, **SIZES), POSITIONS, **changes)).eval()


def texts(b=B, n=N):
    return torch.randint(V, (b, n))


def by_hand(model, x, keep=None):
    """Figure 2: H goes in as keys and values each time; I is first the positions, then what came out."""
    encoder, mask = model.encoder, None if keep is None else keep[:, None, None, :]
    relative, states = encoder.relative(x.shape[1]), encoder.embed(encoder.words(x))
    for layer in encoder.layers[:-1]:
        states = layer(states, relative=relative, mask=mask)
    layer = encoder.layers[-1]
    asked = model.decoder.positions.weight[: x.shape[1]].expand_as(states)
    if model.decoder.add_states:
        asked = asked + states
    for _ in range(model.decoder.passes):
        attended = layer.attention(asked, states, relative=relative, mask=mask)
        middle = layer.residuals[0].norm(asked + attended)
        asked = layer.residuals[1].norm(middle + layer.feed_forward(middle))
    return asked


@pytest.mark.parametrize("add_states", [False, True])
@pytest.mark.parametrize("passes", [1, 2, 3])
def test_by_hand(parity, passes, add_states):
    model, x = made(passes=passes, add_states=add_states), texts()
    keep = torch.arange(N) < torch.tensor([N, 5, 2])[:, None]
    label = f"{passes} passes, I = {'P + H' if add_states else 'P'}, padding"
    wanted = by_hand(model, x, keep)[keep]
    parity("EnhancedMaskDecoder", "the equations, step by step", label, model.states(x, keep)[keep], wanted)
    assert_differs(by_hand(model, x)[keep], wanted)
    model.decoder.add_states = not add_states
    assert_differs(by_hand(model, x, keep)[keep], wanted)
    logits = model(x, keep)
    assert_same(logits, model.mlm(model.states(x, keep), model.encoder.words.weight))


def test_with_the_states_themselves_and_one_pass_it_is_the_last_layer():
    """Section 3.2: with I = H and n = 1 it is BERT's decoder."""
    model, x = made(passes=1, add_states=True), texts()
    assert_differs(model.states(x), model.encoder(x))
    with torch.no_grad():
        model.decoder.positions.weight.zero_()
    assert_same(model.states(x), model.encoder(x))


@pytest.mark.parametrize("add_states", [False, True])
def test_it_knows_where_a_text_stands(add_states):
    """The encoder does not: the same words three places on give the same states, and other predictions."""
    model, x = made(add_states=add_states), texts(1, 6)
    padded, keep = texts(1, 9), (torch.arange(9) >= 3)[None]
    padded[:, 3:] = x
    assert_same(model.encoder(padded, keep)[:, 3:], model.encoder(x), 1e-12)
    assert_differs(model(padded, keep)[:, 3:], model(x), by=0.01)
    with torch.no_grad():
        model.decoder.positions.weight.copy_(model.decoder.positions.weight[:1].expand(POSITIONS, -1))
    assert_same(model(padded, keep)[:, 3:], model(x), 1e-12)


def test_what_the_encoder_cannot_tell_apart_the_decoder_can():
    """Seven times the same word, without the terms of distances: one state, and seven predictions."""
    model, x = made(), torch.zeros(1, 7, dtype=torch.long)
    for layer in model.encoder.layers:
        layer.attention.c2p = layer.attention.p2c = False
    states = model.encoder(x)[0]
    assert_same(states, states[:1].expand_as(states))
    assert torch.pdist(model.states(x)[0]).min() > 1e-3


def test_it_brings_the_table_of_positions_and_nothing_else():
    model = made()
    assert [name for name, _ in model.decoder.named_parameters()] == ["positions.weight"]
    assert model.mlm.transform.weight.shape == (D, D)
    assert not any("words" in name for name, _ in model.mlm.named_parameters())


def test_both_passes_train_the_last_layer():
    """One set of weights, two passes: its gradient is the sum of what the passes give."""
    model, x = made(), texts()
    targets = x.masked_fill(torch.rand(B, N) < 0.5, IGNORED)
    model.loss(x, targets).backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().max() > 0, name
    assert model.decoder.positions.weight.grad[N:].abs().max() == 0


def test_loss():
    model, x = made(), texts()
    targets = torch.full_like(x, IGNORED)
    targets[:, 2], targets[1, 7] = x[:, 3], 5
    keep = torch.arange(N) < torch.tensor([N, 9, 4])[:, None]
    logits = model(x, keep).log_softmax(-1)
    wanted = -(logits[0, 2, x[0, 3]] + logits[1, 2, x[1, 3]] + logits[2, 2, x[2, 3]] + logits[1, 7, 5]) / 4
    assert_same(model.loss(x, targets, keep), wanted)
    assert_same(model.loss(x, targets, keep), cross_entropy(model(x, keep).flatten(0, 1), targets.flatten()))
    assert_differs(model.loss(x, targets), wanted)
    assert model.loss(x, torch.full_like(x, IGNORED)) == 0


def test_padding_does_not_leak():
    model, x = made(), texts()
    keep = torch.arange(N) < torch.tensor([N, 5, 1])[:, None]
    other = torch.where(keep, x, (x + 1) % V)
    assert not leaks(lambda x: model(x, keep), x, other, keep)
    assert leaks(model, x, other, keep)


def test_masked_words_can_be_learned():
    model = DeBERTaForMaskedLM(DeBERTa(V, **SIZES, dropout=0.0), POSITIONS)
    x = texts(4)
    hidden = x.masked_fill(torch.arange(N) % 3 == 0, 0)
    targets = torch.where(torch.arange(N) % 3 == 0, x, IGNORED)
    losses = train(model, model.loss, [(hidden, targets)] * 100, torch.optim.Adam(model.parameters(), 0.01))
    assert losses[-1] < 0.1 < losses[0]


def test_dtype_and_errors():
    assert DeBERTaForMaskedLM(DeBERTa(V, **SIZES).double()).decoder.positions.weight.dtype == torch.float64
    assert DeBERTaForMaskedLM(DeBERTa(V, **SIZES).double()).mlm.transform.weight.dtype == torch.float64
    assert DeBERTaForMaskedLM(DeBERTa(V, **SIZES)).decoder.positions.weight.shape == (512, D)
    assert made()(texts(1, POSITIONS)).shape == (1, POSITIONS, V)
    assert made().decoder.passes == 2
    assert made().decoder.add_states
    assert 0 < EnhancedMaskDecoder(50, 50).positions.weight.abs().max() <= 0.04
    with pytest.raises(ValueError, match="states have length 14, but n_positions=13"):
        made()(texts(1, 14))
    with pytest.raises(ValueError, match="passes=0 must be at least 1"):
        EnhancedMaskDecoder(5, 3, passes=0)
