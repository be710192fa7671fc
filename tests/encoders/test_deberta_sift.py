"""SiFT: what is perturbed, how far, and that it does not depend on the size of the vectors."""

import pytest
import torch

from helpers import assert_differs, assert_same, randomise
from papercode.encoders.deberta import DeBERTa, DeBERTaForSentences
from papercode.encoders.deberta_sift import normalised, sift_loss, symmetric_kl, worst_change

V, D, B, N = 23, 14, 3, 5


def made():
    return randomise(DeBERTaForSentences(DeBERTa(V, k=3, d_model=D, n_heads=7, d_ff=19, n_layers=1), 5)).eval()


def draw(seed=0):
    return torch.Generator().manual_seed(seed)


def test_normalised_by_hand():
    x = torch.randn(2, 3, 5, dtype=torch.float64)
    centred = x - x.mean(-1, keepdim=True)
    assert_same(normalised(x), centred / (centred.square().mean(-1, keepdim=True) + 1e-7).sqrt())


def test_normalising_first_does_not_change_the_model():
    """Behind the words stands a norm already."""
    model, x = made(), torch.randint(V, (B, N))
    words = model.encoder.words(x)
    assert_same(model.classify(normalised(words)), model(x), 1e-5)
    assert_differs(model.classify(words + 0.5 * torch.randn_like(words)), model(x))


def test_symmetric_kl_by_hand():
    p, q = torch.tensor([[0.5, 0.5]]).double(), torch.tensor([[0.9, 0.1]]).double()
    wanted = (p * (p / q).log()).sum() + (q * (q / p).log()).sum()
    assert_same(symmetric_kl(p.log(), q.log()), wanted)
    assert_same(symmetric_kl(p.log() + 3, q.log()), wanted)
    assert_same(symmetric_kl(q.log(), p.log()), wanted)
    both = torch.stack([p, q])[:, 0].log()
    assert_same(symmetric_kl(both, both.flip(0)), wanted)  # a mean
    assert_same(symmetric_kl(both[None].expand(3, -1, -1), both.flip(0)[None].expand(3, -1, -1)), wanted)
    assert symmetric_kl(p.log(), p.log()).abs() < 1e-12


def test_the_change_goes_uphill():
    model, words = made(), normalised(torch.randn(B, N, D).double())
    with torch.no_grad():
        target = model.classify(words)
        moved = [
            symmetric_kl(
                model.classify(words + worst_change(model.classify, words, step=step, generator=draw())), target
            )
            for step in (0.0, 0.003, 0.03)
        ]
    assert moved[0] < moved[1] < moved[2]


def test_the_size_of_the_change():
    model, words = made(), normalised(torch.randn(B, N, D).double())
    begin = worst_change(model.classify, words, step=0.0, start=0.3, generator=draw())
    assert begin.abs().max() <= 0.6
    assert abs(begin.std() - 0.3 * 0.88) < 0.03
    after = worst_change(model.classify, words, step=0.07, start=0.3, generator=draw())
    largest = (after - begin).abs().amax(-1)
    assert (largest < 0.07).all()
    assert (largest > 0.06).all()
    default = worst_change(model.classify, words, generator=draw())
    assert default.abs().max() < 0.0202
    assert not default.requires_grad
    assert_differs(default, worst_change(model.classify, words, generator=draw(1)))
    assert torch.equal(default, worst_change(model.classify, words, generator=draw()))


def test_the_slope_by_differences():
    """Of a model with one linear map, against the divergence at points nearby."""
    weight = torch.randn(D, 3, dtype=torch.float64)

    def read(x):
        return x.mean(1) @ weight

    words = normalised(torch.randn(1, 2, D).double())
    begin = worst_change(read, words, step=0.0, start=0.5, generator=draw())
    found = worst_change(read, words, step=1.0, start=0.5, generator=draw()) - begin
    slope = torch.zeros_like(words)
    for index in range(words.numel()):
        nudge = torch.zeros_like(words)
        nudge.view(-1)[index] = 1e-6
        up, down = (symmetric_kl(read(words + begin + s * nudge), read(words)) for s in (1, -1))
        slope.view(-1)[index] = (up - down) / 2e-6
    assert_same(found, slope / (slope.abs().amax(-1, keepdim=True) + 1e-6), 1e-5)


@pytest.mark.parametrize("factor", [0.1, 30.0])
def test_scale_invariance(factor):
    """The claim of the name: longer word vectors, the same loss."""
    model, x = made(), torch.randint(V, (B, N))
    logits, loss = sift_loss(model.classify, model.encoder.words(x), start=0.3, step=0.1, generator=draw())
    with torch.no_grad():
        model.encoder.words.weight.mul_(factor)
    again, same = sift_loss(model.classify, model.encoder.words(x), start=0.3, step=0.1, generator=draw())
    assert_same(again, logits, 1e-4)
    assert_same(same, loss, 1e-3)
    assert loss > 0.001
    with torch.no_grad():  # a change of words that are not normalised, for comparison
        words, noise = model.encoder.words(x), 0.03 * torch.randn(B, N, D)
        plain = symmetric_kl(model.classify(words + noise), model.classify(words))
        other = symmetric_kl(model.classify(words / factor + noise), model.classify(words / factor))
    assert max(plain / other, other / plain) > 3


def test_the_loss_by_hand_and_its_gradients():
    model, x = made(), torch.randint(V, (B, N))
    words = model.encoder.words(x)
    logits, loss = sift_loss(model.classify, words, start=0.2, step=0.05, generator=draw())
    change = worst_change(model.classify, normalised(words), start=0.2, step=0.05, generator=draw())
    assert_same(logits, model.classify(normalised(words)))
    wanted = symmetric_kl(model.classify(normalised(words) + change), model.classify(normalised(words)))
    assert_same(loss, wanted)
    parameters = [model.encoder.words.weight, model.classifier.weight, model.pooler.bias]
    slopes = [torch.autograd.grad(x, parameters, retain_graph=True) for x in (loss, wanted)]
    for mine, other in zip(*slopes, strict=True):
        assert_same(mine, other)  # through both texts
    constant = symmetric_kl(model.classify(normalised(words) + change), logits.detach())
    assert_differs(torch.autograd.grad(constant, parameters, retain_graph=True)[1], slopes[0][1], by=1e-5)
    loss.backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().max() > 0 or name == "encoder.layers.0.attention.k.bias", name


def test_no_gradient_is_left_behind_by_the_search():
    model, words = made(), normalised(torch.randn(B, N, D).double())
    worst_change(model.classify, words)
    assert all(parameter.grad is None for parameter in model.parameters())
    with torch.no_grad():
        worst_change(model.classify, words)


def test_errors():
    with pytest.raises(ValueError, match=r"need start=0 > 0 and step=0\.1 >= 0"):
        worst_change(lambda x: x, torch.zeros(1, 2, 3), start=0, step=0.1)
    with pytest.raises(ValueError, match=r"need start=0\.1 > 0 and step=-1 >= 0"):
        worst_change(lambda x: x, torch.zeros(1, 2, 3), start=0.1, step=-1)
