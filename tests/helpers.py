"""What parity tests share: randomised parameters, and equality that a control proves able to fail."""

from collections.abc import Callable

import torch
from beartype import BeartypeConf, beartype
from torch import Tensor, nn

typechecked = beartype(conf=BeartypeConf(is_pep484_tower=True))  # an int is a float, as everywhere in Python


def randomise(module: nn.Module, seed: int = 0, std: float = 0.3) -> nn.Module:
    """Draws every parameter, biases and norm gains included, so that no swap hides behind a 0 or a 1; float64."""
    generator = torch.Generator().manual_seed(seed)
    module.double()
    with torch.no_grad():
        for parameter in module.parameters():
            mean = 1.0 if parameter.ndim == 1 else 0.0
            parameter.copy_(mean * 0.5 + std * torch.randn(parameter.shape, generator=generator, dtype=torch.float64))
    return module


def assert_same(ours: Tensor, reference: Tensor, tolerance: float = 1e-7) -> None:
    """Equality to `tolerance`, absolute and relative."""
    torch.testing.assert_close(ours, reference, rtol=tolerance, atol=tolerance)


def assert_differs(ours: Tensor, other: Tensor, by: float = 1e-3) -> None:
    """The control beside an equality: somewhere the two differ by more than `by`."""
    assert ours.shape == other.shape, f"{tuple(ours.shape)} against {tuple(other.shape)}: compare like with like"
    assert (ours - other).abs().max() > by


def leaks(function: Callable[[Tensor], Tensor], x: Tensor, changed: Tensor, where: Tensor) -> bool:
    """Whether changing the input from `x` to `changed` moves `function`'s output at the positions `where` (bool)."""
    return not torch.equal(function(x)[where], function(changed)[where])
