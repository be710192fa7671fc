r"""The Longformer [@beltagy2020longformer]: a window for every token, the whole text for a few, and no n × n matrix.

Imports: `windowed_log_sum` is the sliding window (same paper). `MultiHeadAttention` has the four projections,
`attention` serves the global queries, `EncoderLayer`, `FeedForward` and `PostNorm` are the layer around it, `Band` says
what a window sees [@vaswani2017attention]; `LayerNorm` is the norm [@ba2016layer].

Symbols: b batch, n positions, h heads, d width, c width in a head, G the largest number of global tokens in a row of
the batch. The paper's $w$ = window, $Q_s, K_s, V_s$ = q, k, v, and $Q_g, K_g, V_g$ = q_global, k_global, v_global.

Differences from the paper:
    * It starts from RoBERTa's weights (section 5). Here a new model is drawn from N(0, 0.02²).
    * A row of a batch may have any number of global tokens, or none; where none has any, q_global, k_global and
      v_global are not used.
    * A query at a padded position attends like any other. What it finds is meaningless, and nobody sees it.
"""

from collections.abc import Callable, Sequence

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from papercode.attention.layer_norm import LayerNorm
from papercode.attention.masks import Band
from papercode.attention.transformer import EncoderLayer, FeedForward, MultiHeadAttention, PostNorm, attention
from papercode.attention.windowed import windowed, windowed_log_sum


def merged(
    first: Float[Tensor, "b h n c"],
    first_log_sum: Float[Tensor, "b h n"],
    second: Float[Tensor, "b h n c"],
    second_log_sum: Float[Tensor, "b h n"],
) -> Float[Tensor, "b h n c"]:
    """Attention over two sets of keys, from attention over each: exact, as if there had been one softmax.

    Args:
        first: What the queries found among the first keys.
        first_log_sum: Logarithm of the sum of the exponentials of their scores.
        second: What they found among the others.
        second_log_sum: The same of the others.
    """
    share = (first_log_sum - second_log_sum).sigmoid()[..., None].to(first.dtype)
    return torch.lerp(second, first, share)


def windowed_and_global(
    q: Float[Tensor, "b h n c"],
    k: Float[Tensor, "b g n c"],
    v: Float[Tensor, "b g n e"],
    *,
    mask: Band,
    global_tokens: Bool[Tensor, "b n"] | None = None,
    scale: float | None = None,
    dropout: float = 0.0,
) -> Float[Tensor, "b h n e"]:
    """An `attend`: each query sees its window and all global tokens, in one softmax (section 3.1).

    Args:
        q: Queries.
        k: Keys.
        v: Values.
        mask: The window, with `keep` for padding.
        global_tokens: True at tokens that everybody sees; at padding it counts for nothing.
        scale: Of the scores; 1 / sqrt(c) unless given.
        dropout: Probability with which a weight is set to zero.
    """
    if global_tokens is None or not (chosen := _and(global_tokens, mask.keep)).any():
        return windowed(q, k, v, mask=mask, scale=scale, dropout=dropout)
    others = Band(mask.left, mask.right, _and(~chosen, mask.keep))  # nobody is to be counted twice
    near, near_log_sum = windowed_log_sum(q, k, v, mask=others, scale=scale, dropout=dropout)
    index, real = _first(chosen)
    k, v = (_take(x.transpose(1, 2), index).transpose(1, 2) for x in (k, v))
    k, v = (x.repeat_interleave(q.shape[1] // x.shape[1], 1) for x in (k, v))
    scores = (q @ k.mT * (q.shape[3] ** -0.5 if scale is None else scale)).to(near_log_sum.dtype)
    absent = ~real[:, None, None]
    scores = scores.masked_fill(absent, torch.finfo(scores.dtype).min)
    weights = scores.softmax(-1).masked_fill(absent, 0.0)
    far = nn.functional.dropout(weights, dropout).to(v.dtype) @ v
    return merged(far, scores.logsumexp(-1), near, near_log_sum)


class LongformerAttention(MultiHeadAttention):
    """Multi-head attention over a window, and over everything from and to the global tokens (section 3.1).

    Args:
        d_model: Width of the input and of the output.
        n_heads: h.
        window: w, even: half of it on either side.
        dropout: On the attention weights, while training.
        attend: What all queries do with q, k and v; it is given `mask`, a `Band`, and `global_tokens`.

    Raises:
        ValueError: If window is not even and positive, or d_model is not divisible by n_heads.
    """

    def __init__(
        self,
        d_model: int,
        n_heads: int,
        *,
        window: int,
        dropout: float = 0.0,
        attend: Callable[..., Tensor] = windowed_and_global,
    ):
        super().__init__(d_model, n_heads, dropout=dropout, attend=attend)
        if window < 2 or window % 2:
            raise ValueError(f"window={window} must be even and positive: half of it lies on either side")
        self.window = window
        self.q_global, self.k_global, self.v_global = (nn.Linear(d_model, d_model) for _ in range(3))

    def forward(  # type: ignore[override]
        self,
        x: Float[Tensor, "b n d"],
        *,
        keep: Bool[Tensor, "b n"] | None = None,
        global_tokens: Bool[Tensor, "b n"] | None = None,
    ) -> Float[Tensor, "b n d"]:
        """Lets x attend to itself.

        Args:
            x: One vector a token.
            keep: False at padding.
            global_tokens: True at tokens that see everything and are seen by everybody.
        """
        dropout = self.dropout if self.training else 0.0
        q, k, v = (self._heads(to(x)) for to in (self.q, self.k, self.v))
        band = Band(self.window // 2, self.window // 2, keep)
        y = self.attend(q, k, v, mask=band, global_tokens=global_tokens, dropout=dropout).transpose(1, 2)
        if global_tokens is not None and global_tokens.any():
            index, real = _first(global_tokens)
            q = self._heads(self.q_global(_take(x, index)))
            k, v = self._heads(self.k_global(x)), self._heads(self.v_global(x))
            mask = None if keep is None else keep[:, None, None, :]
            found = attention(q, k, v, mask=mask, dropout=dropout).transpose(1, 2)
            y = y.index_put(global_tokens.nonzero(as_tuple=True), found[real])
        return self.o(y.flatten(2))

    def _heads(self, x: Float[Tensor, "b n d"]) -> Float[Tensor, "b h n c"]:
        return x.unflatten(-1, (-1, self.d_k)).transpose(1, 2)


class Longformer(nn.Module):
    """The encoder, RoBERTa's with another attention; the defaults are the base model of section 5.

    Args:
        n_tokens: Size of the vocabulary.
        d_model: Width of the residual stream.
        n_heads: h.
        d_ff: Width inside the feed-forward networks.
        n_layers: Number of layers.
        window: w, of all layers or of each.
        n_positions: The longest text.
        position_offset: Rows at the head of the table of positions that no token uses; RoBERTa has two.
        n_segments: Kinds of segments; RoBERTa has one, so that it is a constant.
        dropout: On embeddings, sublayer outputs and attention weights.
        eps: Of the layer norms.

    Raises:
        ValueError: If there are not as many windows as layers, a window is odd, or a text is longer than n_positions.
    """

    def __init__(
        self,
        n_tokens: int = 50_265,
        *,
        d_model: int = 768,
        n_heads: int = 12,
        d_ff: int = 3072,
        n_layers: int = 12,
        window: int | Sequence[int] = 512,
        n_positions: int = 4096,
        position_offset: int = 2,
        n_segments: int = 1,
        dropout: float = 0.1,
        eps: float = 1e-5,
    ):
        super().__init__()
        windows = [window] * n_layers if isinstance(window, int) else list(window)
        if len(windows) != n_layers:
            raise ValueError(f"window has {len(windows)} entries, but there are n_layers={n_layers}")
        self.n_positions, self.position_offset = n_positions, position_offset
        self.words = nn.Embedding(n_tokens, d_model)
        self.positions = nn.Embedding(n_positions + position_offset, d_model)
        self.segments = nn.Embedding(n_segments, d_model)
        self.norm, self.dropout = LayerNorm(d_model, eps), nn.Dropout(dropout)
        self.layers = nn.ModuleList(
            EncoderLayer(
                LongformerAttention(d_model, n_heads, window=w, dropout=dropout),
                FeedForward(d_model, d_ff, nn.GELU()),
                lambda: PostNorm(LayerNorm(d_model, eps), dropout),
            )
            for w in windows
        )
        self.pooler = nn.Linear(d_model, d_model)
        for parameter in self.parameters():
            if parameter.ndim > 1:
                nn.init.normal_(parameter, std=0.02)

    def embed(
        self,
        tokens: Int[Tensor, "b n"],
        keep: Bool[Tensor, "b n"] | None = None,
        segments: Int[Tensor, "b n"] | None = None,
    ) -> Float[Tensor, "b n d"]:
        """Word, position and segment, summed and normalised. Positions count the tokens that are kept."""
        if tokens.shape[1] > self.n_positions:
            raise ValueError(f"tokens are {tokens.shape[1]} a row, more than n_positions={self.n_positions}")
        at = torch.ones_like(tokens) if keep is None else keep.long()
        at = (at.cumsum(1) - 1).clamp(min=0) + self.position_offset
        segments = torch.zeros_like(tokens) if segments is None else segments
        return self.dropout(self.norm(self.words(tokens) + self.positions(at) + self.segments(segments)))

    def forward(
        self,
        tokens: Int[Tensor, "b n"],
        *,
        keep: Bool[Tensor, "b n"] | None = None,
        global_tokens: Bool[Tensor, "b n"] | None = None,
        segments: Int[Tensor, "b n"] | None = None,
    ) -> Float[Tensor, "b n d"]:
        """One vector a token, of any length up to n_positions; keep is False at padding, global_tokens True at some."""
        x = self.embed(tokens, keep, segments)
        for layer in self.layers:
            x = layer(x, keep=keep, global_tokens=global_tokens)
        return x

    def pool(self, states: Float[Tensor, "b n d"]) -> Float[Tensor, "b d"]:
        """One vector a text, from its first token."""
        return self.pooler(states[:, 0]).tanh()


def to_longformer(layer: MultiHeadAttention, window: int) -> LongformerAttention:
    """The attention of a trained encoder, for long texts: global projections start as copies of the others (3.1).

    Args:
        layer: Its projections are copied, it is not changed.
        window: w.
    """
    long = LongformerAttention(layer.q.in_features, layer.q.out_features // layer.d_k, window=window)
    long = long.to(layer.q.weight).train(layer.training)
    long.dropout = layer.dropout
    for name in ("q", "k", "v", "o"):
        getattr(long, name).load_state_dict(getattr(layer, name).state_dict())
    for name in ("q", "k", "v"):
        getattr(long, f"{name}_global").load_state_dict(getattr(layer, name).state_dict())
    return long


def tiled_positions(
    table: Float[Tensor, "rows d"], n_positions: int, position_offset: int = 2
) -> Float[Tensor, "more d"]:
    """A table of positions for longer texts: the old one again and again, from its start (section 5).

    Args:
        table: The trained positions, behind position_offset rows that are kept as they are.
        n_positions: How many positions the new table has.
        position_offset: Rows at the head that no token uses.
    """
    head, old = table[:position_offset], table[position_offset:]
    return torch.cat([head, old.repeat(-(-n_positions // len(old)), 1)[:n_positions]])


def _and(chosen: Bool[Tensor, "b n"], keep: Bool[Tensor, "b n"] | None) -> Bool[Tensor, "b n"]:
    return chosen if keep is None else chosen & keep


def _first(chosen: Bool[Tensor, "b n"]) -> tuple[Int[Tensor, "b G"], Bool[Tensor, "b G"]]:
    """Where the chosen are, in order, filled up to the longest row with others; and which of these are chosen."""
    index = chosen.long().argsort(dim=1, descending=True, stable=True)[:, : int(chosen.sum(1).max())]
    return index, chosen.gather(1, index)


def _take(x: Float[Tensor, "b n *rest"], index: Int[Tensor, "b G"]) -> Float[Tensor, "b G *rest"]:
    return x[torch.arange(len(x), device=x.device)[:, None], index]
