"""The hash: by hand, by loops, by what must not matter, and by how often near vectors meet."""

import math

import pytest
import torch

from helpers import assert_same
from papercode.attention.lsh_hash import bucket_factors, lsh_bucket, random_rotations

F64 = torch.float64


def test_by_hand():
    """Axes x and y, so four buckets: east, north, west, south."""
    x = torch.tensor([[3.0, 1.0], [1.0, 3.0], [-3.0, 1.0], [1.0, -3.0]])[None, None]
    assert lsh_bucket(x, [torch.eye(2)[None, None]]).tolist() == [[[[0, 1, 2, 3]]]]


def test_equals_loops_over_the_definition():
    x = torch.randn(2, 3, 11, 5, dtype=F64)
    rotations = [r.double() for r in random_rotations(3, 4, 5, (6, 2, 4), seed=1)]
    bucket = lsh_bucket(x, rotations)
    assert bucket.shape == (2, 3, 4, 11)
    for b in range(2):
        for h in range(3):
            for r in range(4):
                for m in range(11):
                    digits = []
                    for R in rotations:
                        turned = (x[b, h, m] @ R[h, r]).tolist()
                        digits.append(max(range(2 * len(turned)), key=[*turned, *(-t for t in turned)].__getitem__))
                    assert bucket[b, h, r, m] == digits[0] + 6 * digits[1] + 12 * digits[2]
    assert bucket.max() < 48
    assert not torch.equal(bucket[:, :, 0], bucket[:, :, 1])  # each round has a rotation of its own
    assert not torch.equal(*lsh_bucket(x[:, :1].expand(2, 2, 11, 5), [R[:2] for R in rotations]).unbind(1))  # each head


def test_length_does_not_matter_and_the_opposite_goes_opposite():
    x, rotations = torch.randn(1, 1, 97, 7), random_rotations(1, 1, 7, (10,), seed=0)
    bucket = lsh_bucket(x, rotations)
    assert torch.equal(lsh_bucket(x * torch.rand(97, 1).exp(), rotations), bucket)
    assert torch.equal(lsh_bucket(-x, rotations), (bucket + 5) % 10)


def test_near_vectors_meet_more_often():
    """With one axis, two buckets: they part with probability angle / pi, exactly."""
    angles = torch.tensor([0.1, 0.5, 1.0, 2.0]) * math.pi / 2
    pair = torch.stack(
        [torch.stack([torch.ones(4), torch.zeros(4)], -1), torch.stack([angles.cos(), angles.sin()], -1)]
    )
    for buckets in (2, 16):
        bucket = lsh_bucket(pair.transpose(0, 1)[None], random_rotations(4, 20_000, 2, (buckets,), seed=0))
        meet = (bucket[0, :, :, 0] == bucket[0, :, :, 1]).double().mean(-1)
        assert (meet.diff() < 0).all()
        if buckets == 2:
            torch.testing.assert_close(meet, 1 - angles.double() / math.pi, atol=0.01, rtol=0)


@pytest.mark.parametrize(
    ("length", "chunk", "factors"),
    [
        (1024, 64, (32,)),
        (1000, 64, (32,)),
        (1025, 64, (64,)),
        (5, 64, (2,)),
        (65_536, 64, (64, 32)),
        (2**30, 64, (128, 64, 64, 64)),
    ],
)
def test_bucket_factors(length, chunk, factors):
    found = bucket_factors(length, chunk)
    assert found == factors
    product = math.prod(found)
    assert 2 * length / chunk <= product < max(4 * length / chunk, 3)
    assert max(found) <= 128
    assert all(f % 2 == 0 for f in found)


def test_a_smaller_limit_gives_more_factors():
    assert bucket_factors(65_536, 64, most=2048) == (2048,)
    assert bucket_factors(65_536, 64, most=16) == (16, 16, 8)


def test_seeds():
    first, again = random_rotations(2, 3, 5, (4, 6), seed=1), random_rotations(2, 3, 5, (4, 6), seed=1)
    assert [tuple(r.shape) for r in first] == [(2, 3, 5, 2), (2, 3, 5, 3)]
    assert all(torch.equal(a, b) for a, b in zip(first, again))
    assert not torch.equal(first[0], random_rotations(2, 3, 5, (4, 6), seed=2)[0])
    torch.manual_seed(0)
    fresh, other = random_rotations(2, 3, 5, (4,)), random_rotations(2, 3, 5, (4,))
    assert not torch.equal(fresh[0], other[0])
    torch.manual_seed(0)
    assert torch.equal(random_rotations(2, 3, 5, (4,))[0], fresh[0])
    wide = random_rotations(8, 8, 64, (64,), seed=0)[0]
    assert_same(wide.std(), torch.ones(()), 0.02)


def test_errors():
    for bad in ((3,), (0,), (4, 5), ()):
        with pytest.raises(ValueError, match=r"factors=\(.*\) must be even and at least 2"):
            random_rotations(1, 1, 2, bad)
    with pytest.raises(ValueError, match="length=0 and chunk=4 must be at least 1"):
        bucket_factors(0, 4)
    with pytest.raises(ValueError, match="most=1 at least 2"):
        bucket_factors(8, 4, most=1)
