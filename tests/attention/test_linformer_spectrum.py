"""Spectra of matrices that are known, and the theorems' numbers."""

import math

import pytest
import torch

from helpers import assert_differs, assert_same
from papercode.attention.linformer_spectrum import (
    best_of_rank,
    promised_rank,
    randomly_projected,
    spectrum_of_attention,
)

F64 = torch.float64


def attention_weights(n, m, *heads):
    return torch.randn(*heads, n, m, dtype=F64).softmax(-1)


def test_spectra_by_hand():
    """Everybody looks at everybody alike: rank 1. Everybody looks at one other: all singular values are equal."""
    assert_same(spectrum_of_attention(torch.full((5, 5), 0.2, dtype=F64)), torch.ones(5, dtype=F64))
    permutation = torch.eye(5, dtype=F64)[torch.randperm(5)]
    assert_same(spectrum_of_attention(permutation), torch.arange(1, 6, dtype=F64) / 5)
    two = torch.diag(torch.tensor([3.0, 1.0], dtype=F64))
    assert_same(spectrum_of_attention(two), torch.tensor([0.75, 1.0], dtype=F64))


def test_every_head_by_itself():
    weights = attention_weights(7, 5, 2, 3)
    spectra = spectrum_of_attention(weights)
    assert spectra.shape == (2, 3, 5)
    assert_same(spectra[1, 2], spectrum_of_attention(weights[1, 2]))
    assert (spectra.diff(dim=-1) > 0).all()
    assert_same(spectra[..., -1], torch.ones(2, 3, dtype=F64))


def test_the_best_of_a_rank():
    weights = attention_weights(7, 5, 3)
    values = torch.linalg.svdvals(weights)
    for rank in range(1, 6):
        near = best_of_rank(weights, rank)
        assert torch.linalg.matrix_rank(near).tolist() == [rank] * 3
        assert_same((near - weights).norm(dim=(1, 2)).square(), values[:, rank:].square().sum(-1))  # Eckart and Young
    assert_same(best_of_rank(weights, 5), weights)
    assert_differs(best_of_rank(weights, 1), weights)


def test_a_random_projection_has_the_rank_and_is_right_on_average():
    weights = attention_weights(7, 7)
    generator = torch.Generator().manual_seed(1)
    many = [randomly_projected(weights, 3, generator) for _ in range(20_000)]
    assert torch.linalg.matrix_rank(many[0]).item() == 3
    assert_same(torch.stack(many).mean(0), weights, tolerance=0.02)
    again = randomly_projected(weights, 3, torch.Generator().manual_seed(1))
    assert torch.equal(many[0], again)
    assert_differs(many[1], again)


def test_the_lemma_bounds_by_the_lengths_of_both_vectors():
    """The bound is eps |x| |y|, and holds as often as promised. Eq. 12 has eps |x y|: orthogonal vectors refute it."""
    n, rank, eps = 300, 100, 0.5
    x, y = torch.eye(n, dtype=F64)[:2]
    misses = []
    for seed in range(200):
        projected = randomly_projected(x[None].expand(n, -1), rank, torch.Generator().manual_seed(seed))
        misses.append(abs((projected[0] @ y - x @ y).item()))
    assert x @ y == 0
    assert min(misses) > 0
    assert sum(miss > eps for miss in misses) / 200 <= 2 * math.exp(-(eps**2 - eps**3) * rank / 4)


def test_promised_ranks():
    assert promised_rank(512, 0.5) == pytest.approx(5 * math.log(512) / 0.125)
    assert promised_rank(512, 0.5, d=64) == pytest.approx(9 * 64 * math.log(64) / 0.25)
    assert promised_rank(2, 2 / 3) == pytest.approx(5 * math.log(2) * 27 / 4)


def test_errors():
    weights = attention_weights(7, 5)
    for function in (best_of_rank, randomly_projected):
        for rank in (0, 6):
            with pytest.raises(ValueError, match=f"rank={rank} must be at least 1 and at most 5"):
                function(weights, rank)
    for eps in (0, 1, -0.5, 2):
        with pytest.raises(ValueError, match=f"eps={eps} must lie between 0 and 1"):
            promised_rank(512, eps)
    with pytest.raises(ValueError, match="n=1 must be at least 2"):
        promised_rank(1, 0.5)
    with pytest.raises(ValueError, match="d=1 must be at least 2"):
        promised_rank(512, 0.5, d=1)
