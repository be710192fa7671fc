"""Wrong arguments are refused by name, value and relation; right ones pass."""

import pytest
import torch

from papercode.attention.arguments import check, dense
from papercode.attention.masks import Band
from papercode.attention.transformer import attention, causal_mask

B, H, G, N, M, D, E = 2, 6, 3, 5, 7, 11, 13


def tensors(**changed):
    shapes = {"q": (B, H, N, D), "k": (B, G, M, D), "v": (B, G, M, E)} | changed
    return [x if isinstance(x, torch.Tensor) else torch.randn(x) for x in shapes.values()]


def test_right_arguments_pass():
    for shape in [(M,), (N, M), (B, 1, 1, M), (1, H, N, 1)]:
        assert check(*tensors(), torch.ones(shape, dtype=torch.bool), torch.zeros(shape)) is None
    assert check(*tensors(), causal_mask, dropout=0.5) is None
    assert check(*tensors(), Band(2, 0)) is None


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"k": (B, G, M, D + 1)}, "k has width 12, but q has width 11"),
        ({"v": (B, G, M + 1, E)}, r"v has \(heads, positions\) \(3, 8\), but k has \(3, 7\)"),
        ({"v": (B, 1, M, E)}, r"v has \(heads, positions\) \(1, 7\), but k has \(3, 7\)"),
        ({"k": (B, 4, M, D), "v": (B, 4, M, E)}, "q has 6 heads, no multiple of the 4 heads of k and v"),
        ({"k": (B, 0, M, D), "v": (B, 0, M, E)}, "q has 6 heads, no multiple of the 0 heads"),
        ({"k": (B, 12, M, D), "v": (B, 12, M, E)}, "q has 6 heads, no multiple of the 12 heads"),
        ({"v": (1, G, M, E)}, "v has batch 1, but q has batch 2"),
        ({"k": (G, M, D)}, r"k must be \(batch, heads, positions, width\), got shape \(3, 7, 11\)"),
        ({"v": torch.randn(B, G, M, E).half()}, "must share one dtype, got v.dtype=torch.float16 and q.dtype=torch.fl"),
        ({"k": torch.empty(B, G, M, D, device="meta")}, "k is on meta, but q is on cpu"),
    ],
)
def test_what_does_not_go_together(changed, message):
    with pytest.raises(ValueError, match=message):
        check(*tensors(**changed))


def test_what_is_of_the_wrong_kind():
    with pytest.raises(TypeError, match=r"v must be a tensor of floats, got torch.int64"):
        check(*tensors(v=torch.ones(B, G, M, E, dtype=torch.int64)))
    with pytest.raises(TypeError, match=r"mask must be bool \(True = may attend\), got torch.float32; pass additive"):
        check(*tensors(), torch.zeros(N, M))
    with pytest.raises(TypeError, match=r"mask must be a bool tensor or a function that makes one, got str"):
        check(*tensors(), "causal")
    with pytest.raises(TypeError, match=r"bias must be a tensor of floats, got torch.bool; pass a bool mask as mask="):
        check(*tensors(), None, torch.ones(N, M, dtype=torch.bool))


@pytest.mark.parametrize("shape", [(M, N), (3, 1, 1, M), (1, B, H, N, M), (4, N, M)])
def test_masks_and_biases_must_broadcast(shape):
    with pytest.raises(ValueError, match=r"mask of shape .* does not broadcast to .*\(2, 6, 5, 7\)"):
        check(*tensors(), torch.ones(shape, dtype=torch.bool))
    with pytest.raises(ValueError, match=r"bias of shape .* does not broadcast to .*\(2, 6, 5, 7\)"):
        check(*tensors(), None, torch.ones(shape))


def test_masks_and_biases_must_be_where_q_is():
    with pytest.raises(ValueError, match="mask is on meta, but q is on cpu"):
        check(*tensors(), torch.ones(N, M, dtype=torch.bool, device="meta"))
    with pytest.raises(ValueError, match="bias is on meta, but q is on cpu"):
        check(*tensors(), None, torch.ones(N, M, device="meta"))


@pytest.mark.parametrize("dropout", [-0.1, 1.0, 2])
def test_dropout_is_a_probability(dropout):
    with pytest.raises(ValueError, match=rf"dropout={dropout} must be at least 0 and less than 1"):
        check(*tensors(), dropout=dropout)


def test_a_function_is_asked_for_its_mask():
    q, k, _ = tensors()
    assert torch.equal(dense(causal_mask, q, k), causal_mask(N, M))
    assert dense(None, q, k) is None
    mask = torch.ones(N, M, dtype=torch.bool)
    assert dense(mask, q, k) is mask
    with pytest.raises(TypeError, match="mask must be bool"):
        dense(lambda n, m, device: torch.zeros(n, m), q, k)
    with pytest.raises(ValueError, match="does not broadcast"):
        dense(lambda n, m, device: torch.ones(m, n, dtype=torch.bool), q, k)


def test_attention_checks_first():
    q, k, v = tensors()
    with pytest.raises(ValueError, match=r"dropout=1\.5"):
        attention(q, k, v, dropout=1.5)
    with pytest.raises(ValueError, match="mask of shape"):
        attention(q, k, v, mask=torch.ones(M, N, dtype=torch.bool))
