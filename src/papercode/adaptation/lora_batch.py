r"""Several adapters in one batch [@hu2022lora, section 4.2]: each row of the batch names its own.

Imports: `LoRALinear` is one adapted map, `LoRAEmbedding` one that is refused here, `can_fuse` tells whether the base's
output is ours to add to (same paper).

The base is multiplied once for the whole batch. Each row adds two thin products of its own: the factors of all adapters
stand stacked, padded with zeros to the largest rank, and are picked by row; what is padded gets no gradient.

Symbols: b rows of a batch, n positions of a row (all its further dimensions in one), t adapters, r largest rank.

Differences from the paper:
    * It names as a limitation that a merged model serves one task a batch, and leaves out how to serve several. Here
      nothing is merged, and the batch is mixed.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import linear, pad

from papercode.adaptation.lora import LoRALinear
from papercode.adaptation.lora_embedding import LoRAEmbedding
from papercode.adaptation.lora_function import can_fuse


class LoRABatchLinear(nn.Module):
    r"""$h_i = W_0 x_i + \frac{\alpha_t}{r_t} B_t A_t x_i$ for row i of a batch and its adapter t = rows[i]; -1 is none.

    `rows` is set by [`assign`][papercode.adaptation.lora_batch.assign].

    Args:
        base: The map that all share.
        tasks: One adapted map an adapter, each around base; None where an adapter leaves this map alone.

    Raises:
        TypeError: If one adapts no linear map.
        ValueError: If there is none, one is around another base or merged, or their dropouts differ.
    """

    scale: Tensor

    def __init__(self, base: nn.Module, tasks: Sequence[LoRALinear | None]):
        super().__init__()
        layers = [task for task in tasks if task is not None]
        if not layers:
            raise ValueError(f"tasks={list(tasks)} holds no adapter of this map")
        for i, task in enumerate(tasks):
            if isinstance(task, LoRAEmbedding):
                raise TypeError(f"tasks[{i}] is a LoRAEmbedding; only linear maps can be batched")
            if task is not None and task.base is not base:
                raise ValueError(f"tasks[{i}] is around another base; load each adapter into the same model")
            if task is not None and task.merged:
                raise ValueError(f"tasks[{i}] is merged; unmerge it first")
        dropouts = {layer.dropout.p for layer in layers}
        if len(dropouts) > 1:
            raise ValueError(f"tasks differ in dropout={sorted(dropouts)}; one batch has one")
        self.base, self.dropout = base, nn.Dropout(dropouts.pop())
        self.rows: Tensor | None = None
        factors = [None if task is None else task.factors() for task in tasks]
        self.ranks = [0 if pair is None else len(pair[0]) for pair in factors]
        self.alphas = [0.0 if t is None else t.alpha * n / t.r for t, n in zip(tasks, self.ranks)]
        r, (A, B) = max(self.ranks), layers[0].factors()
        none = A.new_zeros(0, A.shape[1]), B.new_zeros(B.shape[0], 0)
        pairs = [none if pair is None else pair for pair in factors]
        self.A = nn.Parameter(torch.stack([pad(A.detach(), (0, 0, 0, r - len(A))) for A, _ in pairs]))
        self.B = nn.Parameter(torch.stack([pad(B.detach(), (0, r - B.shape[1])) for _, B in pairs]))
        scales = [alpha / max(n, 1) for alpha, n in zip(self.alphas, self.ranks)]
        self.register_buffer("scale", torch.tensor(scales, dtype=A.dtype, device=A.device), persistent=False)
        self.train(base.training)

    def forward(self, x: Float[Tensor, "b *n d_in"]) -> Float[Tensor, "b *n d_out"]:
        """The map as each row's adapter has it; rows without one get what base gives, to the bit."""
        rows = self.rows
        if rows is None:
            raise ValueError("which row takes which adapter is not said: with assign(model, rows): model(x)")
        if len(x) != len(rows):
            raise ValueError(f"x has {len(x)} rows, but rows={rows.tolist()} names the adapters of {len(rows)}")
        ours = not torch.is_grad_enabled() and can_fuse(self.base)
        y = linear(x, self.base.weight, self.base.bias) if ours else self.base(x)  # type: ignore[arg-type]
        n = math.prod(x.shape[1:-1])
        A, B = self.A[rows].to(y.dtype), self.B[rows].to(y.dtype)  # -1 picks the last one; its product becomes zero
        P = self.dropout(x).to(y.dtype).reshape(len(x), n, x.shape[-1]) @ A.mT
        P = (P * self.scale[rows, None, None]).masked_fill(rows[:, None, None] < 0, 0.0).to(y.dtype)
        add = Tensor.baddbmm_ if ours else torch.baddbmm
        return add(y.reshape(len(x), n, y.shape[-1]), P, B.mT).view(y.shape)

    def extra_repr(self) -> str:
        """For print(model)."""
        return f"ranks={self.ranks}, alphas={self.alphas}"


def stack(model: nn.Module, tasks: Sequence[Mapping[str, LoRALinear]]) -> list[str]:
    """Puts several adapters of a model into it at once, each map that any of them adapts becoming a LoRABatchLinear.

    The numbers are copied; the adapters stay as they are. Everything is checked before anything is changed.

    Args:
        model: Without adapters.
        tasks: What `adapters(model)` gave while adapter 0, 1, … was in the model; `remove(model)` then took it out.

    Returns:
        The names of the maps.

    Raises:
        TypeError: As for LoRABatchLinear, naming the map.
        ValueError: As for LoRABatchLinear, naming the map; or if the model still has adapters.
    """
    if any(isinstance(module, LoRALinear | LoRABatchLinear) for module in model.modules()):
        raise ValueError(f"{type(model).__name__} has adapters already; remove() or unstack() them first")
    names = list(dict.fromkeys(name for task in tasks for name in task))
    if not names:
        raise ValueError(f"tasks hold no adapter: {len(tasks)} of them, all empty")
    made = {}
    for name in names:
        base = model.get_submodule(name)
        try:
            made[base] = LoRABatchLinear(base, [task.get(name) for task in tasks])
        except (TypeError, ValueError) as error:
            raise type(error)(f"{name}: {error}") from error
    _replace(model, made)
    return names


def unstack(model: nn.Module, task: int | None = None) -> None:
    """Takes the stacked adapters out again and puts one of them in, as LoRALinear, to merge it or save it.

    Args:
        model: As `stack` left it.
        task: Number of the adapter; none, so that the plain maps are back, unless given.

    Raises:
        ValueError: If the model has no stacked adapters, or not so many.
    """
    layers = _layers(model)
    made: dict[nn.Module, nn.Module] = {}
    for layer in layers:
        made[layer] = layer.base
        if task is not None and not 0 <= task < len(layer.ranks):
            raise ValueError(f"task={task} is not one of the {len(layer.ranks)} adapters 0 … {len(layer.ranks) - 1}")
        if task is not None and layer.ranks[task]:
            r = layer.ranks[task]
            one = LoRALinear(layer.base, r, layer.alphas[task], dropout=layer.dropout.p)
            with torch.no_grad():
                one.A.copy_(layer.A[task, :r])
                one.B.copy_(layer.B[task, :, :r])
            made[layer] = one
    _replace(model, made)


@contextmanager
def assign(model: nn.Module, rows: Tensor | Sequence) -> Iterator[None]:
    """Within, row i of a batch takes adapter rows[i]; -1 is none.

    A backward pass that runs the model again (gradient checkpointing) belongs inside. For beams, repeat each row.

    Args:
        model: As `stack` left it.
        rows: One number a row of the batch.

    Raises:
        TypeError: If rows are no integers.
        ValueError: If the model has no stacked adapters, or a number is none of theirs.
    """
    layers, rows = _layers(model), torch.as_tensor(rows)
    if rows.is_floating_point() or rows.dtype == torch.bool:
        raise TypeError(f"rows={rows.tolist()} must be integers, the numbers of adapters")
    most = len(layers[0].ranks) - 1
    if rows.ndim != 1 or (rows.numel() and not -1 <= rows.min() <= rows.max() <= most):
        raise ValueError(f"rows={rows.tolist()} must be one number a row, between -1 (no adapter) and {most}")
    before = [layer.rows for layer in layers]
    try:
        for layer in layers:
            layer.rows = rows.to(layer.A.device)
        yield
    finally:
        for layer, old in zip(layers, before):
            layer.rows = old


def _layers(model: nn.Module) -> list[LoRABatchLinear]:
    layers = [module for module in model.modules() if isinstance(module, LoRABatchLinear)]
    if not layers:
        raise ValueError(f"{type(model).__name__} has no stacked adapters: stack() first")
    return layers


def _replace(model: nn.Module, made: Mapping[nn.Module, nn.Module]) -> None:
    for name, module in list(model.named_modules(remove_duplicate=False)):
        if module in made:
            parent, _, child = name.rpartition(".")
            setattr(model.get_submodule(parent), child, made[module])
