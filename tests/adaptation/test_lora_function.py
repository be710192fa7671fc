"""The fused pass: the same numbers as autograd's, less to keep, nothing of anybody else's overwritten."""

import copy
import pickle
import subprocess
import sys
from functools import partial

import pytest
import torch
from lora_toys import Int8Linear
from torch import nn
from torch.autograd.graph import saved_tensors_hooks
from torch.nn.utils import parametrizations
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.checkpoint import checkpoint
from transformers.pytorch_utils import Conv1D

from helpers import assert_differs, assert_same, randomise
from papercode.adaptation.lora import LoRALinear
from papercode.adaptation.lora_function import can_fuse, low_rank_add, low_rank_linear
from papercode.adaptation.lora_fused import LoRAFusedLinear

D_IN, D_OUT, R, ALPHA = 11, 7, 3, 5.0
SCALE = ALPHA / R


def adapted(base=None, dropout=0.0, frozen=True, make=LoRALinear, **kwargs):
    layer = randomise(make(base or nn.Linear(D_IN, D_OUT), R, ALPHA, dropout=dropout, **kwargs)).train()
    layer.base.requires_grad_(not frozen)
    return layer


def plainly(layer, x, keep=None):
    """The same map by the expression of the paper, with a copy and a product at a time."""
    A, B = layer.factors()
    y = layer.base(x)
    p = layer.dropout.p
    dropped = x if keep is None else x * keep / (1 - p)
    return y + (layer.alpha / layer.r * dropped.to(A.dtype) @ A.mT @ B.mT).to(y.dtype)


def draw(layer, x):
    """What dropout draws next, without taking it."""
    if not layer.dropout.p:
        return None
    state = torch.get_rng_state()
    keep = torch.nn.functional.dropout(torch.ones_like(x), layer.dropout.p) != 0
    torch.set_rng_state(state)
    return keep


def gradients(layer, x, out, seed=1):
    """Of a random sum of the outputs, for the input and all parameters that train."""
    given = torch.randn(out.shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(out.dtype)
    wanted = [x, *(p for p in layer.parameters() if p.requires_grad)]
    return torch.autograd.grad(out, wanted, given)


def input_like(*shape, dtype=torch.float64, d=D_IN):
    return torch.randn(*shape, d, dtype=torch.float64).to(dtype).requires_grad_()


# the same numbers


def test_by_hand():
    """W = 1, A = (1 2), B = (3 4)', scale 2: y = x + 2 B(Ax). At x = (1 1), g = (1 0): h = 2 gB = 6."""
    weight = torch.eye(2)
    x, A, B = (torch.tensor(t, requires_grad=True) for t in ([[1.0, 1.0]], [[1.0, 2.0]], [[3.0], [4.0]]))
    out = low_rank_linear(x, weight, None, A, B, 2.0)
    assert out.tolist() == [[19.0, 25.0]]
    out[0, 0].backward()
    assert x.grad.tolist() == [[1.0 + 6.0, 12.0]]  # gW + hA
    assert A.grad.tolist() == [[6.0, 6.0]]  # hx
    assert B.grad.tolist() == [[6.0], [0.0]]  # 2 g Ax
    added = low_rank_add(torch.tensor([[1.0, 1.0]]), x, A, B, 2.0)
    assert added.tolist() == [[19.0, 25.0]]


MAPS = {
    "linear": partial(adapted),
    "no bias": lambda **k: adapted(nn.Linear(D_IN, D_OUT, bias=False), **k),
    "trained base": partial(adapted, frozen=False),
    "transposed": lambda **k: adapted(Conv1D(D_OUT, D_IN), **k),
    "int8": lambda **k: adapted(Int8Linear(nn.Linear(D_IN, D_OUT)), **k),
    "parametrised": lambda **k: adapted(parametrizations.weight_norm(nn.Linear(D_IN, D_OUT)), **k),
    "q, k, v": lambda **k: adapted(
        nn.Linear(D_IN, 15), make=partial(LoRAFusedLinear, parts=(7, 3, 5), adapted=(0, 2)), **k
    ),
}


@pytest.mark.parametrize("dropout", [0.0, 0.4])
@pytest.mark.parametrize("shape", [(2, 5), (5,), (), (0,), (2, 3, 2)])
@pytest.mark.parametrize("name", MAPS)
def test_equals_the_plain_expression(name, shape, dropout):
    layer, x = MAPS[name](dropout=dropout), input_like(*shape)
    keep = draw(layer, x)
    out, plain = layer(x), plainly(layer, x, keep)
    assert_same(out, plain)
    for mine, other in zip(gradients(layer, x, out), gradients(layer, x, plain)):
        assert_same(mine, other)
    if out.numel():
        assert_differs(out, layer.base(x))
        assert (keep is None) == (dropout == 0)


def test_which_maps_are_fused():
    assert {name: can_fuse(make().base) for name, make in MAPS.items()} == {
        "linear": True, "no bias": True, "trained base": False, "transposed": False, "int8": False,
        "parametrised": False, "q, k, v": True,
    }  # fmt: skip
    layer = adapted(frozen=False)
    layer.base.weight.requires_grad_(False)
    assert not can_fuse(layer.base)  # the bias trains
    with torch.no_grad():
        assert can_fuse(layer.base)  # nothing does


def test_layout_of_the_input_does_not_matter():
    layer, x = adapted(dropout=0.4), torch.randn(2, D_IN, 5, dtype=torch.float64).mT.requires_grad_()
    assert not x.is_contiguous()
    keep = draw(layer, x)
    out, plain = layer(x), plainly(layer, x, keep)
    assert_same(out, plain)
    for mine, other in zip(gradients(layer, x, out), gradients(layer, x, plain)):
        assert_same(mine, other)
    # nor that of the gradient: of a sum it is one number, seen many times
    layer.eval()
    out, plain = layer(x), plainly(layer, x)
    assert_same(
        torch.autograd.grad(out.sum(), x, retain_graph=True)[0],
        torch.autograd.grad(plain.sum(), x, retain_graph=True)[0],
    )
    given = torch.randn(2, D_OUT, 5, dtype=torch.float64).mT
    assert_same(torch.autograd.grad(out, x, given)[0], torch.autograd.grad(plain, x, given)[0])
    # nor that of the base's output
    y = torch.randn(2, D_OUT, 5, dtype=torch.float64).mT
    assert_same(low_rank_add(y, x, layer.A, layer.B, 1.0), y + x @ layer.A.mT @ layer.B.mT)


@pytest.mark.parametrize("frozen", [True, False])
@pytest.mark.parametrize("masked", [True, False])
def test_gradients_of_first_and_second_order(frozen, masked):
    layer, x = adapted(), input_like(5)
    keep = torch.rand(5, D_IN) > 0.4 if masked else None
    y = torch.randn(5, D_OUT, dtype=torch.float64, requires_grad=True)

    def function(x, y, A, B):
        if frozen:
            return low_rank_linear(x, layer.base.weight, layer.base.bias, A, B, SCALE, keep)
        return low_rank_add(y, x, A, B, SCALE, keep)

    assert torch.autograd.gradcheck(function, (x, y, layer.A, layer.B))
    assert torch.autograd.gradgradcheck(function, (x, y, layer.A, layer.B))


def test_only_what_is_asked_for_gets_a_gradient():
    layer, x = adapted(), torch.randn(5, D_IN, dtype=torch.float64)
    layer(x).sum().backward()
    assert layer.A.grad is not None
    assert layer.B.grad is not None
    assert layer.base.weight.grad is layer.base.bias.grad is None
    layer.requires_grad_(False)
    assert not layer(x).requires_grad
    x.requires_grad_()
    (dx,) = torch.autograd.grad(layer(x).sum(), x)
    assert_same(dx, layer.weight.sum(0).expand(5, -1))


@pytest.mark.parametrize("p", [0.0, 1.0])
def test_dropout_of_nothing_and_of_everything(p):
    layer, x = adapted(dropout=p), input_like(5)
    assert_same(layer(x), layer.base(x) + (1 - p) * layer.update(x))
    assert torch.isfinite(gradients(layer, x, layer(x))[1]).all()


def test_dropout_can_be_switched_off_by_itself():
    layer, x = adapted(dropout=0.4), input_like(5)
    assert_differs(layer(x), plainly(layer, x), 1e-3)
    layer.dropout.eval()
    assert layer.training
    assert_same(layer(x), plainly(layer, x))


# low precision: no further from the truth than the plain expression is


def error(values, truth):
    return max(((v.double() - t).norm() / t.norm()).item() for v, t in zip(values, truth))


@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
@pytest.mark.parametrize("frozen", [True, False])
@pytest.mark.parametrize("dropout", [0.0, 0.4])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
def test_equal_to_the_plain_path_to_the_rounding_of_the_dtype(dtype, dropout, frozen, device):
    layer = adapted(nn.Linear(61, 53), dropout=dropout, frozen=frozen)
    layer.base.to(dtype), layer.A.data.copy_(layer.A.float()), layer.B.data.copy_(layer.B.float())
    x = input_like(37, dtype=dtype, d=61)
    keep = torch.rand(37, 61) > dropout if dropout else None
    exact, exact_x = copy.deepcopy(layer).double(), x.detach().double().requires_grad_()
    truth = plainly(exact, exact_x, keep)
    truth = [truth, *gradients(exact, exact_x, truth)]

    layer.A.data, layer.B.data = layer.A.data.float(), layer.B.data.float()
    layer, x, keep = layer.to(device), x.detach().to(device).requires_grad_(), None if keep is None else keep.to(device)
    scale, A, B = SCALE / (1 - dropout), layer.A, layer.B
    if frozen:
        out = low_rank_linear(x, layer.base.weight, layer.base.bias, A, B, scale, keep)
    else:
        out = low_rank_add(layer.base(x), x, A, B, scale, keep)
    plain = plainly(layer, x, keep)
    given = torch.randn(out.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64).to(out)
    wanted = [x, *(p for p in layer.parameters() if p.requires_grad)]
    ours, theirs = ([y, *torch.autograd.grad(y, wanted, given)] for y in (out, plain))
    assert [t.dtype for t in ours] == [t.dtype for t in theirs]
    assert ours[2].dtype == torch.float32  # the gradient of A, wide as A is
    budget = 2 * error([t.cpu() for t in theirs], truth) + torch.finfo(dtype).eps
    assert error([t.cpu() for t in ours], truth) < budget
    # the budget is small: another scale is far outside
    other = low_rank_add(layer.base(x), x, A, B, 1.1 * scale, keep)
    assert error([other.cpu()], truth[:1]) > 2 * budget


@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
@pytest.mark.parametrize("frozen", [True, False])
@pytest.mark.parametrize("backward_inside", [True, False])
def test_under_autocast(backward_inside, frozen, device):
    layer = adapted(dropout=0.4, frozen=frozen).float().to(device)
    x = input_like(2, 5, dtype=torch.float32).detach().to(device).requires_grad_()
    torch.manual_seed(1)
    exact = layer(x)
    torch.manual_seed(1)
    with torch.autocast(device, torch.bfloat16):
        out = layer(x)
        if backward_inside:
            grads = gradients(layer, x, out.float())
    if not backward_inside:
        grads = gradients(layer, x, out.float())
    assert out.dtype == torch.bfloat16
    assert_same(out.float(), exact, 0.05)
    assert not torch.equal(out.float(), exact)
    for mine, other in zip(grads, gradients(layer, x, exact)):
        assert mine.dtype == torch.float32
        assert (mine - other).norm() < 0.02 * other.norm()


@pytest.mark.parametrize("frozen", [True, False])
def test_backward_under_autocast_alone(frozen):
    """Not advised by torch, but no reason to fail: the products become bfloat16, what they go into is float32."""
    layer, x = adapted(frozen=frozen).float(), input_like(5, dtype=torch.float32)
    exact, out = gradients(layer, x, layer(x)), layer(x)
    with torch.autocast("cpu", torch.bfloat16):
        grads = gradients(layer, x, out)
    for mine, other in zip(grads, exact):
        assert (mine - other).norm() < 0.02 * other.norm()


# less to keep and to make


class Made(TorchDispatchMode):
    """Counts numbers in tensors that are new, not views and not written in place, of at least `least` numbers."""

    def __init__(self, least):
        super().__init__()
        self.least, self.shapes = least, []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        out = function(*args, **(kwargs or {}))
        known = {t.untyped_storage().data_ptr() for t in args if isinstance(t, torch.Tensor)}
        for t in out if isinstance(out, tuple | list) else [out]:
            if isinstance(t, torch.Tensor) and t.untyped_storage().data_ptr() not in known and t.numel() >= self.least:
                self.shapes.append((tuple(t.shape), t.dtype))
        return out


N = 101


def kept(layer, x):
    saved = []
    with saved_tensors_hooks(lambda t: saved.append(t) or t, lambda t: t):
        out = layer(x)
    return saved, out


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("dropout", [0.0, 0.4])
def test_keeps_the_input_and_the_small_projection(dropout, dtype):
    layer = adapted(dropout=dropout).float()
    layer.base.to(dtype)
    x = torch.randn(N, D_IN, dtype=dtype, requires_grad=True)
    saved, _ = kept(layer, x)
    owners = {t.data_ptr() for t in (x, layer.base.weight, layer.A, layer.B)}
    new = sorted((tuple(t.shape), t.dtype) for t in saved if t.data_ptr() not in owners)
    mask = [((N, D_IN), torch.bool)] if dropout else []
    assert new == [((N, R), dtype), *mask]
    saved = []
    with saved_tensors_hooks(lambda t: saved.append(t) or t, lambda t: t):  # the control: autograd on its own
        plainly(layer, x, draw(layer, x))
    assert len({t.data_ptr() for t in saved} - owners) > len(new) or (dtype == torch.float32 and not dropout)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_adds_in_place(dtype):
    layer = adapted().float()
    layer.base.to(dtype)
    x = torch.randn(N, D_IN, dtype=dtype, requires_grad=True)
    with Made(N * R + 1) as forward:
        out = layer(x)
    given = torch.randn_like(out)
    with Made(N * R + 1) as backward:
        torch.autograd.grad(out, [x, layer.A, layer.B], given)
    assert forward.shapes == [((N, D_OUT), dtype)]
    assert backward.shapes == [((N, D_IN), dtype)]
    with Made(N * R + 1) as control:
        plainly(layer, x)
    assert len(control.shapes) >= 3


def test_the_mask_is_one_byte_a_number():
    layer, x = adapted(dropout=0.4).float(), torch.randn(N, D_IN, requires_grad=True)
    with Made(N * R + 1) as forward:
        layer(x)
    assert ((N, D_IN), torch.bool) in forward.shapes
    assert forward.shapes.count(((N, D_IN), torch.float32)) == 1  # the dropped input, for as long as one product takes


# nothing of anybody else's is touched


class Remembering(nn.Linear):
    """Hands out a tensor that it keeps."""

    def forward(self, x):
        self.last = super().forward(x)
        return self.last


class Constant(nn.Module):
    """Hands out a view of its own state."""

    in_features, out_features = D_IN, D_OUT

    def __init__(self):
        super().__init__()
        self.table = nn.Parameter(torch.ones(3, D_OUT), requires_grad=False)

    def forward(self, x):
        return self.table[: len(x)]


@pytest.mark.parametrize("grad", [True, False])
def test_a_base_that_keeps_its_output_keeps_it_as_it_was(grad):
    x = input_like(3)
    with torch.set_grad_enabled(grad):
        layer = adapted(Remembering(D_IN, D_OUT))
        out = layer(x)
        assert_same(layer.base.last, nn.functional.linear(x, layer.base.weight, layer.base.bias))
        assert_differs(out, layer.base.last)
        layer = adapted(Constant())
        before = layer.base.table.clone()
        assert_differs(layer(x), before)
        assert torch.equal(layer.base.table, before)


@pytest.mark.parametrize("grad", [True, False])
def test_hooks_on_the_base_see_its_own_output(grad):
    layer, x = adapted(), input_like(3)
    plain = nn.functional.linear(x, layer.base.weight, layer.base.bias)
    seen = []
    with torch.set_grad_enabled(grad):
        for register in (layer.base.register_forward_hook, nn.modules.module.register_module_forward_hook):
            handle = register(lambda module, _, out: seen.append((module, out)))
            out = layer(x)
            handle.remove()
            (base_output,) = (out for module, out in seen if module is layer.base)
            assert_same(base_output, plain)
            assert_differs(out, plain)
            seen.clear()
        handle = layer.base.register_forward_pre_hook(lambda module, args: (2 * args[0],))
        assert_same(layer(x), layer.base(x) + layer.update(x))
        handle.remove()
        layer.base.forward = lambda x: 2 * nn.Linear.forward(layer.base, x)  # as offloading does
        assert_same(layer(x), 2 * plain + layer.update(x))
        del layer.base.forward
    layer.base.register_full_backward_hook(lambda module, into, out: seen.append(module))
    layer(x).sum().backward()
    layer.base._backward_hooks.clear()
    layer.base.register_full_backward_pre_hook(lambda module, out: seen.append(module))
    layer(x).sum().backward()
    assert seen == [layer.base] * 2


def test_a_weight_of_a_class_of_its_own_is_left_to_its_base():
    class Sharded(torch.Tensor):
        pass

    layer = adapted()
    layer.base.weight = nn.Parameter(layer.base.weight.data.as_subclass(Sharded), requires_grad=False)
    assert not can_fuse(layer.base)
    x = input_like(3)
    assert_same(layer(x).as_subclass(torch.Tensor), plainly(layer, x).as_subclass(torch.Tensor))
    layer = adapted()
    layer.base.bias = nn.Parameter(layer.base.bias.data.as_subclass(Sharded), requires_grad=False)
    assert not can_fuse(layer.base)
    del layer.base.weight
    layer.base.weight = torch.zeros(D_OUT, D_IN)  # as old-style weight_norm does
    assert not can_fuse(layer.base)


def test_the_output_may_be_changed_in_place():
    layer, x = adapted(), input_like(5)
    expected = torch.relu(plainly(layer, x))
    out = torch.relu_(layer(x))
    assert_same(out, expected)
    assert_same(torch.autograd.grad(out.sum(), x)[0], torch.autograd.grad(expected.sum(), x)[0])
    low_rank_add(torch.zeros(5, D_OUT).double(), x, layer.A, layer.B, 1.0).relu_().sum().backward()


def test_the_gradient_that_comes_in_is_not_changed():
    for frozen in (True, False):
        layer, x = adapted(frozen=frozen), input_like(5)
        given = torch.randn(5, D_OUT, dtype=torch.float64)
        before = given.clone()
        torch.autograd.grad(layer(x), [x, layer.A], given)
        assert torch.equal(given, before)


def test_a_weight_that_changed_in_between_is_noticed():
    layer, x = adapted(), input_like(5)
    out = layer(x)
    layer.base.weight.data.add_(0)  # .data hides it, as ever
    out.sum().backward(retain_graph=True)
    layer.merge()
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        out.sum().backward()


# together with the rest of torch


@pytest.mark.parametrize("reentrant", [True, False])
@pytest.mark.parametrize("frozen", [True, False])
def test_under_gradient_checkpointing(frozen, reentrant):
    layer, x = adapted(dropout=0.4, frozen=frozen), input_like(2, 5)
    torch.manual_seed(1)
    expected = gradients(layer, x, torch.tanh(layer(x)))
    torch.manual_seed(1)
    out = checkpoint(lambda x: torch.tanh(layer(x)), x, use_reentrant=reentrant)
    given = torch.randn(out.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    out.backward(given)
    for mine, other in zip([x, *(p for p in layer.parameters() if p.requires_grad)], expected):
        assert_same(mine.grad, other)


def test_the_same_layer_twice_and_its_copies():
    layer, x = adapted(nn.Linear(7, 7)), input_like(5, d=7)
    plain = plainly(layer, plainly(layer, x))
    out = layer(layer(x))
    for mine, other in zip(gradients(layer, x, out), gradients(layer, x, plain)):
        assert_same(mine, other)
    for twin in (copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))):
        assert_same(twin(twin(x)), plain)
    out = layer(layer(x))
    out.sum().backward(retain_graph=True)
    once = layer.A.grad.clone()
    out.sum().backward()
    assert_same(layer.A.grad, 2 * once)


@pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated:DeprecationWarning")  # torch's own rules use it
def test_inside_torch_func():
    layer, x = adapted(), torch.randn(2, 5, D_IN, dtype=torch.float64)
    parameters = {name: p.detach() for name, p in layer.named_parameters()}

    def loss(parameters, x):
        return torch.func.functional_call(layer, parameters, x).square().sum()

    apart = [torch.autograd.grad(plainly(layer, row).square().sum(), [layer.A, layer.B]) for row in x]
    per_sample = torch.func.vmap(torch.func.grad(loss), (None, 0))(parameters, x)
    assert_same(per_sample["A"], torch.stack([a for a, _ in apart]))
    assert_same(per_sample["B"], torch.stack([b for _, b in apart]))
    assert_same(torch.vmap(layer)(x), layer(x))
    ensemble = parameters | {"B": torch.stack([layer.B, 2 * layer.B])}  # one input, two adapters
    axes = {name: 0 if name == "B" else None for name in parameters}
    out = torch.func.vmap(partial(torch.func.functional_call, layer), (axes, None))(ensemble, x)
    assert_same(out[0], layer(x))
    assert_same(out[1] - out[0], layer.update(x))
    tangent = torch.randn_like(x)
    _, moved = torch.func.jvp(layer, (x,), (tangent,))
    assert_same(moved, tangent @ layer.weight.mT)


@pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated:DeprecationWarning")
def test_forward_mode_outside_of_torch_func_says_so():
    layer, x = adapted(), torch.randn(5, D_IN, dtype=torch.float64)
    with (
        torch.autograd.forward_ad.dual_level(),
        pytest.raises(NotImplementedError, match="You must implement the jvp function"),
    ):
        layer(torch.autograd.forward_ad.make_dual(x, torch.ones_like(x)))


COMPILED = """
import sys, warnings
import torch
from torch import nn
from papercode.adaptation.lora import LoRALinear
# torch instantiates every autograd.Function that it compiles, and warns of it
warnings.filterwarnings("ignore", ".*should not be instantiated", DeprecationWarning)
warnings.filterwarnings("ignore", ".*torch.jit.script", DeprecationWarning)  # used by its own inductor
torch.set_num_threads(1)
for frozen in (True, False):
    for dropout in (0.0, 0.4):
        layer = LoRALinear(nn.Linear(11, 7), 3, 5.0, dropout=dropout)
        layer.base.requires_grad_(not frozen)
        nn.init.ones_(layer.B)
        x = torch.randn(2, 5, 11, requires_grad=True)
        wanted = [x, *(p for p in layer.parameters() if p.requires_grad)]
        torch._dynamo.reset()
        results = []
        for function in (torch.compile(layer, fullgraph=True, backend=sys.argv[1]), layer):
            torch.manual_seed(1)
            out = function(x)
            results.append([out, *torch.autograd.grad(out.square().sum(), wanted)])
        if sys.argv[1] == "inductor" and dropout:  # it has random numbers of its own
            assert not torch.equal(results[0][0], layer.eval()(x))
            continue
        torch.testing.assert_close(*results)
        assert not torch.allclose(results[0][0], layer.base(x))
        with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
            torch._dynamo.reset()
            compiled = torch.compile(layer.eval(), fullgraph=True, backend=sys.argv[1])(x)
        assert compiled.dtype == torch.bfloat16
        torch.testing.assert_close(compiled.float(), layer(x), rtol=0.05, atol=0.05)
print("compiled")
"""


@pytest.mark.parametrize("backend", ["eager", "aot_eager", pytest.param("inductor", marks=pytest.mark.slow)])
def test_compiles_without_a_break(backend):  # on its own: the checks of shapes under pytest cannot be compiled
    command = [sys.executable, "-W", "error", "-c", COMPILED, backend]
    assert subprocess.run(command, check=True, capture_output=True, text=True).stdout == "compiled\n"
