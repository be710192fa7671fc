"""Paths by hand and by powers of the matrix; what BigBird's parts do to them."""

from functools import partial

import pytest
import torch

from papercode.attention.big_bird_graph import clustering, erdos_renyi, path_lengths
from papercode.attention.big_bird_pattern import BlockPattern, block_sparse_mask, random_blocks


def test_paths_by_hand():
    """0 sees 1, 1 sees 2, and 3 sees 0; nobody sees 3. What 2 knows reaches 3 in three layers."""
    sees = torch.zeros(4, 4, dtype=torch.bool)
    sees[[0, 1, 3], [1, 2, 0]] = True
    assert path_lengths(sees).tolist() == [[0, 1, 2, -1], [-1, 0, 1, -1], [-1, -1, 0, -1], [1, 2, 3, 0]]


def test_paths_are_the_first_power_of_the_matrix_that_is_not_zero():
    sees = erdos_renyi(23, 2, seed=3)
    lengths, power = path_lengths(sees), torch.eye(23)
    for step in range(24):
        assert torch.equal(power > 0, (lengths <= step) & (lengths >= 0))
        power = (power @ (sees | torch.eye(23, dtype=torch.bool)).float()).clamp(max=1)
    assert not torch.equal(lengths, lengths.T)


@pytest.mark.parametrize("n", [40, 97])
def test_one_global_token_brings_everybody_within_two(n):
    assert path_lengths(block_sparse_mask(BlockPattern(1, first=1, last=0, random=None), n, 1)[0]).max() == 2
    assert path_lengths(block_sparse_mask(BlockPattern(1, 1, 0, 0, extra=1, random=None), n, 1)[0]).max() == 2


@pytest.mark.parametrize(("n", "window"), [(40, 3), (97, 5), (98, 5)])
def test_a_window_alone_walks(n, window):
    """w / 2 positions a step: 2n / w steps in all."""
    sees = block_sparse_mask(BlockPattern(1, window, 0, 0, random=None), n, 1)[0]
    i = torch.arange(n)
    assert torch.equal(path_lengths(sees), -(-(i[:, None] - i).abs() // (window // 2)))


def test_random_blocks_shorten_the_walk():
    random = partial(random_blocks, n_random=1, first=0, last=0)
    sees = block_sparse_mask(BlockPattern(1, 3, 0, 0, random=random), 300, 1)[0]
    lengths = path_lengths(sees)
    assert lengths.min() == 0
    assert lengths.max() < 20


def test_erdos_renyi():
    sees = erdos_renyi(400, 7, seed=1)
    assert sees.diagonal().all()
    assert (sees.sum() - 400) / 400 == pytest.approx(7, abs=0.5)
    assert torch.equal(sees, erdos_renyi(400, 7, seed=1))
    assert not torch.equal(sees, erdos_renyi(400, 7, seed=2))
    assert torch.equal(erdos_renyi(5, 0), torch.eye(5, dtype=torch.bool))
    assert erdos_renyi(5, 5).all()
    edges = [erdos_renyi(2, 1, seed)[0, 1].item() for seed in range(100)]
    assert 30 < sum(edges) < 70  # the probability is degree / n, here one half
    for degree in (-1, 6):
        with pytest.raises(ValueError, match=f"degree={degree} must be at least 0 and at most n=5"):
            erdos_renyi(5, degree)


def test_clustering_by_hand():
    """A triangle with a tail: 1, 1, 1/3, and the tail's end has one neighbour only."""
    sees = torch.eye(4, dtype=torch.bool)
    sees[[0, 1, 2, 2], [1, 2, 0, 3]] = True
    assert clustering(sees).item() == pytest.approx((1 + 1 + 1 / 3) / 3)
    ring = sum(torch.eye(50).roll(step, 1) for step in (1, 2)) > 0
    assert clustering(ring).item() == pytest.approx(0.5)  # 3 (w - 2) / 4 (w - 1) with w = 4 neighbours
    assert clustering(erdos_renyi(400, 8)).item() < 0.1
