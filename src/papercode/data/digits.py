"""Handwritten digits of 8 × 8 pixels, which come with scikit-learn: images small enough to learn in seconds."""

import torch
from jaxtyping import Float, Int
from torch import Tensor

N_TEST = 360
"""How many of the 1,797 images are kept for testing: a fifth."""


def digits(
    seed: int = 0,
) -> tuple[Float[Tensor, "n 1 8 8"], Int[Tensor, "n"], Float[Tensor, "t 1 8 8"], Int[Tensor, "t"]]:
    """Training images and labels, test images and labels, the same for the same seed.

    All pixels are shifted and scaled by two numbers, so that those of the training images have mean 0 and variance 1.

    Args:
        seed: Decides which images are in which part, and their order.

    Returns:
        1,437 images and their labels 0 … 9, then 360 and theirs.

    Raises:
        ImportError: If scikit-learn is not installed.
    """
    try:
        from sklearn.datasets import load_digits
    except ImportError as error:
        raise ImportError("digits() needs scikit-learn: pip install scikit-learn") from error
    pixels, labels = (torch.from_numpy(array) for array in load_digits(return_X_y=True))
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(seed))
    images, labels = pixels[order].float().view(-1, 1, 8, 8), labels[order].long()
    known = images[:-N_TEST]
    images = (images - known.mean()) / known.std(correction=0)
    return images[:-N_TEST], labels[:-N_TEST], images[-N_TEST:], labels[-N_TEST:]
