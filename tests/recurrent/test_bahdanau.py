"""The score with loops, padding, rows with nothing to see, gradients; a step of the decoder."""

import math

import pytest
import torch
from by_hand import additive_by_hand
from torch import nn

from helpers import assert_differs, assert_same, randomise
from papercode.recurrent.bahdanau import AdditiveScore, Score, SearchCell, masked_softmax, soft_select

B, M = 3, 5  # batch, keys
D, E, A = 13, 11, 17  # query, key, alignment
LENGTHS = torch.tensor([M, 2, 1])


# --- scores and the soft selection ------------------------------------------------------------------------------------


def test_by_hand():
    """tanh(ln 3 / 2) = 1/2; with v = 2 ln 3 the scores are ln 3 and 0, and so the weights 3/4 and 1/4."""
    score = AdditiveScore(1, 1, 1, bias=False).double()
    for weight, value in ((score.query, 1.0), (score.key, 2.0), (score.v, 2 * math.log(3))):
        nn.init.constant_(weight.weight, value)
    query, half = torch.tensor([[2.0]]).double(), math.log(3) / 2
    keys = torch.tensor([[[half / 2 - 1], [-1.0]]]).double()
    scores = score(query, keys)
    assert_same(scores, torch.tensor([[math.log(3), 0.0]]).double())
    context, weights = soft_select(scores, torch.tensor([[[8.0, 0.0], [0.0, 4.0]]]).double())
    assert_same(weights, torch.tensor([[0.75, 0.25]]).double())
    assert_same(context, torch.tensor([[6.0, 1.0]]).double())


@pytest.mark.parametrize("bias", [True, False])
def test_additive_score(parity, bias):
    score = randomise(AdditiveScore(D, E, A, bias=bias))
    query, keys = torch.randn(B, D).double(), torch.randn(B, M, E).double()
    expected = torch.stack([torch.stack([additive_by_hand(score, q, k) for k in row]) for q, row in zip(query, keys)])
    parity("Additive score", "the equations, with loops", f"bias={bias}", score(query, keys), expected)
    assert_same(score.compare(query, score.project(keys)), expected)
    assert_differs(score(query.flip(0), keys), expected)
    assert (score.key.bias is None) is not bias


def test_a_score_without_anything_to_precompute():
    class Dot(Score):
        def compare(self, query, projected):
            return (projected @ query[:, :, None]).squeeze(-1)

    query, keys = torch.randn(B, E), torch.randn(B, M, E)
    assert_same(Dot()(query, keys), torch.einsum("be,bme->bm", query, keys), 1e-5)
    with pytest.raises(NotImplementedError):
        Score()(query, keys)


def test_softmax_over_those_kept():
    scores = torch.randn(B, M).double()
    keep = torch.arange(M) < LENGTHS[:, None]
    weights = masked_softmax(scores, keep)
    for row, n in enumerate(LENGTHS.tolist()):
        expected = [scores[row, j].exp() / sum(scores[row, k].exp() for k in range(n)) for j in range(n)]
        assert_same(weights[row, :n], torch.stack(expected))
        assert (weights[row, n:] == 0).all()
    assert_same(masked_softmax(scores), scores.softmax(-1))
    assert_differs(masked_softmax(scores), weights)
    huge = scores.masked_fill(~keep, 1e300)  # whatever stands at padding, it does not count
    assert torch.equal(masked_softmax(huge, keep), weights)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_nothing_to_attend_to(dtype):
    scores = torch.randn(2, M, dtype=dtype, requires_grad=True)
    values = torch.randn(2, M, E, dtype=dtype, requires_grad=True)
    context, weights = soft_select(scores, values, torch.tensor([[True] * M, [False] * M]))
    assert (context[1] == 0).all()
    assert (weights[1] == 0).all()
    assert (context[0] != 0).any()
    context.square().sum().backward()
    for gradient in (scores.grad, values.grad):
        assert (gradient[1] == 0).all()
        assert (gradient[0] != 0).any()
        assert gradient.isfinite().all()


def test_scores_may_be_far_below_zero():
    scores = torch.tensor([[-1e6, -1e6 + math.log(3), 5.0]], dtype=torch.float64)
    weights = masked_softmax(scores, torch.tensor([[True, True, False]]))
    assert_same(weights, torch.tensor([[0.25, 0.75, 0.0]]).double(), 1e-6)


@pytest.mark.filterwarnings("ignore:Anomaly Detection")
def test_no_nan_on_the_way_either():
    scores = torch.randn(1, M, requires_grad=True)
    with torch.autograd.detect_anomaly():
        masked_softmax(scores, torch.zeros(1, M, dtype=torch.bool)).sum().backward()
    assert not scores.grad.any()


def test_gradients_are_those_of_finite_differences():
    score = randomise(AdditiveScore(2, 3, 5))
    keep = torch.tensor([[True, True, False]])

    def context(query, keys):
        return soft_select(score(query, keys), keys, keep)[0]

    query, keys = (torch.randn(shape).double().requires_grad_() for shape in ((1, 2), (1, 3, 3)))
    assert torch.autograd.gradcheck(context, (query, keys))


def test_the_context_is_an_expectation():
    """Of equal values it is that value; with equal scores the average; the order of the keys is of no importance."""
    scores, values = torch.randn(B, M).double(), torch.randn(B, M, E).double()
    context, _ = soft_select(scores, values)
    assert_same(soft_select(scores, values[:, :1].expand(B, M, E))[0], values[:, 0])
    assert_same(soft_select(torch.zeros(B, M).double(), values)[0], values.mean(1))
    order = torch.randperm(M)
    assert_same(soft_select(scores[:, order], values[:, order])[0], context)
    assert_differs(soft_select(scores, values[:, order])[0], context)


# --- the cell ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def cell():
    return randomise(SearchCell(7, D, E, AdditiveScore(D, E, A)))


def test_a_step_looks_with_the_state_before_it(cell):
    keep = torch.arange(M) < LENGTHS[:, None]
    s, keys, x = torch.randn(B, D).double(), torch.randn(B, M, E).double(), torch.randn(B, 7).double()
    state = cell(x, cell.begin(s, keys, keep))
    context, weights = soft_select(cell.score(s, keys), keys, keep)
    assert_same(state.context, context)
    assert_same(state.weights, weights)
    assert_same(state.s, cell.gru.step(cell.gru.project(x) + cell.context(context), s))
    assert_differs(state.weights, soft_select(cell.score(state.s, keys), keys, keep)[1])


def test_a_decoder_has_no_start_of_its_own(cell):
    with pytest.raises(TypeError, match=r"SearchCell needs a state: begin\(s, keys, keep\) makes the first"):
        cell(torch.randn(B, 7).double())


def test_begin_keeps_all_unless_told(cell):
    state = cell.begin(torch.randn(B, D).double(), torch.randn(B, M, E).double())
    assert state.memory.keep.all()
    assert state.memory.keep.shape == (B, M)
    assert state.context.shape == (B, E)
    assert not state.context.any()
    assert not state.weights.any()
    assert cell.width == D
