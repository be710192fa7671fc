"""GLM against its equations in loops, against GPT-2 in a limit, and who hears of whom."""

import math

import pytest
import torch
from torch import nn

from helpers import assert_differs, assert_same, leaks, randomise
from papercode.attention.backends import auto
from papercode.attention.transformer import causal_mask
from papercode.decoders.gpt2 import GPT2
from papercode.encoder_decoders.glm import GLM, glm_mask

B, A, N, V, HEADS, D, D_FF, LAYERS, POSITIONS = 2, 7, 13, 23, 3, 21, 17, 2, 19
SHAPE = {"n_positions": POSITIONS, "d_model": D, "n_heads": HEADS, "d_ff": D_FF, "n_layers": LAYERS}


def model(seed=0, **kwargs):
    return randomise(GLM(V, **{**SHAPE, **kwargs}), seed).eval()


@pytest.fixture
def inputs():
    """Two texts with parts A of different lengths, and a span of part B in two pieces."""
    tokens = torch.randint(V, (B, N))
    context = torch.tensor([A, 5])
    positions = torch.arange(1, N + 1).repeat(B, 1)
    inner = torch.zeros(B, N, dtype=torch.long)
    positions[0, A:], positions[1, 5:10], positions[1, 10:] = 3, 4, 2
    inner[0, A:] = torch.arange(1, N - A + 1)
    inner[1, 5:10], inner[1, 10:] = torch.arange(1, 6), torch.arange(1, 4)
    return tokens, positions, inner, context


# references


def normalised(x, norm, eps=1e-5):
    mean = x.sum() / len(x)
    variance = ((x - mean) ** 2).sum() / len(x)
    return (x - mean) / torch.sqrt(variance + eps) * norm.gain + norm.bias


def gelu(x):
    return x * 0.5 * (1 + torch.erf(x / math.sqrt(2)))


def by_loops(glm, tokens, positions, inner, context):
    """Section 2.3, one position, head and pair at a time."""
    rows = []
    for b in range(len(tokens)):
        x = [
            glm.words.weight[t] + glm.positions.weight[p] + glm.inner.weight[i]
            for t, p, i in zip(tokens[b], positions[b], inner[b])
        ]
        for layer in glm.layers:
            a, f = layer.attention, layer.feed_forward
            y = [normalised(v, layer.residuals[0].norm) for v in x]
            q, k, v = ([m.weight @ u + m.bias for u in y] for m in (a.q, a.k, a.v))
            for i in range(len(x)):
                heads = []
                for h in range(HEADS):
                    part = slice(h * a.d_k, (h + 1) * a.d_k)
                    seen = [j for j in range(len(x)) if j < context[b] or (i >= context[b] and j <= i)]
                    e = [torch.exp(q[i][part] @ k[j][part] / math.sqrt(a.d_k)) for j in seen]
                    heads.append(sum(w * v[j][part] for w, j in zip(e, seen)) / sum(e))
                x[i] = x[i] + a.o.weight @ torch.cat(heads) + a.o.bias
            for i in range(len(x)):
                inside = gelu(f.expand.weight @ normalised(x[i], layer.residuals[1].norm) + f.expand.bias)
                x[i] = x[i] + f.contract.weight @ inside + f.contract.bias
        rows.append(torch.stack([glm.words.weight @ normalised(v, glm.norm) for v in x]))
    return torch.stack(rows)


def test_equals_its_equations(parity, inputs):
    glm = model()
    with torch.no_grad():
        expected = by_loops(glm, *inputs)
        parity("GLM", "the equations, with loops", "2 layers, parts A of two lengths", glm(*inputs), expected)
        tokens, positions, inner, context = inputs
        assert_differs(glm(tokens, positions, inner, context + 1), expected)
        assert_differs(glm(tokens, inner, positions, context), expected)
        assert_differs(model(1)(*inputs), expected)


def test_without_part_a_it_is_gpt2(parity):
    """GPT-2 has another GELU, and counts positions from 0."""
    glm, tokens = model(), torch.randint(V, (B, N))
    gpt = GPT2(V, n_positions=POSITIONS, d_model=D, n_heads=HEADS, d_ff=D_FF, n_layers=LAYERS).double().eval()
    state = {name: value for name, value in glm.state_dict().items() if name != "inner.weight"}
    state["positions.weight"] = state["positions.weight"][1:] + glm.inner.weight[0]
    gpt.load_state_dict(state)
    for layer in gpt.layers:
        layer.feed_forward.activation = nn.GELU()
    positions = torch.arange(1, N + 1).expand(B, -1)
    with torch.no_grad():
        ours = glm(tokens, positions, torch.zeros_like(positions), 0)
        parity("GLM", "papercode's GPT2", "all of the text in part B, no second position", ours, gpt(tokens))
        assert_differs(glm(tokens, positions, torch.zeros_like(positions), 3), gpt(tokens))


# the mask


def test_the_mask_of_figure_2():
    """By hand: part A of five tokens, part B of two spans with start tokens."""
    seen = glm_mask(5, 10).long().tolist()
    assert seen[:5] == [[1] * 5 + [0] * 5] * 5
    assert seen[5:] == [[1] * (6 + i) + [0] * (4 - i) for i in range(5)]


def test_limits_of_the_mask():
    assert torch.equal(glm_mask(0, N), causal_mask(N))
    assert glm_mask(N, N).all()
    assert torch.equal(glm_mask(4, 3, 9), glm_mask(4, 9)[-3:])
    rows = glm_mask(torch.tensor([4, 0]), 3, 9)
    assert rows.shape == (2, 1, 3, 9)
    assert torch.equal(rows[0, 0], glm_mask(4, 3, 9))
    assert torch.equal(rows[1, 0], glm_mask(0, 3, 9))


def test_who_hears_of_whom(inputs):
    """The claim: part A is deaf to part B; token i of part B hears all of part A and nothing later."""
    glm = model()
    tokens, positions, inner, _ = (x[:1] if isinstance(x, torch.Tensor) else x for x in inputs)
    where = torch.arange(N)

    def states(tokens):
        return glm.encode(tokens, positions, inner, A)[0]

    for at in range(N):
        changed = tokens.clone()
        changed[0, at] = (changed[0, at] + 1) % V
        moved = (states(tokens) != states(changed)).any(-1)
        assert torch.equal(moved, where >= (0 if at < A else at))
        assert not leaks(states, tokens, changed, ~moved)


def test_one_function_for_three_kinds_of_tasks(inputs):
    """Cloze, sequence to sequence and language modelling differ in where the blank is, and in nothing else."""
    glm, (tokens, positions, inner, _) = model(), inputs
    with torch.no_grad():
        for context in (1, A, N - 1):
            whole = glm(tokens, positions, inner, context)
            for end in range(context + 1, N + 1):  # what follows makes no difference to what was asked
                assert_same(glm(tokens[:, :end], positions[:, :end], inner[:, :end], context), whole[:, :end])


def test_both_positions_count(inputs):
    glm, (tokens, positions, inner, context) = model(), inputs
    with torch.no_grad():
        whole = glm(tokens, positions, inner, context)
        assert_differs(glm(tokens, positions + 1, inner, context), whole)
        assert_differs(glm(tokens, positions, inner + 1, context), whole)
        glm.positions.weight.zero_()
        glm.inner.weight.zero_()
        swapped = tokens.clone()
        swapped[:, [1, 3]] = swapped[:, [3, 1]]  # a set without positions: part B cannot tell
        assert_same(glm(swapped, positions, inner, context)[:, A:], glm(tokens, positions, inner, context)[:, A:])


def test_another_backend_gives_the_same(inputs):
    with torch.no_grad():
        assert_same(model(attend=auto)(*inputs), model()(*inputs))


def test_dropout_only_in_training(inputs):
    torch.manual_seed(0)
    glm = model(dropout=0.5)
    with torch.no_grad():
        assert torch.equal(glm(*inputs), glm(*inputs))
        assert_same(glm(*inputs), model()(*inputs))
        glm.train()
        assert_differs(glm(*inputs), glm(*inputs))
        assert_differs(glm.embed(*inputs[:3]), glm.embed(*inputs[:3]))
    layer = glm.layers[0]
    assert layer.attention.dropout == layer.residuals[0].dropout.p == glm.dropout.p == 0.5


def test_initial_weights():
    """BERT's: a normal of deviation 0.02, cut off; biases zero."""
    glm = GLM(997, n_positions=97, d_model=64, n_heads=2, n_layers=1)
    assert glm.words.weight.std().item() == pytest.approx(0.0176, abs=0.0005)
    assert glm.words.weight.abs().max() <= 0.04
    assert (glm.layers[0].attention.q.bias == 0).all()
    assert glm.norm.eps == glm.layers[0].residuals[0].norm.eps == 1e-5


@pytest.mark.parametrize(
    ("config", "millions"),
    [
        ({}, 110),
        ({"d_model": 1024, "n_heads": 16, "n_layers": 24}, 335),
        ({"d_model": 1024, "n_heads": 16, "n_layers": 30}, 410),
        ({"d_model": 1152, "n_heads": 18, "n_layers": 30}, 515),
    ],
)
def test_sizes(config, millions):
    with torch.device("meta"):
        glm = GLM(**config)
    assert sum(p.numel() for p in glm.parameters()) / 1e6 == pytest.approx(millions, rel=0.007)
    assert glm.layers[0].feed_forward.expand.out_features == 4 * config.get("d_model", 768)
    tokens = torch.zeros(2, 5, dtype=torch.long, device="meta")
    assert glm(tokens, tokens, tokens, 3).shape == (2, 5, 30_522)


def test_refused(inputs):
    tokens, positions, inner, context = inputs
    glm = model()
    assert glm(tokens, positions.clamp(min=POSITIONS), inner, context).shape == (B, N, V)
    with pytest.raises(ValueError, match="positions reach 20, but n_positions=19"):
        glm(tokens, positions.clamp(min=20), inner, context)
    with pytest.raises(ValueError, match="inner reach 20, but n_positions=19"):
        glm(tokens, positions, inner.clamp(min=20), context)
