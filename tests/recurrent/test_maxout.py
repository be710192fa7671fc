"""Maxout: by hand, its gradient, its error."""

import pytest
import torch

from papercode.recurrent.maxout import maxout


def test_by_hand():
    x = torch.tensor([[3.0, -1.0, 0.0, 2.0, -5.0, -4.0]])
    assert maxout(x).tolist() == [[3.0, 2.0, -4.0]]
    assert maxout(x, 3).tolist() == [[3.0, 2.0]]
    assert maxout(x, 1).tolist() == x.tolist()


def test_the_gradient_goes_to_the_winner():
    x = torch.tensor([3.0, -1.0, 0.0, 2.0], requires_grad=True)
    maxout(x).sum().backward()
    assert x.grad.tolist() == [1.0, 0.0, 0.0, 1.0]


@pytest.mark.parametrize("pool", [0, 4])
def test_a_pool_that_does_not_fit(pool):
    with pytest.raises(ValueError, match=rf"pool={pool} must be at least 1 and divide the width 6"):
        maxout(torch.zeros(2, 6), pool)
