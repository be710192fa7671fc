r"""BERT without the work on padding [@devlin2019bert]: all tokens of a batch in one row, each text attending to itself.

A batch is as wide as its longest text. What is computed at the padding of the others is thrown away, and it costs as
much as anything else: every linear map, norm and network runs there too. Here only the real tokens go through them.
Attention alone has to know where one text ends and the next begins.

Imports: `BERT` (same paper); `wrapped` puts the attention of one text at a time where the attend was
[@vaswani2017attention].

Symbols: b batch, n positions, r real tokens of all texts, h heads, d width.

Differences from the paper:
    * It says nothing of padding. This is the same function, at real positions.
"""

from collections.abc import Callable
from functools import partial

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from papercode.attention.wrapping import wrapped
from papercode.encoders.bert import BERT


def packed(
    model: BERT,
    tokens: Int[Tensor, "b n"],
    segments: Int[Tensor, "b n"] | None = None,
    keep: Bool[Tensor, "b n"] | None = None,
) -> Float[Tensor, "b n d"]:
    """The states as `model(tokens, segments, keep)` gives them, in less time the more padding there is.

    While it runs, the model's attends are replaced: no other thread may use the model.

    Args:
        model: Its layers mix positions in their attends only.
        tokens: The texts.
        segments: Which sentence a token is in.
        keep: False at padding, wherever that stands.

    Returns:
        The states, zero at padding.
    """
    if keep is None:
        return model(tokens, segments)
    x = model.embed(tokens, segments)[keep][None]
    lengths = keep.sum(1).tolist()
    with wrapped(model, lambda attend: partial(apart, attend, lengths)):
        for layer in model.layers:
            x = layer(x)
    return x.new_zeros(*keep.shape, x.shape[2]).masked_scatter(keep[:, :, None], x)


def apart(
    attend: Callable[..., Tensor],
    lengths: list[int],
    q: Float[Tensor, "1 h r d"],
    k: Float[Tensor, "1 g r d"],
    v: Float[Tensor, "1 g r e"],
    **kwargs,
) -> Float[Tensor, "1 h r e"]:
    """Lets each of the texts that stand in a row attend to itself; kwargs (dropout, scale) go to attend.

    Args:
        attend: Called once a text.
        lengths: Of the texts, r in all.
        q: Queries.
        k: Keys.
        v: Values.
    """
    parts = zip(*(x.split(lengths, 2) for x in (q, k, v)))
    # joined along the outer axis of memory, so that the heads stand side by side without another copy
    return torch.cat([attend(*part, **kwargs).transpose(1, 2) for part in parts], 1).transpose(1, 2)
