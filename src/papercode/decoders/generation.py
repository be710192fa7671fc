r"""Continuing texts with a decoder that is fed each token once [@radford2018improving].

Imports: `KVCache` and `wrapped` keep the keys and values of earlier tokens, and `Band` hides padding, all around the
attention of @vaswani2017attention; `GPT` is the decoder.

Symbols: b prompts, r rows (hypotheses), n tokens so far.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from papercode.attention.arguments import Mask
from papercode.attention.kv_cache import KVCache
from papercode.attention.masks import Band
from papercode.attention.transformer import causal_mask
from papercode.attention.wrapping import wrapped
from papercode.decoders.gpt import GPT


def left_padded(prompts: list[list[int]], padding: int = 0) -> tuple[Int[Tensor, "b n"], Bool[Tensor, "b n"]]:
    """Prompts of different lengths as one tensor in which all end together, and where its tokens are.

    A decoder continues at the end of a row, so that is where no padding may stand.

    Args:
        prompts: Of one token or more each.
        padding: Any token; nobody sees it.

    Raises:
        ValueError: If there is no prompt, or an empty one.
    """
    if not prompts or not all(prompts):
        raise ValueError(f"prompts={prompts} must hold one prompt or more, none of them empty")
    longest = max(map(len, prompts))
    rows = [[padding] * (longest - len(prompt)) + prompt for prompt in prompts]
    lengths = torch.tensor([len(prompt) for prompt in prompts])
    return torch.tensor(rows), torch.arange(longest) >= longest - lengths[:, None]


@contextmanager
def cached_generation(
    model: GPT, *, capacity: int = 0, keep: Bool[Tensor, "b n"] | None = None
) -> Iterator[Callable[[Tensor, Tensor], Tensor]]:
    """Gives out a step for [`papercode.decoding`][papercode.decoding] that feeds new tokens only.

    The caches live as long as the context, and serve one search. Dropout falls as the model's mode has it: call
    `eval()` first.

    Args:
        model: A GPT or a descendant whose `encode` and `logits` are called as GPT's.
        capacity: Tokens to make room for, prompt and continuation, so that no cache has to grow.
        keep: False at the padding of prompts, which must stand on the left (see `left_padded`). Each row then counts
            its positions from its own first token.

    Raises:
        ValueError: If a row of keep is padded elsewhere than on the left, or wholly; if the first tokens have another
            shape than keep.
    """
    start, padded = 0, None
    if keep is not None:
        if not (keep[:, -1].all() and (keep.long().diff(dim=1) >= 0).all()):
            raise ValueError("keep must be False, …, True in every row: prompts are padded on the left, before them")
        padded = (~keep).sum(1)
    with wrapped(model, partial(KVCache, capacity=capacity)) as caches:

        def step(tokens: Tensor, parents: Tensor) -> Tensor:
            nonlocal start, keep, padded
            mask: Mask = causal_mask
            first: int | Tensor = start
            if not torch.equal(parents, torch.arange(len(tokens), device=tokens.device)):
                for cache in caches.values():
                    cache.reorder(parents)
            if keep is not None and padded is not None:
                if not start and keep.shape != tokens.shape:
                    raise ValueError(f"keep has shape {tuple(keep.shape)}, but the prompts have {tuple(tokens.shape)}")
                keep, padded = keep[parents], padded[parents]
                keep = torch.nn.functional.pad(keep, (0, tokens.shape[1] - keep.shape[1]), value=True)
                mask, first = Band(right=0, keep=keep), start - padded
            states = model.encode(tokens[:, start:], mask, first)
            start = tokens.shape[1]
            return model.logits(states[:, -1])

        yield step
