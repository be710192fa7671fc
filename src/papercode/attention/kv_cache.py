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

    They stand in buffers that double when they are full, so that n steps copy O(n) keys and not O(n^2). A buffer that
    is written in place has no gradient to give; where one is wanted, the tensors are joined anew instead.

    Args:
        attend: What is done with q and with all k and v so far.
        capacity: Positions to make room for at the start.

    Raises:
        ValueError: If capacity is negative, or later k and v have another batch, number of heads, width, dtype or
            device than the first.
    """

    def __init__(self, attend: Callable[..., Tensor], capacity: int = 0):
        super().__init__()
        if capacity < 0:
            raise ValueError(f"capacity={capacity} must be at least 0")
        self.attend, self.capacity, self.length = attend, capacity, 0
        self._k: Tensor | None = None
        self._v: Tensor | None = None

    @property
    def k(self) -> Float[Tensor, "b g m d"] | None:
        """All keys so far, a view of the buffer."""
        return None if self._k is None else self._k[:, :, : self.length]

    @property
    def v(self) -> Float[Tensor, "b g m e"] | None:
        """All values so far, a view of the buffer."""
        return None if self._v is None else self._v[:, :, : self.length]

    def forward(
        self, q: Float[Tensor, "b h n d"], k: Float[Tensor, "b g m d"], v: Float[Tensor, "b g m e"], **kwargs
    ) -> Float[Tensor, "b h n f"]:
        """A mask in kwargs spans all keys so far, the new ones last."""
        length = self.length + k.shape[2]
        self._k, self._v = self._extended("k", self._k, k, length), self._extended("v", self._v, v, length)
        self.length = length
        return self.attend(q, self.k, self.v, **kwargs)

    def reorder(self, rows: Int[Tensor, " r"]) -> None:
        """Makes row i continue what was row rows[i]: beam search drops some hypotheses and doubles others."""
        if self._k is not None and self._v is not None:
            self._k, self._v = self._k[rows], self._v[rows]

    def _extended(self, name: str, buffer: Tensor | None, new: Tensor, length: int) -> Tensor:
        if buffer is None:
            buffer = new.new_empty(*new.shape[:2], max(self.capacity, length), new.shape[3])
        for axis, what in ((0, "batch"), (1, "heads"), (3, "width")):
            if buffer.shape[axis] != new.shape[axis]:
                raise ValueError(
                    f"{name} has {what} {new.shape[axis]}, but the cache holds {what} {buffer.shape[axis]}"
                )
        if (buffer.dtype, buffer.device) != (new.dtype, new.device):
            kept = f"{buffer.dtype} on {buffer.device}"
            raise ValueError(f"{name} is {new.dtype} on {new.device}, but the cache holds {kept}")
        if torch.is_grad_enabled() and (new.requires_grad or buffer.requires_grad):
            return torch.cat([buffer[:, :, : self.length], new], 2)
        if length > buffer.shape[2]:
            bigger = new.new_empty(*new.shape[:2], max(length, 2 * buffer.shape[2]), new.shape[3])
            bigger[:, :, : self.length] = buffer[:, :, : self.length]
            buffer = bigger
        buffer[:, :, self.length : length] = new
        return buffer


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
            if not torch.equal(parents, torch.arange(len(memory), device=parents.device)):
                for cache in caches.values():
                    cache.reorder(parents)
            memory_mask = None if memory_mask is None else memory_mask[parents]
            logits = model.decode(tokens[:, start:], memory[parents], memory_mask, start)
            memory, start = memory[parents][:, :0], tokens.shape[1]  # its keys are in the caches now
            return logits[:, -1]

        yield step
