r"""GPT-2's weights laid out for generation on a CPU, where a step of one token is bound by reading them.

Imports: `GPT2` and `PreNorm` are the readable model [@radford2019language], to whose logits these are equal; its layers
are those of @vaswani2017attention, its norm is that of @ba2016layer.

A row times a matrix is a weighted sum of the rows of its transpose, and such sums are what `embedding_bag` is for: its
kernel reads memory in order and at full speed, which BLAS does not. For several rows oneDNN does better than BLAS. So
each matrix is copied once into the layout that suits the number of rows; q, k and v become one matrix; and keys and
values of all layers stand in one buffer, of which a search moves what was generated and not the prompts.

Symbols: r rows (sequences, hypotheses), n new tokens, m tokens so far, h heads, d width of a head.
"""

from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from papercode.attention.layer_norm import FusedLayerNorm, LayerNorm
from papercode.attention.transformer import EncoderLayer, FeedForward, MultiHeadAttention, attention, causal_mask
from papercode.decoders.gpt2 import GPT2, PreNorm

_KNOWN = {EncoderLayer, FeedForward, MultiHeadAttention, PreNorm, LayerNorm, FusedLayerNorm}
_KNOWN |= {nn.Linear, nn.Embedding, nn.Dropout, nn.ModuleList}


class FastMap:
    """x W^T + b, with W copied into the layout that suits so many rows of x; any other number of rows works too.

    Args:
        weight: (out in), as in nn.Linear.
        bias: (out); none adds nothing.
        rows: 1, or more.
    """

    def __init__(self, weight: Float[Tensor, "o i"], bias: Float[Tensor, " o"] | None = None, rows: int = 1):
        weight = weight.detach()
        bias = None if bias is None else bias.detach().clone()
        self.bias: Tensor | None = bias
        self.packed: tuple[Tensor, Tensor | None] | None = None
        packs = weight.device.type == "cpu" and weight.dtype == torch.float32 and torch.backends.mkldnn.is_available()
        if rows > 1 and packs:  # mkldnn is the old name of oneDNN
            self.packed = weight.to_mkldnn(), None if bias is None else bias.to_mkldnn()
        else:
            self.weight = weight.T.contiguous()
            self.inputs = torch.arange(len(self.weight), device=weight.device)[None]

    def __call__(self, x: Float[Tensor, "r i"]) -> Float[Tensor, "r o"]:
        """The map, without a gradient."""
        if self.packed is not None:
            return F.linear(x.to_mkldnn(), *self.packed).to_dense()
        if len(x) == 1:
            y = F.embedding_bag(self.inputs, self.weight, per_sample_weights=x, mode="sum")
            return y if self.bias is None else y + self.bias
        return x @ self.weight if self.bias is None else torch.addmm(self.bias, x, self.weight)


class FastGPT2:
    """A copy of a GPT-2's weights from which any number of searches make their steps. It does not train.

    It takes as much memory as the model, of which it keeps the embeddings only.

    Args:
        model: The model; its attends may be any.
        rows: How many sequences are continued at once, hypotheses included. A wrong number costs time and nothing else.

    Raises:
        ValueError: If the model has parts that are not GPT-2's (LoRA, another norm or residual), or rows is below 1.
    """

    def __init__(self, model: GPT2, rows: int = 1):
        if rows < 1:
            raise ValueError(f"rows={rows} must be at least 1")
        _check(model)
        first: Any = next(layer for layer in model.modules() if isinstance(layer, MultiHeadAttention))
        self.heads, self.d = first.q.out_features // first.d_k, first.d_k
        with torch.no_grad():
            self.words, self.positions = model.words.weight.detach(), model.positions.weight.detach()
            self.head, self.norm = FastMap(self.words, None, rows), _fused(model.norm)
            self.layers = [_layer(layer, rows) for layer in model.layers]

    def steps(self, capacity: int = 0) -> Callable[[Tensor, Tensor], Tensor]:
        """A step for [`papercode.decoding`][papercode.decoding] that feeds new tokens only; it serves one search.

        Args:
            capacity: Tokens to make room for, prompt and continuation, so that no buffer has to grow.

        Returns:
            step(tokens, parents) -> logits. It raises a ValueError if the text grows longer than n_positions.
        """
        start = prompt = 0
        cache: Tensor | None = None  # keys and values (layers 2 r h capacity d)
        owner: Tensor | None = None  # the prompt that a row continues

        @torch.no_grad()
        def step(tokens: Tensor, parents: Tensor) -> Tensor:
            nonlocal start, prompt, cache, owner
            (r, m), n = tokens.shape, tokens.shape[1] - start
            if m > len(self.positions):
                raise ValueError(f"tokens reach position {m}, but n_positions={len(self.positions)}")
            if cache is None or owner is None:
                shape = len(self.layers), 2, r, self.heads, max(capacity, m), self.d
                cache, owner, prompt = self.words.new_empty(shape), parents, m
            else:
                if not torch.equal(parents, torch.arange(cache.shape[2], device=parents.device)):
                    before, owner = owner, owner[parents]
                    if torch.equal(owner, before):  # every row goes on with its own prompt, whose keys stay
                        cache[:, :, :, :, prompt:start] = cache[:, :, parents, :, prompt:start]
                    else:
                        cache = cache[:, :, parents]
                if m > cache.shape[4]:
                    cache = F.pad(cache, (0, 0, 0, max(m, 2 * cache.shape[4]) - cache.shape[4]))
            x = (F.embedding(tokens[:, start:], self.words) + self.positions[start:m]).flatten(0, 1)  # (r·n d_model)
            for (norm, qkv, attend, o, norm_2, expand, activation, contract), kept in zip(self.layers, cache):
                q, kv = qkv(norm(x)).view(r, n, 3, self.heads, self.d).permute(2, 0, 3, 1, 4).split([1, 2])
                kept[:, :, :, start:m] = kv
                y = attend(q[0], kept[0, :, :, :m], kept[1, :, :, :m], mask=causal_mask)
                x = x + o(y.transpose(1, 2).reshape(r * n, -1))
                x = x + contract(activation(expand(norm_2(x))))
            start = m
            return self.head(self.norm(x.view(r, n, -1)[:, -1]))

        return step


def fused_attention(q: Tensor, k: Tensor, v: Tensor, *, mask: Callable[..., Tensor] | None = None) -> Tensor:
    """PyTorch's kernel as an `attend`, as far as a step needs it: `causal_mask` or no mask, no dropout."""
    n, m = q.shape[2], k.shape[2]
    seen = None if mask is None or n in (1, m) else mask(n, m, q.device)
    return F.scaled_dot_product_attention(q, k, v, seen, is_causal=mask is not None and n == m)


def _layer(layer: Any, rows: int) -> tuple[Callable[..., Tensor], ...]:
    a, f = layer.attention, layer.feed_forward
    maps = a.q, a.k, a.v
    bias = None if a.q.bias is None else torch.cat([m.bias for m in maps])
    qkv = FastMap(torch.cat([m.weight for m in maps]), bias, rows)
    o, expand, contract = (FastMap(m.weight, m.bias, rows) for m in (a.o, f.expand, f.contract))
    first, second = (_fused(residual.norm) for residual in layer.residuals)
    attend = fused_attention if a.attend is attention else a.attend
    return first, qkv, attend, o, second, expand, f.activation, contract


def _fused(norm: Any) -> Callable[[Tensor], Tensor]:
    gain, bias, eps = norm.gain.detach().clone(), norm.bias.detach().clone(), norm.eps
    return lambda x: F.layer_norm(x, gain.shape, gain, bias, eps)


def _check(model: GPT2) -> None:
    for name in ("embed", "encode", "logits"):
        if getattr(type(model), name, None) is not getattr(GPT2, name):
            raise ValueError(f"{type(model).__name__} has its own {name}(), which would be left out")
    for name, module in model.named_modules():
        inside = {"attend", "activation"} & set(name.split("."))  # these are called as they are
        if name and not inside and type(module) not in _KNOWN:
            raise ValueError(f"{name} is of type {type(module).__name__}, which would be left out")
        if isinstance(module, MultiHeadAttention) and not (
            module.q.weight.shape == module.k.weight.shape == module.v.weight.shape
        ):
            raise ValueError(f"{name} has q, k and v of different shapes; they are joined here")
