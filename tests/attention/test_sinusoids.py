"""Sinusoidal positions: by hand, by loops, and the rotation that makes relative positions linear."""

import math

import pytest
import torch

from helpers import assert_differs, assert_same
from papercode.attention.sinusoids import frequencies, positions

N, D = 11, 14


def test_by_hand():
    """d = 4 has the frequencies 1 and 1/100, so position 3 is sin 3, cos 3, sin 0.03, cos 0.03."""
    assert_same(positions(4, 4)[3], torch.tensor([math.sin(3), math.cos(3), math.sin(0.03), math.cos(0.03)]).double())
    assert positions(1, 4).tolist() == [[0, 1, 0, 1]]


def test_the_formula_of_section_3_5_in_loops():
    table = torch.empty(N, D, dtype=torch.float64)
    for pos in range(N):
        for i in range(D // 2):
            table[pos, 2 * i] = math.sin(pos / 10000 ** (2 * i / D))
            table[pos, 2 * i + 1] = math.cos(pos / 10000 ** (2 * i / D))
    assert_same(positions(N, D), table, 1e-12)


def test_wavelengths_go_from_two_pi_towards_ten_thousand_two_pi():
    wavelengths = 2 * math.pi / frequencies(512)
    assert_same(wavelengths[0], torch.tensor(2 * math.pi).double())
    assert_same(wavelengths[-1], torch.tensor(2 * math.pi * 10000 ** (510 / 512)).double())  # 2 pi 10000 is not reached


def test_k_steps_on_is_a_rotation_that_does_not_know_the_position():
    k, pe = 3, positions(N, D)
    cos, sin = (k * frequencies(D)).cos(), (k * frequencies(D)).sin()
    rotation = torch.zeros(D, D, dtype=torch.float64)
    for i in range(D // 2):
        block = torch.tensor([[cos[i], sin[i]], [-sin[i], cos[i]]])
        rotation[2 * i : 2 * i + 2, 2 * i : 2 * i + 2] = block
    assert_same(pe[:-k] @ rotation.T, pe[k:])
    assert_differs(pe[:-k] @ rotation, pe[k:])  # the other way round it goes back


def test_start_continues_where_the_table_left_off():
    assert torch.equal(positions(4, D, start=5), positions(N, D)[5:9])


def test_float64_is_needed_for_angles_of_late_positions():
    late = positions(1, 512, start=1_000_003)[0]
    angles = torch.tensor(1_000_003.0) * frequencies(512).float()
    assert_differs(torch.stack([angles.sin(), angles.cos()], -1).flatten().double(), late, by=1e-2)


def test_errors():
    with pytest.raises(ValueError, match="d=7 must be even"):
        positions(N, 7)
