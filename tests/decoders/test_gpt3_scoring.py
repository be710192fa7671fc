"""Options and their likelihoods, by hand and one token at a time."""

import copy
import math
from functools import partial

import pytest
import torch

from helpers import assert_differs, assert_same, randomise
from papercode.decoders.gpt3 import GPT3
from papercode.decoders.gpt3_scoring import by_prior, by_sum, by_token, evaluate, log_likelihoods

V = 13
CONTEXT, OPTIONS, PRIOR = [3, 1, 4], [[1, 5], [9], [2, 6, 5, 3]], [7, 8]


@pytest.fixture
def gpt():
    return randomise(GPT3(V, width=3, n_positions=11, d_model=14, n_heads=2, n_layers=3)).eval()


def spoken(tokens):
    """A model by hand: after token t, token t + 1 has probability 1/2, all others share the rest evenly."""
    logits = torch.full((*tokens.shape, V), 1 / 2 / (V - 1)).log()
    return logits.scatter(-1, ((tokens + 1) % V)[..., None], math.log(1 / 2))


def test_by_hand():
    rows = log_likelihoods(spoken, [4], [[5, 6], [5], [7]])
    rest = math.log(1 / 2 / (V - 1))
    assert [row.exp().tolist() for row in rows][:2] == [pytest.approx([0.5, 0.5]), pytest.approx([0.5])]
    assert rows[2].item() == pytest.approx(rest)
    assert by_sum(spoken, [4], [[5, 6], [5], [7]]).tolist() == pytest.approx([math.log(0.25), math.log(0.5), rest])
    assert by_token(spoken, [4], [[5, 6], [5], [7]]).tolist() == pytest.approx([math.log(0.5), math.log(0.5), rest])
    prior = by_prior(spoken, [4], [[5, 6], [5], [7]], answer_context=[6])
    assert prior.tolist() == pytest.approx([math.log(0.5) - rest, math.log(0.5) - rest, rest - math.log(0.5)])


def test_equals_one_token_at_a_time(gpt):
    found = log_likelihoods(gpt, CONTEXT, OPTIONS)
    assert [len(row) for row in found] == [2, 1, 4]
    for row, option in zip(found, OPTIONS):
        text = list(CONTEXT)
        for got, token in zip(row, option):
            expected = gpt(torch.tensor([text]))[0, -1].log_softmax(-1)[token]
            assert_same(got, expected.detach())
            text.append(token)
    assert not found[0].requires_grad


def test_options_do_not_disturb_one_another(gpt):
    for option, score in zip(OPTIONS, by_sum(gpt, CONTEXT, OPTIONS)):
        assert_same(by_sum(gpt, CONTEXT, [option])[0], score)


def test_probabilities_of_all_continuations_sum_to_one(gpt):
    pairs = [[a, b] for a in range(V) for b in range(V)]
    assert by_sum(gpt, CONTEXT, pairs).exp().sum().item() == pytest.approx(1)


def test_the_rules(gpt):
    rows = log_likelihoods(gpt, CONTEXT, OPTIONS)
    assert_same(by_sum(gpt, CONTEXT, OPTIONS), torch.stack([sum(row) for row in rows]))
    lengths = torch.tensor([2.0, 1.0, 4.0], dtype=torch.float64)
    assert_same(by_token(gpt, CONTEXT, OPTIONS), by_sum(gpt, CONTEXT, OPTIONS) / lengths)
    prior = by_prior(gpt, CONTEXT, OPTIONS, answer_context=PRIOR)
    assert_same(prior, by_sum(gpt, CONTEXT, OPTIONS) - by_sum(gpt, PRIOR, OPTIONS))
    assert_differs(prior, by_sum(gpt, CONTEXT, OPTIONS))
    assert_same(by_prior(gpt, CONTEXT, OPTIONS, answer_context=CONTEXT), torch.zeros(3, dtype=torch.float64))


def test_evaluate_by_hand():
    tasks = [([1], [[2], [3]], 0), ([1], [[3], [2]], 0), ([5], [[6, 7], [6], [4]], 1), ([5], [[1], [6]], 1)]
    assert evaluate(spoken, tasks) == 0.5  # the third is a tie by token: the first option wins
    assert evaluate(spoken, tasks, by_sum) == 0.75
    assert evaluate(spoken, tasks[:1], partial(by_prior, answer_context=[2])) == 1.0
    assert evaluate(spoken, iter(tasks)) == 0.5


def test_evaluating_changes_no_weight(gpt):
    before = copy.deepcopy(gpt.state_dict())
    evaluate(gpt, [(CONTEXT, OPTIONS, 1), (PRIOR, OPTIONS, 2)])
    assert all(torch.equal(value, before[name]) for name, value in gpt.state_dict().items())
    assert all(p.grad is None for p in gpt.parameters())


def test_refused():
    with pytest.raises(ValueError, match="context is empty"):
        by_sum(spoken, [], OPTIONS)
    with pytest.raises(ValueError, match=r"options=\[\[1\], \[\]\] must hold at least one token each"):
        by_sum(spoken, CONTEXT, [[1], []])
    with pytest.raises(ValueError, match=r"options=\[\] must hold"):
        by_sum(spoken, CONTEXT, [])
    for answer in (-1, 3):
        with pytest.raises(ValueError, match=f"answer={answer} is no index of 3 options"):
            evaluate(spoken, [(CONTEXT, OPTIONS, answer)])
    with pytest.raises(ValueError, match="there are no tasks"):
        evaluate(spoken, [])
