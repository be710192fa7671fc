r"""DeBERTaV3 [@he2023debertav3]: DeBERTa with distances in buckets, to be trained to find replaced words.

How it is trained, which is what the paper is about, is in `deberta_v3_pretraining`.

Imports: `DeBERTa`, its table of distances, its heads, and its attention with maps that words and distances share
[@he2021deberta]; `LayerNorm` for the table [@ba2016layer]; `attention` is what it does at the end
[@vaswani2017attention].

Symbols: b batch, h heads, n positions, r rows of the table, d width of a head, k buckets on one side, m where they
end (max_distance).

Differences from the paper:
    * The encoder is the one of the code that was released as version 2: distances are in buckets that widen like the
      logarithm, and the rows of their table are normalised. Neither is in this paper or in DeBERTa's.
    * Version 2's convolution beside the first layer, which its two large models have and no V3 model has, is left out.
"""

import math
from collections.abc import Callable

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from papercode.attention.layer_norm import LayerNorm
from papercode.attention.transformer import attention
from papercode.encoders.deberta import DeBERTa, DeBERTaForSentences
from papercode.encoders.deberta_attention import RelativeTable, clipped
from papercode.encoders.deberta_pretraining import DeBERTaForMaskedLM
from papercode.encoders.deberta_shared import SharedAttention


def log_buckets(distance: Int[Tensor, "*n"], k: int, max_distance: int) -> Int[Tensor, "*n"]:
    r"""Up to k / 2 a distance is its own bucket; beyond, equal ratios of distances share one, with its sign.

    $\lceil \log(|x| / c) / \log((m - 1) / c) \cdot (c - 1) \rceil + c$ with $c = \lfloor k / 2 \rfloor$, so that
    m - 1 falls into bucket k - 1 if k is even.

    Args:
        distance: i - j.
        k: Buckets on one side.
        max_distance: m, where the buckets end; what is farther goes on by the same formula.

    Raises:
        ValueError: If k is less than 2, or max_distance - 1 is not more than k / 2.
    """
    middle = k // 2
    if k < 2 or max_distance - 1 <= middle:
        raise ValueError(f"need k={k} >= 2 and max_distance={max_distance} > k // 2 + 1")
    far = distance.abs().clamp(min=middle)
    steps = (far.double() / middle).log() / math.log((max_distance - 1) / middle) * (middle - 1)
    return torch.where(distance.abs() <= middle, distance, distance.sign() * (steps.ceil().long() + middle))


class LogTable(RelativeTable):
    """A table of 2k buckets of distances, each row normalised.

    Args:
        k: Buckets on one side.
        max_distance: Where the buckets end; 0 for distances one by one, as in DeBERTa.
        d_model: Width of the vectors.
        eps: Of the norm; None for no norm.

    Raises:
        ValueError: If k is less than 1, or does not go with max_distance.
    """

    def __init__(self, k: int, max_distance: int, d_model: int, eps: float | None = 1e-7):
        super().__init__(k, d_model)
        self.max_distance = max_distance
        self.norm = None if eps is None else LayerNorm(d_model, eps)
        self.bucket(torch.zeros(1, dtype=torch.long, device="cpu"))

    def bucket(self, distance: Int[Tensor, "*n"]) -> Int[Tensor, "*n"]:
        """The row of a distance i - j."""
        if self.max_distance:
            distance = log_buckets(distance, self.k, self.max_distance)
        return clipped(distance, self.k)

    def table(self) -> Float[Tensor, "r d_model"]:
        """All rows, normalised."""
        rows = super().table()
        return rows if self.norm is None else self.norm(rows)


class DeBERTaV3(DeBERTa, layout="deberta_v3"):
    """The encoder; the defaults are the base model. mDeBERTa is this with n_tokens=251_000.

    Args:
        n_tokens: Size of the vocabulary.
        k: Buckets of distances on one side.
        max_distance: Where they end; 0 for distances one by one.
        d_model: Width of the residual stream.
        n_heads: Of each attention.
        d_ff: Width inside the feed-forward networks.
        n_layers: Their number.
        dropout: On embeddings, attention weights, the table of distances and sublayer outputs.
        eps: Of the norms.
        norm_table: Whether the rows of the table are normalised.
        make_attention: Called as make_attention(d_model, n_heads, dropout=, attend=), once a layer.
        attend: Given to every attention.
    """

    def __init__(
        self,
        n_tokens: int = 128_100,
        *,
        k: int = 256,
        max_distance: int = 512,
        d_model: int = 768,
        n_heads: int = 12,
        d_ff: int = 3072,
        n_layers: int = 12,
        dropout: float = 0.1,
        eps: float = 1e-7,
        norm_table: bool = True,
        make_attention: Callable[..., nn.Module] = SharedAttention,
        attend: Callable[..., Tensor] = attention,
    ):
        super().__init__(
            n_tokens, d_model=d_model, n_heads=n_heads, d_ff=d_ff, n_layers=n_layers, dropout=dropout, eps=eps,
            make_attention=make_attention, attend=attend,
            relative=LogTable(k, max_distance, d_model, eps if norm_table else None),
        )  # fmt: skip


class DeBERTaV3ForMaskedLM(DeBERTaForMaskedLM, layout="deberta_v3"):
    """Names hidden words: the generator, and version 2's pre-training.

    Args:
        encoder: Its last layer is the decoder's, too.
        n_positions: The longest text.
        passes: Of the decoder.
        add_states: Whether the decoder's first question is position and state.
    """

    def __init__(self, encoder: DeBERTaV3, n_positions: int = 512, passes: int = 2, add_states: bool = True):
        super().__init__(encoder, n_positions, passes, add_states)


class DeBERTaV3ForSentences(DeBERTaForSentences, layout="deberta_v3"):
    """A class for each text.

    Args:
        encoder: Usually pre-trained.
        n_classes: Number of classes.
        dropout: On what the classifier reads; the encoder's unless given.
    """

    def __init__(self, encoder: DeBERTaV3, n_classes: int = 2, dropout: float | None = None):
        super().__init__(encoder, n_classes, dropout)
