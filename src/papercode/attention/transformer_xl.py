r"""Transformer-XL [@dai2019transformerxl]: a language model that remembers the segments it read before.

Imports: `EncoderLayer` is one attention and one network, each in a `PostNorm`; with a causal `Band` for a mask it is a
decoder's [@vaswani2017attention; @ba2016layer]. `RelativePositions` is section 3.3 of this paper, and
[`adaptive_softmax`][papercode.attention.adaptive_softmax] what it adopts for large vocabularies.

Symbols: b batch, n tokens of a segment, m of the memory, d width. The paper's $L$ = segment, $M$ = mem_len, $N$ =
n_layers, $h^{l}_\tau$ = input of layer l + 1 in segment $\tau$, $m^l$ = a state of the memory, SG = detach.

Differences from the paper:
    * Sizes are those of the released code; of the default model the paper gives layers and heads (appendix D).
    * Before the first segment the memory is empty. The paper does not say; its TensorFlow code starts with zeros.
    * Initial weights are N(0, 0.02²), as in the released code. The paper does not say.
    * Dropout is the Transformer's, and on the output: on sums and sublayers, neither inside the networks nor on R.
    * u and v are one pair for all layers, as in section 3.3; the released WikiText-103 model has one for each layer.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from papercode.attention.adaptive_softmax import AdaptiveEmbedding, AdaptiveSoftmax
from papercode.attention.layer_norm import LayerNorm
from papercode.attention.masks import Band
from papercode.attention.transformer import EncoderLayer, FeedForward, MultiHeadAttention, PostNorm, attention
from papercode.attention.transformer_xl_relative import RelativePositions


@dataclass(frozen=True, eq=False)
class Memory:
    """What the layers saw of the past: for each layer its last inputs, (b m d), without gradient.

    Args:
        states: One tensor for each layer.
        keep: False where a row has begun anew since, (b m); None = all may be seen.
    """

    states: tuple[Tensor, ...]
    keep: Tensor | None = None

    def __len__(self) -> int:
        """Number of positions, m."""
        return self.states[0].shape[1]

    def extended(self, inputs: Sequence[Float[Tensor, "b n d"]], mem_len: int) -> "Memory":
        """The last mem_len positions of the old states and the new inputs together, cut off from their gradients."""
        n = inputs[0].shape[1]

        def extend(old: Tensor, new: Tensor) -> Tensor:
            return torch.cat([_last(old, max(0, mem_len - n)), _last(new, mem_len)], 1).detach()

        states = tuple(extend(state, x) for state, x in zip(self.states, inputs, strict=True))
        if self.keep is None:
            return Memory(states)
        return Memory(states, extend(self.keep, self.keep.new_ones(len(self.keep), n)))

    def restarted(self, rows: Bool[Tensor, " b"]) -> "Memory":
        """The same, but the given rows have no past: another document begins there."""
        keep = torch.ones_like(self.states[0][..., 0], dtype=torch.bool) if self.keep is None else self.keep
        return Memory(self.states, keep & ~rows[:, None])


def _last(x: Tensor, count: int) -> Tensor:
    return x[:, max(0, x.shape[1] - count) :]


class TransformerXL(nn.Module):
    r"""A causal decoder that reads a text in segments and hands a memory from each to the next (section 3.2).

    In every layer the queries come from the segment alone, keys and values from the memory and the segment. There are
    no positions but the distances in the attention. The defaults are the WikiText-103 model of 151M parameters.

    Args:
        n_tokens: Size of the vocabulary.
        d_model: Width of the residual stream, even.
        n_heads: Heads; d_model is a multiple of it.
        d_ff: Width inside the feed-forward networks.
        n_layers: N.
        mem_len: M. It may be set at any time, and may be longer or shorter than a segment; 0 = no memory.
        reach: How far back a position sees; None = to the first state of the memory. May be set at any time. With a
            reach of at most mem_len all positions see equally far, wherever the segments are cut.
        dropout: On sublayer outputs, embeddings, and the output.
        tie_biases: Whether all layers share u and v.
        embedding: Of the tokens; one table unless given.
        softmax: Over them; that of the embedding, which it shares, unless given.
        attend: What is done with q + u, k, v and the scores of the distances.

    Raises:
        ValueError: If mem_len is negative, or a memory is of another batch or number of layers.
    """

    def __init__(
        self,
        n_tokens: int,
        *,
        d_model: int = 410,
        n_heads: int = 10,
        d_ff: int = 2100,
        n_layers: int = 16,
        mem_len: int = 150,
        reach: int | None = None,
        dropout: float = 0.1,
        tie_biases: bool = True,
        embedding: AdaptiveEmbedding | None = None,
        softmax: AdaptiveSoftmax | None = None,
        attend: Callable[..., Tensor] = attention,
    ):
        super().__init__()
        if mem_len < 0:
            raise ValueError(f"mem_len={mem_len} must be at least 0")
        self.mem_len, self.reach = mem_len, reach

        def layer(relative: RelativePositions) -> nn.Module:
            attention_layer = MultiHeadAttention(d_model, n_heads, bias=False, attend=relative)
            return EncoderLayer(attention_layer, FeedForward(d_model, d_ff), residual)

        def residual() -> nn.Module:
            return PostNorm(LayerNorm(d_model), dropout)

        d_k = d_model // n_heads
        relatives = [RelativePositions(d_model, n_heads, d_k, attend=attend) for _ in range(n_layers)]

        self.embedding = AdaptiveEmbedding(n_tokens, d_model) if embedding is None else embedding
        self.layers = nn.ModuleList(map(layer, relatives))
        self.softmax = AdaptiveSoftmax(self.embedding) if softmax is None else softmax
        self.dropout = nn.Dropout(dropout)
        for parameter in self.layers.parameters():
            if parameter.ndim > 1:
                nn.init.normal_(parameter, std=0.02)
        for part in (*self.embedding.parameters(), *self.softmax.projections.parameters()):
            nn.init.normal_(part, std=0.02)
        if tie_biases:
            for relative in relatives[1:]:
                relative.u, relative.v = relatives[0].u, relatives[0].v

    def hidden(self, tokens: Int[Tensor, "b n"], memory: Memory | None = None) -> tuple[Float[Tensor, "b n d"], Memory]:
        """What the last layer says of each token, and the memory with this segment in it."""
        x = self.dropout(self.embedding(tokens))
        if memory is None:
            memory = Memory(tuple(x[:, :0] for _ in self.layers))
        if len(memory.states) != len(self.layers) or memory.states[0].shape[0] != len(tokens):
            has = f"{len(memory.states)} layers and batch {memory.states[0].shape[0]}"
            raise ValueError(f"memory has {has}, but the model has {len(self.layers)} and tokens {len(tokens)}")
        keep = memory.keep
        if keep is not None:
            keep = torch.cat([keep, keep.new_ones(tokens.shape)], 1)
        mask, inputs = Band(self.reach, 0, keep), []
        for layer, state in zip(self.layers, memory.states):
            inputs.append(x)
            x = layer(x, memory=torch.cat([state, x], 1), mask=mask)
        return self.dropout(x), memory.extended(inputs, self.mem_len)

    def forward(
        self, tokens: Int[Tensor, "b n"], memory: Memory | None = None
    ) -> tuple[Float[Tensor, "b n v"], Memory]:
        """Log-probabilities of the token after each, and the memory for the next segment."""
        x, memory = self.hidden(tokens, memory)
        return self.softmax(x), memory

    def loss(
        self, tokens: Int[Tensor, "b n"], targets: Int[Tensor, "b n"], memory: Memory | None = None
    ) -> tuple[Float[Tensor, "b n"], Memory]:
        """Minus the log-probability of each target, in nats, and the memory for the next segment."""
        x, memory = self.hidden(tokens, memory)
        return self.softmax.loss(x, targets), memory


def in_segments(
    model: TransformerXL, tokens: Int[Tensor, "b n"], segment: int, memory: Memory | None = None
) -> tuple[Float[Tensor, "b n v"], Memory | None]:
    """What the model says of a long text that it reads `segment` tokens at a time, each with the memory of the last."""
    parts = []
    for piece in tokens.split(segment, 1):
        part, memory = model(piece, memory)
        parts.append(part)
    return torch.cat(parts, 1), memory


def longest_dependency(n_layers: int, segment: int, mem_len: int) -> int:
    r"""How many tokens before its segment can change what a position says: $(N-1) \lceil M/L \rceil L + M$.

    Each layer sees M positions before the start of the segment. The farthest of them belongs to a segment that starts
    earlier still, unless M is a multiple of L; and from that start the layer below sees M positions back.
    """
    return (n_layers - 1) * -(-mem_len // segment) * segment + mem_len
