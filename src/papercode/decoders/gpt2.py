r"""GPT-2 [@radford2019language]: GPT with the norms moved, more of everything, and no fine-tuning.

Imports: `GPT` is the model before [@radford2018improving]; `LayerNorm` [@ba2016layer]; the causal mask
[@vaswani2017attention].

Symbols: b batch, n positions, d width. The paper's N (number of residual layers) = 2 n_layers.

Differences from the paper:
    * None in the mathematics. The activation and the initial weights that section 2.3 does not mention are GPT's.
"""

from collections.abc import Callable

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from papercode.attention.arguments import Mask
from papercode.attention.layer_norm import LayerNorm
from papercode.attention.transformer import attention, causal_mask
from papercode.decoders.gpt import GPT


class PreNorm(nn.Module):
    """x + Dropout(Sublayer(LayerNorm(x))): the norm comes first, and nothing stands on the residual path (section 2.3).

    Args:
        norm: What normalises the input of the sublayer.
        dropout: On the output of the sublayer, before it is added.
    """

    def __init__(self, norm: nn.Module, dropout: float = 0.0):
        super().__init__()
        self.norm, self.dropout = norm, nn.Dropout(dropout)

    def forward(self, x: Float[Tensor, "b n d"], sublayer: Callable[[Tensor], Tensor]) -> Float[Tensor, "b n d"]:
        """Applies sublayer to the normalised x and returns to the residual stream."""
        return x + self.dropout(sublayer(self.norm(x)))


class GPT2(GPT, layout="gpt2"):
    """The language model; the defaults are the smallest of Table 2.

    Args:
        n_tokens: Size of the vocabulary.
        n_positions: The longest text.
        d_model: Width of the residual stream.
        n_heads: Of each attention.
        d_ff: Width inside the feed-forward networks; 4 d_model unless given.
        n_layers: Blocks.
        dropout: On embeddings, attention weights and sublayer outputs.
        eps: Of the norms.
        residual: Makes the module around a sublayer out of a norm and a rate of dropout.
        attend: Given to every attention.
    """

    def __init__(
        self,
        n_tokens: int = 50_257,
        *,
        n_positions: int = 1024,
        d_model: int = 768,
        n_heads: int = 12,
        d_ff: int | None = None,
        n_layers: int = 12,
        dropout: float = 0.1,
        eps: float = 1e-5,
        residual: Callable[[nn.Module, float], nn.Module] = PreNorm,
        attend: Callable[..., Tensor] = attention,
    ):
        super().__init__(
            n_tokens,
            n_positions=n_positions,
            d_model=d_model,
            n_heads=n_heads,
            d_ff=4 * d_model if d_ff is None else d_ff,
            n_layers=n_layers,
            dropout=dropout,
            eps=eps,
            residual=residual,
            attend=attend,
        )
        self.norm = LayerNorm(d_model, eps)
        with torch.no_grad():  # as many summands as residual layers: their variances add up
            for name, weight in self.named_parameters():
                if name.endswith(("attention.o.weight", "contract.weight")):
                    weight.mul_((2 * n_layers) ** -0.5)

    def encode(
        self, tokens: Int[Tensor, "b n"], mask: Mask = causal_mask, start: int | Int[Tensor, " b"] = 0
    ) -> Float[Tensor, "b n d"]:
        """One vector a token, each aware of those before it, normalised once more (section 2.3)."""
        return self.norm(super().encode(tokens, mask, start))
