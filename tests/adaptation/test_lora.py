import copy
import pickle

import peft
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from lora_toys import Int8Linear
from torch import nn
from transformers.pytorch_utils import Conv1D

from helpers import assert_differs, assert_same, randomise
from papercode.adaptation.lora import LoRALinear

D_IN, D_OUT, R, ALPHA = 11, 7, 3, 5.0


def adapted(base=None, r=R, alpha=ALPHA, **kwargs):
    return randomise(LoRALinear(base or nn.Linear(D_IN, D_OUT), r, alpha, **kwargs)).eval()


def x(d=D_IN):
    return torch.randn(2, 5, d, dtype=torch.float64)


def reference(base, ours):
    """The same map adapted by peft, with our A and B."""
    config = peft.LoraConfig(
        r=ours.r, lora_alpha=ours.alpha, target_modules=["0"], fan_in_fan_out=isinstance(base, Conv1D)
    )
    model = peft.get_peft_model(nn.Sequential(copy.deepcopy(base)), config).double()
    layer = model.base_model.model[0]
    layer.lora_A["default"].weight.data.copy_(ours.A)
    layer.lora_B["default"].weight.data.copy_(ours.B)
    return layer.eval()


def test_by_hand():
    layer = LoRALinear(nn.Linear(2, 2, bias=False), 1, alpha=2.0)
    with torch.no_grad():
        layer.base.weight.copy_(torch.eye(2))
        layer.A.copy_(torch.tensor([[1.0, 2.0]]))
        layer.B.copy_(torch.tensor([[3.0], [4.0]]))
    # Wx = (1, 1); Ax = 3; BAx = (9, 12); alpha / r = 2
    assert layer(torch.ones(2)).tolist() == [19.0, 25.0]
    assert layer.delta().tolist() == [[6.0, 12.0], [8.0, 16.0]]


@pytest.mark.parametrize(
    "base", [nn.Linear(D_IN, D_OUT), nn.Linear(D_IN, D_OUT, bias=False), Conv1D(D_OUT, D_IN), Conv1D(7, 7)]
)
def test_parity_with_peft(base, parity):
    ours = adapted(base)
    theirs = reference(ours.base, ours)
    a, b = x(ours.in_features).requires_grad_(), None
    b = a.detach().clone().requires_grad_()
    kind = f"{type(base).__name__}, {ours.in_features} to {ours.out_features}, bias={base.bias is not None}"
    parity("LoRALinear", "peft", kind, ours(a), theirs(b))
    ours(a).square().sum().backward()
    theirs(b).square().sum().backward()
    for mine, other in ((a, b), (ours.A, theirs.lora_A["default"].weight), (ours.B, theirs.lora_B["default"].weight)):
        assert_same(mine.grad, other.grad)
    ours.merge()
    theirs.merge()
    assert_same(ours.base.weight, theirs.base_layer.weight)
    assert_differs(adapted(base, alpha=ALPHA + 1)(a), theirs(a))  # the scale counts
    assert_differs(adapted(base)(a), base(a))


def test_start_is_exact():
    base = nn.Linear(D_IN, D_OUT)
    layer = LoRALinear(base, R, ALPHA)
    z = torch.randn(5, D_IN)
    assert torch.equal(layer(z), base(z))
    nn.init.ones_(layer.B)
    assert_differs(layer(z), base(z))


def test_at_the_start_only_b_has_a_gradient():
    layer = LoRALinear(nn.Linear(D_IN, D_OUT), R, ALPHA)
    layer(torch.randn(5, D_IN)).square().sum().backward()
    assert layer.A.grad.abs().max() == 0
    assert layer.B.grad.abs().max() > 0.1


def test_gradients_are_right():
    layer = adapted()

    def function(z, A, B):
        return torch.func.functional_call(layer, {"A": A, "B": B}, z)

    assert torch.autograd.gradcheck(function, (x().requires_grad_(), layer.A, layer.B))


@given(d_in=st.integers(1, 9), d_out=st.integers(1, 9), r=st.integers(1, 9), seed=st.integers(0, 99))
@settings(max_examples=40, deadline=None)
def test_rank_and_merging_hold_for_every_shape(d_in, d_out, r, seed):
    r = min(r, d_in, d_out)
    layer = randomise(LoRALinear(nn.Linear(d_in, d_out), r, ALPHA), seed)
    z = torch.randn(3, d_in, dtype=torch.float64)
    apart, plain, weight = layer(z), layer.base(z), layer.base.weight.clone()
    assert torch.linalg.matrix_rank(layer.delta()) <= r
    layer.merge()
    assert_same(layer(z), apart)
    assert (layer.base.weight - weight).norm() > 1e-6
    layer.unmerge()
    assert_same(layer.base.weight, weight, 1e-12)
    assert_same(layer.base(z), plain, 1e-12)


def test_rank_is_r_and_not_less():
    assert torch.linalg.matrix_rank(adapted().delta()) == R


def test_merged_uses_the_weight_alone():
    layer, z = adapted(), x()
    apart = layer(z)
    layer.merge()
    nn.init.constant_(layer.A, torch.nan)
    assert_same(layer(z), apart)


def test_unmerged_weights_come_back_up_to_rounding_and_not_bit_by_bit():
    layer = LoRALinear(nn.Linear(31, 29), R, ALPHA)
    nn.init.normal_(layer.B)
    weight = layer.base.weight.clone()
    layer.merge()
    layer.unmerge()
    assert_same(layer.base.weight, weight, 1e-5)
    assert not torch.equal(layer.base.weight, weight)


def test_a_is_gaussian_with_sigma_from_the_width():
    A = LoRALinear(nn.Linear(900, 400), 300, 1.0).A
    assert A.std().item() == pytest.approx(900**-0.5, rel=0.01)
    kurtosis = (A / A.std()).pow(4).mean().item()
    assert kurtosis == pytest.approx(3, rel=0.05)  # uniform, as peft draws it: 1.8
    assert (A @ torch.randn(900)).std().item() == pytest.approx(1, rel=0.15)


def test_dropout_falls_on_the_input_of_a_and_only_in_training():
    layer, z = adapted(dropout=0.5), x()
    assert_same(layer.eval()(z), layer.base(z) + ALPHA / R * z @ layer.A.mT @ layer.B.mT)
    layer.train()
    torch.manual_seed(1)
    out = layer(z)
    torch.manual_seed(1)
    dropped = nn.functional.dropout(z, 0.5)
    assert_same(out, layer.base(z) + ALPHA / R * dropped @ layer.A.mT @ layer.B.mT)
    assert_differs(out, layer.eval()(z))


@pytest.mark.parametrize("training", [False, True])
def test_takes_over_the_mode_of_its_base(training):
    # else dropout would be on in a model that has been set to eval()
    layer = LoRALinear(nn.Linear(D_IN, D_OUT).train(training), R, ALPHA, dropout=0.5)
    assert layer.training == layer.dropout.training == layer.base.training == training


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32, torch.float64])
def test_a_and_b_are_never_narrower_than_float32(dtype):
    layer = LoRALinear(nn.Linear(D_IN, D_OUT, dtype=dtype), R, ALPHA)
    assert layer.A.dtype == layer.B.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    nn.init.ones_(layer.B)
    z = torch.randn(2, D_IN).to(dtype)
    assert layer(z).dtype == dtype
    layer.merge()
    assert layer.base.weight.dtype == layer(z).dtype == dtype


def test_quantised_projection_is_adapted_but_not_merged():
    base = Int8Linear(nn.Linear(D_IN, D_OUT))
    layer = LoRALinear(base, R, ALPHA)
    z = torch.randn(2, D_IN)
    assert torch.equal(layer(z), base(z))
    nn.init.ones_(layer.B)
    assert_same(layer(z), base(z) + z @ layer.delta().mT, 1e-5)
    assert_differs(layer(z), base(z))
    with pytest.raises(
        TypeError, match=r"cannot merge into Int8Linear: .* no floating-point parameter `weight` of shape \(7, 11\)"
    ):
        layer.merge()
    assert not layer.merged


def test_integers_in_a_parameter_are_not_merged_either():
    base = Int8Linear(nn.Linear(D_IN, D_OUT))
    integers = base._buffers.pop("weight")
    base.weight = nn.Parameter(integers, requires_grad=False)
    layer = LoRALinear(base, R, ALPHA)
    nn.init.ones_(layer.B)
    with pytest.raises(TypeError, match="cannot merge into Int8Linear"):
        layer.merge()
    assert torch.equal(base.weight, integers)


class Doubling(nn.Linear):
    """Multiplies by twice its weight, as scaled embeddings and normalised weights do something of their own."""

    def forward(self, x):
        return 2 * super().forward(x)


class OtherWayRound(nn.Linear):
    """Square, so that the shape of the weight does not tell that it is stored transposed."""

    def forward(self, x):
        return x @ self.weight + self.bias


@pytest.mark.parametrize("kind", [Doubling, OtherWayRound])
def test_what_is_not_a_product_with_its_weight_is_not_merged(kind):
    layer = adapted(kind(7, 7))
    weight = layer.base.weight.clone()
    with pytest.raises(ValueError, match=f"cannot merge into {kind.__name__}: .* not simply multiply by `weight`"):
        layer.merge()
    assert torch.equal(layer.base.weight, weight)
    assert not layer.merged


@pytest.mark.parametrize("merged", [False, True])
@pytest.mark.parametrize("base", [nn.Linear(7, 7), Conv1D(7, 7)])
def test_weight_is_the_one_in_force(base, merged):
    layer, z = adapted(base), x(7)
    out = layer(z)
    if merged:
        layer.merge()
    W = layer.weight.mT if isinstance(base, Conv1D) else layer.weight
    assert_same(nn.functional.linear(z, W, layer.bias), out)
    assert_differs(nn.functional.linear(z, W.mT, layer.bias), out)


def test_code_that_reads_weights_sees_the_adapter():
    # in eval mode torch's layer hands linear1.weight to a fused kernel and never calls linear1
    layer = nn.TransformerEncoderLayer(6, 2, 14, batch_first=True).eval()
    plain = copy.deepcopy(layer)
    layer.linear1 = LoRALinear(layer.linear1, 2, 4.0)
    nn.init.ones_(layer.linear1.B)
    z = torch.randn(2, 5, 6)
    slow = layer(z)
    with torch.no_grad():
        assert_same(layer(z), slow, 1e-5)
        assert_differs(layer(z), plain(z))


@pytest.mark.parametrize("merged", [False, True])
@pytest.mark.parametrize("copied", [copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m))])
def test_survives_copying(merged, copied):
    layer, z = adapted(), x()
    out = layer(z)
    if merged:
        layer.merge()
    twin = copied(layer)
    assert twin.merged == merged
    assert_same(twin(z), out)
    with torch.no_grad():
        layer.base.weight.zero_()
    assert_same(twin(z), out)


def test_state_dict_carries_merged_and_alpha():
    layer, z = adapted(), x()
    out = layer(z)
    layer.merge()
    twin = LoRALinear(nn.Linear(D_IN, D_OUT), R, ALPHA).double()
    twin.load_state_dict(layer.state_dict())
    assert twin.merged
    assert_same(twin(z), out)  # otherwise the update would be there twice
    other = LoRALinear(nn.Linear(D_IN, D_OUT), R, 7.0)
    with pytest.raises(ValueError, match="alpha=7 here, but alpha=5 in the state dict"):
        other.load_state_dict(layer.state_dict())


def test_meta_device_costs_nothing():
    with torch.device("meta"):
        layer = LoRALinear(nn.Linear(12288, 12288), 4, 4.0)
    assert layer.A.is_meta
    assert layer.B.is_meta
    layer.merge()
    assert sum(p.numel() for p in (layer.A, layer.B)) == 4 * (12288 + 12288)


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: LoRALinear(nn.Linear(11, 7), 0, 1.0), ValueError, r"r=0 must be at least 1"),
        (lambda: LoRALinear(nn.Linear(11, 7), -2, 1.0), ValueError, r"r=-2 must be at least 1"),
        (lambda: LoRALinear(nn.Linear(11, 7), 8, 1.0), ValueError, r"r=8 .* at most min\(d_in=11, d_out=7\)"),
        (lambda: LoRALinear(nn.Linear(11, 7), 2, 0.0), ValueError, r"alpha=0.0 must be positive"),
        (lambda: LoRALinear(nn.Linear(11, 7), 2, float("nan")), ValueError, r"alpha=nan must be positive and finite"),
        (lambda: LoRALinear(nn.Linear(11, 7), 2, 1.0, dropout=1.5), ValueError, r"1.5"),
        (lambda: LoRALinear(adapted(), 2, 1.0), ValueError, r"base is adapted already: r=3, alpha=5, merged=False"),
        (
            lambda: LoRALinear(nn.Conv2d(3, 5, 1), 2, 1.0),
            TypeError,
            r"cannot adapt Conv2d with LoRALinear: .* in_features",
        ),
        (lambda: LoRALinear(nn.Embedding(11, 7), 2, 1.0), TypeError, r"cannot adapt Embedding with LoRALinear"),
        (lambda: adapted().unmerge(), ValueError, r"merged=False: there is nothing to unmerge"),
    ],
)
def test_errors(make, error, message):
    with pytest.raises(error, match=message):
        make()


def test_merging_twice_and_training_merged_are_refused():
    layer = adapted()
    layer.merge()
    weight = layer.base.weight.clone()
    with pytest.raises(ValueError, match="merged=True: unmerge it first"):
        layer.merge()
    with pytest.raises(ValueError, match=r"merged=True: A and B would get no gradient; unmerge before train\(\)"):
        layer.train()
    assert torch.equal(layer.base.weight, weight)
    layer.eval()
    layer.unmerge()
    assert layer.train().training
