"""The score of a path, and the best one: loops, and every other path."""

from itertools import product

import pytest
import torch

from helpers import assert_same
from papercode.recurrent import crf_paths
from papercode.recurrent.crf_paths import Potentials, path_score, total, viterbi

B, N, K = 2, 5, 3
LENGTHS = torch.tensor([5, 3])


def double(*shape):
    return torch.randn(*shape, dtype=torch.float64)


@pytest.fixture(params=["shared", "by step"])
def potentials(request):
    return Potentials(
        double(B, N, K), double(K, K) if request.param == "shared" else double(B, N - 1, K, K), double(K), double(K)
    )


def by_loops(potentials, row, path):
    emissions, transitions, start, end = potentials
    score = start[path[0]] + end[path[-1]]
    for t, tag in enumerate(path):
        score = score + emissions[row, t, tag]
        if t:
            step = transitions if transitions.ndim == 2 else transitions[row, t - 1]
            score = score + step[path[t - 1], tag]
    return score


@pytest.mark.parametrize("lengths", [None, LENGTHS], ids=["full", "padding"])
def test_equals_the_equations(potentials, lengths, parity):
    rows = [N] * B if lengths is None else lengths.tolist()
    tags = torch.randint(K, (B, N))
    wanted = torch.stack([by_loops(potentials, i, tags[i, :n].tolist()) for i, n in enumerate(rows)])
    sums, bests, best_paths = [], [], []
    for i, n in enumerate(rows):
        paths = list(product(range(K), repeat=n))
        values = torch.stack([by_loops(potentials, i, path) for path in paths])
        sums.append(values.logsumexp(0))
        bests.append(values.max())
        best_paths.append(list(paths[values.argmax()]) + [0] * (N - n))
    paths, best = viterbi(potentials, lengths)
    kind = "shared by all steps" if potentials.transitions.ndim == 2 else "of each step"
    found = path_score(potentials, tags, lengths), total(potentials, lengths), best
    name = f"a path, all paths, the best path; transitions {kind}, {'full rows' if lengths is None else 'padding'}"
    parity("Potentials", "the equations, with loops", name, found, (wanted, torch.stack(sums), torch.stack(bests)))
    assert paths.tolist() == best_paths
    # a path by a word too long or too short has another score
    other = path_score(potentials, tags, torch.tensor([N - 1, 2]))
    assert ((other - found[0]).abs() > 1e-3).all()


def test_among_equal_paths_any_may_win():
    nothing = Potentials(torch.zeros(1, N, K), torch.zeros(K, K), torch.zeros(K), torch.zeros(K))
    path, score = viterbi(nothing)
    assert score.item() == 0
    assert path_score(nothing, path).item() == 0


def test_scores_of_a_path_are_summed_in_float64():
    emissions = torch.full((1, 1000, 2), 0.1)
    zeros = torch.zeros(2, 2), torch.zeros(2), torch.zeros(2)
    found = path_score(Potentials(emissions, *zeros), torch.zeros(1, 1000, dtype=torch.long))
    assert_same(found, 1000 * torch.tensor([0.1]).double(), 1e-12)


def test_a_shared_matrix_is_multiplied(monkeypatch):
    potentials = Potentials(double(B, N, K), double(K, K), double(K), double(K))
    expected = total(potentials)
    monkeypatch.setattr(crf_paths, "log_partition_by_logs", None)
    assert torch.equal(total(potentials), expected)


def test_one_step():
    potentials = Potentials(double(B, 1, K), double(B, 0, K, K), double(K), double(K))
    expected = potentials.emissions[:, 0] + potentials.start + potentials.end
    assert_same(viterbi(potentials)[1], expected.amax(1))
    assert_same(total(potentials), expected.logsumexp(1))
    assert_same(path_score(potentials, torch.ones(B, 1, dtype=torch.long)), expected[:, 1])
