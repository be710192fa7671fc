import pytest
import torch
from lora_toys import Model, ids
from torch import nn

from helpers import randomise
from papercode.adaptation.lora_model import inject
from papercode.adaptation.lora_report import freeze, report

EVERYTHING = sum(p.numel() for p in Model().parameters())


def model(**kwargs):
    m = Model()
    inject(m, ["q", "v"], **{"r": 2, "alpha": 4} | kwargs)
    return m


def test_injecting_freezes_nothing():
    told = report(model())
    assert told.frozen == 0
    assert told.trainable == EVERYTHING + sum(told.adapters.values())


def test_freeze_says_what_trains():
    m = model()
    told = freeze(m)
    # q 21 -> 21, v 21 -> 7: r (d_in + d_out) each
    assert told.adapters == {"blocks.0.q": 84, "blocks.0.v": 56, "blocks.1.q": 84, "blocks.1.v": 56}
    assert told.others == {}
    assert told.frozen == EVERYTHING
    assert told.trainable == 280
    assert report(m) == told
    assert str(told) == f"280 of {EVERYTHING + 280:,} parameters train (8.95%): 280 in 4 adapters, 0 elsewhere"


def test_a_head_may_be_kept():
    told = freeze(model(), keep=["head"])
    assert told.others == {"head.weight": 105, "head.bias": 5}
    assert told.trainable == 390
    with pytest.raises(ValueError, match="target 'classifier' matches no module"):
        freeze(model(), keep=["classifier"])


def test_freezing_again_changes_its_mind():
    m = model()
    freeze(m, keep=["head"])
    assert freeze(m).others == {}


def test_a_plain_model_has_a_report_too():
    told = report(Model().requires_grad_(False))
    assert (told.adapters, told.trainable, told.frozen) == ({}, 0, EVERYTHING)
    assert str(report(nn.Identity())) == "0 of 0 parameters train (0.00%): 0 in 0 adapters, 0 elsewhere"


def test_only_adapters_receive_gradients_and_move():
    m = randomise(model()).train()
    freeze(m)
    before = {name: p.detach().clone() for name, p in m.named_parameters()}
    optimiser = torch.optim.AdamW(m.parameters(), lr=1e-2)
    m(ids()).square().mean().backward()
    optimiser.step()
    inside = {name for name in before if name.endswith((".A", ".B"))}
    assert len(inside) == 8
    assert {name for name, p in m.named_parameters() if p.grad is not None} == inside
    assert {name for name, p in m.named_parameters() if not torch.equal(p, before[name])} == inside


def test_one_batch_is_overfitted_by_adapters_alone():
    m, tokens = model(r=4), ids()
    freeze(m)
    goal = torch.randint(5, (2, 7))
    optimiser = torch.optim.Adam([p for p in m.parameters() if p.requires_grad], lr=0.05)
    losses = []
    for _ in range(200):
        optimiser.zero_grad()
        loss = nn.functional.cross_entropy(m(tokens).flatten(0, 1), goal.flatten())
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert losses[-1] < 0.5 * losses[0]
