"""BigBird's pattern: what is drawn, what is listed, and what the dense mask says, block by block."""

import itertools
from functools import partial

import pytest
import torch

from papercode.attention.big_bird_pattern import NONE, THREE, BlockPattern, block_sparse_mask, random_blocks

H = 5


def drawn(n_blocks=31, n_random=3, **kwargs):
    return random_blocks(n_blocks, H, n_random, **kwargs)


@pytest.mark.parametrize(
    ("window", "first", "last", "upto"), [(3, 1, 1, None), (5, 2, 0, None), (1, 0, 3, None), (3, 1, 1, 13)]
)
@pytest.mark.parametrize("n_blocks", [1, 2, 5, 7, 31])
def test_random_blocks_are_new_and_different(n_blocks, window, first, last, upto):
    blocks = drawn(n_blocks, window=window, first=first, last=last, upto=upto)
    assert blocks.shape == (H, n_blocks, 3)
    for h, row in itertools.product(range(H), range(n_blocks)):
        may = {
            j
            for j in range(first, min(n_blocks - last, n_blocks if upto is None else upto))
            if abs(j - row) > window // 2
        }
        found = [j for j in blocks[h, row].tolist() if j != NONE]
        assert set(found) <= may
        assert len(set(found)) == len(found) == min(3, len(may))


def test_every_block_is_drawn_as_often_as_every_other():
    blocks = random_blocks(9, 4000, 2, seed=1)
    for row, may in ((0, [2, 3, 4, 5, 6, 7]), (4, [1, 2, 6, 7]), (8, [1, 2, 3, 4, 5, 6])):
        counts = torch.bincount(blocks[:, row].flatten(), minlength=9)
        assert counts.nonzero().flatten().tolist() == may
        expected = 8000 / len(may)
        assert ((counts[may] - expected).abs() < 4 * expected**0.5).all()


def test_pairs_are_drawn_alike():
    """Not only single blocks: of 4 free ones there are 6 pairs."""
    pairs = random_blocks(9, 6000, 2, seed=2)[:, 4].sort(-1).values
    kinds, counts = pairs.unique(dim=0, return_counts=True)
    assert len(kinds) == 6
    assert ((counts - 1000).abs() < 4 * 1000**0.5).all()


def test_a_seed_is_a_draw():
    assert torch.equal(drawn(seed=1), drawn(seed=1))
    assert not torch.equal(drawn(seed=1), drawn(seed=2))
    assert not torch.equal(drawn()[0], drawn()[1])  # heads differ
    state = torch.get_rng_state()
    drawn()
    assert torch.equal(torch.get_rng_state(), state)


def test_drawing_takes_linear_memory():
    """A table of blocks times blocks would have 10^12 entries."""
    assert random_blocks(10**6, 1, 3).shape == (1, 10**6, 3)


def test_the_list_by_hand():
    def two(n_blocks, n_heads):
        return torch.tensor([[[3, 5], [4, 0], [5, 1], [1, 1], [NONE, 2], [2, 3]]])

    lists = BlockPattern(4, random=two).key_blocks(6, 1)
    X = NONE
    assert lists[0].tolist() == [
        [0, 5, X, X, 1, 3, X],
        [0, 5, X, 1, 2, 4, X],
        [0, 5, 1, 2, 3, X, X],
        [0, 5, 2, 3, 4, 1, X],
        [0, 5, 3, 4, X, X, 2],
        [0, 5, 4, X, X, 2, 3],
    ]
    assert BlockPattern(4).is_global(6).tolist() == [True] + [False] * 4 + [True]
    assert BlockPattern(4, first=0, last=2).is_global(4).tolist() == [False, False, True, True]


def test_a_wide_window_ends_where_the_sequence_ends():
    X = NONE
    lists = BlockPattern(4, window=7, first=0, last=0, random=None).key_blocks(4, 1)
    assert lists[0].tolist() == [
        [X, X, X, 0, 1, 2, 3],
        [X, X, 0, 1, 2, 3, X],
        [X, 0, 1, 2, 3, X, X],
        [0, 1, 2, 3, X, X, X],
    ]


def test_the_mask_by_definition():
    pattern = BlockPattern(
        3, window=3, first=2, last=1, extra=4, random=partial(random_blocks, n_random=2, seed=7, first=2)
    )
    n, n_blocks = 4 + 3 * 9 + 2, 10
    mask, picked = block_sparse_mask(pattern, n, H), pattern.random(n_blocks, H)
    for h, i, j in itertools.product(range(H), range(n), range(n)):
        row, column = (i - 4) // 3, (j - 4) // 3
        everything = i < 4 or j < 4 or {row, column} & {0, 1, 9}
        expected = everything or abs(row - column) <= 1 or column in picked[h, row]
        assert mask[h, i, j].item() is bool(expected)


def test_every_query_has_global_window_and_random_blocks():
    """A common mistake has some tokens attend globally, some randomly, and the rest in a window."""
    mask = block_sparse_mask(BlockPattern(1), 40, 2)
    for h, i in itertools.product(range(2), range(1, 39)):
        assert mask[h, i, [0, i - 1, i, i + 1, 39]].all()
        seen = {0, i - 1, i, i + 1, 39}
        assert mask[h, i].sum() == len(seen) + 3


def test_edges_grow_linearly():
    counts = [block_sparse_mask(BlockPattern(8), n, 1).sum().item() for n in (512, 1024, 2048)]
    assert counts[2] - counts[1] == 2 * (counts[1] - counts[0])


def test_blocks_of_a_length():
    assert [BlockPattern(4).n_blocks(n) for n in (0, 1, 4, 5)] == [0, 1, 1, 2]
    assert BlockPattern(4, extra=3).n_blocks(8) == 2
    assert THREE(20, 2).shape == (2, 20, 3)


def test_errors():
    for kwargs, said in [
        ({"block": 0}, "block=0 must be at least 1"),
        ({"window": 2}, "window=2 must be odd and at least 1"),
        ({"window": -1}, "window=-1 must be odd and at least 1"),
        ({"first": -1}, "first=-1 must be at least 0"),
        ({"last": -1}, "last=-1 must be at least 0"),
        ({"extra": -1}, "extra=-1 must be at least 0"),
    ]:
        with pytest.raises(ValueError, match=said):
            BlockPattern(**kwargs)
    with pytest.raises(ValueError, match="n=2 positions must be at least extra=3"):
        BlockPattern(4, extra=3).n_blocks(2)
    wrong = {
        r"shape \(2, 5, 1\), but the pattern needs \(n_heads=2, n_blocks=6, r\)": torch.zeros(2, 5, 1).long(),
        r"shape \(6, 1\), but": torch.zeros(6, 1).long(),
        "blocks from 0 to 6, but there are n_blocks=6": torch.tensor([0, 1, 2, 3, 4, 6])
        .view(1, 6, 1)
        .expand(2, -1, -1),
        "blocks from -2 to -2, but there are n_blocks=6": torch.full((2, 6, 1), -2),
    }
    for said, blocks in wrong.items():
        with pytest.raises(ValueError, match=said):
            BlockPattern(4, random=lambda n_blocks, n_heads, blocks=blocks: blocks).key_blocks(6, 2)
