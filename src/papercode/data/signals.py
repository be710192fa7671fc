"""Sequences of vectors whose least possible loss is known: polyphonic music as frames of notes, and raw sound."""

import math
from collections.abc import Iterator

import torch
from jaxtyping import Float
from torch import Tensor


def music(
    *,
    n_notes: int = 12,
    voices: int = 3,
    n_chords: int = 8,
    bars: int = 4,
    beats: int = 4,
    batch: int = 32,
    seed: int = 0,
) -> Iterator[Float[Tensor, "b n k"]]:
    """An endless stream of batches of short pieces, the same for the same seed.

    There are n_chords [`chords`][papercode.data.signals.chords]. Each bar of the first half draws one and holds it for
    its beats; the second half plays the bars of the first half again. So a model pays
    [`chord_entropy`][papercode.data.signals.chord_entropy] once for each bar of the first half, and nothing else if it
    counts beats and remembers.

    Args:
        n_notes: Width of a frame.
        voices: Notes that sound at a time.
        n_chords: How many chords there are.
        bars: An even number.
        beats: Frames in a bar.
        batch: Pieces in a batch.
        seed: Of the pieces.

    Yields:
        1 where a note sounds, else 0; n = bars · beats frames.

    Raises:
        ValueError: If bars is odd or less than 2, beats or batch less than 1, or there are not so many chords.
    """
    if bars < 2 or bars % 2 or min(beats, batch) < 1:
        raise ValueError(f"need an even number bars={bars}, and beats={beats} and batch={batch} of at least 1")
    table, draw = chords(n_notes, voices, n_chords), torch.Generator().manual_seed(seed)
    while True:
        half = torch.randint(n_chords, (batch, bars // 2), generator=draw)
        yield table[torch.cat([half, half], 1)].repeat_interleave(beats, 1)


def chords(n_notes: int = 12, voices: int = 3, n_chords: int = 8) -> Float[Tensor, "c k"]:
    """The chords of [`music`][papercode.data.signals.music]: always the same, no two alike; 1 where a note sounds.

    Raises:
        ValueError: If there are not so many chords.
    """
    if not 1 <= n_chords <= math.comb(n_notes, voices):
        raise ValueError(f"n_chords={n_chords} must be from 1 to {math.comb(n_notes, voices)}")
    every = torch.combinations(torch.arange(n_notes), voices)
    picks = torch.randperm(len(every), generator=torch.Generator().manual_seed(0))[:n_chords]
    return torch.zeros(n_chords, n_notes).scatter_(1, every[picks], 1.0)


def chord_entropy(chords: Float[Tensor, "c k"], *, note_by_note: bool) -> float:
    """What a new chord costs, in nats, if all are equally likely.

    Args:
        chords: See [`chords`][papercode.data.signals.chords].
        note_by_note: For a model that says of each note on its own whether it sounds: the sum of the notes' entropies.
            Otherwise that of the chord, the logarithm of their number.
    """
    if not note_by_note:
        return math.log(len(chords))
    p = chords.double().mean(0)
    return -(torch.xlogy(p, p) + torch.xlogy(1 - p, 1 - p)).sum().item()


def sound(
    *, samples: int = 500, tones: int = 3, noise: float = 0.05, batch: int = 32, seed: int = 0
) -> Iterator[Float[Tensor, "b samples"]]:
    """An endless stream of batches of sums of sines, each with its own frequencies and phases, and white noise.

    Who knows the tones is left with the noise: see [`sound_entropy`][papercode.data.signals.sound_entropy].

    Args:
        samples: Length.
        tones: Sines in a sum, of 10 to 100 samples a period and amplitude 1 / tones.
        noise: Its standard deviation.
        batch: Sounds in a batch.
        seed: Of all draws.

    Raises:
        ValueError: If samples, tones or batch is less than 1, or noise not positive.
    """
    if min(samples, tones, batch) < 1 or noise <= 0:
        raise ValueError(f"need samples={samples}, tones={tones}, batch={batch} of at least 1 and noise={noise} > 0")
    draw = torch.Generator().manual_seed(seed)
    time = torch.arange(samples)
    while True:
        period = 10 * 10 ** torch.rand(batch, tones, 1, generator=draw)
        phase = torch.rand(batch, tones, 1, generator=draw)
        waves = (2 * math.pi * (time / period + phase)).sin().mean(1)
        yield waves + noise * torch.randn(batch, samples, generator=draw)


def sound_entropy(noise: float = 0.05) -> float:
    """The least loss in nats a sample, that of the noise."""
    return 0.5 * math.log(2 * math.pi * math.e) + math.log(noise)
