"""Toy dialogues and models for the tests of DialoGPT and CDial-GPT."""

import torch

from helpers import randomise
from papercode.decoders.gpt2 import GPT2

END = 0
SIZES = {"n_positions": 31, "d_model": 14, "n_heads": 2, "d_ff": 19, "n_layers": 2, "dropout": 0.0}


def dialogue(*lengths, low=1, high=23, seed=0):
    """Turns of so many tokens from low to high - 1."""
    draw = torch.Generator().manual_seed(seed + sum(lengths))
    return [torch.randint(low, high, (length,), generator=draw).tolist() for length in lengths]


def gpt2(seed=0, **sizes):
    return randomise(GPT2(23, **{**SIZES, **sizes}), seed).eval()
