r"""What attention computes and what it moves, while training and while decoding [@shazeer2019fast].

Imports: nothing from an older paper's module.

Symbols, the paper's: b batch, n queries, m keys, d width of the model, h heads, k and v widths of keys and values in a
head; and g heads of K and V, h in multi-head and 1 in multi-query attention.

Differences from the paper:
    * Operations (a multiply-add is two) and elements are counted, not only their order; the orders are
      `batched_ratio` and `incremental_ratio`.
    * Logits and weights count while decoding, too. Sections 2.4.1 and 3.1 leave them out.
    * While decoding, call t sees t positions. The paper's sum has n positions in every call, which is the same order.
"""

from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class Cost:
    """What attention does, by the names of the tensors in the paper's code.

    Args:
        operations: Floating-point operations that a tensor takes to compute; softmax and masking are left out.
        elements: How many numbers a tensor has, each read or written once (section 2.3.1).
    """

    operations: dict[str, int]
    elements: dict[str, int]

    @property
    def ratio(self) -> float:
        """Elements moved for each operation; a machine that computes c times as fast as it loads wants 1 / c."""
        return sum(self.elements.values()) / sum(self.operations.values())

    def __add__(self, other: "Cost") -> "Cost":
        """Both one after the other."""
        pairs = (self.operations, other.operations), (self.elements, other.elements)
        return Cost(*({name: x.get(name, 0) + y.get(name, 0) for name in x | y} for x, y in pairs))


def attention_cost(
    b: int,
    n: int,
    d: int,
    h: int,
    *,
    g: int | None = None,
    m: int | None = None,
    new: int | None = None,
    k: int | None = None,
    v: int | None = None,
) -> Cost:
    """One call of a layer, projections included: n queries a sequence look at m positions (sections 2.3 and 3).

    Args:
        b: Sequences.
        n: Queries.
        d: Width of the model.
        h: Heads of the queries.
        g: Heads of K and V; h unless given.
        m: Positions that are looked at; n unless given.
        new: How many of the m have to be projected to keys and values first; all unless given. The rest is cached.
        k: Width of a key; d / h unless given.
        v: Width of a value; k unless given.

    Raises:
        ValueError: If a size is less than 1, h is not a multiple of g, new is more than m, or k is not given and d is
            not divisible by h.
    """
    _at_least_one(d=d, h=h)
    if k is None and d % h:
        raise ValueError(f"d={d} is not divisible by h={h}")
    k = d // h if k is None else k
    v, g, m = k if v is None else v, h if g is None else g, n if m is None else m
    new = m if new is None else new
    _at_least_one(b=b, n=n, g=g, m=m, new=new, k=k, v=v)
    if h % g:
        raise ValueError(f"h={h} is not a multiple of g={g}")
    if new > m:
        raise ValueError(f"new={new} positions are more than all m={m}")
    operations = {
        "Q": 2 * b * n * d * h * k,
        "K": 2 * b * new * d * g * k,
        "V": 2 * b * new * d * g * v,
        "logits": 2 * b * h * n * m * k,
        "O": 2 * b * h * n * m * v,
        "Y": 2 * b * n * h * v * d,
    }
    elements = {
        "X": b * n * d,
        "M": b * new * d,
        "Q": b * n * h * k,
        "K": b * m * g * k,
        "V": b * m * g * v,
        "logits": b * h * n * m,
        "weights": b * h * n * m,
        "O": b * n * h * v,
        "Y": b * n * d,
        "P_q": d * h * k,
        "P_k": d * g * k,
        "P_v": d * g * v,
        "P_o": d * h * v,
    }
    return Cost(operations, elements)


def incremental_cost(
    b: int, n: int, d: int, h: int, *, g: int | None = None, k: int | None = None, v: int | None = None
) -> Cost:
    """n calls with one query a sequence each, keys and values kept: decoding (sections 2.4.1 and 3.1).

    Call t looks at t positions and projects one. Arguments and errors are those of `attention_cost`.
    """
    _at_least_one(n=n)
    total = Cost({}, {})
    for t in range(1, n + 1):
        total += attention_cost(b, 1, d, h, g=g, m=t, new=1, k=k, v=v)
    return total


def batched_ratio(b: int, n: int, d: int, h: int) -> float:
    r"""$\frac{1}{k} + \frac{1}{bn}$: the order of elements an operation while training, k = d / h (section 2.3.1)."""
    return h / d + 1 / (b * n)


def incremental_ratio(b: int, n: int, d: int, h: int, *, g: int | None = None) -> float:
    r"""$\frac{1}{d} + \frac{ng}{dh} + \frac{1}{b}$: the same while decoding.

    With one head of keys and values it is the ratio of section 3.1. With h of them it is that of section 2.4.1,
    $\frac{n}{d} + \frac{1}{b}$, and 1 / d more, which section 2.4.1 leaves out.
    """
    return 1 / d + n * (h if g is None else g) / (d * h) + 1 / b


def kv_cache_bytes(
    batch: int,
    length: int,
    *,
    layers: int,
    heads: int,
    width: int,
    value_width: int | None = None,
    dtype: torch.dtype = torch.float16,
) -> int:
    """What the keys and values of all positions take: $bmg(k + v)$ numbers a layer (section 2.4.1).

    Args:
        batch: b, sequences.
        length: m, positions a sequence.
        layers: Attentions that keep keys and values. A decoder with cross-attention has two a layer, and the second
            keeps the positions of the source.
        heads: g, heads of keys and values; h in multi-head attention, 1 in multi-query attention.
        width: k, of a key in a head.
        value_width: v, of a value in a head; k unless given.
        dtype: In which they are kept.

    Raises:
        ValueError: If a size is less than 1.
    """
    value_width = width if value_width is None else value_width
    _at_least_one(batch=batch, length=length, layers=layers, heads=heads, width=width, value_width=value_width)
    return batch * length * layers * heads * (width + value_width) * dtype.itemsize


def _at_least_one(**sizes: int) -> None:
    for name, size in sizes.items():
        if size < 1:
            raise ValueError(f"{name}={size} must be at least 1")
