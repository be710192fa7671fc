"""The small training loop that claims and examples share."""

from collections.abc import Callable, Iterable

import torch
from torch import Tensor, nn


def train(
    model: nn.Module,
    loss: Callable[..., Tensor],
    batches: Iterable[tuple],
    optimizer: torch.optim.Optimizer,
    *,
    rate: Callable[[int], float] | None = None,
    clip: float | None = None,
) -> list[float]:
    """One optimiser step for each batch.

    Args:
        model: Put into training mode, and back into the mode it was in.
        loss: Called as `loss(*batch)`, returns a scalar.
        batches: As many as there shall be steps; `itertools.islice` cuts an endless stream.
        optimizer: Holds the parameters to train.
        rate: Learning rate of step 1, 2, …; the optimiser's own unless given.
        clip: Largest norm of the gradient; a longer one is scaled down to it.

    Returns:
        The loss of each step, before the step.

    Raises:
        ValueError: If a loss is not finite; nothing good comes after it.
    """
    losses, training = [], model.training
    model.train()
    for step, batch in enumerate(batches, 1):
        value = loss(*batch)
        if not value.isfinite():
            raise ValueError(f"loss={value.item()} at step={step} is not finite")
        optimizer.zero_grad()
        value.backward()
        if clip is not None:
            nn.utils.clip_grad_norm_([p for group in optimizer.param_groups for p in group["params"]], clip)
        if rate is not None:
            for group in optimizer.param_groups:
                group["lr"] = rate(step)
        optimizer.step()
        losses.append(value.item())
    model.train(training)
    return losses
