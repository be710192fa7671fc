r"""FlashAttention's loops as Triton kernels [@dao2022flashattention, Algorithms 1, 2 and 4].

Imports: nothing from other papers. This is the one module that needs Triton; import it through
[`flash_triton`][papercode.attention.flash_triton].

One program computes one block: of the output (`forward`), of dq (`backward_queries`) or of dk and dv (`backward_keys`).
It holds its block of one side in registers and walks along the other side. Of that side it skips what the band
excludes, walks without any test over what every row of the block sees, and masks only the blocks at the edges.
Scores are kept in base 2, since the hardware has exp2: $\mathrm{softmax}(s) = 2^{s \log_2 e - \ldots}$.

Names: upper case are pointers and compile-time constants. `sq_b` is the stride of Q along the batch, and so on. `r` =
h / g heads of q share one of k and v; `off` = m - n is the position of the first query; `left` and `right` are the
reach of a band, used where LEFT and RIGHT say so. SEEN is 0 without a mask tensor, 1 if all queries share one row of
it, else 2.
"""

import triton
import triton.language as tl

# lengths and reaches change from call to call: no kernel of its own for those that are 1 or divisible by 16
LENGTHS = ("n", "m", "left", "right", "size")
LOG2E = tl.constexpr(1.4426950408889634)


@triton.jit
def _scores(
    s, rows, columns, Seen, Bias, ss_n, ss_m, sb_n, sb_m, n, m, off, left, right,
    EDGE: tl.constexpr, LEFT: tl.constexpr, RIGHT: tl.constexpr, SEEN: tl.constexpr, BIAS: tl.constexpr,
):  # fmt: skip
    """Products of q and k (rows columns), already scaled, to scores in base 2: bias added, -inf where hidden."""
    inside = (rows < n)[:, None] & (columns < m)[None, :]
    if BIAS:
        at = rows.to(tl.int64)[:, None] * sb_n + columns[None, :] * sb_m
        s += tl.load(Bias + at, inside, 0.0).to(tl.float32) * LOG2E
    if EDGE:
        seen = inside
        ahead = columns[None, :] - (rows + off)[:, None]
        if LEFT:
            seen = seen & (ahead >= -left)
        if RIGHT:
            seen = seen & (ahead <= right)
        s = tl.where(seen, s, float("-inf"))
    if SEEN == 1:
        seen = tl.load(Seen + columns * ss_m, columns < m, 0)
        s = tl.where((seen != 0)[None, :], s, float("-inf"))
    if SEEN == 2:
        seen = tl.load(Seen + rows.to(tl.int64)[:, None] * ss_n + columns[None, :] * ss_m, inside, 0)
        s = tl.where(seen != 0, s, float("-inf"))
    return s


@triton.jit
def _kept(x, rows, columns, seed, m, dropout):
    """What dropout leaves of a tile. The random number of an entry depends on its place alone."""
    kept = tl.rand(seed, rows[:, None] * m + columns[None, :]) >= dropout
    return tl.where(kept, x / (1.0 - dropout), 0.0)


@triton.jit
def _load(X, rows, stride, width, n, BLOCK: tl.constexpr):
    """Some rows of a matrix (n width), zeros beyond its ends: (rows BLOCK)."""
    features = tl.arange(0, BLOCK)
    at = rows.to(tl.int64)[:, None] * stride + features[None, :]
    return tl.load(X + at, (rows < n)[:, None] & (features < width)[None, :], 0.0)


@triton.jit
def _bounds(first, last, left, right, size, LEFT: tl.constexpr, RIGHT: tl.constexpr, BLOCK: tl.constexpr):
    """Of positions 0 .. size, those from first - left to last + right matter, and last - left to first + right to all.

    Returns begin, end of what matters, and begin, end of the blocks in between that need no mask.
    """
    begin, full_begin = 0, 0
    end, full_end = size, size // BLOCK * BLOCK
    if LEFT:
        begin = tl.maximum(first - left, 0) // BLOCK * BLOCK
        full_begin = tl.cdiv(tl.maximum(last - left, 0), BLOCK) * BLOCK
    if RIGHT:
        end = tl.minimum(last + right + 1, size)
        full_end = tl.maximum(tl.minimum(first + right + 1, size), 0) // BLOCK * BLOCK
    return begin, end, full_begin, tl.maximum(full_end, full_begin)


@triton.jit
def _attend(
    out, total, largest, q, K, V, sk_m, sv_m, Seen, Bias, ss_n, ss_m, sb_n, sb_m, rows, begin, end,
    n, m, d, e, left, right, scale, dropout, seed,
    EDGE: tl.constexpr, LEFT: tl.constexpr, RIGHT: tl.constexpr, SEEN: tl.constexpr, BIAS: tl.constexpr,
    DROPOUT: tl.constexpr, BLOCK_D: tl.constexpr, BLOCK_E: tl.constexpr, BLOCK_N: tl.constexpr,
):  # fmt: skip
    """The online softmax over keys from begin to end."""
    for start in range(begin, end, BLOCK_N):
        columns = start + tl.arange(0, BLOCK_N)
        k = _load(K, columns, sk_m, d, m, BLOCK_D)
        s = tl.dot(q, tl.trans(k), input_precision="ieee") * (scale * LOG2E)
        s = _scores(
            s,
            rows,
            columns,
            Seen,
            Bias,
            ss_n,
            ss_m,
            sb_n,
            sb_m,
            n,
            m,
            m - n,
            left,
            right,
            EDGE,
            LEFT,
            RIGHT,
            SEEN,
            BIAS,
        )
        larger = tl.maximum(largest, tl.max(s, 1))
        safe = larger
        if EDGE or SEEN > 0 or BIAS:  # a row that has seen nothing yet: -inf - -inf would be no number
            safe = tl.where(larger == float("-inf"), 0.0, larger)
        weights = tl.exp2(s - safe[:, None])
        shrink = tl.exp2(largest - safe)
        total = total * shrink + tl.sum(weights, 1)
        if DROPOUT:
            weights = _kept(weights, rows, columns, seed, m, dropout)
        v = _load(V, columns, sv_m, e, m, BLOCK_E)
        out = tl.dot(weights.to(v.dtype), v, out * shrink[:, None], input_precision="ieee")
        largest = larger
    return out, total, largest


@triton.jit(do_not_specialize=LENGTHS)
def forward(
    Q, K, V, Seen, Bias, Seed, Out, Lse,
    sq_b, sq_h, sq_n, sk_b, sk_g, sk_m, sv_b, sv_g, sv_m, ss_b, ss_h, ss_n, ss_m, sb_b, sb_h, sb_n, sb_m,
    h, r, n, m, d, e, left, right, scale, dropout, size,
    LEFT: tl.constexpr, RIGHT: tl.constexpr, SEEN: tl.constexpr, BIAS: tl.constexpr, DROPOUT: tl.constexpr,
    BLOCK_D: tl.constexpr, BLOCK_E: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr,
):  # fmt: skip
    """A block of the output (contiguous) and of the log-sum-exp, in base 2; inf for a row without keys."""
    blocks = tl.cdiv(n, BLOCK_M)
    z = tl.program_id(0) // blocks
    block = blocks - 1 - tl.program_id(0) % blocks  # under a causal mask the longest first
    b, head = (z // h).to(tl.int64), (z % h).to(tl.int64)
    K += b * sk_b + head // r * sk_g
    V += b * sv_b + head // r * sv_g
    Seen += b * ss_b + head * ss_h
    Bias += b * sb_b + head * sb_h
    seed = tl.load(Seed) + z if DROPOUT else 0
    rows = block * BLOCK_M + tl.arange(0, BLOCK_M)
    q = _load(Q + b * sq_b + head * sq_h, rows, sq_n, d, n, BLOCK_D)
    first = block * BLOCK_M + m - n
    begin, end, full_begin, full_end = _bounds(first, first + BLOCK_M - 1, left, right, m, LEFT, RIGHT, BLOCK_N)
    out = tl.zeros([BLOCK_M, BLOCK_E], tl.float32)
    total = tl.zeros([BLOCK_M], tl.float32)
    largest = tl.full([BLOCK_M], float("-inf"), tl.float32)
    if LEFT:
        out, total, largest = _attend(
            out, total, largest, q, K, V, sk_m, sv_m, Seen, Bias, ss_n, ss_m, sb_n, sb_m, rows,
            begin, tl.minimum(full_begin, end), n, m, d, e, left, right, scale, dropout, seed,
            True, LEFT, RIGHT, SEEN, BIAS, DROPOUT, BLOCK_D, BLOCK_E, BLOCK_N,
        )  # fmt: skip
    out, total, largest = _attend(
        out, total, largest, q, K, V, sk_m, sv_m, Seen, Bias, ss_n, ss_m, sb_n, sb_m, rows,
        full_begin, full_end, n, m, d, e, left, right, scale, dropout, seed,
        False, LEFT, RIGHT, SEEN, BIAS, DROPOUT, BLOCK_D, BLOCK_E, BLOCK_N,
    )  # fmt: skip
    out, total, largest = _attend(
        out, total, largest, q, K, V, sk_m, sv_m, Seen, Bias, ss_n, ss_m, sb_n, sb_m, rows,
        full_end, end, n, m, d, e, left, right, scale, dropout, seed,
        True, LEFT, RIGHT, SEEN, BIAS, DROPOUT, BLOCK_D, BLOCK_E, BLOCK_N,
    )  # fmt: skip
    empty = total == 0.0
    out = out / tl.where(empty, 1.0, total)[:, None]
    tl.store(
        Lse + z.to(tl.int64) * n + rows,
        tl.where(empty, float("inf"), largest + tl.log2(tl.where(empty, 1.0, total))),
        rows < n,
    )
    features = tl.arange(0, BLOCK_E)
    at = (z.to(tl.int64) * n + rows)[:, None] * e + features[None, :]
    tl.store(Out + at, out.to(Out.dtype.element_ty), (rows < n)[:, None] & (features < e)[None, :])


@triton.jit
def backward_delta(Out, D_out, Delta, sd_b, sd_h, sd_n, h, n, e, BLOCK_E: tl.constexpr, BLOCK_M: tl.constexpr):
    """What the softmax takes from the gradient of each score of a row: the sum of out * d_out."""
    blocks = tl.cdiv(n, BLOCK_M)
    z, block = (tl.program_id(0) // blocks).to(tl.int64), tl.program_id(0) % blocks
    rows = block * BLOCK_M + tl.arange(0, BLOCK_M)
    out = _load(Out + z * n * e, rows, e, e, n, BLOCK_E).to(tl.float32)
    d_out = _load(D_out + z // h * sd_b + z % h * sd_h, rows, sd_n, e, n, BLOCK_E).to(tl.float32)
    tl.store(Delta + z * n + rows, tl.sum(out * d_out, 1), rows < n)


@triton.jit
def _queries(
    dq, q, d_out, lse, delta, K, V, sk_m, sv_m, Seen, Bias, D_bias, ss_n, ss_m, sb_n, sb_m, rows, begin, end,
    n, m, d, e, left, right, scale, dropout, seed,
    EDGE: tl.constexpr, LEFT: tl.constexpr, RIGHT: tl.constexpr, SEEN: tl.constexpr, BIAS: tl.constexpr,
    D_BIAS: tl.constexpr, DROPOUT: tl.constexpr, BLOCK_D: tl.constexpr, BLOCK_E: tl.constexpr, BLOCK_N: tl.constexpr,
):  # fmt: skip
    """Gradients that reach a block of queries from the keys from begin to end."""
    for start in range(begin, end, BLOCK_N):
        columns = start + tl.arange(0, BLOCK_N)
        k = _load(K, columns, sk_m, d, m, BLOCK_D)
        v = _load(V, columns, sv_m, e, m, BLOCK_E)
        s = tl.dot(q, tl.trans(k), input_precision="ieee") * (scale * LOG2E)
        s = _scores(
            s,
            rows,
            columns,
            Seen,
            Bias,
            ss_n,
            ss_m,
            sb_n,
            sb_m,
            n,
            m,
            m - n,
            left,
            right,
            EDGE,
            LEFT,
            RIGHT,
            SEEN,
            BIAS,
        )
        weights = tl.exp2(s - lse[:, None])
        ds = tl.dot(d_out, tl.trans(v), input_precision="ieee")
        if DROPOUT:
            ds = _kept(ds, rows, columns, seed, m, dropout)
        ds = weights * (ds - delta[:, None])
        if D_BIAS:
            at = rows.to(tl.int64)[:, None] * m + columns[None, :]
            tl.store(D_bias + at, ds, (rows < n)[:, None] & (columns < m)[None, :])
        dq = tl.dot(ds.to(k.dtype), k, dq, input_precision="ieee")
    return dq


@triton.jit(do_not_specialize=LENGTHS)
def backward_queries(
    Q, K, V, Seen, Bias, Seed, D_out, Lse, Delta, DQ, D_bias,
    sq_b, sq_h, sq_n, sk_b, sk_g, sk_m, sv_b, sv_g, sv_m, ss_b, ss_h, ss_n, ss_m, sb_b, sb_h, sb_n, sb_m,
    sd_b, sd_h, sd_n, h, r, n, m, d, e, left, right, scale, dropout, size,
    LEFT: tl.constexpr, RIGHT: tl.constexpr, SEEN: tl.constexpr, BIAS: tl.constexpr, D_BIAS: tl.constexpr,
    DROPOUT: tl.constexpr, BLOCK_D: tl.constexpr, BLOCK_E: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr,
):  # fmt: skip
    """A block of dq (contiguous), and on the way the gradient of the bias (b h n m) where it is wanted."""
    blocks = tl.cdiv(n, BLOCK_M)
    z = tl.program_id(0) // blocks
    block = blocks - 1 - tl.program_id(0) % blocks
    b, head = (z // h).to(tl.int64), (z % h).to(tl.int64)
    K += b * sk_b + head // r * sk_g
    V += b * sv_b + head // r * sv_g
    Seen += b * ss_b + head * ss_h
    Bias += b * sb_b + head * sb_h
    D_bias += z.to(tl.int64) * n * m
    seed = tl.load(Seed) + z if DROPOUT else 0
    rows = block * BLOCK_M + tl.arange(0, BLOCK_M)
    q = _load(Q + b * sq_b + head * sq_h, rows, sq_n, d, n, BLOCK_D)
    d_out = _load(D_out + b * sd_b + head * sd_h, rows, sd_n, e, n, BLOCK_E)
    lse = tl.load(Lse + z.to(tl.int64) * n + rows, rows < n, float("inf"))
    delta = tl.load(Delta + z.to(tl.int64) * n + rows, rows < n, 0.0)
    first = block * BLOCK_M + m - n
    begin, end, full_begin, full_end = _bounds(first, first + BLOCK_M - 1, left, right, m, LEFT, RIGHT, BLOCK_N)
    dq = tl.zeros([BLOCK_M, BLOCK_D], tl.float32)
    if LEFT:
        dq = _queries(
            dq, q, d_out, lse, delta, K, V, sk_m, sv_m, Seen, Bias, D_bias, ss_n, ss_m, sb_n, sb_m, rows,
            begin, tl.minimum(full_begin, end), n, m, d, e, left, right, scale, dropout, seed,
            True, LEFT, RIGHT, SEEN, BIAS, D_BIAS, DROPOUT, BLOCK_D, BLOCK_E, BLOCK_N,
        )  # fmt: skip
    dq = _queries(
        dq, q, d_out, lse, delta, K, V, sk_m, sv_m, Seen, Bias, D_bias, ss_n, ss_m, sb_n, sb_m, rows,
        full_begin, full_end, n, m, d, e, left, right, scale, dropout, seed,
        False, LEFT, RIGHT, SEEN, BIAS, D_BIAS, DROPOUT, BLOCK_D, BLOCK_E, BLOCK_N,
    )  # fmt: skip
    dq = _queries(
        dq, q, d_out, lse, delta, K, V, sk_m, sv_m, Seen, Bias, D_bias, ss_n, ss_m, sb_n, sb_m, rows,
        full_end, end, n, m, d, e, left, right, scale, dropout, seed,
        True, LEFT, RIGHT, SEEN, BIAS, D_BIAS, DROPOUT, BLOCK_D, BLOCK_E, BLOCK_N,
    )  # fmt: skip
    features = tl.arange(0, BLOCK_D)
    at = (z.to(tl.int64) * n + rows)[:, None] * d + features[None, :]
    tl.store(DQ + at, (dq * scale).to(DQ.dtype.element_ty), (rows < n)[:, None] & (features < d)[None, :])


@triton.jit
def _keys(
    dk, dv, k, v, Q, D_out, Lse, Delta, sq_n, sd_n, Seen, Bias, ss_n, ss_m, sb_n, sb_m, columns, begin, end,
    n, m, d, e, left, right, scale, dropout, seed,
    EDGE: tl.constexpr, LEFT: tl.constexpr, RIGHT: tl.constexpr, SEEN: tl.constexpr, BIAS: tl.constexpr,
    DROPOUT: tl.constexpr, BLOCK_D: tl.constexpr, BLOCK_E: tl.constexpr, BLOCK_M: tl.constexpr,
):  # fmt: skip
    """Gradients that reach a block of keys and values from the queries from begin to end of one head."""
    for start in range(begin, end, BLOCK_M):
        rows = start + tl.arange(0, BLOCK_M)
        q = _load(Q, rows, sq_n, d, n, BLOCK_D)
        d_out = _load(D_out, rows, sd_n, e, n, BLOCK_E)
        lse = tl.load(Lse + rows, rows < n, float("inf"))
        delta = tl.load(Delta + rows, rows < n, 0.0)
        s = tl.dot(q, tl.trans(k), input_precision="ieee") * (scale * LOG2E)
        s = _scores(
            s,
            rows,
            columns,
            Seen,
            Bias,
            ss_n,
            ss_m,
            sb_n,
            sb_m,
            n,
            m,
            m - n,
            left,
            right,
            EDGE,
            LEFT,
            RIGHT,
            SEEN,
            BIAS,
        )
        weights = tl.exp2(s - lse[:, None])
        ds = tl.dot(d_out, tl.trans(v), input_precision="ieee")
        if DROPOUT:
            ds = _kept(ds, rows, columns, seed, m, dropout)
            kept = _kept(weights, rows, columns, seed, m, dropout).to(d_out.dtype)
        else:
            kept = weights.to(d_out.dtype)
        dv = tl.dot(tl.trans(kept), d_out, dv, input_precision="ieee")
        ds = weights * (ds - delta[:, None])
        dk = tl.dot(tl.trans(ds.to(q.dtype)), q, dk, input_precision="ieee")
    return dk, dv


@triton.jit(do_not_specialize=LENGTHS)
def backward_keys(
    Q, K, V, Seen, Bias, Seed, D_out, Lse, Delta, DK, DV,
    sq_b, sq_h, sq_n, sk_b, sk_g, sk_m, sv_b, sv_g, sv_m, ss_b, ss_h, ss_n, ss_m, sb_b, sb_h, sb_n, sb_m,
    sd_b, sd_h, sd_n, h, r, n, m, d, e, left, right, scale, dropout, size,
    LEFT: tl.constexpr, RIGHT: tl.constexpr, SEEN: tl.constexpr, BIAS: tl.constexpr, DROPOUT: tl.constexpr,
    BLOCK_D: tl.constexpr, BLOCK_E: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr,
):  # fmt: skip
    """A block of dk and dv (contiguous), summed over the heads that share them."""
    blocks = tl.cdiv(m, BLOCK_N)
    z, block = tl.program_id(0) // blocks, tl.program_id(0) % blocks
    g = h // r
    b, group = (z // g).to(tl.int64), (z % g).to(tl.int64)
    columns = block * BLOCK_N + tl.arange(0, BLOCK_N)
    k = _load(K + b * sk_b + group * sk_g, columns, sk_m, d, m, BLOCK_D)
    v = _load(V + b * sv_b + group * sv_g, columns, sv_m, e, m, BLOCK_E)
    # key j is seen by the queries from j - right to j + left: the reaches change places
    first = block * BLOCK_N - (m - n)
    begin, end, full_begin, full_end = _bounds(first, first + BLOCK_N - 1, right, left, n, RIGHT, LEFT, BLOCK_M)
    if (block + 1) * BLOCK_N > m:  # keys beyond the end have to be hidden from every query
        full_end = full_begin
    dk = tl.zeros([BLOCK_N, BLOCK_D], tl.float32)
    dv = tl.zeros([BLOCK_N, BLOCK_E], tl.float32)
    for i in range(r):
        head = group * r + i
        at = (b * h + head) * n
        seed = tl.load(Seed) + b * h + head if DROPOUT else 0
        Q_i = Q + b * sq_b + head * sq_h
        D_i = D_out + b * sd_b + head * sd_h
        Seen_i = Seen + b * ss_b + head * ss_h
        Bias_i = Bias + b * sb_b + head * sb_h
        if RIGHT:
            dk, dv = _keys(
                dk, dv, k, v, Q_i, D_i, Lse + at, Delta + at, sq_n, sd_n, Seen_i, Bias_i, ss_n, ss_m, sb_n, sb_m,
                columns, begin, tl.minimum(full_begin, end), n, m, d, e, left, right, scale, dropout, seed,
                True, LEFT, RIGHT, SEEN, BIAS, DROPOUT, BLOCK_D, BLOCK_E, BLOCK_M,
            )  # fmt: skip
        dk, dv = _keys(
            dk, dv, k, v, Q_i, D_i, Lse + at, Delta + at, sq_n, sd_n, Seen_i, Bias_i, ss_n, ss_m, sb_n, sb_m,
            columns, full_begin, full_end, n, m, d, e, left, right, scale, dropout, seed,
            False, LEFT, RIGHT, SEEN, BIAS, DROPOUT, BLOCK_D, BLOCK_E, BLOCK_M,
        )  # fmt: skip
        dk, dv = _keys(
            dk, dv, k, v, Q_i, D_i, Lse + at, Delta + at, sq_n, sd_n, Seen_i, Bias_i, ss_n, ss_m, sb_n, sb_m,
            columns, full_end, end, n, m, d, e, left, right, scale, dropout, seed,
            True, LEFT, RIGHT, SEEN, BIAS, DROPOUT, BLOCK_D, BLOCK_E, BLOCK_M,
        )  # fmt: skip
    z = z.to(tl.int64)
    features = tl.arange(0, BLOCK_D)
    at = (z * m + columns)[:, None] * d + features[None, :]
    tl.store(DK + at, (dk * scale).to(DK.dtype.element_ty), (columns < m)[:, None] & (features < d)[None, :])
    features = tl.arange(0, BLOCK_E)
    at = (z * m + columns)[:, None] * e + features[None, :]
    tl.store(DV + at, dv.to(DV.dtype.element_ty), (columns < m)[:, None] & (features < e)[None, :])
