"""Batch normalisation against torch's, by hand, its invariances, and folded into a convolution."""

import pytest
import torch
from torch import nn

from helpers import assert_differs, assert_same, randomise
from papercode.convolutional.batch_norm import BatchNorm1d, BatchNorm2d, estimate_population, fold_into_convolution

KINDS = [
    (BatchNorm1d, nn.BatchNorm1d, (3, 7)),
    (BatchNorm1d, nn.BatchNorm1d, (3, 7, 5)),
    (BatchNorm2d, nn.BatchNorm2d, (3, 7, 5, 2)),
]


def double(*shape):
    return torch.randn(*shape, dtype=torch.float64)


def made(kind, *, eps=0.03, momentum=0.2):
    """A layer in which no number is 0 or 1, the running estimates included."""
    norm = randomise(kind(7, eps=eps, momentum=momentum))
    norm.mean.copy_(double(7))
    norm.variance.copy_(double(7).square() + 0.5)
    return norm


def pair(kind, theirs):
    ours, reference = made(kind), theirs(7, eps=0.03, momentum=0.2).double()
    names = {"weight": ours.gain, "bias": ours.bias, "running_mean": ours.mean, "running_var": ours.variance}
    reference.load_state_dict(names | {"num_batches_tracked": torch.tensor(0)})
    return ours, reference


@pytest.mark.parametrize(("kind", "theirs", "shape"), KINDS)
def test_training_equals_torch(kind, theirs, shape, parity):
    """Outputs, gradients, and the running estimates after three batches; then evaluation with them."""
    ours, reference = pair(kind, theirs)
    for _ in range(3):
        x, weights = double(*shape) * 3 + 1, double(*shape)
        inputs = x.clone().requires_grad_(), x.clone().requires_grad_()
        outputs = [norm(x) for norm, x in zip((ours, reference), inputs)]
        for norm, y in zip((ours, reference), outputs):
            norm.zero_grad()
            (y * weights).sum().backward()
    results = [
        [y, x.grad, norm.gain.grad if norm is ours else norm.weight.grad, norm.bias.grad, *norm.buffers()][:6]
        for norm, x, y in zip((ours, reference), inputs, outputs)
    ]
    parity(kind.__name__, f"torch.nn.{theirs.__name__}", f"training, {len(shape)} axes", *results)
    assert_differs(ours.eval()(x), outputs[0])  # the modes differ
    parity(
        kind.__name__,
        f"torch.nn.{theirs.__name__}",
        f"evaluation, {len(shape)} axes",
        ours.eval()(x),
        reference.eval()(x),
    )
    assert_differs(theirs(7).double().train()(x), outputs[0].detach())  # gain, bias and eps are seen


def test_defaults_equal_torchs():
    ours, reference = BatchNorm1d(7), nn.BatchNorm1d(7)
    assert (ours.eps, ours.momentum) == (reference.eps, reference.momentum)
    assert [p.tolist() for p in ours.parameters()] == [p.tolist() for p in reference.parameters()]
    assert [b.tolist() for b in ours.buffers()] == [b.tolist() for b in list(reference.buffers())[:2]]


def test_four_numbers_for_each_feature():
    """Two are learned, two are counted along."""
    norm = BatchNorm2d(7)
    assert sum(p.numel() for p in norm.parameters()) == sum(b.numel() for b in norm.buffers()) == 2 * 7
    assert set(norm.state_dict()) == {"gain", "bias", "mean", "variance"}


def test_by_hand():
    """1, 2, 3, 4: mean 2.5; variance 5/4 within the batch, 5/3 for the population."""
    norm = BatchNorm1d(1, eps=0.0, momentum=0.5).double()
    y = norm(torch.tensor([[1.0], [2], [3], [4]]).double())
    assert_same(y[:, 0], torch.tensor([-1.5, -0.5, 0.5, 1.5]).double() / 1.25**0.5)
    assert_same(norm.mean, torch.tensor([1.25]).double())  # half way from 0
    assert_same(norm.variance, torch.tensor([(1 + 5 / 3) / 2]).double())  # half way from 1
    norm.eval()
    assert_same(norm(torch.tensor([[1.25]]).double()), torch.zeros(1, 1).double())


@pytest.mark.parametrize("momentum", [0.0, 1.0])
def test_momentum_at_its_ends(momentum):
    norm, x = made(BatchNorm1d, momentum=momentum), double(5, 7)
    before = norm.mean.clone()
    norm(x)
    assert_same(norm.mean, x.mean(0) if momentum else before)


def test_gradients():
    norm, x = made(BatchNorm1d, momentum=0.0), double(3, 7).requires_grad_()
    assert torch.autograd.gradcheck(norm, (x,))
    assert torch.autograd.gradcheck(norm.eval(), (x,))


def test_the_mean_and_variance_carry_gradients():
    """So the gradient is blind to a shift of the batch, and to its scale (section 3)."""
    norm, x, weights = made(BatchNorm1d, eps=0.0), double(5, 7).requires_grad_(), double(5, 7)
    (norm(x) * weights).sum().backward()
    assert_same(x.grad.sum(0), torch.zeros(7).double())
    assert_same((x.grad * x).sum(0), torch.zeros(7).double())
    assert x.grad.abs().max() > 0.1


def test_blind_to_the_scale_of_the_weights():
    """BN((aW)u) = BN(Wu), the same gradient at u, and 1/a of it at aW (section 3.3)."""
    norm, u, W, target = made(BatchNorm1d, eps=0.0), double(5, 3), double(7, 3), double(5, 7)
    outputs, at_u, at_W = [], [], []
    for a in (1.0, 11.0):
        weights, inputs = (a * W).requires_grad_(), u.clone().requires_grad_()
        y = norm(inputs @ weights.T)
        (y - target).square().sum().backward()
        outputs.append(y)
        at_u.append(inputs.grad)
        at_W.append(weights.grad)
    assert_same(outputs[0], outputs[1])
    assert_same(at_u[0], at_u[1])
    assert_same(at_W[0], 11 * at_W[1])
    assert_differs(norm(-u @ W.T), norm(u @ W.T))  # but not to their sign


def test_other_examples_matter_in_training_and_not_in_evaluation():
    norm, x = made(BatchNorm2d), double(3, 7, 5, 2)
    changed = torch.cat([x[:1], double(2, 7, 5, 2)])
    assert_differs(norm(x)[0], norm(changed)[0])
    assert torch.equal(norm.eval()(x)[0], norm(changed)[0])


def test_a_batch_of_two_keeps_no_more_than_the_order():
    y = BatchNorm1d(7, eps=0.0).double()(x := double(2, 7))
    assert_same(y, (x - x.flip(0)).sign())


def test_evaluation_leaves_the_estimates_alone():
    norm = made(BatchNorm1d).eval()
    before = [b.clone() for b in norm.buffers()]
    norm(double(3, 7))
    assert all(map(torch.equal, before, norm.buffers()))


def test_estimate_population_averages_over_batches():
    """Algorithm 2, lines 7 to 10, with loops: each norm sees the normalised batches below it."""
    model = nn.Sequential(made(BatchNorm1d), nn.ReLU(), made(BatchNorm1d)).eval()
    model[2].train()
    batches = [double(5, 7) + 3 for _ in range(3)]
    estimate_population(model, iter(batches))
    hidden = batches
    for norm in (model[0], model[2]):
        assert_same(norm.mean, sum(x.mean(0) for x in hidden) / 3)
        assert_same(norm.variance, sum(x.var(0, correction=1) for x in hidden) / 3)
        own = [(x - x.mean(0)) / (x.var(0, correction=0) + 0.03).sqrt() * norm.gain + norm.bias for x in hidden]
        hidden = [x.relu().detach() for x in own]
    assert (model[0].training, model[2].training) == (False, True)
    assert model[0].momentum == model[2].momentum == 0.2


def test_estimate_population_tidies_up_after_an_error():
    model = nn.Sequential(made(BatchNorm1d)).eval()
    with pytest.raises(ValueError, match="x has shape"):
        estimate_population(model, [double(5, 3)])
    assert not model[0].training
    assert model[0].momentum == 0.2


CONVOLUTIONS = [
    nn.Conv2d(3, 7, 3, padding=1),
    nn.Conv2d(3, 7, (2, 3), stride=2, bias=False),
    nn.Conv2d(14, 7, 3, groups=7, dilation=2, padding=2, padding_mode="reflect"),
    nn.Conv1d(3, 7, 3),
]


@pytest.mark.parametrize("convolution", CONVOLUTIONS)
def test_folding(convolution):
    flat = isinstance(convolution, nn.Conv1d)
    convolution, norm = randomise(convolution), made(BatchNorm1d if flat else BatchNorm2d).eval()
    x = double(2, convolution.in_channels, *([11] if flat else [11, 13]))
    before = [p.clone() for p in convolution.parameters()]
    folded = fold_into_convolution(convolution, norm)
    assert_same(folded(x), norm(convolution(x)))
    assert_differs(folded(x), convolution(x))
    assert type(folded) is type(convolution)
    assert all(p.requires_grad and p.is_leaf for p in folded.parameters())
    assert all(map(torch.equal, before, convolution.parameters()))  # left as it was


def test_folding_uses_what_evaluation_uses():
    convolution, norm, x = randomise(nn.Conv2d(3, 7, 3)), made(BatchNorm2d), double(2, 3, 5, 5)
    assert_differs(fold_into_convolution(convolution, norm)(x), norm.train()(convolution(x)))


def test_errors():
    with pytest.raises(ValueError, match="d=0 must be at least 1"):
        BatchNorm1d(0)
    with pytest.raises(ValueError, match=r"momentum=1\.5 must lie between 0 and 1"):
        BatchNorm2d(7, momentum=1.5)
    with pytest.raises(ValueError, match=r"x has shape \(2, 5\), need 2 or 3 axes, the second d=7 long"):
        BatchNorm1d(7)(torch.zeros(2, 5))
    with pytest.raises(ValueError, match=r"x has shape \(2, 7, 3, 3\), need 2 or 3 axes"):
        BatchNorm1d(7)(torch.zeros(2, 7, 3, 3))
    with pytest.raises(ValueError, match=r"x has shape \(2, 7, 3\), need 4 axes, the second d=7 long"):
        BatchNorm2d(7)(torch.zeros(2, 7, 3))
    with pytest.raises(ValueError, match=r"x of shape \(1, 7\) has 1 value for each feature; training needs"):
        BatchNorm1d(7)(torch.zeros(1, 7))
    assert BatchNorm1d(7).eval()(torch.zeros(1, 7)).shape == (1, 7)
    with pytest.raises(ValueError, match="convolution gives 5 channels, norm was made for d=7"):
        fold_into_convolution(nn.Conv2d(3, 5, 1), BatchNorm2d(7))
