r"""One path through a chain of tags, the best path, all paths: their scores [@huang2015bidirectional].

Imports: the sum over all paths, by products of matrices or in logs, from the function beside this module.

With these [`Potentials`][papercode.recurrent.crf_paths.Potentials] the score of a path $y_1 \dots y_n$ is

$$\mathrm{start}_{y_1} + \sum_{t=1}^n f_{t, y_t} + \sum_{t=2}^n A^{(t)}_{y_{t-1} y_t} + \mathrm{end}_{y_n} .$$

Symbols: b batch, n steps, k tags, f emissions, A transitions.

Differences from the paper:
    * Transitions may differ from step to step, which a later paper needs [@ma2016end].
"""

from typing import NamedTuple

import torch
from jaxtyping import Int
from torch import Tensor

from papercode.recurrent.crf_function import log_partition, log_partition_by_logs, padding


class Potentials(NamedTuple):
    """What a path's score is the sum of.

    Attributes:
        emissions: (b n k), of a tag at a step.
        transitions: (k k), of a tag (column) after another (row); or (b n-1 k k) where it depends on the step.
        start: (k), of the first tag.
        end: (k), of the last tag.
    """

    emissions: Tensor
    transitions: Tensor
    start: Tensor
    end: Tensor


def total(potentials: Potentials, lengths: Tensor | None = None) -> Tensor:
    """log Z in float64: exponentials and matrix products where the transitions are shared by all steps, else logs."""
    shared = potentials.transitions.ndim == 2
    return (log_partition if shared else log_partition_by_logs)(*potentials, lengths)


def path_score(potentials: Potentials, tags: Int[Tensor, "b n"], lengths: Tensor | None = None) -> Tensor:
    """The score of one path a row, in float64.

    Raises:
        ValueError: If the tags do not have the shape of the emissions.
    """
    emissions, transitions, start, end = potentials
    if tags.shape != emissions.shape[:2]:
        raise ValueError(f"tags {tuple(tags.shape)} must be (b, n) = {tuple(emissions.shape[:2])}")
    ended, rows = padding(emissions, lengths), torch.arange(len(tags), device=tags.device)
    gone = None if ended is None else ended[..., 0].T
    tags = tags if gone is None else tags.masked_fill(gone, 0)
    at = emissions.gather(2, tags[..., None])[..., 0].double()
    if transitions.ndim == 2:
        between = transitions.flatten()[tags[:, :-1] * len(end) + tags[:, 1:]].double()
    else:
        steps = torch.arange(tags.shape[1] - 1, device=tags.device)
        between = transitions[rows[:, None], steps, tags[:, :-1], tags[:, 1:]].double()
    if gone is not None:
        at, between = at.masked_fill(gone, 0), between.masked_fill(gone[:, 1:], 0)
    last = tags[:, -1] if lengths is None else tags[rows, lengths - 1]
    return at.sum(1) + between.sum(1) + start.double()[tags[:, 0]] + end.double()[last]


def viterbi(potentials: Potentials, lengths: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """The best path of each row and its score.

    The loop keeps the best scores only; which tag came before is looked up for the one best path, on the way back. The
    batch is the last dimension, so that the maximum over tags runs along whole vectors.
    """
    emissions, transitions, start, end = potentials
    ended = padding(emissions, lengths)
    x = emissions.permute(1, 2, 0).contiguous()  # whatever stands at the padding, nothing below looks at it
    n = len(x)
    rows = torch.arange(x.shape[2], device=x.device)
    # from (k) to (k) at each step, for all rows or each
    steps = [transitions[..., None]] * (n - 1) if transitions.ndim == 2 else list(transitions.permute(1, 2, 3, 0))
    best = [start[:, None] + x[0]]
    for step, now in zip(steps, x.unbind()[1:]):
        best.append((best[-1][:, None] + step).amax(0).add_(now))
    at_last = best[-1] if lengths is None else torch.stack(best)[lengths - 1, :, rows].T
    score, tag = (at_last + end[:, None]).max(0)
    path = [tag]
    for t in range(n - 2, -1, -1):
        into = transitions.index_select(1, tag) if transitions.ndim == 2 else steps[t][:, tag, rows]
        before = (best[t] + into).max(0).indices  # faster than argmax
        tag = before if ended is None else torch.where(ended[t + 1, :, 0], tag, before)
        path.append(tag)
    found = torch.stack(path[::-1], 1)
    return (found if ended is None else found.masked_fill(ended[..., 0].T, 0)), score
