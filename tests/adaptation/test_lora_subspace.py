import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from helpers import assert_differs, assert_same
from papercode.adaptation.lora_subspace import similarity_grid, subspace_similarity

R, S, D = 3, 5, 11


def pair(seed=0):
    generator = torch.Generator().manual_seed(seed)
    return (torch.randn(n, D, generator=generator, dtype=torch.float64) for n in (R, S))


def by_loops(A, B, i, j):
    """Eq. 4 from eigenvectors instead of singular vectors, one product after the other."""
    U = torch.linalg.eigh(A.mT @ A).eigenvectors.flip(1)[:, :i]
    V = torch.linalg.eigh(B.mT @ B).eigenvectors.flip(1)[:, :j]
    return sum((U[:, a] @ V[:, b]).item() ** 2 for a in range(i) for b in range(j)) / min(i, j)


def test_by_hand():
    A = torch.tensor([[2.0, 0, 0], [0, 1, 0]])  # directions e1, e2
    B = torch.tensor([[0.0, 3, 0], [0, 0, 1]])  # directions e2, e3
    assert similarity_grid(A, B).tolist() == [[0.0, 0.0], [1.0, 0.5]]
    assert subspace_similarity(A, B, 2, 1) == 1.0


def test_against_loops():
    A, B = pair()
    expected = torch.tensor([[by_loops(A, B, i, j) for j in range(1, S + 1)] for i in range(1, R + 1)])
    assert_same(similarity_grid(A, B), expected.double(), 1e-6)
    assert_differs(similarity_grid(A, B), expected.double().flip(0))
    assert subspace_similarity(A, B, 2, 4) == pytest.approx(by_loops(A, B, 2, 4))


@given(seed=st.integers(0, 99))
@settings(max_examples=25, deadline=None)
def test_what_a_similarity_must_do(seed):
    A, B = pair(seed)
    grid = similarity_grid(A, B)
    assert (grid >= 0).all()
    assert (grid <= 1 + 1e-12).all()
    assert_same(similarity_grid(B, A), grid.mT)
    assert_same(similarity_grid(7 * A, B), grid)
    assert_same(similarity_grid(A, A).diagonal(), torch.ones(R, dtype=torch.float64))
    rotation = torch.linalg.qr(torch.randn(D, D, dtype=torch.float64)).Q
    assert_same(similarity_grid(A @ rotation, B @ rotation), grid)
    assert_differs(similarity_grid(A @ rotation, B), grid)


def test_random_directions_overlap_by_chance_only():
    # each of the i j squares has mean 1 / d, and phi divides by min(i, j): max(i, j) / d on average
    grids = torch.stack([similarity_grid(torch.randn(4, 64), torch.randn(4, 64)) for _ in range(400)])
    expected = torch.maximum(torch.arange(1, 5)[:, None], torch.arange(1, 5)) / 64
    assert_same(grids.mean(0), expected, 0.01)


def test_appendix_g_means_p_minus_the_square_of_the_distance():
    A, B = pair()
    i, j, p = 3, 4, 3
    U, V = (torch.linalg.svd(m, full_matrices=False).Vh for m in (A, B))
    distance = (p - torch.linalg.svdvals(U[:i] @ V[:j].mT).square().sum()).sqrt()
    assert subspace_similarity(A, B, i, j) == pytest.approx(((p - distance**2) / p).item())
    assert subspace_similarity(A, B, i, j) != pytest.approx(((1 - distance**2) / p).item(), abs=0.1)


@pytest.mark.parametrize(
    ("i", "j", "message"),
    [(0, 1, r"i=0 must be at least 1"), (4, 1, r"i=4 .* at most min\(3, 11\)"), (1, 6, r"j=6 .* at most min\(5, 11\)")],
)
def test_errors(i, j, message):
    A, B = pair()
    with pytest.raises(ValueError, match=message):
        subspace_similarity(A, B, i, j)
