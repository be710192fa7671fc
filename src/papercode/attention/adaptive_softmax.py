r"""Large vocabularies in clusters: frequent words get wide vectors, rare ones narrow ones.

Imports: nothing from an older paper's module. The Transformer-XL [@dai2019transformerxl, section 4.1] uses on
WikiText-103 the adaptive softmax [@grave2017efficient] and adaptive input representations [@baevski2019adaptive];
neither paper has a note here, so the two stand with the first that needed them.

Symbols: v tokens, sorted from frequent to rare, cut into clusters 0, 1, …; cluster 0 is the *head*. b, n any batch and
positions, d width of the model. Cluster i has vectors of width $d_i = \lfloor d / \mathrm{div}^i \rfloor$.

Differences from the paper:
    * It gives no sizes. The cuts and the divisor 4 of its models are in the released code.
    * With divisor 1 there are no projections, as in the released code: the vectors have the width of the model.
    * The clusters' own vectors, the head's extra classes, begin at zero, as in the released code.
"""

import math
from collections.abc import Sequence
from itertools import pairwise

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn


class AdaptiveEmbedding(nn.Module):
    r"""Looks a token up in the table of its cluster, and maps the vector to the width of the model.

    The result is multiplied by $\sqrt{d}$, as in the Transformer.

    Args:
        n_tokens: v.
        d_model: d.
        cutoffs: First token of clusters 1, 2, …, ascending. Without cutoffs: a plain table of v rows.
        div: Each cluster is so many times narrower than the one before it.
        project_head: Whether cluster 0, which is as wide as the model, has a projection like the others (if div > 1).

    Raises:
        ValueError: If cutoffs do not ascend between 0 and n_tokens, or a cluster would be less than 1 wide.
    """

    def __init__(
        self, n_tokens: int, d_model: int, *, cutoffs: Sequence[int] = (), div: int = 1, project_head: bool = False
    ):
        super().__init__()
        self.ends = [0, *cutoffs, n_tokens]
        if any(low >= high for low, high in pairwise(self.ends)):
            raise ValueError(f"cutoffs={list(cutoffs)} must ascend, all between 0 and n_tokens={n_tokens}")
        if div < 1 or d_model < div ** len(cutoffs):
            raise ValueError(f"div={div} leaves the last of {len(cutoffs) + 1} clusters less than 1 wide ({d_model=})")
        self.d_model, self.div, self.project_head = d_model, div, project_head
        self.widths = [d_model // div**i for i in range(len(self.ends) - 1)]
        sizes = (high - low for low, high in pairwise(self.ends))
        self.tables = nn.ModuleList(nn.Embedding(size, width) for size, width in zip(sizes, self.widths, strict=True))
        self.projections = self.new_projections()

    def new_projections(self) -> nn.ModuleList:
        """Linear maps from the clusters' widths to the model's, the identity where there is nothing to map."""
        needed = [self.div > 1 and (i > 0 or self.project_head) for i in range(len(self.widths))]
        maps = [
            (nn.Linear(w, self.d_model, bias=False) if need else nn.Identity()) for w, need in zip(self.widths, needed)
        ]
        return nn.ModuleList(maps)

    def forward(self, tokens: Int[Tensor, "*b"]) -> Float[Tensor, "*b d"]:
        """Raises IndexError if a token is not in 0 … v - 1."""
        if len(self.tables) == 1:
            return self.projections[0](self.tables[0](tokens)) * math.sqrt(self.d_model)
        flat, found = tokens.flatten(), 0
        y = next(self.parameters()).new_zeros(len(flat), self.d_model)
        for (low, high), table, projection in zip(pairwise(self.ends), self.tables, self.projections):
            where = ((flat >= low) & (flat < high)).nonzero()[:, 0]
            y, found = y.index_copy(0, where, projection(table(flat[where] - low)).to(y)), found + len(where)
        if found < len(flat):
            raise IndexError(f"{len(flat) - found} tokens are not in 0 … {self.ends[-1] - 1}")
        return y.unflatten(0, tokens.shape) * math.sqrt(self.d_model)


class AdaptiveSoftmax(nn.Module):
    r"""$\log p(w \mid x)$: for a frequent word its class in the head; else that of its cluster, plus its own within.

    The vectors of the words are those of the embedding. So are the projections where `tie` says so, the other way
    round: from the width of the model to that of the cluster.

    Args:
        embedding: Where the words' vectors come from.
        tie: For each cluster, whether it shares the embedding's projection or has one of its own; all share unless
            given.

    Raises:
        ValueError: If tie is not as long as there are clusters.
    """

    def __init__(self, embedding: AdaptiveEmbedding, tie: Sequence[bool] | None = None):
        super().__init__()
        self.ends, self.words = embedding.ends, nn.ParameterList(table.weight for table in embedding.tables)
        clusters = len(self.words)
        tie = [True] * clusters if tie is None else tie
        if len(tie) != clusters:
            raise ValueError(f"tie={list(tie)} must have one entry for each of the {clusters} clusters")
        own = embedding.new_projections()
        self.projections = nn.ModuleList(e if t else o for e, o, t in zip(embedding.projections, own, tie))
        self.biases = nn.ParameterList(torch.zeros(len(words)) for words in self.words)
        self.clusters = nn.Linear(embedding.d_model, clusters - 1) if clusters > 1 else None
        if self.clusters is not None:
            nn.init.zeros_(self.clusters.weight)
            nn.init.zeros_(self.clusters.bias)

    def forward(self, x: Float[Tensor, "*b d"]) -> Float[Tensor, "*b v"]:
        """Log-probabilities of all tokens."""
        head, size = self._head(x), self.ends[1]
        tails = (self._logits(x, i).log_softmax(-1) + head[..., size + i - 1, None] for i in range(1, len(self.words)))
        return torch.cat([head[..., :size], *tails], -1)

    def loss(self, x: Float[Tensor, "*b d"], target: Int[Tensor, "*b"]) -> Float[Tensor, "*b"]:
        """Minus the log-probability of each target; a cluster is computed only where a target lies in it."""
        flat, wanted = x.flatten(0, -2), target.flatten()
        head, size = self._head(flat), self.ends[1]
        cluster = torch.bucketize(wanted, wanted.new_tensor(self.ends[1:-1]), right=True)
        y = -head.gather(-1, torch.where(cluster == 0, wanted, size + cluster - 1)[:, None])[:, 0]
        for i in range(1, len(self.words)):
            where = (cluster == i).nonzero()[:, 0]
            within = self._logits(flat[where], i).log_softmax(-1)
            y = y.index_add(0, where, -within.gather(-1, (wanted[where] - self.ends[i])[:, None])[:, 0])
        return y.unflatten(0, target.shape)

    def _head(self, x: Tensor) -> Tensor:
        logits = self._logits(x, 0)
        if self.clusters is not None:
            logits = torch.cat([logits, self.clusters(self._narrow(x, 0))], -1)
        return logits.log_softmax(-1)

    def _narrow(self, x: Tensor, i: int) -> Tensor:
        projection = self.projections[i]
        return x @ projection.weight if isinstance(projection, nn.Linear) else x

    def _logits(self, x: Tensor, i: int) -> Tensor:
        return self._narrow(x, i) @ self.words[i].T + self.biases[i]
