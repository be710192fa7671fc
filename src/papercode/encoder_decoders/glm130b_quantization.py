r"""Weights of 8 or 4 bits, without training [@zeng2023glm130b].

Imports: nothing from an older paper's module.

Symbols: o outputs, i inputs of a linear map. One scale serves a row of the weight, all that goes into one output.

Differences from the paper:
    * The weight becomes floating-point again before each product, here as there; its kernel does both at once.
    * Weights can only be used, not trained.
"""

import torch
from jaxtyping import Float, Int8, UInt8
from torch import Tensor, nn


def absmax_quantize(weight: Float[Tensor, "o i"], bits: int = 8) -> tuple[Int8[Tensor, "o i"], Float[Tensor, "o 1"]]:
    r"""$q = \mathrm{round}(w / s)$ with $s = \max_j |w_j| / (2^{bits-1} - 1)$ for each row (section 4).

    The largest weight of a row becomes ±127 (or ±7), zero stays zero, and no weight moves by more than s / 2.

    Args:
        weight: Any weight.
        bits: 2 to 8.

    Returns:
        Whole numbers, as int8 whatever the bits, and the scales s.

    Raises:
        ValueError: If bits is not from 2 to 8.
    """
    if not 2 <= bits <= 8:
        raise ValueError(f"bits={bits} must be from 2 to 8")
    scale = weight.abs().amax(1, keepdim=True) / (2 ** (bits - 1) - 1)
    scale = torch.where(scale == 0, 1, scale)
    return (weight / scale).round().to(torch.int8), scale


def pack(numbers: Int8[Tensor, "o i"]) -> UInt8[Tensor, "o half"]:
    """Two numbers of 4 bits in a byte, the first in the upper half. Beyond -8 and 7, upper bits are lost.

    Raises:
        ValueError: If a row has an odd number of them.
    """
    if numbers.shape[1] % 2:
        raise ValueError(f"a row has {numbers.shape[1]} numbers, and two go into a byte")
    pairs = numbers.view(torch.uint8).unflatten(1, (-1, 2)) & 15
    return (pairs[..., 0] << 4) | pairs[..., 1]


def unpack(packed: UInt8[Tensor, "o half"]) -> Int8[Tensor, "o i"]:
    """The inverse of `pack`."""
    signed = packed.view(torch.int8)
    return torch.stack([signed >> 4, (signed << 4) >> 4], 2).flatten(1)


class QuantizedLinear(nn.Module):
    """A linear map whose weight is stored in 8 or 4 bits; inputs, outputs and bias stay as they are.

    Args:
        linear: What it replaces; it is not changed.
        bits: 8, or 4, of which two go into a byte.

    Raises:
        ValueError: If bits is neither 4 nor 8.
    """

    numbers: Tensor
    scale: Tensor
    bias: Tensor | None

    def __init__(self, linear: nn.Linear, bits: int = 8):
        super().__init__()
        if bits not in (4, 8):
            raise ValueError(f"bits={bits} must be 4 or 8")
        self.bits = bits
        numbers, scale = absmax_quantize(linear.weight.detach(), bits)
        self.register_buffer("numbers", pack(numbers) if bits == 4 else numbers)
        self.register_buffer("scale", scale)
        self.register_buffer("bias", None if linear.bias is None else linear.bias.detach().clone())

    @property
    def weight(self) -> Float[Tensor, "o i"]:
        """The weight as it is used."""
        numbers = unpack(self.numbers) if self.bits == 4 else self.numbers
        return numbers * self.scale

    def forward(self, x: Float[Tensor, "*b i"]) -> Float[Tensor, "*b o"]:
        """The product with the stored weight."""
        return nn.functional.linear(x, self.weight, self.bias)


def quantize(model: nn.Module, bits: int = 8) -> nn.Module:
    """Replaces every linear map inside a model, in place; embeddings, norms and biases stay as they are (section 4)."""
    for module in list(model.modules()):
        for name, child in list(module.named_children()):
            if isinstance(child, nn.Linear):
                setattr(module, name, QuantizedLinear(child, bits))
    return model


def stored_bytes(model: nn.Module) -> int:
    """Size of a model's parameters and buffers."""
    tensors = [*model.parameters(), *model.buffers()]
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)
