"""Small models that LoRA must be able to adapt; every width another prime where it can be."""

from functools import partial

import torch
from torch import nn

from papercode.attention.transformer import MultiHeadAttention, attention


class Int8Linear(nn.Module):
    """A quantised projection: integers and a scale per row, no float weight."""

    def __init__(self, linear):
        super().__init__()
        self.in_features, self.out_features = linear.in_features, linear.out_features
        scale = linear.weight.detach().abs().amax(1, keepdim=True) / 127
        self.register_buffer("scale", scale)
        self.register_buffer("weight", (linear.weight.detach() / scale).round().to(torch.int8))

    def forward(self, x):
        return x @ (self.scale * self.weight).mT


def repeat_kv(q, k, v, **kwargs):
    """One head of keys and values for all heads of queries."""
    return attention(q, k.expand(-1, q.shape[1], -1, -1), v.expand(-1, q.shape[1], -1, -1), **kwargs)


class Block(MultiHeadAttention):
    """Grouped queries: k and v are narrower than q."""

    def __init__(self, d, h):
        super().__init__(d, h, attend=partial(repeat_kv))
        self.k, self.v = nn.Linear(d, d // h), nn.Linear(d, d // h)


class Model(nn.Module):
    """Embeddings, two blocks of attention (d = 21, three heads, one of keys and values), a head."""

    def __init__(self):
        super().__init__()
        self.tokens = nn.Embedding(13, 21, padding_idx=0)
        self.blocks = nn.ModuleList(Block(21, 3) for _ in range(2))
        self.head = nn.Linear(21, 5)

    def forward(self, ids):
        x = self.tokens(ids)
        for block in self.blocks:
            x = x + block(x)
        return self.head(x)


def ids():
    return torch.randint(1, 13, (2, 7))
