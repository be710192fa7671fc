r"""How CDial-GPT's batches of 512 fit a small GPU: gradient accumulation [@wang2020large].

The gradient of a sum is the sum of the gradients. So a batch can go through the model in M micro-batches, whose
gradients add up in `.grad`, and the optimiser takes one step after the last. The paper's are 64 of 8 samples.

That sum is the gradient of the whole batch only if each micro-batch counts for what it holds. A mean over $n_i$ targets
has to be weighted by $n_i / \sum_j n_j$. The usual 1/M is the same if all have as many targets, and only then; replies
do not have the same length.
"""

from collections.abc import Callable, Sequence

from torch import Tensor


def accumulate(
    loss: Callable[..., Tensor], micro_batches: Sequence[tuple], counts: Sequence[int] | None = None
) -> float:
    """Adds the gradient of a batch to `.grad`, one micro-batch at a time.

    What is to happen once a batch comes after it: clipping, the step, the next learning rate, `zero_grad`.

    Args:
        loss: Called as `loss(*micro_batch)`, returns the mean over the targets of a micro-batch.
        micro_batches: All parts of the batch.
        counts: Targets in each, by which they are weighted; 1/M each unless given, as in the authors' code.

    Returns:
        The loss of the batch.

    Raises:
        ValueError: If there are no micro-batches, or counts does not fit or sums to nothing.
    """
    if not micro_batches:
        raise ValueError("micro_batches is empty: there is nothing to learn from")
    weights = [1] * len(micro_batches) if counts is None else list(counts)
    if len(weights) != len(micro_batches) or min(weights) < 0 or sum(weights) == 0:
        raise ValueError(f"counts={weights} must hold one count for each of {len(micro_batches)} micro-batches")
    total = 0.0
    for batch, weight in zip(micro_batches, weights):
        if weight:  # the mean of no targets is not a number
            part = loss(*batch) * (weight / sum(weights))
            part.backward()
            total += part.item()
    return total
