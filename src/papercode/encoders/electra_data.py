r"""What ELECTRA's two models read [@clark2020electra, section 2]: texts with gaps, and texts with the gaps filled.

Imports: `mask_tokens` to choose words, and `IGNORED` [@devlin2019bert].

Symbols: b batch, n positions, k chosen words of a batch, v words. The paper's $x^{masked}$ = hidden, $x^{corrupt}$ =
corrupt, $\hat x$ = sampled.

Differences from the paper:
    * Of n words round(0.15 n) are hidden, and at least one, as with BERT and in the authors' code; the paper has
      k = ⌈0.15 n⌉.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from papercode.encoders.bert_data import mask_tokens
from papercode.encoders.bert_pretraining import IGNORED


def hide(
    tokens: Int[Tensor, "b n"],
    *,
    mask: int,
    special: Sequence[int],
    rate: float = 0.15,
    generator: torch.Generator | None = None,
) -> tuple[Int[Tensor, "b n"], Int[Tensor, "b n"]]:
    """Puts [MASK] on all chosen words, for nobody who is kept ever sees it; else as BERT.

    Args:
        tokens: The texts.
        mask: The id of [MASK].
        special: Ids that are never chosen.
        rate: The part of each text's other words that is chosen: 0.15, and 0.25 for the large model (Table 6).
        generator: For the draws, on the device of tokens.

    Returns:
        The texts with words hidden, and the targets.
    """
    _, targets = mask_tokens(tokens, mask=mask, n_tokens=mask + 1, special=special, rate=rate, generator=generator)
    return torch.where(targets == IGNORED, tokens, mask), targets


def sample(logits: Float[Tensor, "k v"], draws: torch.Generator | None = None) -> Int[Tensor, " k"]:
    """Draws a word from each softmax, by the largest of logits with Gumbel noise; nothing flows back."""
    noise = torch.empty_like(logits).exponential_(generator=draws).log()
    return (logits.detach() - noise).argmax(-1)


def put_back(
    hidden: Int[Tensor, "b n"], targets: Int[Tensor, "b n"], sampled: Int[Tensor, " k"]
) -> tuple[Int[Tensor, "b n"], Bool[Tensor, "b n"]]:
    """The text for the discriminator, and where it is not the original: a right guess is no replacement.

    Args:
        hidden: With [MASK]s.
        targets: The words that were hidden, IGNORED elsewhere.
        sampled: For the hidden words, in the order of rows.
    """
    asked = targets != IGNORED
    corrupt = hidden.masked_scatter(asked, sampled)
    return corrupt, asked & (corrupt != targets)
