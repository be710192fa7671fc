r"""Self-attention that is told how far apart two positions are [@shaw2018self].

Each distance has a vector that is added to the key, and another one that is added to the value, whenever a query looks
that far. Distances beyond k share the vector of k.

Imports: `attention` is Eq. 1 and 2 and stays the inner attend where values get nothing added, `Transformer` is the
model of section 4 [@vaswani2017attention]; `check` and `dense` are what every attend asks of its arguments.

Symbols: b batch, h heads, g heads of keys and values, n queries, m keys, r = 2k + 1 distances, d and e widths of keys
and values in a head. The paper's $w^K$, $w^V$ = the tables `keys` and `values`, $a_{ij} = w_{\mathrm{clip}(j - i, k)}$,
$k$ = max_distance, $d_z = d_a$ = d. The queries are the last n of the m positions, so query i stands at m - n + i.

Differences from the paper:
    * Section 3.3 writes out $a_{ij}$ for all pairs, n · m · d numbers. Here the queries are multiplied by the r rows of
      the table and the products spread to the pairs; the weights are summed by distance before they meet the table.
    * Initial tables, of which it says nothing: Glorot uniform, each head's for itself.
    * A query that may attend to nothing gets zeros. The paper's softmax is undefined there (0/0).
"""

import math
from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Float, Int, Shaped
from torch import Tensor, nn

from papercode.attention.arguments import Mask, check, dense
from papercode.attention.transformer import Transformer, attention


def clipped_distances(n: int, m: int, k: int, device: torch.device | None = None) -> Int[Tensor, "n m"]:
    r"""$\mathrm{clip}(j - i, k)$ of section 3.2: how far key j stands after query i, between -k and k."""
    query, key = torch.arange(m - n, m, device=device), torch.arange(m, device=device)
    return (key - query[:, None]).clamp(-k, k)


def spread(x: Shaped[Tensor, "*b n r"], m: int) -> Shaped[Tensor, "*b n m"]:
    """From one number for each distance to one for each key: y[i, j] = x[i, clip(j - i, k) + k], where r = 2k + 1."""
    n, k = x.shape[-2], x.shape[-1] // 2
    rows = clipped_distances(n, m, k, x.device) + k
    return x.gather(-1, rows.expand(*x.shape[:-1], m))


def collect(y: Float[Tensor, "*b n m"], k: int) -> Float[Tensor, "*b n r"]:
    """From one number for each key to one for each distance, 2k + 1 sums: the transpose of `spread`."""
    n, m = y.shape[-2:]
    rows = clipped_distances(n, m, k, y.device) + k
    return y.new_zeros(*y.shape[:-1], 2 * k + 1).scatter_add(-1, rows.expand_as(y), y)


def skew(x: Shaped[Tensor, "*b n w"]) -> Shaped[Tensor, "*b n m"]:
    """The same as `spread` where nothing is clipped, without an index: y[i, j] = x[i, j - i + n - 1], w = n + m - 1.

    Column c of x belongs to distance c - (m - 1). Written out in a line, y[i, j] stands at n - 1 + i (w - 1) + j: the
    first n - 1 numbers dropped and the rest broken into rows one shorter, row i has moved i places to the left. A view
    if x is contiguous. (Not in the paper; known from Music Transformer [@huang2019music].)

    Raises:
        ValueError: If w is less than n.
    """
    n, w = x.shape[-2:]
    if w < n:
        raise ValueError(f"x has w={w} distances, but n={n} queries have at least n, one more for each further key")
    if n == 1:
        return x
    return x.flatten(-2)[..., n - 1 : n - 1 + n * (w - 1)].unflatten(-1, (n, w - 1))[..., : w - n + 1]


class RelativePosition(nn.Module):
    r"""An `attend` in which keys and values depend on the distance, too (Eq. 3 to 5).

    $$e_{ij} = q_i (k_j + a^K_{ij})^\top \cdot \mathrm{scale}, \qquad z_i = \sum_j \alpha_{ij} (v_j + a^V_{ij})$$

    Every layer has one of its own. It is meant for self-attention: a target has no distance from its source.

    Args:
        d_k: d, width of queries and keys in a head.
        max_distance: k, from which on all distances are one.
        d_v: e, width of values in a head; d_k unless given.
        n_heads: Heads that have tables of their own; 1 = all heads share one, as in section 3.1.
        keys: Whether keys get a vector added; `self.keys` is the table (n_heads 2k+1 d), or None.
        values: Whether values do; `self.values` is (n_heads 2k+1 e), or None.
        attend: What is done then, if values get none: keys alone are a bias to any attention.

    Raises:
        ValueError: If max_distance is negative, a width or n_heads is not positive, or attend is given though values
            have vectors, for which the weights are needed.
    """

    def __init__(
        self,
        d_k: int,
        max_distance: int,
        *,
        d_v: int | None = None,
        n_heads: int = 1,
        keys: bool = True,
        values: bool = True,
        attend: Callable[..., Tensor] = attention,
    ):
        super().__init__()
        d_v = d_k if d_v is None else d_v
        if max_distance < 0:
            raise ValueError(f"max_distance={max_distance} must be at least 0")
        for name, size in (("d_k", d_k), ("d_v", d_v), ("n_heads", n_heads)):
            if size < 1:
                raise ValueError(f"{name}={size} must be at least 1")
        if values and attend is not attention:
            raise ValueError("attend is given, but values=True needs its weights; pass values=False")
        self.max_distance, self.attend = max_distance, attend
        self.keys = self._table(n_heads, d_k) if keys else None
        self.values = self._table(n_heads, d_v) if values else None

    def _table(self, n_heads: int, d: int) -> nn.Parameter:
        table = torch.empty(n_heads, 2 * self.max_distance + 1, d)
        for head in table:
            nn.init.xavier_uniform_(head)
        return nn.Parameter(table)

    def forward(
        self,
        q: Float[Tensor, "b h n d"],
        k: Float[Tensor, "b g m d"],
        v: Float[Tensor, "b g m e"],
        *,
        mask: Mask | None = None,
        bias: Tensor | None = None,
        scale: float | None = None,
        dropout: float = 0.0,
    ) -> Float[Tensor, "b h n e"]:
        """Arguments as for [`attention`][papercode.attention.transformer.attention]; scale is of both terms of Eq. 5.

        Raises:
            TypeError: If a mask is not bool, or another argument is of the wrong kind.
            ValueError: If shapes, dtypes or devices do not go together, with one another or with the tables.
        """
        check(q, k, v, mask, bias, dropout)
        for name, width, table in (("q", q.shape[3], self.keys), ("v", v.shape[3], self.values)):
            if table is not None and table.shape[2] != width:
                raise ValueError(f"{name} has width {width}, but the vectors added have width {table.shape[2]}")
            if table is not None and table.shape[0] not in (1, q.shape[1]):
                raise ValueError(f"q has {q.shape[1]} heads, but there are tables for n_heads={table.shape[0]}")
        scale = q.shape[3] ** -0.5 if scale is None else scale
        if self.keys is not None:
            relative = spread(q * scale @ self.keys.mT, k.shape[2])
            bias = relative if bias is None else relative + bias.to(relative.dtype)
        if self.values is None:
            return self.attend(q, k, v, mask=mask, bias=bias, scale=scale, dropout=dropout)
        if k.shape[1] < q.shape[1]:
            k, v = (x.repeat_interleave(q.shape[1] // k.shape[1], 1) for x in (k, v))
        scores = q @ k.mT * scale
        if bias is not None:
            scores = scores + bias.to(scores.dtype)
        mask = dense(mask, q, k)
        if mask is None:
            weights = scores.softmax(-1)
        else:  # as in attention: finite all the way, and zeros where nothing may be seen
            weights = scores.masked_fill(~mask, torch.finfo(scores.dtype).min).softmax(-1).masked_fill(~mask, 0.0)
        weights = nn.functional.dropout(weights, dropout)
        return weights @ v + collect(weights, self.max_distance) @ self.values


class RelativeTransformer(Transformer):
    """The Transformer of section 4: distances in its self-attentions, and no positions in its embeddings.

    Attention to the encoder's output stays as it was. The defaults are the paper's base model; its big one is
    `d_model=1024, n_heads=16, d_ff=4096, max_distance=8, per_head=False`.

    Args:
        n_tokens: Size of the vocabulary that source and target share.
        max_distance: k.
        per_head: Whether each head has tables of its own; each layer has in any case.
        keys: Whether keys get a vector added.
        values: Whether values do.
        d_ff: Width inside the feed-forward networks.
        **settings: The rest of [`Transformer`][papercode.attention.transformer.Transformer].
    """

    def __init__(
        self,
        n_tokens: int,
        *,
        max_distance: int = 16,
        per_head: bool = True,
        keys: bool = True,
        values: bool = True,
        d_ff: int = 1024,
        **settings: Any,
    ):
        super().__init__(n_tokens, d_ff=d_ff, **settings)
        for stack, name in ((self.encoder, "attention"), (self.decoder, "self_attention")):
            for layer in stack:
                heads = getattr(layer, name)
                n_heads = heads.q.out_features // heads.d_k if per_head else 1
                tables = {"d_v": heads.d_v, "n_heads": n_heads, "keys": keys, "values": values}
                heads.attend = RelativePosition(heads.d_k, max_distance, **tables)

    def embed(self, tokens: Int[Tensor, "b n"], start: int = 0) -> Float[Tensor, "b n d"]:
        """Embedding times sqrt(d_model), with dropout; where the tokens stand does not matter."""
        return self.dropout(self.embedding(tokens) * math.sqrt(self.embedding.weight.shape[1]))
