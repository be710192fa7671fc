r"""The Transformer [@vaswani2017attention]: an encoder and a decoder of attention and networks per position.

Imports: `LayerNorm` [@ba2016layer] stands behind every residual sum; `positions` are the same paper's section 3.5;
`check` and `dense` are what every attend asks of its arguments.

Symbols: b batch, s source length, t target length, n queries, m keys, h heads, d width. The paper's $d_k$ = width of
q and k in a head, $d_v$ = of v, $h$ = n_heads, $N$ = n_layers, $d_{ff}$ = d_ff.

Differences from the paper:
    * Initial weights, of which it says nothing: Glorot uniform, and N(0, 1/d_model) for the embeddings, which times
      sqrt(d_model) have variance 1.
    * A query that may attend to nothing gets zeros. The paper's softmax is undefined there (0/0).
"""

import math
from collections.abc import Callable

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from papercode.attention.arguments import Mask, check, dense
from papercode.attention.layer_norm import LayerNorm
from papercode.attention.sinusoids import positions


def attention(
    q: Float[Tensor, "b h n d"],
    k: Float[Tensor, "b g m d"],
    v: Float[Tensor, "b g m e"],
    *,
    mask: Mask | None = None,
    bias: Tensor | None = None,
    scale: float | None = None,
    dropout: float = 0.0,
) -> Float[Tensor, "b h n e"]:
    r"""$\mathrm{softmax}(q k^\top \cdot \mathrm{scale} + \mathrm{bias})\, v$: a weighted average of the values (Eq. 1).

    Args:
        q: What each of n positions looks for.
        k: What each of m positions offers. With fewer heads than q, each serves h / g heads of q in a row.
        v: What each of m positions hands over when it is looked at.
        mask: Bool, broadcast to (b h n m), True = may attend; for keys to leave out, `keep[:, None, None, :]`. Or a
            function that makes it: `causal_mask`.
        bias: Float, broadcast to (b h n m), added to the scores.
        scale: Of the scores; 1 / sqrt(d) unless given (section 3.2.1).
        dropout: Probability with which a weight is set to zero. The paper uses none here.

    Raises:
        TypeError: If a mask is not bool, or another argument is of the wrong kind.
        ValueError: If shapes, dtypes or devices do not go together (see `check`).
    """
    check(q, k, v, mask, bias, dropout)
    mask = dense(mask, q, k)
    if k.shape[1] < q.shape[1]:
        k, v = (x.repeat_interleave(q.shape[1] // k.shape[1], 1) for x in (k, v))
    scores = q @ k.mT * (q.shape[-1] ** -0.5 if scale is None else scale)
    if bias is not None:
        scores = scores + bias.to(scores.dtype)
    if mask is None:
        weights = scores.softmax(-1)
    else:  # the lowest float and not -inf: a row without keys stays finite, forward and backward, and is set to zero
        weights = scores.masked_fill(~mask, torch.finfo(scores.dtype).min).softmax(-1).masked_fill(~mask, 0.0)
    return nn.functional.dropout(weights, dropout) @ v


def causal_mask(n: int, m: int | None = None, device: torch.device | None = None) -> Bool[Tensor, "n m"]:
    """True where key j is not later than query i; the n queries are the last n of the m positions (section 3.1)."""
    m = n if m is None else m
    return torch.arange(m - n, m, device=device)[:, None] >= torch.arange(m, device=device)


class MultiHeadAttention(nn.Module):
    r"""$[\mathrm{head}_1 \dots \mathrm{head}_h] W^O$, $\mathrm{head}_i = \mathrm{attention}(xW_i^Q, mW_i^K, mW_i^V)$.

    Section 3.2.2. q, k, v and o are linear maps that hold all heads side by side; each may be replaced.
    All that happens between the projections and the output is `attend`, a callable with the signature of
    [`attention`][papercode.attention.transformer.attention]: wrap it to rotate queries, cache keys, look at weights.

    Args:
        d_model: Width of the input and of the output.
        n_heads: h, number of heads.
        d_k: Width of queries and keys in a head; d_model / n_heads unless given.
        d_v: Width of values in a head; d_k unless given.
        bias: Whether the four maps add a bias. The paper's formula has none.
        dropout: On the attention weights, while training.
        attend: What is done with q, k and v.

    Raises:
        ValueError: If d_k is not given and d_model is not divisible by n_heads.
    """

    def __init__(
        self,
        d_model: int,
        n_heads: int,
        *,
        d_k: int | None = None,
        d_v: int | None = None,
        bias: bool = True,
        dropout: float = 0.0,
        attend: Callable[..., Tensor] = attention,
    ):
        super().__init__()
        if d_k is None and d_model % n_heads:
            raise ValueError(f"d_model={d_model} is not divisible by n_heads={n_heads}")
        self.d_k = d_model // n_heads if d_k is None else d_k
        self.d_v = self.d_k if d_v is None else d_v
        self.dropout, self.attend = dropout, attend
        self.q = nn.Linear(d_model, n_heads * self.d_k, bias=bias)
        self.k = nn.Linear(d_model, n_heads * self.d_k, bias=bias)
        self.v = nn.Linear(d_model, n_heads * self.d_v, bias=bias)
        self.o = nn.Linear(n_heads * self.d_v, d_model, bias=bias)

    def forward(
        self, x: Float[Tensor, "b n d"], memory: Float[Tensor, "b m c"] | None = None, **kwargs
    ) -> Float[Tensor, "b n d"]:
        """Lets x attend to memory, or to itself where there is none. kwargs (mask, bias, …) go to `attend`."""
        memory = x if memory is None else memory
        q = self.q(x).unflatten(-1, (-1, self.d_k)).transpose(1, 2)
        k = self.k(memory).unflatten(-1, (-1, self.d_k)).transpose(1, 2)
        v = self.v(memory).unflatten(-1, (-1, self.d_v)).transpose(1, 2)
        y = self.attend(q, k, v, dropout=self.dropout if self.training else 0.0, **kwargs)
        return self.o(y.transpose(1, 2).flatten(2))


class FeedForward(nn.Sequential):
    r"""$\max(0, xW_1 + b_1) W_2 + b_2$, the same network at every position (Eq. 2).

    Args:
        d_model: Width of the input and of the output.
        d_ff: Width between the two maps.
        activation: Stands between them; ReLU unless given.
    """

    def __init__(self, d_model: int, d_ff: int, activation: nn.Module | None = None):
        super().__init__()
        self.expand = nn.Linear(d_model, d_ff)
        self.activation = nn.ReLU() if activation is None else activation
        self.contract = nn.Linear(d_ff, d_model)


class PostNorm(nn.Module):
    """LayerNorm(x + Dropout(Sublayer(x))): the norm comes last, on the sum (sections 3.1 and 5.4).

    Args:
        norm: What normalises the sum.
        dropout: On the output of the sublayer, before it is added.
    """

    def __init__(self, norm: nn.Module, dropout: float = 0.0):
        super().__init__()
        self.norm, self.dropout = norm, nn.Dropout(dropout)

    def forward(self, x: Float[Tensor, "b n d"], sublayer: Callable[[Tensor], Tensor]) -> Float[Tensor, "b n d"]:
        """Applies sublayer to x and returns to the residual stream."""
        return self.norm(x + self.dropout(sublayer(x)))


class EncoderLayer(nn.Module):
    """Self-attention, then the feed-forward network, each inside a residual (Figure 1, left).

    Args:
        attention: Called as attention(x, **kwargs).
        feed_forward: Called as feed_forward(x).
        residual: Called once a sublayer, returns a module with forward(x, sublayer).
    """

    def __init__(self, attention: nn.Module, feed_forward: nn.Module, residual: Callable[[], nn.Module]):
        super().__init__()
        self.attention, self.feed_forward = attention, feed_forward
        self.residuals = nn.ModuleList(residual() for _ in range(2))

    def forward(self, x: Float[Tensor, "b n d"], **kwargs) -> Float[Tensor, "b n d"]:
        """kwargs (mask, bias, …) go to the attention."""
        x = self.residuals[0](x, lambda x: self.attention(x, **kwargs))
        return self.residuals[1](x, self.feed_forward)


class DecoderLayer(nn.Module):
    """Self-attention, attention to the encoder's output, feed-forward, each inside a residual (Figure 1, right).

    Args:
        self_attention: Called as self_attention(x, **kwargs).
        cross_attention: Called as cross_attention(x, memory, mask=memory_mask).
        feed_forward: Called as feed_forward(x).
        residual: Called once a sublayer, returns a module with forward(x, sublayer).
    """

    def __init__(
        self,
        self_attention: nn.Module,
        cross_attention: nn.Module,
        feed_forward: nn.Module,
        residual: Callable[[], nn.Module],
    ):
        super().__init__()
        self.self_attention, self.cross_attention, self.feed_forward = self_attention, cross_attention, feed_forward
        self.residuals = nn.ModuleList(residual() for _ in range(3))

    def forward(
        self, x: Float[Tensor, "b n d"], memory: Float[Tensor, "b m c"], *, memory_mask: Tensor | None = None, **kwargs
    ) -> Float[Tensor, "b n d"]:
        """kwargs (mask, bias, …) go to the self-attention, memory_mask to the attention to memory."""
        x = self.residuals[0](x, lambda x: self.self_attention(x, **kwargs))
        x = self.residuals[1](x, lambda x: self.cross_attention(x, memory, mask=memory_mask))
        return self.residuals[2](x, self.feed_forward)


class Transformer(nn.Module):
    """The encoder-decoder of Figure 1; the defaults are the base model, and Table 3 names the others.

    One matrix is the embedding of the source, of the target, and the map to the logits (section 3.4).

    Args:
        n_tokens: Size of the vocabulary that source and target share.
        d_model: Width of the residual stream, even.
        n_heads: h.
        d_ff: Width inside the feed-forward networks.
        n_layers: N, of the encoder and of the decoder.
        dropout: On sublayer outputs and on the sums of embeddings and positions (section 5.4).
        d_k: Width of queries and keys in a head; d_model / n_heads unless given.
        d_v: Width of values in a head; d_k unless given.
        attend: Given to every attention.
    """

    def __init__(
        self,
        n_tokens: int,
        *,
        d_model: int = 512,
        n_heads: int = 8,
        d_ff: int = 2048,
        n_layers: int = 6,
        dropout: float = 0.1,
        d_k: int | None = None,
        d_v: int | None = None,
        attend: Callable[..., Tensor] = attention,
    ):
        super().__init__()

        def attention_layer() -> nn.Module:
            return MultiHeadAttention(d_model, n_heads, d_k=d_k, d_v=d_v, bias=False, attend=attend)

        def residual() -> nn.Module:
            return PostNorm(LayerNorm(d_model), dropout)

        self.embedding = nn.Embedding(n_tokens, d_model)
        self.dropout = nn.Dropout(dropout)
        self.encoder = nn.ModuleList(
            EncoderLayer(attention_layer(), FeedForward(d_model, d_ff), residual) for _ in range(n_layers)
        )
        self.decoder = nn.ModuleList(
            DecoderLayer(attention_layer(), attention_layer(), FeedForward(d_model, d_ff), residual)
            for _ in range(n_layers)
        )
        for parameter in self.parameters():
            if parameter.ndim > 1:
                nn.init.xavier_uniform_(parameter)
        nn.init.normal_(self.embedding.weight, std=d_model**-0.5)

    def embed(self, tokens: Int[Tensor, "b n"], start: int = 0) -> Float[Tensor, "b n d"]:
        """Embedding times sqrt(d_model), plus the positions from `start`, with dropout (sections 3.4, 3.5, 5.4)."""
        weight = self.embedding.weight
        x = self.embedding(tokens) * math.sqrt(weight.shape[1])
        waves = positions(tokens.shape[1], weight.shape[1], start)  # on the CPU: not every device knows float64
        return self.dropout(x + waves.to(weight))

    def encode(
        self, source: Int[Tensor, "b s"], source_mask: Bool[Tensor, "b s"] | None = None
    ) -> Float[Tensor, "b s d"]:
        """One vector a source token, each aware of all others; source_mask is True at tokens, False at padding."""
        mask = None if source_mask is None else source_mask[:, None, None, :]
        x = self.embed(source)
        for layer in self.encoder:
            x = layer(x, mask=mask)
        return x

    def decode(
        self,
        target: Int[Tensor, "b t"],
        memory: Float[Tensor, "b s d"],
        memory_mask: Bool[Tensor, "b r"] | None = None,
        start: int = 0,
    ) -> Float[Tensor, "b t n_tokens"]:
        """Logits of the token after each target token; no position sees a later one.

        `start` is the position of the first target token: 0, unless the keys of earlier positions are kept in a
        [`KVCache`][papercode.attention.kv_cache.KVCache]. Padding at the end of the target needs no mask, for only
        later positions could see it.
        """
        memory_mask = None if memory_mask is None else memory_mask[:, None, None, :]
        x = self.embed(target, start)
        for layer in self.decoder:
            x = layer(x, memory, memory_mask=memory_mask, mask=causal_mask)
        return x @ self.embedding.weight.T

    def forward(
        self, source: Int[Tensor, "b s"], target: Int[Tensor, "b t"], source_mask: Bool[Tensor, "b s"] | None = None
    ) -> Float[Tensor, "b t n_tokens"]:
        """Logits for all target positions in one pass, as in training: position i is fed the true tokens up to i."""
        return self.decode(target, self.encode(source, source_mask), source_mask)
