r"""One layer of convolutions over word vectors, for classifying sentences [@kim2014convolutional].

Imports: nothing from an older paper's module. The word vectors were word2vec's [@mikolov2013distributed]; any will do.

Symbols: b sentences, n words (the paper's n), k width of a word vector, w width of a filter in words (the paper's h), m
filters (feature maps) of each width, c classes. The paper's $\hat c$ = a pooled feature, $z$ = all of them, the
penultimate layer, $s$ = the largest norm of a class's weights, $p$ = the rate of dropout.

Differences from the paper:
    * The paper fills all sentences up to one length, so that windows which hold nothing but padding compete for the
      maximum. Here they are left out: a sentence's answer does not depend on its neighbours in the batch. Only a
      sentence with fewer words than a filter is wide is filled up, to one window.
    * Dropout divides by $1 - p$ in training, in place of multiplying the weights by it at test time: the same network,
      but for the constant in front of the weights during training.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

PADDING = 0
"""The token that fills up a batch; its vector is zero, and stays zero."""


def random(v: int, k: int, *, a: float = 0.25) -> nn.Embedding:
    """CNN-rand's channel: vectors drawn uniformly from [-a, a], and trained.

    Args:
        v: Number of words, padding included.
        k: Width of a vector.
        a: For a word that pre-trained vectors lack, the paper picks a so that both have the same variance.
    """
    embedding = nn.Embedding(v, k, padding_idx=PADDING)
    nn.init.uniform_(embedding.weight, -a, a)
    embedding.weight.data[PADDING] = 0
    return embedding


def static(vectors: Float[Tensor, "v k"]) -> nn.Embedding:
    """CNN-static's channel: these vectors, never changed. Row 0, the padding, is set to zero."""
    return nn.Embedding.from_pretrained(without_padding(vectors), freeze=True, padding_idx=PADDING)


def tuned(vectors: Float[Tensor, "v k"]) -> nn.Embedding:
    """CNN-non-static's channel: training starts from a copy of these vectors. Row 0, the padding, is set to zero."""
    return nn.Embedding.from_pretrained(without_padding(vectors), freeze=False, padding_idx=PADDING)


def without_padding(vectors: Float[Tensor, "v k"]) -> Float[Tensor, "v k"]:
    """A copy with zeros for the padding."""
    vectors = vectors.clone()
    vectors[PADDING] = 0
    return vectors


class TextCNN(nn.Module):
    """The network; which of the four variants it is, its channels say.

    `[random(v, k)]` is CNN-rand, `[static(vectors)]` CNN-static, `[tuned(vectors)]` CNN-non-static, and
    `[static(vectors), tuned(vectors)]` CNN-multichannel.

    Args:
        channels: Embeddings of one size. Each filter is applied to all of them, and the results are added.
        n_classes: c.
        widths: Of the filters, in words.
        n_maps: m, filters of each width.
        dropout: p, on the pooled features.

    Raises:
        ValueError: If there is no channel, the channels differ in size, or a width is less than 1.
    """

    def __init__(
        self,
        channels: Sequence[nn.Embedding],
        n_classes: int,
        *,
        widths: Sequence[int] = (3, 4, 5),
        n_maps: int = 100,
        dropout: float = 0.5,
    ):
        super().__init__()
        sizes = {tuple(channel.weight.shape) for channel in channels}
        if len(sizes) != 1:
            raise ValueError(f"channels have the sizes {sorted(sizes)}: there must be one, the same for all")
        if not widths or min(widths) < 1:
            raise ValueError(f"widths={tuple(widths)} must be one or more numbers, each at least 1")
        k = channels[0].embedding_dim
        self.channels = nn.ModuleList(channels)
        self.widths = tuple(widths)
        self.filters = nn.ModuleList(nn.Conv1d(k, n_maps, width) for width in widths)
        self.dropout = nn.Dropout(dropout)
        self.output = nn.Linear(n_maps * len(widths), n_classes)

    def embed(self, tokens: Int[Tensor, "b n"]) -> Float[Tensor, "b k n"]:
        """The sum of the channels: a filter is linear, so that w·x + w·y is w·(x + y)."""
        return torch.stack([channel(tokens) for channel in self.channels]).sum(0).transpose(1, 2)

    def pool(self, c: Float[Tensor, "b m t"], real: Bool[Tensor, "b t"]) -> Float[Tensor, "b m"]:
        """Max over time [@kim2014convolutional, section 2]: the largest of each feature, over the real windows."""
        return c.masked_fill(~real[:, None], -torch.inf).amax(-1)

    def features(self, tokens: Int[Tensor, "b n"]) -> Float[Tensor, "b f"]:
        """z, the penultimate layer: one number for each filter.

        Raises:
            ValueError: If a sentence has no words, or padding stands before a word.
        """
        keep = tokens != PADDING
        lengths = keep.sum(1)
        if not keep.shape[1] or not keep[:, 0].all() or (keep[:, 1:] & ~keep[:, :-1]).any():
            raise ValueError("tokens must begin with a word in each row, and padding (0) stands behind all words")
        x = F.pad(self.embed(tokens), (0, max(max(self.widths) - tokens.shape[1], 0)))
        pooled = []
        for width, f in zip(self.widths, self.filters):
            c = F.relu(f(x))
            windows = (lengths - width + 1).clamp(min=1)
            pooled.append(self.pool(c, torch.arange(c.shape[-1], device=c.device) < windows[:, None]))
        return torch.cat(pooled, 1)

    def forward(self, tokens: Int[Tensor, "b n"]) -> Float[Tensor, "b c"]:
        """Logits of the classes, for sentences that are filled up behind with 0.

        Raises:
            ValueError: If a sentence has no words, or padding stands before a word.
        """
        return self.output(self.dropout(self.features(tokens)))


@torch.no_grad()
def max_norm_(weight: Float[Tensor, "c f"], s: float = 3.0) -> None:
    r"""Scales rows with $\|w\|_2 > s$ back to $\|w\|_2 = s$, in place; others stay as they are.

    The paper's only penalty on weights [@kim2014convolutional, section 2.1]. To be called after each step:
    `optimizer.register_step_post_hook(lambda *_: max_norm_(model.output.weight))`.

    Raises:
        ValueError: If s is not positive.
    """
    if s <= 0:
        raise ValueError(f"s={s} must be positive")
    norms = weight.norm(dim=1, keepdim=True)
    weight.copy_(torch.where(norms > s, weight * (s / norms), weight))
