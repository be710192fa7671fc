"""Sampling against transformers' processors of logits, against known distributions, and at the edges."""

import pickle

import pytest
import torch
from transformers.generation.logits_process import (
    RepetitionPenaltyLogitsProcessor,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from helpers import assert_differs, assert_same
from papercode.decoding import greedy_search
from papercode.sampling import RepetitionPenalty, Temperature, TopK, TopP, sample

V, ROWS = 23, 5
TOKENS = torch.arange(ROWS * 7).view(ROWS, 7) % V


def logits():
    return 3 * torch.randn(ROWS, V, dtype=torch.float64)


PAIRS = [
    *((Temperature(t), TemperatureLogitsWarper(t)) for t in (0.1, 0.7, 1.0, 3.0)),
    *((TopK(k), TopKLogitsWarper(k)) for k in (1, 2, 7, V, V + 1, 10_000)),
    *((TopP(p), TopPLogitsWarper(p)) for p in (1e-9, 0.2, 0.5, 0.9, 0.999, 1.0)),
    *((RepetitionPenalty(t), RepetitionPenaltyLogitsProcessor(t)) for t in (0.5, 1.0, 1.2, 10.0)),
]


@pytest.mark.parametrize(("ours", "theirs"), PAIRS, ids=lambda x: str(x) if hasattr(x, "__dataclass_fields__") else "")
def test_equals_transformers(ours, theirs):
    x = logits()
    y, expected = ours(x.clone(), TOKENS), theirs(TOKENS, x.clone())
    assert torch.equal(y, expected)
    assert torch.equal(y.isinf(), expected.isinf())
    neutral = {Temperature(1.0), TopK(V), TopK(V + 1), TopK(10_000), TopP(1.0), RepetitionPenalty(1.0)}
    assert torch.equal(y, x) == (ours in neutral)


@pytest.mark.parametrize("k", [1, 2, 3])
def test_ties_with_the_last_of_the_best_stay(k):
    x = torch.tensor([[1.0, 2.0, 2.0, 3.0, 0.0], [4.0, 4.0, 4.0, 4.0, 4.0]])
    y = TopK(k)(x, TOKENS[:2])
    assert torch.equal(y, TopKLogitsWarper(k)(TOKENS[:2], x.clone()))
    assert y.isfinite().sum(-1).tolist() == [{1: 1, 2: 3, 3: 3}[k], 5]


def test_the_nucleus_by_hand():
    x = torch.tensor([[0.5, 0.3, 0.15, 0.05]]).double().log()[:, [2, 0, 3, 1]]
    kept = {p: TopP(p)(x, TOKENS[:1]).isfinite()[0].tolist() for p in (0.4, 0.49, 0.51, 0.79, 0.81, 0.96)}
    best = [False, True, False, False]
    assert kept == {
        0.4: best,
        0.49: best,
        0.51: [False, True, False, True],
        0.79: [False, True, False, True],
        0.81: [True, True, False, True],
        0.96: [True] * 4,
    }


def test_all_is_kept_at_p_1_also_what_is_nearly_impossible():
    x = torch.tensor([[0.0, -200.0, -1000.0]])
    assert torch.equal(TopP(1.0)(x, TOKENS[:1]), x)
    assert TopP(0.999999)(x, TOKENS[:1]).isfinite().tolist() == [[True, False, False]]


def test_one_token_is_always_kept():
    """In single precision 1 - 1e-9 is 1, and so is the sum of all probabilities."""
    x = logits().float()
    y = TopP(1e-9)(x, TOKENS)
    assert torch.equal(y, TopPLogitsWarper(1e-9)(TOKENS, x.clone()))
    assert torch.equal(y.isfinite(), torch.nn.functional.one_hot(x.argmax(-1), V).bool())


def test_a_penalty_makes_less_likely_whatever_the_sign():
    x, tokens = torch.tensor([[2.0, -2.0, 1.0, -1.0]]), torch.tensor([[0, 1, 1]])
    assert_same(RepetitionPenalty(2.0)(x, tokens), torch.tensor([[1.0, -4.0, 1.0, -1.0]]))
    assert torch.equal(x, torch.tensor([[2.0, -2.0, 1.0, -1.0]]))


def test_a_penalty_depends_on_where_the_logits_stand():
    x = logits()
    shifted = RepetitionPenalty(1.5)(x + 10, TOKENS)
    assert_differs(shifted.softmax(-1), RepetitionPenalty(1.5)(x, TOKENS).softmax(-1))
    assert_same(TopP(0.9)(x + 10, TOKENS).softmax(-1), TopP(0.9)(x, TOKENS).softmax(-1))


# drawing

P = torch.tensor([0.05, 0.15, 0.3, 0.5])


def fixed(tokens, parents):
    return P.log().expand(len(tokens), -1)


def frequencies(**settings):
    torch.manual_seed(0)
    drawn = sample(fixed, torch.zeros(40_000, 1, dtype=torch.long), end=9, max_new=1, **settings)[:, 1]
    return drawn.bincount(minlength=4) / len(drawn)


def test_tokens_are_drawn_as_often_as_their_probability():
    assert_same(frequencies(), P, 0.02)
    sharp = P**2 / (P**2).sum()
    assert_same(frequencies(filters=[Temperature(0.5)]), sharp, 0.02)
    assert_differs(sharp, P, 0.05)


def test_filters_apply_in_their_order():
    hot_first, nucleus_first = [Temperature(2.0), TopP(0.7)], [TopP(0.7), Temperature(2.0)]
    assert (frequencies(filters=hot_first) > 0).tolist() == [False, True, True, True]
    assert (frequencies(filters=nucleus_first) > 0).tolist() == [False, False, True, True]


def test_filters_see_the_tokens_so_far():
    y = sample(fixed, torch.tensor([[3], [2]]), end=9, max_new=3, filters=[RepetitionPenalty(1e9), TopK(1)])
    # log P is negative, so that a repeated token falls far behind: each is taken once, the best first
    assert y.tolist() == [[3, 2, 1, 0], [2, 3, 1, 0]]


def test_best_only_is_greedy_search():
    torch.manual_seed(1)
    table = torch.randn(7, 7)

    def step(tokens, parents):
        return table[tokens[:, -1]]

    prompt = torch.arange(7)[:, None]
    expected = greedy_search(step, prompt, end=0, max_new=9)
    assert torch.equal(sample(step, prompt, end=0, max_new=9, filters=[TopK(1)]), expected)
    assert torch.equal(sample(step, prompt, end=0, max_new=9, filters=[Temperature(1e-4)]), expected)
    assert not torch.equal(sample(step, prompt, end=0, max_new=9)[:, :3], expected[:, :3])


def test_a_row_that_ended_is_filled_and_all_stop_together():
    script = [[1, 0], [2, 1], [0, 1], [1, 1]]  # row 0 ends at its third token, row 1 at its first

    def step(tokens, parents):
        assert parents.tolist() == [0, 1]
        return torch.nn.functional.one_hot(torch.tensor(script[tokens.shape[1] - 1]), 3).float().log()

    assert sample(step, torch.tensor([[2], [2]]), end=0, max_new=4).tolist() == [[2, 1, 2, 0], [2, 0, 0, 0]]
    assert sample(step, torch.tensor([[2], [2]]), end=0, max_new=2).tolist() == [[2, 1, 2], [2, 0, 0]]


def test_a_generator_of_its_own_repeats():
    prompt = torch.zeros(3, 1, dtype=torch.long)

    def drawn(seed):
        return sample(fixed, prompt, end=9, max_new=20, generator=torch.Generator().manual_seed(seed))

    state = torch.get_rng_state()
    assert torch.equal(drawn(1), drawn(1))
    assert torch.equal(torch.get_rng_state(), state)
    assert not torch.equal(drawn(1), drawn(2))


def test_no_gradient_is_kept():
    weight = torch.zeros(4, requires_grad=True)
    seen = []

    def step(tokens, parents):
        seen.append((weight + 1).requires_grad)
        return (weight + P.log()).expand(len(tokens), -1)

    sample(step, torch.zeros(1, 1, dtype=torch.long), end=9, max_new=1)
    assert seen == [False]


def test_filters_pickle():
    for ours, _ in PAIRS:
        assert pickle.loads(pickle.dumps(ours)) == ours


def test_errors():
    prompt = torch.zeros(1, 1, dtype=torch.long)
    with pytest.raises(ValueError, match="max_new=0 must be at least 1"):
        sample(fixed, prompt, end=9, max_new=0)

    def nothing(logits, tokens):
        return torch.full_like(logits, -torch.inf)

    with pytest.raises(ValueError, match=r"filters=\[<.*nothing.*>\] leave a row nothing to draw"):
        sample(fixed, prompt, end=9, max_new=1, filters=[nothing])
    for make, message in (
        (lambda: Temperature(0.0), "value=0.0 must be above 0; greedy_search"),
        (lambda: Temperature(float("nan")), "value=nan must be above 0"),
        (lambda: TopK(0), "k=0 must be at least 1"),
        (lambda: TopP(0.0), "p=0.0 must be above 0 and at most 1"),
        (lambda: TopP(1.01), "p=1.01 must be above 0 and at most 1"),
        (lambda: RepetitionPenalty(0.0), "theta=0.0 must be above 0"),
    ):
        with pytest.raises(ValueError, match=message):
            make()
