r"""Multi-query attention [@shazeer2019fast]: all heads read one set of keys and values.

Imports: `MultiHeadAttention` [@vaswani2017attention], of which two maps are replaced, and its `attention`, in which a
head of k and v may serve many heads of q.

Symbols: b batch, n queries, m keys. The paper's $h$ = n_heads, $d$ = d_model, $k$ = d_k, $v$ = d_v; its projections
$P_q$, $P_k$, $P_v$, $P_o$ are the maps q, k, v and o.

Differences from the paper:
    * The scores are divided by sqrt(d_k). The paper leaves this to the projections, into which it can be folded
      (section 2.2).
    * The maps may have biases, as in the released models that use it. The paper's code has none: bias=False.
"""

from collections.abc import Callable

from torch import Tensor, nn

from papercode.attention.transformer import MultiHeadAttention, attention


class MultiQueryAttention(MultiHeadAttention):
    r"""Multi-head attention without the heads of keys and values: h queries a position, one key, one value (section 3).

    It equals multi-head attention in which all heads of k are the same, and all heads of v. What is kept of a position
    while decoding is h times smaller.

    Args:
        d_model: Width of the input and of the output.
        n_heads: h, heads of the queries.
        d_k: Width of the queries in a head and of the one key; d_model / n_heads unless given.
        d_v: Width of the one value; d_k unless given.
        bias: Whether the four maps add a bias. The paper's code has none.
        dropout: On the attention weights, while training.
        attend: What is done with q (b h n d_k), k (b 1 m d_k) and v (b 1 m d_v).

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
        super().__init__(d_model, n_heads, d_k=d_k, d_v=d_v, bias=bias, dropout=dropout, attend=attend)
        self.k = nn.Linear(d_model, self.d_k, bias=bias)
        self.v = nn.Linear(d_model, self.d_v, bias=bias)
