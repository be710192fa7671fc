"""Both models of ELECTRA by hand, where gradients go and where they do not, and one small model that learns."""

import itertools
import math

import pytest
import torch

from helpers import assert_differs, assert_same, randomise
from papercode.encoders.bert_pretraining import IGNORED
from papercode.encoders.electra import ELECTRA
from papercode.encoders.electra_data import hide, put_back, sample
from papercode.encoders.electra_pretraining import (
    ELECTRADiscriminator,
    ELECTRAGenerator,
    Losses,
    ReplacedTokenDetection,
)
from papercode.training import train

V, E, D, B, N, MASK = 23, 5, 14, 3, 11, 4
SMALL = {"n_positions": 13, "d_embedding": E, "d_model": 6, "n_heads": 3, "d_ff": 7, "n_layers": 1, "dropout": 0.0}
LARGE = SMALL | {"d_model": D, "n_heads": 7, "d_ff": 19, "n_layers": 2}


def both(weight=50.0, **changes):
    generator = randomise(ELECTRAGenerator(ELECTRA(V, **SMALL | changes)), 1)
    discriminator = randomise(ELECTRADiscriminator(ELECTRA(V, **LARGE | changes)), 2)
    return ReplacedTokenDetection(generator, discriminator, weight).eval()


def batch():
    x, segments = torch.randint(5, V, (B, N)), torch.randint(2, (B, N))
    keep = torch.arange(N) < torch.tensor([N, 7, 5])[:, None]
    hidden, targets = hide(torch.where(keep, x, 0), mask=MASK, special=(0,), rate=0.3)
    return hidden, targets, segments, keep


def gelu(x):
    return x * 0.5 * (1 + torch.erf(x / 2**0.5))


# the models


def test_the_generator_by_hand():
    model, (hidden, _, segments, keep) = both().generator, batch()
    states = model.encoder(hidden, segments, keep)
    h = gelu(states @ model.mlm.transform.weight.T + model.mlm.transform.bias)
    h = h - h.mean(-1, keepdim=True)
    h = model.mlm.norm.gain * h / (h.square().mean(-1, keepdim=True) + 1e-12).sqrt() + model.mlm.norm.bias
    assert_same(model(hidden, segments, keep), h @ model.encoder.words.weight.T + model.mlm.bias)
    assert sum(p.shape == (V, E) for p in model.parameters()) == 1


def test_the_discriminator_by_hand():
    model, (hidden, _, segments, keep) = both().discriminator, batch()
    states = model.encoder(hidden, segments, keep)
    h = gelu(states @ model.transform.weight.T + model.transform.bias)
    assert_same(model(hidden, segments, keep), (h @ model.verdict.weight[0] + model.verdict.bias))
    assert model(hidden).shape == (B, N)


def test_the_loss_of_the_discriminator_with_loops():
    """The paper's equation, D the probability of an original, as a mean over what is no padding."""
    model, (hidden, targets, segments, keep) = both().discriminator, batch()
    replaced = (targets != IGNORED) & (torch.rand(B, N) < 0.5)
    real = torch.sigmoid(-model(hidden, segments, keep)).tolist()
    terms = [
        -math.log(1 - real[i][j]) if replaced[i, j] else -math.log(real[i][j])
        for i in range(B)
        for j in range(N)
        if keep[i, j]
    ]
    assert len(terms) == N + 7 + 5
    assert model.loss(hidden, replaced, segments, keep).item() == pytest.approx(sum(terms) / len(terms))
    assert model.loss(hidden, replaced, segments).item() != pytest.approx(sum(terms) / len(terms), abs=1e-3)


def test_both_losses():
    model, (hidden, targets, segments, keep) = both(7.0), batch()
    seeds = [torch.Generator().manual_seed(3) for _ in range(2)]
    found = model.losses(hidden, targets, segments, keep, seeds[0])
    asked = targets != IGNORED
    logits = model.generator(hidden, segments, keep)[asked]
    assert_same(found.mlm, -logits.log_softmax(-1)[range(len(logits)), targets[asked]].mean())
    corrupt, replaced = put_back(hidden, targets, sample(logits, seeds[1]))
    assert_same(found.rtd, model.discriminator.loss(corrupt, replaced, segments, keep))
    torch.manual_seed(5)
    total = model.loss(hidden, targets, segments, keep)
    torch.manual_seed(5)
    mlm, rtd = model.losses(hidden, targets, segments, keep)
    assert_same(total, mlm + 7.0 * rtd)
    assert_differs(total, mlm + rtd)
    assert_differs(model.losses(hidden, targets, segments)[1], rtd)
    assert_differs(model.losses(hidden, targets, None, keep)[0], mlm, 1e-9)
    assert_differs(model.losses(hidden, targets, segments)[0], mlm, 1e-9)
    assert ReplacedTokenDetection(model.generator, model.discriminator).weight == 50


def test_a_generator_that_guesses_right_replaces_nothing():
    model, (hidden, targets, segments, keep) = both(), batch()
    targets = torch.where(targets == IGNORED, IGNORED, 9)
    with torch.no_grad():
        model.generator.mlm.bias[9] = 1000.0
    found = model.losses(hidden, targets, segments, keep)
    original = torch.where(targets == IGNORED, hidden, 9)
    assert_same(found.rtd, model.discriminator.loss(original, torch.zeros_like(keep), segments, keep))
    assert_differs(found.rtd, model.discriminator.loss(original, targets != IGNORED, segments, keep))


def test_nothing_hidden():
    model, (hidden, targets, segments, keep) = both(), batch()
    found = model.losses(hidden, torch.full_like(targets, IGNORED), segments, keep)
    assert isinstance(found, Losses)
    assert found.mlm == 0
    assert_same(found.rtd, model.discriminator.loss(hidden, torch.zeros_like(keep), segments, keep))
    found.mlm.backward()


# gradients


def test_the_generator_learns_nothing_from_the_discriminator():
    model, given = both(), batch()
    mlm, rtd = model.losses(*given)
    rtd.backward(retain_graph=True)
    shared = {id(p) for p in model.discriminator.parameters()}
    own = [p for p in model.generator.parameters() if id(p) not in shared]
    assert own
    assert all(p.grad is None for p in own)
    assert all(p.grad is not None for p in model.discriminator.parameters())
    model.zero_grad()
    mlm.backward()
    assert all(p.grad is not None for p in own)
    theirs = [p for p in model.discriminator.parameters() if all(p is not q for q in model.generator.parameters())]
    assert all(p.grad is None for p in theirs)


def reached(loss, states):
    return torch.autograd.grad(loss, states)[0].abs().amax(-1) > 0


def test_the_loss_reaches_every_position():
    """The claim of section 1: all of the words, and not 15 %."""
    model, (hidden, targets, segments, keep) = both(), batch()
    states = []
    for part in (model.generator, model.discriminator):
        part.encoder.register_forward_hook(lambda _, __, out: states.append(out))
    mlm, rtd = model.losses(hidden, targets, segments, keep)
    assert torch.equal(reached(mlm, states[0]), targets != IGNORED)
    assert torch.equal(reached(rtd, states[1]), keep)


def test_embeddings_are_shared():
    model, given = both(), batch()
    first, second = model.generator.encoder, model.discriminator.encoder
    for name in ("words", "positions", "segments", "norm"):
        assert getattr(first, name) is getattr(second, name)
    assert first.project is not second.project
    table = second.words.weight
    mlm, rtd = model.losses(*given)
    a, b = (torch.autograd.grad(loss, table, retain_graph=True)[0] for loss in (mlm, rtd))
    assert a.abs().max() > 0
    assert b.abs().max() > 0
    (mlm + rtd).backward()
    assert_same(table.grad, a + b)
    assert sum(p.shape == (V, E) for p in model.parameters()) == 1
    state = model.state_dict()
    assert torch.equal(state["generator.encoder.words.weight"], state["discriminator.encoder.words.weight"])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"d_embedding": 6}, r"generator's words are \(23, 6\) and discriminator's \(23, 5\); they are shared"),
        ({"n_positions": 12}, r"generator's positions are \(12, 5\) and discriminator's \(13, 5\)"),
        ({"n_segments": 3}, r"generator's segments are \(3, 5\) and discriminator's \(2, 5\)"),
    ],
)
def test_embeddings_that_cannot_be_shared(change, message):
    generator = ELECTRAGenerator(ELECTRA(V, **SMALL | change))
    with pytest.raises(ValueError, match=message):
        ReplacedTokenDetection(generator, ELECTRADiscriminator(ELECTRA(V, **LARGE)))


def test_fresh_heads_are_like_the_encoder():
    generator, discriminator = ELECTRAGenerator(ELECTRA(V, **SMALL).double()), ELECTRADiscriminator(ELECTRA(V, **LARGE))
    assert {p.dtype for p in generator.parameters()} == {torch.float64}
    assert generator.mlm.norm.eps == 1e-12
    assert ELECTRAGenerator(ELECTRA(V, **SMALL, eps=1e-3)).mlm.norm.eps == 1e-3
    assert (generator.mlm.bias == 0).all()
    for layer in (generator.mlm.transform, discriminator.transform, discriminator.verdict):
        assert 0 < layer.weight.abs().max() <= 0.04


def test_replaced_words_are_found():
    """Each text repeats one word, so that a replacement stands out; the generator is blind for a while."""
    torch.manual_seed(0)
    sizes = {"n_positions": 8, "d_embedding": 16, "n_heads": 4, "n_layers": 1, "dropout": 0.0}
    generator = ELECTRAGenerator(ELECTRA(V, **sizes, d_model=8, d_ff=16))
    discriminator = ELECTRADiscriminator(ELECTRA(V, **sizes, d_model=24, d_ff=48))
    model = ReplacedTokenDetection(generator, discriminator)

    def batches():
        while True:
            yield hide(torch.randint(5, V, (32, 1)).expand(32, 8), mask=MASK, special=(), rate=0.25)

    optimizer = torch.optim.AdamW(model.parameters(), 5e-3)
    losses = train(model, model.loss, itertools.islice(batches(), 150), optimizer)
    assert losses[0] > 30  # log 23 + 50 log 2 = 37.8
    text = torch.full((1, 8), 9)
    text[0, 3] = 17
    assert (discriminator.eval()(text) > 0).tolist() == [[i == 3 for i in range(8)]]
