"""A large batch in parts is a large batch: loss, gradients, and the weights after a step."""

import copy
import itertools
import weakref
from functools import partial

import pytest
import torch

from helpers import assert_differs, assert_same, randomise
from papercode.encoders.bert_data import mask_tokens
from papercode.encoders.bert_pretraining import IGNORED
from papercode.encoders.roberta import RoBERTa, RoBERTaForMaskedLM
from papercode.encoders.roberta_data import dynamic_masking, static_masking
from papercode.encoders.roberta_training import accumulate, adam, asked
from papercode.training import train

V, B, N = 23, 7, 11


def model():
    sizes = {"n_positions": 13, "d_model": 14, "n_heads": 7, "d_ff": 19, "n_layers": 2, "dropout": 0.0}
    return randomise(RoBERTaForMaskedLM(RoBERTa(V, **sizes, pooler=False)))


def batch():
    """Texts that ask for 1, 2, … words."""
    x = torch.randint(2, V, (B, N))
    wanted = torch.where(torch.arange(N) <= torch.arange(B)[:, None], torch.randint(V, (B, N)), IGNORED)
    return x, wanted


def gradients(of):
    return torch.cat([p.grad.flatten() for p in of.parameters() if p.grad is not None])


def test_parts_make_the_whole():
    whole, parts, (x, wanted) = model(), model(), batch()
    loss = whole.loss(x, wanted)
    loss.backward()
    cut = list(zip(x.split(2), wanted.split(2)))
    counts = [asked(targets) for _, targets in cut]
    assert counts == [3, 7, 11, 7]
    value = accumulate(parts.loss, cut, counts)
    assert_same(torch.tensor(value, dtype=torch.float64), loss.detach(), 1e-12)
    assert_same(gradients(parts), gradients(whole), 1e-12)
    # the mean of the parts' means is another loss: each part counts alike, however little it asks for
    wrong = model()
    accumulate(wrong.loss, cut, [1] * 4)
    assert_differs(gradients(wrong), gradients(whole))


def test_the_sum_by_hand():
    weight = torch.tensor([2.0], requires_grad=True)
    value = accumulate(lambda x: (weight * x).mean(), [(torch.tensor([1.0, 3.0]),), (torch.tensor([8.0]),)], [2, 1])
    assert value == pytest.approx(8.0)  # 2 · (1 + 3 + 8) / 3
    assert weight.grad.item() == pytest.approx(4.0)
    accumulate(lambda x: (weight * x).mean(), [(torch.tensor([5.0]),)], [1])
    assert weight.grad.item() == pytest.approx(9.0)  # it adds


def test_a_part_is_forgotten_before_the_next_begins():
    """The memory of one part: no graph is alive when the next part runs."""
    of, (x, wanted), alive, graphs = model(), batch(), [], []

    def loss(*part):
        alive.append([graph() is not None for graph in graphs])
        value = of.loss(*part)
        graphs.append(weakref.ref(value))
        return value

    cut = list(zip(x.split(2), wanted.split(2)))
    accumulate(loss, cut, [asked(targets) for _, targets in cut])
    assert alive == [[], [False], [False] * 2, [False] * 3]


def test_a_step_of_adam_is_the_same():
    whole, parts, (x, wanted) = model(), model(), batch()
    start = copy.deepcopy(whole)
    for one, loss in ((whole, None), (parts, parts.loss)):
        optimizer = adam(one, 1e-2)
        for _ in range(3):
            optimizer.zero_grad()
            if loss is None:
                one.loss(x, wanted).backward()
            else:
                cut = list(zip(x.split(3), wanted.split(3)))
                accumulate(loss, cut, [asked(targets) for _, targets in cut])
            optimizer.step()
    for first, second, before in zip(whole.parameters(), parts.parameters(), start.parameters()):
        assert_same(first, second, 1e-9)
        assert not torch.equal(first, before)


def test_nothing_asked():
    of, (x, wanted) = model(), batch()
    assert accumulate(of.loss, [(x, torch.full_like(wanted, IGNORED))], [0]) == 0


def test_adam_is_that_of_the_table():
    optimizer = adam(model())
    (group,) = optimizer.param_groups
    assert (group["lr"], group["betas"], group["eps"], group["weight_decay"]) == (6e-4, (0.9, 0.98), 1e-6, 0.01)
    assert adam(model(), 4e-4).param_groups[0]["lr"] == 4e-4


@pytest.mark.parametrize(("parts", "counts"), [([], []), ([(1,)], [1, 2])])
def test_parts_without_counts(parts, counts):
    with pytest.raises(ValueError, match=f"parts has length {len(parts)} and counts {len(counts)}"):
        accumulate(lambda x: x, parts, counts)


@pytest.mark.parametrize("masking", [static_masking, dynamic_masking])
def test_a_few_epochs_learn(masking):
    generator = torch.Generator().manual_seed(0)
    x = torch.randint(4, V, (1, 12), generator=generator).repeat(16, 1)
    sizes = {"n_positions": 12, "d_model": 24, "n_heads": 4, "d_ff": 48, "n_layers": 1, "dropout": 0.0}
    of = RoBERTaForMaskedLM(RoBERTa(V, **sizes, pooler=False))
    hide = partial(mask_tokens, mask=3, n_tokens=V, special=(), generator=generator)
    losses = train(of, of.loss, itertools.islice(masking(x, hide), 60), adam(of, 1e-2))
    assert losses[0] > 2.5
    assert sum(losses[-5:]) / 5 < 0.3
