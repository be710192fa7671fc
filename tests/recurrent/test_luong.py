"""Scores, windows and Gaussians with loops; what equals what: concat and additive, local and global."""

import math

import pytest
import torch
from by_hand import local_by_hand, scores_by_hand
from torch import nn

from helpers import assert_differs, assert_same, randomise
from papercode.recurrent.bahdanau import AdditiveScore, Memory
from papercode.recurrent.luong import ConcatScore, DotScore, GeneralScore, Global, LocalM, LocalP, LocationScore

B, M = 3, 7  # batch, source
D, E, A = 11, 13, 17  # state, keys, concat's hidden layer
LENGTHS = torch.tensor([M, 4, 1])
KEEP = torch.arange(M) < LENGTHS[:, None]


def memory_of(score, keys, keep=KEEP):
    return Memory(keys, score.project(keys), keep)


@pytest.fixture
def h():
    return torch.randn(B, D).double()


@pytest.fixture
def keys():
    return torch.randn(B, M, E).double()


def steps(t):
    return torch.full((B,), t)


# --- scores -----------------------------------------------------------------------------------------------------------


def test_by_hand():
    """h = (1, 2): with itself 5 and with (3, 0) 3; with W_a turning (x, y) into (y, x) 4 and 6."""
    h, keys = torch.tensor([[1.0, 2.0]]), torch.tensor([[[1.0, 2.0], [3.0, 0.0]]])
    assert DotScore()(h, keys).tolist() == [[5.0, 3.0]]
    general = GeneralScore(2, 2)
    with torch.no_grad():
        general.key.weight.copy_(torch.tensor([[0.0, 1.0], [1.0, 0.0]]))
    assert general(h, keys).tolist() == [[4.0, 6.0]]


@pytest.mark.parametrize("score", [GeneralScore(D, E), ConcatScore(D, E, A), LocationScore(D, M + 2)])
def test_scores(score, h, keys, parity):
    randomise(score)
    expected = torch.stack([scores_by_hand(score, *row) for row in zip(h, keys)])
    parity(type(score).__name__, "the equations, with loops", "float64", score(h, keys), expected)
    assert_same(score.compare(h, score.project(keys)), expected)
    assert_differs(score(h.flip(0), keys), expected)


def test_dot_score(keys, parity):
    query = torch.randn(B, E).double()
    expected = torch.stack([scores_by_hand(DotScore(), *row) for row in zip(query, keys)])
    parity("DotScore", "the equations, with loops", "float64", DotScore()(query, keys), expected)
    general = GeneralScore(E, E).double()
    nn.init.eye_(general.key.weight)  # dot is general with W_a = 1
    assert_same(general(query, keys), expected)


def test_the_dot_needs_one_width(h, keys):
    with pytest.raises(ValueError, match=f"query has width {D} and keys {E}: the dot needs one width"):
        DotScore()(h, keys)


def test_concat_is_the_additive_score(h, keys):
    """W_a [h; k] = W_1 h + W_2 k."""
    concat, additive = randomise(ConcatScore(D, E, A)), randomise(AdditiveScore(D, E, A, bias=False), seed=1)
    assert_differs(concat(h, keys), additive(h, keys))
    with torch.no_grad():
        concat.both.weight.copy_(torch.cat([additive.query.weight, additive.key.weight], 1))
        concat.v.weight.copy_(additive.v.weight)
    assert_same(concat(h, keys), additive(h, keys), 1e-12)


def test_location_does_not_look_at_the_words(h, keys):
    score = randomise(LocationScore(D, M))
    assert torch.equal(score(h, keys), score(h, torch.randn_like(keys)))


def test_words_after_the_last_position_are_ignored(h, keys):
    score = randomise(LocationScore(D, 3))
    context, weights = Global(score)(h, memory_of(score, keys), steps(0))
    expected = scores_by_hand(score, h[0], keys[0, :3]).softmax(0)
    assert_same(weights[0, :3], expected)
    assert not weights[:, 3:].any()
    assert_same(context[0], expected @ keys[0, :3])
    _, weights = LocalM(score, 1)(h, memory_of(score, keys), steps(5))  # a window without any that has a position
    assert_same(weights[0, 4:], torch.full((3,), 1 / 3).double())


# --- global and local -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("reach", [0, 1, 2, 10])
@pytest.mark.parametrize("t", [0, 2, 6, 9])
def test_local_m(h, keys, reach, t, parity):
    attend = randomise(LocalM(GeneralScore(D, E), reach))
    context, weights = attend(h, memory_of(attend.score, keys), steps(t))
    for row, n in enumerate(LENGTHS.tolist()):
        scores = scores_by_hand(attend.score, h[row], keys[row, :n])
        expected = local_by_hand(h[row], keys[row, :n], scores, t + 1, reach)
        ours = [weights[row, :n], context[row]]
        parity("local-m", "the equations, with loops", f"D={reach}, step {t + 1}, {n} words", ours, expected)
        assert not weights[row, n:].any()


@pytest.mark.parametrize("reach", [1, 2, 10])
@pytest.mark.parametrize("sigma", [None, 0.7, math.inf])
def test_local_p(h, keys, reach, sigma, parity):
    attend = randomise(LocalP(GeneralScore(D, E), D, reach, sigma=sigma), std=0.6)
    context, weights = attend(h, memory_of(attend.score, keys), steps(99))  # the step plays no part
    for row, n in enumerate(LENGTHS.tolist()):
        scores = scores_by_hand(attend.score, h[row], keys[row, :n])
        raw = attend.v.weight[0] @ torch.tanh(attend.hidden.weight @ h[row])
        centre = n / (1 + math.exp(-raw.item()))
        width = reach / 2 if sigma is None else sigma
        expected = local_by_hand(h[row], keys[row, :n], scores, centre, reach, width)
        name = f"D={reach}, sigma={'D/2' if sigma is None else sigma}, {n} words"
        parity("local-p", "the equations, with loops", name, [weights[row, :n], context[row]], expected)
        assert not weights[row, n:].any()


def pinned(score, d, reach, value, sigma=None):
    """A local-p whose v_p tanh(W_p h) is `value` for h with ones."""
    attend = LocalP(score, d, reach, sigma=sigma).double()
    with torch.no_grad():
        attend.hidden.weight.zero_()
        attend.hidden.weight[:, 0] = math.atanh(0.5)
        attend.v.weight.zero_()
        attend.v.weight[0, 0] = value / 0.5
    return attend


@pytest.mark.parametrize(
    ("p", "expected"),
    [
        (4.0, [2, 3, 4, 5, 6]),  # an integer: 2D + 1 places
        (4.3, [3, 4, 5, 6]),  # no integer: 2D
        (0.6, [1, 2]),
        (6.9, [5, 6, 7]),
    ],
)
def test_places_in_a_window(p, expected):
    attend = pinned(DotScore(), 1, 2, math.log(p / (M - p)))
    keys = torch.ones(1, M, 1).double()
    _, weights = attend(torch.ones(1, 1).double(), Memory(keys, keys, keys[..., 0] > 0), steps(0)[:1])
    assert (weights[0].nonzero()[:, 0] + 1).tolist() == expected


def test_the_gaussian_by_hand():
    """S = 4 and sigmoid 1/2 put p at 2. With sigma = 1 the weight falls by exp(-1/2) one place away, by exp(-2) two."""
    attend = pinned(DotScore(), 1, 2, 0.0)
    keys = torch.ones(1, 4, 1).double()
    h = torch.zeros(1, 1).double()
    _, weights = attend(h, Memory(keys, keys, keys[..., 0] > 0), steps(0)[:1])
    expected = [math.exp(-1 / 2) / 4, 1 / 4, math.exp(-1 / 2) / 4, math.exp(-2) / 4]
    assert_same(weights[0], torch.tensor(expected).double())


def test_local_equals_global_where_the_window_holds_all(h, keys):
    """local-p without its Gaussian: always, once D >= S. local-m: while t - D <= 1, so D >= S is not enough."""
    score = randomise(GeneralScore(D, E))
    memory = memory_of(score, keys)
    expected = Global(score)(h, memory, steps(0))
    attend = randomise(LocalP(score, D, M, sigma=math.inf))
    randomise(score)  # it is part of attend, and has just been drawn anew
    for ours, theirs in zip(attend(h, memory, steps(0)), expected):
        assert_same(ours, theirs, 1e-12)
    for t in range(2 * M):
        context, _ = LocalM(score, M)(h, memory, steps(t))
        if t <= M:
            assert_same(context, expected[0], 1e-12)
        else:
            assert_differs(context, expected[0])
    gaussian = LocalP(score, D, M).double()
    assert_differs(gaussian(h, memory, steps(0))[0], expected[0])


def test_a_window_past_the_end_is_empty(h, keys):
    attend = LocalM(GeneralScore(D, E), 2).double()
    keys.requires_grad_()
    context, weights = attend(h, memory_of(attend.score, keys), steps(M + 2))
    assert not context.any()
    assert not weights.any()
    context.sum().backward()
    assert not keys.grad.any()
    context, _ = attend(h, memory_of(attend.score, keys), steps(M + 1))
    assert context[0].any()  # the last word is just within reach


def test_only_the_gaussian_teaches_where_to_look(h, keys):
    for sigma, learns in ((None, True), (math.inf, False)):
        attend = randomise(LocalP(GeneralScore(D, E), D, 2, sigma=sigma))
        attend(h, memory_of(attend.score, keys), steps(0))[0].square().sum().backward()
        assert bool(attend.v.weight.grad.any()) is learns
        assert bool(attend.hidden.weight.grad.any()) is learns


def test_local_p_weights_sum_to_less_than_one(h, keys):
    attend = randomise(LocalP(GeneralScore(D, E), D, 3))
    _, weights = attend(h, memory_of(attend.score, keys), steps(0))
    assert (weights.sum(1) < 1).all()
    assert (weights.sum(1) > math.exp(-2) - 1e-9).all()  # the edge of the window stands at two sigma


def test_only_the_window_is_compared(h, keys, monkeypatch):
    compared = []
    attend = LocalM(GeneralScore(D, E), 2).double()
    compare = attend.score.compare
    monkeypatch.setattr(attend.score, "compare", lambda q, k: compared.append(k.shape[1]) or compare(q, k))
    attend(h, memory_of(attend.score, keys), steps(1))
    assert compared == [5]


def test_gradients_are_those_of_finite_differences():
    attend = randomise(LocalP(ConcatScore(2, 3, 5), 2, 2))
    keep = torch.tensor([[True] * 4 + [False]])

    def context(h, keys):
        return attend(h, memory_of(attend.score, keys, keep), torch.tensor([0]))[0]

    assert torch.autograd.gradcheck(
        context, (torch.randn(1, 2).double().requires_grad_(), torch.randn(1, 5, 3).double().requires_grad_())
    )


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: LocalM(DotScore(), -1), "reach=-1 must be at least 0"),
        (lambda: LocalP(DotScore(), D, 0), r"sigma=0.0 must be positive \(D / 2 with D = reach=0 unless given\)"),
        (lambda: LocalP(DotScore(), D, 3, sigma=-2.0), "sigma=-2.0 must be positive"),
    ],
)
def test_refuses(make, message):
    with pytest.raises(ValueError, match=message):
        make()
