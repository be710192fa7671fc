"""Music and sound: what they are made of, and what they must cost."""

import math
from itertools import islice

import pytest
import torch

from papercode.data.signals import chord_entropy, chords, music, sound, sound_entropy


def test_the_second_half_is_the_first_again():
    piece = next(music(bars=6, beats=5, batch=7))
    assert piece.shape == (7, 30, 12)
    assert torch.equal(piece[:, :15], piece[:, 15:])
    bars = piece.unflatten(1, (6, 5))
    assert torch.equal(bars, bars[:, :, :1].expand_as(bars))  # a chord is held
    assert (piece.sum(-1) == 3).all()


def test_every_chord_is_drawn_about_as_often():
    table = chords(12, 3, 8)
    assert table.shape == (8, 12)
    assert len(set(map(tuple, table.tolist()))) == 8
    piece = next(music(batch=4000))[:, 0]
    counts = (piece[:, None] == table).all(-1).sum(0)
    assert counts.sum() == 4000
    assert (counts - 500).abs().max() < 100


def test_a_stream_is_that_of_its_seed():
    for make in (music, sound):
        one, same, other = (list(islice(make(seed=seed), 2)) for seed in (0, 0, 1))
        assert torch.equal(one[1], same[1])
        assert not torch.equal(one[0], one[1])
        assert not torch.equal(one[0], other[0])


def test_what_a_chord_costs():
    table = torch.tensor([[1.0, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]])
    assert chord_entropy(table, note_by_note=False) == pytest.approx(math.log(4))
    one = -(0.25 * math.log(0.25) + 0.75 * math.log(0.75))
    assert chord_entropy(table, note_by_note=True) == pytest.approx(4 * one)
    always = torch.tensor([[1.0, 0], [1.0, 0]])
    assert chord_entropy(always, note_by_note=True) == 0  # no NaN


def test_sound_is_sines_and_noise():
    quiet = next(sound(samples=400, tones=2, noise=1e-6, batch=5))
    assert quiet.shape == (5, 400)
    assert quiet.abs().max() <= 1 + 1e-4
    spectrum = torch.fft.rfft(quiet * torch.hann_window(400)).abs()
    inside = spectrum[:, 3:42].square().sum(1)  # periods of 10 to 100 samples, and a little more
    assert (inside / spectrum.square().sum(1) > 0.99).all()
    loud = next(sound(noise=0.3, batch=50)) - next(sound(noise=1e-9, batch=50))
    assert loud.std().item() == pytest.approx(0.3, rel=0.05)
    assert sound_entropy(0.3) == pytest.approx(torch.distributions.Normal(0.0, 0.3).entropy().item())


@pytest.mark.parametrize(
    ("make", "given", "message"),
    [
        (music, {"bars": 3}, "need an even number bars=3"),
        (music, {"bars": 0}, "need an even number bars=0"),
        (music, {"beats": 0}, "beats=0 and batch=32 of at least 1"),
        (music, {"n_chords": 221}, "n_chords=221 must be from 1 to 220"),
        (sound, {"samples": 0}, "need samples=0"),
        (sound, {"noise": 0.0}, r"noise=0\.0 > 0"),
    ],
)
def test_errors(make, given, message):
    with pytest.raises(ValueError, match=message):
        next(make(**given))
