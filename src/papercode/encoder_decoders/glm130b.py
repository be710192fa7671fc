r"""GLM-130B [@zeng2023glm130b]: GLM at 130 billion parameters, with other norms, networks and positions.

Imports: `glm_mask` says who sees whom [@du2022glm]; `Rotary` turns queries and keys [@su2021roformer]; layers are the
Transformer's [@vaswani2017attention], `LayerNorm` [@ba2016layer].

Symbols: b batch, n positions, d width. The paper's $N$ = n_layers, its $\alpha$ of DeepNorm is `DeepNorm.alpha`, its
$\alpha$ of the shrunken gradient is `shrink`. DeepNorm is due to @wang2022deepnet, GeGLU to @shazeer2020glu.

Differences from the paper:
    * The rotated features are all those of a head; the paper does not say.
    * Weights it does not mention are drawn from N(0, 0.02²), biases are zero.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

from jaxtyping import Float, Int
from torch import Tensor, nn

from papercode.attention.layer_norm import LayerNorm
from papercode.attention.rope import Rotary
from papercode.attention.transformer import EncoderLayer, MultiHeadAttention, attention
from papercode.encoder_decoders.glm import glm_mask


class DeepNorm(nn.Module):
    r"""$\mathrm{LayerNorm}(\alpha x + \mathrm{Dropout}(\mathrm{Sublayer}(x)))$ (section 2.1).

    Args:
        norm: What normalises the sum.
        alpha: How much more the input counts than the sublayer.
        dropout: On the output of the sublayer.
    """

    def __init__(self, norm: nn.Module, alpha: float, dropout: float = 0.0):
        super().__init__()
        self.norm, self.alpha, self.dropout = norm, alpha, nn.Dropout(dropout)

    def forward(self, x: Float[Tensor, "b n d"], sublayer: Callable[[Tensor], Tensor]) -> Float[Tensor, "b n d"]:
        """Applies sublayer to x, adds alpha times x, normalises."""
        return self.norm(self.alpha * x + self.dropout(sublayer(x)))


class GeGLU(nn.Module):
    r"""$(\mathrm{GELU}(x W_1) \odot x V)\, W_2$: one projection decides how much of the other passes (section 2.1).

    Args:
        d_model: Width of the input and of the output.
        d_ff: Width between the maps. With 8/3 d_model, the three maps have as many weights as the usual two.
    """

    def __init__(self, d_model: int, d_ff: int):
        super().__init__()
        self.gate, self.expand = nn.Linear(d_model, d_ff), nn.Linear(d_model, d_ff)
        self.contract = nn.Linear(d_ff, d_model)

    def forward(self, x: Float[Tensor, "*b d"]) -> Float[Tensor, "*b d"]:
        """The same network at every position."""
        return self.contract(nn.functional.gelu(self.gate(x)) * self.expand(x))


def shrink(x: Tensor, alpha: float = 0.1) -> Tensor:
    """x itself, but its gradient is multiplied by alpha (section 3).

    Args:
        x: In the paper the embeddings, whose gradient is much larger than others early in training.
        alpha: 0.1 in the paper; 1 leaves the gradient as it is, 0 stops it.
    """
    return x * alpha + x.detach() * (1 - alpha)


class GLM130B(nn.Module):
    r"""The model; the defaults are the paper's (section 2 and its table of configurations).

    Args:
        n_tokens: Size of the vocabulary, filled up to a multiple of what the hardware likes.
        d_model: Width of the residual stream.
        n_heads: Of each attention.
        d_ff: Width inside the GeGLU.
        n_layers: Blocks.
        dropout: On attention weights and sublayer outputs.
        eps: Of the norms.
        shrinkage: alpha of `shrink`, for the embeddings.
        attend: What is done with the turned queries and keys.
    """

    def __init__(
        self,
        n_tokens: int = 150_528,
        *,
        d_model: int = 12_288,
        n_heads: int = 96,
        d_ff: int = 32_768,
        n_layers: int = 70,
        dropout: float = 0.0,
        eps: float = 1e-5,
        shrinkage: float = 0.1,
        attend: Callable[..., Tensor] = attention,
    ):
        super().__init__()
        self.shrinkage = shrinkage
        self.words = nn.Embedding(n_tokens, d_model)
        rotary = Rotary(attend)
        self.layers = nn.ModuleList(
            EncoderLayer(
                MultiHeadAttention(d_model, n_heads, dropout=dropout, attend=rotary),
                GeGLU(d_model, d_ff),
                lambda: DeepNorm(LayerNorm(d_model, eps), (2 * n_layers) ** 0.5, dropout),
            )
            for _ in range(n_layers)
        )
        if not self.words.weight.is_meta:
            self.apply(partial(_initialise, gain=(2 * n_layers) ** -0.5))

    def encode(
        self, tokens: Int[Tensor, "b n"], positions: Int[Tensor, "b n"], context: Int[Tensor, " b"] | int
    ) -> Float[Tensor, "b n d"]:
        """One vector a token; see [`GLM`][papercode.encoder_decoders.glm.GLM]."""
        x, mask = shrink(self.words(tokens), self.shrinkage), partial(glm_mask, context)
        for layer in self.layers:
            x = layer(x, mask=mask, positions=positions)
        return x

    def forward(
        self, tokens: Int[Tensor, "b n"], positions: Int[Tensor, "b n"], context: Int[Tensor, " b"] | int
    ) -> Float[Tensor, "b n n_tokens"]:
        """Logits of the token after each token of part B: the states times the table of words.

        Args:
            tokens: Part A, then part B.
            positions: One a token, not two: see the note.
            context: Length of part A, the same for all rows or one a row.
        """
        return nn.functional.linear(self.encode(tokens, positions, context), self.words.weight)


def _initialise(module: nn.Module, gain: float) -> None:
    """N(0, 0.02²); but Xavier normal times (2N)^(-1/2) in GeGLU, values and outputs of attention (section 2.1)."""
    if isinstance(module, nn.Linear):
        nn.init.zeros_(module.bias)
    if isinstance(module, nn.Linear | nn.Embedding):
        nn.init.normal_(module.weight, std=0.02)
    if isinstance(module, EncoderLayer):  # after its parts
        network: Any = module.feed_forward
        heads: Any = module.attention
        for linear in (network.gate, network.expand, network.contract, heads.v, heads.o):
            nn.init.xavier_normal_(linear.weight, gain=gain)
