"""The loss of a language model in chunks: the same numbers, and never all logits at once."""

import math
import subprocess
import sys

import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy, linear
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.checkpoint import checkpoint

from helpers import assert_differs, assert_same
from papercode.chunked_loss import chunked_cross_entropy

N, D, V = 13, 5, 17


def given(*shape, dtype=torch.float64, device="cpu"):
    hidden, weight, bias = (torch.randn(*s, dtype=torch.float64) for s in ((*shape, D), (V, D), (V,)))
    target = torch.randint(V, shape)
    target[torch.rand(shape) < 0.3] = -100
    return *(t.to(device, dtype).requires_grad_() for t in (hidden, weight, bias)), target.to(device)


def plain(hidden, weight, target, *, bias=None, ignore_index=-100, mean=True):
    logits = linear(hidden, weight, bias).flatten(0, -2)
    return cross_entropy(logits, target.flatten(), ignore_index=ignore_index, reduction="mean" if mean else "sum")


def test_by_hand():
    """Logits 0 and ln 3, target the second: loss ln 4 - ln 3, gradient of the logits (1/4, -1/4)."""
    hidden = torch.ones(1, 1, requires_grad=True)
    weight = torch.tensor([[0.0], [math.log(3)]], requires_grad=True)
    loss = chunked_cross_entropy(hidden, weight, torch.tensor([1]))
    assert loss.item() == pytest.approx(math.log(4 / 3))
    loss.backward()
    assert hidden.grad.item() == pytest.approx(-math.log(3) / 4)
    assert weight.grad.flatten().tolist() == pytest.approx([0.25, -0.25])


@pytest.mark.parametrize("rows", [1, 3, 13, 100])
@pytest.mark.parametrize("mean", [True, False])
@pytest.mark.parametrize("ignore_index", [-100, 2])
@pytest.mark.parametrize("shape", [(N,), (2, 3)])
def test_equals_the_plain_expression(shape, ignore_index, mean, rows):
    *tensors, target = given(*shape)
    target = target.masked_fill(target == -100, ignore_index)
    hidden, weight, bias = tensors
    options = {"bias": bias, "ignore_index": ignore_index, "mean": mean}
    ours = chunked_cross_entropy(hidden, weight, target, rows=rows, **options)
    theirs = plain(hidden, weight, target, **options)
    assert_same(ours, theirs)
    for mine, other in zip(torch.autograd.grad(3 * ours, tensors), torch.autograd.grad(3 * theirs, tensors)):
        assert_same(mine, other)
    assert_differs(ours, plain(hidden, weight, target, **options | {"mean": not mean}))
    assert_differs(ours, plain(hidden, weight, target, **options | {"bias": None}))


def test_gradients_are_right():
    hidden, weight, bias, target = given(N)

    def function(hidden, weight, bias):
        return chunked_cross_entropy(hidden, weight, target, bias=bias, rows=3)

    assert torch.autograd.gradcheck(function, (hidden, weight, bias))
    loss = function(hidden, weight, bias)
    with pytest.raises(RuntimeError, match="chunked_cross_entropy cannot be differentiated twice"):
        torch.autograd.grad(loss, hidden, create_graph=True)


@pytest.mark.parametrize("which", range(3))
def test_each_gradient_alone(which):
    *tensors, target = given(N)
    for i, tensor in enumerate(tensors):
        tensor.requires_grad_(i == which)
    hidden, weight, bias = tensors
    (ours,) = torch.autograd.grad(chunked_cross_entropy(hidden, weight, target, bias=bias, rows=3), tensors[which])
    (theirs,) = torch.autograd.grad(plain(hidden, weight, target, bias=bias), tensors[which])
    assert_same(ours, theirs)


def test_backward_twice_adds_up():
    hidden, weight, _, target = given(N)
    loss = chunked_cross_entropy(hidden, weight, target)
    loss.backward(retain_graph=True)
    once = hidden.grad.clone()
    loss.backward()
    assert_same(hidden.grad, 2 * once)


def test_what_does_not_count_has_no_gradient_and_no_say():
    hidden, weight, _, target = given(N)
    target[4] = -100
    loss = chunked_cross_entropy(hidden, weight, target, rows=3)
    dx, dW = torch.autograd.grad(loss, [hidden, weight])
    assert dx[4].abs().max() == 0
    assert dx[target != -100].abs().amin(0).min() > 0
    other = hidden.detach().clone()
    other[4] = 1e3
    other.requires_grad_()
    again = chunked_cross_entropy(other, weight, target, rows=3)
    assert_same(again, loss)
    assert_same(torch.autograd.grad(again, weight)[0], dW)
    other = other.detach().clone()
    other[4] = torch.nan
    assert_same(chunked_cross_entropy(other, weight, target, rows=3), loss)


def test_no_target_at_all():
    hidden, weight, _, target = given(N)
    none = torch.full_like(target, -100)
    for function in (chunked_cross_entropy, plain):
        assert function(hidden, weight, none).isnan()
        assert function(hidden, weight, none, mean=False) == 0
        assert torch.autograd.grad(function(hidden, weight, none), hidden)[0].abs().max() == 0
        assert function(hidden[:0], weight, none[:0]).isnan()


def test_large_logits_do_not_overflow():
    hidden, weight, _, target = given(N)
    with torch.no_grad():
        hidden *= 1e4
    assert_same(chunked_cross_entropy(hidden, weight, target), plain(hidden, weight, target))


def error(values, truth):
    return max(((v.double().cpu() - t).norm() / t.norm()).item() for v, t in zip(values, truth))


@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
def test_in_low_precision_no_further_from_the_truth_than_the_plain_expression(dtype, device):
    *tensors, target = given(N, dtype=dtype, device=device)
    exact = [t.detach().double().cpu().requires_grad_() for t in tensors]

    def results(function, hidden, weight, bias, **kwargs):
        loss = function(hidden, weight, target.to(hidden.device), bias=bias, **kwargs)
        return [loss, *torch.autograd.grad(loss, [hidden, weight, bias])]

    truth, theirs = results(plain, *exact), results(plain, *tensors)
    ours = results(chunked_cross_entropy, *tensors, rows=3)
    assert ours[0].dtype == torch.float32
    assert [t.dtype for t in ours[1:]] == [dtype] * 3
    assert error(ours, truth) < 2 * error(theirs, truth) + torch.finfo(dtype).eps
    assert error(ours, results(plain, *exact[:2], 1.2 * exact[2])) > 0.02


def test_the_gradient_of_the_weight_is_summed_in_float32():
    """In bfloat16 a sum of ones stops at 256."""
    weight, target = torch.zeros(2, 1, dtype=torch.bfloat16, requires_grad=True), torch.ones(4096).long()
    loss = chunked_cross_entropy(torch.ones(4096, 1, dtype=torch.bfloat16), weight, target, mean=False, rows=2)
    assert torch.autograd.grad(loss, weight)[0].flatten().tolist() == [2048, -2048]


def test_small_gradients_survive_in_float16():
    """With 1 / n inside they would be rounded to zero before a loss scale could lift them."""
    hidden, weight, target = torch.full((4096, 1), 0.5), torch.tensor([[0.0], [6.0]]), torch.ones(4096).long()
    small = hidden.half().requires_grad_()
    (2**16 * chunked_cross_entropy(small, weight.half() / 256, target)).backward()
    exact = hidden.double().requires_grad_()
    (2**16 * plain(exact, weight.double() / 256, target)).backward()
    assert exact.grad.abs().max() / 2**16 < torch.finfo(torch.float16).smallest_normal
    assert_same(small.grad.double(), exact.grad, 0.002)


@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
def test_under_autocast(device):
    *tensors, target = given(N, dtype=torch.float32, device=device)
    hidden, weight, bias = tensors
    with torch.autocast(device, torch.bfloat16):
        ours = chunked_cross_entropy(hidden, weight, target, bias=bias)
        theirs = plain(hidden, weight, target, bias=bias)
        double = [t.double() for t in tensors[:2]]
        assert chunked_cross_entropy(*double, target).dtype == torch.float64
    exact = plain(hidden, weight, target, bias=bias)
    assert ours.dtype == theirs.dtype == torch.float32
    assert 0 < abs(ours - exact) < 0.05
    for mine, other in zip(torch.autograd.grad(ours, tensors), torch.autograd.grad(exact, tensors)):
        assert mine.dtype == torch.float32
        assert (mine - other).norm() < 0.02 * other.norm()


class Largest(TorchDispatchMode):
    """The largest tensor that any operation gives, in numbers."""

    numbers = products = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        out = function(*args, **(kwargs or {}))
        self.numbers = max(self.numbers, *(t.numel() for t in [out] if isinstance(t, torch.Tensor)), 0)
        self.products += function.overloadpacket.__name__ in ("mm", "addmm", "linear")
        return out


def test_never_holds_all_logits_and_does_no_work_that_nobody_wants():
    hidden, weight, _, target = given(101)
    weight.requires_grad_(False)
    with Largest() as ours:
        chunked_cross_entropy(hidden, weight, target, rows=4).backward()
    with Largest() as theirs:
        plain(hidden, weight, target).backward()
    assert ours.numbers == 101 * D
    assert theirs.numbers == 101 * V
    assert ours.products == 2 * math.ceil(101 / 4)
    for without in (torch.no_grad(), torch.inference_mode()):
        with without, Largest() as ours:
            assert not chunked_cross_entropy(hidden, weight, target, rows=4).requires_grad
        assert ours.products == math.ceil(101 / 4)


@pytest.mark.parametrize("reentrant", [True, False])
def test_under_gradient_checkpointing_with_a_tied_table(reentrant):
    table, _, _, target = nn.Embedding(V, D).double(), *given(N)[1:]
    words = torch.randint(V, (N,))

    def through(hidden):
        return chunked_cross_entropy(torch.tanh(hidden), table.weight, target, rows=3)

    checkpoint(through, table(words), use_reentrant=reentrant).backward()
    ours = table.weight.grad
    table.weight.grad = None
    plain(torch.tanh(table(words)), table.weight, target).backward()
    assert_same(ours, table.weight.grad)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"target": torch.zeros(3).long()}, ValueError, r"target has shape \(3,\), but hidden \(2, 5\)"),
        ({"weight": torch.zeros(7, 4)}, ValueError, r"weight has shape \(7, 4\), but hidden \(2, 5\): widths"),
        ({"bias": torch.zeros(5)}, ValueError, r"bias has shape \(5,\), but weight \(7, 5\): one number a word"),
        ({"weight": torch.zeros(7, 5).half()}, ValueError, r"weight is torch.float16, but hidden torch.float32"),
        ({"rows": 0}, ValueError, "rows=0 must be at least 1"),
        ({"target": torch.tensor([0, 7])}, RuntimeError, "out of bounds"),
        ({"target": torch.tensor([0, -1])}, RuntimeError, "out of bounds"),
    ],
)
def test_errors(change, error, message):
    arguments = {"hidden": torch.zeros(2, 5), "weight": torch.zeros(7, 5), "target": torch.zeros(2).long()} | change
    function = getattr(chunked_cross_entropy, "__wrapped__", chunked_cross_entropy)  # before shapes are checked for us
    with pytest.raises(error, match=message):
        function(**arguments)


COMPILED = """
import sys, warnings
import torch
from torch.nn.functional import cross_entropy
from papercode.chunked_loss import chunked_cross_entropy
warnings.filterwarnings("ignore", ".*should not be instantiated", DeprecationWarning)
warnings.filterwarnings("ignore", ".*torch.jit.script", DeprecationWarning)
torch.set_num_threads(1)
x, W, t = torch.randn(13, 5, requires_grad=True), torch.randn(17, 5), torch.randint(17, (13,))
def loss(x):
    return chunked_cross_entropy(x, W, t, rows=5)
compiled = torch.compile(loss, fullgraph=True, backend=sys.argv[1])
mine, other = compiled(x), cross_entropy(x @ W.mT, t)
torch.testing.assert_close(mine, other)
torch.testing.assert_close(torch.autograd.grad(mine, x), torch.autograd.grad(other, x))
print("compiled")
"""


@pytest.mark.parametrize("backend", ["aot_eager", pytest.param("inductor", marks=pytest.mark.slow)])
def test_compiles_without_a_break(backend):
    command = [sys.executable, "-W", "error", "-c", COMPILED, backend]
    assert subprocess.run(command, check=True, capture_output=True, text=True).stdout == "compiled\n"
