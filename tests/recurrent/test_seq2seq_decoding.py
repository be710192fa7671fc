"""Several models as one, and the score that the paper ranks by."""

import pytest
import torch

from helpers import assert_differs, assert_same, randomise
from papercode.data.sequences import END, START
from papercode.decoding import beam_search, greedy_search, length_penalty
from papercode.recurrent.seq2seq import Seq2Seq
from papercode.recurrent.seq2seq_decoding import ensemble, unpenalised

S, T = 17, 13
SOURCE = torch.tensor([[5, 3, 9, 4, 11], [6, 8, 0, 0, 0], [7, 7, 10, 12, 0]])
PROMPT = torch.tensor([[START]] * 3)


def models(n):
    return [randomise(Seq2Seq(S, T, 7 + 2 * i, 2), i, std=1.0) for i in range(n)]


def test_an_ensemble_means_probabilities():
    members = models(3)
    tokens = torch.tensor([[START, 4], [START, 7], [START, 3]])
    rows = torch.arange(3)
    with torch.no_grad():
        step = ensemble([model.steps(SOURCE) for model in members])
        step(tokens[:, :1], rows)
        found = step(tokens, rows).softmax(-1)
        each = [model(SOURCE, tokens)[:, -1] for model in members]
    assert_same(found, sum(logits.softmax(-1) for logits in each) / 3)
    assert_differs(found, (sum(logits.log_softmax(-1) for logits in each) / 3).softmax(-1))  # a geometric mean
    assert_differs(found, (sum(each) / 3).softmax(-1))


def test_members_follow_the_hypotheses_of_a_beam():
    """In a beam the rows are reordered: the score that comes out is that of the sentence under the mean."""
    members = models(2)
    step = ensemble([model.steps(SOURCE) for model in members])
    found, scores = beam_search(step, PROMPT, end=END, max_new=4, beam=5, penalty=unpenalised)
    for i in range(3):
        for tokens, score in zip(found[i], scores[i]):
            words = tokens[1:].tolist()
            cut = words.index(END) + 1 if END in words else len(words)
            with torch.no_grad():
                each = [model(SOURCE[i : i + 1], tokens[None, :-1]).softmax(-1)[0] for model in members]
            log_p = (sum(each) / 2).log()
            assert_same(log_p[range(cut), words[:cut]].sum(), score)


def test_one_member_is_that_model():
    (model,) = models(1)
    alone = greedy_search(model.steps(SOURCE), PROMPT, end=END, max_new=6)
    assert torch.equal(greedy_search(ensemble([model.steps(SOURCE)]), PROMPT, end=END, max_new=6), alone)
    # twice the same is the same
    twice = ensemble([model.steps(SOURCE), model.steps(SOURCE)])
    assert torch.equal(greedy_search(twice, PROMPT, end=END, max_new=6), alone)


def test_no_members():
    with pytest.raises(ValueError, match="steps is empty"):
        ensemble([])


def test_the_score_knows_no_length():
    assert {unpenalised(length) for length in (1, 2, 50)} == {1.0}


def test_without_a_penalty_short_ones_win():
    """Two translations: the end at once with 0.3, or ten sure words after a first one of 0.25."""

    def step(tokens, parents):
        first = torch.tensor([0.3, 0.25, 0.45 / 7, *[0.45 / 7] * 6]).log()
        later = torch.full((9,), -20.0)
        later[1 if tokens.shape[1] <= 10 else 0] = 0
        return (first if tokens.shape[1] == 1 else later).expand(len(tokens), -1)

    def best(penalty):
        found, _ = beam_search(step, torch.tensor([[8]]), end=0, max_new=12, beam=2, penalty=penalty)
        return (found[0, 0] == 1).sum().item()

    assert best(unpenalised) == 0
    assert best(length_penalty) == 10
