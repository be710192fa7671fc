r"""Keys and values that are computed once: a wrapper on `attend` (no paper of its own).

In a causal decoder the key and the value of a position never change once they are computed. A
[`KVCache`][papercode.attention.kv_cache.KVCache] stands where `attend` stood, keeps what it is given, and lets the new
queries attend to all of it. So the decoder is fed the newest token alone.

One rule serves both attentions of the decoder. Self-attention brings one new key a step. Cross-attention brings all
keys of the source in the first step and none later: the decoder is then given a memory of length 0.

Imports: `Transformer`, whose decoder is stepped [@vaswani2017attention], and `wrapped`, which puts the caches there.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from papercode.attention.transformer import Transformer
from papercode.attention.wrapping import wrapped


class KVCache(nn.Module):
    """An `attend` that remembers: q attends to the keys and values of this call and of all calls before it.

    Args:
        attend: What is done with q and with all k and v so far.
    """

    def __init__(self, attend: Callable[..., Tensor]):
        super().__init__()
        self.attend = attend
        self.k: Tensor | None = None
        self.v: Tensor | None = None

    def forward(
        self, q: Float[Tensor, "b h n d"], k: Float[Tensor, "b g m d"], v: Float[Tensor, "b g m e"], **kwargs
    ) -> Float[Tensor, "b h n f"]:
        """A mask in kwargs spans all keys so far, the new ones last."""
        self.k = k if self.k is None else torch.cat([self.k, k], 2)
        self.v = v if self.v is None else torch.cat([self.v, v], 2)
        return self.attend(q, self.k, self.v, **kwargs)

    def reorder(self, rows: Int[Tensor, " r"]) -> None:
        """Makes row i continue what was row rows[i]: beam search drops some hypotheses and doubles others."""
        if self.k is not None and self.v is not None:
            self.k, self.v = self.k[rows], self.v[rows]


@contextmanager
def cached_steps(
    model: Transformer, source: Int[Tensor, "b s"], source_mask: Bool[Tensor, "b s"] | None = None
) -> Iterator[Callable[[Tensor, Tensor], Tensor]]:
    """Encodes source, and gives out a step for [`papercode.decoding`][papercode.decoding] that feeds new tokens only.

    The caches live as long as the context, and serve one search.
    """
    memory, memory_mask, start = model.encode(source, source_mask), source_mask, 0
    with wrapped(model.decoder, KVCache) as caches:

        def step(tokens: Tensor, parents: Tensor) -> Tensor:
            nonlocal memory, memory_mask, start
            for cache in caches.values():
                cache.reorder(parents)
            memory_mask = None if memory_mask is None else memory_mask[parents]
            logits = model.decode(tokens[:, start:], memory[parents], memory_mask, start)
            memory, start = memory[parents][:, :0], tokens.shape[1]  # its keys are in the caches now
            return logits[:, -1]

        yield step
