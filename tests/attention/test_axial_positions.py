"""Rows and columns: by hand, against transformers, and what they cost."""

import pytest
import torch
from transformers import ReformerConfig
from transformers.models.reformer.modeling_reformer import AxialPositionEmbeddings

from helpers import assert_same, randomise
from papercode.attention.axial_positions import AxialPositions


def test_by_hand():
    page = AxialPositions((2, 3), (1, 1))
    page.axes[0].data, page.axes[1].data = torch.tensor([[0.0], [10]]), torch.tensor([[1.0], [2], [3]])
    assert page(6).tolist() == [[0, 1], [0, 2], [0, 3], [10, 1], [10, 2], [10, 3]]
    assert page(2, start=3).tolist() == [[10, 1], [10, 2]]


def test_equals_transformers():
    shape, widths = (5, 7), (3, 11)
    ours = randomise(AxialPositions(shape, widths))
    config = ReformerConfig(axial_pos_shape=shape, axial_pos_embds_dim=widths, hidden_size=14, hidden_dropout_prob=0.0)
    theirs = AxialPositionEmbeddings(config).double()
    theirs.weights[0].data, theirs.weights[1].data = ours.axes[0].data[:, None], ours.axes[1].data[None]
    every = torch.arange(35)[None]
    assert_same(ours(35), theirs.train()(every)[0])
    assert_same(ours(9, start=13), theirs.eval()(every[:, 13:22])[0])
    assert not torch.equal(ours(35)[7], ours(35)[8])


def test_three_axes():
    ours = AxialPositions((2, 3, 5), (1, 2, 4))
    y = ours(30)
    for i in range(30):
        parts = ours.axes[0][i // 15], ours.axes[1][i // 5 % 3], ours.axes[2][i % 5]
        assert torch.equal(y[i], torch.cat(parts))


def test_parameters():
    with torch.device("meta"):
        page = AxialPositions((256, 256), (512, 512))
        assert page(65_536).shape == (65_536, 1024)
    assert sum(p.numel() for p in page.parameters()) == 2 * 256 * 512


def test_every_vector_gets_its_gradient():
    page = AxialPositions((2, 3), (1, 1))
    page(6).sum().backward()
    assert (page.axes[0].grad == 3).all()
    assert (page.axes[1].grad == 2).all()


def test_errors():
    for shape, widths in (((2, 3), (1,)), ((0, 3), (1, 1)), ((2, 3), (1, 0)), ((), ())):
        with pytest.raises(ValueError, match=r"shape=\(.*\) and widths=\(.*\) must be equally many, each at least 1"):
            AxialPositions(shape, widths)
    with pytest.raises(ValueError, match=r"positions 3 to 6 are not within the grid \(2, 3\)"):
        AxialPositions((2, 3), (1, 1))(4, start=3)
    with pytest.raises(ValueError, match="positions -1 to 0"):
        AxialPositions((2, 3), (1, 1))(2, start=-1)
