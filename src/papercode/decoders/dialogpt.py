r"""DialoGPT [@zhang2020dialogpt]: GPT-2, trained on dialogues written as one long text.

Imports: `GPT` is the language model [@radford2018improving], given as a `GPT2` [@radford2019language] in all of the
paper; nothing in it is changed.

Symbols: b dialogues, K turns $T_1 \dots T_K$ in a dialogue, n tokens of the longest. The source is $T_1$, and the loss
is $-\log p(T_2, \dots, T_K \mid T_1)$, a product over the turns (section 3.1).

Differences from the paper:
    * Which turn the end token belongs to is not said there. It ends every turn, as in the authors' data, and has to be
      predicted for every turn that is learned; the first turn's belongs to the source.
    * A dialogue longer than the model is refused. The authors' code cuts it into pieces that begin with the last turn
      of the piece before.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from papercode.chunked_loss import chunked_cross_entropy
from papercode.decoders.gpt import GPT

IGNORE = -100
"""The target of a position that is not learned."""

Turns = Sequence[Sequence[int]]
"""The turns of a dialogue, each a row of tokens without the end-of-text token."""


class Dialogues(NamedTuple):
    """A batch of dialogues, each one row.

    Attributes:
        tokens: What the model reads (b n): the last end token is predicted, never read. Padding follows at the end.
        targets: What comes after each token (b n), or IGNORE.
        turns: The number of the turn, from 0, that the target belongs to (b n); 0 where it is not learned.
    """

    tokens: Int[Tensor, "b n"]
    targets: Int[Tensor, "b n"]
    turns: Int[Tensor, "b n"]


def flatten(turns: Turns, end: int) -> list[int]:
    """$T_1$ end $T_2$ end … $T_K$ end: a dialogue as one text.

    Args:
        turns: Token ids of each turn, by turns from one speaker and the other.
        end: The end-of-text token, 50256 of GPT-2.

    Raises:
        ValueError: If a turn holds the end token itself.
    """
    for number, turn in enumerate(turns):
        if end in turn:
            raise ValueError(f"turn {number} holds end={end}, which no turn may hold: it ends them")
    return [token for turn in turns for token in (*turn, end)]


def histories(turns: Turns) -> list[list[Sequence[int]]]:
    """Every turn from the second on as the last one of a dialogue of its own: K - 1 prefixes."""
    return [list(turns[:stop]) for stop in range(2, len(turns) + 1)]


def dialogue_batch(
    dialogues: Sequence[Turns], end: int, learn: Sequence[Sequence[bool]] | None = None, device: str = "cpu"
) -> Dialogues:
    """Dialogues as rows of one batch.

    Args:
        dialogues: Of two turns or more each.
        end: The end-of-text token. Padding is filled with it, too: nobody looks at it.
        learn: For each dialogue, whether each turn is learned; all but the first unless given.
        device: Where the tensors are made.

    Raises:
        ValueError: If a dialogue has less than two turns, learn does not fit, or it asks for the first turn, for which
            there is nothing to reply to.
    """
    if learn is None:
        learn = [[i > 0 for i in range(len(turns))] for turns in dialogues]
    if len(learn) != len(dialogues):
        raise ValueError(f"learn is for {len(learn)} dialogues, but there are {len(dialogues)}")
    rows: list[tuple[list[int], list[int], list[int]]] = []
    for number, (turns, wanted) in enumerate(zip(dialogues, learn)):
        if len(turns) < 2:
            raise ValueError(f"dialogue {number} has {len(turns)} turns, but a reply needs one before it: at least 2")
        if len(wanted) != len(turns) or wanted[0]:
            told = list(wanted)
            raise ValueError(f"learn[{number}]={told} must have one entry for each of {len(turns)} turns, first False")
        owner = [i for i, turn in enumerate(turns) for _ in range(len(turn) + 1)]
        text = flatten(turns, end)
        targets = [token if wanted[i] else IGNORE for token, i in zip(text, owner)]
        owner = [i if wanted[i] else 0 for i in owner]
        rows.append((text[:-1], targets[1:], owner[1:]))
    longest = max((len(tokens) for tokens, _, _ in rows), default=0)
    fills = (end, IGNORE, 0)
    return Dialogues(
        *(
            torch.tensor([row[k] + [fill] * (longest - len(row[k])) for row in rows], device=device)
            for k, fill in enumerate(fills)
        )
    )


def response_loss(model: GPT, batch: Dialogues, mean: bool = True) -> Float[Tensor, ""]:
    r"""$-\log p(T_2, \dots, T_K \mid T_1)$ of the whole batch in one pass, by the number of learned tokens if `mean`.

    No mask is needed for the padding: it stands behind all that is learned, where a causal model cannot look.
    """
    return chunked_cross_entropy(model.encode(batch.tokens), model.words.weight, batch.targets, mean=mean)


def log_likelihoods(model: GPT, batch: Dialogues) -> Float[Tensor, "b turns"]:
    r"""$\log p(T_i \mid T_1 \dots T_{i-1})$ of every turn, in the same single pass; 0 for what is not learned.

    Returns:
        A column for each turn up to the last that is learned in any dialogue; the first is all 0.
    """
    log_p = model(batch.tokens).log_softmax(-1)
    learned = batch.targets != IGNORE
    found = log_p.gather(-1, batch.targets.masked_fill(~learned, 0)[..., None])[..., 0].masked_fill(~learned, 0.0)
    n_turns = int(batch.turns.max()) + 1
    return found.new_zeros(len(found), n_turns).scatter_add(1, batch.turns, found)
