r"""The hash of LSH attention: vectors that point the same way share a bucket [@kitaev2020reformer, section 2].

Imports: nothing from an older paper's module. The hash itself is older than the paper and was made for cosines.

Symbols: b batch, h heads, m keys, d width in a head, r rounds, f buckets of one digit. The paper's $R$ = a rotation,
$l$ = length, $m$ = chunk.

Differences from the paper:
    * Many buckets are numbered by several small hashes, the digits of one number, as in the authors' code. One hash for
      all would cost as many products a position as there are pairs of buckets, and that grows with the length.
    * The columns of $R$ are independent Gaussians, as in the authors' code: nearly a rotation, when d is large.
"""

import math
from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor


def lsh_bucket(x: Float[Tensor, "b h m d"], rotations: Sequence[Float[Tensor, "h r d _"]]) -> Int[Tensor, "b h r m"]:
    r"""$\arg\max([xR; -xR])$: which of f/2 random axes, or of their opposites, lies nearest to x.

    The length of x does not matter. With several rotations the answers are the digits of one number, ones first.

    Args:
        x: The vectors.
        rotations: For each digit a random matrix a head and round, (h r d f/2) for f buckets.
    """
    bucket, place = torch.zeros((), dtype=torch.long, device=x.device), 1
    for rotation in rotations:
        turned = torch.einsum("bhmd,hrdf->bhrmf", x, rotation)
        bucket = bucket + place * torch.cat([turned, -turned], -1).argmax(-1)
        place *= 2 * rotation.shape[-1]
    return bucket


def bucket_factors(length: int, chunk: int, most: int = 128) -> tuple[int, ...]:
    r"""How many buckets, as factors: the power of two that covers $2l/m$, so that a chunk holds two average buckets.

    Args:
        length: l, of the sequence.
        chunk: m, of the pieces into which it is cut when it is sorted.
        most: More buckets than that are split into two factors of about the root, or three of the third root, ….

    Raises:
        ValueError: If length or chunk is less than 1, or most less than 2.
    """
    if length < 1 or chunk < 1 or most < 2:
        raise ValueError(f"length={length} and chunk={chunk} must be at least 1, most={most} at least 2")
    bits = max(1, math.ceil(math.log2(2 * length / chunk)))
    parts = math.ceil(bits / math.floor(math.log2(most)))
    return tuple(2 ** (bits // parts + (part < bits % parts)) for part in range(parts))


def random_rotations(
    heads: int, rounds: int, d: int, factors: Sequence[int], seed: int | None = None
) -> list[Float[Tensor, "h r d _"]]:
    """Gaussian matrices for `lsh_bucket`, drawn on the CPU, so that a seed means the same on every device.

    Args:
        heads: h.
        rounds: r.
        d: Width of the vectors.
        factors: Numbers of buckets, one a digit, each even.
        seed: None draws from torch's generator, which moves on.

    Raises:
        ValueError: If a factor is odd or less than 2.
    """
    if not factors or any(f < 2 or f % 2 for f in factors):
        raise ValueError(
            f"factors={tuple(factors)} must be even and at least 2: half the buckets are opposites of the others"
        )
    generator = None if seed is None else torch.Generator().manual_seed(seed)
    return [torch.randn(heads, rounds, d, f // 2, generator=generator, device="cpu") for f in factors]
