r"""GPT-3 [@brown2020language]: GPT-2 a hundred times larger, with every second attention cut down to a band.

Imports: `GPT2` is the architecture that section 2.1 takes over [@radford2019language]; `causal_mask`, and `Band`, a
mask known by two numbers, are the Transformer's [@vaswani2017attention].

Symbols: b batch, n positions, d width. The paper's $n_{layers}$, $d_{model}$, $n_{heads}$ and $n_{ctx}$ are n_layers,
d_model, n_heads and n_positions; its $d_{head}$ is d_model / n_heads.

Differences from the paper:
    * The width of the band is an argument: the paper gives none, and says not whether the first layer is dense. Here it
      is, and width=None makes all layers dense.
    * `SIZES` has 16 heads for 1.3B, not the 24 of Table 2.1 (24 heads of 128 are 3072 wide, and the model is 2048), and
      a width of 5120 for 13B, not 5140 (40 heads of 128). Table D.1 counts the parameters of these two.
    * On the meta device no initial weights are drawn.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from papercode.attention.arguments import Mask
from papercode.attention.masks import Band, as_band
from papercode.attention.transformer import attention, causal_mask
from papercode.decoders.gpt2 import GPT2, PreNorm

SIZES: dict[str, dict[str, int]] = {
    "Small": {"n_layers": 12, "d_model": 768, "n_heads": 12},
    "Medium": {"n_layers": 24, "d_model": 1024, "n_heads": 16},
    "Large": {"n_layers": 24, "d_model": 1536, "n_heads": 16},
    "XL": {"n_layers": 24, "d_model": 2048, "n_heads": 16},
    "2.7B": {"n_layers": 32, "d_model": 2560, "n_heads": 32},
    "6.7B": {"n_layers": 32, "d_model": 4096, "n_heads": 32},
    "13B": {"n_layers": 40, "d_model": 5120, "n_heads": 40},
    "175B": {"n_layers": 96, "d_model": 12288, "n_heads": 96},
}
"""Table 2.1, by the names it gives: `GPT3(**SIZES["6.7B"])`."""


class GPT3(GPT2):
    """The language model; the defaults are GPT-3 Small, dense. Layer 0, 2, 4 … is dense, 1, 3, 5 … is banded.

    Args:
        n_tokens: Size of the vocabulary.
        width: How many keys a query sees in a banded layer, its own included; None = all layers are dense.
        n_positions: The longest text.
        d_model: Width of the residual stream.
        n_heads: Of each attention.
        d_ff: Width inside the feed-forward networks; 4 d_model unless given.
        n_layers: Blocks.
        dropout: On embeddings, attention weights and sublayer outputs.
        eps: Of the norms.
        residual: Makes the module around a sublayer out of a norm and a rate of dropout.
        attend: Given to every attention; with [`auto`][papercode.attention.backends.auto], banded layers compute the
            band only.

    Raises:
        ValueError: If width is less than 1.
    """

    def __init__(
        self,
        n_tokens: int = 50_257,
        *,
        width: int | None = None,
        n_positions: int = 2048,
        d_model: int = 768,
        n_heads: int = 12,
        d_ff: int | None = None,
        n_layers: int = 12,
        dropout: float = 0.1,
        eps: float = 1e-5,
        residual: Callable[[nn.Module, float], nn.Module] = PreNorm,
        attend: Callable[..., Tensor] = attention,
    ):
        if width is not None and width < 1:
            raise ValueError(f"width={width} must be at least 1: a query sees its own position")
        with _NothingDrawnOnMeta():
            super().__init__(
                n_tokens,
                n_positions=n_positions,
                d_model=d_model,
                n_heads=n_heads,
                d_ff=d_ff,
                n_layers=n_layers,
                dropout=dropout,
                eps=eps,
                residual=residual,
                attend=attend,
            )
        self.width = width

    def encode(
        self, tokens: Int[Tensor, "b n"], mask: Mask = causal_mask, start: int | Int[Tensor, " b"] = 0
    ) -> Float[Tensor, "b n d"]:
        """One vector a token. Dense layers are given the mask, banded ones the part of it inside their band."""
        x = self.embed(tokens, start)
        masks = mask, mask if self.width is None else banded(mask, self.width)
        for i, layer in enumerate(self.layers):
            x = layer(x, mask=masks[i % 2])
        return self.norm(x)

    def to_transformers(self, folder: Any) -> None:
        """Writes the layout of GPT-2, which has no banded layers.

        Raises:
            ValueError: If this model has banded layers.
        """
        if self.width is not None:
            raise ValueError(f"width={self.width}: the layout of GPT-2 has no banded layers")
        super().to_transformers(folder)


def banded(mask: Mask, width: int) -> Mask:
    """What is left of a mask if each query sees only the last `width` keys up to its own, and none ahead.

    Args:
        mask: Any. If it is known to be a band (see [`as_band`][papercode.attention.masks.as_band]), so is the result,
            and a backend that knows bands computes nothing outside.
        width: Number of keys, at least 1.
    """
    band = as_band(mask)
    if band is not None:
        return Band(width - 1 if band.left is None else min(band.left, width - 1), 0, band.keep)
    return partial(_both, mask, Band(width - 1, 0))


def _both(mask: Mask, band: Band, n: int, m: int, device: torch.device) -> Bool[Tensor, "..."]:
    return (mask if isinstance(mask, Tensor) else mask(n, m, device)) & band(n, m, device)


def training_flops(n_parameters: int, n_tokens: int = 300_000_000_000) -> int:
    """Floating-point operations of a training run: 6 for each parameter and token (Table D.1).

    One product and one sum forward; twice that backward, for the gradients of the inputs and of the weights. Attention
    between positions is left out.
    """
    return 6 * n_parameters * n_tokens


class _NothingDrawnOnMeta(TorchFunctionMode):
    """Makes torch's initialisers leave tensors of the meta device alone: they have no values."""

    def __torch_function__(self, func: Any, types: Any, args: Sequence = (), kwargs: Any = None) -> Any:
        if getattr(func, "__module__", "") == "torch.nn.init":
            tensor = args[0] if args else kwargs["tensor"]
            if tensor.is_meta:
                return tensor
        return func(*args, **(kwargs or {}))
