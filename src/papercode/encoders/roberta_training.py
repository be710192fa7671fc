r"""How RoBERTa is trained [@liu2019roberta, sections 3.1 and 4.3]: large batches in parts, and Adam for them.

Imports: `IGNORED`, the target of what is not asked for [@devlin2019bert].

Symbols: $g_i$ the gradient of part i's mean loss, $c_i$ how many words part i asks for.

Differences from the paper:
    * The paper adds up gradients of parts (footnote 8) and does not say how parts are weighted; here by their number of
      words asked for, $\sum_i c_i g_i / \sum_i c_i$, which is what one batch gives.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from papercode.encoders.bert_pretraining import IGNORED


def accumulate(loss: Callable[..., Tensor], parts: Sequence[tuple[Any, ...]], counts: Sequence[int]) -> float:
    r"""Adds the gradient of one large batch to the parameters' `.grad`, a part at a time, in the memory of one part.

    Args:
        loss: A mean, such as `model.loss`; called as `loss(*part)`.
        parts: The batch, cut.
        counts: Over how many terms each part's loss is a mean: words asked for, not rows.

    Returns:
        The mean loss of the whole batch, 0 if it asks for nothing.

    Raises:
        ValueError: If parts and counts are not as many, or there is none.
    """
    if not parts or len(parts) != len(counts):
        raise ValueError(f"parts has length {len(parts)} and counts {len(counts)}: there must be one count a part")
    total, value = max(sum(counts), 1), 0.0
    for part, count in zip(parts, counts):
        share = loss(*part) * (count / total)
        share.backward()
        value += share.item()
    return value


def asked(targets: Tensor) -> int:
    """How many words the targets ask for: the count of a part."""
    return int((targets != IGNORED).sum())


def adam(model: nn.Module, peak: float = 6e-4) -> torch.optim.AdamW:
    r"""Adam as in Table 9: $\beta_2$ = 0.98 instead of 0.999, for large batches; $\epsilon$ = 1e-6, weight decay 0.01.

    Args:
        model: Whose parameters are trained.
        peak: The learning rate: 6e-4 for the base model, 4e-4 for the large one.
    """
    return torch.optim.AdamW(model.parameters(), peak, betas=(0.9, 0.98), eps=1e-6, weight_decay=0.01)
