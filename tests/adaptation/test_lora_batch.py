"""Several adapters in one batch: each row as if it were alone with its own."""

import copy
import pickle
from functools import partial

import peft
import pytest
import torch
from lora_toys import Int8Linear, Model
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.checkpoint import checkpoint
from transformers.pytorch_utils import Conv1D

from helpers import assert_differs, assert_same, randomise
from papercode.adaptation.lora import LoRALinear
from papercode.adaptation.lora_batch import LoRABatchLinear, assign, stack, unstack
from papercode.adaptation.lora_checkpoint import load_adapters, save_adapters
from papercode.adaptation.lora_embedding import LoRAEmbedding
from papercode.adaptation.lora_fused import LoRAFusedLinear
from papercode.adaptation.lora_model import adapters, inject, merge, remove
from papercode.adaptation.lora_peft import load_peft, save_peft

D_IN, D_OUT = 11, 7
RANKS, ALPHAS = (3, 1, 5), (5.0, 2.0, 3.0)
ROWS = [2, -1, 0, 0, 1, 2]


def layers(base=None, **kwargs):
    base = randomise(base or nn.Linear(D_IN, D_OUT)).requires_grad_(False)
    made = [LoRALinear(base, r, alpha, **kwargs) for r, alpha in zip(RANKS, ALPHAS)]
    for i, layer in enumerate(made):
        layer.base = nn.Identity()
        randomise(layer, seed=i + 1).base = base
    return made


def set_rows(layer, rows):
    layer.rows = None if rows is None else torch.tensor(rows)
    return layer


def one_by_one(tasks, x, rows=ROWS):
    return torch.stack([tasks[0].base(row) if t < 0 else tasks[t](row) for row, t in zip(x, rows, strict=True)])


def test_by_hand():
    base = nn.Linear(2, 1, bias=False)
    tasks = [LoRALinear(base, 1, alpha) for alpha in (1.0, 10.0)]
    with torch.no_grad():
        base.weight.copy_(torch.tensor([[1.0, 1.0]]))
        for task, a in zip(tasks, ([1.0, 0.0], [0.0, 1.0])):
            task.A.copy_(torch.tensor([a]))
            task.B.copy_(torch.tensor([[2.0]]))
    layer = set_rows(LoRABatchLinear(base, tasks), [1, 0, -1])
    # the sum of the two inputs; plus twice the first input, or twenty times the second, or nothing
    x = torch.tensor([[3.0, 4.0]] * 3)
    assert layer(x).tolist() == [[7.0 + 80.0], [7.0 + 6.0], [7.0]]


@pytest.mark.parametrize("shape", [(), (4,), (2, 3), (0,)])
@pytest.mark.parametrize("base", [nn.Linear(D_IN, D_OUT), nn.Linear(D_IN, D_OUT, bias=False), Conv1D(D_OUT, D_IN)])
def test_every_row_as_if_it_were_alone(base, shape):
    tasks = layers(base)
    layer = set_rows(LoRABatchLinear(base, tasks), ROWS)
    x = torch.randn(6, *shape, D_IN, dtype=torch.float64, requires_grad=True)
    mine, other = layer(x), one_by_one(tasks, x)
    assert_same(mine, other)
    assert torch.equal(mine[1], base(x)[1])
    with torch.no_grad():
        assert_same(layer(x), other)
        if x.numel():
            assert_differs(set_rows(layer, [ROWS[-1], *ROWS[:-1]])(x), other)
    given = torch.randn_like(mine)
    dx, dA, dB = torch.autograd.grad(mine, [x, layer.A, layer.B], given)
    factors = [f for task in tasks for f in (task.A, task.B)]
    exact, *grads = torch.autograd.grad(other, [x, *factors], given)
    assert_same(dx, exact)
    for i, r in enumerate(RANKS):
        assert_same(dA[i, :r], grads[2 * i])
        assert_same(dB[i, :, :r], grads[2 * i + 1])
        assert dA[i, r:].abs().sum() == dB[i, :, r:].abs().sum() == 0  # padding stays padding


def test_gradients_are_right():
    layer = set_rows(LoRABatchLinear((tasks := layers())[0].base, tasks), ROWS)

    def function(x, A, B):
        return torch.func.functional_call(layer, {"A": A, "B": B}, x)

    x = torch.randn(6, 2, D_IN, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(function, (x, layer.A, layer.B))


def test_other_bases_and_fused_projections():
    x = torch.randn(6, 2, D_IN)
    base = Int8Linear(nn.Linear(D_IN, D_OUT))
    tasks = [LoRALinear(base, r, 2.0) for r in RANKS]
    for task in tasks:
        nn.init.normal_(task.B)
    with torch.no_grad():
        assert_same(set_rows(LoRABatchLinear(base, tasks), ROWS)(x), one_by_one(tasks, x), 1e-5)
    base = nn.Linear(D_IN, 15)
    make = partial(LoRAFusedLinear, base, 2, 6.0, parts=(7, 3, 5))
    tasks = [make(adapted=(0, 2)), make(adapted=(1,))]
    for task in tasks:
        nn.init.normal_(task.B)
    rows = [0, 1, 1, -1, 0, 0]
    layer = set_rows(LoRABatchLinear(base, tasks), rows)
    assert_same(layer(x), one_by_one(tasks, x, rows), 1e-5)
    assert layer.ranks == [4, 2]
    assert layer.alphas == [12.0, 6.0]
    assert "ranks=[4, 2], alphas=[12.0, 6.0]" in repr(layer)


def test_an_adapter_may_leave_a_map_alone():
    tasks, x = layers(), torch.randn(6, D_IN, dtype=torch.float64)
    layer = set_rows(LoRABatchLinear(tasks[0].base, [tasks[0], None, tasks[2]]), ROWS)
    out = layer(x)
    assert_same(out, one_by_one(tasks, x, [2, -1, 0, 0, -1, 2]))
    assert torch.equal(out[4], tasks[0].base(x)[4])


@pytest.mark.parametrize("grad", [True, False])
def test_a_hook_on_the_base_sees_its_own_output(grad):
    tasks, x, seen = layers(), torch.randn(6, D_IN, dtype=torch.float64), []
    layer = set_rows(LoRABatchLinear(tasks[0].base, tasks), ROWS)
    plain = layer.base(x)
    layer.base.register_forward_hook(lambda module, _, out: seen.append(out))
    with torch.set_grad_enabled(grad):
        assert_differs(layer(x), plain)
    assert_same(seen[0], plain)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_a_narrow_base(dtype):
    tasks = layers()
    exact = one_by_one(tasks, x := torch.randn(6, 2, D_IN, dtype=torch.float64))
    layer = LoRABatchLinear(tasks[0].base, tasks).float()
    layer.base.to(dtype)
    out = set_rows(layer, ROWS)(x.to(dtype))
    assert out.dtype == dtype
    assert (out.double() - exact).norm() < 4 * torch.finfo(dtype).eps * exact.norm()
    assert torch.equal(out[1], layer.base(x.to(dtype))[1])


@pytest.mark.parametrize("grad", [True, False])
def test_under_autocast(grad):
    tasks = layers()
    exact = one_by_one(tasks, x := torch.randn(6, 2, D_IN, dtype=torch.float64))
    layer = set_rows(LoRABatchLinear(tasks[0].base, tasks).float(), ROWS)
    with torch.autocast("cpu", torch.bfloat16), torch.set_grad_enabled(grad):
        out = layer(x.float())
    assert out.dtype == torch.bfloat16
    assert (out.double() - exact).norm() < 0.02 * exact.norm()
    if grad:
        assert [g.dtype for g in torch.autograd.grad(out.float().sum(), [layer.A, layer.B])] == [torch.float32] * 2


def test_dropout_falls_on_the_input_of_a():
    tasks = layers(dropout=0.5)
    layer = set_rows(LoRABatchLinear(tasks[0].base, tasks), ROWS)
    x = torch.randn(6, D_IN, dtype=torch.float64)
    assert layer.training
    torch.manual_seed(1)
    out = layer(x)
    torch.manual_seed(1)
    dropped = nn.functional.dropout(x, 0.5)
    for i, t in enumerate(ROWS):
        update = tasks[t].update(dropped[i]) if t >= 0 else 0.0
        assert_same(out[i], layer.base(x[i]) + update)
    layer.eval(), [task.eval() for task in tasks]
    assert_same(layer(x), one_by_one(tasks, x))


class Products(TorchDispatchMode):
    """Counts matrix products."""

    count = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        self.count += function.overloadpacket.__name__ in ("mm", "addmm", "bmm", "baddbmm", "baddbmm_", "linear")
        return function(*args, **(kwargs or {}))


@pytest.mark.parametrize("b", [6, 60])
def test_one_base_pass_and_two_thin_products_whatever_the_batch(b):
    tasks = layers()
    layer = set_rows(LoRABatchLinear(tasks[0].base, tasks), ROWS * (b // 6))
    with Products() as seen, torch.no_grad():
        layer(torch.randn(b, 4, D_IN, dtype=torch.float64))
    assert seen.count == 3


# a whole model


def trained(model, targets, r, seed, dropout=0.0):
    """Injects and pretends to have trained; the model's own numbers stay."""
    inject(model, targets, r=r, alpha=2.0 * r, dropout=dropout)
    generator = torch.Generator().manual_seed(seed)
    for layer in adapters(model).values():
        for factor in (layer.A, layer.B):
            factor.data.copy_(torch.randn(factor.shape, generator=generator))


def whole(targets=(("q", "v"), ("q", "k", "head"), ("o",)), ranks=(3, 1, 2)):
    """A model, and three adapters of it."""
    model, tasks = randomise(Model()).eval(), []
    for i, (names, r) in enumerate(zip(targets, ranks)):
        trained(model, list(names), r, seed=i)
        tasks.append(adapters(model))
        remove(model)
    return model, tasks


def with_one(model, task):
    twin = copy.deepcopy(model)
    for name, layer in task.items():
        parent, _, child = name.rpartition(".")
        setattr(twin.get_submodule(parent), child, copy.deepcopy(layer))
    return twin.eval()


def test_a_batch_of_a_whole_model():
    model, tasks = whole()
    ids = torch.randint(1, 13, (6, 7))
    alone = [with_one(model, task) for task in tasks]
    expected = torch.stack([(model if t < 0 else alone[t])(row[None])[0] for t, row in zip(ROWS, ids)])
    plain = model(ids)
    names = stack(model, tasks)
    assert sorted(names) == sorted({name for task in tasks for name in task})
    with assign(model, ROWS):
        out = model(ids)
        assert_same(out, expected)
        with assign(model, torch.full((6,), -1)):
            assert torch.equal(model(ids), plain)
        assert torch.equal(model(ids), out)  # what was set outside is back
    with pytest.raises(ValueError, match=r"not said: with assign\(model, rows\)"):
        model(ids)
    assert_differs(out, plain)
    with assign(model, [0, 0, 1, 1, 2, 2]):
        assert_differs(model(ids), expected)


def test_taken_out_one_by_one():
    model, tasks = whole()
    ids = torch.randint(1, 13, (6, 7))
    plain, alone = model(ids), [with_one(model, task)(ids) for task in tasks]
    for i, task in enumerate(tasks):
        stack(model, tasks)
        unstack(model, i)
        assert set(adapters(model)) == set(task)
        assert_same(model(ids), alone[i])
        merge(model)
        assert_same(model(ids), alone[i])
        remove(model)
        model, tasks = whole()
    stack(model, tasks)
    unstack(model)
    assert torch.equal(model(ids), plain)
    assert not adapters(model)


@pytest.mark.parametrize("training", [True, False])
def test_mode_and_dropout_survive(training):
    """A layer that is put into a model, or taken out of one, is in the mode of what stood there."""
    model = nn.Sequential(nn.Linear(D_IN, D_OUT).train(training))
    inject(model, ["0"], r=2, alpha=2, dropout=0.4)
    tasks = [adapters(model)]
    remove(model)
    stack(model, tasks)
    assert model[0].training == training
    unstack(model, 0)
    assert model[0].training == model[0].dropout.training == training
    assert model[0].dropout.p == 0.4


def test_adapters_from_files(tmp_path):
    model = randomise(Model()).eval()
    ids = torch.randint(1, 13, (2, 7))
    trained(model, ["q", "v"], 3, seed=1)
    save_adapters(model, tmp_path / "ours.safetensors")
    first = model(ids)
    remove(model)
    trained(model, ["o", "head"], 2, seed=2)
    save_peft(model, tmp_path / "theirs")
    second = model(ids)
    remove(model)
    tasks = []
    inject(model, ["q", "v"], r=3, alpha=6.0)
    load_adapters(model, tmp_path / "ours.safetensors")
    tasks.append(adapters(model))
    remove(model)
    load_peft(model, tmp_path / "theirs")
    tasks.append(adapters(model))
    remove(model)
    stack(model, tasks)
    with assign(model, [0, 1]):
        assert_same(model(ids), torch.stack([first[0], second[1]]))


def test_parity_with_mixed_batches_of_peft():
    model, tasks = whole()
    ids = torch.randint(1, 13, (6, 7))
    for i, task in enumerate(tasks):
        ends = sorted({name.rpartition(".")[2] for name in task})
        layer = next(iter(task.values()))
        config = peft.LoraConfig(r=layer.r, lora_alpha=layer.alpha, target_modules=ends)
        if i == 0:
            theirs = peft.get_peft_model(copy.deepcopy(model), config, adapter_name="task0")
        else:
            theirs.add_adapter(f"task{i}", config)
    theirs.double().eval()
    for i, task in enumerate(tasks):
        for name, layer in task.items():
            other = theirs.base_model.model.get_submodule(name)
            other.lora_A[f"task{i}"].weight.data.copy_(layer.A)
            other.lora_B[f"task{i}"].weight.data.copy_(layer.B)
    expected = theirs(ids, adapter_names=["__base__" if t < 0 else f"task{t}" for t in ROWS])
    stack(model, tasks)
    with assign(model, ROWS):
        assert_same(model(ids), expected)
        assert_differs(model(ids), theirs(ids, adapter_names=["task0"] * 6))


def test_all_adapters_train_at_once():
    model, tasks = whole()
    stack(model, tasks)
    model.tokens.requires_grad_(False)
    ids, parameters = torch.randint(1, 13, (6, 7)), [p for n, p in model.named_parameters() if n[-1] in "AB"]
    before = [p.detach().clone() for p in parameters]
    optimizer = torch.optim.AdamW(parameters, lr=0.01, weight_decay=0.1)
    with assign(model, ROWS):
        losses = []
        for _ in range(20):
            loss = (model(ids) - 1).square().mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
    assert losses[-1] < 0.5 * losses[0]
    assert all((p != old).any() for p, old in zip(parameters, before))
    for p, old in zip(parameters, before):
        assert p[old == 0].abs().sum() == 0  # padding does not learn


@pytest.mark.parametrize("reentrant", [True, False])
def test_under_gradient_checkpointing(reentrant):
    tasks = layers()
    layer = LoRABatchLinear(tasks[0].base, tasks)
    model = nn.Sequential(layer)
    x = torch.randn(6, D_IN, dtype=torch.float64, requires_grad=True)
    with assign(model, ROWS):
        expected = torch.autograd.grad(model(x).tanh().sum(), [x, layer.A])
        checkpoint(lambda x: model(x).tanh(), x, use_reentrant=reentrant).sum().backward()
    assert_same(x.grad, expected[0])
    assert_same(layer.A.grad, expected[1])


def test_a_map_under_two_names_and_copies():
    model = nn.Sequential(shared := nn.Linear(5, 5), nn.Tanh(), shared).double()
    inject(model, ["0"], r=2, alpha=1.0)
    task = adapters(model)
    nn.init.normal_(task["0"].B)
    x = torch.randn(3, 5, dtype=torch.float64)
    remove(model)
    model[2] = model[0]
    plain, both = model(x), task["0"](torch.tanh(task["0"](x)))
    stack(model, [task])
    assert model[0] is model[2]
    with assign(model, [0, -1, 0]):
        out = model(x)
        assert_same(out[[0, 2]], both[[0, 2]])
        assert_same(out[1], plain[1])
        for twin in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
            assert_same(twin(x), out)
    stacked = model.state_dict()
    model[0].A.data.zero_()
    model.load_state_dict(stacked)


def test_after_an_error_the_rows_are_what_they_were():
    model, tasks = whole()
    stack(model, tasks)
    with pytest.raises(KeyError), assign(model, [0]):
        raise KeyError
    with pytest.raises(ValueError, match="not said"):
        model(torch.randint(1, 13, (1, 7)))


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        (lambda t: [None, None], ValueError, r"tasks=\[None, None\] holds no adapter of this map"),
        (lambda t: [t[0], layers()[1]], ValueError, r"tasks\[1\] is around another base"),
        (lambda t: [t[0], layers(dropout=0.1)[0]], ValueError, "around another base"),
        (lambda t: [t[0], set_dropout(t[1], 0.5)], ValueError, r"tasks differ in dropout=\[0.0, 0.5\]"),
        (lambda t: [t[0], t[1].merge() or t[1]], ValueError, r"tasks\[1\] is merged; unmerge it first"),
        (lambda t: [LoRAEmbedding(nn.Embedding(11, 7), 2, 1.0)], TypeError, r"tasks\[0\] is a LoRAEmbedding"),
    ],
)
def test_errors_of_a_layer(change, error, message):
    tasks = layers()
    [task.eval() for task in tasks]
    with pytest.raises(error, match=message):
        LoRABatchLinear(tasks[0].base, change(tasks))


def set_dropout(task, p):
    task.dropout.p = p
    return task


def test_errors_of_a_model_name_the_map_and_change_nothing():
    model, tasks = whole()
    with pytest.raises(ValueError, match="tasks hold no adapter: 1 of them, all empty"):
        stack(model, [{}])
    other = whole()[1]
    with pytest.raises(ValueError, match=r"blocks.0.q: tasks\[1\] is around another base"):
        stack(model, [tasks[0], other[1]])
    for use in (lambda: unstack(model), lambda: assign(model, [0]).__enter__()):
        with pytest.raises(ValueError, match=r"Model has no stacked adapters: stack\(\) first"):
            use()
    trained(model, ["o"], 2, seed=1)
    with pytest.raises(ValueError, match=r"Model has adapters already; remove\(\) or unstack\(\) them first"):
        stack(model, tasks)
    remove(model)
    stack(model, tasks)
    with pytest.raises(ValueError, match="has adapters already"):
        stack(model, tasks)
    for task in (-1, 3):
        with pytest.raises(ValueError, match=f"task={task} is not one of the 3 adapters 0 … 2"):
            unstack(model, task)


@pytest.mark.parametrize(
    ("rows", "error", "message"),
    [
        ([0, 3], ValueError, r"rows=\[0, 3\] must be one number a row, between -1 \(no adapter\) and 2"),
        ([-2, 0], ValueError, r"rows=\[-2, 0\] must be one number a row"),
        ([[0, 1]], ValueError, r"rows=\[\[0, 1\]\] must be one number a row"),
        ([True, False], TypeError, r"rows=\[True, False\] must be integers"),
        ([0.0, 1.0], TypeError, r"rows=\[0.0, 1.0\] must be integers"),
        ([0, 1, 2], ValueError, r"x has 2 rows, but rows=\[0, 1, 2\] names the adapters of 3"),
    ],
)
def test_errors_of_rows(rows, error, message):
    model, tasks = whole()
    stack(model, tasks)
    with pytest.raises(error, match=message), assign(model, rows):
        model(torch.randint(1, 13, (2, 7)))
