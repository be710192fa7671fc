"""Forward-backward on weights instead of logs: equal, and stable where exponentials are not."""

import math

import pytest
import torch

from helpers import assert_differs, assert_same
from papercode.recurrent import crf_function
from papercode.recurrent.crf_function import log_partition, log_partition_by_logs, mixing, padding, steps_between

B, N, K = 3, 11, 5
LENGTHS = torch.tensor([11, 1, 7])
BIO = torch.tensor([[1, 1, 0, 1, 0], [1, 1, 1, 1, 0], [1, 1, 1, 1, 0], [1, 1, 0, 1, 1], [1, 1, 0, 1, 1]]).bool()
FIRST = torch.tensor([1, 1, 0, 1, 0]).bool()


def double(*shape):
    return torch.randn(*shape, dtype=torch.float64)


def scores(scale=1.0, constrained=False, n=N):
    """Emissions, transitions, start, end."""
    emissions, transitions, start, end = (scale * double(*shape) for shape in [(B, n, K), (K, K), (K,), (K,)])
    if constrained:
        transitions, start = transitions.masked_fill(~BIO, -math.inf), start.masked_fill(~FIRST, -math.inf)
    return emissions, transitions, start, end


def with_gradients(function, inputs, lengths=None, weights=None):
    inputs = [x.clone().requires_grad_() for x in inputs]
    out = function(*inputs, lengths)
    weights = torch.linspace(0.5, 2, B, dtype=torch.float64) if weights is None else weights
    return [out, *torch.autograd.grad((out * weights).sum(), inputs)]


def divisions(monkeypatch):
    """How often weights are divided from now on."""
    calls, divide = [], crf_function._divide
    monkeypatch.setattr(crf_function, "_divide", lambda weights: calls.append(1) or divide(weights))
    return calls


@pytest.fixture(params=[None, LENGTHS], ids=["full", "padding"])
def lengths(request):
    return request.param


@pytest.mark.parametrize("constrained", [False, True], ids=["free", "BIO"])
@pytest.mark.parametrize("scale", [0.1, 3.0, 5.0])
def test_equals_the_logs_with_its_gradients(scale, constrained, lengths, parity):
    inputs = scores(scale, constrained)
    m = steps_between(inputs[0].transpose(0, 1), *inputs[1:])
    assert m >= 1
    ours, logs = (with_gradients(function, inputs, lengths) for function in (log_partition, log_partition_by_logs))
    name = (
        f"scores of size {scale:g}, {'BIO' if constrained else 'free'}, {'full rows' if lengths is None else 'padding'}"
    )
    parity("log_partition, on weights", "the same in logs", name, ours, logs)
    assert ours[0].dtype == torch.float64
    other = with_gradients(log_partition_by_logs, [inputs[0], inputs[1].mT, *inputs[2:]], lengths)
    assert any((a - b).abs().max() > 1e-3 for a, b in zip(ours, other))


@pytest.mark.parametrize("m", [1, 2, 3, 10, 11])
def test_it_does_not_matter_how_often_weights_are_divided(m, lengths, monkeypatch):
    inputs = scores()
    expected = with_gradients(log_partition_by_logs, inputs, lengths)
    monkeypatch.setattr(crf_function, "steps_between", lambda *_: m)
    calls = divisions(monkeypatch)
    for one, two in zip(with_gradients(log_partition, inputs, lengths), expected):
        assert_same(one, two)
    forwards, backwards = (N - 1) // m, len([t for t in range(N - 1) if t % m == 0])
    assert len(calls) == forwards + backwards


def test_a_long_sequence_neither_overflows_nor_vanishes(monkeypatch):
    calls = divisions(monkeypatch)
    for constrained in (False, True):
        inputs = scores(2.0, constrained, n=1000)
        lengths = torch.tensor([1000, 1, 613])
        ours, logs = (with_gradients(f, inputs, lengths) for f in (log_partition, log_partition_by_logs))
        for one, two in zip(ours, logs):
            assert_same(one, two)
        assert ours[0].abs().max() > 1000  # exp would be infinite
        assert (
            ours[1]
            .sum(-1)
            .allclose((torch.arange(1000) < lengths[:, None]) * torch.linspace(0.5, 2, B).double()[:, None])
        )
    assert 50 < len(calls) < 1000


@pytest.mark.parametrize("constrained", [False, True], ids=["free", "BIO"])
@pytest.mark.parametrize("scale", [100.0, 1e4])
def test_scores_too_large_for_weights_are_summed_in_logs(scale, constrained, lengths, monkeypatch):
    inputs = scores(scale, constrained)
    assert steps_between(inputs[0].transpose(0, 1), *inputs[1:]) < 1
    calls = divisions(monkeypatch)
    for one, two in zip(*(with_gradients(f, inputs, lengths) for f in (log_partition, log_partition_by_logs))):
        assert_same(one, two)
        assert one.isfinite().all()
    assert calls == []
    # what the weights would have made of it
    monkeypatch.setattr(crf_function, "steps_between", lambda *_: 1)
    if scale > 1000:
        assert not torch.allclose(log_partition(*inputs, lengths), log_partition_by_logs(*inputs, lengths), atol=1e-3)


def test_the_worst_within_the_budget():
    """A path of tags that are weakest everywhere, until the end makes it the only one that counts."""
    for n in (3, 20, 60):
        R = 250 / (n + 1)
        emissions = torch.zeros(1, n, 2, dtype=torch.float64)
        emissions[:, :-1, 1] = -R
        emissions[:, -1, 0] = -R
        transitions = torch.tensor([[0.0, -math.inf], [0.0, 0.0]]).double()  # who has left 1 does not come back
        start, end = torch.zeros(2).double(), torch.tensor([-R, 0.0]).double()
        inputs = [emissions, transitions, start, end]
        for one, two in zip(
            *(with_gradients(f, inputs, None, torch.ones(1)) for f in (log_partition, log_partition_by_logs))
        ):
            assert_same(one, two)


def test_steps_between():
    x, zeros = torch.zeros(N, B, K), (torch.zeros(K, K), torch.zeros(K), torch.zeros(K))
    assert steps_between(x, *zeros) == 2 * N - 1
    for place in range(4):  # each range counts: 300 / (99.5 + log 5) is a little less than 3
        inputs = [x.clone(), *(s.clone() for s in zeros)]
        inputs[place].view(-1)[1] = 99.5
        assert steps_between(*inputs) == 1
        inputs[place].view(-1)[1] = -99.5
        assert steps_between(*inputs) == 1
        inputs[place].view(-1)[1] = math.nan
        assert steps_between(*inputs) < 1
    x[4, 1] += 1000.0  # all tags of a step alike: no range
    assert steps_between(x, *zeros) == 2 * N - 1
    x[4, 1, 0] += 99.5
    assert steps_between(x, torch.zeros(K, K).masked_fill(~BIO, -math.inf), *zeros[1:]) == 0
    x[0, 0, 0] = -math.inf
    assert steps_between(x, *zeros) == 0


def test_mixing():
    assert mixing(torch.ones(K, K).bool(), 7) == 1
    assert mixing(BIO, 7) == 2
    assert mixing(torch.ones(3, 3).tril().bool(), 7) == 7  # there is no way back
    assert (
        mixing(torch.eye(3).roll(1, 0).bool(), 7) == 7
    )  # a circle: after each number of steps only one tag is reached
    ring = torch.eye(3).roll(1, 0).bool() | torch.eye(3).bool()
    assert mixing(ring, 7) == 2
    assert mixing(ring, 1) == 1


def test_gradcheck(lengths):
    assert torch.autograd.gradcheck(
        lambda *inputs: log_partition(*inputs, lengths), [x.requires_grad_() for x in scores(n=N)]
    )


def test_the_second_derivative(lengths):
    """The first one must not pass for a constant."""
    found = []
    for function in (log_partition, log_partition_by_logs):
        torch.manual_seed(0)
        inputs = [x.requires_grad_() for x in scores(constrained=True)]
        gradients = torch.autograd.grad(function(*inputs, lengths).sum(), inputs, create_graph=True)
        found.append(torch.autograd.grad(sum(gradient.square().sum() for gradient in gradients), inputs))
    for one, two in zip(*found):
        assert_same(one, two)
    assert all(x.abs().max() > 1e-3 for x in found[0])


def test_emissions_may_be_forbidden_too():
    """Which leaves the paths that say what is known of a sentence."""
    inputs = scores()
    emissions = inputs[0]
    emissions[:, 4, :3] = -math.inf
    found = with_gradients(log_partition, inputs)
    assert all(x.isfinite().all() for x in found)
    assert (found[1][:, 4, :3] == 0).all()
    emissions[:, 4, :3] = -700.0
    assert_same(found[0], log_partition(*inputs))


def test_transitions_by_step_equal_those_for_all():
    emissions, transitions, start, end = scores()
    steps = transitions.repeat(B, N - 1, 1, 1)
    expected = log_partition_by_logs(emissions, transitions, start, end, LENGTHS)
    assert_same(log_partition_by_logs(emissions, steps, start, end, LENGTHS), expected)
    changed = steps.clone()
    changed[2, 5] = changed[2, 5].mT.clone()  # into step 6, the last of row 2
    found = log_partition_by_logs(emissions, changed, start, end, LENGTHS)
    assert_same(found[:2], expected[:2])
    assert_differs(found[2:], expected[2:], 1e-4)
    changed = steps.clone()
    changed[2, 6] = changed[2, 6].mT.clone()  # beyond it
    assert_same(log_partition_by_logs(emissions, changed, start, end, LENGTHS), expected)


def test_padding():
    emissions = torch.zeros(B, N, K)
    assert padding(emissions, None) is None
    ended = padding(emissions, LENGTHS)
    assert ended.shape == (N, B, 1)
    assert (~ended).sum(0).flatten().tolist() == LENGTHS.tolist()
    for lengths in (torch.tensor([1, 2]), torch.tensor([1, 0, 2]), torch.tensor([1, 12, 2])):
        with pytest.raises(ValueError, match=r"lengths=\[1, .*\] must be 3 numbers from 1 to n=11"):
            padding(emissions, lengths)
