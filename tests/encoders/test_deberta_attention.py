"""Disentangled attention against Eq. 2 to 4 written out with loops, and by what must not change."""

import pytest
import torch

from helpers import assert_differs, assert_same, randomise
from papercode.attention.backends import sdpa
from papercode.encoders.deberta_attention import DisentangledAttention, Relative, RelativeTable, clipped

B, N, HEADS, D = 2, 7, 3, 5
D_MODEL = HEADS * D


def made(k=3, **changes):
    """An attention and a table, every parameter drawn."""
    attention = randomise(DisentangledAttention(D_MODEL, HEADS, **changes)).eval()
    return attention, randomise(RelativeTable(k, D_MODEL), seed=1)


def states(n=N, b=B):
    return torch.randn(b, n, D_MODEL, dtype=torch.float64)


def delta(i, j, k):
    """Eq. 3."""
    if i - j <= -k:
        return 0
    if i - j >= k:
        return 2 * k - 1
    return i - j + k


def equations(attention, table, x, k, memory=None, keep=None, same_distance=False, c2p=True, p2c=True):
    """Eq. 4, one pair of words after the other, with the whole table and a vector for each pair."""
    memory = x if memory is None else memory
    out = torch.zeros_like(x)
    for b in range(len(x)):
        heads = []
        for h in range(HEADS):
            rows = slice(h * D, (h + 1) * D)

            def mapped(layer, y, rows=rows):
                bias = 0 if layer.bias is None else layer.bias[rows]
                return layer.weight[rows] @ y + bias

            head = []
            for i in range(x.shape[1]):
                scores, values = [], []
                for j in range(x.shape[1]):
                    if keep is not None and not keep[b, j]:
                        continue
                    q, key = mapped(attention.q, x[b, i]), mapped(attention.k, memory[b, j])
                    score = q @ key
                    if c2p:
                        score = score + q @ mapped(attention.position_k, table[delta(i, j, k)])
                    if p2c:
                        row = delta(i, j, k) if same_distance else delta(j, i, k)
                        score = score + key @ mapped(attention.position_q, table[row])
                    scores.append(score / (D * (1 + c2p + p2c)) ** 0.5)
                    values.append(mapped(attention.v, memory[b, j]))
                head.append(torch.stack(scores).softmax(0) @ torch.stack(values))
            heads.append(torch.stack(head))
        out[b] = torch.cat(heads, -1) @ attention.o.weight.T + attention.o.bias
    return out


@pytest.mark.parametrize("k", [1, 2, 3, 7, 8, 11])
@pytest.mark.parametrize("same_distance", [False, True])
def test_the_equations(parity, k, same_distance):
    attention, relative = made(k, same_distance=same_distance)
    x, table = states(), relative.vectors.weight
    with torch.no_grad():
        found = attention(x, relative=relative(N))
        label = f"n = {N}, k = {k}, {'released' if same_distance else 'Eq. 4'}"
        wanted = equations(attention, table, x, k, same_distance=same_distance)
        parity("DisentangledAttention", "the equations, with loops", label, found, wanted)
        assert_differs(found, equations(attention, table, x, k, same_distance=not same_distance))


@pytest.mark.parametrize(("c2p", "p2c"), [(True, False), (False, True), (False, False)])
def test_without_a_term(parity, c2p, p2c):
    attention, relative = made(c2p=c2p, p2c=p2c)
    x = states()
    with torch.no_grad():
        wanted = equations(attention, relative.vectors.weight, x, 3, c2p=c2p, p2c=p2c)
        label = "c2c" + " + c2p" * c2p + " + p2c" * p2c
        found = attention(x, relative=relative(N))
        parity("DisentangledAttention", "the equations, with loops", label, found, wanted)
    assert attention.scale == pytest.approx((D * (1 + c2p + p2c)) ** -0.5)
    assert not any(name.startswith("position_k") for name in attention.state_dict()) or c2p
    assert not any(name.startswith("position_q") for name in attention.state_dict()) or p2c


def test_queries_from_elsewhere_and_padding(parity):
    attention, relative = made()
    x, memory, keep = states(), states(), torch.arange(N) < torch.tensor([[N], [4]])
    with torch.no_grad():
        wanted = equations(attention, relative.vectors.weight, x, 3, memory, keep)
        found = attention(x, memory, relative=relative(N), mask=keep[:, None, None, :])
        parity("DisentangledAttention", "the equations, with loops", "memory, padding", found, wanted)
        assert_differs(attention(x, memory, relative=relative(N)), wanted)
        attention.attend = sdpa
        assert_same(attention(x, memory, relative=relative(N), mask=keep[:, None, None, :]), wanted)


def test_distances_by_hand():
    """k = 2: rows 0 to 3 for the distances -2, -1, 0 and 1; what is farther shares the ends."""
    assert clipped(torch.arange(-4, 5), 2).tolist() == [0, 0, 0, 1, 2, 3, 3, 3, 3]
    assert RelativeTable(2, 5)(4).rows.tolist() == [[2, 1, 0, 0], [3, 2, 1, 0], [3, 3, 2, 1], [3, 3, 3, 2]]


@pytest.mark.parametrize("n", [1, 2, 3, 5, 6, 13])
def test_only_rows_that_occur_are_looked_at(n):
    k = 5
    relative = RelativeTable(k, D_MODEL)
    table, rows = relative(n)
    whole = torch.tensor([[delta(i, j, k) for j in range(n)] for i in range(n)])
    assert_same(table[rows], relative.vectors.weight[whole])
    assert rows.min() == 0
    assert rows.max() == len(table) - 1
    assert len(table) == len(whole.unique())


def test_scores_by_hand():
    """One head of width 1, all maps the identity, two words; k = 1: row 0 is what lies ahead, row 1 the rest."""
    attention, relative = DisentangledAttention(1, 1).double(), RelativeTable(1, 1).double()
    with torch.no_grad():
        for parameter in attention.parameters():
            parameter.fill_(1.0 if parameter.ndim == 2 else 0.0)
        relative.vectors.weight.copy_(torch.tensor([[10.0], [100.0]]))
    x = torch.tensor([[[2.0], [3.0]]], dtype=torch.float64)
    found = attention.terms(x, relative=relative(2))
    assert found.c2c[0, 0].tolist() == [[4, 6], [6, 9]]
    assert found.c2p[0, 0].tolist() == [[200, 20], [300, 300]]  # word 1 looks ahead to word 2: 2 times 10
    assert found.p2c[0, 0].tolist() == [[200, 300], [20, 300]]  # key 2, seen from 1, lies at delta(2, 1): 3 times 100
    attention.same_distance = True
    assert attention.terms(x, relative=relative(2)).p2c[0, 0].tolist() == [[200, 30], [200, 300]]


def test_a_term_is_changed_by_its_own_map_alone():
    attention, relative = made()
    x, names = states(), ("c2c", "c2p", "p2c")
    before = attention.terms(x, relative=relative(N))
    for changed, reached in {"position_k": {"c2p"}, "position_q": {"p2c"}, "q": {"c2c", "c2p"}, "k": {"c2c", "p2c"},
                             "v": set()}.items():  # fmt: skip
        other, _ = made()
        with torch.no_grad():
            getattr(other, changed).weight.mul_(2)
        after = other.terms(x, relative=relative(N))
        assert {name for name in names if not torch.equal(getattr(before, name), getattr(after, name))} == reached
    for gone in ("c2p", "p2c"):
        other, _ = made()
        setattr(other, gone, False)
        after = other.terms(x, relative=relative(N))
        assert getattr(after, gone) is None
        assert all(torch.equal(getattr(before, name), getattr(after, name)) for name in names if name != gone)


def test_terms_are_what_is_added():
    attention, relative = made()
    x = states()
    c2c, c2p, p2c = attention.terms(x, relative=relative(N))
    weights = ((c2c + c2p + p2c) / (3 * D) ** 0.5).softmax(-1)
    wanted = attention.o((weights @ attention.heads(attention.v(x))).transpose(1, 2).flatten(2))
    assert_same(attention(x, relative=relative(N)), wanted)


def test_position_terms_do_not_depend_on_where():
    """c2p of the same word at the same distance, wherever the two are."""
    attention, relative = made(k=N)
    x = states(1, 1).expand(1, N, -1)
    _, c2p, p2c = attention.terms(x, relative=relative(N))
    for part in (c2p, p2c):
        for distance in range(1 - N, N):
            line = part[0, :, :].diagonal(distance, -2, -1)
            assert_same(line, line[:, :1].expand_as(line))
        assert_differs(part[0].diagonal(1, -2, -1)[:, :1], part[0].diagonal(-1, -2, -1)[:, :1])


def test_dropout_falls_on_the_table_and_the_weights():
    attention, relative = made(dropout=0.5)
    x = states()
    plain = attention.terms(x, relative=relative(N))
    assert torch.equal(attention.terms(x, relative=relative(N)).c2p, plain.c2p)
    attention.train()
    dropped = attention.terms(x, relative=relative(N))
    assert torch.equal(dropped.c2c, plain.c2c)
    assert_differs(dropped.c2p, plain.c2p)
    assert_differs(dropped.p2c, plain.p2c)
    given = []
    attention.attend = lambda q, k, v, **kwargs: given.append(kwargs["dropout"]) or v
    attention(x, relative=relative(N))
    attention.eval()(x, relative=relative(N))
    assert given == [0.5, 0.0]


def test_nothing_is_as_wide_as_a_vector_for_each_pair():
    attention, relative = made(k=2)
    n, sizes = 211, []

    class Sizes(torch.utils._python_dispatch.TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            out = func(*args, **(kwargs or {}))
            if isinstance(out, torch.Tensor):
                sizes.append(out.numel())
            return out

    with torch.no_grad(), Sizes():
        attention(states(n, 1), relative=relative(n))
    assert n * n <= max(sizes) <= HEADS * n * n < n * n * D_MODEL


def test_biases_are_those_of_the_authors_code():
    attention, _ = made()
    names = {name for name in attention.state_dict() if name.endswith("bias")}
    assert names == {"q.bias", "v.bias", "o.bias", "position_q.bias"}


def test_gradients():
    attention, relative = made(k=2)
    small = states(4, 1)
    vectors = relative.vectors.weight.detach().clone().requires_grad_()
    rows = relative(4).rows
    assert torch.autograd.gradcheck(
        lambda x, table: attention(x, relative=Relative(table, rows)), (small.requires_grad_(), vectors)
    )


def test_errors():
    attention, relative = made()
    with pytest.raises(ValueError, match=r"relative is for \(5, 5\) positions, but there are \(7, 7\)"):
        attention(states(), relative=relative(5))
    with pytest.raises(ValueError, match="k=0 must be at least 1"):
        RelativeTable(0, 5)
    with pytest.raises(ValueError, match="d_model=7 is not divisible by n_heads=3"):
        DisentangledAttention(7, 3)
