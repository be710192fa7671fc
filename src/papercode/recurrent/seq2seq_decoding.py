r"""Translating with several deep LSTMs at once, and by the plain sum of log-probabilities [@sutskever2014sequence].

Greedy and beam search themselves are those of [`papercode.decoding`][papercode.decoding]; they take a step, and
`Seq2Seq.steps` or `ensemble` make one.

Symbols: r rows (hypotheses), n tokens so far, v target vocabulary.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor

from papercode.decoding import Step


def unpenalised(length: int) -> float:
    """The paper's score of a hypothesis is its log-probability, whatever its length: for `beam_search(penalty=…)`."""
    return 1.0


def ensemble(steps: Sequence[Step]) -> Step:
    """One step of several models: the logarithm of the mean of their probabilities for the next token.

    The paper says that it decodes with ensembles of 2 and 5 LSTMs (Table 1), not how their predictions are combined;
    this is the usual way.

    Raises:
        ValueError: If there is no model.
    """
    if not steps:
        raise ValueError("steps is empty")

    def step(tokens: Int[Tensor, "r n"], parents: Int[Tensor, " r"]) -> Float[Tensor, "r v"]:
        log_p = torch.stack([step(tokens, parents).log_softmax(-1) for step in steps])
        return log_p.logsumexp(0)  # but for a constant, which no search sees

    return step
