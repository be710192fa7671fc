"""GLM-130B's block against its equations in loops and in limits, and its size."""

import math

import pytest
import torch

from helpers import assert_differs, assert_same, randomise
from papercode.attention.backends import auto
from papercode.attention.layer_norm import LayerNorm
from papercode.attention.transformer import EncoderLayer, FeedForward, PostNorm
from papercode.encoder_decoders.glm130b import GLM130B, DeepNorm, GeGLU, shrink

B, A, N, V, HEADS, D, D_FF, LAYERS = 2, 4, 11, 23, 3, 18, 29, 2
SHAPE = {"d_model": D, "n_heads": HEADS, "d_ff": D_FF, "n_layers": LAYERS}
F64 = torch.float64


def model(seed=0, **kwargs):
    return randomise(GLM130B(V, **{**SHAPE, **kwargs}), seed).eval()


@pytest.fixture
def inputs():
    tokens = torch.randint(V, (B, N))
    positions = torch.arange(N).repeat(B, 1)
    positions[1, 6:] = 3  # a short blank: part B stands where its mask token stood
    return tokens, positions, torch.tensor([A, 6])


def normalised(x, norm, eps=1e-5):
    mean = x.sum() / len(x)
    return (x - mean) / torch.sqrt(((x - mean) ** 2).sum() / len(x) + eps) * norm.gain + norm.bias


def turned(x, position):
    out = x.clone()
    for i in range(len(x) // 2):
        angle = position * 10_000 ** (-2 * i / len(x))
        a, b = x[2 * i], x[2 * i + 1]
        out[2 * i] = a * math.cos(angle) - b * math.sin(angle)
        out[2 * i + 1] = b * math.cos(angle) + a * math.sin(angle)
    return out


def by_loops(glm, tokens, positions, context):
    alpha, rows = math.sqrt(2 * LAYERS), []
    for b in range(len(tokens)):
        x = [glm.words.weight[t] for t in tokens[b]]
        for layer in glm.layers:
            a, f = layer.attention, layer.feed_forward
            q, k, v = ([m.weight @ u + m.bias for u in x] for m in (a.q, a.k, a.v))
            y = []
            for i in range(len(x)):
                heads = []
                for h in range(HEADS):
                    part = slice(h * a.d_k, (h + 1) * a.d_k)
                    seen = [j for j in range(len(x)) if j < context[b] or (i >= context[b] and j <= i)]
                    asks = turned(q[i][part], positions[b, i].item())
                    e = [torch.exp(asks @ turned(k[j][part], positions[b, j].item()) / math.sqrt(a.d_k)) for j in seen]
                    heads.append(sum(w * v[j][part] for w, j in zip(e, seen)) / sum(e))
                y.append(normalised(alpha * x[i] + a.o.weight @ torch.cat(heads) + a.o.bias, layer.residuals[0].norm))
            x = []
            for u in y:
                gate = f.gate.weight @ u + f.gate.bias
                inside = gate * 0.5 * (1 + torch.erf(gate / math.sqrt(2))) * (f.expand.weight @ u + f.expand.bias)
                x.append(normalised(alpha * u + f.contract.weight @ inside + f.contract.bias, layer.residuals[1].norm))
        rows.append(torch.stack([glm.words.weight @ u for u in x]))
    return torch.stack(rows)


def test_equals_its_equations(parity, inputs):
    glm = model()
    with torch.no_grad():
        expected = by_loops(glm, *inputs)
        parity("GLM-130B", "the equations, with loops", "2 layers, parts A of two lengths", glm(*inputs), expected)
        tokens, positions, context = inputs
        assert_differs(glm(tokens, torch.arange(N).expand(B, -1), context), expected)
        assert_differs(glm(tokens, positions, context - 1), expected)
        for layer in glm.layers:
            layer.residuals[0].alpha = 1.0
        assert_differs(glm(*inputs), expected)


def test_deep_norm_by_hand_and_in_the_limit():
    """alpha 2: 2 · (0, 2) + (1, 1) = (1, 5), normalised to (-1, 1)."""
    norm = LayerNorm(2, eps=0.0)
    found = DeepNorm(norm, 2.0)(torch.tensor([[[0.0, 2.0]]]), torch.ones_like)
    assert found.flatten().tolist() == pytest.approx([-1, 1])
    x, network = torch.randn(B, N, D, dtype=F64), randomise(FeedForward(D, D_FF))
    norm = randomise(LayerNorm(D))
    assert_same(DeepNorm(norm, 1.0)(x, network), PostNorm(norm)(x, network))
    assert_differs(DeepNorm(norm, 1.5)(x, network), PostNorm(norm)(x, network))
    assert_same(DeepNorm(norm, 1e9)(x, network), norm(x), tolerance=1e-5)  # the sublayer hardly counts
    dropped = DeepNorm(norm, 2.0, dropout=0.5)(x, network)
    assert_differs(dropped, DeepNorm(norm, 2.0)(x, network))


def test_geglu_by_hand():
    network = GeGLU(1, 1).double()
    with torch.no_grad():
        for p in network.parameters():
            p.fill_(1.0)
    half = torch.tensor([[2.0]], dtype=F64)  # gate 3, expand 3: gelu(3) · 3 + 1
    assert network(half).item() == pytest.approx(3 * 3 * 0.5 * (1 + math.erf(3 / math.sqrt(2))) + 1)
    assert network.gate is not network.expand


def test_geglu_has_as_many_weights_at_two_thirds():
    with torch.device("meta"):
        gated, plain = GeGLU(12_288, 32_768), FeedForward(12_288, 4 * 12_288)
    assert sum(p.numel() for p in gated.parameters() if p.ndim > 1) == sum(
        p.numel() for p in plain.parameters() if p.ndim > 1
    )


@pytest.mark.parametrize("alpha", [0.0, 0.1, 0.25, 1.0])
def test_shrink_keeps_the_value_and_scales_the_gradient(alpha):
    x = torch.randn(5, 7, dtype=F64, requires_grad=True)
    weight = torch.randn(5, 7, dtype=F64)
    assert_same(shrink(x, alpha), x, tolerance=1e-15)
    (shrink(x, alpha) * weight).sum().backward()
    assert torch.equal(x.grad, weight * alpha)


def test_only_the_input_side_of_the_embeddings_is_shrunk(inputs):
    grads = {}
    for shrinkage in (1.0, 0.1, 0.0):
        glm = model(shrinkage=shrinkage)
        glm(*inputs).square().sum().backward()
        grads[shrinkage] = glm.words.weight.grad, glm.layers[0].attention.q.weight.grad
    (whole, q), (tenth, q_tenth), (output, _) = grads.values()
    assert_same(q_tenth, q)
    assert_same(tenth - output, 0.1 * (whole - output))
    assert (whole - output).abs().max() > 1
    assert output.abs().max() > 1
    default = GLM130B(V, **SHAPE)
    assert default.shrinkage == 0.1


def test_part_a_is_deaf_to_part_b(inputs):
    glm = model()
    tokens, positions = inputs[0][:1], inputs[1][:1]
    for at in range(N):
        changed = tokens.clone()
        changed[0, at] = (changed[0, at] + 1) % V
        moved = (glm.encode(tokens, positions, A) != glm.encode(changed, positions, A)).any(-1)[0]
        assert torch.equal(moved, torch.arange(N) >= (0 if at < A else at))


def test_positions_are_relative(inputs):
    glm, (tokens, positions, context) = model(), inputs
    with torch.no_grad():
        assert_same(glm(tokens, positions + 100, context), glm(tokens, positions, context))
        assert_differs(glm(tokens, 2 * positions, context), glm(tokens, positions, context))


def test_another_backend_gives_the_same(inputs):
    with torch.no_grad():
        assert_same(model(attend=auto)(*inputs), model()(*inputs))


def test_initial_weights():
    """Xavier normal times (2N)^(-1/2) in networks, values and outputs; 0.02 elsewhere."""
    torch.manual_seed(0)
    d, f, n = 96, 256, 8
    glm = GLM130B(997, d_model=d, n_heads=2, d_ff=f, n_layers=n)
    for layer in glm.layers:
        a, g = layer.attention, layer.feed_forward
        for linear in (a.v, a.o, g.gate, g.expand, g.contract):
            o, i = linear.weight.shape
            assert linear.weight.std().item() == pytest.approx((2 / (o + i)) ** 0.5 * (2 * n) ** -0.5, rel=0.05)
            assert (linear.bias == 0).all()
        for linear in (a.q, a.k):
            assert linear.weight.std().item() == pytest.approx(0.02, rel=0.05)
        assert layer.residuals[0].alpha == layer.residuals[1].alpha == 4.0
    assert glm.words.weight.std().item() == pytest.approx(0.02, rel=0.05)


def test_size():
    with torch.device("meta"):
        glm = GLM130B()
    count = sum(p.numel() for p in glm.parameters())
    d, f = 12_288, 32_768
    layer = 4 * d * d + 4 * d + 3 * d * f + 2 * f + d + 4 * d
    assert count == 70 * layer + 150_528 * d == 128_697_769_984
    assert isinstance(glm.layers[0], EncoderLayer)
    assert glm.layers[0].residuals[0].alpha == pytest.approx(140**0.5)
    assert glm.layers[0].attention.d_k == 128
